/* How many system calls a thousand calls of one kind make: alloc, info or launch. A parent counts
 * its child's. */
#include "driver.h"

#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS 1000

static void *function;

static void call(const char *kind) {
    pointer made = 0;
    size_t free_bytes = 0;
    size_t total = 0;
    if (strcmp(kind, "alloc") == 0) {
        EXPECT(0, cu.cuMemAlloc(&made, 100000));
        EXPECT(0, cu.cuMemFree(made));
    } else if (strcmp(kind, "info") == 0) {
        EXPECT(0, cu.cuMemGetInfo(&free_bytes, &total));
    } else {
        EXPECT(0, cu.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
    }
}

static void child(const char *kind) {
    void *module = NULL;
    begin();
    EXPECT(0, cu.cuModuleLoadData(&module, MODULE));
    EXPECT(0, cu.cuModuleGetFunction(&function, module, "k_0us"));
    for (int i = 0; i < 100; i++) {
        call(kind);
    }
    EXPECT(0, (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    raise(SIGSTOP);
    for (int i = 0; i < CALLS; i++) {
        call(kind);
    }
    raise(SIGSTOP);
    _exit(0);
}

/* Runs the child until it stops itself; how often it entered or left the kernel meanwhile. */
static int run_to_stop(pid_t pid) {
    int status = 0;
    for (int stops = 0;; stops++) {
        EXPECT((int)pid, (int)waitpid(pid, &status, 0));
        EXPECT(1, WIFSTOPPED(status));
        if (WSTOPSIG(status) == SIGSTOP) {
            return stops;
        }
        ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
    }
}

int main(int argc, char **argv) {
    pid_t pid = fork();
    if (pid == 0) {
        child(argc > 1 ? argv[1] : "alloc");
    }
    EXPECT(0, run_to_stop(pid));
    ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
    printf("%d\n", run_to_stop(pid) / 2);
    ptrace(PTRACE_KILL, pid, NULL, NULL);
    waitpid(pid, NULL, 0);
    return 0;
}
