/* fastgrnn.c - see fastgrnn.h. Layer: learn. */
#include "learn/fastgrnn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "learn/vec.h"

enum { MAX_IN = 256, MAX_HIDDEN = RUV_ROUTE_MAX_HIDDEN };

/* Where each part of the parameters begins. With `shared`, the second gate's are the first's. */
struct parts {
	int wz, wh, uz, uh, bz, bh, zeta, nu, end;
};

static int u_size(const ruv_fastgrnn_shape *s)
{
	return s->rank ? 2 * s->hidden * s->rank : s->hidden * s->hidden;
}

static struct parts parts_of(const ruv_fastgrnn_shape *s)
{
	struct parts p;
	int w = s->hidden * s->n_in, u = u_size(s);

	p.wz = 0;
	p.wh = s->shared ? 0 : w;
	p.uz = p.wh + w;
	p.uh = s->shared ? p.uz : p.uz + u;
	p.bz = p.uh + u;
	p.bh = p.bz + s->hidden;
	p.zeta = p.bh + s->hidden;
	p.nu = p.zeta + 1;
	p.end = p.nu + 1;
	return p;
}

int ruv_fastgrnn_check(const ruv_fastgrnn_shape *s, ruv_error *err)
{
	if (s->n_in < 1 || s->n_in > MAX_IN || s->hidden < 1 || s->hidden > MAX_HIDDEN || s->rank < 0 || s->rank > s->hidden)
		return ruv_fail(err, RUV_EINVAL, "fastgrnn",
		                "%d inputs (1 to %d), %d hidden units (1 to %d), rank %d (0 for dense, to the hidden size)",
		                s->n_in, MAX_IN, s->hidden, MAX_HIDDEN, s->rank);
	return RUV_OK;
}

int ruv_fastgrnn_n_params(const ruv_fastgrnn_shape *shape)
{
	return parts_of(shape).end;
}

int ruv_fastgrnn_n_input_weights(const ruv_fastgrnn_shape *shape)
{
	return parts_of(shape).uz;
}

static float sigmoid(float x)
{
	return 1 / (1 + expf(-x));
}

void ruv_fastgrnn_init(float *params, const ruv_fastgrnn_shape *s, ruv_rng *rng)
{
	struct parts p = parts_of(s);
	float in = sqrtf(6.0f / (float)(s->n_in + s->hidden)), own = sqrtf(6.0f / (float)(2 * s->hidden));
	float low = s->rank ? sqrtf(own * sqrtf(3.0f / (float)s->rank)) : own; /* A B is about as large as a dense U */

	for (int i = 0; i < p.uz; i++)
		params[i] = in * (float)(2 * ruv_rng_double(rng) - 1);
	for (int i = p.uz; i < p.bz; i++)
		params[i] = low * (float)(2 * ruv_rng_double(rng) - 1);
	for (int i = 0; i < s->hidden; i++) {
		params[p.bz + i] = 1;
		params[p.bh + i] = 0;
	}
	params[p.zeta] = 3;
	params[p.nu] = -3;
}

/* out = U h; with low rank, `inner` [rank] gets B h. */
static void times_u(const ruv_fastgrnn_shape *s, const float *u, const float *h, float *out, float *inner)
{
	const float *b = u + s->hidden * s->rank;

	if (!s->rank) {
		for (int i = 0; i < s->hidden; i++)
			out[i] = ruv_vec_dot(u + i * s->hidden, h, s->hidden);
		return;
	}
	for (int r = 0; r < s->rank; r++)
		inner[r] = ruv_vec_dot(b + r * s->hidden, h, s->hidden);
	for (int i = 0; i < s->hidden; i++)
		out[i] = ruv_vec_dot(u + i * s->rank, inner, s->rank);
}

void ruv_fastgrnn_step(const ruv_fastgrnn_shape *s, const float *params, const float *x, const float *before, float *after,
                       ruv_fastgrnn_cache *cache)
{
	struct parts p = parts_of(s);
	ruv_fastgrnn_cache own = {0};
	float uz[MAX_HIDDEN], uh[MAX_HIDDEN], zeta = sigmoid(params[p.zeta]), nu = sigmoid(params[p.nu]);

	cache = cache ? cache : &own;
	times_u(s, params + p.uz, before, uz, cache->bz);
	times_u(s, params + p.uh, before, uh, cache->bh);
	for (int i = 0; i < s->hidden; i++) {
		float z = sigmoid(ruv_vec_dot(params + p.wz + i * s->n_in, x, s->n_in) + uz[i] + params[p.bz + i]);
		float c = tanhf(ruv_vec_dot(params + p.wh + i * s->n_in, x, s->n_in) + uh[i] + params[p.bh + i]);

		cache->z[i] = z;
		cache->c[i] = c;
		after[i] = (zeta * (1 - z) + nu) * c + z * before[i];
	}
}

/* Gradient of U h from d_out = dLoss/d(U h): adds to d_u and d_h. */
static void back_u(const ruv_fastgrnn_shape *s, const float *u, const float *h, const float *inner, const float *d_out, float *d_u,
                   float *d_h)
{
	const float *b = u + s->hidden * s->rank;
	float *d_b = d_u + s->hidden * s->rank, d_inner[MAX_HIDDEN] = {0};

	if (!s->rank) {
		for (int i = 0; i < s->hidden; i++) {
			ruv_vec_add(d_u + i * s->hidden, d_out[i], h, s->hidden);
			ruv_vec_add(d_h, d_out[i], u + i * s->hidden, s->hidden);
		}
		return;
	}
	for (int i = 0; i < s->hidden; i++) {
		ruv_vec_add(d_u + i * s->rank, d_out[i], inner, s->rank);
		ruv_vec_add(d_inner, d_out[i], u + i * s->rank, s->rank);
	}
	for (int r = 0; r < s->rank; r++) {
		ruv_vec_add(d_b + r * s->hidden, d_inner[r], h, s->hidden);
		ruv_vec_add(d_h, d_inner[r], b + r * s->hidden, s->hidden);
	}
}

void ruv_fastgrnn_back(const ruv_fastgrnn_shape *s, const float *params, const float *x, const float *before,
                       const ruv_fastgrnn_cache *cache, const float *d_after, float *gradient, float *d_before)
{
	struct parts p = parts_of(s);
	float zeta = sigmoid(params[p.zeta]), nu = sigmoid(params[p.nu]), d_zeta = 0, d_nu = 0;
	float dz[MAX_HIDDEN], dc[MAX_HIDDEN], dh[MAX_HIDDEN];

	for (int i = 0; i < s->hidden; i++) {
		float z = cache->z[i], c = cache->c[i], d = d_after[i];

		d_zeta += d * (1 - z) * c;
		d_nu += d * c;
		dh[i] = d * z;
		dz[i] = d * (before[i] - zeta * c) * z * (1 - z);
		dc[i] = d * (zeta * (1 - z) + nu) * (1 - c * c);
		ruv_vec_add(gradient + p.wz + i * s->n_in, dz[i], x, s->n_in);
		ruv_vec_add(gradient + p.wh + i * s->n_in, dc[i], x, s->n_in);
		gradient[p.bz + i] += dz[i];
		gradient[p.bh + i] += dc[i];
	}
	back_u(s, params + p.uz, before, cache->bz, dz, gradient + p.uz, dh);
	back_u(s, params + p.uh, before, cache->bh, dc, gradient + p.uh, dh);
	gradient[p.zeta] += d_zeta * zeta * (1 - zeta);
	gradient[p.nu] += d_nu * nu * (1 - nu);
	if (d_before)
		memcpy(d_before, dh, sizeof *dh * (size_t)s->hidden);
}

static int by_size(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? 1 : x > y ? -1 : 0;
}

int ruv_fastgrnn_prune(const ruv_fastgrnn_shape *s, float *params, double density, unsigned char *mask, ruv_error *err)
{
	int n = ruv_fastgrnn_n_input_weights(s), keep = (int)ceil(density * n), left;
	float *sizes, bound;

	if (!(density > 0) || density > 1)
		return ruv_fail(err, RUV_EINVAL, "fastgrnn", "density %g, a share above 0 and up to 1 is meant", density);
	sizes = malloc(sizeof *sizes * (size_t)n);
	if (!sizes)
		return ruv_fail_memory(err, "fastgrnn", sizeof *sizes * (size_t)n);
	for (int i = 0; i < n; i++)
		sizes[i] = fabsf(params[i]);
	qsort(sizes, (size_t)n, sizeof *sizes, by_size);
	bound = sizes[keep - 1];
	free(sizes);
	left = keep;
	for (int i = 0; i < n; i++) {
		bool stays = fabsf(params[i]) >= bound && left > 0;

		left -= stays;
		if (!stays)
			params[i] = 0;
		if (mask)
			mask[i] = stays;
	}
	return RUV_OK;
}

/* ---- running ----------------------------------------------------------------------------------------------------------- */

/* A matrix in one of the forms. Sparse rows are begin[i]..begin[i + 1) of values and columns. */
struct matrix {
	int n_rows, n_columns;
	bool sparse, int8;
	float *f32;
	int8_t *i8;
	float *scale; /* [n_rows] with int8 */
	uint8_t *columns;
	uint16_t *begin;
	size_t n_bytes;
};

struct ruv_fastgrnn_cell {
	ruv_fastgrnn_shape shape;
	struct matrix w[2], u[2], b[2]; /* input, recurrent (A), and B with low rank; [1] unused when shared */
	float bias[2][MAX_HIDDEN], zeta, nu;
};

static void matrix_release(struct matrix *m)
{
	free(m->f32);
	free(m->i8);
	free(m->scale);
	free(m->columns);
	free(m->begin);
}

static int matrix_init(struct matrix *m, const float *values, int n_rows, int n_columns, bool sparse, bool int8, ruv_error *err)
{
	size_t n = 0, n_all = (size_t)n_rows * (size_t)n_columns, at = 0;

	*m = (struct matrix){.n_rows = n_rows, .n_columns = n_columns, .sparse = sparse, .int8 = int8};
	for (size_t i = 0; i < n_all; i++)
		n += !sparse || values[i] != 0;
	m->f32 = int8 ? NULL : malloc(sizeof(float) * (n + 1));
	m->i8 = int8 ? malloc(n + 1) : NULL;
	m->scale = int8 ? malloc(sizeof(float) * (size_t)n_rows) : NULL;
	m->columns = sparse ? malloc(n + 1) : NULL;
	m->begin = sparse ? malloc(sizeof *m->begin * ((size_t)n_rows + 1)) : NULL;
	if ((int8 ? !m->i8 || !m->scale : !m->f32) || (sparse && (!m->columns || !m->begin)))
		return ruv_fail_memory(err, "fastgrnn", n * sizeof(float));
	m->n_bytes = n * (int8 ? 1 : sizeof(float)) + (int8 ? sizeof(float) * (size_t)n_rows : 0) +
	             (sparse ? n + sizeof *m->begin * ((size_t)n_rows + 1) : 0);
	for (int r = 0; r < n_rows; r++) {
		const float *row = values + (size_t)r * (size_t)n_columns;
		float top = 0;

		for (int c = 0; c < n_columns; c++)
			top = fmaxf(top, fabsf(row[c]));
		if (int8)
			m->scale[r] = top / 127;
		if (sparse)
			m->begin[r] = (uint16_t)at;
		for (int c = 0; c < n_columns; c++) {
			if (sparse && row[c] == 0)
				continue;
			if (sparse)
				m->columns[at] = (uint8_t)c;
			if (int8)
				m->i8[at++] = (int8_t)(top > 0 ? lrintf(row[c] / top * 127) : 0);
			else
				m->f32[at++] = row[c];
		}
	}
	if (sparse)
		m->begin[n_rows] = (uint16_t)at;
	return RUV_OK;
}

typedef int8_t v16i8 __attribute__((vector_size(16), aligned(1), may_alias));
typedef int16_t v16i16 __attribute__((vector_size(32)));
typedef int32_t v16i32 __attribute__((vector_size(64)));

static int32_t dot_i8(const int8_t *a, const int8_t *b, int n)
{
	int32_t sum = 0;
	int i = 0;

	for (; i + 16 <= n; i += 16) { /* a product of two bytes fits 16 bits */
		v16i16 product = __builtin_convertvector(*(const v16i8 *)(a + i), v16i16) *
		                 __builtin_convertvector(*(const v16i8 *)(b + i), v16i16);
		v16i32 wide = __builtin_convertvector(product, v16i32);

		for (int j = 0; j < 16; j++)
			sum += wide[j];
	}
	for (; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

/* out [n_rows] = M v; for int8, q and q_scale are v in 8 bits. */
static void matrix_times(const struct matrix *m, const float *v, const int8_t *q, float q_scale, float *out)
{
	for (int r = 0; r < m->n_rows; r++) {
		if (m->sparse && m->int8) {
			int32_t sum = 0;
			for (int i = m->begin[r]; i < m->begin[r + 1]; i++)
				sum += m->i8[i] * q[m->columns[i]];
			out[r] = (float)sum * m->scale[r] * q_scale;
		} else if (m->sparse) {
			float sum = 0;
			for (int i = m->begin[r]; i < m->begin[r + 1]; i++)
				sum += m->f32[i] * v[m->columns[i]];
			out[r] = sum;
		} else if (m->int8) {
			out[r] = (float)dot_i8(m->i8 + (size_t)r * (size_t)m->n_columns, q, m->n_columns) * m->scale[r] * q_scale;
		} else {
			out[r] = ruv_vec_dot(m->f32 + (size_t)r * (size_t)m->n_columns, v, m->n_columns);
		}
	}
}

/* v in 8 bits; returns the scale. */
static float quantize(const float *v, int n, int8_t *q)
{
	float top = 0;

	for (int i = 0; i < n; i++)
		top = fmaxf(top, fabsf(v[i]));
	for (int i = 0; i < n; i++)
		q[i] = (int8_t)(top > 0 ? lrintf(v[i] / top * 127) : 0);
	return top / 127;
}

int ruv_fastgrnn_cell_create(ruv_fastgrnn_cell **out, const ruv_fastgrnn_shape *s, const float *params, unsigned form,
                             ruv_error *err)
{
	struct parts p = parts_of(s);
	ruv_fastgrnn_cell *cell;
	bool sparse = form & RUV_FASTGRNN_SPARSE, int8 = form & RUV_FASTGRNN_INT8;
	int rc = ruv_fastgrnn_check(s, err);

	if (rc)
		return rc;
	cell = calloc(1, sizeof *cell);
	if (!cell)
		return ruv_fail_memory(err, "fastgrnn", sizeof *cell);
	cell->shape = *s;
	for (int gate = 0; !rc && gate < (s->shared ? 1 : 2); gate++) {
		const float *u = params + (gate ? p.uh : p.uz);

		rc = matrix_init(&cell->w[gate], params + (gate ? p.wh : p.wz), s->hidden, s->n_in, sparse, int8, err);
		if (!rc)
			rc = matrix_init(&cell->u[gate], u, s->hidden, s->rank ? s->rank : s->hidden, false, int8, err);
		if (!rc && s->rank)
			rc = matrix_init(&cell->b[gate], u + s->hidden * s->rank, s->rank, s->hidden, false, int8, err);
	}
	memcpy(cell->bias[0], params + p.bz, sizeof(float) * (size_t)s->hidden);
	memcpy(cell->bias[1], params + p.bh, sizeof(float) * (size_t)s->hidden);
	cell->zeta = sigmoid(params[p.zeta]);
	cell->nu = sigmoid(params[p.nu]);
	if (rc) {
		ruv_fastgrnn_cell_free(cell);
		return rc;
	}
	*out = cell;
	return RUV_OK;
}

void ruv_fastgrnn_cell_free(ruv_fastgrnn_cell *cell)
{
	if (!cell)
		return;
	for (int gate = 0; gate < 2; gate++) {
		matrix_release(&cell->w[gate]);
		matrix_release(&cell->u[gate]);
		matrix_release(&cell->b[gate]);
	}
	free(cell);
}

size_t ruv_fastgrnn_cell_bytes(const ruv_fastgrnn_cell *cell)
{
	size_t n = sizeof(float) * (2 * (size_t)cell->shape.hidden + 2);

	for (int gate = 0; gate < 2; gate++)
		n += cell->w[gate].n_bytes + cell->u[gate].n_bytes + cell->b[gate].n_bytes;
	return n;
}

void ruv_fastgrnn_cell_run(const ruv_fastgrnn_cell *cell, const float *x, float *state)
{
	const ruv_fastgrnn_shape *s = &cell->shape;
	float wx[2][MAX_HIDDEN], uh[2][MAX_HIDDEN], inner[MAX_HIDDEN], x_scale = 0, h_scale = 0;
	int8_t qx[MAX_IN], qh[MAX_HIDDEN], qi[MAX_HIDDEN];
	bool int8 = cell->w[0].int8;

	if (int8) {
		x_scale = quantize(x, s->n_in, qx);
		h_scale = quantize(state, s->hidden, qh);
	}
	for (int gate = 0; gate < (s->shared ? 1 : 2); gate++) {
		matrix_times(&cell->w[gate], x, qx, x_scale, wx[gate]);
		if (s->rank) {
			float scale;

			matrix_times(&cell->b[gate], state, qh, h_scale, inner);
			scale = int8 ? quantize(inner, s->rank, qi) : 0;
			matrix_times(&cell->u[gate], inner, qi, scale, uh[gate]);
		} else {
			matrix_times(&cell->u[gate], state, qh, h_scale, uh[gate]);
		}
	}
	for (int i = 0; i < s->hidden; i++) {
		int other = s->shared ? 0 : 1;
		float z = sigmoid(wx[0][i] + uh[0][i] + cell->bias[0][i]);
		float c = tanhf(wx[other][i] + uh[other][i] + cell->bias[1][i]);

		state[i] = (cell->zeta * (1 - z) + cell->nu) * c + z * state[i];
	}
}
