#define _GNU_SOURCE
#include "loader.h"

#include <elf.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct symbols {
    const ElfW(Sym) * table;
    const char *strings;
    uint32_t count;
};

/* The number of symbols is only implied by the hash table. */
static uint32_t gnu_hash_count(const uint32_t *hash) {
    uint32_t buckets = hash[0];
    uint32_t first = hash[1];
    uint32_t bloom_words = hash[2];
    const uint32_t *bucket =
        hash + 4 + (size_t)bloom_words * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
    const uint32_t *chain = bucket + buckets;
    uint32_t last = 0;
    for (uint32_t i = 0; i < buckets; i++) {
        last = bucket[i] > last ? bucket[i] : last;
    }
    if (last < first) {
        return first;
    }
    while ((chain[last - first] & 1) == 0) {
        last++;
    }
    return last + 1;
}

/* Some loaders relocate the pointers of the dynamic section, the vDSO's are left as offsets. */
static uintptr_t absolute(const struct dl_phdr_info *info, ElfW(Addr) value) {
    return value < info->dlpi_addr ? info->dlpi_addr + value : value;
}

static bool read_symbols(const struct dl_phdr_info *info, const ElfW(Dyn) * dynamic,
                         struct symbols *symbols) {
    memset(symbols, 0, sizeof(*symbols));
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        uintptr_t at = absolute(info, dynamic->d_un.d_ptr);
        switch (dynamic->d_tag) {
        case DT_SYMTAB:
            symbols->table = (const ElfW(Sym) *)at;
            break;
        case DT_STRTAB:
            symbols->strings = (const char *)at;
            break;
        case DT_HASH:
            symbols->count = ((const uint32_t *)at)[1];
            break;
        case DT_GNU_HASH:
            if (symbols->count == 0) {
                symbols->count = gnu_hash_count((const uint32_t *)at);
            }
            break;
        default:
            break;
        }
    }
    return symbols->table != NULL && symbols->strings != NULL;
}

static void *find_function(const struct dl_phdr_info *info, const struct symbols *symbols,
                           const char *name) {
    for (uint32_t i = 0; i < symbols->count; i++) {
        const ElfW(Sym) *symbol = &symbols->table[i];
        if (symbol->st_shndx != SHN_UNDEF && ELF64_ST_TYPE(symbol->st_info) == STT_FUNC &&
            ELF64_ST_BIND(symbol->st_info) != STB_LOCAL &&
            strcmp(symbols->strings + symbol->st_name, name) == 0) {
            return (void *)(info->dlpi_addr +
                            symbol->st_value); /* NOLINT(performance-no-int-to-ptr) */
        }
    }
    return NULL;
}

static bool is_glibc(const char *path) {
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    return strncmp(name, "libc.so.6", 9) == 0 || strncmp(name, "libdl.so.2", 10) == 0 ||
           strncmp(name, "libc-2.", 7) == 0 || strncmp(name, "libdl-2.", 8) == 0;
}

static int visit_object(struct dl_phdr_info *info, size_t size, void *argument) {
    struct loader *found = argument;
    struct symbols symbols;
    (void)size;
    if (info->dlpi_name == NULL || !is_glibc(info->dlpi_name)) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t at = info->dlpi_addr + header->p_vaddr;
        if (header->p_type != PT_DYNAMIC || !read_symbols(info, (const ElfW(Dyn) *)at, &symbols)) {
            continue;
        }
        *(void **)&found->dlopen = find_function(info, &symbols, "dlopen");
        *(void **)&found->dlvsym = find_function(info, &symbols, "dlvsym");
        *(void **)&found->dlerror = find_function(info, &symbols, "dlerror");
        *(void **)&found->dlsym = find_function(info, &symbols, "dlsym");
    }
    return found->dlsym != NULL;
}

/* Several threads may look at once: all find the same, and the last word to be stored is the one
 * that is tested. */
const struct loader *loader_get(void) {
    static struct loader loader;
    static _Atomic int ready;
    if (atomic_load_explicit(&ready, memory_order_acquire) == 0) {
        struct loader found = {NULL, NULL, NULL, NULL};
        dl_iterate_phdr(visit_object, &found);
        if (found.dlsym == NULL) {
            return NULL;
        }
        loader = found;
        atomic_store_explicit(&ready, 1, memory_order_release);
    }
    return &loader;
}

struct self {
    uintptr_t address;
    const char *path;
};

static int find_self(struct dl_phdr_info *info, size_t size, void *argument) {
    struct self *self = argument;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD && self->address >= start &&
            self->address < start + header->p_memsz) {
            self->path = info->dlpi_name;
            return 1;
        }
    }
    return 0;
}

bool loader_beside(const char *name, char *path, size_t size) {
    static const char anchor = 0;
    struct self self = {(uintptr_t)&anchor, NULL};
    dl_iterate_phdr(find_self, &self);
    const char *slash = self.path != NULL ? strrchr(self.path, '/') : NULL;
    if (slash == NULL) {
        return false;
    }
    int written = snprintf(path, size, "%.*s/%s", (int)(slash - self.path), self.path, name);
    return written > 0 && (size_t)written < size;
}
