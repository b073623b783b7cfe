"""What the node has to give."""

from hypothesis import given
from hypothesis import strategies as st

from hami_device_plugin.inventory import announced, merge, share, slot_ids, slots
from hami_device_plugin.settings import Settings
from hamikit.codec import RegisteredDevice, encode_register
from hamikit.gpu import Card

A, B = Card("GPU-a", 0, "NVIDIA A100", 40960, numa=1), Card("GPU-b", 1, "Tesla T4", 15360)


def test_cards_as_the_register_annotation_lists_them():
    """Names begin with NVIDIA, zero values are left out, the order is the index."""
    assert encode_register(announced([B, A], Settings())) == (
        '[{"id":"GPU-a","count":10,"devmem":40960,"devcore":100,"type":"NVIDIA A100","numa":1,'
        '"mode":"hami-core","health":true},'
        '{"id":"GPU-b","index":1,"count":10,"devmem":15360,"devcore":100,"type":"NVIDIA-Tesla T4",'
        '"mode":"hami-core","health":true}]'
    )


def test_scaling_is_announced():
    """Memory and cores are announced times their scaling, rounded down."""
    (card,) = announced([B], Settings(memory_scaling=1.3, core_scaling=0.5, split_count=3))
    assert (card.devmem, card.devcore, card.count) == (19968, 50, 3)


def test_hidden_cards_are_not_announced():
    """By UUID or by index."""
    assert announced([A, B], Settings(hidden_uuids=frozenset({"GPU-a"})))[0].id == "GPU-b"
    assert announced([A, B], Settings(hidden_indexes=frozenset({1})))[0].id == "GPU-a"


def test_a_card_of_unknown_memory_needs_the_operators_word():
    """Without it nobody could share it out."""
    card = Card("GPU-c", 2, "NVIDIA GB10", None)
    assert announced([card], Settings()) == ()
    assert announced([card], Settings(preconfigured_memory_mib=1000))[0].devmem == 1000


def test_health_is_the_cards_and_the_events():
    """A card is healthy when it answers and no fatal error was seen."""
    lost = Card("GPU-c", 2, "NVIDIA A100", 40960, healthy=False)
    devices = announced([A, B, lost], Settings(), unhealthy={"GPU-b"})
    assert [device.health for device in devices] == [True, False, False]


def test_a_missing_card_stays_known_as_unhealthy():
    """It may come back, and its grants do not vanish."""
    (kept, gone) = merge([A, B], [A])
    assert (kept.healthy, gone.uuid, gone.healthy) == (True, "GPU-b", False)
    assert merge([gone], [A, B]) == (A, B)


def test_a_lost_card_takes_the_last_free_slots():
    """Held ids and ids of another plugin stay healthy."""
    devices = [
        RegisteredDevice(id="a", count=3, health=True),
        RegisteredDevice(id="b", count=3, health=False),
    ]
    assert slots(devices, {"slot-0005", "GPU-x-1"}) == {
        "GPU-x-1": True,
        "slot-0000": True,
        "slot-0001": False,
        "slot-0002": False,
        "slot-0003": False,
        "slot-0004": False,
        "slot-0005": True,
    }


@given(
    total=st.integers(0, 60),
    usable=st.integers(0, 60),
    held=st.sets(st.integers(0, 80).map(lambda n: f"slot-{n:04d}")),
)
def test_slots_add_up(total, usable, held):
    """Every held id is healthy, and otherwise no more than the usable ones are."""
    listed = share(total, min(usable, total), held)
    healthy = {slot for slot, fine in listed.items() if fine}
    assert held <= healthy
    assert len(healthy) <= max(min(usable, total), len(held))
    assert set(slot_ids(total)) | held == set(listed)
    if not held:
        assert len(healthy) == min(usable, total)
