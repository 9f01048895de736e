/* session.h - generating: one sequence of tokens on a model, sampling, streamed text, and embeddings.
 *
 * A session is one mutable timeline: the tokens that it holds, their keys and values in pages of 64 tokens, and the convolution
 * state at its end. Prefill and decode extend it, truncate takes it back, fork branches it (both share full pages until one
 * writes), save and restore carry it over a restart. Nothing is ever dropped silently: what does not fit is refused with both
 * numbers.
 *
 * Usable from C11 and C++.
 * Threads: a session belongs to one thread at a time; sessions of one engine may run on several threads and take turns. A fork
 * shares pages with its origin, so both belong to the same thread. ruv_cancel_set may come from any thread or signal handler.
 * After a failed call a session is as it was before, unless the call says otherwise. */
#ifndef RUVLLM_SESSION_H
#define RUVLLM_SESSION_H

#include "ruvllm/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- cancelling ---- */

/* A flag that stops work at the next token or chunk. Zeroed is clear. */
typedef struct ruv_cancel {
	int flag; /* atomic; only through the functions below */
} ruv_cancel;

RUV_API void ruv_cancel_set(ruv_cancel *cancel); /* async-signal-safe */
RUV_API void ruv_cancel_clear(ruv_cancel *cancel);
RUV_API bool ruv_cancel_is_set(const ruv_cancel *cancel); /* NULL is clear */

/* ---- session ---- */

typedef struct ruv_session ruv_session;

typedef enum ruv_kv_type {
	RUV_KV_F16, /* the default */
	RUV_KV_F32,
	RUV_KV_Q8_0 /* half of F16; head size must be a multiple of 32 */
} ruv_kv_type;

/* Zeroed is the default. */
typedef struct ruv_session_options {
	int n_ctx;  /* most tokens of the sequence; 0: what the model was trained for, at most 4096 */
	int n_pool; /* tokens that the pages can hold for this session and all its forks; 0: n_ctx. Rounded up to pages */
	ruv_kv_type kv_type;
	bool allow_longer; /* n_ctx beyond what the model file allows is an error unless this is set */
} ruv_session_options;

/* RUV_EINVAL (n_ctx), RUV_EUNSUPPORTED (encoders, vocab_only models), RUV_ENOMEM. The session keeps the model alive. */
RUV_API int ruv_session_open(ruv_session **out, ruv_model *model, const ruv_session_options *options, ruv_error *err);
RUV_API void ruv_session_free(ruv_session *session); /* NULL is fine */

RUV_API ruv_model *ruv_session_model(const ruv_session *session);
RUV_API int ruv_session_n_ctx(const ruv_session *session);
/* Tokens held so far: the position of the next one. */
RUV_API int ruv_session_position(const ruv_session *session);
/* Those tokens [position]; valid until the session changes. */
RUV_API const ruv_token *ruv_session_tokens(const ruv_session *session);

/* Appends tokens [n], n >= 1, in chunks of the model's n_batch; the logits are those after the last.
 *
 *   RUV_ECONTEXT    position + n > n_ctx; the message has both numbers; nothing changed
 *   RUV_EINVAL      a token that the model does not have; nothing changed
 *   RUV_ELIMIT      the pages of the pool are used up (by forks); position says how far it came
 *   RUV_ECANCELLED  `cancel` was set (NULL is fine); position says how far it came */
RUV_API int ruv_session_prefill(ruv_session *session, const ruv_token *tokens, int n, const ruv_cancel *cancel, ruv_error *err);
/* Appends one token. The same errors. Allocates nothing. */
RUV_API int ruv_session_decode(ruv_session *session, ruv_token token, ruv_error *err);
/* As prefill, and the logits of every token as well: host memory [n, n_vocab] of the caller. For scoring a text. */
RUV_API int ruv_session_score(ruv_session *session, const ruv_token *tokens, int n, float *logits, const ruv_cancel *cancel,
                              ruv_error *err);
/* Logits [n_vocab] of what follows the last token; NULL when there are none (empty session, after truncate). Valid until the
 * session changes. */
RUV_API const float *ruv_session_logits(const ruv_session *session);

/* Back to `position` (0..current): tokens behind it are forgotten. The convolution state there is rebuilt by running the last few
 * tokens again. Logits are gone until the next prefill or decode. */
RUV_API int ruv_session_truncate(ruv_session *session, int position, ruv_error *err);
/* Empties the session. */
RUV_API void ruv_session_reset(ruv_session *session);
/* Makes the session hold tokens [n], n >= 1, keeping the longest common beginning (but always running the last token), and gives
 * the logits after them. *n_kept (NULL is fine): tokens that needed no work. Errors as prefill. */
RUV_API int ruv_session_set_tokens(ruv_session *session, const ruv_token *tokens, int n, int *n_kept, const ruv_cancel *cancel,
                                   ruv_error *err);

/* Every pass from now on goes through the adapter (NULL: none), which the session keeps alive. What the session holds was computed
 * without it, so it is emptied. RUV_EMISMATCH when the adapter is another model's. Forks inherit it; saved files know it. */
RUV_API int ruv_session_set_adapter(ruv_session *session, ruv_adapter *adapter, ruv_error *err);

/* A second session at the same place. Shares the pool (its n_pool is the limit for both); pages are copied when one writes into a
 * page that both use. */
RUV_API int ruv_session_fork(ruv_session **out, ruv_session *session, ruv_error *err);

/* Writes tokens, pages, states and logits to a file (temporary name, then renamed). */
RUV_API int ruv_session_save(ruv_session *session, const char *path, ruv_error *err);
/* Replaces the session's contents by a saved one.
 *   RUV_ECORRUPT   the checksum is wrong
 *   RUV_EFORMAT    not a session file, or of another version
 *   RUV_EMISMATCH  of another model or kv_type
 *   RUV_ECONTEXT   longer than this session's n_ctx */
RUV_API int ruv_session_restore(ruv_session *session, const char *path, ruv_error *err);

/* ---- sampling ---- */

typedef struct ruv_logit_bias {
	ruv_token token;
	float bias; /* added to the logit; -INFINITY bans the token */
} ruv_logit_bias;

/* How the next token is chosen. The steps, in this order: constraint, logit bias, penalties, top-k, typical-p, top-p, min-p,
 * temperature, draw. Temperature 0 takes the most likely token after bias and penalties. Zeroed is greedy without penalties. */
typedef struct ruv_sampling {
	float temperature;          /* 0: greedy */
	int top_k;                  /* 0: off */
	float top_p;                /* 0 or 1: off */
	float min_p;                /* 0: off; keep tokens of at least min_p times the best one's probability */
	float typical_p;            /* 0 or 1: off (Meister et al. 2022) */
	float repetition_penalty;   /* 0 or 1: off; divides positive and multiplies negative logits of tokens seen */
	float frequency_penalty;    /* subtracted per occurrence */
	float presence_penalty;     /* subtracted once */
	int penalty_last_n;         /* tokens looked back at; 0: 64, -1: the whole session */
	uint64_t seed;              /* 0: one drawn from 1..INT64_MAX each time */
	const ruv_logit_bias *bias; /* [n_bias], the caller's, used during the call */
	int n_bias;
} ruv_sampling;

/* Which tokens may come next: a grammar, the sentences of a source, a list of choices. Made by whoever knows the language (the text
 * of the tokens is ruv_model_token_bytes); used by one generation at a time, from its first token on.
 *
 * End tokens are tokens like others here: fill sets their bits where the text may end. Tokens that the model may never sample are
 * left out by the sampler whatever the bits say. */
typedef struct ruv_constraint {
	void *state;
	/* Sets the bit of every token that may follow what was accepted so far. allowed: [(n_vocab + 63) / 64], all clear; token t
	 * is bit t % 64 of word t / 64. Returns RUV_OK, RUV_CONSTRAINT_ALL (nothing is forbidden, the bits are not looked at), or a
	 * failure, which ends the generation with it. No bit set is a failure of the generation (RUV_EINVAL). */
	int (*fill)(void *state, uint64_t *allowed, int n_vocab, ruv_error *err);
	/* The token was taken (one that fill allowed, end tokens included). */
	int (*accept)(void *state, ruv_token token, ruv_error *err);
	/* The last n_tokens accepted ones are taken back (speculation; up to 16). */
	int (*rollback)(void *state, int n_tokens, ruv_error *err);
	/* A copy at the same place, for parallel choices; NULL: this constraint cannot be copied, several choices are refused. */
	int (*fork)(void *state, void **copy, ruv_error *err);
	/* Gives up `state`, also of copies. May be NULL. Never called by a generation for the state that it was given. */
	void (*free)(void *state);
} ruv_constraint;

enum { RUV_CONSTRAINT_ALL = 1 };

/* What suits the model: its architecture's recommendation, or its variant's. */
RUV_API void ruv_model_default_sampling(const ruv_model *model, ruv_sampling *sampling);

/* ---- generating ---- */

typedef enum ruv_finish {
	RUV_FINISH_STOP,      /* an end token or a stop string */
	RUV_FINISH_LENGTH,    /* max_tokens or the context window */
	RUV_FINISH_CANCELLED, /* the cancel flag, or the callback said so */
} ruv_finish;
/* "stop", "length", "cancelled" */
RUV_API const char *ruv_finish_name(ruv_finish finish);

typedef struct ruv_token_logprob {
	ruv_token token;
	float logprob; /* natural logarithm, of the model's own distribution (before bias, penalties and cuts) */
} ruv_token_logprob;

/* A piece of generated text, handed out as soon as it is complete UTF-8 and cannot begin a stop string. */
typedef struct ruv_piece {
	const char *text; /* [n_bytes] and a NUL, valid during the call */
	size_t n_bytes;
	int n_tokens; /* generated so far */
} ruv_piece;

/* Returns whether to go on. */
typedef bool ruv_on_piece(void *user, const ruv_piece *piece);

/* Zeroed is the default: greedy, to the end token or the context's end. */
typedef struct ruv_generate_params {
	ruv_sampling sampling;
	int max_tokens;           /* 0: as many as fit */
	const char *const *stops; /* [n_stops] strings; generation ends before the first that appears in the text */
	int n_stops;
	int n_logprobs; /* alternatives reported per token, 0..20; -1: no logprobs at all (the default 0 gives the token's own) */
	bool special_text; /* special tokens (tool calls) appear in the text; end tokens never do */
	bool ignore_end;   /* go on after end tokens (benchmarks) */
	const ruv_constraint
	    *constraint; /* the caller's, used during the call; NULL: none. Its bits come before penalties and cuts */
	const ruv_cancel *cancel;
	ruv_on_piece *on_piece;
	void *user;
} ruv_generate_params;

/* What came out. Owned by the caller: ruv_generation_release. Zeroed is empty. */
typedef struct ruv_generation {
	char *text; /* [n_bytes] and a NUL, valid UTF-8; without the stop string */
	size_t n_bytes;
	ruv_token *tokens; /* [n_tokens]; the end token, when one came, is not among them */
	int n_tokens;
	float *logprobs;        /* [n_tokens] of the tokens themselves, NULL when n_logprobs is -1 */
	ruv_token_logprob *top; /* [n_tokens, n_top], most likely first; NULL when n_top is 0 */
	int n_top;
	ruv_finish finish;
	ruv_token end_token;          /* the end token that stopped it, -1 otherwise */
	int stop_index;               /* of the stop string that ended it, -1 otherwise */
	int n_prompt, n_kept;         /* tokens of the prompt, and those of them that were there already */
	uint64_t seed;                /* that was used */
	double prefill_ms, decode_ms; /* decode counts from the first sampled token to the last */
	int n_drafted, n_accepted;    /* tokens proposed by speculation, and those of them that were taken */
} ruv_generation;

RUV_API void ruv_generation_release(ruv_generation *generation);

/* Makes the session hold `prompt` (as ruv_session_set_tokens), then samples. Afterwards the session holds prompt and every
 * generated token but possibly the last one sampled (end tokens and a token cut by max_tokens are not run).
 *
 * Cancelling is no failure once sampling began: finish says so and the text so far is there. Cancelled during prefill is
 * RUV_ECANCELLED. Errors otherwise as ruv_session_set_tokens; the prompt must leave room for at least one token. */
RUV_API int ruv_generate(ruv_session *session, const ruv_token *prompt, int n_prompt, const ruv_generate_params *params,
                         ruv_generation *out, ruv_error *err);

/* ---- speculation ---- */

enum { RUV_MAX_LOOKAHEAD = 8 };

/* How a session guesses ahead. Whatever is set, what comes out is distributed exactly as without (Leviathan et al. 2023): greedy
 * output is the same token for token. Zeroed with a draft is the default. */
typedef struct ruv_speculation {
	ruv_model *draft;   /* a small model of the same vocabulary; NULL: prompt lookup alone */
	bool prompt_lookup; /* guess that what followed the last few tokens before follows again */
	int max_lookahead;  /* 2..RUV_MAX_LOOKAHEAD tokens a time; 0: RUV_MAX_LOOKAHEAD */
	bool fixed;         /* always max_lookahead tokens, never off (measuring); else as measured acceptance and cost say */
	float min_prob;     /* drafting stops early below this confidence of the draft; it does anyway where checking costs more */
} ruv_speculation;

/* Since the session was opened or its speculation set. */
typedef struct ruv_speculation_stats {
	int64_t n_passes; /* of the target, verifying ones */
	int64_t n_plain;  /* of the target without drafts */
	int64_t n_drafted, n_accepted, n_emitted;
	int64_t drafted_at[RUV_MAX_LOOKAHEAD], accepted_at[RUV_MAX_LOOKAHEAD]; /* per place in the draft */
	double draft_ms, verify_ms, plain_ms, sample_ms;
	int lookahead; /* in use now; 0: off, because it loses */
} ruv_speculation_stats;

/* ruv_generate on this session speculates from now on; NULL: no longer. The session keeps the draft alive and runs it in a session
 * of its own. Forks do not inherit it.
 *
 *   RUV_EMISMATCH    another vocabulary: sizes, start and end tokens or the text of a token differ (named)
 *   RUV_EUNSUPPORTED an encoder, or a model without a tokenizer
 *   RUV_EINVAL, RUV_ENOMEM */
RUV_API int ruv_session_set_speculation(ruv_session *session, const ruv_speculation *speculation, ruv_error *err);
RUV_API void ruv_session_speculation_stats(const ruv_session *session, ruv_speculation_stats *stats);

/* ---- embedding ---- */

typedef struct ruv_embedder ruv_embedder;

/* n_ctx: most tokens of one text; 0: what the model was trained for, at most 2048. Encoders give their own embedding (mean of the
 * last hidden states, projection and norm where the model has them); generators the mean of their last hidden states. Both have
 * unit length. The embedder keeps the model alive; one thread at a time. */
RUV_API int ruv_embedder_open(ruv_embedder **out, ruv_model *model, int n_ctx, ruv_error *err);
RUV_API void ruv_embedder_free(ruv_embedder *embedder); /* NULL is fine */
RUV_API int ruv_embedder_dim(const ruv_embedder *embedder);
RUV_API int ruv_embedder_n_ctx(const ruv_embedder *embedder);

typedef enum ruv_embed_kind {
	RUV_EMBED_PLAIN,   /* as it is */
	RUV_EMBED_QUERY,   /* the model's query prefix first */
	RUV_EMBED_PASSAGE, /* the model's passage prefix first */
} ruv_embed_kind;

/* The number of tokens that embedding this text takes, prefix and start token included; compare with ruv_embedder_n_ctx. */
RUV_API int ruv_embedder_count(const ruv_embedder *embedder, const char *text, size_t n_bytes, ruv_embed_kind kind, ruv_error *err);
/* vectors: host [n_texts, dim]. Texts are batched. RUV_ECONTEXT when one does not fit (which, and both numbers); nothing is written
 * then. texts[i] are NUL-terminated. */
RUV_API int ruv_embedder_embed(ruv_embedder *embedder, const char *const *texts, int n_texts, ruv_embed_kind kind, float *vectors,
                               const ruv_cancel *cancel, ruv_error *err);
/* The same of one run of tokens, exactly as given. vector: host [dim]. */
RUV_API int ruv_embedder_embed_tokens(ruv_embedder *embedder, const ruv_token *tokens, int n, float *vector, ruv_error *err);

#ifdef __cplusplus
}
#endif
#endif
