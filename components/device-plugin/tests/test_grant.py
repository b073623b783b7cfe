"""What each container of a pod was granted."""

import msgspec
import pytest
from plugin_kit import make_container, make_pod

from hami_device_plugin.grant import GrantError, PodGrant, Slice, pod_grant
from hamikit import names
from hamikit.devices import NVIDIA
from hamikit.objects import Container, Resources
from hamikit.shape import Role


def read(pod, node="n1"):
    """The pod's grant as its own annotation says it."""
    return pod_grant(
        pod, pod.metadata.annotations.get(names.POD_DEVICES_ALLOCATED, ""), node, NVIDIA
    )


def test_slots_follow_the_order_of_containers():
    """Init containers first; a container without a share is left out."""
    pod = make_pod(
        "u",
        "GPU-a,NVIDIA,1,2:;GPU-b,NVIDIA,3,4:;;GPU-a,NVIDIA,5,6:GPU-b,NVIDIA,7,8:;",
        [make_container("plain", 0), make_container("app")],
        [make_container("init"), make_container("side", restart_policy="Always")],
    )
    grant = read(pod)
    assert [(c.name, c.role) for c in grant.containers] == [
        ("init", Role.INIT),
        ("side", Role.SIDECAR),
        ("app", Role.APP),
    ]
    assert grant.of("app").slices == (Slice("GPU-a", 5, 6), Slice("GPU-b", 7, 8))
    with pytest.raises(GrantError, match="'plain'"):
        grant.of("plain")


@pytest.mark.parametrize(("value", "priority"), [("0", 0), ("1", 1), ("7", 1), ("x", 1), (None, 1)])
def test_priority_is_the_containers_wish(value, priority):
    """0 is high; everything else is low."""
    limits = {} if value is None else {names.RESOURCE_PRIORITY: value}
    container = Container(name="c", resources=Resources(limits=limits))
    grant = read(make_pod("u", "GPU-a,NVIDIA,1,0:;", [container]))
    assert grant.of("c").priority == priority


def test_a_grant_for_another_node_is_refused():
    """Somebody moved the pod without a new grant."""
    pod = make_pod("u", "GPU-a,NVIDIA,1,0:;")
    pod.metadata.annotations[names.POD_NODE] = "n2"
    with pytest.raises(GrantError, match="its grant is for node n2"):
        read(pod)


def test_a_grant_survives_its_file():
    """It is kept as JSON across restarts of the plugin."""
    grant = read(make_pod("u", "GPU-a,NVIDIA,1,2:;"))
    assert msgspec.json.decode(msgspec.json.encode(grant), type=PodGrant) == grant
