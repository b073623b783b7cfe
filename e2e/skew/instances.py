"""mig-manager at its previous version: either of the two knows what the other has made."""

from pathlib import Path

from e2e.kube import Kube, wait_until
from e2e.mig import SHOW, divided, instances, records
from e2e.pods import ON_AN_A100, container, pod, slice_of
from e2e.skew.versions import Version, running


def with_instances(kube: Kube, namespace: str, version: Version, folder: Path) -> None:
    """Instances made before, meanwhile and afterwards are their pods' at every time."""
    with divided(kube, folder):
        made = create(kube, namespace, "before", "stays")
        with running(kube, version):
            made |= create(kube, namespace, "meanwhile", "stays-too")
            end(kube, namespace, "before", made)
        made |= create(kube, namespace, "after")
        for name in ("meanwhile", "stays", "stays-too", "after"):
            end(kube, namespace, name, made)


def create(kube: Kube, namespace: str, *names: str) -> dict[str, str | None]:
    """Pods with an instance each, which they see from inside; name -> UUID."""
    for name in names:
        asked = container("c", slice_of(memory=4000), SHOW)
        kube.create(pod(name, namespace, asked, nodeSelector=ON_AN_A100))
    kube.wait_running(namespace, *names)
    found = recorded(kube, namespace)
    for name in names:
        kube.wait_log(namespace, name, f"UUID: {found[name]})")
    return {name: found[name] for name in names}


def recorded(kube: Kube, namespace: str) -> dict[str, str | None]:
    """Name -> the UUID that stands on the pod."""
    return {
        each["metadata"]["name"]: one.mig_uuid
        for each in kube.pods(namespace)
        for one in records(each)
    }


def end(kube: Kube, namespace: str, name: str, made: dict[str, str | None]) -> None:
    """Delete a pod; its instance goes, and nobody else's."""
    kube.kubectl("delete", "pod", "-n", namespace, name, "--now")
    made.pop(name)
    alone = set(made.values())
    wait_until(lambda: None if instances() == alone else f"{alone} alone: {instances()}", 120)
    assert recorded(kube, namespace) == made
