"""CDI specifications as values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami_device_plugin.cdi import (
    CdiError,
    HostPaths,
    card_edits,
    merge,
    node_spec,
    our_edits,
    specification,
)
from hami_device_plugin.grant import ContainerGrant, Slice
from hamikit.shape import Role

PATHS = HostPaths("/h", "/h/lib", "/h/preload", "/h/control", "/h/usage")


def document(version="0.6.0", kind="nvidia.com/gpu", common=None, **devices):
    """A parsed CDI file."""
    listed = [{"name": name.strip("_"), "containerEdits": e} for name, e in devices.items()]
    return {"cdiVersion": version, "kind": kind, "devices": listed, "containerEdits": common or {}}


def nodes(*paths):
    """Edits with device nodes."""
    return {"deviceNodes": [{"path": path} for path in paths]}


def spec(*arguments, path="/etc/cdi/nvidia.yaml", **more):
    """A node's specification."""
    return node_spec(path, document(*arguments, **more))


@pytest.mark.parametrize("name", ["GPU-x", "3", "gpu3"])
def test_a_card_goes_by_whichever_name_the_spec_has(name):
    """UUID, index or type and index, as `nvidia-ctk --device-name-strategy` chose."""
    found = spec(common=nodes("/dev/nvidiactl"), **{name: nodes("/dev/nvidia3")})
    version, edits = card_edits([found], [("GPU-x", 3)])
    assert version == "0.6.0"
    assert edits == nodes("/dev/nvidiactl", "/dev/nvidia3")


def test_several_cards_and_the_common_edits_once():
    """In the order of the grant, nothing doubled."""
    found = spec(
        common=nodes("/dev/ctl"), _0=nodes("/dev/0", "/dev/cap"), _1=nodes("/dev/1", "/dev/cap")
    )
    _, edits = card_edits([found], [("b", 1), ("a", 0)])
    assert edits == nodes("/dev/ctl", "/dev/1", "/dev/cap", "/dev/0")


def test_a_later_folder_wins():
    """As for the runtime: /var/run/cdi before /etc/cdi."""
    static, dynamic = spec(_0=nodes("/old")), spec("0.7.0", _0=nodes("/new"))
    assert card_edits([static, dynamic], [("a", 0)]) == ("0.7.0", nodes("/new"))


def test_a_card_that_no_spec_has_is_named_with_what_there_is():
    """And the person is told what to run."""
    with pytest.raises(
        CdiError, match=r"card GPU-x .index 7. .* has 0, all.*nvidia-ctk cdi generate"
    ):
        card_edits([spec(_0={}, all={})], [("GPU-x", 7)])


def test_other_kinds_are_none_of_ours():
    """Neither are files that hold no mapping."""
    assert node_spec("p", document(kind="example.com/nic")) is None
    assert node_spec("p", ["x"]) is None


@pytest.mark.parametrize("broken", [{"devices": [{}]}, {"devices": 3}, {"containerEdits": "x"}])
def test_a_broken_spec_is_named(broken):
    """With the file's path."""
    with pytest.raises(CdiError, match=r"/etc/cdi/x\.json is no CDI specification"):
        node_spec("/etc/cdi/x.json", {**document(), **broken})


def test_ours_come_last():
    """Our NVIDIA_VISIBLE_DEVICES wins over the one in the node's spec."""
    grant = ContainerGrant("c", Role.APP, (Slice("GPU-a", 3000, 30), Slice("GPU-b", 2, 0)))
    merged = merge(
        [{"env": ["NVIDIA_VISIBLE_DEVICES=all", "X=1"]}, our_edits(grant, PATHS, visible="void")]
    )
    assert merged["env"] == [
        "NVIDIA_VISIBLE_DEVICES=void",
        "X=1",
        "CUDA_DEVICE_MEMORY_LIMIT_0=3000m",
        "CUDA_DEVICE_MEMORY_LIMIT_1=2m",
        "CUDA_DEVICE_SM_LIMIT=30",
        "CUDA_DEVICE_MEMORY_SHARED_CACHE=/usr/local/vgpu/usage",
    ]


def test_oversubscription_is_told():
    """HAMi's variable, where memory is announced scaled up."""
    grant = ContainerGrant("c", Role.APP, (Slice("GPU-a", 1, 0),))
    edits = our_edits(grant, PATHS, visible="void", oversubscribed=True)
    assert "CUDA_OVERSUBSCRIBE=true" in edits["env"]


def test_the_limiters_folder_is_a_mount_point():
    """Root in a container can rename a folder and all that is mounted in it, not a mount point."""
    grant = ContainerGrant("c", Role.APP, (Slice("GPU-a", 1, 0),))
    mounts = our_edits(grant, PATHS, visible="void")["mounts"]
    assert mounts[0]["containerPath"] == "/usr/local/vgpu"


def test_only_the_usage_file_is_writable():
    """A tenant may write nothing else of ours."""
    grant = ContainerGrant("c", Role.APP, (Slice("GPU-a", 1, 0),))
    mounts = our_edits(grant, PATHS, visible="void")["mounts"]
    writable = [m["containerPath"] for m in mounts if "ro" not in m["options"]]
    assert writable == ["/usr/local/vgpu/usage"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("0.3.0", "0.5.0"), ("0.5.0", "0.5.0"), ("0.10.0", "0.10.0"), ("1.0.0", "1.0.0")],
)
def test_the_version_covers_the_merged_edits(theirs, ours):
    """Never below the node's own, never below what ours need; compared as numbers."""
    assert specification("c1", theirs, {})["cdiVersion"] == ours


LISTS = st.dictionaries(
    st.sampled_from(["deviceNodes", "mounts", "hooks"]),
    st.lists(st.integers(0, 5).map(lambda n: {"path": str(n)})),
)


@given(st.lists(LISTS))
def test_a_merge_loses_and_doubles_nothing(parts):
    """Each edit of each part is in the result, once, and the parts stay as they were."""
    before = [{key: list(value) for key, value in part.items()} for part in parts]
    merged = merge(parts)
    assert parts == before
    for key in {key for part in parts for key in part}:
        paths = [item["path"] for item in merged[key]]
        assert len(paths) == len(set(paths))
        assert set(paths) == {i["path"] for part in parts for i in part.get(key, [])}
    assert merge([merged]) == merged
