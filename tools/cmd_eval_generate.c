/* cmd_eval_generate.c - `ruvllm eval generate`: what a model writes when nothing holds it. */
#include "cmd_eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/status.h"
#include "cli_runtime.h"
#include "runtime/eval.h"

struct output {
	cli_progress progress;
	ruv_outfile details;
	cli_table *table;
	int show, n_shown;
};

static bool on_progress(void *user, int n_done, int n_total)
{
	return cmd_eval_progress(&((struct output *)user)->progress, n_done, n_total);
}

/* The first of a text on one line, at most n bytes of it, cut before a character. */
static const char *beginning(const char *text, char *line, size_t n)
{
	size_t used = 0;

	for (; used < n && text[used]; used++)
		line[used] = text[used] == '\n' || text[used] == '\t' ? ' ' : text[used];
	while (text[used] && used > 0 && ((unsigned char)text[used] & 0xc0) == 0x80)
		used--;
	line[used] = 0;
	return line;
}

static void on_row(void *user, const ruv_eval_generate_row *row)
{
	struct output *out = user;
	double perplexity = row->n_tokens ? exp(-row->log_prob / row->n_tokens) : 0;

	if (out->details.stream) {
		json_t *object = json_pack("{s:o, s:o, s:i, s:f, s:f, s:b}", "prompt", cli_json_text(row->prompt), "text",
		                           cli_json_text(row->text), "tokens", row->n_tokens, "perplexity", perplexity, "repeated",
		                           row->repeated, "ended", row->ended);

		json_dumpf(object, out->details.stream, JSON_COMPACT);
		fputc('\n', out->details.stream);
		json_decref(object);
	}
	if (out->table && out->n_shown++ < out->show) {
		char prompt[64], text[96];

		cli_table_cell(out->table, "%s", beginning(row->prompt, prompt, 40));
		cli_table_cell(out->table, "%d", row->n_tokens);
		cli_table_cell(out->table, "%.2f", perplexity);
		cli_table_cell(out->table, "%.1f %%", 100 * row->repeated);
		cli_table_cell(out->table, "%s", row->ended ? "yes" : "no");
		cli_table_cell(out->table, "%s", beginning(row->text, text, 70));
	}
}

/* What a line asks: itself, or of a JSON object the "prompt" or the question. NULL: it has neither. */
static char *prompt_of(const char *line)
{
	static const char *const keys[] = {"prompt", "question", "Question"};
	json_t *object = *line == '{' ? json_loads(line, 0, NULL) : NULL;
	const char *found = object ? NULL : line;
	char *copy;

	for (size_t i = 0; object && !found && i < sizeof keys / sizeof *keys; i++)
		found = json_string_value(json_object_get(object, keys[i]));
	copy = found ? strdup(found) : NULL;
	json_decref(object);
	return copy;
}

/* The prompts of a file: [*n] strings, each and the list to be freed. */
static int read_prompts(char ***prompts, int *n, const char *path, int limit, ruv_error *err)
{
	char *text = NULL, *rest = NULL;
	size_t n_bytes;
	int rc = ruv_eval_text_read(&text, &n_bytes, path, err), room = 1, at = 0;

	*n = 0;
	if (rc)
		return rc;
	for (const char *p = text; *p; p++)
		room += *p == '\n';
	*prompts = calloc((size_t)room, sizeof **prompts);
	if (!*prompts)
		rc = ruv_fail_memory(err, "eval", (size_t)room * sizeof **prompts);
	for (char *line = rc ? NULL : strtok_r(text, "\r\n", &rest); line && !rc && (limit <= 0 || *n < limit);
	     line = strtok_r(NULL, "\r\n", &rest)) {
		line += strspn(line, " \t");
		at++;
		if (!*line)
			continue;
		(*prompts)[*n] = prompt_of(line);
		if (!(*prompts)[*n])
			rc = ruv_fail(err, RUV_EFORMAT, "eval", "'%s', row %d: no \"prompt\" or \"question\" string", path, at);
		else
			++*n;
	}
	free(text);
	return rc;
}

static int print_json(const ruv_eval_generate_result *r, const ruv_model_info *info)
{
	return cli_json_print(json_pack("{s:o, s:s, s:i, s:i, s:i, s:i, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "model",
	                                cli_json_text(*info->name ? info->name : info->path), "file_type", info->file_type, "texts",
	                                r->n_texts, "ended", r->n_ended, "empty", r->n_empty, "too_long", r->n_too_long, "tokens",
	                                (json_int_t)r->n_tokens, "words", (json_int_t)r->n_words, "perplexity", r->perplexity,
	                                "distinct_1", r->distinct_1, "distinct_2", r->distinct_2, "repeated", r->repeated,
	                                "seconds", r->seconds));
}

static void print_result(const ruv_eval_generate_result *r, const ruv_model_info *info)
{
	printf("%s, %s: %d texts, %lld tokens, %lld words\n", *info->name ? info->name : info->path, info->file_type, r->n_texts,
	       (long long)r->n_tokens, (long long)r->n_words);
	printf("ended by themselves %d, empty %d, left out as too long %d\n", r->n_ended, r->n_empty, r->n_too_long);
	printf("perplexity of what it wrote %.3f   distinct words %.3f, pairs %.3f   repeated runs of four words %.1f %%\n",
	       r->perplexity, r->distinct_1, r->distinct_2, 100 * r->repeated);
	printf("%.1f s, %.1f tokens/s\n", r->seconds, (double)r->n_tokens / (r->seconds > 0 ? r->seconds : 1));
}

int cmd_eval_generate(int argc, char **argv)
{
	static int limit, max_tokens = 96, show = 10;
	static double temperature;
	static int64_t seed = 1;
	static bool plain;
	static const char *details;
	static const cli_option options[] = {
	    {"limit", 'n', CLI_INT, &limit, "N", "only the first N prompts (default: all)"},
	    {"length", 0, CLI_INT, &max_tokens, "N", "most tokens of a text (default 96)"},
	    {"plain", 0, CLI_FLAG, &plain, NULL, "continue the prompts as they are, without the chat template"},
	    {"sample-temperature", 0, CLI_DOUBLE, &temperature, "T", "0 (the default): always the likeliest token"},
	    {"sample-seed", 0, CLI_INT64, &seed, "N", "seed of sampling (default 1)"},
	    {"show", 0, CLI_INT, &show, "N", "texts in the table (default 10)"},
	    {"details", 'o', CLI_STRING, &details, "FILE", "write every text as JSON Lines"},
	    {0}};
	static const cli_spec spec = {
	    .name = "eval generate",
	    .usage = "[OPTIONS] FILE",
	    .summary =
		"Let the model write freely, from the questions of a set or the lines of a text: whether it comes to an end, its "
		"own "
		"perplexity on what it wrote, the share of different words and pairs of words, and how much of a text repeats "
		"itself.",
	    .options = options,
	    .notes = "FILE holds one prompt a line, or JSON Lines with a \"prompt\" or a \"question\", plain or packed by zstd.",
	    .examples = "ruvllm eval generate bench/data/truthfulqa.jsonl.zst -n 50 --model s\n"
			"ruvllm eval generate prompts.txt --plain --sample-temperature 0.7 -o texts.jsonl",
	    .min_args = 1,
	    .max_args = 1,
	    CLI_CONFIG_OPTIONS,
	};
	struct output output = {0};
	ruv_runtime *runtime = NULL;
	char **prompts = NULL;
	ruv_eval_generate_params params;
	ruv_eval_generate_result result;
	ruv_model *model;
	ruv_model_info info;
	ruv_error err = {0};
	cli_args args;
	int n = 0, code;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	cli_interrupt_catch();
	if (read_prompts(&prompts, &n, args.items[0], limit, &err)) {
		code = cli_fail(&err, NULL);
		goto done;
	}
	runtime = cli_runtime(&code);
	if (!runtime)
		goto done;
	if (ruv_runtime_model(runtime, NULL, &model, &err)) {
		code = cli_runtime_fail(&err);
		goto done;
	}
	if (details && ruv_outfile_open(&output.details, details, &err)) {
		code = cli_fail(&err, NULL);
		goto done;
	}
	ruv_model_get_info(model, &info);
	output.show = show;
	if (!cli.json && show > 0)
		output.table = cli_table_create("PROMPT|>TOKENS|>PERPLEXITY|>REPEATED|ENDED|TEXT");
	params = (ruv_eval_generate_params){.max_tokens = max_tokens,
	                                    .plain = plain,
	                                    .sampling = {.temperature = (float)temperature, .seed = (uint64_t)seed},
	                                    .cancel = &cli_cancel,
	                                    .progress = on_progress,
	                                    .on_row = on_row,
	                                    .user = &output};
	code = ruv_eval_generate(&result, model, (const char *const *)prompts, n, &params, &err) ? cli_fail(&err, NULL) : 0;
	cli_progress_end(&output.progress, false);
	if (output.table && !code)
		cli_table_print(output.table, stdout);
	if (!code && details && ruv_outfile_commit(&output.details, &err))
		code = cli_fail(&err, NULL);
	if (!code && cli.json)
		code = print_json(&result, &info);
	else if (!code)
		print_result(&result, &info);
done:
	ruv_outfile_release(&output.details);
	ruv_runtime_free(runtime);
	for (int i = 0; i < n; i++)
		free(prompts[i]);
	free(prompts);
	return code;
}
