"""Calls at odd moments and with odd arguments: the driver's own answer, and no harm."""

import re
import subprocess

import cuda_headers
import gen_hooks
import pytest
from test_versions import DEF, OWN, SYMBOLS, stub_driver

MIB = 1 << 20
OOM = 2
NOT_INITIALIZED, INVALID_CONTEXT = 3, 201
HOOKS = [
    row
    for row in gen_hooks.parse(DEF.read_text())
    if isinstance(row, gen_hooks.Hook) and row.library == "cuda" and row.symbol not in OWN
]


def test_every_wrapper_calls_exactly_its_own_function(container, tmp_path):
    """On a driver where each function answers with a number of its own, per-thread twins too."""
    newest = max(abi.version for abi in cuda_headers.abis())
    stub_driver(tmp_path, newest)
    numbers = {name: i for i, name in enumerate(sorted(set(SYMBOLS.values()) - OWN))}
    guest = container.start(LD_LIBRARY_PATH=f"{tmp_path}:{container.fake.folder}")
    names = [hook.symbol for hook in HOOKS if numbers[hook.symbol] not in (0, OOM)]
    assert len(names) > 60
    assert guest.ask("call_all", names) == [numbers[name] for name in names]


@pytest.mark.parametrize(
    "call",
    [
        ("alloc", MIB),
        ("managed", MIB),
        ("pitch", 100, 100),
        ("array", 10, 10),
        ("alloc_async", MIB),
        ("info",),
        ("free", 4096),
        ("synchronize",),
    ],
)
def test_calls_without_a_context_get_the_drivers_answer(container, call):
    """Before cuInit, before there is a context, and after it was destroyed."""
    guest = container.start()

    def result():
        answer = guest.ask(*call)
        return answer if isinstance(answer, int) else answer[0]

    bare = container.start(LD_PRELOAD="")
    answer = bare.ask(*call)
    assert result() == (answer if isinstance(answer, int) else answer[0]) == NOT_INITIALIZED
    assert guest.ask("init") == 0
    context = guest.ask("context")[1]
    assert guest.ask("destroy", context) == 0
    assert guest.ask("release") == 0
    assert result() not in (0, OOM) or call[0] == "free"
    assert container.used == 0


LATE = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
int cuInit(unsigned flags);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuMemAlloc_v2(unsigned long long *pointer, size_t bytes);
int cuMemFree_v2(unsigned long long pointer);
int cuMemGetInfo_v2(size_t *free, size_t *total);
static unsigned long long first, second, third;
static void *context;
static void late(void) { printf("late %d\n", cuMemFree_v2(first)); fflush(stdout); }
static void early(void) { printf("early %d\n", cuMemFree_v2(second)); fflush(stdout); }
__attribute__((destructor)) static void last(void) {
    size_t free_bytes, total;
    printf("last %d %d\n", cuMemFree_v2(third), cuMemGetInfo_v2(&free_bytes, &total));
    fflush(stdout);
}
static void *leave(void *unused) {
    (void)unused;
    cuCtxSetCurrent(context);
    exit(0);
}
int main(int argc, char **argv) {
    pthread_t thread;
    (void)argv;
    atexit(late);
    if (cuInit(0) || cuDevicePrimaryCtxRetain(&context, 0) || cuCtxSetCurrent(context)) return 1;
    if (cuMemAlloc_v2(&first, 1 << 20) || cuMemAlloc_v2(&second, 1 << 20) ||
        cuMemAlloc_v2(&third, 1 << 20)) return 1;
    atexit(early);
    if (argc > 1 && pthread_create(&thread, NULL, leave, NULL) == 0) pthread_join(thread, NULL);
    return 0;
}
"""


@pytest.mark.parametrize("arguments", [(), ("from-a-thread",)])
def test_calls_while_the_process_ends_work(container, tmp_path, arguments):
    """From atexit handlers of both orders, from a destructor, and when a thread calls exit."""
    (tmp_path / "late.c").write_text(LATE)
    command = ["gcc", tmp_path / "late.c", f"-L{container.fake.folder}", "-l:libcuda.so.1"]
    subprocess.run([*command, "-pthread", "-o", tmp_path / "late"], check=True)
    result = container.run(str(tmp_path / "late"), *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.sub(r"\s+", " ", result.stdout) == "early 0 late 0 last 0 0 "


def test_a_process_with_an_odd_name_is_alive(container):
    """What follows a bracket in its name is not its state."""
    guest, neighbour = container.start(), container.ready()
    guest.ask("rename", "x) Z 1 (")
    assert guest.ask("init") == 0
    assert guest.ask("alloc", 800 * MIB)[0] == 0
    assert neighbour.ask("alloc", 300 * MIB)[0] == OOM
    assert container.used == 800 * MIB
