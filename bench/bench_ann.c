/* bench_ann.c - the vector index: build rate, bytes a vector, recall and queries a second, the tail at k = 64.
 *
 *   bench_ann [--file F --dim D] [--synthetic N] [--n N] [--queries Q] [--m M] [--efc E] [--bits 8|4|1] [--threads T] [--filters]
 *             [--churn ROUNDS] [--write F] [--save F]
 *
 * F: raw little-endian float32, D a vector; they are normalised. The last Q vectors of the file are the queries. Without a file, N
 * vectors are made up: clusters within clusters in 64 dimensions of falling variance, mixed into 384, around a common mean; about
 * as hard for an index as sentence embeddings. Truth is an exact scan. Queries run on one thread and are timed by its CPU clock. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/pool.h"
#include "base/rng.h"
#include "memory/codes.h"
#include "memory/hnsw.h"

enum { LATENT = 64, MAX_K = 64 };

typedef struct bench {
	const char *file, *write, *save;
	int dim, n, n_queries, m, efc, bits, threads;
	bool filters;
	int churn;      /* rounds */
	float *vectors; /* [n + n_queries, dim] */
	float *queries;
	uint32_t *truth; /* [n_queries, MAX_K] */
} bench;

static double thread_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "bench_ann: %s\n", what);
	exit(1);
}

static void normalise(float *v, int dim)
{
	double norm = 0;

	for (int i = 0; i < dim; i++)
		norm += (double)v[i] * v[i];
	norm = norm > 0 ? 1 / sqrt(norm) : 0;
	for (int i = 0; i < dim; i++)
		v[i] = (float)(v[i] * norm);
}

static void synthesize(bench *b)
{
	int total = b->n + b->n_queries, n_small = total / 50 + 1, n_large = n_small / 40 + 1;
	float *mix = malloc(sizeof *mix * LATENT * (size_t)b->dim), *mean = malloc(sizeof *mean * (size_t)b->dim);
	float *large = malloc(sizeof *large * LATENT * (size_t)n_large), *small = malloc(sizeof *small * LATENT * (size_t)n_small);
	ruv_rng rng;

	ruv_rng_init(&rng, 42);
	for (int i = 0; i < LATENT * b->dim; i++)
		mix[i] = (float)(ruv_rng_normal(&rng) / sqrt(1 + 0.1 * (i / b->dim)));
	for (int i = 0; i < b->dim; i++)
		mean[i] = (float)ruv_rng_normal(&rng) * 3;
	for (int i = 0; i < LATENT * n_large; i++)
		large[i] = (float)ruv_rng_normal(&rng);
	for (int c = 0; c < n_small; c++) {
		const float *from = large + LATENT * ruv_rng_below(&rng, (uint64_t)n_large);
		for (int i = 0; i < LATENT; i++)
			small[c * LATENT + i] = from[i] + 0.6f * (float)ruv_rng_normal(&rng);
	}
	for (int v = 0; v < total; v++) {
		float *to = b->vectors + (size_t)v * (size_t)b->dim;
		const float *from = small + LATENT * ruv_rng_below(&rng, (uint64_t)n_small);
		float z[LATENT];
		for (int i = 0; i < LATENT; i++)
			z[i] = from[i] + 1.8f * (float)ruv_rng_normal(&rng);
		for (int j = 0; j < b->dim; j++)
			to[j] = mean[j] + 0.5f * (float)ruv_rng_normal(&rng);
		for (int i = 0; i < LATENT; i++)
			for (int j = 0; j < b->dim; j++)
				to[j] += z[i] * mix[i * b->dim + j];
		normalise(to, b->dim);
	}
	free(mix);
	free(mean);
	free(large);
	free(small);
}

static void load(bench *b)
{
	size_t row = sizeof(float) * (size_t)b->dim;
	FILE *f = NULL;

	if (b->file) {
		long n;
		f = fopen(b->file, "rb");
		if (!f || fseek(f, 0, SEEK_END) || (n = ftell(f)) < 0)
			die("the file cannot be read");
		n /= (long)row;
		if (!b->n || b->n > n - b->n_queries)
			b->n = (int)n - b->n_queries;
		rewind(f);
	}
	if (b->n < 1)
		die("there are no vectors");
	b->vectors = aligned_alloc(64, (row * (size_t)(b->n + b->n_queries) + 63) / 64 * 64);
	if (!b->vectors)
		die("out of memory");
	b->queries = b->vectors + (size_t)b->n * (size_t)b->dim;
	if (!f) {
		synthesize(b);
	} else {
		if (fread(b->vectors, row, (size_t)b->n, f) != (size_t)b->n || fseek(f, -(long)row * b->n_queries, SEEK_END) ||
		    fread(b->queries, row, (size_t)b->n_queries, f) != (size_t)b->n_queries)
			die("the file cannot be read");
		fclose(f);
		for (int i = 0; i < b->n + b->n_queries; i++)
			normalise(b->vectors + (size_t)i * (size_t)b->dim, b->dim);
	}
	if (b->write) {
		f = fopen(b->write, "wb");
		if (!f || fwrite(b->vectors, row, (size_t)(b->n + b->n_queries), f) != (size_t)(b->n + b->n_queries) || fclose(f))
			die("the vectors cannot be written");
	}
}

static void find_truth(void *arg, int q, int thread)
{
	bench *b = arg;
	const ruv_code_kernels *kernels = ruv_code_kernels_get();
	uint32_t *to = b->truth + (size_t)q * MAX_K;
	float best[MAX_K];
	int n = 0;

	(void)thread;
	for (int i = 0; i < b->n; i++) {
		float s = kernels->dot(b->queries + (size_t)q * (size_t)b->dim, b->vectors + (size_t)i * (size_t)b->dim, b->dim);
		int at;
		if (n == MAX_K && s <= best[n - 1])
			continue;
		n += n < MAX_K;
		for (at = n - 1; at > 0 && best[at - 1] < s; at--) {
			best[at] = best[at - 1];
			to[at] = to[at - 1];
		}
		best[at] = s;
		to[at] = (uint32_t)i;
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* A node's key is its vector's number plus one, whatever its id. */
static const float *row_of(void *arg, uint32_t id, int64_t key)
{
	const bench *b = arg;

	(void)id;
	return b->vectors + (size_t)(key - 1) * (size_t)b->dim;
}

static void curve(bench *b, ruv_hnsw *index, int k)
{
	ruv_hnsw_rows rows = {.base = b->vectors, .stride = (size_t)b->dim};
	ruv_hnsw_hit hits[MAX_K];
	double *took = malloc(sizeof *took * (size_t)b->n_queries);

	if (b->churn)
		rows = (ruv_hnsw_rows){.row = row_of, .arg = b};
	printf("k = %d\n%6s %8s %10s %8s %8s\n", k, "ef", "recall", "queries/s", "p50 us", "p99 us");
	for (int ef = 16; ef <= 512; ef += ef < 32 ? 16 : ef < 128 ? 32 : ef) {
		ruv_hnsw_query query = {.k = k, .ef = ef, .how = RUV_HNSW_GRAPH, .rows = &rows};
		int64_t found = 0;
		double seconds = 0;
		if (ef < k)
			continue;
		for (int pass = 0; pass < 2; pass++) { /* the first one warms up */
			found = 0;
			seconds = thread_seconds();
			for (int q = 0; q < b->n_queries; q++) {
				double t = thread_seconds();
				int n = ruv_hnsw_search(index, b->queries + (size_t)q * (size_t)b->dim, &query, hits);
				took[q] = thread_seconds() - t;
				for (int i = 0; i < n; i++)
					for (int j = 0; j < k; j++)
						found += hits[i].key - 1 == b->truth[(size_t)q * MAX_K + (size_t)j];
			}
			seconds = thread_seconds() - seconds;
		}
		seconds = 0;
		for (int q = 0; q < b->n_queries; q++)
			seconds += took[q];
		qsort(took, (size_t)b->n_queries, sizeof *took, by_value);
		printf("%6d %8.4f %10.0f %8.1f %8.1f\n", ef, (double)found / k / b->n_queries, b->n_queries / seconds,
		       1e6 * took[b->n_queries / 2], 1e6 * took[b->n_queries * 99 / 100]);
	}
	free(took);
}

static void filters(bench *b, ruv_hnsw *index)
{
	static const double shares[] = {0.5, 0.1, 0.01, 0.001};
	ruv_hnsw_rows rows = {.base = b->vectors, .stride = (size_t)b->dim};
	uint64_t *bits = malloc(((size_t)b->n / 64 + 1) * sizeof *bits);
	const ruv_code_kernels *kernels = ruv_code_kernels_get();
	ruv_rng rng;

	ruv_rng_init(&rng, 7);
	printf("filters, k = 10, ef = default\n%8s %8s %10s\n", "passing", "recall", "queries/s");
	for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) {
		ruv_hnsw_filter filter = {.bits = bits, .n_bits = (uint32_t)b->n};
		ruv_hnsw_query query = {.k = 10, .filter = &filter, .rows = &rows};
		ruv_hnsw_hit hits[10];
		int64_t found = 0;
		double seconds = 0;
		int n_queries = b->n_queries < 200 ? b->n_queries : 200;
		memset(bits, 0, ((size_t)b->n / 64 + 1) * sizeof *bits);
		for (int i = 0; i < b->n; i++)
			bits[i / 64] |= (uint64_t)(ruv_rng_double(&rng) < shares[s]) << i % 64;
		for (int q = 0; q < n_queries; q++) {
			const float *vector = b->queries + (size_t)q * (size_t)b->dim;
			double t = thread_seconds();
			int n = ruv_hnsw_search(index, vector, &query, hits);
			seconds += thread_seconds() - t;
			found += n;
			if (n) { /* less those that pass, are nearer than the last hit and were not found */
				int nearer = 0;
				for (int i = 0; i < b->n; i++)
					if (bits[i / 64] >> i % 64 & 1)
						nearer += kernels->dot(vector, b->vectors + (size_t)i * (size_t)b->dim, b->dim) >
						          hits[n - 1].score;
				found -= nearer > n - 1 ? nearer - (n - 1) : 0;
			}
		}
		printf("%7.1f%% %8.4f %10.0f\n", 100 * shares[s], (double)found / 10 / n_queries, n_queries / seconds);
	}
	free(bits);
}

/* Removes a half in random order and adds it again in random order, once. */
static void churn(bench *b, ruv_hnsw *index, uint32_t *id_of, ruv_pool *pool, ruv_rng *rng)
{
	enum { BATCH = 1024 };
	uint32_t *order = malloc(sizeof *order * (size_t)b->n), ids[BATCH];
	int n_half = b->n / 2;
	double removing = thread_seconds();
	int64_t adding, wall = ruv_clock_now_ns();
	ruv_hnsw_report report;
	ruv_hnsw_stats stats;
	ruv_error err = {0};

	if (!order)
		die("out of memory");
	for (int i = 0; i < b->n; i++)
		order[i] = (uint32_t)i;
	for (int i = 0; i < n_half; i++) {
		int j = i + (int)ruv_rng_below(rng, (uint64_t)(b->n - i));
		uint32_t t = order[i];
		order[i] = order[j];
		order[j] = t;
		if (ruv_hnsw_remove(index, id_of[order[i]], &err))
			die(err.message);
	}
	removing = thread_seconds() - removing;
	if (ruv_hnsw_repair(index, pool, &err) || ruv_hnsw_check(index, &report, &err))
		die(err.message);
	for (int i = n_half - 1; i > 0; i--) { /* another order */
		int j = (int)ruv_rng_below(rng, (uint64_t)i + 1);
		uint32_t t = order[i];
		order[i] = order[j];
		order[j] = t;
	}
	adding = ruv_clock_cpu_ns();
	for (int i = 0; i < n_half; i += BATCH) {
		int64_t keys[BATCH];
		int n = n_half - i < BATCH ? n_half - i : BATCH;
		float *some = malloc(sizeof *some * (size_t)n * (size_t)b->dim);
		ruv_hnsw_rows rows = {.base = some, .stride = (size_t)b->dim};
		if (!some)
			die("out of memory");
		for (int j = 0; j < n; j++) {
			keys[j] = (int64_t)order[i + j] + 1;
			memcpy(some + (size_t)j * (size_t)b->dim, b->vectors + (size_t)order[i + j] * (size_t)b->dim,
			       sizeof *some * (size_t)b->dim);
		}
		if (ruv_hnsw_add(index, &rows, keys, n, ids, pool, &err))
			die(err.message);
		for (int j = 0; j < n; j++)
			id_of[order[i + j]] = ids[j];
		free(some);
	}
	adding = ruv_clock_cpu_ns() - adding;
	printf("removed %d and added them again in %.1f s: removing %.1f s of CPU (%.0f a second, repairs included), adding %.1f; "
	       "with "
	       "half removed %lld not reachable",
	       n_half, 1e-9 * (double)(ruv_clock_now_ns() - wall), removing, n_half / removing, 1e-9 * (double)adding,
	       (long long)report.n_unreachable);
	if (ruv_hnsw_repair(index, pool, &err) || ruv_hnsw_check(index, &report, &err))
		die(err.message);
	ruv_hnsw_get_stats(index, &stats);
	printf(", now %lld; %u ids for %lld nodes, %.0f bytes a vector, %.1f links a node\n", (long long)report.n_unreachable,
	       ruv_hnsw_n_ids(index), (long long)stats.n_nodes, (double)stats.n_bytes / b->n, report.mean_degree);
	free(order);
}

static void usage(void)
{
	die("[--file F --dim D] [--synthetic N] [--n N] [--queries Q] [--m M] [--efc E] [--bits 8|4|1] [--threads T] [--filters] "
	    "[--churn ROUNDS] [--write F] [--save F]");
}

int main(int argc, char **argv)
{
	bench b = {.dim = 384, .n = 0, .n_queries = 1000, .bits = 8, .threads = 1};
	ruv_hnsw_params params;
	ruv_hnsw_stats stats;
	ruv_hnsw_report report;
	ruv_hnsw_rows rows;
	ruv_hnsw *index = NULL;
	ruv_pool *pool = NULL;
	ruv_error err = {0};
	int64_t *keys, cpu, wall;

	for (int i = 1; i < argc; i++) {
		const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
		if (!strcmp(name, "--filters")) {
			b.filters = true;
			continue;
		}
		if (!value)
			usage();
		i++;
		if (!strcmp(name, "--file"))
			b.file = value;
		else if (!strcmp(name, "--write"))
			b.write = value;
		else if (!strcmp(name, "--save"))
			b.save = value;
		else if (!strcmp(name, "--dim"))
			b.dim = atoi(value);
		else if (!strcmp(name, "--synthetic") || !strcmp(name, "--n"))
			b.n = atoi(value);
		else if (!strcmp(name, "--queries"))
			b.n_queries = atoi(value);
		else if (!strcmp(name, "--m"))
			b.m = atoi(value);
		else if (!strcmp(name, "--efc"))
			b.efc = atoi(value);
		else if (!strcmp(name, "--bits"))
			b.bits = atoi(value);
		else if (!strcmp(name, "--churn"))
			b.churn = atoi(value);
		else if (!strcmp(name, "--threads"))
			b.threads = atoi(value);
		else
			usage();
	}
	if (b.dim < 1 || b.n_queries < 1)
		usage();
	load(&b);
	b.truth = malloc(sizeof *b.truth * MAX_K * (size_t)b.n_queries);
	keys = malloc(sizeof *keys * (size_t)b.n);
	if (!b.truth || !keys || ruv_pool_create(&pool, b.threads, &err))
		die("out of memory");
	for (int i = 0; i < b.n; i++)
		keys[i] = i + 1;
	ruv_pool_run(pool, find_truth, &b, b.n_queries);

	ruv_hnsw_params_for(&params, b.dim, RUV_HNSW_IP, b.n);
	params.m = b.m ? b.m : params.m;
	params.ef_construction = b.efc ? b.efc : params.ef_construction;
	params.bits = b.bits;
	if (ruv_hnsw_create(&index, &params, &err))
		die(err.message);
	rows = (ruv_hnsw_rows){.base = b.vectors, .stride = (size_t)b.dim};
	cpu = ruv_clock_cpu_ns();
	wall = ruv_clock_now_ns();
	if (ruv_hnsw_add(index, &rows, keys, b.n, NULL, pool, &err))
		die(err.message);
	cpu = ruv_clock_cpu_ns() - cpu;
	wall = ruv_clock_now_ns() - wall;
	ruv_hnsw_get_stats(index, &stats);
	if (ruv_hnsw_check(index, &report, &err))
		die(err.message);
	printf("%d x %d, M %d, efConstruction %d, %d bits, %s\n", b.n, b.dim, params.m, params.ef_construction, params.bits,
	       ruv_code_kernels_get()->name);
	printf("built in %.1f s on %d threads (%.1f s of CPU time, %.0f vectors a CPU second)\n", 1e-9 * (double)wall, b.threads,
	       1e-9 * (double)cpu, b.n / (1e-9 * (double)cpu));
	printf("%.0f bytes a vector besides the F32 kept for ranking again, %.1f links a node, %lld not reachable\n",
	       (double)stats.n_bytes / b.n, report.mean_degree, (long long)report.n_unreachable);
	curve(&b, index, 10);
	curve(&b, index, 64);
	if (b.filters)
		filters(&b, index);
	if (b.churn) {
		uint32_t *id_of = malloc(sizeof *id_of * (size_t)b.n);
		ruv_rng rng;
		if (!id_of)
			die("out of memory");
		for (int i = 0; i < b.n; i++)
			id_of[i] = (uint32_t)i;
		ruv_rng_init(&rng, 3);
		for (int round = 0; round < b.churn; round++) {
			churn(&b, index, id_of, pool, &rng);
			curve(&b, index, 10);
		}
		free(id_of);
	}
	if (b.save) {
		ruv_hnsw *again;
		if (ruv_hnsw_save(index, b.save, "bench", &err))
			die(err.message);
		for (unsigned how = 0; how < 4; how++) {
			wall = ruv_clock_now_ns();
			if (ruv_hnsw_open_file(&again, b.save, how, 0, NULL, &err))
				die(err.message);
			wall = ruv_clock_now_ns() - wall;
			printf("opened in %.1f ms (%s, checksums of the records %s)\n", 1e-6 * (double)wall,
			       how & RUV_HNSW_READ ? "read" : "mapped", how & RUV_HNSW_TRUST ? "trusted" : "checked");
			ruv_hnsw_free(again);
		}
	}
	ruv_hnsw_free(index);
	ruv_pool_free(pool);
	free(b.vectors);
	free(b.truth);
	free(keys);
	return 0;
}
