/* ewc.c - online EWC over one vector of parameters.
 *
 * The file: "RUVEWC1\0" | i64 n | i32 n_groups | i32 n_tasks | i64 n_seen | fisher [n] | running [n] | anchor [n] | u64 XXH3 of all
 * before it. Little-endian F32. */
#include "learn/ewc.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"

static const char where[] = "ewc", magic[8] = "RUVEWC1";

int ruv_ewc_create(ruv_ewc **out, const int64_t *first, int n_groups, double lambda, ruv_error *err)
{
	*out = NULL;
	const size_t n = (size_t)first[n_groups];
	ruv_ewc *e = calloc(1, sizeof *e);
	if (!e)
		return ruv_fail_memory(err, where, sizeof *e);
	*e = (ruv_ewc){.n = (int64_t)n, .n_groups = n_groups, .lambda = lambda, .decay = 0.9, .rate = 0.01};
	e->first = malloc(((size_t)n_groups + 1) * sizeof *e->first);
	e->fisher = calloc(n, sizeof *e->fisher);
	e->running = calloc(n, sizeof *e->running);
	e->anchor = calloc(n, sizeof *e->anchor);
	if (!e->first || !e->fisher || !e->running || !e->anchor) {
		ruv_ewc_free(e);
		return ruv_fail_memory(err, where, 3 * n * sizeof(float));
	}
	memcpy(e->first, first, ((size_t)n_groups + 1) * sizeof *first);
	*out = e;
	return RUV_OK;
}

void ruv_ewc_free(ruv_ewc *e)
{
	if (!e)
		return;
	free(e->first);
	free(e->fisher);
	free(e->running);
	free(e->anchor);
	free(e);
}

void ruv_ewc_observe(ruv_ewc *e, const float *gradient)
{
	/* while few were seen a plain mean, so that the first do not count for nothing */
	const float a = 1.0f / (float)(e->n_seen + 1) > (float)e->rate ? 1.0f / (float)(e->n_seen + 1) : (float)e->rate;
	for (int64_t i = 0; i < e->n; i++)
		e->running[i] += a * (gradient[i] * gradient[i] - e->running[i]);
	e->n_seen++;
}

void ruv_ewc_boundary(ruv_ewc *e, const float *theta)
{
	if (!e->n_seen)
		return;
	for (int g = 0; g < e->n_groups; g++) {
		double sum = 0;
		for (int64_t i = e->first[g]; i < e->first[g + 1]; i++)
			sum += (double)e->running[i];
		const double mean = sum / (double)(e->first[g + 1] - e->first[g]);
		for (int64_t i = e->first[g]; i < e->first[g + 1]; i++)
			e->fisher[i] = (float)(e->decay * (double)e->fisher[i] + (mean > 0 ? (double)e->running[i] / mean : 0));
	}
	memset(e->running, 0, (size_t)e->n * sizeof *e->running);
	memcpy(e->anchor, theta, (size_t)e->n * sizeof *theta);
	e->n_seen = 0;
	e->n_tasks++;
}

void ruv_ewc_move_anchor(ruv_ewc *e, const float *theta)
{
	memcpy(e->anchor, theta, (size_t)e->n * sizeof *theta);
}

double ruv_ewc_penalty(const ruv_ewc *e, const float *theta, float *gradient)
{
	double sum = 0;
	for (int64_t i = 0; i < e->n; i++) {
		const double d = (double)theta[i] - (double)e->anchor[i];
		sum += (double)e->fisher[i] * d * d;
		if (gradient)
			gradient[i] += (float)(e->lambda * (double)e->fisher[i] * d);
	}
	return e->lambda / 2 * sum;
}

void ruv_ewc_pull(const ruv_ewc *e, float *theta, float rate)
{
	const double strength = e->lambda * (double)rate;
	if (!e->n_tasks || !(strength > 0))
		return;
	for (int64_t i = 0; i < e->n; i++)
		theta[i] = (float)((double)e->anchor[i] +
		                   ((double)theta[i] - (double)e->anchor[i]) / (1 + strength * (double)e->fisher[i]));
}

/* ---- the file ---- */

struct head {
	char magic[8];
	int64_t n;
	int32_t n_groups, n_tasks;
	int64_t n_seen;
};

int ruv_ewc_save(const ruv_ewc *e, const char *path, ruv_error *err)
{
	struct head head = {.n = e->n, .n_groups = e->n_groups, .n_tasks = e->n_tasks, .n_seen = e->n_seen};
	const size_t bytes = (size_t)e->n * sizeof(float);
	ruv_buf buf;
	memcpy(head.magic, magic, sizeof magic);
	ruv_buf_init(&buf, sizeof head + 3 * bytes + 8);
	ruv_buf_append(&buf, &head, sizeof head);
	ruv_buf_append(&buf, e->fisher, bytes);
	ruv_buf_append(&buf, e->running, bytes);
	ruv_buf_append(&buf, e->anchor, bytes);
	int rc = buf.failed ? ruv_fail_memory(err, where, 3 * bytes) : RUV_OK;
	if (rc == RUV_OK) {
		const uint64_t check = ruv_hash64(buf.data, buf.len, 0);
		ruv_buf_append(&buf, &check, sizeof check);
		rc = buf.failed ? ruv_fail_memory(err, where, 8) : ruv_file_write(path, buf.data, buf.len, err);
	}
	ruv_buf_release(&buf);
	return rc;
}

int ruv_ewc_load(ruv_ewc *e, const char *path, ruv_error *err)
{
	const size_t bytes = (size_t)e->n * sizeof(float), want = sizeof(struct head) + 3 * bytes + 8;
	struct head head;
	char *data = NULL;
	size_t size = 0;
	uint64_t check;
	int rc = ruv_file_read(&data, &size, path, (size_t)1 << 32, err);
	if (rc)
		return rc;
	if (size < sizeof head + 8 || memcmp(data, magic, sizeof magic) != 0) {
		rc = ruv_fail(err, RUV_EFORMAT, where, "%s is no state of EWC", path);
		goto done;
	}
	memcpy(&check, data + size - 8, 8);
	memcpy(&head, data, sizeof head);
	if (check != ruv_hash64(data, size - 8, 0))
		rc = ruv_fail(err, RUV_ECORRUPT, where, "%s: the checksum is wrong", path);
	else if (size != want || head.n != e->n || head.n_groups != e->n_groups)
		rc = ruv_fail(err, RUV_EMISMATCH, where, "%s is for %lld parameters, the adapter has %lld", path, (long long)head.n,
		              (long long)e->n);
	if (rc)
		goto done;
	memcpy(e->fisher, data + sizeof head, bytes);
	memcpy(e->running, data + sizeof head + bytes, bytes);
	memcpy(e->anchor, data + sizeof head + 2 * bytes, bytes);
	e->n_tasks = head.n_tasks;
	e->n_seen = head.n_seen;
done:
	free(data);
	return rc;
}
