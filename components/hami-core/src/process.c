#define _GNU_SOURCE
#include "process.h"

#include "device.h"
#include "gate.h"
#include "ledger.h"
#include "limit.h"
#include "loader.h"
#include "log.h"
#include "usage_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18 /* Linux 4.14 */
#endif

extern char **environ;

/* In libc since 2.3.2; pthread_atfork itself is in libpthread before 2.34. */
extern int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void),
                             void *dso);
extern void *__dso_handle;

#define NS_PER_S UINT64_C(1000000000)

static struct process *_Atomic the_process;

#define PROCESS_BYTES ((sizeof(struct process) + 4095) & ~(size_t)4095)

/* MADV_WIPEONFORK does the same for a child made by a bare clone, which calls no handlers. */
static void after_fork(void) {
    struct process *process = atomic_load(&the_process);
    gate_after_fork();
    if (process != NULL) {
        memset(process, 0, sizeof(*process));
    }
    usage_file_after_fork();
}

static struct process *process_pages(void) {
    struct process *process = atomic_load_explicit(&the_process, memory_order_acquire);
    if (process != NULL) {
        return process;
    }
    void *pages =
        mmap(NULL, PROCESS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        return NULL;
    }
    madvise(pages, PROCESS_BYTES, MADV_WIPEONFORK);
    if (atomic_compare_exchange_strong(&the_process, &process, pages)) {
        __register_atfork(NULL, NULL, after_fork, __dso_handle);
        return pages;
    }
    munmap(pages, PROCESS_BYTES);
    return process;
}

enum control_file { CONTROL_ABSENT, CONTROL_UNUSABLE, CONTROL_MAPPED };

static const struct hami_control *map_pages(int fd) {
    struct stat status;
    if (syscall(SYS_fstat, fd, &status) != 0 || !S_ISREG(status.st_mode) ||
        status.st_size != HAMI_CONTROL_SIZE) {
        return NULL;
    }
    void *pages = mmap(NULL, HAMI_CONTROL_SIZE, PROT_READ, MAP_SHARED, fd, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

static enum control_file map_control(struct process *process) {
    char path[PATH_MAX];
    if (!loader_beside("control", path, sizeof(path))) {
        return CONTROL_UNUSABLE;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errno == ENOENT ? CONTROL_ABSENT : CONTROL_UNUSABLE;
    }
    process->control = map_pages(fd);
    close(fd);
    return process->control != NULL ? CONTROL_MAPPED : CONTROL_UNUSABLE;
}

/* HAMi's GPU_CORE_UTILIZATION_POLICY counts where there is no control file, or the operator lets it
 * loosen. */
static void apply_core_variable(struct process *process) {
    const char *policy = getenv("GPU_CORE_UTILIZATION_POLICY");
    if (process->source == LIMITS_ENV || (process->body.flags & HAMI_CONTROL_ENV_MAY_LOOSEN) != 0) {
        process->body.core_policy = limits_core_policy(policy, (uint32_t)process->body.core_policy);
    }
}

/* Under setup_lock: what the body says, in the form that the hot path reads. */
static void publish_limits(struct process *process) {
    apply_core_variable(process);
    for (unsigned i = 0; i < HAMI_MAX_DEVICES; i++) {
        uint64_t bytes = process->body.devices[i].memory_limit_bytes;
        uint64_t units = process->source == LIMITS_BROKEN ? 0
                         : bytes == 0                     ? LEDGER_NO_LIMIT
                                                          : bytes / HAMI_UNIT;
        uint64_t real = process->body.devices[i].real_memory_bytes;
        atomic_store(&process->limit_units[i], units);
        atomic_store(&process->real_units[i], real == 0 ? LEDGER_NO_LIMIT : real / HAMI_UNIT);
    }
    atomic_store(&process->strict_overhead, process->body.overhead_policy == HAMI_OVERHEAD_STRICT);
    for (unsigned i = 0; i < HAMI_MAX_DEVICES; i++) {
        atomic_store(&process->core_percent[i], limits_core_percent(&process->body, i));
    }
    atomic_store(&process->held_until_ns, limits_held_until(&process->body));
    atomic_store(&process->generation, process->body.generation);
    log_set_level(process->body.log_level);
}

/* HAMi's CUDA_DISABLE_CONTROL counts only where the operator allows it. */
static bool loosened(const struct process *process) {
    const char *disable = getenv("CUDA_DISABLE_CONTROL");
    return process->source == LIMITS_CONTROL &&
           (process->body.flags & HAMI_CONTROL_ENV_MAY_LOOSEN) != 0 && disable != NULL &&
           limits_parse_switch(disable);
}

static enum limits_source find_limits(struct process *process) {
    const char *malformed = NULL;
    enum control_file file = map_control(process);
    if (file == CONTROL_MAPPED && limits_read_control(process->control, &process->body)) {
        return LIMITS_CONTROL;
    }
    if (file != CONTROL_ABSENT) {
        return LIMITS_BROKEN;
    }
    bool named = limits_from_environment((const char *const *)environ, &process->body, &malformed);
    if (malformed != NULL) {
        log_line(LOG_ERROR, "%s has a value that is no size: nothing is allowed where it applies",
                 malformed);
    }
    return named ? LIMITS_ENV : LIMITS_NONE;
}

static void open_usage(struct process *process) {
    char path[PATH_MAX];
    struct usage_file file = {NULL, "path too long", -1};
    path[0] = '\0';
    if (loader_beside("usage", path, sizeof(path))) {
        file = usage_file_open(path);
    }
    process->usage_shared = file.usage != NULL;
    process->usage_fd = file.fd;
    process->usage = file.usage;
    if (!process->usage_shared) {
        log_line(LOG_WARNING,
                 "usage file %s cannot be used (%s): limits hold for each process alone", path,
                 file.why);
        process->usage = usage_file_private();
    }
}

static void set_up_limits(struct process *process) {
    process->source = find_limits(process);
    if (process->source == LIMITS_BROKEN) {
        memset(&process->body, 0, sizeof(process->body));
        process->body.log_level = HAMI_LOG_FROM_ENV;
        log_line(LOG_ERROR, "the control file cannot be read: no device memory can be allocated");
    }
    publish_limits(process);
    open_usage(process);
    if (loosened(process)) {
        process->source = LIMITS_NONE;
    }
    if (process->source == LIMITS_NONE) {
        log_line(LOG_INFO, "no limit is attached to this container");
        if (process->usage_shared) {
            __atomic_fetch_add(&process->usage->unlimited_starts, 1, __ATOMIC_RELAXED);
        }
    }
    atomic_store_explicit(&process->limits_ready, 1, memory_order_release);
}

/* A change by the host is seen at the next call; a damaged change leaves the limits as they are. */
static void refresh_limits(struct process *process) {
    struct hami_control_body body;
    lock_take(&process->setup_lock);
    if (limits_read_control(process->control, &body)) {
        process->body = body;
        publish_limits(process);
    }
    lock_drop(&process->setup_lock);
}

struct process *process_limits(void) {
    struct process *process = process_pages();
    if (process == NULL) {
        return NULL;
    }
    if (__builtin_expect(!atomic_load_explicit(&process->limits_ready, memory_order_acquire), 0)) {
        lock_take(&process->setup_lock);
        if (!atomic_load(&process->limits_ready)) {
            set_up_limits(process);
        }
        lock_drop(&process->setup_lock);
    }
    if (process->source == LIMITS_NONE) {
        return NULL;
    }
    if (process->source == LIMITS_CONTROL) {
        uint32_t epoch = __atomic_load_n(&process->control->epoch, __ATOMIC_RELAXED);
        if (__builtin_expect(
                epoch != atomic_load_explicit(&process->generation, memory_order_relaxed), 0)) {
            refresh_limits(process);
        }
    }
    return process;
}

static void claim_slot(struct process *process) {
    struct usage_file file = {process->usage, NULL, process->usage_fd};
    int slot = process->usage_shared ? usage_file_claim(&file) : 0;
    if (slot < 0) {
        log_line(LOG_ERROR, "all %u slots are taken: limits hold for this process alone",
                 HAMI_MAX_SLOTS);
        __atomic_fetch_add(&process->usage->private_starts, 1, __ATOMIC_RELAXED);
        process->usage_shared = false;
        process->usage = usage_file_private();
        slot = 0;
    }
    process->slot = (unsigned)slot;
}

struct process *process_account(bool *refuse) {
    struct process *process = process_limits();
    *refuse = false;
    if (process == NULL ||
        __builtin_expect(atomic_load_explicit(&process->slot_ready, memory_order_acquire), 1)) {
        return process;
    }
    lock_take(&process->setup_lock);
    if (!atomic_load(&process->slot_ready) && process->usage != NULL) {
        claim_slot(process);
        process->table = table_new();
        atomic_store_explicit(&process->slot_ready,
                              process->table != NULL && process->usage != NULL,
                              memory_order_release);
    }
    lock_drop(&process->setup_lock);
    *refuse = !atomic_load(&process->slot_ready);
    return *refuse ? NULL : process;
}

int process_device_by_uuid(struct process *process, const char *uuid) {
    int index = DEVICE_UNGRANTED;
    if (process->source == LIMITS_ENV) {
        return device_nvml_index(uuid);
    }
    lock_take(&process->setup_lock);
    for (unsigned i = 0; i < process->body.device_count && index == DEVICE_UNGRANTED; i++) {
        index = strcasecmp(process->body.devices[i].uuid, uuid) == 0 ? (int)i : DEVICE_UNGRANTED;
    }
    lock_drop(&process->setup_lock);
    return index;
}

int process_device(struct process *process, CUdevice ordinal) {
    char uuid[2][HAMI_UUID_SIZE];
    if (ordinal < 0 || ordinal >= MAX_ORDINALS) {
        return DEVICE_UNGRANTED;
    }
    int known = atomic_load_explicit(&process->index_of[ordinal], memory_order_relaxed);
    if (__builtin_expect(known != 0, 1)) {
        return known - 2;
    }
    int index = DEVICE_UNGRANTED;
    int names = device_uuids(ordinal, uuid);
    for (int i = 0; i < 2 && i < names && index == DEVICE_UNGRANTED; i++) {
        index = process_device_by_uuid(process, uuid[i]);
    }
    if (index == DEVICE_UNGRANTED && process->source == LIMITS_ENV &&
        ordinal < (int)HAMI_MAX_DEVICES) {
        index = ordinal; /* NVML is not there to say which of HAMi's indices this is */
    }
    if (index == DEVICE_UNGRANTED) {
        log_line(LOG_ERROR, "device %d (%s) is not granted to this container", ordinal,
                 names > 0 ? uuid[0] : "?");
    }
    if (names > 0) {
        atomic_store_explicit(&process->index_of[ordinal], (int8_t)(index + 2),
                              memory_order_relaxed);
    }
    return index;
}

uint64_t process_limit(struct process *process, int device) {
    if (device < 0) {
        return 0;
    }
    uint64_t limit = atomic_load_explicit(&process->limit_units[device], memory_order_relaxed);
    if (limit == LEDGER_NO_LIMIT ||
        !atomic_load_explicit(&process->strict_overhead, memory_order_relaxed)) {
        return limit;
    }
    uint64_t overhead = process_overhead(process, device);
    return limit > overhead ? limit - overhead : 0;
}

bool process_is_virtual(struct process *process, int device) {
    return device >= 0 && atomic_load_explicit(&process->real_units[device],
                                               memory_order_relaxed) != LEDGER_NO_LIMIT;
}

uint64_t process_limit_of(struct process *process, int device, enum hami_kind kind) {
    uint64_t limit = process_limit(process, device);
    if (kind == HAMI_KIND_MANAGED || !process_is_virtual(process, device)) {
        return limit;
    }
    uint64_t real = atomic_load_explicit(&process->real_units[device], memory_order_relaxed);
    uint64_t overhead =
        atomic_load(&process->strict_overhead) != 0 ? process_overhead(process, device) : 0;
    real = real > overhead ? real - overhead : 0;
    /* The ledger compares with all that is charged, so what has spilled stands on both sides. */
    real += ledger_kind(process->usage, (unsigned)device, HAMI_KIND_MANAGED);
    return limit < real ? limit : real;
}

uint64_t process_overhead(struct process *process, int device) {
    uint64_t epoch = __atomic_load_n(&process->usage->overhead_epoch, __ATOMIC_ACQUIRE) + 1;
    if (atomic_load(&process->overhead[device].epoch) != epoch) {
        uint64_t units = ledger_overhead(process->usage, (unsigned)device);
        atomic_store(&process->overhead[device].units, units);
        atomic_store(&process->overhead[device].epoch, epoch);
    }
    return atomic_load(&process->overhead[device].units);
}

void process_note_activity(struct process *process) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    process->usage->slots[process->slot].last_activity_ns =
        (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint32_t process_epoch(const struct process *process) {
    return process->source == LIMITS_CONTROL
               ? __atomic_load_n(&process->control->epoch, __ATOMIC_ACQUIRE)
               : 0;
}

void process_wait_control(const struct process *process, uint32_t epoch, uint64_t until_ns) {
    struct timespec until = {(time_t)(until_ns / NS_PER_S), (long)(until_ns % NS_PER_S)};
    if (process->source == LIMITS_CONTROL) {
        long result = syscall(SYS_futex, &process->control->epoch, FUTEX_WAIT_BITSET, epoch, &until,
                              NULL, FUTEX_BITSET_MATCH_ANY);
        if (result == 0 || errno == ETIMEDOUT || errno == EAGAIN || errno == EINTR) {
            return;
        }
    }
    syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

bool process_reap(struct process *process) {
    struct usage_file file = {process->usage, NULL, process->usage_fd};
    unsigned own = atomic_load(&process->slot_ready) != 0 ? process->slot : HAMI_MAX_SLOTS;
    if (!process->usage_shared) {
        return false;
    }
    lock_take(&process->ledger_lock);
    bool found = usage_file_reap(&file, own);
    lock_drop(&process->ledger_lock);
    return found;
}

void process_reap_now_and_then(struct process *process) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    uint64_t second = (uint64_t)now.tv_sec + 1; /* never 0, which is what a new process has */
    if (atomic_exchange_explicit(&process->reaped_at_s, second, memory_order_relaxed) != second) {
        process_reap(process);
    }
}

void process_count_unknown_symbol(void) {
    struct process *process = process_limits();
    if (process != NULL && process->usage != NULL) {
        __atomic_fetch_add(&process->usage->unknown_symbols, 1, __ATOMIC_RELAXED);
    }
}
