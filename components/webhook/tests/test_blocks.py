"""Behaviour of hami_webhook.blocks: what containers ask for by their blocks of resources."""

import json
from dataclasses import replace

import msgspec
import pytest

from hami_webhook.asked import Pod
from hami_webhook.blocks import KEPT, KEPT_BYTES, asked_of
from hami_webhook.rules import Rules
from hamikit.ascend import ascend_row
from hamikit.devices import NVIDIA, Template

GPU, MEM, *_ = NVIDIA.resources
CHIP = replace(
    ascend_row("Ascend910B2"),
    memory_allocatable_mib=65536,
    memory_capacity_mib=65536,
    templates=(Template("vir", 8192, 3),),
)


def pod(*resources, annotations=None):
    """A pod with a container for each block of resources; None for one without."""
    blocks = [{"name": "c"} if each is None else {"resources": each} for each in resources]
    value = {"metadata": {"annotations": annotations or {}}, "spec": {"containers": blocks}}
    return msgspec.json.decode(json.dumps(value), type=Pod)


def test_each_container_is_read_for_every_family():
    """One may ask for cards of two kinds; the annotation that wants soft sharing counts."""
    limits = {GPU: "1", CHIP.count: "1", CHIP.memory: "5000"}
    soft = {CHIP.mode: CHIP.soft_mode}
    (_, both), (_, nothing) = asked_of(
        pod({"limits": limits}, None, annotations=soft), Rules((NVIDIA, CHIP))
    )
    assert [(wish.family.vendor, wish.soft) for wish in both.wishes] == [
        (NVIDIA.vendor, False),
        (CHIP.vendor, True),
    ]
    assert (nothing.wishes, nothing.sound) == ((), True)


def test_a_block_is_worked_out_once_for_each_kind_of_sharing():
    """The same text asks for something else where the pod wants its cards shared softly."""
    rules, block = Rules((CHIP,)), {"limits": {CHIP.count: "1", CHIP.memory: "5000"}}
    [(_, hard)] = asked_of(pod(block), rules)
    [(_, soft)] = asked_of(pod(block, annotations={CHIP.mode: CHIP.soft_mode}), rules)
    [(_, again)] = asked_of(pod(block), rules)
    assert again is hard
    assert [block.wishes[0].added for block in (hard, soft)] == [{CHIP.memory: "8192"}, {}]


def test_what_one_set_of_rules_knows_is_not_believed_by_another():
    """A changed configuration begins anew."""
    asked = pod({"limits": {GPU: "1"}})
    assert asked_of(asked, Rules())[0][1].wishes
    assert not asked_of(asked, Rules((CHIP,)))[0][1].wishes


@pytest.mark.parametrize("limits", [{GPU: "1", MEM: "-1"}, {GPU: "0", MEM: "5"}, {GPU: "x"}])
def test_a_block_with_a_fault_is_not_sound(limits):
    """Its faults name the container, so they are told anew each time."""
    rules = Rules()
    for _ in range(2):
        assert not asked_of(pod({"limits": limits}), rules)[0][1].sound


def test_no_more_is_kept_than_a_mib():
    """Neither many blocks nor large ones fill the memory."""
    rules = Rules()
    asked_of(pod({"limits": {GPU: "1", "x" * KEPT_BYTES: "1"}}), rules)
    assert rules.known == {}
    for number in range(KEPT + 1):
        asked_of(pod({"limits": {GPU: "1", MEM: str(number)}}), rules)
    assert len(rules.known) == 1
