/* Start-up: the driver's state, the visible cards, and what a fork leaves behind. */
#define _GNU_SOURCE
#include "cuda_int.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FIRST_VA 0x300000000000ull /* nothing else of a Linux process lies there */
#define FIRST_LOW_VA 0x10000000ull

struct process cu_process = {.mutex = PTHREAD_MUTEX_INITIALIZER,
                             .fg.registry = PTHREAD_MUTEX_INITIALIZER};

static pthread_mutex_t init_mutex = PTHREAD_MUTEX_INITIALIZER;

/* One page that the kernel zeroes in every fork's child, also of a raw clone: one load tells
 * whether this process has called cuInit. */
static _Atomic int *initialised;

bool cu_ready(void) {
    _Atomic int *mark = initialised;
    return mark != NULL && atomic_load(mark) != 0;
}

CUresult cu_error(int rc) {
    switch (rc) {
    case 0:
        return CUDA_SUCCESS;
    case -ENOMEM:
        return CUDA_ERROR_OUT_OF_MEMORY;
    default:
        return CUDA_ERROR_UNKNOWN; /* -EIO: the card is lost */
    }
}

static void in_child(void) {
    pthread_mutex_init(&init_mutex, NULL);
    pthread_mutex_init(&cu_process.mutex, NULL);
}

static bool make_mark(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *map = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return false;
    madvise(map, page, MADV_WIPEONFORK);
    pthread_atfork(NULL, NULL, in_child);
    initialised = map;
    return true;
}

static void reset_process(void) {
    memset(cu_process.primary, 0, sizeof cu_process.primary);
    cu_process.allocations = (struct table){0};
    cu_process.reservations = (struct table){0};
    cu_process.next_va = FIRST_VA;
    cu_process.next_low_va = FIRST_LOW_VA;
    cu_process.epoch++;
    if (cu_process.attached)
        fg_forked(&cu_process.fg);
}

static CUresult start(void) {
    reset_process();
    if (!cu_process.attached && fg_attach(&cu_process.fg, &cu_process, true) != 0)
        return CUDA_ERROR_NO_DEVICE;
    cu_process.attached = true;
    if (cu_process.fg.st->modes.init_ms > 0)
        fg_sleep_until(fg_now() + cu_process.fg.st->modes.init_ms * 1000000ull);
    cu_process.count = cu_visible(&cu_process);
    if (cu_process.count == 0)
        return CUDA_ERROR_NO_DEVICE;
    return cu_error(fg_claim(&cu_process.fg));
}

CUresult cuInit(unsigned flags) {
    CUresult rc = CUDA_SUCCESS;
    REQUIRE(flags == 0);
    pthread_mutex_lock(&init_mutex);
    if (!cu_ready()) {
        rc = initialised != NULL || make_mark() ? start() : CUDA_ERROR_OUT_OF_MEMORY;
        if (rc == CUDA_SUCCESS)
            atomic_store(initialised, 1);
    }
    pthread_mutex_unlock(&init_mutex);
    return rc;
}

/* Works before cuInit. */
CUresult cuDriverGetVersion(int *version) {
    REQUIRE(version != NULL);
    *version = 12040;
    if (cu_ready()) {
        *version = (int)cu_process.fg.st->cuda_version;
        return CUDA_SUCCESS;
    }
    pthread_mutex_lock(&init_mutex);
    if (!cu_process.attached && fg_attach(&cu_process.fg, &cu_process, true) == 0)
        cu_process.attached = true;
    if (cu_process.attached)
        *version = (int)cu_process.fg.st->cuda_version;
    pthread_mutex_unlock(&init_mutex);
    return CUDA_SUCCESS;
}

CUresult cuGetExportTable(const void **table, const CUuuid *id) {
    (void)id;
    REQUIRE(table != NULL);
    *table = NULL;
    return CUDA_ERROR_NOT_FOUND;
}
