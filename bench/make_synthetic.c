/* make_synthetic.c - writes full-size GGUF models with random weights, to measure speed without the real ones.
 *
 *     make_synthetic MODEL TYPE OUT.gguf       make_synthetic lfm2-1.2b Q4_K_M /tmp/lfm2-1.2b.gguf
 *
 * Shapes, tensor types and vocabulary size are those of the published models; weights are random blocks with scales that keep
 * activations finite, so that time and memory traffic are those of the real file. Tokens are dummies of the right number, with the
 * byte alphabet and the special tokens at their places, so that other runtimes load the file too. What comes out is no language
 * model. Random bits come from splitmix64 (Steele et al. 2014), so that writing runs at the disk's speed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/status.h"
#include "format/gguf_write.h"
#include "format/quantize.h"
#include "tensor/half.h"

typedef struct shape {
	const char *name, *arch, *title;
	int hidden, n_layers, n_heads, n_kv_heads, head_dim, feed_forward, vocab, context;
	float eps, theta;
	bool tied;
	const int *attention; /* LFM2: attention layers, ended by -1; NULL: all */
} shape;

static const int lfm2_16[] = {2, 5, 8, 10, 12, 14, -1}, lfm2_30[] = {2, 5, 9, 13, 17, 21, 24, 27, -1};

static const shape shapes[] = {
    {"lfm2-350m", "lfm2", "LFM2 350M", 1024, 16, 16, 8, 64, 4608, 65536, 32768, 1e-5f, 1e6f, true, lfm2_16},
    {"lfm2-700m", "lfm2", "LFM2 700M", 1536, 16, 24, 8, 64, 6912, 65536, 32768, 1e-5f, 1e6f, true, lfm2_16},
    {"lfm2-1.2b", "lfm2", "LFM2 1.2B", 2048, 16, 32, 8, 64, 8192, 65536, 32768, 1e-5f, 1e6f, true, lfm2_16},
    {"lfm2-2.6b", "lfm2", "LFM2 2.6B", 2048, 30, 32, 8, 64, 10752, 65536, 32768, 1e-5f, 1e6f, true, lfm2_30},
    {"qwen2.5-0.5b", "qwen2", "Qwen2.5 0.5B", 896, 24, 14, 2, 64, 4864, 151936, 32768, 1e-6f, 1e6f, true, NULL},
    {"qwen2.5-1.5b", "qwen2", "Qwen2.5 1.5B", 1536, 28, 12, 2, 128, 8960, 151936, 32768, 1e-6f, 1e6f, true, NULL},
    {"qwen2.5-3b", "qwen2", "Qwen2.5 3B", 2048, 36, 16, 2, 128, 11008, 151936, 32768, 1e-6f, 1e6f, true, NULL},
    {"qwen2.5-7b", "qwen2", "Qwen2.5 7B", 3584, 28, 28, 4, 128, 18944, 152064, 32768, 1e-6f, 1e6f, false, NULL},
};

typedef struct planned {
	char name[64];
	ruv_dtype dtype;
	int n_dims;
	int64_t ne[2];
	float centre, spread; /* of the values: norms are around 1 */
} planned;

typedef struct model {
	const shape *s;
	ruv_recipe recipe;
	ruv_recipe_model recipe_model;
	ruv_gguf_writer *writer;
	planned *tensors;
	size_t n, cap;
	int i_attention;
	uint64_t state;
} model;

static uint64_t next(model *m)
{
	uint64_t z = m->state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* ---- blocks ---- */

/* Scales and minima of Q4_K and Q5_K, both the same six bits: then x = d * scale * (q - middle). */
static void pack_scales(unsigned char out[12], uint64_t r)
{
	unsigned char v[8];
	for (int i = 0; i < 8; i++)
		v[i] = (unsigned char)(32 + (r >> (5 * i) & 31));
	for (int i = 0; i < 4; i++) {
		out[i] = out[4 + i] = (unsigned char)((v[i] & 63) | (v[i + 4] >> 4) << 6);
		out[8 + i] = (unsigned char)((v[i + 4] & 15) | (v[i + 4] & 15) << 4);
	}
}

/* One block of random codes whose values have about the standard deviation `spread`. */
static void fill_block(model *m, ruv_dtype dtype, unsigned char *b, size_t n_bytes, float spread)
{
	uint16_t h;
	for (size_t i = 0; i < n_bytes; i += 8) {
		uint64_t r = next(m);
		memcpy(b + i, &r, n_bytes - i < 8 ? n_bytes - i : 8);
	}
	switch (dtype) {
	case RUV_Q4_0:
	case RUV_Q4_1:
		h = ruv_f32_to_f16(spread / 4.6f);
		memcpy(b, &h, 2);
		if (dtype == RUV_Q4_1) {
			h = ruv_f32_to_f16(-7.5f * spread / 4.6f);
			memcpy(b + 2, &h, 2);
		}
		break;
	case RUV_Q5_0:
	case RUV_Q5_1:
		h = ruv_f32_to_f16(spread / 9.2f);
		memcpy(b, &h, 2);
		if (dtype == RUV_Q5_1) {
			h = ruv_f32_to_f16(-15.5f * spread / 9.2f);
			memcpy(b + 2, &h, 2);
		}
		break;
	case RUV_Q8_0:
		h = ruv_f32_to_f16(spread / 74);
		memcpy(b, &h, 2);
		break;
	case RUV_Q4_K:
	case RUV_Q5_K: {
		float d = spread / (48 * (dtype == RUV_Q4_K ? 4.6f : 9.2f));
		h = ruv_f32_to_f16(d);
		memcpy(b, &h, 2);
		h = ruv_f32_to_f16(d * (dtype == RUV_Q4_K ? 7.5f : 15.5f));
		memcpy(b + 2, &h, 2);
		pack_scales(b + 4, next(m));
		break;
	}
	case RUV_Q6_K:
		for (int i = 0; i < 16; i++)
			b[192 + i] = (unsigned char)(32 + (b[192 + i] & 31));
		h = ruv_f32_to_f16(spread / (48 * 18.5f));
		memcpy(b + 208, &h, 2);
		break;
	default:
		break;
	}
}

static void fill_floats(model *m, const planned *t, unsigned char *out, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		/* Uniform with the wanted deviation. */
		float x = t->centre + t->spread * 3.4641f * ((float)(next(m) >> 40) / 16777216.0f - 0.5f);
		uint32_t bits;
		uint16_t h;
		memcpy(&bits, &x, 4);
		switch (t->dtype) {
		case RUV_F32:
			memcpy(out + 4 * i, &x, 4);
			break;
		case RUV_F16:
			h = ruv_f32_to_f16(x);
			memcpy(out + 2 * i, &h, 2);
			break;
		default:
			h = (uint16_t)(bits >> 16);
			memcpy(out + 2 * i, &h, 2);
		}
	}
}

/* ---- the model ---- */

static void add(model *m, const char *name, int n_dims, int64_t ne0, int64_t ne1, float centre, float spread)
{
	if (m->n == m->cap) {
		m->cap = m->cap ? m->cap * 2 : 512;
		m->tensors = realloc(m->tensors, m->cap * sizeof *m->tensors);
		if (!m->tensors)
			abort();
	}
	planned *t = &m->tensors[m->n++];
	*t = (planned){.n_dims = n_dims, .ne = {ne0, ne1}, .centre = centre, .spread = spread};
	snprintf(t->name, sizeof t->name, "%s", name);
	t->dtype =
	    ruv_recipe_dtype(m->recipe, &m->recipe_model, name, n_dims, (int64_t[]){ne0, ne1, 1, 1}, m->i_attention, false, NULL);
	ruv_gguf_add_tensor(m->writer, t->name, t->dtype, n_dims, t->ne);
}

static void add_layer_tensor(model *m, int layer, const char *name, int n_dims, int64_t ne0, int64_t ne1, float centre)
{
	char full[64];
	snprintf(full, sizeof full, "blk.%d.%s", layer, name);
	add(m, full, n_dims, ne0, ne1, centre, centre > 0 ? 0.05f : n_dims == 1 ? 0.1f : 1 / sqrtf((float)ne0));
}

static bool is_attention(const shape *s, int layer)
{
	if (!s->attention)
		return true;
	for (const int *p = s->attention; *p >= 0; p++)
		if (*p == layer)
			return true;
	return false;
}

static void plan_tensors(model *m)
{
	const shape *s = m->s;
	int64_t d = s->hidden, q = (int64_t)s->n_heads * s->head_dim, kv = (int64_t)s->n_kv_heads * s->head_dim;
	bool lfm2 = s->attention != NULL;

	m->recipe_model = (ruv_recipe_model){.n_layers = s->n_layers, .tied = s->tied};
	for (int i = 0; i < s->n_layers; i++)
		m->recipe_model.n_attention += is_attention(s, i);
	add(m, "token_embd.weight", 2, d, s->vocab, 0, 0.02f);
	add(m, lfm2 ? "token_embd_norm.weight" : "output_norm.weight", 1, d, 1, 1, 0.05f);
	if (!s->tied)
		add(m, "output.weight", 2, d, s->vocab, 0, 0.02f);
	for (int i = 0; i < s->n_layers; i++) {
		add_layer_tensor(m, i, "attn_norm.weight", 1, d, 1, 1);
		add_layer_tensor(m, i, "ffn_norm.weight", 1, d, 1, 1);
		add_layer_tensor(m, i, "ffn_gate.weight", 2, d, s->feed_forward, 0);
		add_layer_tensor(m, i, "ffn_up.weight", 2, d, s->feed_forward, 0);
		add_layer_tensor(m, i, "ffn_down.weight", 2, s->feed_forward, d, 0);
		if (!is_attention(s, i)) {
			add_layer_tensor(m, i, "shortconv.conv.weight", 2, 3, d, 0);
			add_layer_tensor(m, i, "shortconv.in_proj.weight", 2, d, 3 * d, 0);
			add_layer_tensor(m, i, "shortconv.out_proj.weight", 2, d, d, 0);
			continue;
		}
		add_layer_tensor(m, i, "attn_q.weight", 2, d, q, 0);
		add_layer_tensor(m, i, "attn_k.weight", 2, d, kv, 0);
		add_layer_tensor(m, i, "attn_v.weight", 2, d, kv, 0);
		add_layer_tensor(m, i, "attn_output.weight", 2, q, d, 0);
		m->i_attention++;
		if (lfm2) {
			add_layer_tensor(m, i, "attn_q_norm.weight", 1, s->head_dim, 1, 1);
			add_layer_tensor(m, i, "attn_k_norm.weight", 1, s->head_dim, 1, 1);
		} else {
			add_layer_tensor(m, i, "attn_q.bias", 1, q, 1, 0);
			add_layer_tensor(m, i, "attn_k.bias", 1, kv, 1, 0);
			add_layer_tensor(m, i, "attn_v.bias", 1, kv, 1, 0);
		}
	}
}

/* The letter that stands for a byte in byte-level BPE, as UTF-8. */
static int byte_letter(int byte, char *text)
{
	int letter = byte, n = 0;
	bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
	if (!printable) {
		for (int b = 0; b < byte; b++)
			n += !((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174);
		letter = 256 + n;
	}
	if (letter < 0x80) {
		text[0] = (char)letter;
		text[1] = '\0';
		return 1;
	}
	text[0] = (char)(0xc0 | letter >> 6);
	text[1] = (char)(0x80 | (letter & 63));
	text[2] = '\0';
	return 2;
}

static void set_tokens(model *m)
{
	static const char *const lfm2_specials[] = {"<|pad|>",
	                                            "<|startoftext|>",
	                                            "<|endoftext|>",
	                                            "<|fim_pre|>",
	                                            "<|fim_mid|>",
	                                            "<|fim_suf|>",
	                                            "<|im_start|>",
	                                            "<|im_end|>",
	                                            "<|tool_list_start|>",
	                                            "<|tool_list_end|>",
	                                            "<|tool_call_start|>",
	                                            "<|tool_call_end|>",
	                                            "<|tool_response_start|>",
	                                            "<|tool_response_end|>"};
	static const char *const qwen_specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
	static const char *const merges[] = {"a b", "c d"};
	const shape *s = m->s;
	bool lfm2 = s->attention != NULL;
	int first_byte = lfm2 ? 14 : 0, n = s->vocab, n_special = lfm2 ? 14 : 3, first_special = lfm2 ? 0 : 151643;
	char(*text)[24] = calloc((size_t)n, sizeof *text);
	ruv_gguf_str *tokens = calloc((size_t)n, sizeof *tokens), pairs[2];
	int32_t *types = calloc((size_t)n, sizeof *types);

	if (!text || !tokens || !types)
		abort();
	for (int i = 0; i < n; i++) {
		const char *special = i >= first_special && i < first_special + n_special
		                          ? (lfm2 ? lfm2_specials : qwen_specials)[i - first_special]
		                          : NULL;
		types[i] = special ? 3 : 1;
		if (special)
			snprintf(text[i], sizeof text[i], "%s", special);
		else if (i >= first_byte && i < first_byte + 256)
			byte_letter(i - first_byte, text[i]);
		else if (i == first_byte + 256 || i == first_byte + 257)
			snprintf(text[i], sizeof text[i], "%s", i == first_byte + 256 ? "ab" : "cd");
		else
			snprintf(text[i], sizeof text[i], "dummy%d", i);
		tokens[i] = (ruv_gguf_str){text[i], strlen(text[i])};
	}
	for (int i = 0; i < 2; i++)
		pairs[i] = (ruv_gguf_str){merges[i], 3};
	ruv_gguf_set_str(m->writer, "tokenizer.ggml.model", "gpt2");
	ruv_gguf_set_str(m->writer, "tokenizer.ggml.pre", s->arch);
	ruv_gguf_set_str_array(m->writer, "tokenizer.ggml.tokens", tokens, (size_t)n);
	ruv_gguf_set_array(m->writer, "tokenizer.ggml.token_type", RUV_GGUF_I32, types, (size_t)n);
	ruv_gguf_set_str_array(m->writer, "tokenizer.ggml.merges", pairs, 2);
	ruv_gguf_set_u32(m->writer, "tokenizer.ggml.eos_token_id", lfm2 ? 7 : 151645);
	ruv_gguf_set_u32(m->writer, "tokenizer.ggml.bos_token_id", lfm2 ? 1 : 151643);
	ruv_gguf_set_u32(m->writer, "tokenizer.ggml.padding_token_id", lfm2 ? 0 : 151643);
	ruv_gguf_set_bool(m->writer, "tokenizer.ggml.add_bos_token", lfm2);
	free(text);
	free(tokens);
	free(types);
}

static void set_keys(model *m)
{
	const shape *s = m->s;
	char key[64];
	int32_t kv[64];
	static const struct {
		ruv_recipe recipe;
		uint32_t file_type;
	} file_types[] = {
#define X(c, text, file_type, dtype) {c, file_type},
	    RUV_RECIPE_LIST(X)
#undef X
	};
#define KEY(name) (snprintf(key, sizeof key, "%s.%s", s->arch, name), key)
	ruv_gguf_set_str(m->writer, "general.architecture", s->arch);
	ruv_gguf_set_str(m->writer, "general.type", "model");
	snprintf(key, sizeof key, "%s with random weights", s->title);
	ruv_gguf_set_str(m->writer, "general.name", key);
	ruv_gguf_set_u32(m->writer, "general.file_type", file_types[m->recipe].file_type);
	ruv_gguf_set_u32(m->writer, "general.quantization_version", 2);
	ruv_gguf_set_str(m->writer, "ruvllm.recipe", ruv_recipe_name(m->recipe));
	ruv_gguf_set_u32(m->writer, KEY("block_count"), (uint32_t)s->n_layers);
	ruv_gguf_set_u32(m->writer, KEY("context_length"), (uint32_t)s->context);
	ruv_gguf_set_u32(m->writer, KEY("embedding_length"), (uint32_t)s->hidden);
	ruv_gguf_set_u32(m->writer, KEY("feed_forward_length"), (uint32_t)s->feed_forward);
	ruv_gguf_set_u32(m->writer, KEY("vocab_size"), (uint32_t)s->vocab);
	ruv_gguf_set_u32(m->writer, KEY("attention.head_count"), (uint32_t)s->n_heads);
	ruv_gguf_set_f32(m->writer, KEY("attention.layer_norm_rms_epsilon"), s->eps);
	ruv_gguf_set_f32(m->writer, KEY("rope.freq_base"), s->theta);
	if (s->attention) {
		for (int i = 0; i < s->n_layers; i++)
			kv[i] = is_attention(s, i) ? s->n_kv_heads : 0;
		ruv_gguf_set_array(m->writer, KEY("attention.head_count_kv"), RUV_GGUF_I32, kv, (size_t)s->n_layers);
		ruv_gguf_set_u32(m->writer, KEY("shortconv.l_cache"), 3);
	} else {
		ruv_gguf_set_u32(m->writer, KEY("attention.head_count_kv"), (uint32_t)s->n_kv_heads);
	}
#undef KEY
	set_tokens(m);
}

static int write_tensor(model *m, const planned *t, ruv_error *err)
{
	enum { CHUNK_BLOCKS = 4096 };
	static unsigned char buffer[CHUNK_BLOCKS * 256];
	int64_t n = t->ne[0] * t->ne[1];
	size_t block_bytes = (size_t)ruv_dtype_block_bytes(t->dtype);
	int64_t blocks = n / ruv_dtype_block_elements(t->dtype);
	bool plain = t->dtype == RUV_F32 || t->dtype == RUV_F16 || t->dtype == RUV_BF16;

	for (int64_t at = 0; at < blocks; at += CHUNK_BLOCKS) {
		int64_t count = blocks - at < CHUNK_BLOCKS ? blocks - at : CHUNK_BLOCKS;
		if (plain)
			fill_floats(m, t, buffer, count);
		else
			for (int64_t i = 0; i < count; i++)
				fill_block(m, t->dtype, buffer + (size_t)i * block_bytes, block_bytes, t->spread);
		int rc = ruv_gguf_writer_data(m->writer, buffer, (size_t)count * block_bytes, err);
		if (rc)
			return rc;
	}
	return RUV_OK;
}

static int usage(void)
{
	fprintf(stderr, "usage: make_synthetic MODEL TYPE OUT.gguf\nMODEL:");
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		fprintf(stderr, " %s", shapes[i].name);
	fprintf(stderr, "\nTYPE: %s\n", ruv_recipe_names());
	return 2;
}

int main(int argc, char **argv)
{
	model m = {.state = 1};
	ruv_error err = {0};
	int recipe, rc;
	int64_t start = ruv_clock_now_ns();

	if (argc != 4)
		return usage();
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		if (!strcasecmp(shapes[i].name, argv[1]))
			m.s = &shapes[i];
	recipe = ruv_recipe_parse(argv[2]);
	if (!m.s || recipe < 0)
		return usage();
	m.recipe = (ruv_recipe)recipe;
	rc = ruv_gguf_writer_create(&m.writer, &err);
	if (rc)
		goto done;
	set_keys(&m);
	plan_tensors(&m);
	rc = ruv_gguf_writer_begin(m.writer, argv[3], &err);
	for (size_t i = 0; i < m.n && !rc; i++)
		rc = write_tensor(&m, &m.tensors[i], &err);
	if (!rc)
		rc = ruv_gguf_writer_finish(m.writer, &err);
	if (!rc) {
		uint64_t n_params = 0;
		for (size_t i = 0; i < m.n; i++)
			n_params += (uint64_t)(m.tensors[i].ne[0] * m.tensors[i].ne[1]);
		printf("%s: %s %s, %llu parameters, %llu bytes in %.1f s\n", argv[3], m.s->title, ruv_recipe_name(m.recipe),
		       (unsigned long long)n_params, (unsigned long long)ruv_gguf_writer_file_bytes(m.writer),
		       (double)(ruv_clock_now_ns() - start) / 1e9);
	}
done:
	if (rc)
		fprintf(stderr, "make_synthetic: %s\n", err.message);
	ruv_gguf_writer_free(m.writer);
	free(m.tensors);
	return rc ? 1 : 0;
}
