/* What writes to the state: changes of MIG, and counting down the faults that a test asked for. */
#define _GNU_SOURCE
#include "nvml_int.h"

#include <errno.h>

static bool open_writer(struct nvml *n) {
    if (!n->writable)
        n->writable = fg_open(&n->writer, n->fg.path, true) == 0;
    return n->writable;
}

/* The code that this call is to answer with. A state that we may not write has no faults. */
int nvml_fault(const char *symbol) {
    struct nvml *n = &nvml_global;
    int code = 0;
    if (!n->open || atomic_load(&n->fg.st->faults_set) == 0)
        return 0;
    pthread_mutex_lock(&n->changing);
    if (open_writer(n))
        code = fg_fault(&n->writer, symbol);
    n->writer.dies_inside = code == FG_KILL_INSIDE;
    pthread_mutex_unlock(&n->changing);
    if (code == FG_KILL_BEFORE)
        fg_die();
    return code;
}

/* Whoever is to die in a call dies at its end at the latest. */
void nvml_call_ends(const int *code) {
    if (*code < 0)
        fg_die();
}

struct fg *nvml_writer(void) { return &nvml_global.writer; }

/* Only root may change the partition; in a container it needs the capability's device node. */
nvmlReturn_t nvml_begin_change(void) {
    struct nvml *n = &nvml_global;
    if (!fg_cap_visible(&n->fg, FG_CAP_CONFIG))
        return NVML_ERROR_NO_PERMISSION;
    pthread_mutex_lock(&n->changing);
    if (open_writer(n) && fg_claim(&n->writer) == 0)
        return NVML_SUCCESS;
    pthread_mutex_unlock(&n->changing);
    return NVML_ERROR_NO_PERMISSION;
}

/* Ends a change and tells its outcome as NVML does. */
nvmlReturn_t nvml_end_change(int rc) {
    static const struct {
        int rc;
        nvmlReturn_t code;
    } codes[] = {
        {0, NVML_SUCCESS},
        {-ENOTSUP, NVML_ERROR_NOT_SUPPORTED},
        {-EINVAL, NVML_ERROR_INVALID_ARGUMENT},
        {-ENODEV, NVML_ERROR_INVALID_ARGUMENT},
        {-ENOSPC, NVML_ERROR_INSUFFICIENT_RESOURCES},
        {-EBUSY, NVML_ERROR_IN_USE},
        {-EAGAIN, NVML_ERROR_RESET_REQUIRED},
    };
    fg_release(&nvml_global.writer);
    pthread_mutex_unlock(&nvml_global.changing);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (codes[i].rc == rc)
            return codes[i].code;
    return NVML_ERROR_UNKNOWN;
}
