/* Contexts: what was allocated in one is freed with it, and each takes memory of its own. */
#include "account.h"
#include "dispatch.h"
#include "driver.h"
#include "gate.h"
#include "graph_memory.h"
#include "overhead.h"
#include "pool.h"

/* Overhead is noted when the set of contexts changes: it is the one thing we ask NVML for, and it
 * takes a while. */
static void contexts_changed(CUdevice device) {
    bool refuse = false;
    struct process *process = process_account(&refuse);
    if (process != NULL) {
        overhead_note(process, device, OVERHEAD_CONTEXTS);
    }
}

static CUresult after_create(CUdevice device, CUresult answer) {
    if (answer == CUDA_SUCCESS) {
        contexts_changed(device);
    }
    return answer;
}

CUresult cuCtxCreate(CUcontext *context, unsigned int flags, CUdevice device) {
    return after_create(device, REAL(cuCtxCreate)(context, flags, device));
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device) {
    return after_create(device, REAL(cuCtxCreate_v2)(context, flags, device));
}

CUresult cuCtxCreate_v3(CUcontext *context, void *affinity, int count, unsigned int flags,
                        CUdevice device) {
    return after_create(device, REAL(cuCtxCreate_v3)(context, affinity, count, flags, device));
}

CUresult cuCtxCreate_v4(CUcontext *context, void *parameters, unsigned int flags, CUdevice device) {
    return after_create(device, REAL(cuCtxCreate_v4)(context, parameters, flags, device));
}

/* The device is asked for before the context is gone, while it may be the current one. */
static CUresult destroy(CUcontext context, cuCtxDestroy_v2_fn *call) {
    CUdevice device = -1;
    bool current = driver_current_context() == context && context != NULL &&
                   driver_current_device(&device) == CUDA_SUCCESS;
    gate_context_ends();
    CUresult answer = call(context);
    gate_context_ended(answer == CUDA_SUCCESS ? context : NULL);
    if (answer == CUDA_SUCCESS) {
        account_forget_context(context);
    }
    if (answer == CUDA_SUCCESS && current) {
        contexts_changed(device);
    }
    return answer;
}

CUresult cuCtxDestroy(CUcontext context) { return destroy(context, REAL(cuCtxDestroy)); }

CUresult cuCtxDestroy_v2(CUcontext context) { return destroy(context, REAL(cuCtxDestroy_v2)); }

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    CUresult answer = REAL(cuDevicePrimaryCtxRetain)(context, device);
    struct process *process = process_limits();
    if (answer == CUDA_SUCCESS && process != NULL && device >= 0 && device < MAX_ORDINALS &&
        atomic_exchange(&process->primary[device], *context) == NULL) {
        contexts_changed(device);
    }
    return answer;
}

/* The last release destroys the primary context, an earlier one only counts down. */
static CUresult release(CUdevice device, cuDevicePrimaryCtxRelease_v2_fn *call) {
    gate_context_ends();
    CUresult answer = call(device);
    CUcontext ended = NULL;
    struct process *process = process_limits();
    bool last = answer == CUDA_SUCCESS && process != NULL && device >= 0 && device < MAX_ORDINALS &&
                !driver_primary_active(device);
    if (last) {
        ended = atomic_exchange(&process->primary[device], NULL);
    }
    gate_context_ended(ended);
    if (last) {
        account_forget_context(ended);
        pool_settle_all(process);
        graph_memory_settle(process);
        contexts_changed(device);
    }
    return answer;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    return release(device, REAL(cuDevicePrimaryCtxRelease));
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    return release(device, REAL(cuDevicePrimaryCtxRelease_v2));
}

CUresult cuDevicePrimaryCtxReset(CUdevice device) {
    return release(device, REAL(cuDevicePrimaryCtxReset));
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
    return release(device, REAL(cuDevicePrimaryCtxReset_v2));
}
