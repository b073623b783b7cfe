"""Use against grant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami_monitor.attribution import Attributed
from hami_monitor.audit import MIB, Holding, Kind, audit, counted
from hami_monitor.occupants import Occupant
from hami_monitor.processes import Process
from hamikit.region import Kind as Memory
from hamikit.region import UsageProcess


def on_card(pid, mib, pod=None, container="main", *, uuid="GPU-a", in_pod=None, command="python"):
    """A process with `mib` on a card; PID `pid - 1000` in its container, started at 5."""
    process = Process(pid, pid - 1000, 5, command, ())
    held = None if mib is None else mib * MIB
    uid = in_pod if in_pod is not None else pod.metadata.uid if pod else ""
    return Attributed(uuid, Occupant(pid, held), process, uid, pod, container if pod else "")


def slots(**charged):
    """`slots(p7=100)`: PID 7 in the container is charged 100 MiB on GPU-a."""
    return {int(name[1:]): slot(int(name[1:]), mib * MIB) for name, mib in charged.items()}


def slot(pid, charged=0, start_time=5, kind=Memory.BUFFER):
    """A process that the limiter counts."""
    return UsageProcess(0, pid, start_time, 0, "python", {(0, kind): charged})


def look(*found, holding=None, **more):
    """(kind, processes, excess in MiB) of each finding."""
    return [
        (f.place.kind, f.processes, f.excess_bytes // MIB)
        for f in audit(found, lambda _one: holding, **more)
    ]


HOLDING = Holding({"GPU-a": 1000 * MIB}, slots=slots(p1=600, p2=300), overhead_bytes=400 * MIB)


def test_what_keeps_to_its_grant_is_no_finding(make_pod):
    """Contexts of 300 MiB each beside what the limiter counts do not matter."""
    pod = make_pod("uid-a", "main")
    assert look(on_card(1001, 900, pod), on_card(1002, 600, pod), holding=HOLDING) == []


def test_over_use_is_summed_over_the_container(make_pod):
    """Each process alone is within the grant."""
    pod = make_pod("uid-a", "main")
    found = (on_card(1001, 1200, pod), on_card(1002, 700, pod))
    assert look(*found, holding=HOLDING) == [(Kind.OVER_USE, 2, 100)]
    (finding,) = audit(found, lambda _: HOLDING)
    assert finding.text == (
        "container main of pod ns/pod-uid-a holds 1100 MiB of GPU-a, granted 1000 MiB: "
        "python (PID 1001), python (PID 1002)"
    )


def test_a_scaled_grant_is_what_counts(make_pod):
    """With oversubscription a grant may be larger than the card; only the grant matters."""
    pod = make_pod("uid-a", "main")
    scaled = Holding({"GPU-a": 90_000 * MIB}, slots=slots(p1=41_000), overhead_bytes=0)
    assert look(on_card(1001, 41_000, pod), holding=scaled) == []


def test_no_limit_cannot_be_passed(make_pod):
    """A grant without a memory limit."""
    pod = make_pod("uid-a", "main")
    free = Holding({"GPU-a": None}, slots=slots(p1=0))
    assert look(on_card(1001, 40_000, pod), holding=free) == []


def test_a_process_without_a_slot_has_no_limiter(make_pod):
    """Others of the container may have it; memory that it holds is over-use besides."""
    pod = make_pod("uid-a", "main")
    found = (on_card(1001, 900, pod), on_card(1003, 16, pod))
    assert look(*found, holding=HOLDING) == [(Kind.NO_LIMITER, 1, 0)]
    found = (on_card(1001, 900, pod), on_card(1003, 5000, pod))
    assert look(*found, holding=HOLDING) == [(Kind.NO_LIMITER, 1, 0), (Kind.OVER_USE, 2, 4200)]


@pytest.mark.parametrize(("start", "known"), [(5, True), (0, True), (6, False)])
def test_a_slot_is_of_the_process_that_took_it(make_pod, start, known):
    """A PID that is used anew has another start time; HAMi's regions record none."""
    pod = make_pod("uid-a", "main")
    holding = Holding({"GPU-a": None}, slots={1: slot(1, start_time=start)})
    assert look(on_card(1001, 1, pod), holding=holding) == (
        [] if known else [(Kind.NO_LIMITER, 1, 0)]
    )


def test_an_account_that_cannot_be_read_is_told(make_pod):
    """Then nobody can say that the limiter is there."""
    pod = make_pod("uid-a", "main")
    holding = Holding({"GPU-a": None}, note="its account cannot be read")
    (finding,) = audit([on_card(1001, 1, pod)], lambda _: holding)
    assert finding.place.kind is Kind.NO_LIMITER
    assert "without the limiter (its account cannot be read)" in finding.text


def test_where_no_limiter_is_meant_to_be_none_is_missed(make_pod):
    """As on MIG."""
    pod = make_pod("uid-a", "main")
    assert look(on_card(1001, 1, pod), holding=Holding({"GPU-a": None}, limited=False)) == []


def test_instances_made_by_hand_are_nobodys_grant(make_pod):
    """Kubelet gave them, on cards that no grant names."""
    pod = make_pod("uid-a", "main")
    assert look(on_card(1001, 1, pod), holding=Holding({}, limited=False, static=True)) == []


def test_a_card_that_was_not_granted(make_pod):
    """To a container that was granted nothing, or another card."""
    pod = make_pod("uid-a", "main")
    assert look(on_card(1001, 1, pod), holding=None) == [(Kind.NOT_GRANTED, 1, 0)]
    other = on_card(1001, 1, pod, uuid="GPU-b")
    assert look(other, holding=HOLDING) == [(Kind.NOT_GRANTED, 1, 0)]


def test_processes_that_no_pod_explains():
    """Of a pod that the API server does not know, and of the host, but for the host's own."""
    found = (
        on_card(1001, 1, in_pod="uid-x"),
        on_card(1002, 1, in_pod="uid-y"),
        on_card(1003, 1, in_pod=""),
        on_card(1004, 1, in_pod="", command="Xorg"),
    )
    assert look(*found, host_programs=("Xorg",)) == [(Kind.UNKNOWN_POD, 1, 0)] * 3
    places = {f.place.subject for f in audit(found, lambda _: None, host_programs=("Xorg",))}
    assert places == {
        "a container of pod UID uid-x",
        "a container of pod UID uid-y",
        "the host",
    }


def test_a_pod_cannot_hide_behind_a_hosts_program(make_pod):
    """The name of a program is its owner's choice."""
    pod = make_pod("uid-a", "main")
    found = look(on_card(1001, 1, pod, command="Xorg"), holding=None, host_programs=("Xorg",))
    assert found == [(Kind.NOT_GRANTED, 1, 0)]


def test_a_long_list_of_processes_is_cut(make_pod):
    """An event has room for a few."""
    pod = make_pod("uid-a", "main")
    found = [on_card(1000 + n, 1, pod) for n in range(1, 9)]
    (finding,) = audit(found, lambda _: None)
    assert finding.text.endswith("python (PID 1005) and 3 more")


@given(
    held=st.integers(0, 2**40),
    charged=st.integers(0, 2**50),
    overhead=st.integers(0, 2**31),
    attached=st.booleans(),
)
def test_no_account_hides_more_than_the_overhead(held, charged, overhead, attached):
    """Whatever it writes, NVML's figure less the overhead counts; of honest ones the charge."""
    process = Process(1001, 1, 5, "x", ())
    one = Attributed("GPU-a", Occupant(1001, held), process)
    kept = {1: slot(1, charged)} if attached else {}
    amount = counted(one, Holding({"GPU-a": 1}, slots=kept, overhead_bytes=overhead))
    assert max(held - overhead, 0) <= amount <= held
    if attached and charged <= held <= charged + overhead:
        assert amount == charged
