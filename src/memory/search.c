/* search.c - hybrid search: vectors and words, fused, then read from the store under the same filter.
 *
 * Invariants: a scope is enforced three times, in the scan of the vectors, in the word query, and when the hits are read; a hit
 * that the store does not confirm is dropped. Searches take no lock that a writer holds for longer than an instant. Layer: memory.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "memory/dot.h"
#include "memory/fuse.h"
#include "memory/lexical.h"
#include "memory/memory_impl.h"
#include "memory/refine.h"

enum { DEFAULT_K = 10, MIN_CANDIDATES = 50, MAX_CANDIDATES = 100000 };

typedef struct request {
	ruv_memory *memory;
	const ruv_memory_query *query;
	ruv_memory_filter filter;
	int k, n_candidates, rrf_k;
	bool by_vector, by_words;
	ruv_index *index; /* one for the whole search, even if the embedder changes meanwhile */
	ruv_vectors *vectors;
	bool by_graph;
	float *unit; /* [stride] aligned */
	ruv_candidate *candidates;
	int n;                  /* of candidates */
	ruv_near *near;         /* [n_candidates] */
	ruv_store_match *words; /* [n_candidates] */
	int n_near, n_words;
} request;

static int prepare(request *r, ruv_memory *m, const ruv_memory_query *q, ruv_error *err)
{
	int rc = ruv_filter_check(&r->filter, &q->filter, err), dimension = 0;
	bool has_text = q->text && *q->text;
	double norm = 0;

	r->memory = m;
	r->query = q;
	if (rc)
		return rc;
	r->k = q->k ? q->k : DEFAULT_K;
	if (r->k < 1 || r->k > RUV_MEMORY_MAX_K)
		return ruv_fail(err, RUV_EINVAL, "memory", "k is %d, 1 to %d are possible", q->k, RUV_MEMORY_MAX_K);
	r->n_candidates = q->n_candidates ? q->n_candidates : 4 * r->k > MIN_CANDIDATES ? 4 * r->k : MIN_CANDIDATES;
	if (r->n_candidates < r->k || r->n_candidates > MAX_CANDIDATES)
		return ruv_fail(err, RUV_EINVAL, "memory", "%d candidates a list, k (%d) to %d are possible", r->n_candidates, r->k,
		                MAX_CANDIDATES);
	r->rrf_k = q->rrf_k ? q->rrf_k : 60;
	if (r->rrf_k < 0 || q->vector_weight < 0 || q->lexical_weight < 0 || !isfinite(q->vector_weight) ||
	    !isfinite(q->lexical_weight))
		return ruv_fail(err, RUV_EINVAL, "memory", "weights %g and %g, rrf_k %d: none may be negative",
		                (double)q->vector_weight, (double)q->lexical_weight, r->rrf_k);
	if (!(q->label_weight >= 0 && q->label_weight < INFINITY) || !(q->recency_weight >= 0 && q->recency_weight <= 1) ||
	    !(q->recency_days >= 0) || !(q->confidence_weight >= 0 && q->confidence_weight < INFINITY) ||
	    !(q->mmr_lambda >= 0 && q->mmr_lambda <= 1))
		return ruv_fail(err, RUV_EINVAL, "memory",
		                "weights of labels %g, recency %g (to 1), confidence %g and lambda %g (to 1): none may be negative",
		                (double)q->label_weight, (double)q->recency_weight, (double)q->confidence_weight,
		                (double)q->mmr_lambda);
	if (q->ef < 0 || q->ef > RUV_HNSW_MAX_EF)
		return ruv_fail(err, RUV_EINVAL, "memory", "ef is %d, up to %d is possible", q->ef, RUV_HNSW_MAX_EF);
	if ((unsigned)q->mode > RUV_SEARCH_LEXICAL || (unsigned)q->fusion > RUV_FUSE_ZSCORE)
		return ruv_fail(err, RUV_EINVAL, "memory", "mode %d, fusion %d: no such way to search", (int)q->mode,
		                (int)q->fusion);
	r->by_vector = q->mode == RUV_SEARCH_VECTOR || (q->mode == RUV_SEARCH_HYBRID && q->vector);
	r->by_words = q->mode == RUV_SEARCH_LEXICAL || (q->mode == RUV_SEARCH_HYBRID && has_text);
	if (r->by_vector && !q->vector)
		return ruv_fail(err, RUV_EINVAL, "memory", "a search by vector needs the question's vector");
	if ((r->by_words && !q->text) || (!r->by_vector && !r->by_words))
		return ruv_fail(err, RUV_EINVAL, "memory", "a search needs a text or a vector");
	r->words = malloc((size_t)r->n_candidates * sizeof *r->words);
	r->near = malloc((size_t)r->n_candidates * sizeof *r->near);
	r->candidates = malloc((size_t)r->n_candidates * 2 * sizeof *r->candidates);
	if (!r->words || !r->near || !r->candidates)
		return ruv_fail_memory(err, "memory", (size_t)r->n_candidates * 2 * sizeof *r->candidates);
	if (!r->by_vector)
		return RUV_OK;
	rc = ruv_memory_sync(m, false, err);
	if (rc)
		return rc;
	r->index = atomic_load(&m->index);
	if (!r->index)
		return ruv_fail(err, RUV_EBUSY, "memory", "the memory's embedder is being changed");
	r->vectors = ruv_index_vectors(r->index);
	dimension = ruv_vectors_dimension(r->vectors);
	rc = ruv_vector_check(q->vector, dimension, err);
	if (rc)
		return ruv_error_prefix(err, rc, "the question: ");
	r->unit = aligned_alloc(64, sizeof *r->unit * (size_t)((dimension + 15) & ~15));
	if (!r->unit)
		return ruv_fail_memory(err, "memory", sizeof *r->unit * (size_t)dimension);
	memset(r->unit, 0, sizeof *r->unit * (size_t)((dimension + 15) & ~15));
	for (int i = 0; i < dimension; i++)
		norm += (double)q->vector[i] * q->vector[i];
	norm = 1 / sqrt(norm);
	for (int i = 0; i < dimension; i++)
		r->unit[i] = (float)(q->vector[i] * norm);
	return RUV_OK;
}

static int by_key(const void *a, const void *b)
{
	const ruv_candidate *x = a, *y = b;

	return x->key < y->key ? -1 : x->key > y->key;
}

/* Both lists into one array of candidates, each key once. */
static void merge(request *r)
{
	int n = 0, kept = 0;

	for (int i = 0; i < r->n_near; i++)
		r->candidates[n++] =
		    (ruv_candidate){.key = r->near[i].key, .vector_rank = i + 1, .cosine = r->near[i].cosine, .has_cosine = true};
	for (int i = 0; i < r->n_words; i++)
		r->candidates[n++] =
		    (ruv_candidate){.key = r->words[i].key, .lexical_rank = i + 1, .bm25 = (float)r->words[i].score};
	qsort(r->candidates, (size_t)n, sizeof *r->candidates, by_key);
	for (int i = 0; i < n; i++) {
		ruv_candidate *last = kept ? &r->candidates[kept - 1] : NULL;
		if (last && last->key == r->candidates[i].key) {
			const ruv_candidate *c = &r->candidates[i];
			if (c->vector_rank) {
				last->vector_rank = c->vector_rank;
				last->cosine = c->cosine;
				last->has_cosine = true;
			}
			if (c->lexical_rank) {
				last->lexical_rank = c->lexical_rank;
				last->bm25 = c->bm25;
			}
		} else {
			r->candidates[kept++] = r->candidates[i];
		}
	}
	r->n = kept;
}

static int search_vectors(request *r, ruv_error *err)
{
	ruv_index_query query = {.unit = r->unit,
	                         .k = r->n_candidates,
	                         .ef = r->query->ef,
	                         .min_cosine = r->query->min_cosine != 0 ? r->query->min_cosine : -INFINITY,
	                         .exact = r->query->exact,
	                         .filter = &r->filter,
	                         .now_ms = ruv_clock_wall_ms()};

	return ruv_index_search(r->near, &r->n_near, r->index, &query, &r->by_graph, err);
}

/* The cosines of candidates that only the words brought. */
static void complete_cosines(request *r)
{
	ruv_vectors *vectors = r->vectors;
	ruv_dot_f32_fn *dot = ruv_dot_f32_kernel();
	unsigned ticket = ruv_vectors_enter(vectors);

	for (int i = 0; i < r->n; i++) {
		ruv_candidate *c = &r->candidates[i];
		const float *row = c->has_cosine ? NULL : ruv_vectors_find(vectors, c->key);
		if (row) {
			c->cosine = dot(r->unit, row, ruv_vectors_stride(vectors));
			c->has_cosine = true;
		}
	}
	ruv_vectors_leave(vectors, ticket);
}

static void rank(request *r)
{
	const ruv_memory_query *q = r->query;
	double vector_weight = q->vector_weight > 0 ? q->vector_weight : 1,
	       lexical_weight = q->lexical_weight > 0 ? q->lexical_weight : 1;
	double floor = r->n_words == r->n_candidates ? r->words[r->n_words - 1].score : 0;

	if (r->by_vector && r->by_words && q->fusion == RUV_FUSE_ZSCORE)
		ruv_fuse_zscore(r->candidates, r->n, vector_weight, lexical_weight, floor);
	else if (r->by_vector && r->by_words)
		ruv_fuse_rrf(r->candidates, r->n, vector_weight, lexical_weight, r->rrf_k);
	else
		for (int i = 0; i < r->n; i++)
			r->candidates[i].score = r->by_vector ? r->candidates[i].cosine : r->candidates[i].bm25;
	ruv_fuse_sort(r->candidates, r->n);
}

/* All candidates' nodes are there: labels, priors, variety. keys [out->n]. */
static int refine(request *r, ruv_memory_hits *out, const int64_t *keys, ruv_error *err)
{
	bool varied = r->query->mmr_lambda > 0 && r->by_vector;
	const float **rows = varied ? calloc((size_t)out->n + 1, sizeof *rows) : NULL;
	unsigned ticket = 0;
	int n;

	if (varied && !rows)
		return ruv_fail_memory(err, "memory", (size_t)out->n * sizeof *rows);
	if (varied) {
		ticket = ruv_vectors_enter(r->vectors);
		for (int i = 0; i < out->n; i++)
			rows[i] = ruv_vectors_find(r->vectors, keys[i]);
	}
	n = ruv_refine(out->items, out->n, r->k, r->query, r->by_vector && r->by_words && r->query->fusion == RUV_FUSE_ZSCORE, rows,
	               varied ? ruv_vectors_stride(r->vectors) : 0, ruv_clock_wall_ms(), err);
	if (varied)
		ruv_vectors_leave(r->vectors, ticket);
	free(rows);
	out->n = n < 0 ? 0 : n;
	return n < 0 ? n : RUV_OK;
}

/* Reads the best k that the store still has, in portions: some may be gone since the lists were made. */
static int fetch(request *r, ruv_memory_hits *out, ruv_arena *arena, ruv_error *err)
{
	enum { PORTION = 64 };
	ruv_memory_node nodes[PORTION];
	int64_t keys[PORTION];
	bool found[PORTION];
	bool refined = ruv_refine_wanted(r->query);
	int64_t *keys_of = NULL;
	int most = refined ? (r->n > r->k ? r->n : r->k) : r->k;

	out->items = ruv_arena_calloc(arena, (size_t)most, sizeof *out->items);
	if (!out->items)
		return ruv_fail_memory(err, "memory", (size_t)most * sizeof *out->items);
	if (refined && !(keys_of = ruv_arena_calloc(arena, (size_t)most, sizeof *keys_of)))
		return ruv_fail_memory(err, "memory", (size_t)most * sizeof *keys_of);
	for (int i = 0; i < r->n && out->n < most;) {
		int n = r->n - i, rc;
		if (n > most - out->n)
			n = most - out->n;
		if (n > PORTION)
			n = PORTION;
		for (int j = 0; j < n; j++)
			keys[j] = r->candidates[i + j].key;
		memset(found, 0, sizeof found);
		rc = r->memory->store->ops->nodes_by_key(r->memory->store, arena, nodes, found, keys, n, &r->filter,
		                                         r->query->with_vectors, err);
		if (rc)
			return rc;
		for (int j = 0; j < n; j++) {
			const ruv_candidate *c = &r->candidates[i + j];
			if (found[j] && keys_of)
				keys_of[out->n] = keys[j];
			if (found[j])
				out->items[out->n++] = (ruv_memory_hit){.node = nodes[j],
				                                        .score = c->score,
				                                        .vector_rank = c->vector_rank,
				                                        .lexical_rank = c->lexical_rank,
				                                        .cosine = c->cosine,
				                                        .bm25 = c->bm25};
		}
		i += n;
	}
	return refined ? refine(r, out, keys_of, err) : RUV_OK;
}

/* For the same question while the store is what it was when this one began. */
static void keep(ruv_memory *m, const ruv_memory_hits *hits, const ruv_buf *key)
{
	int64_t expires_ms = 0;
	ruv_error err;

	if (!m->store->ops->next_expiry(m->store, &expires_ms, &err))
		ruv_cache_keep(m->cache, hits, key, ruv_clock_wall_ms(), expires_ms);
}

int ruv_memory_search(ruv_memory *m, ruv_memory_hits *out, const ruv_memory_query *query, ruv_error *err)
{
	int64_t start = ruv_clock_now_ns(), then;
	ruv_store_term terms[RUV_LEXICAL_MAX_TERMS];
	ruv_arena *arena = NULL;
	request r = {0};
	ruv_buf key;
	bool kept = false;
	int rc;

	memset(out, 0, sizeof *out);
	ruv_buf_init(&key, (size_t)RUV_MEMORY_MAX_TEXT * 4);
	rc = prepare(&r, m, query, err);
	if (rc)
		goto done;
	/* Recency asks for the time, which is another one every time. */
	if (m->cache && !(query->recency_weight > 0)) {
		int64_t seq = 0;
		rc = m->store->ops->last_event(m->store, &seq, err);
		if (rc)
			goto done;
		kept = !ruv_cache_key(&key, query, r.by_vector ? ruv_vectors_dimension(r.vectors) : 0, seq);
		/* An index that another thread is just bringing up to date answers from before this event. */
		kept = kept && (!r.by_vector || atomic_load(&m->index_seq) >= seq) &&
		       (!r.by_words || !atomic_load(&m->words) || atomic_load(&m->words_seq) >= seq);
		if (kept && ruv_cache_find(m->cache, out, &key, ruv_clock_wall_ms()))
			goto done;
	}
	arena = ruv_memory_arena(err);
	if (!arena) {
		rc = RUV_ENOMEM;
		goto done;
	}
	if (r.by_vector) {
		then = ruv_clock_now_ns();
		rc = search_vectors(&r, err);
		out->vector_ns = ruv_clock_now_ns() - then;
	}
	if (!rc && r.by_words) {
		int n_terms = ruv_lexical_terms(terms, query->text);
		then = ruv_clock_now_ns();
		rc = ruv_memory_lexical(m, r.words, &r.n_words, terms, n_terms, &r.filter, r.n_candidates, err);
		out->lexical_ns = ruv_clock_now_ns() - then;
	}
	if (rc)
		goto done;
	merge(&r);
	if (r.by_vector)
		complete_cosines(&r);
	rank(&r);
	rc = fetch(&r, out, arena, err);
	out->n_vector = r.n_near;
	out->n_lexical = r.n_words;
	out->by_graph = r.by_graph;
	out->total_ns = ruv_clock_now_ns() - start;
	if (!rc) {
		rc = ruv_cache_own(out, arena, err);
		arena = NULL;
	}
	if (!rc && kept)
		keep(m, out, &key);
done:
	ruv_buf_release(&key);
	ruv_memory_arena_free(arena);
	free(r.unit);
	free(r.candidates);
	free(r.near);
	free(r.words);
	if (rc)
		ruv_memory_hits_release(out);
	return rc;
}

void ruv_memory_hits_release(ruv_memory_hits *hits)
{
	ruv_cache_release(hits->owner);
	memset(hits, 0, sizeof *hits);
}
