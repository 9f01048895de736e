/* quant_search.h - one row of F32 into quantized blocks: the search for scales and codes. Layer: tensor (private). */
#ifndef RUV_TENSOR_QUANT_SEARCH_H
#define RUV_TENSOR_QUANT_SEARCH_H

#include "tensor/dtype.h"

/* A block type of quant.h; n is a multiple of its block, x is finite. importance [n] or NULL. */
void ruv_quantize_blocks(void *dst, ruv_dtype dtype, const float *x, int64_t n, const float *importance);

#endif
