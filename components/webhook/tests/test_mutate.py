"""Behaviour of hami_webhook.mutate: the completed pod."""

import copy
import json
from dataclasses import replace

import jsonpatch
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hami_webhook import asked as narrow
from hami_webhook.mutate import mutate as patch_of
from hami_webhook.rules import Rules
from hami_webhook.validate import validate
from hamikit.ascend import ascend_row
from hamikit.devices import NVIDIA, Template
from hamikit.objects import Pod, Resources
from hamikit.quantity import parse_integer
from hamikit.shape import ContainerRequest, shape_of

GPU, MEM, PERCENT, CORES, PRIORITY = NVIDIA.resources
RULES = Rules()
STRICT = Rules(
    families=(replace(NVIDIA, overwrite_env=True, core_policy="force", runtime_class="nvidia"),)
)


def asked(value):
    """What admission reads of a pod."""
    return msgspec.json.decode(json.dumps(value), type=narrow.Pod)


def mutate(value, rules):
    """The completed pod, as the API server makes it from our patch."""
    patch = patch_of(asked(value), rules)
    return jsonpatch.apply_patch(json.loads(json.dumps(value)), patch)


def container(limits=None, env=None, **more):
    """A container with resources and variables, and a field that nobody here knows."""
    resources = {"limits": limits} if limits is not None else {}
    return {"name": "c", "future": [1.50], "resources": resources, "env": env, **more}


def pod(*containers, **spec):
    """A pod with a field that nobody here knows."""
    return {
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"app": "x"}},
        "spec": {"containers": list(containers), "schedulerName": "default-scheduler", **spec},
        "newField": {"a": None},
    }


def env_of(mutated, index=0):
    """A container's variables as a list of pairs, so that duplicates show."""
    return [
        (entry["name"], entry.get("value")) for entry in mutated["spec"]["containers"][index]["env"]
    ]


def test_a_device_pod_is_labelled_and_sent_to_our_scheduler():
    """And the count of its container is filled in; nothing else changes."""
    before = pod(container({MEM: "3000"}))
    kept = copy.deepcopy(before)
    after = mutate(before, RULES)
    assert before == kept
    expected = copy.deepcopy(before)
    expected["metadata"]["labels"]["hami.io/device-pod"] = "true"
    expected["spec"]["schedulerName"] = "hami-scheduler"
    expected["spec"]["containers"][0]["resources"]["limits"][GPU] = "1"
    assert after == expected


def test_what_stands_beside_the_limits_stays():
    """Requests and claims are the user's; only limits are completed."""
    beside = {"requests": {"cpu": "1"}, "claims": [{"name": "net"}]}
    before = pod({"name": "c", "resources": {"limits": {MEM: "3000"}, **beside}})
    resources = mutate(before, RULES)["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {MEM: "3000", GPU: "1"}, **beside}


def test_a_priority_is_written_as_a_plain_number():
    """The limiter reads digits, whatever suffix the manifest has."""
    after = mutate(pod(container({GPU: "1", PRIORITY: "1000m"})), RULES)
    assert env_of(after) == [("CUDA_TASK_PRIORITY", "1")]


def test_a_label_of_another_value_is_overwritten():
    """Our informers select by it, so a user cannot hide a pod."""
    before = pod(container({GPU: "1"}))
    before["metadata"]["labels"] = {"hami.io/device-pod": "false"}
    assert mutate(before, RULES)["metadata"]["labels"] == {"hami.io/device-pod": "true"}
    before["metadata"] = {"name": "p"}
    assert mutate(before, RULES)["metadata"]["labels"] == {"hami.io/device-pod": "true"}


@pytest.mark.parametrize("limits", [None, {}, {"cpu": "1"}, {GPU: "0"}, {GPU: "0", MEM: "0"}])
def test_a_pod_that_asks_for_nothing_is_left_alone(limits):
    """Count 0 included; a label that it carries stays, it is not ours to judge."""
    before = pod(container(limits, env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]))
    before["metadata"]["labels"]["hami.io/device-pod"] = "true"
    assert mutate(before, RULES) == before


def test_init_containers_and_sidecars_are_completed_too():
    """An init container alone makes a device pod."""
    before = pod(container(), initContainers=[container({GPU: "1"}, restartPolicy="Always")])
    after = mutate(before, RULES)
    assert after["spec"]["initContainers"][0]["resources"]["limits"] == {GPU: "1", CORES: "100"}
    assert after["spec"]["schedulerName"] == "hami-scheduler"
    assert after["spec"]["containers"] == before["spec"]["containers"]


def test_every_container_is_completed():
    """Not only the first one that asks."""
    after = mutate(pod(container({MEM: "1"}), container({MEM: "2"})), RULES)
    assert [c["resources"]["limits"][GPU] for c in after["spec"]["containers"]] == ["1", "1"]


def test_priority_becomes_a_variable_once():
    """In the place of one that was there, however it was given, and never twice."""
    env = [
        {"name": "A", "value": "1"},
        {"name": "CUDA_TASK_PRIORITY", "valueFrom": {"fieldRef": {}}},
        {"name": "B", "value": "2"},
        {"name": "CUDA_TASK_PRIORITY", "value": "7"},
    ]
    after = mutate(pod(container({GPU: "1", PRIORITY: "0"}, env)), RULES)
    assert env_of(after) == [("A", "1"), ("CUDA_TASK_PRIORITY", "0"), ("B", "2")]
    after = mutate(pod(container({GPU: "1", PRIORITY: "1"})), RULES)
    assert env_of(after) == [("CUDA_TASK_PRIORITY", "1")]


def test_visible_devices_are_not_the_pods_to_choose():
    """It beats the plugin's and could name every card; beside a device it becomes `none`."""
    env = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}, {"name": "A", "value": "1"}] * 2
    after = mutate(pod(container({GPU: "1"}, env), container(None, env)), RULES)
    assert env_of(after) == [("A", "1"), ("A", "1")]
    assert env_of(after, 1) == [("NVIDIA_VISIBLE_DEVICES", "none"), ("A", "1"), ("A", "1")]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"value": "void"}, True),
        ({"value": "none"}, True),
        ({"valueFrom": {"fieldRef": {}}}, False),
    ],
)
def test_who_hides_the_cards_may_say_so_itself(value, kept):
    """A container without a device that wants to see none is left alone; a reference is not."""
    env = [{"name": "NVIDIA_VISIBLE_DEVICES", **value}]
    after = mutate(pod(container({GPU: "1"}), container(None, env)), RULES)
    expected = env if kept else [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "none"}]
    assert after["spec"]["containers"][1]["env"] == expected


def test_what_an_operator_configured():
    """Core policy on device containers only, no card for the others, the runtime class once."""
    env = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]
    after = mutate(pod(container({GPU: "1"}, env), container(None, env)), STRICT)
    assert env_of(after, 0) == [("GPU_CORE_UTILIZATION_POLICY", "force")]
    assert env_of(after, 1) == [("NVIDIA_VISIBLE_DEVICES", "none")]
    assert after["spec"]["runtimeClassName"] == "nvidia"
    chosen = mutate(pod(container({GPU: "1"}), runtimeClassName="own"), STRICT)
    assert chosen["spec"]["runtimeClassName"] == "own"
    plain = mutate(pod(container()), STRICT)
    assert env_of(plain) == [("NVIDIA_VISIBLE_DEVICES", "none")]
    assert "runtimeClassName" not in plain["spec"]
    assert "hami.io/device-pod" not in plain["metadata"]["labels"]


def test_without_a_scheduler_of_ours_the_name_stays():
    """An operator may have put the extender beside the cluster's own scheduler."""
    after = mutate(pod(container({GPU: "1"})), Rules(scheduler_name=""))
    assert after["spec"]["schedulerName"] == "default-scheduler"
    assert after["metadata"]["labels"]["hami.io/device-pod"] == "true"


ASCEND = replace(
    ascend_row("Ascend910C", super_pod=True),
    memory_allocatable_mib=65536,
    memory_capacity_mib=65536,
    templates=(Template("a", 16384, 5),),
    runtime_class="ascend",
    overwrite_env=True,
)
BOTH = Rules(families=(NVIDIA, ASCEND))


def test_a_chip_is_given_out_in_its_own_sizes():
    """In limits and requests alike, which have to be equal; the family's runtime class is set."""
    limits = {ASCEND.count: "1", ASCEND.memory: "65536"}
    before = pod({"name": "c", "resources": {"limits": limits, "requests": dict(limits)}})
    after = mutate(before, BOTH)
    [found] = after["spec"]["containers"]
    expected = {ASCEND.count: "2", ASCEND.memory: "65536"}
    assert found["resources"] == {"limits": expected, "requests": expected}
    assert after["spec"]["runtimeClassName"] == "ascend"
    assert after["spec"]["schedulerName"] == "hami-scheduler"
    assert patch_of(asked(after), BOTH) == []


def test_who_asks_for_no_chip_sees_none():
    """Each family hides its own devices, by its own variable."""
    after = mutate(pod(container({GPU: "1"}), container()), BOTH)
    for index in (0, 1):
        assert env_of(after, index) == [("ASCEND_VISIBLE_DEVICES", "")]
    chip = mutate(pod(container({ASCEND.count: "2"}, env=[])), BOTH)
    assert chip["spec"]["containers"][0]["env"] == []


names_ = st.sampled_from([*NVIDIA.resources, "cpu"])
values = st.one_of(
    st.integers(0, 101).map(str), st.sampled_from(["1k", "x", "0"]), st.integers(0, 9)
)


def test_a_variable_is_found_however_its_name_is_written():
    """JSON lets every letter be an escape."""
    env = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]
    text = json.dumps(pod(container({GPU: "1"}, env)))
    sly = text.replace("NVIDIA", "\\u004eVIDIA")
    found = patch_of(msgspec.json.decode(sly, type=narrow.Pod), RULES)
    assert sly != text
    assert {"op": "remove", "path": "/spec/containers/0/env/0"} in found


env_names = st.sampled_from(
    ["NVIDIA_VISIBLE_DEVICES", "CUDA_TASK_PRIORITY", "GPU_CORE_UTILIZATION_POLICY", "A"]
)
envs = st.one_of(
    st.none(), st.lists(st.fixed_dictionaries({"name": env_names, "value": st.text(max_size=2)}))
)
resources = st.fixed_dictionaries(
    {}, optional={k: st.dictionaries(names_, values, max_size=3) for k in ("limits", "requests")}
)
containers = st.fixed_dictionaries(
    {"name": st.sampled_from("abc"), "unknown": st.integers()},
    optional={
        "resources": st.one_of(st.none(), resources),
        "env": envs,
        "restartPolicy": st.just("Always"),
    },
)
pods = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {}, optional={"labels": st.dictionaries(st.just("hami.io/device-pod"), st.text())}
        ),
        "spec": st.fixed_dictionaries(
            {"containers": st.lists(containers, min_size=1, max_size=3)},
            optional={
                "initContainers": st.lists(containers, max_size=2),
                "schedulerName": st.just("default-scheduler"),
                "other": st.integers(),
            },
        ),
    }
)


@given(pods, st.sampled_from([RULES, STRICT]))
def test_completing_twice_changes_nothing_more(before, rules):
    """The API server may call us again after other webhooks."""
    assume(not validate(asked(before), rules))
    once = mutate(before, rules)
    assert patch_of(asked(once), rules) == []
    assert not validate(asked(once), rules)


def intended(named, family):
    """What a container's author meant: HAMi's rules for the webhook and then the scheduler."""
    read = {name: parse_integer(value) for name, value in named.items()}
    count = read.get(GPU)
    if count is None and {MEM, PERCENT, CORES} & read.keys():
        count = family.default_count
    if not count:
        return None
    whole = read[PERCENT] == 100 if PERCENT in read else MEM not in read
    cores = read.get(CORES, 100 if whole else family.default_cores)
    memory = read.get(MEM, 0) * family.memory_factor
    if not memory and not read.get(PERCENT):
        memory = family.default_memory_mib
    return ContainerRequest(count, memory, 0 if memory else read.get(PERCENT) or 100, cores)


FAMILIES = [
    NVIDIA,
    replace(NVIDIA, default_count=2, default_memory_mib=512, default_cores=7, memory_factor=3),
]


@given(pods, st.sampled_from(FAMILIES))
def test_the_scheduler_reads_what_the_author_meant(before, family):
    """The extender's own parser on the completed pod, beside a plain reading of the original."""
    rules = Rules(families=(family,))
    assume(not validate(asked(before), rules))
    shape = shape_of(msgspec.convert(mutate(before, rules), Pod), family)
    expected = []
    for each in msgspec.convert(before, Pod).all_containers:
        found = each.resources or Resources()
        both = {**(found.requests or {}), **(found.limits or {})}
        named = {name: both[name] for name in family.resources if name in both}
        expected.append(intended(named, family))
    assert [slot.request for slot in shape.slots] == expected


@given(pods, st.sampled_from([RULES, STRICT]))
def test_all_that_is_not_ours_survives(before, rules):
    """Only limits, three variables, one label, scheduler and runtime class may differ."""
    assume(not validate(asked(before), rules))
    after = mutate(before, rules)
    assert json.dumps(stripped(after)) == json.dumps(stripped(before))


def stripped(value):
    """A pod without what we may change."""
    value = copy.deepcopy(value)
    value["metadata"].pop("labels", None)
    for name in ("schedulerName", "runtimeClassName"):
        value["spec"].pop(name, None)
    for each in [*value["spec"].get("initContainers", []), *value["spec"]["containers"]]:
        (each.get("resources") or {}).pop("limits", None)
        if not each.get("resources"):
            each.pop("resources", None)
        env = [entry for entry in each.pop("env", None) or [] if entry["name"] == "A"]
        each["others"] = env
    return value


@given(pods, st.sampled_from([RULES, STRICT]))
def test_no_variable_of_ours_stands_twice(before, rules):
    """Kubernetes would take the last one, readers of the manifest the first."""
    assume(not validate(asked(before), rules))
    after = mutate(before, rules)
    ours = ("NVIDIA_VISIBLE_DEVICES", "CUDA_TASK_PRIORITY", "GPU_CORE_UTILIZATION_POLICY")
    for old, new in zip(before["spec"]["containers"], after["spec"]["containers"], strict=True):
        for name in ours:
            had = [entry for entry in old.get("env") or [] if entry["name"] == name]
            has = [entry for entry in new.get("env") or [] if entry["name"] == name]
            assert len(has) <= 1 or has == had
