"""Settings."""

from pathlib import Path

import pytest

from hami_mig_manager.config import Config
from hami_mig_manager.plan import Rules


def test_defaults_need_no_more_than_the_node():
    """As the DaemonSet starts it."""
    assert Config.parse([], {"NODE_NAME": "n"}) == Config("n")


def test_arguments_win_over_the_environment():
    """Each setting has both."""
    environment = {"NODE_NAME": "n", "GRACE": "5", "BLOCK": "7", "CGROUP_ROOT": "/c"}
    found = Config.parse(["--grace=6", "--metrics-bind-address=:1", "--dry-run"], environment)
    assert (found.rules, found.cgroup_root) == (Rules(6.0, 60.0, 7.0), Path("/c"))
    assert (found.port, found.dry_run, found.once) == (1, True, False)


@pytest.mark.parametrize(
    ("argv", "says"), [([], "NODE_NAME"), (["--node-name=n", "--grace=x"], "'x' is no number")]
)
def test_a_mistake_is_one_line(argv, says, capsys):
    """With code 2."""
    with pytest.raises(SystemExit) as ended:
        Config.parse(argv, {})
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
