"""A stream of pods on MIG instances, during which mig-manager dies at every step of its work."""

import json
import random
import subprocess
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from e2e import cards as fake_cards
from e2e.kills import by_admission, kill, processes
from e2e.kube import Deadline, Kube, phase, wait_until
from e2e.mig import MEMORY, SHOW, SYSTEM, WORKER, cards, disagreement, records
from e2e.pods import ON_AN_A100, container, pod, slice_of
from hamikit import names

Pod = dict[str, Any]
WINDOW = 14
"""Pods at a time."""
SIZES = {4000: 8, 9000: 5, 18000: 3, 38000: 1}
"""MiB that pods ask for, and how often."""
CALLS = (
    "nvmlDeviceCreateGpuInstanceWithPlacement",
    "nvmlComputeInstanceDestroy",
    "nvmlGpuInstanceCreateComputeInstance",
    "nvmlGpuInstanceDestroy",
)
MODES = ("kill-inside", "kill-before", "kill-after")
COMPANIONS = ("device-plugin", "kubelet", "mig-manager")
"""Who else is killed at that moment; `mig-manager`: as soon as it is back."""
STEPS = [
    (call, mode, COMPANIONS[(number + turn) % len(COMPANIONS)])
    for turn in range(len(COMPANIONS))
    for mode in MODES
    for number, call in enumerate(CALLS)
]
"""Where mig-manager dies and who with it; the first dozen has every call in every mode."""
PAUSES = 4
STUCK_S = 240
"""Without a pod that was found right the stream has come to a halt."""


@dataclass
class Stream:
    """Pods come, are looked at from inside, and go; steps and pauses are spread over them."""

    kube: Kube
    namespace: str
    pods: int
    seed: int
    steps: int = len(STEPS)
    created: int = 0
    right: int = 0
    replaced: int = 0
    elsewhere: int = 0
    deaths: list[str] = field(default_factory=list)
    agreed: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._asked: dict[str, int] = {}
        self._going: set[str] = set()
        self._steps = deque(STEPS[: self.steps])
        self._armed: tuple[str, str, str] | None = None
        self._living: list[tuple[str, str]] = []
        self._begun = self._progress = time.monotonic()

    def run(self) -> None:
        """Until so many pods were right and every step was died at; all are gone afterwards."""
        while self.right < self.pods or self._steps or self._armed:
            found = self.kube.pods(self.namespace)
            self._apart(found)
            self._look(found)
            self._die()
            if self.agreed < min(PAUSES, self.right * PAUSES // self.pods):
                wait_until(lambda: disagreement(self.kube), 90)
                self.agreed += 1
            self._fill(found)
            if time.monotonic() > self._progress + STUCK_S:
                raise Deadline(f"no pod was right for {STUCK_S} s; {self.told()}; {self._why()}")
        self.kube.kubectl("delete", "pod", "--all", "-n", self.namespace, "--now")

    def told(self) -> str:
        """What happened."""
        return (
            f"seed {self.seed}, {time.monotonic() - self._begun:.0f} s: {self.right} pods right, "
            f"{self.elsewhere} of them on a card that is shared, {self.replaced} failed by "
            f"kubelet's admission, {self.agreed} pauses in which scheduler and node agreed, "
            f"{len(self.deaths)} deaths: {', '.join(self.deaths)}"
        )

    def _why(self) -> str:
        waiting = [p for p in self.kube.pods(self.namespace) if phase(p) != "Running"]
        said = {
            p["metadata"]["name"]: self.kube.events(self.namespace, p["metadata"]["name"])[-3:]
            for p in waiting[:5]
        }
        return json.dumps(said)

    def _fill(self, found: list[Pod]) -> None:
        staying = [p for p in found if p["metadata"]["name"] not in self._going]
        wanted = WINDOW - len(staying) if self.right < self.pods or self._steps else 0
        fresh = [self._next() for _ in range(wanted)]
        if fresh:
            self.kube.create(*fresh)

    def _next(self) -> Pod:
        """Of the small ones some may go to a card that is shared, and some must."""
        name, self.created = f"p{self.created}", self.created + 1
        memory = self._chance.choices(list(SIZES), list(SIZES.values()))[0]
        chance = self._chance.random() if memory == min(SIZES) else 1.0
        where: dict[str, Any] = {} if chance < 0.2 else {"nodeSelector": ON_AN_A100}
        if chance < 0.1:
            where["annotations"] = {names.POD_VGPU_MODE: names.MODE_HAMI_CORE}
        self._asked[name] = memory
        asked = container("c", slice_of(memory=memory), SHOW)
        return pod(name, self.namespace, asked, **where)

    def _apart(self, found: list[Pod]) -> None:
        """No two pods that are there have a slice of a card in common."""
        owners: dict[tuple[str, int], str] = {}
        for each in found:
            if phase(each) in ("Failed", "Succeeded"):
                continue
            name = each["metadata"]["name"]
            for one in records(each):
                place = one.placement
                for number in range(place.start, place.start + place.size):
                    other = owners.setdefault((one.gpu_uuid, number), name)
                    assert other == name, f"slice {number} of {one.gpu_uuid}: {other} and {name}"

    def _look(self, found: list[Pod]) -> None:
        """Those that run are looked at and deleted; who failed by admission makes room."""
        ended = []
        for each in found:
            name = each["metadata"]["name"]
            if name in self._going:
                continue
            state = phase(each)
            if state == "Failed":
                assert by_admission(each), f"{name}: {each['status']}"
                self.replaced += 1
            elif state == "Running" and self._found_right(each):
                self.right += 1
            else:
                continue
            ended.append(name)
        if ended:
            self._progress = time.monotonic()
            self._going.update(ended)
            where = ("-n", self.namespace, "--now", "--wait=false")
            self.kube.kubectl("delete", "pod", *ended, *where)

    def _found_right(self, each: Pod) -> bool:
        """Whether a pod has told what it sees, which must be its own instance and no other."""
        name = each["metadata"]["name"]
        try:
            said = self.kube.kubectl("logs", "-n", self.namespace, name)
        except subprocess.SubprocessError:
            return False  # kubelet is away
        if "UUID:" not in said:
            return False
        [seen] = json.loads(said.splitlines()[0])["cards"]
        if not records(each):
            self.elsewhere += 1
            assert seen["total"] == self._asked[name] << 20, f"{name}: {said}"
            assert "MIG-" not in said, f"{name}: {said}"
            return True
        [made] = records(each)
        assert f"UUID: {made.mig_uuid})" in said, f"{name} has {made} and sees {said}"
        assert said.count("MIG-") == 1, f"{name} has {made} and sees {said}"
        assert MEMORY[made.profile] >= self._asked[name]
        assert seen["total"] == MEMORY[made.profile] << 20, f"{name} has {made} and sees {said}"
        present = {
            ci["uuid"]: (card["uuid"], gi["start"], gi["size"])
            for card in cards()
            for gi in card["mig"]["instances"]
            for ci in gi["devices"]
        }
        place = made.placement
        assert present.get(str(made.mig_uuid)) == (made.gpu_uuid, place.start, place.size), present
        return True

    def _die(self) -> None:
        """Arm the next step when its turn has come; notice that mig-manager has died at it."""
        living = processes(self.kube, "hami-mig-manager", [WORKER])
        if self._armed is None:
            done = len(self.deaths)
            if self._steps and living and self.right * self.steps >= done * self.pods:
                self._armed, self._living = self._steps.popleft(), living
                fake_cards.simulate(WORKER, "fail", self._armed[0], "1", self._armed[1])
        elif not set(self._living) & set(living):
            self.deaths.append(" ".join(self._armed))
            companion, self._armed = self._armed[2], None
            # A new pod of it starts at once; kubelet would wait for minutes after some deaths.
            app = ("-l", "app.kubernetes.io/name=hami-mig-manager")
            node = f"--field-selector=spec.nodeName={WORKER}"
            self.kube.kubectl("delete", "pod", *SYSTEM, *app, node, "--now", "--wait=false")
            kill(self.kube, companion)
