"""Profiles by the names that people and drivers use."""

import pytest
from mig_world import A100, profile

from hami_mig_manager.state import Card

RTX = (
    profile("1g.24gb-me", 24192, 1, 0, 1, 2, 3, size=1),
    profile("1g.24gb+gfx", 24192, 1, 0, 1, 2, 3, size=1),
    profile("1g.24gb", 24192, 1, 0, 1, 2, 3, size=1),
)


@pytest.mark.parametrize(
    ("profiles", "name", "found"),
    [
        (A100, "2g.10gb", "2g.10gb"),
        (A100, "1g.10gb", "1g.10gb"),
        (A100, "7g.39gb", "7g.40gb"),
        (A100, "1g.6gb", "1g.5gb"),
        (RTX, "1g.24gb+gfx", "1g.24gb+gfx"),
        (RTX, "1g.23gb", "1g.24gb"),
        (A100, "8g.40gb", None),
        ((), "1g.5gb", None),
    ],
)
def test_a_profile_by_its_name_or_by_its_slices(profiles, name, found):
    """HAMi's allowlist says 7g.79gb for 7g.80gb; a variant is meant only by its own name."""
    card = Card("GPU-a", profiles=profiles)
    chosen = card.profile(name)
    assert (chosen.name if chosen else None) == found
