"""Random sequences of every allocator, by several processes on two cards: exact after each step."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

MIB = 1 << 20
OOM = 2
STEPS = int(os.environ.get("STEPS", "150"))  # more for a soak
LIMITS_MIB = (700, 500)


@dataclass
class Tenant:
    """A process and how each thing that it holds is given back."""

    guest: object
    card: int
    dice: random.Random
    held: list[Callable[[], int]] = field(default_factory=list)

    def size(self) -> int:
        return self.dice.choice(
            (1, 511, 4096, MIB, 2 * MIB - 1, 2 * MIB + 1, 30 * MIB, 70 * MIB, 200 * MIB)
        )

    def block(self) -> int:
        return self.dice.randrange(1, 40) * 2 * MIB

    def keep(self, answer, *give_back) -> int:
        """Remembers how to give back what was granted; the result."""
        result, handle = answer[:2]
        if result == 0:
            name, *more = give_back
            self.held.append(lambda: self.guest.ask(name, handle, *more))
        return result

    def allocate(self) -> tuple[int, int]:
        """One allocation: its result, and what it needed at least where that is certain."""
        ask, keep, size, block = self.guest.ask, self.keep, self.size(), self.block()
        ways = (
            lambda: (keep(ask("alloc", size), "free"), size),
            lambda: (keep(ask("managed", size), "free"), size),
            lambda: (keep(ask("create", block, self.card), "release_handle"), block),
            lambda: (keep(ask("pitch", size // 64 + 1, 64), "free"), 0),
            lambda: (keep(ask("array", size // 256 + 1, 64), "array_destroy"), 0),
            lambda: (keep(ask("mipmapped", 512, size // 2048 + 1, 3), "array_destroy"), 0),
            lambda: (keep(ask("alloc_async", size), "free_async"), 0),
            lambda: self.launch(size),
        )
        return self.dice.choice(ways)()

    def launch(self, size: int) -> tuple[int, int]:
        """A graph that allocates and frees; its memory stays until a trim."""
        ask = self.guest.ask
        graph = ask("graph")
        _, pointer = ask("graph_alloc", graph, size, self.card)
        assert ask("graph_free", graph, pointer) == 0
        result, executable = ask("instantiate", graph)
        assert result == 0
        launched = ask("launch", executable)
        assert ask("exec_destroy", executable) == 0
        return launched, 0

    def step(self) -> tuple[int, int]:
        """An allocation, a release or a trim."""
        choice = self.dice.random()
        if self.held and choice < 0.45:
            index = self.dice.randrange(len(self.held))
            assert self.held.pop(index)() == 0
        elif choice < 0.5:
            assert self.guest.ask("synchronize") == 0
            assert self.guest.ask("graph_trim", self.card) == 0
        else:
            return self.allocate()
        return 0, 0


def test_random_sequences_stay_exact(container):
    """Charged is what the card gave, never above the limit; no refusal where there was room."""
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    dice = random.Random(seed)
    container.limits(*LIMITS_MIB)
    tenants = [Tenant(container.start(), card, dice) for card in (0, 1, 0, 1)]
    for tenant in tenants:
        assert tenant.guest.ask("init", tenant.card) == 0
    for number in range(STEPS):
        tenant = dice.choice(tenants)
        before = container.usage.devices[tenant.card].used_bytes
        result, needed = tenant.step()
        where = f"seed {seed}, step {number}"
        assert result in (0, OOM), where
        if result == OOM and needed:
            assert before + needed + 2 * MIB > LIMITS_MIB[tenant.card] * MIB, where
        for card, limit in enumerate(LIMITS_MIB):
            used = container.usage.devices[card].used_bytes
            assert used == container.data_bytes(card) <= limit * MIB, where
