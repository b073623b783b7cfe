/* What vmm.c and share.c share: physical allocations. */
#ifndef VMM_INT_H
#define VMM_INT_H

#include "cuda_int.h"

/* A physical allocation lives until the last of its handles and mappings is gone. */
struct physical {
    uint64_t magic;
    uint64_t size;
    int card; /* -1: the host's or another process's memory, which costs the card nothing */
    int refs;
    int handles;
    CUmemAllocationProp prop;
};

struct physical *cu_physical(CUmemHandle handle);
struct physical *cu_new_physical(uint64_t size, int card);

#endif
