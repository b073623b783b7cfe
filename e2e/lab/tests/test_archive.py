"""Archives have the form that docker and containerd read."""

import hashlib
import json
import tarfile

from e2e.lab.archive import Image, write_archive, write_layer


def read(path):
    """Name -> bytes of the files in a tar."""
    with tarfile.open(path) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar if each.isfile()}


def test_layer(tmp_path):
    """A layer holds files, links, texts and folders, all of root's."""
    program = tmp_path / "program"
    program.write_text("code")
    program.chmod(0o755)
    path = write_layer(
        tmp_path / "layer",
        files={"/usr/bin/program": program},
        links={"bin": "usr/bin"},
        texts={"etc/passwd": "root"},
        folders={"tmp": 0o1777},
    )
    with tarfile.open(path) as tar:
        entries = {each.name: each for each in tar}
    assert set(entries) == {"usr/bin/program", "bin", "etc/passwd", "tmp"}
    assert entries["usr/bin/program"].mode == 0o755
    assert entries["bin"].linkname == "usr/bin"
    assert entries["tmp"].mode == 0o1777
    assert {each.uid for each in entries.values()} == {0}


def test_same_bytes(tmp_path):
    """Equal contents make equal layers, so that an engine knows them again."""
    one, two = (write_layer(tmp_path / name, texts={"b": "2", "a": "1"}) for name in "xy")
    assert one.read_bytes() == two.read_bytes()


def test_archive(tmp_path):
    """The manifest names each image's configuration and layers; the digests are right."""
    layer = write_layer(tmp_path / "layer", texts={"a": "1"})
    other = write_layer(tmp_path / "other", texts={"b": "2"})
    images = [Image(("x:1",), (layer,), {"User": "1"}), Image(("y:1", "y:2"), (layer, other))]
    write_archive(tmp_path / "archive", images)
    found = read(tmp_path / "archive")
    manifest = json.loads(found["manifest.json"])
    assert [entry["RepoTags"] for entry in manifest] == [["x:1"], ["y:1", "y:2"]]
    for entry in manifest:
        config = json.loads(found[entry["Config"]])
        digests = [hashlib.sha256(found[name]).hexdigest() for name in entry["Layers"]]
        assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}" for digest in digests]
    assert json.loads(found[manifest[0]["Config"]])["config"] == {"User": "1"}


def test_shared_layers(tmp_path):
    """A layer that two images share is in the archive once."""
    layer = write_layer(tmp_path / "layer", texts={"a": "1"})
    write_archive(tmp_path / "archive", [Image((f"x:{n}",), (layer,)) for n in range(2)])
    with tarfile.open(tmp_path / "archive") as tar:
        names = tar.getnames()
    assert len([name for name in names if name.endswith("/layer.tar")]) == 1
