/* test_speculative.c - guessing ahead changes nothing: greedy text is the same token for token, sampled text has the exact joint
 * distribution (a chi-square test against all continuations), sessions and constraints are left as plain decoding leaves them. The
 * draft is another tiny model of random weights (nearly all guesses wrong) or the target's own file (all right). */
#include "format/gguf_write.h"
#include "infer/infer.h"
#include "infer/speculative.h"

enum { CTX = 256 };

static ruv_engine *engine;

static ruv_model *open_on_engine(const char *file)
{
	ruv_error err = {0};
	ruv_model *model = NULL;
	assert_ok(ruv_model_open(&model, fixture_path(file), &(ruv_model_options){.engine = engine}, &err), err);
	return model;
}

static int setup(void **state)
{
	ruv_error err = {0};
	(void)state;
	assert_ok(ruv_engine_open(&engine, 2, &err), err);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ruv_engine_free(engine);
	return 0;
}

static ruv_generation generate(ruv_session *session, const ruv_token *prompt, int n, const ruv_generate_params *p)
{
	ruv_error err = {0};
	ruv_generation g;
	assert_ok(ruv_generate(session, prompt, n, p, &g, &err), err);
	return g;
}

static void greedy(const char *target_file, const char *draft_file, ruv_speculation how, double least, double most)
{
	ruv_error err = {0};
	ruv_model *target = open_on_engine(target_file), *draft = draft_file ? open_on_engine(draft_file) : NULL;
	ruv_session *plain = fixture_session(target, CTX, RUV_KV_F32), *ahead = fixture_session(target, CTX, RUV_KV_F32);
	ruv_speculation_stats stats;
	how.draft = draft;
	assert_ok(ruv_session_set_speculation(ahead, &how, &err), err);
	static const char *const stops[] = {"e", "zzz"};
	for (int i = 0; i < 16; i++) {
		ruv_token prompt[120];
		const int n = 3 + (i * 29) % 110;
		struct parity parity[2] = {{0}};
		const ruv_constraint constraints[2] = {parity_constraint(&parity[0]), parity_constraint(&parity[1])};
		ruv_generate_params p = {.max_tokens = i == 5 ? 0 : 70, .ignore_end = i % 3 != 0, .n_logprobs = i % 4 - 1};
		make_prompt(prompt, n, i % 2); /* every second one begins like the one before last: the draft's session is kept */
		if (i % 5 == 2) {
			p.stops = stops;
			p.n_stops = 2;
		}
		if (i % 4 == 1)
			p.sampling.repetition_penalty = 1.5f;
		ruv_generate_params q = p;
		if (i % 3 == 2) {
			p.constraint = &constraints[0];
			q.constraint = &constraints[1];
		}
		ruv_generation a = generate(plain, prompt, n, &p), b = generate(ahead, prompt, n, &q);
		assert_same_generation(&b, &a);
		assert_int_equal(parity[0].n_accepted, parity[1].n_accepted);
		assert_true(b.n_accepted <= b.n_drafted);
		/* whatever was taken back: the session goes on as the plain one does */
		const int position = ruv_session_position(ahead);
		assert_true(position <= n + b.n_tokens && position >= n + b.n_tokens - 1);
		const ruv_token next = 17;
		assert_ok(ruv_session_truncate(plain, n + a.n_tokens - 1, &err), err);
		assert_ok(ruv_session_truncate(ahead, n + b.n_tokens - 1, &err), err);
		assert_ok(ruv_session_decode(plain, next, &err), err);
		assert_ok(ruv_session_decode(ahead, next, &err), err);
		assert_memory_equal(ruv_session_tokens(plain), ruv_session_tokens(ahead),
		                    (size_t)(n + a.n_tokens) * sizeof(ruv_token));
		assert_close(ruv_session_logits(ahead), ruv_session_logits(plain), target->hp.n_vocab, 1e-4);
		ruv_generation_release(&a);
		ruv_generation_release(&b);
	}
	ruv_session_speculation_stats(ahead, &stats);
	assert_true(stats.n_passes > 0 && stats.n_drafted > 0);
	const double share = (double)stats.n_accepted / (double)stats.n_drafted;
	if (!(share >= least && share <= most))
		fail_msg("%.3f of %lld drafts were taken", share, (long long)stats.n_drafted);
	int64_t drafted = 0, accepted = 0;
	for (int i = 0; i < RUV_MAX_LOOKAHEAD; i++) {
		assert_true(stats.accepted_at[i] <= stats.drafted_at[i]);
		drafted += stats.drafted_at[i];
		accepted += stats.accepted_at[i];
	}
	assert_true(drafted <= stats.n_drafted && accepted == stats.n_accepted);
	ruv_session_free(plain);
	ruv_session_free(ahead);
	ruv_model_free(draft);
	ruv_model_free(target);
}

static void test_greedy_wrong_guesses(void **state)
{
	(void)state;
	greedy("lfm2.gguf", "llama.gguf", (ruv_speculation){.fixed = true}, 0, 0.5);
	greedy("qwen2.gguf", "lfm2.gguf", (ruv_speculation){.fixed = true, .max_lookahead = 3}, 0, 0.5);
}

static void test_greedy_right_guesses(void **state)
{
	(void)state;
	greedy("lfm2.gguf", "lfm2.gguf", (ruv_speculation){.fixed = true}, 0.9, 1);
	greedy("qwen2.gguf", "qwen2.gguf", (ruv_speculation){.fixed = true, .max_lookahead = 5}, 0.9, 1);
}

static void test_greedy_adaptive(void **state)
{
	(void)state;
	greedy("lfm2.gguf", "lfm2.gguf", (ruv_speculation){0}, 0, 1);
	greedy("lfm2.gguf", "llama.gguf", (ruv_speculation){.prompt_lookup = true}, 0, 1);
}

static void test_greedy_lookup(void **state)
{
	(void)state;
	greedy("lfm2.gguf", NULL, (ruv_speculation){.prompt_lookup = true, .fixed = true}, 0, 1);
	greedy("qwen2.gguf", NULL, (ruv_speculation){.prompt_lookup = true, .fixed = true, .max_lookahead = 2}, 0, 1);
}

/* ---- distribution ---- */

enum { K = 6, LENGTH = 4, N_LEAVES = K * K * K * K };

struct tree {
	ruv_session *session;
	ruv_sampling sampling;
	ruv_token tokens[2 * K * K + LENGTH];
	int n_prompt;
	ruv_token leaf[N_LEAVES][LENGTH];
	double p[N_LEAVES];
	int n_leaves;
};

/* Every continuation and its probability. */
static void grow(struct tree *t, int depth, double p)
{
	ruv_error err = {0};
	ruv_candidate list[K];
	const ruv_candidate *candidates;
	ruv_sampler *sampler = NULL;
	int n;
	if (depth == LENGTH) {
		memcpy(t->leaf[t->n_leaves], t->tokens + t->n_prompt, LENGTH * sizeof(ruv_token));
		t->p[t->n_leaves++] = p;
		return;
	}
	ruv_model *model = ruv_session_model(t->session);
	assert_ok(ruv_session_set_tokens(t->session, t->tokens, t->n_prompt + depth, NULL, NULL, &err), err);
	assert_ok(ruv_sampler_open(&sampler, &t->sampling, model->may_sample, model->hp.n_vocab, &err), err);
	assert_ok(ruv_sampler_distribution(sampler, ruv_session_logits(t->session), t->tokens, t->n_prompt + depth, &candidates, &n,
	                                   &err),
	          err);
	assert_true(n <= K);
	memcpy(list, candidates, (size_t)n * sizeof *list);
	ruv_sampler_free(sampler);
	for (int i = 0; i < n; i++) {
		t->tokens[t->n_prompt + depth] = list[i].token;
		grow(t, depth + 1, p * (double)list[i].p);
	}
}

/* How many standard deviations chi-square lies above its mean for n_draws generations. */
static double chi_square(const struct tree *t, ruv_session *ahead, int n_draws)
{
	static int counts[N_LEAVES];
	ruv_generate_params p = {.sampling = t->sampling, .max_tokens = LENGTH, .ignore_end = true, .n_logprobs = -1};
	memset(counts, 0, sizeof counts);
	for (int i = 0; i < n_draws; i++) {
		p.sampling.seed = 1000 + (uint64_t)i;
		ruv_generation g = generate(ahead, t->tokens, t->n_prompt, &p);
		int leaf = 0;
		while (leaf < t->n_leaves && memcmp(t->leaf[leaf], g.tokens, sizeof t->leaf[leaf]) != 0)
			leaf++;
		assert_true(leaf < t->n_leaves); /* nothing else can come out */
		counts[leaf]++;
		ruv_generation_release(&g);
	}
	double sum = 0, rest_p = 0;
	int rest = 0, n_bins = 0;
	for (int i = 0; i < t->n_leaves; i++) {
		const double want = t->p[i] * n_draws;
		if (want < 5) {
			rest_p += t->p[i];
			rest += counts[i];
			continue;
		}
		sum += (counts[i] - want) * (counts[i] - want) / want;
		n_bins++;
	}
	if (rest_p * n_draws >= 5) {
		sum += (rest - rest_p * n_draws) * (rest - rest_p * n_draws) / (rest_p * n_draws);
		n_bins++;
	}
	assert_true(n_bins > 5);
	return (sum - (n_bins - 1)) / sqrt(2.0 * (n_bins - 1));
}

static void test_distribution(void **state)
{
	(void)state;
	static const struct {
		const char *draft;
		bool lookup;
		float temperature;
	} cases[] = {{"llama.gguf", false, 1.0f}, {"llama.gguf", false, 0.5f}, {"lfm2.gguf", false, 1.0f}, {NULL, true, 1.0f}};
	ruv_error err = {0};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		ruv_model *target = open_on_engine("lfm2.gguf"), *draft = cases[i].draft ? open_on_engine(cases[i].draft) : NULL;
		static struct tree tree;
		memset(&tree, 0, sizeof tree);
		tree.session = fixture_session(target, CTX, RUV_KV_F32);
		tree.sampling = (ruv_sampling){.temperature = cases[i].temperature, .top_k = K};
		tree.n_prompt = 2 * K * K;
		ruv_logit_bias bias[K];
		for (int a = 0; a < K;
		     a++) { /* every pair of six tokens, the only ones that come out: draft and lookup are often right */
			bias[a] = (ruv_logit_bias){V_FIRST + 5 * a, 40};
			for (int b = 0; b < K; b++) {
				tree.tokens[2 * (a * K + b)] = V_FIRST + 5 * a;
				tree.tokens[2 * (a * K + b) + 1] = V_FIRST + 5 * b;
			}
		}
		tree.sampling.bias = bias;
		tree.sampling.n_bias = K;
		grow(&tree, 0, 1);
		ruv_session *ahead = fixture_session(target, CTX, RUV_KV_F32);
		assert_ok(
		    ruv_session_set_speculation(
			ahead,
			&(ruv_speculation){.draft = draft, .prompt_lookup = cases[i].lookup, .max_lookahead = 3, .fixed = true},
			&err),
		    err);
		const double z = chi_square(&tree, ahead, 6000);
		ruv_speculation_stats stats;
		ruv_session_speculation_stats(ahead, &stats);
		assert_true(stats.n_drafted > 1000 && stats.n_accepted > 20); /* both ways were taken often */
		if (getenv("RUV_TEST_VERBOSE"))
			print_message("case %zu: z %.2f, %lld of %lld drafts taken\n", i, z, (long long)stats.n_accepted,
			              (long long)stats.n_drafted);
		if (!(fabs(z) < 4))
			fail_msg("case %zu: chi-square is %.1f standard deviations from its mean", i, z);
		ruv_session_free(ahead);
		ruv_session_free(tree.session);
		ruv_model_free(draft);
		ruv_model_free(target);
	}
}

/* ---- refusals, and in the scheduler ---- */

/* A copy of a model whose token `which` has another text. */
static void write_other_vocabulary(const char *path, const char *file, size_t which)
{
	ruv_error err = {0};
	ruv_gguf *from = NULL;
	ruv_gguf_writer *to = NULL;
	const char name[] = "tokenizer.ggml.tokens";
	assert_ok(ruv_gguf_open(&from, fixture_path(file), 0, &err), err);
	assert_ok(ruv_gguf_writer_create(&to, &err), err);
	for (size_t i = 0; i < ruv_gguf_n_keys(from); i++)
		if (!ruv_gguf_str_is(ruv_gguf_key_at(from, i)->name, name))
			ruv_gguf_set_copy(to, ruv_gguf_key_at(from, i));
	ruv_gguf_array array;
	assert_ok(ruv_gguf_get_array(from, name, &array, &err), err);
	ruv_gguf_str *texts = malloc(array.n * sizeof *texts);
	for (size_t i = 0, at = 0; i < array.n; i++)
		assert_true(ruv_gguf_array_next_str(&array, &at, &texts[i]));
	texts[which] = (ruv_gguf_str){"other", 5};
	ruv_gguf_set_str_array(to, name, texts, array.n);
	for (size_t i = 0; i < ruv_gguf_n_tensors(from); i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(from, i);
		ruv_gguf_add_tensor(to, t->name, (ruv_dtype)t->dtype, t->n_dims, t->ne);
	}
	assert_ok(ruv_gguf_writer_begin(to, path, &err), err);
	for (size_t i = 0; i < ruv_gguf_n_tensors(from); i++)
		assert_ok(ruv_gguf_writer_data(to, ruv_gguf_tensor_at(from, i)->data, ruv_gguf_tensor_at(from, i)->n_bytes, &err),
		          err);
	assert_ok(ruv_gguf_writer_finish(to, &err), err);
	free(texts);
	ruv_gguf_writer_free(to);
	ruv_gguf_free(from);
}

static void test_refusals(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_model *target = open_on_engine("lfm2.gguf"), *encoder = open_on_engine("lfm2-encoder.gguf"),
		  *elsewhere = fixture_model("llama.gguf", 0);
	ruv_session *s = fixture_session(target, CTX, RUV_KV_F16);
	assert_int_equal(ruv_session_set_speculation(s, &(ruv_speculation){0}, &err), RUV_EINVAL);
	assert_int_equal(ruv_session_set_speculation(s, &(ruv_speculation){.draft = target}, &err), RUV_EINVAL);
	assert_int_equal(ruv_session_set_speculation(s, &(ruv_speculation){.draft = elsewhere}, &err), RUV_EINVAL);
	assert_int_equal(ruv_session_set_speculation(s, &(ruv_speculation){.prompt_lookup = true, .max_lookahead = 9}, &err),
	                 RUV_EINVAL);
	int rc = ruv_session_set_speculation(s, &(ruv_speculation){.draft = encoder}, &err);
	assert_true(rc == RUV_EUNSUPPORTED || rc == RUV_EMISMATCH);
	assert_ok(ruv_session_set_speculation(s, &(ruv_speculation){.prompt_lookup = true}, &err), err);
	assert_ok(ruv_session_set_speculation(s, NULL, &err), err);
	char path[300];
	ruv_model *other = NULL;
	snprintf(path, sizeof path, "%s/ruv-vocabulary-%d.gguf", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)getpid());
	write_other_vocabulary(path, "llama.gguf", 50);
	assert_ok(ruv_model_open(&other, path, &(ruv_model_options){.engine = engine}, &err), err);
	assert_int_equal(ruv_session_set_speculation(s, &(ruv_speculation){.draft = other}, &err), RUV_EMISMATCH);
	assert_non_null(strstr(err.message, "token 50 is 'other'"));
	ruv_model_free(other);
	unlink(path);
	ruv_session_free(s);
	ruv_model_free(elsewhere);
	ruv_model_free(encoder);
	ruv_model_free(target);
}

static void test_in_the_scheduler(void **state)
{
	(void)state;
	enum { N = 10 };
	ruv_error err = {0};
	ruv_scheduler *s = open_scheduler(&(ruv_scheduler_options){.engine = engine});
	add_model(s, "draft", "lfm2.gguf", CTX, 0);
	assert_ok(ruv_scheduler_add_model(s,
	                                  &(ruv_scheduler_model){.name = "m",
	                                                         .path = fixture_path("lfm2.gguf"),
	                                                         .n_ctx = CTX,
	                                                         .kv_type = RUV_KV_F32,
	                                                         .draft = "draft",
	                                                         .prompt_lookup = true},
	                                  &err),
	          err);
	ruv_session *session = open_alone(s, "m", CTX);
	ruv_token prompts[N][100];
	ruv_generate_params params[N];
	ruv_job *jobs[N];
	for (int i = 0; i < N; i++) { /* in waves, so that few and many run at a time */
		make_prompt(prompts[i], 100, i % 4);
		params[i] = (ruv_generate_params){.max_tokens = 40 + 10 * i, .ignore_end = true};
		jobs[i] = submit(
		    s, &(ruv_request){
			   .model = "m", .prompt = prompts[i], .n_prompt = 100 - i, .params = &params[i], .n_choices = 1 + i % 2});
		if (i % 3 == 2)
			assert_ok(ruv_job_wait(jobs[i - 1], -1, &err), err);
	}
	for (int i = 0; i < N; i++) {
		assert_ok(ruv_job_wait(jobs[i], -1, &err), err);
		ruv_session_reset(session);
		ruv_generation g = generate(session, prompts[i], 100 - i, &params[i]);
		for (int c = 0; c < ruv_job_n_choices(jobs[i]); c++)
			assert_same_generation(ruv_job_result(jobs[i], c), &g);
		ruv_generation_release(&g);
		ruv_job_free(jobs[i]);
	}
	const ruv_scheduler_stats stats = stats_of(s);
	assert_true(stats.models[1].speculation.n_drafted > 0 && stats.models[1].speculation.n_accepted > 0);
	ruv_session_free(session);
	ruv_scheduler_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_greedy_wrong_guesses), cmocka_unit_test(test_greedy_right_guesses),
	    cmocka_unit_test(test_greedy_adaptive),      cmocka_unit_test(test_greedy_lookup),
	    cmocka_unit_test(test_distribution),         cmocka_unit_test(test_refusals),
	    cmocka_unit_test(test_in_the_scheduler),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
