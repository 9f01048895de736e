/* eval_data.c - evaluation sets from JSON Lines; see eval_data.h. */
#include "runtime/eval_data.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <zstd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"

static const size_t MAX_FILE_BYTES = (size_t)4 << 30;

static int unpack(char **text, size_t *n_bytes, const ruv_map *map, const char *path, ruv_error *err)
{
	ZSTD_DStream *stream = ZSTD_createDStream();
	ZSTD_inBuffer in = {map->data, map->size, 0};
	ruv_buf out;
	size_t state = 1;
	int rc = RUV_OK;

	ruv_buf_init(&out, MAX_FILE_BYTES);
	if (!stream) {
		rc = ruv_fail_memory(err, "eval", ZSTD_DStreamInSize());
		goto done;
	}
	while (in.pos < in.size) {
		ZSTD_outBuffer piece;
		rc = ruv_buf_reserve(&out, ZSTD_DStreamOutSize());
		if (rc) {
			ruv_fail(err, rc, "eval", "'%s' unpacks to more than %zu bytes or memory is out", path, out.len);
			goto done;
		}
		piece = (ZSTD_outBuffer){out.data + out.len, ZSTD_DStreamOutSize(), 0};
		state = ZSTD_decompressStream(stream, &piece, &in);
		if (ZSTD_isError(state)) {
			rc = ruv_fail(err, RUV_EFORMAT, "eval", "'%s' is not whole zstd data: %s", path, ZSTD_getErrorName(state));
			goto done;
		}
		out.len += piece.pos;
		out.data[out.len] = '\0';
	}
	if (state != 0) {
		rc = ruv_fail(err, RUV_EFORMAT, "eval", "'%s' ends in the middle of its zstd data", path);
		goto done;
	}
	*n_bytes = out.len;
	*text = ruv_buf_take(&out);
	if (!*text)
		rc = ruv_fail_memory(err, "eval", *n_bytes);
done:
	ruv_buf_release(&out);
	ZSTD_freeDStream(stream);
	return rc;
}

int ruv_eval_text_read(char **text, size_t *n_bytes, const char *path, ruv_error *err)
{
	static const unsigned char magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
	ruv_map map;
	int rc = ruv_map_open(&map, path, err);
	bool packed;

	if (rc)
		return rc;
	packed = map.size >= 4 && !memcmp(map.data, magic, 4);
	if (packed)
		rc = unpack(text, n_bytes, &map, path, err);
	ruv_map_release(&map);
	return packed || rc ? rc : ruv_file_read(text, n_bytes, path, MAX_FILE_BYTES, err);
}

/* ---- rows ---- */

/* Open addressing over the passages' texts while a file is read. */
struct passage_table {
	int *slots; /* [n_slots] index + 1, 0 is empty */
	size_t n_slots;
};

static int table_grow(struct passage_table *table, const ruv_eval_set *set)
{
	size_t n_slots = 1024;
	while (n_slots < (size_t)set->n_passages * 4 + 4)
		n_slots *= 2;
	if (n_slots <= table->n_slots)
		return RUV_OK;
	free(table->slots);
	table->slots = calloc(n_slots, sizeof *table->slots);
	table->n_slots = table->slots ? n_slots : 0;
	if (!table->slots)
		return RUV_ENOMEM;
	for (int i = 0; i < set->n_passages; i++) {
		size_t at = ruv_hash64(set->passages[i].text, strlen(set->passages[i].text), 0) & (n_slots - 1);
		while (table->slots[at])
			at = (at + 1) & (n_slots - 1);
		table->slots[at] = i + 1;
	}
	return RUV_OK;
}

static const char *keep(ruv_eval_set *set, const char *text)
{
	return ruv_arena_strndup(&set->arena, text, strlen(text));
}

/* The index of the passage, added when it is new; -1 when memory is out. */
static int passage_index(ruv_eval_set *set, struct passage_table *table, const char *title, const char *text)
{
	size_t at;
	ruv_eval_passage *grown;

	if (table_grow(table, set))
		return -1;
	at = ruv_hash64(text, strlen(text), 0) & (table->n_slots - 1);
	for (; table->slots[at]; at = (at + 1) & (table->n_slots - 1))
		if (!strcmp(set->passages[table->slots[at] - 1].text, text))
			return table->slots[at] - 1;
	if ((set->n_passages & (set->n_passages + 1)) == 0) { /* room for 2^k - 1 so far */
		grown = realloc(set->passages, ((size_t)set->n_passages * 2 + 1) * sizeof *grown);
		if (!grown)
			return -1;
		set->passages = grown;
	}
	set->passages[set->n_passages] = (ruv_eval_passage){keep(set, title), keep(set, text)};
	if (!set->passages[set->n_passages].title || !set->passages[set->n_passages].text)
		return -1;
	table->slots[at] = ++set->n_passages;
	return set->n_passages - 1;
}

/* The passages besides "context" that the answer needs. */
static int add_evidence(ruv_eval_set *set, struct passage_table *table, ruv_eval_row *row, json_t *list, const char *path, int line,
                        ruv_error *err)
{
	int *evidence;

	if (!list)
		return RUV_OK;
	evidence = ruv_arena_calloc(&set->arena, json_array_size(list) + 1, sizeof *evidence);
	if (!evidence)
		return ruv_fail_memory(err, "eval", json_array_size(list) * sizeof *evidence);
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *item = json_array_get(list, i);
		const char *text = json_string_value(json_object_get(item, "text"));
		const char *title = json_string_value(json_object_get(item, "title"));
		if (!text || !*text)
			return ruv_fail(err, RUV_EFORMAT, "eval", "'%s' line %d: evidence %zu has no \"text\"", path, line, i + 1);
		evidence[i] = passage_index(set, table, title ? title : "", text);
		if (evidence[i] < 0)
			return ruv_fail_memory(err, "eval", strlen(text));
	}
	row->evidence = evidence;
	row->n_evidence = (int)json_array_size(list);
	return RUV_OK;
}

static int add_row(ruv_eval_set *set, struct passage_table *table, json_t *object, const char *path, int line, ruv_error *err)
{
	const char *context = json_string_value(json_object_get(object, "context"));
	const char *title = json_string_value(json_object_get(object, "title"));
	const char *question = json_string_value(json_object_get(object, "question"));
	const char *id = json_string_value(json_object_get(object, "id"));
	json_t *answers = json_object_get(object, "answers"), *answerable = json_object_get(object, "answerable");
	ruv_eval_row row = {0}, *grown;
	const char **texts;
	int passage;

	if (!context)
		context = json_string_value(json_object_get(object, "text"));
	if (!context || !*context)
		return ruv_fail(err, RUV_EFORMAT, "eval", "'%s' line %d: no \"context\" string", path, line);
	passage = passage_index(set, table, title ? title : "", context);
	if (passage < 0)
		return ruv_fail_memory(err, "eval", strlen(context));
	if (!question)
		return RUV_OK; /* a distractor */
	if (answers && !json_is_array(answers))
		return ruv_fail(err, RUV_EFORMAT, "eval", "'%s' line %d: \"answers\" is not a list of strings", path, line);
	row.passage = passage;
	passage = add_evidence(set, table, &row, json_object_get(object, "evidence"), path, line, err);
	if (passage)
		return passage;
	row.n_answers = (int)json_array_size(answers);
	row.answerable = answerable ? json_is_true(answerable) : row.n_answers > 0;
	if (row.answerable && !row.n_answers)
		return ruv_fail(err, RUV_EFORMAT, "eval", "'%s' line %d: answerable, but without \"answers\"", path, line);
	texts = ruv_arena_calloc(&set->arena, (size_t)row.n_answers + 1, sizeof *texts);
	if ((set->n_rows & (set->n_rows + 1)) == 0) {
		grown = realloc(set->rows, ((size_t)set->n_rows * 2 + 1) * sizeof *grown);
		if (!grown)
			return ruv_fail_memory(err, "eval", (size_t)set->n_rows * 2 * sizeof row);
		set->rows = grown;
	}
	for (int i = 0; texts && i < row.n_answers; i++) {
		const char *text = json_string_value(json_array_get(answers, (size_t)i));
		if (!text)
			return ruv_fail(err, RUV_EFORMAT, "eval", "'%s' line %d: answer %d is not a string", path, line, i + 1);
		texts[i] = keep(set, text);
		if (!texts[i])
			texts = NULL;
	}
	row.answers = texts;
	row.id = keep(set, id ? id : "");
	row.question = keep(set, question);
	row.context = set->passages[row.passage].text;
	row.title = set->passages[row.passage].title;
	if (!texts || !row.id || !row.question)
		return ruv_fail_memory(err, "eval", strlen(question));
	set->rows[set->n_rows++] = row;
	return RUV_OK;
}

int ruv_eval_set_read(ruv_eval_set *set, const char *path, ruv_error *err)
{
	struct passage_table table = {0};
	char *text = NULL;
	size_t n_bytes;
	int rc, line = 0;

	rc = ruv_eval_text_read(&text, &n_bytes, path, err);
	if (rc)
		return rc;
	for (char *p = text, *end = text + n_bytes; !rc && p < end; line++) {
		char *newline = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((newline ? newline : end) - p);
		json_error_t json_error;
		json_t *object;

		if (strspn(p, " \t\r\n") < n) {
			object = json_loadb(p, n, JSON_REJECT_DUPLICATES, &json_error);
			if (!json_is_object(object))
				rc = ruv_fail(err, RUV_EFORMAT, "eval", "'%s' line %d: not a JSON object%s%s", path, line + 1,
				              object ? "" : ": ", object ? "" : json_error.text);
			else
				rc = add_row(set, &table, object, path, line + 1, err);
			json_decref(object);
		}
		p += n + 1;
	}
	free(table.slots);
	free(text);
	return rc;
}

void ruv_eval_set_release(ruv_eval_set *set)
{
	free(set->rows);
	free(set->passages);
	ruv_arena_release(&set->arena);
	memset(set, 0, sizeof *set);
}

int ruv_eval_set_sample(int **order, const ruv_eval_set *set, int n, ruv_rng *rng, ruv_error *err)
{
	int *rows = malloc(((size_t)set->n_rows + 1) * sizeof *rows);

	if (!rows)
		return ruv_fail_memory(err, "eval", (size_t)set->n_rows * sizeof *rows);
	for (int i = 0; i < set->n_rows; i++)
		rows[i] = i;
	for (int i = set->n_rows - 1; i > 0; i--) {
		int j = (int)ruv_rng_below(rng, (uint64_t)i + 1), keep = rows[i];
		rows[i] = rows[j];
		rows[j] = keep;
	}
	*order = rows;
	return n > 0 && n < set->n_rows ? n : set->n_rows;
}
