"""Whatever checkpoint and annotation say: refused with words, or the container's own cards."""

import base64
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from plugin_kit import CARDS, NVIDIA_SPEC, Node, make_pod

from hami_device_plugin import inventory
from hami_device_plugin.access import Access
from hami_device_plugin.answer import CdiTelling, token
from hami_device_plugin.carving import Capabilities
from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.hostfiles import HostFiles
from hami_device_plugin.identity import Checkpoint, IdentityError, parse
from hami_device_plugin.parts import Parts
from hami_device_plugin.pods import Pods
from hami_device_plugin.preparer import Preparer
from hami_device_plugin.refusal import Refusal
from hami_device_plugin.settings import Settings
from hami_device_plugin.stock import Stock
from hamikit import names

A, B = "6f1d2c3b-0a94-4f3e-9b57-1c2d3e4f5a6b", "e0b8a7d6-5c4f-4a3b-8d21-9f8e7d6c5b4a"
TOKENS = {A: "ca1b2c3d4e5f60718", B: "c0f1e2d3c4b5a6978"}
GRANTS = {A: "GPU-a,NVIDIA,3000,30:;", B: "GPU-b,NVIDIA,4000,40:;"}
IDS = {A: ["slot-0001"], B: ["slot-0002"]}
NODES = {"GPU-a": "/dev/nvidia0", "GPU-b": "/dev/nvidia1"}

TELLING = [b"null", b"{}", b"[]", b'"', b"\\", b"-1", b"slot-0002", b"GPU-b", b"\x00", b";", b","]
EDIT = st.tuples(
    st.integers(0, 10_000), st.integers(0, 12), st.binary(max_size=6) | st.sampled_from(TELLING)
)
EDITS = st.lists(EDIT, max_size=5)


def edited(data, edits):
    """Bytes with parts cut out and others put in."""
    for at, cut, put in edits:
        begin = at % (len(data) + 1)
        data = data[:begin] + put + data[begin + cut :]
    return data


def checkpoint():
    """As kubelet keeps it: a container of each pod."""
    entries = [
        {
            "PodUID": uid,
            "ContainerName": "c",
            "ResourceName": names.RESOURCE_COUNT,
            "DeviceIDs": {"-1": IDS[uid]},
            "AllocResp": base64.b64encode(token(TOKENS[uid]).SerializeToString()).decode(),
        }
        for uid in (A, B)
    ]
    data = {"PodDeviceEntries": entries, "RegisteredDevices": {names.RESOURCE_COUNT: ["slot-0001"]}}
    return json.dumps({"Data": data, "Checksum": 1}).encode()


class Always:
    """A node whose containers get their cards by CDI."""

    now = Access(names.BINDING_LATE, names.CARDS_BY_CDI)

    def look(self):
        """As ever."""
        return self.now


class Here:
    """The deciding part of a plugin on a node of its own, with both pods."""

    def __init__(self, text, grants):
        self.root = Path(tempfile.mkdtemp(prefix="hdpf"))
        self.node = Node(self.root)
        (self.node.static / "nvidia.yaml").write_text(NVIDIA_SPEC.replace("GPU-b", "1"))
        self.told, self.words = [], []
        files = HostFiles(self.node.vgpu)
        files.prepare()
        stock = Stock(names.RESOURCE_COUNT, Checkpoint)
        stock.update(inventory.announced(CARDS, Settings()))
        pods = Pods(lambda: None, lambda *_: None)
        pods.complete = lambda: True
        for uid in (A, B):
            pods.learn(make_pod(uid, grants[uid]))
        parts = Parts(
            node="n1",
            settings=Settings,
            stock=stock,
            read_checkpoint=lambda: parse(text),
            pods=pods,
            files=files,
            cdi=CdiFiles((self.node.static,), self.node.cdi),
            access=Always(),
            report=lambda *said: self.told.append(said),
            cdi_telling=CdiTelling(),
            divisions=lambda _: None,
            capabilities=Capabilities(),
        )
        self.preparer = Preparer(parts)

    def start(self, uid):
        """Whether a container of this pod may start; who refuses says why."""
        try:
            self.preparer.attempt(IDS[uid])
        except Refusal as refusal:
            self.words.append(str(refusal))
            return False
        return True

    def cards(self):
        """The cards that each of the two tokens brings."""
        specs = self.node.specs()
        return {
            uid: {node["path"] for node in specs[name]["deviceNodes"]} & set(NODES.values())
            for uid, name in TOKENS.items()
            if name in specs
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.root)


OUTCOMES = Counter()


@given(EDITS)
def test_a_spoilt_checkpoint(edits):
    """Never a fault, never a card of the other pod's for a container."""
    with Here(edited(checkpoint(), edits), GRANTS) as here:
        for uid in (A, B):
            OUTCOMES[here.start(uid)] += 1
        assert all(here.words)
        for uid, cards in here.cards().items():
            own = {A: {"/dev/nvidia0"}, B: {"/dev/nvidia1"}}[uid]
            assert cards <= own


def test_both_outcomes_were_seen():
    """Else the test before this one would prove nothing."""
    test_a_spoilt_checkpoint()
    assert min(OUTCOMES[True], OUTCOMES[False]) > 0


@given(st.binary(max_size=200) | EDITS.map(lambda edits: edited(checkpoint(), edits)))
def test_any_checkpoint_is_read_or_refused(text):
    """And who is found by ids holds exactly these."""
    try:
        found = parse(text)
    except IdentityError:
        return
    for held in found.held:
        again = found.with_ids(held.resource, held.ids)
        assert held in again
        assert {other.ids for other in again} == {held.ids}


@given(
    st.text(max_size=40)
    | EDITS.map(lambda edits: edited(GRANTS[A].encode(), edits).decode("utf-8", "replace"))
)
def test_any_grant(text):
    """A container gets the cards that its pod's annotation names, or none."""
    with Here(checkpoint(), {**GRANTS, A: text}) as here:
        started = here.start(A)
        assert here.start(B) or started
        found = here.cards()
        assert found.get(A, set()) <= {path for card, path in NODES.items() if card in text}
        assert (A in found) is started
        assert found.get(B, {"/dev/nvidia1"}) == {"/dev/nvidia1"}
