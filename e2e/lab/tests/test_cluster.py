"""A cluster that was hurt is brought back before it is given up."""

from dataclasses import replace

import pytest

from e2e.lab import config
from e2e.lab.cluster import Cluster, place_programs
from e2e.lab.engine import Engine
from e2e.lab.programs import Programs

KUBECTL = """\
#!/bin/sh
# ready at the third look
echo >> {looks}
[ $(wc -l < {looks}) -ge 3 ] && printf ok
"""
DOCKER = """\
#!/bin/sh
case $1 in
ps) cat {running} ;;
start) grep -q "$2" {there} && echo "$2" >> {running} ;;
esac
"""


@pytest.fixture
def hurt(tmp_path, monkeypatch):
    """A cluster whose worker is stopped and whose API server is ready at the third look."""
    lab = replace(config.load({"HOME": str(tmp_path)}), state=tmp_path)
    names = {name: tmp_path / name for name in ("looks", "running", "there")}
    lab.bin.mkdir()
    for program, text in (("kubectl", KUBECTL), ("docker", DOCKER)):
        (lab.bin / program).write_text(text.format(**names))
        (lab.bin / program).chmod(0o755)
    names["running"].write_text("hami-control-plane\n")
    names["there"].write_text("hami-control-plane\nhami-worker\n")
    (tmp_path / "cluster.json").write_text("{}")
    monkeypatch.setenv("PATH", str(lab.bin), prepend=":")
    return Cluster(lab, Engine(), "image", "key", Programs(tmp_path, tmp_path / "log"))


def revive(cluster, patience_s=60):
    """Revives on a clock that only a pause moves."""
    clock = [0.0]

    def pause(seconds):
        clock[0] += seconds

    return cluster.revive(patience_s, lambda: clock[0], pause)


def test_revived(hurt):
    """A stopped node is started and a slow API server is waited for."""
    assert not hurt.is_up()
    assert revive(hurt)
    assert hurt.is_up()


def test_not_ready_in_time(hurt):
    """An API server that does not come back within the patience is given up."""
    assert not revive(hurt, patience_s=0.4)


def test_node_is_gone(hurt):
    """A node whose container is gone cannot be started: the cluster is made anew."""
    (hurt.config.state / "there").write_text("")
    assert not revive(hurt)


def test_half_made(hurt):
    """A cluster whose creation did not come to its end is none."""
    (hurt.config.state / "cluster.json").unlink()
    assert not revive(hurt)


def test_placed_programs(tmp_path):
    """A program that is in use is replaced by a new file, not overwritten."""
    source = tmp_path / "source"
    source.write_text("1")
    place_programs(tmp_path / "bin", {"kind": source})
    with (tmp_path / "bin" / "kind").open() as in_use:
        source.write_text("2")
        place_programs(tmp_path / "bin", {"kind": source})
        assert in_use.read() == "1"
    assert (tmp_path / "bin" / "kind").read_text() == "2"
