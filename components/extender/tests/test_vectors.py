"""HAMi v2.10's published reference values, one test each."""

from pathlib import Path

import pytest
from extender_kit import container, device, make_node, make_pod
from ruamel.yaml import YAML

from hami_extender.cards import Cards
from hami_extender.fit import fit_container
from hami_extender.grants import grant_annotations
from hami_extender.inventory import Card, facts_of
from hami_extender.placement import Placement, Refusal, place
from hami_extender.question import Headroom, Part, Question, question_of
from hami_extender.score import card_score, node_score
from hami_extender.selection import Policies, Selector
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind, Ledger
from hami_extender.wire import FilterArgs
from hami_extender.wish import Wish
from hamikit.codec import GrantedDevice, decode_grant, encode_grant
from hamikit.devices import NVIDIA
from hamikit.footprint import NOTHING, Share
from hamikit.informer import Change
from hamikit.selectors import Selectors
from hamikit.shape import ContainerRequest, RequestError, shape_of

VECTORS = Path(__file__).parent / "vectors"


def load(name):
    """One file of vectors."""
    return YAML(typ="safe").load((VECTORS / f"{name}.yaml").read_text(encoding="utf-8"))


FILTER, QUOTA, ORDER = load("filter"), load("quota"), load("order")


def rows(vectors):
    """Parameters with their names."""
    return [pytest.param(row, id=row["name"]) for row in vectors]


def cluster():
    """The two nodes of the filter vectors, with what is used of them."""
    snapshot = Snapshot(NVIDIA)
    for name, cards in FILTER["nodes"].items():
        devices = [device(uuid, i, type="NVIDIA") for i, uuid in enumerate(cards)]
        snapshot.on_node(Change(None, make_node(name, *devices)))
        for uuid, (tasks, memory, cores) in cards.items():
            if tasks:
                slots = ((GrantedDevice(uuid, "NVIDIA", memory, cores),),)
                snapshot.hold(Kind.GRANT, make_pod(f"on-{uuid}"), name, slots)
    return snapshot


@pytest.mark.parametrize("row", rows(FILTER["pods"]))
def test_filter(row):
    """The node that `strict` leaves and the cards that are claimed on it."""
    snapshot = cluster()
    selector = Selector(
        snapshot, Policies(row["node"], row["gpu"], shortlist=1), missing=lambda: ""
    )

    def made(entries):
        keys = ("gpu", "mem", "cores")
        return [
            container(f"c{i}", **dict(zip(keys, e, strict=True))) for i, e in enumerate(entries)
        ]

    pod = make_pod("p", *made(row["apps"]), init=tuple(made(row.get("init", []))))
    (node,) = selector.filter(FilterArgs(pod, ["node1", "node2"])).node_names
    slots = snapshot.ledger.holdings["uid-p"].slots
    assert f"{node} {encode_grant(slots)}" == row["expect"]


@pytest.mark.parametrize("node", FILTER["base_scores"])
def test_base_score(node):
    """How full a node is before the pod."""
    verdict = place(cluster().ledger.nodes[node], question_of(make_pod("p"), [NVIDIA], "spread"))
    assert verdict.score == FILTER["base_scores"][node]


@pytest.mark.parametrize("row", rows(QUOTA["pods"]))
def test_quota(row):
    """A namespace's quota is tested card by card."""
    devices = [
        device(f"d{i}", i, type="NVIDIA", devmem=memory) for i, memory in enumerate(QUOTA["cards"])
    ]
    ledger = Ledger()
    ledger.set_facts("node1", facts_of(make_node("node1", *devices), [NVIDIA]))
    shape = shape_of(make_pod("p", container(**row["ask"])), NVIDIA)
    part = Part.of(shape, "", NVIDIA, Headroom(*row["quota"]))
    verdict = place(ledger.nodes["node1"], Question((part,)))
    if row["expect"] == "node1":
        assert isinstance(verdict, Placement)
    else:
        assert isinstance(verdict, Refusal)
        assert verdict.reason == row["expect"]


@pytest.mark.parametrize("row", rows(ORDER["choice"]))
def test_order_of_equal_cards(row):
    """What is taken first under spread."""
    cards = [Card(f"uuid{i + 1}", i, 10, 8000, 100, "NVIDIA", 0, "hami-core", True) for i in (0, 1)]
    node = Cards(cards, [NOTHING] * 2, frozenset(), "NVIDIA")
    found = fit_container(
        node, Wish.of(Selectors(), "spread"), ContainerRequest(row["count"], 1, 0, 0)
    )
    assert [cards[position].uuid for position in found] == row["expect"]


def made_card(number, figures):
    """A card with what is used of it: slots, MiB, cores, then the same of what is used."""
    slots, memory, cores, used_slots, used_memory, used_cores = figures
    card = Card(f"c{number}", number, slots, memory, cores, "T", 0, "hami-core", True)
    return card, Share(used_slots, used_memory, used_cores)


@pytest.mark.parametrize("row", rows(ORDER["node_score"]))
def test_node_score(row):
    """How full a node is."""
    pairs = [made_card(number, figures) for number, figures in enumerate(row["cards"])]
    used = {card.uuid: share for card, share in pairs}
    assert node_score([card for card, _ in pairs], used) == row["expect"]


@pytest.mark.parametrize("row", rows(ORDER["card_score"]))
def test_card_score(row):
    """How full a card is."""
    assert card_score(*made_card(0, row["card"])) == row["expect"]


def test_annotations():
    """What the pod carries of its grant."""
    vector = ORDER["annotations"]
    slots = decode_grant(vector["grant"])
    found = grant_annotations([NVIDIA], make_pod("p"), vector["node"], slots, vector["time"])
    assert found == vector["expect"]


@pytest.mark.parametrize("row", rows(ORDER["parsed"]))
def test_parsed(row):
    """What a container's limits mean; what HAMi silently drops is refused."""
    pod = make_pod("p", container(**row["limits"]))
    if row["expect"] == "refused":
        with pytest.raises(RequestError):
            shape_of(pod, NVIDIA)
        return
    (slot,) = shape_of(pod, NVIDIA).slots
    assert slot.request == ContainerRequest(**row["expect"])
