"""Behaviour of hamikit.shape: what a pod asks for, and what cannot be right in it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamikit.devices import NVIDIA
from hamikit.objects import Container, Metadata, Pod, PodSpec, Resources
from hamikit.selectors import Selectors, selectors_of
from hamikit.shape import (
    ContainerRequest,
    RequestError,
    Role,
    parse_container,
    shape_of,
)

GPU, MEM, PERCENT, CORES = (
    NVIDIA.count,
    NVIDIA.memory,
    NVIDIA.memory_percentage,
    NVIDIA.cores,
)


def parse(limits, requests=None, family=NVIDIA):
    """Parse one container's resources."""
    return parse_container("c", limits, requests or {}, family)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({GPU: "1", CORES: "100"}, ContainerRequest(1, 0, 100, 100)),
        ({GPU: "2", MEM: "4096"}, ContainerRequest(2, 4096, 0, 0)),
        ({GPU: "1", PERCENT: "0"}, ContainerRequest(1, 0, 100, 0)),
        ({GPU: "1", PERCENT: "50"}, ContainerRequest(1, 0, 50, 0)),
        ({GPU: "1", MEM: "3k", PERCENT: "50"}, ContainerRequest(1, 3000, 0, 0)),
        ({GPU: 1, MEM: 3000, CORES: 30}, ContainerRequest(1, 3000, 0, 30)),
        ({GPU: "0"}, None),
        ({MEM: "3000"}, None),
        ({}, None),
    ],
)
def test_vectors(limits, expected):
    """HAMi's published requests; a count of 0, or none, asks for nothing."""
    assert parse(limits) == expected


def test_limits_win_over_requests():
    """They are equal in an admitted pod; in another one the limit is what the user wants held."""
    assert parse({GPU: "1"}, {GPU: "2", MEM: "5"}) == ContainerRequest(1, 5, 0, 0)


def test_operator_defaults():
    """Default memory is not multiplied, asked memory is; default cores fill in."""
    family = replace(NVIDIA, default_memory_mib=500, default_cores=20, memory_factor=2)
    assert parse({GPU: "1"}, family=family) == ContainerRequest(1, 500, 0, 20)
    assert parse({GPU: "1", MEM: "300", CORES: "0"}, family=family) == ContainerRequest(
        1, 600, 0, 0
    )
    assert parse({GPU: "1", PERCENT: "50"}, family=family) == ContainerRequest(1, 0, 50, 20)
    assert parse({GPU: "1", MEM: "499999"}, family=family).memory_mib == 999998
    with pytest.raises(RequestError, match="write a number up to 499999"):
        parse({GPU: "1", MEM: "500000"}, family=family)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (MEM, "-1", "write a number up to 999999"),
        (MEM, "-5Gi", "write a number up to 999999"),
        (MEM, "3G", "write 3000 (the unit is MiB already)"),
        (MEM, "3000M", "write 3000 (the unit is MiB already)"),
        (MEM, "16Gi", "write 16384 (the unit is MiB already)"),
        (MEM, "1000000000000", "write a number up to 999999"),
        (MEM, "1T", "write a number up to 999999"),
        (MEM, "500m", "write a whole number"),
        (PERCENT, "150", "write a number up to 100"),
        (CORES, "101", "write a number up to 100"),
        (CORES, "-1", "write a number up to 100"),
        (GPU, "-1", "write a number up to 2147483647"),
        (GPU, "2147483648", "write a number up to 2147483647"),
        (GPU, "0.5", "write a whole number"),
        (MEM, "many", "write a whole number"),
    ],
)
def test_what_cannot_be_right_is_refused_with_a_remedy(name, value, says):
    """The text names container, resource, value, rule and what to write."""
    with pytest.raises(RequestError) as caught:
        parse({GPU: "1"} | {name: value})
    assert str(caught.value).startswith(f"container 'c': {name} is {value!r}, but it counts ")
    assert str(caught.value).endswith(says)


def test_all_faults_of_all_containers_at_once():
    """A user should not have to find them one by one."""
    pod = Pod(
        spec=PodSpec(
            init_containers=[Container("i", Resources({GPU: "1", CORES: "101", MEM: "-1"}))],
            containers=[Container("a", Resources({GPU: "x"}))],
        )
    )
    with pytest.raises(RequestError) as caught:
        shape_of(pod, NVIDIA)
    assert [(f.container, f.field) for f in caught.value.faults] == [
        ("i", MEM),
        ("i", CORES),
        ("a", GPU),
    ]


def test_slots_are_in_grant_order_with_their_roles():
    """Init containers first; a native sidecar is an init container that always restarts."""
    gpu = Resources({GPU: "1", CORES: "100"})
    pod = Pod(
        spec=PodSpec(
            init_containers=[Container("i", gpu), Container("s", restart_policy="Always")],
            containers=[Container("a", gpu), Container("b")],
        )
    )
    shape = shape_of(pod, NVIDIA)
    assert [(s.role, s.request is not None) for s in shape.slots] == [
        (Role.INIT, True),
        (Role.SIDECAR, False),
        (Role.APP, True),
        (Role.APP, False),
    ]
    assert not shape.empty
    assert shape_of(Pod(spec=PodSpec([Container("a")])), NVIDIA).empty


def test_equal_pods_have_equal_shapes_that_can_be_keys():
    """A table per shape needs them as keys."""
    pods = [
        Pod(metadata=Metadata(name=n), spec=PodSpec([Container("a", Resources({GPU: "1"}))]))
        for n in "xy"
    ]
    assert len({shape_of(pod, NVIDIA) for pod in pods}) == 1


def test_selectors():
    """Annotations as they are; numa-bind by Go's ParseBool."""
    annotations = {
        "nvidia.com/use-gputype": "A100",
        "nvidia.com/nouse-gpuuuid": "GPU-1",
        "nvidia.com/numa-bind": "T",
        "hami.io/node-scheduler-policy": "spread",
    }
    assert selectors_of(annotations, NVIDIA) == Selectors(
        use_type="A100", nouse_uuid="GPU-1", numa_bind=True, node_policy="spread"
    )
    assert not selectors_of({"nvidia.com/numa-bind": "yes"}, NVIDIA).numa_bind


def test_memory_on_a_card():
    """MiB are as asked, percent is of what the card registered, rounded down."""
    assert ContainerRequest(1, 3000, 0, 0).memory_on(8192) == 3000
    assert ContainerRequest(1, 0, 33, 0).memory_on(1000) == 330
    assert ContainerRequest(1, 0, 33, 0).memory_on(8192) == 2703


@given(
    st.dictionaries(
        st.sampled_from([GPU, MEM, PERCENT, CORES]),
        st.one_of(
            st.integers(-(2**70), 2**70).map(str),
            st.text(max_size=8),
            st.integers(-10, 10**6),
            st.from_regex(r"[0-9]{1,6}(Mi|Gi|M|G|m|e3)", fullmatch=True),
        ),
    )
)
def test_an_accepted_request_is_within_bounds(limits):
    """Whatever somebody writes: a fault, nothing, or figures that mean something."""
    try:
        request = parse(limits)
    except RequestError:
        return
    if request is not None:
        assert request.count >= 1
        assert 0 <= request.memory_mib <= 999_999
        assert 0 <= request.cores <= 100
        assert (request.memory_mib > 0) != (1 <= request.memory_percent <= 100)
