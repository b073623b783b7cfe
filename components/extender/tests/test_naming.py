"""Which nodes a pod names."""

import msgspec
import pytest
from extender_kit import pod_object

from hami_extender.naming import named_nodes
from hamikit.objects import Pod

BY_NAME = {"key": "metadata.name", "operator": "In", "values": ["a"]}
BY_HOST = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["b", "c"]}


def affinity(**kinds):
    """A pod's spec with a node affinity."""
    return {
        "affinity": {
            "nodeAffinity": {
                f"{kind}DuringSchedulingIgnoredDuringExecution": value
                for kind, value in kinds.items()
            }
        }
    }


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, set()),
        ({"nodeSelector": {"kubernetes.io/hostname": "a", "zone": "z"}}, {"a"}),
        ({"affinity": {}}, set()),
        (
            affinity(required={"nodeSelectorTerms": [{"matchFields": [BY_NAME]}, {}]}),
            {"a"},
        ),
        (
            affinity(preferred=[{"weight": 1, "preference": {"matchExpressions": [BY_HOST]}}]),
            {"b", "c"},
        ),
        (
            affinity(
                required={
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {**BY_HOST, "operator": "NotIn"},
                                {**BY_HOST, "key": "zone"},
                                {"key": "kubernetes.io/hostname", "operator": "Exists"},
                            ],
                            "matchFields": [{**BY_NAME, "operator": "NotIn"}],
                        }
                    ]
                }
            ),
            set(),
        ),
    ],
)
def test_named_nodes(spec, expected):
    """By host name or by the object's name, where the operator is In."""
    value = pod_object("p")
    value["spec"].update(spec)
    assert named_nodes(msgspec.convert(value, Pod)) == expected


def test_the_nominated_node():
    """Preemption made room there for this pod."""
    value = pod_object("p")
    value["status"]["nominatedNodeName"] = "n"
    assert named_nodes(msgspec.convert(value, Pod)) == {"n"}
