/* hnsw_care.c - repairing and checking the graph; see hnsw.h.
 *
 * A repair gives every node that has links to removed ones others in their place: of what the removed ones were linked with, the
 * nearest that the selection rule lets beside the links it keeps (Singh et al. 2021, FreshDiskANN, with the kept links fixed, so
 * that a list costs one selection of a few and not of all). What this cannot keep up, a node gets back by being linked like a new
 * one whenever it has lost M / 2 links: with that, no recall is lost however often half of the nodes are replaced. Then the repair
 * walks level 0 from the entry point and links in whatever it did not get to. While lists are mended, only a node's own task writes
 * them, and of other lists it reads those of removed nodes, which nobody writes: no locks. Layer: memory. */
#include <stdlib.h>

#include "memory/hnsw_impl.h"

enum { BLOCK = 64, MAX_HOPS = 256 /* removed nodes looked through for one list */ };

static const char *const WHERE = "vector index";

typedef struct repair {
	ruv_hnsw *x;
	uint64_t *dead; /* bits: removed, not yet out of the graph */
	hnsw_scratch **scratches;
	uint32_t n_ids;
} repair;

static inline bool has_bit(const uint64_t *bits, uint32_t id)
{
	return bits[id / 64] >> id % 64 & 1;
}

static inline bool visit(hnsw_scratch *s, uint32_t id)
{
	uint64_t bit = 1ull << id % 64;
	bool seen = s->visited[id / 64] & bit;

	if (!seen) {
		s->visited[id / 64] |= bit;
		if (s->n_touched < HNSW_TOUCHED)
			s->touched[s->n_touched] = id / 64;
		s->n_touched += s->n_touched <= HNSW_TOUCHED;
	}
	return !seen;
}

static void repair_list(const repair *r, hnsw_scratch *s, uint32_t id, int level)
{
	const ruv_hnsw *x = r->x;
	atomic_uint *list = hnsw_list(x, id, level);
	int cap = hnsw_list_cap(x, level), n = hnsw_list_n(list, cap), n_kept = 0, n_dead = 0, n_found = 0, degree;
	uint32_t hops[MAX_HOPS];

	for (int i = 0; i < n; i++)
		n_dead += has_bit(r->dead, hnsw_list_at(list, i));
	if (!n_dead)
		return;
	if (!level)
		hnsw_tail_of(x, id)->lost += (uint32_t)n_dead;
	n_dead = 0;
	visit(s, id);
	for (int i = 0; i < n; i++) {
		uint32_t other = hnsw_list_at(list, i);
		visit(s, other);
		if (!has_bit(r->dead, other))
			s->near_ids[n_kept++] = other;
		else if (n_dead < MAX_HOPS)
			hops[n_dead++] = other;
	}
	/* What the removed ones were linked with; through further removed ones where these had nobody else. */
	for (int at = 0; at < n_dead && n_found < x->n_gather; at++) {
		const atomic_uint *its = hnsw_list(x, hops[at], level);
		int n_its = hnsw_list_n(its, cap);
		for (int i = 0; i < n_its && n_found < x->n_gather; i++) {
			uint32_t other = hnsw_list_at(its, i);
			if (!visit(s, other))
				continue;
			if (!has_bit(r->dead, other))
				s->ids[n_found++] = other;
			else if (n_dead < MAX_HOPS)
				hops[n_dead++] = other;
		}
	}
	ruv_hnsw_clear_visited(s);
	ruv_code_query_of_code(&x->format, &s->query, hnsw_record(x, id));
	x->distances(s->distances, &x->format, &s->query, x->records, x->record_bytes, s->ids, n_found);
	for (int i = 0; i < n_found; i++)
		s->list[i] = (hnsw_candidate){s->distances[i], s->ids[i]};
	qsort(s->list, (size_t)n_found, sizeof *s->list, ruv_hnsw_by_distance);
	degree = ruv_hnsw_select(x, s, s->list, n_found, n, s->near_ids, n_kept);
	for (int i = 0; i < n_found && degree < x->params.m / 2; i++) { /* rather a link too alike than none */
		bool has = false;
		for (int j = n_kept; j < degree && !has; j++)
			has = s->near_ids[j] == s->list[i].id;
		if (!has)
			s->near_ids[degree++] = s->list[i].id;
	}
	hnsw_list_set(list, s->near_ids, degree);
}

static void repair_block(void *arg, int task, int thread)
{
	const repair *r = arg;

	for (uint32_t id = (uint32_t)task * BLOCK; id < r->n_ids && id < ((uint32_t)task + 1) * BLOCK; id++)
		if (hnsw_is_live(r->x, id))
			for (int l = 0; l <= (int)hnsw_tail_of(r->x, id)->level; l++)
				repair_list(r, r->scratches[thread], id, l);
}

/* Links a node on level 0 as if it were new, and keeps of its old links as many as there are places. */
static void link_again(const repair *r, hnsw_scratch *s, uint32_t id)
{
	ruv_hnsw *x = r->x;
	atomic_uint *list = hnsw_list(x, id, 0);
	pthread_mutex_t *lock = &x->locks[id % HNSW_LOCKS];
	uint32_t *chosen = s->chosen;
	int n = 0, n_chosen, degree;

	ruv_code_query_of_code(&x->format, &s->query, hnsw_record(x, id));
	if (!ruv_hnsw_descend(x, s, &s->query, atomic_load(&x->entry), 0, r->n_ids))
		return;
	ruv_hnsw_walk(x, s, &s->query, 0, x->params.ef_construction, r->n_ids);
	ruv_hnsw_clear_visited(s);
	for (int i = 0; i < s->n_pool; i++) {
		hnsw_candidate c = {s->pool[i].d, s->pool[i].id & ~HNSW_EXPANDED};
		if (c.id != id && hnsw_is_live(x, c.id))
			s->list[n++] = c;
	}
	n_chosen = ruv_hnsw_select(x, s, s->list, n, x->params.m, chosen, 0);
	pthread_mutex_lock(lock);
	n = hnsw_list_n(list, x->m0);
	degree = n_chosen;
	memcpy(s->near_ids, chosen, (size_t)n_chosen * sizeof *chosen);
	for (int i = 0; i < n && degree < n; i++) {
		uint32_t other = hnsw_list_at(list, i);
		bool has = false;
		for (int j = 0; j < n_chosen && !has; j++)
			has = chosen[j] == other;
		if (!has)
			s->near_ids[degree++] = other;
	}
	hnsw_list_set(list, s->near_ids, degree);
	pthread_mutex_unlock(lock);
	for (int i = 0; i < n_chosen; i++) {
		lock = &x->locks[chosen[i] % HNSW_LOCKS];
		pthread_mutex_lock(lock);
		ruv_hnsw_link(x, s, chosen[i], 0, id);
		pthread_mutex_unlock(lock);
	}
	hnsw_tail_of(x, id)->lost = 0;
}

static void link_block(void *arg, int task, int thread)
{
	const repair *r = arg;

	for (uint32_t id = (uint32_t)task * BLOCK; id < r->n_ids && id < ((uint32_t)task + 1) * BLOCK; id++)
		if (hnsw_is_live(r->x, id) && hnsw_tail_of(r->x, id)->lost >= (uint32_t)r->x->params.m / 2)
			link_again(r, r->scratches[thread], id);
}

/* The live node with the most levels becomes the entry point when the present one is removed. */
static void choose_entry(const repair *r)
{
	uint64_t entry = atomic_load(&r->x->entry), best = HNSW_NO_ENTRY;

	if (entry == HNSW_NO_ENTRY || hnsw_is_live(r->x, (uint32_t)entry))
		return;
	for (uint32_t id = 0; id < r->n_ids; id++)
		if (hnsw_is_live(r->x, id)) {
			uint32_t level = hnsw_tail_of(r->x, id)->level;
			if (best == HNSW_NO_ENTRY || level > best >> 32)
				best = (uint64_t)level << 32 | id;
		}
	atomic_store(&r->x->entry, best);
}

/* Marks what level 0 leads to from `from`, which is marked already. queue [n_ids]. */
static void spread(const ruv_hnsw *x, uint64_t *reached, uint32_t *queue, uint32_t from, uint32_t n_ids)
{
	size_t n = 1;

	queue[0] = from;
	for (size_t at = 0; at < n; at++) {
		const atomic_uint *list = hnsw_list(x, queue[at], 0);
		int degree = hnsw_list_n(list, x->m0);
		for (int i = 0; i < degree; i++) {
			uint32_t id = hnsw_list_at(list, i);
			if (id >= n_ids || has_bit(reached, id))
				continue;
			reached[id / 64] |= 1ull << id % 64;
			queue[n++] = id;
		}
	}
}

/* Puts `id` into `list`, in the place of its last link when it is full. Returns that link, or `id` when there was room. */
static uint32_t force_link(atomic_uint *list, int cap, uint32_t id)
{
	int n = hnsw_list_n(list, cap);
	uint32_t out = id;

	if (n < cap) {
		atomic_store_explicit(&list[1 + n], id, memory_order_release);
		atomic_store_explicit(&list[0], (unsigned)n + 1, memory_order_release);
	} else {
		out = hnsw_list_at(list, cap - 1);
		atomic_store_explicit(&list[cap], id, memory_order_release);
	}
	return out;
}

/* A link from the nearest node that is reached: in a free place of one of the nearest, or in a full list, whose last link then
 * moves to the new one, so that nobody loses the way. What the new one's own full list loses was not reached through it. */
static void reach(const repair *r, hnsw_scratch *s, const uint64_t *reached, uint32_t id)
{
	enum { LOOK = 32 };
	const ruv_hnsw *x = r->x;
	uint64_t entry = atomic_load(&x->entry);
	uint32_t from = (uint32_t)entry, out;
	bool roomy = false, any = false;

	ruv_code_query_of_code(&x->format, &s->query, hnsw_record(x, id));
	if (ruv_hnsw_descend(x, s, &s->query, entry, 0, r->n_ids))
		ruv_hnsw_walk(x, s, &s->query, 0, x->params.ef_construction, r->n_ids);
	ruv_hnsw_clear_visited(s);
	for (int i = 0; i < s->n_pool && i < LOOK && !roomy; i++) {
		uint32_t other = s->pool[i].id & ~HNSW_EXPANDED;
		if (other == id || !has_bit(reached, other))
			continue;
		roomy = hnsw_list_n(hnsw_list(x, other, 0), x->m0) < x->m0;
		if (roomy || !any)
			from = other;
		any = true;
	}
	out = force_link(hnsw_list(x, from, 0), x->m0, id);
	if (out != id) {
		atomic_uint *list = hnsw_list(x, id, 0);
		bool has = false;
		for (int i = 0; i < hnsw_list_n(list, x->m0); i++)
			has |= hnsw_list_at(list, i) == out;
		if (!has)
			force_link(list, x->m0, out);
	}
}

static void run(ruv_pool *pool, ruv_pool_fn *fn, repair *r)
{
	int n_tasks = (int)((r->n_ids + BLOCK - 1) / BLOCK);

	if (pool)
		ruv_pool_run(pool, fn, r, n_tasks);
	else
		for (int i = 0; i < n_tasks; i++)
			fn(r, i, 0);
}

int ruv_hnsw_repair_links(ruv_hnsw *x, ruv_pool *pool, ruv_error *err)
{
	int n_threads = pool ? ruv_pool_n_threads(pool) : 1, rc = RUV_OK;
	repair r = {.x = x, .n_ids = atomic_load(&x->n_ids)};
	size_t words = ((size_t)r.n_ids + 63) / 64 + 1, n_dead = x->dead_ids.n;
	uint64_t *reached = calloc(words, sizeof *reached);
	uint32_t *queue = malloc(((size_t)r.n_ids + 1) * sizeof *queue);
	size_t list_cap = (size_t)(x->n_gather > x->params.ef_construction ? x->n_gather : x->params.ef_construction) + 1;
	unsigned epoch;

	r.dead = calloc(words, sizeof *r.dead);
	r.scratches = calloc((size_t)n_threads, sizeof *r.scratches);
	if (!r.dead || !reached || !queue || !r.scratches) {
		rc = ruv_fail_memory(err, WHERE, words * 2 * sizeof *reached + (size_t)r.n_ids * sizeof *queue);
		goto done;
	}
	for (int i = 0; i < n_threads; i++) {
		r.scratches[i] = ruv_hnsw_scratch_take(x, x->params.ef_construction, r.n_ids);
		if (!r.scratches[i] || ruv_hnsw_reserve_list(r.scratches[i], list_cap)) {
			rc = ruv_fail_memory(err, WHERE, list_cap * sizeof(hnsw_candidate));
			goto done;
		}
	}
	if (x->n_retired + n_dead > x->retired_cap) {
		size_t cap = 2 * (x->n_retired + n_dead);
		hnsw_retired *grown = realloc(x->retired, cap * sizeof *grown);
		if (!grown) {
			rc = ruv_fail_memory(err, WHERE, cap * sizeof *grown);
			goto done;
		}
		x->retired = grown;
		x->retired_cap = cap;
	}

	for (size_t i = 0; i < n_dead; i++)
		r.dead[x->dead_ids.at[i] / 64] |= 1ull << x->dead_ids.at[i] % 64;
	if (n_dead) {
		run(pool, repair_block, &r);
		choose_entry(&r);
		run(pool, link_block, &r);
	}
	if (atomic_load(&x->entry) != HNSW_NO_ENTRY) {
		uint32_t entry = (uint32_t)atomic_load(&x->entry);
		reached[entry / 64] |= 1ull << entry % 64;
		spread(x, reached, queue, entry, r.n_ids);
		for (uint32_t id = 0; id < r.n_ids; id++)
			if (!has_bit(reached, id) && hnsw_is_live(x, id)) {
				reach(&r, r.scratches[0], reached, id);
				reached[id / 64] |= 1ull << id % 64;
				spread(x, reached, queue, id, r.n_ids);
			}
	}
	/* Out of every list: searches that begin from the next epoch on cannot come to them. */
	epoch = atomic_load(&x->epoch.current);
	for (size_t i = 0; i < n_dead; i++)
		x->retired[x->n_retired++] = (hnsw_retired){x->dead_ids.at[i], epoch};
	x->dead_ids.n = 0;
	x->n_added = 0;
	atomic_fetch_sub(&x->n_removed, (int64_t)n_dead);
	ruv_epoch_advance(&x->epoch);
done:
	for (int i = 0; r.scratches && i < n_threads; i++)
		ruv_hnsw_scratch_give(x, r.scratches[i]);
	free(r.scratches);
	free(r.dead);
	free(reached);
	free(queue);
	return rc;
}

/* ---- checking ---- */

static int by_id(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Counts what is wrong with one list; the first wrong link goes to err. sorted [m0]. */
static void check_list(const ruv_hnsw *x, const uint64_t *dead, uint32_t n_ids, uint32_t id, int level, uint32_t *sorted,
                       ruv_hnsw_report *out, ruv_error *err)
{
	const atomic_uint *list = hnsw_list(x, id, level);
	int cap = hnsw_list_cap(x, level), n = hnsw_list_n(list, cap);

	if (atomic_load(&list[0]) > (unsigned)cap) {
		if (!out->n_bad_links++)
			ruv_fail(err, RUV_ECORRUPT, WHERE, "node %u has %u links on level %d, at most %d are possible", id,
			         atomic_load(&list[0]), level, cap);
	}
	for (int i = 0; i < n; i++) {
		uint32_t to = sorted[i] = hnsw_list_at(list, i);
		if (to < n_ids && to != id && (int)hnsw_tail_of(x, to)->level >= level &&
		    (has_bit(dead, to) || hnsw_is_live(x, to)))
			continue;
		if (!out->n_bad_links++)
			ruv_fail(err, RUV_ECORRUPT, WHERE, "node %u is linked with %u on level %d, which is no node there", id, to,
			         level);
	}
	qsort(sorted, (size_t)n, sizeof *sorted, by_id);
	for (int i = 1; i < n; i++)
		if (sorted[i] == sorted[i - 1] && !out->n_bad_links++)
			ruv_fail(err, RUV_ECORRUPT, WHERE, "node %u is linked with %u twice on level %d", id, sorted[i], level);
}

int ruv_hnsw_check(ruv_hnsw *x, ruv_hnsw_report *out, ruv_error *err)
{
	uint32_t n_ids, *queue = NULL, *sorted = NULL;
	uint64_t *reached = NULL, *dead = NULL, entry;
	size_t words;
	int rc = RUV_OK;

	memset(out, 0, sizeof *out);
	pthread_mutex_lock(&x->writer);
	n_ids = atomic_load(&x->n_ids);
	words = ((size_t)n_ids + 63) / 64 + 1;
	reached = calloc(words, sizeof *reached);
	dead = calloc(words, sizeof *dead);
	queue = malloc(((size_t)n_ids + 1) * sizeof *queue);
	sorted = malloc(((size_t)x->m0 + 1) * sizeof *sorted);
	if (!reached || !dead || !queue || !sorted) {
		rc = ruv_fail_memory(err, WHERE, words * 2 * sizeof *reached + (size_t)n_ids * sizeof *queue);
		goto done;
	}
	for (size_t i = 0; i < x->dead_ids.n; i++)
		dead[x->dead_ids.at[i] / 64] |= 1ull << x->dead_ids.at[i] % 64;
	entry = atomic_load(&x->entry);
	if (entry != HNSW_NO_ENTRY) {
		reached[(uint32_t)entry / 64] |= 1ull << entry % 64;
		spread(x, reached, queue, (uint32_t)entry, n_ids);
	}
	out->min_degree = x->m0;
	for (uint32_t id = 0; id < n_ids; id++) {
		int degree;
		if (!hnsw_is_live(x, id))
			continue;
		degree = hnsw_list_n(hnsw_list(x, id, 0), x->m0);
		out->n_nodes++;
		out->n_links += degree;
		out->n_isolated += !degree;
		out->min_degree = degree < out->min_degree ? degree : out->min_degree;
		out->max_degree = degree > out->max_degree ? degree : out->max_degree;
		for (int l = 0; l <= (int)hnsw_tail_of(x, id)->level; l++)
			check_list(x, dead, n_ids, id, l, sorted, out, err);
		if (!has_bit(reached, id) && !out->n_unreachable++ && !x->n_added && !out->n_bad_links)
			ruv_fail(err, RUV_ECORRUPT, WHERE, "node %u cannot be reached", id);
	}
	if (!out->n_nodes)
		out->min_degree = 0;
	if (out->n_nodes < 2)
		out->n_isolated = 0;
	out->mean_degree = out->n_nodes ? (double)out->n_links / (double)out->n_nodes : 0;
	if (out->n_bad_links || (out->n_unreachable && !x->n_added && !x->dead_ids.n))
		rc = RUV_ECORRUPT;
	if (!rc && out->n_nodes != atomic_load(&x->n_live))
		rc = ruv_fail(err, RUV_ECORRUPT, WHERE, "%lld nodes counted, %lld found", (long long)atomic_load(&x->n_live),
		              (long long)out->n_nodes);
done:
	pthread_mutex_unlock(&x->writer);
	free(reached);
	free(dead);
	free(queue);
	free(sorted);
	return rc;
}
