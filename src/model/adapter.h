/* adapter.h - LoRA adapters (Hu et al. 2021): y += s B (A x) beside a matrix of a model's layers.
 *
 * They come from a GGUF file (ruv_adapter_open, ruvllm/model.h) or from memory (learning hands finished ones over). The scale is
 * folded into A. Layer: model. */
#ifndef RUV_MODEL_ADAPTER_H
#define RUV_MODEL_ADAPTER_H

#include "ruvllm/model.h"
#include "tensor/ops.h"

/* The matrices of a layer that may have one. */
#define RUV_ADAPTER_SLOT_LIST(X)                                                                                                   \
	X(RUV_SLOT_Q, "attn_q")                                                                                                    \
	X(RUV_SLOT_K, "attn_k")                                                                                                    \
	X(RUV_SLOT_V, "attn_v")                                                                                                    \
	X(RUV_SLOT_ATTN_OUTPUT, "attn_output")                                                                                     \
	X(RUV_SLOT_CONV_IN, "shortconv.in_proj")                                                                                   \
	X(RUV_SLOT_CONV_OUT, "shortconv.out_proj")                                                                                 \
	X(RUV_SLOT_FFN_GATE, "ffn_gate")                                                                                           \
	X(RUV_SLOT_FFN_UP, "ffn_up")                                                                                               \
	X(RUV_SLOT_FFN_DOWN, "ffn_down")

typedef enum ruv_adapter_slot {
#define X(slot, suffix) slot,
	RUV_ADAPTER_SLOT_LIST(X)
#undef X
	    RUV_SLOT_N
} ruv_adapter_slot;

/* "attn_q" */
const char *ruv_adapter_slot_name(ruv_adapter_slot slot);

typedef struct ruv_lora {
	ruv_tensor a; /* [rank, n_in], n_out 0: no adapter here */
	ruv_tensor b; /* [n_out, rank] */
} ruv_lora;

struct ruv_adapter {
	int n_refs; /* atomic */
	ruv_model *model;
	ruv_lora *loras; /* [n_layers, RUV_SLOT_N] */
	float **buffers; /* [n_buffers] what the tensors are bound to */
	int n_buffers, cap_buffers;
	int rank; /* the largest */
	uint64_t fingerprint;
};

/* An adapter without matrices. The caller frees it. */
int ruv_adapter_create(ruv_adapter **out, ruv_model *model, ruv_error *err);
/* Adds one: a [rank, n_in], b [n_out, rank], both copied; n_in and n_out are the matrix's. RUV_ENOTFOUND when the layer has no such
 * matrix, RUV_EEXIST when it was added already. Not while a session uses the adapter. */
int ruv_adapter_add(ruv_adapter *adapter, int layer, ruv_adapter_slot slot, int rank, const float *a, const float *b, float scale,
                    ruv_error *err);
ruv_adapter *ruv_adapter_hold(ruv_adapter *adapter);

#endif
