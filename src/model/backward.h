/* backward.h - the gradient of a generator's loss with respect to LoRA matrices, through frozen weights of any type.
 *
 * The forward pass is the one that serves (forward.c), listened to; the backward pass goes from the head down to the lowest adapted
 * layer and stops there. Weights stay quantized: their transposed products are the backend's. The gradient is that of the
 * dequantized weights; rounding of activations inside the forward kernels is passed straight through.
 *
 * Threads: one ruv_backward, one thread; the model's engine is locked for one product or pass at a time, so that a model that
 * serves beside it keeps its turns. Layer: model. */
#ifndef RUV_MODEL_BACKWARD_H
#define RUV_MODEL_BACKWARD_H

#include "model/adapter.h"

/* One adapted matrix. Host memory of the caller; gradients are added to. The scale of the adapter is in A. */
typedef struct ruv_lora_param {
	int layer;
	ruv_adapter_slot slot;
	int rank;
	int64_t n_in, n_out; /* of the matrix: ruv_lora_shape */
	float *a, *b;        /* [rank, n_in], [n_out, rank] */
	float *grad_a, *grad_b;
} ruv_lora_param;

/* A sequence and what is to be predicted in it. */
typedef struct ruv_train_seq {
	const ruv_token *tokens; /* [n] */
	int n;
	const float *weight; /* [n] weight[i] > 0: the loss of tokens[i] given tokens[0..i); weight[0] is not looked at */
	bool distill;        /* the loss is the divergence from what the model says without the adapter, not from tokens[i] */
	/* filled in */
	double nll;             /* sum over the targets of -log p, nats, without weights; with distill: of the divergences */
	int n_targets, n_right; /* right: the target is the likeliest token */
} ruv_train_seq;

typedef struct ruv_backward ruv_backward;

/* RUV_EUNSUPPORTED for encoders and models without weights. Keeps the model alive. */
int ruv_backward_open(ruv_backward **out, ruv_model *model, ruv_error *err);
void ruv_backward_free(ruv_backward *backward);

/* n_in and n_out of a matrix; RUV_ENOTFOUND when the layer has none in this slot. */
int ruv_lora_shape(const ruv_model *model, int layer, ruv_adapter_slot slot, int64_t *n_in, int64_t *n_out, ruv_error *err);

enum { RUV_TRAIN_MAX_ROWS = 2048 /* tokens of one call, all sequences together */, RUV_TRAIN_MAX_SEQS = 64 };

/* *loss = sum of weight x loss over all targets of seqs[0..n_seqs), through the adapter params[0..n_params); with `gradients` its
 * derivatives are added to the params' gradients. `loss` may be NULL.
 *   RUV_EINVAL  a token or slot that the model does not have, a target at position 0 alone
 *   RUV_ELIMIT  more rows or sequences than above */
int ruv_backward_run(ruv_backward *backward, const ruv_lora_param *params, int n_params, ruv_train_seq *seqs, int n_seqs,
                     bool gradients, double *loss, ruv_error *err);

/* n_seqs texts of n_tokens tokens each into out [n_seqs, n_tokens], drawn from the bare model at temperature 1, text i beginning
 * with first[i]. The same for a seed on one machine. RUV_ELIMIT beyond RUV_TRAIN_MAX_SEQS or RUV_TRAIN_MAX_ROWS. */
int ruv_backward_sample(ruv_model *model, const ruv_token *first, int n_seqs, int n_tokens, uint64_t seed, ruv_token *out,
                        ruv_error *err);

#endif
