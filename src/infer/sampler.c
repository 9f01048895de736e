/* sampler.c - choosing a token.
 *
 * top-k, top-p and min-p each keep a beginning of the order by probability, so that the whole vocabulary is never sorted: what
 * min-p cuts never enters the list, and for top-p the tokens within a few nats of the best one are looked at first, the rest only
 * if their mass does not suffice, and what makes up the mass is selected, not sorted. typical-p (Meister et al. 2022, arXiv
 * 2202.00666) orders by |-log p - entropy| and needs all. Repetition penalty as in CTRL (Keskar et al. 2019), frequency and
 * presence penalties as OpenAI's API defines them; all three look at the last tokens of the sequence, prompt included. */
#include "infer/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static const char where[] = "sampler";

enum { DEFAULT_LAST_N = 64 };
static const float NEAR = 14.0f; /* nats below the best: looked at first for top-p */

struct ruv_sampler_scratch {
	int n_vocab;
	float *mask;         /* [n_vocab] 0, or -inf for tokens that do not exist */
	float *work;         /* [n_vocab] logits after bias and penalties; -inf: banned */
	int32_t *counts;     /* [n_vocab] zero between calls */
	ruv_candidate *list; /* [n_vocab] */
};

struct ruv_sampler {
	ruv_sampling p;
	ruv_logit_bias *bias; /* [p.n_bias] copy */
	int n_vocab;
	ruv_rng rng;
	uint64_t seed;
	ruv_sampler_scratch *scratch, *own_scratch; /* own: NULL when it is shared */
	const uint64_t *allowed;                    /* NULL: all */
};

/* e^x for x <= 0 within 2e-7 of it (and of 1e-38 below -87), without a branch or call, so that loops over it become vector code. */
static inline float exp_negative(float x)
{
	x = x > -87.0f ? x : -87.0f;     /* also for NaN, which the callers look for */
	const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
	const float k = x * 1.44269504f + magic - magic;
	const float r = x - k * 0.693359375f + k * 2.12194440e-4f; /* x - k ln 2, |r| <= ln 2 / 2 */
	float p = 1.0f / 720;
	p = p * r + 1.0f / 120;
	p = p * r + 1.0f / 24;
	p = p * r + 1.0f / 6;
	p = p * r + 0.5f;
	p = p * r + 1.0f;
	p = p * r + 1.0f;
	const int32_t bits = ((int32_t)k + 127) << 23;
	float scale;
	memcpy(&scale, &bits, sizeof scale);
	return p * scale;
}

static float largest(const float *x, int n)
{
	enum { LANES = 8 };
	float lane[LANES], max = -INFINITY;
	int i = 0;
	for (int k = 0; k < LANES; k++)
		lane[k] = max;
	for (; i + LANES <= n; i += LANES)
		for (int k = 0; k < LANES; k++)
			lane[k] = x[i + k] > lane[k] ? x[i + k] : lane[k];
	for (int k = 0; k < LANES; k++)
		max = lane[k] > max ? lane[k] : max;
	for (; i < n; i++)
		max = x[i] > max ? x[i] : max;
	return max;
}

/* Sum of e^(x - max): eight lanes in F32 over short runs, the runs in F64. */
static double sum_exp(const float *x, int n, float max)
{
	enum { LANES = 8, RUN = 256 };
	double sum = 0;
	int i = 0;
	while (i + LANES <= n) {
		float lane[LANES] = {0};
		const int end = i + RUN < n ? i + RUN : n;
		for (; i + LANES <= end; i += LANES)
			for (int k = 0; k < LANES; k++)
				lane[k] += exp_negative(x[i + k] - max);
		for (int k = 0; k < LANES; k++)
			sum += (double)lane[k];
	}
	for (; i < n; i++)
		sum += (double)exp_negative(x[i] - max);
	return sum;
}

static int check_range(const char *name, float value, double low, double high, ruv_error *err)
{
	if (!(value >= low && value <= high))
		return ruv_fail(err, RUV_EINVAL, where, "%s is %g, which is outside %g..%g", name, (double)value, low, high);
	return RUV_OK;
}

static int check_params(const ruv_sampling *p, int n_vocab, ruv_error *err)
{
	int rc;
	if ((rc = check_range("temperature", p->temperature, 0, 100, err)) || (rc = check_range("top_p", p->top_p, 0, 1, err)) ||
	    (rc = check_range("min_p", p->min_p, 0, 1, err)) || (rc = check_range("typical_p", p->typical_p, 0, 1, err)) ||
	    (rc = check_range("repetition_penalty", p->repetition_penalty, 0, 100, err)) ||
	    (rc = check_range("frequency_penalty", p->frequency_penalty, -100, 100, err)) ||
	    (rc = check_range("presence_penalty", p->presence_penalty, -100, 100, err)))
		return rc;
	if (p->top_k < 0)
		return ruv_fail(err, RUV_EINVAL, where, "top_k is %d, must not be negative", p->top_k);
	if (p->penalty_last_n < -1)
		return ruv_fail(err, RUV_EINVAL, where, "penalty_last_n is %d, must be -1 or more", p->penalty_last_n);
	for (int i = 0; i < p->n_bias; i++) {
		if (p->bias[i].token < 0 || p->bias[i].token >= n_vocab)
			return ruv_fail(err, RUV_EINVAL, where, "logit bias for token %d, which is outside the vocabulary of %d",
			                p->bias[i].token, n_vocab);
		if (isnan(p->bias[i].bias) || p->bias[i].bias == INFINITY)
			return ruv_fail(err, RUV_EINVAL, where, "logit bias %g for token %d is no finite number or -infinity",
			                (double)p->bias[i].bias, p->bias[i].token);
	}
	return RUV_OK;
}

int ruv_sampler_scratch_open(ruv_sampler_scratch **out, const bool *may_sample, int n_vocab, ruv_error *err)
{
	*out = NULL;
	ruv_sampler_scratch *c = calloc(1, sizeof *c);
	if (!c)
		return ruv_fail_memory(err, where, sizeof *c);
	const size_t n = (size_t)n_vocab;
	c->n_vocab = n_vocab;
	c->mask = malloc(n * sizeof *c->mask);
	c->work = malloc(n * sizeof *c->work);
	c->counts = calloc(n, sizeof *c->counts);
	c->list = malloc(n * sizeof *c->list);
	if (!c->mask || !c->work || !c->counts || !c->list) {
		ruv_sampler_scratch_free(c);
		return ruv_fail_memory(err, where, n * 24);
	}
	for (int i = 0; i < n_vocab; i++)
		c->mask[i] = may_sample[i] ? 0 : -INFINITY;
	*out = c;
	return RUV_OK;
}

void ruv_sampler_scratch_free(ruv_sampler_scratch *c)
{
	if (!c)
		return;
	free(c->mask);
	free(c->work);
	free(c->counts);
	free(c->list);
	free(c);
}

int ruv_sampler_open_in(ruv_sampler **out, const ruv_sampling *sampling, ruv_sampler_scratch *scratch, ruv_error *err)
{
	*out = NULL;
	int rc = check_params(sampling, scratch->n_vocab, err);
	if (rc)
		return rc;
	ruv_sampler *s = calloc(1, sizeof *s);
	if (!s)
		return ruv_fail_memory(err, where, sizeof *s);
	s->p = *sampling;
	s->scratch = scratch;
	s->n_vocab = scratch->n_vocab;
	const size_t n_bias = sampling->n_bias > 0 ? (size_t)sampling->n_bias : 0;
	s->bias = malloc((n_bias + 1) * sizeof *s->bias);
	if (!s->bias) {
		free(s);
		return ruv_fail_memory(err, where, n_bias * sizeof *s->bias);
	}
	if (n_bias)
		memcpy(s->bias, sampling->bias, n_bias * sizeof *s->bias);
	s->p.bias = s->bias;
	s->seed = sampling->seed;
	while (s->seed == 0) /* of 63 bits: a signed number, as settings and JSON have, can give it back */
		s->seed = ruv_rng_entropy() >> 1;
	ruv_rng_init(&s->rng, s->seed);
	*out = s;
	return RUV_OK;
}

int ruv_sampler_open(ruv_sampler **out, const ruv_sampling *sampling, const bool *may_sample, int n_vocab, ruv_error *err)
{
	ruv_sampler_scratch *scratch = NULL;
	*out = NULL;
	int rc = check_params(sampling, n_vocab, err);
	if (rc || (rc = ruv_sampler_scratch_open(&scratch, may_sample, n_vocab, err)))
		return rc;
	rc = ruv_sampler_open_in(out, sampling, scratch, err);
	if (rc)
		ruv_sampler_scratch_free(scratch);
	else
		(*out)->own_scratch = scratch;
	return rc;
}

void ruv_sampler_free(ruv_sampler *s)
{
	if (!s)
		return;
	ruv_sampler_scratch_free(s->own_scratch);
	free(s->bias);
	free(s);
}

bool ruv_sampler_is_greedy(const ruv_sampler *s)
{
	return s->p.temperature == 0 || s->p.top_k == 1;
}

ruv_rng *ruv_sampler_rng(ruv_sampler *s)
{
	return &s->rng;
}

void ruv_sampler_allow(ruv_sampler *s, const uint64_t *allowed)
{
	s->allowed = allowed;
}

uint64_t ruv_sampler_seed(const ruv_sampler *s)
{
	return s->seed;
}

static bool penalizes(const ruv_sampling *p)
{
	return (p->repetition_penalty > 0 && p->repetition_penalty != 1) || p->frequency_penalty != 0 || p->presence_penalty != 0;
}

static void penalize(ruv_sampler *s, const ruv_token *history, int n_history)
{
	const ruv_sampling *p = &s->p;
	if (!penalizes(p))
		return;
	float *work = s->scratch->work;
	int32_t *counts = s->scratch->counts;
	const float repetition = p->repetition_penalty > 0 ? p->repetition_penalty : 1;
	int last_n = p->penalty_last_n == 0 ? DEFAULT_LAST_N : p->penalty_last_n < 0 ? n_history : p->penalty_last_n;
	const ruv_token *recent = history + (n_history > last_n ? n_history - last_n : 0);
	const int n = n_history > last_n ? last_n : n_history;
	for (int i = 0; i < n; i++)
		counts[recent[i]]++;
	for (int i = 0; i < n; i++) {
		float *x = &work[recent[i]];
		const int count = counts[recent[i]];
		if (count == 0)
			continue; /* this token was done before */
		*x = *x > 0 ? *x / repetition : *x * repetition;
		*x -= (float)count * p->frequency_penalty + p->presence_penalty;
		counts[recent[i]] = 0;
	}
}

/* The largest of x[i] + mask[i], in *best its first place; false when one is NaN or infinity, or none is finite. y gets the sums,
 * that of *best alone unless `all`. */
static bool masked_best(float *y, bool all, const float *x, const float *mask, int n, ruv_token *best)
{
	enum { LANES = 16 };
	float lane[LANES], max = -INFINITY;
	int32_t bad[LANES] = {0}, n_bad = 0;
	int i = 0;
	for (int k = 0; k < LANES; k++)
		lane[k] = -INFINITY;
	for (; i + LANES <= n; i += LANES)
		for (int k = 0; k < LANES; k++) {
			const float v = x[i + k] + mask[i + k];
			lane[k] = v > lane[k] ? v : lane[k];
			bad[k] |= !(v < INFINITY);
		}
	for (int k = 0; k < LANES; k++) {
		max = lane[k] > max ? lane[k] : max;
		n_bad |= bad[k];
	}
	for (; i < n; i++) {
		const float v = x[i] + mask[i];
		max = v > max ? v : max;
		n_bad |= !(v < INFINITY);
	}
	if (n_bad || max == -INFINITY)
		return false;
	for (i = 0; all && i < n; i++)
		y[i] = x[i] + mask[i];
	for (i = 0; x[i] + mask[i] != max; i++)
		;
	*best = i;
	y[i] = max;
	return true;
}

bool ruv_sampler_best(ruv_sampler *s, const float *logits, const ruv_candidate **list, float *sure)
{
	enum { LANES = 16 };
	const float *mask = s->scratch->mask;
	const int n = s->n_vocab;
	float first[LANES], second[LANES], best = -INFINITY, next = -INFINITY;
	int i = 0;
	if (!ruv_sampler_is_greedy(s) || s->p.n_bias || penalizes(&s->p))
		return false;
	for (int k = 0; k < LANES; k++)
		first[k] = second[k] = -INFINITY;
	for (; i + LANES <= n; i += LANES)
		for (int k = 0; k < LANES; k++) {
			const float v = logits[i + k] + mask[i + k], low = v < first[k] ? v : first[k];
			second[k] = low > second[k] ? low : second[k];
			first[k] = v > first[k] ? v : first[k];
		}
	for (int k = 0; k < LANES; k++) {
		next = first[k] > best ? (best > second[k] ? best : second[k]) : first[k] > next ? first[k] : next;
		best = first[k] > best ? first[k] : best;
	}
	for (; i < n; i++) {
		const float v = logits[i] + mask[i];
		next = v > best ? best : v > next ? v : next;
		best = v > best ? v : best;
	}
	if (!(best > -INFINITY && best < INFINITY))
		return false; /* ruv_sampler_distribution says what is wrong */
	for (i = 0; i < n && logits[i] + mask[i] != best; i++)
		;
	*sure = 1 / (1 + expf(next - best));
	s->scratch->list[0] = (ruv_candidate){.token = i, .logit = best, .p = 1};
	*list = s->scratch->list;
	return i < n;
}

/* The best of the allowed tokens alone, when nothing changes their logits. */
static bool allowed_best(const ruv_sampler *s, const float *logits, ruv_token *best)
{
	const float *mask = s->scratch->mask;
	int at = -1;
	for (int w = 0; w < (s->n_vocab + 63) / 64; w++)
		for (uint64_t bits = s->allowed[w]; bits; bits &= bits - 1) {
			const int i = 64 * w + __builtin_ctzll(bits);
			if (i >= s->n_vocab || mask[i] < 0)
				continue;
			if (!(logits[i] < INFINITY))
				return false;
			if (logits[i] != -INFINITY && (at < 0 || logits[i] > logits[at]))
				at = i;
		}
	*best = at;
	if (at >= 0)
		s->scratch->work[at] = logits[at];
	return at >= 0;
}

/* Fills work; the best token in *best. */
static int prepare(ruv_sampler *s, const float *logits, const ruv_token *history, int n_history, ruv_token *best, ruv_error *err)
{
	float *work = s->scratch->work;
	const bool plain = s->p.n_bias == 0 && !penalizes(&s->p);
	if (plain && !s->allowed && masked_best(work, !ruv_sampler_is_greedy(s), logits, s->scratch->mask, s->n_vocab, best))
		return RUV_OK;
	if (plain && s->allowed && ruv_sampler_is_greedy(s) && allowed_best(s, logits, best))
		return RUV_OK;
	memcpy(work, logits, (size_t)s->n_vocab * sizeof *work);
	for (int i = 0; i < s->p.n_bias; i++)
		work[s->bias[i].token] += s->bias[i].bias;
	penalize(s, history, n_history);
	int at = -1;
	for (int i = 0; i < s->n_vocab; i++) {
		if (s->scratch->mask[i] < 0 || (s->allowed && !(s->allowed[i / 64] >> (i % 64) & 1)))
			work[i] = -INFINITY;
		else if (isnan(work[i]) || work[i] == INFINITY)
			return ruv_fail(err, RUV_EINTERNAL, where, "the logit of token %d is %g", i, (double)work[i]);
		else if (work[i] != -INFINITY && (at < 0 || work[i] > work[at]))
			at = i;
	}
	if (at < 0)
		return ruv_fail(err, RUV_EINVAL, where,
		                s->allowed ? "the constraint and the logit bias leave no token to choose"
		                           : "the logit bias bans every token");
	*best = at;
	return RUV_OK;
}

static int by_logit(const void *a, const void *b)
{
	const ruv_candidate *x = a, *y = b;
	if (x->logit != y->logit)
		return x->logit > y->logit ? -1 : 1;
	return (x->token > y->token) - (x->token < y->token);
}

static int gather(ruv_sampler *s, float at_least)
{
	const float *work = s->scratch->work;
	ruv_candidate *list = s->scratch->list;
	int n = 0;
	for (int i = 0; i < s->n_vocab; i++)
		if (work[i] >= at_least && work[i] != -INFINITY)
			list[n++] = (ruv_candidate){.token = i, .logit = work[i]};
	return n;
}

/* Hoare's partition of list[low..high] around its middle by by_logit: [low, *j] before [*i, high], what lies between equals the
 * pivot. */
static void partition(ruv_candidate *list, int low, int high, int *i_out, int *j_out)
{
	const ruv_candidate pivot = list[low + (high - low) / 2];
	int i = low, j = high;
	while (i <= j) {
		while (by_logit(&list[i], &pivot) < 0)
			i++;
		while (by_logit(&list[j], &pivot) > 0)
			j--;
		if (i <= j) {
			ruv_candidate t = list[i];
			list[i++] = list[j];
			list[j--] = t;
		}
	}
	*i_out = i;
	*j_out = j;
}

/* Moves the k best (by logit, then id) to the front of list [n], unsorted. */
static void select_best(ruv_candidate *list, int n, int k)
{
	int low = 0, high = n - 1, i, j;
	while (low < high) {
		partition(list, low, high, &i, &j);
		if (k - 1 <= j)
			high = j;
		else if (k - 1 >= i)
			low = i;
		else
			return;
	}
}

/* Moves the fewest of the best whose p sum to `need` or more to the front, unsorted, and returns how many; n when all of them do
 * not suffice. p need not be normalised. Linear, where a sort of a flat distribution over the whole vocabulary would not be. */
static int select_mass(ruv_candidate *list, int n, double need)
{
	int low = 0, high = n - 1, i, j;
	double before = 0; /* mass of [0, low) */
	while (low < high) {
		double left = 0;
		partition(list, low, high, &i, &j);
		for (int k = low; k <= j; k++)
			left += list[k].p;
		if (before + left >= need) {
			high = j;
			continue;
		}
		before += left;
		if (j + 1 < i) { /* the pivot stands alone between */
			before += list[j + 1].p;
			if (before >= need)
				return j + 2;
		}
		low = i;
	}
	return low < n ? low + 1 : n;
}

static double mass(const ruv_candidate *list, int n, float max)
{
	double sum = 0;
	for (int i = 0; i < n; i++)
		sum += exp((double)list[i].logit - max);
	return sum;
}

/* The same, and each candidate's share in its p. */
static double unnormalized(ruv_candidate *list, int n, float max)
{
	double sum = 0;
	for (int i = 0; i < n; i++)
		sum += list[i].p = exp_negative(list[i].logit - max);
	return sum;
}

/* How many of the sorted list make up top_p of `total`; n + 1 when they do not suffice. */
static int top_p_count(const ruv_candidate *list, int n, float max, double total, double top_p)
{
	double sum = 0;
	for (int i = 0; i < n; i++) {
		sum += exp((double)list[i].logit - max);
		if (sum >= top_p * total)
			return i + 1;
	}
	return n + 1;
}

/* Keeps the locally typical tokens; leaves the list sorted by logit. p is scratch for the deviation. */
static int cut_typical(ruv_candidate *list, int n, float max, double typical_p)
{
	const double log_total = log(mass(list, n, max));
	double entropy = 0;
	for (int i = 0; i < n; i++) {
		double lp = ((double)list[i].logit - max) - log_total;
		entropy -= exp(lp) * lp;
	}
	/* |surprise - entropy| <= d is a band around the entropy: with the list sorted by logit it is a run, grown from its middle
	 */
	qsort(list, (size_t)n, sizeof *list, by_logit);
	int high = 0;
	while (high < n && log_total - ((double)list[high].logit - max) < entropy)
		high++; /* list[high] is the first with at least that surprise */
	int low = high; /* [low, high) is kept */
	double sum = 0;
	while (sum < typical_p && (low > 0 || high < n)) {
		double below = low > 0 ? entropy - (log_total - ((double)list[low - 1].logit - max)) : INFINITY;
		double above = high < n ? log_total - ((double)list[high].logit - max) - entropy : INFINITY;
		int take = below <= above ? --low : high++;
		sum += exp(((double)list[take].logit - max) - log_total);
	}
	memmove(list, list + low, (size_t)(high - low) * sizeof *list);
	return high - low;
}

int ruv_sampler_distribution(ruv_sampler *s, const float *logits, const ruv_token *history, int n_history,
                             const ruv_candidate **candidates, int *n_out, ruv_error *err)
{
	ruv_token best = -1;
	int rc = prepare(s, logits, history, n_history, &best, err);
	if (rc)
		return rc;
	ruv_candidate *const list = s->scratch->list;
	const float *const work = s->scratch->work;
	*candidates = list;
	if (ruv_sampler_is_greedy(s)) {
		list[0] = (ruv_candidate){.token = best, .logit = work[best], .p = 1};
		*n_out = 1;
		return RUV_OK;
	}
	const ruv_sampling *p = &s->p;
	const float min_p_cut = p->min_p > 0 ? logf(p->min_p) : -INFINITY;
	const bool top_p = p->top_p > 0 && p->top_p<1, typical = p->typical_p> 0 && p->typical_p < 1;
	float max = work[best];
	int n;
	if (p->top_k > 0 || typical) {
		n = gather(s, -INFINITY);
		if (p->top_k > 0 && p->top_k < n) {
			select_best(list, n, p->top_k);
			n = p->top_k;
		}
		if (typical)
			n = cut_typical(list, n, max, p->typical_p);
		else
			qsort(list, (size_t)n, sizeof *list, by_logit);
		max = list[0].logit;
		if (top_p) {
			int kept = top_p_count(list, n, max, mass(list, n, max), p->top_p);
			n = kept < n ? kept : n;
		}
		while (n > 1 && list[n - 1].logit < max + min_p_cut)
			n--;
	} else if (top_p) {
		const double total = sum_exp(work, s->n_vocab, max); /* banned ones add nothing */
		const float near = min_p_cut > -NEAR ? min_p_cut : -NEAR;
		const double need = p->top_p * total;
		n = gather(s, max + near);
		if (near > min_p_cut && unnormalized(list, n, max) < need)
			n = gather(s, max + min_p_cut); /* a flat distribution: the far ones count too */
		if (unnormalized(list, n, max) > need)
			n = select_mass(list, n, need);
	} else {
		n = gather(s, max + min_p_cut);
	}

	/* shares in F64 where there are few; over a whole vocabulary the vector exponential, whose error of 2e-7 is below p's own
	 */
	enum { MANY = 256 };
	const double slope = 1.0 / p->temperature;
	double sum = 0;
	for (int i = 0; i < n; i++) {
		const double x = ((double)list[i].logit - max) * slope;
		sum += list[i].p = n > MANY ? exp_negative((float)x) : (float)exp(x);
	}
	const float scale = (float)(1 / sum);
	for (int i = 0; i < n; i++)
		list[i].p *= scale;
	*n_out = n;
	return RUV_OK;
}

ruv_token ruv_candidates_draw(const ruv_candidate *list, int n, ruv_rng *rng)
{
	if (n > 1) {
		double u = ruv_rng_double(rng), sum = 0;
		for (int i = 0; i < n - 1; i++) {
			sum += (double)list[i].p;
			if (u < sum)
				return list[i].token;
		}
	}
	return list[n - 1].token;
}

int ruv_sampler_choose(ruv_sampler *s, const float *logits, const ruv_token *history, int n_history, ruv_token *token,
                       ruv_error *err)
{
	const ruv_candidate *list;
	int n, rc = ruv_sampler_distribution(s, logits, history, n_history, &list, &n, err);
	if (rc == RUV_OK)
		*token = ruv_candidates_draw(list, n, &s->rng);
	return rc;
}

double ruv_log_sum_exp(const float *logits, int n)
{
	int n_nan = 0;
	for (int i = 0; i < n; i++)
		n_nan += logits[i] != logits[i];
	if (n_nan)
		return NAN;
	const float max = largest(logits, n);
	return (double)max + log(sum_exp(logits, n, max));
}

void ruv_top_logprobs(const float *logits, int n_vocab, int n_top, ruv_token_logprob *top)
{
	if (n_top < 1)
		return;
	const double lse = ruv_log_sum_exp(logits, n_vocab);
	int n = 0;
	for (int i = 0; i < n_vocab; i++) {
		if (n == n_top && !(logits[i] > top[n - 1].logprob))
			continue;
		int at = n < n_top ? n++ : n - 1;
		while (at > 0 && top[at - 1].logprob < logits[i]) {
			top[at] = top[at - 1];
			at--;
		}
		top[at] = (ruv_token_logprob){.token = i, .logprob = logits[i]};
	}
	for (int i = 0; i < n; i++)
		top[i].logprob = (float)(top[i].logprob - lse);
}
