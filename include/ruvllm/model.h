/* model.h - opening a GGUF model, asking what it is, and turning text into its tokens and back.
 *
 * An engine is the machine: a backend (the CPU's kernels) and its threads, shared by any number of models. A model is a mapped GGUF
 * file: weights, tokenizer, chat template, and the workspace of its forward pass. Both count their users: a model keeps its engine,
 * a session (session.h) keeps its model, so that they may be freed in any order.
 *
 * Usable from C11 and C++.
 * Threads: a model may be used from several threads at once: tokenizing and asking need no lock, forward passes on one engine
 * take turns. */
#ifndef RUVLLM_MODEL_H
#define RUVLLM_MODEL_H

#include "ruvllm/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- engine ---- */

typedef struct ruv_engine ruv_engine;

/* n_threads 0: one per core that the process may use. The caller frees it; models opened on it keep it alive. */
RUV_API int ruv_engine_open(ruv_engine **out, int n_threads, ruv_error *err);
/* Gives up the caller's hold; NULL is fine. */
RUV_API void ruv_engine_free(ruv_engine *engine);
/* "cpu (avx512-vnni, 2 threads)"; valid while the engine is. */
RUV_API const char *ruv_engine_describe(const ruv_engine *engine);
RUV_API int ruv_engine_n_threads(const ruv_engine *engine);
/* Whether the quantized matrices of models opened from now on are laid out anew for this processor by their first use (the default:
 * faster from then on, in as much memory, for one pass over the weights), or read as the file has them. */
RUV_API void ruv_engine_set_packing(ruv_engine *engine, bool packing);
/* Bytes of the matrices that were laid out anew, and the milliseconds that it took. Any pointer may be NULL. */
RUV_API void ruv_engine_packed(ruv_engine *engine, size_t *n_bytes, double *ms);

/* ---- variants of RuvLTRA-Medium ---- */

enum { RUV_VARIANT_MAX_HOOKS = 4 };

/* One configuration over a Qwen2.5-class model: sampling defaults, and what learning and routing take from it. The last
 * group is configuration alone until the learning layer reads it. */
typedef struct ruv_variant {
	const char *name; /* "base", "coder", "agent" */
	const char *purpose;
	float temperature, top_p;
	int n_hooks; /* layers whose hidden state learning listens to */
	int hooks[RUV_VARIANT_MAX_HOOKS];
	int pattern_capacity;    /* patterns kept by the reasoning bank */
	float quality_threshold; /* answers below it are not learned from */
	int hnsw_m, hnsw_ef_construction;
	int micro_lora_rank;
	bool agent_routing;   /* trajectories recorded for the agent router */
	bool reasoning_bank;  /* successful trajectories stored */
	int kv_page_tokens;   /* 64 */
	int draft_lookahead;  /* speculative decoding: tokens drafted at a time */
	float draft_min_prob; /* drafting stops early below this confidence; acceptance itself is lossless */
	float draft_temperature;
} ruv_variant;

/* The variant of that name (static), or NULL. */
RUV_API const ruv_variant *ruv_variant_find(const char *name);
/* The i-th variant, NULL past the end. */
RUV_API const ruv_variant *ruv_variant_at(int i);
/* The variant's hook layers for a model of n_layers: as written where the model has 32 layers or more, else moved to the same
 * relative depth. hooks: [RUV_VARIANT_MAX_HOOKS]. Returns how many. */
RUV_API int ruv_variant_hooks(const ruv_variant *variant, int n_layers, int *hooks);

/* ---- model ---- */

typedef struct ruv_model ruv_model;

/* Zeroed is the default. */
typedef struct ruv_model_options {
	ruv_engine *engine;  /* NULL: an engine of its own */
	int n_threads;       /* of that engine; not with `engine` */
	int n_batch;         /* most tokens of one forward pass; 0: 256. More is faster prefill and more workspace */
	const char *variant; /* "base", "coder", "agent", or NULL for none */
	bool vocab_only;     /* tokenizer and template only: no weights, no sessions */
} ruv_model_options;

/* Opens a GGUF file, or the first of a split one. Every tensor that the architecture needs must be there in its right shape, and
 * none besides. Weights stay in the mapped file.
 *
 *   RUV_ENOTFOUND, RUV_EIO  the file
 *   RUV_EFORMAT             not a GGUF file, or one that contradicts itself; the message names key or tensor
 *   RUV_EUNSUPPORTED        an architecture, tensor type or setting that this build cannot run
 *   RUV_ENOMEM */
RUV_API int ruv_model_open(ruv_model **out, const char *path, const ruv_model_options *options, ruv_error *err);
/* Gives up the caller's hold; NULL is fine. */
RUV_API void ruv_model_free(ruv_model *model);

/* What a model is. Strings are valid while the model is; an absent one is "". */
typedef struct ruv_model_info {
	const char *path;
	const char *name;         /* general.name */
	const char *architecture; /* "lfm2", "qwen2", ... */
	const char *file_type;    /* "Q4_K - Medium"; "mixed" when the file does not say */
	const char *variant;      /* "" when none was asked for */
	int64_t n_params;
	size_t n_bytes; /* of the tensors */
	int n_layers, n_attention_layers, n_conv_layers;
	int hidden_size, feed_forward_size, n_heads, n_kv_heads, head_dim;
	int n_vocab;       /* rows of the head: length of a logits row */
	int n_tokens;      /* tokens that the tokenizer knows; 0 without a tokenizer */
	int n_ctx_train;   /* longest context that the file allows, with its RoPE scaling */
	int embedding_dim; /* of a text's embedding */
	bool is_encoder;   /* bidirectional: embeds, does not generate */
	bool has_tokenizer, has_chat_template;
	const char *query_prefix, *passage_prefix; /* put before what an encoder embeds */
	size_t kv_bytes_per_token;                 /* in F16 */
	size_t state_bytes;                        /* convolution state of a sequence */
} ruv_model_info;

RUV_API void ruv_model_get_info(const ruv_model *model, ruv_model_info *info);
/* The value of a metadata key as text (arrays as "[n elements]"), into text[0..cap). Returns its full length, or RUV_ENOTFOUND. */
RUV_API int ruv_model_get_meta(const ruv_model *model, const char *key, char *text, size_t cap);

/* ---- adapters ---- */

/* A LoRA adapter over a model's layers; sessions choose one (session.h). Counts its users as models do; keeps its model alive. */
typedef struct ruv_adapter ruv_adapter;

/* Reads a GGUF adapter (adapter.type "lora"); what it adds is multiplied by scale * alpha / rank.
 *   RUV_EFORMAT, RUV_EUNSUPPORTED  no adapter, a half pair, or a matrix that cannot be adapted (named)
 *   RUV_EMISMATCH                  made for another architecture or shape */
RUV_API int ruv_adapter_open(ruv_adapter **out, ruv_model *model, const char *path, float scale, ruv_error *err);
RUV_API void ruv_adapter_free(ruv_adapter *adapter); /* NULL is fine */
/* The largest rank in it. */
RUV_API int ruv_adapter_rank(const ruv_adapter *adapter);

/* ---- tokens ---- */

/* A growable list that functions append to; zeroed is empty. */
typedef struct ruv_token_list {
	ruv_token *ids; /* [n] */
	int n, cap;
} ruv_token_list;

RUV_API void ruv_token_list_release(ruv_token_list *list);

enum {
	RUV_TOKENIZE_BOS = 1,     /* put the model's start token first where the model wants one */
	RUV_TOKENIZE_SPECIAL = 2, /* special tokens written out in the text become tokens; never for text from users */
};

/* Appends the tokens of text[0..n_bytes). Invalid UTF-8 is tokenized byte by byte. RUV_EUNSUPPORTED without a tokenizer. */
RUV_API int ruv_model_tokenize(const ruv_model *model, const char *text, size_t n_bytes, unsigned flags, ruv_token_list *tokens,
                               ruv_error *err);
/* The text of tokens as a NUL-terminated string that the caller frees with free(); special tokens appear when `special`. Bytes that
 * are no UTF-8 come out as U+FFFD. */
RUV_API int ruv_model_detokenize(const ruv_model *model, const ruv_token *tokens, int n, bool special, char **text, ruv_error *err);
/* The bytes of one token (special ones as written in the vocabulary), not NUL-terminated; NULL for an id out of range. May be part
 * of a UTF-8 character. Valid while the model is. */
RUV_API const char *ruv_model_token_bytes(const ruv_model *model, ruv_token token, size_t *n_bytes);
/* Does generation end at this token? */
RUV_API bool ruv_model_token_is_end(const ruv_model *model, ruv_token token);
/* The start token, or -1. */
RUV_API ruv_token ruv_model_token_bos(const ruv_model *model);

/* ---- chat ---- */

/* One message of a conversation. Strings are UTF-8; NULL is absent. */
typedef struct ruv_message {
	const char *role; /* "system", "user", "assistant", "tool" */
	const char *content;
	const char *tool_calls;   /* assistant: JSON array of {"id", "function": {"name", "arguments": {...}}} */
	const char *tool_name;    /* tool: which tool answered */
	const char *tool_call_id; /* tool: which call it answers */
} ruv_message;

/* Appends the tokens of a conversation as the model's own template renders it; special tokens come only from the template, never
 * from what messages say.
 *
 *   tools  JSON array of {"name", "description", "parameters"} objects, or NULL
 *   add_generation_prompt  ends where the assistant's answer begins
 *
 * RUV_EUNSUPPORTED without a template; RUV_EFORMAT when the template fails (its own message is passed on). */
RUV_API int ruv_model_chat_tokens(const ruv_model *model, const ruv_message *messages, int n_messages, const char *tools,
                                  bool add_generation_prompt, ruv_token_list *tokens, ruv_error *err);

/* A conversation as clients of servers send it. Texts are JSON; NULL is absent. */
typedef struct ruv_conversation {
	const char *messages; /* array of {role, content, tool_calls, tool_call_id, name, reasoning_content}; content is text, null
	                         or an array of {"type": "text", "text"} for templates that take parts */
	const char *tools; /* array of {"type": "function", "function": {name, description, parameters}}, or of what is in them */
	const char *variables; /* object of further variables of the template: {"enable_thinking": false} */
	bool add_generation_prompt;
} ruv_conversation;

/* The same of such a conversation: appends its tokens (NULL: not wanted) and gives the prompt's text, which the caller frees with
 * free() (NULL: not wanted). Tools reach the template in the form that its model was trained on. Errors as above, and RUV_EINVAL
 * for malformed input. */
RUV_API int ruv_model_chat(const ruv_model *model, const ruv_conversation *chat, ruv_token_list *tokens, char **text,
                           ruv_error *err);

#ifdef __cplusplus
}
#endif
#endif
