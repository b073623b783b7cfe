"""What a cluster of our own Docker changes on the machine, and how each change is taken back.

Nothing here needs a record of what was done, except of what was there before: names of the
bridge, the cgroup and the comment on every firewall rule follow from the cluster's name.
"""

import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from e2e.lab.errors import LabError
from e2e.lab.programs import Programs, ask

# Folders that kind, Docker and mount make on the machine, inner ones first; they stay empty.
FOLDERS = tuple(
    Path(name)
    for name in (
        "/lib/modules",
        "/run/containerd",
        "/run/docker/plugins",
        "/run/docker",
        "/run/mount",
    )
)
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
CGROUPS = Path("/sys/fs/cgroup")


def bridge(cluster: str) -> str:
    """The network device that the nodes hang on."""
    return f"lab-{cluster}"


def comment(cluster: str) -> str:
    """The comment on every firewall rule of ours."""
    return f"hami-lab:{cluster}"


def cgroup(cluster: str) -> str:
    """The cgroup above all nodes."""
    return f"hami-lab-{cluster}"


def record(state: Path) -> Path:
    """The note about the machine before; its presence means that a Docker of ours was started."""
    return state / "host.json"


def remember(note_file: Path, folders: tuple[Path, ...] = FOLDERS, forward: Path = FORWARD) -> None:
    """Notes what the machine was like, once, before anything is changed."""
    if note_file.exists():
        return
    absent = [str(folder) for folder in folders if not folder.exists()]
    note = {"absent": absent, "ip_forward": forward.read_text().strip()}
    draft = note_file.with_suffix(".draft")
    draft.write_text(json.dumps(note))
    os.rename(draft, note_file)


def rules(cluster: str, subnet: str) -> tuple[tuple[str, ...], ...]:
    """The firewall rules of a cluster: a way out, and passage where the host forwards nothing."""
    mark = ("-m", "comment", "--comment", comment(cluster))
    name = bridge(cluster)
    return (
        ("nat", "POSTROUTING", "-s", subnet, "!", "-o", name, *mark, "-j", "MASQUERADE"),
        ("filter", "FORWARD", "-i", name, *mark, "-j", "ACCEPT"),
        ("filter", "FORWARD", "-o", name, *mark, "-j", "ACCEPT"),
    )


def open_firewall(cluster: str, subnet: str, programs: Programs) -> None:
    """Inserts the rules that are not there yet."""
    for table, chain, *rule in rules(cluster, subnet):
        if ask("iptables", "-w", "-t", table, "-C", chain, *rule) is None:
            programs.run("iptables", "-w", "-t", table, "-I", chain, *rule)


def deletions(saved: str, mark: str) -> list[list[str]]:
    """Arguments of iptables that delete the rules with our comment in an `iptables-save`."""
    found, table = [], ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith("-A "):
            words = shlex.split(line)
            if mark in words and words[words.index(mark) - 1] == "--comment":
                found.append(["-t", table, "-D", *words[1:]])
    return found


def close_firewall(cluster: str, programs: Programs) -> None:
    """Deletes our rules, whatever subnet they name."""
    for rule in deletions(ask("iptables-save") or "", comment(cluster)):
        programs.run("iptables", "-w", *rule)


def drop_links(cluster: str, programs: Programs) -> None:
    """Deletes the bridge and the nodes' ends on it, which a dying node gives up only by and by."""
    name = bridge(cluster)
    ends = ask("ip", "-o", "link", "show", "master", name) or ""
    links = [line.split(": ")[1].split("@")[0] for line in ends.splitlines()]
    for link in (*links, name):
        if ask("ip", "link", "show", link) is not None:
            # the kernel may be faster
            programs.run("sh", "-c", 'ip link delete "$1" || ! ip link show "$1"', "sh", link)


def drop_cgroups(
    cluster: str,
    root: Path = CGROUPS,
    patience_s: float = 10,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Removes our cgroup from every hierarchy, once the kernel has let its processes go."""
    deadline = now() + patience_s
    tops = [
        path
        for path in (root / cgroup(cluster), *root.glob(f"*/{cgroup(cluster)}"))
        if path.is_dir()
    ]
    for top in tops:
        while top.exists():
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError as error:  # its last process is still going
                    if now() > deadline:
                        raise LabError(f"cgroup {folder} is in use: {error}") from error


def restore(note_file: Path, forward: Path = FORWARD) -> None:
    """Removes the folders that were not there before and sets forwarding back."""
    if not note_file.exists():
        return
    note = json.loads(note_file.read_text())
    for folder in map(Path, note["absent"]):
        if folder.is_dir() and not os.listdir(folder):
            os.rmdir(folder)
    if forward.read_text().strip() != note["ip_forward"]:
        forward.write_text(note["ip_forward"])
