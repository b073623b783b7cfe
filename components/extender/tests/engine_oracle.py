"""The slow, obvious way to place a pod: from the API's objects, afresh each time, by HAMi's rules.

Nothing of the engine is used but its float rounding; nodes and pods are plain dictionaries.
"""

import json
import struct
from itertools import combinations

from hamikit import names


def f32(value):
    """A 32-bit float."""
    return struct.unpack("f", struct.pack("f", value))[0]


def filling(parts, weights=(1, 1, 1)):
    """10 x the weighted sum of used/total; 0 where a total is 0."""
    total = 0.0
    for (used, of), weight in zip(parts, weights, strict=True):
        if of == 0:
            return 0.0
        total = f32(total + f32(weight * f32(used / of)))
    return f32(10 * total)


def asks(container):
    """(count, MiB, percent, cores) of a container, or None."""
    limits = (container.get("resources") or {}).get("limits") or {}
    count = int(limits.get(names.RESOURCE_COUNT, 0))
    if not count:
        return None
    memory = int(limits.get(names.RESOURCE_MEMORY, 0))
    percent = 0 if memory else int(limits.get(names.RESOURCE_MEMORY_PERCENTAGE, 0)) or 100
    return count, memory, percent, int(limits.get(names.RESOURCE_CORES, 0))


def stages(pod):
    """The pod's containers in grant order, each with its role."""
    rows = [
        ("sidecar" if c.get("restartPolicy") == "Always" else "init", c)
        for c in pod["spec"].get("initContainers") or []
    ]
    return rows + [("app", c) for c in pod["spec"]["containers"]]


def moments(roles):
    """Which containers run together, for each moment of a pod's life."""
    for number, role in enumerate(roles):
        if role == "init":
            yield [*(i for i in range(number) if roles[i] == "sidecar"), number]
    yield [i for i, role in enumerate(roles) if role != "init"]


def worst(roles, slots, card):
    """(tasks, MiB, cores, exclusive) of a card at the worst moment."""
    peak = (0, 0, 0, 0)
    for running in moments(roles):
        parts = [d for i in running for d in slots[i] if d[0] == card]
        now = (
            len(parts),
            sum(d[1] for d in parts),
            sum(d[2] for d in parts),
            sum(d[2] >= 100 for d in parts),
        )
        peak = tuple(map(max, peak, now))
    return peak


def granted(pod):
    """The slots of a bound pod's annotation."""
    text = pod["metadata"]["annotations"].get(names.POD_DEVICES_ALLOCATED)
    if text is None:
        return None
    slots = []
    for piece in text.split(";")[:-1]:
        entries = [entry.split(",") for entry in piece.split(":") if entry]
        slots.append([(e[0], int(e[2]), int(e[3])) for e in entries])
    return slots


class OracleNode:
    """One node with what living pods hold on it."""

    def __init__(self, node, pods):
        annotations = node["metadata"]["annotations"]
        self.name = node["metadata"]["name"]
        text = annotations.get(names.NODE_REGISTER)
        self.cards = sorted(json.loads(text), key=lambda c: c.get("index", 0)) if text else []
        self.open = annotations.get(names.NODE_BINDING) == "late"
        self.open = self.open and not annotations.get(names.NODE_PAUSED)
        self.cordoned = annotations.get(names.NODE_CORDON, "").split(",")
        scores = json.loads(annotations.get(names.NODE_PAIR_SCORES, "[]"))
        self.scores = {entry["uuid"]: entry["score"] for entry in scores}
        self.ids = int(node["status"]["allocatable"].get(names.RESOURCE_COUNT, 0))
        self.used = {card["id"]: (0, 0, 0, 0) for card in self.cards}
        for pod in pods:
            roles = [role for role, _ in stages(pod)]
            slots = granted(pod)
            if pod["spec"].get("nodeName") != self.name or slots is None:
                continue
            for uuid, before in self.used.items():
                more = worst(roles, slots, uuid)
                self.used[uuid] = tuple(a + b for a, b in zip(before, more, strict=True))
            self.ids -= max(sum(len(slots[i]) for i in running) for running in moments(roles))

    def score(self):
        """How full the node is."""

        def part(position, total):
            of = sum(card.get(total, 0) for card in self.cards)
            return sum(used[position] for used in self.used.values()), of

        return filling([part(0, "count"), part(2, "devcore"), part(1, "devmem")])

    def place(self, pod, policy):
        """The pod's slots, None if it does not fit."""
        if not self.open or not self.cards or self.ids <= 0:
            return None
        rows = stages(pod)
        roles = [role for role, _ in rows]
        slots = []
        for _role, container in rows:
            ask = asks(container)
            chosen = [] if ask is None else self._choose(pod, policy, ask, roles, slots)
            if chosen is None:
                return None
            slots.append(chosen)
        needed = max(sum(len(slots[i]) for i in running) for running in moments(roles))
        return slots if needed <= self.ids else None

    def _choose(self, pod, policy, ask, roles, slots):
        """The cards of one container, after these slots of the containers before it."""
        count, memory, percent, cores = ask
        if count > len(self.cards):
            return None
        notes = pod["metadata"]["annotations"]
        policy = notes.get(names.POD_GPU_POLICY) or policy
        bind = notes.get(names.POD_NUMA_BIND) == "true"
        # Only what stays is counted: init containers before this one have ended.
        running = [i for i in range(len(slots)) if roles[i] != "init"]
        now = {
            uuid: tuple(
                a + b
                for a, b in zip(
                    before, worst(["app"] * len(running), [slots[i] for i in running], uuid),
                    strict=True,
                )
            )
            for uuid, before in self.used.items()
        }  # fmt: skip
        able = []
        for card in self._walk(policy, bind, now, notes, ask):
            need = memory or card["devmem"] * percent // 100
            if self._takes(card, now[card["id"]], notes, need, cores):
                able.append((card, need))
        groups = {}
        for card, need in able:
            groups.setdefault(card.get("numa", 0) if bind else 0, []).append((card, need))
        found = None
        for group in groups.values():
            if len(group) < count:
                continue
            if "topology-aware" not in policy:
                return [(card["id"], need, cores) for card, need in group[:count]]
            total, best = self._connected(group, count)
            if found is None or (total > found[0] and count > 1):
                found = total, best
        return found and [(card["id"], need, cores) for card, need in found[1]]

    def _walk(self, policy, bind, now, notes, ask):
        """The cards in order of preference."""
        weights = [1, 1, 1]
        text = notes.get(names.POD_SCORING_WEIGHTS)
        if text:
            given = dict(piece.split("=") for piece in text.split(","))
            weights = [int(given["slot"]), int(given["core"]), int(given["memory"])]

        def score(card):
            tasks, memory, cores, _ = now[card["id"]]
            if card["type"] == "NVIDIA":
                _, asked, percent, more = ask
                tasks, cores = tasks + 1, cores + more
                memory += asked or card["devmem"] * percent // 100
            parts = [(tasks, card["count"]), (cores, card["devcore"]), (memory, card["devmem"])]
            return filling(parts, weights)

        keys = {
            "binpack": score,
            "spread": lambda card: -score(card),
            "numa": lambda card: card.get("numa", 0),
            "mutex": lambda card: -now[card["id"]][0],
        }
        words = [word.strip() for word in policy.split(",")]
        if len(words) > 1 or policy == "numa":
            order = [w for w in dict.fromkeys(words) if w in ("binpack", "spread", "numa")]
            order = order or ["spread"]
            if bind:
                order = ["numa", *(word for word in order if word != "numa")]
        else:
            first = policy if policy in ("binpack", "mutex") else "spread"
            order = [first, "numa"]
            if bind:
                order = ["numa", first]
        ranked = list(self.cards)
        # Stable sorts from the last key to the first; what is preferred stands last.
        for word in reversed(order):
            ranked.sort(key=keys[word])
        if bind and policy == "binpack":
            # With numa-bind binpack starts from the lowest NUMA node, others from the highest.
            ranked.sort(key=lambda card: -card.get("numa", 0))
        return reversed(ranked)

    def _takes(self, card, used, notes, need, cores):
        """Whether a card takes one more container."""
        tasks, memory, taken, exclusive = used
        mutex = "mutex" in notes.get(names.POD_GPU_POLICY, "")
        kind, uuid = card["type"].lower(), card["id"]
        listed = lambda key: [e.strip() for e in notes[key].split(",")] if key in notes else None  # noqa: E731
        use, nouse = listed(names.POD_USE_TYPE), listed(names.POD_NOUSE_TYPE)
        only, never = listed(names.POD_USE_UUID), listed(names.POD_NOUSE_UUID)
        free_of_others = tasks == 0 if cores >= 100 else not exclusive
        room = True if cores >= 100 else taken + cores <= card["devcore"]
        spent = cores == 0 and card["devcore"] and taken >= card["devcore"]
        return (
            card.get("health", False)
            and uuid not in self.cordoned
            and (use is None or any(entry.lower() in kind for entry in use))
            and (nouse is None or not any(entry.lower() in kind for entry in nouse))
            and (only is None or uuid in only)
            and (never is None or uuid not in never)
            and tasks < card["count"]
            and not (mutex and tasks)
            and memory + need <= card["devmem"]
            and room
            and free_of_others
            and not spent
        )

    def _connected(self, group, count):
        """The points and the members of the best connected part of a group."""

        def points(a, b):
            return self.scores.get(a[0]["id"], {}).get(b[0]["id"], 0)

        if count == 1:
            lonely = min(group, key=lambda one: sum(points(one, o) for o in group if o is not one))
            return 0, [lonely]
        totals = [
            (sum(points(a, b) for a, b in combinations(part, 2)), part)
            for part in combinations(group, count)
        ]
        return max(totals, key=lambda row: row[0])


def oracle(nodes, pods, pod, node_policy, gpu_policy):
    """Fitting nodes, best first: (name, slots)."""
    alive = [p for p in pods if p["status"]["phase"] not in ("Succeeded", "Failed")]
    fitting = []
    for node in nodes:
        one = OracleNode(node, alive)
        slots = one.place(pod, gpu_policy)
        if slots is not None:
            score = one.score()
            fitting.append((score if node_policy == "spread" else -score, one.name, slots))
    return [(name, slots) for _, name, slots in sorted(fitting, key=lambda row: row[:2])]
