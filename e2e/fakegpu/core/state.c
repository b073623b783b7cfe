/* Finding, creating and mapping the state file. */
#define _GNU_SOURCE
#include "fg_state.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LIB_DIR "/lib/x86_64-linux-gnu/"
#define STATE_PATH "/run/nvidia-fake/state"

/* What can differ from zero: everything up to the last card. The rest of the file is a hole. */
static size_t used_size(const struct fg_state *image) {
    return offsetof(struct fg_state, cards) + image->ncards * sizeof image->cards[0];
}

/* Writes the image beside `path` and renames it, so that a reader never sees half a file. */
int fg_create(const char *path, const struct fg_state *image) {
    char temporary[4096 + 16];
    snprintf(temporary, sizeof temporary, "%s.%d", path, (int)getpid());
    int fd = open(temporary, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0)
        return -errno;
    int rc = 0;
    if (fchmod(fd, 0666) != 0) /* every container's user writes it, whatever our umask */
        rc = -errno;
    else if (write(fd, image, used_size(image)) != (ssize_t)used_size(image) ||
             ftruncate(fd, sizeof *image) != 0)
        rc = -EIO;
    else if (rename(temporary, path) != 0)
        rc = -errno;
    close(fd);
    if (rc != 0)
        unlink(temporary);
    return rc;
}

static int check(const struct fg_state *st) {
    if (st->magic != FG_MAGIC || st->version != FG_VERSION || st->size != sizeof *st)
        return -EPROTO;
    return st->ncards > FG_CARDS ? -EPROTO : 0;
}

/* Maps the file; a read-only file or mount is enough for a reader. The descriptor stays open for
 * the life of the process: closing any descriptor of the file would drop the process's locks. */
int fg_open(struct fg *fg, const char *path, bool want_write) {
    pthread_mutex_init(&fg->registry, NULL);
    fg->slot = -1;
    fg->writable = want_write;
    snprintf(fg->path, sizeof fg->path, "%s", path);
    fg->fd = open(path, (want_write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (fg->fd < 0)
        return -errno;
    struct stat info;
    if (fstat(fg->fd, &info) != 0 || info.st_size < (off_t)sizeof(struct fg_state)) {
        close(fg->fd);
        return -EPROTO;
    }
    int protection = PROT_READ | (want_write ? PROT_WRITE : 0);
    void *map = mmap(NULL, sizeof(struct fg_state), protection, MAP_SHARED, fg->fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    fg->st = map;
    return check(fg->st);
}

/* Writes the driver root that holds the library at `self`: "" for /usr/lib/..., "/x" for
 * /x/usr/lib/.... A library anywhere else (a build folder) counts as root "". */
static void library_root(const void *self, char *root, size_t len) {
    Dl_info info;
    char real[PATH_MAX]; /* the loader may know us as /usr/bin/../lib/... */
    root[0] = '\0';
    if (dladdr(self, &info) == 0 || info.dli_fname == NULL || !realpath(info.dli_fname, real))
        return;
    snprintf(root, len, "%s", real);
    char *dir = strstr(root, LIB_DIR);
    if (dir == NULL || strchr(dir + strlen(LIB_DIR), '/') != NULL) {
        root[0] = '\0';
        return;
    }
    *dir = '\0';
    size_t n = strlen(root);
    if (n >= 4 && strcmp(root + n - 4, "/usr") == 0) /* absent where /lib is a link to /usr/lib */
        root[n - 4] = '\0';
}

/* Opens the state that belongs to this library: FAKEGPU_STATE, else below its own driver root.
 * Device nodes decide what is visible only inside a container, where the root is "/". */
int fg_attach(struct fg *fg, const void *self, bool want_write) {
    char root[4096], path[4096 + sizeof STATE_PATH];
    const char *state = getenv("FAKEGPU_STATE");
    const char *dev = getenv("FAKEGPU_DEV");
    library_root(self, root, sizeof root);
    if (dev == NULL)
        dev = state != NULL || root[0] != '\0' ? "all" : "/dev";
    if (strcmp(dev, "all") == 0)
        dev = "";
    snprintf(fg->dev, sizeof fg->dev, "%s", dev);
    snprintf(path, sizeof path, "%s%s", root, STATE_PATH);
    return fg_open(fg, state != NULL ? state : path, want_write);
}

/* Fills in the visible cards; returns their number, or -1 when there is no driver node at all. */
int fg_visible(const struct fg *fg, int cards[FG_CARDS]) {
    char node[sizeof fg->dev + 32];
    int n = 0;
    snprintf(node, sizeof node, "%s/nvidiactl", fg->dev);
    if (fg->dev[0] != '\0' && access(node, F_OK) != 0)
        return -1;
    for (int i = 0; i < (int)fg->st->ncards; i++) {
        snprintf(node, sizeof node, "%s/nvidia%d", fg->dev, i);
        if (fg->dev[0] == '\0' || access(node, F_OK) == 0)
            cards[n++] = i;
    }
    return n;
}

uint64_t fg_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

void fg_sleep_until(uint64_t ns) {
    struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000ull),
                          .tv_nsec = (long)(ns % 1000000000ull)};
    if (ns <= fg_now())
        return;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
        ;
}
