/* scheduler_models.c - which models are in memory, what waits for them, and the figures.
 *
 * Memory: a model counts with its weights, its pages, the states beside cached pages and its draft's pages. Before one is loaded,
 * the ones used longest ago that nobody uses are unloaded until it fits; when only models in use are left, it waits, and after a
 * while the others admit nothing more until it had its turn. What can never fit is refused with both numbers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "infer/scheduler_object.h"

static const char where[] = "scheduler";

enum { DEFAULT_QUEUE = 256, DEFAULT_RUNNING = 64, DEFAULT_POOL_CONTEXTS = 8, SPECULATING_LANES = 8, PATIENCE_MS = 2000 };

static int pages_for(int n_tokens)
{
	return (n_tokens + RUV_KV_PAGE_TOKENS - 1) / RUV_KV_PAGE_TOKENS;
}

/* ---- opening ---- */

int ruv_scheduler_open(ruv_scheduler **out, const ruv_scheduler_options *options, ruv_error *err)
{
	const ruv_scheduler_options defaults = {0};
	*out = NULL;
	options = options ? options : &defaults;
	if (options->max_queue < 0 || options->max_running < 0 || options->max_running > RUV_SCHEDULER_MAX_RUNNING ||
	    options->idle_unload_ms < 0)
		return ruv_fail(err, RUV_EINVAL, where,
		                "max_queue %d, max_running %d (at most %d) or idle_unload_ms %d is out of range",
		                options->max_queue, options->max_running, (int)RUV_SCHEDULER_MAX_RUNNING, options->idle_unload_ms);
	ruv_scheduler *s = calloc(1, sizeof *s);
	if (!s)
		return ruv_fail_memory(err, where, sizeof *s);
	s->how = *options;
	if (!s->how.max_queue)
		s->how.max_queue = DEFAULT_QUEUE;
	if (!s->how.max_running)
		s->how.max_running = DEFAULT_RUNNING;
	s->engine = options->engine;
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&s->mutex, NULL);
	pthread_mutex_init(&s->load, NULL);
	pthread_cond_init(&s->wake, &monotonic);
	pthread_cond_init(&s->idle, &monotonic);
	pthread_condattr_destroy(&monotonic);
	int rc = RUV_OK;
	if (!s->engine) {
		rc = ruv_engine_open(&s->own_engine, options->n_threads, err);
		s->engine = s->own_engine;
	}
	if (rc == RUV_OK) {
		int failed = pthread_create(&s->thread, NULL, ruv_scheduler_thread, s);
		s->has_thread = failed == 0;
		if (failed)
			rc = ruv_fail_errno(err, RUV_ENOMEM, failed, where, "the engine thread could not be started");
	}
	if (rc) {
		ruv_scheduler_free(s);
		return rc;
	}
	*out = s;
	return RUV_OK;
}

void ruv_scheduler_free(ruv_scheduler *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->mutex);
	s->stopping = s->draining = s->woken = true;
	pthread_cond_broadcast(&s->wake);
	pthread_mutex_unlock(&s->mutex);
	if (s->has_thread)
		pthread_join(s->thread, NULL);
	for (int i = 0; i < s->n_models; i++) {
		ruv_scheduled_model *sm = &s->models[i];
		ruv_model_free(sm->model);
		free(sm->name);
		free(sm->path);
		free(sm->variant);
		free(sm->draft);
	}
	ruv_engine_free(s->own_engine);
	pthread_mutex_destroy(&s->mutex);
	pthread_mutex_destroy(&s->load);
	pthread_cond_destroy(&s->wake);
	pthread_cond_destroy(&s->idle);
	free(s);
}

static struct timespec deadline_of(int timeout_ms)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += timeout_ms / 1000;
	t.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

static int n_active(const ruv_scheduler *s)
{
	int n = 0;
	for (int i = 0; i < s->n_models; i++)
		n += s->models[i].n_active;
	return n;
}

int ruv_scheduler_drain(ruv_scheduler *s, int timeout_ms, ruv_error *err)
{
	const struct timespec deadline = deadline_of(timeout_ms > 0 ? timeout_ms : 0);
	int left, late = 0;
	pthread_mutex_lock(&s->mutex);
	s->draining = true;
	while ((left = n_active(s)) > 0 && late != ETIMEDOUT)
		late = timeout_ms < 0 ? pthread_cond_wait(&s->idle, &s->mutex)
		                      : pthread_cond_timedwait(&s->idle, &s->mutex, &deadline);
	pthread_mutex_unlock(&s->mutex);
	return left ? ruv_fail(err, RUV_EBUSY, where, "%d requests have not ended within %d ms", left, timeout_ms) : RUV_OK;
}

/* ---- models ---- */

static char *copy_text(const char *text, bool *ok)
{
	char *copy = text ? strdup(text) : NULL;
	*ok &= !text || copy;
	return copy;
}

static ruv_scheduled_model *find_model(ruv_scheduler *s, const char *name)
{
	for (int i = 0; name && i < s->n_models; i++)
		if (strcmp(s->models[i].name, name) == 0)
			return &s->models[i];
	return NULL;
}

int ruv_scheduler_add_model(ruv_scheduler *s, const ruv_scheduler_model *model, ruv_error *err)
{
	if (!model->name || !*model->name || !model->path == !model->model)
		return ruv_fail(err, RUV_EINVAL, where, "a model needs a name, and either a path or to be open");
	if (model->n_ctx < 0 || model->n_pool < 0 || (model->n_ctx && model->n_pool && model->n_pool < model->n_ctx) ||
	    (int)model->kv_type < RUV_KV_F16 || model->kv_type > RUV_KV_Q8_0)
		return ruv_fail(err, RUV_EINVAL, where,
		                "model '%s': n_ctx %d, n_pool %d (not below n_ctx) or kv_type %d is out of range", model->name,
		                model->n_ctx, model->n_pool, (int)model->kv_type);
	if (model->model && model->model->engine != s->engine)
		return ruv_fail(err, RUV_EMISMATCH, where, "model '%s' was opened on another engine than the scheduler's",
		                model->name);
	pthread_mutex_lock(&s->mutex);
	int rc = RUV_OK;
	if (find_model(s, model->name))
		rc = ruv_fail(err, RUV_EEXIST, where, "there is a model '%s' already", model->name);
	else if (s->n_models == RUV_MAX_SCHEDULER_MODELS)
		rc = ruv_fail(err, RUV_ELIMIT, where, "there are %d models already", s->n_models);
	else if (model->draft && !find_model(s, model->draft))
		rc = ruv_fail(err, RUV_ENOTFOUND, where, "there is no model '%s' to draft for '%s'; add it first", model->draft,
		              model->name);
	if (rc == RUV_OK) {
		ruv_scheduled_model *sm = &s->models[s->n_models];
		bool ok = true;
		*sm = (ruv_scheduled_model){.how = *model, .pinned = model->model != NULL};
		sm->name = copy_text(model->name, &ok);
		sm->path = copy_text(model->path, &ok);
		sm->variant = copy_text(model->variant, &ok);
		sm->draft = copy_text(model->draft, &ok);
		if (ok) {
			sm->how.name = sm->stats.name = sm->shown.name = sm->name;
			sm->how.path = sm->path;
			sm->how.variant = sm->variant;
			sm->how.draft = sm->draft;
			sm->model = model->model ? ruv_model_hold(model->model) : NULL;
			s->n_models++;
		} else {
			free(sm->name);
			free(sm->path);
			free(sm->variant);
			free(sm->draft);
			rc = ruv_fail_memory(err, where, strlen(model->name));
		}
	}
	pthread_mutex_unlock(&s->mutex);
	return rc;
}

/* Opens the file; the load mutex is held. */
static int open_model(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_error *err)
{
	if (sm->model)
		return RUV_OK;
	ruv_model *model = NULL;
	const ruv_model_options options = {.engine = s->engine, .n_batch = sm->how.n_batch, .variant = sm->variant};
	int rc = ruv_model_open(&model, sm->path, &options, err);
	if (rc)
		return rc;
	pthread_mutex_lock(&s->mutex);
	sm->model = model;
	pthread_mutex_unlock(&s->mutex);
	return RUV_OK;
}

static size_t page_bytes(const ruv_model *model, ruv_kv_type type)
{
	const ruv_hparams *hp = &model->hp;
	return (size_t)hp->n_attention * 2 * (size_t)hp->n_kv_heads * RUV_KV_PAGE_TOKENS *
	       ruv_dtype_row_bytes(ruv_session_kv_dtype(type), hp->head_dim);
}

/* Unloads the idle model that was used longest ago, and that is not `but`; false: none. The load mutex is held; by the engine
 * thread. */
static bool unload_one(ruv_scheduler *s, const ruv_scheduled_model *but)
{
	ruv_scheduled_model *oldest = NULL;
	pthread_mutex_lock(&s->mutex);
	for (int i = 0; i < s->n_models; i++) {
		ruv_scheduled_model *sm = &s->models[i];
		if (sm == but || sm->pinned || !sm->loaded || sm->n_active || (oldest && sm->used_ns >= oldest->used_ns))
			continue;
		/* the scheduler's own: its reference, the run state's, its batch's, and those of models that it drafts for */
		if (__atomic_load_n(&sm->model->n_refs, __ATOMIC_RELAXED) <= 3)
			oldest = sm;
	}
	pthread_mutex_unlock(&s->mutex);
	if (oldest)
		ruv_scheduler_unload(s, oldest);
	return oldest != NULL;
}

static void release_loaded(ruv_loaded *m)
{
	if (!m)
		return;
	ruv_speculator_free(m->speculator);
	ruv_batch_release(&m->batch);
	ruv_sampler_scratch_free(m->scratch);
	if (m->pool) {
		ruv_engine_lock(m->model->engine);
		if (m->caches)
			ruv_prefix_cache_release(&m->cache);
		ruv_kv_pool_free(m->pool);
		ruv_engine_unlock(m->model->engine);
	}
	ruv_model_free(m->model);
	free(m);
}

static int open_run_state(ruv_loaded *m, const ruv_scheduled_model *sm, int n_pages, ruv_model *draft, ruv_error *err)
{
	const ruv_hparams *hp = &m->model->hp;
	int rc;
	ruv_engine_lock(m->model->engine);
	rc = ruv_kv_pool_open(&m->pool, ruv_engine_backend(m->model->engine), hp->n_attention, hp->n_kv_heads, hp->head_dim,
	                      ruv_session_kv_dtype(m->kv_type), n_pages, err);
	if (rc == RUV_OK && !sm->how.no_prefix_cache) {
		rc = ruv_prefix_cache_init(&m->cache, m->pool, (size_t)hp->n_conv * 2 * (size_t)hp->hidden * sizeof(float), err);
		m->caches = rc == RUV_OK;
	}
	ruv_engine_unlock(m->model->engine);
	if (rc || (rc = ruv_batch_init(&m->batch, m->model, m->model->n_batch, m->max_running, m->n_ctx, err)) ||
	    (rc = ruv_sampler_scratch_open(&m->scratch, m->model->may_sample, hp->n_vocab, err)))
		return rc;
	if (!draft && !sm->how.prompt_lookup)
		return RUV_OK;
	const ruv_speculation how = {.draft = draft, .prompt_lookup = sm->how.prompt_lookup};
	return ruv_speculator_open(&m->speculator, m->model, &how, m->n_ctx, SPECULATING_LANES, err);
}

/* Makes room for `bytes` more; RUV_EBUSY when others use what it takes, RUV_ELIMIT when it is more than the whole limit. */
static int make_memory(ruv_scheduler *s, const ruv_scheduled_model *sm, size_t bytes, ruv_error *err)
{
	const size_t limit = s->how.memory_bytes;
	if (!limit)
		return RUV_OK;
	if (bytes > limit)
		return ruv_fail(err, RUV_ELIMIT, where, "model '%s' needs %zu MB, but the memory limit is %zu MB", sm->name,
		                bytes >> 20, limit >> 20);
	while (s->memory_bytes + bytes > limit)
		if (!unload_one(s, sm))
			return ruv_fail(err, RUV_EBUSY, where,
			                "model '%s' needs %zu MB, but of %zu MB %zu are in use by other models", sm->name,
			                bytes >> 20, limit >> 20, s->memory_bytes >> 20);
	return RUV_OK;
}

static int load(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_error *err)
{
	int rc = open_model(s, sm, err);
	if (rc)
		return rc;
	const ruv_model *model = sm->model;
	ruv_scheduled_model *drafter = sm->draft ? find_model(s, sm->draft) : NULL;
	if (drafter && (rc = open_model(s, drafter, err)))
		return rc;
	const int n_ctx = ruv_session_pick_ctx(model, sm->how.n_ctx, sm->how.allow_longer, err);
	if (n_ctx < 0)
		return n_ctx;
	ruv_model_info info;
	ruv_model_get_info(model, &info);
	/* a page, its state, and its place in the tables */
	const size_t per_page = page_bytes(model, sm->how.kv_type) + (sm->how.no_prefix_cache ? 0 : info.state_bytes) + 512;
	size_t fixed = info.n_bytes;
	if (drafter)
		fixed += (drafter->loaded ? 0 : drafter->model->weights.n_bytes) +
		         (size_t)SPECULATING_LANES * (size_t)pages_for(n_ctx) * page_bytes(drafter->model, RUV_KV_F16);
	int n_pages = pages_for(sm->how.n_pool ? sm->how.n_pool : DEFAULT_POOL_CONTEXTS * n_ctx);
	n_pages = n_pages < pages_for(n_ctx) ? pages_for(n_ctx) : n_pages;
	if (s->how.memory_bytes && !sm->how.n_pool) /* fewer pages rather than no model */
		while (n_pages > pages_for(n_ctx) && fixed + (size_t)n_pages * per_page > s->how.memory_bytes / 2)
			n_pages--;
	const size_t bytes = fixed + (size_t)n_pages * per_page;
	if ((rc = make_memory(s, sm, bytes, err)))
		return rc;
	ruv_loaded *m = calloc(1, sizeof *m);
	if (!m)
		return ruv_fail_memory(err, where, sizeof *m);
	m->model = ruv_model_hold(sm->model);
	m->n_ctx = n_ctx;
	m->kv_type = sm->how.kv_type;
	m->max_running = s->how.max_running < model->n_batch ? s->how.max_running : model->n_batch;
	rc = open_run_state(m, sm, n_pages, drafter ? drafter->model : NULL, err);
	if (rc) {
		release_loaded(m);
		return rc;
	}
	pthread_mutex_lock(&s->mutex);
	sm->loaded = m;
	sm->n_ctx = n_ctx;
	sm->memory_bytes = bytes;
	sm->starved_ns = 0;
	sm->used_ns = ruv_clock_now_ns();
	s->memory_bytes += bytes;
	pthread_mutex_unlock(&s->mutex);
	sm->stats.n_loads++;
	ruv_log(RUV_LOG_INFO, where, "model %s: %zu MB, %d pages of %d tokens", sm->name, bytes >> 20, n_pages,
	        (int)RUV_KV_PAGE_TOKENS);
	ruv_scheduler_publish(s, sm);
	return RUV_OK;
}

int ruv_scheduler_load(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_error *err)
{
	pthread_mutex_lock(&s->load);
	int rc = load(s, sm, err);
	pthread_mutex_unlock(&s->load);
	if (rc == RUV_EBUSY) {
		pthread_mutex_lock(&s->mutex);
		if (!sm->starved_ns)
			sm->starved_ns = ruv_clock_now_ns();
		pthread_mutex_unlock(&s->mutex);
	}
	return rc;
}

void ruv_scheduler_unload(ruv_scheduler *s, ruv_scheduled_model *sm)
{
	ruv_loaded *m = sm->loaded;
	if (!m)
		return;
	ruv_model *model = NULL;
	pthread_mutex_lock(&s->mutex);
	sm->loaded = NULL;
	s->memory_bytes -= sm->memory_bytes;
	sm->memory_bytes = 0;
	if (!sm->pinned) {
		model = sm->model;
		sm->model = NULL;
	}
	pthread_mutex_unlock(&s->mutex);
	release_loaded(m);
	ruv_model_free(model);
	sm->stats.n_unloads++;
	ruv_scheduler_publish(s, sm);
}

int ruv_scheduler_acquire(ruv_scheduler *s, const char *name, ruv_model **out, ruv_error *err)
{
	*out = NULL;
	pthread_mutex_lock(&s->mutex);
	ruv_scheduled_model *sm = find_model(s, name);
	if (sm && sm->model)
		*out = ruv_model_hold(sm->model);
	pthread_mutex_unlock(&s->mutex);
	if (!sm)
		return ruv_fail(err, RUV_ENOTFOUND, where, "there is no model '%s'", name ? name : "");
	if (*out)
		return RUV_OK;
	pthread_mutex_lock(&s->load);
	int rc = open_model(s, sm, err);
	if (rc == RUV_OK)
		*out = ruv_model_hold(sm->model);
	pthread_mutex_unlock(&s->load);
	return rc;
}

int ruv_scheduler_n_ctx(ruv_scheduler *s, const char *name)
{
	int n = RUV_ENOTFOUND;
	pthread_mutex_lock(&s->mutex);
	const ruv_scheduled_model *sm = find_model(s, name);
	if (sm)
		n = sm->n_ctx   ? sm->n_ctx
		    : sm->model ? ruv_session_pick_ctx(sm->model, sm->how.n_ctx, sm->how.allow_longer, NULL)
		                : sm->how.n_ctx;
	pthread_mutex_unlock(&s->mutex);
	return n;
}

/* ---- queues ---- */

int ruv_scheduler_n_models(ruv_scheduler *s)
{
	pthread_mutex_lock(&s->mutex);
	const int n = s->n_models;
	pthread_mutex_unlock(&s->mutex);
	return n;
}

bool ruv_scheduler_is_stopping(ruv_scheduler *s)
{
	pthread_mutex_lock(&s->mutex);
	const bool stopping = s->stopping;
	pthread_mutex_unlock(&s->mutex);
	return stopping;
}

bool ruv_scheduler_has_work(ruv_scheduler *s, ruv_scheduled_model *sm)
{
	pthread_mutex_lock(&s->mutex);
	const bool work = sm->n_waiting || (sm->loaded && sm->loaded->n_running);
	pthread_mutex_unlock(&s->mutex);
	return work;
}

bool ruv_scheduler_must_yield(ruv_scheduler *s, ruv_scheduled_model *sm)
{
	bool yield = false;
	const int64_t now = ruv_clock_now_ns();
	pthread_mutex_lock(&s->mutex);
	for (int i = 0; i < s->n_models; i++) {
		const ruv_scheduled_model *other = &s->models[i];
		yield |= other != sm && !sm->pinned && other->n_waiting && other->starved_ns &&
		         now - other->starved_ns > (int64_t)PATIENCE_MS * 1000000;
	}
	pthread_mutex_unlock(&s->mutex);
	return yield;
}

/* Models that nobody has used for long; and how long until the next one is. */
static int64_t unload_idle(ruv_scheduler *s)
{
	int64_t next = INT64_MAX;
	const int64_t limit = (int64_t)s->how.idle_unload_ms * 1000000, now = ruv_clock_now_ns();
	if (!limit)
		return next;
	pthread_mutex_lock(&s->load);
	for (int i = 0; i < ruv_scheduler_n_models(s); i++) {
		ruv_scheduled_model *sm = &s->models[i];
		pthread_mutex_lock(&s->mutex);
		const bool idle =
		    sm->loaded && !sm->pinned && !sm->n_active && __atomic_load_n(&sm->model->n_refs, __ATOMIC_RELAXED) <= 3;
		const int64_t left = idle ? sm->used_ns + limit - now : INT64_MAX;
		pthread_mutex_unlock(&s->mutex);
		if (left <= 0)
			ruv_scheduler_unload(s, sm);
		else if (left < next)
			next = left;
	}
	pthread_mutex_unlock(&s->load);
	return next;
}

void ruv_scheduler_sleep(ruv_scheduler *s)
{
	int64_t left = unload_idle(s);
	pthread_mutex_lock(&s->mutex);
	bool starved = false;
	for (int i = 0; i < s->n_models; i++)
		starved |= s->models[i].n_waiting > 0; /* for memory, or behind cancel flags that nobody tells of */
	const int64_t ms = starved ? 20 : left == INT64_MAX ? 1000 : left / 1000000 + 1;
	const struct timespec deadline = deadline_of(ms > 1000 ? 1000 : (int)ms);
	while (!s->woken && !s->stopping)
		if (pthread_cond_timedwait(&s->wake, &s->mutex, &deadline) == ETIMEDOUT)
			break;
	s->woken = false;
	pthread_mutex_unlock(&s->mutex);
}

void ruv_scheduler_wake(ruv_scheduler *s)
{
	pthread_mutex_lock(&s->mutex);
	s->woken = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->mutex);
}

static bool before(const ruv_sequence *a, const ruv_sequence *b)
{
	const int pa = a->job->request.priority, pb = b->job->request.priority;
	return pa != pb ? pa > pb : a->order != b->order ? a->order < b->order : a->index < b->index;
}

void ruv_scheduler_wait_again(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_sequence *q)
{
	pthread_mutex_lock(&s->mutex);
	ruv_sequence **at = &sm->waiting;
	while (*at && !before(q, *at))
		at = &(*at)->next;
	q->next = *at;
	*at = q;
	sm->n_waiting++;
	pthread_mutex_unlock(&s->mutex);
}

ruv_sequence *ruv_scheduler_first_waiting(ruv_scheduler *s, ruv_scheduled_model *sm)
{
	pthread_mutex_lock(&s->mutex);
	ruv_sequence *q = sm->waiting;
	pthread_mutex_unlock(&s->mutex);
	return q;
}

static void unlink_waiting(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_sequence **at)
{
	ruv_sequence *q = *at;
	*at = q->next;
	q->next = NULL;
	sm->n_waiting--;
	if (q->index == 0 && !q->admitted_ns)
		s->n_waiting_jobs--;
}

void ruv_scheduler_take_waiting(ruv_scheduler *s, ruv_scheduled_model *sm, ruv_sequence *q)
{
	pthread_mutex_lock(&s->mutex);
	for (ruv_sequence **at = &sm->waiting; *at; at = &(*at)->next)
		if (*at == q) {
			unlink_waiting(s, sm, at);
			break;
		}
	pthread_mutex_unlock(&s->mutex);
}

ruv_sequence *ruv_scheduler_cancelled_waiting(ruv_scheduler *s, ruv_scheduled_model *sm, bool all, bool (*wants)(const ruv_job *))
{
	ruv_sequence *found = NULL;
	pthread_mutex_lock(&s->mutex);
	for (ruv_sequence **at = &sm->waiting; *at && !found; at = &(*at)->next)
		if (all || wants((*at)->job)) {
			found = *at;
			unlink_waiting(s, sm, at);
			break;
		}
	pthread_mutex_unlock(&s->mutex);
	return found;
}

/* ---- figures ---- */

static const double bounds_ms[RUV_LATENCY_BUCKETS - 1] = {1,   2,    5,    10,   20,    50,    100,  200,
                                                          500, 1000, 2000, 5000, 10000, 30000, 60000};

const double *ruv_latency_bounds_ms(void)
{
	return bounds_ms;
}

void ruv_latency_add(ruv_latency *l, double ms)
{
	int i = 0;
	while (i < RUV_LATENCY_BUCKETS - 1 && ms > bounds_ms[i])
		i++;
	l->buckets[i]++;
	l->count++;
	l->sum_ms += ms;
}

void ruv_scheduler_publish(ruv_scheduler *s, ruv_scheduled_model *sm)
{
	ruv_scheduler_model_stats *stats = &sm->stats;
	const ruv_loaded *m = sm->loaded;
	stats->loaded = m != NULL;
	stats->memory_bytes = sm->memory_bytes;
	stats->n_running = m ? m->n_running : 0;
	stats->pages_total = m ? m->pool->n_pages : 0;
	stats->pages_free = m ? m->pool->n_free : 0;
	stats->pages_cached = m && m->caches ? ruv_prefix_idle(&m->cache) : 0;
	if (m && m->caches)
		stats->prefix_evictions = m->cache.n_evictions;
	if (m && m->speculator)
		ruv_speculator_stats(m->speculator, &stats->speculation);
	pthread_mutex_lock(&s->mutex);
	sm->shown = *stats;
	memcpy(&s->shown, &s->work, sizeof s->shown);
	pthread_mutex_unlock(&s->mutex);
}

void ruv_scheduler_get_stats(ruv_scheduler *s, ruv_scheduler_stats *stats)
{
	memset(stats, 0, sizeof *stats);
	pthread_mutex_lock(&s->mutex);
	stats->n_waiting = s->n_waiting_jobs;
	stats->max_queue = s->how.max_queue;
	stats->memory_bytes = s->memory_bytes;
	stats->memory_limit_bytes = s->how.memory_bytes;
	stats->n_submitted = s->n_submitted;
	stats->n_refused = s->n_refused;
	stats->n_completed = s->n_completed;
	stats->n_failed = s->n_failed;
	stats->n_cancelled = s->n_cancelled;
	stats->queue = s->shown.queue;
	stats->first_token = s->shown.first_token;
	stats->inter_token = s->shown.inter_token;
	stats->total = s->shown.total;
	stats->busy_ms = s->shown.busy_ms;
	stats->n_models = s->n_models;
	for (int i = 0; i < s->n_models; i++) {
		stats->models[i] = s->models[i].shown;
		stats->models[i].n_waiting = s->models[i].n_waiting;
		stats->n_running += stats->models[i].n_running;
	}
	pthread_mutex_unlock(&s->mutex);
}
