/* pq.c - see pq.h.
 *
 * Centroids lie transposed, [n_parts][part][256], so that one loop over all 256 gives a query's table, a vector's code (the table's
 * least entry) and a step of the training. A centroid that lost all its vectors gets a random one. Layer: memory. */
#include "memory/pq.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/status.h"

static const char *const WHERE = "product quantization";

struct ruv_pq {
	int dimension, n_parts, part; /* part: floats of one piece */
	float *centroids;             /* [n_parts, part, RUV_PQ_CENTROIDS] */
};

static const float *centroids_of(const ruv_pq *pq, int p)
{
	return pq->centroids + (size_t)p * (size_t)pq->part * RUV_PQ_CENTROIDS;
}

/* The squared distances of one piece to all its centroids. */
static void piece_table(const ruv_pq *pq, int p, float *table, const float *piece)
{
	const float *c = centroids_of(pq, p);

	memset(table, 0, RUV_PQ_CENTROIDS * sizeof *table);
	for (int j = 0; j < pq->part; j++, c += RUV_PQ_CENTROIDS)
		for (int i = 0; i < RUV_PQ_CENTROIDS; i++)
			table[i] += (piece[j] - c[i]) * (piece[j] - c[i]);
}

static int least(const float *table)
{
	int best = 0;

	for (int i = 1; i < RUV_PQ_CENTROIDS; i++)
		best = table[i] < table[best] ? i : best;
	return best;
}

void ruv_pq_tables(const ruv_pq *pq, float *tables, const float *query)
{
	for (int p = 0; p < pq->n_parts; p++)
		piece_table(pq, p, tables + (size_t)p * RUV_PQ_CENTROIDS, query + (size_t)p * (size_t)pq->part);
}

void ruv_pq_encode(const ruv_pq *pq, unsigned char *code, const float *vector)
{
	float table[RUV_PQ_CENTROIDS];

	for (int p = 0; p < pq->n_parts; p++) {
		piece_table(pq, p, table, vector + (size_t)p * (size_t)pq->part);
		code[p] = (unsigned char)least(table);
	}
}

void ruv_pq_decode(const ruv_pq *pq, float *vector, const unsigned char *code)
{
	for (int p = 0; p < pq->n_parts; p++)
		for (int j = 0; j < pq->part; j++)
			*vector++ = centroids_of(pq, p)[(size_t)j * RUV_PQ_CENTROIDS + code[p]];
}

void ruv_pq_distances(float *distances, const ruv_pq *pq, const float *tables, const unsigned char *codes, int64_t n)
{
	int n_parts = pq->n_parts;

	for (int64_t i = 0; i < n; i++, codes += n_parts) {
		const float *table = tables;
		float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
		int p = 0;
		for (; p + 4 <= n_parts; p += 4, table += 4 * RUV_PQ_CENTROIDS) {
			s0 += table[codes[p]];
			s1 += table[RUV_PQ_CENTROIDS + codes[p + 1]];
			s2 += table[2 * RUV_PQ_CENTROIDS + codes[p + 2]];
			s3 += table[3 * RUV_PQ_CENTROIDS + codes[p + 3]];
		}
		for (; p < n_parts; p++, table += RUV_PQ_CENTROIDS)
			s0 += table[codes[p]];
		distances[i] = s0 + s1 + (s2 + s3);
	}
}

/* ---- training ---- */

typedef struct training {
	ruv_pq *pq;
	const float *vectors;
	int64_t n;
	int n_rounds;
	uint64_t seed;
	double *sums;    /* [n_parts, part, RUV_PQ_CENTROIDS] */
	int64_t *counts; /* [n_parts, RUV_PQ_CENTROIDS] */
} training;

static void take_vector(const training *t, int p, int i, int64_t from)
{
	float *c = t->pq->centroids + (size_t)p * (size_t)t->pq->part * RUV_PQ_CENTROIDS;
	const float *piece = t->vectors + (size_t)from * (size_t)t->pq->dimension + (size_t)p * (size_t)t->pq->part;

	for (int j = 0; j < t->pq->part; j++)
		c[(size_t)j * RUV_PQ_CENTROIDS + (size_t)i] = piece[j];
}

static void train_piece(void *arg, int p, int thread)
{
	const training *t = arg;
	const ruv_pq *pq = t->pq;
	size_t size = (size_t)pq->part * RUV_PQ_CENTROIDS;
	float *c = pq->centroids + (size_t)p * size, table[RUV_PQ_CENTROIDS];
	double *sums = t->sums + (size_t)p * size;
	int64_t *counts = t->counts + (size_t)p * RUV_PQ_CENTROIDS;
	ruv_rng rng;

	(void)thread;
	ruv_rng_init(&rng, t->seed + (uint64_t)p);
	for (int i = 0; i < RUV_PQ_CENTROIDS; i++) /* one of each 256th of the sample: never the same one twice */
		take_vector(
		    t, p, i,
		    t->n * i / RUV_PQ_CENTROIDS +
			(int64_t)ruv_rng_below(&rng, (uint64_t)(t->n * (i + 1) / RUV_PQ_CENTROIDS - t->n * i / RUV_PQ_CENTROIDS)));
	for (int round = 0; round < t->n_rounds; round++) {
		memset(sums, 0, size * sizeof *sums);
		memset(counts, 0, RUV_PQ_CENTROIDS * sizeof *counts);
		for (int64_t v = 0; v < t->n; v++) {
			const float *piece = t->vectors + (size_t)v * (size_t)pq->dimension + (size_t)p * (size_t)pq->part;
			int best;
			piece_table(pq, p, table, piece);
			best = least(table);
			counts[best]++;
			for (int j = 0; j < pq->part; j++)
				sums[(size_t)j * RUV_PQ_CENTROIDS + (size_t)best] += piece[j];
		}
		for (int i = 0; i < RUV_PQ_CENTROIDS; i++) {
			if (!counts[i]) {
				take_vector(t, p, i, (int64_t)ruv_rng_below(&rng, (uint64_t)t->n));
				continue;
			}
			for (size_t j = (size_t)i; j < size; j += RUV_PQ_CENTROIDS)
				c[j] = (float)(sums[j] / (double)counts[i]);
		}
	}
}

int ruv_pq_train(ruv_pq **out, const float *vectors, int64_t n, int dimension, int n_parts, int n_rounds, uint64_t seed,
                 ruv_pool *pool, ruv_error *err)
{
	training t = {.vectors = vectors, .n = n, .n_rounds = n_rounds, .seed = seed};
	size_t size = (size_t)(dimension > 0 ? dimension : 0) * RUV_PQ_CENTROIDS;
	ruv_pq *pq = NULL;
	int rc = RUV_OK;

	*out = NULL;
	if (dimension < 1 || n_parts < 1 || dimension % n_parts || n_rounds < 1)
		return ruv_fail(err, RUV_EINVAL, WHERE, "%d floats in %d parts, %d rounds: the parts must be of one length",
		                dimension, n_parts, n_rounds);
	if (n < RUV_PQ_CENTROIDS)
		return ruv_fail(err, RUV_EINVAL, WHERE, "%lld vectors to learn from, at least %d are needed", (long long)n,
		                RUV_PQ_CENTROIDS);
	pq = calloc(1, sizeof *pq);
	t.sums = malloc(size * sizeof *t.sums);
	t.counts = malloc((size_t)n_parts * RUV_PQ_CENTROIDS * sizeof *t.counts);
	if (pq)
		pq->centroids = malloc(size * sizeof *pq->centroids);
	if (!pq || !pq->centroids || !t.sums || !t.counts) {
		rc = ruv_fail_memory(err, WHERE, size * (sizeof *pq->centroids + sizeof *t.sums));
		goto done;
	}
	pq->dimension = dimension;
	pq->n_parts = n_parts;
	pq->part = dimension / n_parts;
	t.pq = pq;
	if (pool)
		ruv_pool_run(pool, train_piece, &t, n_parts);
	else
		for (int p = 0; p < n_parts; p++)
			train_piece(&t, p, 0);
	*out = pq;
	pq = NULL;
done:
	ruv_pq_free(pq);
	free(t.sums);
	free(t.counts);
	return rc;
}

void ruv_pq_free(ruv_pq *pq)
{
	if (!pq)
		return;
	free(pq->centroids);
	free(pq);
}

int ruv_pq_n_parts(const ruv_pq *pq)
{
	return pq->n_parts;
}
