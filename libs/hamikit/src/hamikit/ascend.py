"""Huawei Ascend: one row a chip, and the sizes in which its cards are cut."""

from hamikit import names
from hamikit.devices import (
    EXTRAS_RUNTIME_INFO,
    REQUEST_TEMPLATES,
    SCORE_NETWORK,
    SCORE_NONE,
    SELECT_GREEDY,
    SELECT_NETWORK,
    SELECT_PAIRS,
    DeviceFamily,
)

MODE = "huawei.com/vnpu-mode"
SOFT_MODE = "hami-core"
NODE_SOFT = "hami-vnpu-core"
"""Node annotation: whether this node shares without templates; absent means as configured."""


def ascend_row(word: str, *, super_pod: bool = False) -> DeviceFamily:
    """The row of the chip with this common word, with HAMi's names and without sizes."""
    networked = word.startswith("Ascend910")
    select = SELECT_NETWORK if networked else SELECT_GREEDY
    return DeviceFamily(
        vendor=word,
        count=f"huawei.com/{word}",
        memory=f"huawei.com/{word}-memory",
        memory_percentage="",
        cores=f"huawei.com/{word}-core",
        priority="",
        register_annotation=f"hami.io/node-register-{word}",
        to_allocate_annotation=f"hami.io/{word}-devices-to-allocate",
        allocated_annotation=f"hami.io/{word}-devices-allocated",
        use_type="",
        nouse_type="",
        use_uuid=f"hami.io/use-{word}-uuid",
        nouse_uuid=f"hami.io/no-use-{word}-uuid",
        mode=MODE,
        soft_mode=SOFT_MODE,
        visible_env=names.ENV_ASCEND_VISIBLE_DEVICES,
        handshake=f"hami.io/node-handshake-{word}",
        runtime_info=f"huawei.com/{word}",
        count_step=2 if super_pod else 1,
        request=REQUEST_TEMPLATES,
        select=SELECT_PAIRS if super_pod else select,
        score=SCORE_NETWORK if networked else SCORE_NONE,
        extras=EXTRAS_RUNTIME_INFO,
    )


def round_memory(family: DeviceFamily, memory_mib: int) -> int | None:
    """What a card gives for this much memory: the smallest template that holds it, or all of it.

    None where it is more than a card has. Source: HAMi v2.10, vectors 4 to 6 of its vendors' rules.
    """
    for template in family.templates:
        if memory_mib <= template.memory_mib:
            return template.memory_mib
    if memory_mib <= family.memory_capacity_mib:
        return family.memory_allocatable_mib
    return None


def template_name(family: DeviceFamily, memory_mib: int) -> str:
    """The template of this size; empty for a whole card."""
    found = (t.name for t in family.templates if t.memory_mib == memory_mib)
    return next(found, "")


def whole(family: DeviceFamily, memory_mib: int) -> bool:
    """Whether this is all the memory of a card."""
    return memory_mib >= family.memory_allocatable_mib
