/* sqlite.c - the SQLite home of the memory: opening, schema, connections, transactions, the event log.
 *
 * DIR/memory.db (WAL) and DIR/memory.lock. Tables:
 *     meta     name, value: embedder_id, embedder_version, dimension, store_id, created_ms
 *     nodes    key, id (16 bytes), what the public node has; digest: XXH3 over it; tags as "\na\nb\n"
 *     vectors  node -> F32 little-endian [dimension], digest: XXH3 over the bytes
 *     edges    by key of their ends; deleted with either end
 *     sources  name and scope -> content hash
 *     forgotten  name and scope of a source, hash of a passage that was forgotten by itself
 *     words    FTS5 (porter over unicode61) over title, tags, text of nodes, kept by triggers
 *     events   append-only (triggers refuse all but emptying `detail`, which forgetting does)
 * Schema changes go by user_version, one step of `migrations` a version, inside one transaction.
 *
 * Invariants
 * - SQLite 3.40.1 can corrupt the WAL when two connections write or checkpoint at the same moment. Ours never do: a write
 *   transaction and the checkpoint behind it hold `write_lock` (threads) and an flock on memory.lock (processes); automatic
 *   checkpoints and the one on close are off; readers are opened read-only.
 * - synchronous=EXTRA: commit returns after the WAL is flushed, and the rollback journal that exists only while the file is made
 * cannot come back after a power loss (which would empty the file, and SQLite deletes the WAL of an empty file). mmap is off: a
 * damaged file is an error, not a SIGBUS.
 * - What is deleted is overwritten (secure_delete).
 * Threads: any; see store.h. Layer: memory. */
#include "memory/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status.h"
#include "base/uuid.h"

enum {
	APPLICATION_ID = 0x52764d31, /* "RvM1" in the file's header */
	CHECKPOINT_FRAMES = 1000,    /* WAL pages after which a commit checkpoints */
	MAX_IDLE_READERS = 16,
	DEFAULT_WAIT_MS = 10000
};

static const char schema_1[] =
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE nodes(key INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, type INTEGER NOT NULL,"
    " user TEXT NOT NULL, agent TEXT NOT NULL, session TEXT NOT NULL, confidence REAL NOT NULL, version INTEGER NOT NULL,"
    " created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, domain TEXT NOT NULL,"
    " source TEXT NOT NULL, first_line INTEGER NOT NULL, last_line INTEGER NOT NULL, digest INTEGER NOT NULL,"
    " tags TEXT NOT NULL, meta TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL);"
    "CREATE INDEX nodes_by_source ON nodes(source) WHERE source<>'';"
    "CREATE INDEX nodes_by_expiry ON nodes(expires_ms) WHERE expires_ms>0;"
    "CREATE TABLE vectors(node INTEGER PRIMARY KEY REFERENCES nodes(key) ON DELETE CASCADE, digest INTEGER NOT NULL,"
    " data BLOB NOT NULL);"
    "CREATE TABLE edges(key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE,"
    " src INTEGER NOT NULL REFERENCES nodes(key) ON DELETE CASCADE,"
    " dst INTEGER NOT NULL REFERENCES nodes(key) ON DELETE CASCADE, type INTEGER NOT NULL, weight REAL NOT NULL,"
    " confidence REAL NOT NULL, created_ms INTEGER NOT NULL, created_by TEXT NOT NULL, UNIQUE(src,dst,type));"
    "CREATE INDEX edges_by_dst ON edges(dst);"
    "CREATE TABLE sources(name TEXT NOT NULL, user TEXT NOT NULL, agent TEXT NOT NULL, session TEXT NOT NULL,"
    " hash TEXT NOT NULL, size_bytes INTEGER NOT NULL, modified_ms INTEGER NOT NULL, remembered_ms INTEGER NOT NULL,"
    " PRIMARY KEY(name,user,agent,session)) WITHOUT ROWID;"
    "CREATE TABLE events(seq INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, what TEXT NOT NULL,"
    " node INTEGER NOT NULL, id BLOB, detail TEXT NOT NULL);"
    "CREATE INDEX events_by_node ON events(node) WHERE node>0;"
    "CREATE INDEX events_by_id ON events(id) WHERE id IS NOT NULL;"
    "CREATE TRIGGER events_keep BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT,'the event log is append-only'); END;"
    "CREATE TRIGGER events_fixed BEFORE UPDATE ON events WHEN NEW.detail<>'' OR NEW.seq<>OLD.seq OR NEW.time_ms<>OLD.time_ms"
    " OR NEW.what<>OLD.what OR NEW.node<>OLD.node OR NEW.id IS NOT OLD.id"
    " BEGIN SELECT RAISE(ABORT,'the event log is append-only'); END;"
    "CREATE VIRTUAL TABLE words USING fts5(title, tags, text, content='nodes', content_rowid='key',"
    " tokenize='porter unicode61 remove_diacritics 2');"
    "CREATE TRIGGER words_insert AFTER INSERT ON nodes BEGIN"
    " INSERT INTO words(rowid,title,tags,text) VALUES(NEW.key,NEW.title,NEW.tags,NEW.text); END;"
    "CREATE TRIGGER words_delete AFTER DELETE ON nodes BEGIN"
    " INSERT INTO words(words,rowid,title,tags,text) VALUES('delete',OLD.key,OLD.title,OLD.tags,OLD.text); END;"
    "CREATE TRIGGER words_update AFTER UPDATE OF title,tags,text ON nodes BEGIN"
    " INSERT INTO words(words,rowid,title,tags,text) VALUES('delete',OLD.key,OLD.title,OLD.tags,OLD.text);"
    " INSERT INTO words(rowid,title,tags,text) VALUES(NEW.key,NEW.title,NEW.tags,NEW.text); END;";

/* Passages that were forgotten one by one, by the hash of title and text, so that remembering the source leaves them out. */
static const char schema_2[] =
    "CREATE TABLE forgotten(name TEXT NOT NULL, user TEXT NOT NULL, agent TEXT NOT NULL, session TEXT NOT NULL,"
    " hash INTEGER NOT NULL, PRIMARY KEY(name,user,agent,session,hash)) WITHOUT ROWID;";

static const char *const migrations[RUV_STORE_SCHEMA_VERSION] = {schema_1, schema_2};

static const char *const sql_text[N_SQL] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_BEGIN_READ] = "BEGIN",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_META_GET] = "SELECT value FROM meta WHERE name=?1",
    [SQL_META_SET] = "INSERT INTO meta(name,value) VALUES(?1,?2) ON CONFLICT(name) DO UPDATE SET value=excluded.value",
    [SQL_EXPIRED] = "SELECT id FROM nodes WHERE expires_ms>0 AND expires_ms<=?1 LIMIT 1000",
    [SQL_NODE_INSERT] = "INSERT INTO nodes(id,type,user,agent,session,confidence,version,created_ms,updated_ms,expires_ms,domain,"
			"source,first_line,last_line,tags,meta,title,text,digest)"
			" VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19)",
    [SQL_NODE_UPDATE] =
	"UPDATE nodes SET type=?2,user=?3,agent=?4,session=?5,confidence=?6,version=?7,created_ms=?8,"
	"updated_ms=?9,expires_ms=?10,domain=?11,source=?12,first_line=?13,last_line=?14,tags=?15,meta=?16,title=?17,"
	"text=?18,digest=?19 WHERE id=?1",
    [SQL_NODE_DELETE] = "DELETE FROM nodes WHERE key=?1",
    [SQL_NODE_KEY] = "SELECT key FROM nodes WHERE id=?1",
    [SQL_NODE_GET] = "SELECT " RUV_SQL_NODE_COLUMNS " FROM nodes n WHERE n.id=?1 AND (n.expires_ms=0 OR n.expires_ms>?2)",
    [SQL_NODE_BY_KEY] = "SELECT " RUV_SQL_NODE_COLUMNS " FROM nodes n WHERE n.key=?13 AND" RUV_SQL_FILTER,
    [SQL_NODE_LIST] =
	"SELECT " RUV_SQL_NODE_COLUMNS " FROM nodes n WHERE" RUV_SQL_FILTER "ORDER BY n.key DESC LIMIT ?13 OFFSET ?14",
    [SQL_NODE_LIST_BARE] = "SELECT " RUV_SQL_NODE_COLUMNS " FROM nodes n WHERE" RUV_SQL_FILTER
			   "AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.node=n.key) ORDER BY n.key DESC LIMIT ?13 OFFSET ?14",
    [SQL_NODE_RESOLVE] = "SELECT id FROM nodes WHERE (lower(hex(id)) LIKE ?1||'%' OR lower(hex(id)) LIKE '%'||?1)"
			 " AND (expires_ms=0 OR expires_ms>?2) LIMIT ?3",
    [SQL_NODE_MOVE] = "UPDATE nodes SET first_line=?2,last_line=?3,digest=?4 WHERE key=?1",
    [SQL_VECTOR_SET] = "INSERT INTO vectors(node,digest,data) VALUES(?1,?2,?3)"
		       " ON CONFLICT(node) DO UPDATE SET digest=excluded.digest,data=excluded.data",
    [SQL_VECTOR_GET] = "SELECT data,digest FROM vectors WHERE node=?1",
    [SQL_VECTOR_DELETE] = "DELETE FROM vectors WHERE node=?1",
    [SQL_VECTOR_CLEAR] = "DELETE FROM vectors",
    [SQL_SOURCE_GET] = "SELECT name,user,agent,session,hash,size_bytes,modified_ms,remembered_ms,"
		       "(SELECT count(*) FROM nodes n WHERE n.source=s.name AND n.source<>'' AND n.user=s.user AND n.agent=s.agent"
		       " AND n.session=s.session) FROM sources s WHERE name=?1 AND user=?2 AND agent=?3 AND session=?4",
    [SQL_SOURCE_SET] = "INSERT INTO sources(name,user,agent,session,hash,size_bytes,modified_ms,remembered_ms)"
		       " VALUES(?1,?2,?3,?4,?5,?6,?7,?8) ON CONFLICT DO UPDATE SET hash=excluded.hash,"
		       "size_bytes=excluded.size_bytes,modified_ms=excluded.modified_ms,remembered_ms=excluded.remembered_ms",
    [SQL_SOURCE_DELETE] = "DELETE FROM sources WHERE name=?1 AND user=?2 AND agent=?3 AND session=?4",
    [SQL_SOURCE_NODES] = "SELECT " RUV_SQL_NODE_COLUMNS " FROM nodes n WHERE n.source=?1 AND n.source<>'' AND n.user=?2"
			 " AND n.agent=?3 AND n.session=?4 ORDER BY n.key",
    [SQL_SOURCE_LIST] = "SELECT name,user,agent,session,hash,size_bytes,modified_ms,remembered_ms,"
			"(SELECT count(*) FROM nodes n WHERE n.source=s.name AND n.source<>'' AND n.user=s.user AND n.agent=s.agent"
			" AND n.session=s.session) FROM sources s WHERE (?1 OR ((user='' OR user=?2) AND (agent='' OR agent=?3)"
			" AND (session='' OR session=?4))) ORDER BY name,user,agent,session",
    [SQL_FORGOTTEN_PUT] = "INSERT OR IGNORE INTO forgotten(name,user,agent,session,hash) VALUES(?1,?2,?3,?4,?5)",
    [SQL_FORGOTTEN_GET] = "SELECT hash FROM forgotten WHERE name=?1 AND user=?2 AND agent=?3 AND session=?4",
    [SQL_FORGOTTEN_DROP] = "DELETE FROM forgotten WHERE name=?1 AND user=?2 AND agent=?3 AND session=?4",
    [SQL_EDGE_GET] = "SELECT e.id,a.id,b.id,e.type,e.weight,e.confidence,e.created_ms,e.created_by FROM edges e"
		     " JOIN nodes a ON a.key=e.src JOIN nodes b ON b.key=e.dst WHERE e.id=?1",
    [SQL_EDGE_SET] = "INSERT INTO edges(id,src,dst,type,weight,confidence,created_ms,created_by) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)"
		     " ON CONFLICT(src,dst,type) DO UPDATE SET weight=excluded.weight,confidence=excluded.confidence,"
		     "created_by=excluded.created_by RETURNING id,created_ms",
    [SQL_EDGE_DELETE] = "DELETE FROM edges WHERE id=?1 RETURNING src",
    [SQL_LINKS_OF] = "SELECT src,dst,type,weight,confidence,created_ms FROM"
		     " (SELECT * FROM edges WHERE src=?1 UNION ALL SELECT * FROM edges WHERE dst=?1)"
		     " ORDER BY weight DESC,key LIMIT ?2",
    [SQL_EDGES_OF] = "SELECT e.id,a.id,b.id,e.type,e.weight,e.confidence,e.created_ms,e.created_by FROM"
		     " (SELECT * FROM edges WHERE src=?1 UNION SELECT * FROM edges WHERE dst=?1) e"
		     " JOIN nodes a ON a.key=e.src JOIN nodes b ON b.key=e.dst ORDER BY e.weight DESC,e.key LIMIT ?2",
    [SQL_EDGE_LIST] = "SELECT e.id,a.id,b.id,e.type,e.weight,e.confidence,e.created_ms,e.created_by FROM edges e"
		      " JOIN nodes a ON a.key=e.src JOIN nodes b ON b.key=e.dst WHERE e.id>?1"
		      " AND (a.expires_ms=0 OR a.expires_ms>?3) AND (b.expires_ms=0 OR b.expires_ms>?3) ORDER BY e.id LIMIT ?2",
    [SQL_EVENT_ADD] = "INSERT INTO events(time_ms,what,node,id,detail) VALUES(?1,?2,?3,?4,?5)",
    [SQL_EVENT_SCRUB] = "UPDATE events SET detail='' WHERE node=?1 AND node>0 AND detail<>''",
    [SQL_EVENT_LAST] = "SELECT coalesce(max(seq),0) FROM events",
    [SQL_NEXT_EXPIRY] = "SELECT coalesce(min(expires_ms),0) FROM nodes WHERE expires_ms>0",
    [SQL_EVENT_AT] = "SELECT time_ms,node,what FROM events WHERE seq=?1",
    [SQL_EVENTS_ALL] = "SELECT seq,time_ms,what,id,detail FROM events ORDER BY seq DESC LIMIT ?1",
    [SQL_EVENTS_NODE] = "SELECT seq,time_ms,what,id,detail FROM events WHERE id=?2 ORDER BY seq DESC LIMIT ?1",
    [SQL_SCAN] = "SELECT n.key,n.type,n.user,n.agent,n.session,n.domain,n.source,n.tags,n.confidence,n.created_ms,n.expires_ms,"
		 "v.data,v.digest FROM nodes n LEFT JOIN vectors v ON v.node=n.key ORDER BY n.key",
    [SQL_CHANGES] = "SELECT e.node,n.type,n.user,n.agent,n.session,n.domain,n.source,n.tags,n.confidence,n.created_ms,n.expires_ms,"
		    "v.data,v.digest FROM (SELECT DISTINCT node FROM events WHERE seq>?1 AND node>0) e"
		    " LEFT JOIN nodes n ON n.key=e.node LEFT JOIN vectors v ON v.node=e.node ORDER BY e.node",
    [SQL_SCAN_WORDS] =
	"SELECT n.key,n.type,n.user,n.agent,n.session,n.domain,n.source,n.tags,n.confidence,n.created_ms,n.expires_ms,"
	"n.title,n.text FROM nodes n ORDER BY n.key",
    [SQL_CHANGES_WORDS] =
	"SELECT e.node,n.type,n.user,n.agent,n.session,n.domain,n.source,n.tags,n.confidence,n.created_ms,n.expires_ms,"
	"n.title,n.text FROM (SELECT DISTINCT node FROM events WHERE seq>?1 AND node>0) e"
	" LEFT JOIN nodes n ON n.key=e.node ORDER BY e.node",
    /* A word of the title counts twice a word of the text. The best ?15 by words alone come first, then the filter: looking up
     * every row that has one of the words costs more than ranking it. */
    [SQL_LEXICAL] = "SELECT n.key,w.s FROM (SELECT rowid AS r,bm25(words,2.0,1.0,1.0) AS s FROM words WHERE words MATCH ?13"
		    " ORDER BY s,rowid LIMIT ?15) w JOIN nodes n ON n.key=w.r WHERE" RUV_SQL_FILTER "ORDER BY w.s,n.key LIMIT ?14",
    [SQL_VISIT] = "SELECT " RUV_SQL_NODE_COLUMNS ",v.data,v.digest FROM nodes n LEFT JOIN vectors v ON v.node=n.key"
		  " WHERE (n.expires_ms=0 OR n.expires_ms>?1) ORDER BY n.key",
};

/* ---- errors and statements ---- */

int ruv_sqlite_fail(ruv_sqlite *store, sqlite3 *db, int code, const char *doing, ruv_error *err)
{
	const char *text = db ? sqlite3_errmsg(db) : sqlite3_errstr(code);

	switch (code & 0xff) {
	case SQLITE_NOMEM:
		return ruv_fail(err, RUV_ENOMEM, "memory", "%s: out of memory while %s", store->path, doing);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return ruv_fail(err, RUV_EBUSY, "memory", "%s is in use by another program while %s", store->path, doing);
	case SQLITE_CORRUPT:
	case SQLITE_CONSTRAINT: /* what callers may cause is told apart before it comes here */
	case SQLITE_MISMATCH:
	case SQLITE_ERROR: /* our statements are fixed: what they cannot do is due to the tables ("invalid fts5 file format") */
		return ruv_fail(
		    err, RUV_ECORRUPT, "memory",
		    "%s is damaged (%s, while %s); `ruvllm memory verify --repair` mends what it can, else restore a backup",
		    store->path, text, doing);
	case SQLITE_NOTADB:
		return ruv_fail(err, RUV_ECORRUPT, "memory",
		                "%s is not a memory, or its first page is damaged (%s); restore a backup", store->path, text);
	case SQLITE_FULL:
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
	case SQLITE_READONLY:
	case SQLITE_PERM:
		return ruv_fail(err, RUV_EIO, "memory", "%s: %s, while %s", store->path, text, doing);
	case SQLITE_TOOBIG:
		return ruv_fail(err, RUV_ELIMIT, "memory", "%s: %s, while %s", store->path, text, doing);
	default:
		return ruv_fail(err, RUV_EINTERNAL, "memory", "%s: SQLite says '%s' (%d) while %s", store->path, text, code, doing);
	}
}

sqlite3_stmt *ruv_sqlite_stmt(ruv_sqlite *store, ruv_sqlite_conn *conn, ruv_sql which, int *rc, ruv_error *err)
{
	if (!conn->stmts[which]) {
		int code = sqlite3_prepare_v3(conn->db, sql_text[which], -1, SQLITE_PREPARE_PERSISTENT, &conn->stmts[which], NULL);
		if (code != SQLITE_OK) {
			*rc = ruv_sqlite_fail(store, conn->db, code, "preparing a statement", err);
			return NULL;
		}
	}
	return conn->stmts[which];
}

void ruv_sqlite_done(sqlite3_stmt *stmt)
{
	if (stmt) {
		sqlite3_reset(stmt);
		sqlite3_clear_bindings(stmt);
	}
}

int ruv_sqlite_run(ruv_sqlite *store, ruv_sqlite_conn *conn, sqlite3_stmt *stmt, ruv_error *err)
{
	int code = sqlite3_step(stmt), rc = RUV_OK;

	if (code != SQLITE_DONE)
		rc = ruv_sqlite_fail(store, conn->db, code == SQLITE_ROW ? SQLITE_INTERNAL : code, "writing", err);
	ruv_sqlite_done(stmt);
	return rc;
}

int ruv_sqlite_begin_reading(ruv_sqlite *store, ruv_sqlite_conn *conn, bool *began, ruv_error *err)
{
	int rc = RUV_OK;
	sqlite3_stmt *stmt;

	*began = false;
	if (!sqlite3_get_autocommit(conn->db)) /* a writer that reads its own changes */
		return RUV_OK;
	stmt = ruv_sqlite_stmt(store, conn, SQL_COMMIT, &rc, err); /* is there when it is needed, whatever memory is left */
	if (stmt)
		ruv_sqlite_done(stmt);
	stmt = rc ? NULL : ruv_sqlite_stmt(store, conn, SQL_BEGIN_READ, &rc, err);
	if (stmt)
		rc = ruv_sqlite_run(store, conn, stmt, err);
	*began = !rc;
	return rc;
}

int ruv_sqlite_end_reading(ruv_sqlite *store, ruv_sqlite_conn *conn, bool began, int rc, ruv_error *err)
{
	ruv_error late = {0};
	int other = RUV_OK;
	sqlite3_stmt *stmt = began ? ruv_sqlite_stmt(store, conn, SQL_COMMIT, &other, &late) : NULL;

	if (stmt)
		other = ruv_sqlite_run(store, conn, stmt, &late);
	if (!rc && other && err)
		*err = late;
	return rc ? rc : other;
}

int ruv_sqlite_exec(ruv_sqlite *store, ruv_sqlite_conn *conn, const char *sql, ruv_error *err)
{
	int code = sqlite3_exec(conn->db, sql, NULL, NULL, NULL);

	return code == SQLITE_OK ? RUV_OK : ruv_sqlite_fail(store, conn->db, code, "setting up", err);
}

/* A statement of no parameters from the list. */
static int run_plain(ruv_sqlite *store, ruv_sqlite_conn *conn, ruv_sql which, ruv_error *err)
{
	int rc = RUV_OK;
	sqlite3_stmt *stmt = ruv_sqlite_stmt(store, conn, which, &rc, err);

	return stmt ? ruv_sqlite_run(store, conn, stmt, err) : rc;
}

/* A pragma's number; *value keeps what it was when there is none. */
static int read_pragma(ruv_sqlite *store, ruv_sqlite_conn *conn, const char *sql, int64_t *value, ruv_error *err)
{
	sqlite3_stmt *stmt = NULL;
	int code = sqlite3_prepare_v2(conn->db, sql, -1, &stmt, NULL), rc = RUV_OK;

	if (code == SQLITE_OK) {
		code = sqlite3_step(stmt);
		if (code == SQLITE_ROW) {
			*value = sqlite3_column_int64(stmt, 0);
			code = SQLITE_DONE;
		}
	}
	if (code != SQLITE_DONE)
		rc = ruv_sqlite_fail(store, conn->db, code, "reading the header", err);
	sqlite3_finalize(stmt);
	return rc;
}

int ruv_sqlite_bind_id(ruv_sqlite *store, sqlite3_stmt *stmt, int at, const char *id, ruv_error *err)
{
	ruv_uuid uuid;
	int rc = ruv_uuid_parse(&uuid, id, err), code;

	if (rc)
		return rc;
	code = sqlite3_bind_blob(stmt, at, uuid.b, sizeof uuid.b, SQLITE_TRANSIENT);
	return code == SQLITE_OK ? RUV_OK : ruv_sqlite_fail(store, NULL, code, "binding an id", err);
}

void ruv_sqlite_column_id(char id[RUV_ID_SIZE], sqlite3_stmt *stmt, int at)
{
	ruv_uuid uuid = {{0}};
	const void *blob = sqlite3_column_blob(stmt, at);

	id[0] = '\0';
	if (blob && sqlite3_column_bytes(stmt, at) == (int)sizeof uuid.b) {
		memcpy(uuid.b, blob, sizeof uuid.b);
		ruv_uuid_format(uuid, id);
	}
}

void ruv_sqlite_bind_text(sqlite3_stmt *stmt, int at, const char *text)
{
	sqlite3_bind_text(stmt, at, text ? text : "", -1, SQLITE_STATIC);
}

char *ruv_sqlite_column_text(ruv_arena *arena, sqlite3_stmt *stmt, int at)
{
	bool is_null = sqlite3_column_type(stmt, at) == SQLITE_NULL;
	const char *text = (const char *)sqlite3_column_text(stmt, at);
	int n = sqlite3_column_bytes(stmt, at);

	if (!text && !is_null)
		return NULL; /* SQLite had no memory for it */
	return ruv_arena_strndup(arena, text ? text : "", text ? (size_t)n : 0);
}

/* ---- connections ---- */

static void conn_close(ruv_sqlite_conn *conn)
{
	for (int i = 0; i < N_SQL; i++) {
		sqlite3_finalize(conn->stmts[i]);
		conn->stmts[i] = NULL;
	}
	sqlite3_close(conn->db);
	conn->db = NULL;
}

static int conn_open(ruv_sqlite *store, ruv_sqlite_conn *conn, bool writer, ruv_error *err)
{
	int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE | (writer ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY);
	int code = sqlite3_open_v2(store->path, &conn->db, flags, NULL), rc;

	if (code != SQLITE_OK) {
		rc = ruv_sqlite_fail(store, conn->db, code, "opening it", err);
		conn_close(conn);
		return rc;
	}
	sqlite3_busy_timeout(conn->db, 5000);
	sqlite3_db_config(conn->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_db_config(conn->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	rc = ruv_sqlite_exec(
	    store, conn, "PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-16000; PRAGMA cell_size_check=ON", err);
	if (!rc && writer)
		rc = ruv_sqlite_exec(store, conn,
		                     "PRAGMA synchronous=EXTRA; PRAGMA foreign_keys=ON; PRAGMA secure_delete=ON;"
		                     "PRAGMA wal_autocheckpoint=0",
		                     err);
	if (rc)
		conn_close(conn);
	return rc;
}

ruv_sqlite_conn *ruv_sqlite_reader(ruv_sqlite *store, int *rc, ruv_error *err)
{
	if (atomic_load(&store->tx_thread) == (uintptr_t)pthread_self())
		return &store->writer;
	return ruv_sqlite_committed(store, rc, err);
}

ruv_sqlite_conn *ruv_sqlite_committed(ruv_sqlite *store, int *rc, ruv_error *err)
{
	ruv_sqlite_conn *conn;

	pthread_mutex_lock(&store->pool_lock);
	conn = store->idle;
	if (conn)
		store->idle = conn->next;
	pthread_mutex_unlock(&store->pool_lock);
	if (conn)
		return conn;
	conn = calloc(1, sizeof *conn);
	if (!conn) {
		*rc = ruv_fail_memory(err, "memory", sizeof *conn);
		return NULL;
	}
	*rc = conn_open(store, conn, false, err);
	if (*rc) {
		free(conn);
		return NULL;
	}
	return conn;
}

void ruv_sqlite_reader_done(ruv_sqlite *store, ruv_sqlite_conn *conn)
{
	int n = 0;

	if (!conn || conn == &store->writer)
		return;
	pthread_mutex_lock(&store->pool_lock);
	for (const ruv_sqlite_conn *c = store->idle; c; c = c->next)
		n++;
	if (n < MAX_IDLE_READERS) {
		conn->next = store->idle;
		store->idle = conn;
		conn = NULL;
	}
	pthread_mutex_unlock(&store->pool_lock);
	if (conn) {
		conn_close(conn);
		free(conn);
	}
}

ruv_sqlite_conn *ruv_sqlite_writer(ruv_sqlite *store, int *rc, ruv_error *err)
{
	if (atomic_load(&store->tx_thread) == (uintptr_t)pthread_self())
		return &store->writer;
	*rc = ruv_fail(err, RUV_EINTERNAL, "memory", "a write outside a transaction");
	return NULL;
}

sqlite3_stmt *ruv_sqlite_write_stmt(ruv_sqlite *store, ruv_sql which, ruv_sqlite_conn **conn, int *rc, ruv_error *err)
{
	*conn = ruv_sqlite_writer(store, rc, err);
	return *conn ? ruv_sqlite_stmt(store, *conn, which, rc, err) : NULL;
}

/* ---- the right to write ---- */

/* "process 123 (ruvllm)" of who holds the lock file, for the message. */
static void describe_holder(ruv_sqlite *store, char *text, size_t cap)
{
	char line[64] = "", comm[64] = "", path[64];
	ssize_t n = pread(store->lock_fd, line, sizeof line - 1, 0);
	long pid = n > 0 ? strtol(line, NULL, 10) : 0;
	int fd;

	snprintf(text, cap, "another process");
	if (pid <= 0)
		return;
	snprintf(path, sizeof path, "/proc/%ld/comm", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, comm, sizeof comm - 1);
		if (n > 0)
			comm[strcspn(comm, "\n")] = '\0';
		close(fd);
		snprintf(text, cap, "process %ld (%s)", pid, comm);
	}
}

int ruv_sqlite_lock(ruv_sqlite *store, ruv_error *err)
{
	int64_t deadline = ruv_clock_now_ns() + (int64_t)store->lock_wait_ms * 1000000;
	struct timespec until, nap = {0, 500000};
	char holder[128], pid[32];
	int n;

	if (store->read_only)
		return ruv_fail(err, RUV_EINVAL, "memory", "%s was opened read-only", store->path);
	/* By the wall clock, because ThreadSanitizer knows pthread_mutex_timedlock only; a jump of the clock changes the wait, not
	 * the lock. */
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += store->lock_wait_ms / 1000;
	until.tv_nsec += store->lock_wait_ms % 1000 * 1000000L;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	if (pthread_mutex_timedlock(&store->write_lock, &until))
		return ruv_fail(err, RUV_EBUSY, "memory", "%s: another thread has been writing for more than %d ms", store->path,
		                store->lock_wait_ms);
	while (flock(store->lock_fd, LOCK_EX | LOCK_NB)) {
		int saved = errno;
		if (saved == EINTR)
			continue;
		if (saved != EWOULDBLOCK) {
			pthread_mutex_unlock(&store->write_lock);
			return ruv_fail_errno(err, RUV_EIO, saved, "memory", "cannot lock '%s'", store->lock_path);
		}
		if (ruv_clock_now_ns() > deadline) {
			describe_holder(store, holder, sizeof holder);
			pthread_mutex_unlock(&store->write_lock);
			return ruv_fail(err, RUV_EBUSY, "memory", "%s has been written by %s for more than %d ms", store->path,
			                holder, store->lock_wait_ms);
		}
		nanosleep(&nap, NULL);
		if (nap.tv_nsec < 16000000)
			nap.tv_nsec *= 2;
	}
	/* Only for messages: who it is. A failure here costs nothing else. */
	n = snprintf(pid, sizeof pid, "%-12ld\n", (long)getpid());
	if (pwrite(store->lock_fd, pid, (size_t)n, 0) != n)
		ruv_log(RUV_LOG_DEBUG, "memory", "cannot note the process in '%s'", store->lock_path);
	return RUV_OK;
}

void ruv_sqlite_unlock(ruv_sqlite *store)
{
	flock(store->lock_fd, LOCK_UN);
	pthread_mutex_unlock(&store->write_lock);
}

static int on_wal(void *user, sqlite3 *db, const char *name, int n_frames)
{
	(void)db;
	(void)name;
	((ruv_sqlite *)user)->wal_frames = n_frames;
	return SQLITE_OK;
}

void ruv_sqlite_checkpoint(ruv_sqlite *store, int mode)
{
	int code = sqlite3_wal_checkpoint_v2(store->writer.db, NULL, mode, NULL, NULL);

	/* Readers may keep it from finishing; the WAL then grows until the next one. */
	if (code != SQLITE_OK && (code & 0xff) != SQLITE_BUSY && (code & 0xff) != SQLITE_LOCKED)
		ruv_log(RUV_LOG_ERROR, "memory", "%s: checkpoint failed: %s", store->path, sqlite3_errstr(code));
}

static int tx_begin(ruv_store *base, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	int rc;

	if (atomic_load(&store->tx_thread) == (uintptr_t)pthread_self())
		return ruv_fail(err, RUV_EINTERNAL, "memory", "a transaction inside a transaction");
	rc = ruv_sqlite_lock(store, err);
	if (rc)
		return rc;
	rc = run_plain(store, &store->writer, SQL_BEGIN, err);
	if (rc) {
		ruv_sqlite_unlock(store);
		return rc;
	}
	atomic_store(&store->tx_thread, (uintptr_t)pthread_self());
	store->tx_now_ms = ruv_clock_wall_ms();
	rc = ruv_sqlite_expire(store, err);
	if (rc)
		base->ops->rollback(base);
	return rc;
}

static void tx_rollback(ruv_store *base)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	ruv_error err;

	/* SQLite may have rolled back by itself (disk full, I/O error). */
	if (!sqlite3_get_autocommit(store->writer.db) && run_plain(store, &store->writer, SQL_ROLLBACK, &err))
		ruv_log(RUV_LOG_ERROR, "memory", "%s", err.message);
	atomic_store(&store->tx_thread, 0);
	ruv_sqlite_unlock(store);
}

static int tx_commit(ruv_store *base, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	int rc = run_plain(store, &store->writer, SQL_COMMIT, err);

	if (rc) {
		tx_rollback(base);
		return rc;
	}
	if (store->wal_frames >= CHECKPOINT_FRAMES)
		ruv_sqlite_checkpoint(store, SQLITE_CHECKPOINT_PASSIVE);
	atomic_store(&store->tx_thread, 0);
	ruv_sqlite_unlock(store);
	return RUV_OK;
}

/* ---- log and embedder ---- */

int ruv_sqlite_event(ruv_sqlite *store, ruv_sqlite_conn *conn, const char *what, int64_t key, const ruv_memory_node *node,
                     const char *detail, ruv_error *err)
{
	int rc = RUV_OK;
	sqlite3_stmt *stmt = ruv_sqlite_stmt(store, conn, SQL_EVENT_ADD, &rc, err);

	if (!stmt)
		return rc;
	sqlite3_bind_int64(stmt, 1, store->tx_now_ms);
	ruv_sqlite_bind_text(stmt, 2, what);
	sqlite3_bind_int64(stmt, 3, key);
	if (node && (rc = ruv_sqlite_bind_id(store, stmt, 4, node->id, err))) {
		ruv_sqlite_done(stmt);
		return rc;
	}
	ruv_sqlite_bind_text(stmt, 5, detail);
	return ruv_sqlite_run(store, conn, stmt, err);
}

static int meta_get(ruv_sqlite *store, ruv_sqlite_conn *conn, const char *name, ruv_arena *arena, const char **value,
                    ruv_error *err)
{
	int rc = RUV_OK, code;
	sqlite3_stmt *stmt = ruv_sqlite_stmt(store, conn, SQL_META_GET, &rc, err);

	if (!stmt)
		return rc;
	ruv_sqlite_bind_text(stmt, 1, name);
	code = sqlite3_step(stmt);
	if (code == SQLITE_ROW) {
		*value = ruv_sqlite_column_text(arena, stmt, 0);
		if (!*value)
			rc = ruv_fail_memory(err, "memory", 1);
	} else if (code == SQLITE_DONE) {
		rc = ruv_fail(err, RUV_ECORRUPT, "memory", "%s: table meta lacks '%s'; restore a backup", store->path, name);
	} else {
		rc = ruv_sqlite_fail(store, conn->db, code, "reading table meta", err);
	}
	ruv_sqlite_done(stmt);
	return rc;
}

static int meta_set(ruv_sqlite *store, ruv_sqlite_conn *conn, const char *name, const char *value, ruv_error *err)
{
	int rc = RUV_OK;
	sqlite3_stmt *stmt = ruv_sqlite_stmt(store, conn, SQL_META_SET, &rc, err);

	if (!stmt)
		return rc;
	ruv_sqlite_bind_text(stmt, 1, name);
	ruv_sqlite_bind_text(stmt, 2, value);
	return ruv_sqlite_run(store, conn, stmt, err);
}

static int embedder_get(ruv_store *base, ruv_arena *arena, ruv_store_embedder *out, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	const char *dimension = NULL;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	memset(out, 0, sizeof *out);
	if (!conn)
		return rc;
	rc = meta_get(store, conn, "embedder_id", arena, &out->id, err);
	if (!rc)
		rc = meta_get(store, conn, "embedder_version", arena, &out->version, err);
	if (!rc)
		rc = meta_get(store, conn, "dimension", arena, &dimension, err);
	if (!rc) {
		long value = strtol(dimension, NULL, 10);
		if (value < 0 || value > RUV_MEMORY_MAX_DIMENSION)
			rc = ruv_fail(err, RUV_ECORRUPT, "memory", "%s: dimension '%s' in table meta is not one", store->path,
			              dimension);
		out->dimension = (int)value;
		atomic_store(&store->dimension, out->dimension);
	}
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

static int embedder_set(ruv_store *base, const ruv_store_embedder *embedder, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	char dimension[16];
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_writer(store, &rc, err);

	if (!conn)
		return rc;
	snprintf(dimension, sizeof dimension, "%d", embedder->dimension);
	/* Every node that loses its vector is an event, so that indexes in memory follow. */
	rc = ruv_sqlite_exec(store, conn,
	                     "INSERT INTO events(time_ms,what,node,id,detail) SELECT cast((julianday('now')-2440587.5)*86400000 AS "
	                     "INTEGER),'unembed',"
	                     "n.key,n.id,'' FROM vectors v JOIN nodes n ON n.key=v.node",
	                     err);
	if (!rc)
		rc = run_plain(store, conn, SQL_VECTOR_CLEAR, err);
	if (!rc)
		rc = meta_set(store, conn, "embedder_id", embedder->id, err);
	if (!rc)
		rc = meta_set(store, conn, "embedder_version", embedder->version, err);
	if (!rc)
		rc = meta_set(store, conn, "dimension", dimension, err);
	if (!rc)
		rc = ruv_sqlite_event(store, conn, "embedder", 0, NULL, "", err);
	if (!rc)
		atomic_store(&store->dimension, embedder->dimension);
	return rc;
}

/* ---- opening and closing ---- */

/* Brings the schema up to this build's, inside one transaction; the caller holds the write lock. */
static int migrate(ruv_sqlite *store, ruv_sqlite_conn *conn, int64_t from, ruv_error *err)
{
	char text[160], id[RUV_ID_SIZE];
	int rc = run_plain(store, conn, SQL_BEGIN, err);

	if (rc)
		return rc;
	for (int64_t v = from; !rc && v < RUV_STORE_SCHEMA_VERSION; v++)
		rc = ruv_sqlite_exec(store, conn, migrations[v], err);
	if (!rc && from == 0) {
		snprintf(text, sizeof text, "%lld", (long long)ruv_clock_wall_ms());
		rc = meta_set(store, conn, "created_ms", text, err);
		if (!rc)
			rc = meta_set(store, conn, "store_id", ruv_uuid_format(ruv_uuid_make(), id), err);
		if (!rc)
			rc = meta_set(store, conn, "embedder_id", "", err);
		if (!rc)
			rc = meta_set(store, conn, "embedder_version", "", err);
		if (!rc)
			rc = meta_set(store, conn, "dimension", "0", err);
	}
	snprintf(text, sizeof text, "PRAGMA application_id=%d; PRAGMA user_version=%d", APPLICATION_ID, RUV_STORE_SCHEMA_VERSION);
	if (!rc)
		rc = ruv_sqlite_exec(store, conn, text, err);
	if (!rc)
		rc = run_plain(store, conn, SQL_COMMIT, err);
	if (rc && !sqlite3_get_autocommit(conn->db))
		sqlite3_exec(conn->db, "ROLLBACK", NULL, NULL, NULL);
	return rc;
}

/* Reads the header; *version 0: an empty file. */
static int check_header(ruv_sqlite *store, ruv_sqlite_conn *conn, int64_t *version, ruv_error *err)
{
	int64_t application = 0, n_pages = 0, n_tables = 0;
	int rc = read_pragma(store, conn, "PRAGMA application_id", &application, err);

	*version = 0;
	if (!rc)
		rc = read_pragma(store, conn, "PRAGMA user_version", version, err);
	if (!rc)
		rc = read_pragma(store, conn, "PRAGMA page_count", &n_pages, err);
	if (!rc)
		rc = read_pragma(store, conn, "SELECT count(*) FROM sqlite_schema", &n_tables, err);
	if (rc)
		return rc;
	if (application == 0 && *version == 0 && n_tables == 0)
		return RUV_OK;
	if (application != APPLICATION_ID)
		return ruv_fail(err, RUV_EFORMAT, "memory", "%s is an SQLite database of another program (application id 0x%08llx)",
		                store->path, (unsigned long long)application & 0xffffffff);
	if (*version > RUV_STORE_SCHEMA_VERSION)
		return ruv_fail(err, RUV_EUNSUPPORTED, "memory",
		                "%s was written by a newer ruvllm (schema %lld, this one knows up to %d); use that one",
		                store->path, (long long)*version, RUV_STORE_SCHEMA_VERSION);
	if (*version < 1)
		return ruv_fail(err, RUV_ECORRUPT, "memory", "%s has schema version %lld, which never was; restore a backup",
		                store->path, (long long)*version);
	return RUV_OK;
}

static int open_writer(ruv_sqlite *store, bool create, ruv_error *err)
{
	int64_t version = 0;
	int rc;

	store->lock_fd = open(store->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (store->lock_fd < 0)
		return ruv_fail_errno(err, RUV_EIO, errno, "memory", "cannot open '%s'", store->lock_path);
	rc = ruv_sqlite_lock(store, err);
	if (rc)
		return rc;
	rc = conn_open(store, &store->writer, true, err);
	if (!rc)
		rc = check_header(store, &store->writer, &version, err);
	if (!rc && version == 0 && !create)
		rc = ruv_fail(err, RUV_ENOTFOUND, "memory", "%s is empty: no memory has been made there", store->path);
	if (!rc)
		rc = ruv_sqlite_exec(store, &store->writer, "PRAGMA journal_mode=WAL", err);
	if (!rc && version < RUV_STORE_SCHEMA_VERSION)
		rc = migrate(store, &store->writer, version, err);
	if (!rc)
		sqlite3_wal_hook(store->writer.db, on_wal, store);
	ruv_sqlite_unlock(store);
	return rc;
}

static int open_reader_first(ruv_sqlite *store, ruv_error *err)
{
	int64_t version = 0;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	if (!conn)
		return rc;
	rc = check_header(store, conn, &version, err);
	if (!rc && version == 0)
		rc = ruv_fail(err, RUV_ENOTFOUND, "memory", "%s is empty: no memory has been made there", store->path);
	if (!rc && version < RUV_STORE_SCHEMA_VERSION)
		rc = ruv_fail(err, RUV_EUNSUPPORTED, "memory",
		              "%s has schema %lld and must be brought up to %d first: open it for writing once", store->path,
		              (long long)version, RUV_STORE_SCHEMA_VERSION);
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

static void store_close(ruv_store *base)
{
	ruv_sqlite *store = (ruv_sqlite *)base;

	if (!store)
		return;
	while (store->idle) {
		ruv_sqlite_conn *conn = store->idle;
		store->idle = conn->next;
		conn_close(conn);
		free(conn);
	}
	if (store->writer.db) {
		/* Leave a small WAL behind when nobody else is at it; it is whole either way. */
		if (store->wal_frames > 0 && pthread_mutex_trylock(&store->write_lock) == 0) {
			if (flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0) {
				sqlite3_busy_timeout(store->writer.db, 0);
				ruv_sqlite_checkpoint(store, SQLITE_CHECKPOINT_TRUNCATE);
				flock(store->lock_fd, LOCK_UN);
			}
			pthread_mutex_unlock(&store->write_lock);
		}
		conn_close(&store->writer);
	}
	if (store->lock_fd >= 0)
		close(store->lock_fd);
	pthread_mutex_destroy(&store->write_lock);
	pthread_mutex_destroy(&store->pool_lock);
	free(store->dir);
	free(store->path);
	free(store->lock_path);
	free(store);
}

static const ruv_store_ops sqlite_ops = {
    .name = "sqlite",
    .close = store_close,
    .embedder = embedder_get,
    .set_embedder = embedder_set,
    .begin = tx_begin,
    .commit = tx_commit,
    .rollback = tx_rollback,
    .node_put = ruv_sqlite_node_put,
    .node_replace = ruv_sqlite_node_replace,
    .node_erase = ruv_sqlite_node_erase,
    .node_get = ruv_sqlite_node_get,
    .nodes_by_key = ruv_sqlite_nodes_by_key,
    .node_list = ruv_sqlite_node_list,
    .node_resolve = ruv_sqlite_node_resolve,
    .source_get = ruv_sqlite_source_get,
    .source_put = ruv_sqlite_source_put,
    .source_erase = ruv_sqlite_source_erase,
    .source_nodes = ruv_sqlite_source_nodes,
    .source_mend = ruv_sqlite_source_mend,
    .node_move = ruv_sqlite_node_move,
    .source_list = ruv_sqlite_source_list,
    .forgotten_put = ruv_sqlite_forgotten_put,
    .forgotten_get = ruv_sqlite_forgotten_get,
    .forgotten_drop = ruv_sqlite_forgotten_drop,
    .edge_get = ruv_sqlite_edge_get,
    .edge_put = ruv_sqlite_edge_put,
    .edge_erase = ruv_sqlite_edge_erase,
    .edges_of = ruv_sqlite_edges_of,
    .links_of = ruv_sqlite_links_of,
    .node_keys = ruv_sqlite_node_keys,
    .scan = ruv_sqlite_scan,
    .changes = ruv_sqlite_changes,
    .last_event = ruv_sqlite_last_event,
    .next_expiry = ruv_sqlite_next_expiry,
    .event_mark = ruv_sqlite_event_mark,
    .scan_words = ruv_sqlite_scan_words,
    .changes_words = ruv_sqlite_changes_words,
    .tokenizer = ruv_sqlite_tokenizer,
    .visit = ruv_sqlite_visit,
    .lexical = ruv_sqlite_lexical,
    .history = ruv_sqlite_history,
    .stats = ruv_sqlite_stats,
    .check = ruv_sqlite_check,
    .backup = ruv_sqlite_backup,
    .compact = ruv_sqlite_compact,
};

static char *join(const char *dir, const char *name)
{
	char *path = NULL;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

int ruv_store_open_sqlite(ruv_store **out, const char *dir, bool create, bool read_only, int lock_wait_ms, ruv_error *err)
{
	ruv_sqlite *store = calloc(1, sizeof *store);
	ruv_sqlite_conn *conn = NULL;
	ruv_arena arena;
	const char *store_id = "";
	struct stat st;
	int rc;

	*out = NULL;
	if (!store)
		return ruv_fail_memory(err, "memory", sizeof *store);
	ruv_arena_init(&arena);
	store->base.ops = &sqlite_ops;
	store->lock_fd = -1;
	store->read_only = read_only;
	store->lock_wait_ms = lock_wait_ms > 0 ? lock_wait_ms : DEFAULT_WAIT_MS;
	pthread_mutex_init(&store->write_lock, NULL);
	pthread_mutex_init(&store->pool_lock, NULL);
	store->dir = strdup(dir);
	store->path = join(dir, "memory.db");
	store->lock_path = join(dir, "memory.lock");
	if (!store->dir || !store->path || !store->lock_path) {
		rc = ruv_fail_memory(err, "memory", strlen(dir) + 16);
		goto done;
	}
	if (create && !read_only) {
		int fd;
		rc = ruv_dir_create(dir, err);
		if (rc)
			goto done;
		/* What people tell it is private: SQLite would make the file readable by all. Its WAL takes the same mode. */
		fd = open(store->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0) {
			rc = ruv_fail_errno(err, RUV_EIO, errno, "memory", "cannot make '%s'", store->path);
			goto done;
		}
		close(fd);
	}
	if (stat(store->path, &st)) {
		rc = errno == ENOENT || errno == ENOTDIR
		         ? ruv_fail(err, RUV_ENOTFOUND, "memory", "no memory in '%s' (there is no memory.db)", dir)
		         : ruv_fail_errno(err, RUV_EIO, errno, "memory", "cannot read '%s'", store->path);
		goto done;
	}
	if (!S_ISREG(st.st_mode)) {
		rc = ruv_fail(err, RUV_EINVAL, "memory", "'%s' is not a regular file", store->path);
		goto done;
	}
	rc = read_only ? open_reader_first(store, err) : open_writer(store, create, err);
	if (rc)
		goto done;
	conn = ruv_sqlite_reader(store, &rc, err);
	if (!conn)
		goto done;
	rc = meta_get(store, conn, "store_id", &arena, &store_id, err);
	if (rc)
		goto done;
	snprintf(store->store_id, sizeof store->store_id, "%s", store_id);
	ruv_sqlite_reader_done(store, conn);
	conn = NULL;

	*out = &store->base;
	store = NULL;
done:
	if (store) {
		ruv_sqlite_reader_done(store, conn);
		store_close(&store->base);
	}
	ruv_arena_release(&arena);
	return rc;
}
