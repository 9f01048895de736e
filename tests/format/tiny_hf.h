/* tiny_hf.h - makes a small Hugging Face model directory to convert: config, weights, byte-level tokenizer. Parts may be changed
 * before it is written, so that a test can break one thing at a time. */
#ifndef RUV_TESTS_TINY_HF_H
#define RUV_TESTS_TINY_HF_H

#include <jansson.h>

#include "test.h"

enum { TINY_VOCAB = 300, TINY_HIDDEN = 64, TINY_LAYERS = 3, TINY_HEADS = 2, TINY_KV = 1, TINY_FF = 96, TINY_HEAD_DIM = 32 };

typedef struct tiny_tensor {
	char name[96];
	int n_dims;
	int shape[3];
	uint16_t *bits; /* BF16 */
	size_t n;
} tiny_tensor;

typedef struct tiny_hf {
	char dir[64];
	json_t *config, *tokenizer, *tokenizer_config;
	tiny_tensor tensors[128];
	int n_tensors;
} tiny_hf;

/* family: "lfm2", "encoder" (LFM2, bidirectional, with projection), "qwen2", "qwen3", "llama". Layers of LFM2: conv, attention,
 * conv. */
void tiny_hf_init(tiny_hf *hf, const char *family);
/* Writes everything; a NULL JSON part is left out. Call again after a change. */
void tiny_hf_write(const tiny_hf *hf);
/* Removes the directory. */
void tiny_hf_release(tiny_hf *hf);
tiny_tensor *tiny_hf_find(tiny_hf *hf, const char *name);
void tiny_hf_drop(tiny_hf *hf, const char *name);
tiny_tensor *tiny_hf_add(tiny_hf *hf, const char *name, int n_dims, int a, int b, int c);
/* "DIR/FILE" (static). */
const char *tiny_hf_path(const tiny_hf *hf, const char *file);

/* The letter that stands for a byte in byte-level BPE, as UTF-8. */
void tiny_byte_letter(int byte, char text[3]);

#endif
