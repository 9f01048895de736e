/* hnsw.h - approximate nearest neighbours over quantized vectors.
 *
 * Malkov & Yashunin 2016, with these deviations: (1) the graph is built and walked on codes (codes.h: 8 or 4 bits a component, LVQ,
 * Aguerrebere et al. 2023, or one rotated bit, RaBitQ, Gao & Long 2024); the best candidates are ranked again by the caller's F32
 * vectors, which may lie in a mapped file. (2) Level 0 is one array of records, code and neighbours together. (3) A removed node is
 * never returned from that moment on, but is walked through until a repair takes it out of every list and links its neighbours with
 * each other (as Singh et al. 2021); only then is its id used again. (4) A repair also links again whatever the graph no longer
 * reaches. (5) A search that would look at more codes than a scan of what passes its filter scans instead, and so does one that
 * found fewer than k: a filter never loses results.
 *
 * A node has an id, dense and chosen by the index, and a key, the caller's own positive number. The id is where the caller finds
 * the F32 vector and what its filter asks about.
 *
 * Threads: any number of readers with one writer (writers wait for each other); a reader takes no lock and sees a node completely
 *          or not at all.
 * Layer:   memory (uses base). */
#ifndef RUV_MEMORY_HNSW_H
#define RUV_MEMORY_HNSW_H

#include "base/pool.h"
#include "ruvllm/types.h"

typedef struct ruv_hnsw ruv_hnsw;

typedef enum ruv_hnsw_metric {
	RUV_HNSW_IP = 1, /* inner product; of unit vectors, the cosine */
	RUV_HNSW_L2 = 2  /* squared Euclidean distance */
} ruv_hnsw_metric;

typedef struct ruv_hnsw_params {
	int dimension; /* 1..RUV_HNSW_MAX_DIMENSION */
	ruv_hnsw_metric metric;
	int bits;            /* 8, 4 or 1 a component of the codes */
	int m;               /* links a new node gets on a level, 2..RUV_HNSW_MAX_M; level 0 holds twice as many */
	int ef_construction; /* candidates while building, >= m */
	int ef_search;       /* candidates while searching when a search does not say; never less than 64 and 2k then */
	uint32_t max_nodes;  /* ids at most; costs address space, not memory. 0: RUV_HNSW_MAX_NODES */
	uint64_t seed;       /* of the levels */
} ruv_hnsw_params;

enum {
	RUV_HNSW_MAX_DIMENSION = 16384,
	RUV_HNSW_MAX_M = 128,
	RUV_HNSW_MAX_NODES = 1 << 27,
	RUV_HNSW_MAX_EF = 1 << 16,
	RUV_HNSW_TAG = 64 /* bytes of a segment file's tag */
};

/* The parameters of the specification's table (section 4.3) for about `n_nodes` vectors: under 100K, to 1M, to 10M, and above. */
void ruv_hnsw_params_for(ruv_hnsw_params *out, int dimension, ruv_hnsw_metric metric, int64_t n_nodes);

/* An empty index. RUV_EINVAL for parameters out of range, RUV_ENOMEM. */
int ruv_hnsw_create(ruv_hnsw **out, const ruv_hnsw_params *params, ruv_error *err);
/* No search may be running. NULL is fine. */
void ruv_hnsw_free(ruv_hnsw *index);

/* ---- reading ---- */

/* Where the F32 vectors are. `row` returns [dimension] floats of a node, NULL when it has none any more; or, when row is NULL, node
 * id's vector is base + id * stride. Both NULL: there are none, results keep the order and the scores of the codes. */
typedef struct ruv_hnsw_rows {
	const float *(*row)(void *arg, uint32_t id, int64_t key);
	void *arg;
	const float *base;
	size_t stride; /* floats */
	bool on_disk;  /* they are pages of a mapped file that are not in memory, mostly: a search asks for all that it will look at
	                  before it looks at the first, so that the disk reads them at the same time */
} ruv_hnsw_rows;

/* What may be returned. `pass` is asked about ids that hold a node; or, when pass is NULL, bit id % 64 of bits[id / 64] says so,
 * and ids from n_bits on do not pass. */
typedef struct ruv_hnsw_filter {
	bool (*pass)(void *arg, uint32_t id, int64_t key);
	void *arg;
	const uint64_t *bits;
	uint32_t n_bits;
} ruv_hnsw_filter;

typedef enum ruv_hnsw_how {
	RUV_HNSW_AUTO,  /* the graph, or a scan where that is cheaper or the graph found too few */
	RUV_HNSW_GRAPH, /* the graph alone: may find fewer than k */
	RUV_HNSW_SCAN   /* every code that passes */
} ruv_hnsw_how;

typedef struct ruv_hnsw_query {
	int k;  /* 1..RUV_HNSW_MAX_EF */
	int ef; /* candidates kept; recall grows with it. 0: max(ef_search, 64, 2k, n_rerank), with a filter 192 for 64. Less than k
	           counts as k */
	int n_rerank; /* candidates ranked again by F32. 0: 2k + 16 with 8 bits, 4k + 32 with 4, 16k + 64 with 1; when scanning
	                 8k + 64, 32k + 256 with 1. Never more than there are */
	ruv_hnsw_how how;
	const ruv_hnsw_filter *filter; /* NULL: everything passes */
	const ruv_hnsw_rows *rows;     /* NULL: none */
} ruv_hnsw_query;

typedef struct ruv_hnsw_hit {
	int64_t key;
	uint32_t id;
	float score; /* greater is nearer: the inner product, or minus the squared distance */
} ruv_hnsw_hit;

/* The k nearest to `vector` that pass, nearest first, equal ones by key; never two with one key.
 *   vector  [dimension] floats
 *   hits    [k], filled from the front; the caller owns it
 * Returns how many were found: under RUV_HNSW_AUTO and _SCAN fewer than k only when fewer pass. RUV_EINVAL (also for a vector that
 * is not finite), RUV_ENOMEM. Allocates only when more threads search at once than ever before, or the index has grown. */
int ruv_hnsw_search(ruv_hnsw *index, const float *vector, const ruv_hnsw_query *query, ruv_hnsw_hit *hits);

/* The same for n_vectors at once over the pool's threads (NULL: this one). vectors [n_vectors, dimension], hits [n_vectors, k],
 * n_hits [n_vectors] as ruv_hnsw_search returns. The first failure's code, RUV_OK otherwise. */
int ruv_hnsw_search_batch(ruv_hnsw *index, const float *vectors, int n_vectors, const ruv_hnsw_query *query, ruv_hnsw_hit *hits,
                          int *n_hits, ruv_pool *pool);

/* The key of a node, 0 when the id holds none. ids in use are below ruv_hnsw_n_ids(). */
int64_t ruv_hnsw_key(const ruv_hnsw *index, uint32_t id);
uint32_t ruv_hnsw_n_ids(const ruv_hnsw *index);
const ruv_hnsw_params *ruv_hnsw_get_params(const ruv_hnsw *index);

typedef struct ruv_hnsw_stats {
	int64_t n_nodes;   /* that a search can return */
	int64_t n_removed; /* removed, waiting for a repair */
	int64_t n_bytes;   /* of memory or mapped file that records, keys and upper levels use */
	int64_t n_links;   /* on level 0 */
	int max_level;
} ruv_hnsw_stats;
void ruv_hnsw_get_stats(ruv_hnsw *index, ruv_hnsw_stats *out);

/* ---- writing ---- */

/* The next id that add will give, so that the caller can put its F32 vector there first: add's i-th node gets ids[i] for ids
 * reserved by the same writer in the same order and not used yet. RUV_ELIMIT when there is none. */
int ruv_hnsw_reserve(ruv_hnsw *index, uint32_t *ids, int n, ruv_error *err);

/* Adds n vectors; the first add to an empty index takes their mean as the codes' centre, so give it many if there are.
 *   rows  row i is the i-th vector (its `row` function is called with id i), [dimension] finite floats
 *   keys  [n] positive
 *   ids   [n] takes the ids; NULL is fine
 *   pool  NULL: this thread alone
 * On failure nothing was added. RUV_EINVAL, RUV_ENOMEM, RUV_ELIMIT (max_nodes). */
int ruv_hnsw_add(ruv_hnsw *index, const ruv_hnsw_rows *rows, const int64_t *keys, int n, uint32_t *ids, ruv_pool *pool,
                 ruv_error *err);

/* Takes a node out of every search from now on. Every so many removals (a 64th of the nodes, at most
 * 4096) this repairs the graph. RUV_ENOTFOUND. */
int ruv_hnsw_remove(ruv_hnsw *index, uint32_t id, ruv_error *err);

/* Another vector for a node: it gets another id and keeps its key. A search sees the old or the new one. */
int ruv_hnsw_update(ruv_hnsw *index, uint32_t id, const float *vector, uint32_t *new_id, ruv_error *err);

/* Takes the removed nodes out of the graph and makes every node reachable. Searches go on meanwhile. */
int ruv_hnsw_repair(ruv_hnsw *index, ruv_pool *pool, ruv_error *err);

/* ---- care ---- */

typedef struct ruv_hnsw_report {
	int64_t n_nodes, n_links;
	int64_t n_unreachable; /* nodes that no walk on level 0 from the entry point gets to */
	int64_t n_bad_links;   /* to ids that hold nothing, to the node itself, twice to one node, or above the target's level */
	int64_t n_isolated;    /* nodes without any link, when there are several */
	int min_degree, max_degree;
	double mean_degree;
} ruv_hnsw_report;
/* Looks at every list. Reachability and links are promised after a repair, and of every graph that no node was added to since.
 * RUV_ECORRUPT when something promised does not hold, with the first thing found in err. Waits for the writer. */
int ruv_hnsw_check(ruv_hnsw *index, ruv_hnsw_report *report, ruv_error *err);

/* ---- segment files ----
 * Little-endian; a header of 4096 bytes, then sections that start at multiples of 4096: see hnsw_file.c. */

/* Repairs, then writes the file whole or not at all. tag: up to RUV_HNSW_TAG - 1 bytes that the caller wants back from open (which
 * embedder, which version of the store); NULL: "". */
int ruv_hnsw_save(ruv_hnsw *index, const char *path, const char *tag, ruv_error *err);

typedef enum ruv_hnsw_open {
	RUV_HNSW_MAP = 0,  /* records are mapped (changes stay in memory until the next save) */
	RUV_HNSW_READ = 1, /* records are read into memory: slower to open, huge pages, faster to search */
	RUV_HNSW_TRUST =
	    2 /* flag beside either: skip the checksums of the records, look at the header and the small sections only */
} ruv_hnsw_open;
/* tag [RUV_HNSW_TAG] or NULL. max_nodes as in the parameters. RUV_ENOTFOUND, RUV_EIO, RUV_EFORMAT (no such file format or version),
 * RUV_ECORRUPT (cut off, or a checksum does not fit). */
int ruv_hnsw_open_file(ruv_hnsw **out, const char *path, unsigned how, uint32_t max_nodes, char *tag, ruv_error *err);

#endif
