"""The incremental engine against an oracle that starts afresh from the API's objects each time."""

import copy

import msgspec
import pytest
from engine_oracle import oracle
from extender_kit import container, device, make_pod, node_object, pod_object
from hypothesis import given, settings
from hypothesis import strategies as st

from hami_extender.placement import Placement, Refusal, place
from hami_extender.snapshot import Snapshot
from hamikit import names
from hamikit.codec import encode_grant
from hamikit.devices import NVIDIA
from hamikit.informer import Change
from hamikit.objects import Node, Pod

UUIDS = [f"c{i}" for i in range(4)]

cards = st.fixed_dictionaries(
    {
        "count": st.sampled_from([1, 2, 10]),
        "devmem": st.sampled_from([4000, 8000]),
        "devcore": st.sampled_from([50, 100, 200]),
        "type": st.sampled_from(["NVIDIA", "NVIDIA-A100", "NVIDIA-T4"]),
        "numa": st.integers(0, 1),
        "health": st.sampled_from([True, True, True, False]),
    }
)
node_rows = st.fixed_dictionaries(
    {
        "cards": st.lists(cards, min_size=1, max_size=4),
        "notes": st.fixed_dictionaries(
            {},
            optional={
                "NODE_CORDON": st.sampled_from(["n0-c0", "n1-c1,n0-c2"]),
                "NODE_PAUSED": st.sampled_from(["", "upgrade"]),
                "NODE_BINDING": st.sampled_from(["late", "late", "lock"]),
            },
        ),
        "points": st.lists(st.integers(0, 300), min_size=16, max_size=16) | st.none(),
        "ids": st.sampled_from([None, None, 2]),
    }
)
limits = st.fixed_dictionaries(
    {"gpu": st.integers(1, 3)},
    optional={
        "mem": st.integers(1, 5000),
        "percent": st.sampled_from([0, 10, 50, 100]),
        "cores": st.sampled_from([0, 1, 20, 50, 100]),
    },
)
containers = st.tuples(st.just(False), limits | st.just({}))
init_containers = st.tuples(st.booleans(), limits | st.just({}))
shapes = st.fixed_dictionaries(
    {
        "apps": st.tuples(st.tuples(st.just(False), limits)) | st.tuples(containers, containers),
        "init": st.lists(init_containers, max_size=2),
        "notes": st.fixed_dictionaries(
            {},
            optional={
                "POD_GPU_POLICY": st.sampled_from(
                    ["binpack", "spread", "mutex", "numa", "numa,binpack", "topology-aware"]
                ),
                "POD_NODE_POLICY": st.sampled_from(["binpack", "spread"]),
                "POD_USE_TYPE": st.sampled_from(["a100", "T4,a100"]),
                "POD_NOUSE_TYPE": st.just("t4"),
                "POD_USE_UUID": st.sampled_from(["n0-c0", "n1-c1,n0-c1"]),
                "POD_NOUSE_UUID": st.just("n0-c0"),
                "POD_NUMA_BIND": st.sampled_from(["true", "false"]),
                "POD_SCORING_WEIGHTS": st.just("slot=3,core=0,memory=1"),
            },
        ),
    }
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("node"), st.integers(0, 2), node_rows),
        st.tuples(st.just("no node"), st.integers(0, 2), st.none()),
        st.tuples(st.just("bind"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("bind"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.sampled_from(["end", "delete", "replay"]), st.integers(0, 9), st.none()),
        st.tuples(st.just("gap"), st.integers(0, 9), st.integers(0, 2)),
    ),
    min_size=3,
    max_size=12,
)


def node_json(number, row):
    """A node as the API has it."""
    name = f"n{number}"
    uuids = [f"{name}-c{i}" for i in range(len(row["cards"]))]
    devices = [
        device(uuid, i, **one)
        for i, (uuid, one) in enumerate(zip(uuids, row["cards"], strict=True))
    ]
    value = node_object(name, *devices, **row["notes"])
    if row["points"]:
        table = [
            {
                "uuid": a,
                "score": {b: row["points"][4 * i + j] for j, b in enumerate(uuids) if a != b},
            }
            for i, a in enumerate(uuids)
        ]
        value["metadata"]["annotations"][names.NODE_PAIR_SCORES] = msgspec.json.encode(
            table
        ).decode()
    if row["ids"] is not None:
        value["status"]["allocatable"][names.RESOURCE_COUNT] = str(row["ids"])
    return value


def pod_json(name, shape):
    """A pod as the API has it."""

    def made(prefix, rows):
        for i, (sidecar, ask) in enumerate(rows):
            one = container(f"{prefix}{i}", **ask)
            yield {**one, "restartPolicy": "Always"} if sidecar else one

    return pod_object(
        name, *made("a", shape["apps"]), init=tuple(made("i", shape["init"])), **shape["notes"]
    )


class World:
    """The API's truth, and a snapshot that hears of it, sometimes twice, sometimes late."""

    def __init__(self, shapes_):
        self.nodes, self.pods, self.shapes = {}, {}, shapes_
        self.snapshot = Snapshot(NVIDIA)
        self.told = {}
        self.number = 0
        self.quiet = 0

    def tell(self, kind, key, after, times=1):
        """The watch shows an object; while there is a gap it shows nothing."""
        if self.quiet:
            return
        hear = self.snapshot.on_node if kind is Node else self.snapshot.on_pod
        now = msgspec.convert(copy.deepcopy(after), kind) if after is not None else None
        for _ in range(times):
            before = self.told.get((kind, key))
            if before is None and now is None:
                return
            hear(Change(before, now))
            if now is None:
                self.told.pop((kind, key), None)
            else:
                self.told[kind, key] = now

    def relist(self):
        """What was missed is told as the difference to a fresh list."""
        self.quiet = 0
        for kind, truth in ((Node, self.nodes), (Pod, self.pods)):
            for _, key in [told for told in self.told if told[0] is kind]:
                if key not in truth:
                    self.tell(kind, key, None)
            for key, value in truth.items():
                self.tell(kind, key, value)

    def step(self, what, first, second):
        """One thing happens."""
        if self.quiet:
            self.quiet -= 1
            if not self.quiet:
                self.relist()
        if what == "node":
            self.nodes[f"n{first}"] = node_json(first, second)
            self.tell(Node, f"n{first}", self.nodes[f"n{first}"], times=1 + first % 2)
        elif what == "no node":
            if self.nodes.pop(f"n{first}", None) is not None:
                self.tell(Node, f"n{first}", None)
        elif what == "bind":
            self.bind(self.shapes[first % len(self.shapes)], second)
        elif what == "gap":
            self.quiet = max(self.quiet, 1 + second)
        elif self.pods:
            self.pod_event(what, sorted(self.pods)[first % len(self.pods)])

    def bind(self, shape, rank):
        """A pod of this shape is bound to one of the nodes where the oracle finds room."""
        pod = pod_json(f"p{self.number}", shape)
        self.number += 1
        found = oracle(self.nodes.values(), self.pods.values(), pod, "binpack", "spread")
        if not found:
            return
        name, slots = found[rank % len(found)]
        text = "".join(
            "".join(f"{uuid},NVIDIA,{mib},{cores}:" for uuid, mib, cores in slot) + ";"
            for slot in slots
        )
        key = pod["metadata"]["uid"]
        self.tell(Pod, key, pod)
        pod["spec"]["nodeName"] = name
        pod["metadata"]["annotations"][names.POD_DEVICES_ALLOCATED] = text
        self.pods[key] = pod
        self.tell(Pod, key, pod, times=1 + rank % 2)

    def pod_event(self, what, key):
        """A pod ends, vanishes, or is shown once more."""
        if what == "end":
            self.pods[key]["status"]["phase"] = "Succeeded"
        if what == "delete":
            del self.pods[key]
        self.tell(Pod, key, self.pods.get(key), times=2 if what == "replay" else 1)

    def check(self, shape):
        """The engine's answer is the oracle's: nodes, their order, devices, and reasons."""
        value = pod_json("asked", shape)
        pod = msgspec.convert(value, Pod)
        policy = shape["notes"].get("POD_NODE_POLICY", "binpack")
        expected = oracle(self.nodes.values(), self.pods.values(), value, policy, "spread")
        question = self.snapshot.question(pod, "spread")
        if question is None:
            return
        nodes = self.snapshot.ledger.nodes
        table = self.snapshot.verdicts.table(question)
        asked = {*self.nodes, "unknown"}
        assert table.best(asked, policy, 9) == [name for name, _ in expected]
        for name, slots in expected:
            verdict = table.verdict(name)
            assert isinstance(verdict, Placement)
            assert [[(d.uuid, d.memory_mib, d.cores) for d in s] for s in verdict.slots] == slots
        refusals = table.refusals(asked)
        assert refusals.keys() == asked - {name for name, _ in expected}
        for name, refusal in refusals.items():
            assert refusal == place(nodes.get(name), question)


@given(st.lists(node_rows, min_size=1, max_size=3), st.lists(shapes, min_size=1, max_size=3), steps)
@settings(max_examples=150, deadline=None)
def test_the_engine_answers_as_the_oracle(rows, shapes_, events):
    """Whatever happens, in whatever order, told once or twice or after a gap."""
    world = World(shapes_)
    for number, row in enumerate(rows):
        world.step("node", number, row)
    for event in events:
        world.step(*event)
        if not world.quiet:
            world.check(shapes_[0])
    world.relist()
    for shape in shapes_:
        world.check(shape)


def test_a_changed_node_is_asked_again():
    """The smallest such story: room, none, room again."""
    world = World([])
    row = {"cards": [{"devmem": 1500}], "notes": {}, "points": None, "ids": None}
    world.nodes["n0"] = node_json(0, row)
    world.tell(Node, "n0", world.nodes["n0"])
    question = world.snapshot.question(make_pod("p"), "spread")
    table = world.snapshot.verdicts.table(question)
    assert table.best({"n0"}, "binpack", 1) == ["n0"]
    slots = table.verdict("n0").slots
    bound = make_pod("q", node="n0", POD_DEVICES_ALLOCATED=encode_grant(slots))
    world.snapshot.on_pod(Change(None, bound))
    assert world.snapshot.verdicts.table(question).best({"n0"}, "binpack", 1) == []
    refusal = world.snapshot.verdicts.table(question).refusals(["n0"])["n0"]
    assert isinstance(refusal, Refusal)
    world.snapshot.on_pod(Change(bound, None))
    assert world.snapshot.verdicts.table(question).fitting(["n0"]) == ["n0"]


@pytest.mark.parametrize("policy", ["binpack", "spread"])
def test_equal_nodes_are_ordered_by_name(policy):
    """Whatever the order in which they came."""
    world = World([])
    row = {"cards": [{}], "notes": {}, "points": None, "ids": None}
    for number in (2, 0, 1):
        world.step("node", number, row)
    question = world.snapshot.question(make_pod("p"), "spread")
    table = world.snapshot.verdicts.table(question)
    assert table.best({"n0", "n1", "n2"}, policy, 2) == ["n0", "n1"]
