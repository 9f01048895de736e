/* support.c - see support.h. Layer: runtime. */
#include "runtime/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/status.h"
#include "infer/sampler.h"
#include "ruvllm/runtime.h"
#include "text/answer_match.h"

static const char where[] = "support";

/* Logistic regression: how much less evidence the answer's sentence has than the best one, the tokens' mean log-likelihood. */
static const double weight_gap = 0.9, weight_likelihood = 0.65, bias = 1.6, gap_without_sentence = -20;

enum { ROOM_FOR_ANSWER = 256 };

int ruv_support_sentence(const ruv_evidence *evidence, const char *answer)
{
	int best = -1;

	for (int i = 0; i < evidence->n; i++)
		if (ruv_answer_contains(evidence->items[i].text, answer) > 0 &&
		    (best < 0 || evidence->items[i].score > evidence->items[best].score))
			best = i;
	return best;
}

double ruv_support_probability(const ruv_evidence *evidence, int sentence, double mean_logprob)
{
	int best = ruv_evidence_best(evidence);
	double gap = sentence < 0 ? gap_without_sentence : (double)(evidence->items[sentence].score - evidence->items[best].score);

	gap = gap < gap_without_sentence ? gap_without_sentence : gap;
	return 1 / (1 + exp(-(weight_gap * gap + weight_likelihood * mean_logprob + bias)));
}

/* Mean log-likelihood of the answer's tokens behind what the session holds and `before`. */
static int likelihood(double *mean, ruv_session *session, const char *before, const char *answer, const ruv_cancel *cancel,
                      ruv_error *err)
{
	const ruv_model *model = ruv_session_model(session);
	ruv_token_list first = {0}, all = {0};
	ruv_model_info info;
	float *logits = NULL;
	double sum = 0;
	ruv_buf text;
	int n, rc;

	ruv_model_get_info(model, &info);
	ruv_buf_init(&text, (size_t)1 << 24);
	ruv_buf_printf(&text, "%s %s", before, answer);
	rc =
	    text.failed ? ruv_fail_memory(err, where, text.len) : ruv_model_tokenize(model, before, strlen(before), 0, &first, err);
	if (!rc)
		rc = ruv_model_tokenize(model, text.data, text.len, 0, &all, err);
	if (!rc)
		rc = ruv_session_prefill(session, all.ids, first.n, cancel, err);
	if (rc)
		goto done;
	n = all.n - first.n;
	logits = malloc(sizeof(float) * (size_t)n * (size_t)info.n_tokens);
	if (!logits || n < 1) {
		rc = n < 1 ? ruv_fail(err, RUV_EINVAL, where, "there is no answer to rate")
		           : ruv_fail_memory(err, where, sizeof(float) * (size_t)n * (size_t)info.n_tokens);
		goto done;
	}
	memcpy(logits, ruv_session_logits(session), sizeof(float) * (size_t)info.n_tokens);
	if (n > 1)
		rc = ruv_session_score(session, all.ids + first.n, n - 1, logits + info.n_tokens, cancel, err);
	for (int i = 0; !rc && i < n; i++) {
		const float *row = logits + (size_t)i * (size_t)info.n_tokens;

		sum += (double)row[all.ids[first.n + i]] - ruv_log_sum_exp(row, info.n_tokens);
	}
	*mean = sum / n;
done:
	free(logits);
	ruv_token_list_release(&first);
	ruv_token_list_release(&all);
	ruv_buf_release(&text);
	return rc;
}

int ruv_support_rate(double *probability, ruv_session *session, const ruv_context_source *sources, int n_sources,
                     const char *question, const char *answer, const ruv_cancel *cancel, ruv_error *err)
{
	const ruv_model *model = ruv_session_model(session);
	ruv_context_request request = {.sources = sources,
	                               .n_sources = n_sources,
	                               .question = question,
	                               .cites = ruv_model_cites(model),
	                               .n_ctx = ruv_session_n_ctx(session),
	                               .n_reserve = ROOM_FOR_ANSWER};
	ruv_context context = {0};
	ruv_evidence evidence = {0};
	int sentence, quoted, rc;
	double mean = 0;
	ruv_buf text;

	*probability = 0;
	ruv_buf_init(&text, (size_t)1 << 24);
	rc = ruv_context_build(&context, model, &request, err);
	if (!rc)
		rc = ruv_evidence_open(&evidence, sources, context.n_sources, question, err);
	if (rc)
		goto done;
	sentence = ruv_support_sentence(&evidence, answer);
	quoted = sentence < 0 ? ruv_evidence_best(&evidence) : sentence;
	if (quoted < 0) /* sources without a sentence support nothing */
		goto done;
	ruv_buf_printf(&text, "[%d] %s\nAnswer:", evidence.items[quoted].source + 1, evidence.items[quoted].text);
	rc = text.failed ? ruv_fail_memory(err, where, text.len)
	                 : ruv_session_set_tokens(session, context.tokens.ids, context.tokens.n, NULL, cancel, err);
	if (!rc)
		rc = likelihood(&mean, session, ruv_buf_cstr(&text), answer, cancel, err);
	if (!rc)
		rc = ruv_session_truncate(session, context.tokens.n, err);
	if (!rc)
		*probability = ruv_support_probability(&evidence, sentence, mean);
done:
	ruv_buf_release(&text);
	ruv_evidence_release(&evidence);
	ruv_context_release(&context);
	return rc;
}
