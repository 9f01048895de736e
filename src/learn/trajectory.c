/* trajectory.c - trajectories, and the reasoning bank: one SQLite file of recorded trajectories and of the strategies distilled
 * from them.
 *
 *     trajectory  id, task, quality, created_ms, credit, embedding (F32 blob of the first state that has one), steps (JSON:
 *                 [{"state": ..., "actions": [[name, quality], ...]}, ...])
 *     strategy    id, text, task, from_failures, n, quality, centroid, n_used, n_helped, updated_ms, node (id of its Concept)
 *
 * Distillation reads, it does not invent: the state is that of the medoid trajectory, the actions are those that successes of the
 * cluster share and failures do not (or the other way round). ReasoningBank (Ouyang et al. 2025) asks a language model for this
 * step; models of a few million parameters cannot do it, so counting does. A strategy that is found again keeps its number, its
 * uses and its node.
 *
 * Threads: a mutex around every call. A recorded trajectory has been synced when the call returns. */
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/status.h"
#include "learn/patterns.h"
#include "learn/sql.h"
#include "ruvllm/learn.h"

static const char where[] = "trajectory";

enum { MAX_STEPS = 1024, MAX_TEXT = 1 << 16, MAX_DIM = 8192, MIN_BEHIND = 2, CONSOLIDATE_MAX = 20000 };

/* ---- trajectories ---- */

struct ruv_trajectory {
	char *task;
	json_t *steps; /* as stored */
	float *embedding;
	int dim;
	int n_actions;
	double weighted, weight;
};

int ruv_trajectory_create(ruv_trajectory **out, const char *task, ruv_error *err)
{
	*out = NULL;
	if (!task || !*task || strlen(task) > 256)
		return ruv_fail(err, RUV_EINVAL, where, "a trajectory's task is 1..256 bytes long");
	ruv_trajectory *t = calloc(1, sizeof *t);
	if (t) {
		t->task = strdup(task);
		t->steps = json_array();
	}
	if (!t || !t->task || !t->steps) {
		ruv_trajectory_free(t);
		return ruv_fail_memory(err, where, sizeof *t);
	}
	*out = t;
	return RUV_OK;
}

void ruv_trajectory_free(ruv_trajectory *t)
{
	if (!t)
		return;
	free(t->task);
	json_decref(t->steps);
	free(t->embedding);
	free(t);
}

int ruv_trajectory_add_state(ruv_trajectory *t, const char *state, const float *embedding, int dim, ruv_error *err)
{
	if (!state || strlen(state) > MAX_TEXT)
		return ruv_fail(err, RUV_EINVAL, where, "a state is a text of at most %d bytes", MAX_TEXT);
	if (json_array_size(t->steps) >= MAX_STEPS)
		return ruv_fail(err, RUV_ELIMIT, where, "a trajectory has at most %d states", MAX_STEPS);
	if (embedding && (dim < 1 || dim > MAX_DIM))
		return ruv_fail(err, RUV_EINVAL, where, "an embedding of %d elements", dim);
	for (int i = 0; embedding && i < dim; i++)
		if (!isfinite(embedding[i]))
			return ruv_fail(err, RUV_EINVAL, where, "element %d of the embedding is not finite", i);
	json_t *step = json_pack("{s:o, s:[]}", "state", json_string(state), "actions");
	if (!step)
		return ruv_fail(err, RUV_EINVAL, where, "a state must be UTF-8");
	if (embedding && !t->embedding) {
		t->embedding = malloc((size_t)dim * sizeof *t->embedding);
		if (!t->embedding) {
			json_decref(step);
			return ruv_fail_memory(err, where, (size_t)dim * sizeof(float));
		}
		memcpy(t->embedding, embedding, (size_t)dim * sizeof *embedding);
		t->dim = dim;
	}
	return json_array_append_new(t->steps, step) ? ruv_fail_memory(err, where, strlen(state)) : RUV_OK;
}

int ruv_trajectory_add_action(ruv_trajectory *t, const char *action, float quality, ruv_error *err)
{
	const size_t n = json_array_size(t->steps);
	if (n == 0)
		return ruv_fail(err, RUV_EINVAL, where, "an action needs a state before it");
	if (!action || !*action || strlen(action) > MAX_TEXT)
		return ruv_fail(err, RUV_EINVAL, where, "an action is a text of 1..%d bytes", MAX_TEXT);
	if (!(quality >= 0 && quality <= 1))
		return ruv_fail(err, RUV_EINVAL, where, "a quality of %g is not in 0..1", (double)quality);
	json_t *pair = json_pack("[s, f]", action, (double)quality);
	if (!pair)
		return ruv_fail(err, RUV_EINVAL, where, "an action must be UTF-8");
	if (json_array_append_new(json_object_get(json_array_get(t->steps, n - 1), "actions"), pair))
		return ruv_fail_memory(err, where, strlen(action));
	t->weighted = 0.9 * t->weighted + (double)quality;
	t->weight = 0.9 * t->weight + 1;
	t->n_actions++;
	return RUV_OK;
}

int ruv_trajectory_n_steps(const ruv_trajectory *t)
{
	return t->n_actions;
}

float ruv_trajectory_quality(const ruv_trajectory *t)
{
	return t->weight > 0 ? (float)(t->weighted / t->weight) : 0;
}

/* ---- the bank ---- */

static const char schema[] = "CREATE TABLE trajectory(id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, quality REAL NOT "
			     "NULL, created_ms INTEGER NOT NULL,"
			     " credit REAL NOT NULL DEFAULT 0, embedding BLOB NOT NULL, steps TEXT NOT NULL);"
			     "CREATE TABLE strategy(id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL UNIQUE, task TEXT NOT "
			     "NULL, from_failures INTEGER"
			     " NOT NULL, n INTEGER NOT NULL, quality REAL NOT NULL, centroid BLOB NOT NULL, n_used INTEGER NOT "
			     "NULL DEFAULT 0, n_helped INTEGER"
			     " NOT NULL DEFAULT 0, updated_ms INTEGER NOT NULL, node TEXT NOT NULL DEFAULT '');"
			     "CREATE TABLE setting(key TEXT PRIMARY KEY, value INTEGER NOT NULL);";

struct ruv_bank {
	pthread_mutex_t lock;
	sqlite3 *db;
	ruv_bank_options options;
	int dim;
};

int ruv_bank_open(ruv_bank **out, const char *path, const ruv_bank_options *options, ruv_error *err)
{
	int64_t dim = 0;
	*out = NULL;
	ruv_bank *b = calloc(1, sizeof *b);
	if (!b)
		return ruv_fail_memory(err, where, sizeof *b);
	if (options)
		b->options = *options;
	if (b->options.capacity <= 0)
		b->options.capacity = 50000;
	if (b->options.n_strategies_max <= 0)
		b->options.n_strategies_max = 1000;
	if (!(b->options.success > 0))
		b->options.success = 0.7f;
	if (!(b->options.failure > 0))
		b->options.failure = 0.3f;
	int rc = ruv_sql_open(&b->db, path, schema, 1, err);
	if (rc == RUV_OK)
		rc = ruv_sql_int(b->db, &dim, 0, "SELECT value FROM setting WHERE key='dim'", err);
	if (rc == RUV_OK && dim && b->options.dim && dim != b->options.dim)
		rc = ruv_fail(err, RUV_EMISMATCH, where, "%s holds embeddings of %lld elements, not of %d", path, (long long)dim,
		              b->options.dim);
	if (rc) {
		sqlite3_close(b->db);
		free(b);
		return rc;
	}
	b->dim = dim ? (int)dim : b->options.dim;
	pthread_mutex_init(&b->lock, NULL);
	*out = b;
	return RUV_OK;
}

void ruv_bank_free(ruv_bank *b)
{
	if (!b)
		return;
	sqlite3_close(b->db);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

static int check_dim(ruv_bank *b, int dim, ruv_error *err)
{
	if (!b->dim) {
		b->dim = dim;
		return ruv_sql_do(b->db, err, "INSERT OR REPLACE INTO setting VALUES('dim', ?)", "i", (int64_t)dim);
	}
	return dim == b->dim ? RUV_OK
	                     : ruv_fail(err, RUV_EMISMATCH, where, "an embedding of %d elements, the bank's have %d", dim, b->dim);
}

/* Quality halved every 30 days, and what retrieval has earned on top. SQLite 3.40 here has no pow: 2^-x by the shift of an integer
 * would be coarse, so the age goes in as 1 / (1 + age / 30 days), which halves at the same age. */
static const char evict[] = "DELETE FROM trajectory WHERE id IN (SELECT id FROM trajectory ORDER BY quality / (1 + (?1 - "
			    "created_ms) / 2592000000.0) + credit,"
			    " id LIMIT max(0, (SELECT count(*) FROM trajectory) - ?2))";

int ruv_bank_record(ruv_bank *b, const ruv_trajectory *t, int64_t *id, ruv_error *err)
{
	const int64_t now = ruv_clock_wall_ms();
	if (t->n_actions == 0)
		return ruv_fail(err, RUV_EINVAL, where, "a trajectory without an action teaches nothing");
	char *steps = json_dumps(t->steps, JSON_COMPACT);
	if (!steps)
		return ruv_fail_memory(err, where, MAX_TEXT);
	pthread_mutex_lock(&b->lock);
	int rc = t->dim ? check_dim(b, t->dim, err) : RUV_OK;
	if (rc == RUV_OK && (rc = ruv_sql_run(b->db, "BEGIN IMMEDIATE", err)) == RUV_OK) {
		rc = ruv_sql_do(b->db, err, "INSERT INTO trajectory(task, quality, created_ms, embedding, steps) VALUES(?,?,?,?,?)",
		                "tdibt", t->task, (double)ruv_trajectory_quality(t), now, (const void *)t->embedding,
		                (size_t)t->dim * sizeof(float), steps);
		if (rc == RUV_OK && id)
			*id = sqlite3_last_insert_rowid(b->db);
		if (rc == RUV_OK)
			rc = ruv_sql_do(b->db, err, evict, "ii", now, (int64_t)b->options.capacity);
		if (rc == RUV_OK)
			rc = ruv_sql_run(b->db, "COMMIT", err);
		if (rc)
			ruv_sql_run(b->db, "ROLLBACK", NULL);
	}
	pthread_mutex_unlock(&b->lock);
	free(steps);
	return rc;
}

/* ---- distilling ---- */

struct loaded {
	int64_t id;
	char *task, *steps;
	double quality;
	int64_t created_ms;
};

struct loading {
	struct loaded *items; /* [n] */
	float *vectors;       /* [n, dim] */
	int n;
};

static void loading_release(struct loading *l)
{
	for (int i = 0; i < l->n; i++) {
		free(l->items[i].task);
		free(l->items[i].steps);
	}
	free(l->items);
	free(l->vectors);
}

static int load(ruv_bank *b, struct loading *l, ruv_error *err)
{
	sqlite3_stmt *stmt = NULL;
	const size_t bytes = (size_t)b->dim * sizeof(float);
	int cap = 0,
	    rc =
		ruv_sql_prepare(b->db, &stmt,
	                        "SELECT id, task, steps, quality, created_ms, embedding FROM trajectory WHERE length(embedding) > 0"
	                        " ORDER BY id DESC LIMIT ?",
	                        err, "i", (int64_t)CONSOLIDATE_MAX);
	while (rc >= 0 && (rc = ruv_sql_step(stmt, err)) == 1) {
		if ((size_t)sqlite3_column_bytes(stmt, 5) != bytes)
			continue;
		if (l->n == cap) {
			cap = cap ? 2 * cap : 256;
			struct loaded *items = realloc(l->items, (size_t)cap * sizeof *items);
			l->items = items ? items : l->items;
			float *vectors = realloc(l->vectors, (size_t)cap * bytes);
			l->vectors = vectors ? vectors : l->vectors;
			if (!items || !vectors) {
				rc = ruv_fail_memory(err, where, (size_t)cap * bytes);
				break;
			}
		}
		memcpy(l->vectors + (size_t)l->n * (size_t)b->dim, sqlite3_column_blob(stmt, 5), bytes);
		struct loaded *item = &l->items[l->n++];
		*item = (struct loaded){.id = sqlite3_column_int64(stmt, 0),
		                        .task = ruv_sql_text(stmt, 1),
		                        .steps = ruv_sql_text(stmt, 2),
		                        .quality = sqlite3_column_double(stmt, 3),
		                        .created_ms = sqlite3_column_int64(stmt, 4)};
		if (!item->task || !item->steps) {
			rc = ruv_fail_memory(err, where, 64);
			break;
		}
	}
	sqlite3_finalize(stmt);
	return rc > 0 ? RUV_OK : rc;
}

/* An action's tally within a cluster. */
struct tally {
	const char *name;
	int good, bad, first; /* trajectories; first: where it stands in the medoid's order, for reading */
	double quality;
};

enum { MAX_TALLIES = 64, MAX_SHOWN = 4 };

static int by_use(const void *x, const void *y)
{
	const struct tally *a = x, *b = y;
	const int da = abs(a->good - a->bad), db = abs(b->good - b->bad);
	return da != db ? db - da : strcmp(a->name, b->name);
}

static int by_first(const void *x, const void *y)
{
	return ((const struct tally *)x)->first - ((const struct tally *)y)->first;
}

/* Counts each action once a trajectory. */
static int count_actions(struct tally *tallies, int n, json_t *steps, bool good, double quality)
{
	bool seen[MAX_TALLIES] = {false};
	size_t s, a;
	json_t *step, *pair;
	int place = 0;
	json_array_foreach(steps, s, step) json_array_foreach(json_object_get(step, "actions"), a, pair)
	{
		const char *name = json_string_value(json_array_get(pair, 0));
		int k = 0;
		while (name && k < n && strcmp(tallies[k].name, name) != 0)
			k++;
		if (!name || k == MAX_TALLIES || (k < n && seen[k]))
			continue;
		if (k == n)
			tallies[n++] = (struct tally){.name = name, .first = place++};
		seen[k] = true;
		tallies[k].good += good;
		tallies[k].bad += !good;
		tallies[k].quality += quality;
	}
	return n;
}

/* The text of a strategy: for the cluster's successes or failures. False when there is nothing to say. */
static bool distil(ruv_buf *text, const struct loading *l, const int *members, int n_members, int medoid, bool failures,
                   const ruv_bank_options *o, int *n_behind, double *quality)
{
	struct tally tallies[MAX_TALLIES];
	json_t *held[256];
	int n = 0, n_held = 0, n_good = 0, n_bad = 0;
	double sum = 0;
	for (int i = 0; i < n_members && n_held < 256; i++) {
		const struct loaded *t = &l->items[members[i]];
		const bool good = t->quality >= (double)o->success, bad = t->quality <= (double)o->failure;
		json_t *steps = good || bad ? json_loads(t->steps, 0, NULL) : NULL;
		if (!steps)
			continue;
		held[n_held++] = steps;
		n_good += good;
		n_bad += bad;
		sum += good != failures ? t->quality : 0;
		n = count_actions(tallies, n, steps, good, t->quality);
	}
	*n_behind = failures ? n_bad : n_good;
	*quality = *n_behind ? sum / *n_behind : 0;
	int kept = 0;
	for (int k = 0; k < n && *n_behind >= MIN_BEHIND; k++) {
		const double good = n_good ? (double)tallies[k].good / n_good : 0, bad = n_bad ? (double)tallies[k].bad / n_bad : 0;
		if (failures ? bad >= 0.5 && bad > good : good >= 0.5 && good > bad)
			tallies[kept++] = tallies[k];
	}
	if (kept) {
		json_t *steps = json_loads(l->items[medoid].steps, 0, NULL);
		const char *state = json_string_value(json_object_get(json_array_get(steps, 0), "state"));
		qsort(tallies, (size_t)kept, sizeof *tallies, by_use);
		kept = kept > MAX_SHOWN ? MAX_SHOWN : kept;
		qsort(tallies, (size_t)kept, sizeof *tallies, by_first);
		ruv_buf_printf(text, "%s (%s), like \"%.160s\": ", failures ? "Avoid" : "Do", l->items[medoid].task,
		               state ? state : "");
		for (int k = 0; k < kept; k++)
			ruv_buf_printf(text, "%s%.120s", k ? (failures ? "; " : ", then ") : "", tallies[k].name);
		json_decref(steps);
	}
	for (int i = 0; i < n_held; i++)
		json_decref(held[i]);
	return kept > 0 && !text->failed;
}

/* The member nearest to the centroid, among those that are successes (or failures). -1: none. */
static int find_medoid(const ruv_bank *b, const struct loading *l, const ruv_patterns *p, const int *members, int n, int c,
                       bool failures)
{
	int best = -1;
	double most = -INFINITY;
	for (int i = 0; i < n; i++) {
		const double quality = l->items[members[i]].quality;
		const float *v = l->vectors + (size_t)members[i] * (size_t)b->dim, *m = p->centroids + (size_t)c * (size_t)b->dim;
		double dot = 0, square = 0;
		if (failures ? quality > (double)b->options.failure : quality < (double)b->options.success)
			continue;
		for (int k = 0; k < b->dim; k++) {
			dot += (double)v[k] * m[k];
			square += (double)v[k] * v[k];
		}
		dot = square > 0 ? dot / sqrt(square) : 0;
		if (dot > most) {
			most = dot;
			best = members[i];
		}
	}
	return best;
}

static int put_strategy(ruv_bank *b, const char *text, const char *task, bool failures, int n, double quality,
                        const float *centroid, int64_t now, ruv_error *err)
{
	return ruv_sql_do(b->db, err,
	                  "INSERT INTO strategy(text, task, from_failures, n, quality, centroid, updated_ms) VALUES(?,?,?,?,?,?,?)"
	                  " ON CONFLICT(text) DO UPDATE SET n=excluded.n, quality=excluded.quality, centroid=excluded.centroid,"
	                  " updated_ms=excluded.updated_ms",
	                  "ttiidbi", text, task, (int64_t)failures, (int64_t)n, quality, (const void *)centroid,
	                  (size_t)b->dim * sizeof(float), now);
}

/* Concept nodes for strategies that have none; the node of one that is gone is forgotten by prune(). */
static int put_nodes(ruv_bank *b, ruv_memory *memory, const ruv_memory_scope *scope, ruv_error *err)
{
	sqlite3_stmt *stmt = NULL;
	int dim = 0, rc;
	ruv_memory_embedder(memory, NULL, NULL, &dim);
	rc = ruv_sql_prepare(b->db, &stmt, "SELECT id, text, task, quality, centroid, n FROM strategy WHERE node=''", err, "");
	while (rc >= 0 && (rc = ruv_sql_step(stmt, err)) == 1) {
		static const char *const tags[] = {"strategy"};
		char meta[96];
		const double quality = sqlite3_column_double(stmt, 3);
		ruv_memory_node node = {.type = RUV_NODE_CONCEPT,
		                        .text = (const char *)sqlite3_column_text(stmt, 1),
		                        .title = (const char *)sqlite3_column_text(stmt, 2),
		                        .vector = dim == b->dim ? sqlite3_column_blob(stmt, 4) : NULL,
		                        .tags = tags,
		                        .n_tags = 1,
		                        .domain = "strategy",
		                        .confidence = quality > 0.05 ? (float)quality : 0.05f,
		                        .meta = meta};
		snprintf(meta, sizeof meta, "{\"strategy\": %lld, \"trajectories\": %d}", (long long)sqlite3_column_int64(stmt, 0),
		         sqlite3_column_int(stmt, 5));
		if (scope)
			node.scope = *scope;
		rc = ruv_memory_add(memory, &node, 1, err);
		if (rc == RUV_OK)
			rc = ruv_sql_do(b->db, err, "UPDATE strategy SET node=? WHERE id=?", "ti", node.id,
			                (int64_t)sqlite3_column_int64(stmt, 0));
	}
	sqlite3_finalize(stmt);
	return rc > 0 ? RUV_OK : rc;
}

/* Strategies that were not found again and never helped, and the least useful beyond the limit. */
static int prune(ruv_bank *b, ruv_memory *memory, int64_t now, int *n_pruned, ruv_error *err)
{
	sqlite3_stmt *stmt = NULL;
	int rc = ruv_sql_prepare(
	    b->db, &stmt,
	    "SELECT id, node FROM strategy WHERE (updated_ms < ?1 AND n_helped = 0 AND ?1 - updated_ms > 2592000000)"
	    " OR id NOT IN (SELECT id FROM strategy ORDER BY (0.5 + n_helped) / (1 + n_used) * (1 + n) DESC, id LIMIT ?2)",
	    err, "ii", now, (int64_t)b->options.n_strategies_max);
	while (rc >= 0 && (rc = ruv_sql_step(stmt, err)) == 1) {
		const char *node = (const char *)sqlite3_column_text(stmt, 1);
		rc = ruv_sql_do(b->db, err, "DELETE FROM strategy WHERE id=?", "i", (int64_t)sqlite3_column_int64(stmt, 0));
		if (rc == RUV_OK && memory && node && *node) {
			rc = ruv_memory_forget(memory, &node, 1, err);
			rc = rc == RUV_ENOTFOUND ? RUV_OK : rc; /* the user forgot it first */
		}
		++*n_pruned;
	}
	sqlite3_finalize(stmt);
	return rc > 0 ? RUV_OK : rc;
}

static int distil_all(ruv_bank *b, const struct loading *l, const ruv_patterns *p, int64_t now, ruv_error *err)
{
	int *members = malloc((size_t)(l->n + 1) * sizeof *members), rc = RUV_OK;
	if (!members)
		return ruv_fail_memory(err, where, (size_t)l->n * sizeof *members);
	for (int c = 0; c < p->n && rc == RUV_OK; c++) {
		int n = 0;
		for (int i = 0; i < l->n; i++)
			if (p->of[i] == c)
				members[n++] = i;
		for (int failures = 0; failures < 2 && rc == RUV_OK; failures++) {
			const int medoid = find_medoid(b, l, p, members, n, c, failures);
			int n_behind = 0;
			double quality = 0;
			ruv_buf text;
			ruv_buf_init(&text, 4096);
			if (medoid >= 0 && distil(&text, l, members, n, medoid, failures, &b->options, &n_behind, &quality))
				rc = put_strategy(b, ruv_buf_cstr(&text), l->items[medoid].task, failures, n_behind, quality,
				                  p->centroids + (size_t)c * (size_t)b->dim, now, err);
			ruv_buf_release(&text);
		}
	}
	free(members);
	return rc;
}

int ruv_bank_consolidate(ruv_bank *b, ruv_memory *memory, const ruv_memory_scope *scope, ruv_bank_report *report, ruv_error *err)
{
	struct loading l = {0};
	ruv_patterns p = {0};
	ruv_bank_report r = {0};
	const int64_t started = ruv_clock_now_ns(), now = ruv_clock_wall_ms();
	int64_t n_strategies = 0;
	int rc = RUV_OK;
	pthread_mutex_lock(&b->lock);
	if (b->dim)
		rc = load(b, &l, err);
	if (rc == RUV_OK && l.n)
		rc = ruv_patterns_find(&p, l.vectors, l.n, b->dim, &(ruv_patterns_options){.min_size = MIN_BEHIND}, err);
	if (rc == RUV_OK && (rc = ruv_sql_run(b->db, "BEGIN IMMEDIATE", err)) == RUV_OK) {
		rc = l.n ? distil_all(b, &l, &p, now, err) : RUV_OK;
		if (rc == RUV_OK)
			rc = ruv_sql_run(b->db, "COMMIT", err);
		if (rc)
			ruv_sql_run(b->db, "ROLLBACK", NULL);
	}
	r.n_pruned = p.n_pruned;
	if (rc == RUV_OK)
		rc = prune(b, memory, now, &r.n_pruned, err);
	if (rc == RUV_OK && memory)
		rc = put_nodes(b, memory, scope, err);
	if (rc == RUV_OK)
		rc = ruv_sql_int(b->db, &n_strategies, 0, "SELECT count(*) FROM strategy", err);
	pthread_mutex_unlock(&b->lock);
	r.n_trajectories = l.n;
	r.n_clusters = p.n;
	r.n_merged = p.n_merged;
	r.n_strategies = (int)n_strategies;
	r.ms = (double)(ruv_clock_now_ns() - started) * 1e-6;
	if (report)
		*report = r;
	ruv_patterns_release(&p);
	loading_release(&l);
	return rc;
}

/* ---- using ---- */

void ruv_strategies_release(ruv_strategies *s)
{
	for (int i = 0; i < s->n; i++) {
		free(s->items[i].text);
		free(s->items[i].task);
	}
	free(s->items);
	*s = (ruv_strategies){0};
}

static double rank_of(const ruv_strategy *s)
{
	return (double)s->similarity * (0.5 + 0.5 * (1 + s->n_helped) / (2.0 + s->n_used));
}

int ruv_bank_retrieve(ruv_bank *b, const float *embedding, int dim, int k, float min_similarity, ruv_strategies *out,
                      ruv_error *err)
{
	sqlite3_stmt *stmt = NULL;
	double square = 0;
	*out = (ruv_strategies){0};
	if (k < 1 || k > 1000)
		return ruv_fail(err, RUV_EINVAL, where, "%d strategies were asked for, 1..1000 are possible", k);
	out->items = calloc((size_t)k + 1, sizeof *out->items);
	if (!out->items)
		return ruv_fail_memory(err, where, (size_t)k * sizeof *out->items);
	for (int i = 0; i < dim; i++)
		square += (double)embedding[i] * embedding[i];
	pthread_mutex_lock(&b->lock);
	int rc = b->dim && dim != b->dim
	             ? ruv_fail(err, RUV_EMISMATCH, where, "a vector of %d elements, the bank's have %d", dim, b->dim)
	             : RUV_OK;
	if (rc == RUV_OK)
		rc = ruv_sql_prepare(
		    b->db, &stmt,
		    "SELECT id, text, task, from_failures, n, quality, centroid, n_used, n_helped, updated_ms FROM strategy", err,
		    "");
	while (rc >= 0 && stmt && (rc = ruv_sql_step(stmt, err)) == 1) {
		const float *centroid = sqlite3_column_blob(stmt, 6);
		double dot = 0;
		if (sqlite3_column_bytes(stmt, 6) != dim * (int)sizeof(float) || !(square > 0))
			continue;
		for (int i = 0; i < dim; i++)
			dot += (double)embedding[i] * centroid[i];
		ruv_strategy s = {.id = sqlite3_column_int64(stmt, 0),
		                  .from_failures = sqlite3_column_int(stmt, 3) != 0,
		                  .n_trajectories = sqlite3_column_int(stmt, 4),
		                  .quality = (float)sqlite3_column_double(stmt, 5),
		                  .similarity = (float)(dot / sqrt(square)),
		                  .n_used = sqlite3_column_int(stmt, 7),
		                  .n_helped = sqlite3_column_int(stmt, 8),
		                  .updated_ms = sqlite3_column_int64(stmt, 9)};
		if (s.similarity < min_similarity || (out->n == k && rank_of(&s) <= rank_of(&out->items[k - 1])))
			continue;
		s.text = ruv_sql_text(stmt, 1);
		s.task = ruv_sql_text(stmt, 2);
		if (!s.text || !s.task) {
			free(s.text);
			free(s.task);
			rc = ruv_fail_memory(err, where, 64);
			break;
		}
		int at = out->n;
		while (at > 0 && rank_of(&out->items[at - 1]) < rank_of(&s)) {
			out->items[at] = out->items[at - 1];
			at--;
		}
		out->items[at] = s;
		if (out->n < k) {
			out->n++;
		} else { /* items has room for one more than k: what was last stands there now and falls off */
			free(out->items[k].text);
			free(out->items[k].task);
		}
	}
	sqlite3_finalize(stmt);
	pthread_mutex_unlock(&b->lock);
	if (rc < 0)
		ruv_strategies_release(out);
	return rc > 0 ? RUV_OK : rc;
}

int ruv_bank_outcome(ruv_bank *b, int64_t strategy, bool helped, ruv_error *err)
{
	pthread_mutex_lock(&b->lock);
	int rc = ruv_sql_do(b->db, err, "UPDATE strategy SET n_used = n_used + 1, n_helped = n_helped + ? WHERE id=?", "ii",
	                    (int64_t)helped, strategy);
	if (rc == RUV_OK && sqlite3_changes(b->db) == 0)
		rc = ruv_fail(err, RUV_ENOTFOUND, where, "there is no strategy %lld", (long long)strategy);
	pthread_mutex_unlock(&b->lock);
	return rc;
}

int ruv_bank_counts(ruv_bank *b, int64_t *n_trajectories, int64_t *n_strategies, ruv_error *err)
{
	pthread_mutex_lock(&b->lock);
	int rc = ruv_sql_int(b->db, n_trajectories, 0, "SELECT count(*) FROM trajectory", err);
	if (rc == RUV_OK)
		rc = ruv_sql_int(b->db, n_strategies, 0, "SELECT count(*) FROM strategy", err);
	pthread_mutex_unlock(&b->lock);
	return rc;
}
