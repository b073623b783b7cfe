"""Files of an earlier and of a later layout, and a disk or a driver that does not play along."""

import os
import resource
import struct
import subprocess
import zlib

import pytest

from hamikit.region import USAGE_SIZE, Kind, OverheadPolicy

MIB = 1 << 20
OOM = 2
BODY_SIZE, CONTROL_SIZE = 1920, 4096


def first_control(uuid: str, limit: int, *, version: int = 1) -> bytes:
    """A control file as release 0.1.0 wrote it."""
    fields = struct.pack("<IIIiIIIIIi", 0, 0, 1, 1, 0, 0, 0, 0, 0, -1)
    device = struct.pack("<64sQII", uuid.encode(), limit, 0, 0)
    body = (fields.ljust(124, b"\0") + device).ljust(BODY_SIZE - 4, b"\0")
    sealed = struct.pack("<I", zlib.crc32(body)) + body
    header = struct.pack("<8sII", b"HAMICTRL", version, CONTROL_SIZE)
    return (header.ljust(128, b"\0") + sealed).ljust(CONTROL_SIZE, b"\0")


def test_a_control_file_of_the_first_release_means_what_it_meant(container):
    """Fields that came later are zero there: all memory is real, there is no core limit."""
    (container.folder / "control").write_bytes(first_control(container.uuid(0), 500 * MIB))
    guest = container.ready()
    assert guest.ask("info") == [0, 500 * MIB, 500 * MIB]
    assert guest.ask("alloc", 501 * MIB)[0] == OOM
    assert guest.ask("alloc", 500 * MIB)[0] == 0


def test_a_control_file_of_a_later_release_holds_as_far_as_it_is_known(container):
    """The grant is where it always was; what stands in reserved bytes is not read."""
    image = bytearray(first_control(container.uuid(0), 500 * MIB))
    body = image[128 : 128 + BODY_SIZE]
    for reserved in (120, 128 + 104):  # of the body, and of the first device
        body[reserved : reserved + 8] = b"\xff" * 8
    body[:4] = struct.pack("<I", zlib.crc32(body[4:]))
    image[128 : 128 + BODY_SIZE] = body
    (container.folder / "control").write_bytes(image)
    guest = container.ready()
    assert guest.ask("alloc", 501 * MIB)[0] == OOM
    assert guest.ask("alloc", 500 * MIB)[0] == 0


@pytest.mark.parametrize("version", [0, 2])
def test_a_control_file_of_another_layout_allows_nothing(container, version):
    """Nobody knows where its limit stands; the log says so."""
    image = first_control(container.uuid(0), 500 * MIB, version=version)
    (container.folder / "control").write_bytes(image)
    guest = container.ready(LIBCUDA_LOG_LEVEL="1")
    assert guest.ask("alloc", MIB)[0] == OOM
    assert guest.ask("info")[1:] == [0, 0]
    assert "control file cannot be read" in guest.end()


@pytest.mark.parametrize("version", [0, 2])
def test_a_usage_file_of_another_layout_is_left_as_it_is(container, version):
    """The limit holds in each process alone, and not a byte of the file changes."""
    image = struct.pack("<8sII", b"HAMIUSGE", version, USAGE_SIZE).ljust(USAGE_SIZE, b"\x07")
    (container.folder / "usage").write_bytes(image)
    guest = container.ready(LIBCUDA_LOG_LEVEL="2")
    assert guest.ask("alloc", 1001 * MIB)[0] == OOM
    assert guest.ask("alloc", 1000 * MIB)[0] == 0
    assert "of another layout" in guest.end()
    assert (container.folder / "usage").read_bytes() == image


def test_a_usage_file_of_the_first_release_is_used_on(container):
    """What release 0.1.0 left at zero, later releases count from zero."""
    image = struct.pack("<8sII", b"HAMIUSGE", 1, USAGE_SIZE).ljust(USAGE_SIZE, b"\0")
    (container.folder / "usage").write_bytes(image)
    one, two = container.ready(), container.ready()
    assert one.ask("alloc", 600 * MIB)[0] == 0
    assert two.ask("alloc", 600 * MIB)[0] == OOM
    assert container.used == 600 * MIB


def test_a_full_disk_changes_nothing(container):
    """All blocks of the usage file exist from the start, and the library lets no file grow."""
    status = (container.folder / "usage").stat()
    assert status.st_blocks * 512 >= status.st_size == USAGE_SIZE
    guest = container.start()
    resource.prlimit(guest.process.pid, resource.RLIMIT_FSIZE, (0, 0))
    assert guest.ask("init") == 0
    assert guest.ask("alloc", 1001 * MIB)[0] == OOM
    assert guest.ask("alloc", 1000 * MIB)[0] == 0
    assert container.used == 1000 * MIB


ELSEWHERE = r"""
/* NVML of an older driver, in a container: it lists processes by their PIDs on the host. */
#include <stddef.h>
struct row { unsigned pid; unsigned long long used; unsigned gpu, compute; };
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) { *device = (void *)8; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct row *rows) {
    if (*count < 1) return 7;
    rows[0] = (struct row){0x3fffffff, 700ull << 20, 0, 0};
    *count = 1;
    return 0;
}
"""


@pytest.mark.parametrize("nvml", ["host PIDs", "absent"])
def test_nvml_that_does_not_know_us_costs_nothing(container, tmp_path, nvml):
    """Whose memory it lists nobody can tell: no overhead is charged, the limit on data holds."""
    folder = tmp_path / "nvml"
    folder.mkdir()
    os.symlink(container.fake.folder / "libcuda.so.1", folder / "libcuda.so.1")
    if nvml == "host PIDs":
        (tmp_path / "nvml.c").write_text(ELSEWHERE)
        command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", tmp_path / "nvml.c"]
        subprocess.run([*command, "-o", folder / "libnvidia-ml.so.1"], check=True)
    container.limit(1000, overhead_policy=OverheadPolicy.STRICT)
    guest = container.ready(LD_LIBRARY_PATH=str(folder))
    assert guest.ask("module")[0] == 0
    assert guest.ask("alloc", 1001 * MIB)[0] == OOM
    assert guest.ask("alloc", 1000 * MIB)[0] == 0
    (process,) = container.usage.processes
    overhead = (Kind.CONTEXT, Kind.MODULE)
    assert sum(n for (_, kind), n in process.shares.items() if kind in overhead) == 0
