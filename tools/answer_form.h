/* answer_form.h - --grammar and --json-schema: the form that `ask` and `chat` hold an answer to. Layer: tools. */
#ifndef RUVLLM_TOOLS_ANSWER_FORM_H
#define RUVLLM_TOOLS_ANSWER_FORM_H

#include "cli_runtime.h"

/* Rows of a command's options; their values are the program's. */
extern const char *cli_grammar_path, *cli_schema_path;
#define CLI_FORM_OPTIONS                                                                                                           \
	{"grammar", 0, CLI_STRING, &cli_grammar_path, "FILE", "a GBNF grammar that answers follow instead of quoting sources"},    \
	{                                                                                                                          \
		"json-schema", 0, CLI_STRING, &cli_schema_path, "FILE",                                                            \
		    "a JSON schema that answers follow instead of quoting sources"                                                 \
	}

/* Reads the file, if one was named, and puts it into the question's parameters. *text is theirs until the caller frees it (NULL:
 * no file). RUV_EINVAL when both were named. */
int cli_form_read(ruv_ask_params *params, char **text, ruv_error *err);

#endif
