/* learn.h - learning from use: trajectories and the reasoning bank, judging, and the learner that turns what people accept or
 * correct into adapters.
 *
 *     ask.c:   answer -> ruv_judge_check -> ruv_memory_write_back -> ruv_learner_observe(learner, &interaction, &err)
 *     user:    ruv_learner_feedback(learner, id, RUV_FEEDBACK_CORRECT, "02:00", &err)
 *     session: ruv_learner_adapter(learner, model, &adapter, &err); ruv_session_set_adapter(session, adapter, &err)
 *
 * Three loops, all of them on the learner's own thread, which runs at the lowest priority on a copy of the model of its own (the
 * file's pages are shared), so that no lock of the serving path is ever held by it:
 *   instant     an accepted or corrected interaction is one bounded gradient step of the candidate adapter (MicroLoRA)
 *   background  every so many of them, replay in the order of a curriculum with online EWC, then the gate
 *   deep        consolidation of the pattern bank into Concept nodes of the memory
 * The candidate becomes live only through the gate (ruv_gate_decide). Versions are files, a rollback is exact.
 *
 * Usable from C11 and C++. Threads: any, except where a function says otherwise. */
#ifndef RUVLLM_LEARN_H
#define RUVLLM_LEARN_H

#include "ruvllm/memory.h"
#include "ruvllm/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- trajectories and the reasoning bank ------------------------------------------------------------------------------- */

/* States and actions of one task with their quality: what Trajectory is in the design. One thread at a time. */
typedef struct ruv_trajectory ruv_trajectory;

/* `task`: the kind of work, "code-generation". */
RUV_API int ruv_trajectory_create(ruv_trajectory **out, const char *task, ruv_error *err);
RUV_API void ruv_trajectory_free(ruv_trajectory *trajectory); /* NULL is fine */
/* What was there: a text, and its embedding [dim] or NULL. */
RUV_API int ruv_trajectory_add_state(ruv_trajectory *trajectory, const char *state, const float *embedding, int dim,
                                     ruv_error *err);
/* What was done in the state before it, and how well, 0..1. RUV_EINVAL without a state. */
RUV_API int ruv_trajectory_add_action(ruv_trajectory *trajectory, const char *action, float quality, ruv_error *err);
RUV_API int ruv_trajectory_n_steps(const ruv_trajectory *trajectory);
/* Mean of the actions' qualities weighted towards the last one (each step back counts 0.9); 0 without an action. */
RUV_API float ruv_trajectory_quality(const ruv_trajectory *trajectory);

/* Recorded trajectories and the strategies distilled from them, in one file. Any thread; calls take turns. */
typedef struct ruv_bank ruv_bank;

/* Zeros take the value in brackets. */
typedef struct ruv_bank_options {
	int dim;              /* of embeddings; 0: whatever the bank has or gets first */
	int capacity;         /* trajectories kept [50000]; the variant says 50,000 or 100,000 */
	int n_strategies_max; /* [1000] */
	float success;        /* from this quality on a trajectory is a success [0.7] */
	float failure;        /* up to this one it is a failure [0.3] */
} ruv_bank_options;

/* path: a file that is made when it is not there; NULL: in memory only. */
RUV_API int ruv_bank_open(ruv_bank **out, const char *path, const ruv_bank_options *options, ruv_error *err);
RUV_API void ruv_bank_free(ruv_bank *bank);
/* Stores a copy; *id (NULL is fine) its number. When the bank is full, the least useful goes: lowest quality / (1 + age / 30 days)
 * + what its retrieval has earned. Survives kill -9 once it returns. */
RUV_API int ruv_bank_record(ruv_bank *bank, const ruv_trajectory *trajectory, int64_t *id, ruv_error *err);

typedef struct ruv_strategy {
	int64_t id;
	char *text;           /* what to do, or what to avoid */
	char *task;           /* of most of its trajectories */
	bool from_failures;   /* a warning rather than an advice */
	int n_trajectories;   /* behind it */
	float quality;        /* mean of those */
	float similarity;     /* to the query, in a result of ruv_bank_retrieve */
	int n_used, n_helped; /* how often it was retrieved, and followed by a success */
	int64_t updated_ms;
} ruv_strategy;

typedef struct ruv_strategies {
	ruv_strategy *items; /* [n] */
	int n;
} ruv_strategies;

RUV_API void ruv_strategies_release(ruv_strategies *strategies);

/* What consolidation did. */
typedef struct ruv_bank_report {
	int n_trajectories, n_clusters, n_merged, n_pruned, n_strategies;
	double ms;
} ruv_bank_report;

/* The deep loop: clusters the trajectories' embeddings (k-means++), merges near clusters, prunes small and old ones, and distils
 * one strategy from the successes and one from the failures of each. Memory (NULL is fine) gets a Concept node for every strategy,
 * linked to what it was derived from. */
RUV_API int ruv_bank_consolidate(ruv_bank *bank, ruv_memory *memory, const ruv_memory_scope *scope, ruv_bank_report *report,
                                 ruv_error *err);
/* Up to k strategies for a situation, best first: similarity x (0.5 + 0.5 x the share of uses that helped, with a prior of 1 in 2).
 */
RUV_API int ruv_bank_retrieve(ruv_bank *bank, const float *embedding, int dim, int k, float min_similarity, ruv_strategies *out,
                              ruv_error *err);
/* After the answer: did it go well with this strategy in the prompt? */
RUV_API int ruv_bank_outcome(ruv_bank *bank, int64_t strategy, bool helped, ruv_error *err);
RUV_API int ruv_bank_counts(ruv_bank *bank, int64_t *n_trajectories, int64_t *n_strategies, ruv_error *err);

/* ---- judging ----------------------------------------------------------------------------------------------------------- */

/* What the programmatic checks look at. NULL strings are "". */
typedef struct ruv_judged {
	const char *question, *answer;
	const char *const *sources; /* [n_sources] texts that were given to the model */
	int n_sources;
	bool must_cite;    /* the answer has to quote a source: "[1] sentence." and "Answer: ..." */
	float model_score; /* what the judging model said, 1..5; 0: it was not asked */
} ruv_judged;

/* All 0..1. Both kinds of score are kept: small models grade poorly. */
typedef struct ruv_verdict {
	float grounded;  /* share of the answer's content words and numbers that stand in the sources; 1 without sources */
	float complete;  /* share of what the question asks for (a number, a name, a time, every part) that the answer has */
	float format;    /* well-formed: not empty, no repetition, no leftovers of a prompt, cut off or not, citations that exist */
	float checks;    /* the three together */
	float model;     /* (model_score - 1) / 4; -1: not asked */
	float quality;   /* combined: what write-back and learning go by */
	bool refusal;    /* the answer says that it does not know */
	const char *why; /* a static text: what lowered it most, "" when nothing did */
} ruv_verdict;

/* How the scores are combined: quality = sigmoid(bias + sum of weight x score). Zeroed: the built-in calibration. */
typedef struct ruv_judge_weights {
	float bias, grounded, complete, format, model;
} ruv_judge_weights;

RUV_API int ruv_judge_check(ruv_verdict *verdict, const ruv_judged *what, const ruv_judge_weights *weights, ruv_error *err);

/* How well scores separate right (labels[i]) from wrong. */
typedef struct ruv_calibration {
	int n, n_right;
	double auc, correlation;                              /* ROC area, ties half; Pearson */
	double threshold;                                     /* with the best balanced accuracy */
	int true_right, false_right, true_wrong, false_wrong; /* at `threshold` */
	double brier;
} ruv_calibration;

RUV_API int ruv_judge_calibrate(ruv_calibration *out, const float *scores, const bool *labels, int n, ruv_error *err);
/* Weights fitted to labelled verdicts by logistic regression with a small penalty; use_model false leaves the model's score out. */
RUV_API int ruv_judge_fit(ruv_judge_weights *out, const ruv_verdict *verdicts, const bool *labels, int n, bool use_model,
                          ruv_error *err);

/* ---- the gate ---------------------------------------------------------------------------------------------------------- */

/* Measurements before and after a change, item by item; greater is better. */
typedef struct ruv_gate_input {
	const double *before, *after; /* [n] held-out items, paired */
	int n;
	const double *old_before, *old_after; /* [n_old] items of earlier tasks, 0..1, paired; NULL: there are none */
	int n_old;
	double base_nll_before, base_nll_after; /* mean negative log-likelihood per token of the base suite, nats */
	const double *shuffled_after; /* [n] the same items after training on shuffled answers; NULL: no control was run */
	uint64_t seed;                /* of the bootstrap */
} ruv_gate_input;

typedef struct ruv_gate_result {
	bool pass;
	double gain, gain_low, gain_high; /* mean of after - before, its 95 % interval (paired bootstrap, 10,000 resamples) */
	double shuffled_gain, shuffled_low, shuffled_high;
	double perplexity_ratio; /* after / before */
	double old_drop;         /* points of 100 */
	int n, n_old;
	char why[160]; /* which limits were broken; "" when it passes */
} ruv_gate_result;

enum { RUV_GATE_MIN_ITEMS = 8 /* held-out items below which nothing passes */ };

/* Passes when gain_low > 0, perplexity_ratio <= 1.01, old_drop <= 0.5, and the shuffled control shows no gain (shuffled_low <=
 * 0). Deterministic for a seed. */
RUV_API int ruv_gate_decide(ruv_gate_result *result, const ruv_gate_input *input, ruv_error *err);

/* ---- the learner ------------------------------------------------------------------------------------------------------- */

typedef struct ruv_learner ruv_learner;

/* One line of the history: a version, a gate that refused, a rollback, a boundary between tasks, what else was tended. */
typedef struct ruv_learner_event {
	int64_t time_ms;
	char what[16]; /* "published", "refused", "rollback", "paused", "resumed", "boundary", "merged", "router", "router kept" */
	int version;
	ruv_gate_result gate; /* of published, refused, router and router kept */
	int64_t n_steps;
} ruv_learner_event;

/* What learning may ask of the rest, on the learner's own thread. NULL: it does without (no embeddings: no patterns). */
typedef struct ruv_learner_callbacks {
	int (*embed)(void *user, const char *text, float *vector, ruv_error *err); /* vector: [embed_dim] */
	int embed_dim;
	/* Something else that learns at times (the router): called after each interaction and every few seconds while there is
	 * none, unless learning is paused. When it did something it fills in what, version and gate of *event, which goes into the
	 * history. */
	int (*tend)(void *user, ruv_learner_event *event, ruv_error *err);
	/* Does somebody wait for an answer now? Steps of training wait while it says so, up to a second each. Any thread. */
	bool (*busy)(void *user);
	void *user;
} ruv_learner_callbacks;

/* Zeros take the value in brackets. */
typedef struct ruv_learner_options {
	const char
	    *dir; /* DATA_DIR/learn; the versions, journal and reasoning bank lie in a directory of it that has the model's name */
	const char *model_path;           /* the generator that is adapted */
	const char *variant;              /* hooks, rank, capacity and threshold; NULL ["base"] */
	const char *user;                 /* whose interactions: those of others are refused; NULL [""] */
	int hooks[RUV_VARIANT_MAX_HOOKS]; /* layers, ascending, */
	int n_hooks;                      /* [the variant's] */
	int rank;                         /* 1..4 [the variant's] */
	float learning_rate;              /* of passes, a third of it of single steps [0.01] */
	float ewc_lambda;                 /* [the default of docs/learning.md] */
	bool no_replay, no_ewc;           /* for comparing */
	int queue_capacity;   /* interactions and feedback waiting [256]; when full the newest is refused with RUV_EBUSY */
	int replay_capacity;  /* [4096] */
	int background_every; /* accepted interactions between two background runs [32] */
	int held_out_every;   /* every so manyth accepted interaction is kept for the gate and never trained on [5] */
	float threshold;      /* of quality, from which an interaction without feedback counts as accepted; [never] */
	bool read_only;       /* to look at status and history beside a process that learns: changes nothing, trains nothing */
	bool no_thread;       /* nothing runs by itself: the caller drives it with ruv_learner_work */
	ruv_memory *memory;   /* Concept nodes go there; must outlive the learner; NULL: none */
	ruv_learner_callbacks callbacks;
} ruv_learner_options;

/* Opens what the directory has (the candidate goes on from the live version) and starts the thread.
 * RUV_EMISMATCH when the directory belongs to another model; RUV_EBUSY when another process learns in it. */
RUV_API int ruv_learner_open(ruv_learner **out, const ruv_learner_options *options, ruv_error *err);
/* Ends the thread after the step it is in; what waits in the queue is kept in the journal for the next start. */
RUV_API void ruv_learner_free(ruv_learner *learner);

/* One answered question. Strings are copied. */
typedef struct ruv_interaction {
	char id[RUV_ID_SIZE];      /* [a new one]: what feedback names */
	const char *user;          /* NULL is "" */
	const char *task;          /* kind of work, for task boundaries and strategies; NULL is "ask" */
	const char *question;      /* as the user wrote it */
	const char *prompt;        /* the last user message as the model got it (with sources); NULL: the question */
	const char *answer;        /* all that the model wrote */
	const char *short_answer;  /* the answer in it; NULL: answer */
	float quality;             /* of the verdict, 0..1 */
	float model_score;         /* 1..5, 0: not asked */
	const float *embedding;    /* [embed_dim] of the question, or NULL */
	const int64_t *strategies; /* [n_strategies] that stood in the prompt */
	int n_strategies;
} ruv_interaction;

/* Hands an interaction to the learner and returns at once (it copies and queues; never waits for training). Fills in id.
 * RUV_EBUSY: the queue is full, nothing was kept; RUV_EMISMATCH: another user's; RUV_ECANCELLED: paused. */
RUV_API int ruv_learner_observe(ruv_learner *learner, ruv_interaction *interaction, ruv_error *err);

typedef enum ruv_feedback {
	RUV_FEEDBACK_ACCEPT,  /* the answer was right */
	RUV_FEEDBACK_CORRECT, /* this would have been right */
	RUV_FEEDBACK_REJECT   /* it was wrong: recorded, no gradient */
} ruv_feedback;

/* What the user says about an observed answer; `correction` only with RUV_FEEDBACK_CORRECT. Queues, as observe. RUV_ENOTFOUND when
 * the id is none of the last 4,096 interactions. */
RUV_API int ruv_learner_feedback(ruv_learner *learner, const char *id, ruv_feedback feedback, const char *correction,
                                 ruv_error *err);
/* Question and right answer without a conversation before it: observe and correct in one. */
RUV_API int ruv_learner_teach(ruv_learner *learner, const char *task, const char *question, const char *answer, ruv_error *err);

/* The live adapter bound to `model`, which has to be the learner's own file; *out is NULL while none is live. The caller frees it.
 * A swap in between hands out the new one at the next call; sessions keep theirs. Cheap when nothing changed. */
RUV_API int ruv_learner_adapter(ruv_learner *learner, ruv_model *model, ruv_adapter **out, ruv_error *err);
/* Version that is live, 0: none. Part of every cache key. Lock-free. */
RUV_API int ruv_learner_live_version(const ruv_learner *learner);
/* The reasoning bank in the same directory; the learner's. */
RUV_API ruv_bank *ruv_learner_bank(ruv_learner *learner);

/* Paused: observe refuses, the thread rests. Persistent. */
RUV_API int ruv_learner_pause(ruv_learner *learner, bool paused, ruv_error *err);
/* Works on the calling thread until the queue is empty (with a thread: waits until it is). */
RUV_API int ruv_learner_work(ruv_learner *learner, ruv_error *err);
/* A background run now: replay, EWC, curriculum (n_epochs 0: the default). Calling thread (waits for a step that is running). */
RUV_API int ruv_learner_train(ruv_learner *learner, int n_epochs, ruv_error *err);
/* Measures the candidate against the live version (with the shuffled control when `control`), and makes it live when it passes and
 * `publish` is set. */
RUV_API int ruv_learner_gate(ruv_learner *learner, bool control, bool publish, ruv_gate_result *result, ruv_error *err);
/* Consolidates the reasoning bank. */
RUV_API int ruv_learner_consolidate(ruv_learner *learner, ruv_bank_report *report, ruv_error *err);
/* Makes an earlier version live again, exactly as it was (0: none, the bare model), and the candidate start from it.
 * RUV_ENOTFOUND. */
RUV_API int ruv_learner_rollback(ruv_learner *learner, int version, ruv_error *err);
/* Merges adapters of several domains into the candidate: the weighted sum of the changes of versions [n], brought back to the rank
 * by a truncated singular value decomposition. weights [n]; NULL: each 1. *kept (NULL is fine): the share of the sum's squared norm
 * that the rank could keep. What is live stays; the gate decides. RUV_ENOTFOUND names a version that is not there. */
RUV_API int ruv_learner_merge(ruv_learner *learner, const int *versions, const float *weights, int n, double *kept, ruv_error *err);
/* Copies a version's GGUF file (0: the live one). */
RUV_API int ruv_learner_export(ruv_learner *learner, int version, const char *path, ruv_error *err);

typedef struct ruv_learner_status {
	int live_version, last_version;
	bool paused, training;
	int n_queued, queue_capacity;
	int64_t n_observed, n_accepted, n_corrected, n_rejected, n_refused; /* refused: the queue was full */
	int64_t n_steps, n_replayed, n_held_out, n_skipped;                 /* skipped: too long, or empty */
	int n_replay, replay_capacity;
	int64_t n_params; /* of the adapter */
	int rank, n_hooks, hooks[RUV_VARIANT_MAX_HOOKS];
	int n_tasks;                 /* task boundaries seen */
	double last_loss, mean_loss; /* nats per target token: of the last step, running */
	double last_step_ms;
	int64_t n_trajectories, n_strategies;
	int64_t n_published, n_gates_refused, n_rollbacks; /* since it was opened: gates that passed and not, ways back */
	char error[160];                                   /* the last failure on the learner's thread, "" */
} ruv_learner_status;

RUV_API int ruv_learner_get_status(ruv_learner *learner, ruv_learner_status *status, ruv_error *err);

/* Newest first, up to `limit`; returns how many, or a status. */
RUV_API int ruv_learner_history(ruv_learner *learner, ruv_learner_event *events, int limit, ruv_error *err);

#ifdef __cplusplus
}
#endif
#endif
