"""Behaviour of hami_webhook.conditions: the CEL text of the registration."""

from dataclasses import replace

from hami_webhook.conditions import match_condition
from hamikit.devices import NVIDIA


def test_golden():
    """The form that was tried on a real API server, with HAMi's names."""
    assert match_condition((NVIDIA,)) == (
        "(object.spec.?containers.orValue([]) + object.spec.?initContainers.orValue([]))"
        ".exists(c, ['nvidia.com/gpu', 'nvidia.com/gpumem', 'nvidia.com/gpumem-percentage', "
        "'nvidia.com/gpucores', 'nvidia.com/priority']"
        ".exists(r, r in c.?resources.?limits.orValue({}) || "
        "r in c.?resources.?requests.orValue({})))"
    )


def test_names_are_the_configured_ones():
    """Quoted so that a name cannot end the literal."""
    family = replace(NVIDIA, count="a'b", memory="", memory_percentage="", cores="", priority="")
    assert "['a\\'b'].exists(" in match_condition((family,))
