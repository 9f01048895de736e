/* memory.c - opening a memory, its nodes, and keeping the vectors in memory in step with the store.
 *
 * Invariants
 * - What comes in is checked here once (lengths, UTF-8, ranges, finite vectors); the store below takes it as it is.
 * - The vector index is derived from the store's event log in one way only (ruv_memory_sync), for this process's writes and
 *   others'. A write that returned has been applied before it returned, if the index is loaded.
 * Threads: see memory.h. Layer: memory. */
#include "ruvllm/memory.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/status.h"
#include "base/uuid.h"
#include "memory/memory_impl.h"

/* ---- names ---- */

static const char *const node_names[] = {
#define X(code, value, name) [value] = name,
    RUV_NODE_TYPE_LIST(X)
#undef X
};

static const char *const edge_names[] = {
#define X(code, value, name) [value] = name,
    RUV_EDGE_TYPE_LIST(X)
#undef X
};

const char *ruv_node_type_name(int type)
{
	return type >= 0 && type < RUV_N_NODE_TYPES ? node_names[type] : "?";
}

const char *ruv_edge_type_name(int type)
{
	return type >= 0 && type < RUV_N_EDGE_TYPES ? edge_names[type] : "?";
}

static int parse_name(const char *const *names, int n, const char *what, const char *text, ruv_error *err)
{
	char list[160] = "";

	for (int i = 0; i < n; i++) {
		const char *a = names[i], *b = text;
		while (*a && *b) {
			if (*b == '_' || *b == '-') {
				b++;
				continue;
			}
			if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
				break;
			a++;
			b++;
		}
		if (!*a && !*b)
			return i;
		snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", names[i]);
	}
	return ruv_fail(err, RUV_EINVAL, "memory", "'%s' is no type of %s; there are %s", text, what, list);
}

int ruv_node_type_parse(ruv_node_type *type, const char *name, ruv_error *err)
{
	int i = parse_name(node_names, RUV_N_NODE_TYPES, "node", name, err);

	if (i < 0)
		return i;
	*type = (ruv_node_type)i;
	return RUV_OK;
}

int ruv_edge_type_parse(ruv_edge_type *type, const char *name, ruv_error *err)
{
	int i = parse_name(edge_names, RUV_N_EDGE_TYPES, "edge", name, err);

	if (i < 0)
		return i;
	*type = (ruv_edge_type)i;
	return RUV_OK;
}

/* ---- checking what comes in ---- */

static bool valid_utf8(const char *text, size_t n)
{
	const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text;

	while (n) {
		utf8proc_int32_t c;
		utf8proc_ssize_t step;
		if (*p < 0x80) {
			p++;
			n--;
			continue;
		}
		step = utf8proc_iterate(p, (utf8proc_ssize_t)n, &c);
		if (step <= 0)
			return false;
		p += step;
		n -= (size_t)step;
	}
	return true;
}

static int check_text(const char *what, const char *text, size_t max, ruv_error *err)
{
	size_t n = text ? strlen(text) : 0;

	if (n > max)
		return ruv_fail(err, RUV_ELIMIT, "memory", "the %s has %zu bytes, at most %zu are allowed", what, n, max);
	if (n && !valid_utf8(text, n))
		return ruv_fail(err, RUV_EFORMAT, "memory", "the %s is not valid UTF-8", what);
	return RUV_OK;
}

static int check_scope(const ruv_memory_scope *scope, ruv_error *err)
{
	int rc = check_text("user", scope->user, RUV_MEMORY_MAX_LABEL, err);

	if (!rc)
		rc = check_text("agent", scope->agent, RUV_MEMORY_MAX_LABEL, err);
	if (!rc)
		rc = check_text("session", scope->session, RUV_MEMORY_MAX_LABEL, err);
	return rc;
}

static int check_tag(const char *tag, ruv_error *err)
{
	int rc = check_text("tag", tag, RUV_MEMORY_MAX_LABEL, err);

	if (rc)
		return rc;
	if (!tag || !*tag)
		return ruv_fail(err, RUV_EINVAL, "memory", "a tag is empty");
	for (const char *p = tag; *p; p++)
		if ((unsigned char)*p < 0x20)
			return ruv_fail(err, RUV_EINVAL, "memory", "tag '%.40s' holds a control character", tag);
	return RUV_OK;
}

int ruv_id_check(char out[RUV_ID_SIZE], const char *id, ruv_error *err)
{
	ruv_uuid uuid;
	int rc = ruv_uuid_parse(&uuid, id ? id : "", err);

	if (!rc)
		ruv_uuid_format(uuid, out);
	return rc;
}

int ruv_vector_check(const float *vector, int dimension, ruv_error *err)
{
	double norm = 0;

	for (int i = 0; i < dimension; i++) {
		if (!isfinite(vector[i]))
			return ruv_fail(err, RUV_EINVAL, "memory", "number %d of the vector is not finite", i);
		norm += (double)vector[i] * vector[i];
	}
	/* The length is squared in double: neither the largest nor the smallest floats lose it. */
	return norm > 0 ? RUV_OK : ruv_fail(err, RUV_EINVAL, "memory", "the vector is all zeros: it has no direction");
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_tags(ruv_memory_node *node, ruv_arena *arena, ruv_error *err)
{
	const char **tags;
	int kept = 0;

	if (node->n_tags < 0 || node->n_tags > RUV_MEMORY_MAX_TAGS)
		return ruv_fail(err, RUV_ELIMIT, "memory", "%d tags, at most %d are allowed", node->n_tags, RUV_MEMORY_MAX_TAGS);
	if (!node->n_tags)
		return RUV_OK;
	tags = ruv_arena_calloc(arena, (size_t)node->n_tags, sizeof *tags);
	if (!tags)
		return ruv_fail_memory(err, "memory", (size_t)node->n_tags * sizeof *tags);
	for (int i = 0; i < node->n_tags; i++) {
		int rc = check_tag(node->tags[i], err);
		if (rc)
			return rc;
		tags[i] = node->tags[i];
	}
	qsort(tags, (size_t)node->n_tags, sizeof *tags, by_text);
	for (int i = 0; i < node->n_tags; i++)
		if (!i || strcmp(tags[i], tags[kept - 1]))
			tags[kept++] = tags[i];
	node->tags = tags;
	node->n_tags = kept;
	return RUV_OK;
}

/* One JSON object, written compactly on one line. */
static int check_meta(ruv_memory_node *node, ruv_arena *arena, ruv_error *err)
{
	json_error_t why;
	json_t *json;
	char *text;

	if (!node->meta || !*node->meta)
		return RUV_OK;
	if (strlen(node->meta) > RUV_MEMORY_MAX_TEXT)
		return ruv_fail(err, RUV_ELIMIT, "memory", "meta has %zu bytes, at most %d are allowed", strlen(node->meta),
		                RUV_MEMORY_MAX_TEXT);
	json = json_loads(node->meta, JSON_REJECT_DUPLICATES, &why);
	if (!json)
		return ruv_fail(err, RUV_EFORMAT, "memory", "meta is not JSON: %s (line %d, column %d)", why.text, why.line,
		                why.column);
	if (!json_is_object(json)) {
		json_decref(json);
		return ruv_fail(err, RUV_EINVAL, "memory", "meta must be a JSON object");
	}
	text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(17));
	json_decref(json);
	node->meta = text ? ruv_arena_strndup(arena, text, strlen(text)) : NULL;
	free(text);
	return node->meta ? RUV_OK : ruv_fail_memory(err, "memory", RUV_MEMORY_MAX_TEXT);
}

int ruv_node_check(ruv_memory_node *node, ruv_arena *arena, int dimension, int64_t now_ms, ruv_error *err)
{
	int rc;

	if ((unsigned)node->type >= RUV_N_NODE_TYPES)
		return ruv_fail(err, RUV_EINVAL, "memory", "%d is no type of node", (int)node->type);
	if (!node->text || !*node->text)
		return ruv_fail(err, RUV_EINVAL, "memory", "the text is empty");
	rc = check_text("text", node->text, RUV_MEMORY_MAX_TEXT, err);
	if (!rc)
		rc = check_text("title", node->title, RUV_MEMORY_MAX_LABEL, err);
	if (!rc)
		rc = check_text("source", node->source, RUV_MEMORY_MAX_LABEL, err);
	if (!rc)
		rc = check_text("domain", node->domain, RUV_MEMORY_MAX_LABEL, err);
	if (!rc)
		rc = check_scope(&node->scope, err);
	if (!rc)
		rc = check_tags(node, arena, err);
	if (!rc)
		rc = check_meta(node, arena, err);
	if (!rc && node->vector) {
		if (!dimension)
			rc = ruv_fail(err, RUV_EMISMATCH, "memory",
			              "the memory has no embedder yet: open it with one to store vectors");
		else
			rc = ruv_vector_check(node->vector, dimension, err);
	}
	if (rc)
		return rc;
	if (node->confidence == 0)
		node->confidence = 1;
	if (!(node->confidence > 0 && node->confidence <= 1))
		return ruv_fail(err, RUV_EINVAL, "memory", "confidence %g is not in (0, 1]", (double)node->confidence);
	if (node->first_line < 0 || node->last_line < 0 || (node->last_line && node->last_line < node->first_line))
		return ruv_fail(err, RUV_EINVAL, "memory", "lines %d to %d are none", node->first_line, node->last_line);
	if (node->version == 0)
		node->version = 1;
	if (node->version < 0 || node->created_ms < 0 || node->updated_ms < 0 || node->expires_ms < 0)
		return ruv_fail(err, RUV_EINVAL, "memory", "version and times cannot be negative");
	if (!node->created_ms)
		node->created_ms = now_ms;
	if (!node->updated_ms)
		node->updated_ms = node->created_ms;
	return RUV_OK;
}

int ruv_filter_check(ruv_memory_filter *out, const ruv_memory_filter *filter, ruv_error *err)
{
	static const ruv_memory_filter none;
	int rc;

	*out = filter ? *filter : none;
	if (out->domain && !*out->domain)
		out->domain = NULL;
	if (out->source && !*out->source)
		out->source = NULL;
	if (out->n_tags < 0 || out->n_tags > RUV_MEMORY_MAX_TAGS)
		return ruv_fail(err, RUV_ELIMIT, "memory", "%d tags to filter by, at most %d are allowed", out->n_tags,
		                RUV_MEMORY_MAX_TAGS);
	for (int i = 0; i < out->n_tags; i++) {
		rc = check_tag(out->tags[i], err);
		if (rc)
			return rc;
	}
	rc = check_scope(&out->scope, err);
	if (!rc)
		rc = check_text("domain", out->domain, RUV_MEMORY_MAX_LABEL, err);
	if (!rc)
		rc = check_text("source", out->source, RUV_MEMORY_MAX_LABEL, err);
	if (!rc && !(out->min_confidence >= 0 && out->min_confidence <= 1))
		rc = ruv_fail(err, RUV_EINVAL, "memory", "least confidence %g is not in [0, 1]", (double)out->min_confidence);
	return rc;
}

static bool scope_sees(const char *reader, const char *node)
{
	return !node || !*node || (reader && !strcmp(reader, node));
}

bool ruv_filter_pass(const ruv_memory_filter *f, const ruv_memory_node *node)
{
	if (!f->every_scope && !(scope_sees(f->scope.user, node->scope.user) && scope_sees(f->scope.agent, node->scope.agent) &&
	                         scope_sees(f->scope.session, node->scope.session)))
		return false;
	if ((f->types && !(f->types >> node->type & 1)) || (f->domain && strcmp(f->domain, node->domain ? node->domain : "")) ||
	    (f->source && strcmp(f->source, node->source ? node->source : "")))
		return false;
	if ((f->created_from_ms && node->created_ms < f->created_from_ms) ||
	    (f->created_to_ms && node->created_ms > f->created_to_ms) || node->confidence < f->min_confidence)
		return false;
	for (int i = 0; i < f->n_tags; i++) {
		bool has = false;
		for (int j = 0; j < node->n_tags && !has; j++)
			has = !strcmp(f->tags[i], node->tags[j]);
		if (!has)
			return false;
	}
	return true;
}

/* ---- results ---- */

ruv_arena *ruv_memory_arena(ruv_error *err)
{
	ruv_arena *arena = malloc(sizeof *arena);

	if (arena)
		ruv_arena_init(arena);
	else
		ruv_fail_memory(err, "memory", sizeof *arena);
	return arena;
}

void ruv_memory_arena_free(void *owner)
{
	if (owner)
		ruv_arena_release(owner);
	free(owner);
}

void ruv_memory_nodes_release(ruv_memory_nodes *nodes)
{
	ruv_memory_arena_free(nodes->owner);
	memset(nodes, 0, sizeof *nodes);
}

/* ---- opening ---- */

static bool same_text(const char *a, const char *b)
{
	return !strcmp(a ? a : "", b ? b : "");
}

static int check_options(const ruv_memory_options *o, ruv_error *err)
{
	int rc = check_text("embedder's id", o->embedder_id, RUV_MEMORY_MAX_LABEL, err);

	if (!rc)
		rc = check_text("embedder's version", o->embedder_version, RUV_MEMORY_MAX_LABEL, err);
	if (rc)
		return rc;
	if (o->embedder_id && !*o->embedder_id)
		return ruv_fail(err, RUV_EINVAL, "memory", "the embedder's id is empty");
	if (o->embedder_id ? o->dimension < 1 || o->dimension > RUV_MEMORY_MAX_DIMENSION : o->dimension != 0)
		return ruv_fail(err, RUV_EINVAL, "memory", "dimension %d with embedder '%s': 1..%d with an embedder, 0 without",
		                o->dimension, o->embedder_id ? o->embedder_id : "(none)", RUV_MEMORY_MAX_DIMENSION);
	return RUV_OK;
}

/* Does the store belong to the embedder that it is opened with? A store without one takes it on. */
static int match_embedder(ruv_memory *m, const char *dir, const ruv_memory_options *o, ruv_error *err)
{
	ruv_store_embedder *have = &m->embedder,
			   want = {o->embedder_id, o->embedder_version ? o->embedder_version : "", o->dimension};
	int rc;

	if (!o->embedder_id)
		return RUV_OK;
	if (!*have->id && !have->dimension) {
		if (m->read_only)
			return RUV_OK; /* nothing in it has a vector */
		rc = m->store->ops->begin(m->store, err);
		if (rc)
			return rc;
		/* Somebody else may have been first. */
		rc = m->store->ops->embedder(m->store, &m->arena, have, err);
		if (!rc && !*have->id)
			rc = m->store->ops->set_embedder(m->store, &want, err);
		if (!rc)
			rc = m->store->ops->commit(m->store, err);
		else
			m->store->ops->rollback(m->store);
		if (!rc)
			rc = m->store->ops->embedder(m->store, &m->arena, have, err);
		if (rc)
			return rc;
	}
	if (same_text(have->id, want.id) && have->dimension == want.dimension &&
	    (!*have->version || !*want.version || same_text(have->version, want.version)))
		return RUV_OK;
	return ruv_fail(err, RUV_EMISMATCH, "memory",
	                "the memory in '%s' was filled by embedder '%s' (version '%s', %d numbers a vector), but this is '%s' "
	                "(version '%s', %d): "
	                "open it with the first, or change the memory's embedder and embed its texts again",
	                dir, have->id, have->version, have->dimension, want.id, want.version, want.dimension);
}

int ruv_memory_open(ruv_memory **out, const char *dir, const ruv_memory_options *options, ruv_error *err)
{
	static const ruv_memory_options defaults;
	const ruv_memory_options *o = options ? options : &defaults;
	ruv_memory_index_options index_options = o->index;
	ruv_memory *m = NULL;
	int rc;

	*out = NULL;
	if (!dir || !*dir)
		return ruv_fail(err, RUV_EINVAL, "memory", "no directory named");
	rc = check_options(o, err);
	if (!rc)
		rc = ruv_index_options_check(&index_options, err);
	if (!rc && (o->n_cached < -1 || o->n_cached > 1 << 20 || o->cached_ms < 0))
		rc = ruv_fail(err, RUV_EINVAL, "memory", "%d results kept for %lld ms: neither may be negative but -1 for none",
		              o->n_cached, (long long)o->cached_ms);
	if (rc)
		return rc;
	if (o->create && o->read_only)
		return ruv_fail(err, RUV_EINVAL, "memory", "create and read_only exclude each other");
	m = calloc(1, sizeof *m);
	if (!m)
		return ruv_fail_memory(err, "memory", sizeof *m);
	ruv_arena_init(&m->arena);
	pthread_mutex_init(&m->embedder_lock, NULL);
	pthread_mutex_init(&m->index_lock, NULL);
	pthread_mutex_init(&m->words_lock, NULL);
	m->read_only = o->read_only;
	m->index_options = index_options;
	m->dir = strdup(dir);
	if (!m->dir) {
		rc = ruv_fail_memory(err, "memory", strlen(dir));
		goto done;
	}
	if (o->n_cached >= 0) {
		rc = ruv_cache_create(&m->cache, o->n_cached ? o->n_cached : 256, o->cached_ms ? o->cached_ms : 300000, err);
		if (rc)
			goto done;
	}
	rc = ruv_store_open_sqlite(&m->store, dir, o->create, o->read_only, o->lock_wait_ms, err);
	if (rc)
		goto done;
	rc = m->store->ops->embedder(m->store, &m->arena, &m->embedder, err);
	if (!rc)
		rc = match_embedder(m, dir, o, err);
	if (rc)
		goto done;
	*out = m;
	m = NULL;
done:
	ruv_memory_free(m);
	return rc;
}

void ruv_memory_free(ruv_memory *m)
{
	if (!m)
		return;
	ruv_cache_free(m->cache);
	ruv_memory_words_free(m);
	for (int i = 0; i < m->n_former; i++)
		ruv_index_free(m->former[i]);
	ruv_index_free(atomic_load(&m->index)); /* last: it may still ask the store for an event */
	if (m->store)
		m->store->ops->close(m->store);
	pthread_mutex_destroy(&m->embedder_lock);
	pthread_mutex_destroy(&m->index_lock);
	pthread_mutex_destroy(&m->words_lock);
	ruv_arena_release(&m->arena);
	free(m->dir);
	free(m);
}

static int dimension_of(ruv_memory *m)
{
	int dimension;

	pthread_mutex_lock(&m->embedder_lock);
	dimension = m->embedder.dimension;
	pthread_mutex_unlock(&m->embedder_lock);
	return dimension;
}

void ruv_memory_embedder(ruv_memory *m, const char **id, const char **version, int *dimension)
{
	pthread_mutex_lock(&m->embedder_lock);
	if (id)
		*id = m->embedder.id;
	if (version)
		*version = m->embedder.version;
	if (dimension)
		*dimension = m->embedder.dimension;
	pthread_mutex_unlock(&m->embedder_lock);
}

/* The index becomes a former one, in which searches may still be; there is room. The caller holds index_lock. */
static void retire_index(ruv_memory *m)
{
	ruv_index *old = atomic_exchange(&m->index, NULL);

	if (old) {
		ruv_index_disown(old);
		m->former[m->n_former++] = old;
	}
	atomic_store(&m->index_seq, 0);
}

int ruv_memory_change_embedder(ruv_memory *m, const char *id, const char *version, int dimension, ruv_error *err)
{
	ruv_memory_options o = {.embedder_id = id, .embedder_version = version, .dimension = dimension};
	ruv_store_embedder want = {id, version ? version : "", dimension};
	int rc = check_options(&o, err);

	if (rc)
		return rc;
	if (!id)
		return ruv_fail(err, RUV_EINVAL, "memory", "no embedder named");
	/* The order of locks is everywhere the right to write, then the index. */
	rc = m->store->ops->begin(m->store, err);
	if (rc)
		return rc;
	pthread_mutex_lock(&m->index_lock);
	if (m->n_former == (int)(sizeof m->former / sizeof *m->former))
		rc = ruv_fail(err, RUV_ELIMIT, "memory", "the embedder was changed %d times; open the memory anew", m->n_former);
	if (!rc)
		rc = m->store->ops->set_embedder(m->store, &want, err);
	if (rc)
		m->store->ops->rollback(m->store);
	else
		rc = m->store->ops->commit(m->store, err);
	if (rc)
		goto done;
	retire_index(m);
	ruv_index_drop_files(m->dir);
	pthread_mutex_lock(&m->embedder_lock);
	rc = m->store->ops->embedder(m->store, &m->arena, &m->embedder, err);
	pthread_mutex_unlock(&m->embedder_lock);
done:
	pthread_mutex_unlock(&m->index_lock);
	return rc;
}

/* ---- the vector index ---- */

static int apply_row(void *user, const ruv_store_row *row, ruv_error *err)
{
	ruv_index *index = user;

	/* An event of an edge, or of a place in a file, changes nothing here. */
	if (!row->gone && row->vector && ruv_vectors_same(ruv_index_vectors(index), row))
		return RUV_OK;
	if (!row->gone && row->vector)
		return ruv_index_put(index, row, err);
	ruv_index_remove(index, row->key);
	return RUV_OK;
}

static int event_mark(void *user, int64_t seq, uint64_t *mark, ruv_error *err)
{
	const ruv_memory *m = user;

	return m->store->ops->event_mark(m->store, seq, mark, err);
}

/* From its files, or with nothing in it. *seq: how far it has come, -1: nowhere. */
static int make_index(ruv_memory *m, ruv_index **index, const ruv_store_embedder *embedder, int64_t *seq, ruv_error *err)
{
	ruv_index_setup setup = {
	    .options = m->index_options, .dir = m->dir, .may_save = !m->read_only, .event = event_mark, .user = m};
	ruv_error why = {0};
	int rc = RUV_ENOTFOUND;

	setup.owner = ruv_hash64(embedder->id, strlen(embedder->id), (uint64_t)embedder->dimension);
	setup.owner = ruv_hash64(embedder->version, strlen(embedder->version), setup.owner);
	if (m->index_options.flat_below >= 0)
		rc = ruv_index_open(index, &setup, seq, &why);
	if (!rc && ruv_vectors_dimension(ruv_index_vectors(*index)) != embedder->dimension) {
		ruv_index_free(*index);
		rc = ruv_fail(&why, RUV_EMISMATCH, "memory", "the vectors have another dimension");
	}
	if (!rc || rc == RUV_ENOMEM)
		return rc ? ruv_fail(err, rc, "memory", "%s", why.message) : rc;
	if (rc != RUV_ENOTFOUND)
		ruv_log(RUV_LOG_INFO, "memory", "the vectors are read from the store: %s", why.message);
	*seq = -1;
	return ruv_index_create(index, embedder->dimension, &setup, err);
}

/* The caller holds index_lock. */
static int bring_up(ruv_memory *m, ruv_error *err)
{
	ruv_index *index = atomic_load(&m->index), *fresh = NULL;
	ruv_store_embedder now;
	ruv_arena arena;
	int64_t seq = 0, have = atomic_load(&m->index_seq);
	int rc;

	if (index) {
		rc = m->store->ops->last_event(m->store, &seq, err);
		if (rc || seq == have)
			return rc;
	}
	ruv_arena_init(&arena);
	rc = m->store->ops->embedder(m->store, &arena, &now, err);
	if (!rc && now.dimension != dimension_of(m))
		rc = ruv_fail(err, RUV_EMISMATCH, "memory",
		              "another process has changed the memory's embedder to '%s' (%d numbers a vector): "
		              "open the memory anew with it",
		              now.id, now.dimension);
	if (!rc && !index && !now.dimension)
		rc =
		    ruv_fail(err, RUV_EMISMATCH, "memory", "the memory holds no vectors: nothing has been stored with an embedder");
	if (!rc && !index) {
		rc = make_index(m, &fresh, &now, &have, err);
		index = fresh;
	}
	ruv_arena_release(&arena);
	if (rc)
		return rc;
	if (have < 0)
		rc = m->store->ops->scan(m->store, &seq, apply_row, index, err);
	else
		rc = m->store->ops->changes(m->store, have, &seq, apply_row, index, err);
	if (rc) {
		ruv_index_free(fresh);
		return rc;
	}
	ruv_index_reached(index, seq);
	if (fresh)
		atomic_store(&m->index, fresh);
	atomic_store(&m->index_seq, seq);
	return RUV_OK;
}

int ruv_memory_sync(ruv_memory *m, bool wait, ruv_error *err)
{
	int rc;

	/* A writer of this process is just doing it; what it has not acknowledged yet, no search needs to see. */
	if (!wait && atomic_load(&m->n_following) && atomic_load(&m->index))
		return RUV_OK;
	if (pthread_mutex_trylock(&m->index_lock)) {
		if (!wait && atomic_load(&m->index))
			return RUV_OK;
		pthread_mutex_lock(&m->index_lock);
	}
	rc = bring_up(m, err);
	pthread_mutex_unlock(&m->index_lock);
	return rc;
}

void ruv_memory_follow(ruv_memory *m)
{
	ruv_error err;

	if (atomic_load(&m->index) && ruv_memory_sync(m, true, &err))
		ruv_log(RUV_LOG_WARN, "memory", "the index will be brought up to date by the next search: %s", err.message);
	if (ruv_memory_sync_words(m, true, &err))
		ruv_log(RUV_LOG_WARN, "memory", "the word index will be brought up to date by the next search: %s", err.message);
}

int ruv_memory_commit(ruv_memory *m, ruv_error *err)
{
	ruv_index *index;
	int rc;

	atomic_fetch_add(&m->n_following, 1);
	rc = m->store->ops->commit(m->store, err);
	if (!rc)
		ruv_memory_follow(m);
	atomic_fetch_sub(&m->n_following, 1);
	index = atomic_load(&m->index);
	if (!rc && index)
		ruv_index_make_room(index);
	return rc;
}

/* ---- nodes ---- */

/* Ends a transaction by what happened in it. */
static int end(ruv_memory *m, int rc, ruv_error *err)
{
	if (rc) {
		m->store->ops->rollback(m->store);
		return rc;
	}
	return ruv_memory_commit(m, err);
}

int ruv_memory_add(ruv_memory *m, ruv_memory_node *nodes, int n, ruv_error *err)
{
	int64_t now = ruv_clock_wall_ms(), key;
	int dimension = dimension_of(m), rc = RUV_OK;
	ruv_memory_node *checked;
	ruv_arena arena;

	if (n < 0 || n > RUV_MEMORY_MAX_BATCH)
		return ruv_fail(err, RUV_ELIMIT, "memory", "%d nodes in one call, at most %d are allowed", n, RUV_MEMORY_MAX_BATCH);
	if (n == 0)
		return RUV_OK;
	checked = malloc((size_t)n * sizeof *checked);
	if (!checked)
		return ruv_fail_memory(err, "memory", (size_t)n * sizeof *checked);
	ruv_arena_init(&arena);
	for (int i = 0; !rc && i < n; i++) {
		checked[i] = nodes[i];
		rc = ruv_node_check(&checked[i], &arena, dimension, now, err);
		if (!rc && checked[i].id[0])
			rc = ruv_id_check(checked[i].id, nodes[i].id, err);
		else if (!rc)
			ruv_uuid_format(ruv_uuid_make(), checked[i].id);
		if (rc && n > 1)
			ruv_error_prefix(err, rc, "node %d of %d: ", i + 1, n);
	}
	if (!rc)
		rc = m->store->ops->begin(m->store, err);
	if (rc)
		goto done;
	for (int i = 0; !rc && i < n; i++)
		rc = m->store->ops->node_put(m->store, &checked[i], &key, err);
	rc = end(m, rc, err);
	for (int i = 0; !rc && i < n; i++) {
		memcpy(nodes[i].id, checked[i].id, sizeof nodes[i].id);
		nodes[i].version = checked[i].version;
		nodes[i].created_ms = checked[i].created_ms;
		nodes[i].updated_ms = checked[i].updated_ms;
	}
done:
	free(checked);
	ruv_arena_release(&arena);
	return rc;
}

int ruv_memory_update(ruv_memory *m, const ruv_memory_node *node, ruv_error *err)
{
	ruv_memory_node checked = *node, before;
	ruv_arena arena;
	int rc;

	ruv_arena_init(&arena);
	rc = ruv_id_check(checked.id, node->id, err);
	if (!rc)
		rc = ruv_node_check(&checked, &arena, dimension_of(m), ruv_clock_wall_ms(), err);
	if (!rc)
		rc = m->store->ops->begin(m->store, err);
	if (rc)
		goto done;
	rc = m->store->ops->node_get(m->store, &arena, &before, checked.id, err);
	if (!rc) {
		checked.created_ms = before.created_ms;
		checked.updated_ms = ruv_clock_wall_ms();
		checked.version = before.version + 1;
		rc = m->store->ops->node_replace(m->store, &checked, !strcmp(before.text, checked.text), err);
	}
	rc = end(m, rc, err);
done:
	ruv_arena_release(&arena);
	return rc;
}

static int forget_one(ruv_memory *m, ruv_arena *arena, const char *which, ruv_error *err)
{
	ruv_memory_node node = {0};
	char id[RUV_ID_SIZE];
	int rc = ruv_id_check(id, which, err);

	if (rc)
		return rc;
	rc = m->store->ops->node_get(m->store, arena, &node, id, err);
	if (rc && rc != RUV_ECORRUPT) /* a damaged one is forgotten as well, only not by its text */
		return rc;
	if (!rc)
		rc = ruv_source_note_forgotten(m, arena, &node, err);
	else
		rc = RUV_OK;
	return rc ? rc : m->store->ops->node_erase(m->store, id, "forget", err);
}

int ruv_memory_forget(ruv_memory *m, const char *const *ids, int n, ruv_error *err)
{
	ruv_arena arena;
	int rc = RUV_OK;

	if (n < 0 || n > RUV_MEMORY_MAX_BATCH)
		return ruv_fail(err, RUV_ELIMIT, "memory", "%d nodes in one call, at most %d are allowed", n, RUV_MEMORY_MAX_BATCH);
	if (n == 0)
		return RUV_OK;
	rc = m->store->ops->begin(m->store, err);
	if (rc)
		return rc;
	ruv_arena_init(&arena);
	for (int i = 0; !rc && i < n; i++) {
		rc = forget_one(m, &arena, ids[i], err);
		ruv_arena_release(&arena);
	}
	return end(m, rc, err);
}

int ruv_memory_get(ruv_memory *m, ruv_memory_nodes *out, const char *id, ruv_error *err)
{
	ruv_arena *arena = ruv_memory_arena(err);
	char canonical[RUV_ID_SIZE];
	int rc;

	memset(out, 0, sizeof *out);
	if (!arena)
		return RUV_ENOMEM;
	rc = ruv_id_check(canonical, id, err);
	out->items = ruv_arena_calloc(arena, 1, sizeof *out->items);
	if (!rc && !out->items)
		rc = ruv_fail_memory(err, "memory", sizeof *out->items);
	if (!rc)
		rc = m->store->ops->node_get(m->store, arena, out->items, canonical, err);
	out->n = 1;
	out->owner = arena;
	if (rc)
		ruv_memory_nodes_release(out);
	return rc;
}

int ruv_memory_resolve(ruv_memory *m, char id[RUV_ID_SIZE], const char *part, ruv_error *err)
{
	char digits[33], found[3][RUV_ID_SIZE];
	int n = 0, n_found = 0, rc;

	for (const char *p = part ? part : ""; *p; p++) {
		if (*p == '-')
			continue;
		if (!isxdigit((unsigned char)*p) || n == 32)
			return ruv_fail(err, RUV_EINVAL, "memory", "'%.40s' is not an id, nor the beginning or end of one", part);
		digits[n++] = (char)tolower((unsigned char)*p);
	}
	digits[n] = '\0';
	if (n < 4)
		return ruv_fail(err, RUV_EINVAL, "memory",
		                "'%s' is too short for an id: give at least 4 of its first or last characters", part ? part : "");
	rc = m->store->ops->node_resolve(m->store, digits, found, 3, &n_found, err);
	if (rc)
		return rc;
	if (n_found == 0)
		return ruv_fail(err, RUV_ENOTFOUND, "memory", "no node's id begins or ends with '%s'", part);
	if (n_found > 1)
		return ruv_fail(err, RUV_EINVAL, "memory", "'%s' is not enough: %s, %s%s have it", part, found[0], found[1],
		                n_found > 2 ? " and more" : "");
	memcpy(id, found[0], RUV_ID_SIZE);
	return RUV_OK;
}

int ruv_memory_list(ruv_memory *m, ruv_memory_nodes *out, const ruv_memory_filter *filter, bool without_vector, int offset,
                    int limit, ruv_error *err)
{
	ruv_memory_filter checked;
	ruv_arena *arena;
	int rc;

	memset(out, 0, sizeof *out);
	rc = ruv_filter_check(&checked, filter, err);
	if (!rc && (offset < 0 || limit < 0))
		rc = ruv_fail(err, RUV_EINVAL, "memory", "offset %d and limit %d cannot be negative", offset, limit);
	if (rc)
		return rc;
	arena = ruv_memory_arena(err);
	if (!arena)
		return RUV_ENOMEM;
	out->owner = arena;
	rc = m->store->ops->node_list(m->store, arena, &out->items, &out->n, &checked, without_vector, false, offset, limit, err);
	if (rc)
		ruv_memory_nodes_release(out);
	return rc;
}

/* ---- care ---- */

int ruv_memory_get_stats(ruv_memory *m, ruv_memory_stats *stats, ruv_error *err)
{
	ruv_index *index = atomic_load(&m->index);

	memset(stats, 0, sizeof *stats);
	if (index) {
		ruv_index_stats s;
		ruv_index_get_stats(index, &s);
		stats->index_loaded = true;
		stats->index_bytes = s.bytes;
		stats->index_mapped_bytes = s.mapped_bytes;
		stats->index_by_graph = s.by_graph;
		stats->index_n_graph = s.n_in_graph;
		stats->index_n_pending = s.m ? s.n_pending : 0;
		stats->index_m = s.m;
		stats->index_ef_construction = s.ef_construction;
		stats->index_ef_search = s.ef_search;
		stats->index_bits = s.bits;
	}
	return m->store->ops->stats(m->store, stats, err);
}

int ruv_memory_warm(ruv_memory *m, ruv_error *err)
{
	return ruv_memory_sync(m, true, err);
}

int ruv_memory_index(ruv_memory *m, int n_threads, bool rebuild, ruv_memory_progress_fn *progress, void *user, ruv_error *err)
{
	int rc = ruv_memory_sync(m, true, err);
	ruv_index *index = atomic_load(&m->index);

	if (rc)
		return rc;
	if (!index)
		return ruv_fail(err, RUV_EBUSY, "memory", "the memory's embedder is being changed");
	return ruv_index_finish(index, n_threads, rebuild, progress, user, err);
}

typedef struct comparing {
	ruv_vectors *vectors;
	int64_t n, n_different, first;
} comparing;

static int compare_row(void *user, const ruv_store_row *row, ruv_error *err)
{
	comparing *c = user;
	bool same;

	(void)err;
	if (row->gone || !row->vector)
		same = !ruv_vectors_find(c->vectors, row->key);
	else
		same = ruv_vectors_same(c->vectors, row);
	c->n += !row->gone && row->vector;
	if (!same && !c->n_different++)
		c->first = row->key;
	return RUV_OK;
}

/* The index against the store, and in itself. The caller holds index_lock. */
static int check_index(ruv_memory *m, ruv_index *index, char *line, size_t cap, ruv_error *err)
{
	ruv_error why = {0};
	int rc = RUV_OK;

	line[0] = '\0';
	for (int i = 0; i < 4; i++) { /* somebody may write meanwhile */
		comparing c = {.vectors = ruv_index_vectors(index)};
		int64_t seq = 0;
		rc = bring_up(m, err);
		if (!rc)
			rc = m->store->ops->scan(m->store, &seq, compare_row, &c, err);
		if (rc)
			return rc;
		line[0] = '\0';
		if (c.n_different)
			snprintf(line, cap, "%lld vectors in the index are not what the store has (the first: node key %lld)",
			         (long long)c.n_different, (long long)c.first);
		else if (c.n != ruv_vectors_count(c.vectors))
			snprintf(line, cap, "%lld vectors are in the index, %lld in the store",
			         (long long)ruv_vectors_count(c.vectors), (long long)c.n);
		if (!line[0] || seq == atomic_load(&m->index_seq))
			break;
	}
	if (!line[0]) {
		rc = ruv_index_check(index, &why);
		if (rc == RUV_ECORRUPT || rc == RUV_EFORMAT)
			snprintf(line, cap, "the vector index: %s", why.message);
		else if (rc)
			return ruv_fail(err, rc, "memory", "%s", why.message);
	}
	return RUV_OK;
}

int ruv_memory_check(ruv_memory *m, ruv_memory_report *report, bool repair, ruv_memory_problem_fn *fn, void *user, ruv_error *err)
{
	ruv_error why = {0};
	char line[700];
	int rc;

	memset(report, 0, sizeof *report);
	rc = m->store->ops->check(m->store, report, repair, fn, user, err);
	if (rc)
		return rc;
	/* Without vectors there is no index; what else keeps it from being loaded is in the report already or is said here. */
	rc = ruv_memory_sync(m, true, &why);
	if (rc == RUV_EMISMATCH)
		return RUV_OK;
	if (rc == RUV_ECORRUPT) {
		report->n_problems++;
		if (fn)
			fn(user, why.message);
		return RUV_OK;
	}
	if (rc)
		return ruv_fail(err, rc, "memory", "%s", why.message);
	pthread_mutex_lock(&m->index_lock);
	rc = check_index(m, atomic_load(&m->index), line, sizeof line, err);
	if (!rc && line[0]) {
		report->n_problems++;
		if (fn)
			fn(user, line);
		if (repair && m->n_former < (int)(sizeof m->former / sizeof *m->former)) {
			retire_index(m); /* the next search makes it anew from the store */
			ruv_index_drop_files(m->dir);
			report->n_repaired++;
		}
	}
	pthread_mutex_unlock(&m->index_lock);
	return rc;
}

int ruv_memory_backup(ruv_memory *m, const char *path, ruv_error *err)
{
	return m->store->ops->backup(m->store, path, err);
}

int ruv_memory_compact(ruv_memory *m, ruv_error *err)
{
	return m->store->ops->compact(m->store, err);
}

void ruv_memory_events_release(ruv_memory_events *events)
{
	ruv_memory_arena_free(events->owner);
	memset(events, 0, sizeof *events);
}

int ruv_memory_history(ruv_memory *m, ruv_memory_events *out, const char *id, int limit, ruv_error *err)
{
	ruv_arena *arena;
	char canonical[RUV_ID_SIZE];
	int rc = RUV_OK;

	memset(out, 0, sizeof *out);
	if (id)
		rc = ruv_id_check(canonical, id, err);
	if (!rc && limit < 0)
		rc = ruv_fail(err, RUV_EINVAL, "memory", "limit %d cannot be negative", limit);
	if (rc)
		return rc;
	arena = ruv_memory_arena(err);
	if (!arena)
		return RUV_ENOMEM;
	out->owner = arena;
	rc = m->store->ops->history(m->store, arena, &out->items, &out->n, id ? canonical : NULL, limit, err);
	if (rc)
		ruv_memory_events_release(out);
	return rc;
}
