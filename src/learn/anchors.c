/* anchors.c - what an adapter is held to while it learns, and what its cost is measured on.
 *
 * Anchors are texts on which every step lowers the divergence between the adapted and the bare model: the prose of base_text.c, and
 * texts that the bare model draws from its own distribution. The latter need no data of anybody's and cover whatever the model can
 * say: the mean divergence over them is the divergence of the two distributions (the idea of pseudo-rehearsal, Robins 1995, with
 * distillation as in Li & Hoiem 2016). They are drawn at the first step that wants them and kept in DIR/anchors.bin:
 * section "shape" {n, n_tokens, 0, 0} as u32 and the model's fingerprint as u64, section "tokens" [n, n_tokens] i32.
 *
 * Threads: under the learner's work lock. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/status.h"
#include "learn/base_text.h"
#include "learn/learner_object.h"
#include "learn/section_file.h"
#include "model/object.h"

static const char where[] = "learn";
static const char kind[8] = {'R', 'U', 'V', 'A', 'N', 'C', 'H', 'R'};

enum { N_DRAWN = 192, N_DRAWN_LARGE = 24, LARGE = 60000000 /* parameters from which on drawing costs too much */, AT_ONCE = 24 };

struct shape {
	uint32_t n, n_tokens, zero[2];
	uint64_t fingerprint;
};

static int make_texts(ruv_learner *l, ruv_example **out, int *n, const char *const *texts, int max_tokens, ruv_error *err)
{
	int count = 0, rc = RUV_OK;
	while (texts[count])
		count++;
	*out = calloc((size_t)count + 1, sizeof **out);
	if (!*out)
		return ruv_fail_memory(err, where, (size_t)count * sizeof **out);
	for (*n = 0; *n < count && rc == RUV_OK; ++*n)
		rc = ruv_lesson_text(&(*out)[*n], l->model, texts[*n], max_tokens, err);
	return rc;
}

int ruv_anchors_open(ruv_learner *l, ruv_error *err)
{
	int rc = make_texts(l, &l->anchors, &l->n_anchors, ruv_learn_anchors, RUV_LEARN_ANCHOR_TOKENS, err);
	return rc ? rc : make_texts(l, &l->suite, &l->n_suite, ruv_learn_base_suite, RUV_LEARN_MAX_TOKENS, err);
}

static int n_wanted(const ruv_learner *l)
{
	return l->model->weights.n_params < LARGE ? N_DRAWN : N_DRAWN_LARGE;
}

static int n_tokens(const ruv_learner *l)
{
	const int most = l->model->hp.n_ctx_train;
	return most < RUV_LEARN_ANCHOR_TOKENS ? most : RUV_LEARN_ANCHOR_TOKENS;
}

/* What an earlier run drew; RUV_ENOTFOUND when it was for something else. */
static int read_drawn(const ruv_learner *l, const char *path, ruv_token *ids, ruv_error *err)
{
	const struct shape mine = {
	    .n = (uint32_t)n_wanted(l), .n_tokens = (uint32_t)n_tokens(l), .fingerprint = ruv_model_fingerprint(l->model)};
	const size_t size = (size_t)mine.n * mine.n_tokens * sizeof *ids;
	ruv_section_file file;
	const void *shape, *tokens;
	int rc = ruv_section_open(&file, path, kind, 1, err);
	if (rc)
		return rc;
	rc = ruv_section_need(&file, "shape", sizeof mine, &shape, err);
	if (rc == RUV_OK && memcmp(shape, &mine, sizeof mine) != 0)
		rc = RUV_ENOTFOUND;
	if (rc == RUV_OK)
		rc = ruv_section_need(&file, "tokens", size, &tokens, err);
	if (rc == RUV_OK)
		memcpy(ids, tokens, size);
	for (size_t i = 0; i < size / sizeof *ids && rc == RUV_OK; i++)
		if (ids[i] < 0 || ids[i] >= l->model->hp.n_vocab)
			rc = RUV_ENOTFOUND;
	ruv_section_release(&file);
	return rc;
}

static int write_drawn(const ruv_learner *l, const char *path, const ruv_token *ids, ruv_error *err)
{
	const struct shape mine = {
	    .n = (uint32_t)n_wanted(l), .n_tokens = (uint32_t)n_tokens(l), .fingerprint = ruv_model_fingerprint(l->model)};
	ruv_section_writer writer;
	ruv_section_writer_init(&writer);
	int rc = ruv_section_put(&writer, "shape", &mine, sizeof mine, err);
	if (rc == RUV_OK)
		rc = ruv_section_put(&writer, "tokens", ids, (size_t)mine.n * mine.n_tokens * sizeof *ids, err);
	if (rc == RUV_OK)
		rc = ruv_section_commit(&writer, kind, 1, path, err);
	ruv_section_writer_release(&writer);
	return rc;
}

/* Each begins as the vocabulary wants a text to begin, or with the first token of some prose. */
static int draw(ruv_learner *l, ruv_token *ids, ruv_error *err)
{
	const int n = n_wanted(l), length = n_tokens(l);
	const ruv_token bos = ruv_model_token_bos(l->model);
	int rc = RUV_OK;
	for (int at = 0; at < n && rc == RUV_OK; at += AT_ONCE) {
		const int m = n - at < AT_ONCE ? n - at : AT_ONCE;
		ruv_token first[AT_ONCE];
		for (int i = 0; i < m; i++)
			first[i] = bos >= 0 ? bos : l->anchors[(at + i) % l->n_anchors].tokens[0];
		rc = ruv_backward_sample(l->model, first, m, length, (uint64_t)at + 1, ids + (ptrdiff_t)at * length, err);
		if (rc == RUV_OK && ruv_learner_stops(l))
			rc = ruv_fail(err, RUV_ECANCELLED, where, "the learner is closing");
	}
	return rc;
}

static int add_drawn(ruv_learner *l, const ruv_token *ids, ruv_error *err)
{
	const int n = n_wanted(l), length = n_tokens(l);
	float weight[RUV_LEARN_ANCHOR_TOKENS] = {0};
	ruv_rng rng;
	ruv_example *all = realloc(l->anchors, (size_t)(l->n_anchors + n) * sizeof *all);
	if (!all)
		return ruv_fail_memory(err, where, (size_t)(l->n_anchors + n) * sizeof *all);
	l->anchors = all;
	for (int i = 1; i < length; i++)
		weight[i] = 1.0f / (float)(length - 1);
	for (int i = 0; i < n; i++) {
		const ruv_example e = {.tokens = (ruv_token *)ids + (ptrdiff_t)i * length, .weight = weight, .n = length};
		int rc = ruv_example_copy(&l->anchors[l->n_anchors], &e, err);
		if (rc)
			return rc;
		l->n_anchors++;
	}
	ruv_rng_init(&rng, 4); /* steps go through them in turn: both kinds mixed */
	for (int i = l->n_anchors - 1; i > 0; i--) {
		const int j = (int)ruv_rng_below(&rng, (uint64_t)i + 1);
		const ruv_example swap = l->anchors[i];
		l->anchors[i] = l->anchors[j];
		l->anchors[j] = swap;
	}
	return RUV_OK;
}

int ruv_anchors_draw(ruv_learner *l, ruv_error *err)
{
	char path[4200];
	if (l->drawn || n_tokens(l) < 2)
		return RUV_OK;
	ruv_token *ids = malloc((size_t)n_wanted(l) * (size_t)n_tokens(l) * sizeof *ids);
	if (!ids)
		return ruv_fail_memory(err, where, (size_t)n_wanted(l) * (size_t)n_tokens(l) * sizeof *ids);
	snprintf(path, sizeof path, "%s/anchors.bin", l->dir);
	int rc = read_drawn(l, path, ids, err);
	if (rc) { /* not there, of another model, or damaged: it is only a cache */
		rc = draw(l, ids, err);
		if (rc == RUV_OK && write_drawn(l, path, ids, err))
			ruv_log(RUV_LOG_WARN, where, "%s", err->message);
	}
	if (rc == RUV_OK)
		rc = add_drawn(l, ids, err);
	l->drawn = rc == RUV_OK;
	free(ids);
	return rc;
}
