/* hnsw.c - lifetime and searching; see hnsw.h and hnsw_impl.h.
 *
 * A walk keeps its candidates in one sorted array, nearest first, each expanded once. Of a node's list the ids not yet visited are
 * gathered without branches, and their distances are computed together, so that their cache misses overlap. Layer: memory. */
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/hnsw_impl.h"

enum {
	DEFAULT_EF = 64,
	FILTERED_EF = 192, /* what passes is thinner around the question: the walk has to see farther */
	HUGE_PAGE = 2 << 20,
	GROW = 16 << 20,
	SCAN_BLOCK = 256,
	SAMPLES = 256,        /* of ids, to learn how many pass a function */
	MAX_POOL = 8192,      /* more candidates than this are a scan's work */
	DISTANCES_A_STEP = 24 /* of a scan that cost what one step of a walk does: its list, cache misses and distances */
};

static const char *const WHERE = "vector index";

/* ---- address ranges ---- */

/* Address space without memory behind it. */
int ruv_hnsw_region_reserve(hnsw_region *r, size_t size, ruv_error *err)
{
	size = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
	r->reserved_bytes = size + HUGE_PAGE;
	r->reserved = mmap(NULL, r->reserved_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r->reserved == MAP_FAILED) {
		r->reserved = NULL;
		return ruv_fail_memory(err, WHERE, r->reserved_bytes);
	}
	r->base = r->reserved + (HUGE_PAGE - (uintptr_t)r->reserved % HUGE_PAGE) % HUGE_PAGE;
	r->size = size;
	r->usable = 0;
	return RUV_OK;
}

/* Makes the first n_bytes usable, and some more. */
int ruv_hnsw_region_use(hnsw_region *r, size_t n_bytes, ruv_error *err)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), to;

	if (n_bytes <= r->usable)
		return RUV_OK;
	if (n_bytes > r->size)
		return ruv_fail(err, RUV_ELIMIT, WHERE, "the index is full");
	to = n_bytes < GROW / 16 ? (n_bytes + page - 1) / page * page : (n_bytes + GROW - 1) / GROW * GROW;
	if (to > r->size)
		to = r->size;
	if (mprotect(r->base + r->usable, to - r->usable, PROT_READ | PROT_WRITE))
		return ruv_fail_memory(err, WHERE, to - r->usable);
	if (to >= GROW) /* fewer misses of the address cache; an advice, so it may fail */
		(void)madvise(r->base + r->usable, to - r->usable, MADV_HUGEPAGE);
	r->usable = to;
	return RUV_OK;
}

static void region_release(hnsw_region *r)
{
	if (r->reserved)
		munmap(r->reserved, r->reserved_bytes);
	r->reserved = NULL;
}

/* ---- lifetime ---- */

void ruv_hnsw_params_for(ruv_hnsw_params *out, int dimension, ruv_hnsw_metric metric, int64_t n)
{
	static const struct {
		int64_t below;
		int m, ef_construction, ef_search;
	} rows[] = {{100000, 16, 100, 32}, {1000000, 32, 200, 64}, {10000000, 48, 300, 128}, {INT64_MAX, 64, 400, 256}};
	int i = 0;

	while (n >= rows[i].below)
		i++;
	*out = (ruv_hnsw_params){.dimension = dimension,
	                         .metric = metric,
	                         .bits = 8,
	                         .m = rows[i].m,
	                         .ef_construction = rows[i].ef_construction,
	                         .ef_search = rows[i].ef_search,
	                         .seed = 1};
}

static int check_params(const ruv_hnsw_params *p, ruv_error *err)
{
	if (p->dimension < 1 || p->dimension > RUV_HNSW_MAX_DIMENSION)
		return ruv_fail(err, RUV_EINVAL, WHERE, "dimension %d, 1 to %d are possible", p->dimension, RUV_HNSW_MAX_DIMENSION);
	if (p->metric != RUV_HNSW_IP && p->metric != RUV_HNSW_L2)
		return ruv_fail(err, RUV_EINVAL, WHERE, "metric %d is none", (int)p->metric);
	if (p->bits != 8 && p->bits != 4 && p->bits != 1)
		return ruv_fail(err, RUV_EINVAL, WHERE, "codes of %d bits, 8, 4 and 1 are possible", p->bits);
	if (p->m < 2 || p->m > RUV_HNSW_MAX_M)
		return ruv_fail(err, RUV_EINVAL, WHERE, "M is %d, 2 to %d are possible", p->m, RUV_HNSW_MAX_M);
	if (p->ef_construction < p->m || p->ef_construction > RUV_HNSW_MAX_EF)
		return ruv_fail(err, RUV_EINVAL, WHERE, "efConstruction is %d, M (%d) to %d are possible", p->ef_construction, p->m,
		                RUV_HNSW_MAX_EF);
	if (p->ef_search < 0 || p->ef_search > RUV_HNSW_MAX_EF)
		return ruv_fail(err, RUV_EINVAL, WHERE, "efSearch is %d, up to %d is possible", p->ef_search, RUV_HNSW_MAX_EF);
	if (p->max_nodes > RUV_HNSW_MAX_NODES)
		return ruv_fail(err, RUV_EINVAL, WHERE, "%u nodes at most, up to %u are possible", p->max_nodes,
		                RUV_HNSW_MAX_NODES);
	return RUV_OK;
}

int ruv_hnsw_alloc(ruv_hnsw **out, const ruv_hnsw_params *params, ruv_error *err)
{
	ruv_hnsw *x;
	size_t n;
	int rc = check_params(params, err);

	*out = NULL;
	if (rc)
		return rc;
	x = calloc(1, sizeof *x);
	if (!x)
		return ruv_fail_memory(err, WHERE, sizeof *x);
	x->params = *params;
	if (!x->params.max_nodes)
		x->params.max_nodes = RUV_HNSW_MAX_NODES;
	pthread_mutex_init(&x->writer, NULL);
	pthread_mutex_init(&x->entry_lock, NULL);
	for (int i = 0; i < HNSW_LOCKS; i++)
		pthread_mutex_init(&x->locks[i], NULL);
	ruv_epoch_init(&x->epoch);
	ruv_rng_init(&x->rng, params->seed);
	atomic_init(&x->entry, HNSW_NO_ENTRY);
	ruv_code_format_init(&x->format, params->dimension, params->bits, params->metric == RUV_HNSW_L2);
	x->kernels = ruv_code_kernels_get();
	x->distances = ruv_code_distances_for(x->kernels, params->bits);
	x->m0 = 2 * params->m;
	x->n_gather = x->m0 > SCAN_BLOCK ? x->m0 : SCAN_BLOCK;
	x->tail_at = (size_t)x->format.n_bytes + sizeof(ruv_code_header);
	x->record_bytes = (x->tail_at + sizeof(hnsw_tail) + (1 + (size_t)x->m0) * sizeof(uint32_t) + 63) / 64 * 64;
	x->n_upper_words = 1;
	n = x->params.max_nodes;
	rc = ruv_hnsw_region_reserve(&x->record_region, n * x->record_bytes, err);
	if (!rc)
		rc = ruv_hnsw_region_reserve(&x->key_region, n * sizeof *x->keys, err);
	/* One node in m has upper levels, and one in m of these another: 2 lists for each m-th node are ample, 4096 for few. */
	if (!rc)
		rc = ruv_hnsw_region_reserve(&x->upper_region,
		                             (n / (size_t)params->m * 3 + 4096) * (size_t)(1 + params->m) * sizeof(uint32_t), err);
	if (!rc)
		rc = ruv_hnsw_region_use(&x->upper_region, sizeof(uint32_t), err);
	if (rc)
		goto done;
	x->records = x->record_region.base;
	x->keys = (_Atomic int64_t *)(void *)x->key_region.base;
	x->uppers = (atomic_uint *)(void *)x->upper_region.base;
	x->format.centre = calloc((size_t)params->dimension, sizeof *x->format.centre);
	if (!x->format.centre) {
		rc = ruv_fail_memory(err, WHERE, (size_t)params->dimension * sizeof *x->format.centre);
		goto done;
	}
	*out = x;
	x = NULL;
done:
	ruv_hnsw_free(x);
	return rc;
}

int ruv_hnsw_create(ruv_hnsw **out, const ruv_hnsw_params *params, ruv_error *err)
{
	return ruv_hnsw_alloc(out, params, err);
}

static void scratch_free(hnsw_scratch *s)
{
	if (!s)
		return;
	free(s->visited);
	free(s->touched);
	free(s->pool);
	free(s->list);
	free(s->ids);
	free(s->distances);
	free(s->near_ids);
	free(s->near_distances);
	free(s->query.codes);
	free(s->other.codes);
	free(s->chosen);
	free(s);
}

void ruv_hnsw_free(ruv_hnsw *x)
{
	if (!x)
		return;
	for (int i = 0; i < HNSW_SCRATCHES; i++)
		scratch_free(atomic_load(&x->scratches[i]));
	region_release(&x->record_region);
	region_release(&x->key_region);
	region_release(&x->upper_region);
	pthread_mutex_destroy(&x->writer);
	pthread_mutex_destroy(&x->entry_lock);
	for (int i = 0; i < HNSW_LOCKS; i++)
		pthread_mutex_destroy(&x->locks[i]);
	free(x->format.centre);
	free(x->free_ids.at);
	free(x->reserved_ids.at);
	free(x->dead_ids.at);
	for (int i = 0; i <= HNSW_MAX_LEVEL; i++)
		free(x->free_uppers[i].at);
	free(x->retired);
	free(x);
}

/* ---- scratch ---- */

static hnsw_scratch *scratch_create(const ruv_hnsw *x)
{
	hnsw_scratch *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->touched = malloc(HNSW_TOUCHED * sizeof *s->touched);
	s->ids = malloc(((size_t)x->n_gather + 1) * sizeof *s->ids); /* one more: the gathering writes before it decides */
	s->distances = malloc(((size_t)x->n_gather + 1) * sizeof *s->distances);
	s->near_ids = malloc(((size_t)x->m0 + 1) * sizeof *s->near_ids);
	s->near_distances = malloc(((size_t)x->m0 + 1) * sizeof *s->near_distances);
	s->query.codes = aligned_alloc(64, (size_t)x->format.n_components);
	s->other.codes = aligned_alloc(64, (size_t)x->format.n_components);
	s->chosen = malloc((HNSW_MAX_LEVEL + 1) * (size_t)(1 + x->params.m) * sizeof *s->chosen);
	if (s->touched && s->ids && s->distances && s->near_ids && s->near_distances && s->query.codes && s->other.codes &&
	    s->chosen)
		return s;
	scratch_free(s);
	return NULL;
}

/* NULL when out of memory. */
hnsw_scratch *ruv_hnsw_scratch_take(ruv_hnsw *x, int pool_cap, uint32_t n_ids)
{
	hnsw_scratch *s = NULL;
	size_t words = ((size_t)n_ids + 63) / 64;

	for (int i = 0; i < HNSW_SCRATCHES && !s; i++)
		if (atomic_load_explicit(&x->scratches[i], memory_order_relaxed))
			s = atomic_exchange(&x->scratches[i], NULL);
	if (!s)
		s = scratch_create(x);
	if (!s)
		return NULL;
	if (s->n_visited_words < words) {
		size_t n = words + words / 4 + 16;
		free(s->visited);
		s->visited = calloc(n, sizeof *s->visited);
		s->n_visited_words = s->visited ? n : 0;
	}
	if (s->pool_cap < pool_cap + 1) {
		free(s->pool);
		s->pool = malloc(((size_t)pool_cap + 1) * sizeof *s->pool);
		s->pool_cap = s->pool ? pool_cap + 1 : 0;
	}
	if (!s->pool_cap || s->n_visited_words < words) {
		scratch_free(s);
		return NULL;
	}
	s->n_touched = 0;
	s->n_pool = 0;
	return s;
}

void ruv_hnsw_scratch_give(ruv_hnsw *x, hnsw_scratch *s)
{
	if (!s)
		return;
	for (int i = 0; i < HNSW_SCRATCHES; i++) {
		hnsw_scratch *none = NULL;
		if (!atomic_load_explicit(&x->scratches[i], memory_order_relaxed) &&
		    atomic_compare_exchange_strong(&x->scratches[i], &none, s))
			return;
	}
	scratch_free(s);
}

int ruv_hnsw_reserve_list(hnsw_scratch *s, size_t n)
{
	if (s->list_cap < n) {
		free(s->list);
		s->list = malloc(n * sizeof *s->list);
		s->list_cap = s->list ? n : 0;
	}
	return s->list ? RUV_OK : RUV_ENOMEM;
}

void ruv_hnsw_clear_visited(hnsw_scratch *s)
{
	if (s->n_visited_words * sizeof *s->visited <= HNSW_SMALL_BITMAP || s->n_touched > HNSW_TOUCHED)
		memset(s->visited, 0, s->n_visited_words * sizeof *s->visited);
	else
		for (size_t i = 0; i < s->n_touched; i++)
			s->visited[s->touched[i]] = 0;
	s->n_touched = 0;
}

/* ---- walking ---- */

int ruv_hnsw_by_distance(const void *a, const void *b)
{
	const hnsw_candidate *x = a, *y = b;

	if (x->d != y->d)
		return x->d < y->d ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* Puts a candidate that is nearer than the last, or that there is room for, into its place; returns the place. */
static inline int pool_insert(hnsw_candidate *pool, int *n, int ef, float d, uint32_t id)
{
	int low = 0, high = *n;

	while (low < high) {
		int middle = (low + high) / 2;
		if (pool[middle].d <= d)
			low = middle + 1;
		else
			high = middle;
	}
	if (*n < ef)
		++*n;
	memmove(pool + low + 1, pool + low, (size_t)(*n - 1 - low) * sizeof *pool);
	pool[low] = (hnsw_candidate){d, id};
	return low;
}

/* The ids of the list that were not visited yet, now marked, to s->ids; how many. */
static inline int gather(hnsw_scratch *s, const atomic_uint *list, int cap, uint32_t n_ids)
{
	int n = hnsw_list_n(list, cap), n_new = 0;
	bool log = s->n_touched + (size_t)n <= HNSW_TOUCHED;

	if (!log)
		s->n_touched = HNSW_TOUCHED + 1;
	for (int i = 0; i < n; i++) {
		uint32_t id = hnsw_list_at(list, i);
		uint64_t bit = 1ull << (id & 63), word;
		if (id >= n_ids) /* younger than this search */
			continue;
		word = s->visited[id >> 6];
		s->visited[id >> 6] = word | bit;
		s->ids[n_new] = id;
		if (log)
			s->touched[s->n_touched] = id >> 6;
		s->n_touched += log & !(word & bit);
		n_new += !(word & bit);
	}
	return n_new;
}

static inline void prefetch_list(const ruv_hnsw *x, uint32_t id)
{
	const unsigned char *at = (const unsigned char *)hnsw_tail_of(x, id);

	for (int i = 0; i < x->m0 * 4 + 16; i += 64)
		__builtin_prefetch(at + i);
}

void ruv_hnsw_walk(const ruv_hnsw *x, hnsw_scratch *s, const ruv_code_query *q, int level, int ef, uint32_t n_ids)
{
	hnsw_candidate *pool = s->pool;
	int n = s->n_pool, at = 0, cap = hnsw_list_cap(x, level);

	for (int i = 0; i < n; i++) {
		s->visited[pool[i].id >> 6] |= 1ull << (pool[i].id & 63);
		if (s->n_touched < HNSW_TOUCHED)
			s->touched[s->n_touched] = pool[i].id >> 6;
		s->n_touched += s->n_touched <= HNSW_TOUCHED;
	}
	while (at < n) {
		uint32_t id = pool[at].id;
		int n_new, back = n;
		if (id & HNSW_EXPANDED) {
			at++;
			continue;
		}
		pool[at].id |= HNSW_EXPANDED;
		n_new = gather(s, hnsw_list(x, id, level), cap, n_ids);
		if (at + 1 < n && level == 0)
			prefetch_list(x, pool[at + 1].id & ~HNSW_EXPANDED);
		x->distances(s->distances, &x->format, q, x->records, x->record_bytes, s->ids, n_new);
		for (int i = 0; i < n_new; i++)
			if (n < ef || s->distances[i] < pool[n - 1].d) {
				int place = pool_insert(pool, &n, ef, s->distances[i], s->ids[i]);
				back = place < back ? place : back;
			}
		at = back <= at ? back : at + 1;
	}
	s->n_pool = n;
}

bool ruv_hnsw_descend(const ruv_hnsw *x, hnsw_scratch *s, const ruv_code_query *q, uint64_t entry, int level, uint32_t n_ids)
{
	uint32_t best = (uint32_t)entry;
	float nearest;

	if (entry == HNSW_NO_ENTRY)
		return false;
	x->distances(&nearest, &x->format, q, x->records, x->record_bytes, &best, 1);
	for (int l = (int)(entry >> 32); l > level; l--)
		for (bool moved = true; moved;) {
			const atomic_uint *list = hnsw_list(x, best, l);
			int n = hnsw_list_n(list, x->params.m), kept = 0;
			for (int i = 0; i < n; i++) {
				uint32_t id = hnsw_list_at(list, i);
				s->ids[kept] = id;
				kept += id < n_ids;
			}
			x->distances(s->distances, &x->format, q, x->records, x->record_bytes, s->ids, kept);
			moved = false;
			for (int i = 0; i < kept; i++)
				if (s->distances[i] < nearest) {
					nearest = s->distances[i];
					best = s->ids[i];
					moved = true;
				}
		}
	s->pool[0] = (hnsw_candidate){nearest, best};
	s->n_pool = 1;
	return true;
}

/* ---- searching ---- */

typedef struct search {
	ruv_hnsw *x;
	const float *vector;
	const ruv_hnsw_query *query;
	unsigned ticket;
	uint64_t entry;
	uint32_t n_ids;
	int k, n_rerank;
	hnsw_scratch *s;
} search;

static inline bool passes(const ruv_hnsw_filter *f, uint32_t id, int64_t key)
{
	if (!f)
		return true;
	if (f->pass)
		return f->pass(f->arg, id, key);
	return id < f->n_bits && (f->bits[id / 64] >> id % 64 & 1);
}

/* About how many nodes pass the filter. */
static double estimate_passing(const search *r, int64_t n_live)
{
	const ruv_hnsw_filter *f = r->query->filter;
	int64_t n = 0, looked = 0;
	uint32_t step;

	if (!f)
		return (double)n_live;
	if (!f->pass && f->n_bits / 64 <= 1 << 16) {
		uint32_t bits = f->n_bits < r->n_ids ? f->n_bits : r->n_ids;
		for (uint32_t w = 0; w < bits / 64; w++)
			n += __builtin_popcountll(f->bits[w]);
		if (bits % 64)
			n += __builtin_popcountll(f->bits[bits / 64] & ((1ull << bits % 64) - 1));
		return (double)(n < n_live ? n : n_live);
	}
	step = r->n_ids / SAMPLES + 1;
	for (uint32_t id = step / 2; id < r->n_ids; id += step) {
		int64_t key = hnsw_visible_key(r->x, id, r->ticket);
		if (!key)
			continue;
		looked++;
		n += passes(f, id, key);
	}
	/* Half a node more than seen: none of the sample is not none of all. */
	return looked ? (double)n_live * ((double)n + 0.5) / (double)looked : (double)n_live;
}

static void sift_down(hnsw_candidate *heap, int n, int i)
{
	hnsw_candidate moving = heap[i];

	for (int child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && heap[child + 1].d > heap[child].d)
			child++;
		if (heap[child].d <= moving.d)
			break;
		heap[i] = heap[child];
	}
	heap[i] = moving;
}

/* The `most` nearest of everything that passes, to s->pool, by the codes. */
static void scan(search *r, int most)
{
	const ruv_hnsw_filter *f = r->query->filter;
	hnsw_scratch *s = r->s;
	hnsw_candidate *pool = s->pool;
	int n = 0;

	for (uint32_t id = 0; id < r->n_ids;) {
		int block = 0;
		for (; id < r->n_ids && block < SCAN_BLOCK; id++) {
			int64_t key;
			if (f && !f->pass) { /* to the next bit that is set */
				uint64_t rest = id < f->n_bits ? f->bits[id / 64] >> id % 64 : 0;
				if (!rest) {
					id = id < f->n_bits ? id | 63 : r->n_ids - 1;
					continue;
				}
				id += (uint32_t)__builtin_ctzll(rest);
				if (id >= f->n_bits || id >= r->n_ids)
					continue;
			}
			key = atomic_load_explicit(&r->x->keys[id], memory_order_acquire);
			if (key > 0 && passes(f, id, key) && hnsw_visible_key(r->x, id, r->ticket))
				s->ids[block++] = id;
		}
		r->x->distances(s->distances, &r->x->format, &s->query, r->x->records, r->x->record_bytes, s->ids, block);
		for (int i = 0; i < block; i++)
			if (n < most) {
				pool[n++] = (hnsw_candidate){s->distances[i], s->ids[i]};
				for (int at = n / 2 - 1; n == most && at >= 0; at--)
					sift_down(pool, n, at);
			} else if (s->distances[i] < pool[0].d) {
				pool[0] = (hnsw_candidate){s->distances[i], s->ids[i]};
				sift_down(pool, n, 0);
			}
	}
	qsort(pool, (size_t)n, sizeof *pool, ruv_hnsw_by_distance);
	s->n_pool = n;
}

/* Leaves in the pool what this reader may return. */
static int keep_passing(search *r)
{
	hnsw_scratch *s = r->s;
	int kept = 0;

	for (int i = 0; i < s->n_pool; i++) {
		hnsw_candidate c = s->pool[i];
		int64_t key;
		c.id &= ~HNSW_EXPANDED;
		key = hnsw_visible_key(r->x, c.id, r->ticket);
		if (key && passes(r->query->filter, c.id, key))
			s->pool[kept++] = c;
	}
	s->n_pool = kept;
	return kept;
}

static const float *row_of(const ruv_hnsw_rows *rows, uint32_t id, int64_t key)
{
	return rows->row ? rows->row(rows->arg, id, key) : rows->base + (size_t)id * rows->stride;
}

static int better_first(const void *a, const void *b)
{
	const ruv_hnsw_hit *x = a, *y = b;

	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	return x->key < y->key ? -1 : x->key > y->key;
}

/* Has the disk begin with every row that will be ranked again. An advice: what fails here is read when it is looked at. */
static void ask_for_rows(const search *r, const ruv_hnsw_rows *rows)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	int n = r->s->n_pool < r->n_rerank ? r->s->n_pool : r->n_rerank;

	for (int i = 0; i < n; i++) {
		uint32_t id = r->s->pool[i].id;
		int64_t key = hnsw_visible_key(r->x, id, r->ticket);
		uintptr_t row = key ? (uintptr_t)row_of(rows, id, key) : 0, from = row / page * page;
		if (row)
			(void)madvise((void *)from, row + (size_t)r->x->format.dimension * sizeof(float) - from, MADV_WILLNEED);
	}
}

/* The pool's first n_rerank nodes as hits with their true scores, in s->list's memory; sorted. Returns how many. */
static int rerank(search *r, ruv_hnsw_hit *to)
{
	enum { AHEAD = 4 };
	const ruv_hnsw_rows *rows = r->query->rows;
	bool euclidean = r->x->format.euclidean, exact = rows && (rows->row || rows->base);
	int n = 0, dim = r->x->format.dimension;

	if (exact && rows->on_disk)
		ask_for_rows(r, rows);
	else if (exact && rows->base && !rows->row)
		for (int i = 0; i < AHEAD && i < r->s->n_pool; i++)
			for (int j = 0; j < dim; j += 16)
				__builtin_prefetch(rows->base + (size_t)r->s->pool[i].id * rows->stride + j);
	for (int i = 0; i < r->s->n_pool && n < r->n_rerank; i++) {
		hnsw_candidate c = r->s->pool[i];
		int64_t key = hnsw_visible_key(r->x, c.id, r->ticket);
		float score = euclidean ? -2 * c.d : -c.d;
		if (!key)
			continue;
		if (exact) {
			const float *row = row_of(rows, c.id, key);
			if (!row)
				continue;
			if (!rows->row && !rows->on_disk && i + AHEAD < r->s->n_pool)
				for (int j = 0; j < dim; j += 16)
					__builtin_prefetch(rows->base + (size_t)r->s->pool[i + AHEAD].id * rows->stride + j);
			score = euclidean ? -r->x->kernels->squared(r->vector, row, dim) : r->x->kernels->dot(r->vector, row, dim);
		}
		to[n++] = (ruv_hnsw_hit){key, c.id, score};
	}
	qsort(to, (size_t)n, sizeof *to, better_first);
	return n;
}

static bool finite_vector(const float *v, int n)
{
	float sum = 0;

	for (int i = 0; i < n; i++)
		sum += v[i] * 0; /* NaN as soon as one is not finite */
	return sum == 0;
}

/* Of text, what holds the k nearest in 99.5 cases of 100: docs/vector-search.md. */
static int to_rerank(int bits, int k)
{
	return bits == 8 ? 2 * k + 16 : bits == 4 ? 4 * k + 32 : 16 * k + 64;
}

int ruv_hnsw_search(ruv_hnsw *x, const float *vector, const ruv_hnsw_query *query, ruv_hnsw_hit *hits)
{
	search r = {.x = x, .vector = vector, .query = query, .k = query->k};
	int ef = query->ef, n = 0, n_hits = 0, rc = RUV_OK;
	int64_t n_live, n_walked;
	double passing, wanted;
	bool by_graph;
	ruv_hnsw_hit *ranked;

	if (query->k < 1 || query->k > RUV_HNSW_MAX_EF || query->ef < 0 || query->ef > RUV_HNSW_MAX_EF || query->n_rerank < 0 ||
	    (unsigned)query->how > RUV_HNSW_SCAN || !finite_vector(vector, x->format.dimension))
		return RUV_EINVAL;
	if (!atomic_load_explicit(&x->begun, memory_order_acquire))
		return 0;
	if (!ef) {
		ef = x->params.ef_search > DEFAULT_EF ? x->params.ef_search : DEFAULT_EF;
		if (query->filter && ef < FILTERED_EF)
			ef = FILTERED_EF;
		ef = 2 * r.k > ef ? 2 * r.k : ef;
	}
	r.n_rerank = query->n_rerank ? query->n_rerank : to_rerank(x->params.bits, r.k);
	r.n_rerank = r.k > r.n_rerank ? r.k : r.n_rerank;
	if (!query->ef && r.n_rerank > ef)
		ef = r.n_rerank;
	ef = r.k > ef ? r.k : ef;

	r.ticket = ruv_epoch_enter(&x->epoch);
	r.entry = atomic_load_explicit(&x->entry, memory_order_acquire); /* before n_ids, so that it is below */
	r.n_ids = atomic_load_explicit(&x->n_ids, memory_order_acquire);
	n_live = atomic_load_explicit(&x->n_live, memory_order_relaxed);
	n_walked = n_live + atomic_load_explicit(&x->n_removed, memory_order_relaxed);
	passing = estimate_passing(&r, n_live);
	/* As many candidates as hold `ef` that pass; a tenth more because the share among the near ones may be less. */
	wanted = ef;
	if (passing < (double)n_walked)
		wanted = passing > 0 ? ef * 1.1 * (double)n_walked / passing : INFINITY;
	by_graph = query->how == RUV_HNSW_GRAPH ||
	           (query->how == RUV_HNSW_AUTO && wanted <= MAX_POOL &&
	            wanted * DISTANCES_A_STEP < passing + (query->filter && query->filter->pass ? 0.2 * (double)r.n_ids : 0));
	wanted = wanted > MAX_POOL ? MAX_POOL : wanted;
	ef = (int)wanted > ef ? (int)wanted : ef;
	if ((uint32_t)ef > r.n_ids)
		ef = (int)r.n_ids > r.k ? (int)r.n_ids : r.k;
	r.s = ruv_hnsw_scratch_take(x, ef > r.n_rerank ? ef : r.n_rerank, r.n_ids);
	if (!r.s) {
		rc = RUV_ENOMEM;
		goto done;
	}
	ruv_code_query_of_vector(&x->format, &r.s->query, vector);
	if (by_graph) {
		if (ruv_hnsw_descend(x, r.s, &r.s->query, r.entry, 0, r.n_ids))
			ruv_hnsw_walk(x, r.s, &r.s->query, 0, ef, r.n_ids);
		ruv_hnsw_clear_visited(r.s);
		if (keep_passing(&r) < r.k && query->how == RUV_HNSW_AUTO && (query->filter || r.s->n_pool < n_live))
			by_graph = false;
	}
	if (!by_graph) { /* what passes may lie far away, where many are about as near: codes tell them apart less well */
		if (!query->n_rerank)
			r.n_rerank = x->params.bits == 1 ? 32 * r.k + 256 : 8 * r.k + 64;
		if (r.n_rerank > r.s->pool_cap - 1) {
			ruv_hnsw_scratch_give(x, r.s);
			r.s = ruv_hnsw_scratch_take(x, r.n_rerank, r.n_ids);
			if (!r.s) {
				rc = RUV_ENOMEM;
				goto done;
			}
			ruv_code_query_of_vector(&x->format, &r.s->query, vector);
		}
		scan(&r, r.n_rerank);
	}
	if (ruv_hnsw_reserve_list(r.s, (size_t)r.n_rerank * sizeof *ranked / sizeof(hnsw_candidate))) {
		rc = RUV_ENOMEM;
		goto done;
	}
	ranked = (ruv_hnsw_hit *)(void *)r.s->list;
	n = rerank(&r, ranked);
	for (int i = 0; i < n && n_hits < r.k; i++) {
		bool twice = false;
		if (atomic_load_explicit(&x->replaced, memory_order_relaxed))
			for (int j = 0; j < n_hits && !twice; j++)
				twice = hits[j].key == ranked[i].key;
		if (!twice)
			hits[n_hits++] = ranked[i];
	}
done:
	ruv_epoch_leave(&x->epoch, r.ticket);
	ruv_hnsw_scratch_give(x, r.s);
	return rc ? rc : n_hits;
}

typedef struct batch {
	ruv_hnsw *x;
	const float *vectors;
	const ruv_hnsw_query *query;
	ruv_hnsw_hit *hits;
	int *n_hits;
} batch;

static void batch_one(void *arg, int i, int thread)
{
	batch *b = arg;

	(void)thread;
	b->n_hits[i] = ruv_hnsw_search(b->x, b->vectors + (size_t)i * (size_t)b->x->format.dimension, b->query,
	                               b->hits + (size_t)i * (size_t)b->query->k);
}

int ruv_hnsw_search_batch(ruv_hnsw *x, const float *vectors, int n_vectors, const ruv_hnsw_query *query, ruv_hnsw_hit *hits,
                          int *n_hits, ruv_pool *pool)
{
	batch b = {x, vectors, query, hits, n_hits};

	if (query->k < 1 || n_vectors < 0)
		return RUV_EINVAL;
	if (pool)
		ruv_pool_run(pool, batch_one, &b, n_vectors);
	else
		for (int i = 0; i < n_vectors; i++)
			batch_one(&b, i, 0);
	for (int i = 0; i < n_vectors; i++)
		if (n_hits[i] < 0)
			return n_hits[i];
	return RUV_OK;
}

/* ---- looking ---- */

int64_t ruv_hnsw_key(const ruv_hnsw *x, uint32_t id)
{
	if (id >= ruv_hnsw_n_ids(x) || !hnsw_is_live(x, id))
		return 0;
	return atomic_load_explicit(&x->keys[id], memory_order_acquire);
}

uint32_t ruv_hnsw_n_ids(const ruv_hnsw *x)
{
	return atomic_load_explicit(&x->n_ids, memory_order_acquire);
}

const ruv_hnsw_params *ruv_hnsw_get_params(const ruv_hnsw *x)
{
	return &x->params;
}

void ruv_hnsw_get_stats(ruv_hnsw *x, ruv_hnsw_stats *out)
{
	uint64_t entry = atomic_load(&x->entry);
	uint32_t n_ids = ruv_hnsw_n_ids(x);

	memset(out, 0, sizeof *out);
	out->n_nodes = atomic_load(&x->n_live);
	out->n_removed = atomic_load(&x->n_removed);
	out->max_level = entry == HNSW_NO_ENTRY ? -1 : (int)(entry >> 32);
	pthread_mutex_lock(&x->writer);
	for (uint32_t id = 0; id < n_ids; id++)
		if (hnsw_is_live(x, id))
			out->n_links += hnsw_list_n(hnsw_list(x, id, 0), x->m0);
	out->n_bytes = (int64_t)((size_t)n_ids * (x->record_bytes + sizeof *x->keys) + x->n_upper_words * sizeof(uint32_t));
	pthread_mutex_unlock(&x->writer);
}
