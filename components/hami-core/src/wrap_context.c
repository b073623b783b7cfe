/* Contexts: what was allocated in one is freed with it. */
#include "account.h"
#include "dispatch.h"
#include "driver.h"

static CUresult after_destroy(CUcontext context, CUresult answer) {
    if (answer == CUDA_SUCCESS) {
        account_forget_context(context);
    }
    return answer;
}

CUresult cuCtxDestroy(CUcontext context) {
    return after_destroy(context, REAL(cuCtxDestroy)(context));
}

CUresult cuCtxDestroy_v2(CUcontext context) {
    return after_destroy(context, REAL(cuCtxDestroy_v2)(context));
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    CUresult answer = REAL(cuDevicePrimaryCtxRetain)(context, device);
    struct process *process = process_limits();
    if (answer == CUDA_SUCCESS && process != NULL && device >= 0 && device < MAX_ORDINALS) {
        atomic_store(&process->primary[device], *context);
    }
    return answer;
}

/* The last release destroys the primary context, an earlier one only counts down. */
static CUresult after_release(CUdevice device, CUresult answer) {
    struct process *process = process_limits();
    if (answer == CUDA_SUCCESS && process != NULL && device >= 0 && device < MAX_ORDINALS &&
        !driver_primary_active(device)) {
        account_forget_context(atomic_load(&process->primary[device]));
    }
    return answer;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    return after_release(device, REAL(cuDevicePrimaryCtxRelease)(device));
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    return after_release(device, REAL(cuDevicePrimaryCtxRelease_v2)(device));
}

CUresult cuDevicePrimaryCtxReset(CUdevice device) {
    return after_release(device, REAL(cuDevicePrimaryCtxReset)(device));
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
    return after_release(device, REAL(cuDevicePrimaryCtxReset_v2)(device));
}
