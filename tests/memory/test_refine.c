/* test_refine.c - what is done with fused hits: labels, priors, variety; and results kept for the same question. */
#include "store_test.h"

#include <math.h>

static void at(float *v, double angle)
{
	memset(v, 0, sizeof *v * TEST_DIM);
	v[0] = (float)cos(angle);
	v[1] = (float)sin(angle);
}

static void add_node(ruv_memory *m, ruv_memory_node node, double angle)
{
	float v[TEST_DIM];
	ruv_error err = {0};

	at(v, angle);
	node.vector = v;
	assert_ok(ruv_memory_add(m, &node, 1, &err), err);
}

/* The texts of the hits, one letter each. */
static const char *ask(ruv_memory *m, ruv_memory_query q)
{
	static char order[64];
	float v[TEST_DIM];
	ruv_memory_hits hits;
	ruv_error err = {0};

	at(v, 0);
	if (q.mode != RUV_SEARCH_LEXICAL)
		q.vector = v;
	assert_ok(ruv_memory_search(m, &hits, &q, &err), err);
	assert_true(hits.n < 60);
	for (int i = 0; i < hits.n; i++)
		order[i] = hits.items[i].node.text[0];
	order[hits.n] = '\0';
	ruv_memory_hits_release(&hits);
	return order;
}

static void test_priors(void **state)
{
	static const int64_t day = 86400000;
	ruv_memory *m = open_memory(*state);
	int64_t now = 1700000000000;

	add_node(m, (ruv_memory_node){.text = "a old", .created_ms = now - 3000 * day, .confidence = 0.9f}, 0.1);
	add_node(m, (ruv_memory_node){.text = "b unsure", .created_ms = now - 3000 * day, .confidence = 0.2f}, 0.05);
	add_node(m, (ruv_memory_node){.text = "c recent"}, 0.3); /* now */
	assert_string_equal(ask(m, (ruv_memory_query){.k = 3}), "bac");
	assert_string_equal(ask(m, (ruv_memory_query){.k = 3, .confidence_weight = 1}), "cab");
	assert_string_equal(ask(m, (ruv_memory_query){.k = 3, .recency_weight = 0.5f}), "cba");
	assert_string_equal(ask(m, (ruv_memory_query){.k = 1, .recency_weight = 0.5f}), "c");
	assert_string_equal(ask(m, (ruv_memory_query){.k = 3, .recency_weight = 0.01f, .recency_days = 10}), "bac");
	ruv_memory_free(m);
}

static void test_variety(void **state)
{
	ruv_memory *m = open_memory(*state);

	add_node(m, (ruv_memory_node){.text = "a"}, 0.10);
	add_node(m, (ruv_memory_node){.text = "b like a"}, 0.11);
	add_node(m, (ruv_memory_node){.text = "c like a"}, 0.12);
	add_node(m, (ruv_memory_node){.text = "d on the other side"}, -0.6);
	assert_string_equal(ask(m, (ruv_memory_query){.k = 4}), "abcd");
	assert_string_equal(ask(m, (ruv_memory_query){.k = 4, .mmr_lambda = 1}), "abcd");
	assert_string_equal(ask(m, (ruv_memory_query){.k = 2, .mmr_lambda = 0.1f}), "ad");
	ruv_memory_free(m);
}

static void test_labels(void **state)
{
	static const char *const tags[] = {"Blue Whale"};
	ruv_memory *m = open_memory(*state);
	ruv_memory_query q = {.text = "How heavy is the blue whale?", .k = 3};

	add_node(m, (ruv_memory_node){.text = "a whale is heavy, how heavy is a whale, blue is a colour"}, 0.1);
	add_node(m, (ruv_memory_node){.text = "b it weighs 150 tons", .tags = tags, .n_tags = 1}, 0.4);
	add_node(m, (ruv_memory_node){.text = "c nothing of the kind"}, 0.2);
	assert_int_equal(ask(m, q)[0], 'a');
	q.label_weight = 2;
	assert_int_equal(ask(m, q)[0], 'b');
	ruv_memory_free(m);
}

static void test_kept_results(void **state)
{
	ruv_memory *m = open_memory(*state), *other;
	float v[TEST_DIM];
	ruv_memory_query q = {.text = "lamp", .vector = v, .k = 5, .filter = {.every_scope = true}};
	ruv_memory_hits first, second;
	ruv_error err = {0};
	char id[RUV_ID_SIZE];

	at(v, 0);
	add_fact(m, "a lamp", v, id);
	assert_ok(ruv_memory_search(m, &first, &q, &err), err);
	assert_false(first.cached);
	assert_ok(ruv_memory_search(m, &second, &q, &err), err);
	assert_true(second.cached && second.n == 1);
	second.items[0].score = 7; /* one's own copy */
	ruv_memory_hits_release(&first);
	assert_string_equal(second.items[0].node.text, "a lamp");
	ruv_memory_hits_release(&second);
	assert_ok(ruv_memory_search(m, &second, &q, &err), err);
	assert_true(second.cached && second.items[0].score < 1);
	/* anything else in the question is another one */
	q.k = 4;
	assert_ok(ruv_memory_search(m, &first, &q, &err), err);
	assert_false(first.cached);
	ruv_memory_hits_release(&first);
	q.k = 5;
	q.filter.domain = "x";
	assert_ok(ruv_memory_search(m, &first, &q, &err), err);
	assert_true(!first.cached && first.n == 0);
	ruv_memory_hits_release(&first);
	q.filter.domain = NULL;
	v[3] = 0.1f;
	assert_ok(ruv_memory_search(m, &first, &q, &err), err);
	assert_false(first.cached);
	ruv_memory_hits_release(&first);
	v[3] = 0;
	/* a write, here or by another process, is seen at once */
	add_fact(m, "another lamp", v, NULL);
	assert_ok(ruv_memory_search(m, &first, &q, &err), err);
	assert_true(!first.cached && first.n == 2);
	ruv_memory_hits_release(&first);
	other = open_memory(*state);
	add_fact(other, "a third lamp", v, NULL);
	ruv_memory_free(other);
	assert_ok(ruv_memory_search(m, &first, &q, &err), err);
	assert_true(!first.cached && first.n == 3);
	ruv_memory_hits_release(&first);
	/* and so is what expires */
	{
		ruv_memory_node node = {.text = "a lamp for a moment", .vector = v};
		int64_t soon;
		add_fact(m, "x", NULL, NULL);
		assert_ok(ruv_memory_search(m, &first, &q, &err), err);
		assert_int_equal(first.n, 3);
		soon = first.items[0].node.created_ms + 600;
		ruv_memory_hits_release(&first);
		node.expires_ms = soon;
		assert_ok(ruv_memory_add(m, &node, 1, &err), err);
		for (int i = 0; i < 200; i++) {
			assert_ok(ruv_memory_search(m, &first, &q, &err), err);
			if (first.n == 3)
				break;
			ruv_memory_hits_release(&first);
			usleep(10000);
		}
		assert_int_equal(first.n, 3);
	}
	ruv_memory_hits_release(&second);
	ruv_memory_free(m);
	assert_string_equal(first.items[0].node.source, ""); /* a result outlives the memory */
	ruv_memory_hits_release(&first);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)
	const struct CMUnitTest tests[] = {T(test_priors), T(test_variety), T(test_labels), T(test_kept_results)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
