/* agents.c - the runtime's router of agents: opened at its first use from the bundled file and what this data directory was taught.
 *
 * Tasks are seen through the configured encoder; one that is longer than it reads is seen by its beginning. Teaching and outcomes
 * are kept in DATA_DIR/agents.log, which another process that has it open sees at its next start. A data directory that cannot be
 * written leaves them in memory. Layer: runtime. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/status.h"
#include "runtime/models.h"
#include "runtime/runtime.h"

static const char where[] = "agents";

/* Cuts the task's end off until the encoder takes it. */
static int cut(ruv_embedder *embedder, char *task, ruv_error *err)
{
	const int most = ruv_embedder_n_ctx(embedder);
	size_t n = strlen(task);

	while (n > 8) {
		int count = ruv_embedder_count(embedder, task, n, RUV_EMBED_QUERY, err);

		if (count <= most)
			return count < 0 ? count : RUV_OK;
		n = n * (size_t)most / (size_t)count - 1;
		while (n && ((unsigned char)task[n] & 0xc0) == 0x80)
			n--;
		task[n] = 0;
	}
	return RUV_OK;
}

int ruv_runtime_task_vector(ruv_runtime *runtime, const char *task, float *vector, const ruv_cancel *cancel, ruv_error *err)
{
	ruv_embedder *embedder;
	int rc = ruv_runtime_embedder(runtime, &embedder, err);
	char *part = strdup(task);

	if (!rc && !part)
		rc = ruv_fail_memory(err, where, strlen(task));
	if (!rc)
		rc = cut(embedder, part, err);
	if (!rc)
		rc = ruv_runtime_embed(runtime, (const char *const[]){part}, 1, RUV_EMBED_QUERY, vector, cancel, err);
	free(part);
	return rc;
}

static int embed_tasks(void *user, const char *const *tasks, int n, float *vectors, ruv_error *err)
{
	int dim = ruv_runtime_embed_dim(user, err), rc = dim < 0 ? dim : RUV_OK;

	for (int i = 0; i < n && !rc; i++)
		rc = ruv_runtime_task_vector(user, tasks[i], vectors + (size_t)i * (size_t)dim, NULL, err);
	return rc;
}

static int open_agents(ruv_runtime *runtime, ruv_error *err)
{
	const char *dir = runtime->settings.data_dir;
	char path[4096], encoder[4096], log[4096];
	ruv_agent_options options = {.embed = embed_tasks, .user = runtime};
	const char *bundled = NULL, *log_path = NULL, *slash;
	ruv_error missing = {0};
	int rc;

	options.dim = ruv_runtime_embed_dim(runtime, err);
	if (options.dim < 0)
		return options.dim;
	rc = ruv_models_find(&runtime->settings, "encoder", encoder, sizeof encoder, err);
	if (rc)
		return rc;
	slash = strrchr(encoder, '/');
	options.encoder = slash ? slash + 1 : encoder;
	options.encoder_version = runtime->encoder_version;
	if (!ruv_models_find(&runtime->settings, "agents", path, sizeof path, &missing))
		bundled = path;
	else
		ruv_log(RUV_LOG_WARN, where, "only agents that were taught here are known: %s", missing.message);
	if (!ruv_dir_create(dir, NULL) && !access(dir, W_OK) && snprintf(log, sizeof log, "%s/agents.log", dir) < (int)sizeof log)
		log_path = log;
	else
		ruv_log(RUV_LOG_WARN, where, "%s cannot be written: what is taught is forgotten at the end", dir);
	return ruv_agent_router_open(&runtime->agents, bundled, log_path, &options, err);
}

int ruv_runtime_agents(ruv_runtime *runtime, ruv_agent_router **out, ruv_error *err)
{
	int rc = RUV_OK;

	ruv_runtime_lock(runtime);
	if (!runtime->agents)
		rc = open_agents(runtime, err);
	*out = runtime->agents;
	return ruv_runtime_unlock(runtime, rc);
}
