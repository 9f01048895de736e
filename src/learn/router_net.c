/* router_net.c - see router_net.h. Layer: learn. */
#include "learn/router_net.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "learn/vec.h"

enum { MAX_OUT = 2 * RUV_ROUTE_MAX_TIERS + RUV_ROUTE_CONTEXTS + 3 };

/* Rows of the heads. */
struct rows {
	int contexts, temperature, top_p, confidence, quality, n;
};

static struct rows rows_of(int n_tiers)
{
	struct rows r = {.contexts = n_tiers};

	r.temperature = r.contexts + RUV_ROUTE_CONTEXTS;
	r.top_p = r.temperature + 1;
	r.confidence = r.top_p + 1;
	r.quality = r.confidence + 1;
	r.n = r.quality + n_tiers;
	return r;
}

int ruv_router_shape_check(const ruv_router_shape *shape, ruv_error *err)
{
	if (shape->n_tiers < 1 || shape->n_tiers > RUV_ROUTE_MAX_TIERS)
		return ruv_fail(err, RUV_EINVAL, "router", "%d tiers, 1 to %d are possible", shape->n_tiers, RUV_ROUTE_MAX_TIERS);
	return ruv_fastgrnn_check(&shape->cell, err);
}

int ruv_router_net_n_params(const ruv_router_shape *shape)
{
	return ruv_fastgrnn_n_params(&shape->cell) + rows_of(shape->n_tiers).n * (shape->cell.hidden + 1);
}

void ruv_router_net_init(float *params, const ruv_router_shape *shape, ruv_rng *rng)
{
	int n_cell = ruv_fastgrnn_n_params(&shape->cell), n_rows = rows_of(shape->n_tiers).n, hidden = shape->cell.hidden;
	float range = sqrtf(6.0f / (float)(hidden + n_rows));

	ruv_fastgrnn_init(params, &shape->cell, rng);
	for (int i = 0; i < n_rows * hidden; i++)
		params[n_cell + i] = range * (float)(2 * ruv_rng_double(rng) - 1);
	memset(params + n_cell + n_rows * hidden, 0, sizeof *params * (size_t)n_rows);
}

static float sigmoid(float x)
{
	return 1 / (1 + expf(-x));
}

static void softmax(const float *x, int n, float *p)
{
	float top = x[0], sum = 0;

	for (int i = 1; i < n; i++)
		top = fmaxf(top, x[i]);
	for (int i = 0; i < n; i++)
		sum += p[i] = expf(x[i] - top);
	for (int i = 0; i < n; i++)
		p[i] /= sum;
}

void ruv_router_heads(const ruv_router_shape *shape, const float *heads, const float *state, ruv_router_outputs *out)
{
	struct rows r = rows_of(shape->n_tiers);
	float raw[MAX_OUT] = {0};
	int hidden = shape->cell.hidden;

	memset(out, 0, sizeof *out);
	for (int i = 0; i < r.n; i++)
		raw[i] = ruv_vec_dot(heads + i * hidden, state, hidden) + heads[r.n * hidden + i];
	softmax(raw, shape->n_tiers, out->tiers);
	softmax(raw + r.contexts, RUV_ROUTE_CONTEXTS, out->contexts);
	out->temperature = 2 * sigmoid(raw[r.temperature]);
	out->top_p = sigmoid(raw[r.top_p]);
	out->confidence = sigmoid(raw[r.confidence]);
	for (int t = 0; t < shape->n_tiers; t++)
		out->quality[t] = sigmoid(raw[r.quality + t]);
}

static double smooth_l1(float difference, float *slope)
{
	float size = fabsf(difference);

	*slope = size < 1 ? difference : difference > 0 ? 1.0f : -1.0f;
	return size < 1 ? 0.5 * (double)size * size : size - 0.5;
}

static double bce(float p, float target, float *slope)
{
	double q = p < 1e-7f ? 1e-7 : p > 1 - 1e-7f ? 1 - 1e-7 : p;

	*slope = p - target; /* of the raw number */
	return -(target * log(q) + (1 - (double)target) * log(1 - q));
}

/* Loss of one turn and d_raw [rows.n], its gradient by the heads' raw outputs. */
static double turn_loss(const ruv_router_shape *shape, const ruv_router_outputs *out, const ruv_router_target *target, float *d_raw)
{
	struct rows r = rows_of(shape->n_tiers);
	double loss = 0;
	float slope;

	memset(d_raw, 0, sizeof *d_raw * (size_t)r.n);
	for (int t = 0; t < shape->n_tiers; t++) {
		loss -= target->weight * target->tiers[t] * log(out->tiers[t] > 1e-12f ? out->tiers[t] : 1e-12f);
		d_raw[t] = target->weight * (out->tiers[t] - target->tiers[t]);
	}
	if (target->context >= 0) {
		float p = out->contexts[target->context];

		loss -= log(p > 1e-12f ? p : 1e-12f);
		for (int c = 0; c < RUV_ROUTE_CONTEXTS; c++)
			d_raw[r.contexts + c] = out->contexts[c] - (float)(c == target->context);
	}
	if (target->temperature >= 0) {
		float half = out->temperature / 2;

		loss += RUV_ROUTER_ALPHA * smooth_l1(out->temperature - target->temperature, &slope);
		d_raw[r.temperature] = RUV_ROUTER_ALPHA * slope * 2 * half * (1 - half);
	}
	if (target->top_p >= 0) {
		loss += RUV_ROUTER_BETA * smooth_l1(out->top_p - target->top_p, &slope);
		d_raw[r.top_p] = RUV_ROUTER_BETA * slope * out->top_p * (1 - out->top_p);
	}
	if (target->confidence >= 0) {
		loss += RUV_ROUTER_GAMMA * bce(out->confidence, target->confidence, &slope);
		d_raw[r.confidence] = RUV_ROUTER_GAMMA * slope;
	}
	for (int t = 0; t < shape->n_tiers; t++)
		if (target->quality[t] >= 0) {
			loss += RUV_ROUTER_DELTA * bce(out->quality[t], target->quality[t], &slope);
			d_raw[r.quality + t] = RUV_ROUTER_DELTA * slope;
		}
	return loss;
}

double ruv_router_net_loss(const ruv_router_shape *shape, const float *params, const float *x, const ruv_router_target *targets,
                           int n_turns, float *gradient)
{
	const int hidden = shape->cell.hidden, n_in = shape->cell.n_in, n_rows = rows_of(shape->n_tiers).n;
	const float *heads = params + ruv_fastgrnn_n_params(&shape->cell);
	float states[RUV_ROUTER_MAX_TURNS + 1][RUV_ROUTE_MAX_HIDDEN] = {{0}}, d_raw[RUV_ROUTER_MAX_TURNS][MAX_OUT];
	float d_state[RUV_ROUTE_MAX_HIDDEN] = {0}, d_before[RUV_ROUTE_MAX_HIDDEN];
	ruv_fastgrnn_cache caches[RUV_ROUTER_MAX_TURNS];
	ruv_router_outputs out;
	double loss = 0;

	for (int t = 0; t < n_turns; t++) {
		ruv_fastgrnn_step(&shape->cell, params, x + t * n_in, states[t], states[t + 1], &caches[t]);
		ruv_router_heads(shape, heads, states[t + 1], &out);
		loss += turn_loss(shape, &out, &targets[t], d_raw[t]) / n_turns;
	}
	for (int t = n_turns - 1; gradient && t >= 0; t--) {
		float *d_heads = gradient + ruv_fastgrnn_n_params(&shape->cell);

		for (int i = 0; i < n_rows; i++) {
			float d = d_raw[t][i] / (float)n_turns;

			ruv_vec_add(d_heads + i * hidden, d, states[t + 1], hidden);
			d_heads[n_rows * hidden + i] += d;
			ruv_vec_add(d_state, d, heads + i * hidden, hidden);
		}
		ruv_fastgrnn_back(&shape->cell, params, x + t * n_in, states[t], &caches[t], d_state, gradient, d_before);
		memcpy(d_state, d_before, sizeof d_state);
	}
	return loss;
}
