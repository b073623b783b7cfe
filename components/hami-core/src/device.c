#include "device.h"

#include "dispatch.h"

#include <stdio.h>

typedef CUresult get_uuid_fn(CUuuid *uuid, CUdevice device);

static void format_uuid(const char *prefix, const CUuuid *uuid, char text[HAMI_UUID_SIZE]) {
    const unsigned char *b = uuid->bytes;
    snprintf(text, HAMI_UUID_SIZE,
             "%s%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", prefix, b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
}

/* cuDeviceGetUuid_v2 (11.4) answers with the instance's own UUID on a MIG device, the first version
 * with the card's. */
int device_uuids(CUdevice ordinal, char uuid[2][HAMI_UUID_SIZE]) {
    static const char *const symbols[] = {"cuDeviceGetUuid_v2", "cuDeviceGetUuid"};
    CUuuid raw[2];
    int count = 0;
    for (unsigned i = 0; i < 2; i++) {
        get_uuid_fn *get = (get_uuid_fn *)dispatch_driver(LIBRARY_CUDA, symbols[i]);
        if (get != NULL && get(&raw[count], ordinal) == CUDA_SUCCESS) {
            count++;
        }
    }
    if (count == 0) {
        return 0;
    }
    int differ = count == 2 && __builtin_memcmp(&raw[0], &raw[1], sizeof(raw[0])) != 0;
    format_uuid(differ ? "MIG-" : "GPU-", &raw[0], uuid[0]);
    format_uuid("GPU-", &raw[count - 1], uuid[1]);
    return 2;
}

int device_nvml_index(const char *uuid) {
    typedef nvmlReturn_t init_fn(void);
    typedef nvmlReturn_t by_uuid_fn(const char *, nvmlDevice_t *);
    typedef nvmlReturn_t index_fn(nvmlDevice_t, unsigned int *);
    init_fn *init = (init_fn *)dispatch_driver(LIBRARY_NVML, "nvmlInit_v2");
    init_fn *shut = (init_fn *)dispatch_driver(LIBRARY_NVML, "nvmlShutdown");
    by_uuid_fn *by_uuid = (by_uuid_fn *)dispatch_driver(LIBRARY_NVML, "nvmlDeviceGetHandleByUUID");
    index_fn *get_index = (index_fn *)dispatch_driver(LIBRARY_NVML, "nvmlDeviceGetIndex");
    nvmlDevice_t device = NULL;
    unsigned int index = 0;
    if (init == NULL || shut == NULL || by_uuid == NULL || get_index == NULL ||
        init() != NVML_SUCCESS) {
        return -1;
    }
    nvmlReturn_t answer = by_uuid(uuid, &device);
    answer = answer == NVML_SUCCESS ? get_index(device, &index) : answer;
    shut();
    return answer == NVML_SUCCESS && index < HAMI_MAX_DEVICES ? (int)index : -1;
}
