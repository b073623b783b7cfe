"""The monitor reports who goes past the limiter or was granted nothing, and forgets who is gone."""

import pytest

from e2e.kube import wait_until
from e2e.pods import IMAGE, ON_AN_A100, container, pod, slice_of
from e2e.test_metrics import samples, value

pytestmark = pytest.mark.cluster
MIB = 1024 * 1024
LIBRARIES = "usr/lib/x86_64-linux-gnu"
# Waits for a word, so that a test knows when it begins; a child, so that it can be killed.
ON_A_WORD = "until [ -e /tmp/go ]; do sleep 0.1; done; {}cuprobe hold {} forever & wait; sleep 600"


def on_a_word(mib, before=""):
    """A shell command that holds memory once it is told to."""
    return ON_A_WORD.format(before, mib)


def findings(kube, who):
    """Kinds of findings that stand now about a container."""
    return {
        s.labels["kind"]
        for s in samples(kube, "hami-monitor", 9394)
        if s.name == "hami_audit_finding_processes" and who.items() <= s.labels.items()
    }


def wait_findings(kube, who, kinds):
    """Wait until exactly these stand."""

    def missing():
        shown = findings(kube, who)
        return None if shown == kinds else f"findings {kinds}, shown are {shown}"

    wait_until(missing, 60)


def kill(kube, namespace, name):
    """End a pod's program the hard way."""
    kube.exec(namespace, name, "sh", "-c", "kill -9 $(pidof cuprobe)")


def test_a_bypass_is_reported_and_gone_with_its_process(kube, namespace):
    """A container that takes the preload away holds five times its grant; then it is killed."""
    program = container(
        "app",
        slice_of(memory=1000),
        on_a_word(5000, "umount /etc/ld.so.preload; "),
        securityContext={"capabilities": {"add": ["SYS_ADMIN"]}},
    )
    kube.create(pod("bypass", namespace, program))
    kube.wait_running(namespace, "bypass")
    who = {"namespace": namespace, "pod": "bypass", "container": "app"}
    assert findings(kube, who) == set()
    kube.exec(namespace, "bypass", "touch", "/tmp/go")
    wait_findings(kube, who, {"no_limiter", "over_use"})

    def untold():
        reasons = {
            event["reason"]
            for event in kube.get("events", "-n", namespace)["items"]
            if event["source"].get("component") == "hami-monitor"
        }
        expected = {"GpuWithoutLimiter", "GpuMemoryOverUse"}
        return None if reasons == expected else f"events {expected}, there are {reasons}"

    wait_until(untold, 60)
    kill(kube, namespace, "bypass")
    wait_findings(kube, who, set())


def test_a_killed_program_leaves_nothing_and_an_honest_one_is_no_finding(kube, namespace):
    """Its use and its utilisation go with it, in our account as in NVML's."""
    program = container("app", slice_of(memory=1000), on_a_word(500))
    kube.create(pod("honest", namespace, program, nodeSelector=ON_AN_A100))
    kube.wait_running(namespace, "honest")
    kube.exec(namespace, "honest", "touch", "/tmp/go")
    who = {"namespace": namespace, "pod": "honest", "container": "app"}

    def shows(used, seen):
        def missing():
            found = samples(kube, "hami-monitor", 9394)
            shown = [
                value(found, name, **who)
                for name in (
                    "hami_vgpu_memory_used_bytes",
                    "hami_container_device_host_memory_bytes",
                )
            ]
            return None if shown == [used, seen] else f"{[used, seen]}, shown are {shown}"

        return missing

    # 300 MiB are what a context takes of a simulated A100; it counts.
    wait_until(shows(800 * MIB, 800 * MIB), 60)
    assert findings(kube, who) == set()
    kill(kube, namespace, "honest")
    wait_until(shows(0, 0), 60)


def test_a_pod_that_asked_for_nothing_is_seen_on_a_card(kube, namespace):
    """It helped itself to the node's driver by host paths."""
    paths = {
        **{f"/dev/{name}": f"/dev/{name}" for name in ("nvidiactl", "nvidia0", "nvidia-uvm")},
        **{
            f"/{LIBRARIES}/{name}": f"/run/nvidia/driver/{LIBRARIES}/{name}"
            for name in ("libcuda.so.1", "libnvidia-ml.so.1")
        },
        "/run/nvidia-fake": "/run/nvidia/driver/run/nvidia-fake",
    }
    thief = {
        "name": "app",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "cuprobe hold 100 forever & wait; sleep 600"],
        "volumeMounts": [
            {"name": f"v{index}", "mountPath": inside} for index, inside in enumerate(paths)
        ],
    }
    volumes = [
        {"name": f"v{index}", "hostPath": {"path": outside}}
        for index, outside in enumerate(paths.values())
    ]
    kube.create(pod("thief", namespace, thief, volumes=volumes))
    kube.wait_running(namespace, "thief")
    who = {"namespace": namespace, "pod": "thief", "container": "app"}
    wait_findings(kube, who, {"not_granted"})
    kill(kube, namespace, "thief")
    wait_findings(kube, who, set())
