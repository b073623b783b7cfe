/*
 * Virtual memory management: physical memory behind a handle. It lives until the last handle is
 * released and the last mapping is gone, so the charge does too.
 */
#include "account.h"
#include "dispatch.h"
#include "location.h"

static void drop_reference(struct process *process, CUmemGenericAllocationHandle handle) {
    struct table_entry entry;
    if (table_refer(process->table, TABLE_VMM, handle, -1, &entry) && entry.refs == 0) {
        account_release(process, entry.device, (enum hami_kind)entry.kind, entry.units);
    }
}

/* Memory of the host costs nothing. */
static bool reserve_for(const CUmemAllocationProp *properties, size_t bytes,
                        struct charge *charge) {
    bool refuse = false;
    struct process *process = process_account(&refuse);
    *charge = (struct charge){NULL, 0, HAMI_KIND_VMM, 0, false};
    if (process == NULL) {
        return !refuse;
    }
    int device =
        properties != NULL ? location_device(process, &properties->location) : LOCATION_HOST;
    return device == LOCATION_HOST ||
           account_reserve(process, device, HAMI_KIND_VMM, bytes, charge);
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes,
                     const CUmemAllocationProp *properties, unsigned long long flags) {
    struct charge charge;
    if (!reserve_for(properties, bytes, &charge)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult answer = REAL(cuMemCreate)(handle, bytes, properties, flags);
    return account_keep(&charge, answer, TABLE_VMM, answer == CUDA_SUCCESS ? *handle : 0);
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
    bool refuse = false;
    struct process *process = process_account(&refuse);
    CUresult answer = REAL(cuMemRelease)(handle);
    if (answer == CUDA_SUCCESS && process != NULL) {
        drop_reference(process, handle);
    }
    return answer;
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address) {
    bool refuse = false;
    struct table_entry entry;
    struct process *process = process_account(&refuse);
    CUresult answer = REAL(cuMemRetainAllocationHandle)(handle, address);
    if (answer == CUDA_SUCCESS && process != NULL) {
        table_refer(process->table, TABLE_VMM, *handle, 1, &entry);
    }
    return answer;
}

CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset,
                  CUmemGenericAllocationHandle handle, unsigned long long flags) {
    bool refuse = false;
    struct table_entry entry;
    struct process *process = process_account(&refuse);
    CUresult answer = REAL(cuMemMap)(address, bytes, offset, handle, flags);
    if (answer == CUDA_SUCCESS && process != NULL &&
        table_refer(process->table, TABLE_VMM, handle, 1, &entry)) {
        struct table_entry mapping = {
            .key = address, .units = bytes, .owner = handle, .refs = 1, .tag = TABLE_MAPPING};
        table_put(process->table, &mapping);
    }
    return answer;
}

CUresult cuMemUnmap(CUdeviceptr address, size_t bytes) {
    bool refuse = false;
    struct table_entry mapping;
    struct process *process = process_account(&refuse);
    CUresult answer = REAL(cuMemUnmap)(address, bytes);
    CUdeviceptr end = address + bytes;
    /* One call may undo several mappings that lie side by side. */
    while (answer == CUDA_SUCCESS && process != NULL && address < end &&
           table_take(process->table, TABLE_MAPPING, address, &mapping)) {
        drop_reference(process, mapping.owner);
        address += mapping.units;
    }
    return answer;
}
