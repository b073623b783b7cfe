#define _GNU_SOURCE
#include "remove.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

void remove_version(int to, const char *version) {
    int folder = openat(to, version, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0) {
        return;
    }
    unlinkat(folder, "libvgpu.so", 0);
    unlinkat(folder, "ld.so.preload", 0);
    close(folder);
    unlinkat(to, version, AT_REMOVEDIR);
}

/* A stream of the folder's entries; NULL if it is not there. */
static DIR *open_entries(int parent, const char *name) {
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? NULL : fdopendir(fd);
}

/* Containers whose files are here: their next start mounts a version, and which one is the device
 * plugin's to know. */
static unsigned count_containers(int to) {
    unsigned count = 0;
    DIR *entries = open_entries(to, "containers");
    int folder = entries != NULL ? dirfd(entries) : -1;
    if (folder < 0) {
        return 0;
    }
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        char path[NAME_MAX + sizeof("/control")];
        snprintf(path, sizeof(path), "%s/control", entry->d_name);
        count += entry->d_name[0] != '.' && faccessat(folder, path, F_OK, 0) == 0;
    }
    closedir(entries);
    return count;
}

/* Device and inode are compared: inside a container the path is another one. */
static bool maps_file(FILE *maps, const struct stat *library) {
    char line[PATH_MAX + 128];
    unsigned long long inode = 0;
    unsigned int device_major = 0;
    unsigned int device_minor = 0;
    while (fgets(line, sizeof(line), maps) != NULL) {
        if (sscanf(line, "%*s %*s %*s %x:%x %llu", &device_major, &device_minor, &inode) == 3 &&
            inode == library->st_ino && makedev(device_major, device_minor) == library->st_dev) {
            return true;
        }
    }
    return false;
}

/* The first process that has the library mapped; 0: none. */
static long find_user(const char *proc, const struct stat *library) {
    long found = 0;
    DIR *entries = opendir(proc);
    if (entries == NULL) {
        return 0;
    }
    for (struct dirent *entry; found == 0 && (entry = readdir(entries)) != NULL;) {
        char path[PATH_MAX];
        if (!isdigit((unsigned char)entry->d_name[0])) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/%s/maps", proc, entry->d_name);
        FILE *maps = fopen(path, "re");
        if (maps != NULL) {
            found = maps_file(maps, library) ? strtol(entry->d_name, NULL, 10) : 0;
            fclose(maps);
        }
    }
    closedir(entries);
    return found;
}

/* Whether a version has to stay. */
static bool consider(int to, const char *version, const char *proc, unsigned containers) {
    char path[NAME_MAX + sizeof("/libvgpu.so")];
    struct stat library;
    snprintf(path, sizeof(path), "%s/libvgpu.so", version);
    if (fstatat(to, path, &library, AT_SYMLINK_NOFOLLOW) != 0) {
        return false; /* none of ours */
    }
    long user = find_user(proc, &library);
    if (user != 0) {
        printf("version %s stays: process %ld has it loaded\n", version, user);
    } else if (containers != 0) {
        printf("version %s stays: %u containers may start with it again\n", version, containers);
    } else {
        remove_version(to, version);
        printf("version %s is removed\n", version);
        return false;
    }
    return true;
}

int remove_unused(int to, const char *proc) {
    if (unlinkat(to, "current", 0) != 0 && errno != ENOENT) {
        fprintf(stderr, "hami-core-installer: cannot remove current: %s\n", strerror(errno));
        return -1;
    }
    unsigned containers = count_containers(to);
    DIR *entries = open_entries(to, ".");
    if (entries == NULL) {
        fprintf(stderr, "hami-core-installer: cannot list the folder: %s\n", strerror(errno));
        return -1;
    }
    int staying = 0;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        staying += entry->d_name[0] != '.' && consider(to, entry->d_name, proc, containers);
    }
    closedir(entries);
    remove_version(to, ".installing");
    return staying;
}
