/* What programs are told: memory figures of the slice, the same from CUDA and NVML, and wrappers
 * instead of symbols. */
#include "account.h"
#include "dispatch.h"
#include "ledger.h"
#include "nvml_device.h"
#include "overhead.h"
#include "pool.h"

struct view {
    uint64_t total, free, used; /* bytes */
};

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* The slice's figures in place of the card's; a device without a memory limit keeps the card's. */
static void show_slice(struct process *process, int device, struct view *view) {
    uint64_t limit = device < 0 ? 0 : atomic_load(&process->limit_units[device]);
    if (limit == LEDGER_NO_LIMIT) {
        return;
    }
    process_reap_now_and_then(process);
    overhead_catch_up(process);
    uint64_t used =
        device < 0 || process->usage == NULL ? 0 : ledger_used(process->usage, (unsigned)device);
    if (device >= 0 && process->usage != NULL && atomic_load(&process->strict_overhead) != 0) {
        used += process_overhead(process, device);
    }
    bool spills = process_is_virtual(process, device);
    view->total = spills ? limit * HAMI_UNIT : smaller(view->total, limit * HAMI_UNIT);
    view->used = smaller(view->total, used * HAMI_UNIT);
    uint64_t room = view->total - view->used;
    view->free = spills ? room : smaller(room, view->free);
}

/* False: no limits, or no context, so the driver's answer stands. */
static bool slice_here(struct view *view) {
    struct process *process = process_limits();
    int device = 0;
    if (process == NULL || !account_current_device(process, &device)) {
        return false;
    }
    if (atomic_load(&process->slot_ready) != 0) {
        pool_settle_all(process);
    }
    show_slice(process, device, view);
    return true;
}

CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    size_t real_free = 0;
    size_t real_total = 0;
    CUresult answer = REAL(cuMemGetInfo_v2)(&real_free, &real_total);
    struct view view = {real_total, real_free, 0};
    if (answer == CUDA_SUCCESS) {
        slice_here(&view);
        if (free != NULL) {
            *free = view.free;
        }
        if (total != NULL) {
            *total = view.total;
        }
    }
    return answer;
}

CUresult cuMemGetInfo(unsigned int *free, unsigned int *total) {
    unsigned int real_free = 0;
    unsigned int real_total = 0;
    CUresult answer = REAL(cuMemGetInfo)(&real_free, &real_total);
    struct view view = {real_total, real_free, 0};
    if (answer == CUDA_SUCCESS) {
        slice_here(&view);
        if (free != NULL) {
            *free = (unsigned int)view.free;
        }
        if (total != NULL) {
            *total = (unsigned int)view.total;
        }
    }
    return answer;
}

static uint64_t slice_total(CUdevice device, uint64_t total) {
    struct process *process = process_limits();
    struct view view = {total, total, 0};
    if (process != NULL) {
        show_slice(process, process_device(process, device), &view);
    }
    return view.total;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    CUresult answer = REAL(cuDeviceTotalMem_v2)(bytes, device);
    if (answer == CUDA_SUCCESS && bytes != NULL) {
        *bytes = slice_total(device, *bytes);
    }
    return answer;
}

CUresult cuDeviceTotalMem(unsigned int *bytes, CUdevice device) {
    CUresult answer = REAL(cuDeviceTotalMem)(bytes, device);
    if (answer == CUDA_SUCCESS && bytes != NULL) {
        *bytes = (unsigned int)slice_total(device, *bytes);
    }
    return answer;
}

static bool slice_of_nvml(nvmlDevice_t device, struct view *view) {
    struct process *process = process_limits();
    int index = DEVICE_UNGRANTED;
    if (process == NULL || !nvml_device_index(process, device, &index)) {
        return false;
    }
    show_slice(process, index, view);
    return true;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    nvmlReturn_t answer = REAL(nvmlDeviceGetMemoryInfo)(device, memory);
    if (answer == NVML_SUCCESS) {
        struct view view = {memory->total, memory->free, memory->used};
        slice_of_nvml(device, &view);
        memory->total = view.total;
        memory->free = view.free;
        memory->used = view.used;
    }
    return answer;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    nvmlReturn_t answer = REAL(nvmlDeviceGetMemoryInfo_v2)(device, memory);
    if (answer == NVML_SUCCESS) {
        struct view view = {memory->total, memory->free, memory->used};
        bool limited = slice_of_nvml(device, &view) && view.total != memory->total;
        memory->total = view.total;
        memory->free = view.free;
        memory->used = view.used;
        memory->reserved =
            limited ? 0 : memory->reserved; /* the driver's own share lies outside the slice */
    }
    return answer;
}

CUresult cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
    CUresult answer = REAL(cuGetProcAddress)(symbol, function, version, flags);
    if (answer == CUDA_SUCCESS && function != NULL && *function != NULL) {
        *function = dispatch_map(symbol, *function, version, flags);
    }
    return answer;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags,
                             void *status) {
    CUresult answer = REAL(cuGetProcAddress_v2)(symbol, function, version, flags, status);
    if (answer == CUDA_SUCCESS && function != NULL && *function != NULL) {
        *function = dispatch_map(symbol, *function, version, flags);
    }
    return answer;
}
