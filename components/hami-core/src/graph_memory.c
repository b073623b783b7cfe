#include "graph_memory.h"

#include "account.h"
#include "dispatch.h"
#include "driver.h"
#include "ledger.h"
#include "pool.h"

#include <stdlib.h>

#define MOST_NESTED 16u

enum { NODE_GRAPH = 4, NODE_MEM_ALLOC = 10, NODE_CONDITIONAL = 13 }; /* CUgraphNodeType */

/* What the nodes of a graph may take. */
struct need {
    uint64_t ordinals; /* a bit for each CUDA device */
    uint64_t bytes;    /* of all allocations; less where one reuses the memory of another */
};

static void look_at_nodes(CUgraph graph, unsigned depth, struct need *need);

static void look_at_allocation(CUgraphNode node, struct need *need) {
    CUDA_MEM_ALLOC_NODE_PARAMS params;
    if (driver_alloc_node(node, &params) == CUDA_SUCCESS &&
        params.pool.location.type == CU_MEM_LOCATION_TYPE_DEVICE &&
        (unsigned)params.pool.location.id < MAX_ORDINALS) {
        need->ordinals |= UINT64_C(1) << params.pool.location.id;
        need->bytes += params.bytes;
    }
}

static void look_at_node(CUgraphNode node, unsigned depth, struct need *need) {
    CUgraph child = NULL;
    CUdevice here = 0;
    int type = -1;
    if (driver_node_type(node, &type) != CUDA_SUCCESS) {
        return;
    }
    if (type == NODE_MEM_ALLOC) {
        look_at_allocation(node, need);
    } else if (type == NODE_GRAPH && driver_child_graph(node, &child) == CUDA_SUCCESS) {
        look_at_nodes(child, depth + 1, need);
    } else if (type == NODE_CONDITIONAL && driver_current_device(&here) == CUDA_SUCCESS) {
        need->ordinals |= UINT64_C(1) << here; /* its bodies cannot be asked for: watch it */
    }
}

static void look_at_nodes(CUgraph graph, unsigned depth, struct need *need) {
    size_t count = 0;
    if (depth > MOST_NESTED || driver_graph_nodes(graph, NULL, &count) != CUDA_SUCCESS ||
        count == 0) {
        return;
    }
    CUgraphNode *nodes = calloc(count, sizeof(*nodes));
    if (nodes != NULL && driver_graph_nodes(graph, nodes, &count) == CUDA_SUCCESS) {
        for (size_t i = 0; i < count; i++) {
            look_at_node(nodes[i], depth, need);
        }
    }
    free(nodes);
}

/* Under graph_lock: brings the charge of one device to what graphs hold there. False if that passes
 * the limit. */
static bool settle(struct process *process, CUdevice ordinal, bool limited) {
    uint64_t reserved = 0;
    int device = process_device(process, ordinal);
    if (driver_graph_memory(ordinal, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &reserved) !=
        CUDA_SUCCESS) {
        return true; /* before 11.4 there are no memory nodes */
    }
    if (device < 0) {
        return reserved == 0;
    }
    int64_t change = (int64_t)(reserved / HAMI_UNIT) - (int64_t)process->graph_units[ordinal];
    uint64_t limit = limited && change > 0 ? process_limit_of(process, device, HAMI_KIND_GRAPH)
                                           : LEDGER_NO_LIMIT;
    if (change != 0 && !account_apply(process, (unsigned)device, HAMI_KIND_GRAPH, change, limit)) {
        return false;
    }
    process->graph_units[ordinal] += (uint64_t)change;
    return true;
}

static bool settle_some(struct process *process, uint64_t ordinals, bool limited) {
    bool fits = true;
    for (CUdevice ordinal = 0; ordinals != 0; ordinal++, ordinals >>= 1) {
        if ((ordinals & 1) != 0) {
            fits = settle(process, ordinal, limited) && fits;
        }
    }
    return fits;
}

/* The same, once more after the dead have been cleared; what does not fit is given back. */
static bool fit_or_trim(struct process *process, uint64_t ordinals) {
    if (settle_some(process, ordinals, true) ||
        (process_reap(process) && settle_some(process, ordinals, true))) {
        return true;
    }
    for (CUdevice ordinal = 0; ordinal < MAX_ORDINALS; ordinal++) {
        if ((ordinals >> ordinal & 1) != 0) {
            REAL(cuDeviceGraphMemTrim)(ordinal);
        }
    }
    atomic_fetch_add(&process->graph_epoch, 1);
    settle_some(process, ordinals, false);
    return false;
}

/* Charges ahead what a graph on one device may take, so that nobody else is granted it meanwhile.
 * Where that is too much the graph may still fit: its nodes can share memory. */
static void charge_ahead(struct process *process, const struct table_entry *entry) {
    CUdevice ordinal = __builtin_ctzll(entry->owner);
    int device = process_device(process, ordinal);
    int64_t units = (int64_t)entry->units;
    bool alone = (entry->owner & (entry->owner - 1)) == 0;
    if (alone && device >= 0 &&
        account_apply(process, (unsigned)device, HAMI_KIND_GRAPH, units,
                      process_limit_of(process, device, HAMI_KIND_GRAPH))) {
        process->graph_units[ordinal] += entry->units;
    }
}

/* Under graph_lock. */
static CUresult take(struct process *process, struct table_entry *entry, CUstream stream,
                     bool per_thread) {
    CUgraphExec exec = (CUgraphExec)(uintptr_t)entry->key; /* NOLINT(performance-no-int-to-ptr) */
    uint32_t epoch = atomic_load(&process->graph_epoch);
    charge_ahead(process, entry);
    CUresult answer =
        per_thread ? REAL(cuGraphUpload_ptsz)(exec, stream) : REAL(cuGraphUpload)(exec, stream);
    if (!fit_or_trim(process, entry->owner)) {
        account_count_refusal(process, process_device(process, __builtin_ctzll(entry->owner)),
                              entry->units * HAMI_UNIT);
        return answer == CUDA_SUCCESS ? CUDA_ERROR_OUT_OF_MEMORY : answer;
    }
    if (answer == CUDA_SUCCESS) {
        entry->refs = epoch;
        table_put(process->table, entry);
    }
    return answer;
}

CUresult graph_memory_admit(CUgraphExec exec, CUstream stream, bool per_thread) {
    bool refuse = false;
    struct table_entry entry;
    struct process *process = process_limits();
    if (process == NULL || atomic_load_explicit(&process->graph_epoch, memory_order_relaxed) == 0) {
        return CUDA_SUCCESS;
    }
    process = process_account(&refuse);
    if (process == NULL ||
        !table_get(process->table, TABLE_GRAPH, (uint64_t)(uintptr_t)exec, &entry) ||
        entry.refs == atomic_load(&process->graph_epoch) ||
        driver_is_capturing(stream, per_thread)) {
        return refuse ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
    }
    pool_settle_all(process);
    lock_take(&process->graph_lock);
    CUresult answer = take(process, &entry, stream, per_thread);
    lock_drop(&process->graph_lock);
    return answer;
}

bool graph_memory_made(CUgraph graph, CUgraphExec exec) {
    bool refuse = false;
    struct process *process = process_account(&refuse);
    struct need need = {0, 0};
    uint32_t none = 0;
    if (process == NULL) {
        return !refuse;
    }
    look_at_nodes(graph, 0, &need);
    if (need.ordinals == 0) {
        return true;
    }
    /* From the first one on launches look. */
    atomic_compare_exchange_strong(&process->graph_epoch, &none, 1);
    struct table_entry entry = {.key = (uint64_t)(uintptr_t)exec,
                                .units = ledger_units(need.bytes),
                                .owner = need.ordinals,
                                .refs = 0, /* of no epoch */
                                .tag = TABLE_GRAPH};
    lock_take(&process->graph_lock);
    bool fits = table_put(process->table, &entry) && fit_or_trim(process, need.ordinals);
    lock_drop(&process->graph_lock);
    return fits;
}

CUresult graph_memory_end(CUgraphExec exec) {
    bool refuse = false;
    struct table_entry entry;
    struct process *process = process_account(&refuse);
    /* Out of the table first: the next graph may be given the same handle. */
    bool ours = process != NULL &&
                table_take(process->table, TABLE_GRAPH, (uint64_t)(uintptr_t)exec, &entry);
    CUresult answer = REAL(cuGraphExecDestroy)(exec);
    if (ours && answer != CUDA_SUCCESS) {
        table_put(process->table, &entry);
    } else if (ours) {
        graph_memory_settle(process);
    }
    return answer;
}

void graph_memory_trimmed(void) {
    bool refuse = false;
    struct process *process = process_account(&refuse);
    if (process != NULL && atomic_load(&process->graph_epoch) != 0) {
        atomic_fetch_add(&process->graph_epoch, 1);
        graph_memory_settle(process);
    }
}

void graph_memory_settle(struct process *process) {
    uint64_t ordinals = 0;
    if (atomic_load_explicit(&process->graph_epoch, memory_order_relaxed) == 0) {
        return;
    }
    lock_take(&process->graph_lock);
    for (CUdevice ordinal = 0; ordinal < MAX_ORDINALS; ordinal++) {
        ordinals |= (uint64_t)(process->graph_units[ordinal] != 0) << ordinal;
    }
    settle_some(process, ordinals, false);
    lock_drop(&process->graph_lock);
}
