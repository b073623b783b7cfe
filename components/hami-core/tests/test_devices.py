"""A device is known by its UUID, in whatever order and by whatever name it is made visible."""

import pytest

MIB = 1 << 20
OOM = 2
LIMITS_MIB = (1000, 300)


@pytest.fixture
def two(container):
    """1000 MiB of the first card, 300 of the second."""
    container.limits(*LIMITS_MIB)
    return container


def visible(container, form: str) -> str:
    """A value of CUDA_VISIBLE_DEVICES: cards by index, or by the names that a driver takes."""
    return form.format(*(container.uuid(card) for card in (0, 1)))


@pytest.mark.parametrize(
    ("form", "cards"),
    [
        ("1", [1]),
        ("1,0", [1, 0]),
        ("0,1", [0, 1]),
        ("{1}", [1]),
        ("{1},{0}", [1, 0]),
        ("{1:.12}", [1]),
    ],
)
@pytest.mark.parametrize("nvml_first", [False, True])
def test_the_limit_follows_the_card(two, form, cards, nvml_first):
    """By index, UUID and the beginning of one; NVML asked before CUDA or after it."""
    guest = two.start(CUDA_VISIBLE_DEVICES=visible(two, form))
    shown = [[mib * MIB] * 2 + [0] for mib in LIMITS_MIB]
    if nvml_first:
        assert [guest.ask("nvml", card)[0] for card in (0, 1)] == shown
    for ordinal, card in enumerate(cards):
        assert guest.ask("init", ordinal) == 0
        assert guest.ask("total", ordinal) == [0, LIMITS_MIB[card] * MIB]
        assert guest.ask("alloc", (LIMITS_MIB[card] + 1) * MIB)[0] == OOM
        assert guest.ask("alloc", LIMITS_MIB[card] * MIB)[0] == 0
        assert two.data_bytes(card) == LIMITS_MIB[card] * MIB
    for ordinal, card in enumerate(cards):
        assert guest.ask("info_of", ordinal) == [0, 0, LIMITS_MIB[card] * MIB]


def test_without_a_visible_card_the_driver_says_so(two):
    """An empty list is the driver's business, and ours to hand on."""
    assert two.start(CUDA_VISIBLE_DEVICES="").ask("init") == 100  # CUDA_ERROR_NO_DEVICE
