/* scheduler.h - many generations at once: continuous batching over several models, a prefix cache, and queues that say when they
 * are full.
 *
 * One engine thread owns all sequences. A step of it is one forward pass of one model: a row for every running sequence and, in the
 * room that is left, chunks of the prompts of admitted ones. Models take turns step by step. Everything else (submitting,
 * cancelling, waiting, statistics) may come from any thread.
 *
 * Callbacks run on the engine thread and hold up everybody's next token: they copy what they need and return. They must not wait
 * for a job nor free the scheduler; submitting and cancelling is fine.
 *
 * Embeddings do not go through the scheduler: a ruv_embedder on a model or engine of its own or shared runs on its caller's thread,
 * batches its own texts, and takes turns with the steps, one pass at a time in the order of asking.
 *
 * Usable from C11 and C++. */
#ifndef RUVLLM_SCHEDULER_H
#define RUVLLM_SCHEDULER_H

#include "ruvllm/session.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ruv_scheduler ruv_scheduler;

/* Zeroed is the default. */
typedef struct ruv_scheduler_options {
	ruv_engine *engine;  /* NULL: an engine of its own */
	int n_threads;       /* of that engine; not with `engine` */
	size_t memory_bytes; /* weights, pages and states of all loaded models together; 0: no limit */
	int max_queue;       /* requests that wait, all models together; 0: 256 */
	int max_running;     /* sequences of one model that run at once, 1..256; 0: 64 */
	int idle_unload_ms;  /* a model unused for so long is unloaded; 0: only when another one needs its memory */
} ruv_scheduler_options;

/* The engine thread starts. RUV_EINVAL, RUV_ENOMEM. */
RUV_API int ruv_scheduler_open(ruv_scheduler **out, const ruv_scheduler_options *options, ruv_error *err);
/* Cancels what runs and waits (jobs end with RUV_ECANCELLED), joins the thread. NULL is fine. Jobs may be freed later. */
RUV_API void ruv_scheduler_free(ruv_scheduler *scheduler);
/* Nothing new is taken from now on (RUV_EBUSY); returns when all is done or after timeout_ms (RUV_EBUSY; -1: no limit). */
RUV_API int ruv_scheduler_drain(ruv_scheduler *scheduler, int timeout_ms, ruv_error *err);

/* ---- models ---- */

/* Zeroed is the default but for name and one of path and model. */
typedef struct ruv_scheduler_model {
	const char *name; /* that requests ask for */
	const char *path; /* opened when first needed, unloaded when its memory is */
	ruv_model *model; /* instead of path: open already, stays loaded; the scheduler keeps it alive. Its engine must be the
	                     scheduler's */
	const char *variant;
	int n_ctx;  /* most tokens of a sequence; 0: what the model was trained for, at most 4096 */
	int n_pool; /* tokens that its pages hold for all sequences and the prefix cache; 0: 8 n_ctx, or less when memory_bytes says
	               so */
	int n_batch; /* most rows of a step (path only); 0: 256 */
	ruv_kv_type kv_type;
	bool allow_longer;    /* as in ruv_session_options */
	bool no_prefix_cache; /* finished prompts are forgotten */
	const char *draft;    /* name of an added model that drafts for this one while few sequences run; NULL: none */
	bool prompt_lookup;   /* drafts from the sequence's own text */
} ruv_scheduler_model;

/* RUV_EEXIST (name), RUV_EINVAL, RUV_EMISMATCH (engine). The file is not looked at before it is needed; strings are copied. */
RUV_API int ruv_scheduler_add_model(ruv_scheduler *scheduler, const ruv_scheduler_model *model, ruv_error *err);
/* The model of that name, loaded if need be (on the caller's thread), for tokenizing and asking. It is not unloaded before the
 * caller gives it up with ruv_model_free. RUV_ENOTFOUND, errors of ruv_model_open, RUV_EBUSY when the memory is in use by other
 * models. */
RUV_API int ruv_scheduler_acquire(ruv_scheduler *scheduler, const char *name, ruv_model **model, ruv_error *err);
/* Most tokens of a sequence of that model; RUV_ENOTFOUND. Loads nothing: the model may say less when it is loaded. */
RUV_API int ruv_scheduler_n_ctx(ruv_scheduler *scheduler, const char *name);

/* ---- requests ---- */

/* A piece of one choice's text, as ruv_piece, with the tokens that came since the last one. */
typedef struct ruv_job_piece {
	int choice;
	const char *text; /* [n_bytes] and a NUL, valid during the call; may be empty when only tokens came */
	size_t n_bytes;
	int n_tokens;                 /* generated so far */
	int n_new;                    /* of them since the last piece */
	const ruv_token *tokens;      /* [n_new] */
	const float *logprobs;        /* [n_new] or NULL, as in ruv_generation */
	const ruv_token_logprob *top; /* [n_new, n_top] or NULL */
	int n_top;
} ruv_job_piece;

enum { RUV_MAX_CHOICES = 16 };

typedef struct ruv_job ruv_job;

/* Zeroed is the default but for model and prompt. Everything pointed at is copied by submit, but for what says otherwise. */
typedef struct ruv_request {
	const char *model;
	const ruv_token *prompt; /* [n_prompt] */
	int n_prompt;
	/* As in ruv_generate; on_piece and user are not used (see below), cancel and constraint must live until the job has ended.
	 * NULL: the default. The same seed gives the text that ruv_generate gives; choice i has seed + i. */
	const ruv_generate_params *params;
	ruv_adapter *adapter; /* kept alive; NULL: none */
	int n_choices;        /* 0: 1; the prompt is computed once */
	int priority;         /* higher is admitted first and preempted last; 0 is ordinary */
	uint64_t salt;        /* part of the prefix cache's keys: only requests of the same salt share (privacy between users) */
	bool no_cache;        /* neither looks into the prefix cache nor leaves anything there */

	/* On the engine thread; any may be NULL. on_piece returns whether this choice goes on. on_done comes once, last. */
	bool (*on_piece)(void *user, const ruv_job_piece *piece);
	void (*on_done)(void *user, ruv_job *job);
	void *user;
} ruv_request;

/* Queues a request. The caller frees the job (ruv_job_free). Safe from any thread.
 *
 *   RUV_EBUSY      the queue is full, or the scheduler drains; ruv_scheduler_retry_after_ms says when to come back
 *   RUV_ENOTFOUND  no such model
 *   RUV_EINVAL     parameters, a token that the model does not have (loaded models; else the job fails with it)
 *   RUV_ECONTEXT   the prompt does not fit, both numbers in the message (loaded models; else the job fails with it)
 *   RUV_EMISMATCH  the adapter is another model's */
RUV_API int ruv_scheduler_submit(ruv_scheduler *scheduler, const ruv_request *request, ruv_job **job, ruv_error *err);
/* When a refused client should come back: an estimate from the queue and the speed of late, at least 1 s. */
RUV_API int ruv_scheduler_retry_after_ms(ruv_scheduler *scheduler);

/* The job ends at the next step, its choices with RUV_FINISH_CANCELLED and what they have (RUV_ECANCELLED when none had begun). */
RUV_API void ruv_job_cancel(ruv_job *job);
/* Has on_done come (or is it about to)? */
RUV_API bool ruv_job_is_done(const ruv_job *job);
/* Waits for the end, at most timeout_ms (-1: no limit): the job's own status, with its message in err; RUV_EBUSY when it has not
 * ended by then. Not from a callback of the scheduler. */
RUV_API int ruv_job_wait(ruv_job *job, int timeout_ms, ruv_error *err);
/* The job's status once done (RUV_EBUSY before). */
RUV_API int ruv_job_status(const ruv_job *job, ruv_error *err);
RUV_API int ruv_job_n_choices(const ruv_job *job);
/* What came out of choice i: complete once done and RUV_OK, else what there is. The job's; valid while it is. NULL before the end.
 * n_kept are the tokens that came from the prefix cache. */
RUV_API const ruv_generation *ruv_job_result(const ruv_job *job, int i);
/* Times of the job: waiting in the queue, to the first token (from submitting). */
typedef struct ruv_job_times {
	double queue_ms, first_token_ms, total_ms;
} ruv_job_times;
RUV_API void ruv_job_get_times(const ruv_job *job, ruv_job_times *times);
/* Cancels a job that has not ended (its callbacks may still come until then: on_done is the last). NULL is fine; callable in
 * on_done. */
RUV_API void ruv_job_free(ruv_job *job);

/* Submit, wait, take: for a thread that wants the answer of one choice. params->on_piece and user work as in ruv_generate, on the
 * engine thread; params->cancel too. Errors as ruv_generate, and RUV_EBUSY. */
RUV_API int ruv_scheduler_generate(ruv_scheduler *scheduler, const ruv_request *request, ruv_generation *out, ruv_error *err);

/* ---- statistics ---- */

enum { RUV_MAX_SCHEDULER_MODELS = 32, RUV_LATENCY_BUCKETS = 16 };

/* Upper bounds of the histograms' buckets in ms, ascending: [RUV_LATENCY_BUCKETS - 1]; the last bucket has none. */
RUV_API const double *ruv_latency_bounds_ms(void);

typedef struct ruv_latency {
	int64_t count;
	double sum_ms;
	int64_t buckets[RUV_LATENCY_BUCKETS]; /* not cumulative */
} ruv_latency;

typedef struct ruv_scheduler_model_stats {
	const char *name; /* valid while the scheduler is */
	bool loaded;
	size_t memory_bytes; /* while loaded */
	int n_waiting, n_running;
	int pages_total, pages_free, pages_cached; /* cached: nobody's but the prefix cache's; free are not among them */
	int64_t n_steps, n_rows;                   /* forward passes, and the rows in them */
	int64_t prompt_tokens, prompt_computed;    /* of admitted prompts; those that were not in the cache */
	int64_t generated_tokens;
	int64_t prefix_hits, prefix_lookups; /* prompts of which at least a page was there */
	int64_t prefix_hit_tokens, prefix_evictions;
	int64_t n_preempted, n_loads, n_unloads;
	ruv_speculation_stats speculation;
} ruv_scheduler_model_stats;

typedef struct ruv_scheduler_stats {
	int n_waiting, n_running; /* requests, and sequences */
	int max_queue;
	size_t memory_bytes, memory_limit_bytes;
	int64_t n_submitted, n_refused, n_completed, n_failed, n_cancelled; /* requests */
	ruv_latency queue, first_token, inter_token, total;
	double busy_ms; /* the engine thread in steps */
	int n_models;
	ruv_scheduler_model_stats models[RUV_MAX_SCHEDULER_MODELS];
} ruv_scheduler_stats;

RUV_API void ruv_scheduler_get_stats(ruv_scheduler *scheduler, ruv_scheduler_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
