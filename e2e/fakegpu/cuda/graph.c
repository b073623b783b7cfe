/* Graphs: a list of kernel times that is launched as one piece of work. */
#include "graph_int.h"

#include <stdlib.h>

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream);

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
    while (graph->first != NULL) {
        struct graph_node *node = graph->first;
        graph->first = node->next;
        if (node->child != NULL)
            cuGraphDestroy(node->child);
        free(node);
    }
    free(graph);
    return CUDA_SUCCESS;
}

CUresult cu_graph_node(struct graph *graph, struct graph_node node, CUgraphNode *out) {
    struct graph_node *added = malloc(sizeof *added);
    if (added == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *added = node;
    added->next = NULL;
    *(graph->last != NULL ? &graph->last->next : &graph->first) = added;
    graph->last = added;
    graph->count++;
    if (out != NULL)
        *out = added;
    return CUDA_SUCCESS;
}

static CUresult add_kernel(struct graph *graph, uint64_t duration_ns, CUgraphNode *out) {
    return cu_graph_node(graph,
                         (struct graph_node){.type = NODE_KERNEL, .duration_ns = duration_ns}, out);
}

/* A launch into a capturing stream becomes a node. */
CUresult cu_capture(struct graph *graph, uint64_t duration_ns) {
    return add_kernel(graph, duration_ns, NULL);
}

CUresult cuGraphAddKernelNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies,
                              size_t count, const CUDA_KERNEL_NODE_PARAMS *p) {
    (void)dependencies, (void)count;
    CONTEXT_OR_RETURN(ctx);
    REQUIRE_HANDLE(graph, MAGIC_GRAPH);
    REQUIRE(out != NULL && p != NULL && p->func != NULL);
    return add_kernel(graph,
                      cu_launch_ns(p->func, p->gridDimX, p->gridDimY, p->gridDimZ, ctx->card), out);
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
    return cu_graph_node(graph, (struct graph_node){.type = NODE_EMPTY}, out);
}

CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count) {
    ENTER();
    REQUIRE_HANDLE(graph, MAGIC_GRAPH);
    REQUIRE(count != NULL);
    size_t i = 0;
    for (struct graph_node *n = graph->first; nodes != NULL && n != NULL && i < *count; n = n->next)
        nodes[i++] = n;
    *count = nodes != NULL ? i : graph->count;
    return CUDA_SUCCESS;
}

static CUresult copy(struct graph **out, const struct graph *from) {
    CUresult rc = cuGraphCreate(out, 0);
    for (const struct graph_node *n = from->first; n != NULL && rc == CUDA_SUCCESS; n = n->next) {
        struct graph_node node = *n;
        if (n->child != NULL)
            rc = copy(&node.child, n->child);
        if (rc == CUDA_SUCCESS)
            rc = cu_graph_node(*out, node, NULL);
    }
    return rc;
}

CUresult cuGraphAddChildGraphNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies,
                                  size_t count, CUgraph child) {
    ENTER();
    (void)dependencies, (void)count;
    REQUIRE_HANDLE(graph, MAGIC_GRAPH);
    REQUIRE_HANDLE(child, MAGIC_GRAPH);
    REQUIRE(out != NULL);
    struct graph_node node = {.type = NODE_GRAPH};
    CUresult rc = copy(&node.child, child);
    return rc == CUDA_SUCCESS ? cu_graph_node(graph, node, out) : rc;
}

CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *out) {
    ENTER();
    REQUIRE(node != NULL && node->type == NODE_GRAPH && out != NULL);
    *out = node->child;
    return CUDA_SUCCESS;
}

CUresult cuGraphNodeGetType(CUgraphNode node, int *type) {
    ENTER();
    REQUIRE(node != NULL && type != NULL);
    *type = (int)node->type;
    return CUDA_SUCCESS;
}

static uint64_t duration_of(const struct graph *graph) {
    uint64_t sum = 0;
    for (const struct graph_node *n = graph->first; n != NULL; n = n->next)
        sum += n->type == NODE_GRAPH ? duration_of(n->child) : n->duration_ns;
    return sum;
}

#define AUTO_FREE_ON_LAUNCH 1ull
#define UPLOAD 2ull

CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph, unsigned long long flags) {
    ENTER();
    REQUIRE_HANDLE(graph, MAGIC_GRAPH);
    REQUIRE(out != NULL);
    struct graph_exec *exec = calloc(1, sizeof *exec);
    if (exec == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    exec->magic = MAGIC_EXEC;
    exec->duration_ns = duration_of(graph);
    CUresult rc = cu_graph_memory_make(graph, (flags & AUTO_FREE_ON_LAUNCH) != 0, &exec->memory);
    if (rc == CUDA_SUCCESS && (flags & UPLOAD) != 0)
        rc = cuGraphUpload(exec, NULL);
    if (rc != CUDA_SUCCESS)
        free(exec);
    else
        *out = exec;
    return rc;
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

/* The parameters begin with the flags; the stream of an upload follows. */
CUresult cuGraphInstantiateWithParams(CUgraphExec *out, CUgraph graph, void *params) {
    REQUIRE(params != NULL);
    return cuGraphInstantiateWithFlags(out, graph, *(unsigned long long *)params);
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
    ENTER();
    REQUIRE_HANDLE(exec, MAGIC_EXEC);
    exec->magic = MAGIC_DEAD;
    if (exec->memory != NULL)
        cu_graph_memory_end(exec->memory);
    free(exec);
    return CUDA_SUCCESS;
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream) {
    ENTER();
    (void)stream;
    REQUIRE_HANDLE(exec, MAGIC_EXEC);
    return exec->memory != NULL ? cu_graph_memory_map(exec->memory) : CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream handle) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE_HANDLE(exec, MAGIC_EXEC);
    struct stream *stream = cu_stream(handle, ctx);
    if (stream == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture != NULL)
        return cu_capture(stream->capture, exec->duration_ns);
    CUresult rc = exec->memory != NULL ? cu_graph_memory_launch(exec->memory, ctx) : CUDA_SUCCESS;
    if (rc == CUDA_SUCCESS)
        rc = cu_run(stream, exec->duration_ns);
    if (rc == CUDA_SUCCESS && exec->memory != NULL)
        atomic_store(&exec->memory->last_end, atomic_load(&stream->last_end));
    return rc;
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

/* The nodes go into a graph that exists. */
CUresult cuStreamBeginCaptureToGraph(CUstream handle, CUgraph graph,
                                     const CUgraphNode *dependencies, const void *edges,
                                     size_t count, int mode) {
    CONTEXT_OR_RETURN(ctx);
    (void)dependencies, (void)edges, (void)count, (void)mode;
    struct stream *stream = cu_stream(handle, ctx);
    REQUIRE_HANDLE(graph, MAGIC_GRAPH);
    if (stream == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    REQUIRE(stream != &ctx->legacy && stream->capture == NULL);
    stream->capture = graph;
    return CUDA_SUCCESS;
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
