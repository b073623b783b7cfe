"""Accounts of both limiters, and grants by annotation."""

import pytest

from hami_monitor import accounts as module
from hami_monitor.accounts import own_account
from hami_monitor.attribution import NO_SIGHT
from hami_monitor.container_metrics import ContainerCollector
from hami_monitor.containers import Unreadable, read_containers
from hamikit.codec import GrantedDevice
from hamikit.names import POD_DEVICES_ALLOCATED
from hamikit.region import Control, ControlDevice, OverheadPolicy, read_usage

MIB = 1 << 20
GRANT = {POD_DEVICES_ALLOCATED: ";GPU-a,NVIDIA,3000,30:;"}


def accounts(root, *pods):
    """All accounts, and the counts of what could not be read."""
    unreadable = Unreadable()
    readings = read_containers(root, pods, unreadable)
    return [reading.account for reading in readings], unreadable.counts()


@pytest.mark.parametrize(
    ("policy", "used"), [(OverheadPolicy.REPORT, 16), (OverheadPolicy.STRICT, 318)]
)
def test_contexts_are_used_memory_where_they_count(granted, policy, used):
    """As the policy of the node says, which stands in the control file."""
    usage = granted("uid-a_main", ("GPU-a", 1000, 0))
    usage.used(0, 16 * MIB)
    usage.process(0, buffer=16 * MIB, context=300 * MIB, module=2 * MIB)
    control = Control((ControlDevice("GPU-a", 1000 * MIB),), overhead_policy=policy)
    (device,) = own_account(control, read_usage(usage.path)).devices
    assert device.used_bytes == used * MIB
    assert (device.context_bytes, device.module_bytes) == (300 * MIB, 2 * MIB)


@pytest.mark.parametrize("version", [0, 1])
def test_hamis_region_is_an_account_like_ours(root, make_pod, hami_region, version):
    """Sums over its processes; the limits are the annotation's."""
    hami_region("uid-a_main", version=version, limit_mib=9999, total_mib=320, context_mib=300)
    pod = make_pod("uid-a", "main", init=("prepare",), annotations=GRANT)
    ((account,), counts) = accounts(root, pod)
    (device,) = account.devices
    assert (device.index, device.uuid, device.limit_bytes) == (0, "GPU-a", 3000 * MIB)
    assert (device.core_percent, device.used_bytes) == (30, 320 * MIB)
    assert (device.context_bytes, device.buffer_bytes) == (300 * MIB, 20 * MIB)
    assert account.last_activity_s == (None if version == 0 else 1_700_000_000)
    assert (account.unlimited, counts) == (None, {})


def test_devices_that_were_not_granted_are_left_out(root, make_pod, hami_region):
    """A tenant could name as many as it likes, and each would be a new label."""
    hami_region("uid-a_main", uuid="GPU-invented")
    pod = make_pod("uid-a", "main", init=("prepare",), annotations=GRANT)
    assert accounts(root, pod)[0][0].devices == ()


def test_files_like_ours_in_a_folder_of_hamis_count_for_nothing(
    root, make_pod, hami_region, granted
):
    """HAMi lets its containers write there."""
    granted("uid-a_main", ("GPU-invented", 1, 0))
    hami_region("uid-a_main")
    pod = make_pod("uid-a", "main", init=("prepare",), annotations=GRANT)
    assert accounts(root, pod)[0][0].devices[0].uuid == "GPU-a"


def test_the_region_written_last_counts_among_many(root, make_pod, hami_region):
    """HAMi's monitor loses a container with three of them; links and the library are none."""
    for age, name in enumerate(("c.cache", "b.cache", "a.cache")):
        hami_region("uid-a_main", name=name, total_mib=10 * age, mtime=1_000_000 - age)
    folder = root / "uid-a_main"
    (folder / "libvgpu.so.cache").write_bytes(b"")
    pod = make_pod("uid-a", "main", init=("prepare",), annotations=GRANT)
    assert accounts(root, pod)[0][0].devices[0].used_bytes == 0


def test_an_odd_region_is_counted_under_one_word(root, make_pod, hami_region):
    """Its name is the tenant's choice and must not become a label."""
    hami_region("uid-a_main", name="invented.cache").write_bytes(b"short")
    (root / "uid-a_main" / "invented.cache").touch()
    pod = make_pod("uid-a", "main", annotations=GRANT)
    assert accounts(root, pod) == ([], {("region", "content"): 1})


def test_a_folder_of_hamis_without_a_region_is_silent(root, make_pod):
    """Before the first process of the container."""
    (root / "uid-a_main").mkdir()
    (root / "uid-a_main").chmod(0o777)
    assert accounts(root, make_pod("uid-a", "main")) == ([], {})


def test_a_static_pods_folder_is_found_by_its_hash(root, make_pod, granted):
    """Kubelet knows the hash, the API server the mirror's UID."""
    granted("hash_main", ("GPU-a", 10, 0))
    pod = make_pod("uid-a", "main", annotations={"kubernetes.io/config.mirror": "hash"})
    assert len(accounts(root, pod)[0]) == 1


@pytest.mark.parametrize("text", ["", "nonsense,", "GPU-a,NVIDIA,x,y:;"])
def test_an_annotation_that_cannot_be_read_grants_nothing(make_pod, text):
    """What was granted is then unknown, not zero."""
    assert (
        module.granted(make_pod("uid-a", "main", annotations={POD_DEVICES_ALLOCATED: text}), "main")
        == ()
    )


def test_grants_go_by_the_containers_order(make_pod):
    """Init containers first."""
    pod = make_pod("uid-a", "main", "side", init=("prepare",), annotations=GRANT)
    assert module.granted(pod, "main") == (GrantedDevice("GPU-a", "NVIDIA", 3000, 30),)
    assert (
        module.granted(pod, "prepare")
        == module.granted(pod, "side")
        == module.granted(pod, "absent")
        == ()
    )


def test_mig_instances_are_shown_by_the_annotation(make_pod, tmp_path):
    """Those that exist; an unreadable record shows nothing and harms nobody."""
    place = '"placement":{"start":0,"size":1}'
    one = '{"containerIndex":%d,"deviceIndex":0,"gpuUUID":"GPU-a","profile":"1g.5gb",' + place
    made = one % 1 + ',"migUUID":"MIG-1","gpuInstanceID":0,"computeInstanceID":2}'
    reserved, beyond = one % 0 + "}", made.replace(":1,", ":9,", 1)
    pods = [
        make_pod(
            "uid-a", "main", init=("first",), annotations={"hami.io/vgpu-mig-allocations": text}
        )
        for text in (f"[{reserved},{made},{beyond}]", "[{}]")
    ]
    collector = ContainerCollector(tmp_path, lambda: pods, lambda: NO_SIGHT)
    (family,) = [m for m in collector.collect() if m.name == "hami_mig_device_info"]
    (sample,) = family.samples
    assert sample.labels == {
        "namespace": "ns",
        "pod": "pod-uid-a",
        "container": "main",
        "vdevice_index": "0",
        "device_uuid": "GPU-a",
        "mig_uuid": "MIG-1",
        "profile": "1g.5gb",
        "gpu_instance_id": "0",
        "compute_instance_id": "2",
        "zone": "vGPU",
    }
