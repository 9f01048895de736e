/* sqlite_nodes.c - the SQLite home: nodes, their vectors, and everything in one go for an export.
 *
 * Invariants: a node's digest covers all that a reader gets back; a row that does not match is RUV_ECORRUPT, never returned.
 * Layer: memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/status.h"
#include "memory/jsonl.h"
#include "memory/sqlite.h"

/* ---- checksums ---- */

static uint64_t add_text(uint64_t h, const char *text)
{
	size_t n = text ? strlen(text) : 0;

	h = ruv_hash64(&n, sizeof n, h);
	return ruv_hash64(text ? text : "", n, h);
}

int64_t ruv_sqlite_node_digest(const ruv_memory_node *node, const char *tags)
{
	int64_t numbers[] = {(int64_t)node->type, node->first_line, node->last_line, node->version,
	                     node->created_ms,    node->updated_ms, node->expires_ms};
	uint64_t h = ruv_hash64(numbers, sizeof numbers, 0);

	h = ruv_hash64(&node->confidence, sizeof node->confidence, h);
	h = add_text(h, node->id);
	h = add_text(h, node->text);
	h = add_text(h, node->title);
	h = add_text(h, node->source);
	h = add_text(h, tags);
	h = add_text(h, node->domain);
	h = add_text(h, node->scope.user);
	h = add_text(h, node->scope.agent);
	h = add_text(h, node->scope.session);
	return (int64_t)add_text(h, node->meta);
}

int64_t ruv_sqlite_vector_digest(const void *data, size_t n_bytes)
{
	return (int64_t)ruv_hash64(data, n_bytes, n_bytes);
}

/* ---- tags: "\na\nb\n" ---- */

static int tags_join(ruv_buf *buf, const ruv_memory_node *node, ruv_error *err)
{
	ruv_buf_clear(buf);
	if (node->n_tags)
		ruv_buf_putc(buf, '\n');
	for (int i = 0; i < node->n_tags; i++) {
		ruv_buf_puts(buf, node->tags[i]);
		ruv_buf_putc(buf, '\n');
	}
	return buf->failed ? ruv_fail(err, buf->failed, "memory", "the tags are too long") : RUV_OK;
}

static int tags_split(ruv_arena *arena, ruv_memory_node *node, char *joined, ruv_error *err)
{
	const char **tags;
	int n = 0, at = 0;

	for (const char *p = joined; *p; p++)
		n += *p == '\n';
	node->n_tags = n > 1 ? n - 1 : 0;
	node->tags = NULL;
	if (!node->n_tags)
		return RUV_OK;
	tags = ruv_arena_calloc(arena, (size_t)node->n_tags, sizeof *tags);
	if (!tags)
		return ruv_fail_memory(err, "memory", (size_t)n * sizeof *tags);
	for (char *p = joined + 1; *p && at < node->n_tags; at++) {
		char *end = strchr(p, '\n');
		tags[at] = p;
		*end = '\0';
		p = end + 1;
	}
	node->tags = tags;
	return RUV_OK;
}

/* ---- rows ---- */

int ruv_sqlite_read_node(ruv_arena *arena, ruv_memory_node *node, int64_t *key, bool *sound, sqlite3_stmt *stmt, ruv_error *err)
{
	char *tags;

	memset(node, 0, sizeof *node);
	*key = sqlite3_column_int64(stmt, 0);
	ruv_sqlite_column_id(node->id, stmt, 1);
	node->type = (ruv_node_type)sqlite3_column_int(stmt, 2);
	node->scope.user = ruv_sqlite_column_text(arena, stmt, 3);
	node->scope.agent = ruv_sqlite_column_text(arena, stmt, 4);
	node->scope.session = ruv_sqlite_column_text(arena, stmt, 5);
	node->confidence = (float)sqlite3_column_double(stmt, 6);
	node->version = sqlite3_column_int(stmt, 7);
	node->created_ms = sqlite3_column_int64(stmt, 8);
	node->updated_ms = sqlite3_column_int64(stmt, 9);
	node->expires_ms = sqlite3_column_int64(stmt, 10);
	node->domain = ruv_sqlite_column_text(arena, stmt, 11);
	node->source = ruv_sqlite_column_text(arena, stmt, 12);
	node->first_line = sqlite3_column_int(stmt, 13);
	node->last_line = sqlite3_column_int(stmt, 14);
	tags = ruv_sqlite_column_text(arena, stmt, 15);
	node->meta = ruv_sqlite_column_text(arena, stmt, 16);
	node->title = ruv_sqlite_column_text(arena, stmt, 17);
	node->text = ruv_sqlite_column_text(arena, stmt, 18);
	if (!node->scope.user || !node->scope.agent || !node->scope.session || !node->domain || !node->source || !tags ||
	    !node->meta || !node->title || !node->text)
		return ruv_fail_memory(err, "memory", 256);
	*sound = node->id[0] && (unsigned)node->type < RUV_N_NODE_TYPES &&
	         ruv_sqlite_node_digest(node, tags) == sqlite3_column_int64(stmt, 19);
	return tags_split(arena, node, tags, err);
}

static int unsound(ruv_sqlite *store, const ruv_memory_node *node, ruv_error *err)
{
	return ruv_fail(err, RUV_ECORRUPT, "memory",
	                "%s: node %s fails its checksum; `ruvllm memory verify` lists the damage and what heals it", store->path,
	                node->id[0] ? node->id : "(without id)");
}

/* The stored vector of a node, copied; NULL when it has none. A damaged one is none, and is logged. */
static int read_vector(ruv_sqlite *store, ruv_sqlite_conn *conn, ruv_arena *arena, const float **vector, int64_t key,
                       ruv_error *err)
{
	int rc = RUV_OK, code;
	sqlite3_stmt *stmt = ruv_sqlite_stmt(store, conn, SQL_VECTOR_GET, &rc, err);

	*vector = NULL;
	if (!stmt)
		return rc;
	sqlite3_bind_int64(stmt, 1, key);
	code = sqlite3_step(stmt);
	if (code == SQLITE_ROW) {
		const void *data = sqlite3_column_blob(stmt, 0);
		size_t n = (size_t)sqlite3_column_bytes(stmt, 0);
		if (n == sizeof(float) * (size_t)atomic_load(&store->dimension) && n &&
		    ruv_sqlite_vector_digest(data, n) == sqlite3_column_int64(stmt, 1)) {
			float *copy = ruv_arena_alloc(arena, n);
			if (copy)
				memcpy(copy, data, n);
			else
				rc = ruv_fail_memory(err, "memory", n);
			*vector = copy;
		} else {
			ruv_log(RUV_LOG_ERROR, "memory",
			        "%s: the vector of node key %lld fails its checksum; run `ruvllm memory verify`", store->path,
			        (long long)key);
		}
	} else if (code != SQLITE_DONE) {
		rc = ruv_sqlite_fail(store, conn->db, code, "reading a vector", err);
	}
	ruv_sqlite_done(stmt);
	return rc;
}

int ruv_sqlite_bind_filter(sqlite3_stmt *stmt, const ruv_memory_filter *filter, int64_t now_ms, ruv_error *err)
{
	sqlite3_bind_int(stmt, 1, filter->every_scope);
	ruv_sqlite_bind_text(stmt, 2, filter->scope.user);
	ruv_sqlite_bind_text(stmt, 3, filter->scope.agent);
	ruv_sqlite_bind_text(stmt, 4, filter->scope.session);
	sqlite3_bind_int64(stmt, 5, filter->types);
	if (filter->domain)
		ruv_sqlite_bind_text(stmt, 6, filter->domain);
	if (filter->source)
		ruv_sqlite_bind_text(stmt, 7, filter->source);
	sqlite3_bind_int64(stmt, 8, filter->created_from_ms);
	sqlite3_bind_int64(stmt, 9, filter->created_to_ms);
	sqlite3_bind_double(stmt, 10, filter->min_confidence);
	if (filter->n_tags) {
		ruv_buf json;
		ruv_buf_init(&json, (size_t)1 << 20);
		ruv_buf_putc(&json, '[');
		for (int i = 0; i < filter->n_tags; i++) {
			if (i)
				ruv_buf_putc(&json, ',');
			ruv_jsonl_string(&json, filter->tags[i]);
		}
		ruv_buf_putc(&json, ']');
		if (json.failed) {
			int code = json.failed;
			ruv_buf_release(&json);
			return ruv_fail(err, code, "memory", "the tags to filter by are too long");
		}
		if (sqlite3_bind_text(stmt, 11, json.data, (int)json.len, SQLITE_TRANSIENT) != SQLITE_OK) {
			ruv_buf_release(&json);
			return ruv_fail_memory(err, "memory", (size_t)1 << 10);
		}
		ruv_buf_release(&json);
	}
	sqlite3_bind_int64(stmt, 12, now_ms);
	return RUV_OK;
}

/* ---- writing ---- */

static int find_key(ruv_sqlite *store, ruv_sqlite_conn *conn, const char *id, int64_t *key, ruv_error *err)
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

/* Binds ?1..?19 of the insert and the update. `tags` must live until the statement has run. */
static int bind_node(ruv_sqlite *store, sqlite3_stmt *stmt, const ruv_memory_node *node, const char *tags, ruv_error *err)
{
	int rc = ruv_sqlite_bind_id(store, stmt, 1, node->id, err);

	if (rc)
		return rc;
	sqlite3_bind_int(stmt, 2, node->type);
	ruv_sqlite_bind_text(stmt, 3, node->scope.user);
	ruv_sqlite_bind_text(stmt, 4, node->scope.agent);
	ruv_sqlite_bind_text(stmt, 5, node->scope.session);
	sqlite3_bind_double(stmt, 6, node->confidence);
	sqlite3_bind_int(stmt, 7, node->version);
	sqlite3_bind_int64(stmt, 8, node->created_ms);
	sqlite3_bind_int64(stmt, 9, node->updated_ms);
	sqlite3_bind_int64(stmt, 10, node->expires_ms);
	ruv_sqlite_bind_text(stmt, 11, node->domain);
	ruv_sqlite_bind_text(stmt, 12, node->source);
	sqlite3_bind_int(stmt, 13, node->first_line);
	sqlite3_bind_int(stmt, 14, node->last_line);
	ruv_sqlite_bind_text(stmt, 15, tags);
	ruv_sqlite_bind_text(stmt, 16, node->meta);
	ruv_sqlite_bind_text(stmt, 17, node->title);
	ruv_sqlite_bind_text(stmt, 18, node->text);
	sqlite3_bind_int64(stmt, 19, ruv_sqlite_node_digest(node, tags));
	return RUV_OK;
}

static int set_vector(ruv_sqlite *store, ruv_sqlite_conn *conn, int64_t key, const float *vector, ruv_error *err)
{
	size_t n = sizeof(float) * (size_t)atomic_load(&store->dimension);
	int rc = RUV_OK;
	sqlite3_stmt *stmt = ruv_sqlite_stmt(store, conn, vector ? SQL_VECTOR_SET : SQL_VECTOR_DELETE, &rc, err);

	if (!stmt)
		return rc;
	sqlite3_bind_int64(stmt, 1, key);
	if (vector) {
		sqlite3_bind_int64(stmt, 2, ruv_sqlite_vector_digest(vector, n));
		sqlite3_bind_blob(stmt, 3, vector, (int)n, SQLITE_STATIC);
	}
	return ruv_sqlite_run(store, conn, stmt, err);
}

int ruv_sqlite_node_put(ruv_store *base, const ruv_memory_node *node, int64_t *key, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	ruv_buf tags;
	int rc = RUV_OK, code;
	ruv_sqlite_conn *conn = ruv_sqlite_writer(store, &rc, err);

	if (!conn)
		return rc;
	ruv_buf_init(&tags, (size_t)RUV_MEMORY_MAX_TEXT);
	stmt = ruv_sqlite_stmt(store, conn, SQL_NODE_INSERT, &rc, err);
	if (!stmt)
		goto done;
	rc = tags_join(&tags, node, err);
	if (!rc)
		rc = bind_node(store, stmt, node, ruv_buf_cstr(&tags), err);
	if (!rc) {
		code = sqlite3_step(stmt);
		if (code == SQLITE_CONSTRAINT_UNIQUE)
			rc = ruv_fail(err, RUV_EEXIST, "memory", "there is a node %s already", node->id);
		else if (code != SQLITE_DONE)
			rc = ruv_sqlite_fail(store, conn->db, code, "adding a node", err);
	}
	ruv_sqlite_done(stmt);
	if (rc)
		goto done;
	*key = sqlite3_last_insert_rowid(conn->db);
	if (node->vector)
		rc = set_vector(store, conn, *key, node->vector, err);
	if (!rc)
		rc = ruv_sqlite_event(store, conn, "add", *key, node, "", err);
done:
	ruv_buf_release(&tags);
	return rc;
}

int ruv_sqlite_node_replace(ruv_store *base, const ruv_memory_node *node, bool keep_vector, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	ruv_memory_node before;
	ruv_arena arena;
	ruv_buf tags, json;
	int64_t key = 0;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_writer(store, &rc, err);

	if (!conn)
		return rc;
	ruv_arena_init(&arena);
	ruv_buf_init(&tags, (size_t)RUV_MEMORY_MAX_TEXT);
	ruv_buf_init(&json, (size_t)RUV_MEMORY_MAX_TEXT * 16);
	rc = find_key(store, conn, node->id, &key, err);
	if (!rc)
		rc = ruv_sqlite_node_get(base, &arena, &before, node->id, err);
	if (rc)
		goto done;
	before.vector = NULL; /* the log keeps words; vectors can be made again from them */
	rc = ruv_json_node(&json, &before, 0);
	if (rc) {
		rc = ruv_fail(err, rc, "memory", "cannot keep the former state of node %s in the log", node->id);
		goto done;
	}
	stmt = ruv_sqlite_stmt(store, conn, SQL_NODE_UPDATE, &rc, err);
	if (!stmt)
		goto done;
	rc = tags_join(&tags, node, err);
	if (!rc)
		rc = bind_node(store, stmt, node, ruv_buf_cstr(&tags), err);
	if (rc) {
		ruv_sqlite_done(stmt);
		goto done;
	}
	rc = ruv_sqlite_run(store, conn, stmt, err);
	if (!rc && (node->vector || !keep_vector))
		rc = set_vector(store, conn, key, node->vector, err);
	if (!rc)
		rc = ruv_sqlite_event(store, conn, "update", key, node, ruv_buf_cstr(&json), err);
done:
	ruv_buf_release(&json);
	ruv_buf_release(&tags);
	ruv_arena_release(&arena);
	return rc;
}

/* Does the row of a key match its checksum? */
static int check_sound(ruv_sqlite *store, ruv_sqlite_conn *conn, int64_t key, bool *sound, ruv_error *err)
{
	ruv_memory_filter every = {.every_scope = true};
	ruv_memory_node node;
	ruv_arena arena;
	int rc = RUV_OK, code;
	int64_t same;
	sqlite3_stmt *stmt = ruv_sqlite_stmt(store, conn, SQL_NODE_BY_KEY, &rc, err);

	*sound = true;
	if (!stmt)
		return rc;
	ruv_arena_init(&arena);
	rc = ruv_sqlite_bind_filter(stmt, &every, 0, err); /* at time 0 nothing has expired */
	sqlite3_bind_int64(stmt, 13, key);
	code = rc ? SQLITE_DONE : sqlite3_step(stmt);
	if (code == SQLITE_ROW)
		rc = ruv_sqlite_read_node(&arena, &node, &same, sound, stmt, err);
	else if (code == SQLITE_DONE)
		*sound = rc != RUV_OK; /* the filter held it back: only a damaged confidence does that */
	else
		rc = ruv_sqlite_fail(store, conn->db, code, "reading a node", err);
	ruv_sqlite_done(stmt);
	ruv_arena_release(&arena);
	return rc;
}

/* Deletes the row of a key. Indexes and words of a damaged one were made of what it said before, so they are made anew. */
static int erase_key(ruv_sqlite *store, ruv_sqlite_conn *conn, int64_t key, const char *id, const char *why, bool sound,
                     ruv_error *err)
{
	ruv_memory_node node = {0};
	sqlite3_stmt *stmt;
	int rc = sound ? RUV_OK : ruv_sqlite_exec(store, conn, "REINDEX nodes; INSERT INTO words(words) VALUES('rebuild')", err);

	if (rc)
		return rc;
	stmt = ruv_sqlite_stmt(store, conn, SQL_NODE_DELETE, &rc, err);
	if (!stmt)
		return rc;
	sqlite3_bind_int64(stmt, 1, key);
	rc = ruv_sqlite_run(store, conn, stmt, err);
	if (rc)
		return rc;
	stmt = ruv_sqlite_stmt(store, conn, SQL_EVENT_SCRUB, &rc, err);
	if (!stmt)
		return rc;
	sqlite3_bind_int64(stmt, 1, key);
	rc = ruv_sqlite_run(store, conn, stmt, err);
	if (rc)
		return rc;
	snprintf(node.id, sizeof node.id, "%s", id);
	return ruv_sqlite_event(store, conn, why, key, id[0] ? &node : NULL, "", err);
}

int ruv_sqlite_node_erase(ruv_store *base, const char *id, const char *why, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	int64_t key = 0;
	bool sound = true;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_writer(store, &rc, err);

	if (!conn)
		return rc;
	rc = find_key(store, conn, id, &key, err);
	if (!rc)
		rc = check_sound(store, conn, key, &sound, err);
	return rc ? rc : erase_key(store, conn, key, id, why, sound, err);
}

int ruv_sqlite_expire(ruv_sqlite *store, ruv_error *err)
{
	char(*ids)[RUV_ID_SIZE] = NULL;
	int rc = RUV_OK, code, n = 0;
	sqlite3_stmt *stmt = ruv_sqlite_stmt(store, &store->writer, SQL_EXPIRED, &rc, err);

	if (!stmt)
		return rc;
	sqlite3_bind_int64(stmt, 1, store->tx_now_ms);
	while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
		if (!ids) {
			ids = calloc(1000, sizeof *ids);
			if (!ids) {
				rc = ruv_fail_memory(err, "memory", 1000 * sizeof *ids);
				break;
			}
		}
		ruv_sqlite_column_id(ids[n++], stmt, 0);
	}
	if (!rc && code != SQLITE_DONE)
		rc = ruv_sqlite_fail(store, store->writer.db, code, "looking for expired nodes", err);
	ruv_sqlite_done(stmt);
	for (int i = 0; !rc && i < n; i++)
		rc = ruv_sqlite_node_erase(&store->base, ids[i], "expire", err);
	free(ids);
	return rc;
}

int ruv_sqlite_node_move(ruv_store *base, const char *id, int first_line, int last_line, const float *vector, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	ruv_memory_node node;
	ruv_arena arena;
	ruv_buf tags;
	sqlite3_stmt *stmt;
	int64_t key = 0;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_writer(store, &rc, err);

	if (!conn)
		return rc;
	ruv_arena_init(&arena);
	ruv_buf_init(&tags, (size_t)RUV_MEMORY_MAX_TEXT);
	rc = find_key(store, conn, id, &key, err);
	if (!rc)
		rc = ruv_sqlite_node_get(base, &arena, &node, id, err);
	if (!rc && (node.first_line != first_line || node.last_line != last_line)) {
		node.first_line = first_line;
		node.last_line = last_line;
		rc = tags_join(&tags, &node, err);
		stmt = rc ? NULL : ruv_sqlite_stmt(store, conn, SQL_NODE_MOVE, &rc, err);
		if (stmt) {
			sqlite3_bind_int64(stmt, 1, key);
			sqlite3_bind_int(stmt, 2, first_line);
			sqlite3_bind_int(stmt, 3, last_line);
			sqlite3_bind_int64(stmt, 4, ruv_sqlite_node_digest(&node, ruv_buf_cstr(&tags)));
			rc = ruv_sqlite_run(store, conn, stmt, err);
		}
	}
	if (!rc && vector) {
		rc = set_vector(store, conn, key, vector, err);
		if (!rc)
			rc = ruv_sqlite_event(store, conn, "embed", key, &node, "", err);
	}
	ruv_buf_release(&tags);
	ruv_arena_release(&arena);
	return rc;
}

/* ---- reading ---- */

int ruv_sqlite_node_get(ruv_store *base, ruv_arena *arena, ruv_memory_node *node, const char *id, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	int64_t key = 0;
	bool sound = false;
	int rc = RUV_OK, code;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	if (!conn)
		return rc;
	stmt = ruv_sqlite_stmt(store, conn, SQL_NODE_GET, &rc, err);
	if (!stmt)
		goto done;
	rc = ruv_sqlite_bind_id(store, stmt, 1, id, err);
	if (!rc) {
		sqlite3_bind_int64(stmt, 2, ruv_clock_wall_ms());
		code = sqlite3_step(stmt);
		if (code == SQLITE_ROW)
			rc = ruv_sqlite_read_node(arena, node, &key, &sound, stmt, err);
		else if (code == SQLITE_DONE)
			rc = ruv_fail(err, RUV_ENOTFOUND, "memory", "no node %s", id);
		else
			rc = ruv_sqlite_fail(store, conn->db, code, "reading a node", err);
	}
	ruv_sqlite_done(stmt);
	if (!rc && !sound)
		rc = unsound(store, node, err);
	if (!rc)
		rc = read_vector(store, conn, arena, &node->vector, key, err);
done:
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

int ruv_sqlite_nodes_by_key(ruv_store *base, ruv_arena *arena, ruv_memory_node *nodes, bool *found, const int64_t *keys, int n,
                            const ruv_memory_filter *filter, bool with_vectors, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	int64_t now = ruv_clock_wall_ms(), key;
	sqlite3_stmt *stmt = NULL;
	bool sound = false, began;
	int rc = RUV_OK, code;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	if (!conn)
		return rc;
	rc = ruv_sqlite_begin_reading(store, conn, &began, err);
	if (!rc)
		stmt = ruv_sqlite_stmt(store, conn, SQL_NODE_BY_KEY, &rc, err);
	if (!stmt)
		goto done;
	rc = ruv_sqlite_bind_filter(stmt, filter, now, err);
	for (int i = 0; !rc && i < n; i++) {
		sqlite3_bind_int64(stmt, 13, keys[i]);
		code = sqlite3_step(stmt);
		found[i] = code == SQLITE_ROW;
		if (code == SQLITE_ROW) {
			rc = ruv_sqlite_read_node(arena, &nodes[i], &key, &sound, stmt, err);
			if (!rc && !sound)
				rc = unsound(store, &nodes[i], err);
			if (!rc && with_vectors)
				rc = read_vector(store, conn, arena, &nodes[i].vector, key, err);
		} else if (code != SQLITE_DONE) {
			rc = ruv_sqlite_fail(store, conn->db, code, "reading nodes", err);
		}
		sqlite3_reset(stmt);
	}
	ruv_sqlite_done(stmt);
done:
	rc = ruv_sqlite_end_reading(store, conn, began, rc, err);
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

/* The rows of a bound statement as an arena array. Damaged ones are RUV_ECORRUPT, or left out and counted. */
static int collect_nodes(ruv_sqlite *store, ruv_sqlite_conn *conn, ruv_arena *arena, ruv_memory_node **nodes, int *n,
                         int *n_damaged, sqlite3_stmt *stmt, bool with_vectors, ruv_error *err)
{
	ruv_memory_node *items = NULL;
	int cap = 0, count = 0, rc = RUV_OK, code;
	bool sound = false;
	int64_t key;

	while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
		if (count == cap) {
			int bigger = cap ? cap * 2 : 16;
			ruv_memory_node *grown = ruv_arena_calloc(arena, (size_t)bigger, sizeof *grown);
			if (!grown) {
				rc = ruv_fail_memory(err, "memory", (size_t)bigger * sizeof *grown);
				break;
			}
			if (count)
				memcpy(grown, items, (size_t)count * sizeof *items);
			items = grown;
			cap = bigger;
		}
		rc = ruv_sqlite_read_node(arena, &items[count], &key, &sound, stmt, err);
		if (!rc && !sound && n_damaged) {
			(*n_damaged)++;
			continue;
		}
		if (!rc && !sound)
			rc = unsound(store, &items[count], err);
		if (!rc && with_vectors)
			rc = read_vector(store, conn, arena, &items[count].vector, key, err);
		if (rc)
			break;
		count++;
	}
	if (!rc && code != SQLITE_DONE)
		rc = ruv_sqlite_fail(store, conn->db, code, "reading nodes", err);
	*nodes = items;
	*n = count;
	return rc;
}

int ruv_sqlite_node_list(ruv_store *base, ruv_arena *arena, ruv_memory_node **nodes, int *n, const ruv_memory_filter *filter,
                         bool without_vector, bool with_vectors, int offset, int limit, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	if (!conn)
		return rc;
	stmt = ruv_sqlite_stmt(store, conn, without_vector ? SQL_NODE_LIST_BARE : SQL_NODE_LIST, &rc, err);
	if (!stmt)
		goto done;
	rc = ruv_sqlite_bind_filter(stmt, filter, ruv_clock_wall_ms(), err);
	sqlite3_bind_int(stmt, 13, limit);
	sqlite3_bind_int(stmt, 14, offset);
	if (!rc)
		rc = collect_nodes(store, conn, arena, nodes, n, NULL, stmt, with_vectors, err);
	ruv_sqlite_done(stmt);
done:
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

int ruv_sqlite_source_nodes(ruv_store *base, ruv_arena *arena, ruv_memory_node **nodes, int *n, int *n_damaged,
                            const ruv_memory_source *which, bool with_vectors, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	if (!conn)
		return rc;
	stmt = ruv_sqlite_stmt(store, conn, SQL_SOURCE_NODES, &rc, err);
	if (!stmt)
		goto done;
	ruv_sqlite_bind_text(stmt, 1, which->name);
	ruv_sqlite_bind_text(stmt, 2, which->scope.user);
	ruv_sqlite_bind_text(stmt, 3, which->scope.agent);
	ruv_sqlite_bind_text(stmt, 4, which->scope.session);
	*n_damaged = 0;
	rc = collect_nodes(store, conn, arena, nodes, n, n_damaged, stmt, with_vectors, err);
	ruv_sqlite_done(stmt);
done:
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

int ruv_sqlite_source_mend(ruv_store *base, const ruv_memory_source *which, ruv_error *err)
{
	struct damaged {
		int64_t key;
		char id[RUV_ID_SIZE];
	} *list = NULL;
	ruv_sqlite *store = (ruv_sqlite *)base;
	size_t n = 0, cap = 0;
	ruv_memory_node node;
	sqlite3_stmt *stmt;
	ruv_arena arena;
	int rc = RUV_OK, code = SQLITE_DONE;
	ruv_sqlite_conn *conn;

	stmt = ruv_sqlite_write_stmt(store, SQL_SOURCE_NODES, &conn, &rc, err);
	if (!stmt)
		return rc;
	ruv_arena_init(&arena);
	ruv_sqlite_bind_text(stmt, 1, which->name);
	ruv_sqlite_bind_text(stmt, 2, which->scope.user);
	ruv_sqlite_bind_text(stmt, 3, which->scope.agent);
	ruv_sqlite_bind_text(stmt, 4, which->scope.session);
	while (!rc && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
		bool sound = true;
		int64_t key;

		rc = ruv_sqlite_read_node(&arena, &node, &key, &sound, stmt, err);
		if (!rc && !sound) {
			if (n == cap) {
				struct damaged *grown = realloc(list, (cap = cap ? cap * 2 : 16) * sizeof *list);

				if (!grown) {
					rc = ruv_fail_memory(err, "memory", cap * sizeof *list);
					break;
				}
				list = grown;
			}
			list[n].key = key;
			memcpy(list[n++].id, node.id, sizeof node.id);
		}
		ruv_arena_release(&arena);
	}
	if (!rc && code != SQLITE_DONE)
		rc = ruv_sqlite_fail(store, conn->db, code, "reading nodes", err);
	ruv_sqlite_done(stmt);
	for (size_t i = 0; !rc && i < n; i++) /* the first makes the indexes anew, for all */
		rc = erase_key(store, conn, list[i].key, list[i].id, "replace", i > 0, err);
	free(list);
	ruv_arena_release(&arena);
	return rc;
}

int ruv_sqlite_node_resolve(ruv_store *base, const char *part, char (*ids)[RUV_ID_SIZE], int limit, int *n, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	int rc = RUV_OK, code;
	ruv_sqlite_conn *conn = ruv_sqlite_reader(store, &rc, err);

	*n = 0;
	if (!conn)
		return rc;
	stmt = ruv_sqlite_stmt(store, conn, SQL_NODE_RESOLVE, &rc, err);
	if (!stmt)
		goto done;
	ruv_sqlite_bind_text(stmt, 1, part);
	sqlite3_bind_int64(stmt, 2, ruv_clock_wall_ms());
	sqlite3_bind_int(stmt, 3, limit);
	while ((code = sqlite3_step(stmt)) == SQLITE_ROW && *n < limit)
		ruv_sqlite_column_id(ids[(*n)++], stmt, 0);
	if (code != SQLITE_DONE && code != SQLITE_ROW)
		rc = ruv_sqlite_fail(store, conn->db, code, "looking for an id", err);
	ruv_sqlite_done(stmt);
done:
	ruv_sqlite_reader_done(store, conn);
	return rc;
}

/* ---- export ---- */

static int visit_nodes(ruv_sqlite *store, ruv_sqlite_conn *conn, const ruv_store_visitor *visitor, ruv_error *err)
{
	size_t vector_bytes = sizeof(float) * (size_t)atomic_load(&store->dimension);
	int rc = RUV_OK, code;
	ruv_arena arena;
	sqlite3_stmt *stmt = ruv_sqlite_stmt(store, conn, SQL_VISIT, &rc, err);

	if (!stmt)
		return rc;
	ruv_arena_init(&arena);
	sqlite3_bind_int64(stmt, 1, ruv_clock_wall_ms());
	while (!rc && (code = sqlite3_step(stmt)) != SQLITE_DONE) {
		ruv_memory_node node;
		bool sound = false;
		int64_t key;
		if (code != SQLITE_ROW) {
			rc = ruv_sqlite_fail(store, conn->db, code, "reading nodes", err);
			break;
		}
		rc = ruv_sqlite_read_node(&arena, &node, &key, &sound, stmt, err);
		if (!rc && !sound)
			rc = unsound(store, &node, err);
		if (!rc && sqlite3_column_type(stmt, 20) != SQLITE_NULL) {
			const void *data = sqlite3_column_blob(stmt, 20);
			size_t n = (size_t)sqlite3_column_bytes(stmt, 20);
			float *copy = n && n == vector_bytes ? ruv_arena_alloc(&arena, n) : NULL;
			if (!copy || ruv_sqlite_vector_digest(data, n) != sqlite3_column_int64(stmt, 21))
				rc = ruv_fail(
				    err, RUV_ECORRUPT, "memory",
				    "%s: the vector of node %s fails its checksum; `ruvllm memory verify --repair` drops it",
				    store->path, node.id);
			else
				node.vector = memcpy(copy, data, n);
		}
		if (!rc)
			rc = visitor->node(visitor->user, &node, err);
		ruv_arena_release(&arena);
	}
	ruv_sqlite_done(stmt);
	ruv_arena_release(&arena);
	return rc;
}

int ruv_sqlite_visit(ruv_store *base, const ruv_store_visitor *visitor, ruv_error *err)
{
	ruv_sqlite *store = (ruv_sqlite *)base;
	sqlite3_stmt *stmt;
	ruv_arena arena;
	int rc = RUV_OK;
	ruv_sqlite_conn *conn = ruv_sqlite_committed(store, &rc, err);

	if (!conn)
		return rc;
	ruv_arena_init(&arena);
	stmt = ruv_sqlite_stmt(store, conn, SQL_BEGIN_READ, &rc, err);
	if (stmt)
		rc = ruv_sqlite_run(store, conn, stmt, err);
	if (!rc)
		rc = ruv_sqlite_visit_sources(store, conn, &arena, visitor, err);
	if (!rc)
		rc = visit_nodes(store, conn, visitor, err);
	if (!rc)
		rc = ruv_sqlite_visit_edges(store, conn, &arena, visitor, err);
	if (!sqlite3_get_autocommit(conn->db)) {
		ruv_error late = {0};
		int other = RUV_OK;
		stmt = ruv_sqlite_stmt(store, conn, SQL_COMMIT, &other, &late);
		if (stmt)
			other = ruv_sqlite_run(store, conn, stmt, &late);
		if (!rc && other)
			rc = ruv_fail(err, other, "memory", "%s", late.message);
	}
	ruv_arena_release(&arena);
	ruv_sqlite_reader_done(store, conn);
	return rc;
}
