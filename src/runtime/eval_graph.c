/* eval_graph.c - see eval_graph.h. */
#include "runtime/eval_graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/status.h"
#include "runtime/context.h"

enum { EMBED_BATCH = 16 };

const char *ruv_eval_graph_name(int ranking)
{
	static const char *const names[RUV_EVAL_GRAPH_N] = {"hybrid", "hybrid + graph", "edges rewired"};
	return ranking >= 0 && ranking < RUV_EVAL_GRAPH_N ? names[ranking] : "?";
}

typedef struct reading {
	ruv_eval_graph_samples *out;
	ruv_embedder *embedder;
	const ruv_eval_set *set;
	const ruv_eval_graph_params *params;
	ruv_memory *memory;
	int dim, n_done, n_total;
} reading;

static int step(reading *r, int n, ruv_error *err)
{
	r->n_done += n;
	if (r->params->progress && !r->params->progress(r->params->user, r->n_done, r->n_total))
		return ruv_fail(err, RUV_ECANCELLED, "eval", "stopped at step %d of %d", r->n_done, r->n_total);
	return RUV_OK;
}

/* Title and text as `remember` gives them to the encoder. */
static char *passage_text(const ruv_eval_passage *passage)
{
	ruv_buf text;

	ruv_buf_init(&text, (size_t)RUV_MEMORY_MAX_TEXT * 2);
	if (*passage->title) {
		ruv_context_squash(&text, passage->title);
		ruv_buf_putc(&text, '\n');
	}
	ruv_context_squash(&text, passage->text);
	return ruv_buf_take(&text);
}

/* From the first one on that is not there yet: an interrupted run goes on. */
static int store_passages(reading *r, int first, ruv_error *err)
{
	ruv_memory_node nodes[EMBED_BATCH];
	char *texts[EMBED_BATCH];
	float *vectors = malloc(sizeof *vectors * EMBED_BATCH * (size_t)r->dim);
	int rc = vectors ? RUV_OK : ruv_fail_memory(err, "eval", sizeof *vectors * EMBED_BATCH * (size_t)r->dim);

	for (int i = first; !rc && i < r->set->n_passages; i += EMBED_BATCH) {
		const int n = r->set->n_passages - i < EMBED_BATCH ? r->set->n_passages - i : EMBED_BATCH;
		for (int j = 0; j < n; j++) {
			const ruv_eval_passage *p = &r->set->passages[i + j];
			texts[j] = passage_text(p);
			nodes[j] = (ruv_memory_node){.type = RUV_NODE_DOCUMENT,
			                             .text = p->text,
			                             .title = p->title,
			                             .source = p->title,
			                             .first_line = i + j + 1,
			                             .vector = vectors + (size_t)j * (size_t)r->dim};
			if (!texts[j])
				rc = ruv_fail_memory(err, "eval", strlen(p->text));
		}
		if (!rc)
			rc = ruv_embedder_embed(r->embedder, (const char *const *)texts, n, RUV_EMBED_PASSAGE, vectors,
			                        r->params->cancel, err);
		if (!rc)
			rc = ruv_memory_add(r->memory, nodes, n, err);
		for (int j = 0; j < n; j++)
			free(texts[j]);
		if (!rc)
			rc = step(r, n, err);
	}
	free(vectors);
	return rc;
}

static int mark(ruv_graph_sample *sample, const ruv_eval_set *set, const ruv_eval_row *row, ruv_error *err)
{
	sample->gold = calloc((size_t)sample->view.n + 1, 1);
	if (!sample->gold)
		return ruv_fail_memory(err, "eval", (size_t)sample->view.n);
	sample->n_gold = 1 + row->n_evidence;
	for (int i = 0; i < sample->view.n; i++) {
		const char *text = sample->view.arena ? sample->view.items[i].node.text : sample->view.hits.items[i].node.text;
		bool gold = !strcmp(text, set->passages[row->passage].text);
		for (int j = 0; !gold && j < row->n_evidence; j++)
			gold = !strcmp(text, set->passages[row->evidence[j]].text);
		sample->gold[i] = gold;
	}
	return RUV_OK;
}

static int ask(reading *r, const int *order, int n, ruv_error *err)
{
	float *vectors = malloc(sizeof *vectors * EMBED_BATCH * (size_t)r->dim);
	const char *texts[EMBED_BATCH];
	int rc = vectors ? RUV_OK : ruv_fail_memory(err, "eval", sizeof *vectors * EMBED_BATCH * (size_t)r->dim);

	for (int i = 0; !rc && i < n; i += EMBED_BATCH) {
		const int size = n - i < EMBED_BATCH ? n - i : EMBED_BATCH;
		for (int j = 0; j < size; j++)
			texts[j] = r->set->rows[order[i + j]].question;
		rc = ruv_embedder_embed(r->embedder, texts, size, RUV_EMBED_QUERY, vectors, r->params->cancel, err);
		for (int j = 0; !rc && j < size; j++) {
			const ruv_memory_query query = {
			    .text = texts[j], .vector = vectors + (size_t)j * (size_t)r->dim, .k = 10, .fusion = RUV_FUSE_ZSCORE};
			ruv_graph_sample *sample = &r->out->items[r->out->n];
			rc = ruv_graph_view_make(&sample->view, r->memory, &query, err);
			if (rc)
				break;
			r->out->n++;
			/* The question's vector lives in the view's arena already. */
			rc = mark(sample, r->set, &r->set->rows[order[i + j]], err);
		}
		if (!rc)
			rc = step(r, size, err);
	}
	free(vectors);
	return rc;
}

int ruv_eval_graph_read(ruv_eval_graph_samples *out, ruv_embedder *embedder, const ruv_eval_set *set,
                        const ruv_eval_graph_params *params, ruv_error *err)
{
	reading r = {.out = out, .embedder = embedder, .set = set, .params = params, .dim = ruv_embedder_dim(embedder)};
	const ruv_memory_options options = {.embedder_id = "eval", .dimension = r.dim, .create = true, .n_cached = -1};
	ruv_memory_stats stats;
	char dir[256] = "";
	int *order = NULL, n = 0, rc = RUV_OK;
	ruv_rng rng;

	memset(out, 0, sizeof *out);
	if (!set->n_rows)
		return ruv_fail(err, RUV_EINVAL, "eval", "the set has no questions");
	ruv_rng_init(&rng, params->seed);
	n = ruv_eval_set_sample(&order, set, params->limit, &rng, err);
	if (n < 0)
		return n;
	r.n_total = set->n_passages + n;
	out->n_passages = set->n_passages;
	out->items = calloc((size_t)n + 1, sizeof *out->items);
	if (!out->items) {
		rc = ruv_fail_memory(err, "eval", (size_t)n * sizeof *out->items);
		goto done;
	}
	if (!params->dir)
		rc = ruv_dir_create_temporary(dir, sizeof dir, "eval", err);
	if (!rc)
		rc = ruv_memory_open(&r.memory, params->dir ? params->dir : dir, &options, err);
	if (!rc)
		rc = ruv_memory_get_stats(r.memory, &stats, err);
	if (!rc && stats.n_nodes > set->n_passages)
		rc = ruv_fail(err, RUV_EMISMATCH, "eval", "'%s' has %lld passages, the set %d: another set's memory", params->dir,
		              (long long)stats.n_nodes, set->n_passages);
	if (!rc)
		r.n_done = (int)stats.n_nodes;
	if (!rc)
		rc = store_passages(&r, (int)stats.n_nodes, err);
	if (!rc)
		rc = ruv_memory_weave(r.memory, &out->woven, &params->weave, err);
	if (!rc)
		rc = ask(&r, order, n, err);
done:
	ruv_memory_free(r.memory);
	if (*dir)
		ruv_dir_remove(dir, NULL);
	free(order);
	if (rc)
		ruv_eval_graph_release(out);
	return rc;
}

void ruv_eval_graph_release(ruv_eval_graph_samples *samples)
{
	for (int i = 0; i < samples->n; i++)
		ruv_graph_sample_release(&samples->items[i]);
	free(samples->items);
	memset(samples, 0, sizeof *samples);
}

/* ---- measuring ---------------------------------------------------------------------------------------------------------- */

int ruv_eval_graph_values(double *values, const ruv_eval_graph_samples *samples, const ruv_gat_model *model, ruv_error *err)
{
	int rc = RUV_OK;

	for (int i = 0; !rc && i < samples->n; i++) {
		ruv_graph_quality q;
		rc = ruv_graph_measure(&q, &samples->items[i], model, 0, err);
		values[i] = q.ndcg_10;
	}
	return rc;
}

static int ascending(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void percentiles(double out[2], double *values, int n)
{
	qsort(values, (size_t)n, sizeof *values, ascending);
	out[0] = n ? values[n / 2] : 0;
	out[1] = n ? values[(int)(0.99 * (n - 1))] : 0;
}

static int gain_of(ruv_eval_gain *out, const double *before, const double *after, int n, uint64_t seed, ruv_error *err)
{
	const ruv_gate_input input = {.before = before, .after = after, .n = n, .seed = seed};
	ruv_gate_result result;
	int rc = ruv_gate_decide(&result, &input, err);

	if (!rc)
		*out = (ruv_eval_gain){result.gain, result.gain_low, result.gain_high};
	return rc;
}

int ruv_eval_graph(ruv_eval_graph_result *result, const ruv_eval_graph_samples *samples, const ruv_gat_model *model, uint64_t seed,
                   ruv_error *err)
{
	enum { NDCG, R5, ALL5, N_VALUES };
	const int n = samples->n;
	double *values = malloc(sizeof *values * ((size_t)n + 1) * (RUV_EVAL_GRAPH_N * N_VALUES + 3));
	int rc = values ? RUV_OK : ruv_fail_memory(err, "eval", sizeof *values * (size_t)n);
	double *times[3];

	memset(result, 0, sizeof *result);
	result->n = n;
#define VALUES(ranking, value) (values + ((size_t)(ranking)*N_VALUES + (size_t)(value)) * (size_t)n)
	for (int i = 0; i < 3 && values; i++)
		times[i] = VALUES(RUV_EVAL_GRAPH_N, i);
	for (int i = 0; !rc && i < n; i++) {
		const ruv_graph_sample *s = &samples->items[i];
		result->n_with_edges += s->view.graph.n_edges > 0;
		result->mean_nodes += (double)s->view.n / n;
		result->mean_edges += (double)s->view.graph.n_edges / n;
		times[0][i] = (double)s->view.search_cpu_ns * 1e-6;
		times[1][i] = (double)s->view.gather_cpu_ns * 1e-6;
		for (int ranking = 0; !rc && ranking < RUV_EVAL_GRAPH_N; ranking++) {
			ruv_graph_quality q;
			const int64_t then = ruv_clock_cpu_ns();
			rc = ruv_graph_measure(&q, s, ranking == RUV_EVAL_GRAPH_OFF ? NULL : model,
			                       ranking == RUV_EVAL_GRAPH_REWIRED ? seed + 1 + (uint64_t)i : 0, err);
			if (ranking == RUV_EVAL_GRAPH_ON)
				times[2][i] = (double)(ruv_clock_cpu_ns() - then) * 1e-6;
			for (size_t v = 0; !rc && v < sizeof q / sizeof(double); v++)
				((double *)&result->means[ranking])[v] += ((const double *)&q)[v] / n;
			VALUES(ranking, NDCG)[i] = q.ndcg_10;
			VALUES(ranking, R5)[i] = q.recall_5;
			VALUES(ranking, ALL5)[i] = q.all_5;
		}
	}
	if (!rc)
		rc = gain_of(&result->ndcg, VALUES(RUV_EVAL_GRAPH_OFF, NDCG), VALUES(RUV_EVAL_GRAPH_ON, NDCG), n, seed, err);
	if (!rc)
		rc = gain_of(&result->recall_5, VALUES(RUV_EVAL_GRAPH_OFF, R5), VALUES(RUV_EVAL_GRAPH_ON, R5), n, seed, err);
	if (!rc)
		rc = gain_of(&result->all_5, VALUES(RUV_EVAL_GRAPH_OFF, ALL5), VALUES(RUV_EVAL_GRAPH_ON, ALL5), n, seed, err);
	if (!rc)
		rc = gain_of(&result->rewired_ndcg, VALUES(RUV_EVAL_GRAPH_OFF, NDCG), VALUES(RUV_EVAL_GRAPH_REWIRED, NDCG), n, seed,
		             err);
	if (!rc) {
		percentiles(result->search_ms, times[0], n);
		percentiles(result->gather_ms, times[1], n);
		percentiles(result->score_ms, times[2], n);
	}
#undef VALUES
	free(values);
	return rc;
}
