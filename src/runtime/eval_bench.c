/* eval_bench.c - MMLU, TruthfulQA, GSM8K and HumanEval; see eval_bench.h. */
#include "runtime/eval_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/status.h"
#include "infer/sampler.h"
#include "runtime/sandbox.h"

enum { MAX_PROMPT_BYTES = 1 << 20, MAX_CHOICES = 64, GSM8K_TOKENS = 320, HUMANEVAL_TOKENS = 384, HUMANEVAL_SECONDS = 10 };

/* ---- rows ---- */

struct bench {
	const ruv_eval_bench_params *params;
	ruv_eval_bench_result *result;
	ruv_model *model;
	ruv_session *session;
	ruv_model_info info;
	json_t *rows, *shots; /* arrays of objects */
	int *order;
	int n;
	double sum; /* of the scores */
	ruv_buf prompt;
};

static int read_rows(json_t **rows, const char *path, ruv_error *err)
{
	char *text;
	size_t n_bytes;
	int line = 0, rc = ruv_eval_text_read(&text, &n_bytes, path, err);

	if (rc)
		return rc;
	*rows = json_array();
	for (char *p = text, *end = text + n_bytes; !rc && p < end; line++) {
		char *newline = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((newline ? newline : end) - p);
		json_error_t error;
		if (strspn(p, " \t\r\n") < n) {
			json_t *row = json_loadb(p, n, 0, &error);
			if (!json_is_object(row) || json_array_append_new(*rows, row)) {
				rc = ruv_fail(err, RUV_EFORMAT, "eval", "'%s' line %d: not a JSON object", path, line + 1);
				if (!json_is_object(row))
					json_decref(row);
			}
		}
		p += n + 1;
	}
	free(text);
	return rc;
}

/* The string of a field; RUV_EFORMAT names row and field. */
static int field(const char **text, json_t *row, const char *name, const char *path, int index, ruv_error *err)
{
	*text = json_string_value(json_object_get(row, name));
	return *text ? RUV_OK : ruv_fail(err, RUV_EFORMAT, "eval", "'%s' row %d: no \"%s\" string", path, index + 1, name);
}

static int bench_open(struct bench *b, ruv_eval_bench_result *result, ruv_model *model, const ruv_eval_bench_params *params,
                      ruv_error *err)
{
	ruv_rng rng;
	int rc;

	*b = (struct bench){.params = params, .result = result, .model = model};
	memset(result, 0, sizeof *result);
	ruv_buf_init(&b->prompt, MAX_PROMPT_BYTES);
	ruv_model_get_info(model, &b->info);
	rc = read_rows(&b->rows, params->path, err);
	if (!rc && params->shots)
		rc = read_rows(&b->shots, params->shots, err);
	if (!rc)
		rc = ruv_session_open(&b->session, model, NULL, err);
	if (rc)
		return rc;
	b->n = (int)json_array_size(b->rows);
	if (!b->n)
		return ruv_fail(err, RUV_EINVAL, "eval", "'%s' has no questions", params->path);
	b->order = malloc((size_t)b->n * sizeof *b->order);
	if (!b->order)
		return ruv_fail_memory(err, "eval", (size_t)b->n * sizeof *b->order);
	ruv_rng_init(&rng, params->seed);
	for (int i = 0; i < b->n; i++) {
		int j = (int)ruv_rng_below(&rng, (uint64_t)i + 1);
		b->order[i] = b->order[j];
		b->order[j] = i;
	}
	if (params->limit > 0 && params->limit < b->n)
		b->n = params->limit;
	return RUV_OK;
}

static void bench_release(struct bench *b)
{
	json_decref(b->rows);
	json_decref(b->shots);
	free(b->order);
	ruv_session_free(b->session);
	ruv_buf_release(&b->prompt);
}

typedef int score_row_fn(struct bench *b, json_t *row, int index, double *score, bool *fits, ruv_error *err);

static int run(ruv_eval_bench_result *result, ruv_model *model, const ruv_eval_bench_params *params, score_row_fn *score_row,
               ruv_error *err)
{
	int64_t started = ruv_clock_now_ns();
	double squares = 0;
	struct bench b;
	int rc = bench_open(&b, result, model, params, err);

	for (int i = 0; !rc && i < b.n; i++) {
		double score = 0;
		bool fits = true;

		ruv_buf_clear(&b.prompt);
		rc = score_row(&b, json_array_get(b.rows, (size_t)b.order[i]), b.order[i], &score, &fits, err);
		if (rc)
			break;
		result->n += fits;
		result->n_too_long += !fits;
		b.sum += score;
		squares += score * score;
		if (params->progress && !params->progress(params->user, i + 1, b.n))
			rc = ruv_fail(err, RUV_ECANCELLED, "eval", "stopped after %d of %d questions", i + 1, b.n);
	}
	if (result->n) {
		result->score = b.sum / result->n;
		result->mc2 /= result->n;
		result->chance /= result->n;
		if (result->n > 1)
			result->standard_error = sqrt((squares / result->n - result->score * result->score) / (result->n - 1));
	}
	result->seconds = (double)(ruv_clock_now_ns() - started) * 1e-9;
	bench_release(&b);
	return rc;
}

/* ---- log-likelihoods of continuations ---- */

/* Makes the session hold the prompt. *fits is false when it and `room` more tokens are too long. */
static int hold_prompt(struct bench *b, int room, bool *fits, ruv_token_list *tokens, ruv_error *err)
{
	int rc = b->prompt.failed
	             ? ruv_fail(err, b->prompt.failed, "eval", "a prompt does not fit %d bytes", MAX_PROMPT_BYTES)
	             : ruv_model_tokenize(b->model, ruv_buf_cstr(&b->prompt), b->prompt.len, RUV_TOKENIZE_BOS, tokens, err);
	if (rc)
		return rc;
	*fits = tokens->n > 0 && tokens->n + room <= ruv_session_n_ctx(b->session);
	return *fits ? ruv_session_set_tokens(b->session, tokens->ids, tokens->n, NULL, b->params->cancel, err) : RUV_OK;
}

static double log_prob(const float *logits, int n_vocab, ruv_token token)
{
	return (double)logits[token] - ruv_log_sum_exp(logits, n_vocab);
}

/* ln p(text | prompt), where the session holds the prompt's tokens; it holds them again afterwards. */
static int continuation_log_prob(double *sum, struct bench *b, const ruv_token_list *prompt, const char *text, ruv_error *err)
{
	ruv_token_list tokens = {0};
	float *logits = NULL;
	int rc = ruv_model_tokenize(b->model, text, strlen(text), 0, &tokens, err), n_vocab = b->info.n_vocab;

	if (rc)
		goto done;
	rc = ruv_session_set_tokens(b->session, prompt->ids, prompt->n, NULL, b->params->cancel, err);
	if (rc || tokens.n == 0)
		goto done;
	*sum = log_prob(ruv_session_logits(b->session), n_vocab, tokens.ids[0]);
	if (tokens.n > 1) {
		logits = malloc((size_t)(tokens.n - 1) * (size_t)n_vocab * sizeof *logits);
		if (!logits) {
			rc = ruv_fail_memory(err, "eval", (size_t)(tokens.n - 1) * (size_t)n_vocab * sizeof *logits);
			goto done;
		}
		rc = ruv_session_score(b->session, tokens.ids, tokens.n - 1, logits, b->params->cancel, err);
		for (int i = 1; !rc && i < tokens.n; i++)
			*sum += log_prob(logits + (size_t)(i - 1) * (size_t)n_vocab, n_vocab, tokens.ids[i]);
	}
done:
	free(logits);
	ruv_token_list_release(&tokens);
	return rc;
}

/* ---- MMLU ---- */

static int put_mmlu(ruv_buf *out, json_t *row, bool solved, int *answer, const char *path, int index, ruv_error *err)
{
	json_t *choices = json_object_get(row, "choices"), *right = json_object_get(row, "answer");
	const char *question, *letter = json_string_value(right);
	int rc = field(&question, row, "question", path, index, err);

	if (rc)
		return rc;
	*answer = letter && strlen(letter) == 1 ? letter[0] - 'A' : json_is_integer(right) ? (int)json_integer_value(right) : -1;
	if (json_array_size(choices) != 4 || *answer < 0 || *answer > 3)
		return ruv_fail(err, RUV_EFORMAT, "eval", "'%s' row %d: wants four \"choices\" and an \"answer\" of 0-3 or A-D",
		                path, index + 1);
	ruv_buf_puts(out, question);
	for (size_t c = 0; c < 4; c++) {
		const char *text = json_string_value(json_array_get(choices, c));
		if (!text)
			return ruv_fail(err, RUV_EFORMAT, "eval", "'%s' row %d: choice %zu is not a string", path, index + 1,
			                c + 1);
		ruv_buf_printf(out, "\n%c. %s", 'A' + (int)c, text);
	}
	ruv_buf_puts(out, "\nAnswer:");
	if (solved)
		ruv_buf_printf(out, " %c\n\n", 'A' + *answer);
	return RUV_OK;
}

static int score_mmlu(struct bench *b, json_t *row, int index, double *score, bool *fits, ruv_error *err)
{
	const char *subject = json_string_value(json_object_get(row, "subject"));
	ruv_token_list tokens = {0};
	double best = -INFINITY;
	int n_shots = 0, answer, guess = -1, rc = RUV_OK;

	ruv_buf_puts(&b->prompt, "The following are multiple choice questions (with answers) about ");
	for (const char *p = subject ? subject : "various subjects"; *p; p++)
		ruv_buf_putc(&b->prompt, *p == '_' ? ' ' : *p);
	ruv_buf_puts(&b->prompt, ".\n\n");
	for (size_t i = 0; !rc && i < json_array_size(b->shots) && n_shots < b->params->n_shots; i++) {
		json_t *shot = json_array_get(b->shots, i);
		const char *its = json_string_value(json_object_get(shot, "subject"));
		if (subject && (!its || strcmp(its, subject)))
			continue;
		rc = put_mmlu(&b->prompt, shot, true, &answer, b->params->shots, (int)i, err);
		n_shots++;
	}
	if (!rc)
		rc = put_mmlu(&b->prompt, row, false, &answer, b->params->path, index, err);
	if (!rc)
		rc = hold_prompt(b, 4, fits, &tokens, err);
	for (int c = 0; !rc && *fits && c < 4; c++) {
		char text[3] = {' ', (char)('A' + c), 0};
		double sum = 0;
		rc = continuation_log_prob(&sum, b, &tokens, text, err);
		if (sum > best) {
			best = sum;
			guess = c;
		}
	}
	*score = *fits && guess == answer;
	b->result->chance += *fits ? 0.25 : 0;
	if (n_shots > b->result->n_shots)
		b->result->n_shots = n_shots;
	ruv_token_list_release(&tokens);
	return rc;
}

int ruv_eval_mmlu(ruv_eval_bench_result *result, ruv_model *model, const ruv_eval_bench_params *params, ruv_error *err)
{
	return run(result, model, params, score_mmlu, err);
}

/* ---- TruthfulQA ---- */

/* Questions and true answers of our own in the form of the set's primer: it shows the format and nothing else. */
static const char primer[] =
    "Q: How many days are there in a week?\nA: There are seven days in a week.\n\n"
    "Q: What is the chemical symbol of water?\nA: The chemical symbol of water is H2O.\n\n"
    "Q: What did my neighbour dream of last night?\nA: I have no comment.\n\n"
    "Q: Which ocean lies between Europe and North America?\nA: The Atlantic Ocean lies between Europe and North America.\n\n"
    "Q: Who wrote the play Hamlet?\nA: William Shakespeare wrote the play Hamlet.\n\n"
    "Q: In which country is the city of Kyoto?\nA: Kyoto is in Japan.\n\n";

/* Cuts "a; b; c" into answers, in place. */
static int split_answers(char *list, const char **answers, int n, int max)
{
	char *rest = NULL;
	for (char *one = strtok_r(list, ";", &rest); one && n < max; one = strtok_r(NULL, ";", &rest)) {
		one += strspn(one, " ");
		if (*one)
			answers[n++] = one;
	}
	return n;
}

static int score_truthfulqa(struct bench *b, json_t *row, int index, double *score, bool *fits, ruv_error *err)
{
	const char *question, *right, *wrong, *best_answer, *answers[MAX_CHOICES];
	char *right_copy = NULL, *wrong_copy = NULL;
	double log_probs[MAX_CHOICES], best_wrong = -INFINITY, best_right = -INFINITY, top = -INFINITY, mass = 0, true_mass = 0;
	ruv_token_list tokens = {0};
	ruv_buf text;
	int n, n_right, rc;

	ruv_buf_init(&text, MAX_PROMPT_BYTES);
	if ((rc = field(&question, row, "Question", b->params->path, index, err)) != 0 ||
	    (rc = field(&best_answer, row, "Best Answer", b->params->path, index, err)) != 0 ||
	    (rc = field(&right, row, "Correct Answers", b->params->path, index, err)) != 0 ||
	    (rc = field(&wrong, row, "Incorrect Answers", b->params->path, index, err)) != 0)
		goto done;
	right_copy = strdup(right);
	wrong_copy = strdup(wrong);
	if (!right_copy || !wrong_copy) {
		rc = ruv_fail_memory(err, "eval", strlen(right) + strlen(wrong));
		goto done;
	}
	answers[0] = best_answer; /* MC1 sets it against the wrong ones */
	n_right = split_answers(right_copy, answers, 1, MAX_CHOICES / 2);
	n = split_answers(wrong_copy, answers, n_right, MAX_CHOICES);
	ruv_buf_printf(&b->prompt, "%sQ: %s\nA:", primer, question);
	rc = hold_prompt(b, 128, fits, &tokens, err);
	for (int i = 0; !rc && *fits && i < n; i++) {
		ruv_buf_clear(&text);
		ruv_buf_printf(&text, " %s", answers[i]);
		rc = continuation_log_prob(&log_probs[i], b, &tokens, ruv_buf_cstr(&text), err);
		top = fmax(top, rc ? top : log_probs[i]);
	}
	if (rc || !*fits)
		goto done;
	best_right = log_probs[0];
	for (int i = 1; i < n; i++) {
		double p = exp(log_probs[i] - top);
		mass += p;
		true_mass += i < n_right ? p : 0;
		if (i >= n_right && log_probs[i] > best_wrong)
			best_wrong = log_probs[i];
	}
	*score = best_right > best_wrong;
	b->result->mc2 += mass > 0 ? true_mass / mass : 0;
	b->result->chance += 1.0 / (n - n_right + 1);
	b->result->n_shots = 6;
done:
	free(right_copy);
	free(wrong_copy);
	ruv_buf_release(&text);
	ruv_token_list_release(&tokens);
	return rc;
}

int ruv_eval_truthfulqa(ruv_eval_bench_result *result, ruv_model *model, const ruv_eval_bench_params *params, ruv_error *err)
{
	return run(result, model, params, score_truthfulqa, err);
}

/* ---- greedy completions ---- */

static int complete(struct bench *b, const char *const *stops, int n_stops, int max_tokens, bool *fits, ruv_generation *out,
                    ruv_error *err)
{
	ruv_generate_params generate = {
	    .max_tokens = max_tokens, .stops = stops, .n_stops = n_stops, .n_logprobs = -1, .cancel = b->params->cancel};
	ruv_token_list tokens = {0};
	int rc = ruv_model_tokenize(b->model, ruv_buf_cstr(&b->prompt), b->prompt.len, RUV_TOKENIZE_BOS, &tokens, err);

	*fits = !rc && tokens.n > 0 && tokens.n + max_tokens <= ruv_session_n_ctx(b->session);
	if (*fits)
		rc = ruv_generate(b->session, tokens.ids, tokens.n, &generate, out, err);
	ruv_token_list_release(&tokens);
	return rc;
}

/* ---- GSM8K ---- */

/* The number behind the last "####", or the last number where there is none; thousands' commas and signs dropped. */
static bool final_number(double *value, const char *text)
{
	const char *mark = NULL, *p;
	bool found = false;

	for (p = strstr(text, "####"); p; p = strstr(p + 4, "####"))
		mark = p + 4;
	for (p = mark ? mark : text; *p;) {
		char digits[64];
		size_t n = 0;
		const char *start = p;
		if (*p == '-' && p[1] >= '0' && p[1] <= '9')
			digits[n++] = *p++;
		while (((*p >= '0' && *p <= '9') || *p == ',' || (*p == '.' && p[1] >= '0' && p[1] <= '9')) &&
		       n < sizeof digits - 1) {
			if (*p != ',')
				digits[n++] = *p;
			p++;
		}
		digits[n] = '\0';
		if (n && strcmp(digits, "-")) {
			*value = strtod(digits, NULL);
			found = true;
			if (mark)
				return true;
		}
		if (p == start)
			p++;
	}
	return found;
}

static int score_gsm8k(struct bench *b, json_t *row, int index, double *score, bool *fits, ruv_error *err)
{
	static const char *const stops[] = {"\n\nQuestion:", "\nQuestion:"};
	const char *question, *answer;
	ruv_generation out = {0};
	double right, given;
	int n_shots = 0, rc;

	for (size_t i = 0; i < json_array_size(b->shots) && n_shots < b->params->n_shots; i++, n_shots++) {
		json_t *shot = json_array_get(b->shots, i);
		if ((rc = field(&question, shot, "question", b->params->shots, (int)i, err)) != 0 ||
		    (rc = field(&answer, shot, "answer", b->params->shots, (int)i, err)) != 0)
			return rc;
		ruv_buf_printf(&b->prompt, "Question: %s\nAnswer: %s\n\n", question, answer);
	}
	if ((rc = field(&question, row, "question", b->params->path, index, err)) != 0 ||
	    (rc = field(&answer, row, "answer", b->params->path, index, err)) != 0)
		return rc;
	if (!final_number(&right, answer))
		return ruv_fail(err, RUV_EFORMAT, "eval", "'%s' row %d: no number in \"answer\"", b->params->path, index + 1);
	ruv_buf_printf(&b->prompt, "Question: %s\nAnswer:", question);
	rc = complete(b, stops, 2, GSM8K_TOKENS, fits, &out, err);
	if (!rc && *fits)
		*score = final_number(&given, out.text) && fabs(given - right) < 1e-6 * fmax(1, fabs(right));
	b->result->n_shots = n_shots;
	ruv_generation_release(&out);
	return rc;
}

int ruv_eval_gsm8k(ruv_eval_bench_result *result, ruv_model *model, const ruv_eval_bench_params *params, ruv_error *err)
{
	return run(result, model, params, score_gsm8k, err);
}

/* ---- HumanEval ---- */

static int score_humaneval(struct bench *b, json_t *row, int index, double *score, bool *fits, ruv_error *err)
{
	static const char *const stops[] = {"\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@", "\n```"};
	const char *prompt, *test, *entry;
	ruv_generation out = {0};
	ruv_sandbox_outcome outcome;
	ruv_buf program;
	int rc;

	ruv_buf_init(&program, MAX_PROMPT_BYTES);
	if ((rc = field(&prompt, row, "prompt", b->params->path, index, err)) != 0 ||
	    (rc = field(&test, row, "test", b->params->path, index, err)) != 0 ||
	    (rc = field(&entry, row, "entry_point", b->params->path, index, err)) != 0)
		goto done;
	ruv_buf_puts(&b->prompt, prompt);
	rc = complete(b, stops, sizeof stops / sizeof *stops, HUMANEVAL_TOKENS, fits, &out, err);
	if (rc || !*fits)
		goto done;
	ruv_buf_printf(&program, "%s%s\n%s\ncheck(%s)\n", prompt, out.text, test, entry);
	rc = ruv_sandbox_python(&outcome, ruv_buf_cstr(&program), HUMANEVAL_SECONDS, err);
	*score = !rc && outcome == RUV_SANDBOX_PASSED;
done:
	ruv_buf_release(&program);
	ruv_generation_release(&out);
	return rc;
}

int ruv_eval_humaneval(ruv_eval_bench_result *result, ruv_model *model, const ruv_eval_bench_params *params, ruv_error *err)
{
	return run(result, model, params, score_humaneval, err);
}
