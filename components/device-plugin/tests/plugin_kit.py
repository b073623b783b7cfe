"""A node without hardware or cluster: its folders, its kubelet, its cards, its pods."""

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from typing import ClassVar

import grpc
import pynvml

from hami_device_plugin.api import deviceplugin_pb2 as api
from hami_device_plugin.config import Config
from hami_device_plugin.daemon import Daemon
from hami_device_plugin.settings import Settings
from hamikit import names
from hamikit.gpu import Card
from hamikit.informer import Change
from hamikit.objects import Container, Metadata, Pod, PodSpec, PodStatus, Resources
from hamikit.objects import Node as ApiNode

DEADLINE_S = 40
GPU = names.RESOURCE_COUNT
CARDS = (Card("GPU-a", 0, "NVIDIA A100", 40960), Card("GPU-b", 1, "NVIDIA A100", 40960))

NVIDIA_SPEC = """
cdiVersion: 0.6.0
kind: nvidia.com/gpu
devices:
  - name: "0"
    containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}
  - name: GPU-b
    containerEdits: {deviceNodes: [{path: /dev/nvidia1}]}
  - name: all
    containerEdits: {deviceNodes: [{path: /dev/nvidia0}, {path: /dev/nvidia1}]}
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=all]
  deviceNodes: [{path: /dev/nvidiactl}]
  hooks: [{hookName: createContainer, path: /usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook]}]
  mounts: [{hostPath: /lib/libcuda.so.1, containerPath: /lib/libcuda.so.1, options: [ro, bind]}]
"""


class Node:
    """The folders of one node, as an installation leaves them."""

    def __init__(self, root):
        self.root = root
        self.plugins, self.cdi, self.static = root / "kubelet", root / "cdi", root / "etc-cdi"
        self.vgpu, self.containerd = root / "local/vgpu", root / "containerd.toml"
        for folder in (self.plugins, self.cdi, self.static, self.vgpu):
            folder.mkdir(parents=True)
        (self.static / "nvidia.yaml").write_text(NVIDIA_SPEC)
        self.containerd.write_text("version = 3\n")
        self.deliver("0.1.0")

    def deliver(self, version):
        """What hami-core does: a version, and `current` that points to it."""
        folder = self.vgpu / version
        folder.mkdir()
        for name in (names.LIB_NAME, names.PRELOAD_NAME):
            (folder / name).touch()
        link = self.vgpu / "new"
        link.symlink_to(version)
        link.rename(self.vgpu / names.CURRENT_NAME)

    def config(self, *arguments):
        """The plugin's configuration for this node."""
        flags = {
            "--node-name": "n1",
            "--plugin-dir": self.plugins,
            "--cdi-dirs": f"{self.static},{self.cdi}",
            "--cdi-dynamic-dir": self.cdi,
            "--hook-path": self.vgpu.parent,
            "--containerd-config": self.containerd,
            "--driver-root": self.root / "driver",
            "--status-address": "127.0.0.1:0",
            "--scan-seconds": "60",
        }
        given = [f"{flag}={value}" for flag, value in flags.items()]
        return Config.parse([*given, *arguments], {})

    def specs(self):
        """Our CDI specs by name."""
        files = self.cdi.glob(f"{names.CDI_FILE_PREFIX}*.json")
        documents = [json.loads(path.read_text()) for path in files]
        return {d["devices"][0]["name"]: d["devices"][0]["containerEdits"] for d in documents}


def make_container(name, memory=1000, count=1, **more):
    """A container that asks for a slice; `memory` 0 for none."""
    limits = {GPU: str(count), names.RESOURCE_MEMORY: str(memory)} if memory else {}
    return Container(name=name, resources=Resources(limits=limits), **more)


def make_pod(uid, grant, containers=None, init=None, **metadata):
    """A device pod bound to n1; `grant` is the annotation, None for a pod without one."""
    annotations = {} if grant is None else {names.POD_DEVICES_ALLOCATED: grant}
    return Pod(
        metadata=Metadata(
            name=f"pod-{uid}",
            namespace="default",
            uid=uid,
            labels={names.LABEL_DEVICE_POD: "true"},
            annotations=annotations,
            **metadata,
        ),
        spec=PodSpec(
            containers=containers or [make_container("c")],
            init_containers=init,
            node_name="n1",
            scheduler_name=names.SCHEDULER_NAME,
        ),
        status=PodStatus(phase="Pending"),
    )


class FakeNvml:
    """Cards without events."""

    def __init__(self, cards=CARDS):
        self.found = cards

    def open(self):
        """No binding: events do not exist."""
        return NoEvents

    def close(self):
        """Nothing is held."""

    replaced = False

    def handles(self):
        """What there is, with its UUID as handle."""
        return [(card, card.uuid) for card in self.found]


class NoEvents:
    """An NVML that knows no events."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
    NVML_ERROR_FUNCTION_NOT_FOUND = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230

    @staticmethod
    def nvmlEventSetCreate():  # noqa: N802
        """Not supported."""
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    @staticmethod
    def nvmlDeviceGetMigMode(_handle):  # noqa: N802
        """Not supported."""
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    @staticmethod
    def nvmlDeviceGetFieldValues(_handle, _fields):  # noqa: N802
        """Not supported."""
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


class FakeCluster:
    """The API server's side: pods come from the test, events and looks are kept."""

    def __init__(self, pods=()):
        self.reported, self.paused, self.unlisted = [], False, {}
        self._begin = list(pods)
        self.events = self.announcer = self
        self.seen = self.now = ApiNode()

    def __call__(self, daemon):
        """As `daemon.connect`."""
        self.daemon = daemon
        return self

    def start(self):
        """The first list is there at once."""
        for pod in self._begin:
            self.put(pod)
        self.daemon.pods.complete = lambda: True

    def put(self, pod, before=None):
        """A pod is new or has changed."""
        self.daemon.pods.apply(Change(before, pod))

    def remove(self, pod):
        """A pod is gone."""
        self.daemon.pods.apply(Change(pod, None))

    def warn(self, pod, reason, text):
        """Events."""
        self.reported.append((pod.key, reason, text))

    def news(self):
        """Announcer."""

    def lockstep(self, _spell):
        """Nobody speaks the lock protocol with it."""

    def fetch(self, uid):
        """A pod that only the API server knows."""
        return self.unlisted.get(uid)

    def node_now(self):
        """The node as the API server has it."""
        return self.now

    def missing(self):
        """Nothing."""

    async def pause(self):
        """Pause the node."""
        self.paused = True

    async def stop(self):
        """End."""


class FakeKubelet:
    """kubelet's device manager: accepts plugins, asks them, and keeps the checkpoint."""

    def __init__(self, folder):
        self.folder, self.entries, self.registered = folder, {}, asyncio.Queue()
        self.lists, self._tasks, self._plugins = asyncio.Queue(), [], []
        self.plugin = self._server = self.ended = None
        self.deaf = False

    async def start(self):
        """Listen; a file of an earlier life is removed first, as kubelet does."""
        path = self.folder / "kubelet.sock"
        path.unlink(missing_ok=True)
        rows = {
            "Register": grpc.unary_unary_rpc_method_handler(
                self.register, api.RegisterRequest.FromString, api.Empty.SerializeToString
            )
        }
        self._server = grpc.aio.server()
        handler = grpc.method_handlers_generic_handler("v1beta1.Registration", rows)
        self._server.add_generic_rpc_handlers((handler,))
        self._server.add_insecure_port(f"unix:{path}")
        await self._server.start()

    async def stop(self):
        """Hang up on everybody."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for plugin in self._plugins:
            await plugin.close()
        self._plugins.clear()
        await self._server.stop(0)

    async def hang_up(self):
        """End the stream to the plugin only."""
        task = self._tasks.pop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def register(self, request, _context):
        """A plugin came: dial it and listen."""
        self.plugin = Plugin(self.folder / request.endpoint)
        self._plugins.append(self.plugin)
        if not self.deaf:
            self._tasks.append(asyncio.create_task(self.listen(self.plugin)))
        self.registered.put_nowait(request)
        return api.Empty()

    async def listen(self, plugin):
        """Keep every list the plugin sends."""
        try:
            async for answer in plugin.list_and_watch():
                self.lists.put_nowait({d.ID: d.health == "Healthy" for d in answer.devices})
        except grpc.aio.AioRpcError as error:
            self.ended = error  # the plugin has gone

    async def next_list(self):
        """The next list that a plugin sends."""
        return await asyncio.wait_for(self.lists.get(), DEADLINE_S)

    async def all_slots(self):
        """Wait for a list with the slots of both cards."""
        while len(await self.next_list()) < 20:
            pass

    async def admit(self, uid, container, ids):
        """Admit one container of a pod with these ids; the name of its token."""
        answer = await self.allocate(uid, container, ids)
        return answer.cdi_devices[0].name.partition("=")[2]

    async def allocate(self, uid, container, ids):
        """Allocate for one container, as kubelet does it, and keep the answer."""
        request = api.AllocateRequest(
            container_requests=[api.ContainerAllocateRequest(devices_ids=ids)]
        )
        answer = (await self.plugin.call("Allocate", request)).container_responses[0]
        self.entries[uid, container] = (list(ids), answer)
        self.write_checkpoint()
        return answer

    def forget(self, uid):
        """What kubelet does with pods that have ended, when the next one comes."""
        self.entries = {k: v for k, v in self.entries.items() if k[0] != uid}
        self.write_checkpoint()

    def write_checkpoint(self):
        """As kubelet writes it, replacing the file as a whole."""
        entries = [
            {
                "PodUID": uid,
                "ContainerName": container,
                "ResourceName": GPU,
                "DeviceIDs": {"-1": ids},
                "AllocResp": base64.b64encode(answer.SerializeToString()).decode(),
            }
            for (uid, container), (ids, answer) in self.entries.items()
        ]
        data = {"PodDeviceEntries": entries or None, "RegisteredDevices": {GPU: []}}
        temporary = self.folder / "kubelet_internal_checkpoint.tmp"
        temporary.write_text(json.dumps({"Data": data, "Checksum": 1}))
        temporary.rename(self.folder / "kubelet_internal_checkpoint")

    async def start_container(self, ids):
        """PreStartContainer; raises grpc.aio.AioRpcError with the plugin's words."""
        await self.plugin.call("PreStartContainer", api.PreStartContainerRequest(devices_ids=ids))

    async def refused(self, ids):
        """The plugin's words when it refuses a container start."""
        try:
            await self.start_container(ids)
        except grpc.aio.AioRpcError as error:
            return error.details()
        raise AssertionError(f"the container with {ids} may start")


class Plugin:
    """The plugin as kubelet sees it."""

    REQUESTS: ClassVar = {
        "GetDevicePluginOptions": (api.Empty, api.DevicePluginOptions),
        "Allocate": (api.AllocateRequest, api.AllocateResponse),
        "PreStartContainer": (api.PreStartContainerRequest, api.PreStartContainerResponse),
        "GetPreferredAllocation": (
            api.PreferredAllocationRequest,
            api.PreferredAllocationResponse,
        ),
    }

    def __init__(self, socket):
        local = (("grpc.use_local_subchannel_pool", 1),)
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=local)

    async def call(self, method, request):
        """One unary call."""
        ask, answer = self.REQUESTS[method]
        stub = self._channel.unary_unary(
            f"/v1beta1.DevicePlugin/{method}",
            request_serializer=ask.SerializeToString,
            response_deserializer=answer.FromString,
        )
        return await stub(request, timeout=30)

    def list_and_watch(self):
        """The stream of lists."""
        stub = self._channel.unary_stream(
            "/v1beta1.DevicePlugin/ListAndWatch",
            request_serializer=api.Empty.SerializeToString,
            response_deserializer=api.ListAndWatchResponse.FromString,
        )
        return stub(api.Empty())

    async def close(self):
        """Hang up."""
        await self._channel.close()


@asynccontextmanager
async def running(node, cluster, *arguments, nvml=None, settings=None):
    """A daemon on this node; ends in order."""
    stop = asyncio.Event()
    daemon = Daemon(
        node.config(*arguments), settings or Settings(), nvml or FakeNvml(), connect=cluster
    )
    task = asyncio.create_task(daemon.run(stop))
    try:
        yield daemon
    finally:
        stop.set()
        await asyncio.wait_for(task, DEADLINE_S)


@asynccontextmanager
async def whole(node, cluster=None, *arguments, **more):
    """Kubelet and daemon together, once kubelet has the first list with all slots."""
    kubelet = FakeKubelet(node.plugins)
    await kubelet.start()
    try:
        async with running(node, cluster or FakeCluster(), *arguments, **more) as daemon:
            await kubelet.all_slots()
            yield kubelet, daemon
    finally:
        await kubelet.stop()


def run(scenario):
    """Run a coroutine to its end, with a deadline for all of it."""
    asyncio.run(asyncio.wait_for(scenario, 180))
