/* status.c - status names and the filling of errors. */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#ifndef RUV_VERSION
#error "RUV_VERSION comes from the build"
#endif

const char *ruv_version(void)
{
	return RUV_VERSION;
}

const char *ruv_status_name(int code)
{
	switch (code) {
#define X(c, value, name, text)                                                                                                    \
	case c:                                                                                                                    \
		return name;
		RUV_STATUS_LIST(X)
#undef X
	}
	return "unknown";
}

const char *ruv_status_text(int code)
{
	switch (code) {
#define X(c, value, name, text)                                                                                                    \
	case c:                                                                                                                    \
		return text;
		RUV_STATUS_LIST(X)
#undef X
	}
	return "unknown status";
}

int ruv_fail(ruv_error *err, int code, const char *where, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		err->code = code;
		err->where = where;
		va_start(ap, fmt);
		vsnprintf(err->message, sizeof err->message, fmt, ap);
		va_end(ap);
	}
	return code;
}

int ruv_fail_errno(ruv_error *err, int code, int errnum, const char *where, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		int n;
		err->code = code;
		err->where = where;
		va_start(ap, fmt);
		n = vsnprintf(err->message, sizeof err->message, fmt, ap);
		va_end(ap);
		if (n >= 0 && (size_t)n < sizeof err->message)
			snprintf(err->message + n, sizeof err->message - (size_t)n, ": %s", strerror(errnum));
	}
	return code;
}

int ruv_error_prefix(ruv_error *err, int code, const char *fmt, ...)
{
	if (err) {
		char old[sizeof err->message];
		va_list ap;
		int n;
		memcpy(old, err->message, sizeof old);
		va_start(ap, fmt);
		n = vsnprintf(err->message, sizeof err->message, fmt, ap);
		va_end(ap);
		if (n >= 0 && (size_t)n < sizeof err->message)
			snprintf(err->message + n, sizeof err->message - (size_t)n, "%s", old);
		if (err->code)
			return err->code;
	}
	return code;
}

int ruv_fail_memory(ruv_error *err, const char *where, size_t n_bytes)
{
	return ruv_fail(err, RUV_ENOMEM, where, "could not allocate %zu bytes", n_bytes);
}
