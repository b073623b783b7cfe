"""The compute limit: what is paid for, how it is shared, and who waits for what."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hamikit.region import (
    Control,
    ControlDevice,
    ControlFlag,
    CorePolicy,
    create_usage,
    write_control,
)

MS = 1_000_000
GAIN = 4096 + 172
"""Where the first device's gain lies in a usage file."""
FUTEX = {"x86_64": "202", "aarch64": "98"}[os.uname().machine]
KINDS = [
    *(
        kind + twin
        for kind in (
            "cuLaunchKernel",
            "cuLaunchKernelEx",
            "cuLaunchCooperativeKernel",
            "cuGraphLaunch",
        )
        for twin in ("", "_ptsz")
    ),
    "cuLaunchCooperativeKernelMultiDevice",
    "cuLaunch",
    "cuLaunchGrid",
    "cuLaunchGridAsync",
]


def wait_until(true, seconds: float = 30) -> None:
    """Asks again until it is true."""
    pause, end = threading.Event(), time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, true.__doc__ or true
        pause.wait(0.005)


def is_blocked(guest) -> bool:
    """Whether the guest sleeps until somebody wakes it."""
    try:
        words = Path(f"/proc/{guest.process.pid}/syscall").read_text().split()
    except OSError:
        return False
    return words[0] == FUTEX


def first(container):
    """What the container has charged on its first card."""
    return container.usage.devices[0]


def gain(container) -> int:
    """What part of a measured time is charged among others, in 1/1024."""
    return int.from_bytes((container.folder / "usage").read_bytes()[GAIN : GAIN + 4], "little")


@pytest.fixture(scope="session")
def load(built) -> Path:
    """A tenant that computes as fast as it may."""
    tools = Path(sys.executable).parent
    command = [tools / "meson", "compile", "-C", built, "load"]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": f"{tools}:/usr/bin:/bin"})
    return built / "tests" / "load"


@pytest.fixture
def tenants(load):
    """Starts tenants; all are gone afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start(container, shape="wave", **extra) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [load, shape, "60", "1"], env=container.env(**extra), stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def shares(container, tenants, seconds=1.5) -> list[float]:
    """Percent of the time in which each tenant keeps the card busy, by the card's own ledger."""
    arguments = ("busy", "--state", str(container.state), "0", str(int(seconds * 1000)), "2")
    lines = container.fake.run("fakegpu", *arguments).splitlines()
    before, after = (json.loads(line) for line in lines)
    passed = after["at_ns"] - before["at_ns"]
    pids = [str(tenant.pid) for tenant in tenants]
    return [
        100 * (after["processes"].get(p, 0) - before["processes"].get(p, 0)) / passed for p in pids
    ]


def watch(container, tenants, bounds, seconds=1.5) -> list[float]:
    """Shares once all of them are above their lower bounds; above an upper one none ever is.

    A machine without processor time for the tenants keeps them low, for as long as that lasts.
    """
    end = time.monotonic() + 90
    while True:
        got = shares(container, tenants, seconds)
        assert all(share < high for share, (_, high) in zip(got, bounds, strict=True)), got
        if all(share > low for share, (low, _) in zip(got, bounds, strict=True)):
            return got
        assert time.monotonic() < end, got


def neighbours(containers, *cores: int) -> list:
    """Containers with these limits on one card, whose processes take turns."""
    found = [containers() for _ in cores]
    found[0].use_driver(slice_us=2000)
    for container, percent in zip(found, cores, strict=True):
        container.state = found[0].state
        container.limit(1000, cores=percent)
    return found


def settled(container) -> None:
    """Returns when the tenants have launched for a while."""
    wait_until(lambda: first(container).launches > 200)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_launch_is_paid_for(containers, kind):
    """Three kernels of 20 ms cost 60 ms of GPU time, whichever way they are launched."""
    container = containers(cores=90)
    guest = container.ready()
    assert set(guest.ask("kernels", kind, "k_20000us", 3)) == {0}
    assert guest.ask("kernels", "cuLaunchKernel", "k_1us") == [0, 0]  # settles the third
    used = first(container)
    assert used.launches == 4
    assert 55 * MS < used.charged_ns < 90 * MS


def test_without_a_core_limit_nothing_is_paid(container):
    """Launches pass, no thread is started, and the monitor sees that the card was used."""
    guest = container.ready()
    before = guest.ask("threads")
    assert set(guest.ask("kernels", "cuLaunchKernel", "k_1000us", 50)) == {0}
    assert first(container).charged_ns == 0
    assert guest.ask("threads") == before
    assert container.usage.processes[0].last_activity_ns > 0


def test_a_core_limit_starts_no_thread(containers):
    """Whoever launches does what there is to do."""
    guest = containers(cores=50).ready()
    before = guest.ask("threads")
    guest.ask("kernels", "cuLaunchKernel", "k_1000us", 50)
    assert guest.ask("threads") == before


def test_the_limit_holds(containers, tenants):
    """A quarter is a quarter and not more; without a limit the same tenant takes the card."""
    free, limited = containers(), containers(cores=25)
    tenant = tenants(free)
    watch(free, [tenant], [(50, 101)], 0.5)
    tenant.kill()
    tenant = tenants(limited)
    settled(limited)
    watch(limited, [tenant], [(15, 28)])


@pytest.mark.parametrize("shape", ["tiny", "mixed", "graph", "varying"])
def test_the_limit_holds_for_kernels_of_other_shapes(containers, tenants, shape):
    """Short ones, mixtures, graphs, and a function that takes another time at each launch."""
    container = containers(cores=30)
    tenant = tenants(container, shape)
    settled(container)
    watch(container, [tenant], [(20, 34)])


def test_streams_that_overlap_are_paid_for_once(containers, load):
    """Two streams side by side keep the card busy once."""
    container = containers()
    container.use_driver(overlap=1)
    container.limit(1000, cores=30)
    command = [load, "tiny", "60", "2"]
    with subprocess.Popen(command, env=container.env(), stdout=subprocess.DEVNULL) as tenant:
        settled(container)
        watch(container, [tenant], [(20, 34)])
        tenant.kill()


def test_two_containers_get_what_each_is_granted(containers, tenants):
    """30 and 70 percent of one card whose processes take turns."""
    small, large = neighbours(containers, 30, 70)
    pair = [tenants(small), tenants(large)]
    settled(small)
    settled(large)
    # NVML's word of a second on a busy machine may lead the charge astray by a third, for a second.
    watch(small, pair, [(20, 45), (50, 90)], 2.5)


def test_what_nvml_sees_corrects_what_was_measured_among_others(containers, tenants):
    """Long kernels of processes that take turns always seem to take longer than they do."""
    small, large = neighbours(containers, 30, 60)
    tenants(small, "mixed"), tenants(large, "mixed")
    wait_until(lambda: gain(small) not in (0, 1024), 60)
    assert 512 <= gain(small) <= 2048


def test_the_processes_of_a_container_share_fairly(containers, tenants):
    """Three together have the container's share, and each a third of it."""
    container = containers(cores=45)
    three = [tenants(container) for _ in range(3)]
    settled(container)
    got = watch(container, three, [(10, 20)] * 3, 2)
    assert 30 < sum(got) < 49


def test_eight_processes_have_no_more_than_their_container(containers, tenants):
    """From the first second on: NVML cuts each one's percents, and they learn prices in a crowd."""
    container = containers(cores=50)
    eight = [tenants(container) for _ in range(8)]
    settled(container)
    for _ in range(3):
        assert sum(shares(container, eight)) < 54.5


def test_killed_processes_leave_their_share_to_the_others(containers, tenants):
    """Killed at any instruction, also while it is their turn."""
    container = containers(cores=40)
    survivor = tenants(container)
    for _ in range(8):
        victim = tenants(container)
        wait_until(lambda: first(container).charged_ns > 0)
        victim.kill()
        victim.wait()
    watch(container, [survivor], [(25, 44)])


@pytest.mark.parametrize("how", ["suspended", "blocked"])
@pytest.mark.parametrize("cores", [0, 50])
def test_a_held_container_launches_nothing_until_it_is_let_go(containers, how, cores):
    """It sleeps, and is woken by the change of the control file itself."""
    container = containers(cores=cores)
    guest = container.ready()
    assert guest.ask("kernels", "cuLaunchKernel", "k_1us") == [0, 0]
    container.limit(1000, cores=cores, **{how: True})
    launches = container.ledger()[0]["processes"][0]["launches"]
    guest.tell("kernels", "cuLaunchKernel", "k_1us")
    wait_until(lambda: is_blocked(guest))
    assert container.ledger()[0]["processes"][0]["launches"] == launches
    container.limit(1000, cores=cores)
    assert guest.answer() == [0, 0]


def test_a_block_ends_with_its_lease(containers):
    """Whoever set it was killed and takes it back no more."""
    container = containers()
    guest = container.ready()
    until = time.monotonic_ns() + 1000 * MS
    container.limit(1000, blocked=True, blocked_until_ns=until)
    assert guest.ask("kernels", "cuLaunchKernel", "k_1us") == [0, 0]
    assert time.monotonic_ns() >= until


def test_a_suspended_container_waits_whatever_the_lease_of_a_block(containers):
    """The two are told by different programs."""
    container = containers()
    guest = container.ready()
    container.limit(1000, suspended=True, blocked=True, blocked_until_ns=1)
    guest.tell("kernels", "cuLaunchKernel", "k_1us")
    wait_until(lambda: is_blocked(guest))
    container.limit(1000, blocked=True, blocked_until_ns=1)
    assert guest.answer() == [0, 0]


def test_who_waits_for_credit_is_not_idle(containers):
    """The monitor goes by when a process was last seen to compute."""
    container = containers(cores=1)
    guest = container.ready()
    assert guest.ask("kernels", "cuLaunchKernel", "k_1000000us") == [0, 0]
    guest.tell("kernels", "cuLaunchKernel", "k_1us")
    for _ in range(3):
        wait_until(lambda: is_blocked(guest))
        before = container.usage.processes[0].last_activity_ns
        wait_until(lambda seen=before: container.usage.processes[0].last_activity_ns > seen)


def test_a_limit_that_is_lifted_wakes_who_waits(containers):
    """A debt of a hundred seconds is gone with the limit."""
    container = containers(cores=1)
    guest = container.ready()
    assert guest.ask("kernels", "cuLaunchKernel", "k_1000000us") == [0, 0]
    guest.tell("kernels", "cuLaunchKernel", "k_1us")
    wait_until(lambda: is_blocked(guest))
    container.limit(1000)
    assert guest.answer() == [0, 0]


def test_a_limit_that_is_put_on_holds_at_the_next_launch(containers):
    """A process that has launched without one pays from then on."""
    container = containers()
    guest = container.ready()
    guest.ask("kernels", "cuLaunchKernel", "k_1000us", 20)
    container.limit(1000, cores=50)
    guest.ask("kernels", "cuLaunchKernel", "k_1000us", 20)
    assert 15 * MS < first(container).charged_ns < 60 * MS


@pytest.mark.parametrize("changes", range(4))
def test_the_limit_holds_whatever_the_epoch_of_the_control_file(containers, changes):
    """Also in a container whose file was changed once since it began."""
    container = containers(cores=90)
    for _ in range(changes):
        container.limit(1000, cores=90)
    container.ready().ask("kernels", "cuLaunchKernel", "k_1000us", 20)
    assert first(container).launches == 20


def test_captured_launches_cost_nothing_until_their_graph_runs(containers):
    """Capturing takes no GPU time."""
    container = containers(cores=50)
    guest = container.ready()
    guest.ask("capture_kernels", "k_100000us", 100)
    assert first(container).charged_ns == 0
    assert first(container).launches == 0


def test_shared_mode_limits_only_while_others_compute(containers):
    """The host says when the card is contended."""
    container = containers(cores=50, core_policy=CorePolicy.SHARE)
    guest = container.ready()
    guest.ask("kernels", "cuLaunchKernel", "k_1000us", 5)
    assert first(container).charged_ns == 0
    container.limit(1000, cores=50, core_policy=CorePolicy.SHARE, contended=True)
    guest.ask("kernels", "cuLaunchKernel", "k_1000us", 5)
    assert first(container).charged_ns > 0


@pytest.mark.parametrize(
    ("policy", "flags", "variable", "paid"),
    [
        (CorePolicy.DISABLE, ControlFlag.NONE, "", False),
        (CorePolicy.FORCE, ControlFlag.NONE, "", True),
        (CorePolicy.DEFAULT, ControlFlag.NONE, "DISABLE", True),
        (CorePolicy.DEFAULT, ControlFlag.ENV_MAY_LOOSEN, "disable", False),
        (CorePolicy.DISABLE, ControlFlag.ENV_MAY_LOOSEN, "FORCE", True),
    ],
)
def test_policies(containers, policy, flags, variable, paid):
    """The operator's word counts, and the variable's only where the operator allows it."""
    container = containers(cores=50, core_policy=policy, flags=flags)
    guest = container.ready(GPU_CORE_UTILIZATION_POLICY=variable)
    guest.ask("kernels", "cuLaunchKernel", "k_1000us", 5)
    assert (first(container).charged_ns > 0) is paid


def test_hamis_variable_limits_where_there_is_no_control_file(containers):
    """A debt of a hundred seconds holds the second launch back."""
    container = containers(None)
    create_usage(container.folder / "usage")
    guest = container.ready(CUDA_DEVICE_SM_LIMIT="1", CUDA_DEVICE_MEMORY_LIMIT="1g")
    assert guest.ask("kernels", "cuLaunchKernel", "k_1000000us") == [0, 0]
    guest.tell("kernels", "cuLaunchKernel", "k_1us")
    wait_until(lambda: first(container).charged_ns >= 1000 * MS)


def test_a_forked_child_pays_from_the_same_purse(containers):
    """It starts with the driver anew, and its launches are the container's."""
    container = containers(cores=90)
    guest = container.ready()
    guest.ask("kernels", "cuLaunchKernel", "k_1000us", 5)
    before = first(container).launches
    assert set(guest.ask("fork_launch", "k_10000us", 3)) == {0}
    assert first(container).launches == before + 3
    assert set(guest.ask("kernels", "cuLaunchKernel", "k_1000us", 5)) == {0}


def test_what_a_thread_has_not_used_comes_back_at_its_end(containers):
    """Its launches are all counted, and it keeps nothing of the container's credit."""
    container = containers(cores=90)
    assert set(container.ready().ask("threads_launch", "k_20us", 2, 100)) == {0}
    used = first(container)
    assert used.launches == 200
    assert used.charged_ns < 30 * MS


def test_what_a_process_has_not_published_is_counted_at_its_end(containers):
    """Launches that touched nothing shared."""
    container = containers(cores=90)
    guest = container.ready()
    assert set(guest.ask("kernels", "cuLaunchKernel", "k_20us", 40)) == {0}
    guest.end()
    assert first(container).launches == 40


def test_a_thread_that_changes_cards_leaves_nothing_behind(containers):
    """Each launch pays its own card, once."""
    container = containers(None)
    create_usage(container.folder / "usage")
    cards = tuple(ControlDevice(container.uuid(card), 1000 << 20, 90) for card in (0, 1))
    write_control(container.folder / "control", Control(cards))
    guest = container.ready()
    assert set(guest.ask("alternate", "k_20us", 200)) == {0}
    guest.end()
    for used in container.usage.devices[:2]:
        assert used.launches == 200
        assert used.charged_ns < 200 * 300_000


def test_contexts_come_and_go(containers):
    """What was being measured in a context that is destroyed is forgotten with it."""
    container = containers(cores=90)
    guest = container.start()
    assert guest.ask("init") == 0
    for _ in range(20):
        _, context = guest.ask("context")
        assert set(guest.ask("kernels", "cuLaunchKernel", "k_100us", 5)) == {0}
        assert guest.ask("destroy", context) == 0
    assert guest.ask("release") == 0
    assert guest.ask("init") == 0
    assert set(guest.ask("kernels", "cuLaunchKernel", "k_1000us", 5)) == {0}


@pytest.mark.parametrize(
    "symbol", ["cuEventCreate", "cuEventRecord", "cuEventQuery", "cuEventElapsedTime"]
)
def test_a_driver_that_cannot_measure_gives_nothing_for_free(containers, symbol):
    """Launches go on, and cost a fixed price each."""
    container = containers(cores=90)
    guest = container.ready()
    container.fake.run("fakegpu", "fail", "--state", str(container.state), symbol, "1000000", "999")
    assert set(guest.ask("kernels", "cuLaunchKernel", "k_100us", 10)) == {0}
    assert first(container).charged_ns >= 5 * MS
    assert first(container).launches == 10


def test_a_launch_that_fails_costs_nothing(containers):
    """The driver's error is returned as it is."""
    container = containers(cores=90)
    guest = container.ready()
    assert set(guest.ask("kernels", "cuLaunchKernel", "k_20000us", 2)) == {0}
    assert guest.ask("kernels", "cuLaunchKernel", "k_1us") == [0, 0]
    before = first(container).charged_ns
    container.fake.run(
        "fakegpu", "fail", "--state", str(container.state), "cuLaunchKernel", "3", "701"
    )
    assert guest.ask("kernels", "cuLaunchKernel", "k_20000us", 3) == [701, 701, 701, 0]
    assert first(container).charged_ns < before + 15 * MS


@pytest.mark.parametrize("blocks", [1, 65535, 2**31 - 1])
def test_the_size_of_a_grid_never_turns_into_credit(containers, blocks):
    """HAMi's 32-bit count of blocks went negative here."""
    container = containers(cores=10)
    guest = container.ready()
    assert set(guest.ask("kernels", "cuLaunchKernel", "k_0us", 20, blocks)) == {0}
    assert guest.ask("kernels", "cuLaunchKernel", "k_100000us") == [0, 0]
    assert guest.ask("kernels", "cuLaunchKernel", "k_1us") == [0, 0]
    assert first(container).charged_ns >= 95 * MS
