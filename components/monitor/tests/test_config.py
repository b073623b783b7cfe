"""Settings from arguments and environment."""

import re
from pathlib import Path

import pytest

from hami_monitor.config import Config


def test_the_environment_is_enough():
    """A DaemonSet gives NODE_NAME; all else has a default."""
    config = Config.parse([], {"NODE_NAME": "node-1"})
    assert config == Config("node-1")
    assert config.containers == Path("/usr/local/vgpu/containers")
    assert (config.host, config.port) == ("0.0.0.0", 9394)


def test_an_argument_beats_the_environment():
    """Each flag has its variable, and wins over it."""
    environ = {"NODE_NAME": "node-1", "HOOK_PATH": "/opt", "METRICS_BIND_ADDRESS": ":1"}
    config = Config.parse(["--node-name=node-2", "--metrics-bind-address=[::1]:2"], environ)
    assert (config.node_name, config.hook_path) == ("node-2", Path("/opt"))
    assert (config.host, config.port) == ("::1", 2)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--node-name="], "NODE_NAME"),
        (["--metrics-bind-address=9394"], "write .HOST.:PORT"),
        (["--metrics-bind-address=:99999"], "no port"),
        (["--nvml-interval=soon"], "no number of seconds"),
        (["--nvml-deadline=0"], "between 0.1 and 3600"),
        (["--nvml-deadline=nan"], "between 0.1 and 3600"),
        (["--log-level=loud"], "none of debug, info"),
        (["--unknown"], "unrecognized"),
    ],
)
def test_a_bad_setting_is_named(argv, says, capsys):
    """One line says which setting and what to write."""
    with pytest.raises(SystemExit) as ended:
        Config.parse(argv, {"NODE_NAME": "node-1"})
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(says, said)
