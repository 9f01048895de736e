/* sources.c - files and pages that are remembered again when they change; see memory.h.
 *
 * What a source says is kept by text: a node stays (id, edges, vector) when its text and title are still in the source, wherever
 * they moved, so that remembering a changed file embeds only what is new. A node that fails its checksum is as good as gone: the
 * source is not unchanged then, and replacing it puts the passage in anew.
 *
 * A passage that was forgotten by itself leaves its hash with the source and is left out when the source is remembered again, as
 * long as it stands there; ruv_memory_source_restore forgets that.
 *
 * The stored hash ends in " n=COUNT", the number of nodes that the source was given, so that a missing one is noticed. Sources
 * stored before that have none. Layer: memory. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"
#include "base/uuid.h"
#include "memory/memory_impl.h"

static int check_source(const ruv_memory_source *source, ruv_error *err)
{
	ruv_memory_filter filter = {.scope = source->scope, .source = source->name}, checked;

	if (!source->name || !*source->name)
		return ruv_fail(err, RUV_EINVAL, "memory", "the source has no name");
	if (source->hash && strlen(source->hash) > RUV_MEMORY_MAX_LABEL)
		return ruv_fail(err, RUV_ELIMIT, "memory", "the source's hash has %zu bytes, at most %d are allowed",
		                strlen(source->hash), RUV_MEMORY_MAX_LABEL);
	return ruv_filter_check(&checked, &filter, err);
}

/* Takes the number of nodes off a stored hash, which is in an arena of ours. 0: it has none. */
static int split_hash(ruv_memory_source *source)
{
	char *mark = NULL;

	for (char *p = (char *)(uintptr_t)source->hash; (p = strstr(p, " n=")); p++)
		mark = p;
	if (!mark || !mark[3] || mark[3 + strspn(mark + 3, "0123456789")])
		return 0;
	*mark = '\0';
	return atoi(mark + 3);
}

int ruv_memory_source_unchanged(ruv_memory *m, bool *same, const ruv_memory_source *source, ruv_error *err)
{
	ruv_memory_source have = {0};
	ruv_memory_node *nodes;
	ruv_arena arena;
	int64_t *forgotten;
	int rc = check_source(source, err), n = 0, n_damaged = 0, n_given, n_forgotten = 0;

	*same = false;
	if (rc)
		return rc;
	ruv_arena_init(&arena);
	rc = m->store->ops->source_get(m->store, &arena, &have, source, err);
	if (rc == RUV_ENOTFOUND) {
		rc = RUV_OK;
	} else if (!rc) {
		n_given = split_hash(&have);
		*same = have.hash[0] && source->hash && !strcmp(have.hash, source->hash);
		if (*same)
			rc = m->store->ops->source_nodes(m->store, &arena, &nodes, &n, &n_damaged, source, false, err);
		if (*same && !rc)
			rc = m->store->ops->forgotten_get(m->store, &arena, &forgotten, &n_forgotten, source, err);
		*same = *same && !rc && !n_damaged && n + n_forgotten >= n_given;
	}
	ruv_arena_release(&arena);
	return rc;
}

/* The old nodes of a source by hash of title and text; each can be taken once. */
typedef struct old_nodes {
	ruv_memory_node *nodes;
	int n, n_damaged; /* the damaged ones are not among the nodes */
	int *buckets;     /* number + 1; 0: empty */
	size_t n_buckets;
	bool *taken; /* [n] */
	int64_t *forgotten;
	int n_forgotten;
} old_nodes;

static uint64_t text_hash(const char *title, const char *text)
{
	size_t n_title = title ? strlen(title) : 0;

	return ruv_hash64(text, strlen(text), ruv_hash64(title ? title : "", n_title, n_title));
}

static int old_nodes_init(old_nodes *old, ruv_memory *m, ruv_arena *arena, const ruv_memory_source *source, ruv_error *err)
{
	int rc = m->store->ops->source_nodes(m->store, arena, &old->nodes, &old->n, &old->n_damaged, source, true, err);

	if (!rc)
		rc = m->store->ops->forgotten_get(m->store, arena, &old->forgotten, &old->n_forgotten, source, err);
	if (rc)
		return rc;
	old->n_buckets = 16;
	while (old->n_buckets < (size_t)old->n * 2)
		old->n_buckets *= 2;
	old->buckets = ruv_arena_calloc(arena, old->n_buckets, sizeof *old->buckets);
	old->taken = ruv_arena_calloc(arena, (size_t)old->n + 1, sizeof *old->taken);
	if (!old->buckets || !old->taken)
		return ruv_fail_memory(err, "memory", old->n_buckets * sizeof *old->buckets);
	for (int i = 0; i < old->n; i++) {
		size_t at = text_hash(old->nodes[i].title, old->nodes[i].text) & (old->n_buckets - 1);
		while (old->buckets[at])
			at = (at + 1) & (old->n_buckets - 1);
		old->buckets[at] = i + 1;
	}
	return RUV_OK;
}

/* The first node with this title and text that is not taken, -1: none. */
static int old_nodes_find(const old_nodes *old, const char *title, const char *text)
{
	for (size_t at = text_hash(title, text) & (old->n_buckets - 1); old->buckets[at]; at = (at + 1) & (old->n_buckets - 1)) {
		int i = old->buckets[at] - 1;
		if (!old->taken[i] && !strcmp(old->nodes[i].text, text) && !strcmp(old->nodes[i].title, title ? title : ""))
			return i;
	}
	return -1;
}

static bool was_forgotten(const old_nodes *old, const char *title, const char *text)
{
	int64_t hash = old->n_forgotten ? (int64_t)text_hash(title, text) : 0;

	for (int i = 0; i < old->n_forgotten; i++)
		if (old->forgotten[i] == hash)
			return true;
	return false;
}

int ruv_source_note_forgotten(ruv_memory *m, ruv_arena *arena, const ruv_memory_node *node, ruv_error *err)
{
	ruv_memory_source which = {.name = node->source, .scope = node->scope}, have;
	int rc;

	if (!node->source || !*node->source)
		return RUV_OK;
	rc = m->store->ops->source_get(m->store, arena, &have, &which, err);
	if (rc == RUV_ENOTFOUND) /* it only names a source that nobody remembered */
		return RUV_OK;
	return rc ? rc : m->store->ops->forgotten_put(m->store, &which, (int64_t)text_hash(node->title, node->text), err);
}

int ruv_memory_source_restore(ruv_memory *m, const ruv_memory_source *source, int *n, ruv_error *err)
{
	int64_t *hashes;
	ruv_arena arena;
	int count = 0, rc = check_source(source, err);

	if (!rc)
		rc = m->store->ops->begin(m->store, err);
	if (rc)
		return rc;
	ruv_arena_init(&arena);
	rc = m->store->ops->forgotten_get(m->store, &arena, &hashes, &count, source, err);
	if (!rc)
		rc = m->store->ops->forgotten_drop(m->store, source, err);
	if (rc)
		m->store->ops->rollback(m->store);
	else
		rc = m->store->ops->commit(m->store, err);
	if (!rc && n)
		*n = count;
	ruv_arena_release(&arena);
	return rc;
}

int ruv_memory_source_known(ruv_memory *m, bool *known, const ruv_memory_source *source, const char *const *texts,
                            const char *const *titles, int n, ruv_error *err)
{
	old_nodes old = {0};
	ruv_arena arena;
	int rc = check_source(source, err);

	if (rc)
		return rc;
	ruv_arena_init(&arena);
	rc = old_nodes_init(&old, m, &arena, source, err);
	for (int i = 0; !rc && i < n; i++) {
		int at = old_nodes_find(&old, titles ? titles[i] : NULL, texts[i]);
		known[i] = at >= 0 ? old.nodes[at].vector != NULL : was_forgotten(&old, titles ? titles[i] : NULL, texts[i]);
		if (at >= 0)
			old.taken[at] = true;
	}
	ruv_arena_release(&arena);
	return rc;
}

int ruv_memory_source_replace(ruv_memory *m, const ruv_memory_source *source, ruv_memory_node *nodes, int n,
                              ruv_memory_replaced *done, ruv_error *err)
{
	int64_t now = ruv_clock_wall_ms(), key;
	ruv_memory_replaced counts = {0};
	ruv_memory_node *checked = NULL;
	old_nodes old = {0};
	ruv_arena arena;
	int dimension = 0, rc;

	rc = check_source(source, err);
	if (!rc && (n < 0 || n > RUV_MEMORY_MAX_BATCH))
		rc = ruv_fail(err, RUV_ELIMIT, "memory", "%d nodes in one call, at most %d are allowed", n, RUV_MEMORY_MAX_BATCH);
	if (rc)
		return rc;
	ruv_memory_embedder(m, NULL, NULL, &dimension);
	ruv_arena_init(&arena);
	checked = calloc((size_t)n + 1, sizeof *checked);
	if (!checked) {
		rc = ruv_fail_memory(err, "memory", ((size_t)n + 1) * sizeof *checked);
		goto done;
	}
	for (int i = 0; !rc && i < n; i++) {
		checked[i] = nodes[i];
		checked[i].source = source->name;
		checked[i].scope = source->scope;
		rc = ruv_node_check(&checked[i], &arena, dimension, now, err);
		if (!rc && checked[i].id[0])
			rc = ruv_id_check(checked[i].id, nodes[i].id, err);
		else if (!rc)
			ruv_uuid_format(ruv_uuid_make(), checked[i].id);
		if (rc)
			ruv_error_prefix(err, rc, "node %d of %d: ", i + 1, n);
	}
	if (!rc)
		rc = m->store->ops->begin(m->store, err);
	if (rc)
		goto done;
	rc = old_nodes_init(&old, m, &arena, source, err);
	if (!rc && old.n_damaged)
		rc = m->store->ops->source_mend(m->store, source, err);
	counts.n_removed = old.n_damaged;
	if (!rc) /* those that still stand in the source are noted again below */
		rc = m->store->ops->forgotten_drop(m->store, source, err);
	for (int i = 0; !rc && i < n; i++) {
		int at = old_nodes_find(&old, checked[i].title, checked[i].text);
		if (at < 0 && was_forgotten(&old, checked[i].title, checked[i].text)) {
			rc = m->store->ops->forgotten_put(m->store, source, (int64_t)text_hash(checked[i].title, checked[i].text),
			                                  err);
			counts.n_left_out++;
			checked[i].id[0] = '\0';
			continue;
		}
		if (at < 0) {
			rc = m->store->ops->node_put(m->store, &checked[i], &key, err);
			counts.n_added++;
			continue;
		}
		old.taken[at] = true;
		counts.n_kept++;
		memcpy(checked[i].id, old.nodes[at].id, sizeof checked[i].id);
		checked[i].version = old.nodes[at].version;
		checked[i].created_ms = old.nodes[at].created_ms;
		checked[i].updated_ms = old.nodes[at].updated_ms;
		rc = m->store->ops->node_move(m->store, checked[i].id, checked[i].first_line, checked[i].last_line,
		                              checked[i].vector, err);
	}
	for (int i = 0; !rc && i < old.n; i++) {
		if (!old.taken[i]) {
			rc = m->store->ops->node_erase(m->store, old.nodes[i].id, "replace", err);
			counts.n_removed++;
		}
	}
	if (!rc) {
		ruv_memory_source stored = *source;
		char hash[RUV_MEMORY_MAX_LABEL + 16];

		snprintf(hash, sizeof hash, "%s n=%d", source->hash ? source->hash : "", n);
		if (source->hash && *source->hash)
			stored.hash = hash;
		rc = m->store->ops->source_put(m->store, &stored, err);
	}
	if (rc) {
		m->store->ops->rollback(m->store);
		goto done;
	}
	rc = ruv_memory_commit(m, err);
	if (rc)
		goto done;
	for (int i = 0; i < n; i++) {
		memcpy(nodes[i].id, checked[i].id, sizeof nodes[i].id);
		nodes[i].version = checked[i].version;
		nodes[i].created_ms = checked[i].created_ms;
		nodes[i].updated_ms = checked[i].updated_ms;
	}
	if (done)
		*done = counts;
done:
	free(checked);
	ruv_arena_release(&arena);
	return rc;
}

int ruv_memory_source_forget(ruv_memory *m, const ruv_memory_source *source, int *n_removed, ruv_error *err)
{
	ruv_memory_node *nodes = NULL;
	ruv_arena arena;
	int n = 0, n_damaged = 0, rc = check_source(source, err);

	if (!rc)
		rc = m->store->ops->begin(m->store, err);
	if (rc)
		return rc;
	ruv_arena_init(&arena);
	rc = m->store->ops->source_nodes(m->store, &arena, &nodes, &n, &n_damaged, source, false, err);
	if (!rc && n_damaged)
		rc = m->store->ops->source_mend(m->store, source, err);
	for (int i = 0; !rc && i < n; i++)
		rc = m->store->ops->node_erase(m->store, nodes[i].id, "forget", err);
	if (!rc) {
		rc = m->store->ops->forgotten_drop(m->store, source, err);
		if (!rc)
			rc = m->store->ops->source_erase(m->store, source, err);
		if (rc == RUV_ENOTFOUND && n + n_damaged > 0)
			rc = RUV_OK; /* nodes that were added one by one name it, too */
	}
	if (rc) {
		m->store->ops->rollback(m->store);
	} else {
		rc = ruv_memory_commit(m, err);
	}
	if (!rc && n_removed)
		*n_removed = n + n_damaged;
	ruv_arena_release(&arena);
	return rc;
}

int ruv_memory_source_list(ruv_memory *m, ruv_memory_sources *out, const ruv_memory_filter *filter, ruv_error *err)
{
	ruv_memory_filter checked;
	ruv_arena *arena;
	int rc;

	memset(out, 0, sizeof *out);
	rc = ruv_filter_check(&checked, filter, err);
	if (rc)
		return rc;
	arena = ruv_memory_arena(err);
	if (!arena)
		return RUV_ENOMEM;
	out->owner = arena;
	rc = m->store->ops->source_list(m->store, arena, &out->items, &out->n, &checked, err);
	for (int i = 0; !rc && i < out->n; i++)
		split_hash(&out->items[i]);
	if (rc)
		ruv_memory_sources_release(out);
	return rc;
}

void ruv_memory_sources_release(ruv_memory_sources *sources)
{
	ruv_memory_arena_free(sources->owner);
	memset(sources, 0, sizeof *sources);
}
