"""An error of the driver at any of its calls, while instances are made and removed."""

from collections import Counter
from types import SimpleNamespace

import pynvml
import pytest
from mig_world import World, spot

from hami_mig_manager.cards import NvmlCards
from hami_mig_manager.verdict import NvmlFailed
from hamikit.gpu import GpuError, Nvml

CODES = (
    pynvml.NVML_ERROR_UNKNOWN,
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_IN_USE,
    pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES,
)
TURNS = 3
"""Of each function so many calls fail, one in a story, spread over it."""


class Binding:
    """Unmodified pynvml on a node of one card, of which the n-th call of one function fails."""

    def __init__(self):
        self.calls, self.fails = Counter(), None

    def __getattr__(self, name):
        found = getattr(pynvml, name)
        # What lets go of the driver may not fail.
        if not name.startswith("nvml") or name == "nvmlShutdown":
            return found

        def call(*arguments, **options):
            self.calls[name] += 1
            if self.fails is not None and self.fails[:2] == (name, self.calls[name]):
                raise pynvml.NVMLError(self.fails[2])
            return 1 if name == "nvmlDeviceGetCount" else found(*arguments, **options)

        return call


class Node(World):
    """A simulated card, and the API server in memory."""

    def __init__(self, real):
        super().__init__(cards={})
        self.real, self.busy = real, self.manager()

    def read(self):
        self.cards = dict(self.real.read())
        return self.cards

    def create(self, spot):
        self.real.create(spot)

    def complete(self, instance):
        self.real.complete(instance)

    def destroy(self, instance):
        self.allowed(instance)
        self.real.destroy(instance)

    def work(self, seconds, step=2):
        """As the loop does: what fails is tried again; who was evicted goes."""
        end = self.now + seconds
        while self.now <= end:
            try:
                self.busy.settle()
            except (GpuError, NvmlFailed):
                self.heard.failed("look", "")
            for uid, _ in self.evictions:
                self.gone(uid)
            self.now += step


@pytest.fixture(scope="module")
def site(driver):
    """The first A100 in MIG mode with an instance made by hand, through a binding that can fail."""
    binding = Binding()
    nvml = Nvml(driver.root, binding=binding)
    real = NvmlCards(nvml)
    (card,) = real.read()
    real.set_mode(card, enabled=True)
    driver.command("cut", card, "1g.5gb", "3")
    yield SimpleNamespace(real=real, card=card, binding=binding)
    binding.fails = None
    for instance in real.read()[card].instances:
        real.destroy(instance)
    nvml.close()


def story(site):
    """One pod stays; another comes, goes, and a third needs its slices; all that must hold."""
    binding, card = site.binding, site.card
    fails, binding.fails = binding.fails, None
    node = Node(site.real)
    node.foreign.add(spot("1g.5gb", 3, card))
    node.bind("stays", spot("1g.5gb", 6, card))
    node.work(0)
    assert (kept := node.uuids("stays")) != [None]
    told = f"{fails} fails"
    binding.calls.clear()
    binding.fails = fails
    for name, place in (("goes", spot("2g.10gb", 0, card)), ("next", spot("1g.5gb", 0, card))):
        node.bind(name, place)
        node.work(12)
        assert node.evictions or None not in node.uuids(name), f"{told}: {name} waits for ever"
        node.gone(name)
        node.work(2)
    node.work(40, step=10)
    calls = Counter(binding.calls)
    assert node.uuids("stays") == kept, told
    node.read()
    left = {(where.profile, where.start) for where in node.there()}
    assert left == {("1g.5gb", 3), ("1g.5gb", 6)}, told
    node.gone("stays")
    node.work(40, step=20)
    node.read()
    assert {where.start for where in node.there()} == {3}, told
    return calls


@pytest.mark.parametrize("code", CODES)
def test_an_error_at_any_call_leaves_nothing_behind(site, code):
    """No pod waits for ever, none loses its instance, one made by hand stays, the others go."""
    site.binding.fails = None
    calls = story(site)
    assert {"nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceDestroy"} <= calls.keys()
    for name, count in calls.items():
        for number in sorted({1 + count * turn // TURNS for turn in range(TURNS)}):
            site.binding.fails = (name, number, code)
            assert story(site)[name] >= number, "the fault was not met"
