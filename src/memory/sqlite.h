/* sqlite.h - what the files of the SQLite home share: connections, cached statements, errors.
 *
 * Layer: memory (only sqlite*.c include it). */
#ifndef RUV_MEMORY_SQLITE_H
#define RUV_MEMORY_SQLITE_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "memory/store.h"

/* Every statement, prepared once per connection when it is first used. */
#define RUV_SQL_LIST(X)                                                                                                            \
	X(SQL_BEGIN)                                                                                                               \
	X(SQL_BEGIN_READ)                                                                                                          \
	X(SQL_COMMIT)                                                                                                              \
	X(SQL_ROLLBACK)                                                                                                            \
	X(SQL_META_GET)                                                                                                            \
	X(SQL_META_SET)                                                                                                            \
	X(SQL_EXPIRED)                                                                                                             \
	X(SQL_NODE_INSERT)                                                                                                         \
	X(SQL_NODE_UPDATE)                                                                                                         \
	X(SQL_NODE_DELETE)                                                                                                         \
	X(SQL_NODE_KEY)                                                                                                            \
	X(SQL_NODE_GET)                                                                                                            \
	X(SQL_NODE_BY_KEY)                                                                                                         \
	X(SQL_NODE_LIST)                                                                                                           \
	X(SQL_NODE_LIST_BARE)                                                                                                      \
	X(SQL_NODE_RESOLVE)                                                                                                        \
	X(SQL_NODE_MOVE)                                                                                                           \
	X(SQL_VECTOR_SET)                                                                                                          \
	X(SQL_VECTOR_GET)                                                                                                          \
	X(SQL_VECTOR_DELETE)                                                                                                       \
	X(SQL_VECTOR_CLEAR)                                                                                                        \
	X(SQL_SOURCE_GET)                                                                                                          \
	X(SQL_SOURCE_SET)                                                                                                          \
	X(SQL_SOURCE_DELETE)                                                                                                       \
	X(SQL_SOURCE_NODES)                                                                                                        \
	X(SQL_SOURCE_LIST)                                                                                                         \
	X(SQL_FORGOTTEN_PUT)                                                                                                       \
	X(SQL_FORGOTTEN_GET)                                                                                                       \
	X(SQL_FORGOTTEN_DROP)                                                                                                      \
	X(SQL_EDGE_SET)                                                                                                            \
	X(SQL_EDGE_DELETE)                                                                                                         \
	X(SQL_EDGE_GET)                                                                                                            \
	X(SQL_LINKS_OF)                                                                                                            \
	X(SQL_EDGES_OF)                                                                                                            \
	X(SQL_EDGE_LIST)                                                                                                           \
	X(SQL_EVENT_ADD)                                                                                                           \
	X(SQL_EVENT_SCRUB)                                                                                                         \
	X(SQL_EVENT_LAST)                                                                                                          \
	X(SQL_EVENT_AT)                                                                                                            \
	X(SQL_NEXT_EXPIRY)                                                                                                         \
	X(SQL_EVENTS_ALL)                                                                                                          \
	X(SQL_EVENTS_NODE)                                                                                                         \
	X(SQL_SCAN)                                                                                                                \
	X(SQL_CHANGES)                                                                                                             \
	X(SQL_SCAN_WORDS)                                                                                                          \
	X(SQL_CHANGES_WORDS)                                                                                                       \
	X(SQL_LEXICAL)                                                                                                             \
	X(SQL_VISIT)

typedef enum ruv_sql {
#define X(name) name,
	RUV_SQL_LIST(X)
#undef X
	    N_SQL
} ruv_sql;

/* One connection, used by one thread at a time. */
typedef struct ruv_sqlite_conn {
	sqlite3 *db;
	sqlite3_stmt *stmts[N_SQL];
	struct ruv_sqlite_conn *next; /* in the pool of idle readers */
} ruv_sqlite_conn;

typedef struct ruv_sqlite {
	ruv_store base;
	char *dir, *path, *lock_path;
	bool read_only;
	int lock_wait_ms;
	int lock_fd; /* flock: one writing or checkpointing process at a time; -1 when read-only */
	char store_id[RUV_ID_SIZE];
	atomic_int dimension; /* of stored vectors, 0: none yet */

	pthread_mutex_t write_lock; /* held from begin to commit or rollback */
	atomic_uintptr_t tx_thread; /* pthread_self() of who is inside a transaction, 0: nobody */
	ruv_sqlite_conn writer;     /* db NULL when read-only */
	int wal_frames;             /* after the last commit */
	int64_t tx_now_ms;

	pthread_mutex_t pool_lock;
	ruv_sqlite_conn *idle;
} ruv_sqlite;

/* The statement, reset and without bindings; NULL with err set. Give it back with ruv_sqlite_done. */
sqlite3_stmt *ruv_sqlite_stmt(ruv_sqlite *store, ruv_sqlite_conn *conn, ruv_sql which, int *rc, ruv_error *err);
void ruv_sqlite_done(sqlite3_stmt *stmt);
/* One step that must end the statement (SQLITE_DONE). */
int ruv_sqlite_run(ruv_sqlite *store, ruv_sqlite_conn *conn, sqlite3_stmt *stmt, ruv_error *err);
/* Around many small statements on a reader, so that they take the database's lock once and not each by itself. Nothing is done for
 * a writer that reads its own changes. end returns rc, or what ending the transaction failed with. */
int ruv_sqlite_begin_reading(ruv_sqlite *store, ruv_sqlite_conn *conn, bool *began, ruv_error *err);
int ruv_sqlite_end_reading(ruv_sqlite *store, ruv_sqlite_conn *conn, bool began, int rc, ruv_error *err);
/* The status of an SQLite result code, with a message that names the file. */
int ruv_sqlite_fail(ruv_sqlite *store, sqlite3 *db, int code, const char *doing, ruv_error *err);

/* A connection to read with: the writer's inside this thread's transaction, else one of the pool. */
ruv_sqlite_conn *ruv_sqlite_reader(ruv_sqlite *store, int *rc, ruv_error *err);
/* One of the pool even inside a transaction: sees what is committed, which is what indexes may follow. */
ruv_sqlite_conn *ruv_sqlite_committed(ruv_sqlite *store, int *rc, ruv_error *err);
void ruv_sqlite_reader_done(ruv_sqlite *store, ruv_sqlite_conn *conn);
/* The writer inside this thread's transaction; NULL with RUV_EINTERNAL otherwise. */
ruv_sqlite_conn *ruv_sqlite_writer(ruv_sqlite *store, int *rc, ruv_error *err);
/* One of its statements, bound to nothing; its connection goes to *conn. NULL with *rc otherwise. */
sqlite3_stmt *ruv_sqlite_write_stmt(ruv_sqlite *store, ruv_sql which, ruv_sqlite_conn **conn, int *rc, ruv_error *err);

/* Runs SQL text that returns nothing. */
int ruv_sqlite_exec(ruv_sqlite *store, ruv_sqlite_conn *conn, const char *sql, ruv_error *err);
/* Writes what the WAL holds into the database; the caller holds both write locks. */
void ruv_sqlite_checkpoint(ruv_sqlite *store, int mode);
/* Takes and gives back the right to write, without a transaction (compact, backup's opposite). */
int ruv_sqlite_lock(ruv_sqlite *store, ruv_error *err);
void ruv_sqlite_unlock(ruv_sqlite *store);

/* Appends to the event log. key 0 and id NULL: of no node. */
int ruv_sqlite_event(ruv_sqlite *store, ruv_sqlite_conn *conn, const char *what, int64_t key, const ruv_memory_node *id,
                     const char *detail, ruv_error *err);

/* sqlite_nodes.c */
int ruv_sqlite_node_put(ruv_store *base, const ruv_memory_node *node, int64_t *key, ruv_error *err);
int ruv_sqlite_node_replace(ruv_store *base, const ruv_memory_node *node, bool keep_vector, ruv_error *err);
int ruv_sqlite_node_erase(ruv_store *base, const char *id, const char *why, ruv_error *err);
int ruv_sqlite_node_get(ruv_store *base, ruv_arena *arena, ruv_memory_node *node, const char *id, ruv_error *err);
int ruv_sqlite_nodes_by_key(ruv_store *base, ruv_arena *arena, ruv_memory_node *nodes, bool *found, const int64_t *keys, int n,
                            const ruv_memory_filter *filter, bool with_vectors, ruv_error *err);
int ruv_sqlite_node_list(ruv_store *base, ruv_arena *arena, ruv_memory_node **nodes, int *n, const ruv_memory_filter *filter,
                         bool without_vector, bool with_vectors, int offset, int limit, ruv_error *err);
int ruv_sqlite_node_resolve(ruv_store *base, const char *part, char (*ids)[RUV_ID_SIZE], int limit, int *n, ruv_error *err);
int ruv_sqlite_node_move(ruv_store *base, const char *id, int first_line, int last_line, const float *vector, ruv_error *err);
int ruv_sqlite_lexical(ruv_store *base, ruv_store_match *out, int *n, const ruv_store_term *terms, int n_terms,
                       const ruv_memory_filter *filter, int limit, ruv_error *err);
int ruv_sqlite_scan(ruv_store *base, int64_t *seq, ruv_store_row_fn *fn, void *user, ruv_error *err);
int ruv_sqlite_changes(ruv_store *base, int64_t since, int64_t *seq, ruv_store_row_fn *fn, void *user, ruv_error *err);
int ruv_sqlite_scan_words(ruv_store *base, int64_t *seq, ruv_store_row_fn *fn, void *user, ruv_error *err);
int ruv_sqlite_changes_words(ruv_store *base, int64_t since, int64_t *seq, ruv_store_row_fn *fn, void *user, ruv_error *err);
int ruv_sqlite_tokenizer(ruv_store *base, ruv_tokenizer **out, ruv_error *err);
int ruv_sqlite_visit(ruv_store *base, const ruv_store_visitor *visitor, ruv_error *err);
int ruv_sqlite_last_event(ruv_store *base, int64_t *seq, ruv_error *err);
int ruv_sqlite_next_expiry(ruv_store *base, int64_t *ms, ruv_error *err);
int ruv_sqlite_event_mark(ruv_store *base, int64_t seq, uint64_t *mark, ruv_error *err);
/* Deletes nodes whose time is over; in a transaction. */
int ruv_sqlite_expire(ruv_sqlite *store, ruv_error *err);
/* Checksums of what a node says and of a vector, as the database holds them. */
int64_t ruv_sqlite_node_digest(const ruv_memory_node *node, const char *tags);
int64_t ruv_sqlite_vector_digest(const void *data, size_t n_bytes);
/* Fills a node from a row of RUV_SQL_NODE_COLUMNS; *sound: the row matches its checksum. */
int ruv_sqlite_read_node(ruv_arena *arena, ruv_memory_node *node, int64_t *key, bool *sound, sqlite3_stmt *stmt, ruv_error *err);

/* sqlite_graph.c: sources, edges, the log */
int ruv_sqlite_source_get(ruv_store *base, ruv_arena *arena, ruv_memory_source *out, const ruv_memory_source *which,
                          ruv_error *err);
int ruv_sqlite_source_put(ruv_store *base, const ruv_memory_source *source, ruv_error *err);
int ruv_sqlite_source_erase(ruv_store *base, const ruv_memory_source *which, ruv_error *err);
int ruv_sqlite_source_nodes(ruv_store *base, ruv_arena *arena, ruv_memory_node **nodes, int *n, int *n_damaged,
                            const ruv_memory_source *which, bool with_vectors, ruv_error *err);
int ruv_sqlite_source_mend(ruv_store *base, const ruv_memory_source *which, ruv_error *err);
int ruv_sqlite_source_list(ruv_store *base, ruv_arena *arena, ruv_memory_source **sources, int *n, const ruv_memory_filter *filter,
                           ruv_error *err);
int ruv_sqlite_forgotten_put(ruv_store *base, const ruv_memory_source *which, int64_t hash, ruv_error *err);
int ruv_sqlite_forgotten_get(ruv_store *base, ruv_arena *arena, int64_t **hashes, int *n, const ruv_memory_source *which,
                             ruv_error *err);
int ruv_sqlite_forgotten_drop(ruv_store *base, const ruv_memory_source *which, ruv_error *err);
int ruv_sqlite_edge_get(ruv_store *base, ruv_arena *arena, ruv_memory_edge *edge, const char *id, ruv_error *err);
int ruv_sqlite_edge_put(ruv_store *base, ruv_memory_edge *edge, ruv_error *err);
int ruv_sqlite_edge_erase(ruv_store *base, const char *id, ruv_error *err);
int ruv_sqlite_edges_of(ruv_store *base, ruv_arena *arena, ruv_memory_edge **edges, int *n, const char *id, int limit,
                        ruv_error *err);
int ruv_sqlite_links_of(ruv_store *base, ruv_arena *arena, ruv_store_link **links, int *n, const int64_t *keys, int n_keys,
                        int limit, ruv_error *err);
int ruv_sqlite_node_keys(ruv_store *base, int64_t *keys, const char *const *ids, int n, ruv_error *err);
int ruv_sqlite_history(ruv_store *base, ruv_arena *arena, ruv_memory_event **events, int *n, const char *id, int limit,
                       ruv_error *err);

int ruv_sqlite_visit_sources(ruv_sqlite *store, ruv_sqlite_conn *conn, ruv_arena *arena, const ruv_store_visitor *visitor,
                             ruv_error *err);
int ruv_sqlite_visit_edges(ruv_sqlite *store, ruv_sqlite_conn *conn, ruv_arena *arena, const ruv_store_visitor *visitor,
                           ruv_error *err);

/* sqlite_care.c */
int ruv_sqlite_stats(ruv_store *base, ruv_memory_stats *stats, ruv_error *err);
int ruv_sqlite_check(ruv_store *base, ruv_memory_report *report, bool repair, ruv_memory_problem_fn *fn, void *user,
                     ruv_error *err);
int ruv_sqlite_backup(ruv_store *base, const char *path, ruv_error *err);
int ruv_sqlite_compact(ruv_store *base, ruv_error *err);

/* ids as the database keeps them */
int ruv_sqlite_bind_id(ruv_sqlite *store, sqlite3_stmt *stmt, int at, const char *id, ruv_error *err);
void ruv_sqlite_column_id(char id[RUV_ID_SIZE], sqlite3_stmt *stmt, int at);
void ruv_sqlite_bind_text(sqlite3_stmt *stmt, int at, const char *text);
/* A copy of a text column in the arena, "" for NULL; NULL when memory is out. */
char *ruv_sqlite_column_text(ruv_arena *arena, sqlite3_stmt *stmt, int at);
/* Binds ?1..?12 of RUV_SQL_FILTER. */
int ruv_sqlite_bind_filter(sqlite3_stmt *stmt, const ruv_memory_filter *filter, int64_t now_ms, ruv_error *err);

#define RUV_SQL_NODE_COLUMNS                                                                                                       \
	"n.key,n.id,n.type,n.user,n.agent,n.session,n.confidence,n.version,n.created_ms,n.updated_ms,n.expires_ms,n.domain,"       \
	"n.source,n.first_line,n.last_line,n.tags,n.meta,n.title,n.text,n.digest"

/* ?1 every scope, ?2 user, ?3 agent, ?4 session, ?5 types, ?6 domain, ?7 source, ?8 from, ?9 to, ?10 confidence, ?11 tags (JSON),
 * ?12 now */
#define RUV_SQL_FILTER                                                                                                             \
	" (n.expires_ms=0 OR n.expires_ms>?12)"                                                                                    \
	" AND (?1 OR ((n.user='' OR n.user=?2) AND (n.agent='' OR n.agent=?3) AND (n.session='' OR n.session=?4)))"                \
	" AND (?5=0 OR (?5>>n.type)&1) AND (?6 IS NULL OR n.domain=?6) AND (?7 IS NULL OR n.source=?7)"                            \
	" AND (?8=0 OR n.created_ms>=?8) AND (?9=0 OR n.created_ms<=?9) AND n.confidence>=?10"                                     \
	" AND (?11 IS NULL OR NOT EXISTS (SELECT 1 FROM json_each(?11) t WHERE instr(n.tags,char(10)||t.value||char(10))=0)) "

#endif
