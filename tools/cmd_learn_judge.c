/* cmd_learn_judge.c - `ruvllm learn judge-bench`: how well the programmatic checks tell right answers from wrong ones, and the
 * weights that would tell them best. Each answerable question gives one right answer and one wrong one of three kinds: another
 * answer of the same passage, an answer from another passage, the right answer with a number or a word changed. */
#include "cmd_learn.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/status.h"
#include "runtime/eval_data.h"

enum { SAME_PASSAGE, OTHER_PASSAGE, CHANGED, N_KINDS };

static const char *const kinds[N_KINDS] = {"an answer to another question of the passage", "an answer from another passage",
                                           "the right answer, changed"};

/* Every digit moved by three; without one, letters of the longest word turned round. */
static char *change(const char *answer)
{
	char *copy = strdup(answer);
	bool digit = false;
	size_t begin = 0, length = 0;
	if (!copy)
		return NULL;
	for (char *p = copy; *p; p++)
		if (isdigit((unsigned char)*p)) {
			*p = (char)('0' + (*p - '0' + 3) % 10);
			digit = true;
		}
	for (size_t i = 0; !digit && copy[i];) {
		size_t n = 0;
		while (isalpha((unsigned char)copy[i + n]))
			n++;
		if (n > length) {
			begin = i;
			length = n;
		}
		i += n ? n : 1;
	}
	for (size_t i = 0; i < length / 2; i++) {
		const char swap = copy[begin + i];
		copy[begin + i] = copy[begin + length - 1 - i];
		copy[begin + length - 1 - i] = swap;
	}
	return copy;
}

static const char *wrong_answer(const ruv_eval_set *set, int i, int kind, ruv_rng *rng, char **made)
{
	const ruv_eval_row *row = &set->rows[i];
	for (int attempt = 0; attempt < 500; attempt++) {
		const ruv_eval_row *other = &set->rows[ruv_rng_below(rng, (uint64_t)set->n_rows)];
		if (kind == CHANGED)
			return *made = change(row->answers[0]);
		if (kind == SAME_PASSAGE) { /* neighbours in the file share the passage */
			const int64_t at = i + (int64_t)ruv_rng_below(rng, 21) - 10;
			if (at < 0 || at >= set->n_rows)
				continue;
			other = &set->rows[at];
		}
		if (!other->answerable || (other->passage == row->passage) != (kind == SAME_PASSAGE))
			continue;
		bool right = false;
		for (int k = 0; k < row->n_answers && !right; k++)
			right = strcasestr(row->answers[k], other->answers[0]) || strcasestr(other->answers[0], row->answers[k]);
		if (!right)
			return other->answers[0];
	}
	return NULL;
}

struct tally {
	float *scores;
	bool *labels;
	ruv_verdict *verdicts;
	int n;
};

static int add(struct tally *t, const char *question, const char *answer, const char *context, bool right,
               const ruv_judge_weights *weights, ruv_error *err)
{
	const ruv_judged what = {.question = question, .answer = answer, .sources = &context, .n_sources = 1};
	int rc = ruv_judge_check(&t->verdicts[t->n], &what, weights, err);
	t->scores[t->n] = t->verdicts[t->n].quality;
	t->labels[t->n++] = right;
	return rc;
}

int cmd_learn_judge(int argc, char **argv)
{
	static int limit = 500, seed = 1;
	static const cli_option options[] = {{"limit", 'n', CLI_INT, &limit, "N", "questions (default 500, 0: all)"},
	                                     {"draw", 0, CLI_INT, &seed, "N", "seed of the choice (default 1)"},
	                                     {0}};
	static const cli_spec spec = {
	    .name = "learn judge-bench",
	    .usage = "[OPTIONS] SET...",
	    .summary = "How well the judge's checks (grounded, complete, well-formed) tell right answers from wrong ones: "
		       "AUC, correlation, confusion at the best threshold, and weights fitted to half of the questions "
		       "and measured on the other half. SET as for `ruvllm eval qa`.",
	    .options = options,
	    .examples = "ruvllm learn judge-bench bench/data/squad_eval.jsonl.zst",
	    .min_args = 1,
	    .max_args = -1};
	cli_args args;
	int code = CLI_EXIT_OK, *order = NULL, n = 0, rc = RUV_OK;
	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	ruv_error err = {0};
	ruv_eval_set set = {0};
	ruv_rng rng;
	ruv_rng_init(&rng, (uint64_t)seed);
	for (int i = 0; i < args.n && rc == RUV_OK; i++)
		rc = ruv_eval_set_read(&set, args.items[i], &err);
	if (rc == RUV_OK) {
		n = ruv_eval_set_sample(&order, &set, limit, &rng, &err);
		rc = n < 0 ? n : RUV_OK;
	}
	json_t *list = json_array();
	cli_table *table =
	    cli.json ? NULL
		     : cli_table_create(
			   "wrong answers are|>pairs|>AUC|>correlation|>right kept|>wrong kept out|>AUC fitted, other half");
	for (int kind = 0; kind < N_KINDS && rc == RUV_OK; kind++) {
		const size_t room = 2 * (size_t)n + 2;
		struct tally t = {calloc(room, sizeof *t.scores), calloc(room, sizeof *t.labels), calloc(room, sizeof *t.verdicts),
		                  0};
		if (!t.scores || !t.labels || !t.verdicts)
			rc = ruv_fail_memory(&err, "learn", room * sizeof *t.verdicts);
		for (int i = 0; i < n && rc == RUV_OK; i++) {
			const ruv_eval_row *row = &set.rows[order[i]];
			char *made = NULL;
			const char *wrong =
			    row->answerable && row->n_answers ? wrong_answer(&set, order[i], kind, &rng, &made) : NULL;
			if (wrong) {
				const char *context = set.passages[row->passage].text;
				rc = add(&t, row->question, row->answers[0], context, true, NULL, &err);
				if (rc == RUV_OK)
					rc = add(&t, row->question, wrong, context, false, NULL, &err);
			}
			free(made);
		}
		ruv_calibration c = {0}, fitted = {0};
		ruv_judge_weights w = {0};
		if (rc == RUV_OK)
			rc = ruv_judge_calibrate(&c, t.scores, t.labels, t.n, &err);
		const int half = t.n / 4 * 2; /* pairs stay together */
		if (rc == RUV_OK)
			rc = ruv_judge_fit(&w, t.verdicts, t.labels, half, false, &err);
		for (int i = half; i < t.n && rc == RUV_OK; i++) {
			const ruv_verdict *v = &t.verdicts[i];
			t.scores[i] = w.bias + w.grounded * v->grounded + w.complete * v->complete + w.format * v->format;
		}
		if (rc == RUV_OK)
			rc = ruv_judge_calibrate(&fitted, t.scores + half, t.labels + half, t.n - half, &err);
		if (rc == RUV_OK && table) {
			cli_table_cell(table, "%s", kinds[kind]);
			cli_table_cell(table, "%d", t.n / 2);
			cli_table_cell(table, "%.3f", c.auc);
			cli_table_cell(table, "%.3f", c.correlation);
			cli_table_cell(table, "%d of %d", c.true_right, c.n_right);
			cli_table_cell(table, "%d of %d", c.true_wrong, c.n - c.n_right);
			cli_table_cell(table, "%.3f (%.2f; %.2f, %.2f, %.2f)", fitted.auc, (double)w.bias, (double)w.grounded,
			               (double)w.complete, (double)w.format);
		} else if (rc == RUV_OK) {
			json_array_append_new(
			    list, json_pack("{s:s, s:i, s:f, s:f, s:f, s:i, s:i, s:i, s:i, s:f, s:{s:f, s:f, s:f, s:f}}", "wrong",
			                    kinds[kind], "pairs", t.n / 2, "auc", c.auc, "correlation", c.correlation, "threshold",
			                    c.threshold, "true_right", c.true_right, "false_right", c.false_right, "true_wrong",
			                    c.true_wrong, "false_wrong", c.false_wrong, "auc_fitted", fitted.auc, "weights", "bias",
			                    (double)w.bias, "grounded", (double)w.grounded, "complete", (double)w.complete,
			                    "format", (double)w.format));
		}
		free(t.scores);
		free(t.labels);
		free(t.verdicts);
	}
	if (rc == RUV_OK && cli.json)
		code = cli_json_print(json_incref(list));
	else if (rc == RUV_OK)
		cli_table_print(table, stdout);
	json_decref(list);
	free(order);
	ruv_eval_set_release(&set);
	return rc ? cli_fail(&err, NULL) : code;
}
