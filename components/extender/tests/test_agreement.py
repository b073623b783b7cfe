"""/explain, the event, the metric and FailedNodes say the same; /simulate says it beforehand."""

from collections import Counter

from explain_world import ExplainWorld
from extender_kit import container, device, make_node, make_pod
from hypothesis import given, settings
from hypothesis import strategies as st

from hami_extender.notices import MESSAGE_LIMIT, TOP_NODES
from hami_extender.texts import REST, TEXTS, words_of
from hami_extender.wire import FilterArgs

CARD = st.builds(
    dict,
    devmem=st.sampled_from((1000, 4000, 8000)),
    count=st.integers(1, 3),
    devcore=st.sampled_from((0, 100)),
    numa=st.integers(0, 1),
    health=st.booleans(),
    type=st.sampled_from(("NVIDIA-A", "NVIDIA-B")),
    mode=st.sampled_from(("hami-core", "mig")),
)
NODE = st.tuples(
    st.lists(CARD, max_size=4),
    st.sampled_from(({}, {}, {}, {"NODE_PAUSED": "upgrade"}, {"NODE_REGISTER": "junk"})),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8000), st.integers(0, 100)), max_size=3),
)
ASK = st.fixed_dictionaries(
    {"gpu": st.integers(1, 3)},
    optional={"mem": st.integers(1, 9000), "cores": st.sampled_from((0, 30, 100))},
)
WISH = st.sampled_from(
    ({}, {"POD_USE_TYPE": "A"}, {"POD_NUMA_BIND": "true"}, {"POD_GPU_POLICY": "mutex"})
)


def build(nodes):
    """A cluster with these nodes, and grants on their cards."""
    world = ExplainWorld()
    for number, (cards, said, grants) in enumerate(nodes):
        name = f"n{number}"
        devices = [device(f"{name}-{i}", i, **card) for i, card in enumerate(cards)]
        node = make_node(name, *devices, **said)
        world.snapshot.on_node(type("C", (), {"present": node, "after": node})())
        for i, memory, cores in grants:
            world.use(name, f"{name}-{i}", memory, cores)
    return world


@settings(max_examples=60, deadline=None)
@given(st.lists(NODE, min_size=1, max_size=30), st.lists(ASK, min_size=1, max_size=2), WISH)
def test_all_four_agree(nodes, asks, wish):
    """For any cluster and any pod that fits nowhere."""
    world = build(nodes)
    containers = [container(f"c{i}", **ask) for i, ask in enumerate(asks)]
    pod = make_pod("p", *containers, **wish)
    world.snapshot.on_pod(type("C", (), {"present": pod, "after": pod})())
    result = world.filter(pod)
    if result.node_names:
        assert not world.events
        assert not world.counted()
        return
    answer = world.explain(limit=1000)
    # FailedNodes: every node once, by the words that /explain gives it, in few texts.
    failed = {**result.failed, **result.unresolvable}
    assert failed.keys() == {node.node for node in answer.nodes}
    assert len(set(failed.values())) <= TEXTS
    for node in answer.nodes:
        text = failed[node.node]
        said = words_of(text) if "/" in text else text.split(", ")
        assert text == REST or set(said) <= set(words_of(node.reason))
        assert (node.node in result.unresolvable) is node.unresolvable
        _cards_add_up(node)
    assert sum(answer.reasons.values()) == len(failed) == answer.refused
    # The metric: one count for each word of each node.
    words = Counter(word for node in answer.nodes for word in words_of(node.reason))
    assert world.counted() == words
    # The event: the nearest nodes, in the order of /explain, with the same words.
    (event,) = world.events
    message = event["message"]
    assert f"{answer.refused} nodes do not meet" in message
    if len(message) < MESSAGE_LIMIT:
        told = message.split("; ")[1:]
        assert [text.split(":")[0] for text in told] == [n.node for n in answer.nodes[:TOP_NODES]]
        for text, node in zip(told, answer.nodes, strict=False):
            reasons = {card.reason for card in node.cards if card.reason} or {node.reason}
            assert all(reason in text for reason in reasons)
    # Asked again, nothing new is said.
    world.filter(pod)
    assert len(world.events) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(NODE, min_size=1, max_size=30), st.lists(ASK, min_size=1, max_size=2), WISH)
def test_simulate_says_what_becomes_of_the_pod(nodes, asks, wish):
    """The very devices that filter and prioritize choose, or the very reasons."""
    world = build(nodes)
    # Admission would add nothing to these.
    containers = [container(f"c{i}", **{"mem": 500, "cores": 5, **a}) for i, a in enumerate(asks)]
    pod = make_pod("p", *containers, **wish)
    said = world.simulator.simulate(pod, 1000)
    world.snapshot.on_pod(type("C", (), {"present": pod, "after": pod})())
    result = world.filter(pod)
    if not result.node_names:
        answer = world.explain(limit=1000)
        assert (said.state, said.nodes, said.reasons) == (
            "does not fit",
            answer.nodes,
            answer.reasons,
        )
        return
    assert (said.state, [node.node for node in said.nodes]) == ("fits", result.node_names)
    if len(result.node_names) > 1:
        world.selector.prioritize(FilterArgs(pod, result.node_names))
    chosen = world.snapshot.ledger.holdings[pod.metadata.uid]
    assert chosen.node == said.node
    granted = [(d.uuid, d.memory_mib, d.cores) for slot in chosen.slots for d in slot]
    assert granted == [(d.uuid, d.memory_mib, d.cores) for d in said.devices]


def _cards_add_up(node):
    """The node's k/n reason counts its cards' reasons."""
    counted = Counter(card.reason for card in node.cards if card.reason)
    if counted:
        total = len(node.cards)
        said = {f"{number}/{total} {reason}" for reason, number in counted.items()}
        assert said <= {piece.strip() for piece in node.reason.split(",")}
