"""One write, and every way it can end."""

import threading

import pytest
from extender_cluster import LATE, LOST_AFTER, LOST_BEFORE, BindWorld, one_card
from extender_kit import container, device, make_node, make_pod

from hami_extender.flights import CONFIRM_S, SETTLE_S
from hami_extender.usage import Kind
from hamikit import names
from hamikit.cluster import ApiError
from hamikit.codec import GrantedDevice
from hamikit.informer import Change

SLOTS = ((GrantedDevice("GPU-a", "NVIDIA", 1000, 0),),)


def test_the_binding_carries_grant_and_uid():
    """One object: node, pod UID as precondition, and HAMi's annotations (spec 7.4)."""
    world = BindWorld(make_node("n", device("GPU-a")))
    pod = world.cluster.add("p", container(gpu=1, mem=3000, cores=30))
    world.cluster.deliver_all(world.snapshot)
    assert world.bind(pod) == ""
    assert world.cluster.bindings == [
        {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {
                "name": "p",
                "namespace": "default",
                "uid": "uid-p",
                "annotations": {
                    "hami.io/vgpu-node": "n",
                    "hami.io/vgpu-time": "1787293239",
                    "hami.io/vgpu-devices-to-allocate": "GPU-a,NVIDIA,3000,30:;",
                    "hami.io/vgpu-devices-allocated": "GPU-a,NVIDIA,3000,30:;",
                    "hami.io/bind-phase": "success",
                    "hami.io/bind-time": "1787293239",
                },
            },
            "target": {"apiVersion": "v1", "kind": "Node", "name": "n"},
        }
    ]
    assert world.kind(pod) is Kind.FLIGHT
    world.cluster.deliver_all(world.snapshot)
    assert world.kind(pod) is Kind.GRANT
    assert world.cluster.reads == 0


def test_a_second_pod_does_not_get_what_is_in_flight():
    """While the watch lags, the first pod's devices are counted."""
    world, pod = one_card()
    second = world.cluster.add("second")
    assert world.bind(pod) == ""
    assert "CardInsufficientMemory" in world.bind(second)
    assert world.tally.refused == 1


def test_devices_are_counted_while_the_write_is_under_way():
    """A bind that arrives in the middle of another sees it."""
    world, pod = one_card()
    second, errors = world.cluster.add("second"), []
    world.cluster.during = lambda: errors.append(world.bind(second))
    assert world.bind(pod) == ""
    assert "CardInsufficientMemory" in errors[0]


def test_the_same_bind_twice():
    """While the first is under way it is refused; once written it has succeeded already."""
    world, pod = one_card()
    errors = []
    world.cluster.during = lambda: errors.append(world.bind(pod))
    assert world.bind(pod) == ""
    assert "not settled" in errors[0]
    assert world.bind(pod) == ""
    world.cluster.deliver_all(world.snapshot)
    assert world.bind(pod) == ""
    assert "bound to n already" in world.bind(pod, "elsewhere")
    assert len(world.cluster.bindings) == 1


@pytest.mark.parametrize("fault", [LOST_AFTER, LATE, LOST_BEFORE])
@pytest.mark.parametrize("watch_is_faster", [False, True])
def test_a_lost_answer_is_settled_by_reading_the_pod(fault, watch_is_faster):
    """Written, written late or not written: the answer is right and so is the account."""
    world, pod = one_card()
    world.cluster.faults.append(fault)
    if watch_is_faster:
        get = world.cluster.get

        def read(*args):
            world.cluster.deliver_all(world.snapshot)
            return get(*args)

        world.cluster.get = read
    error = world.bind(pod)
    assert world.tally.unknown == 1
    if fault == LOST_BEFORE:
        assert "was not written" in error
        assert world.kind(pod) is None
        assert world.bind(pod) == ""
    else:
        assert error == ""
        assert world.kind(pod) in (Kind.FLIGHT, Kind.GRANT)
    world.cluster.deliver_all(world.snapshot)
    assert world.kind(pod) is Kind.GRANT
    assert len(world.cluster.bindings) == 1


def test_not_written_is_believed_only_when_the_servers_time_is_over():
    """Until then a read that shows the pod unbound proves nothing."""
    world, pod = one_card()
    world.cluster.faults.append(LOST_BEFORE)
    world.bind(pod)
    assert world.time >= 4.0


@pytest.mark.parametrize("status", [500, 503, 504])
def test_a_server_error_leaves_the_outcome_open(status):
    """The API server may give up on a write that etcd has taken."""
    world, pod = one_card()
    world.cluster.faults.append(ApiError(status, "Timeout", "request did not complete"))
    assert "was not written" in world.bind(pod)
    assert (world.tally.unknown, world.kind(pod)) == (1, None)


@pytest.mark.parametrize("status", [400, 403, 404, 410, 422, 429])
def test_a_refusal_frees_the_devices_at_once(status):
    """The write did not happen, and kube-scheduler is told why."""
    world, pod = one_card()
    world.cluster.faults.append(ApiError(status, "Forbidden", "because"))
    assert world.bind(pod) == f"binding refused: {status} Forbidden: because"
    assert (world.kind(pod), world.cluster.reads, world.time) == (None, 0, 0)


def test_a_conflict_with_a_binding_of_somebody_else():
    """The pod is on another node: an error, and nothing is held here."""
    world, pod = one_card()
    world.cluster.write(
        {"metadata": {"name": "p", "uid": "uid-p"}, "target": {"name": "elsewhere"}}
    )
    assert "is bound to elsewhere already" in world.bind(pod)
    assert (world.kind(pod), world.tally.conflicts) == (None, 1)
    world.cluster.deliver_all(world.snapshot)
    world.flights.settle()
    assert world.flights.get("uid-p") is None


def test_a_conflict_with_a_binding_that_nobody_heard_of():
    """A predecessor's write succeeded: its grant is counted, and the bind is a success."""
    world, pod = one_card(8000)
    grant = {names.POD_DEVICES_ALLOCATED: "GPU-a,NVIDIA,1000,7:;"}
    world.cluster.write(
        {"metadata": {"name": "p", "uid": "uid-p", "annotations": grant}, "target": {"name": "n"}}
    )
    assert world.bind(pod) == ""
    assert world.snapshot.ledger.nodes["n"].used["GPU-a"].cores == 7
    world.cluster.deliver_all(world.snapshot)
    assert world.kind(pod) is Kind.GRANT


def test_a_lease_lost_before_the_write():
    """The successor may be choosing already: nothing is written, and nothing is held."""
    world, pod = one_card()
    answers = iter(["", "not leading"])
    world.binder._missing = lambda: next(answers)
    assert world.bind(pod) == "not leading"
    assert (world.kind(pod), world.cluster.bindings) == (None, [])
    assert world.flights.get("uid-p") is None


def test_a_conflict_with_a_pod_of_the_same_name():
    """The pod that was meant is gone; the new one keeps its chance."""
    world, pod = one_card()
    world.cluster.delete("p")
    world.cluster.add("p", uid="another")
    assert "is gone" in world.bind(pod)
    assert world.kind(pod) is None


def test_a_pod_that_the_watch_has_not_shown_yet_is_read():
    """kube-scheduler's watch may be ahead of ours; a wrong UID is refused."""
    world = BindWorld(make_node("n", device("GPU-a")))
    pod = world.cluster.add("p")
    assert world.bind(pod) == ""
    assert world.cluster.reads == 1
    other = world.cluster.add("q")
    world.cluster.pods["q"] = world.cluster.pods["p"]
    assert "another one now" in world.bind(other)
    world.cluster.delete("q")
    assert "cannot be read: 404" in world.bind(other)


def claim(world, pod, card):
    """Let a pod claim a card, even one that it would not get by itself."""
    question = world.snapshot.question(pod, "spread")
    slots = ((GrantedDevice(card, "NVIDIA", 1000, 0),),)
    world.snapshot.claim(pod, "n", slots, 60, question)


def broken(world, _pod):
    """The claimed card is unhealthy now."""
    world.snapshot.on_node(
        Change(None, make_node("n", device("GPU-a", health=False), device("GPU-b", 1)))
    )


def other_claim(world, _pod):
    """Another pod has claimed room there since."""
    claim(world, make_pod("other"), "GPU-a")


def released(world, _pod):
    """A pod that was there has gone."""
    world.snapshot.ledger.release("uid-first")


def other_wish(world, pod):
    """The pod is no longer the one that was asked about."""
    world.cluster.put(make_pod(pod.metadata.name, POD_NOUSE_UUID="GPU-a"))
    world.cluster.deliver_all(world.snapshot)


def nothing(_world, _pod):
    """Prioritize was just now."""


@pytest.mark.parametrize(
    ("between", "card"),
    [
        (nothing, "GPU-a"),
        (broken, "GPU-b"),
        (other_claim, "GPU-b"),
        (released, "GPU-b"),
        (other_wish, "GPU-b"),
    ],
)
def test_a_bind_takes_what_was_claimed_while_nothing_has_changed(between, card):
    """Otherwise its devices are chosen on the present view."""
    world = BindWorld(make_node("n", device("GPU-a"), device("GPU-b", 1)))
    world.snapshot.hold(Kind.GRANT, make_pod("first"), "n", SLOTS)
    pod = world.cluster.add("p")
    world.cluster.deliver_all(world.snapshot)
    claim(world, pod, "GPU-a")
    between(world, pod)
    assert world.bind(pod) == ""
    annotations = world.cluster.bindings[0]["metadata"]["annotations"]
    assert annotations[names.POD_DEVICES_ALLOCATED].startswith(card)
    assert world.kind(pod) is Kind.FLIGHT


def test_a_claim_elsewhere_says_nothing_of_this_node():
    """kube-scheduler's choice counts."""
    world = BindWorld(make_node("n", device("GPU-a")), make_node("m", device("GPU-b")))
    pod = world.cluster.add("p")
    claim(world, pod, "GPU-a")
    assert world.bind(pod, "m") == ""
    assert world.cluster.bindings[0]["target"]["name"] == "m"
    assert world.snapshot.ledger.holdings[pod.metadata.uid].node == "m"


def test_a_bind_beats_claims():
    """Claims are hopes: a pod that comes to be bound takes the room of one that may come."""
    world, pod = one_card()
    hopeful = world.cluster.add("hopeful")
    world.snapshot.claim(hopeful, "n", SLOTS, 60)
    assert world.bind(pod) == ""
    assert world.kind(hopeful) is None
    assert "CardInsufficientMemory" in world.bind(hopeful)


def test_claims_survive_a_bind_that_fits_beside_them_or_not_at_all():
    """Only a bind that succeeds by it takes a claim's room."""
    world, pod = one_card(2500)
    hopeful, big = (
        world.cluster.add("hopeful"),
        world.cluster.add("big", container(gpu=1, mem=9000)),
    )
    world.snapshot.claim(hopeful, "n", SLOTS, 60)
    assert "CardInsufficientMemory" in world.bind(big)
    assert world.bind(pod) == ""
    assert world.kind(hopeful) is Kind.CLAIM


def test_an_outcome_that_stays_open_keeps_its_devices():
    """The API server cannot be asked: the bind ends with an error, and `settle` finds out later."""
    world, pod = one_card()
    world.cluster.faults.append(LOST_AFTER)
    world.cluster.unreadable = 10**6
    assert "not settled" in world.bind(pod)
    assert world.time >= SETTLE_S
    assert world.kind(pod) is Kind.FLIGHT
    assert "not settled" in world.bind(pod)
    world.flights.settle()
    assert world.kind(pod) is Kind.FLIGHT
    world.cluster.unreadable = 0
    world.time += 1
    world.flights.settle()
    assert world.bind(pod) == ""


def test_a_written_bind_whose_pod_never_appears_is_looked_after():
    """Created, bound and deleted in a gap of the watch: no event will ever free its devices."""
    world = BindWorld(make_node("n", device("GPU-a")))
    pod = world.cluster.add("p")
    assert world.bind(pod) == ""
    world.cluster.delete("p")
    world.cluster.relist(world.snapshot)
    world.flights.settle()
    assert world.kind(pod) is Kind.FLIGHT
    world.time += CONFIRM_S
    world.flights.settle()
    assert world.kind(pod) is None


def test_a_crash_in_the_handler_leaves_nothing_behind():
    """Even an error nobody thought of ends in a settled account."""
    world, pod = one_card()

    def crash(*_args, **_options):
        raise MemoryError

    request, world.cluster.request = world.cluster.request, crash
    with pytest.raises(MemoryError):
        world.bind(pod)
    assert world.kind(pod) is Kind.FLIGHT
    assert not world.flights.sending()
    world.time += 5
    world.flights.settle()
    assert world.kind(pod) is None
    world.cluster.request = request
    assert world.bind(pod) == ""


def test_pods_that_ask_for_nothing_are_bound_plainly():
    """Count 0 brings them here; they get a node and no grant."""
    world = BindWorld()
    pod = world.cluster.add("p", container(gpu=0), labelled=False)
    assert world.bind(pod) == ""
    assert "annotations" not in world.cluster.bindings[0]["metadata"]
    assert "409" in world.bind(pod)


def test_what_cannot_be_bound_at_all():
    """Unlabelled, malformed, or before the first lists."""
    world = BindWorld(make_node("n", device("GPU-a")))
    assert world.bind(world.cluster.add("p", labelled=False)) == "PodNotAdmittedByWebhook"
    assert "gpucores" in world.bind(world.cluster.add("q", container(gpu=1, cores=200)))
    world.binder._missing = lambda: "starting, first list not complete"
    assert world.bind(world.cluster.add("r")) == "starting, first list not complete"
    assert world.cluster.bindings == []


def test_concurrent_binds_never_over_commit():
    """Forty pods of 1000 MiB race for eight places on two cards; exactly eight get one."""
    world = BindWorld(make_node("n", device("a", devmem=4000), device("b", 1, devmem=4000)))
    pods = [world.cluster.add(f"p{i}") for i in range(40)]
    gate, errors = threading.Barrier(len(pods)), []

    def bind(pod):
        gate.wait(10)
        errors.append(world.bind(pod))

    threads = [threading.Thread(target=bind, args=(pod,)) for pod in pods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors.count("") == 8
    assert all(share.memory_mib == 4000 for share in world.cluster.taken().values())
