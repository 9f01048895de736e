/* dtype.h - element types of tensors and the bytes of their blocks. Ids are GGUF's. Layer: tensor. */
#ifndef RUV_TENSOR_DTYPE_H
#define RUV_TENSOR_DTYPE_H

#include "ruvllm/types.h"

/* name in C, GGUF id, text, elements per block, bytes per block */
#define RUV_DTYPE_LIST(X)                                                                                                          \
	X(RUV_F32, 0, "F32", 1, 4)                                                                                                 \
	X(RUV_F16, 1, "F16", 1, 2)                                                                                                 \
	X(RUV_Q4_0, 2, "Q4_0", 32, 18)                                                                                             \
	X(RUV_Q4_1, 3, "Q4_1", 32, 20)                                                                                             \
	X(RUV_Q5_0, 6, "Q5_0", 32, 22)                                                                                             \
	X(RUV_Q5_1, 7, "Q5_1", 32, 24)                                                                                             \
	X(RUV_Q8_0, 8, "Q8_0", 32, 34)                                                                                             \
	X(RUV_Q4_K, 12, "Q4_K", 256, 144)                                                                                          \
	X(RUV_Q5_K, 13, "Q5_K", 256, 176)                                                                                          \
	X(RUV_Q6_K, 14, "Q6_K", 256, 210)                                                                                          \
	X(RUV_I8, 24, "I8", 1, 1)                                                                                                  \
	X(RUV_I16, 25, "I16", 1, 2)                                                                                                \
	X(RUV_I32, 26, "I32", 1, 4)                                                                                                \
	X(RUV_BF16, 30, "BF16", 1, 2)

typedef enum ruv_dtype {
#define X(c, id, text, elements, bytes) c = id,
	RUV_DTYPE_LIST(X)
#undef X
	    RUV_DTYPE_END = 31 /* one past the largest id: tables are indexed by id */
} ruv_dtype;

/* Is it an id of the list above? Every other function here takes only such ids. */
bool ruv_dtype_known(int id);
/* "Q4_K", or "type 99" for an id that is not known (static per thread). */
const char *ruv_dtype_name(int id);
/* The id of a name in any case ("q4_k"); -1 when there is none. */
int ruv_dtype_parse(const char *name);
int ruv_dtype_block_elements(ruv_dtype dtype);
int ruv_dtype_block_bytes(ruv_dtype dtype);
/* Bytes of one row of n elements; 0 when n is not a multiple of the block. */
size_t ruv_dtype_row_bytes(ruv_dtype dtype, int64_t n);

#endif
