"""Whose device ids these are."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami_device_plugin.api import deviceplugin_pb2 as api
from hami_device_plugin.identity import IdentityError, parse


def answer(*names):
    """An Allocate answer with these CDI devices, as the checkpoint stores it."""
    devices = [api.CDIDevice(name=name) for name in names]
    stored = api.ContainerAllocateResponse(cdi_devices=devices).SerializeToString()
    return base64.b64encode(stored).decode()


def entry(uid, container, ids, stored="", resource="nvidia.com/gpu"):
    """One entry of the checkpoint."""
    return {
        "PodUID": uid,
        "ContainerName": container,
        "ResourceName": resource,
        "DeviceIDs": ids,
        "AllocResp": stored,
    }


def checkpoint(*entries, registered=None):
    """A checkpoint file's bytes."""
    data = {"PodDeviceEntries": list(entries) or None, "RegisteredDevices": registered}
    return json.dumps({"Data": data, "Checksum": 7}).encode()


def test_ids_are_compared_as_sets_over_all_numa_nodes():
    """Kubelet keeps them by NUMA node and asks in any order."""
    text = checkpoint(entry("u", "c", {"0": ["b"], "1": ["a"], "2": None}, answer()))
    assert [h.container for h in parse(text).with_ids("nvidia.com/gpu", ["a", "b"])] == ["c"]
    assert parse(text).with_ids("nvidia.com/gpu", ["a"]) == ()
    assert parse(text).with_ids("example.com/other", ["a", "b"]) == ()


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        (answer("hami.io/vgpu=c0123456789"), "c0123456789"),
        (answer("nvidia.com/gpu=0", "hami.io/vgpu=cabcdef012"), "cabcdef012"),
        (answer("nvidia.com/gpu=0"), ""),
        (answer("hami.io/vgpu=../../etc/passwd"), ""),
        ("not base64!", ""),
        (base64.b64encode(b"\xff\xff\xff").decode(), ""),
        ("", ""),
    ],
    ids=["ours", "among others", "another's", "a path", "no base64", "no protobuf", "empty"],
)
def test_the_name_in_a_stored_answer(stored, name):
    """Ours, or nothing; what another plugin stored does no harm."""
    (held,) = parse(checkpoint(entry("u", "c", {"-1": ["a"]}, stored))).held
    assert held.cdi_name == name


def test_a_node_without_devices_has_an_empty_checkpoint():
    """Kubelet writes null for what is not there."""
    empty = parse(b'{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":1}')
    assert empty.held == ()


def test_registered_ids_are_by_resource():
    """They tell a starting plugin what kubelet knew."""
    parsed = parse(checkpoint(registered={"nvidia.com/gpu": ["a", "b"], "x/y": None}))
    assert parsed.registered_of("nvidia.com/gpu") == {"a", "b"}
    assert parsed.registered_of("x/y") == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b'{"Data": {"RegisteredDevices": {"\xff": []}}}',
        b'{"Data": []}',
        b'{"Data": {"PodDeviceEntries": 3}}',
    ],
)
def test_another_form_is_an_error(text):
    """A file of another form is not read as one without devices."""
    with pytest.raises(IdentityError, match="another form"):
        parse(text)


@given(st.lists(st.sets(st.sampled_from("abcdef"), min_size=1), max_size=5))
def test_every_holder_of_a_set_is_found(sets):
    """And nobody else."""
    entries = [entry(str(n), "c", {"-1": sorted(ids)}) for n, ids in enumerate(sets)]
    parsed = parse(checkpoint(*entries))
    for ids in sets:
        expected = [str(n) for n, others in enumerate(sets) if others == ids]
        assert [h.pod_uid for h in parsed.with_ids("nvidia.com/gpu", ids)] == expected
    assert parsed.ids_of("nvidia.com/gpu") == frozenset().union(*sets)


def test_a_checkpoint_that_kubelet_wrote():
    """Written by kubelet 1.34.4: an init and an app container of one pod with the same ids."""
    parsed = parse((Path(__file__).parent / "checkpoint.json").read_bytes())
    held = parsed.with_ids("nvidia.com/gpu", ["slot-0029"])
    assert [(h.container, h.cdi_name) for h in held] == [
        ("prepare", "c6d16b27b8f65269289515701"),
        ("app", "cb622689fc83c5bd38c08f7f3"),
    ]
    assert len({h.pod_uid for h in held}) == 1
    assert parsed.ids_of("nvidia.com/gpu") == {"slot-0002", "slot-0029"}
    assert len(parsed.registered_of("nvidia.com/gpu")) == 40
