"""The memory limit is exact: allocators, threads, processes, crashes, by the card's own ledger."""

import os
import random
import signal
import time

import pytest

from hamikit.region import Kind, OverheadPolicy

MIB = 1 << 20
OOM = 2
CONTEXT = 4 * MIB  # conftest.CARDS
ROUNDS = int(os.environ.get("ROUNDS", "12"))  # more for a soak


def test_exactly_the_limit_can_be_allocated(container):
    """1000 MiB are granted, a byte more is CUDA_ERROR_OUT_OF_MEMORY, and the process lives on."""
    guest = container.ready()
    result, pointer = guest.ask("alloc", 1000 * MIB)
    assert result == 0
    assert guest.ask("alloc", 1)[0] == OOM
    assert guest.ask("free", pointer) == 0
    assert guest.ask("alloc", 1000 * MIB + 1)[0] == OOM
    assert guest.ask("alloc", 1000 * MIB)[0] == 0
    assert container.usage.devices[0].refused == 2


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 7 * MIB])
def test_what_is_charged_is_what_the_card_gave(container, size):
    """Sizes are charged as the driver rounds them."""
    guest = container.ready()
    guest.ask("alloc", size)
    assert container.used == container.data_bytes()


def test_impossible_sizes_are_refused_without_harm(container):
    """Sizes near 2^64 neither wrap nor move the counter."""
    guest = container.ready()
    for size in (2**64 - 1, 2**63, 2**62, 2**40):
        assert guest.ask("alloc", size)[0] == OOM
    assert guest.ask("pitch", 2**40, 2**40)[0] == OOM
    assert container.used == 0


def test_every_allocator_counts_and_gives_back(container):
    """Linear, managed, pitched and array memory, each charged under its kind and freed exactly."""
    guest = container.ready()
    linear = guest.ask("alloc", 10 * MIB)[1]
    managed = guest.ask("managed", 20 * MIB)[1]
    pitched = guest.ask("pitch", 1000, 1000)
    array = guest.ask("array", 1024, 1024)[1]
    mipmapped = guest.ask("mipmapped", 512, 512, 3)[1]
    (process,) = container.usage.processes
    padded = -(-pitched[2] * 1000 // 512) * 512
    assert process.shares[0, Kind.BUFFER] == 10 * MIB + padded
    assert process.shares[0, Kind.MANAGED] == 20 * MIB
    assert process.shares[0, Kind.ARRAY] >= 4 * MIB
    assert container.used == sum(process.shares.values()) - process.shares[0, Kind.CONTEXT]
    for pointer in (linear, managed, pitched[1]):
        assert guest.ask("free", pointer) == 0
    assert guest.ask("array_destroy", array) == 0
    del mipmapped
    assert guest.ask("release") == 0
    assert container.used == 0


def test_a_pointer_that_is_not_ours_goes_to_the_driver(container):
    """The driver's own answer to a wild free is what the program gets."""
    guest = container.ready()
    assert guest.ask("free", 12345) == 1  # CUDA_ERROR_INVALID_VALUE
    assert container.used == 0


def test_a_pool_is_charged_for_what_it_holds(container):
    """What a pool keeps counts, also when nobody uses it; a synchronisation gives it back."""
    guest = container.ready()
    result, pointer = guest.ask("alloc_async", 10 * MIB)
    assert result == 0
    assert container.used == container.data_bytes() >= 10 * MIB
    assert guest.ask("free_async", pointer) == 0
    assert container.used == container.data_bytes() > 0
    assert guest.ask("synchronize_stream") == 0
    assert container.used == container.data_bytes() == 0


@pytest.mark.parametrize("suffix", ["", "_ptsz"])
def test_pools_cannot_pass_the_limit(container, suffix):
    """Stream-ordered allocation ends at the limit, whatever chunks the pool takes."""
    guest = container.ready()
    granted = 0
    while (answer := guest.ask("alloc_async", 30 * MIB, suffix))[0] == 0:
        granted += 1
        assert container.used == container.data_bytes() <= 1000 * MIB
    assert answer[0] == OOM
    assert 25 <= granted <= 33
    assert container.used == container.data_bytes() <= 1000 * MIB


def test_idle_pool_memory_is_used_before_new_is_charged(container):
    """A request that the pool can serve from what it holds needs no room."""
    guest = container.ready()
    pointer = guest.ask("alloc_async", 900 * MIB)[1]
    assert guest.ask("free_async", pointer) == 0
    assert guest.ask("alloc_async", 900 * MIB)[0] == 0


def test_a_pool_of_ones_own(container):
    """CuMemAllocFromPoolAsync counts, and destroying the pool frees."""
    guest = container.ready()
    pool = guest.ask("pool")[1]
    result, pointer = guest.ask("alloc_from", pool, 100 * MIB)
    assert result == 0
    assert container.used == container.data_bytes() >= 100 * MIB
    assert guest.ask("alloc_from", pool, 950 * MIB)[0] == OOM
    assert guest.ask("free", pointer) == 0  # allowed by CUDA for pool memory too
    assert guest.ask("synchronize") == 0
    assert guest.ask("pool_destroy", pool) == 0
    assert container.used == container.data_bytes() == 0


def test_physical_memory_counts_until_its_last_handle_and_mapping(container):
    """A handle that is released while mapped is still memory; retained handles count too."""
    guest = container.ready()
    size = 64 * MIB
    handle = guest.ask("create", size)[1]
    address = guest.ask("reserve", size)[1]
    assert guest.ask("map", address, size, handle) == 0
    assert guest.ask("release_handle", handle) == 0
    assert container.used == size == container.data_bytes()
    retained = guest.ask("retain_handle", address)[1]
    assert guest.ask("unmap", address, size) == 0
    assert container.used == size
    assert guest.ask("release_handle", retained) == 0
    assert container.used == 0 == container.data_bytes()


def test_physical_memory_is_charged_to_its_own_device(container):
    """A card that is not in the grant gives nothing, whatever the current device is."""
    guest = container.ready()
    assert guest.ask("create", 2 * MIB, 1)[0] == OOM
    assert guest.ask("create", 1002 * MIB, 0)[0] == OOM
    assert container.used == 0


def test_a_destroyed_context_frees_what_it_held(container):
    """The driver frees a context's memory with it, so the charge goes too."""
    guest = container.start()
    assert guest.ask("init") == 0
    context = guest.ask("context")[1]
    assert guest.ask("alloc", 100 * MIB)[0] == 0
    assert container.used == 100 * MIB
    assert guest.ask("destroy", context) == 0
    assert container.used == 0


def test_threads_never_pass_the_limit(container):
    """Eight threads fight for one place; each call is granted or refused, and all is given back."""
    guest = container.ready()
    granted, refused, others = guest.ask("race", 8, 600 * MIB, 300)
    assert others == []
    assert granted + refused == 2400
    assert granted > 0
    assert container.usage.devices[0].peak_bytes == 600 * MIB
    assert container.used == 0 == container.data_bytes()


def test_processes_share_one_limit(container):
    """Of 8 processes that ask for 300 MiB at once exactly 3 get it, every time."""
    for _ in range(ROUNDS):
        answer = container.probe("race", "8", "300")
        assert (answer["granted"], answer["refused"], answer["other"]) == (3, 5, 0)


def test_the_memory_of_a_killed_process_is_found_again(container):
    """Kill -9 at a random instant: a neighbour gets all the memory, not a byte more or less."""
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    dice = random.Random(seed)
    survivor = container.ready()
    for round_ in range(ROUNDS):
        victims = [container.ready() for _ in range(3)]
        for victim in victims:
            assert victim.process.stdin is not None
            for _ in range(dice.randrange(40)):
                size = dice.randrange(1, 20) * MIB
                print(f'["alloc", {size}]', file=victim.process.stdin)
            print('["race", 2, 1048576, 100000]', file=victim.process.stdin, flush=True)
        for victim in victims:
            if dice.random() < 0.5:
                victim.process.stdout.readline()
            victim.kill()
        result, pointer = survivor.ask("alloc", 1000 * MIB)
        assert result == 0, f"seed {seed}, round {round_}: used {container.used}"
        assert survivor.ask("alloc", 1)[0] == OOM
        assert survivor.ask("free", pointer) == 0
        assert container.used == 0, f"seed {seed}, round {round_}"


def test_a_stopped_process_holds_nobody_up(container):
    """Stopped in the middle of allocating and freeing, over and over: neighbours go on."""
    dice = random.Random()
    neighbour = container.ready()
    for _ in range(ROUNDS):
        stopped = container.ready()
        print('["race", 4, 1048576, 100000]', file=stopped.process.stdin, flush=True)
        while not any(process.pid == stopped.process.pid for process in container.usage.processes):
            assert stopped.process.poll() is None
        time.sleep(dice.random() / 50)  # any instant will do
        stopped.stop()
        while container.is_in_driver(stopped):
            stopped.process.send_signal(signal.SIGCONT)
            stopped.stop()
        result, pointer = neighbour.ask("alloc", 900 * MIB)
        assert (result, neighbour.ask("free", pointer)) == (0, 0)
        stopped.kill()


def test_a_process_that_closed_all_its_descriptors_keeps_its_charge(container):
    """A daemon closes what it did not open, our descriptor too; it is alive all the same."""
    daemon, neighbour = container.ready(), container.ready()
    assert daemon.ask("alloc", 800 * MIB)[0] == 0
    daemon.ask("close_descriptors")
    assert neighbour.ask("alloc", 300 * MIB)[0] == OOM
    daemon.kill()
    assert neighbour.ask("alloc", 1000 * MIB)[0] == 0


def test_a_forked_child_is_a_process_of_its_own(container):
    """It starts afresh with the driver, shares the limit, and leaves nothing behind."""
    guest = container.ready()
    assert guest.ask("alloc", 400 * MIB)[0] == 0
    init, result, _, _, free, total = guest.ask("fork_alloc", 500 * MIB)
    assert (init, result) == (0, 0)
    assert (free, total) == (100 * MIB, 1000 * MIB)
    assert guest.ask("alloc", 600 * MIB)[0] == 0
    assert container.used == 1000 * MIB


def test_an_idle_child_does_not_keep_its_dead_parents_memory(container):
    """A data loader outlives its parent: what it inherited must not hold the parent's slot."""
    parent, neighbour = container.ready(), container.ready()
    assert parent.ask("alloc", 900 * MIB)[0] == 0
    child = parent.ask("fork_idle")
    try:
        parent.kill()
        assert neighbour.ask("alloc", 1000 * MIB)[0] == 0
    finally:
        os.kill(child, signal.SIGKILL)


def test_two_containers_do_not_touch_each_other(containers):
    """Each has its own account on the same card."""
    one, two = containers(1000), containers(500)
    first, second = one.ready(), two.ready()
    assert first.ask("alloc", 1000 * MIB)[0] == 0
    assert second.ask("alloc", 500 * MIB)[0] == 0
    assert second.ask("alloc", 1)[0] == OOM


def test_a_limit_changed_by_the_host_holds_at_the_next_call(container):
    """Raised it gives more at once; lowered below what is used it only refuses."""
    guest = container.ready()
    pointer = guest.ask("alloc", 1000 * MIB)[1]
    container.limit(1500)
    assert guest.ask("alloc", 500 * MIB)[0] == 0
    container.limit(200)
    assert guest.ask("alloc", 1)[0] == OOM
    assert guest.ask("info")[1:] == [0, 200 * MIB]
    assert guest.ask("free", pointer) == 0


def test_cuda_and_nvml_show_the_same_slice(container):
    """Total, used and free agree between cuMemGetInfo, cuDeviceTotalMem, NVML v1 and v2."""
    guest = container.ready()
    guest.ask("alloc", 250 * MIB)
    expected = [1000 * MIB, 750 * MIB, 250 * MIB]
    assert guest.ask("info") == [0, 750 * MIB, 1000 * MIB]
    assert guest.ask("total") == [0, 1000 * MIB]
    assert guest.ask("nvml") == [expected, expected]
    assert guest.ask("info_without_pointers") == 0


def test_who_only_looks_sees_no_dead_processes(container):
    """A fresh nvidia-smi shows the memory of a killed process as free."""
    guest = container.ready()
    guest.ask("alloc", 250 * MIB)
    guest.kill()
    shown = container.run(str(container.fake.folder / "nvidia-smi")).stdout
    assert "0MiB /    1000MiB" in shown


def test_a_limit_above_the_card_shows_the_card(containers):
    """Nobody is told more than there is."""
    guest = containers(100_000).ready()
    assert guest.ask("total") == [0, 4096 * MIB]


def test_contexts_are_reported_and_do_not_count(container):
    """What the card gives for contexts stands apart in the usage file, and goes with them."""
    guest = container.ready()
    assert guest.ask("alloc", 1000 * MIB)[0] == 0
    context = guest.ask("context")[1]
    (process,) = container.usage.processes
    assert process.shares[0, Kind.CONTEXT] == 2 * CONTEXT
    assert container.used == 1000 * MIB
    assert guest.ask("destroy", context) == 0
    assert container.usage.processes[0].shares[0, Kind.CONTEXT] == CONTEXT


def test_strict_overhead_takes_contexts_off_the_limit(containers):
    """Under the strict policy contexts leave less to allocate, and less is shown as free."""
    container = containers(1000, overhead_policy=OverheadPolicy.STRICT)
    room = 1000 * MIB - 2 * CONTEXT
    guest, _ = container.ready(), container.ready()
    assert guest.ask("info") == [0, room, 1000 * MIB]
    assert guest.ask("alloc", room + 1)[0] == OOM
    assert guest.ask("alloc", room)[0] == 0


def test_a_limit_below_the_overhead_shows_nothing_free(containers):
    """Never an error, never a number below zero."""
    guest = containers(2, overhead_policy=OverheadPolicy.STRICT).ready()
    assert guest.ask("info") == [0, 0, 2 * MIB]
    assert guest.ask("nvml")[0] == [2 * MIB, 0, 2 * MIB]
    assert guest.ask("alloc", 1)[0] == OOM
