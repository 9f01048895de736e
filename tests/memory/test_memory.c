/* test_memory.c - the memory's public interface on one thread: nodes, sources, edges, scopes, search, care. */
#include "store_test.h"

#include <sqlite3.h>
#include <time.h>

#include "base/clock.h"

static void test_add_get_update_forget(void **state)
{
	static const char *const tags[] = {"zeta", "alpha", "zeta"};
	ruv_memory *m = open_memory(*state);
	ruv_memory_nodes got;
	ruv_memory_node node = {0}, change;
	ruv_error err = {0};
	ruv_rng rng;
	float v[TEST_DIM];
	char id[RUV_ID_SIZE];
	const char *ids[1];

	ruv_rng_init(&rng, 1);
	random_vector(v, TEST_DIM, &rng);
	node.type = RUV_NODE_QA_PAIR;
	node.text = "Q: Wo liegt Zürich?\nA: In der Schweiz. \xf0\x9f\x8f\x94";
	node.title = "Zürich";
	node.vector = v;
	node.source = "/tmp/a.md";
	node.first_line = 3;
	node.last_line = 4;
	node.tags = tags;
	node.n_tags = 3;
	node.domain = "geography";
	node.scope.user = "ann";
	node.confidence = 0.8f;
	node.meta = "{ \"k\": [1, 2.5, null], \"deep\": {\"x\": \"y\"} }";
	assert_ok(ruv_memory_add(m, &node, 1, &err), err);
	assert_int_equal(strlen(node.id), 36);
	assert_int_equal(node.id[14], '7');
	memcpy(id, node.id, sizeof id);

	assert_ok(ruv_memory_get(m, &got, id, &err), err);
	assert_int_equal(got.n, 1);
	assert_string_equal(got.items[0].text, node.text);
	assert_string_equal(got.items[0].title, "Zürich");
	assert_string_equal(got.items[0].source, "/tmp/a.md");
	assert_int_equal(got.items[0].first_line, 3);
	assert_int_equal(got.items[0].last_line, 4);
	assert_int_equal(got.items[0].n_tags, 2);
	assert_string_equal(got.items[0].tags[0], "alpha");
	assert_string_equal(got.items[0].tags[1], "zeta");
	assert_string_equal(got.items[0].domain, "geography");
	assert_string_equal(got.items[0].scope.user, "ann");
	assert_string_equal(got.items[0].scope.agent, "");
	assert_true(got.items[0].confidence == 0.8f);
	assert_int_equal(got.items[0].version, 1);
	assert_string_equal(got.items[0].meta, "{\"k\":[1,2.5,null],\"deep\":{\"x\":\"y\"}}");
	assert_memory_equal(got.items[0].vector, v, sizeof v);
	assert_true(llabs(got.items[0].created_ms - ruv_clock_wall_ms()) < 600000);

	/* an update keeps the id and the vector, raises the version, and the log keeps what was */
	change = got.items[0];
	change.title = "Zürich (Stadt)";
	change.vector = NULL;
	assert_ok(ruv_memory_update(m, &change, &err), err);
	ruv_memory_nodes_release(&got);
	assert_ok(ruv_memory_get(m, &got, id, &err), err);
	assert_int_equal(got.items[0].version, 2);
	assert_string_equal(got.items[0].title, "Zürich (Stadt)");
	assert_memory_equal(got.items[0].vector, v, sizeof v);
	change = got.items[0];
	change.text = "something else";
	change.vector = NULL;
	assert_ok(ruv_memory_update(m, &change, &err), err);
	ruv_memory_nodes_release(&got);
	assert_ok(ruv_memory_get(m, &got, id, &err), err);
	assert_null(got.items[0].vector); /* another text: the old vector is not its */
	ruv_memory_nodes_release(&got);
	{
		ruv_memory_events events;
		assert_ok(ruv_memory_history(m, &events, id, 10, &err), err);
		assert_int_equal(events.n, 3);
		assert_string_equal(events.items[0].what, "update");
		assert_non_null(strstr(events.items[1].detail, "\"title\":\"Zürich\""));
		assert_string_equal(events.items[2].what, "add");
		ruv_memory_events_release(&events);
	}

	ids[0] = id;
	assert_ok(ruv_memory_forget(m, ids, 1, &err), err);
	assert_int_equal(ruv_memory_get(m, &got, id, &err), RUV_ENOTFOUND);
	assert_int_equal(ruv_memory_forget(m, ids, 1, &err), RUV_ENOTFOUND);
	{
		ruv_memory_events events;
		assert_ok(ruv_memory_history(m, &events, id, 10, &err), err);
		assert_string_equal(events.items[0].what, "forget");
		for (int i = 0; i < events.n; i++)
			assert_string_equal(events.items[i].detail, ""); /* forgotten there, too */
		ruv_memory_events_release(&events);
	}
	ruv_memory_free(m);
}

static void test_bad_nodes(void **state)
{
	ruv_memory *m = open_memory(*state);
	float zero[TEST_DIM] = {0}, nan_vector[TEST_DIM] = {1, (float)0x7fc00000, 0}, good[TEST_DIM] = {1};
	static const char *const bad_tag[] = {"a\nb"};
	ruv_error err = {0};
	ruv_memory_stats stats;
	char *huge = malloc(RUV_MEMORY_MAX_TEXT + 2);
	struct {
		ruv_memory_node node;
		int code;
		const char *says;
	} cases[] = {
	    {{.text = ""}, RUV_EINVAL, "empty"},
	    {{.text = NULL}, RUV_EINVAL, "empty"},
	    {{.text = "\xff\xfe"}, RUV_EFORMAT, "UTF-8"},
	    {{.text = "\xed\xa0\x80"}, RUV_EFORMAT, "UTF-8"},
	    {{.text = "x", .type = (ruv_node_type)9}, RUV_EINVAL, "type"},
	    {{.text = "x", .vector = zero}, RUV_EINVAL, "zeros"},
	    {{.text = "x", .vector = nan_vector}, RUV_EINVAL, "finite"},
	    {{.text = "x", .confidence = 1.5f}, RUV_EINVAL, "confidence"},
	    {{.text = "x", .confidence = -1}, RUV_EINVAL, "confidence"},
	    {{.text = "x", .first_line = 5, .last_line = 4}, RUV_EINVAL, "lines"},
	    {{.text = "x", .tags = bad_tag, .n_tags = 1}, RUV_EINVAL, "control"},
	    {{.text = "x", .n_tags = 1000}, RUV_ELIMIT, "tags"},
	    {{.text = "x", .meta = "{\"a\":1"}, RUV_EFORMAT, "JSON"},
	    {{.text = "x", .meta = "[1]"}, RUV_EINVAL, "object"},
	    {{.text = "x", .meta = "{\"a\":1,\"a\":2}"}, RUV_EFORMAT, "duplicate"},
	    {{.text = "x", .id = "not-an-id"}, RUV_EINVAL, ""},
	    {{.text = huge}, RUV_ELIMIT, "1048577"},
	};

	memset(huge, 'x', RUV_MEMORY_MAX_TEXT + 1);
	huge[RUV_MEMORY_MAX_TEXT + 1] = '\0';
	nan_vector[1] = (float)(0.0 / 1e-300 * 1e300 * 1e300);
	nan_vector[1] = strtof("nan", NULL);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		ruv_memory_node pair[2] = {{.text = "fine", .vector = good}, cases[i].node};
		int rc = ruv_memory_add(m, pair, 2, &err);
		if (rc != cases[i].code || !strstr(err.message, cases[i].says))
			fail_msg("case %zu: %s %s", i, ruv_status_name(rc), err.message);
	}
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_int_equal(stats.n_nodes, 0); /* not even the good one of the pair */
	free(huge);
	ruv_memory_free(m);
}

static void test_given_id(void **state)
{
	ruv_memory *m = open_memory(*state);
	ruv_memory_node a = {.id = "01932C5E-0000-7000-8000-00000000ABCD", .text = "given"}, b = a;
	char id[RUV_ID_SIZE];
	ruv_error err = {0};

	assert_ok(ruv_memory_add(m, &a, 1, &err), err);
	assert_string_equal(a.id, "01932c5e-0000-7000-8000-00000000abcd");
	assert_int_equal(ruv_memory_add(m, &b, 1, &err), RUV_EEXIST);
	assert_ok(ruv_memory_resolve(m, id, "01932C5E", &err), err);
	assert_string_equal(id, a.id);
	assert_ok(ruv_memory_resolve(m, id, "abcd", &err), err);
	assert_int_equal(ruv_memory_resolve(m, id, "abc", &err), RUV_EINVAL);
	assert_int_equal(ruv_memory_resolve(m, id, "ab'; --", &err), RUV_EINVAL);
	assert_int_equal(ruv_memory_resolve(m, id, "ffffffff", &err), RUV_ENOTFOUND);
	memcpy(b.id, "01932c5e-0000-7000-8000-00000001abcd", 37);
	assert_ok(ruv_memory_add(m, &b, 1, &err), err);
	assert_int_equal(ruv_memory_resolve(m, id, "01932c5e", &err), RUV_EINVAL);
	ruv_memory_free(m);
}

static void test_embedder(void **state)
{
	ruv_memory_options o = {.embedder_id = "first", .embedder_version = "v1", .dimension = 8, .create = true};
	float v[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	ruv_memory *m;
	ruv_memory_nodes nodes;
	ruv_memory_hits hits;
	ruv_memory_query q = {.vector = v, .mode = RUV_SEARCH_VECTOR};
	ruv_error err = {0};
	const char *id, *version;
	int dimension;

	/* made without an embedder: words only, then the first embedder is taken on */
	assert_ok(ruv_memory_open(&m, *state, &(ruv_memory_options){.create = true}, &err), err);
	add_fact(m, "before there was an embedder", NULL, NULL);
	assert_int_equal(ruv_memory_add(m, &(ruv_memory_node){.text = "x", .vector = v}, 1, &err), RUV_EMISMATCH);
	assert_int_equal(ruv_memory_search(m, &hits, &q, &err), RUV_EMISMATCH);
	ruv_memory_free(m);
	assert_ok(ruv_memory_open(&m, *state, &o, &err), err);
	add_fact(m, "with vector", v, NULL);
	ruv_memory_free(m);

	o.embedder_id = "second";
	assert_int_equal(ruv_memory_open(&m, *state, &o, &err), RUV_EMISMATCH);
	assert_null(m);
	assert_non_null(strstr(err.message, "'first'"));
	assert_non_null(strstr(err.message, "'second'"));
	o.embedder_id = "first";
	o.dimension = 16;
	assert_int_equal(ruv_memory_open(&m, *state, &o, &err), RUV_EMISMATCH);
	o.dimension = 8;
	o.embedder_version = "v2";
	assert_int_equal(ruv_memory_open(&m, *state, &o, &err), RUV_EMISMATCH);
	o.embedder_version = NULL; /* does not say: fine */
	assert_ok(ruv_memory_open(&m, *state, &o, &err), err);
	assert_ok(ruv_memory_search(m, &hits, &q, &err), err);
	assert_int_equal(hits.n, 1);
	ruv_memory_hits_release(&hits);

	/* another embedder: the texts stay, the vectors go, and are listed as missing */
	assert_ok(ruv_memory_change_embedder(m, "second", "v9", 4, &err), err);
	ruv_memory_embedder(m, &id, &version, &dimension);
	assert_string_equal(id, "second");
	assert_string_equal(version, "v9");
	assert_int_equal(dimension, 4);
	assert_ok(ruv_memory_list(m, &nodes, NULL, true, 0, 100, &err), err);
	assert_int_equal(nodes.n, 2);
	for (int i = 0; i < nodes.n; i++) {
		nodes.items[i].vector = v;
		assert_ok(ruv_memory_update(m, &nodes.items[i], &err), err);
	}
	ruv_memory_nodes_release(&nodes);
	assert_ok(ruv_memory_list(m, &nodes, NULL, true, 0, 100, &err), err);
	assert_int_equal(nodes.n, 0);
	ruv_memory_nodes_release(&nodes);
	assert_ok(ruv_memory_search(m, &hits, &q, &err), err);
	assert_int_equal(hits.n, 2);
	ruv_memory_hits_release(&hits);
	ruv_memory_free(m);

	o = (ruv_memory_options){.embedder_id = "x", .dimension = 0};
	assert_int_equal(ruv_memory_open(&m, *state, &o, &err), RUV_EINVAL);
	o = (ruv_memory_options){.dimension = 3};
	assert_int_equal(ruv_memory_open(&m, *state, &o, &err), RUV_EINVAL);
}

static int count_hits(ruv_memory *m, ruv_memory_query q)
{
	ruv_memory_hits hits;
	ruv_error err = {0};
	int n;

	q.k = 100;
	assert_ok(ruv_memory_search(m, &hits, &q, &err), err);
	n = hits.n;
	ruv_memory_hits_release(&hits);
	return n;
}

static void test_scopes(void **state)
{
	static const char *const names[] = {"", "ann", "bob"};
	ruv_memory *m = open_memory(*state);
	ruv_rng rng;
	float v[TEST_DIM];
	ruv_error err = {0};

	/* every combination of owner, agent and session */
	ruv_rng_init(&rng, 3);
	for (int i = 0; i < 27; i++) {
		ruv_memory_node node = {.text = "secret plan", .vector = v};
		random_vector(v, TEST_DIM, &rng);
		node.scope = (ruv_memory_scope){names[i % 3], names[i / 3 % 3], names[i / 9]};
		assert_ok(ruv_memory_add(m, &node, 1, &err), err);
	}
	for (int i = 0; i < 64; i++) {
		/* the fourth reader is somebody that the store has never heard of; NULL is "" */
		static const char *const readers[] = {NULL, "ann", "bob", "eve"};
		ruv_memory_filter f = {.scope = {readers[i % 4], readers[i / 4 % 4], readers[i / 16]}};
		ruv_memory_nodes list;
		int expected = 1;
		for (int j = 0; j < 3; j++) {
			const char *r = j == 0 ? f.scope.user : j == 1 ? f.scope.agent : f.scope.session;
			expected *= r && strcmp(r, "eve") ? 2 : 1;
		}
		assert_int_equal(count_hits(m, (ruv_memory_query){.vector = v, .mode = RUV_SEARCH_VECTOR, .filter = f}), expected);
		assert_int_equal(count_hits(m, (ruv_memory_query){.text = "secret", .mode = RUV_SEARCH_LEXICAL, .filter = f}),
		                 expected);
		assert_int_equal(count_hits(m, (ruv_memory_query){.text = "secret", .vector = v, .filter = f}), expected);
		assert_ok(ruv_memory_list(m, &list, &f, false, 0, 100, &err), err);
		assert_int_equal(list.n, expected);
		ruv_memory_nodes_release(&list);
	}
	assert_int_equal(count_hits(m, (ruv_memory_query){.text = "secret", .vector = v, .filter = {.every_scope = true}}), 27);
	ruv_memory_free(m);
}

static void test_filters(void **state)
{
	static const char *const all_tags[] = {"red", "green", "blue"};
	static const char *const two[] = {"red", "blue"}, *const odd[] = {"re"}, *const quote[] = {"r\"ed'\\"};
	ruv_memory *m = open_memory(*state);
	ruv_memory_query text = {.text = "word", .mode = RUV_SEARCH_LEXICAL}, near = {.mode = RUV_SEARCH_VECTOR};
	ruv_rng rng;
	float v[TEST_DIM];
	ruv_error err = {0};

	ruv_rng_init(&rng, 4);
	for (int i = 0; i < 48; i++) {
		const char *tags[3];
		ruv_memory_node node = {.text = "word", .vector = v, .tags = tags, .created_ms = 1000 + i};
		for (int t = 0; t < 3; t++)
			if (i >> t & 1)
				tags[node.n_tags++] = all_tags[t];
		node.type = (ruv_node_type)(i % 6);
		node.domain = i % 2 ? "odd" : "";
		node.source = i % 3 ? "a" : "b";
		node.confidence = i % 4 ? 0.5f : 1.0f;
		random_vector(v, TEST_DIM, &rng);
		assert_ok(ruv_memory_add(m, &node, 1, &err), err);
	}
	near.vector = v;
	struct {
		ruv_memory_filter f;
		int n;
	} cases[] = {
	    {{.types = 0}, 48},
	    {{.types = 1 << RUV_NODE_FACT | 1 << RUV_NODE_QUERY}, 16},
	    {{.tags = two, .n_tags = 2}, 12},
	    {{.tags = odd, .n_tags = 1}, 0},
	    {{.tags = quote, .n_tags = 1}, 0},
	    {{.domain = "odd"}, 24},
	    {{.domain = "never"}, 0},
	    {{.domain = ""}, 48},
	    {{.source = "b"}, 16},
	    {{.created_from_ms = 1010, .created_to_ms = 1019}, 10},
	    {{.min_confidence = 0.75f}, 12},
	    {{.types = 1 << RUV_NODE_DOCUMENT, .domain = "odd", .source = "a", .tags = two, .n_tags = 1}, 8},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		ruv_memory_nodes list;
		text.filter = near.filter = cases[i].f;
		assert_ok(ruv_memory_list(m, &list, &cases[i].f, false, 0, 100, &err), err);
		if (list.n != cases[i].n || count_hits(m, text) != cases[i].n || count_hits(m, near) != cases[i].n)
			fail_msg("case %zu: %d expected, %d listed, %d by words, %d by vector", i, cases[i].n, list.n,
			         count_hits(m, text), count_hits(m, near));
		ruv_memory_nodes_release(&list);
	}
	/* filter + k: never fewer than exist */
	near.filter = (ruv_memory_filter){.tags = two, .n_tags = 2};
	near.k = 3;
	near.n_candidates = 3;
	{
		ruv_memory_hits hits;
		assert_ok(ruv_memory_search(m, &hits, &near, &err), err);
		assert_int_equal(hits.n, 3);
		ruv_memory_hits_release(&hits);
	}
	ruv_memory_free(m);
}

static void test_expiry(void **state)
{
	ruv_memory *m = open_memory(*state);
	float v[TEST_DIM] = {1};
	ruv_memory_node node = {.text = "short lived", .vector = v, .expires_ms = ruv_clock_wall_ms() + 150};
	ruv_memory_nodes got;
	ruv_memory_stats stats;
	ruv_error err = {0};
	struct timespec nap = {0, 200000000};

	assert_ok(ruv_memory_add(m, &node, 1, &err), err);
	add_fact(m, "stays", v, NULL);
	count_hits(m, (ruv_memory_query){.vector = v}); /* loads the vectors while it lives */
	nanosleep(&nap, NULL);
	assert_int_equal(ruv_memory_get(m, &got, node.id, &err), RUV_ENOTFOUND);
	assert_int_equal(count_hits(m, (ruv_memory_query){.vector = v}), 1);
	assert_int_equal(count_hits(m, (ruv_memory_query){.text = "lived"}), 0);
	/* the next write deletes it */
	add_fact(m, "another", v, NULL);
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_int_equal(stats.n_nodes, 2);
	assert_int_equal(stats.n_vectors, 2);
	ruv_memory_free(m);
}

static void test_source_replace(void **state)
{
	ruv_memory *m = open_memory(*state);
	ruv_memory_source source = {.name = "/docs/a.md", .hash = "h1", .size_bytes = 10, .modified_ms = 5};
	float v[5][TEST_DIM];
	ruv_memory_node first[4] = {{.text = "one", .title = "T", .vector = v[0], .first_line = 1, .last_line = 1},
	                            {.text = "two", .vector = v[1], .first_line = 2, .last_line = 2},
	                            {.text = "two", .vector = v[1], .first_line = 3, .last_line = 3},
	                            {.text = "three", .vector = v[2], .first_line = 4, .last_line = 4}};
	ruv_memory_node second[3] = {{.text = "new", .vector = v[3], .first_line = 1, .last_line = 1},
	                             {.text = "one", .title = "T", .first_line = 2, .last_line = 2}, /* moved, no vector needed */
	                             {.text = "two", .first_line = 3, .last_line = 3}};
	static const char *const texts[] = {"new", "one", "two", "two", "two", "one"};
	static const char *const titles[] = {"", "T", "", "", "", ""};
	ruv_memory_replaced done;
	ruv_memory_sources sources;
	ruv_memory_nodes got;
	ruv_error err = {0};
	bool same, known[6];
	int n;
	ruv_rng rng;

	ruv_rng_init(&rng, 5);
	for (int i = 0; i < 5; i++)
		random_vector(v[i], TEST_DIM, &rng);
	assert_ok(ruv_memory_source_unchanged(m, &same, &source, &err), err);
	assert_false(same);
	assert_ok(ruv_memory_source_replace(m, &source, first, 4, &done, &err), err);
	assert_int_equal(done.n_added, 4);
	assert_ok(ruv_memory_source_unchanged(m, &same, &source, &err), err);
	assert_true(same);
	source.hash = "h2";
	assert_ok(ruv_memory_source_unchanged(m, &same, &source, &err), err);
	assert_false(same);
	assert_ok(ruv_memory_source_known(m, known, &source, texts, titles, 6, &err), err);
	assert_false(known[0]);
	assert_true(known[1] && known[2] && known[3]);
	assert_false(known[4] || known[5]); /* there are two "two", and "one" has another title */

	assert_ok(ruv_memory_source_replace(m, &source, second, 3, &done, &err), err);
	assert_int_equal(done.n_added, 1);
	assert_int_equal(done.n_kept, 2);
	assert_int_equal(done.n_removed, 2);
	assert_string_equal(second[1].id, first[0].id);
	assert_ok(ruv_memory_get(m, &got, first[0].id, &err), err);
	assert_int_equal(got.items[0].first_line, 2);
	assert_memory_equal(got.items[0].vector, v[0], sizeof v[0]);
	ruv_memory_nodes_release(&got);
	assert_int_equal(ruv_memory_get(m, &got, first[3].id, &err), RUV_ENOTFOUND);
	assert_int_equal(count_hits(m, (ruv_memory_query){.vector = v[0]}), 3);
	assert_int_equal(count_hits(m, (ruv_memory_query){.text = "three"}), 0);

	/* the same file for another user is another source */
	source.scope.user = "ann";
	assert_ok(ruv_memory_source_unchanged(m, &same, &source, &err), err);
	assert_false(same);
	second[1].id[0] = '\0';
	assert_ok(ruv_memory_source_replace(m, &source, second + 1, 1, &done, &err), err);
	assert_int_equal(done.n_added, 1);
	assert_ok(ruv_memory_source_list(m, &sources, NULL, &err), err);
	assert_int_equal(sources.n, 1);
	assert_int_equal(sources.items[0].n_nodes, 3);
	ruv_memory_sources_release(&sources);
	assert_ok(ruv_memory_source_list(m, &sources, &(ruv_memory_filter){.scope = {.user = "ann"}}, &err), err);
	assert_int_equal(sources.n, 2);
	ruv_memory_sources_release(&sources);
	assert_ok(ruv_memory_source_forget(m, &source, &n, &err), err);
	assert_int_equal(n, 1);
	assert_int_equal(ruv_memory_source_forget(m, &source, &n, &err), RUV_ENOTFOUND);
	source.scope.user = NULL;
	assert_ok(ruv_memory_source_forget(m, &source, &n, &err), err);
	assert_int_equal(n, 3);
	ruv_memory_free(m);
}

static void test_edges(void **state)
{
	ruv_memory *m = open_memory(*state);
	char id[6][RUV_ID_SIZE];
	ruv_memory_edge edges[6] = {0};
	ruv_memory_graph graph;
	ruv_memory_stats stats;
	ruv_error err = {0};
	const char *forget[1];

	for (int i = 0; i < 6; i++) {
		char text[24];
		ruv_memory_node node = {.text = text, .scope.user = i == 5 ? "ann" : ""};
		snprintf(text, sizeof text, "node %d", i);
		assert_ok(ruv_memory_add(m, &node, 1, &err), err);
		memcpy(id[i], node.id, RUV_ID_SIZE);
	}
	/* 0 -> 1 -> 2 -> 3, 0 <- 4, 1 -> 5 (ann's) */
	static const int ends[5][2] = {{0, 1}, {1, 2}, {2, 3}, {4, 0}, {1, 5}};
	for (int i = 0; i < 5; i++) {
		memcpy(edges[i].src, id[ends[i][0]], RUV_ID_SIZE);
		memcpy(edges[i].dst, id[ends[i][1]], RUV_ID_SIZE);
		edges[i].type = RUV_EDGE_CITES;
		edges[i].created_by = "test";
	}
	assert_ok(ruv_memory_link(m, edges, 5, &err), err);
	assert_ok(ruv_memory_neighbours(m, &graph, id[0], 1, 100, NULL, &err), err);
	assert_int_equal(graph.nodes.n, 3);
	assert_int_equal(graph.n_edges, 2);
	ruv_memory_graph_release(&graph);
	assert_ok(ruv_memory_neighbours(m, &graph, id[0], 2, 100, NULL, &err), err);
	assert_int_equal(graph.nodes.n, 4); /* 5 is ann's */
	assert_int_equal(graph.n_edges, 3);
	assert_string_equal(graph.nodes.items[0].id, id[0]);
	assert_int_equal(graph.hops[0], 0);
	assert_int_equal(graph.hops[3], 2);
	assert_string_equal(graph.nodes.items[3].id, id[2]);
	ruv_memory_graph_release(&graph);
	assert_ok(ruv_memory_neighbours(m, &graph, id[0], 8, 100, &(ruv_memory_filter){.scope.user = "ann"}, &err), err);
	assert_int_equal(graph.nodes.n, 6);
	assert_int_equal(graph.n_edges, 5);
	ruv_memory_graph_release(&graph);
	assert_ok(ruv_memory_neighbours(m, &graph, id[0], 8, 2, NULL, &err), err);
	assert_int_equal(graph.nodes.n, 2);
	ruv_memory_graph_release(&graph);
	assert_int_equal(ruv_memory_neighbours(m, &graph, id[5], 1, 9, NULL, &err), RUV_ENOTFOUND);
	assert_int_equal(ruv_memory_neighbours(m, &graph, id[0], 9, 9, NULL, &err), RUV_EINVAL);

	/* the same edge again: new weight, old id */
	ruv_memory_edge again = edges[0];
	again.id[0] = '\0';
	again.weight = 3;
	assert_ok(ruv_memory_link(m, &again, 1, &err), err);
	assert_string_equal(again.id, edges[0].id);
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_int_equal(stats.n_edges, 5);
	assert_int_equal(stats.n_by_edge_type[RUV_EDGE_CITES], 5);

	memcpy(again.dst, again.src, RUV_ID_SIZE);
	assert_int_equal(ruv_memory_link(m, &again, 1, &err), RUV_EINVAL);
	memcpy(again.dst, "01932c5e-0000-7000-8000-00000000abcd", RUV_ID_SIZE);
	assert_int_equal(ruv_memory_link(m, &again, 1, &err), RUV_ENOTFOUND);
	assert_ok(ruv_memory_unlink(m, edges[4].id, &err), err);
	assert_int_equal(ruv_memory_unlink(m, edges[4].id, &err), RUV_ENOTFOUND);
	forget[0] = id[1];
	assert_ok(ruv_memory_forget(m, forget, 1, &err), err);
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_int_equal(stats.n_edges, 2);
	ruv_memory_free(m);
}

static void test_hostile_questions(void **state)
{
	static const char *const questions[] = {
	    "",
	    " ",
	    "?",
	    "\"",
	    "\"\"",
	    "'",
	    "'; DROP TABLE nodes; --",
	    "apple AND",
	    "AND",
	    "OR",
	    "NOT",
	    "NEAR(",
	    "NEAR(apple, 5)",
	    "apple*",
	    "*",
	    "^apple",
	    "title:apple",
	    "title : apple",
	    "-apple",
	    "+apple",
	    "(apple",
	    "apple)",
	    "{apple}",
	    "[apple]",
	    "apple\"pear",
	    "a:b:c",
	    "C++",
	    "\xf0\x9f\x8d\x8e",
	    "\xf0\x9f\x8d\x8e apple \xf0\x9f\x8d\x90",
	    "\xff\xfe\xfd",
	    "\xe2\x80\x9c"
	    "apple"
	    "\xe2\x80\x9d",
	    "the of and",
	    "what is the",
	    "\n\t\r",
	    "apple\x01\x02",
	    "äpple",
	    "苹果",
	    "apple\\",
	    "--",
	    "/* apple */",
	    "%s%n",
	    "apple; apple: apple",
	};
	ruv_memory *m = open_memory(*state);
	ruv_memory_hits hits;
	ruv_error err = {0};
	char *longest;

	add_fact(m, "An apple a day keeps the doctor away, said the pear.", NULL, NULL);
	add_fact(m, "the of and to a in what is", NULL, NULL);
	for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
		ruv_memory_query q = {.text = questions[i], .mode = RUV_SEARCH_LEXICAL};
		assert_ok(ruv_memory_search(m, &hits, &q, &err), err);
		if (strstr(questions[i], "apple") && hits.n != 1)
			fail_msg("'%s': %d hits", questions[i], hits.n);
		ruv_memory_hits_release(&hits);
	}
	/* stop words count when there is nothing else, stems are words */
	assert_int_equal(count_hits(m, (ruv_memory_query){.text = "the", .mode = RUV_SEARCH_LEXICAL}), 2);
	assert_int_equal(count_hits(m, (ruv_memory_query){.text = "the apples", .mode = RUV_SEARCH_LEXICAL}), 1);
	assert_int_equal(count_hits(m, (ruv_memory_query){.text = "keeping doctors", .mode = RUV_SEARCH_LEXICAL}), 1);
	longest = malloc(2000001);
	for (int i = 0; i < 2000000; i++)
		longest[i] = "apple \"x*( "[i % 11];
	longest[2000000] = '\0';
	assert_int_equal(count_hits(m, (ruv_memory_query){.text = longest, .mode = RUV_SEARCH_LEXICAL}), 1);
	for (int i = 0; i < 2000000; i++)
		longest[i] = 'a' + (char)((i * 7919LL / 3) % 26);
	assert_int_equal(count_hits(m, (ruv_memory_query){.text = longest, .mode = RUV_SEARCH_LEXICAL}), 0);
	free(longest);
	ruv_memory_free(m);
}

static void test_bad_queries(void **state)
{
	ruv_memory *m = open_memory(*state);
	float zero[TEST_DIM] = {0}, v[TEST_DIM] = {1};
	ruv_memory_hits hits;
	ruv_error err = {0};
	const ruv_memory_query bad[] = {
	    {0},
	    {.text = ""},
	    {.mode = RUV_SEARCH_VECTOR, .text = "x"},
	    {.mode = RUV_SEARCH_LEXICAL, .vector = v},
	    {.vector = zero},
	    {.vector = v, .k = -1},
	    {.vector = v, .k = RUV_MEMORY_MAX_K + 1},
	    {.vector = v, .k = 10, .n_candidates = 5},
	    {.vector = v, .vector_weight = -1},
	    {.vector = v, .rrf_k = -1},
	    {.vector = v, .mode = (ruv_memory_mode)7},
	    {.vector = v, .filter.min_confidence = 2},
	};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (ruv_memory_search(m, &hits, &bad[i], &err) != RUV_EINVAL)
			fail_msg("case %zu", i);
	assert_int_equal(count_hits(m, (ruv_memory_query){.vector = v}), 0); /* an empty store is fine */
	ruv_memory_free(m);
}

static void test_hybrid(void **state)
{
	ruv_memory *m = open_memory(*state);
	float a[TEST_DIM] = {1, 0, 0}, b[TEST_DIM] = {0.9f, 0.1f, 0}, c[TEST_DIM] = {0, 1, 0}, d[TEST_DIM] = {0.1f, 0, 1};
	ruv_memory_query q = {.text = "zebra", .vector = a, .k = 4};
	ruv_memory_hits hits;
	ruv_error err = {0};
	char id[4][RUV_ID_SIZE];

	add_fact(m, "nothing about it", a, id[0]);
	add_fact(m, "a zebra", b, id[1]);
	add_fact(m, "zebra zebra zebra", c, id[2]);
	add_fact(m, "unrelated", d, id[3]);
	assert_ok(ruv_memory_search(m, &hits, &q, &err), err);
	assert_int_equal(hits.n, 4);
	assert_string_equal(hits.items[0].node.id, id[1]); /* second in both lists beats first in one */
	assert_int_equal(hits.items[0].vector_rank, 2);
	for (int i = 0; i < hits.n; i++) {
		double expected = 0;
		if (hits.items[i].vector_rank)
			expected += 1.0 / (60 + hits.items[i].vector_rank);
		if (hits.items[i].lexical_rank)
			expected += 1.0 / (60 + hits.items[i].lexical_rank);
		assert_true(hits.items[i].score == expected);
		assert_true(i == 0 || hits.items[i - 1].score >= hits.items[i].score);
		assert_null(hits.items[i].node.vector);
	}
	assert_true(hits.n_vector == 4 && hits.n_lexical == 2);
	ruv_memory_hits_release(&hits);
	q.min_cosine = 0.5f;
	q.with_vectors = true;
	assert_ok(ruv_memory_search(m, &hits, &q, &err), err);
	assert_int_equal(hits.n, 3);
	assert_non_null(hits.items[0].node.vector);
	for (int i = 0; i < hits.n; i++)
		if (!strcmp(hits.items[i].node.id, id[2]))
			assert_true(hits.items[i].cosine == 0 && hits.items[i].vector_rank == 0 && hits.items[i].lexical_rank == 1);
	ruv_memory_hits_release(&hits);
	q.fusion = RUV_FUSE_ZSCORE;
	assert_ok(ruv_memory_search(m, &hits, &q, &err), err);
	assert_int_equal(hits.n, 3);
	ruv_memory_hits_release(&hits);
	ruv_memory_free(m);
}

static void test_backup_and_compact(void **state)
{
	ruv_memory *m = open_memory(*state), *copy = NULL;
	ruv_memory_stats stats, after;
	char dir[512], path[600], id[RUV_ID_SIZE], first[RUV_ID_SIZE];
	float v[TEST_DIM];
	ruv_rng rng;
	ruv_error err = {0};
	struct stat st;

	ruv_rng_init(&rng, 6);
	for (int i = 0; i < 300; i++) {
		char text[400];
		memset(text, 'a' + i % 26, sizeof text - 1);
		text[sizeof text - 1] = '\0';
		random_vector(v, TEST_DIM, &rng);
		add_fact(m, text, v, i ? id : first);
	}
	snprintf(dir, sizeof dir, "%s/copy", (char *)*state);
	assert_int_equal(mkdir(dir, 0700), 0);
	snprintf(path, sizeof path, "%s/memory.db", dir);
	assert_ok(ruv_memory_backup(m, path, &err), err);
	{
		unsigned char header[20];
		FILE *f = fopen(path, "rb");
		assert_int_equal(fread(header, 1, 20, f), 20);
		fclose(f);
		assert_true(header[18] == 1 && header[19] == 1); /* one file, not one that wants its WAL */
	}
	assert_ok(ruv_memory_open(&copy, dir, NULL, &err), err);
	assert_ok(ruv_memory_get_stats(copy, &stats, &err), err);
	assert_int_equal(stats.n_nodes, 300);
	assert_int_equal(count_hits(copy, (ruv_memory_query){.vector = v}), 100);
	ruv_memory_free(copy);
	snprintf(path, sizeof path, "%s/memory.db", (char *)*state);
	assert_int_equal(ruv_memory_backup(m, path, &err), RUV_EINVAL); /* not onto itself */
	snprintf(path, sizeof path, "%s/no/such/dir/x", (char *)*state);
	assert_int_not_equal(ruv_memory_backup(m, path, &err), RUV_OK);

	/* forgetting and compacting gives the space back */
	{
		ruv_memory_nodes nodes;
		assert_ok(ruv_memory_list(m, &nodes, NULL, false, 0, 280, &err), err);
		for (int i = 0; i < nodes.n; i++) {
			const char *one = nodes.items[i].id;
			assert_ok(ruv_memory_forget(m, &one, 1, &err), err);
		}
		ruv_memory_nodes_release(&nodes);
	}
	assert_ok(ruv_memory_compact(m, &err), err);
	assert_ok(ruv_memory_get_stats(m, &after, &err), err);
	assert_int_equal(after.n_nodes, 20);
	assert_true(after.database_bytes < stats.database_bytes);
	assert_int_equal(count_hits(m, (ruv_memory_query){.vector = v}), 20);
	snprintf(path, sizeof path, "%s/memory.db", (char *)*state);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	ruv_memory_free(m);
}

static bool print_problem(void *user, const char *problem)
{
	strncat(user, problem, 4000 - strlen(user));
	strncat(user, "\n", 4000 - strlen(user));
	return true;
}

static void run_sql(const char *dir, const char *sql)
{
	char path[512];
	sqlite3 *db;

	snprintf(path, sizeof path, "%s/memory.db", dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	sqlite3_close(db);
}

/* A passage that fails its checksum, or is gone, comes back with its source. */
static void test_damaged_source(void **state)
{
	ruv_memory *m = open_memory(*state);
	ruv_memory_source source = {.name = "notes.md", .hash = "h1"};
	float v[3][TEST_DIM];
	ruv_memory_node nodes[3] = {
	    {.text = "bees hum", .vector = v[0]}, {.text = "wasps sting", .vector = v[1]}, {.text = "ants carry", .vector = v[2]}};
	static const char *const texts[] = {"bees hum", "wasps sting", "ants carry"};
	ruv_memory_replaced done;
	ruv_memory_report report;
	ruv_memory_sources sources;
	ruv_error err = {0};
	char text[4001] = "";
	const char *id;
	bool same, known[3];
	int n;
	ruv_rng rng;

	ruv_rng_init(&rng, 9);
	for (int i = 0; i < 3; i++)
		random_vector(v[i], TEST_DIM, &rng);
	assert_ok(ruv_memory_source_replace(m, &source, nodes, 3, &done, &err), err);
	assert_ok(ruv_memory_source_unchanged(m, &same, &source, &err), err);
	assert_true(same);
	assert_ok(ruv_memory_source_list(m, &sources, NULL, &err), err);
	assert_string_equal(sources.items[0].hash, "h1");
	ruv_memory_sources_release(&sources);
	ruv_memory_free(m);

	run_sql(*state, "CREATE TABLE kept AS SELECT sql FROM sqlite_schema WHERE name='words_update'; DROP TRIGGER words_update;"
	                "UPDATE nodes SET text='changed by a stranger' WHERE key=2");
	m = open_memory(*state);
	assert_ok(ruv_memory_check(m, &report, true, print_problem, text, &err), err);
	assert_non_null(strstr(text, "remember --again 'notes.md'"));
	assert_ok(ruv_memory_source_unchanged(m, &same, &source, &err), err);
	assert_false(same);
	assert_ok(ruv_memory_source_known(m, known, &source, texts, NULL, 3, &err), err);
	assert_true(known[0] && !known[1] && known[2]);
	nodes[1].id[0] = '\0';
	assert_ok(ruv_memory_source_replace(m, &source, nodes, 3, &done, &err), err);
	assert_true(done.n_added == 1 && done.n_kept == 2 && done.n_removed == 1);
	assert_ok(ruv_memory_source_unchanged(m, &same, &source, &err), err);
	assert_true(same);
	assert_int_equal(count_hits(m, (ruv_memory_query){.text = "wasps sting"}), 1);
	assert_int_equal(count_hits(m, (ruv_memory_query){.text = "stranger"}), 0);
	text[0] = '\0';
	assert_ok(ruv_memory_check(m, &report, false, print_problem, text, &err), err);
	if (report.n_problems)
		fail_msg("%s", text);

	/* one that was forgotten is not missed */
	id = nodes[0].id;
	assert_ok(ruv_memory_forget(m, &id, 1, &err), err);
	assert_ok(ruv_memory_source_unchanged(m, &same, &source, &err), err);
	assert_true(same);
	ruv_memory_free(m);

	/* A damaged one can be forgotten, by its id and with its source; its words go, too. */
	run_sql(*state, "UPDATE nodes SET text='changed by a stranger'");
	m = open_memory(*state);
	id = nodes[1].id;
	assert_ok(ruv_memory_forget(m, &id, 1, &err), err);
	assert_ok(ruv_memory_source_forget(m, &source, &n, &err), err);
	assert_int_equal(n, 1);
	text[0] = '\0';
	assert_ok(ruv_memory_check(m, &report, false, print_problem, text, &err), err);
	if (report.n_problems)
		fail_msg("%s", text);
	ruv_memory_free(m);
}

static void test_check_and_repair(void **state)
{
	ruv_memory *m = open_memory(*state);
	ruv_memory_report report;
	ruv_memory_nodes got;
	char text[4001] = "", id[4][RUV_ID_SIZE];
	float v[TEST_DIM];
	ruv_rng rng;
	ruv_error err = {0};

	ruv_rng_init(&rng, 7);
	for (int i = 0; i < 4; i++) {
		random_vector(v, TEST_DIM, &rng);
		add_fact(m, i ? "some text about bees" : "first text", v, id[i]);
	}
	assert_ok(ruv_memory_check(m, &report, false, print_problem, text, &err), err);
	if (report.n_problems)
		fail_msg("%s", text);
	assert_true(report.n_nodes == 4 && report.n_vectors == 4 && report.n_words_checked == 4);
	ruv_memory_free(m);

	/* damage done behind the memory's back */
	run_sql(*state, "UPDATE vectors SET data=zeroblob(96) WHERE node=1;"
	                "DROP TRIGGER words_update; UPDATE nodes SET text='changed by a stranger' WHERE key=2;"
	                "PRAGMA foreign_keys=OFF; INSERT INTO edges(id,src,dst,type,weight,confidence,created_ms,created_by)"
	                " VALUES(x'01932c5e00007000800000000000abcd',1,999,0,1,1,1,'');"
	                "INSERT INTO vectors VALUES(998,0,x'00')");
	m = open_memory(*state);
	assert_int_equal(ruv_memory_get(m, &got, id[1], &err), RUV_ECORRUPT);
	assert_non_null(strstr(err.message, "checksum"));
	assert_ok(ruv_memory_get(m, &got, id[0], &err), err);
	assert_null(got.items[0].vector);
	ruv_memory_nodes_release(&got);
	assert_int_equal(count_hits(m, (ruv_memory_query){.vector = v, .filter.every_scope = true, .min_cosine = 0.999f}), 1);
	text[0] = '\0';
	assert_ok(ruv_memory_check(m, &report, false, print_problem, text, &err), err);
	assert_true(report.n_problems >= 5 && report.n_repaired == 0);
	text[0] = '\0';
	assert_ok(ruv_memory_check(m, &report, true, print_problem, text, &err), err);
	assert_non_null(strstr(text, "hangs in the air"));
	assert_non_null(strstr(text, "word index"));
	text[0] = '\0';
	assert_ok(ruv_memory_check(m, &report, false, print_problem, text, &err), err);
	if (report.n_problems != 1 || !strstr(text, id[1])) /* the text that a stranger changed cannot be got back */
		fail_msg("%d left: %s", report.n_problems, text);
	ruv_memory_free(m);
}

static void test_append_only(void **state)
{
	ruv_memory *m = open_memory(*state);
	char path[512];
	sqlite3 *db;

	add_fact(m, "something", NULL, NULL);
	ruv_memory_free(m);
	snprintf(path, sizeof path, "%s/memory.db", (char *)*state);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_not_equal(sqlite3_exec(db, "DELETE FROM events", NULL, NULL, NULL), SQLITE_OK);
	assert_int_not_equal(sqlite3_exec(db, "UPDATE events SET what='nothing'", NULL, NULL, NULL), SQLITE_OK);
	assert_int_not_equal(sqlite3_exec(db, "UPDATE events SET detail='{}'", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void test_names(void **state)
{
	ruv_node_type node;
	ruv_edge_type edge;
	ruv_error err = {0};

	(void)state;
	assert_ok(ruv_node_type_parse(&node, "qa_pair", &err), err);
	assert_int_equal(node, RUV_NODE_QA_PAIR);
	assert_ok(ruv_node_type_parse(&node, "agent-step", &err), err);
	assert_int_equal(node, RUV_NODE_AGENT_STEP);
	assert_ok(ruv_edge_type_parse(&edge, "SAMETOPIC", &err), err);
	assert_int_equal(edge, RUV_EDGE_SAME_TOPIC);
	assert_int_equal(ruv_node_type_parse(&node, "", &err), RUV_EINVAL);
	assert_int_equal(ruv_edge_type_parse(&edge, "cite", &err), RUV_EINVAL);
	assert_non_null(strstr(err.message, "Follows"));
	assert_string_equal(ruv_node_type_name(5), "Concept");
	assert_string_equal(ruv_node_type_name(6), "?");
}

/* What is forgotten of a source stays out when the source is remembered again, until somebody wants it back. */
static void test_forgotten_passages(void **state)
{
	ruv_memory *m = open_memory(*state);
	ruv_memory_source source = {.name = "notes.md", .hash = "1"};
	ruv_memory_node nodes[3] = {{.text = "first"}, {.text = "second"}, {.text = "third"}};
	const char *texts[] = {"first", "second", "third"}, *id;
	ruv_memory_replaced done;
	ruv_error err = {0};
	bool same = false, known[3];
	int n = 0;

	assert_ok(ruv_memory_source_replace(m, &source, nodes, 3, &done, &err), err);
	id = nodes[1].id;
	assert_ok(ruv_memory_forget(m, &id, 1, &err), err);
	assert_ok(ruv_memory_source_unchanged(m, &same, &source, &err), err);
	assert_true(same); /* nothing to do */
	assert_ok(ruv_memory_source_known(m, known, &source, texts, NULL, 3, &err), err);
	assert_true(!known[0] && known[1] && !known[2]); /* no vector is needed for it */
	for (int round = 0; round < 2; round++) {
		ruv_memory_node again[3] = {{.text = "first"}, {.text = "second"}, {.text = "third, changed"}};
		source.hash = round ? "3" : "2";
		assert_ok(ruv_memory_source_replace(m, &source, again, 3, &done, &err), err);
		assert_int_equal(done.n_left_out, 1);
		assert_int_equal(done.n_added, round ? 0 : 1);
		assert_int_equal(again[1].id[0], 0);
		assert_ok(ruv_memory_source_unchanged(m, &same, &source, &err), err);
		assert_true(same);
	}
	assert_ok(ruv_memory_source_restore(m, &source, &n, &err), err);
	assert_int_equal(n, 1);
	assert_ok(ruv_memory_source_unchanged(m, &same, &source, &err), err);
	assert_false(same);
	{
		ruv_memory_node again[3] = {{.text = "first"}, {.text = "second"}, {.text = "third, changed"}};
		assert_ok(ruv_memory_source_replace(m, &source, again, 3, &done, &err), err);
		assert_int_equal(done.n_left_out, 0);
		assert_int_equal(done.n_added, 1);
	}
	ruv_memory_free(m);
}

/* An edge is removed only by who sees both its ends. */
static void test_unlink_seen(void **state)
{
	ruv_memory *m = open_memory(*state);
	ruv_memory_node nodes[2] = {{.text = "hers", .scope = {.user = "ann"}}, {.text = "anybody's"}};
	ruv_memory_edge edge = {.type = RUV_EDGE_CITES};
	ruv_memory_filter bob = {.scope = {.user = "bob"}}, ann = {.scope = {.user = "ann"}};
	ruv_error err = {0};

	assert_ok(ruv_memory_add(m, nodes, 2, &err), err);
	memcpy(edge.src, nodes[0].id, sizeof edge.src);
	memcpy(edge.dst, nodes[1].id, sizeof edge.dst);
	assert_ok(ruv_memory_link(m, &edge, 1, &err), err);
	assert_int_equal(ruv_memory_unlink_seen(m, edge.id, &bob, &err), RUV_ENOTFOUND);
	assert_ok(ruv_memory_unlink_seen(m, edge.id, &ann, &err), err);
	assert_int_equal(ruv_memory_unlink_seen(m, edge.id, &ann, &err), RUV_ENOTFOUND);
	ruv_memory_free(m);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)
	const struct CMUnitTest tests[] = {
	    T(test_add_get_update_forget),
	    T(test_bad_nodes),
	    T(test_given_id),
	    T(test_embedder),
	    T(test_scopes),
	    T(test_filters),
	    T(test_expiry),
	    T(test_source_replace),
	    T(test_edges),
	    T(test_hostile_questions),
	    T(test_bad_queries),
	    T(test_hybrid),
	    T(test_backup_and_compact),
	    T(test_check_and_repair),
	    T(test_damaged_source),
	    T(test_append_only),
	    T(test_forgotten_passages),
	    T(test_unlink_seen),
	    cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
