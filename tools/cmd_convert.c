/* cmd_convert.c - `ruvllm convert`: a Hugging Face directory becomes a GGUF file. See cmd_quantize.c for what both share. */
#include "commands.h"
#include "write_model.h"

#include <stdlib.h>
#include <sys/stat.h>

int cmd_convert(int argc, char **argv)
{
	static const char *type = "F16", *output, *name;
	static int threads;
	static bool force, no_tokenizer;
	static const cli_option options[] = {
	    {"type", 't', CLI_STRING, &type, "TYPE", "F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0 or MIXED (default F16)"},
	    {"output", 'o', CLI_STRING, &output, "FILE", "where to write (default NAME-TYPE.gguf in this directory)"},
	    {"name", 0, CLI_STRING, &name, "NAME", "the model's name in the file (default: the directory's)"},
	    {"threads", 'j', CLI_INT, &threads, "N", "threads (default: one per core)"},
	    {"force", 'f', CLI_FLAG, &force, NULL, "replace the output if it is there"},
	    {"no-tokenizer", 0, CLI_FLAG, &no_tokenizer, NULL,
	     "accept a directory without tokenizer; the model then takes token ids only"},
	    {0}};
	static const cli_spec spec = {
	    .name = "convert",
	    .usage = "[OPTIONS] DIR|MODEL",
	    .summary = "Converts a Hugging Face model (config.json, safetensors, tokenizer) of the LFM2, Qwen2, Qwen3 or Llama "
		       "family to GGUF. "
		       "MODEL is a directory, or ORG/NAME in the local Hugging Face cache; nothing is downloaded.",
	    .options = options,
	    .examples = "ruvllm convert ./LFM2-350M -o LFM2-350M-F16.gguf\nruvllm convert LiquidAI/LFM2-1.2B --type Q4_K_M",
	    .min_args = 1,
	    .max_args = 1};
	cli_args args;
	ruv_error err = {0};
	char *dir = NULL;
	struct stat sb;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	int recipe = ruv_recipe_parse(type);
	if (recipe < 0)
		return cli_usage("'%s' is no type; known are %s", type, ruv_recipe_names());
	rc = ruv_model_find(&dir, args.items[0], &err);
	if (rc)
		return cli_fail(&err, "give a directory that holds config.json and model.safetensors");
	if (stat(dir, &sb) || !S_ISDIR(sb.st_mode)) {
		code = cli_failf(RUV_EINVAL, "'%s' is a file; convert takes a Hugging Face directory, quantize takes a GGUF file",
		                 dir);
		free(dir);
		return code;
	}
	const ruv_write_options write = {.recipe = (ruv_recipe)recipe, .no_tokenizer = no_tokenizer, .name = name};
	code = cli_write_model(dir, output, &write, threads, force, NULL);
	free(dir);
	return code;
}
