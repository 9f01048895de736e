/* train_router.c - see train_router.h. Layer: learn. */
#include "learn/train_router.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/status.h"
#include "learn/vec.h"

enum { PATIENCE = 20, MAX_CHUNK = 4 };

static const int context_bins[RUV_ROUTE_CONTEXTS] = {256, 512, 1024, 2048, 4096};

/* ---- Adam -------------------------------------------------------------------------------------------------------------- */

int ruv_adam_init(ruv_adam *adam, int n, float rate, float decay, ruv_error *err)
{
	*adam = (ruv_adam){.n = n, .rate = rate, .decay = decay};
	adam->m = calloc((size_t)n, sizeof(float));
	adam->v = calloc((size_t)n, sizeof(float));
	if (adam->m && adam->v)
		return RUV_OK;
	ruv_adam_release(adam);
	return ruv_fail_memory(err, "router", (size_t)n * sizeof(float));
}

void ruv_adam_release(ruv_adam *adam)
{
	free(adam->m);
	free(adam->v);
	memset(adam, 0, sizeof *adam);
}

void ruv_adam_step(ruv_adam *a, float *params, const float *gradient)
{
	float c1, c2;

	a->step++;
	c1 = 1 - powf(0.9f, (float)a->step);
	c2 = 1 - powf(0.999f, (float)a->step);
	for (int i = 0; i < a->n; i++) {
		a->m[i] = 0.9f * a->m[i] + 0.1f * gradient[i];
		a->v[i] = 0.999f * a->v[i] + 0.001f * gradient[i] * gradient[i];
		params[i] -= a->rate * (a->m[i] / c1 / (sqrtf(a->v[i] / c2) + 1e-8f) + a->decay * params[i]);
	}
}

/* ---- targets ----------------------------------------------------------------------------------------------------------- */

static float cost_of(const ruv_router_weights *w, const ruv_route_result *r, int tier)
{
	return (float)((double)(r->n_prompt + r->n_answer) * (double)w->tiers[tier].n_params / w->head.cost_unit);
}

static float utility_of(const ruv_router_weights *w, const ruv_route_sample *s, int tier)
{
	const ruv_route_result *r = &s->results[tier];

	return ruv_router_utility(&w->head, r->quality, (float)(r->latency_ms / 1000), cost_of(w, r, tier));
}

static int oracle_of(const ruv_router_weights *w, const ruv_route_sample *s, float *utility)
{
	int best = 0;

	for (int t = 0; t < w->head.n_tiers; t++) {
		utility[t] = utility_of(w, s, t);
		best = utility[t] > utility[best] ? t : best;
	}
	return best;
}

static void target_of(const ruv_router_weights *w, const ruv_route_sample *s, ruv_router_target *target)
{
	float utility[RUV_ROUTE_MAX_TIERS], sum = 0;
	int best = oracle_of(w, s, utility);

	float least = utility[best];

	for (int t = 0; t < w->head.n_tiers; t++)
		least = fminf(least, utility[t]);
	/* A question on which all tiers do alike teaches little about which to take. */
	*target = (ruv_router_target){.context = -1, .confidence = -1, .weight = fminf(1, 0.1f + (utility[best] - least) / 2)};
	for (int t = 0; t < w->head.n_tiers; t++) {
		sum += target->tiers[t] = expf((utility[t] - utility[best]) / w->head.tau);
		target->quality[t] = s->results[t].quality;
	}
	for (int t = 0; t < w->head.n_tiers; t++)
		target->tiers[t] /= sum;
	for (int c = RUV_ROUTE_CONTEXTS - 1; s->min_context > 0 && c >= 0; c--)
		if (context_bins[c] >= s->min_context || c == RUV_ROUTE_CONTEXTS - 1)
			target->context = c;
	target->temperature = s->results[best].temperature;
	target->top_p = s->results[best].top_p;
}

/* ---- preparing --------------------------------------------------------------------------------------------------------- */

/* Means of the tiers, the unit of cost, the standardization. */
static void fit_numbers(ruv_router_weights *w, const ruv_route_data *data)
{
	double sum[RUV_ROUTE_FEATURES] = {0}, squares[RUV_ROUTE_FEATURES] = {0}, unit = 0;
	int n = 0, last = data->n_tiers - 1;

	for (int t = 0; t < data->n_tiers; t++) {
		w->tiers[t] = data->tiers[t];
		w->tiers[t].quality = w->tiers[t].latency_ms = w->tiers[t].tokens = 0;
	}
	for (int i = 0; i < data->n; i++) {
		const ruv_route_sample *s = &data->samples[i];

		if (s->part != RUV_PART_TRAIN)
			continue;
		n++;
		unit += (double)(s->results[last].n_prompt + s->results[last].n_answer) * (double)data->tiers[last].n_params;
		for (int t = 0; t < data->n_tiers; t++) {
			w->tiers[t].quality += s->results[t].quality;
			w->tiers[t].latency_ms += s->results[t].latency_ms;
			w->tiers[t].tokens += s->results[t].n_prompt + s->results[t].n_answer;
		}
	}
	for (int t = 0; t < data->n_tiers; t++) {
		w->tiers[t].quality /= n;
		w->tiers[t].latency_ms /= n;
		w->tiers[t].tokens /= n;
	}
	w->head.cost_unit = unit / n;
	w->head.n_outcomes = n;
	for (int i = 0; i < data->n; i++)
		for (int f = 0; f < RUV_ROUTE_FEATURES && data->samples[i].part == RUV_PART_TRAIN; f++)
			sum[f] += data->samples[i].features[f];
	for (int i = 0; i < data->n; i++)
		for (int f = 0; f < RUV_ROUTE_FEATURES && data->samples[i].part == RUV_PART_TRAIN; f++) {
			double d = data->samples[i].features[f] - sum[f] / n;
			squares[f] += d * d;
		}
	for (int f = 0; f < RUV_ROUTE_FEATURES; f++) {
		double deviation = sqrt(squares[f] / n);

		w->mean[f] = (float)(sum[f] / n);
		w->inverse[f] = deviation > 1e-4 ? (float)(1 / deviation) : 0; /* what never varied says nothing */
	}
}

/* The history part as it would have been, had one tier at random answered each question in turn. */
static void fill_history(const ruv_router_weights *w, ruv_route_data *data, ruv_rng *rng)
{
	ruv_route_history history;
	float quality[RUV_ROUTE_MAX_TIERS];

	for (int t = 0; t < data->n_tiers; t++)
		quality[t] = (float)w->tiers[t].quality;
	ruv_route_history_init(&history, quality, data->n_tiers, 20);
	for (int i = 0; i < data->n; i++) {
		ruv_route_sample *s = &data->samples[i];
		int tier = (int)ruv_rng_below(rng, (uint64_t)data->n_tiers);

		ruv_features_history(s->features, &history, NULL);
		if (s->part == RUV_PART_TRAIN)
			ruv_route_history_add(&history, s->features, tier, s->results[tier].quality);
	}
}

static void outcome_of(const ruv_router_weights *w, const ruv_route_sample *s, ruv_knn_outcome *outcome)
{
	for (int t = 0; t < RUV_ROUTE_MAX_TIERS; t++) {
		outcome->quality[t] = t < w->head.n_tiers ? s->results[t].quality : -1;
		outcome->latency_s[t] = t < w->head.n_tiers ? (float)(s->results[t].latency_ms / 1000) : 0;
		outcome->cost[t] = t < w->head.n_tiers ? cost_of(w, &s->results[t], t) : 0;
	}
}

static int fit_space(ruv_router_weights *w, const ruv_route_data *data, int n_components, uint64_t seed, ruv_error *err)
{
	float *vectors, row[RUV_KNN_MAX_DIM];
	ruv_knn_outcome outcome;
	int n = 0, rc;

	if (!data->dim)
		return RUV_OK;
	vectors = malloc(sizeof *vectors * (size_t)data->dim * (size_t)data->n);
	if (!vectors)
		return ruv_fail_memory(err, "router", sizeof *vectors * (size_t)data->dim * (size_t)data->n);
	for (int i = 0; i < data->n; i++)
		if (data->samples[i].part == RUV_PART_TRAIN && data->samples[i].vector)
			memcpy(vectors + (size_t)data->dim * (size_t)n++, data->samples[i].vector,
			       sizeof *vectors * (size_t)data->dim);
	rc = ruv_basis_fit(&w->basis, vectors, n, data->dim, n_components, seed, err);
	free(vectors);
	ruv_knn_init(&w->bank, w->basis.n_components, 0);
	for (int i = 0; !rc && i < data->n; i++)
		if (data->samples[i].part == RUV_PART_TRAIN && data->samples[i].vector) {
			ruv_basis_project(&w->basis, data->samples[i].vector, row);
			outcome_of(w, &data->samples[i], &outcome);
			rc = ruv_knn_add(&w->bank, row, &outcome, err);
		}
	return rc;
}

/* Components of the embedding features depend on the basis, which was fitted after the features were stored. */
static void refresh_components(const ruv_router_weights *w, ruv_route_data *data)
{
	const ruv_basis *b = &w->basis;

	for (int i = 0; i < data->n && b->dim; i++) {
		ruv_route_sample *s = &data->samples[i];
		ruv_route_input input = {.text = "x", .embedding = s->vector, .dim = data->dim};
		float fresh[RUV_ROUTE_FEATURES];

		if (s->vector && !ruv_features_compute(fresh, NULL, b, &input, NULL)) {
			memcpy(s->features + RUV_FEATURE_COMPONENTS, fresh + RUV_FEATURE_COMPONENTS, sizeof(float) * 8);
			memcpy(s->features + RUV_FEATURE_CLUSTER, fresh + RUV_FEATURE_CLUSTER, sizeof(float) * RUV_BASIS_CLUSTERS);
		}
	}
}

/* ---- the network ------------------------------------------------------------------------------------------------------- */

static void run_net(const ruv_router_shape *shape, const float *params, const float *x, ruv_router_outputs *out)
{
	float state[RUV_ROUTE_MAX_HIDDEN] = {0};

	ruv_fastgrnn_step(&shape->cell, params, x, state, state, NULL);
	ruv_router_heads(shape, params + ruv_fastgrnn_n_params(&shape->cell), state, out);
}

static int best_of(const float *x, int n)
{
	int best = 0;

	for (int i = 1; i < n; i++)
		best = x[i] > x[best] ? i : best;
	return best;
}

double ruv_router_gate_utility(const ruv_router_shape *shape, const float *params, const ruv_router_gate_row *rows, int n)
{
	double sum = 0;

	for (int i = 0; i < n; i++) {
		ruv_router_outputs out;

		run_net(shape, params, rows[i].x, &out);
		sum += rows[i].utility[best_of(out.tiers, shape->n_tiers)];
	}
	return n ? sum / n : 0;
}

/* What training works on: rows in order of their groups, so that neighbours make conversations. */
struct work {
	const ruv_router_weights *w;
	float *x; /* [n, RUV_ROUTE_FEATURES] */
	ruv_router_target *targets;
	uint64_t *groups;
	int *chunks, n_chunks; /* first rows of conversations; the next one's is its end */
	int n;
};

/* Cuts the rows into conversations of 1 to MAX_CHUNK turns of one group. */
static void cut_chunks(struct work *k, ruv_rng *rng)
{
	k->n_chunks = 0;
	for (int i = 0; i < k->n;) {
		int length = 1 + (int)ruv_rng_below(rng, 2 * MAX_CHUNK);

		length = length > MAX_CHUNK ? 1 : length; /* half of all turns are the first of theirs */
		k->chunks[k->n_chunks++] = i;
		for (int j = 0; j < length && i < k->n && k->groups[i] == k->groups[k->chunks[k->n_chunks - 1]]; j++)
			i++;
	}
	k->chunks[k->n_chunks] = k->n;
}

/* Before an epoch: whether the tier that the network would take now is as good as the best. */
static void set_confidence(struct work *k, const ruv_router_weights *w)
{
	for (int i = 0; i < k->n; i++) {
		ruv_router_target *target = &k->targets[i];
		ruv_router_outputs out;
		int chosen, best = best_of(target->tiers, w->head.n_tiers);

		run_net(&w->shape, w->params, k->x + (size_t)i * RUV_ROUTE_FEATURES, &out);
		chosen = best_of(out.tiers, w->head.n_tiers);
		target->confidence = logf(target->tiers[best] / (target->tiers[chosen] + 1e-9f)) * w->head.tau < 0.1f;
	}
}

static int make_work(struct work *k, const ruv_router_weights *w, const ruv_route_data *data, ruv_error *err)
{
	size_t n = (size_t)data->n + 1;

	memset(k, 0, sizeof *k);
	k->w = w;
	k->x = malloc(sizeof *k->x * n * RUV_ROUTE_FEATURES);
	k->targets = malloc(sizeof *k->targets * n);
	k->groups = malloc(sizeof *k->groups * n);
	k->chunks = malloc(sizeof *k->chunks * (n + 1));
	if (!k->x || !k->targets || !k->groups || !k->chunks)
		return ruv_fail_memory(err, "router", sizeof *k->x * n * RUV_ROUTE_FEATURES);
	for (int i = 0; i < data->n; i++) {
		const ruv_route_sample *s = &data->samples[i];

		if (s->part != RUV_PART_TRAIN)
			continue;
		ruv_router_standardize(w, s->features, k->x + (size_t)k->n * RUV_ROUTE_FEATURES);
		target_of(w, s, &k->targets[k->n]);
		k->groups[k->n++] = ruv_hash64(s->group, strlen(s->group), 0);
	}
	return RUV_OK;
}

static void work_release(struct work *k)
{
	free(k->x);
	free(k->targets);
	free(k->groups);
	free(k->chunks);
}

/* Diagonal Fisher information, the mean of squared gradients, scaled to a mean of 1 within the cell and within the heads. */
static int fit_fisher(ruv_router_weights *w, const struct work *k, ruv_error *err)
{
	float *gradient = malloc(sizeof *gradient * (size_t)w->n_params);
	int n_cell = ruv_fastgrnn_n_params(&w->shape.cell), bounds[3];

	if (!gradient)
		return ruv_fail_memory(err, "router", sizeof *gradient * (size_t)w->n_params);
	memset(w->fisher, 0, sizeof *w->fisher * (size_t)w->n_params);
	for (int i = 0; i < k->n; i++) {
		memset(gradient, 0, sizeof *gradient * (size_t)w->n_params);
		ruv_router_net_loss(&w->shape, w->params, k->x + (size_t)i * RUV_ROUTE_FEATURES, &k->targets[i], 1, gradient);
		for (int j = 0; j < w->n_params; j++)
			w->fisher[j] += gradient[j] * gradient[j];
	}
	bounds[0] = 0;
	bounds[1] = n_cell;
	bounds[2] = w->n_params;
	for (int g = 0; g < 2; g++) {
		double sum = 0;

		for (int j = bounds[g]; j < bounds[g + 1]; j++)
			sum += w->fisher[j];
		for (int j = bounds[g]; j < bounds[g + 1]; j++)
			w->fisher[j] = sum > 0 ? (float)(w->fisher[j] * (bounds[g + 1] - bounds[g]) / sum) : 0;
	}
	free(gradient);
	return RUV_OK;
}

static double net_utility(const ruv_router_weights *w, const ruv_route_data *data, ruv_route_part part)
{
	double sum = 0;
	int n = 0;

	for (int i = 0; i < data->n; i++) {
		float x[RUV_ROUTE_FEATURES];
		ruv_router_outputs out;

		if (data->samples[i].part != part)
			continue;
		ruv_router_standardize(w, data->samples[i].features, x);
		run_net(&w->shape, w->params, x, &out);
		sum += utility_of(w, &data->samples[i], best_of(out.tiers, w->head.n_tiers));
		n++;
	}
	return n ? sum / n : 0;
}

/* Dense epochs, then pruning, then epochs with the mask; the parameters of the best validation utility after pruning stay. */
static int fit_net(ruv_router_weights *w, struct work *k, const ruv_route_data *data, const ruv_router_training *t,
                   const ruv_router_weights *from, ruv_rng *rng, ruv_error *err)
{
	size_t n_bytes = sizeof(float) * (size_t)w->n_params;
	float *gradient = malloc(n_bytes), *best = malloc(n_bytes), *x = malloc(sizeof *x * MAX_CHUNK * RUV_ROUTE_FEATURES);
	int n_input = ruv_fastgrnn_n_input_weights(&w->shape.cell), n_epochs = t->n_epochs ? t->n_epochs : 80;
	int dense = w->head.density < 1 ? n_epochs * 2 / 5 : 0, worse = 0;
	unsigned char *mask = malloc((size_t)n_input);
	int *order = malloc(sizeof *order * (size_t)(k->n + 1));
	double best_utility = -INFINITY, ewc = t->ewc > 0 ? t->ewc : 1;
	ruv_adam adam = {0};
	int rc = gradient && best && x && mask && order ? ruv_adam_init(&adam, w->n_params, 0.002f, 0.01f, err)
	                                                : ruv_fail_memory(err, "router", n_bytes);

	if (!rc)
		memset(mask, 1, (size_t)n_input);
	for (int epoch = 0; !rc && epoch < n_epochs; epoch++) {
		double loss = 0, utility;

		if (epoch == dense && dense) {
			rc = ruv_fastgrnn_prune(&w->shape.cell, w->params, w->head.density, mask, err);
			best_utility = -INFINITY;
			if (rc)
				break;
		}
		cut_chunks(k, rng);
		set_confidence(k, w);
		for (int i = 0; i < k->n_chunks; i++)
			order[i] = i;
		for (int i = k->n_chunks - 1; i > 0; i--) {
			int j = (int)ruv_rng_below(rng, (uint64_t)i + 1), swap = order[i];
			order[i] = order[j];
			order[j] = swap;
		}
		for (int i = 0; i < k->n_chunks; i += 16) {
			int n = k->n_chunks - i < 16 ? k->n_chunks - i : 16;

			memset(gradient, 0, n_bytes);
			for (int j = i; j < i + n; j++) {
				int first = k->chunks[order[j]], length = k->chunks[order[j] + 1] - first;

				memcpy(x, k->x + (size_t)first * RUV_ROUTE_FEATURES,
				       sizeof *x * (size_t)length * RUV_ROUTE_FEATURES);
				for (int d = 0; d < length * RUV_ROUTE_FEATURES;
				     d++) /* features may be missing: it must not lean on one */
					x[d] *= ruv_rng_u64(rng) % 8 != 0;
				loss += ruv_router_net_loss(&w->shape, w->params, x, k->targets + first, length, gradient);
			}
			for (int d = 0; d < w->n_params; d++) {
				gradient[d] /= (float)n;
				if (from)
					gradient[d] += (float)ewc * from->fisher[d] * (w->params[d] - from->params[d]);
			}
			ruv_adam_step(&adam, w->params, gradient);
			for (int d = 0; d < n_input; d++)
				w->params[d] *= mask[d];
		}
		adam.rate = 0.002f * (float)(n_epochs - epoch) / (float)n_epochs;
		utility = net_utility(w, data, RUV_PART_VALIDATION);
		if (utility > best_utility && epoch >= dense) {
			best_utility = utility;
			memcpy(best, w->params, n_bytes);
			worse = 0;
		} else if (epoch >= dense && ++worse > PATIENCE) {
			break;
		}
		if (t->progress && !t->progress(t->user, epoch + 1, n_epochs, loss / k->n_chunks, utility))
			rc = ruv_fail(err, RUV_ECANCELLED, "router", "stopped after epoch %d", epoch + 1);
	}
	if (!rc && best_utility > -INFINITY)
		memcpy(w->params, best, n_bytes);
	if (!rc)
		set_confidence(k, w);
	ruv_adam_release(&adam);
	free(gradient);
	free(best);
	free(x);
	free(mask);
	free(order);
	return rc;
}

/* ---- policies ---------------------------------------------------------------------------------------------------------- */

/* As a method sees a sample; with `memory`, past outcomes of the same question outweigh it. */
static void see(const ruv_router_weights *w, const ruv_route_sample *s, int method, bool memory, ruv_router_view *view)
{
	float x[RUV_ROUTE_FEATURES], row[RUV_KNN_MAX_DIM];
	ruv_router_outputs out;
	ruv_knn_sums same = {0}, near = {0};

	ruv_router_standardize(w, s->features, x);
	run_net(&w->shape, w->params, x, &out);
	if (s->vector && w->basis.dim) {
		ruv_basis_project(&w->basis, s->vector, row);
		if (ruv_knn_unit(row, w->basis.n_components))
			ruv_knn_ask_two(&w->bank, row, w->head.band, &same, w->head.near_band, &near, -1);
	}
	ruv_router_judge(w, method, &out, &near, memory ? &same : NULL, view);
}

static float gain_of(const ruv_router_head *head, const ruv_route_signs *signs, int tier)
{
	float numbers[RUV_ROUTE_SIGNS], sum = 0;

	ruv_route_signs_numbers(signs, numbers);
	for (int i = 0; i < RUV_ROUTE_SIGNS; i++)
		sum += head->gain[tier][i] * numbers[i];
	return sum;
}

static ruv_route_signs signs_of(const ruv_route_result *r)
{
	return (ruv_route_signs){.mean_logprob = r->mean_logprob,
	                         .min_logprob = r->min_logprob,
	                         .unknown = r->unknown,
	                         .grounded = r->grounded,
	                         .cut_off = r->cut_off,
	                         .judged = r->judged};
}

static bool escalates(const ruv_router_weights *w, const ruv_route_sample *s, int tier)
{
	ruv_route_signs signs = signs_of(&s->results[tier]);

	return w->head.has_trust && tier < w->head.n_tiers - 1 && gain_of(&w->head, &signs, tier) > w->head.threshold[tier];
}

static int routed_tier(const ruv_router_weights *w, const ruv_route_sample *s, int method, bool whole)
{
	ruv_router_view view;

	see(w, s, method, whole, &view);
	return whole && view.neighbours < RUV_ROUTE_KNOWN && view.confidence < w->head.min_confidence ? w->head.n_tiers - 1
	                                                                                              : view.best;
}

/* A question of the training or validation groups with what escalating from a tier is expected to add and does. */
struct step {
	float expected, gain;
};

static int by_expected(const void *a, const void *b)
{
	const struct step *x = a, *y = b;

	return x->expected > y->expected ? -1 : x->expected < y->expected;
}

/* How many points the largest tier would add to an answer: ridge regression over how sure the answer is of itself. The other signs
 * tell which articles have unanswerable questions more than which answers are bad: on other articles they misled. */
static void fit_gain(ruv_router_weights *w, const ruv_route_data *data, int tier)
{
	enum { N = RUV_ROUTE_GAIN_SIGNS };
	double matrix[N][N + 1] = {{0}};
	int last = w->head.n_tiers - 1;

	for (int i = 0; i < data->n; i++) {
		const ruv_route_sample *s = &data->samples[i];
		ruv_route_signs signs = signs_of(&s->results[tier]);
		float x[RUV_ROUTE_SIGNS];

		if (s->part != RUV_PART_TRAIN && s->part != RUV_PART_VALIDATION)
			continue;
		ruv_route_signs_numbers(&signs, x);
		for (int a = 0; a < N; a++) {
			for (int b = 0; b < N; b++)
				matrix[a][b] += (double)x[a] * x[b];
			matrix[a][N] += 4.0 * x[a] * (s->results[last].quality - s->results[tier].quality);
		}
	}
	for (int a = 0; a < N; a++)
		matrix[a][a] += 5;
	for (int a = 0; a < N; a++) /* Gauss-Jordan; the matrix is positive definite */
		for (int b = 0; b < N; b++) {
			double factor = matrix[b][a] / matrix[a][a];

			for (int c = a; c <= N && b != a; c++)
				matrix[b][c] -= factor * matrix[a][c];
		}
	memset(w->head.gain[tier], 0, sizeof w->head.gain[tier]);
	for (int a = 0; a < N; a++)
		w->head.gain[tier][a] = (float)(matrix[a][N] / matrix[a][a]);
}

/* Whether an answer is as good as any larger tier's, from its signs: logistic regression. */
static void fit_good(ruv_router_weights *w, const ruv_route_data *data, int tier)
{
	double weights[RUV_ROUTE_SIGNS] = {0};
	int last = w->head.n_tiers - 1, n = 0;

	for (int i = 0; i < data->n; i++)
		n += data->samples[i].part == RUV_PART_TRAIN;
	for (int step = 0; step < 600; step++) {
		double gradient[RUV_ROUTE_SIGNS] = {0};

		for (int i = 0; i < data->n; i++) {
			const ruv_route_sample *s = &data->samples[i];
			ruv_route_signs signs = signs_of(&s->results[tier]);
			float numbers[RUV_ROUTE_SIGNS], larger = 0;
			double sum = 0, p;

			if (s->part != RUV_PART_TRAIN)
				continue;
			for (int t = tier + 1; t <= last; t++)
				larger = fmaxf(larger, s->results[t].quality);
			ruv_route_signs_numbers(&signs, numbers);
			for (int j = 0; j < RUV_ROUTE_SIGNS; j++)
				sum += weights[j] * numbers[j];
			p = 1 / (1 + exp(-sum)) - (s->results[tier].quality >= larger - 0.05f);
			for (int j = 0; j < RUV_ROUTE_SIGNS; j++)
				gradient[j] += p * numbers[j];
		}
		for (int j = 0; j < RUV_ROUTE_SIGNS; j++)
			weights[j] -= 0.3 * (gradient[j] / (n ? n : 1) + 1e-4 * weights[j]);
	}
	for (int j = 0; j < RUV_ROUTE_SIGNS; j++)
		w->head.trust[tier][j] = (float)weights[j];
}

static void fit_trust(ruv_router_weights *w, const ruv_route_data *data)
{
	int last = w->head.n_tiers - 1;

	w->head.has_trust = last > 0;
	for (int tier = 0; tier < last; tier++) {
		fit_gain(w, data, tier);
		fit_good(w, data, tier);
	}
}

/* The bounds of a method: of the questions that it gives to a tier, as few as possible go on, those of the greatest expected gain
 * first, until what is left to lose against always asking the largest tier is below `regret` points. The ladder starts every
 * question at every tier; three numbers were fitted to a thousand questions, so those may be used again. What another method would
 * give a tier is known of the validation questions alone. */
static int choose_bounds(ruv_router_weights *w, const ruv_route_data *data, int method, double regret, ruv_error *err)
{
	struct step *steps = malloc(sizeof *steps * (size_t)(data->n + 1));
	int last = w->head.n_tiers - 1;

	if (!steps)
		return ruv_fail_memory(err, "router", sizeof *steps * (size_t)data->n);
	for (int tier = 0; tier < last; tier++) {
		int n = 0, n_all = 0, at = 0;
		double lost = 0;

		for (int i = 0; i < data->n; i++) {
			const ruv_route_sample *s = &data->samples[i];
			ruv_route_signs signs = signs_of(&s->results[tier]);
			bool ladder = method == RUV_ROUTE_LADDER;

			if (s->part != RUV_PART_VALIDATION && (s->part != RUV_PART_TRAIN || !ladder))
				continue;
			n_all++;
			if (!ladder && routed_tier(w, s, method, false) != tier)
				continue;
			steps[n] = (struct step){gain_of(&w->head, &signs, tier),
			                         4 * (s->results[last].quality - s->results[tier].quality)};
			lost += steps[n++].gain;
		}
		qsort(steps, (size_t)n, sizeof *steps, by_expected);
		for (; at < n && lost / n_all > regret; at++)
			lost -= steps[at].gain;
		w->head.threshold[tier] = at ? steps[at - 1].expected - 1e-6f : n ? steps[0].expected + 1e-6f : INFINITY;
	}
	free(steps);
	return RUV_OK;
}

/* What a method's choices come to on each validation question, into utilities[n]; `whole`: as the router uses it, with what is
 * known, the safe tier, and escalating. Returns their mean. */
static double method_utility(const ruv_router_weights *w, const ruv_route_data *data, int method, bool whole, double *utilities)
{
	double sum = 0;
	int n = 0;

	for (int i = 0; i < data->n; i++) {
		const ruv_route_sample *s = &data->samples[i];
		int tier;

		if (s->part != RUV_PART_VALIDATION)
			continue;
		tier = routed_tier(w, s, method, whole);
		utilities[n] = utility_of(w, s, tier);
		if (whole && escalates(w, s, tier))
			utilities[n] = utility_of(w, s, w->head.n_tiers - 1) - w->head.mu * cost_of(w, &s->results[tier], tier) -
			               w->head.lambda * s->results[tier].latency_ms / 1000;
		sum += utilities[n++];
	}
	return n ? sum / n : 0;
}

/* Is a's mean above b's by more than so many standard errors of the difference? With some hundred questions and many settings
 * tried, a small one is chance. */
static bool is_above(const double *a, const double *b, int n, double errors)
{
	double mean = 0, squares = 0;

	for (int i = 0; i < n; i++)
		mean += (a[i] - b[i]) / n;
	for (int i = 0; i < n; i++)
		squares += (a[i] - b[i] - mean) * (a[i] - b[i] - mean);
	return n > 1 && mean > errors * sqrt(squares / (n - 1) / n);
}

/* Settings by the validation groups. Each step of a method has to gain a margin over the simpler one before it. To be taken, a
 * method with its cascade has to be better than the ladder by more than chance, and falling back to the safe tier better than not.
 */
static int choose_blend(ruv_router_weights *w, const ruv_route_data *data, double regret, ruv_error *err)
{
	static const float kappas[] = {0.3f, 1, 3, 10}, bands[] = {0.05f, 0.1f, 0.2f, 0.4f}, shares[] = {0, 0.5f, 1};
	static const float shrinks[] = {0, 0.25f, 0.5f, 0.75f, 1};
	const double margin = 0.01;
	double *best_of_all = malloc(2 * sizeof *best_of_all * (size_t)(data->n + 1)), *tried, best, now;
	ruv_router_head kept;
	int n = 0, rc;

	if (!best_of_all)
		return ruv_fail_memory(err, "router", 2 * sizeof *best_of_all * (size_t)data->n);
	tried = best_of_all + data->n + 1;
	for (int i = 0; i < data->n; i++)
		n += data->samples[i].part == RUV_PART_VALIDATION;
	w->head.kappa = 0.05f; /* what the same question came to counts twenty times as much as an estimate */
	w->head.band = 0.02f;
	w->head.min_confidence = 0;
	w->head.shrink = 0;
	w->head.share = 0;
	kept = w->head;
	best = method_utility(w, data, RUV_ROUTE_FASTGRNN, false, tried);
	for (int i = 1; i < 5; i++)
		for (int s = 0; s < 3; s++) {
			w->head.shrink = shrinks[i];
			w->head.share = shares[s];
			now = method_utility(w, data, RUV_ROUTE_FASTGRNN, false, tried);
			if (now > best + margin || kept.shrink <= 0) { /* a network that moves nothing is no network */
				best = now;
				kept = w->head;
			}
		}
	w->head = kept;
	w->head.near_kappa = 10;
	w->head.near_band = 0.2f;
	kept = w->head;
	best = method_utility(w, data, RUV_ROUTE_KNN, false, tried);
	for (int k = 3; k >= 0; k--)
		for (int b = 0; b < 4; b++) {
			w->head.near_kappa = kappas[k];
			w->head.near_band = bands[b];
			now = method_utility(w, data, RUV_ROUTE_KNN, false, tried);
			if (now > best + margin) {
				best = now;
				kept = w->head;
			}
		}
	w->head = kept;
	rc = choose_bounds(w, data, RUV_ROUTE_LADDER, regret, err);
	w->head.method = RUV_ROUTE_LADDER;
	best = method_utility(w, data, RUV_ROUTE_LADDER, true, best_of_all);
	kept = w->head;
	for (int method = RUV_ROUTE_KNN; !rc && method <= RUV_ROUTE_BLEND; method++) {
		rc = choose_bounds(w, data, method, regret, err);
		now = method_utility(w, data, method, true, tried);
		ruv_log(RUV_LOG_INFO, "router", "validation: %s %.4f, %s %.4f", ruv_route_method_name(method), now,
		        ruv_route_method_name(w->head.method), best);
		if (now > best && is_above(tried, best_of_all, n, 1)) {
			best = now;
			w->head.method = method;
			kept = w->head;
			memcpy(best_of_all, tried, sizeof *tried * (size_t)n);
		}
	}
	w->head = kept;
	method_utility(w, data, w->head.method, true, best_of_all);
	for (int i = 1; i <= 16; i++) {
		float before = w->head.min_confidence;

		w->head.min_confidence = (float)i * 0.05f;
		method_utility(w, data, w->head.method, true, tried);
		if (is_above(tried, best_of_all, n, 2)) /* seventeen are tried */
			memcpy(best_of_all, tried, sizeof *tried * (size_t)n);
		else
			w->head.min_confidence = before;
	}
	free(best_of_all);
	return rc;
}

static int make_gate(ruv_router_weights *w, const ruv_route_data *data, ruv_error *err)
{
	int n = 0;

	for (int i = 0; i < data->n; i++)
		n += data->samples[i].part == RUV_PART_VALIDATION;
	n = n > 400 ? 400 : n;
	w->gate = calloc((size_t)n + 1, sizeof *w->gate);
	if (!w->gate)
		return ruv_fail_memory(err, "router", (size_t)n * sizeof *w->gate);
	for (int i = 0; i < data->n && w->n_gate < n; i++)
		if (data->samples[i].part == RUV_PART_VALIDATION) {
			ruv_router_standardize(w, data->samples[i].features, w->gate[w->n_gate].x);
			for (int t = 0; t < w->head.n_tiers; t++)
				w->gate[w->n_gate].utility[t] = utility_of(w, &data->samples[i], t);
			w->n_gate++;
		}
	return RUV_OK;
}

int ruv_router_train(ruv_router_weights **out, ruv_route_data *data, const ruv_router_training *t, ruv_error *err)
{
	ruv_router_weights *w = NULL, *from = NULL;
	struct work work = {0};
	int counts[RUV_N_ROUTE_PARTS] = {0}, rc;
	ruv_rng rng;

	for (int i = 0; i < data->n; i++)
		counts[data->samples[i].part]++;
	if (counts[RUV_PART_TRAIN] < 20 || counts[RUV_PART_VALIDATION] < 5)
		return ruv_fail(
		    err, RUV_EINVAL, "router",
		    "%d questions to train on and %d to choose settings on; at least 20 and 5 are needed: collect more, of more "
		    "articles",
		    counts[RUV_PART_TRAIN], counts[RUV_PART_VALIDATION]);
	ruv_rng_init(&rng, t->seed);
	rc = ruv_router_weights_create(&w, err);
	if (rc)
		return rc;
	w->head.n_tiers = data->n_tiers;
	w->head.hidden = t->hidden ? t->hidden : 48;
	w->head.rank = t->rank < 0 ? 0 : t->rank ? t->rank : 16;
	w->head.shared = t->shared;
	w->head.density = t->density > 0 ? (float)t->density : 0.3f;
	w->head.mu = (float)(t->mu >= 0 ? t->mu : 0.3);
	w->head.lambda = (float)(t->lambda >= 0 ? t->lambda : 0.05);
	w->head.tau = 0.25f;
	w->head.kappa = 0.1f;
	w->head.band = 0.02f;
	w->head.near_kappa = 3;
	w->head.near_band = 0.1f;
	w->head.version = 1;
	w->head.trained_ms = ruv_clock_wall_ms();
	memcpy(w->head.encoder, data->encoder, sizeof w->head.encoder);
	memcpy(w->head.encoder_version, data->encoder_version, sizeof w->head.encoder_version);
	rc = ruv_router_weights_ready(w, true, err);
	if (rc)
		goto done;
	if (t->n_class_bytes) {
		rc = ruv_textclass_unpack(&w->classes, t->classes, t->n_class_bytes, err);
		w->class_bytes = malloc(t->n_class_bytes);
		if (!rc && !w->class_bytes)
			rc = ruv_fail_memory(err, "router", t->n_class_bytes);
		if (rc)
			goto done;
		memcpy(w->class_bytes, t->classes, w->n_class_bytes = t->n_class_bytes);
	}
	if (t->from) {
		rc = ruv_router_weights_read(&from, t->from, true, err);
		if (!rc &&
		    (from->n_params != w->n_params || from->head.n_tiers != w->head.n_tiers || from->head.rank != w->head.rank))
			rc = ruv_fail(err, RUV_EMISMATCH, "router", "%s has another shape: %d tiers, %d hidden units, rank %d",
			              t->from, from->head.n_tiers, from->head.hidden, from->head.rank);
		if (rc)
			goto done;
		w->head.version = from->head.version + 1;
	}
	w->params = calloc((size_t)w->n_params, sizeof *w->params);
	w->fisher = calloc((size_t)w->n_params, sizeof *w->fisher);
	if (!w->params || !w->fisher) {
		rc = ruv_fail_memory(err, "router", sizeof *w->params * (size_t)w->n_params);
		goto done;
	}
	fit_numbers(w, data);
	rc = fit_space(w, data, t->n_components ? t->n_components : RUV_BASIS_MAX_COMPONENTS, t->seed, err);
	if (rc)
		goto done;
	refresh_components(w, data);
	fill_history(w, data, &rng);
	fit_numbers(w, data); /* again: the features have moved */
	if (from) {           /* the old network reads features as it did before */
		memcpy(w->mean, from->mean, sizeof w->mean);
		memcpy(w->inverse, from->inverse, sizeof w->inverse);
		memcpy(w->params, from->params, sizeof *w->params * (size_t)w->n_params);
	} else {
		ruv_router_net_init(w->params, &w->shape, &rng);
	}
	rc = make_work(&work, w, data, err);
	if (!rc)
		rc = fit_net(w, &work, data, t, from, &rng, err);
	if (!rc)
		rc = fit_fisher(w, &work, err);
	if (!rc)
		rc = make_gate(w, data, err);
	if (!rc) {
		fit_trust(w, data);
		rc = choose_blend(w, data, t->regret > 0 ? t->regret : 0.05, err);
	}
	if (!rc)
		rc = ruv_router_weights_ready(w, true, err);
done:
	work_release(&work);
	ruv_router_weights_free(from);
	if (rc)
		ruv_router_weights_free(w);
	else
		*out = w;
	return rc;
}

/* ---- evaluation -------------------------------------------------------------------------------------------------------- */

const char *ruv_route_policy_name(int policy)
{
	static const char *const names[] = {"always-small", "always-big", "random",  "knn",    "fastgrnn",
	                                    "blend",        "router",     "cascade", "ladder", "oracle"};

	return policy >= 0 && policy < RUV_N_ROUTE_POLICIES ? names[policy] : "?";
}

const char *ruv_route_part_name(int part)
{
	static const char *const names[] = {"seen", "new questions", "validation", "unseen articles"};

	return part >= 0 && part < RUV_N_ROUTE_PARTS ? names[part] : "?";
}

void ruv_route_data_prepare(ruv_route_data *data, const ruv_router_weights *weights)
{
	ruv_rng rng;

	ruv_rng_init(&rng, 1);
	refresh_components(weights, data);
	fill_history(weights, data, &rng);
}

/* The cheapest tier that answers within a tenth of a point as well as the best. */
static int cheapest_good(const ruv_router_weights *w, const ruv_route_sample *s)
{
	int tier = 0;
	float best = 0;

	for (int t = 0; t < w->head.n_tiers; t++)
		best = fmaxf(best, s->results[t].quality);
	while (tier < w->head.n_tiers - 1 && s->results[tier].quality < best - 0.025f)
		tier++;
	return tier;
}

/* A policy's tiers on one question: the first, and the last when it escalates. */
static void apply_policy(const ruv_router_weights *w, const ruv_route_sample *s, int policy, int *first, int *last)
{
	float utility[RUV_ROUTE_MAX_TIERS];

	switch (policy) {
	case RUV_POLICY_SMALL:
	case RUV_POLICY_LADDER:
		*first = 0;
		break;
	case RUV_POLICY_BIG:
		*first = w->head.n_tiers - 1;
		break;
	case RUV_POLICY_KNN:
	case RUV_POLICY_FASTGRNN:
	case RUV_POLICY_BLEND:
		*first = routed_tier(w, s, policy - RUV_POLICY_KNN, false);
		break;
	case RUV_POLICY_ORACLE:
		*first = oracle_of(w, s, utility);
		break;
	default:
		*first = routed_tier(w, s, w->head.method, true);
		break;
	}
	*last = *first;
	if (policy == RUV_POLICY_CASCADE) {
		ruv_router_view view;

		see(w, s, w->head.method, true, &view);
		if (view.neighbours >= RUV_ROUTE_KNOWN)
			return;
	}
	if ((policy == RUV_POLICY_CASCADE || policy == RUV_POLICY_LADDER) && escalates(w, s, *first))
		*last = w->head.n_tiers - 1;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void bootstrap(const double *losses, int n, double *low, double *high)
{
	enum { N_DRAWS = 1000 };
	double means[N_DRAWS];
	ruv_rng rng;

	ruv_rng_init(&rng, 1);
	for (int d = 0; d < N_DRAWS; d++) {
		double sum = 0;

		for (int i = 0; i < n; i++)
			sum += losses[ruv_rng_below(&rng, (uint64_t)n)];
		means[d] = sum / n;
	}
	qsort(means, N_DRAWS, sizeof *means, by_value);
	*low = means[N_DRAWS * 25 / 1000];
	*high = means[N_DRAWS * 975 / 1000];
}

void ruv_route_evaluate(const ruv_router_weights *w, const ruv_route_data *data, ruv_route_part part,
                        ruv_policy_result results[RUV_N_ROUTE_POLICIES])
{
	double *losses = malloc(sizeof *losses * (size_t)(data->n + 1)), oracle_cost = 0, oracle_latency = 0, big_cost = 0;
	int big = w->head.n_tiers - 1, n_tiers = w->head.n_tiers;

	memset(results, 0, sizeof *results * RUV_N_ROUTE_POLICIES);
	for (int policy = RUV_N_ROUTE_POLICIES - 1; policy >= 0; policy--) { /* the oracle first */
		ruv_policy_result *r = &results[policy];

		for (int i = 0; i < data->n; i++) {
			const ruv_route_sample *s = &data->samples[i];
			float utility[RUV_ROUTE_MAX_TIERS];
			double quality = 0, latency = 0, cost = 0, gained = 0;
			int oracle, first = 0, last = 0;

			if (s->part != part)
				continue;
			oracle = oracle_of(w, s, utility);
			if (policy == RUV_POLICY_RANDOM) {
				for (int t = 0; t < n_tiers; t++) {
					quality += s->results[t].quality / (float)n_tiers;
					latency += s->results[t].latency_ms / n_tiers;
					cost += cost_of(w, &s->results[t], t) / (float)n_tiers;
					gained += utility[t] / (float)n_tiers;
					r->accuracy += (t == oracle) / (double)n_tiers;
					r->cheapest_good += (t == cheapest_good(w, s)) / (double)n_tiers;
					r->as_good += (utility[t] >= utility[oracle] - 0.05f) / (double)n_tiers;
					r->shares[t] += 1.0 / n_tiers;
				}
			} else {
				apply_policy(w, s, policy, &first, &last);
				quality = s->results[last].quality;
				latency = s->results[last].latency_ms;
				cost = cost_of(w, &s->results[last], last);
				if (last != first) {
					latency += s->results[first].latency_ms;
					cost += cost_of(w, &s->results[first], first);
					r->escalated++;
				}
				gained = ruv_router_utility(&w->head, (float)quality, (float)(latency / 1000), (float)cost);
				r->accuracy += last == oracle;
				r->cheapest_good += last == cheapest_good(w, s);
				r->as_good += gained >= utility[oracle] - 0.05;
				r->shares[last]++;
			}
			if (losses)
				losses[r->n] = 4 * (s->results[big].quality - quality);
			r->n++;
			r->quality += 1 + 4 * quality;
			r->quality_regret += 4 * (s->results[big].quality - quality);
			r->latency_ms += latency;
			r->cost += cost;
			r->utility += gained;
			if (policy == RUV_POLICY_ORACLE)
				big_cost += cost_of(w, &s->results[big], big);
		}
		if (!r->n)
			continue;
		if (losses)
			bootstrap(losses, r->n, &r->regret_low, &r->regret_high);
		for (int t = 0; t < n_tiers; t++)
			r->shares[t] /= r->n;
		r->accuracy /= r->n;
		r->as_good /= r->n;
		r->cheapest_good /= r->n;
		r->quality /= r->n;
		r->quality_regret /= r->n;
		r->latency_ms /= r->n;
		r->utility /= r->n;
		r->escalated /= r->n;
		if (policy == RUV_POLICY_ORACLE) {
			oracle_latency = r->latency_ms;
			oracle_cost = r->cost;
		}
		r->cost_regret = (r->cost - oracle_cost) / big_cost;
		r->cost /= big_cost;
		r->latency_regret_ms = r->latency_ms - oracle_latency;
	}
	free(losses);
}
