/* Memory that nobody asked for: contexts, modules, the driver's own. */
#ifndef HAMI_OVERHEAD_H
#define HAMI_OVERHEAD_H

#include "process.h"

enum overhead_cause { OVERHEAD_CONTEXTS, OVERHEAD_MODULES };

/*
 * Notes what NVML says this process holds on a device beyond what it has allocated. To be called
 * when a context has come or gone. Without NVML, or where it knows us under another PID only, the
 * note stays as it is.
 */
void overhead_note(struct process *process, CUdevice ordinal, enum overhead_cause cause);

/* Code was loaded or unloaded: noted now, or where that was done a moment ago, at the next of the
 * calls below. */
void overhead_modules_changed(void);

/* At calls that are slow anyway: notes what has been put off. */
void overhead_catch_up(struct process *process);

#endif
