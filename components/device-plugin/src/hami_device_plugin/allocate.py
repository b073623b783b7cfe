"""Allocate by the node's protocol: a token for each container, or with HAMi's lock everything."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from hami_device_plugin import lock
from hami_device_plugin.access import CardAccess
from hami_device_plugin.answer import token
from hami_device_plugin.api.deviceplugin_pb2 import ContainerAllocateResponse
from hami_device_plugin.lock import LockError
from hamikit import names
from hamikit.objects import Pod

T = TypeVar("T")

# kubelet's one loop waits for Allocate, so nothing here may take long.
KNOWN_S, LOOK_S = 5.0, 0.05

Wish = tuple[Sequence[str], Sequence[str], int]
"""Ids that are free, ids that must be among the chosen ones, how many."""


class Locked(Protocol):
    """hami_device_plugin.lockstep.Lockstep, which is slow to import."""

    def allocate(self, requests: Sequence[Sequence[str]]) -> list[ContainerAllocateResponse]:
        """The answers for the pod whose turn it is."""

    def pending(self, count: int) -> Pod:
        """That pod."""


def fresh_name() -> str:
    """A name for a CDI device that no container has had yet: a letter, then hex digits."""
    return f"c{secrets.token_hex(12)}"


class Allocator:
    """Answers kubelet by the protocol of the node; `locked` is None until the cluster is there."""

    def __init__(
        self,
        access: CardAccess,
        locked: Callable[[], Locked | None],
        *,
        new_name: Callable[[], str] = fresh_name,
    ) -> None:
        self._access, self._locked, self._new_name = access, locked, new_name
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="allocate")

    async def answers(self, requests: Sequence[Sequence[str]]) -> list[ContainerAllocateResponse]:
        """For each container's ids.

        Raises:
            LockError: kubelet is to fail the pod.
        """
        if not await self._speaks_lock():
            return [token(self._new_name()) for _ in requests]
        return await self._run(lambda locked: locked.allocate(requests))

    async def preferred(self, wishes: Sequence[Wish]) -> list[list[str]]:
        """The ids that each container is to get; any do where they stand for no card."""
        if not await self._speaks_lock():
            return [_first(*wish) for wish in wishes]
        try:
            pod = await self._run(lambda locked: locked.pending(wishes[0][2]))
        except LockError:
            return [[] for _ in wishes]
        return lock.preferences(pod, wishes)

    async def _speaks_lock(self) -> bool:
        for _ in range(int(KNOWN_S / LOOK_S)):
            if self._access.known:
                break
            await asyncio.sleep(LOOK_S)
        else:
            raise LockError("the API server has not told yet which runtime this node has")
        return self._access.now.binding == names.BINDING_LOCK

    async def _run(self, call: Callable[[Locked], T]) -> T:
        locked = self._locked()
        if locked is None:
            raise LockError("the API server cannot be reached yet: nobody knows whose turn it is")
        return await asyncio.get_running_loop().run_in_executor(self._worker, call, locked)


def _first(available: Sequence[str], must: Sequence[str], size: int) -> list[str]:
    others = [slot for slot in available if slot not in must]
    return [*must, *others][:size]
