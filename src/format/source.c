/* source.c - tensors of a GGUF file as a source, and rows of any source as F32; see source.h. */
#include "format/source.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "tensor/quant.h"

#define WHERE "convert"

void ruv_source_init(ruv_source *s)
{
	memset(s, 0, sizeof *s);
	ruv_arena_init(&s->arena);
}

void ruv_source_release(ruv_source *s)
{
	free(s->tensors);
	ruv_arena_release(&s->arena);
	ruv_gguf_free(s->gguf);
	ruv_safetensors_free(s->st);
	memset(s, 0, sizeof *s);
}

ruv_source_tensor *ruv_source_add(ruv_source *s)
{
	if (s->n_tensors == s->cap_tensors) {
		size_t cap = s->cap_tensors ? s->cap_tensors * 2 : 256;
		ruv_source_tensor *p = realloc(s->tensors, cap * sizeof *p);
		if (!p)
			return NULL;
		s->tensors = p;
		s->cap_tensors = cap;
	}
	return memset(&s->tensors[s->n_tensors++], 0, sizeof *s->tensors);
}

int ruv_source_open_gguf(ruv_source *s, const char *path, ruv_gguf_writer *writer, ruv_error *err)
{
	char *arch = NULL, key[128];
	uint32_t n_layers = 0;
	int rc;

	rc = ruv_gguf_open(&s->gguf, path, 0, err);
	if (rc)
		return rc;
	rc = ruv_gguf_get_cstr(s->gguf, "general.architecture", &arch, err);
	if (rc)
		goto done;
	snprintf(key, sizeof key, "%s.block_count", arch);
	rc = ruv_gguf_opt_u32(s->gguf, key, &n_layers, err);
	if (rc)
		goto done;
	if (n_layers > 4096) {
		rc = ruv_fail(err, RUV_ELIMIT, WHERE, "key '%s' is %u; at most 4096 layers are allowed", key, n_layers);
		goto done;
	}
	s->n_layers = (int)n_layers;
	for (size_t i = 0; i < ruv_gguf_n_keys(s->gguf); i++) {
		const ruv_gguf_key *k = ruv_gguf_key_at(s->gguf, i);
		/* The set becomes one file, and the alignment is the writer's. */
		if ((k->name.len > 6 && !memcmp(k->name.data, "split.", 6)) || ruv_gguf_str_is(k->name, "general.alignment"))
			continue;
		ruv_gguf_set_copy(writer, k);
	}
	for (size_t i = 0; i < ruv_gguf_n_tensors(s->gguf); i++) {
		const ruv_gguf_tensor *from = ruv_gguf_tensor_at(s->gguf, i);
		ruv_source_tensor *t = ruv_source_add(s);
		if (!t) {
			rc = ruv_fail_memory(err, WHERE, sizeof *t);
			goto done;
		}
		memcpy(t->name, from->name, sizeof t->name);
		t->n_dims = from->n_dims ? from->n_dims : 1;
		memcpy(t->ne, from->ne, sizeof t->ne);
		t->dtype = (ruv_dtype)from->dtype;
		t->data = from->data;
	}
done:
	free(arch);
	return rc;
}

int64_t ruv_source_n_rows(const ruv_source_tensor *t)
{
	return t->ne[1] * t->ne[2] * t->ne[3];
}

/* Where row r of the output comes from. A head's rows are two halves that rotate against each other; interleaved they become pairs.
 */
static int64_t source_row(const ruv_source_tensor *t, int64_t n_rows, int64_t r)
{
	if (!t->interleave_heads)
		return r;
	int64_t head_rows = n_rows / t->interleave_heads;
	int64_t head = r / head_rows, i = r % head_rows;
	return head * head_rows + (i % 2) * (head_rows / 2) + i / 2;
}

int ruv_source_rows(const ruv_source_tensor *t, int64_t first, int64_t n, float *rows, ruv_error *err)
{
	const unsigned char *data = t->data;
	size_t row_bytes = ruv_dtype_row_bytes(t->dtype, t->ne[0]);
	int64_t n_rows = ruv_source_n_rows(t);

	for (int64_t i = 0; i < n; i++) {
		int64_t from = source_row(t, n_rows, first + i);
		float *row = rows + i * t->ne[0];
		if (t->dtype == RUV_F32) {
			memcpy(row, data + (size_t)from * row_bytes, row_bytes);
		} else {
			int rc = ruv_dequantize_row(row, t->dtype, data + (size_t)from * row_bytes, t->ne[0]);
			if (rc)
				return ruv_fail(err, rc, WHERE, "tensor '%s' of type %s cannot be converted", t->name,
				                ruv_dtype_name(t->dtype));
		}
	}
	return RUV_OK;
}
