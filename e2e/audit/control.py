"""The node's side: control files, read by the C header alone."""

import io
import struct
import tarfile
import zlib

from e2e.audit.model import ControlFile, Limit, Owner

# components/hami-core/include/hami_region.h, layout version 1.
_HEADER = struct.Struct("<8sIII")  # magic, layout_version, size, epoch
_BODY_AT, _BODY_SIZE = 128, 1920
_BODY = struct.Struct("<IIII")  # crc32, generation, flags, device_count
_DEVICES_AT = 128  # in the body
_DEVICE = struct.Struct("<64sQI36x")  # uuid, memory_limit_bytes, core_limit_percent
_SIZE, _VERSION, _MAX_DEVICES = 4096, 1, 16


def parse_control(data: bytes) -> ControlFile:
    """The limits in force, or why they cannot be read."""
    if len(data) != _SIZE:
        return ControlFile(fault=f"{len(data)} bytes instead of {_SIZE}")
    magic, version, size, epoch = _HEADER.unpack_from(data)
    if (magic, version, size) != (b"HAMICTRL", _VERSION, _SIZE):
        return ControlFile(fault=f"header {magic!r}, layout {version}, size {size}")
    start = _BODY_AT + (epoch & 1) * _BODY_SIZE
    body = data[start : start + _BODY_SIZE]
    crc, generation, _flags, count = _BODY.unpack_from(body)
    if generation != epoch or zlib.crc32(body[4:]) != crc or count > _MAX_DEVICES:
        return ControlFile(fault=f"the body of epoch {epoch} is damaged")
    found = (_DEVICE.unpack_from(body, _DEVICES_AT + i * _DEVICE.size) for i in range(count))
    return ControlFile(
        tuple(
            Limit(uuid.partition(b"\0")[0].decode("ascii", "replace"), memory, cores)
            for uuid, memory, cores in found
        )
    )


def parse_archive(data: bytes) -> dict[Owner, ControlFile]:
    """(pod UID, container) -> control file, out of a tar of a node's containers folder."""
    found: dict[Owner, ControlFile] = {}
    if not data:
        return found
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            folder, _, name = member.name.removeprefix("./").rpartition("/")
            uid, separator, container = folder.rpartition("/")[2].partition("_")
            if name != "control" or not separator:
                continue
            file = archive.extractfile(member) if member.isfile() else None
            found[uid, container] = (
                parse_control(file.read()) if file else ControlFile(fault="is no regular file")
            )
    return found
