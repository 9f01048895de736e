/* test_graph_attention.c - the network over a neighbourhood: its gradients against finite differences, and what must not change its
 * scores. */
#include "test.h"

#include <math.h>

#include "memory/graph_attention.h"

enum { N = 9, DIM = 12, MAX_EDGES = 32 };

typedef struct fixture {
	ruv_gat_shape shape;
	ruv_gat_graph graph;
	float rows[N][DIM], question[DIM], features[N * RUV_GAT_FEATURES], base[N];
	const float *row_at[N];
	int hops[N];
	ruv_gat_edge edges[MAX_EDGES];
	float *params;
	int n_params;
} fixture;

static void unit(float *v, ruv_rng *rng)
{
	double norm = 0;

	for (int i = 0; i < DIM; i++) {
		v[i] = (float)ruv_rng_normal(rng);
		norm += (double)v[i] * (double)v[i];
	}
	for (int i = 0; i < DIM; i++)
		v[i] /= (float)sqrt(norm);
}

static void make(fixture *f, int layers, uint64_t seed)
{
	static const int pairs[][2] = {{0, 1}, {0, 2}, {1, 2}, {2, 3}, {3, 4}, {1, 5}, {5, 6}, {6, 7}, {0, 7}};
	ruv_rng rng;
	int n = 0;

	memset(f, 0, sizeof *f);
	ruv_rng_init(&rng, seed);
	f->shape = (ruv_gat_shape){.dim = DIM, .projected = 5, .hidden = 16, .heads = 4, .layers = layers, .prune = 0.05F};
	for (int i = 0; i < N; i++) {
		unit(f->rows[i], &rng);
		f->row_at[i] = i == 4 ? NULL : f->rows[i]; /* one node has no vector */
		f->base[i] = (float)ruv_rng_normal(&rng);
		f->hops[i] = i < 4 ? 0 : i < 7 ? 1 : 2;
		for (int j = 0; j < RUV_GAT_FEATURES; j++)
			f->features[i * RUV_GAT_FEATURES + j] = (float)ruv_rng_normal(&rng) * 0.5F;
	}
	unit(f->question, &rng);
	for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
		const int type = (int)ruv_rng_below(&rng, RUV_N_EDGE_TYPES);
		const float weight = 0.3F + 0.7F * (float)ruv_rng_double(&rng), recency = (float)ruv_rng_double(&rng);
		f->edges[n++] = (ruv_gat_edge){pairs[p][0], pairs[p][1], type, weight, 0.9F, recency};
		f->edges[n++] = (ruv_gat_edge){pairs[p][1], pairs[p][0], type + RUV_N_EDGE_TYPES, weight, 0.9F, recency};
	}
	f->graph = (ruv_gat_graph){.n = N,
	                           .n_edges = n,
	                           .question = f->question,
	                           .rows = f->row_at,
	                           .features = f->features,
	                           .base = f->base,
	                           .hops = f->hops,
	                           .edges = f->edges};
	f->n_params = ruv_gat_n_params(&f->shape);
	f->params = malloc(sizeof(float) * (size_t)f->n_params);
	assert_non_null(f->params);
	ruv_gat_init(f->params, &f->shape, &rng);
	for (int i = 0; i < f->n_params; i++) /* w2, b1 ... are not 0 here, or nothing would flow */
		f->params[i] += 0.1F * (float)ruv_rng_normal(&rng);
}

static void scores_of(const fixture *f, float *scores)
{
	ruv_error err = {0};
	ruv_gat_pass *pass;
	ruv_arena arena;

	ruv_arena_init(&arena);
	assert_ok(ruv_gat_forward(&pass, scores, &f->shape, f->params, &f->graph, &arena, &err), err);
	ruv_arena_release(&arena);
}

/* A weighted sum of the scores less their base, so that the rounding of what does not matter stays out. */
static double loss_of(const fixture *f, const float *weights)
{
	float scores[N];
	double sum = 0;

	scores_of(f, scores);
	for (int i = 0; i < N; i++)
		sum += (double)weights[i] * ((double)scores[i] - (double)f->base[i]);
	return sum;
}

/* Every parameter. The corner of LeakyReLU may lie between both points of a difference: then it is wrong, not the gradient, and a
 * smaller step is right. */
static void gradients_agree(int layers, uint64_t seed)
{
	ruv_error err = {0};
	float weights[N], scores[N], *gradient;
	ruv_gat_pass *pass;
	ruv_arena arena;
	ruv_rng rng;
	fixture f;
	double worst = 0;
	int n_moved = 0;

	make(&f, layers, seed);
	memset(f.base, 0, sizeof f.base);
	ruv_rng_init(&rng, seed + 1);
	for (int i = 0; i < N; i++)
		weights[i] = (float)ruv_rng_normal(&rng);
	gradient = calloc((size_t)f.n_params, sizeof *gradient);
	assert_non_null(gradient);
	ruv_arena_init(&arena);
	assert_ok(ruv_gat_forward(&pass, scores, &f.shape, f.params, &f.graph, &arena, &err), err);
	assert_ok(ruv_gat_backward(pass, weights, gradient, &err), err);
	ruv_arena_release(&arena);
	for (int i = 0; i < f.n_params; i++) {
		static const float steps[] = {4e-3F, 1e-3F, 5e-4F, 2e-4F};
		const float was = f.params[i];
		double error = INFINITY;
		for (size_t s = 0; s < sizeof steps / sizeof *steps && error >= 1e-3; s++) {
			double up, down, numeric, wrong;
			f.params[i] = was + steps[s];
			up = loss_of(&f, weights);
			f.params[i] = was - steps[s];
			down = loss_of(&f, weights);
			f.params[i] = was;
			numeric = (up - down) / (2 * (double)steps[s]);
			wrong = fabs(numeric - (double)gradient[i]) / fmax(1, fabs(numeric));
			error = wrong < error ? wrong : error;
		}
		worst = error > worst ? error : worst;
		n_moved += fabs((double)gradient[i]) > 1e-6;
		if (error >= 1e-3)
			fail_msg("parameter %d of %d, %d layers: gradient %g, off by %g", i, f.n_params, layers,
			         (double)gradient[i], error);
	}
	assert_true(worst < 1e-3);
	assert_true(n_moved > f.n_params / 2);
	free(gradient);
	free(f.params);
}

static void gradients_of_one_layer(void **state)
{
	(void)state;
	gradients_agree(1, 3);
}

static void gradients_of_two_layers(void **state)
{
	(void)state;
	gradients_agree(2, 8);
}

static void poincare_distance(void **state)
{
	float x[RUV_GAT_BALL] = {0.3F, -0.2F, 0.5F, 0.1F}, y[RUV_GAT_BALL] = {-0.4F, 0.6F, 0.2F, -0.1F}, dx[RUV_GAT_BALL],
	      dy[RUV_GAT_BALL];
	const float d = ruv_gat_poincare(x, y, dx, dy);
	double u[RUV_GAT_BALL], v[RUV_GAT_BALL], nx = 0, ny = 0, uu = 0, vv = 0, uv = 0;

	(void)state;
	/* The formula itself, in double. */
	for (int i = 0; i < RUV_GAT_BALL; i++) {
		nx += (double)x[i] * (double)x[i];
		ny += (double)y[i] * (double)y[i];
	}
	for (int i = 0; i < RUV_GAT_BALL; i++) {
		u[i] = tanh(sqrt(nx)) / sqrt(nx) * (double)x[i];
		v[i] = tanh(sqrt(ny)) / sqrt(ny) * (double)y[i];
		uu += u[i] * u[i];
		vv += v[i] * v[i];
		uv += (u[i] - v[i]) * (u[i] - v[i]);
	}
	assert_float_equal(d, acosh(1 + 2 * uv / ((1 - uu) * (1 - vv))), 1e-3);
	assert_float_equal(d, ruv_gat_poincare(y, x, NULL, NULL), 1e-5);
	assert_true(ruv_gat_poincare(x, x, NULL, NULL) < 0.02F);
	for (int i = 0; i < RUV_GAT_BALL; i++) {
		const float was = x[i], h = 1e-2F;
		float up, down;
		x[i] = was + h;
		up = ruv_gat_poincare(x, y, NULL, NULL);
		x[i] = was - h;
		down = ruv_gat_poincare(x, y, NULL, NULL);
		x[i] = was;
		assert_float_equal(dx[i], (up - down) / (2 * h), 1e-3);
	}
	/* Far out it stays finite. */
	for (int i = 0; i < RUV_GAT_BALL; i++)
		x[i] *= 100;
	assert_true(isfinite(ruv_gat_poincare(x, y, dx, dy)));
	for (int i = 0; i < RUV_GAT_BALL; i++)
		assert_true(isfinite(dx[i]) && isfinite(dy[i]));
}

static void fresh_parameters_change_nothing(void **state)
{
	float scores[N];
	ruv_rng rng;
	fixture f;

	(void)state;
	make(&f, 2, 5);
	ruv_rng_init(&rng, 9);
	ruv_gat_init(f.params, &f.shape, &rng);
	scores_of(&f, scores);
	for (int i = 0; i < N; i++)
		assert_true(scores[i] == f.base[i]);
	memset(f.params, 0, sizeof(float) * (size_t)f.n_params);
	scores_of(&f, scores);
	for (int i = 0; i < N; i++)
		assert_true(scores[i] == f.base[i]);
	free(f.params);
}

static void no_edges_change_nothing(void **state)
{
	float scores[N];
	fixture f;

	(void)state;
	make(&f, 2, 5);
	scores_of(&f, scores);
	assert_true(scores[8] == f.base[8]); /* the one node without an edge */
	assert_true(scores[0] != f.base[0]);
	f.graph.n_edges = 0;
	scores_of(&f, scores);
	for (int i = 0; i < N; i++)
		assert_true(scores[i] == f.base[i]);
	free(f.params);
}

static void order_does_not_matter(void **state)
{
	static const int at[N] = {4, 7, 0, 2, 8, 1, 3, 6, 5}; /* node i becomes node at[i] */
	float before[N], after[N];
	fixture f, g;

	(void)state;
	make(&f, 2, 11);
	scores_of(&f, before);
	make(&g, 2, 11);
	for (int i = 0; i < N; i++) {
		g.row_at[at[i]] = f.row_at[i];
		g.base[at[i]] = f.base[i];
		g.hops[at[i]] = f.hops[i];
		memcpy(g.features + at[i] * RUV_GAT_FEATURES, f.features + i * RUV_GAT_FEATURES, sizeof(float) * RUV_GAT_FEATURES);
	}
	for (int e = 0; e < f.graph.n_edges; e++) { /* and the edges the other way round */
		g.edges[f.graph.n_edges - 1 - e] = f.edges[e];
		g.edges[f.graph.n_edges - 1 - e].from = at[f.edges[e].from];
		g.edges[f.graph.n_edges - 1 - e].to = at[f.edges[e].to];
	}
	scores_of(&g, after);
	for (int i = 0; i < N; i++)
		assert_float_equal(after[at[i]], before[i], 1e-4);
	free(f.params);
	free(g.params);
}

static void weak_edges_are_pruned(void **state)
{
	float without[N], weak[N], heavy[N];
	fixture f;

	(void)state;
	make(&f, 2, 13);
	scores_of(&f, without);
	f.edges[f.graph.n_edges++] = (ruv_gat_edge){8, 0, RUV_EDGE_CITES, 0.4F, 0.1F, 1}; /* 0.04 */
	scores_of(&f, weak);
	for (int i = 0; i < N; i++)
		assert_true(weak[i] == without[i]);
	f.edges[f.graph.n_edges - 1].confidence = 0.5F;
	scores_of(&f, heavy);
	assert_true(heavy[0] != without[0]);
	f.shape.prune = 0.3F;
	scores_of(&f, heavy);
	f.graph.n_edges--;
	scores_of(&f, without);
	for (int i = 0; i < N; i++)
		assert_true(heavy[i] == without[i]);
	free(f.params);
}

/* Hops, relation, weight, confidence and recency each move the scores of the node that they are about. */
static void every_input_of_an_edge_counts(void **state)
{
	float before[N], after[N];
	fixture f;

	(void)state;
	make(&f, 1, 17);
	scores_of(&f, before);
	f.hops[2]++;
	scores_of(&f, after);
	assert_true(fabsf(after[2] - before[2]) > 1e-5F);
	assert_true(fabsf(after[3] - before[3]) > 1e-5F); /* its neighbour sees it from another distance */
	assert_true(after[5] == before[5]);               /* not its neighbour */
	f.hops[2]--;
#define MOVES(field, value)                                                                                                        \
	do {                                                                                                                       \
		const ruv_gat_edge was = f.edges[0];                                                                               \
		f.edges[0].field = (value);                                                                                        \
		scores_of(&f, after);                                                                                              \
		assert_true(after[f.edges[0].to] != before[f.edges[0].to]);                                                        \
		f.edges[0] = was;                                                                                                  \
	} while (0)
	MOVES(relation, (f.edges[0].relation + 1) % RUV_GAT_RELATIONS);
	MOVES(weight, f.edges[0].weight + 0.2F);
	MOVES(confidence, 0.7F);
	MOVES(recency, f.edges[0].recency * 0.5F + 0.01F);
#undef MOVES
	free(f.params);
}

static void attention_adds_up_to_at_most_one(void **state)
{
	ruv_error err = {0};
	float scores[N];
	ruv_gat_pass *pass;
	ruv_arena arena;
	const float *weights;
	double sum = 0;
	fixture f;
	int n;

	(void)state;
	make(&f, 1, 19);
	f.graph.n_edges = 2; /* 0 -> 1 and 1 -> 0 */
	ruv_arena_init(&arena);
	assert_ok(ruv_gat_forward(&pass, scores, &f.shape, f.params, &f.graph, &arena, &err), err);
	weights = ruv_gat_attention(pass, 0, &n);
	assert_int_equal(n, 2);
	for (int head = 0; head < f.shape.heads; head++)
		for (int e = 0; e < n; e++) {
			assert_true(weights[head * n + e] > 0 && weights[head * n + e] < 1);
			sum += (double)weights[head * n + e];
		}
	assert_true(sum > 0.1);
	ruv_arena_release(&arena);
	free(f.params);
}

static void shapes_are_checked(void **state)
{
	const ruv_gat_shape good = {.dim = 8, .projected = 4, .hidden = 16, .heads = 4, .layers = 2};
	ruv_gat_shape bad;
	ruv_error err = {0};

	(void)state;
	assert_ok(ruv_gat_check(&good, &err), err);
	bad = good;
	bad.hidden = 12;
	assert_int_equal(ruv_gat_check(&bad, &err), RUV_EINVAL);
	bad = good;
	bad.layers = 0;
	assert_int_equal(ruv_gat_check(&bad, &err), RUV_EINVAL);
	bad = good;
	bad.prune = NAN;
	assert_int_equal(ruv_gat_check(&bad, &err), RUV_EINVAL);
	bad = good;
	bad.dim = 0;
	assert_int_equal(ruv_gat_check(&bad, &err), RUV_EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(gradients_of_one_layer),
	    cmocka_unit_test(gradients_of_two_layers),
	    cmocka_unit_test(poincare_distance),
	    cmocka_unit_test(fresh_parameters_change_nothing),
	    cmocka_unit_test(no_edges_change_nothing),
	    cmocka_unit_test(order_does_not_matter),
	    cmocka_unit_test(weak_edges_are_pruned),
	    cmocka_unit_test(every_input_of_an_edge_counts),
	    cmocka_unit_test(attention_adds_up_to_at_most_one),
	    cmocka_unit_test(shapes_are_checked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
