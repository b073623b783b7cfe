"""Carries out grants: whose ids these are, what was granted, and the files in place."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
import structlog

from hami_device_plugin import carving, cdi, lock
from hami_device_plugin.answer import spelled_out
from hami_device_plugin.api.deviceplugin_pb2 import ContainerAllocateResponse
from hami_device_plugin.cdi import CdiError
from hami_device_plugin.grant import (
    ContainerGrant,
    GrantError,
    PodGrant,
    grant_text,
    named,
    pod_grant,
    slices_of,
)
from hami_device_plugin.hostfiles import NotDelivered
from hami_device_plugin.identity import Held, IdentityError
from hami_device_plugin.invariant import excess
from hami_device_plugin.limits import control
from hami_device_plugin.parts import Parts
from hami_device_plugin.refusal import NoGrant, PodUnknown, Refusal
from hamikit import names
from hamikit.codec import RegisteredDevice
from hamikit.objects import Pod
from hamikit.region import RegionError

log = structlog.get_logger()

T = TypeVar("T")


class Preparer:
    """Carries out grants, one container start at a time, and keeps the account of all of them.

    Everything that decides runs in one worker thread, so the account needs no lock and the event
    loop stays free for Allocate.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
        self.admitted: dict[str, PodGrant] = {}
        self._adopt()

    def _adopt(self) -> None:
        """Take over what is on disk: a predecessor may still work while we start."""
        found = self._parts.files.load_grants(self.admitted)
        self.admitted.update((grant.uid, grant) for grant in found)
        self._parts.pods.remember(found)

    async def in_worker(self, call: Callable[[], T]) -> T:
        """Run something that touches the account where it is safe."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    def learn(self, pod: Pod) -> None:
        """Take over a pod that the informer has not told of."""
        self._parts.pods.learn(pod)

    def report(self, pod: Pod, text: str) -> None:
        """Tell on the pod why it has no grant."""
        self._parts.report(pod, "NoGrant", text)

    def attempt(self, ids: Collection[str]) -> list[str]:
        """Prepare every container that holds these ids; the names of the specs that changed.

        Raises:
            Refusal: it may not start, or not yet.
        """
        parts = self._parts
        try:
            holders = parts.read_checkpoint().with_ids(parts.stock.resource, ids)
        except IdentityError as error:
            raise Refusal("identity", str(error), late=True) from error
        if not holders:
            raise Refusal(
                "identity",
                f"kubelet's checkpoint has no container with the ids {', '.join(sorted(ids))}",
                late=True,
            )
        ours = [holder for holder in holders if holder.ours]
        if not ours:
            # Another plugin answered Allocate, before a migration: its answer still stands.
            log.info("container start left alone", pod=holders[0].pod_uid)
            return []
        access = parts.access.look()
        if access.binding != names.BINDING_LATE and any(holder.cdi_name for holder in ours):
            raise Refusal("cdi-off", access.reason or "this node does not do late binding now")
        uids = sorted({holder.pod_uid for holder in ours})
        return [name for uid in uids for name in self._pod(uid, ours)]

    def _pod(self, uid: str, holders: Iterable[Held]) -> list[str]:
        pod = self._parts.pods.get(uid)
        if uid not in self.admitted:
            self._adopt()
        mine = [holder for holder in holders if holder.pod_uid == uid]
        if pod is None:
            return self._again(uid, mine)
        if pod.metadata.deletion_timestamp:
            raise Refusal("pod-deleted", f"pod {pod.key} is being deleted")
        try:
            grant = self._carved(named(self._grant(pod), mine), pod, mine)
        except GrantError as error:
            self.report(pod, str(error))
            raise NoGrant(str(error)) from error
        return self._carry_out(grant, [grant.of(holder.container) for holder in mine])

    def _again(self, uid: str, holders: Sequence[Held]) -> list[str]:
        """Containers that have run before, of a pod that nobody tells of while we start.

        An API server that is away is no reason to keep them waiting: their grant is pinned.
        """
        known, tokens = self.admitted.get(uid), {holder.cdi_name for holder in holders}
        ran = [c for c in known.containers if c.cdi_name and c.cdi_name in tokens] if known else []
        if known is None or self._parts.pods.complete() or len(ran) < len(holders):
            raise PodUnknown(uid, self._parts.node)
        return self._carry_out(known, ran)

    def _grant(self, pod: Pod) -> PodGrant:
        admitted = self.admitted.get(pod.metadata.uid)
        if admitted is not None:
            return admitted
        parts = self._parts
        text = parts.pods.first_grant(pod.metadata.uid)
        return pod_grant(pod, text, parts.node, parts.settings().family)

    def _carved(self, grant: PodGrant, pod: Pod, holders: Iterable[Held]) -> PodGrant:
        """The grant with the MIG instances of these containers, which must have been made."""
        family = self._parts.settings().family
        starting = {holder.container for holder in holders}
        return carving.with_instances(grant, pod, self._cards(grant), family, starting)

    def _carry_out(self, grant: PodGrant, containers: Sequence[ContainerGrant]) -> list[str]:
        cards = self._cards(grant)
        files, version = self._parts.files, grant.library
        try:
            if not all(container.divided for container in containers):
                version = files.library(grant.library)
        except NotDelivered as error:
            raise Refusal("library", str(error), late=True) from error
        admitted = msgspec.structs.replace(grant, library=version, checked=True)
        known = self.admitted.get(grant.uid)
        if known is None or not known.checked:
            others = self._existing(grant.uuids)
            too_much = carving.doubly_given(grant, others) or excess(grant, others, cards)
            if too_much is not None:
                raise Refusal("card-full", f"pod {grant.key} must wait: {too_much}", late=True)
        try:
            return [c.cdi_name for c in containers if self._put(admitted, c, cards)]
        except (CdiError, RegionError) as error:
            raise Refusal("files", str(error)) from error

    def _cards(self, grant: PodGrant) -> dict[str, RegisteredDevice]:
        cards = self._parts.stock.cards()
        if cards is None:
            raise Refusal("card-missing", "the cards of this node are not read yet", late=True)
        wanted = grant.uuids
        if missing := sorted(wanted - cards.keys()):
            raise Refusal(
                "card-missing",
                f"pod {grant.key} was granted {', '.join(missing)}, which node "
                f"{self._parts.node} does not have (any more); delete the pod, so that it is "
                "scheduled anew",
            )
        return {uuid: cards[uuid] for uuid in wanted}

    def _existing(self, cards: frozenset[str]) -> list[PodGrant]:
        """The admitted pods that still hold these cards: not ended, or gone but still running."""
        parts = self._parts
        checked = (grant for grant in self.admitted.values() if grant.checked)
        found = [grant for grant in checked if not cards.isdisjoint(grant.uuids)]
        if not parts.pods.complete():
            return found
        living = parts.pods.living()
        return [g for g in found if g.uid in living or parts.files.in_use(g.uid, g.names)]

    def _put(
        self, grant: PodGrant, container: ContainerGrant, cards: Mapping[str, RegisteredDevice]
    ) -> bool:
        parts = self._parts
        # Everything that can be refused is found out before the account and the disk change.
        document = None
        if container.cdi_name:
            version, edits = self._edits(grant, container, cards)
            document = cdi.specification(container.cdi_name, version, edits)
        self._keep(grant)
        if not container.divided:
            limits = control(container, parts.settings())
            parts.files.put_limits(grant.uid, container.name, limits)
        return document is not None and parts.cdi.write(container.cdi_name, document)

    def _edits(
        self, grant: PodGrant, container: ContainerGrant, cards: Mapping[str, RegisteredDevice]
    ) -> tuple[str, cdi.Edits]:
        """The CDI version and all that has to be changed for a container to run with its grant."""
        parts = self._parts
        paths = parts.files.paths(grant.uid, container.name, grant.library)
        version, edits, visible = cdi.MIN_VERSION, cdi.NOTHING, names.VISIBLE_VOID
        by_runtime = parts.access.now.way == names.CARDS_BY_RUNTIME
        if by_runtime:
            visible = carving.visible(container)
        if container.divided:
            some: list[cdi.Edits] = []
            if not by_runtime:
                specs = parts.cdi.node_specs()
                version, some = carving.instance_edits(
                    specs, container, parts.divisions, parts.capabilities
                )
            return version, cdi.merge([*some, carving.our_edits(visible)])
        if not (by_runtime or self._by_name()):
            version, edits = cdi.card_edits(parts.cdi.node_specs(), _indexed(container, cards))
        ours = cdi.our_edits(
            container,
            paths,
            visible=visible,
            oversubscribed=parts.settings().memory_scaling > 1,
        )
        return version, cdi.merge([edits, ours])

    def _keep(self, grant: PodGrant) -> None:
        if self.admitted.get(grant.uid) != grant:
            self._parts.files.save_grant(grant)
            self.admitted[grant.uid] = grant

    def spell(self, pod: Pod, turn: lock.Turn, ids: Sequence[str]) -> ContainerAllocateResponse:
        """Everything for a container at once, as HAMi's lock protocol wants it at Allocate.

        Whether the cards can carry it is asked before the container starts: kubelet would fail
        the pod for good now.

        Raises:
            LockError: it cannot be.
        """
        try:
            return self._worker.submit(self._spell, pod, turn, ids).result()
        except (GrantError, Refusal, NotDelivered, CdiError, OSError) as error:
            raise lock.LockError(str(error)) from error

    def _spell(self, pod: Pod, turn: lock.Turn, ids: Sequence[str]) -> ContainerAllocateResponse:
        parts, settings = self._parts, self._parts.settings()
        by_card = lock.of_cards(ids)
        if unknown := [slot for slot in by_card if slot not in parts.stock.slots()]:
            raise lock.LockError(
                f"invalid allocation request for {parts.stock.resource!r}: unknown device: "
                f"{unknown[0]}"
            )
        grant = self._first(pod, turn)
        if any(card.mode == names.MODE_MIG for card in self._cards(grant).values()):
            raise lock.LockError(
                "MIG instances need late binding: with HAMi's lock kubelet would have to wait for "
                "them in Allocate; see `binding` in device-config.yaml"
            )
        chosen = settings.prefer_ids and len(by_card) == len(ids)
        cards = [lock.physical_id(slot) for slot in ids] if chosen else None
        name = pod.all_containers[turn.index].name
        grant = grant.with_slices(name, slices_of(turn.devices, cards))
        cards_now, container = self._cards(grant), grant.of(name)
        _, edits = self._edits(grant, container, cards_now)
        answer = spelled_out(edits)
        if self._by_name():
            specs = parts.cdi.node_specs()
            devices = cdi.qualified_names(specs, _indexed(container, cards_now))
            answer.MergeFrom(parts.cdi_telling.tell(devices))
        self._keep(grant)
        return answer

    def _by_name(self) -> bool:
        """Whether the runtime finds the cards by their names in the node's own specification."""
        now = self._parts.access.now
        return (now.binding, now.way) == (names.BINDING_LOCK, names.CARDS_BY_CDI)

    def _first(self, pod: Pod, turn: lock.Turn) -> PodGrant:
        """The pod's grant from what is kept, else from its annotations; not checked yet."""
        parts = self._parts
        kept = self.admitted.get(pod.metadata.uid)
        if kept is not None:
            return kept
        text = grant_text(pod) or pod.metadata.annotations.get(names.POD_DEVICES_TO_ALLOCATE, "")
        if turn.index >= len(pod.all_containers):
            raise lock.LockError(f"pod {pod.key} has no container {turn.index}: {text!r}")
        grant = pod_grant(pod, text, parts.node, parts.settings().family)
        library = parts.files.library()
        return msgspec.structs.replace(grant, library=library, checked=False)


def _indexed(
    container: ContainerGrant, cards: Mapping[str, RegisteredDevice]
) -> list[tuple[str, int]]:
    return [(part.uuid, cards[part.uuid].index) for part in container.slices]
