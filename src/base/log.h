/* log.h - the library's log: one line per event to a sink that the program sets. The default writes warnings and errors to stderr.
 *
 * Prompts and stored texts are never logged. Threads: any; a line is written in one call of the sink. Layer: base. */
#ifndef RUV_BASE_LOG_H
#define RUV_BASE_LOG_H

#include "ruvllm/types.h"

typedef enum ruv_log_level { RUV_LOG_DEBUG, RUV_LOG_INFO, RUV_LOG_WARN, RUV_LOG_ERROR } ruv_log_level;

typedef void ruv_log_sink(void *user, ruv_log_level level, const char *where, const char *line);

/* Sets where lines of `min_level` and above go; NULL restores the default sink. Call before threads start. */
void ruv_log_set(ruv_log_sink *sink, void *user, ruv_log_level min_level);
void ruv_log(ruv_log_level level, const char *where, const char *fmt, ...) RUV_PRINTF(3, 4);

#endif
