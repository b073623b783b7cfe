"""What node and pods say, and what is written to them."""

import json
from types import SimpleNamespace

import msgspec
import pytest
from structlog.testing import capture_logs

from hami_mig_manager.cluster_side import EVENT, ClusterSide
from hami_mig_manager.journal import Entry
from hamikit import names
from hamikit.cluster import ApiError
from hamikit.instances import Placement
from hamikit.mig import BlockedPlacement, MigAllocation, decode_mig_allocations
from hamikit.objects import Node, Pod

ALLOCATION = MigAllocation(0, 0, "GPU-a", "1g.5gb", Placement(6, 1))
ENTRY = Entry("GPU-a", "1g.5gb", Placement(6, 1), "uid-a", 7)


def pod(name, version="1", phase="Running", deleted=None, **annotations):
    """A pod as the API server tells it."""
    meta = {
        "name": name,
        "namespace": "ns",
        "uid": f"uid-{name}",
        "resourceVersion": version,
        "annotations": {getattr(names, key): value for key, value in annotations.items()},
        "deletionTimestamp": deleted,
    }
    return msgspec.convert({"metadata": meta, "status": {"phase": phase}}, Pod)


def reserved(*allocations):
    """The annotation."""
    return msgspec.json.encode(allocations or [ALLOCATION]).decode()


class Server:
    """The API server: one node, and answers to patches; `fault` is raised by the next write."""

    def __init__(self):
        self.annotations, self.version, self.written, self.fault = {}, "5", [], None
        self.answer = b"{}"

    def get(self, path, kind):
        assert (path, kind) == ("/api/v1/nodes/n", Node)
        meta = {"name": "n", "resourceVersion": self.version, "annotations": self.annotations}
        return msgspec.convert({"metadata": meta}, Node)

    def patch(self, path, body):
        self._write("patch", path, body)
        return self.answer

    def create(self, path, body):
        self._write("create", path, body)
        return b"{}"

    def _write(self, verb, path, body):
        self.written.append((verb, path, body))
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def world():
    """One node's side with its parts."""
    server, pods, told, asked = Server(), [], [], []

    def remains(uids):
        asked.append(set(uids))
        return frozenset(uids & {"uid-ghost"})

    events = SimpleNamespace(warn=lambda *words: told.append(words))
    side = ClusterSide(server, "n", lambda: pods, remains, events=events, now=lambda: 100.0)
    return SimpleNamespace(side=side, server=server, pods=pods, told=told, asked=asked)


def test_claims_are_pods_with_a_reservation_that_have_not_ended(world):
    """With when they came; an ending one keeps its claim, one that is unreadable claims all."""
    world.pods += [
        pod("a", POD_MIG_ALLOCATIONS=reserved(), POD_BIND_TIME="42"),
        pod("plain"),
        pod("done", phase="Succeeded", POD_MIG_ALLOCATIONS=reserved()),
        pod("ending", deleted="now", POD_MIG_ALLOCATIONS=reserved()),
        pod("odd", POD_MIG_ALLOCATIONS="[{}]", POD_BIND_TIME="soon"),
    ]
    a, ending, odd = world.side.look().claims
    assert (a.uid, a.key, a.allocations, a.bound_at) == ("uid-a", "ns/a", (ALLOCATION,), 42.0)
    assert (a.ending, ending.ending) == (False, True)
    assert (odd.allocations, odd.bound_at) == (None, 100.0)


def test_pods_that_are_gone_are_asked_for_on_the_node(world):
    """Only those that the journal names and the API server does not."""
    ghost = msgspec.structs.replace(ENTRY, pod_uid="uid-ghost")
    world.server.annotations[names.NODE_MIG_JOURNAL] = msgspec.json.encode([ENTRY, ghost]).decode()
    world.pods.append(pod("a", POD_MIG_ALLOCATIONS=reserved()))
    sight = world.side.look()
    assert sight.lingering == {"uid-ghost"}
    assert world.asked == [{"uid-ghost"}]
    assert sight.journal == (ENTRY, ghost)


def test_a_pod_was_not_bound_after_it_was_seen(world):
    """The clock of the scheduler's node may be ahead; a pod must not wait for others until then."""
    world.pods.append(pod("a", POD_MIG_ALLOCATIONS=reserved(), POD_BIND_TIME="99999999999"))
    (claim,) = world.side.look().claims
    assert claim.bound_at == 100.0


DEEP = '[{"x":' + "[" * 100_000


@pytest.mark.parametrize("text", ["[", "{", "null", "[null]", DEEP, "\0"])
def test_annotations_that_cannot_be_read_count_as_lost(world, text):
    """Pods' records bring back what is in use; of a pod's own record nobody knows what it says."""
    world.server.annotations |= {names.NODE_MIG_JOURNAL: text, names.NODE_MIG_BLOCKED: text}
    world.pods.append(pod("a", POD_MIG_ALLOCATIONS=text))
    sight = world.side.look()
    assert (sight.journal, sight.blocked, sight.spoilt) == ((), (), True)
    assert [claim.allocations for claim in sight.claims] == [None]


def test_what_cannot_be_read_is_told_once(world):
    """Not at every look; again when it is something else."""
    world.server.annotations[names.NODE_MIG_JOURNAL] = "["
    world.pods.append(
        pod("a", POD_MIG_ALLOCATIONS="[{}]", POD_DEVICES_ALLOCATED="GPU-a,NVIDIA,x,1:;")
    )
    with capture_logs() as logs:
        for _ in range(3):
            world.side.look()
            assert world.side.held() is None
        told = {(line.get("pod"), line["annotation"]) for line in logs}
        assert told == {
            (None, names.NODE_MIG_JOURNAL),
            ("ns/a", names.POD_MIG_ALLOCATIONS),
            ("ns/a", names.POD_DEVICES_ALLOCATED),
        }
        assert len(logs) == len(told)
        world.server.annotations[names.NODE_MIG_JOURNAL] = "null"
        world.side.look()
        assert len(logs) == len(told) + 1


def test_the_node_is_written_under_the_version_that_was_read(world):
    """Both annotations at once; what is empty is taken off."""
    sight = world.side.look()
    blocked = BlockedPlacement("GPU-a", "1g.5gb", Placement(0, 1), "InUse", 7)
    world.side.write(sight, (ENTRY,), (blocked,))
    world.side.write(sight, (), ())
    (_, path, first), (_, _, second) = world.server.written
    assert path == "/api/v1/nodes/n"
    assert first["metadata"]["resourceVersion"] == "5"
    written = first["metadata"]["annotations"]
    assert json.loads(written[names.NODE_MIG_JOURNAL])[0]["podUID"] == "uid-a"
    assert json.loads(written[names.NODE_MIG_BLOCKED])[0]["reason"] == "InUse"
    assert set(second["metadata"]["annotations"].values()) == {None}


def test_a_record_is_one_patch_of_this_pod_at_this_version(world):
    """And it counts before the watch has told of it, until the watch tells something newer."""
    world.pods.append(pod("a", POD_MIG_ALLOCATIONS=reserved()))
    (claim,) = world.side.look().claims
    made = (
        msgspec.structs.replace(ALLOCATION, mig_uuid="M", gpu_instance_id=1, compute_instance_id=0),
    )
    world.server.answer = msgspec.json.encode(pod("a", "2", POD_MIG_ALLOCATIONS=reserved(*made)))
    world.side.record(claim, made)
    [(verb, path, body)] = world.server.written
    assert (verb, path) == ("patch", "/api/v1/namespaces/ns/pods/a")
    assert (body["metadata"]["uid"], body["metadata"]["resourceVersion"]) == ("uid-a", "1")
    text = body["metadata"]["annotations"][names.POD_MIG_ALLOCATIONS]
    assert decode_mig_allocations(text) == made
    (claim,) = world.side.look().claims
    assert (claim.version, claim.allocations) == ("2", made)
    world.pods[:] = [pod("a", "3", POD_MIG_ALLOCATIONS=reserved())]
    (claim,) = world.side.look().claims
    assert (claim.version, claim.allocations) == ("3", (ALLOCATION,))


def test_an_eviction_is_of_this_pod_and_told_on_it(world):
    """By UID; first the reason, because the pod may be gone a moment later."""
    world.pods.append(pod("a", POD_MIG_ALLOCATIONS=reserved()))
    (claim,) = world.side.look().claims
    world.side.evict(claim, "InUse", "somebody has it")
    [(where, reason, text)] = world.told
    assert (where.metadata.uid, where.key, reason) == ("uid-a", "ns/a", EVENT)
    assert "InUse: somebody has it" in text
    [(_, path, body)] = world.server.written
    assert path == "/api/v1/namespaces/ns/pods/a/eviction"
    assert body["deleteOptions"]["preconditions"] == {"uid": "uid-a"}


@pytest.mark.parametrize("status", [404, 429])
def test_an_eviction_that_is_refused_is_no_fault(world, status):
    """The pod is gone, or a budget forbids it: it is asked for again later."""
    world.pods.append(pod("a", POD_MIG_ALLOCATIONS=reserved()))
    (claim,) = world.side.look().claims
    world.server.fault = ApiError(status, "", "no")
    world.side.evict(claim, "InUse", "x")
    world.server.fault = ApiError(500, "", "no")
    with pytest.raises(ApiError):
        world.side.evict(claim, "InUse", "x")
