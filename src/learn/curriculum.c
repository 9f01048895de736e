/* curriculum.c - difficulty of an exchange and the pace of a pass. */
#include "learn/curriculum.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ruvllm/types.h"

/* Occurrences of a word, whole and in any case. */
static int count_word(const char *text, const char *word)
{
	const size_t n = strlen(word);
	int count = 0;
	for (const char *p = text; *p; p++)
		if ((p == text || !isalnum((unsigned char)p[-1])) && strncasecmp(p, word, n) == 0 && !isalnum((unsigned char)p[n]))
			count++;
	return count;
}

float ruv_curriculum_difficulty(const char *question, const char *answer, int n_sources)
{
	static const char *const joints[] = {"and", "then", "after", "before", "both", "each", "than"};
	static const char *const hard[] = {"why", "how", "compare", "explain", "difference", "steps"};
	double score = 0;
	int n_words = 0, n_numbers = 0;
	for (size_t i = 0; i < sizeof joints / sizeof *joints; i++)
		score += 0.5 * count_word(question, joints[i]);
	for (size_t i = 0; i < sizeof hard / sizeof *hard; i++)
		score += 0.7 * count_word(question, hard[i]);
	for (const char *p = question; *p; p++)
		n_numbers += isdigit((unsigned char)*p) && (p == question || !isdigit((unsigned char)p[-1]));
	for (const char *p = answer; *p; p++)
		n_words += !isspace((unsigned char)*p) && (p == answer || isspace((unsigned char)p[-1]));
	score += 0.4 * n_numbers + 0.05 * n_words + (n_sources > 1 ? 0.3 * (n_sources - 1) : 0);
	return (float)(1 - exp(-score / 2));
}

double ruv_curriculum_competence(double progress)
{
	const double c0 = 0.3, t = progress < 0 ? 0 : progress > 1 ? 1 : progress;
	return sqrt(t * (1 - c0 * c0) + c0 * c0);
}

struct ranked {
	float difficulty;
	int index;
};

static int by_difficulty(const void *x, const void *y)
{
	const struct ranked *a = x, *b = y;
	if (a->difficulty != b->difficulty)
		return a->difficulty < b->difficulty ? -1 : 1;
	return a->index < b->index ? -1 : a->index > b->index;
}

int ruv_curriculum_order(int *order, const float *difficulty, int n, double progress, ruv_rng *rng)
{
	if (n <= 0)
		return 0;
	struct ranked *ranked = malloc((size_t)n * sizeof *ranked);
	if (!ranked)
		return RUV_ENOMEM;
	for (int i = 0; i < n; i++)
		ranked[i] = (struct ranked){difficulty[i], i};
	qsort(ranked, (size_t)n, sizeof *ranked, by_difficulty);
	int take = (int)ceil(ruv_curriculum_competence(progress) * n);
	take = take < 1 ? 1 : take > n ? n : take;
	for (int i = 0; i < take; i++)
		order[i] = ranked[i].index;
	for (int i = take - 1; i > 0; i--) {
		const int j = (int)ruv_rng_below(rng, (uint64_t)i + 1), swap = order[i];
		order[i] = order[j];
		order[j] = swap;
	}
	free(ranked);
	return take;
}
