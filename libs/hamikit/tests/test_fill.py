"""Behaviour of hamikit.fill: HAMi's rules for what a container left out."""

from dataclasses import replace

import pytest

from hamikit.devices import NVIDIA
from hamikit.fill import wish

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
