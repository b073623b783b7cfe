/* Lays out a driver root as a containerised driver does, and the CDI spec that points into it. */
#define _GNU_SOURCE
#include "fg_mig.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LIB_DIR "/usr/lib/x86_64-linux-gnu"
#define STATE_DIR "/run/nvidia-fake"
#define NVIDIA_MAJOR 195
#define NVIDIACTL_MINOR 255
#define UVM_MAJOR 510
#define CAPS_MAJOR 236

static int make_dirs(const char *path, mode_t last_mode) {
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *slash = copy + 1;; slash++) {
        slash = strchrnul(slash, '/');
        char kept = *slash;
        *slash = '\0';
        if (mkdir(copy, 0755) != 0 && errno != EEXIST)
            return complain("cannot make %s: %s", copy, strerror(errno));
        *slash = kept;
        if (kept == '\0')
            break;
    }
    return chmod(path, last_mode) == 0 ? 0 : complain("chmod %s: %s", path, strerror(errno));
}

/* Copies beside the target and renames: a process that has the old file mapped keeps it. */
static int copy_file(const char *from, const char *to) {
    char temporary[PATH_MAX + 8];
    struct stat info;
    int rc = 0;
    snprintf(temporary, sizeof temporary, "%s.new", to);
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0 || fstat(in, &info) != 0)
        return complain("cannot read %s: %s; build first, or give --libs", from, strerror(errno));
    int out = open(temporary, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0755);
    for (off_t left = info.st_size; out >= 0 && left > 0 && rc == 0;) {
        ssize_t n = sendfile(out, in, NULL, (size_t)left);
        left -= n;
        rc = n <= 0;
    }
    if (out < 0 || rc != 0 || fchmod(out, 0755) != 0 || rename(temporary, to) != 0)
        rc = complain("cannot write %s: %s", to, strerror(errno));
    if (out >= 0)
        close(out);
    close(in);
    return rc;
}

/* The folder of the built libraries: --libs, else beside this program. */
static void build_dir(const struct options *o, char *dir, size_t len) {
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    snprintf(dir, len, "%s", o->libs != NULL ? o->libs : dirname(self));
}

static int install_files(const struct options *o) {
    static const char *const files[][2] = {
        {"libcuda.so.1", LIB_DIR "/libcuda.so.1"},
        {"libnvidia-ml.so.1", LIB_DIR "/libnvidia-ml.so.1"},
        {"nvidia-smi", "/usr/bin/nvidia-smi"},
    };
    static const char *const links[][2] = {
        {"libcuda.so.1", LIB_DIR "/libcuda.so"},
        {"libnvidia-ml.so.1", LIB_DIR "/libnvidia-ml.so"},
    };
    char dir[PATH_MAX], from[PATH_MAX + 32], to[PATH_MAX];
    build_dir(o, dir, sizeof dir);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(from, sizeof from, "%s/%s", dir, files[i][0]);
        snprintf(to, sizeof to, "%s%s", o->root, files[i][1]);
        if (copy_file(from, to) != 0)
            return 1;
    }
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        snprintf(to, sizeof to, "%s%s", o->root, links[i][1]);
        if (symlink(links[i][0], to) != 0 && errno != EEXIST)
            return complain("cannot link %s: %s", to, strerror(errno));
    }
    return 0;
}

static int make_node(const char *dev, const char *name, unsigned device_major,
                     unsigned device_minor) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dev, name);
    if (mknod(path, S_IFCHR | 0666, makedev(device_major, device_minor)) != 0 && errno != EEXIST)
        return complain("cannot make %s: %s; it needs root", path, strerror(errno));
    return chmod(path, 0666) == 0 ? 0 : complain("chmod %s: %s", path, strerror(errno));
}

/* Nodes of MIG capabilities: of the partition, and of every instance that a card could have. */
static int make_caps(const char *dev, const struct fg_state *st) {
    char folder[PATH_MAX], name[32];
    snprintf(folder, sizeof folder, "%s/nvidia-caps", dev);
    int last = FG_CAP_MONITOR;
    for (int i = 0; i < (int)st->ncards; i++)
        if (st->cards[i].mig_capable)
            last = fg_cap(i, FG_CAP_IDS - 1, FG_COMPUTES - 1);
    if (last == FG_CAP_MONITOR)
        return 0;
    int rc = make_dirs(folder, 0755);
    for (int cap = FG_CAP_CONFIG; cap <= last && rc == 0; cap++) {
        snprintf(name, sizeof name, "nvidia-cap%d", cap);
        rc = make_node(folder, name, CAPS_MAJOR, (unsigned)cap);
    }
    return rc;
}

/* Makes the character devices that a driver would; nothing answers behind them. */
int make_nodes(const char *dev, const struct fg_state *st) {
    int rc = make_dirs(dev, 0755) || make_node(dev, "nvidiactl", NVIDIA_MAJOR, NVIDIACTL_MINOR) ||
             make_node(dev, "nvidia-uvm", UVM_MAJOR, 0);
    for (int i = 0; i < (int)st->ncards && rc == 0; i++) {
        char name[32];
        snprintf(name, sizeof name, "nvidia%d", i);
        rc = make_node(dev, name, NVIDIA_MAJOR, (unsigned)i);
    }
    return rc == 0 ? make_caps(dev, st) : rc;
}

static void cdi_device(FILE *f, const char *name, int first, int last) {
    fprintf(f, "    - name: \"%s\"\n      containerEdits:\n        deviceNodes:\n", name);
    for (int i = first; i <= last; i++)
        fprintf(f, "            - path: /dev/nvidia%d\n", i);
}

/* A MIG device: its card's node and the two that give access to its instances. */
static void cdi_instance(FILE *f, const char *name, const struct fg_state *st, int unit, int ci) {
    int card = fg_parent(unit), gi = (int)st->cards[unit].instance.id;
    cdi_device(f, name, card, card);
    fprintf(f, "            - path: /dev/nvidia-caps/nvidia-cap%d\n", fg_cap(card, gi, -1));
    fprintf(f, "            - path: /dev/nvidia-caps/nvidia-cap%d\n", fg_cap(card, gi, ci));
}

/* A card in MIG mode is given by its instances alone. */
static void cdi_card(FILE *f, const struct fg *fg, int card) {
    const struct fg_state *st = fg->st;
    char name[32];
    int unit, ci;
    if (!atomic_load(&st->cards[card].mig_current)) {
        snprintf(name, sizeof name, "%d", card);
        cdi_device(f, name, card, card);
        cdi_device(f, st->cards[card].uuid, card, card);
        return;
    }
    for (int i = 0; fg_mig_nth(fg, card, i, &unit, &ci) == 0; i++) {
        snprintf(name, sizeof name, "%d:%d", card, i);
        cdi_instance(f, name, st, unit, ci);
        cdi_instance(f, st->cards[unit].instance.computes[ci].uuid, st, unit, ci);
    }
}

static void cdi_mount(FILE *f, const char *host_root, const char *path, const char *options) {
    fprintf(f, "        - hostPath: %s%s\n          containerPath: %s\n          options:\n",
            host_root, path, path);
    char copy[64];
    snprintf(copy, sizeof copy, "%s", options);
    for (char *save, *s = strtok_r(copy, ",", &save); s != NULL; s = strtok_r(NULL, ",", &save))
        fprintf(f, "            - %s\n", s);
}

static void cdi_common(FILE *f, const char *node_root) {
    static const char *const files[] = {
        "/usr/bin/nvidia-smi",        LIB_DIR "/libcuda.so.1",    LIB_DIR "/libcuda.so",
        LIB_DIR "/libnvidia-ml.so.1", LIB_DIR "/libnvidia-ml.so",
    };
    fputs("containerEdits:\n"
          "    env:\n        - NVIDIA_VISIBLE_DEVICES=void\n"
          "    deviceNodes:\n        - path: /dev/nvidia-uvm\n        - path: /dev/nvidiactl\n"
          "    mounts:\n",
          f);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        cdi_mount(f, node_root, files[i], "ro,nosuid,nodev,bind");
    cdi_mount(f, node_root, STATE_DIR, "rw,nosuid,nodev,bind");
}

/* Writes the spec in the shape of `nvidia-ctk cdi generate`, by rename so no one reads half. */
int write_cdi(const struct options *o, const struct fg *fg) {
    char temporary[PATH_MAX + 8], folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", o->cdi);
    if (make_dirs(dirname(folder), 0755) != 0)
        return 1;
    snprintf(temporary, sizeof temporary, "%s.new", o->cdi);
    FILE *f = fopen(temporary, "we");
    if (f == NULL)
        return complain("cannot write %s: %s", temporary, strerror(errno));
    fputs("---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n", f);
    int n = (int)fg->st->ncards;
    for (int i = 0; i < n; i++)
        cdi_card(f, fg, i);
    cdi_device(f, "all", 0, n - 1);
    cdi_common(f, o->node_root);
    bool written = ferror(f) == 0;
    if (fclose(f) != 0 || !written || rename(temporary, o->cdi) != 0)
        return complain("cannot write %s: %s", o->cdi, strerror(errno));
    return 0;
}

/* Idempotent: an existing state of the same cards stays, with all that processes hold in it. */
int install_root(const struct options *o) {
    char path[PATH_MAX];
    static const struct {
        const char *path;
        mode_t mode;
    } dirs[] = {{LIB_DIR, 0755}, {"/usr/bin", 0755}, {STATE_DIR, 0777}};
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        snprintf(path, sizeof path, "%s%s", o->root, dirs[i].path);
        if (make_dirs(path, dirs[i].mode) != 0)
            return 1;
    }
    snprintf(path, sizeof path, "%s%s/state", o->root, STATE_DIR);
    struct fg fg;
    if (install_files(o) != 0 || create_state(o, path) != 0)
        return 1;
    if (fg_open(&fg, path, false) != 0)
        return complain("cannot open %s", path);
    if (o->cdi != NULL && write_cdi(o, &fg) != 0)
        return 1;
    return o->dev != NULL ? make_nodes(o->dev, fg.st) : 0;
}
