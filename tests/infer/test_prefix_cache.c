/* test_prefix_cache.c - a shared beginning is computed once, changes nothing about what follows, and is forgotten in the right
 * order. */
#include "infer/infer.h"
#include "infer/prefix_cache.h"

enum { PREFIX = 2000, CTX = 2400, N = 16 };

static void shared_prefix(const char *file)
{
	ruv_error err = {0};
	ruv_scheduler *s = open_scheduler(NULL);
	add_model(s, "m", file, CTX, 5 * CTX);
	ruv_session *session = open_alone(s, "m", CTX);
	static ruv_token prompts[N][PREFIX + 40];
	const ruv_generate_params p = {.max_tokens = 24, .ignore_end = true, .n_logprobs = 3};
	ruv_job *jobs[N];
	int tails = 0, lengths[N];
	for (int i = 0; i < N; i++) {
		lengths[i] = PREFIX + 5 + i;
		make_prompt(prompts[i], lengths[i], 0);
		for (int k = PREFIX; k < lengths[i]; k++)
			prompts[i][k] = V_FIRST + (i * 7 + k) % V_COUNT;
		tails += lengths[i] - PREFIX / 64 * 64;
	}
	for (int i = 0; i < N; i++) /* all at once: the first reads, the others wait for its pages */
		jobs[i] = submit(s, &(ruv_request){.model = "m", .prompt = prompts[i], .n_prompt = lengths[i], .params = &p});
	for (int i = 0; i < N; i++)
		assert_ok(ruv_job_wait(jobs[i], -1, &err), err);
	ruv_scheduler_model_stats m = stats_of(s).models[0];
	assert_int_equal(m.prompt_computed, PREFIX / 64 * 64 + tails);
	assert_int_equal(m.prompt_tokens, m.prompt_computed + m.prefix_hit_tokens);
	assert_int_equal(m.prefix_hit_tokens, (N - 1) * (PREFIX / 64 * 64));
	assert_int_equal(m.prefix_hits, N - 1);
	assert_int_equal(m.prefix_lookups, N);
	int n_kept = 0;
	for (int i = 0; i < N; i++) {
		ruv_generation g;
		ruv_session_reset(session);
		assert_ok(ruv_generate(session, prompts[i], lengths[i], &p, &g, &err), err);
		assert_same_generation(ruv_job_result(jobs[i], 0), &g);
		n_kept += ruv_job_result(jobs[i], 0)->n_kept;
		ruv_generation_release(&g);
		ruv_job_free(jobs[i]);
	}
	assert_int_equal(n_kept, m.prefix_hit_tokens);
	/* a conversation that goes on finds its own answer as well; other salts find nothing */
	for (uint64_t salt = 0; salt < 2; salt++) {
		ruv_job *job = submit(
		    s, &(ruv_request){.model = "m", .prompt = prompts[0], .n_prompt = lengths[0], .params = &p, .salt = salt});
		assert_ok(ruv_job_wait(job, -1, &err), err);
		assert_int_equal(ruv_job_result(job, 0)->n_kept, salt ? 0 : PREFIX / 64 * 64);
		ruv_job_free(job);
	}
	ruv_session_free(session);
	ruv_scheduler_free(s);
}

static void test_shared_prefix_lfm2(void **state)
{
	(void)state;
	shared_prefix("lfm2.gguf");
}

static void test_shared_prefix_qwen2(void **state)
{
	(void)state;
	shared_prefix("qwen2.gguf");
}

/* A conversation in turns: each one finds all full pages of the one before. */
static void test_conversation(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_scheduler *s = open_scheduler(NULL);
	add_model(s, "m", "lfm2.gguf", 1024, 0);
	ruv_session *session = open_alone(s, "m", 1024);
	ruv_token text[1024];
	int n = 30, before = 0;
	make_prompt(text, n, 3);
	for (int turn = 0; turn < 8; turn++) {
		ruv_generation g, h;
		const ruv_generate_params p = {.max_tokens = 50, .ignore_end = true};
		const ruv_request r = {.model = "m", .prompt = text, .n_prompt = n, .params = &p};
		assert_ok(ruv_scheduler_generate(s, &r, &g, &err), err);
		ruv_session_reset(session);
		assert_ok(ruv_generate(session, text, n, &p, &h, &err), err);
		assert_same_generation(&g, &h);
		assert_int_equal(g.n_kept, before / 64 * 64);
		before = n + g.n_tokens - 1; /* the last one was not run */
		memcpy(text + n, g.tokens, (size_t)g.n_tokens * sizeof *text);
		n += g.n_tokens;
		make_prompt(text + n, 25, turn);
		n += 25;
		ruv_generation_release(&g);
		ruv_generation_release(&h);
	}
	ruv_session_free(session);
	ruv_scheduler_free(s);
}

static void test_table(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_backend *backend = NULL;
	ruv_kv_pool *pool = NULL;
	ruv_prefix_cache cache;
	ruv_token tokens[8][64];
	int32_t pages[8];
	uint64_t keys[8];
	assert_ok(ruv_backend_open_cpu(&backend, 1, &err), err);
	assert_ok(ruv_kv_pool_open(&pool, backend, 1, 1, 32, RUV_F16, 8, &err), err);
	assert_ok(ruv_prefix_cache_init(&cache, pool, 16, &err), err);
	uint64_t key = ruv_prefix_root(1, 2, 3);
	assert_true(key != ruv_prefix_root(1, 2, 4) && key != ruv_prefix_root(1, 3, 3) && key != ruv_prefix_root(2, 2, 3));
	const float state_of_page[4] = {1, 2, 3, 4};
	for (int i = 0; i < 6; i++) {
		for (int k = 0; k < 64; k++)
			tokens[i][k] = i * 64 + k;
		keys[i] = key = ruv_prefix_key(key, tokens[i]);
		pages[i] = ruv_kv_pool_take(pool);
		ruv_prefix_add(&cache, key, tokens[i], pages[i], i == 2 ? state_of_page : NULL);
	}
	assert_int_equal(ruv_prefix_idle(&cache), 0);
	assert_int_equal(ruv_prefix_peek(&cache, keys[1], tokens[2]), -1);
	assert_memory_equal(ruv_prefix_state(&cache, pages[2]), state_of_page, sizeof state_of_page);
	assert_null(ruv_prefix_state(&cache, pages[3]));
	/* the sequence goes, deepest page first */
	for (int i = 5; i >= 0; i--) {
		ruv_prefix_touch(&cache, pages[i]);
		ruv_kv_pool_drop(pool, pages[i]);
	}
	assert_int_equal(ruv_prefix_idle(&cache), 6);
	assert_int_equal(pool->n_free, 2);
	assert_int_equal(ruv_prefix_find(&cache, keys[4], tokens[4]), pages[4]); /* used again */
	assert_true(ruv_prefix_make_free(&cache, 4));                            /* the two deepest that nobody uses: 5 and 3 */
	assert_int_equal(ruv_prefix_peek(&cache, keys[5], tokens[5]), -1);
	assert_int_equal(ruv_prefix_peek(&cache, keys[3], tokens[3]), -1);
	assert_int_equal(ruv_prefix_peek(&cache, keys[4], tokens[4]), pages[4]);
	assert_int_equal(ruv_prefix_peek(&cache, keys[2], tokens[2]), pages[2]);
	assert_false(ruv_prefix_make_free(&cache, 8)); /* one is in use */
	assert_int_equal(pool->n_free, 7);
	assert_int_equal(cache.n_evictions, 5);
	ruv_kv_pool_drop(pool, pages[4]);
	ruv_prefix_cache_release(&cache);
	assert_int_equal(pool->n_free, 8);
	ruv_kv_pool_free(pool);
	ruv_backend_free(backend);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_table),
	    cmocka_unit_test(test_shared_prefix_lfm2),
	    cmocka_unit_test(test_shared_prefix_qwen2),
	    cmocka_unit_test(test_conversation),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
