#include "spill.h"

#include "dispatch.h"
#include "log.h"

#define ATTACH_GLOBAL 1u
#define PITCH 512u /* what the driver takes on every device so far */

static bool here(struct process **process, int *device) {
    bool refuse = false;
    *process = process_account(&refuse);
    return *process != NULL && account_current_device(*process, device) &&
           process_is_virtual(*process, *device);
}

CUresult spill_if_full(CUresult answer, CUdeviceptr *pointer, size_t bytes) {
    struct process *process = NULL;
    struct charge charge;
    int device = 0;
    if (answer != CUDA_ERROR_OUT_OF_MEMORY || !here(&process, &device) ||
        !account_reserve(process, device, HAMI_KIND_MANAGED, bytes, &charge)) {
        return answer;
    }
    charge.spilled = true;
    answer = REAL(cuMemAllocManaged)(pointer, bytes, ATTACH_GLOBAL);
    log_line(LOG_DEBUG, "device %d: %llu bytes spill to the host", device,
             (unsigned long long)bytes);
    return account_keep(&charge, answer, TABLE_POINTER, answer == CUDA_SUCCESS ? *pointer : 0);
}

CUresult spill_pitched(CUresult answer, CUdeviceptr *pointer, size_t *pitch,
                       const size_t extent[2]) {
    size_t bytes = 0;
    size_t wide = extent[0] <= SIZE_MAX - PITCH ? (extent[0] + PITCH - 1) / PITCH * PITCH : 0;
    if (wide == 0 || __builtin_mul_overflow(wide, extent[1], &bytes)) {
        return answer;
    }
    bool full = answer == CUDA_ERROR_OUT_OF_MEMORY;
    answer = spill_if_full(answer, pointer, bytes);
    if (full && answer == CUDA_SUCCESS) {
        *pitch = wide;
    }
    return answer;
}

bool spill_free(CUdeviceptr pointer, CUresult *answer, CUresult synchronize(CUstream),
                CUstream stream) {
    bool refuse = false;
    struct table_entry entry;
    struct process *process = process_account(&refuse);
    if (process == NULL || !table_get(process->table, TABLE_POINTER, pointer, &entry) ||
        !entry.spilled) {
        return false;
    }
    *answer = synchronize(stream);
    if (*answer == CUDA_SUCCESS) {
        *answer = cuMemFree_v2(pointer);
    }
    return true;
}
