"""A card's mode changes when nobody uses it, whatever happens on the way."""

import itertools
import json
from dataclasses import replace

import pynvml
import pytest
from mig_world import A100, Crash, spot

from hami_mig_manager.auto import DWELL_S, Choice, Demand, choose, decode_choices, given_up
from hami_mig_manager.state import Card, Instance
from hami_mig_manager.switching import REST_S, Switcher
from hami_mig_manager.verdict import NvmlFailed
from hami_mig_manager.wish import Wish
from hamikit import names
from hamikit.cluster import ApiError

OFF = Card("GPU-a", enabled=False, pending=False)
SWITCH, PAUSE = names.NODE_MIG_SWITCH, names.NODE_MIG_PAUSE
ACKS = (names.NODE_MIG_PAUSE_PLUGIN, names.NODE_MIG_PAUSE_MONITOR)


def register(mode):
    """What the plugin says of the card."""
    return json.dumps([{"id": "GPU-a", "mode": mode, "health": True}])


class Node:
    """A node whose plugin and monitor do their part unless they are `deaf`.

    A mode changes only while everybody has let go of NVML; `stubborn` cards want a reset.
    """

    def __init__(self, card=OFF, *, wish=True):
        self.cards = {"GPU-a": card, "GPU-b": replace(OFF, uuid="GPU-b", index=1, pending=False)}
        self.wanted = Wish(wish, frozenset({"GPU-b"}))
        self.noted, self.version = {names.NODE_REGISTER: register("hami-core")}, 1
        self.pods, self.now, self.calls, self.dies_at = frozenset(), 1000.0, 0, None
        self.deaf = self.stubborn = self.client = False
        self.listening, self.demands = ACKS, []
        self.tokens = itertools.count()
        self.failures, self.changes = [], []

    def step(self):
        """One call: the process may be killed before it."""
        self.calls += 1
        if self.calls == self.dies_at:
            raise Crash

    def read(self):
        self.step()
        self.client = True
        return self.cards

    def close(self):
        self.step()
        self.client = False

    def set_mode(self, card, *, enabled):
        self.step()
        found = self.cards[card]
        assert card not in self.pods, "pods have the card"
        assert (found.busy, found.instances) == (False, ())
        assert enabled == found.enabled or not self.client, "we have NVML open"
        self.changes.append(enabled)
        token = json.loads(self.noted[PAUSE])["token"]
        released = [self.noted.get(key) for key in ACKS] == [token, token]
        assert released or enabled == found.enabled, "somebody has NVML open"
        assert card in self.noted.get(names.NODE_CORDON, "")
        changed = replace(found, pending=enabled)
        self.cards[card] = changed if self.stubborn else replace(changed, enabled=enabled)

    def annotations(self):
        self.step()
        return dict(self.noted), str(self.version)

    def note(self, version, annotations):
        self.step()
        if version != str(self.version):
            raise ApiError(409, "Conflict", "")
        merged = self.noted | annotations
        self.noted = {k: v for k, v in merged.items() if v is not None}
        self.version += 1

    def held(self):
        return self.pods

    def others(self):
        """Plugin and monitor see what stands on the node."""
        pause = json.loads(self.noted.get(PAUSE, "null"))
        for key in ACKS:
            self.noted.pop(key, None)
            if pause and not self.deaf and key in self.listening:
                self.noted[key] = pause["token"]
        if not pause:
            mode = "mig" if self.cards["GPU-a"].enabled else "hami-core"
            self.noted[names.NODE_REGISTER] = register(mode)

    def switcher(self):
        """One with an empty memory."""
        return Switcher(
            self,
            self,
            lambda: self.wanted,
            lambda: self.now,
            failed=lambda *words: self.failures.append(words),
            token=lambda: f"t{next(self.tokens)}",
            choose=self.choose,
        )

    def choose(self, outlook):
        """What `chooser` makes of the pods that wait, leave granted."""
        if gone := given_up(outlook):
            return {**outlook.choices, **gone}
        found = choose(outlook, self.demands)
        return {**outlook.choices, found[0]: found[1]} if found else None

    def run(self, seconds=30, switcher=None):
        """Let time pass; whoever is killed starts again."""
        switcher = switcher or self.switcher()
        end = self.now + seconds
        while self.now < end:
            try:
                switcher.settle()
            except Crash:
                switcher = self.switcher()
            self.others()
            self.now += 1

    @property
    def clean(self):
        """Whether nothing of the change is left on the node."""
        left = {SWITCH, PAUSE, names.NODE_CORDON, *ACKS}
        return not left & self.noted.keys()


@pytest.mark.parametrize("wish", [True, False])
def test_a_card_comes_into_the_mode_that_the_operator_wants(wish):
    """Cordoned meanwhile; then nothing is left of it, and nothing more happens."""
    node = Node(replace(OFF, enabled=not wish, pending=not wish), wish=wish)
    node.noted[names.NODE_REGISTER] = register("hami-core" if wish else "mig")
    switcher = node.switcher()
    switcher.settle()
    assert node.noted[names.NODE_CORDON] == "GPU-a"
    node.run(20, switcher)
    assert node.cards["GPU-a"].enabled is wish
    assert node.clean
    assert node.changes == [wish]
    assert node.failures == []
    version = node.version
    node.run()
    assert node.version == version


def test_without_a_wish_nothing_happens():
    """Nor to a card that is left alone."""
    node = Node(wish=None)
    node.run()
    assert (node.version, node.changes) == (1, [])


@pytest.mark.parametrize(
    "busy",
    [
        {"busy": True},
        {"instances": (Instance(spot("1g.5gb", 0), 1),), "profiles": A100},
        {"fault": "lost"},
    ],
)
def test_a_card_that_is_used_waits(busy):
    """For its processes and instances; nobody is paused for it."""
    node = Node(replace(OFF, **busy))
    node.run(60)
    assert node.changes == []
    assert PAUSE not in node.noted
    node.cards["GPU-a"] = OFF
    node.run()
    assert node.cards["GPU-a"].enabled
    assert node.clean


def test_a_card_that_goes_silent_on_the_way_is_not_taken_for_changed():
    """Of a card that does not answer nobody knows the mode; it goes on when it answers again."""
    node = Node()
    node.switcher().settle()
    node.cards["GPU-a"] = Card("GPU-a", fault="lost")
    node.run(60)
    assert SWITCH in node.noted
    assert "GPU-a" in node.noted[names.NODE_CORDON]
    node.cards["GPU-a"] = OFF
    node.run()
    assert node.cards["GPU-a"].enabled
    assert node.clean


def test_a_card_that_is_not_named_for_a_moment_is_looked_at_again():
    """As right after the reset that a change of mode is."""
    node = Node()
    real, gone = node.read, []

    def read():
        found = real()
        if node.changes and not gone:
            gone.append(True)
            return {}
        return found

    node.read = read
    node.run()
    assert gone
    assert node.cards["GPU-a"].enabled
    assert node.clean
    assert node.failures == []


def test_a_card_that_pods_have_waits_and_takes_no_new_ones():
    """It is cordoned from the beginning, so it becomes idle some day."""
    node = Node()
    node.pods = frozenset({"GPU-a"})
    node.run(600)
    assert (node.changes, node.noted[names.NODE_CORDON]) == ([], "GPU-a")
    node.pods = frozenset()
    node.run()
    assert node.changes == [True]


def test_pods_that_nobody_can_tell_count():
    """A grant that cannot be read may be of this card."""
    node = Node()
    node.held = lambda: None
    node.run()
    assert node.changes == []


def test_a_cordon_that_somebody_else_has_made_stays():
    """His to lift."""
    node = Node()
    node.noted[names.NODE_CORDON] = "GPU-x,GPU-a"
    node.run()
    assert node.cards["GPU-a"].enabled
    assert node.noted[names.NODE_CORDON] == "GPU-x,GPU-a"


def test_other_cordons_stay():
    """Ours goes."""
    node = Node()
    node.noted[names.NODE_CORDON] = "GPU-x"
    node.run()
    assert node.noted[names.NODE_CORDON] == "GPU-x"


def test_a_pod_that_comes_during_the_pause_ends_it():
    """Then the others have NVML back, and the next pause has another token."""
    node = Node()
    node.deaf = True
    switcher = node.switcher()
    node.run(10, switcher)
    first = json.loads(node.noted[PAUSE])["token"]
    node.pods = frozenset({"GPU-a"})
    node.run(3, switcher)
    assert PAUSE not in node.noted
    node.pods, node.deaf = frozenset(), False
    node.run(1, switcher)
    assert json.loads(node.noted[PAUSE])["token"] != first
    node.run(20, switcher)
    assert node.changes == [True]


def test_who_does_not_let_go_does_not_keep_the_others_waiting():
    """After a minute they have NVML back; it is tried again later."""
    node = Node()
    node.deaf = True
    switcher = node.switcher()
    node.run(80, switcher)
    assert PAUSE not in node.noted
    assert node.changes == []
    assert node.failures == [("mode", "NoAnswer")]
    node.deaf = False
    node.run(REST_S, switcher)
    assert node.changes == [True]


@pytest.mark.parametrize("listening", ACKS)
def test_both_have_to_let_go(listening):
    """One is not enough."""
    node = Node()
    node.listening = (listening,)
    node.run(30)
    assert node.changes == []
    assert PAUSE in node.noted


def test_nobody_is_paused_at_once():
    """A pod may have been bound just before the cordon."""
    node = Node()
    node.deaf = True
    switcher = node.switcher()
    node.run(4, switcher)
    assert PAUSE not in node.noted
    node.run(3, switcher)
    assert PAUSE in node.noted


def test_the_cordon_stays_until_the_plugin_announces_the_card_anew():
    """Pods placed by the old announcement could not start."""
    node = Node()
    others = node.others

    def late():
        others()
        node.noted[names.NODE_REGISTER] = register("hami-core")

    node.others = late
    node.run(30)
    assert node.changes == [True]
    assert node.noted[names.NODE_CORDON] == "GPU-a"
    node.others = others
    node.run(5)
    assert node.clean


def test_a_mode_that_waits_for_a_reset_against_the_wish_is_put_right():
    """Somebody has switched MIG off by hand; the next reset would do it."""
    node = Node(replace(OFF, enabled=True, pending=False))
    node.run(30)
    assert node.cards["GPU-a"].pending
    assert node.clean


def test_a_mode_that_stays_pending_is_put_back():
    """Three attempts; then the card is as it was, and is left alone for a while."""
    node = Node()
    node.stubborn = True
    switcher = node.switcher()
    node.run(20, switcher)
    assert node.changes == [True, True, True, False]
    assert (node.cards["GPU-a"].enabled, node.cards["GPU-a"].pending) == (False, False)
    assert PAUSE not in node.noted
    assert node.failures == [("mode", "ResetRequired")] * 3
    node.stubborn = False
    node.run(REST_S, switcher)
    assert node.cards["GPU-a"].enabled
    assert node.clean


def test_a_driver_that_refuses():
    """Is asked three times."""
    node = Node()

    def refuse(card, *, enabled):
        node.changes.append(enabled)
        raise NvmlFailed(pynvml.NVML_ERROR_UNKNOWN, "unknown error")

    node.set_mode = refuse
    node.run()
    assert node.changes == [True] * 3
    assert node.failures == [("mode", "DriverError")] * 3


def test_the_operator_thinks_better_of_it():
    """What has begun is taken back."""
    node = Node()
    node.deaf = True
    node.run(10)
    node.wanted = Wish(False)
    node.run(5)
    assert node.clean
    assert node.changes == []


def test_a_pause_without_a_change_is_lifted():
    """Whoever left it."""
    node = Node(wish=None)
    node.noted[PAUSE] = json.dumps({"card": "GPU-a", "token": "t"})
    node.run(2)
    assert node.clean


def test_a_clock_that_was_set_back_keeps_no_card_from_its_mode():
    """A change that began at a later time than now has begun now."""
    node = Node()
    node.switcher().settle()
    assert SWITCH in node.noted
    node.now -= 900
    node.run(40)
    assert node.cards["GPU-a"].enabled
    assert node.clean


def test_a_clock_that_was_set_back_keeps_nobody_waiting_for_nvml():
    """A pause that began at a later time than now, and that somebody does not answer, ends."""
    node = Node()
    node.deaf = True
    while PAUSE not in node.noted:
        node.run(1)
    node.now -= 900
    node.run(2)
    assert PAUSE not in node.noted


@pytest.mark.parametrize("key", [SWITCH, PAUSE])
@pytest.mark.parametrize("text", ["{", "[]", '{"x":' + "[" * 100_000])
def test_what_cannot_be_read_begins_anew(key, text):
    """The card comes into its mode all the same."""
    node = Node()
    node.noted[key] = text
    node.run(40)
    assert node.cards["GPU-a"].enabled
    assert node.clean


@pytest.mark.parametrize("dies_at", range(1, 60))
def test_killed_at_any_call_it_is_finished_by_the_next(dies_at):
    """With an empty memory."""
    node = Node()
    node.dies_at = dies_at
    node.run(40)
    assert node.cards["GPU-a"].enabled
    assert node.clean
    assert node.calls >= dies_at, "the story has fewer calls"


def automatic(card=OFF):
    """A node that leaves modes open, and a pod that waits for the other one of the card."""
    node = Node(card)
    node.wanted = Wish(None, frozenset({"GPU-b"}), automatic=True)
    mode = "hami-core" if card.enabled else "mig"
    node.noted[names.NODE_REGISTER] = register("mig" if card.enabled else "hami-core")
    node.demands = [Demand("p", mode, frozenset({"GPU-a", "GPU-b"}))]
    return node


def chosen(node):
    """What stands on the node of choices."""
    return decode_choices(node.noted.get(names.NODE_MIG_AUTO, ""))


@pytest.mark.parametrize("divided", [True, False])
def test_a_card_whose_mode_is_open_changes_for_a_pod(divided):
    """Once, with all that a change takes; the choice stands on the node, nothing else does."""
    node = automatic(replace(OFF, enabled=not divided, pending=not divided))
    node.run(200)
    assert node.cards["GPU-a"].enabled is divided
    assert (node.changes, node.clean) == ([divided], True)
    assert chosen(node) == {"GPU-a": Choice("mig" if divided else "hami-core", 1000, "p")}
    assert not node.cards["GPU-b"].enabled, "a card that is left alone"


def test_nothing_changes_where_modes_are_not_open():
    """The default: whoever waits, and whatever an earlier setting left on the node."""
    node = automatic()
    left = '{"mode": "mig", "since": 1}'
    node.noted[names.NODE_MIG_AUTO] = f'{{"GPU-a": {left}, "GPU-gone": {left}}}'
    node.wanted = Wish()
    node.run(60)
    assert (node.changes, node.clean, chosen(node)) == ([], True, {})
    assert names.NODE_MIG_AUTO not in node.noted


@pytest.mark.parametrize("call", range(1, 40))
def test_an_automatic_change_survives_a_death_at_every_call(call):
    """As one that the operator wants."""
    node = automatic()
    node.dies_at = call
    node.run(60)
    assert (node.changes[-1:], node.clean) == ([True], True)
    assert node.cards["GPU-a"].enabled


def test_a_card_that_somebody_got_first_is_not_kept_from_others():
    """Its cordon goes although the pod has it still; it is left alone for a while then."""
    node = automatic()
    node.switcher().settle()
    assert node.noted[names.NODE_CORDON] == "GPU-a"
    node.pods = frozenset({"GPU-a"})
    node.run(10)
    assert (node.changes, node.clean) == ([], True)
    assert chosen(node)["GPU-a"].mode == "hami-core"
    node.pods = frozenset()
    node.run(DWELL_S - 30)
    assert node.changes == []
    node.run(60)
    assert (node.changes, node.clean) == ([True], True)


@pytest.mark.parametrize("trouble", ["stubborn", "deaf"])
def test_a_card_that_does_not_change_gets_pods_again(trouble):
    """The driver wants a reset, or somebody keeps NVML open: no cordon stays behind."""
    node = automatic()
    setattr(node, trouble, True)
    node.run(120)
    assert not node.cards["GPU-a"].pending
    assert node.clean
    assert chosen(node)["GPU-a"].mode == "hami-core"
    assert node.failures
    tries = len(node.failures)
    node.run(DWELL_S - 200)
    assert len(node.failures) == tries


def test_a_card_that_is_away_for_a_moment_keeps_what_was_chosen():
    """As after a reset: else it could change again at once."""
    node = automatic()
    node.run(60)
    stood, card = chosen(node), node.cards.pop("GPU-a")
    node.switcher().settle()
    assert chosen(node) == stood
    node.cards["GPU-a"] = card
    node.demands = [Demand("q", "hami-core", frozenset({"GPU-a"}))]
    node.run(60)
    assert node.changes == [True]


def test_a_card_that_is_left_alone_has_no_choice():
    """One that the operator has hidden since stays as it is."""
    node = automatic()
    node.demands = []
    node.noted[names.NODE_MIG_AUTO] = '{"GPU-b": {"mode": "mig", "since": 1}}'
    node.run(60)
    assert (node.changes, node.clean, chosen(node)) == ([], True, {})


def test_no_second_card_changes_while_the_first_is_kept_from_its_pod():
    """It is in its mode before the plugin says so and its cordon goes."""
    node = automatic()
    node.wanted = Wish(automatic=True)
    node.run(200)
    assert (node.changes, node.clean) == ([True], True)
    assert chosen(node).keys() == {"GPU-a"}


def test_a_card_that_the_operator_cordoned_is_not_chosen():
    """Somebody has something in mind with it."""
    node = automatic()
    node.noted[names.NODE_CORDON] = "GPU-a"
    node.run(60)
    assert (node.changes, chosen(node), node.noted[names.NODE_CORDON]) == ([], {}, "GPU-a")
