/* test_graph_search.c - edges that texts imply, and search with a neighbourhood: what is gathered, what a scope hides, and that
 * without edges or with parameters that say nothing the search's own order comes out. */
#include "store_test.h"

#include <math.h>

#include "memory/graph_rank.h"
#include "memory/graph_weave.h"

enum { N_NODES = 40 };

/* Nodes 0..39, one direction each plus noise; the text of i names the title of i + 1 where i is even. */
static void fill(ruv_memory *m, char ids[N_NODES][RUV_ID_SIZE], const char *user_of_odd)
{
	ruv_error err = {0};
	ruv_rng rng;

	ruv_rng_init(&rng, 5);
	for (int i = 0; i < N_NODES; i++) {
		char text[160], title[40], source[40];
		float vector[TEST_DIM];
		ruv_memory_node node = {
		    .type = RUV_NODE_DOCUMENT, .text = text, .title = title, .source = source, .vector = vector};

		random_vector(vector, TEST_DIM, &rng);
		snprintf(title, sizeof title, "Harbour %c%c (town)", 'A' + i / 10, 'A' + i % 10);
		snprintf(source, sizeof source, "towns-%d.md", i / 4);
		if (i % 2 == 0)
			snprintf(text, sizeof text, "The quay of number %d lies opposite Harbour %c%c, across the water.", i,
			         'A' + (i + 1) / 10, 'A' + (i + 1) % 10);
		else
			snprintf(text, sizeof text, "Fishing boats land at number %d every morning.", i);
		node.first_line = 10 * i + 1;
		node.last_line = 10 * i + 9;
		if (i % 2 && user_of_odd)
			node.scope.user = user_of_odd;
		assert_ok(ruv_memory_add(m, &node, 1, &err), err);
		memcpy(ids[i], node.id, RUV_ID_SIZE);
	}
}

static void make_model(ruv_gat_model *model, float **params, uint64_t seed, float noise)
{
	ruv_rng rng;

	model->shape = (ruv_gat_shape){.dim = TEST_DIM, .projected = 4, .hidden = 16, .heads = 4, .layers = 2, .prune = 0.01F};
	*params = malloc(sizeof(float) * (size_t)ruv_gat_n_params(&model->shape));
	assert_non_null(*params);
	ruv_rng_init(&rng, seed);
	ruv_gat_init(*params, &model->shape, &rng);
	for (int i = 0; noise > 0 && i < ruv_gat_n_params(&model->shape); i++)
		(*params)[i] += noise * (float)ruv_rng_normal(&rng);
	model->params = *params;
}

static void same_hits(const ruv_memory_hits *a, const ruv_memory_hits *b)
{
	assert_int_equal(a->n, b->n);
	for (int i = 0; i < a->n; i++)
		assert_string_equal(a->items[i].node.id, b->items[i].node.id);
}

static void weaving_finds_the_edges(void **state)
{
	static char ids[N_NODES][RUV_ID_SIZE];
	ruv_memory *m = open_memory(*state);
	ruv_weave_options options = {.same_topic = 2, .dry = true};
	ruv_weave_report report, again;
	ruv_memory_graph around = {0};
	ruv_error err = {0};
	bool cites = false, follows = false;

	fill(m, ids, NULL);
	assert_ok(ruv_memory_weave(m, &report, &options, &err), err);
	assert_int_equal(report.n_nodes, N_NODES);
	assert_int_equal(report.n_added[RUV_EDGE_CITES], N_NODES / 2);
	assert_int_equal(report.n_added[RUV_EDGE_FOLLOWS], N_NODES * 3 / 4);
	options.dry = false;
	assert_ok(ruv_memory_weave(m, &again, &options, &err), err);
	assert_memory_equal(&again, &report, sizeof report); /* a dry run had written nothing */
	assert_ok(ruv_memory_weave(m, &again, &options, &err), err);
	for (int t = 0; t < RUV_N_EDGE_TYPES; t++)
		assert_int_equal(again.n_added[t], 0);
	assert_int_equal(again.n_there, N_NODES / 2 + N_NODES * 3 / 4);
	assert_ok(ruv_memory_neighbours(m, &around, ids[4], 1, 10, NULL, &err), err);
	for (int e = 0; e < around.n_edges; e++) {
		const ruv_memory_edge *edge = &around.edges[e];
		if (edge->type == RUV_EDGE_CITES && !strcmp(edge->src, ids[4])) {
			assert_string_equal(edge->dst, ids[5]);
			assert_string_equal(edge->created_by, "weave");
			assert_float_equal(edge->weight, 1, 1e-6);
			cites = true;
		}
		follows = follows || (edge->type == RUV_EDGE_FOLLOWS && !strcmp(edge->src, ids[5]) && !strcmp(edge->dst, ids[4]));
	}
	assert_true(cites && follows);
	ruv_memory_graph_release(&around);
	options.same_topic = 0.3F;
	assert_ok(ruv_memory_weave(m, &again, &options, &err), err);
	assert_true(again.n_added[RUV_EDGE_SAME_TOPIC] > 0);
	ruv_memory_free(m);
}

static void headings_contain_their_passages(void **state)
{
	static const char *const titles[] = {"Backups", "Backups", "Backups > Restore", "Backups > Restore > Rights", "Storage"};
	char ids[5][RUV_ID_SIZE];
	ruv_memory *m = open_memory(*state);
	ruv_weave_options options = {.same_topic = 2};
	ruv_weave_report report;
	ruv_memory_graph around = {0};
	ruv_error err = {0};
	int n = 0;

	for (int i = 0; i < 5; i++) {
		char text[40];
		ruv_memory_node node = {
		    .type = RUV_NODE_DOCUMENT, .text = text, .title = titles[i], .source = "b.md", .first_line = i + 1};
		snprintf(text, sizeof text, "passage %d", i);
		assert_ok(ruv_memory_add(m, &node, 1, &err), err);
		memcpy(ids[i], node.id, RUV_ID_SIZE);
	}
	assert_ok(ruv_memory_weave(m, &report, &options, &err), err);
	assert_int_equal(report.n_added[RUV_EDGE_CONTAINS], 2);
	assert_int_equal(report.n_added[RUV_EDGE_FOLLOWS], 4);
	assert_ok(ruv_memory_neighbours(m, &around, ids[2], 1, 10, NULL, &err), err);
	for (int e = 0; e < around.n_edges; e++)
		if (around.edges[e].type == RUV_EDGE_CONTAINS) {
			n++;
			assert_string_equal(around.edges[e].src, strcmp(around.edges[e].dst, ids[2]) ? ids[2] : ids[0]);
		}
	assert_int_equal(n, 2);
	ruv_memory_graph_release(&around);
	ruv_memory_free(m);
}

static void ask(ruv_memory *m, ruv_memory_hits *plain, ruv_memory_hits *graph, const ruv_gat_model *model, const char *user)
{
	ruv_error err = {0};
	float vector[TEST_DIM];
	ruv_rng rng;
	ruv_memory_query query = {.text = "the quay of number 8", .vector = vector, .k = 5, .filter.scope.user = user};

	ruv_rng_init(&rng, 77);
	random_vector(vector, TEST_DIM, &rng);
	assert_ok(ruv_memory_search(m, plain, &query, &err), err);
	assert_ok(ruv_graph_search(m, graph, &query, model, NULL, &err), err);
}

static void without_edges_nothing_changes(void **state)
{
	static char ids[N_NODES][RUV_ID_SIZE];
	ruv_memory *m = open_memory(*state);
	ruv_memory_hits plain = {0}, graph = {0};
	ruv_gat_model model;
	float *params;

	fill(m, ids, NULL);
	make_model(&model, &params, 3, 1);
	ask(m, &plain, &graph, &model, NULL);
	same_hits(&plain, &graph);
	ruv_memory_hits_release(&plain);
	ruv_memory_hits_release(&graph);
	free(params);
	ruv_memory_free(m);
}

static void fresh_parameters_change_nothing(void **state)
{
	static char ids[N_NODES][RUV_ID_SIZE];
	ruv_memory *m = open_memory(*state);
	ruv_memory_hits plain = {0}, graph = {0};
	ruv_error err = {0};
	ruv_gat_model model;
	float *params;

	fill(m, ids, NULL);
	assert_ok(ruv_memory_weave(m, NULL, NULL, &err), err);
	make_model(&model, &params, 3, 0);
	ask(m, &plain, &graph, &model, NULL);
	same_hits(&plain, &graph);
	ruv_memory_hits_release(&graph);
	free(params);
	make_model(&model, &params, 3, 1); /* and others do */
	ruv_memory_hits_release(&plain);
	ask(m, &plain, &graph, &model, NULL);
	bool same = true;
	for (int i = 0; i < plain.n; i++)
		same = same && !strcmp(plain.items[i].node.id, graph.items[i].node.id);
	assert_false(same);
	ruv_memory_hits_release(&plain);
	ruv_memory_hits_release(&graph);
	free(params);
	ruv_memory_free(m);
}

/* What is reached, how far, and over which edges. */
static void a_view_is_the_neighbourhood(void **state)
{
	static char ids[N_NODES][RUV_ID_SIZE];
	ruv_memory *m = open_memory(*state);
	ruv_error err = {0};
	ruv_graph_view view;
	float vector[TEST_DIM];
	ruv_rng rng;
	/* Three hits of forty; the other nodes can only be reached. */
	ruv_memory_query query = {.text = "morning", .vector = vector, .k = 3, .n_candidates = 3, .mode = RUV_SEARCH_VECTOR};

	fill(m, ids, NULL);
	assert_ok(ruv_memory_weave(m, NULL, &(ruv_weave_options){.same_topic = 2}, &err), err);
	ruv_rng_init(&rng, 4);
	random_vector(vector, TEST_DIM, &rng);
	assert_ok(ruv_graph_view_make(&view, m, &query, &err), err);
	assert_non_null(view.arena);
	assert_int_equal(view.n_hits, 3);
	assert_true(view.n > 3);
	for (int i = 0; i < view.n; i++) {
		bool linked = view.graph.hops[i] == 0;
		for (int e = 0; e < view.graph.n_edges; e++)
			linked = linked || (view.graph.edges[e].to == i &&
			                    view.graph.hops[view.graph.edges[e].from] == view.graph.hops[i] - 1);
		assert_true(linked);
		assert_true(view.graph.hops[i] <= 2 && (view.graph.hops[i] == 0) == (i < view.n_hits));
		assert_non_null(view.graph.rows[i]);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(view.items[i].node.id, view.items[j].node.id);
		if (i)
			assert_true(view.graph.base[i] <= view.graph.base[i - 1]);
	}
	for (int e = 0; e < view.graph.n_edges; e++) { /* every edge stands there in both directions */
		const ruv_gat_edge *a = &view.graph.edges[e];
		bool back = false;
		for (int o = 0; o < view.graph.n_edges; o++) {
			const ruv_gat_edge *b = &view.graph.edges[o];
			back = back || (b->from == a->to && b->to == a->from &&
			                b->relation == (a->relation + RUV_N_EDGE_TYPES) % RUV_GAT_RELATIONS);
		}
		assert_true(back);
		assert_true(a->recency > 0.99F && a->recency <= 1);
	}
	ruv_graph_view_release(&view);
	ruv_memory_free(m);
}

static void a_scope_hides_neighbours(void **state)
{
	static char ids[N_NODES][RUV_ID_SIZE];
	ruv_memory *m = open_memory(*state);
	ruv_memory_hits plain = {0}, graph = {0};
	ruv_error err = {0};
	ruv_gat_model model;
	float *params;

	fill(m, ids, "ann"); /* odd nodes are hers */
	assert_ok(ruv_memory_weave(m, NULL, NULL, &err), err);
	make_model(&model, &params, 21, 1);
	for (int who = 0; who < 2; who++) {
		int n_hers = 0;
		ask(m, &plain, &graph, &model, who ? "ann" : "bob");
		for (int i = 0; i < graph.n; i++)
			n_hers += *graph.items[i].node.scope.user != 0;
		assert_true(who || n_hers == 0);
		ruv_memory_hits_release(&plain);
		ruv_memory_hits_release(&graph);
	}
	free(params);
	ruv_memory_free(m);
}

static void vectors_must_fit_the_model(void **state)
{
	static char ids[N_NODES][RUV_ID_SIZE];
	ruv_memory *m = open_memory(*state);
	float vector[TEST_DIM] = {1};
	ruv_memory_query query = {.text = "quay", .vector = vector};
	ruv_memory_hits hits = {0};
	ruv_error err = {0};
	ruv_gat_model model;
	float *params;

	fill(m, ids, NULL);
	assert_ok(ruv_memory_weave(m, NULL, NULL, &err), err);
	make_model(&model, &params, 3, 0);
	model.shape.dim = TEST_DIM + 1;
	assert_int_equal(ruv_graph_search(m, &hits, &query, &model, NULL, &err), RUV_EMISMATCH);
	/* By words alone there is no graph to speak of. */
	query.mode = RUV_SEARCH_LEXICAL;
	assert_ok(ruv_graph_search(m, &hits, &query, &model, NULL, &err), err);
	assert_true(hits.n > 0);
	ruv_memory_hits_release(&hits);
	free(params);
	ruv_memory_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(weaving_finds_the_edges, make_dir, drop_dir),
	    cmocka_unit_test_setup_teardown(headings_contain_their_passages, make_dir, drop_dir),
	    cmocka_unit_test_setup_teardown(without_edges_nothing_changes, make_dir, drop_dir),
	    cmocka_unit_test_setup_teardown(fresh_parameters_change_nothing, make_dir, drop_dir),
	    cmocka_unit_test_setup_teardown(a_view_is_the_neighbourhood, make_dir, drop_dir),
	    cmocka_unit_test_setup_teardown(a_scope_hides_neighbours, make_dir, drop_dir),
	    cmocka_unit_test_setup_teardown(vectors_must_fit_the_model, make_dir, drop_dir),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
