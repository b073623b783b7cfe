"""The webhook's pods as a test sees them: which there are, what they show, what they count."""

import random

from e2e.kube import Kube

SYSTEM = ("-n", "hami-system")
SELECTOR = "app.kubernetes.io/name=hami-webhook"
EXPIRY = "hami_webhook_certificate_expiry_timestamp_seconds"


def webhooks(kube: Kube) -> list[str]:
    """The names of the pods that are not ending."""
    pods = kube.get("pods", *SYSTEM, "-l", SELECTOR)["items"]
    return [p["metadata"]["name"] for p in pods if "deletionTimestamp" not in p["metadata"]]


def gone(kube: Kube) -> str | None:
    """Which pods are still ending."""
    pods = kube.get("pods", *SYSTEM, "-l", SELECTOR)["items"]
    ending = [p["metadata"]["name"] for p in pods if p["metadata"].get("deletionTimestamp")]
    return f"the end of {ending}" if ending else None


def value(kube: Kube, pod: str, series: str) -> str:
    """The value of a series without labels in one pod's metrics."""
    path = f"/api/v1/namespaces/hami-system/pods/{pod}:9396/proxy/metrics"
    lines = kube.kubectl("get", "--raw", path).splitlines()
    [line] = [line for line in lines if line.startswith(f"{series} ")]
    return line.split()[1]


def expiries(kube: Kube) -> dict[str, str]:
    """Pod -> the certificate that it shows, by when it ends."""
    return {pod: value(kube, pod, EXPIRY) for pod in webhooks(kube)}


def certificate(kube: Kube) -> str:
    """The self-signed certificate in its Secret, empty while there is none."""
    path = "jsonpath={.data.tls\\.crt}"
    return kube.kubectl("get", "secret", *SYSTEM, "hami-webhook-tls", "-o", path, check=False)


def look_again(kube: Kube) -> None:
    """Make kubelet renew the pods' files now: it does when a pod changes."""
    for pod in webhooks(kube):
        mark = f"test/look={random.randrange(10**9)}"
        kube.kubectl("annotate", "--overwrite", "pod", *SYSTEM, pod, mark)
