"""Virtual time: kernels take what their name says, on one queue a card."""

import pytest

NOT_READY = 600


def test_a_kernel_takes_the_time_of_its_name(node):
    """Between the first and the third launch lie two kernels, to the nanosecond."""
    early, late, milliseconds = node.guest().ask("timeline", "k_200000us", 3)
    assert (early, late) == (NOT_READY, 0)
    assert milliseconds == pytest.approx(400.0, abs=1e-3)


@pytest.mark.parametrize(("blocks", "waves"), [(1, 1), (10, 1), (11, 2), (30, 3)])
def test_blocks_run_in_waves_of_one_per_sm(node, blocks, waves):
    """A card with 10 SMs runs 10 blocks at a time."""
    milliseconds = node.guest().ask("timeline", "k_100000us", 2, blocks)[2]
    assert milliseconds == pytest.approx(100.0 * waves, abs=1e-3)


def test_mangled_names_count_too(node):
    """The time is found inside a C++ symbol."""
    assert node.guest().ask("timeline", "_Z11k_100000usPf", 2)[2] == pytest.approx(100, abs=1e-3)


def test_a_graph_takes_the_sum_of_its_nodes(node):
    """A graph captured from seven launches is one piece of work of their length."""
    assert node.guest().ask("graph", "k_20000us", 7) == pytest.approx(140.0, abs=1e-3)


def test_nvml_names_the_process_that_launches(node):
    """Process utilisation lists the busy process and not the idle one."""
    busy, idle = node.guest(), node.guest()
    ask = (
        "[(s.pid, s.smUtil) for s in"
        " n.nvmlDeviceGetProcessUtilization(n.nvmlDeviceGetHandleByIndex(0), 0)]"
    )
    for _ in range(20):  # a slow start of the reader misses the two seconds that samples live
        busy.ask("launch", "k_900000us")
        if node.nvml_error(ask) == 0:
            break
    busy.ask("launch", "k_900000us")
    samples = node.nvml(ask)
    assert [pid for pid, _ in samples] == [busy.pid]
    assert samples[0][1] > 0
    assert idle.ask("info")[0] == 0


def test_utilisation_speaks_of_a_whole_second(node):
    """Who has just begun another of the seconds in which work is counted was busy in the last."""
    guest = node.guest()
    ask = "n.nvmlDeviceGetProcessUtilization(n.nvmlDeviceGetHandleByIndex(0), 0)[0].smUtil"

    def is_seen() -> bool:
        guest.ask("timeline", "k_600000us", 2)
        guest.ask("launch", "k_1us")
        return node.nvml_error(ask) == 0

    assert any(is_seen() for _ in range(10))  # a slow start of the reader misses the second


def test_processes_queue_behind_each_other(node):
    """A second process's work waits while the first one's runs, on this card only."""
    first, second, elsewhere = node.guest(), node.guest(), node.guest()
    first.ask("launch", "k_600000000us")
    second.ask("launch", "k_1us")
    assert second.ask("call", "cuStreamQuery", None) == NOT_READY
    assert elsewhere.ask("retain", 1) == 0
    assert elsewhere.ask("timeline", "k_1us", 2)[1] == 0


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
    guest.ask("launch", "k_600000000us")
    rates = "[n.nvmlDeviceGetUtilizationRates(n.nvmlDeviceGetHandleByIndex(i)).gpu for i in (0, 1)]"
    busy, idle = node.nvml(rates)
    assert busy > 0
    assert idle == 0
