/* test_forced.c - tokens that a constraint leaves no choice about share passes, in a session and in the scheduler, and change
 * nothing: the same tokens and logprobs as choosing and decoding one by one by hand. */
#include <math.h>

#include "infer/infer.h"

enum { CTX = 320, FREE_EVERY = 13, N_PROMPT = 40, N_TOKENS = 120 };

/* Every 13th token is one of sixteen, and decides the twelve behind it. */
struct chain {
	int n;
	ruv_token tokens[CTX];
};

static ruv_token forced_token(const struct chain *c)
{
	return V_FIRST + (c->tokens[c->n - c->n % FREE_EVERY] * 31 + c->n * 7) % V_COUNT;
}

static int chain_fill(void *state, uint64_t *allowed, int n_vocab, ruv_error *err)
{
	const struct chain *c = state;
	(void)err;
	if (c->n % FREE_EVERY == 0)
		for (int i = 0; i < 16; i++)
			allowed[(V_FIRST + i * 11) / 64] |= 1ull << (V_FIRST + i * 11) % 64;
	else
		allowed[forced_token(c) / 64] |= 1ull << forced_token(c) % 64;
	return n_vocab > V_FIRST + V_COUNT ? RUV_OK : RUV_EINTERNAL;
}

static int chain_accept(void *state, ruv_token token, ruv_error *err)
{
	struct chain *c = state;
	(void)err;
	if (c->n == CTX || (c->n % FREE_EVERY && token != forced_token(c)))
		return RUV_EINTERNAL;
	c->tokens[c->n++] = token;
	return RUV_OK;
}

static int chain_rollback(void *state, int n, ruv_error *err)
{
	struct chain *c = state;
	(void)err;
	c->n -= n;
	return c->n >= 0 && n <= 16 ? RUV_OK : RUV_EINTERNAL;
}

static int chain_fork(void *state, void **copy, ruv_error *err)
{
	(void)err;
	*copy = malloc(sizeof(struct chain));
	if (!*copy)
		return RUV_ENOMEM;
	memcpy(*copy, state, sizeof(struct chain));
	return RUV_OK;
}

static ruv_constraint chain_constraint(struct chain *state)
{
	return (ruv_constraint){state, chain_fill, chain_accept, chain_rollback, chain_fork, free};
}

/* The same by hand: the best allowed token, one pass each. */
static void by_hand(ruv_session *s, const ruv_token *prompt, ruv_token *out, float *logprobs)
{
	ruv_error err = {0};
	struct chain chain = {0};
	ruv_model_info info;
	ruv_model_get_info(ruv_session_model(s), &info);
	uint64_t *allowed = calloc(((size_t)info.n_vocab + 63) / 64, sizeof *allowed);
	assert_non_null(allowed);
	ruv_session_reset(s);
	assert_ok(ruv_session_prefill(s, prompt, N_PROMPT, NULL, &err), err);
	for (int i = 0; i < N_TOKENS; i++) {
		const float *logits = ruv_session_logits(s);
		ruv_token best = -1;
		double sum = 0;
		memset(allowed, 0, ((size_t)info.n_vocab + 63) / 64 * sizeof *allowed);
		assert_ok(chain_fill(&chain, allowed, info.n_vocab, &err), err);
		for (int t = 0; t < info.n_vocab; t++) {
			sum += exp((double)logits[t]);
			if (allowed[t / 64] >> t % 64 & 1 && (best < 0 || logits[t] > logits[best]))
				best = t;
		}
		out[i] = best;
		logprobs[i] = (float)((double)logits[best] - log(sum));
		assert_ok(chain_accept(&chain, best, &err), err);
		assert_ok(ruv_session_decode(s, best, &err), err);
	}
	free(allowed);
}

static void same(const ruv_generation *g, const ruv_token *tokens, const float *logprobs, int n)
{
	assert_int_equal(g->n_tokens, n);
	assert_memory_equal(g->tokens, tokens, (size_t)n * sizeof *tokens);
	for (int i = 0; i < n; i++)
		assert_true(fabsf(g->logprobs[i] - logprobs[i]) < 2e-3f);
	assert_int_equal(g->n_drafted, 0); /* nothing was guessed */
}

static bool stop_at_50(void *user, const ruv_piece *piece)
{
	(void)user;
	return piece->n_tokens < 50;
}

static void forced(const char *file)
{
	ruv_error err = {0};
	ruv_scheduler *s = open_scheduler(NULL);
	add_model(s, "m", file, CTX, 8 * CTX);
	ruv_session *session = open_alone(s, "m", CTX);
	ruv_token prompts[4][N_PROMPT], tokens[4][N_TOKENS];
	float logprobs[4][N_TOKENS];
	ruv_generation g;

	for (int i = 0; i < 4; i++) {
		struct chain chain = {0};
		const ruv_constraint constraint = chain_constraint(&chain);
		/* a length that ends inside what is forced; and sampling has no choice there either */
		const int n = i % 2 ? N_TOKENS : N_TOKENS - 5;
		const ruv_generate_params p = {.max_tokens = n, .ignore_end = true, .constraint = &constraint};
		make_prompt(prompts[i], N_PROMPT, i);
		by_hand(session, prompts[i], tokens[i], logprobs[i]);
		ruv_session_reset(session);
		assert_ok(ruv_generate(session, prompts[i], N_PROMPT, &p, &g, &err), err);
		same(&g, tokens[i], logprobs[i], n);
		assert_int_equal(chain.n, n);
		/* the session holds what was generated, but for the last one */
		assert_int_equal(ruv_session_position(session), N_PROMPT + n - 1);
		assert_memory_equal(ruv_session_tokens(session) + N_PROMPT, tokens[i], (size_t)(n - 1) * sizeof(ruv_token));
		ruv_generation_release(&g);
	}

	/* a caller that stops in the middle of what is forced; the session goes on from there */
	struct chain chain = {0};
	const ruv_constraint constraint = chain_constraint(&chain);
	const ruv_generate_params stopped = {
	    .max_tokens = N_TOKENS, .ignore_end = true, .constraint = &constraint, .on_piece = stop_at_50};
	ruv_session_reset(session);
	assert_ok(ruv_generate(session, prompts[1], N_PROMPT, &stopped, &g, &err), err);
	assert_int_equal(g.finish, RUV_FINISH_CANCELLED);
	assert_true(g.n_tokens >= 50 && g.n_tokens < 70);
	assert_memory_equal(g.tokens, tokens[1], (size_t)g.n_tokens * sizeof *g.tokens);
	ruv_generation_release(&g);
	struct chain again = {0};
	const ruv_constraint fresh = chain_constraint(&again);
	const ruv_generate_params p = {.max_tokens = N_TOKENS, .ignore_end = true, .constraint = &fresh};
	assert_ok(ruv_generate(session, prompts[1], N_PROMPT, &p, &g, &err), err);
	same(&g, tokens[1], logprobs[1], N_TOKENS);
	ruv_generation_release(&g);

	/* four at once in the scheduler, one with two choices */
	struct chain chains[4] = {{0}};
	ruv_constraint constraints[4];
	ruv_generate_params params[4];
	ruv_job *jobs[4];
	for (int i = 0; i < 4; i++) {
		constraints[i] = chain_constraint(&chains[i]);
		params[i] = (ruv_generate_params){.max_tokens = N_TOKENS, .ignore_end = true, .constraint = &constraints[i]};
		jobs[i] = submit(s, &(ruv_request){.model = "m",
		                                   .prompt = prompts[i],
		                                   .n_prompt = N_PROMPT,
		                                   .params = &params[i],
		                                   .n_choices = i == 3 ? 2 : 1});
	}
	for (int i = 0; i < 4; i++) {
		assert_ok(ruv_job_wait(jobs[i], -1, &err), err);
		for (int c = 0; c < ruv_job_n_choices(jobs[i]); c++)
			same(ruv_job_result(jobs[i], c), tokens[i], logprobs[i], N_TOKENS);
		ruv_job_free(jobs[i]);
	}
	const ruv_scheduler_stats stats = stats_of(s);
	assert_int_equal(stats.models[0].generated_tokens, 5 * N_TOKENS);
	assert_true(stats.models[0].n_steps < 5 * N_TOKENS / 4); /* at worst one after another */
	ruv_session_free(session);
	ruv_scheduler_free(s);
}

static void test_qwen2(void **state)
{
	(void)state;
	forced("qwen2.gguf");
}

static void test_lfm2(void **state)
{
	(void)state;
	forced("lfm2.gguf"); /* convolution states are taken back too */
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_qwen2), cmocka_unit_test(test_lfm2)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
