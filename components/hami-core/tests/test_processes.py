"""Processes that must not notice us, and those that we cannot reach."""

import os
import stat
import subprocess

import pytest

MIB = 1 << 20
OOM = 2

HELLO = r"""
#include <stdio.h>
int main(void) { puts("hello"); return 0; }
"""


def compiled(folder, source: str, *options: str) -> str:
    """A program of C."""
    (folder / "program.c").write_text(source)
    program = folder / "program"
    subprocess.run(["gcc", *options, folder / "program.c", "-o", program], check=True)
    return str(program)


@pytest.mark.parametrize("options", [(), ("-static",)])
@pytest.mark.parametrize("setuid", [False, True])
def test_a_program_without_cuda_runs_as_ever(container, tmp_path, options, setuid):
    """Dynamic or static, setuid or not: its output and nothing else, no slot, no file opened."""
    program = compiled(tmp_path, HELLO, *options)
    if setuid:
        os.chmod(program, stat.S_ISUID | 0o755)
    result = container.run(program)
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")
    assert container.usage.processes == ()
    assert container.usage.library_version == ""


STORM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int cuInit(unsigned flags);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuMemAlloc_v2(unsigned long long *pointer, size_t bytes);
static int use(void) {
    void *context;
    unsigned long long pointer;
    return cuInit(0) || cuDevicePrimaryCtxRetain(&context, 0) || cuCtxSetCurrent(context) ||
           cuMemAlloc_v2(&pointer, 2 << 20);
}
int main(int argc, char **argv) {
    int failed = use(), status;
    for (int i = 0; argc > 1 && i < 60; i++) {
        pid_t pid = fork();
        if (pid == 0 && i % 3 == 0) { execl(argv[0], argv[0], (char *)NULL); _exit(9); }
        if (pid == 0 && i % 3 == 1) { _exit(daemon(1, 1) != 0 || use()); }
        if (pid == 0) { _exit(use()); }
    }
    while (wait(&status) > 0) failed |= status != 0;
    printf("%d\n", failed);
    return 0;
}
"""


def test_storms_of_forks_execs_and_daemons_leave_nothing(container, tmp_path):
    """Each child starts afresh with the driver; when all have ended nothing is charged."""
    links = [f"-L{container.fake.folder}", "-Wl,--no-as-needed", "-l:libcuda.so.1"]
    (tmp_path / "program.c").write_text(STORM)
    program = tmp_path / "program"
    subprocess.run(["gcc", tmp_path / "program.c", *links, "-o", program], check=True)
    result = container.run(str(program), "storm")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split()[-1] == "0"
    assert container.ready().ask("alloc", 1000 * MIB)[0] == 0
