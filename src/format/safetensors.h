/* safetensors.h - reading Hugging Face weights: one model.safetensors, or shards named by model.safetensors.index.json.
 *
 * The bytes of a file: u64 little-endian n | n bytes of JSON {"name": {"dtype": "BF16", "shape": [..], "data_offsets": [a, b]},
 * "__metadata__": {..}} | data. Offsets count from the first data byte. Shapes have the slowest dimension first, the reverse of
 * GGUF's ne. Checked: header size, offsets in the file, sizes that agree with shape and dtype, no overlap, no holes at the end,
 * no tensor twice, and for shards that the index and the files agree.
 *
 * Weights are F32, F16 or BF16; other types are listed with their name and refused only when somebody asks to read them.
 * Lifetime: tensor data are views of the maps. Threads: any number of readers once open. Layer: format. */
#ifndef RUV_FORMAT_SAFETENSORS_H
#define RUV_FORMAT_SAFETENSORS_H

#include "ruvllm/types.h"
#include "tensor/dtype.h"

typedef struct ruv_safetensors ruv_safetensors;

typedef struct ruv_safetensors_tensor {
	const char *name;      /* NUL-terminated */
	const char *type_name; /* as the file says it: "BF16", "I64", ... */
	int dtype;             /* RUV_F32, RUV_F16, RUV_BF16, or -1 for what is no weight type here */
	int n_dims;            /* 0..8 */
	int64_t shape[8];      /* slowest first */
	int64_t n_elements;
	const void *data; /* may be unaligned */
	size_t n_bytes;
} ruv_safetensors_tensor;

/* path: a directory (model.safetensors or model.safetensors.index.json in it) or one .safetensors file. */
int ruv_safetensors_open(ruv_safetensors **out, const char *path, ruv_error *err);
/* One file's bytes, which outlive the object. */
int ruv_safetensors_open_memory(ruv_safetensors **out, const void *bytes, size_t n_bytes, ruv_error *err);
void ruv_safetensors_free(ruv_safetensors *st);

size_t ruv_safetensors_n_tensors(const ruv_safetensors *st);
/* Sorted by name. */
const ruv_safetensors_tensor *ruv_safetensors_at(const ruv_safetensors *st, size_t i);
/* NULL when there is none. */
const ruv_safetensors_tensor *ruv_safetensors_find(const ruv_safetensors *st, const char *name);

#endif
