/* memory.h - a semantic memory: text, vectors and a typed graph in one directory, searched by meaning and by words.
 *
 * The truth is one SQLite database, DIR/memory.db. Everything else (the vectors in memory, the graph index) is derived from it.
 * The memory never calls a model: embeddings come in as vectors, and the memory remembers which embedder made them and refuses
 * another one's.
 *
 * Durability   A call that writes and returns RUV_OK has flushed its transaction to the disk: it survives kill -9 and power loss.
 *              A call that fails has changed nothing. Several nodes given to one call are one transaction.
 * Scopes       A node belongs to a user, an agent and a session; "" in one of them means "anybody's". A reader with a scope sees a
 * node when each of the node's three is "" or equals the reader's. A reader without a user therefore sees no user's nodes:
 * forgetting to set a scope hides, it never leaks. `every_scope` is for the store's owner (export, audit). Expiry       A node
 * whose time is over is not seen by any call, and is deleted by the next write. Forgetting   Deletes: row, words, vector, edges,
 * and what the event log kept of its text. Freed pages are overwritten. Ids          UUID version 7 in text (36 characters); they
 * sort by the time they were made. Threads      Any number of threads on one ruv_memory, every call but ruv_memory_free at any
 * time. Writes queue behind each other; searches and reads run beside them and beside each other without waiting, and see every
 * write that returned before they began. A result belongs to the thread that asked for it. Processes    Several may open one
 * directory and write; each write waits its turn (lock_wait_ms), then RUV_EBUSY. Each sees the others' finished writes at its next
 * call. Not on network file systems. Errors       RUV_ENOTFOUND no store there; RUV_EMISMATCH another embedder's store;
 * RUV_EUNSUPPORTED a newer version's store; RUV_ECORRUPT damaged; RUV_EBUSY; RUV_EIO. The message names the file and what to do. */
#ifndef RUVLLM_MEMORY_H
#define RUVLLM_MEMORY_H

#include <stdio.h>

#include "ruvllm/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ruv_memory ruv_memory;

enum {
	RUV_ID_SIZE = 37,                /* bytes of an id in text, with its NUL */
	RUV_MEMORY_MAX_TEXT = 1 << 20,   /* bytes of a node's text */
	RUV_MEMORY_MAX_LABEL = 4096,     /* bytes of a title, source, tag, domain, user, agent, session, created_by */
	RUV_MEMORY_MAX_TAGS = 64,        /* of one node */
	RUV_MEMORY_MAX_DIMENSION = 8192, /* of a vector */
	RUV_MEMORY_MAX_BATCH = 100000,   /* nodes of one call */
	RUV_MEMORY_MAX_K = 10000         /* hits of one search */
};

#define RUV_NODE_TYPE_LIST(X)                                                                                                      \
	X(RUV_NODE_QUERY, 0, "Query")                                                                                              \
	X(RUV_NODE_DOCUMENT, 1, "Document")                                                                                        \
	X(RUV_NODE_AGENT_STEP, 2, "AgentStep")                                                                                     \
	X(RUV_NODE_FACT, 3, "Fact")                                                                                                \
	X(RUV_NODE_QA_PAIR, 4, "QAPair")                                                                                           \
	X(RUV_NODE_CONCEPT, 5, "Concept")

typedef enum ruv_node_type {
#define X(code, value, name) code = value,
	RUV_NODE_TYPE_LIST(X)
#undef X
	    RUV_N_NODE_TYPES = 6
} ruv_node_type;

#define RUV_EDGE_TYPE_LIST(X)                                                                                                      \
	X(RUV_EDGE_CITES, 0, "Cites")                                                                                              \
	X(RUV_EDGE_FOLLOWS, 1, "Follows")                                                                                          \
	X(RUV_EDGE_SAME_TOPIC, 2, "SameTopic")                                                                                     \
	X(RUV_EDGE_AGENT_STEP, 3, "AgentStep")                                                                                     \
	X(RUV_EDGE_DERIVED, 4, "Derived")                                                                                          \
	X(RUV_EDGE_CONTAINS, 5, "Contains")

typedef enum ruv_edge_type {
#define X(code, value, name) code = value,
	RUV_EDGE_TYPE_LIST(X)
#undef X
	    RUV_N_EDGE_TYPES = 6
} ruv_edge_type;

/* "QAPair", ...; "?" for a number that is none. */
RUV_API const char *ruv_node_type_name(int type);
RUV_API const char *ruv_edge_type_name(int type);
/* The type of a name, any case, with or without '_' and '-' ("qa_pair"); RUV_EINVAL lists the names there are. */
RUV_API int ruv_node_type_parse(ruv_node_type *type, const char *name, ruv_error *err);
RUV_API int ruv_edge_type_parse(ruv_edge_type *type, const char *name, ruv_error *err);

/* ---- opening ---- */

/* How searches by vector are answered: below a size by comparing every vector, above it by a graph that is built behind, kept in
 * files beside the store and rebuilt from it whenever they do not fit. Zeros take the value in brackets. */
typedef struct ruv_memory_index_options {
	int64_t flat_below;  /* vectors; -1: always every one [20000] */
	int m;               /* links of a vector in the graph, 2..128 [by size: 16 under 100K, 32 to 1M, 48 to 10M, 64] */
	int ef_construction; /* candidates while building [by size: 100, 200, 300, 400] */
	int ef_search;       /* candidates while searching, never fewer than twice the hits [by size, and at least 256] */
	int bits;            /* a number of the graph's codes, 8, 4 or 1 [8] */
	bool no_background;  /* the graph is built by ruv_memory_index alone */
} ruv_memory_index_options;

/* A zeroed struct is fine: opens what is there, for reading and writing, whatever embedder filled it. */
typedef struct ruv_memory_options {
	const char *embedder_id;      /* the model's name; NULL: do not check (vector search then trusts the dimension) */
	const char *embedder_version; /* a digest or revision of it; NULL is "" */
	int dimension;                /* of its vectors, 1..RUV_MEMORY_MAX_DIMENSION; 0 with embedder_id NULL */
	bool create;                  /* make the directory and the store when there is none */
	bool read_only;
	int lock_wait_ms; /* how long a write waits for another process's; 0: 10000 */
	ruv_memory_index_options index;
	int n_cached;      /* results of searches kept for the same question while nothing changes; -1: none [256] */
	int64_t cached_ms; /* and for how long [300000] */
} ruv_memory_options;

/* `dir` holds, or with `create` will hold, memory.db. A store made without an embedder takes on the first one it is opened with. */
RUV_API int ruv_memory_open(ruv_memory **out, const char *dir, const ruv_memory_options *options, ruv_error *err);
/* No call may be running on it. NULL is fine. */
RUV_API void ruv_memory_free(ruv_memory *memory);
/* Which embedder filled the store ("" and 0: none yet). The strings live until ruv_memory_free. */
RUV_API void ruv_memory_embedder(ruv_memory *memory, const char **id, const char **version, int *dimension);
/* Drops every vector and records a new embedder; texts stay and are found by words until their vectors are set again
 * (ruv_memory_list with without_vector, then ruv_memory_update). */
RUV_API int ruv_memory_change_embedder(ruv_memory *memory, const char *id, const char *version, int dimension, ruv_error *err);

/* ---- nodes ---- */

/* Whose. NULL is "". */
typedef struct ruv_memory_scope {
	const char *user, *agent, *session;
} ruv_memory_scope;

/* A piece of memory. In a struct that the caller fills, NULL strings are "" and zeros take the value in brackets. */
typedef struct ruv_memory_node {
	char id[RUV_ID_SIZE]; /* [a new one] */
	ruv_node_type type;
	const char *text;          /* verbatim, UTF-8, 1..RUV_MEMORY_MAX_TEXT bytes */
	const char *title;         /* a heading or name; weighs more in word search */
	const float *vector;       /* [dimension], any length but zero, all finite; NULL: found by words only */
	const char *source;        /* file path, URL, ... */
	int first_line, last_line; /* of the text in its source, from 1; 0: not known */
	const char *const *tags;   /* [n_tags], a set: stored sorted, without doubles */
	int n_tags;
	const char *domain;
	ruv_memory_scope scope;
	float confidence;               /* (0, 1]; 0 [1] */
	int version;                    /* [1]; every update adds one */
	int64_t created_ms, updated_ms; /* since 1970 UTC [now] */
	int64_t expires_ms;             /* 0: never */
	const char *meta;               /* a JSON object as text, or "" */
} ruv_memory_node;

/* Nodes that a call hands out; the strings and vectors live until ruv_memory_nodes_release. */
typedef struct ruv_memory_nodes {
	ruv_memory_node *items; /* [n] */
	int n;
	void *owner;
} ruv_memory_nodes;

/* Safe on a zeroed struct. */
RUV_API void ruv_memory_nodes_release(ruv_memory_nodes *nodes);

/* Stores nodes[0..n) in one transaction and fills in their ids and times. RUV_EEXIST when a given id is taken. */
RUV_API int ruv_memory_add(ruv_memory *memory, ruv_memory_node *nodes, int n, ruv_error *err);
/* Replaces the content of the node with node->id; created_ms stays, the version goes up, the event log keeps what was there.
 * A NULL vector keeps the vector when the text is unchanged and drops it when the text changed. */
RUV_API int ruv_memory_update(ruv_memory *memory, const ruv_memory_node *node, ruv_error *err);
/* Deletes nodes and their edges, in one transaction: all of ids[0..n) or, with RUV_ENOTFOUND, none. A passage of a source is left
 * out when the source is remembered again, until ruv_memory_source_restore. */
RUV_API int ruv_memory_forget(ruv_memory *memory, const char *const *ids, int n, ruv_error *err);
/* One node, whatever its scope (an expired one is not found). */
RUV_API int ruv_memory_get(ruv_memory *memory, ruv_memory_nodes *out, const char *id, ruv_error *err);
/* The whole id from its first or last characters (at least 4). RUV_ENOTFOUND, or RUV_EINVAL when several nodes have them. */
RUV_API int ruv_memory_resolve(ruv_memory *memory, char id[RUV_ID_SIZE], const char *part, ruv_error *err);

/* Which nodes a call is about. A zeroed struct: those that nobody owns. */
typedef struct ruv_memory_filter {
	ruv_memory_scope scope;
	bool every_scope;        /* ignore scope: the owner's view */
	uint32_t types;          /* 1 << RUV_NODE_FACT | ...; 0: all */
	const char *const *tags; /* [n_tags]: nodes that carry every one */
	int n_tags;
	const char *domain, *source;            /* NULL: any */
	int64_t created_from_ms, created_to_ms; /* inclusive; 0: open */
	float min_confidence;
} ruv_memory_filter;

/* Up to `limit` nodes, newest first, after skipping `offset`. without_vector: only nodes that still need one. */
RUV_API int ruv_memory_list(ruv_memory *memory, ruv_memory_nodes *out, const ruv_memory_filter *filter, bool without_vector,
                            int offset, int limit, ruv_error *err);

/* ---- sources: files and pages that may change and be remembered again ---- */

/* A source within a scope. */
typedef struct ruv_memory_source {
	const char *name; /* path or URL, as nodes name it */
	const char *hash; /* of its content, any form (SHA-256 in hex) */
	ruv_memory_scope scope;
	int64_t size_bytes, modified_ms; /* of the file; informative */
	int64_t remembered_ms;           /* filled in by the store */
	int n_nodes;                     /* filled in by the store */
} ruv_memory_source;

/* *same: the store holds this source, in exactly this scope, with this hash: nothing to do. */
RUV_API int ruv_memory_source_unchanged(ruv_memory *memory, bool *same, const ruv_memory_source *source, ruv_error *err);
/* known[i]: a node of this source already has texts[i] and titles[i] and a vector, or the passage was forgotten, so that replacing
 * the source can do without a new one. titles may be NULL. */
RUV_API int ruv_memory_source_known(ruv_memory *memory, bool *known, const ruv_memory_source *source, const char *const *texts,
                                    const char *const *titles, int n, ruv_error *err);

typedef struct ruv_memory_replaced {
	int n_added, n_kept, n_removed;
	int n_left_out; /* had been forgotten one by one */
} ruv_memory_replaced;

/* Makes nodes[0..n) the source's only nodes, in one transaction; node.source and node.scope are set from `source`. A node whose
 * text and title the source already has stays what it is (id, edges, vector unless a new one is given) with the new lines; others
 * are added, what is left over is forgotten. n 0 forgets the source's nodes and keeps its hash. `done` may be NULL. */
RUV_API int ruv_memory_source_replace(ruv_memory *memory, const ruv_memory_source *source, ruv_memory_node *nodes, int n,
                                      ruv_memory_replaced *done, ruv_error *err);
/* Passages of it that were forgotten one by one come back when it is remembered next; *n (may be NULL) of them. */
RUV_API int ruv_memory_source_restore(ruv_memory *memory, const ruv_memory_source *source, int *n, ruv_error *err);
/* Forgets a source and its nodes; *n_removed may be NULL. RUV_ENOTFOUND. */
RUV_API int ruv_memory_source_forget(ruv_memory *memory, const ruv_memory_source *source, int *n_removed, ruv_error *err);

typedef struct ruv_memory_sources {
	ruv_memory_source *items; /* [n] */
	int n;
	void *owner;
} ruv_memory_sources;

/* All sources that `filter`'s scope sees, by name. */
RUV_API int ruv_memory_source_list(ruv_memory *memory, ruv_memory_sources *out, const ruv_memory_filter *filter, ruv_error *err);
RUV_API void ruv_memory_sources_release(ruv_memory_sources *sources);

/* ---- edges ---- */

typedef struct ruv_memory_edge {
	char id[RUV_ID_SIZE]; /* [a new one] */
	char src[RUV_ID_SIZE], dst[RUV_ID_SIZE];
	ruv_edge_type type;
	float weight;           /* 0 [1] */
	float confidence;       /* (0, 1]; 0 [1] */
	int64_t created_ms;     /* [now] */
	const char *created_by; /* who says so */
} ruv_memory_edge;

/* Stores edges in one transaction. An edge that is there already (same ends and type) takes on the new weight, confidence and
 * creator and keeps its id. RUV_ENOTFOUND when an end is missing; an edge from a node to itself is RUV_EINVAL. */
RUV_API int ruv_memory_link(ruv_memory *memory, ruv_memory_edge *edges, int n, ruv_error *err);
/* Removes an edge by its id, if `filter` (NULL: any) sees both its ends; RUV_ENOTFOUND otherwise. */
RUV_API int ruv_memory_unlink_seen(ruv_memory *memory, const char *edge_id, const ruv_memory_filter *filter, ruv_error *err);
/* Removes an edge by its id. */
RUV_API int ruv_memory_unlink(ruv_memory *memory, const char *edge_id, ruv_error *err);

/* A neighbourhood. nodes.items[0] is the start; hops[i] its distance; edges run between nodes of the neighbourhood. */
typedef struct ruv_memory_graph {
	ruv_memory_nodes nodes;
	int *hops;              /* [nodes.n] */
	ruv_memory_edge *edges; /* [n_edges] */
	int n_edges;
} ruv_memory_graph;

/* Nodes within n_hops (1..8) edges of `id`, either direction, that `filter` lets through, nearest first, at most max_nodes. */
RUV_API int ruv_memory_neighbours(ruv_memory *memory, ruv_memory_graph *out, const char *id, int n_hops, int max_nodes,
                                  const ruv_memory_filter *filter, ruv_error *err);
RUV_API void ruv_memory_graph_release(ruv_memory_graph *graph);

/* ---- search ---- */

typedef enum ruv_memory_mode {
	RUV_SEARCH_HYBRID, /* both lists, fused; with only a text or only a vector, that list alone */
	RUV_SEARCH_VECTOR, /* cosine */
	RUV_SEARCH_LEXICAL /* BM25 over stemmed words of title, text and tags */
} ruv_memory_mode;

typedef enum ruv_memory_fusion {
	RUV_FUSE_RRF,   /* sum of weight / (rrf_k + rank): Cormack et al. 2009 */
	RUV_FUSE_ZSCORE /* sum of weight * (score - mean) / deviation, over the candidates of both lists */
} ruv_memory_fusion;

/* Zeros take the value in brackets. */
typedef struct ruv_memory_query {
	const char *text;    /* any text: no syntax, nothing to escape */
	const float *vector; /* [dimension] */
	int k;               /* hits wanted, 1..RUV_MEMORY_MAX_K [10] */
	ruv_memory_mode mode;
	ruv_memory_filter filter;
	ruv_memory_fusion fusion;
	int n_candidates;        /* of each list before fusing [max(50, 4 k)] */
	float vector_weight;     /* [1] */
	float lexical_weight;    /* [1] */
	int rrf_k;               /* [60] */
	float min_cosine;        /* vector candidates below it are left out [none] */
	int ef;                  /* candidates of the graph's walk: more finds more and costs more [the memory's] */
	bool exact;              /* compare every vector, whatever the size */
	bool with_vectors;       /* hits carry their vectors */
	float label_weight;      /* of a third list: by how well title and tags match the text's words [0: off] */
	float recency_weight;    /* 0..1: the part of a score that halves with every recency_days since the last change [0: off] */
	float recency_days;      /* [30] */
	float confidence_weight; /* the score times confidence to this power [0: off] */
	float mmr_lambda;        /* (0, 1]: hits unlike those before them come first, the less it is the more so [0: off] */
} ruv_memory_query;

typedef struct ruv_memory_hit {
	ruv_memory_node node;
	double score;                  /* what the hits are ordered by, but for mmr_lambda: fused, or the one list's */
	int vector_rank, lexical_rank; /* from 1; 0: not among that list's candidates */
	float cosine;                  /* to the query's vector; 0 where either has none */
	float bm25;                    /* greater is better; 0 when lexical_rank is 0 */
} ruv_memory_hit;

typedef struct ruv_memory_hits {
	ruv_memory_hit *items; /* [n], best first; equal scores by id */
	int n;
	int n_vector, n_lexical; /* candidates of each list */
	bool by_graph;           /* the vectors were searched by the graph, not one by one */
	bool cached;             /* the same question was asked before and nothing has changed; the times are those of then */
	int64_t vector_ns, lexical_ns, total_ns;
	void *owner;
} ruv_memory_hits;

/* Finds the nodes that `query.filter` lets through. Fewer than k hits only when fewer nodes match. RUV_EINVAL when the mode's
 * text or vector is missing, RUV_EMISMATCH when the store has no vectors of this kind. A text without any word finds nothing by
 * words. */
RUV_API int ruv_memory_search(ruv_memory *memory, ruv_memory_hits *out, const ruv_memory_query *query, ruv_error *err);
RUV_API void ruv_memory_hits_release(ruv_memory_hits *hits);

/* ---- writing answers back ---- */

/* An answer that may be worth remembering, as a QAPair "Q: ...\nA: ...". Zeros take the value in brackets. */
typedef struct ruv_memory_answer {
	const char *question, *answer;
	const float *vector; /* [dimension] of question and answer together */
	float quality;       /* [0, 1], the judge's: becomes the confidence */
	float threshold;     /* quality below it is not kept [0.75] */
	float near_cosine;   /* from which two pairs may be one [0.95] */
	ruv_memory_scope scope;
	const char *domain, *created_by;
	const char *const *tags;
	int n_tags;
	const char *const *cited; /* [n_cited] ids of the nodes that the answer rests on: Cites edges */
	int n_cited;
	const char *previous; /* id of the pair before it in the conversation: a Follows edge; NULL: none */
	const char *const
	    *sources; /* [n_sources] the texts that were given to the model: an answer that only repeats one is junk */
	int n_sources;
} ruv_memory_answer;

typedef enum ruv_memory_written_as {
	RUV_WRITTEN_NEW,         /* stored, linked to what is about the same */
	RUV_WRITTEN_MERGED,      /* the same is there: that one has become surer */
	RUV_WRITTEN_SUPERSEDED,  /* there was a worse answer to the question: it has this text now, the log keeps the old one */
	RUV_WRITTEN_CONTRADICTS, /* stored; contradicts another, both are linked, the less sure one has lost confidence */
	RUV_WRITTEN_NOT_GOOD,    /* below the threshold: nothing done */
	RUV_WRITTEN_JUNK         /* a refusal, a leftover of a prompt, an echo: nothing done, `why` says which */
} ruv_memory_written_as;

typedef struct ruv_memory_written {
	ruv_memory_written_as as;
	char id[RUV_ID_SIZE];    /* the node that has the answer now; "" for the last two */
	char other[RUV_ID_SIZE]; /* the node that was merged with, superseded or contradicted; "" else */
	float cosine, jaccard;   /* to that node: of the vectors, and of the words as MinHash estimates it */
	const char *why;         /* a static text */
} ruv_memory_written;

/* Writes answers[0..n) back in one transaction; written[i] says what became of each. An answer sees those before it. */
RUV_API int ruv_memory_write_back(ruv_memory *memory, ruv_memory_written *written, const ruv_memory_answer *answers, int n,
                                  ruv_error *err);

/* ---- care ---- */

typedef struct ruv_memory_stats {
	int64_t n_nodes, n_by_type[RUV_N_NODE_TYPES];
	int64_t n_edges, n_by_edge_type[RUV_N_EDGE_TYPES];
	int64_t n_vectors, n_without_vector, n_sources, n_events;
	int64_t text_bytes, database_bytes;
	int64_t index_bytes, index_mapped_bytes; /* of vectors and graph: in memory, and mapped from a file; 0 while not loaded */
	bool index_loaded, index_by_graph;       /* by_graph: how a search by vector is answered now */
	int64_t index_n_graph, index_n_pending;  /* vectors in the graph, and those compared beside it */
	int index_m, index_ef_construction, index_ef_search, index_bits; /* of the graph, 0 without one */
	int schema_version;
	char store_id[RUV_ID_SIZE];
} ruv_memory_stats;

RUV_API int ruv_memory_get_stats(ruv_memory *memory, ruv_memory_stats *stats, ruv_error *err);

/* One line per problem found; return false to stop. */
typedef bool ruv_memory_problem_fn(void *user, const char *problem);

typedef struct ruv_memory_report {
	int64_t n_nodes, n_vectors, n_edges, n_words_checked; /* looked at */
	int n_problems, n_repaired;
} ruv_memory_report;

/* Checks pages, checksums of texts and vectors, edges, words = nodes, vectors in memory = store. With `repair`, what can be made
 * again from the store is: word index, vectors in memory; edges without ends and vectors that fail their check are dropped.
 * RUV_OK with n_problems > n_repaired means that damage is left. `fn` may be NULL. */
RUV_API int ruv_memory_check(ruv_memory *memory, ruv_memory_report *report, bool repair, ruv_memory_problem_fn *fn, void *user,
                             ruv_error *err);
/* A consistent copy of the store as one file, while others read and write. The file appears complete or not at all. */
RUV_API int ruv_memory_backup(ruv_memory *memory, const char *path, ruv_error *err);
/* Loads the vectors and their graph now, not at the first search. RUV_EMISMATCH when there are none. */
RUV_API int ruv_memory_warm(ruv_memory *memory, ruv_error *err);
/* Called now and then during long work: `done` of `all`. Return false to stop. */
typedef bool ruv_memory_progress_fn(void *user, int64_t done, int64_t all);
/* Loads the vectors, brings the graph up to date (below the flat limit there is none) on n_threads (0: all cores) and writes its
 * files, so that whoever opens the memory next has them at once. rebuild: from nothing. What was built is kept when progress stops
 * it (RUV_ECANCELLED). progress may be NULL. RUV_EMISMATCH when there are no vectors. */
RUV_API int ruv_memory_index(ruv_memory *memory, int n_threads, bool rebuild, ruv_memory_progress_fn *progress, void *user,
                             ruv_error *err);
/* Gives freed space back to the file system and merges the word index. Other writers wait meanwhile. */
RUV_API int ruv_memory_compact(ruv_memory *memory, ruv_error *err);

typedef struct ruv_memory_transfer {
	int64_t n_nodes, n_edges, n_sources; /* written or read in */
	int64_t n_skipped;                   /* import: were there already */
} ruv_memory_transfer;

/* Writes the whole memory, every scope, as one snapshot in JSON lines (src/memory/jsonl.h has the form). What is read in again and
 * written again is the same byte for byte. without_vectors: texts and labels only. `done` may be NULL. The caller flushes and
 * closes `out`. */
RUV_API int ruv_memory_export(ruv_memory *memory, FILE *out, bool without_vectors, ruv_memory_transfer *done, ruv_error *err);
/* Reads such lines into the memory, in transactions of some thousand lines; nodes and edges whose id is there already are left as
 * they are, so that an import that was interrupted can be done again. A line that is wrong ends it: the error has its number, and
 * what came before the transaction with it stays. RUV_EMISMATCH when the vectors are another embedder's; without_vectors ignores
 * them. A memory that has no embedder yet takes on the export's. `name` stands for the input in errors. */
RUV_API int ruv_memory_import(ruv_memory *memory, FILE *in, const char *name, bool without_vectors, ruv_memory_transfer *done,
                              ruv_error *err);

typedef struct ruv_memory_event {
	int64_t seq, time_ms;
	const char *what;     /* "add", "update", "forget", "link", "unlink", ... */
	char id[RUV_ID_SIZE]; /* of the node, or "" */
	const char *detail;   /* JSON, or "" : for an update, the node as it was before */
} ruv_memory_event;

typedef struct ruv_memory_events {
	ruv_memory_event *items;
	int n;
	void *owner;
} ruv_memory_events;

/* The log, newest first: of one node (id) or of all (NULL). */
RUV_API int ruv_memory_history(ruv_memory *memory, ruv_memory_events *out, const char *id, int limit, ruv_error *err);
RUV_API void ruv_memory_events_release(ruv_memory_events *events);

#ifdef __cplusplus
}
#endif
#endif
