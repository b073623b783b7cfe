"""What is changed on the machine is found again and taken back."""

import json

from e2e.lab import host

SAVED = """\
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE
-A POSTROUTING -s 172.17.0.0/16 ! -o lab-hami -m comment --comment "hami-lab:hami" -j MASQUERADE
COMMIT
*filter
-A FORWARD -i lab-hami -m comment --comment "hami-lab:hami" -j ACCEPT
-A FORWARD -i lab-two -m comment --comment "hami-lab:two" -j ACCEPT
-A FORWARD -m comment --comment "not hami-lab:hami" -j ACCEPT
COMMIT
"""


def test_only_our_rules():
    """Rules with our comment are deleted in their tables; all others stay."""
    assert [" ".join(rule) for rule in host.deletions(SAVED, "hami-lab:hami")] == [
        (
            "-t nat -D POSTROUTING -s 172.17.0.0/16 ! -o lab-hami "
            "-m comment --comment hami-lab:hami -j MASQUERADE"
        ),
        "-t filter -D FORWARD -i lab-hami -m comment --comment hami-lab:hami -j ACCEPT",
    ]


def test_every_rule_is_marked():
    """Each rule that a cluster opens carries the comment by which it is found again."""
    for rule in host.rules("hami", "172.17.0.0/16"):
        assert rule[rule.index("--comment") + 1] == host.comment("hami")


def test_restore(tmp_path):
    """Folders that were not there before go, where they are empty; forwarding is set back."""
    made, used, old = (tmp_path / name for name in ("made", "used", "old"))
    forward = tmp_path / "forward"
    forward.write_text("0\n")
    old.mkdir()
    note = tmp_path / "note.json"
    host.remember(note, (made, used, old), forward)
    made.mkdir()
    used.mkdir()
    (used / "file").touch()
    forward.write_text("1\n")
    host.restore(note, forward)
    assert [path.exists() for path in (made, used, old)] == [False, True, True]
    assert forward.read_text() == "0"


def test_remembers_once(tmp_path):
    """A second start after a crash does not take our own traces for the machine's."""
    forward = tmp_path / "forward"
    forward.write_text("0")
    note, folder = tmp_path / "note.json", tmp_path / "made"
    host.remember(note, (folder,), forward)
    folder.mkdir()
    forward.write_text("1")
    host.remember(note, (folder,), forward)
    assert json.loads(note.read_text()) == {"absent": [str(folder)], "ip_forward": "0"}


def test_nothing_remembered(tmp_path):
    """Without a note nothing is touched."""
    host.restore(tmp_path / "note.json", tmp_path / "forward")
    assert list(tmp_path.iterdir()) == []


def test_cgroups(tmp_path):
    """Our cgroup goes from every hierarchy, with all below it, and no other does."""
    for path in ("memory/hami-lab-hami/a/b", "cpu/hami-lab-hami", "memory/other", "hami-lab-hami"):
        (tmp_path / path).mkdir(parents=True)
    host.drop_cgroups("hami", tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["cpu", "memory", "memory/other"]
