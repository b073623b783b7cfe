"""The library as a guest in every process: what it answers, what it shows, what it leaves alone."""

import fcntl
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from hamikit.region import LOCK_BASE, MAX_SLOTS, USAGE_SIZE, ControlFlag

HERE = Path(__file__).parent
MIB = 1 << 20
OOM = 2
VERSIONS = (2000, 3020, 7000, 11030, 11040, 12000, 12050, 13000)
HOOKS = [
    line.split()
    for line in (HERE.parent / "src" / "hooks.def").read_text().splitlines()
    if line.startswith(("cuda", "nvml"))
]


def output(*command: str | Path) -> str:
    """What a tool prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_exports_are_the_table_and_two_loader_functions(built):
    """Nothing else is visible, so no application symbol can be displaced by accident."""
    lines = output("nm", "-D", "--defined-only", built / "libvgpu.so").splitlines()
    assert {line.split()[-1] for line in lines} == {hook[1] for hook in HOOKS} | {"dlsym", "dlvsym"}


def test_it_runs_on_an_old_glibc(built):
    """No symbol newer than glibc 2.17, no library but libc."""
    dynamic = output("objdump", "-T", built / "libvgpu.so")
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([\d.]+)", dynamic)}
    assert max(versions) <= (2, 17)
    needed = re.findall(r"NEEDED.*\[(.*)\]", output("readelf", "-d", built / "libvgpu.so"))
    assert needed == ["libc.so.6"]


def test_it_loads_with_all_symbols_bound_at_once(container):
    """LD_BIND_NOW in a process without libdl, libpthread or the driver."""
    assert container.run("/bin/true", LD_BIND_NOW="1").returncode == 0


@pytest.mark.parametrize("command", [("/bin/true",), (sys.executable, "-c", "import ctypes, json")])
def test_a_process_without_cuda_is_left_alone(container, command, tmp_path):
    """No file is opened beside the library, nothing is printed, no slot is taken."""
    trace = tmp_path / "trace"
    result = container.run(*command, LD_DEBUG="files", LD_DEBUG_OUTPUT=str(trace))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    opened = "".join(path.read_text() for path in tmp_path.glob("trace.*"))
    assert "libcuda" not in opened
    assert container.usage.library_version == ""
    assert container.usage.processes == ()


def test_a_cuda_process_keeps_its_own_ways(container):
    """One descriptor more, closed on exec; umask, signals and output as before."""
    guest = container.start()
    mask, files, signals = guest.ask("limits")
    guest.ask("init")
    guest.ask("alloc", MIB)
    mask_after, files_after, signals_after = guest.ask("limits")
    assert (mask, signals) == (mask_after, signals_after)
    ours = [file for file in files_after if file not in files and file != str(container.state)]
    assert ours == [str(container.folder / "usage")]
    assert guest.end() == ""


def test_a_refusal_is_told_only_when_asked(container):
    """LIBCUDA_LOG_LEVEL=2 names the device and the figures; without it stderr stays empty."""
    quiet, loud = container.ready(), container.ready(LIBCUDA_LOG_LEVEL="2")
    for guest in (quiet, loud):
        assert guest.ask("alloc", 2000 * MIB)[0] == OOM
    assert quiet.end() == ""
    assert "refused" in loud.end()


@pytest.mark.parametrize("driver", ["11.4", "12.2", "12.9", "13.0"])
def test_get_proc_address_answers_with_the_wrapper_of_that_abi(container, driver):
    """The wrapper of the very symbol that the driver answered with, per-thread streams too."""
    container.use_driver(driver)
    guest, bare = container.ready(), container.start(LD_PRELOAD="")
    assert bare.ask("init") == 0
    symbols = {hook[1] for hook in HOOKS}
    names = [*sorted({hook[2] for hook in HOOKS if hook[0] == "cuda"}), "cuMemcpyHtoD"]
    asked = [
        (name, version, flags) for name in names for version in VERSIONS for flags in (0, 1, 2)
    ]
    ours = 0
    for question in asked:
        answer, expected = guest.ask("lookup", *question), bare.ask("lookup", *question)
        if expected[1] is not None and expected[1][1] in symbols:
            expected[1][0] = "libvgpu.so"
            ours += 1
        assert answer == expected, question
    assert ours > len(asked) // 3
    assert container.usage.unknown_symbols == 0


STRANGE = r"""
/* A driver whose cuGetProcAddress answers with addresses that dlsym does not know. */
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuMemAlloc(unsigned *pointer, unsigned bytes) { return 900; }
int cuMemAlloc_v2(unsigned long long *pointer, unsigned long bytes) { return 901; }
int cuMemAllocAsync(unsigned long long *pointer, unsigned long bytes, void *stream) { return 902; }
int cuMemAllocAsync_ptsz(unsigned long long *pointer, unsigned long bytes, void *s) { return 903; }
int cuGraphInstantiate_v2(void) { return 905; }
int cuGraphInstantiateWithFlags(void) { return 906; }
static int hidden(void) { return 904; }
int cuGetProcAddress(const char *name, void **function, int version, unsigned long flags) {
    *function = (void *)hidden;
    return 0;
}
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long flags,
                        int *status) {
    *function = strcmp(name, "cuNoSuch") == 0 ? (void *)0 : (void *)hidden;
    return 0;
}
"""


def test_an_unknown_address_is_mapped_by_name_version_and_flags(container, tmp_path):
    """The driver's own pointer never gets out for a name of the table; each case is counted."""
    (tmp_path / "strange.c").write_text(STRANGE)
    folder = tmp_path / "strange"
    folder.mkdir()
    command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", tmp_path / "strange.c"]
    subprocess.run([*command, "-o", folder / "libcuda.so.1"], check=True)
    guest = container.start(LD_LIBRARY_PATH=f"{folder}:{container.fake.folder}")
    for question, symbol in (
        (("cuMemAlloc", 12000, 0), "cuMemAlloc_v2"),
        (("cuMemAlloc", 2000, 0), "cuMemAlloc"),
        (("cuMemAllocAsync", 12000, 1), "cuMemAllocAsync"),
        (("cuMemAllocAsync", 12000, 2), "cuMemAllocAsync_ptsz"),
        (("cuGraphInstantiate", 11080, 0), "cuGraphInstantiate_v2"),
        (("cuGraphInstantiate", 12000, 0), "cuGraphInstantiateWithFlags"),
    ):
        assert guest.ask("lookup", *question) == [0, ["libvgpu.so", symbol]]
    assert guest.ask("lookup", "cuEventCreate", 12000, 0)[1][0] == "libcuda.so.1"
    assert guest.ask("lookup", "cuNoSuch", 12000, 0) == [0, None]
    assert container.usage.unknown_symbols == 6


def test_dlsym_does_not_invent_what_the_driver_lacks(container):
    """Without a driver in the process there is no cuInit to be found, and dlerror says so."""
    script = """
import ctypes
libc = ctypes.CDLL(None)
libc.dlsym.restype = ctypes.c_void_p
libc.dlsym.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
libc.dlerror.restype = ctypes.c_char_p
assert libc.dlsym(None, b"cuMemAlloc_v2") is None
assert libc.dlerror() is not None
driver = ctypes.CDLL("libcuda.so.1")
wrapper = ctypes.cast(driver.cuMemAlloc_v2, ctypes.c_void_p).value
assert libc.dlsym(None, b"cuMemAlloc_v2") == wrapper
assert libc.dlerror() is None
"""
    result = container.run(sys.executable, "-c", script)
    assert (result.returncode, result.stderr) == (0, "")


SCOPE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
int which(void) { return WHICH; }
#if WHICH == 1
/* The next `which` after itself: with the caller's scope lost that would be its own, or none. */
int next_which(void) {
    int (*next)(void) = (int (*)(void))dlsym(RTLD_NEXT, "which");
    return next != NULL ? next() : -1;
}
#endif
"""

MAIN = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
int next_which(void);
static void *look(void *unused) {
    (void)unused;
    void *first = dlsym(RTLD_NEXT, "malloc");
    for (int i = 0; i < 1000; i++)
        if (dlsym(RTLD_NEXT, "malloc") != first || first == NULL)
            return (void *)1;
    return NULL;
}
int main(void) {
    pthread_t threads[8];
    void *failed = NULL, *one;
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, look, NULL);
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], &one);
        failed = one != NULL ? one : failed;
    }
    printf("%d %d %d %d\n", failed != NULL, next_which(),
           dlsym(RTLD_DEFAULT, "curl_easy_init") != NULL,
           dlvsym(RTLD_DEFAULT, "dlsym", "GLIBC_2.2.5") == dlsym(RTLD_DEFAULT, "dlsym"));
    return 0;
}
"""


def test_rtld_next_keeps_the_callers_scope(container, tmp_path):
    """Look-ups repeat alike in many threads; a library's RTLD_NEXT means after that library."""
    for number in (1, 2):
        (tmp_path / "scope.c").write_text(SCOPE)
        library = tmp_path / f"libscope{number}.so"
        subprocess.run(
            ["gcc", f"-DWHICH={number}", "-shared", "-fPIC", tmp_path / "scope.c", "-o", library],
            check=True,
        )
    (tmp_path / "main.c").write_text(MAIN)
    libraries = [tmp_path / "libscope1.so", tmp_path / "libscope2.so"]
    command = ["gcc", tmp_path / "main.c", "-Wl,--no-as-needed", *libraries, "-pthread"]
    subprocess.run([*command, f"-Wl,-rpath,{tmp_path}", "-o", tmp_path / "main"], check=True)
    assert container.run(str(tmp_path / "main")).stdout == "0 2 0 1\n"


@pytest.mark.parametrize(
    "variables",
    [
        {"CUDA_DISABLE_CONTROL": "true"},
        {"GPU_CORE_UTILIZATION_POLICY": "DISABLE"},
        {"CUDA_DEVICE_MEMORY_LIMIT": "4g", "CUDA_DEVICE_MEMORY_LIMIT_0": "4g"},
        {"CUDA_DEVICE_MEMORY_SHARED_CACHE": "/tmp/elsewhere", "CUDA_REDIRECT": "/tmp/elsewhere"},
        {"CUDA_OVERSUBSCRIBE": "true", "ACTIVE_OOM_KILLER": "false"},
    ],
)
def test_the_environment_changes_nothing(container, variables):
    """Neither a manifest's variables nor those a process sets itself move a granted limit."""
    guest = container.ready(**variables)
    assert guest.ask("alloc", 1001 * MIB)[0] == OOM
    other = container.start()
    for name, value in variables.items():
        other.ask("environment", name, value)
    other.ask("environment", "LD_PRELOAD", None)
    other.ask("init")
    assert other.ask("alloc", 1001 * MIB)[0] == OOM
    assert other.ask("info")[2] == 1000 * MIB


@pytest.mark.parametrize("form", ["alloc", "--dlsym alloc"])
def test_a_driver_that_is_preloaded_first_changes_nothing(container, form):
    """LD_PRELOAD comes before /etc/ld.so.preload: its symbols must not stand in for our own."""
    driver = f"{container.fake.folder}/libcuda.so.1"
    answer = container.probe(*form.split(), "1001", LD_PRELOAD=f"{driver}:{container.library}")
    assert [a["result"] for a in answer["allocations"]] == ["CUDA_ERROR_OUT_OF_MEMORY"]


def test_the_operator_can_let_the_environment_loosen(containers):
    """With the control file's flag CUDA_DISABLE_CONTROL counts, and is counted as unlimited."""
    container = containers(1000, flags=ControlFlag.ENV_MAY_LOOSEN)
    assert container.ready().ask("alloc", 1001 * MIB)[0] == OOM
    assert container.ready(CUDA_DISABLE_CONTROL="true").ask("alloc", 1001 * MIB)[0] == 0
    assert container.usage.unlimited_starts == 1


def test_hamis_variables_limit_where_there_is_no_control_file(containers):
    """A container of a node that still speaks HAMi's protocol."""
    container = containers(None)
    guest = container.ready(CUDA_DEVICE_MEMORY_LIMIT_0="100m", CUDA_DEVICE_MEMORY_LIMIT_1="3g")
    assert guest.ask("alloc", 101 * MIB)[0] == OOM
    assert guest.ask("alloc", 100 * MIB)[0] == 0
    assert guest.ask("total", 1) == [0, 3 << 30]
    assert guest.ask("nvml", 0)[0] == [100 * MIB, 0, 100 * MIB]


def test_a_variable_that_is_no_size_allows_nothing(containers):
    """Fails closed, and says which variable when asked."""
    guest = containers(None).ready(CUDA_DEVICE_MEMORY_LIMIT="lots", LIBCUDA_LOG_LEVEL="1")
    assert guest.ask("alloc", 1)[0] == OOM
    assert "CUDA_DEVICE_MEMORY_LIMIT" in guest.end()


def test_without_any_limit_nothing_is_limited(containers):
    """The library is there and the container has no grant: the card's own figures."""
    guest = containers(None).ready()
    assert guest.ask("total") == [0, 4096 * MIB]
    assert guest.ask("alloc", 3000 * MIB)[0] == 0


@pytest.mark.parametrize("content", [b"", b"garbage", b"HAMICTRL" + bytes(4088)])
def test_a_control_file_that_cannot_be_read_allows_nothing(containers, content):
    """Truncated, foreign or of another layout: fails closed, and the driver's other calls go on."""
    container = containers()
    (container.folder / "control").write_bytes(content)
    guest = container.ready(LIBCUDA_LOG_LEVEL="1")
    assert guest.ask("alloc", MIB)[0] == OOM
    assert guest.ask("synchronize") == 0
    assert "control file" in guest.end()


def spoil_missing(path: Path) -> None:
    """It was never created."""
    path.unlink()


def spoil_truncated(path: Path) -> None:
    """Somebody cut it."""
    os.truncate(path, 100)


def spoil_garbage(path: Path) -> None:
    """Somebody wrote over it."""
    path.write_bytes(b"x" * USAGE_SIZE)


def spoil_folder(path: Path) -> None:
    """Something else is in its place."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [spoil_missing, spoil_truncated, spoil_garbage, spoil_folder])
def test_a_usage_file_that_cannot_be_used_leaves_the_limit_to_each_process(container, spoil):
    """The cap holds in every process alone, and the log says why when asked."""
    spoil(container.folder / "usage")
    guest = container.ready(LIBCUDA_LOG_LEVEL="2")
    assert guest.ask("alloc", 1001 * MIB)[0] == OOM
    assert guest.ask("alloc", 1000 * MIB)[0] == 0
    assert guest.ask("info") == [0, 0, 1000 * MIB]
    assert "cannot be used" in guest.end()


def test_a_257th_process_is_limited_alone(container):
    """All slots taken is no way out of the limit."""
    path = container.folder / "usage"

    with path.open("r+b") as file:
        every = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, LOCK_BASE, MAX_SLOTS, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, every)
        guest = container.ready()
        assert guest.ask("alloc", 1001 * MIB)[0] == OOM
        assert guest.ask("alloc", 1000 * MIB)[0] == 0
    assert container.usage.private_starts == 1


def test_a_card_that_was_not_granted_gives_nothing(container):
    """Its memory shows as zero and every allocation on it is refused."""
    guest = container.start()
    assert guest.ask("init", 1) == 0
    assert guest.ask("alloc", MIB)[0] == OOM
    assert guest.ask("info") == [0, 0, 0]
    assert guest.ask("nvml", 1)[0][0] == 0


def test_rtld_next_is_no_way_round(container):
    """Asked for the next cuMemAlloc_v2, by dlsym or dlvsym's dlsym, a program gets the wrapper."""
    guest = container.ready()
    assert guest.ask("next_of", "cuMemAlloc_v2") == ["libvgpu.so", "cuMemAlloc_v2"]
    assert guest.ask("next_of", "dlsym") == ["libvgpu.so", "dlsym"]
    assert guest.ask("next_of", "cuNoSuchFunction") is None
