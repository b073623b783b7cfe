"""Whose process it is, by the names that container runtimes give to cgroups."""

import re
from typing import Final, NamedTuple

_UID: Final = r"[0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12}"
# cgroupfs: .../pod<uid>/<id>; systemd: ...-pod<uid, _ for ->.slice/cri-containerd-<id>.scope; with
# mixed drivers ...-pod<uid>.slice:cri-containerd:<id>. Nested cgroups may follow.
_POD: Final = re.compile(rf"(?:^|[/-])pod({_UID})(?:\.slice)?(?=[/:]|$)")
_CONTAINER: Final = re.compile(r"[/:](?:[a-z-]+[-:])?([0-9a-f]{64})(?:\.scope)?(?=/|$)")


class Owner(NamedTuple):
    """A pod's UID as kubelet knows it, and the runtime's id of the container (empty: none)."""

    pod_uid: str
    container_id: str


def owners(text: str) -> tuple[Owner, ...]:
    """The pods that a process lies in by its /proc/<pid>/cgroup, outermost first; empty: a host's.

    Works for cgroup v1 and v2, with both drivers, for every QoS class, and for paths relative to
    the reader's own cgroup namespace. More than one where nodes themselves run in pods.
    """
    for line in text.splitlines():
        path = line.split(":", 2)[-1]
        found = tuple(_owner(match, path) for match in _POD.finditer(path))
        if found:
            return found
    return ()


def _owner(pod: "re.Match[str]", path: str) -> Owner:
    container = _CONTAINER.search(path, pod.end())
    return Owner(pod[1].replace("_", "-"), container[1] if container else "")
