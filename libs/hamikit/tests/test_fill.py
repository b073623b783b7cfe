"""Behaviour of hamikit.fill: HAMi's rules for what a container left out."""

from dataclasses import replace

import pytest

from hamikit.ascend import ascend_row
from hamikit.devices import HYGON, NVIDIA, Template
from hamikit.fill import Wish
from hamikit.fill import wish as wish_or_none


def wish(limits, requests, family, **more):
    """A wish, also where nothing is named."""
    return wish_or_none(limits, requests, family, **more) or Wish(family, {})


GPU, MEM, PERCENT, CORES = (
    NVIDIA.count,
    NVIDIA.memory,
    NVIDIA.memory_percentage,
    NVIDIA.cores,
)


@pytest.mark.parametrize(
    ("limits", "added"),
    [
        # HAMi's published vectors.
        ({GPU: "1"}, {CORES: "100"}),
        ({GPU: "1", MEM: "3000"}, {}),
        ({MEM: "3000"}, {GPU: "1"}),
        ({CORES: "30"}, {GPU: "1"}),
        ({PERCENT: "100"}, {GPU: "1", CORES: "100"}),
        ({PERCENT: "50"}, {GPU: "1"}),
        # Ours.
        ({GPU: "2", CORES: "50"}, {}),
        ({GPU: "1", PERCENT: "100"}, {CORES: "100"}),
        ({GPU: "1", MEM: "3000", PERCENT: "50"}, {}),
        ({GPU: "0"}, {}),
        ({GPU: "0", MEM: "0"}, {}),
        ({NVIDIA.priority: "1"}, {}),
        ({"cpu": "1"}, {}),
        ({}, {}),
        ({GPU: "x"}, {CORES: "100"}),
        ({PERCENT: "x"}, {GPU: "1"}),
    ],
)
def test_vectors(limits, added):
    """Memory or cores imply the count; a count alone is the whole card."""
    assert wish(limits, {}, NVIDIA).added == added


def test_requests_alone_are_copied():
    """The API server wants a limit for each extended resource, and equal to the request."""
    assert wish({}, {GPU: "2", MEM: "100"}, NVIDIA).added == {GPU: "2", MEM: "100"}
    assert wish({GPU: "1"}, {GPU: "1", MEM: "100"}, NVIDIA).added == {MEM: "100"}
    assert wish({}, {GPU: "0"}, NVIDIA).added == {}


def test_a_limit_wins_over_a_request():
    """As kubelet has it: what a container asks is its limit."""
    assert wish({GPU: "1"}, {GPU: "2", MEM: "100"}, NVIDIA).named == {GPU: "1", MEM: "100"}
    assert not wish({GPU: "0"}, {GPU: "1"}, NVIDIA).device


def test_the_operators_default_count_is_implied():
    """A defaultGPUNum of 2 gives two cards to whoever names none."""
    assert wish({MEM: "3000"}, {}, replace(NVIDIA, default_count=2)).added == {GPU: "2"}


def test_without_a_default_count_nothing_is_implied():
    """A defaultGPUNum of 0 switches the implied count off."""
    family = replace(NVIDIA, default_count=0)
    assert wish({MEM: "3000"}, {}, family).added == {}
    assert not wish({MEM: "3000"}, {}, family).device


def test_resources_that_the_operator_switched_off():
    """Without a core resource there is nothing exclusive to write."""
    assert wish({GPU: "1"}, {}, replace(NVIDIA, cores="")).added == {}
    assert wish({GPU: "1"}, {}, replace(NVIDIA, memory="", memory_percentage="")).added == {
        CORES: "100"
    }


def test_who_asks():
    """A count of 0 asks for nothing; an unreadable one is not nothing."""
    assert wish({GPU: "1"}, {}, NVIDIA).device
    assert wish({}, {CORES: "1"}, NVIDIA).device
    assert wish({GPU: "many"}, {}, NVIDIA).device
    assert not wish({GPU: "0", MEM: "3000"}, {}, NVIDIA).device
    assert not wish({"cpu": "1"}, {}, NVIDIA).device


HYGON_COUNT, HYGON_MEM, HYGON_CORES = HYGON.resources


@pytest.mark.parametrize(
    ("limits", "device"),
    [({HYGON_COUNT: "1"}, True), ({HYGON_MEM: "3000"}, False), ({HYGON_COUNT: "0"}, False)],
)
def test_a_dcu_is_asked_for_by_its_count_and_nothing_is_filled_in(limits, device):
    """HAMi only detects it."""
    found = wish(limits, {}, HYGON)
    assert (found.device, found.added) == (device, {})


SIZES = {
    "Ascend910A": (32768, 32768, (2184, 4369, 8738, 17476)),
    "Ascend310P": (21527, 24576, (3072, 6144, 12288)),
    "Ascend910B2": (65536, 65536, (8192, 16384, 32768)),
    "Ascend910C": (65536, 65536, (16384, 32768)),
}


def chip(word):
    """The row of an Ascend chip with HAMi's sizes."""
    allocatable, capacity, sizes = SIZES[word]
    return replace(
        ascend_row(word, super_pod=word == "Ascend910C"),
        memory_allocatable_mib=allocatable,
        memory_capacity_mib=capacity,
        templates=tuple(Template(str(size), size, 1) for size in sizes),
    )


@pytest.mark.parametrize(
    ("word", "asked", "given"),
    [
        # HAMi's published vectors.
        ("Ascend910A", "2000", "2184"),
        ("Ascend910A", "2185", "4369"),
        ("Ascend910A", "17477", "32768"),
        ("Ascend310P", "2000", "3072"),
        ("Ascend310P", "12289", "21527"),
        ("Ascend310P", "24576", "21527"),
        ("Ascend910B2", "1", "8192"),
        ("Ascend910B2", "40000", "65536"),
        # A size that is right already is left alone.
        ("Ascend910A", "2184", None),
        ("Ascend310P", "12288", None),
    ],
)
def test_memory_of_an_ascend_chip_becomes_the_size_that_is_given_out(word, asked, given):
    """So that what the manifest says is what the pod gets; absent means all of it."""
    family = chip(word)
    added = wish({family.count: "1", family.memory: asked}, {}, family).added
    expected = {} if word != "Ascend910C" else {family.count: "2"}
    assert added == (expected | {family.memory: given} if given else expected)
    whole = str(family.memory_allocatable_mib)
    assert wish({family.count: "1"}, {}, family).added[family.memory] == whole


def test_one_of_a_two_chip_module_is_the_module():
    """And what cannot be given out is left to the refusal."""
    family = chip("Ascend910C")
    assert wish({family.count: "1"}, {}, family).added[family.count] == "2"
    assert family.count not in wish({family.count: "2"}, {}, family).added
    assert wish({family.count: "3"}, {}, family).added == {}


def test_soft_sharing_keeps_the_memory_as_it_is():
    """Any amount can be given out then."""
    family = chip("Ascend910B2")
    assert wish({family.count: "1", family.memory: "5000"}, {}, family, soft=True).added == {}
