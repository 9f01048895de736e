/* index_file.c - an index in its files, and the two against each other; see index.h.
 *
 * Saving. The graph is written under a fresh name, then memory.vectors, which names it, is put in the old one's place. Until that
 * rename the old pair counts, from then on the new one; a crash in between leaves a graph without an owner, which the next saving
 * removes. Only one process saves at a time (flock on memory.index.lock); another one skips it.
 *
 * A snapshot. The number of the last event is taken before the keys: what happened in between is in the keys, and is done again, to
 * no effect, from the log by whoever opens the files. Layer: memory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/status.h"
#include "base/uuid.h"
#include "memory/index_impl.h"

static const char *const WHERE = "vector index";
static const char *const VECTORS = "memory.vectors", *const LOCK = "memory.index.lock";

/* Above it the graph's records are not read when it is opened, only by `verify`. */
static const int64_t TRUST_FROM = (int64_t)2 << 30;

static char *join(const char *dir, const char *name)
{
	char *path = NULL;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

/* "memory-....graph" */
static bool is_graph_name(const char *name)
{
	size_t n = strlen(name);

	return n > 13 && !strncmp(name, "memory-", 7) && !strcmp(name + n - 6, ".graph") && !strchr(name, '/');
}

/* Removes graphs but `keep`. */
static void sweep(const char *dir, const char *keep)
{
	DIR *d = opendir(dir);
	const struct dirent *e;

	while (d && (e = readdir(d)))
		if (is_graph_name(e->d_name) && strcmp(e->d_name, keep)) {
			char *path = join(dir, e->d_name);
			if (path && unlink(path) && errno != ENOENT)
				ruv_log(RUV_LOG_WARN, "memory", "cannot remove '%s': %s", path, strerror(errno));
			free(path);
		}
	if (d)
		closedir(d);
}

void ruv_index_drop_files(const char *dir)
{
	char *path = join(dir, VECTORS);

	if (path)
		(void)unlink(path);
	free(path);
	sweep(dir, "");
}

/* ---- saving ---- */

/* *keys [*n_slots] of what is in the table and not waiting to be taken out of the graph; NULL, without an error: something is. */
static int snapshot(ruv_index *x, int64_t **keys, uint32_t *n_slots, int64_t *seq, ruv_error *err)
{
	int rc = RUV_OK;

	*keys = NULL;
	pthread_mutex_lock(&x->lock);
	*seq = x->seq;
	*n_slots = ruv_vectors_n_slots(x->vectors);
	if (!x->gone.n) {
		*keys = calloc((size_t)*n_slots + 1, sizeof **keys);
		if (!*keys)
			rc = ruv_fail_memory(err, WHERE, *n_slots * sizeof **keys);
		for (uint32_t i = 0; !rc && i < *n_slots; i++) {
			const ruv_vectors_chunk *chunk = ruv_vectors_chunk_at(x->vectors, i / RUV_VECTORS_CHUNK);
			if (i < x->state_cap && x->state[i] != INDEX_NONE)
				(*keys)[i] = atomic_load(&chunk->keys[i % RUV_VECTORS_CHUNK]);
		}
	}
	pthread_mutex_unlock(&x->lock);
	return rc;
}

int ruv_index_save(ruv_index *x, ruv_error *err)
{
	ruv_vectors_mark mark = {.owner = x->setup.owner};
	char *lock_path = NULL, *graph_path = NULL, *path = NULL, id[RUV_ID_SIZE];
	int64_t *keys = NULL;
	uint32_t n_slots = 0;
	unsigned ticket;
	bool inside = false;
	int fd = -1, rc = RUV_OK;

	if (!x->setup.may_save || !x->graph)
		return RUV_OK;
	lock_path = join(x->dir, LOCK);
	path = join(x->dir, VECTORS);
	ruv_uuid_format(ruv_uuid_make(), id);
	snprintf(mark.graph, sizeof mark.graph, "memory-%s.graph", id);
	graph_path = join(x->dir, mark.graph);
	if (!lock_path || !path || !graph_path) {
		rc = ruv_fail_memory(err, WHERE, strlen(x->dir) + 64);
		goto done;
	}
	fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) {
		rc = ruv_fail_errno(err, RUV_EIO, errno, WHERE, "cannot open '%s'", lock_path);
		goto done;
	}
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		rc = errno == EWOULDBLOCK ? RUV_OK : ruv_fail_errno(err, RUV_EIO, errno, WHERE, "cannot lock '%s'", lock_path);
		goto done; /* somebody else is at it */
	}
	ticket = ruv_vectors_enter(x->vectors);
	inside = true;
	for (int i = 0; !rc && !keys && i < 100; i++) {
		index_slots gone;
		pthread_mutex_lock(&x->lock);
		gone = x->gone;
		x->gone = (index_slots){0};
		pthread_mutex_unlock(&x->lock);
		for (size_t j = 0; j < gone.n; j++)
			(void)ruv_hnsw_remove(x->graph->x, gone.at[j], NULL);
		free(gone.at);
		rc = snapshot(x, &keys, &n_slots, &mark.seq, err);
	}
	if (rc || !keys)
		goto done; /* somebody removes faster than we look: next time */
	rc = x->setup.event(x->setup.user, mark.seq, &mark.event, err);
	if (!rc)
		rc = ruv_hnsw_save(x->graph->x, graph_path, id, err);
	if (!rc)
		rc = ruv_vectors_save(x->vectors, path, &mark, keys, n_slots, err);
	if (rc) {
		(void)unlink(graph_path);
		goto done;
	}
	x->n_unsaved = 0;
	snprintf(x->graph_name, sizeof x->graph_name, "%.63s", mark.graph);
	sweep(x->dir, mark.graph);
done:
	if (inside)
		ruv_vectors_leave(x->vectors, ticket);
	if (fd >= 0)
		close(fd);
	free(keys);
	free(lock_path);
	free(graph_path);
	free(path);
	return rc;
}

/* ---- opening ---- */

static int open_graph(ruv_hnsw **out, const char *dir, const char *name, bool whole, int dimension, ruv_error *err)
{
	char *path = join(dir, name), tag[RUV_HNSW_TAG] = "";
	struct stat st = {0};
	int rc;

	*out = NULL;
	if (!path)
		return ruv_fail_memory(err, WHERE, strlen(dir) + strlen(name));
	if (!is_graph_name(name))
		rc = ruv_fail(err, RUV_ECORRUPT, WHERE, "%s/%s names no graph", dir, VECTORS);
	else
		rc = ruv_hnsw_open_file(out, path,
		                        RUV_HNSW_MAP | (!whole && !stat(path, &st) && st.st_size > TRUST_FROM ? RUV_HNSW_TRUST : 0),
		                        0, tag, err);
	if (!rc && (strncmp(name + 7, tag, strlen(tag)) || strlen(name) != strlen(tag) + 13 ||
	            ruv_hnsw_get_params(*out)->dimension != dimension)) {
		ruv_hnsw_free(*out);
		*out = NULL;
		rc = ruv_fail(err, RUV_ECORRUPT, WHERE, "%s is another graph", path);
	}
	free(path);
	return rc;
}

/* Slots that the graph holds are in it, all others pending. */
static int take_states(ruv_index *x, ruv_error *err)
{
	uint32_t n_slots = ruv_vectors_n_slots(x->vectors), n_ids = x->graph ? ruv_hnsw_n_ids(x->graph->x) : 0;
	int rc = ruv_index_reserve(x, n_slots, err);

	if (!rc)
		rc = ruv_index_slots_reserve(&x->pending, n_slots, err);
	for (uint32_t id = 0; !rc && id < n_ids; id++) {
		int64_t key = ruv_hnsw_key(x->graph->x, id);
		uint32_t slot = key > 0 && key <= (int64_t)n_slots ? (uint32_t)(key - 1) : RUV_NO_SLOT;
		if (slot != RUV_NO_SLOT && x->state[slot] == INDEX_NONE &&
		    ruv_vectors_key(ruv_vectors_chunk_at(x->vectors, slot / RUV_VECTORS_CHUNK), (int)(slot % RUV_VECTORS_CHUNK),
		                    0)) {
			x->state[slot] = id;
			atomic_fetch_add(&x->n_in_graph, 1);
		} else if (key) {
			rc = ruv_index_slots_reserve(&x->gone, 1, err);
			if (!rc)
				x->gone.at[x->gone.n++] = id;
		}
	}
	for (uint32_t slot = 0; !rc && slot < n_slots; slot++)
		if (x->state[slot] == INDEX_NONE && ruv_vectors_key(ruv_vectors_chunk_at(x->vectors, slot / RUV_VECTORS_CHUNK),
		                                                    (int)(slot % RUV_VECTORS_CHUNK), 0)) {
			x->state[slot] = INDEX_PENDING | (uint32_t)x->pending.n;
			x->pending.at[x->pending.n++] = slot;
		}
	return rc;
}

int ruv_index_open(ruv_index **out, const ruv_index_setup *setup, int64_t *seq, ruv_error *err)
{
	ruv_vectors_mark mark;
	ruv_vectors *vectors = NULL;
	ruv_index *x = NULL;
	uint64_t event = 0;
	char *path = join(setup->dir, VECTORS);
	int rc;

	*out = NULL;
	if (!path)
		return ruv_fail_memory(err, WHERE, strlen(setup->dir));
	rc = ruv_vectors_open(&vectors, path, &mark, err);
	if (rc)
		goto done;
	if (mark.owner != setup->owner || setup->event(setup->user, mark.seq, &event, err) || event != mark.event) {
		rc = ruv_fail(err, RUV_EMISMATCH, WHERE, "%s belongs to another state of the memory", path);
		goto done;
	}
	rc = ruv_index_create(&x, 0, setup, err);
	if (rc)
		goto done;
	x->vectors = vectors;
	vectors = NULL;
	x->seq = *seq = mark.seq;
	snprintf(x->graph_name, sizeof x->graph_name, "%.63s", mark.graph);
	x->graph = calloc(1, sizeof *x->graph);
	if (!x->graph) {
		rc = ruv_fail_memory(err, WHERE, sizeof *x->graph);
		goto done;
	}
	atomic_init(&x->graph->users, 1);
	{
		ruv_error why = {0};
		if (open_graph(&x->graph->x, setup->dir, mark.graph, false, ruv_vectors_dimension(x->vectors), &why)) {
			ruv_log(RUV_LOG_WARN, "memory", "the graph of the vector index is built again: %s", why.message);
			free(x->graph);
			x->graph = NULL;
			x->graph_name[0] = '\0';
		}
	}
	rc = take_states(x, err);
	if (rc)
		goto done;
	pthread_mutex_lock(&x->lock);
	ruv_index_wake(x);
	pthread_mutex_unlock(&x->lock);
	*out = x;
	x = NULL;
done:
	ruv_vectors_free(vectors);
	ruv_index_free(x);
	free(path);
	return rc;
}

/* ---- checking ---- */

/* Every live slot is in exactly one place, and the graph's node at that place is the slot's. */
static int check_states(ruv_index *x, ruv_error *err)
{
	int64_t n_graph = 0, n_pending = 0, n_live = 0;
	uint32_t n_slots = ruv_vectors_n_slots(x->vectors);

	for (uint32_t i = 0; i < n_slots; i++) {
		const ruv_vectors_chunk *chunk = ruv_vectors_chunk_at(x->vectors, i / RUV_VECTORS_CHUNK);
		uint32_t state = i < x->state_cap ? x->state[i] : INDEX_NONE;
		bool live = atomic_load(&chunk->keys[i % RUV_VECTORS_CHUNK]) && !atomic_load(&chunk->dead[i % RUV_VECTORS_CHUNK]);
		n_live += live;
		if (live != (state != INDEX_NONE))
			return ruv_fail(err, RUV_ECORRUPT, WHERE, "slot %u %s", i,
			                live ? "is in no search" : "is searched for and free");
		if (!live)
			continue;
		if (state & INDEX_PENDING) {
			n_pending++;
			if ((state & ~INDEX_PENDING) >= x->pending.n || x->pending.at[state & ~INDEX_PENDING] != i)
				return ruv_fail(err, RUV_ECORRUPT, WHERE, "slot %u is not where it is said to be pending", i);
		} else {
			n_graph++;
			if (!x->graph || ruv_hnsw_key(x->graph->x, state) != (int64_t)i + 1)
				return ruv_fail(err, RUV_ECORRUPT, WHERE, "the graph does not hold slot %u where it should", i);
		}
	}
	if (n_pending != (int64_t)x->pending.n || n_graph != atomic_load(&x->n_in_graph) || n_live != ruv_vectors_count(x->vectors))
		return ruv_fail(err, RUV_ECORRUPT, WHERE,
		                "%lld vectors, %lld of them in the graph and %lld pending: the counts do not fit",
		                (long long)n_live, (long long)n_graph, (long long)n_pending);
	return RUV_OK;
}

int ruv_index_check(ruv_index *x, ruv_error *err)
{
	ruv_hnsw_report report;
	char *path = join(x->dir, VECTORS);
	int rc = RUV_OK;

	if (!path)
		return ruv_fail_memory(err, WHERE, strlen(x->dir));
	pthread_mutex_lock(&x->work);
	pthread_mutex_lock(&x->lock);
	rc = check_states(x, err);
	pthread_mutex_unlock(&x->lock);
	if (!rc && x->graph) {
		rc = ruv_hnsw_repair(x->graph->x, NULL, err); /* what is promised is promised of a mended graph */
		if (!rc)
			rc = ruv_hnsw_check(x->graph->x, &report, err);
	}
	if (!rc && x->graph_name[0]) {
		ruv_hnsw *again = NULL;
		rc = ruv_vectors_verify(path, err);
		if (rc == RUV_ENOTFOUND)
			rc = RUV_OK; /* another process has just replaced or dropped it */
		else if (!rc)
			rc = open_graph(&again, x->dir, x->graph_name, true, ruv_vectors_dimension(x->vectors), err);
		if (rc == RUV_ENOTFOUND)
			rc = RUV_OK;
		ruv_hnsw_free(again);
	}
	pthread_mutex_unlock(&x->work);
	free(path);
	return rc;
}
