/* eval_judge.c - can a model tell a right answer from a wrong one? See eval.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "runtime/context.h"
#include "runtime/eval.h"
#include "ruvllm/learn.h"
#include "runtime/support.h"
#include "text/answer_match.h"

enum { MAX_TEXT_BYTES = 1 << 20 };

/* The expected rating of an answer, and the most likely one, from the logits of the five digits. */
static int rate(double *expected, int *digit, ruv_session *session, const ruv_eval_row *row, const char *answer,
                const ruv_token *digits, const ruv_cancel *cancel, ruv_error *err)
{
	ruv_context_source source = {row->title, row->context};
	ruv_message message = {.role = "user"};
	ruv_token_list tokens = {0};
	const float *logits;
	double sum = 0, mean = 0, top;
	ruv_buf text;
	int rc;

	ruv_buf_init(&text, MAX_TEXT_BYTES);
	ruv_context_user_text(&text, &source, 1, row->question);
	ruv_buf_printf(&text, "\nAnswer: %s\n\nRate the answer from 1 to 5.", answer);
	if (text.failed) {
		rc = ruv_fail(err, text.failed, "eval", "the passage of question '%s' is too long to judge", row->id);
		goto done;
	}
	message.content = ruv_buf_cstr(&text);
	rc = ruv_model_chat_tokens(ruv_session_model(session), &message, 1, NULL, true, &tokens, err);
	if (!rc)
		rc = ruv_session_set_tokens(session, tokens.ids, tokens.n, NULL, cancel, err);
	if (rc)
		goto done;
	logits = ruv_session_logits(session);
	*digit = 0;
	for (int d = 1; d < 5; d++)
		if (logits[digits[d]] > logits[digits[*digit]])
			*digit = d;
	top = (double)logits[digits[*digit]];
	for (int d = 0; d < 5; d++) {
		double p = exp((double)logits[digits[d]] - top);
		sum += p;
		mean += p * (d + 1);
	}
	*expected = mean / sum;
done:
	ruv_token_list_release(&tokens);
	ruv_buf_release(&text);
	return rc;
}

/* The right answer to another question: of the same passage where one differs, else of any. NULL when there is none. */
static const char *wrong_answer(const ruv_eval_set *set, const ruv_eval_row *row, ruv_rng *rng)
{
	int start = (int)ruv_rng_below(rng, (uint64_t)set->n_rows);

	for (int same_passage = 1; same_passage >= 0; same_passage--) {
		for (int i = 0; i < set->n_rows; i++) {
			const ruv_eval_row *other = &set->rows[(start + i) % set->n_rows];
			bool clashes = !other->answerable || other == row || (same_passage && other->passage != row->passage);
			for (int j = 0; !clashes && j < row->n_answers; j++)
				clashes = ruv_answer_contains(row->answers[j], other->answers[0]) != 0 ||
				          ruv_answer_contains(other->answers[0], row->answers[j]) != 0;
			if (!clashes)
				return other->answers[0];
		}
	}
	return NULL;
}

int ruv_eval_judge(ruv_eval_judge_result *result, ruv_model *model, const ruv_eval_set *set, const ruv_eval_judge_params *params,
                   ruv_error *err)
{
	ruv_session *session = NULL;
	float *ratings = NULL, *supports = NULL; /* [n_rated] */
	bool *right = NULL;
	ruv_calibration calibration;
	ruv_token digits[5];
	int *order = NULL, n = 0, n_rated = 0, rc;
	int64_t started = ruv_clock_now_ns();
	ruv_rng rng;

	memset(result, 0, sizeof *result);
	ruv_rng_init(&rng, params->seed);
	for (int d = 0; d < 5; d++) {
		char text[2] = {(char)('1' + d), 0};
		ruv_token_list one = {0};
		rc = ruv_model_tokenize(model, text, 1, 0, &one, err);
		digits[d] = !rc && one.n == 1 ? one.ids[0] : -1;
		ruv_token_list_release(&one);
		if (rc)
			return rc;
		if (digits[d] < 0)
			return ruv_fail(err, RUV_EUNSUPPORTED, "eval",
			                "the model's vocabulary has no single token for the rating '%s'", text);
	}
	rc = ruv_session_open(&session, model, NULL, err);
	if (rc)
		goto done;
	n = ruv_eval_set_sample(&order, set, 0, &rng, err);
	if (n < 0) {
		rc = n;
		goto done;
	}
	ratings = calloc((size_t)n * 2 + 1, sizeof *ratings);
	supports = calloc((size_t)n * 2 + 1, sizeof *supports);
	right = calloc((size_t)n * 2 + 1, sizeof *right);
	if (!ratings || !supports || !right) {
		rc = ruv_fail_memory(err, "eval", (size_t)n * 2 * sizeof *ratings);
		goto done;
	}
	for (int i = 0; i < n && (!params->limit || result->n_pairs < params->limit); i++) {
		const ruv_eval_row *row = &set->rows[order[i]];
		const char *wrong = row->answerable ? wrong_answer(set, row, &rng) : NULL;
		const ruv_context_source source = {row->title, row->context};

		if (!wrong)
			continue;
		for (int is_wrong = 0; is_wrong < 2; is_wrong++) {
			const char *answer = is_wrong ? wrong : row->answers[0];
			double rating = 0, support = 0;
			int digit = 0;

			rc = rate(&rating, &digit, session, row, answer, digits, params->cancel, err);
			if (!rc)
				rc = ruv_support_rate(&support, session, &source, 1, row->question, answer, params->cancel, err);
			if (rc)
				goto done;
			ratings[n_rated] = (float)rating;
			supports[n_rated] = (float)support;
			right[n_rated++] = !is_wrong;
			++*(is_wrong ? &result->wrong[digit] : &result->right[digit]);
			*(is_wrong ? &result->mean_wrong : &result->mean_right) += rating;
			*(is_wrong ? &result->support_wrong : &result->support_right) += support;
		}
		result->n_pairs++;
		if (params->progress && !params->progress(params->user, result->n_pairs, params->limit ? params->limit : n)) {
			rc = ruv_fail(err, RUV_ECANCELLED, "eval", "stopped after %d pairs", result->n_pairs);
			goto done;
		}
	}
	if (!result->n_pairs) {
		rc = ruv_fail(err, RUV_EINVAL, "eval", "the set has no two answers to tell apart");
		goto done;
	}
	result->mean_right /= result->n_pairs;
	result->mean_wrong /= result->n_pairs;
	result->support_right /= result->n_pairs;
	result->support_wrong /= result->n_pairs;
	rc = ruv_judge_calibrate(&calibration, ratings, right, n_rated, err);
	result->auc = calibration.auc;
	if (!rc)
		rc = ruv_judge_calibrate(&calibration, supports, right, n_rated, err);
	result->support = calibration;
	result->seconds = (double)(ruv_clock_now_ns() - started) * 1e-9;
done:
	free(ratings);
	free(supports);
	free(right);
	free(order);
	ruv_session_free(session);
	return rc;
}
