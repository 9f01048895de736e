/* hf_tokenizer.c - a Hugging Face tokenizer (tokenizer.json, or vocab.json with merges.txt) as GGUF's tokenizer keys.
 *
 * Only byte-level BPE is known. The pre-tokenizer is recognised by its regular expression, which must be one of those below letter
 * by letter: a tokenizer that splits otherwise would give other ids, so an unknown one is refused. */
#include "format/source.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status.h"

#define WHERE "convert"

enum { MAX_FILE_BYTES = 256 << 20, MAX_TOKENS = 1 << 24 };
enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5 };

/* The tail that llama3's and qwen2's expressions share behind their rule for numbers. */
#define TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORD "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define SHORT_I "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SHORT_CASES "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"

static const struct {
	const char *regex, *pre; /* pre "llama3": llama-bpe, or lfm2 for that architecture */
} patterns[] = {
    {SHORT_I WORD "\\p{N}{1,3}" TAIL, "llama3"},
    {SHORT_CASES WORD "\\p{N}{1,3}" TAIL, "llama3"},
    {SHORT_I WORD "\\p{N}" TAIL, "qwen2"},
    {SHORT_CASES WORD "\\p{N}" TAIL, "qwen2"},
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", "gpt-2"},
    {"'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", "gpt-2"},
};

typedef struct tokens {
	ruv_gguf_str *text; /* [n], data NULL where there is none yet; views into the JSON values or the arena */
	int32_t *type;      /* [n] */
	int n;
	ruv_arena arena;
	ruv_gguf_str *merges;
	size_t n_merges;
	json_t *tokenizer, *config, *vocab; /* tokenizer.json, tokenizer_config.json, vocab.json: they own the texts */
	json_t *model_config, *generation;
	char *merges_text;
	const char *pre, *arch, *dir;
	json_t *ids; /* text to id, of every token */
	ruv_error *err;
} tokens;

/* ---- tokens ---- */

static int set_token(tokens *t, json_int_t id, const char *text, int type)
{
	if (id < 0 || id >= t->n)
		return ruv_fail(t->err, RUV_EFORMAT, WHERE, "the tokenizer gives '%.60s' the id %lld, but the model has %d rows",
		                text, (long long)id, t->n);
	if (t->text[id].data && strcmp(t->text[id].data, text))
		return ruv_fail(t->err, RUV_EFORMAT, WHERE, "the tokenizer gives the id %lld to '%.60s' and '%.60s'", (long long)id,
		                t->text[id].data, text);
	t->text[id] = (ruv_gguf_str){text, strlen(text)};
	t->type[id] = type;
	if (json_object_set_new_nocheck(t->ids, text, json_integer(id)))
		return ruv_fail_memory(t->err, WHERE, strlen(text));
	return RUV_OK;
}

static int add_vocab(tokens *t, json_t *vocab, const char *file)
{
	const char *text;
	json_t *id;
	int rc;

	if (!json_is_object(vocab))
		return ruv_fail(t->err, RUV_EFORMAT, WHERE, "%s: the vocabulary is no object", file);
	json_object_foreach(vocab, text, id)
	{
		if (!json_is_integer(id))
			return ruv_fail(t->err, RUV_EFORMAT, WHERE, "%s: the id of token '%.60s' is no whole number", file, text);
		rc = set_token(t, json_integer_value(id), text, TYPE_NORMAL);
		if (rc)
			return rc;
	}
	return RUV_OK;
}

/* Texts that stand for a control token in models whose files do not mark them as special. */
static bool looks_special(const char *text)
{
	size_t n = strlen(text);
	return n > 4 && !strncmp(text, "<|", 2) && !strcmp(text + n - 2, "|>");
}

static int add_special(tokens *t, json_int_t id, json_t *entry, const char *file)
{
	const char *text = json_string_value(json_object_get(entry, "content"));
	if (!text || !*text)
		return ruv_fail(t->err, RUV_EFORMAT, WHERE, "%s: added token %lld has no \"content\"", file, (long long)id);
	bool control = json_is_true(json_object_get(entry, "special")) || looks_special(text);
	return set_token(t, id, text, control ? TYPE_CONTROL : TYPE_USER_DEFINED);
}

/* ---- merges ---- */

static int add_merges(tokens *t, json_t *merges)
{
	json_t *m;
	size_t i;

	if (!json_is_array(merges))
		return ruv_fail(t->err, RUV_EFORMAT, WHERE, "tokenizer.json: model.merges is no array");
	t->merges = calloc(json_array_size(merges) + 1, sizeof *t->merges);
	if (!t->merges)
		return ruv_fail_memory(t->err, WHERE, json_array_size(merges) * sizeof *t->merges);
	json_array_foreach(merges, i, m)
	{
		const char *pair = json_string_value(m);
		if (!pair) {
			const char *a = json_string_value(json_array_get(m, 0)), *b = json_string_value(json_array_get(m, 1));
			if (!a || !b || json_array_size(m) != 2 || strchr(a, ' ') || strchr(b, ' '))
				return ruv_fail(t->err, RUV_EFORMAT, WHERE,
				                "tokenizer.json: merge %zu is no pair of byte-level tokens", i);
			size_t n = strlen(a) + strlen(b) + 2;
			char *joined = ruv_arena_alloc(&t->arena, n);
			if (!joined)
				return ruv_fail_memory(t->err, WHERE, n);
			snprintf(joined, n, "%s %s", a, b);
			pair = joined;
		}
		const char *space = strchr(pair, ' ');
		if (!space || space == pair || !space[1] || strchr(space + 1, ' '))
			return ruv_fail(t->err, RUV_EFORMAT, WHERE, "tokenizer.json: merge %zu ('%.60s') is no pair", i, pair);
		t->merges[t->n_merges++] = (ruv_gguf_str){pair, strlen(pair)};
	}
	return RUV_OK;
}

static int read_merges_txt(tokens *t)
{
	char path[PATH_MAX];
	size_t n, cap = 0, line_no = 0;
	int rc;

	snprintf(path, sizeof path, "%s/merges.txt", t->dir);
	rc = ruv_file_read(&t->merges_text, &n, path, MAX_FILE_BYTES, t->err);
	if (rc)
		return rc;
	for (char *line = t->merges_text, *end; line && *line; line = end) {
		end = strchr(line, '\n');
		if (end)
			*end++ = '\0';
		line_no++;
		size_t len = strlen(line);
		if (len && line[len - 1] == '\r')
			line[--len] = '\0';
		if (!len || (line_no == 1 && !strncmp(line, "#version", 8)))
			continue;
		const char *space = strchr(line, ' ');
		if (!space || space == line || !space[1] || strchr(space + 1, ' '))
			return ruv_fail(t->err, RUV_EFORMAT, WHERE, "%s: line %zu is no pair", path, line_no);
		if (t->n_merges == cap) {
			cap = cap ? cap * 2 : 4096;
			ruv_gguf_str *p = realloc(t->merges, cap * sizeof *p);
			if (!p)
				return ruv_fail_memory(t->err, WHERE, cap * sizeof *p);
			t->merges = p;
		}
		t->merges[t->n_merges++] = (ruv_gguf_str){line, len};
	}
	return RUV_OK;
}

/* ---- the pre-tokenizer ---- */

static int know_regex(tokens *t, const char *regex)
{
	for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
		if (!strcmp(patterns[i].regex, regex)) {
			t->pre = patterns[i].pre;
			if (!strcmp(t->pre, "llama3"))
				t->pre = !strcmp(t->arch, "lfm2") ? "lfm2" : "llama-bpe";
			return RUV_OK;
		}
	}
	return ruv_fail(t->err, RUV_EUNSUPPORTED, WHERE, "tokenizer.json splits text by an expression that is not known: %.200s",
	                regex);
}

static int know_pre_tokenizer(tokens *t, json_t *pre)
{
	const char *type = json_string_value(json_object_get(pre, "type"));
	json_t *list, *entry;
	const char *regex = NULL;
	bool bytes = false;
	size_t i;

	if (type && !strcmp(type, "ByteLevel")) {
		json_t *use = json_object_get(pre, "use_regex");
		if (json_is_true(json_object_get(pre, "add_prefix_space")) || (use && !json_is_true(use)))
			return ruv_fail(t->err, RUV_EUNSUPPORTED, WHERE,
			                "tokenizer.json: this form of ByteLevel pre-tokenizer is not supported");
		t->pre = "gpt-2";
		return RUV_OK;
	}
	list = json_object_get(pre, "pretokenizers");
	if (!type || strcmp(type, "Sequence") || !json_is_array(list))
		return ruv_fail(t->err, RUV_EUNSUPPORTED, WHERE,
		                "tokenizer.json: pre-tokenizer '%.40s' is not supported; byte-level BPE is", type ? type : "none");
	json_array_foreach(list, i, entry)
	{
		type = json_string_value(json_object_get(entry, "type"));
		if (type && !strcmp(type, "Split") && !regex && !bytes) {
			const char *behavior = json_string_value(json_object_get(entry, "behavior"));
			regex = json_string_value(json_object_get(json_object_get(entry, "pattern"), "Regex"));
			if (!regex || !behavior || strcmp(behavior, "Isolated") || json_is_true(json_object_get(entry, "invert")))
				return ruv_fail(t->err, RUV_EUNSUPPORTED, WHERE,
				                "tokenizer.json: only Split by Regex with behavior Isolated is known");
		} else if (type && !strcmp(type, "ByteLevel") && regex &&
		           !json_is_true(json_object_get(entry, "add_prefix_space")) &&
		           json_is_false(json_object_get(entry, "use_regex"))) {
			bytes = true;
		} else {
			return ruv_fail(t->err, RUV_EUNSUPPORTED, WHERE,
			                "tokenizer.json: step %zu of the pre-tokenizer ('%.40s') is not supported", i,
			                type ? type : "?");
		}
	}
	if (!regex || !bytes)
		return ruv_fail(t->err, RUV_EUNSUPPORTED, WHERE,
		                "tokenizer.json: the pre-tokenizer is no Split followed by ByteLevel");
	return know_regex(t, regex);
}

static int know_normalizer(tokens *t, json_t *normalizer)
{
	const char *type = json_string_value(json_object_get(normalizer, "type"));
	if (!normalizer || json_is_null(normalizer))
		return RUV_OK;
	if (type && !strcmp(type, "NFC") && !strcmp(t->pre, "qwen2"))
		return RUV_OK; /* part of what "qwen2" stands for */
	if (type && !strcmp(type, "Sequence") && json_array_size(json_object_get(normalizer, "normalizers")) == 0)
		return RUV_OK;
	return ruv_fail(t->err, RUV_EUNSUPPORTED, WHERE, "tokenizer.json: normalizer '%.40s' is not supported here",
	                type ? type : "?");
}

/* ---- tokenizer.json ---- */

static int read_tokenizer_json(tokens *t)
{
	json_t *model = json_object_get(t->tokenizer, "model"), *added = json_object_get(t->tokenizer, "added_tokens"), *entry;
	const char *type = json_string_value(json_object_get(model, "type"));
	size_t i;
	int rc;

	if (!json_is_object(model))
		return ruv_fail(t->err, RUV_EFORMAT, WHERE, "tokenizer.json has no object \"model\"");
	if ((type && strcmp(type, "BPE")) || (!type && !json_object_get(model, "merges")))
		return ruv_fail(t->err, RUV_EUNSUPPORTED, WHERE, "tokenizer.json: a model of type '%.40s' is not supported; BPE is",
		                type ? type : "?");
	if (json_is_true(json_object_get(model, "byte_fallback")))
		return ruv_fail(t->err, RUV_EUNSUPPORTED, WHERE,
		                "tokenizer.json: SentencePiece-like BPE (byte_fallback) is not supported");
	rc = know_pre_tokenizer(t, json_object_get(t->tokenizer, "pre_tokenizer"));
	if (!rc)
		rc = know_normalizer(t, json_object_get(t->tokenizer, "normalizer"));
	if (rc)
		return rc;
	bool ignore = json_is_true(json_object_get(model, "ignore_merges"));
	bool implied = !strcmp(t->pre, "lfm2") || !strcmp(t->pre, "llama-bpe");
	if (ignore && !implied)
		return ruv_fail(t->err, RUV_EUNSUPPORTED, WHERE,
		                "tokenizer.json: ignore_merges with the pre-tokenizer %s is not supported", t->pre);
	if (!ignore && implied)
		ruv_log(RUV_LOG_WARN, WHERE, "tokenizer.json has no ignore_merges; the pre-tokenizer %s implies it", t->pre);

	rc = add_vocab(t, json_object_get(model, "vocab"), "tokenizer.json");
	if (rc)
		return rc;
	json_array_foreach(added, i, entry)
	{
		json_t *id = json_object_get(entry, "id");
		if (!json_is_integer(id))
			return ruv_fail(t->err, RUV_EFORMAT, WHERE, "tokenizer.json: added token %zu has no \"id\"", i);
		rc = add_special(t, json_integer_value(id), entry, "tokenizer.json");
		if (rc)
			return rc;
	}
	return add_merges(t, json_object_get(model, "merges"));
}

/* vocab.json and merges.txt say nothing of how text is split; the architecture must. */
static int read_vocab_json(tokens *t)
{
	json_t *decoder = json_object_get(t->config, "added_tokens_decoder"), *added = NULL, *entry;
	const char *text, *class_name = json_string_value(json_object_get(t->config, "tokenizer_class"));
	int rc;

	if (class_name && !strncmp(class_name, "Qwen2Tokenizer", 14))
		t->pre = "qwen2";
	else if (class_name && !strncmp(class_name, "GPT2Tokenizer", 13))
		t->pre = "gpt-2";
	else if (!strcmp(t->arch, "qwen2") || !strcmp(t->arch, "qwen3"))
		t->pre = "qwen2";
	else
		return ruv_fail(t->err, RUV_EUNSUPPORTED, WHERE,
		                "vocab.json and merges.txt do not say how tokenizer '%.40s' splits text; "
		                "tokenizer.json is needed",
		                class_name ? class_name : "?");
	rc = add_vocab(t, t->vocab, "vocab.json");
	if (rc)
		return rc;
	json_object_foreach(decoder, text, entry)
	{
		char *end;
		long id = strtol(text, &end, 10);
		if (*end || end == text)
			return ruv_fail(t->err, RUV_EFORMAT, WHERE, "tokenizer_config.json: '%.40s' is no token id", text);
		rc = add_special(t, id, entry, "tokenizer_config.json");
		if (rc)
			return rc;
	}
	if (!decoder) {
		rc = ruv_hf_json(&added, t->dir, "added_tokens.json", t->err);
		json_object_foreach(added, text, entry)
		{
			if (rc)
				break;
			/* The texts must live as long as the others. */
			char *copy = ruv_arena_strndup(&t->arena, text, strlen(text));
			rc = !json_is_integer(entry) ? ruv_fail(t->err, RUV_EFORMAT, WHERE,
			                                        "added_tokens.json: the id of '%.60s' is no whole number", text)
			     : !copy                 ? ruv_fail_memory(t->err, WHERE, strlen(text))
			                             : set_token(t, json_integer_value(entry), copy,
                                                 looks_special(copy) ? TYPE_CONTROL : TYPE_USER_DEFINED);
		}
		json_decref(added);
		if (rc)
			return rc;
	}
	return read_merges_txt(t);
}

/* ---- ids with a meaning ---- */

static json_int_t id_of(const tokens *t, const char *text)
{
	json_t *id = text ? json_object_get(t->ids, text) : NULL;
	return id ? json_integer_value(id) : -1;
}

/* A token that tokenizer_config.json names, else config.json's (or generation_config.json's) id; -1: none. */
static json_int_t special_id(const tokens *t, const char *name)
{
	char key[32];
	json_t *v, *sources[] = {t->model_config, t->generation};

	snprintf(key, sizeof key, "%s_token", name);
	v = json_object_get(t->config, key);
	if (json_is_object(v))
		v = json_object_get(v, "content");
	if (json_is_string(v) && id_of(t, json_string_value(v)) >= 0)
		return id_of(t, json_string_value(v));
	snprintf(key, sizeof key, "%s_token_id", name);
	for (int i = 0; i < 2; i++) {
		v = json_object_get(sources[i], key);
		if (json_is_array(v))
			v = json_array_get(v, 0);
		if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < t->n)
			return json_integer_value(v);
	}
	return -1;
}

/* Does the post-processor put BOS before a text? -1: it does not say. */
static int template_adds_bos(json_t *post, const char *bos)
{
	json_t *list = json_object_get(post, "processors"), *first;
	const char *type = json_string_value(json_object_get(post, "type"));
	size_t i;
	if (!type)
		return -1;
	if (!strcmp(type, "Sequence")) {
		json_t *entry;
		int result = -1;
		json_array_foreach(list, i, entry)
		{
			int one = template_adds_bos(entry, bos);
			if (one >= 0)
				result = one;
		}
		return result;
	}
	if (strcmp(type, "TemplateProcessing"))
		return strcmp(type, "ByteLevel") ? -1 : 0;
	first = json_object_get(json_array_get(json_object_get(post, "single"), 0), "SpecialToken");
	const char *id = json_string_value(json_object_get(first, "id"));
	return id && bos && !strcmp(id, bos);
}

static void set_special_ids(tokens *t, ruv_gguf_writer *w)
{
	static const struct {
		const char *name, *key;
	} specials[] = {{"bos", "tokenizer.ggml.bos_token_id"},
	                {"eos", "tokenizer.ggml.eos_token_id"},
	                {"pad", "tokenizer.ggml.padding_token_id"}};
	static const char *const turn_ends[] = {"<|im_end|>", "<|eot_id|>"};
	json_int_t bos = -1;

	for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
		json_int_t id = special_id(t, specials[i].name);
		if (id >= 0)
			ruv_gguf_set_u32(w, specials[i].key, (uint32_t)id);
		if (i == 0)
			bos = id;
	}
	for (size_t i = 0; i < sizeof turn_ends / sizeof *turn_ends; i++) {
		json_int_t id = id_of(t, turn_ends[i]);
		if (id >= 0) {
			ruv_gguf_set_u32(w, "tokenizer.ggml.eot_token_id", (uint32_t)id);
			break;
		}
	}
	json_t *flag = json_object_get(t->config, "add_bos_token");
	int add = json_is_boolean(flag) ? json_is_true(flag) : -1;
	if (add < 0)
		add = template_adds_bos(json_object_get(t->tokenizer, "post_processor"), bos >= 0 ? t->text[bos].data : NULL);
	if (add < 0)
		add = bos >= 0 && (!strcmp(t->pre, "lfm2") || !strcmp(t->pre, "llama-bpe"));
	ruv_gguf_set_bool(w, "tokenizer.ggml.add_bos_token", add > 0);
	flag = json_object_get(t->config, "add_eos_token");
	ruv_gguf_set_bool(w, "tokenizer.ggml.add_eos_token", json_is_true(flag));
}

/* ---- the chat template ---- */

static int set_chat_template(tokens *t, ruv_gguf_writer *w)
{
	char path[PATH_MAX], *text = NULL;
	struct stat sb;
	size_t n, i;
	json_t *v, *entry, *alone = NULL;
	int rc;

	snprintf(path, sizeof path, "%s/chat_template.jinja", t->dir);
	if (!stat(path, &sb)) {
		rc = ruv_file_read(&text, &n, path, 1 << 24, t->err);
		if (!rc)
			ruv_gguf_set_strn(w, "tokenizer.chat_template", text, n);
		free(text);
		return rc;
	}
	v = json_object_get(t->config, "chat_template");
	if (!v) {
		rc = ruv_hf_json(&alone, t->dir, "chat_template.json", t->err);
		if (rc)
			return rc;
		v = json_object_get(alone, "chat_template");
	}
	if (json_is_string(v)) {
		ruv_gguf_set_strn(w, "tokenizer.chat_template", json_string_value(v), json_string_length(v));
	} else if (json_is_array(v)) {
		ruv_gguf_str names[64];
		size_t n_names = 0;
		json_array_foreach(v, i, entry)
		{
			const char *name = json_string_value(json_object_get(entry, "name"));
			json_t *body = json_object_get(entry, "template");
			char key[128] = "tokenizer.chat_template";
			if (!name || !json_is_string(body) || n_names == 64) {
				json_decref(alone);
				return ruv_fail(t->err, RUV_EFORMAT, WHERE,
				                "tokenizer_config.json: chat template %zu has no name or no text", i);
			}
			if (strcmp(name, "default")) {
				snprintf(key, sizeof key, "tokenizer.chat_template.%.80s", name);
				names[n_names++] = (ruv_gguf_str){name, strlen(name)};
			}
			ruv_gguf_set_strn(w, key, json_string_value(body), json_string_length(body));
		}
		if (n_names)
			ruv_gguf_set_str_array(w, "tokenizer.chat_templates", names, n_names);
	}
	json_decref(alone);
	return RUV_OK;
}

/* ---- the whole ---- */

static int fill_padding(tokens *t)
{
	for (int i = 0; i < t->n; i++) {
		if (t->text[i].data)
			continue;
		char *name = ruv_arena_alloc(&t->arena, 24);
		if (!name)
			return ruv_fail_memory(t->err, WHERE, 24);
		snprintf(name, 24, "[PAD%d]", i);
		t->text[i] = (ruv_gguf_str){name, strlen(name)};
		t->type[i] = TYPE_UNUSED;
	}
	return RUV_OK;
}

static int read_all(tokens *t)
{
	int rc;
	if ((rc = ruv_hf_json(&t->tokenizer, t->dir, "tokenizer.json", t->err)) ||
	    (rc = ruv_hf_json(&t->config, t->dir, "tokenizer_config.json", t->err)) ||
	    (rc = ruv_hf_json(&t->generation, t->dir, "generation_config.json", t->err)))
		return rc;
	if (t->tokenizer) {
		rc = read_tokenizer_json(t);
	} else {
		rc = ruv_hf_json(&t->vocab, t->dir, "vocab.json", t->err);
		if (!rc && !t->vocab)
			rc = ruv_fail(t->err, RUV_ENOTFOUND, WHERE,
			              "'%s' holds no tokenizer (tokenizer.json, or vocab.json with merges.txt)", t->dir);
		if (!rc)
			rc = read_vocab_json(t);
	}
	return rc ? rc : fill_padding(t);
}

int ruv_hf_set_tokenizer(ruv_gguf_writer *writer, const char *dir, const char *arch, json_t *config, int n_vocab, ruv_error *err)
{
	tokens t = {.n = n_vocab, .arch = arch, .dir = dir, .model_config = config, .err = err};
	int rc;

	if (n_vocab < 1 || n_vocab > MAX_TOKENS)
		return ruv_fail(err, RUV_ELIMIT, WHERE, "a vocabulary of %d tokens; 1 to %d are allowed", n_vocab, MAX_TOKENS);
	ruv_arena_init(&t.arena);
	t.text = calloc((size_t)n_vocab, sizeof *t.text);
	t.type = calloc((size_t)n_vocab, sizeof *t.type);
	t.ids = json_object();
	rc = t.text && t.type && t.ids ? read_all(&t) : ruv_fail_memory(err, WHERE, (size_t)n_vocab * sizeof *t.text);
	if (rc)
		goto done;
	ruv_gguf_set_str(writer, "tokenizer.ggml.model", "gpt2");
	ruv_gguf_set_str(writer, "tokenizer.ggml.pre", t.pre);
	ruv_gguf_set_str_array(writer, "tokenizer.ggml.tokens", t.text, (size_t)t.n);
	ruv_gguf_set_array(writer, "tokenizer.ggml.token_type", RUV_GGUF_I32, t.type, (size_t)t.n);
	ruv_gguf_set_str_array(writer, "tokenizer.ggml.merges", t.merges, t.n_merges);
	set_special_ids(&t, writer);
	rc = set_chat_template(&t, writer);
done:
	free(t.text);
	free(t.type);
	free(t.merges);
	free(t.merges_text);
	json_decref(t.ids);
	json_decref(t.tokenizer);
	json_decref(t.config);
	json_decref(t.vocab);
	json_decref(t.generation);
	ruv_arena_release(&t.arena);
	return rc;
}
