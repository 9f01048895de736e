/* answer_form.c - reading the grammar or schema that an answer is held to. */
#include "answer_form.h"

#include "base/file.h"
#include "base/status.h"

enum { MAX_BYTES = 1 << 20 }; /* what a grammar may have */

const char *cli_grammar_path, *cli_schema_path;

int cli_form_read(ruv_ask_params *params, char **text, ruv_error *err)
{
	const char *path = cli_grammar_path ? cli_grammar_path : cli_schema_path;
	size_t n = 0;
	int rc;

	*text = NULL;
	if (!path)
		return RUV_OK;
	if (cli_grammar_path && cli_schema_path)
		return ruv_fail(err, RUV_EINVAL, "cli", "--grammar and --json-schema: an answer follows one of them");
	rc = ruv_file_read(text, &n, path, MAX_BYTES, err);
	if (rc)
		return rc;
	params->grammar = *text;
	params->grammar_bytes = n;
	params->grammar_kind = cli_grammar_path ? RUV_GRAMMAR_GBNF : RUV_GRAMMAR_JSON_SCHEMA;
	return RUV_OK;
}
