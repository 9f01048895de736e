/* eval_qa.c - question answering from given passages, and how well one model drafts for another on it; see eval.h. */
#include "runtime/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "runtime/cite.h"
#include "runtime/context.h"
#include "runtime/evidence.h"
#include "runtime/quote.h"
#include "ruvllm/runtime.h"
#include "text/answer_match.h"

enum { MAX_PASSAGES = 16, DEFAULT_MAX_TOKENS = 128 };

/* Different passages for a question: the right one at a random place, unless it is to be left out. Returns its place or -1. */
static int choose_passages(ruv_context_source *sources, int *n, const ruv_eval_set *set, const ruv_eval_row *row, bool leave_out,
                           ruv_rng *rng)
{
	int chosen[MAX_PASSAGES], n_chosen = 0, place = -1;
	int n_others = set->n_passages - 1;

	if (*n > n_others + !leave_out)
		*n = n_others + !leave_out;
	if (!leave_out)
		place = (int)ruv_rng_below(rng, (uint64_t)*n);
	while (n_chosen < *n) {
		int next = n_chosen == place ? row->passage : (int)ruv_rng_below(rng, (uint64_t)set->n_passages);
		bool taken = n_chosen != place && next == row->passage;
		for (int i = 0; i < n_chosen; i++)
			taken |= chosen[i] == next;
		if (!taken)
			chosen[n_chosen++] = next;
	}
	for (int i = 0; i < *n; i++)
		sources[i] = (ruv_context_source){set->passages[chosen[i]].title, set->passages[chosen[i]].text};
	return place;
}

/* Does the answer quote, from the passage at `place`, a sentence that holds a right answer? */
static void judge_quote(ruv_eval_qa_row *out, const ruv_cite_parts *parts, const ruv_context_source *sources, int n, int place)
{
	for (int i = 0; i < parts->n_marks; i++) {
		const ruv_cite_mark *mark = &parts->marks[i];
		size_t n_quote = mark->end - mark->begin;
		char *quote;

		if (!n_quote || mark->number > n ||
		    !ruv_cite_is_verbatim(sources[mark->number - 1].text, out->text + mark->begin, n_quote))
			continue;
		out->verbatim = true;
		quote = strndup(out->text + mark->begin, n_quote);
		for (int j = 0; quote && mark->number - 1 == place && j < out->row->n_answers; j++)
			out->sentence |= ruv_answer_contains(quote, out->row->answers[j]) > 0;
		free(quote);
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* From the margins of answerable [n_yes] and unanswerable [n_no] questions, both sorted here: how well they tell them apart, and
 * the bias at which `share` of the answerable ones are answered. */
static void tell_decision(ruv_eval_qa_result *result, double *yes, int n_yes, double *no, int n_no, double share)
{
	int64_t above = 0;

	qsort(yes, (size_t)n_yes, sizeof *yes, by_value);
	qsort(no, (size_t)n_no, sizeof *no, by_value);
	for (int i = 0; i < n_yes; i++)
		for (int j = 0; j < n_no && no[j] <= yes[i]; j++)
			above += no[j] < yes[i] ? 2 : 1;
	if (n_yes && n_no)
		result->decision_auc = (double)above / (2.0 * n_yes * n_no);
	if (n_yes && share > 0) {
		int at = (int)((1 - share) * n_yes), n_below = 0;

		at = at >= n_yes ? n_yes - 1 : at;
		result->bias = -yes[at];
		for (int j = 0; j < n_no; j++)
			n_below += no[j] < yes[at];
		result->refused_at_bias = n_no ? (double)n_below / n_no : 0;
	}
}

/* ---- question answering ---- */

struct qa {
	ruv_model *model;
	ruv_session *session;
	const ruv_eval_set *set;
	const ruv_eval_qa_params *params;
	ruv_rng rng;
	ruv_context context;
	ruv_generation generation;
	ruv_context_source sources[MAX_PASSAGES];
	int n_sources, place;
	ruv_calibrated calibrated;
	bool decides;  /* the model cites, so that there is */
	double margin; /* of the last answer: how much likelier a citation was as its beginning than anything else */
};

static int qa_open(struct qa *qa, ruv_model *model, const ruv_eval_set *set, const ruv_eval_qa_params *params, ruv_error *err)
{
	*qa = (struct qa){.model = model, .set = set, .params = params};
	if (params->n_passages < 1 || params->n_passages > MAX_PASSAGES)
		return ruv_fail(err, RUV_EINVAL, "eval", "%d passages asked for, 1 to %d are possible", params->n_passages,
		                MAX_PASSAGES);
	if (set->n_rows == 0)
		return ruv_fail(err, RUV_EINVAL, "eval", "the set has no questions");
	if (params->random_passage && set->n_passages < 2)
		return ruv_fail(err, RUV_EINVAL, "eval", "a set of one passage has no other passage to give");
	ruv_rng_init(&qa->rng, params->seed);
	if (ruv_calibration_read(&qa->calibrated, model, err))
		return RUV_EFORMAT;
	return ruv_session_open(&qa->session, model, NULL, err);
}

static void qa_release(struct qa *qa)
{
	ruv_context_release(&qa->context);
	ruv_generation_release(&qa->generation);
	ruv_session_free(qa->session);
}

/* The margin by which the answer will begin with a citation, with the session brought to the prompt's end. */
static int measure_margin(struct qa *qa, const ruv_logit_bias *bias, ruv_error *err)
{
	const ruv_token_list *tokens = &qa->context.tokens;
	int rc = ruv_session_set_tokens(qa->session, tokens->ids, tokens->n, NULL, qa->params->cancel, err);
	const float *logits = rc ? NULL : ruv_session_logits(qa->session);
	ruv_model_info info;
	float other = -INFINITY;

	if (rc)
		return rc;
	ruv_model_get_info(qa->model, &info);
	for (int i = 0; i < info.n_tokens; i++) {
		size_t n = 0;
		const char *bytes = ruv_model_token_bytes(qa->model, i, &n);

		if (!(n && bytes[0] == '['))
			other = fmaxf(other, logits[i]);
	}
	qa->margin = (double)logits[bias->token] + (double)bias->bias - (double)other;
	return RUV_OK;
}

/* Builds the prompt and lets the model answer. *fits is false when some passage had to be left out: such a question is not counted.
 */
static int qa_answer(struct qa *qa, const ruv_eval_row *row, bool *fits, ruv_error *err)
{
	int max_tokens = qa->params->max_tokens ? qa->params->max_tokens : DEFAULT_MAX_TOKENS;
	ruv_context_request request = {.sources = qa->sources,
	                               .question = row->question,
	                               .cites = ruv_model_cites(qa->model),
	                               .n_ctx = ruv_session_n_ctx(qa->session),
	                               .n_reserve = max_tokens};
	ruv_generate_params generate = {.max_tokens = max_tokens, .n_logprobs = -1, .cancel = qa->params->cancel};
	ruv_evidence evidence = {0};
	ruv_logit_bias bias;
	ruv_quote *quote = NULL;
	int rc;

	qa->n_sources = qa->params->n_passages;
	qa->place = choose_passages(qa->sources, &qa->n_sources, qa->set, row, qa->params->random_passage, &qa->rng);
	request.n_sources = qa->n_sources;
	ruv_context_release(&qa->context);
	ruv_generation_release(&qa->generation);
	memset(&qa->generation, 0, sizeof qa->generation);
	rc = ruv_context_build(&qa->context, qa->model, &request, err);
	*fits = rc == RUV_OK && qa->context.n_sources == qa->n_sources;
	if (rc == RUV_ECONTEXT)
		return RUV_OK;
	if (rc || !*fits)
		return rc;
	if (request.cites) { /* as `ruvllm ask` answers */
		rc = ruv_evidence_open(&evidence, qa->sources, qa->n_sources, row->question, err);
		if (!rc)
			rc = ruv_quote_open(&quote, qa->model, &evidence, &qa->calibrated, err);
		generate.constraint = ruv_quote_constraint(quote);
	}
	qa->decides = quote != NULL;
	if (quote) {
		bias = ruv_quote_bias(quote);
		generate.sampling.bias = &bias;
		generate.sampling.n_bias = 1;
		rc = measure_margin(qa, &bias, err);
	}
	if (!rc)
		rc = ruv_generate(qa->session, qa->context.tokens.ids, qa->context.tokens.n, &generate, &qa->generation, err);
	ruv_quote_free(quote);
	ruv_evidence_release(&evidence);
	return rc;
}

int ruv_eval_qa(ruv_eval_qa_result *result, ruv_model *model, const ruv_eval_set *set, const ruv_eval_qa_params *params,
                ruv_error *err)
{
	struct qa qa;
	int *order = NULL, n = 0, n_answered = 0, n_given = 0, rc;
	int64_t started = ruv_clock_now_ns();
	double f1_answered = 0, *margins[2] = {NULL, NULL}; /* of unanswerable and answerable questions */
	int n_margins[2] = {0, 0};

	memset(result, 0, sizeof *result);
	rc = qa_open(&qa, model, set, params, err);
	if (rc)
		goto done;
	n = ruv_eval_set_sample(&order, set, params->limit, &qa.rng, err);
	rc = n < 0 ? n : RUV_OK;
	for (int i = 0; !rc && i < 2; i++) {
		margins[i] = malloc(((size_t)n + 1) * sizeof *margins[i]);
		rc = margins[i] ? RUV_OK : ruv_fail_memory(err, "eval", ((size_t)n + 1) * sizeof *margins[i]);
	}
	for (int i = 0; !rc && i < n; i++) {
		ruv_eval_qa_row row = {.row = &set->rows[order[i]]};
		ruv_cite_parts parts;
		ruv_answer_score score = {0};
		char *answer;
		bool fits;

		rc = qa_answer(&qa, row.row, &fits, err);
		if (rc)
			break;
		if (!fits) {
			result->n_too_long++;
			continue;
		}
		row.answerable = row.row->answerable && !params->random_passage;
		row.margin = qa.margin;
		if (qa.decides)
			margins[row.answerable][n_margins[row.answerable]++] = qa.margin;
		row.text = qa.generation.text;
		ruv_cite_parse(&parts, row.text);
		row.refused = parts.unknown;
		answer = strndup(row.text + parts.answer_begin, parts.answer_end - parts.answer_begin);
		if (!answer) {
			rc = ruv_fail_memory(err, "eval", parts.answer_end - parts.answer_begin);
			break;
		}
		row.answer = answer;
		judge_quote(&row, &parts, qa.sources, qa.n_sources, qa.place);
		if (row.answerable && !row.refused)
			rc = ruv_answer_match(&score, answer, row.row->answers, row.row->n_answers, err);
		row.f1 = score.f1;
		row.exact = score.exact;
		result->n_answerable += row.answerable;
		result->n_unanswerable += !row.answerable;
		result->refused += !row.answerable && row.refused;
		result->f1 += score.f1;
		result->exact += score.exact;
		if (row.answerable && !row.refused) {
			n_answered++;
			f1_answered += score.f1;
			result->sentence += row.sentence;
		}
		n_given += !row.refused;
		result->verbatim += !row.refused && row.verbatim;
		result->n_prompt_tokens += qa.generation.n_prompt;
		result->n_answer_tokens += qa.generation.n_tokens;
		if (!rc && params->on_row)
			params->on_row(params->user, &row);
		free(answer);
		if (!rc && params->progress && !params->progress(params->user, i + 1, n))
			rc = ruv_fail(err, RUV_ECANCELLED, "eval", "stopped after %d of %d questions", i + 1, n);
	}
	if (result->n_answerable) {
		result->f1 /= result->n_answerable;
		result->exact /= result->n_answerable;
		result->sentence /= result->n_answerable;
		result->answered = (double)n_answered / result->n_answerable;
	}
	if (result->n_unanswerable)
		result->refused /= result->n_unanswerable;
	if (n_answered)
		result->f1_answered = f1_answered / n_answered;
	if (n_given)
		result->verbatim /= n_given;
	if (!rc)
		tell_decision(result, margins[1], n_margins[1], margins[0], n_margins[0], params->answer_share);
	result->seconds = (double)(ruv_clock_now_ns() - started) * 1e-9;
done:
	free(margins[0]);
	free(margins[1]);
	free(order);
	qa_release(&qa);
	return rc;
}

/* ---- drafting ---- */

static int argmax(const float *logits, int n)
{
	int best = 0;
	for (int i = 1; i < n; i++)
		if (logits[i] > logits[best])
			best = i;
	return best;
}

int ruv_eval_draft(ruv_eval_draft_result *result, ruv_model *target, ruv_model *draft, const ruv_eval_set *set,
                   const ruv_eval_qa_params *params, ruv_error *err)
{
	struct qa qa;
	ruv_session *drafting = NULL;
	ruv_model_info a, b;
	int *order = NULL, n = 0, rc;

	memset(result, 0, sizeof *result);
	ruv_model_get_info(target, &a);
	ruv_model_get_info(draft, &b);
	rc = qa_open(&qa, target, set, params, err);
	if (rc)
		goto done;
	if (a.n_tokens != b.n_tokens) {
		rc = ruv_fail(err, RUV_EMISMATCH, "eval", "the models' vocabularies differ: %d and %d tokens", a.n_tokens,
		              b.n_tokens);
		goto done;
	}
	rc = ruv_session_open(&drafting, draft, NULL, err);
	if (rc)
		goto done;
	n = ruv_eval_set_sample(&order, set, params->limit, &qa.rng, err);
	rc = n < 0 ? n : RUV_OK;
	for (int i = 0; !rc && i < n; i++) {
		bool fits;
		rc = qa_answer(&qa, &set->rows[order[i]], &fits, err);
		if (rc || !fits)
			continue;
		ruv_session_reset(drafting);
		rc = ruv_session_prefill(drafting, qa.context.tokens.ids, qa.context.tokens.n, params->cancel, err);
		for (int t = 0; !rc && t < qa.generation.n_tokens; t++) {
			result->n_tokens++;
			result->n_accepted += argmax(ruv_session_logits(drafting), b.n_tokens) == qa.generation.tokens[t];
			rc = ruv_session_decode(drafting, qa.generation.tokens[t], err);
		}
		result->n_answers++;
		if (!rc && params->progress && !params->progress(params->user, i + 1, n))
			rc = ruv_fail(err, RUV_ECANCELLED, "eval", "stopped after %d of %d answers", i + 1, n);
	}
	if (result->n_tokens)
		result->acceptance = (double)result->n_accepted / (double)result->n_tokens;
done:
	free(order);
	ruv_session_free(drafting);
	qa_release(&qa);
	return rc;
}
