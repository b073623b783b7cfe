/* Driver functions that we call ourselves and do not wrap. Each answers with an error where the
 * driver lacks it. */
#ifndef HAMI_DRIVER_H
#define HAMI_DRIVER_H

#include "cuda_abi.h"

#include <stdbool.h>

CUresult driver_current_device(CUdevice *device);
CUcontext driver_current_context(void); /* NULL: none */
CUresult driver_device_pool(CUdevice device, CUmemoryPool *pool);
CUresult driver_pool_attribute(CUmemoryPool pool, int attribute, uint64_t *value);
bool driver_primary_active(CUdevice device);
bool driver_is_capturing(CUstream stream, bool per_thread);
CUresult driver_graph_memory(CUdevice device, int attribute, uint64_t *value);
CUresult driver_graph_nodes(CUgraph graph, CUgraphNode *nodes, size_t *count);
CUresult driver_node_type(CUgraphNode node, int *type);
CUresult driver_alloc_node(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *params);
CUresult driver_child_graph(CUgraphNode node, CUgraph *graph);

#endif
