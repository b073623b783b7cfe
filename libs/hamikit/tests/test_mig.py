"""HAMi's MIG record."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamikit.codec import CodecError
from hamikit.mig import MigAllocation, Placement, decode_mig_allocations

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


@given(st.text())
def test_any_text_is_a_record_or_refused(text):
    """A pod's annotation never breaks its reader."""
    try:
        decode_mig_allocations(text)
    except CodecError:
        return
