/* hnsw_impl.h - what hnsw*.c share: the record, the lists, a walk's scratch.
 *
 * A record, record_bytes long and aligned to 64: the code and its header (codes.h), then a `tail`. Records, keys and upper lists
 * lie in address ranges that are reserved whole at the beginning and made usable as the index grows, so that nothing ever moves
 * under a reader.
 *
 * What a reader may see while the writer works: every word of a list is atomic, and an id that was in a list stays walkable, code
 * and all, until each reader who was there has left (epoch.h). A node's code, level and own lists are written before its id is put
 * (release) into anybody's list. A list may be seen half old, half new: both halves are walkable.
 *
 * A node's life: free (key 0) -> live (key > 0, dead 0) -> removed (key < 0, at once) or replaced (dead = epoch: readers who came
 * later do not see it) -> taken out of all lists by a repair, retired -> free again two epochs later. Layer: memory, private to
 * hnsw*.c. */
#ifndef RUV_MEMORY_HNSW_IMPL_H
#define RUV_MEMORY_HNSW_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/rng.h"
#include "base/status.h"
#include "memory/codes.h"
#include "memory/epoch.h"
#include "memory/hnsw.h"

enum {
	HNSW_MAX_LEVEL = 15,
	HNSW_LOCKS = 256,    /* of lists, by id, between threads of one add */
	HNSW_SCRATCHES = 64, /* kept between searches */
	HNSW_TOUCHED = 16384,
	HNSW_SMALL_BITMAP = 1 << 15 /* bytes that are cleared whole */
};

#define HNSW_EXPANDED (1u << 31)
#define HNSW_NO_ENTRY UINT64_MAX

/* A reserved range of addresses. */
typedef struct hnsw_region {
	unsigned char *base, *reserved;
	size_t reserved_bytes, size, usable; /* of base */
} hnsw_region;

typedef struct hnsw_tail {
	atomic_uint dead; /* the epoch in which another node took the key over; 0: none has */
	uint32_t level;
	uint32_t upper;     /* word of `uppers` where the lists of levels 1.. begin, 1 + m words each; 0: level 0 only */
	uint32_t lost;      /* the writer's: links of level 0 that went with removed nodes since the node was linked */
	atomic_uint list[]; /* the count, then ids: level 0, 1 + 2m words */
} hnsw_tail;

typedef struct hnsw_candidate {
	float d;
	uint32_t id; /* HNSW_EXPANDED: its list was read */
} hnsw_candidate;

/* One search's or one thread's memory. */
typedef struct hnsw_scratch {
	uint64_t *visited; /* [n_visited_words], all 0 between walks */
	size_t n_visited_words;
	uint32_t *touched; /* [HNSW_TOUCHED] words that are not 0, when n_touched <= HNSW_TOUCHED */
	size_t n_touched;
	hnsw_candidate *pool; /* [pool_cap], nearest first */
	int pool_cap, n_pool;
	hnsw_candidate *list; /* [list_cap] for selecting links */
	size_t list_cap;
	uint32_t *ids;      /* [n_gather] of one list */
	float *distances;   /* [n_gather] */
	uint32_t *near_ids; /* [m0 + 1], and [m0 + 1] distances: of links being selected */
	float *near_distances;
	ruv_code_query query, other;
	uint32_t *chosen; /* [HNSW_MAX_LEVEL + 1][1 + m]: a new node's links */
} hnsw_scratch;

typedef struct hnsw_retired {
	uint32_t id;
	unsigned epoch;
} hnsw_retired;

typedef struct hnsw_ids {
	uint32_t *at;
	size_t n, cap;
} hnsw_ids;

struct ruv_hnsw {
	ruv_hnsw_params params;
	ruv_code_format format;
	const ruv_code_kernels *kernels;
	ruv_code_distances_fn *distances;
	int m0, n_gather;
	size_t record_bytes, tail_at;
	hnsw_region record_region, key_region, upper_region;
	unsigned char *records;
	_Atomic int64_t *keys;
	atomic_uint *uppers;
	_Atomic uint64_t entry; /* level << 32 | id */
	atomic_uint n_ids;
	_Atomic int64_t n_live, n_removed;
	atomic_bool begun;    /* the centre stands: it never changes again */
	atomic_bool replaced; /* some key may be in two nodes for some reader */
	ruv_epoch epoch;
	_Atomic(hnsw_scratch *) scratches[HNSW_SCRATCHES];

	pthread_mutex_t writer; /* what follows is the writer's */
	pthread_mutex_t entry_lock, locks[HNSW_LOCKS];
	ruv_rng rng;
	uint32_t n_upper_words;
	int64_t n_added; /* since the last repair */
	hnsw_ids free_ids, reserved_ids, dead_ids;
	hnsw_ids free_uppers[HNSW_MAX_LEVEL + 1]; /* by level */
	hnsw_retired *retired;
	size_t n_retired, retired_cap;
};

static inline unsigned char *hnsw_record(const ruv_hnsw *x, uint32_t id)
{
	return x->records + (size_t)id * x->record_bytes;
}

static inline hnsw_tail *hnsw_tail_of(const ruv_hnsw *x, uint32_t id)
{
	return (hnsw_tail *)(void *)(hnsw_record(x, id) + x->tail_at);
}

/* The list of a node that has that level. */
static inline atomic_uint *hnsw_list(const ruv_hnsw *x, uint32_t id, int level)
{
	hnsw_tail *tail = hnsw_tail_of(x, id);

	return level == 0 ? tail->list : x->uppers + tail->upper + (size_t)(level - 1) * (size_t)(1 + x->params.m);
}

static inline int hnsw_list_cap(const ruv_hnsw *x, int level)
{
	return level == 0 ? x->m0 : x->params.m;
}

static inline int hnsw_list_n(const atomic_uint *list, int cap)
{
	unsigned n = atomic_load_explicit(&list[0], memory_order_acquire);

	return n < (unsigned)cap ? (int)n : cap;
}

static inline uint32_t hnsw_list_at(const atomic_uint *list, int i)
{
	return atomic_load_explicit(&list[1 + i], memory_order_acquire);
}

static inline void hnsw_list_set(atomic_uint *list, const uint32_t *ids, int n)
{
	for (int i = 0; i < n; i++)
		atomic_store_explicit(&list[1 + i], ids[i], memory_order_release);
	atomic_store_explicit(&list[0], (unsigned)n, memory_order_release);
}

/* Can be linked to: the writer's question. */
static inline bool hnsw_is_live(const ruv_hnsw *x, uint32_t id)
{
	return atomic_load_explicit(&x->keys[id], memory_order_acquire) > 0 &&
	       !atomic_load_explicit(&hnsw_tail_of(x, id)->dead, memory_order_acquire);
}

/* The key that a reader with this ticket may return, else 0. `dead` is read first: it is cleared last. */
static inline int64_t hnsw_visible_key(const ruv_hnsw *x, uint32_t id, unsigned ticket)
{
	unsigned dead = atomic_load_explicit(&hnsw_tail_of(x, id)->dead, memory_order_acquire);
	int64_t key = atomic_load_explicit(&x->keys[id], memory_order_acquire);

	return key <= 0 || (dead && (int)(ticket - dead) > 0) ? 0 : key;
}

/* hnsw.c */
int ruv_hnsw_alloc(ruv_hnsw **out, const ruv_hnsw_params *params, ruv_error *err);
int ruv_hnsw_region_reserve(hnsw_region *region, size_t size, ruv_error *err);
int ruv_hnsw_region_use(hnsw_region *region, size_t n_bytes, ruv_error *err);
hnsw_scratch *ruv_hnsw_scratch_take(ruv_hnsw *x, int pool_cap, uint32_t n_ids);
void ruv_hnsw_scratch_give(ruv_hnsw *x, hnsw_scratch *scratch);
int ruv_hnsw_reserve_list(hnsw_scratch *s, size_t n);
void ruv_hnsw_clear_visited(hnsw_scratch *s);
/* The walk at one level with s->pool (n_pool candidates, not yet marked visited) to ef candidates; leaves the visited marks. */
void ruv_hnsw_walk(const ruv_hnsw *x, hnsw_scratch *s, const ruv_code_query *q, int level, int ef, uint32_t n_ids);
/* The nearest node found going down from the entry point (below n_ids) to `level` + 1, as s->pool's only candidate. False when
 * there is no entry point. */
bool ruv_hnsw_descend(const ruv_hnsw *x, hnsw_scratch *s, const ruv_code_query *q, uint64_t entry, int level, uint32_t n_ids);
int ruv_hnsw_by_distance(const void *a, const void *b);

/* hnsw_write.c */
int ruv_hnsw_ids_push(hnsw_ids *ids, uint32_t id, ruv_error *err);
int ruv_hnsw_ids_reserve(hnsw_ids *ids, size_t n_more, ruv_error *err);
/* Malkov & Yashunin's algorithm 4: of from[0..n), nearest first, those that are nearer to the base than to any chosen before,
 * behind the n_to links that `to` holds already; until there are `max`. Returns how many there are. */
int ruv_hnsw_select(const ruv_hnsw *x, hnsw_scratch *s, const hnsw_candidate *from, int n, int max, uint32_t *to, int n_to);
/* Adds a link to a full or not full list of `id`, choosing again when it is full. The list's lock is held where threads meet. */
void ruv_hnsw_link(const ruv_hnsw *x, hnsw_scratch *s, uint32_t id, int level, uint32_t to);
/* A block of upper lists for a node of that level, 0 for level 0. */
int ruv_hnsw_upper_take(ruv_hnsw *x, int level, uint32_t *upper, ruv_error *err);
/* Moves ids that nobody can look at any more to the free ones. */
void ruv_hnsw_reclaim(ruv_hnsw *x);

/* hnsw_care.c; the writer's lock is held. */
int ruv_hnsw_repair_links(ruv_hnsw *x, ruv_pool *pool, ruv_error *err);

#endif
