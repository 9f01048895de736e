/* cmd_ask.c - ruvllm ask: one question, answered from memory. */
#include <stdlib.h>
#include <string.h>

#include "answer_form.h"
#include "answer_print.h"
#include "base/buf.h"
#include "base/status.h"

/* The question: the arguments with spaces between them, or standard input for "-". */
static char *read_question(const cli_args *args)
{
	ruv_buf buf;
	char part[4096];
	size_t n;

	ruv_buf_init(&buf, (size_t)1 << 20);
	if (args->n == 1 && !strcmp(args->items[0], "-")) {
		while ((n = fread(part, 1, sizeof part, stdin)) > 0)
			ruv_buf_append(&buf, part, n);
	} else {
		for (int i = 0; i < args->n; i++)
			ruv_buf_printf(&buf, "%s%s", i ? " " : "", args->items[i]);
	}
	return ruv_buf_take(&buf);
}

int cmd_ask(int argc, char **argv)
{
	static bool no_memory, only_sources;
	static const cli_option options[] = {
	    {"no-memory", 0, CLI_FLAG, &no_memory, NULL, "ask the model alone, without any source"},
	    {"only-sources", 0, CLI_FLAG, &only_sources, NULL, "print what memory has for the question and generate nothing"},
	    CLI_FORM_OPTIONS,
	    {0},
	};
	static const cli_spec spec = {
	    .name = "ask",
	    .usage = "[OPTIONS] QUESTION...|-",
	    .summary = "Answer a question from what is remembered. The answer streams; then come the sources with their scores, "
		       "the speed, and the time "
		       "of each stage. * marks a cited source, whose place is the line of the quoted sentence; [-] one that was "
		       "found but not given "
		       "to the model.",
	    .options = options,
	    .examples =
		"ruvllm ask \"When does the nightly backup start?\"\nruvllm ask --sources 5 --model m \"Who signs off releases?\"\n"
		"echo \"What is the default port?\" | ruvllm ask --json -",
	    .min_args = 1,
	    .max_args = -1,
	    CLI_CONFIG_OPTIONS,
	};
	cli_args args;
	answer_stream stream = {0};
	ruv_ask_params params = {0};
	ruv_trace_context caller;
	ruv_answer answer = {0};
	ruv_error err = {0};
	ruv_runtime *runtime;
	char *question, *form = NULL;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	runtime = cli_runtime(&code);
	if (!runtime)
		return code;
	cli_interrupt_catch();
	question = read_question(&args);
	params.question = question;
	params.no_memory = no_memory;
	params.cancel = &cli_cancel;
	if (ruv_trace_parse(&caller, getenv("TRACEPARENT"))) /* whoever started us is being traced */
		params.trace = &caller;
	if (!cli.json) {
		params.on_piece = answer_stream_piece;
		params.user = &stream;
	}
	if (!question)
		rc = ruv_fail(&err, RUV_ELIMIT, "cli", "the question is longer than 1 MiB");
	else if (cli_form_read(&params, &form, &err))
		rc = err.code;
	else if (only_sources)
		rc = ruv_retrieve(runtime, &params, &answer, &err);
	else
		rc = ruv_ask(runtime, &params, &answer, &err);
	if (!cli.json)
		answer_stream_end(&stream);
	if (rc) {
		code = cli_runtime_fail(&err);
	} else if (cli.json) {
		code = cli_json_print(answer_json(&answer, question));
	} else {
		if (!only_sources)
			answer_print_warnings(&answer, stdout);
		if (answer.n_sources) {
			if (!only_sources)
				fputc('\n', stdout);
			answer_print_sources(&answer, stdout);
		}
		if (!cli.quiet && !only_sources) {
			fputc('\n', stdout);
			answer_print_times(&answer, stdout);
		}
		if (only_sources && answer.n_sources == 0)
			cli_note("memory has nothing for this question");
	}
	if (!rc && answer.text && answer.finish == RUV_FINISH_CANCELLED)
		code = CLI_EXIT_INTERRUPTED;
	ruv_answer_release(&answer);
	ruv_runtime_free(runtime);
	free(question);
	free(form);
	return code;
}
