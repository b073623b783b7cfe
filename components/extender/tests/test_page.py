"""The status page, as a browser gets it."""

import re

import falcon.testing
import pytest
from explain_world import ExplainWorld
from extender_kit import container, device, make_node
from test_inquiry import Gate

from hami_extender.inquiry import create_inquiry
from hami_extender.overview import NODES_SHOWN, PODS_SHOWN, Overviews
from hami_extender.page import MAX_FORM


def served(*nodes):
    """A client, the world behind the page, and the gate."""
    world, gate = ExplainWorld(*nodes), Gate()
    overviews = Overviews(world.snapshot, world.explainer, lambda: world.gap)
    world.gap = ""
    app = create_inquiry(world.explainer, world.simulator, dict, overviews, gate)
    return falcon.testing.TestClient(app), world, gate


@pytest.fixture
def face():
    """One node with one card."""
    return served(make_node("n", device("GPU-a", devmem=2000)))


def look(client, path="/status"):
    """The page of somebody who has signed in."""
    return client.simulate_get(path, cookies={"hami-token": "t"})


def words(page):
    """The page's text without its tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", page.text.partition("<h1>")[2]).split())


def test_a_card_is_a_bar_with_its_pods(face):
    """Each pod's part at its place; figures in words beside them."""
    client, world, _ = face
    world.use("n", "GPU-a", 500)
    page = look(client)
    assert page.status_code == 200
    assert '<rect class="a" x="0.0" y="0" width="25.0" height="10">' in page.text
    assert "<title>default/on-GPU-a: 500 MiB, 30% cores</title>" in page.text
    said = words(page)
    assert "1 cards on 1 nodes; 500 of 2000 MiB granted; 0 pods wait." in said
    assert "500 of 2000 MiB 30 of 100% cores, 1 of 10 slots" in said


def test_a_waiting_pod_stands_with_its_reason(face):
    """The words of /explain."""
    client, world, _ = face
    world.filter(world.add("p", container("main", gpu=1, mem=3000)))
    said = words(look(client))
    assert "default/p none of 1 nodes has room for its devices" in said
    assert "1 node: 1/1 CardInsufficientMemory" in said


def test_what_is_the_matter_with_a_node_is_said():
    """Paused, unhealthy and cordoned cards, cards and nodes that are gone while pods hold them."""
    client, world, _ = served(make_node("n", device("GPU-a", health=False), device("GPU-b")))
    world.use("n", "GPU-b", 100)
    world.use("gone", "GPU-x", 100)
    world.gap = "not the leader"
    said = words(look(client))
    for part in ("unhealthy", "GPU-x is gone, but held", "the node is gone", "not the leader"):
        assert part in said


def test_pages_of_nodes_and_pods():
    """A page has some of each and links to the others; a name narrows the nodes."""
    nodes = [make_node(f"n{i:03}", device(f"GPU-{i}")) for i in range(NODES_SHOWN + 2)]
    client, world, _ = served(*nodes)
    for number in range(PODS_SHOWN + 1):
        world.add(f"p{number:03}", container("main", gpu=1, mem=10**6))
    first = look(client)
    assert first.text.count('<section class="node">') == NODES_SHOWN
    assert first.text.count("<td>default/p") == PODS_SHOWN
    on = re.search(r'id="nodes-on" href="([^"]*)"', first.text)[1].replace("&amp;", "&")
    second = look(client, on)
    assert re.findall(r"<h3>(\S+)</h3>", second.text) == ["n020", "n021"]
    assert 'id="nodes-on"' not in second.text
    assert 'id="nodes-back" href="/status?"' in second.text
    pods = re.search(r'id="pods-on" href="([^"]*)"', second.text)[1].replace("&amp;", "&")
    both = look(client, pods)
    assert re.findall(r"<td>(default/p\S+)</td>", both.text) == ["default/p020"]
    assert re.findall(r"<h3>(\S+)</h3>", both.text) == ["n020", "n021"]
    narrow = look(client, "/status?node=n003")
    assert re.findall(r"<h3>(\S+)</h3>", narrow.text) == ["n003"]
    assert "No node with xyz in its name" in words(look(client, "/status?node=xyz"))


def test_nothing_that_somebody_else_wrote_is_markup(face):
    """A name of a node, a card's type and what one typed are text."""
    client, world, _ = face
    evil = make_node("m", device("GPU-b", type="<script>x</script>"))
    world.snapshot.on_node(type("C", (), {"present": evil, "after": evil})())
    page = look(client, "/status?node=%22%3E%3Cscript%3E")
    assert "<script" not in page.text
    assert "&#34;&gt;&lt;script&gt;" in page.text
    assert "<script" not in look(client).text
    assert "script-src" not in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_who_has_not_signed_in_gets_the_form(face):
    """Nothing of the cluster is shown."""
    client, world, gate = face
    page = client.simulate_get("/status")
    assert page.status_code == 401
    assert 'name="token"' in page.text
    assert "GPU-a" not in page.text
    gate.whole = False
    refused = look(client)
    assert refused.status_code == 401
    assert "ada may not see this page; bind the ClusterRole hami-explain" in words(refused)
    assert ("GET", "/status") in gate.asked
    gate.down = True
    down = look(client)
    assert down.status_code == 503
    assert "no route" in words(down)
    assert "GPU-a" not in refused.text + down.text
    assert world.snapshot.pods == {}


def test_signing_in(face):
    """The token is a cookie of this page alone, which no script and no other site can use."""
    client, _, _ = face
    page = client.simulate_post("/status", body="token=abc.def-_%3D%0A", headers=FORM)
    assert (page.status_code, page.headers["location"]) == (303, "/status")
    cookie = page.cookies["hami-token"]
    assert cookie.value == "abc.def-_="
    assert (cookie.path, cookie.http_only, cookie.same_site) == ("/status", True, "Strict")


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    "body", ["", "token=", "token=a%20b", "token=a%0d%0aX:y", "\xff", "token=;"]
)
def test_what_is_no_token_is_not_kept(face, body):
    """No cookie, and the form again."""
    client, _, _ = face
    page = client.simulate_post("/status", body=body, headers=FORM)
    assert page.status_code == 400
    assert "that is not a token" in page.text
    assert not page.cookies


def test_a_form_that_is_too_large_is_not_read(face):
    """One line says so."""
    client, _, _ = face
    page = client.simulate_post("/status", body="token=" + "a" * MAX_FORM, headers=FORM)
    assert page.status_code == 413
    assert str(MAX_FORM) in page.text


@pytest.mark.parametrize("query", ["nodes=x", "nodes=-1", "pods=9999999999"])
def test_an_address_that_means_nothing(face, query):
    """A 400 that names the parameter."""
    client, _, _ = face
    page = look(client, f"/status?{query}")
    assert page.status_code == 400
    assert query.partition("=")[0] in page.text
