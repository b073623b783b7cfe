"""HAMi's MIG record."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamikit.codec import CodecError, GrantedDevice
from hamikit.instances import MigInstance
from hamikit.mig import (
    BlockedPlacement,
    MigAllocation,
    Placement,
    decode_blocked,
    decode_mig_allocations,
    encode_blocked,
    encode_mig_allocations,
    with_instances,
)

RESERVED = {
    "containerIndex": 1,
    "deviceIndex": 0,
    "gpuUUID": "GPU-a",
    "profile": "1g.5gb",
    "placement": {"start": 0, "size": 1},
}
REALISED = {**RESERVED, "migUUID": "MIG-1", "gpuInstanceID": 0, "computeInstanceID": 0}


def test_a_reservation_and_its_realisation():
    """Ids may be 0 and count as known."""
    found = decode_mig_allocations(json.dumps([RESERVED, {**REALISED, "deviceIndex": 1}]))
    assert found[0] == MigAllocation(1, 0, "GPU-a", "1g.5gb", Placement(0, 1))
    assert [entry.realised for entry in found] == [False, True]
    assert (found[1].mig_uuid, found[1].gpu_instance_id) == ("MIG-1", 0)
    assert decode_mig_allocations("") == ()


@pytest.mark.parametrize(
    "change",
    [
        {"containerIndex": -1},
        {"deviceIndex": -1},
        {"gpuUUID": ""},
        {"profile": ""},
        {"placement": {"start": 0, "size": 0}},
        {"migUUID": "MIG-1"},
        {"gpuInstanceID": 0, "computeInstanceID": 0},
        {"profile": 3},
    ],
)
def test_one_broken_entry_refuses_the_whole(change):
    """A record that is half understood would be reported half."""
    with pytest.raises(CodecError):
        decode_mig_allocations(json.dumps([REALISED, {**RESERVED, "deviceIndex": 1, **change}]))


def test_a_place_is_given_once():
    """Two instances in one place of a container cannot both be true."""
    with pytest.raises(CodecError, match="twice"):
        decode_mig_allocations(json.dumps([RESERVED, REALISED]))


def test_nesting_without_end_is_no_record():
    """In a part that nobody reads, too: whoever meets it goes on with other pods."""
    with pytest.raises(CodecError, match="unreadable"):
        decode_mig_allocations('[{"x":' + "[" * 100_000)


@given(st.text())
def test_any_text_is_a_record_or_refused(text):
    """A pod's annotation never breaks its reader."""
    try:
        decode_mig_allocations(text)
    except CodecError:
        return


def granted(uuid, instance=None):
    """A slice of a card."""
    return GrantedDevice(uuid, "NVIDIA", 4864, 15, instance)


def test_a_grants_instances_go_out_and_come_back():
    """A record for each device that is an instance; ids only once it has been made."""
    reserved = MigInstance("1g.5gb", Placement(0, 1))
    made = MigInstance("2g.10gb", Placement(2, 2), "MIG-1", 0, 0)
    slots = ((), (granted("GPU-h"), granted("GPU-a", reserved)), (granted("GPU-a", made),))
    text = encode_mig_allocations(slots)
    assert json.loads(text) == [
        {**RESERVED, "deviceIndex": 1},
        {
            **REALISED, "containerIndex": 2, "profile": "2g.10gb",
            "placement": {"start": 2, "size": 2},
        },
    ]  # fmt: skip
    plain = tuple(tuple(granted(d.uuid) for d in slot) for slot in slots)
    found = with_instances(plain, decode_mig_allocations(text))
    assert found == slots
    assert [d.instance.realised for slot in found for d in slot if d.instance] == [False, True]
    last = found[2][0].instance
    assert (last.mig_uuid, last.gpu_instance_id, last.compute_instance_id) == ("MIG-1", 0, 0)


def test_a_grant_without_instances_has_no_record():
    """Nothing to write."""
    assert encode_mig_allocations(((granted("GPU-h"),), ())) == ""
    assert with_instances(((granted("GPU-h"),),), ()) == ((granted("GPU-h"),),)


def test_a_record_of_another_card_says_nothing():
    """Nor does one of a container or a device that there is not."""
    slots = ((granted("GPU-b"),), ())
    first = {**RESERVED, "containerIndex": 0}
    nowhere = {**RESERVED, "containerIndex": 9}
    for record in (first, {**first, "gpuUUID": "GPU-b", "deviceIndex": 1}):
        records = decode_mig_allocations(json.dumps([record, nowhere]))
        assert with_instances(slots, records) == slots


@pytest.mark.parametrize(("one", "other", "overlap"), [
    ((0, 4), (4, 4), False), ((0, 4), (3, 1), True), ((3, 1), (0, 4), True), ((2, 2), (2, 2), True),
    ((6, 1), (4, 2), False),
])  # fmt: skip
def test_places_overlap(one, other, overlap):
    """Where a slice would be in both."""
    assert Placement(*one).overlaps(Placement(*other)) is overlap


BLOCKED = [
    BlockedPlacement("GPU-b", "1g.5gb", Placement(0, 1), "MadeByHand", 7),
    BlockedPlacement("GPU-a", "3g.20gb", Placement(4, 4), "InUse", 8),
    BlockedPlacement("GPU-a", "3g.20gb", Placement(0, 4), "InUse", 9),
]


def test_blocked_placements_have_one_text_whatever_their_order():
    """So a node is not written to for nothing; none is no annotation."""
    text = encode_blocked(BLOCKED)
    assert text == encode_blocked(reversed(BLOCKED))
    assert sorted(map(repr, decode_blocked(text))) == sorted(map(repr, BLOCKED))
    assert json.loads(text)[0] == {
        "gpuUUID": "GPU-a",
        "profile": "3g.20gb",
        "placement": {"start": 0, "size": 4},
        "reason": "InUse",
        "since": 9,
    }
    assert (encode_blocked([]), decode_blocked("")) == (None, ())


@pytest.mark.parametrize("text", ["[", "{}", '[{"gpuUUID": "GPU-a"}]', "[" * 100_000])
def test_blocked_placements_that_cannot_be_read(text):
    """A node may write anything."""
    with pytest.raises(CodecError, match="blocked"):
        decode_blocked(text)
