/* journal.c - what learning must not lose: lessons, held-out ones, settings, the history of versions; DIR/learn.db.
 *
 *     lesson   id, time_ms, task, question (the user message), answer, held (0/1)
 *     event    id, time_ms, what, version, n_steps, and the gate's figures
 *     setting  key, value: live (version), last (version), paused, base (fingerprint of the model), accepted (count), steps
 * A lesson is synced before it is trained on: a crash loses at most a step, which the next background pass makes up for.
 * Threads: under the learner's work lock. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "learn/learner_object.h"
#include "model/object.h"

static const char where[] = "learn";

static const char schema[] =
    "CREATE TABLE lesson(id INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, task TEXT NOT NULL, question TEXT NOT "
    "NULL,"
    " answer TEXT NOT NULL, held INTEGER NOT NULL);"
    "CREATE TABLE event(id INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, what TEXT NOT NULL, version INTEGER NOT "
    "NULL,"
    " n_steps INTEGER NOT NULL, pass INTEGER NOT NULL, gain REAL, gain_low REAL, gain_high REAL, shuffled REAL, shuffled_low REAL,"
    " shuffled_high REAL, ratio REAL, old_drop REAL, n INTEGER, n_old INTEGER, why TEXT);"
    "CREATE TABLE setting(key TEXT PRIMARY KEY, value INTEGER NOT NULL);";

int ruv_journal_open(ruv_learner *l, ruv_error *err)
{
	char path[4200];
	int64_t base = 0;
	const int64_t mine = (int64_t)ruv_model_fingerprint(l->model);
	snprintf(path, sizeof path, "%s/learn.db", l->dir);
	int rc = ruv_sql_open(&l->journal, path, schema, 1, err);
	if (rc == RUV_OK)
		rc = ruv_journal_get(l, "base", 0, &base, err);
	if (rc == RUV_OK && base && base != mine)
		rc = ruv_fail(err, RUV_EMISMATCH, where, "%s belongs to another model than %s", l->dir, l->model->path);
	if (rc == RUV_OK && !base)
		rc = ruv_journal_set(l, "base", mine, err);
	return rc;
}

int ruv_journal_set(ruv_learner *l, const char *key, int64_t value, ruv_error *err)
{
	return ruv_sql_do(l->journal, err, "INSERT OR REPLACE INTO setting VALUES(?,?)", "ti", key, value);
}

int ruv_journal_get(ruv_learner *l, const char *key, int64_t otherwise, int64_t *value, ruv_error *err)
{
	sqlite3_stmt *stmt = NULL;
	int rc = ruv_sql_prepare(l->journal, &stmt, "SELECT value FROM setting WHERE key=?", err, "t", key);
	if (rc == RUV_OK)
		rc = ruv_sql_step(stmt, err);
	if (rc >= 0) {
		*value = rc ? sqlite3_column_int64(stmt, 0) : otherwise;
		rc = RUV_OK;
	}
	sqlite3_finalize(stmt);
	return rc;
}

int ruv_journal_lesson(ruv_learner *l, const char *task, const char *question, const char *answer, bool held, ruv_error *err)
{
	return ruv_sql_do(l->journal, err, "INSERT INTO lesson(time_ms, task, question, answer, held) VALUES(?,?,?,?,?)", "ittti",
	                  ruv_clock_wall_ms(), task, question, answer, (int64_t)held);
}

int ruv_journal_event(ruv_learner *l, const char *what, int version, const ruv_gate_result *gate, ruv_error *err)
{
	const ruv_gate_result none = {.perplexity_ratio = 1}, *g = gate ? gate : &none;
	int rc =
	    ruv_sql_do(l->journal, err,
	               "INSERT INTO event(time_ms, what, version, n_steps, pass, gain, gain_low, gain_high, shuffled, shuffled_low,"
	               " shuffled_high, ratio, old_drop, n, n_old, why) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
	               "itiiiddddddddiit", ruv_clock_wall_ms(), what, (int64_t)version, l->status.n_steps, (int64_t)g->pass,
	               g->gain, g->gain_low, g->gain_high, g->shuffled_gain, g->shuffled_low, g->shuffled_high, g->perplexity_ratio,
	               g->old_drop, (int64_t)g->n, (int64_t)g->n_old, g->why);

	if (rc)
		return rc;
	pthread_mutex_lock(&l->lock);
	l->status.n_published += !strcmp(what, "published");
	l->status.n_gates_refused += !strcmp(what, "refused");
	l->status.n_rollbacks += !strcmp(what, "rollback");
	pthread_mutex_unlock(&l->lock);
	return RUV_OK;
}

int ruv_learner_history(ruv_learner *l, ruv_learner_event *events, int limit, ruv_error *err)
{
	sqlite3_stmt *stmt = NULL;
	int n = 0;
	pthread_mutex_lock(&l->work);
	int rc = ruv_sql_prepare(l->journal, &stmt,
	                         "SELECT time_ms, what, version, n_steps, pass, gain, gain_low, gain_high, shuffled, shuffled_low,"
	                         " shuffled_high, ratio, old_drop, n, n_old, why FROM event ORDER BY id DESC LIMIT ?",
	                         err, "i", (int64_t)limit);
	while (rc >= 0 && n < limit && (rc = ruv_sql_step(stmt, err)) == 1) {
		ruv_learner_event *e = &events[n++];
		memset(e, 0, sizeof *e);
		e->time_ms = sqlite3_column_int64(stmt, 0);
		snprintf(e->what, sizeof e->what, "%s", (const char *)sqlite3_column_text(stmt, 1));
		e->version = sqlite3_column_int(stmt, 2);
		e->n_steps = sqlite3_column_int64(stmt, 3);
		e->gate = (ruv_gate_result){.pass = sqlite3_column_int(stmt, 4) != 0,
		                            .gain = sqlite3_column_double(stmt, 5),
		                            .gain_low = sqlite3_column_double(stmt, 6),
		                            .gain_high = sqlite3_column_double(stmt, 7),
		                            .shuffled_gain = sqlite3_column_double(stmt, 8),
		                            .shuffled_low = sqlite3_column_double(stmt, 9),
		                            .shuffled_high = sqlite3_column_double(stmt, 10),
		                            .perplexity_ratio = sqlite3_column_double(stmt, 11),
		                            .old_drop = sqlite3_column_double(stmt, 12),
		                            .n = sqlite3_column_int(stmt, 13),
		                            .n_old = sqlite3_column_int(stmt, 14)};
		snprintf(e->gate.why, sizeof e->gate.why, "%s", (const char *)sqlite3_column_text(stmt, 15));
	}
	sqlite3_finalize(stmt);
	pthread_mutex_unlock(&l->work);
	return rc < 0 ? rc : n;
}

int ruv_journal_load(ruv_learner *l, ruv_error *err)
{
	sqlite3_stmt *stmt = NULL;
	int rc = ruv_sql_prepare(l->journal, &stmt, "SELECT task, question, answer, held FROM lesson ORDER BY id", err, "");
	while (rc >= 0 && (rc = ruv_sql_step(stmt, err)) == 1) {
		ruv_lesson lesson;
		const int task = ruv_learner_task(l, (const char *)sqlite3_column_text(stmt, 0), err);
		rc = task < 0 ? task
		              : ruv_lesson_make(&lesson, l->model, (const char *)sqlite3_column_text(stmt, 1),
		                                (const char *)sqlite3_column_text(stmt, 2), task, err);
		if (rc == RUV_OK)
			rc = ruv_learner_keep(l, &lesson, sqlite3_column_int(stmt, 3) != 0, err);
		l->task = task;
	}
	sqlite3_finalize(stmt);
	rc = rc > 0 ? RUV_OK : rc;
	int64_t value = 0;
	struct {
		const char *key;
		int64_t *to;
	} const counters[] = {{"observed", &l->status.n_observed},   {"accepted", &l->status.n_accepted},
	                      {"corrected", &l->status.n_corrected}, {"rejected", &l->status.n_rejected},
	                      {"steps", &l->status.n_steps},         {"replayed", &l->status.n_replayed},
	                      {"skipped", &l->status.n_skipped}};
	for (size_t i = 0; i < sizeof counters / sizeof *counters && rc == RUV_OK; i++)
		rc = ruv_journal_get(l, counters[i].key, 0, counters[i].to, err);
	if (rc == RUV_OK && (rc = ruv_journal_get(l, "last", 0, &value, err)) == RUV_OK)
		l->status.last_version = (int)value;
	if (rc == RUV_OK && (rc = ruv_journal_get(l, "live", 0, &value, err)) == RUV_OK)
		atomic_store(&l->live_version, (int)value);
	if (rc == RUV_OK && (rc = ruv_journal_get(l, "paused", 0, &value, err)) == RUV_OK)
		l->paused = value != 0;
	return rc;
}

void ruv_journal_version_path(const ruv_learner *l, int version, char *path, size_t cap)
{
	snprintf(path, cap, "%s/adapters/v%06d.gguf", l->dir, version);
}
