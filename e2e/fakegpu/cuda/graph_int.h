/* What graph.c and graph_memory.c share: nodes, and the memory that a graph's nodes allocate. */
#ifndef GRAPH_INT_H
#define GRAPH_INT_H

#include "cuda_int.h"

/* CUgraphNodeType */
enum node_type { NODE_KERNEL = 0, NODE_GRAPH = 4, NODE_EMPTY = 5, NODE_ALLOC = 10, NODE_FREE = 11 };

struct graph_node {
    enum node_type type;
    uint64_t duration_ns;
    uint64_t va, size; /* of memory nodes */
    int card;
    struct graph *child;
    struct graph_node *next; /* in the order in which they were added */
};

struct graph {
    enum magic magic;
    struct graph_node *first, *last;
    size_t count;
};

/* The memory of one executable graph. It outlives it while an allocation is not freed. */
struct graph_memory {
    uint64_t peak[FG_UNITS];   /* the most that its nodes hold at one time */
    bool mapped[FG_UNITS];     /* physical memory of that size stands behind it */
    _Atomic uint64_t last_end; /* of its launches: a mark of the timeline */
    struct graph_node *leaves; /* allocations that the graph does not free itself */
    unsigned outstanding;      /* of them, those that a launch made and nobody has freed */
    bool frees_on_launch;      /* AUTO_FREE_ON_LAUNCH */
    bool destroyed;
    struct graph_memory *next;
};

struct graph_exec {
    enum magic magic;
    uint64_t duration_ns;
    struct graph_memory *memory; /* NULL: no memory nodes */
};

CUresult cu_graph_node(struct graph *graph, struct graph_node node, CUgraphNode *out);

/* graph_memory.c */
CUresult cu_graph_memory_make(const struct graph *graph, bool frees_on_launch,
                              struct graph_memory **out);
CUresult cu_graph_memory_map(struct graph_memory *memory);
CUresult cu_graph_memory_launch(struct graph_memory *memory, struct ctx *ctx);
void cu_graph_memory_end(struct graph_memory *memory);

#endif
