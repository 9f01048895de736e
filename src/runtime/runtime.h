/* runtime.h - the runtime's object, for the files of this layer. Everything but the config opens at its first use and is closed by
 * ruv_runtime_free. Threads: the config and settings never change; what opens later is behind `opening`, the embedder behind
 * `embedding` as well. What was opened stays where it is until the end, so that it may be used without a lock. Layer: runtime. */
#ifndef RUV_RUNTIME_RUNTIME_H
#define RUV_RUNTIME_RUNTIME_H

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/config.h"

enum { RUV_RUNTIME_MAX_MODELS = 8 };

struct ruv_runtime {
	ruv_config *config;
	ruv_settings settings;   /* strings in config */
	pthread_mutex_t opening; /* recursive: what opens may need what else opens */
	pthread_mutex_t embedding;
	ruv_engine *engine;
	bool packs; /* ruv_runtime_stays was called */
	struct {
		char *path;
		ruv_model *model;
	} models[RUV_RUNTIME_MAX_MODELS];
	int n_models;
	ruv_model *encoder;
	ruv_embedder *embedder;
	char encoder_version[17];           /* the beginning of its file's SHA-256 */
	ruv_memory *memory;                 /* opened with the encoder's name */
	ruv_memory *unbound_memory;         /* opened without it, before it was needed */
	_Atomic(ruv_scheduler *) scheduler; /* NULL until somebody serves */
	ruv_router *router;
	ruv_route_system system; /* what the operating system said at system_ns */
	int64_t system_ns;
	ruv_learner *learner;
	ruv_agent_router *agents;
	struct ruv_runtime_graph *graph; /* graph attention (graph.c); NULL until it is asked for, and when there is none */
	bool graph_absent;
	atomic_int n_asking;       /* questions that are being answered by ruv_ask */
	ruv_tracer *tracer;        /* NULL: no traces */
	struct ruv_recent *recent; /* the last answers, for feedback (aftermath.c) */
};

/* Holds the lock of what opens; the status of a failing call passes through. */
void ruv_runtime_lock(ruv_runtime *runtime);
int ruv_runtime_unlock(ruv_runtime *runtime, int rc);

/* The sampling that settings and model ask for. */
void ruv_runtime_sampling(const ruv_runtime *runtime, const ruv_model *model, ruv_sampling *sampling);

/* The name that the scheduler knows a model by: `which` as in ruv_runtime_model. */
const char *ruv_runtime_serving_name(const ruv_runtime *runtime, const char *which);

/* The vector of a question, [dim of the encoder]. RUV_ELIMIT when the question is longer than the encoder reads at a time. */
int ruv_runtime_embed_question(ruv_runtime *runtime, const char *question, float *vector, const ruv_cancel *cancel, ruv_error *err);

/* ruv_runtime_memory that leaves an absent store absent (RUV_ENOTFOUND) unless `create`. */
int ruv_runtime_bound_memory(ruv_runtime *runtime, bool create, ruv_memory **out, ruv_error *err);

#endif
