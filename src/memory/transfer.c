/* transfer.c - export to and import from JSON lines; jsonl.h has their form.
 *
 * Import trusts nothing: every line goes through the same checks as a node from a program, unknown keys are refused by name, so
 * that nothing is lost silently. Layer: memory. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "base/uuid.h"
#include "memory/jsonl.h"
#include "memory/memory_impl.h"

enum { LINES_OF_A_TRANSACTION = 4096, MAX_LINE = 1 << 24 };

/* ---- export ---- */

typedef struct exporter {
	FILE *out;
	ruv_buf line;
	int dimension; /* 0: without vectors */
	ruv_memory_transfer done;
} exporter;

static int put_line(exporter *e, int rc, ruv_error *err)
{
	if (!rc)
		rc = ruv_buf_putc(&e->line, '\n');
	if (rc)
		return ruv_fail(err, rc, "memory", "a line of the export is too long");
	if (fwrite(e->line.data, 1, e->line.len, e->out) != e->line.len)
		return ruv_fail_errno(err, RUV_EIO, errno, "memory", "cannot write the export");
	ruv_buf_clear(&e->line);
	return RUV_OK;
}

static int export_source(void *user, const ruv_memory_source *source, ruv_error *err)
{
	exporter *e = user;

	e->done.n_sources++;
	return put_line(e, ruv_json_source(&e->line, source), err);
}

static int export_forgotten(void *user, const ruv_memory_source *which, int64_t hash, ruv_error *err)
{
	exporter *e = user;

	return put_line(e, ruv_json_forgotten(&e->line, which, hash), err);
}

static int export_node(void *user, const ruv_memory_node *node, ruv_error *err)
{
	exporter *e = user;

	e->done.n_nodes++;
	return put_line(e, ruv_json_node(&e->line, node, e->dimension), err);
}

static int export_edge(void *user, const ruv_memory_edge *edge, ruv_error *err)
{
	exporter *e = user;

	e->done.n_edges++;
	return put_line(e, ruv_json_edge(&e->line, edge), err);
}

int ruv_memory_export(ruv_memory *m, FILE *out, bool without_vectors, ruv_memory_transfer *done, ruv_error *err)
{
	exporter e = {.out = out};
	ruv_store_visitor visitor = {&e, export_source, export_node, export_edge, export_forgotten};
	const char *id, *version;
	int dimension, rc;

	ruv_buf_init(&e.line, (size_t)MAX_LINE * 2);
	ruv_memory_embedder(m, &id, &version, &dimension);
	e.dimension = without_vectors ? 0 : dimension;
	ruv_buf_puts(&e.line, "{\"kind\":\"ruvllm-memory\",\"format\":1,\"embedder\":");
	ruv_jsonl_string(&e.line, without_vectors ? "" : id);
	ruv_buf_puts(&e.line, ",\"embedder_version\":");
	ruv_jsonl_string(&e.line, without_vectors ? "" : version);
	ruv_buf_printf(&e.line, ",\"dimension\":%d}", e.dimension);
	rc = put_line(&e, e.line.failed, err);
	if (!rc)
		rc = m->store->ops->visit(m->store, &visitor, err);
	ruv_buf_release(&e.line);
	if (!rc && done)
		*done = e.done;
	return rc;
}

/* ---- import ---- */

typedef struct importer {
	ruv_memory *m;
	ruv_arena arena; /* of one line */
	bool without_vectors, seen_header;
	int dimension;
	int64_t now_ms;
	ruv_memory_transfer done, committed;
} importer;

/* The members of an object that a kind of line may have; the rest is refused. */
static int check_keys(json_t *object, const char *const *keys, ruv_error *err)
{
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value)
	{
		int i = 0;
		while (keys[i] && strcmp(keys[i], key))
			i++;
		if (!keys[i])
			return ruv_fail(err, RUV_EFORMAT, "memory", "'%.40s' is no member of such a line", key);
	}
	return RUV_OK;
}

static int get_text(json_t *object, const char *key, const char **text, ruv_error *err)
{
	json_t *value = json_object_get(object, key);

	*text = "";
	if (!value)
		return RUV_OK;
	if (!json_is_string(value))
		return ruv_fail(err, RUV_EFORMAT, "memory", "'%s' is not a string", key);
	*text = json_string_value(value);
	if (strlen(*text) != json_string_length(value))
		return ruv_fail(err, RUV_EFORMAT, "memory", "'%s' holds a NUL", key);
	return RUV_OK;
}

static int get_id(json_t *object, const char *key, char id[RUV_ID_SIZE], ruv_error *err)
{
	const char *text;
	int rc = get_text(object, key, &text, err);

	if (!rc)
		rc = ruv_id_check(id, text, err);
	return rc;
}

static int get_int(json_t *object, const char *key, int64_t least, int64_t most, int64_t *number, ruv_error *err)
{
	json_t *value = json_object_get(object, key);

	*number = 0;
	if (!value)
		return RUV_OK;
	if (!json_is_integer(value) || json_integer_value(value) < least || json_integer_value(value) > most)
		return ruv_fail(err, RUV_EFORMAT, "memory", "'%s' is not a whole number in [%lld, %lld]", key, (long long)least,
		                (long long)most);
	*number = json_integer_value(value);
	return RUV_OK;
}

static int get_float(json_t *object, const char *key, float *number, ruv_error *err)
{
	json_t *value = json_object_get(object, key);

	*number = 0;
	if (!value)
		return RUV_OK;
	if (!json_is_number(value))
		return ruv_fail(err, RUV_EFORMAT, "memory", "'%s' is not a number", key);
	*number = (float)json_number_value(value);
	return RUV_OK;
}

static int get_scope(json_t *object, ruv_memory_scope *scope, ruv_error *err)
{
	int rc = get_text(object, "user", &scope->user, err);

	if (!rc)
		rc = get_text(object, "agent", &scope->agent, err);
	if (!rc)
		rc = get_text(object, "session", &scope->session, err);
	return rc;
}

static int get_tags(importer *in, json_t *object, ruv_memory_node *node, ruv_error *err)
{
	json_t *value = json_object_get(object, "tags");
	const char **tags;

	if (!value)
		return RUV_OK;
	if (!json_is_array(value) || json_array_size(value) > RUV_MEMORY_MAX_TAGS)
		return ruv_fail(err, RUV_EFORMAT, "memory", "'tags' is not an array of at most %d strings", RUV_MEMORY_MAX_TAGS);
	tags = ruv_arena_calloc(&in->arena, json_array_size(value) + 1, sizeof *tags);
	if (!tags)
		return ruv_fail_memory(err, "memory", json_array_size(value) * sizeof *tags);
	for (size_t i = 0; i < json_array_size(value); i++) {
		json_t *tag = json_array_get(value, i);
		if (!json_is_string(tag) || strlen(json_string_value(tag)) != json_string_length(tag))
			return ruv_fail(err, RUV_EFORMAT, "memory", "'tags' holds something that is not a text");
		tags[i] = json_string_value(tag);
	}
	node->tags = tags;
	node->n_tags = (int)json_array_size(value);
	return RUV_OK;
}

static int get_vector(importer *in, json_t *object, ruv_memory_node *node, ruv_error *err)
{
	json_t *value = json_object_get(object, "vector");
	float *vector;

	if (!value || in->without_vectors)
		return RUV_OK;
	if (!json_is_array(value) || (int64_t)json_array_size(value) != in->dimension)
		return ruv_fail(err, in->dimension ? RUV_EFORMAT : RUV_EMISMATCH, "memory",
		                "'vector' has %zu numbers, %d are expected", json_array_size(value), in->dimension);
	vector = ruv_arena_alloc(&in->arena, sizeof *vector * (size_t)in->dimension);
	if (!vector)
		return ruv_fail_memory(err, "memory", sizeof *vector * (size_t)in->dimension);
	for (int i = 0; i < in->dimension; i++) {
		json_t *number = json_array_get(value, (size_t)i);
		if (!json_is_number(number))
			return ruv_fail(err, RUV_EFORMAT, "memory", "number %d of 'vector' is none", i);
		vector[i] = (float)json_number_value(number);
	}
	node->vector = vector;
	return RUV_OK;
}

static int get_meta(importer *in, json_t *object, ruv_memory_node *node, ruv_error *err)
{
	json_t *value = json_object_get(object, "meta");
	char *text;

	if (!value)
		return RUV_OK;
	text = json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(17) | JSON_ENCODE_ANY);
	node->meta = text ? ruv_arena_strndup(&in->arena, text, strlen(text)) : NULL;
	free(text);
	return node->meta ? RUV_OK : ruv_fail_memory(err, "memory", MAX_LINE);
}

static int import_node(importer *in, json_t *line, ruv_error *err)
{
	static const char *const keys[] = {"kind",      "id",         "type",       "text",       "title", "source",  "first_line",
	                                   "last_line", "tags",       "domain",     "user",       "agent", "session", "confidence",
	                                   "version",   "created_ms", "updated_ms", "expires_ms", "meta",  "vector",  NULL};
	ruv_memory_node node = {0}, there;
	const char *type;
	int64_t number, key;
	int rc = check_keys(line, keys, err);

	if (!rc)
		rc = json_object_get(line, "id") ? get_id(line, "id", node.id, err) : RUV_OK;
	if (!rc)
		rc = get_text(line, "type", &type, err);
	if (!rc)
		rc = ruv_node_type_parse(&node.type, type, err);
	if (!rc)
		rc = get_text(line, "text", &node.text, err);
	if (!rc)
		rc = get_text(line, "title", &node.title, err);
	if (!rc)
		rc = get_text(line, "source", &node.source, err);
	if (!rc)
		rc = get_text(line, "domain", &node.domain, err);
	if (!rc)
		rc = get_scope(line, &node.scope, err);
	if (!rc)
		rc = get_tags(in, line, &node, err);
	if (!rc)
		rc = get_vector(in, line, &node, err);
	if (!rc)
		rc = get_meta(in, line, &node, err);
	if (!rc)
		rc = get_float(line, "confidence", &node.confidence, err);
	if (!rc && !(rc = get_int(line, "first_line", 0, INT32_MAX, &number, err)))
		node.first_line = (int)number;
	if (!rc && !(rc = get_int(line, "last_line", 0, INT32_MAX, &number, err)))
		node.last_line = (int)number;
	if (!rc && !(rc = get_int(line, "version", 0, INT32_MAX, &number, err)))
		node.version = (int)number;
	if (!rc)
		rc = get_int(line, "created_ms", 0, INT64_MAX, &node.created_ms, err);
	if (!rc)
		rc = get_int(line, "updated_ms", 0, INT64_MAX, &node.updated_ms, err);
	if (!rc)
		rc = get_int(line, "expires_ms", 0, INT64_MAX, &node.expires_ms, err);
	if (!rc)
		rc = ruv_node_check(&node, &in->arena, in->dimension, in->now_ms, err);
	if (rc)
		return rc;
	if (node.id[0]) {
		ruv_error ignored;
		rc = in->m->store->ops->node_get(in->m->store, &in->arena, &there, node.id, &ignored);
		if (!rc) {
			in->done.n_skipped++;
			return RUV_OK;
		}
		if (rc != RUV_ENOTFOUND)
			return ruv_fail(err, rc, "memory", "%s", ignored.message);
	} else {
		ruv_uuid_format(ruv_uuid_make(), node.id);
	}
	rc = in->m->store->ops->node_put(in->m->store, &node, &key, err);
	in->done.n_nodes += !rc;
	return rc;
}

static int import_edge(importer *in, json_t *line, ruv_error *err)
{
	static const char *const keys[] = {"kind",   "id",         "src",        "dst",        "type",
	                                   "weight", "confidence", "created_ms", "created_by", NULL};
	ruv_memory_edge edge = {0};
	const char *type;
	int rc = check_keys(line, keys, err);

	if (!rc)
		rc = json_object_get(line, "id") ? get_id(line, "id", edge.id, err) : RUV_OK;
	if (!rc)
		rc = get_id(line, "src", edge.src, err);
	if (!rc)
		rc = get_id(line, "dst", edge.dst, err);
	if (!rc)
		rc = get_text(line, "type", &type, err);
	if (!rc)
		rc = ruv_edge_type_parse(&edge.type, type, err);
	if (!rc)
		rc = get_float(line, "weight", &edge.weight, err);
	if (!rc)
		rc = get_float(line, "confidence", &edge.confidence, err);
	if (!rc)
		rc = get_int(line, "created_ms", 0, INT64_MAX, &edge.created_ms, err);
	if (!rc)
		rc = get_text(line, "created_by", &edge.created_by, err);
	if (!rc)
		rc = ruv_edge_check(&edge, in->now_ms, err);
	if (!rc)
		rc = in->m->store->ops->edge_put(in->m->store, &edge, err);
	in->done.n_edges += !rc;
	return rc;
}

static int import_source(importer *in, json_t *line, ruv_error *err)
{
	static const char *const keys[] = {"kind",    "name",       "hash",        "user",          "agent",
	                                   "session", "size_bytes", "modified_ms", "remembered_ms", NULL};
	ruv_memory_source source = {0}, there;
	ruv_error ignored;
	int rc = check_keys(line, keys, err);

	if (!rc)
		rc = get_text(line, "name", &source.name, err);
	if (!rc)
		rc = get_text(line, "hash", &source.hash, err);
	if (!rc)
		rc = get_scope(line, &source.scope, err);
	if (!rc)
		rc = get_int(line, "size_bytes", 0, INT64_MAX, &source.size_bytes, err);
	if (!rc)
		rc = get_int(line, "modified_ms", INT64_MIN, INT64_MAX, &source.modified_ms, err);
	if (!rc)
		rc = get_int(line, "remembered_ms", 0, INT64_MAX, &source.remembered_ms, err);
	if (!rc && !*source.name)
		rc = ruv_fail(err, RUV_EFORMAT, "memory", "a source without a name");
	if (rc)
		return rc;
	if (!in->m->store->ops->source_get(in->m->store, &in->arena, &there, &source, &ignored)) {
		in->done.n_skipped++;
		return RUV_OK;
	}
	rc = in->m->store->ops->source_put(in->m->store, &source, err);
	in->done.n_sources += !rc;
	return rc;
}

static int import_forgotten(importer *in, json_t *line, ruv_error *err)
{
	static const char *const keys[] = {"kind", "name", "user", "agent", "session", "hash", NULL};
	ruv_memory_source which = {0};
	int64_t hash = 0;
	int rc = check_keys(line, keys, err);

	if (!rc)
		rc = get_text(line, "name", &which.name, err);
	if (!rc)
		rc = get_scope(line, &which.scope, err);
	if (!rc)
		rc = get_int(line, "hash", INT64_MIN, INT64_MAX, &hash, err);
	if (!rc && (!*which.name || !json_object_get(line, "hash")))
		rc = ruv_fail(err, RUV_EFORMAT, "memory", "a forgotten passage without its source's name or its hash");
	return rc ? rc : in->m->store->ops->forgotten_put(in->m->store, &which, hash, err);
}

static int import_header(importer *in, json_t *line, ruv_error *err)
{
	static const char *const keys[] = {"kind", "format", "embedder", "embedder_version", "dimension", NULL};
	ruv_store_embedder theirs = {0}, ours;
	const char *id, *version;
	int64_t format, dimension;
	int rc = check_keys(line, keys, err), have;

	if (!rc)
		rc = get_int(line, "format", 0, INT32_MAX, &format, err);
	if (!rc && format != 1)
		rc = ruv_fail(err, RUV_EUNSUPPORTED, "memory", "format %lld of the export is not known here", (long long)format);
	if (!rc)
		rc = get_text(line, "embedder", &theirs.id, err);
	if (!rc)
		rc = get_text(line, "embedder_version", &theirs.version, err);
	if (!rc)
		rc = get_int(line, "dimension", 0, RUV_MEMORY_MAX_DIMENSION, &dimension, err);
	if (rc)
		return rc;
	theirs.dimension = (int)dimension;
	in->seen_header = true;
	if (in->without_vectors || !theirs.dimension)
		return RUV_OK;
	ruv_memory_embedder(in->m, &id, &version, &have);
	if (!have && !*id) {
		rc = in->m->store->ops->set_embedder(in->m->store, &theirs, err);
		if (rc)
			return rc;
		in->dimension = theirs.dimension;
		pthread_mutex_lock(&in->m->embedder_lock);
		rc = in->m->store->ops->embedder(in->m->store, &in->m->arena, &in->m->embedder, err);
		pthread_mutex_unlock(&in->m->embedder_lock);
		return rc;
	}
	ours = (ruv_store_embedder){id, version, have};
	if (strcmp(ours.id, theirs.id) || ours.dimension != theirs.dimension ||
	    (*ours.version && *theirs.version && strcmp(ours.version, theirs.version)))
		return ruv_fail(err, RUV_EMISMATCH, "memory",
		                "the export's vectors are from embedder '%s' (version '%s', %d numbers), the memory's from '%s' "
		                "('%s', %d): import "
		                "without vectors and embed the texts anew",
		                theirs.id, theirs.version, theirs.dimension, ours.id, ours.version, ours.dimension);
	return RUV_OK;
}

static int import_line(importer *in, const char *text, size_t n, ruv_error *err)
{
	json_error_t why;
	json_t *line = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
	const char *kind = "";
	int rc;

	if (!line)
		return ruv_fail(err, RUV_EFORMAT, "memory", "not JSON: %s (column %d)", why.text, why.column);
	rc = json_is_object(line) ? get_text(line, "kind", &kind, err) : ruv_fail(err, RUV_EFORMAT, "memory", "not a JSON object");
	if (!rc && !in->seen_header && strcmp(kind, "ruvllm-memory"))
		rc = ruv_fail(err, RUV_EFORMAT, "memory", "the first line must be the export's header (kind 'ruvllm-memory')");
	else if (!rc && !strcmp(kind, "node"))
		rc = import_node(in, line, err);
	else if (!rc && !strcmp(kind, "edge"))
		rc = import_edge(in, line, err);
	else if (!rc && !strcmp(kind, "source"))
		rc = import_source(in, line, err);
	else if (!rc && !strcmp(kind, "forgotten"))
		rc = import_forgotten(in, line, err);
	else if (!rc && !strcmp(kind, "ruvllm-memory"))
		rc = import_header(in, line, err);
	else if (!rc)
		rc = ruv_fail(err, RUV_EFORMAT, "memory", "kind '%.40s' is not known", kind);
	json_decref(line);
	ruv_arena_release(&in->arena);
	return rc;
}

int ruv_memory_import(ruv_memory *m, FILE *file, const char *name, bool without_vectors, ruv_memory_transfer *done, ruv_error *err)
{
	importer in = {.m = m, .without_vectors = without_vectors, .now_ms = ruv_clock_wall_ms()};
	char *line = NULL;
	size_t cap = 0;
	int64_t number = 0;
	bool in_tx = false, ended = false;
	int rc = RUV_OK;

	ruv_arena_init(&in.arena);
	ruv_memory_embedder(m, NULL, NULL, &in.dimension);
	while (!rc && !ended) {
		ssize_t n = getline(&line, &cap, file);
		ended = n < 0;
		if (n < 0 && ferror(file))
			rc = ruv_fail_errno(err, RUV_EIO, errno, "memory", "cannot read '%s'", name);
		if (in_tx && !rc && (ended || number % LINES_OF_A_TRANSACTION == 0)) {
			in_tx = false;
			rc = ruv_memory_commit(m, err);
			if (!rc)
				in.committed = in.done;
		}
		if (rc || ended)
			break;
		number++;
		if (!in_tx) {
			rc = m->store->ops->begin(m->store, err);
			in_tx = !rc;
		}
		if (!rc && n > MAX_LINE)
			rc = ruv_fail(err, RUV_ELIMIT, "memory", "%zd bytes, at most %d are allowed", n, MAX_LINE);
		if (!rc && n > 0 && strspn(line, " \t\r\n") != (size_t)n)
			rc = import_line(&in, line, (size_t)n, err);
		if (rc)
			ruv_error_prefix(err, rc, "%s, line %lld: ", name, (long long)number);
	}
	if (in_tx)
		m->store->ops->rollback(m->store);
	if (!rc && !in.seen_header)
		rc = ruv_fail(err, RUV_EFORMAT, "memory", "'%s' is empty: no export", name);
	if (done)
		*done = in.committed;
	free(line);
	ruv_arena_release(&in.arena);
	return rc;
}
