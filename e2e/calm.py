"""What is still in motion on the cluster from before: a test begins when nothing is.

A roll-out is "successfully rolled out" while old pods still serve and end, a killed program waits
out kubelet's back-off, a new leader waits for its predecessor's last write, a pod that a test left
holds its card until it is gone.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from e2e.kube import Kube, Object, wait_until
from hamikit import names

OURS = "hami-system"
WATCHED = (OURS, "kube-system")
LEADERS = ("hami-scheduler", "kube-scheduler", "kube-controller-manager")
STALE_S = 15  # of a lease: who leads renews it every two seconds or more often
PATIENCE_S = 240


def wait_calm(kube: Kube) -> None:
    """Wait until the cluster is as a test may expect it.

    Raises:
        Deadline: with everything that is still in motion.
    """
    wait_until(lambda: motion(kube.get("pods,nodes,leases", "-A")["items"]), PATIENCE_S)


def motion(objects: list[Object], now: datetime | None = None) -> str | None:
    """What is in motion among all pods, nodes and leases of a cluster; None when it is calm."""
    of: dict[str, list[Object]] = {"Pod": [], "Node": [], "Lease": []}
    for obj in objects:
        of[obj["kind"]].append(obj)
    found = [*of_pods(of["Pod"]), *of_nodes(of["Node"])]
    found += of_leases(of["Lease"], of["Pod"], now or datetime.now(UTC))
    return "a calm cluster: " + "; ".join(found) if found else None


def of_pods(pods: Iterable[Object]) -> Iterator[str]:
    """Any pod that ends, and any of the cluster's programs that is not ready."""
    for pod in pods:
        meta, status = pod["metadata"], pod["status"]
        name = f"{meta['namespace']}/{meta['name']}"
        if "deletionTimestamp" in meta:
            yield f"{name} is ending"
        elif meta["namespace"] in WATCHED and not _true(status, "Ready"):
            yield f"{name} is not ready ({status.get('phase')})"


def of_nodes(nodes: Iterable[Object]) -> Iterator[str]:
    """A node that takes no pods, and one with cards that are not offered."""
    for node in nodes:
        meta = node["metadata"]
        name, notes = meta["name"], meta.get("annotations", {})
        if not _true(node["status"], "Ready") or node["spec"].get("unschedulable"):
            yield f"{name} takes no pods"
        if notes.get(names.NODE_PAUSED):
            yield f"{name} is paused by its device plugin"
        offered = node["status"].get("allocatable", {}).items()
        if names.NODE_REGISTER in notes and not any(
            int(n) for key, n in offered if key.endswith("/gpu")
        ):
            yield f"kubelet on {name} offers none of its cards"


def of_leases(leases: Iterable[Object], pods: list[Object], now: datetime) -> Iterator[str]:
    """A program that nobody leads, or that a pod leads which is gone."""
    present = {pod["metadata"]["name"] for pod in pods if pod["metadata"]["namespace"] == OURS}
    for lease in leases:
        name, spec = lease["metadata"]["name"], lease["spec"]
        if lease["metadata"]["namespace"] not in WATCHED or name not in LEADERS:
            continue
        holder = spec.get("holderIdentity") or ""
        age = (now - datetime.fromisoformat(spec["renewTime"])).total_seconds()
        if not holder or age > STALE_S:
            yield f"nobody leads {name} (it was {holder!r} {age:.0f} s ago)"
        elif name == LEADERS[0] and present and holder.rpartition("_")[0] not in present:
            yield f"{holder} leads {name}, but is gone"


def _true(status: Object, kind: str) -> bool:
    conditions = status.get("conditions") or []
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)
