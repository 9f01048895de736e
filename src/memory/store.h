/* store.h - the seam between the memory and where it is kept: SQLite now, PostgreSQL later.
 *
 * Above the seam: arguments checked, filled in and in range, vectors in memory, fusion, policy. Below it: rows, transactions,
 * words, the event log, durability. A home is a struct that starts with `ruv_store` and a table of functions.
 *
 * Keys        A node has an id (UUID) for the world and a key (positive, never reused within a store) for indexes.
 * Reading     Any thread, any number at once. Outside a transaction a call sees the last committed state; on the thread that began
 *             a transaction, its own changes too.
 * Writing     begin ... commit | rollback on one thread; other writers wait in begin, here and in other processes. commit returns
 *             when the changes are on the disk. Write calls outside a transaction are faults of ours (RUV_EINTERNAL).
 * Events      Every write call appends to the event log in the same transaction; `changes` reads it, so an index in memory follows
 *             this process's writes and others' in one way only.
 * Expiry      No read returns a node whose time is over at `now`; begin deletes such nodes.
 * Layer: memory. */
#ifndef RUV_MEMORY_STORE_H
#define RUV_MEMORY_STORE_H

#include "base/arena.h"
#include "ruvllm/memory.h"

typedef struct ruv_store ruv_store;

/* What an index keeps of a node to filter by. Strings live during the callback. */
typedef struct ruv_store_row {
	int64_t key;
	bool gone;           /* deleted or expired: nothing below is set */
	const float *vector; /* [dimension] or NULL */
	ruv_node_type type;
	const char *user, *agent, *session, *domain, *source;
	const char *tags; /* "\ntag\ntag\n", sorted; "" when none */
	float confidence;
	int64_t created_ms, expires_ms;
	const char *title, *text; /* of the word feeds; NULL in the others */
} ruv_store_row;

/* Returns a status; anything but RUV_OK stops the reading and is returned from it. */
typedef int ruv_store_row_fn(void *user, const ruv_store_row *row, ruv_error *err);

/* Where an export goes: each returns a status; anything but RUV_OK stops the visit. What they get lives during the call. */
typedef struct ruv_store_visitor {
	void *user;
	int (*source)(void *user, const ruv_memory_source *source, ruv_error *err);
	int (*node)(void *user, const ruv_memory_node *node, ruv_error *err); /* with its vector */
	int (*edge)(void *user, const ruv_memory_edge *edge, ruv_error *err);
	/* A passage of the source just visited that was forgotten by itself. NULL: not wanted. */
	int (*forgotten)(void *user, const ruv_memory_source *which, int64_t hash, ruv_error *err);
} ruv_store_visitor;

/* A term of a word search: `n` bytes, to be matched literally after the home's own folding and stemming. */
typedef struct ruv_store_term {
	const char *text;
	int n;
} ruv_store_term;

/* An edge as the graph stage reads it. */
typedef struct ruv_store_link {
	int64_t src, dst; /* keys */
	ruv_edge_type type;
	float weight, confidence;
	int64_t created_ms;
} ruv_store_link;

typedef struct ruv_store_match {
	int64_t key;
	double score; /* greater is better */
} ruv_store_match;

/* Cuts text into the words that the home's index holds: folded, stemmed. One thread at a time. */
typedef struct ruv_tokenizer ruv_tokenizer;
typedef int ruv_token_fn(void *user, const char *token, int n); /* anything but 0 stops */
struct ruv_tokenizer {
	/* query: as a question is cut, not a stored text. RUV_OK, RUV_ENOMEM, or what fn stopped with. */
	int (*cut)(ruv_tokenizer *tokenizer, const char *text, int n, bool query, ruv_token_fn *fn, void *user);
	void (*free)(ruv_tokenizer *tokenizer);
};

typedef struct ruv_store_embedder {
	const char *id, *version; /* "" when none; valid until the store changes embedder or closes */
	int dimension;            /* 0 when none */
} ruv_store_embedder;

typedef struct ruv_store_ops {
	const char *name; /* "sqlite" */
	void (*close)(ruv_store *store);

	int (*embedder)(ruv_store *store, ruv_arena *arena, ruv_store_embedder *out, ruv_error *err);
	/* Drops all vectors and records another embedder; in a transaction. */
	int (*set_embedder)(ruv_store *store, const ruv_store_embedder *embedder, ruv_error *err);

	int (*begin)(ruv_store *store, ruv_error *err);
	int (*commit)(ruv_store *store, ruv_error *err);
	void (*rollback)(ruv_store *store);

	/* Nodes. put: RUV_EEXIST. replace and erase: RUV_ENOTFOUND. keep_vector: a NULL vector leaves the stored one. */
	int (*node_put)(ruv_store *store, const ruv_memory_node *node, int64_t *key, ruv_error *err);
	int (*node_replace)(ruv_store *store, const ruv_memory_node *node, bool keep_vector, ruv_error *err);
	int (*node_erase)(ruv_store *store, const char *id, const char *why, ruv_error *err);
	/* The node in `arena`; RUV_ENOTFOUND. */
	int (*node_get)(ruv_store *store, ruv_arena *arena, ruv_memory_node *node, const char *id, ruv_error *err);
	/* nodes[i] of keys[i] where it is there and passes the filter (found[i]). */
	int (*nodes_by_key)(ruv_store *store, ruv_arena *arena, ruv_memory_node *nodes, bool *found, const int64_t *keys, int n,
	                    const ruv_memory_filter *filter, bool with_vectors, ruv_error *err);
	/* Newest first. *nodes is an arena array. */
	int (*node_list)(ruv_store *store, ruv_arena *arena, ruv_memory_node **nodes, int *n, const ruv_memory_filter *filter,
	                 bool without_vector, bool with_vectors, int offset, int limit, ruv_error *err);
	/* Up to `limit` ids that start (prefix) or end with `part`. */
	int (*node_resolve)(ruv_store *store, const char *part, char (*ids)[RUV_ID_SIZE], int limit, int *n, ruv_error *err);

	/* Sources, named by name and exact scope. get: RUV_ENOTFOUND. nodes: all of it, any expiry. */
	int (*source_get)(ruv_store *store, ruv_arena *arena, ruv_memory_source *out, const ruv_memory_source *which,
	                  ruv_error *err);
	int (*source_put)(ruv_store *store, const ruv_memory_source *source, ruv_error *err);
	int (*source_erase)(ruv_store *store, const ruv_memory_source *which, ruv_error *err);
	/* Nodes that fail their checksum are left out and counted. */
	int (*source_nodes)(ruv_store *store, ruv_arena *arena, ruv_memory_node **nodes, int *n, int *n_damaged,
	                    const ruv_memory_source *which, bool with_vectors, ruv_error *err);
	/* Drops the nodes of it that fail their checksum, and makes anew what was derived from them. */
	int (*source_mend)(ruv_store *store, const ruv_memory_source *which, ruv_error *err);
	/* A kept node of a replaced source: new place in it, and a vector when vector is not NULL. */
	int (*node_move)(ruv_store *store, const char *id, int first_line, int last_line, const float *vector, ruv_error *err);
	/* Passages of a source that were forgotten one by one, as hashes: put adds one, get lists them, drop forgets that. */
	int (*forgotten_put)(ruv_store *store, const ruv_memory_source *which, int64_t hash, ruv_error *err);
	int (*forgotten_get)(ruv_store *store, ruv_arena *arena, int64_t **hashes, int *n, const ruv_memory_source *which,
	                     ruv_error *err);
	int (*forgotten_drop)(ruv_store *store, const ruv_memory_source *which, ruv_error *err);
	int (*source_list)(ruv_store *store, ruv_arena *arena, ruv_memory_source **sources, int *n, const ruv_memory_filter *filter,
	                   ruv_error *err);

	/* Edges. put fills in the id of an edge that was there. */
	int (*edge_put)(ruv_store *store, ruv_memory_edge *edge, ruv_error *err);
	int (*edge_erase)(ruv_store *store, const char *id, ruv_error *err);
	int (*edge_get)(ruv_store *store, ruv_arena *arena, ruv_memory_edge *edge, const char *id, ruv_error *err);
	/* Edges that touch the node (either end), heaviest first. */
	int (*edges_of)(ruv_store *store, ruv_arena *arena, ruv_memory_edge **edges, int *n, const char *id, int limit,
	                ruv_error *err);
	/* The `limit` heaviest edges of each of keys[0..n_keys), one key after the other: an edge between two of them comes twice.
	 * *links is an arena array. */
	int (*links_of)(ruv_store *store, ruv_arena *arena, ruv_store_link **links, int *n, const int64_t *keys, int n_keys,
	                int limit, ruv_error *err);
	/* keys[i] of ids[i], 0 where there is no such node. */
	int (*node_keys)(ruv_store *store, int64_t *keys, const char *const *ids, int n, ruv_error *err);

	/* Indexes; these three see only what is committed, inside a transaction too. scan: every node, once, and the sequence
	 * number that this state has. changes: every node touched after `since`. */
	int (*scan)(ruv_store *store, int64_t *seq, ruv_store_row_fn *fn, void *user, ruv_error *err);
	int (*changes)(ruv_store *store, int64_t since, int64_t *seq, ruv_store_row_fn *fn, void *user, ruv_error *err);
	/* The same two for an index of words: rows with title and text and without vectors. */
	int (*scan_words)(ruv_store *store, int64_t *seq, ruv_store_row_fn *fn, void *user, ruv_error *err);
	int (*changes_words)(ruv_store *store, int64_t since, int64_t *seq, ruv_store_row_fn *fn, void *user, ruv_error *err);
	int (*tokenizer)(ruv_store *store, ruv_tokenizer **out, ruv_error *err);
	/* Everything in one snapshot: sources by name, nodes by key, edges by id. */
	int (*visit)(ruv_store *store, const ruv_store_visitor *visitor, ruv_error *err);
	/* The number of the last committed event; cheap. */
	int (*last_event)(ruv_store *store, int64_t *seq, ruv_error *err);
	/* When the next node expires, 0: none does. */
	int (*next_expiry)(ruv_store *store, int64_t *ms, ruv_error *err);
	/* A number that tells this store's event `seq` from any other's and from another one under the same number (a store put
	 * back from a backup); seq 0 is the beginning. RUV_ENOTFOUND. */
	int (*event_mark)(ruv_store *store, int64_t seq, uint64_t *mark, ruv_error *err);

	/* The best `limit` nodes by BM25 over any of the terms, best first. */
	int (*lexical)(ruv_store *store, ruv_store_match *out, int *n, const ruv_store_term *terms, int n_terms,
	               const ruv_memory_filter *filter, int limit, ruv_error *err);

	int (*history)(ruv_store *store, ruv_arena *arena, ruv_memory_event **events, int *n, const char *id, int limit,
	               ruv_error *err);
	int (*stats)(ruv_store *store, ruv_memory_stats *stats, ruv_error *err);
	/* Adds to the report; calls fn for each problem. */
	int (*check)(ruv_store *store, ruv_memory_report *report, bool repair, ruv_memory_problem_fn *fn, void *user,
	             ruv_error *err);
	int (*backup)(ruv_store *store, const char *path, ruv_error *err);
	int (*compact)(ruv_store *store, ruv_error *err);
} ruv_store_ops;

struct ruv_store {
	const ruv_store_ops *ops;
};

/* Schema version that this build writes; a store with a greater one is refused. */
enum { RUV_STORE_SCHEMA_VERSION = 2 };

/* The SQLite home, DIR/memory.db. */
int ruv_store_open_sqlite(ruv_store **out, const char *dir, bool create, bool read_only, int lock_wait_ms, ruv_error *err);

#endif
