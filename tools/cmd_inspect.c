/* cmd_inspect.c - `ruvllm inspect`: what a model file is, what it holds, and whether this build can run it or why not. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "commands.h"
#include "base/buf.h"
#include "format/gguf.h"
#include "format/quantize.h"
#include "format/safetensors.h"
#include "ruvllm/model.h"

static bool show_tensors, show_keys;

typedef struct type_sum {
	int type;
	char name[32];
	uint64_t n_tensors, n_elements, n_bytes;
} type_sum;

typedef struct sums {
	type_sum items[64];
	int n;
	uint64_t n_elements, n_bytes;
} sums;

static void add_tensor(sums *s, int type, const char *name, uint64_t n_elements, uint64_t n_bytes)
{
	int i;
	for (i = 0; i < s->n && s->items[i].type != type; i++)
		;
	s->n_elements += n_elements;
	s->n_bytes += n_bytes;
	if (i == 64)
		return; /* more types than GGUF has: only in damaged files */
	if (i == s->n) {
		s->n++;
		s->items[i] = (type_sum){.type = type};
		snprintf(s->items[i].name, sizeof s->items[i].name, "%s", name);
	}
	s->items[i].n_tensors++;
	s->items[i].n_elements += n_elements;
	s->items[i].n_bytes += n_bytes;
}

/* ---- values as text and JSON ---- */

static json_t *json_bytes(ruv_gguf_str s)
{
	char *copy = strndup(s.data ? s.data : "", s.len);
	json_t *j = cli_json_text(copy ? copy : "");
	free(copy);
	return j;
}

static json_t *scalar_json(ruv_gguf_type type, const unsigned char *data)
{
	ruv_gguf_array one = {.type = type, .n = 1, .data = data, .n_bytes = 8};
	int64_t i;
	float f;
	uint64_t n;

	if (type == RUV_GGUF_STRING) {
		memcpy(&n, data, sizeof n);
		return json_bytes((ruv_gguf_str){(const char *)data + sizeof n, (size_t)n});
	}
	if (type == RUV_GGUF_BOOL)
		return json_boolean(*data);
	if (!ruv_gguf_array_i64(&one, 0, &i, NULL))
		return json_integer(i);
	if (!ruv_gguf_array_f32(&one, 0, &f, NULL) && f == f && f - f == 0) {
		/* The shortest decimal that reads back as this float: 1e-06, not 9.9999999747524271e-07. */
		char text[32];
		for (int digits = 6; digits <= 9; digits++) {
			snprintf(text, sizeof text, "%.*g", digits, (double)f);
			if (strtof(text, NULL) == f)
				break;
		}
		return json_real(strtod(text, NULL));
	}
	return json_null();
}

static json_t *key_json(const ruv_gguf_key *key, uint64_t max_elements)
{
	if (key->type != RUV_GGUF_ARRAY)
		return scalar_json(key->type, key->data);
	json_t *list = json_array();
	uint64_t n = key->array.n < max_elements ? key->array.n : max_elements;
	size_t cursor = 0, each = key->array.n && key->array.type != RUV_GGUF_STRING ? key->array.n_bytes / key->array.n : 0;
	for (uint64_t i = 0; i < n; i++) {
		ruv_gguf_str s;
		if (key->array.type == RUV_GGUF_STRING) {
			if (!ruv_gguf_array_next_str(&key->array, &cursor, &s))
				break;
			json_array_append_new(list, json_bytes(s));
		} else {
			json_array_append_new(list, scalar_json(key->array.type, key->array.data + i * each));
		}
	}
	return list;
}

/* One line of a value: long texts and arrays are cut, line ends shown. */
static void key_text(const ruv_gguf_key *key, char *text, size_t cap)
{
	ruv_buf b;
	json_t *j = key_json(key, 6);
	char *dump = json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
	ruv_buf_init(&b, 1 << 20);
	ruv_buf_puts(&b, dump ? dump : "?");
	if (key->type == RUV_GGUF_ARRAY && key->array.n > 6) {
		ruv_buf_truncate(&b, b.len - 1);
		ruv_buf_printf(&b, ",...] (%llu elements)", (unsigned long long)key->array.n);
	}
	if (b.len > 100) {
		size_t at = 97;
		while (at > 0 && ((unsigned char)b.data[at] & 0xc0) == 0x80)
			at--;
		ruv_buf_truncate(&b, at);
		ruv_buf_puts(&b, "...");
	}
	snprintf(text, cap, "%s", ruv_buf_cstr(&b));
	ruv_buf_release(&b);
	free(dump);
	json_decref(j);
}

/* ---- shared output ---- */

static json_t *sums_json(const sums *s)
{
	json_t *list = json_array();
	for (int i = 0; i < s->n; i++)
		json_array_append_new(
		    list, json_pack("{s:s, s:I, s:I, s:I}", "type", s->items[i].name, "tensors", (json_int_t)s->items[i].n_tensors,
		                    "elements", (json_int_t)s->items[i].n_elements, "bytes", (json_int_t)s->items[i].n_bytes));
	return list;
}

static void print_sums(const sums *s)
{
	char count[32], bytes[32];
	cli_table *t = cli_table_create("type|>tensors|>elements|>bytes|>share|>bits/element");
	for (int i = 0; t && i < s->n; i++) {
		const type_sum *y = &s->items[i];
		cli_table_cell(t, "%s", y->name);
		cli_table_cell(t, "%llu", (unsigned long long)y->n_tensors);
		cli_table_cell(t, "%s", cli_human_count(count, sizeof count, (double)y->n_elements));
		cli_table_cell(t, "%s", y->n_bytes ? cli_human_bytes(bytes, sizeof bytes, y->n_bytes) : "?");
		cli_table_cell(t, "%.1f %%", s->n_bytes ? 100.0 * (double)y->n_bytes / (double)s->n_bytes : 0);
		cli_table_cell(t, "%.2f", y->n_elements ? 8.0 * (double)y->n_bytes / (double)y->n_elements : 0);
	}
	if (t)
		cli_table_print(t, stdout);
}

/* ---- GGUF ---- */

/* Why this build cannot run it, into text; empty when it can. */
static void find_refusal(const ruv_gguf *gguf, const char *path, char *text, size_t cap)
{
	ruv_error err = {0};
	ruv_gguf_str type = {"model", 5};

	*text = '\0';
	ruv_gguf_opt_str(gguf, "general.type", &type, NULL);
	if (ruv_gguf_str_is(type, "imatrix") || ruv_gguf_str_is(type, "adapter")) {
		snprintf(text, cap, "it is an %.*s, no model that runs by itself", (int)type.len, type.data);
		return;
	}
	const ruv_model_options options = {.n_threads = 1, .n_batch = 1};
	ruv_model *model = NULL;
	if (ruv_model_open(&model, path, &options, &err)) {
		size_t n = strlen(path); /* the path stands beside the verdict already */
		snprintf(text, cap, "%s",
		         !strncmp(err.message, path, n) && !strncmp(err.message + n, ": ", 2) ? err.message + n + 2 : err.message);
	}
	ruv_model_free(model);
}

/* The file's type by its own word. */
static void type_words(const ruv_gguf *gguf, char *text, size_t cap)
{
	ruv_gguf_str recipe = {NULL, 0};
	uint32_t file_type;

	ruv_gguf_opt_str(gguf, "ruvllm.recipe", &recipe, NULL);
	if (recipe.len)
		snprintf(text, cap, "%.*s", (int)(recipe.len > 40 ? 40 : recipe.len), recipe.data);
	else if (!ruv_gguf_get_u32(gguf, "general.file_type", &file_type, NULL) && ruv_recipe_of_file_type(file_type))
		snprintf(text, cap, "%s", ruv_recipe_of_file_type(file_type));
	else
		snprintf(text, cap, "not stated");
}

static int inspect_gguf_json(const ruv_gguf *gguf, const sums *s, const char *refusal)
{
	json_t *keys = json_object(), *tensors = json_array();
	char type[48];

	type_words(gguf, type, sizeof type);
	for (size_t i = 0; i < ruv_gguf_n_keys(gguf); i++) {
		const ruv_gguf_key *key = ruv_gguf_key_at(gguf, i);
		char *name = strndup(key->name.data, key->name.len);
		/* Vocabularies are long: without --keys an array over 64 elements is given by its length. */
		json_t *value = key->type == RUV_GGUF_ARRAY && key->array.n > 64 && !show_keys
		                    ? json_pack("{s:s, s:I}", "array_of", ruv_gguf_type_name(key->array.type), "length",
		                                (json_int_t)key->array.n)
		                    : key_json(key, UINT64_MAX);
		if (name && !json_is_null(value)) {
			json_t *clean = cli_json_text(name);
			json_object_set(keys, json_string_value(clean), value);
			json_decref(clean);
		}
		json_decref(value);
		free(name);
	}
	for (size_t i = 0; i < ruv_gguf_n_tensors(gguf); i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(gguf, i);
		json_t *shape = json_array();
		for (int d = 0; d < t->n_dims; d++)
			json_array_append_new(shape, json_integer(t->ne[d]));
		json_array_append_new(tensors, json_pack("{s:o, s:s, s:o, s:I, s:i}", "name", cli_json_text(t->name), "type",
		                                         ruv_dtype_name(t->dtype), "shape", shape, "bytes", (json_int_t)t->n_bytes,
		                                         "part", t->part));
	}
	json_t *j =
	    json_pack("{s:s, s:i, s:i, s:I, s:s, s:I, s:I, s:b, s:s, s:o, s:o, s:o}", "format", "GGUF", "version",
	              ruv_gguf_version(gguf), "parts", ruv_gguf_n_parts(gguf), "file_bytes", (json_int_t)ruv_gguf_file_bytes(gguf),
	              "type", type, "parameters", (json_int_t)s->n_elements, "tensor_bytes", (json_int_t)s->n_bytes, "runs",
	              !*refusal, "refusal", refusal, "types", sums_json(s), "keys", keys, "tensors", tensors);
	return cli_json_print(j);
}

static int inspect_gguf(const char *path)
{
	ruv_gguf *gguf = NULL;
	ruv_error err = {0};
	char refusal[sizeof err.message], text[160], bytes[32], count[32];
	sums s = {.n = 0};
	int rc = ruv_gguf_open(&gguf, path, RUV_GGUF_INSPECT, &err);

	if (rc)
		return cli_fail(&err, NULL);
	for (size_t i = 0; i < ruv_gguf_n_tensors(gguf); i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(gguf, i);
		add_tensor(&s, t->dtype, ruv_dtype_name(t->dtype), (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]),
		           t->n_bytes);
	}
	find_refusal(gguf, path, refusal, sizeof refusal);
	if (cli.json) {
		int code = inspect_gguf_json(gguf, &s, refusal);
		ruv_gguf_free(gguf);
		return code;
	}
	printf("%s: GGUF version %d, %s", path, ruv_gguf_version(gguf),
	       cli_human_bytes(bytes, sizeof bytes, ruv_gguf_file_bytes(gguf)));
	if (ruv_gguf_n_parts(gguf) > 1)
		printf(" in %d parts", ruv_gguf_n_parts(gguf));
	type_words(gguf, text, sizeof text);
	printf("\n%s parameters in %zu tensor%s, type %s\n", cli_human_count(count, sizeof count, (double)s.n_elements),
	       ruv_gguf_n_tensors(gguf), ruv_gguf_n_tensors(gguf) == 1 ? "" : "s", text);
	printf("%s%s%s\n\n", *refusal ? cli_sgr(stdout, CLI_RED) : cli_sgr(stdout, CLI_GREEN),
	       *refusal ? "cannot run here: " : "runs here", refusal);
	printf("%s", cli_sgr(stdout, CLI_PLAIN));
	print_sums(&s);

	printf("\n");
	cli_table *t = cli_table_create("key|type|value");
	for (size_t i = 0; t && i < ruv_gguf_n_keys(gguf); i++) {
		const ruv_gguf_key *key = ruv_gguf_key_at(gguf, i);
		json_t *name = json_bytes(key->name);
		key_text(key, text, sizeof text);
		cli_table_cell(t, "%s", json_string_value(name));
		if (key->type == RUV_GGUF_ARRAY)
			cli_table_cell(t, "[%s]", ruv_gguf_type_name(key->array.type));
		else
			cli_table_cell(t, "%s", ruv_gguf_type_name(key->type));
		cli_table_cell(t, "%s", text);
		json_decref(name);
	}
	if (t)
		cli_table_print(t, stdout);
	if (show_tensors) {
		printf("\n");
		t = cli_table_create("tensor|type|shape|>bytes");
		for (size_t i = 0; t && i < ruv_gguf_n_tensors(gguf); i++) {
			const ruv_gguf_tensor *y = ruv_gguf_tensor_at(gguf, i);
			json_t *name = cli_json_text(y->name);
			cli_table_cell(t, "%s", json_string_value(name));
			cli_table_cell(t, "%s", ruv_dtype_name(y->dtype));
			cli_table_cell(t, "%s", ruv_gguf_shape(y, text, sizeof text));
			cli_table_cell(t, "%zu", y->n_bytes);
			json_decref(name);
		}
		if (t)
			cli_table_print(t, stdout);
	} else {
		printf("\n--tensors lists the tensors\n");
	}
	ruv_gguf_free(gguf);
	return CLI_EXIT_OK;
}

/* ---- safetensors ---- */

static int inspect_safetensors(const char *path)
{
	ruv_safetensors *st = NULL;
	ruv_error err = {0};
	sums s = {.n = 0};
	char bytes[32], count[32];
	int code = CLI_EXIT_OK;

	if (ruv_safetensors_open(&st, path, &err))
		return cli_fail(&err, NULL);
	json_t *list = json_array();
	for (size_t i = 0; i < ruv_safetensors_n_tensors(st); i++) {
		const ruv_safetensors_tensor *t = ruv_safetensors_at(st, i);
		int id = 0; /* types by name: they have no number of their own */
		for (const char *p = t->type_name; *p; p++)
			id = id * 31 + *p;
		add_tensor(&s, id, t->type_name, (uint64_t)t->n_elements, t->n_bytes);
		json_t *shape = json_array();
		for (int d = 0; d < t->n_dims; d++)
			json_array_append_new(shape, json_integer(t->shape[d]));
		json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:I}", "name", t->name, "type", t->type_name, "shape", shape,
		                                      "bytes", (json_int_t)t->n_bytes));
	}
	if (cli.json) {
		code = cli_json_print(json_pack("{s:s, s:I, s:I, s:b, s:s, s:o, s:O}", "format", "safetensors", "parameters",
		                                (json_int_t)s.n_elements, "tensor_bytes", (json_int_t)s.n_bytes, "runs", 0,
		                                "refusal", "convert it first", "types", sums_json(&s), "tensors", list));
	} else {
		printf("%s: safetensors, %s parameters in %zu tensors, %s\nruvllm convert makes a model of its directory\n\n", path,
		       cli_human_count(count, sizeof count, (double)s.n_elements), ruv_safetensors_n_tensors(st),
		       cli_human_bytes(bytes, sizeof bytes, s.n_bytes));
		print_sums(&s);
		if (show_tensors) {
			size_t i;
			json_t *e;
			printf("\n");
			cli_table *t = cli_table_create("tensor|type|shape|>bytes");
			json_array_foreach(list, i, e)
			{
				char *shape = json_dumps(json_object_get(e, "shape"), 0);
				if (!t || !shape)
					break;
				cli_table_cell(t, "%s", json_string_value(json_object_get(e, "name")));
				cli_table_cell(t, "%s", json_string_value(json_object_get(e, "type")));
				cli_table_cell(t, "%s", shape);
				cli_table_cell(t, "%lld", (long long)json_integer_value(json_object_get(e, "bytes")));
				free(shape);
			}
			if (t)
				cli_table_print(t, stdout);
		}
	}
	json_decref(list);
	ruv_safetensors_free(st);
	return code;
}

int cmd_inspect(int argc, char **argv)
{
	static const cli_option options[] = {
	    {"tensors", 't', CLI_FLAG, &show_tensors, NULL, "list every tensor"},
	    {"keys", 'k', CLI_FLAG, &show_keys, NULL, "with --json: long arrays (vocabulary, merges) in full"},
	    {0}};
	static const cli_spec spec = {
	    .name = "inspect",
	    .usage = "[OPTIONS] FILE|DIR|MODEL",
	    .summary =
		"Says what a model file is: architecture, size by tensor type, keys, and whether this build can run it or why not.",
	    .options = options,
	    .examples = "ruvllm inspect model.gguf\nruvllm inspect model.gguf --json --keys",
	    .min_args = 1,
	    .max_args = 1};
	cli_args args;
	ruv_error err = {0};
	char *path = NULL;
	struct stat sb;
	int code;

	if (!cli_parse(&spec, argc, argv, &args, &code))
		return code;
	if (ruv_model_find(&path, args.items[0], &err))
		return cli_fail(&err, NULL);
	size_t n = strlen(path);
	bool st = (!stat(path, &sb) && S_ISDIR(sb.st_mode)) || (n > 12 && !strcmp(path + n - 12, ".safetensors"));
	code = st ? inspect_safetensors(path) : inspect_gguf(path);
	free(path);
	return code;
}
