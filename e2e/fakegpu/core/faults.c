/* Calls that fail because a test asked for it. */
#define _GNU_SOURCE
#include "fg_state.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Ends this process at this instruction, as kill -9 may. */
void fg_die(void) {
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* The code that this call of a symbol is to answer with; 0: it works. */
int fg_fault(struct fg *fg, const char *symbol) {
    if (fg->st == NULL || atomic_load(&fg->st->faults_set) == 0)
        return 0;
    for (int i = 0; i < FG_FAULTS; i++) {
        struct fg_fault *fault = &fg->st->faults[i];
        if (atomic_load(&fault->left) <= 0 || strcmp(fault->symbol, symbol) != 0)
            continue;
        if (atomic_load(&fault->skip) > 0 && atomic_fetch_sub(&fault->skip, 1) > 0)
            return 0;
        if (atomic_fetch_sub(&fault->left, 1) > 0)
            return fault->code;
    }
    return 0;
}

int fg_set_fault(struct fg *fg, const char *symbol, int count, int code, int skip) {
    for (int i = 0; i < FG_FAULTS; i++) {
        struct fg_fault *fault = &fg->st->faults[i];
        if (atomic_load(&fault->left) > 0 && strcmp(fault->symbol, symbol) != 0)
            continue;
        atomic_store(&fault->left, 0);
        snprintf(fault->symbol, sizeof fault->symbol, "%s", symbol);
        fault->code = code;
        atomic_store(&fault->skip, skip);
        atomic_store(&fault->left, count);
        atomic_store(&fg->st->faults_set, 1);
        return 0;
    }
    return -ENOSPC;
}
