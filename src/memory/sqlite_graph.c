/* sqlite_graph.c - the SQLite home: sources, edges, and reading the event log. Layer: memory. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/status.h"
#include "memory/jsonl.h"
#include "memory/sqlite.h"

/* Room for one more item in an arena array. */
static void *grow(ruv_arena *arena, void *items, int n, int *cap, size_t size)
{
	int bigger = *cap ? *cap * 2 : 16;
	void *grown;

	if (n < *cap)
		return items;
	grown = ruv_arena_calloc(arena, (size_t)bigger, size);
	if (grown && n)
		memcpy(grown, items, (size_t)n * size);
	if (grown)
		*cap = bigger;
	return grown;
}

/* ---- sources ---- */

static int read_source(ruv_arena *arena, ruv_memory_source *out, sqlite3_stmt *stmt, ruv_error *err)
{
	out->name = ruv_sqlite_column_text(arena, stmt, 0);
	out->scope.user = ruv_sqlite_column_text(arena, stmt, 1);
	out->scope.agent = ruv_sqlite_column_text(arena, stmt, 2);
	out->scope.session = ruv_sqlite_column_text(arena, stmt, 3);
	out->hash = ruv_sqlite_column_text(arena, stmt, 4);
	out->size_bytes = sqlite3_column_int64(stmt, 5);
	out->modified_ms = sqlite3_column_int64(stmt, 6);
	out->remembered_ms = sqlite3_column_int64(stmt, 7);
	out->n_nodes = sqlite3_column_int(stmt, 8);
	if (!out->name || !out->scope.user || !out->scope.agent || !out->scope.session || !out->hash)
		return ruv_fail_memory(err, "memory", 256);
	return RUV_OK;
}

static void bind_source(sqlite3_stmt *stmt, const ruv_memory_source *source)
{
	ruv_sqlite_bind_text(stmt, 1, source->name);
	ruv_sqlite_bind_text(stmt, 2, source->scope.user);
	ruv_sqlite_bind_text(stmt, 3, source->scope.agent);
	ruv_sqlite_bind_text(stmt, 4, source->scope.session);
}

int ruv_sqlite_source_get(ruv_store *base, ruv_arena *arena, ruv_memory_source *out, const ruv_memory_source *which, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	int rc = RUV_OK, code;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	if (!conn)
		return rc;
	stmt = ruv_sqlite_stmt(store, conn, SQL_SOURCE_GET, &rc, err);
	if (stmt) {
		bind_source(stmt, which);
		code = sqlite3_step(stmt);
		if (code == SQLITE_ROW)
			rc = read_source(arena, out, stmt, err);
		else if (code == SQLITE_DONE)
			rc = ruv_fail(err, RUV_ENOTFOUND, "memory", "'%s' has not been remembered", which->name);
		else
			rc = ruv_sqlite_fail(store, conn->db, code, "looking for a source", err);
		ruv_sqlite_done(stmt);
	}
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

int ruv_sqlite_source_put(ruv_store *base, const ruv_memory_source *source, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	ruv_buf json;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn;

	stmt = ruv_sqlite_write_stmt(store, SQL_SOURCE_SET, &conn, &rc, err);
	if (!stmt)
		return rc;
	bind_source(stmt, source);
	ruv_sqlite_bind_text(stmt, 5, source->hash);
	sqlite3_bind_int64(stmt, 6, source->size_bytes);
	sqlite3_bind_int64(stmt, 7, source->modified_ms);
	sqlite3_bind_int64(stmt, 8, source->remembered_ms ? source->remembered_ms : store->tx_now_ms);
	rc = ruv_sqlite_run(store, conn, stmt, err);
	if (rc)
		return rc;
	ruv_buf_init(&json, (size_t)1 << 20);
	rc = ruv_json_source(&json, source);
	if (rc)
		rc = ruv_fail(err, rc, "memory", "the source's name is too long");
	else
		rc = ruv_sqlite_event(store, conn, "source", 0, NULL, ruv_buf_cstr(&json), err);
	ruv_buf_release(&json);
	return rc;
}

int ruv_sqlite_source_erase(ruv_store *base, const ruv_memory_source *which, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn;

	stmt = ruv_sqlite_write_stmt(store, SQL_SOURCE_DELETE, &conn, &rc, err);
	if (!stmt)
		return rc;
	bind_source(stmt, which);
	rc = ruv_sqlite_run(store, conn, stmt, err);
	if (!rc && sqlite3_changes(conn->db) == 0)
		rc = ruv_fail(err, RUV_ENOTFOUND, "memory", "'%s' has not been remembered", which->name);
	if (!rc)
		rc = ruv_sqlite_event(store, conn, "unsource", 0, NULL, "", err);
	return rc;
}

int ruv_sqlite_forgotten_put(ruv_store *base, const ruv_memory_source *which, int64_t hash, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn;

	stmt = ruv_sqlite_write_stmt(store, SQL_FORGOTTEN_PUT, &conn, &rc, err);
	if (!stmt)
		return rc;
	bind_source(stmt, which);
	sqlite3_bind_int64(stmt, 5, hash);
	return ruv_sqlite_run(store, conn, stmt, err);
}

int ruv_sqlite_forgotten_drop(ruv_store *base, const ruv_memory_source *which, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn;

	stmt = ruv_sqlite_write_stmt(store, SQL_FORGOTTEN_DROP, &conn, &rc, err);
	if (!stmt)
		return rc;
	bind_source(stmt, which);
	return ruv_sqlite_run(store, conn, stmt, err);
}

static int forgotten_of(ruv_sqlite *store, ruv_sqlite_conn *conn, ruv_arena *arena, int64_t **hashes, int *n,
                        const ruv_memory_source *which, ruv_error *err)
{
	int rc = RUV_OK, code = SQLITE_DONE, cap = 0;
	int64_t *items = NULL;
	sqlite3_stmt *stmt = ruv_sqlite_stmt(store, conn, SQL_FORGOTTEN_GET, &rc, err);

	*n = 0;
	if (stmt) {
		bind_source(stmt, which);
		while (!rc && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
			items = grow(arena, items, *n, &cap, sizeof *items);
			if (items)
				items[(*n)++] = sqlite3_column_int64(stmt, 0);
			else
				rc = ruv_fail_memory(err, "memory", (size_t)cap * 2 * sizeof *items);
		}
		if (!rc && code != SQLITE_DONE)
			rc = ruv_sqlite_fail(store, conn->db, code, "reading what was forgotten", err);
		ruv_sqlite_done(stmt);
	}
	*hashes = items;
	return rc;
}

int ruv_sqlite_forgotten_get(ruv_store *base, ruv_arena *arena, int64_t **hashes, int *n, const ruv_memory_source *which,
                             ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	*hashes = NULL;
	*n = 0;
	if (conn)
		rc = forgotten_of(store, conn, arena, hashes, n, which, err);
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

static int list_sources(ruv_sqlite *store, ruv_sqlite_conn *conn, ruv_arena *arena, ruv_memory_source **sources, int *n,
                        const ruv_memory_filter *filter, ruv_error *err)
{
	ruv_memory_source *items = NULL;
	sqlite3_stmt *stmt;
	int rc = RUV_OK, code, cap = 0;

	*n = 0;
	stmt = ruv_sqlite_stmt(store, conn, SQL_SOURCE_LIST, &rc, err);
	if (!stmt)
		return rc;
	sqlite3_bind_int(stmt, 1, filter->every_scope);
	ruv_sqlite_bind_text(stmt, 2, filter->scope.user);
	ruv_sqlite_bind_text(stmt, 3, filter->scope.agent);
	ruv_sqlite_bind_text(stmt, 4, filter->scope.session);
	while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
		items = grow(arena, items, *n, &cap, sizeof *items);
		if (!items) {
			rc = ruv_fail_memory(err, "memory", sizeof *items * (size_t)*n);
			break;
		}
		rc = read_source(arena, &items[*n], stmt, err);
		if (rc)
			break;
		(*n)++;
	}
	if (!rc && code != SQLITE_DONE)
		rc = ruv_sqlite_fail(store, conn->db, code, "listing sources", err);
	ruv_sqlite_done(stmt);
	*sources = items;
	return rc;
}

int ruv_sqlite_source_list(ruv_store *base, ruv_arena *arena, ruv_memory_source **sources, int *n, const ruv_memory_filter *filter,
                           ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	*n = 0;
	if (!conn)
		return rc;
	rc = list_sources(store, conn, arena, sources, n, filter, err);
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

int ruv_sqlite_visit_sources(ruv_sqlite *store, ruv_sqlite_conn *conn, ruv_arena *arena, const ruv_store_visitor *visitor,
                             ruv_error *err)
{
	ruv_memory_filter all = {.every_scope = true};
	ruv_memory_source *sources = NULL;
	int n = 0, rc = list_sources(store, conn, arena, &sources, &n, &all, err);

	for (int i = 0; !rc && i < n; i++) {
		int64_t *hashes;
		int n_hashes;
		rc = visitor->source(visitor->user, &sources[i], err);
		if (rc || !visitor->forgotten)
			continue;
		rc = forgotten_of(store, conn, arena, &hashes, &n_hashes, &sources[i], err);
		for (int j = 0; !rc && j < n_hashes; j++)
			rc = visitor->forgotten(visitor->user, &sources[i], hashes[j], err);
	}
	return rc;
}

/* ---- edges ---- */

static int key_of(ruv_sqlite *store, ruv_sqlite_conn *conn, const char *id, int64_t *key, ruv_error *err)
{
	int rc = RUV_OK, code;
	sqlite3_stmt *stmt = ruv_sqlite_stmt(store, conn, SQL_NODE_KEY, &rc, err);

	if (!stmt)
		return rc;
	rc = ruv_sqlite_bind_id(store, stmt, 1, id, err);
	if (!rc) {
		code = sqlite3_step(stmt);
		if (code == SQLITE_ROW)
			*key = sqlite3_column_int64(stmt, 0);
		else if (code == SQLITE_DONE)
			rc = ruv_fail(err, RUV_ENOTFOUND, "memory", "no node %s", id);
		else
			rc = ruv_sqlite_fail(store, conn->db, code, "looking for a node", err);
	}
	ruv_sqlite_done(stmt);
	return rc;
}

int ruv_sqlite_edge_put(ruv_store *base, ruv_memory_edge *edge, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	ruv_memory_node src = {0};
	sqlite3_stmt *stmt;
	ruv_buf json;
	int64_t from = 0, to = 0;
	int rc = RUV_OK, code;
	ruv_sqlite_conn *conn = ruv_sqlite_writer(store, &rc, err);

	if (!conn)
		return rc;
	rc = key_of(store, conn, edge->src, &from, err);
	if (!rc)
		rc = key_of(store, conn, edge->dst, &to, err);
	if (rc)
		return rc;
	stmt = ruv_sqlite_stmt(store, conn, SQL_EDGE_SET, &rc, err);
	if (!stmt)
		return rc;
	rc = ruv_sqlite_bind_id(store, stmt, 1, edge->id, err);
	if (rc) {
		ruv_sqlite_done(stmt);
		return rc;
	}
	sqlite3_bind_int64(stmt, 2, from);
	sqlite3_bind_int64(stmt, 3, to);
	sqlite3_bind_int(stmt, 4, edge->type);
	sqlite3_bind_double(stmt, 5, edge->weight);
	sqlite3_bind_double(stmt, 6, edge->confidence);
	sqlite3_bind_int64(stmt, 7, edge->created_ms);
	ruv_sqlite_bind_text(stmt, 8, edge->created_by);
	code = sqlite3_step(stmt);
	if (code == SQLITE_ROW) {
		ruv_sqlite_column_id(edge->id, stmt, 0);
		edge->created_ms = sqlite3_column_int64(stmt, 1);
		code = sqlite3_step(stmt);
	}
	if (code == SQLITE_CONSTRAINT_UNIQUE)
		rc = ruv_fail(err, RUV_EEXIST, "memory", "there is an edge %s already, between other nodes", edge->id);
	else if (code != SQLITE_DONE)
		rc = ruv_sqlite_fail(store, conn->db, code, "adding an edge", err);
	ruv_sqlite_done(stmt);
	if (rc)
		return rc;
	ruv_buf_init(&json, (size_t)1 << 20);
	rc = ruv_json_edge(&json, edge);
	if (rc)
		rc = ruv_fail(err, rc, "memory", "the edge's creator is too long");
	snprintf(src.id, sizeof src.id, "%s", edge->src);
	if (!rc) /* of no key: an edge changes nothing that an index of nodes follows */
		rc = ruv_sqlite_event(store, conn, "link", 0, &src, ruv_buf_cstr(&json), err);
	ruv_buf_release(&json);
	return rc;
}

int ruv_sqlite_edge_erase(ruv_store *base, const char *id, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	char detail[64];
	int rc = RUV_OK, code;
	ruv_sqlite_conn *conn;

	stmt = ruv_sqlite_write_stmt(store, SQL_EDGE_DELETE, &conn, &rc, err);
	if (!stmt)
		return rc;
	rc = ruv_sqlite_bind_id(store, stmt, 1, id, err);
	if (!rc) {
		code = sqlite3_step(stmt);
		if (code == SQLITE_DONE)
			rc = ruv_fail(err, RUV_ENOTFOUND, "memory", "no edge %s", id);
		else if (code != SQLITE_ROW || (code = sqlite3_step(stmt)) != SQLITE_DONE)
			rc = ruv_sqlite_fail(store, conn->db, code, "removing an edge", err);
	}
	ruv_sqlite_done(stmt);
	if (rc)
		return rc;
	snprintf(detail, sizeof detail, "{\"edge\":\"%s\"}", id);
	return ruv_sqlite_event(store, conn, "unlink", 0, NULL, detail, err);
}

static int collect_edges(ruv_sqlite *store, ruv_sqlite_conn *conn, ruv_arena *arena, ruv_memory_edge **edges, int *n,
                         sqlite3_stmt *stmt, ruv_error *err)
{
	ruv_memory_edge *items = NULL;
	int rc = RUV_OK, code, cap = 0;

	*n = 0;
	while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
		ruv_memory_edge *edge;
		items = grow(arena, items, *n, &cap, sizeof *items);
		if (!items) {
			rc = ruv_fail_memory(err, "memory", sizeof *items * (size_t)*n);
			break;
		}
		edge = &items[(*n)++];
		ruv_sqlite_column_id(edge->id, stmt, 0);
		ruv_sqlite_column_id(edge->src, stmt, 1);
		ruv_sqlite_column_id(edge->dst, stmt, 2);
		edge->type = (ruv_edge_type)sqlite3_column_int(stmt, 3);
		edge->weight = (float)sqlite3_column_double(stmt, 4);
		edge->confidence = (float)sqlite3_column_double(stmt, 5);
		edge->created_ms = sqlite3_column_int64(stmt, 6);
		edge->created_by = ruv_sqlite_column_text(arena, stmt, 7);
		if (!edge->created_by) {
			rc = ruv_fail_memory(err, "memory", 64);
			break;
		}
	}
	if (!rc && code != SQLITE_DONE)
		rc = ruv_sqlite_fail(store, conn->db, code, "reading edges", err);
	*edges = items;
	return rc;
}

int ruv_sqlite_edge_get(ruv_store *base, ruv_arena *arena, ruv_memory_edge *edge, const char *id, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	ruv_memory_edge *found = NULL;
	sqlite3_stmt *stmt;
	int rc = RUV_OK, n = 0;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	stmt = conn ? ruv_sqlite_stmt(store, conn, SQL_EDGE_GET, &rc, err) : NULL;
	if (stmt) {
		rc = ruv_sqlite_bind_id(store, stmt, 1, id, err);
		if (!rc)
			rc = collect_edges(store, conn, arena, &found, &n, stmt, err);
		ruv_sqlite_done(stmt);
	}
	if (!rc && !n)
		rc = ruv_fail(err, RUV_ENOTFOUND, "memory", "no edge %s", id);
	if (!rc)
		*edge = found[0];
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

int ruv_sqlite_edges_of(ruv_store *base, ruv_arena *arena, ruv_memory_edge **edges, int *n, const char *id, int limit,
                        ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	int64_t key = 0;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	*n = 0;
	if (!conn)
		return rc;
	rc = key_of(store, conn, id, &key, err);
	stmt = rc ? NULL : ruv_sqlite_stmt(store, conn, SQL_EDGES_OF, &rc, err);
	if (stmt) {
		sqlite3_bind_int64(stmt, 1, key);
		sqlite3_bind_int(stmt, 2, limit);
		rc = collect_edges(store, conn, arena, edges, n, stmt, err);
		ruv_sqlite_done(stmt);
	}
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

int ruv_sqlite_links_of(ruv_store *base, ruv_arena *arena, ruv_store_link **links, int *n, const int64_t *keys, int n_keys,
                        int limit, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	ruv_store_link *items = NULL;
	sqlite3_stmt *stmt;
	int rc = RUV_OK, code = SQLITE_DONE, cap = 0;
	bool began;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	*n = 0;
	*links = NULL;
	if (!conn)
		return rc;
	rc = ruv_sqlite_begin_reading(store, conn, &began, err);
	stmt = rc ? NULL : ruv_sqlite_stmt(store, conn, SQL_LINKS_OF, &rc, err);
	for (int i = 0; !rc && i < n_keys; i++) {
		sqlite3_bind_int64(stmt, 1, keys[i]);
		sqlite3_bind_int(stmt, 2, limit);
		while (!rc && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
			items = grow(arena, items, *n, &cap, sizeof *items);
			if (items)
				items[(*n)++] = (ruv_store_link){.src = sqlite3_column_int64(stmt, 0),
				                                 .dst = sqlite3_column_int64(stmt, 1),
				                                 .type = (ruv_edge_type)sqlite3_column_int(stmt, 2),
				                                 .weight = (float)sqlite3_column_double(stmt, 3),
				                                 .confidence = (float)sqlite3_column_double(stmt, 4),
				                                 .created_ms = sqlite3_column_int64(stmt, 5)};
			else
				rc = ruv_fail_memory(err, "memory", (size_t)cap * sizeof *items);
		}
		if (!rc && code != SQLITE_DONE)
			rc = ruv_sqlite_fail(store, conn->db, code, "reading edges", err);
		sqlite3_reset(stmt);
	}
	if (stmt)
		ruv_sqlite_done(stmt);
	rc = ruv_sqlite_end_reading(store, conn, began, rc, err);
	ruv_sqlite_reader_done(store, conn);
	*links = items;
	return rc;
}

int ruv_sqlite_node_keys(ruv_store *base, int64_t *keys, const char *const *ids, int n, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	int rc = RUV_OK;
	bool began;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	if (!conn)
		return rc;
	rc = ruv_sqlite_begin_reading(store, conn, &began, err);
	for (int i = 0; !rc && i < n; i++) {
		keys[i] = 0;
		rc = key_of(store, conn, ids[i], &keys[i], err);
		if (rc == RUV_ENOTFOUND)
			rc = RUV_OK;
	}
	rc = ruv_sqlite_end_reading(store, conn, began, rc, err);
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

int ruv_sqlite_visit_edges(ruv_sqlite *store, ruv_sqlite_conn *conn, ruv_arena *arena, const ruv_store_visitor *visitor,
                           ruv_error *err)
{
	char after[RUV_ID_SIZE] = "";
	int n = 0, rc = RUV_OK;

	do {
		ruv_memory_edge *edges = NULL;
		sqlite3_stmt *stmt = ruv_sqlite_stmt(store, conn, SQL_EDGE_LIST, &rc, err);
		if (!stmt)
			return rc;
		if (*after)
			rc = ruv_sqlite_bind_id(store, stmt, 1, after, err);
		else
			sqlite3_bind_zeroblob(stmt, 1, 0);
		sqlite3_bind_int(stmt, 2, 1000);
		sqlite3_bind_int64(stmt, 3, ruv_clock_wall_ms());
		if (!rc)
			rc = collect_edges(store, conn, arena, &edges, &n, stmt, err);
		ruv_sqlite_done(stmt);
		for (int i = 0; !rc && i < n; i++)
			rc = visitor->edge(visitor->user, &edges[i], err);
		if (!rc && n)
			memcpy(after, edges[n - 1].id, sizeof after);
		ruv_arena_release(arena);
	} while (!rc && n);
	return rc;
}

/* ---- the log ---- */

int ruv_sqlite_history(ruv_store *base, ruv_arena *arena, ruv_memory_event **events, int *n, const char *id, int limit,
                       ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	ruv_memory_event *items = NULL;
	sqlite3_stmt *stmt;
	int rc = RUV_OK, code, cap = 0;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	*n = 0;
	*events = NULL;
	if (!conn)
		return rc;
	stmt = ruv_sqlite_stmt(store, conn, id ? SQL_EVENTS_NODE : SQL_EVENTS_ALL, &rc, err);
	if (!stmt)
		goto done;
	sqlite3_bind_int(stmt, 1, limit);
	if (id)
		rc = ruv_sqlite_bind_id(store, stmt, 2, id, err);
	while (!rc && (code = sqlite3_step(stmt)) != SQLITE_DONE) {
		ruv_memory_event *event;
		if (code != SQLITE_ROW) {
			rc = ruv_sqlite_fail(store, conn->db, code, "reading the log", err);
			break;
		}
		items = grow(arena, items, *n, &cap, sizeof *items);
		if (!items) {
			rc = ruv_fail_memory(err, "memory", sizeof *items * (size_t)*n);
			break;
		}
		event = &items[(*n)++];
		event->seq = sqlite3_column_int64(stmt, 0);
		event->time_ms = sqlite3_column_int64(stmt, 1);
		event->what = ruv_sqlite_column_text(arena, stmt, 2);
		ruv_sqlite_column_id(event->id, stmt, 3);
		event->detail = ruv_sqlite_column_text(arena, stmt, 4);
		if (!event->what || !event->detail)
			rc = ruv_fail_memory(err, "memory", 64);
	}
	ruv_sqlite_done(stmt);
	*events = items;
done:
	ruv_sqlite_reader_done(store, conn);
	return rc;
}
