/* test_fastgrnn.c - the router's cell and heads: gradients against PyTorch's and against differences, pruning, the forms it runs
 * in. */
#include "test.h"

#include <math.h>

#include "base/rng.h"
#include "fastgrnn_fixture.h"
#include "learn/router_net.h"

static ruv_router_shape shape_of(int n_in, int hidden, int rank, bool shared, int n_tiers)
{
	return (ruv_router_shape){.cell = {.n_in = n_in, .hidden = hidden, .rank = rank, .shared = shared}, .n_tiers = n_tiers};
}

static void fill_targets(ruv_router_target *targets)
{
	targets[0] = (ruv_router_target){.tiers = {0.7f, 0.2f, 0.1f},
	                                 .context = 1,
	                                 .temperature = 0.4f,
	                                 .top_p = 0.9f,
	                                 .quality = {0.2f, 0.9f, 1},
	                                 .confidence = 1,
	                                 .weight = 1};
	targets[1] = (ruv_router_target){.tiers = {0, 1, 0},
	                                 .context = 3,
	                                 .temperature = 1.3f,
	                                 .top_p = 0.5f,
	                                 .quality = {0.5f, 0, 0.7f},
	                                 .confidence = 0,
	                                 .weight = 0.6f};
}

static void gradients_are_pytorchs(void **state)
{
	ruv_router_shape shape = shape_of(6, 5, 2, false, 3);
	int n = ruv_router_net_n_params(&shape);
	ruv_router_target targets[2];
	float gradient[512] = {0}, h[RUV_ROUTE_MAX_HIDDEN] = {0};

	(void)state;
	assert_int_equal(n, sizeof fixture_params / sizeof *fixture_params);
	fill_targets(targets);
	assert_true(fabs(ruv_router_net_loss(&shape, fixture_params, fixture_x, targets, 2, gradient) - fixture_loss) < 1e-5);
	for (int i = 0; i < n; i++)
		if (fabsf(gradient[i] - fixture_gradient[i]) > 1e-5f + 1e-4f * fabsf(fixture_gradient[i]))
			fail_msg("parameter %d: %g, PyTorch has %g", i, (double)gradient[i], (double)fixture_gradient[i]);
	for (int t = 0; t < 2; t++)
		ruv_fastgrnn_step(&shape.cell, fixture_params, fixture_x + 6 * t, h, h, NULL);
	for (int i = 0; i < 5; i++)
		assert_true(fabsf(h[i] - fixture_state[i]) < 1e-6f);
}

static void gradients_are_differences(void **state)
{
	static const struct {
		int rank;
		bool shared;
	} forms[] = {{0, false}, {3, false}, {0, true}, {3, true}};

	(void)state;
	for (size_t f = 0; f < 4; f++) {
		ruv_router_shape shape = shape_of(9, 7, forms[f].rank, forms[f].shared, 3);
		int n = ruv_router_net_n_params(&shape);
		float *params = calloc((size_t)n, sizeof *params), *gradient = calloc((size_t)n, sizeof *gradient), x[2 * 9];
		ruv_router_target targets[2];
		ruv_rng rng;

		ruv_rng_init(&rng, f + 1);
		ruv_router_net_init(params, &shape, &rng);
		fill_targets(targets);
		for (int i = 0; i < 18; i++)
			x[i] = (float)ruv_rng_normal(&rng);
		ruv_router_net_loss(&shape, params, x, targets, 2, gradient);
		for (int i = 0; i < n; i++) {
			const float step = 4e-3f;
			float at = params[i];
			double above, below;

			params[i] = at + step;
			above = ruv_router_net_loss(&shape, params, x, targets, 2, NULL);
			params[i] = at - step;
			below = ruv_router_net_loss(&shape, params, x, targets, 2, NULL);
			params[i] = at;
			if (fabs((above - below) / (2 * step) - gradient[i]) > 1e-3 * (1 + fabs((double)gradient[i])))
				fail_msg("form %zu, parameter %d: %g, the difference is %g", f, i, (double)gradient[i],
				         (above - below) / (2 * step));
		}
		free(params);
		free(gradient);
	}
}

static void forms_agree(void **state)
{
	ruv_fastgrnn_shape shape = {.n_in = 128, .hidden = 48, .rank = 16};
	float *params = calloc((size_t)ruv_fastgrnn_n_params(&shape), sizeof *params), x[128], exact[64], h[64];
	unsigned char *mask = malloc((size_t)ruv_fastgrnn_n_input_weights(&shape));
	size_t n_bytes[4];
	ruv_error err = {0};
	ruv_rng rng;
	int kept = 0;

	(void)state;
	ruv_rng_init(&rng, 3);
	ruv_fastgrnn_init(params, &shape, &rng);
	assert_ok(ruv_fastgrnn_prune(&shape, params, 0.3, mask, &err), err);
	for (int i = 0; i < ruv_fastgrnn_n_input_weights(&shape); i++) {
		kept += params[i] != 0;
		assert_int_equal(mask[i], params[i] != 0);
	}
	assert_int_equal(kept, (int)ceil(0.3 * ruv_fastgrnn_n_input_weights(&shape)));
	for (unsigned form = 0; form < 4; form++) {
		ruv_fastgrnn_cell *cell;

		assert_ok(ruv_fastgrnn_cell_create(&cell, &shape, params, form, &err), err);
		n_bytes[form] = ruv_fastgrnn_cell_bytes(cell);
		memset(exact, 0, sizeof exact);
		memset(h, 0, sizeof h);
		ruv_rng_init(&rng, 4);
		for (int t = 0; t < 6; t++) {
			for (int i = 0; i < 128; i++)
				x[i] = (float)ruv_rng_normal(&rng);
			ruv_fastgrnn_step(&shape, params, x, exact, exact, NULL);
			ruv_fastgrnn_cell_run(cell, x, h);
			for (int i = 0; i < 48; i++)
				assert_true(fabsf(exact[i] - h[i]) < (form & RUV_FASTGRNN_INT8 ? 0.06f : 1e-5f));
		}
		ruv_fastgrnn_cell_free(cell);
	}
	assert_true(n_bytes[RUV_FASTGRNN_SPARSE] < n_bytes[0] && n_bytes[RUV_FASTGRNN_INT8] < n_bytes[0] / 3);
	assert_int_equal(ruv_fastgrnn_prune(&shape, params, 0, NULL, &err), RUV_EINVAL);
	shape.hidden = 65;
	assert_int_equal(ruv_fastgrnn_check(&shape, &err), RUV_EINVAL);
	free(params);
	free(mask);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_are_pytorchs), cmocka_unit_test(gradients_are_differences),
	                                   cmocka_unit_test(forms_agree)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
