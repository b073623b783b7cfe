/* Streams that capture: what is launched there runs only when its graph is launched. */
#include "dispatch.h"
#include "driver.h"
#include "gate.h"

static CUresult begun(CUresult answer) {
    if (answer == CUDA_SUCCESS) {
        gate_capture(1);
    }
    return answer;
}

/* A capture that has gone wrong is over too. */
static CUresult ended(bool captured, CUresult answer) {
    if (captured) {
        gate_capture(-1);
    }
    return answer;
}

CUresult cuStreamBeginCapture(CUstream stream) { return begun(REAL(cuStreamBeginCapture)(stream)); }

CUresult cuStreamBeginCapture_ptsz(CUstream stream) {
    return begun(REAL(cuStreamBeginCapture_ptsz)(stream));
}

CUresult cuStreamBeginCapture_v2(CUstream stream, int mode) {
    return begun(REAL(cuStreamBeginCapture_v2)(stream, mode));
}

CUresult cuStreamBeginCapture_v2_ptsz(CUstream stream, int mode) {
    return begun(REAL(cuStreamBeginCapture_v2_ptsz)(stream, mode));
}

CUresult cuStreamBeginCaptureToGraph(CUstream stream, CUgraph graph, const void *dependencies,
                                     const void *edges, size_t count, int mode) {
    return begun(
        REAL(cuStreamBeginCaptureToGraph)(stream, graph, dependencies, edges, count, mode));
}

CUresult cuStreamBeginCaptureToGraph_ptsz(CUstream stream, CUgraph graph, const void *dependencies,
                                          const void *edges, size_t count, int mode) {
    return begun(
        REAL(cuStreamBeginCaptureToGraph_ptsz)(stream, graph, dependencies, edges, count, mode));
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    bool captured = driver_is_capturing(stream, false);
    return ended(captured, REAL(cuStreamEndCapture)(stream, graph));
}

CUresult cuStreamEndCapture_ptsz(CUstream stream, CUgraph *graph) {
    bool captured = driver_is_capturing(stream, true);
    return ended(captured, REAL(cuStreamEndCapture_ptsz)(stream, graph));
}
