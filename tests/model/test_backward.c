/* test_backward.c - gradients of LoRA matrices against PyTorch (make_gradients.py) and against finite differences; what a batch,
 * a call without gradients and the layers left out change; refusals. */
#include "base/rng.h"
#include "fixture.h"
#include "model/backward.h"

enum { MAX_PARAMS = 64 };

struct set {
	ruv_lora_param params[MAX_PARAMS];
	int n;
};

static void set_release(struct set *set)
{
	for (int i = 0; i < set->n; i++) {
		free(set->params[i].a);
		free(set->params[i].b);
		free(set->params[i].grad_a);
		free(set->params[i].grad_b);
	}
	set->n = 0;
}

static void set_clear(struct set *set)
{
	for (int i = 0; i < set->n; i++) {
		ruv_lora_param *p = &set->params[i];
		memset(p->grad_a, 0, (size_t)(p->rank * p->n_in) * sizeof(float));
		memset(p->grad_b, 0, (size_t)(p->rank * p->n_out) * sizeof(float));
	}
}

static ruv_lora_param *set_add(struct set *set, const ruv_model *model, int layer, int slot, int rank)
{
	ruv_lora_param *p = &set->params[set->n];
	*p = (ruv_lora_param){.layer = layer, .slot = (ruv_adapter_slot)slot, .rank = rank};
	if (ruv_lora_shape(model, layer, p->slot, &p->n_in, &p->n_out, NULL))
		return NULL;
	p->a = calloc((size_t)(rank * p->n_in), sizeof(float));
	p->b = calloc((size_t)(rank * p->n_out), sizeof(float));
	p->grad_a = calloc((size_t)(rank * p->n_in), sizeof(float));
	p->grad_b = calloc((size_t)(rank * p->n_out), sizeof(float));
	set->n++;
	return p;
}

static ruv_backward *open_backward(ruv_model *model)
{
	ruv_error err = {0};
	ruv_backward *b = NULL;
	assert_ok(ruv_backward_open(&b, model, &err), err);
	return b;
}

static const void *named(const ruv_gguf *ref, const char *kind, int i, int64_t *n)
{
	char name[48];
	snprintf(name, sizeof name, "%s.%d", kind, i);
	return ref_data(ref, name, n);
}

static void against_torch(const char *name)
{
	ruv_error err = {0};
	ruv_gguf *ref = NULL;
	char file[64];
	snprintf(file, sizeof file, "%s.grad.gguf", name);
	assert_ok(ruv_gguf_open(&ref, fixture_path(file), 0, &err), err);
	snprintf(file, sizeof file, "%s.gguf", name);
	ruv_model *model = fixture_model(file, 32);
	ruv_backward *b = open_backward(model);
	struct set set = {0};
	int64_t n;
	for (int i = 0; named(ref, "where", i, &n); i++) {
		const int32_t *at = named(ref, "where", i, &n);
		int64_t n_a, n_b;
		const float *a = named(ref, "a", i, &n_a), *lb = named(ref, "b", i, &n_b);
		ruv_lora_param *p = set_add(&set, model, at[0], at[1], 3);
		assert_non_null(p);
		assert_int_equal(n_a, p->n_in * 3);
		assert_int_equal(n_b, p->n_out * 3);
		memcpy(p->a, a, (size_t)n_a * sizeof *a);
		memcpy(p->b, lb, (size_t)n_b * sizeof *lb);
	}
	assert_true(set.n > 10);
	ruv_train_seq seqs[2] = {0};
	for (int s = 0; s < 2; s++) {
		seqs[s].tokens = named(ref, "ids", s, &n);
		seqs[s].n = (int)n;
		seqs[s].weight = named(ref, "weight", s, &n);
	}
	for (int distill = 0; distill < 2; distill++) {
		const float *want_loss = ref_data(ref, distill ? "distill" : "loss", &n);
		double loss = 0, worst = 0;
		seqs[0].distill = seqs[1].distill = distill;
		set_clear(&set);
		assert_ok(ruv_backward_run(b, set.params, set.n, seqs, 2, true, &loss, &err), err);
		assert_true(fabs(loss - (double)*want_loss) < 1e-4 * (double)*want_loss);
		for (int i = 0; i < set.n; i++) {
			const ruv_lora_param *p = &set.params[i];
			const float *a = named(ref, distill ? "distill.grad_a" : "grad_a", i, &n);
			worst = fmax(worst, difference(p->grad_a, a, n));
			a = named(ref, distill ? "distill.grad_b" : "grad_b", i, &n);
			worst = fmax(worst, difference(p->grad_b, a, n));
		}
		print_message("%s%s: %d matrices, largest relative difference to PyTorch %.2g\n", name,
		              distill ? ", divergence" : "", set.n, worst);
		assert_true(worst < 1e-3);
	}
	set_release(&set);
	ruv_backward_free(b);
	ruv_model_free(model);
	ruv_gguf_free(ref);
}

static void test_torch(void **state)
{
	(void)state;
	against_torch("lfm2");
	against_torch("qwen2");
}

static void fill(struct set *set, ruv_rng *rng, double size)
{
	for (int i = 0; i < set->n; i++) {
		ruv_lora_param *p = &set->params[i];
		for (int64_t k = 0; k < p->rank * p->n_in; k++)
			p->a[k] = (float)(size * ruv_rng_normal(rng));
		for (int64_t k = 0; k < p->rank * p->n_out; k++)
			p->b[k] = (float)(size * ruv_rng_normal(rng));
	}
}

static void move(struct set *set, float *const *direction, float step)
{
	for (int i = 0; i < set->n; i++) {
		ruv_lora_param *p = &set->params[i];
		for (int64_t k = 0; k < p->rank * p->n_in; k++)
			p->a[k] += step * direction[2 * i][k];
		for (int64_t k = 0; k < p->rank * p->n_out; k++)
			p->b[k] += step * direction[2 * i + 1][k];
	}
}

/* The slope along one matrix at a time, and along all of them, from two losses. */
static void test_finite_differences(void **state)
{
	static const char *const files[] = {"lfm2.gguf", "qwen2.gguf", "qwen2-yarn.gguf", "qwen3.gguf", "llama.gguf"};
	(void)state;
	for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
		ruv_error err = {0};
		ruv_rng rng;
		ruv_model *model = fixture_model(files[f], 32);
		ruv_backward *b = open_backward(model);
		struct set set = {0};
		ruv_rng_init(&rng, 11);
		for (int layer = 0; layer < model->hp.n_layers; layer++)
			for (int slot = 0; slot < RUV_SLOT_N && set.n < MAX_PARAMS; slot++)
				set_add(&set, model, layer, slot, 2);
		fill(&set, &rng, 0.1);
		enum { N = 40 };
		ruv_token ids[N];
		float weight[N];
		for (int i = 0; i < N; i++) {
			ids[i] = 10 + (int)ruv_rng_below(&rng, 260);
			weight[i] = i % 3 ? 0.0f : 0.25f;
		}
		ruv_train_seq seq = {.tokens = ids, .n = N, .weight = weight};
		double loss = 0;
		assert_ok(ruv_backward_run(b, set.params, set.n, &seq, 1, true, &loss, &err), err);
		float *direction[2 * MAX_PARAMS];
		double worst = 0;
		for (int only = -1; only < set.n; only += 3) {
			double slope = 0, length = 0, up = 0, down = 0;
			for (int i = 0; i < set.n; i++) {
				const ruv_lora_param *p = &set.params[i];
				for (int half = 0; half < 2; half++) {
					const int64_t n = p->rank * (half ? p->n_out : p->n_in);
					const float *grad = half ? p->grad_b : p->grad_a;
					float *d = calloc((size_t)n, sizeof *d);
					for (int64_t k = 0; k < n && (only < 0 || only == i); k++) {
						d[k] = (grad[k] > 0 ? 1.0f : -1.0f) + 0.3f * (float)ruv_rng_normal(&rng);
						slope += (double)grad[k] * d[k];
						length += (double)d[k] * d[k];
					}
					direction[2 * i + half] = d;
				}
			}
			const float step = (float)(0.02 / sqrt(length));
			struct set probe = set;
			move(&probe, direction, step);
			assert_ok(ruv_backward_run(b, set.params, set.n, &seq, 1, false, &up, &err), err);
			move(&probe, direction, -2 * step);
			assert_ok(ruv_backward_run(b, set.params, set.n, &seq, 1, false, &down, &err), err);
			move(&probe, direction, step);
			const double measured = (up - down) / (2 * (double)step);
			worst = fmax(worst, fabs(measured - slope) / fmax(fabs(slope), 1e-3));
			for (int i = 0; i < 2 * set.n; i++)
				free(direction[i]);
		}
		print_message("%s: slopes of %d matrices agree with differences to %.2g\n", files[f], set.n, worst);
		assert_true(worst < 2e-3);
		set_release(&set);
		ruv_backward_free(b);
		ruv_model_free(model);
	}
}

/* A batch is the sum of its sequences; gradients add up; layers below the lowest adapted one do not matter. */
static void test_batches(void **state)
{
	ruv_error err = {0};
	ruv_rng rng;
	ruv_model *model = fixture_model("lfm2.gguf", 32);
	ruv_backward *b = open_backward(model);
	struct set one = {0}, all = {0};
	(void)state;
	for (int layer = 2; layer < 5; layer += 2) { /* the lowest has its feed-forward part alone */
		assert_non_null(set_add(&one, model, layer, RUV_SLOT_FFN_DOWN, 4));
		assert_non_null(set_add(&all, model, layer, RUV_SLOT_FFN_DOWN, 4));
	}
	ruv_rng_init(&rng, 3);
	fill(&one, &rng, 0.1);
	ruv_rng_init(&rng, 3);
	fill(&all, &rng, 0.1);
	static const int lengths[] = {5, 130, 64, 2};
	ruv_train_seq seqs[4] = {0};
	ruv_token ids[4][130];
	float weight[4][130];
	double sum = 0, loss = 0;
	for (int s = 0; s < 4; s++) {
		for (int i = 0; i < 130; i++) {
			ids[s][i] = 10 + (int)ruv_rng_below(&rng, 260);
			weight[s][i] = i == lengths[s] - 1 || i % 5 == 2 ? 1.0f : 0.0f;
		}
		seqs[s] = (ruv_train_seq){.tokens = ids[s], .n = lengths[s], .weight = weight[s]};
		assert_ok(ruv_backward_run(b, one.params, one.n, &seqs[s], 1, true, &loss, &err), err);
		sum += loss;
	}
	const double nll = seqs[1].nll;
	assert_int_equal(seqs[3].n_targets, 1);
	assert_ok(ruv_backward_run(b, all.params, all.n, seqs, 4, true, &loss, &err), err);
	assert_true(fabs(loss - sum) < 1e-5 * sum);
	assert_true(fabs(seqs[1].nll - nll) < 1e-5 * nll);
	for (int i = 0; i < one.n; i++) {
		assert_close(all.params[i].grad_a, one.params[i].grad_a, 4 * one.params[i].n_in, 1e-5);
		assert_close(all.params[i].grad_b, one.params[i].grad_b, 4 * one.params[i].n_out, 1e-5);
	}
	/* without an adapter the loss is the session's own */
	ruv_session *session = fixture_session(model, 256, RUV_KV_F32);
	float *logits = malloc(130 * (size_t)model->hp.n_vocab * sizeof *logits);
	assert_ok(ruv_session_score(session, ids[1], 130, logits, NULL, &err), err);
	double want = 0;
	for (int i = 1; i < 130; i++)
		if (weight[1][i] > 0) {
			const float *row = logits + (size_t)(i - 1) * (size_t)model->hp.n_vocab;
			double total = 0;
			for (int k = 0; k < model->hp.n_vocab; k++)
				total += exp((double)row[k] - (double)row[ids[1][i]]);
			want += log(total);
		}
	assert_ok(ruv_backward_run(b, NULL, 0, &seqs[1], 1, true, &loss, &err), err);
	assert_true(fabs(loss - want) < 1e-4 * want);
	/* a model does not diverge from itself */
	seqs[1].distill = true;
	assert_ok(ruv_backward_run(b, NULL, 0, &seqs[1], 1, false, &loss, &err), err);
	assert_true(fabs(loss) < 1e-5);
	free(logits);
	ruv_session_free(session);
	set_release(&one);
	set_release(&all);
	ruv_backward_free(b);
	ruv_model_free(model);
}

/* A few steps down the gradient through quantized weights make what was trained likelier. */
static void test_descends_quantized(void **state)
{
	ruv_error err = {0};
	ruv_rng rng;
	ruv_model *model = NULL;
	struct set set = {0};
	(void)state;
	if (ruv_model_open(&model, RUV_SOURCE_DIR "/models/ruvllm-nano-s.gguf", &(ruv_model_options){.n_threads = 2}, &err)) {
		print_message("the bundled model is not there: %s\n", err.message);
		skip();
	}
	ruv_backward *b = open_backward(model);
	ruv_token_list list = {0};
	const char *text = "The spare key hangs behind the blue door of the boiler room.";
	assert_ok(ruv_model_tokenize(model, text, strlen(text), RUV_TOKENIZE_BOS, &list, &err), err);
	float *weight = calloc((size_t)list.n, sizeof *weight);
	for (int i = 1; i < list.n; i++)
		weight[i] = 1.0f / (float)(list.n - 1);
	for (int layer = 3; layer < model->hp.n_layers; layer++)
		assert_non_null(set_add(&set, model, layer, RUV_SLOT_FFN_DOWN, 2));
	ruv_rng_init(&rng, 5);
	fill(&set, &rng, 0.05);
	for (int i = 0; i < set.n; i++)
		memset(set.params[i].b, 0, (size_t)(2 * set.params[i].n_out) * sizeof(float));
	ruv_train_seq seq = {.tokens = list.ids, .n = list.n, .weight = weight};
	double first = 0, last = 0;
	for (int step = 0; step < 20; step++) {
		set_clear(&set);
		assert_ok(ruv_backward_run(b, set.params, set.n, &seq, 1, true, &last, &err), err);
		first = step == 0 ? last : first;
		double square = 0;
		for (int i = 0; i < set.n; i++) {
			for (int64_t k = 0; k < 2 * set.params[i].n_in; k++)
				square += (double)set.params[i].grad_a[k] * set.params[i].grad_a[k];
			for (int64_t k = 0; k < 2 * set.params[i].n_out; k++)
				square += (double)set.params[i].grad_b[k] * set.params[i].grad_b[k];
		}
		const float rate = (float)(0.1 / sqrt(square));
		for (int i = 0; i < set.n; i++) {
			for (int64_t k = 0; k < 2 * set.params[i].n_in; k++)
				set.params[i].a[k] -= rate * set.params[i].grad_a[k];
			for (int64_t k = 0; k < 2 * set.params[i].n_out; k++)
				set.params[i].b[k] -= rate * set.params[i].grad_b[k];
		}
	}
	print_message("quantized: %.3f nats a token before, %.3f after 20 steps\n", first, last);
	assert_true(last < 0.8 * first);
	free(weight);
	ruv_token_list_release(&list);
	set_release(&set);
	ruv_backward_free(b);
	ruv_model_free(model);
}

static void test_refusals(void **state)
{
	ruv_error err = {0};
	ruv_model *encoder = fixture_model("lfm2-encoder.gguf", 32), *model = fixture_model("lfm2.gguf", 32);
	ruv_backward *b = NULL;
	int64_t n_in, n_out;
	(void)state;
	assert_int_equal(ruv_backward_open(&b, encoder, &err), RUV_EUNSUPPORTED);
	assert_null(b);
	b = open_backward(model);
	assert_int_equal(ruv_lora_shape(model, 0, RUV_SLOT_Q, &n_in, &n_out, &err), RUV_ENOTFOUND); /* a convolution */
	assert_int_equal(ruv_lora_shape(model, 9, RUV_SLOT_Q, &n_in, &n_out, &err), RUV_ENOTFOUND);
	ruv_token ids[3] = {1, 2, 3};
	float none[3] = {1, 0, 0}, last[3] = {0, 0, 1};
	ruv_train_seq seq = {.tokens = ids, .n = 3, .weight = none};
	assert_int_equal(ruv_backward_run(b, NULL, 0, &seq, 1, false, NULL, &err), RUV_EINVAL);
	seq.weight = last;
	ids[1] = 300;
	assert_int_equal(ruv_backward_run(b, NULL, 0, &seq, 1, false, NULL, &err), RUV_EINVAL);
	ids[1] = 2;
	assert_int_equal(ruv_backward_run(b, NULL, 0, &seq, 0, false, NULL, &err), RUV_ELIMIT);
	float zero[64] = {0};
	ruv_lora_param wrong = {.layer = 1, .slot = RUV_SLOT_Q, .rank = 1, .n_in = 31, .n_out = 32, .a = zero, .b = zero};
	assert_int_equal(ruv_backward_run(b, &wrong, 1, &seq, 1, false, NULL, &err), RUV_EINVAL);
	assert_ok(ruv_backward_run(b, NULL, 0, &seq, 1, false, NULL, &err), err);
	ruv_backward_free(b);
	ruv_model_free(encoder);
	ruv_model_free(model);
}

/* Texts drawn from the model follow its own distribution: their mean surprise is its entropy, which a pass over them shows. */
static void test_samples(void **state)
{
	enum { N = 40, LENGTH = 70 };
	ruv_error err = {0};
	ruv_model *model = NULL;
	ruv_backward *b = NULL;
	ruv_token first[N], ids[N * LENGTH], again[N * LENGTH], off[2] = {1, 1 << 30};
	float weight[LENGTH];
	double surprise = 0, ignored = 0;
	(void)state;
	assert_ok(ruv_model_open(&model, RUV_TEST_DATA "/model/lfm2.gguf", &(ruv_model_options){.n_threads = 1}, &err), err);
	assert_ok(ruv_backward_open(&b, model, &err), err);
	for (int i = 0; i < N; i++)
		first[i] = i % model->hp.n_vocab;
	for (int i = 0; i < LENGTH; i++)
		weight[i] = i > 0;
	assert_ok(ruv_backward_sample(model, first, N, LENGTH, 3, ids, &err), err);
	assert_ok(ruv_backward_sample(model, first, N, LENGTH, 3, again, &err), err);
	assert_memory_equal(ids, again, sizeof ids);
	assert_ok(ruv_backward_sample(model, first, N, LENGTH, 4, again, &err), err);
	assert_memory_not_equal(ids, again, sizeof ids);
	for (int i = 0; i < N; i++) {
		ruv_train_seq own = {.tokens = ids + i * LENGTH, .n = LENGTH, .weight = weight};
		assert_int_equal(ids[i * LENGTH], first[i]);
		assert_ok(ruv_backward_run(b, NULL, 0, &own, 1, false, NULL, &err), err);
		surprise += own.nll / (N * (LENGTH - 1));
		/* the same text shifted by some tokens of the vocabulary is none of the model's */
		for (int k = 1; k < LENGTH; k++)
			again[k] = (ids[i * LENGTH + k] + 7) % model->hp.n_vocab;
		again[0] = first[i];
		ruv_train_seq other = {.tokens = again, .n = LENGTH, .weight = weight};
		assert_ok(ruv_backward_run(b, NULL, 0, &other, 1, false, NULL, &err), err);
		ignored += other.nll / (N * (LENGTH - 1));
	}
	print_message("own texts %.3f nats a token, others %.3f, uniform %.3f\n", surprise, ignored, log(model->hp.n_vocab));
	assert_true(surprise < log(model->hp.n_vocab) + 0.02 && surprise < 0.9 * ignored);
	assert_int_equal(ruv_backward_sample(model, off, 2, 8, 1, again, &err), RUV_EINVAL);
	assert_int_equal(ruv_backward_sample(model, first, 0, 8, 1, again, &err), RUV_ELIMIT);
	ruv_backward_free(b);
	ruv_model_free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_torch),    cmocka_unit_test(test_finite_differences),
	                                   cmocka_unit_test(test_batches),  cmocka_unit_test(test_descends_quantized),
	                                   cmocka_unit_test(test_refusals), cmocka_unit_test(test_samples)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
