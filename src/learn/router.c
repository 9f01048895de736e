/* router.c - deciding, noting outcomes and learning from them; see include/ruvllm/router.h.
 *
 * Weights are immutable and counted (router_weights.h): a decision takes a use under the lock and works without it. What changes
 * all the time, recent outcomes and history, lies beside them under the same lock. A log record is 8 bytes "RUVOBS1\n", u64 id, i32
 * tier, f32 quality, f64 latency_ms, i32 prompt, i32 answer, f32 propensity, f32 unused, f32 features[128], u32 components, f32
 * row[64], u64 XXH3 of all before appended in one write; a record that was cut off ends the reading. Layer: learn. */
#include "ruvllm/router.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/status.h"
#include "learn/router_weights.h"
#include "learn/train_router.h"

enum { MAX_OBSERVATIONS = 4096, MIN_TO_REFINE = 40, N_DRAWS = 64 };

static const int context_bins[RUV_ROUTE_CONTEXTS] = {256, 512, 1024, 2048, 4096};

/* What is kept of an observation, in memory and in the log. */
typedef struct observation {
	char magic[8];
	uint64_t id;
	int32_t tier;
	float quality;
	double latency_ms;
	int32_t n_prompt, n_answer;
	float propensity, unused;
	float features[RUV_ROUTE_FEATURES];
	uint32_t n_components, unused2;
	float row[RUV_KNN_MAX_DIM]; /* unit vector in the neighbours' space; n_components 0: none */
	uint64_t check;
} observation;

static const char magic[8] = "RUVOBS1\n";

struct ruv_router {
	pthread_rwlock_t lock;
	ruv_router_weights *weights;
	ruv_router_head fixed;                      /* tiers, encoder and trust, which no refinement changes */
	ruv_router_tier tiers[RUV_ROUTE_MAX_TIERS]; /* likewise */
	ruv_router_options options;
	char *log_path;
	int log_fd; /* -1: none */
	ruv_knn recent;
	ruv_route_history history;
	observation *observations; /* ring of MAX_OBSERVATIONS */
	int n_observations, next;
	int since_refined, n_refined, n_rolled_back;
	int safe_tier;
	bool available[RUV_ROUTE_MAX_TIERS];
	uint64_t n_decided; /* atomic */
	pthread_mutex_t refining;
	/* The rows of the last decisions, so that an outcome can become a neighbour: by id. */
	struct {
		uint64_t id;
		uint32_t n_components;
		float row[RUV_KNN_MAX_DIM];
	} pending[256];
};

const char *ruv_route_why_name(int why)
{
	static const char *const names[] = {"model", "safe", "explore", "constrained"};

	return why >= 0 && why < 4 ? names[why] : "?";
}

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static uint64_t check_of(const observation *o)
{
	return ruv_hash64(o, offsetof(observation, check), 0);
}

static int keep_observation(ruv_router *router, const observation *o, ruv_error *err)
{
	const ruv_router_weights *w = router->weights;
	int rc = RUV_OK;

	router->observations[router->next] = *o;
	router->next = (router->next + 1) % MAX_OBSERVATIONS;
	router->n_observations += router->n_observations < MAX_OBSERVATIONS;
	router->since_refined++;
	ruv_route_history_add(&router->history, o->features, o->tier, o->quality);
	if (o->n_components && (int)o->n_components == w->basis.n_components) {
		ruv_knn_outcome outcome;

		for (int t = 0; t < RUV_ROUTE_MAX_TIERS; t++)
			outcome.quality[t] = -1;
		outcome.quality[o->tier] = o->quality;
		outcome.latency_s[o->tier] = (float)(o->latency_ms / 1000);
		outcome.cost[o->tier] =
		    (float)((double)(o->n_prompt + o->n_answer) * (double)w->tiers[o->tier].n_params / w->head.cost_unit);
		rc = ruv_knn_add(&router->recent, o->row, &outcome, err);
	}
	return rc;
}

static int open_log(ruv_router *router, ruv_error *err)
{
	observation o;
	off_t whole = 0;
	ssize_t n;

	router->log_fd = open(router->log_path, O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND, 0600);
	if (router->log_fd < 0)
		return ruv_fail_errno(err, RUV_EIO, errno, "router", "%s cannot be opened", router->log_path);
	while ((n = pread(router->log_fd, &o, sizeof o, whole)) == (ssize_t)sizeof o && !memcmp(o.magic, magic, sizeof magic) &&
	       o.check == check_of(&o)) {
		whole += n;
		if (o.tier >= 0 && o.tier < router->weights->head.n_tiers && o.n_components <= RUV_KNN_MAX_DIM) {
			int rc = keep_observation(router, &o, err);

			if (rc)
				return rc;
		}
	}
	if (n < 0)
		return ruv_fail_errno(err, RUV_EIO, errno, "router", "%s cannot be read", router->log_path);
	if (n > 0) { /* what a crash left */
		ruv_log(RUV_LOG_WARN, "router", "%s: the last record was not finished and is dropped", router->log_path);
		if (ftruncate(router->log_fd, whole))
			return ruv_fail_errno(err, RUV_EIO, errno, "router", "%s cannot be cut to its whole records",
			                      router->log_path);
	}
	return RUV_OK;
}

static void start_history(ruv_router *router)
{
	float quality[RUV_ROUTE_MAX_TIERS];

	for (int t = 0; t < router->weights->head.n_tiers; t++)
		quality[t] = (float)router->weights->tiers[t].quality;
	ruv_route_history_init(&router->history, quality, router->weights->head.n_tiers, 20);
}

int ruv_router_open(ruv_router **out, const char *path, const ruv_router_options *options, ruv_error *err)
{
	static const ruv_router_options none;
	ruv_router *router = calloc(1, sizeof *router);
	int rc;

	if (!router)
		return ruv_fail_memory(err, "router", sizeof *router);
	pthread_rwlock_init(&router->lock, NULL);
	pthread_mutex_init(&router->refining, NULL);
	router->log_fd = -1;
	router->options = options ? *options : none;
	if (router->options.refine_every <= 0)
		router->options.refine_every = 200;
	if (!router->options.seed)
		router->options.seed = ruv_rng_entropy();
	rc = ruv_router_weights_read(&router->weights, path, !router->options.no_int8, err);
	if (rc)
		goto done;
	router->fixed = router->weights->head;
	memcpy(router->tiers, router->weights->tiers, sizeof router->tiers);
	router->safe_tier = router->fixed.n_tiers - 1;
	for (int t = 0; t < RUV_ROUTE_MAX_TIERS; t++)
		router->available[t] = t < router->weights->head.n_tiers;
	if (router->options.safe_tier) {
		router->safe_tier = ruv_router_tier_find(router, router->options.safe_tier);
		if (router->safe_tier < 0) {
			rc = ruv_fail(err, RUV_ENOTFOUND, "router", "the safe tier '%s' is none of the router's",
			              router->options.safe_tier);
			goto done;
		}
	}
	ruv_knn_init(&router->recent, router->weights->bank.dim, MAX_OBSERVATIONS);
	router->observations = calloc(MAX_OBSERVATIONS, sizeof *router->observations);
	if (!router->observations) {
		rc = ruv_fail_memory(err, "router", MAX_OBSERVATIONS * sizeof *router->observations);
		goto done;
	}
	start_history(router);
	if (router->options.log_path) {
		router->log_path = strdup(router->options.log_path);
		rc = router->log_path ? open_log(router, err) : ruv_fail_memory(err, "router", 1);
	}
done:
	router->options.safe_tier = router->options.log_path = NULL; /* the caller's */
	if (rc)
		ruv_router_free(router);
	else
		*out = router;
	return rc;
}

void ruv_router_free(ruv_router *router)
{
	if (!router)
		return;
	if (router->log_fd >= 0)
		close(router->log_fd);
	ruv_router_weights_free(router->weights);
	ruv_knn_release(&router->recent);
	free(router->observations);
	free(router->log_path);
	pthread_rwlock_destroy(&router->lock);
	pthread_mutex_destroy(&router->refining);
	free(router);
}

const ruv_router_tier *ruv_router_tier_at(const ruv_router *router, int i)
{
	return i >= 0 && i < router->fixed.n_tiers ? &router->tiers[i] : NULL;
}

int ruv_router_n_tiers(const ruv_router *router)
{
	return router->fixed.n_tiers;
}

int ruv_router_tier_find(const ruv_router *router, const char *name)
{
	for (int t = 0; t < router->fixed.n_tiers; t++)
		if (!strcmp(router->tiers[t].name, name))
			return t;
	return -1;
}

int ruv_router_set_available(ruv_router *router, int tier, bool available, ruv_error *err)
{
	if (tier < 0 || tier >= ruv_router_n_tiers(router))
		return ruv_fail(err, RUV_EINVAL, "router", "there is no tier %d", tier);
	pthread_rwlock_wrlock(&router->lock);
	router->available[tier] = available;
	pthread_rwlock_unlock(&router->lock);
	return RUV_OK;
}

/* ---- deciding ---------------------------------------------------------------------------------------------------------- */

/* Tiers that are there, fit the memory and are expected to answer in time. Without any in time, the fastest that fits. */
static int allowed_tiers(const ruv_router *router, const ruv_router_weights *w, const ruv_route_system *system, bool *allowed)
{
	int n = 0, fastest = -1;

	for (int t = 0; t < w->head.n_tiers; t++) {
		const ruv_router_tier *tier = &w->tiers[t];
		double wait = system ? 1 + system->n_concurrent + system->n_queued : 1;
		bool fits =
		    router->available[t] && !(system && system->memory_available > 0 && tier->n_bytes > system->memory_available);

		allowed[t] =
		    fits && !(system && system->latency_budget_ms > 0 && tier->latency_ms * wait > system->latency_budget_ms);
		if (fits && (fastest < 0 || tier->latency_ms < w->tiers[fastest].latency_ms))
			fastest = t;
		n += allowed[t];
	}
	if (!n && fastest >= 0)
		n = allowed[fastest] = true;
	return n;
}

static int best_allowed(const float *score, const bool *allowed, int n)
{
	int best = -1;

	for (int t = 0; t < n; t++)
		if (allowed[t] && (best < 0 || score[t] > score[best]))
			best = t;
	return best;
}

/* Draws a tier and says how likely that was. */
static int explore(const ruv_router *router, const ruv_router_weights *w, const ruv_router_view *view, const ruv_knn_sums *sums,
                   const bool *allowed, int best, uint64_t id, float *propensity)
{
	int n_allowed = 0, counts[RUV_ROUTE_MAX_TIERS] = {0}, chosen = best;
	float epsilon = router->options.explore;
	ruv_rng rng;

	for (int t = 0; t < w->head.n_tiers; t++)
		n_allowed += allowed[t];
	*propensity = 1;
	ruv_rng_init(&rng, router->options.seed ^ (id * 0x9e3779b97f4a7c15ull));
	if (router->options.thompson > 0) { /* the first draw counts, all of them estimate its probability */
		for (int draw = 0; draw < N_DRAWS; draw++) {
			float score[RUV_ROUTE_MAX_TIERS];
			int tier;

			for (int t = 0; t < w->head.n_tiers; t++)
				score[t] = view->utility[t] + router->options.thompson * (float)ruv_rng_normal(&rng) /
				                                  sqrtf(1 + sums->weight[t] / w->head.kappa);
			tier = best_allowed(score, allowed, w->head.n_tiers);
			counts[tier]++;
			if (draw == 0)
				chosen = tier;
		}
		*propensity = ((float)counts[chosen] + 1) / (float)(N_DRAWS + n_allowed);
	} else if (epsilon > 0) {
		if (ruv_rng_double(&rng) < epsilon) {
			int k = (int)ruv_rng_below(&rng, (uint64_t)n_allowed);

			for (int t = 0; t < w->head.n_tiers; t++)
				if (allowed[t] && k-- == 0)
					chosen = t;
		}
		*propensity = epsilon / (float)n_allowed + (chosen == best ? 1 - epsilon : 0);
	}
	return chosen;
}

int ruv_router_decide(ruv_router *router, ruv_route_state *state, const ruv_route_input *input, ruv_route_decision *d,
                      ruv_error *err)
{
	int64_t started = ruv_clock_now_ns();
	float x[RUV_ROUTE_FEATURES], hidden[RUV_ROUTE_MAX_HIDDEN] = {0}, row[RUV_KNN_MAX_DIM], total = 0;
	ruv_knn_sums sums = {0}, near = {0};
	ruv_router_outputs out;
	ruv_router_view view;
	ruv_router_weights *w;
	bool allowed[RUV_ROUTE_MAX_TIERS] = {false}, has_row = false;
	int best, slot, rc;

	memset(d, 0, sizeof *d);
	pthread_rwlock_rdlock(&router->lock);
	w = ruv_router_weights_use(router->weights);
	rc = ruv_features_compute(d->features, w->classes, &w->basis, input, err);
	if (rc)
		goto done;
	ruv_features_history(d->features, &router->history, state);
	ruv_router_standardize(w, d->features, x);
	if (state)
		memcpy(hidden, state->hidden, sizeof hidden);
	ruv_fastgrnn_cell_run(w->cell, x, hidden);
	ruv_router_heads(&w->shape, w->params + ruv_fastgrnn_n_params(&w->shape.cell), hidden, &out);
	if (input->embedding && w->basis.dim) {
		ruv_basis_project(&w->basis, input->embedding, row);
		has_row = ruv_knn_unit(row, w->basis.n_components);
		if (has_row) {
			ruv_knn_ask_two(&w->bank, row, w->head.band, &sums, w->head.near_band, &near, -1);
			ruv_knn_ask_two(&router->recent, row, w->head.band, &sums, w->head.near_band, &near, -1);
		}
	}
	ruv_router_judge(w, w->head.method, &out, &near, &sums, &view);
	if (!allowed_tiers(router, w, input->system, allowed)) {
		rc = ruv_fail(err, RUV_ENOTFOUND, "router", "no tier can be used: none is available or fits the memory");
		goto done;
	}
	d->id = __atomic_add_fetch(&router->n_decided, 1, __ATOMIC_RELAXED);
	best = best_allowed(view.utility, allowed, w->head.n_tiers);
	d->why = best == view.best ? RUV_ROUTE_MODEL : RUV_ROUTE_CONSTRAINED;
	d->confidence = view.confidence;
	if (d->why == RUV_ROUTE_MODEL && view.neighbours < RUV_ROUTE_KNOWN &&
	    view.confidence < (router->options.min_confidence > 0 ? router->options.min_confidence : w->head.min_confidence)) {
		d->why = RUV_ROUTE_SAFE;
		best = allowed[router->safe_tier] ? router->safe_tier : best;
	}
	d->best = best;
	d->tier = explore(router, w, &view, &sums, allowed, best, d->id, &d->propensity);
	if (d->tier != best)
		d->why = RUV_ROUTE_EXPLORE;
	memcpy(d->probabilities, view.probability, sizeof d->probabilities);
	memcpy(d->expected, view.quality, sizeof d->expected);
	memcpy(d->context_probabilities, out.contexts, sizeof d->context_probabilities);
	for (int c = 0; c < RUV_ROUTE_CONTEXTS && !d->context; c++) { /* the least that will do with nine chances in ten */
		total += out.contexts[c];
		if (total >= 0.9f || c == RUV_ROUTE_CONTEXTS - 1)
			d->context = context_bins[c];
	}
	d->temperature = out.temperature;
	d->top_p = out.top_p;
	d->neighbours = view.neighbours;
	if (state) {
		memcpy(state->hidden, hidden, sizeof hidden);
		state->n_turns++;
	}
done:
	pthread_rwlock_unlock(&router->lock);
	if (!rc && has_row) {
		pthread_rwlock_wrlock(&router->lock);
		slot = (int)(d->id % (sizeof router->pending / sizeof *router->pending));
		router->pending[slot].id = d->id;
		router->pending[slot].n_components = (uint32_t)w->basis.n_components;
		memcpy(router->pending[slot].row, row, sizeof(float) * (size_t)w->basis.n_components);
		pthread_rwlock_unlock(&router->lock);
	}
	ruv_router_weights_free(w);
	d->ns = ruv_clock_now_ns() - started;
	return rc;
}

/* ---- cascade ----------------------------------------------------------------------------------------------------------- */

float ruv_router_trust(const ruv_router *router, int tier, const ruv_route_signs *signs)
{
	const ruv_router_head *head = &router->fixed;
	float numbers[RUV_ROUTE_SIGNS], sum = 0;

	if (!head->has_trust || tier < 0 || tier >= head->n_tiers)
		return -1;
	if (tier == head->n_tiers - 1)
		return 1;
	ruv_route_signs_numbers(signs, numbers);
	for (int i = 0; i < RUV_ROUTE_SIGNS; i++)
		sum += head->trust[tier][i] * numbers[i];
	return 1 / (1 + expf(-sum));
}

bool ruv_router_escalate(const ruv_router *router, const ruv_route_decision *decision, const ruv_route_signs *signs, int *next)
{
	const ruv_router_head *head = &router->fixed;
	int tier = decision->tier;
	float numbers[RUV_ROUTE_SIGNS], gain = 0;

	if (!head->has_trust || tier < 0 || tier >= head->n_tiers - 1 || decision->neighbours >= RUV_ROUTE_KNOWN)
		return false;
	ruv_route_signs_numbers(signs, numbers);
	for (int i = 0; i < RUV_ROUTE_SIGNS; i++)
		gain += head->gain[tier][i] * numbers[i];
	if (gain <= head->threshold[tier])
		return false;
	for (int t = head->n_tiers - 1; t > tier; t--)
		if (router->available[t]) {
			*next = t;
			return true;
		}
	return false;
}

/* ---- outcomes ---------------------------------------------------------------------------------------------------------- */

int ruv_router_observe(ruv_router *router, ruv_route_state *state, const ruv_route_decision *decision,
                       const ruv_route_outcome *outcome, ruv_error *err)
{
	observation o;
	int slot, rc = RUV_OK;

	if (outcome->tier < 0 || outcome->tier >= ruv_router_n_tiers(router) || !(outcome->quality >= 0) || outcome->quality > 1 ||
	    !(outcome->latency_ms >= 0) || outcome->n_prompt_tokens < 0 || outcome->n_answer_tokens < 0)
		return ruv_fail(err, RUV_EINVAL, "router", "tier %d, quality %g, latency %g ms: out of range", outcome->tier,
		                (double)outcome->quality, outcome->latency_ms);
	memset(&o, 0, sizeof o);
	memcpy(o.magic, magic, sizeof magic);
	o.id = decision->id;
	o.tier = outcome->tier;
	o.quality = outcome->quality;
	o.latency_ms = outcome->latency_ms;
	o.n_prompt = outcome->n_prompt_tokens;
	o.n_answer = outcome->n_answer_tokens;
	o.propensity = outcome->tier == decision->tier ? decision->propensity : 1;
	memcpy(o.features, decision->features, sizeof o.features);
	pthread_rwlock_wrlock(&router->lock);
	slot = (int)(decision->id % (sizeof router->pending / sizeof *router->pending));
	if (router->pending[slot].id == decision->id && decision->id) {
		o.n_components = router->pending[slot].n_components;
		memcpy(o.row, router->pending[slot].row, sizeof(float) * o.n_components);
	}
	o.check = check_of(&o);
	if (router->log_fd >= 0) {
		struct stat before;
		ssize_t n;

		if (fstat(router->log_fd, &before))
			before.st_size = -1;
		n = write(router->log_fd, &o, sizeof o);
		if (n != (ssize_t)sizeof o || fdatasync(router->log_fd)) {
			rc = ruv_fail_errno(err, RUV_EIO, errno, "router", "%s cannot be written", router->log_path);
			if (n > 0 && before.st_size >= 0 && ftruncate(router->log_fd, before.st_size))
				ruv_log(RUV_LOG_WARN, "router", "%s: a part of a record stays in it", router->log_path);
		}
	}
	if (!rc)
		rc = keep_observation(router, &o, err);
	pthread_rwlock_unlock(&router->lock);
	if (!rc && state) {
		int n = ++state->n_answers[outcome->tier];

		state->quality[outcome->tier] += (outcome->quality - state->quality[outcome->tier]) / (float)n;
	}
	return rc;
}

/* ---- learning online --------------------------------------------------------------------------------------------------- */

bool ruv_router_refine_due(const ruv_router *router)
{
	bool due;

	pthread_rwlock_rdlock((pthread_rwlock_t *)&router->lock);
	due = router->since_refined >= router->options.refine_every && router->n_observations >= MIN_TO_REFINE;
	pthread_rwlock_unlock((pthread_rwlock_t *)&router->lock);
	return due;
}

static bool is_held_out(const observation *o)
{
	return ruv_hash64(&o->id, sizeof o->id, 3) % 4 == 0;
}

static void outputs_of(const ruv_router_weights *w, const float *params, const float *x, ruv_router_outputs *out)
{
	float state[RUV_ROUTE_MAX_HIDDEN] = {0};

	ruv_fastgrnn_step(&w->shape.cell, params, x, state, state, NULL);
	ruv_router_heads(&w->shape, params + ruv_fastgrnn_n_params(&w->shape.cell), state, out);
}

/* Utilities of all tiers as far as one observation tells: the model's own view, corrected where the answer is known by the error
 * over its propensity (doubly robust; Dudik et al. 2011), the weight cut at MAX_WEIGHT. */
static void corrected_utilities(const ruv_router_weights *w, const observation *o, const ruv_router_outputs *out, float *utility)
{
	const float max_weight = 10;
	float weight = fminf(max_weight, 1 / fmaxf(o->propensity, 1e-3f));

	for (int t = 0; t < w->head.n_tiers; t++) {
		const ruv_router_tier *tier = &w->tiers[t];

		utility[t] = ruv_router_utility(&w->head, out->quality[t], (float)(tier->latency_ms / 1000),
		                                (float)(tier->tokens * (double)tier->n_params / w->head.cost_unit));
	}
	utility[o->tier] += weight * (ruv_router_utility(&w->head, o->quality, (float)(o->latency_ms / 1000),
	                                                 (float)((double)(o->n_prompt + o->n_answer) *
	                                                         (double)w->tiers[o->tier].n_params / w->head.cost_unit)) -
	                              utility[o->tier]);
}

static int best_of(const float *x, int n)
{
	int best = 0;

	for (int i = 1; i < n; i++)
		best = x[i] > x[best] ? i : best;
	return best;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Bootstrapped 95 % interval of the mean of gains[n]. */
static void interval_of(const double *gains, int n, double interval[2])
{
	double means[500];
	ruv_rng rng;

	ruv_rng_init(&rng, 7);
	for (int d = 0; d < 500; d++) {
		means[d] = 0;
		for (int i = 0; i < n; i++)
			means[d] += gains[ruv_rng_below(&rng, (uint64_t)n)] / n;
	}
	qsort(means, 500, sizeof *means, by_value);
	interval[0] = n ? means[12] : 0;
	interval[1] = n ? means[487] : 0;
}

/* What the two networks' choices are worth on the held-out observations, judged by the old network's corrected utilities, an
 * interval of the difference, and whether the new one's are surely better than always the smallest tier. */
static int compare(const ruv_router_weights *old, const float *params, const observation *all, int n, ruv_router_refined *result,
                   bool *beats_ladder, ruv_error *err)
{
	double beats[2] = {0}, *gains = calloc(2 * ((size_t)n + 1), sizeof *gains), *over_ladder;
	int m = 0;

	if (!gains)
		return ruv_fail_memory(err, "router", 2 * sizeof *gains * (size_t)n);
	over_ladder = gains + n + 1;
	for (int i = 0; i < n; i++) {
		float x[RUV_ROUTE_FEATURES], utility[RUV_ROUTE_MAX_TIERS] = {0};
		ruv_router_outputs before, after;

		if (!is_held_out(&all[i]))
			continue;
		ruv_router_standardize(old, all[i].features, x);
		outputs_of(old, old->params, x, &before);
		outputs_of(old, params, x, &after);
		corrected_utilities(old, &all[i], &before, utility);
		result->before += utility[best_of(before.tiers, old->head.n_tiers)];
		result->after += utility[best_of(after.tiers, old->head.n_tiers)];
		gains[m] = utility[best_of(after.tiers, old->head.n_tiers)] - utility[best_of(before.tiers, old->head.n_tiers)];
		over_ladder[m++] = utility[best_of(after.tiers, old->head.n_tiers)] - utility[0];
	}
	interval_of(gains, m, result->interval);
	interval_of(over_ladder, m, beats);
	*beats_ladder = beats[0] > 0;
	result->before /= m ? m : 1;
	result->after /= m ? m : 1;
	free(gains);
	return RUV_OK;
}

/* Gradient steps on the observations that are not held out, EWC holding the rest of the parameters where they were. */
static int fit_observations(ruv_router_weights *w, const ruv_router_weights *old, const observation *all, int n, uint64_t seed,
                            int *n_steps, ruv_error *err)
{
	enum { N_EPOCHS = 8, BATCH = 16 };
	const float ewc = 0.02f;
	float *gradient = malloc(sizeof *gradient * (size_t)w->n_params);
	int *order = malloc(sizeof *order * (size_t)(n + 1)), m = 0;
	ruv_adam adam = {0};
	ruv_rng rng;
	int rc = gradient && order ? ruv_adam_init(&adam, w->n_params, 0.001f, 0, err)
	                           : ruv_fail_memory(err, "router", sizeof *gradient * (size_t)w->n_params);

	ruv_rng_init(&rng, seed);
	for (int i = 0; !rc && i < n; i++)
		if (!is_held_out(&all[i]))
			order[m++] = i;
	for (int epoch = 0; !rc && epoch < N_EPOCHS; epoch++) {
		for (int i = m - 1; i > 0; i--) {
			int j = (int)ruv_rng_below(&rng, (uint64_t)i + 1), swap = order[i];
			order[i] = order[j];
			order[j] = swap;
		}
		for (int i = 0; i < m; i += BATCH) {
			int length = m - i < BATCH ? m - i : BATCH;

			memset(gradient, 0, sizeof *gradient * (size_t)w->n_params);
			for (int j = i; j < i + length; j++) {
				const observation *o = &all[order[j]];
				ruv_router_target target = {
				    .context = -1, .temperature = -1, .top_p = -1, .confidence = -1, .weight = 1};
				float x[RUV_ROUTE_FEATURES], utility[RUV_ROUTE_MAX_TIERS] = {0}, sum = 0;
				ruv_router_outputs out;
				int best;

				ruv_router_standardize(old, o->features, x);
				outputs_of(old, old->params, x, &out);
				corrected_utilities(old, o, &out, utility);
				best = best_of(utility, w->head.n_tiers);
				for (int t = 0; t < w->head.n_tiers; t++) {
					sum += target.tiers[t] = expf((utility[t] - utility[best]) / w->head.tau);
					target.quality[t] = -1;
				}
				for (int t = 0; t < w->head.n_tiers; t++)
					target.tiers[t] /= sum;
				target.quality[o->tier] = o->quality;
				ruv_router_net_loss(&w->shape, w->params, x, &target, 1, gradient);
			}
			for (int d = 0; d < w->n_params; d++) {
				gradient[d] = gradient[d] / (float)length + ewc * old->fisher[d] * (w->params[d] - old->params[d]);
				if (d < ruv_fastgrnn_n_input_weights(&w->shape.cell) && old->params[d] == 0)
					gradient[d] = 0; /* pruned stays pruned */
			}
			ruv_adam_step(&adam, w->params, gradient);
			(*n_steps)++;
		}
	}
	ruv_adam_release(&adam);
	free(gradient);
	free(order);
	return rc;
}

static int write_versions(const ruv_router_weights *w, const char *path, ruv_error *err)
{
	char previous[4096];
	struct stat there;

	if (snprintf(previous, sizeof previous, "%s.previous", path) >= (int)sizeof previous)
		return ruv_fail(err, RUV_ELIMIT, "router", "the path is too long");
	if (!stat(path, &there)) {
		char *bytes;
		size_t n_bytes;
		int rc = ruv_file_read(&bytes, &n_bytes, path, (size_t)1 << 30, err);

		if (!rc) {
			rc = ruv_file_write(previous, bytes, n_bytes, err);
			free(bytes);
		}
		if (rc)
			return rc;
	}
	return ruv_router_weights_write(w, path, err);
}

static void swap_weights(ruv_router *router, ruv_router_weights *w)
{
	ruv_router_weights *old;

	pthread_rwlock_wrlock(&router->lock);
	old = router->weights;
	router->weights = w;
	pthread_rwlock_unlock(&router->lock);
	ruv_router_weights_free(old);
}

int ruv_router_refine(ruv_router *router, const char *path, ruv_router_refined *result, ruv_error *err)
{
	ruv_router_weights *old = NULL, *next = NULL;
	observation *all = malloc(sizeof *all * MAX_OBSERVATIONS);
	bool beats_ladder = false;
	int n, rc = RUV_OK;

	memset(result, 0, sizeof *result);
	if (!all)
		return ruv_fail_memory(err, "router", sizeof *all * MAX_OBSERVATIONS);
	pthread_mutex_lock(&router->refining);
	pthread_rwlock_wrlock(&router->lock);
	old = ruv_router_weights_use(router->weights);
	n = router->n_observations;
	memcpy(all, router->observations, sizeof *all * (size_t)n);
	router->since_refined = 0;
	pthread_rwlock_unlock(&router->lock);
	result->n_observations = n;
	if (n < MIN_TO_REFINE) {
		rc = ruv_fail(err, RUV_EINVAL, "router", "%d observations, a refinement needs %d", n, MIN_TO_REFINE);
		goto done;
	}
	rc = ruv_router_weights_copy(&next, old, err);
	if (!rc)
		rc = fit_observations(next, old, all, n, router->options.seed + (uint64_t)old->head.version, &result->n_steps, err);
	if (!rc)
		rc = compare(old, next->params, all, n, result, &beats_ladder, err);
	if (rc)
		goto done;
	/* The gate: sure to gain on what is new, and nothing to lose on what is old. */
	result->kept =
	    result->interval[0] > 0 && ruv_router_gate_utility(&old->shape, next->params, old->gate, old->n_gate) >=
					   ruv_router_gate_utility(&old->shape, old->params, old->gate, old->n_gate) - 0.02;
	if (!result->kept) {
		router->n_rolled_back++;
		goto done;
	}
	if (old->head.method == RUV_ROUTE_LADDER && beats_ladder) { /* now there is something that the network knows */
		next->head.method = RUV_ROUTE_FASTGRNN;
		next->head.shrink = next->head.share = 1;
	}
	next->head.version = old->head.version + 1;
	next->head.trained_ms = ruv_clock_wall_ms();
	rc = ruv_router_weights_ready(next, !router->options.no_int8, err);
	if (!rc && path)
		rc = write_versions(next, path, err);
	if (rc)
		goto done;
	router->n_refined++;
	swap_weights(router, next);
	next = NULL;
done:
	ruv_router_weights_free(old);
	ruv_router_weights_free(next);
	pthread_mutex_unlock(&router->refining);
	free(all);
	return rc;
}

int ruv_router_rollback(ruv_router *router, const char *path, ruv_error *err)
{
	char previous[4096];
	ruv_router_weights *w = NULL;
	int rc;

	if (snprintf(previous, sizeof previous, "%s.previous", path) >= (int)sizeof previous)
		return ruv_fail(err, RUV_ELIMIT, "router", "the path is too long");
	pthread_mutex_lock(&router->refining);
	rc = ruv_router_weights_read(&w, previous, !router->options.no_int8, err);
	if (!rc && w->head.n_tiers != router->fixed.n_tiers) {
		rc = ruv_fail(err, RUV_EMISMATCH, "router", "%s is of other tiers", previous);
	} else if (!rc && rename(previous, path)) {
		rc = ruv_fail_errno(err, RUV_EIO, errno, "router", "%s cannot be put back", previous);
	}
	if (!rc) {
		swap_weights(router, w);
		router->n_rolled_back++;
		w = NULL;
	}
	ruv_router_weights_free(w);
	pthread_mutex_unlock(&router->refining);
	return rc;
}

void ruv_router_get_info(const ruv_router *router, ruv_router_info *info)
{
	const ruv_router_weights *w;

	pthread_rwlock_rdlock((pthread_rwlock_t *)&router->lock);
	w = router->weights;
	*info = (ruv_router_info){.version = w->head.version,
	                          .hidden = w->head.hidden,
	                          .rank = w->head.rank,
	                          .n_outcomes = w->head.n_outcomes,
	                          .n_observations = router->n_observations,
	                          .n_refined = router->n_refined,
	                          .n_rolled_back = router->n_rolled_back,
	                          .density = w->head.density,
	                          .n_bytes = (int64_t)ruv_fastgrnn_cell_bytes(w->cell),
	                          .method = ruv_route_method_name(w->head.method),
	                          .trained_ms = w->head.trained_ms,
	                          .encoder = router->fixed.encoder,
	                          .encoder_version = router->fixed.encoder_version,
	                          .mu = w->head.mu,
	                          .lambda = w->head.lambda};
	pthread_rwlock_unlock((pthread_rwlock_t *)&router->lock);
}
