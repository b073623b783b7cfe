"""HAMi's lock protocol as values; vectors are those of HAMi v2.10."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_kit import make_pod

from hami_device_plugin.lock import (
    LockError,
    Owner,
    is_of,
    owner,
    physical_id,
    preferred,
    turn,
    waits,
)
from hamikit import names
from hamikit.codec import GrantedDevice, encode_grant

CARD = "GPU-03f69c50-207a-2038-9b45-23cac89cb67a"


def test_the_first_container_with_cards_has_its_turn():
    """An init container without a card is passed over; what is left keeps HAMi's extra `;`."""
    found = turn(";GPU-x,NVIDIA,1,2:;")
    assert (found.index, found.devices) == (1, (GrantedDevice("GPU-x", "NVIDIA", 1, 2),))
    assert (found.rest, found.last) == (";;;", True)


def test_more_containers_are_left():
    """Only the last turn ends the allocation."""
    found = turn("GPU-x,NVIDIA,1,2:;GPU-y,NVIDIA,1,2:;")
    assert (found.index, found.rest, found.last) == (0, ";GPU-y,NVIDIA,1,2:;;", False)


@pytest.mark.parametrize("text", ["", ";", ";;;", "GPU-x,NVIDIA,1:;", "GPU-x,NVIDIA,a,0:;"])
def test_nothing_left_or_unreadable(text):
    """Is an error for the pod."""
    with pytest.raises(LockError):
        turn(text)


def test_the_lock_names_a_pod():
    """HAMi v2.10 writes time, namespace, name; before it there was only the time."""
    assert owner("2026-01-01T00:00:00Z,ns,p") == Owner("ns", "p")
    assert owner("2026-01-01T00:00:00+02:00") is None


@pytest.mark.parametrize("value", ["", "x", "x,ns,p", "2026-01-01T00:00:00Z,ns", "2026-01-01,a,,b"])
def test_a_lock_of_another_form_is_an_error(value):
    """The text names the annotation."""
    with pytest.raises(LockError, match=r"hami\.io/mutex\.lock"):
        owner(value)


def test_a_lock_is_taken_off_by_its_pod_only():
    """Or by anybody when it does not name one."""
    pod = make_pod("u1", "")
    assert is_of("2026-01-01T00:00:00Z,default,pod-u1", pod)
    assert is_of("2026-01-01T00:00:00Z", pod)
    assert not is_of("2026-01-01T00:00:00Z,ns,q", pod)


@pytest.mark.parametrize(
    ("slot", "card"),
    [
        ("GPU-u-u-u-u-u-3", "GPU-u-u-u-u-u-3"[:-2]),
        ("GPU-u-u-u-u-u", "GPU-u-u-u-u-u"),
        ("GPU-u-u-u-u-u-x", "GPU-u-u-u-u-u-x"),
        ("x::4", "x"),
        (f"{CARD}-0", CARD),
    ],
)
def test_the_card_behind_an_id(slot, card):
    """Six dashes and a number, or a replica of NVIDIA's own plugin."""
    assert physical_id(slot) == card


def bound(phase=names.BIND_ALLOCATING, node="n1"):
    """A pod as the scheduler binds it."""
    pod = make_pod("u1", "")
    pod.metadata.annotations.update(
        {names.POD_BIND_PHASE: phase, names.POD_BIND_TIME: "1", names.POD_NODE: node}
    )
    return pod


def test_who_waits_for_an_allocation():
    """A pending pod of this node that a scheduler of HAMi has bound."""
    assert waits(bound(), "n1")
    assert not waits(bound(), "n2")
    assert not waits(bound(phase=names.BIND_FAILED), "n1")
    assert not waits(make_pod("u1", ""), "n1")


def test_ids_of_the_granted_cards_are_preferred():
    """What must be included counts for its card."""
    a, b = CARD, CARD.replace("03f6", "aaaa")
    free = [f"{b}-0", f"{a}-0", f"{a}-1"]
    assert preferred([a, b], free, [], 2) == [f"{a}-0", f"{b}-0"]
    assert preferred([a, b], free, [f"{b}-7"], 2) == [f"{b}-7", f"{a}-0"]
    assert preferred([a, a], free, [], 2) == [f"{a}-0", f"{a}-1"]


def test_no_preference_rather_than_a_wrong_one():
    """Too few cards granted, or no free id of one."""
    assert preferred([CARD], [f"{CARD}-0"], [], 2) == []
    assert preferred([CARD], ["GPU-z-1"], [], 1) == []


SLOTS = st.lists(
    st.lists(
        st.builds(
            GrantedDevice,
            st.sampled_from(["GPU-a", "GPU-b"]),
            st.just("NVIDIA"),
            st.integers(0, 10**6),
            st.integers(0, 100),
        ),
        max_size=3,
    ),
    max_size=5,
)


@given(SLOTS, st.integers(0, 3))
def test_turns_serve_every_container_once_in_order(slots, extra):
    """However many `;` others have added."""
    text = encode_grant(slots) + ";" * extra
    served = []
    while names.VENDOR_NVIDIA in text:
        found = turn(text)
        served.append((found.index, list(found.devices)))
        text = found.rest
    assert served == [(n, slot) for n, slot in enumerate(slots) if slot]
