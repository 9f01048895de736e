/* runtime.c - opens, owns and closes what the loop needs: engine, models, encoder, memory.
 *
 * A generator is opened once per file and shared by all who name it. The memory is bound to the encoder by the model's name and the
 * beginning of its file's SHA-256, so that vectors of two encoders never meet. Layer: runtime. */
#include "runtime/runtime.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"
#include "runtime/aftermath.h"
#include "runtime/graph.h"
#include "runtime/models.h"

static void init_locks(ruv_runtime *runtime)
{
	pthread_mutexattr_t recursive;

	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&runtime->opening, &recursive);
	pthread_mutexattr_destroy(&recursive);
	pthread_mutex_init(&runtime->embedding, NULL);
}

void ruv_runtime_lock(ruv_runtime *runtime)
{
	pthread_mutex_lock(&runtime->opening);
}

int ruv_runtime_unlock(ruv_runtime *runtime, int rc)
{
	pthread_mutex_unlock(&runtime->opening);
	return rc;
}

int ruv_runtime_open(ruv_runtime **out, const ruv_config *config, ruv_error *err)
{
	ruv_runtime *runtime = calloc(1, sizeof *runtime);
	int rc;

	if (!runtime)
		return ruv_fail_memory(err, "runtime", sizeof *runtime);
	init_locks(runtime);
	rc = ruv_config_copy(&runtime->config, config, err);
	if (rc)
		goto done;
	rc = ruv_config_settings(runtime->config, &runtime->settings, err);
	if (!rc && *runtime->settings.otlp_endpoint)
		rc = ruv_tracer_create(&runtime->tracer, runtime->settings.otlp_endpoint, err);
	if (rc)
		goto done;
	*out = runtime;
	runtime = NULL;
done:
	ruv_runtime_free(runtime);
	return rc;
}

void ruv_runtime_free(ruv_runtime *runtime)
{
	if (!runtime)
		return;
	ruv_scheduler_free(atomic_load(&runtime->scheduler));
	ruv_learner_free(runtime->learner);
	ruv_router_free(runtime->router);
	ruv_agent_router_free(runtime->agents);
	ruv_runtime_graph_free(runtime->graph);
	ruv_aftermath_release(runtime);
	ruv_memory_free(runtime->memory);
	ruv_memory_free(runtime->unbound_memory);
	ruv_embedder_free(runtime->embedder);
	ruv_model_free(runtime->encoder);
	for (int i = 0; i < runtime->n_models; i++) {
		ruv_model_free(runtime->models[i].model);
		free(runtime->models[i].path);
	}
	ruv_engine_free(runtime->engine);
	ruv_tracer_free(runtime->tracer);
	ruv_config_free(runtime->config);
	pthread_mutex_destroy(&runtime->embedding);
	pthread_mutex_destroy(&runtime->opening);
	free(runtime);
}

void ruv_runtime_stays(ruv_runtime *runtime)
{
	ruv_runtime_lock(runtime);
	runtime->packs = true;
	if (runtime->engine)
		ruv_engine_set_packing(runtime->engine, true);
	ruv_runtime_unlock(runtime, RUV_OK);
}

const char *ruv_runtime_data_dir(const ruv_runtime *runtime)
{
	return runtime->settings.data_dir;
}

ruv_memory_scope ruv_runtime_scope(const ruv_runtime *runtime)
{
	return (ruv_memory_scope){
	    .user = runtime->settings.user, .agent = runtime->settings.agent, .session = runtime->settings.session};
}

ruv_tracer *ruv_runtime_tracer(const ruv_runtime *runtime)
{
	return runtime->tracer;
}

int ruv_runtime_find_model(const ruv_runtime *runtime, const char *which, char *path, size_t cap, ruv_error *err)
{
	return ruv_models_find(&runtime->settings, which, path, cap, err);
}

int ruv_runtime_engine(ruv_runtime *runtime, ruv_engine **out, ruv_error *err)
{
	int rc = RUV_OK;

	ruv_runtime_lock(runtime);
	if (!runtime->engine) {
		rc = ruv_engine_open(&runtime->engine, (int)runtime->settings.threads, err);
		/* Packing pays after some hundred tokens: for who serves or chats, not for one question. */
		if (!rc)
			ruv_engine_set_packing(runtime->engine, runtime->packs);
	}
	*out = runtime->engine;
	return ruv_runtime_unlock(runtime, rc);
}

/* ---- models ------------------------------------------------------------------------------------------------------------ */

static int open_model(ruv_runtime *runtime, const char *path, const char *hex, bool is_generator, ruv_model **out, ruv_error *err)
{
	const ruv_settings *settings = &runtime->settings;
	ruv_model_options options = {.n_batch = (int)settings->batch};
	ruv_model_info info;
	bool listed;
	int rc = ruv_models_verify(path, hex, &listed, err);

	if (!rc)
		rc = ruv_runtime_engine(runtime, &options.engine, err);
	if (rc)
		return rc;
	if (is_generator && strcmp(settings->variant, "none"))
		options.variant = settings->variant;
	rc = ruv_model_open(out, path, &options, err);
	if (rc)
		return rc;
	ruv_model_get_info(*out, &info);
	if (is_generator && info.is_encoder)
		rc = ruv_fail(err, RUV_EMISMATCH, "runtime", "%s is a text encoder and cannot generate; set --model to a generator",
		              path);
	else if (!info.has_tokenizer)
		rc = ruv_fail(err, RUV_EUNSUPPORTED, "runtime", "%s has no tokenizer", path);
	if (rc) {
		ruv_model_free(*out);
		*out = NULL;
	}
	return rc;
}

/* The model of a file, opened if it is not yet. */
static int model_at(ruv_runtime *runtime, const char *path, bool is_generator, ruv_model **out, ruv_error *err)
{
	for (int i = 0; i < runtime->n_models; i++)
		if (!strcmp(runtime->models[i].path, path)) {
			*out = runtime->models[i].model;
			return RUV_OK;
		}
	if (runtime->n_models == RUV_RUNTIME_MAX_MODELS)
		return ruv_fail(err, RUV_ELIMIT, "runtime", "%d models are open already", runtime->n_models);

	char *copy = strdup(path);
	ruv_model *model = NULL;
	int rc;

	if (!copy)
		return ruv_fail_memory(err, "runtime", strlen(path));
	rc = open_model(runtime, path, NULL, is_generator, &model, err);
	if (rc) {
		free(copy);
		return rc;
	}
	runtime->models[runtime->n_models].path = copy;
	runtime->models[runtime->n_models++].model = model;
	*out = model;
	return RUV_OK;
}

int ruv_runtime_model(ruv_runtime *runtime, const char *which, ruv_model **out, ruv_error *err)
{
	char path[4096];
	int rc = ruv_models_find(&runtime->settings, which ? which : runtime->settings.model, path, sizeof path, err);

	if (rc)
		return rc;
	ruv_runtime_lock(runtime);
	/* "encoder" is asked for by the retrieval measurement */
	rc = model_at(runtime, path, !which || strcmp(which, "encoder"), out, err);
	return ruv_runtime_unlock(runtime, rc);
}

bool ruv_model_cites(const ruv_model *model)
{
	ruv_model_info info;
	char text[64];

	if (ruv_model_get_meta(model, "ruvllm.prompt_format", text, sizeof text) > 0)
		return true;
	ruv_model_get_info(model, &info); /* files made before the key was written */
	return !strncasecmp(info.name, "ruvllm-nano", 11);
}

static int open_embedder(ruv_runtime *runtime, ruv_error *err)
{
	char path[4096], hex[65];
	int rc = ruv_models_find(&runtime->settings, "encoder", path, sizeof path, err);

	if (!rc)
		rc = ruv_hash_file_sha256(hex, path, err);
	if (rc)
		return rc;
	memcpy(runtime->encoder_version, hex, sizeof runtime->encoder_version - 1);
	if (!runtime->encoder)
		rc = open_model(runtime, path, hex, false, &runtime->encoder, err);
	return rc ? rc : ruv_embedder_open(&runtime->embedder, runtime->encoder, 0, err);
}

int ruv_runtime_embedder(ruv_runtime *runtime, ruv_embedder **out, ruv_error *err)
{
	int rc = RUV_OK;

	ruv_runtime_lock(runtime);
	if (!runtime->embedder)
		rc = open_embedder(runtime, err);
	*out = runtime->embedder;
	return ruv_runtime_unlock(runtime, rc);
}

int ruv_runtime_embed_dim(ruv_runtime *runtime, ruv_error *err)
{
	ruv_embedder *embedder;
	int rc = ruv_runtime_embedder(runtime, &embedder, err);

	return rc ? rc : ruv_embedder_dim(embedder);
}

int ruv_runtime_embed(ruv_runtime *runtime, const char *const *texts, int n_texts, ruv_embed_kind kind, float *vectors,
                      const ruv_cancel *cancel, ruv_error *err)
{
	ruv_embedder *embedder;
	int rc = ruv_runtime_embedder(runtime, &embedder, err);

	if (rc)
		return rc;
	pthread_mutex_lock(&runtime->embedding);
	rc = ruv_embedder_embed(embedder, texts, n_texts, kind, vectors, cancel, err);
	pthread_mutex_unlock(&runtime->embedding);
	return rc;
}

int ruv_runtime_embed_question(ruv_runtime *runtime, const char *question, float *vector, const ruv_cancel *cancel, ruv_error *err)
{
	ruv_embedder *embedder;
	ruv_model_info info;
	int rc = ruv_runtime_embedder(runtime, &embedder, err), n;

	if (rc)
		return rc;
	n = ruv_embedder_count(embedder, question, strlen(question), RUV_EMBED_QUERY, err);
	if (n < 0)
		return n;
	if (n > ruv_embedder_n_ctx(embedder)) {
		ruv_model_get_info(runtime->encoder, &info);
		return ruv_fail(
		    err, RUV_ELIMIT, "ask",
		    "the question has %d tokens, but the encoder %s takes at most %d; ask a shorter question, or look for its "
		    "words alone (--search lexical)",
		    n, *info.name ? info.name : info.path, ruv_embedder_n_ctx(embedder));
	}
	return ruv_runtime_embed(runtime, &question, 1, RUV_EMBED_QUERY, vector, cancel, err);
}

/* ---- memory ------------------------------------------------------------------------------------------------------------ */

/* What may be read but not written, a memory on a read-only disk or of somebody else, is opened for reading alone. */
static int open_memory(ruv_runtime *runtime, ruv_memory **out, ruv_memory_options *options, ruv_error *err)
{
	int rc = ruv_memory_open(out, runtime->settings.data_dir, options, err);

	if (rc != RUV_EIO || options->create || access(runtime->settings.data_dir, W_OK) == 0)
		return rc;
	options->read_only = true;
	return ruv_memory_open(out, runtime->settings.data_dir, options, err);
}

static int open_bound_memory(ruv_runtime *runtime, bool create, ruv_error *err)
{
	ruv_memory_options options = {.create = create};
	ruv_embedder *embedder;
	ruv_model_info info;
	int rc = ruv_runtime_embedder(runtime, &embedder, err);

	if (rc)
		return rc;
	ruv_model_get_info(runtime->encoder, &info);
	options.embedder_id = info.name;
	options.embedder_version = runtime->encoder_version;
	options.dimension = ruv_embedder_dim(embedder);
	rc = create ? ruv_dir_create(runtime->settings.data_dir, err) : RUV_OK;
	return rc ? rc : open_memory(runtime, &runtime->memory, &options, err);
}

int ruv_runtime_bound_memory(ruv_runtime *runtime, bool create, ruv_memory **out, ruv_error *err)
{
	int rc = RUV_OK;

	ruv_runtime_lock(runtime);
	if (!runtime->memory)
		rc = open_bound_memory(runtime, create, err);
	*out = runtime->memory;
	return ruv_runtime_unlock(runtime, rc);
}

int ruv_runtime_memory(ruv_runtime *runtime, ruv_memory **out, ruv_error *err)
{
	return ruv_runtime_bound_memory(runtime, true, out, err);
}

int ruv_runtime_memory_if_any(ruv_runtime *runtime, ruv_memory **out, ruv_error *err)
{
	ruv_memory_options options = {.create = false};
	int rc = RUV_OK;

	ruv_runtime_lock(runtime);
	if (!runtime->memory && !runtime->unbound_memory)
		rc = open_memory(runtime, &runtime->unbound_memory, &options, err);
	*out = runtime->memory ? runtime->memory : runtime->unbound_memory;
	return ruv_runtime_unlock(runtime, rc);
}

/* ---- generating -------------------------------------------------------------------------------------------------------- */

void ruv_runtime_sampling(const ruv_runtime *runtime, const ruv_model *model, ruv_sampling *sampling)
{
	const ruv_settings *settings = &runtime->settings;

	memset(sampling, 0, sizeof *sampling);
	/* Models that cite copy sentences: always the likeliest token, and no penalty for repeating one. */
	if (!ruv_model_cites(model))
		ruv_model_default_sampling(model, sampling);
	if (!isnan(settings->temperature))
		sampling->temperature = (float)settings->temperature;
	if (settings->top_k >= 0)
		sampling->top_k = (int)settings->top_k;
	if (!isnan(settings->top_p))
		sampling->top_p = (float)settings->top_p;
	if (!isnan(settings->min_p))
		sampling->min_p = (float)settings->min_p;
	if (!isnan(settings->typical_p))
		sampling->typical_p = (float)settings->typical_p;
	if (!isnan(settings->repeat_penalty))
		sampling->repetition_penalty = (float)settings->repeat_penalty;
	sampling->seed = (uint64_t)settings->seed;
}

static ruv_kv_type kv_type_of(const ruv_settings *settings)
{
	return !strcmp(settings->kv_type, "q8_0") ? RUV_KV_Q8_0 : !strcmp(settings->kv_type, "f32") ? RUV_KV_F32 : RUV_KV_F16;
}

int ruv_runtime_session(ruv_runtime *runtime, const char *which, ruv_session **out, ruv_error *err)
{
	const ruv_settings *settings = &runtime->settings;
	ruv_session_options options = {.n_ctx = (int)settings->context};
	ruv_speculation speculation = {.prompt_lookup = true};
	ruv_model *model;
	int rc = ruv_runtime_model(runtime, which, &model, err);

	options.kv_type = kv_type_of(settings);
	if (!rc && strcmp(settings->draft, "no"))
		rc = ruv_runtime_model(runtime, settings->draft, &speculation.draft, err);
	if (!rc)
		rc = ruv_session_open(out, model, &options, err);
	if (!rc && speculation.draft && speculation.draft != model) { /* as in serving, a model does not draft for itself */
		rc = ruv_session_set_speculation(*out, &speculation, err);
		if (rc) {
			ruv_session_free(*out);
			*out = NULL;
		}
	}
	return rc;
}

/* ---- serving ----------------------------------------------------------------------------------------------------------- */

const char *ruv_runtime_serving_name(const ruv_runtime *runtime, const char *which)
{
	const char *name = which && strcmp(which, "auto") ? which : runtime->settings.model, *slash = strrchr(name, '/');

	if (!strcmp(name, "auto"))
		return "l";
	return slash && strlen(name) >= 64 ? slash + 1 : name;
}

/* Adds a model that is there; a tier that is not is left out unless it is the configured one. */
static int add_served(ruv_runtime *runtime, ruv_scheduler *scheduler, const char *which, ruv_error *err)
{
	const ruv_settings *settings = &runtime->settings;
	char path[4096];
	bool wanted = !strcmp(which, settings->model),
	     drafted = wanted && strcmp(settings->draft, "no") && strcmp(settings->draft, which);
	ruv_scheduler_model model = {.name = ruv_runtime_serving_name(runtime, which),
	                             .path = path,
	                             .variant = strcmp(settings->variant, "none") ? settings->variant : NULL,
	                             .n_ctx = (int)settings->context,
	                             .n_batch = (int)settings->batch,
	                             .kv_type = kv_type_of(settings),
	                             .draft = drafted ? ruv_runtime_serving_name(runtime, settings->draft) : NULL,
	                             .prompt_lookup = drafted};
	bool listed;
	int rc = ruv_models_find(settings, which, path, sizeof path, wanted ? err : NULL);

	if (rc)
		return rc == RUV_ENOTFOUND && !wanted ? RUV_OK : rc;
	rc = ruv_models_verify(path, NULL, &listed, err);
	if (rc)
		return rc;
	rc = ruv_scheduler_add_model(scheduler, &model, err);
	return rc == RUV_EEXIST ? RUV_OK : rc;
}

static int open_scheduler(ruv_runtime *runtime, ruv_error *err)
{
	const ruv_settings *settings = &runtime->settings;
	ruv_scheduler_options options = {.memory_bytes = (size_t)settings->models_memory,
	                                 .max_queue = (int)settings->max_queue,
	                                 .max_running = (int)settings->max_running};
	ruv_scheduler *scheduler;
	int rc;

	ruv_runtime_stays(runtime);
	rc = ruv_runtime_engine(runtime, &options.engine, err);

	if (!rc)
		rc = ruv_scheduler_open(&scheduler, &options, err);
	if (rc)
		return rc;
	if (strcmp(settings->draft, "no") && !ruv_models_bundled_name(settings->draft))
		rc = add_served(runtime, scheduler, settings->draft, err);
	for (int i = 0; !rc && ruv_models_role(i); i++)
		if (!ruv_models_role(i)[1]) /* tiers have names of one letter */
			rc = add_served(runtime, scheduler, ruv_models_role(i), err);
	if (!rc && !ruv_models_bundled_name(settings->model))
		rc = add_served(runtime, scheduler, settings->model, err);
	if (rc) {
		ruv_scheduler_free(scheduler);
		return rc;
	}
	atomic_store(&runtime->scheduler, scheduler);
	return RUV_OK;
}

int ruv_runtime_scheduler(ruv_runtime *runtime, ruv_scheduler **out, ruv_error *err)
{
	int rc = RUV_OK;

	ruv_runtime_lock(runtime);
	if (!atomic_load(&runtime->scheduler))
		rc = open_scheduler(runtime, err);
	*out = atomic_load(&runtime->scheduler);
	return ruv_runtime_unlock(runtime, rc);
}
