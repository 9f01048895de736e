/* sql.c - SQLite with our errors. Statements are short-lived: these files see a write per interaction, not thousands a second.
 *
 * One connection per file that also checkpoints (SQLite 3.40 has a fault with several). Threads: the owner of the connection. */
#include "learn/sql.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

static const char where[] = "learn";

int ruv_sql_fail(sqlite3 *db, ruv_error *err)
{
	const int code = sqlite3_errcode(db) & 0xff;
	const int rc = code == SQLITE_NOMEM                              ? RUV_ENOMEM
	               : code == SQLITE_BUSY || code == SQLITE_LOCKED    ? RUV_EBUSY
	               : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? RUV_ECORRUPT
	                                                                 : RUV_EIO;
	const char *name = sqlite3_db_filename(db, "main");
	return ruv_fail(err, rc, where, "%s: %s", name && *name ? name : "memory", sqlite3_errmsg(db));
}

int ruv_sql_run(sqlite3 *db, const char *sql, ruv_error *err)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? RUV_OK : ruv_sql_fail(db, err);
}

static int prepare(sqlite3 *db, sqlite3_stmt **out, const char *sql, ruv_error *err, const char *kinds, va_list args)
{
	*out = NULL;
	if (sqlite3_prepare_v2(db, sql, -1, out, NULL) != SQLITE_OK)
		return ruv_sql_fail(db, err);
	for (int i = 0; kinds[i]; i++) {
		int rc = SQLITE_OK;
		if (kinds[i] == 'i') {
			rc = sqlite3_bind_int64(*out, i + 1, va_arg(args, int64_t));
		} else if (kinds[i] == 'd') {
			rc = sqlite3_bind_double(*out, i + 1, va_arg(args, double));
		} else if (kinds[i] == 't') {
			const char *text = va_arg(args, const char *);
			rc = sqlite3_bind_text(*out, i + 1, text ? text : "", -1, SQLITE_TRANSIENT);
		} else {
			const void *bytes = va_arg(args, const void *);
			const size_t n = va_arg(args, size_t);
			rc = n ? sqlite3_bind_blob64(*out, i + 1, bytes, n, SQLITE_TRANSIENT)
			       : sqlite3_bind_zeroblob(*out, i + 1, 0);
		}
		if (rc != SQLITE_OK) {
			rc = ruv_sql_fail(db, err);
			sqlite3_finalize(*out);
			*out = NULL;
			return rc;
		}
	}
	return RUV_OK;
}

int ruv_sql_prepare(sqlite3 *db, sqlite3_stmt **out, const char *sql, ruv_error *err, const char *kinds, ...)
{
	va_list args;
	va_start(args, kinds);
	int rc = prepare(db, out, sql, err, kinds, args);
	va_end(args);
	return rc;
}

int ruv_sql_step(sqlite3_stmt *stmt, ruv_error *err)
{
	const int rc = sqlite3_step(stmt);
	return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : ruv_sql_fail(sqlite3_db_handle(stmt), err);
}

int ruv_sql_do(sqlite3 *db, ruv_error *err, const char *sql, const char *kinds, ...)
{
	sqlite3_stmt *stmt = NULL;
	va_list args;
	va_start(args, kinds);
	int rc = prepare(db, &stmt, sql, err, kinds, args);
	va_end(args);
	if (rc == RUV_OK) {
		rc = ruv_sql_step(stmt, err);
		rc = rc > 0 ? RUV_OK : rc;
	}
	sqlite3_finalize(stmt);
	return rc;
}

int ruv_sql_int(sqlite3 *db, int64_t *value, int64_t otherwise, const char *sql, ruv_error *err)
{
	sqlite3_stmt *stmt = NULL;
	int rc = ruv_sql_prepare(db, &stmt, sql, err, "");
	if (rc == RUV_OK)
		rc = ruv_sql_step(stmt, err);
	if (rc >= 0) {
		*value = rc && sqlite3_column_type(stmt, 0) != SQLITE_NULL ? sqlite3_column_int64(stmt, 0) : otherwise;
		rc = RUV_OK;
	}
	sqlite3_finalize(stmt);
	return rc;
}

char *ruv_sql_text(sqlite3_stmt *stmt, int column)
{
	const char *text = (const char *)sqlite3_column_text(stmt, column);
	return strdup(text ? text : "");
}

int ruv_sql_open(sqlite3 **out, const char *path, const char *schema, int version, ruv_error *err)
{
	sqlite3 *db = NULL;
	int64_t found = 0;
	char set[64];
	*out = NULL;
	if (sqlite3_open_v2(path ? path : ":memory:", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX,
	                    NULL) != SQLITE_OK) {
		int rc = ruv_fail(err, RUV_EIO, where, "%s: %s", path ? path : "memory", db ? sqlite3_errmsg(db) : "out of memory");
		sqlite3_close(db);
		return rc;
	}
	sqlite3_busy_timeout(db, 10000);
	int rc = ruv_sql_run(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON;", err);
	if (rc == RUV_OK)
		rc = ruv_sql_run(db, "BEGIN IMMEDIATE", err);
	if (rc == RUV_OK) {
		rc = ruv_sql_int(db, &found, 0, "PRAGMA user_version", err);
		snprintf(set, sizeof set, "PRAGMA user_version=%d", version);
		if (rc == RUV_OK && found == 0 && (rc = ruv_sql_run(db, schema, err)) == RUV_OK)
			rc = ruv_sql_run(db, set, err);
		else if (rc == RUV_OK && found != version)
			rc = ruv_fail(err, RUV_EUNSUPPORTED, where, "%s has version %lld, this program knows %d",
			              path ? path : "memory", (long long)found, version);
		if (rc == RUV_OK)
			rc = ruv_sql_run(db, "COMMIT", err);
	}
	if (rc) {
		sqlite3_close(db);
		return rc;
	}
	*out = db;
	return RUV_OK;
}
