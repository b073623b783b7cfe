"""What our components' metrics say."""

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from e2e.kube import Kube

API = "/api/v1/namespaces/hami-system/pods"


def samples(kube: Kube, app: str, port: int) -> list[Sample]:
    """All samples of the pods of one of our components that are to stay."""
    selector = ("-l", f"app.kubernetes.io/name={app}")
    found: list[Sample] = []
    for item in kube.get("pods", "-n", "hami-system", *selector)["items"]:
        if "deletionTimestamp" in item["metadata"]:
            continue  # after a roll-out two would speak for one
        name = item["metadata"]["name"]
        text = kube.kubectl("get", "--raw", f"{API}/{name}:{port}/proxy/metrics")
        found += [s for family in text_string_to_metric_families(text) for s in family.samples]
    return found


def values(found: list[Sample], name: str, **labels: str) -> list[float]:
    """The values of all series that have these labels."""
    return [s.value for s in found if s.name == name and labels.items() <= s.labels.items()]


def value(found: list[Sample], name: str, **labels: str) -> float | None:
    """The value of the one series that has these labels, or None."""
    match = values(found, name, **labels)
    return match[0] if len(match) == 1 else None
