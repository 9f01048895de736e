/* cmd_tokenize.c - `ruvllm tokenize`: a text's tokens under a model's vocabulary, or the text of tokens. Reads no weights. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "commands.h"
#include "base/buf.h"
#include "base/file.h"
#include "format/quantize.h"
#include "ruvllm/model.h"

enum { MAX_INPUT = 64 << 20 };

static bool bos, special, decode, ids_only;
static const char *input_file;

/* A token's bytes with what cannot be shown escaped: \n, \t, \xHH. */
static void append_shown(ruv_buf *out, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)bytes[i];
		if (c == '\n' || c == '\t' || c == '\r' || c == '\\')
			ruv_buf_printf(out, "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : c == '\r' ? 'r' : '\\');
		else if (c < 0x20 || c >= 0x7F)
			ruv_buf_printf(out, "\\x%02x", c);
		else
			ruv_buf_putc(out, (char)c);
	}
}

/* {"id", "text"}; a token that is no whole UTF-8 has "bytes" in hex instead of text. */
static json_t *token_json(ruv_token id, const char *bytes, size_t n)
{
	json_t *text = json_stringn(bytes, n);
	ruv_buf hex;

	if (text)
		return json_pack("{s:i,s:o}", "id", (int)id, "text", text);
	ruv_buf_init(&hex, 1 << 20);
	for (size_t i = 0; i < n; i++)
		ruv_buf_printf(&hex, "%02x", (unsigned char)bytes[i]);
	text = json_pack("{s:i,s:s}", "id", (int)id, "bytes", ruv_buf_cstr(&hex));
	ruv_buf_release(&hex);
	return text;
}

static int show_tokens(const ruv_model *model, const ruv_token_list *tokens, size_t n_bytes)
{
	json_t *list = json_array();
	int i, code = CLI_EXIT_OK;

	for (i = 0; i < tokens->n; i++) {
		size_t n = 0;
		const char *bytes = ruv_model_token_bytes(model, tokens->ids[i], &n);
		if (cli.json) {
			json_array_append_new(list, token_json(tokens->ids[i], bytes, n));
		} else if (ids_only) {
			printf("%s%d", i ? " " : "", (int)tokens->ids[i]);
		} else {
			json_t *text = json_stringn(bytes, n);
			ruv_buf shown;
			ruv_buf_init(&shown, 1 << 20);
			if (text && !memchr(bytes, '\n', n) && !memchr(bytes, '\t', n) && !memchr(bytes, '\r', n) &&
			    !memchr(bytes, 0x1B, n))
				ruv_buf_append(&shown, bytes, n); /* readable as it is */
			else
				append_shown(&shown, bytes, n);
			printf("%8d  %s\n", (int)tokens->ids[i], ruv_buf_cstr(&shown));
			ruv_buf_release(&shown);
			json_decref(text);
		}
	}
	if (cli.json) {
		json_t *all = json_pack("{s:i,s:I,s:O}", "n_tokens", tokens->n, "n_bytes", (json_int_t)n_bytes, "tokens", list);
		code = cli_json_print(all);
	} else if (ids_only) {
		putchar('\n');
	} else {
		cli_note("%d tokens, %zu bytes", tokens->n, n_bytes);
	}
	json_decref(list);
	return code;
}

/* "1 2 3" or "[1, 2, 3]" to tokens, and those to text. */
static int show_text(const ruv_model *model, const char *text)
{
	ruv_token_list tokens = {0};
	ruv_error err = {0};
	const char *at = text;
	char *stop, *decoded = NULL;
	int code = CLI_EXIT_OK;

	for (;;) {
		long id;
		while (*at && (isspace((unsigned char)*at) || strchr(",[]", *at)))
			at++;
		if (!*at)
			break;
		id = strtol(at, &stop, 10);
		if (stop == at || id < 0 || id > INT32_MAX) {
			code = cli_usage("'%.20s' is no token id", at);
			goto done;
		}
		if (tokens.n == tokens.cap) {
			int cap = tokens.cap ? 2 * tokens.cap : 256;
			ruv_token *ids = realloc(tokens.ids, (size_t)cap * sizeof *ids);
			if (!ids) {
				code = cli_failf(RUV_ENOMEM, "no memory for %d tokens", cap);
				goto done;
			}
			tokens.ids = ids;
			tokens.cap = cap;
		}
		tokens.ids[tokens.n++] = (ruv_token)id;
		at = stop;
	}
	if (ruv_model_detokenize(model, tokens.ids, tokens.n, true, &decoded, &err)) {
		code = cli_fail(&err, NULL);
		goto done;
	}
	if (cli.json) {
		json_t *all = json_pack("{s:i,s:s}", "n_tokens", tokens.n, "text", decoded);
		code = cli_json_print(all);
	} else {
		puts(decoded);
	}
done:
	free(decoded);
	ruv_token_list_release(&tokens);
	return code;
}

static int read_stdin(char **data, size_t *size)
{
	ruv_buf text;
	char chunk[65536];
	size_t n;

	ruv_buf_init(&text, MAX_INPUT);
	while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
		if (ruv_buf_append(&text, chunk, n))
			break;
	if (text.failed) {
		ruv_buf_release(&text);
		return text.failed;
	}
	*size = text.len;
	ruv_buf_putc(&text, '\0');
	*data = ruv_buf_take(&text);
	return *data ? RUV_OK : RUV_ENOMEM;
}

int cmd_tokenize(int argc, char **argv)
{
	static const cli_option options[] = {
	    {"file", 'f', CLI_STRING, &input_file, "FILE", "read the text from a file, - for standard input"},
	    {"ids", 'i', CLI_FLAG, &ids_only, NULL, "print the ids alone, on one line"},
	    {"bos", 'b', CLI_FLAG, &bos, NULL, "put the model's start token first where the model wants one"},
	    {"special", 's', CLI_FLAG, &special, NULL, "special tokens written in the text become tokens"},
	    {"decode", 'd', CLI_FLAG, &decode, NULL, "the other way: TEXT holds ids, print what they stand for"},
	    {0}};
	static const cli_spec spec = {
	    .name = "tokenize",
	    .usage = "[OPTIONS] MODEL [TEXT]",
	    .summary = "Shows how a model's vocabulary cuts a text into tokens: one line a token, its id and its bytes.",
	    .options = options,
	    .examples = "ruvllm tokenize model.gguf 'Hello, world'\nruvllm tokenize model.gguf --ids -f README.md\n"
			"ruvllm tokenize model.gguf --decode '9707 11 1879'",
	    .min_args = 1,
	    .max_args = 2};
	ruv_model_options model_options = {.vocab_only = true};
	ruv_token_list tokens = {0};
	ruv_model *model = NULL;
	ruv_error err = {0};
	cli_args args;
	char *path = NULL, *data = NULL;
	const char *text;
	size_t size;
	int code, rc;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if ((args.n == 2) == (input_file != NULL))
		return cli_usage("give either TEXT or --file");
	if (ruv_model_find(&path, args.items[0], &err) || ruv_model_open(&model, path, &model_options, &err)) {
		code = cli_fail(&err, NULL);
		goto done;
	}
	text = args.n == 2 ? args.items[1] : NULL;
	size = text ? strlen(text) : 0;
	if (!text) {
		if (strcmp(input_file, "-") == 0) {
			rc = read_stdin(&data, &size);
			if (rc) {
				code = cli_failf(rc, "standard input: %s", ruv_status_text(rc));
				goto done;
			}
		} else if (ruv_file_read(&data, &size, input_file, MAX_INPUT, &err)) {
			code = cli_fail(&err, NULL);
			goto done;
		}
		text = data;
	}
	if (decode) {
		code = show_text(model, text);
		goto done;
	}
	if (ruv_model_tokenize(model, text, size, (bos ? RUV_TOKENIZE_BOS : 0) | (special ? RUV_TOKENIZE_SPECIAL : 0), &tokens,
	                       &err)) {
		code = cli_fail(&err, NULL);
		goto done;
	}
	code = show_tokens(model, &tokens, size);
done:
	ruv_token_list_release(&tokens);
	free(data);
	free(path);
	ruv_model_free(model);
	return code;
}
