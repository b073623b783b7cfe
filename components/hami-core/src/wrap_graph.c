/* Graphs: what their memory nodes take, at the calls where the driver takes it or gives it back. */
#include "dispatch.h"
#include "gate.h"
#include "graph_memory.h"

static CUresult after_instantiate(CUresult answer, CUgraph graph, CUgraphExec *exec) {
    if (answer == CUDA_SUCCESS && !graph_memory_made(graph, *exec)) {
        cuGraphExecDestroy(*exec);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return answer;
}

CUresult cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, CUgraphNode *error, char *log,
                            size_t size) {
    return after_instantiate(REAL(cuGraphInstantiate)(exec, graph, error, log, size), graph, exec);
}

CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *error, char *log,
                               size_t size) {
    return after_instantiate(REAL(cuGraphInstantiate_v2)(exec, graph, error, log, size), graph,
                             exec);
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    return after_instantiate(REAL(cuGraphInstantiateWithFlags)(exec, graph, flags), graph, exec);
}

CUresult cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, void *params) {
    return after_instantiate(REAL(cuGraphInstantiateWithParams)(exec, graph, params), graph, exec);
}

CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *exec, CUgraph graph, void *params) {
    return after_instantiate(REAL(cuGraphInstantiateWithParams_ptsz)(exec, graph, params), graph,
                             exec);
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream) {
    CUresult answer = graph_memory_admit(exec, stream, false);
    return answer == CUDA_SUCCESS ? REAL(cuGraphUpload)(exec, stream) : answer;
}

CUresult cuGraphUpload_ptsz(CUgraphExec exec, CUstream stream) {
    CUresult answer = graph_memory_admit(exec, stream, true);
    return answer == CUDA_SUCCESS ? REAL(cuGraphUpload_ptsz)(exec, stream) : answer;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    CUresult answer = graph_memory_admit(exec, stream, false);
    if (answer != CUDA_SUCCESS) {
        return answer;
    }
    GATED(exec, 1, stream, REAL(cuGraphLaunch)(exec, stream));
}

CUresult cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream) {
    CUresult answer = graph_memory_admit(exec, stream, true);
    if (answer != CUDA_SUCCESS) {
        return answer;
    }
    GATED(exec, 1, of_thread(stream), REAL(cuGraphLaunch_ptsz)(exec, stream));
}

CUresult cuGraphExecDestroy(CUgraphExec exec) { return graph_memory_end(exec); }

CUresult cuDeviceGraphMemTrim(CUdevice device) {
    CUresult answer = REAL(cuDeviceGraphMemTrim)(device);
    if (answer == CUDA_SUCCESS) {
        graph_memory_trimmed();
    }
    return answer;
}
