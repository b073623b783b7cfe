"""The monitor reports who goes past the limiter or was granted nothing, and forgets who is gone."""

import json

import pytest

from e2e.cards import ledger
from e2e.kube import wait_until
from e2e.metrics import samples, value, values
from e2e.pods import IMAGE, ON_AN_A100, container, pod, slice_of

pytestmark = pytest.mark.cluster
MIB = 1024 * 1024
NODE, CONTEXT_MIB = "hami-worker", 300
LIBRARIES = "usr/lib/x86_64-linux-gnu"
# Waits for a word, so that a test knows when it begins; a child, so that it can be killed.
ON_A_WORD = "until [ -e /tmp/go ]; do sleep 0.1; done; {}cuprobe hold {} forever & wait; sleep 600"


def on_a_word(mib, before=""):
    """A shell command that holds memory once it is told to."""
    return ON_A_WORD.format(before, mib)


def findings(kube, who):
    """Kinds of findings that stand now about a container."""
    return kinds(samples(kube, "hami-monitor", 9394), who)


def wait_findings(kube, who, kinds):
    """Wait until exactly these stand."""

    def missing():
        shown = findings(kube, who)
        return None if shown == kinds else f"findings {kinds}, shown are {shown}"

    wait_until(missing, 60)


def kill(kube, namespace, name, container="app"):
    """End a pod's program the hard way."""
    end = "kill -9 $(pidof cuprobe cuprobe-static)"
    kube.kubectl("exec", "-n", namespace, name, "-c", container, "--", "sh", "-c", end)


def on_cards(mib):
    """How many processes hold this much of the worker's cards, by the cards' own ledger."""
    rows = ledger(NODE)["cards"]
    return sum(process["bytes"] == mib * MIB for card in rows for process in card["processes"])


def wait_on_cards(mib, count):
    """Wait until the cards' ledger has as many processes of this size."""

    def missing():
        there = on_cards(mib)
        return None if there == count else f"{count} processes of {mib} MiB on the cards: {there}"

    wait_until(missing, 60)


def after_answers(kube, count):
    """What the monitor shows as soon as it has taken in as many answers of NVML from now on.

    It asks NVML every second: what two answers later is not seen took two seconds or more, however
    busy the machine is that this runs on. One more answer may have been under way.
    """
    name, node = "hami_monitor_nvml_answers_total", {"node": NODE}
    begin = value(samples(kube, "hami-monitor", 9394), name, **node)
    shown = []

    def missing():
        shown[:] = samples(kube, "hami-monitor", 9394)
        now = value(shown, name, **node)
        enough = None not in (begin, now) and now >= begin + count
        return None if enough else f"{count} answers of NVML since the {begin}th: now {now}"

    wait_until(missing, 60)
    return shown


def kinds(found, who):
    """Kinds of findings that a scrape shows about a container."""
    name = "hami_audit_finding_processes"
    return {s.labels["kind"] for s in found if s.name == name and who.items() <= s.labels.items()}


def test_every_bypass_is_reported_with_the_second_answer_and_gone_with_its_process(kube, namespace):
    """One container takes the preload away, one runs a static program; both take five times theirs.

    Of NVML's answers the first may have been under way, the next one lists them, and the one after
    confirms it, 0.2 s later: with an answer each second that is within two seconds. The limiter
    holds a program that loads another copy of the driver by its path.
    """
    free = {"capabilities": {"add": ["SYS_ADMIN"]}}
    static = ON_A_WORD.format("", 5000).replace("cuprobe ", "cuprobe-static ")
    unloaded = on_a_word(5000, "umount /etc/ld.so.preload; ")
    kube.create(
        pod(
            "bypass",
            namespace,
            container("app", slice_of(memory=1000), unloaded, securityContext=free),
            container("static", slice_of(memory=1000), static),
            container("path", slice_of(memory=1000), "sleep 600"),
            nodeSelector=ON_AN_A100,
        )
    )
    kube.wait_running(namespace, "bypass")
    who = {"namespace": namespace, "pod": "bypass"}
    assert findings(kube, who) == set()
    for name in ("app", "static"):
        kube.kubectl("exec", "-n", namespace, "bypass", "-c", name, "--", "touch", "/tmp/go")
    wait_on_cards(5000 + CONTEXT_MIB, 2)
    found = after_answers(kube, 3)
    for name in ("app", "static"):
        assert kinds(found, {**who, "container": name}) == {"no_limiter", "over_use"}, name
    copied = f"cp /{LIBRARIES}/libcuda.so.1 /tmp/driver.so && export CUPROBE_DRIVER=/tmp/driver.so"
    for way in ("", "--dlsym "):
        # 300 MiB of the thousand are the context's.
        command = ("-c", "path", "--", "sh", "-c", f"{copied}; exec cuprobe {way}alloc 600 200")
        told = json.loads(kube.kubectl("exec", "-n", namespace, "bypass", *command))
        results = [one["result"] for one in told["allocations"]]
        assert results == ["CUDA_SUCCESS", "CUDA_ERROR_OUT_OF_MEMORY"], way

    def untold():
        reasons = {
            event["reason"]
            for event in kube.get("events", "-n", namespace)["items"]
            if event["source"].get("component") == "hami-monitor"
        }
        expected = {"GpuWithoutLimiter", "GpuMemoryOverUse"}
        return None if reasons == expected else f"events {expected}, there are {reasons}"

    wait_until(untold, 60)
    for name in ("app", "static"):
        kill(kube, namespace, "bypass", name)
    wait_on_cards(5000 + CONTEXT_MIB, 0)
    found = after_answers(kube, 2)
    assert kinds(found, who) == set()
    assert set(values(found, "hami_container_device_host_memory_bytes", **who)) == {0}


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
    wait_on_cards(500 + CONTEXT_MIB, 0)
    found = after_answers(kube, 2)
    for name in ("hami_vgpu_memory_used_bytes", "hami_container_device_host_memory_bytes"):
        assert value(found, name, **who) == 0, name


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
