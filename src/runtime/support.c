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

/* Logistic regression: how much less evidence the answer's sentence has than the best one, and both likelihoods. What an answer far
 * from the best sentence lacks is bounded: it may be worded differently. */
static const double weight_gap = 1.29, widest_gap = -5, weight_asked = 1.63, weight_unasked = -1.14, bias = 1.32;

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

double ruv_support_probability(const ruv_evidence *evidence, int sentence, double asked, double unasked)
{
	int best = ruv_evidence_best(evidence);
	double gap = sentence < 0 ? widest_gap : (double)(evidence->items[sentence].score - evidence->items[best].score);

	gap = gap < widest_gap ? widest_gap : gap;
	return 1 / (1 + exp(-(weight_gap * gap + weight_asked * asked + weight_unasked * unasked + bias)));
}

/* ln of the probability that the text ends here. */
static double end_log_prob(const ruv_model *model, const float *logits, int n_tokens)
{
	double all = ruv_log_sum_exp(logits, n_tokens), ends = 0;

	for (int i = 0; i < n_tokens; i++)
		if (ruv_model_token_is_end(model, i))
			ends += exp((double)logits[i] - all);
	return ends > 0 ? log(ends) : -30;
}

/* Mean log-likelihood of the answer's tokens and its end behind what the session holds and `before`. */
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
	logits = malloc(sizeof(float) * ((size_t)n + 1) * (size_t)info.n_vocab);
	if (!logits || n < 1) {
		rc = n < 1 ? ruv_fail(err, RUV_EINVAL, where, "there is no answer to rate")
		           : ruv_fail_memory(err, where, sizeof(float) * ((size_t)n + 1) * (size_t)info.n_vocab);
		goto done;
	}
	memcpy(logits, ruv_session_logits(session), sizeof(float) * (size_t)info.n_vocab);
	rc = ruv_session_score(session, all.ids + first.n, n, logits + info.n_vocab, cancel, err);
	for (int i = 0; !rc && i < n; i++) {
		const float *row = logits + (size_t)i * (size_t)info.n_vocab;

		sum += (double)row[all.ids[first.n + i]] - ruv_log_sum_exp(row, info.n_tokens);
	}
	if (!rc)
		*mean = (sum + end_log_prob(model, logits + (size_t)n * (size_t)info.n_vocab, info.n_tokens)) / (n + 1);
done:
	free(logits);
	ruv_token_list_release(&first);
	ruv_token_list_release(&all);
	ruv_buf_release(&text);
	return rc;
}

/* The same behind a prompt of these sources and the question, and a sentence that is quoted from one of them. */
static int likelihood_behind(double *mean, ruv_session *session, const ruv_context *context, int number, const char *sentence,
                             const char *answer, const ruv_cancel *cancel, ruv_error *err)
{
	ruv_buf text;
	int rc;

	ruv_buf_init(&text, (size_t)1 << 24);
	ruv_buf_printf(&text, "[%d] %s\nAnswer:", number, sentence);
	rc = text.failed ? ruv_fail_memory(err, where, text.len)
	                 : ruv_session_set_tokens(session, context->tokens.ids, context->tokens.n, NULL, cancel, err);
	if (!rc)
		rc = likelihood(mean, session, ruv_buf_cstr(&text), answer, cancel, err);
	ruv_buf_release(&text);
	return rc;
}

static int build(ruv_context *context, const ruv_session *session, const ruv_context_source *sources, int n_sources,
                 const char *question, ruv_error *err)
{
	const ruv_model *model = ruv_session_model(session);
	ruv_context_request request = {.sources = sources,
	                               .n_sources = n_sources,
	                               .question = question,
	                               .cites = ruv_model_cites(model),
	                               .n_ctx = ruv_session_n_ctx(session),
	                               .n_reserve = ROOM_FOR_ANSWER};

	return ruv_context_build(context, model, &request, err);
}

int ruv_support_unasked(double *mean, ruv_session *session, const char *sentence, const char *answer, const ruv_cancel *cancel,
                        ruv_error *err)
{
	const ruv_context_source source = {NULL, sentence};
	ruv_context context = {0};
	int rc = build(&context, session, &source, 1, "What is said?", err);

	if (!rc)
		rc = likelihood_behind(mean, session, &context, 1, sentence, answer, cancel, err);
	ruv_context_release(&context);
	return rc;
}

int ruv_support_rate(double *probability, ruv_session *session, const ruv_context_source *sources, int n_sources,
                     const char *question, const char *answer, const ruv_cancel *cancel, ruv_error *err)
{
	ruv_context context = {0};
	ruv_evidence evidence = {0};
	const ruv_sentence_evidence *quoted;
	double asked = 0, unasked = 0;
	int sentence, best, rc;

	*probability = 0;
	rc = build(&context, session, sources, n_sources, question, err);
	if (!rc)
		rc = ruv_evidence_open(&evidence, sources, context.n_sources, question, err);
	if (rc)
		goto done;
	sentence = ruv_support_sentence(&evidence, answer);
	best = ruv_evidence_best(&evidence);
	if (best < 0) /* sources without a sentence support nothing */
		goto done;
	quoted = &evidence.items[sentence < 0 ? best : sentence];
	rc = likelihood_behind(&asked, session, &context, quoted->source + 1, quoted->text, answer, cancel, err);
	if (!rc)
		rc = ruv_support_unasked(&unasked, session, quoted->text, answer, cancel, err);
	if (!rc)
		*probability = ruv_support_probability(&evidence, sentence, asked, unasked);
done:
	ruv_evidence_release(&evidence);
	ruv_context_release(&context);
	return rc;
}
