/* sqlite_feeds.c - the SQLite home: word search by FTS5, its word cutter for others, and the feeds that indexes follow.
 *
 * A feed is one read transaction: the number of the last event and the rows belong together. Layer: memory. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/status.h"
#include "memory/sqlite.h"

/* ---- words ---- */

int ruv_sqlite_lexical(ruv_store *base, ruv_store_match *out, int *n, const ruv_store_term *terms, int n_terms,
                       const ruv_memory_filter *filter, int limit, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	ruv_buf match;
	int rc = RUV_OK, code;
	ruv_sqlite_conn *conn;

	*n = 0;
	if (!n_terms || limit <= 0)
		return RUV_OK;
	conn = ruv_sqlite_reader(store, &rc, err);
	if (!conn)
		return rc;
	/* Every term quoted, quotes doubled: nothing in it is FTS5 syntax. */
	ruv_buf_init(&match, (size_t)1 << 22);
	for (int i = 0; i < n_terms; i++) {
		ruv_buf_puts(&match, i ? " OR \"" : "\"");
		for (int j = 0; j < terms[i].n; j++) {
			if (terms[i].text[j] == '"')
				ruv_buf_putc(&match, '"');
			ruv_buf_putc(&match, terms[i].text[j]);
		}
		ruv_buf_putc(&match, '"');
	}
	if (match.failed) {
		rc = ruv_fail(err, match.failed, "memory", "the question's words do not fit into a search");
		goto done;
	}
	stmt = ruv_sqlite_stmt(store, conn, SQL_LEXICAL, &rc, err);
	if (!stmt)
		goto done;
	rc = ruv_sqlite_bind_filter(stmt, filter, ruv_clock_wall_ms(), err);
	sqlite3_bind_text(stmt, 13, match.data, (int)match.len, SQLITE_STATIC);
	sqlite3_bind_int(stmt, 14, limit);
	/* When the filter held back so many of the best that too few are left, all that have the words are looked at. */
	for (int pass = 0; !rc && pass < 2 && (pass == 0 || *n < limit); pass++) {
		*n = 0;
		sqlite3_reset(stmt);
		sqlite3_bind_int64(stmt, 15, pass == 0 ? 2 * (int64_t)limit : -1);
		while ((code = sqlite3_step(stmt)) == SQLITE_ROW && *n < limit) {
			out[*n].key = sqlite3_column_int64(stmt, 0);
			out[*n].score = -sqlite3_column_double(stmt, 1);
			(*n)++;
		}
		if (code != SQLITE_DONE && code != SQLITE_ROW)
			rc = ruv_sqlite_fail(store, conn->db, code, "searching words", err);
	}
	ruv_sqlite_done(stmt);
done:
	ruv_buf_release(&match);
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

/* FTS5's own tokenizer, the one that table `words` was made with, on a database of its own that holds nothing. */
typedef struct fts5_words {
	ruv_tokenizer base;
	sqlite3 *db;
	fts5_tokenizer calls;
	Fts5Tokenizer *tokenizer;
} fts5_words;

typedef struct cutting {
	ruv_token_fn *fn;
	void *user;
} cutting;

static int on_token(void *user, int flags, const char *token, int n, int from, int to)
{
	const cutting *c = user;

	(void)flags;
	(void)from;
	(void)to;
	return c->fn(c->user, token, n);
}

static int cut(ruv_tokenizer *base, const char *text, int n, bool query, ruv_token_fn *fn, void *user)
{
	fts5_words *w = (fts5_words *)base;
	cutting c = {fn, user};
	int code = w->calls.xTokenize(w->tokenizer, &c, query ? FTS5_TOKENIZE_QUERY : FTS5_TOKENIZE_DOCUMENT, text, n, on_token);

	return code == SQLITE_NOMEM ? RUV_ENOMEM : code;
}

static void free_tokenizer(ruv_tokenizer *base)
{
	fts5_words *w = (fts5_words *)base;

	if (!w)
		return;
	if (w->tokenizer)
		w->calls.xDelete(w->tokenizer);
	sqlite3_close(w->db);
	free(w);
}

int ruv_sqlite_tokenizer(ruv_store *store, ruv_tokenizer **out, ruv_error *err)
{
	static const char *args[] = {"unicode61", "remove_diacritics", "2"};
	fts5_words *w = calloc(1, sizeof *w);
	sqlite3_stmt *stmt = NULL;
	fts5_api *api = NULL;
	void *context = NULL;
	int code;

	(void)store;
	*out = NULL;
	if (!w)
		return ruv_fail_memory(err, "memory", sizeof *w);
	w->base = (ruv_tokenizer){cut, free_tokenizer};
	code = sqlite3_open_v2(":memory:", &w->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_prepare_v2(w->db, "SELECT fts5(?1)", -1, &stmt, NULL);
	if (code == SQLITE_OK) {
		sqlite3_bind_pointer(stmt, 1, &api, "fts5_api_ptr", NULL);
		(void)sqlite3_step(stmt);
	}
	sqlite3_finalize(stmt);
	if (code == SQLITE_OK && !api)
		code = SQLITE_ERROR;
	if (code == SQLITE_OK)
		code = api->xFindTokenizer(api, "porter", &context, &w->calls);
	if (code == SQLITE_OK)
		code = w->calls.xCreate(context, args, 3, &w->tokenizer);
	if (code != SQLITE_OK) {
		free_tokenizer(&w->base);
		return ruv_fail(err, code == SQLITE_NOMEM ? RUV_ENOMEM : RUV_EUNSUPPORTED, "memory",
		                "SQLite's word cutter cannot be had: %s", sqlite3_errstr(code));
	}
	*out = &w->base;
	return RUV_OK;
}

/* ---- feeds ---- */

/* The one number of a statement without parameters, as it is committed. */
static int one_number(ruv_store *base, ruv_sql which, int64_t *number, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	int rc = RUV_OK, code;
	ruv_sqlite_conn *conn = ruv_sqlite_committed(store, &rc, err);

	if (!conn)
		return rc;
	stmt = ruv_sqlite_stmt(store, conn, which, &rc, err);
	if (stmt) {
		code = sqlite3_step(stmt);
		if (code == SQLITE_ROW)
			*number = sqlite3_column_int64(stmt, 0);
		else
			rc = ruv_sqlite_fail(store, conn->db, code, "reading the log", err);
		ruv_sqlite_done(stmt);
	}
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

int ruv_sqlite_last_event(ruv_store *base, int64_t *seq, ruv_error *err)
{
	return one_number(base, SQL_EVENT_LAST, seq, err);
}

int ruv_sqlite_next_expiry(ruv_store *base, int64_t *ms, ruv_error *err)
{
	return one_number(base, SQL_NEXT_EXPIRY, ms, err);
}

int ruv_sqlite_event_mark(ruv_store *base, int64_t seq, uint64_t *mark, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	int rc = RUV_OK, code;
	ruv_sqlite_conn *conn;

	*mark = ruv_hash64(store->store_id, strlen(store->store_id), (uint64_t)seq);
	if (!seq)
		return RUV_OK;
	conn = ruv_sqlite_committed(store, &rc, err);
	if (!conn)
		return rc;
	stmt = ruv_sqlite_stmt(store, conn, SQL_EVENT_AT, &rc, err);
	if (stmt) {
		sqlite3_bind_int64(stmt, 1, seq);
		code = sqlite3_step(stmt);
		if (code == SQLITE_ROW) {
			int64_t numbers[2] = {sqlite3_column_int64(stmt, 0), sqlite3_column_int64(stmt, 1)};
			const char *what = (const char *)sqlite3_column_text(stmt, 2);
			*mark = ruv_hash64(numbers, sizeof numbers, *mark);
			*mark = ruv_hash64(what ? what : "", what ? strlen(what) : 0, *mark);
		} else if (code == SQLITE_DONE) {
			rc = ruv_fail(err, RUV_ENOTFOUND, "memory", "%s: the log has no event %lld", store->path, (long long)seq);
		} else {
			rc = ruv_sqlite_fail(store, conn->db, code, "reading the log", err);
		}
		ruv_sqlite_done(stmt);
	}
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

static int feed(ruv_store *base, bool all, bool words, int64_t since, int64_t *seq, ruv_store_row_fn *fn, void *user,
                ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	size_t vector_bytes = sizeof(float) * (size_t)atomic_load(&store->dimension);
	sqlite3_stmt *stmt = NULL, *begin, *commit;
	float *aligned = NULL; /* [dimension]: SQLite aligns blobs to nothing */
	int64_t last = 0, n_bad = 0, first_bad = 0;
	ruv_sql which;
	int rc = RUV_OK, code;
	ruv_sqlite_conn *conn = ruv_sqlite_committed(store, &rc, err);

	if (!conn)
		return rc;
	/* One snapshot for the number and the rows. */
	begin = ruv_sqlite_stmt(store, conn, SQL_BEGIN_READ, &rc, err);
	if (begin)
		rc = ruv_sqlite_run(store, conn, begin, err);
	if (rc)
		goto done;
	if (vector_bytes && !(aligned = malloc(vector_bytes)))
		rc = ruv_fail_memory(err, "memory", vector_bytes);
	if (!rc)
		stmt = ruv_sqlite_stmt(store, conn, SQL_EVENT_LAST, &rc, err);
	if (stmt) {
		code = sqlite3_step(stmt);
		if (code == SQLITE_ROW)
			last = sqlite3_column_int64(stmt, 0);
		else
			rc = ruv_sqlite_fail(store, conn->db, code, "reading the log", err);
		ruv_sqlite_done(stmt);
	}
	which = words ? (all ? SQL_SCAN_WORDS : SQL_CHANGES_WORDS) : (all ? SQL_SCAN : SQL_CHANGES);
	stmt = rc ? NULL : ruv_sqlite_stmt(store, conn, which, &rc, err);
	if (stmt && !all)
		sqlite3_bind_int64(stmt, 1, since);
	while (stmt && !rc) {
		ruv_store_row row = {0};
		code = sqlite3_step(stmt);
		if (code == SQLITE_DONE)
			break;
		if (code != SQLITE_ROW) {
			rc = ruv_sqlite_fail(store, conn->db, code, "reading nodes for the index", err);
			break;
		}
		row.key = sqlite3_column_int64(stmt, 0);
		row.gone = sqlite3_column_type(stmt, 1) == SQLITE_NULL;
		if (row.key <= 0) {
			rc = ruv_fail(err, RUV_ECORRUPT, "memory", "%s: there is a node with key %lld; restore a backup",
			              store->path, (long long)row.key);
			break;
		}
		if (!row.gone) {
			row.type = (ruv_node_type)sqlite3_column_int(stmt, 1);
			row.user = (const char *)sqlite3_column_text(stmt, 2);
			row.agent = (const char *)sqlite3_column_text(stmt, 3);
			row.session = (const char *)sqlite3_column_text(stmt, 4);
			row.domain = (const char *)sqlite3_column_text(stmt, 5);
			row.source = (const char *)sqlite3_column_text(stmt, 6);
			row.tags = (const char *)sqlite3_column_text(stmt, 7);
			row.confidence = (float)sqlite3_column_double(stmt, 8);
			row.created_ms = sqlite3_column_int64(stmt, 9);
			row.expires_ms = sqlite3_column_int64(stmt, 10);
			if (words) {
				row.title = (const char *)sqlite3_column_text(stmt, 11);
				row.text = (const char *)sqlite3_column_text(stmt, 12);
			}
			if (!row.user || !row.agent || !row.session || !row.domain || !row.source || !row.tags ||
			    (words && (!row.title || !row.text))) {
				rc = sqlite3_errcode(conn->db) == SQLITE_NOMEM
				         ? ruv_fail_memory(err, "memory", 64)
				         : ruv_fail(err, RUV_ECORRUPT, "memory", "%s: the row of node key %lld is damaged",
				                    store->path, (long long)row.key);
				break;
			}
			if (!words && sqlite3_column_type(stmt, 11) != SQLITE_NULL) {
				const void *data = sqlite3_column_blob(stmt, 11);
				size_t n = (size_t)sqlite3_column_bytes(stmt, 11);
				if (n && n == vector_bytes && ruv_sqlite_vector_digest(data, n) == sqlite3_column_int64(stmt, 12))
					row.vector = memcpy(aligned, data, n);
				else if (n_bad++ == 0)
					first_bad = row.key;
			}
		}
		rc = fn(user, &row, err);
	}
	ruv_sqlite_done(stmt);
	if (n_bad)
		ruv_log(RUV_LOG_ERROR, "memory",
		        "%s: %lld vectors fail their checksums and are left out of searches (the first: node key %lld); "
		        "run `ruvllm memory verify`",
		        store->path, (long long)n_bad, (long long)first_bad);
	if (!sqlite3_get_autocommit(conn->db)) {
		ruv_error late = {0};
		int other = RUV_OK;
		commit = ruv_sqlite_stmt(store, conn, SQL_COMMIT, &other, &late);
		if (commit)
			other = ruv_sqlite_run(store, conn, commit, &late);
		if (!rc && other)
			rc = ruv_fail(err, other, "memory", "%s", late.message);
	}
	if (!rc)
		*seq = last;
done:
	free(aligned);
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

int ruv_sqlite_scan(ruv_store *base, int64_t *seq, ruv_store_row_fn *fn, void *user, ruv_error *err)
{
	return feed(base, true, false, 0, seq, fn, user, err);
}

int ruv_sqlite_changes(ruv_store *base, int64_t since, int64_t *seq, ruv_store_row_fn *fn, void *user, ruv_error *err)
{
	return feed(base, false, false, since, seq, fn, user, err);
}

int ruv_sqlite_scan_words(ruv_store *base, int64_t *seq, ruv_store_row_fn *fn, void *user, ruv_error *err)
{
	return feed(base, true, true, 0, seq, fn, user, err);
}

int ruv_sqlite_changes_words(ruv_store *base, int64_t since, int64_t *seq, ruv_store_row_fn *fn, void *user, ruv_error *err)
{
	return feed(base, false, true, since, seq, fn, user, err);
}
