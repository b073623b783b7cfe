"""Control files, against the product's own writer: two readings of one header."""

import io
import tarfile

import pytest

from e2e.audit.control import parse_archive, parse_control
from e2e.audit.model import MIB, ControlFile, Limit
from hamikit.region import Control, ControlDevice, pack_control, write_control

GRANT = Control((ControlDevice("GPU-a", 3000 * MIB, 30), ControlDevice("GPU-b", 0, 100)))
LIMITS = (Limit("GPU-a", 3000 * MIB, 30), Limit("GPU-b", 0, 100))


def test_reads_what_the_product_writes(tmp_path):
    """A new file, and one that was changed in place: the body in force is read."""
    assert parse_control(pack_control(GRANT)) == ControlFile(LIMITS)
    path = tmp_path / "control"
    write_control(path, Control(()))
    write_control(path, GRANT)
    assert parse_control(path.read_bytes()) == ControlFile(LIMITS)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (b"", "0 bytes"),
        (b"\0" * 4096, "header"),
        (pack_control(GRANT)[:200] + b"x" + pack_control(GRANT)[201:], "damaged"),
        (pack_control(GRANT)[:16] + b"\2" + pack_control(GRANT)[17:], "body of epoch 2 is damaged"),
    ],
)
def test_a_file_that_is_none(image, says):
    """A fault, no exception."""
    assert says in parse_control(image).fault


def test_reads_a_nodes_folder_from_a_tar():
    """By pod UID and container; links are a fault, other files are nothing."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in (
            ("./uid-a_main/control", pack_control(GRANT)),
            ("./uid-a_main/usage", b"x"),
            ("./stray", b""),
            ("./stray-folder/control", pack_control(GRANT)),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("./uid-b_main/control")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert parse_archive(data.getvalue()) == {
        ("uid-a", "main"): ControlFile(LIMITS),
        ("uid-b", "main"): ControlFile(fault="is no regular file"),
    }
    assert parse_archive(b"") == {}
