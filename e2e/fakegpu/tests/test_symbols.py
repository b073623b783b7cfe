"""Names, versions and addresses: what dlsym and cuGetProcAddress answer."""

import ctypes
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROW = re.compile(r"^(API|TWIN|PT)\((\w+), (\d+), (\w+)", re.MULTILINE)
ROWS = ROW.findall((Path(__file__).parent.parent / "cuda" / "api.def").read_text())
DRIVER = 12040
LEGACY, PER_THREAD = 1, 2
NOT_FOUND, VERSION_NOT_SUFFICIENT = 1, 2

ASK = """
import ctypes, json, sys
lib = ctypes.CDLL("libcuda.so.1")
answers = []
for name, version, flags in json.load(sys.stdin):
    out, status = ctypes.c_void_p(), ctypes.c_int(-1)
    args = (name.encode(), ctypes.byref(out), version, ctypes.c_uint64(flags))
    rc = lib.cuGetProcAddress_v2(*args, ctypes.byref(status))
    answers.append([rc, out.value, status.value])
symbols = json.loads(sys.argv[1])
found = {s: ctypes.cast(getattr(lib, s), ctypes.c_void_p).value for s in symbols}
print(json.dumps([answers, found]))
"""


def ask(node, questions):
    """Asks cuGetProcAddress_v2, and dlsym for every symbol of the table."""
    symbols = sorted({symbol for _, _, _, symbol in ROWS})
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(symbols)],
        env=node.env,
        input=json.dumps(questions),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def expected(name, version, flags):
    """The symbol by the table: newest per-thread row if asked for, else newest row."""
    rows = defaultdict(list)
    for kind, base, since, symbol in ROWS:
        if base == name and int(since) <= min(version, DRIVER):
            rows[kind == "PT"].append((int(since), symbol))
    chosen = rows[True] if flags == PER_THREAD and rows[True] else rows[False]
    return max(chosen)[1] if chosen else None


def test_every_name_version_and_flag_gives_the_exact_symbol(node):
    """For each version at which anything changes, the answer is the symbol of that ABI."""
    names = sorted({base for _, base, _, _ in ROWS})
    versions = sorted({int(since) for _, _, since, _ in ROWS} | {13000})
    questions = [(n, v, f) for n in names for v in versions for f in (0, LEGACY, PER_THREAD)]
    answers, addresses = ask(node, questions)
    wrong = [
        question
        for question, (rc, address, _) in zip(questions, answers, strict=True)
        if (addresses.get(expected(*question)), 0 if expected(*question) else 500) != (address, rc)
    ]
    assert wrong == []


def test_symbols_have_addresses_of_their_own(node):
    """No two symbols share an address, so an address names a symbol."""
    _, addresses = ask(node, [])
    assert len(set(addresses.values())) == len(addresses)


def test_unknown_names_and_old_versions_are_told_apart(node):
    """The status says whether the name or the version is at fault."""
    answers, _ = ask(node, [("cuNoSuchThing", 12000, 0), ("cuMemAllocAsync", 11010, 0)])
    assert [[rc, status] for rc, _, status in answers] == [
        [500, NOT_FOUND],
        [500, VERSION_NOT_SUFFICIENT],
    ]


def test_an_older_driver_hides_what_came_later(make_node):
    """A driver of CUDA 11.4 does not know cuLaunchKernelEx."""
    node = make_node("[driver]\ncuda = 11.4\n[card]\nmodel = M\nmemory_mib = 999\n")
    answers, addresses = ask(node, [("cuLaunchKernelEx", 12000, 0), ("cuGetProcAddress", 12000, 0)])
    assert answers[0][0] == 500
    assert answers[1][1] == addresses["cuGetProcAddress"]


INTERPOSED = """
import ctypes
cuda, nvml = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL("libnvidia-ml.so.1")
assert ctypes.CDLL(None).cuMemAlloc_v2() == 4242, "the interposer is not loaded"
ctx, out = ctypes.c_void_p(), ctypes.c_void_p()
assert cuda.cuInit(0) == 0
assert cuda.cuCtxCreate_v2(ctypes.byref(ctx), 0, 0) == 0
flags = ctypes.c_uint64(0)
assert cuda.cuGetProcAddress_v2(b"cuMemAlloc", ctypes.byref(out), 12000, flags, None) == 0
assert out.value == ctypes.cast(cuda.cuMemAlloc_v2, ctypes.c_void_p).value
assert cuda.cuMemcpy_ptds(None, None, ctypes.c_size_t(0)) == 0
assert nvml.nvmlInit() == 0
"""


def test_a_preloaded_library_does_not_capture_the_drivers_own_calls(node, tmp_path):
    """The libraries bind to themselves: an interposer sees the program's calls alone."""
    library = tmp_path / "interposer.so"
    source = "".join(
        f"int {name}(void) {{ return 4242; }}\n"
        for name in ("cuMemAlloc_v2", "cuMemcpy", "nvmlInitWithFlags")
    )
    compiler = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(compiler, input=source, check=True, text=True)
    env = {**node.env, "LD_PRELOAD": str(library)}
    subprocess.run([sys.executable, "-c", INTERPOSED], env=env, check=True)


@pytest.mark.parametrize("library", ["libcuda.so.1", "libnvidia-ml.so.1"])
def test_only_driver_names_are_exported(node, library):
    """The dynamic symbol table holds the API and nothing else."""
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", node.build / library],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = [line.split()[-1] for line in listing.splitlines()]
    assert names
    assert [name for name in names if not re.fullmatch("(cu|nvml)[A-Z]\\w+", name)] == []


def test_both_ways_to_the_driver_work(node):
    """A program that uses dlsym and one that uses cuGetProcAddress get the same answers."""
    assert node.probe("info") == node.probe("--dlsym", "info")


def test_old_entry_points_have_their_old_abi(node):
    """The cuMemAlloc of before 3.2 writes 32 bits and no more."""
    code = (
        "import ctypes\nc = ctypes.CDLL('libcuda.so.1')\nctx = ctypes.c_void_p()\n"
        "assert c.cuInit(0) == 0 and c.cuCtxCreate(ctypes.byref(ctx), 0, 0) == 0\n"
        "out = (ctypes.c_uint * 2)(0, 7)\n"
        "assert c.cuMemAlloc(out, 512) == 0\nassert out[0] != 0 and out[1] == 7\n"
        "assert c.cuMemFree(out[0]) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], env=node.env, check=True)


def test_error_names_are_the_drivers(node):
    """The codes that tests compare have the driver's names."""
    library = ctypes.CDLL(str(node.build / "libcuda.so.1"))
    name = ctypes.c_char_p()
    assert library.cuGetErrorName(2, ctypes.byref(name)) == 0
    assert name.value == b"CUDA_ERROR_OUT_OF_MEMORY"
    assert library.cuGetErrorName(12345, ctypes.byref(name)) == 1
