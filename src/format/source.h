/* source.h - where a model's tensors come from: a GGUF file, or a Hugging Face directory seen through GGUF's names and shapes.
 *
 * Inside this layer only. A source lists tensors in the order of the output file and can give any rows of one as F32.
 * Lifetime: everything lives as long as the source. Threads: ruv_source_rows from any number at once. Layer: format. */
#ifndef RUV_FORMAT_SOURCE_H
#define RUV_FORMAT_SOURCE_H

#include <jansson.h>

#include "base/arena.h"
#include "format/gguf_write.h"
#include "format/safetensors.h"

typedef struct ruv_source_tensor {
	char name[64]; /* GGUF's */
	int n_dims;
	int64_t ne[4];
	ruv_dtype dtype;      /* of the stored bytes */
	const void *data;     /* rows of ne[0] elements */
	int interleave_heads; /* > 0: rows of each of so many heads go from half-split to interleaved rotary order */
} ruv_source_tensor;

typedef struct ruv_source {
	ruv_source_tensor *tensors;
	size_t n_tensors, cap_tensors;
	int n_layers;

	ruv_arena arena;
	ruv_gguf *gguf;
	ruv_safetensors *st;
} ruv_source;

void ruv_source_init(ruv_source *source);
void ruv_source_release(ruv_source *source);

/* Lists the tensors of the file and copies its keys into the writer. */
int ruv_source_open_gguf(ruv_source *source, const char *path, ruv_gguf_writer *writer, ruv_error *err);
/* Reads config.json, maps every tensor, converts the tokenizer and sets every key. name: general.name or NULL. */
int ruv_source_open_hf(ruv_source *source, const char *dir, const char *name, bool no_tokenizer, ruv_gguf_writer *writer,
                       ruv_error *err);

int64_t ruv_source_n_rows(const ruv_source_tensor *tensor);
/* Rows [first, first + n) as F32 [n, ne[0]]. */
int ruv_source_rows(const ruv_source_tensor *tensor, int64_t first, int64_t n, float *rows, ruv_error *err);

/* ---- shared by the files that read a Hugging Face directory ---- */

/* One tensor more; NULL when memory is out. */
ruv_source_tensor *ruv_source_add(ruv_source *source);

/* Reads DIR/FILE as JSON. When the file is missing: *json = NULL and RUV_OK. */
int ruv_hf_json(json_t **json, const char *dir, const char *file, ruv_error *err);

/* Maps the tensors of one architecture; hf_names.c. */
typedef struct ruv_hf_dims {
	const char *arch; /* GGUF's: "lfm2", "qwen2", "qwen3", "llama" */
	int n_layers, hidden, feed_forward, vocab, head_dim, n_heads, n_conv_taps;
	const int *n_kv_heads; /* [n_layers], 0: a convolution layer */
	bool tied;
	int embed_dim; /* > 0: an encoder with a projection to so many elements */
} ruv_hf_dims;

int ruv_hf_map_tensors(ruv_source *source, const ruv_hf_dims *dims, ruv_error *err);

/* Sets every tokenizer.* key; hf_tokenizer.c. config is config.json, n_vocab the rows of the embedding:
 * ids that the tokenizer lacks become padding tokens. */
int ruv_hf_set_tokenizer(ruv_gguf_writer *writer, const char *dir, const char *arch, json_t *config, int n_vocab, ruv_error *err);

#endif
