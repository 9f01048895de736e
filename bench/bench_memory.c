/* bench_memory.c - what the memory's store costs: adding (every batch flushed to the disk), loading, exact and word search.
 *
 * Vectors are random (exact search costs the same for any), texts are 40 words drawn with a skew from 20,000, about as often as in
 * English; questions are three of them. Beside the exact search stands its bound: the bytes of the vectors over the machine's read
 * bandwidth. Usage: bench_memory DIR [N [BATCH [DIMENSION]]]   (DIR must not hold a memory yet) */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "machine.h"
#include "ruvllm/memory.h"

enum { N_WORDS = 20000, TEXT_WORDS = 40, N_QUESTIONS = 50 };

static char vocabulary[N_WORDS][12];

static const char *draw_word(ruv_rng *rng)
{
	/* Zipf by inversion of a continuous 1/x law. */
	int i = (int)pow(N_WORDS, ruv_rng_double(rng)) - 1;

	return vocabulary[i < 0 ? 0 : i >= N_WORDS ? N_WORDS - 1 : i];
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int fill(ruv_memory *m, int n, int batch, int dim, ruv_rng *rng, ruv_error *err)
{
	float *v = malloc(sizeof *v * (size_t)dim * (size_t)batch);
	char(*text)[TEXT_WORDS * 12] = malloc(sizeof *text * (size_t)batch);
	ruv_memory_node *nodes = calloc((size_t)batch, sizeof *nodes);
	int64_t spent = 0;
	int rc = v && text && nodes ? RUV_OK : RUV_ENOMEM;

	for (int done = 0; !rc && done < n; done += batch) {
		int here = n - done < batch ? n - done : batch;
		int64_t start;
		for (int i = 0; i < here; i++) {
			size_t length = 0;
			for (int w = 0; w < TEXT_WORDS; w++)
				length += (size_t)snprintf(text[i] + length, sizeof text[i] - length, "%s ", draw_word(rng));
			for (int d = 0; d < dim; d++)
				v[(size_t)i * (size_t)dim + (size_t)d] = (float)ruv_rng_normal(rng);
			nodes[i] =
			    (ruv_memory_node){.type = RUV_NODE_DOCUMENT, .text = text[i], .vector = v + (size_t)i * (size_t)dim};
		}
		start = ruv_clock_now_ns();
		rc = ruv_memory_add(m, nodes, here, err);
		spent += ruv_clock_now_ns() - start;
	}
	if (!rc)
		printf("add        %8d in batches of %d: %.0f/s, %.2f ms a batch\n", n, batch, n / ((double)spent / 1e9),
		       (double)spent / 1e6 / ((n + batch - 1) / batch));
	free(v);
	free(text);
	free(nodes);
	return rc;
}

static int ask(ruv_memory *m, ruv_memory_mode mode, const char *name, int dim, double bound_ms, ruv_rng *rng, ruv_error *err)
{
	double ms[N_QUESTIONS];
	float *v = malloc(sizeof *v * (size_t)dim);
	int64_t cpu = ruv_clock_cpu_ns();
	int rc = v ? RUV_OK : RUV_ENOMEM, n_hits = 0;

	for (int i = 0; !rc && i < N_QUESTIONS; i++) {
		char text[64];
		ruv_memory_query q = {.text = text, .vector = v, .mode = mode, .k = 10};
		ruv_memory_hits hits;
		int64_t start;
		snprintf(text, sizeof text, "%s %s %s", draw_word(rng), draw_word(rng), draw_word(rng));
		for (int d = 0; d < dim; d++)
			v[d] = (float)ruv_rng_normal(rng);
		start = ruv_clock_now_ns();
		rc = ruv_memory_search(m, &hits, &q, err);
		ms[i] = (double)(ruv_clock_now_ns() - start) / 1e6;
		if (!rc)
			n_hits += hits.n;
		ruv_memory_hits_release(&hits);
	}
	if (!rc) {
		cpu = ruv_clock_cpu_ns() - cpu;
		qsort(ms, N_QUESTIONS, sizeof *ms, by_value);
		printf("%-10s median %.2f ms, least %.2f, most %.2f; %.2f ms of CPU; %.1f hits", name, ms[N_QUESTIONS / 2], ms[0],
		       ms[N_QUESTIONS - 1], (double)cpu / 1e6 / N_QUESTIONS, (double)n_hits / N_QUESTIONS);
		if (bound_ms > 0)
			printf("; bound by memory %.2f ms", bound_ms);
		printf("\n");
	}
	free(v);
	return rc;
}

int main(int argc, char **argv)
{
	int n = argc > 2 ? atoi(argv[2]) : 10000, batch = argc > 3 ? atoi(argv[3]) : 1000, dim = argc > 4 ? atoi(argv[4]) : 384;
	ruv_memory_options options = {.embedder_id = "bench", .dimension = dim, .create = true};
	ruv_memory *m = NULL;
	ruv_memory_stats stats;
	ruv_error err = {0};
	ruv_rng rng;
	machine rates;
	double gb_s, bound_ms;
	int64_t start;
	int rc;

	if (argc < 2 || n < 1 || batch < 1 || batch > n) {
		fprintf(stderr, "usage: bench_memory DIR [N [BATCH [DIMENSION]]]\n");
		return 2;
	}
	ruv_rng_init(&rng, 1);
	for (int i = 0; i < N_WORDS; i++) {
		int length = 3 + (int)ruv_rng_below(&rng, 8);
		for (int j = 0; j < length; j++)
			vocabulary[i][j] = (char)('a' + ruv_rng_below(&rng, 26));
	}
	if (machine_measure(&rates, 1, &err)) {
		fprintf(stderr, "bench_memory: %s\n", err.message);
		return 1;
	}
	gb_s = rates.one.read_bytes / 1e9;
	bound_ms = (double)n * dim * 4 / (gb_s * 1e6);
	printf("%d x %d F32; one thread reads %.1f GB/s\n", n, dim, gb_s);
	rc = ruv_memory_open(&m, argv[1], &options, &err);
	if (!rc)
		rc = fill(m, n, batch, dim, &rng, &err);
	if (!rc) {
		float *one = calloc((size_t)dim, sizeof *one);
		ruv_memory_query q = {.vector = one, .k = 1};
		ruv_memory_hits hits;
		one[0] = 1;
		start = ruv_clock_now_ns();
		rc = ruv_memory_search(m, &hits, &q, &err);
		if (!rc)
			printf("load       %.0f ms\n", (double)(ruv_clock_now_ns() - start) / 1e6);
		ruv_memory_hits_release(&hits);
		free(one);
	}
	if (!rc)
		rc = ask(m, RUV_SEARCH_VECTOR, "exact", dim, bound_ms, &rng, &err);
	if (!rc)
		rc = ask(m, RUV_SEARCH_LEXICAL, "words", dim, 0, &rng, &err);
	if (!rc)
		rc = ask(m, RUV_SEARCH_HYBRID, "hybrid", dim, 0, &rng, &err);
	if (!rc)
		rc = ruv_memory_get_stats(m, &stats, &err);
	if (!rc)
		printf("size       %.1f MB on disk, %.1f MB in memory\n", (double)stats.database_bytes / 1e6,
		       (double)stats.index_bytes / 1e6);
	if (rc)
		fprintf(stderr, "bench_memory: %s\n", err.message);
	ruv_memory_free(m);
	return rc != 0;
}
