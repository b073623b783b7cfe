"""The listener for people."""

import json

import falcon.testing
import pytest
from explain_world import ExplainWorld
from extender_kit import container, device, make_node, make_pod, pod_object

from hami_extender import inquiry, state
from hami_extender.access import Person, Stranger
from hami_extender.flights import Flights
from hami_extender.inquiry import MAX_MANIFEST, create_inquiry
from hami_extender.overview import Overviews
from hami_extender.usage import Kind
from hamikit.cluster import Unreachable
from hamikit.codec import GrantedDevice


class Gate:
    """Lets in whoever has a token; `whole` is whether he may see all, `own` whether his pod."""

    def __init__(self):
        self.whole, self.own, self.asked, self.down = True, False, [], False
        self.stranger, self.headers = False, []

    def who(self, authorization):
        if self.down:
            raise Unreachable("no route")
        self.headers.append(authorization)
        if not authorization or self.stranger:
            raise Stranger("send a token")
        return Person("ada", {})

    def may(self, _person, method, path):
        self.asked.append((method, path))
        return self.whole

    def may_see_pod(self, _person, namespace, name):
        self.asked.append((namespace, name))
        return self.own


@pytest.fixture
def face():
    """A client with a token, the world behind, and the gate."""
    world = ExplainWorld(make_node("n", device("GPU-a", devmem=1500)))
    world.use("n", "GPU-a", 1000)
    gate = Gate()
    flights = Flights(world.snapshot, world)
    app = create_inquiry(
        world.explainer,
        world.simulator,
        lambda: state.as_json(state.take(world.snapshot, flights, lambda: "")),
        Overviews(world.snapshot, world.explainer, str),
        gate,
    )
    client = falcon.testing.TestClient(app, headers={"Authorization": "Bearer t"})
    return client, world, gate


def test_explain_as_json_and_text(face):
    """JSON for programs, text by Accept or by format=text."""
    client, world, _ = face
    world.filter(world.add("p", container("main", gpu=1, mem=1000, cores=30)))
    answer = client.simulate_get("/explain", params={"pod": "default/p"})
    assert answer.status_code == 200
    assert answer.json["state"] == "waiting"
    assert answer.json["nodes"][0]["cards"][0]["free_memory_mib"] == 500
    expected = (
        "default/p: waiting\n"
        "  none of 1 nodes has room for its devices\n"
        "  kube-scheduler last asked 0.0 s ago\n"
        "  1 node: 1/1 CardInsufficientMemory\n"
        "  node n: 1/1 CardInsufficientMemory\n"
        "    container main asks for 1 x (1000 MiB, 30% cores)\n"
        "    card 0 GPU-a (NVIDIA-Test): CardInsufficientMemory free 500 of 1500 MiB, "
        "70 of 100% cores, 9 of 10 slots\n"
        "      held by default/on-GPU-a\n"
        "      -> ask for at most 500 MiB, or wait until 500 MiB more are free\n"
    )
    text = client.simulate_get("/explain?pod=default/p&format=text")
    assert text.text == expected
    accepted = client.simulate_get("/explain?pod=default/p", headers={"Accept": "text/plain"})
    assert accepted.text == expected
    assert client.simulate_get("/explain?format=text").text.startswith("default/p: waiting\n")


def test_nobody_waits(face):
    """An empty list, and a sentence."""
    client, _, _ = face
    assert client.simulate_get("/explain").json == []
    assert client.simulate_get("/explain?format=text").text == "no pod waits for devices\n"


def test_limit(face):
    """Nodes in full, as many as asked for; what is left out is said."""
    client, world, _ = face
    world.add("p")
    page = client.simulate_get("/explain?pod=default/p&limit=0")
    assert (page.json["nodes"], page.json["refused"]) == ([], 1)
    world.snapshot.on_node(type("C", (), {"present": make_node("m"), "after": make_node("m")})())
    text = client.simulate_get("/explain?pod=default/p&limit=1&format=text").text
    assert "... and 1 more nodes" in text


def test_simulate(face):
    """The placement; nothing is held afterwards."""
    client, world, gate = face
    body = json.dumps(pod_object("s", container("main", gpu=1, mem=500)))
    before = dict(world.snapshot.ledger.holdings)
    answer = client.simulate_post("/simulate", body=body)
    assert (answer.json["state"], answer.json["node"]) == ("fits", "n")
    text = client.simulate_post("/simulate?format=text", body=body).text
    assert "container main: GPU-a, 500 MiB, 0% cores" in text
    assert world.snapshot.ledger.holdings == before
    assert ("POST", "/simulate") in gate.asked


def test_state(face):
    """Nodes with their cards and what is taken; who holds what; who waits."""
    client, world, _ = face
    world.add("p")
    view = client.simulate_get("/state").json
    (node,) = view["nodes"]
    assert (node["node"], node["known"], node["families"][0]["allocatable"]) == ("n", True, 10)
    (card,) = node["cards"]
    assert (card["memory_mib"], card["used_memory_mib"], card["used_slots"]) == (1500, 1000, 1)
    (pod,) = view["pods"]
    assert (pod["pod"], pod["kind"], pod["node"]) == ("default/on-GPU-a", "grant", "n")
    assert pod["taken"] == {"GPU-a": {"slots": 1, "memory_mib": 1000, "cores": 30}}
    assert view["waiting"] == ["default/p"]
    slots = ((GrantedDevice("GPU-a", "NVIDIA", 10, 0),),)
    world.snapshot.hold(Kind.FLIGHT, make_pod("p"), "n", slots)
    assert client.simulate_get("/state").json["waiting"] == []


def test_state_of_a_node_that_is_gone(face):
    """Its pods outlive it, and their cards are missing."""
    client, world, _ = face
    world.snapshot.ledger.set_facts("n", None)
    (node,) = client.simulate_get("/state").json["nodes"]
    assert (node["known"], node["cards"], node["missing_cards"]) == (False, [], ["GPU-a"])


@pytest.mark.parametrize("path", ["/explain", "/state", "/explain?pod=default/p"])
def test_without_a_token(face, path):
    """401, before anything is looked at."""
    client, _, _ = face
    answer = client.simulate_get(path, headers={"Authorization": ""})
    assert answer.status_code == 401
    assert answer.json == {"error": "send a token"}


def test_without_the_right(face):
    """403 for all that is the cluster's; a pod that one may get is explained, without others."""
    client, world, gate = face
    world.add("p")
    gate.whole = False
    for path in ("/explain", "/state", "/explain?pod=default/p"):
        answer = client.simulate_get(path)
        assert answer.status_code == 403
        assert "ada may not get" in answer.json["error"]
    assert client.simulate_post("/simulate", body="{}").status_code == 403
    gate.own = True
    answer = client.simulate_get("/explain?pod=default/p")
    assert answer.status_code == 200
    assert answer.json["nodes"][0]["cards"][0]["held_by"] == []
    assert ("default", "p") in gate.asked
    assert client.simulate_get("/state?pod=default/p").status_code == 403


def test_when_nobody_can_say_who_it_is(face):
    """503, not a guess."""
    client, _, gate = face
    gate.down = True
    answer = client.simulate_get("/state")
    assert answer.status_code == 503
    assert "no route" in answer.json["error"]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/explain?pod=p", 400, "?pod=namespace/name"),
        ("/explain?pod=", 400, "?pod=namespace/name"),
        ("/explain?pod=../nodes", 400, "?pod=namespace/name"),
        ("/explain?pod=a/b/c", 400, "?pod=namespace/name"),
        ("/explain?pod=a/b%3Fwatch=1", 400, "?pod=namespace/name"),
        ("/explain?pod=default/p&limit=x", 400, "limit is 'x'"),
        ("/explain?pod=default/p&limit=201", 400, "limit is '201'"),
        ("/explain?pod=default/none", 404, "there is no pod default/none"),
        ("/nothing", 404, ""),
    ],
)
def test_bad_questions(face, path, status, said):
    """4xx with one line."""
    client, world, _ = face
    world.add("p")
    answer = client.simulate_get(path)
    assert answer.status_code == status
    assert said in answer.json["error"]
    assert "\n" not in answer.json["error"]


def test_a_pod_that_cannot_be_read(face):
    """503 says that the API server is the matter."""
    client, world, _ = face
    world.stored["p"] = Unreachable("gone")
    assert client.simulate_get("/explain?pod=default/p").status_code == 503


def test_bad_manifests(face):
    """4xx with one line; a long one is not read."""
    client, _, _ = face
    assert client.simulate_post("/simulate", body="{").status_code == 400
    answer = client.simulate_post(
        "/simulate", body="{}", headers={"Content-Length": str(MAX_MANIFEST + 1)}
    )
    assert answer.status_code == 413
    assert f"at most {inquiry.MAX_MANIFEST} are read" in answer.json["error"]
    text = client.simulate_post("/simulate?format=text", body="[1]")
    assert text.text == "the body is no object; send the manifest of one pod\n"
    assert client.simulate_get("/simulate").status_code == 405
