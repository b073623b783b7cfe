"""Behaviour of hami_webhook.quota: only what alone exceeds a limit is refused."""

from dataclasses import replace

import pytest
from msgspec import Raw
from msgspec.json import encode

from hami_webhook.asked import Container, Pod, PodSpec
from hami_webhook.quota import excesses
from hami_webhook.rules import Rules
from hamikit.devices import NVIDIA
from hamikit.informer import Change
from hamikit.objects import Metadata
from hamikit.quotas import Quotas, QuotaSpec, ResourceQuota, limits_of

GPU, MEM, PERCENT, CORES, _ = NVIDIA.resources
RULES = Rules()


def quota(name="team", *, namespace="ns", spec=None, **hard):
    """A ResourceQuota on memory and cores."""
    keys = {"memory": f"limits.{MEM}", "cores": f"limits.{CORES}"}
    limits = {keys[key]: value for key, value in hard.items()}
    metadata = Metadata(name=name, namespace=namespace, uid=f"uid-{name}")
    return ResourceQuota(metadata, spec or QuotaSpec(limits))


def held(*quotas):
    """The ledger after the informer's first list."""
    found = Quotas()
    for each in quotas:
        found.on_change(Change(None, each))
    return found


def block(limits, requests=None):
    """A container's resources, as they come."""
    return Raw(encode({"limits": limits, "requests": requests}))


def pod(*limits, init=(), sidecar=()):
    """A pod by the limits of its containers."""
    containers = [Container("c", block(each)) for each in limits]
    inits = [Container("i", block(each)) for each in init]
    sidecars = [Container("s", block(each), restart_policy="Always") for each in sidecar]
    return Pod(spec=PodSpec(containers=containers, init_containers=[*sidecars, *inits]))


def said(asked, *quotas, rules=RULES):
    """The refusals of a pod in a namespace with these quotas."""
    return list(excesses(asked, rules, held(*quotas).of("ns")))


def test_a_refusal_has_the_quota_the_limit_and_what_was_asked():
    """And says what to do."""
    [fault] = said(pod({GPU: "2", MEM: "3000"}), quota(memory="4000"))
    assert fault == (
        "exceeding resource quota: team allows limits.nvidia.com/gpumem: 4000 in the whole "
        "namespace, and this pod alone asks for 6000; ask for less, or have the quota raised"
    )


@pytest.mark.parametrize(
    ("asked", "memory", "cores"),
    [
        (pod({GPU: "2", MEM: "2000"}), "4000", "200"),
        # Apps add up; init containers come one after the other, before them.
        (pod({MEM: "2000"}, {MEM: "2000"}), "4000", None),
        (pod({MEM: "1000"}, init=[{MEM: "4000"}, {MEM: "3000"}]), "4000", None),
        (pod({CORES: "30"}, {CORES: "30"}), None, "60"),
        # A whole card has no size yet, but all of its cores.
        (pod({GPU: "1"}), "1", "100"),
        (pod({PERCENT: "50"}), "1", None),
        (pod({"cpu": "1"}), "0", "0"),
    ],
)
def test_what_fits_alone_is_let_through(asked, memory, cores):
    """Exactly at the limit; what others use is the extender's to count."""
    hard = {"memory": memory, "cores": cores}
    assert said(asked, quota(**{k: v for k, v in hard.items() if v is not None})) == []


@pytest.mark.parametrize(
    ("asked", "memory", "cores"),
    [
        (pod({MEM: "2000"}, {MEM: "2001"}), "4000", None),
        (pod({MEM: "1"}, init=[{MEM: "4001"}]), "4000", None),
        (pod({MEM: "4000"}, sidecar=[{MEM: "4000"}]), "7999", None),
        (pod({GPU: "1"}), None, "99"),
        (pod({MEM: "1"}), "0", None),
    ],
)
def test_what_can_never_fit_is_refused(asked, memory, cores):
    """A sidecar runs beside the others, so it adds up."""
    hard = {"memory": memory, "cores": cores}
    assert len(said(asked, quota(**{k: v for k, v in hard.items() if v is not None}))) == 1


def test_every_quota_of_the_namespace_must_hold():
    """And no other namespace's."""
    asked = pod({GPU: "1", MEM: "3000"})
    assert said(asked, quota("wide", memory="9000"), quota("tight", memory="1000")) != []
    assert said(asked, quota(namespace="other", memory="1000")) == []


def test_the_limit_is_in_the_users_unit():
    """With a memory factor a quota counts as the manifests do."""
    rules = Rules(families=(replace(NVIDIA, memory_factor=256),))
    assert said(pod({MEM: "4"}), quota(memory="4"), rules=rules) == []
    [fault] = said(pod({MEM: "5"}), quota(memory="4"), rules=rules)
    assert "alone asks for 5;" in fault


def test_limits_that_say_nothing_here():
    """Other resources, fractions, and quotas that are about some pods only."""
    assert (
        limits_of(quota(spec=QuotaSpec({f"requests.{GPU}": "1", f"limits.{MEM}": "1500m"}))) == {}
    )
    scoped = QuotaSpec({f"limits.{MEM}": "1"}, scopes=["NotTerminating"])
    assert limits_of(quota(spec=scoped)) == {}
    selected = QuotaSpec({f"limits.{MEM}": "1"}, scope_selector={"matchExpressions": []})
    assert limits_of(quota(spec=selected)) == {}
    assert limits_of(quota(memory="4k")) == {MEM: 4000}


def test_changes_and_deletions_are_followed():
    """A quota that is gone refuses nobody, and takes no memory."""
    first, later = quota(memory="1"), quota(memory="5")
    quotas = held(first)
    assert [dict(each.limits) for each in quotas.of("ns")] == [{MEM: 1}]
    quotas.on_change(Change(first, later))
    assert [dict(each.limits) for each in quotas.of("ns")] == [{MEM: 5}]
    quotas.on_change(Change(later, None))
    assert quotas.of("ns") == ()
    assert quotas._held == {}


def test_a_request_that_cannot_be_read_is_refused_elsewhere():
    """Here it counts nothing."""
    assert said(pod({GPU: "x", MEM: "9"}), quota(memory="1")) == []
