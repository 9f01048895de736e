/* test_graph_train.c - graph attention learns what edges say where they say something, learns nothing from shuffled marks, and its
 * file is refused when a bit of it is wrong. */
#include "test.h"

#include <math.h>
#include <unistd.h>

#include "learn/graph_train.h"
#include "memory/memory_impl.h"

enum { N_SAMPLES = 120, N_NODES = 12, DIM = 8 };

/* Twelve nodes in the search's order. The evidence is the node that the first hit cites: one of the last eight, any of them, so
 * that nothing but the edge tells which. Two other nodes are about the same as the first. */
static void make_sample(ruv_graph_sample *s, ruv_rng *rng)
{
	ruv_error err = {0};
	ruv_graph_view *v = &s->view;
	const int gold = 4 + (int)ruv_rng_below(rng, N_NODES - 4);
	float *features, *base, *question;
	const float **rows;
	ruv_gat_edge *edges;
	int *hops, n = 0;

	memset(s, 0, sizeof *s);
	v->arena = ruv_memory_arena(&err);
	assert_non_null(v->arena);
	v->n = v->n_hits = N_NODES;
	s->gold = calloc(N_NODES, 1);
	s->gold[gold] = 1;
	s->n_gold = 1;
	features = ruv_arena_calloc(v->arena, N_NODES * RUV_GAT_FEATURES, sizeof *features);
	base = ruv_arena_calloc(v->arena, N_NODES, sizeof *base);
	question = ruv_arena_calloc(v->arena, DIM, sizeof *question);
	rows = ruv_arena_calloc(v->arena, N_NODES, sizeof *rows);
	hops = ruv_arena_calloc(v->arena, N_NODES, sizeof *hops);
	edges = ruv_arena_calloc(v->arena, 8, sizeof *edges);
	question[0] = 1;
	for (int i = 0; i < N_NODES; i++) {
		float *row = ruv_arena_calloc(v->arena, DIM, sizeof *row);
		row[ruv_rng_below(rng, DIM)] = 1;
		rows[i] = row;
		base[i] = 2 - 0.3F * (float)i;
		features[i * RUV_GAT_FEATURES] = 1;
		features[i * RUV_GAT_FEATURES + 1] = base[i];
		features[i * RUV_GAT_FEATURES + 2] = 1 / sqrtf((float)i + 1);
	}
	for (int e = 0; e < 3; e++) {
		const int other = e ? 4 + (int)ruv_rng_below(rng, N_NODES - 4) : gold;
		const int type = e ? RUV_EDGE_SAME_TOPIC : RUV_EDGE_CITES;
		if (e && other == gold)
			continue;
		edges[n++] = (ruv_gat_edge){0, other, type, 1, 1, 1};
		edges[n++] = (ruv_gat_edge){other, 0, type + RUV_N_EDGE_TYPES, 1, 1, 1};
	}
	v->graph = (ruv_gat_graph){.n = N_NODES,
	                           .n_edges = n,
	                           .question = question,
	                           .rows = rows,
	                           .features = features,
	                           .base = base,
	                           .hops = hops,
	                           .edges = edges};
}

static double quality(const ruv_graph_sample *samples, int n, const ruv_gat_model *model, uint64_t rewired)
{
	ruv_error err = {0};
	double sum = 0;

	for (int i = 0; i < n; i++) {
		ruv_graph_quality q;
		assert_ok(ruv_graph_measure(&q, &samples[i], model, rewired, &err), err);
		sum += q.mrr / n;
	}
	return sum;
}

static void learns_what_edges_say(void **state)
{
	static ruv_graph_sample samples[N_SAMPLES];
	const int n_train = 80, n_validation = 10;
	const ruv_graph_sample *test = samples + n_train + n_validation;
	const int n_test = N_SAMPLES - n_train - n_validation;
	ruv_graph_training training = {.projected = 4, .hidden = 16, .layers = 1, .n_epochs = 12, .rate = 0.01F, .seed = 7};
	ruv_gat_model model;
	ruv_error err = {0};
	float *params;
	double before, after;
	ruv_rng rng;

	(void)state;
	ruv_rng_init(&rng, 31);
	for (int i = 0; i < N_SAMPLES; i++)
		make_sample(&samples[i], &rng);
	before = quality(test, n_test, NULL, 0);
	assert_ok(ruv_graph_train(&params, &model.shape, DIM, samples, n_train, samples + n_train, n_validation, &training, &err),
	          err);
	model.params = params;
	after = quality(test, n_test, &model, 0);
	assert_true(before < 0.3);
	assert_true(after > 0.9);
	assert_true(quality(test, n_test, &model, 5) < after - 0.2); /* edges from elsewhere say nothing */
	free(params);
	/* Marks on random nodes: what is learned is not the edge. */
	training.shuffled = true;
	assert_ok(ruv_graph_train(&params, &model.shape, DIM, samples, n_train, NULL, 0, &training, &err), err);
	model.params = params;
	assert_true(quality(test, n_test, &model, 0) < 0.6);
	free(params);
	for (int i = 0; i < N_SAMPLES; i++)
		ruv_graph_sample_release(&samples[i]);
}

static void needs_something_to_learn_from(void **state)
{
	ruv_graph_sample sample;
	ruv_gat_shape shape;
	ruv_error err = {0};
	float *params;
	ruv_rng rng;

	(void)state;
	ruv_rng_init(&rng, 31);
	make_sample(&sample, &rng);
	sample.view.graph.n_edges = 0;
	assert_int_equal(ruv_graph_train(&params, &shape, DIM, &sample, 1, NULL, 0, NULL, &err), RUV_EINVAL);
	assert_null(params);
	ruv_graph_sample_release(&sample);
}

static void file_round_trip_and_damage(void **state)
{
	char path[] = "/tmp/ruv-graph-XXXXXX";
	ruv_graph_weights w = {.encoder = "an-encoder", .encoder_version = "7", .version = 3}, back;
	ruv_error err = {0};
	char *bytes;
	long size;
	ruv_rng rng;
	FILE *file;

	(void)state;
	assert_true(close(mkstemp(path)) == 0);
	ruv_rng_init(&rng, 3);
	w.model.shape = (ruv_gat_shape){.dim = DIM, .projected = 4, .hidden = 16, .heads = 4, .layers = 2, .prune = 0.05F};
	w.params = malloc(sizeof(float) * (size_t)ruv_gat_n_params(&w.model.shape));
	ruv_gat_init(w.params, &w.model.shape, &rng);
	w.gate = (ruv_graph_gate){.n = 9, .before = 0.5F, .after = 0.6F, .low = 0.01F, .high = 0.2F, .pass = true};
	assert_ok(ruv_graph_weights_save(&w, path, &err), err);
	assert_ok(ruv_graph_weights_load(&back, path, &err), err);
	assert_memory_equal(back.params, w.params, sizeof(float) * (size_t)ruv_gat_n_params(&w.model.shape));
	assert_int_equal(back.model.shape.hidden, 16);
	assert_string_equal(back.encoder, "an-encoder");
	assert_int_equal(back.version, 3);
	assert_true(back.gate.pass && back.gate.n == 9);
	ruv_graph_weights_release(&back);

	file = fopen(path, "rb");
	fseek(file, 0, SEEK_END);
	size = ftell(file);
	rewind(file);
	bytes = malloc((size_t)size);
	assert_int_equal(fread(bytes, 1, (size_t)size, file), size);
	fclose(file);
	for (int i = 0; i < 60; i++) { /* one bit turned, or cut off, anywhere */
		const long at = (long)ruv_rng_below(&rng, (uint64_t)size);
		file = fopen(path, "wb");
		bytes[at] ^= (char)(1 << i % 8);
		fwrite(bytes, 1, i % 2 ? (size_t)size : (size_t)at, file);
		fclose(file);
		bytes[at] ^= (char)(1 << i % 8);
		assert_true(ruv_graph_weights_load(&back, path, &err) < 0);
		assert_null(back.params);
	}
	/* Sound, but not numbers. */
	w.params[5] = NAN;
	assert_ok(ruv_graph_weights_save(&w, path, &err), err);
	assert_int_equal(ruv_graph_weights_load(&back, path, &err), RUV_ECORRUPT);
	w.params[5] = 0;
	w.model.shape.prune = -1;
	assert_ok(ruv_graph_weights_save(&w, path, &err), err);
	assert_int_equal(ruv_graph_weights_load(&back, path, &err), RUV_ECORRUPT);
	unlink(path);
	assert_int_equal(ruv_graph_weights_load(&back, path, &err), RUV_ENOTFOUND);
	free(bytes);
	ruv_graph_weights_release(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(learns_what_edges_say),
	    cmocka_unit_test(needs_something_to_learn_from),
	    cmocka_unit_test(file_round_trip_and_damage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
