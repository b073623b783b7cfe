"""The table of symbols against CUDA's own headers, and the answers for drivers of 11.4 to 13.5."""

import re
import subprocess
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import cuda_headers
import gen_hooks
import pytest

HERE = Path(__file__).parent
DEF = HERE.parent / "src" / "hooks.def"
API = HERE.parents[2] / "e2e" / "fakegpu" / "cuda" / "api.def"
ABIS = cuda_headers.abis()
SYMBOLS = cuda_headers.symbols(ABIS)
DRIVERS = (11040, 11080, 12000, 12040, 12090, 13000, 13050)
LEGACY, PER_THREAD = 1, 2


ROWS = list(gen_hooks.parse(DEF.read_text()))
HOOKS = [row for row in ROWS if isinstance(row, gen_hooks.Hook) and row.library == "cuda"]
SKIPS = [row for row in ROWS if isinstance(row, gen_hooks.Skip)]


def test_both_headers_are_read_whole():
    """Every PFN_ typedef is understood, so that none can be missing from the checks below."""
    for wheel in cuda_headers.WHEELS:
        text = cuda_headers.header(wheel, "cudaTypedefs.h")
        typedefs = set(re.findall(r"typedef[^;]*?PFN_(\w+)\)", text))
        known = {f"{a.base}_v{a.version}{a.suffix}" for a in ABIS} | {a.base for a in ABIS}
        assert len(typedefs) > 500
        assert typedefs <= known  # a few of 12.9 carry no version, those of 13.5 do


def test_every_abi_of_a_hooked_name_is_hooked():
    """Name, version, stream and symbol are as in the headers; none is missing, none invented."""
    hooked = {hook.base for hook in HOOKS}
    expected = {key: symbol for key, symbol in SYMBOLS.items() if key[0] in hooked}
    assert {(h.base, h.version, h.stream == "thread"): h.symbol for h in HOOKS} == expected
    twins = Counter((h.base, h.stream == "thread") for h in HOOKS if h.stream != "any")
    assert all((base, not thread) in twins for base, thread in twins)


SIZES = {"int": 4, "unsigned int": 4, "float": 4, "CUdevice": 4, "CUdeviceptr_v1": 4}
HANDLES = {"CUipcMemHandle": 64, "CUipcMemHandle_v1": 64}


def enumerations() -> set[str]:
    """Types that are passed as an int."""
    names: set[str] = set()
    for wheel in cuda_headers.WHEELS:
        text = cuda_headers.header(wheel, "cuda.h")
        names |= set(re.findall(r"typedef enum \w+\s*\{[^}]*\}\s*(\w+);", text))
    return names


ENUMS = enumerations()


def shape(parameters: str) -> list[str]:
    """How each parameter is passed: its size, or a pointer and the size of a number behind it."""
    shapes = []
    for parameter in parameters.strip("()").split(","):
        bare = re.sub(r"\bconst\b", "", parameter)
        kind = re.match(r"\s*((?:unsigned |long )*\w+)", bare)
        assert kind is not None, parameter
        name = re.sub(r"^CUdevice_v1$", "CUdevice", kind[1].strip())
        size = 4 if name in ENUMS else SIZES.get(name, HANDLES.get(name, 8))
        if name == "void" and "*" not in bare:
            continue
        shapes.append("*" * bare.count("*") + (f"{size}" if name in SIZES else "") or f"{size}")
        if "*" not in bare:
            shapes[-1] = f"{size}"
    return shapes


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.symbol)
def test_parameters_are_passed_as_the_header_says(hook):
    """A wrapper takes and hands on exactly what the driver's function does."""
    key = (hook.base, hook.version, hook.stream == "thread")
    (abi,) = (abi for abi in ABIS if abi.key == key)
    assert shape(hook.parameters) == shape(abi.parameters)


def test_every_other_name_is_left_out_for_a_reason():
    """A call that CUDA has and the table has not must be listed, with why; no listing is stale."""
    hooked = {hook.base for hook in HOOKS}
    others = sorted({abi.base for abi in ABIS} - hooked)
    patterns = [pattern for skip in SKIPS for pattern in skip.names]
    assert [n for n in others if not any(fnmatchcase(n, p) for p in patterns)] == []
    known = [*others, "nvmlDeviceGetUtilizationRates"]
    assert [p for p in patterns if not any(fnmatchcase(n, p) for n in known)] == []


def test_the_fake_drivers_versions_are_true():
    """The driver that the other tests run on has the headers' versions and symbols."""
    rows = re.findall(r"^(API|TWIN|PT)\((\w+), (\d+), (\w+)", API.read_text(), re.MULTILINE)
    fake = {(base, int(since), kind == "PT"): symbol for kind, base, since, symbol in rows}
    alias = ("cuGraphInstantiate", 12000, False)  # cuda.h: #define cuGraphInstantiate
    assert fake.pop(alias) == "cuGraphInstantiateWithFlags"
    assert fake == {key: SYMBOLS.get(key) for key in fake}
    hooked = {hook.base for hook in HOOKS}
    assert {key for key in SYMBOLS if key[0] in hooked} <= set(fake)


STUB = """
#include <string.h>
struct row { const char *base; int version, thread; void (*address)(void); };
%(functions)s
static const struct row rows[] = { %(rows)s };
int cuInit(unsigned flags) { (void)flags; return 0; }
static int ask(const char *name, void **out, int version, unsigned long flags) {
    const struct row *best[2] = {0, 0};
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        if (strcmp(r->base, name) == 0 && r->version <= version &&
            (best[r->thread] == 0 || best[r->thread]->version < r->version))
            best[r->thread] = r;
    }
    const struct row *found = flags == 2 && best[1] != 0 ? best[1] : best[0];
    *out = found != 0 ? (void *)found->address : 0;
    return found != 0 ? 0 : 500;
}
int cuGetProcAddress(const char *name, void **out, int version, unsigned long flags) {
    return ask(name, out, version, flags);
}
#if VERSION >= 12000
int cuGetProcAddress_v2(const char *name, void **out, int version, unsigned long flags, int *s) {
    (void)s;
    return ask(name, out, version, flags);
}
#endif
"""
OWN = {"cuInit", "cuGetProcAddress", "cuGetProcAddress_v2"}


def stub_driver(folder: Path, version: int) -> None:
    """A libcuda.so.1 with every symbol that a driver of a CUDA version has."""
    has = [abi for abi in ABIS if abi.version <= version]
    names = sorted({SYMBOLS[abi.key] for abi in has} - OWN)
    functions = "".join(f"int {name}(void) {{ return {i}; }}\n" for i, name in enumerate(names))
    functions += "int cuInit(unsigned); int cuGetProcAddress(); int cuGetProcAddress_v2();\n"
    rows = ",\n".join(
        f'{{"{a.base}", {a.version}, {int(a.per_thread)}, (void (*)(void)){SYMBOLS[a.key]}}}'
        for a in has
    )
    source = folder / "stub.c"
    source.write_text(STUB % {"functions": functions, "rows": rows})
    command = ["gcc", "-w", "-std=gnu11", "-shared", "-fPIC", f"-DVERSION={version}"]
    linking = ["-Wl,-soname,libcuda.so.1", "-Wl,-Bsymbolic", "-o", folder / "libcuda.so.1"]
    subprocess.run([*command, source, *linking], check=True)


def meaning(base: str, version: int, flags: int) -> str | None:
    """The symbol that a name means, by the headers."""
    rows = [abi for abi in ABIS if abi.base == base and abi.version <= version]
    if flags == PER_THREAD and any(abi.per_thread for abi in rows):
        rows = [abi for abi in rows if abi.per_thread]
    else:
        rows = [abi for abi in rows if not abi.per_thread]
    return SYMBOLS[max(rows, key=lambda abi: abi.version).key] if rows else None


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_answer_is_the_wrapper_of_exactly_that_abi(container, tmp_path, driver):
    """For every name, version and flags: our wrapper if it is hooked, else the driver's own."""
    stub_driver(tmp_path, driver)
    guest = container.start(LD_LIBRARY_PATH=f"{tmp_path}:{container.fake.folder}")
    hooked, bases = {hook.symbol for hook in HOOKS}, {hook.base for hook in HOOKS}
    questions = sorted(
        (abi.base, version, flags)
        for abi in ABIS
        for version in {abi.version, *(DRIVERS if abi.base in bases else ())}
        for flags in (0, LEGACY, PER_THREAD)
    )
    answers = guest.ask("lookup_all", questions)
    for question, answer in zip(questions, answers, strict=True):
        base, version, flags = question
        symbol = meaning(base, min(version, driver), flags)
        owner = "libvgpu.so" if symbol in hooked else "libcuda.so.1"
        assert answer == (None if symbol is None else [owner, symbol]), question
    assert container.usage.unknown_symbols == 0
    assert sum(a is not None and a[0] == "libvgpu.so" for a in answers) > 500


@pytest.mark.parametrize("driver", DRIVERS)
def test_names_that_a_driver_lacks_stay_absent(container, tmp_path, driver):
    """Every symbol by dlsym: the wrapper where this driver has it, nothing where it has not."""
    stub_driver(tmp_path, driver)
    guest = container.start(LD_LIBRARY_PATH=f"{tmp_path}:{container.fake.folder}")
    names = sorted(set(SYMBOLS.values()))
    has = {SYMBOLS[abi.key] for abi in ABIS if abi.version <= driver}
    hooked = {hook.symbol for hook in HOOKS}
    expected = [
        ["libvgpu.so" if name in hooked else "libcuda.so.1", name] if name in has else None
        for name in names
    ]
    assert guest.ask("symbols", names) == expected
