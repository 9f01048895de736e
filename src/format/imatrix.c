/* imatrix.c - importance matrices in llama.cpp's GGUF layout; see quantize.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/status.h"
#include "format/gguf_write.h"
#include "format/quantize.h"

#define WHERE "imatrix"

typedef struct entry {
	char name[64];
	int64_t n_in;
	float *means;
} entry;

struct ruv_imatrix {
	ruv_arena arena;
	entry *entries; /* sorted by name */
	size_t n;
};

static int compare(const void *a, const void *b)
{
	return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static int read_entry(ruv_imatrix *m, const ruv_gguf *gguf, const ruv_gguf_tensor *sum, ruv_error *err)
{
	static const char tail[] = ".in_sum2";
	size_t len = strlen(sum->name) - strlen(tail);
	char counts_name[64];
	const ruv_gguf_tensor *counts;
	float count;
	int rc;

	if (len + strlen(".counts") >= sizeof counts_name)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "the name '%s' is too long", sum->name);
	snprintf(counts_name, sizeof counts_name, "%.*s.counts", (int)len, sum->name);
	rc = ruv_gguf_get_tensor(gguf, counts_name, 1, (const int64_t[]){1}, &counts, err);
	if (rc)
		return rc;
	if (sum->dtype != RUV_F32 || counts->dtype != RUV_F32 || sum->ne[1] != 1 || sum->ne[2] != 1 || sum->ne[3] != 1)
		return ruv_fail(err, RUV_EFORMAT, WHERE, "'%s' must be one row of F32, and '%s' F32", sum->name, counts_name);
	memcpy(&count, counts->data, sizeof count);
	if (!(count > 0) || !isfinite(count))
		return ruv_fail(err, RUV_EFORMAT, WHERE, "'%s' is %g: nothing was measured", counts_name, (double)count);

	entry *e = &m->entries[m->n];
	memcpy(e->name, sum->name, len);
	e->name[len] = '\0';
	e->n_in = sum->ne[0];
	e->means = ruv_arena_calloc(&m->arena, (size_t)e->n_in, sizeof *e->means);
	if (!e->means)
		return ruv_fail_memory(err, WHERE, (size_t)e->n_in * sizeof *e->means);
	memcpy(e->means, sum->data, sum->n_bytes);
	for (int64_t i = 0; i < e->n_in; i++) {
		e->means[i] /= count;
		if (!(e->means[i] >= 0) || !isfinite(e->means[i]))
			return ruv_fail(err, RUV_EFORMAT, WHERE, "element %lld of '%s' is no mean square", (long long)i, sum->name);
	}
	m->n++;
	return RUV_OK;
}

int ruv_imatrix_open(ruv_imatrix **out, const char *path, ruv_error *err)
{
	ruv_imatrix *m = calloc(1, sizeof *m);
	ruv_gguf *gguf = NULL;
	ruv_gguf_str type;
	int rc;

	if (!m)
		return ruv_fail_memory(err, WHERE, sizeof *m);
	ruv_arena_init(&m->arena);
	rc = ruv_gguf_open(&gguf, path, 0, err);
	if (rc)
		goto done;
	rc = ruv_gguf_get_str(gguf, "general.type", &type, err);
	if (rc || !ruv_gguf_str_is(type, "imatrix")) {
		rc = ruv_fail(err, RUV_EFORMAT, WHERE, "%s is no importance matrix: its general.type is not \"imatrix\"", path);
		goto done;
	}
	m->entries = calloc(ruv_gguf_n_tensors(gguf) + 1, sizeof *m->entries);
	if (!m->entries) {
		rc = ruv_fail_memory(err, WHERE, ruv_gguf_n_tensors(gguf) * sizeof *m->entries);
		goto done;
	}
	for (size_t i = 0; i < ruv_gguf_n_tensors(gguf); i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(gguf, i);
		size_t n = strlen(t->name), tail = strlen(".in_sum2");
		if (n <= tail || strcmp(t->name + n - tail, ".in_sum2"))
			continue;
		rc = read_entry(m, gguf, t, err);
		if (rc) {
			ruv_error_prefix(err, rc, "%s: ", path);
			goto done;
		}
	}
	if (!m->n) {
		rc = ruv_fail(err, RUV_EFORMAT, WHERE, "%s holds no matrix", path);
		goto done;
	}
	qsort(m->entries, m->n, sizeof *m->entries, compare);
	*out = m;
	m = NULL;
done:
	ruv_gguf_free(gguf);
	ruv_imatrix_free(m);
	return rc;
}

void ruv_imatrix_free(ruv_imatrix *m)
{
	if (!m)
		return;
	ruv_arena_release(&m->arena);
	free(m->entries);
	free(m);
}

size_t ruv_imatrix_n_entries(const ruv_imatrix *m)
{
	return m->n;
}

int ruv_imatrix_find(const ruv_imatrix *m, const char *tensor_name, int64_t n_in, const float **means, ruv_error *err)
{
	entry key = {.n_in = 0};
	*means = NULL;
	snprintf(key.name, sizeof key.name, "%s", tensor_name);
	const entry *e = bsearch(&key, m->entries, m->n, sizeof key, compare);
	if (!e)
		return RUV_OK;
	if (e->n_in != n_in)
		return ruv_fail(err, RUV_EMISMATCH, WHERE,
		                "the importance matrix has %lld columns for tensor '%s', which has %lld: it was made "
		                "with another model",
		                (long long)e->n_in, tensor_name, (long long)n_in);
	*means = e->means;
	return RUV_OK;
}

int ruv_imatrix_write(const char *path, const ruv_imatrix_entry *entries, size_t n_entries, const char *dataset,
                      uint32_t chunk_count, uint32_t chunk_size, ruv_error *err)
{
	ruv_gguf_writer *w = NULL;
	ruv_gguf_str data = {dataset, strlen(dataset)};
	char name[96];
	int rc = ruv_gguf_writer_create(&w, err);

	if (rc)
		return rc;
	ruv_gguf_set_str(w, "general.type", "imatrix");
	ruv_gguf_set_str_array(w, "imatrix.datasets", &data, 1);
	ruv_gguf_set_u32(w, "imatrix.chunk_count", chunk_count);
	ruv_gguf_set_u32(w, "imatrix.chunk_size", chunk_size);
	for (size_t i = 0; i < n_entries; i++) {
		const int64_t ne[2] = {entries[i].n_in, 1}, one[2] = {1, 1};
		snprintf(name, sizeof name, "%s.in_sum2", entries[i].name);
		ruv_gguf_add_tensor(w, name, RUV_F32, 2, ne);
		snprintf(name, sizeof name, "%s.counts", entries[i].name);
		ruv_gguf_add_tensor(w, name, RUV_F32, 2, one);
	}
	rc = ruv_gguf_writer_begin(w, path, err);
	for (size_t i = 0; i < n_entries && !rc; i++) {
		rc = ruv_gguf_writer_data(w, entries[i].sum2, (size_t)entries[i].n_in * sizeof(float), err);
		if (!rc)
			rc = ruv_gguf_writer_data(w, &entries[i].count, sizeof(float), err);
	}
	if (!rc)
		rc = ruv_gguf_writer_finish(w, err);
	ruv_gguf_writer_free(w);
	return rc;
}
