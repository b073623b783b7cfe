"""Behaviour of hamikit.ascend and of requests in templates: HAMi v2.10's vectors for its chips."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamikit.ascend import round_memory, template_name
from hamikit.deviceconfig import ConfigError, ascend_families
from hamikit.objects import Container, Metadata, Pod, PodSpec, Resources
from hamikit.shape import ContainerRequest, RequestError, shape_of


def chip(word, allocatable, templates, **more):
    """A chip as device-config.yaml has it."""
    return {
        "commonWord": word,
        "memoryAllocatable": allocatable,
        "memoryCapacity": allocatable,
        "templates": [{"name": n, "memory": m, "aiCore": c} for n, m, c in templates],
        **more,
    }


B3 = [("vir10_3c_32g", 32768, 10), ("vir05_1c_16g", 16384, 5)]
CONFIG = {
    "hamiVnpuCore": False,
    "configs": [
        chip(
            "Ascend910A",
            32768,
            [("vir02", 2184, 2), ("vir04", 4369, 4), ("vir08", 8738, 8), ("vir16", 17476, 16)],
        ),
        chip(
            "Ascend310P",
            21527,
            [("vir01", 3072, 1), ("vir02", 6144, 2), ("vir04", 12288, 4)],
            memoryCapacity=24576,
        ),
        chip(
            "Ascend910B2",
            65536,
            [
                ("vir03_1c_8g", 8192, 3),
                ("vir06_1c_16g", 16384, 6),
                ("vir12_3c_32g", 32768, 12),
            ],
        ),
        chip("Ascend910B3", 65536, B3),
        chip("Ascend910C", 65536, B3, superPod=True),
    ],
}
ROWS = {row.vendor: row for row in ascend_families(CONFIG)}


@pytest.mark.parametrize(
    ("word", "asked", "given_", "template"),
    [
        ("Ascend910A", 2000, 2184, "vir02"),
        ("Ascend910A", 2184, 2184, "vir02"),
        ("Ascend910A", 2185, 4369, "vir04"),
        ("Ascend910A", 17476, 17476, "vir16"),
        ("Ascend910A", 17477, 32768, ""),
        ("Ascend910A", 32769, None, ""),
        ("Ascend310P", 2000, 3072, "vir01"),
        ("Ascend310P", 12288, 12288, "vir04"),
        ("Ascend310P", 12289, 21527, ""),
        ("Ascend310P", 24576, 21527, ""),
        ("Ascend310P", 24577, None, ""),
        ("Ascend910B2", 1, 8192, "vir03_1c_8g"),
        ("Ascend910B2", 8193, 16384, "vir06_1c_16g"),
        ("Ascend910B2", 40000, 65536, ""),
    ],
)
def test_memory_is_rounded_to_a_template(word, asked, given_, template):
    """The smallest template that holds it, else the whole card, else nothing."""
    assert round_memory(ROWS[word], asked) == given_
    if given_ is not None:
        assert template_name(ROWS[word], given_) == template


@given(st.sampled_from(list(ROWS)), st.integers(1, 70_000))
def test_rounding_is_stable(word, asked):
    """What was rounded at admission is not rounded again by the scheduler; it is never less."""
    row = ROWS[word]
    once = round_memory(row, asked)
    if once is not None:
        assert round_memory(row, once) == once
        assert once >= min(asked, row.memory_allocatable_mib)


def ask(word, *, soft=False, **limits):
    """What a pod with one container asks of a chip; limits are count, memory and core."""
    row = ROWS[word]
    names = {"count": row.count, "memory": row.memory, "core": row.cores}
    resources = Resources({names[key]: str(value) for key, value in limits.items()})
    annotations = {"huawei.com/vnpu-mode": "hami-core"} if soft else {}
    pod = Pod(Metadata(annotations=annotations), PodSpec([Container("a", resources)]))
    return shape_of(pod, row).slots[0].request


def test_a_card_without_memory_is_whole():
    """All that can be given out of it."""
    assert ask("Ascend310P", count=1) == ContainerRequest(1, 21527, 0, 0)


def test_several_cards_are_whole_unless_shared_without_templates():
    """A container gets one template at most."""
    with pytest.raises(RequestError, match="several cards for one container are given out whole"):
        ask("Ascend910B3", count=2, memory=16384)
    assert ask("Ascend910B3", soft=True, count=2, memory=16384) == ContainerRequest(2, 16384, 0, 0)
    assert ask("Ascend910B3", count=2) == ContainerRequest(2, 65536, 0, 0)


def test_cores_need_the_mode_without_templates():
    """A template brings its cores; the remedy names the annotation."""
    with pytest.raises(RequestError, match="vnpu-mode: hami-core"):
        ask("Ascend910B3", count=1, memory=100, core=30)
    soft = ask("Ascend910B3", soft=True, count=1, memory=100, core=30)
    assert soft == ContainerRequest(1, 100, 0, 30)


def test_modules_of_two_chips():
    """One is two, two is two, three cannot be; part of a card is judged after that."""
    assert ask("Ascend910C", count=1).count == 2
    assert ask("Ascend910C", count=2).count == 2
    with pytest.raises(RequestError, match="multiples of 2"):
        ask("Ascend910C", count=3)
    with pytest.raises(RequestError, match="given out whole"):
        ask("Ascend910C", count=1, memory=16384)


def test_more_than_a_card_has_is_refused():
    """The text says how much there is."""
    with pytest.raises(RequestError, match="a card has 24576 MiB"):
        ask("Ascend310P", count=1, memory=24577)


def test_the_older_form_of_the_section():
    """A bare list of chips."""
    assert ascend_families(CONFIG["configs"]) == tuple(ROWS.values())


def test_templates_are_ordered_by_size():
    """Whatever their order in the file."""
    assert [t.memory_mib for t in ROWS["Ascend910B3"].templates] == [16384, 32768]


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (3, "vnpus: must be a list"),
        ([3], "vnpus: must be a list"),
        ({"hamiVnpuCore": "yes"}, "hamiVnpuCore.*of type bool"),
        ([{"chipName": "910A"}], r"configs\[0\]\.commonWord"),
        ([chip("A", 0, [])], r"configs\[0\]\.memoryAllocatable"),
        ([chip("A", "x", [])], r"configs\[0\]\.memoryAllocatable.*of type int"),
        ([chip("A", 1, []) | {"templates": 3}], "must be a list of templates"),
        ([chip("A", 1, []) | {"templates": [{"memory": "1"}]}], r"memory.*of type int"),
    ],
)
def test_a_bad_section_names_its_key(section, says):
    """An operator must find it without reading our code."""
    with pytest.raises(ConfigError, match=says):
        ascend_families(section)
