/* learner.c - one low-priority thread that turns what people accept or correct into adapters.
 *
 * observe and feedback copy into a bounded queue and return. The thread takes one item at a time: the interaction is noted, a
 * lesson is made of what was accepted or corrected, synced to the journal, and either held out or trained on at once (the instant
 * loop: one bounded step of the candidate on it and a few replayed lessons). Every background_every lessons a pass over all of them
 * follows, then the gate, then publishing: a file under a new number, the number into the journal, an atomic store that the serving
 * side reads.
 *
 * The thread runs under SCHED_IDLE where the system has it and at nice 19 elsewhere, on an engine of its own with one thread.
 * Nothing here is on the serving path but observe, feedback and ruv_learner_adapter. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status.h"
#include "base/uuid.h"
#include "learn/learner_object.h"
#include "model/object.h"

static const char where[] = "learn";

enum { DEFAULT_EPOCHS = 8, TEND_SECONDS = 5 };
#define BASE_BUDGET 1.009 /* of perplexity; the gate's limit is 1.01 */
#define INSTANT_RATE 0.3f /* of the learning rate: a step on one interaction is noisier than one of a pass */

/* ---- interactions ---- */

static char *copy_text(const char *text)
{
	return strdup(text ? text : "");
}

static void interaction_release(ruv_interaction *i)
{
	free((char *)i->user);
	free((char *)i->task);
	free((char *)i->question);
	free((char *)i->prompt);
	free((char *)i->answer);
	free((char *)i->short_answer);
	free((float *)i->embedding);
	free((int64_t *)i->strategies);
	*i = (ruv_interaction){0};
}

static int interaction_copy(ruv_interaction *to, const ruv_interaction *from, int dim, ruv_error *err)
{
	*to = *from;
	to->user = copy_text(from->user);
	to->task = copy_text(from->task && *from->task ? from->task : "ask");
	to->question = copy_text(from->question);
	to->prompt = copy_text(from->prompt ? from->prompt : from->question);
	to->answer = copy_text(from->answer);
	to->short_answer = copy_text(from->short_answer ? from->short_answer : from->answer);
	float *embedding = NULL;
	int64_t *strategies = NULL;
	bool ok = to->user && to->task && to->question && to->prompt && to->answer && to->short_answer;
	if (from->embedding && dim > 0) {
		embedding = malloc((size_t)dim * sizeof *embedding);
		ok &= embedding != NULL;
		if (embedding)
			memcpy(embedding, from->embedding, (size_t)dim * sizeof *embedding);
	}
	if (from->n_strategies > 0) {
		strategies = malloc((size_t)from->n_strategies * sizeof *strategies);
		ok &= strategies != NULL;
		if (strategies)
			memcpy(strategies, from->strategies, (size_t)from->n_strategies * sizeof *strategies);
	}
	to->embedding = embedding;
	to->strategies = strategies;
	if (ok)
		return RUV_OK;
	interaction_release(to);
	return ruv_fail_memory(err, where, 1024);
}

static void queued_release(ruv_queued *q)
{
	interaction_release(&q->what);
	free(q->correction);
	*q = (ruv_queued){0};
}

/* ---- trajectories ---- */

/* What was seen, as a trajectory with one state and one action, and a second pair when the user put it right. */
static int record(ruv_learner *l, const ruv_interaction *what, float quality, const char *correction, ruv_error *err)
{
	ruv_trajectory *t = NULL;
	float *vector = NULL;
	const float *embedding = what->embedding;
	const int dim = l->options.callbacks.embed_dim;
	int rc = ruv_trajectory_create(&t, what->task, err);
	if (rc == RUV_OK && !embedding && l->options.callbacks.embed && dim > 0) {
		vector = malloc((size_t)dim * sizeof *vector);
		rc = vector ? l->options.callbacks.embed(l->options.callbacks.user, what->question, vector, err)
		            : ruv_fail_memory(err, where, (size_t)dim * sizeof *vector);
		embedding = vector;
	}
	const bool sources = strcmp(what->prompt, what->question) != 0;
	if (rc == RUV_OK)
		rc = ruv_trajectory_add_state(t, what->question, embedding, embedding ? dim : 0, err);
	if (rc == RUV_OK)
		rc = ruv_trajectory_add_action(t, sources ? "answer from the sources" : "answer without sources", quality, err);
	if (rc == RUV_OK && correction) {
		rc = ruv_trajectory_add_state(t, "the user put it right", NULL, 0, err);
		if (rc == RUV_OK)
			rc = ruv_trajectory_add_action(t, "say what the user taught", 1, err);
	}
	if (rc == RUV_OK)
		rc = ruv_bank_record(l->bank, t, NULL, err);
	for (int i = 0; i < what->n_strategies && rc == RUV_OK; i++) {
		rc = ruv_bank_outcome(l->bank, what->strategies[i], quality >= 0.7f, err);
		rc = rc == RUV_ENOTFOUND ? RUV_OK : rc; /* pruned since */
	}
	ruv_trajectory_free(t);
	free(vector);
	return rc;
}

static ruv_seen *find_seen(ruv_learner *l, const char *id)
{
	const int64_t n = l->n_ring < RUV_LEARN_RING ? l->n_ring : RUV_LEARN_RING;
	for (int64_t i = 0; i < n; i++)
		if (!strcmp(l->ring[i].what.id, id))
			return &l->ring[i];
	return NULL;
}

/* Marks it as recorded; false when it was already, or is gone. */
static bool claim(ruv_learner *l, const char *id)
{
	pthread_mutex_lock(&l->lock);
	ruv_seen *seen = find_seen(l, id);
	const bool mine = seen && !seen->recorded;
	if (mine)
		seen->recorded = true;
	pthread_mutex_unlock(&l->lock);
	return mine;
}

/* ---- the instant loop ---- */

static void count(ruv_learner *l, int64_t *counter, const char *key)
{
	pthread_mutex_lock(&l->lock);
	const int64_t value = ++*counter;
	pthread_mutex_unlock(&l->lock);
	ruv_journal_set(l, key, value, NULL); /* a lost count is no loss */
}

/* A task ended when the next lesson is of another one. */
static int enter_task(ruv_learner *l, const char *name, ruv_error *err)
{
	const int task = ruv_learner_task(l, name, err);
	if (task < 0 || task == l->task)
		return task;
	if (l->task >= 0 && l->ewc->n_seen) {
		ruv_ewc_boundary(l->ewc, l->candidate->theta);
		int rc = ruv_journal_event(l, "boundary", atomic_load(&l->live_version), NULL, err);
		if (rc)
			return rc;
	}
	l->task = task;
	return task;
}

static int instant_step(ruv_learner *l, const ruv_example *example, ruv_error *err)
{
	const ruv_example *batch[1 + RUV_LEARN_REPLAYED] = {example};
	int n = 1;
	double loss = 0;
	for (int i = 0; i < RUV_LEARN_REPLAYED && !l->options.no_replay; i++) {
		const ruv_example *old = ruv_replay_draw(l->replay);
		if (old)
			batch[n++] = old;
	}
	const int64_t started = ruv_clock_now_ns();
	l->candidate->rate = INSTANT_RATE * l->options.learning_rate;
	int rc = ruv_learner_step(l, l->candidate, batch, n, 1, l->options.no_ewc ? NULL : l->ewc, &loss, err);
	l->candidate->rate = l->options.learning_rate;
	if (rc)
		return rc;
	l->dirty = true;
	pthread_mutex_lock(&l->lock);
	l->status.last_loss = loss;
	l->status.mean_loss = l->status.n_steps ? 0.95 * l->status.mean_loss + 0.05 * loss : loss;
	l->status.last_step_ms = (double)(ruv_clock_now_ns() - started) * 1e-6;
	l->status.n_steps++;
	l->status.n_replayed += n - 1;
	const int64_t n_steps = l->status.n_steps;
	pthread_mutex_unlock(&l->lock);
	ruv_journal_set(l, "steps", n_steps, NULL);
	return RUV_OK;
}

/* One accepted or corrected answer: into the journal, then held out or trained on. */
static int learn(ruv_learner *l, const char *task_name, const char *question, const char *answer, bool train, ruv_error *err)
{
	ruv_lesson lesson;
	const int task = enter_task(l, task_name, err);
	if (task < 0)
		return task;
	int rc = ruv_lesson_make(&lesson, l->model, question, answer, task, err);
	if (rc == RUV_ELIMIT || rc == RUV_EINVAL) { /* too long or empty: not learned from, and said so */
		count(l, &l->status.n_skipped, "skipped");
		ruv_log(RUV_LOG_INFO, where, "not learned from: %s", err->message);
		return RUV_OK;
	}
	if (rc)
		return rc;
	const int every = l->options.held_out_every;
	const bool held = every > 0 && (l->n_lessons + l->n_held + 1) % every == 0;
	rc = ruv_journal_lesson(l, task_name, question, answer, held, err);
	if (rc == RUV_OK && !held && train)
		rc = instant_step(l, &lesson.example, err);
	if (rc == RUV_OK) {
		rc = ruv_learner_keep(l, &lesson, held, err);
		l->since_background++;
	} else {
		ruv_lesson_release(&lesson);
	}
	return rc;
}

/* The taught answer in the form that answers from sources have, "[n] sentence\nAnswer: ...", when a numbered source of the prompt
 * holds it; NULL when none does (or memory is out: then this lesson is left out). */
static char *grounded_answer(const char *prompt, const char *answer)
{
	const char *at =
	    strncmp(prompt, RUV_LEARN_SOURCES, strlen(RUV_LEARN_SOURCES)) ? NULL : prompt + strlen(RUV_LEARN_SOURCES) - 1;
	const char *end = NULL;
	for (const char *next = at; next && (next = strstr(next, "\n\nQuestion: ")); next++)
		end = next; /* the last one is the question's */
	while (at && end && at < end) {
		const char *block = at + 1, *stop = strstr(block, "\n\n");
		char *rest, *text = NULL;
		stop = stop && stop < end ? stop : end;
		const long number = *block == '[' ? strtol(block + 1, &rest, 10) : 0;
		const char *line = stop; /* the block's last line is its text; a title stands before it */
		while (line > block && line[-1] != '\n')
			line--;
		if (number > 0 && *rest == ']') {
			if (line == block)
				line = rest + 2;
			const char *hit = line < stop ? strcasestr(line, answer) : NULL;
			if (hit && hit + strlen(answer) <= stop) { /* the sentence around it */
				const char *from = hit, *to = hit + strlen(answer);
				while (from > line && !(strchr(".!?", from[-1]) && *from == ' '))
					from--;
				while (to < stop && !strchr(".!?", *to))
					to++;
				to += to < stop;
				from += *from == ' ';
				return asprintf(&text, "[%ld] %.*s\nAnswer: %s", number, (int)(to - from), from, answer) < 0 ? NULL
				                                                                                             : text;
			}
		}
		at = stop + 1;
	}
	return NULL;
}

static int handle(ruv_learner *l, ruv_queued *q, bool train, ruv_error *err)
{
	const ruv_interaction *w = &q->what;
	int rc = RUV_OK;
	if (q->kind == 0) { /* nobody said anything: its own quality counts, if it is allowed to */
		const bool good = l->options.threshold > 0 && w->quality >= l->options.threshold;
		return good ? learn(l, w->task, w->question, w->short_answer, train, err) : RUV_OK;
	}
	switch (q->feedback) {
	case RUV_FEEDBACK_ACCEPT:
		if (claim(l, w->id))
			rc = record(l, w, 1, NULL, err);
		if (rc == RUV_OK)
			rc = learn(l, w->task, w->question, w->short_answer, train, err);
		if (rc == RUV_OK && strcmp(w->prompt, w->question) != 0) /* the whole exchange too, as it was */
			rc = learn(l, w->task, w->prompt, w->answer, train, err);
		count(l, &l->status.n_accepted, "accepted");
		break;
	case RUV_FEEDBACK_CORRECT:
		if (claim(l, w->id))
			rc = record(l, w, 0, q->correction, err);
		if (rc == RUV_OK)
			rc = learn(l, w->task, w->question, q->correction, train, err);
		if (rc == RUV_OK && strcmp(w->prompt, w->question) != 0) {
			char *grounded = grounded_answer(w->prompt, q->correction);
			if (grounded)
				rc = learn(l, w->task, w->prompt, grounded, train, err);
			free(grounded);
		}
		count(l, &l->status.n_corrected, "corrected");
		break;
	case RUV_FEEDBACK_REJECT:
		if (claim(l, w->id))
			rc = record(l, w, 0, NULL, err);
		count(l, &l->status.n_rejected, "rejected");
		break;
	}
	return rc;
}

/* ---- versions ---- */

static int save_state(ruv_learner *l, ruv_error *err)
{
	char path[4200];
	if (!l->dirty)
		return RUV_OK;
	snprintf(path, sizeof path, "%s/candidate.gguf", l->dir);
	int rc = ruv_microlora_save(l->candidate, path, 0, err);
	snprintf(path, sizeof path, "%s/ewc.bin", l->dir);
	if (rc == RUV_OK)
		rc = ruv_ewc_save(l->ewc, path, err);
	l->dirty = rc != RUV_OK;
	return rc;
}

/* The live adapter into l->live. */
static int load_live(ruv_learner *l, ruv_error *err)
{
	const int version = atomic_load(&l->live_version);
	char path[4300];
	ruv_microlora_reset(l->live, 1);
	if (!version)
		return RUV_OK;
	ruv_journal_version_path(l, version, path, sizeof path);
	return ruv_microlora_load(l->live, path, err);
}

static int publish(ruv_learner *l, const ruv_gate_result *gate, ruv_error *err)
{
	const int version = l->status.last_version + 1;
	char path[4300];
	ruv_journal_version_path(l, version, path, sizeof path);
	int rc = ruv_microlora_save(l->candidate, path, version, err);
	if (rc == RUV_OK)
		rc = ruv_sql_run(l->journal, "BEGIN IMMEDIATE", err);
	if (rc)
		return rc;
	if ((rc = ruv_journal_set(l, "last", version, err)) == RUV_OK &&
	    (rc = ruv_journal_set(l, "live", version, err)) == RUV_OK &&
	    (rc = ruv_journal_event(l, "published", version, gate, err)) == RUV_OK)
		rc = ruv_sql_run(l->journal, "COMMIT", err);
	if (rc) {
		ruv_sql_run(l->journal, "ROLLBACK", NULL);
		unlink(path);
		return rc;
	}
	memcpy(l->live->theta, l->candidate->theta, (size_t)l->live->n * sizeof *l->live->theta);
	pthread_mutex_lock(&l->lock);
	l->status.last_version = version;
	pthread_mutex_unlock(&l->lock);
	atomic_store(&l->live_version, version);
	return RUV_OK;
}

/* A copy of the live adapter trained on answers that belong to other questions, as often as the candidate's passes. */
static int measure_shuffled(ruv_learner *l, double *score, ruv_error *err)
{
	double *old = calloc((size_t)l->n_held + 1, sizeof *old), nll = 0;
	int *answers = malloc(((size_t)l->n_lessons + 1) * sizeof *answers), n_old = 0, rc = RUV_OK;
	ruv_microlora *control = NULL;
	ruv_rng rng;
	int hooks[RUV_VARIANT_MAX_HOOKS];
	for (int i = 0; i < l->options.n_hooks; i++)
		hooks[i] = l->options.hooks[i];
	if (!old || !answers)
		rc = ruv_fail_memory(err, where, (size_t)l->n_held * sizeof *old);
	if (rc == RUV_OK)
		rc = ruv_microlora_create(&control, l->model, hooks, l->options.n_hooks, l->options.rank, RUV_MICROLORA_SLOTS, 1,
		                          err);
	if (rc == RUV_OK) {
		ruv_microlora_copy(control, l->live);
		control->rate = l->options.learning_rate;
		ruv_rng_init(&rng, 77);
		for (int i = 0; i < l->n_lessons; i++)
			answers[i] = i;
		for (int i = l->n_lessons - 1; i > 0; i--) { /* Sattolo: nobody keeps its own */
			const int j = (int)ruv_rng_below(&rng, (uint64_t)i), swap = answers[i];
			answers[i] = answers[j];
			answers[j] = swap;
		}
		rc = ruv_learner_epochs(l, control, DEFAULT_EPOCHS, answers, NULL, err);
	}
	if (rc == RUV_OK)
		rc = ruv_learner_measure(l, control, score, old, &n_old, &nll, err);
	ruv_microlora_free(control);
	free(old);
	free(answers);
	return rc;
}

/* Mean loss per token of the base suite; `lora` NULL: of the bare model. */
static int suite_nll(ruv_learner *l, const ruv_microlora *lora, double *nll, ruv_error *err)
{
	double sum = 0, n = 0;
	int rc = RUV_OK;
	for (int i = 0; i < l->n_suite && rc == RUV_OK; i++) {
		ruv_train_seq seq = ruv_example_seq(&l->suite[i]);
		rc = ruv_microlora_measure(lora, l->backward, &seq, 1, err);
		sum += seq.nll;
		n += seq.n_targets;
	}
	*nll = n > 0 ? sum / n : 0;
	return rc;
}

static void scale_change(ruv_microlora *lora, const float *theta, float scale)
{
	memcpy(lora->theta, theta, (size_t)lora->n * sizeof *theta);
	for (int i = 0; i < lora->n_params; i++)
		for (int64_t k = 0; k < lora->params[i].rank * lora->params[i].n_out; k++)
			lora->params[i].b[k] *= scale;
}

/* An adapter that costs the base more than the gate allows would be refused however much it has learned: the largest scale of its
 * change with which base perplexity stays within BASE_BUDGET is searched by halving. */
static int fit_budget(ruv_learner *l, ruv_error *err)
{
	ruv_microlora *c = l->candidate;
	const size_t bytes = (size_t)c->n * sizeof *c->theta;
	double bare = 0, nll = 0;
	float low = 0, high = 1; /* low fits, high does not */
	int rc = suite_nll(l, NULL, &bare, err);
	if (rc == RUV_OK)
		rc = suite_nll(l, c, &nll, err);
	if (rc || nll - bare <= log(BASE_BUDGET))
		return rc;
	float *whole = malloc(bytes);
	if (!whole)
		return ruv_fail_memory(err, where, bytes);
	memcpy(whole, c->theta, bytes);
	for (int tries = 0; tries < 7 && rc == RUV_OK; tries++) {
		const float middle = (low + high) / 2;
		scale_change(c, whole, middle);
		rc = suite_nll(l, c, &nll, err);
		*(nll - bare <= log(BASE_BUDGET) ? &low : &high) = middle;
	}
	scale_change(c, whole, rc ? 1 : low);
	free(whole);
	return rc;
}

static int run_gate(ruv_learner *l, bool control, bool go_live, ruv_gate_result *result, ruv_error *err)
{
	const size_t n = (size_t)l->n_held + 1;
	double *memory = calloc(5 * n, sizeof *memory), bare_nll = 0, nll = 0, ignored = 0;
	int n_old = 0;
	if (!memory)
		return ruv_fail_memory(err, where, 5 * n * sizeof *memory);
	double *before = memory, *after = before + n, *old_before = after + n, *old_after = old_before + n,
	       *shuffled = old_after + n;
	/* perplexity against the bare model, so that versions cannot drift away a percent at a time */
	int rc = ruv_learner_measure(l, l->live, before, old_before, &n_old, &ignored, err);
	if (rc == RUV_OK)
		rc = ruv_learner_measure(l, l->candidate, after, old_after, &n_old, &nll, err);
	if (rc == RUV_OK)
		rc = suite_nll(l, NULL, &bare_nll, err);
	if (rc == RUV_OK && control && l->n_lessons > 1)
		rc = measure_shuffled(l, shuffled, err);
	if (rc == RUV_OK) {
		const ruv_gate_input input = {.before = before,
		                              .after = after,
		                              .n = l->n_held,
		                              .old_before = n_old ? old_before : NULL,
		                              .old_after = n_old ? old_after : NULL,
		                              .n_old = n_old,
		                              .base_nll_before = bare_nll,
		                              .base_nll_after = nll,
		                              .shuffled_after = control && l->n_lessons > 1 ? shuffled : NULL,
		                              .seed = 1};
		rc = ruv_gate_decide(result, &input, err);
	}
	if (rc == RUV_OK && go_live)
		rc = result->pass ? publish(l, result, err)
		                  : ruv_journal_event(l, "refused", atomic_load(&l->live_version), result, err);
	free(memory);
	return rc;
}

static int background(ruv_learner *l, int n_epochs, ruv_error *err)
{
	l->dirty = true;
	int rc = ruv_learner_epochs(l, l->candidate, n_epochs > 0 ? n_epochs : DEFAULT_EPOCHS, NULL,
	                            l->options.no_ewc ? NULL : l->ewc, err);
	l->since_background = 0;
	if (rc == RUV_OK)
		rc = fit_budget(l, err);
	return rc ? rc : save_state(l, err);
}

/* ---- the thread ---- */

static void remember_failure(ruv_learner *l, const ruv_error *err)
{
	pthread_mutex_lock(&l->lock);
	snprintf(l->status.error, sizeof l->status.error, "%.150s", err->message);
	pthread_mutex_unlock(&l->lock);
	ruv_log(RUV_LOG_WARN, where, "%s", err->message);
}

/* The next item, moved out; false when the queue is empty. Under `lock`. */
static bool take(ruv_learner *l, ruv_queued *q)
{
	if (!l->n_queued)
		return false;
	*q = l->queue[l->first];
	l->queue[l->first] = (ruv_queued){0};
	l->first = (l->first + 1) % l->options.queue_capacity;
	l->n_queued--;
	return true;
}

/* One item and what it brings about. */
static int work_one(ruv_learner *l, ruv_queued *q, ruv_error *err)
{
	pthread_mutex_lock(&l->work);
	int rc = handle(l, q, true, err);
	if (rc == RUV_OK && l->since_background >= l->options.background_every) {
		ruv_gate_result gate;
		rc = background(l, 0, err);
		if (rc == RUV_OK)
			rc = run_gate(l, true, true, &gate, err);
	}
	pthread_mutex_unlock(&l->work);
	queued_release(q);
	return rc;
}

/* What else learns; under `work`. */
static int tend(ruv_learner *l, ruv_error *err)
{
	const ruv_learner_callbacks *c = &l->options.callbacks;
	ruv_learner_event event = {.gate.perplexity_ratio = 1};
	if (!c->tend)
		return RUV_OK;
	int rc = c->tend(c->user, &event, err);
	if (rc == RUV_OK && *event.what)
		rc = ruv_journal_event(l, event.what, event.version, &event.gate, err);
	return rc;
}

/* Waits for something to do; false: the learner is closing. Under `lock`. *has_item false: nothing came, time to tend. */
static bool wait_for_work(ruv_learner *l, ruv_queued *q, bool *has_item)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TEND_SECONDS;
	int late = 0;
	while (!l->stop && (l->paused || !l->n_queued) && !(late && !l->paused))
		if (l->options.callbacks.tend && !l->paused)
			late = pthread_cond_timedwait(&l->wake, &l->lock, &until) == ETIMEDOUT;
		else
			pthread_cond_wait(&l->wake, &l->lock);
	*has_item = !l->stop && take(l, q);
	return !l->stop;
}

static void *thread_main(void *arg)
{
	ruv_learner *l = arg;
#ifdef SCHED_IDLE
	const struct sched_param none = {0};
	if (pthread_setschedparam(pthread_self(), SCHED_IDLE, &none))
#endif
		setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19);
	for (;;) {
		ruv_queued q;
		ruv_error err = {0};
		bool has_item;
		pthread_mutex_lock(&l->lock);
		if (!wait_for_work(l, &q, &has_item)) {
			pthread_mutex_unlock(&l->lock);
			return NULL;
		}
		l->busy = true;
		pthread_mutex_unlock(&l->lock);
		int rc = has_item ? work_one(l, &q, &err) : RUV_OK;
		if (rc == RUV_OK) {
			pthread_mutex_lock(&l->work);
			rc = tend(l, &err);
			pthread_mutex_unlock(&l->work);
		}
		if (rc && rc != RUV_ECANCELLED)
			remember_failure(l, &err);
		pthread_mutex_lock(&l->lock);
		l->busy = false;
		pthread_cond_broadcast(&l->idle);
		pthread_mutex_unlock(&l->lock);
	}
}

/* ---- opening ---- */

static int set_options(ruv_learner *l, const ruv_learner_options *given, ruv_error *err)
{
	ruv_learner_options *o = &l->options;
	*o = *given;
	o->memory = given->memory;
	const ruv_variant *variant = ruv_variant_find(given->variant && *given->variant ? given->variant : "base");
	if (!variant)
		return ruv_fail(err, RUV_EINVAL, where, "there is no variant '%s'", given->variant);
	if (!given->dir || !*given->dir || strlen(given->dir) > 4000 || !given->model_path || !*given->model_path)
		return ruv_fail(err, RUV_EINVAL, where, "learning needs a directory and a model file");
	/* each model its own: DIR/NAME, the file's name without its ending */
	const char *name = strrchr(given->model_path, '/') ? strrchr(given->model_path, '/') + 1 : given->model_path;
	const char *dot = strrchr(name, '.');
	if (asprintf(&l->dir, "%s/%.*s", given->dir, dot && dot > name ? (int)(dot - name) : (int)strlen(name), name) < 0)
		l->dir = NULL;
	l->user = copy_text(given->user);
	if (!l->dir || !l->user)
		return ruv_fail_memory(err, where, strlen(given->dir));
	o->dir = l->dir;
	o->user = l->user;
	o->model_path = NULL; /* the model has it */
	o->variant = variant->name;
	if (o->rank == 0)
		o->rank = variant->micro_lora_rank;
	if (!(o->learning_rate > 0))
		o->learning_rate = 1e-2f;
	if (!(o->ewc_lambda > 0))
		o->ewc_lambda = 1;
	if (o->queue_capacity <= 0)
		o->queue_capacity = 256;
	if (o->replay_capacity <= 0)
		o->replay_capacity = 4096;
	if (o->background_every <= 0)
		o->background_every = 32;
	if (o->held_out_every <= 0)
		o->held_out_every = 5;
	return RUV_OK;
}

/* One process learns in a directory at a time; others may look. */
static int lock_dir(ruv_learner *l, ruv_error *err)
{
	char path[4200];
	snprintf(path, sizeof path, "%s/learn.db", l->dir);
	if (l->options.read_only)
		return access(path, R_OK) == 0 ? RUV_OK : ruv_fail(err, RUV_ENOTFOUND, where, "nothing was learned in %s", l->dir);
	snprintf(path, sizeof path, "%s/adapters", l->dir);
	int rc = ruv_dir_create(path, err);
	if (rc)
		return rc;
	snprintf(path, sizeof path, "%s/lock", l->dir);
	l->lock_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (l->lock_file < 0)
		return ruv_fail_errno(err, RUV_EIO, errno, where, "cannot open %s", path);
	if (flock(l->lock_file, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? ruv_fail(err, RUV_EBUSY, where, "another process is learning in %s", l->dir)
		                            : ruv_fail_errno(err, RUV_EIO, errno, where, "cannot lock %s", path);
	return RUV_OK;
}

/* What changes something. */
static int may_write(const ruv_learner *l, ruv_error *err)
{
	return l->options.read_only ? ruv_fail(err, RUV_EINVAL, where, "this learner was opened to look only") : RUV_OK;
}

static int open_parts(ruv_learner *l, const char *model_path, ruv_error *err)
{
	const ruv_variant *variant = ruv_variant_find(l->options.variant);
	char path[4200];
	int rc = lock_dir(l, err);
	if (rc == RUV_OK)
		rc = ruv_model_open(&l->model, model_path, &(ruv_model_options){.n_threads = 1}, err);
	if (rc == RUV_OK && l->options.n_hooks == 0)
		l->options.n_hooks = ruv_variant_hooks(variant, l->model->hp.n_layers, l->options.hooks);
	if (rc == RUV_OK)
		rc = ruv_backward_open(&l->backward, l->model, err);
	if (rc == RUV_OK)
		rc = ruv_microlora_create(&l->candidate, l->model, l->options.hooks, l->options.n_hooks, l->options.rank,
		                          RUV_MICROLORA_SLOTS, 1, err);
	if (rc == RUV_OK)
		rc = ruv_microlora_create(&l->live, l->model, l->options.hooks, l->options.n_hooks, l->options.rank,
		                          RUV_MICROLORA_SLOTS, 1, err);
	if (rc == RUV_OK)
		rc = ruv_ewc_create(&l->ewc, l->candidate->first, l->candidate->n_groups, (double)l->options.ewc_lambda, err);
	if (rc == RUV_OK)
		rc = ruv_replay_create(&l->replay, l->options.replay_capacity, 1, err);
	if (rc == RUV_OK)
		rc = ruv_anchors_open(l, err);
	snprintf(path, sizeof path, "%s/bank.db", l->dir);
	if (rc == RUV_OK)
		rc = ruv_bank_open(
		    &l->bank, path,
		    &(ruv_bank_options){.dim = l->options.callbacks.embed_dim, .capacity = variant->pattern_capacity}, err);
	if (rc == RUV_OK)
		rc = ruv_journal_open(l, err);
	if (rc == RUV_OK)
		rc = ruv_journal_load(l, err);
	if (rc == RUV_OK)
		rc = load_live(l, err);
	if (rc)
		return rc;
	l->candidate->rate = l->options.learning_rate;
	ruv_microlora_copy(l->candidate, l->live);
	snprintf(path, sizeof path, "%s/candidate.gguf", l->dir);
	if (access(path, F_OK) == 0)
		rc = ruv_microlora_load(l->candidate, path, err);
	snprintf(path, sizeof path, "%s/ewc.bin", l->dir);
	if (rc == RUV_OK && access(path, F_OK) == 0)
		rc = ruv_ewc_load(l->ewc, path, err);
	return rc;
}

int ruv_learner_open(ruv_learner **out, const ruv_learner_options *options, ruv_error *err)
{
	*out = NULL;
	ruv_learner *l = calloc(1, sizeof *l);
	if (!l)
		return ruv_fail_memory(err, where, sizeof *l);
	pthread_mutex_init(&l->work, NULL);
	pthread_mutex_init(&l->lock, NULL);
	pthread_mutex_init(&l->adapter_lock, NULL);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&l->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_cond_init(&l->idle, NULL);
	l->task = -1;
	l->lock_file = -1;
	ruv_rng_init(&l->rng, 1);
	int rc = set_options(l, options, err);
	if (rc == RUV_OK) {
		l->queue = calloc((size_t)l->options.queue_capacity, sizeof *l->queue);
		l->ring = calloc(RUV_LEARN_RING, sizeof *l->ring);
		rc = l->queue && l->ring ? open_parts(l, options->model_path, err)
		                         : ruv_fail_memory(err, where, RUV_LEARN_RING * sizeof *l->ring);
	}
	if (rc == RUV_OK && !options->no_thread && !options->read_only) {
		const int e = pthread_create(&l->thread, NULL, thread_main, l);
		l->has_thread = e == 0;
		if (e)
			rc = ruv_fail_errno(err, RUV_ENOMEM, e, where, "cannot start the learner's thread");
	}
	if (rc) {
		ruv_learner_free(l);
		return rc;
	}
	l->opened = true;
	*out = l;
	return RUV_OK;
}

/* What waits becomes lessons in the journal, without a step; interactions without feedback their trajectory. */
static void settle(ruv_learner *l)
{
	ruv_queued q;
	ruv_error err = {0};
	while (take(l, &q)) {
		if (handle(l, &q, false, &err))
			ruv_log(RUV_LOG_WARN, where, "%s", err.message);
		queued_release(&q);
	}
	for (int64_t i = 0; i < l->n_ring && i < RUV_LEARN_RING; i++) {
		ruv_seen *seen = &l->ring[i];
		if (!seen->recorded && record(l, &seen->what, seen->what.quality, NULL, &err))
			ruv_log(RUV_LOG_WARN, where, "%s", err.message);
		seen->recorded = true;
	}
	if (save_state(l, &err))
		ruv_log(RUV_LOG_WARN, where, "%s", err.message);
}

void ruv_learner_free(ruv_learner *l)
{
	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_broadcast(&l->wake);
	pthread_mutex_unlock(&l->lock);
	if (l->has_thread)
		pthread_join(l->thread, NULL);
	if (l->journal && l->candidate && l->ewc && l->bank && l->opened && !l->options.read_only)
		settle(l);
	for (int i = 0; l->queue && i < l->options.queue_capacity; i++)
		queued_release(&l->queue[i]);
	for (int i = 0; l->ring && i < RUV_LEARN_RING; i++)
		interaction_release(&l->ring[i].what);
	for (int i = 0; i < l->n_lessons; i++)
		ruv_lesson_release(&l->lessons[i]);
	for (int i = 0; i < l->n_held; i++)
		ruv_lesson_release(&l->held[i]);
	for (int i = 0; i < l->n_anchors; i++)
		ruv_example_release(&l->anchors[i]);
	for (int i = 0; i < l->n_suite; i++)
		ruv_example_release(&l->suite[i]);
	for (int i = 0; i < l->n_tasks; i++)
		free(l->tasks[i]);
	free(l->queue);
	free(l->ring);
	free(l->lessons);
	free(l->held);
	free(l->anchors);
	free(l->suite);
	sqlite3_close(l->journal);
	ruv_bank_free(l->bank);
	ruv_replay_free(l->replay);
	ruv_ewc_free(l->ewc);
	ruv_microlora_free(l->candidate);
	ruv_microlora_free(l->live);
	ruv_backward_free(l->backward);
	ruv_adapter_free(l->adapter);
	ruv_model_free(l->model);
	if (l->lock_file >= 0)
		close(l->lock_file);
	free(l->dir);
	free(l->user);
	pthread_cond_destroy(&l->wake);
	pthread_cond_destroy(&l->idle);
	pthread_mutex_destroy(&l->adapter_lock);
	pthread_mutex_destroy(&l->lock);
	pthread_mutex_destroy(&l->work);
	free(l);
}

/* ---- the serving side ---- */

/* Under `lock`. */
static int enqueue(ruv_learner *l, ruv_queued *q, ruv_error *err)
{
	if (l->n_queued == l->options.queue_capacity) {
		l->status.n_refused++;
		queued_release(q);
		return ruv_fail(err, RUV_EBUSY, where, "%d interactions wait to be learned from; this one was not taken",
		                l->n_queued);
	}
	l->queue[(l->first + l->n_queued++) % l->options.queue_capacity] = *q;
	pthread_cond_signal(&l->wake);
	return RUV_OK;
}

int ruv_learner_observe(ruv_learner *l, ruv_interaction *given, ruv_error *err)
{
	ruv_queued q = {.kind = 0};
	ruv_interaction kept = {0};
	int rc = may_write(l, err);
	if (rc)
		return rc;
	if (!given->question || !*given->question || !given->answer)
		return ruv_fail(err, RUV_EINVAL, where, "an interaction has a question and an answer");
	if (strcmp(given->user ? given->user : "", l->user) != 0)
		return ruv_fail(err, RUV_EMISMATCH, where, "this adapter is %s%s%s; another user's interactions do not go into it",
		                *l->user ? "user '" : "nobody's in particular", l->user, *l->user ? "'s" : "");
	if (!*given->id)
		ruv_uuid_format(ruv_uuid_make(), given->id);
	rc = interaction_copy(&kept, given, l->options.callbacks.embed_dim, err);
	if (rc == RUV_OK)
		rc = interaction_copy(&q.what, given, l->options.callbacks.embed_dim, err);
	if (rc) {
		interaction_release(&kept);
		return rc;
	}
	pthread_mutex_lock(&l->lock);
	if (l->paused) {
		rc = ruv_fail(err, RUV_ECANCELLED, where, "learning is paused");
		queued_release(&q);
	} else {
		rc = enqueue(l, &q, err);
	}
	if (rc == RUV_OK) {
		ruv_seen *seen = &l->ring[l->n_ring++ % RUV_LEARN_RING];
		interaction_release(&seen->what); /* the oldest; without feedback by now */
		*seen = (ruv_seen){.what = kept};
		kept = (ruv_interaction){0};
		l->status.n_observed++;
	}
	pthread_mutex_unlock(&l->lock);
	interaction_release(&kept);
	return rc;
}

int ruv_learner_feedback(ruv_learner *l, const char *id, ruv_feedback feedback, const char *correction, ruv_error *err)
{
	ruv_queued q = {.kind = 1, .feedback = feedback};
	int rc = RUV_OK;
	if ((feedback == RUV_FEEDBACK_CORRECT) != (correction && *correction))
		return ruv_fail(err, RUV_EINVAL, where, "a correction goes with RUV_FEEDBACK_CORRECT, and with nothing else");
	pthread_mutex_lock(&l->lock);
	const ruv_seen *seen = find_seen(l, id);
	if (l->paused)
		rc = ruv_fail(err, RUV_ECANCELLED, where, "learning is paused");
	else if (!seen)
		rc = ruv_fail(err, RUV_ENOTFOUND, where, "there is no answer %s among the last %d", id, RUV_LEARN_RING);
	else
		rc = interaction_copy(&q.what, &seen->what, l->options.callbacks.embed_dim, err);
	if (rc == RUV_OK && correction && !(q.correction = strdup(correction)))
		rc = ruv_fail_memory(err, where, strlen(correction));
	if (rc == RUV_OK)
		rc = enqueue(l, &q, err);
	else
		queued_release(&q);
	pthread_mutex_unlock(&l->lock);
	return rc;
}

int ruv_learner_teach(ruv_learner *l, const char *task, const char *question, const char *answer, ruv_error *err)
{
	ruv_interaction what = {.user = l->user, .task = task, .question = question, .answer = ""};
	int rc = ruv_learner_observe(l, &what, err);
	return rc ? rc : ruv_learner_feedback(l, what.id, RUV_FEEDBACK_CORRECT, answer, err);
}

int ruv_learner_live_version(const ruv_learner *l)
{
	return atomic_load(&l->live_version);
}

ruv_bank *ruv_learner_bank(ruv_learner *l)
{
	return l->bank;
}

int ruv_learner_adapter(ruv_learner *l, ruv_model *model, ruv_adapter **out, ruv_error *err)
{
	char path[4300];
	int rc = RUV_OK;
	*out = NULL;
	const int version = atomic_load(&l->live_version);
	if (!version)
		return RUV_OK;
	pthread_mutex_lock(&l->adapter_lock);
	if (l->adapter_version != version || l->adapter_model != model) {
		ruv_adapter *fresh = NULL;
		if (ruv_model_fingerprint(model) != ruv_model_fingerprint(l->model)) {
			rc = ruv_fail(err, RUV_EMISMATCH, where, "the live adapter was learned on %s, not on %s", l->model->path,
			              model->path);
		} else {
			ruv_journal_version_path(l, version, path, sizeof path);
			rc = ruv_adapter_open(&fresh, model, path, 1, err);
		}
		if (rc == RUV_OK) {
			ruv_adapter_free(l->adapter);
			l->adapter = fresh;
			l->adapter_model = model;
			l->adapter_version = version;
		}
	}
	if (rc == RUV_OK)
		*out = ruv_adapter_hold(l->adapter);
	pthread_mutex_unlock(&l->adapter_lock);
	return rc;
}

/* ---- care ---- */

int ruv_learner_pause(ruv_learner *l, bool paused, ruv_error *err)
{
	pthread_mutex_lock(&l->work);
	int rc = may_write(l, err);
	if (rc == RUV_OK)
		rc = ruv_journal_set(l, "paused", paused, err);
	if (rc == RUV_OK)
		rc = ruv_journal_event(l, paused ? "paused" : "resumed", atomic_load(&l->live_version), NULL, err);
	pthread_mutex_unlock(&l->work);
	if (rc)
		return rc;
	pthread_mutex_lock(&l->lock);
	l->paused = paused;
	pthread_cond_broadcast(&l->wake);
	pthread_cond_broadcast(&l->idle);
	pthread_mutex_unlock(&l->lock);
	return RUV_OK;
}

int ruv_learner_work(ruv_learner *l, ruv_error *err)
{
	for (;;) {
		ruv_queued q;
		pthread_mutex_lock(&l->lock);
		while (l->has_thread && !l->paused && (l->n_queued || l->busy))
			pthread_cond_wait(&l->idle, &l->lock);
		const bool more = !l->has_thread && !l->paused && take(l, &q);
		pthread_mutex_unlock(&l->lock);
		if (!more)
			break;
		int rc = work_one(l, &q, err);
		if (rc)
			return rc;
	}
	if (l->has_thread)
		return RUV_OK;
	pthread_mutex_lock(&l->work);
	int rc = tend(l, err);
	pthread_mutex_unlock(&l->work);
	return rc;
}

int ruv_learner_train(ruv_learner *l, int n_epochs, ruv_error *err)
{
	pthread_mutex_lock(&l->work);
	int rc = may_write(l, err);
	if (rc == RUV_OK)
		rc = background(l, n_epochs, err);
	pthread_mutex_unlock(&l->work);
	return rc;
}

int ruv_learner_gate(ruv_learner *l, bool control, bool go_live, ruv_gate_result *result, ruv_error *err)
{
	pthread_mutex_lock(&l->work);
	int rc = go_live ? may_write(l, err) : RUV_OK;
	if (rc == RUV_OK)
		rc = run_gate(l, control, go_live, result, err);
	pthread_mutex_unlock(&l->work);
	return rc;
}

int ruv_learner_consolidate(ruv_learner *l, ruv_bank_report *report, ruv_error *err)
{
	const ruv_memory_scope scope = {.user = l->user};
	pthread_mutex_lock(&l->work);
	int rc = may_write(l, err);
	for (int64_t i = 0; i < RUV_LEARN_RING && rc == RUV_OK; i++) {
		ruv_interaction copy = {0};
		pthread_mutex_lock(&l->lock);
		ruv_seen *seen = i < l->n_ring ? &l->ring[i] : NULL;
		if (seen && !seen->recorded &&
		    (rc = interaction_copy(&copy, &seen->what, l->options.callbacks.embed_dim, err)) == RUV_OK)
			seen->recorded = true;
		pthread_mutex_unlock(&l->lock);
		if (rc == RUV_OK && copy.question)
			rc = record(l, &copy, copy.quality, NULL, err);
		interaction_release(&copy);
	}
	if (rc == RUV_OK)
		rc = ruv_bank_consolidate(l->bank, l->options.memory, &scope, report, err);
	pthread_mutex_unlock(&l->work);
	return rc;
}

int ruv_learner_rollback(ruv_learner *l, int version, ruv_error *err)
{
	char path[4300];
	pthread_mutex_lock(&l->work);
	int rc = may_write(l, err);
	ruv_journal_version_path(l, version, path, sizeof path);
	if (rc == RUV_OK && (version < 0 || version > l->status.last_version || (version && access(path, R_OK))))
		rc = ruv_fail(err, RUV_ENOTFOUND, where, "there is no version %d; the last is %d", version, l->status.last_version);
	if (rc == RUV_OK) { /* the file is read before anything changes */
		ruv_microlora_reset(l->live, 1);
		rc = version ? ruv_microlora_load(l->live, path, err) : RUV_OK;
	}
	if (rc == RUV_OK && (rc = ruv_sql_run(l->journal, "BEGIN IMMEDIATE", err)) == RUV_OK) {
		if ((rc = ruv_journal_set(l, "live", version, err)) == RUV_OK &&
		    (rc = ruv_journal_event(l, "rollback", version, NULL, err)) == RUV_OK)
			rc = ruv_sql_run(l->journal, "COMMIT", err);
		if (rc)
			ruv_sql_run(l->journal, "ROLLBACK", NULL);
	}
	if (rc == RUV_OK) {
		atomic_store(&l->live_version, version);
		ruv_microlora_copy(l->candidate, l->live);
		ruv_ewc_move_anchor(l->ewc, l->candidate->theta);
		l->dirty = true;
		rc = save_state(l, err);
	} else if (!l->options.read_only) {
		load_live(l, NULL);
	}
	pthread_mutex_unlock(&l->work);
	return rc;
}

int ruv_learner_merge(ruv_learner *l, const int *versions, const float *weights, int n, double *kept, ruv_error *err)
{
	enum { MOST = 16 };
	ruv_microlora *parts[MOST] = {NULL};
	float each[MOST];
	char path[4300];
	if (n < 1 || n > MOST)
		return ruv_fail(err, RUV_EINVAL, where, "%d versions to merge, 1..%d are possible", n, MOST);
	pthread_mutex_lock(&l->work);
	int rc = may_write(l, err);
	for (int i = 0; i < n && rc == RUV_OK; i++) {
		each[i] = weights ? weights[i] : 1;
		ruv_journal_version_path(l, versions[i], path, sizeof path);
		if (!isfinite(each[i]))
			rc = ruv_fail(err, RUV_EINVAL, where, "a weight of %g", (double)each[i]);
		else if (versions[i] < 1 || access(path, R_OK))
			rc = ruv_fail(err, RUV_ENOTFOUND, where, "there is no version %d; the last is %d", versions[i],
			              l->status.last_version);
		if (rc == RUV_OK)
			rc = ruv_microlora_create(&parts[i], l->model, l->options.hooks, l->options.n_hooks, l->options.rank,
			                          RUV_MICROLORA_SLOTS, 1, err);
		if (rc == RUV_OK)
			rc = ruv_microlora_load(parts[i], path, err);
	}
	if (rc == RUV_OK)
		rc = ruv_microlora_merge(l->candidate, (const ruv_microlora *const *)parts, each, n, kept, err);
	if (rc == RUV_OK) {
		ruv_microlora_clear_moments(l->candidate);
		l->dirty = true;
		rc = fit_budget(l, err);
	}
	if (rc == RUV_OK)
		rc = save_state(l, err);
	if (rc == RUV_OK)
		rc = ruv_journal_event(l, "merged", 0, NULL, err);
	for (int i = 0; i < n; i++)
		ruv_microlora_free(parts[i]);
	pthread_mutex_unlock(&l->work);
	return rc;
}

int ruv_learner_export(ruv_learner *l, int version, const char *path, ruv_error *err)
{
	char from[4300];
	char *data = NULL;
	size_t size = 0;
	version = version ? version : atomic_load(&l->live_version);
	if (!version)
		return ruv_fail(err, RUV_ENOTFOUND, where, "nothing was learned yet: no version is live");
	ruv_journal_version_path(l, version, from, sizeof from);
	int rc = ruv_file_read(&data, &size, from, (size_t)1 << 32, err);
	if (rc == RUV_OK)
		rc = ruv_file_write(path, data, size, err);
	free(data);
	return rc;
}

int ruv_learner_get_status(ruv_learner *l, ruv_learner_status *status, ruv_error *err)
{
	pthread_mutex_lock(&l->lock);
	*status = l->status;
	status->live_version = atomic_load(&l->live_version);
	status->paused = l->paused;
	status->training = l->busy;
	status->n_queued = l->n_queued;
	status->queue_capacity = l->options.queue_capacity;
	pthread_mutex_unlock(&l->lock);
	status->replay_capacity = l->replay->cap;
	status->n_params = l->candidate->n;
	status->rank = l->candidate->rank;
	status->n_hooks = l->options.n_hooks;
	memcpy(status->hooks, l->options.hooks, sizeof status->hooks);
	return ruv_bank_counts(l->bank, &status->n_trajectories, &status->n_strategies, err);
}
