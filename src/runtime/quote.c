/* quote.c - greedy decoding whose quotes are sentences of the sources.
 *
 * A small model finds the right sentence more often than it copies it right: a name or a figure changes on the way. So the choice
 * is the model's and the copying is not: after "[n]" every token must go on with a sentence of source n, from its first letter; the
 * likeliest such token is taken, and the sentence may end (a new line) where the source's does. This is constrained decoding with
 * the set of the source's sentences as its grammar.
 *
 * Positions in the source, not strings, are what is kept: a candidate is where the quote would go on if it had begun at that
 * sentence. Invariant: all live candidates have the same text behind them, the quote so far. */
#include "runtime/quote.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "model/object.h"
#include "text/chunk.h"
#include "text/unicode.h"

enum { MAX_SENTENCES = 1024, MAX_TOKENS = 4096 };

typedef struct candidate {
	const char *at, *end; /* what is left of the sentence */
} candidate;

typedef enum state {
	BEGINNING, /* nothing but perhaps part of "[n]" */
	QUOTING,   /* inside the sentence, the space before it included */
	FREE
} state;

typedef struct guide {
	ruv_session *session;
	ruv_model *model;
	const ruv_context_source *sources;
	int n_sources;
	state state;
	ruv_buf source; /* the squashed text that is quoted from, a space before it */
	candidate live[MAX_SENTENCES];
	int n_live;
} guide;

/* Candidates: every sentence of source `number`. Without one (no text) the model goes on freely. */
static int begin_quote(guide *g, int number, ruv_error *err)
{
	size_t from = 1, begin, end;

	ruv_buf_clear(&g->source);
	ruv_buf_putc(&g->source, ' ');
	ruv_context_squash(&g->source, g->sources[number - 1].text);
	if (g->source.failed)
		return ruv_fail_memory(err, "ask", g->source.len);
	g->n_live = 0;
	while (g->n_live < MAX_SENTENCES && ruv_sentence_next(g->source.data, g->source.len, from, &begin, &end)) {
		if (begin > 0 && g->source.data[begin - 1] == ' ')
			g->live[g->n_live++] = (candidate){g->source.data + begin - 1, g->source.data + end};
		from = end > from ? end : from + 1;
	}
	g->state = g->n_live ? QUOTING : FREE;
	return RUV_OK;
}

/* May the quote go on with these bytes as `c` has them? A new line is the end of the sentence. */
static bool goes_on(const candidate *c, const char *bytes, size_t n)
{
	size_t left = (size_t)(c->end - c->at);

	if (n <= left)
		return !memcmp(bytes, c->at, n);
	return n == left + 1 && bytes[n - 1] == '\n' && !memcmp(bytes, c->at, left);
}

static bool allowed(const guide *g, const char *bytes, size_t n)
{
	if (n == 0)
		return false;
	for (int i = 0; i < g->n_live; i++)
		if (goes_on(&g->live[i], bytes, n))
			return true;
	return false;
}

/* The likeliest token that the state allows; -1: none (a vocabulary that cannot spell the source). */
static ruv_token choose(const guide *g, const float *logits)
{
	ruv_token best = -1;

	for (int i = 0; i < g->model->hp.n_vocab; i++) {
		if (!g->model->may_sample[i] || (best >= 0 && logits[i] <= logits[best]))
			continue;
		if (g->state == QUOTING) {
			size_t n = 0;
			const char *bytes = ruv_model_token_bytes(g->model, i, &n);

			if (ruv_model_token_is_end(g->model, i) || !bytes || !allowed(g, bytes, n))
				continue;
		}
		best = i;
	}
	return best;
}

/* "[12]" as the whole text: its number, else 0. */
static int whole_mark(const ruv_buf *text)
{
	int number = 0;
	size_t i = 1;

	if (text->len < 3 || text->len > 5 || text->data[0] != '[' || text->data[text->len - 1] != ']')
		return 0;
	for (; i < text->len - 1; i++) {
		if (!isdigit((unsigned char)text->data[i]))
			return 0;
		number = 10 * number + (text->data[i] - '0');
	}
	return number;
}

/* Moves the state over the token that was taken. */
static int advance(guide *g, const char *bytes, size_t n, const ruv_buf *text, ruv_error *err)
{
	int kept = 0, number;

	switch (g->state) {
	case BEGINNING:
		number = whole_mark(text);
		if (number >= 1 && number <= g->n_sources)
			return begin_quote(g, number, err);
		if (text->len > 5 || (text->len && text->data[0] != '['))
			g->state = FREE;
		break;
	case QUOTING:
		if (bytes[n - 1] == '\n') {
			g->state = FREE;
			break;
		}
		for (int i = 0; i < g->n_live; i++)
			if (goes_on(&g->live[i], bytes, n))
				g->live[kept++] = (candidate){g->live[i].at + n, g->live[i].end};
		g->n_live = kept;
		break;
	case FREE:
		break;
	}
	return RUV_OK;
}

/* Appends a token and hands out what of its text is whole. */
static int emit(ruv_generation *out, ruv_token token, const char *bytes, size_t n, ruv_utf8_stream *utf8, ruv_buf *text,
                const ruv_generate_params *params, bool *go_on, ruv_error *err)
{
	size_t shown = text->len;

	out->tokens[out->n_tokens++] = token;
	if (ruv_utf8_stream_push(utf8, bytes, n, text))
		return ruv_fail_memory(err, "ask", text->len);
	if (params->on_piece && text->len > shown) {
		ruv_piece piece = {text->data + shown, text->len - shown, out->n_tokens};

		*go_on = params->on_piece(params->user, &piece);
	}
	return RUV_OK;
}

static int decode(guide *g, const ruv_generate_params *params, int max_tokens, ruv_buf *text, ruv_generation *out, ruv_error *err)
{
	ruv_utf8_stream utf8;
	bool go_on = true;
	int rc = RUV_OK;

	ruv_utf8_stream_init(&utf8);
	out->finish = RUV_FINISH_LENGTH;
	while (out->n_tokens < max_tokens) {
		const float *logits = ruv_session_logits(g->session);
		ruv_token token = choose(g, logits);
		const char *bytes;
		size_t n = 0;

		if (token < 0) { /* cannot be held to the source: the citation's check will say so */
			g->state = FREE;
			token = choose(g, logits);
		}
		if (ruv_model_token_is_end(g->model, token)) {
			out->finish = RUV_FINISH_STOP;
			out->end_token = token;
			break;
		}
		bytes = ruv_model_token_bytes(g->model, token, &n);
		rc = emit(out, token, bytes, n, &utf8, text, params, &go_on, err);
		if (!rc)
			rc = advance(g, bytes, n, text, err);
		if (!rc && (!go_on || ruv_cancel_is_set(params->cancel))) {
			out->finish = RUV_FINISH_CANCELLED;
			break;
		}
		if (!rc && out->n_tokens < max_tokens)
			rc = ruv_session_decode(g->session, token, err);
		if (rc)
			return rc;
	}
	return ruv_utf8_stream_finish(&utf8, text) ? ruv_fail_memory(err, "ask", text->len) : RUV_OK;
}

int ruv_quote_generate(ruv_session *session, const ruv_token *prompt, int n_prompt, const ruv_context_source *sources,
                       int n_sources, const ruv_generate_params *params, ruv_generation *out, ruv_error *err)
{
	int max_tokens = ruv_session_n_ctx(session) - n_prompt;
	guide *g = calloc(1, sizeof *g);
	int64_t started = ruv_clock_now_ns();
	ruv_buf text;
	int rc;

	memset(out, 0, sizeof *out);
	out->end_token = out->stop_index = -1;
	ruv_buf_init(&text, (size_t)1 << 24);
	if (params->max_tokens && params->max_tokens < max_tokens)
		max_tokens = params->max_tokens;
	if (max_tokens > MAX_TOKENS)
		max_tokens = MAX_TOKENS;
	if (max_tokens < 1) {
		free(g);
		return ruv_fail(err, RUV_ECONTEXT, "ask",
		                "the prompt has %d tokens and leaves no room for an answer in a context of %d", n_prompt,
		                ruv_session_n_ctx(session));
	}
	out->tokens = malloc((size_t)max_tokens * sizeof *out->tokens);
	if (!g || !out->tokens) {
		rc = ruv_fail_memory(err, "ask", sizeof *g);
		goto done;
	}
	g->session = session;
	g->model = ruv_session_model(session);
	g->sources = sources;
	g->n_sources = n_sources;
	ruv_buf_init(&g->source, (size_t)1 << 24);
	rc = ruv_session_set_tokens(session, prompt, n_prompt, &out->n_kept, params->cancel, err);
	if (rc)
		goto done;
	out->n_prompt = n_prompt;
	out->prefill_ms = (double)(ruv_clock_now_ns() - started) * 1e-6;
	started = ruv_clock_now_ns();
	rc = decode(g, params, max_tokens, &text, out, err);
	out->decode_ms = (double)(ruv_clock_now_ns() - started) * 1e-6;
	if (rc)
		goto done;
	out->n_bytes = text.len;
	out->text = ruv_buf_take(&text);
	if (!out->text)
		rc = ruv_fail_memory(err, "ask", out->n_bytes);
done:
	if (g)
		ruv_buf_release(&g->source);
	free(g);
	ruv_buf_release(&text);
	if (rc)
		ruv_generation_release(out);
	return rc;
}
