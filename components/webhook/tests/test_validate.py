"""Behaviour of hami_webhook.validate: every fault of a pod at once, with its remedy."""

from dataclasses import replace

import pytest
from msgspec import Raw
from msgspec.json import encode

from hami_webhook.asked import Container, Metadata, Pod, PodSpec
from hami_webhook.rules import Rules
from hami_webhook.validate import validate
from hamikit import names
from hamikit.ascend import ascend_row
from hamikit.devices import NVIDIA, Template
from hamikit.objects import SecurityContext

GPU, MEM, PERCENT, CORES, PRIORITY = NVIDIA.resources
RULES = Rules()


def block(limits, requests=None):
    """A container's resources, as they come."""
    return Raw(encode({"limits": limits, "requests": requests}))


def pod(*limits, annotations=None, init=(), **spec):
    """A pod with one container for each limits."""
    containers = [Container(f"c{i}", block(each)) for i, each in enumerate(limits)]
    inits = [Container(f"i{i}", block(each)) for i, each in enumerate(init)]
    return Pod(
        metadata=Metadata(annotations=annotations or {}),
        spec=PodSpec(containers=containers, init_containers=inits, **spec),
    )


@pytest.mark.parametrize(
    "limits",
    [
        {GPU: "1"},
        {MEM: "3k"},
        {GPU: "2", MEM: "4096", CORES: "100"},
        {PERCENT: "100"},
        {GPU: "1", PRIORITY: "0"},
        {GPU: "0"},
        {GPU: "0", MEM: "0", PRIORITY: "0"},
        {GPU: "100"},
        {"cpu": "500m", "memory": "3Gi"},
        None,
    ],
)
def test_what_can_be_right_has_no_fault(limits):
    """A large count is the scheduler's to judge; other resources are not ours."""
    assert validate(pod(limits), RULES) == []


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({GPU: "1", MEM: "-1"}, "whole number from 0 to 999999"),
        ({GPU: "1", MEM: "3000M"}, "write 3000 (the unit is MiB already)"),
        ({GPU: "1", MEM: "3G"}, "write 3000 (the unit is MiB already)"),
        ({MEM: "1000000000000"}, "write a number up to 999999"),
        ({MEM: "1T"}, "write a number up to 999999"),
        ({PERCENT: "150"}, "whole number from 0 to 100"),
        ({GPU: "1", CORES: "101"}, "whole number from 0 to 100"),
        ({GPU: "500m"}, "write a whole number"),
        ({GPU: "-1"}, "whole devices"),
        ({GPU: "1", PRIORITY: "-1"}, "write 0 for high or 1 for low"),
        ({GPU: "1", PRIORITY: "2147483648"}, "write 0 for high or 1 for low"),
        ({GPU: "1", PRIORITY: "high"}, "write 0 for high or 1 for low"),
        ({PRIORITY: "1"}, f"{PRIORITY} given, but {GPU} is missing; ask for {GPU}: 1"),
        ({GPU: "0", MEM: "3000"}, f"{MEM} given, but {GPU} is 0; ask for {GPU}: 1"),
    ],
)
def test_one_fault(limits, says):
    """The text has the container's name, the rule and what to write instead."""
    [fault] = validate(pod(limits), RULES)
    assert fault.startswith("container 'c0': ")
    assert says in fault


def test_requests_alone_are_judged_too():
    """A user may have written only requests."""
    bad = Pod(spec=PodSpec([Container("c", block(None, {GPU: "1", MEM: "-1"}))]))
    assert len(validate(bad, RULES)) == 1


def test_without_a_default_count_shares_need_a_count():
    """Otherwise the pod would wait for a resource that no node has."""
    rules = Rules(families=(replace(NVIDIA, default_count=0),))
    [fault] = validate(pod({MEM: "3000", CORES: "30"}), rules)
    assert f"{CORES}, {MEM} given, but {GPU} is missing" in fault
    assert validate(pod({GPU: "1", MEM: "3000"}), rules) == []


def test_all_faults_at_once():
    """Of init containers, containers and annotations: one refusal, not five."""
    faults = validate(
        pod(
            {GPU: "1", MEM: "-1", CORES: "101"},
            {PERCENT: "150"},
            init=[{GPU: "x"}],
            annotations={names.POD_NODE_POLICY: "tight"},
        ),
        RULES,
    )
    assert len(faults) == 5
    assert faults[0].startswith("container 'i0'")


def test_a_pod_without_containers():
    """HAMi's own words."""
    assert validate(Pod(), RULES) == ["pod has no containers"]


@pytest.mark.parametrize(
    "annotations",
    [
        {names.POD_NODE_POLICY: "binpack"},
        {names.POD_NODE_POLICY: "spread"},
        {names.POD_GPU_POLICY: "spread"},
        {names.POD_GPU_POLICY: "numa, topology-aware,binpack"},
        {names.POD_GPU_POLICY: ""},
    ],
)
def test_known_policies(annotations):
    """One node policy; a list of GPU policies."""
    assert validate(pod({GPU: "1"}, annotations=annotations), RULES) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (names.POD_NODE_POLICY, "tight"),
        (names.POD_NODE_POLICY, "binpack,spread"),
        (names.POD_GPU_POLICY, "Binpack"),
        (names.POD_GPU_POLICY, "spread,fast"),
    ],
)
def test_unknown_policies(name, value):
    """HAMi takes them for another policy; we say which ones there are."""
    [fault] = validate(pod({GPU: "1"}, annotations={name: value}), RULES)
    assert f"annotation {name} is {value!r}" in fault
    assert "binpack, spread" in fault
    assert validate(pod({GPU: "0"}, annotations={name: value}), RULES) == []


def test_weights_that_mean_nothing():
    """HAMi finds out when it places the pod, which then waits for ever."""
    bad = {names.POD_SCORING_WEIGHTS: "slot=1,core=x,memory=1"}
    [fault] = validate(pod({GPU: "1"}, annotations=bad), RULES)
    assert names.POD_SCORING_WEIGHTS in fault
    assert "write slot=1" in fault
    good = {names.POD_SCORING_WEIGHTS: "slot=2,core=0,memory=1"}
    assert validate(pod({GPU: "1"}, annotations=good), RULES) == []


def test_a_privileged_container_beside_devices():
    """It would see every card, whichever container asked."""
    plain = Container("plain", security_context=SecurityContext(privileged=True))
    gpu = Container("gpu", block({GPU: "1"}))
    [fault] = validate(Pod(spec=PodSpec([gpu], init_containers=[plain])), RULES)
    assert fault.startswith("container plain is privileged")
    assert validate(Pod(spec=PodSpec([plain])), RULES) == []


def test_a_device_of_an_init_container_alone():
    """The pod's own faults count as much as with a device of an app container."""
    faults = validate(
        pod({}, init=[{GPU: "1"}], node_name="n1", annotations={names.POD_NODE_POLICY: "tight"}),
        RULES,
    )
    assert [fault.split()[0] for fault in faults] == ["pod", "annotation"]


def test_a_chosen_node():
    """Nobody would choose the cards; without a scheduler of ours that is not our affair."""
    [fault] = validate(pod({GPU: "1"}, node_name="n1"), RULES)
    assert fault.startswith("pod has node assigned")
    assert validate(pod({GPU: "1"}, node_name="n1"), Rules(scheduler_name="")) == []
    assert validate(pod({"cpu": "1"}, node_name="n1"), RULES) == []


@pytest.mark.parametrize("limits", [({GPU: "1"}, {GPU: "0"}), ({GPU: "0"}, {GPU: "1"})])
def test_one_device_makes_a_device_pod(limits):
    """Wherever its container stands; another may ask for none in so many words."""
    [fault] = validate(pod(*limits, node_name="n1"), RULES)
    assert fault.startswith("pod has node assigned")


@pytest.mark.parametrize("name", names.GRANT_ANNOTATIONS)
def test_grant_annotations_are_not_the_users(name):
    """A grant that nobody checked would be believed."""
    [fault] = validate(pod({GPU: "1"}, annotations={name: ""}), RULES)
    assert name in fault


def test_every_family_refuses_by_its_own_rules():
    """And all of it at once."""
    family = replace(
        ascend_row("Ascend910B2"),
        memory_allocatable_mib=65536,
        memory_capacity_mib=65536,
        templates=(Template("vir03_1c_8g", 8192, 3),),
    )
    rules = Rules(families=(NVIDIA, family))
    faults = validate(pod({GPU: "x", family.count: "1", family.memory: "65537"}), rules)
    assert ["nvidia.com/gpu" in faults[0], "huawei.com/Ascend910B2-memory" in faults[1]] == [
        True,
        True,
    ]
    soft = {family.mode: family.soft_mode}
    partial = pod({family.count: "2", family.memory: "5000"}, annotations=soft)
    assert validate(partial, rules) == []
    partial = pod({family.count: "2", family.memory: "5000"})
    assert len(validate(partial, rules)) == 1
