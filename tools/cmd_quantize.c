/* cmd_quantize.c - `ruvllm quantize`: a GGUF file or Hugging Face directory in another type, and what it shares with convert. */
#include "commands.h"
#include "write_model.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"

static int show_progress(void *user, uint64_t done, uint64_t total, const char *tensor, const char *type_name)
{
	cli_progress *p = user;
	char detail[128];
	if (!p->active)
		cli_progress_begin(p, "writing", "B", total);
	snprintf(detail, sizeof detail, "%s as %s", tensor, type_name);
	cli_progress_update(p, done, detail);
	return cli_interrupted;
}

/* "model-F16.gguf" or "dir/" and Q4_K_M make "model-Q4_K_M.gguf". */
static void name_output(char *path, size_t cap, const char *from, ruv_recipe recipe)
{
	char real[PATH_MAX], base[256];
	if (!realpath(from, real))
		snprintf(real, sizeof real, "%s", from);
	const char *slash = strrchr(real, '/');
	snprintf(base, sizeof base, "%.255s", slash && slash[1] ? slash + 1 : "model");
	size_t n = strlen(base);
	if (n > 5 && !strcmp(base + n - 5, ".gguf"))
		base[n -= 5] = '\0';
	char *dash = strrchr(base, '-');
	if (dash && ruv_recipe_parse(dash + 1) >= 0)
		*dash = '\0';
	snprintf(path, cap, "%s-%s.gguf", base, ruv_recipe_name(recipe));
}

int cli_write_model(const char *from, const char *output, const ruv_write_options *options, int n_threads, bool force,
                    const char *imatrix_path)
{
	ruv_write_options write = *options;
	ruv_write_report report;
	ruv_imatrix *imatrix = NULL;
	ruv_pool *pool = NULL;
	ruv_error err = {0};
	cli_progress progress = {0};
	char path[PATH_MAX], size_in[32], size_out[32], time[32];
	struct stat sb;
	int64_t start = ruv_clock_now_ns();
	int rc;

	if (output)
		snprintf(path, sizeof path, "%s", output);
	else
		name_output(path, sizeof path, from, write.recipe);
	if (!force && !stat(path, &sb))
		return cli_failf(RUV_EEXIST, "'%s' is there already; --force replaces it", path);
	if (n_threads < 0 || n_threads > 256)
		return cli_usage("--threads must be from 0 to 256");
	cli_interrupt_catch();
	rc = ruv_pool_create(&pool, n_threads, &err);
	if (!rc && imatrix_path)
		rc = ruv_imatrix_open(&imatrix, imatrix_path, &err);
	if (!rc) {
		write.pool = pool;
		write.imatrix = imatrix;
		write.progress = show_progress;
		write.user = &progress;
		rc = ruv_model_write(path, from, &write, &report, &err);
	}
	cli_progress_end(&progress, false);
	ruv_imatrix_free(imatrix);
	ruv_pool_free(pool);
	if (rc)
		return cli_fail(&err, NULL);

	double seconds = (double)(ruv_clock_now_ns() - start) / 1e9;
	if (cli.json) {
		json_t *j = json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:f}", "file", cli_json_text(path), "type",
		                      ruv_recipe_name(write.recipe), "tensors", (json_int_t)report.n_tensors, "bytes_in",
		                      (json_int_t)report.bytes_in, "bytes_out", (json_int_t)report.bytes_out, "fallback_tensors",
		                      (json_int_t)report.n_fallback, "importance_tensors", (json_int_t)report.n_importance,
		                      "seconds", seconds);
		return cli_json_print(j);
	}
	printf(
	    "%s: %zu tensors, %s to %s (%.2f x) in %s\n", path, report.n_tensors,
	    cli_human_bytes(size_in, sizeof size_in, report.bytes_in), cli_human_bytes(size_out, sizeof size_out, report.bytes_out),
	    report.bytes_out ? (double)report.bytes_in / (double)report.bytes_out : 0, cli_human_time(time, sizeof time, seconds));
	if (report.n_fallback)
		printf("%zu tensors have rows that are no multiple of 256 and got a type of 32-element blocks\n",
		       report.n_fallback);
	if (report.n_importance)
		printf("%zu tensors used the importance matrix\n", report.n_importance);
	return CLI_EXIT_OK;
}

int cmd_quantize(int argc, char **argv)
{
	static const char *type = "Q4_K_M", *head, *imatrix, *output;
	static int threads;
	static bool force, allow_requantize, no_tokenizer;
	static const cli_option options[] = {
	    {"type", 't', CLI_STRING, &type, "TYPE", "Q4_K_M (default), Q5_K_M, Q6_K, Q8_0, Q4_0, F16, BF16, F32 or MIXED"},
	    {"output", 'o', CLI_STRING, &output, "FILE", "where to write (default NAME-TYPE.gguf in this directory)"},
	    {"embedding", 0, CLI_STRING, &head, "TYPE",
	     "another type for the token embedding or head, a large part of a small model"},
	    {"imatrix", 'i', CLI_STRING, &imatrix, "FILE", "importance matrix made by `ruvllm imatrix`"},
	    {"threads", 'j', CLI_INT, &threads, "N", "threads (default: one per core)"},
	    {"allow-requantize", 0, CLI_FLAG, &allow_requantize, NULL,
	     "accept a model that is quantized already (it loses quality)"},
	    {"no-tokenizer", 0, CLI_FLAG, &no_tokenizer, NULL, "accept a directory without tokenizer"},
	    {"force", 'f', CLI_FLAG, &force, NULL, "replace the output if it is there"},
	    {0}};
	static const cli_spec spec = {
	    .name = "quantize",
	    .usage = "[OPTIONS] MODEL",
	    .summary = "Writes a model with smaller weights. MODEL is a GGUF file, a Hugging Face directory, or ORG/NAME in the "
		       "local Hugging "
		       "Face cache.",
	    .options = options,
	    .examples = "ruvllm quantize LFM2-350M-F16.gguf\nruvllm quantize ./LFM2-350M --type Q5_K_M -o small.gguf\n"
			"ruvllm quantize LFM2-350M-F16.gguf --imatrix LFM2-350M.imatrix.gguf",
	    .notes = "MIXED keeps attention and convolution matrices in F16 and stores the feed-forward ones in Q4_K.\n"
		     "The output appears only when it is complete; an interrupted run leaves nothing behind.",
	    .min_args = 1,
	    .max_args = 1};
	cli_args args;
	ruv_error err = {0};
	char *from = NULL;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	int recipe = ruv_recipe_parse(type);
	if (recipe < 0)
		return cli_usage("'%s' is no type; known are %s", type, ruv_recipe_names());
	int head_parsed = head ? ruv_recipe_parse(head) : 0;
	if (head_parsed < 0)
		return cli_usage("'%s' is no type; known are %s", head, ruv_recipe_names());
	const ruv_recipe head_recipe = (ruv_recipe)head_parsed;
	rc = ruv_model_find(&from, args.items[0], &err);
	if (rc)
		return cli_fail(&err, NULL);
	const ruv_write_options write = {.recipe = (ruv_recipe)recipe,
	                                 .head = head ? &head_recipe : NULL,
	                                 .allow_requantize = allow_requantize,
	                                 .no_tokenizer = no_tokenizer};
	code = cli_write_model(from, output, &write, threads, force, imatrix);
	free(from);
	return code;
}
