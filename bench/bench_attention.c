/* bench_attention.c - attention in tiles over pages against attention that holds the whole matrix of scores.
 *
 *     bench_attention [--threads N] [--heads N] [--kv-heads N] [--dim N] [--lengths 2048,8192,32768] [--rounds N]
 *
 * Per length a whole prompt (every token sees those before it) and one token behind it (decode), by two naive versions in turn
 * with ours:
 *   loops     what the formula says, one score after the other: a row of scores, its softmax, the sum of values (prompts up to
 *             8192, one round: it takes minutes beyond);
 *   matrices  scores of all tokens as one product of our own tile kernel, softmax over the rows, a second product: as fast as a
 *             version that holds the scores can be made with the same instructions. (Prompt only: with one row it is the loops.)
 * One token goes through 24 layers' caches one after the other, as it does in a model, so that they come from memory; the time is
 * that of one. Every version's output is compared with ours, and the bytes held for scores are counted. Medians of the rounds. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/pool.h"
#include "base/rng.h"
#include "machine.h"
#include "tensor/cpu/backend.h"
#include "tensor/quant.h"

enum { PAGE = RUV_KV_PAGE_TOKENS, MAX_ROUNDS = 9, TASK_ROWS = 64, LOOPS_PROMPT_MAX = 8192, LAYERS = 24 };

struct bench {
	int n_heads, n_kv, dim, n_threads, rounds;
	ruv_backend *backend;
	ruv_pool *pool;
	const ruv_kernels *k;
	/* of the present length */
	int n;
	float *q;           /* [n][n_heads][dim] */
	float *keys;        /* [n_kv][n][dim], what the cache holds, as F32 */
	float *values;      /* [n_kv][n][dim] */
	float *keys_turned; /* [dim][n] of one key head, for the version with matrices */
	float *scores;      /* [n][n] of one head, or a row per thread */
	float *y;           /* [n][n_heads][dim] */
	float *ours;
	int head, first; /* of the task being run; the first row computed */
};

static void *must(size_t n_bytes)
{
	void *p = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		fprintf(stderr, "bench_attention: no room for %zu bytes\n", n_bytes);
		exit(1);
	}
	madvise(p, n_bytes, MADV_HUGEPAGE);
	return p;
}

/* ---- the versions ---- */

/* One task: TASK_ROWS rows of one head. */
static void loops_task(void *arg, int task, int thread)
{
	const struct bench *b = arg;
	const int kv_head = b->head / (b->n_heads / b->n_kv), dim = b->dim;
	const float scale = 1 / sqrtf((float)dim), *keys = b->keys + (size_t)kv_head * (size_t)b->n * (size_t)dim,
		    *values = b->values + (size_t)kv_head * (size_t)b->n * (size_t)dim;
	float *scores = b->scores + (size_t)thread * (size_t)b->n;

	for (int r = b->first + task * TASK_ROWS; r < b->n && r < b->first + (task + 1) * TASK_ROWS; r++) {
		const size_t at = ((size_t)r * (size_t)b->n_heads + (size_t)b->head) * (size_t)dim;
		float max = -INFINITY, sum = 0;

		for (int j = 0; j <= r; j++) {
			float dot = 0;
			for (int d = 0; d < dim; d++)
				dot += b->q[at + (size_t)d] * keys[(size_t)j * (size_t)dim + (size_t)d];
			scores[j] = dot * scale;
			max = fmaxf(max, scores[j]);
		}
		for (int j = 0; j <= r; j++)
			sum += scores[j] = expf(scores[j] - max);
		for (int d = 0; d < dim; d++)
			b->y[at + (size_t)d] = 0;
		for (int j = 0; j <= r; j++)
			for (int d = 0; d < dim; d++)
				b->y[at + (size_t)d] += scores[j] / sum * values[(size_t)j * (size_t)dim + (size_t)d];
	}
}

static void matrices_task(void *arg, int task, int thread)
{
	const struct bench *b = arg;
	const int kv_head = b->head / (b->n_heads / b->n_kv), dim = b->dim, r0 = b->first + task * TASK_ROWS;
	const int rows = b->n - r0 < TASK_ROWS ? b->n - r0 : TASK_ROWS, seen = (r0 + rows + PAGE - 1) & ~(PAGE - 1);
	const float scale = 1 / sqrtf((float)dim), *values = b->values + (size_t)kv_head * (size_t)b->n * (size_t)dim;
	float *scores = b->scores + (size_t)(r0 - b->first) * (size_t)b->n;
	const size_t at = ((size_t)r0 * (size_t)b->n_heads + (size_t)b->head) * (size_t)dim;
	const int64_t ld = (int64_t)b->n_heads * dim;

	(void)thread;
	b->k->tile_mul(scores, b->n, b->q + at, ld, b->keys_turned, b->n, rows, seen, dim, false);
	for (int r = 0; r < rows; r++) {
		/* The row's softmax in runs of 64, as the kernel does it; a whole row at once would give the same. */
		float max = -INFINITY, sum = 0, *row = scores + (size_t)r * (size_t)b->n;
		for (int from = 0; from < seen; from += PAGE) {
			const int to = r0 + r + 1 - from < PAGE ? r0 + r + 1 - from : PAGE;
			float keep;
			if (to <= 0) {
				memset(row + from, 0, PAGE * sizeof *row);
				continue;
			}
			keep = b->k->softmax_row(row + from, 0, to, scale, &max, &sum);
			for (int j = 0; keep != 1 && j < from; j++)
				row[j] *= keep;
		}
		for (int j = 0; j < seen; j++)
			row[j] /= sum;
	}
	b->k->tile_mul(b->y + at, ld, scores, b->n, values, dim, rows, dim, seen, false);
}

static void naive(struct bench *b, bool matrices)
{
	const int n_tasks = (b->n - b->first + TASK_ROWS - 1) / TASK_ROWS;

	for (b->head = 0; b->head < b->n_heads; b->head++) {
		const int group = b->n_heads / b->n_kv;
		if (matrices && b->head % group == 0) {
			const float *keys = b->keys + (size_t)(b->head / group) * (size_t)b->n * (size_t)b->dim;
			for (int j = 0; j < b->n; j++)
				for (int d = 0; d < b->dim; d++)
					b->keys_turned[(size_t)d * (size_t)b->n + (size_t)j] =
					    keys[(size_t)j * (size_t)b->dim + (size_t)d];
		}
		ruv_pool_run(b->pool, matrices ? matrices_task : loops_task, b, n_tasks);
	}
}

/* ---- measuring ---- */

static double median(double *t, int n)
{
	for (int i = 1; i < n; i++)
		for (int j = i; j > 0 && t[j] < t[j - 1]; j--) {
			const double swap = t[j];
			t[j] = t[j - 1];
			t[j - 1] = swap;
		}
	return t[n / 2];
}

static double farthest(const struct bench *b)
{
	double worst = 0;
	for (size_t i = (size_t)b->first * (size_t)(b->n_heads * b->dim); i < (size_t)b->n * (size_t)(b->n_heads * b->dim); i++)
		worst = fmax(worst, fabs((double)b->y[i] - (double)b->ours[i]));
	return worst;
}

/* Rows [first, n) by every version in turn. */
static void compare(struct bench *b, const ruv_kv_layer *kv, const int32_t *pages, const char *what)
{
	const ruv_attention attention = {b->n_heads, (float)(1 / sqrt((double)b->dim)), 0, false};
	const size_t rows = (size_t)(b->n - b->first), row = (size_t)(b->n_heads * b->dim);
	const ruv_batch_seq seq = {.n_rows = (int)rows, .position = b->first, .pages = pages};
	double t[3][MAX_ROUNDS] = {{0}}, off[2] = {0}, s[3];
	const int n_versions = rows > 1 ? 3 : 2, n_layers = rows > 1 ? 1 : LAYERS;
	const size_t layer_bytes = (size_t)(b->n / PAGE) * kv->page_bytes;
	const double flops = 4.0 * b->dim * b->n_heads * (double)rows * (b->first + (double)(rows + 1) / 2);
	const double held[3] = {(double)(b->n_threads * RUV_ATTENTION_ROWS * PAGE) * 4, (double)b->n_threads * b->n * 4,
	                        (double)rows * b->n * 4};
	ruv_error err = {0};

	for (int round = 0; round < b->rounds; round++)
		for (int version = 0; version < n_versions; version++) {
			if (version == 1 && rows > 1 && (round || rows > LOOPS_PROMPT_MAX)) {
				t[1][round] = t[1][0];
				continue;
			}
			const int64_t t0 = ruv_clock_now_ns();
			if (version)
				naive(b, version == 2);
			else
				for (int layer = 0; layer < n_layers; layer++) {
					ruv_kv_layer at = *kv;
					at.k = (uint8_t *)kv->k + (size_t)layer * layer_bytes;
					at.v = (uint8_t *)kv->v + (size_t)layer * layer_bytes;
					ruv_op_attention(b->backend, b->ours + (size_t)b->first * row,
					                 b->q + (size_t)b->first * row, &at, &attention, &seq, 1);
				}
			t[version][round] = (double)(ruv_clock_now_ns() - t0) * 1e-9 / (version ? 1 : n_layers);
			if (version)
				off[version - 1] = farthest(b);
		}
	if (ruv_backend_sync(b->backend, &err)) {
		fprintf(stderr, "bench_attention: %s\n", err.message);
		exit(1);
	}
	for (int version = 0; version < n_versions; version++)
		s[version] = median(t[version], b->rounds);
	printf("%7d %-7s %10.2f ms %7.1f Gop/s ", b->n, what, s[0] * 1e3, flops / s[0] / 1e9);
	if (s[1] > 0)
		printf("%10.2f ms %6.1f x %9.1f KB  %.0e", s[1] * 1e3, s[1] / s[0], held[0] / 1024, off[0]);
	else
		printf("%10s    %6s   %9.1f KB  %5s", "-", "-", held[0] / 1024, "-");
	if (rows > 1)
		printf(" %10.2f ms %6.1f x %11.1f KB  %.0e", s[2] * 1e3, s[2] / s[0], held[2] / 1024, off[1]);
	putchar('\n');
	fflush(stdout);
}

static void bench_length(struct bench *b, int n)
{
	const size_t elements = (size_t)n * (size_t)(b->n_kv * b->dim), all = (size_t)n * (size_t)(b->n_heads * b->dim);
	ruv_kv_layer kv = {.dtype = RUV_F16, .n_kv_heads = b->n_kv, .head_dim = b->dim};
	float *k = must(elements * 4), *v = must(elements * 4);
	const size_t scores_bytes = (size_t)n * (size_t)n * 4 + (size_t)b->n_threads * (size_t)n * 4;
	int32_t *pages = must((size_t)(n / PAGE + 1) * sizeof *pages);
	ruv_batch_seq seq = {.n_rows = n, .pages = pages};
	ruv_rng rng;
	ruv_error err = {0};

	ruv_rng_init(&rng, (uint64_t)n);
	b->n = n;
	b->q = must(all * 4), b->y = must(all * 4), b->ours = must(all * 4);
	b->keys = must(elements * 4), b->values = must(elements * 4);
	b->keys_turned = must((size_t)n * (size_t)b->dim * 4), b->scores = must(scores_bytes);
	for (size_t i = 0; i < all; i++)
		b->q[i] = (float)ruv_rng_normal(&rng);
	for (size_t i = 0; i < elements; i++) {
		k[i] = (float)ruv_rng_normal(&rng);
		v[i] = (float)ruv_rng_normal(&rng);
	}
	for (int i = 0; i < n / PAGE; i++)
		pages[i] = n / PAGE - 1 - i;
	kv.page_bytes = (size_t)(b->n_kv * PAGE) * ruv_dtype_row_bytes(kv.dtype, b->dim);
	if (ruv_backend_reserve(b->backend, n, b->n_heads * b->dim, n, &err) ||
	    ruv_backend_alloc(b->backend, &kv.k, LAYERS * (size_t)(n / PAGE) * kv.page_bytes, &err) ||
	    ruv_backend_alloc(b->backend, &kv.v, LAYERS * (size_t)(n / PAGE) * kv.page_bytes, &err)) {
		fprintf(stderr, "bench_attention: %s\n", err.message);
		exit(1);
	}
	ruv_op_kv_write(b->backend, &kv, k, v, &seq, 1);
	for (size_t layer = 1, n_bytes = (size_t)(n / PAGE) * kv.page_bytes; layer < LAYERS; layer++) {
		memcpy((uint8_t *)kv.k + layer * n_bytes, kv.k, n_bytes);
		memcpy((uint8_t *)kv.v + layer * n_bytes, kv.v, n_bytes);
	}
	for (int t = 0; t < n; t++) /* what the cache holds, for the others */
		for (int h = 0; h < b->n_kv; h++)
			for (int which = 0; which < 2; which++) {
				uint16_t half[RUV_MAX_HEAD_DIM];
				const float *from = (which ? v : k) + (size_t)(t * b->n_kv + h) * (size_t)b->dim;
				b->k->f32_to_f16(half, from, b->dim);
				b->k->f16_to_f32((which ? b->values : b->keys) +
				                     ((size_t)h * (size_t)n + (size_t)t) * (size_t)b->dim,
				                 half, b->dim);
			}
	b->first = 0;
	compare(b, &kv, pages, "prompt");
	b->first = n - 1;
	compare(b, &kv, pages, "decode");
	ruv_backend_release(b->backend, kv.k);
	ruv_backend_release(b->backend, kv.v);
	munmap(k, elements * 4), munmap(v, elements * 4), munmap(b->q, all * 4), munmap(b->y, all * 4), munmap(b->ours, all * 4);
	munmap(b->keys, elements * 4), munmap(b->values, elements * 4), munmap(b->scores, scores_bytes);
	munmap(b->keys_turned, (size_t)n * (size_t)b->dim * 4), munmap(pages, (size_t)(n / PAGE + 1) * sizeof *pages);
}

int main(int argc, char **argv)
{
	struct bench b = {.n_heads = 4, .n_kv = 2, .dim = 64, .rounds = 3};
	machine limits;
	const char *lengths = "2048,8192,32768";
	ruv_error err = {0};

	for (int i = 1; i + 1 < argc; i += 2) {
		const char *value = argv[i + 1];
		if (!strcmp(argv[i], "--threads"))
			b.n_threads = atoi(value);
		else if (!strcmp(argv[i], "--heads"))
			b.n_heads = atoi(value);
		else if (!strcmp(argv[i], "--kv-heads"))
			b.n_kv = atoi(value);
		else if (!strcmp(argv[i], "--dim"))
			b.dim = atoi(value);
		else if (!strcmp(argv[i], "--rounds"))
			b.rounds = atoi(value);
		else if (!strcmp(argv[i], "--lengths"))
			lengths = value;
		else
			argc = 0; /* usage */
	}
	if (argc % 2 == 0 || b.n_kv < 1 || b.n_heads % b.n_kv || b.dim < 16 || b.dim % 16 || b.dim > RUV_MAX_HEAD_DIM ||
	    b.rounds < 1 || b.rounds > MAX_ROUNDS) {
		fprintf(stderr,
		        "usage: bench_attention [--threads N] [--heads N] [--kv-heads N] [--dim N] [--lengths N,N] [--rounds N]\n");
		return 2;
	}
	if (ruv_backend_open_cpu(&b.backend, b.n_threads, &err) || ruv_pool_create(&b.pool, b.n_threads, &err)) {
		fprintf(stderr, "bench_attention: %s\n", err.message);
		return 1;
	}
	b.n_threads = ruv_backend_n_threads(b.backend);
	b.k = ruv_kernels_pick(ruv_cpu_get());
	if (machine_measure(&limits, b.n_threads, &err)) {
		fprintf(stderr, "bench_attention: %s\n", err.message);
		return 1;
	}
	printf("%s, at most %.0f F32 Gop/s; %d query heads over %d key heads of %d, keys and values F16\n"
	       " length                 ours                       loops          held    off by      matrices                 "
	       "held    off by\n",
	       ruv_backend_describe(b.backend), limits.all.f32_ops / 1e9, b.n_heads, b.n_kv, b.dim);
	for (const char *at = lengths; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
		const int n = atoi(at);
		if (n < PAGE || n % PAGE || n > 65536) {
			fprintf(stderr, "bench_attention: a length must be a multiple of %d up to 65536, not %d\n", PAGE, n);
			return 2;
		}
		bench_length(&b, n);
	}
	ruv_pool_free(b.pool);
	ruv_backend_free(b.backend);
	return 0;
}
