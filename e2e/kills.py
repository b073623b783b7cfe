"""kill -9 of the programs that a cluster consists of, as a test wants it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from e2e.kube import Kube, Object, wait_until

# What to kill: (the program as /proc/<pid>/cmdline shows it, the nodes it runs on).
VICTIMS = {
    "kubelet": ("/usr/bin/kubelet", ("hami-worker",)),
    "containerd": ("/usr/local/bin/containerd", ("hami-worker",)),
    "device-plugin": ("hami-device-plugin", ("hami-worker", "hami-control-plane")),
    "mig-manager": ("hami-mig-manager", ("hami-worker",)),
    "extender": ("hami-extender", ("hami-worker", "hami-control-plane")),
    "webhook": ("hami-webhook", ("hami-worker", "hami-control-plane")),
    "monitor": ("hami-monitor", ("hami-worker", "hami-control-plane")),
    "api-server": ("kube-apiserver", ("hami-control-plane",)),
}

# How a victim that runs in a pod gets rid of kubelet's growing back-off, which is minutes long
# after some kills in a row and not what is tested here: as a new pod, or by a new kubelet.
SYSTEM = "hami-system"
RENEWED = {
    "device-plugin": "daemonset/hami-device-plugin",
    "extender": "deployment/hami-scheduler",
    "webhook": "deployment/hami-webhook",
    "monitor": "daemonset/hami-monitor",
}
CONTROL_PLANE = "hami-control-plane"
# kubelet runs what lies in the folder of the first.
MANIFEST, ASIDE = (f"/etc/kubernetes/{path}kube-apiserver.yaml" for path in ("manifests/", ""))
BORNE = 2  # kills in a row whose back-off a test waits out

# Prints the ids of processes whose program, or script run by Python, has this name; shell only,
# because a node image need not have pgrep. containerd's shims have another program name.
FIND = r"""
for d in /proc/[0-9]*; do
  set -- $(tr '\0' ' ' < $d/cmdline 2>/dev/null)
  for w in "$1" "$2"; do
    case "$w" in "$NAME"|*/"$NAME") echo "${d#/proc/}"; break;; esac
  done
done
"""


def processes(kube: Kube, name: str, nodes: Iterable[str]) -> list[tuple[str, str]]:
    """(node, process id) of every process of a program."""
    found: list[tuple[str, str]] = []
    for node in nodes:
        out = kube.node(node, "sh", "-c", f"NAME={name}; {FIND}", check=False)
        found += [(node, pid) for pid in out.split() if pid.isdigit()]
    return found


def kill(kube: Kube, victim: str) -> None:
    """Kill -9 every process of a victim; a victim that does not run is a broken test."""
    name, nodes = VICTIMS[victim]
    wait_until(lambda: None if processes(kube, name, nodes) else f"{victim} to kill", 60)
    for node, pid in processes(kube, name, nodes):
        kube.node(node, "sh", "-c", f"kill -9 {pid}", check=False)


def forgiven(kube: Kube, victim: str) -> None:
    """See that what was killed in earlier turns starts at once when it is killed again."""
    if victim in RENEWED:
        kube.kubectl("rollout", "restart", RENEWED[victim], "-n", SYSTEM)
        kube.kubectl("rollout", "status", RENEWED[victim], "-n", SYSTEM, "--timeout=120s")
    elif victim == "api-server":
        kube.node(CONTROL_PLANE, "systemctl", "restart", "kubelet")
        wait_until(lambda: unready(kube), 120)


def unready(kube: Kube) -> str | None:
    """What the API server lacks, or None."""
    state = kube.kubectl("get", "--raw", "/readyz", check=False)
    return None if state == "ok" else state or "the API server"


@contextmanager
def without_api_server(kube: Kube) -> Iterator[None]:
    """No API server for as long as the block runs."""
    name = VICTIMS["api-server"][0]
    kube.node(CONTROL_PLANE, "mv", MANIFEST, ASIDE)
    try:
        left = "the end of the API server, whose manifest was taken away"
        wait_until(lambda: left if processes(kube, name, (CONTROL_PLANE,)) else None, 90)
        yield
    finally:
        kube.node(CONTROL_PLANE, "mv", ASIDE, MANIFEST)
        wait_until(lambda: unready(kube), 180)


def by_admission(failed: Object) -> bool:
    """Whether kubelet's own admission failed a pod: it missed a plugin, or what that offers."""
    reason = str(failed["status"].get("reason", ""))
    return reason == "UnexpectedAdmissionError" or reason.startswith("OutOf")
