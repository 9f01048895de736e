/* scheduler_jobs.c - requests from the caller's side: copying, queueing, waiting, taking the result.
 *
 * A job has two users, the caller and the scheduler; the one that lets go last frees it. Its results are the engine thread's until
 * `done` is set under the job's own mutex, and constant afterwards. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/status.h"
#include "infer/scheduler_object.h"

static const char where[] = "scheduler";

enum { LEAST_RETRY_MS = 1000, MOST_RETRY_MS = 60000 };

/* ---- a choice ---- */

static bool hand_on(void *user, const ruv_stream *stream, const char *text, size_t n_bytes, int n_new)
{
	const ruv_sequence *q = user;
	const ruv_generation *g = stream->out;
	const ruv_request *r = &q->job->request;
	const int from = g->n_tokens - n_new;
	const ruv_job_piece piece = {.choice = q->index,
	                             .text = text,
	                             .n_bytes = n_bytes,
	                             .n_tokens = g->n_tokens,
	                             .n_new = n_new,
	                             .tokens = g->tokens + from,
	                             .logprobs = g->logprobs ? g->logprobs + from : NULL,
	                             .top = g->top ? g->top + (size_t)from * (size_t)g->n_top : NULL,
	                             .n_top = g->n_top};
	return r->on_piece(r->user, &piece);
}

int ruv_sequence_begin(ruv_sequence *q, const ruv_model *model, ruv_sampler_scratch *scratch, int n_ctx, ruv_error *err)
{
	const ruv_request *r = &q->job->request;
	ruv_sampling sampling = q->job->params.sampling;
	if (sampling.seed)
		sampling.seed += (uint64_t)q->index;
	int rc = ruv_sampler_open_in(&q->sampler, &sampling, scratch, err);
	if (rc)
		return rc;
	q->out.n_prompt = r->n_prompt;
	q->out.seed = ruv_sampler_seed(q->sampler);
	q->has_stream = true;
	return ruv_stream_init(&q->stream, model, &q->job->params, q->constraint_state, n_ctx - r->n_prompt, &q->out,
	                       r->on_piece ? hand_on : NULL, q, err);
}

void ruv_sequence_stop(ruv_sequence *q)
{
	ruv_sampler_free(q->sampler);
	q->sampler = NULL;
	if (q->has_stream)
		ruv_stream_release(&q->stream);
	q->has_stream = false;
}

/* ---- a job ---- */

static void release_job(ruv_job *job)
{
	if (__atomic_sub_fetch(&job->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	for (int i = 0; i < job->n_choices && job->choices; i++) {
		ruv_generation_release(&job->choices[i].out);
		if (job->choices[i].constraint_state && job->params.constraint && job->params.constraint->free)
			job->params.constraint->free(job->choices[i].constraint_state);
	}
	ruv_adapter_free(job->request.adapter);
	for (int i = 0; i < job->params.n_stops && job->params.stops; i++)
		free((void *)(uintptr_t)job->params.stops[i]);
	free((void *)(uintptr_t)job->params.stops);
	free((void *)(uintptr_t)job->params.sampling.bias);
	free((void *)(uintptr_t)job->request.prompt);
	free(job->choices);
	pthread_mutex_destroy(&job->mutex);
	pthread_cond_destroy(&job->ended);
	free(job);
}

static int copy_params(ruv_job *job, const ruv_generate_params *p, ruv_error *err)
{
	ruv_generate_params *own = &job->params;
	*own = *p;
	own->on_piece = NULL;
	own->stops = NULL;
	own->n_stops = 0;
	own->sampling.bias = NULL;
	own->sampling.n_bias = 0;
	char **stops = calloc((size_t)p->n_stops + 1, sizeof *stops);
	const size_t n_bias = p->sampling.n_bias > 0 ? (size_t)p->sampling.n_bias : 0;
	ruv_logit_bias *bias = malloc((n_bias + 1) * sizeof *bias);
	own->stops = (const char *const *)stops;
	own->sampling.bias = bias;
	bool ok = stops && bias;
	if (ok && n_bias)
		memcpy(bias, p->sampling.bias, n_bias * sizeof *bias);
	own->sampling.n_bias = ok ? (int)n_bias : 0;
	for (int i = 0; ok && i < p->n_stops; i++) {
		ok = (stops[i] = strdup(p->stops[i])) != NULL;
		own->n_stops = i + 1;
	}
	return ok ? RUV_OK : ruv_fail_memory(err, where, n_bias * sizeof *bias);
}

static int create_job(ruv_job **out, const ruv_request *r, const ruv_generate_params *params, ruv_error *err)
{
	ruv_job *job = calloc(1, sizeof *job);
	if (!job)
		return ruv_fail_memory(err, where, sizeof *job);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&job->mutex, NULL);
	pthread_cond_init(&job->ended, &monotonic);
	pthread_condattr_destroy(&monotonic);
	job->n_refs = 1;
	job->request = *r;
	job->request.prompt = NULL;
	job->request.params = NULL;
	job->request.adapter = r->adapter ? ruv_adapter_hold(r->adapter) : NULL;
	job->n_choices = job->n_left = r->n_choices > 0 ? r->n_choices : 1;
	job->choices = calloc((size_t)job->n_choices, sizeof *job->choices);
	ruv_token *prompt = malloc((size_t)r->n_prompt * sizeof *prompt);
	job->request.prompt = prompt;
	int rc = job->choices && prompt ? RUV_OK : ruv_fail_memory(err, where, (size_t)r->n_prompt * sizeof *prompt);
	if (rc == RUV_OK) {
		memcpy(prompt, r->prompt, (size_t)r->n_prompt * sizeof *prompt);
		rc = copy_params(job, params, err);
	}
	const ruv_constraint *c = params->constraint;
	for (int i = 0; rc == RUV_OK && i < job->n_choices; i++) {
		job->choices[i].job = job;
		job->choices[i].index = i;
		job->choices[i].out.end_token = job->choices[i].out.stop_index = -1;
		job->choices[i].out.finish = RUV_FINISH_CANCELLED;
		if (i > 0 && c && (rc = c->fork(c->state, &job->choices[i].constraint_state, err)) > 0)
			rc = RUV_OK;
	}
	if (rc) {
		release_job(job);
		return rc;
	}
	*out = job;
	return RUV_OK;
}

/* ---- submitting ---- */

int ruv_scheduler_check(const ruv_model *model, int n_ctx, const ruv_request *r, ruv_error *err)
{
	if (r->n_prompt >= n_ctx)
		return ruv_fail(err, RUV_ECONTEXT, where,
		                "the prompt has %d tokens, but the context holds %d, of which an answer needs at least 1",
		                r->n_prompt, n_ctx);
	for (int i = 0; i < r->n_prompt; i++)
		if (r->prompt[i] < 0 || r->prompt[i] >= model->hp.n_vocab)
			return ruv_fail(err, RUV_EINVAL, where, "token %d at position %d is outside the model's vocabulary of %d",
			                r->prompt[i], i, model->hp.n_vocab);
	if (r->adapter && r->adapter->model != model)
		return ruv_fail(err, RUV_EMISMATCH, where, "the adapter belongs to another model than the request's");
	return RUV_OK;
}

static int check_shape(const ruv_request *r, const ruv_generate_params *p, ruv_error *err)
{
	if (r->n_prompt < 1 || !r->prompt)
		return ruv_fail(err, RUV_EINVAL, where, "the prompt has %d tokens, at least one is needed", r->n_prompt);
	if (r->n_choices < 0 || r->n_choices > RUV_MAX_CHOICES)
		return ruv_fail(err, RUV_EINVAL, where, "%d choices were asked for, 1..%d can be had", r->n_choices,
		                (int)RUV_MAX_CHOICES);
	if (r->n_choices > 1 && p->constraint && !p->constraint->fork)
		return ruv_fail(err, RUV_EUNSUPPORTED, where,
		                "%d choices were asked for, but this constraint can only be used by one", r->n_choices);
	return ruv_generate_params_check(p, err);
}

static int retry_after(const ruv_scheduler *s)
{
	int n_running = 0;
	for (int i = 0; i < s->n_models; i++)
		n_running += s->models[i].shown.n_running;
	const double ms = s->service_ms * (s->n_waiting_jobs + 1) / (n_running > 0 ? n_running : 1);
	return ms < LEAST_RETRY_MS ? LEAST_RETRY_MS : ms > MOST_RETRY_MS ? MOST_RETRY_MS : (int)ms;
}

int ruv_scheduler_retry_after_ms(ruv_scheduler *s)
{
	pthread_mutex_lock(&s->mutex);
	const int ms = retry_after(s);
	pthread_mutex_unlock(&s->mutex);
	return ms;
}

static int enqueue(ruv_scheduler *s, ruv_job *job, const char *name, ruv_error *err)
{
	ruv_scheduled_model *sm = NULL;
	int rc = RUV_OK;
	pthread_mutex_lock(&s->mutex);
	for (int i = 0; name && i < s->n_models; i++)
		if (strcmp(s->models[i].name, name) == 0)
			sm = &s->models[i];
	if (!sm)
		rc = ruv_fail(err, RUV_ENOTFOUND, where, "there is no model '%s'", name ? name : "");
	else if (s->draining)
		rc = ruv_fail(err, RUV_EBUSY, where, "no new requests are taken: the scheduler is being shut down");
	else if (s->n_waiting_jobs >= s->how.max_queue)
		rc = ruv_fail(err, RUV_EBUSY, where, "%d requests wait already; try again in %d s", s->n_waiting_jobs,
		              (retry_after(s) + 999) / 1000);
	else if (sm->model && sm->n_ctx)
		rc = ruv_scheduler_check(sm->model, sm->n_ctx, &job->request, err);
	if (rc == RUV_OK) {
		job->sm = sm;
		job->request.model = sm->name;
		job->submitted_ns = ruv_clock_now_ns();
		job->n_refs++; /* the scheduler's; nobody else has it yet */
		for (int i = 0; i < job->n_choices; i++)
			job->choices[i].order = s->n_orders;
		s->n_orders++;
		s->n_waiting_jobs++;
		s->n_submitted++;
		sm->n_active++;
	} else if (rc == RUV_EBUSY) {
		s->n_refused++;
	}
	pthread_mutex_unlock(&s->mutex);
	if (rc == RUV_OK) {
		ruv_scheduler_wait_again(s, sm, &job->choices[0]);
		ruv_scheduler_wake(s);
	}
	return rc;
}

int ruv_scheduler_submit(ruv_scheduler *s, const ruv_request *request, ruv_job **out, ruv_error *err)
{
	const ruv_generate_params defaults = {0};
	const ruv_generate_params *params = request->params ? request->params : &defaults;
	ruv_job *job = NULL;
	*out = NULL;
	int rc = check_shape(request, params, err);
	if (rc || (rc = create_job(&job, request, params, err)))
		return rc;
	*out = job; /* before it can run: on_done may want it */
	rc = enqueue(s, job, request->model, err);
	if (rc) {
		*out = NULL;
		release_job(job);
	}
	return rc;
}

/* ---- ends ---- */

void ruv_scheduler_job_ended(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_job *job)
{
	const int64_t now = ruv_clock_now_ns();
	bool cancelled = job->status == RUV_ECANCELLED;
	job->total_ms = (double)(now - job->submitted_ns) / 1e6;
	for (int i = 0; i < job->n_choices; i++)
		cancelled |= job->status == RUV_OK && job->choices[i].out.finish == RUV_FINISH_CANCELLED;
	ruv_latency_add(&s->work.total, job->total_ms);
	ruv_scheduler_publish(s, sm);

	const double service = job->total_ms - job->queue_ms;
	pthread_mutex_lock(&s->mutex);
	if (job->status == RUV_OK && !cancelled)
		s->n_completed++;
	else if (cancelled)
		s->n_cancelled++;
	else
		s->n_failed++;
	s->service_ms = s->service_ms > 0 ? 0.9 * s->service_ms + 0.1 * service : service;
	pthread_mutex_unlock(&s->mutex);

	pthread_mutex_lock(&job->mutex);
	job->done = true;
	pthread_cond_broadcast(&job->ended);
	pthread_mutex_unlock(&job->mutex);
	if (job->request.on_done)
		job->request.on_done(job->request.user, job);

	pthread_mutex_lock(&s->mutex);
	sm->n_active--;
	sm->used_ns = now;
	pthread_cond_broadcast(&s->idle);
	pthread_mutex_unlock(&s->mutex);
	release_job(job);
}

void ruv_job_cancel(ruv_job *job)
{
	__atomic_store_n(&job->cancelled, true, __ATOMIC_RELAXED);
}

bool ruv_job_is_done(const ruv_job *job)
{
	ruv_job *j = (ruv_job *)(uintptr_t)job;
	pthread_mutex_lock(&j->mutex);
	const bool done = j->done;
	pthread_mutex_unlock(&j->mutex);
	return done;
}

int ruv_job_status(const ruv_job *job, ruv_error *err)
{
	if (!ruv_job_is_done(job))
		return ruv_fail(err, RUV_EBUSY, where, "the request has not ended");
	if (job->status && err)
		*err = job->error;
	return job->status;
}

int ruv_job_wait(ruv_job *job, int timeout_ms, ruv_error *err)
{
	struct timespec deadline;
	clock_gettime(CLOCK_MONOTONIC, &deadline);
	const int64_t ns = deadline.tv_nsec + (int64_t)(timeout_ms > 0 ? timeout_ms : 0) * 1000000;
	deadline.tv_sec += ns / 1000000000;
	deadline.tv_nsec = ns % 1000000000;
	pthread_mutex_lock(&job->mutex);
	for (int late = 0; !job->done && late != ETIMEDOUT;)
		late = timeout_ms < 0 ? pthread_cond_wait(&job->ended, &job->mutex)
		                      : pthread_cond_timedwait(&job->ended, &job->mutex, &deadline);
	pthread_mutex_unlock(&job->mutex);
	return ruv_job_status(job, err);
}

int ruv_job_n_choices(const ruv_job *job)
{
	return job->n_choices;
}

const ruv_generation *ruv_job_result(const ruv_job *job, int i)
{
	return i >= 0 && i < job->n_choices && ruv_job_is_done(job) ? &job->choices[i].out : NULL;
}

void ruv_job_get_times(const ruv_job *job, ruv_job_times *times)
{
	*times = (ruv_job_times){0};
	if (ruv_job_is_done(job))
		*times = (ruv_job_times){job->queue_ms, job->first_token_ms, job->total_ms};
}

void ruv_job_free(ruv_job *job)
{
	if (!job)
		return;
	ruv_job_cancel(job);
	release_job(job);
}

/* ---- one answer for a thread that waits ---- */

static bool piece_of_generate(void *user, const ruv_job_piece *piece)
{
	const ruv_generate_params *params = user;
	const ruv_piece simple = {.text = piece->text, .n_bytes = piece->n_bytes, .n_tokens = piece->n_tokens};
	return piece->n_bytes == 0 || params->on_piece(params->user, &simple);
}

int ruv_scheduler_generate(ruv_scheduler *s, const ruv_request *request, ruv_generation *out, ruv_error *err)
{
	ruv_request own = *request;
	ruv_job *job = NULL;
	memset(out, 0, sizeof *out);
	own.n_choices = 1;
	own.on_done = NULL;
	own.on_piece = NULL;
	if (request->params && request->params->on_piece) {
		own.on_piece = piece_of_generate;
		own.user = (void *)(uintptr_t)request->params;
	}
	int rc = ruv_scheduler_submit(s, &own, &job, err);
	if (rc)
		return rc;
	rc = ruv_job_wait(job, -1, err);
	if (rc == RUV_OK) {
		*out = job->choices[0].out;
		job->choices[0].out = (ruv_generation){0};
	}
	ruv_job_free(job);
	return rc;
}
