/* log.c - formats a line and hands it to the sink. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static void write_stderr(void *user, ruv_log_level level, const char *where, const char *line)
{
	static const char *const names[] = {"debug", "info", "warning", "error"};
	(void)user;
	fprintf(stderr, "%s: %s: %s\n", names[level], where, line);
}

static ruv_log_sink *current_sink = write_stderr;
static void *current_user;
static ruv_log_level current_level = RUV_LOG_WARN;

void ruv_log_set(ruv_log_sink *sink, void *user, ruv_log_level min_level)
{
	current_sink = sink ? sink : write_stderr;
	current_user = sink ? user : NULL;
	current_level = min_level;
}

void ruv_log(ruv_log_level level, const char *where, const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	if (level < current_level)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	current_sink(current_user, level, where, line);
}
