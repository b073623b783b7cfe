#include "location.h"

#include "account.h"
#include "driver.h"

int location_device(struct process *process, const CUmemLocation *location) {
    int device = DEVICE_UNGRANTED;
    switch (location->type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
        return process_device(process, location->id);
    case CU_MEM_LOCATION_TYPE_DEVICE_LOCALITY_DOMAIN: /* the device in the lowest byte */
        return process_device(process, location->id & 0xff);
    case CU_MEM_LOCATION_TYPE_HOST:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
        return LOCATION_HOST;
    default:
        account_current_device(process, &device);
        return device;
    }
}

int location_of_pool(struct process *process, CUmemoryPool pool) {
    uint64_t type = CU_MEM_LOCATION_TYPE_NONE; /* what a driver before 13.0 leaves */
    uint64_t id = 0;
    driver_pool_attribute(pool, CU_MEMPOOL_ATTR_LOCATION_TYPE, &type);
    driver_pool_attribute(pool, CU_MEMPOOL_ATTR_LOCATION_ID, &id);
    CUmemLocation location = {(int)type, (int)id};
    return location_device(process, &location);
}
