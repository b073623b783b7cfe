"""Devices of other families, from the node's annotation to the pod's."""

import json
from dataclasses import replace

import msgspec
import pytest
from extender_kit import device, make_node

from hami_extender.grants import grant_annotations
from hami_extender.inventory import facts_of
from hami_extender.placement import Placement, place
from hami_extender.question import question_of
from hami_extender.snapshot import Snapshot, grant_of
from hami_extender.usage import Kind, Ledger, holding_of
from hamikit import names
from hamikit.ascend import ascend_row
from hamikit.codec import RegisteredDevice, encode_register, encode_register_csv
from hamikit.devices import HYGON, NVIDIA, Template
from hamikit.informer import Change
from hamikit.objects import Node, Pod
from hamikit.shape import roles_of

# Their plugins speak the lock protocol; what is asked here is only where devices go.
DCU = replace(HYGON, announces_binding=True)
B3 = replace(
    ascend_row("Ascend910B3"),
    announces_binding=True,
    templates=(Template("vir05_1c_16g", 16384, 5), Template("vir10_3c_32g", 32768, 10)),
    memory_allocatable_mib=65536,
    memory_capacity_mib=65536,
)
B4 = replace(ascend_row("Ascend910B4"), announces_binding=True, memory_allocatable_mib=32768)
B4_1 = replace(ascend_row("Ascend910B4-1"), announces_binding=True, memory_allocatable_mib=65536)
C = replace(
    ascend_row("Ascend910C", super_pod=True),
    announces_binding=True,
    memory_allocatable_mib=65536,
    memory_capacity_mib=65536,
)


def dcu(index, **changes):
    """A DCU of 65520 MiB for four tasks."""
    given = {
        "id": f"DCU-{index}",
        "index": index,
        "count": 4,
        "devmem": 65520,
        "devcore": 100,
        "type": "DCU-K100",
        "mode": "hami",
        "health": True,
    }
    return RegisteredDevice(**{**given, **changes})


def chip(index, network=None, word="Ascend910B3", **changes):
    """A chip that four templates fit on."""
    info = {} if network is None else {"custominfo": {"NetworkID": network}}
    given = {
        "id": f"{word}-{index}",
        "index": index,
        "count": 4,
        "devmem": 65536,
        "devcore": 20,
        "type": word,
        "health": True,
    }
    return RegisteredDevice(**{**given, **info, **changes})


def node(*offers, ids=100, **annotations):
    """A node; an offer is a family with its register annotation."""
    value = {
        "metadata": {
            "name": "n",
            "annotations": {
                names.NODE_BINDING: names.BINDING_LATE,
                **{family.register_annotation: text for family, text in offers},
                **annotations,
            },
        },
        "status": {"allocatable": {family.count: ids for family, _ in offers}},
    }
    return msgspec.convert(value, Node)


def pod(*containers, **annotations):
    """A pod whose containers have these limits."""
    value = {
        "metadata": {"name": "p", "namespace": "d", "uid": "u", "annotations": annotations},
        "spec": {
            "containers": [
                {"name": f"c{i}", "resources": {"limits": limits}}
                for i, limits in enumerate(containers)
            ]
        },
    }
    return msgspec.convert(value, Pod)


class Placed:
    """A pod's verdict on a node of these families; `holds` fills the node before."""

    def __init__(self, families, where, asked, holds=()):
        self.families, self.pod = families, asked
        self.ledger = Ledger()
        self.ledger.set_facts("n", facts_of(where, families))
        for number, other in enumerate(holds):
            verdict = place(self.ledger.nodes["n"], question_of(other, families, "spread"))
            held = holding_of(Kind.GRANT, "n", "d/x", roles_of(other), verdict.slots)
            self.ledger.hold(str(number), held)
        self.verdict = place(self.ledger.nodes["n"], question_of(asked, families, "binpack"))

    @property
    def annotations(self):
        """What the pod would carry."""
        assert isinstance(self.verdict, Placement), self.verdict
        return grant_annotations(self.families, self.pod, "n", self.verdict.slots, 7)


HYGON_NODE = node((DCU, encode_register_csv([dcu(0), dcu(1)])))


def test_a_dcu():
    """HAMi's text form in, HAMi's annotations out; memory absent is the whole card."""
    placed = Placed([NVIDIA, DCU], HYGON_NODE, pod({}, {"hygon.com/dcunum": 1}))
    assert placed.annotations == {
        "hami.io/vgpu-node": "n",
        "hami.io/vgpu-time": "7",
        "hami.io/dcu-devices-to-allocate": ";DCU-1,DCU,65520,100:;",
        "hami.io/dcu-devices-allocated": ";DCU-1,DCU,65520,100:;",
    }


def test_a_share_of_a_dcu():
    """MiB and percent; the type filter is the family's own."""
    asked = {"hygon.com/dcunum": 1, "hygon.com/dcumem": 1000, "hygon.com/dcucores": 10}
    placed = Placed([DCU], HYGON_NODE, pod(asked))
    assert placed.annotations["hami.io/dcu-devices-allocated"] == "DCU-1,DCU,1000,10:;"
    other = Placed([DCU], HYGON_NODE, pod(asked, **{"hygon.com/use-dcutype": "Z100"}))
    assert other.verdict.reason == "2/2 CardTypeMismatch"
    exact = Placed([DCU], HYGON_NODE, pod(asked, **{"hygon.com/use-gpuuuid": "DCU-0"}))
    assert exact.annotations["hami.io/dcu-devices-allocated"] == "DCU-0,DCU,1000,10:;"


def test_a_cordon_holds_for_every_family():
    """HAMi obeys it for NVIDIA's cards only (8.20)."""
    where = node((DCU, encode_register_csv([dcu(0)])), **{"hami.io/device-cordon": "DCU-0"})
    placed = Placed([DCU], where, pod({"hygon.com/dcunum": 1}))
    assert placed.verdict.reason == "1/1 CardCordoned"


def ascend_node(*chips, family=B3, **annotations):
    """A node with these chips."""
    return node((family, encode_register(chips)), **annotations)


def test_a_template_of_an_ascend_chip():
    """Memory is rounded up; the runtime's annotation names the template."""
    asked = pod({"huawei.com/Ascend910B3": 1, "huawei.com/Ascend910B3-memory": 10000})
    placed = Placed([B3], ascend_node(chip(0)), asked)
    found = placed.annotations
    assert found["hami.io/Ascend910B3-devices-allocated"] == "Ascend910B3-0,Ascend910B3,16384,0:;"
    assert found["predicate-time"] == "7"
    assert json.loads(found["huawei.com/Ascend910B3"]) == [
        {"UUID": "Ascend910B3-0", "temp": "vir05_1c_16g", "memory": 16384, "core": 0}
    ]


def test_four_templates_fill_a_chip():
    """The fifth finds no room."""
    quarter = pod({"huawei.com/Ascend910B3": 1, "huawei.com/Ascend910B3-memory": 16384})
    assert isinstance(Placed([B3], ascend_node(chip(0)), quarter, [quarter] * 3).verdict, Placement)
    full = Placed([B3], ascend_node(chip(0)), quarter, [quarter] * 4)
    assert full.verdict.reason == "1/1 CardTimeSlicingExhausted"


def test_sharing_without_templates_needs_such_a_node():
    """The pod's annotation asks for it, the node's says that it can."""
    limits = {
        "huawei.com/Ascend910B3": 1,
        "huawei.com/Ascend910B3-memory": 16384,
        "huawei.com/Ascend910B3-core": 30,
    }
    asked = pod(limits, **{"huawei.com/vnpu-mode": "hami-core"})
    hard = Placed([B3], ascend_node(chip(0)), asked)
    assert hard.verdict.reason == "1/1 ModeNotFit"
    soft = ascend_node(chip(0), **{"hami-vnpu-core": "true"})
    found = Placed([B3], soft, asked).annotations
    assert found["hami.io/Ascend910B3-devices-allocated"] == "Ascend910B3-0,Ascend910B3,16384,30:;"
    assert json.loads(found["huawei.com/Ascend910B3"]) == [
        {"UUID": "Ascend910B3-0", "memory": 16384, "core": 30}
    ]
    configured = replace(B3, soft_nodes=True)
    assert isinstance(Placed([configured], ascend_node(chip(0)), asked).verdict, Placement)
    denied = ascend_node(chip(0), **{"hami-vnpu-core": "false"})
    assert Placed([configured], denied, asked).verdict.reason == "1/1 ModeNotFit"


def test_chips_of_one_network_group_and_their_score():
    """Four of five free chips: three of the larger group; the node's score gets 10 x 3/4."""
    where = ascend_node(chip(0, 0), chip(1, 0.0), chip(2, 1), chip(3, 1), chip(4, 1))
    placed = Placed([B3], where, pod({"huawei.com/Ascend910B3": 4}))
    devices = [device.uuid[-1] for device in placed.verdict.slots[0]]
    assert sorted(devices[:3]) == ["2", "3", "4"]
    assert placed.verdict.score == 7.5


def test_chips_without_network_are_taken_in_order():
    """Nothing is known, so the order of preference decides; nothing is added to the score."""
    where = ascend_node(chip(0, 0), chip(1, 1), chip(2))
    placed = Placed([B3], where, pod({"huawei.com/Ascend910B3": 2}))
    assert [device.uuid[-1] for device in placed.verdict.slots[0]] == ["2", "1"]
    assert placed.verdict.score == 0


def test_modules_of_two_chips():
    """Of free chips 1, 2, 3 and 6 two can be had, and four cannot."""
    chips = [chip(i, 0, "Ascend910C", health=i in (1, 2, 3, 6)) for i in range(8)]
    where = ascend_node(*chips, family=C)
    two = Placed([C], where, pod({"huawei.com/Ascend910C": 2}))
    assert {device.uuid[-1] for device in two.verdict.slots[0]} == {"2", "3"}
    four = Placed([C], where, pod({"huawei.com/Ascend910C": 4}))
    assert four.verdict.reason == "4/8 AllocatedCardsInsufficientRequest, 4/8 CardNotHealth"


def test_a_chip_whose_name_begins_like_another():
    """Ascend910B4 is not offered a 910B4-1, whose kubelet does not know it."""
    where = ascend_node(chip(0, word="Ascend910B4-1"), family=B4_1)
    wanted = pod({"huawei.com/Ascend910B4": 1})
    b4 = replace(B4, memory_capacity_mib=32768)
    assert Placed([b4, B4_1], where, wanted).verdict.reason == "node unregistered"


BOTH = node(
    (NVIDIA, encode_register([device("GPU-a")])), (DCU, encode_register_csv([dcu(0)])), ids=4
)


def test_a_pod_of_two_families():
    """Each family's devices in the family's annotations, each container's slot in both."""
    asked = pod({"nvidia.com/gpu": 1, "nvidia.com/gpumem": 100}, {"hygon.com/dcunum": 1})
    placed = Placed([NVIDIA, DCU], BOTH, asked)
    found = placed.annotations
    assert found["hami.io/vgpu-devices-allocated"] == "GPU-a,NVIDIA,100,0:;;"
    assert found["hami.io/dcu-devices-allocated"] == ";DCU-0,DCU,65520,100:;"
    bound = msgspec.structs.replace(
        asked,
        metadata=msgspec.structs.replace(asked.metadata, annotations=found),
        spec=msgspec.structs.replace(asked.spec, node_name="n"),
    )
    shown = grant_of(bound, [NVIDIA, DCU])
    assert shown.slots == placed.verdict.slots
    assert shown.ids == {"NVIDIA": 1, "DCU": 1}


def test_a_fault_of_one_family_leaves_the_other():
    """A register that nobody can read closes its own cards only."""
    where = node((NVIDIA, "oops"), (DCU, encode_register_csv([dcu(0)])))
    dcu_pod, gpu_pod = pod({"hygon.com/dcunum": 1}), pod({"nvidia.com/gpu": 1})
    assert isinstance(Placed([NVIDIA, DCU], where, dcu_pod).verdict, Placement)
    refused = Placed([NVIDIA, DCU], where, gpu_pod).verdict
    assert refused.reason == "NodeRegisterUnreadable"


def test_ids_are_counted_by_family():
    """A node with no id left for one family has those of the other."""
    gpu = pod({"nvidia.com/gpu": 1, "nvidia.com/gpumem": 1})
    dcu_pod = pod({"hygon.com/dcunum": 1})
    assert Placed([NVIDIA, DCU], BOTH, gpu, [gpu] * 4).verdict.reason == "NodeSlotsExhausted"
    assert isinstance(Placed([NVIDIA, DCU], BOTH, dcu_pod, [gpu] * 4).verdict, Placement)


def test_without_its_row_a_family_does_not_exist():
    """Its node offers nothing, its pod asks for nothing."""
    assert facts_of(HYGON_NODE, [NVIDIA]).offers == ()
    assert question_of(pod({"hygon.com/dcunum": 1}), [NVIDIA], "spread") is None


def test_renamed_resources():
    """Another name for the count is another name for kubelet's ids, too."""
    acme = replace(NVIDIA, count="acme.com/gpu", memory="acme.com/mem", cores="acme.com/cores")
    where = node((acme, encode_register([device("GPU-a")])), ids=1)
    asked = pod({"acme.com/gpu": 1, "acme.com/mem": 3000, "acme.com/cores": 30})
    placed = Placed([acme], where, asked)
    assert placed.annotations["hami.io/vgpu-devices-allocated"] == "GPU-a,NVIDIA,3000,30:;"
    assert Placed([acme], where, asked, [asked]).verdict.reason == "NodeSlotsExhausted"
    assert question_of(pod({"nvidia.com/gpu": 1}), [acme], "spread") is None
    assert facts_of(make_node("n", device("a")), [acme]).offers[0].allocatable == 0


@pytest.mark.parametrize("value", [True, "1", None, []])
def test_a_network_that_is_no_number(value):
    """It is as if nothing had been said."""
    where = ascend_node(chip(0, custominfo={"NetworkID": value}))
    assert facts_of(where, [B3]).cards[0].network is None


def test_a_snapshot_of_several_families():
    """A node's cards of both are known, and a bound pod's devices of both are counted."""
    view = Snapshot(NVIDIA, DCU)
    view.on_node(Change(None, BOTH))
    assert [card.vendor for card in view.ledger.nodes["n"].facts.cards] == ["NVIDIA", "DCU"]


def table_of(where, families, asked):
    """The engine's table for a pod on one node."""
    view = Snapshot(*families)
    view.on_node(Change(None, where))
    return view, view.verdicts.table(view.question(asked, "spread"))


def test_the_engine_looks_closely_at_modules():
    """Enough chips are free, but no two of a module."""
    chips = [chip(i, 0, "Ascend910C", health=i in (1, 2)) for i in range(4)]
    where = ascend_node(*chips, family=C)
    _, table = table_of(where, [C], pod({"huawei.com/Ascend910C": 2}))
    assert table.best({"n"}, "binpack", 1) == []
    assert table.refusals(["n"])["n"].reason.startswith("2/4 AllocatedCards")


def test_the_engine_counts_ids_that_are_held():
    """With kubelet's last id held there is no room, whatever the cards have."""
    asked = pod({"hygon.com/dcunum": 1, "hygon.com/dcumem": 1, "hygon.com/dcucores": 1})
    where = node((DCU, encode_register_csv([dcu(0)])), ids=1)
    view, table = table_of(where, [DCU], asked)
    view.hold(Kind.GRANT, asked, "n", table.verdict("n").slots)
    table = view.verdicts.table(view.question(asked, "spread"))
    assert table.best({"n"}, "binpack", 1) == []
    assert table.refusals(["n"])["n"].reason == "NodeSlotsExhausted"
