/* quantize.c - recipes, and writing a whole model in one; see quantize.h.
 *
 * Tensors are read, converted and written a batch of rows at a time, so that memory stays at a few megabytes a thread whatever the
 * model's size. Rows are independent in every type, so the result does not depend on the number of threads. */
#include "format/quantize.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/status.h"
#include "format/gguf_write.h"
#include "format/source.h"
#include "tensor/quant.h"

#define WHERE "quantize"

enum {
	TASK_ELEMENTS = 1 << 16, /* values that one task converts: its F32 rows stay in the second-level cache */
	TASKS_PER_THREAD = 8     /* in a batch */
};

/* ---- recipes ---- */

static const struct {
	const char *name;
	uint32_t file_type;
	ruv_dtype dtype;
} recipes[] = {
#define X(c, text, file_type, dtype) {text, file_type, dtype},
    RUV_RECIPE_LIST(X)
#undef X
};

const char *ruv_recipe_name(ruv_recipe recipe)
{
	return recipe < RUV_RECIPE_N ? recipes[recipe].name : "?";
}

int ruv_recipe_parse(const char *name)
{
	for (int i = 0; i < RUV_RECIPE_N; i++)
		if (!strcasecmp(recipes[i].name, name))
			return i;
	return -1;
}

const char *ruv_recipe_names(void)
{
	return "F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0, MIXED";
}

const char *ruv_recipe_of_file_type(uint32_t file_type)
{
	for (int i = 0; i < RUV_RECIPE_N; i++)
		if (recipes[i].file_type == file_type)
			return recipes[i].name;
	return NULL;
}

/* llama.cpp's rule for the layers that deserve more bits: the first and last eighth, and every third between. */
static bool more(int i, int n)
{
	return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

/* "ffn_down" of "blk.12.ffn_down.weight", with the layer; false for tensors outside of layers. */
static bool layer_tensor(const char *name, int *layer, const char **rest)
{
	char *end;
	if (strncmp(name, "blk.", 4))
		return false;
	long i = strtol(name + 4, &end, 10);
	if (end == name + 4 || *end != '.' || i < 0 || i > 1 << 20)
		return false;
	*layer = (int)i;
	*rest = end + 1;
	return true;
}

static bool stays_f32(const char *name, int n_dims, const int64_t *ne)
{
	size_t n = strlen(name);
	int dims = n_dims;
	while (dims > 1 && ne[dims - 1] == 1)
		dims--;
	return dims < 2 || n < 6 || strcmp(name + n - 6, "weight") || strstr(name, "_norm.weight") ||
	       strstr(name, "shortconv.conv.");
}

/* What a row's length allows. */
static ruv_dtype fall_back(ruv_dtype dtype, int64_t n_in)
{
	if (n_in % ruv_dtype_block_elements(dtype) == 0)
		return dtype;
	switch (dtype) {
	case RUV_Q4_K:
		dtype = RUV_Q5_0;
		break;
	case RUV_Q5_K:
		dtype = RUV_Q5_1;
		break;
	case RUV_Q6_K:
		dtype = RUV_Q8_0;
		break;
	default:
		return RUV_F16;
	}
	return n_in % ruv_dtype_block_elements(dtype) ? RUV_F16 : dtype;
}

ruv_dtype ruv_recipe_dtype(ruv_recipe recipe, const ruv_recipe_model *model, const char *name, int n_dims, const int64_t *ne,
                           int i_attention, bool has_importance, bool *is_fallback)
{
	ruv_dtype dtype = recipes[recipe].dtype, allowed;
	bool k_mix = recipe == RUV_RECIPE_Q4_K_M || recipe == RUV_RECIPE_Q5_K_M || recipe == RUV_RECIPE_MIXED;
	const char *rest = "";
	int layer = 0;

	if (is_fallback)
		*is_fallback = false;
	if (stays_f32(name, n_dims, ne))
		return RUV_F32;
	if (recipe == RUV_RECIPE_F32 || recipe == RUV_RECIPE_F16 || recipe == RUV_RECIPE_BF16)
		return dtype;

	bool in_layer = layer_tensor(name, &layer, &rest);
	if (!in_layer) {
		bool head = !strcmp(name, "output.weight") || (model->tied && !strcmp(name, "token_embd.weight")) ||
		            !strcmp(name, "embedding_proj.weight");
		if (head && recipe != RUV_RECIPE_Q8_0)
			dtype = RUV_Q6_K;
		if (head && model->head && strcmp(name, "embedding_proj.weight"))
			dtype = recipes[*model->head].dtype;
	} else if (recipe == RUV_RECIPE_MIXED && strncmp(rest, "ffn_", 4)) {
		dtype = RUV_F16;
	} else if (k_mix && !strcmp(rest, "attn_v.weight") && more(i_attention, model->n_attention)) {
		dtype = RUV_Q6_K;
	} else if (k_mix && !strcmp(rest, "ffn_down.weight") && more(layer, model->n_layers)) {
		dtype = RUV_Q6_K;
	} else if (recipe == RUV_RECIPE_Q4_0 && has_importance && !strcmp(rest, "ffn_down.weight") && layer < model->n_layers / 8) {
		dtype = RUV_Q4_1;
	}
	allowed = fall_back(dtype, ne[0]);
	if (is_fallback)
		*is_fallback = allowed != dtype;
	return allowed;
}

/* ---- converting one tensor ---- */

typedef struct job {
	const ruv_source_tensor *from;
	ruv_dtype to;
	size_t row_bytes;
	const float *importance;
	int64_t first, n_rows; /* of this batch */
	int64_t task_rows;
	unsigned char *out; /* [n_rows] rows of row_bytes */
	float *scratch;     /* [n_threads][task_rows, ne0] */
	atomic_int rc;
	ruv_error error; /* of the task that set rc */
} job;

static int convert_rows(job *j, int64_t first, int64_t n, int thread, ruv_error *err)
{
	const ruv_source_tensor *from = j->from;
	float *rows = j->scratch + (size_t)thread * (size_t)(j->task_rows * from->ne[0]);
	int rc = ruv_source_rows(from, j->first + first, n, rows, err);

	if (rc)
		return rc;
	if (j->to == RUV_F16 && from->dtype != RUV_F16) {
		for (int64_t i = 0; i < n * from->ne[0]; i++)
			if (fabsf(rows[i]) > 65504)
				return ruv_fail(err, RUV_EUNSUPPORTED, WHERE,
				                "tensor '%s' holds %g, which F16 cannot: use BF16 or a quantized type", from->name,
				                (double)rows[i]);
	}
	rc = ruv_quantize_rows(j->out + (size_t)first * j->row_bytes, j->to, rows, n, from->ne[0], j->importance);
	if (rc == RUV_EFORMAT)
		return ruv_fail(err, rc, WHERE, "tensor '%s' holds a value that is not a finite number", from->name);
	if (rc)
		return ruv_fail(err, rc, WHERE, "tensor '%s' cannot be stored as %s", from->name, ruv_dtype_name(j->to));
	return RUV_OK;
}

static void run_task(void *arg, int task, int thread)
{
	job *j = arg;
	int64_t first = task * j->task_rows, n = j->n_rows - first < j->task_rows ? j->n_rows - first : j->task_rows;
	ruv_error error = {0};
	int expected = 0, rc;

	if (atomic_load(&j->rc))
		return;
	rc = convert_rows(j, first, n, thread, &error);
	if (rc && atomic_compare_exchange_strong(&j->rc, &expected, rc))
		j->error = error;
}

typedef struct model_writer {
	const ruv_write_options *options;
	ruv_gguf_writer *writer;
	ruv_source source;
	ruv_dtype *types;          /* [n_tensors] */
	const float **importances; /* [n_tensors] */
	uint64_t done, total;
	ruv_write_report report;
} model_writer;

static int report_progress(model_writer *m, const ruv_source_tensor *t, ruv_dtype to, ruv_error *err)
{
	if (m->options->progress && m->options->progress(m->options->user, m->done, m->total, t->name, ruv_dtype_name(to)))
		return ruv_fail(err, RUV_ECANCELLED, WHERE, "stopped while writing tensor '%s'; nothing was left behind", t->name);
	return RUV_OK;
}

static int write_tensor(model_writer *m, size_t index, ruv_error *err)
{
	const ruv_source_tensor *from = &m->source.tensors[index];
	ruv_pool *pool = m->options->pool;
	int n_threads = pool ? ruv_pool_n_threads(pool) : 1;
	int64_t n_rows = ruv_source_n_rows(from), n_in = from->ne[0];
	size_t in_row = ruv_dtype_row_bytes(from->dtype, n_in);
	job j = {.from = from, .to = m->types[index], .importance = m->importances[index]};
	int rc = RUV_OK;

	atomic_init(&j.rc, 0);
	j.row_bytes = ruv_dtype_row_bytes(j.to, n_in);
	j.task_rows = TASK_ELEMENTS / n_in > 0 ? TASK_ELEMENTS / n_in : 1;
	int64_t batch = j.task_rows * n_threads * TASKS_PER_THREAD;
	bool copy = from->dtype == j.to && !from->interleave_heads;

	if (!copy) {
		j.out = malloc((size_t)(batch < n_rows ? batch : n_rows) * j.row_bytes);
		j.scratch = malloc((size_t)n_threads * (size_t)(j.task_rows * n_in) * sizeof *j.scratch);
		if (!j.out || !j.scratch) {
			rc = ruv_fail_memory(err, WHERE, (size_t)batch * j.row_bytes);
			goto done;
		}
	}
	for (j.first = 0; j.first < n_rows; j.first += j.n_rows) {
		const void *bytes = j.out;
		j.n_rows = n_rows - j.first < batch ? n_rows - j.first : batch;
		if (copy) {
			bytes = (const unsigned char *)from->data + (size_t)j.first * j.row_bytes;
		} else {
			int n_tasks = (int)((j.n_rows + j.task_rows - 1) / j.task_rows);
			if (pool)
				ruv_pool_run(pool, run_task, &j, n_tasks);
			else
				for (int t = 0; t < n_tasks; t++)
					run_task(&j, t, 0);
			rc = atomic_load(&j.rc);
			if (rc) {
				if (err)
					*err = j.error;
				goto done;
			}
		}
		rc = ruv_gguf_writer_data(m->writer, bytes, (size_t)j.n_rows * j.row_bytes, err);
		if (rc)
			goto done;
		m->done += (uint64_t)j.n_rows * in_row;
		m->report.bytes_out += (uint64_t)j.n_rows * j.row_bytes;
		rc = report_progress(m, from, j.to, err);
		if (rc)
			goto done;
	}
done:
	free(j.out);
	free(j.scratch);
	return rc;
}

/* ---- the whole model ---- */

static bool is_float(ruv_dtype dtype)
{
	return dtype == RUV_F32 || dtype == RUV_F16 || dtype == RUV_BF16;
}

/* Chooses every tensor's type and declares it. */
static int plan(model_writer *m, ruv_error *err)
{
	const ruv_write_options *o = m->options;
	ruv_recipe_model model = {.n_layers = m->source.n_layers, .tied = true, .head = o->head};
	int i_attention = 0, rc;
	bool quantized = false;

	for (size_t i = 0; i < m->source.n_tensors; i++) {
		const ruv_source_tensor *t = &m->source.tensors[i];
		const char *rest;
		int layer;
		if (!strcmp(t->name, "output.weight"))
			model.tied = false;
		if (layer_tensor(t->name, &layer, &rest) && !strcmp(rest, "attn_v.weight"))
			model.n_attention++;
		if (!is_float(t->dtype) && !o->allow_requantize && ruv_dtype_quantizable(t->dtype))
			return ruv_fail(err, RUV_EINVAL, WHERE,
			                "tensor '%s' is quantized already (%s): start from the F16 or BF16 model, or allow "
			                "requantizing, which loses quality",
			                t->name, ruv_dtype_name(t->dtype));
	}
	for (size_t i = 0; i < m->source.n_tensors; i++) {
		const ruv_source_tensor *t = &m->source.tensors[i];
		const char *rest;
		int layer;
		bool fallback = false;

		if (o->imatrix) {
			rc = ruv_imatrix_find(o->imatrix, t->name, t->ne[0], &m->importances[i], err);
			if (rc)
				return rc;
		}
		if (is_float(t->dtype) || ruv_dtype_quantizable(t->dtype))
			m->types[i] = ruv_recipe_dtype(o->recipe, &model, t->name, t->n_dims, t->ne, i_attention,
			                               o->imatrix != NULL, &fallback);
		else
			m->types[i] = t->dtype; /* integers stay what they are */
		if (layer_tensor(t->name, &layer, &rest) && !strcmp(rest, "attn_v.weight"))
			i_attention++;
		if (is_float(m->types[i]))
			m->importances[i] = NULL;
		else
			quantized = true;
		m->report.n_fallback += fallback;
		m->report.n_importance += m->importances[i] != NULL;
		m->total += (uint64_t)ruv_source_n_rows(t) * ruv_dtype_row_bytes(t->dtype, t->ne[0]);
		ruv_gguf_add_tensor(m->writer, t->name, m->types[i], t->n_dims, t->ne);
	}
	m->report.n_tensors = m->source.n_tensors;
	m->report.bytes_in = m->total;

	if (o->imatrix && !m->report.n_importance && quantized)
		return ruv_fail(err, RUV_EMISMATCH, WHERE, "the importance matrix names no tensor of this model");
	ruv_gguf_set_u32(m->writer, "general.file_type", recipes[o->recipe].file_type);
	ruv_gguf_set_str(m->writer, "ruvllm.recipe", recipes[o->recipe].name);
	if (quantized)
		ruv_gguf_set_u32(m->writer, "general.quantization_version", 2);
	if (o->imatrix)
		ruv_gguf_set_i32(m->writer, "quantize.imatrix.entries_count", (int32_t)ruv_imatrix_n_entries(o->imatrix));
	return RUV_OK;
}

int ruv_model_write(const char *to, const char *from, const ruv_write_options *options, ruv_write_report *report, ruv_error *err)
{
	model_writer m = {.options = options};
	struct stat a, b;
	int rc;

	ruv_source_init(&m.source);
	if ((unsigned)options->recipe >= RUV_RECIPE_N)
		return ruv_fail(err, RUV_EINVAL, WHERE, "unknown recipe %d", (int)options->recipe);
	if (stat(from, &a))
		return ruv_fail(err, RUV_ENOTFOUND, WHERE, "there is no '%s'", from);
	if (!stat(to, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
		return ruv_fail(err, RUV_EINVAL, WHERE, "'%s' would be read and replaced at the same time: name another output",
		                to);
	rc = ruv_gguf_writer_create(&m.writer, err);
	if (rc)
		return rc;
	if (S_ISDIR(a.st_mode)) {
		rc = ruv_source_open_hf(&m.source, from, options->name, options->no_tokenizer, m.writer, err);
	} else {
		rc = ruv_source_open_gguf(&m.source, from, m.writer, err);
		if (!rc && options->name)
			ruv_gguf_set_str(m.writer, "general.name", options->name);
	}
	if (rc)
		goto done;
	m.types = calloc(m.source.n_tensors + 1, sizeof *m.types);
	m.importances = calloc(m.source.n_tensors + 1, sizeof *m.importances);
	if (!m.types || !m.importances) {
		rc = ruv_fail_memory(err, WHERE, m.source.n_tensors * sizeof *m.importances);
		goto done;
	}
	rc = plan(&m, err);
	if (!rc)
		rc = ruv_gguf_writer_begin(m.writer, to, err);
	for (size_t i = 0; i < m.source.n_tensors && !rc; i++)
		rc = write_tensor(&m, i, err);
	if (!rc)
		rc = ruv_gguf_writer_finish(m.writer, err);
	if (!rc && report)
		*report = m.report;
done:
	free(m.types);
	free((void *)m.importances);
	ruv_source_release(&m.source);
	ruv_gguf_writer_free(m.writer);
	return rc;
}
