/* sqlite_care.c - the SQLite home: counting, checking and mending, backup, compaction.
 *
 * check looks, in this order, at the file's pages and indexes (PRAGMA integrity_check), references between tables, the checksum of
 * every node and vector, and the word index against the texts. What is derived (indexes, words) is rebuilt; what is not (a text, a
 * vector) is reported, and a vector that fails is dropped, because it can be made again from its text. Layer: memory. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/status.h"
#include "memory/sqlite.h"

/* ---- counting ---- */

/* Calls row(...) for each row of a statement that is used rarely and not kept. */
static int count_rows(ruv_sqlite *store, ruv_sqlite_conn *conn, const char *sql, int64_t *by_group, int n_groups, int64_t *total,
                      ruv_error *err)
{
	sqlite3_stmt *stmt = NULL;
	int code = sqlite3_prepare_v2(conn->db, sql, -1, &stmt, NULL), rc = RUV_OK;

	while (code == SQLITE_OK || code == SQLITE_ROW) {
		code = sqlite3_step(stmt);
		if (code == SQLITE_ROW) {
			int64_t group = by_group ? sqlite3_column_int64(stmt, 1) : 0;
			int64_t n = sqlite3_column_int64(stmt, 0);
			if (by_group && group >= 0 && group < n_groups)
				by_group[group] = n;
			*total += n;
		}
	}
	if (code != SQLITE_DONE)
		rc = ruv_sqlite_fail(store, conn->db, code, "counting", err);
	sqlite3_finalize(stmt);
	return rc;
}

int ruv_sqlite_stats(ruv_store *base, ruv_memory_stats *stats, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	int64_t version = 0;
	struct stat st;
	char *wal = NULL;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	if (!conn)
		return rc;
	rc = count_rows(store, conn, "SELECT count(*),type FROM nodes GROUP BY type", stats->n_by_type, RUV_N_NODE_TYPES,
	                &stats->n_nodes, err);
	if (!rc)
		rc = count_rows(store, conn, "SELECT count(*),type FROM edges GROUP BY type", stats->n_by_edge_type,
		                RUV_N_EDGE_TYPES, &stats->n_edges, err);
	if (!rc)
		rc = count_rows(store, conn, "SELECT count(*) FROM vectors", NULL, 0, &stats->n_vectors, err);
	if (!rc)
		rc = count_rows(store, conn, "SELECT count(*) FROM sources", NULL, 0, &stats->n_sources, err);
	if (!rc)
		rc = count_rows(store, conn, "SELECT count(*) FROM events", NULL, 0, &stats->n_events, err);
	if (!rc)
		rc = count_rows(store, conn, "SELECT coalesce(sum(length(cast(text AS BLOB))),0) FROM nodes", NULL, 0,
		                &stats->text_bytes, err);
	if (!rc)
		rc = count_rows(store, conn, "PRAGMA user_version", NULL, 0, &version, err);
	stats->schema_version = (int)version;
	stats->n_without_vector = stats->n_nodes - stats->n_vectors;
	snprintf(stats->store_id, sizeof stats->store_id, "%s", store->store_id);
	if (!stat(store->path, &st))
		stats->database_bytes = st.st_size;
	if (asprintf(&wal, "%s-wal", store->path) >= 0 && !stat(wal, &st))
		stats->database_bytes += st.st_size;
	free(wal);
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

/* ---- checking ---- */

typedef struct checker {
	ruv_sqlite *store;
	ruv_memory_report *report;
	ruv_memory_problem_fn *fn;
	void *user;
	bool stopped;
} checker;

static void RUV_PRINTF(2, 3) problem(checker *check, const char *fmt, ...)
{
	char line[640];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	check->report->n_problems++;
	if (check->fn && !check->stopped && !check->fn(check->user, line))
		check->stopped = true;
}

/* Every first column of the rows is a problem, unless it says "ok". *n counts them. */
static int check_pragma(checker *check, ruv_sqlite_conn *conn, const char *sql, const char *prefix, int *n, ruv_error *err)
{
	sqlite3_stmt *stmt = NULL;
	int code = sqlite3_prepare_v2(conn->db, sql, -1, &stmt, NULL), rc = RUV_OK;

	*n = 0;
	while (code == SQLITE_OK || code == SQLITE_ROW) {
		code = sqlite3_step(stmt);
		if (code == SQLITE_ROW) {
			const char *text = (const char *)sqlite3_column_text(stmt, 0);
			if (text && strcmp(text, "ok")) {
				problem(check, "%s%s", prefix, text);
				(*n)++;
			}
		}
	}
	if ((code & 0xff) == SQLITE_CORRUPT) {
		problem(check, "%s%s", prefix, sqlite3_errmsg(conn->db));
		(*n)++;
	} else if (code != SQLITE_DONE) {
		rc = ruv_sqlite_fail(check->store, conn->db, code, "checking", err);
	}
	sqlite3_finalize(stmt);
	return rc;
}

static int check_nodes(checker *check, ruv_sqlite_conn *conn, ruv_error *err)
{
	sqlite3_stmt *stmt = NULL;
	int code = sqlite3_prepare_v2(conn->db, "SELECT " RUV_SQL_NODE_COLUMNS " FROM nodes n", -1, &stmt, NULL), rc = RUV_OK;
	ruv_arena arena;

	ruv_arena_init(&arena);
	while (!rc && !check->stopped && (code == SQLITE_OK || code == SQLITE_ROW)) {
		ruv_memory_node node;
		int64_t key;
		bool sound;
		code = sqlite3_step(stmt);
		if (code != SQLITE_ROW)
			break;
		rc = ruv_sqlite_read_node(&arena, &node, &key, &sound, stmt, err);
		if (!rc && !sound && node.source[0])
			problem(check,
			        "node %s (key %lld) fails its checksum: its text or labels are not what was stored; "
			        "`ruvllm remember --again '%.200s'` reads it anew, or `ruvllm memory forget %s` drops it",
			        node.id, (long long)key, node.source, node.id);
		else if (!rc && !sound)
			problem(check,
			        "node %s (key %lld) fails its checksum: its text or labels are not what was stored; "
			        "`ruvllm memory forget %s` drops it",
			        node.id, (long long)key, node.id);
		check->report->n_nodes++;
		ruv_arena_release(&arena);
	}
	if (!rc && (code & 0xff) == SQLITE_CORRUPT)
		problem(check, "table nodes cannot be read to its end: %s", sqlite3_errmsg(conn->db));
	else if (!rc && code != SQLITE_DONE && code != SQLITE_ROW)
		rc = ruv_sqlite_fail(check->store, conn->db, code, "checking nodes", err);
	sqlite3_finalize(stmt);
	ruv_arena_release(&arena);
	return rc;
}

static bool finite_vector(const void *data, int n)
{
	const char *bytes = data;
	double norm = 0;

	for (int i = 0; i < n; i++) {
		float x;
		memcpy(&x, bytes + sizeof x * (size_t)i, sizeof x);
		if (!isfinite(x))
			return false;
		norm += (double)x * x;
	}
	return norm > 0;
}

static int check_vectors(checker *check, ruv_sqlite_conn *conn, bool repair, ruv_error *err)
{
	int dimension = atomic_load(&check->store->dimension);
	int64_t *bad = NULL;
	size_t n_bad = 0, cap = 0;
	sqlite3_stmt *stmt = NULL;
	int rc = RUV_OK;
	int code = sqlite3_prepare_v2(
	    conn->db, "SELECT v.node,v.digest,v.data,n.id FROM vectors v LEFT JOIN nodes n ON n.key=v.node", -1, &stmt, NULL);

	while (!check->stopped && (code == SQLITE_OK || code == SQLITE_ROW)) {
		const void *data;
		size_t n;
		char id[RUV_ID_SIZE];
		code = sqlite3_step(stmt);
		if (code != SQLITE_ROW)
			break;
		data = sqlite3_column_blob(stmt, 2);
		n = (size_t)sqlite3_column_bytes(stmt, 2);
		check->report->n_vectors++;
		if (data && n == sizeof(float) * (size_t)dimension &&
		    ruv_sqlite_vector_digest(data, n) == sqlite3_column_int64(stmt, 1) && finite_vector(data, dimension))
			continue;
		ruv_sqlite_column_id(id, stmt, 3);
		problem(check, "the vector of node %s (key %lld) fails its check (%zu bytes, %zu expected)%s", id,
		        (long long)sqlite3_column_int64(stmt, 0), n, sizeof(float) * (size_t)dimension,
		        repair ? ": dropped; `ruvllm memory reembed` computes it anew" : "");
		if (n_bad == cap) {
			int64_t *grown = realloc(bad, (cap = cap ? cap * 2 : 64) * sizeof *bad);
			if (!grown) {
				rc = ruv_fail_memory(err, "memory", cap * sizeof *bad);
				break;
			}
			bad = grown;
		}
		bad[n_bad++] = sqlite3_column_int64(stmt, 0);
	}
	if (!rc && (code & 0xff) == SQLITE_CORRUPT)
		problem(check, "table vectors cannot be read to its end: %s", sqlite3_errmsg(conn->db));
	else if (!rc && code != SQLITE_DONE && code != SQLITE_ROW)
		rc = ruv_sqlite_fail(check->store, conn->db, code, "checking vectors", err);
	sqlite3_finalize(stmt);
	for (size_t i = 0; !rc && repair && i < n_bad; i++) {
		stmt = ruv_sqlite_stmt(check->store, conn, SQL_VECTOR_DELETE, &rc, err);
		if (!stmt)
			break;
		sqlite3_bind_int64(stmt, 1, bad[i]);
		rc = ruv_sqlite_run(check->store, conn, stmt, err);
		if (!rc)
			rc = ruv_sqlite_event(check->store, conn, "unembed", bad[i], NULL, "", err);
		if (!rc)
			check->report->n_repaired++;
	}
	free(bad);
	return rc;
}

int ruv_sqlite_check(ruv_store *base, ruv_memory_report *report, bool repair, ruv_memory_problem_fn *fn, void *user, ruv_error *err)
{
	static const char repair_text[] =
	    "DELETE FROM vectors WHERE node NOT IN (SELECT key FROM nodes);"
	    "DELETE FROM edges WHERE src NOT IN (SELECT key FROM nodes) OR dst NOT IN (SELECT key FROM nodes);";
	ruv_sqlite *store = (ruv_sqlite *)base;
	checker check = {store, report, fn, user, false};
	ruv_sqlite_conn *conn = NULL;
	bool locked = false;
	int rc = RUV_OK, n = 0;
	int64_t ignored = 0;

	/* Only the writer may look at the word index (its check is written as an insert), and nothing may change meanwhile. */
	if (store->read_only) {
		if (repair)
			return ruv_fail(err, RUV_EINVAL, "memory", "%s was opened read-only: nothing can be repaired", store->path);
		conn = ruv_sqlite_reader(store, &rc, err);
	} else {
		rc = base->ops->begin(base, err);
		locked = !rc;
		conn = &store->writer;
	}
	if (rc)
		return rc;
	rc = check_pragma(&check, conn, "PRAGMA integrity_check(100)", "", &n, err);
	if (!rc && n && repair && !ruv_sqlite_exec(store, conn, "REINDEX", NULL)) {
		/* Indexes are made anew; what is left is damage to the tables themselves. */
		int left = 0;
		ruv_memory_report unused = {0};
		checker again = {store, &unused, NULL, NULL, false};
		rc = check_pragma(&again, conn, "PRAGMA integrity_check(100)", "", &left, err);
		report->n_repaired += n > left ? n - left : 0;
	}
	if (!rc)
		rc = check_pragma(&check, conn,
		                  "SELECT 'a vector of node key '||node||', which is not there' FROM vectors WHERE node NOT IN "
		                  "(SELECT key FROM nodes)"
		                  " UNION ALL SELECT 'edge '||lower(hex(id))||' hangs in the air' FROM edges"
		                  " WHERE src NOT IN (SELECT key FROM nodes) OR dst NOT IN (SELECT key FROM nodes)",
		                  "", &n, err);
	if (!rc && n && repair) {
		rc = ruv_sqlite_exec(store, conn, repair_text, err);
		if (!rc)
			report->n_repaired += n;
	}
	if (!rc)
		rc = count_rows(store, conn, "SELECT count(*) FROM edges", NULL, 0, &report->n_edges, err);
	if (!rc)
		rc = check_nodes(&check, conn, err);
	if (!rc)
		rc = check_vectors(&check, conn, repair, err);
	if (!rc && locked) {
		int code = sqlite3_exec(conn->db, "INSERT INTO words(words,rank) VALUES('integrity-check',1)", NULL, NULL, NULL);
		if ((code & 0xff) == SQLITE_CORRUPT) {
			problem(&check, "the word index does not match the texts");
			if (repair) {
				rc = ruv_sqlite_exec(store, conn, "INSERT INTO words(words) VALUES('rebuild')", err);
				if (!rc)
					report->n_repaired++;
			}
		} else if (code != SQLITE_OK) {
			rc = ruv_sqlite_fail(store, conn->db, code, "checking the word index", err);
		}
		if (!rc)
			rc = count_rows(store, conn, "SELECT count(*) FROM nodes", NULL, 0, &ignored, err);
		report->n_words_checked = ignored;
	}
	if (locked) {
		if (rc || !repair)
			base->ops->rollback(base);
		else
			rc = base->ops->commit(base, err);
	} else {
		ruv_sqlite_reader_done(store, conn);
	}
	return rc;
}

/* ---- backup and compaction ---- */

int ruv_sqlite_backup(ruv_store *base, const char *path, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	ruv_outfile out = {0};
	sqlite3 *copy = NULL;
	sqlite3_backup *backup = NULL;
	struct stat from, to;
	int rc = RUV_OK, code;
	ruv_sqlite_conn *conn = NULL;

	if (!stat(path, &to) && !stat(store->path, &from) && from.st_dev == to.st_dev && from.st_ino == to.st_ino)
		return ruv_fail(err, RUV_EINVAL, "memory", "'%s' is the memory itself; name another file for the backup", path);
	conn = ruv_sqlite_reader(store, &rc, err);
	if (!conn)
		return rc;
	rc = ruv_outfile_open(&out, path, err);
	if (rc)
		goto done;
	code = sqlite3_open_v2(out.temp_path, &copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_exec(copy, "PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF", NULL, NULL, NULL);
	if (code != SQLITE_OK) {
		rc = ruv_fail(err, RUV_EIO, "memory", "cannot write '%s': %s", out.temp_path, sqlite3_errstr(code));
		goto done;
	}
	/* All pages in one step: one snapshot, whatever is written meanwhile. */
	backup = sqlite3_backup_init(copy, "main", conn->db, "main");
	code = backup ? sqlite3_backup_step(backup, -1) : sqlite3_errcode(copy);
	if (backup)
		sqlite3_backup_finish(backup);
	/* The copy stands alone: no WAL beside it until it is opened as a memory. */
	if (code == SQLITE_DONE)
		code = sqlite3_exec(copy, "PRAGMA journal_mode=DELETE", NULL, NULL, NULL);
	if (code != SQLITE_OK && code != SQLITE_DONE) {
		rc = (code & 0xff) == SQLITE_CORRUPT
		         ? ruv_sqlite_fail(store, NULL, code, "copying it", err)
		         : ruv_fail(err, RUV_EIO, "memory", "cannot copy %s to '%s': %s", store->path, path, sqlite3_errstr(code));
		goto done;
	}
	sqlite3_close(copy);
	copy = NULL;
	rc = ruv_outfile_commit(&out, err); /* flushes, renames */
done:
	sqlite3_close(copy);
	ruv_outfile_release(&out);
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

int ruv_sqlite_compact(ruv_store *base, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	int rc = ruv_sqlite_lock(store, err);

	if (rc)
		return rc;
	rc = ruv_sqlite_exec(store, &store->writer, "INSERT INTO words(words) VALUES('optimize')", err);
	if (!rc)
		rc = ruv_sqlite_exec(store, &store->writer, "VACUUM", err);
	if (!rc)
		ruv_sqlite_checkpoint(store, SQLITE_CHECKPOINT_TRUNCATE);
	ruv_sqlite_unlock(store);
	return rc;
}
