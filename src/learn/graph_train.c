/* graph_train.c - see graph_train.h.
 *
 * The file is a section file of kind RUVGRAPH, version 1: SHAPE (dim, projected, hidden, heads, layers as int32, prune as F32),
 * PARAMS (F32), ENCODER (64 + 24 bytes), GATE (n, version, pass as int32, then seven F32). Layer: learn. */
#include "learn/graph_train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "learn/section_file.h"
#include "learn/train_router.h"

static const char where[] = "graph";
static const char kind[8] = {'R', 'U', 'V', 'G', 'R', 'A', 'P', 'H'};
enum { FILE_VERSION = 1, BATCH = 8 };

/* Shares that training leaves out of a view each time. */
static const double drop_edge = 0.2, drop_row = 0.3;

void ruv_graph_sample_release(ruv_graph_sample *sample)
{
	ruv_graph_view_release(&sample->view);
	free(sample->gold);
	memset(sample, 0, sizeof *sample);
}

/* ---- measuring ---------------------------------------------------------------------------------------------------------- */

typedef struct place {
	float score;
	int at;
} place;

static int best_first(const void *a, const void *b)
{
	const place *x = a, *y = b;

	return x->score != y->score ? (x->score > y->score ? -1 : 1) : x->at - y->at;
}

static void judge(ruv_graph_quality *q, const ruv_graph_sample *s, const float *scores)
{
	place places[RUV_GRAPH_MOST];
	int n_found = 0;
	double gain = 0, ideal = 0;

	memset(q, 0, sizeof *q);
	if (s->n_gold < 1)
		return;
	for (int i = 0; i < s->view.n; i++)
		places[i] = (place){scores ? scores[i] : -(float)i, i};
	qsort(places, (size_t)s->view.n, sizeof *places, best_first);
	for (int i = 0; i < 10; i++) {
		const bool gold = i < s->view.n && s->gold[places[i].at];
		n_found += gold;
		gain += gold ? 1 / log2(i + 2.0) : 0;
		ideal += i < s->n_gold ? 1 / log2(i + 2.0) : 0;
		if (i == 0)
			q->recall_1 = (double)n_found / s->n_gold;
		if (i == 1)
			q->recall_2 = (double)n_found / s->n_gold;
		if (i == 4) {
			q->recall_5 = (double)n_found / s->n_gold;
			q->all_5 = n_found == s->n_gold;
		}
	}
	q->recall_10 = (double)n_found / s->n_gold;
	q->all_10 = n_found == s->n_gold;
	q->ndcg_10 = gain / ideal;
	for (int i = 0; i < s->view.n && q->mrr == 0; i++)
		if (s->gold[places[i].at])
			q->mrr = 1.0 / (i + 1);
}

/* A copy of the view's graph in which every edge comes from where another one came. */
static int rewire(ruv_gat_graph *graph, ruv_arena *arena, uint64_t seed)
{
	ruv_gat_edge *edges = ruv_arena_alloc(arena, sizeof *edges * ((size_t)graph->n_edges + 1));
	ruv_rng rng;

	if (!edges)
		return RUV_ENOMEM;
	memcpy(edges, graph->edges, sizeof *edges * (size_t)graph->n_edges);
	ruv_rng_init(&rng, seed);
	for (int i = graph->n_edges - 1; i > 0; i--) {
		const int j = (int)ruv_rng_below(&rng, (uint64_t)i + 1), from = edges[i].from;
		edges[i].from = edges[j].from;
		edges[j].from = from;
	}
	graph->edges = edges;
	return RUV_OK;
}

int ruv_graph_measure(ruv_graph_quality *quality, const ruv_graph_sample *sample, const ruv_gat_model *model, uint64_t rewired,
                      ruv_error *err)
{
	float scores[RUV_GRAPH_MOST];
	ruv_gat_graph graph = sample->view.graph;
	ruv_gat_pass *pass;
	ruv_arena arena;
	int rc = RUV_OK;

	if (!model || !sample->view.arena || !graph.n_edges) {
		judge(quality, sample, NULL);
		return RUV_OK;
	}
	ruv_arena_init(&arena);
	if (rewired && rewire(&graph, &arena, rewired))
		rc = ruv_fail_memory(err, where, sizeof(ruv_gat_edge) * (size_t)graph.n_edges);
	if (!rc)
		rc = ruv_gat_forward(&pass, scores, &model->shape, model->params, &graph, &arena, err);
	if (!rc) {
		ruv_graph_keep_first(&sample->view, scores);
		judge(quality, sample, scores);
	}
	ruv_arena_release(&arena);
	return rc;
}

static int mean_ndcg(double *mean, const ruv_graph_sample *samples, int n, const ruv_gat_model *model, ruv_error *err)
{
	double sum = 0;

	for (int i = 0; i < n; i++) {
		ruv_graph_quality q;
		int rc = ruv_graph_measure(&q, &samples[i], model, 0, err);
		if (rc)
			return rc;
		sum += q.ndcg_10;
	}
	*mean = n ? sum / n : 0;
	return RUV_OK;
}

/* ---- training ----------------------------------------------------------------------------------------------------------- */

/* A view's graph without some of its edges and vectors: what is learned from few questions must not hang on one of them. */
static int thin_out(ruv_gat_graph *graph, ruv_arena *arena, ruv_rng *rng)
{
	ruv_gat_edge *edges = ruv_arena_alloc(arena, sizeof *edges * ((size_t)graph->n_edges + 1));
	const float **rows = ruv_arena_alloc(arena, sizeof *rows * ((size_t)graph->n + 1));
	int n = 0;

	if (!edges || !rows)
		return RUV_ENOMEM;
	for (int e = 0; e < graph->n_edges; e++)
		if (ruv_rng_double(rng) >= drop_edge)
			edges[n++] = graph->edges[e];
	for (int i = 0; i < graph->n; i++)
		rows[i] = ruv_rng_double(rng) >= drop_row ? graph->rows[i] : NULL;
	graph->edges = edges;
	graph->n_edges = n;
	graph->rows = rows;
	return RUV_OK;
}

/* Listwise cross-entropy of one view, its gradient added. gold [n]. */
static int learn_one(double *loss, float *gradient, const ruv_gat_model *model, const ruv_graph_sample *s,
                     const unsigned char *gold, ruv_rng *rng, ruv_error *err)
{
	const int n = s->view.n, n_params = ruv_gat_n_params(&model->shape);
	const double sharpness = exp((double)model->params[n_params - 1]);
	float scores[RUV_GRAPH_MOST], d_scores[RUV_GRAPH_MOST];
	double p[RUV_GRAPH_MOST] = {0}, most = -INFINITY, sum = 0, d_sharpness = 0;
	ruv_gat_graph graph = s->view.graph;
	int n_gold = 0, rc;
	ruv_gat_pass *pass;
	ruv_arena arena;

	ruv_arena_init(&arena);
	rc = thin_out(&graph, &arena, rng);
	rc = rc ? ruv_fail_memory(err, where, sizeof(ruv_gat_edge) * (size_t)graph.n_edges)
	        : ruv_gat_forward(&pass, scores, &model->shape, model->params, &graph, &arena, err);
	for (int i = 0; !rc && i < n; i++) {
		p[i] = sharpness * (double)scores[i];
		most = p[i] > most ? p[i] : most;
		n_gold += gold[i];
	}
	for (int i = 0; !rc && i < n; i++)
		sum += exp(p[i] - most);
	for (int i = 0; !rc && i < n; i++) {
		const double logit = p[i], share = exp(logit - most) / sum, target = gold[i] ? 1.0 / n_gold : 0;
		*loss -= target * (logit - most - log(sum));
		d_scores[i] = (float)(sharpness * (share - target));
		d_sharpness += (share - target) * logit;
	}
	if (!rc)
		rc = ruv_gat_backward(pass, d_scores, gradient, err);
	if (!rc)
		gradient[n_params - 1] += (float)d_sharpness;
	ruv_arena_release(&arena);
	return rc;
}

typedef struct lesson {
	const ruv_graph_sample *sample;
	const unsigned char *gold;
} lesson;

/* Marks for the control: as many, anywhere. */
static unsigned char *shuffle_marks(const ruv_graph_sample *s, ruv_rng *rng)
{
	unsigned char *marks = malloc((size_t)s->view.n + 1);

	if (!marks)
		return NULL;
	memcpy(marks, s->gold, (size_t)s->view.n);
	for (int i = s->view.n - 1; i > 0; i--) {
		const int j = (int)ruv_rng_below(rng, (uint64_t)i + 1);
		const unsigned char mark = marks[i];
		marks[i] = marks[j];
		marks[j] = mark;
	}
	return marks;
}

static int run_epochs(float *params, const ruv_gat_shape *shape, lesson *lessons, int n, const ruv_graph_sample *validation,
                      int n_validation, const ruv_graph_training *t, ruv_rng *rng, ruv_error *err)
{
	const ruv_gat_model model = {*shape, params};
	const int n_params = ruv_gat_n_params(shape);
	const float rate = t->rate > 0 ? t->rate : 0.002F;
	float *gradient = malloc(sizeof *gradient * (size_t)n_params), *best = malloc(sizeof *best * (size_t)n_params);
	double best_value = -1, value = 0;
	ruv_adam adam = {0};
	int rc = gradient && best ? ruv_adam_init(&adam, n_params, rate, t->decay > 0 ? t->decay : 0.01F, err)
	                          : ruv_fail_memory(err, where, sizeof *gradient * (size_t)n_params);

	/* What it begins with is a candidate, too. */
	if (!rc && n_validation)
		rc = mean_ndcg(&best_value, validation, n_validation, &model, err);
	if (!rc)
		memcpy(best, params, sizeof *best * (size_t)n_params);
	for (int epoch = 0; !rc && epoch < t->n_epochs; epoch++) {
		double loss = 0;
		for (int i = n - 1; i > 0; i--) {
			const int j = (int)ruv_rng_below(rng, (uint64_t)i + 1);
			const lesson swap = lessons[i];
			lessons[i] = lessons[j];
			lessons[j] = swap;
		}
		adam.rate = rate * (float)(t->n_epochs - epoch) / (float)t->n_epochs;
		for (int i = 0; !rc && i < n; i += BATCH) {
			const int size = n - i < BATCH ? n - i : BATCH;
			double norm = 0;
			memset(gradient, 0, sizeof *gradient * (size_t)n_params);
			for (int j = i; !rc && j < i + size; j++)
				rc = learn_one(&loss, gradient, &model, lessons[j].sample, lessons[j].gold, rng, err);
			for (int j = 0; j < n_params; j++)
				norm += (double)gradient[j] * (double)gradient[j];
			norm = sqrt(norm) / size;
			for (int j = 0; j < n_params; j++) /* norm at most 1 */
				gradient[j] = (float)((double)gradient[j] / size / fmax(norm, 1));
			if (!rc)
				ruv_adam_step(&adam, params, gradient);
		}
		if (!rc && n_validation)
			rc = mean_ndcg(&value, validation, n_validation, &model, err);
		if (!rc && (!n_validation || value > best_value)) {
			best_value = value;
			memcpy(best, params, sizeof *best * (size_t)n_params);
		}
		if (!rc && t->progress && !t->progress(t->user, epoch + 1, t->n_epochs, loss / n, value))
			rc = ruv_fail(err, RUV_ECANCELLED, where, "stopped after %d of %d epochs", epoch + 1, t->n_epochs);
	}
	if (!rc)
		memcpy(params, best, sizeof *params * (size_t)n_params);
	ruv_adam_release(&adam);
	free(gradient);
	free(best);
	return rc;
}

int ruv_graph_train(float **out, ruv_gat_shape *shape, int dim, const ruv_graph_sample *samples, int n,
                    const ruv_graph_sample *validation, int n_validation, const ruv_graph_training *training, ruv_error *err)
{
	ruv_graph_training t = training ? *training : (ruv_graph_training){0};
	lesson *lessons = calloc((size_t)n + 1, sizeof *lessons);
	unsigned char **marks = calloc((size_t)n + 1, sizeof *marks);
	float *params = NULL;
	ruv_rng rng;
	int rc = lessons && marks ? RUV_OK : ruv_fail_memory(err, where, (size_t)n * sizeof *lessons), n_lessons = 0, n_params;

	t.n_epochs = t.n_epochs > 0 ? t.n_epochs : 24;
	*shape = (ruv_gat_shape){.dim = dim,
	                         .projected = t.projected > 0 ? t.projected : 16,
	                         .hidden = t.hidden > 0 ? t.hidden : 32,
	                         .heads = t.heads > 0 ? t.heads : 4,
	                         .layers = t.layers > 0 ? t.layers : 2,
	                         .prune = t.prune > 0 ? t.prune : 0.05F};
	if (!rc)
		rc = ruv_gat_check(shape, err);
	if (rc)
		goto done;
	ruv_rng_init(&rng, t.seed ? t.seed : 1);
	n_params = ruv_gat_n_params(shape);
	params = malloc(sizeof *params * (size_t)n_params);
	if (!params) {
		rc = ruv_fail_memory(err, where, sizeof *params * (size_t)n_params);
		goto done;
	}
	ruv_gat_init(params, shape, &rng);
	if (t.from)
		memcpy(params, t.from, sizeof *params * (size_t)n_params);
	for (int i = 0; !rc && i < n; i++) {
		bool any = false;
		for (int j = 0; j < samples[i].view.n; j++)
			any = any || samples[i].gold[j];
		if (!any || !samples[i].view.graph.n_edges)
			continue;
		if (t.shuffled && !(marks[i] = shuffle_marks(&samples[i], &rng)))
			rc = ruv_fail_memory(err, where, (size_t)samples[i].view.n);
		lessons[n_lessons++] = (lesson){&samples[i], t.shuffled ? marks[i] : samples[i].gold};
	}
	if (!rc && !n_lessons)
		rc = ruv_fail(err, RUV_EINVAL, where, "none of %d questions has evidence that the search or an edge leads to", n);
	if (!rc)
		rc = run_epochs(params, shape, lessons, n_lessons, validation, n_validation, &t, &rng, err);
done:
	for (int i = 0; marks && i < n; i++)
		free(marks[i]);
	free(marks);
	free(lessons);
	if (rc) {
		free(params);
		params = NULL;
	}
	*out = params;
	return rc;
}

/* ---- the file ----------------------------------------------------------------------------------------------------------- */

typedef struct file_shape {
	int32_t dim, projected, hidden, heads, layers;
	float prune;
} file_shape;

typedef struct file_gate {
	int32_t n, version, pass;
	float before, after, low, high, shuffled_low, shuffled_high, old_drop;
} file_gate;

int ruv_graph_weights_save(const ruv_graph_weights *w, const char *path, ruv_error *err)
{
	const ruv_gat_shape *s = &w->model.shape;
	const file_shape shape = {s->dim, s->projected, s->hidden, s->heads, s->layers, s->prune};
	const ruv_graph_gate *g = &w->gate;
	const file_gate gate = {g->n,   w->version, g->pass,         g->before,        g->after,
	                        g->low, g->high,    g->shuffled_low, g->shuffled_high, g->old_drop};
	char encoder[sizeof w->encoder + sizeof w->encoder_version];
	ruv_section_writer writer;
	int rc;

	memcpy(encoder, w->encoder, sizeof w->encoder);
	memcpy(encoder + sizeof w->encoder, w->encoder_version, sizeof w->encoder_version);
	ruv_section_writer_init(&writer);
	rc = ruv_section_put(&writer, "SHAPE", &shape, sizeof shape, err);
	if (!rc)
		rc = ruv_section_put(&writer, "PARAMS", w->params, sizeof(float) * (size_t)ruv_gat_n_params(s), err);
	if (!rc)
		rc = ruv_section_put(&writer, "ENCODER", encoder, sizeof encoder, err);
	if (!rc)
		rc = ruv_section_put(&writer, "GATE", &gate, sizeof gate, err);
	if (!rc)
		rc = ruv_section_commit(&writer, kind, FILE_VERSION, path, err);
	ruv_section_writer_release(&writer);
	return rc;
}

static int check_params(const float *params, int n, const char *path, ruv_error *err)
{
	for (int i = 0; i < n; i++)
		if (!isfinite(params[i]))
			return ruv_fail(err, RUV_ECORRUPT, where, "'%s': parameter %d is no number", path, i);
	return RUV_OK;
}

int ruv_graph_weights_load(ruv_graph_weights *w, const char *path, ruv_error *err)
{
	ruv_section_file file = {0};
	file_shape shape;
	file_gate gate;
	const void *bytes;
	size_t n_bytes;
	int rc;

	memset(w, 0, sizeof *w);
	rc = ruv_section_open(&file, path, kind, FILE_VERSION, err);
	if (!rc)
		rc = ruv_section_need(&file, "SHAPE", sizeof shape, &bytes, err);
	if (rc)
		goto done;
	memcpy(&shape, bytes, sizeof shape);
	w->model.shape = (ruv_gat_shape){shape.dim, shape.projected, shape.hidden, shape.heads, shape.layers, shape.prune};
	if (ruv_gat_check(&w->model.shape, NULL)) {
		rc = ruv_fail(err, RUV_ECORRUPT, where, "'%s': dimension %d, hidden size %d, %d heads, %d layers is no shape", path,
		              shape.dim, shape.hidden, shape.heads, shape.layers);
		goto done;
	}
	n_bytes = sizeof(float) * (size_t)ruv_gat_n_params(&w->model.shape);
	rc = ruv_section_need(&file, "PARAMS", n_bytes, &bytes, err);
	if (rc)
		goto done;
	w->params = malloc(n_bytes);
	if (!w->params) {
		rc = ruv_fail_memory(err, where, n_bytes);
		goto done;
	}
	memcpy(w->params, bytes, n_bytes);
	w->model.params = w->params;
	rc = check_params(w->params, ruv_gat_n_params(&w->model.shape), path, err);
	if (!rc)
		rc = ruv_section_need(&file, "ENCODER", sizeof w->encoder + sizeof w->encoder_version, &bytes, err);
	if (rc)
		goto done;
	memcpy(w->encoder, bytes, sizeof w->encoder - 1);
	memcpy(w->encoder_version, (const char *)bytes + sizeof w->encoder, sizeof w->encoder_version - 1);
	rc = ruv_section_need(&file, "GATE", sizeof gate, &bytes, err);
	if (rc)
		goto done;
	memcpy(&gate, bytes, sizeof gate);
	w->version = gate.version;
	w->gate = (ruv_graph_gate){.n = gate.n,
	                           .before = gate.before,
	                           .after = gate.after,
	                           .low = gate.low,
	                           .high = gate.high,
	                           .shuffled_low = gate.shuffled_low,
	                           .shuffled_high = gate.shuffled_high,
	                           .old_drop = gate.old_drop,
	                           .pass = gate.pass != 0};
done:
	ruv_section_release(&file);
	if (rc)
		ruv_graph_weights_release(w);
	return rc;
}

void ruv_graph_weights_release(ruv_graph_weights *w)
{
	free(w->params);
	memset(w, 0, sizeof *w);
}
