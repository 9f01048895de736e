/* gate.c - whether a change may go live: a pure decision over paired measurements.
 *
 * The interval of the gain is the percentile bootstrap over items (Efron & Tibshirani 1993): pairs are resampled together, so what
 * an item's own difficulty adds to both sides cancels. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/status.h"
#include "ruvllm/learn.h"

static const char where[] = "gate";

enum { N_RESAMPLES = 10000 };

static int ascending(const void *x, const void *y)
{
	const double a = *(const double *)x, b = *(const double *)y;
	return (a > b) - (a < b);
}

static double mean(const double *x, int n)
{
	double sum = 0;
	for (int i = 0; i < n; i++)
		sum += x[i];
	return n ? sum / n : 0;
}

/* Mean of after - before and its 95 % interval. */
static int bootstrap(const double *before, const double *after, int n, uint64_t seed, double *gain, double *low, double *high,
                     ruv_error *err)
{
	double *means = malloc(N_RESAMPLES * sizeof *means);
	ruv_rng rng;
	if (!means)
		return ruv_fail_memory(err, where, N_RESAMPLES * sizeof *means);
	ruv_rng_init(&rng, seed ? seed : 1);
	for (int r = 0; r < N_RESAMPLES; r++) {
		double sum = 0;
		for (int i = 0; i < n; i++) {
			const uint64_t k = ruv_rng_below(&rng, (uint64_t)n);
			sum += after[k] - before[k];
		}
		means[r] = sum / n;
	}
	qsort(means, N_RESAMPLES, sizeof *means, ascending);
	*gain = mean(after, n) - mean(before, n);
	*low = means[(int)(0.025 * N_RESAMPLES)];
	*high = means[(int)(0.975 * N_RESAMPLES)];
	free(means);
	return RUV_OK;
}

/* Adds a reason to `why`, as far as it fits. */
static void fault(ruv_gate_result *result, const char *text)
{
	const size_t n = strlen(result->why);
	result->pass = false;
	snprintf(result->why + n, sizeof result->why - n, "%s%s", n ? "; " : "", text);
}

int ruv_gate_decide(ruv_gate_result *result, const ruv_gate_input *in, ruv_error *err)
{
	char text[96];
	int rc = RUV_OK;
	memset(result, 0, sizeof *result);
	result->pass = true;
	result->n = in->n;
	result->n_old = in->n_old;
	result->perplexity_ratio = exp(in->base_nll_after - in->base_nll_before);
	if (in->n < 0 || (in->n && (!in->before || !in->after)) || (in->n_old && (!in->old_before || !in->old_after)))
		return ruv_fail(err, RUV_EINVAL, where, "the measurements are incomplete");
	for (int i = 0; i < in->n; i++)
		if (!isfinite(in->before[i]) || !isfinite(in->after[i]) || (in->shuffled_after && !isfinite(in->shuffled_after[i])))
			return ruv_fail(err, RUV_EINVAL, where, "measurement %d is not finite", i);
	if (in->n)
		rc = bootstrap(in->before, in->after, in->n, in->seed, &result->gain, &result->gain_low, &result->gain_high, err);
	if (rc == RUV_OK && in->n && in->shuffled_after)
		rc = bootstrap(in->before, in->shuffled_after, in->n, in->seed, &result->shuffled_gain, &result->shuffled_low,
		               &result->shuffled_high, err);
	if (rc)
		return rc;
	result->old_drop = in->n_old ? 100 * (mean(in->old_before, in->n_old) - mean(in->old_after, in->n_old)) : 0;
	if (in->n < RUV_GATE_MIN_ITEMS) {
		snprintf(text, sizeof text, "%d held-out items, at least %d are needed", in->n, RUV_GATE_MIN_ITEMS);
		fault(result, text);
	} else if (!(result->gain_low > 0)) {
		snprintf(text, sizeof text, "the gain may be none (%.4f, interval from %.4f)", result->gain, result->gain_low);
		fault(result, text);
	}
	if (!(result->perplexity_ratio <= 1.01)) { /* a fall is no harm */
		snprintf(text, sizeof text, "base perplexity changed by %+.2f %%", 100 * (result->perplexity_ratio - 1));
		fault(result, text);
	}
	if (!(result->old_drop <= 0.5)) {
		snprintf(text, sizeof text, "earlier tasks lost %.2f points", result->old_drop);
		fault(result, text);
	}
	if (in->shuffled_after && in->n >= RUV_GATE_MIN_ITEMS && result->shuffled_low > 0)
		fault(result, "training on shuffled answers gains too: the measure is leaking");
	return RUV_OK;
}
