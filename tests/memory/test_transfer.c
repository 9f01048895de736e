/* test_transfer.c - export and import: the same bytes after a round trip; wrong lines named by number. */
#include "store_test.h"

#include <math.h>

static char *export_text(ruv_memory *m, bool without_vectors, size_t *size)
{
	ruv_memory_transfer done;
	ruv_error err = {0};
	char *text = NULL;
	FILE *f = open_memstream(&text, size);

	assert_ok(ruv_memory_export(m, f, without_vectors, &done, &err), err);
	fclose(f);
	return text;
}

static int import_text(ruv_memory *m, const char *text, size_t n, bool without_vectors, ruv_memory_transfer *done, ruv_error *err)
{
	FILE *f = fmemopen((void *)(uintptr_t)text, n, "r");
	int rc = ruv_memory_import(m, f, "input", without_vectors, done, err);

	fclose(f);
	return rc;
}

static void fill(ruv_memory *m)
{
	static const char *const tags[] = {"b", "a \"quoted\" one", "ü"};
	ruv_memory_source source = {
	    .name = "/a/b c.md", .hash = "abc", .scope = {.user = "ann"}, .size_bytes = 7, .modified_ms = 99};
	ruv_memory_node chunk = {.text = "from a file", .first_line = 1, .last_line = 9, .type = RUV_NODE_DOCUMENT};
	ruv_memory_edge edges[2] = {{.type = RUV_EDGE_DERIVED, .weight = 0.1f, .confidence = 1 / 3.0f, .created_by = "x\ty"},
	                            {.type = RUV_EDGE_CONTAINS}};
	char id[3][RUV_ID_SIZE];
	ruv_error err = {0};
	ruv_rng rng;
	float v[TEST_DIM];

	ruv_rng_init(&rng, 55);
	for (int i = 0; i < 3; i++) {
		ruv_memory_node node = {.text = i == 0 ? "line\none\r\n\ttab \"quotes\" \\ back \x01 \x7f ünï 🦊" : "plain",
		                        .title = "T\"",
		                        .vector = i == 2 ? NULL : v,
		                        .tags = tags,
		                        .n_tags = i,
		                        .domain = "d",
		                        .type = (ruv_node_type)(i * 2),
		                        .scope = {"u", i ? "a" : "", "s"},
		                        .confidence = 1 / 7.0f,
		                        .expires_ms = i == 1 ? INT64_C(4102444800000) : 0,
		                        .meta = i == 1 ? "{\"z\":1,\"a\":[0.1,1e300,\"é\\u0001\"],\"n\":12345678901234}" : NULL};
		random_vector(v, TEST_DIM, &rng);
		v[0] = 0x1p-149f; /* the smallest float there is */
		v[1] = -3.4028234e38f * (i ? 0 : 1e-19f);
		v[2] = 0.1f;
		assert_ok(ruv_memory_add(m, &node, 1, &err), err);
		memcpy(id[i], node.id, RUV_ID_SIZE);
	}
	chunk.vector = v;
	{ /* a passage of the file that was forgotten by itself */
		ruv_memory_node two[2] = {chunk, chunk};
		const char *gone;
		two[1].text = "not this";
		assert_ok(ruv_memory_source_replace(m, &source, two, 2, NULL, &err), err);
		gone = two[1].id;
		assert_ok(ruv_memory_forget(m, &gone, 1, &err), err);
	}
	for (int i = 0; i < 2; i++) {
		memcpy(edges[i].src, id[i], RUV_ID_SIZE);
		memcpy(edges[i].dst, id[2], RUV_ID_SIZE);
	}
	assert_ok(ruv_memory_link(m, edges, 2, &err), err);
}

static void test_round_trip(void **state)
{
	char dir[512];
	ruv_memory *m = open_memory(*state), *copy = NULL;
	ruv_memory_transfer done;
	ruv_error err = {0};
	char *first, *second, *bare;
	size_t n_first, n_second, n_bare;
	bool same;

	fill(m);
	first = export_text(m, false, &n_first);
	/* into a store that has no embedder: takes on the export's */
	snprintf(dir, sizeof dir, "%s/copy", (char *)*state);
	assert_ok(ruv_memory_open(&copy, dir, &(ruv_memory_options){.create = true}, &err), err);
	assert_ok(import_text(copy, first, n_first, false, &done, &err), err);
	assert_true(done.n_nodes == 4 && done.n_edges == 2 && done.n_sources == 1 && done.n_skipped == 0);
	second = export_text(copy, false, &n_second);
	assert_int_equal(n_first, n_second);
	assert_memory_equal(first, second, n_first);
	free(second);
	/* again: nothing is doubled */
	assert_ok(import_text(copy, first, n_first, false, &done, &err), err);
	assert_true(done.n_nodes == 0 && done.n_skipped == 5);
	second = export_text(copy, false, &n_second);
	assert_int_equal(n_first, n_second);
	assert_memory_equal(first, second, n_first);
	/* the source counts as remembered */
	assert_ok(ruv_memory_source_unchanged(
		      copy, &same, &(ruv_memory_source){.name = "/a/b c.md", .hash = "abc", .scope = {.user = "ann"}}, &err),
	          err);
	assert_true(same);
	{ /* what was forgotten of it stays out */
		ruv_memory_source source = {.name = "/a/b c.md", .hash = "new", .scope = {.user = "ann"}};
		ruv_memory_node two[2] = {{.text = "from a file"}, {.text = "not this"}};
		ruv_memory_replaced replaced;
		assert_ok(ruv_memory_source_replace(copy, &source, two, 2, &replaced, &err), err);
		assert_int_equal(replaced.n_left_out, 1);
	}
	ruv_memory_free(copy);
	assert_non_null(strstr(first, "{\"kind\":\"forgotten\",\"name\":\"/a/b c.md\",\"user\":\"ann\",\"hash\":"));
	bare = export_text(m, true, &n_bare);
	assert_null(strstr(bare, "\"vector\""));
	snprintf(dir, sizeof dir, "%s/bare", (char *)*state);
	assert_ok(ruv_memory_open(&copy, dir, &(ruv_memory_options){.create = true}, &err), err);
	assert_ok(import_text(copy, bare, n_bare, false, &done, &err), err);
	assert_int_equal(done.n_nodes, 4);
	ruv_memory_free(copy);
	/* another embedder */
	snprintf(dir, sizeof dir, "%s/other", (char *)*state);
	assert_ok(
	    ruv_memory_open(&copy, dir, &(ruv_memory_options){.create = true, .embedder_id = "other", .dimension = TEST_DIM}, &err),
	    err);
	assert_int_equal(import_text(copy, first, n_first, false, &done, &err), RUV_EMISMATCH);
	assert_non_null(strstr(err.message, "line 1"));
	assert_ok(import_text(copy, first, n_first, true, &done, &err), err);
	assert_int_equal(done.n_nodes, 4);
	ruv_memory_free(copy);
	free(first);
	free(second);
	free(bare);
	ruv_memory_free(m);
}

#define HEADER "{\"kind\":\"ruvllm-memory\",\"format\":1,\"embedder\":\"\",\"embedder_version\":\"\",\"dimension\":0}\n"
#define GOOD "{\"kind\":\"node\",\"type\":\"Fact\",\"text\":\"good\"}\n"

static void test_wrong_lines(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
	    {"", "empty"},
	    {"\n\n", "empty"},
	    {"{\"kind\":\"node\",\"type\":\"Fact\",\"text\":\"x\"}", "header"},
	    {"{\"kind\":\"ruvllm-memory\",\"format\":2}", "format 2"},
	    {HEADER GOOD "{", "line 3: not JSON"},
	    {HEADER GOOD "[]", "line 3: not a JSON object"},
	    {HEADER GOOD "{\"kind\":\"node\"}", "line 3"},
	    {HEADER GOOD "{\"kind\":\"moon\"}", "'moon'"},
	    {HEADER GOOD "{\"kind\":5}", "'kind' is not a string"},
	    {HEADER GOOD "{\"kind\":\"node\",\"type\":\"Fact\",\"text\":\"x\",\"colour\":1}", "'colour'"},
	    {HEADER GOOD "{\"kind\":\"node\",\"type\":\"Fact\",\"text\":\"x\",\"text\":\"y\"}", "duplicate"},
	    {HEADER GOOD "{\"kind\":\"node\",\"type\":\"Moon\",\"text\":\"x\"}", "QAPair"},
	    {HEADER GOOD "{\"kind\":\"node\",\"type\":\"Fact\",\"text\":\"\"}", "empty"},
	    {HEADER GOOD "{\"kind\":\"node\",\"type\":\"Fact\",\"text\":\"a\\u0000b\"}", "line 3"},
	    {HEADER GOOD "{\"kind\":\"node\",\"type\":\"Fact\",\"text\":\"x\",\"id\":\"1\"}", "line 3"},
	    {HEADER GOOD "{\"kind\":\"node\",\"type\":\"Fact\",\"text\":\"x\",\"vector\":[1,2]}", "2 numbers, 24"},
	    {HEADER GOOD "{\"kind\":\"node\",\"type\":\"Fact\",\"text\":\"x\",\"first_line\":-1}", "first_line"},
	    {HEADER GOOD "{\"kind\":\"node\",\"type\":\"Fact\",\"text\":\"x\",\"version\":1.5}", "version"},
	    {HEADER GOOD "{\"kind\":\"node\",\"type\":\"Fact\",\"text\":\"x\",\"tags\":[1]}", "tags"},
	    {HEADER GOOD "{\"kind\":\"node\",\"type\":\"Fact\",\"text\":\"x\",\"meta\":[]}", "object"},
	    {HEADER GOOD "{\"kind\":\"edge\",\"type\":\"Cites\",\"src\":\"01932c5e-0000-7000-8000-00000000abcd\",\"dst\":"
	                 "\"01932c5e-0000-7000-8000-00000000abce\"}",
	     "no node"},
	    {HEADER GOOD "{\"kind\":\"source\",\"hash\":\"x\"}", "name"},
	    {HEADER GOOD "{\"kind\":\"forgotten\",\"name\":\"x\"}", "hash"},
	    {HEADER GOOD "\xff\xfe", "line 3"},
	};
	ruv_memory *m = open_memory(*state);
	ruv_memory_transfer done;
	ruv_memory_stats stats;
	ruv_error err = {0};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t n = strlen(cases[i].text);
		FILE *f = tmpfile();
		int rc;
		fwrite(cases[i].text, 1, n, f);
		rewind(f);
		rc = ruv_memory_import(m, f, "input", false, &done, &err);
		fclose(f);
		if (!rc || !strstr(err.message, cases[i].says))
			fail_msg("case %zu (%s): %s", i, ruv_status_name(rc), err.message);
		assert_true(done.n_nodes == 0);
	}
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_int_equal(stats.n_nodes, 0); /* the good line before the wrong one was of the same transaction */
	ruv_memory_free(m);
}

/* Every prefix and many mutations of an export: an error or not, never a crash. */
static void test_mutations(void **state)
{
	ruv_memory *m = open_memory(*state), *copy = NULL;
	ruv_memory_transfer done;
	ruv_error err = {0};
	char *text, *bad, dir[512];
	size_t n;
	ruv_rng rng;

	fill(m);
	text = export_text(m, false, &n);
	ruv_memory_free(m);
	snprintf(dir, sizeof dir, "%s/copy", (char *)*state);
	assert_ok(ruv_memory_open(&copy, dir, &(ruv_memory_options){.create = true}, &err), err);
	ruv_rng_init(&rng, 77);
	bad = malloc(n);
	for (int i = 0; i < 250; i++) {
		size_t len = i % 2 ? n : 1 + ruv_rng_below(&rng, n - 1);
		memcpy(bad, text, n);
		for (int j = 0; i % 2 && j < 3; j++)
			bad[ruv_rng_below(&rng, n)] = (char)ruv_rng_below(&rng, 256);
		import_text(copy, bad, len, false, &done, &err);
	}
	free(bad);
	free(text);
	ruv_memory_free(copy);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)
	const struct CMUnitTest tests[] = {T(test_round_trip), T(test_wrong_lines), T(test_mutations)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
