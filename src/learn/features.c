/* features.c - see features.h. A feature is cheap: a question with ten hits takes some 20 microseconds in all, most of it for the
 * words of the hits. Layer: learn. */
#include "learn/features.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "base/status.h"
#include "learn/grams.h"
#include "learn/vec.h"

enum {
	N_COHERENT = 6,    /* hits whose vectors are compared with each other */
	N_WORDED = 4,      /* hits whose words are looked at */
	WORD_BYTES = 1500, /* of each */
	MAX_QUESTION_WORDS = 48
};

/* ---- names ------------------------------------------------------------------------------------------------------------- */

static const struct group {
	int first, n;
	const char *name, *help;
} groups[] = {
    {RUV_FEATURE_TOKENS, 1, "tokens", "log2(1 + tokens of the question) / 8"},
    {RUV_FEATURE_LANGUAGE, 8, "language", "one-hot: the language that the text classifier holds likeliest"},
    {RUV_FEATURE_DOMAIN, 16, "domain", "probability of the domain by the text classifier"},
    {RUV_FEATURE_USER, 1, "user_frequency", "log10(1 + this user's requests of the last hour) / 3"},
    {RUV_FEATURE_TYPE, 6, "type", "probability of the kind of request by the text classifier"},
    {RUV_FEATURE_NORM, 1, "norm", "Euclidean length of the embedding"},
    {RUV_FEATURE_COMPONENTS, 8, "component", "coordinate along a principal component of the memory's vectors, in deviations"},
    {RUV_FEATURE_ENTROPY, 1, "entropy", "entropy of the squared components, 1: all equal"},
    {RUV_FEATURE_SPARSITY, 1, "sparsity", "Hoyer's measure: (sqrt(n) - L1/L2) / (sqrt(n) - 1)"},
    {RUV_FEATURE_CLUSTER, 4, "cluster", "softmax of the cosines to the memory's four cluster centres"},
    {RUV_FEATURE_LARGEST, 1, "largest", "largest absolute component of the embedding over its length"},
    {RUV_FEATURE_RETRIEVED, 1, "retrieved", "hits found over hits asked for"},
    {RUV_FEATURE_DISTANCES, 4, "distance", "1 - cosine of the hits: mean, deviation, least, greatest"},
    {RUV_FEATURE_HIT_ENTROPY, 1, "hit_entropy", "entropy of softmax(cosine / 0.1) over the hits, 1: none stands out"},
    {RUV_FEATURE_DEPTH, 1, "graph_depth", "edges from a hit to the farthest passage that the graph added, / 4"},
    {RUV_FEATURE_RECALL, 1, "recall", "estimated recall: of the index, times the overlap of both lists (capture-recapture)"},
    {RUV_FEATURE_DENSITY, 16, "density", "share of the hits within a distance of i/16"},
    {RUV_FEATURE_COHERENCE, 15, "coherence.pair", "cosine between two of the six best hits"},
    {RUV_FEATURE_COHERENCE + 15, 1, "coherence.mean", "mean of those cosines"},
    {RUV_FEATURE_COHERENCE + 16, 1, "coherence.deviation", "their standard deviation"},
    {RUV_FEATURE_COHERENCE + 17, 1, "coherence.least", "the least of them"},
    {RUV_FEATURE_COHERENCE + 18, 1, "coherence.greatest", "the greatest of them"},
    {RUV_FEATURE_COHERENCE + 19, 1, "coherence.both", "share of the hits that meaning and words both found"},
    {RUV_FEATURE_COHERENCE + 20, 1, "coherence.covered", "share of the question's own words in the best hit"},
    {RUV_FEATURE_COHERENCE + 21, 1, "coherence.covered_all", "share of them in any of the four best hits"},
    {RUV_FEATURE_COHERENCE + 22, 1, "coherence.agreed", "1 when the best hit leads both lists"},
    {RUV_FEATURE_COHERENCE + 23, 1, "coherence.source", "share of the hits from the best hit's source"},
    {RUV_FEATURE_BUDGET, 1, "latency_budget", "log10(1 + ms) / 5; 1 without a budget"},
    {RUV_FEATURE_DEVICE, 4, "device", "one-hot: edge, mobile, server, cluster"},
    {RUV_FEATURE_PRIVACY, 4, "privacy", "one-hot: public, internal, personal, secret"},
    {RUV_FEATURE_MEMORY, 1, "memory", "log2(1 + GiB available) / 8; 1 when not known"},
    {RUV_FEATURE_BATTERY, 1, "battery", "charge 0..1; 1 on mains"},
    {RUV_FEATURE_CONCURRENT, 1, "concurrent", "log2(1 + requests running) / 6"},
    {RUV_FEATURE_HISTORY, 16, "history", "2 * mean quality - 1 of a tier: overall, this type, this domain, this conversation"},
    {RUV_FEATURE_QUEUE, 1, "queue", "log2(1 + requests waiting) / 6"},
    {RUV_FEATURE_PAGES, 1, "pages_free", "share of the KV pages that is free"},
    {RUV_FEATURE_PREFIX, 1, "prefix_hits", "share of prompt tokens that the prefix cache had lately"},
    {RUV_FEATURE_ADAPTER, 1, "adapter", "1 when an adapter is active"},
};

static const char *part_name(const struct group *g, int i, char *text, size_t cap)
{
	static const char *const devices[] = {"edge", "mobile", "server", "cluster"};
	static const char *const levels[] = {"public", "internal", "personal", "secret"};
	static const char *const distances[] = {"mean", "deviation", "least", "greatest"};
	static const char *const histories[] = {"overall", "type", "domain", "conversation"};

	switch (g->first) {
	case RUV_FEATURE_LANGUAGE:
		return ruv_textclass_name(RUV_TEXTCLASS_LANGUAGE, i);
	case RUV_FEATURE_DOMAIN:
		return ruv_textclass_name(RUV_TEXTCLASS_DOMAIN, i);
	case RUV_FEATURE_TYPE:
		return ruv_textclass_name(RUV_TEXTCLASS_TYPE, i);
	case RUV_FEATURE_DEVICE:
		return devices[i];
	case RUV_FEATURE_PRIVACY:
		return levels[i];
	case RUV_FEATURE_DISTANCES:
		return distances[i];
	case RUV_FEATURE_HISTORY:
		snprintf(text, cap, "%s.tier%d", histories[i / 4], i % 4);
		return text;
	default:
		snprintf(text, cap, "%d", i + 1);
		return text;
	}
}

const char *ruv_feature_name(int i, const char **help)
{
	static _Thread_local char name[64];
	char text[32];

	for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
		if (i >= groups[g].first && i < groups[g].first + groups[g].n) {
			if (help)
				*help = groups[g].help;
			if (groups[g].n == 1)
				return groups[g].name;
			snprintf(name, sizeof name, "%s.%s", groups[g].name,
			         part_name(&groups[g], i - groups[g].first, text, sizeof text));
			return name;
		}
	return NULL;
}

/* ---- the basis of embeddings ------------------------------------------------------------------------------------------- */

void ruv_basis_release(ruv_basis *basis)
{
	free(basis->mean);
	free(basis->components);
	free(basis->centres);
	memset(basis, 0, sizeof *basis);
}

/* Gram-Schmidt; a direction that the others leave nothing of is drawn anew. */
static void orthonormalize(float *rows, int n, int dim, ruv_rng *rng)
{
	for (int i = 0; i < n; i++) {
		float *row = rows + (size_t)i * (size_t)dim, norm;

		for (int attempt = 0;; attempt++) {
			for (int pass = 0; pass < 2; pass++)
				for (int j = 0; j < i; j++) {
					const float *other = rows + (size_t)j * (size_t)dim;
					ruv_vec_add(row, -ruv_vec_dot(row, other, dim), other, dim);
				}
			norm = sqrtf(ruv_vec_dot(row, row, dim));
			if (norm > 1e-6f || attempt > 8)
				break;
			for (int d = 0; d < dim; d++)
				row[d] = (float)ruv_rng_normal(rng);
		}
		for (int d = 0; d < dim; d++)
			row[d] /= norm > 0 ? norm : 1;
	}
}

static int fit_components(ruv_basis *b, const float *vectors, int n, ruv_rng *rng, ruv_error *err)
{
	enum { N_ITERATIONS = 24 };
	const size_t dim = (size_t)b->dim;
	float *covariance = calloc(dim * dim, sizeof *covariance), *row = malloc(sizeof *row * dim);
	float *next = malloc(sizeof *next * dim * (size_t)b->n_components);

	if (!covariance || !row || !next) {
		free(covariance);
		free(row);
		free(next);
		return ruv_fail_memory(err, "features", dim * dim * sizeof *covariance);
	}
	for (int i = 0; i < n; i++) {
		for (size_t d = 0; d < dim; d++)
			row[d] = vectors[(size_t)i * dim + d] - b->mean[d];
		for (size_t d = 0; d < dim; d++)
			ruv_vec_add(covariance + d * dim, row[d] / (float)n, row, b->dim);
	}
	for (size_t i = 0; i < dim * (size_t)b->n_components; i++)
		b->components[i] = (float)ruv_rng_normal(rng);
	orthonormalize(b->components, b->n_components, b->dim, rng);
	for (int iteration = 0; iteration < N_ITERATIONS; iteration++) {
		for (int c = 0; c < b->n_components; c++)
			for (size_t d = 0; d < dim; d++)
				next[(size_t)c * dim + d] =
				    ruv_vec_dot(covariance + d * dim, b->components + (size_t)c * dim, b->dim);
		memcpy(b->components, next, sizeof *next * dim * (size_t)b->n_components);
		orthonormalize(b->components, b->n_components, b->dim, rng);
	}
	for (int c = 0; c < b->n_components; c++) {
		const float *component = b->components + (size_t)c * dim;
		float variance = 0;

		for (size_t d = 0; d < dim; d++)
			variance += component[d] * ruv_vec_dot(covariance + d * dim, component, b->dim);
		b->scale[c] = variance > 1e-12f ? 1 / sqrtf(variance) : 0;
		b->offset[c] = ruv_vec_dot(component, b->mean, b->dim);
	}
	free(covariance);
	free(row);
	free(next);
	return RUV_OK;
}

static float distance2(const float *a, const float *b, int dim)
{
	return ruv_vec_dot(a, a, dim) + ruv_vec_dot(b, b, dim) - 2 * ruv_vec_dot(a, b, dim);
}

/* k-means++ and Lloyd's iterations. */
static int fit_centres(ruv_basis *b, const float *vectors, int n, ruv_rng *rng, ruv_error *err)
{
	enum { N_ITERATIONS = 20 };
	const size_t dim = (size_t)b->dim;
	int *nearest = malloc(sizeof *nearest * (size_t)n), counts[RUV_BASIS_CLUSTERS];

	if (!nearest)
		return ruv_fail_memory(err, "features", sizeof *nearest * (size_t)n);
	memcpy(b->centres, vectors + (size_t)ruv_rng_below(rng, (uint64_t)n) * dim, sizeof(float) * dim);
	for (int c = 1; c < RUV_BASIS_CLUSTERS; c++) {
		double total = 0, at;
		int chosen = n - 1;

		for (int pass = 0; pass < 2; pass++) {
			at = pass ? ruv_rng_double(rng) * total : 0;
			for (int i = 0; i < n; i++) {
				float least = INFINITY;

				for (int k = 0; k < c; k++)
					least = fminf(least,
					              distance2(vectors + (size_t)i * dim, b->centres + (size_t)k * dim, b->dim));
				if (!pass) {
					total += least;
				} else if ((at -= least) <= 0) {
					chosen = i;
					break;
				}
			}
		}
		memcpy(b->centres + (size_t)c * dim, vectors + (size_t)chosen * dim, sizeof(float) * dim);
	}
	for (int iteration = 0; iteration < N_ITERATIONS; iteration++) {
		for (int i = 0; i < n; i++) {
			float least = INFINITY;

			for (int c = 0; c < RUV_BASIS_CLUSTERS; c++) {
				float d = distance2(vectors + (size_t)i * dim, b->centres + (size_t)c * dim, b->dim);
				if (d < least) {
					least = d;
					nearest[i] = c;
				}
			}
		}
		memset(counts, 0, sizeof counts);
		for (int i = 0; i < n; i++)
			counts[nearest[i]]++;
		for (int c = 0; c < RUV_BASIS_CLUSTERS; c++)
			if (counts[c])
				memset(b->centres + (size_t)c * dim, 0, sizeof(float) * dim);
		for (int i = 0; i < n; i++)
			ruv_vec_add(b->centres + (size_t)nearest[i] * dim, 1.0f / (float)counts[nearest[i]],
			            vectors + (size_t)i * dim, b->dim);
	}
	free(nearest);
	return RUV_OK;
}

int ruv_basis_fit(ruv_basis *basis, const float *vectors, int n, int dim, int n_components, uint64_t seed, ruv_error *err)
{
	ruv_rng rng;
	int rc;

	memset(basis, 0, sizeof *basis);
	if (n < 2 || dim < 1 || n_components < 1)
		return ruv_fail(err, RUV_EINVAL, "features",
		                "%d vectors of %d numbers and %d components: two vectors are needed at least", n, dim,
		                n_components);
	if (n_components > RUV_BASIS_MAX_COMPONENTS)
		n_components = RUV_BASIS_MAX_COMPONENTS;
	basis->dim = dim;
	basis->n_components = n_components < dim ? n_components : dim;
	basis->mean = calloc((size_t)dim, sizeof(float));
	basis->components = calloc((size_t)dim * (size_t)basis->n_components, sizeof(float));
	basis->centres = calloc((size_t)dim * RUV_BASIS_CLUSTERS, sizeof(float));
	if (!basis->mean || !basis->components || !basis->centres) {
		ruv_basis_release(basis);
		return ruv_fail_memory(err, "features", (size_t)dim * sizeof(float) * (size_t)n_components);
	}
	ruv_rng_init(&rng, seed);
	for (int i = 0; i < n; i++)
		ruv_vec_add(basis->mean, 1.0f / (float)n, vectors + (size_t)i * (size_t)dim, dim);
	rc = fit_components(basis, vectors, n, &rng, err);
	if (!rc)
		rc = fit_centres(basis, vectors, n, &rng, err);
	if (rc)
		ruv_basis_release(basis);
	return rc;
}

void ruv_basis_project(const ruv_basis *basis, const float *vector, float *coordinates)
{
	for (int c = 0; c < basis->n_components; c++) {
		const float *component = basis->components + (size_t)c * (size_t)basis->dim;

		coordinates[c] = ruv_vec_dot(component, vector, basis->dim) - basis->offset[c];
	}
}

/* ---- history ----------------------------------------------------------------------------------------------------------- */

void ruv_route_history_init(ruv_route_history *history, const float *quality, int n_tiers, float weight)
{
	memset(history, 0, sizeof *history);
	for (int t = 0; t < n_tiers; t++) {
		history->overall.sum[t] = quality[t] * weight;
		history->overall.weight[t] = weight;
		for (int i = 0; i < RUV_ROUTE_QUERY_TYPES; i++) {
			history->by_type[i].sum[t] = quality[t] * weight;
			history->by_type[i].weight[t] = weight;
		}
		for (int i = 0; i < RUV_ROUTE_DOMAINS; i++) {
			history->by_domain[i].sum[t] = quality[t] * weight;
			history->by_domain[i].weight[t] = weight;
		}
	}
}

static int largest_of(const float *x, int n)
{
	int best = 0;

	for (int i = 1; i < n; i++)
		best = x[i] > x[best] ? i : best;
	return best;
}

void ruv_route_history_add(ruv_route_history *history, const float *features, int tier, float quality)
{
	const float keep = 0.99f;
	int type = largest_of(features + RUV_FEATURE_TYPE, RUV_ROUTE_QUERY_TYPES);
	int domain = largest_of(features + RUV_FEATURE_DOMAIN, RUV_ROUTE_DOMAINS);

	history->overall.sum[tier] = history->overall.sum[tier] * keep + quality;
	history->overall.weight[tier] = history->overall.weight[tier] * keep + 1;
	history->by_type[type].sum[tier] = history->by_type[type].sum[tier] * keep + quality;
	history->by_type[type].weight[tier] = history->by_type[type].weight[tier] * keep + 1;
	history->by_domain[domain].sum[tier] = history->by_domain[domain].sum[tier] * keep + quality;
	history->by_domain[domain].weight[tier] = history->by_domain[domain].weight[tier] * keep + 1;
}

void ruv_features_history(float *features, const ruv_route_history *history, const ruv_route_state *state)
{
	float *out = features + RUV_FEATURE_HISTORY;
	int type = largest_of(features + RUV_FEATURE_TYPE, RUV_ROUTE_QUERY_TYPES);
	int domain = largest_of(features + RUV_FEATURE_DOMAIN, RUV_ROUTE_DOMAINS);

	for (int t = 0; t < RUV_ROUTE_MAX_TIERS; t++) {
		out[t] = out[4 + t] = out[8 + t] = out[12 + t] = 0;
		if (history && history->overall.weight[t] > 0) {
			out[t] = 2 * history->overall.sum[t] / history->overall.weight[t] - 1;
			out[4 + t] = 2 * history->by_type[type].sum[t] / history->by_type[type].weight[t] - 1;
			out[8 + t] = 2 * history->by_domain[domain].sum[t] / history->by_domain[domain].weight[t] - 1;
		}
		if (state && state->n_answers[t])
			out[12 + t] = (2 * state->quality[t] - 1) * (float)state->n_answers[t] / (float)(state->n_answers[t] + 2);
	}
}

/* ---- the question ------------------------------------------------------------------------------------------------------ */

static float clamp(float x, float low, float high)
{
	return x < low ? low : x > high ? high : x;
}

static void query_features(float *f, const ruv_textclass *classes, const ruv_route_input *in, size_t n_bytes)
{
	float p[RUV_TEXTCLASS_MAX_CLASSES];
	int n_tokens = in->n_tokens > 0 ? in->n_tokens : (int)(n_bytes / 4 + 1);

	f[RUV_FEATURE_TOKENS] = log2f(1 + (float)n_tokens) / 8;
	if (classes) {
		ruv_textclass_apply(classes, RUV_TEXTCLASS_LANGUAGE, in->text, n_bytes, p);
		f[RUV_FEATURE_LANGUAGE + largest_of(p, RUV_ROUTE_LANGUAGES)] = 1;
		ruv_textclass_apply(classes, RUV_TEXTCLASS_DOMAIN, in->text, n_bytes, f + RUV_FEATURE_DOMAIN);
		ruv_textclass_apply(classes, RUV_TEXTCLASS_TYPE, in->text, n_bytes, f + RUV_FEATURE_TYPE);
	}
	f[RUV_FEATURE_USER] = log10f(1 + (float)(in->user_requests > 0 ? in->user_requests : 0)) / 3;
}

static void embedding_features(float *f, const ruv_basis *basis, const ruv_route_input *in)
{
	const float *v = in->embedding;
	float norm, l1 = 0, largest = 0, entropy = 0, root = sqrtf((float)in->dim), unit, sum = 0;
	float *cluster = f + RUV_FEATURE_CLUSTER;

	norm = sqrtf(ruv_vec_dot(v, v, in->dim));
	f[RUV_FEATURE_NORM] = clamp(norm, 0, 4);
	if (!(norm > 0))
		return;
	unit = 1 / (norm * norm);
	for (int d = 0; d < in->dim; d++) {
		float a = fabsf(v[d]), p = a * a * unit;

		l1 += a;
		largest = a > largest ? a : largest;
		if (p > 1e-12f)
			entropy -= p * logf(p);
	}
	f[RUV_FEATURE_ENTROPY] = in->dim > 1 ? entropy / logf((float)in->dim) : 0;
	f[RUV_FEATURE_SPARSITY] = in->dim > 1 ? (root - l1 / norm) / (root - 1) : 0;
	f[RUV_FEATURE_LARGEST] = largest / norm;
	if (!basis->dim)
		return;
	for (int c = 0; c < 8 && c < basis->n_components; c++) {
		const float *component = basis->components + (size_t)c * (size_t)basis->dim;
		float at = ruv_vec_dot(component, v, basis->dim) - basis->offset[c];

		f[RUV_FEATURE_COMPONENTS + c] = clamp(at * basis->scale[c], -4, 4);
	}
	for (int c = 0; c < RUV_BASIS_CLUSTERS; c++) {
		const float *centre = basis->centres + (size_t)c * (size_t)basis->dim;
		float length = sqrtf(ruv_vec_dot(centre, centre, basis->dim));

		cluster[c] = expf(ruv_vec_dot(centre, v, basis->dim) / (norm * (length > 0 ? length : 1)) / 0.1f);
		sum += cluster[c];
	}
	for (int c = 0; c < RUV_BASIS_CLUSTERS; c++)
		cluster[c] /= sum;
}

/* ---- the search -------------------------------------------------------------------------------------------------------- */

static bool is_own_word(const char *word, size_t n)
{
	static const char *const common[] = {
	    "about", "also", "and",  "any",   "are",   "but",  "can",   "could", "did",   "does", "for",   "from", "had",
	    "has",   "have", "how",  "into",  "its",   "many", "more",  "most",  "much",  "name", "not",   "one",  "other",
	    "some",  "than", "that", "the",   "their", "them", "then",  "there", "these", "they", "this",  "type", "was",
	    "were",  "what", "when", "where", "which", "who",  "whose", "why",   "will",  "with", "would", "you",  "your"};

	if (n < 3)
		return false;
	for (size_t i = 0; i < sizeof common / sizeof *common; i++)
		if (strlen(common[i]) == n && !strncasecmp(common[i], word, n))
			return false;
	return true;
}

/* Which of the question's own words, by their first five letters, stand in the best hits. */
static void coverage(float *best, float *any, const ruv_route_input *in, int n_hits)
{
	uint32_t words[MAX_QUESTION_WORDS];
	bool in_best[MAX_QUESTION_WORDS] = {false}, in_any[MAX_QUESTION_WORDS] = {false};
	size_t at = 0, length, n_bytes = strlen(in->text);
	const char *word;
	int n = 0, n_best = 0, n_any = 0;

	while (n < MAX_QUESTION_WORDS && (word = ruv_grams_next_word(in->text, n_bytes, &at, &length)))
		if (is_own_word(word, length))
			ruv_grams(&words[n++], 1, word, length > 5 ? 5 : length, RUV_GRAM_WORD);
	for (int h = 0; h < n_hits && h < N_WORDED && n; h++) {
		uint64_t seen[64] = {0}; /* a filter: words of the hit by 12 bits of their hash */
		const char *text = in->hits[h].text;

		if (!text)
			continue;
		at = 0;
		n_bytes = strnlen(text, WORD_BYTES);
		while ((word = ruv_grams_next_word(text, n_bytes, &at, &length))) {
			uint32_t hash;

			ruv_grams(&hash, 1, word, length > 5 ? 5 : length, RUV_GRAM_WORD);
			seen[hash >> 6 & 63] |= 1ull << (hash & 63);
		}
		for (int i = 0; i < n; i++)
			if (seen[words[i] >> 6 & 63] >> (words[i] & 63) & 1) {
				in_any[i] = true;
				in_best[i] |= h == 0;
			}
	}
	for (int i = 0; i < n; i++) {
		n_best += in_best[i];
		n_any += in_any[i];
	}
	*best = n ? (float)n_best / (float)n : 0;
	*any = n ? (float)n_any / (float)n : 0;
}

static void coherence_features(float *c, const ruv_route_input *in, int n_hits)
{
	float norms[N_COHERENT] = {0}, sum = 0, squares = 0, least = 1, greatest = -1;
	int n_both = 0, n_same = 0, n_pairs = 0, pair = 0, n = n_hits < N_COHERENT ? n_hits : N_COHERENT;

	for (int i = 0; i < n; i++)
		norms[i] = in->hits[i].vector ? sqrtf(ruv_vec_dot(in->hits[i].vector, in->hits[i].vector, in->dim)) : 0;
	for (int i = 0; i < N_COHERENT; i++)
		for (int j = i + 1; j < N_COHERENT; j++, pair++) {
			float cosine;

			if (j >= n || !(norms[i] > 0) || !(norms[j] > 0))
				continue;
			cosine = ruv_vec_dot(in->hits[i].vector, in->hits[j].vector, in->dim) / (norms[i] * norms[j]);
			c[pair] = cosine;
			sum += cosine;
			squares += cosine * cosine;
			least = fminf(least, cosine);
			greatest = fmaxf(greatest, cosine);
			n_pairs++;
		}
	if (n_pairs) {
		c[15] = sum / (float)n_pairs;
		c[16] = sqrtf(fmaxf(0, squares / (float)n_pairs - c[15] * c[15]));
		c[17] = least;
		c[18] = greatest;
	}
	for (int i = 0; i < n_hits; i++) {
		n_both += in->hits[i].vector_rank > 0 && in->hits[i].lexical_rank > 0;
		n_same += in->hits[i].source && in->hits[0].source && !strcmp(in->hits[i].source, in->hits[0].source);
	}
	c[19] = (float)n_both / (float)n_hits;
	coverage(&c[20], &c[21], in, n_hits);
	c[22] = in->hits[0].vector_rank == 1 && in->hits[0].lexical_rank == 1;
	c[23] = (float)n_same / (float)n_hits;
}

static void search_features(float *f, const ruv_route_input *in)
{
	int n_hits = in->n_hits < RUV_ROUTE_MAX_HITS ? in->n_hits : RUV_ROUTE_MAX_HITS, n = 0;
	float sum = 0, squares = 0, least = 2, greatest = 0, top = -1, total = 0, entropy = 0, mean;
	float overlap = in->n_vector > 0 ? clamp((float)in->n_both / (float)in->n_vector, 0, 1) : 0;

	f[RUV_FEATURE_DEPTH] = clamp((float)in->graph_depth / 4, 0, 4);
	f[RUV_FEATURE_RECALL] =
	    n_hits ? (in->ann_recall > 0 ? clamp((float)in->ann_recall, 0, 1) : 1) * (in->n_vector > 0 ? overlap : 1) : 0;
	if (n_hits <= 0)
		return;
	f[RUV_FEATURE_RETRIEVED] = clamp((float)n_hits / (float)(in->k > 0 ? in->k : n_hits), 0, 1);
	for (int i = 0; i < n_hits; i++)
		if (in->hits[i].cosine != 0) {
			float distance = 1 - in->hits[i].cosine;

			n++;
			sum += distance;
			squares += distance * distance;
			least = fminf(least, distance);
			greatest = fmaxf(greatest, distance);
			top = fmaxf(top, in->hits[i].cosine);
			for (int b = 0; b < 16; b++)
				f[RUV_FEATURE_DENSITY + b] += distance <= (float)(b + 1) / 16;
		}
	if (n) {
		mean = sum / (float)n;
		f[RUV_FEATURE_DISTANCES] = mean;
		f[RUV_FEATURE_DISTANCES + 1] = sqrtf(fmaxf(0, squares / (float)n - mean * mean));
		f[RUV_FEATURE_DISTANCES + 2] = least;
		f[RUV_FEATURE_DISTANCES + 3] = greatest;
		for (int b = 0; b < 16; b++)
			f[RUV_FEATURE_DENSITY + b] /= (float)n;
		for (int i = 0; i < n_hits; i++)
			if (in->hits[i].cosine != 0)
				total += expf((in->hits[i].cosine - top) / 0.1f);
		for (int i = 0; i < n_hits; i++)
			if (in->hits[i].cosine != 0) {
				float p = expf((in->hits[i].cosine - top) / 0.1f) / total;
				entropy -= p > 0 ? p * logf(p) : 0;
			}
		f[RUV_FEATURE_HIT_ENTROPY] = n > 1 ? entropy / logf((float)n) : 0;
	}
	coherence_features(f + RUV_FEATURE_COHERENCE, in, n_hits);
}

/* ---- the system -------------------------------------------------------------------------------------------------------- */

static void system_features(float *f, const ruv_route_system *s)
{
	static const ruv_route_system nothing = {.device = RUV_DEVICE_EDGE};

	if (!s)
		s = &nothing;
	f[RUV_FEATURE_BUDGET] = s->latency_budget_ms > 0 ? clamp(log10f(1 + (float)s->latency_budget_ms) / 5, 0, 1) : 1;
	f[RUV_FEATURE_DEVICE + (int)s->device % 4] = 1;
	f[RUV_FEATURE_PRIVACY + (int)s->privacy % 4] = 1;
	f[RUV_FEATURE_MEMORY] =
	    s->memory_available > 0 ? clamp(log2f(1 + (float)s->memory_available / (float)(1 << 30)) / 8, 0, 2) : 1;
	f[RUV_FEATURE_BATTERY] = s->battery > 0 ? clamp((float)s->battery, 0, 1) : 1;
	f[RUV_FEATURE_CONCURRENT] = log2f(1 + (float)(s->n_concurrent > 0 ? s->n_concurrent : 0)) / 6;
	f[RUV_FEATURE_QUEUE] = log2f(1 + (float)(s->n_queued > 0 ? s->n_queued : 0)) / 6;
	f[RUV_FEATURE_PAGES] = 1 - clamp((float)s->pages_used, 0, 1);
	f[RUV_FEATURE_PREFIX] = clamp((float)s->prefix_hits, 0, 1);
	f[RUV_FEATURE_ADAPTER] = s->adapter_active;
}

static bool read_number(const char *path, const char *key, int64_t *value)
{
	FILE *file = fopen(path, "re");
	char line[256];
	bool found = false;
	size_t n = strlen(key);

	while (file && !found && fgets(line, sizeof line, file))
		if (!strncmp(line, key, n)) {
			*value = strtoll(line + n, NULL, 10);
			found = true;
		}
	if (file)
		fclose(file);
	return found;
}

void ruv_route_system_fill(ruv_route_system *system)
{
	int64_t available_kib = 0, percent = 0, total_kib = 0;
	int n_cores = ruv_cpu_get()->n_cores;

	system->memory_available = read_number("/proc/meminfo", "MemAvailable:", &available_kib) ? available_kib << 10 : 0;
	read_number("/proc/meminfo", "MemTotal:", &total_kib);
	system->battery = 0;
	if (read_number("/sys/class/power_supply/BAT0/capacity", "", &percent) ||
	    read_number("/sys/class/power_supply/BAT1/capacity", "", &percent))
		system->battery = percent > 0 ? (double)percent / 100 : 0.001;
	if (system->battery > 0)
		system->device = total_kib < (int64_t)6 << 20 ? RUV_DEVICE_MOBILE : RUV_DEVICE_EDGE;
	else
		system->device = n_cores >= 16 && total_kib >= (int64_t)60 << 20 ? RUV_DEVICE_SERVER : RUV_DEVICE_EDGE;
}

void ruv_route_input_hits(ruv_route_input *input, ruv_route_hit *hits, const ruv_memory_hits *found, int k)
{
	int n = found->n < RUV_ROUTE_MAX_HITS ? found->n : RUV_ROUTE_MAX_HITS, n_both = 0;

	for (int i = 0; i < n; i++) {
		const ruv_memory_hit *hit = &found->items[i];

		hits[i] = (ruv_route_hit){.text = hit->node.text,
		                          .source = hit->node.source,
		                          .vector = hit->node.vector,
		                          .score = hit->score,
		                          .cosine = hit->cosine,
		                          .vector_rank = hit->vector_rank,
		                          .lexical_rank = hit->lexical_rank};
		n_both += hit->vector_rank > 0 && hit->lexical_rank > 0;
	}
	input->hits = hits;
	input->n_hits = n;
	input->k = k;
	input->n_both = n_both;
	input->n_vector = found->n_vector < n ? found->n_vector : n;
}

int ruv_features_compute(float features[RUV_ROUTE_FEATURES], const ruv_textclass *classes, const ruv_basis *basis,
                         const ruv_route_input *in, ruv_error *err)
{
	memset(features, 0, sizeof(float) * RUV_ROUTE_FEATURES);
	if (!in->text || !*in->text)
		return ruv_fail(err, RUV_EINVAL, "router", "a question without text cannot be routed");
	if (in->embedding && basis->dim && in->dim != basis->dim)
		return ruv_fail(err, RUV_EMISMATCH, "router", "the embedding has %d numbers, the router was trained with %d",
		                in->dim, basis->dim);
	query_features(features, classes, in, strlen(in->text));
	if (in->embedding && in->dim > 0)
		embedding_features(features, basis, in);
	search_features(features, in);
	system_features(features, in->system);
	for (int i = 0; i < RUV_ROUTE_FEATURES; i++)
		if (!isfinite(features[i]))
			return ruv_fail(err, RUV_EINVAL, "router",
			                "feature %s is not finite: the embedding or a hit's numbers are not",
			                ruv_feature_name(i, NULL));
	return RUV_OK;
}
