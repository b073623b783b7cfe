"""A cluster in trouble: everything that can happen, at random, beside a real extender."""

import random
import threading
import time
from collections import deque
from contextlib import suppress

import falcon.testing
import msgspec
from extender_kit import container, device, node_object, pod_object
from prometheus_client import CollectorRegistry

from hami_extender.config import Config
from hami_extender.snapshot import Snapshot, grant_of
from hami_extender.usage import Kind
from hami_extender.wiring import Parts
from hamikit import names
from hamikit.cluster import ApiError
from hamikit.codec import CodecError
from hamikit.devices import NVIDIA
from hamikit.footprint import NOTHING
from hamikit.informer import Change
from hamikit.objects import Metadata, Node, Pod
from hamikit.quotas import QuotaSpec, ResourceQuota
from hamikit.testing import FAIL, LOSE_AFTER, LOSE_BEFORE, ApiServer, Store

NODES, PODS, QUOTAS = "/api/v1/nodes", "/api/v1/pods", "/api/v1/resourcequotas"
SPEED = 20.0
"""How fast the extender's clock goes: outcomes that are open for seconds must not take them."""
SCHEDULERS = 3
QUOTA_MIB = 12_000
DEADLINE_S = 60.0
ALLOCATING = ("", names.BIND_ALLOCATING)


class Storm:
    """One extender, its API server, and those who use and trouble both."""

    def __init__(self, seed, *, nodes=4, cards=2):
        self.random = random.Random(seed)
        self.store = Store()
        self.server = ApiServer(self.store)
        self.jump = 0.0
        self.violations = []
        self.cards = {
            f"n{i}": [device(f"n{i}-{c}", c, count=4, devmem=8000) for c in range(cards)]
            for i in range(nodes)
        }
        self.binding = {f"n{i}": "lock" if i % 2 else "late" for i in range(nodes)}
        self.made = 0
        self.bereft = {name: set() for name in self.cards}
        self.old = {}
        self.stopping, self.progress = threading.Event(), threading.Condition()
        self.answered = 0
        self.recent = deque(maxlen=200)
        for name in self.cards:
            self.node_up(name)
        self.store.put(QUOTAS, self.quota())
        self.store.on_write = self.audit_write

    # The extender.

    def now(self):
        """Fast, and sometimes ahead."""
        return time.monotonic() * SPEED + self.jump

    def __enter__(self):
        self.server.__enter__()
        self.snapshot = Snapshot(NVIDIA, lock_protocol=True, now=self.now)
        config = Config.parse(["--lock-protocol"], {})
        self.parts = Parts(
            config, self.snapshot, self.server.api(), CollectorRegistry(), now=self.now
        )
        self.verbs = falcon.testing.TestClient(self.parts.verbs())
        self.inquiry = falcon.testing.TestClient(
            self.parts.inquiry(), headers={"Authorization": "Bearer t"}
        )
        for informer in self.parts.informers.values():
            # Short waits between tries: what is tested is that it tries again, not how seldom.
            informer._backoff_s = (0.02,)
            informer.start()
        self.threads = [threading.Thread(target=self.look)]
        self.threads += [
            threading.Thread(target=self.schedule, args=(seed,)) for seed in range(SCHEDULERS)
        ]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.server.down.clear()
        self.server.trouble = lambda _method, _path: ""
        for thread in self.threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        for informer in self.parts.informers.values():
            informer.stop()
        self.server.__exit__()

    def look(self):
        """What the extender's main thread does."""
        while not self.stopping.wait(0.02):
            self.parts.look()

    def schedule(self, seed):
        """kube-scheduler: any waiting pod, all nodes that there are, the best of those offered."""
        chance = random.Random(seed)
        while not self.stopping.is_set():
            waiting = [p for p in self.store.items(PODS) if not p["spec"].get("nodeName")]
            if waiting:
                self.place(chance.choice(waiting))
            with self.progress:
                self.answered += 1
                self.progress.notify_all()
            self.stopping.wait(0.001 if waiting else 0.01)

    def place(self, pod):
        """Filter, prioritize, bind."""
        live = sorted(node["metadata"]["name"] for node in self.store.items(NODES))
        found = self.ask("filter", Pod=pod, NodeNames=live)
        assert set(found["NodeNames"] or []) <= set(live)
        nodes = found["NodeNames"]
        if not nodes or found["Error"]:
            return
        if len(nodes) > 1:
            scores = self.ask("prioritize", Pod=pod, NodeNames=nodes)
            nodes = [max(scores, key=lambda entry: entry["Score"])["Host"]]
        meta = pod["metadata"]
        said = self.ask(
            "bind",
            PodName=meta["name"],
            PodNamespace=meta["namespace"],
            PodUID=meta["uid"],
            Node=nodes[0],
        )
        self.recent.append((meta["uid"], nodes[0], said["Error"]))

    def ask(self, verb, **body):
        """One question; never anything but an answer."""
        answer = self.verbs.simulate_post(f"/{verb}", body=msgspec.json.encode(body))
        assert answer.status_code == 200, answer.text
        return answer.json

    # What happens.

    def storm(self, steps):
        """So many things at random, each after somebody got an answer."""
        actions = (
            [self.create] * 14
            + [self.plugin] * 6
            + [self.finish, self.delete, self.terminate, self.terminate, self.end] * 2
            + [self.node_down, self.node_back, self.sick, self.garbage, self.pause]
            + [self.restart, self.compact, self.server.cut, self.lose, self.lose, self.shift]
            + [self.foreign, self.question, self.repeat]
        )
        for _ in range(steps):
            self.random.choice(actions)()
            with self.progress:
                seen = self.answered
                self.progress.wait_for(lambda seen=seen: self.answered > seen, 0.2)

    def create(self):
        """A pod of any shape, perhaps under a name that was in use before."""
        name = f"p{self.random.randrange(30)}"
        if any(p["metadata"]["name"] == name for p in self.store.items(PODS)):
            return
        self.made += 1
        chance = self.random

        def one(title):
            limits = {"gpu": chance.choice((1, 1, 2)), "cores": chance.choice((0, 30, 100))}
            limits[chance.choice(("mem", "percent"))] = chance.choice((10, 30, 50, 100))
            if "mem" in limits:
                limits["mem"] *= 40
            return container(title, **limits)

        init = (one("i"),) if chance.random() < 0.2 else ()
        apps = [one(f"c{i}") for i in range(chance.choice((1, 1, 2)))]
        pod = pod_object(name, *apps, init=init, uid=f"uid-{self.made}")
        pod["metadata"]["namespace"] = chance.choice(("default", "limited"))
        del pod["spec"]["nodeName"]
        self.store.put(PODS, pod)

    def some(self, *, bound=None):
        """Any pod."""
        pods = self.store.items(PODS)
        if bound is not None:
            pods = [p for p in pods if bool(p["spec"].get("nodeName")) is bound]
        return self.random.choice(pods) if pods else None

    def change(self, pod, **body):
        """Patch it, if it is still the same."""
        key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        meta = {"uid": pod["metadata"]["uid"], **body.pop("metadata", {})}
        with suppress(ApiError):
            self.store.patch(PODS, key, {"metadata": meta, **body})

    def remove(self, pod):
        """It is gone."""
        self.store.delete(PODS, f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")

    def finish(self):
        """A pod runs to its end."""
        if pod := self.some(bound=True):
            self.change(pod, status={"phase": self.random.choice(("Succeeded", "Failed"))})

    def terminate(self):
        """A deletion begins; the pod keeps its cards."""
        if pod := self.some():
            self.change(pod, metadata={"deletionTimestamp": "2026-08-21T06:20:39Z"})

    def end(self):
        """A pod whose deletion began is gone."""
        for pod in self.store.items(PODS):
            if pod["metadata"].get("deletionTimestamp") or pod["status"]["phase"] != "Pending":
                self.remove(pod)
                return

    def delete(self):
        """Gone at once, by force."""
        if pod := self.some():
            self.remove(pod)

    def plugin(self):
        """The lock nodes' plugins serve whose turn it is, and sometimes cannot say so."""
        for node in self.store.items(NODES):
            value = node["metadata"]["annotations"].get(names.NODE_LOCK)
            if value is None or self.random.random() < 0.3:
                continue
            key = "/".join(value.split(",")[1:])
            with suppress(ApiError):
                pod = self.store.read(PODS, key)
                if pod["spec"].get("nodeName") != node["metadata"]["name"]:
                    continue
                phase = self.random.choice((names.BIND_SUCCESS,) * 4 + (names.BIND_FAILED,))
                self.store.patch(
                    PODS, key, {"metadata": {"annotations": {names.POD_BIND_PHASE: phase}}}
                )
                if self.random.random() < 0.8:
                    self.store.patch(
                        NODES,
                        node["metadata"]["name"],
                        {"metadata": {"annotations": {names.NODE_LOCK: None}}},
                    )

    def node_up(self, name, lock=None):
        """A node as it should be."""
        said = {"NODE_BINDING": self.binding[name], **({"NODE_LOCK": lock} if lock else {})}
        self.store.put(NODES, node_object(name, *self.cards[name], **said))

    def node_down(self):
        """A node vanishes, and with it a lock that some pod may be about to be bound under."""
        name = self.random.choice(list(self.cards))
        with self.store.changed:
            if any(n["metadata"]["name"] == name for n in self.store.items(NODES)):
                self.bereft[name] = {p["metadata"]["uid"] for p in self.store.items(PODS)}
            self.store.delete(NODES, name)

    def node_back(self):
        """All nodes are there and well; their locks stay."""
        with self.store.changed:
            known = {n["metadata"]["name"]: n["metadata"] for n in self.store.items(NODES)}
            for name in self.cards:
                self.node_up(name, known.get(name, {}).get("annotations", {}).get(names.NODE_LOCK))

    def annotate(self, **annotations):
        """Something is written on a node."""
        said = {getattr(names, key): value for key, value in annotations.items()}
        with suppress(ApiError):
            name = self.random.choice(list(self.cards))
            self.store.patch(NODES, name, {"metadata": {"annotations": said}})

    def sick(self):
        """Cards fail."""
        name = self.random.choice(list(self.cards))
        cards = [
            msgspec.structs.replace(card, health=self.random.random() < 0.5)
            for card in self.cards[name]
        ]
        text = node_object(name, *cards)["metadata"]["annotations"][names.NODE_REGISTER]
        with suppress(ApiError):
            change = {"metadata": {"annotations": {names.NODE_REGISTER: text}}}
            self.store.patch(NODES, name, change)

    def garbage(self):
        """An annotation that nobody can read."""
        self.annotate(
            NODE_REGISTER=self.random.choice(("junk", "[]", '[{"id":3}]', "", "[" * 200_000))
        )
        self.spoil_lock(self.random.choice(("junk", "a,b", "x,default,nobody")))

    def spoil_lock(self, text):
        """A lock that is nobody's; not over one that is held, whose holder could not know it."""
        for node in self.random.sample(nodes := self.store.items(NODES), min(1, len(nodes))):
            seen = node["metadata"]
            if names.NODE_LOCK in seen.get("annotations", {}):
                continue
            change = {
                "resourceVersion": seen["resourceVersion"],
                "annotations": {names.NODE_LOCK: text},
            }
            with suppress(ApiError):
                self.store.patch(NODES, seen["name"], {"metadata": change})

    def pause(self):
        """A plugin is replaced."""
        self.annotate(NODE_PAUSED=self.random.choice(("upgrade", None)))

    def restart(self):
        """The API server goes down and comes back."""
        self.server.down.set()
        self.server.cut()
        self.stopping.wait(0.02)
        self.server.down.clear()

    def compact(self):
        """Watches cannot be resumed: 410."""
        self.store.compact()
        self.server.cut()

    def lose(self):
        """From now on requests get lost, or none does."""
        rate, chance = self.random.choice((0, 0, 0.05, 0.2)), random.Random(self.random.random())
        words = (LOSE_BEFORE, LOSE_AFTER, FAIL)
        self.server.trouble = lambda method, path: (
            chance.choice(words) if chance.random() < rate and "events" not in path else ""
        )

    def shift(self):
        """The clock jumps."""
        self.jump += self.random.choice((1.0, 6.0, 70.0))

    def foreign(self):
        """Somebody binds a pod past us, perhaps with a grant that nobody can read."""
        if pod := self.some(bound=False):
            grant = self.random.choice(({}, {names.POD_DEVICES_ALLOCATED: "a,b:"}))
            node = self.random.choice(list(self.cards))
            self.change(pod, metadata={"annotations": grant}, spec={"nodeName": node})

    def question(self):
        """Somebody asks why; the answer is one, or says that the API server is the matter."""
        pod = self.some()
        if pod is None:
            return
        meta = pod["metadata"]
        for path in (f"/explain?pod={meta['namespace']}/{meta['name']}", "/explain", "/state"):
            answer = self.inquiry.simulate_get(path)
            assert answer.status_code in (200, 404, 503), answer.text

    def repeat(self):
        """Watches tell things twice, or old news of pods that live; or no longer do."""
        chance = random.Random(self.random.random())
        often = self.random.choice((0, 0.3))

        def spread(event):
            value = event["object"]
            uid = value["metadata"]["uid"]
            before = self.old.get(uid)
            self.old[uid] = event
            if chance.random() >= often or event["type"] == "DELETED":
                return [event]
            lives = value.get("status", {}).get("phase") == "Pending"
            if before is not None and lives and chance.random() < 0.5:
                return [before, event, event]
            return [event, event]

        self.server.spread = spread

    # The truth.

    def quota(self):
        """The limit of one namespace."""
        return {
            "metadata": {"name": "team", "namespace": "limited", "uid": "uid-quota"},
            "spec": {"hard": {"limits.nvidia.com/gpumem": str(QUOTA_MIB)}},
        }

    def audit_write(self, type_, collection, value):
        """Nothing that is written may promise more than there is. The store is locked."""
        if collection != PODS or type_ == "DELETED" or not value["spec"].get("nodeName"):
            return
        pods = {p["metadata"]["uid"]: p for p in self.store.objects[PODS].values()}
        before = pods.get(value["metadata"]["uid"])
        if before is None or before["spec"].get("nodeName"):
            return
        pods[value["metadata"]["uid"]] = value
        self.audit_cards(value["spec"]["nodeName"], pods.values())
        self.audit_quota(pods.values())
        if names.POD_DEVICES_ALLOCATED in value["metadata"]["annotations"]:
            self.audit_lock(value, pods.values())

    def audit_cards(self, node, pods):
        """No card of a node is promised beyond its memory, compute or slots."""
        used = {}
        for held in filter(None, (holding(p) for p in pods)):
            if held.node == node:
                for uuid, share in held.taken.items():
                    used[uuid] = used.get(uuid, NOTHING) + share
        for card in self.cards[node]:
            share = used.get(card.id, NOTHING)
            over = share.memory_mib > card.devmem or share.slots > card.count
            if over or share.cores > card.devcore:
                self.violations.append((node, card.id, share))

    def audit_quota(self, pods):
        """No namespace holds more than its quota."""
        held = [holding(p) for p in pods if p["metadata"]["namespace"] == "limited"]
        total = sum(s.memory_mib for h in held if h for s in h.taken.values())
        if total > QUOTA_MIB:
            self.violations.append(("quota", total))

    def audit_lock(self, pod, pods):
        """On a lock node a pod is bound under its own lock, when no other is being served."""
        node = pod["spec"]["nodeName"]
        if self.binding[node] != "lock" or node not in self.store.objects[NODES]:
            return
        if pod["metadata"]["annotations"].get(names.POD_DEVICES_ALLOCATED) == "a,b:":
            return
        meta = pod["metadata"]
        if meta["uid"] in self.bereft[node]:
            return
        lock = self.store.objects[NODES][node]["metadata"]["annotations"].get(names.NODE_LOCK, "")
        if not lock.endswith(f",{meta['namespace']},{meta['name']}"):
            self.violations.append(("lock", node, meta["name"], lock))

    def calm(self):
        """No more trouble; everything is put right."""
        self.server.trouble = lambda _method, _path: ""
        self.server.spread = lambda event: [event]
        self.node_back()
        for pod in self.store.items(PODS):
            text = pod["metadata"].get("annotations", {}).get(names.POD_DEVICES_ALLOCATED)
            if text == "a,b:" or pod["metadata"].get("deletionTimestamp"):
                self.remove(pod)

    def settled(self):
        """Why the end is not reached yet: one account, no open outcome, nobody left who fits."""
        self.plugin()
        fresh = Snapshot(NVIDIA, lock_protocol=True)
        for node in self.store.items(NODES):
            fresh.on_node(Change(None, msgspec.convert(node, Node)))
        meta = Metadata(name="team", namespace="limited", uid="uid-quota")
        spec = QuotaSpec({"limits.nvidia.com/gpumem": QUOTA_MIB})
        fresh.on_quota(Change(None, ResourceQuota(meta, spec)))
        pods = [msgspec.convert(pod, Pod) for pod in self.store.items(PODS)]
        for pod in pods:
            fresh.on_pod(Change(None, pod))
        with self.snapshot.lock:
            open_ = self.parts.flights.under_way()
            held = self.snapshot.ledger.holdings
            ours = {u: (h.node, h.slots) for u, h in held.items() if h.kind is not Kind.CLAIM}
        theirs = {u: (h.node, h.slots) for u, h in fresh.ledger.holdings.items()}
        if open_ or ours != theirs:
            return f"open {open_}; only ours {ours.items() - theirs.items()}; only theirs " + str(
                theirs.items() - ours.items()
            )
        for pod in pods:
            if not pod.spec.node_name and self.could_go(fresh, pod):
                return f"{pod.key} fits and waits"
        left = [n["metadata"]["annotations"].get(names.NODE_LOCK) for n in self.store.items(NODES)]
        return f"locks {left}" if any(lock and self.is_over(lock) for lock in left) else None

    def could_go(self, fresh, pod):
        """Whether a node has room for it by an account made afresh."""
        question = fresh.limited(fresh.question(pod, "spread"), pod)
        return fresh.verdicts.fits_any(question, list(fresh.ledger.nodes))

    def is_over(self, lock):
        """Whether a lock of ours is no longer needed; junk is taken over by the next bind."""
        key = "/".join(lock.split(",")[1:])
        try:
            pod = self.store.read(PODS, key)
        except ApiError:
            return False
        return pod["metadata"]["annotations"].get(names.POD_BIND_PHASE) == names.BIND_SUCCESS

    def wait_until_settled(self):
        """Within the deadline, or the reason why not."""
        end = time.monotonic() + DEADLINE_S
        while (why := self.settled()) is not None:
            if time.monotonic() > end:
                raise AssertionError(f"not settled: {why}; {list(self.recent)[-8:]}")
            self.stopping.wait(0.05)


def holding(pod):
    """What a pod's grant says; None without one, or with one that nobody can read."""
    value = msgspec.convert(pod, Pod)
    if value.terminal or not value.spec.node_name:
        return None
    with suppress(CodecError):
        held = grant_of(value, (NVIDIA,))
        return held if held and held.readable else None
    return None
