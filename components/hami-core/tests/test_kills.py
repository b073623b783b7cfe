"""Processes killed at random instants: after each the account is what the card's ledger says."""

import os
import random
import subprocess
from pathlib import Path

import pytest

MIB = 1 << 20
KILLS = int(os.environ.get("KILLS", "200"))
SEED = int(os.environ.get("SEED", "20260101"))
HELD_MIB = 64


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills it at whatever instruction it is."""
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def churn(container, tmp_path):
    """Starts programs that allocate and free without end; what they print is a sign of life."""
    program = tmp_path / "churn"
    source = Path(__file__).parent / "churn.c"
    driver = [f"-L{container.fake.folder}", "-l:libcuda.so.1"]
    subprocess.run(["gcc", "-O1", source, *driver, "-o", program], check=True)
    started: list[subprocess.Popen[bytes]] = []

    def start(seed: int) -> subprocess.Popen[bytes]:
        command = [program, str(seed)]
        process = subprocess.Popen(command, env=container.env(), stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        end(process)


def kill_at_random(victim: subprocess.Popen[bytes], chance: random.Random) -> None:
    """At its start, or after some hundred calls."""
    signs = chance.choice((0, 1, 3, 20, 200))
    assert victim.stdout is not None
    assert len(victim.stdout.read(signs)) == signs, f"it ended by itself: {victim.wait()}"
    end(victim)


def test_after_each_kill_the_account_is_exact(container, churn):
    """A neighbour looks, and finds charged what it holds itself, as the card does."""
    chance = random.Random(SEED)
    survivor = container.ready()
    assert survivor.ask("alloc", HELD_MIB * MIB)[0] == 0
    kills = 0
    while kills < KILLS:
        victims = [churn(chance.getrandbits(32)) for _ in range(chance.choice((1, 1, 1, 3)))]
        for victim in victims:
            kill_at_random(victim, chance)
            kills += 1
        everything = survivor.ask("alloc", (1000 - HELD_MIB) * MIB)
        assert everything[0] == 0, f"seed {SEED}, kill {kills}"
        assert container.used == container.data_bytes() == 1000 * MIB
        assert survivor.ask("free", everything[1]) == 0
        assert container.used == container.data_bytes() == HELD_MIB * MIB, (
            f"seed {SEED}, kill {kills}"
        )
