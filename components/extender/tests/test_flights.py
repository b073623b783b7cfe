"""Binds under way: what becomes of each, and never over-commit whatever happens in any order."""

import threading

import pytest
from extender_cluster import LATE, LOST_AFTER, LOST_BEFORE, OK, BindWorld, one_card
from extender_kit import container, device, make_node
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hami_extender.flights import CONFIRM_S
from hami_extender.usage import Kind
from hamikit import names
from hamikit.cluster import ApiError
from hamikit.footprint import NOTHING
from hamikit.informer import Change

NODES = {
    "n1": (device("a", devmem=3000, count=3),),
    "n2": (device("b", devmem=2000, devcore=200), device("c", 1, devmem=1000)),
}
# Few places, so that what is counted wrongly is promised twice before long.
ASKS = st.fixed_dictionaries(
    {"gpu": st.just(1), "mem": st.sampled_from([1000, 2000])},
    optional={"cores": st.sampled_from([0, 60, 100])},
)
FAULTS = st.sampled_from(
    [
        OK,
        LOST_AFTER,
        LOST_BEFORE,
        LATE,
        ApiError(409, "Conflict", ""),
        ApiError(403, "Forbidden", ""),
        ApiError(504, "Timeout", ""),
    ]
)


class Binding(RuleBasedStateMachine):
    """A cluster, its extender, and everything that can happen to both."""

    @initialize()
    def start(self):
        self.number = 0
        self.nodes = [make_node(name, *cards) for name, cards in NODES.items()]
        self.world = BindWorld(*self.nodes)
        self.cluster = self.world.cluster
        for _ in range(4):
            self.create([{"gpu": 1, "mem": 2000}], [])

    @rule(asks=st.lists(ASKS, min_size=1, max_size=2), init=st.lists(ASKS, max_size=1))
    def create(self, asks, init):
        self.number += 1
        self.cluster.add(
            f"p{self.number}",
            *(container(f"c{i}", **ask) for i, ask in enumerate(asks)),
            init=tuple(container(f"i{i}", **ask) for i, ask in enumerate(init)),
        )

    def pick(self, data, name):
        """A pod, one that waits if there is any."""
        pods = self.cluster.pods
        waiting = [key for key, pod in pods.items() if not pod.spec.node_name]
        return pods[data.draw(st.sampled_from(sorted(waiting or pods)), name)]

    @precondition(lambda self: self.cluster.pods)
    @rule(data=st.data(), node=st.sampled_from(sorted(NODES)), fault=FAULTS)
    def bind(self, data, node, fault):
        self.cluster.faults.append(fault)
        self.world.bind(self.pick(data, "pod"), node)
        self.cluster.faults.clear()

    @precondition(lambda self: len(self.cluster.pods) > 1)
    @rule(data=st.data(), nodes=st.tuples(*[st.sampled_from(sorted(NODES))] * 2), fault=FAULTS)
    def bind_during_a_bind(self, data, nodes, fault):
        first, second = self.pick(data, "first"), self.pick(data, "second")

        def inner():
            self.cluster.faults.append(fault)
            self.world.bind(second, nodes[1])
            self.cluster.faults.clear()

        self.cluster.during = inner
        self.world.bind(first, nodes[0])
        self.cluster.during = None

    @precondition(lambda self: self.cluster.pods)
    @rule(data=st.data(), node=st.sampled_from(sorted(NODES)))
    def nobody_answers(self, data, node):
        """The answer is lost and so are all reads for a while."""
        self.cluster.faults.append(LOST_AFTER)
        self.cluster.unreadable = 10**6
        self.world.bind(self.pick(data, "pod"), node)
        self.cluster.unreadable = 0
        self.cluster.faults.clear()

    @rule(times=st.integers(1, 2))
    def watch(self, times):
        self.cluster.deliver(self.world.snapshot, times=times)

    @rule()
    def watch_catches_up(self):
        self.cluster.deliver_all(self.world.snapshot)

    @rule()
    def watch_gap(self):
        self.cluster.relist(self.world.snapshot)

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0]))
    def time_passes(self, seconds):
        self.world.sleep(seconds)
        self.world.flights.settle()

    @precondition(lambda self: self.cluster.pods)
    @rule(data=st.data())
    def finish(self, data):
        self.cluster.finish(data.draw(st.sampled_from(sorted(self.cluster.pods))))

    @precondition(lambda self: self.cluster.pods)
    @rule(data=st.data())
    def delete(self, data):
        self.cluster.delete(data.draw(st.sampled_from(sorted(self.cluster.pods))))

    @rule()
    def restart(self):
        """The extender is killed and starts anew, once its last writes have ended."""
        self.cluster.tick()
        fresh = BindWorld(*self.nodes)
        fresh.time = self.world.time
        fresh.cluster = fresh.binder._api = fresh.flights._api = self.cluster
        self.cluster.known = {}
        self.cluster.relist(fresh.snapshot)
        self.world = fresh

    @rule(name=st.sampled_from(sorted(NODES)))
    def node_flaps(self, name):
        node = next(node for node in self.nodes if node.metadata.name == name)
        self.world.snapshot.on_node(Change(node, None))
        self.world.snapshot.on_node(Change(None, node))

    @invariant()
    def no_card_is_over_committed(self):
        if not hasattr(self, "cluster"):
            return
        held = self.cluster.shares()
        for name, cards in NODES.items():
            for card in cards:
                shares = held.get((name, card.id), [])
                used = sum(shares, NOTHING)
                assert used.slots <= card.count
                assert used.memory_mib <= card.devmem
                assert used.cores <= card.devcore
                assert not used.exclusive or len(shares) == 1

    def teardown(self):
        """In the end the account is exactly the truth."""
        if not hasattr(self, "cluster"):
            return
        world, cluster = self.world, self.cluster
        cluster.tick()
        for _ in range(3):
            cluster.deliver_all(world.snapshot)
            world.time += 60
            world.flights.settle()
            world.snapshot.expire_claims()
        held = {
            (name, uuid): share
            for name, state in world.snapshot.ledger.nodes.items()
            for uuid, share in state.used.items()
        }
        assert held == cluster.taken()
        assert all(h.kind is Kind.GRANT for h in world.snapshot.ledger.holdings.values())
        world.flights.settle()
        assert world.flights._flights == {}


TestBinding = Binding.TestCase
TestBinding.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_a_conflict_with_a_pod_that_has_run_to_its_end():
    """A predecessor placed it and it is over already: nothing is held for it."""
    world, pod = one_card()
    grant = {names.POD_DEVICES_ALLOCATED: "GPU-a,NVIDIA,1000,7:;"}
    world.cluster.write(
        {"metadata": {"name": "p", "uid": "uid-p", "annotations": grant}, "target": {"name": "n"}}
    )
    world.cluster.finish("p")
    assert "is gone" in world.bind(pod)
    assert world.kind(pod) is None


def test_a_server_that_cannot_say_is_asked_again():
    """Only 404 means that the pod is gone: what is bound must not be promised twice."""
    world, pod = one_card()
    world.cluster.faults.append(LOST_AFTER)
    get = world.cluster.get

    def trouble(*_args):
        world.cluster.get = get
        raise ApiError(500, "InternalError", "etcd")

    world.cluster.get = trouble
    assert world.bind(pod) == ""
    assert world.kind(pod) is Kind.FLIGHT


@pytest.mark.parametrize(
    ("annotations", "node"),
    [({}, "n"), ({names.POD_DEVICES_ALLOCATED: "GPU-z,NVIDIA,1000,7:;"}, "elsewhere")],
)
def test_bound_by_somebody_else_is_no_success(annotations, node):
    """On our node without a grant, or with one on another node."""
    world, pod = one_card()
    meta = {"name": "p", "uid": "uid-p", "annotations": annotations}
    world.cluster.write({"metadata": meta, "target": {"name": node}})
    assert f"is bound to {node} already" in world.bind(pod)
    assert "n" not in {held.node for held in world.snapshot.ledger.holdings.values()}


def test_what_was_never_written_is_freed_as_soon_as_somebody_can_say():
    """The server's time for the write has long ended when the pod can be read again."""
    world, pod = one_card()
    world.cluster.faults.append(LOST_BEFORE)
    world.cluster.unreadable = 10**6
    assert "not settled" in world.bind(pod)
    world.cluster.unreadable = 0
    world.time += 1
    world.flights.settle()
    assert world.kind(pod) is None


def test_a_grant_that_was_read_is_followed_until_the_watch_shows_it():
    """The pod may go in a gap of the watch, and then no event ever frees its devices."""
    world, pod = one_card()
    grant = {names.POD_DEVICES_ALLOCATED: "GPU-a,NVIDIA,1000,7:;"}
    meta = {"name": "p", "uid": "uid-p", "annotations": grant}
    world.cluster.write({"metadata": meta, "target": {"name": "n"}})
    assert world.bind(pod) == ""
    assert world.kind(pod) is Kind.FLIGHT
    world.cluster.delete("p")
    world.cluster.events.clear()
    world.time += CONFIRM_S
    world.flights.settle()
    assert world.kind(pod) is None


def test_a_handler_at_work_shows_until_it_is_done():
    """The process ends only after it, whatever the watch has told in the meantime."""
    world, pod = one_card()
    grant = {names.POD_DEVICES_ALLOCATED: "GPU-a,NVIDIA,1000,7:;"}
    meta, seen = {"name": "p", "uid": "uid-p", "annotations": grant}, []

    def meanwhile():
        world.cluster.write({"metadata": meta, "target": {"name": "n"}})
        world.cluster.deliver_all(world.snapshot)
        world.flights.settle()
        seen.append(world.flights.sending())

    world.cluster.during = meanwhile
    assert world.bind(pod) == ""
    assert (seen, world.flights.sending()) == ([True], False)


def test_the_end_waits_for_handlers_at_work():
    """As long as it may, and no longer than they need."""
    world, pod = one_card()
    begun, let_go = threading.Event(), threading.Event()

    def meanwhile():
        begun.set()
        let_go.wait(10)

    world.cluster.during = meanwhile
    handler = threading.Thread(target=world.bind, args=(pod,))
    assert world.flights.wait_sent(0)
    handler.start()
    assert begun.wait(10)
    assert not world.flights.wait_sent(0.01)
    let_go.set()
    assert world.flights.wait_sent(10)
    handler.join()


def test_a_refusal_does_not_undo_what_the_watch_has_shown():
    """A predecessor's Binding was seen while ours was on its way: its grant is not ours to free."""
    world, pod = one_card()
    grant = {names.POD_DEVICES_ALLOCATED: "GPU-a,NVIDIA,1000,7:;"}
    meta = {"name": "p", "uid": "uid-p", "annotations": grant}

    def meanwhile():
        world.cluster.write({"metadata": meta, "target": {"name": "n"}})
        world.cluster.deliver_all(world.snapshot)

    world.cluster.during = meanwhile
    world.cluster.faults.append(ApiError(403, "Forbidden", "because"))
    assert world.bind(pod).startswith("binding refused")
    assert world.kind(pod) is Kind.GRANT


def test_a_slow_read_shows_the_pod_as_it_was_when_asked():
    """The answer to an early question comes when the time is over, and the write after it."""
    world, pod = one_card()
    world.cluster.faults.append(LATE)
    get = world.cluster.get

    def slow(*args):
        seen = get(*args)
        world.sleep(10)
        world.cluster.get = get
        return seen

    world.cluster.get = slow
    world.bind(pod)
    assert len(world.cluster.bindings) == 1
    assert world.kind(pod) is Kind.FLIGHT
