"""The API server's side of binding, in memory: its truth, its watch, and its ways to fail."""

import json
from collections import deque
from datetime import UTC, datetime

import msgspec
from extender_kit import device, make_node, make_pod

from hami_extender.binding import Binder
from hami_extender.flights import Flights
from hami_extender.nodelock import NodeLocks
from hami_extender.snapshot import Snapshot
from hami_extender.usage import footprint
from hami_extender.wire import BindArgs
from hamikit import names
from hamikit.cluster import ApiError, Unreachable
from hamikit.codec import decode_grant
from hamikit.devices import NVIDIA
from hamikit.footprint import NOTHING
from hamikit.informer import Change
from hamikit.objects import Node, Pod
from hamikit.shape import roles_of

OK, LOST_AFTER, LOST_BEFORE, LATE = "ok", "lost after the write", "lost before the write", "late"


class FakeCluster:
    """Pods and what was written on them.

    `nodes` are those that can be read and patched, `patch_faults` works as `faults`.
    `faults` is taken from the left by each binding: OK, LOST_AFTER, LOST_BEFORE, LATE (the answer
    is lost and the write happens at the next `tick`), or an ApiError. `during` runs inside each
    binding, before its effect. `unreadable` is how many reads fail next.
    """

    def __init__(self):
        self.pods = {}
        self.events = deque()
        self.faults = deque()
        self.bindings = []
        self.late = []
        self.reads = 0
        self.unreadable = 0
        self.during = None
        self.known = {}
        self.nodes = {}
        self.patches = []
        self.patch_faults = deque()

    # The client's side.

    def get(self, path, kind):
        """Read a pod."""
        self.reads += 1
        if self.unreadable:
            self.unreadable -= 1
            raise Unreachable("read lost")
        if kind is Node:
            if path.rsplit("/", 1)[1] not in self.nodes:
                raise ApiError(404, "NotFound", "no such node")
            return self.nodes[path.rsplit("/", 1)[1]]
        pod = self.pods.get(path.rsplit("/", 1)[1])
        if pod is None:
            raise ApiError(404, "NotFound", "no such pod")
        assert kind is Pod
        return pod

    def request(self, method, path, *, query=None, body=None, timeout=None):
        """Take a Binding."""
        assert path.endswith("/binding")
        assert (method, query) == ("POST", {"timeout": "3s"})
        assert timeout > 3
        if self.during is not None:
            hook, self.during = self.during, None
            hook()
        fault = self.faults.popleft() if self.faults else OK
        if isinstance(fault, ApiError):
            raise fault
        if fault == LATE:
            self.late.append(body)
            raise Unreachable("answer lost")
        if fault == LOST_BEFORE:
            raise Unreachable("answer lost")
        self.write(json.loads(json.dumps(body)))
        if fault == LOST_AFTER:
            raise Unreachable("answer lost")
        return b"{}"

    def patch(self, path, body):
        """Merge into a node's or a pod's metadata, under its preconditions."""
        fault = self.patch_faults.popleft() if self.patch_faults else OK
        if isinstance(fault, ApiError):
            raise fault
        if fault == LOST_BEFORE:
            raise Unreachable("answer lost")
        name, asked = path.rsplit("/", 1)[1], body["metadata"]
        stored = self.nodes if "/nodes/" in path else self.pods
        if name not in stored:
            raise ApiError(404, "NotFound", f"no such object {name}")
        meta = stored[name].metadata
        for key, have in (("resourceVersion", meta.resource_version), ("uid", meta.uid)):
            if key in asked and asked[key] != have:
                raise ApiError(409, "Conflict", f"{key} is {have}")
        self.patches.append((path, body))
        self.store(stored, stored[name], asked)
        if fault == LOST_AFTER:
            raise Unreachable("answer lost")
        return b"{}"

    def store(self, stored, value, asked):
        """The object with what was asked merged in."""
        meta = value.metadata
        annotations = {**meta.annotations, **asked.get("annotations", {})}
        version = str(int(meta.resource_version or "1") + 1)
        changed = msgspec.structs.replace(
            value,
            metadata=msgspec.structs.replace(
                meta,
                annotations={key: text for key, text in annotations.items() if text is not None},
                labels={**meta.labels, **asked.get("labels", {})},
                resource_version=version,
            ),
        )
        if stored is self.pods:
            self.put(changed)
        else:
            stored[meta.name] = changed

    # The server's side.

    def write(self, body):
        """What the API server does with a Binding."""
        meta = body["metadata"]
        pod = self.pods.get(meta["name"])
        if pod is None:
            raise ApiError(404, "NotFound", "no such pod")
        if pod.metadata.uid != meta["uid"]:
            raise ApiError(409, "Conflict", "Precondition failed: UID in precondition")
        if pod.spec.node_name or pod.metadata.deletion_timestamp:
            raise ApiError(409, "Conflict", "pod is already assigned to a node")
        self.bindings.append(body)
        annotations = {**pod.metadata.annotations, **meta.get("annotations", {})}
        self.put(
            msgspec.structs.replace(
                pod,
                metadata=msgspec.structs.replace(pod.metadata, annotations=annotations),
                spec=msgspec.structs.replace(pod.spec, node_name=body["target"]["name"]),
            )
        )

    def tick(self):
        """Late writes take effect now."""
        late, self.late = self.late, []
        for body in late:
            try:
                self.write(body)
            except ApiError:
                continue

    def add(self, name, *containers, **settings):
        """Create a pod."""
        pod = make_pod(name, *containers, **settings)
        self.put(pod)
        return pod

    def put(self, pod):
        """Store a new form of a pod."""
        self.pods[pod.metadata.name] = pod
        self.events.append(("put", pod))

    def finish(self, name):
        """The pod has run to its end."""
        pod = self.pods[name]
        self.put(
            msgspec.structs.replace(
                pod, status=msgspec.structs.replace(pod.status, phase="Succeeded")
            )
        )

    def delete(self, name):
        """The pod is gone."""
        self.events.append(("gone", self.pods.pop(name)))

    # The watch.

    def deliver(self, snapshot, *, times=1):
        """The next event reaches the snapshot, perhaps more than once."""
        if not self.events:
            return
        kind, pod = self.events.popleft()
        uid = pod.metadata.uid
        for _ in range(times):
            before = self.known.get(uid)
            if kind == "gone":
                self.known.pop(uid, None)
                snapshot.on_pod(Change(pod, None))
            else:
                self.known[uid] = pod
                snapshot.on_pod(Change(before, pod))

    def deliver_all(self, snapshot):
        """The watch catches up."""
        while self.events:
            self.deliver(snapshot)

    def relist(self, snapshot):
        """A gap: events are lost; the difference to a fresh list is told, as the informer does."""
        self.events.clear()
        fresh = {pod.metadata.uid: pod for pod in self.pods.values()}
        for uid in self.known.keys() - fresh.keys():
            snapshot.on_pod(Change(self.known.pop(uid), None))
        for uid, pod in fresh.items():
            snapshot.on_pod(Change(self.known.get(uid), pod))
            self.known[uid] = pod

    # The truth.

    def shares(self):
        """(node, card) -> what each living pod was granted of it."""
        held = {}
        for pod in self.pods.values():
            text = pod.metadata.annotations.get(names.POD_DEVICES_ALLOCATED)
            if text is None or pod.terminal or not pod.spec.node_name:
                continue
            for uuid, share in footprint(roles_of(pod), decode_grant(text)).items():
                held.setdefault((pod.spec.node_name, uuid), []).append(share)
        return held

    def taken(self):
        """(node, card) -> what living pods were granted of it, summed."""
        return {key: sum(shares, NOTHING) for key, shares in self.shares().items()}


class Tally:
    """Counts what the binder reports."""

    def __init__(self):
        self.refused = self.conflicts = self.unknown = 0

    def bind_refused(self):
        self.refused += 1

    def bind_conflict(self):
        self.conflicts += 1

    def bind_unknown(self):
        self.unknown += 1


class BindWorld:
    """A fake cluster, a snapshot that watches it, and a binder; time moves when somebody sleeps."""

    def __init__(self, *nodes, families=(NVIDIA,)):
        self.time = 0.0
        self.cluster, self.tally = FakeCluster(), Tally()
        self.snapshot = Snapshot(*families, lock_protocol=True, now=lambda: self.time)
        for node in nodes:
            self.cluster.nodes[node.metadata.name] = node
            self.snapshot.on_node(Change(None, node))
        self.flights = Flights(self.snapshot, self.cluster, now=lambda: self.time, sleep=self.sleep)
        self.locks = self.new_locks()
        self.binder = Binder(
            self.snapshot,
            self.cluster,
            self.flights,
            missing=lambda: "",
            gpu_policy="spread",
            tally=self.tally,
            locks=self.locks,
            clock=lambda: 1787293239.9,
        )

    def new_locks(self):
        """Somebody who takes and releases node locks."""
        return NodeLocks(
            self.snapshot,
            self.cluster,
            self.flights,
            expire_s=300,
            look_s=0.001,
            now=self.now_and_a_bit,
            utcnow=lambda: datetime(2026, 8, 21, 6, 20, 39, tzinfo=UTC),
        )

    def now_and_a_bit(self):
        """Who waits for a lock sees time pass."""
        self.time += 0.01
        return self.time

    def sleep(self, seconds):
        """Let time pass; the server finishes late writes within its time limit."""
        self.time += seconds
        if seconds and self.cluster.late:
            self.cluster.tick()

    def bind(self, pod, node="n"):
        """What kube-scheduler asks; the error text."""
        meta = pod.metadata
        return self.binder.bind(BindArgs(meta.name, meta.namespace, meta.uid, node))

    def kind(self, pod):
        """How sure the pod's holding is."""
        held = self.snapshot.ledger.holdings.get(pod.metadata.uid)
        return held.kind if held else None


def one_card(memory=1500):
    """A node with one card that holds one pod of 1000 MiB, and the pod."""
    world = BindWorld(make_node("n", device("GPU-a", devmem=memory)))
    pod = world.cluster.add("p")
    world.cluster.deliver_all(world.snapshot)
    return world, pod
