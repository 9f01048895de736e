/* eval_generate.c - free generation over prompts: does the text go on, end, and say new things? See eval.h.
 *
 * Words are runs of what is no white space, kept as hashes: two of them colliding would move a share, nothing else. Distinct-n is
 * over all texts together (Li et al. 2016), repetition within each (the share of its four-word runs that stood in it before). */
#include "runtime/eval.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"
#include "ruvllm/runtime.h"

enum { DEFAULT_MAX_TOKENS = 96, REPEAT_WORDS = 4 };

/* Hashes that grow. */
struct hashes {
	uint64_t *items;
	int64_t n, cap;
};

static int push(struct hashes *h, uint64_t hash, ruv_error *err)
{
	if (h->n == h->cap) {
		int64_t cap = h->cap ? 2 * h->cap : 1024;
		uint64_t *grown = realloc(h->items, (size_t)cap * sizeof *grown);

		if (!grown)
			return ruv_fail_memory(err, "eval", (size_t)cap * sizeof *grown);
		h->items = grown;
		h->cap = cap;
	}
	h->items[h->n++] = hash;
	return RUV_OK;
}

static int by_hash(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* How many different ones; sorts them. */
static int64_t n_different(struct hashes *h)
{
	int64_t n = 0;

	if (h->n)
		qsort(h->items, (size_t)h->n, sizeof *h->items, by_hash);
	for (int64_t i = 0; i < h->n; i++)
		n += i == 0 || h->items[i] != h->items[i - 1];
	return n;
}

struct words {
	struct hashes ones, twos; /* of all texts */
	struct hashes text;       /* of one text, in its order */
	struct hashes runs;       /* its runs of REPEAT_WORDS */
};

/* Takes a text's words in; *repeated is the share of its runs that are not new. */
static int take_text(struct words *w, const char *text, double *repeated, ruv_error *err)
{
	int rc = RUV_OK;

	w->text.n = w->runs.n = 0;
	for (const char *p = text; !rc && *p;) {
		size_t n = 0;

		while (p[n] && !isspace((unsigned char)p[n]))
			n++;
		if (n)
			rc = push(&w->text, ruv_hash64(p, n, 0), err);
		p += n ? n : 1;
	}
	for (int64_t i = 0; !rc && i < w->text.n; i++) {
		const uint64_t *at = &w->text.items[i];

		rc = push(&w->ones, *at, err);
		if (!rc && i + 1 < w->text.n)
			rc = push(&w->twos, ruv_hash64(at, 2 * sizeof *at, 0), err);
		if (!rc && i + REPEAT_WORDS <= w->text.n)
			rc = push(&w->runs, ruv_hash64(at, REPEAT_WORDS * sizeof *at, 0), err);
	}
	if (!rc) {
		int64_t n = w->runs.n;

		*repeated = n ? 1 - (double)n_different(&w->runs) / (double)n : 0;
	}
	return rc;
}

static void words_release(struct words *w)
{
	free(w->ones.items);
	free(w->twos.items);
	free(w->text.items);
	free(w->runs.items);
}

/* The prompt's tokens: a user's message in the chat template, or the text itself. */
static int prompt_tokens(ruv_token_list *tokens, const ruv_model *model, const char *prompt, bool plain, ruv_error *err)
{
	ruv_message message = {.role = "user", .content = prompt};

	tokens->n = 0;
	return plain ? ruv_model_tokenize(model, prompt, strlen(prompt), RUV_TOKENIZE_BOS, tokens, err)
	             : ruv_model_chat_tokens(model, &message, 1, NULL, true, tokens, err);
}

int ruv_eval_generate(ruv_eval_generate_result *result, ruv_model *model, const char *const *prompts, int n_prompts,
                      const ruv_eval_generate_params *params, ruv_error *err)
{
	int max_tokens = params->max_tokens ? params->max_tokens : DEFAULT_MAX_TOKENS, rc;
	ruv_session *session = NULL;
	ruv_token_list tokens = {0};
	ruv_generation out = {0};
	struct words words = {0};
	int64_t started = ruv_clock_now_ns();
	double sum = 0;

	memset(result, 0, sizeof *result);
	if (n_prompts < 1)
		return ruv_fail(err, RUV_EINVAL, "eval", "there is no prompt");
	rc = ruv_session_open(&session, model, NULL, err);
	for (int i = 0; !rc && i < n_prompts; i++) {
		ruv_generate_params generate = {.max_tokens = max_tokens, .sampling = params->sampling, .cancel = params->cancel};
		ruv_eval_generate_row row = {.prompt = prompts[i]};

		rc = prompt_tokens(&tokens, model, prompts[i], params->plain, err);
		if (rc)
			break;
		if (tokens.n + max_tokens > ruv_session_n_ctx(session)) {
			result->n_too_long++;
			continue;
		}
		if (generate.sampling.seed)
			generate.sampling.seed += (uint64_t)i; /* each prompt has its own */
		memset(&out, 0, sizeof out);
		rc = ruv_generate(session, tokens.ids, tokens.n, &generate, &out, err);
		if (!rc)
			rc = take_text(&words, out.text, &row.repeated, err);
		for (int t = 0; !rc && t < out.n_tokens; t++)
			row.log_prob += (double)out.logprobs[t];
		if (!rc) {
			row.text = out.text;
			row.n_tokens = out.n_tokens;
			row.ended = out.finish == RUV_FINISH_STOP;
			result->n_texts++;
			result->n_empty += !out.text[strspn(out.text, " \t\r\n")];
			result->n_ended += row.ended;
			result->n_tokens += out.n_tokens;
			result->repeated += row.repeated;
			sum += row.log_prob;
			if (params->on_row)
				params->on_row(params->user, &row);
		}
		ruv_generation_release(&out);
		if (!rc && params->progress && !params->progress(params->user, i + 1, n_prompts))
			rc = ruv_fail(err, RUV_ECANCELLED, "eval", "stopped after %d of %d prompts", i + 1, n_prompts);
	}
	if (result->n_texts)
		result->repeated /= result->n_texts;
	if (result->n_tokens)
		result->perplexity = exp(-sum / (double)result->n_tokens);
	result->n_words = words.ones.n;
	result->distinct_1 = words.ones.n ? (double)n_different(&words.ones) / (double)words.ones.n : 0;
	result->distinct_2 = words.twos.n ? (double)n_different(&words.twos) / (double)words.twos.n : 0;
	result->seconds = (double)(ruv_clock_now_ns() - started) * 1e-9;
	words_release(&words);
	ruv_token_list_release(&tokens);
	ruv_session_free(session);
	return rc;
}
