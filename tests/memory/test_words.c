/* test_words.c - the word index in memory against FTS5's own ranking: the same hits with the same scores. */
#include "store_test.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include "memory/lexical.h"
#include "memory/memory_impl.h"

enum { N = 1500, LIMIT = 40 };

static const char *const stems[] = {"run",     "running", "runner",         "nation",      "national", "café",       "CAFE",
                                    "Straße",  "naïve",   "lamp",           "lamps",       "light",    "relate",     "relational",
                                    "x2",      "日本語",  "Привет",         "e",           "the",      "of",         "is",
                                    "hopping", "hope",    "generalization", "oscillators", "O'Neill",  "well-known", "ß"};

static void make_text(char *to, size_t cap, ruv_rng *rng, int n_words)
{
	size_t at = 0;

	to[0] = '\0';
	for (int i = 0; i < n_words && at + 40 < cap; i++) {
		double u = ruv_rng_double(rng);
		if (u < 0.5)
			at += (size_t)snprintf(to + at, cap - at, "%s%s", stems[ruv_rng_below(rng, sizeof stems / sizeof *stems)],
			                       ruv_rng_below(rng, 9) ? " " : ", ");
		else
			at += (size_t)snprintf(to + at, cap - at, "w%d ", (int)(exp(u * 8) / 40));
	}
	if (!to[0])
		snprintf(to, cap, "empty");
}

static void add_some(ruv_memory *m, int n, ruv_rng *rng, char (*ids)[RUV_ID_SIZE])
{
	static const char *const tags[] = {"lamps", "running late"};
	struct words {
		char text[1200], title[200];
	} *words = calloc((size_t)n, sizeof *words);
	ruv_memory_node *nodes = calloc((size_t)n, sizeof *nodes);
	ruv_error err = {0};

	for (int i = 0; i < n; i++) {
		make_text(words[i].text, sizeof words[i].text, rng, 1 + (int)ruv_rng_below(rng, 60));
		make_text(words[i].title, sizeof words[i].title, rng, (int)ruv_rng_below(rng, 4));
		nodes[i] = (ruv_memory_node){.text = words[i].text,
		                             .title = words[i].title,
		                             .tags = tags,
		                             .n_tags = (int)ruv_rng_below(rng, 3),
		                             .scope = {.user = ruv_rng_below(rng, 4) ? "" : "ann"},
		                             .domain = ruv_rng_below(rng, 20) ? "" : "rare",
		                             .type = (ruv_node_type)ruv_rng_below(rng, RUV_N_NODE_TYPES)};
	}
	assert_ok(ruv_memory_add(m, nodes, n, &err), err);
	for (int i = 0; ids && i < n; i++)
		memcpy(ids[i], nodes[i].id, RUV_ID_SIZE);
	free(words);
	free(nodes);
}

static void compare(ruv_memory *m, ruv_rng *rng, int n_questions)
{
	ruv_memory_filter filters[] = {{.every_scope = true},
	                               {.types = 0},
	                               {.scope = {.user = "ann"}},
	                               {.every_scope = true, .domain = "rare"},
	                               {.every_scope = true, .types = 1 << RUV_NODE_FACT | 1 << RUV_NODE_QUERY}};
	ruv_error err = {0};
	int n_able = 0;

	for (int i = 0; i < n_questions; i++) {
		char text[300];
		ruv_store_term terms[RUV_LEXICAL_MAX_TERMS];
		ruv_store_match got[LIMIT], want[LIMIT];
		int n_terms, n_got = 0, n_want = 0, limit = i % 3 ? LIMIT : 3;
		bool able = false;
		const ruv_memory_filter *f = &filters[i % 5];
		make_text(text, sizeof text, rng, 1 + (int)ruv_rng_below(rng, 8));
		n_terms = ruv_lexical_terms(terms, text);
		assert_ok(m->store->ops->lexical(m->store, want, &n_want, terms, n_terms, f, limit, &err), err);
		assert_ok(ruv_words_search(atomic_load(&m->words), got, &n_got, &able, terms, n_terms, f, limit, 1, &err), err);
		if (!able)
			continue;
		n_able++;
		if (n_got != n_want)
			fail_msg("'%s': %d hits, FTS5 has %d", text, n_got, n_want);
		for (int j = 0; j < n_got; j++)
			if (got[j].key != want[j].key || fabs(got[j].score - want[j].score) > 1e-12 * (1 + fabs(want[j].score)))
				fail_msg("'%s': hit %d is %lld (%.17g), FTS5 has %lld (%.17g)", text, j, (long long)got[j].key,
				         got[j].score, (long long)want[j].key, want[j].score);
	}
	assert_true(n_able > n_questions / 2);
}

static void test_same_as_fts5(void **state)
{
	ruv_memory *m = open_memory(*state), *other;
	char(*ids)[RUV_ID_SIZE] = calloc(N, sizeof *ids);
	ruv_error err = {0};
	ruv_rng rng;

	ruv_rng_init(&rng, 11);
	add_some(m, N, &rng, ids);
	assert_ok(ruv_memory_load_words(m, &err), err);
	compare(m, &rng, 300);
	/* what changes, goes and comes, here and elsewhere */
	for (int i = 0; i < 400; i += 2) {
		const char *id = ids[i];
		if (i % 4) {
			assert_ok(ruv_memory_forget(m, &id, 1, &err), err);
		} else {
			ruv_memory_node node = {.text = "national lamps of hope and hope", .title = "light"};
			memcpy(node.id, id, RUV_ID_SIZE);
			assert_ok(ruv_memory_update(m, &node, &err), err);
		}
	}
	other = open_memory(*state);
	add_some(other, 50, &rng, NULL);
	ruv_memory_free(other);
	assert_ok(ruv_memory_sync_words(m, true, &err), err);
	compare(m, &rng, 300);
	assert_int_equal(ruv_words_count(atomic_load(&m->words)), N + 50 - 100);
	ruv_memory_free(m);
	free(ids);
}

/* Enough churn that postings are packed, and words so frequent that later ones are looked up and not read through. */
static void test_packing(void **state)
{
	ruv_memory *m = open_memory(*state);
	ruv_words *w;
	ruv_error err = {0};
	ruv_rng rng;
	ruv_memory_filter every = {.every_scope = true};
	ruv_store_match hits[LIMIT];
	ruv_store_term terms[3] = {{"common", 6}, {"middle", 6}, {"rare7", 5}};
	int n = 0;
	bool able;

	ruv_rng_init(&rng, 2);
	assert_ok(ruv_words_create(&w, m->store, &err), err);
	for (int round = 0; round < 3; round++)
		for (int i = 1; i <= 6000; i++) {
			char text[200];
			ruv_store_row row = {.key = i,
			                     .user = "",
			                     .agent = "",
			                     .session = "",
			                     .domain = "",
			                     .source = "",
			                     .tags = "",
			                     .title = "",
			                     .text = text};
			snprintf(text, sizeof text, "common %s rare%d %.*s", i % 3 ? "" : "middle", i % 2000, (i * 7 + round) % 60,
			         "common common filler filler filler filler filler filler filler filler");
			assert_ok(ruv_words_put(w, &row, &err), err);
		}
	assert_int_equal(ruv_words_count(w), 6000);
	assert_ok(ruv_words_search(w, hits, &n, &able, terms, 3, &every, 3, 1, &err), err);
	assert_true(able && n == 3);
	for (int i = 0; i < n; i++) /* the rare word decides */
		assert_int_equal(hits[i].key % 2000, 7);
	for (int i = 1; i <= 6000; i++)
		if (i % 2000 != 7)
			ruv_words_remove(w, i);
	assert_int_equal(ruv_words_count(w), 3);
	assert_ok(ruv_words_search(w, hits, &n, &able, terms, 3, &every, LIMIT, 1, &err), err);
	assert_int_equal(n, 3);
	ruv_words_free(w);
	ruv_memory_free(m);
}

/* ---- threads ---- */

typedef struct shared {
	ruv_memory *m;
	atomic_bool stop;
	atomic_int n_searches, n_errors;
} shared;

static void *read_on(void *user)
{
	shared *s = user;

	while (!atomic_load(&s->stop)) {
		ruv_memory_query q = {.text = "steady lamps of hope", .mode = RUV_SEARCH_LEXICAL, .k = 5};
		ruv_memory_hits hits;
		ruv_error err = {0};
		if (ruv_memory_search(s->m, &hits, &q, &err) || hits.n != 5 || strncmp(hits.items[0].node.text, "steady", 6))
			atomic_fetch_add(&s->n_errors, 1);
		ruv_memory_hits_release(&hits);
		atomic_fetch_add(&s->n_searches, 1);
	}
	return NULL;
}

static void test_threads(void **state)
{
	shared s = {.m = open_memory(*state)};
	pthread_t threads[3];
	ruv_error err = {0};
	ruv_rng rng;
	char ids[20][RUV_ID_SIZE];

	ruv_rng_init(&rng, 4);
	for (int i = 0; i < 8; i++)
		add_fact(s.m, "steady steady steady lamps", NULL, NULL);
	add_some(s.m, 200, &rng, NULL);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_on, &s), 0);
	for (int round = 0; round < 8; round++) { /* the index is built behind meanwhile, then follows */
		const char *list[20];
		add_some(s.m, 20, &rng, ids);
		for (int i = 0; i < 20; i++)
			list[i] = ids[i];
		assert_ok(ruv_memory_forget(s.m, list, 20, &err), err);
	}
	for (int i = 0; i < 1000 && !atomic_load(&s.m->words); i++)
		usleep(5000);
	atomic_store(&s.stop, true);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	assert_non_null(atomic_load(&s.m->words));
	assert_int_equal(atomic_load(&s.n_errors), 0);
	compare(s.m, &rng, 60);
	ruv_memory_free(s.m);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)
	const struct CMUnitTest tests[] = {T(test_same_as_fts5), T(test_packing), T(test_threads)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
