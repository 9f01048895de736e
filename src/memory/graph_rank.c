/* graph_rank.c - gathering a neighbourhood around hits, and ranking by graph attention; see graph_rank.h.
 *
 * A node's features, in order:
 *      0  1 for a hit of the search            7  two edges away
 *      1  the search's score, standardised     8  share of its title's words that the question has
 *      2  1 / sqrt(rank) in the search         9  share of the question's words that its text has
 *      3  1 / sqrt(rank) by vector            10  a Document
 *      4  1 / sqrt(rank) by words             11  confidence
 *      5  cosine, standardised over the view  12  log(1 + edges) / 4
 *      6  one edge away                       13  bm25 as a share of the best
 * Reached nodes have no rank; their base score is just below the last hit's. Recency of an edge halves with every 30 days.
 * Layer: memory. */
#include "memory/graph_rank.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/status.h"
#include "memory/cache.h"
#include "memory/dot.h"
#include "memory/lexical.h"
#include "memory/memory_impl.h"

static const double half_life_ms = 30.0 * 24 * 3600 * 1000;
/* A reached node's base score below that of the last hit, in standard deviations of the hits. */
static const float reached_below = 0.5F;

/* Which keys are in the view: open addressing. */
enum { N_BUCKETS = 512 };
typedef struct members {
	int64_t keys[N_BUCKETS];
	int at[N_BUCKETS];
} members;

static int *member_slot(members *m, int64_t key)
{
	unsigned h = (unsigned)((uint64_t)key * 0x9E3779B97F4A7C15u >> 55);

	while (m->keys[h] && m->keys[h] != key)
		h = (h + 1) % N_BUCKETS;
	if (!m->keys[h]) {
		m->keys[h] = key;
		m->at[h] = -1;
	}
	return &m->at[h];
}

static int member(const members *m, int64_t key)
{
	unsigned h = (unsigned)((uint64_t)key * 0x9E3779B97F4A7C15u >> 55);

	while (m->keys[h] && m->keys[h] != key)
		h = (h + 1) % N_BUCKETS;
	return m->keys[h] ? m->at[h] : -1;
}

typedef struct gathering {
	ruv_memory *memory;
	const ruv_memory_query *query;
	ruv_memory_filter filter;
	ruv_graph_view *view;
	ruv_vectors *vectors;
	float *unit; /* [stride] of the question, 64-byte aligned */
	ruv_dot_f32_fn *dot;
	float **rows; /* [MOST] copies */
	int *hops;    /* [MOST] */
	ruv_store_link *links[2];
	int n_links[2];
	members in;
} gathering;

static float cosine_of(const gathering *g, int64_t key)
{
	const float *row = ruv_vectors_find(g->vectors, key);

	return row ? g->dot(g->unit, row, ruv_vectors_stride(g->vectors)) : -1;
}

/* ---- reaching ----------------------------------------------------------------------------------------------------------- */

typedef struct reach {
	int64_t key;
	double strength;
} reach;

static int by_key(const void *a, const void *b)
{
	const reach *x = a, *y = b;

	return (x->key > y->key) - (x->key < y->key);
}

static int strongest_first(const void *a, const void *b)
{
	const reach *x = a, *y = b;

	return x->strength != y->strength ? (x->strength > y->strength ? -1 : 1) : by_key(a, b);
}

/* The nodes that links lead to from members and that are none, the most promising first: near the question in meaning, on a strong
 * edge, from a good hit. *out is malloced. */
static int reachable(gathering *g, reach **out, int *n, const ruv_store_link *links, int n_links, ruv_error *err)
{
	reach *items = malloc(sizeof *items * ((size_t)n_links + 1));
	int n_all = 0, kept = 0;

	*out = items;
	if (!items)
		return ruv_fail_memory(err, "memory", sizeof *items * (size_t)n_links);
	for (int i = 0; i < n_links; i++) {
		const int src = member(&g->in, links[i].src), dst = member(&g->in, links[i].dst);
		if ((src >= 0) == (dst >= 0))
			continue;
		items[n_all++] = (reach){src >= 0 ? links[i].dst : links[i].src,
		                         (double)links[i].weight * (double)links[i].confidence / (10 + (src >= 0 ? src : dst))};
	}
	qsort(items, (size_t)n_all, sizeof *items, by_key);
	for (int i = 0; i < n_all; i++) {
		if (kept && items[kept - 1].key == items[i].key)
			items[kept - 1].strength += items[i].strength;
		else
			items[kept++] = items[i];
	}
	for (int i = 0; i < kept; i++)
		items[i].strength = 4 * items[i].strength + (double)cosine_of(g, items[i].key);
	qsort(items, (size_t)kept, sizeof *items, strongest_first);
	*n = kept;
	return RUV_OK;
}

/* Reads up to `most` of them into the view. */
static int take(gathering *g, const reach *reached, int n, int most, int hop, ruv_error *err)
{
	ruv_graph_view *v = g->view;
	ruv_memory_node nodes[RUV_GRAPH_NEAR];
	bool found[RUV_GRAPH_NEAR];
	int64_t keys[RUV_GRAPH_NEAR];
	int rc;

	n = n < most ? n : most;
	for (int i = 0; i < n; i++)
		keys[i] = reached[i].key;
	memset(found, 0, sizeof found);
	rc = g->memory->store->ops->nodes_by_key(g->memory->store, v->arena, nodes, found, keys, n, &g->filter, false, err);
	for (int i = 0; !rc && i < n; i++) {
		if (!found[i])
			continue;
		v->items[v->n] = (ruv_memory_hit){.node = nodes[i]};
		v->keys[v->n] = keys[i];
		g->hops[v->n] = hop;
		*member_slot(&g->in, keys[i]) = v->n++;
	}
	return rc;
}

static int expand(gathering *g, ruv_error *err)
{
	static const int most[2] = {RUV_GRAPH_NEAR, RUV_GRAPH_FAR};
	const ruv_store_ops *ops = g->memory->store->ops;
	int rc = RUV_OK, from = 0;

	for (int hop = 0; !rc && hop < 2 && from < g->view->n; hop++) {
		const int to = g->view->n;
		reach *reached = NULL;
		int n = 0;
		rc = ops->links_of(g->memory->store, g->view->arena, &g->links[hop], &g->n_links[hop], g->view->keys + from,
		                   to - from, RUV_GRAPH_LINKS, err);
		if (!rc)
			rc = reachable(g, &reached, &n, g->links[hop], g->n_links[hop], err);
		if (!rc)
			rc = take(g, reached, n, most[hop], hop + 1, err);
		free(reached);
		from = to;
	}
	return rc;
}

/* ---- the graph ---------------------------------------------------------------------------------------------------------- */

static int link_order(const void *a, const void *b)
{
	const ruv_gat_edge *x = a, *y = b;

	if (x->to != y->to)
		return x->to - y->to;
	return x->from != y->from ? x->from - y->from : x->relation - y->relation;
}

static int make_edges(gathering *g, int64_t now_ms, ruv_error *err)
{
	ruv_gat_graph *graph = &g->view->graph;
	const int n_all = 2 * (g->n_links[0] + g->n_links[1]);
	ruv_gat_edge *edges = ruv_arena_calloc(g->view->arena, (size_t)n_all + 1, sizeof *edges);
	int n = 0, kept = 0;

	if (!edges)
		return ruv_fail_memory(err, "memory", (size_t)n_all * sizeof *edges);
	for (int hop = 0; hop < 2; hop++)
		for (int i = 0; i < g->n_links[hop]; i++) {
			const ruv_store_link *l = &g->links[hop][i];
			const int src = member(&g->in, l->src), dst = member(&g->in, l->dst);
			const double age = now_ms > l->created_ms ? (double)(now_ms - l->created_ms) : 0;
			if (src < 0 || dst < 0)
				continue;
			edges[n++] =
			    (ruv_gat_edge){src, dst, (int)l->type, l->weight, l->confidence, (float)exp2(-age / half_life_ms)};
			edges[n] = edges[n - 1];
			edges[n].from = dst;
			edges[n].to = src;
			edges[n++].relation += RUV_N_EDGE_TYPES;
		}
	/* An edge whose ends were both asked came twice. */
	qsort(edges, (size_t)n, sizeof *edges, link_order);
	for (int i = 0; i < n; i++)
		if (!kept || link_order(&edges[kept - 1], &edges[i]))
			edges[kept++] = edges[i];
	graph->edges = edges;
	graph->n_edges = kept;
	return RUV_OK;
}

/* Share of the terms that stand in the text as whole words, any ASCII case. */
static float overlap(const char *text, const ruv_store_term *terms, int n)
{
	bool seen[RUV_LEXICAL_MAX_TERMS] = {false};
	int n_seen = 0;

	for (const char *p = text; n && *p;) {
		int length = 0;
		while (isalnum((unsigned char)p[length]) || (unsigned char)p[length] >= 0x80)
			length++;
		for (int i = 0; length && i < n; i++)
			if (terms[i].n == length && !seen[i] && !strncasecmp(terms[i].text, p, (size_t)length)) {
				seen[i] = true;
				n_seen++;
			}
		p += length ? length : 1;
	}
	return n ? (float)n_seen / (float)n : 0;
}

/* Share of the title's own words, stop words aside, that are among the terms. */
static float title_share(const char *title, const ruv_store_term *terms, int n)
{
	int n_words = 0, n_found = 0;

	for (const char *p = title; n && *p;) {
		int length = 0, i = 0;
		while (isalnum((unsigned char)p[length]) || (unsigned char)p[length] >= 0x80)
			length++;
		if (length && !ruv_lexical_is_stop_word(p, length)) {
			while (i < n && (terms[i].n != length || strncasecmp(terms[i].text, p, (size_t)length)))
				i++;
			n_words++;
			n_found += i < n;
		}
		p += length ? length : 1;
	}
	return n_words ? (float)n_found / (float)n_words : 0;
}

static float of_rank(int rank)
{
	return rank > 0 ? 1 / sqrtf((float)rank) : 0;
}

static void standardise(double *mean, double *deviation, double sum, double squares, int n)
{
	*mean = n ? sum / n : 0;
	*deviation = n ? sqrt(fmax(squares / n - *mean * *mean, 0)) : 0;
	if (*deviation < 1e-9)
		*deviation = 1;
}

static int describe(gathering *g, ruv_error *err)
{
	ruv_graph_view *v = g->view;
	ruv_gat_graph *graph = &v->graph;
	float *features = ruv_arena_calloc(v->arena, (size_t)v->n * RUV_GAT_FEATURES + 1, sizeof *features);
	float *base = ruv_arena_calloc(v->arena, (size_t)v->n + 1, sizeof *base);
	int *degree = ruv_arena_calloc(v->arena, (size_t)v->n + 1, sizeof *degree);
	ruv_store_term terms[RUV_LEXICAL_MAX_TERMS];
	const int n_terms = g->query->text ? ruv_lexical_terms(terms, g->query->text) : 0;
	double sums[4] = {0}, mean, deviation, cosine_mean, cosine_deviation;
	float best_bm25 = 0;

	if (!features || !base || !degree)
		return ruv_fail_memory(err, "memory", (size_t)v->n * RUV_GAT_FEATURES * sizeof *features);
	for (int e = 0; e < graph->n_edges; e++)
		degree[graph->edges[e].to]++;
	for (int i = 0; i < v->n; i++) {
		const ruv_memory_hit *hit = &v->items[i];
		if (i < v->n_hits) {
			sums[0] += hit->score;
			sums[1] += hit->score * hit->score;
			best_bm25 = hit->bm25 > best_bm25 ? hit->bm25 : best_bm25;
		}
		sums[2] += (double)hit->cosine;
		sums[3] += (double)hit->cosine * (double)hit->cosine;
	}
	standardise(&mean, &deviation, sums[0], sums[1], v->n_hits);
	standardise(&cosine_mean, &cosine_deviation, sums[2], sums[3], v->n);
	for (int i = 0; i < v->n; i++) {
		const ruv_memory_hit *hit = &v->items[i];
		float *f = features + (size_t)i * RUV_GAT_FEATURES;
		const bool found = i < v->n_hits;
		base[i] = found ? (float)((hit->score - mean) / deviation) : base[v->n_hits - 1] - reached_below;
		f[0] = found;
		f[1] = base[i] > 5 ? 5 : base[i];
		f[2] = found ? of_rank(i + 1) : 0;
		f[3] = of_rank(hit->vector_rank);
		f[4] = of_rank(hit->lexical_rank);
		f[5] = (float)(((double)hit->cosine - cosine_mean) / cosine_deviation);
		f[6] = g->hops[i] == 1;
		f[7] = g->hops[i] == 2;
		f[8] = title_share(hit->node.title, terms, n_terms);
		f[9] = overlap(hit->node.text, terms, n_terms);
		f[10] = hit->node.type == RUV_NODE_DOCUMENT;
		f[11] = hit->node.confidence;
		f[12] = logf(1 + (float)degree[i]) / 4;
		f[13] = best_bm25 > 0 && hit->bm25 > 0 ? hit->bm25 / best_bm25 : 0;
	}
	graph->features = features;
	graph->base = base;
	return RUV_OK;
}

/* Copies the vectors of all nodes, so that the readers' part is left soon. */
static int copy_rows(gathering *g, ruv_error *err)
{
	ruv_graph_view *v = g->view;
	const size_t dim = (size_t)ruv_vectors_dimension(g->vectors);

	for (int i = 0; i < v->n; i++) {
		const float *row = ruv_vectors_find(g->vectors, v->keys[i]);
		if (!row)
			continue;
		g->rows[i] = ruv_arena_alloc(v->arena, sizeof *row * dim);
		if (!g->rows[i])
			return ruv_fail_memory(err, "memory", sizeof *row * dim);
		memcpy(g->rows[i], row, sizeof *row * dim);
		if (i >= v->n_hits)
			v->items[i].cosine = g->dot(g->unit, row, ruv_vectors_stride(g->vectors));
	}
	return RUV_OK;
}

static int gather(gathering *g, ruv_error *err)
{
	ruv_graph_view *v = g->view;
	const char *ids[RUV_GRAPH_HITS];
	const size_t dim = (size_t)ruv_vectors_dimension(g->vectors);
	double norm = 0;
	int rc;

	v->items = ruv_arena_calloc(v->arena, RUV_GRAPH_MOST, sizeof *v->items);
	v->keys = ruv_arena_calloc(v->arena, RUV_GRAPH_MOST, sizeof *v->keys);
	g->hops = ruv_arena_calloc(v->arena, RUV_GRAPH_MOST, sizeof *g->hops);
	g->rows = ruv_arena_calloc(v->arena, RUV_GRAPH_MOST, sizeof *g->rows);
	g->dot = ruv_dot_f32_kernel();
	g->unit = ruv_arena_calloc(v->arena, (size_t)ruv_vectors_stride(g->vectors) + 16, sizeof *g->unit);
	if (!v->items || !v->keys || !g->hops || !g->rows || !g->unit)
		return ruv_fail_memory(err, "memory", RUV_GRAPH_MOST * sizeof *v->items);
	g->unit += (64 - (uintptr_t)g->unit % 64) % 64 / sizeof *g->unit;
	for (size_t i = 0; i < dim; i++)
		norm += (double)g->query->vector[i] * (double)g->query->vector[i];
	for (size_t i = 0; i < dim; i++)
		g->unit[i] = (float)((double)g->query->vector[i] / sqrt(norm));
	v->n = v->n_hits = v->hits.n;
	for (int i = 0; i < v->n; i++) {
		v->items[i] = v->hits.items[i];
		ids[i] = v->items[i].node.id;
	}
	rc = g->memory->store->ops->node_keys(g->memory->store, v->keys, ids, v->n, err);
	if (rc)
		return rc;
	for (int i = 0; i < v->n; i++)
		if (v->keys[i]) /* else forgotten since it was found */
			*member_slot(&g->in, v->keys[i]) = i;
	{
		unsigned ticket = ruv_vectors_enter(g->vectors);
		rc = expand(g, err);
		if (!rc)
			rc = copy_rows(g, err);
		ruv_vectors_leave(g->vectors, ticket);
	}
	v->graph.n = v->n;
	v->graph.question = g->unit;
	v->graph.rows = (const float *const *)g->rows;
	v->graph.hops = g->hops;
	if (!rc)
		rc = make_edges(g, ruv_clock_wall_ms(), err);
	return rc ? rc : describe(g, err);
}

int ruv_graph_view_make(ruv_graph_view *view, ruv_memory *memory, const ruv_memory_query *query, ruv_error *err)
{
	ruv_memory_query wider = *query;
	gathering g = {.memory = memory, .query = query, .view = view};
	int64_t then = ruv_clock_now_ns(), cpu = ruv_clock_cpu_ns();
	const int k = query->k ? query->k : 10;
	ruv_index *index;
	int rc;

	memset(view, 0, sizeof *view);
	/* The same candidates as without a graph, so that the same order comes out; more of them are read. */
	wider.n_candidates = query->n_candidates ? query->n_candidates : k > 12 ? 4 * k : 50;
	wider.k = k > RUV_GRAPH_HITS ? k : wider.n_candidates < RUV_GRAPH_HITS ? wider.n_candidates : RUV_GRAPH_HITS;
	rc = ruv_memory_search(memory, &view->hits, &wider, err);
	view->search_ns = ruv_clock_now_ns() - then;
	view->search_cpu_ns = ruv_clock_cpu_ns() - cpu;
	view->n = view->n_hits = view->hits.n;
	if (rc || !query->vector || query->mmr_lambda > 0 || !view->hits.n || wider.k > RUV_GRAPH_HITS ||
	    query->mode == RUV_SEARCH_LEXICAL)
		return rc;
	then = ruv_clock_now_ns();
	cpu = ruv_clock_cpu_ns();
	rc = ruv_filter_check(&g.filter, &query->filter, err);
	index = atomic_load(&memory->index);
	if (!rc && !index)
		rc = ruv_fail(err, RUV_EBUSY, "memory", "the memory's embedder is being changed");
	if (!rc) {
		g.vectors = ruv_index_vectors(index);
		view->arena = ruv_memory_arena(err);
		rc = view->arena ? gather(&g, err) : RUV_ENOMEM;
	}
	view->gather_ns = ruv_clock_now_ns() - then;
	view->gather_cpu_ns = ruv_clock_cpu_ns() - cpu;
	if (rc)
		ruv_graph_view_release(view);
	return rc;
}

void ruv_graph_view_release(ruv_graph_view *view)
{
	ruv_memory_hits_release(&view->hits);
	ruv_memory_arena_free(view->arena);
	memset(view, 0, sizeof *view);
}

/* ---- ranking ------------------------------------------------------------------------------------------------------------ */

void ruv_graph_keep_first(const ruv_graph_view *view, float *scores)
{
	float most = scores[0];

	if (!view->items || !view->n_hits || view->items[0].vector_rank != 1 || view->items[0].lexical_rank != 1)
		return;
	for (int i = 1; i < view->n; i++)
		most = scores[i] > most ? scores[i] : most;
	scores[0] = most; /* of equal scores the first comes first */
}

typedef struct place {
	float score;
	int at;
} place;

static int best_first(const void *a, const void *b)
{
	const place *x = a, *y = b;

	return x->score != y->score ? (x->score > y->score ? -1 : 1) : x->at - y->at;
}

/* The first k of the view by score. The result takes over the view's arena and hits. */
static int hand_out(ruv_memory_hits *out, ruv_graph_view *view, const float *scores, int k, ruv_error *err)
{
	place places[RUV_GRAPH_MOST];
	ruv_memory_hit *items = ruv_arena_calloc(view->arena, (size_t)k + 1, sizeof *items);
	int n = view->n < k ? view->n : k;

	if (!items)
		return ruv_fail_memory(err, "memory", (size_t)k * sizeof *items);
	for (int i = 0; i < view->n; i++)
		places[i] = (place){scores[i], i};
	qsort(places, (size_t)view->n, sizeof *places, best_first);
	for (int i = 0; i < n; i++) {
		items[i] = view->items[places[i].at];
		items[i].score = (double)places[i].score;
	}
	*out = view->hits;
	out->items = items;
	out->n = n;
	ruv_cache_attach(out, view->arena);
	memset(view, 0, sizeof *view);
	return RUV_OK;
}

int ruv_graph_search(ruv_memory *memory, ruv_memory_hits *out, const ruv_memory_query *query, const ruv_gat_model *model,
                     ruv_graph_times *times, ruv_error *err)
{
	const int k = query->k ? query->k : 10;
	ruv_graph_view view;
	ruv_gat_pass *pass;
	ruv_arena arena;
	float scores[RUV_GRAPH_MOST];
	int64_t then;
	int rc;

	memset(out, 0, sizeof *out);
	rc = ruv_graph_view_make(&view, memory, query, err);
	if (rc)
		return rc;
	ruv_arena_init(&arena);
	then = ruv_clock_now_ns();
	if (times)
		*times =
		    (ruv_graph_times){view.search_ns, view.gather_ns, 0, view.n_hits, view.n - view.n_hits, view.graph.n_edges};
	if (!view.arena || !view.graph.n_edges) { /* the search's own hits, in its order */
		*out = view.hits;
		out->n = out->n < k ? out->n : k;
		memset(&view.hits, 0, sizeof view.hits);
		goto done;
	}
	if (model->shape.dim != ruv_vectors_dimension(ruv_index_vectors(atomic_load(&memory->index)))) {
		rc = ruv_fail(err, RUV_EMISMATCH, "memory",
		              "graph attention was trained for vectors of %d numbers, the memory has %d", model->shape.dim,
		              ruv_vectors_dimension(ruv_index_vectors(atomic_load(&memory->index))));
		goto done;
	}
	rc = ruv_gat_forward(&pass, scores, &model->shape, model->params, &view.graph, &arena, err);
	if (!rc) {
		ruv_graph_keep_first(&view, scores);
		rc = hand_out(out, &view, scores, k, err);
	}
	if (times)
		times->score_ns = ruv_clock_now_ns() - then;
done:
	ruv_arena_release(&arena);
	ruv_graph_view_release(&view);
	return rc;
}
