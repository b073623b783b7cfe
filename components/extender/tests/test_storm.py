"""Whatever happens, no card and no quota is promised twice, and nobody is forgotten."""

import os

import pytest
from storm import Storm

SEEDS = range(int(os.environ.get("STORMS", "3")))
STEPS = int(os.environ.get("STORM_STEPS", "150"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm(seed):
    """Creations and deletions, nodes, cards, garbage, restarts, gaps, lost answers, old news."""
    with Storm(seed) as storm:
        storm.storm(STEPS)
        storm.calm()
        storm.wait_until_settled()
        assert storm.violations == []
        for informer in storm.parts.informers.values():
            assert informer.missing() is None
