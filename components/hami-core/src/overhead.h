/* Memory that nobody asked for: contexts, modules, the driver's own. */
#ifndef HAMI_OVERHEAD_H
#define HAMI_OVERHEAD_H

#include "process.h"

/*
 * Notes what NVML says this process holds on a device beyond what it has allocated. To be called
 * when a context has come or gone. Without NVML, or where it knows us under another PID only, the
 * note stays as it is.
 */
void overhead_note(struct process *process, CUdevice ordinal);

#endif
