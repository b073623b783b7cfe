/* Ranks as NCCL and a launcher make them: forked before CUDA begins, each with a buffer of its own
 * that its neighbour maps by an IPC handle; and a data loader, forked afterwards, that never
 * touches the card. */
#include "driver.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define BUFFER (300 * MIB)

/* Says a byte, or waits for one: both ranks have come this far. */
static void meet(int out, int in) {
    char byte = '!';
    EXPECT(1, (int)write(out, &byte, 1));
    EXPECT(1, (int)read(in, &byte, 1));
}

static pid_t data_loader(void) {
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    return pid;
}

static void rank(int out, int in) {
    struct ipc_handle own;
    struct ipc_handle other;
    pointer buffer = 0;
    pointer peer = 0;
    pointer more = 0;
    begin();
    EXPECT(0, cu.cuMemAlloc(&buffer, BUFFER));
    pid_t loader = data_loader();
    EXPECT(0, cu.cuIpcGetMemHandle(&own, buffer));
    EXPECT((int)sizeof(own), (int)write(out, &own, sizeof(own)));
    EXPECT((int)sizeof(other), (int)read(in, &other, sizeof(other)));
    EXPECT(0, cu.cuIpcOpenMemHandle(&peer, other, 1));
    meet(out, in);
    printf("%zu\n", free_mib());
    fflush(stdout);
    EXPECT(OUT_OF_MEMORY, cu.cuMemAlloc(&more, 401 * MIB));
    EXPECT(0, cu.cuIpcCloseMemHandle(peer));
    meet(out, in);
    EXPECT(0, cu.cuMemFree(buffer));
    kill(loader, SIGKILL);
    waitpid(loader, NULL, 0);
}

int main(void) {
    int there[2];
    int back[2];
    int status = 1;
    EXPECT(0, pipe(there));
    EXPECT(0, pipe(back));
    pid_t second = fork();
    if (second == 0) {
        rank(back[1], there[0]);
        exit(0);
    }
    rank(there[1], back[0]);
    waitpid(second, &status, 0);
    EXPECT(0, status);
    printf("alone %zu\n", free_mib());
    return 0;
}
