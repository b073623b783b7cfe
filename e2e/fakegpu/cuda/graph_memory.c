/* Memory nodes of graphs: addresses are given when a node is added, physical memory when the graph
 * is launched or uploaded, and it stays reserved until it is trimmed. */
#include "graph_int.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK (2 * FG_MIB)

/* CUDA_MEM_ALLOC_NODE_PARAMS */
typedef struct {
    CUmemPoolProps pool;
    const void *access;
    size_t access_count;
    size_t bytesize;
    CUdeviceptr dptr;
} alloc_params;

_Static_assert(sizeof(alloc_params) == 120, "CUDA layout");

/* Of this process; under its mutex. */
static struct {
    unsigned epoch;
    uint64_t reserved[FG_UNITS], reserved_high[FG_UNITS], used_high[FG_UNITS];
    struct graph_memory *all;
} graphs;

static void fresh(void) {
    if (graphs.epoch == cu_process.epoch)
        return;
    memset(&graphs, 0, sizeof graphs);
    graphs.epoch = cu_process.epoch;
}

static uint64_t mapped_bytes(int card) {
    uint64_t sum = 0;
    for (const struct graph_memory *m = graphs.all; m != NULL; m = m->next)
        sum += m->mapped[card] ? m->peak[card] : 0;
    return sum;
}

static CUresult add_alloc(struct graph *graph, int card, uint64_t bytes, CUgraphNode *out,
                          CUdeviceptr *va) {
    uint64_t size = fg_round(bytes);
    if (bytes == 0 || size >= 1ull << 46)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&cu_process.mutex);
    *va = cu_take_va(size, false);
    pthread_mutex_unlock(&cu_process.mutex);
    return cu_graph_node(
        graph, (struct graph_node){.type = NODE_ALLOC, .va = *va, .size = size, .card = card}, out);
}

static CUresult add_free(struct graph *graph, CUdeviceptr va, CUgraphNode *out) {
    for (const struct graph_node *n = graph->first; n != NULL; n = n->next)
        if (n->type == NODE_ALLOC && n->va == va)
            return cu_graph_node(graph, (struct graph_node){.type = NODE_FREE, .va = va}, out);
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cu_capture_alloc(struct graph *graph, int card, uint64_t bytes, CUdeviceptr *va) {
    return add_alloc(graph, card, bytes, NULL, va);
}

CUresult cu_capture_free(struct graph *graph, CUdeviceptr va) { return add_free(graph, va, NULL); }

CUresult cuGraphAddMemAllocNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies,
                                size_t count, alloc_params *params) {
    int card;
    ENTER();
    (void)dependencies, (void)count;
    REQUIRE_HANDLE(graph, MAGIC_GRAPH);
    REQUIRE(out != NULL && params != NULL &&
            params->pool.location.type == CU_MEM_LOCATION_TYPE_DEVICE);
    CUresult rc = cu_device_card(params->pool.location.id, &card);
    return rc != CUDA_SUCCESS ? rc : add_alloc(graph, card, params->bytesize, out, &params->dptr);
}

CUresult cuGraphAddMemFreeNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies,
                               size_t count, CUdeviceptr va) {
    ENTER();
    (void)dependencies, (void)count;
    REQUIRE_HANDLE(graph, MAGIC_GRAPH);
    REQUIRE(out != NULL);
    return add_free(graph, va, out);
}

static CUdevice device_of(int card) {
    for (int i = 0; i < cu_process.count; i++)
        if (cu_process.cards[i] == card)
            return i;
    return -1;
}

CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, alloc_params *params) {
    ENTER();
    REQUIRE(node != NULL && params != NULL && node->type == NODE_ALLOC);
    *params = (alloc_params){
        .pool = {.allocType = 1,
                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device_of(node->card)}},
        .bytesize = node->size,
        .dptr = node->va};
    return CUDA_SUCCESS;
}

CUresult cuGraphMemFreeNodeGetParams(CUgraphNode node, CUdeviceptr *va) {
    ENTER();
    REQUIRE(node != NULL && va != NULL && node->type == NODE_FREE);
    *va = node->va;
    return CUDA_SUCCESS;
}

static const struct graph_node *freed_by(const struct graph *graph, uint64_t va) {
    for (const struct graph_node *n = graph->first; n != NULL; n = n->next)
        if (n->type == NODE_FREE && n->va == va)
            return n;
    return NULL;
}

static const struct graph_node *allocated_by(const struct graph *graph, uint64_t va) {
    for (const struct graph_node *n = graph->first; n != NULL; n = n->next)
        if (n->type == NODE_ALLOC && n->va == va)
            return n;
    return NULL;
}

/* Nodes run in the order in which they were added, so what is freed is used again. */
static bool measure(const struct graph *graph, struct graph_memory *memory) {
    uint64_t held[FG_UNITS] = {0};
    bool any = false;
    for (const struct graph_node *n = graph->first; n != NULL; n = n->next) {
        if (n->type == NODE_GRAPH)
            any = measure(n->child, memory) || any;
        if (n->type == NODE_FREE)
            held[allocated_by(graph, n->va)->card] -= allocated_by(graph, n->va)->size;
        if (n->type != NODE_ALLOC)
            continue;
        any = true;
        held[n->card] += n->size;
        uint64_t blocks = (held[n->card] + BLOCK - 1) / BLOCK * BLOCK;
        if (blocks > memory->peak[n->card])
            memory->peak[n->card] = blocks;
    }
    return any;
}

static bool keep_leaves(const struct graph *graph, struct graph_memory *memory) {
    for (const struct graph_node *n = graph->first; n != NULL; n = n->next) {
        if (n->type != NODE_ALLOC || freed_by(graph, n->va) != NULL)
            continue;
        struct graph_node *leaf = malloc(sizeof *leaf);
        if (leaf == NULL)
            return false;
        *leaf = *n;
        leaf->next = memory->leaves;
        memory->leaves = leaf;
    }
    return true;
}

static void dispose(struct graph_memory *memory) {
    while (memory->leaves != NULL) {
        struct graph_node *leaf = memory->leaves;
        memory->leaves = leaf->next;
        free(leaf);
    }
    free(memory);
}

CUresult cu_graph_memory_make(const struct graph *graph, bool frees_on_launch,
                              struct graph_memory **out) {
    struct graph_memory *memory = calloc(1, sizeof *memory);
    *out = NULL;
    if (memory == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    bool any = measure(graph, memory);
    if (!any || !keep_leaves(graph, memory)) {
        dispose(memory);
        return any ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
    }
    memory->frees_on_launch = frees_on_launch;
    pthread_mutex_lock(&cu_process.mutex);
    fresh();
    memory->next = graphs.all;
    graphs.all = memory;
    pthread_mutex_unlock(&cu_process.mutex);
    *out = memory;
    return CUDA_SUCCESS;
}

/* Takes idle reserved memory first, then more of the card. */
static CUresult map_on(struct graph_memory *memory, int card) {
    uint64_t needed = mapped_bytes(card) + memory->peak[card];
    if (memory->mapped[card] || memory->peak[card] == 0)
        return CUDA_SUCCESS;
    if (needed > graphs.reserved[card]) {
        int rc = fg_charge(&cu_process.fg, card, needed - graphs.reserved[card], FG_DATA);
        if (rc != 0)
            return cu_error(rc);
        graphs.reserved[card] = needed;
    }
    if (graphs.reserved_high[card] < graphs.reserved[card])
        graphs.reserved_high[card] = graphs.reserved[card];
    memory->mapped[card] = true;
    return CUDA_SUCCESS;
}

static CUresult map_all(struct graph_memory *memory) {
    CUresult rc = CUDA_SUCCESS;
    fresh();
    for (int card = 0; card < FG_UNITS && rc == CUDA_SUCCESS; card++)
        rc = map_on(memory, card);
    return rc;
}

CUresult cu_graph_memory_map(struct graph_memory *memory) {
    pthread_mutex_lock(&cu_process.mutex);
    CUresult rc = map_all(memory);
    pthread_mutex_unlock(&cu_process.mutex);
    return rc;
}

static void free_leaves(const struct graph_memory *memory) {
    struct span span;
    for (const struct graph_node *leaf = memory->leaves; leaf != NULL; leaf = leaf->next)
        if (cu_span_take(&cu_process.allocations, leaf->va, &span))
            cu_graph_memory_freed(&span);
}

CUresult cu_graph_memory_launch(struct graph_memory *memory, struct ctx *ctx) {
    CUresult rc = CUDA_SUCCESS;
    pthread_mutex_lock(&cu_process.mutex);
    if (memory->frees_on_launch)
        free_leaves(memory);
    if (memory->outstanding > 0)
        rc = CUDA_ERROR_INVALID_VALUE;
    if (rc == CUDA_SUCCESS)
        rc = map_all(memory);
    for (struct graph_node *leaf = memory->leaves; leaf != NULL && rc == CUDA_SUCCESS;
         leaf = leaf->next) {
        struct span span = {.va = leaf->va,
                            .size = leaf->size,
                            .ctx = ctx,
                            .owner = memory,
                            .card = leaf->card,
                            .kind = SPAN_GRAPH};
        if (cu_span_add(&cu_process.allocations, span) == NULL)
            rc = CUDA_ERROR_OUT_OF_MEMORY;
        else
            memory->outstanding++;
    }
    pthread_mutex_unlock(&cu_process.mutex);
    return rc;
}

static void forget(struct graph_memory *memory) {
    for (struct graph_memory **at = &graphs.all; *at != NULL; at = &(*at)->next) {
        if (*at == memory) {
            *at = memory->next;
            dispose(memory);
            return;
        }
    }
}

/* An allocation of a graph was freed by somebody; under the process's mutex. */
void cu_graph_memory_freed(const struct span *span) {
    struct graph_memory *memory = span->owner;
    if (--memory->outstanding == 0 && memory->destroyed)
        forget(memory);
}

/* Its memory stays reserved, for other graphs or for a trim. */
void cu_graph_memory_end(struct graph_memory *memory) {
    pthread_mutex_lock(&cu_process.mutex);
    memory->destroyed = true;
    if (memory->outstanding == 0)
        forget(memory);
    pthread_mutex_unlock(&cu_process.mutex);
}

/* Under the process's mutex; `all`: the context is gone, and everything with it. */
void cu_graph_memory_trim(int card, bool all) {
    fresh();
    for (struct graph_memory *m = graphs.all; m != NULL; m = m->next)
        if (all ||
            (m->outstanding == 0 && fg_reached(&cu_process.fg, card, atomic_load(&m->last_end))))
            m->mapped[card] = false;
    uint64_t keep = mapped_bytes(card);
    if (keep >= graphs.reserved[card])
        return;
    fg_uncharge(&cu_process.fg, card, graphs.reserved[card] - keep, FG_DATA);
    graphs.reserved[card] = keep;
}

CUresult cuDeviceGraphMemTrim(CUdevice device) {
    int card;
    ENTER();
    CUresult rc = cu_device_card(device, &card);
    if (rc != CUDA_SUCCESS)
        return rc;
    pthread_mutex_lock(&cu_process.mutex);
    cu_graph_memory_trim(card, false);
    pthread_mutex_unlock(&cu_process.mutex);
    return CUDA_SUCCESS;
}

static uint64_t used_bytes(int card) {
    uint64_t sum = 0;
    size_t cursor = 0;
    for (struct span *s; (s = cu_span_next(&cu_process.allocations, &cursor)) != NULL;)
        sum += s->kind == SPAN_GRAPH && s->card == card ? s->size : 0;
    return sum;
}

/* CU_GRAPH_MEM_ATTR_*: used 0 and 1 (highest), reserved 2 and 3. */
CUresult cuDeviceGetGraphMemAttribute(CUdevice device, int attribute, void *value) {
    int card;
    ENTER();
    REQUIRE(value != NULL && attribute >= 0 && attribute <= 3);
    CUresult rc = cu_device_card(device, &card);
    if (rc != CUDA_SUCCESS)
        return rc;
    pthread_mutex_lock(&cu_process.mutex);
    fresh();
    uint64_t used = used_bytes(card);
    if (graphs.used_high[card] < used)
        graphs.used_high[card] = used;
    const uint64_t figures[] = {used, graphs.used_high[card], graphs.reserved[card],
                                graphs.reserved_high[card]};
    pthread_mutex_unlock(&cu_process.mutex);
    *(uint64_t *)value = figures[attribute];
    return CUDA_SUCCESS;
}

/* Only the highest values can be set, and only to zero. */
CUresult cuDeviceSetGraphMemAttribute(CUdevice device, int attribute, void *value) {
    int card;
    ENTER();
    REQUIRE(value != NULL && *(uint64_t *)value == 0 && (attribute == 1 || attribute == 3));
    CUresult rc = cu_device_card(device, &card);
    if (rc != CUDA_SUCCESS)
        return rc;
    pthread_mutex_lock(&cu_process.mutex);
    fresh();
    graphs.used_high[card] = attribute == 1 ? 0 : graphs.used_high[card];
    graphs.reserved_high[card] = attribute == 3 ? 0 : graphs.reserved_high[card];
    pthread_mutex_unlock(&cu_process.mutex);
    return CUDA_SUCCESS;
}
