/* refine.c - see refine.h.
 *
 * Labels are a third list of the fusion: the candidates in the order of how well their title and tags match the question, each
 * place worth label_weight / (rrf_k + place); with z-scores, the match itself counts. Priors: a score is multiplied by 1 - w + w *
 * 2^(-age / half life) and by confidence^w. Variety is maximal marginal relevance (Carbonell & Goldstein 1998): the next hit is the
 * one with the greatest lambda * relevance - (1 - lambda) * greatest cosine to a hit before it, relevance being the score on a
 * scale from 0 to 1. Layer: memory. */
#include "memory/refine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "memory/dot.h"
#include "memory/lexical.h"

static const double DAY_MS = 86400e3;

bool ruv_refine_wanted(const ruv_memory_query *q)
{
	return q->label_weight > 0 || q->recency_weight > 0 || q->confidence_weight > 0 || q->mmr_lambda > 0;
}

static bool has_word(const ruv_store_term *terms, int n, const ruv_store_term *word)
{
	for (int i = 0; i < n; i++)
		if (terms[i].n == word->n && !strncasecmp(terms[i].text, word->text, (size_t)word->n))
			return true;
	return false;
}

/* The share of text's words that are among the terms. */
static double share(const char *text, const ruv_store_term *terms, int n)
{
	ruv_store_term words[RUV_LEXICAL_MAX_TERMS];
	int n_words = ruv_lexical_terms(words, text ? text : ""), found = 0;

	for (int i = 0; i < n_words; i++)
		found += has_word(terms, n, &words[i]);
	return n_words ? (double)found / n_words : 0;
}

double ruv_refine_label_match(const ruv_memory_node *node, const char *question)
{
	ruv_store_term terms[RUV_LEXICAL_MAX_TERMS];
	int n = ruv_lexical_terms(terms, question);
	double match = share(node->title, terms, n);

	for (int i = 0; i < node->n_tags; i++)
		match += share(node->tags[i], terms, n) == 1;
	return match;
}

typedef struct place {
	double match;
	int at;
} place;

static int greater_first(const void *a, const void *b)
{
	const place *x = a, *y = b;

	return x->match != y->match ? (x->match > y->match ? -1 : 1) : (x->at > y->at) - (x->at < y->at);
}

static int better_first(const void *a, const void *b)
{
	const ruv_memory_hit *x = a, *y = b;

	return x->score != y->score ? (x->score > y->score ? -1 : 1) : strcmp(x->node.id, y->node.id);
}

static int add_labels(ruv_memory_hit *hits, int n, const ruv_memory_query *q, bool added, ruv_error *err)
{
	place *places = malloc((size_t)n * sizeof *places);

	if (!places)
		return ruv_fail_memory(err, "memory", (size_t)n * sizeof *places);
	for (int i = 0; i < n; i++)
		places[i] = (place){ruv_refine_label_match(&hits[i].node, q->text), i};
	qsort(places, (size_t)n, sizeof *places, greater_first);
	for (int i = 0, rank = 0; i < n && places[i].match > 0; i++) {
		rank = i && places[i].match == places[i - 1].match ? rank : i + 1; /* equal matches have one place */
		hits[places[i].at].score += added ? (double)q->label_weight * places[i].match
		                                  : (double)q->label_weight / ((q->rrf_k ? q->rrf_k : 60) + rank);
	}
	free(places);
	return RUV_OK;
}

static void add_priors(ruv_memory_hit *hits, int n, const ruv_memory_query *q, bool added, int64_t now_ms)
{
	double half_life = (q->recency_days > 0 ? (double)q->recency_days : 30) * DAY_MS;

	for (int i = 0; i < n; i++) {
		const ruv_memory_node *node = &hits[i].node;
		double age = now_ms > node->updated_ms ? (double)(now_ms - node->updated_ms) : 0;
		double fresh = exp2(-age / half_life), w = (double)q->recency_weight;
		if (added || hits[i].score < 0) {
			hits[i].score += w * fresh + (double)q->confidence_weight * log((double)node->confidence);
		} else {
			hits[i].score *= 1 - w + w * fresh;
			hits[i].score *= pow((double)node->confidence, (double)q->confidence_weight);
		}
	}
}

/* A hit with what varying needs; they are sorted together. */
typedef struct candidate {
	ruv_memory_hit hit;
	const float *row;
	double nearest; /* the greatest cosine to a chosen one */
	bool taken;
} candidate;

static int candidate_first(const void *a, const void *b)
{
	const candidate *x = a, *y = b;

	return better_first(&x->hit, &y->hit);
}

/* The first k by marginal relevance, to `to`; how many. */
static int vary(ruv_memory_hit *to, candidate *c, int n, int k, double lambda, int stride)
{
	ruv_dot_f32_fn *dot = ruv_dot_f32_kernel();
	double least = c[n - 1].hit.score, most = c[0].hit.score;
	int kept = 0;

	while (kept < k && kept < n) {
		double best = -INFINITY;
		int at = -1;
		for (int i = 0; i < n; i++) {
			double relevance = most > least ? (c[i].hit.score - least) / (most - least) : 1;
			double value = lambda * relevance - (1 - lambda) * c[i].nearest;
			if (!c[i].taken && value > best) {
				best = value;
				at = i;
			}
		}
		c[at].taken = true;
		to[kept++] = c[at].hit;
		for (int i = 0; c[at].row && i < n; i++)
			if (!c[i].taken && c[i].row) {
				double cosine = (double)dot(c[at].row, c[i].row, stride);
				c[i].nearest = cosine > c[i].nearest ? cosine : c[i].nearest;
			}
	}
	return kept;
}

int ruv_refine(ruv_memory_hit *hits, int n, int k, const ruv_memory_query *q, bool added, const float *const *rows, int stride,
               int64_t now_ms, ruv_error *err)
{
	candidate *c;
	int rc = RUV_OK;

	if (!n)
		return 0;
	if (q->label_weight > 0 && q->text)
		rc = add_labels(hits, n, q, added, err);
	if (rc)
		return rc;
	if (q->recency_weight > 0 || q->confidence_weight > 0)
		add_priors(hits, n, q, added, now_ms);
	if (!rows) {
		qsort(hits, (size_t)n, sizeof *hits, better_first);
		return n < k ? n : k;
	}
	c = calloc((size_t)n, sizeof *c);
	if (!c)
		return ruv_fail_memory(err, "memory", (size_t)n * sizeof *c);
	for (int i = 0; i < n; i++)
		c[i] = (candidate){.hit = hits[i], .row = rows[i]};
	qsort(c, (size_t)n, sizeof *c, candidate_first);
	n = vary(hits, c, n, k, (double)q->mmr_lambda, stride);
	free(c);
	return n;
}
