#include "nvml_device.h"

#include "dispatch.h"

#include <stdatomic.h>

bool nvml_device_index(struct process *process, nvmlDevice_t device, int *index) {
    typedef nvmlReturn_t get_uuid_fn(nvmlDevice_t, char *, unsigned int);
    static void *_Atomic cached;
    char uuid[NVML_UUID_SIZE];
    get_uuid_fn *get_uuid = (get_uuid_fn *)atomic_load(&cached);
    if (get_uuid == NULL) {
        get_uuid = (get_uuid_fn *)dispatch_driver(LIBRARY_NVML, "nvmlDeviceGetUUID");
        atomic_store(&cached, (void *)get_uuid);
    }
    if (get_uuid == NULL || get_uuid(device, uuid, sizeof(uuid)) != NVML_SUCCESS) {
        return false;
    }
    *index = process_device_by_uuid(process, uuid);
    return true;
}
