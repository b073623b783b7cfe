/* Driver functions that we call ourselves and do not wrap. Each answers with an error where the
 * driver lacks it. */
#ifndef HAMI_DRIVER_H
#define HAMI_DRIVER_H

#include "cuda_abi.h"

#include <stdbool.h>

CUresult driver_current_device(CUdevice *device);
CUcontext driver_current_context(void); /* NULL: none */
int driver_device_count(void);          /* -1: it does not say */
CUresult driver_device_pool(CUdevice device, CUmemoryPool *pool);
CUresult driver_pool_attribute(CUmemoryPool pool, int attribute, uint64_t *value);
bool driver_primary_active(CUdevice device);
bool driver_is_capturing(CUstream stream, bool per_thread);
CUresult driver_graph_memory(CUdevice device, int attribute, uint64_t *value);
CUresult driver_graph_nodes(CUgraph graph, CUgraphNode *nodes, size_t *count);
CUresult driver_node_type(CUgraphNode node, int *type);
CUresult driver_alloc_node(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *params);
CUresult driver_child_graph(CUgraphNode node, CUgraph *graph);

CUresult driver_event_create(CUevent *event);
CUresult driver_event_destroy(CUevent event);
CUresult driver_event_record(CUevent event, CUstream stream);
CUresult driver_event_query(CUevent event);
CUresult driver_event_elapsed(float *milliseconds, CUevent start, CUevent end);
/* Makes the stream's context the current one; false, and nothing done, if that cannot be. */
bool driver_enter_stream(CUstream stream);
void driver_leave_stream(void);
/* Swaps this thread's capture mode; in relaxed mode events may be asked about while others capture.
 */
void driver_exchange_capture_mode(int *mode);

#endif
