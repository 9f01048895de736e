/* route_data.c - collected outcomes from their file, and their split; see train_router.h. Layer: learn. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/hash.h"
#include "base/status.h"
#include "learn/train_router.h"

void ruv_route_data_release(ruv_route_data *data)
{
	free(data->samples);
	ruv_arena_release(&data->arena);
	memset(data, 0, sizeof *data);
}

static int wrong(ruv_error *err, const char *path, int line, const char *what)
{
	return ruv_fail(err, RUV_EFORMAT, "router", "%s:%d: %s", path, line, what);
}

static int read_head(ruv_route_data *data, const json_t *row, const char *path, ruv_error *err)
{
	const json_t *tiers = json_object_get(row, "tiers");
	ruv_router_tier read[RUV_ROUTE_MAX_TIERS] = {0};
	const char *encoder = "", *version = "";
	int dim = 0, n = (int)json_array_size(tiers);

	if (n < 1 || n > RUV_ROUTE_MAX_TIERS ||
	    json_unpack((json_t *)row, "{s?s, s?s, s?i}", "encoder", &encoder, "encoder_version", &version, "dim", &dim))
		return wrong(err, path, 1, "the first line must say tiers (1 to 4), encoder, encoder_version and dim");
	for (int t = 0; t < n; t++) {
		const char *name = NULL;
		json_int_t n_params = 0, n_bytes = 0;

		if (json_unpack(json_array_get(tiers, (size_t)t), "{s:s, s:I, s?I}", "name", &name, "params", &n_params, "bytes",
		                &n_bytes) ||
		    n_params < 1)
			return wrong(err, path, 1, "a tier must have name and params");
		snprintf(read[t].name, sizeof read[t].name, "%s", name);
		read[t].n_params = n_params;
		read[t].n_bytes = n_bytes;
	}
	if (data->n_tiers) {
		bool same = data->n_tiers == n && data->dim == dim && !strcmp(data->encoder_version, version);

		for (int t = 0; t < n && same; t++)
			same = !strcmp(read[t].name, data->tiers[t].name) && read[t].n_params == data->tiers[t].n_params;
		if (!same)
			return ruv_fail(err, RUV_EMISMATCH, "router", "%s was collected with other tiers or another encoder", path);
		return RUV_OK;
	}
	memcpy(data->tiers, read, sizeof read);
	data->n_tiers = n;
	data->dim = dim;
	snprintf(data->encoder, sizeof data->encoder, "%s", encoder);
	snprintf(data->encoder_version, sizeof data->encoder_version, "%s", version);
	return RUV_OK;
}

static bool read_numbers(const json_t *array, float *out, int n)
{
	if ((int)json_array_size(array) != n)
		return false;
	for (int i = 0; i < n; i++) {
		const json_t *number = json_array_get(array, (size_t)i);

		if (!json_is_number(number))
			return false;
		out[i] = (float)json_number_value(number);
	}
	return true;
}

static bool read_result(ruv_route_result *result, json_t *row)
{
	double quality, temperature = 0, top_p = 1, judged = -1;
	int unknown = 0, grounded = 0, cut_off = 0;

	if (!row)
		return true;
	if (json_unpack(row, "{s:F, s:F, s:i, s:i, s?b, s?b, s?b, s?F, s?F, s?F, s?F, s?F}", "quality", &quality, "latency_ms",
	                &result->latency_ms, "prompt", &result->n_prompt, "answer", &result->n_answer, "unknown", &unknown,
	                "grounded", &grounded, "cut_off", &cut_off, "mean_logprob", &result->mean_logprob, "min_logprob",
	                &result->min_logprob, "temperature", &temperature, "top_p", &top_p, "judged", &judged) ||
	    !(quality >= 0) || quality > 1 || result->n_prompt < 0 || result->n_answer < 0)
		return false;
	result->known = true;
	result->quality = (float)quality;
	result->unknown = unknown;
	result->grounded = grounded;
	result->cut_off = cut_off;
	result->temperature = (float)temperature;
	result->top_p = (float)top_p;
	result->judged = (float)judged;
	return true;
}

static int read_sample(ruv_route_data *data, json_t *row, const char *path, int line, ruv_error *err)
{
	ruv_route_sample sample = {0};
	json_t *tiers = json_object_get(row, "tiers"), *vector = json_object_get(row, "vector");
	const char *id, *group;
	float *copy = NULL;

	if (json_unpack(row, "{s:s, s:s, s?i}", "id", &id, "group", &group, "context", &sample.min_context) ||
	    !read_numbers(json_object_get(row, "features"), sample.features, RUV_ROUTE_FEATURES))
		return wrong(err, path, line, "a row must have id, group and 128 features");
	if (json_is_array(vector) && data->dim) {
		copy = ruv_arena_alloc(&data->arena, sizeof *copy * (size_t)data->dim);
		if (!copy)
			return ruv_fail_memory(err, "router", sizeof *copy * (size_t)data->dim);
		if (!read_numbers(vector, copy, data->dim))
			return wrong(err, path, line, "the vector has another length than the first line says");
	}
	for (int t = 0; t < data->n_tiers; t++) {
		if (!read_result(&sample.results[t], json_object_get(tiers, data->tiers[t].name)))
			return wrong(err, path, line, "a tier's result must have quality (0 to 1), latency_ms, prompt and answer");
		if (!sample.results[t].known) {
			data->n_incomplete++;
			return RUV_OK;
		}
	}
	sample.vector = copy;
	sample.id = ruv_arena_strndup(&data->arena, id, strlen(id));
	sample.group = ruv_arena_strndup(&data->arena, group, strlen(group));
	if (!sample.id || !sample.group)
		return ruv_fail_memory(err, "router", strlen(id));
	if (data->n == data->cap) {
		int cap = data->cap ? 2 * data->cap : 1024;
		ruv_route_sample *samples = realloc(data->samples, sizeof *samples * (size_t)cap);

		if (!samples)
			return ruv_fail_memory(err, "router", sizeof *samples * (size_t)cap);
		data->samples = samples;
		data->cap = cap;
	}
	data->samples[data->n++] = sample;
	return RUV_OK;
}

int ruv_route_data_read(ruv_route_data *data, const char *path, ruv_error *err)
{
	FILE *file = fopen(path, "re");
	char *text = NULL;
	size_t cap = 0;
	ssize_t n;
	int line = 0, rc = RUV_OK;

	if (!file)
		return ruv_fail(err, RUV_ENOTFOUND, "router", "%s cannot be opened", path);
	while (!rc && (n = getline(&text, &cap, file)) > 0) {
		json_error_t error;
		json_t *row;

		if (text[n - 1] != '\n') /* cut off while being written */
			break;
		line++;
		row = json_loadb(text, (size_t)n, 0, &error);
		if (!json_is_object(row))
			rc = wrong(err, path, line, "no JSON object");
		else if (line == 1)
			rc = read_head(data, row, path, err);
		else
			rc = read_sample(data, row, path, line, err);
		json_decref(row);
	}
	if (!rc && !line)
		rc = wrong(err, path, 1, "the file is empty");
	free(text);
	fclose(file);
	return rc;
}

/* ---- the split --------------------------------------------------------------------------------------------------------- */

struct group {
	uint64_t hash, order;
	int n;
};

static int by_hash(const void *a, const void *b)
{
	const struct group *x = a, *y = b;

	return x->hash < y->hash ? -1 : x->hash > y->hash;
}

static int by_order(const void *a, const void *b)
{
	const struct group *x = a, *y = b;

	return x->order < y->order ? -1 : x->order > y->order;
}

void ruv_route_data_split(ruv_route_data *data, uint64_t seed)
{
	struct group *groups = malloc(sizeof *groups * ((size_t)data->n + 1));
	int n = 0, n_test = 0, n_validation = 0;

	for (int i = 0; i < data->n; i++)
		data->samples[i].part = RUV_PART_TRAIN;
	for (int i = 0; groups && i < data->n; i++)
		groups[i] = (struct group){ruv_hash64(data->samples[i].group, strlen(data->samples[i].group), 0), 0, 1};
	if (!groups)
		return;
	qsort(groups, (size_t)data->n, sizeof *groups, by_hash);
	for (int i = 0; i < data->n; i++)
		if (n && groups[n - 1].hash == groups[i].hash)
			groups[n - 1].n++;
		else
			groups[n++] = groups[i];
	for (int i = 0; i < n; i++)
		groups[i].order = ruv_hash64(&groups[i].hash, sizeof groups[i].hash, seed + 1);
	qsort(groups, (size_t)n, sizeof *groups, by_order);
	for (int g = 0; g < n; g++) { /* a fifth of the questions each, in whole groups */
		ruv_route_part part = n_test * 5 < data->n         ? RUV_PART_TEST
		                      : n_validation * 5 < data->n ? RUV_PART_VALIDATION
		                                                   : RUV_PART_TRAIN;

		n_test += part == RUV_PART_TEST ? groups[g].n : 0;
		n_validation += part == RUV_PART_VALIDATION ? groups[g].n : 0;
		for (int i = 0; i < data->n; i++)
			if (ruv_hash64(data->samples[i].group, strlen(data->samples[i].group), 0) == groups[g].hash)
				data->samples[i].part =
				    part == RUV_PART_TRAIN &&
					    ruv_hash64(data->samples[i].id, strlen(data->samples[i].id), seed) % 6 == 0
					? RUV_PART_NEW
					: part;
	}
	free(groups);
}
