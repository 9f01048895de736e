/* vocab_load.c - a GGUF file's tokenizer and chat template, handed to the text layer.
 *
 * Keys: tokenizer.ggml.{model,pre,tokens,token_type,merges}, tokenizer.ggml.{bos,eos,eot,padding,unknown}_token_id,
 * tokenizer.ggml.{add_bos_token,add_eos_token,ignore_merges}, tokenizer.chat_template. The only kind is "gpt2" (byte-level BPE); a
 * file whose kind is "no_vocab", or that has no such key, has no tokenizer and can be run with token ids alone. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "model/object.h"

static const char where[] = "tokenizer";

static int read_strings(const ruv_gguf *gguf, const char *key, ruv_str **out, size_t *n, ruv_error *err)
{
	ruv_gguf_array array;
	int rc = ruv_gguf_get_array(gguf, key, &array, err);
	if (rc)
		return rc == RUV_ENOTFOUND ? ruv_fail(err, RUV_EFORMAT, where, "key '%s' is missing", key) : rc;
	if (array.type != RUV_GGUF_STRING)
		return ruv_fail(err, RUV_EFORMAT, where, "key '%s' is an array of %s, expected strings", key,
		                ruv_gguf_type_name(array.type));
	if (array.n > RUV_MAX_VOCAB * 4ull)
		return ruv_fail(err, RUV_ELIMIT, where, "key '%s' has %llu elements", key, (unsigned long long)array.n);
	ruv_str *strings = malloc((array.n + 1) * sizeof *strings);
	if (!strings)
		return ruv_fail_memory(err, where, (array.n + 1) * sizeof *strings);
	size_t cursor = 0, i = 0;
	ruv_gguf_str s;
	while (i < array.n && ruv_gguf_array_next_str(&array, &cursor, &s))
		strings[i++] = (ruv_str){s.data, s.len};
	*out = strings;
	*n = i;
	return RUV_OK;
}

static int read_types(const ruv_gguf *gguf, size_t n_tokens, int32_t **out, ruv_error *err)
{
	static const char key[] = "tokenizer.ggml.token_type";
	ruv_gguf_array array;
	if (!ruv_gguf_find_key(gguf, key))
		return RUV_OK;
	int rc = ruv_gguf_get_array(gguf, key, &array, err);
	if (rc)
		return rc;
	if (array.n != n_tokens)
		return ruv_fail(err, RUV_EFORMAT, where, "key '%s' has %llu elements for %zu tokens", key,
		                (unsigned long long)array.n, n_tokens);
	int32_t *types = malloc((n_tokens + 1) * sizeof *types);
	if (!types)
		return ruv_fail_memory(err, where, (n_tokens + 1) * sizeof *types);
	for (size_t i = 0; i < n_tokens; i++) {
		int64_t v = 0;
		rc = ruv_gguf_array_i64(&array, i, &v, err);
		if (rc == RUV_OK && (v < 0 || v > RUV_TOKEN_BYTE))
			rc = ruv_fail(err, RUV_EFORMAT, where, "key '%s' says %lld for token %zu", key, (long long)v, i);
		if (rc) {
			free(types);
			return rc;
		}
		types[i] = v ? (int32_t)v : RUV_TOKEN_NORMAL; /* 0: the writer did not say */
	}
	*out = types;
	return RUV_OK;
}

/* A token id key: must be a token when it is there. Some files write 2^32 - 1 for none. */
static int read_id(const ruv_gguf *gguf, const char *key, size_t n_tokens, ruv_token *id, ruv_error *err)
{
	uint32_t v = UINT32_MAX;
	int rc = ruv_gguf_opt_u32(gguf, key, &v, err);
	if (rc || v == UINT32_MAX)
		return rc;
	if (v >= n_tokens)
		return ruv_fail(err, RUV_EFORMAT, where, "key '%s' is %u, but there are %zu tokens", key, v, n_tokens);
	*id = (ruv_token)v;
	return RUV_OK;
}

static int read_switch(const ruv_gguf *gguf, const char *key, int *value, ruv_error *err)
{
	bool on = false;
	if (!ruv_gguf_find_key(gguf, key))
		return RUV_OK;
	int rc = ruv_gguf_get_bool(gguf, key, &on, err);
	if (rc == RUV_OK)
		*value = on;
	return rc;
}

int ruv_vocab_load(ruv_vocab **vocab, const ruv_gguf *gguf, ruv_error *err)
{
	*vocab = NULL;
	ruv_gguf_str kind = {"no_vocab", 8};
	int rc = ruv_gguf_opt_str(gguf, "tokenizer.ggml.model", &kind, err);
	if (rc || ruv_gguf_str_is(kind, "no_vocab") || ruv_gguf_str_is(kind, "none"))
		return rc;
	if (!ruv_gguf_str_is(kind, "gpt2"))
		return ruv_fail(err, RUV_EUNSUPPORTED, where,
		                "key 'tokenizer.ggml.model' is '%.*s'; only gpt2 (byte-level BPE) is supported",
		                (int)(kind.len > 40 ? 40 : kind.len), kind.data);
	ruv_vocab_desc desc;
	ruv_vocab_desc_init(&desc);
	ruv_str *tokens = NULL, *merges = NULL;
	int32_t *types = NULL;
	char *pre = NULL;
	if ((rc = read_strings(gguf, "tokenizer.ggml.tokens", &tokens, &desc.n_tokens, err)) ||
	    (rc = read_strings(gguf, "tokenizer.ggml.merges", &merges, &desc.n_merges, err)) ||
	    (rc = read_types(gguf, desc.n_tokens, &types, err)))
		goto done;
	rc = ruv_gguf_get_cstr(gguf, "tokenizer.ggml.pre", &pre, err);
	if (rc) {
		if (rc == RUV_ENOTFOUND)
			rc = ruv_fail(err, RUV_EFORMAT, where,
			              "key 'tokenizer.ggml.pre' is missing: how to split text is not known");
		goto done;
	}
	desc.tokens = tokens;
	desc.merges = merges;
	desc.types = types;
	desc.pre = pre;
	const struct {
		const char *key;
		ruv_token *id;
	} ids[] = {{"tokenizer.ggml.bos_token_id", &desc.bos},
	           {"tokenizer.ggml.eos_token_id", &desc.eos},
	           {"tokenizer.ggml.eot_token_id", &desc.eot},
	           {"tokenizer.ggml.padding_token_id", &desc.pad},
	           {"tokenizer.ggml.unknown_token_id", &desc.unk}};
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
		if ((rc = read_id(gguf, ids[i].key, desc.n_tokens, ids[i].id, err)))
			goto done;
	if ((rc = read_switch(gguf, "tokenizer.ggml.add_bos_token", &desc.add_bos, err)) ||
	    (rc = read_switch(gguf, "tokenizer.ggml.add_eos_token", &desc.add_eos, err)) ||
	    (rc = read_switch(gguf, "tokenizer.ggml.ignore_merges", &desc.ignore_merges, err)))
		goto done;
	rc = ruv_vocab_create(vocab, &desc, err);
done:
	free(tokens);
	free(merges);
	free(types);
	free(pre);
	return rc;
}

int ruv_chat_load(ruv_chat_template **chat, const ruv_gguf *gguf, const ruv_vocab *vocab, ruv_error *err)
{
	*chat = NULL;
	ruv_gguf_str source = {NULL, 0};
	int rc = ruv_gguf_opt_str(gguf, "tokenizer.chat_template", &source, err);
	if (rc || !source.data || !vocab)
		return rc;
	rc = ruv_chat_template_compile(chat, source.data, source.len, err);
	return rc ? ruv_error_prefix(err, rc, "key 'tokenizer.chat_template': ") : RUV_OK;
}
