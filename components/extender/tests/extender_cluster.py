"""The API server's side of binding, in memory: its truth, its watch, and its ways to fail."""

import json
from collections import deque

import msgspec
from extender_kit import make_pod
from hami_extender.usage import NOTHING, footprint, roles_of
from hamikit import names
from hamikit.cluster import ApiError, Unreachable
from hamikit.codec import decode_grant
from hamikit.informer import Change
from hamikit.objects import Pod

OK, LOST_AFTER, LOST_BEFORE, LATE = "ok", "lost after the write", "lost before the write", "late"


class FakeCluster:
    """Pods and what was written on them.

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

    # The client's side.

    def get(self, path, kind):
        """Read a pod."""
        self.reads += 1
        if self.unreadable:
            self.unreadable -= 1
            raise Unreachable("read lost")
        pod = self.pods.get(path.rsplit("/", 1)[1])
        if pod is None:
            raise ApiError(404, "NotFound", "no such pod")
        assert kind is Pod
        return pod

    def request(self, method, path, *, query=None, body=None, timeout=None):
        """Take a Binding."""
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
        """A gap: events are lost and the difference of a fresh list is told, as the informer does."""
        self.events.clear()
        fresh = {pod.metadata.uid: pod for pod in self.pods.values()}
        for uid in self.known.keys() - fresh.keys():
            snapshot.on_pod(Change(self.known.pop(uid), None))
        for uid, pod in fresh.items():
            snapshot.on_pod(Change(self.known.get(uid), pod))
            self.known[uid] = pod

    # The truth.

    def taken(self):
        """(node, card) -> what living pods were granted of it."""
        total = {}
        for pod in self.pods.values():
            text = pod.metadata.annotations.get(names.POD_DEVICES_ALLOCATED)
            if text is None or pod.terminal or not pod.spec.node_name:
                continue
            for uuid, share in footprint(roles_of(pod), decode_grant(text)).items():
                key = pod.spec.node_name, uuid
                total[key] = total.get(key, NOTHING) + share
        return total
