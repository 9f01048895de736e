/* fixture.h - what the tests of models share: the tiny models of tests/data/model, their references, comparing. */
#ifndef RUV_TESTS_MODEL_FIXTURE_H
#define RUV_TESTS_MODEL_FIXTURE_H

#include <math.h>
#include <unistd.h>

#include "format/gguf.h"
#include "infer/session_object.h"
#include "ruvllm/session.h"
#include "test.h"

static inline const char *fixture_path(const char *name)
{
	static char path[512];
	snprintf(path, sizeof path, "%s/model/%s", RUV_TEST_DATA, name);
	return path;
}

static inline ruv_model *fixture_model(const char *name, int n_batch)
{
	ruv_error err = {0};
	ruv_model *model = NULL;
	assert_ok(ruv_model_open(&model, fixture_path(name), &(ruv_model_options){.n_threads = 2, .n_batch = n_batch}, &err), err);
	return model;
}

static inline ruv_session *fixture_session(ruv_model *model, int n_ctx, ruv_kv_type type)
{
	ruv_error err = {0};
	ruv_session *session = NULL;
	assert_ok(
	    ruv_session_open(&session, model, &(ruv_session_options){.n_ctx = n_ctx, .kv_type = type, .n_pool = 4 * n_ctx}, &err),
	    err);
	return session;
}

/* A tensor of a reference file; *n its elements. */
static inline const void *ref_data(const ruv_gguf *ref, const char *name, int64_t *n)
{
	const ruv_gguf_tensor *t = ruv_gguf_find_tensor(ref, name);
	*n = 0;
	if (!t)
		return NULL;
	*n = t->ne[0] * t->ne[1];
	return t->data;
}

/* Largest difference, relative to the largest element of b. */
static inline double difference(const float *a, const float *b, int64_t n)
{
	double worst = 0, scale = 0;
	for (int64_t i = 0; i < n; i++) {
		double d = fabs((double)a[i] - b[i]);
		worst = d > worst || isnan(d) ? d : worst;
		scale = fmax(scale, fabs((double)b[i]));
	}
	return scale > 0 ? worst / scale : worst;
}

static inline int argmax(const float *x, int n)
{
	int at = 0;
	for (int i = 1; i < n; i++)
		if (x[i] > x[at])
			at = i;
	return at;
}

#define assert_close(a, b, n, tolerance)                                                                                           \
	do {                                                                                                                       \
		double d_ = difference(a, b, n);                                                                                   \
		if (!(d_ <= (tolerance)))                                                                                          \
			fail_msg("%s and %s differ by %.3g, more than %.3g", #a, #b, d_, (double)(tolerance));                     \
	} while (0)

#endif
