/* backend.c - the CPU backend's life: threads, scratch memory, weights in place, plain memory, the sticky failure. */
#include "tensor/cpu/backend.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"

enum { ALIGN = 64 };

static void *aligned_bytes(size_t n_bytes)
{
	return aligned_alloc(ALIGN, (n_bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1));
}

int ruv_backend_open_cpu(ruv_backend **out, int n_threads, ruv_error *err)
{
	ruv_backend *b = calloc(1, sizeof *b);
	int rc;

	if (!b)
		return ruv_fail_memory(err, "backend", sizeof *b);
	rc = ruv_pool_create(&b->pool, n_threads, err);
	if (rc)
		goto done;
	b->n_threads = ruv_pool_n_threads(b->pool);
	b->packing = true;
	b->k = ruv_kernels_pick(ruv_cpu_get());
	snprintf(b->describe, sizeof b->describe, "cpu (%s, %d thread%s)", b->k->name, b->n_threads, b->n_threads == 1 ? "" : "s");
	rc = ruv_backend_reserve(b, 1, 1024, 0, err);
	if (rc)
		goto done;
	*out = b;
	b = NULL;
done:
	ruv_backend_free(b);
	return rc;
}

void ruv_backend_free(ruv_backend *b)
{
	if (!b)
		return;
	ruv_pool_free(b->pool);
	free(b->act);
	free(b->scratch);
	free(b->partial);
	free(b);
}

const char *ruv_backend_describe(const ruv_backend *b)
{
	return b->describe;
}

int ruv_backend_n_threads(const ruv_backend *b)
{
	return b->n_threads;
}

void ruv_backend_fail(ruv_backend *b, int code, const char *where, const char *fmt, ...)
{
	va_list ap;
	char message[sizeof b->failure.message];

	if (b->failure.code)
		return;
	va_start(ap, fmt);
	vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	ruv_fail(&b->failure, code, where, "%s", message);
}

int ruv_backend_sync(ruv_backend *b, ruv_error *err)
{
	int code = b->failure.code;

	if (code && err)
		*err = b->failure;
	b->failure = (ruv_error){0};
	return code;
}

/* Replaces *memory by n_bytes when it has fewer. */
static int grow(uint8_t **memory, size_t *have, size_t n_bytes, ruv_error *err)
{
	uint8_t *fresh;

	if (*have >= n_bytes)
		return RUV_OK;
	fresh = aligned_bytes(n_bytes);
	if (!fresh)
		return ruv_fail_memory(err, "backend", n_bytes);
	free(*memory);
	*memory = fresh;
	*have = n_bytes;
	return RUV_OK;
}

int ruv_backend_reserve(ruv_backend *b, int n_rows, int64_t n_elements, int64_t n_context, ruv_error *err)
{
	size_t thread_bytes, scratch_bytes = b->thread_bytes * (size_t)b->n_threads, partial_bytes = b->n_partial * sizeof(float);
	int64_t rows = n_rows > b->max_rows ? n_rows : b->max_rows;
	int64_t elements = n_elements > b->max_elements ? n_elements : b->max_elements;
	uint8_t *partial = (uint8_t *)b->partial;
	int rc;

	(void)n_context; /* attention works in tiles: nothing here grows with the context */
	if (n_rows < 0 || n_elements < 0 || elements > INT64_MAX / 1024 / (rows ? rows : 1))
		return ruv_fail(err, RUV_EINVAL, "backend", "cannot reserve %d rows of %lld elements", n_rows,
		                (long long)n_elements);
	elements = (elements + 31) & ~(int64_t)31;
	thread_bytes = ruv_panel_bytes(b->k->panel_rows, elements);
	if (thread_bytes < ruv_attention_scratch_bytes())
		thread_bytes = ruv_attention_scratch_bytes();

	rc = grow(&b->act, &b->act_bytes, ruv_act_bytes(rows, elements), err);
	if (rc)
		return rc;
	rc = grow(&b->scratch, &scratch_bytes, thread_bytes * (size_t)b->n_threads, err);
	if (rc)
		return rc;
	b->thread_bytes = scratch_bytes / (size_t)b->n_threads / ALIGN * ALIGN;
	rc = grow(&partial, &partial_bytes, RUV_PARTIAL_ROWS * (size_t)(elements + elements / 8) * sizeof(float), err);
	b->partial = (float *)partial;
	b->n_partial = partial_bytes / sizeof(float);
	if (rc)
		return rc;
	b->max_rows = rows;
	b->max_elements = elements;
	return RUV_OK;
}

void *ruv_backend_scratch(ruv_backend *b, int thread)
{
	return b->scratch + (size_t)thread * b->thread_bytes;
}

/* Waking a thread and joining it again costs a few microseconds: what one thread does in that time is not shared. */
void ruv_backend_run(ruv_backend *b, ruv_pool_fn *fn, void *arg, int n_tasks, size_t work_bytes)
{
	if (work_bytes < 32 * 1024)
		for (int i = 0; i < n_tasks; i++)
			fn(arg, i, 0);
	else
		ruv_pool_run(b->pool, fn, arg, n_tasks);
}

int ruv_backend_bind(ruv_backend *b, ruv_tensor *tensor, ruv_dtype dtype, int64_t n_in, int64_t n_out, const void *bytes,
                     ruv_error *err)
{
	if (!ruv_dtype_known((int)dtype))
		return ruv_fail(err, RUV_EUNSUPPORTED, "bind", "a tensor has %s, which this build cannot use",
		                ruv_dtype_name((int)dtype));
	if (n_in <= 0 || n_out <= 0 || ruv_dtype_row_bytes(dtype, n_in) == 0)
		return ruv_fail(err, RUV_EINVAL, "bind",
		                "a %s tensor of %lld rows of %lld elements: a row must hold whole blocks of %d",
		                ruv_dtype_name((int)dtype), (long long)n_out, (long long)n_in, ruv_dtype_block_elements(dtype));
	if (!bytes)
		return ruv_fail(err, RUV_EINVAL, "bind", "a tensor has no data");
	*tensor = (ruv_tensor){.data = bytes, .dtype = dtype, .n_in = n_in, .n_out = n_out};
	return ruv_pack_reserve(b, tensor, err);
}

void ruv_backend_unbind(ruv_backend *b, ruv_tensor *tensor)
{
	ruv_pack_release(b, tensor);
	*tensor = (ruv_tensor){0};
}

/* From calloc, which does not touch fresh pages: keys and values of a long context cost memory as they are written. The block's own
 * address stands in front of the aligned one. */
/* Large memory (keys and values of long contexts) goes in huge pages, whose translations stay in the processor; what is used first
 * stays in small ones, so that a short context takes no more than it needs. */
static void huge_pages(char *p, size_t n_bytes)
{
	const uintptr_t huge = 2u << 20, from = ((uintptr_t)p + 2 * huge - 1) & ~(huge - 1),
			to = ((uintptr_t)p + n_bytes) & ~(huge - 1);

	if (to > from)
		madvise((void *)from, to - from, MADV_HUGEPAGE); /* a wish: without them all is the same but slower */
}

int ruv_backend_alloc(ruv_backend *b, void **address, size_t n_bytes, ruv_error *err)
{
	char *block, *p;

	(void)b;
	if (n_bytes > SIZE_MAX - ALIGN - sizeof block)
		return ruv_fail_memory(err, "backend", n_bytes);
	block = calloc(1, n_bytes + ALIGN + sizeof block);
	if (!block)
		return ruv_fail_memory(err, "backend", n_bytes);
	p = block + sizeof block;
	p += (ALIGN - (uintptr_t)p % ALIGN) % ALIGN;
	memcpy(p - sizeof block, &block, sizeof block);
	huge_pages(p, n_bytes);
	*address = p;
	return RUV_OK;
}

void ruv_backend_release(ruv_backend *b, void *address)
{
	char *block;

	(void)b;
	if (!address)
		return;
	memcpy(&block, (char *)address - sizeof block, sizeof block);
	free(block);
}

void ruv_backend_upload(ruv_backend *b, void *address, const void *host, size_t n_bytes)
{
	(void)b;
	memcpy(address, host, n_bytes);
}

void ruv_backend_download(ruv_backend *b, void *host, const void *address, size_t n_bytes)
{
	(void)b;
	memcpy(host, address, n_bytes);
}

void ruv_backend_copy(ruv_backend *b, void *to, const void *from, size_t n_bytes)
{
	(void)b;
	memmove(to, from, n_bytes);
}

void ruv_backend_zero(ruv_backend *b, void *address, size_t n_bytes)
{
	(void)b;
	memset(address, 0, n_bytes);
}
