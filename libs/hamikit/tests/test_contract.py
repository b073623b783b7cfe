"""docs/contract.md and hamikit.names say the same."""

import re
from pathlib import Path

import pytest

from hamikit import names

CONTRACT = Path(__file__).parents[3] / "docs" / "contract.md"
STRINGS = {
    key: value
    for key, value in vars(names).items()
    if key.isupper() and isinstance(value, str) and ("/" in value or key.startswith("ENV_"))
}


@pytest.mark.parametrize("key", STRINGS)
def test_every_name_that_crosses_a_process_is_in_the_contract(key):
    """A name that is not documented is not part of the API, and must not be used."""
    assert STRINGS[key] in CONTRACT.read_text(encoding="utf-8")


def test_every_port_is_in_the_contract():
    """Ports are API too."""
    text = CONTRACT.read_text(encoding="utf-8")
    ports = [value for key, value in vars(names).items() if key.startswith("PORT_")]
    assert [port for port in ports if f"| {port} |" not in text] == []


def test_every_metric_is_in_the_contract():
    """Dashboards depend on them; counters end in _total on the wire."""
    text = CONTRACT.read_text(encoding="utf-8")
    sources = (CONTRACT.parents[1] / "components").glob("*/src/hami_*/**/*.py")
    found = {
        name
        for source in sources
        for name in re.findall(r'"(hami_[a-z_]+)"', source.read_text(encoding="utf-8"))
    }
    packages = {path.name for path in (CONTRACT.parents[1] / "components").glob("*/src/hami_*")}
    assert sorted(name for name in found - packages if f"`{name}" not in text) == []


# What HAMi v2.10 calls things; a change here breaks its users' manifests and dashboards.
GOLDEN = {
    "RESOURCE_COUNT": "nvidia.com/gpu",
    "RESOURCE_MEMORY": "nvidia.com/gpumem",
    "RESOURCE_MEMORY_PERCENTAGE": "nvidia.com/gpumem-percentage",
    "RESOURCE_CORES": "nvidia.com/gpucores",
    "RESOURCE_PRIORITY": "nvidia.com/priority",
    "NODE_REGISTER": "hami.io/node-nvidia-register",
    "NODE_LOCK": "hami.io/mutex.lock",
    "NODE_CORDON": "hami.io/device-cordon",
    "POD_NODE": "hami.io/vgpu-node",
    "POD_TIME": "hami.io/vgpu-time",
    "POD_DEVICES_TO_ALLOCATE": "hami.io/vgpu-devices-to-allocate",
    "POD_DEVICES_ALLOCATED": "hami.io/vgpu-devices-allocated",
    "POD_BIND_PHASE": "hami.io/bind-phase",
    "POD_BIND_TIME": "hami.io/bind-time",
    "POD_MIG_ALLOCATIONS": "hami.io/vgpu-mig-allocations",
    "POD_NODE_POLICY": "hami.io/node-scheduler-policy",
    "POD_GPU_POLICY": "hami.io/gpu-scheduler-policy",
    "ENV_MEMORY_LIMIT": "CUDA_DEVICE_MEMORY_LIMIT",
    "ENV_SM_LIMIT": "CUDA_DEVICE_SM_LIMIT",
    "ENV_SHARED_CACHE": "CUDA_DEVICE_MEMORY_SHARED_CACHE",
    "ENV_TASK_PRIORITY": "CUDA_TASK_PRIORITY",
    "ENV_CORE_POLICY": "GPU_CORE_UTILIZATION_POLICY",
    "PORT_MONITOR_METRICS": 9394,
    "PORT_EXTENDER_METRICS": 9395,
}


@pytest.mark.parametrize("key", GOLDEN)
def test_names_shared_with_hami_are_hamis(key):
    """Spelled as in HAMi v2.10."""
    assert getattr(names, key) == GOLDEN[key]
