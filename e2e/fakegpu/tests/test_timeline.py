"""Virtual time: kernels take what their name says, on one queue a card."""

import pytest

NOT_READY = 600


def test_a_kernel_takes_the_time_of_its_name(node):
    """Between the first and the fifth launch lie four kernels, to the nanosecond."""
    early, late, milliseconds = node.guest().ask("timeline", "k_20000us", 5)
    assert (early, late) == (NOT_READY, 0)
    assert milliseconds == pytest.approx(80.0, abs=1e-3)


@pytest.mark.parametrize(("blocks", "waves"), [(1, 1), (10, 1), (11, 2), (100, 10)])
def test_blocks_run_in_waves_of_one_per_sm(node, blocks, waves):
    """A card with 10 SMs runs 10 blocks at a time."""
    milliseconds = node.guest().ask("timeline", "k_5000us", 2, blocks)[2]
    assert milliseconds == pytest.approx(5.0 * waves, abs=1e-3)


def test_mangled_names_count_too(node):
    """The time is found inside a C++ symbol."""
    assert node.guest().ask("timeline", "_Z9k_5000usPf", 2)[2] == pytest.approx(5.0, abs=1e-3)


def test_processes_queue_behind_each_other(node):
    """A second process's work starts when the first one's ends."""
    first, second = node.guest(), node.guest()
    first.ask("launch", "k_300000us")
    early, _, _ = second.ask("timeline", "k_1us", 2)
    assert early == NOT_READY
    assert second.ask("info")[0] == 0


def test_the_dead_leave_the_queue(node):
    """Work that a killed process had queued is gone with it."""
    victim, survivor = node.guest(), node.guest()
    victim.ask("launch", "k_3600000000us")
    victim.kill()
    node.cli("gc")
    assert survivor.ask("timeline", "k_1000us", 2)[1] == 0


def test_utilisation_is_the_busy_share_of_the_last_second(node):
    """A card that is busy shows it, the other one does not."""
    guest = node.guest()
    guest.ask("timeline", "k_400000us", 3)
    rates = "[n.nvmlDeviceGetUtilizationRates(n.nvmlDeviceGetHandleByIndex(i)).gpu for i in (0, 1)]"
    busy, idle = node.nvml(rates)
    assert busy > 0
    assert idle == 0
    assert node.guest().ask("info")[0] == 0
