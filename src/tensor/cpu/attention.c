/* attention.c - keys and values in pages, and softmax(q k^T) v over them without ever holding a row of scores.
 *
 * FlashAttention-2 (Dao 2023) on a CPU: a task takes a tile of query rows (tokens x the query heads that share one key head, at
 * most 64 rows) and walks the pages that it sees. A page's keys and values are brought to F32 once for the whole tile, the scores
 * of the page are one small product, the running maximum and sum of each row are updated, and the output so far is rescaled when
 * the maximum moved. When there are too few tiles to keep the threads busy (decode over a long context) the pages are split among
 * tasks too (flash decoding), whose partial rows a second pass merges.
 *
 * Partial rows: for piece s of query row r (counted over the batch): output [head_dim], then maximum and sum. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "tensor/cpu/backend.h"
#include "tensor/quant.h"

enum {
	PAGE = RUV_KV_PAGE_TOKENS,
	ROWS = RUV_ATTENTION_ROWS,
	DIM = RUV_MAX_HEAD_DIM,
	FEW_ROWS = 8 /* up to here a page is read as it lies; beyond, transposing its keys pays */
};

_Static_assert((int)RUV_KV_PAGE_TOKENS == (int)RUV_KV_TILE, "a tile is a page");

/* One thread's scratch. */
struct tile {
	float q[ROWS * DIM];    /* [rows][head_dim] */
	float out[ROWS * DIM];  /* [rows][padded head_dim] */
	float keys[DIM * PAGE]; /* [head_dim][64] */
	float values[PAGE * DIM];
	float scores[ROWS * PAGE];
	float max[ROWS], sum[ROWS];
};

struct job {
	ruv_backend *backend;
	float *y;
	const float *q;
	const ruv_kv_layer *kv;
	const ruv_attention *attention;
	const ruv_batch_seq *seqs;
	int n_seqs, group, tile_tokens, n_splits;
	int64_t partial_rows; /* query rows (token x head) of the batch; 0: not split */
};

size_t ruv_attention_scratch_bytes(void)
{
	return sizeof(struct tile);
}

struct write_job {
	ruv_backend *backend;
	const ruv_kv_layer *kv;
	const float *k, *v;
	const ruv_batch_seq *seqs;
	atomic_int rc;
};

static int store_row(const ruv_kernels *kernels, void *to, ruv_dtype dtype, const float *from, int64_t n)
{
	if (dtype == RUV_F16)
		kernels->f32_to_f16(to, from, n);
	else if (dtype == RUV_F32)
		memcpy(to, from, (size_t)n * sizeof *from);
	else
		return ruv_quantize_rows(to, dtype, from, 1, n, NULL);
	return RUV_OK;
}

/* One key head of one sequence: its rows in token order. */
static void write_task(void *arg, int task, int thread)
{
	struct write_job *job = arg;
	const ruv_kv_layer *kv = job->kv;
	const ruv_batch_seq *seq = &job->seqs[task / kv->n_kv_heads];
	int head = task % kv->n_kv_heads;
	size_t row_bytes = ruv_dtype_row_bytes(kv->dtype, kv->head_dim);

	(void)thread;
	for (int t = 0; t < seq->n_rows; t++) {
		int position = seq->position + t;
		size_t at = (size_t)seq->pages[position / PAGE] * kv->page_bytes +
		            ((size_t)head * PAGE + (size_t)(position % PAGE)) * row_bytes;
		int64_t from = ((int64_t)(seq->first_row + t) * kv->n_kv_heads + head) * kv->head_dim;
		int rc = store_row(job->backend->k, (uint8_t *)kv->k + at, kv->dtype, job->k + from, kv->head_dim);
		if (!rc)
			rc = store_row(job->backend->k, (uint8_t *)kv->v + at, kv->dtype, job->v + from, kv->head_dim);
		if (rc)
			atomic_store(&job->rc, rc);
	}
}

static bool layer_fits(ruv_backend *b, const ruv_kv_layer *kv)
{
	bool type = kv->dtype == RUV_F32 || kv->dtype == RUV_F16 || (kv->dtype == RUV_Q8_0 && kv->head_dim % 32 == 0);
	if (type && kv->head_dim > 0 && kv->head_dim <= DIM && kv->n_kv_heads > 0 &&
	    kv->page_bytes >= (size_t)kv->n_kv_heads * PAGE * ruv_dtype_row_bytes(kv->dtype, kv->head_dim))
		return true;
	ruv_backend_fail(b, RUV_EUNSUPPORTED, "attention",
	                 "a KV layer of %s with %d heads of %d elements (at most %d) in pages of %zu bytes",
	                 ruv_dtype_name((int)kv->dtype), kv->n_kv_heads, kv->head_dim, DIM, kv->page_bytes);
	return false;
}

void ruv_op_kv_write(ruv_backend *b, const ruv_kv_layer *kv, const float *k, const float *v, const ruv_batch_seq *seqs, int n_seqs)
{
	struct write_job job = {b, kv, k, v, seqs, 0};
	size_t rows = 0;

	if (!layer_fits(b, kv))
		return;
	for (int i = 0; i < n_seqs; i++)
		rows += (size_t)seqs[i].n_rows;
	ruv_backend_run(b, write_task, &job, n_seqs * kv->n_kv_heads, rows * (size_t)(kv->n_kv_heads * kv->head_dim) * 8);
	if (atomic_load(&job.rc))
		ruv_backend_fail(b, atomic_load(&job.rc), "kv_write", "a key or value is not finite and cannot be stored as %s",
		                 ruv_dtype_name((int)kv->dtype));
}

static int padded(int head_dim)
{
	return (head_dim + 15) & ~15;
}

/* Adds page `page` of the sequence to every row of the tile; next_page comes after it (-1: none). first: position of the tile's
 * first token, n_tokens of it. */
static void add_page(const struct job *job, struct tile *tile, const ruv_batch_seq *seq, int kv_head, int page, int next_page,
                     int first, int n_tokens)
{
	const ruv_kernels *k = job->backend->k;
	const ruv_kv_layer *kv = job->kv;
	const ruv_attention *attention = job->attention;
	int dim = kv->head_dim, ld = padded(dim), rows = n_tokens * job->group, begin = page * PAGE;
	int total = seq->position + seq->n_rows, stored = total - begin < PAGE ? total - begin : PAGE;
	size_t head_bytes = PAGE * ruv_dtype_row_bytes(kv->dtype, dim);
	size_t at = (size_t)seq->pages[page] * kv->page_bytes + (size_t)kv_head * head_bytes;

	if (rows <= FEW_ROWS) {
		/* Waiting for memory: the page's values come while its keys are used, the next page's keys while its values are. */
		k->keys_dot(tile->scores, tile->q, (const uint8_t *)kv->k + at, (const uint8_t *)kv->v + at, kv->dtype, rows, dim,
		            stored);
	} else {
		k->load_keys(tile->keys, (const uint8_t *)kv->k + at, kv->dtype, dim, stored);
		k->tile_mul(tile->scores, PAGE, tile->q, dim, tile->keys, PAGE, rows, PAGE, dim, false);
	}
	for (int r = 0; r < rows; r++) {
		int position = first + r / job->group, from = 0, to = stored;
		float *scores = tile->scores + r * PAGE, keep;
		if (!attention->bidirectional) {
			to = position + 1 - begin < to ? position + 1 - begin : to;
			if (attention->window)
				from = position - attention->window + 1 - begin;
			from = from < 0 ? 0 : from;
		}
		if (to <= from) { /* this row sees nothing of the page */
			memset(scores, 0, PAGE * sizeof *scores);
			continue;
		}
		keep = k->softmax_row(scores, from, to, attention->scale, &tile->max[r], &tile->sum[r]);
		if (keep != 1)
			for (int i = 0; i < ld; i++)
				tile->out[r * ld + i] *= keep;
	}
	if (rows <= FEW_ROWS) {
		const uint8_t *next = NULL;
		if (next_page >= 0)
			next =
			    (const uint8_t *)kv->k + (size_t)seq->pages[next_page] * kv->page_bytes + (size_t)kv_head * head_bytes;
		k->values_add(tile->out, ld, tile->scores, (const uint8_t *)kv->v + at, next, kv->dtype, rows, dim, stored);
		return;
	}
	k->load_values(tile->values, ld, (const uint8_t *)kv->v + at, kv->dtype, dim, stored);
	k->tile_mul(tile->out, ld, tile->scores, PAGE, tile->values, ld, rows, ld, PAGE, true);
}

static float *partial_row(const struct job *job, int64_t row, int split)
{
	return job->backend->partial + (row * job->n_splits + split) * (job->kv->head_dim + 2);
}

static void attention_task(void *arg, int task, int thread)
{
	struct job *job = arg;
	const ruv_kv_layer *kv = job->kv;
	const ruv_attention *attention = job->attention;
	const ruv_batch_seq *seq = job->seqs;
	struct tile *tile = ruv_backend_scratch(job->backend, thread);
	int dim = kv->head_dim, ld = padded(dim), n_tiles, n_heads = attention->n_heads;

	for (;; seq++) {
		n_tiles = (seq->n_rows + job->tile_tokens - 1) / job->tile_tokens;
		if (task < n_tiles * kv->n_kv_heads * job->n_splits)
			break;
		task -= n_tiles * kv->n_kv_heads * job->n_splits;
	}
	int split = task % job->n_splits, rest = task / job->n_splits;
	/* The last tile sees the most pages: it goes first. */
	int t0 = (n_tiles - 1 - rest / kv->n_kv_heads) * job->tile_tokens, kv_head = rest % kv->n_kv_heads;
	int n_tokens = seq->n_rows - t0 < job->tile_tokens ? seq->n_rows - t0 : job->tile_tokens, rows = n_tokens * job->group;
	int first = seq->position + t0;
	int end = attention->bidirectional ? seq->position + seq->n_rows : first + n_tokens; /* tokens [0, end) are seen */
	int begin_page = 0, end_page = (end + PAGE - 1) / PAGE;

	if (!attention->bidirectional && attention->window && first - attention->window + 1 > 0)
		begin_page = (first - attention->window + 1) / PAGE;
	int n_pages = end_page - begin_page;
	int from = begin_page + (int)((int64_t)n_pages * split / job->n_splits);
	int to = begin_page + (int)((int64_t)n_pages * (split + 1) / job->n_splits);

	for (int r = 0; r < rows; r++) {
		int64_t row = (int64_t)(seq->first_row + t0 + r / job->group) * n_heads + kv_head * job->group + r % job->group;
		memcpy(tile->q + r * dim, job->q + row * dim, (size_t)dim * sizeof(float));
		tile->max[r] = -INFINITY;
		tile->sum[r] = 0;
	}
	memset(tile->out, 0, (size_t)(rows * ld) * sizeof(float));
	for (int page = from; page < to; page++)
		add_page(job, tile, seq, kv_head, page, page + 1 < to ? page + 1 : -1, first, n_tokens);

	for (int r = 0; r < rows; r++) {
		int64_t row = (int64_t)(seq->first_row + t0 + r / job->group) * n_heads + kv_head * job->group + r % job->group;
		if (job->partial_rows) {
			float *out = partial_row(job, row, split);
			memcpy(out, tile->out + r * ld, (size_t)dim * sizeof(float));
			out[dim] = tile->max[r];
			out[dim + 1] = tile->sum[r];
		} else {
			float inverse = 1 / tile->sum[r];
			for (int i = 0; i < dim; i++)
				job->y[row * dim + i] = tile->out[r * ld + i] * inverse;
		}
	}
}

/* One query row: its pieces, each relative to its own maximum, become one. */
static void merge_task(void *arg, int task, int thread)
{
	struct job *job = arg;
	int dim = job->kv->head_dim;
	float *y = job->y + (int64_t)task * dim, max = -INFINITY, sum = 0;

	(void)thread;
	for (int s = 0; s < job->n_splits; s++)
		max = fmaxf(max, partial_row(job, task, s)[dim]);
	memset(y, 0, (size_t)dim * sizeof *y);
	for (int s = 0; s < job->n_splits; s++) {
		const float *piece = partial_row(job, task, s);
		float keep = isinf(piece[dim]) ? 0 : expf(piece[dim] - max);
		sum += keep * piece[dim + 1];
		for (int i = 0; i < dim; i++)
			y[i] += keep * piece[i];
	}
	for (int i = 0; i < dim; i++)
		y[i] /= sum;
}

void ruv_op_attention(ruv_backend *b, float *y, const float *q, const ruv_kv_layer *kv, const ruv_attention *attention,
                      const ruv_batch_seq *seqs, int n_seqs)
{
	struct job job = {b, y, q, kv, attention, seqs, n_seqs, attention->n_heads / (kv->n_kv_heads ? kv->n_kv_heads : 1),
	                  1, 1, 0};
	int64_t n_rows = 0, n_tasks = 0, pages = 0;
	size_t work = 0;

	if (!layer_fits(b, kv))
		return;
	if (job.group < 1 || job.group > ROWS || job.group * kv->n_kv_heads != attention->n_heads) {
		ruv_backend_fail(b, RUV_EUNSUPPORTED, "attention",
		                 "%d query heads over %d key heads (a multiple, at most %d times, is needed)", attention->n_heads,
		                 kv->n_kv_heads, ROWS);
		return;
	}
	job.tile_tokens = ROWS / job.group;
	for (int i = 0; i < n_seqs; i++) {
		int64_t seen = seqs[i].position + seqs[i].n_rows;
		if (attention->window && !attention->bidirectional && seen > attention->window + seqs[i].n_rows)
			seen = attention->window + seqs[i].n_rows;
		n_rows += seqs[i].n_rows;
		n_tasks += (seqs[i].n_rows + job.tile_tokens - 1) / job.tile_tokens * kv->n_kv_heads;
		pages += (seen + PAGE - 1) / PAGE;
		work += (size_t)seen * (size_t)(kv->n_kv_heads * kv->head_dim) * 4;
	}
	/* Too few tasks for the threads, and enough pages for each: split them. */
	if (b->n_threads > 1 && n_tasks > 0 && n_tasks < 4 * b->n_threads) {
		int64_t splits = (4 * b->n_threads + n_tasks - 1) / n_tasks, rows = n_rows * attention->n_heads;
		if (splits > pages / n_seqs / 2)
			splits = pages / n_seqs / 2;
		if (splits > (int64_t)b->n_partial / (rows * (kv->head_dim + 2)))
			splits = (int64_t)b->n_partial / (rows * (kv->head_dim + 2));
		if (splits > 1) {
			job.n_splits = (int)splits;
			job.partial_rows = rows;
		}
	}
	ruv_backend_run(b, attention_task, &job, (int)(n_tasks * job.n_splits), work);
	if (job.partial_rows)
		ruv_backend_run(b, merge_task, &job, (int)job.partial_rows,
		                (size_t)job.partial_rows * (size_t)(kv->head_dim * job.n_splits) * 4);
}
