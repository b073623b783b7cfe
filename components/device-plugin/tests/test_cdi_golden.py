"""CDI specifications as `nvidia-ctk cdi generate` and people write them, and what becomes of them.

Those in cdi/ and cdi/merged/ are accepted by the CDI library that container runtimes use
(tags.cncf.io/container-device-interface 1.1.0).
"""

import json
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plugin_kit import FakeCluster, make_pod, run, whole

from hami_device_plugin.cdi import HostPaths, card_edits, merge, our_edits, specification
from hami_device_plugin.cdifiles import CdiFiles
from hami_device_plugin.grant import ContainerGrant, Slice
from hamikit.shape import Role

FOLDER = Path(__file__).parent / "cdi"
GIVEN = sorted(path.name for path in FOLDER.glob("*.*"))
A, B = "GPU-aaaaaaaa-0000-4000-8000-000000000000", "GPU-bbbbbbbb-0000-4000-8000-000000000000"
PATHS = HostPaths("/h", "/h/lib", "/h/preload", "/h/control", "/h/usage")


def given_spec(name, folder):
    """One of the given files, in a node's folder."""
    (folder / name).write_bytes((FOLDER / name).read_bytes())
    (spec,) = CdiFiles((folder,), folder).node_specs()
    return spec


def merged(spec, *cards):
    """The whole document for a container with these cards."""
    version, edits = card_edits([spec], cards)
    slices = tuple(Slice(uuid, 3000, 30) for uuid, _ in cards)
    ours = our_edits(ContainerGrant("c", Role.APP, slices), PATHS, visible="void")
    return specification("c0123456789", version, merge([edits, ours]))


def device_nodes(document):
    """The paths of a merged document's device nodes."""
    return [node["path"] for node in document["devices"][0]["containerEdits"]["deviceNodes"]]


def test_every_version_and_form_is_among_them():
    """Both file formats, versions 0.5 to 1.1, names by index, UUID, both, type and index."""
    assert GIVEN == [
        "both-1.0.0.yaml",
        "index-0.5.0.yaml",
        "net-1.1.0.json",
        "type-index-0.7.0.yaml",
        "uuid-0.6.0.json",
    ]


@pytest.mark.parametrize("name", GIVEN)
def test_the_second_card_alone(tmp_path, name):
    """Its own edits, those for every card, and ours: nothing lost, nothing of the other card."""
    document = merged(given_spec(name, tmp_path), (B, 1))
    expected = json.loads((FOLDER / "merged" / name).with_suffix(".json").read_text())
    assert document == expected


@pytest.mark.parametrize("name", GIVEN)
def test_both_cards(tmp_path, name):
    """In the grant's order, what they have in common once."""
    document = merged(given_spec(name, tmp_path), (B, 1), (A, 0))
    edits = document["devices"][0]["containerEdits"]
    nodes = device_nodes(document)
    assert [path for path in nodes if path[-1:].isdigit() and "/dev/nvidia" in path][:1] == [
        "/dev/nvidia1"
    ]
    assert {"/dev/nvidia0", "/dev/nvidia1"} < {*nodes, "/dev/null"}
    assert len(nodes) == len(set(nodes))
    for field in ("hooks", "mounts", "env"):
        texts = [json.dumps(item) for item in edits.get(field, ())]
        assert len(texts) == len(set(texts))


def test_what_is_younger_than_the_file_says_raises_the_version():
    """A runtime refuses a specification with fields that came after its version."""
    assert specification("c", "0.6.0", {"additionalGids": [44]})["cdiVersion"] == "0.7.0"
    assert specification("c", "0.6.0", {"netDevices": [{"name": "x"}]})["cdiVersion"] == "1.1.0"
    assert specification("c", "0.6.0", {"additionalGids": []})["cdiVersion"] == "0.6.0"


def test_all_cards_are_never_what_one_card_is(node):
    """A specification that knows no single card is refused with the command that mends it."""
    every = {"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}}
    document = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [every]}
    (node.static / "nvidia.yaml").write_text(json.dumps(document))

    async def scenario():
        cluster = FakeCluster([make_pod("u1", "GPU-a,NVIDIA,100,0:;")])
        async with whole(node, cluster) as (kubelet, _):
            await kubelet.admit("u1", "c", ["slot-0000"])
            assert "nvidia-ctk cdi generate" in await kubelet.refused(["slot-0000"])
            assert node.specs() == {}

    run(scenario())


HEAD = "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\n"
MALFORMED = {
    "no YAML": (f"{HEAD}devices: [", "cannot be read"),
    "a key twice": (f"{HEAD}kind: nvidia.com/gpu\n", "cannot be read"),
    "no UTF-8": (HEAD.encode() + b"# \xff", "cannot be read"),
    "two documents": (f"{HEAD}---\n{HEAD}", "cannot be read"),
    "no version": ("kind: nvidia.com/gpu\n", "`cdiVersion`"),
    "a version that is none": ("kind: nvidia.com/gpu\ncdiVersion: latest\n", "'latest'"),
    "a version as a number": ("kind: nvidia.com/gpu\ncdiVersion: 0.6\n", "`$.cdiVersion`"),
    "devices as a mapping": (f"{HEAD}devices: {{a: b}}\n", "`$.devices`"),
    "a device without a name": (f"{HEAD}devices: [containerEdits: {{}}]\n", "`name`"),
    "a device twice": (f"{HEAD}devices: [name: '0', name: '0']\n", "two devices '0'"),
    "a variable that is no text": (f"{HEAD}containerEdits: {{env: [1]}}\n", ".env[0]"),
    "variables as text": (f"{HEAD}containerEdits: {{env: A=1}}\n", "`$.containerEdits.env`"),
    "a node without a path": (f"{HEAD}containerEdits: {{deviceNodes: [{{}}]}}\n", "`path`"),
    "a mount without a source": (
        f"{HEAD}containerEdits: {{mounts: [{{containerPath: /x}}]}}\n",
        "`hostPath`",
    ),
    "a hook as text": (f"{HEAD}containerEdits: {{hooks: [run-me]}}\n", ".hooks[0]"),
    "a date": (f"{HEAD}containerEdits: {{made: 2026-01-01}}\n", "date"),
    "a loop": (f"{HEAD}containerEdits: &x {{made: *x}}\n", "Circular"),
    "no number": (f"{HEAD}containerEdits: {{made: .nan}}\n", "float"),
}


@pytest.mark.parametrize(("text", "words"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_file_is_told_once_and_the_others_are_used(node, text, words):
    """One line in the log that names the file, however often the plugin looks."""
    bad = node.static / "bad.yaml"
    bad.write_bytes(text if isinstance(text, bytes) else text.encode())
    cdi = CdiFiles((node.static, node.cdi), node.cdi)
    with structlog.testing.capture_logs() as lines:
        found = [cdi.node_specs() for _ in range(3)]
    assert [[spec.path for spec in specs] for specs in found] == [
        [f"{node.static}/nvidia.yaml"]
    ] * 3
    (line,) = lines
    assert words in line["error"]
    assert "\n" not in line["error"]
    assert line["error"].startswith(str(bad))
    assert cdi.faults() == [line["error"]]
    bad.unlink()
    cdi.node_specs()
    assert cdi.faults() == []


def test_who_has_only_a_malformed_file_is_told_which(node):
    """On the node, and on the pod that waits."""
    (node.static / "nvidia.yaml").write_text(f"{HEAD}devices: 3\n")

    async def scenario():
        cluster = FakeCluster([make_pod("u1", "GPU-a,NVIDIA,100,0:;")])
        async with whole(node, cluster) as (kubelet, daemon):
            daemon.access.runs("containerd://2.2.1")
            assert f"{node.static}/nvidia.yaml is no CDI spec" in daemon.access.now.reason
            await kubelet.admit("u1", "c", ["slot-0000"])
            assert "nvidia.yaml is no CDI spec" in await kubelet.refused(["slot-0000"])

    run(scenario())


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats()
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "containerEdits", "env", "deviceNodes", "path", "hooks", "mounts", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(devices=ANYTHING, edits=ANYTHING, version=st.just("0.6.0") | ANYTHING)
def test_whatever_a_file_says_it_is_used_or_told(node, devices, edits, version):
    """What is taken for a specification merges into one that can be written."""
    document = {"cdiVersion": version, "kind": "nvidia.com/gpu", "devices": devices}
    path = node.static / "nvidia.json"
    path.write_text(json.dumps({**document, "containerEdits": edits}))
    cdi = CdiFiles((node.static,), node.cdi)
    specs = {spec.path: spec for spec in cdi.node_specs()}
    assert (str(path) in specs) != any(str(path) in fault for fault in cdi.faults())
    if str(path) in specs:
        for name in specs[str(path)].devices:
            cdi.write("c1", merged(specs[str(path)], (name, 0)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(GIVEN),
    st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_a_spoilt_file_is_used_or_told(node, name, changes):
    """Bytes of a good file are overwritten; a card's edits never come from the other card."""
    data = bytearray((FOLDER / name).read_bytes())
    for at, junk in changes:
        data[at % len(data) : at % len(data) + len(junk)] = junk
    path = node.static / name
    path.write_bytes(data)
    cdi = CdiFiles((node.static,), node.cdi)
    specs = {spec.path: spec for spec in cdi.node_specs()}
    path.unlink()
    if str(path) in specs:
        for found in specs[str(path)].devices:
            cdi.write("c1", merged(specs[str(path)], (found, 0)))
