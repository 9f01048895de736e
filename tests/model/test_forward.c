/* test_forward.c - hidden states and logits against float64 references, and that the way a sequence was built does not matter.
 *
 *     test_forward                     the fixtures of tests/data/model
 *     test_forward MODEL.gguf REF.gguf [TOLERANCE]
 *                                      one model against its reference (make_fixtures.py import or quantized), errors printed */
#include "fixture.h"

static const char *const causal_models[] = {"lfm2", "qwen2", "qwen2-yarn", "qwen3", "llama"};
enum { N_MODELS = sizeof causal_models / sizeof *causal_models };

struct tap {
	const ruv_gguf *ref;
	const int32_t *rows;
	int64_t n_rows;
	int n_layers, dim;
	int n_seen;
	double worst;
	int position; /* of the pass's first row */
};

static int on_hidden(void *user, int i, ruv_backend *backend, const float *x, int n, int64_t dim)
{
	struct tap *tap = user;
	if (i == tap->n_layers)
		return RUV_OK; /* the reference has the last state after the final norm */
	char name[32];
	snprintf(name, sizeof name, "hidden.%d", i > tap->n_layers ? tap->n_layers : i);
	int64_t n_ref;
	const float *ref = ref_data(tap->ref, name, &n_ref);
	if (!ref)
		return RUV_OK; /* a reference of logits alone */
	assert_int_equal(n_ref, tap->n_rows * dim);
	float *host = malloc((size_t)n * (size_t)dim * sizeof *host);
	ruv_backend_download(backend, host, x, (size_t)n * (size_t)dim * sizeof *host);
	for (int64_t r = 0; r < tap->n_rows; r++) {
		int at = tap->rows[r] - tap->position;
		if (at < 0 || at >= n)
			continue;
		double d = difference(host + at * dim, ref + r * dim, dim);
		tap->worst = d > tap->worst || isnan(d) ? d : tap->worst;
		tap->n_seen++;
	}
	free(host);
	return RUV_OK;
}

struct outcome {
	int n, n_hidden, n_same; /* positions, hidden states compared, positions with the same most likely token */
	double hidden, logits;   /* worst differences */
	double logits_rms;       /* root of the mean square difference, relative to that of the reference */
};

/* Runs the reference's ids in one pass. */
static void compare(const char *model_path, const char *ref_path, struct outcome *out)
{
	ruv_error err = {0};
	ruv_gguf *ref = NULL;
	assert_ok(ruv_gguf_open(&ref, ref_path, 0, &err), err);
	int64_t n, n_rows, n_logits, n_argmax;
	const ruv_token *ids = ref_data(ref, "ids", &n);
	const int32_t *rows = ref_data(ref, "rows", &n_rows);
	const float *want = ref_data(ref, "logits", &n_logits);
	const int32_t *best = ref_data(ref, "argmax", &n_argmax);
	assert_true(ids && rows && want && best);

	ruv_model *model = NULL;
	ruv_session *session = NULL;
	assert_ok(ruv_model_open(&model, model_path, &(ruv_model_options){.n_threads = 2, .n_batch = (int)n}, &err), err);
	assert_ok(ruv_session_open(&session, model, &(ruv_session_options){.n_ctx = (int)n, .kv_type = RUV_KV_F32}, &err), err);
	struct tap tap = {.ref = ref, .rows = rows, .n_rows = n_rows, .n_layers = model->hp.n_layers, .dim = model->hp.hidden};
	const ruv_forward_tap listen = {.user = &tap, .hidden = on_hidden};
	session->tap = &listen;
	const int64_t n_vocab = model->hp.n_vocab;
	assert_int_equal(n_logits, n_rows * n_vocab);
	float *logits = malloc((size_t)(n * n_vocab) * sizeof *logits);
	assert_ok(ruv_session_score(session, ids, (int)n, logits, NULL, &err), err);
	*out = (struct outcome){.n = (int)n, .n_hidden = tap.n_seen, .hidden = tap.worst};
	double sum = 0, ref_sum = 0;
	for (int64_t r = 0; r < n_rows; r++) {
		const float *got = logits + rows[r] * n_vocab, *expected = want + r * n_vocab;
		out->logits = fmax(out->logits, difference(got, expected, n_vocab));
		for (int64_t i = 0; i < n_vocab; i++) {
			sum += pow((double)got[i] - expected[i], 2);
			ref_sum += pow(expected[i], 2);
		}
	}
	out->logits_rms = sqrt(sum / ref_sum);
	for (int64_t i = 0; i < n; i++)
		out->n_same += argmax(logits + i * n_vocab, (int)n_vocab) == best[i];
	free(logits);
	ruv_session_free(session);
	ruv_model_free(model);
	ruv_gguf_free(ref);
}

static void test_references(void **state)
{
	(void)state;
	for (int m = 0; m < N_MODELS; m++) {
		char model[64], ref[512], path[512];
		struct outcome o;
		snprintf(model, sizeof model, "%s.gguf", causal_models[m]);
		snprintf(path, sizeof path, "%s", fixture_path(model));
		snprintf(model, sizeof model, "%s.ref.gguf", causal_models[m]);
		snprintf(ref, sizeof ref, "%s", fixture_path(model));
		compare(path, ref, &o);
		print_message("%-12s hidden %.1e, logits %.1e\n", causal_models[m], o.hidden, o.logits);
		assert_true(o.n_hidden > 15 && o.hidden < 3e-5 && o.logits < 3e-5);
		assert_int_equal(o.n_same, o.n);
	}
}

/* ---- the same logits whichever way ---- */

struct way {
	ruv_model *model;
	ruv_session *session;
	ruv_gguf *ref;
	const ruv_token *ids;
	int n, n_vocab;
	float *all; /* [n, n_vocab] of one pass */
};

static void way_open(struct way *w, const char *name, int n_batch)
{
	ruv_error err = {0};
	char file[64];
	int64_t n;
	snprintf(file, sizeof file, "%s.gguf", name);
	w->model = fixture_model(file, n_batch);
	w->session = fixture_session(w->model, 200, RUV_KV_F32);
	snprintf(file, sizeof file, "%s.ref.gguf", name);
	assert_ok(ruv_gguf_open(&w->ref, fixture_path(file), 0, &err), err);
	w->ids = ref_data(w->ref, "ids", &n);
	w->n = (int)n;
	w->n_vocab = w->model->hp.n_vocab;
	w->all = malloc((size_t)n * (size_t)w->n_vocab * sizeof *w->all);
	assert_ok(ruv_session_score(w->session, w->ids, w->n, w->all, NULL, &err), err);
}

static void way_close(struct way *w)
{
	ruv_session_free(w->session);
	ruv_model_free(w->model);
	ruv_gguf_free(w->ref);
	free(w->all);
}

/* The session's logits are those behind `position` tokens. */
static void expect_at(const struct way *w, ruv_session *session, int position)
{
	const float *got = ruv_session_logits(session), *want = w->all + (size_t)(position - 1) * (size_t)w->n_vocab;
	assert_int_equal(ruv_session_position(session), position);
	assert_non_null(got);
	assert_close(got, want, w->n_vocab, 2e-5);
}

static void test_chunks(void **state)
{
	(void)state;
	static const int batches[] = {1, 5, 64, 150};
	ruv_error err = {0};
	for (int m = 0; m < N_MODELS; m++)
		for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
			struct way w;
			way_open(&w, causal_models[m], batches[b]);
			ruv_session *s = fixture_session(w.model, 200, RUV_KV_F32);
			/* growing chunks, each from another place in a page */
			for (int at = 0, step = 1; at < w.n; step = step * 2 + 1) {
				int n = at + step < w.n ? step : w.n - at;
				assert_ok(ruv_session_prefill(s, w.ids + at, n, NULL, &err), err);
				at += n;
				expect_at(&w, s, at);
			}
			/* one by one */
			ruv_session_reset(s);
			assert_null(ruv_session_logits(s));
			for (int at = 0; at < w.n; at++) {
				assert_ok(ruv_session_decode(s, w.ids[at], &err), err);
				expect_at(&w, s, at + 1);
			}
			ruv_session_free(s);
			way_close(&w);
		}
}

static void test_truncate(void **state)
{
	(void)state;
	static const int places[] = {149, 140, 129, 128, 127, 100, 65, 64, 63, 20, 7, 6, 5, 2, 1, 0};
	ruv_error err = {0};
	for (int m = 0; m < N_MODELS; m++) {
		struct way w;
		way_open(&w, causal_models[m], 32);
		for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
			int p = places[i], n_more = p + 3 <= w.n ? 3 : w.n - p;
			assert_ok(ruv_session_truncate(w.session, p, &err), err);
			assert_null(ruv_session_logits(w.session));
			assert_ok(ruv_session_prefill(w.session, w.ids + p, n_more, NULL, &err), err);
			expect_at(&w, w.session, p + n_more);
			/* another branch, then back to the first */
			assert_ok(ruv_session_truncate(w.session, p, &err), err);
			ruv_token other = (w.ids[p] + 1) % w.n_vocab;
			assert_ok(ruv_session_decode(w.session, other, &err), err);
			int kept = -1;
			assert_ok(ruv_session_set_tokens(w.session, w.ids, p + 1, &kept, NULL, &err), err);
			assert_int_equal(kept, p);
			expect_at(&w, w.session, p + 1);
			/* nothing to do at all */
			assert_ok(ruv_session_set_tokens(w.session, w.ids, p + 1, &kept, NULL, &err), err);
			assert_int_equal(kept, p + 1);
			expect_at(&w, w.session, p + 1);
			assert_ok(ruv_session_truncate(w.session, p, &err), err);
		}
		assert_int_equal(ruv_session_truncate(w.session, 1, &err), RUV_EINVAL);
		assert_int_equal(ruv_session_truncate(w.session, -1, &err), RUV_EINVAL);
		way_close(&w);
	}
}

static void test_fork(void **state)
{
	(void)state;
	ruv_error err = {0};
	for (int m = 0; m < N_MODELS; m++)
		for (int at = 60; at <= 70; at += 2) { /* before, on and behind a page's edge */
			struct way w;
			way_open(&w, causal_models[m], 16);
			ruv_session *a = fixture_session(w.model, 200, RUV_KV_F32), *b = NULL, *c = NULL;
			assert_ok(ruv_session_prefill(a, w.ids, at, NULL, &err), err);
			assert_ok(ruv_session_fork(&b, a, &err), err);
			expect_at(&w, b, at);
			/* the fork goes elsewhere, the origin on, and neither disturbs the other */
			for (int i = 0; i < 10; i++)
				assert_ok(ruv_session_decode(b, (w.ids[at + i] + 7) % w.n_vocab, &err), err);
			assert_ok(ruv_session_prefill(a, w.ids + at, 10, NULL, &err), err);
			expect_at(&w, a, at + 10);
			/* a fork of the fork, back to the common part and on along the origin's way */
			assert_ok(ruv_session_fork(&c, b, &err), err);
			assert_ok(ruv_session_truncate(c, at - 3, &err), err);
			assert_ok(ruv_session_prefill(c, w.ids + at - 3, 5, NULL, &err), err);
			expect_at(&w, c, at + 2);
			ruv_session_free(a); /* the pool lives on */
			assert_ok(ruv_session_truncate(b, at, &err), err);
			assert_ok(ruv_session_prefill(b, w.ids + at, 20, NULL, &err), err);
			expect_at(&w, b, at + 20);
			ruv_session_free(c);
			int n_free = b->pool->n_free;
			ruv_session_reset(b);
			assert_int_equal(b->pool->n_free, b->pool->n_pages);
			assert_true(n_free < b->pool->n_pages);
			ruv_session_free(b);
			way_close(&w);
		}
}

static void test_pool_limit(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_model *model = fixture_model("lfm2.gguf", 64);
	ruv_session *a = NULL, *b = NULL;
	ruv_token ids[128];
	for (int i = 0; i < 128; i++)
		ids[i] = 10 + i;
	assert_ok(ruv_session_open(&a, model, &(ruv_session_options){.n_ctx = 128, .n_pool = 128}, &err), err);
	assert_ok(ruv_session_prefill(a, ids, 100, NULL, &err), err);
	assert_ok(ruv_session_fork(&b, a, &err), err);
	assert_int_equal(ruv_session_decode(b, 5, &err), RUV_ELIMIT); /* no page for the copy */
	assert_non_null(strstr(err.message, "n_pool"));
	assert_int_equal(ruv_session_position(b), 100);
	assert_non_null(ruv_session_logits(b));
	ruv_session_free(a);
	assert_ok(ruv_session_decode(b, 5, &err), err);
	assert_ok(ruv_session_prefill(b, ids, 27, NULL, &err), err);
	assert_int_equal(ruv_session_decode(b, 5, &err), RUV_ECONTEXT);
	ruv_session_free(b);
	ruv_model_free(model);
}

static void save_path(char *path, size_t cap)
{
	const char *dir = getenv("TMPDIR");
	snprintf(path, cap, "%s/ruv-session-%d", dir && *dir ? dir : "/tmp", (int)getpid());
}

static void flip_byte(const char *path, long at)
{
	FILE *f = fopen(path, "r+b");
	assert_non_null(f);
	fseek(f, at, at < 0 ? SEEK_END : SEEK_SET);
	int c = fgetc(f);
	fseek(f, at, at < 0 ? SEEK_END : SEEK_SET);
	fputc(c ^ 0x10, f);
	fclose(f);
}

static void test_save_restore(void **state)
{
	(void)state;
	ruv_error err = {0};
	char path[300];
	save_path(path, sizeof path);
	for (int m = 0; m < N_MODELS; m++) {
		struct way w;
		way_open(&w, causal_models[m], 32);
		ruv_session *s = fixture_session(w.model, 180, RUV_KV_F32);
		static const int places[] = {1, 64, 70, 150};
		for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
			int p = places[i];
			assert_ok(ruv_session_set_tokens(w.session, w.ids, p, NULL, NULL, &err), err);
			assert_ok(ruv_session_save(w.session, path, &err), err);
			ruv_session_reset(w.session);
			assert_ok(ruv_session_decode(s, 3, &err), err); /* something to overwrite */
			assert_ok(ruv_session_restore(s, path, &err), err);
			expect_at(&w, s, p);
			assert_memory_equal(ruv_session_tokens(s), w.ids, (size_t)p * sizeof *w.ids);
			if (p < w.n) {
				assert_ok(ruv_session_decode(s, w.ids[p], &err), err);
				expect_at(&w, s, p + 1);
			}
		}
		/* saved after truncate: no logits, and the state is rebuilt */
		assert_ok(ruv_session_set_tokens(w.session, w.ids, 90, NULL, NULL, &err), err);
		assert_ok(ruv_session_truncate(w.session, 77, &err), err);
		assert_ok(ruv_session_save(w.session, path, &err), err);
		assert_ok(ruv_session_restore(s, path, &err), err);
		assert_null(ruv_session_logits(s));
		assert_ok(ruv_session_decode(s, w.ids[77], &err), err);
		expect_at(&w, s, 78);
		ruv_session_free(s);
		way_close(&w);
	}

	/* refusals leave the session as it was */
	struct way w;
	way_open(&w, "lfm2", 32);
	ruv_session *small = fixture_session(w.model, 100, RUV_KV_F32), *f16 = fixture_session(w.model, 200, RUV_KV_F16);
	ruv_model *other = fixture_model("qwen2.gguf", 32);
	ruv_session *foreign = fixture_session(other, 200, RUV_KV_F32);
	assert_ok(ruv_session_prefill(small, w.ids, 9, NULL, &err), err);
	assert_ok(ruv_session_save(w.session, path, &err), err);
	assert_int_equal(ruv_session_restore(small, path, &err), RUV_ECONTEXT);
	assert_non_null(strstr(err.message, "150"));
	assert_non_null(strstr(err.message, "100"));
	assert_int_equal(ruv_session_restore(f16, path, &err), RUV_EMISMATCH);
	assert_int_equal(ruv_session_restore(foreign, path, &err), RUV_EMISMATCH);
	FILE *f = fopen(path, "rb");
	fseek(f, 0, SEEK_END);
	long size = ftell(f);
	fclose(f);
	for (long at = 9; at < size; at += size / 23) {
		flip_byte(path, at);
		int rc = ruv_session_restore(small, path, &err);
		assert_true(rc == RUV_ECORRUPT || rc == RUV_EMISMATCH);
		flip_byte(path, at);
	}
	flip_byte(path, 0);
	assert_int_equal(ruv_session_restore(small, path, &err), RUV_EFORMAT);
	flip_byte(path, 0);
	assert_int_equal(truncate(path, size - 5), 0);
	assert_int_equal(ruv_session_restore(small, path, &err), RUV_ECORRUPT);
	unlink(path);
	assert_int_equal(ruv_session_restore(small, path, &err), RUV_ENOTFOUND);
	expect_at(&w, small, 9);
	ruv_session_free(foreign);
	ruv_model_free(other);
	ruv_session_free(small);
	ruv_session_free(f16);
	way_close(&w);
}

static void test_kv_types(void **state)
{
	(void)state;
	int n_q8 = 0;
	ruv_error err = {0};
	for (int m = 0; m < N_MODELS; m++) {
		struct way w;
		way_open(&w, causal_models[m], 64);
		ruv_session *f16 = fixture_session(w.model, 200, RUV_KV_F16), *q8 = NULL;
		assert_ok(ruv_session_prefill(f16, w.ids, w.n, NULL, &err), err);
		assert_close(ruv_session_logits(f16), w.all + (size_t)(w.n - 1) * (size_t)w.n_vocab, w.n_vocab, 5e-3);
		int rc = ruv_session_open(&q8, w.model, &(ruv_session_options){.n_ctx = 200, .kv_type = RUV_KV_Q8_0}, &err);
		assert_int_equal(rc, w.model->hp.head_dim % 32 ? RUV_EUNSUPPORTED : RUV_OK);
		if (rc == RUV_OK) {
			assert_ok(ruv_session_prefill(q8, w.ids, w.n, NULL, &err), err);
			assert_close(ruv_session_logits(q8), w.all + (size_t)(w.n - 1) * (size_t)w.n_vocab, w.n_vocab, 5e-2);
			n_q8++;
		}
		ruv_session_free(q8);
		ruv_session_free(f16);
		way_close(&w);
	}
	assert_int_equal(n_q8, 1);
}

static void test_refusals(void **state)
{
	(void)state;
	ruv_error err = {0};
	ruv_model *model = fixture_model("lfm2.gguf", 64), *encoder = fixture_model("lfm2-encoder.gguf", 64);
	ruv_session *s = NULL;
	assert_int_equal(ruv_session_open(&s, encoder, NULL, &err), RUV_EUNSUPPORTED);
	assert_int_equal(ruv_session_open(&s, model, &(ruv_session_options){.n_ctx = 513}, &err), RUV_EINVAL);
	assert_non_null(strstr(err.message, "513"));
	assert_non_null(strstr(err.message, "512"));
	assert_ok(ruv_session_open(&s, model, &(ruv_session_options){.n_ctx = 513, .allow_longer = true}, &err), err);
	ruv_session_free(s);
	assert_int_equal(ruv_session_open(&s, model, &(ruv_session_options){.n_ctx = -4}, &err), RUV_EINVAL);
	assert_ok(ruv_session_open(&s, model, NULL, &err), err);
	assert_int_equal(ruv_session_n_ctx(s), 512);
	ruv_token ids[513];
	for (int i = 0; i < 513; i++)
		ids[i] = 20;
	assert_int_equal(ruv_session_prefill(s, ids, 513, NULL, &err), RUV_ECONTEXT);
	assert_non_null(strstr(err.message, "513"));
	assert_non_null(strstr(err.message, "512"));
	assert_int_equal(ruv_session_prefill(s, ids, 0, NULL, &err), RUV_EINVAL);
	ids[3] = 300;
	assert_int_equal(ruv_session_prefill(s, ids, 10, NULL, &err), RUV_EINVAL);
	ids[3] = -1;
	assert_int_equal(ruv_session_prefill(s, ids, 10, NULL, &err), RUV_EINVAL);
	assert_int_equal(ruv_session_position(s), 0);
	ruv_cancel cancel = {0};
	ruv_cancel_set(&cancel);
	ids[3] = 4;
	assert_int_equal(ruv_session_prefill(s, ids, 10, &cancel, &err), RUV_ECANCELLED);
	ruv_cancel_clear(&cancel);
	assert_ok(ruv_session_prefill(s, ids, 512, &cancel, &err), err);
	assert_int_equal(ruv_session_decode(s, 9, &err), RUV_ECONTEXT);
	ruv_model_free(model); /* the session keeps it */
	assert_ok(ruv_session_truncate(s, 3, &err), err);
	assert_ok(ruv_session_decode(s, 9, &err), err);
	ruv_session_free(s);
	ruv_model_free(encoder);
}

int main(int argc, char **argv)
{
	if (argc >= 3) {
		struct outcome o;
		double tolerance = argc > 3 ? atof(argv[3]) : 1e-3;
		compare(argv[1], argv[2], &o);
		printf("%s: %d positions, %d hidden states within %.2e, logits within %.2e (rms %.2e), the same most likely token "
		       "at %d\n",
		       argv[1], o.n, o.n_hidden, o.hidden, o.logits, o.logits_rms, o.n_same);
		return !(o.hidden < tolerance && o.logits < tolerance && (argc > 3 || o.n_same == o.n));
	}
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_references), cmocka_unit_test(test_chunks),     cmocka_unit_test(test_truncate),
	    cmocka_unit_test(test_fork),       cmocka_unit_test(test_pool_limit), cmocka_unit_test(test_save_restore),
	    cmocka_unit_test(test_kv_types),   cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
