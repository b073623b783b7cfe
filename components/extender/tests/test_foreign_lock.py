"""Other vendors' pods, bound by the lock protocol that their plugins speak."""

from dataclasses import replace

import pytest
from extender_cluster import BindWorld
from test_families import chip, dcu, node

from hamikit import names
from hamikit.ascend import ascend_row
from hamikit.codec import encode_register, encode_register_csv
from hamikit.devices import HYGON, NVIDIA, Template

B3 = replace(
    ascend_row("Ascend910B3"),
    templates=(Template("vir05_1c_16g", 16384, 5), Template("vir10_3c_32g", 32768, 10)),
    memory_allocatable_mib=65536,
    memory_capacity_mib=65536,
)
CHIPS = [chip(0, 0), chip(1, 0)]
CASES = {
    "DCU": (
        HYGON,
        encode_register_csv([dcu(0), dcu(1)]),
        {"hygon.com/dcunum": "1", "hygon.com/dcumem": "2000", "hygon.com/dcucores": "15"},
        {
            "hami.io/dcu-devices-to-allocate": "DCU-1,DCU,2000,15:;",
            "hami.io/dcu-devices-allocated": "DCU-1,DCU,2000,15:;",
        },
    ),
    "Ascend": (
        B3,
        encode_register(CHIPS),
        {"huawei.com/Ascend910B3": "1", "huawei.com/Ascend910B3-memory": "16000"},
        {
            "hami.io/Ascend910B3-devices-to-allocate": "Ascend910B3-1,Ascend910B3,16384,0:;",
            "hami.io/Ascend910B3-devices-allocated": "Ascend910B3-1,Ascend910B3,16384,0:;",
            "huawei.com/Ascend910B3": (
                '[{"UUID":"Ascend910B3-1","temp":"vir05_1c_16g","memory":16384,"core":0}]'
            ),
            "predicate-time": "1787293239",
        },
    ),
}


@pytest.mark.parametrize(("family", "register", "limits", "granted"), CASES.values(), ids=CASES)
def test_lock_label_binding(family, register, limits, granted):
    """As for a node of HAMi's own NVIDIA plugin, with the vendor's annotations."""
    world = BindWorld(node((family, register)), families=(NVIDIA, family))
    pod = world.cluster.add("p", {"name": "c", "resources": {"limits": limits}})
    world.cluster.deliver_all(world.snapshot)
    assert world.bind(pod) == ""
    locked, labelled = world.cluster.patches
    assert locked[1]["metadata"]["annotations"][names.NODE_LOCK].endswith(",default,p")
    assert labelled[1]["metadata"]["labels"] == {names.POD_NODE: "n"}
    said = world.cluster.bindings[0]["metadata"]["annotations"]
    common = {names.POD_NODE: "n", names.POD_TIME: "1787293239", names.POD_BIND_TIME: "1787293239"}
    assert said == {**common, names.POD_BIND_PHASE: names.BIND_ALLOCATING, **granted}


def test_the_next_pod_of_the_other_family_waits_for_the_same_lock():
    """One lock a node, whoever's plugin is to allocate."""
    both = node((HYGON, encode_register_csv([dcu(0)])), (B3, encode_register(CHIPS)))
    world = BindWorld(both, families=(HYGON, B3))
    first = world.cluster.add("p", {"name": "c", "resources": {"limits": CASES["DCU"][2]}})
    second = world.cluster.add("q", {"name": "c", "resources": {"limits": CASES["Ascend"][2]}})
    world.cluster.deliver_all(world.snapshot)
    assert world.bind(first) == ""
    world.cluster.deliver_all(world.snapshot)
    assert "node lock contention" in world.bind(second)
