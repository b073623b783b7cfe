/* cuGetProcAddress: the exact symbol that a name means for a CUDA version. */
#include "api_table.h"
#include "cuda_int.h"

#include <string.h>

#define FLAG_LEGACY_STREAM 1ull
#define FLAG_PER_THREAD_STREAM 2ull

enum { STATUS_FOUND = 0, STATUS_NOT_FOUND = 1, STATUS_VERSION = 2 };

CUresult cuDriverGetVersion(int *version);

/* The newest row of the name that is no newer than `version`. */
static const struct api_entry *newest(const char *base, int version, bool per_thread, int *status) {
    const struct api_entry *best = NULL;
    for (int i = 0; i < cu_api_count; i++) {
        const struct api_entry *e = &cu_api[i];
        if (e->per_thread != per_thread || strcmp(e->base, base) != 0)
            continue;
        if (e->since > version)
            *status = *status == STATUS_NOT_FOUND ? STATUS_VERSION : *status;
        else if (best == NULL || e->since > best->since)
            best = e;
    }
    if (best != NULL)
        *status = STATUS_FOUND;
    return best;
}

CUresult cuGetProcAddress_v2(const char *base, void **out, int version, uint64_t flags,
                             int *status) {
    int ignored, driver;
    REQUIRE(base != NULL && out != NULL && flags <= FLAG_PER_THREAD_STREAM);
    if (status == NULL)
        status = &ignored;
    *status = STATUS_NOT_FOUND;
    *out = NULL;
    cuDriverGetVersion(&driver);
    if (version > driver) /* this driver does not know what came after it */
        version = driver;
    const struct api_entry *e = NULL;
    if (flags == FLAG_PER_THREAD_STREAM)
        e = newest(base, version, true, status);
    if (e == NULL)
        e = newest(base, version, false, status);
    if (e == NULL)
        return CUDA_ERROR_NOT_FOUND;
    memcpy(out, &e->address, sizeof *out);
    return CUDA_SUCCESS;
}

CUresult cuGetProcAddress(const char *base, void **out, int version, uint64_t flags) {
    return cuGetProcAddress_v2(base, out, version, flags, NULL);
}
