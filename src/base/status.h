/* status.h - filling a ruv_error, inside the library.
 *
 * ruv_fail() records the failure and returns its code, so that the usual form is
 *     return ruv_fail(err, RUV_EFORMAT, "gguf", "tensor '%s' has %u dimensions, at most 4 are allowed", name, n);
 * Layer: base. */
#ifndef RUV_BASE_STATUS_H
#define RUV_BASE_STATUS_H

#include "ruvllm/types.h"

/* Sets *err (NULL is fine) and returns `code`. `where` must be a static string. Too long a message is cut. */
int ruv_fail(ruv_error *err, int code, const char *where, const char *fmt, ...) RUV_PRINTF(4, 5);

/* As ruv_fail, with ": " and the text of `errnum` (an errno value) behind the message. */
int ruv_fail_errno(ruv_error *err, int code, int errnum, const char *where, const char *fmt, ...) RUV_PRINTF(5, 6);

/* Puts a prefix ("model.gguf: ") before a message that a lower layer wrote; err may be NULL. Returns err->code or `code`. */
int ruv_error_prefix(ruv_error *err, int code, const char *fmt, ...) RUV_PRINTF(3, 4);

/* RUV_ENOMEM with the size that could not be had. */
int ruv_fail_memory(ruv_error *err, const char *where, size_t n_bytes);

#endif
