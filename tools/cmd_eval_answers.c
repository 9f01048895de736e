/* cmd_eval_answers.c - `ruvllm eval qa`, `eval judge` and `eval draft`: a generator on questions whose answers are known. */
#include "cmd_eval.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli_runtime.h"
#include "runtime/eval.h"

static const char data_notes[] = "FILE holds JSON Lines, plain or packed by zstd: {\"question\", \"context\", \"title\", "
				 "\"answers\": [...], \"answerable\"}. The sets that this "
				 "project reports on are in bench/data/.";

bool cmd_eval_progress(void *user, int n_done, int n_total)
{
	cli_progress *progress = user;

	if (!progress->active)
		cli_progress_begin(progress, cli.command, "steps", (uint64_t)n_total);
	cli_progress_update(progress, (uint64_t)n_done, NULL);
	return !cli_interrupted;
}

/* The set, the runtime and its generator, opened together. */
struct subject {
	ruv_eval_set set;
	ruv_runtime *runtime;
	ruv_model *model;
	ruv_model_info info;
};

static bool subject_open(struct subject *subject, const cli_args *files, int *code)
{
	ruv_error err = {0};

	cli_interrupt_catch();
	memset(subject, 0, sizeof *subject);
	for (int i = 0; i < files->n; i++)
		if (ruv_eval_set_read(&subject->set, files->items[i], &err)) {
			*code = cli_fail(&err, NULL);
			return false;
		}
	subject->runtime = cli_runtime(code);
	if (!subject->runtime)
		return false;
	if (ruv_runtime_model(subject->runtime, NULL, &subject->model, &err)) {
		*code = cli_runtime_fail(&err);
		return false;
	}
	ruv_model_get_info(subject->model, &subject->info);
	return true;
}

static void subject_close(struct subject *subject)
{
	ruv_runtime_free(subject->runtime);
	ruv_eval_set_release(&subject->set);
}

static const char *model_name(const ruv_model_info *info)
{
	return *info->name ? info->name : info->path;
}

/* ---- qa ---- */

struct qa_output {
	cli_progress progress;
	ruv_outfile details;
	int n_shown, show;
};

static bool qa_progress(void *user, int n_done, int n_total)
{
	return cmd_eval_progress(&((struct qa_output *)user)->progress, n_done, n_total);
}

static void qa_row(void *user, const ruv_eval_qa_row *row)
{
	struct qa_output *out = user;

	if (out->details.stream) {
		json_t *answers = json_array(), *object;
		for (int i = 0; i < row->row->n_answers; i++)
			json_array_append_new(answers, cli_json_text(row->row->answers[i]));
		object = json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:f, s:b, s:b, s:b, s:f}", "id",
		                   cli_json_text(row->row->id), "question", cli_json_text(row->row->question), "right", answers,
		                   "text", cli_json_text(row->text), "answer", cli_json_text(row->answer), "answerable",
		                   row->answerable, "refused", row->refused, "f1", row->f1, "exact", row->exact, "sentence",
		                   row->sentence, "verbatim", row->verbatim, "margin", row->margin);
		json_dumpf(object, out->details.stream, JSON_COMPACT);
		fputc('\n', out->details.stream);
		json_decref(object);
	}
	if (out->n_shown++ < out->show)
		printf("Q: %s\n%s\n(%s, F1 %.2f)\n\n", row->row->question, row->text,
		       !row->answerable ? "not answerable" : row->row->answers[0], row->f1);
}

static void qa_print(const ruv_eval_qa_result *r, const ruv_model_info *info, double share)
{
	printf("%s, %s\n", model_name(info), info->file_type);
	if (r->n_answerable) {
		printf("answerable     %5d   F1 %5.1f   exact %5.1f   right sentence %5.1f %%   answered %5.1f %% (F1 of those "
		       "%.1f)\n",
		       r->n_answerable, 100 * r->f1, 100 * r->exact, 100 * r->sentence, 100 * r->answered, 100 * r->f1_answered);
	}
	if (r->n_unanswerable)
		printf("unanswerable   %5d   says so %5.1f %%\n", r->n_unanswerable, 100 * r->refused);
	if (r->decision_auc > 0)
		printf("deciding whether to answer: AUC %.3f", r->decision_auc);
	if (share > 0)
		printf("; to answer %.1f %% of the answerable ones add %+.2f to the bias, which refuses %.1f %% of the others",
		       100 * share, r->bias, 100 * r->refused_at_bias);
	if (r->decision_auc > 0 || share > 0)
		printf("\n");
	printf("quotes found word for word in a source: %.1f %% of answers\n", 100 * r->verbatim);
	if (r->n_too_long)
		printf("left out, too long for the context: %d\n", r->n_too_long);
	printf("%.1f s, %.1f answers/s, %.0f prompt and %.0f answer tokens each\n", r->seconds,
	       (r->n_answerable + r->n_unanswerable) / (r->seconds > 0 ? r->seconds : 1),
	       (double)r->n_prompt_tokens / (r->n_answerable + r->n_unanswerable + 1e-9),
	       (double)r->n_answer_tokens / (r->n_answerable + r->n_unanswerable + 1e-9));
}

static int qa_json(const ruv_eval_qa_result *r, const ruv_model_info *info, const ruv_eval_qa_params *params)
{
	return cli_json_print(json_pack(
	    "{s:o, s:s, s:i, s:b, s:I, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:i, s:I, s:I, s:f}", "model",
	    cli_json_text(model_name(info)), "file_type", info->file_type, "passages", params->n_passages, "random_passage",
	    params->random_passage, "seed", (json_int_t)params->seed, "answerable", r->n_answerable, "unanswerable",
	    r->n_unanswerable, "f1", r->f1, "exact", r->exact, "sentence", r->sentence, "answered", r->answered, "f1_answered",
	    r->f1_answered, "refused", r->refused, "verbatim", r->verbatim, "decision_auc", r->decision_auc, "bias", r->bias,
	    "refused_at_bias", r->refused_at_bias, "too_long", r->n_too_long, "prompt_tokens", (json_int_t)r->n_prompt_tokens,
	    "answer_tokens", (json_int_t)r->n_answer_tokens, "seconds", r->seconds));
}

int cmd_eval_qa(int argc, char **argv)
{
	static int passages = 3, limit, show;
	static int64_t seed = 1;
	static bool random_passage;
	static double share;
	static const char *details;
	static const cli_option options[] = {
	    {"passages", 'p', CLI_INT, &passages, "N", "passages in the prompt, the right one among them (default 3)"},
	    {"limit", 'n', CLI_INT, &limit, "N", "only a seeded sample of N questions (default: all)"},
	    {"random-passage", 0, CLI_FLAG, &random_passage, NULL,
	     "leave the right passage out: the right answer is then \"I don't know\""},
	    {"sample-seed", 0, CLI_INT64, &seed, "N", "seed of the sample and of the other passages (default 1)"},
	    {"answers", 0, CLI_DOUBLE, &share, "SHARE",
	     "find the bias at which this share of the answerable questions is answered (0 to 1)"},
	    {"show", 0, CLI_INT, &show, "N", "print the first N answers"},
	    {"details", 'o', CLI_STRING, &details, "FILE", "write every answer as JSON Lines"},
	    {0}};
	static const cli_spec spec = {
	    .name = "eval qa",
	    .usage = "[OPTIONS] FILE",
	    .summary = "Answer questions from given passages, greedily: F1 and exact match of the short answer (SQuAD's), whether "
		       "the quoted sentence "
		       "is one that holds the answer, and how often the model says that it does not know, rightly and wrongly.",
	    .options = options,
	    .notes = data_notes,
	    .examples = "ruvllm eval qa bench/data/squad_eval.jsonl.zst -n 500\nruvllm eval qa bench/data/nq_last300.jsonl.zst -p "
			"1 --model s",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	struct qa_output output = {0};
	struct subject subject;
	ruv_eval_qa_params params;
	ruv_eval_qa_result result;
	ruv_error err = {0};
	cli_args args;
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (!subject_open(&subject, &args, &code))
		goto done;
	if (details && ruv_outfile_open(&output.details, details, &err)) {
		code = cli_fail(&err, NULL);
		goto done;
	}
	output.show = cli.json ? 0 : show;
	params = (ruv_eval_qa_params){.n_passages = passages,
	                              .limit = limit,
	                              .random_passage = random_passage,
	                              .answer_share = share,
	                              .seed = (uint64_t)seed,
	                              .cancel = &cli_cancel,
	                              .progress = qa_progress,
	                              .on_row = qa_row,
	                              .user = &output};
	code = ruv_eval_qa(&result, subject.model, &subject.set, &params, &err) ? cli_fail(&err, NULL) : 0;
	cli_progress_end(&output.progress, false);
	if (!code && details && ruv_outfile_commit(&output.details, &err))
		code = cli_fail(&err, NULL);
	if (!code && cli.json)
		code = qa_json(&result, &subject.info, &params);
	else if (!code)
		qa_print(&result, &subject.info, share);
done:
	ruv_outfile_release(&output.details);
	subject_close(&subject);
	return code;
}

/* ---- judge ---- */

int cmd_eval_judge(int argc, char **argv)
{
	static int limit;
	static int64_t seed = 1;
	static const cli_option options[] = {
	    {"limit", 'n', CLI_INT, &limit, "N", "only a seeded sample of N questions (default: all)"},
	    {"sample-seed", 0, CLI_INT64, &seed, "N", "seed of the sample and of the wrong answers (default 1)"},
	    {0}};
	static const cli_spec spec = {
	    .name = "eval judge",
	    .usage = "[OPTIONS] FILE",
	    .summary =
		"Let the model rate right answers and wrong ones (the answer to another question about the same passage) "
		"from 1 to 5, measure how well its expected rating tells them apart (area under the ROC curve), and beside it "
		"how well the support does that answers are judged by: the evidence for the sentence that the answer stands "
		"in, and how likely the model finds the answer behind it.",
	    .options = options,
	    .notes = data_notes,
	    .examples = "ruvllm eval judge bench/data/squad_eval.jsonl.zst -n 500",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	cli_progress progress = {0};
	struct subject subject;
	ruv_eval_judge_params params;
	ruv_eval_judge_result r;
	ruv_error err = {0};
	cli_args args;
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (!subject_open(&subject, &args, &code))
		goto done;
	params = (ruv_eval_judge_params){
	    .limit = limit, .seed = (uint64_t)seed, .cancel = &cli_cancel, .progress = cmd_eval_progress, .user = &progress};
	code = ruv_eval_judge(&r, subject.model, &subject.set, &params, &err) ? cli_fail(&err, NULL) : 0;
	cli_progress_end(&progress, false);
	if (code)
		goto done;
	if (cli.json) {
		code = cli_json_print(json_pack(
		    "{s:o, s:i, s:f, s:f, s:f, s:[i,i,i,i,i], s:[i,i,i,i,i], s:{s:f, s:f, s:f, s:f, s:f, s:i, s:i, s:i, s:i}, s:f}",
		    "model", cli_json_text(model_name(&subject.info)), "pairs", r.n_pairs, "auc", r.auc, "mean_right", r.mean_right,
		    "mean_wrong", r.mean_wrong, "right", r.right[0], r.right[1], r.right[2], r.right[3], r.right[4], "wrong",
		    r.wrong[0], r.wrong[1], r.wrong[2], r.wrong[3], r.wrong[4], "support", "auc", r.support.auc, "mean_right",
		    r.support_right, "mean_wrong", r.support_wrong, "correlation", r.support.correlation, "threshold",
		    r.support.threshold, "true_right", r.support.true_right, "false_right", r.support.false_right, "true_wrong",
		    r.support.true_wrong, "false_wrong", r.support.false_wrong, "seconds", r.seconds));
		goto done;
	}
	printf("%s, %d right and %d wrong answers\n", model_name(&subject.info), r.n_pairs, r.n_pairs);
	printf("support: AUC %.3f, mean %.2f for right and %.2f for wrong answers; at %.2f %d right and %d wrong ones are told "
	       "rightly\n",
	       r.support.auc, r.support_right, r.support_wrong, r.support.threshold, r.support.true_right, r.support.true_wrong);
	printf("rating asked of the model: AUC %.3f\n", r.auc);
	printf("rating          1      2      3      4      5   mean\n");
	for (int wrong = 0; wrong < 2; wrong++) {
		const int *counts = wrong ? r.wrong : r.right;
		printf("%s  %6d %6d %6d %6d %6d   %.2f\n", wrong ? "wrong answers" : "right answers", counts[0], counts[1],
		       counts[2], counts[3], counts[4], wrong ? r.mean_wrong : r.mean_right);
	}
done:
	subject_close(&subject);
	return code;
}

/* ---- draft ---- */

int cmd_eval_draft(int argc, char **argv)
{
	static int limit = 200, passages = 3;
	static int64_t seed = 1;
	static const char *draft = "s";
	static const cli_option options[] = {
	    {"draft", 'd', CLI_STRING, &draft, "s|m|l|FILE", "the model that would draft (default s)"},
	    {"passages", 'p', CLI_INT, &passages, "N", "passages in the prompt (default 3)"},
	    {"limit", 'n', CLI_INT, &limit, "N", "questions of a seeded sample (default 200)"},
	    {"sample-seed", 0, CLI_INT64, &seed, "N", "seed of the sample (default 1)"},
	    {0}};
	static const cli_spec spec = {
	    .name = "eval draft",
	    .usage = "[OPTIONS] FILE",
	    .summary = "How often a small model, reading what the generator has written so far, proposes its next token: the "
		       "acceptance that greedy "
		       "speculative decoding would see on answers.",
	    .options = options,
	    .notes = data_notes,
	    .examples = "ruvllm eval draft bench/data/squad_eval.jsonl.zst --model l --draft s",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	cli_progress progress = {0};
	struct subject subject;
	ruv_model *draft_model;
	ruv_model_info info;
	ruv_eval_qa_params params;
	ruv_eval_draft_result r;
	ruv_error err = {0};
	cli_args args;
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (!subject_open(&subject, &args, &code))
		goto done;
	if (ruv_runtime_model(subject.runtime, draft, &draft_model, &err)) {
		code = cli_runtime_fail(&err);
		goto done;
	}
	ruv_model_get_info(draft_model, &info);
	params = (ruv_eval_qa_params){.n_passages = passages,
	                              .limit = limit,
	                              .seed = (uint64_t)seed,
	                              .cancel = &cli_cancel,
	                              .progress = cmd_eval_progress,
	                              .user = &progress};
	code = ruv_eval_draft(&r, subject.model, draft_model, &subject.set, &params, &err) ? cli_fail(&err, NULL) : 0;
	cli_progress_end(&progress, false);
	if (!code && cli.json)
		code = cli_json_print(json_pack("{s:o, s:o, s:i, s:I, s:I, s:f}", "target",
		                                cli_json_text(model_name(&subject.info)), "draft", cli_json_text(model_name(&info)),
		                                "answers", r.n_answers, "tokens", (json_int_t)r.n_tokens, "accepted",
		                                (json_int_t)r.n_accepted, "acceptance", r.acceptance));
	else if (!code)
		printf("%s drafting for %s: %lld of %lld tokens of %d answers accepted, %.3f\n", model_name(&info),
		       model_name(&subject.info), (long long)r.n_accepted, (long long)r.n_tokens, r.n_answers, r.acceptance);
done:
	subject_close(&subject);
	return code;
}
