/* Code on the device: it takes memory that the driver tells nobody but NVML about. */
#include "dispatch.h"
#include "overhead.h"

static CUresult changed(CUresult answer) {
    if (answer == CUDA_SUCCESS) {
        overhead_modules_changed();
    }
    return answer;
}

CUresult cuModuleLoad(CUmodule *module, const char *path) {
    return changed(REAL(cuModuleLoad)(module, path));
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    return changed(REAL(cuModuleLoadData)(module, image));
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, void *options,
                            void **values) {
    return changed(REAL(cuModuleLoadDataEx)(module, image, count, options, values));
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image) {
    return changed(REAL(cuModuleLoadFatBinary)(module, image));
}

CUresult cuModuleUnload(CUmodule module) { return changed(REAL(cuModuleUnload)(module)); }

CUresult cuLibraryLoadData(CUlibrary *library, const void *image, void *jit, void **jit_values,
                           unsigned int jit_count, void *options, void **values,
                           unsigned int count) {
    return changed(REAL(cuLibraryLoadData)(library, image, jit, jit_values, jit_count, options,
                                           values, count));
}

CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *path, void *jit, void **jit_values,
                               unsigned int jit_count, void *options, void **values,
                               unsigned int count) {
    return changed(REAL(cuLibraryLoadFromFile)(library, path, jit, jit_values, jit_count, options,
                                               values, count));
}

CUresult cuLibraryUnload(CUlibrary library) { return changed(REAL(cuLibraryUnload)(library)); }
