/* speculative.c - drafting, accepting, and choosing how far to look ahead.
 *
 * Measured as running means, for each number of lanes: v a plain pass of the target, s what a row more costs it, d a pass of the
 * draft, a the chance that a draft is taken. Guesses from the text are k at once, the k that maximises expected tokens by expected
 * time, (1 + a + ... + a^k) / (v + k s). A draft model goes token by token: how sure it is of one says (by what was taken when it
 * was that sure) with which chance c the round gets that far; the token is checked when c v > s, and another one drafted when
 * c a v > s + d. Where rounds with drafts bring fewer tokens by time than plain decoding, drafting is off and tried again now and
 * then.
 *
 * The draft's session runs the tokens behind its last common one, then its own drafts one by one. Its convolution state is kept
 * behind every pass, so that going back to where the target disagreed is a copy. */
#include "infer/speculative.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"

static const char where[] = "speculation";

enum {
	MAX_LANES = 32,
	MAX_VOCAB_DIFFERENCE = 128,
	FIRST_COMPARED = 5, /* special tokens before it may be named differently */
	FIRST_TIMES = 4,
	PLAIN_FIRST = 4,  /* rounds without drafts, to know what they cost */
	DRAFT_FIRST = 4,  /* and with them */
	PLAIN_EVERY = 64, /* rounds between plain ones while drafting, */
	TRY_EVERY = 48,   /* and between drafts while it is off: */
	TRY_ROUNDS = 4,   /* so many with a draft model, and */
	TRY_MOST = 768,   /* after each try that lost twice as many rounds later, up to this */
	CAUGHT_UP = 3,    /* rows of a draft's first pass that are usual */
	N_SURE = 16,      /* classes of how sure the draft is */
	NGRAM_MAX = 4,
	NGRAM_MIN = 2
};
static const float SPARSE_MIN_P = 0.002f;                           /* of the draft's distribution, so that its lists are short */
static const double TOKEN_WEIGHT = 1.0 / 48, TIME_WEIGHT = 1.0 / 8; /* of the running means */
static const double ROUND_KEPT = 31.0 / 32;                         /* of the sums of rounds with a draft model, each round */

struct cost {
	double plain_ms, row_ms, draft_ms;
	int n_plain, n_verify, n_draft;
	int rounds, off_rounds;
	int try_at, tries;             /* with a draft model that is off: the off round to try it again, and tries that lost */
	double model_tokens, model_ms; /* of rounds in which the draft model ran, fading */
};

struct ruv_speculator {
	ruv_speculation how;
	ruv_model *target; /* not held: its owner holds this */
	ruv_model *draft;  /* held; NULL: prompt lookup alone */
	int max_lookahead, n_ctx, n_lanes;
	ruv_kv_pool *pool;
	ruv_batch batch;
	ruv_sampler_scratch *scratch;
	float *q; /* [n_vocab of the target] zero between calls */
	double accept[RUV_DRAFT_MODEL + 1];
	double taken_when[N_SURE];       /* chance that a draft is taken, by how sure the draft model is of it */
	struct cost cost[MAX_LANES + 1]; /* by number of lanes */
	double round_draft_ms;
	int round_passes, round_lanes;
	ruv_speculation_stats stats;
};

/* ---- opening ---- */

static int check_vocabularies(const ruv_model *target, const ruv_model *draft, ruv_error *err)
{
	const ruv_vocab *a = target->vocab, *b = draft->vocab;
	if (!a || !b)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s has no tokenizer to compare", a ? draft->path : target->path);
	const size_t na = ruv_vocab_n_tokens(a), nb = ruv_vocab_n_tokens(b), n = na < nb ? na : nb;
	if (na > nb + MAX_VOCAB_DIFFERENCE || nb > na + MAX_VOCAB_DIFFERENCE)
		return ruv_fail(err, RUV_EMISMATCH, where, "%s cannot draft for %s: it has %zu tokens, the target %zu", draft->path,
		                target->path, nb, na);
	if (ruv_vocab_bos(a) != ruv_vocab_bos(b) || ruv_vocab_eos(a) != ruv_vocab_eos(b))
		return ruv_fail(err, RUV_EMISMATCH, where,
		                "%s cannot draft for %s: its start and end tokens are %d and %d, the target's %d and %d",
		                draft->path, target->path, ruv_vocab_bos(b), ruv_vocab_eos(b), ruv_vocab_bos(a), ruv_vocab_eos(a));
	for (size_t i = FIRST_COMPARED; i < n; i++) {
		const ruv_str x = ruv_vocab_text(a, (ruv_token)i), y = ruv_vocab_text(b, (ruv_token)i);
		if (x.len != y.len || memcmp(x.data, y.data, x.len) != 0)
			return ruv_fail(err, RUV_EMISMATCH, where,
			                "%s cannot draft for %s: token %zu is '%.*s', the target's '%.*s'", draft->path,
			                target->path, i, (int)(y.len > 40 ? 40 : y.len), y.data, (int)(x.len > 40 ? 40 : x.len),
			                x.data);
	}
	return RUV_OK;
}

static int open_draft(ruv_speculator *sp, ruv_error *err)
{
	const ruv_hparams *hp = &sp->draft->hp;
	int rc = check_vocabularies(sp->target, sp->draft, err);
	if (rc)
		return rc;
	const int n_ctx = ruv_session_pick_ctx(sp->draft, sp->n_ctx < hp->n_ctx_train ? sp->n_ctx : hp->n_ctx_train, false, err);
	if (n_ctx < 0)
		return n_ctx;
	sp->n_ctx = n_ctx;
	if ((rc = ruv_sampler_scratch_open(&sp->scratch, sp->draft->may_sample, hp->n_vocab, err)))
		return rc;
	ruv_engine_lock(sp->draft->engine);
	const int n_pages = sp->n_lanes * ((n_ctx + RUV_KV_PAGE_TOKENS - 1) / RUV_KV_PAGE_TOKENS);
	rc = ruv_kv_pool_open(&sp->pool, ruv_engine_backend(sp->draft->engine), hp->n_attention, hp->n_kv_heads, hp->head_dim,
	                      RUV_F16, n_pages, err);
	ruv_engine_unlock(sp->draft->engine);
	return rc ? rc : ruv_batch_init(&sp->batch, sp->draft, sp->draft->n_batch, sp->n_lanes, n_ctx, err);
}

int ruv_speculator_open(ruv_speculator **out, ruv_model *target, const ruv_speculation *how, int n_ctx, int n_lanes, ruv_error *err)
{
	*out = NULL;
	if (!how->draft && !how->prompt_lookup)
		return ruv_fail(err, RUV_EINVAL, where, "neither a draft model nor prompt lookup was asked for");
	if (how->max_lookahead && (how->max_lookahead < 2 || how->max_lookahead > RUV_MAX_LOOKAHEAD))
		return ruv_fail(err, RUV_EINVAL, where, "max_lookahead is %d, which is outside 2..%d", how->max_lookahead,
		                (int)RUV_MAX_LOOKAHEAD);
	if (!(how->min_prob >= 0 && how->min_prob < 1))
		return ruv_fail(err, RUV_EINVAL, where, "min_prob is %g, which is outside 0..1", (double)how->min_prob);
	if (how->draft && (how->draft == target || how->draft->engine != target->engine))
		return ruv_fail(err, RUV_EINVAL, where,
		                how->draft == target ? "a model cannot draft for itself"
		                                     : "the draft runs on another engine than the target");
	ruv_speculator *sp = calloc(1, sizeof *sp);
	if (!sp)
		return ruv_fail_memory(err, where, sizeof *sp);
	sp->how = *how;
	sp->target = target;
	sp->draft = how->draft ? ruv_model_hold(how->draft) : NULL;
	sp->max_lookahead = how->max_lookahead ? how->max_lookahead : RUV_MAX_LOOKAHEAD;
	sp->n_ctx = n_ctx;
	sp->n_lanes = n_lanes < MAX_LANES ? n_lanes : MAX_LANES;
	const int n_vocab = sp->draft && sp->draft->hp.n_vocab > target->hp.n_vocab ? sp->draft->hp.n_vocab : target->hp.n_vocab;
	sp->accept[RUV_DRAFT_LOOKUP] = 0.5;
	sp->accept[RUV_DRAFT_MODEL] = 0.7;
	for (int i = 0; i < N_SURE; i++)
		sp->taken_when[i] = (i + 0.5) / N_SURE;
	sp->stats.lookahead = sp->max_lookahead;
	sp->q = calloc((size_t)n_vocab, sizeof *sp->q);
	int rc = sp->q ? RUV_OK : ruv_fail_memory(err, where, (size_t)n_vocab * sizeof *sp->q);
	if (rc == RUV_OK && sp->draft)
		rc = open_draft(sp, err);
	if (rc) {
		ruv_speculator_free(sp);
		return rc;
	}
	*out = sp;
	return RUV_OK;
}

void ruv_speculator_free(ruv_speculator *sp)
{
	if (!sp)
		return;
	ruv_batch_release(&sp->batch);
	if (sp->pool) {
		ruv_engine_lock(sp->draft->engine);
		ruv_kv_pool_free(sp->pool);
		ruv_engine_unlock(sp->draft->engine);
	}
	ruv_sampler_scratch_free(sp->scratch);
	ruv_model_free(sp->draft);
	free(sp->q);
	free(sp);
}

void ruv_speculator_stats(const ruv_speculator *sp, ruv_speculation_stats *stats)
{
	*stats = sp ? sp->stats : (ruv_speculation_stats){0};
}

void ruv_lane_release(ruv_lane *lane)
{
	if (lane->draft && lane->states) {
		ruv_engine *engine = lane->draft->model->engine;
		ruv_engine_lock(engine);
		ruv_backend_release(ruv_engine_backend(engine), lane->states);
		ruv_engine_unlock(engine);
	}
	ruv_session_free(lane->draft);
	ruv_sampler_free(lane->draft_sampler);
	for (int i = 0; i < RUV_MAX_LOOKAHEAD; i++)
		free(lane->q[i]);
	free(lane->allowed);
	memset(lane, 0, sizeof *lane);
}

/* ---- how far ---- */

static void mean(double *value, double x, double weight)
{
	*value += (x - *value) * weight;
}

/* The same of times. The first few count as their least, and a pass that was held up (another process had the core) counts at most
 * half as much again as is usual. */
static void mean_time(double *value, double x, int n_before)
{
	if (n_before == 0)
		*value = x;
	else if (n_before < FIRST_TIMES)
		*value = x < *value ? x : *value;
	else
		mean(value, x < 1.5 * *value ? x : 1.5 * *value, TIME_WEIGHT);
}

/* Expected tokens of a round with k guesses over its time; k 0: plain. */
static double rate(const struct cost *c, double accept, int k)
{
	double tokens = 1, p = 1;
	for (int i = 0; i < k; i++)
		tokens += p *= accept;
	return tokens / (c->plain_ms + k * c->row_ms);
}

static int lookahead(ruv_speculator *sp, int n_lanes, ruv_draft_source source)
{
	struct cost *c = &sp->cost[n_lanes];
	if (sp->how.fixed)
		return sp->max_lookahead;
	const int round = c->rounds;
	if (c->n_plain < PLAIN_FIRST || round % PLAIN_EVERY == PLAIN_EVERY - 1)
		return 0;
	if (c->n_verify < DRAFT_FIRST || (source == RUV_DRAFT_MODEL && c->n_draft < DRAFT_FIRST))
		return sp->max_lookahead < 4 ? sp->max_lookahead : 4; /* nothing is known yet */
	if (source == RUV_DRAFT_MODEL) {
		const bool loses = c->model_tokens * c->plain_ms < 1.02 * c->model_ms * n_lanes;
		sp->stats.lookahead = loses ? 0 : sp->max_lookahead;
		if (!loses) {
			c->off_rounds = c->tries = 0;
			c->try_at = TRY_EVERY;
			return sp->max_lookahead;
		}
		if (++c->off_rounds < c->try_at)
			return 0;
		if (c->off_rounds == c->try_at + TRY_ROUNDS) { /* it lost again */
			const int wait = TRY_EVERY << (c->tries < 4 ? c->tries++ : 4);
			c->try_at = c->off_rounds + (wait < TRY_MOST ? wait : TRY_MOST);
			return 0;
		}
		return sp->max_lookahead;
	}
	const double accept = sp->accept[source];
	int best = 0;
	double best_rate = 1.03 * rate(c, accept, 0);
	for (int k = 2; k <= sp->max_lookahead; k++) {
		const double r = rate(c, accept, k);
		if (r > best_rate) {
			best = k;
			best_rate = r;
		}
	}
	sp->stats.lookahead = best;
	if (best == 0 && ++c->off_rounds % TRY_EVERY == 0)
		best = 2;
	return best;
}

void ruv_speculator_measured(ruv_speculator *sp, ruv_lane *const *lanes, int n_lanes, double ms)
{
	if (!sp || n_lanes < 1)
		return;
	int n_drafts = 0, n_model = 0;
	for (int i = 0; i < n_lanes; i++) {
		n_drafts += lanes[i]->n_drafts;
		n_model += lanes[i]->source == RUV_DRAFT_MODEL;
	}
	if (n_drafts) {
		sp->stats.n_passes++;
		sp->stats.verify_ms += ms;
	} else {
		sp->stats.n_plain++;
		sp->stats.plain_ms += ms;
	}
	if (n_lanes > sp->n_lanes)
		return;
	struct cost *c = &sp->cost[n_lanes];
	c->rounds++;
	if (n_drafts == 0) {
		mean_time(&c->plain_ms, ms, c->n_plain++);
	} else if (c->n_plain) {
		const double rows = (double)n_drafts / n_lanes;
		mean_time(&c->row_ms, fmax(0.02 * c->plain_ms, ms - c->plain_ms) / rows, c->n_verify++);
	}
	sp->round_lanes = n_lanes;
	if (n_model && sp->round_passes) {
		mean_time(&c->draft_ms, sp->round_draft_ms / sp->round_passes, c->n_draft++);
		c->model_tokens *= ROUND_KEPT;
		c->model_ms = c->model_ms * ROUND_KEPT + ms + sp->round_draft_ms;
	}
}

/* ---- drafting ---- */

/* What followed the longest of the last few tokens where they stood before. */
static int look_up(const ruv_lane *lane, int most, ruv_token *drafts)
{
	const ruv_token *t = lane->session->tokens;
	const int n = lane->n_known;
	for (int gram = NGRAM_MAX; gram >= NGRAM_MIN; gram--)
		for (int at = n - gram - 1; at >= 0; at--)
			if (t[at + gram - 1] == t[n - 1] && memcmp(t + at, t + n - gram, (size_t)gram * sizeof *t) == 0) {
				const int from = at + gram, count = n - from < most ? n - from : most;
				for (int i = 0; i < count; i++)
					drafts[i] = t[from + i];
				return count;
			}
	return 0;
}

/* Words of a lane's bits: the draft's vocabulary may be a little larger than the target's. */
static size_t n_words(const ruv_lane *lane)
{
	return ((size_t)lane->session->model->hp.n_vocab + MAX_VOCAB_DIFFERENCE + 63) / 64;
}

/* Place i of the round: which tokens the constraint allows there. */
static int limit_place(ruv_lane *lane, int i, ruv_error *err)
{
	const ruv_constraint *constraint = lane->stream->constraint;
	const size_t words = n_words(lane);
	if (!lane->allowed) {
		lane->allowed = malloc((RUV_MAX_LOOKAHEAD + 1) * words * sizeof *lane->allowed);
		if (!lane->allowed)
			return ruv_fail_memory(err, where, (RUV_MAX_LOOKAHEAD + 1) * words * sizeof *lane->allowed);
	}
	uint64_t *bits = lane->allowed + (size_t)i * words;
	memset(bits, 0, words * sizeof *bits);
	const int rc = constraint->fill(lane->stream->constraint_state, bits, lane->session->model->hp.n_vocab, err);
	lane->limit_of[i] = rc;
	return rc < 0 ? rc : RUV_OK;
}

static const uint64_t *bits_of(const ruv_lane *lane, int i)
{
	return lane->limit_of[i] == RUV_CONSTRAINT_ALL ? NULL : lane->allowed + (size_t)i * n_words(lane);
}

static bool is_allowed(const uint64_t *bits, ruv_token token)
{
	return !bits || (bits[token / 64] >> (token % 64) & 1);
}

/* Takes back what drafting told the constraint. */
static int unwind(ruv_lane *lane, int n, ruv_error *err)
{
	const ruv_constraint *c = lane->stream->constraint;
	const int rc = c && n ? c->rollback(lane->stream->constraint_state, n, err) : RUV_OK;
	return rc < 0 ? rc : RUV_OK;
}

/* The only token that the bits leave, -1: there are several or none. */
static ruv_token only_token(const uint64_t *bits, size_t n)
{
	ruv_token only = -1;
	for (size_t w = 0; bits && w < n; w++)
		if (bits[w]) {
			if (only >= 0 || (bits[w] & (bits[w] - 1)))
				return -1;
			only = (ruv_token)(64 * w) + __builtin_ctzll(bits[w]);
		}
	return only;
}

/* Tokens that can still be drafted: the last token of a generation is not run, and rows must fit the context. */
static int room_of(const ruv_lane *lane)
{
	const int most = lane->stream->max_tokens - lane->stream->out->n_tokens - 1, room = lane->session->n_ctx - lane->n_known;
	return room < most ? room : most;
}

/* A constraint that fails here drafts nothing and fails again when the lane's token is chosen, which ends this lane alone. */
static int force(ruv_lane *lane, int most, ruv_error *err)
{
	const ruv_constraint *constraint = lane->stream->constraint;
	ruv_token *drafts = lane->session->tokens + lane->n_known, token;
	int n = 0;
	while (limit_place(lane, n, NULL) == RUV_OK) {
		lane->n_limited = n + 1;
		token = n < most ? only_token(bits_of(lane, n), n_words(lane)) : -1;
		if (token < 0 || ruv_model_token_is_end(lane->session->model, token)) /* an end is not run */
			break;
		if (constraint->accept(lane->stream->constraint_state, token, NULL) < 0)
			break;
		drafts[n++] = token;
	}
	lane->n_drafts = n;
	lane->source = n ? RUV_DRAFT_FORCED : RUV_DRAFT_NONE;
	memset(lane->n_q, 0, sizeof lane->n_q);
	return unwind(lane, n, err);
}

int ruv_lanes_force(ruv_lane **lanes, int n_lanes, int n_rows, ruv_error *err)
{
	for (int i = 0; i < n_lanes; i++) {
		ruv_lane *lane = lanes[i];
		lane->n_drafts = lane->n_limited = 0;
		lane->source = RUV_DRAFT_NONE;
		if (!lane->stream->constraint ||
		    lane->stream->out->n_tokens == 0) /* nothing was chosen yet: the prompt is being run */
			continue;
		int most = room_of(lane);
		most = most < n_rows ? most : n_rows;
		int rc = force(lane, most < RUV_MAX_LOOKAHEAD ? most : RUV_MAX_LOOKAHEAD, err);
		if (rc)
			return rc;
		n_rows -= lane->n_drafts;
	}
	return RUV_OK;
}

static int draft_by_lookup(ruv_lane *lane, int most, ruv_error *err)
{
	ruv_token *drafts = lane->session->tokens + lane->n_known;
	int n = look_up(lane, most, drafts), rc = RUV_OK;
	if (lane->stream->constraint) {
		int kept = 0;
		for (; kept < n && rc == RUV_OK; kept++) {
			if ((rc = limit_place(lane, kept, err)) || !is_allowed(bits_of(lane, kept), drafts[kept]))
				break;
			rc = lane->stream->constraint->accept(lane->stream->constraint_state, drafts[kept], err);
			rc = rc < 0 ? rc : RUV_OK;
		}
		n = kept;
		int back = unwind(lane, kept, rc ? NULL : err);
		rc = rc ? rc : back;
	}
	lane->n_drafts = rc ? 0 : n;
	lane->source = lane->n_drafts ? RUV_DRAFT_LOOKUP : RUV_DRAFT_NONE;
	lane->n_limited = lane->n_drafts;
	memset(lane->n_q, 0, sizeof lane->n_q);
	return rc;
}

static int prepare_lane(ruv_speculator *sp, ruv_lane *lane, ruv_error *err)
{
	int rc = RUV_OK;
	if (!lane->draft) {
		if ((rc = ruv_session_open_in(&lane->draft, sp->draft, sp->pool, sp->n_ctx, RUV_KV_F16, err)))
			return rc;
		lane->n_common = 0;
		const size_t state = ruv_session_state_bytes(lane->draft);
		if (state) {
			void *states = NULL;
			ruv_engine_lock(sp->draft->engine);
			rc = ruv_backend_alloc(ruv_engine_backend(sp->draft->engine), &states, state * RUV_MAX_LOOKAHEAD, err);
			ruv_engine_unlock(sp->draft->engine);
			lane->states = states;
			if (rc)
				return rc;
		}
	}
	if (!lane->draft_sampler) {
		ruv_sampling sampling = lane->stream->params->sampling;
		ruv_logit_bias *bias = malloc(((size_t)(sampling.n_bias > 0 ? sampling.n_bias : 0) + 1) * sizeof *bias);
		if (!bias)
			return ruv_fail_memory(err, where, (size_t)sampling.n_bias * sizeof *bias);
		int n_bias = 0;
		for (int i = 0; i < sampling.n_bias; i++)
			if (sampling.bias[i].token < sp->draft->hp.n_vocab)
				bias[n_bias++] = sampling.bias[i];
		sampling.bias = bias;
		sampling.n_bias = n_bias;
		sampling.seed = ruv_sampler_seed(lane->sampler) ^ 0x9e3779b97f4a7c15ull;
		if (sampling.min_p < SPARSE_MIN_P)
			sampling.min_p = SPARSE_MIN_P;
		rc = ruv_sampler_open_in(&lane->draft_sampler, &sampling, sp->scratch, err);
		free(bias);
		if (rc)
			return rc;
	}
	if (lane->n_common < lane->draft->n)
		rc = ruv_session_truncate(lane->draft, lane->n_common, err);
	const ruv_token *tokens = lane->session->tokens;
	memcpy(lane->draft->tokens + lane->draft->n, tokens + lane->draft->n,
	       (size_t)(lane->n_known - lane->draft->n) * sizeof *tokens);
	return rc;
}

/* Runs one pass of the draft over the lanes: rows [draft->n, up to[i]). */
static int draft_pass(ruv_speculator *sp, ruv_lane **lanes, const int *up_to, int n_lanes, ruv_batch_part *parts, ruv_error *err)
{
	for (int i = 0; i < n_lanes; i++)
		parts[i] = (ruv_batch_part){.session = lanes[i]->draft, .n_rows = up_to[i] - lanes[i]->draft->n, .n_logits = 1};
	return ruv_batch_run(&sp->batch, parts, n_lanes, err);
}

/* All but the last chunk of what the draft has to read. */
static int catch_up(ruv_speculator *sp, ruv_lane *lane, int room, ruv_error *err)
{
	while (lane->n_known - lane->draft->n > room) {
		int n = lane->n_known - lane->draft->n;
		n = n - room < sp->batch.max_rows ? n - room : sp->batch.max_rows;
		ruv_batch_part part = {.session = lane->draft, .n_rows = n};
		int rc = ruv_batch_run(&sp->batch, &part, 1, err);
		if (rc)
			return rc;
		lane->n_common = lane->draft->n;
	}
	return RUV_OK;
}

static double *taken_when(ruv_speculator *sp, float sure)
{
	const int i = (int)(sure * N_SURE);
	return &sp->taken_when[i < 0 ? 0 : i >= N_SURE ? N_SURE - 1 : i];
}

/* The draft's distribution at a lane's next place: its list, and how sure it is of its best token. *n 0: it has nothing to say. */
static int look_ahead(ruv_speculator *sp, ruv_lane *lane, const float *logits, const ruv_candidate **list, int *n, float *sure,
                      ruv_error *err)
{
	const int i = lane->n_drafts;
	int rc;
	*n = 0;
	if (!lane->stream->constraint && ruv_sampler_best(lane->draft_sampler, logits, list, sure)) {
		*n = 1;
		return RUV_OK;
	}
	if (lane->stream->constraint && (rc = limit_place(lane, i, err)))
		return rc;
	ruv_sampler_allow(lane->draft_sampler, lane->stream->constraint ? bits_of(lane, i) : NULL);
	if (ruv_sampler_distribution(lane->draft_sampler, logits, lane->session->tokens, lane->n_known + i, list, n, NULL)) {
		*n = 0; /* the target decides, and tells of a fault of its own */
		return RUV_OK;
	}
	*sure = 0;
	if (*n == 1 && lane->stream->constraint)
		*sure = 1; /* most often the only one that is allowed */
	else if (ruv_sampler_is_greedy(lane->draft_sampler))
		*sure = (float)exp((double)(*list)[0].logit - ruv_log_sum_exp(logits, sp->draft->hp.n_vocab));
	else
		for (int j = 0; j < *n; j++)
			*sure = (*list)[j].p > *sure ? (*list)[j].p : *sure;
	return RUV_OK;
}

/* Whether a token of which the draft is so sure is worth checking at a lane's next place, and *go_on: one more worth drafting. */
static bool is_worth(ruv_speculator *sp, ruv_lane *lane, float sure, bool *go_on)
{
	const struct cost *c = &sp->cost[sp->round_lanes];
	*go_on = true;
	if (sp->how.fixed)
		return true;
	if (lane->n_drafts > 0 && sure < sp->how.min_prob)
		return false;
	lane->chance *= *taken_when(sp, sure);
	if (c->n_plain < PLAIN_FIRST || c->n_verify < DRAFT_FIRST || c->n_draft < DRAFT_FIRST)
		return true; /* nothing is known yet */
	*go_on = lane->chance * sp->accept[RUV_DRAFT_MODEL] * c->plain_ms > c->row_ms + c->draft_ms;
	return lane->chance * c->plain_ms > c->row_ms;
}

/* The draft's next token for a lane from its logits; *go_on: a further one may be drafted behind it. */
static int draft_token(ruv_speculator *sp, ruv_lane *lane, const float *logits, int want, bool *go_on, ruv_error *err)
{
	const int i = lane->n_drafts;
	ruv_token *tokens = lane->session->tokens;
	const ruv_candidate *list;
	float sure = 0;
	bool more;
	int n, rc;
	*go_on = false;
	if ((rc = look_ahead(sp, lane, logits, &list, &n, &sure, err)) || n == 0 || !is_worth(sp, lane, sure, &more))
		return rc;
	const ruv_token token = ruv_candidates_draw(list, n, ruv_sampler_rng(lane->draft_sampler));
	if (token >= sp->target->hp.n_vocab)
		return RUV_OK;
	lane->sure[i] = sure;
	lane->n_q[i] = 0;
	if (!ruv_sampler_is_greedy(lane->draft_sampler)) {
		if (lane->cap_q[i] < n) {
			free(lane->q[i]);
			lane->cap_q[i] = 0;
			lane->q[i] = malloc((size_t)(n + n / 2) * sizeof **lane->q);
			if (!lane->q[i])
				return ruv_fail_memory(err, where, (size_t)n * sizeof **lane->q);
			lane->cap_q[i] = n + n / 2;
		}
		memcpy(lane->q[i], list, (size_t)n * sizeof *list);
		lane->n_q[i] = n;
	}
	if (lane->stream->constraint) {
		rc = lane->stream->constraint->accept(lane->stream->constraint_state, token, err);
		if (rc < 0)
			return rc;
	}
	tokens[lane->n_known + lane->n_drafts++] = token;
	*go_on = more && lane->n_drafts < want && !ruv_model_token_is_end(sp->target, token);
	return RUV_OK;
}

static void keep_state(ruv_speculator *sp, ruv_lane *lane)
{
	if (!lane->states)
		return;
	const size_t bytes = ruv_session_state_bytes(lane->draft);
	ruv_engine_lock(sp->draft->engine);
	ruv_backend_copy(ruv_engine_backend(sp->draft->engine), (char *)lane->states + (size_t)lane->n_draft_passes * bytes,
	                 lane->draft->conv_state, bytes);
	ruv_engine_unlock(sp->draft->engine);
}

static int draft_by_model(ruv_speculator *sp, ruv_lane **lanes, const int *wanted, int n_lanes, ruv_error *err)
{
	ruv_lane *live[MAX_LANES];
	int want[MAX_LANES], up_to[MAX_LANES], n_live = 0, rc = RUV_OK;
	ruv_batch_part parts[MAX_LANES];
	for (int i = 0; i < n_lanes && rc == RUV_OK; i++) {
		if ((rc = prepare_lane(sp, lanes[i], err)) ||
		    (rc = catch_up(sp, lanes[i], sp->batch.max_rows / (2 * n_lanes) + 1, err)))
			break;
		lanes[i]->source = RUV_DRAFT_MODEL;
		lanes[i]->chance = 1;
		lanes[i]->n_draft_passes = 0;
		live[n_live] = lanes[i];
		want[n_live] = wanted[i];
		up_to[n_live++] = lanes[i]->n_base = lanes[i]->n_known;
	}
	int64_t start = ruv_clock_now_ns(), behind = 0; /* the time of a first pass that had more to read than is usual */
	while (n_live > 0 && rc == RUV_OK) {
		int n_rows = 0;
		if ((rc = draft_pass(sp, live, up_to, n_live, parts, err)))
			break;
		for (int i = 0; i < n_live; i++)
			n_rows += parts[i].n_rows;
		if (n_rows > CAUGHT_UP * n_live)
			behind = ruv_clock_now_ns() - start;
		else
			sp->round_passes++;
		int n = 0;
		for (int i = 0; i < n_live && rc == RUV_OK; i++) {
			ruv_lane *lane = live[i];
			bool go_on = false;
			keep_state(sp, lane);
			lane->n_draft_passes++;
			if ((rc = draft_token(sp, lane, parts[i].logits, want[i], &go_on, err)) || !go_on)
				continue;
			lane->draft->tokens[lane->draft->n] = lane->session->tokens[lane->n_known + lane->n_drafts - 1];
			live[n] = lane;
			want[n] = want[i];
			up_to[n++] = lane->draft->n + 1;
		}
		n_live = n;
	}
	sp->round_draft_ms += (double)(ruv_clock_now_ns() - start - behind) / 1e6;
	sp->stats.draft_ms += (double)behind / 1e6;
	for (int i = 0; i < n_lanes; i++) {
		int back = unwind(lanes[i], lanes[i]->n_drafts, rc ? NULL : err);
		rc = rc ? rc : back;
		if (lanes[i]->draft) /* until the target has spoken */
			lanes[i]->n_common = lanes[i]->draft->n < lanes[i]->n_known ? lanes[i]->draft->n : lanes[i]->n_known;
		if (rc)
			lanes[i]->n_drafts = 0;
		lanes[i]->n_limited = lanes[i]->n_drafts;
	}
	return rc;
}

int ruv_speculator_draft(ruv_speculator *sp, ruv_lane **lanes, int n_lanes, ruv_error *err)
{
	ruv_lane *with_model[MAX_LANES];
	int want[MAX_LANES], n_model = 0, rc = RUV_OK;
	if (!sp || n_lanes < 1 || n_lanes > sp->n_lanes)
		return RUV_OK;
	sp->round_draft_ms = 0;
	sp->round_passes = 0;
	sp->round_lanes = n_lanes;
	for (int i = 0; i < n_lanes && rc == RUV_OK; i++) {
		ruv_lane *lane = lanes[i];
		if (lane->source == RUV_DRAFT_FORCED)
			continue;
		const int most = room_of(lane);
		int k = sp->how.prompt_lookup ? lookahead(sp, n_lanes, RUV_DRAFT_LOOKUP) : 0;
		k = most < k ? most : k;
		if (k > 0 && (rc = draft_by_lookup(lane, k, err)))
			break;
		if (lane->n_drafts || !sp->draft || lane->n_known + RUV_MAX_LOOKAHEAD > sp->n_ctx)
			continue;
		k = lookahead(sp, n_lanes, RUV_DRAFT_MODEL);
		k = most < k ? most : k;
		if (k > 0) {
			with_model[n_model] = lane;
			want[n_model++] = k;
		}
	}
	if (rc == RUV_OK && n_model)
		rc = draft_by_model(sp, with_model, want, n_model, err);
	for (int i = 0; i < n_lanes; i++) {
		if (lanes[i]->source == RUV_DRAFT_FORCED)
			continue;
		sp->stats.n_drafted += lanes[i]->n_drafts;
		lanes[i]->stream->out->n_drafted += lanes[i]->n_drafts;
	}
	sp->stats.draft_ms += sp->round_draft_ms;
	return rc;
}

/* ---- accepting ---- */

static float probability(const ruv_candidate *list, int n, ruv_token token)
{
	for (int i = 0; i < n; i++)
		if (list[i].token == token)
			return list[i].p;
	return 0;
}

/* A draw from max(p - q, 0), normalised. */
static ruv_token draw_rest(ruv_speculator *sp, const ruv_lane *lane, int i, const ruv_candidate *p, int n, ruv_rng *rng)
{
	const ruv_token x = lane->session->tokens[lane->n_known + i];
	double total = 0, sum = 0;
	for (int j = 0; j < lane->n_q[i]; j++)
		if (lane->q[i][j].token < sp->target->hp.n_vocab)
			sp->q[lane->q[i][j].token] = lane->q[i][j].p;
	if (lane->n_q[i] == 0)
		sp->q[x] = 1;
	for (int j = 0; j < n; j++)
		total += fmax(0, (double)p[j].p - (double)sp->q[p[j].token]);
	/* total 0: p is q but for rounding, and x was refused by a hair */
	ruv_token token = total > 0 ? -1 : ruv_candidates_draw(p, n, rng);
	const double u = total > 0 ? ruv_rng_double(rng) * total : 0;
	for (int j = 0; j < n && total > 0; j++) {
		const double rest = fmax(0, (double)p[j].p - (double)sp->q[p[j].token]);
		if (rest > 0) {
			token = p[j].token;
			if ((sum += rest) > u)
				break;
		}
	}
	for (int j = 0; j < lane->n_q[i]; j++)
		if (lane->q[i][j].token < sp->target->hp.n_vocab)
			sp->q[lane->q[i][j].token] = 0;
	sp->q[x] = 0;
	return token;
}

/* The draft's session goes back to the last token that the target agreed with. */
static void settle_draft(ruv_speculator *sp, ruv_lane *lane, int n_taken)
{
	if (lane->source != RUV_DRAFT_MODEL)
		return;
	const int last = lane->n_draft_passes - 1, keep = n_taken < last ? n_taken : last;
	ruv_session *d = lane->draft;
	if (keep < last) {
		d->n = lane->n_base + keep;
		ruv_session_trim(d);
		if (lane->states) {
			const size_t bytes = ruv_session_state_bytes(d);
			ruv_engine_lock(sp->draft->engine);
			ruv_backend_copy(ruv_engine_backend(sp->draft->engine), d->conv_state,
			                 (const char *)lane->states + (size_t)keep * bytes, bytes);
			ruv_engine_unlock(sp->draft->engine);
		}
		d->state_at = d->n;
	}
	lane->n_common = d->n;
}

int ruv_speculator_accept(ruv_speculator *sp, ruv_lane *lane, const float *logits, int *n_keep, ruv_error *err)
{
	const int64_t start = sp ? ruv_clock_now_ns() : 0;
	ruv_token *tokens = lane->session->tokens;
	const size_t n_vocab = (size_t)lane->session->model->hp.n_vocab;
	const int n_drafts = lane->n_drafts, n_before = lane->stream->out->n_tokens;
	const bool guessed = lane->source != RUV_DRAFT_FORCED;
	int taken = 0, kept = 0;
	bool done = false;
	for (int i = 0; i <= n_drafts && !done; i++) {
		const ruv_candidate *list;
		int n, rc;
		/* places that were looked at know their limits already */
		if (lane->stream->constraint && i < lane->n_limited)
			ruv_sampler_allow(lane->sampler, bits_of(lane, i));
		else if ((rc = ruv_stream_limit(lane->stream, lane->sampler, err)))
			return rc;
		rc = ruv_sampler_distribution(lane->sampler, logits + (size_t)i * n_vocab, tokens, lane->n_known + i, &list, &n,
		                              err);
		if (rc)
			return rc;
		ruv_rng *rng = ruv_sampler_rng(lane->sampler);
		ruv_token token;
		bool accepted = false;
		if (i < n_drafts) {
			const ruv_token x = tokens[lane->n_known + i];
			const float p = probability(list, n, x), q = lane->n_q[i] ? probability(lane->q[i], lane->n_q[i], x) : 1;
			accepted = p >= q || (p > 0 && ruv_rng_double(rng) * (double)q < (double)p);
			token = accepted ? x : n == 1 ? list[0].token : draw_rest(sp, lane, i, list, n, rng);
			if (guessed) {
				mean(&sp->accept[lane->source], accepted, TOKEN_WEIGHT);
				sp->stats.drafted_at[i]++;
				sp->stats.accepted_at[i] += accepted;
			}
			if (lane->source == RUV_DRAFT_MODEL)
				mean(taken_when(sp, lane->sure[i]), accepted, TOKEN_WEIGHT);
		} else {
			token = ruv_candidates_draw(list, n, rng);
		}
		if ((rc = ruv_stream_push(lane->stream, token, logits + (size_t)i * n_vocab, err)))
			return rc;
		taken += accepted;
		done = lane->stream->done;
		if (!done) {
			tokens[lane->n_known + i] = token;
			kept += accepted;
		}
		if (!accepted) {
			lane->n_known += kept + !done;
			break;
		}
		if (done)
			lane->n_known += kept;
	}
	*n_keep = 1 + kept;
	taken = guessed ? taken : 0;
	lane->stream->out->n_accepted += taken;
	if (sp) {
		sp->stats.n_accepted += taken;
		sp->stats.n_emitted += lane->stream->out->n_tokens - n_before;
		if (lane->source == RUV_DRAFT_MODEL)
			sp->cost[sp->round_lanes].model_tokens += lane->stream->out->n_tokens - n_before;
		settle_draft(sp, lane, kept);
		sp->stats.sample_ms += (double)(ruv_clock_now_ns() - start) / 1e6;
	}
	return RUV_OK;
}
