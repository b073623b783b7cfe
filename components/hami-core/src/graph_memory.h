/*
 * Memory that graphs allocate. Adding a node takes none; the driver takes it when a graph is
 * uploaded or launched and keeps it for the process until a trim, so what it keeps is what is
 * charged.
 */
#ifndef HAMI_GRAPH_MEMORY_H
#define HAMI_GRAPH_MEMORY_H

#include "process.h"

/* After an instantiation that went well: remembers an executable graph that allocates, and charges
 * what it took already. False: that passes the limit, the graph is destroyed again. */
bool graph_memory_made(CUgraph graph, CUgraphExec exec);

/* Before a launch, with the default stream's flavour: takes the graph's memory, or refuses it.
 * CUDA_SUCCESS: go on. A graph that allocates nothing, or has its memory, costs one look-up. */
CUresult graph_memory_admit(CUgraphExec exec, CUstream stream, bool per_thread);

/* Around the end of an executable graph. */
CUresult graph_memory_end(CUgraphExec exec);

/* The driver was made to give idle memory back: graphs have to take it again. */
void graph_memory_trimmed(void);

/* Charges what graphs hold now. */
void graph_memory_settle(struct process *process);

#endif
