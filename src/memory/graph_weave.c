/* graph_weave.c - see graph_weave.h. One snapshot of nodes and edges is read into an arena; edges are found there and written in
 * batches. Vectors are not copied: neighbours by meaning come from the memory's index. Layer: memory. */
#include "memory/graph_weave.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"
#include "memory/lexical.h"
#include "memory/memory_impl.h"

static const char creator[] = "weave";

enum { MAX_TITLE_WORDS = 8, MIN_TITLE_BYTES = 4, BATCH = 4096, MAX_NEAR = 64, MAX_BACK = 256 };

typedef struct weave_node {
	char id[RUV_ID_SIZE];
	const char *text, *title, *source, *user, *agent, *session;
	int first_line, order; /* order: as read */
} weave_node;

typedef struct mention {
	int from, to;
	float weight;
} mention;

/* A set of 64-bit numbers. */
typedef struct number_set {
	uint64_t *items; /* 0: free */
	size_t n, n_buckets;
} number_set;

typedef struct weaving {
	ruv_memory *memory;
	ruv_weave_options o;
	ruv_weave_report *report;
	ruv_arena arena;
	weave_node *nodes; /* [n] by id: the order of their making */
	int n, cap;
	number_set edges;  /* that are there */
	number_set linked; /* ids of their ends */
	int *titles;       /* buckets: node + 1 */
	uint64_t *title_hashes;
	size_t n_titles; /* of buckets */
	ruv_memory_edge *batch;
	int n_batch;
} weaving;

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

static int set_add(number_set *set, uint64_t x, bool *added, ruv_error *err)
{
	size_t at;

	x = x ? x : 1;
	if (2 * (set->n + 1) > set->n_buckets) {
		number_set grown = {calloc(set->n_buckets ? 2 * set->n_buckets : 1024, sizeof *set->items), 0,
		                    set->n_buckets ? 2 * set->n_buckets : 1024};
		if (!grown.items)
			return ruv_fail_memory(err, "memory", grown.n_buckets * sizeof *set->items);
		for (size_t i = 0; i < set->n_buckets; i++)
			if (set->items[i]) {
				for (at = set->items[i] & (grown.n_buckets - 1); grown.items[at];)
					at = (at + 1) & (grown.n_buckets - 1);
				grown.items[at] = set->items[i];
				grown.n++;
			}
		free(set->items);
		*set = grown;
	}
	for (at = x & (set->n_buckets - 1); set->items[at] && set->items[at] != x;)
		at = (at + 1) & (set->n_buckets - 1);
	*added = !set->items[at];
	set->items[at] = x;
	set->n += *added;
	return RUV_OK;
}

static bool set_has(const number_set *set, uint64_t x)
{
	size_t at;

	x = x ? x : 1;
	if (!set->n)
		return false;
	for (at = x & (set->n_buckets - 1); set->items[at] && set->items[at] != x;)
		at = (at + 1) & (set->n_buckets - 1);
	return set->items[at] == x;
}

static uint64_t edge_hash(const char *src, const char *dst, int type)
{
	return ruv_hash64(dst, strlen(dst), ruv_hash64(src, strlen(src), (uint64_t)type));
}

static int on_node(void *user, const ruv_memory_node *node, ruv_error *err)
{
	weaving *w = user;
	weave_node *to;

	if (w->n == w->cap) {
		const int cap = w->cap ? 2 * w->cap : 1024;
		weave_node *grown = realloc(w->nodes, (size_t)cap * sizeof *grown);
		if (!grown)
			return ruv_fail_memory(err, "memory", (size_t)cap * sizeof *grown);
		w->nodes = grown;
		w->cap = cap;
	}
	to = &w->nodes[w->n];
	*to = (weave_node){.first_line = node->first_line, .order = w->n};
	memcpy(to->id, node->id, sizeof to->id);
	const char **const fields[] = {&to->text, &to->title, &to->source, &to->user, &to->agent, &to->session};
	const char *const texts[] = {node->text,       node->title,       node->source,
	                             node->scope.user, node->scope.agent, node->scope.session};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		const char *text = texts[i] ? texts[i] : "";
		*fields[i] = *text ? ruv_arena_strndup(&w->arena, text, strlen(text)) : "";
		if (!*fields[i])
			return ruv_fail_memory(err, "memory", strlen(text));
	}
	w->n++;
	return RUV_OK;
}

static int on_edge(void *user, const ruv_memory_edge *edge, ruv_error *err)
{
	weaving *w = user;
	bool added;
	int rc = set_add(&w->edges, edge_hash(edge->src, edge->dst, (int)edge->type), &added, err);

	if (!rc)
		rc = set_add(&w->linked, ruv_hash64(edge->src, strlen(edge->src), 0), &added, err);
	return rc ? rc : set_add(&w->linked, ruv_hash64(edge->dst, strlen(edge->dst), 0), &added, err);
}

static int on_source(void *user, const ruv_memory_source *source, ruv_error *err)
{
	(void)user;
	(void)source;
	(void)err;
	return RUV_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

static int flush(weaving *w, ruv_error *err)
{
	int rc = w->n_batch ? ruv_memory_link(w->memory, w->batch, w->n_batch, err) : RUV_OK;

	w->n_batch = 0;
	return rc;
}

static bool may_link(const weave_node *a, const weave_node *b)
{
	const bool a_free = !*a->user && !*a->agent && !*a->session, b_free = !*b->user && !*b->agent && !*b->session;

	return a_free || b_free || (!strcmp(a->user, b->user) && !strcmp(a->agent, b->agent) && !strcmp(a->session, b->session));
}

static int put(weaving *w, const weave_node *from, const weave_node *to, ruv_edge_type type, float weight, ruv_error *err)
{
	bool added;
	int rc;

	if (from == to || !may_link(from, to))
		return RUV_OK;
	rc = set_add(&w->edges, edge_hash(from->id, to->id, (int)type), &added, err);
	if (rc || !added) {
		w->report->n_there += !rc;
		return rc;
	}
	w->report->n_added[type]++;
	if (w->o.dry)
		return RUV_OK;
	w->batch[w->n_batch] = (ruv_memory_edge){.type = type, .weight = weight, .created_by = creator};
	memcpy(w->batch[w->n_batch].src, from->id, RUV_ID_SIZE);
	memcpy(w->batch[w->n_batch++].dst, to->id, RUV_ID_SIZE);
	return w->n_batch == BATCH ? flush(w, err) : RUV_OK;
}

static int step(const weaving *w, int64_t done, ruv_error *err)
{
	if (w->o.progress && !w->o.progress(w->o.user, done, 2 * (int64_t)w->n))
		return ruv_fail(err, RUV_ECANCELLED, "memory", "stopped; the edges made so far are kept");
	return RUV_OK;
}

/* ---- Follows and Contains ----------------------------------------------------------------------------------------------- */

static int compare_places(const void *a, const void *b)
{
	const weave_node *x = *(const weave_node *const *)a, *y = *(const weave_node *const *)b;
	int c = strcmp(x->source, y->source);

	c = c ? c : strcmp(x->user, y->user);
	c = c ? c : strcmp(x->agent, y->agent);
	c = c ? c : strcmp(x->session, y->session);
	c = c ? c : x->first_line - y->first_line;
	return c ? c : x->order - y->order;
}

static bool same_source(const weave_node *a, const weave_node *b)
{
	return *a->source && !strcmp(a->source, b->source) && !strcmp(a->user, b->user) && !strcmp(a->agent, b->agent) &&
	       !strcmp(a->session, b->session);
}

/* "A > B" is under "A". */
static bool is_under(const char *title, const char *heading)
{
	const size_t n = strlen(heading);

	return n && !strncmp(title, heading, n) && !strncmp(title + n, " > ", 3);
}

static int weave_sources(weaving *w, ruv_error *err)
{
	weave_node **sorted = malloc(sizeof *sorted * ((size_t)w->n + 1));
	int rc = RUV_OK;

	if (!sorted)
		return ruv_fail_memory(err, "memory", sizeof *sorted * (size_t)w->n);
	for (int i = 0; i < w->n; i++)
		sorted[i] = &w->nodes[i];
	qsort(sorted, (size_t)w->n, sizeof(weave_node *), compare_places);
	for (int i = 1; !rc && i < w->n; i++) {
		if (!same_source(sorted[i - 1], sorted[i]))
			continue;
		rc = put(w, sorted[i], sorted[i - 1], RUV_EDGE_FOLLOWS, 1, err);
		/* The nearest heading above its own that has a passage of its own before it: that one's first passage. */
		int found = -1;
		for (int j = i - 1; j >= 0 && same_source(sorted[j], sorted[i]) && i - j <= MAX_BACK; j--) {
			if (found < 0 ? is_under(sorted[i]->title, sorted[j]->title)
			              : !strcmp(sorted[j]->title, sorted[found]->title))
				found = j;
			else if (found >= 0)
				break;
		}
		if (!rc && found >= 0)
			rc = put(w, sorted[found], sorted[i], RUV_EDGE_CONTAINS, 1, err);
	}
	free(sorted);
	return rc;
}

/* ---- Cites -------------------------------------------------------------------------------------------------------------- */

/* The next word from *p; NULL at the end. */
static const char *next_word(const char **p, size_t *n)
{
	const char *q = *p, *word;

	while (*q && !isalnum((unsigned char)*q) && (unsigned char)*q < 0x80)
		q++;
	word = q;
	while (isalnum((unsigned char)*q) || (unsigned char)*q >= 0x80)
		q++;
	*p = q;
	*n = (size_t)(q - word);
	return *n ? word : NULL;
}

/* The name that a title is: its last heading, without what stands in brackets. 0: none that could be named in a text. */
static uint64_t title_hash(const char *title, int *n_words)
{
	const char *last = title, *p, *word;
	uint64_t hash = 0;
	size_t n, n_bytes = 0;
	bool proper = false;
	char own[RUV_MEMORY_MAX_LABEL + 1];

	for (p = title; (p = strstr(p, " > ")); p += 3)
		last = p + 3;
	p = strstr(last, " (");
	n = p && p != last ? (size_t)(p - last) : strlen(last);
	n = n < RUV_MEMORY_MAX_LABEL ? n : RUV_MEMORY_MAX_LABEL;
	memcpy(own, last, n);
	own[n] = 0;
	p = own;
	*n_words = 0;
	while ((word = next_word(&p, &n))) {
		if (++*n_words > MAX_TITLE_WORDS)
			return 0;
		proper =
		    proper || (!ruv_lexical_is_stop_word(word, (int)n) &&
		               (isupper((unsigned char)*word) || isdigit((unsigned char)*word) || (unsigned char)*word >= 0x80));
		n_bytes += n;
		hash = ruv_hash64(word, n, hash);
	}
	return proper && n_bytes >= MIN_TITLE_BYTES ? (hash ? hash : 1) : 0;
}

static int find_title(const weaving *w, uint64_t hash)
{
	for (size_t at = hash & (w->n_titles - 1); w->titles[at]; at = (at + 1) & (w->n_titles - 1))
		if (w->title_hashes[at] == hash)
			return w->titles[at] - 1;
	return -1;
}

static int read_titles(weaving *w, ruv_error *err)
{
	for (w->n_titles = 1024; w->n_titles < 2 * (size_t)w->n;)
		w->n_titles *= 2;
	w->titles = calloc(w->n_titles, sizeof *w->titles);
	w->title_hashes = calloc(w->n_titles, sizeof *w->title_hashes);
	if (!w->titles || !w->title_hashes)
		return ruv_fail_memory(err, "memory", w->n_titles * 12);
	for (int i = 0; i < w->n; i++) {
		int n_words;
		const uint64_t hash = *w->nodes[i].title ? title_hash(w->nodes[i].title, &n_words) : 0;
		size_t at = hash & (w->n_titles - 1);
		if (!hash || find_title(w, hash) >= 0)
			continue;
		while (w->titles[at])
			at = (at + 1) & (w->n_titles - 1);
		w->titles[at] = i + 1;
		w->title_hashes[at] = hash;
	}
	return RUV_OK;
}

/* The titles that a node's text names, each once; returns how many, at most `most`. */
static int find_mentions(const weaving *w, int node, int *out, int most)
{
	const char *words[MAX_TITLE_WORDS], *p = w->nodes[node].text, *ahead;
	size_t sizes[MAX_TITLE_WORDS];
	int n = 0, n_words, own_words;
	const uint64_t own = *w->nodes[node].title ? title_hash(w->nodes[node].title, &own_words) : 0;

	while (n < most) {
		uint64_t hash = 0;
		int best = -1, best_words = 0;
		ahead = p;
		for (n_words = 0; n_words < MAX_TITLE_WORDS; n_words++) {
			words[n_words] = next_word(&ahead, &sizes[n_words]);
			if (!words[n_words])
				break;
		}
		if (!n_words)
			break;
		if (isupper((unsigned char)*words[0]) || isdigit((unsigned char)*words[0]) || (unsigned char)*words[0] >= 0x80)
			for (int i = 0; i < n_words; i++) {
				int at;
				hash = ruv_hash64(words[i], sizes[i], hash);
				at = find_title(w, hash ? hash : 1);
				if (at >= 0 || (hash ? hash : 1) == own) {
					best = (hash ? hash : 1) == own ? node : at;
					best_words = i + 1;
				}
			}
		if (best >= 0 && best != node) {
			bool seen = false;
			for (int i = 0; i < n && !seen; i++)
				seen = out[i] == best;
			if (!seen)
				out[n++] = best;
		}
		p = best_words ? words[best_words - 1] + sizes[best_words - 1] : words[0] + sizes[0];
	}
	return n;
}

static int rarest_first(const void *a, const void *b)
{
	const mention *x = a, *y = b;

	return x->weight != y->weight ? (x->weight > y->weight ? -1 : 1) : x->to - y->to;
}

static int weave_mentions(weaving *w, ruv_error *err)
{
	enum { MOST = 64 };
	int *counts = calloc((size_t)w->n + 1, sizeof *counts), found[MOST], rc = read_titles(w, err);

	if (!rc && !counts)
		rc = ruv_fail_memory(err, "memory", (size_t)w->n * sizeof *counts);
	for (int i = 0; !rc && i < w->n; i++) {
		const int n = find_mentions(w, i, found, MOST);
		for (int j = 0; j < n; j++)
			counts[found[j]]++;
	}
	for (int i = 0; !rc && i < w->n; i++) {
		mention mentions[MOST] = {0};
		const int n = find_mentions(w, i, found, MOST);
		for (int j = 0; j < n; j++)
			mentions[j] = (mention){i, found[j], 1 / (1 + logf((float)counts[found[j]]))};
		qsort(mentions, (size_t)n, sizeof *mentions, rarest_first);
		for (int j = 0; !rc && j < n && j < w->o.n_cites; j++)
			rc = put(w, &w->nodes[i], &w->nodes[mentions[j].to], RUV_EDGE_CITES, mentions[j].weight, err);
		if (!rc && i % 256 == 0)
			rc = step(w, i, err);
	}
	free(counts);
	return rc;
}

/* ---- SameTopic ---------------------------------------------------------------------------------------------------------- */

typedef struct key_place {
	int64_t key;
	int at;
} key_place;

static int by_key(const void *a, const void *b)
{
	const key_place *x = a, *y = b;

	return (x->key > y->key) - (x->key < y->key);
}

static int weave_topics(weaving *w, ruv_error *err)
{
	const ruv_memory_filter all = {.every_scope = true};
	const char **ids = malloc(sizeof *ids * ((size_t)w->n + 1));
	int64_t *keys = malloc(sizeof *keys * ((size_t)w->n + 1));
	key_place *places = malloc(sizeof *places * ((size_t)w->n + 1));
	float *unit = NULL;
	ruv_near near[MAX_NEAR];
	ruv_index *index;
	int rc = ids && keys && places ? RUV_OK : ruv_fail_memory(err, "memory", (size_t)w->n * 32);

	for (int i = 0; !rc && i < w->n; i++)
		ids[i] = w->nodes[i].id;
	if (!rc)
		rc = ruv_memory_sync(w->memory, true, err);
	if (!rc)
		rc = w->memory->store->ops->node_keys(w->memory->store, keys, ids, w->n, err);
	index = atomic_load(&w->memory->index);
	if (rc || !index)
		goto done;
	for (int i = 0; i < w->n; i++)
		places[i] = (key_place){keys[i], i};
	qsort(places, (size_t)w->n, sizeof *places, by_key);
	const int stride = ruv_vectors_stride(ruv_index_vectors(index));
	unit = aligned_alloc(64, sizeof *unit * (size_t)stride);
	if (!unit)
		rc = ruv_fail_memory(err, "memory", sizeof *unit * (size_t)stride);
	for (int i = 0; !rc && i < w->n; i++) {
		ruv_index_query query = {
		    .unit = unit, .k = 2 * w->o.n_same_topic + 4, .min_cosine = w->o.same_topic, .filter = &all};
		const unsigned ticket = ruv_vectors_enter(ruv_index_vectors(index));
		const float *row = keys[i] ? ruv_vectors_find(ruv_index_vectors(index), keys[i]) : NULL;
		int n = 0, taken = 0;
		if (w->o.fresh && set_has(&w->linked, ruv_hash64(w->nodes[i].id, strlen(w->nodes[i].id), 0)))
			row = NULL;
		if (row)
			memcpy(unit, row, sizeof *unit * (size_t)stride);
		ruv_vectors_leave(ruv_index_vectors(index), ticket);
		query.k = query.k < MAX_NEAR ? query.k : MAX_NEAR;
		if (row)
			rc = ruv_index_search(near, &n, index, &query, NULL, err);
		for (int j = 0; !rc && j < n && taken < w->o.n_same_topic; j++) {
			const key_place wanted = {near[j].key, 0},
					*other = bsearch(&wanted, places, (size_t)w->n, sizeof *places, by_key);
			if (!other || other->at == i)
				continue;
			taken++; /* one edge a pair, from the newer node to the older */
			rc = put(w, &w->nodes[i > other->at ? i : other->at], &w->nodes[i > other->at ? other->at : i],
			         RUV_EDGE_SAME_TOPIC, near[j].cosine, err);
		}
		if (!rc && i % 256 == 0)
			rc = step(w, (int64_t)w->n + i, err);
	}
done:
	free(unit);
	free(ids);
	free(keys);
	free(places);
	return rc;
}

int ruv_memory_weave(ruv_memory *memory, ruv_weave_report *report, const ruv_weave_options *options, ruv_error *err)
{
	ruv_weave_report own = {0};
	weaving w = {.memory = memory, .o = options ? *options : (ruv_weave_options){0}, .report = report ? report : &own};
	const ruv_store_visitor visitor = {&w, on_source, on_node, on_edge, NULL};
	int rc, dimension;

	memset(w.report, 0, sizeof *w.report);
	w.o.same_topic = w.o.same_topic > 0 ? w.o.same_topic : 0.6F;
	w.o.n_same_topic = w.o.n_same_topic > 0 ? w.o.n_same_topic : 4;
	w.o.n_cites = w.o.n_cites > 0 ? w.o.n_cites : 16;
	if (!(w.o.same_topic < INFINITY) || w.o.n_same_topic > 24)
		return ruv_fail(err, RUV_EINVAL, "memory", "%d edges to passages at least %g alike", w.o.n_same_topic,
		                (double)w.o.same_topic);
	ruv_arena_init(&w.arena);
	w.batch = malloc(sizeof *w.batch * BATCH);
	rc = w.batch ? memory->store->ops->visit(memory->store, &visitor, err)
	             : ruv_fail_memory(err, "memory", sizeof *w.batch * BATCH);
	if (!rc) {
		w.report->n_nodes = w.n;
		rc = weave_sources(&w, err);
	}
	if (!rc)
		rc = weave_mentions(&w, err);
	ruv_memory_embedder(memory, NULL, NULL, &dimension);
	if (!rc && dimension && w.o.same_topic < 2)
		rc = weave_topics(&w, err);
	if (!rc)
		rc = flush(&w, err);
	free(w.batch);
	free(w.nodes);
	free(w.edges.items);
	free(w.linked.items);
	free(w.titles);
	free(w.title_hashes);
	ruv_arena_release(&w.arena);
	return rc;
}
