#define _GNU_SOURCE
#include "usage_file.h"

#include "ledger.h"
#include "log.h"
#include "version_gen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef F_OFD_SETLK
#define F_OFD_SETLK 37 /* Linux 3.15; the headers of glibc 2.17 do not have it */
#endif

#define SHARED(field) ((_Atomic __typeof__(field) *)&(field))

/* fstat as a system call: its symbol in a new glibc does not exist in an old one. */
static bool stat_of(int fd, struct stat *status) { return syscall(SYS_fstat, fd, status) == 0; }

static const char *map_usage(int fd, struct hami_usage **usage) {
    struct stat status;
    if (!stat_of(fd, &status) || !S_ISREG(status.st_mode)) {
        return "no regular file";
    }
    if (status.st_size != HAMI_USAGE_SIZE) {
        return "of another size";
    }
    void *pages = mmap(NULL, HAMI_USAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (pages == MAP_FAILED) {
        return strerror(errno);
    }
    const struct hami_usage *found = pages;
    if (memcmp(found->magic, HAMI_USAGE_MAGIC, sizeof(found->magic)) != 0 ||
        found->layout_version != HAMI_USAGE_VERSION || found->size != HAMI_USAGE_SIZE) {
        munmap(pages, HAMI_USAGE_SIZE);
        return "of another layout";
    }
    /* A mapping holds the open file, and so our lock: a child must not keep it after we are dead.
     */
    madvise(pages, HAMI_USAGE_SIZE, MADV_DONTFORK);
    *usage = pages;
    return NULL;
}

/* Our descriptor and its file, so that a child closes what is still ours and nothing that took its
 * number. */
static struct {
    int fd;
    dev_t device;
    ino_t inode;
} held = {.fd = -1};

static void hold(int fd) {
    struct stat status;
    if (stat_of(fd, &status)) {
        held.device = status.st_dev;
        held.inode = status.st_ino;
        held.fd = fd;
    }
}

void usage_file_after_fork(void) {
    struct stat status;
    if (held.fd >= 0 && stat_of(held.fd, &status) && status.st_dev == held.device &&
        status.st_ino == held.inode) {
        close(held.fd);
    }
    held.fd = -1;
}

struct usage_file usage_file_open(const char *path) {
    struct usage_file file = {NULL, NULL, -1};
    file.fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file.fd < 0) {
        file.why = strerror(errno);
        return file;
    }
    file.why = map_usage(file.fd, &file.usage);
    if (file.usage == NULL) {
        close(file.fd);
        file.fd = -1;
        return file;
    }
    hold(file.fd);
    memcpy(file.usage->library_version, HAMI_CORE_VERSION, sizeof(HAMI_CORE_VERSION));
    return file;
}

struct hami_usage *usage_file_private(void) {
    void *pages =
        mmap(NULL, HAMI_USAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        return NULL;
    }
    struct hami_usage_slot *own = ((struct hami_usage *)pages)->slots;
    own->pid = (int)syscall(SYS_getpid);
    own->state = HAMI_SLOT_LIVE;
    return pages;
}

/*
 * State and start time (field 22) of a process. The name in between may hold anything, so what
 * follows its last ')' is read. Zero if there is no such process.
 */
static uint64_t start_time_of(int pid, char *state) {
    char path[32];
    char text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0) {
        close(fd);
    }
    if (length <= 0) {
        return 0;
    }
    text[length] = '\0';
    char *at = strrchr(text, ')');
    if (at == NULL || at[1] != ' ') {
        return 0;
    }
    at += 2;
    *state = *at;
    for (int field = 3; field < 22 && at != NULL; field++) {
        at = strchr(at, ' ');
        at = at != NULL ? at + 1 : NULL;
    }
    return at != NULL ? strtoull(at, NULL, 10) : 0;
}

/* Second witness, should a process have lost its lock and be alive all the same. */
static bool witness_alive(const struct hami_usage_slot *slot) {
    char state = '?';
    uint64_t start = slot->pid > 0 ? start_time_of(slot->pid, &state) : 0;
    return start != 0 && start == slot->start_time && state != 'Z' && state != 'X';
}

static bool lock_slot(int fd, unsigned slot, short type) {
    struct flock lock;
    memset(&lock, 0, sizeof(lock));
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = HAMI_LOCK_BASE + (off_t)slot;
    lock.l_len = 1;
    return syscall(SYS_fcntl, fd, F_OFD_SETLK, &lock) ==
           0; /* fcntl is fcntl64 in new headers, absent before 2.28 */
}

/* With the slot's lock in hand. False if its process lives: then the slot stays as it is. */
static bool clear_dead(struct hami_usage *usage, unsigned index) {
    struct hami_usage_slot *slot = &usage->slots[index];
    if (atomic_load(SHARED(slot->state)) == HAMI_SLOT_LIVE && witness_alive(slot)) {
        return false;
    }
    ledger_clear_slot(usage, index);
    atomic_store(SHARED(slot->state), HAMI_SLOT_FREE);
    return true;
}

static void move_in(struct hami_usage_slot *slot) {
    char state = '?';
    int pid = (int)syscall(SYS_getpid);
    slot->pid = pid;
    slot->start_time = start_time_of(pid, &state);
    slot->last_activity_ns = 0;
    atomic_store(SHARED(slot->host), 0);
    memset(slot->command, 0, sizeof(slot->command));
    int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, slot->command, sizeof(slot->command) - 1);
    if (fd >= 0) {
        close(fd);
    }
    slot->command[length > 0 ? length - 1 : 0] = '\0'; /* it ends in a newline */
    atomic_store(SHARED(slot->state), HAMI_SLOT_LIVE);
}

int usage_file_claim(struct usage_file *file) {
    for (unsigned index = 0; index < HAMI_MAX_SLOTS; index++) {
        if (!lock_slot(file->fd, index, F_WRLCK)) {
            continue;
        }
        if (clear_dead(file->usage, index)) {
            move_in(&file->usage->slots[index]);
            return (int)index;
        }
        lock_slot(file->fd, index, F_UNLCK);
    }
    return -1;
}

bool usage_file_reap(const struct usage_file *file, unsigned own) {
    bool found = false;
    for (unsigned index = 0; index < HAMI_MAX_SLOTS; index++) {
        uint32_t state = atomic_load(SHARED(file->usage->slots[index].state));
        if (index == own || state != HAMI_SLOT_LIVE || !lock_slot(file->fd, index, F_WRLCK)) {
            continue;
        }
        if (clear_dead(file->usage, index)) {
            log_line(LOG_INFO, "cleared slot %u of a process that is gone", index);
            found = true;
        }
        lock_slot(file->fd, index, F_UNLCK);
    }
    return found;
}
