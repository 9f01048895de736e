/* quantize.h - writing a model file in a chosen type, from a GGUF file or a Hugging Face directory; and importance matrices.
 *
 * Recipes are named as llama.cpp's file types, and a tensor gets the type that llama.cpp would give it:
 *   F32, F16, BF16   every matrix in that type
 *   Q8_0             every matrix
 *   Q4_0             every matrix, but the head (or the tied embedding) Q6_K; with an importance matrix ffn_down of the first
 *                    eighth of the layers Q4_1
 *   Q6_K             every matrix
 *   Q4_K_M, Q5_K_M   Q4_K / Q5_K; attn_v and ffn_down are Q6_K in the layers where more(i, n) says so; the head (or the tied
 *                    embedding) is Q6_K
 *   MIXED            RuvLTRA's: attention and convolution matrices F16, feed-forward Q4_K (ffn_down Q6_K where Q4_K_M has it),
 *                    head and embedding as in Q4_K_M
 * In all of them vectors, norms and convolution taps stay F32. A row that is no multiple of 256 falls back: Q4_K to Q5_0, Q5_K to
 * Q5_1, Q6_K to Q8_0, and one that is no multiple of 32 to F16.
 *
 * The file appears only when complete: an interrupted run leaves no half-written model.
 * Threads: one call uses every thread of its pool. Layer: format. */
#ifndef RUV_FORMAT_QUANTIZE_H
#define RUV_FORMAT_QUANTIZE_H

#include "base/pool.h"
#include "format/gguf.h"

/* name in C, name in text, llama.cpp's general.file_type, default dtype of a matrix */
#define RUV_RECIPE_LIST(X)                                                                                                         \
	X(RUV_RECIPE_F32, "F32", 0, RUV_F32)                                                                                       \
	X(RUV_RECIPE_F16, "F16", 1, RUV_F16)                                                                                       \
	X(RUV_RECIPE_BF16, "BF16", 32, RUV_BF16)                                                                                   \
	X(RUV_RECIPE_Q8_0, "Q8_0", 7, RUV_Q8_0)                                                                                    \
	X(RUV_RECIPE_Q6_K, "Q6_K", 18, RUV_Q6_K)                                                                                   \
	X(RUV_RECIPE_Q5_K_M, "Q5_K_M", 17, RUV_Q5_K)                                                                               \
	X(RUV_RECIPE_Q4_K_M, "Q4_K_M", 15, RUV_Q4_K)                                                                               \
	X(RUV_RECIPE_Q4_0, "Q4_0", 2, RUV_Q4_0)                                                                                    \
	X(RUV_RECIPE_MIXED, "MIXED", 15, RUV_Q4_K)

typedef enum ruv_recipe {
#define X(c, text, file_type, dtype) c,
	RUV_RECIPE_LIST(X)
#undef X
	    RUV_RECIPE_N
} ruv_recipe;

const char *ruv_recipe_name(ruv_recipe recipe);
/* Any case; -1 when there is none. */
int ruv_recipe_parse(const char *name);
/* "F32, F16, BF16, ..." for messages. */
const char *ruv_recipe_names(void);
/* The name of a general.file_type value ("Q4_K_M"), NULL when we know none. MIXED shares Q4_K_M's number, for llama.cpp knows no
 * such type; the key ruvllm.recipe names the recipe of every file that we write. */
const char *ruv_recipe_of_file_type(uint32_t file_type);

/* What a recipe needs to know of a model to choose types. */
typedef struct ruv_recipe_model {
	int n_layers;           /* block_count */
	int n_attention;        /* layers that have attn_v */
	bool tied;              /* no output.weight */
	const ruv_recipe *head; /* its matrix type is used for the head or tied embedding; NULL: the recipe's own choice */
} ruv_recipe_model;

/* The type of one tensor. i_attention: for attn_v, how many attn_v come before it (else ignored). *is_fallback (NULL is fine) says
 * whether the row length forced another type than the recipe's. */
ruv_dtype ruv_recipe_dtype(ruv_recipe recipe, const ruv_recipe_model *model, const char *name, int n_dims, const int64_t *ne,
                           int i_attention, bool has_importance, bool *is_fallback);

/* ---- importance matrices ---- */

/* How much each input element of a matrix matters: the mean of its squared activations over a calibration text.
 * The file is a GGUF with general.type = "imatrix", imatrix.datasets [string], imatrix.chunk_count, imatrix.chunk_size (u32), and
 * for each matrix NAME the F32 tensors NAME.in_sum2 [ne0] (sum of squares) and NAME.counts [1] (how many rows were summed). */
typedef struct ruv_imatrix ruv_imatrix;

int ruv_imatrix_open(ruv_imatrix **out, const char *path, ruv_error *err);
void ruv_imatrix_free(ruv_imatrix *imatrix);
size_t ruv_imatrix_n_entries(const ruv_imatrix *imatrix);
/* *means [n_in], owned by the matrix; NULL when it has none for this tensor. RUV_EMISMATCH when it has one of another length. */
int ruv_imatrix_find(const ruv_imatrix *imatrix, const char *tensor_name, int64_t n_in, const float **means, ruv_error *err);

typedef struct ruv_imatrix_entry {
	const char *name;  /* of the matrix, "blk.0.ffn_up.weight" */
	const float *sum2; /* [n_in] */
	int64_t n_in;
	float count;
} ruv_imatrix_entry;

int ruv_imatrix_write(const char *path, const ruv_imatrix_entry *entries, size_t n_entries, const char *dataset,
                      uint32_t chunk_count, uint32_t chunk_size, ruv_error *err);

/* ---- writing a model ---- */

/* done and total are bytes of source tensors; tensor is the one that was just written, and the type it got. A result other than 0
 * stops the work with RUV_ECANCELLED. Called from the calling thread. */
typedef int ruv_write_progress(void *user, uint64_t done, uint64_t total, const char *tensor, const char *type_name);

typedef struct ruv_write_options {
	ruv_recipe recipe;
	const ruv_recipe *head;     /* as in ruv_recipe_model, or NULL */
	const ruv_imatrix *imatrix; /* or NULL */
	ruv_pool *pool;             /* or NULL: this thread alone */
	ruv_write_progress *progress;
	void *user;
	bool allow_requantize; /* accept a source that is quantized already */
	bool no_tokenizer;     /* convert a directory that has no tokenizer (tokenizer.ggml.model = "no_vocab") */
	const char *name;      /* general.name, or NULL to keep or derive it */
} ruv_write_options;

typedef struct ruv_write_report {
	uint64_t bytes_in, bytes_out; /* of tensors */
	size_t n_tensors;
	size_t n_fallback;   /* tensors whose row length forced another type than the recipe's */
	size_t n_importance; /* tensors quantized with the importance matrix */
} ruv_write_report;

/* from: a GGUF file or a Hugging Face directory. report may be NULL. Refuses from == to.
 * RUV_EUNSUPPORTED names an architecture, tokenizer or configuration that cannot be converted. */
int ruv_model_write(const char *to, const char *from, const ruv_write_options *options, ruv_write_report *report, ruv_error *err);

/* ---- finding a model by name ---- */

/* A directory or file as it is, or "org/name" in the Hugging Face cache ($HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub),
 * whose newest snapshot is taken. Nothing is downloaded: RUV_ENOTFOUND lists where it looked. *path is free()d by the caller. */
int ruv_model_find(char **path, const char *name, ruv_error *err);

#endif
