"""The cluster that `make up` brings, as fixtures."""

import json
import os
import re
import uuid

import pytest

from e2e import cards as fake_cards
from e2e import pods
from e2e.calm import wait_calm
from e2e.evidence import evidence
from e2e.kube import wait_until
from e2e.lab import config as lab_config
from e2e.product import connect

REGISTER = "hami.io/node-nvidia-register"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """A failed test's report says what the cluster said, before the fixtures tidy up."""
    report = yield
    used = getattr(item, "funcargs", {})
    if report.failed and "kube" in item.fixturenames:
        text = evidence(used.get("kube") or connect(), used.get("namespace"))
        # First of all sections, as what the reader sees may be cut.
        report.sections.insert(0, ("The cluster", text))
    return report


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """Last, so that it is seen whatever is cut: of each failed test the error alone."""
    for outcome in ("rerun", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            text = getattr(getattr(report.longrepr, "reprcrash", None), "message", "")
            terminalreporter.line(f"{outcome} {report.nodeid} ({report.when}): {text[:900]}")


@pytest.fixture(scope="session")
def kube():
    """The cluster, through pytest-kind: found when it is up, created when it is not."""
    from pytest_kind import KindCluster  # noqa: PLC0415 - only cluster tests pay for it

    lab = lab_config.load()
    found = connect()
    os.environ.update(found.environment)
    cluster = KindCluster(
        lab.cluster,
        lab.kubeconfig,
        kind_path=lab.bin / "kind",
        kubectl_path=lab.bin / "kubectl",
    )
    cluster.create()
    return found


@pytest.fixture
def namespace(kube, request):
    """A namespace of the test's own on a calm cluster; its pods are gone before the next begins."""
    wait_calm(kube)
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")
    name = f"{words}-{uuid.uuid4().hex[:6]}"
    kube.kubectl("create", "namespace", name)
    wait_until(lambda: service_account(kube, name), 120)
    yield name
    # Deployments first, and what they own, so that nothing makes new pods while the old ones go.
    kube.kubectl("delete", "deployment", "--all", "-n", name, "--cascade=foreground")
    kube.kubectl("delete", "pod", "--all", "-n", name, "--now", "--timeout=120s")
    kube.kubectl("delete", "namespace", name, "--wait=false")


def service_account(kube, namespace):
    """Pods are refused until their namespace has its service account."""
    found = kube.kubectl("get", "sa", "-n", namespace, "default", "-o", "name", check=False)
    return None if found else "the default service account"


@pytest.fixture
def cards(kube):
    """Node name -> the cards it announces."""
    found = {}
    for node in kube.get("nodes")["items"]:
        text = node["metadata"].get("annotations", {}).get(REGISTER, "[]")
        found[node["metadata"]["name"]] = json.loads(text)
    return found


@pytest.fixture
def audit(kube):
    """Runs e2e/audit, which imports nothing of ours, and returns the violations it finds."""
    return lambda: fake_cards.audit(kube)


@pytest.fixture
def without_grant_policy(kube):
    """The cluster without the policy that guards grants; put back afterwards."""
    kind = "validatingadmissionpolicybinding"
    binding = kube.get(kind, "hami-grants")
    kube.kubectl("delete", kind, "hami-grants")
    # The API server hears of it by a watch of its own.
    wait_until(lambda: None if forged(kube) else "the end of the policy that guards grants", 60)
    for key in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        binding["metadata"].pop(key, None)
    yield
    kube.apply(binding)
    wait_until(lambda: "the policy that guards grants" if forged(kube) else None, 60)


def forged(kube):
    """Whether the API server would take a pod with a grant that nobody gave it."""
    pod = pods.pod("forged", "default", pods.container("c", {}), annotations={pods.GRANT: "x"})
    command = ("create", "--dry-run=server", "-o", "name", "-f", "-")
    return kube.kubectl(*command, stdin=json.dumps(pod), check=False) != ""
