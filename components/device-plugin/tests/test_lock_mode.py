"""HAMi's lock protocol against a kubelet and an API server: every row of its outcome table."""

import asyncio
import json
import re

import grpc
import pytest
from msgspec.structs import replace
from plugin_api import ApiServer
from plugin_kit import FakeNvml, make_container, make_pod, run, whole

from hami_device_plugin.api import deviceplugin_pb2 as api
from hami_device_plugin.cluster_side import ClusterSide
from hami_device_plugin.settings import Settings, Wish
from hamikit import names
from hamikit.gpu import Card
from hamikit.informer import Change
from hamikit.objects import PodStatus
from hamikit.region import read_control

CARD = "GPU-03f69c50-207a-2038-9b45-23cac89cb67a"
CARDS = (Card("GPU-a", 0, "NVIDIA A100", 40960, 0), Card(CARD, 1, "NVIDIA A100", 40960, 1))
LOCK = "2026-01-01T00:00:00Z,default,pod-u1"
NVIDIA = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia.options]\n"
NVIDIA += "BinaryName = '/usr/bin/nvidia-container-runtime'\n"
OFF = "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = false\n"
AUTO = Settings(wish=Wish.AUTO)


def bound(uid="u1", grant="GPU-a,NVIDIA,3000,50:;", phase=names.BIND_ALLOCATING, **more):
    """A pod as a scheduler that speaks the lock protocol binds it."""
    pod = make_pod(uid, grant, **more)
    pod.metadata.annotations.update(
        {
            names.POD_DEVICES_TO_ALLOCATE: grant,
            names.POD_BIND_PHASE: phase,
            names.POD_BIND_TIME: "1767225600",
            names.POD_NODE: "n1",
        }
    )
    return pod


class Node:
    """What a scenario has at hand."""

    def __init__(self, node, server, kubelet, daemon):
        self.files, self.server, self.kubelet, self.daemon = node, server, kubelet, daemon

    async def allocate(self, *ids, uid="u1", container="c"):
        """Kubelet admits one container."""
        return await self.kubelet.allocate(uid, container, list(ids))

    async def refused(self, *ids):
        """The words with which Allocate is refused."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.allocate(*ids)
        return raised.value.details()

    def outcome(self, uid="u1"):
        """Bind phase, whether the lock is there, and what is left to allocate."""
        said = self.server.pods[uid].metadata.annotations
        locked = names.NODE_LOCK in self.server.annotations
        return said[names.POD_BIND_PHASE], locked, said[names.POD_DEVICES_TO_ALLOCATE]

    def limits(self, uid="u1", container="c"):
        """UUIDs and MiB in a container's control file."""
        path = self.files.vgpu / "containers" / f"{uid}_{container}" / "control"
        return [(d.uuid, d.memory_limit_bytes >> 20) for d in read_control(path).devices]


def scenario(node, *pods, lock=LOCK, settings=AUTO, config=OFF + NVIDIA, flags=()):
    """Run a test on a node without CDI whose scheduler has bound these pods."""
    node.containerd.write_text(config)

    def decorate(test):
        def side(server):
            return lambda daemon: ClusterSide(
                server.api(), "n1", daemon.pods, daemon.access, daemon.cards.standing.stand
            )

        async def body(server):
            nvml = FakeNvml(CARDS)
            more = {"nvml": nvml, "settings": settings}
            async with whole(node, side(server), "--prestart-seconds=2", *flags, **more) as found:
                kubelet, daemon = found
                while "GPU-a-0" not in (slots := daemon.stock.slots()):
                    await kubelet.next_list()
                assert len(slots) == 20
                while names.NODE_BINDING not in server.annotations:
                    await asyncio.to_thread(server.patches.get, timeout=30)
                await test(Node(node, server, kubelet, daemon))
                # Nobody waits for an admission any more, so the end need not either.
                for pod in pods:
                    daemon.pods.apply(Change(pod, None))

        annotations = {names.NODE_LOCK: lock} if lock else {}
        with ApiServer(*pods, annotations=annotations) as server:
            run(body(server))

    return decorate


def test_the_last_container_ends_the_allocation(node):
    """The answer has the card and the limiter; phase success, lock off, nothing left."""

    @scenario(node, bound())
    async def _(here):
        answer = await here.allocate("GPU-a-3")
        assert dict(answer.envs) == {
            "NVIDIA_VISIBLE_DEVICES": "GPU-a",
            "CUDA_DEVICE_MEMORY_LIMIT_0": "3000m",
            "CUDA_DEVICE_SM_LIMIT": "50",
            "CUDA_DEVICE_MEMORY_SHARED_CACHE": "/usr/local/vgpu/usage",
        }
        folder = str(node.vgpu / "containers/u1_c")
        assert [(m.host_path, m.container_path, m.read_only) for m in answer.mounts] == [
            (folder, "/usr/local/vgpu", True),
            (f"{node.vgpu}/0.1.0/libvgpu.so", "/usr/local/vgpu/libvgpu.so", True),
            (f"{folder}/control", "/usr/local/vgpu/control", True),
            (f"{folder}/usage", "/usr/local/vgpu/usage", False),
            (f"{node.vgpu}/0.1.0/ld.so.preload", "/etc/ld.so.preload", True),
        ]
        assert [*answer.cdi_devices, *answer.devices] == []
        assert here.outcome() == ("success", False, ";;")
        granted = here.server.pods["u1"].metadata.annotations[names.POD_DEVICES_ALLOCATED]
        assert granted == "GPU-a,NVIDIA,3000,50:;"
        await here.kubelet.start_container(["GPU-a-3"])
        assert here.limits() == [("GPU-a", 3000)]
        assert node.specs() == {}


def test_other_containers_keep_the_lock(node):
    """Each Allocate takes the next container with cards: init containers first."""
    pod = bound(
        grant="GPU-a,NVIDIA,1,0:;;GPU-a,NVIDIA,3,0:;",
        containers=[make_container("plain", 0), make_container("app", 3)],
        init=[make_container("first", 1)],
    )

    @scenario(node, pod)
    async def _(here):
        await here.allocate("GPU-a-0", container="first")
        assert here.outcome() == ("allocating", True, ";;GPU-a,NVIDIA,3,0:;;")
        await here.allocate("GPU-a-0", container="app")
        assert here.outcome() == ("success", False, ";;;;;")
        await here.kubelet.start_container(["GPU-a-0"])
        assert here.limits(container="first") == [("GPU-a", 1)]
        assert here.limits(container="app") == [("GPU-a", 3)]


def test_the_order_of_phase_and_lock(node):
    """A lock that is seen without its pod having ended may be waited for; so the phase is first."""

    @scenario(node, bound())
    async def _(here):
        await here.allocate("GPU-a-0")
        about = {names.POD_BIND_PHASE, names.NODE_LOCK}
        writes = [(path, keys & about) for path, keys in list(here.server.writes.queue)]
        assert [(path, keys) for path, keys in writes if keys] == [
            ("/api/v1/namespaces/default/pods/pod-u1", {names.POD_BIND_PHASE}),
            ("/api/v1/nodes/n1", {names.NODE_LOCK}),
        ]


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        (None, "no binding pod found on node n1"),
        ("rubbish", r"is no '<time>,<namespace>,<pod>'"),
        ("2026-01-01T00:00:00Z,ns", "is no '<time>,<namespace>,<pod>'"),
    ],
)
def test_nobody_waits(node, lock, words):
    """No pending pod, or a malformed lock: an error, and nothing is touched."""

    @scenario(node, bound(phase="none"), lock=lock)
    async def _(here):
        assert words in await here.refused("GPU-a-0")
        assert here.outcome() == ("none", lock is not None, "GPU-a,NVIDIA,3000,50:;")
        assert not (node.vgpu / "grants/u1.json").exists()


@pytest.mark.parametrize("path", ["/nodes/n1", "/pods/pod-u1"])
def test_an_api_error_before_the_pod_is_known(node, path):
    """The lock and the phase stay as they are."""

    @scenario(node, bound())
    async def _(here):
        here.server.fail("GET", path)
        assert "no binding pod found" in await here.refused("GPU-a-0")
        assert here.outcome() == ("allocating", True, "GPU-a,NVIDIA,3000,50:;")


@pytest.mark.parametrize(
    ("grant", "ids", "words"),
    [
        ("GPU-a,NVIDIA,x,0:;", ["GPU-a-0"], "device request not found"),
        ("", ["GPU-a-0"], "no pending device allocation found"),
        ("GPU-a,NVIDIA,1,0:;", ["GPU-a-0", "GPU-a-1"], "device number not matched"),
        ("GPU-a,NVIDIA,1,0:;", ["MIG-x"], "unknown device: MIG-x"),
        ("GPU-z,NVIDIA,1,0:;", ["GPU-a-0"], "GPU-z, which node n1 does not have"),
        (";GPU-a,NVIDIA,1,0:;", ["GPU-a-0"], "has no container 1"),
    ],
    ids=["decode", "missing", "count", "unknown id", "vanished card", "no such container"],
)
def test_what_cannot_be_fails_the_pod(node, grant, ids, words):
    """Phase failed, lock off, what is left to allocate unchanged, nothing on the node."""

    @scenario(node, bound(grant=grant))
    async def _(here):
        assert words in await here.refused(*ids)
        assert here.outcome() == ("failed", False, grant)
        assert list((node.vgpu / "containers").iterdir()) == []


@pytest.mark.parametrize("prefer", [False, True])
def test_an_id_from_before_the_protocol_was_changed(node, prefer):
    """What was held when this plugin came is offered, and free a moment later: any card does."""
    grant = f"{CARD},NVIDIA,1,0:GPU-a,NVIDIA,1,0:;"
    settings = Settings(wish=Wish.AUTO, prefer_ids=prefer)

    @scenario(node, bound(grant=grant), settings=settings)
    async def _(here):
        await here.allocate("slot-0007", "GPU-a-3")
        assert here.outcome()[:2] == ("success", False)
        await here.kubelet.start_container(["slot-0007", "GPU-a-3"])
        assert here.limits() == [(CARD, 1), ("GPU-a", 1)]


def test_the_erase_fails(node):
    """The pod fails and the lock goes, because kubelet gets no answer."""

    @scenario(node, bound())
    async def _(here):
        here.server.fail("PATCH", "/pods/pod-u1")
        assert "cannot be told what it got" in await here.refused("GPU-a-0")
        assert here.outcome() == ("failed", False, "GPU-a,NVIDIA,3000,50:;")


def test_no_second_look_at_the_pod_can_fail(node):
    """HAMi reads the pod again and leaves the lock for 5 min when that fails; here is no need."""

    @scenario(node, bound())
    async def _(here):
        path = "/api/v1/namespaces/default/pods/pod-u1"
        await here.allocate("GPU-a-0")
        reads = [q for q in list(here.server.queries.queue) if q[:2] == ("GET", path)]
        assert len(reads) == 1
        assert here.outcome()[:2] == ("success", False)


def test_a_lock_that_changes_meanwhile_is_released_all_the_same(node):
    """A conflict is looked at again."""

    @scenario(node, bound())
    async def _(here):
        here.server.fail("PATCH", "/nodes/n1", 409)
        await here.allocate("GPU-a-0")
        assert here.outcome()[:2] == ("success", False)


def test_the_lock_of_a_pod_that_is_gone_is_taken_off(node):
    """Nobody else knows that its allocation is over."""

    @scenario(node, lock="2026-01-01T00:00:00Z,default,gone")
    async def _(here):
        assert "no binding pod found" in await here.refused("GPU-a-0")
        assert names.NODE_LOCK not in here.server.annotations


@pytest.mark.parametrize(
    "pod",
    [
        bound(phase="success"),
        replace(bound(), spec=replace(bound().spec, node_name="n2")),
        replace(bound(), spec=replace(bound().spec, node_name="")),
        replace(bound(), status=PodStatus(phase="Failed")),
    ],
    ids=["served", "elsewhere", "not bound yet", "ended"],
)
def test_a_lock_of_a_pod_whose_turn_it_is_not(node, pod):
    """Kubelet asks for somebody else then, who must not get this pod's devices."""

    @scenario(node, pod)
    async def _(here):
        assert "not its turn" in await here.refused("GPU-a-0")
        assert here.outcome()[1:] == (True, "GPU-a,NVIDIA,3000,50:;")


@pytest.mark.parametrize("lock", [None, "2026-01-01T00:00:00Z"])
def test_without_a_name_the_pod_that_waits_longest_and_fits(node, lock):
    """Older schedulers lock without saying for whom."""
    older, two = bound("u2"), bound("u3", "GPU-a,NVIDIA,1,0:GPU-a,NVIDIA,1,0:;")
    older.metadata.annotations[names.POD_BIND_TIME] = "1000"
    two.metadata.annotations[names.POD_BIND_TIME] = "1"

    @scenario(node, bound(), older, two, lock=lock)
    async def _(here):
        await here.allocate("GPU-a-0", uid="u2")
        assert here.outcome("u2") == ("success", False, ";;")
        assert here.outcome("u1")[0] == here.outcome("u3")[0] == "allocating"


def test_an_empty_list_of_ids_is_an_error(node):
    """Not a crash."""

    @scenario(node, bound())
    async def _(here):
        assert "no ids" in await here.refused()
        assert here.outcome()[:2] == ("allocating", True)


@pytest.mark.parametrize(("prefers", "card"), [(True, CARD), (False, "GPU-a")])
def test_the_card_follows_the_id_where_the_operator_wants_it(node, prefers, card):
    """HAMi v2.10's `enablegetpreferredallocation`."""
    settings = Settings(wish=Wish.AUTO, prefer_ids=prefers)

    @scenario(node, bound(), settings=settings)
    async def _(here):
        answer = await here.allocate(f"{CARD}-0")
        assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == card
        assert answer.envs["CUDA_DEVICE_MEMORY_LIMIT_0"] == "3000m"
        assert answer.envs["CUDA_DEVICE_SM_LIMIT"] == "50"
        await here.kubelet.start_container([f"{CARD}-0"])
        assert here.limits() == [(card, 3000)]


def test_kubelet_is_told_which_ids_to_prefer(node):
    """One answer for each container, empty where there is none to give."""
    settings = Settings(wish=Wish.AUTO, prefer_ids=True, numa_hints=True)

    @scenario(node, bound(grant=f"{CARD},NVIDIA,1,0:;"), settings=settings)
    async def _(here):
        options = await here.kubelet.plugin.call("GetDevicePluginOptions", api.Empty())
        registered = here.kubelet.registered.get_nowait().options
        assert options.get_preferred_allocation_available
        assert registered == options
        wish = api.ContainerPreferredAllocationRequest(
            available_deviceIDs=[f"{CARD}-0", "GPU-a-1"], allocation_size=1
        )
        request = api.PreferredAllocationRequest(container_requests=[wish, wish])
        answer = await here.kubelet.plugin.call("GetPreferredAllocation", request)
        assert [list(a.deviceIDs) for a in answer.container_responses] == [[f"{CARD}-0"], []]
        assert here.daemon.cards.standing.numa(f"{CARD}-0") == 1


def test_a_card_that_cannot_carry_it_is_found_out_before_the_start(node):
    """At Allocate kubelet would fail the pod for good; at the start it comes again."""
    first, second = bound("u1", "GPU-a,NVIDIA,30000,0:;"), bound("u2", "GPU-a,NVIDIA,30000,0:;")

    @scenario(node, first, second)
    async def _(here):
        await here.allocate("GPU-a-0")
        await here.kubelet.start_container(["GPU-a-0"])
        here.server.annotations[names.NODE_LOCK] = LOCK.replace("u1", "u2")
        await here.allocate("GPU-a-1", uid="u2")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await here.kubelet.start_container(["GPU-a-1"])
        assert "30000 MiB more than fit beside the 30000" in raised.value.details()
        third = bound("u3", "GPU-a,NVIDIA,100,0:;")
        here.server.put(third)
        here.server.annotations[names.NODE_LOCK] = LOCK.replace("u1", "u3")
        await here.allocate("GPU-a-2", uid="u3")
        await here.kubelet.start_container(["GPU-a-2"])


def test_without_an_nvidia_runtime_a_plain_specification_is_spelled_out(node):
    """Device nodes and mounts go into the answer; hooks could not."""
    edits = {
        "deviceNodes": [{"path": "/dev/nvidia0"}],
        "mounts": [{"hostPath": "/d/libcuda.so", "containerPath": "/libcuda.so"}],
    }
    document = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "0", "containerEdits": edits}],
    }
    (node.static / "nvidia.yaml").write_text(json.dumps(document))

    @scenario(node, bound(), config=OFF)
    async def _(here):
        answer = await here.allocate("GPU-a-0")
        (device,) = answer.devices
        assert (device.host_path, device.container_path) == ("/dev/nvidia0", "/dev/nvidia0")
        assert answer.mounts[0].host_path == "/d/libcuda.so"
        assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == "void"
        assert here.server.annotations[names.NODE_CARD_ACCESS] == "list"


UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.mark.parametrize(
    ("flags", "by_field", "key"),
    [
        ((), True, None),
        (("--device-list-strategy=cdi-cri",), True, None),
        (("--device-list-strategy=cdi-annotations",), False, "cdi.k8s.io/"),
        (
            (
                "--device-list-strategy=envvar,cdi-annotations,cdi-cri",
                "--cdi-annotation-prefix=custom.cdi.k8s.io/",
            ),
            True,
            "custom.cdi.k8s.io/",
        ),
    ],
    ids=["default", "cri", "annotations", "all"],
)
def test_with_cdi_the_lock_names_the_cards(node, flags, by_field, key):
    """HAMi's device list strategies: the runtime finds the node's own specification by name."""
    named = [
        {"name": name, "containerEdits": {"deviceNodes": [{"path": f"/dev/nvidia{name}"}]}}
        for name in ("gpu0", "gpu1")
    ]
    document = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": named}
    (node.static / "nvidia.yaml").write_text(json.dumps(document))
    config = "version = 3\n" + (NVIDIA if flags else "")
    lock, two = Settings(wish=Wish.LOCK), bound(grant=f"GPU-a,NVIDIA,1,0:{CARD},NVIDIA,2,0:;")

    @scenario(node, two, settings=lock, config=config, flags=flags)
    async def _(here):
        answer = await here.allocate("GPU-a-0", "GPU-a-1")
        qualified = ["nvidia.com/gpu=gpu0", "nvidia.com/gpu=gpu1"]
        assert [d.name for d in answer.cdi_devices] == (qualified if by_field else [])
        found = dict(answer.annotations)
        assert list(found.values()) == ([",".join(qualified)] if key else [])
        for name in found:
            assert re.fullmatch(re.escape(f"{key}nvidia-device-plugin_") + UUID4, name)
        assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == "void"
        assert [*answer.devices] == []
        assert "/usr/local/vgpu/control" in [m.container_path for m in answer.mounts]
        assert here.server.annotations[names.NODE_CARD_ACCESS] == "cdi"
        await here.kubelet.start_container(["GPU-a-0", "GPU-a-1"])
        assert here.limits() == [("GPU-a", 1), (CARD, 2)]
        assert node.specs() == {}


def test_the_node_says_what_it_speaks(node):
    """And why it is not late binding."""

    @scenario(node, bound())
    async def _(here):
        said = here.server.annotations
        assert said[names.NODE_BINDING] == "lock"
        assert said[names.NODE_CARD_ACCESS] == "runtime"
        assert "enable_cdi=false" in said[names.NODE_BINDING_REASON]
