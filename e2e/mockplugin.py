"""A device plugin of any vendor: all that it knows is the family's row."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from e2e.kube import Kube, wait_until
from hamikit import names
from hamikit.codec import RegisteredDevice, encode_register, encode_register_csv
from hamikit.devices import REGISTER_CSV, DeviceFamily

TRUSTED = "system:serviceaccount:hami-system:hami-scheduler"
"""May write grants. A real vendor's account is listed in the policy `hami-grants`."""
ENCODERS = {REGISTER_CSV: encode_register_csv}


@dataclass(frozen=True)
class MockPlugin:
    """Announces devices of a family on a node and serves the pods that are bound to it."""

    kube: Kube
    node: str
    family: DeviceFamily

    def announce(self, devices: Sequence[RegisteredDevice]) -> None:
        """The register annotation, and kubelet's count of slots."""
        text = ENCODERS.get(self.family.register, encode_register)(devices)
        self._annotate("node", self.node, f"{self.family.register_annotation}={text}")
        self._capacity("add", str(sum(device.count for device in devices)))
        wait_until(self._unadvertised, 120)

    def withdraw(self) -> None:
        """As if the plugin had never been."""
        self._annotate("node", self.node, f"{self.family.register_annotation}-")
        self._capacity("remove", None)

    def allocate(self, namespace: str, pod: str) -> str:
        """What kubelet's Allocate makes a plugin do for the pod that has the lock; its grant."""
        lock = self._lock()
        if not lock.endswith(f",{namespace},{pod}"):
            raise AssertionError(f"the lock of {self.node} is {lock!r}, not of {namespace}/{pod}")
        found = self.kube.get("pod", "-n", namespace, pod)["metadata"]["annotations"]
        grant: str = found[self.family.to_allocate_annotation]
        served = f"{self.family.to_allocate_annotation}={';' * grant.count(';')}"
        phase = f"{names.POD_BIND_PHASE}={names.BIND_SUCCESS}"
        self._annotate("pod", pod, served, phase, "-n", namespace, f"--as={TRUSTED}")
        self._annotate("node", self.node, f"{names.NODE_LOCK}-")
        return grant

    def _lock(self) -> str:
        found = self.kube.get("node", self.node)["metadata"]["annotations"]
        return str(found.get(names.NODE_LOCK, ""))

    def _annotate(self, kind: str, name: str, *arguments: str) -> None:
        self.kube.kubectl("annotate", "--overwrite", kind, name, *arguments)

    def _capacity(self, verb: str, value: str | None) -> None:
        path = f"/status/capacity/{self.family.count.replace('/', '~1')}"
        change = {"op": verb, "path": path} | ({"value": value} if value else {})
        where = ("patch", "node", self.node, "--subresource=status", "--type=json", "-p")
        self.kube.kubectl(*where, json.dumps([change]))

    def _unadvertised(self) -> str | None:
        allocatable = self.kube.get("node", self.node)["status"]["allocatable"]
        return None if self.family.count in allocatable else f"{self.family.count} of {self.node}"
