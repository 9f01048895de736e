/* agent_model.c - see agent_model.h. Layer: learn. */
#include "learn/agent_model.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "learn/grams.h"
#include "learn/knn.h"
#include "learn/vec.h"

enum {
	HEAD_GRAMS = RUV_GRAM_WORD | RUV_GRAM_PAIR | RUV_GRAM_PREFIX | RUV_GRAM_SHAPE,
	WORD_GRAMS = RUV_GRAM_WORD | RUV_GRAM_PREFIX,
	N_NEAR = 24,
	TEXT_BYTES = 4000 /* of a task that are looked at */
};

/* ---- tasks ------------------------------------------------------------------------------------------------------------- */

int ruv_agent_model_init(ruv_agent_model *m, int dim, ruv_error *err)
{
	ruv_hnsw_params params;
	size_t n_rows = RUV_AGENT_BUCKETS + (size_t)dim;

	memset(m, 0, sizeof *m);
	m->dim = dim;
	m->stride = (dim + 15) & ~15;
	m->weights = calloc(n_rows * RUV_AGENT_CLASSES, sizeof *m->weights);
	m->idf = calloc(RUV_AGENT_BUCKETS, sizeof *m->idf);
	m->heads = malloc(RUV_AGENT_BUCKETS * sizeof *m->heads);
	m->frequency = calloc(RUV_AGENT_BUCKETS, sizeof *m->frequency);
	if (!m->weights || !m->idf || !m->heads || !m->frequency) {
		ruv_agent_model_release(m);
		return ruv_fail_memory(err, "agent", n_rows * RUV_AGENT_CLASSES * sizeof(float));
	}
	for (int i = 0; i < RUV_AGENT_BUCKETS; i++) {
		m->heads[i] = -1;
		m->idf[i] = 1;
	}
	m->settings =
	    (ruv_agent_settings){.view = {1, 0.5f, 0.5f}, .band = 0.08f, .temperature = 1, .threshold = 0.5f, .vector_scale = 3};
	if (dim) {
		int rc;

		ruv_hnsw_params_for(&params, dim, RUV_HNSW_IP, 10000);
		params.max_nodes = 1 << 20;
		rc = ruv_hnsw_create(&m->index, &params, err);
		if (rc) {
			ruv_agent_model_release(m);
			return rc;
		}
	}
	return RUV_OK;
}

void ruv_agent_model_release(ruv_agent_model *m)
{
	for (int i = 0; i < RUV_AGENT_MAX; i++)
		free(m->agents[i].purpose);
	for (int i = 0; i < m->n_tasks; i++) {
		free(m->tasks[i].text);
		free(m->tasks[i].vector);
	}
	free(m->tasks);
	free(m->weights);
	free(m->idf);
	free(m->heads);
	free(m->frequency);
	free(m->postings);
	ruv_hnsw_free(m->index);
	memset(m, 0, sizeof *m);
}

int ruv_agent_model_find(const ruv_agent_model *m, const char *name)
{
	for (int i = 0; i < RUV_AGENT_MAX; i++)
		if (m->agents[i].used && !strcmp(m->agents[i].name, name))
			return i;
	return -1;
}

int ruv_agent_model_agent(ruv_agent_model *m, const char *name, const char *purpose, ruv_task_type type, bool bundled,
                          ruv_error *err)
{
	int i = ruv_agent_model_find(m, name);

	if (i >= 0)
		return i;
	if (!*name || strlen(name) >= RUV_AGENT_NAME)
		return ruv_fail(err, RUV_EINVAL, "agent", "an agent's name has 1 to %d bytes", RUV_AGENT_NAME - 1);
	for (i = 0; i < RUV_AGENT_MAX && m->agents[i].used; i++)
		;
	if (i == RUV_AGENT_MAX)
		return ruv_fail(err, RUV_ELIMIT, "agent", "there are %d agents already", RUV_AGENT_MAX);
	m->agents[i] = (ruv_agent){.type = type, .used = true, .bundled = bundled, .purpose = strdup(purpose ? purpose : "")};
	if (!m->agents[i].purpose) {
		m->agents[i].used = false;
		return ruv_fail_memory(err, "agent", strlen(purpose));
	}
	snprintf(m->agents[i].name, sizeof m->agents[i].name, "%s", name);
	for (int g = 0; g < RUV_AGENT_BUCKETS + m->dim; g++)
		m->weights[(size_t)g * RUV_AGENT_CLASSES + (size_t)i] = 0;
	m->bias[i] = 0;
	return i;
}

static size_t text_bytes(const char *text)
{
	return strnlen(text, TEXT_BYTES);
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* The buckets of a text's words, each once, with their counts. */
static int words_of(const char *text, uint32_t *buckets, float *counts)
{
	uint32_t grams[RUV_AGENT_MAX_GRAMS];
	int n = ruv_grams(grams, RUV_AGENT_MAX_GRAMS, text, text_bytes(text), WORD_GRAMS), kept = 0;

	for (int i = 0; i < n; i++)
		grams[i] %= RUV_AGENT_BUCKETS;
	qsort(grams, (size_t)n, sizeof *grams, by_number);
	for (int i = 0; i < n; i++)
		if (kept && buckets[kept - 1] == grams[i]) {
			counts[kept - 1]++;
		} else {
			buckets[kept] = grams[i];
			counts[kept++] = 1;
		}
	return kept;
}

static float idf_of(const ruv_agent_model *m, uint32_t bucket)
{
	float n = (float)m->n_tasks, f = (float)m->frequency[bucket];

	return logf(1 + (n - f + 0.5f) / (f + 0.5f));
}

static int add_postings(ruv_agent_model *m, int task, ruv_error *err)
{
	uint32_t buckets[RUV_AGENT_MAX_GRAMS];
	float counts[RUV_AGENT_MAX_GRAMS];
	int n = words_of(m->tasks[task].text, buckets, counts);

	if (m->n_postings + n > m->postings_cap) {
		int cap = 2 * (m->n_postings + n) + 4096;
		struct posting *more = realloc(m->postings, sizeof *more * (size_t)cap);

		if (!more)
			return ruv_fail_memory(err, "agent", sizeof *more * (size_t)cap);
		m->postings = more;
		m->postings_cap = cap;
	}
	for (int i = 0; i < n; i++) {
		m->postings[m->n_postings] = (struct posting){task, m->heads[buckets[i]], counts[i]};
		m->heads[buckets[i]] = m->n_postings++;
		m->frequency[buckets[i]]++;
		m->tasks[task].n_words += (int)counts[i];
	}
	m->total_words += m->tasks[task].n_words;
	return RUV_OK;
}

static const float *row_of(void *arg, uint32_t id, int64_t key)
{
	const ruv_agent_model *m = arg;

	(void)id;
	return key > 0 && key <= m->n_tasks ? m->tasks[key - 1].vector : NULL;
}

static const float *new_row(void *arg, uint32_t i, int64_t key)
{
	(void)i;
	(void)key;
	return arg;
}

int ruv_agent_model_add(ruv_agent_model *m, int agent, const char *text, const float *vector, float weight, bool is_outcome,
                        bool taught, float complexity, ruv_error *err)
{
	ruv_agent_task *task;
	int rc;

	if (m->n_tasks == m->cap) {
		int cap = m->cap ? 2 * m->cap : 1024;
		ruv_agent_task *more = realloc(m->tasks, sizeof *more * (size_t)cap);

		if (!more)
			return ruv_fail_memory(err, "agent", sizeof *more * (size_t)cap);
		m->tasks = more;
		m->cap = cap;
	}
	task = &m->tasks[m->n_tasks];
	*task = (ruv_agent_task){.agent = agent,
	                         .weight = weight,
	                         .is_outcome = is_outcome,
	                         .taught = taught,
	                         .complexity = complexity,
	                         .text = strdup(text)};
	if (!task->text)
		return ruv_fail_memory(err, "agent", strlen(text));
	if (vector && m->dim) {
		task->vector = aligned_alloc(64, sizeof(float) * (size_t)((m->stride + 15) & ~15));
		if (!task->vector) {
			free(task->text);
			return ruv_fail_memory(err, "agent", sizeof(float) * (size_t)m->stride);
		}
		memset(task->vector, 0, sizeof(float) * (size_t)m->stride);
		memcpy(task->vector, vector, sizeof(float) * (size_t)m->dim);
		if (!ruv_knn_unit(task->vector, m->dim)) {
			free(task->vector);
			task->vector = NULL;
		}
	}
	m->n_tasks++;
	rc = add_postings(m, m->n_tasks - 1, err);
	if (!rc && task->vector) {
		ruv_hnsw_rows rows = {.row = new_row, .arg = task->vector};
		int64_t key = m->n_tasks;

		rc = ruv_hnsw_add(m->index, &rows, &key, 1, NULL, NULL, err);
	}
	if (rc)
		return rc;
	if (agent != RUV_AGENT_NONE && weight > 0) {
		m->agents[agent].n_examples++;
		m->agents[agent].n_taught += taught;
	}
	return m->n_tasks - 1;
}

/* ---- the head ---------------------------------------------------------------------------------------------------------- */

/* A task as the head sees it: buckets with values, then the embedding. Of length about 1 and vector_scale. */
typedef struct head_input {
	uint32_t grams[RUV_AGENT_MAX_GRAMS];
	float values[RUV_AGENT_MAX_GRAMS];
	int n;
	const float *vector;
	float scale;
} head_input;

static void look_head(const ruv_agent_model *m, const char *text, const float *vector, head_input *in)
{
	float squares = 0;

	in->n = ruv_grams(in->grams, RUV_AGENT_MAX_GRAMS, text, text_bytes(text), HEAD_GRAMS);
	for (int i = 0; i < in->n; i++) {
		in->grams[i] %= RUV_AGENT_BUCKETS;
		in->values[i] = m->idf[in->grams[i]];
		squares += in->values[i] * in->values[i];
	}
	for (int i = 0; i < in->n; i++)
		in->values[i] /= sqrtf(squares);
	in->vector = vector;
	in->scale = m->settings.vector_scale;
}

static bool is_class(const ruv_agent_model *m, int c)
{
	return c == RUV_AGENT_NONE || m->agents[c].used;
}

/* Probabilities of all classes [RUV_AGENT_CLASSES]; those not in use get 0. */
static void run_head(const ruv_agent_model *m, const head_input *in, float *p)
{
	float top = -INFINITY, sum = 0;

	memcpy(p, m->bias, sizeof m->bias);
	for (int i = 0; i < in->n; i++)
		ruv_vec_add(p, in->values[i], m->weights + (size_t)in->grams[i] * RUV_AGENT_CLASSES, RUV_AGENT_CLASSES);
	for (int d = 0; in->vector && d < m->dim; d++)
		ruv_vec_add(p, in->scale * in->vector[d], m->weights + (size_t)(RUV_AGENT_BUCKETS + d) * RUV_AGENT_CLASSES,
		            RUV_AGENT_CLASSES);
	for (int c = 0; c < RUV_AGENT_CLASSES; c++)
		if (is_class(m, c))
			top = fmaxf(top, p[c]);
	for (int c = 0; c < RUV_AGENT_CLASSES; c++)
		sum += p[c] = is_class(m, c) ? expf(p[c] - top) : 0;
	for (int c = 0; c < RUV_AGENT_CLASSES; c++)
		p[c] /= sum;
}

/* The rows of all tasks, one after the other; the embedding's part stays in the tasks. */
struct rows {
	uint32_t *grams;
	float *values;
	int *begin; /* [n_tasks + 1] */
};

static void rows_release(struct rows *r)
{
	free(r->grams);
	free(r->values);
	free(r->begin);
}

static int rows_make(const ruv_agent_model *m, struct rows *r, ruv_error *err)
{
	size_t cap = 0;
	int n = 0;

	memset(r, 0, sizeof *r);
	r->begin = malloc(sizeof *r->begin * (size_t)(m->n_tasks + 1));
	if (!r->begin)
		return ruv_fail_memory(err, "agent", sizeof *r->begin * (size_t)m->n_tasks);
	for (int i = 0; i < m->n_tasks; i++) {
		head_input in;

		look_head(m, m->tasks[i].text, m->tasks[i].vector, &in);
		if ((size_t)(n + in.n) > cap) {
			uint32_t *grams;
			float *values;

			cap = 2 * cap + (size_t)in.n + 65536;
			grams = realloc(r->grams, sizeof *grams * cap);
			if (grams)
				r->grams = grams;
			values = realloc(r->values, sizeof *values * cap);
			if (values)
				r->values = values;
			if (!grams || !values)
				return ruv_fail_memory(err, "agent", sizeof *values * cap);
		}
		r->begin[i] = n;
		memcpy(r->grams + n, in.grams, sizeof *in.grams * (size_t)in.n);
		memcpy(r->values + n, in.values, sizeof *in.values * (size_t)in.n);
		n += in.n;
	}
	r->begin[m->n_tasks] = n;
	return RUV_OK;
}

/* What a user teaches is meant for this place and counts more than a bundled example. */
static float importance(const ruv_agent_task *task)
{
	return task->taught ? 12 : 1;
}

/* out = (X'X + ridge) v over the tasks with weight > 0; all of them [RUV_AGENT_BUCKETS + dim]. */
static void times_normal(const ruv_agent_model *m, const struct rows *r, float ridge, const float *v, float *out)
{
	const float scale = m->settings.vector_scale;
	size_t n = RUV_AGENT_BUCKETS + (size_t)m->dim;

	for (size_t j = 0; j < n; j++)
		out[j] = ridge * v[j];
	for (int i = 0; i < m->n_tasks; i++) {
		const ruv_agent_task *task = &m->tasks[i];
		float dot = 0;

		if (task->weight <= 0)
			continue;
		for (int j = r->begin[i]; j < r->begin[i + 1]; j++)
			dot += r->values[j] * v[r->grams[j]];
		if (task->vector && scale > 0)
			dot += scale * ruv_vec_dot(task->vector, v + RUV_AGENT_BUCKETS, m->dim);
		dot *= importance(task);
		for (int j = r->begin[i]; j < r->begin[i + 1]; j++)
			out[r->grams[j]] += dot * r->values[j];
		if (task->vector && scale > 0)
			ruv_vec_add(out + RUV_AGENT_BUCKETS, dot * scale, task->vector, m->dim);
	}
}

/* Ridge regression of one class, 3 where a task is of it (4 where the user taught it: an agent of a few tasks stands against
 * thirteen of more than a hundred) and -1 where not, by conjugate gradients. With a thousand short texts it
 * does better than logistic regression. The result is put into the head's column, as logits. */
static void fit_class(ruv_agent_model *m, const struct rows *r, int c, float *work)
{
	enum { N_ITERATIONS = 40 };
	const float ridge = 1, logit = 3;
	const int n = RUV_AGENT_BUCKETS + m->dim;
	float *w = work, *residual = work + n, *direction = work + 2 * n, *product = work + 3 * n, old, now;

	memset(work, 0, sizeof *work * 4 * (size_t)n);
	for (int i = 0; i < m->n_tasks; i++) {
		const ruv_agent_task *task = &m->tasks[i];
		float target = (task->agent != c ? -1 : task->taught ? 4 : 3) * importance(task);

		if (task->weight <= 0)
			continue;
		for (int j = r->begin[i]; j < r->begin[i + 1]; j++)
			residual[r->grams[j]] += target * r->values[j];
		if (task->vector && m->settings.vector_scale > 0)
			ruv_vec_add(residual + RUV_AGENT_BUCKETS, target * m->settings.vector_scale, task->vector, m->dim);
	}
	memcpy(direction, residual, sizeof *residual * (size_t)n);
	old = ruv_vec_dot(residual, residual, n);
	for (int k = 0; k < N_ITERATIONS && old > 1e-8f; k++) {
		float step;

		times_normal(m, r, ridge, direction, product);
		step = old / ruv_vec_dot(direction, product, n);
		ruv_vec_add(w, step, direction, n);
		ruv_vec_add(residual, -step, product, n);
		now = ruv_vec_dot(residual, residual, n);
		for (int j = 0; j < n; j++)
			direction[j] = residual[j] + now / old * direction[j];
		old = now;
	}
	for (int j = 0; j < n; j++)
		m->weights[(size_t)j * RUV_AGENT_CLASSES + (size_t)c] = logit * w[j];
}

int ruv_agent_model_fit(ruv_agent_model *m, ruv_error *err)
{
	size_t n = RUV_AGENT_BUCKETS + (size_t)m->dim;
	float *work = malloc(sizeof *work * 4 * n);
	int *seen = calloc(RUV_AGENT_BUCKETS, sizeof *seen), rc = RUV_OK;
	uint32_t grams[RUV_AGENT_MAX_GRAMS];
	struct rows rows = {0};

	if (!work || !seen) {
		rc = ruv_fail_memory(err, "agent", sizeof *work * 4 * n);
		goto done;
	}
	memset(m->weights, 0, n * RUV_AGENT_CLASSES * sizeof *m->weights);
	memset(m->bias, 0, sizeof m->bias);
	for (int i = 0; i < m->n_tasks; i++) {
		int n_grams = ruv_grams(grams, RUV_AGENT_MAX_GRAMS, m->tasks[i].text, text_bytes(m->tasks[i].text), HEAD_GRAMS);

		for (int j = 0; j < n_grams; j++)
			grams[j] %= RUV_AGENT_BUCKETS;
		qsort(grams, (size_t)n_grams, sizeof *grams, by_number);
		for (int j = 0; j < n_grams; j++)
			seen[grams[j]] += !j || grams[j] != grams[j - 1];
	}
	for (int b = 0; b < RUV_AGENT_BUCKETS; b++)
		m->idf[b] = logf((1 + (float)m->n_tasks) / (1 + (float)seen[b]));
	rc = rows_make(m, &rows, err);
	for (int c = 0; !rc && c < RUV_AGENT_CLASSES; c++)
		if (is_class(m, c))
			fit_class(m, &rows, c, work);
done:
	rows_release(&rows);
	free(work);
	free(seen);
	return rc;
}

/* ---- looking ----------------------------------------------------------------------------------------------------------- */

/* Makes shares of what speaks for each agent; what little there is of evidence, the more even they stay. */
static void to_shares(const ruv_agent_model *m, float *score, float smooth)
{
	float sum = 0;

	for (int a = 0; a < RUV_AGENT_MAX; a++) {
		score[a] = m->agents[a].used ? fmaxf(0, score[a]) + smooth : 0;
		sum += score[a];
	}
	for (int a = 0; a < RUV_AGENT_MAX && sum > 0; a++)
		score[a] /= sum;
}

static void note_near(ruv_agent_view *view, int agent, int task, float score)
{
	if (view->nearest[agent] < 0 || score > view->nearest_score[agent]) {
		view->nearest[agent] = task;
		view->nearest_score[agent] = score;
	}
}

static int view_meaning(ruv_agent_model *m, const float *vector, int skip, ruv_agent_view *view, float *good, float *weight,
                        ruv_error *err)
{
	float *score = view->probability[1];
	ruv_hnsw_rows rows = {.row = row_of, .arg = m};
	ruv_hnsw_query query = {.k = N_NEAR + (skip >= 0), .ef = 96, .rows = &rows};
	ruv_hnsw_hit hits[N_NEAR + 1];
	int n = vector && m->index ? ruv_hnsw_search(m->index, vector, &query, hits) : 0;

	if (n < 0)
		return ruv_fail(err, n, "agent", "the search among labelled tasks failed");
	for (int i = 0; i < n; i++) {
		const ruv_agent_task *task = &m->tasks[hits[i].key - 1];
		float w = expf((hits[i].score - 1) / m->settings.band);

		if (hits[i].key - 1 == skip || task->weight == 0)
			continue;
		if (task->agent == RUV_AGENT_NONE)
			continue;
		view->cosine = fmaxf(view->cosine, hits[i].score);
		score[task->agent] += w * task->weight;
		if (task->weight > 0)
			note_near(view, task->agent, (int)hits[i].key - 1, hits[i].score);
		if (task->is_outcome) {
			good[task->agent] += w * (task->weight > 0);
			weight[task->agent] += w;
		}
	}
	to_shares(m, score, 1e-5f);
	return RUV_OK;
}

static int view_words(ruv_agent_model *m, const char *text, int skip, ruv_agent_view *view, ruv_error *err)
{
	const float k1 = 1.2f, b = 0.5f;
	uint32_t buckets[RUV_AGENT_MAX_GRAMS];
	float counts[RUV_AGENT_MAX_GRAMS], *scores, *score = view->probability[2], best[N_NEAR], own = 0;
	float mean = (float)(m->total_words / (m->n_tasks ? m->n_tasks : 1));
	int n = words_of(text, buckets, counts), ids[N_NEAR], n_best = 0;

	scores = calloc((size_t)m->n_tasks + 1, sizeof *scores);
	if (!scores)
		return ruv_fail_memory(err, "agent", sizeof *scores * (size_t)m->n_tasks);
	for (int i = 0; i < n; i++) {
		float idf = idf_of(m, buckets[i]);

		own += idf * (k1 + 1) / (1 + k1);
		for (int p = m->heads[buckets[i]]; p >= 0; p = m->postings[p].next) {
			const struct posting *posting = &m->postings[p];
			float length = 1 - b + b * (float)m->tasks[posting->task].n_words / (mean > 0 ? mean : 1);

			scores[posting->task] += idf * posting->count * (k1 + 1) / (posting->count + k1 * length);
		}
	}
	for (int i = 0; i < m->n_tasks; i++) {
		int at;

		if (i == skip || scores[i] <= 0 || m->tasks[i].weight == 0 || m->tasks[i].agent == RUV_AGENT_NONE ||
		    (n_best == N_NEAR && scores[i] <= best[n_best - 1]))
			continue;
		at = n_best < N_NEAR ? n_best++ : n_best - 1;
		for (; at > 0 && best[at - 1] < scores[i]; at--) {
			best[at] = best[at - 1];
			ids[at] = ids[at - 1];
		}
		best[at] = scores[i];
		ids[at] = i;
	}
	for (int i = 0; i < n_best; i++) {
		const ruv_agent_task *task = &m->tasks[ids[i]];
		float share = own > 0 ? best[i] / own : 0;

		view->words = fmaxf(view->words, share);
		score[task->agent] += task->weight * share * share * (task->taught ? 3 : 1);
		if (task->weight > 0 && view->nearest[task->agent] < 0)
			note_near(view, task->agent, ids[i], share);
	}
	to_shares(m, score, 0.02f);
	free(scores);
	return RUV_OK;
}

void ruv_agent_oos_numbers(const ruv_agent_model *m, const ruv_agent_view *view, float numbers[6])
{
	float entropy = 0;
	int n = 0;

	for (int a = 0; a < RUV_AGENT_MAX; a++)
		if (m->agents[a].used) {
			n++;
			entropy -= view->blend[a] > 0 ? view->blend[a] * logf(view->blend[a]) : 0;
		}
	numbers[0] = 1;
	numbers[1] = logf((view->none + 1e-4f) / (1 - view->none + 1e-4f));
	numbers[2] = view->cosine;
	numbers[3] = view->words;
	numbers[4] = view->blend[view->best];
	numbers[5] = n > 1 ? entropy / logf((float)n) : 0;
}

void ruv_agent_complexity_numbers(const char *text, float numbers[8])
{
	static const char *const heavy[] = {"all",      "every",    "whole",        "system",     "migrat",   "design",
	                                    "concept",  "platform", "archit",       "plan",       "cluster",  "region",
	                                    "distrib",  "scal",     "from scratch", "end-to-end", "strategy", "across",
	                                    "customer", "threat",   "services",     "without",    "real time"};
	static const char *const light[] = {"quick",  "tiny", "little", "small",  "just",   "one ", "typo",
	                                    "rename", "line", "helper", "single", "button", "field"};
	size_t n = strlen(text), at = 0, length;
	char lower[1024];
	int words = 0, commas = 0, sentences = 0, n_heavy = 0, n_light = 0, n_and = 0;

	for (size_t i = 0; i < n && i < sizeof lower - 1; i++) {
		lower[i] = (char)tolower((unsigned char)text[i]);
		commas += text[i] == ',' || text[i] == ';';
		sentences += (text[i] == '.' || text[i] == '?' || text[i] == '!') && (i + 1 == n || text[i + 1] == ' ');
	}
	lower[n < sizeof lower - 1 ? n : sizeof lower - 1] = 0;
	while (ruv_grams_next_word(text, n, &at, &length))
		words++;
	for (size_t i = 0; i < sizeof heavy / sizeof *heavy; i++)
		n_heavy += strstr(lower, heavy[i]) != NULL;
	for (size_t i = 0; i < sizeof light / sizeof *light; i++)
		n_light += strstr(lower, light[i]) != NULL;
	for (const char *p = lower; (p = strstr(p, " and ")); p++)
		n_and++;
	numbers[0] = 1;
	numbers[1] = logf(1 + (float)words);
	numbers[2] = (float)commas;
	numbers[3] = (float)sentences;
	numbers[4] = (float)n_heavy;
	numbers[5] = (float)n_light;
	numbers[6] = (float)n_and;
	numbers[7] = words < 8;
}

void ruv_agent_model_blend(const ruv_agent_model *m, const char *text, ruv_agent_view *view)
{
	float numbers[8], top = -INFINITY, sum = 0, logit = 0;

	view->best = -1;
	for (int a = 0; a < RUV_AGENT_MAX; a++) {
		view->blend[a] = 0;
		if (!m->agents[a].used)
			continue;
		for (int v = 0; v < RUV_AGENT_VIEWS; v++)
			view->blend[a] += m->settings.view[v] * logf(view->probability[v][a] + 1e-6f);
		view->blend[a] /= m->settings.temperature;
		if (view->blend[a] > top) {
			top = view->blend[a];
			view->best = a;
		}
	}
	if (view->best < 0)
		return;
	for (int a = 0; a < RUV_AGENT_MAX; a++)
		sum += view->blend[a] = m->agents[a].used ? expf(view->blend[a] - top) : 0;
	for (int a = 0; a < RUV_AGENT_MAX; a++)
		view->blend[a] /= sum;
	ruv_agent_oos_numbers(m, view, numbers);
	for (int i = 0; i < 6; i++)
		logit += m->settings.oos[i] * numbers[i];
	view->out_of_scope = 1 / (1 + expf(-logit));
	ruv_agent_complexity_numbers(text, numbers);
	view->complexity = 0;
	for (int i = 0; i < 8; i++)
		view->complexity += m->settings.complexity[i] * numbers[i];
	view->complexity = fminf(1, fmaxf(0, view->complexity));
}

int ruv_agent_model_view(ruv_agent_model *m, const char *text, const float *vector, int skip, ruv_agent_view *view, ruv_error *err)
{
	float p[RUV_AGENT_CLASSES], *unit = NULL, good[RUV_AGENT_MAX] = {0}, weight[RUV_AGENT_MAX] = {0}, scoped;
	head_input in;
	int rc = RUV_OK;

	memset(view, 0, sizeof *view);
	for (int a = 0; a < RUV_AGENT_MAX; a++)
		view->nearest[a] = -1;
	if (vector && m->dim) {
		unit = aligned_alloc(64, sizeof *unit * (size_t)((m->stride + 15) & ~15));
		if (!unit)
			return ruv_fail_memory(err, "agent", sizeof *unit * (size_t)m->stride);
		memset(unit, 0, sizeof *unit * (size_t)m->stride);
		memcpy(unit, vector, sizeof *unit * (size_t)m->dim);
		if (!ruv_knn_unit(unit, m->dim)) {
			free(unit);
			unit = NULL;
		}
	}
	look_head(m, text, unit, &in);
	run_head(m, &in, p);
	view->none = p[RUV_AGENT_NONE];
	scoped = 1 - view->none;
	for (int a = 0; a < RUV_AGENT_MAX; a++)
		view->probability[0][a] = scoped > 1e-6f ? p[a] / scoped : 0;
	rc = view_meaning(m, unit, skip, view, good, weight, err);
	if (!rc)
		rc = view_words(m, text, skip, view, err);
	free(unit);
	if (rc)
		return rc;
	ruv_agent_model_blend(m, text, view);
	for (int a = 0; a < RUV_AGENT_MAX; a++)
		view->quality[a] = (2 * view->blend[a] + 4 * good[a]) / (2 + 4 * weight[a]);
	return RUV_OK;
}

void ruv_agent_model_words(const ruv_agent_model *m, const char *task, int agent, char *text, size_t cap)
{
	struct {
		const char *word;
		size_t n;
		float score;
	} best[3] = {{0}};
	size_t n_bytes = text_bytes(task), at = 0, length, used = 0;
	const char *word;

	*text = 0;
	while ((word = ruv_grams_next_word(task, n_bytes, &at, &length))) {
		uint32_t grams[2];
		int n = ruv_grams(grams, 2, word, length, WORD_GRAMS), known = 0;
		float score = 0;

		for (int i = 0; i < n; i++) {
			const float *w = m->weights + (size_t)(grams[i] % RUV_AGENT_BUCKETS) * RUV_AGENT_CLASSES;
			float mean = 0;
			int n_agents = 0;

			for (int a = 0; a < RUV_AGENT_MAX; a++)
				if (m->agents[a].used) {
					mean += w[a];
					n_agents++;
				}
			score += (w[agent] - mean / (float)(n_agents ? n_agents : 1)) * m->idf[grams[i] % RUV_AGENT_BUCKETS];
		}
		for (int i = 0; i < 3; i++)
			known |= best[i].word && best[i].n == length && !strncasecmp(best[i].word, word, length);
		for (int i = 0; i < 3 && !known && score > 0.3f && length > 1 && length < 32; i++)
			if (score > best[i].score) {
				memmove(&best[i + 1], &best[i], sizeof *best * (size_t)(2 - i));
				best[i].word = word;
				best[i].n = length;
				best[i].score = score;
				break;
			}
	}
	for (int i = 0; i < 3 && best[i].word && used < cap; i++)
		used += (size_t)snprintf(text + used, cap - used, "%s\"%.*s\"", i ? ", " : "", (int)best[i].n, best[i].word);
}
