/* targets.c - see targets.h. */
#include "targets.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "../format/tiny_hf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status.h"
#include "format/gguf_write.h"
#include "format/quantize.h"
#include "format/safetensors.h"
#include "format/source.h"
#include "infer/grammar_automaton.h"
#include "ruvllm/session.h"
#include "text/chat_template.h"
#include "text/document.h"
#include "text/tool_calls.h"
#include "text/vocab.h"

static const struct {
	const char *name;
	fuzz_target *run;
} targets[] = {
#define X(name, what) {#name, fuzz_##name},
    FUZZ_TARGET_LIST(X)
#undef X
};

fuzz_target *fuzz_find(const char *name)
{
	for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
		if (!strcmp(targets[i].name, name))
			return targets[i].run;
	return NULL;
}

const char *fuzz_name_at(int i)
{
	return i >= 0 && (size_t)i < sizeof targets / sizeof *targets ? targets[i].name : NULL;
}

static void broken(const char *name, const char *what, const char *message)
{
	fprintf(stderr, "target %s: %s (message '%s')\n", name, what, message);
	abort();
}

int fuzz_run(const char *name, const uint8_t *data, size_t n, ruv_error *err)
{
	ruv_error error;
	fuzz_target *run = fuzz_find(name);
	static bool quiet;
	int rc;

	if (!run)
		broken(name, "no such target", "");
	if (!quiet) { /* warnings about the input are no news here */
		ruv_log_set(NULL, NULL, RUV_LOG_ERROR);
		quiet = true;
	}
	memset(&error, 0, sizeof error);
	rc = run(data, n, &error);
	if (rc > 0)
		broken(name, "a positive status", error.message);
	if (rc < 0 && !error.message[0])
		broken(name, "a failure without a message", ruv_status_name(rc));
	if (rc < 0 && (error.code != rc || !strcmp(ruv_status_name(rc), "unknown")))
		broken(name, "the error's code is not the status", error.message);
	if (rc == RUV_EINTERNAL)
		broken(name, "input from outside is no internal fault", error.message);
	if (memchr(error.message, 0, sizeof error.message) == NULL)
		broken(name, "an endless message", "");
	if (err)
		*err = error;
	return rc;
}

/* ---- a directory for inputs that are read by name ---- */

static char dir[64];

static void remove_dir(void)
{
	char path[400];
	DIR *d = opendir(dir);
	for (struct dirent *e; d && (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
		unlink(path);
	}
	if (d)
		closedir(d);
	rmdir(dir);
}

static const char *in_dir(const char *name)
{
	static char path[128];
	if (!*dir) {
		/* Memory, where there is such a file system: thousands of small files a second. */
		snprintf(dir, sizeof dir, "%s/ruv-fuzz-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
		if (!mkdtemp(dir))
			abort();
		atexit(remove_dir);
	}
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void put_file(const char *name, const void *data, size_t n)
{
	FILE *f = fopen(in_dir(name), "wb");
	if (!f || fwrite(data, 1, n, f) != n || fclose(f))
		abort();
}

/* What a reader may do with any byte: keeps the compiler from leaving the reading out. */
static volatile unsigned char sink;

static void touch(const void *data, size_t n)
{
	const unsigned char *p = data;
	for (size_t i = 0; i < n; i++)
		sink ^= p[i];
}

/* ---- files ---- */

int fuzz_gguf(const uint8_t *data, size_t n, ruv_error *err)
{
	ruv_gguf *g = NULL;
	int rc;

	/* What inspect accepts must hold together as well. */
	if (!ruv_gguf_open_memory(&g, data, n, RUV_GGUF_INSPECT | RUV_GGUF_ONE_PART, NULL)) {
		for (size_t i = 0; i < ruv_gguf_n_tensors(g); i++)
			touch(ruv_gguf_tensor_at(g, i)->data, ruv_gguf_tensor_at(g, i)->n_bytes);
		ruv_gguf_free(g);
	}
	rc = ruv_gguf_open_memory(&g, data, n, RUV_GGUF_ONE_PART, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < ruv_gguf_n_keys(g); i++) {
		const ruv_gguf_key *key = ruv_gguf_key_at(g, i);
		char *name = strndup(key->name.data, key->name.len), *text = NULL;
		ruv_gguf_str s;
		uint32_t u;
		uint64_t u64;
		int32_t i32;
		float f;
		bool b;
		size_t cursor = 0;
		if (ruv_gguf_find_key(g, name) != key)
			broken("gguf", "a key is not found by its name", name);
		ruv_gguf_get_u32(g, name, &u, NULL);
		ruv_gguf_get_u64(g, name, &u64, NULL);
		ruv_gguf_get_i32(g, name, &i32, NULL);
		ruv_gguf_get_f32(g, name, &f, NULL);
		ruv_gguf_get_bool(g, name, &b, NULL);
		if (!ruv_gguf_get_str(g, name, &s, NULL))
			touch(s.data, s.len);
		ruv_gguf_get_cstr(g, name, &text, NULL);
		if (key->type == RUV_GGUF_ARRAY) {
			while (ruv_gguf_array_next_str(&key->array, &cursor, &s))
				touch(s.data, s.len);
			for (uint64_t k = 0; k < key->array.n; k++) {
				int64_t v;
				ruv_gguf_array_i64(&key->array, k, &v, NULL);
				ruv_gguf_array_f32(&key->array, k, &f, NULL);
			}
		}
		free(name);
		free(text);
	}
	for (size_t i = 0; i < ruv_gguf_n_tensors(g); i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(g, i);
		char shape[96];
		if (ruv_gguf_find_tensor(g, t->name) != t)
			broken("gguf", "a tensor is not found by its name", t->name);
		ruv_gguf_shape(t, shape, sizeof shape);
		touch(t->data, t->n_bytes);
	}
	ruv_gguf_free(g);
	return RUV_OK;
}

int fuzz_model(const uint8_t *data, size_t n, ruv_error *err)
{
	static ruv_engine *engine; /* one for all inputs: threads are dear */
	const ruv_session_options session_options = {.n_ctx = 32, .allow_longer = true};
	ruv_model *model = NULL;
	ruv_session *session = NULL;
	ruv_model_info info;
	ruv_token_list tokens = {0};
	int rc;

	if (!engine && ruv_engine_open(&engine, 1, NULL))
		abort();
	const ruv_model_options options = {.engine = engine, .n_batch = 8};
	put_file("model.gguf", data, n);
	rc = ruv_model_open(&model, in_dir("model.gguf"), &options, err);
	if (rc)
		return rc;
	ruv_model_get_info(model, &info);
	if (info.has_tokenizer) {
		char *text = NULL;
		if (!ruv_model_tokenize(model, "Hello <|im_end|> 12 \xc3\xa9", 22, RUV_TOKENIZE_BOS | RUV_TOKENIZE_SPECIAL, &tokens,
		                        NULL))
			ruv_model_detokenize(model, tokens.ids, tokens.n, true, &text, NULL);
		free(text);
	}
	if (info.has_chat_template) {
		const ruv_message messages[] = {{.role = "user", .content = "Hi"}};
		ruv_token_list chat = {0};
		ruv_model_chat_tokens(model, messages, 1, NULL, true, &chat, NULL);
		ruv_token_list_release(&chat);
	}
	if (!info.is_encoder) {
		const ruv_token ids[] = {0, info.n_vocab - 1, info.n_vocab / 2};
		rc = ruv_session_open(&session, model, &session_options, err);
		if (!rc)
			rc = ruv_session_prefill(session, ids, 3, NULL, err);
		if (!rc)
			rc = ruv_session_decode(session, 0, err);
		ruv_session_free(session);
	}
	ruv_token_list_release(&tokens);
	ruv_model_free(model);
	return rc;
}

int fuzz_safetensors(const uint8_t *data, size_t n, ruv_error *err)
{
	ruv_safetensors *st = NULL;
	int rc = ruv_safetensors_open_memory(&st, data, n, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < ruv_safetensors_n_tensors(st); i++) {
		const ruv_safetensors_tensor *t = ruv_safetensors_at(st, i);
		if (ruv_safetensors_find(st, t->name) != t)
			broken("safetensors", "a tensor is not found by its name", t->name);
		touch(t->data, t->n_bytes);
	}
	ruv_safetensors_free(st);
	return RUV_OK;
}

int fuzz_imatrix(const uint8_t *data, size_t n, ruv_error *err)
{
	ruv_imatrix *m = NULL;
	const float *means = NULL;
	int rc;

	put_file("imatrix.gguf", data, n);
	rc = ruv_imatrix_open(&m, in_dir("imatrix.gguf"), err);
	if (rc)
		return rc;
	if (!ruv_imatrix_find(m, "blk.0.ffn_up.weight", 8, &means, NULL) && means)
		touch(means, 8 * sizeof *means);
	ruv_imatrix_free(m);
	return RUV_OK;
}

int fuzz_adapter(const uint8_t *data, size_t n, ruv_error *err)
{
	static ruv_model *model; /* of the checked-in corpus, one for all inputs */
	const ruv_session_options options = {.n_ctx = 32};
	const ruv_token ids[] = {1, 70, 71};
	ruv_session *session = NULL;
	ruv_adapter *adapter = NULL;
	int rc;

	if (!model) {
		const ruv_model_options model_options = {.n_threads = 1, .n_batch = 8};
		if (ruv_model_open(&model, RUV_SOURCE_DIR "/tests/fuzz/corpus/model/ok-lfm2.gguf", &model_options, NULL))
			abort();
	}
	put_file("adapter.gguf", data, n);
	rc = ruv_adapter_open(&adapter, model, in_dir("adapter.gguf"), 1, err);
	if (!rc)
		rc = ruv_session_open(&session, model, &options, err);
	if (!rc)
		rc = ruv_session_set_adapter(session, adapter, err);
	if (!rc)
		rc = ruv_session_prefill(session, ids, 3, NULL, err);
	ruv_session_free(session);
	ruv_adapter_free(adapter);
	return rc;
}

/* ---- Hugging Face directories ---- */

/* A small LFM2 directory in which one file is the input. */
static const char *model_dir(void)
{
	static tiny_hf hf;
	if (!hf.dir[0]) {
		tiny_hf_init(&hf, "lfm2");
		tiny_hf_write(&hf);
		static const char *const parts[] = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"};
		for (int i = 0; i < 4; i++) {
			char *bytes;
			size_t n;
			if (ruv_file_read(&bytes, &n, tiny_hf_path(&hf, parts[i]), 1 << 24, NULL))
				abort();
			put_file(parts[i], bytes, n);
			free(bytes);
		}
		tiny_hf_release(&hf);
	}
	return dir;
}

int fuzz_config(const uint8_t *data, size_t n, ruv_error *err)
{
	const char *from = model_dir();
	ruv_gguf_writer *w = NULL;
	ruv_source source;
	int rc;

	put_file("config.json", data, n);
	ruv_source_init(&source);
	rc = ruv_gguf_writer_create(&w, err);
	if (!rc)
		rc = ruv_source_open_hf(&source, from, "fuzz", true, w, err);
	for (size_t i = 0; i < source.n_tensors && !rc; i++) {
		const ruv_source_tensor *t = &source.tensors[i];
		float *row = malloc((size_t)t->ne[0] * sizeof *row);
		rc = ruv_source_rows(t, ruv_source_n_rows(t) - 1, 1, row, err);
		touch(row, (size_t)t->ne[0] * sizeof *row);
		free(row);
	}
	ruv_source_release(&source);
	ruv_gguf_writer_free(w);
	return rc;
}

/* The vocabulary that a converted tokenizer makes. */
static int load_vocab(const ruv_gguf *g, ruv_vocab **vocab, ruv_error *err)
{
	ruv_gguf_array tokens, merges, types;
	ruv_gguf_str pre, s;
	ruv_vocab_desc desc;
	uint32_t bos = UINT32_MAX, eos = UINT32_MAX;
	size_t cursor = 0, n = 0;
	int rc;

	ruv_vocab_desc_init(&desc);
	if ((rc = ruv_gguf_get_array(g, "tokenizer.ggml.tokens", &tokens, err)) ||
	    (rc = ruv_gguf_get_array(g, "tokenizer.ggml.merges", &merges, err)) ||
	    (rc = ruv_gguf_get_array(g, "tokenizer.ggml.token_type", &types, err)) ||
	    (rc = ruv_gguf_get_str(g, "tokenizer.ggml.pre", &pre, err)) ||
	    (rc = ruv_gguf_opt_u32(g, "tokenizer.ggml.bos_token_id", &bos, err)) ||
	    (rc = ruv_gguf_opt_u32(g, "tokenizer.ggml.eos_token_id", &eos, err)))
		return rc;
	ruv_str *texts = calloc(tokens.n + 1, sizeof *texts), *pairs = calloc(merges.n + 1, sizeof *pairs);
	int32_t *kinds = calloc(types.n + 1, sizeof *kinds);
	char *name = strndup(pre.data, pre.len);
	while (ruv_gguf_array_next_str(&tokens, &cursor, &s))
		texts[n++] = (ruv_str){s.data, s.len};
	cursor = 0;
	while (ruv_gguf_array_next_str(&merges, &cursor, &s))
		pairs[desc.n_merges++] = (ruv_str){s.data, s.len};
	for (uint64_t i = 0; i < types.n; i++) {
		int64_t v = 0;
		ruv_gguf_array_i64(&types, i, &v, NULL);
		kinds[i] = (int32_t)v;
	}
	desc.tokens = texts;
	desc.n_tokens = n;
	desc.types = kinds;
	desc.merges = pairs;
	desc.pre = name;
	desc.bos = (ruv_token)bos;
	desc.eos = (ruv_token)eos;
	rc = ruv_vocab_create(vocab, &desc, err);
	free(texts);
	free(pairs);
	free(kinds);
	free(name);
	return rc;
}

int fuzz_tokenizer(const uint8_t *data, size_t n, ruv_error *err)
{
	static const char text[] = "Hello, w\xc3\xb6rld! <|im_end|> <tool_call> 12345 \xf0\x9f\x99\x82\n\n  it's\t\xff\xfe";
	const char *from = model_dir();
	ruv_gguf_writer *w = NULL;
	ruv_gguf *g = NULL;
	ruv_vocab *vocab = NULL;
	ruv_tokens ids = {0};
	ruv_buf back;
	json_t *config = json_pack("{s:i, s:i}", "bos_token_id", 1, "eos_token_id", 4);
	int rc;

	ruv_buf_init(&back, 1 << 20);
	put_file("tokenizer.json", data, n);
	rc = ruv_gguf_writer_create(&w, err);
	if (!rc)
		rc = ruv_hf_set_tokenizer(w, from, "lfm2", config, TINY_VOCAB, err);
	if (!rc)
		rc = ruv_gguf_writer_begin(w, in_dir("vocab.gguf"), err);
	if (!rc)
		rc = ruv_gguf_writer_finish(w, err);
	if (!rc)
		rc = ruv_gguf_open(&g, in_dir("vocab.gguf"), 0, err);
	if (!rc)
		rc = load_vocab(g, &vocab, err);
	if (!rc)
		rc = ruv_vocab_encode(vocab, text, sizeof text - 1, RUV_ENCODE_EDGES | RUV_ENCODE_SPECIAL, &ids, err);
	if (!rc)
		rc = ruv_vocab_decode(vocab, ids.ids, ids.n, false, &back, err);
	ruv_buf_release(&back);
	ruv_tokens_release(&ids);
	ruv_vocab_free(vocab);
	ruv_gguf_free(g);
	ruv_gguf_writer_free(w);
	json_decref(config);
	return rc;
}

/* ---- chat templates and their inputs ---- */

#define UNTRUSTED "U7q!z9" /* no template writes it by accident */

static int render(const char *source, size_t n, const ruv_chat_input *input, ruv_error *err)
{
	ruv_chat_template *t = NULL;
	ruv_chat_prompt prompt = {0};
	int rc = ruv_chat_template_compile(&t, source, n, err);
	if (!rc)
		rc = ruv_chat_template_render(t, input, &prompt, err);
	if (!rc) {
		size_t end = 0;
		touch(prompt.text, prompt.n_bytes + 1);
		for (size_t i = 0; i < prompt.n_trusted; i++) {
			if (prompt.trusted[i].begin < end || prompt.trusted[i].end <= prompt.trusted[i].begin ||
			    prompt.trusted[i].end > prompt.n_bytes)
				broken("template", "spans out of order", prompt.text);
			end = prompt.trusted[i].end;
		}
		/* Nothing of a message may be trusted. */
		for (size_t i = 0; i < prompt.n_trusted; i++)
			if (memmem(prompt.text + prompt.trusted[i].begin, prompt.trusted[i].end - prompt.trusted[i].begin,
			           UNTRUSTED, strlen(UNTRUSTED)) &&
			    !memmem(source, n, "7q!", 3))
				broken("template", "a message's text is trusted", prompt.text);
		ruv_chat_prompt_release(&prompt);
	}
	ruv_chat_template_free(t);
	return rc;
}

int fuzz_template(const uint8_t *data, size_t n, ruv_error *err)
{
	static json_t *tools, *calls;
	if (!tools) {
		tools = json_loads("[{\"type\":\"function\",\"function\":{\"name\":\"find\",\"description\":\"d\",\"parameters\":{"
		                   "\"type\":\"object\","
		                   "\"properties\":{\"q\":{\"type\":\"string\"}}}}}]",
		                   0, NULL);
		calls = json_loads("[{\"id\":\"1\",\"type\":\"function\",\"function\":{\"name\":\"find\",\"arguments\":{\"q\":"
		                   "\"x\",\"n\":[1,2.5,null]}}}]",
		                   0, NULL);
	}
	const ruv_chat_message messages[] = {{.role = "system", .content = "Be brief."},
	                                     {.role = "user", .content = UNTRUSTED " <|im_end|> {{ x }} \xc3\xa9"},
	                                     {.role = "assistant", .thinking = "hm", .tool_calls = calls},
	                                     {.role = "tool", .content = "{\"a\": 1}", .tool_call_id = "1", .name = "find"},
	                                     {.role = "user", .content = "Bye"}};
	const ruv_chat_input input = {.messages = messages,
	                              .n_messages = 5,
	                              .tools = tools,
	                              .add_generation_prompt = true,
	                              .bos_token = "<s>",
	                              .eos_token = "</s>",
	                              .now_s = 1700000000,
	                              .max_bytes = 1 << 20};
	return render((const char *)data, n, &input, err);
}

/* An object {"messages": [{"role", "content", "tool_calls", ...}], "tools": [...], "extra": {...}} as a server would be given it.
 */
int fuzz_json(const uint8_t *data, size_t n, ruv_error *err)
{
	static const char source[] = "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}{% if m.tool_calls %}{% "
				     "for c in m.tool_calls %}{{ c.function.name }}"
				     "{{ c.function.arguments | tojson }}{% endfor %}{% endif %}{% endfor %}{% if tools %}{{ tools "
				     "| tojson(indent=2) }}{% endif %}"
				     "{% if extra_text is defined %}{{ extra_text }}{% endif %}";
	json_error_t why;
	json_t *root = json_loadb((const char *)data, n, JSON_REJECT_DUPLICATES, &why), *list, *m;
	ruv_chat_message messages[16];
	size_t i;
	int rc;

	if (!root) {
		err->code = RUV_EFORMAT;
		snprintf(err->message, sizeof err->message, "not valid JSON: %s", why.text);
		return RUV_EFORMAT;
	}
	memset(messages, 0, sizeof messages);
	list = json_object_get(root, "messages");
	ruv_chat_input input = {.messages = messages,
	                        .tools = json_object_get(root, "tools"),
	                        .extra = json_object_get(root, "extra"),
	                        .add_generation_prompt = true,
	                        .bos_token = "<s>",
	                        .max_bytes = 1 << 20};
	json_array_foreach(list, i, m)
	{
		if (i == 16)
			break;
		messages[i] = (ruv_chat_message){.role = json_string_value(json_object_get(m, "role")),
		                                 .content = json_string_value(json_object_get(m, "content")),
		                                 .tool_calls = json_object_get(m, "tool_calls"),
		                                 .tool_call_id = json_string_value(json_object_get(m, "tool_call_id")),
		                                 .name = json_string_value(json_object_get(m, "name"))};
		if (!messages[i].content)
			messages[i].parts = json_object_get(m, "content");
		input.n_messages = i + 1;
	}
	rc = render(source, sizeof source - 1, &input, err);
	json_decref(root);
	return rc;
}

int fuzz_tool_calls(const uint8_t *data, size_t n, ruv_error *err)
{
	int rc = RUV_OK;
	/* Both notations; the text in pieces of growing length, as generation gives it. */
	for (int syntax = RUV_TOOL_SYNTAX_LFM2; syntax <= RUV_TOOL_SYNTAX_QWEN; syntax++) {
		ruv_tool_parser *p = NULL;
		ruv_error e = {0};
		ruv_buf text;
		int one;
		ruv_buf_init(&text, 1 << 22);
		one = ruv_tool_parser_create(&p, (ruv_tool_syntax)syntax, &e);
		for (size_t at = 0, step = 1; at < n && !one; at += step, step = step % 7 + 1) {
			if (step > n - at)
				step = n - at;
			one = ruv_tool_parser_push(p, (const char *)data + at, step, &text, &e);
			if (at + step == n)
				break;
		}
		if (!one)
			one = ruv_tool_parser_finish(p, &text, &e);
		for (size_t i = 0; p && i < ruv_tool_parser_n_calls(p); i++) {
			const ruv_tool_call *call = ruv_tool_parser_call(p, i);
			if (!call->name || !json_is_object(call->arguments))
				broken("tool_calls", "a call without name or arguments", "");
			touch(call->name, strlen(call->name));
		}
		if (p)
			touch(ruv_tool_parser_block(p), strlen(ruv_tool_parser_block(p)));
		ruv_tool_parser_free(p);
		ruv_buf_release(&text);
		if (one && !rc) {
			rc = one;
			*err = e;
		}
	}
	return rc;
}

/* What a listener heard must be one thing after the other, and every byte of text must be heard. */
typedef struct heard {
	size_t n_text, n_ended, n_told, n_begun;
	bool open;
	ruv_buf arguments;
} heard;

static int on_tool_part(void *user, ruv_tool_part part, size_t call, const char *name, const char *text, size_t n)
{
	heard *h = user;
	json_t *json;

	touch(text, n);
	switch (part) {
	case RUV_PART_TEXT:
		h->n_text += n;
		if (h->open)
			broken("tool_stream", "text inside an open call", "");
		break;
	case RUV_PART_BEGIN:
		if (h->open || call != h->n_ended)
			broken("tool_stream", "a call begins inside another, or out of order", name);
		h->open = true;
		h->n_begun++;
		ruv_buf_clear(&h->arguments);
		break;
	case RUV_PART_ARGUMENTS:
		if (!h->open)
			broken("tool_stream", "arguments of no call", name);
		ruv_buf_append(&h->arguments, text, n);
		break;
	case RUV_PART_END:
		json = json_loadb(text, n, 0, NULL);
		if (!h->open || !json_is_object(json) || h->arguments.len != n || (n && memcmp(h->arguments.data, text, n)))
			broken("tool_stream", "the arguments are not what was told of them", text);
		json_decref(json);
		h->open = false;
		h->n_ended++;
		break;
	case RUV_PART_BROKEN:
		h->open = false;
		h->n_ended = call;
		break;
	}
	return RUV_OK;
}

int fuzz_tool_stream(const uint8_t *data, size_t n, ruv_error *err)
{
	for (int syntax = RUV_TOOL_SYNTAX_LFM2; syntax <= RUV_TOOL_SYNTAX_QWEN; syntax++) {
		ruv_tool_parser *p = NULL;
		heard h = {0};
		int rc = ruv_tool_parser_create(&p, (ruv_tool_syntax)syntax, err);

		ruv_buf_init(&h.arguments, 1 << 24);
		if (!rc)
			ruv_tool_parser_listen(p, on_tool_part, &h);
		for (size_t at = 0, step = 1; at < n && !rc; at += step, step = step % 7 + 1) {
			if (step > n - at)
				step = n - at;
			rc = ruv_tool_parser_push(p, (const char *)data + at, step, NULL, err);
			if (at + step == n)
				break;
		}
		if (!rc)
			rc = ruv_tool_parser_finish(p, NULL, err);
		if (!rc && (h.open || h.n_ended != ruv_tool_parser_n_calls(p)))
			broken("tool_stream", "calls that were not told of", "");
		if (!rc && !h.n_begun && h.n_text != n)
			broken("tool_stream", "text was lost", "");
		ruv_tool_parser_free(p);
		ruv_buf_release(&h.arguments);
		if (rc)
			return rc;
	}
	return RUV_OK;
}

/* Follows the automaton along whatever it allows, for a while. */
static int follow(const ruv_gast *ast, ruv_error *err)
{
	ruv_automaton *a = NULL;
	int place = RUV_PLACE_BEGIN, rc = ruv_automaton_open(&a, ast, err);

	for (unsigned i = 0; i < 200 && !rc; i++) {
		int next = RUV_PLACE_DEAD;

		for (unsigned k = 0; k < 256 && next == RUV_PLACE_DEAD; k++)
			next = ruv_automaton_step(a, place, (unsigned char)(k * 89 + i * 31));
		if (next < 0)
			rc = ruv_automaton_fail(next, err);
		else if (next == RUV_PLACE_DEAD)
			break;
		place = next;
	}
	ruv_automaton_free(a);
	return rc;
}

int fuzz_gbnf(const uint8_t *data, size_t n, ruv_error *err)
{
	ruv_gast ast;
	int rc;

	ruv_gast_init(&ast);
	rc = ruv_gbnf_parse(&ast, (const char *)data, n, NULL, err);
	if (!rc)
		rc = follow(&ast, err);
	ruv_gast_release(&ast);
	return rc;
}

int fuzz_schema(const uint8_t *data, size_t n, ruv_error *err)
{
	json_error_t at;
	json_t *schema = json_loadb((const char *)data, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &at);
	const ruv_gnode *node = NULL;
	ruv_gast ast;
	int rc;

	if (!schema)
		return ruv_fail(err, RUV_EFORMAT, "schema", "byte %d: %s", at.position, at.text);
	ruv_gast_init(&ast);
	ast.root = ruv_gast_rule(&ast, "root");
	rc = ruv_schema_compile(&ast, schema, &node, err);
	if (!rc) {
		ast.rules[ast.root].node = node;
		rc = follow(&ast, err);
	}
	ruv_gast_release(&ast);
	json_decref(schema);
	return rc;
}

/* ---- documents ---- */

int fuzz_document(const uint8_t *data, size_t n, ruv_error *err)
{
	int rc = RUV_OK;
	for (int kind = RUV_DOCUMENT_TEXT; kind <= RUV_DOCUMENT_HTML; kind++) {
		ruv_document *doc = NULL;
		ruv_error e = {0};
		int one = ruv_document_read(&doc, (ruv_document_kind)kind, (const char *)data, n, &e);
		if (one) {
			if (!rc) {
				rc = one;
				*err = e;
			}
			continue;
		}
		touch(doc->title, strlen(doc->title));
		for (size_t i = 0; i < doc->n_blocks; i++) {
			const ruv_block *b = &doc->blocks[i];
			if (b->first_line < 1 || b->last_line < b->first_line || b->last_line > doc->n_lines ||
			    strlen(b->text) != b->len)
				broken("document", "a block outside of its lines", b->text);
			touch(b->heading_path, strlen(b->heading_path));
			for (size_t at = 0; at <= b->len; at += 1 + b->len / 7) {
				int line = ruv_block_line(b, at);
				if (line < b->first_line || line > b->last_line)
					broken("document", "a character outside of its block", b->text);
			}
		}
		ruv_document_free(doc);
	}
	return rc;
}
