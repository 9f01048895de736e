/* test_quantize.c - which type every tensor gets, importance matrices, and that an interrupted run leaves nothing. */
#include "test.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "format/gguf_write.h"
#include "format/quantize.h"
#include "tensor/quant.h"
#include "tiny_hf.h"

static ruv_dtype type_of(ruv_recipe recipe, int n_layers, int n_attention, bool tied, const char *name, int64_t ne0, int64_t ne1,
                         int i_attention)
{
	const ruv_recipe_model model = {.n_layers = n_layers, .n_attention = n_attention, .tied = tied};
	return ruv_recipe_dtype(recipe, &model, name, ne1 > 1 ? 2 : 1, (int64_t[]){ne0, ne1, 1, 1}, i_attention, false, NULL);
}

static ruv_dtype layer_type(ruv_recipe recipe, int n_layers, int n_attention, int layer, const char *rest, int64_t ne0,
                            int i_attention)
{
	char name[64];
	snprintf(name, sizeof name, "blk.%d.%s", layer, rest);
	return type_of(recipe, n_layers, n_attention, true, name, ne0, 512, i_attention);
}

/* Does exactly the set of layers (ended by -1) get `more`? */
static void layers_with(ruv_recipe recipe, int n_layers, const char *rest, int64_t ne0, ruv_dtype usual, ruv_dtype more,
                        const int *set)
{
	for (int i = 0; i < n_layers; i++) {
		bool in = false;
		for (const int *p = set; *p >= 0; p++)
			in |= *p == i;
		ruv_dtype t = layer_type(recipe, n_layers, n_layers, i, rest, ne0, i);
		if (t != (in ? more : usual))
			fail_msg("%s of layer %d is %s", rest, i, ruv_dtype_name(t));
	}
}

static void k_recipes_promote_the_layers_of_the_rule(void **state)
{
	static const int ffn_down_16[] = {0, 1, 4, 7, 10, 13, 14, 15, -1};
	(void)state;

	layers_with(RUV_RECIPE_Q4_K_M, 16, "ffn_down.weight", 4608, RUV_Q4_K, RUV_Q6_K, ffn_down_16);
	layers_with(RUV_RECIPE_Q5_K_M, 16, "ffn_down.weight", 4608, RUV_Q5_K, RUV_Q6_K, ffn_down_16);
	layers_with(RUV_RECIPE_MIXED, 16, "ffn_down.weight", 4608, RUV_Q4_K, RUV_Q6_K, ffn_down_16);
	/* LFM2's six attention layers: attn_v is counted among them. Layers 8 and 14 are numbers 2 and 5. */
	for (int i = 0; i < 6; i++)
		assert_int_equal(layer_type(RUV_RECIPE_Q4_K_M, 16, 6, 2 + 2 * i, "attn_v.weight", 1024, i),
		                 i == 2 || i == 5 ? RUV_Q6_K : RUV_Q4_K);
	/* Everything else keeps the recipe's type. */
	static const char *const plain[] = {"attn_q.weight",
	                                    "attn_k.weight",
	                                    "attn_output.weight",
	                                    "ffn_up.weight",
	                                    "ffn_gate.weight",
	                                    "shortconv.in_proj.weight",
	                                    "shortconv.out_proj.weight"};
	for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
		assert_int_equal(layer_type(RUV_RECIPE_Q4_K_M, 16, 6, 0, plain[i], 1024, 0), RUV_Q4_K);
		assert_int_equal(layer_type(RUV_RECIPE_Q5_K_M, 16, 6, 0, plain[i], 1024, 0), RUV_Q5_K);
		assert_int_equal(layer_type(RUV_RECIPE_Q6_K, 16, 6, 0, plain[i], 1024, 0), RUV_Q6_K);
		assert_int_equal(layer_type(RUV_RECIPE_Q8_0, 16, 6, 0, plain[i], 1024, 0), RUV_Q8_0);
		assert_int_equal(layer_type(RUV_RECIPE_MIXED, 16, 6, 0, plain[i], 1024, 0),
		                 strncmp(plain[i], "ffn_", 4) ? RUV_F16 : RUV_Q4_K);
	}
}

static void heads_vectors_and_taps(void **state)
{
	(void)state;
	for (int r = 0; r < RUV_RECIPE_N; r++) {
		bool plain = r == RUV_RECIPE_F32 || r == RUV_RECIPE_F16 || r == RUV_RECIPE_BF16;
		ruv_dtype head = r == RUV_RECIPE_Q8_0 ? RUV_Q8_0 : RUV_Q6_K;
		ruv_dtype usual = type_of((ruv_recipe)r, 16, 6, false, "token_embd.weight", 1024, 65536, 0);
		if (!plain) {
			assert_int_equal(type_of((ruv_recipe)r, 16, 6, true, "token_embd.weight", 1024, 65536, 0), head);
			assert_int_equal(type_of((ruv_recipe)r, 16, 6, false, "output.weight", 1024, 65536, 0), head);
		} else {
			assert_int_equal(type_of((ruv_recipe)r, 16, 6, false, "output.weight", 1024, 65536, 0), usual);
		}
		if (r == RUV_RECIPE_Q4_K_M)
			assert_int_equal(usual, RUV_Q4_K); /* an embedding with a head of its own is nothing special */
		assert_int_equal(type_of((ruv_recipe)r, 16, 6, true, "blk.0.attn_norm.weight", 1024, 1, 0), RUV_F32);
		assert_int_equal(type_of((ruv_recipe)r, 16, 6, true, "blk.0.attn_q.bias", 1024, 1, 0), RUV_F32);
		assert_int_equal(type_of((ruv_recipe)r, 16, 6, true, "blk.0.shortconv.conv.weight", 3, 1024, 0), RUV_F32);
		assert_int_equal(type_of((ruv_recipe)r, 16, 6, true, "embedding_layer_norm.weight", 384, 1, 0), RUV_F32);
		assert_int_equal(ruv_recipe_parse(ruv_recipe_name((ruv_recipe)r)), r);
	}
	assert_int_equal(ruv_recipe_parse("q4_k_m"), RUV_RECIPE_Q4_K_M);
	assert_int_equal(ruv_recipe_parse("Q3_K"), -1);
}

static void rows_of_other_lengths_fall_back(void **state)
{
	const ruv_recipe_model model = {.n_layers = 24, .n_attention = 24, .tied = true};
	bool fallback = false;
	(void)state;

	/* Qwen2.5-0.5B: rows of 896. */
	assert_int_equal(layer_type(RUV_RECIPE_Q4_K_M, 24, 24, 5, "attn_q.weight", 896, 5), RUV_Q5_0);
	assert_int_equal(layer_type(RUV_RECIPE_Q4_K_M, 24, 24, 0, "attn_v.weight", 896, 0), RUV_Q8_0);
	assert_int_equal(layer_type(RUV_RECIPE_Q5_K_M, 24, 24, 5, "ffn_up.weight", 896, 5), RUV_Q5_1);
	assert_int_equal(layer_type(RUV_RECIPE_Q4_K_M, 24, 24, 3, "ffn_down.weight", 4864, 3), RUV_Q4_K);
	assert_int_equal(type_of(RUV_RECIPE_Q4_K_M, 24, 24, true, "token_embd.weight", 896, 151936, 0), RUV_Q8_0);
	assert_int_equal(layer_type(RUV_RECIPE_Q8_0, 24, 24, 5, "attn_q.weight", 896, 5), RUV_Q8_0);
	assert_int_equal(layer_type(RUV_RECIPE_Q8_0, 24, 24, 5, "attn_q.weight", 40, 5), RUV_F16);
	assert_int_equal(layer_type(RUV_RECIPE_Q4_K_M, 24, 24, 5, "attn_q.weight", 40, 5), RUV_F16);
	ruv_recipe_dtype(RUV_RECIPE_Q4_K_M, &model, "blk.5.attn_q.weight", 2, (int64_t[]){896, 896, 1, 1}, 5, false, &fallback);
	assert_true(fallback);
	ruv_recipe_dtype(RUV_RECIPE_Q4_K_M, &model, "blk.5.ffn_down.weight", 2, (int64_t[]){4864, 896, 1, 1}, 5, false, &fallback);
	assert_false(fallback);
	/* With an importance matrix Q4_0 keeps more of the first ffn_down. */
	assert_int_equal(
	    ruv_recipe_dtype(RUV_RECIPE_Q4_0, &model, "blk.2.ffn_down.weight", 2, (int64_t[]){4864, 896, 1, 1}, 2, true, NULL),
	    RUV_Q4_1);
	assert_int_equal(
	    ruv_recipe_dtype(RUV_RECIPE_Q4_0, &model, "blk.3.ffn_down.weight", 2, (int64_t[]){4864, 896, 1, 1}, 3, true, NULL),
	    RUV_Q4_0);

	/* --embedding: the tied embedding alone, and never the encoder's projection */
	const ruv_recipe five = RUV_RECIPE_Q5_K_M;
	const ruv_recipe_model small = {.n_layers = 12, .n_attention = 6, .tied = true, .head = &five};
	assert_int_equal(
	    ruv_recipe_dtype(RUV_RECIPE_Q4_K_M, &small, "token_embd.weight", 2, (int64_t[]){512, 16384, 1, 1}, 0, false, NULL),
	    RUV_Q5_K);
	assert_int_equal(
	    ruv_recipe_dtype(RUV_RECIPE_Q4_K_M, &small, "embedding_proj.weight", 2, (int64_t[]){512, 384, 1, 1}, 0, false, NULL),
	    RUV_Q6_K);
	assert_int_equal(
	    ruv_recipe_dtype(RUV_RECIPE_Q4_K_M, &small, "blk.1.ffn_up.weight", 2, (int64_t[]){512, 1280, 1, 1}, 0, false, NULL),
	    RUV_Q4_K);
}

/* ---- whole files ---- */

static char base[128];

static const char *file(const char *name)
{
	static char paths[4][256];
	static int next;
	char *p = paths[next++ % 4];
	snprintf(p, 256, "%s/%s", base, name);
	return p;
}

static int make_base(void **state)
{
	tiny_hf hf;
	ruv_error err = {0};
	const ruv_write_options options = {.recipe = RUV_RECIPE_F32};
	(void)state;

	snprintf(base, sizeof base, "/tmp/ruv-quantize-XXXXXX");
	if (!mkdtemp(base))
		return -1;
	tiny_hf_init(&hf, "lfm2");
	tiny_hf_write(&hf);
	assert_ok(ruv_model_write(file("f32.gguf"), hf.dir, &options, NULL, &err), err);
	tiny_hf_release(&hf);
	return 0;
}

static int remove_base(void **state)
{
	char command[300];
	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", base);
	return system(command);
}

static int n_files(void)
{
	int n = 0;
	DIR *d = opendir(base);
	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void a_quantized_file_holds_what_the_kernels_make(void **state)
{
	static const ruv_recipe all[] = {RUV_RECIPE_F16,    RUV_RECIPE_BF16,   RUV_RECIPE_Q8_0, RUV_RECIPE_Q6_K,
	                                 RUV_RECIPE_Q5_K_M, RUV_RECIPE_Q4_K_M, RUV_RECIPE_Q4_0, RUV_RECIPE_MIXED};
	ruv_pool *pool;
	ruv_error err = {0};
	(void)state;

	assert_ok(ruv_pool_create(&pool, 3, &err), err);
	for (size_t r = 0; r < sizeof all / sizeof *all; r++) {
		const ruv_write_options one = {.recipe = all[r]}, many = {.recipe = all[r], .pool = pool};
		ruv_write_report report;
		ruv_gguf *from, *to;
		char *a, *b;
		size_t n_a, n_b;

		assert_ok(ruv_model_write(file("one.gguf"), file("f32.gguf"), &one, NULL, &err), err);
		assert_ok(ruv_model_write(file("many.gguf"), file("f32.gguf"), &many, &report, &err), err);
		assert_ok(ruv_file_read(&a, &n_a, file("one.gguf"), 1 << 26, &err), err);
		assert_ok(ruv_file_read(&b, &n_b, file("many.gguf"), 1 << 26, &err), err);
		assert_int_equal(n_a, n_b); /* the number of threads changes nothing */
		assert_memory_equal(a, b, n_a);
		free(a);
		free(b);

		assert_ok(ruv_gguf_open(&from, file("f32.gguf"), 0, &err), err);
		assert_ok(ruv_gguf_open(&to, file("many.gguf"), 0, &err), err);
		assert_int_equal(ruv_gguf_n_tensors(from), ruv_gguf_n_tensors(to));
		assert_int_equal(report.n_tensors, ruv_gguf_n_tensors(to));
		uint64_t total = 0;
		for (size_t i = 0; i < ruv_gguf_n_tensors(from); i++) {
			const ruv_gguf_tensor *x = ruv_gguf_tensor_at(from, i), *y = ruv_gguf_tensor_at(to, i);
			assert_string_equal(x->name, y->name);
			unsigned char *want = malloc(y->n_bytes);
			assert_int_equal(ruv_quantize_rows(want, (ruv_dtype)y->dtype, x->data, x->ne[1], x->ne[0], NULL), RUV_OK);
			assert_memory_equal(want, y->data, y->n_bytes);
			free(want);
			total += y->n_bytes;
		}
		assert_int_equal(report.bytes_out, total);
		ruv_gguf_str recipe;
		assert_ok(ruv_gguf_get_str(to, "ruvllm.recipe", &recipe, &err), err);
		assert_true(ruv_gguf_str_is(recipe, ruv_recipe_name(all[r])));
		/* Keys of the source stay. */
		assert_non_null(ruv_gguf_find_key(to, "tokenizer.ggml.tokens"));
		assert_int_equal(ruv_gguf_find_key(to, "general.quantization_version") != NULL,
		                 all[r] != RUV_RECIPE_F16 && all[r] != RUV_RECIPE_BF16);
		ruv_gguf_free(from);
		ruv_gguf_free(to);
	}
	ruv_pool_free(pool);
	unlink(file("one.gguf"));
	unlink(file("many.gguf"));
}

static void a_quantized_source_needs_to_be_allowed(void **state)
{
	ruv_write_options options = {.recipe = RUV_RECIPE_Q8_0};
	ruv_error err = {0};
	(void)state;

	assert_ok(ruv_model_write(file("q8.gguf"), file("f32.gguf"), &options, NULL, &err), err);
	options.recipe = RUV_RECIPE_Q4_K_M;
	assert_int_equal(ruv_model_write(file("q4.gguf"), file("q8.gguf"), &options, NULL, &err), RUV_EINVAL);
	assert_non_null(strstr(err.message, "quantized already (Q8_0)"));
	options.allow_requantize = true;
	assert_ok(ruv_model_write(file("q4.gguf"), file("q8.gguf"), &options, NULL, &err), err);
	assert_int_equal(ruv_model_write(file("q4.gguf"), file("q4.gguf"), &options, NULL, &err), RUV_EINVAL);
	assert_int_equal(ruv_model_write(file("x.gguf"), file("none.gguf"), &options, NULL, &err), RUV_ENOTFOUND);
	unlink(file("q8.gguf"));
	unlink(file("q4.gguf"));
}

static void values_that_do_not_fit_are_refused(void **state)
{
	ruv_gguf_writer *w;
	ruv_error err = {0};
	float row[256] = {0};
	(void)state;

	for (int i = 0; i < 2; i++) {
		const ruv_write_options options = {.recipe = i ? RUV_RECIPE_Q4_K_M : RUV_RECIPE_F16};
		row[77] = i ? __builtin_nanf("") : 70000;
		assert_ok(ruv_gguf_writer_create(&w, &err), err);
		ruv_gguf_set_str(w, "general.architecture", "lfm2");
		ruv_gguf_add_tensor(w, "blk.0.ffn_up.weight", RUV_F32, 2, (int64_t[]){256, 1});
		ruv_gguf_add_tensor(w, "blk.0.ffn_gate.weight", RUV_F32, 2, (int64_t[]){128, 2});
		assert_ok(ruv_gguf_writer_begin(w, file("odd.gguf"), &err), err);
		assert_ok(ruv_gguf_writer_data(w, row, sizeof row, &err), err);
		assert_ok(ruv_gguf_writer_data(w, row, sizeof row, &err), err);
		assert_ok(ruv_gguf_writer_finish(w, &err), err);
		ruv_gguf_writer_free(w);
		assert_int_not_equal(ruv_model_write(file("never.gguf"), file("odd.gguf"), &options, NULL, &err), RUV_OK);
		assert_non_null(strstr(err.message, "blk.0.ffn_"));
		assert_int_not_equal(access(file("never.gguf"), F_OK), 0);
	}
	unlink(file("odd.gguf"));
}

static void importance_matrices(void **state)
{
	float sum[2][96];
	ruv_imatrix_entry entries[] = {{"blk.0.ffn_down.weight", sum[0], 96, 10}, {"blk.1.attn_q.weight", sum[1], 64, 4}};
	ruv_write_options options = {.recipe = RUV_RECIPE_Q4_K_M};
	ruv_write_report report;
	ruv_imatrix *m;
	const float *means;
	ruv_error err = {0};
	char *a, *b;
	size_t n_a, n_b;
	(void)state;

	for (int i = 0; i < 96; i++)
		sum[0][i] = sum[1][i] = (float)((i + 1) * (i + 1));
	assert_ok(ruv_imatrix_write(file("m.gguf"), entries, 2, "text.txt", 5, 512, &err), err);
	assert_ok(ruv_imatrix_open(&m, file("m.gguf"), &err), err);
	assert_int_equal(ruv_imatrix_n_entries(m), 2);
	assert_ok(ruv_imatrix_find(m, "blk.0.ffn_down.weight", 96, &means, &err), err);
	assert_true(means[9] == 10);
	assert_ok(ruv_imatrix_find(m, "blk.9.ffn_down.weight", 96, &means, &err), err);
	assert_null(means);
	assert_int_equal(ruv_imatrix_find(m, "blk.0.ffn_down.weight", 95, &means, &err), RUV_EMISMATCH);

	assert_ok(ruv_model_write(file("plain.gguf"), file("f32.gguf"), &options, NULL, &err), err);
	options.imatrix = m;
	assert_ok(ruv_model_write(file("weighted.gguf"), file("f32.gguf"), &options, &report, &err), err);
	assert_int_equal(report.n_importance, 2);
	assert_ok(ruv_file_read(&a, &n_a, file("plain.gguf"), 1 << 26, &err), err);
	assert_ok(ruv_file_read(&b, &n_b, file("weighted.gguf"), 1 << 26, &err), err);
	assert_true(n_a != n_b || memcmp(a, b, n_a));
	free(a);
	free(b);
	ruv_imatrix_free(m);

	/* Of another model, of nothing, no matrix at all. */
	entries[0].n_in = 64;
	assert_ok(ruv_imatrix_write(file("m.gguf"), entries, 2, "text.txt", 5, 512, &err), err);
	assert_ok(ruv_imatrix_open(&m, file("m.gguf"), &err), err);
	options.imatrix = m;
	assert_int_equal(ruv_model_write(file("never.gguf"), file("f32.gguf"), &options, NULL, &err), RUV_EMISMATCH);
	assert_non_null(strstr(err.message, "blk.0.ffn_down.weight"));
	ruv_imatrix_free(m);
	entries[0].count = 0;
	assert_ok(ruv_imatrix_write(file("m.gguf"), entries, 2, "text.txt", 5, 512, &err), err);
	assert_int_equal(ruv_imatrix_open(&m, file("m.gguf"), &err), RUV_EFORMAT);
	assert_int_equal(ruv_imatrix_open(&m, file("f32.gguf"), &err), RUV_EFORMAT);
	assert_non_null(strstr(err.message, "no importance matrix"));
	unlink(file("m.gguf"));
	unlink(file("plain.gguf"));
	unlink(file("weighted.gguf"));
}

/* ---- interruptions ---- */

static int stop_halfway(void *user, uint64_t done, uint64_t total, const char *tensor, const char *type_name)
{
	(void)tensor, (void)type_name;
	if (done * 2 > total && user)
		raise(SIGKILL);
	return done * 2 > total;
}

static void an_interrupted_run_leaves_nothing(void **state)
{
	ruv_write_options options = {.recipe = RUV_RECIPE_Q8_0, .progress = stop_halfway};
	ruv_error err = {0};
	int before = n_files();
	(void)state;

	assert_int_equal(ruv_model_write(file("new.gguf"), file("f32.gguf"), &options, NULL, &err), RUV_ECANCELLED);
	assert_int_equal(n_files(), before);

	/* Killed, with an older file under the same name: that one stays as it was. */
	assert_ok(ruv_file_write(file("old.gguf"), "old", 3, &err), err);
	for (int i = 0; i < 2; i++) {
		const char *target = file(i ? "old.gguf" : "new.gguf");
		pid_t child = fork();
		assert_true(child >= 0);
		if (child == 0) {
			options.user = &options;
			ruv_model_write(target, file("f32.gguf"), &options, NULL, NULL);
			_exit(1); /* not reached */
		}
		int status;
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	assert_int_not_equal(access(file("new.gguf"), F_OK), 0);
	char *bytes;
	size_t n;
	assert_ok(ruv_file_read(&bytes, &n, file("old.gguf"), 100, &err), err);
	assert_string_equal(bytes, "old");
	free(bytes);
	unlink(file("old.gguf"));
	/* Where the file system has nameless files, not even a temporary one is there. */
	ruv_outfile probe;
	assert_ok(ruv_outfile_open_unnamed(&probe, file("probe"), &err), err);
	if (probe.unnamed)
		assert_int_equal(n_files(), before);
	ruv_outfile_release(&probe);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(k_recipes_promote_the_layers_of_the_rule),
	    cmocka_unit_test(heads_vectors_and_taps),
	    cmocka_unit_test(rows_of_other_lengths_fall_back),
	    cmocka_unit_test(a_quantized_file_holds_what_the_kernels_make),
	    cmocka_unit_test(a_quantized_source_needs_to_be_allowed),
	    cmocka_unit_test(values_that_do_not_fit_are_refused),
	    cmocka_unit_test(importance_matrices),
	    cmocka_unit_test(an_interrupted_run_leaves_nothing),
	};
	return cmocka_run_group_tests_name("quantize", tests, make_base, remove_base);
}
