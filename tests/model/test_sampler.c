/* test_sampler.c - the sampler's distributions against the textbook's, computed here by full sorts, and its draws by chi-square. */
#include "base/rng.h"
#include "fixture.h"
#include "infer/sampler.h"

enum { V = 500 };

static bool all_allowed[V];
static float logits[V];

static int setup(void **state)
{
	(void)state;
	ruv_rng rng;
	ruv_rng_init(&rng, 5);
	for (int i = 0; i < V; i++) {
		all_allowed[i] = true;
		logits[i] = (float)(2.5 * ruv_rng_normal(&rng));
	}
	return 0;
}

static ruv_sampler *open_sampler(ruv_sampling p, const bool *allowed)
{
	ruv_error err = {0};
	ruv_sampler *s = NULL;
	assert_ok(ruv_sampler_open(&s, &p, allowed, V, &err), err);
	return s;
}

/* The distribution over all ids, [V]. */
static void distribution(ruv_sampling p, const float *x, const ruv_token *history, int n_history, double *out)
{
	ruv_error err = {0};
	ruv_sampler *s = open_sampler(p, all_allowed);
	const ruv_candidate *list;
	int n;
	double sum = 0;
	assert_ok(ruv_sampler_distribution(s, x, history, n_history, &list, &n, &err), err);
	memset(out, 0, V * sizeof *out);
	for (int i = 0; i < n; i++) {
		assert_true(out[list[i].token] == 0 && list[i].p >= 0);
		out[list[i].token] = list[i].p;
		sum += list[i].p;
	}
	assert_true(fabs(sum - 1) < 1e-4);
	ruv_sampler_free(s);
}

/* ---- the textbook ---- */

static double book_p[V];
static int by_book_p(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;
	return book_p[x] > book_p[y] ? -1 : book_p[x] < book_p[y] ? 1 : x - y;
}

static double deviation[V];
static int by_deviation(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;
	return deviation[x] < deviation[y] ? -1 : deviation[x] > deviation[y] ? 1 : x - y;
}

static void softmax_kept(const float *x, const bool *kept, double temperature, double *out)
{
	double max = -INFINITY, sum = 0;
	for (int i = 0; i < V; i++)
		if (kept[i])
			max = fmax(max, x[i]);
	for (int i = 0; i < V; i++)
		sum += out[i] = kept[i] ? exp((x[i] - max) / temperature) : 0;
	for (int i = 0; i < V; i++)
		out[i] /= sum;
}

/* One cut after the other, each over what the one before kept. */
static void book(const ruv_sampling *p, const float *x, double *out)
{
	bool kept[V];
	int order[V];
	memset(kept, true, sizeof kept);
	for (int i = 0; i < V; i++)
		order[i] = i;
	softmax_kept(x, kept, 1, book_p);
	qsort(order, V, sizeof *order, by_book_p);
	if (p->top_k > 0)
		for (int i = p->top_k; i < V; i++)
			kept[order[i]] = false;
	if (p->typical_p > 0 && p->typical_p < 1) {
		double entropy = 0, sum = 0;
		int by[V];
		softmax_kept(x, kept, 1, book_p);
		for (int i = 0; i < V; i++)
			if (kept[i])
				entropy -= book_p[i] * log(book_p[i]);
		for (int i = 0; i < V; i++) {
			by[i] = i;
			deviation[i] = kept[i] ? fabs(-log(book_p[i]) - entropy) : INFINITY;
		}
		qsort(by, V, sizeof *by, by_deviation);
		for (int i = 0; i < V; i++) {
			if (sum >= p->typical_p)
				kept[by[i]] = false;
			sum += book_p[by[i]];
		}
	}
	if (p->top_p > 0 && p->top_p < 1) {
		double sum = 0;
		softmax_kept(x, kept, 1, book_p);
		for (int i = 0; i < V; i++) {
			if (sum >= p->top_p)
				kept[order[i]] = false;
			sum += book_p[order[i]];
		}
	}
	if (p->min_p > 0) {
		double best = 0;
		softmax_kept(x, kept, 1, book_p);
		for (int i = 0; i < V; i++)
			best = fmax(best, book_p[i]);
		for (int i = 0; i < V; i++)
			kept[i] = kept[i] && book_p[i] >= p->min_p * best;
	}
	softmax_kept(x, kept, p->temperature, out);
}

static void test_against_the_book(void **state)
{
	(void)state;
	static const ruv_sampling cases[] = {
	    {.temperature = 1},
	    {.temperature = 0.3f},
	    {.temperature = 1.7f, .top_k = 40},
	    {.temperature = 1, .top_k = 500},
	    {.temperature = 0.8f, .top_p = 0.9f},
	    {.temperature = 1, .top_p = 0.01f},
	    {.temperature = 1, .top_p = 0.9999f},
	    {.temperature = 1, .min_p = 0.15f},
	    {.temperature = 2, .min_p = 0.01f, .top_p = 0.95f},
	    {.temperature = 1, .min_p = 0.4f, .top_p = 0.5f},
	    {.temperature = 0.7f, .top_p = 0.8f, .top_k = 20},
	    {.temperature = 1, .typical_p = 0.5f},
	    {.temperature = 1, .typical_p = 0.9f, .top_p = 0.8f, .top_k = 300, .min_p = 0.05f},
	    {.temperature = 1, .typical_p = 0.05f},
	};
	static const float scales[] = {1, 0.001f, 8};
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
		for (size_t k = 0; k < 3; k++) {
			float x[V];
			double want[V], got[V];
			for (int i = 0; i < V; i++)
				x[i] = logits[i] * scales[k];
			book(&cases[c], x, want);
			distribution(cases[c], x, NULL, 0, got);
			for (int i = 0; i < V; i++)
				if (fabs(want[i] - got[i]) > 1e-5 + 1e-4 * want[i])
					fail_msg("case %zu, scale %zu, token %d: %g, expected %g", c, k, i, got[i], want[i]);
		}
}

static void test_greedy_and_masks(void **state)
{
	(void)state;
	ruv_error err = {0};
	bool allowed[V];
	ruv_token token;
	memcpy(allowed, all_allowed, sizeof allowed);
	int best = argmax(logits, V);
	ruv_sampler *s = open_sampler((ruv_sampling){0}, allowed);
	assert_ok(ruv_sampler_choose(s, logits, NULL, 0, &token, &err), err);
	assert_int_equal(token, best);
	ruv_sampler_free(s);
	allowed[best] = false; /* padding is never chosen */
	s = open_sampler((ruv_sampling){0}, allowed);
	assert_ok(ruv_sampler_choose(s, logits, NULL, 0, &token, &err), err);
	assert_int_not_equal(token, best);
	ruv_sampler_free(s);

	/* ties go to the lower id */
	float flat[V] = {0};
	s = open_sampler((ruv_sampling){0}, all_allowed);
	assert_ok(ruv_sampler_choose(s, flat, NULL, 0, &token, &err), err);
	assert_int_equal(token, 0);
	flat[7] = NAN;
	assert_int_equal(ruv_sampler_choose(s, flat, NULL, 0, &token, &err), RUV_EINTERNAL);
	ruv_sampler_free(s);
}

static void test_bias(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_token token;
	const ruv_logit_bias up[] = {{33, 1000}}, ban[] = {{argmax(logits, V), -INFINITY}};
	ruv_sampler *s = open_sampler((ruv_sampling){.temperature = 1, .seed = 3, .bias = up, .n_bias = 1}, all_allowed);
	for (int i = 0; i < 20; i++) {
		assert_ok(ruv_sampler_choose(s, logits, NULL, 0, &token, &err), err);
		assert_int_equal(token, 33);
	}
	ruv_sampler_free(s);
	double p[V];
	distribution((ruv_sampling){.temperature = 1, .bias = ban, .n_bias = 1}, logits, NULL, 0, p);
	assert_true(p[ban[0].token] == 0);

	ruv_logit_bias every[V];
	for (int i = 0; i < V; i++)
		every[i] = (ruv_logit_bias){i, -INFINITY};
	s = open_sampler((ruv_sampling){.bias = every, .n_bias = V}, all_allowed);
	assert_int_equal(ruv_sampler_choose(s, logits, NULL, 0, &token, &err), RUV_EINVAL);
	ruv_sampler_free(s);
}

static void test_penalties(void **state)
{
	(void)state;
	float x[V] = {0};
	double p[V];
	x[1] = 2;
	x[2] = -1;
	x[3] = 2;
	x[4] = 1;
	const ruv_token history[] = {9, 1, 1, 2, 4, 1};
	const int n = 6;
	/* repetition: positive logits shrink, negative ones grow; counts do not matter */
	distribution((ruv_sampling){.temperature = 1, .repetition_penalty = 2}, x, history, n, p);
	assert_true(fabs(log(p[3] / p[1]) - 1) < 1e-4);
	assert_true(fabs(log(p[3] / p[2]) - 4) < 1e-4);
	assert_true(fabs(log(p[3] / p[9]) - 2) < 1e-4);
	assert_true(fabs(log(p[3] / p[4]) - 1.5) < 1e-4);
	/* frequency counts, presence does not */
	distribution((ruv_sampling){.temperature = 1, .frequency_penalty = 0.5f, .presence_penalty = 0.25f}, x, history, n, p);
	assert_true(fabs(log(p[3] / p[1]) - 1.75) < 1e-4);
	assert_true(fabs(log(p[3] / p[2]) - 3.75) < 1e-4);
	/* the window */
	distribution((ruv_sampling){.temperature = 1, .presence_penalty = 1, .penalty_last_n = 2}, x, history, n, p);
	assert_true(fabs(log(p[3] / p[1]) - 1) < 1e-4);
	assert_true(fabs(log(p[3] / p[4]) - 2) < 1e-4);
	assert_true(fabs(log(p[3] / p[2]) - 3) < 1e-4); /* out of the window */
	ruv_token longer[200];
	for (int i = 0; i < 200; i++)
		longer[i] = i < 100 ? 2 : 9;
	distribution((ruv_sampling){.temperature = 1, .presence_penalty = 1}, x, longer, 200, p);
	assert_true(fabs(log(p[3] / p[2]) - 3) < 1e-4); /* the default looks 64 back */
	distribution((ruv_sampling){.temperature = 1, .presence_penalty = 1, .penalty_last_n = -1}, x, longer, 200, p);
	assert_true(fabs(log(p[3] / p[2]) - 4) < 1e-4);
}

static void test_draws(void **state)
{
	(void)state;
	ruv_error err = {0};
	const ruv_sampling p = {.temperature = 0.9f, .top_k = 12, .seed = 11};
	double want[V];
	int counts[V] = {0};
	const int draws = 20000;
	book(&p, logits, want);
	ruv_sampler *s = open_sampler(p, all_allowed);
	for (int i = 0; i < draws; i++) {
		ruv_token token;
		assert_ok(ruv_sampler_choose(s, logits, NULL, 0, &token, &err), err);
		counts[token]++;
	}
	ruv_sampler_free(s);
	double chi2 = 0;
	for (int i = 0; i < V; i++) {
		if (want[i] == 0)
			assert_int_equal(counts[i], 0);
		else
			chi2 += pow(counts[i] - draws * want[i], 2) / (draws * want[i]);
	}
	assert_true(chi2 < 31.3); /* 11 degrees of freedom, 0.1 % */
}

static void test_seeds(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_token a[50], b[50], c[50];
	const uint64_t seeds[] = {42, 42, 43};
	ruv_token *const out[] = {a, b, c};
	for (int k = 0; k < 3; k++) {
		ruv_sampler *s = open_sampler((ruv_sampling){.temperature = 1, .seed = seeds[k]}, all_allowed);
		assert_int_equal(ruv_sampler_seed(s), seeds[k]);
		for (int i = 0; i < 50; i++)
			assert_ok(ruv_sampler_choose(s, logits, NULL, 0, &out[k][i], &err), err);
		ruv_sampler_free(s);
	}
	assert_memory_equal(a, b, sizeof a);
	assert_memory_not_equal(a, c, sizeof a);
	ruv_sampler *s = open_sampler((ruv_sampling){.temperature = 1}, all_allowed);
	assert_int_not_equal(ruv_sampler_seed(s), 0);
	ruv_sampler_free(s);
}

static void test_logprobs(void **state)
{
	(void)state;
	ruv_token_logprob top[20];
	ruv_top_logprobs(logits, V, 20, top);
	double lse = ruv_log_sum_exp(logits, V), sum = 0;
	for (int i = 0; i < V; i++)
		sum += exp(logits[i] - lse);
	assert_true(fabs(sum - 1) < 1e-6);
	assert_int_equal(top[0].token, argmax(logits, V));
	for (int i = 0; i < 20; i++) {
		assert_true(fabs(top[i].logprob - (logits[top[i].token] - lse)) < 1e-5);
		int better = 0;
		for (int j = 0; j < V; j++)
			better += logits[j] > logits[top[i].token];
		assert_int_equal(better, i);
	}
}

static void test_bad_parameters(void **state)
{
	(void)state;
	static const ruv_logit_bias outside[] = {{V, 1}}, nan_bias[] = {{1, NAN}};
	static const struct {
		ruv_sampling p;
		const char *name;
	} cases[] = {{{.temperature = -0.1f}, "temperature"},
	             {{.temperature = NAN}, "temperature"},
	             {{.temperature = INFINITY}, "temperature"},
	             {{.top_p = 1.5f}, "top_p"},
	             {{.top_p = -1}, "top_p"},
	             {{.min_p = 2}, "min_p"},
	             {{.typical_p = -0.5f}, "typical_p"},
	             {{.top_k = -1}, "top_k"},
	             {{.repetition_penalty = -1}, "repetition_penalty"},
	             {{.frequency_penalty = NAN}, "frequency_penalty"},
	             {{.presence_penalty = 1e9f}, "presence_penalty"},
	             {{.penalty_last_n = -2}, "penalty_last_n"},
	             {{.bias = outside, .n_bias = 1}, "bias"},
	             {{.bias = nan_bias, .n_bias = 1}, "bias"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		ruv_error err = {0};
		ruv_sampler *s = NULL;
		assert_int_equal(ruv_sampler_open(&s, &cases[i].p, all_allowed, V, &err), RUV_EINVAL);
		assert_non_null(strstr(err.message, cases[i].name));
		assert_null(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_against_the_book),
	    cmocka_unit_test(test_greedy_and_masks),
	    cmocka_unit_test(test_bias),
	    cmocka_unit_test(test_penalties),
	    cmocka_unit_test(test_draws),
	    cmocka_unit_test(test_seeds),
	    cmocka_unit_test(test_logprobs),
	    cmocka_unit_test(test_bad_parameters),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
