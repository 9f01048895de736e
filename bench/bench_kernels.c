/* bench_kernels.c - every product kernel, type by type, beside what the machine can do.
 *
 *     bench_kernels [--threads N] [--isa all|NAME] [--k N] [--tokens N]
 *
 * gemv (decode): a matrix larger than the caches is read once; GB/s of its bytes beside the measured read bandwidth.
 * gemm (prefill): the same matrix times many tokens, unpacking included; Gop/s beside the measured peak of the instruction. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/pool.h"
#include "base/rng.h"
#include "machine.h"
#include "tensor/cpu/kernels.h"
#include "tensor/quant.h"

enum { MATRIX_BYTES = 96 << 20, GEMM_BYTES = 4 << 20, CHUNK_ROWS = 32, ROUNDS = 7 };

struct job {
	const ruv_kernels *k;
	ruv_dtype dtype;
	const uint8_t *w;
	size_t row_bytes;
	int64_t n_in, n_out;
	ruv_act x;
	float *y;
	uint8_t *scratch;
	size_t thread_bytes;
	int n_tokens;
};

static void gemv_task(void *arg, int task, int thread)
{
	struct job *job = arg;
	ruv_act_row x = ruv_act_get_row(&job->x, 0);
	int64_t r = (int64_t)task * CHUNK_ROWS;
	int n = (int)(job->n_out - r < CHUNK_ROWS ? job->n_out - r : CHUNK_ROWS);
	(void)thread;
	job->k->gemv[job->dtype](job->y + r, job->w + (size_t)r * job->row_bytes, job->row_bytes, n, &x, job->n_in);
}

static void gemm_task(void *arg, int task, int thread)
{
	struct job *job = arg;
	int64_t r = (int64_t)task * job->k->panel_rows;
	int n = (int)(job->n_out - r < job->k->panel_rows ? job->n_out - r : job->k->panel_rows);
	ruv_panel panel;
	ruv_panel_place(&panel, job->scratch + (size_t)thread * job->thread_bytes, job->k->panel_rows, job->n_in);
	job->k->unpack[job->dtype](&panel, job->w + (size_t)r * job->row_bytes, job->row_bytes, n, job->n_in);
	(ruv_dtype_wants_q8(job->dtype) ? job->k->gemm_q8 : job->k->gemm_f32)(job->y + r, job->n_out, &panel, &job->x, 0,
	                                                                      job->n_tokens, NULL, false);
}

static void unpack_task(void *arg, int task, int thread)
{
	struct job *job = arg;
	int64_t r = (int64_t)task * job->k->panel_rows;
	int n = (int)(job->n_out - r < job->k->panel_rows ? job->n_out - r : job->k->panel_rows);
	ruv_panel panel;
	ruv_panel_place(&panel, job->scratch + (size_t)thread * job->thread_bytes, job->k->panel_rows, job->n_in);
	job->k->unpack[job->dtype](&panel, job->w + (size_t)r * job->row_bytes, job->row_bytes, n, job->n_in);
}

static double median_seconds(ruv_pool *pool, ruv_pool_fn *fn, struct job *job, int n_tasks)
{
	double t[ROUNDS];
	for (int i = 0; i < ROUNDS; i++) {
		int64_t t0 = ruv_clock_now_ns();
		ruv_pool_run(pool, fn, job, n_tasks);
		t[i] = (double)(ruv_clock_now_ns() - t0) * 1e-9;
		for (int j = i; j > 0 && t[j] < t[j - 1]; j--) {
			double swap = t[j];
			t[j] = t[j - 1];
			t[j - 1] = swap;
		}
	}
	return t[ROUNDS / 2];
}

static void *must(void *p)
{
	if (!p) {
		fprintf(stderr, "bench_kernels: out of memory\n");
		exit(1);
	}
	return p;
}

static void bench_type(ruv_pool *pool, const ruv_kernels *k, ruv_dtype dtype, int64_t n_in, int n_tokens, const machine_rate *limit)
{
	struct job job = {
	    .k = k, .dtype = dtype, .n_in = n_in, .row_bytes = ruv_dtype_row_bytes(dtype, n_in), .n_tokens = n_tokens};
	int64_t sample = 64, max_rows = MATRIX_BYTES / (int64_t)job.row_bytes;
	float *values = must(malloc((size_t)(sample * n_in) * sizeof *values));
	uint8_t *w = must(aligned_alloc(4096, ((size_t)max_rows * job.row_bytes + 8191) & ~(size_t)4095));
	void *act = must(aligned_alloc(64, ruv_act_bytes(n_tokens, n_in)));
	ruv_rng rng;

	ruv_rng_init(&rng, 1);
	for (int64_t i = 0; i < sample * n_in; i++)
		values[i] = (float)ruv_rng_normal(&rng) * 0.02f;
	ruv_quantize_rows(w, dtype, values, sample, n_in, NULL);
	for (int64_t r = sample; r < max_rows; r++)
		memcpy(w + (size_t)r * job.row_bytes, w + (size_t)(r % sample) * job.row_bytes, job.row_bytes);
	job.w = w;
	ruv_act_place(&job.x, act, n_tokens, n_in);
	job.x.f = must(malloc((size_t)(n_tokens * n_in) * sizeof(float)));
	for (int64_t i = 0; i < n_tokens * n_in; i++)
		job.x.f[i] = (float)ruv_rng_normal(&rng);
	for (int i = 0; i < n_tokens; i++)
		k->quantize_act(&job.x, i);
	job.thread_bytes = ruv_panel_bytes(k->panel_rows, n_in);
	job.scratch = must(aligned_alloc(64, job.thread_bytes * (size_t)ruv_pool_n_threads(pool)));

	job.n_out = max_rows;
	job.y = must(malloc((size_t)max_rows * sizeof(float)));
	double gemv = median_seconds(pool, gemv_task, &job, (int)((job.n_out + CHUNK_ROWS - 1) / CHUNK_ROWS));
	double gemv_rate = (double)job.n_out * (double)job.row_bytes / gemv;
	free(job.y);

	job.n_out = GEMM_BYTES / n_in;
	job.y = must(malloc((size_t)(job.n_out * n_tokens) * sizeof(float)));
	int n_panels = (int)((job.n_out + k->panel_rows - 1) / k->panel_rows);
	double gemm = median_seconds(pool, gemm_task, &job, n_panels);
	double unpack = median_seconds(pool, unpack_task, &job, n_panels);
	double ops = 2.0 * (double)job.n_out * (double)n_in * n_tokens / gemm;
	double peak = ruv_dtype_wants_q8(dtype) ? limit->int8_ops : limit->f32_ops;
	printf("%-12s %-5s  gemv %7.2f GB/s (%3.0f %%)  %6.1f Gweights/s   gemm %8.1f Gop/s (%3.0f %%)   unpack %6.1f Gweights/s "
	       "(%2.0f %% of gemm)\n",
	       k->name, ruv_dtype_name((int)dtype), gemv_rate / 1e9, 100 * gemv_rate / limit->read_bytes,
	       (double)max_rows * (double)n_in / gemv / 1e9, ops / 1e9, 100 * ops / peak,
	       (double)job.n_out * (double)n_in / unpack / 1e9, 100 * unpack / gemm);
	fflush(stdout);
	free(job.y), free(job.x.f), free(job.scratch), free(values), free(w), free(act);
}

int main(int argc, char **argv)
{
	static const ruv_dtype types[] = {RUV_Q4_K, RUV_Q5_K, RUV_Q6_K, RUV_Q8_0, RUV_Q4_0, RUV_Q4_1,
	                                  RUV_Q5_0, RUV_Q5_1, RUV_F16,  RUV_BF16, RUV_F32};
	int n_threads = 0, k = 1024, n_tokens = 510;
	const char *isa = NULL, *only = NULL;
	const ruv_kernels *tables[8];
	machine limits;
	ruv_error err = {0};
	ruv_pool *pool;

	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";
		if (!strcmp(argv[i], "--threads"))
			n_threads = atoi(value), i++;
		else if (!strcmp(argv[i], "--isa"))
			isa = value, i++;
		else if (!strcmp(argv[i], "--k"))
			k = atoi(value), i++;
		else if (!strcmp(argv[i], "--tokens"))
			n_tokens = atoi(value), i++;
		else if (!strcmp(argv[i], "--type"))
			only = value, i++;
		else {
			fprintf(stderr, "usage: bench_kernels [--threads N] [--isa all|NAME] [--type NAME] [--k N] [--tokens N]\n");
			return 2;
		}
	}
	if (k <= 0 || k % 256 || n_tokens <= 0) {
		fprintf(stderr, "bench_kernels: --k must be a multiple of 256 and --tokens positive\n");
		return 2;
	}
	if (machine_measure(&limits, n_threads, &err) || ruv_pool_create(&pool, n_threads, &err)) {
		fprintf(stderr, "bench_kernels: %s\n", err.message);
		return 1;
	}
	for (int i = 0; i < 2; i++) {
		const machine_rate *r = i ? &limits.all : &limits.one;
		printf("%3d thread%s read %.1f GB/s   F32 %.1f Gop/s   int8 %.1f Gop/s\n", i ? limits.n_threads : 1,
		       i && limits.n_threads > 1 ? "s:" : ": ", r->read_bytes / 1e9, r->f32_ops / 1e9, r->int8_ops / 1e9);
	}
	int n = ruv_kernels_all(ruv_cpu_get(), tables, 8);
	for (int t = 0; t < n; t++) {
		if (isa ? strcmp(isa, "all") && strcmp(isa, tables[t]->name) : t > 0)
			continue;
		for (size_t i = 0; i < sizeof types / sizeof *types; i++)
			if (!only || !strcasecmp(only, ruv_dtype_name((int)types[i])))
				bench_type(pool, tables[t], types[i], k, n_tokens, n_threads == 1 ? &limits.one : &limits.all);
	}
	ruv_pool_free(pool);
	return 0;
}
