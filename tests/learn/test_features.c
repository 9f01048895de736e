/* test_features.c - every one of the 128 numbers moves when what it stands for moves, and what is not known is neutral. */
#include "test.h"

#include <math.h>

#include "base/rng.h"
#include "learn/features.h"

enum { DIM = 32, N_VECTORS = 64, N_HITS = 10 };

/* What a question is made of, so that a test changes one thing of it. */
struct scene {
	ruv_route_input input;
	ruv_route_hit hits[N_HITS];
	float vector[DIM], vectors[N_HITS][DIM];
	ruv_route_system system;
};

static ruv_textclass *classes;
static ruv_basis basis;
static float cloud[N_VECTORS * DIM];

static void fill(struct scene *s)
{
	ruv_rng rng;

	memset(s, 0, sizeof *s);
	ruv_rng_init(&rng, 5);
	for (int d = 0; d < DIM; d++)
		s->vector[d] = (float)ruv_rng_normal(&rng);
	for (int i = 0; i < N_HITS; i++) {
		for (int d = 0; d < DIM; d++)
			s->vectors[i][d] = s->vector[d] + (float)ruv_rng_normal(&rng);
		s->hits[i] = (ruv_route_hit){.text = "The treaty was signed in spring.",
		                             .source = i < 5 ? "a" : "b",
		                             .vector = s->vectors[i],
		                             .score = 1.0 / (i + 1),
		                             .cosine = 0.95f - 0.09f * (float)i,
		                             .vector_rank = i + 2,
		                             .lexical_rank = i % 2 ? i : 0};
	}
	s->input = (ruv_route_input){.text = "Who signed the treaty?",
	                             .n_tokens = 6,
	                             .embedding = s->vector,
	                             .dim = DIM,
	                             .hits = s->hits,
	                             .n_hits = N_HITS,
	                             .k = N_HITS,
	                             .n_both = 4,
	                             .n_vector = 8,
	                             .ann_recall = 0.9,
	                             .graph_depth = 1,
	                             .user_requests = 3,
	                             .system = &s->system};
	s->system = (ruv_route_system){.latency_budget_ms = 500,
	                               .memory_available = (int64_t)4 << 30,
	                               .battery = 0.5,
	                               .n_concurrent = 2,
	                               .n_queued = 1,
	                               .pages_used = 0.25,
	                               .prefix_hits = 0.5};
}

static void compute(const struct scene *s, float *f)
{
	ruv_error err = {0};

	assert_ok(ruv_features_compute(f, classes, &basis, &s->input, &err), err);
}

static int n_moved[RUV_ROUTE_FEATURES]; /* how often each was seen to move with its cause */

/* The features first..first+n all differ between the two scenes. */
static void moved(const struct scene *a, const struct scene *b, int first, int n)
{
	float x[RUV_ROUTE_FEATURES], y[RUV_ROUTE_FEATURES];

	compute(a, x);
	compute(b, y);
	for (int i = first; i < first + n; i++) {
		if (x[i] == y[i])
			fail_msg("%s stays %g", ruv_feature_name(i, NULL), (double)x[i]);
		n_moved[i]++;
	}
}

static void text_moves_its_features(void **state)
{
	static const struct {
		const char *text;
		int language;
	} tongues[] = {{"Wie heisst der Mann und wo wohnt er", 1},
	               {"Qui est cet homme et ou habite il", 2},
	               {"Quien es este hombre y donde vive", 3},
	               {"Chi e questo uomo e dove abita", 4},
	               {"Quem e este homem e onde ele mora", 5},
	               {"\xe8\xbf\x99\xe4\xb8\xaa\xe4\xba\xba\xe6\x98\xaf\xe8\xb0\x81", 6},
	               {"\xd0\xba\xd1\x82\xd0\xbe \xd1\x8d\xd1\x82\xd0\xbe", 7}};
	struct scene a, b;
	float x[RUV_ROUTE_FEATURES];

	(void)state;
	fill(&a);
	fill(&b);
	b.input.n_tokens = 60;
	moved(&a, &b, RUV_FEATURE_TOKENS, 1);
	b.input.user_requests = 40;
	moved(&a, &b, RUV_FEATURE_USER, 1);
	compute(&a, x);
	assert_true(x[RUV_FEATURE_LANGUAGE] == 1);
	for (size_t i = 0; i < sizeof tongues / sizeof *tongues; i++) {
		b.input.text = tongues[i].text;
		compute(&b, x);
		for (int l = 0; l < RUV_ROUTE_LANGUAGES; l++)
			assert_true(x[RUV_FEATURE_LANGUAGE + l] == (l == tongues[i].language));
		moved(&a, &b, RUV_FEATURE_LANGUAGE, 1);
		moved(&a, &b, RUV_FEATURE_LANGUAGE + tongues[i].language, 1);
	}
	b.input.text = "write a poem";
	moved(&a, &b, RUV_FEATURE_TYPE, RUV_ROUTE_QUERY_TYPES);
	moved(&a, &b, RUV_FEATURE_DOMAIN, RUV_ROUTE_DOMAINS);
	for (int d = 0; d < RUV_ROUTE_DOMAINS; d++) { /* a domain's own word makes it the likeliest */
		char text[64];
		int best = 0;

		snprintf(text, sizeof text, "%s matters", ruv_textclass_name(RUV_TEXTCLASS_DOMAIN, d));
		b.input.text = text;
		compute(&b, x);
		for (int i = 1; i < RUV_ROUTE_DOMAINS; i++)
			best = x[RUV_FEATURE_DOMAIN + i] > x[RUV_FEATURE_DOMAIN + best] ? i : best;
		assert_int_equal(best, d);
	}
}

static void embedding_moves_its_features(void **state)
{
	struct scene a, b;

	(void)state;
	fill(&a);
	fill(&b);
	for (int d = 0; d < DIM; d++)
		b.vector[d] *= 0.5f;
	moved(&a, &b, RUV_FEATURE_NORM, 1);
	fill(&b);
	for (int d = 0; d < DIM; d++)
		b.vector[d] = d < 3 ? 2 : 0.05f * (float)d;
	moved(&a, &b, RUV_FEATURE_COMPONENTS, 8);
	moved(&a, &b, RUV_FEATURE_ENTROPY, 1);
	moved(&a, &b, RUV_FEATURE_SPARSITY, 1);
	moved(&a, &b, RUV_FEATURE_CLUSTER, 4);
	moved(&a, &b, RUV_FEATURE_LARGEST, 1);
}

static void search_moves_its_features(void **state)
{
	struct scene a, b;

	(void)state;
	fill(&a);
	fill(&b);
	b.input.n_hits = 4;
	moved(&a, &b, RUV_FEATURE_RETRIEVED, 1);
	fill(&b);
	for (int i = 0; i < N_HITS; i++)
		b.hits[i].cosine = 0.9f - 0.02f * (float)i;
	moved(&a, &b, RUV_FEATURE_DISTANCES, 4);
	moved(&a, &b, RUV_FEATURE_HIT_ENTROPY, 1);
	fill(&b);
	b.input.graph_depth = 2;
	moved(&a, &b, RUV_FEATURE_DEPTH, 1);
	b.input.n_both = 8;
	moved(&a, &b, RUV_FEATURE_RECALL, 1);
	b.input.n_both = 4;
	b.input.ann_recall = 0.5;
	moved(&a, &b, RUV_FEATURE_RECALL, 1);
	for (int r = 0; r < 16; r++) { /* all hits just inside a radius, or just outside */
		fill(&a);
		fill(&b);
		for (int i = 0; i < N_HITS; i++) {
			a.hits[i].cosine = 1 - ((float)r + 0.9f) / 16;
			b.hits[i].cosine = 1 - ((float)r + 1.1f) / 16;
		}
		moved(&a, &b, RUV_FEATURE_DENSITY + r, 1);
	}
	for (int i = 0, pair = 0; i < 6; i++)
		for (int j = i + 1; j < 6; j++, pair++) {
			fill(&a);
			fill(&b);
			for (int d = 0; d < DIM; d++)
				b.vectors[j][d] = a.vectors[i][d];
			moved(&a, &b, RUV_FEATURE_COHERENCE + pair, 1);
			moved(&a, &b, RUV_FEATURE_COHERENCE + 15, 2);
			moved(&a, &b, RUV_FEATURE_COHERENCE + 18, 1);
		}
	fill(&b);
	for (int d = 0; d < DIM; d++)
		b.vectors[1][d] = -a.vectors[0][d];
	moved(&a, &b, RUV_FEATURE_COHERENCE + 17, 1);
	fill(&a);
	fill(&b);
	b.hits[2].lexical_rank = 3;
	moved(&a, &b, RUV_FEATURE_COHERENCE + 19, 1);
	fill(&b);
	for (int i = 0; i < N_HITS; i++)
		b.hits[i].text = "Nothing of the kind.";
	moved(&a, &b, RUV_FEATURE_COHERENCE + 20, 2);
	fill(&b);
	b.hits[0].vector_rank = b.hits[0].lexical_rank = 1;
	moved(&a, &b, RUV_FEATURE_COHERENCE + 22, 1);
	fill(&b);
	b.hits[7].source = "a";
	moved(&a, &b, RUV_FEATURE_COHERENCE + 23, 1);
}

static void system_moves_its_features(void **state)
{
	struct scene a, b;

	(void)state;
	for (int i = 1; i < 4; i++) {
		fill(&a);
		fill(&b);
		b.system.device = (ruv_device_class)i;
		b.system.privacy = (ruv_privacy)i;
		moved(&a, &b, RUV_FEATURE_DEVICE, 1);
		moved(&a, &b, RUV_FEATURE_DEVICE + i, 1);
		moved(&a, &b, RUV_FEATURE_PRIVACY, 1);
		moved(&a, &b, RUV_FEATURE_PRIVACY + i, 1);
	}
	b.system = (ruv_route_system){.latency_budget_ms = 50,
	                              .memory_available = (int64_t)1 << 30,
	                              .battery = 0.1,
	                              .n_concurrent = 9,
	                              .n_queued = 9,
	                              .pages_used = 0.9,
	                              .prefix_hits = 0.1,
	                              .adapter_active = true};
	moved(&a, &b, RUV_FEATURE_BUDGET, 1);
	moved(&a, &b, RUV_FEATURE_MEMORY, 3);
	moved(&a, &b, RUV_FEATURE_QUEUE, 4);
}

static void history_moves_its_features(void **state)
{
	static const float quality[4] = {0.5f, 0.5f, 0.5f, 0.5f};

	(void)state;
	for (int t = 0; t < 4; t++) {
		ruv_route_history before, after;
		ruv_route_state conversation = {0};
		float x[RUV_ROUTE_FEATURES], y[RUV_ROUTE_FEATURES];
		struct scene a;

		fill(&a);
		compute(&a, x);
		compute(&a, y);
		ruv_route_history_init(&before, quality, 4, 10);
		after = before;
		ruv_route_history_add(&after, x, t, 1);
		conversation.n_answers[t] = 1;
		conversation.quality[t] = 1;
		ruv_features_history(x, &before, NULL);
		ruv_features_history(y, &after, &conversation);
		for (int group = 0; group < 4; group++)
			for (int i = 0; i < 4; i++) {
				n_moved[RUV_FEATURE_HISTORY + 4 * group + i] += i == t;
				assert_int_equal(x[RUV_FEATURE_HISTORY + 4 * group + i] != y[RUV_FEATURE_HISTORY + 4 * group + i],
				                 i == t);
			}
	}
}

/* Runs last. */
static void none_was_left_out(void **state)
{
	(void)state;
	for (int i = 0; i < RUV_ROUTE_FEATURES; i++)
		if (!n_moved[i])
			fail_msg("%s was never seen to move", ruv_feature_name(i, NULL));
}

static void every_feature_has_a_name(void **state)
{
	ruv_route_input nothing = {.text = "x"}, wrong = {.text = "x", .embedding = cloud, .dim = DIM + 1}, empty = {.text = ""};
	float f[RUV_ROUTE_FEATURES];
	ruv_error err = {0};

	(void)state;
	for (int i = 0; i < RUV_ROUTE_FEATURES; i++) {
		const char *help = NULL, *name = ruv_feature_name(i, &help);

		assert_non_null(name);
		assert_true(help && *help);
	}
	assert_null(ruv_feature_name(RUV_ROUTE_FEATURES, NULL));
	assert_null(ruv_feature_name(-1, NULL));
	assert_ok(ruv_features_compute(f, NULL, &basis, &nothing, &err), err); /* no classifiers, hits, system */
	assert_int_equal(ruv_features_compute(f, NULL, &basis, &wrong, &err), RUV_EMISMATCH);
	assert_int_equal(ruv_features_compute(f, NULL, &basis, &empty, &err), RUV_EINVAL);
}

static int set_up(void **state)
{
	static const char *const tongues[] = {"Who is this man and where does he live",
	                                      "Wie heisst der Mann und wo wohnt er",
	                                      "Qui est cet homme et ou habite il",
	                                      "Quien es este hombre y donde vive",
	                                      "Chi e questo uomo e dove abita",
	                                      "Quem e este homem e onde ele mora",
	                                      "\xe8\xbf\x99\xe4\xb8\xaa\xe4\xba\xba\xe6\x98\xaf\xe8\xb0\x81",
	                                      "\xd0\xba\xd1\x82\xd0\xbe \xd1\x8d\xd1\x82\xd0\xbe"};
	static const char *const kinds[] = {
	    "Who signed it", "therefore how many remain", "write a poem", "how to install", "summarize this", "hello friend"};
	static char words[RUV_ROUTE_DOMAINS][32];
	ruv_textclass_example examples[8 + 6 + RUV_ROUTE_DOMAINS];
	ruv_error err = {0};
	ruv_rng rng;
	int n = 0;

	(void)state;
	for (int i = 0; i < 8; i++)
		examples[n++] = (ruv_textclass_example){tongues[i], {i, -1, -1}};
	for (int i = 0; i < 6; i++)
		examples[n++] = (ruv_textclass_example){kinds[i], {-1, -1, i}};
	for (int i = 0; i < RUV_ROUTE_DOMAINS; i++) {
		snprintf(words[i], sizeof words[i], "%s matters", ruv_textclass_name(RUV_TEXTCLASS_DOMAIN, i));
		examples[n++] = (ruv_textclass_example){words[i], {-1, i, -1}};
	}
	ruv_rng_init(&rng, 1);
	for (int i = 0; i < N_VECTORS * DIM; i++)
		cloud[i] = (float)ruv_rng_normal(&rng) * (1 + 3.0f * (float)(i % DIM == 2));
	return ruv_textclass_train(&classes, examples, n, 0, 1, NULL, NULL, &err) ||
	       ruv_basis_fit(&basis, cloud, N_VECTORS, DIM, 16, 1, &err);
}

static int tear_down(void **state)
{
	(void)state;
	ruv_textclass_free(classes);
	ruv_basis_release(&basis);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(text_moves_its_features),    cmocka_unit_test(embedding_moves_its_features),
	    cmocka_unit_test(search_moves_its_features),  cmocka_unit_test(system_moves_its_features),
	    cmocka_unit_test(history_moves_its_features), cmocka_unit_test(every_feature_has_a_name),
	    cmocka_unit_test(none_was_left_out)};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
