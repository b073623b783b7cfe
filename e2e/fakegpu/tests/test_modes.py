"""What a card can be told to do beyond one queue in order, and the ledger of its busy time."""

import subprocess

import pytest

CARD = "[card]\nmodel = Small\nmemory_mib = 64\ncontext_mib = 4\ncount = 2\nsm = 10\n"


def card(**modes):
    """A cards file of small cards that behave as asked."""
    lines = "".join(f"{key} = {value}\n" for key, value in modes.items())
    return f"[driver]\n{lines}{CARD}"


def busy_ms(node):
    """Milliseconds for which each process has kept the first card busy, and the card's own."""
    ledger = node.ledger()[0]
    return [p["busy_ns"] / 1e6 for p in ledger["processes"]], ledger["busy_ns"] / 1e6


def test_the_ledger_says_how_long_each_process_kept_the_card_busy(node):
    """Done work counts, to the nanosecond; what is queued does not yet."""
    first, second = node.guest(), node.guest()
    first.ask("timeline", "k_3000us", 4)
    second.ask("timeline", "k_5000us", 2)
    assert busy_ms(node) == ([12.0, 10.0], 22.0)
    first.ask("launch", "k_600000000us")
    processes, total = busy_ms(node)
    assert 12.0 < processes[0] < 600_000
    assert 22.0 < total < 600_000


def test_noise_makes_elapsed_times_lie_within_its_bounds(make_node):
    """Each answer is off another way, by 10 percent at most, and not off on the average."""
    guest = make_node(card(event_noise_percent=10)).guest()
    answers = [guest.ask("timeline", "k_1000us", 2)[2] for _ in range(60)]
    assert all(0.9 <= answer <= 1.1 for answer in answers)
    assert max(answers) - min(answers) > 0.1
    assert sum(answers) / len(answers) == pytest.approx(1.0, abs=0.03)


def test_with_slices_two_processes_share_the_card_at_once(make_node):
    """Behind ten minutes of somebody else's work 20 ms take 40 ms and a slice at most."""
    node = make_node(card(slice_us=2000))
    long, short = node.guest(), node.guest()
    long.ask("launch", "k_600000000us")
    assert 20.0 <= short.ask("timeline", "k_20000us", 2)[2] <= 43.0
    assert short.ask("timeline", "k_20000us", 2)[1] == 0


def test_with_slices_a_look_at_the_clock_ends_no_turn(make_node):
    """The end of 60 ms waits for somebody else's 100, however often it is asked for."""
    node = make_node(card(slice_us=100_000))
    long, short = node.guest(), node.guest()
    long.ask("launch", "k_600000000us")
    assert short.ask("timeline", "k_60000us", 2)[2] == pytest.approx(160, abs=5)


def test_with_slices_a_process_alone_takes_its_own_time(make_node):
    """Turns cost nothing while nobody else wants one."""
    guest = make_node(card(slice_us=2000)).guest()
    assert guest.ask("timeline", "k_20000us", 3)[2] == pytest.approx(40.0, abs=1e-3)


def test_overlapping_streams_keep_the_card_busy_once(make_node):
    """Four streams side by side take the time of one, in the ledger too."""
    node = make_node(card(overlap=1))
    assert node.guest().ask("streams", "k_200000us", 4) == pytest.approx(200, abs=150)
    processes, total = busy_ms(node)
    assert processes == [pytest.approx(200, abs=150)]
    assert total == pytest.approx(200, abs=150)


def test_work_drifts_between_once_and_twice_its_time(make_node):
    """As clocks that go down and up again; over one period every length comes by."""
    guest = make_node(card(drift_ms=200)).guest()
    took = [guest.ask("timeline", "k_2000us", 2)[2] for _ in range(60)]
    assert all(2.0 <= one <= 4.0 for one in took)
    assert max(took) - min(took) > 1.0


def test_a_call_can_be_told_to_fail(node):
    """As often as asked, with the asked code; then it works again."""
    guest = node.guest()
    node.cli("fail", "cuLaunchKernel", "2", "700")
    assert [guest.ask("launch", "k_1us") for _ in range(3)] == [700, 700, 0]


def test_an_unknown_mode_is_refused(make_node):
    """The cards file's line is named."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        make_node(card(slices=1))
    assert "unknown key 'slices' in [driver]" in caught.value.stderr
