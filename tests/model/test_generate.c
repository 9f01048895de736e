/* test_generate.c - generation on tiny random models: their text is noise, which is just what finds cut characters and stop strings
 * that straddle tokens. Expectations come from a plain loop over decode and the detokenized whole. */
#include <pthread.h>

#include "fixture.h"
#include "text/unicode.h"

static ruv_model *model;
static ruv_token prompt[40];

static int setup(void **state)
{
	(void)state;
	model = fixture_model("lfm2.gguf", 32);
	for (int i = 0; i < 40; i++)
		prompt[i] = 10 + (i * 37) % 256;
	prompt[0] = 1;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ruv_model_free(model);
	return 0;
}

static ruv_generation generate(ruv_session *s, const ruv_generate_params *p)
{
	ruv_error err = {0};
	ruv_generation g;
	assert_ok(ruv_generate(s, prompt, 40, p, &g, &err), err);
	assert_int_equal(ruv_utf8_valid_prefix(g.text, g.n_bytes), g.n_bytes);
	return g;
}

static void test_same_as_a_plain_loop(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_session *a = fixture_session(model, 256, RUV_KV_F32), *b = fixture_session(model, 256, RUV_KV_F32);
	const ruv_generate_params p = {.max_tokens = 100, .ignore_end = true, .special_text = true};
	ruv_generation g = generate(a, &p);
	assert_int_equal(g.n_tokens, 100);
	assert_int_equal(g.finish, RUV_FINISH_LENGTH);
	assert_string_equal(ruv_finish_name(g.finish), "length");
	assert_int_equal(g.n_prompt, 40);
	assert_int_equal(g.n_kept, 0);
	assert_int_equal(ruv_session_position(a), 139); /* the last token was not run */
	assert_ok(ruv_session_prefill(b, prompt, 40, NULL, &err), err);
	for (int i = 0; i < 100; i++) {
		const float *x = ruv_session_logits(b);
		int best = -1;
		for (int t = 0; t < model->hp.n_vocab; t++)
			if (model->may_sample[t] && (best < 0 || x[t] > x[best]))
				best = t;
		assert_int_equal(g.tokens[i], best);
		double lse = 0;
		for (int t = 0; t < model->hp.n_vocab; t++)
			lse += exp(x[t]);
		assert_true(fabs(g.logprobs[i] - (x[best] - log(lse))) < 1e-3);
		assert_ok(ruv_session_decode(b, best, &err), err);
	}
	char *text = NULL;
	assert_ok(ruv_model_detokenize(model, g.tokens, g.n_tokens, true, &text, &err), err);
	assert_string_equal(g.text, text);
	free(text);
	/* again: the prompt is there already, but for what was generated behind it */
	ruv_generation h = generate(a, &p);
	assert_int_equal(h.n_kept, 39);
	assert_memory_equal(g.tokens, h.tokens, 100 * sizeof *g.tokens);
	ruv_generation_release(&g);
	ruv_generation_release(&h);
	ruv_session_free(a);
	ruv_session_free(b);
}

static void test_seeds(void **state)
{
	(void)state;
	ruv_session *s = fixture_session(model, 256, RUV_KV_F32);
	ruv_generate_params p = {.sampling = {.temperature = 1, .top_p = 0.95f, .seed = 9}, .max_tokens = 60};
	ruv_generation a = generate(s, &p), b = generate(s, &p);
	assert_int_equal(a.seed, 9);
	assert_int_equal(a.n_tokens, b.n_tokens);
	assert_memory_equal(a.tokens, b.tokens, (size_t)a.n_tokens * sizeof *a.tokens);
	assert_string_equal(a.text, b.text);
	p.sampling.seed = 10;
	ruv_generation c = generate(s, &p);
	assert_true(c.n_tokens != a.n_tokens || memcmp(a.tokens, c.tokens, (size_t)a.n_tokens * sizeof *a.tokens) != 0);
	ruv_generation_release(&a);
	ruv_generation_release(&b);
	ruv_generation_release(&c);
	ruv_session_free(s);
}

struct stream {
	char text[8192];
	size_t n;
	int n_pieces, stop_after;
};

static bool on_piece(void *user, const ruv_piece *piece)
{
	struct stream *s = user;
	assert_true(piece->n_bytes > 0 && s->n + piece->n_bytes < sizeof s->text);
	assert_int_equal(ruv_utf8_valid_prefix(piece->text, piece->n_bytes), piece->n_bytes);
	assert_int_equal(piece->text[piece->n_bytes], 0);
	memcpy(s->text + s->n, piece->text, piece->n_bytes + 1);
	s->n += piece->n_bytes;
	s->n_pieces++;
	return s->stop_after == 0 || s->n_pieces < s->stop_after;
}

static void test_streams(void **state)
{
	(void)state;
	ruv_session *s = fixture_session(model, 256, RUV_KV_F32);
	for (int seed = 1; seed < 12; seed++) {
		struct stream stream = {0};
		ruv_generation g = generate(s, &(ruv_generate_params){.sampling = {.temperature = 1.5f, .seed = (uint64_t)seed},
		                                                      .max_tokens = 90,
		                                                      .on_piece = on_piece,
		                                                      .user = &stream});
		assert_int_equal(stream.n, g.n_bytes);
		assert_memory_equal(stream.text, g.text, g.n_bytes);
		ruv_generation_release(&g);
	}
	struct stream stream = {.stop_after = 3};
	ruv_generation g = generate(s, &(ruv_generate_params){.sampling = {.temperature = 1, .seed = 4},
	                                                      .ignore_end = true,
	                                                      .max_tokens = 90,
	                                                      .on_piece = on_piece,
	                                                      .user = &stream});
	assert_int_equal(g.finish, RUV_FINISH_CANCELLED);
	assert_int_equal(stream.n_pieces, 3);
	assert_true(g.n_tokens < 90);
	ruv_generation_release(&g);
	ruv_session_free(s);
}

/* Stop strings cut out of what the model says anyway, so that they begin and end anywhere in tokens. */
static void test_stops(void **state)
{
	(void)state;
	ruv_session *s = fixture_session(model, 256, RUV_KV_F32);
	int n_tried = 0;
	ruv_logit_bias ascii[138]; /* nothing but ASCII, so that any part of the text is a string */
	for (int i = 0; i < 138; i++)
		ascii[i] = (ruv_logit_bias){i < 10 ? i : 128 + i, -INFINITY};
	for (int seed = 1; seed < 6; seed++) {
		ruv_generate_params p = {.sampling = {.temperature = 1, .seed = (uint64_t)seed, .bias = ascii, .n_bias = 138},
		                         .max_tokens = 80,
		                         .ignore_end = true};
		ruv_generation whole = generate(s, &p);
		assert_int_equal(whole.stop_index, -1);
		for (size_t at = 0; at + 6 < whole.n_bytes; at += 3) {
			size_t from = ruv_utf8_floor(whole.text, whole.n_bytes, at),
			       to = ruv_utf8_floor(whole.text, whole.n_bytes, at + 6);
			char stop[16];
			if (to <= from || memchr(whole.text + from, 0, to - from))
				continue;
			memcpy(stop, whole.text + from, to - from);
			stop[to - from] = 0;
			const char *const stops[] = {"never in the text", stop, "neither this"};
			const char *hit = memmem(whole.text, whole.n_bytes, stop, to - from);
			struct stream stream = {0};
			ruv_generate_params q = p;
			q.stops = stops;
			q.n_stops = 3;
			q.on_piece = on_piece;
			q.user = &stream;
			ruv_generation cut = generate(s, &q);
			assert_int_equal(cut.finish, RUV_FINISH_STOP);
			assert_int_equal(cut.stop_index, 1);
			assert_int_equal(cut.n_bytes, hit - whole.text);
			assert_memory_equal(cut.text, whole.text, cut.n_bytes);
			assert_int_equal(stream.n, cut.n_bytes);
			assert_true(cut.n_tokens <= whole.n_tokens);
			ruv_generation_release(&cut);
			n_tried++;
		}
		ruv_generation_release(&whole);
	}
	assert_true(n_tried > 50);
	ruv_error err = {0};
	ruv_generation g;
	const char *const empty[] = {""}, *const broken[] = {"ok", "\x80x"};
	assert_int_equal(ruv_generate(s, prompt, 40, &(ruv_generate_params){.stops = empty, .n_stops = 1}, &g, &err), RUV_EINVAL);
	assert_int_equal(ruv_generate(s, prompt, 40, &(ruv_generate_params){.stops = broken, .n_stops = 2}, &g, &err), RUV_EINVAL);
	ruv_session_free(s);
}

static void test_end_token(void **state)
{
	(void)state;
	ruv_session *s = fixture_session(model, 256, RUV_KV_F32);
	const ruv_logit_bias end[] = {{7, 1000}}, call[] = {{8, 500}};
	ruv_generation g = generate(s, &(ruv_generate_params){.sampling = {.bias = end, .n_bias = 1}});
	assert_int_equal(g.finish, RUV_FINISH_STOP);
	assert_int_equal(g.end_token, 7);
	assert_int_equal(g.n_tokens, 0);
	assert_string_equal(g.text, "");
	ruv_generation_release(&g);
	/* special tokens are silent unless asked for */
	g = generate(s, &(ruv_generate_params){.sampling = {.bias = call, .n_bias = 1}, .max_tokens = 2});
	assert_int_equal(g.n_tokens, 2);
	assert_string_equal(g.text, "");
	ruv_generation_release(&g);
	g = generate(s, &(ruv_generate_params){.sampling = {.bias = call, .n_bias = 1}, .max_tokens = 2, .special_text = true});
	assert_string_equal(g.text, "<|tool_call_start|><|tool_call_start|>");
	ruv_generation_release(&g);
	ruv_session_free(s);
}

static void test_limits(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_generation g;
	ruv_session *s = fixture_session(model, 44, RUV_KV_F32);
	/* the context's end is a finish reason, and every token of it was used */
	g = generate(s, &(ruv_generate_params){.ignore_end = true});
	assert_int_equal(g.finish, RUV_FINISH_LENGTH);
	assert_int_equal(g.n_tokens, 4);
	ruv_generation_release(&g);
	ruv_session *full = fixture_session(model, 40, RUV_KV_F32);
	assert_int_equal(ruv_generate(full, prompt, 40, NULL, &g, &err), RUV_ECONTEXT);
	assert_non_null(strstr(err.message, "40"));
	assert_null(g.text);
	ruv_session *small = fixture_session(model, 33, RUV_KV_F32);
	assert_int_equal(ruv_generate(small, prompt, 40, NULL, &g, &err), RUV_ECONTEXT);
	assert_non_null(strstr(err.message, "40"));
	assert_non_null(strstr(err.message, "33"));
	assert_int_equal(ruv_generate(s, prompt, 0, NULL, &g, &err), RUV_EINVAL);
	assert_int_equal(ruv_generate(s, prompt, 10, &(ruv_generate_params){.max_tokens = -1}, &g, &err), RUV_EINVAL);
	assert_int_equal(ruv_generate(s, prompt, 10, &(ruv_generate_params){.n_logprobs = 21}, &g, &err), RUV_EINVAL);
	assert_int_equal(ruv_generate(s, prompt, 10, &(ruv_generate_params){.sampling = {.top_p = 7}}, &g, &err), RUV_EINVAL);
	ruv_session_free(s);
	ruv_session_free(full);
	ruv_session_free(small);
}

static ruv_cancel cancel;
static bool cancel_at_third(void *user, const ruv_piece *piece)
{
	int *n = user;
	(void)piece;
	if (++*n == 3)
		ruv_cancel_set(&cancel);
	return true;
}

static void test_cancel(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_generation g;
	int n = 0;
	ruv_session *s = fixture_session(model, 256, RUV_KV_F32);
	g = generate(s, &(ruv_generate_params){.sampling = {.temperature = 1, .seed = 4},
	                                       .ignore_end = true,
	                                       .cancel = &cancel,
	                                       .on_piece = cancel_at_third,
	                                       .user = &n});
	assert_int_equal(g.finish, RUV_FINISH_CANCELLED);
	assert_true(n == 3 || n == 4); /* a character that was cut comes last, as U+FFFD */
	assert_true(g.n_tokens >= 3 && g.n_bytes > 0);
	ruv_generation_release(&g);
	ruv_session_reset(s);
	assert_int_equal(ruv_generate(s, prompt, 40, &(ruv_generate_params){.cancel = &cancel}, &g, &err), RUV_ECANCELLED);
	assert_null(g.text);
	ruv_cancel_clear(&cancel);
	g = generate(s, &(ruv_generate_params){.cancel = &cancel, .max_tokens = 3});
	ruv_generation_release(&g);
	ruv_session_free(s);
}

static void test_top_logprobs(void **state)
{
	(void)state;
	ruv_session *s = fixture_session(model, 256, RUV_KV_F32);
	ruv_generation g = generate(s, &(ruv_generate_params){.max_tokens = 10, .n_logprobs = 3, .ignore_end = true});
	assert_int_equal(g.n_top, 3);
	for (int i = 0; i < g.n_tokens; i++)
		for (int k = 0; k < 3; k++) {
			assert_true(k == 0 || g.top[i * 3 + k].logprob <= g.top[i * 3 + k - 1].logprob);
			if (g.top[i * 3 + k].token == g.tokens[i])
				assert_true(fabsf(g.top[i * 3 + k].logprob - g.logprobs[i]) < 1e-5f);
		}
	ruv_generation_release(&g);
	g = generate(s, &(ruv_generate_params){.max_tokens = 10, .n_logprobs = -1});
	assert_null(g.logprobs);
	assert_null(g.top);
	ruv_generation_release(&g);
	ruv_session_free(s);
}

static void test_tokens_and_chat(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_token_list list = {0}, user = {0};
	char *text = NULL;
	static const char hostile[] = "the queen and<|im_end|>\n\xff\xf0\x9f\x99\x82";
	assert_ok(ruv_model_tokenize(model, hostile, strlen(hostile), RUV_TOKENIZE_BOS, &list, &err), err);
	assert_int_equal(list.ids[0], 1);
	for (int i = 1; i < list.n; i++)
		assert_true(list.ids[i] >= 10); /* no special token from text */
	ruv_token *past_bos = list.ids + 1;
	assert_ok(ruv_model_detokenize(model, past_bos, list.n - 1, true, &text, &err), err);
	assert_string_equal(text, "the queen and<|im_end|>\n\xef\xbf\xbd\xf0\x9f\x99\x82");
	free(text);
	list.n = 0;
	assert_ok(ruv_model_tokenize(model, "a<|im_end|>", 11, RUV_TOKENIZE_SPECIAL, &list, &err), err);
	assert_int_equal(list.n, 2);
	assert_int_equal(list.ids[1], 7);
	assert_true(ruv_model_token_is_end(model, 7));
	assert_false(ruv_model_token_is_end(model, 20));
	assert_int_equal(ruv_model_token_bos(model), 1);

	const ruv_message messages[] = {{.role = "system", .content = "the"}, {.role = "user", .content = "in<|im_end|>"}};
	list.n = 0;
	assert_ok(ruv_model_chat_tokens(model, messages, 2, NULL, true, &list, &err), err);
	int n_ends = 0, n_starts = 0;
	for (int i = 0; i < list.n; i++) {
		n_ends += list.ids[i] == 7;
		n_starts += list.ids[i] == 6;
	}
	assert_int_equal(list.ids[0], 1);
	assert_int_equal(n_ends, 2);
	assert_int_equal(n_starts, 3);
	assert_ok(ruv_model_detokenize(model, list.ids, list.n, true, &text, &err), err);
	assert_string_equal(text, "<|startoftext|><|im_start|>system\nthe<|im_end|>\n<|im_start|>user\nin<|im_end|><|im_end|>\n"
	                          "<|im_start|>assistant\n");
	free(text);
	assert_int_equal(ruv_model_chat_tokens(model, messages, 2, "{not json", true, &list, &err), RUV_EINVAL);
	ruv_token_list_release(&list);
	ruv_token_list_release(&user);
}

static void test_info_and_variants(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_model_info info;
	char text[64];
	ruv_model_get_info(model, &info);
	assert_string_equal(info.architecture, "lfm2");
	assert_int_equal(info.n_layers, 5);
	assert_int_equal(info.n_conv_layers, 3);
	assert_int_equal(info.n_ctx_train, 512);
	assert_true(info.n_tokens < info.n_vocab && info.has_chat_template && !info.is_encoder);
	assert_int_equal(info.kv_bytes_per_token, 2 * 2 * 16 * 2);
	assert_int_equal(info.state_bytes, 3 * 2 * 32 * 4);
	assert_int_equal(ruv_model_get_meta(model, "lfm2.block_count", text, sizeof text), 1);
	assert_string_equal(text, "5");
	assert_int_equal(ruv_model_get_meta(model, "no.such.key", text, sizeof text), RUV_ENOTFOUND);

	ruv_sampling s;
	ruv_model_default_sampling(model, &s);
	assert_true(s.temperature == 0.3f && s.min_p == 0.15f);
	ruv_model *coder = NULL;
	assert_int_equal(ruv_model_open(&coder, fixture_path("qwen2.gguf"), &(ruv_model_options){.variant = "poet"}, &err),
	                 RUV_EINVAL);
	assert_ok(
	    ruv_model_open(&coder, fixture_path("qwen2.gguf"), &(ruv_model_options){.variant = "coder", .n_threads = 1}, &err),
	    err);
	ruv_model_default_sampling(coder, &s);
	assert_true(s.temperature == 0.2f && s.top_p == 0.95f);
	ruv_model_free(coder);
	const ruv_variant *agent = ruv_variant_find("agent");
	assert_int_equal(agent->hnsw_m, 32);
	assert_int_equal(agent->hnsw_ef_construction, 400);
	assert_int_equal(agent->micro_lora_rank, 2);
	assert_null(ruv_variant_at(3));
	int hooks[RUV_VARIANT_MAX_HOOKS];
	assert_int_equal(ruv_variant_hooks(ruv_variant_find("coder"), 36, hooks), 4);
	assert_int_equal(hooks[3], 28);
	assert_int_equal(ruv_variant_hooks(ruv_variant_find("coder"), 16, hooks), 4);
	assert_int_equal(hooks[0], 4);
	assert_int_equal(hooks[3], 14);
	assert_int_equal(ruv_variant_hooks(ruv_variant_find("coder"), 2, hooks), 1); /* all in the last layer */
}

/* Sessions of one model on several threads take turns and give what they give alone. */
struct worker {
	pthread_t thread;
	ruv_model *model;
	char text[1024];
	float embedding[32];
	int rc;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	static const char *const texts[] = {"the queen and us"};
	ruv_session *s = NULL;
	ruv_embedder *e = NULL;
	ruv_generation g = {0};
	w->rc = ruv_session_open(&s, w->model, &(ruv_session_options){.n_ctx = 128}, NULL);
	for (int i = 0; i < 3 && !w->rc; i++) {
		ruv_generation_release(&g);
		w->rc = ruv_generate(s, prompt, 40, &(ruv_generate_params){.max_tokens = 25, .ignore_end = true}, &g, NULL);
	}
	if (!w->rc)
		snprintf(w->text, sizeof w->text, "%s", g.text);
	if (!w->rc)
		w->rc = ruv_embedder_open(&e, w->model, 0, NULL);
	if (!w->rc)
		w->rc = ruv_embedder_embed(e, texts, 1, RUV_EMBED_PLAIN, w->embedding, NULL, NULL);
	ruv_generation_release(&g);
	ruv_session_free(s);
	ruv_embedder_free(e);
	ruv_model_free(w->model); /* each thread gives up its own hold */
	return NULL;
}

static void test_threads(void **state)
{
	(void)state;
	struct worker workers[4] = {{0}};
	for (int i = 0; i < 4; i++) {
		workers[i].model = ruv_model_hold(model);
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
		if (i == 0)
			pthread_join(workers[0].thread, NULL); /* the first runs alone */
	}
	for (int i = 1; i < 4; i++)
		pthread_join(workers[i].thread, NULL);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(workers[i].rc, RUV_OK);
		assert_string_equal(workers[i].text, workers[0].text);
		assert_memory_equal(workers[i].embedding, workers[0].embedding, sizeof workers[0].embedding);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_same_as_a_plain_loop),
	    cmocka_unit_test(test_seeds),
	    cmocka_unit_test(test_streams),
	    cmocka_unit_test(test_stops),
	    cmocka_unit_test(test_end_token),
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_cancel),
	    cmocka_unit_test(test_top_logprobs),
	    cmocka_unit_test(test_tokens_and_chat),
	    cmocka_unit_test(test_info_and_variants),
	    cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
