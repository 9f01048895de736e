/* openai_embed.c - /v1/embeddings, /v1/rerank and /v1/models.
 *
 * Vectors come from the encoder, through one embedder of the server's own that requests take turns at. A rerank score is half the
 * cosine of query and document (0 where it is negative), half the document's BM25 over the given documents, relative to the best
 * one's: words that only few documents have weigh where meanings are close. Layer: server. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/status.h"
#include "server/openai.h"
#include "server/server_impl.h"

static const char where[] = "server";

enum { MAX_INPUTS = 2048, MAX_DOCUMENTS = 1000 };

/* ---- the encoder ------------------------------------------------------------------------------------------------------- */

/* The server's embedder, opened at the first use. With server->embed_lock held. */
static int need_embedder(ruv_server *server, ruv_embedder **out, ruv_error *err)
{
	if (!server->embedder) {
		ruv_model *model;
		int rc = ruv_runtime_model(server->runtime, "encoder", &model, err);

		if (!rc)
			rc = ruv_embedder_open(&server->embedder, model, 0, err);
		if (rc)
			return rc;
	}
	*out = server->embedder;
	return RUV_OK;
}

static const ruv_served_model *encoder_of(const ruv_server *server)
{
	const ruv_served_model *served;

	for (int i = 0; (served = ruv_server_model_at(server, i)); i++)
		if (served->is_encoder)
			return served;
	return NULL;
}

/* The encoder by the name that a request gives; the server has one. */
static int find_encoder(const ruv_server *server, const char *name, const ruv_served_model **out, ruv_error *err)
{
	const ruv_served_model *served = encoder_of(server);

	if (!served)
		return ruv_fail(err, RUV_ENOTFOUND, where, "this server has no text encoder; set --encoder");
	*out = served;
	if (!name || !*name || !strcmp(name, "default") || !strcmp(name, "encoder"))
		return RUV_OK;
	if (ruv_server_model_find(server, name, out, NULL))
		return ruv_fail(err, RUV_ENOTFOUND, where, "there is no model '%.100s' here; the encoder is %s", name, served->id);
	if (!(*out)->is_encoder)
		return ruv_fail(err, RUV_EUNSUPPORTED, where, "%s generates; the model that embeds is %s", (*out)->id, served->id);
	return RUV_OK;
}

/* ---- embeddings -------------------------------------------------------------------------------------------------------- */

typedef struct embedding {
	const json_t *items[MAX_INPUTS]; /* texts or arrays of ids */
	int n;
	ruv_embed_kind kind;
	bool base64;
	float *vectors; /* [n, dim] */
	int dim;
	int64_t n_tokens;
} embedding;

static int read_inputs(embedding *e, const json_t *input, ruv_error *err)
{
	const json_t *item;
	size_t i;

	if (json_is_string(input) || (json_is_array(input) && json_is_integer(json_array_get(input, 0)))) {
		e->items[e->n++] = input;
	} else if (json_is_array(input) && json_array_size(input) <= MAX_INPUTS) {
		json_array_foreach(input, i, item) e->items[e->n++] = item;
	} else if (json_is_array(input)) {
		return ruv_fail(err, RUV_ELIMIT, where, "'input' has %zu items; at most %d are taken", json_array_size(input),
		                (int)MAX_INPUTS);
	}
	if (!e->n)
		return ruv_fail(err, RUV_EINVAL, where, "'input' must be a text, an array of texts, or an array of token ids");
	for (int k = 0; k < e->n; k++) {
		bool is_text = json_is_string(e->items[k]) && json_string_length(e->items[k]);
		bool is_ids = json_is_array(e->items[k]) && json_array_size(e->items[k]);

		if (!is_text && !is_ids)
			return ruv_fail(err, RUV_EINVAL, where,
			                "item %d of 'input' is neither a text that is not empty nor an array of token ids", k + 1);
	}
	return RUV_OK;
}

static int embed_ids(embedding *e, ruv_embedder *embedder, int i, ruv_error *err)
{
	const json_t *list = e->items[i], *item;
	int n = (int)json_array_size(list), rc = RUV_OK;
	ruv_token *ids = malloc(sizeof *ids * (size_t)n);
	size_t k;

	if (!ids)
		return ruv_fail_memory(err, where, sizeof *ids * (size_t)n);
	json_array_foreach(list, k, item)
	{
		if (!json_is_integer(item) || json_integer_value(item) < 0 || json_integer_value(item) > INT32_MAX) {
			rc = ruv_fail(err, RUV_EINVAL, where, "token %zu of input %d is no token id", k + 1, i + 1);
			break;
		}
		ids[k] = (ruv_token)json_integer_value(item);
	}
	if (!rc)
		rc = ruv_embedder_embed_tokens(embedder, ids, n, e->vectors + (size_t)i * (size_t)e->dim, err);
	e->n_tokens += n;
	free(ids);
	return rc ? ruv_error_prefix(err, rc, "input %d: ", i + 1) : RUV_OK;
}

/* Vectors of all items; texts that follow each other go together. */
static int embed_all(embedding *e, ruv_server *server, const ruv_cancel *cancel, ruv_error *err)
{
	const char *texts[MAX_INPUTS];
	ruv_embedder *embedder;
	int rc;

	pthread_mutex_lock(&server->embed_lock);
	rc = need_embedder(server, &embedder, err);
	if (!rc) {
		e->dim = ruv_embedder_dim(embedder);
		e->vectors = malloc(sizeof(float) * (size_t)e->n * (size_t)e->dim);
		if (!e->vectors)
			rc = ruv_fail_memory(err, where, sizeof(float) * (size_t)e->n * (size_t)e->dim);
	}
	for (int i = 0; i < e->n && !rc;) {
		int n = 0;

		if (json_is_array(e->items[i])) {
			rc = embed_ids(e, embedder, i++, err);
			continue;
		}
		for (; i + n < e->n && json_is_string(e->items[i + n]) && !rc; n++) {
			int count = ruv_embedder_count(embedder, json_string_value(e->items[i + n]),
			                               json_string_length(e->items[i + n]), e->kind, err);

			texts[n] = json_string_value(e->items[i + n]);
			if (count < 0)
				rc = count;
			else if (count > ruv_embedder_n_ctx(embedder))
				rc = ruv_fail(err, RUV_ECONTEXT, where, "input %d has %d tokens; the encoder takes at most %d",
				              i + n + 1, count, ruv_embedder_n_ctx(embedder));
			e->n_tokens += count;
		}
		if (!rc)
			rc = ruv_embedder_embed(embedder, texts, n, e->kind, e->vectors + (size_t)i * (size_t)e->dim, cancel, err);
		i += n;
	}
	pthread_mutex_unlock(&server->embed_lock);
	return rc;
}

static json_t *vector_json(const float *vector, int dim, bool base64)
{
	json_t *list;

	if (base64) { /* little-endian floats */
		size_t n = sizeof(float) * (size_t)dim;
		unsigned char *text = malloc(4 * ((n + 2) / 3) + 1);
		json_t *value = NULL;

		if (text) {
			EVP_EncodeBlock(text, (const unsigned char *)vector, (int)n);
			value = json_string((const char *)text);
		}
		free(text);
		return value;
	}
	list = json_array();
	for (int i = 0; i < dim; i++)
		json_array_append_new(list, json_real((double)vector[i]));
	return list;
}

static int read_embedding(embedding *e, ruv_server *server, const json_t *body, const ruv_served_model **served,
                          int64_t *dimensions, const char **param, ruv_error *err)
{
	const char *model = NULL, *format = "float", *type = NULL;
	int rc;

	*param = "model";
	if ((rc = ruv_json_text(body, "model", &model, err)) || (rc = find_encoder(server, model, served, err)))
		return rc;
	*param = "encoding_format";
	if ((rc = ruv_json_text(body, "encoding_format", &format, err)))
		return rc;
	e->base64 = !strcmp(format, "base64");
	if (!e->base64 && strcmp(format, "float"))
		return ruv_fail(err, RUV_EINVAL, where, "'encoding_format' is '%.40s'; it must be float or base64", format);
	*param = "input_type";
	if ((rc = ruv_json_text(body, "input_type", &type, err)))
		return rc;
	e->kind = !type                                                                                       ? RUV_EMBED_PLAIN
	          : !strcmp(type, "query") || !strcmp(type, "search_query")                                   ? RUV_EMBED_QUERY
	          : !strcmp(type, "passage") || !strcmp(type, "document") || !strcmp(type, "search_document") ? RUV_EMBED_PASSAGE
	                                                                                                      : RUV_EMBED_PLAIN;
	*param = "dimensions";
	if ((rc = ruv_json_int(body, "dimensions", 1, INT32_MAX, dimensions, err)))
		return rc;
	*param = "input";
	return read_inputs(e, json_object_get(body, "input"), err);
}

int ruv_openai_embed(ruv_exchange *exchange, const char *model, const json_t *input, json_t **vectors, const char **id,
                     int64_t *n_tokens, ruv_error *err)
{
	ruv_server *server = ruv_exchange_server(exchange);
	const ruv_served_model *served = NULL;
	embedding *e = calloc(1, sizeof *e);
	int rc = e ? find_encoder(server, model, &served, err) : ruv_fail_memory(err, where, sizeof *e);

	if (!rc)
		rc = read_inputs(e, input, err);
	if (!rc)
		rc = embed_all(e, server, ruv_exchange_cancel(exchange), err);
	if (!rc) {
		*vectors = json_array();
		for (int i = 0; i < e->n; i++)
			json_array_append_new(*vectors, vector_json(e->vectors + (size_t)i * (size_t)e->dim, e->dim, false));
		*id = served->id;
		*n_tokens = e->n_tokens;
		ruv_metrics_embedding(server->metrics, e->n, e->n_tokens);
		ruv_exchange_note(exchange, served->id, (int)e->n_tokens, 0, 0);
	}
	if (e)
		free(e->vectors);
	free(e);
	return rc;
}

void ruv_openai_embeddings(ruv_exchange *exchange)
{
	ruv_server *server = ruv_exchange_server(exchange);
	const ruv_served_model *served = NULL;
	embedding *e = calloc(1, sizeof *e);
	const char *param = NULL;
	int64_t dimensions = 0;
	ruv_error err = {0};
	json_t *body = NULL, *data;
	int rc = e ? ruv_exchange_json(exchange, true, &body, &err) : ruv_fail_memory(&err, where, sizeof *e);

	if (!rc)
		rc = read_embedding(e, server, body, &served, &dimensions, &param, &err);
	if (!rc)
		rc = embed_all(e, server, ruv_exchange_cancel(exchange), &err);
	if (!rc && dimensions && dimensions != e->dim) {
		param = "dimensions";
		rc = ruv_fail(&err, RUV_EUNSUPPORTED, where, "%s gives vectors of %d numbers; they cannot be shortened to %lld",
		              served->id, e->dim, (long long)dimensions);
	}
	if (rc) {
		ruv_exchange_fail(exchange, &err, param);
	} else {
		data = json_array();
		for (int i = 0; i < e->n; i++)
			json_array_append_new(data,
			                      json_pack("{s:s, s:i, s:o}", "object", "embedding", "index", i, "embedding",
			                                vector_json(e->vectors + (size_t)i * (size_t)e->dim, e->dim, e->base64)));
		ruv_metrics_embedding(server->metrics, e->n, e->n_tokens);
		ruv_exchange_note(exchange, served->id, (int)e->n_tokens, 0, 0);
		ruv_exchange_reply_json(exchange, 200,
		                        json_pack("{s:s, s:o, s:s, s:{s:I, s:I}}", "object", "list", "data", data, "model",
		                                  served->id, "usage", "prompt_tokens", (json_int_t)e->n_tokens, "total_tokens",
		                                  (json_int_t)e->n_tokens));
	}
	if (e)
		free(e->vectors);
	free(e);
	json_decref(body);
}

/* ---- rerank ------------------------------------------------------------------------------------------------------------ */

/* The next word of the text from *p on, in lower case into word[0..cap). Its length, 0 at the end. */
static size_t next_word(const char **p, char *word, size_t cap)
{
	size_t n = 0;

	while (**p && !isalnum((unsigned char)**p) && !((unsigned char)**p & 0x80))
		(*p)++;
	for (; **p && (isalnum((unsigned char)**p) || ((unsigned char)**p & 0x80)); (*p)++)
		if (n + 1 < cap)
			word[n++] = (char)tolower((unsigned char)**p);
	word[n] = 0;
	return n;
}

static int count_word(const char *text, const char *wanted, int *n_words)
{
	char word[64];
	int n = 0;

	*n_words = 0;
	while (next_word(&text, word, sizeof word)) {
		n += !strcmp(word, wanted);
		++*n_words;
	}
	return n;
}

/* BM25 (k1 1.2, b 0.75) of the documents [n] for the query, relative to the best: 0..1. */
static void score_words(double *scores, const char *query, const char *const *documents, int n)
{
	char word[64];
	double mean = 0, best = 0;
	int *counts = calloc((size_t)n, sizeof *counts), *lengths = calloc((size_t)n, sizeof *lengths);

	for (int i = 0; i < n; i++)
		scores[i] = 0;
	while (counts && lengths && next_word(&query, word, sizeof word)) {
		int n_with = 0;
		double idf;

		mean = 0;
		for (int i = 0; i < n; i++) {
			counts[i] = count_word(documents[i], word, &lengths[i]);
			n_with += counts[i] > 0;
			mean += (double)lengths[i] / n;
		}
		idf = log(1 + (n - n_with + 0.5) / (n_with + 0.5));
		for (int i = 0; i < n; i++)
			scores[i] += idf * counts[i] * 2.2 / (counts[i] + 1.2 * (0.25 + 0.75 * lengths[i] / (mean > 0 ? mean : 1)));
	}
	for (int i = 0; i < n; i++)
		best = scores[i] > best ? scores[i] : best;
	for (int i = 0; i < n && best > 0; i++)
		scores[i] /= best;
	free(counts);
	free(lengths);
}

typedef struct ranked {
	int index;
	double score;
} ranked;

static int by_score(const void *a, const void *b)
{
	const ranked *x = a, *y = b;

	return x->score < y->score ? 1 : x->score > y->score ? -1 : x->index - y->index;
}

static int read_documents(const char **texts, int *n, const json_t *list, ruv_error *err)
{
	const json_t *item;
	size_t i;

	if (!json_array_size(list) || json_array_size(list) > MAX_DOCUMENTS)
		return ruv_fail(err, RUV_EINVAL, where, "'documents' must be an array of 1 to %d texts", (int)MAX_DOCUMENTS);
	json_array_foreach(list, i, item)
	{
		texts[i] = json_string_value(json_is_object(item) ? json_object_get(item, "text") : item);
		if (!texts[i] || !*texts[i])
			return ruv_fail(err, RUV_EINVAL, where, "document %zu is no text", i + 1);
	}
	*n = (int)json_array_size(list);
	return RUV_OK;
}

/* Vectors of query and documents: [1 + n, dim]. */
static int embed_ranking(ruv_server *server, const char *query, const char *const *texts, int n, float **vectors, int *dim,
                         int64_t *n_tokens, const ruv_cancel *cancel, ruv_error *err)
{
	ruv_embedder *embedder;
	int rc, count;

	pthread_mutex_lock(&server->embed_lock);
	rc = need_embedder(server, &embedder, err);
	if (!rc) {
		*dim = ruv_embedder_dim(embedder);
		*vectors = malloc(sizeof(float) * (size_t)(n + 1) * (size_t)*dim);
		rc = *vectors ? RUV_OK : ruv_fail_memory(err, where, sizeof(float) * (size_t)(n + 1) * (size_t)*dim);
	}
	for (int i = -1; i < n && !rc; i++) {
		const char *text = i < 0 ? query : texts[i];

		count = ruv_embedder_count(embedder, text, strlen(text), i < 0 ? RUV_EMBED_QUERY : RUV_EMBED_PASSAGE, err);
		if (count < 0)
			rc = count;
		else if (count > ruv_embedder_n_ctx(embedder))
			rc = ruv_fail(err, RUV_ECONTEXT, where, "%s %d has %d tokens; the encoder takes at most %d",
			              i < 0 ? "query" : "document", i < 0 ? 1 : i + 1, count, ruv_embedder_n_ctx(embedder));
		else
			*n_tokens += count;
	}
	if (!rc)
		rc = ruv_embedder_embed(embedder, &query, 1, RUV_EMBED_QUERY, *vectors, cancel, err);
	if (!rc)
		rc = ruv_embedder_embed(embedder, texts, n, RUV_EMBED_PASSAGE, *vectors + *dim, cancel, err);
	pthread_mutex_unlock(&server->embed_lock);
	return rc;
}

void ruv_openai_rerank(ruv_exchange *exchange)
{
	ruv_server *server = ruv_exchange_server(exchange);
	const ruv_served_model *served = NULL;
	const char *model = NULL, *query = NULL, *param = "model";
	const char **texts = calloc(MAX_DOCUMENTS, sizeof *texts);
	double *words = NULL;
	ranked *order = NULL;
	float *vectors = NULL;
	int64_t top = MAX_DOCUMENTS, n_tokens = 0;
	bool with_text = false;
	ruv_error err = {0};
	json_t *body = NULL, *results;
	int n = 0, dim = 0, rc = texts ? ruv_exchange_json(exchange, true, &body, &err) : ruv_fail_memory(&err, where, 0);

	if (rc || (rc = ruv_json_text(body, "model", &model, &err)) || (rc = find_encoder(server, model, &served, &err)))
		goto done;
	param = "query";
	rc = ruv_json_text(body, "query", &query, &err);
	if (!rc && (!query || !*query))
		rc = ruv_fail(&err, RUV_EINVAL, where, "'query' must be a text");
	if (rc)
		goto done;
	param = "top_n";
	if ((rc = ruv_json_int(body, "top_n", 1, INT32_MAX, &top, &err)) ||
	    (rc = ruv_json_bool(body, "return_documents", &with_text, &err)))
		goto done;
	param = "documents";
	if ((rc = read_documents(texts, &n, json_object_get(body, "documents"), &err)) ||
	    (rc = embed_ranking(server, query, texts, n, &vectors, &dim, &n_tokens, ruv_exchange_cancel(exchange), &err)))
		goto done;
	words = calloc((size_t)n, sizeof *words);
	order = calloc((size_t)n, sizeof *order);
	if (!words || !order) {
		rc = ruv_fail_memory(&err, where, 0);
		goto done;
	}
	score_words(words, query, texts, n);
	for (int i = 0; i < n; i++) {
		double cosine = 0;

		for (int k = 0; k < dim; k++)
			cosine += (double)vectors[k] * (double)vectors[(size_t)(i + 1) * (size_t)dim + (size_t)k];
		order[i] = (ranked){i, 0.5 * (cosine > 0 ? cosine : 0) + 0.5 * words[i]};
	}
	qsort(order, (size_t)n, sizeof *order, by_score);
	results = json_array();
	for (int i = 0; i < n && i < top; i++) {
		json_t *result = json_pack("{s:i, s:f}", "index", order[i].index, "relevance_score", order[i].score);

		if (with_text)
			json_object_set_new(
			    result, "document",
			    json_pack("{s:o}", "text", ruv_json_string(texts[order[i].index], strlen(texts[order[i].index]))));
		json_array_append_new(results, result);
	}
	ruv_metrics_embedding(server->metrics, n + 1, n_tokens);
	ruv_exchange_reply_json(exchange, 200,
	                        json_pack("{s:s, s:o, s:{s:I, s:I}}", "model", served->id, "results", results, "usage",
	                                  "prompt_tokens", (json_int_t)n_tokens, "total_tokens", (json_int_t)n_tokens));
done:
	if (rc)
		ruv_exchange_fail(exchange, &err, param);
	free(texts);
	free(words);
	free(order);
	free(vectors);
	json_decref(body);
}

/* ---- models ------------------------------------------------------------------------------------------------------------ */

static json_t *model_json(const ruv_server *server, const ruv_served_model *served)
{
	int n_ctx = served->is_encoder ? 0 : ruv_scheduler_n_ctx(server->scheduler, served->name);
	json_t *own = json_pack("{s:s, s:b, s:b}", "tier", served->name, "embeds", served->is_encoder, "default",
	                        served == &server->models[server->default_model]);

	if (n_ctx > 0)
		json_object_set_new(own, "context", json_integer(n_ctx));
	return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", served->id, "object", "model", "created", (json_int_t)served->created_s,
	                 "owned_by", "ruvllm", "ruvllm", own);
}

void ruv_openai_models(ruv_exchange *exchange)
{
	const ruv_server *server = ruv_exchange_server(exchange);
	const ruv_served_model *served;
	json_t *list = json_array();

	for (int i = 0; (served = ruv_server_model_at(server, i)); i++)
		json_array_append_new(list, model_json(server, served));
	json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:s}", "id", "auto", "object", "model", "created", (json_int_t)0,
	                                      "owned_by", "ruvllm"));
	ruv_exchange_reply_json(exchange, 200, json_pack("{s:s, s:o}", "object", "list", "data", list));
}

void ruv_openai_model(ruv_exchange *exchange)
{
	const ruv_server *server = ruv_exchange_server(exchange);
	const ruv_served_model *served;
	ruv_error err = {0};

	if (ruv_server_model_find(server, ruv_exchange_param(exchange, "model"), &served, &err))
		ruv_exchange_fail(exchange, &err, "model");
	else
		ruv_exchange_reply_json(exchange, 200, model_json(server, served));
}
