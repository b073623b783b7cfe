"""Who waits is asked rarely, and one node of a cluster changes a card at a time."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest
from waiting_pods import SINCE_S, pod, site

from hami_mig_manager.auto import WAIT_S, Choice, Outlook
from hami_mig_manager.chooser import LOOK_S, PACE_S, Chooser
from hami_mig_manager.demand import Site, WaitingList
from hami_mig_manager.state import Card
from hamikit import names
from hamikit.cluster import ApiError
from hamikit.objects import Lease

NOW = SINCE_S + WAIT_S
LEASES = "/apis/coordination.k8s.io/v1/namespaces/hami-system/leases"
OUTLOOK = Outlook({"GPU-a": Card("GPU-a", enabled=False, pending=False)}, now=NOW)
CHOSEN = {"GPU-a": Choice("mig", int(NOW), "uid-p")}


class Server:
    """An API server with pods that wait, this node and the lease."""

    def __init__(self, *pods):
        self.pods, self.lease, self.version, self.asked = list(pods), None, 1, []
        self.faults = {}

    def get(self, path, kind, query=None):
        self.asked.append(path)
        if path in self.faults:
            raise ApiError(self.faults[path], "Fault", "")
        if kind is WaitingList:
            assert path == "/api/v1/pods"
            assert query["fieldSelector"] == "spec.nodeName=,status.phase=Pending"
            assert query["labelSelector"] == "hami.io/device-pod=true"
            return WaitingList(self.pods)
        if kind is Site:
            return site() if path == "/api/v1/nodes/n" else site(register="[]")
        assert kind is Lease
        if self.lease is None:
            raise ApiError(404, "NotFound", "")
        meta = {"resourceVersion": str(self.version)}
        return msgspec.convert({"metadata": meta, "spec": self.lease}, Lease)

    def create(self, path, body):
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", "")
        assert (path, body["metadata"]["name"]) == (LEASES, "hami-mig-auto")
        self.write(body)

    def patch(self, path, body):
        assert path == f"{LEASES}/hami-mig-auto"
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise ApiError(409, "Conflict", "")
        self.write(body)

    def write(self, body):
        self.lease, self.version = json.loads(json.dumps(body["spec"])), self.version + 1


def test_a_pod_that_waits_changes_a_card_once_the_lease_is_ours():
    """Made where there is none."""
    server = Server(pod())
    assert Chooser(server, "n")(OUTLOOK) == CHOSEN
    assert server.lease["holderIdentity"] == "n"
    assert server.lease["leaseDurationSeconds"] == PACE_S
    began = datetime.fromisoformat(server.lease["renewTime"])
    assert began == datetime.fromtimestamp(NOW, UTC)


def test_choices_that_stand_stay():
    """The new one comes beside them."""
    old = {"GPU-x": Choice("mig", 7)}
    found = Chooser(Server(pod()), "n")(replace(OUTLOOK, choices=old))
    assert found == {**old, **CHOSEN}


@pytest.mark.parametrize(("age", "free"), [(0, False), (PACE_S - 1, False), (PACE_S, True),
                                           (-PACE_S + 1, False), (-PACE_S, True)])  # fmt: skip
def test_a_turn_lasts_for_a_while(age, free):
    """Whoever has it, we ourselves too; the scheduler needs time. A stamp of the future is none."""
    server = Server(pod())
    stamp = datetime.fromtimestamp(NOW - age, UTC).isoformat()
    server.lease = {"holderIdentity": "n", "renewTime": stamp}
    assert Chooser(server, "n")(OUTLOOK) == (CHOSEN if free else None)


@pytest.mark.parametrize("lease", [None, {}, {"renewTime": "never"}])
def test_of_two_nodes_at_once_one_changes_a_card(lease):
    """The other hears of a conflict, or finds the lease taken."""
    server, found = Server(pod()), []
    server.lease = lease
    write = server.write

    def meanwhile(body):
        server.write = write
        found.append(Chooser(server, "n")(OUTLOOK))
        version = body["metadata"].get("resourceVersion")
        if server.lease is not None and version != str(server.version):
            raise ApiError(409, "Conflict", "")
        write(body)

    server.write = meanwhile
    assert Chooser(server, "n")(OUTLOOK) is None
    assert found == [CHOSEN]


def test_who_waits_is_asked_now_and_then():
    """Not at every look, not where no card could change, not while one is changing."""
    server = Server()
    chooser = Chooser(server, "n")
    for _ in range(3):
        assert chooser(OUTLOOK) is None
    assert server.asked == ["/api/v1/pods"]
    assert chooser(replace(OUTLOOK, now=NOW + LOOK_S)) is None
    assert chooser(replace(OUTLOOK, now=NOW)) is None
    assert len(server.asked) == 3
    Chooser(server, "n")(replace(OUTLOOK, changing=True))
    Chooser(server, "n")(replace(OUTLOOK, held=frozenset({"GPU-a"})))
    assert len(server.asked) == 3


def test_what_is_given_up_needs_no_leave():
    """The card is to have pods again at once."""
    server = Server(pod())
    old = {"GPU-x": Choice("mig", 7)}
    choices = {**CHOSEN, **old}
    outlook = replace(OUTLOOK, choices=choices, held=frozenset({"GPU-a"}), changing=True)
    assert Chooser(server, "n")(outlook) == {"GPU-a": Choice("hami-core", int(NOW)), **old}
    assert server.asked == []


def test_a_lease_that_cannot_be_read_changes_nothing():
    """Only that there is none is leave to make one."""
    server = Server(pod())
    server.faults[f"{LEASES}/{names.LEASE_MIG_AUTO}"] = 403
    with pytest.raises(ApiError, match="403"):
        Chooser(server, "n")(OUTLOOK)
    assert server.lease is None
