/* agent.h - which agent a task belongs to: trained on examples, taught by examples, corrected by outcomes.
 *
 * Four views of a task are blended: a linear head over the words and the embedding, the nearest labelled examples by meaning
 * (HNSW), by words (BM25), and how each agent has done on tasks like it. The thirteen agents of the specification come with the
 * bundled file; users add their own by giving examples. What users teach is one append-only file beside the memory and is there
 * again after a restart.
 *
 *     ruv_agent_router_open(&agents, bundled, DATA/agents.log, NULL, &err);
 *     ruv_agent_route(agents, task, vector, &routed, &err);      routed.agent, .alternatives, .abstains, ...
 *     ruv_agent_outcome(agents, task, vector, "tester", true, NULL, &err);
 *
 * It never calls a model: embeddings come in as vectors, all of one encoder; NULL vectors are fine (words alone decide then).
 * Usable from C11 and C++.
 * Threads: any number of threads; teaching and outcomes wait for routing and the other way round. */
#ifndef RUVLLM_AGENT_H
#define RUVLLM_AGENT_H

#include "ruvllm/types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
	RUV_AGENT_MAX = 64,  /* agents of one router */
	RUV_AGENT_NAME = 48, /* bytes of a name with its NUL */
	RUV_AGENT_ALTERNATIVES = 3,
	RUV_AGENT_REASON = 200, /* bytes */
	RUV_AGENT_MAX_TASK = 65536
};

typedef struct ruv_agent_router ruv_agent_router;

/* What kind of work an agent does. */
typedef enum ruv_task_type {
	RUV_TASK_BUILD,
	RUV_TASK_INVESTIGATE,
	RUV_TASK_VERIFY,
	RUV_TASK_DESIGN,
	RUV_TASK_FIX,
	RUV_TASK_EXPLAIN,
	RUV_TASK_IMPROVE,
	RUV_TASK_OPERATE,
	RUV_TASK_PLAN,
	RUV_N_TASK_TYPES
} ruv_task_type;
RUV_API const char *ruv_task_type_name(int type);
/* -1 when there is none of that name. */
RUV_API int ruv_task_type_parse(const char *name);

typedef struct ruv_agent_info {
	const char *name, *purpose;
	ruv_task_type type;
	bool bundled;
	int n_examples, n_taught; /* taught: of them by the user */
	int n_good, n_bad;        /* outcomes */
} ruv_agent_info;

/* One that was considered. */
typedef struct ruv_agent_choice {
	char agent[RUV_AGENT_NAME];
	ruv_task_type type;
	float probability;
	float quality;                 /* 0..1 expected: how tasks like this went with it */
	char reason[RUV_AGENT_REASON]; /* a sentence: nearest example, words that spoke for it */
} ruv_agent_choice;

typedef struct ruv_agent_routed {
	bool abstains;      /* the task is none of theirs; `agent` is then only the least far */
	float out_of_scope; /* 0..1 */
	ruv_agent_choice agent;
	ruv_agent_choice alternatives[RUV_AGENT_ALTERNATIVES]; /* [n_alternatives] next best first */
	int n_alternatives;
	float complexity; /* 0 trivial .. 1 many steps */
	float confidence; /* of `agent` */
	int64_t ns;
} ruv_agent_routed;

/* Vectors for texts that were stored without one or by another encoder: fills vectors [n, dim] row by row. */
typedef int ruv_agent_embed_fn(void *user, const char *const *texts, int n, float *vectors, ruv_error *err);

/* Zeroed is fine: no vectors. */
typedef struct ruv_agent_options {
	int dim; /* of vectors; 0: words alone */
	const char *encoder, *encoder_version;
	ruv_agent_embed_fn *embed; /* called by open for examples of another encoder; NULL: those go without vectors */
	void *user;
	const char *without; /* ruv_agent_train: the bundled agent of this name does not take part; NULL: all do */
} ruv_agent_options;

/* bundled: the trained file, NULL for none (a router of the user's own agents alone). log_path: the user's examples and outcomes,
 * made when absent; NULL: kept in memory only. RUV_ENOTFOUND, RUV_EFORMAT, RUV_ECORRUPT, RUV_EUNSUPPORTED. A log whose last record
 * was cut off by a crash is opened without that record. */
RUV_API int ruv_agent_router_open(ruv_agent_router **out, const char *bundled, const char *log_path,
                                  const ruv_agent_options *options, ruv_error *err);
RUV_API void ruv_agent_router_free(ruv_agent_router *agents); /* NULL is fine */

/* vector: [dim] or NULL. RUV_EINVAL for an empty or too long task. */
RUV_API int ruv_agent_route(ruv_agent_router *agents, const char *task, const float *vector, ruv_agent_routed *routed,
                            ruv_error *err);
/* An example of an agent; an unknown name makes a new agent (purpose may be NULL, type -1: taken from its nearest bundled agent).
 */
RUV_API int ruv_agent_teach(ruv_agent_router *agents, const char *agent, const char *purpose, int type, const char *task,
                            const float *vector, ruv_error *err);
/* How a task went with an agent. A good one is an example of it; a bad one speaks against it there, and when `right` is given, for
 * that one. Counts from the next call on. */
RUV_API int ruv_agent_outcome(ruv_agent_router *agents, const char *task, const float *vector, const char *agent, bool good,
                              const char *right, ruv_error *err);
/* Forgets an agent of the user's and its examples. RUV_EINVAL for a bundled one. */
RUV_API int ruv_agent_forget(ruv_agent_router *agents, const char *agent, ruv_error *err);

/* The i-th agent; false past the end. Strings live until the agent is forgotten. */
RUV_API bool ruv_agent_at(ruv_agent_router *agents, int i, ruv_agent_info *info);

/* ---- training the bundled file ----------------------------------------------------------------------------------------- */

typedef struct ruv_agent_example {
	const char *agent; /* NULL or "": out of scope */
	const char *text;
	const float *vector; /* [dim] or NULL */
	float complexity;    /* 0..1; negative: not labelled */
} ruv_agent_example;

typedef struct ruv_agent_spec {
	const char *name, *purpose;
	ruv_task_type type;
} ruv_agent_spec;

/* The thirteen of the specification; NULL past the end. */
RUV_API const ruv_agent_spec *ruv_agent_spec_at(int i);

/* Trains head, blend and threshold on examples[0..n_train) with examples[n_train..n) for choosing the blend and threshold, and
 * writes the file whole or not at all. */
RUV_API int ruv_agent_train(const char *path, const ruv_agent_example *examples, int n_train, int n,
                            const ruv_agent_options *options, ruv_error *err);

#ifdef __cplusplus
}
#endif
#endif
