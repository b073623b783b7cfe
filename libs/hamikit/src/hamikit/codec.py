"""The annotation formats of HAMi v2.10: a node's cards, a pod's grant, the node lock.

Byte-level rules: compact JSON, keys in a fixed order, zero values left out of register entries,
`<`, `>` and `&` escaped as Go's encoder does.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Any

import msgspec

from hamikit.instances import MigInstance, MigProfile
from hamikit.names import MODE_HAMI_CORE

INT32_MAX = 2**31 - 1
_NUMBER = re.compile(r"[+-]?[0-9]{1,10}")
GO_TRUE = ("1", "t", "T", "TRUE", "true", "True")
GO_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_ESCAPED = re.compile("[<>&\u2028\u2029]")


class CodecError(ValueError):
    """An annotation that does not follow its format."""


class RegisteredDevice(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A card as its node announces it; `devmem` in MiB and `devcore` in percent, after scaling.

    `count` is how many tasks may share the card. Field order is the order on the wire.
    """

    id: str = ""
    index: int = 0
    count: int = 0
    devmem: int = 0
    devcore: int = 0
    type: str = ""
    numa: int = 0
    mode: str = ""
    mig_profiles: tuple[MigProfile, ...] = msgspec.field(default=(), name="migProfiles")
    health: bool = False
    custominfo: dict[str, Any] | None = None


_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""A node may write anything, and nothing that it writes may end whoever reads it: a list in a list
in a list has a quarter of a million levels in an annotation."""
_REGISTER = msgspec.json.Decoder(list[RegisteredDevice])
_SPELT = {name.lower(): name for name in ("migProfiles", "memoryMB", "sliceCount")}


def decode_register(text: str) -> list[RegisteredDevice]:
    """Read the register annotation; keys in any case and unknown keys are accepted, as in Go.

    Raises:
        CodecError: not a JSON array of device objects, or an empty one.
    """
    try:
        devices = _REGISTER.decode(text)
    except msgspec.ValidationError:
        devices = _decode_any_case(text)
    except _UNREADABLE as error:
        raise CodecError(f"register annotation is not JSON: {error}") from error
    if any(not device.id for device in devices):
        devices = _decode_any_case(text)
    if not devices:
        raise CodecError("register annotation lists no device")
    return devices


def _decode_any_case(text: str) -> list[RegisteredDevice]:
    try:
        entries = msgspec.convert(json.loads(text), list[dict[str, Any]])
        devices = msgspec.convert(list(map(_any_case, entries)), list[RegisteredDevice])
    except _UNREADABLE as error:
        raise CodecError(f"register annotation is not an array of devices: {error}") from error
    if any(not device.id for device in devices):
        raise CodecError("register annotation has a device without id")
    return devices


def _any_case(value: Any) -> Any:
    """The same with the keys as they are spelt here, which matters to us and not to Go."""
    if isinstance(value, list):
        return [_any_case(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        _SPELT.get(key.lower(), key.lower()): (
            one if key.lower() == "custominfo" else _any_case(one)
        )
        for key, one in value.items()
    }


def go_json(value: Any) -> str:
    """Encode as Go does: compact, UTF-8, with `<`, `>`, `&`, U+2028 and U+2029 escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def encode_register(devices: Iterable[RegisteredDevice]) -> str:
    """Write the register annotation, ordered by index so that equal hardware gives equal text."""
    ordered = sorted(devices, key=lambda device: (device.index, device.id))
    return go_json([msgspec.to_builtins(device) for device in ordered])


def decode_register_csv(text: str) -> list[RegisteredDevice]:
    """Read the older text form: seven or nine comma fields a device, each closed by `:`.

    Raises:
        CodecError: no `:` at all, or a device whose fields are not what they have to be.
    """
    if ":" not in text:
        raise CodecError(f"register annotation {text[:80]!r} has no ':' after a device")
    return [_csv_device(piece) for piece in text.split(":") if piece]


def _csv_device(piece: str) -> RegisteredDevice:
    fields = piece.split(",")
    if len(fields) not in (7, 9):
        raise CodecError(f"register entry {piece!r} has {len(fields)} fields, needs 7 or 9")
    index, mode = fields[7:] if len(fields) == 9 else ("0", MODE_HAMI_CORE)
    health = fields[6] in GO_TRUE
    if not health and fields[6] not in GO_FALSE:
        raise CodecError(f"register entry {piece!r}: {fields[6]!r} is neither true nor false")
    count, memory, cores, numa, number = (
        _int32(piece, text, "register") for text in (*fields[1:4], fields[5], index)
    )
    if number < 0:
        raise CodecError(f"register entry {piece!r}: index {number} is negative")
    return RegisteredDevice(
        id=fields[0], index=number, count=count, devmem=memory, devcore=cores,
        type=fields[4], numa=numa, mode=mode, health=health,
    )  # fmt: skip


def encode_register_csv(devices: Iterable[RegisteredDevice]) -> str:
    """Write the older text form, nine fields a device."""
    return "".join(
        f"{d.id},{d.count},{d.devmem},{d.devcore},{d.type},{d.numa},{str(d.health).lower()},"
        f"{d.index},{d.mode}:"
        for d in devices
    )


class _PairScore(msgspec.Struct, frozen=True):
    uuid: str = ""
    score: dict[str, int] = {}


_PAIR_SCORES = msgspec.json.Decoder(list[_PairScore])


def decode_pair_scores(text: str) -> dict[str, dict[str, int]]:
    """Read the pair score annotation: card -> other card -> how well they are connected.

    Raises:
        CodecError: not such a JSON array.
    """
    try:
        return {entry.uuid: entry.score for entry in _PAIR_SCORES.decode(text)}
    except _UNREADABLE as error:
        raise CodecError(f"pair scores are no array of uuid and score: {error}") from error


@dataclass(frozen=True, slots=True)
class GrantedDevice:
    """A slice of one card: `memory_mib` MiB and `cores` percent of it.

    `instance` is what the slice is on a card that MIG divides; it stands in a record of its own.
    """

    uuid: str
    vendor: str
    memory_mib: int
    cores: int
    instance: MigInstance | None = None


Slots = tuple[tuple[GrantedDevice, ...], ...]
"""A grant: one entry per container, init containers first; empty where nothing was asked."""


def encode_grant(slots: Sequence[Sequence[GrantedDevice]]) -> str:
    """Write a grant: every device ends in `:`, every container in `;`."""
    return "".join(
        "".join(f"{d.uuid},{d.vendor},{d.memory_mib},{d.cores}:" for d in slot) + ";"
        for slot in slots
    )


def decode_grant(text: str) -> Slots:
    """Read a grant; any number of trailing `;` is accepted, they say nothing.

    Raises:
        CodecError: a device with fewer than four fields or a number that is none.
    """
    slots = [tuple(map(_device, filter(_has_fields, s.split(":")))) for s in text.split(";")]
    # encode_grant closes each slot, so what follows the last `;` is not a container.
    if slots and not slots[-1]:
        slots.pop()
    return tuple(slots)


def _has_fields(piece: str) -> bool:
    return "," in piece


def _device(piece: str) -> GrantedDevice:
    fields = piece.split(",")
    if len(fields) < 4:
        raise CodecError(f"grant entry {piece!r} has {len(fields)} fields, needs 4")
    # Many pods name the same card; one copy of its name will do.
    uuid, vendor = intern(fields[0]), intern(fields[1])
    return GrantedDevice(uuid, vendor, _int32(piece, fields[2]), _int32(piece, fields[3]))


def _int32(piece: str, text: str, what: str = "grant") -> int:
    # int() would also take blanks, underscores and other scripts' digits; Go's parser does not.
    if _NUMBER.fullmatch(text) is None:
        raise CodecError(f"{what} entry {piece!r}: {text!r} is not a number")
    value = int(text)
    if abs(value) > INT32_MAX:
        raise CodecError(f"{what} entry {piece!r}: {text!r} does not fit 32 bits")
    return value


def split_list(text: str) -> tuple[str, ...]:
    """Entries of a comma list, trimmed, empty ones dropped."""
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)


def default_mode(device: RegisteredDevice) -> str:
    """How the card is shared; an entry without mode comes from before modes existed."""
    return device.mode or MODE_HAMI_CORE
