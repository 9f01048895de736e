/* scheduler.c - the engine thread: admission, steps, ends. Models (loading, memory, their queues) are scheduler_models.c's,
 * requests as callers see them scheduler_jobs.c's.
 *
 * A sequence is a session in its model's page pool, of whose tokens the first session->n were run and n_known are fixed. One token
 * more known than run: it decodes, one row a step. More: its prompt (or, after preemption, all it had) is being read, in chunks of
 * whole pages. So one rule makes every step's batch, and a preempted sequence comes back by the same rule.
 *
 * Fairness: sequences wait by priority, then in the order of arrival, and the first in line is never overtaken for pages. In a step
 * every decoding sequence has its row; the rows that are left go round the reading ones a page at a time. A sequence about to read
 * what another one reads in the same step waits for it, and takes the pages from the cache then.
 *
 * Pages: a sequence takes them as it grows. When none are free, cached ones are evicted; when there are none of those, the sequence
 * that was admitted last (of the lowest priority) gives up its pages and waits again; its full pages stay in the cache as long as
 * they can. The one admitted first is never preempted, and a pool holds at least one whole context, so somebody always goes on.
 *
 * Invariants: a model's run state (pool, cache, batch, sequences) is touched by the engine thread alone. `mutex` guards the queues
 * and counts that other threads see, and is never held during a pass or a callback. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "infer/scheduler_object.h"

static const char where[] = "scheduler";

enum { PAGE = RUV_KV_PAGE_TOKENS, MAX_PENDING = 1024, SPECULATING_LANES = 8 };

/* ---- ends ---- */

static void lane_end(ruv_sequence *q)
{
	ruv_lane_release(&q->lane);
	ruv_session_free(q->session);
	q->session = NULL;
}

/* Gives up pages, deepest first, so that the cache forgets the deepest first. */
static void give_up_pages(ruv_loaded *m, ruv_sequence *q)
{
	for (int i = q->session->n_pages - 1; m->caches && i >= 0; i--)
		ruv_prefix_touch(&m->cache, q->session->pages[i]);
	ruv_session_truncate(q->session, 0, NULL);
	q->session->state_at = -1;
	q->n_keyed = 0;
	q->key = q->root;
}

static void remove_running(ruv_loaded *m, ruv_sequence *q)
{
	for (int i = 0; i < m->n_running; i++)
		if (m->running[i] == q) {
			memmove(m->running + i, m->running + i + 1, (size_t)(m->n_running - i - 1) * sizeof *m->running);
			m->n_running--;
			return;
		}
}

/* The choice has ended; rc: its failure, or RUV_OK with stream->done. */
static void end_sequence(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_sequence *q, int rc, const ruv_error *why)
{
	ruv_job *job = q->job;
	ruv_error err = {0};
	if (rc == RUV_OK && q->has_stream)
		rc = ruv_stream_finish(&q->stream, &err);
	else if (why)
		err = *why;
	q->out.decode_ms = q->first_ns ? (double)(ruv_clock_now_ns() - q->first_ns) / 1e6 : 0;
	if (q->session) {
		if (sm->loaded)
			give_up_pages(sm->loaded, q);
		lane_end(q);
	}
	if (sm->loaded)
		remove_running(sm->loaded, q);
	ruv_sequence_stop(q);
	if (rc && job->status == RUV_OK) {
		job->status = rc;
		job->error = err;
		job->error.code = rc;
		ruv_job_cancel(job); /* one choice failed: the others end too */
	}
	if (q->index == 0 && !job->spawned)
		job->n_left -= job->n_choices - 1; /* the others never began */
	if (--job->n_left == 0)
		ruv_scheduler_job_ended(s, sm, job);
}

static void cancel_sequence(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_sequence *q)
{
	if (q->has_stream && q->out.n_tokens) {
		ruv_stream_cancel(&q->stream);
		end_sequence(s, sm, q, RUV_OK, NULL);
	} else {
		ruv_error err = {0};
		ruv_fail(&err, RUV_ECANCELLED, where, "the request was cancelled before its first token");
		end_sequence(s, sm, q, RUV_ECANCELLED, &err);
	}
}

/* ---- pages ---- */

static int pages_free(ruv_loaded *m)
{
	return m->pool->n_free + (m->caches ? ruv_prefix_idle(&m->cache) : 0);
}

static bool make_free(ruv_loaded *m, int n)
{
	return m->caches ? ruv_prefix_make_free(&m->cache, n) : m->pool->n_free >= n;
}

/* Lists the pages that became full. Their keys go on where the sequence's chain stands. */
static void list_pages(ruv_loaded *m, ruv_sequence *q)
{
	ruv_session *session = q->session;
	if (!m->caches || q->job->request.no_cache)
		return;
	for (; (q->n_keyed + 1) * PAGE <= session->n; q->n_keyed++) {
		const ruv_token *tokens = session->tokens + q->n_keyed * PAGE;
		const bool has_state = session->conv_state && session->state_at == (q->n_keyed + 1) * PAGE;
		q->key = ruv_prefix_key(q->key, tokens);
		if (has_state)
			ruv_engine_lock(m->model->engine);
		ruv_prefix_add(&m->cache, q->key, tokens, session->pages[q->n_keyed], has_state ? session->conv_state : NULL);
		if (has_state)
			ruv_engine_unlock(m->model->engine);
	}
}

/* Takes what the cache has of the pages that come next, all but the last token, which is always run. */
static int adopt_pages(ruv_loaded *m, ruv_sequence *q)
{
	ruv_session *session = q->session;
	int n_tokens = 0;
	if (!m->caches || q->job->request.no_cache || session->n % PAGE || q->n_keyed * PAGE != session->n)
		return 0;
	while (session->n + PAGE < q->n_known) {
		const ruv_token *tokens = session->tokens + session->n;
		const uint64_t key = ruv_prefix_key(q->key, tokens);
		const int32_t page = ruv_prefix_find(&m->cache, key, tokens);
		if (page < 0)
			break;
		session->pages[session->n_pages++] = page;
		session->n += PAGE;
		session->state_at = -1;
		q->key = key;
		q->n_keyed++;
		n_tokens += PAGE;
	}
	if (n_tokens && session->conv_state) {
		const void *state = ruv_prefix_state(&m->cache, session->pages[session->n_pages - 1]);
		if (state) {
			ruv_engine_lock(m->model->engine);
			ruv_backend_copy(ruv_engine_backend(m->model->engine), session->conv_state, state,
			                 ruv_session_state_bytes(session));
			ruv_engine_unlock(m->model->engine);
			session->state_at = session->n;
		}
	}
	if (q->out.n_tokens == 0)
		q->out.n_kept += n_tokens;
	return n_tokens;
}

static void preempt(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_sequence *q)
{
	ruv_loaded *m = sm->loaded;
	give_up_pages(m, q);
	lane_end(q);
	remove_running(m, q);
	sm->stats.n_preempted++;
	/* what it knows is in saved */
	ruv_scheduler_wait_again(s, sm, q);
}

/* Who gives way: admitted last among the lowest priority. */
static ruv_sequence *victim(const ruv_loaded *m)
{
	ruv_sequence *worst = NULL;
	for (int i = 0; i < m->n_running; i++) {
		ruv_sequence *q = m->running[i];
		if (!worst || q->job->request.priority < worst->job->request.priority ||
		    (q->job->request.priority == worst->job->request.priority && q->order > worst->order))
			worst = q;
	}
	return worst;
}

/* Free pages for n more rows of q, others giving way; false: q itself gave way. */
static bool secure_pages(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_sequence *q, int n_pages)
{
	ruv_loaded *m = sm->loaded;
	while (!make_free(m, n_pages)) {
		ruv_sequence *loser = victim(m);
		if (loser->in_step && loser != q)
			loser = q; /* its rows are in this step already */
		if (loser == q && m->n_running == 1)
			return true; /* cannot be: a pool holds a whole context; the pass says so */
		bool self = loser == q;
		preempt(s, sm, loser);
		if (self)
			return false;
	}
	return true;
}

/* ---- admission ---- */

/* A sequence's session, sampler and stream. */
static int start_sequence(ruv_loaded *m, ruv_sequence *q, ruv_error *err)
{
	const ruv_request *r = &q->job->request;
	int rc = ruv_session_open_in(&q->session, m->model, m->pool, m->n_ctx, m->kv_type, err);
	if (rc || (r->adapter && (rc = ruv_session_set_adapter(q->session, r->adapter, err))))
		return rc;
	if (!q->has_stream) {
		rc = ruv_sequence_begin(q, m->model, m->scratch, m->n_ctx, err);
		if (rc)
			return rc;
	}
	/* prompt, and after preemption what was generated of it */
	ruv_session *session = q->session;
	memcpy(session->tokens, r->prompt, (size_t)r->n_prompt * sizeof *r->prompt);
	memcpy(session->tokens + r->n_prompt, q->out.tokens, (size_t)q->out.n_tokens * sizeof *q->out.tokens);
	q->n_known = r->n_prompt + q->out.n_tokens;
	q->root = ruv_prefix_root(ruv_model_fingerprint(m->model) ^ (uint64_t)m->kv_type, r->adapter ? r->adapter->fingerprint : 0,
	                          r->salt);
	q->key = q->root;
	q->n_keyed = 0;
	q->lane = (ruv_lane){.session = session, .n_known = q->n_known, .stream = &q->stream, .sampler = q->sampler};
	return RUV_OK;
}

/* Pages of the prompt that are in the cache and in use: they cost nothing. */
static int pages_shared(const ruv_loaded *m, const ruv_request *r)
{
	if (!m->caches || r->no_cache)
		return 0;
	uint64_t key = ruv_prefix_root(ruv_model_fingerprint(m->model) ^ (uint64_t)m->kv_type,
	                               r->adapter ? r->adapter->fingerprint : 0, r->salt);
	int n = 0;
	for (int at = 0; at + PAGE < r->n_prompt; at += PAGE) {
		key = ruv_prefix_key(key, r->prompt + at);
		const int32_t page = ruv_prefix_peek(&m->cache, key, r->prompt + at);
		if (page < 0)
			break;
		n += ruv_kv_pool_is_shared(m->pool, page);
	}
	return n;
}

/* Moves waiting sequences to running while there is room for them. */
static void admit(ruv_scheduler *s, ruv_scheduled_model *sm)
{
	ruv_loaded *m = sm->loaded;
	while (m->n_running < m->max_running) {
		ruv_sequence *q = ruv_scheduler_first_waiting(s, sm);
		ruv_error err = {0};
		if (!q)
			return;
		int rc = ruv_scheduler_check(m->model, m->n_ctx, &q->job->request, &err);
		if (rc == RUV_OK) {
			/* pages for what it knows, and one for each running sequence to grow; shared ones make it cheaper than this
			 */
			const int n_known = q->job->request.n_prompt + q->out.n_tokens;
			const int n_pages = (n_known + PAGE) / PAGE + m->n_running;
			if (m->n_running && pages_free(m) < n_pages - pages_shared(m, &q->job->request))
				return;
			rc = start_sequence(m, q, &err);
		}
		ruv_scheduler_take_waiting(s, sm, q);
		if (rc) {
			end_sequence(s, sm, q, rc, &err);
			continue;
		}
		if (!q->admitted_ns) {
			q->admitted_ns = ruv_clock_now_ns();
			if (q->index == 0)
				ruv_latency_add(&s->work.queue, (double)(q->admitted_ns - q->job->submitted_ns) / 1e6);
			q->job->queue_ms = (double)(q->admitted_ns - q->job->submitted_ns) / 1e6;
		}
		m->running[m->n_running++] = q;
		const int kept = adopt_pages(m, q);
		if (q->out.n_tokens == 0) {
			sm->stats.prompt_tokens += q->job->request.n_prompt;
			sm->stats.prefix_lookups += m->caches && !q->job->request.no_cache;
			sm->stats.prefix_hits += kept > 0;
			q->counted_hit = kept > 0;
		}
		sm->stats.prefix_hit_tokens += kept;
	}
}

/* ---- a step ---- */

struct step {
	ruv_sequence *seqs[RUV_SCHEDULER_MAX_RUNNING];
	ruv_batch_part parts[RUV_SCHEDULER_MAX_RUNNING];
	int n, n_rows;
	uint64_t pending[MAX_PENDING]; /* keys of the pages that this step reads */
	int n_pending;
};

static bool is_pending(const struct step *step, uint64_t key)
{
	for (int i = 0; i < step->n_pending; i++)
		if (step->pending[i] == key)
			return true;
	return false;
}

static void add_part(struct step *step, ruv_sequence *q, int n_rows, int n_logits, bool take_back)
{
	q->in_step = true;
	step->seqs[step->n] = q;
	step->parts[step->n++] =
	    (ruv_batch_part){.session = q->session, .n_rows = n_rows, .n_logits = n_logits, .take_back = take_back};
	step->n_rows += n_rows;
}

/* Rows that all parts of the step and `extra` more rows of q may need of the pool. */
static int pages_of_step(const struct step *step, const ruv_sequence *q, int n_rows)
{
	int n = ruv_session_pages_needed(q->session, n_rows);
	for (int i = 0; i < step->n; i++)
		n += ruv_session_pages_needed(step->parts[i].session, step->parts[i].n_rows);
	return n;
}

/* Every decoding sequence, with what was drafted for it. */
static int add_decoding(ruv_scheduler *s, ruv_scheduled_model *sm, struct step *step, ruv_lane **lanes, int *n_lanes,
                        ruv_error *err)
{
	ruv_loaded *m = sm->loaded;
	ruv_sequence *decoding[RUV_SCHEDULER_MAX_RUNNING];
	int n = 0, rc;
	for (int i = 0; i < m->n_running; i++)
		if (m->running[i]->n_known - m->running[i]->session->n == 1)
			decoding[n++] = m->running[i];
	*n_lanes = 0;
	for (int i = 0; i < n; i++)
		lanes[(*n_lanes)++] = &decoding[i]->lane;
	const bool alone = n == m->n_running && n <= SPECULATING_LANES && n * (RUV_MAX_LOOKAHEAD + 1) <= m->batch.max_rows;
	if ((rc = ruv_lanes_force(lanes, n, m->batch.max_rows - n, err)) ||
	    (rc = ruv_speculator_draft(alone ? m->speculator : NULL, lanes, n, err)))
		return rc;
	for (int i = 0; i < n; i++) {
		ruv_sequence *q = decoding[i];
		if (!q->session)
			continue;           /* gave way to one before it */
		if (q->out.n_tokens == 0) { /* the end of a prompt, whose other choices begin from this very row */
			q->lane.n_drafts = 0;
			sm->stats.prompt_computed++;
		}
		if (q->lane.n_drafts && !make_free(m, pages_of_step(step, q, 1 + q->lane.n_drafts)))
			q->lane.n_drafts = 0;
		if (!secure_pages(s, sm, q, pages_of_step(step, q, 1)))
			continue;
		const int n_rows = 1 + q->lane.n_drafts;
		add_part(step, q, n_rows, n_rows, n_rows > 1);
	}
	return RUV_OK;
}

/* A chunk of a reading sequence: to the end of a page, or of what it knows. */
static int next_chunk(const ruv_sequence *q, int n_taken)
{
	const int at = q->session->n + n_taken, left = q->n_known - at, to_page = PAGE - at % PAGE;
	return left < to_page ? left : to_page;
}

/* The rows that are left, a page at a time around the reading sequences. */
static void add_reading(ruv_scheduler *s, ruv_scheduled_model *sm, struct step *step)
{
	ruv_loaded *m = sm->loaded;
	ruv_sequence *reading[RUV_SCHEDULER_MAX_RUNNING] = {NULL};
	int rows[RUV_SCHEDULER_MAX_RUNNING], n = 0, left = m->batch.max_rows - step->n_rows;
	uint64_t keys[RUV_SCHEDULER_MAX_RUNNING];
	bool stuck[RUV_SCHEDULER_MAX_RUNNING] = {false};
	for (int i = 0; i < m->n_running; i++) {
		ruv_sequence *q = m->running[i];
		if (q->n_known - q->session->n <= 1 && q->in_step)
			continue;
		const int kept = adopt_pages(m, q);
		sm->stats.prefix_hit_tokens += kept;
		if (kept && !q->counted_hit) {
			q->counted_hit = true;
			sm->stats.prefix_hits++;
		}
		keys[n] = q->key;
		rows[n] = 0;
		reading[n++] = q;
	}
	for (bool any = true; any && left > 0;) {
		any = false;
		for (int i = 0; i < n && left > 0; i++) {
			ruv_sequence *q = reading[i];
			const int chunk = next_chunk(q, rows[i]), at = q->session->n + rows[i];
			if (stuck[i] || chunk == 0)
				continue;
			const bool whole = at % PAGE == 0 && chunk == PAGE && m->caches && !q->job->request.no_cache;
			const uint64_t key = whole ? ruv_prefix_key(keys[i], q->session->tokens + at) : 0;
			if (chunk > left && rows[i]) {
				stuck[i] = true; /* whole pages, unless it had nothing yet */
				continue;
			}
			if (whole && is_pending(step, key)) {
				stuck[i] = true; /* another one reads this page now */
				continue;
			}
			const int take = chunk < left ? chunk : left;
			if (whole && take == chunk && step->n_pending < MAX_PENDING)
				step->pending[step->n_pending++] = key;
			keys[i] = key;
			rows[i] += take;
			left -= take;
			any = true;
		}
	}
	for (int i = 0; i < n; i++) {
		ruv_sequence *q = reading[i];
		if (rows[i] == 0 || !q->session || !secure_pages(s, sm, q, pages_of_step(step, q, rows[i])))
			continue;
		const bool last = q->session->n + rows[i] == q->n_known;
		add_part(step, q, rows[i], last, false);
		if (q->out.n_tokens == 0)
			sm->stats.prompt_computed += rows[i];
	}
}

/* Rows of one adapter stand together. */
static int by_adapter(const void *a, const void *b)
{
	const ruv_sequence *x = *(ruv_sequence *const *)a, *y = *(ruv_sequence *const *)b;
	const uintptr_t ax = (uintptr_t)x->job->request.adapter, ay = (uintptr_t)y->job->request.adapter;
	if (ax != ay)
		return ax < ay ? -1 : 1;
	return (x->step_place > y->step_place) - (x->step_place < y->step_place);
}

static void group_adapters(struct step *step)
{
	bool mixed = false;
	ruv_batch_part parts[RUV_SCHEDULER_MAX_RUNNING];
	for (int i = 0; i < step->n; i++) {
		step->seqs[i]->step_place = i;
		mixed |= step->seqs[i]->job->request.adapter != step->seqs[0]->job->request.adapter;
	}
	if (!mixed)
		return;
	memcpy(parts, step->parts, (size_t)step->n * sizeof *parts);
	qsort(step->seqs, (size_t)step->n, sizeof(ruv_sequence *), by_adapter);
	for (int i = 0; i < step->n; i++)
		step->parts[i] = parts[step->seqs[i]->step_place];
}

static void token_came(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_sequence *q, int n_new)
{
	const int64_t now = ruv_clock_now_ns();
	if (n_new == 0)
		return;
	sm->stats.generated_tokens += n_new;
	if (!q->first_ns) {
		q->first_ns = now;
		q->out.prefill_ms = (double)(now - q->admitted_ns) / 1e6;
		if (q->index == 0) {
			q->job->first_token_ms = (double)(now - q->job->submitted_ns) / 1e6;
			ruv_latency_add(&s->work.first_token, q->job->first_token_ms);
		}
	} else {
		for (int i = 0; i < n_new; i++)
			ruv_latency_add(&s->work.inter_token, (double)(now - q->last_ns) / 1e6 / n_new);
	}
	q->last_ns = now;
}

/* Its tokens, or its end. */
static void take_tokens(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_sequence *q, ruv_batch_part *part)
{
	ruv_loaded *m = sm->loaded;
	ruv_error err = {0};
	int n_keep = 0;
	const int before = q->out.n_tokens;
	q->lane.n_known = q->n_known;
	int rc = ruv_speculator_accept(m->speculator, &q->lane, part->logits, &n_keep, &err);
	if (rc == RUV_OK) {
		/* a part without drafts may have many rows (a prompt's end), all of them kept */
		ruv_batch_take_back(&m->batch, part, part->take_back ? n_keep : part->n_rows);
		q->n_known = q->lane.n_known;
	}
	token_came(s, sm, q, q->out.n_tokens - before);
	if (rc || q->stream.done)
		end_sequence(s, sm, q, rc, &err);
}

/* The other choices of a job, at the end of its prompt: they share its pages and sample from the same logits. */
static void spawn_choices(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_sequence *q, ruv_batch_part *part)
{
	ruv_loaded *m = sm->loaded;
	ruv_job *job = q->job;
	for (int i = 1; i < job->n_choices; i++) {
		ruv_sequence *other = &job->choices[i];
		ruv_error err = {0};
		if (m->n_running == m->max_running) {
			ruv_scheduler_wait_again(s, sm, other);
			continue;
		}
		other->order = q->order;
		other->admitted_ns = q->admitted_ns;
		m->running[m->n_running++] = other;
		int rc = ruv_session_fork(&other->session, q->session, &err);
		if (rc == RUV_OK)
			rc = ruv_sequence_begin(other, m->model, m->scratch, m->n_ctx, &err);
		if (rc) {
			end_sequence(s, sm, other, rc, &err);
			continue;
		}
		other->n_known = q->n_known;
		other->root = q->root;
		other->key = q->key;
		other->n_keyed = q->n_keyed;
		other->out.n_kept = job->request.n_prompt;
		other->lane = (ruv_lane){
		    .session = other->session, .n_known = q->n_known, .stream = &other->stream, .sampler = other->sampler};
		ruv_batch_part same = *part;
		same.session = other->session;
		same.take_back = false;
		take_tokens(s, sm, other, &same);
	}
}

static void run_step(ruv_scheduler *s, ruv_scheduled_model *sm)
{
	ruv_loaded *m = sm->loaded;
	struct step *step = s->step;
	ruv_lane *lanes[RUV_SCHEDULER_MAX_RUNNING];
	ruv_error err = {0};
	int n_lanes = 0;
	step->n = step->n_rows = step->n_pending = 0;
	for (int i = 0; i < m->n_running; i++)
		m->running[i]->in_step = false;
	int rc = add_decoding(s, sm, step, lanes, &n_lanes, &err);
	const int n_decoding = step->n;
	if (rc == RUV_OK)
		add_reading(s, sm, step);
	if (rc == RUV_OK && step->n) {
		group_adapters(step);
		const int64_t start = ruv_clock_now_ns();
		rc = ruv_batch_run(&m->batch, step->parts, step->n, &err);
		if (rc == RUV_OK && step->n == n_decoding && n_decoding == n_lanes)
			ruv_speculator_measured(m->speculator, lanes, n_lanes, (double)(ruv_clock_now_ns() - start) / 1e6);
		sm->stats.n_steps++;
		sm->stats.n_rows += step->n_rows;
	}
	if (rc) { /* nothing that one of them did alone: all that run end with it */
		ruv_log(RUV_LOG_WARN, where, "a step of %s failed: %s", sm->name, err.message);
		while (m->n_running)
			end_sequence(s, sm, m->running[0], rc, &err);
		return;
	}
	for (int i = 0; i < step->n; i++) {
		ruv_sequence *q = step->seqs[i];
		list_pages(m, q);
		if (!step->parts[i].n_logits)
			continue;
		if (q->index == 0 && q->out.n_tokens == 0 && q->job->n_choices > 1 && !q->job->spawned) {
			q->job->spawned = true;
			spawn_choices(s, sm, q, &step->parts[i]);
		}
		take_tokens(s, sm, q, &step->parts[i]);
	}
}

/* ---- the thread ---- */

static bool wants_cancel(const ruv_job *job)
{
	return __atomic_load_n(&job->cancelled, __ATOMIC_RELAXED) || ruv_cancel_is_set(job->params.cancel);
}

static void cancel_wanted(ruv_scheduler *s, ruv_scheduled_model *sm, bool all)
{
	ruv_loaded *m = sm->loaded;
	for (int i = m ? m->n_running - 1 : -1; i >= 0; i--)
		if (i < m->n_running && (all || wants_cancel(m->running[i]->job)))
			cancel_sequence(s, sm, m->running[i]);
	for (ruv_sequence *q; (q = ruv_scheduler_cancelled_waiting(s, sm, all, wants_cancel));)
		cancel_sequence(s, sm, q);
}

/* One step of one model; false: it had nothing to do (or cannot be loaded yet). */
static bool work_on(ruv_scheduler *s, ruv_scheduled_model *sm)
{
	cancel_wanted(s, sm, false);
	if (!ruv_scheduler_has_work(s, sm))
		return false;
	if (!sm->loaded) {
		ruv_error err = {0};
		int rc = ruv_scheduler_load(s, sm, &err);
		if (rc == RUV_EBUSY)
			return false;
		for (ruv_sequence *q; rc && (q = ruv_scheduler_first_waiting(s, sm));) {
			ruv_scheduler_take_waiting(s, sm, q);
			end_sequence(s, sm, q, rc, &err);
		}
		if (rc)
			return true;
	}
	if (!ruv_scheduler_must_yield(s, sm))
		admit(s, sm);
	if (sm->loaded->n_running == 0)
		return false;
	const int64_t start = ruv_clock_now_ns();
	run_step(s, sm);
	s->work.busy_ms += (double)(ruv_clock_now_ns() - start) / 1e6;
	ruv_scheduler_publish(s, sm);
	return true;
}

void *ruv_scheduler_thread(void *arg)
{
	ruv_scheduler *s = arg;
	s->step = malloc(sizeof *s->step);
	for (int turn = 0; s->step;) {
		bool worked = false;
		const int n = ruv_scheduler_n_models(s);
		for (int i = 0; i < n; i++)
			worked |= work_on(s, &s->models[(turn + i) % n]);
		turn = n ? (turn + 1) % n : 0;
		if (ruv_scheduler_is_stopping(s))
			break;
		if (!worked)
			ruv_scheduler_sleep(s);
	}
	for (int i = 0; i < ruv_scheduler_n_models(s); i++) {
		cancel_wanted(s, &s->models[i], true);
		ruv_scheduler_unload(s, &s->models[i]);
	}
	free(s->step);
	s->step = NULL;
	return NULL;
}
