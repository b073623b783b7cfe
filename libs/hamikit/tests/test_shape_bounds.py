"""The edges of what may be asked for, and the words with which the rest is refused."""

from dataclasses import replace

import pytest

from hamikit.ascend import ascend_row
from hamikit.devices import NVIDIA, Template
from hamikit.objects import Container, Pod, PodSpec, Resources
from hamikit.selectors import Selectors, selectors_of, soft_wanted
from hamikit.shape import (
    ContainerRequest,
    Fault,
    RequestError,
    Role,
    Slot,
    parse_container,
    roles_of,
    shape_of,
)

GPU, MEM, PERCENT, CORES = NVIDIA.count, NVIDIA.memory, NVIDIA.memory_percentage, NVIDIA.cores
CHIP = replace(
    ascend_row("Ascend910X"),
    templates=(Template("quarter", 8000, 5), Template("half", 16000, 10)),
    memory_allocatable_mib=32000,
    memory_capacity_mib=32768,
    count_step=2,
)
SINGLE = replace(CHIP, count_step=1)


def parse(limits, family=NVIDIA, **more):
    """Parse the limits of a container."""
    return parse_container("c", limits, {}, family, **more)


def refusal(limits, family=NVIDIA, **more):
    """The text of the refusal."""
    with pytest.raises(RequestError) as caught:
        parse(limits, family, **more)
    return str(caught.value)


def chip(count=1, memory=None, cores=None):
    """Limits for the templated chip."""
    found = {CHIP.count: count, CHIP.memory: memory, CHIP.cores: cores}
    return {name: str(value) for name, value in found.items() if value is not None}


@pytest.mark.parametrize(("name", "most"), [
    (GPU, 2147483647), (MEM, 999999), (PERCENT, 100), (CORES, 100),
])  # fmt: skip
def test_the_most_is_allowed_and_no_more(name, most):
    """The bounds belong to what is allowed."""
    assert parse({GPU: "1", name: str(most)}) is not None
    assert refusal({GPU: "1", name: str(most + 1)}).endswith(f"; write a number up to {most}")


@pytest.mark.parametrize("name", [MEM, PERCENT, CORES])
def test_nothing_may_be_written_out(name):
    """0 is as good as leaving it out."""
    assert parse({GPU: "1", name: "0"}) == ContainerRequest(1, 0, 100, 0)


@pytest.mark.parametrize(("name", "unit", "most"), [
    (GPU, "whole devices", 2147483647), (MEM, "MiB", 999999), (PERCENT, "percent", 100),
    (CORES, "percent", 100),
])  # fmt: skip
def test_the_whole_sentence(name, unit, most):
    """Container, resource, value, rule, remedy."""
    for value, remedy in (("-1", f"write a number up to {most}"), ("x", "write a whole number")):
        assert refusal({GPU: "1", name: value}) == (
            f"container 'c': {name} is {value!r}, but it counts {unit} and must be a whole number "
            f"from 0 to {most}; {remedy}"
        )


def test_faults_and_what_else_is_wrong_are_one_text():
    """One after the other, nothing empty between them."""
    fault = Fault("c", "f", "v", "it may not", "leave it out")
    one = "container 'c': f is 'v', but it may not; leave it out"
    assert str(RequestError([fault, fault])) == f"{one}; {one}"
    assert str(RequestError([fault], "more")) == f"{one}; more"
    assert str(RequestError([], "more")) == "more"
    assert RequestError([fault]).faults == [fault]


@pytest.mark.parametrize(("value", "remedy"), [
    ("-1M", "write a number up to 999999"), ("1000k", "write 1 (the unit is MiB already)"),
    ("999999M", "write 999999 (the unit is MiB already)"),
    ("1000000M", "write a number up to 999999"), ("2M", "write 2 (the unit is MiB already)"),
    ("999999Mi", "write 999999 (the unit is MiB already)"),
    ("1000000Mi", "write a number up to 999999"), ("2Mi", "write 2 (the unit is MiB already)"),
])  # fmt: skip
def test_what_a_byte_suffix_probably_meant(value, remedy):
    """The figure in the unit that was meant, if a card could have so much."""
    assert refusal({GPU: "1", MEM: value}).endswith(f"; {remedy}")


def test_bytes_are_meant_for_memory_only():
    """Cores have no unit that could be mistaken."""
    assert refusal({GPU: "1", CORES: "1k"}).endswith("; write a number up to 100")


def test_a_resource_that_the_family_has_not():
    """What is under no name is nobody's."""
    family = replace(NVIDIA, memory_percentage="")
    assert parse({GPU: "1", "": "5"}, family) == ContainerRequest(1, 0, 100, 0)


def test_a_factor_below_one_is_none():
    """An operator's 0 must not make all memory 0."""
    family = replace(NVIDIA, memory_factor=0)
    assert parse({GPU: "1", MEM: "300"}, family).memory_mib == 300


@pytest.mark.parametrize(("limits", "expected"), [
    (chip(memory=1), ContainerRequest(1, 8000, 0, 0)),
    (chip(memory=8000), ContainerRequest(1, 8000, 0, 0)),
    (chip(memory=8001), ContainerRequest(1, 16000, 0, 0)),
    (chip(memory=16001), ContainerRequest(1, 32000, 0, 0)),
    (chip(memory=32768), ContainerRequest(1, 32000, 0, 0)),
    (chip(), ContainerRequest(1, 32000, 0, 0)),
    (chip(3), ContainerRequest(3, 32000, 0, 0)),
    (chip(memory=0), ContainerRequest(1, 32000, 0, 0)),
])  # fmt: skip
def test_a_chip_is_cut_in_templates(limits, expected):
    """The smallest that holds the memory, or all of it; several chips only whole."""
    assert parse(limits, SINGLE) == expected


def test_chips_of_a_module_go_together():
    """One becomes two, and then the whole memory of both; odd numbers above one are refused."""
    assert parse(chip(), CHIP) == ContainerRequest(2, 32000, 0, 0)
    assert parse(chip(4), CHIP) == ContainerRequest(4, 32000, 0, 0)
    assert refusal(chip(3), CHIP) == (
        "container 'c': huawei.com/Ascend910X is '3', but this chip is given out in multiples of "
        "2; write a multiple of 2"
    )
    assert refusal(chip(1, 8000), CHIP) == (
        "container 'c': huawei.com/Ascend910X-memory is '8000', but several cards for one "
        "container are given out whole; leave it out, or ask for huawei.com/Ascend910X: 1"
    )


def test_what_a_chip_cannot_give():
    """More than it has; cores beside a template; a part of several."""
    assert refusal(chip(memory=32769), SINGLE) == (
        "container 'c': huawei.com/Ascend910X-memory is '32769', but a card has 32768 MiB; "
        "ask for less memory or for more cards"
    )
    assert refusal(chip(memory=8000, cores=50), SINGLE) == (
        "container 'c': huawei.com/Ascend910X-core is '50', but cores follow from the memory's "
        "template; leave it out, or set the annotation huawei.com/vnpu-mode: hami-core"
    )
    assert "are given out whole" in refusal(chip(2, 8000), SINGLE)
    assert parse(chip(2, 30000), SINGLE) == ContainerRequest(2, 32000, 0, 0)


def test_a_chip_that_is_shared_without_templates():
    """Memory and cores as they are asked for."""
    assert parse(chip(2, 5000, 30), SINGLE, soft=True) == ContainerRequest(2, 5000, 0, 30)
    assert parse(chip(1, cores=30), SINGLE, soft=True) == ContainerRequest(1, 32000, 0, 30)


def test_who_wants_to_share_without_templates():
    """The annotation of a family that knows such a way, with just that value."""
    assert soft_wanted({CHIP.mode: "hami-core"}, CHIP) is True
    assert soft_wanted({CHIP.mode: "other"}, CHIP) is False
    assert soft_wanted({}, CHIP) is False
    assert soft_wanted({NVIDIA.mode: ""}, NVIDIA) is False


def test_every_wish_has_its_annotation():
    """None is taken for another."""
    family = NVIDIA
    values = {
        family.use_type: "a", family.nouse_type: "b", family.use_uuid: "c",
        family.nouse_uuid: "d", family.mode: "e", "hami.io/node-scheduler-policy": "f",
        "hami.io/gpu-scheduler-policy": "g", "hami.io/device-scoring-weights": "h",
    }  # fmt: skip
    assert selectors_of(values, family) == Selectors(
        "a",
        "b",
        "c",
        "d",
        "e",
        False,
        "f",
        "g",
        "h",
    )
    assert selectors_of({}, family) == Selectors()


def test_containers_without_resources():
    """They ask for nothing; requests alone count where there are no limits."""
    pod = Pod(spec=PodSpec([
        Container("a"), Container("b", Resources()), Container("c", Resources(None, {GPU: "1"})),
    ]))  # fmt: skip
    assert shape_of(pod, NVIDIA).slots == (
        Slot(Role.APP, None), Slot(Role.APP, None), Slot(Role.APP, ContainerRequest(1, 0, 100, 0)),
    )  # fmt: skip


def test_roles():
    """Only an init container that always restarts is a sidecar."""
    init = [Container(str(word), restart_policy=word) for word in (None, "Always", "Never")]
    pod = Pod(spec=PodSpec([Container("a", restart_policy="Always")], init))
    assert roles_of(pod) == [Role.INIT, Role.SIDECAR, Role.INIT, Role.APP]


def test_soft_sharing_is_read_from_the_pod():
    """The annotation decides for all its containers."""
    spec = PodSpec([Container("a", Resources(chip(1, 5000, 30)))])
    pod = Pod(spec=spec)
    pod.metadata.annotations[CHIP.mode] = "hami-core"
    assert shape_of(pod, SINGLE).slots[0].request == ContainerRequest(1, 5000, 0, 30)
