"""kubelet's questions, answered over gRPC; nothing here decides anything."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

import grpc
import structlog

from hami_device_plugin.api import deviceplugin_pb2 as api
from hami_device_plugin.broadcast import Broadcast
from hami_device_plugin.lock import LockError
from hami_device_plugin.metrics import Metrics
from hami_device_plugin.refusal import Refusal
from hami_device_plugin.retired import Retired

log = structlog.get_logger()

SERVICE = "v1beta1.DevicePlugin"


def options(*, prefers: bool, prepares: bool = True) -> api.DevicePluginOptions:
    """What we want of kubelet: the one source for Register and GetDevicePluginOptions."""
    return api.DevicePluginOptions(
        pre_start_required=prepares, get_preferred_allocation_available=prefers
    )


class Prepares(Protocol):
    """Puts in place what a container needs before it starts, or raises Refusal."""

    async def run(self, ids: list[str]) -> None:
        """For the containers that hold these ids."""


class Allocates(Protocol):
    """Answers for containers that kubelet admits; LockError makes it fail the pod."""

    async def answers(
        self, requests: Sequence[Sequence[str]]
    ) -> Sequence[api.ContainerAllocateResponse]:
        """For the ids of each container."""

    async def preferred(
        self, wishes: Sequence[tuple[Sequence[str], Sequence[str], int]]
    ) -> Sequence[Sequence[str]]:
        """Which ids each container is to get: of those available, those that must be, how many."""


class DevicePlugin:
    """The service `v1beta1.DevicePlugin`."""

    def __init__(
        self,
        slots: Callable[[], dict[str, bool]],
        allocator: Allocates,
        prestart: Prepares,
        news: Broadcast,
        metrics: Metrics,
        *,
        on_stream_end: Callable[[], None],
        options: api.DevicePluginOptions,
        numa: Callable[[str], int | None] = lambda _slot: None,
    ) -> None:
        self._slots, self._allocator, self._prestart = slots, allocator, prestart
        self._news, self._metrics = news, metrics
        self._on_stream_end, self._options, self._numa = on_stream_end, options, numa
        self._streams = 0
        self._ending = False

    @property
    def watched(self) -> bool:
        """Whether kubelet listens."""
        return self._streams > 0

    def end_streams(self) -> None:
        """Close every list; kubelet takes it that this plugin has gone."""
        self._ending = True
        self._news.announce()

    def handler(self) -> Any:
        """What a gRPC server serves."""
        unary = grpc.unary_unary_rpc_method_handler

        def row(method: Any, request: Any, response: Any, kind: Any = unary) -> Any:
            return kind(method, request.FromString, response.SerializeToString)

        stream = grpc.unary_stream_rpc_method_handler
        methods = {
            "GetDevicePluginOptions": row(self.options, api.Empty, api.DevicePluginOptions),
            "ListAndWatch": row(self.list_and_watch, api.Empty, api.ListAndWatchResponse, stream),
            "Allocate": row(self.allocate, api.AllocateRequest, api.AllocateResponse),
            "PreStartContainer": row(
                self.pre_start, api.PreStartContainerRequest, api.PreStartContainerResponse
            ),
            "GetPreferredAllocation": row(
                self.preferred, api.PreferredAllocationRequest, api.PreferredAllocationResponse
            ),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def options(self, _request: api.Empty, _context: Any) -> api.DevicePluginOptions:
        """The same as at registration."""
        return self._options

    async def list_and_watch(
        self, _request: api.Empty, _context: Any
    ) -> AsyncIterator[api.ListAndWatchResponse]:
        """All slots now, and again whenever they change."""
        self._streams += 1
        sent: dict[str, bool] | None = None
        retired = Retired()
        try:
            while not self._ending:
                waiter = self._news.waiter()
                slots = retired.added(self._slots())
                if slots != sent:
                    sent = slots
                    yield self._listed(slots)
                await waiter.wait()
        finally:
            self._streams -= 1
            # While another stream is open a new registration would only end that one.
            if not self._streams:
                self._on_stream_end()

    def _listed(self, slots: dict[str, bool]) -> api.ListAndWatchResponse:
        healthy = sum(slots.values())
        self._metrics.count_slots(healthy, len(slots) - healthy)
        log.info("slots announced", healthy=healthy, unhealthy=len(slots) - healthy)
        devices = [
            api.Device(
                ID=slot, health="Healthy" if fine else "Unhealthy", topology=self._topology(slot)
            )
            for slot, fine in slots.items()
        ]
        return api.ListAndWatchResponse(devices=devices)

    def _topology(self, slot: str) -> api.TopologyInfo | None:
        node = self._numa(slot)
        return None if node is None else api.TopologyInfo(nodes=[api.NUMANode(ID=node)])

    async def allocate(self, request: api.AllocateRequest, context: Any) -> api.AllocateResponse:
        """The allocator's answers; kubelet's loop waits for this."""
        self._metrics.allocations.inc(len(request.container_requests))
        ids = [list(wish.devices_ids) for wish in request.container_requests]
        try:
            answers = await self._allocator.answers(ids)
        except LockError as error:
            log.warning("allocation refused", text=str(error))
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return api.AllocateResponse(container_responses=answers)

    async def pre_start(
        self, request: api.PreStartContainerRequest, context: Any
    ) -> api.PreStartContainerResponse:
        """Everything in place for a container that is about to start, or why not."""
        begin = time.monotonic()
        outcome = "internal"
        try:
            await self._prestart.run(list(request.devices_ids))
            outcome = "ok"
        except Refusal as refusal:
            outcome = refusal.reason
            log.warning("container start refused", reason=outcome, text=str(refusal))
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refusal))
        except OSError as error:
            log.warning("container start failed", error=str(error))
            await context.abort(grpc.StatusCode.INTERNAL, f"on this node: {error}")
        finally:
            self._metrics.prestart.labels(outcome).observe(time.monotonic() - begin)
        return api.PreStartContainerResponse()

    async def preferred(
        self, request: api.PreferredAllocationRequest, _context: Any
    ) -> api.PreferredAllocationResponse:
        """One answer for each container, empty where there is no preference."""
        wishes = [
            (wish.available_deviceIDs, wish.must_include_deviceIDs, wish.allocation_size)
            for wish in request.container_requests
        ]
        chosen = await self._allocator.preferred(wishes)
        answers = [api.ContainerPreferredAllocationResponse(deviceIDs=ids) for ids in chosen]
        return api.PreferredAllocationResponse(container_responses=answers)
