"""Answers are kept per node and asked again only where something changed."""

import pytest
from extender_kit import container, device, make_node, make_pod

from hami_extender.placement import Refusal, place
from hami_extender.question import question_of
from hami_extender.quick import Answer
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind
from hami_extender.verdicts import Verdicts
from hamikit.codec import GrantedDevice
from hamikit.devices import NVIDIA
from hamikit.informer import Change


class Told:
    """Stands in for the quick answers and the close looks; `asked` and `looked` count them."""

    def __init__(self, answer=Answer.FITS, verdict=Refusal("no"), **settings):  # noqa: B008
        self.asked = self.looked = 0
        self.answer, self.verdict = answer, verdict
        self.snapshot = Snapshot(NVIDIA)
        self.verdicts = Verdicts(
            self.snapshot.ledger, decide=self.decide, prober=lambda q, _: self.probe(q), **settings
        )

    def probe(self, question):
        told = self

        class Fake:
            def __init__(self):
                self.question = question

            def ask(self, digest):
                told.asked += 1
                return told.answer

        return Fake()

    def decide(self, _state, _question):
        self.looked += 1
        return self.verdict

    def node(self, *names, **settings):
        for name in names:
            self.snapshot.on_node(Change(None, make_node(name, device(f"c-{name}"), **settings)))

    def table(self, policy="spread"):
        return self.verdicts.table(question_of(make_pod("p"), [NVIDIA], policy))


def test_only_changed_nodes_are_asked_again():
    """A thousand replicas cost one question a node; a change of one node costs one more."""
    told = Told()
    told.node("n1", "n2")
    for _ in range(3):
        assert told.table().best({"n1", "n2"}, "binpack", 2) == ["n1", "n2"]
    assert told.asked == 2
    slots = ((GrantedDevice("c-n2", "NVIDIA", 1, 0),),)
    told.snapshot.hold(Kind.GRANT, make_pod("q"), "n2", slots)
    told.node("n1")
    assert told.table().best({"n1", "n2", "unknown"}, "binpack", 3) == ["n2", "n1"]
    assert told.asked == 3


def test_only_nodes_that_somebody_asks_about_are_asked():
    """kube-scheduler may ask about a few of many: the others wait until their turn, however."""
    told = Told()
    told.node("n1", "n2", "n3", "n4")
    assert told.table().best({"n1"}, "binpack", 1) == ["n1"]
    assert told.asked == 1
    assert told.table().best({"n1", "n2"}, "binpack", 2) == ["n1", "n2"]
    assert told.asked == 2
    assert told.table().fits("n3")
    assert told.table().refusals(["n3", "n4"]) == {}
    assert told.asked == 4
    told.answer = Refusal("full")
    told.node("n1", "n2", "n3", "n4", NODE_PAUSED="upgrade")
    assert told.table().best({"n1"}, "binpack", 1) == []
    assert not told.table().fits("n2")
    assert told.table().refusals(["n3"]) == {"n3": Refusal("full")}
    assert told.table().fitting(["n4"]) == []
    assert told.asked == 8


def test_an_open_question_is_settled_once():
    """And only when somebody needs to know."""
    told = Told(Answer.MAYBE)
    told.node("n1", "n2")
    table = told.table()
    assert told.looked == 0
    assert table.best({"n1"}, "binpack", 1) == []
    assert table.refusals(["n1"]) == {"n1": Refusal("no")}
    assert told.looked == 1
    assert table.fitting(["n1", "n2"]) == []
    assert told.looked == 2


def test_the_reason_is_looked_up_once():
    """Where the quick answer does not say why."""
    told = Told(Answer.NOT_SAID_WHY)
    told.node("n1")
    for _ in range(2):
        assert told.table().refusals(["n1", "gone"]) == {
            "n1": Refusal("no"),
            "gone": Refusal("node unregistered", unresolvable=True),
        }
    assert told.looked == 1


def test_a_contradiction_is_an_error():
    """A quick no where a closer look finds room would hide a node for ever."""
    placement = place(
        state_of(make_node("n1", device("a"))), question_of(make_pod("p"), [NVIDIA], "spread")
    )
    told = Told(Answer.NOT_SAID_WHY, placement)
    told.node("n1")
    with pytest.raises(AssertionError, match="n1"):
        told.table().refusals(["n1"])


def state_of(node):
    """A node's state without pods."""
    view = Snapshot(NVIDIA)
    view.on_node(Change(None, node))
    return view.ledger.nodes["n1"]


def test_old_questions_are_forgotten():
    """The number of shapes kept is bounded; the one used longest ago goes."""
    told = Told(kept=2)
    told.node("n")
    for policy in ("spread", "binpack", "spread", "mutex", "spread"):
        told.table(policy).fits("n")
    assert told.asked == 3
    told.table("binpack").fits("n")
    assert told.asked == 4


def test_a_node_that_is_gone_is_no_candidate():
    """Neither its answer nor its place in the order stays."""
    told = Told()
    told.node("n1", "n2")
    assert told.table().best({"n1", "n2"}, "spread", 2) == ["n1", "n2"]
    told.snapshot.on_node(Change(make_node("n1"), None))
    assert told.table().best({"n1", "n2"}, "spread", 2) == ["n2"]
    assert told.table().refusals(["n1"])["n1"].reason == "node unregistered"


def test_the_limit_and_the_names_asked_about():
    """Never a node that was not asked about, never more than the limit."""
    told = Told()
    told.node("n1", "n2", "n3", "n4")
    assert told.table().best({"n2", "n3", "n4"}, "spread", 2) == ["n2", "n3"]


def test_whoever_sleeps_through_the_journal_starts_afresh():
    """A table that has not been asked for a long time is as right as any."""
    snapshot = Snapshot(NVIDIA)
    snapshot.ledger.journal._kept = 4
    snapshot.on_node(Change(None, make_node("n1", device("a"))))
    question = question_of(make_pod("p", container(gpu=1, mem=5000)), [NVIDIA], "spread")
    assert snapshot.verdicts.table(question).fitting(["n1"]) == ["n1"]
    for number in range(9):
        slots = ((GrantedDevice("a", "NVIDIA", 1000, 0),),)
        snapshot.hold(Kind.GRANT, make_pod(f"q{number}"), "n1", slots)
    assert snapshot.verdicts.table(question).fitting(["n1"]) == []
    for number in range(9):
        snapshot.ledger.release(f"uid-q{number}")
    assert snapshot.verdicts.table(question).best({"n1"}, "binpack", 1) == ["n1"]
