/* A test program's way to the driver's functions: by name, or it ends. */
#ifndef DRIVER_SYMBOLS_H
#define DRIVER_SYMBOLS_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct wanted {
    const char *symbol;
    void *slot; /* where its address goes */
};

static inline void find_symbols(const char *program, const struct wanted *wanted, size_t count) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    for (size_t i = 0; i < count; i++) {
        void *symbol = library != NULL ? dlsym(library, wanted[i].symbol) : NULL;
        if (symbol == NULL) {
            fprintf(stderr, "%s: no %s\n", program, wanted[i].symbol);
            exit(1);
        }
        memcpy(wanted[i].slot, &symbol, sizeof symbol);
    }
}

#endif
