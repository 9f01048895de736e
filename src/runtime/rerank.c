/* rerank.c - see rerank.h. The prompts of one question begin alike, which the session keeps; the question's tokens are those
 * between what the prompt has in common, at both ends, with the same prompt for another question. Layer: runtime. */
#include "runtime/rerank.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/status.h"
#include "infer/sampler.h"
#include "ruvllm/runtime.h"

/* Of BM25 beside a log-likelihood in natural units. Chosen on development questions. */
static const double weight_bm25 = 2.5;

static int build(ruv_context *context, const ruv_session *session, const ruv_context_source *passage, const char *question,
                 ruv_error *err)
{
	const ruv_model *model = ruv_session_model(session);
	ruv_context_request request = {.sources = passage,
	                               .n_sources = 1,
	                               .question = question,
	                               .cites = ruv_model_cites(model),
	                               .n_ctx = ruv_session_n_ctx(session)};

	return ruv_context_build(context, model, &request, err);
}

/* ln p(tokens [from, to) | those before), from > 0. */
static int log_prob(double *sum, ruv_session *session, const ruv_token *ids, int from, int to, const ruv_cancel *cancel,
                    ruv_error *err)
{
	ruv_model_info info;
	float *logits = NULL;
	int n = to - from, rc;

	ruv_model_get_info(ruv_session_model(session), &info);
	rc = ruv_session_set_tokens(session, ids, from, NULL, cancel, err);
	if (rc)
		return rc;
	*sum = (double)ruv_session_logits(session)[ids[from]] - ruv_log_sum_exp(ruv_session_logits(session), info.n_tokens);
	if (n == 1)
		return RUV_OK;
	logits = malloc(sizeof(float) * (size_t)(n - 1) * (size_t)info.n_vocab);
	if (!logits)
		return ruv_fail_memory(err, "rerank", sizeof(float) * (size_t)(n - 1) * (size_t)info.n_vocab);
	rc = ruv_session_score(session, ids + from, n - 1, logits, cancel, err);
	for (int i = 1; !rc && i < n; i++) {
		const float *row = logits + (size_t)(i - 1) * (size_t)info.n_vocab;

		*sum += (double)row[ids[from + i]] - ruv_log_sum_exp(row, info.n_tokens);
	}
	free(logits);
	return rc;
}

/* *reads is false when the passage and the question do not fit the context. */
static int question_log_prob(double *sum, bool *reads, ruv_session *session, const ruv_context_source *passage,
                             const char *question, const ruv_cancel *cancel, ruv_error *err)
{
	ruv_context with = {0}, other = {0};
	int from = 0, tail = 0, rc = build(&with, session, passage, question, err);

	*reads = false;
	if (!rc)
		rc = build(&other, session, passage, *question == 'Z' ? "Q" : "Z", err);
	if (rc == RUV_ECONTEXT || (!rc && (with.n_sources == 0 || other.n_sources == 0))) {
		rc = RUV_OK;
		goto done;
	}
	if (rc)
		goto done;
	while (from < with.tokens.n && from < other.tokens.n && with.tokens.ids[from] == other.tokens.ids[from])
		from++;
	while (tail < with.tokens.n - from && tail < other.tokens.n - from &&
	       with.tokens.ids[with.tokens.n - 1 - tail] == other.tokens.ids[other.tokens.n - 1 - tail])
		tail++;
	if (from == 0 || from >= with.tokens.n - tail) {
		rc = ruv_fail(err, RUV_EUNSUPPORTED, "rerank", "the model's chat template does not show the question as it is");
		goto done;
	}
	rc = log_prob(sum, session, with.tokens.ids, from, with.tokens.n - tail, cancel, err);
	*reads = !rc;
done:
	ruv_context_release(&with);
	ruv_context_release(&other);
	return rc;
}

int ruv_rerank(int *order, ruv_session *session, const ruv_rerank_params *params, ruv_error *err)
{
	int64_t started = ruv_clock_now_ns();
	double *scores = calloc((size_t)params->n + 1, sizeof *scores);
	int n_read = 0, n_left = 0, rc = RUV_OK, *left = calloc((size_t)params->n + 1, sizeof *left);

	if (!scores || !left) {
		rc = ruv_fail_memory(err, "rerank", ((size_t)params->n + 1) * (sizeof *scores + sizeof *left));
		goto done;
	}
	for (int i = 0; !rc && i < params->n; i++) {
		bool reads = false;

		if (n_read == 0 || params->budget_ms <= 0 || (double)(ruv_clock_now_ns() - started) * 1e-6 < params->budget_ms)
			rc = question_log_prob(&scores[i], &reads, session, &params->passages[i], params->question, params->cancel,
			                       err);
		if (!reads) {
			left[n_left++] = i;
			continue;
		}
		scores[i] += weight_bm25 * (double)params->bm25[i];

		int at = n_read++; /* behind those that are as good */

		for (; at > 0 && scores[order[at - 1]] < scores[i]; at--)
			order[at] = order[at - 1];
		order[at] = i;
	}
	for (int i = 0; i < n_left; i++)
		order[n_read + i] = left[i];
done:
	free(left);
	free(scores);
	return rc ? rc : n_read;
}
