/* router_drift.c - see router_drift.h. Layer: learn. */
#include "learn/router_drift.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"
#include "learn/ewc.h"

enum { BATCH = 8, N_FIRST = 3000, MAX_RESERVOIR = 1 << 16 };

struct question {
	float x[RUV_ROUTE_FEATURES];
	float utility[RUV_ROUTE_MAX_TIERS]; /* after the tiers changed places */
	ruv_router_target target;
	int task;
	bool held_out;
};

struct stream {
	const ruv_router_weights *w;
	struct question *questions; /* [n] */
	int n, n_tasks;
	int *of_task[RUV_DRIFT_MAX_TASKS], n_of_task[RUV_DRIFT_MAX_TASKS]; /* those to train on */
};

static int best_of(const float *x, int n)
{
	int best = 0;

	for (int i = 1; i < n; i++)
		best = x[i] > x[best] ? i : best;
	return best;
}

static void make_question(const ruv_router_weights *w, const ruv_route_sample *s, int task, struct question *q)
{
	const int n_tiers = w->head.n_tiers;
	float sum = 0;
	int best;

	memset(q, 0, sizeof *q);
	ruv_router_standardize(w, s->features, q->x);
	q->task = task;
	q->held_out = ruv_hash64(s->id, strlen(s->id), 9) % 4 == 0;
	q->target = (ruv_router_target){.context = -1, .temperature = -1, .top_p = -1, .confidence = -1, .weight = 1};
	for (int t = 0; t < n_tiers; t++) {
		const ruv_route_result *r = &s->results[t];
		int place = (t + task) % n_tiers;

		q->utility[place] = ruv_router_utility(
		    &w->head, r->quality, (float)(r->latency_ms / 1000),
		    (float)((double)(r->n_prompt + r->n_answer) * (double)w->tiers[t].n_params / w->head.cost_unit));
		q->target.quality[place] = r->quality;
	}
	best = best_of(q->utility, n_tiers);
	for (int t = 0; t < n_tiers; t++)
		sum += q->target.tiers[t] = expf((q->utility[t] - q->utility[best]) / w->head.tau);
	for (int t = 0; t < n_tiers; t++)
		q->target.tiers[t] /= sum;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Whole groups, the largest tasks being filled last: each group goes to the task that has the fewest questions so far. Groups come
 * in the order of their hashes, so that it does not depend on that of the file. */
static int deal(struct stream *s, const ruv_route_data *data, uint64_t seed, ruv_error *err)
{
	const char **groups = malloc(sizeof *groups * (size_t)(data->n + 1));
	int counts[RUV_DRIFT_MAX_TASKS] = {0}, n_groups = 0, rc = RUV_OK;
	uint64_t last = 0;

	s->questions = malloc(sizeof *s->questions * (size_t)(data->n + 1));
	for (int t = 0; t < s->n_tasks; t++)
		s->of_task[t] = malloc(sizeof *s->of_task[t] * (size_t)(data->n + 1));
	for (int t = 0; t < s->n_tasks; t++)
		if (!s->of_task[t])
			rc = RUV_ENOMEM;
	if (!groups || !s->questions || rc) {
		free(groups);
		return ruv_fail_memory(err, "router", sizeof *s->questions * (size_t)data->n);
	}
	for (int i = 0; i < data->n; i++)
		groups[i] = data->samples[i].group;
	qsort(groups, (size_t)data->n, sizeof *groups, by_name);
	for (int i = 0; i < data->n; i++)
		if (!i || strcmp(groups[i], groups[n_groups - 1]))
			groups[n_groups++] = groups[i];
	for (int g = 0; g < n_groups; g++) {
		const char *next = NULL;
		uint64_t order = 0;
		int task = 0;

		for (int i = 0; i < n_groups; i++) { /* the next greater hash */
			uint64_t hash = ruv_hash64(groups[i], strlen(groups[i]), seed) | 1;

			if (hash > last && (!next || hash < order)) {
				next = groups[i];
				order = hash;
			}
		}
		if (!next)
			break;
		last = order;
		for (int t = 1; t < s->n_tasks; t++)
			task = counts[t] < counts[task] ? t : task;
		for (int i = 0; i < data->n; i++)
			if (!strcmp(data->samples[i].group, next)) {
				make_question(s->w, &data->samples[i], task, &s->questions[s->n]);
				counts[task]++;
				if (!s->questions[s->n].held_out)
					s->of_task[task][s->n_of_task[task]++] = s->n;
				s->n++;
			}
	}
	free(groups);
	for (int t = 0; t < s->n_tasks; t++)
		if (s->n_of_task[t] < 20)
			return ruv_fail(err, RUV_EINVAL, "router",
			                "task %d of %d has %d questions to learn from, 20 are needed: collect more", t + 1,
			                s->n_tasks, s->n_of_task[t]);
	return RUV_OK;
}

/* Of a task's learned, or held-out, questions the share on which the network takes a tier within 0.05 of the best, and the mean
 * utility. */
static double examine(const struct stream *s, const float *params, int task, bool held_out, double *utility, int *n)
{
	const ruv_router_weights *w = s->w;
	int seen = 0, right = 0;
	double sum = 0;

	for (int i = 0; i < s->n; i++) {
		const struct question *q = &s->questions[i];
		float state[RUV_ROUTE_MAX_HIDDEN] = {0};
		ruv_router_outputs out;
		int chosen;

		if (q->task != task || q->held_out != held_out)
			continue;
		ruv_fastgrnn_step(&w->shape.cell, params, q->x, state, state, NULL);
		ruv_router_heads(&w->shape, params + ruv_fastgrnn_n_params(&w->shape.cell), state, &out);
		chosen = best_of(out.tiers, w->head.n_tiers);
		seen++;
		right += q->utility[chosen] >= q->utility[best_of(q->utility, w->head.n_tiers)] - 0.05f;
		sum += q->utility[chosen];
	}
	if (utility)
		*utility = seen ? sum / seen : 0;
	if (n)
		*n = seen;
	return seen ? (double)right / seen : 0;
}

/* The network of one protection while it learns. */
struct learner {
	float *params, *gradient;
	ruv_adam adam;
	ruv_ewc *ewc;   /* NULL: not used */
	int *reservoir; /* NULL: not used; [n_kept] questions, Vitter's algorithm R */
	int n_kept, cap;
	int64_t n_offered;
	ruv_rng rng;
};

static int add_loss(const struct stream *s, struct learner *l, int question)
{
	const struct question *q = &s->questions[question];

	ruv_router_net_loss(&s->w->shape, l->params, q->x, &q->target, 1, l->gradient);
	return 1;
}

/* One update: a batch of the stream, with replay as many from the reservoir, a step of Adam, and EWC's pull. */
static void update(const struct stream *s, struct learner *l, int task, bool replay)
{
	int n = 0, n_params = s->w->n_params;

	memset(l->gradient, 0, sizeof *l->gradient * (size_t)n_params);
	for (int b = 0; b < BATCH; b++) {
		int question = s->of_task[task][ruv_rng_below(&l->rng, (uint64_t)s->n_of_task[task])];
		uint64_t at;

		n += add_loss(s, l, question);
		if (!l->reservoir)
			continue;
		at = l->n_kept < l->cap ? (uint64_t)l->n_kept++ : ruv_rng_below(&l->rng, (uint64_t)l->n_offered + 1);
		l->n_offered++;
		if (at < (uint64_t)l->cap)
			l->reservoir[at] = question;
	}
	if (l->ewc) { /* what the stream's own gradients rest on; replay is no new evidence */
		float *own = l->gradient;

		for (int i = 0; i < n_params; i++)
			own[i] /= (float)n;
		ruv_ewc_observe(l->ewc, own);
		for (int i = 0; i < n_params; i++)
			own[i] *= (float)n;
	}
	for (int b = 0; replay && l->n_kept && b < BATCH; b++)
		n += add_loss(s, l, l->reservoir[ruv_rng_below(&l->rng, (uint64_t)l->n_kept)]);
	for (int i = 0; i < n_params; i++)
		l->gradient[i] /= (float)n;
	ruv_adam_step(&l->adam, l->params, l->gradient);
	if (l->ewc)
		ruv_ewc_pull(l->ewc, l->params, l->adam.rate);
}

static int run(const struct stream *s, const ruv_drift_options *o, bool replay, bool ewc, ruv_drift_result *result, int done,
               ruv_error *err)
{
	const int n_updates = o->n_updates ? o->n_updates : 10000, n_later = s->n_tasks - 1;
	const int64_t groups[3] = {0, ruv_fastgrnn_n_params(&s->w->shape.cell), s->w->n_params};
	struct learner l = {.cap = o->n_reservoir ? o->n_reservoir : 512};
	int rc;

	ruv_rng_init(&l.rng, o->seed + 1);
	l.params = malloc(sizeof *l.params * (size_t)s->w->n_params);
	l.gradient = malloc(sizeof *l.gradient * (size_t)s->w->n_params);
	l.reservoir = replay ? malloc(sizeof *l.reservoir * (size_t)l.cap) : NULL;
	rc = l.params && l.gradient && (l.reservoir || !replay)
	         ? ruv_adam_init(&l.adam, s->w->n_params, 0.001f, 0, err)
	         : ruv_fail_memory(err, "router", sizeof(float) * (size_t)s->w->n_params);
	if (!rc && ewc)
		rc = ruv_ewc_create(&l.ewc, groups, 2, o->ewc > 0 ? o->ewc : 3, err);
	if (rc)
		goto done;
	ruv_router_net_init(l.params, &s->w->shape, &l.rng);
	for (int i = 0; i < N_FIRST; i++)
		update(s, &l, 0, false);
	if (l.ewc)
		ruv_ewc_boundary(l.ewc, l.params);
	result->old_before = examine(s, l.params, 0, false, &result->utility_before, &result->n_learned);
	result->held_before = examine(s, l.params, 0, true, NULL, &result->n_held);
	for (int i = 0; !rc && i < n_updates; i++) {
		int task = 1 + (int)((int64_t)i * n_later / n_updates),
		    before = i ? 1 + (int)((int64_t)(i - 1) * n_later / n_updates) : 1;

		if (task != before && l.ewc)
			ruv_ewc_boundary(l.ewc, l.params);
		update(s, &l, task, replay);
		if (i % 100 == 99 && o->progress && !o->progress(o->user, done + i + 1, RUV_N_DRIFT_PROTECTIONS * n_updates))
			rc = ruv_fail(err, RUV_ECANCELLED, "router", "stopped after update %d", i + 1);
	}
	result->old_after = examine(s, l.params, 0, false, &result->utility_after, NULL);
	result->held_after = examine(s, l.params, 0, true, NULL, NULL);
	for (int t = 0; t < n_later; t++)
		result->earlier_after += examine(s, l.params, t, false, NULL, NULL) / n_later;
	result->last_after = examine(s, l.params, n_later, false, NULL, NULL);
	result->n_updates = n_updates;
done:
	ruv_adam_release(&l.adam);
	ruv_ewc_free(l.ewc);
	free(l.params);
	free(l.gradient);
	free(l.reservoir);
	return rc;
}

int ruv_router_drift(const ruv_router_weights *weights, const ruv_route_data *data, const ruv_drift_options *options,
                     ruv_drift_result results[RUV_N_DRIFT_PROTECTIONS], ruv_error *err)
{
	static const char *const names[RUV_N_DRIFT_PROTECTIONS] = {"none", "replay", "ewc", "both"};
	struct stream s = {.w = weights, .n_tasks = options->n_tasks ? options->n_tasks : 4};
	int rc, n_updates = options->n_updates ? options->n_updates : 10000;

	memset(results, 0, sizeof *results * RUV_N_DRIFT_PROTECTIONS);
	if (s.n_tasks < 2 || s.n_tasks > RUV_DRIFT_MAX_TASKS || n_updates < 0 || options->n_reservoir < 0 ||
	    options->n_reservoir > MAX_RESERVOIR || data->n_tiers != weights->head.n_tiers)
		return ruv_fail(err, RUV_EINVAL, "router",
		                "%d tasks (2 to %d), %d updates, a reservoir of %d (at most %d), %d tiers", s.n_tasks,
		                RUV_DRIFT_MAX_TASKS, n_updates, options->n_reservoir, MAX_RESERVOIR, data->n_tiers);
	rc = deal(&s, data, options->seed, err);
	for (int p = 0; !rc && p < RUV_N_DRIFT_PROTECTIONS; p++) {
		results[p].protection = names[p];
		rc = run(&s, options, p & 1, p & 2, &results[p], p * n_updates, err);
	}
	free(s.questions);
	for (int t = 0; t < RUV_DRIFT_MAX_TASKS; t++)
		free(s.of_task[t]);
	return rc;
}
