/* Launches of every kind. Copies are free; what occupies SMs is paid for. */
#include "dispatch.h"
#include "driver.h"
#include "gate.h"

CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y,
                        unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                        unsigned int block_z, unsigned int shared, CUstream stream,
                        void **parameters, void **extra) {
    GATED(function, gate_blocks(grid_x, grid_y, grid_z), stream,
          REAL(cuLaunchKernel)(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared,
                               stream, parameters, extra));
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters,
                          void **extra) {
    if (config == NULL) {
        return REAL(cuLaunchKernelEx)(config, function, parameters, extra);
    }
    GATED(function, gate_blocks(config->grid_x, config->grid_y, config->grid_z), config->stream,
          REAL(cuLaunchKernelEx)(config, function, parameters, extra));
}

CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y,
                                   unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                                   unsigned int block_z, unsigned int shared, CUstream stream,
                                   void **parameters) {
    GATED(function, gate_blocks(grid_x, grid_y, grid_z), stream,
          REAL(cuLaunchCooperativeKernel)(function, grid_x, grid_y, grid_z, block_x, block_y,
                                          block_z, shared, stream, parameters));
}

CUresult cuLaunchKernel_ptsz(CUfunction function, unsigned int grid_x, unsigned int grid_y,
                             unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                             unsigned int block_z, unsigned int shared, CUstream stream,
                             void **parameters, void **extra) {
    GATED(function, gate_blocks(grid_x, grid_y, grid_z), of_thread(stream),
          REAL(cuLaunchKernel_ptsz)(function, grid_x, grid_y, grid_z, block_x, block_y, block_z,
                                    shared, stream, parameters, extra));
}

CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *config, CUfunction function, void **parameters,
                               void **extra) {
    if (config == NULL) {
        return REAL(cuLaunchKernelEx_ptsz)(config, function, parameters, extra);
    }
    GATED(function, gate_blocks(config->grid_x, config->grid_y, config->grid_z),
          of_thread(config->stream),
          REAL(cuLaunchKernelEx_ptsz)(config, function, parameters, extra));
}

CUresult cuLaunchCooperativeKernel_ptsz(CUfunction function, unsigned int grid_x,
                                        unsigned int grid_y, unsigned int grid_z,
                                        unsigned int block_x, unsigned int block_y,
                                        unsigned int block_z, unsigned int shared, CUstream stream,
                                        void **parameters) {
    GATED(function, gate_blocks(grid_x, grid_y, grid_z), of_thread(stream),
          REAL(cuLaunchCooperativeKernel_ptsz)(function, grid_x, grid_y, grid_z, block_x, block_y,
                                               block_z, shared, stream, parameters));
}

CUresult cuLaunch(CUfunction function) { GATED(function, 1, NULL, REAL(cuLaunch)(function)); }

CUresult cuLaunchGrid(CUfunction function, int width, int height) {
    GATED(function, gate_blocks((unsigned int)width, (unsigned int)height, 1), NULL,
          REAL(cuLaunchGrid)(function, width, height));
}

CUresult cuLaunchGridAsync(CUfunction function, int width, int height, CUstream stream) {
    GATED(function, gate_blocks((unsigned int)width, (unsigned int)height, 1), stream,
          REAL(cuLaunchGridAsync)(function, width, height, stream));
}

/* One kernel on each of several devices, each with a gate of its own. */
CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *list, unsigned int count,
                                              unsigned int flags) {
    struct launch launches[HAMI_MAX_DEVICES];
    unsigned int gated = list == NULL ? 0 : count < HAMI_MAX_DEVICES ? count : HAMI_MAX_DEVICES;
    for (unsigned int i = 0; i < gated; i++) {
        bool entered = driver_enter_stream(list[i].stream);
        gate_enter(&launches[i], list[i].function,
                   gate_blocks(list[i].grid_x, list[i].grid_y, list[i].grid_z), list[i].stream);
        if (entered) {
            driver_leave_stream();
        }
    }
    CUresult answer = REAL(cuLaunchCooperativeKernelMultiDevice)(list, count, flags);
    for (unsigned int i = 0; i < gated; i++) {
        gate_leave(&launches[i], answer);
    }
    return answer;
}
