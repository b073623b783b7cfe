/* Lines on stderr, only when LIBCUDA_LOG_LEVEL or the control file asks: 1 errors, 2 warnings, 3
 * info, 4 debug. */
#ifndef HAMI_LOG_H
#define HAMI_LOG_H

enum { LOG_ERROR = 1, LOG_WARNING = 2, LOG_INFO = 3, LOG_DEBUG = 4 };

/* -1: as LIBCUDA_LOG_LEVEL says. */
void log_set_level(int level);

void log_line(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
