/* graph.c - see graph.h. Versions are DATA/graph/attention-N.bin, the live one is a copy of its bytes as attention.bin. */
#include "runtime/graph.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/status.h"
#include "runtime/models.h"

static const char where[] = "graph";

enum { MAX_FILE = 64 << 20, MIN_QUESTIONS = 20, HELD_OUT_EVERY = 5, MOST_ANSWERS = 2000 };

static int own_path(const ruv_runtime *runtime, int version, char *path, size_t cap, ruv_error *err)
{
	const char *dir = runtime->settings.data_dir;
	const int n = version ? snprintf(path, cap, "%s/graph/attention-%d.bin", dir, version)
	                      : snprintf(path, cap, "%s/graph/attention.bin", dir);

	return n < (int)cap ? RUV_OK : ruv_fail(err, RUV_ELIMIT, where, "the path of '%s' is too long", dir);
}

/* ---- what is used ------------------------------------------------------------------------------------------------------- */

/* Does it fit, and is it worth it? */
static void judge(const ruv_runtime *runtime, ruv_runtime_graph *g)
{
	const char *setting = runtime->settings.graph_attention;
	ruv_model_info info;

	ruv_model_get_info(runtime->encoder, &info);
	g->used = false;
	if (!strcmp(setting, "off"))
		g->why = "the setting graph-attention is off";
	else if (strcmp(g->weights.encoder, info.name) || strcmp(g->weights.encoder_version, runtime->encoder_version))
		g->why = "it was trained with another encoder";
	else if (!strcmp(setting, "on")) {
		g->used = true;
		g->why = "the setting graph-attention is on";
	} else if (strcmp(runtime->settings.search, "hybrid"))
		g->why = "it was measured with hybrid search alone";
	else {
		g->used = g->weights.gate.pass;
		g->why = g->used ? "it beat the search without it on held-out questions"
		                 : "it did not beat the search without it on held-out questions";
	}
}

static int open_graph(ruv_runtime *runtime, ruv_error *err)
{
	ruv_runtime_graph *g = calloc(1, sizeof *g);
	ruv_embedder *embedder;
	int rc;

	if (!g)
		return ruv_fail_memory(err, where, sizeof *g);
	rc = own_path(runtime, 0, g->path, sizeof g->path, err);
	if (!rc) {
		g->own = access(g->path, F_OK) == 0;
		if (!g->own)
			rc = ruv_models_find(&runtime->settings, "graph", g->path, sizeof g->path, err);
	}
	if (!rc)
		rc = ruv_graph_weights_load(&g->weights, g->path, err);
	if (!rc) /* for the encoder's name and version */
		rc = ruv_runtime_embedder(runtime, &embedder, err);
	if (rc) {
		free(g);
		return rc;
	}
	judge(runtime, g);
	runtime->graph = g;
	return RUV_OK;
}

int ruv_runtime_graph_state(ruv_runtime *runtime, const ruv_runtime_graph **out, ruv_error *err)
{
	ruv_error own = {0};
	int rc = RUV_OK;

	ruv_runtime_lock(runtime);
	if (!runtime->graph && !runtime->graph_absent) {
		rc = open_graph(runtime, &own);
		runtime->graph_absent = rc == RUV_ENOTFOUND;
	}
	*out = runtime->graph;
	if (rc && !runtime->graph_absent && err)
		*err = own;
	return ruv_runtime_unlock(runtime, runtime->graph_absent ? RUV_OK : rc);
}

int ruv_runtime_search(ruv_runtime *runtime, ruv_memory *memory, ruv_memory_hits *out, const ruv_memory_query *query,
                       ruv_graph_times *times, ruv_error *err)
{
	const char *setting = runtime->settings.graph_attention;
	const ruv_runtime_graph *g = NULL;
	int rc = RUV_OK;

	memset(times, 0, sizeof *times);
	if (strcmp(setting, "off") && query->vector)
		rc = ruv_runtime_graph_state(runtime, &g, err);
	if (!rc && !g && !strcmp(setting, "on"))
		rc = ruv_fail(err, RUV_ENOTFOUND, where,
		              "graph-attention is on, but neither this memory nor the models directory has its file");
	if (!rc && g && !g->used && !strcmp(setting, "on"))
		rc = ruv_fail(err, RUV_EMISMATCH, where, "graph-attention is on, but '%s' cannot be used: %s", g->path, g->why);
	if (rc)
		return rc;
	return g && g->used ? ruv_graph_search(memory, out, query, &g->weights.model, times, err)
	                    : ruv_memory_search(memory, out, query, err);
}

void ruv_runtime_graph_free(ruv_runtime_graph *graph)
{
	if (graph)
		ruv_graph_weights_release(&graph->weights);
	free(graph);
}

/* ---- learning from kept answers ----------------------------------------------------------------------------------------- */

/* The question of "Q: ...\nA: ..." on the heap; NULL when it has none (or memory is out: the answer is left out). */
static char *question_of(const char *text)
{
	const char *split = strncmp(text, "Q: ", 3) ? NULL : strstr(text, "\nA: ");

	return split && split > text + 3 ? strndup(text + 3, (size_t)(split - text) - 3) : NULL;
}

/* One kept answer as a sample: *usable false when nothing it cites can be found. The pairs themselves are left out of the search:
 * they hold the question. */
static int make_sample(ruv_runtime *runtime, ruv_memory *memory, ruv_graph_sample *sample, bool *usable,
                       const ruv_memory_node *node, ruv_error *err)
{
	const ruv_memory_filter all = {.every_scope = true};
	ruv_memory_graph around = {0};
	char *question = question_of(node->text);
	float *vector = NULL;
	int rc, n_marked = 0;

	*usable = false;
	memset(sample, 0, sizeof *sample);
	if (!question)
		return RUV_OK;
	rc = ruv_memory_neighbours(memory, &around, node->id, 1, 256, &all, err);
	if (!rc) {
		const int dim = ruv_runtime_embed_dim(runtime, err);
		vector = dim > 0 ? malloc(sizeof *vector * (size_t)dim) : NULL;
		rc = dim < 0  ? dim
		     : vector ? ruv_runtime_embed_question(runtime, question, vector, NULL, err)
		              : ruv_fail_memory(err, where, sizeof *vector * (size_t)dim);
	}
	if (!rc) {
		const ruv_memory_query query = {
		    .text = question,
		    .vector = vector,
		    .k = 10,
		    .fusion = RUV_FUSE_ZSCORE,
		    .filter = {.scope = node->scope, .types = ((1u << RUV_N_NODE_TYPES) - 1) & ~(1u << RUV_NODE_QA_PAIR)}};
		rc = ruv_graph_view_make(&sample->view, memory, &query, err);
	}
	if (!rc)
		sample->gold = calloc((size_t)sample->view.n + 1, 1);
	if (!rc && !sample->gold)
		rc = ruv_fail_memory(err, where, (size_t)sample->view.n);
	for (int e = 0; !rc && e < around.n_edges; e++) {
		if (around.edges[e].type != RUV_EDGE_CITES || strcmp(around.edges[e].src, node->id))
			continue;
		sample->n_gold++;
		for (int i = 0; sample->view.arena && i < sample->view.n; i++)
			if (!strcmp(sample->view.items[i].node.id, around.edges[e].dst)) {
				sample->gold[i] = 1;
				n_marked++;
			}
	}
	*usable = !rc && n_marked > 0 && sample->view.graph.n_edges > 0;
	if (!*usable)
		ruv_graph_sample_release(sample);
	ruv_memory_graph_release(&around);
	free(vector);
	free(question);
	return rc;
}

static int read_samples(ruv_runtime *runtime, ruv_graph_sample **samples, int *n, const ruv_graph_learning *learning,
                        ruv_graph_learned *learned, ruv_error *err)
{
	const ruv_memory_filter pairs = {.every_scope = true, .types = 1u << RUV_NODE_QA_PAIR};
	ruv_memory_nodes nodes = {0};
	ruv_memory *memory;
	int rc = ruv_runtime_memory(runtime, &memory, err);

	*n = 0;
	if (!rc)
		rc = ruv_memory_list(memory, &nodes, &pairs, false, 0, learning->most > 0 ? learning->most : MOST_ANSWERS, err);
	if (rc)
		return rc;
	learned->n_answers = nodes.n;
	*samples = calloc((size_t)nodes.n + 1, sizeof **samples);
	if (!*samples)
		rc = ruv_fail_memory(err, where, (size_t)nodes.n * sizeof **samples);
	for (int i = 0; !rc && i < nodes.n; i++) {
		bool usable;
		rc = ruv_cancel_is_set(learning->cancel)
		         ? ruv_fail(err, RUV_ECANCELLED, where, "stopped; nothing was changed")
		         : make_sample(runtime, memory, &(*samples)[*n], &usable, &nodes.items[i], err);
		*n += !rc && usable;
	}
	ruv_memory_nodes_release(&nodes);
	return rc;
}

static int values_of(double *values, const ruv_graph_sample *samples, int n, const ruv_gat_model *model, ruv_error *err)
{
	int rc = RUV_OK;

	for (int i = 0; !rc && i < n; i++) {
		ruv_graph_quality q;
		rc = ruv_graph_measure(&q, &samples[i], model, 0, err);
		values[i] = q.ndcg_10;
	}
	return rc;
}

/* The new parameters and their control on the held-out samples, decided by the gate. */
static int decide(ruv_graph_learned *learned, ruv_graph_weights *fresh, const ruv_gat_model *live, const ruv_gat_model *shuffled,
                  const ruv_graph_sample *held_out, int n, uint64_t seed, ruv_error *err)
{
	double *values = malloc(sizeof *values * ((size_t)n * 3 + 1));
	ruv_gate_input input = {.before = values, .after = values + n, .shuffled_after = values + 2 * n, .n = n, .seed = seed};
	int rc = values ? RUV_OK : ruv_fail_memory(err, where, sizeof *values * (size_t)n * 3);

	if (!rc)
		rc = values_of(values, held_out, n, live, err);
	if (!rc)
		rc = values_of(values + n, held_out, n, &fresh->model, err);
	if (!rc)
		rc = values_of(values + 2 * n, held_out, n, shuffled, err);
	if (!rc)
		rc = ruv_gate_decide(&learned->gate, &input, err);
	for (int i = 0; !rc && i < n; i++) {
		learned->before += values[i] / n;
		learned->after += values[n + i] / n;
	}
	if (!rc)
		fresh->gate = (ruv_graph_gate){.n = n,
		                               .before = (float)learned->before,
		                               .after = (float)learned->after,
		                               .low = (float)learned->gate.gain_low,
		                               .high = (float)learned->gate.gain_high,
		                               .shuffled_low = (float)learned->gate.shuffled_low,
		                               .shuffled_high = (float)learned->gate.shuffled_high,
		                               .pass = learned->gate.pass};
	free(values);
	return rc;
}

static int make_live(ruv_runtime *runtime, int version, ruv_error *err)
{
	char from[4300], to[4300], *bytes = NULL;
	size_t n_bytes;
	int rc = own_path(runtime, version, from, sizeof from, err);

	if (!rc)
		rc = own_path(runtime, 0, to, sizeof to, err);
	if (!rc)
		rc = ruv_file_read(&bytes, &n_bytes, from, MAX_FILE, err);
	if (!rc)
		rc = ruv_file_write(to, bytes, n_bytes, err);
	free(bytes);
	return rc;
}

static int publish(ruv_runtime *runtime, ruv_graph_weights *fresh, ruv_error *err)
{
	char path[4300];
	int rc, version = 0;

	snprintf(path, sizeof path, "%s/graph", runtime->settings.data_dir);
	if (mkdir(path, 0700) && errno != EEXIST)
		return ruv_fail_errno(err, RUV_EIO, errno, where, "the directory %s", path);
	do
		rc = own_path(runtime, ++version, path, sizeof path, err);
	while (!rc && access(path, F_OK) == 0);
	fresh->version = version;
	if (!rc)
		rc = ruv_graph_weights_save(fresh, path, err);
	return rc ? rc : make_live(runtime, version, err);
}

int ruv_runtime_graph_learn(ruv_runtime *runtime, const ruv_graph_learning *learning, ruv_graph_learned *learned, ruv_error *err)
{
	const ruv_runtime_graph *live;
	ruv_graph_sample *samples = NULL;
	ruv_graph_weights fresh = {0};
	ruv_gat_shape shape;
	float *shuffled = NULL;
	int n = 0, n_train, rc = ruv_runtime_graph_state(runtime, &live, err);
	ruv_graph_training training = {
	    .n_epochs = learning->n_epochs > 0 ? learning->n_epochs : 8, .rate = 0.0005F, .seed = learning->seed};

	memset(learned, 0, sizeof *learned);
	if (!rc)
		rc = read_samples(runtime, &samples, &n, learning, learned, err);
	learned->n_questions = n;
	if (!rc && n < MIN_QUESTIONS)
		rc = ruv_fail(
		    err, RUV_EINVAL, where,
		    "%d of %d kept answers cite passages that edges lie around, %d are needed; keep answers with --write-back, "
		    "and draw edges with ruvllm memory graph weave",
		    n, learned->n_answers, MIN_QUESTIONS);
	if (rc)
		goto done;
	learned->n_held_out = n / HELD_OUT_EVERY;
	n_train = n - learned->n_held_out;
	for (int i = HELD_OUT_EVERY - 1, end = n; i < n_train && end > n_train; i += HELD_OUT_EVERY - 1) { /* to the end */
		const ruv_graph_sample swap = samples[i];
		samples[i] = samples[--end];
		samples[end] = swap;
	}
	if (live) {
		const ruv_gat_shape *s = &live->weights.model.shape;
		training.projected = s->projected;
		training.hidden = s->hidden;
		training.heads = s->heads;
		training.layers = s->layers;
		training.prune = s->prune;
		training.from = live->weights.model.params;
	}
	const int dim = ruv_runtime_embed_dim(runtime, err);
	if (dim < 0 || (live && live->weights.model.shape.dim != dim)) {
		rc = dim < 0 ? dim
		             : ruv_fail(err, RUV_EMISMATCH, where, "'%s' is for vectors of %d numbers, the encoder's have %d",
		                        live->path, live->weights.model.shape.dim, dim);
		goto done;
	}
	rc = ruv_graph_train(&fresh.params, &shape, dim, samples, n_train, NULL, 0, &training, err);
	fresh.model = (ruv_gat_model){shape, fresh.params};
	training.shuffled = true;
	if (!rc)
		rc = ruv_graph_train(&shuffled, &shape, dim, samples, n_train, NULL, 0, &training, err);
	if (!rc)
		rc = decide(learned, &fresh, live && live->used ? &live->weights.model : NULL, &(ruv_gat_model){shape, shuffled},
		            samples + n_train, learned->n_held_out, learning->seed, err);
	if (!rc && (learned->gate.pass || learning->force)) {
		ruv_model_info info;
		ruv_model_get_info(runtime->encoder, &info);
		snprintf(fresh.encoder, sizeof fresh.encoder, "%s", info.name);
		snprintf(fresh.encoder_version, sizeof fresh.encoder_version, "%s", runtime->encoder_version);
		rc = publish(runtime, &fresh, err);
		learned->version = rc ? 0 : fresh.version;
	}
done:
	for (int i = 0; i < n; i++)
		ruv_graph_sample_release(&samples[i]);
	free(samples);
	free(shuffled);
	ruv_graph_weights_release(&fresh);
	return rc;
}

int ruv_runtime_graph_rollback(ruv_runtime *runtime, int version, ruv_error *err)
{
	ruv_graph_weights weights;
	char path[4300];
	int rc;

	if (version < 0)
		return ruv_fail(err, RUV_EINVAL, where, "there is no version %d", version);
	rc = own_path(runtime, version, path, sizeof path, err);
	if (rc)
		return rc;
	if (!version)
		return unlink(path) && errno != ENOENT ? ruv_fail_errno(err, RUV_EIO, errno, where, "%s", path) : RUV_OK;
	rc = ruv_graph_weights_load(&weights, path, err);
	if (rc)
		return rc;
	ruv_graph_weights_release(&weights);
	return make_live(runtime, version, err);
}
