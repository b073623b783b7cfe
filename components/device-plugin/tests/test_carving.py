"""MIG instances of a pod, and how they come into its containers."""

import msgspec
import pytest
from plugin_kit import make_container, make_pod

from hami_device_plugin.carving import (
    MINORS,
    Capabilities,
    doubly_given,
    instance_edits,
    visible,
    with_instances,
)
from hami_device_plugin.cdi import CdiError, NodeSpec
from hami_device_plugin.grant import ContainerGrant, GrantError, Instance, Slice, pod_grant
from hami_device_plugin.mig import Division
from hami_device_plugin.refusal import Refusal
from hamikit import names
from hamikit.codec import RegisteredDevice
from hamikit.devices import NVIDIA
from hamikit.instances import Placement
from hamikit.mig import MigAllocation
from hamikit.shape import Role

CARDS = {
    "GPU-a": RegisteredDevice(id="GPU-a", mode="mig"),
    "GPU-b": RegisteredDevice(id="GPU-b", mode="hami-core"),
}


def allocation(container=0, device=0, uuid="GPU-a", **made):
    """A reservation, or a record with `made`."""
    return MigAllocation(container, device, uuid, "1g.5gb", Placement(0, 1), **made)


MADE = {"mig_uuid": "MIG-1", "gpu_instance_id": 7, "compute_instance_id": 0}


def carve(grant, allocations, starting=("c",), containers=None):
    """The grant of a pod with these allocations."""
    pod = make_pod("u1", grant, containers)
    text = msgspec.json.encode(allocations).decode() if allocations is not None else "["
    pod.metadata.annotations[names.POD_MIG_ALLOCATIONS] = text
    plain = pod_grant(pod, grant, "n1", NVIDIA)
    return with_instances(plain, pod, CARDS, NVIDIA, set(starting))


def test_a_slice_on_a_divided_card_is_its_instance():
    """By container and position; ids of 0 are ids."""
    record = allocation(mig_uuid="MIG-1", gpu_instance_id=0, compute_instance_id=0)
    (container,) = carve("GPU-a,NVIDIA,4864,15:;", [record]).containers
    assert container.slices == (Slice("GPU-a", 4864, 15, Instance("MIG-1", 0, 0)),)
    assert container.divided


def test_positions_count_other_vendors_devices_too():
    """As the extender counts them."""
    grant = "DCU-1,DCU,1,1:GPU-a,NVIDIA,4864,15:;"
    (container,) = carve(grant, [allocation(0, 1, **MADE)]).containers
    assert container.slices[0].instance == Instance("MIG-1", 7, 0)


def test_an_instance_that_is_being_made_is_waited_for():
    """The text says which one; only the starting container's must be there."""
    with pytest.raises(Refusal, match=r"1g\.5gb at 0 of card GPU-a") as caught:
        carve("GPU-a,NVIDIA,4864,15:;", [allocation()])
    assert (caught.value.reason, caught.value.late) == ("mig-not-made", True)
    both = [make_container("c"), make_container("d")]
    grant = "GPU-a,NVIDIA,4864,15:;GPU-a,NVIDIA,4864,15:;"
    first, second = carve(grant, [allocation(**MADE), allocation(1)], containers=both).containers
    assert (first.divided, second.divided) == (True, False)


@pytest.mark.parametrize(
    ("grant", "allocations", "words"),
    [
        ("GPU-a,NVIDIA,4864,15:;", [], "have none on card GPU-a"),
        ("GPU-a,NVIDIA,4864,15:;", [allocation(uuid="GPU-c", **MADE)], "have none on card GPU-a"),
        ("GPU-a,NVIDIA,4864,15:;", None, "cannot be read"),
        ("GPU-a,NVIDIA,4864,15:GPU-b,NVIDIA,1000,0:;", [allocation(**MADE)], "one or the other"),
    ],
)
def test_what_cannot_be_carried_out_is_said(grant, allocations, words):
    """With the annotation, and what to do."""
    with pytest.raises(GrantError, match=words):
        carve(grant, allocations)


def test_cards_that_are_not_divided_need_no_instances():
    """Whatever is reserved elsewhere."""
    for allocations in ([], [allocation()]):
        grant = carve("GPU-b,NVIDIA,1000,0:;", allocations)
        assert not grant.containers[0].divided


def test_an_instance_of_a_card_that_is_not_divided_now_is_waited_for():
    """Its pod never gets the whole card instead, as it would when NVML fails for a moment."""
    made = [allocation(uuid="GPU-b", **MADE)]
    with pytest.raises(Refusal, match="card GPU-b, which is not in MIG mode") as caught:
        carve("GPU-b,NVIDIA,4864,15:;", made)
    assert (caught.value.reason, caught.value.late) == ("mig-off", True)


def test_an_instance_is_given_once():
    """Whoever comes second waits for the first one's end."""
    one = carve("GPU-a,NVIDIA,4864,15:;", [allocation(**MADE)])
    other = pod_grant(make_pod("u2", "GPU-a,NVIDIA,4864,15:;"), one.text, "n1", NVIDIA)
    assert doubly_given(one, [one, other]) is None
    second = carve("GPU-a,NVIDIA,4864,15:;", [allocation(**MADE)])
    second = msgspec.structs.replace(second, uid="u3")
    assert doubly_given(second, [one]) == "MIG instance MIG-1 is still held by default/pod-u1"


TOLD = "config 1\nmonitor 2\ngpu0/gi7/access 500\ngpu0/gi7/ci0/access 501\n"


def paths(capabilities, minor, instance):
    """The device nodes of an instance."""
    return [node["path"] for node in capabilities.nodes(minor, instance)["deviceNodes"]]


def test_the_drivers_own_numbers_count():
    """And where it has no file, its numbering is known."""
    told = paths(Capabilities(lambda: TOLD), 0, Instance("MIG-1", 7, 0))
    caps = [f"/dev/nvidia-caps/nvidia-cap{n}" for n in (500, 501)]
    assert told == ["/dev/nvidia0", *caps]

    def missing():
        raise FileNotFoundError(MINORS)

    known = paths(Capabilities(missing), 1, Instance("MIG-1", 7, 2))
    caps = [f"/dev/nvidia-caps/nvidia-cap{n}" for n in (201, 204)]
    assert known == ["/dev/nvidia1", *caps]


def container(*uuids):
    """A container with these instances on one card."""
    slices = (Slice("GPU-a", 4864, 15, Instance(uuid, 7, 0)) for uuid in uuids)
    return ContainerGrant("c", Role.APP, tuple(slices))


COMMON = {"mounts": [{"hostPath": "/lib/x", "containerPath": "/lib/x"}]}


def node_spec(**devices):
    """The node's specification with these devices, a node each."""
    edits = {name: {"deviceNodes": [{"path": path}]} for name, path in devices.items()}
    return NodeSpec("/etc/cdi/nvidia.yaml", "0.6.0", COMMON, edits)


def test_an_instance_of_the_nodes_specification_goes_by_its_name():
    """nvidia-ctk knows best what it needs."""
    spec = node_spec(**{"MIG-1": "/dev/theirs", "GPU-b": "/dev/nvidia1"})
    version, edits = instance_edits([spec], container("MIG-1"), lambda _: None, Capabilities())
    assert version == "0.6.0"
    assert edits == [COMMON, COMMON, {"deviceNodes": [{"path": "/dev/theirs"}]}]


def test_an_instance_that_is_younger_goes_by_the_drivers_numbers():
    """With what the specification says of all devices."""
    told = Capabilities(lambda: TOLD)
    _, edits = instance_edits([node_spec()], container("MIG-2"), lambda _: Division(True, 0), told)
    assert edits[0] == COMMON
    assert edits[1] == told.nodes(0, Instance("MIG-2", 7, 0))


def test_what_is_missing_is_said():
    """A node without a specification, a card without MIG."""
    with pytest.raises(CdiError, match="nvidia-ctk cdi generate"):
        instance_edits([], container("MIG-1"), lambda _: None, Capabilities())
    for known in ({}, {"GPU-a": Division(False)}):
        with pytest.raises(CdiError, match="is not in MIG mode"):
            instance_edits([node_spec()], container("MIG-1"), known.get, Capabilities())


def test_a_runtime_is_told_the_instances():
    """In the order of the grant."""
    assert visible(container("MIG-2", "MIG-1")) == "MIG-2,MIG-1"
