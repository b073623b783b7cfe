"""Settings."""

import pytest

from hami_extender.config import Config


def test_defaults():
    """HAMi's policies, our shortlist, and verbs on the loopback only."""
    config = Config.parse([], {})
    assert (config.bind_host, config.bind_port) == ("127.0.0.1", 9380)
    assert (config.status_host, config.status_port) == ("0.0.0.0", 9395)
    assert (config.node_policy, config.gpu_policy, config.shortlist) == ("binpack", "spread", 64)
    assert config.device_config_file is None
    assert config.scheduler_name == "hami-scheduler"


def test_flags_win_over_variables():
    """Each flag has a variable as its default."""
    environ = {"HAMI_SHORTLIST": "strict", "HAMI_GPU_SCHEDULER_POLICY": "binpack"}
    assert Config.parse([], environ).shortlist == 1
    assert Config.parse(["--shortlist=7"], environ).shortlist == 7
    assert Config.parse([], environ).gpu_policy == "binpack"
    assert Config.parse(["--bind-address", "[::1]:80"], {}).bind_host == "::1"
    for argv in (["--leader-elect"], ["--leader-elect=true"]):
        assert Config.parse(argv, {}).leader_elect
    assert not Config.parse(["--leader-elect=false"], {"HAMI_LEADER_ELECT": "true"}).leader_elect


def test_node_lock_timeout():
    """HAMi's variable counts unless it is set anew (HAMi defect 8.11: never)."""
    assert Config.parse([], {}).lock_timeout_s == 300
    environ = {"HAMI_NODELOCK_EXPIRE": "1h2m3s"}
    assert Config.parse([], environ).lock_timeout_s == 3723
    environ["HAMI_NODE_LOCK_TIMEOUT"] = "7m"
    assert Config.parse([], environ).lock_timeout_s == 420
    assert Config.parse(["--node-lock-timeout=90s"], environ).lock_timeout_s == 90
    assert not Config.parse([], {}).lock_protocol
    assert Config.parse(["--lock-protocol"], {}).lock_protocol


@pytest.mark.parametrize(
    "argv",
    [
        ["--shortlist=0"],
        ["--shortlist=many"],
        ["--bind-address=9380"],
        ["--status-address=:99999"],
        ["--node-scheduler-policy=tidy"],
        ["--explain-port=99999"],
        ["--node-lock-timeout=5"],
        ["--node-lock-timeout=0s"],
        ["--lock-protocol=maybe"],
        ["--start-delay=-1"],
        ["--start-delay=soon"],
        ["--log-level=loud"],
        ["--no-such-flag"],
    ],
)
def test_bad_settings_end_with_one_line(argv, capsys):
    """Exit code 2, one line, no traceback; the flag is named."""
    with pytest.raises(SystemExit) as ended:
        Config.parse(argv, {})
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert argv[0].split("=")[0] in said
