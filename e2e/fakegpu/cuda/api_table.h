/* One row of api.def at run time. */
#ifndef API_TABLE_H
#define API_TABLE_H

#include <stdbool.h>

struct api_entry {
    const char *base;
    int since; /* CUDA version, 1000 * major + 10 * minor */
    bool per_thread;
    void (*address)(void);
};

extern const struct api_entry cu_api[];
extern const int cu_api_count;

#endif
