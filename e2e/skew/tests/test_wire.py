"""What version 0.1.0 of each component wrote, read by today's: recorded once in wire-0.1.0.json."""

import base64
import gzip
import json
from pathlib import Path

import jsonpatch
import pytest
from msgspec import convert
from msgspec.json import decode

from hami_webhook import asked as narrow
from hami_webhook.mutate import mutate
from hami_webhook.rules import Rules
from hamikit.codec import GrantedDevice, decode_grant, decode_register
from hamikit.devices import NVIDIA
from hamikit.objects import Pod
from hamikit.region import parse_control, parse_usage
from hamikit.region_values import Control, ControlDevice
from hamikit.shape import shape_of

RECORDED = json.loads((Path(__file__).parents[1] / "wire-0.1.0.json").read_text(encoding="utf-8"))
RULES = Rules()
MIB = 1024**2
ADMISSIONS = pytest.mark.parametrize(
    "recorded", RECORDED["admissions"], ids=[each["name"] for each in RECORDED["admissions"]]
)


def asked(value):
    """What admission reads of a pod."""
    return decode(json.dumps(value), type=narrow.Pod)


@ADMISSIONS
def test_a_pod_that_the_old_webhook_completed_needs_nothing_of_the_new_one(recorded):
    """While the replicas change, the API server may ask one of each about the same pod."""
    assert mutate(asked(recorded["stored"]), RULES) == []


@ADMISSIONS
def test_both_webhooks_understand_the_same_request(recorded):
    """The extender reads the same wish from what either made of the pod."""
    patch = mutate(asked(recorded["asked"]), RULES)
    ours = jsonpatch.apply_patch(recorded["asked"], patch)
    old, new = (shape_of(convert(each, Pod), NVIDIA) for each in (recorded["stored"], ours))
    assert new == old
    assert ours["spec"]["schedulerName"] == recorded["stored"]["spec"]["schedulerName"]
    assert ours["metadata"].get("labels") == recorded["stored"]["metadata"].get("labels")


def test_the_cards_that_the_old_plugin_announced():
    """With their places and their health."""
    cards = [
        (c.id, c.index, c.count, c.devmem, c.health) for c in decode_register(RECORDED["register"])
    ]
    assert cards == [("GPU-1", 0, 10, 40960, True), ("GPU-2", 1, 10, 40960, False)]


def test_the_grant_that_the_old_extender_wrote():
    """Two cards for the first container, none for the second."""
    granted = tuple(GrantedDevice(uuid, "NVIDIA", 3000, 30) for uuid in ("GPU-1", "GPU-2"))
    first, second = decode_grant(RECORDED["grant"])
    assert (tuple(first), tuple(second)) == (granted, ())


def test_the_limits_that_the_old_plugin_wrote():
    """All of the memory is the card's own, as there was nothing else then."""
    devices = (ControlDevice("GPU-1", 3000 * MIB, 30), ControlDevice("GPU-2", 1500 * MIB, 0))
    read = parse_control(base64.b64decode(RECORDED["control"]))
    assert read.devices == devices
    assert read.priority == 0
    assert read == Control(
        devices, priority=0, overhead_policy=read.overhead_policy, log_level=read.log_level
    )


def test_the_account_that_the_old_plugin_made():
    """Empty, and of the size that today's monitor expects."""
    usage = parse_usage(gzip.decompress(base64.b64decode(RECORDED["usage"])))
    assert usage.processes == ()
