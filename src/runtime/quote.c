/* quote.c - "[n] sentence\nAnswer:" as a constraint on generation: see quote.h.
 *
 * Each candidate's text is fixed once and tokenized as the model was trained on it, so that the constraint is a few lists of tokens
 * and a place in them: a candidate lives on while what was accepted is its beginning. The place is the number of accepted tokens,
 * and of each candidate it is known at which token it was left: taking tokens back is a subtraction. Layer: runtime. */
#include "runtime/quote.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/status.h"

static const char where[] = "ask";

enum { MAX_CANDIDATES = 4, ALIVE = -1 };

typedef struct candidate {
	ruv_token *forced; /* [n_forced], the first begins with "[" */
	int n_forced;
	int left_at; /* the accepted token that was not its own; ALIVE: all were, as far as they go */
} candidate;

struct ruv_quote {
	ruv_constraint constraint;
	candidate candidates[MAX_CANDIDATES]; /* best first; all begin with the same token */
	int n_candidates;
	uint64_t *may_begin; /* [n_words] every token but those that begin with "[" in another way */
	int n_words;
	int n_accepted;
	float bias;
};

/* The best candidate that what was accepted so far agrees with; NULL: none, the model began otherwise. */
static const candidate *alive(const ruv_quote *q)
{
	for (int i = 0; i < q->n_candidates; i++)
		if (q->candidates[i].left_at == ALIVE)
			return &q->candidates[i];
	return NULL;
}

static int fill(void *state, uint64_t *allowed, int n_vocab, ruv_error *err)
{
	const ruv_quote *q = state;
	const candidate *best = alive(q);

	(void)err;
	if (q->n_accepted == 0) {
		int n = (n_vocab + 63) / 64;

		memcpy(allowed, q->may_begin, (size_t)(n < q->n_words ? n : q->n_words) * sizeof *allowed);
		return RUV_OK;
	}
	if (!best || q->n_accepted >= best->n_forced)
		return RUV_CONSTRAINT_ALL;
	for (int i = 0; i < q->n_candidates; i++) {
		const candidate *c = &q->candidates[i];

		if (c->left_at == ALIVE && q->n_accepted < c->n_forced)
			allowed[c->forced[q->n_accepted] / 64] |= (uint64_t)1 << c->forced[q->n_accepted] % 64;
	}
	return RUV_OK;
}

static int accept_token(void *state, ruv_token token, ruv_error *err)
{
	ruv_quote *q = state;

	(void)err;
	for (int i = 0; i < q->n_candidates; i++) {
		candidate *c = &q->candidates[i];

		if (c->left_at == ALIVE && q->n_accepted < c->n_forced && c->forced[q->n_accepted] != token)
			c->left_at = q->n_accepted;
	}
	q->n_accepted++;
	return RUV_OK;
}

static int rollback(void *state, int n_tokens, ruv_error *err)
{
	ruv_quote *q = state;

	(void)err;
	q->n_accepted -= n_tokens;
	for (int i = 0; i < q->n_candidates; i++)
		if (q->candidates[i].left_at >= q->n_accepted)
			q->candidates[i].left_at = ALIVE;
	return RUV_OK;
}

static void free_quote(void *state)
{
	ruv_quote *q = state;

	if (!q)
		return;
	for (int i = 0; i < q->n_candidates; i++)
		free(q->candidates[i].forced);
	free(q->may_begin);
	free(q);
}

static int fork_quote(void *state, void **copy, ruv_error *err)
{
	const ruv_quote *q = state;
	ruv_quote *twin = malloc(sizeof *twin);
	bool failed = false;

	*copy = NULL;
	if (!twin)
		return ruv_fail_memory(err, where, sizeof *twin);
	*twin = *q;
	for (int i = 0; i < q->n_candidates; i++) {
		candidate *c = &twin->candidates[i];

		c->forced = malloc((size_t)c->n_forced * sizeof *c->forced);
		failed = failed || !c->forced;
		if (c->forced)
			memcpy(c->forced, q->candidates[i].forced, (size_t)c->n_forced * sizeof *c->forced);
	}
	twin->may_begin = malloc((size_t)q->n_words * sizeof *q->may_begin);
	if (failed || !twin->may_begin) {
		free_quote(twin);
		return ruv_fail_memory(err, where, (size_t)q->n_words * sizeof *q->may_begin);
	}
	memcpy(twin->may_begin, q->may_begin, (size_t)q->n_words * sizeof *q->may_begin);
	twin->constraint.state = twin;
	*copy = twin;
	return RUV_OK;
}

/* Every token may begin the text, but of those that begin with "[" only the one that begins the quotation. */
static int mark_beginnings(ruv_quote *q, const ruv_model *model, ruv_error *err)
{
	ruv_model_info info;

	ruv_model_get_info(model, &info);
	q->n_words = (info.n_tokens + 63) / 64;
	q->may_begin = malloc((size_t)q->n_words * sizeof *q->may_begin);
	if (!q->may_begin)
		return ruv_fail_memory(err, where, (size_t)q->n_words * sizeof *q->may_begin);
	memset(q->may_begin, 0xff, (size_t)q->n_words * sizeof *q->may_begin);
	for (int i = 0; i < info.n_tokens; i++) {
		size_t n = 0;
		const char *bytes = ruv_model_token_bytes(model, i, &n);

		if (n && bytes[0] == '[' && i != q->candidates[0].forced[0])
			q->may_begin[i / 64] &= ~((uint64_t)1 << i % 64);
	}
	return RUV_OK;
}

static int add_candidate(ruv_quote *q, const ruv_model *model, const ruv_sentence_evidence *sentence, ruv_error *err)
{
	ruv_token_list tokens = {0};
	ruv_buf text;
	int rc;

	ruv_buf_init(&text, (size_t)1 << 24);
	ruv_buf_printf(&text, "[%d] %s\nAnswer:", sentence->source + 1, sentence->text);
	rc = text.failed ? ruv_fail_memory(err, where, text.len) : ruv_model_tokenize(model, text.data, text.len, 0, &tokens, err);
	ruv_buf_release(&text);
	/* A vocabulary may have "[1" as one token: then only the best one's beginning is offered. */
	if (!rc && (!q->n_candidates || tokens.ids[0] == q->candidates[0].forced[0])) {
		q->candidates[q->n_candidates++] = (candidate){tokens.ids, tokens.n, ALIVE};
		tokens = (ruv_token_list){0};
	}
	ruv_token_list_release(&tokens);
	return rc;
}

/* The best sentence, and after it those within reach of it, best first. */
static int add_candidates(ruv_quote *q, const ruv_model *model, const ruv_evidence *evidence, float within, ruv_error *err)
{
	const ruv_sentence_evidence *items = evidence->items;
	int last = ruv_evidence_best(evidence);
	float least = items[last].score - within;
	int rc = add_candidate(q, model, &items[last], err);

	for (int n = 1; !rc && within > 0 && n < MAX_CANDIDATES; n++) {
		int next = -1;

		for (int i = 0; i < evidence->n; i++) {
			bool behind = items[i].score < items[last].score || (i > last && items[i].score == items[last].score);

			if (behind && items[i].score >= least && (next < 0 || items[i].score > items[next].score))
				next = i;
		}
		if (next < 0)
			break;
		rc = add_candidate(q, model, &items[next], err);
		last = next;
	}
	return rc;
}

int ruv_quote_open(ruv_quote **out, const ruv_model *model, const ruv_evidence *evidence, const ruv_calibrated *calibrated,
                   ruv_error *err)
{
	ruv_quote *q;
	int rc;

	*out = NULL;
	if (ruv_evidence_best(evidence) < 0)
		return RUV_OK;
	q = calloc(1, sizeof *q);
	if (!q)
		return ruv_fail_memory(err, where, sizeof *q);
	q->constraint = (ruv_constraint){
	    .state = q, .fill = fill, .accept = accept_token, .rollback = rollback, .fork = fork_quote, .free = free_quote};
	q->bias = calibrated->bias;
	rc = add_candidates(q, model, evidence, calibrated->within, err);
	if (!rc)
		rc = mark_beginnings(q, model, err);
	if (rc) {
		free_quote(q);
		return rc;
	}
	*out = q;
	return RUV_OK;
}

void ruv_quote_free(ruv_quote *quote)
{
	free_quote(quote);
}

const ruv_constraint *ruv_quote_constraint(const ruv_quote *quote)
{
	return quote ? &quote->constraint : NULL;
}

ruv_logit_bias ruv_quote_bias(const ruv_quote *quote)
{
	return (ruv_logit_bias){.token = quote->candidates[0].forced[0], .bias = quote->bias};
}

int ruv_quote_n_given(const ruv_quote *quote)
{
	const candidate *quoted = quote ? alive(quote) : NULL;

	if (!quoted)
		return 0;
	return quote->n_accepted < quoted->n_forced ? quote->n_accepted : quoted->n_forced;
}
