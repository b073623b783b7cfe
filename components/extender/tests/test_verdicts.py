"""Answers are kept per node version."""

from extender_kit import device, make_node, make_pod

from hami_extender.placement import Refusal
from hami_extender.question import question_of
from hami_extender.snapshot import Snapshot
from hami_extender.usage import Kind
from hami_extender.verdicts import Verdicts
from hamikit.codec import GrantedDevice
from hamikit.devices import NVIDIA
from hamikit.informer import Change


def test_only_changed_nodes_are_asked_again():
    """A thousand replicas cost one evaluation a node; a change of one node costs one more."""
    snapshot = Snapshot(NVIDIA)
    asked = []

    def decide(state, _question):
        asked.append(state.name if state else None)
        return Refusal("no")

    verdicts = Verdicts(snapshot.ledger, decide=decide)
    for name in ("n1", "n2"):
        snapshot.on_node(Change(None, make_node(name, device(f"c-{name}"))))
    question = question_of(make_pod("p"), [NVIDIA], "spread")
    for _ in range(3):
        assert verdicts.table(question).split(["n1", "n2"]) == (
            {},
            {"n1": Refusal("no"), "n2": Refusal("no")},
        )
    assert asked == ["n1", "n2"]
    slots = ((GrantedDevice("c-n2", "NVIDIA", 1, 0),),)
    snapshot.hold(Kind.GRANT, make_pod("q"), "n2", slots)
    snapshot.on_node(Change(None, make_node("n1", device("c-n1"))))
    verdicts.table(question).split(["n1", "n2", "unknown"])
    assert asked == ["n1", "n2", "n2", None]


def test_old_questions_are_forgotten():
    """The number of shapes kept is bounded."""
    snapshot = Snapshot(NVIDIA)
    asked = []
    verdicts = Verdicts(snapshot.ledger, kept=1, decide=lambda *_: asked.append(1) or Refusal("no"))
    snapshot.on_node(Change(None, make_node("n", device("a"))))
    first = question_of(make_pod("p"), [NVIDIA], "spread")
    other = question_of(make_pod("p"), [NVIDIA], "binpack")
    for question in (first, first, other, first):
        verdicts.fits_any(question, ["n"])
    assert len(asked) == 3
