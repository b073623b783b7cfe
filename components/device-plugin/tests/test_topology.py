"""How well cards are connected: HAMi v2.10's scores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from hami_device_plugin.health import Report
from hami_device_plugin.identity import Checkpoint
from hami_device_plugin.links import scores
from hami_device_plugin.metrics import Metrics
from hami_device_plugin.settings import Settings
from hami_device_plugin.standing import Standing
from hami_device_plugin.stock import Stock
from hami_device_plugin.topology import Links, encode_scores, link_count, pair_score
from hamikit.gpu import Card

SYSTEM, NODE = 50, 40


def card(bus, to=None, switches=0):
    """A card's links."""
    return Links(bus, to or {}, switches)


def test_direct_links():
    """HAMi's vector 19: cards of one NUMA node with four links."""
    count = link_count(card("a", {"b": 4}), card("b", {"a": 4}))
    assert pair_score(NODE, count) == 420


def test_links_to_switches():
    """HAMi's vector 20: the smaller number of links to switches counts."""
    a, b = card("a", {"s": 18}, switches=18), card("b", {"s": 12}, switches=12)
    assert pair_score(SYSTEM, link_count(a, b)) == 1210


@pytest.mark.parametrize(
    ("ancestor", "score"), [(50, 10), (40, 20), (30, 30), (20, 40), (10, 50), (0, 60), (None, 0)]
)
def test_pcie(ancestor, score):
    """The nearer the common ancestor, the better."""
    assert pair_score(ancestor, 0) == score


@pytest.mark.parametrize(("links", "score"), [(18, 1810), (19, 10), (0, 10), (None, 0)])
def test_impossible_numbers_of_links(links, score):
    """More than a card has count as none; cards that disagree score nothing at all."""
    assert pair_score(SYSTEM, links) == score


def test_cards_that_disagree():
    """Each end counts for itself."""
    assert link_count(card("a", {"b": 4}), card("b", {"a": 2})) is None
    assert link_count(card("a", {"b": 4}), card("b")) is None


@given(st.integers(0, 40), st.integers(0, 40))
def test_links_are_the_same_from_both_ends(first, second):
    """Whatever the cards are linked to."""
    a, b = card("a", {"s": first}, first), card("b", {"s": second}, second)
    assert link_count(a, b) == link_count(b, a)


def test_the_annotation():
    """In the cards' order, inner keys sorted, hidden cards left out."""
    found = {"b": {"c": 1, "a": 420}, "a": {"b": 420, "c": 2}, "c": {"a": 2, "b": 1}}
    assert encode_scores(found, ["a", "b"]) == (
        '[{"uuid":"a","score":{"b":420}},{"uuid":"b","score":{"a":420}}]'
    )
    assert encode_scores(found, ["a"]) is None


class Nvml:
    """Cards A and B with two links, one of them broken; C on another socket without any."""

    class NVMLError(Exception):
        """With NVML's number."""

        def __init__(self, value):
            self.value = value

    NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_INVALID_ARGUMENT = 3, 2

    def nvmlDeviceGetPciInfo(self, handle):  # noqa: N802
        if handle == "C":
            raise self.NVMLError(3)
        return Bus(handle)

    def nvmlDeviceGetNvLinkState(self, _handle, link):  # noqa: N802
        if link > 4:
            raise self.NVMLError(2)
        return link < 2

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle, link):  # noqa: N802
        if link == 1:
            raise self.NVMLError(999)
        return Bus("B" if handle == "A" else "A")

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, _handle, _link):  # noqa: N802
        return 0

    def nvmlDeviceGetTopologyCommonAncestor(self, a, b):  # noqa: N802
        if {a, b} == {"B", "C"}:
            raise self.NVMLError(1)
        return 50 if "C" in (a, b) else 30


class Bus:
    """NVML's PCI data."""

    def __init__(self, name):
        self.busId = name.encode()


def test_what_nvml_cannot_tell_scores_nothing():
    """And does not keep the rest from being told."""
    cards = [(Card(name.lower(), n, "x", 1), name) for n, name in enumerate("ABC")]
    found, odd = scores(Nvml(), cards)
    assert found == {"a": {"b": 130, "c": 10}, "b": {"a": 130, "c": 0}, "c": {"a": 10, "b": 0}}
    assert odd == []


def test_a_pair_that_disagrees_is_told():
    """For a word in the log."""

    class Odd(Nvml):
        def nvmlDeviceGetNvLinkState(self, handle, link):  # noqa: N802
            return handle == "A" and link == 0

    found, odd = scores(Odd(), [(Card("a", 0, "x", 1), "A"), (Card("b", 1, "x", 1), "B")])
    assert found == {"a": {"b": 0}, "b": {"a": 0}}
    assert odd == [("a", "b")]


def test_a_pair_that_disagrees_is_a_metric():
    """Until other cards are there; HAMi v2.10 writes an event on the node."""

    class Odd(Nvml):
        def nvmlDeviceGetNvLinkState(self, handle, link):  # noqa: N802
            return handle == "A" and link == 0

    registry = CollectorRegistry()
    stock = Stock("nvidia.com/gpu", Checkpoint)
    standing = Standing(Settings(), stock, Metrics(registry), on_news=lambda: None, nvml=Odd)
    cards = (Card("a", 0, "x", 1), Card("b", 1, "x", 1))
    standing.report(Report(cards, handles=tuple(zip(cards, "AB", strict=True))))
    pair = {"device_uuid": "a", "peer_uuid": "b"}
    name = "hami_device_plugin_nvlinks_disagree"
    assert registry.get_sample_value(name, pair) == 1
    more = (*cards, Card("c", 2, "x", 1))
    standing._nvml = Nvml
    standing.report(Report(more, handles=tuple(zip(more, "ABC", strict=True))))
    assert registry.get_sample_value(name, pair) is None
