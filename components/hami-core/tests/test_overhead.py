"""What nobody asked for: contexts and modules, noted and, under the strict policy, counted."""

import time

import pytest

from hamikit.region import HostPid, Kind, OverheadPolicy, note_host_pids

MIB = 1 << 20
OOM = 2
CONTEXT = 4 * MIB  # conftest.CARDS
MODULE = 6 * MIB
HOST = 500_000


@pytest.fixture
def strict(containers):
    """A container whose contexts and modules count."""
    return containers(1000, overhead_policy=OverheadPolicy.STRICT)


def shares(container) -> tuple[int, int]:
    """Contexts and modules of the only process on the first card."""
    (process,) = container.usage.processes
    return process.shares.get((0, Kind.CONTEXT), 0), process.shares.get((0, Kind.MODULE), 0)


def wait_for_shares(container, guest, expected: tuple[int, int]) -> None:
    """Calls that are slow anyway note what was put off."""
    deadline = time.monotonic() + 10
    while shares(container) != expected:
        assert time.monotonic() < deadline, shares(container)
        assert guest.ask("synchronize") == 0


def test_contexts_and_modules_are_told_apart(container):
    """What came with a context is its own, what came with code is the modules'."""
    guest = container.ready()
    assert shares(container) == (CONTEXT, 0)
    module = guest.ask("module")[1]
    assert shares(container) == (CONTEXT, MODULE)
    second = guest.ask("context")[1]
    assert shares(container) == (2 * CONTEXT, MODULE)
    assert guest.ask("destroy", second) == 0
    assert guest.ask("unload", module) == 0
    wait_for_shares(container, guest, (CONTEXT, 0))


def test_many_modules_are_noted_a_moment_later(container):
    """NVML is not asked for each; the next slow call after a while tells the sum."""
    guest = container.ready()
    for _ in range(5):
        assert guest.ask("module")[0] == 0
    wait_for_shares(container, guest, (CONTEXT, 5 * MODULE))


def test_the_end_of_the_last_context_leaves_nothing(container):
    """A process that NVML lists no more has no overhead."""
    guest = container.ready()
    guest.ask("module")
    assert guest.ask("release") == 0
    assert shares(container) == (0, 0)


def test_a_report_policy_leaves_the_whole_limit_to_data(container):
    """Modules and contexts stand in the report and take nothing off."""
    guest = container.ready()
    guest.ask("module")
    assert guest.ask("alloc", 1000 * MIB)[0] == 0


def test_a_strict_policy_counts_modules_of_all_processes(strict):
    """A neighbour's code leaves less to allocate, and comes back when it is killed."""
    guest, neighbour = strict.ready(), strict.ready()
    neighbour.ask("module")
    room = 1000 * MIB - 2 * CONTEXT - MODULE
    assert guest.ask("info") == [0, room, 1000 * MIB]
    assert guest.ask("alloc", room + 1)[0] == OOM
    neighbour.kill()
    result, pointer = guest.ask("alloc", 1000 * MIB - CONTEXT)
    assert result == 0
    assert guest.ask("free", pointer) == 0


def test_a_strict_policy_keeps_the_card_within_the_limit(strict):
    """Contexts, modules and data together: the card's own ledger never shows more."""
    guest, neighbour = strict.ready(), strict.ready()
    guest.ask("module")
    while guest.ask("alloc", 16 * MIB)[0] == 0:
        pass
    neighbour.ask("alloc", MIB)
    held = sum(process["bytes"] for process in strict.ledger()[0]["processes"])
    assert 980 * MIB < held <= 1000 * MIB


def test_a_strict_policy_holds_where_the_usage_file_cannot_be_used(strict):
    """Each process then counts its own overhead."""
    (strict.folder / "usage").unlink()
    guest = strict.ready()
    assert guest.ask("info") == [0, 1000 * MIB - CONTEXT, 1000 * MIB]


@pytest.mark.parametrize("start", [0, 1])
def test_overhead_is_found_by_host_pids_where_nvml_has_those(container, start):
    """As soon as the monitor has said them; a word of another start time means another process."""
    container.use_driver(pid_offset=HOST)
    guest = container.ready()
    assert shares(container) == (0, 0)
    (process,) = container.usage.processes
    one = HostPid(process.slot, process.pid + HOST, process.start_time + start)
    note_host_pids(container.folder / "usage", [one])
    if start == 0:
        wait_for_shares(container, guest, (CONTEXT, 0))
    else:
        assert guest.ask("module")[0] == 0
        assert shares(container) == (0, 0)
