"""Pods for tests and the demo, as users would write them."""

from typing import Any

IMAGE = "hami-probe:0.1.0"
GRANT = "hami.io/vgpu-devices-allocated"
REPORT = "cuprobe info && base64 -w0 /usr/local/vgpu/control && echo"
ON_AN_A100 = {"kubernetes.io/hostname": "hami-worker"}
HOLD = REPORT + " && exec cuprobe hold 16 forever"


def slice_of(
    *, gpu: int | str | None = 1, memory: int | str | None = None, cores: int | str | None = None
) -> dict[str, str]:
    """The limits of a container that asks for a slice; None leaves a resource out."""
    asked = {"nvidia.com/gpu": gpu, "nvidia.com/gpumem": memory, "nvidia.com/gpucores": cores}
    return {name: str(value) for name, value in asked.items() if value is not None}


def container(name: str, limits: dict[str, str], command: str = HOLD, **more: Any) -> Any:
    """A container that runs a shell command."""
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command],
        "resources": {"limits": limits},
        **more,
    }


def pod(name: str, namespace: str, *containers: Any, **spec: Any) -> Any:
    """A pod that goes away quickly when it is deleted."""
    metadata = {"name": name, "namespace": namespace, "annotations": spec.pop("annotations", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "containers": list(containers),
            "terminationGracePeriodSeconds": 2,
            "automountServiceAccountToken": False,
            **spec,
        },
    }


def deployment(name: str, namespace: str, replicas: int, template: Any) -> Any:
    """A Deployment of a pod made by `pod`."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
        },
    }
