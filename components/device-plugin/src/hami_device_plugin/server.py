"""kubelet's questions, answered over gRPC; nothing here decides anything."""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import grpc
import structlog

from hami_device_plugin.api import deviceplugin_pb2 as api
from hami_device_plugin.broadcast import Broadcast
from hami_device_plugin.metrics import Metrics
from hami_device_plugin.preparer import Refusal
from hamikit import names

log = structlog.get_logger()

SERVICE = "v1beta1.DevicePlugin"
OPTIONS = api.DevicePluginOptions(pre_start_required=True, get_preferred_allocation_available=False)


class Prepares(Protocol):
    """Puts in place what a container needs before it starts, or raises Refusal."""

    async def run(self, ids: list[str]) -> None:
        """For the containers that hold these ids."""


def fresh_name() -> str:
    """A name for a CDI device that no container has had yet: a letter, then hex digits."""
    return f"c{secrets.token_hex(12)}"


class DevicePlugin:
    """The service `v1beta1.DevicePlugin`."""

    def __init__(
        self,
        slots: Callable[[], dict[str, bool]],
        prestart: Prepares,
        news: Broadcast,
        metrics: Metrics,
        *,
        on_stream_end: Callable[[], None],
        new_name: Callable[[], str] = fresh_name,
    ) -> None:
        self._slots, self._prestart, self._news, self._metrics = slots, prestart, news, metrics
        self._on_stream_end, self._new_name = on_stream_end, new_name
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
        """We want PreStartContainer."""
        return OPTIONS

    async def list_and_watch(
        self, _request: api.Empty, _context: Any
    ) -> AsyncIterator[api.ListAndWatchResponse]:
        """All slots now, and again whenever they change."""
        self._streams += 1
        sent: dict[str, bool] | None = None
        try:
            while not self._ending:
                waiter = self._news.waiter()
                slots = self._slots()
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
            api.Device(ID=slot, health="Healthy" if fine else "Unhealthy")
            for slot, fine in slots.items()
        ]
        return api.ListAndWatchResponse(devices=devices)

    async def allocate(self, request: api.AllocateRequest, _context: Any) -> api.AllocateResponse:
        """A token per container, by which PreStartContainer knows it again; never waits.

        A runtime that ignores the CDI device shall give no card instead of all.
        """
        self._metrics.allocations.inc(len(request.container_requests))
        return api.AllocateResponse(
            container_responses=[
                api.ContainerAllocateResponse(
                    envs={names.ENV_VISIBLE_DEVICES: names.VISIBLE_VOID},
                    cdi_devices=[api.CDIDevice(name=f"{names.CDI_KIND}={self._new_name()}")],
                )
                for _ in request.container_requests
            ]
        )

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
        """Any ids do, because none stands for a card: those that must be, then the first."""
        answers = []
        for wish in request.container_requests:
            must = list(wish.must_include_deviceIDs)
            others = [i for i in wish.available_deviceIDs if i not in must]
            chosen = (must + others)[: wish.allocation_size]
            answers.append(api.ContainerPreferredAllocationResponse(deviceIDs=chosen))
        return api.PreferredAllocationResponse(container_responses=answers)
