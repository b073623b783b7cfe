"""Behaviour of hamikit.region_layout: bytes that look right and are not."""

import struct
import zlib

import pytest

from hamikit import region_layout
from hamikit.region_layout import pack_body, pack_control, parse_control, parse_usage
from hamikit.region_values import Control, ControlDevice, RegionError

GRANT = Control((ControlDevice("GPU-a", 1),))


def test_a_body_of_another_epoch_is_not_in_force():
    """Whole as it is, it was written for another moment: the reader looks again."""
    image = bytearray(pack_control(GRANT))
    struct.pack_into("<I", image, region_layout.EPOCH_AT, 2)
    with pytest.raises(RegionError, match="epoch 2"):
        parse_control(bytes(image))
    start = region_layout.BODY_AT
    image[start : start + region_layout.BODY_SIZE] = pack_body(GRANT, 2)
    assert parse_control(bytes(image)) == GRANT


def test_more_devices_than_the_layout_holds():
    """A count that nobody may write is an error of the file, not of the reader."""
    image = bytearray(pack_control(GRANT))
    at = region_layout.BODY_AT
    struct.pack_into("<I", image, at + 12, region_layout.MAX_DEVICES + 1)
    body = bytes(image[at + 4 : at + region_layout.BODY_SIZE])
    struct.pack_into("<I", image, at, zlib.crc32(body))
    with pytest.raises(RegionError, match="17 devices"):
        parse_control(bytes(image))


def test_a_file_that_lacks_its_last_byte():
    """Truncated is truncated."""
    usage = region_layout.HEADER.pack(b"HAMIUSGE", 1, region_layout.USAGE_SIZE)
    usage = usage.ljust(region_layout.USAGE_SIZE, b"\0")
    assert parse_usage(usage).processes == ()
    with pytest.raises(RegionError, match="truncated"):
        parse_usage(usage[:-1])
    with pytest.raises(RegionError, match="truncated"):
        parse_control(pack_control(GRANT)[:-1])
