/* bench_dedup.c - what becomes of answers written back when a third of them is there already and some contradict what is there.
 *
 *   bench_dedup DIR MODEL.gguf QUESTIONS.tsv [N [SEED]]     (DIR must not hold a memory yet; QUESTIONS: "question TAB answer"
 * lines)
 *
 * N writes: 65 % pairs that are new, each question once (with a context word when the file has too few), 30 % near-duplicates of a
 * pair written before (asked and answered in other words: fillers, case, punctuation, a rephrased answer) and 5 % contradictions
 * (the same question with another number, name or the opposite). Vectors are the encoder's. Merging: of the duplicates, how many
 * were merged or superseded into the right pair (recall); of all that were merged or superseded, how many were duplicates and went
 * to the right pair (precision). Contradictions: how many were found, with the right pair. History: every text that was ever
 * written must be in a node or in the log. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "ruvllm/memory.h"
#include "ruvllm/model.h"
#include "ruvllm/session.h"

enum { BATCH = 64, MAX_LINE = 1024 };

typedef enum kind { FRESH, DUPLICATE, CONTRADICTION } kind;

typedef struct item {
	kind kind;
	int of; /* the item that it repeats or contradicts */
	char *question, *answer;
	char id[RUV_ID_SIZE]; /* where it went */
	ruv_memory_written_as as;
} item;

static ruv_rng rng;

static void die(const char *what, const ruv_error *err)
{
	fprintf(stderr, "bench_dedup: %s%s%s\n", what, err ? ": " : "", err ? err->message : "");
	exit(1);
}

static char *print(const char *fmt, const char *a, const char *b)
{
	char *text;

	if (asprintf(&text, fmt, a, b) < 0)
		die("out of memory", NULL);
	return text;
}

/* The question as somebody else would ask it. */
static char *ask_again(const char *q)
{
	static const char *const forms[] = {"%s%s",
	                                    "Please tell me: %s%s",
	                                    "%s%s Thanks.",
	                                    "Hi, %s%s",
	                                    "I would like to know: %s%s",
	                                    "Do you know? %s%s",
	                                    "%s%s ?",
	                                    "So, %s%s"};
	char *text = print(forms[ruv_rng_below(&rng, 8)], q, "");
	size_t n = strlen(text);

	switch (ruv_rng_below(&rng, 4)) {
	case 0: /* without its mark */
		if (n && text[n - 1] == '?')
			text[n - 1] = '\0';
		break;
	case 1: { /* another space */
		char *the = strstr(text, " the ");
		if (the)
			*the = '\t';
		break;
	}
	default:
		break;
	}
	return text;
}

static char *answer_again(const char *a)
{
	static const char *const forms[] = {"%s%s", "%s%s.", "It is %s%s.", "That was %s%s.", "The answer is %s%s.", "%s%s!"};

	return print(forms[ruv_rng_below(&rng, 6)], a, "");
}

/* Another answer to the same question. */
static char *answer_otherwise(const char *a, const item *others, int n)
{
	char *text = strdup(a), *digit = text;

	while (*digit && !isdigit((unsigned char)*digit))
		digit++;
	if (*digit) {
		*digit = (char)('1' + (*digit - '0' + 3) % 9);
		return text;
	}
	free(text);
	for (int tries = 0; tries < 1000; tries++) { /* one that has no word with it in common */
		const item *other = &others[ruv_rng_below(&rng, (uint64_t)n)];
		char *copy = strdup(a), *save = NULL;
		bool shared = other->kind != FRESH;
		for (char *w = strtok_r(copy, " ,.", &save); w && !shared; w = strtok_r(NULL, " ,.", &save))
			shared = strlen(w) > 2 && strcasestr(other->answer, w);
		free(copy);
		if (!shared)
			return strdup(other->answer);
	}
	return print("not %s%s", a, "");
}

static int read_pairs(const char *path, item *items, int n)
{
	static const char *const contexts[] = {"",
	                                       "According to the first report, ",
	                                       "In the second edition, ",
	                                       "By the survey of 1987, ",
	                                       "In the Oslo archive, ",
	                                       "As chapter 12 has it, ",
	                                       "In the Kyoto records, ",
	                                       "By the 2011 census, "};
	char line[MAX_LINE];
	int got = 0;

	for (size_t round = 0; got < n && round < sizeof contexts / sizeof *contexts; round++) {
		FILE *f = fopen(path, "r");
		if (!f)
			die("the questions cannot be read", NULL);
		while (got < n && fgets(line, sizeof line, f)) {
			char *tab = strchr(line, '\t');
			if (!tab)
				continue;
			*tab++ = '\0';
			tab[strcspn(tab, "\n")] = '\0';
			items[got].kind = FRESH;
			items[got].question = print("%s%s", contexts[round], line);
			items[got].answer = strdup(tab);
			got++;
		}
		fclose(f);
	}
	return got;
}

static void embed(ruv_embedder *embedder, int dim, const item *items, int n, float *to)
{
	const char *texts[BATCH];
	char *made[BATCH];
	ruv_error err = {0};

	for (int i = 0; i < n; i++)
		texts[i] = made[i] = print("%s\n%s", items[i].question, items[i].answer);
	if (ruv_embedder_embed(embedder, texts, n, RUV_EMBED_PASSAGE, to, NULL, &err))
		die("embedding", &err);
	for (int i = 0; i < n; i++)
		free(made[i]);
	(void)dim;
}

/* Is the pair's text in a node or in the log of one? */
static bool in_history(ruv_memory *m, const item *it)
{
	char *text = print("Q: %s\nA: %s", it->question, it->answer);
	ruv_memory_nodes nodes = {0};
	ruv_memory_events events = {0};
	ruv_error err = {0};
	bool found = false;

	if (!ruv_memory_get(m, &nodes, it->id, &err))
		found = !strcmp(nodes.items[0].text, text);
	if (!found && !ruv_memory_history(m, &events, it->id, 1000, &err)) {
		char *answer = print("A: %s%s", it->answer, "");
		for (int i = 0; i < events.n && !found; i++)
			found = strstr(events.items[i].detail, answer) != NULL; /* JSON: the answer's line as it is */
		free(answer);
	}
	ruv_memory_nodes_release(&nodes);
	ruv_memory_events_release(&events);
	free(text);
	return found;
}

int main(int argc, char **argv)
{
	int n = argc > 4 ? atoi(argv[4]) : 10000, n_fresh, dim, n_dup = 0, n_con = 0, n_written = 0, written_as[6] = {0};
	int merged = 0, right = 0, found = 0, contradicted = 0, contradicted_right = 0, lost = 0, kept = 0;
	ruv_model_options model_options = {.n_threads = 1};
	ruv_memory_options options = {.create = true};
	ruv_embedder *embedder;
	ruv_model *model;
	ruv_memory *m;
	ruv_error err = {0};
	int64_t start;
	float *vectors;
	item *items;

	if (argc < 4)
		die("DIR MODEL.gguf QUESTIONS.tsv [N [SEED]]", NULL);
	ruv_rng_init(&rng, argc > 5 ? (uint64_t)atoll(argv[5]) : 1);
	items = calloc((size_t)n, sizeof *items);
	n_fresh = read_pairs(argv[3], items, n - n * 30 / 100 - n * 5 / 100);
	if (n_fresh < 100)
		die("too few questions", NULL);
	n = n_fresh * 100 / 65;
	/* Duplicates and contradictions of pairs that stand before them, each pair contradicted once at most. */
	for (int i = n_fresh; i < n; i++) {
		item *it = &items[i];
		bool dup = (i - n_fresh) % 7 != 6; /* 30 to 5 */
		it->of = (int)ruv_rng_below(&rng, (uint64_t)n_fresh);
		if (!dup)
			it->of = (i - n_fresh) / 7 * 11 % n_fresh;
		it->kind = dup ? DUPLICATE : CONTRADICTION;
		it->question = dup ? ask_again(items[it->of].question) : strdup(items[it->of].question);
		it->answer = dup ? answer_again(items[it->of].answer) : answer_otherwise(items[it->of].answer, items, n_fresh);
		n_dup += dup;
		n_con += !dup;
	}
	if (ruv_model_open(&model, argv[2], &model_options, &err) || ruv_embedder_open(&embedder, model, 0, &err))
		die("the encoder", &err);
	dim = ruv_embedder_dim(embedder);
	options.embedder_id = "bench";
	options.dimension = dim;
	if (ruv_memory_open(&m, argv[1], &options, &err))
		die("the memory", &err);
	vectors = malloc(sizeof *vectors * BATCH * (size_t)dim);
	start = ruv_clock_now_ns();
	for (int i = 0; i < n; i += BATCH) {
		int here = n - i < BATCH ? n - i : BATCH;
		ruv_memory_answer answers[BATCH];
		ruv_memory_written written[BATCH];
		embed(embedder, dim, items + i, here, vectors);
		for (int j = 0; j < here; j++)
			answers[j] = (ruv_memory_answer){.question = items[i + j].question,
			                                 .answer = items[i + j].answer,
			                                 .vector = vectors + (size_t)j * (size_t)dim,
			                                 .quality = 0.8f + 0.15f * (float)ruv_rng_double(&rng)};
		if (ruv_memory_write_back(m, written, answers, here, &err))
			die("writing back", &err);
		for (int j = 0; j < here; j++) {
			item *it = &items[i + j];
			const item *of = &items[it->of];
			it->as = written[j].as;
			memcpy(it->id, written[j].id, sizeof it->id);
			written_as[it->as]++;
			if (it->as == RUV_WRITTEN_MERGED || it->as == RUV_WRITTEN_SUPERSEDED) {
				bool same = it->kind == DUPLICATE && !strcmp(written[j].id, of->id);
				merged++;
				right += same;
				found += same;
				if (!same && getenv("VERBOSE"))
					printf("wrongly merged: %s | %s  (kind %d, %s)\n", it->question, it->answer, it->kind,
					       written[j].why);
			} else if (it->kind == DUPLICATE && getenv("VERBOSE")) {
				printf("not merged (%d): %s | %s  <> %s | %s  cos %.2f\n", it->as, it->question, it->answer,
				       of->question, of->answer, (double)written[j].cosine);
			}
			if (it->as == RUV_WRITTEN_CONTRADICTS) {
				contradicted++;
				contradicted_right += it->kind == CONTRADICTION && !strcmp(written[j].other, of->id);
			} else if (it->kind == CONTRADICTION && getenv("VERBOSE")) {
				printf("contradiction missed (%d): %s | %s <> %s\n", it->as, it->question, it->answer, of->answer);
			}
		}
		n_written += here;
	}
	start = ruv_clock_now_ns() - start;
	for (int i = 0; i < n; i++) {
		bool stored = items[i].as == RUV_WRITTEN_NEW || items[i].as == RUV_WRITTEN_CONTRADICTS ||
		              items[i].as == RUV_WRITTEN_SUPERSEDED;
		kept += stored;
		lost += stored && !in_history(m, &items[i]);
	}
	printf("%d writes: %d new, %d near-duplicates, %d contradictions; %.1f s, %.0f a second with embedding\n", n_written,
	       n_fresh, n_dup, n_con, 1e-9 * (double)start, n_written / (1e-9 * (double)start));
	printf("became: new %d, merged %d, superseded %d, contradicts %d, not good %d, junk %d\n", written_as[0], written_as[1],
	       written_as[2], written_as[3], written_as[4], written_as[5]);
	printf("merging: precision %.4f, recall %.4f\n", merged ? (double)right / merged : 0, n_dup ? (double)found / n_dup : 0);
	printf("contradictions: precision %.4f, recall %.4f\n", contradicted ? (double)contradicted_right / contradicted : 0,
	       n_con ? (double)contradicted_right / n_con : 0);
	printf("history: %d of %d texts that were stored are lost\n", lost, kept);
	ruv_memory_free(m);
	return lost != 0;
}
