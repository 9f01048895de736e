/* quant.h - rows of F32 to and from every storage type.
 *
 * Dequantization is exact: the same F32 operations in the same order as the formats' reference, so the values are bit-identical on
 * every machine. Quantization searches per block for the codes and scales with the least weighted squared error.
 * Threads: pure functions; call them from as many threads as there are rows. Layer: tensor. */
#ifndef RUV_TENSOR_QUANT_H
#define RUV_TENSOR_QUANT_H

#include "tensor/dtype.h"

/* dst[0..n) = the values of one row. n is a multiple of the block. src needs no alignment. Float and block types only (not I8, I16,
 * I32: those give RUV_EUNSUPPORTED). */
int ruv_dequantize_row(float *dst, ruv_dtype dtype, const void *src, int64_t n);

/* Can ruv_quantize_rows make this type? */
bool ruv_dtype_quantizable(int id);

/* dst[n_rows rows of ruv_dtype_row_bytes(dtype, n_in)] = src[n_rows, n_in].
 *
 *   importance  [n_in] weights >= 0 of the columns (mean square of the activations that meet them), or NULL. Used by the block
 * types of 6 bits and fewer.
 *
 * RUV_EINVAL when n_in is not a multiple of the block, RUV_EUNSUPPORTED for a type that cannot be made, RUV_EFORMAT when src holds
 * a value that is not finite. */
int ruv_quantize_rows(void *dst, ruv_dtype dtype, const float *src, int64_t n_rows, int64_t n_in, const float *importance);

#endif
