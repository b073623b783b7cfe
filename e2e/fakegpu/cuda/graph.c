/* Graphs: a list of kernel times that is launched as one piece of work. */
#include "cuda_int.h"

#include <stdlib.h>

struct graph_node {
    uint64_t duration_ns;
    struct graph_node *next;
};

struct graph {
    enum magic magic;
    struct graph_node *nodes;
    size_t count;
};

struct graph_exec {
    enum magic magic;
    uint64_t duration_ns;
};

CUresult cuGraphCreate(CUgraph *out, unsigned flags) {
    ENTER();
    REQUIRE(out != NULL && flags == 0);
    *out = calloc(1, sizeof **out);
    if (*out == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    (*out)->magic = MAGIC_GRAPH;
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) {
    ENTER();
    REQUIRE_HANDLE(graph, MAGIC_GRAPH);
    graph->magic = MAGIC_DEAD;
    while (graph->nodes != NULL) {
        struct graph_node *node = graph->nodes;
        graph->nodes = node->next;
        free(node);
    }
    free(graph);
    return CUDA_SUCCESS;
}

static CUresult add_node(struct graph *graph, uint64_t duration_ns, CUgraphNode *out) {
    struct graph_node *node = calloc(1, sizeof *node);
    if (node == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    node->duration_ns = duration_ns;
    node->next = graph->nodes;
    graph->nodes = node;
    graph->count++;
    if (out != NULL)
        *out = node;
    return CUDA_SUCCESS;
}

/* A launch into a capturing stream becomes a node. */
CUresult cu_capture(struct graph *graph, uint64_t duration_ns) {
    return add_node(graph, duration_ns, NULL);
}

CUresult cuGraphAddKernelNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies,
                              size_t count, const CUDA_KERNEL_NODE_PARAMS *p) {
    (void)dependencies, (void)count;
    CONTEXT_OR_RETURN(ctx);
    REQUIRE_HANDLE(graph, MAGIC_GRAPH);
    REQUIRE(out != NULL && p != NULL && p->func != NULL);
    return add_node(graph, cu_launch_ns(p->func, p->gridDimX, p->gridDimY, p->gridDimZ, ctx->card),
                    out);
}

/* The second version only appends fields to the parameters. */
CUresult cuGraphAddKernelNode_v2(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies,
                                 size_t count, const CUDA_KERNEL_NODE_PARAMS *p) {
    return cuGraphAddKernelNode(out, graph, dependencies, count, p);
}

CUresult cuGraphAddEmptyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies,
                             size_t count) {
    ENTER();
    (void)dependencies, (void)count;
    REQUIRE_HANDLE(graph, MAGIC_GRAPH);
    REQUIRE(out != NULL);
    return add_node(graph, 0, out);
}

CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count) {
    ENTER();
    REQUIRE_HANDLE(graph, MAGIC_GRAPH);
    REQUIRE(count != NULL);
    size_t i = 0;
    for (struct graph_node *n = graph->nodes; nodes != NULL && n != NULL && i < *count; n = n->next)
        nodes[i++] = n;
    *count = nodes != NULL ? i : graph->count;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph, unsigned long long flags) {
    ENTER();
    (void)flags;
    REQUIRE_HANDLE(graph, MAGIC_GRAPH);
    REQUIRE(out != NULL);
    *out = calloc(1, sizeof **out);
    if (*out == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    (*out)->magic = MAGIC_EXEC;
    for (struct graph_node *n = graph->nodes; n != NULL; n = n->next)
        (*out)->duration_ns += n->duration_ns;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiate(CUgraphExec *out, CUgraph graph, CUgraphNode *error, char *log,
                            size_t log_size) {
    (void)error, (void)log, (void)log_size;
    return cuGraphInstantiateWithFlags(out, graph, 0);
}

CUresult cuGraphInstantiate_v2(CUgraphExec *out, CUgraph graph, CUgraphNode *error, char *log,
                               size_t log_size) {
    return cuGraphInstantiate(out, graph, error, log, log_size);
}

CUresult cuGraphInstantiateWithParams(CUgraphExec *out, CUgraph graph, void *params) {
    (void)params;
    return cuGraphInstantiateWithFlags(out, graph, 0);
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
    ENTER();
    REQUIRE_HANDLE(exec, MAGIC_EXEC);
    exec->magic = MAGIC_DEAD;
    free(exec);
    return CUDA_SUCCESS;
}

/* Graphs own no memory here: memory nodes are not modelled. */
CUresult cuDeviceGraphMemTrim(CUdevice device) {
    int card;
    ENTER();
    return cu_device_card(device, &card);
}

CUresult cuDeviceGetGraphMemAttribute(CUdevice device, int attribute, void *value) {
    int card;
    ENTER();
    REQUIRE(value != NULL && attribute >= 0 && attribute <= 3);
    CUresult rc = cu_device_card(device, &card);
    if (rc == CUDA_SUCCESS)
        *(uint64_t *)value = 0;
    return rc;
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream) {
    ENTER();
    (void)stream;
    REQUIRE_HANDLE(exec, MAGIC_EXEC);
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream handle) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE_HANDLE(exec, MAGIC_EXEC);
    struct stream *stream = cu_stream(handle, ctx);
    if (stream == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    return stream->capture != NULL ? cu_capture(stream->capture, exec->duration_ns)
                                   : cu_run(stream, exec->duration_ns);
}

CUresult cuStreamBeginCapture_v2(CUstream handle, int mode) {
    CONTEXT_OR_RETURN(ctx);
    (void)mode;
    struct stream *stream = cu_stream(handle, ctx);
    if (stream == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    REQUIRE(stream != &ctx->legacy && stream->capture == NULL);
    return cuGraphCreate(&stream->capture, 0);
}

CUresult cuStreamBeginCapture(CUstream handle) { return cuStreamBeginCapture_v2(handle, 0); }

CUresult cuStreamEndCapture(CUstream handle, CUgraph *out) {
    CONTEXT_OR_RETURN(ctx);
    struct stream *stream = cu_stream(handle, ctx);
    if (stream == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    REQUIRE(out != NULL && stream->capture != NULL);
    *out = stream->capture;
    stream->capture = NULL;
    return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream handle, int *status) {
    CONTEXT_OR_RETURN(ctx);
    struct stream *stream = cu_stream(handle, ctx);
    if (stream == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    REQUIRE(status != NULL);
    *status = stream->capture != NULL;
    return CUDA_SUCCESS;
}

CUresult cuThreadExchangeStreamCaptureMode(int *mode) {
    ENTER();
    REQUIRE(mode != NULL);
    *mode = 0;
    return CUDA_SUCCESS;
}
