"""What MIG can make of each card: profiles and their places, as NVML tells them."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from hami_device_plugin.made import Made, instances
from hami_device_plugin.settings import MigGroup
from hamikit.gpu import Card, GpuError
from hamikit.instances import MigProfile
from hamikit.profiles import offered

log = structlog.get_logger()

_PLAIN = re.compile(r"\d+g\.[^+-]+")
"""Profiles without a variant's suffix, such as +me, -me, +gfx."""


@dataclass(frozen=True, slots=True)
class Division:
    """A card that knows MIG; `profiles` are empty while the mode is off or not told.

    `minor` is the number of its device node, known while the mode is on. A card that is not
    `known` has not told yet whether it is divided: nothing of it may be given out.
    """

    on: bool
    minor: int | None = None
    profiles: tuple[MigProfile, ...] = ()
    known: bool = True


SILENT = Division(on=False, known=False)


class Divisions:
    """Looks at the cards' modes; profiles are asked for once, they stay while the mode does.

    `groups` is the operator's allow list as of now. Instances are read only where they are offered
    as they are (`static`); `made` has them.
    """

    def __init__(
        self,
        nvml: Callable[[], Any],
        groups: Callable[[], Sequence[MigGroup]] = lambda: (),
        static: Callable[[], bool] = lambda: False,
    ) -> None:
        self._nvml, self._groups, self._static = nvml, groups, static
        self.made: Mapping[str, tuple[Made, ...]] = {}
        self._offered: dict[str, tuple[MigProfile, ...]] = {}
        self._now: dict[str, Division] = {}
        self._failing: set[str] = set()

    def of(self, uuid: str) -> Division | None:
        """A card as it was at the last look; None for one that knows no MIG."""
        return self._now.get(uuid)

    def look(self, handles: Sequence[tuple[Card, Any]]) -> Mapping[str, Division]:
        """Every card that knows MIG, those too that do not answer now."""
        try:
            nvml = self._nvml()
        except GpuError:
            return self._now
        found = dict(self._now)
        for card, handle in handles:
            division = self._division(nvml, card, handle)
            if division is None:
                found.pop(card.uuid, None)
            else:
                found[card.uuid] = division
        self._now = found
        self.made = self._made(nvml, handles) if self._static() else {}
        return found

    def _made(
        self, nvml: Any, handles: Sequence[tuple[Card, Any]]
    ) -> Mapping[str, tuple[Made, ...]]:
        """The instances of each divided card; those of one that fails are what they were."""
        found = dict(self.made)
        for card, handle in handles:
            if not self._now.get(card.uuid, SILENT).on:
                found.pop(card.uuid, None)
                continue
            try:
                found[card.uuid] = tuple(instances(nvml, handle, card.uuid))
            except nvml.NVMLError as error:
                log.warning("instances cannot be read", uuid=card.uuid, error=str(error))
        return found

    def _division(self, nvml: Any, card: Card, handle: Any) -> Division | None:
        """What a card says now; one that fails is what it was, until it says something else."""
        before = self._now.get(card.uuid, SILENT)
        try:
            on = bool(nvml.nvmlDeviceGetMigMode(handle)[0])
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                return None
            self._failed(card, error)
            return before
        if not on:
            self._offered.pop(card.uuid, None)
            self._failing.discard(card.uuid)
            return Division(on=False)
        try:
            minor = int(nvml.nvmlDeviceGetMinorNumber(handle))
            if not self._offered.get(card.uuid):
                self._offered[card.uuid] = tuple(_profiles(nvml, handle))
        except nvml.NVMLError as error:
            self._failed(card, error)
            return before if before.on else Division(on=True)
        self._failing.discard(card.uuid)
        return Division(on, minor, chosen(card.name, self._offered[card.uuid], self._groups()))

    def _failed(self, card: Card, error: Exception) -> None:
        if card.uuid not in self._failing:
            log.warning("card does not say how MIG divides it", uuid=card.uuid, error=str(error))
        self._failing.add(card.uuid)


def _profiles(nvml: Any, handle: Any) -> Iterator[MigProfile]:
    """All profiles of a card whose mode is on; `core` is what HAMi v2.10 makes of it."""
    found = list(offered(nvml, handle))
    most = max((each.multiprocessors for each in found), default=1)
    for each in found:
        core = -(-each.multiprocessors * 100 // most)
        yield MigProfile(each.name, each.memory_mib, core, each.slices, each.placements)


def chosen(
    model: str, offered: Sequence[MigProfile], groups: Sequence[MigGroup] = ()
) -> tuple[MigProfile, ...]:
    """The profiles of a model that are announced: those of the allow list, else the useful ones.

    Of several groups the one counts that names the model most exactly: H20 is no H200. Without a
    group: one profile of each number of slices, if it has more memory than those with fewer.
    """
    matching = [(len(m), group) for group in groups for m in group.models if m in model]
    if not matching:
        return tuple(_useful(offered))
    _, group = max(matching, key=lambda pair: pair[0])
    named = (_named(name, offered) for name in group.profiles)
    return tuple(dict.fromkeys(profile for profile in named if profile is not None))


def _useful(offered: Sequence[MigProfile]) -> Iterator[MigProfile]:
    memory = 0
    for slices in sorted({profile.slices for profile in offered}):
        plain = _named(f"{slices}g.", offered)
        if plain is not None and plain.memory_mib > memory:
            memory = plain.memory_mib
            yield plain


def _named(name: str, offered: Sequence[MigProfile]) -> MigProfile | None:
    """The profile of this name, else the plain one of as many slices: drivers spell 7g.79gb so."""
    prefix = name.partition(".")[0] + "."
    plain = [p for p in offered if p.name.startswith(prefix) and _PLAIN.fullmatch(p.name)]
    exact = next((p for p in offered if p.name == name), None)
    return exact or min(plain, key=lambda p: p.memory_mib, default=None)
