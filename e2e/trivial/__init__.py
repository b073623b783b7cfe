"""A device plugin that does as little as kubelet allows, to measure ours against, on a node."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.kube import Kube, Object, wait_until
from e2e.product import tagged

PROGRAM = Path(__file__).with_name("program.py")
SOCKETS = "/var/lib/kubelet/device-plugins"
COUNT = 40
"""Devices that it offers, as its program has them."""


@contextmanager
def trivial(kube: Kube, namespace: str, node: str, resource: str) -> Iterator[None]:
    """The plugin on the node for as long as the block runs."""
    name = f"--from-file={PROGRAM}"
    kube.kubectl("create", "configmap", "-n", namespace, "trivial", name)
    kube.create(_pod(namespace, node, resource))
    wait_until(lambda: missing(kube, node, resource), 120)
    try:
        yield
    finally:
        kube.kubectl("delete", "pod", "-n", namespace, "trivial", "--now", "--timeout=60s")
        kube.node(node, "rm", "-rf", f"{SOCKETS}/trivial")


def missing(kube: Kube, node: str, resource: str) -> str | None:
    """None while the node offers all its devices."""
    there = kube.get("node", node)["status"]["allocatable"].get(resource, "0")
    return None if int(there) >= COUNT else f"{resource} on {node}: {there} of {COUNT}"


def _pod(namespace: str, node: str, resource: str) -> Object:
    """In the image of ours, which has gRPC and kubelet's messages."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "trivial", "namespace": namespace},
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "trivial",
                    "image": tagged("hami-device-plugin"),
                    "command": ["/app/bin/python", f"/trivial/{PROGRAM.name}", resource],
                    "securityContext": {"runAsUser": 0},
                    "volumeMounts": [
                        {"name": "program", "mountPath": "/trivial"},
                        {"name": "sockets", "mountPath": SOCKETS},
                    ],
                }
            ],
            "volumes": [
                {"name": "program", "configMap": {"name": "trivial"}},
                {"name": "sockets", "hostPath": {"path": SOCKETS, "type": "Directory"}},
            ],
        },
    }
