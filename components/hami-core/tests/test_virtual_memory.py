"""Virtual device memory: more than the card holds, the rest on the host, and exact accounts."""

import pytest

from hamikit.region import Kind, OverheadPolicy

MIB = 1 << 20
OOM = 2
CARD = 4096  # conftest.CARDS, in MiB
CONTEXT = 4


@pytest.fixture
def large(container):
    """6000 MiB on a card of 4096, of which 3000 are the card's own."""
    container.virtual(6000, 3000)
    return container


def shares(container) -> dict[Kind, int]:
    """MiB of the only process on the first card, without its context."""
    (process,) = container.usage.processes
    return {
        kind: amount // MIB
        for (device, kind), amount in process.shares.items()
        if device == 0 and kind is not Kind.CONTEXT
    }


def exact(container, mib: int) -> bool:
    """The account, the card's ledger and the expected figure are one."""
    return container.used == container.data_bytes() == mib * MIB


def on_host(container) -> int:
    """MiB of managed memory that the card could not hold."""
    return sum(process["host_bytes"] for process in container.ledger()[0]["processes"]) // MIB


def test_more_than_the_card_holds_can_be_allocated(large):
    """The limit is reached to the byte; what is above the real share is managed memory."""
    guest = large.ready()
    for _ in range(60):
        assert guest.ask("alloc", 100 * MIB)[0] == 0
    assert exact(large, 6000)
    assert shares(large) == {Kind.BUFFER: 3000, Kind.MANAGED: 3000}
    assert on_host(large) == 6000 + CONTEXT - CARD
    assert guest.ask("alloc", 1)[0] == OOM
    assert large.usage.devices[0].refused == 1


def test_a_program_sees_all_of_its_virtual_memory(large):
    """CUDA, NVML and the free figure agree on it, whatever the card has."""
    guest = large.ready()
    guest.ask("alloc", 3500 * MIB)
    expected = [6000 * MIB, 2500 * MIB, 3500 * MIB]
    assert guest.ask("total") == [0, 6000 * MIB]
    assert guest.ask("info") == [0, 2500 * MIB, 6000 * MIB]
    assert guest.ask("nvml") == [expected, expected]


def test_what_spilled_is_freed_like_any_memory(large):
    """By every call that a program could use, and the accounts come down to nothing."""
    guest = large.ready()
    plain = guest.ask("alloc", 2900 * MIB)[1]
    spilled = [guest.ask("alloc", 200 * MIB)[1] for _ in range(2)]
    stream_ordered = guest.ask("alloc_async", 300 * MIB)[1]
    assert shares(large) == {Kind.BUFFER: 2900, Kind.MANAGED: 700}
    assert guest.ask("free", spilled[0]) == 0
    assert guest.ask("free_async", spilled[1]) == 0
    assert guest.ask("free_async", stream_ordered, "_ptsz") == 0
    assert exact(large, 2900)
    assert guest.ask("free", plain) == 0
    assert exact(large, 0)


@pytest.mark.parametrize("suffix", ["", "_ptsz"])
def test_stream_ordered_memory_spills_too(large, suffix):
    """Also from a pool of one's own."""
    guest = large.ready()
    pool = guest.ask("pool")[1]
    assert guest.ask("alloc", 2990 * MIB)[0] == 0
    assert guest.ask("alloc_async", 500 * MIB, suffix)[0] == 0
    assert guest.ask("alloc_from", pool, 500 * MIB)[0] == 0
    assert exact(large, 3990)


def test_pitched_memory_spills_with_a_pitch(large):
    """Rows are aligned as the driver aligns them."""
    guest = large.ready()
    assert guest.ask("alloc", 3000 * MIB)[0] == 0
    result, pointer, pitch = guest.ask("pitch", 1000, 1 << 20)
    assert (result, pitch) == (0, 1024)
    assert exact(large, 4024)
    assert guest.ask("free", pointer) == 0
    assert exact(large, 3000)


def test_what_cannot_spill_stays_within_the_real_share(large):
    """Physical memory, arrays and graphs have no other place than the card."""
    guest = large.ready()
    assert guest.ask("alloc", 2000 * MIB)[0] == 0
    assert guest.ask("create", 1002 * MIB)[0] == OOM
    assert guest.ask("array", 1 << 20, 251)[0] == OOM
    graph = guest.ask("graph")
    guest.ask("graph_alloc", graph, 1002 * MIB)
    executable = guest.ask("instantiate", graph)[1]
    assert guest.ask("launch", executable) == OOM
    assert large.usage.devices[0].refused == 3
    assert guest.ask("create", 1000 * MIB)[0] == 0
    assert exact(large, 3000)


def test_managed_memory_of_the_program_itself_may_use_all(large):
    """It can leave the card, so it takes nothing from the real share."""
    guest = large.ready()
    assert guest.ask("managed", 2500 * MIB)[0] == 0
    assert guest.ask("create", 3000 * MIB)[0] == 0
    assert exact(large, 5500)
    assert guest.ask("managed", 501 * MIB)[0] == OOM


def test_a_neighbour_gets_its_real_share_whoever_came_first(containers):
    """Spilled memory makes room on the card for what cannot spill."""
    first, second = containers(), containers()
    first.virtual(6000, 3000)
    second.virtual(2000, 1000)
    guest, neighbour = first.ready(), second.ready()
    for _ in range(60):
        assert guest.ask("alloc", 100 * MIB)[0] == 0
    assert neighbour.ask("create", 1000 * MIB)[0] == 0
    assert neighbour.ask("alloc", 1000 * MIB)[0] == 0
    assert (first.used, second.used) == (6000 * MIB, 2000 * MIB)
    assert first.data_bytes() == 8000 * MIB


def test_a_card_that_is_full_all_the_same_spills(containers):
    """Somebody without limits has it: what the driver refuses within the real share spills."""
    unlimited, ours = containers(None), containers()
    ours.virtual(2000, 1000)
    assert unlimited.ready().ask("alloc", 4000 * MIB)[0] == 0
    guest = ours.ready()
    assert guest.ask("alloc", 500 * MIB)[0] == 0
    assert shares(ours) == {Kind.MANAGED: 500}
    assert ours.used == 500 * MIB


def test_a_killed_process_leaves_no_virtual_memory(large):
    """Real and spilled alike are given back."""
    guest, neighbour = large.ready(), large.ready()
    assert guest.ask("alloc", 5000 * MIB)[0] == 0
    assert neighbour.ask("alloc", 1001 * MIB)[0] == OOM
    guest.kill()
    assert neighbour.ask("alloc", 3000 * MIB)[0] == 0
    assert shares(large) == {Kind.BUFFER: 3000}


def test_processes_share_the_real_part(large):
    """What one process holds of it the other one has to spill."""
    guest, neighbour = large.ready(), large.ready()
    assert guest.ask("create", 2000 * MIB)[0] == 0
    assert neighbour.ask("create", 1002 * MIB)[0] == OOM
    assert neighbour.ask("alloc", 1500 * MIB)[0] == 0
    assert large.used == 3500 * MIB
    assert guest.ask("create", 1000 * MIB)[0] == 0


def test_contexts_come_off_the_real_share_under_the_strict_policy(container):
    """They are real memory, and cannot spill; managed memory is not mistaken for them."""
    container.virtual(2000, 1000, overhead_policy=OverheadPolicy.STRICT)
    guest = container.ready()
    assert guest.ask("managed", 500 * MIB)[0] == 0
    guest.ask("context")
    (process,) = container.usage.processes
    assert process.shares[0, Kind.CONTEXT] == 2 * CONTEXT * MIB
    assert guest.ask("create", (1000 - 2 * CONTEXT + 2) * MIB)[0] == OOM
    assert guest.ask("create", (1000 - 2 * CONTEXT) * MIB)[0] == 0
    assert guest.ask("info")[1] == 500 * MIB


def test_it_is_off_by_default(container):
    """A limit without a real share never becomes managed memory, nor shows more than the card."""
    container.limit(6000)
    guest = container.ready()
    assert guest.ask("total") == [0, CARD * MIB]
    assert guest.ask("alloc", CARD * MIB)[0] == OOM
    assert container.used == 0
