/* microlora.h - a rank 1-4 LoRA at the hook layers that is trained one interaction at a time.
 *
 * All parameters lie in one run of floats, matrix by matrix, so that EWC, the gate and files see one vector. A starts random, B
 * zero: a fresh one changes nothing. Threads: one at a time. Layer: learn. */
#ifndef RUV_LEARN_MICROLORA_H
#define RUV_LEARN_MICROLORA_H

#include "learn/ewc.h"
#include "model/backward.h"

enum { RUV_MICROLORA_MAX_RANK = 4 };

/* Bits of ruv_adapter_slot: every matrix of a hook layer. Slots that a layer does not have are left out there. */
#define RUV_MICROLORA_SLOTS ((1u << RUV_SLOT_N) - 1)

typedef struct ruv_microlora {
	ruv_model *model;       /* held */
	ruv_lora_param *params; /* [n_params], into theta and grad */
	int n_params, rank;
	float *theta, *grad, *m, *v; /* [n] */
	int64_t n;
	int64_t *first;  /* [n_groups + 1] where each matrix (a group) begins in theta */
	int n_groups;    /* 2 n_params */
	int64_t n_steps; /* since the moments were cleared */
	float rate;      /* of Adam */
	float clip;      /* largest gradient norm */
	float max_step;  /* largest Euclidean length of one step: whatever an interaction says, it moves no farther */
	double last_step, last_norm;
} ruv_microlora;

/* hooks [n_hooks] layers; rank 1..4. */
int ruv_microlora_create(ruv_microlora **out, ruv_model *model, const int *hooks, int n_hooks, int rank, unsigned slots,
                         uint64_t seed, ruv_error *err);
void ruv_microlora_free(ruv_microlora *lora);
/* As it was made from this seed; moments cleared. */
void ruv_microlora_reset(ruv_microlora *lora, uint64_t seed);
/* Adam begins anew: after theta was changed by other means. */
void ruv_microlora_clear_moments(ruv_microlora *lora);
/* Takes over theta of another of the same shape; moments cleared. */
void ruv_microlora_copy(ruv_microlora *to, const ruv_microlora *from);
/* Does it change nothing? (every B is zero) */
bool ruv_microlora_is_zero(const ruv_microlora *lora);

/* One Adam step on the sequences' loss, clipped and bounded. `ewc` (NULL: none) sees the gradient and then pulls. *loss (NULL is
 * fine) is the loss before the step. A failed call leaves theta as it was. */
int ruv_microlora_step(ruv_microlora *lora, ruv_backward *backward, ruv_train_seq *seqs, int n_seqs, ruv_ewc *ewc, double *loss,
                       ruv_error *err);
/* Losses alone, into the sequences. `lora` NULL: of the bare model. */
int ruv_microlora_measure(const ruv_microlora *lora, ruv_backward *backward, ruv_train_seq *seqs, int n_seqs, ruv_error *err);

/* Writes a GGUF LoRA file that ruv_adapter_open reads (alpha = rank: nothing is scaled). Appears complete or not at all. */
int ruv_microlora_save(const ruv_microlora *lora, const char *path, int version, ruv_error *err);
/* Reads such a file back, bit for bit. RUV_EMISMATCH when it is for another model, other hooks or another rank. */
int ruv_microlora_load(ruv_microlora *lora, const char *path, ruv_error *err);
/* to = sum of weights[i] x the change of parts[i] (same model), brought back to to's rank by truncated singular value
 * decomposition: the merging of domain adapters. *kept (NULL is fine): share of the squared Frobenius norm that the rank could
 * keep. */
int ruv_microlora_merge(ruv_microlora *to, const ruv_microlora *const *parts, const float *weights, int n, double *kept,
                        ruv_error *err);

#endif
