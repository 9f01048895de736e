/* buf.h - a growable run of bytes, NUL-terminated, with a declared maximum.
 *
 * A failed append makes the buffer `failed` and every later append a no-op that returns the same status, so that a writer
 * may append many times and check once. Threads: one at a time. Layer: base. */
#ifndef RUV_BASE_BUF_H
#define RUV_BASE_BUF_H

#include <stdarg.h>

#include "ruvllm/types.h"

typedef struct ruv_buf {
	char *data; /* [len] and a NUL; NULL while nothing was appended */
	size_t len, cap;
	size_t max; /* largest len allowed */
	int failed; /* RUV_OK, RUV_ENOMEM or RUV_ELIMIT: the first failure */
} ruv_buf;

/* An empty buffer that refuses to grow beyond `max_bytes`. Allocates nothing. */
void ruv_buf_init(ruv_buf *buf, size_t max_bytes);
void ruv_buf_release(ruv_buf *buf);
/* Forgets the contents and the failure, keeps the memory. */
void ruv_buf_clear(ruv_buf *buf);
/* Room for `n_bytes` more without another allocation. */
int ruv_buf_reserve(ruv_buf *buf, size_t n_bytes);
int ruv_buf_append(ruv_buf *buf, const void *bytes, size_t n_bytes);
int ruv_buf_puts(ruv_buf *buf, const char *text);
int ruv_buf_putc(ruv_buf *buf, char c);
int ruv_buf_printf(ruv_buf *buf, const char *fmt, ...) RUV_PRINTF(2, 3);
/* Cuts the contents to the first `len` bytes (no effect when shorter). */
void ruv_buf_truncate(ruv_buf *buf, size_t len);
/* The contents as a C string ("" when empty); valid until the next change. */
const char *ruv_buf_cstr(const ruv_buf *buf);
/* Hands the bytes to the caller (free()), NULL when failed or out of memory; the buffer is empty afterwards. */
char *ruv_buf_take(ruv_buf *buf);

#endif
