/* eval_retrieval.c - does the memory find the passage that holds the answer? Each method on the same store; see eval.h. */
#include "runtime/eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/status.h"
#include "runtime/rerank.h"
#include "ruvllm/memory.h"

enum { N_HITS = 100, EMBED_BATCH = 32 };

const char *ruv_eval_method_name(int method)
{
	static const char *const names[RUV_EVAL_N_METHODS] = {"bm25", "vector", "hybrid-rrf", "hybrid-zscore", "reranked"};
	return method >= 0 && method < RUV_EVAL_N_METHODS ? names[method] : "?";
}

struct retrieval {
	ruv_eval_retrieval_result *result;
	ruv_embedder *embedder;
	const ruv_eval_set *set;
	const ruv_eval_retrieval_params *params;
	int dim, n_questions, n_done;
	float *passages, *questions; /* [n_passages, dim], [n_rows, dim] */
	int *order;                  /* [n_rows] rows in the order they are asked */
	ruv_memory *memory;
	char (*ids)[RUV_ID_SIZE]; /* [n_passages] */
};

static int step(struct retrieval *r, int n, ruv_error *err)
{
	int total = r->set->n_passages + 2 * r->n_questions;
	r->n_done += n;
	if (r->params->progress && !r->params->progress(r->params->user, r->n_done, total))
		return ruv_fail(err, RUV_ECANCELLED, "eval", "stopped at step %d of %d", r->n_done, total);
	return RUV_OK;
}

static int embed_all(struct retrieval *r, ruv_error *err)
{
	const char *texts[EMBED_BATCH];
	int rc = RUV_OK;

	for (int i = 0; !rc && i < r->set->n_passages; i += EMBED_BATCH) {
		int n = r->set->n_passages - i < EMBED_BATCH ? r->set->n_passages - i : EMBED_BATCH;
		for (int j = 0; j < n; j++)
			texts[j] = r->set->passages[i + j].text;
		rc = ruv_embedder_embed(r->embedder, texts, n, RUV_EMBED_PASSAGE, r->passages + (size_t)i * (size_t)r->dim,
		                        r->params->cancel, err);
		if (!rc)
			rc = step(r, n, err);
	}
	for (int i = 0; !rc && i < r->n_questions; i += EMBED_BATCH) {
		int n = r->n_questions - i < EMBED_BATCH ? r->n_questions - i : EMBED_BATCH;
		for (int j = 0; j < n; j++)
			texts[j] = r->set->rows[r->order[i + j]].question;
		rc = ruv_embedder_embed(r->embedder, texts, n, RUV_EMBED_QUERY, r->questions + (size_t)i * (size_t)r->dim,
		                        r->params->cancel, err);
		if (!rc)
			rc = step(r, n, err);
	}
	return rc;
}

static int store_passages(struct retrieval *r, ruv_error *err)
{
	ruv_memory_node *nodes = calloc((size_t)r->set->n_passages, sizeof *nodes);
	int rc;

	if (!nodes)
		return ruv_fail_memory(err, "eval", (size_t)r->set->n_passages * sizeof *nodes);
	for (int i = 0; i < r->set->n_passages; i++) {
		nodes[i].type = RUV_NODE_DOCUMENT;
		nodes[i].text = r->set->passages[i].text;
		nodes[i].title = r->set->passages[i].title;
		nodes[i].vector = r->passages + (size_t)i * (size_t)r->dim;
	}
	rc = ruv_memory_add(r->memory, nodes, r->set->n_passages, err);
	for (int i = 0; !rc && i < r->set->n_passages; i++)
		memcpy(r->ids[i], nodes[i].id, RUV_ID_SIZE);
	free(nodes);
	return rc;
}

/* Puts the best hits in the order of the reranker. */
static int rerank(struct retrieval *r, const ruv_eval_row *row, ruv_memory_hits *hits, ruv_error *err)
{
	ruv_context_source passages[RUV_RERANK_PASSAGES];
	ruv_memory_hit kept[RUV_RERANK_PASSAGES];
	float bm25[RUV_RERANK_PASSAGES];
	int order[RUV_RERANK_PASSAGES], n = hits->n < RUV_RERANK_PASSAGES ? hits->n : RUV_RERANK_PASSAGES, rc;
	ruv_rerank_params params = {
	    .question = row->question, .passages = passages, .bm25 = bm25, .n = n, .cancel = r->params->cancel};
	int64_t started = ruv_clock_now_ns();

	for (int i = 0; i < n; i++) {
		kept[i] = hits->items[i];
		passages[i] = (ruv_context_source){kept[i].node.title, kept[i].node.text};
		bm25[i] = kept[i].bm25;
	}
	rc = ruv_rerank(order, r->params->reranker, &params, err);
	for (int i = 0; rc >= 0 && i < n; i++)
		hits->items[i] = kept[order[i]];
	r->result->rerank_seconds += (double)(ruv_clock_now_ns() - started) * 1e-9;
	return rc < 0 ? rc : RUV_OK;
}

static int ask_one(struct retrieval *r, int question, int method, ruv_error *err)
{
	const ruv_eval_row *row = &r->set->rows[r->order[question]];
	ruv_eval_ranking *ranking = &r->result->methods[method];
	ruv_memory_query query = {.text = row->question,
	                          .vector = r->questions + (size_t)question * (size_t)r->dim,
	                          .k = N_HITS,
	                          .mode = method == RUV_EVAL_BM25     ? RUV_SEARCH_LEXICAL
	                                  : method == RUV_EVAL_VECTOR ? RUV_SEARCH_VECTOR
	                                                              : RUV_SEARCH_HYBRID,
	                          .fusion = method >= RUV_EVAL_ZSCORE ? RUV_FUSE_ZSCORE : RUV_FUSE_RRF};
	ruv_memory_hits hits = {0};
	int rc = ruv_memory_search(r->memory, &hits, &query, err), rank = 0;

	if (!rc && method == RUV_EVAL_RERANKED)
		rc = rerank(r, row, &hits, err);
	if (rc) {
		ruv_memory_hits_release(&hits);
		return rc;
	}
	for (int i = 0; i < hits.n && !rank; i++)
		if (!strcmp(hits.items[i].node.id, r->ids[row->passage]))
			rank = i + 1;
	ruv_memory_hits_release(&hits);
	if (rank) {
		ranking->recall_1 += rank <= 1;
		ranking->recall_5 += rank <= 5;
		ranking->recall_10 += rank <= 10;
		ranking->mrr += 1.0 / rank;
		ranking->ndcg_10 += rank <= 10 ? 1.0 / log2(rank + 1.0) : 0;
	}
	return RUV_OK;
}

static double cosine(const float *a, const float *b, int dim)
{
	double sum = 0;
	for (int i = 0; i < dim; i++)
		sum += (double)a[i] * (double)b[i];
	return sum;
}

static int bin_of(double cos)
{
	int bin = (int)((cos + 1) / 2 * RUV_EVAL_COSINE_BINS);
	return bin < 0 ? 0 : bin >= RUV_EVAL_COSINE_BINS ? RUV_EVAL_COSINE_BINS - 1 : bin;
}

static void compare_cosines(struct retrieval *r, ruv_rng *rng)
{
	for (int i = 0; i < r->n_questions; i++) {
		const float *question = r->questions + (size_t)i * (size_t)r->dim;
		int own = r->set->rows[r->order[i]].passage, other = own;
		double related = cosine(question, r->passages + (size_t)own * (size_t)r->dim, r->dim), unrelated;

		while (other == own && r->set->n_passages > 1)
			other = (int)ruv_rng_below(rng, (uint64_t)r->set->n_passages);
		unrelated = cosine(question, r->passages + (size_t)other * (size_t)r->dim, r->dim);
		r->result->related[bin_of(related)]++;
		r->result->unrelated[bin_of(unrelated)]++;
		r->result->related_mean += related / r->n_questions;
		r->result->unrelated_mean += unrelated / r->n_questions;
	}
}

static int measure(struct retrieval *r, ruv_rng *rng, ruv_error *err)
{
	int64_t started = ruv_clock_now_ns();
	int rc = embed_all(r, err);

	if (rc)
		return rc;
	r->result->embed_seconds = (double)(ruv_clock_now_ns() - started) * 1e-9;
	compare_cosines(r, rng);
	rc = store_passages(r, err);
	started = ruv_clock_now_ns();
	for (int i = 0; !rc && i < r->n_questions; i++) {
		for (int method = 0; !rc && method < r->result->n_methods; method++)
			rc = ask_one(r, i, method, err);
		if (!rc)
			rc = step(r, 1, err);
	}
	r->result->search_seconds = (double)(ruv_clock_now_ns() - started) * 1e-9;
	for (int method = 0; method < RUV_EVAL_N_METHODS; method++) {
		ruv_eval_ranking *m = &r->result->methods[method];
		m->recall_1 /= r->n_questions;
		m->recall_5 /= r->n_questions;
		m->recall_10 /= r->n_questions;
		m->mrr /= r->n_questions;
		m->ndcg_10 /= r->n_questions;
	}
	return rc;
}

int ruv_eval_retrieval(ruv_eval_retrieval_result *result, ruv_embedder *embedder, const ruv_eval_set *set,
                       const ruv_eval_retrieval_params *params, ruv_error *err)
{
	struct retrieval r = {
	    .result = result, .embedder = embedder, .set = set, .params = params, .dim = ruv_embedder_dim(embedder)};
	ruv_memory_options options = {.embedder_id = "eval", .dimension = r.dim, .create = true};
	char dir[256] = "";
	ruv_rng rng;
	int rc = RUV_OK;

	memset(result, 0, sizeof *result);
	result->n_methods = params->reranker ? RUV_EVAL_N_METHODS : RUV_EVAL_RERANKED;
	if (!set->n_rows)
		return ruv_fail(err, RUV_EINVAL, "eval", "the set has no questions");
	ruv_rng_init(&rng, params->seed);
	r.n_questions = ruv_eval_set_sample(&r.order, set, params->limit, &rng, err);
	if (r.n_questions < 0)
		return r.n_questions;
	result->n_questions = r.n_questions;
	result->n_passages = set->n_passages;
	r.passages = malloc((size_t)set->n_passages * (size_t)r.dim * sizeof(float));
	r.questions = malloc((size_t)set->n_rows * (size_t)r.dim * sizeof(float));
	r.ids = malloc((size_t)set->n_passages * sizeof *r.ids);
	if (!r.passages || !r.questions || !r.ids) {
		rc = ruv_fail_memory(err, "eval", ((size_t)set->n_passages + (size_t)set->n_rows) * (size_t)r.dim * sizeof(float));
		goto done;
	}
	rc = ruv_dir_create_temporary(dir, sizeof dir, "eval", err);
	if (!rc)
		rc = ruv_memory_open(&r.memory, dir, &options, err);
	if (!rc)
		rc = measure(&r, &rng, err);
done:
	ruv_memory_free(r.memory);
	if (*dir)
		ruv_dir_remove(dir, NULL);
	free(r.order);
	free(r.ids);
	free(r.questions);
	free(r.passages);
	return rc;
}
