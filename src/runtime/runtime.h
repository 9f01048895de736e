/* runtime.h - the runtime's object, for the files of this layer. Everything but the config opens at its first use and is closed by
 * ruv_runtime_free. Layer: runtime. */
#ifndef RUV_RUNTIME_RUNTIME_H
#define RUV_RUNTIME_RUNTIME_H

#include "runtime/config.h"

enum { RUV_RUNTIME_MAX_MODELS = 8 };

struct ruv_runtime {
	ruv_config *config;
	ruv_settings settings; /* strings in config */
	ruv_engine *engine;
	struct {
		char *path;
		ruv_model *model;
	} models[RUV_RUNTIME_MAX_MODELS];
	int n_models;
	ruv_model *encoder;
	ruv_embedder *embedder;
	char encoder_version[17]; /* the beginning of its file's SHA-256 */
	ruv_memory *memory;
	bool memory_is_bound; /* opened with the encoder's name */
};

/* The sampling that settings and model ask for. */
void ruv_runtime_sampling(const ruv_runtime *runtime, const ruv_model *model, ruv_sampling *sampling);

/* The vector of a question, [dim of the encoder]. RUV_ELIMIT when the question is longer than the encoder reads at a time. */
int ruv_runtime_embed_question(ruv_runtime *runtime, const char *question, float *vector, const ruv_cancel *cancel, ruv_error *err);

/* ruv_runtime_memory that leaves an absent store absent (RUV_ENOTFOUND) unless `create`. */
int ruv_runtime_bound_memory(ruv_runtime *runtime, bool create, ruv_memory **out, ruv_error *err);

#endif
