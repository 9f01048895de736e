/* buf.c - the growable buffer of buf.h. */
#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ruv_buf_init(ruv_buf *buf, size_t max_bytes)
{
	memset(buf, 0, sizeof *buf);
	buf->max = max_bytes;
}

void ruv_buf_release(ruv_buf *buf)
{
	free(buf->data);
	ruv_buf_init(buf, buf->max);
}

void ruv_buf_clear(ruv_buf *buf)
{
	buf->len = 0;
	buf->failed = RUV_OK;
	if (buf->data)
		buf->data[0] = '\0';
}

int ruv_buf_reserve(ruv_buf *buf, size_t n_bytes)
{
	size_t need, cap;
	char *data;

	if (buf->failed)
		return buf->failed;
	if (n_bytes > buf->max || buf->len > buf->max - n_bytes)
		return buf->failed = RUV_ELIMIT;
	need = buf->len + n_bytes + 1;
	if (need <= buf->cap)
		return RUV_OK;
	cap = buf->cap ? buf->cap : 64;
	while (cap < need)
		cap = cap > SIZE_MAX / 2 ? need : cap * 2;
	data = realloc(buf->data, cap);
	if (!data)
		return buf->failed = RUV_ENOMEM;
	if (!buf->data)
		data[0] = '\0';
	buf->data = data;
	buf->cap = cap;
	return RUV_OK;
}

int ruv_buf_append(ruv_buf *buf, const void *bytes, size_t n_bytes)
{
	int rc = ruv_buf_reserve(buf, n_bytes);
	if (rc)
		return rc;
	if (n_bytes)
		memcpy(buf->data + buf->len, bytes, n_bytes);
	buf->len += n_bytes;
	buf->data[buf->len] = '\0';
	return RUV_OK;
}

int ruv_buf_puts(ruv_buf *buf, const char *text)
{
	return ruv_buf_append(buf, text, strlen(text));
}

int ruv_buf_putc(ruv_buf *buf, char c)
{
	return ruv_buf_append(buf, &c, 1);
}

int ruv_buf_printf(ruv_buf *buf, const char *fmt, ...)
{
	va_list ap;
	int n, rc;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return buf->failed = RUV_EINVAL;
	rc = ruv_buf_reserve(buf, (size_t)n);
	if (rc)
		return rc;
	va_start(ap, fmt);
	vsnprintf(buf->data + buf->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	buf->len += (size_t)n;
	return RUV_OK;
}

void ruv_buf_truncate(ruv_buf *buf, size_t len)
{
	if (len < buf->len) {
		buf->len = len;
		buf->data[len] = '\0';
	}
}

const char *ruv_buf_cstr(const ruv_buf *buf)
{
	return buf->data ? buf->data : "";
}

char *ruv_buf_take(ruv_buf *buf)
{
	char *data = NULL;
	if (!buf->failed && !ruv_buf_reserve(buf, 0)) {
		data = buf->data;
		buf->data = NULL;
	}
	ruv_buf_release(buf);
	return data;
}
