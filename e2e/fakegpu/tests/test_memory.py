"""Memory of a card: exact, shared by all processes, returned by the dead."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MIB = 1 << 20
TOTAL = 64 * MIB
CONTEXT = 4 * MIB
OUT_OF_MEMORY = 2
INVALID_VALUE = 1


def test_context_costs_what_the_cards_file_says(node):
    """A process with a context and no data holds exactly the context's size."""
    guest = node.guest()
    assert node.used() == CONTEXT
    assert guest.ask("release") == 0
    assert node.used() == 0


def test_created_contexts_cost_each_and_take_their_memory_with_them(node):
    """Destroying a context frees its memory and its own cost, and nothing of another's."""
    guest = node.guest()
    kept = guest.ask("alloc", MIB)
    rc, ctx = guest.ask("create")
    assert rc == 0
    assert guest.ask("alloc", 2 * MIB)[0] == 0
    assert node.used() == 2 * CONTEXT + 3 * MIB
    assert guest.ask("destroy", ctx) == 0
    assert node.used() == CONTEXT + MIB
    assert guest.ask("retain") == 0
    assert guest.ask("free", kept[1]) == 0


@pytest.mark.parametrize(
    ("asked", "charged"),
    [(1, 512), (512, 512), (513, 1024), (MIB, MIB), (2 * MIB, 2 * MIB), (2 * MIB + 1, 4 * MIB)],
)
def test_sizes_are_rounded_as_the_driver_does(node, asked, charged):
    """Small sizes count in 512 bytes, from 2 MiB on in 2 MiB."""
    guest = node.guest()
    rc, va = guest.ask("alloc", asked)
    assert rc == 0
    assert node.used() == CONTEXT + charged
    assert guest.ask("free", va) == 0
    assert node.used() == CONTEXT


def test_out_of_memory_is_exact(node):
    """The last byte is granted, one granule more is refused, and a free makes room again."""
    guest = node.guest()
    rc, big = guest.ask("alloc", TOTAL - CONTEXT)
    assert rc == 0
    assert guest.ask("info") == [0, 0, TOTAL]
    assert guest.ask("alloc", 1)[0] == OUT_OF_MEMORY
    assert guest.ask("free", big) == 0
    assert guest.ask("alloc", TOTAL - CONTEXT + 1)[0] == OUT_OF_MEMORY
    assert guest.ask("alloc", TOTAL - CONTEXT)[0] == 0


@pytest.mark.parametrize("size", [2**40, 2**63, 2**64 - 1])
def test_absurd_sizes_are_refused(node, size):
    """Sizes beyond any card do not wrap around."""
    assert node.guest().ask("alloc", size)[0] == OUT_OF_MEMORY


def test_a_refused_context_is_out_of_memory(node):
    """A full card has no room for another process's context."""
    node.guest().ask("alloc", TOTAL - CONTEXT)
    late = node.guest(ready=False)
    assert late.ask("init") == 0
    assert late.ask("retain") == OUT_OF_MEMORY


def test_free_of_what_is_not_allocated_is_refused(node):
    """A double free, an inner pointer and a made-up one are invalid values; null is fine."""
    guest = node.guest()
    _, va = guest.ask("alloc", MIB)
    assert guest.ask("free", va + 512) == INVALID_VALUE
    assert guest.ask("free", va) == 0
    assert guest.ask("free", va) == INVALID_VALUE
    assert guest.ask("free", 0xDEAD000) == INVALID_VALUE
    assert guest.ask("free", 0) == 0


def test_zero_bytes_are_an_invalid_value(node):
    """The driver refuses to allocate nothing."""
    assert node.guest().ask("alloc", 0)[0] == INVALID_VALUE


def test_race_grants_exactly_what_fits(node):
    """Ten processes ask for 5 MiB each where four times fit: four get it."""
    answer = node.probe("race", "10", "5")
    # 64 - 10 contexts of 4 = 24 MiB; 5 MiB count as 6.
    assert (answer["granted"], answer["refused"], answer["other"]) == (4, 6, 0)
    assert node.used() == 0


def test_kill_gives_memory_back_at_once(node):
    """A process killed with memory and contexts leaves nothing behind, for queries and allocs."""
    victim, survivor = node.guest(), node.guest()
    assert victim.ask("alloc", 50 * MIB)[0] == 0
    assert survivor.ask("alloc", 50 * MIB)[0] == OUT_OF_MEMORY
    victim.kill()
    assert survivor.ask("alloc", 50 * MIB)[0] == 0
    assert node.used() == CONTEXT + 50 * MIB


def test_gc_reclaims_the_dead(node):
    """`fakegpu gc` frees the slots of the dead and leaves the living alone."""
    victim, survivor = node.guest(), node.guest()
    victim.kill()
    assert node.cli("gc") == '{"reaped":1}\n'
    assert node.cli("gc") == '{"reaped":0}\n'
    assert node.used() == CONTEXT
    assert survivor.ask("alloc", MIB)[0] == 0


def test_kills_at_any_instruction_lose_no_byte(node):
    """Processes killed in the middle of allocating leave an exact account and no held lock."""
    survivor = node.guest()
    for _ in range(8):
        victims = [node.guest(), node.guest()]
        for victim in victims:
            assert victim.ask("hammer", 1, 2, 3) == 0
        for _ in range(5):
            survivor.ask("info")
        for victim in victims:
            victim.kill()
        assert survivor.ask("info") == [0, TOTAL - CONTEXT, TOTAL]
    rc, va = survivor.ask("alloc", TOTAL - CONTEXT)
    assert rc == 0
    assert survivor.ask("free", va) == 0


def test_a_reader_never_sees_a_torn_sum(node):
    """While three processes fight for two blocks, NVML never counts a third."""
    for _ in range(3):
        assert node.guest().ask("hammer", 20, 20) == 0
    ask = (
        "max(n.nvmlDeviceGetMemoryInfo(h).used for h in [n.nvmlDeviceGetHandleByIndex(0)] * 20000)"
    )
    assert node.nvml(ask) <= 3 * CONTEXT + 40 * MIB


def test_every_kind_of_memory_counts_and_comes_back(node):
    """Pitched, managed, array and physical memory are all in the ledger."""
    guest = node.guest()
    rc, pitched, pitch = guest.ask("pitch", 1000, 3)
    assert (rc, pitch) == (0, 1024)
    rc, managed = guest.ask("managed", 8192)
    assert rc == 0
    rc, array = guest.ask("array", 256, 4)
    assert rc == 0
    assert node.used() == CONTEXT + 3 * 1024 + 8192 + 4096
    assert guest.ask("free", pitched) == 0
    assert guest.ask("free", managed) == 0
    assert guest.ask("destroy_array", array) == 0
    assert node.used() == CONTEXT


def test_physical_memory_lives_until_its_last_reference(node):
    """A cuMemRelease keeps mapped memory; the last unmap frees it."""
    guest = node.guest()
    rc, handle = guest.ask("create_physical", 4 * MIB)
    assert rc == 0
    rc, va = guest.ask("map", handle, 4 * MIB)
    assert rc == 0
    assert guest.ask("release_physical", handle) == 0
    assert node.used() == CONTEXT + 4 * MIB
    assert guest.ask("unmap", va, 4 * MIB) == 0
    assert node.used() == CONTEXT
    assert guest.ask("release_physical", handle) == INVALID_VALUE


def test_pools_keep_memory_until_a_synchronisation(node):
    """A pool reserves a whole chunk, keeps it after a free, and returns it when it settles."""
    guest = node.guest()
    rc, va = guest.ask("pool_alloc", MIB)
    assert rc == 0
    assert node.used() == CONTEXT + 32 * MIB
    assert guest.ask("pool_free", va) == 0
    assert node.used() == CONTEXT + 32 * MIB
    assert guest.ask("synchronize") == 0
    assert node.used() == CONTEXT


def test_a_pool_takes_less_than_a_chunk_where_a_chunk_no_longer_fits(node):
    """The last megabytes of a card are usable by pools too."""
    guest = node.guest()
    assert guest.ask("alloc", 50 * MIB)[0] == 0
    assert guest.ask("pool_alloc", 8 * MIB)[0] == 0
    assert node.used() == CONTEXT + 58 * MIB
    assert guest.ask("pool_alloc", 8 * MIB)[0] == OUT_OF_MEMORY


def test_threads_of_one_process_do_not_lose_a_byte(node):
    """Eight threads allocate and free at once; what is left is the context alone."""
    guest = node.guest()
    assert guest.ask("threads", 8, 500) == []
    assert node.used() == CONTEXT


def test_cards_are_accounted_apart(node):
    """Memory on one card is no memory of the other."""
    guest = node.guest()
    assert guest.ask("retain", 1) == 0
    assert guest.ask("alloc", 10 * MIB)[0] == 0
    assert [node.used(0), node.used(1)] == [CONTEXT, CONTEXT + 10 * MIB]


STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 24 * MIB)), min_size=1, max_size=30)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_ledger_equals_what_was_granted(node, steps):
    """Over any sequence on three processes: refusal if and only if it does not fit, exact sums."""
    while len(node.guests) < 3:
        node.guest()
    held: list[list[tuple[int, int]]] = [[], [], []]
    for who, size in steps:
        guest, charged = node.guests[who], rounded(size)
        if size == 0:
            assert all(guest.ask("free", va) == 0 for va, _ in held[who])
            held[who] = []
            continue
        room = TOTAL - 3 * CONTEXT - sum(n for mine in held for _, n in mine)
        rc, va = guest.ask("alloc", size)
        assert rc == (0 if charged <= room else OUT_OF_MEMORY)
        if rc == 0:
            held[who].append((va, charged))
    processes = {p["pid"]: p["bytes"] for p in node.ledger()[0]["processes"]}
    expected = {
        g.pid: CONTEXT + sum(n for _, n in mine) for g, mine in zip(node.guests, held, strict=True)
    }
    assert processes == expected
    assert node.used() == sum(expected.values())
    for guest, mine in zip(node.guests, held, strict=True):
        assert all(guest.ask("free", va) == 0 for va, _ in mine)


def rounded(size: int) -> int:
    """The driver's granularity."""
    unit = 2 * MIB if size >= 2 * MIB else 512
    return -(-size // unit) * unit
