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
    client = falcon.testing.TestClient(app)
    client.session = sign_in(client).cookies["hami-session"].value
    return client, world, gate


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def sign_in(client, token="abc.def-_%3D", **more):
    """What the form sends."""
    headers = {**FORM, **more.pop("headers", {})}
    return client.simulate_post("/status", body=f"token={token}", headers=headers, **more)


@pytest.fixture
def face():
    """One node with one card."""
    return served(make_node("n", device("GPU-a", devmem=2000)))


def look(client, path="/status"):
    """The page of somebody who has signed in."""
    return client.simulate_get(path, cookies={"hami-session": client.session})


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
    """The cookie is of this page alone, no script and no other site can use it, and is no token."""
    client, _, gate = face
    page = sign_in(client, "abc.def-_%3D%0A")
    assert (page.status_code, page.headers["location"]) == (303, "/status")
    cookie = page.cookies["hami-session"]
    assert (cookie.path, cookie.http_only, cookie.same_site) == ("/status", True, "Strict")
    assert not cookie.secure
    assert "abc" not in str(page.headers) + page.text
    client.session = cookie.value
    gate.headers.clear()
    assert look(client).status_code == 200
    assert gate.headers == ["Bearer abc.def-_="]


def test_behind_tls_the_cookie_stays_with_tls(face):
    """A proxy that ends TLS before us says so."""
    page = sign_in(face[0], headers={"X-Forwarded-Proto": "https"})
    assert page.cookies["hami-session"].secure


def test_who_may_not_see_the_page_gets_no_session(face):
    """Strangers and people without the right cannot fill the table."""
    client, _, gate = face
    gate.whole = False
    refused = sign_in(client)
    assert (refused.status_code, dict(refused.cookies)) == (401, {})
    assert "ada may not see this page" in words(refused)
    gate.stranger = True
    unknown = sign_in(client)
    assert (unknown.status_code, dict(unknown.cookies)) == (401, {})
    gate.down = True
    assert sign_in(client).status_code == 503


def test_the_right_is_asked_for_each_time(face):
    """A token that was withdrawn shows nothing although the session goes on."""
    client, _, gate = face
    gate.stranger = True
    page = look(client)
    assert page.status_code == 401
    assert "GPU-a" not in page.text
    gate.stranger = False
    assert look(client).status_code == 200


def test_signing_out(face):
    """The id is worth nothing from then on, and the browser forgets it."""
    client, _, _ = face
    assert 'name="leave"' in look(client).text
    cookies = {"hami-session": client.session}
    page = client.simulate_post("/status", body="leave=1", headers=FORM, cookies=cookies)
    assert (page.status_code, page.headers["location"]) == (303, "/status")
    assert page.cookies["hami-session"].value == ""
    assert page.cookies["hami-session"].path == "/status"
    gone = look(client)
    assert gone.status_code == 401
    assert "your session is not known here; sign in again" in words(gone)
    assert "GPU-a" not in gone.text


def test_signing_in_anew_ends_the_session_before(face):
    """An id that somebody else has put into the browser never becomes a person's."""
    client, _, _ = face
    before = client.session
    page = sign_in(client, cookies={"hami-session": before})
    assert page.cookies["hami-session"].value != before
    assert look(client).status_code == 401


def test_another_replica_does_not_know_the_session(face):
    """Who comes there signs in again; nothing is shown, and nothing breaks."""
    other = served(make_node("n", device("GPU-a")))[0]
    other.session = face[0].session
    assert look(other).status_code == 401
    other.session = "x" * 5000
    assert look(other).status_code == 401


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
