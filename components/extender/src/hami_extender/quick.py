"""A first answer from a node's digest: certain where it can be, else that a closer look is needed.

It never contradicts `placement.place`, and costs a hundredth of it: what a request says to a card
is remembered for all cards that are alike.
"""

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from functools import cache

from hami_extender.digest import Digest, Key, OfferDigest, Traits
from hami_extender.fit import (
    DEVICES_SHORT,
    TOO_FEW,
    UUID_MISMATCH,
    capacity,
    condition,
    occupied,
    reason_text,
)
from hami_extender.placement import SLOTS_EXHAUSTED, UNREGISTERED, Refusal
from hami_extender.question import PLENTY, Part, Question
from hami_extender.wish import Wish
from hamikit.devices import SELECT_PAIRS
from hamikit.footprint import Share
from hamikit.shape import ContainerRequest, Role

NOT_REGISTERED = Refusal(UNREGISTERED, unresolvable=True)
NO_IDS = Refusal(SLOTS_EXHAUSTED)


@cache
def _closed(reason: str) -> Refusal:
    return Refusal(reason, unresolvable=True)


class Answer(Enum):
    """What a digest says where it does not refuse outright."""

    FITS = "fits"
    MAYBE = "maybe"
    NOT_SAID_WHY = "it does not fit, and a closer look tells why"


class _Conditions(dict[Key, str | None]):
    """What keeps a card of this key out whatever is free on it, or None."""

    def __init__(self, wish: Wish, traits: Sequence[Traits]) -> None:
        super().__init__()
        self._wish, self._traits = wish, traits

    def __missing__(self, key: Key) -> str | None:
        card, cordoned = self._traits[key[0]]
        reason = self[key] = condition(card, self._wish, cordoned=cordoned)
        return reason


class _Reasons(dict[Key, str | None]):
    """Why a card of this key does not take a request, its UUID aside, or None."""

    def __init__(self, request: ContainerRequest, wish: Wish, traits: Sequence[Traits]) -> None:
        super().__init__()
        self._request, self._wish, self._traits = request, wish, traits

    def __missing__(self, key: Key) -> str | None:
        card, cordoned = self._traits[key[0]]
        used = Share(*key[1:])
        reason = self[key] = (
            condition(card, self._wish, cordoned=cordoned)
            or occupied(card, used, mutex=self._wish.mutex)
            or capacity(card, used, self._request)
        )
        return reason


class _Container:
    """One container's request; `early` says whether nothing of the pod is counted before it."""

    def __init__(
        self, number: int, request: ContainerRequest, part: Part, traits: Sequence[Traits]
    ) -> None:
        self._number, self._count, self._part = number, request.count, part
        self._reasons = _Reasons(request, part.wish, traits)
        self._conditions = _Conditions(part.wish, traits)
        self._refusals: dict[tuple[str | None, ...], Refusal] = {}
        self.early = False

    def refusal(self, offer: OfferDigest) -> Refusal | None:
        """Why too few cards take the request as things stand; None if enough do."""
        keys = offer.keys
        if self._part.wish.any_uuid:
            reasons = tuple(map(self._reasons.__getitem__, keys))
        else:
            reasons = self._by_uuid(offer)
        if reasons.count(None) >= self._count:
            return None
        known = self._refusals.get(reasons)
        if known is None:
            known = self._refusals[reasons] = self._misfit(reasons)
        return known

    def _by_uuid(self, offer: OfferDigest) -> tuple[str | None, ...]:
        allows, found = self._part.wish.allows_uuid, []
        for key, card in zip(offer.keys, offer.offer.cards, strict=True):
            reason = self._reasons[key]
            if not allows(card.uuid):
                # HAMi's order: the UUID is tested after the type and before what is free.
                reason = self._conditions[key] or UUID_MISMATCH
            found.append(reason)
        return tuple(found)

    def _misfit(self, reasons: tuple[str | None, ...]) -> Refusal:
        vendor = self._part.vendor
        if self._count > len(reasons):
            return Refusal(DEVICES_SHORT, True, self._number, (), vendor)
        counted = Counter(reason for reason in reasons if reason is not None)
        cards = tuple((p, reason) for p, reason in enumerate(reasons) if reason is not None)
        if free := reasons.count(None):
            counted[TOO_FEW] = free
        return Refusal(reason_text(counted, len(reasons)), not cards, self._number, cards, vendor)


class _PartProbe:
    """One family's part of a question."""

    def __init__(self, part: Part, traits: Sequence[Traits]) -> None:
        self._part = part
        self._containers: list[_Container] = []
        counted = False
        for number, slot in enumerate(part.shape.slots):
            if slot.request is None:
                continue
            container = _Container(number, slot.request, part, traits)
            container.early = not counted
            self._containers.append(container)
            counted = counted or slot.role is not Role.INIT
        wish, requests = part.wish, [slot.request for slot in part.shape.slots if slot.request]
        self._ordered = wish.numa_bind or part.headroom != PLENTY
        modules = wish.select == SELECT_PAIRS and any(request.count > 1 for request in requests)
        late = any(not container.early for container in self._containers)
        self._certain = not (self._ordered or modules or late)

    def ask(self, digest: Digest) -> Answer | Refusal:
        offer = digest.offers.get(self._part.vendor)
        if offer is None:
            return NOT_REGISTERED
        if offer.closed is not None:
            return _closed(offer.closed)
        if offer.divided:
            # Whether an instance can be made depends on where the others are.
            return Answer.MAYBE
        for container in self._containers:
            refusal = container.refusal(offer)
            if refusal is not None:
                # Which reason comes first depends on the order of the cards, or on earlier ones.
                told = container.early and not self._ordered
                return refusal if told else Answer.NOT_SAID_WHY
        if not self._certain:
            return Answer.MAYBE
        return NO_IDS if self._part.ids > offer.ids_free else Answer.FITS


class Probe:
    """A question, ready to be put to many digests; `traits` is what their keys refer to."""

    def __init__(self, question: Question, traits: Sequence[Traits]) -> None:
        self.question = question
        self._parts = [_PartProbe(part, traits) for part in question.parts]

    def ask(self, digest: Digest | None) -> Answer | Refusal:
        """What the node says; a refusal is the very one that `place` would give."""
        if digest is None:
            return NOT_REGISTERED
        if len(self._parts) == 1:
            return self._parts[0].ask(digest)
        sure = True
        for part in self._parts:
            said = part.ask(digest)
            if isinstance(said, Refusal):
                return said if sure else Answer.NOT_SAID_WHY
            if said is Answer.NOT_SAID_WHY:
                return said
            sure = sure and said is Answer.FITS
        return Answer.FITS if sure else Answer.MAYBE
