"""A new Kubernetes version is pinned with all its staging modules."""

import importlib.util

from e2e.lab.config import CHECKOUT

UPSTREAM = """\
module k8s.io/kubernetes

go 1.24.0

replace (
	k8s.io/api => ./staging/src/k8s.io/api
	k8s.io/client-go => ./staging/src/k8s.io/client-go
)
"""


def test_gomod():
    """Each staging module is replaced by its own version, v0 for Kubernetes' v1."""
    path = CHECKOUT / "e2e" / "node-image" / "pin.py"
    spec = importlib.util.spec_from_file_location("pin", path)
    pin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pin)
    found = pin.gomod(UPSTREAM, "1.34.4")
    assert "require k8s.io/kubernetes v1.34.4\n" in found
    assert "\tk8s.io/api => k8s.io/api v0.34.4\n" in found
    assert "\tk8s.io/client-go => k8s.io/client-go v0.34.4\n" in found
    assert "go 1.24.0\n" in found
