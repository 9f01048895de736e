/* quote.c - "[n] sentence\nAnswer:" as a constraint on generation: see quote.h.
 *
 * The text is fixed once and tokenized as the model was trained on it, so that the constraint is a list of tokens and a place in
 * it. The place follows from how many tokens were accepted and what the first one was: taking tokens back is a subtraction. */
#include "runtime/quote.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/status.h"

static const char where[] = "ask";

struct ruv_quote {
	ruv_constraint constraint;
	ruv_token *forced; /* [n_forced], the first begins with "[" */
	int n_forced;
	uint64_t *may_begin; /* [n_words] every token but those that begin with "[" in another way */
	int n_words;
	int n_accepted;
	bool quoting; /* the first token was forced[0] */
};

static int fill(void *state, uint64_t *allowed, int n_vocab, ruv_error *err)
{
	const ruv_quote *q = state;

	(void)err;
	if (q->n_accepted == 0) {
		int n = (n_vocab + 63) / 64;

		memcpy(allowed, q->may_begin, (size_t)(n < q->n_words ? n : q->n_words) * sizeof *allowed);
		return RUV_OK;
	}
	if (!q->quoting || q->n_accepted >= q->n_forced)
		return RUV_CONSTRAINT_ALL;
	allowed[q->forced[q->n_accepted] / 64] |= (uint64_t)1 << q->forced[q->n_accepted] % 64;
	return RUV_OK;
}

static int accept_token(void *state, ruv_token token, ruv_error *err)
{
	ruv_quote *q = state;

	(void)err;
	if (q->n_accepted == 0)
		q->quoting = token == q->forced[0];
	q->n_accepted++;
	return RUV_OK;
}

static int rollback(void *state, int n_tokens, ruv_error *err)
{
	ruv_quote *q = state;

	(void)err;
	q->n_accepted -= n_tokens;
	return RUV_OK;
}

static void free_quote(void *state)
{
	ruv_quote *q = state;

	if (!q)
		return;
	free(q->forced);
	free(q->may_begin);
	free(q);
}

static int fork_quote(void *state, void **copy, ruv_error *err)
{
	const ruv_quote *q = state;
	ruv_quote *twin = malloc(sizeof *twin);

	*copy = NULL;
	if (!twin)
		return ruv_fail_memory(err, where, sizeof *twin);
	*twin = *q;
	twin->forced = malloc((size_t)q->n_forced * sizeof *q->forced);
	twin->may_begin = malloc((size_t)q->n_words * sizeof *q->may_begin);
	if (!twin->forced || !twin->may_begin) {
		free_quote(twin);
		return ruv_fail_memory(err, where, (size_t)q->n_words * sizeof *q->may_begin);
	}
	memcpy(twin->forced, q->forced, (size_t)q->n_forced * sizeof *q->forced);
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

		if (n && bytes[0] == '[' && i != q->forced[0])
			q->may_begin[i / 64] &= ~((uint64_t)1 << i % 64);
	}
	return RUV_OK;
}

int ruv_quote_open(ruv_quote **out, const ruv_model *model, const ruv_evidence *evidence, ruv_error *err)
{
	int best = ruv_evidence_best(evidence), rc;
	ruv_token_list tokens = {0};
	ruv_quote *q;
	ruv_buf text;

	*out = NULL;
	if (best < 0)
		return RUV_OK;
	q = calloc(1, sizeof *q);
	if (!q)
		return ruv_fail_memory(err, where, sizeof *q);
	q->constraint = (ruv_constraint){
	    .state = q, .fill = fill, .accept = accept_token, .rollback = rollback, .fork = fork_quote, .free = free_quote};
	ruv_buf_init(&text, (size_t)1 << 24);
	ruv_buf_printf(&text, "[%d] %s\nAnswer:", evidence->items[best].source + 1, evidence->items[best].text);
	rc = text.failed ? ruv_fail_memory(err, where, text.len) : ruv_model_tokenize(model, text.data, text.len, 0, &tokens, err);
	ruv_buf_release(&text);
	if (rc)
		goto done;
	q->forced = tokens.ids;
	q->n_forced = tokens.n;
	tokens = (ruv_token_list){0};
	rc = mark_beginnings(q, model, err);
	if (rc)
		goto done;
	*out = q;
	q = NULL;
done:
	ruv_token_list_release(&tokens);
	free_quote(q);
	return rc;
}

void ruv_quote_free(ruv_quote *quote)
{
	free_quote(quote);
}

const ruv_constraint *ruv_quote_constraint(const ruv_quote *quote)
{
	return quote ? &quote->constraint : NULL;
}

int ruv_quote_n_given(const ruv_quote *quote)
{
	if (!quote || !quote->quoting)
		return 0;
	return quote->n_accepted < quote->n_forced ? quote->n_accepted : quote->n_forced;
}
