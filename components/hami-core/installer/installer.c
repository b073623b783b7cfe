/*
 * Delivers the library to a node: <to>/<version>/{libvgpu.so,ld.so.preload}, written once and never
 * changed, and the symlink <to>/current, moved in one step. A kill at any instant leaves what was
 * there before or what is there now.
 */
#define _GNU_SOURCE
#include "remove.h"
#include "version_gen.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PRELOAD_LINE                                                                               \
    "/usr/local/vgpu/libvgpu.so\n" /* where a container finds it, whatever the host's folder is */
#define TEMPORARY ".installing"

struct options {
    const char *from;
    const char *to;
    bool once;
    bool uninstall;
    bool again; /* not the first look: what has not changed is not told */
};

static const char usage_text[] =
    "hami-core-installer " HAMI_CORE_VERSION "\n"
    "  --from FILE   the library to deliver (default /libvgpu.so)\n"
    "  --to DIR      the host's folder (default /usr/local/vgpu)\n"
    "  --uninstall   remove `current`, and each version as soon as nothing uses it any more\n"
    "  --once        deliver or remove what can be removed now, and end; without it, go on until "
    "SIGTERM\n";

static int complain(const char *what, const char *path) {
    fprintf(stderr, "hami-core-installer: %s %s: %s\n", what, path, strerror(errno));
    return -1;
}

static bool write_whole(int fd, const char *bytes, size_t count) {
    while (count > 0) {
        ssize_t written = write(fd, bytes, count);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return false;
        }
        bytes += written;
        count -= (size_t)written;
    }
    return true;
}

static int write_file(int folder, const char *name, const char *bytes, size_t count) {
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0444);
    if (fd < 0) {
        return complain("cannot create", name);
    }
    /* fchmod: the mode must not depend on our umask, tenants of any user read it. */
    bool done = write_whole(fd, bytes, count) && fchmod(fd, 0444) == 0 && fsync(fd) == 0;
    int answer = done ? 0 : complain("cannot write", name);
    close(fd);
    return answer;
}

/* The whole file, which the caller frees; NULL if it cannot be read. */
static char *read_file(int folder, const char *name, size_t *count) {
    struct stat status;
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    char *bytes = NULL;
    *count = 0;
    if (fd < 0) {
        return NULL;
    }
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        bytes = malloc((size_t)status.st_size + 1);
        ssize_t got = 1;
        while (bytes != NULL && got > 0 && *count < (size_t)status.st_size) {
            got = read(fd, bytes + *count, (size_t)status.st_size - *count);
            *count += got > 0 ? (size_t)got : 0;
        }
    }
    close(fd);
    return bytes;
}

static bool same_file(int folder, const char *name, const char *bytes, size_t count) {
    size_t found_count = 0;
    char *found = read_file(folder, name, &found_count);
    bool same = found != NULL && found_count == count && memcmp(found, bytes, count) == 0;
    free(found);
    return same;
}

/* FNV-1a: tells two builds of one version apart. */
static uint32_t short_hash(const char *bytes, size_t count) {
    uint32_t hash = UINT32_C(2166136261);
    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ (unsigned char)bytes[i]) * UINT32_C(16777619);
    }
    return hash;
}

enum presence { ABSENT, SAME, DIFFERENT };

static enum presence look_at(int to, const char *version, const char *library, size_t count) {
    int folder = openat(to, version, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0) {
        return errno == ENOENT ? ABSENT : DIFFERENT;
    }
    bool same = same_file(folder, "libvgpu.so", library, count) &&
                same_file(folder, "ld.so.preload", PRELOAD_LINE, strlen(PRELOAD_LINE));
    close(folder);
    return same ? SAME : DIFFERENT;
}

/* A folder of another name, filled and flushed, then renamed: the version is there whole or not at
 * all. */
static int deliver_version(int to, const char *version, const char *library, size_t count) {
    remove_version(to, TEMPORARY); /* of an installer that was killed */
    if (mkdirat(to, TEMPORARY, 0755) != 0) {
        return complain("cannot create", TEMPORARY);
    }
    int folder = openat(to, TEMPORARY, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0) {
        return complain("cannot open", TEMPORARY);
    }
    int answer = fchmod(folder, 0755);
    answer = answer == 0 ? write_file(folder, "libvgpu.so", library, count) : answer;
    answer = answer == 0 ? write_file(folder, "ld.so.preload", PRELOAD_LINE, strlen(PRELOAD_LINE))
                         : answer;
    answer = answer == 0 ? fsync(folder) : answer;
    close(folder);
    if (answer == 0 && renameat(to, TEMPORARY, to, version) != 0) {
        answer = complain("cannot put in place", version);
    }
    return answer == 0 ? fsync(to) : answer;
}

/* 0: it was there already, 1: it was moved, -1: it could not be. */
static int point_current(int to, const char *version) {
    char found[NAME_MAX + 1] = "";
    ssize_t length = readlinkat(to, "current", found, sizeof(found) - 1);
    if (length > 0 && strcmp(found, version) == 0) {
        return 0;
    }
    unlinkat(to, TEMPORARY "-current", 0);
    if (symlinkat(version, to, TEMPORARY "-current") != 0 ||
        renameat(to, TEMPORARY "-current", to, "current") != 0) {
        return complain("cannot move", "current");
    }
    return fsync(to) == 0 ? 1 : complain("cannot flush", "current");
}

/* A version that is there with other content may be in use: it stays, and this build goes beside
 * it. */
static int install(int to, const char *library, size_t count, bool again) {
    char version[64] = HAMI_CORE_VERSION;
    enum presence presence = look_at(to, version, library, count);
    if (presence == DIFFERENT) {
        snprintf(version, sizeof(version), "%s-%08x", HAMI_CORE_VERSION,
                 short_hash(library, count));
        presence = look_at(to, version, library, count);
    }
    if (presence == DIFFERENT) {
        errno = EEXIST;
        return complain("damaged, remove it by hand:", version);
    }
    if (presence == ABSENT && deliver_version(to, version, library, count) != 0) {
        return -1;
    }
    int moved = point_current(to, version);
    if (moved >= 0 && (moved > 0 || presence == ABSENT || !again)) {
        printf("version %s is %s and current\n", version,
               presence == SAME ? "already there" : "installed");
    }
    return moved >= 0 ? 0 : -1;
}

static int read_options(int argc, char **argv, struct options *options) {
    *options = (struct options){.from = "/libvgpu.so", .to = "/usr/local/vgpu"};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--from") == 0 && i + 1 < argc) {
            options->from = argv[++i];
        } else if (strcmp(argv[i], "--to") == 0 && i + 1 < argc) {
            options->to = argv[++i];
        } else if (strcmp(argv[i], "--once") == 0) {
            options->once = true;
        } else if (strcmp(argv[i], "--uninstall") == 0) {
            options->uninstall = true;
        } else {
            fputs(usage_text, stderr);
            return -1;
        }
    }
    return 0;
}

/* One installer at a time on a node: an upgrade may overlap. The kernel drops the lock with us. */
static int open_folder(const char *path) {
    if (mkdir(path, 0755) != 0 && errno != EEXIST) {
        return complain("cannot create", path);
    }
    int to = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (to < 0) {
        return complain("cannot open", path);
    }
    if (flock(to, LOCK_EX) != 0) {
        complain("cannot lock", path);
        close(to);
        return -1;
    }
    return to;
}

static int deliver(const struct options *options, int to) {
    size_t count = 0;
    char *library = read_file(AT_FDCWD, options->from, &count);
    if (library == NULL || count == 0) {
        free(library);
        return complain("cannot read", options->from);
    }
    int answer = install(to, library, count, options->again);
    free(library);
    return answer;
}

/* True when the process is to end, false when the time is up. */
static bool told_to_end(const sigset_t *ends, const struct timespec *time) {
    int number = 0;
    do {
        number = sigtimedwait(ends, NULL, time);
    } while (number < 0 && errno == EINTR);
    return number > 0;
}

/* One look. The folder is locked no longer than that: an installer may come in between. */
static int look_once(const struct options *options) {
    int to = open_folder(options->to);
    if (to < 0) {
        return -1;
    }
    int answer = options->uninstall ? remove_unused(to, "/proc") : deliver(options, to);
    close(to);
    return answer;
}

int main(int argc, char **argv) {
    struct options options;
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL); /* an end that comes while we write is seen right after */
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (read_options(argc, argv, &options) != 0) {
        return 2;
    }
    const struct timespec pause = {.tv_sec = 5};
    int answer = look_once(&options);
    /* Versions go as soon as they can; a version or `current` that somebody took away comes back.
     */
    while (answer >= 0 && !options.once && !told_to_end(&ends, &pause)) {
        options.again = true;
        answer = look_once(&options);
    }
    return answer >= 0 ? 0 : 1;
}
