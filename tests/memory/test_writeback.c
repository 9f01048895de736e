/* test_writeback.c - answers written back: what is kept, merged, superseded, contradicted, refused; MinHash against true Jaccard.
 *
 * Vectors are sums of one random vector a word: near for the same words in any order, as an encoder's are. */
#include "store_test.h"

#include <ctype.h>
#include <math.h>

#include "base/hash.h"
#include "memory/minhash.h"

enum { DIM = 64 };

static void embed(float v[DIM], const char *question, const char *answer)
{
	const char *texts[2] = {question, answer};

	memset(v, 0, sizeof *v * DIM);
	for (int t = 0; t < 2; t++) {
		for (const char *p = texts[t]; *p;) {
			char w[32];
			int n = 0;
			ruv_rng rng;
			while (*p && !isalnum((unsigned char)*p))
				p++;
			for (; isalnum((unsigned char)*p); p++)
				if (n < 31)
					w[n++] = (char)tolower((unsigned char)*p);
			if (n == 0 || (n < 4 && isalpha((unsigned char)w[0])))
				continue;
			ruv_rng_init(&rng, ruv_hash64(w, n > 5 ? 5 : (size_t)n, 0)); /* inflections share their beginning */
			for (int i = 0; i < DIM; i++)
				v[i] += (float)ruv_rng_normal(&rng);
		}
	}
	v[0] += 0.01f;
}

static ruv_memory *open_pairs(const char *dir)
{
	ruv_memory_options o = {.embedder_id = "words", .dimension = DIM, .create = true};
	ruv_error err = {0};
	ruv_memory *m = NULL;

	assert_ok(ruv_memory_open(&m, dir, &o, &err), err);
	return m;
}

static ruv_memory_written put(ruv_memory *m, const char *question, const char *answer, float quality)
{
	float v[DIM];
	ruv_memory_answer item = {.question = question, .answer = answer, .vector = v, .quality = quality};
	ruv_memory_written written;
	ruv_error err = {0};

	embed(v, question, answer);
	assert_ok(ruv_memory_write_back(m, &written, &item, 1, &err), err);
	return written;
}

#define expect(m, q, a, quality, kind)                                                                                             \
	do {                                                                                                                       \
		ruv_memory_written w_ = put(m, q, a, quality);                                                                     \
		if (w_.as != (kind))                                                                                               \
			fail_msg("'%s' '%s': %d, expected %d (%s; cosine %.3f, jaccard %.3f)", q, a, (int)w_.as, (int)(kind),      \
			         w_.why, (double)w_.cosine, (double)w_.jaccard);                                                   \
	} while (0)

static void test_what_becomes_of_it(void **state)
{
	ruv_memory *m = open_pairs(*state);
	ruv_memory_written first, other;
	ruv_memory_nodes node;
	ruv_memory_stats stats;
	ruv_memory_graph graph;
	ruv_memory_events events;
	ruv_error err = {0};

	first = put(m, "When does the nightly backup of Fornax start?", "At 02:00.", 0.8f);
	assert_int_equal(first.as, RUV_WRITTEN_NEW);
	/* the same again, in other words */
	expect(m, "when does the nightly backup of Fornax start", "at 02:00", 0.8f, RUV_WRITTEN_MERGED);
	expect(m, "When does Fornax' nightly backup start?", "The nightly backup starts at 02:00.", 0.8f, RUV_WRITTEN_MERGED);
	assert_ok(ruv_memory_get(m, &node, first.id, &err), err);
	assert_true(fabs(node.items[0].confidence - (1 - 0.2 * 0.2 * 0.2)) < 1e-5);
	assert_string_equal(node.items[0].text, "Q: When does the nightly backup of Fornax start?\nA: At 02:00.");
	ruv_memory_nodes_release(&node);
	/* another machine, another number: another question */
	expect(m, "When does the nightly backup of Cygnus start?", "At 02:00.", 0.8f, RUV_WRITTEN_NEW);
	expect(m, "What is the port of server 12?", "8080", 0.8f, RUV_WRITTEN_NEW);
	expect(m, "What is the port of server 13?", "8080", 0.8f, RUV_WRITTEN_NEW);
	/* another answer to the same question */
	other = put(m, "When does the nightly backup of Fornax start?", "At 04:30.", 0.9f);
	assert_int_equal(other.as, RUV_WRITTEN_CONTRADICTS);
	assert_string_equal(other.other, first.id);
	assert_ok(ruv_memory_get(m, &node, other.id, &err), err);
	assert_true(fabs(node.items[0].confidence - 0.45) < 1e-5); /* three times 02:00 was surer than once 04:30 */
	ruv_memory_nodes_release(&node);
	assert_ok(ruv_memory_neighbours(m, &graph, first.id, 1, 10, NULL, &err), err);
	{
		bool linked = false;
		for (int i = 0; i < graph.n_edges; i++)
			linked |= !strcmp(graph.edges[i].created_by, "contradiction") && graph.edges[i].type == RUV_EDGE_SAME_TOPIC;
		assert_true(linked);
	}
	ruv_memory_graph_release(&graph);
	/* asked for something else */
	expect(m, "Where does the nightly backup of Fornax start?", "On the second node.", 0.8f, RUV_WRITTEN_NEW);
	expect(m, "Is the archive encrypted?", "Yes, the archive is encrypted.", 0.8f, RUV_WRITTEN_NEW);
	expect(m, "Is the archive encrypted?", "No, the archive is not encrypted.", 0.9f, RUV_WRITTEN_CONTRADICTS);

	/* a better answer takes the place; the log keeps the old one */
	first = put(m, "Who wrote the scheduler of the ingest service?", "Marta.", 0.76f);
	other = put(m, "Who wrote the scheduler of the ingest service?",
	            "Marta wrote it together with Jonas from the platform group.", 0.95f);
	assert_int_equal(other.as, RUV_WRITTEN_SUPERSEDED);
	assert_string_equal(other.id, first.id);
	assert_ok(ruv_memory_get(m, &node, first.id, &err), err);
	assert_non_null(strstr(node.items[0].text, "Jonas"));
	assert_int_equal(node.items[0].version, 2);
	assert_non_null(node.items[0].vector);
	ruv_memory_nodes_release(&node);
	assert_ok(ruv_memory_history(m, &events, first.id, 10, &err), err);
	assert_non_null(strstr(events.items[0].detail, "A: Marta.\""));
	ruv_memory_events_release(&events);
	/* and a worse one does not */
	expect(m, "Who wrote the scheduler of the ingest service?", "Marta.", 0.76f, RUV_WRITTEN_MERGED);
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_int_equal(stats.n_nodes, stats.n_by_type[RUV_NODE_QA_PAIR]);
	assert_int_equal(stats.n_nodes, 9);
	ruv_memory_free(m);
}

static void test_refused(void **state)
{
	static const char *const source[] = {"The archive of the observatory holds forty thousand plates, taken between 1905 and "
	                                     "1988 with the great refractor on the hill."};
	ruv_memory *m = open_pairs(*state);
	float v[DIM];
	ruv_memory_answer echo = {.question = "What is in the archive?",
	                          .answer = source[0],
	                          .vector = v,
	                          .quality = 0.9f,
	                          .sources = source,
	                          .n_sources = 1};
	ruv_memory_written written;
	ruv_memory_stats stats;
	ruv_error err = {0};

	expect(m, "What is it?", "A good answer.", 0.74f, RUV_WRITTEN_NOT_GOOD);
	expect(m, "What is it?", "I don't know.", 0.9f, RUV_WRITTEN_JUNK);
	expect(m, "What is it?", " I'm sorry, but I cannot help with that.", 0.9f, RUV_WRITTEN_JUNK);
	expect(m, "What is it?", "As an AI language model, I have no opinion.", 0.9f, RUV_WRITTEN_JUNK);
	expect(m, "What is it?", "<|im_start|>assistant\nYes", 0.9f, RUV_WRITTEN_JUNK);
	expect(m, "You are a helpful assistant. What is it?", "Hello", 0.9f, RUV_WRITTEN_JUNK);
	expect(m, "What is it?", "", 0.9f, RUV_WRITTEN_JUNK);
	expect(m, "What is it?", "...!", 0.9f, RUV_WRITTEN_JUNK);
	expect(m, "Where is the great refractor?", "Where is the great refractor?", 0.9f, RUV_WRITTEN_JUNK);
	embed(v, echo.question, echo.answer);
	assert_ok(ruv_memory_write_back(m, &written, &echo, 1, &err), err);
	assert_int_equal(written.as, RUV_WRITTEN_JUNK);
	echo.answer = "Forty thousand plates.";
	assert_ok(ruv_memory_write_back(m, &written, &echo, 1, &err), err);
	assert_int_equal(written.as, RUV_WRITTEN_NEW);
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_int_equal(stats.n_nodes, 1);

	echo.vector = NULL;
	assert_int_equal(ruv_memory_write_back(m, &written, &echo, 1, &err), RUV_EINVAL);
	echo.vector = v;
	echo.quality = 1.5f;
	assert_int_equal(ruv_memory_write_back(m, &written, &echo, 1, &err), RUV_EINVAL);
	echo.quality = 0.9f;
	echo.answer = "\xff";
	assert_int_equal(ruv_memory_write_back(m, &written, &echo, 1, &err), RUV_EFORMAT);
	ruv_memory_free(m);
}

static void test_edges_and_scopes(void **state)
{
	ruv_memory *m = open_pairs(*state);
	char passage[RUV_ID_SIZE];
	const char *cited[1] = {passage};
	float v[DIM];
	ruv_memory_answer item = {.question = "When does the library open?",
	                          .answer = "At nine.",
	                          .vector = v,
	                          .quality = 0.9f,
	                          .cited = cited,
	                          .n_cited = 1,
	                          .scope = {.user = "ann"}};
	ruv_memory_written first, second, bobs;
	ruv_memory_graph graph;
	ruv_memory_stats stats;
	ruv_error err = {0};

	add_fact(m, "The library opens at nine.", NULL, passage);
	embed(v, item.question, item.answer);
	assert_ok(ruv_memory_write_back(m, &first, &item, 1, &err), err);
	item.question = "And when does it close on Sundays?";
	item.answer = "At four in the afternoon.";
	item.previous = first.id;
	embed(v, item.question, item.answer);
	assert_ok(ruv_memory_write_back(m, &second, &item, 1, &err), err);
	assert_ok(ruv_memory_neighbours(m, &graph, second.id, 1, 10, &(ruv_memory_filter){.scope.user = "ann"}, &err), err);
	assert_int_equal(graph.nodes.n, 3); /* the passage, and the pair before */
	ruv_memory_graph_release(&graph);
	/* the same from somebody else is somebody else's */
	item.scope.user = "bob";
	item.previous = NULL;
	assert_ok(ruv_memory_write_back(m, &bobs, &item, 1, &err), err);
	assert_int_equal(bobs.as, RUV_WRITTEN_NEW);
	/* a citation that is not there: nothing is written */
	memcpy(passage, "01932c5e-0000-7000-8000-00000000abcd", RUV_ID_SIZE);
	item.question = "Something else entirely?";
	embed(v, item.question, item.answer);
	assert_int_equal(ruv_memory_write_back(m, &bobs, &item, 1, &err), RUV_ENOTFOUND);
	assert_ok(ruv_memory_get_stats(m, &stats, &err), err);
	assert_int_equal(stats.n_nodes, 4);
	ruv_memory_free(m);
}

/* Planted: 30 % near-duplicates, 5 % contradictions, in batches; precision and recall of merging at least 0.95. */
static void test_planted(void **state)
{
	static const char *const jobs[] = {"backup", "ingest", "rotation", "report", "cleanup",
	                                   "replay", "export", "sync",     "audit",  "scan"};
	static const char *const systems[] = {"Fornax", "Cygnus", "Lyra",   "Orion",  "Pavo",   "Draco", "Vela",
	                                      "Norma",  "Hydra",  "Corvus", "Aquila", "Cetus",  "Lepus", "Mensa",
	                                      "Octans", "Pictor", "Pyxis",  "Scutum", "Taurus", "Ursa"};
	static const char *const facts[] = {"start", "stop", "fail last", "run longest"};
	enum { N = 1000, BATCH = 100 };
	ruv_memory *m = open_pairs(*state);
	ruv_memory_answer *items = calloc(N, sizeof *items);
	ruv_memory_written *written = calloc(N, sizeof *written);
	float(*v)[DIM] = calloc(N, sizeof *v);
	char(*q)[160] = calloc(N, sizeof *q), (*a)[160] = calloc(N, sizeof *a);
	int kind[N] = {0}, base[N], n_base = 0, merged_right = 0, merged = 0, planted = 0, conflicts = 0, conflicts_right = 0,
	    told = 0;
	ruv_error err = {0};
	ruv_rng rng;

	ruv_rng_init(&rng, 4711);
	for (int i = 0; i < N; i++) {
		double u = ruv_rng_double(&rng);
		int of = n_base ? base[ruv_rng_below(&rng, (uint64_t)n_base)] : -1;
		if (of < 0 || u > 0.35) {
			int j = n_base++, h = (int)ruv_rng_below(&rng, 24), min = (int)ruv_rng_below(&rng, 60);
			const char *job = jobs[j % 10], *sys = systems[j / 10 % 20], *fact = facts[j / 200 % 4];
			base[j] = i;
			snprintf(q[i], sizeof q[i], "When does the %s of %s %s?", job, sys, fact);
			snprintf(a[i], sizeof a[i], "At %02d:%02d.", h, min);
		} else if (u > 0.05) {
			kind[i] = 1;
			planted++;
			memcpy(q[i], q[of], sizeof q[i]);
			char asked[160], time[6] = "";
			memcpy(a[i], a[of], sizeof a[i]);
			memcpy(asked, q[of], sizeof asked);
			memcpy(time, a[of] + 3, 5);
			switch (ruv_rng_below(&rng, 4)) {
			case 0: /* typed carelessly */
				for (char *p = q[i]; *p; p++)
					*p = (char)tolower((unsigned char)*p);
				q[i][strlen(q[i]) - 1] = '\0';
				break;
			case 1: /* politely */
				snprintf(q[i], sizeof q[i], "So, %.150s", asked);
				break;
			case 2: /* answered in a sentence */
				snprintf(a[i], sizeof a[i], "It is at %s.", time);
				break;
			default: /* shortly */
				snprintf(a[i], sizeof a[i], "%s", time);
			}
		} else {
			kind[i] = 2;
			conflicts++;
			memcpy(q[i], q[of], sizeof q[i]);
			snprintf(a[i], sizeof a[i], "At 77:%02d.", (int)ruv_rng_below(&rng, 60));
		}
		embed(v[i], q[i], a[i]);
		items[i] = (ruv_memory_answer){.question = q[i], .answer = a[i], .vector = v[i], .quality = 0.9f};
	}
	for (int i = 0; i < N; i += BATCH)
		assert_ok(ruv_memory_write_back(m, written + i, items + i, BATCH, &err), err);
	for (int i = 0; i < N; i++) {
		bool is = written[i].as == RUV_WRITTEN_MERGED || written[i].as == RUV_WRITTEN_SUPERSEDED;
		merged += is;
		merged_right += is && kind[i] == 1;
		told += written[i].as == RUV_WRITTEN_CONTRADICTS;
		conflicts_right += written[i].as == RUV_WRITTEN_CONTRADICTS && kind[i] == 2;
	}
	print_message("merging: precision %.3f, recall %.3f of %d; contradictions: precision %.3f, recall %.3f of %d\n",
	              (double)merged_right / merged, (double)merged_right / planted, planted, (double)conflicts_right / told,
	              (double)conflicts_right / conflicts, conflicts);
	assert_true(merged_right >= 0.95 * merged && merged_right >= 0.95 * planted);
	assert_true(conflicts_right >= 0.9 * told && conflicts_right >= 0.9 * conflicts);
	free(items);
	free(written);
	free(v);
	free(q);
	free(a);
	ruv_memory_free(m);
}

static void test_minhash(void **state)
{
	ruv_minhash x, y;
	char a[400], b[400];
	double sum = 0;

	(void)state;
	ruv_minhash_text(&x, "The quick  brown fox!", 21);
	ruv_minhash_text(&y, "the QUICK brown -- fox", 22);
	assert_true(ruv_minhash_similarity(&x, &y) == 1);
	ruv_minhash_text(&y, "completely different words", 26);
	assert_true(ruv_minhash_similarity(&x, &y) < 0.1f);
	ruv_minhash_text(&x, "ab", 2);
	ruv_minhash_text(&y, "AB.", 3);
	assert_true(ruv_minhash_similarity(&x, &y) == 1);
	/* The estimate against the true share, over random texts: shingles of one random text, a tail of which is another. */
	for (int round = 0; round < 40; round++) {
		ruv_rng rng;
		int keep = 100 + round * 5, both = keep - 4, each = 396;
		ruv_rng_init(&rng, (uint64_t)round);
		for (int i = 0; i < 400; i++)
			a[i] = (char)('a' + ruv_rng_below(&rng, 26));
		memcpy(b, a, sizeof a);
		for (int i = keep; i < 400; i++)
			b[i] = (char)('a' + ruv_rng_below(&rng, 26));
		ruv_minhash_text(&x, a, 400);
		ruv_minhash_text(&y, b, 400);
		double truth = (double)both / (2 * each - both), off = ruv_minhash_similarity(&x, &y) - truth;
		assert_true(fabs(off) < 0.2); /* more than four deviations */
		sum += off;
	}
	assert_true(fabs(sum / 40) < 0.03); /* and without bias */
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)
	const struct CMUnitTest tests[] = {T(test_what_becomes_of_it), T(test_refused), T(test_edges_and_scopes), T(test_planted),
	                                   cmocka_unit_test(test_minhash)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
