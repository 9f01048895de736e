/* model.c - engines and models: opening, asking, tokens, chat.
 *
 * Order of opening: map and check the file, read the numbers, load the tokenizer, then bind the weights, so that the cheap refusals
 * come first. Reference counts are atomic; everything else of a model is immutable once open, but for the workspace, which the
 * engine's lock guards. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"
#include "model/object.h"
#include "model/registry.h"

static const char where[] = "model";

enum { DEFAULT_BATCH = 256, MAX_BATCH = 8192 };

/* ---- engine ---- */

struct ruv_engine {
	int n_refs; /* atomic */
	ruv_backend *backend;
	/* a lock in the order of asking, so that a thread that works pass after pass starves nobody: tickets under a mutex */
	pthread_mutex_t mutex;
	pthread_cond_t turn;
	uint64_t next, serving;
};

int ruv_engine_open(ruv_engine **out, int n_threads, ruv_error *err)
{
	*out = NULL;
	ruv_engine *engine = calloc(1, sizeof *engine);
	if (!engine)
		return ruv_fail_memory(err, "engine", sizeof *engine);
	int rc = ruv_backend_open_cpu(&engine->backend, n_threads, err);
	if (rc) {
		free(engine);
		return rc;
	}
	pthread_mutex_init(&engine->mutex, NULL);
	pthread_cond_init(&engine->turn, NULL);
	engine->n_refs = 1;
	*out = engine;
	return RUV_OK;
}

static ruv_engine *engine_hold(ruv_engine *engine)
{
	__atomic_add_fetch(&engine->n_refs, 1, __ATOMIC_RELAXED);
	return engine;
}

void ruv_engine_free(ruv_engine *engine)
{
	if (!engine || __atomic_sub_fetch(&engine->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	ruv_backend_free(engine->backend);
	pthread_mutex_destroy(&engine->mutex);
	pthread_cond_destroy(&engine->turn);
	free(engine);
}

const char *ruv_engine_describe(const ruv_engine *engine)
{
	return ruv_backend_describe(engine->backend);
}

int ruv_engine_n_threads(const ruv_engine *engine)
{
	return ruv_backend_n_threads(engine->backend);
}

void ruv_engine_set_packing(ruv_engine *engine, bool packing)
{
	ruv_engine_lock(engine);
	ruv_backend_set_packing(engine->backend, packing);
	ruv_engine_unlock(engine);
}

void ruv_engine_packed(ruv_engine *engine, size_t *n_bytes, double *ms)
{
	int64_t ns;
	ruv_engine_lock(engine);
	ruv_backend_packed(engine->backend, n_bytes, &ns);
	ruv_engine_unlock(engine);
	if (ms)
		*ms = (double)ns * 1e-6;
}

ruv_backend *ruv_engine_backend(ruv_engine *engine)
{
	return engine->backend;
}

void ruv_engine_lock(ruv_engine *engine)
{
	pthread_mutex_lock(&engine->mutex);
	const uint64_t mine = engine->next++;
	while (engine->serving != mine)
		pthread_cond_wait(&engine->turn, &engine->mutex);
	pthread_mutex_unlock(&engine->mutex);
}

void ruv_engine_unlock(ruv_engine *engine)
{
	pthread_mutex_lock(&engine->mutex);
	engine->serving++;
	if (engine->serving != engine->next)
		pthread_cond_broadcast(&engine->turn);
	pthread_mutex_unlock(&engine->mutex);
}

/* ---- opening ---- */

/* An optional string key as a heap string, "" when absent. */
static int opt_text(char **out, const ruv_gguf *gguf, const char *key, ruv_error *err)
{
	int rc = ruv_gguf_find_key(gguf, key) ? ruv_gguf_get_cstr(gguf, key, out, err) : RUV_ENOTFOUND;
	if (rc != RUV_ENOTFOUND)
		return rc;
	*out = strdup("");
	return *out ? RUV_OK : ruv_fail_memory(err, where, 1);
}

/* llama.cpp's numbers of general.file_type, as people call them. */
static const char *file_type_name(uint32_t type)
{
	switch (type) {
	case 0:
		return "F32";
	case 1:
		return "F16";
	case 2:
		return "Q4_0";
	case 3:
		return "Q4_1";
	case 7:
		return "Q8_0";
	case 8:
		return "Q5_0";
	case 9:
		return "Q5_1";
	case 12:
		return "Q3_K_M";
	case 14:
		return "Q4_K_S";
	case 15:
		return "Q4_K_M";
	case 16:
		return "Q5_K_S";
	case 17:
		return "Q5_K_M";
	case 18:
		return "Q6_K";
	case 32:
		return "BF16";
	default:
		return "mixed";
	}
}

/* The architecture's recommendation, what the file itself says over it (general.sampling.*), the variant's over both. */
static int read_sampling(ruv_model *model, ruv_error *err)
{
	ruv_sampling *s = &model->sampling;
	if (model->hp.arch)
		*s = model->hp.arch->sampling;
	const struct {
		const char *key;
		float *value;
		float low, high;
	} keys[] = {{"general.sampling.temp", &s->temperature, 0, 100},
	            {"general.sampling.top_p", &s->top_p, 0, 1},
	            {"general.sampling.min_p", &s->min_p, 0, 1},
	            {"general.sampling.penalty_repeat", &s->repetition_penalty, 0, 100}};
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		int rc = ruv_gguf_opt_f32(model->gguf, keys[i].key, keys[i].value, err);
		if (rc)
			return rc;
		if (!(*keys[i].value >= keys[i].low && *keys[i].value <= keys[i].high))
			return ruv_fail(err, RUV_EFORMAT, where, "key '%s' is %g, which is outside %g..%g", keys[i].key,
			                (double)*keys[i].value, (double)keys[i].low, (double)keys[i].high);
	}
	int32_t top_k = s->top_k;
	int rc = ruv_gguf_opt_i32(model->gguf, "general.sampling.top_k", &top_k, err);
	if (rc)
		return rc;
	s->top_k = top_k > 0 ? top_k : 0;
	if (model->variant) {
		s->temperature = model->variant->temperature;
		s->top_p = model->variant->top_p;
	}
	return RUV_OK;
}

/* Which rows of the head a sampler may choose: tokens that exist and are no padding. Without a tokenizer, all of them. */
static int make_sample_mask(ruv_model *model, ruv_error *err)
{
	int n = model->hp.n_vocab;
	model->may_sample = malloc((size_t)n * sizeof *model->may_sample);
	if (!model->may_sample)
		return ruv_fail_memory(err, where, (size_t)n);
	for (int i = 0; i < n; i++)
		model->may_sample[i] = !model->vocab || ruv_vocab_may_sample(model->vocab, i);
	return RUV_OK;
}

static int open_weights(ruv_model *model, const ruv_model_options *options, ruv_error *err)
{
	int rc = RUV_OK;
	model->engine = options->engine ? engine_hold(options->engine) : NULL;
	if (!model->engine)
		rc = ruv_engine_open(&model->engine, options->n_threads, err);
	if (rc)
		return rc;
	ruv_engine_lock(model->engine);
	rc = ruv_weights_bind(&model->weights, &model->hp, model->gguf, ruv_engine_backend(model->engine), err);
	ruv_engine_unlock(model->engine);
	if (rc)
		return rc;
	const int dim = ruv_forward_embedding_dim(&model->hp, &model->weights);
	uint32_t said = (uint32_t)dim;
	rc = ruv_gguf_opt_u32(model->gguf, "ruvllm.embed.dimension", &said, err);
	if (rc)
		return rc;
	if (said != (uint32_t)dim)
		return ruv_fail(err, RUV_EFORMAT, where,
		                "key 'ruvllm.embed.dimension' is %u, but the model's embeddings have %d elements", said, dim);
	return make_sample_mask(model, err);
}

static int open_all(ruv_model *model, const char *path, const ruv_model_options *options, ruv_error *err)
{
	int rc = ruv_gguf_open(&model->gguf, path, 0, err);
	if (rc)
		return rc;
	const ruv_gguf *gguf = model->gguf;
	if (!options->vocab_only && (rc = ruv_hparams_read(&model->hp, gguf, err)))
		return rc;
	if ((rc = opt_text(&model->name, gguf, "general.name", err)) ||
	    (rc = opt_text(&model->architecture, gguf, "general.architecture", err)) ||
	    (rc = opt_text(&model->query_prefix, gguf, "ruvllm.embed.query_prefix", err)) ||
	    (rc = opt_text(&model->passage_prefix, gguf, "ruvllm.embed.passage_prefix", err)))
		return rc;
	uint32_t type = UINT32_MAX;
	if ((rc = ruv_gguf_opt_u32(gguf, "general.file_type", &type, err)))
		return rc;
	model->file_type = strdup(file_type_name(type));
	model->path = strdup(path);
	if (!model->file_type || !model->path)
		return ruv_fail_memory(err, where, strlen(path));
	if ((rc = ruv_vocab_load(&model->vocab, gguf, err)) || (rc = ruv_chat_load(&model->chat, gguf, model->vocab, err)) ||
	    (rc = read_sampling(model, err)))
		return rc;
	if (options->vocab_only)
		return RUV_OK;
	if (model->vocab && ruv_vocab_n_tokens(model->vocab) > (size_t)model->hp.n_vocab)
		return ruv_fail(err, RUV_EFORMAT, where,
		                "key 'tokenizer.ggml.tokens' has %zu tokens, but token_embd.weight has %d rows",
		                ruv_vocab_n_tokens(model->vocab), model->hp.n_vocab);
	return open_weights(model, options, err);
}

int ruv_model_open(ruv_model **out, const char *path, const ruv_model_options *options, ruv_error *err)
{
	const ruv_model_options defaults = {0};
	*out = NULL;
	options = options ? options : &defaults;
	if (!path || !*path)
		return ruv_fail(err, RUV_EINVAL, where, "no model file was named");
	if (options->n_batch < 0 || options->n_batch > MAX_BATCH)
		return ruv_fail(err, RUV_EINVAL, where, "n_batch is %d, which is outside 0..%d", options->n_batch, (int)MAX_BATCH);
	const ruv_variant *variant = ruv_variant_find(options->variant);
	if (options->variant && *options->variant && !variant)
		return ruv_fail(err, RUV_EINVAL, where, "there is no variant '%s'; the variants are base, coder and agent",
		                options->variant);
	ruv_model *model = calloc(1, sizeof *model);
	if (!model)
		return ruv_fail_memory(err, where, sizeof *model);
	model->n_refs = 1;
	model->variant = variant;
	model->n_batch = options->n_batch ? options->n_batch : DEFAULT_BATCH;
	int rc = open_all(model, path, options, err);
	if (rc) {
		if (model->gguf) /* the reader names the path itself */
			ruv_error_prefix(err, rc, "%s: ", path);
		ruv_model_free(model);
		return rc;
	}
	*out = model;
	return RUV_OK;
}

ruv_model *ruv_model_hold(ruv_model *model)
{
	__atomic_add_fetch(&model->n_refs, 1, __ATOMIC_RELAXED);
	return model;
}

void ruv_model_free(ruv_model *model)
{
	if (!model || __atomic_sub_fetch(&model->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	if (model->grammars)
		model->free_grammars(model->grammars);
	if (model->engine)
		ruv_engine_lock(model->engine);
	ruv_workspace_release(&model->workspace);
	ruv_weights_release(&model->weights);
	if (model->engine)
		ruv_engine_unlock(model->engine);
	ruv_engine_free(model->engine);
	ruv_hparams_release(&model->hp);
	ruv_chat_template_free(model->chat);
	ruv_vocab_free(model->vocab);
	ruv_gguf_free(model->gguf);
	free(model->may_sample);
	free(model->path);
	free(model->name);
	free(model->architecture);
	free(model->file_type);
	free(model->query_prefix);
	free(model->passage_prefix);
	free(model);
}

/* ---- running ---- */

int ruv_model_reserve(ruv_model *model, int n_rows, int n_seqs, int n_context, ruv_error *err)
{
	ruv_engine_lock(model->engine);
	int rc = ruv_workspace_reserve(&model->workspace, &model->hp, &model->weights, n_rows, n_seqs, n_context, err);
	ruv_engine_unlock(model->engine);
	return rc;
}

int ruv_model_forward(ruv_model *model, const ruv_forward *forward, ruv_error *err)
{
	ruv_engine_lock(model->engine);
	int rc = ruv_forward_run(&model->hp, &model->weights, &model->workspace, forward, err);
	ruv_engine_unlock(model->engine);
	return rc;
}

uint64_t ruv_model_fingerprint(ruv_model *model)
{
	uint64_t known = __atomic_load_n(&model->fingerprint, __ATOMIC_RELAXED);
	if (known)
		return known;
	const ruv_hparams *hp = &model->hp;
	const int32_t shape[] = {hp->n_layers, hp->hidden,  hp->feed_forward, hp->n_heads, hp->n_kv_heads,
	                         hp->head_dim, hp->n_vocab, hp->n_rot,        hp->causal,  (int32_t)hp->rope_kind};
	uint64_t h = ruv_hash64(shape, sizeof shape, 0x72757673ull);
	h = ruv_hash64(hp->rope_frequency, (size_t)(hp->n_rot / 2) * sizeof(float), h);
	for (size_t i = 0; i < ruv_gguf_n_tensors(model->gguf); i++) {
		const ruv_gguf_tensor *t = ruv_gguf_tensor_at(model->gguf, i);
		h = ruv_hash64(t->name, strlen(t->name), h);
		h = ruv_hash64(&t->dtype, sizeof t->dtype, h);
		h = ruv_hash64(t->ne, sizeof t->ne, h);
		size_t n = t->n_bytes < 2048 ? t->n_bytes : 2048;
		h = ruv_hash64(t->data, n, h);
		h = ruv_hash64((const char *)t->data + (t->n_bytes - n), n, h);
	}
	h = h ? h : 1;
	__atomic_store_n(&model->fingerprint, h, __ATOMIC_RELAXED);
	return h;
}

/* ---- asking ---- */

void ruv_model_get_info(const ruv_model *model, ruv_model_info *info)
{
	const ruv_hparams *hp = &model->hp;
	*info = (ruv_model_info){
	    .path = model->path,
	    .name = model->name,
	    .architecture = model->architecture,
	    .file_type = model->file_type,
	    .variant = model->variant ? model->variant->name : "",
	    .n_params = model->weights.n_params,
	    .n_bytes = model->weights.n_bytes,
	    .n_layers = hp->n_layers,
	    .n_attention_layers = hp->n_attention,
	    .n_conv_layers = hp->n_conv,
	    .hidden_size = hp->hidden,
	    .feed_forward_size = hp->feed_forward,
	    .n_heads = hp->n_heads,
	    .n_kv_heads = hp->n_kv_heads,
	    .head_dim = hp->head_dim,
	    .n_vocab = hp->n_vocab,
	    .n_tokens = model->vocab ? (int)ruv_vocab_n_tokens(model->vocab) : 0,
	    .n_ctx_train = hp->n_ctx_train,
	    .embedding_dim = hp->arch ? ruv_forward_embedding_dim(hp, &model->weights) : 0,
	    .is_encoder = hp->arch && !hp->causal,
	    .has_tokenizer = model->vocab != NULL,
	    .has_chat_template = model->chat != NULL,
	    .query_prefix = model->query_prefix,
	    .passage_prefix = model->passage_prefix,
	    .kv_bytes_per_token = (size_t)hp->n_attention * 2 * (size_t)hp->n_kv_heads * (size_t)hp->head_dim * 2,
	    .state_bytes = (size_t)hp->n_conv * 2 * (size_t)hp->hidden * sizeof(float),
	};
}

int ruv_model_get_meta(const ruv_model *model, const char *key, char *text, size_t cap)
{
	const ruv_gguf_key *k = ruv_gguf_find_key(model->gguf, key);
	ruv_gguf_str s;
	uint64_t u;
	int32_t i;
	float f;
	bool b;
	if (cap)
		text[0] = 0;
	if (!k)
		return RUV_ENOTFOUND;
	if (k->type == RUV_GGUF_ARRAY)
		return snprintf(text, cap, "[%llu elements]", (unsigned long long)k->array.n);
	if (ruv_gguf_get_str(model->gguf, key, &s, NULL) == RUV_OK)
		return snprintf(text, cap, "%.*s", (int)(s.len > INT32_MAX ? INT32_MAX : s.len), s.data);
	if (k->type == RUV_GGUF_BOOL && ruv_gguf_get_bool(model->gguf, key, &b, NULL) == RUV_OK)
		return snprintf(text, cap, "%s", b ? "true" : "false");
	if (ruv_gguf_get_u64(model->gguf, key, &u, NULL) == RUV_OK)
		return snprintf(text, cap, "%llu", (unsigned long long)u);
	if (ruv_gguf_get_i32(model->gguf, key, &i, NULL) == RUV_OK)
		return snprintf(text, cap, "%d", i);
	if (ruv_gguf_get_f32(model->gguf, key, &f, NULL) == RUV_OK)
		return snprintf(text, cap, "%g", (double)f);
	return RUV_ENOTFOUND;
}

void ruv_model_default_sampling(const ruv_model *model, ruv_sampling *sampling)
{
	*sampling = model->sampling;
}

/* ---- tokens ---- */

void ruv_token_list_release(ruv_token_list *list)
{
	free(list->ids);
	*list = (ruv_token_list){0};
}

/* The public list grows as the text layer's: the same memory, counted in int. */
static ruv_tokens borrow_list(const ruv_token_list *list)
{
	return (ruv_tokens){.ids = list->ids, .n = (size_t)list->n, .cap = (size_t)list->cap, .max = INT32_MAX / 4};
}

static void return_list(ruv_token_list *list, const ruv_tokens *tokens)
{
	list->ids = tokens->ids;
	list->n = (int)tokens->n;
	list->cap = (int)tokens->cap;
}

static int need_vocab(const ruv_model *model, ruv_error *err)
{
	return model->vocab ? RUV_OK : ruv_fail(err, RUV_EUNSUPPORTED, where, "%s has no tokenizer", model->path);
}

int ruv_model_tokenize(const ruv_model *model, const char *text, size_t n_bytes, unsigned flags, ruv_token_list *tokens,
                       ruv_error *err)
{
	int rc = need_vocab(model, err);
	if (rc)
		return rc;
	ruv_tokens list = borrow_list(tokens);
	int how = flags & RUV_TOKENIZE_SPECIAL ? RUV_ENCODE_SPECIAL : 0;
	const size_t before = list.n;
	if ((flags & RUV_TOKENIZE_BOS) && ruv_vocab_add_bos(model->vocab) && ruv_vocab_bos(model->vocab) >= 0)
		rc = ruv_tokens_push(&list, ruv_vocab_bos(model->vocab), err);
	if (rc == RUV_OK)
		rc = ruv_vocab_encode(model->vocab, text, n_bytes, how, &list, err);
	if (rc)
		list.n = before;
	return_list(tokens, &list);
	return rc;
}

int ruv_model_detokenize(const ruv_model *model, const ruv_token *tokens, int n, bool special, char **text, ruv_error *err)
{
	*text = NULL;
	int rc = need_vocab(model, err);
	if (rc)
		return rc;
	ruv_buf bytes, clean;
	ruv_utf8_stream stream;
	ruv_buf_init(&bytes, SIZE_MAX / 2);
	ruv_buf_init(&clean, SIZE_MAX / 2);
	ruv_utf8_stream_init(&stream);
	rc = ruv_vocab_decode(model->vocab, tokens, (size_t)(n > 0 ? n : 0), !special, &bytes, err);
	if (rc == RUV_OK && ((rc = ruv_utf8_stream_push(&stream, ruv_buf_cstr(&bytes), bytes.len, &clean)) ||
	                     (rc = ruv_utf8_stream_finish(&stream, &clean)) || (rc = ruv_buf_append(&clean, "", 0))))
		rc = ruv_fail_memory(err, where, bytes.len);
	if (rc == RUV_OK) {
		*text = clean.len ? ruv_buf_take(&clean) : strdup("");
		if (!*text)
			rc = ruv_fail_memory(err, where, bytes.len);
	}
	ruv_buf_release(&bytes);
	ruv_buf_release(&clean);
	return rc;
}

const char *ruv_model_token_bytes(const ruv_model *model, ruv_token token, size_t *n_bytes)
{
	ruv_str s = {NULL, 0};
	if (model->vocab)
		s = ruv_vocab_bytes(model->vocab, token);
	if (n_bytes)
		*n_bytes = s.len;
	return s.data;
}

bool ruv_model_token_is_end(const ruv_model *model, ruv_token token)
{
	return model->vocab && ruv_vocab_is_end(model->vocab, token);
}

ruv_token ruv_model_token_bos(const ruv_model *model)
{
	return model->vocab ? ruv_vocab_bos(model->vocab) : -1;
}

/* ---- chat ---- */

static int parse_json(json_t **out, const char *text, const char *what, ruv_error *err)
{
	json_error_t bad;
	*out = json_loads(text, JSON_REJECT_DUPLICATES, &bad);
	if (!*out)
		return ruv_fail(err, RUV_EINVAL, where, "%s is no valid JSON: line %d, column %d: %s", what, bad.line, bad.column,
		                bad.text);
	if (!json_is_array(*out))
		return ruv_fail(err, RUV_EINVAL, where, "%s must be a JSON array", what);
	return RUV_OK;
}

int ruv_model_chat_tokens(const ruv_model *model, const ruv_message *messages, int n_messages, const char *tools,
                          bool add_generation_prompt, ruv_token_list *tokens, ruv_error *err)
{
	int rc = need_vocab(model, err);
	if (rc)
		return rc;
	if (!model->chat)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s has no chat template", model->path);
	if (n_messages < 0 || (n_messages && !messages))
		return ruv_fail(err, RUV_EINVAL, where, "%d messages", n_messages);
	const size_t n = (size_t)n_messages;
	ruv_chat_message *list = calloc(n + 1, sizeof *list);
	json_t **calls = calloc(n + 1, sizeof(json_t *)), *tool_list = NULL;
	if (!list || !calls) {
		rc = ruv_fail_memory(err, where, n * sizeof *list);
		goto done;
	}
	if (tools && *tools && (rc = parse_json(&tool_list, tools, "the list of tools", err)))
		goto done;
	for (size_t i = 0; i < n; i++) {
		if (messages[i].tool_calls && (rc = parse_json(&calls[i], messages[i].tool_calls, "a message's tool_calls", err)))
			goto done;
		list[i] = (ruv_chat_message){.role = messages[i].role,
		                             .content = messages[i].content,
		                             .tool_calls = calls[i],
		                             .tool_call_id = messages[i].tool_call_id,
		                             .name = messages[i].tool_name};
	}
	const ruv_chat_input input = {
	    .messages = list, .n_messages = n, .tools = tool_list, .add_generation_prompt = add_generation_prompt};
	ruv_tokens ids = borrow_list(tokens);
	rc = ruv_chat_template_encode(model->chat, model->vocab, &input, &ids, err);
	return_list(tokens, &ids);
done:
	for (size_t i = 0; calls && i < n; i++)
		json_decref(calls[i]);
	json_decref(tool_list);
	free(calls);
	free(list);
	return rc;
}
