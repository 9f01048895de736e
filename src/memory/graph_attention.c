/* graph_attention.c - the network of graph_attention.h, forward and backward.
 *
 * Weights are [in, out], so that every product is a sum of rows: no reduction, the compiler makes vectors of it. One array holds
 * all parameters, `places` says where each lies. Edges are sorted by the node they arrive at (stable, so a node's neighbours keep
 * the caller's order). Layer: memory. */
#include "memory/graph_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static const char where[] = "graph attention";

static const float leak = 0.2F;
/* Added to the argument of acosh, whose slope at 1 is infinite. */
static const float acosh_shift = 1e-4F;

typedef struct places {
	int p, w0, b0;
	struct {
		int wq, wk, wv, wo, we, ve, a, alpha, beta, ball;
	} layers[RUV_GAT_MAX_LAYERS];
	int w1, b1, w2, sharpness, n;
	int n_in; /* columns of W0 */
} places;

static places places_of(const ruv_gat_shape *s)
{
	places at = {.n_in = 2 * s->projected + RUV_GAT_FEATURES};
	const int h = s->hidden;
	int n = 0;

#define TAKE(field, count) (at.field = n, n += (count))
	TAKE(p, s->dim * s->projected);
	TAKE(w0, at.n_in * h);
	TAKE(b0, h);
	for (int l = 0; l < s->layers; l++) {
		TAKE(layers[l].wq, h * h);
		TAKE(layers[l].wk, h * h);
		TAKE(layers[l].wv, h * h);
		TAKE(layers[l].wo, h * h);
		TAKE(layers[l].we, RUV_GAT_EDGE_ROWS * h);
		TAKE(layers[l].ve, RUV_GAT_EDGE_ROWS * h);
		TAKE(layers[l].a, h);
		TAKE(layers[l].alpha, s->heads);
		TAKE(layers[l].beta, s->heads);
		TAKE(layers[l].ball, h * s->heads * RUV_GAT_BALL);
	}
	TAKE(w1, 2 * h * h);
	TAKE(b1, h);
	TAKE(w2, h);
	TAKE(sharpness, 1);
#undef TAKE
	at.n = n;
	return at;
}

int ruv_gat_check(const ruv_gat_shape *s, ruv_error *err)
{
	if (s->dim < 1 || s->dim > RUV_MEMORY_MAX_DIMENSION || s->projected < 1 || s->projected > 256)
		return ruv_fail(err, RUV_EINVAL, where, "vectors of %d numbers projected to %d", s->dim, s->projected);
	if (s->heads < 1 || s->heads > RUV_GAT_MAX_HEADS || s->hidden < 2 || s->hidden > RUV_GAT_MAX_HIDDEN ||
	    s->hidden % (2 * s->heads))
		return ruv_fail(err, RUV_EINVAL, where, "hidden size %d with %d heads: a multiple of twice the heads up to %d",
		                s->hidden, s->heads, RUV_GAT_MAX_HIDDEN);
	if (s->layers < 1 || s->layers > RUV_GAT_MAX_LAYERS)
		return ruv_fail(err, RUV_EINVAL, where, "%d layers, 1 to %d are possible", s->layers, RUV_GAT_MAX_LAYERS);
	if (!(s->prune >= 0 && s->prune < INFINITY))
		return ruv_fail(err, RUV_EINVAL, where, "a pruning threshold of %g", (double)s->prune);
	return RUV_OK;
}

int ruv_gat_n_params(const ruv_gat_shape *shape)
{
	return places_of(shape).n;
}

static void fill(float *w, int n_in, int n, double scale, ruv_rng *rng)
{
	const double deviation = scale / sqrt((double)n_in);

	for (int i = 0; i < n; i++)
		w[i] = (float)(ruv_rng_normal(rng) * deviation);
}

void ruv_gat_init(float *params, const ruv_gat_shape *s, ruv_rng *rng)
{
	const places at = places_of(s);
	const int h = s->hidden;

	memset(params, 0, sizeof *params * (size_t)at.n);
	fill(params + at.p, 1, s->dim * s->projected, 1, rng); /* rows are unit vectors */
	fill(params + at.w0, at.n_in, at.n_in * h, 1, rng);
	for (int l = 0; l < s->layers; l++) {
		fill(params + at.layers[l].wq, h, h * h, 1, rng);
		fill(params + at.layers[l].wk, h, h * h, 1, rng);
		fill(params + at.layers[l].wv, h, h * h, 1, rng);
		fill(params + at.layers[l].wo, h, h * h, 0.5, rng);
		fill(params + at.layers[l].we, 4, RUV_GAT_EDGE_ROWS * h, 1, rng);
		fill(params + at.layers[l].ve, 4, RUV_GAT_EDGE_ROWS * h, 1, rng);
		fill(params + at.layers[l].a, h / s->heads, h, 1, rng);
		fill(params + at.layers[l].ball, h, h * s->heads * RUV_GAT_BALL, 0.5, rng);
		for (int i = 0; i < s->heads; i++) {
			params[at.layers[l].alpha + i] = 0.5F;
			params[at.layers[l].beta + i] = 0.5F;
		}
	}
	fill(params + at.w1, 2 * h, 2 * h * h, 1, rng);
}

/* ---- small products ----------------------------------------------------------------------------------------------------- */

/* y [n_out] += x [n_in] W [n_in, n_out] */
static void multiply(float *restrict y, const float *restrict x, const float *restrict w, int n_in, int n_out)
{
	for (int i = 0; i < n_in; i++) {
		const float v = x[i];
		const float *restrict row = w + (size_t)i * (size_t)n_out;
		for (int o = 0; o < n_out; o++)
			y[o] += v * row[o];
	}
}

/* Of y = x W: d_w += x (x) d_y, and d_x += W d_y unless d_x is NULL. */
static void multiply_back(float *restrict d_x, float *restrict d_w, const float *restrict d_y, const float *restrict x,
                          const float *restrict w, int n_in, int n_out)
{
	for (int i = 0; i < n_in; i++) {
		const float v = x[i];
		float *restrict d_row = d_w + (size_t)i * (size_t)n_out;
		for (int o = 0; o < n_out; o++)
			d_row[o] += v * d_y[o];
	}
	for (int i = 0; d_x && i < n_in; i++) {
		const float *restrict row = w + (size_t)i * (size_t)n_out;
		float sum = 0;
		for (int o = 0; o < n_out; o++)
			sum += row[o] * d_y[o];
		d_x[i] += sum;
	}
}

static float relu(float x)
{
	return x > 0 ? x : leak * x;
}

static float slope(float x)
{
	return x > 0 ? 1 : leak;
}

/* GraphRoPE: pairs of each head turned by hop x frequency, frequencies 1, 1/2, 1/4, ... sign -1 turns back. */
static void turn(float *x, int hidden, int heads, int hop, float sign)
{
	const int size = hidden / heads;

	if (!hop)
		return;
	for (int p = 0; p < size / 2; p++) {
		const float angle = sign * (float)hop * ldexpf(1, -p), c = cosf(angle), s = sinf(angle);
		for (int i = 2 * p; i < hidden; i += size) {
			const float u = x[i], v = x[i + 1];
			x[i] = c * u - s * v;
			x[i + 1] = s * u + c * v;
		}
	}
}

/* r_ij [hidden] of the rows in `table` [RUV_GAT_EDGE_ROWS, hidden]. */
static void edge_row(float *restrict out, const float *restrict table, const ruv_gat_edge *e, int h)
{
	const float *restrict r = table + (size_t)e->relation * (size_t)h, *restrict w = table + RUV_GAT_RELATIONS * (size_t)h;

	for (int i = 0; i < h; i++)
		out[i] = r[i] + e->weight * w[i] + e->confidence * w[h + i] + e->recency * w[2 * h + i];
}

static void edge_row_back(float *restrict d_table, const float *restrict d, const ruv_gat_edge *e, int h)
{
	float *restrict r = d_table + (size_t)e->relation * (size_t)h, *restrict w = d_table + RUV_GAT_RELATIONS * (size_t)h;

	for (int i = 0; i < h; i++) {
		r[i] += d[i];
		w[i] += e->weight * d[i];
		w[h + i] += e->confidence * d[i];
		w[2 * h + i] += e->recency * d[i];
	}
}

/* ---- the Poincare ball -------------------------------------------------------------------------------------------------- */

/* exp_0: u = tanh(r) / r x, r = |x|. *shrink = 1 - |u|^2, *g = tanh(r) / r, *g1 = (d g / d r) / r. */
static void exp0(float u[RUV_GAT_BALL], const float x[RUV_GAT_BALL], float *shrink, float *g, float *g1)
{
	float square = 0, r, cosh_r;

	for (int i = 0; i < RUV_GAT_BALL; i++)
		square += x[i] * x[i];
	r = sqrtf(square);
	cosh_r = coshf(r > 8 ? 8 : r); /* the ball's rim is not reached */
	*shrink = 1 / (cosh_r * cosh_r);
	if (r < 0.02F) {
		*g = 1 - square / 3;
		*g1 = -2.0F / 3 + 8.0F / 15 * square;
	} else {
		*g = tanhf(r) / r;
		*g1 = (*shrink - *g) / (r * r);
	}
	for (int i = 0; i < RUV_GAT_BALL; i++)
		u[i] = *g * x[i];
}

/* Of two points in the ball, with 1 - |u|^2 of each. */
static float distance(const float *u, const float *v, float b, float c)
{
	float square = 0;

	for (int i = 0; i < RUV_GAT_BALL; i++)
		square += (u[i] - v[i]) * (u[i] - v[i]);
	return acoshf(1 + acosh_shift + 2 * square / (b * c));
}

float ruv_gat_poincare(const float x[RUV_GAT_BALL], const float y[RUV_GAT_BALL], float d_x[RUV_GAT_BALL], float d_y[RUV_GAT_BALL])
{
	float u[RUV_GAT_BALL], v[RUV_GAT_BALL], b, c, gx, gx1, gy, gy1, square = 0, z, scale, du[RUV_GAT_BALL], dv[RUV_GAT_BALL];
	float along_x = 0, along_y = 0;

	exp0(u, x, &b, &gx, &gx1);
	exp0(v, y, &c, &gy, &gy1);
	if (!d_x)
		return distance(u, v, b, c);
	for (int i = 0; i < RUV_GAT_BALL; i++)
		square += (u[i] - v[i]) * (u[i] - v[i]);
	z = 1 + acosh_shift + 2 * square / (b * c);
	scale = 1 / sqrtf((z - 1) * (z + 1));
	for (int i = 0; i < RUV_GAT_BALL; i++) {
		du[i] = scale * (4 * (u[i] - v[i]) / (b * c) + 4 * square * u[i] / (b * b * c));
		dv[i] = scale * (4 * (v[i] - u[i]) / (b * c) + 4 * square * v[i] / (b * c * c));
		along_x += x[i] * du[i];
		along_y += y[i] * dv[i];
	}
	for (int i = 0; i < RUV_GAT_BALL; i++) {
		d_x[i] = gx * du[i] + gx1 * along_x * x[i];
		d_y[i] = gy * dv[i] + gy1 * along_y * y[i];
	}
	return acoshf(z);
}

/* ---- forward ------------------------------------------------------------------------------------------------------------ */

typedef struct layer_trace {
	float *in;        /* [n, h] */
	float *q, *k, *v; /* [n, h] q and k turned */
	float *points;    /* [n, heads * (BALL + 1)] of those in the ball, and 1 - |u|^2 of each */
	float *ball;      /* [n, heads * BALL] tangent vectors */
	float *attention; /* [heads, n_edges] */
	float *message;   /* [n, h] before Wo */
} layer_trace;

struct ruv_gat_pass {
	ruv_gat_shape shape;
	const float *params;
	const ruv_gat_graph *graph;
	ruv_gat_edge *edges; /* [n_edges] kept ones, by node they arrive at */
	int *first;          /* [n + 1] */
	int n_edges;
	float *pq;     /* [projected] of the question */
	float *z;      /* [n, n_in] */
	float *h0;     /* [n, h] */
	float *h;      /* [n, h] */
	float *inside; /* [n, 2, h] before phi: with and without what arrived */
	layer_trace layers[RUV_GAT_MAX_LAYERS];
};

const float *ruv_gat_attention(const ruv_gat_pass *pass, int layer, int *n)
{
	*n = pass->n_edges;
	return pass->layers[layer].attention;
}

/* Keeps the edges that are heavy enough, sorted by where they arrive. */
static void keep_edges(ruv_gat_pass *p)
{
	const ruv_gat_graph *g = p->graph;

	for (int e = 0; e < g->n_edges; e++)
		if (g->edges[e].weight * g->edges[e].confidence >= p->shape.prune)
			p->first[g->edges[e].to + 1]++;
	for (int i = 0; i < g->n; i++)
		p->first[i + 1] += p->first[i];
	p->n_edges = p->first[g->n];
	for (int e = g->n_edges - 1; e >= 0; e--)
		if (g->edges[e].weight * g->edges[e].confidence >= p->shape.prune)
			p->edges[--p->first[g->edges[e].to + 1]] = g->edges[e];
	/* Each first[i + 1] has walked down to first[i]. */
	memmove(p->first, p->first + 1, sizeof *p->first * (size_t)g->n);
	p->first[g->n] = p->n_edges;
}

static void embed_nodes(ruv_gat_pass *p, const places *at)
{
	const ruv_gat_shape *s = &p->shape;
	const int h = s->hidden, m = s->projected;

	multiply(p->pq, p->graph->question, p->params + at->p, s->dim, m);
	for (int i = 0; i < p->graph->n; i++) {
		float *z = p->z + (size_t)i * (size_t)at->n_in, *h0 = p->h0 + (size_t)i * (size_t)h;
		if (p->graph->rows[i])
			multiply(z, p->graph->rows[i], p->params + at->p, s->dim, m);
		for (int j = 0; j < m; j++)
			z[m + j] = z[j] * p->pq[j];
		memcpy(z + 2 * m, p->graph->features + (size_t)i * RUV_GAT_FEATURES, sizeof *z * RUV_GAT_FEATURES);
		memcpy(h0, p->params + at->b0, sizeof *h0 * (size_t)h);
		multiply(h0, z, p->params + at->w0, at->n_in, h);
		for (int j = 0; j < h; j++)
			h0[j] = tanhf(h0[j]);
	}
	memcpy(p->h, p->h0, sizeof *p->h * (size_t)p->graph->n * (size_t)h);
}

/* e_ij of every head into logit [heads]. */
static void attend(const ruv_gat_pass *p, const places *at, int l, const ruv_gat_edge *e, float *logit)
{
	const ruv_gat_shape *s = &p->shape;
	const layer_trace *t = &p->layers[l];
	const int h = s->hidden, size = h / s->heads;
	const size_t width = (size_t)s->heads * (RUV_GAT_BALL + 1);
	const float *q = t->q + (size_t)e->to * (size_t)h, *k = t->k + (size_t)e->from * (size_t)h;
	const float *u = t->points + (size_t)e->to * width, *v = t->points + (size_t)e->from * width;
	const float *a = p->params + at->layers[l].a, root = 1 / sqrtf((float)size);
	float r[RUV_GAT_MAX_HIDDEN];

	edge_row(r, p->params + at->layers[l].we, e, h);
	for (int head = 0; head < s->heads; head++) {
		const int o = head * size;
		float sum = 0, dot = 0;
		for (int i = o; i < o + size; i++) {
			sum += a[i] * relu(q[i] + k[i] + r[i]);
			dot += q[i] * k[i];
		}
		logit[head] = sum + p->params[at->layers[l].alpha + head] * dot * root -
		              p->params[at->layers[l].beta + head] * distance(u, v, u[RUV_GAT_BALL], v[RUV_GAT_BALL]);
		u += RUV_GAT_BALL + 1;
		v += RUV_GAT_BALL + 1;
	}
}

static void run_layer(ruv_gat_pass *p, const places *at, int l)
{
	const ruv_gat_shape *s = &p->shape;
	layer_trace *t = &p->layers[l];
	const int n = p->graph->n, h = s->hidden, size = h / s->heads, balls = s->heads * RUV_GAT_BALL;
	const size_t width = (size_t)h;

	memcpy(t->in, p->h, sizeof *t->in * (size_t)n * width);
	for (int i = 0; i < n; i++) {
		const float *in = t->in + (size_t)i * width;
		multiply(t->q + (size_t)i * width, in, p->params + at->layers[l].wq, h, h);
		multiply(t->k + (size_t)i * width, in, p->params + at->layers[l].wk, h, h);
		multiply(t->v + (size_t)i * width, in, p->params + at->layers[l].wv, h, h);
		multiply(t->ball + (size_t)i * (size_t)balls, in, p->params + at->layers[l].ball, h, balls);
		for (int head = 0; head < s->heads; head++) {
			float *point = t->points + ((size_t)i * (size_t)s->heads + (size_t)head) * (RUV_GAT_BALL + 1), g, g1;
			exp0(point, t->ball + (size_t)i * (size_t)balls + (size_t)head * RUV_GAT_BALL, &point[RUV_GAT_BALL], &g,
			     &g1);
		}
		turn(t->q + (size_t)i * width, h, s->heads, p->graph->hops[i], 1);
		turn(t->k + (size_t)i * width, h, s->heads, p->graph->hops[i], 1);
	}
	for (int i = 0; i < n; i++) {
		float most[RUV_GAT_MAX_HEADS] = {0}, sum[RUV_GAT_MAX_HEADS]; /* the logit of nothing is 0 */
		float *message = t->message + (size_t)i * width, row[RUV_GAT_MAX_HIDDEN];
		if (p->first[i] == p->first[i + 1])
			continue;
		for (int e = p->first[i]; e < p->first[i + 1]; e++) {
			float logit[RUV_GAT_MAX_HEADS];
			attend(p, at, l, &p->edges[e], logit);
			for (int head = 0; head < s->heads; head++) {
				t->attention[(size_t)head * (size_t)p->n_edges + (size_t)e] = logit[head];
				most[head] = logit[head] > most[head] ? logit[head] : most[head];
			}
		}
		for (int head = 0; head < s->heads; head++) {
			float *w = t->attention + (size_t)head * (size_t)p->n_edges;
			sum[head] = expf(-most[head]);
			for (int e = p->first[i]; e < p->first[i + 1]; e++)
				sum[head] += w[e] = expf(w[e] - most[head]);
			for (int e = p->first[i]; e < p->first[i + 1]; e++)
				w[e] /= sum[head];
		}
		for (int e = p->first[i]; e < p->first[i + 1]; e++) {
			const float *v = t->v + (size_t)p->edges[e].from * width;
			edge_row(row, p->params + at->layers[l].ve, &p->edges[e], h);
			for (int head = 0; head < s->heads; head++) {
				const float w = t->attention[(size_t)head * (size_t)p->n_edges + (size_t)e];
				for (int j = head * size; j < (head + 1) * size; j++)
					message[j] += w * (v[j] + row[j]);
			}
		}
		multiply(p->h + (size_t)i * width, message, p->params + at->layers[l].wo, h, h);
	}
}

static void read_out(ruv_gat_pass *p, const places *at, float *scores)
{
	const int h = p->shape.hidden;
	const size_t width = (size_t)h;
	const float *w2 = p->params + at->w2;

	for (int i = 0; i < p->graph->n; i++) {
		const float *h0 = p->h0 + (size_t)i * width, *now = p->h + (size_t)i * width;
		float *with = p->inside + (size_t)i * 2 * width, *without = with + width, d[RUV_GAT_MAX_HIDDEN], sum = 0;
		memcpy(without, p->params + at->b1, sizeof *without * width);
		multiply(without, h0, p->params + at->w1, h, h);
		memcpy(with, without, sizeof *with * width);
		for (int j = 0; j < h; j++)
			d[j] = now[j] - h0[j];
		multiply(with, d, p->params + at->w1 + width * width, h, h);
		for (int j = 0; j < h; j++)
			sum += w2[j] * (relu(with[j]) - relu(without[j]));
		scores[i] = p->graph->base[i] + sum;
	}
}

static int make_pass(ruv_gat_pass **out, const ruv_gat_shape *s, const places *at, const ruv_gat_graph *g, ruv_arena *arena)
{
	const size_t n = (size_t)g->n, h = (size_t)s->hidden;
	ruv_gat_pass *p = ruv_arena_calloc(arena, 1, sizeof *p);

	*out = p;
	if (!p)
		return RUV_ENOMEM;
#define TAKE(field, count)                                                                                                         \
	do {                                                                                                                       \
		(field) = ruv_arena_calloc(arena, (count) + 1, sizeof *(field));                                                   \
		if (!(field))                                                                                                      \
			return RUV_ENOMEM;                                                                                         \
	} while (0)
	TAKE(p->edges, (size_t)g->n_edges);
	TAKE(p->first, n + 1);
	TAKE(p->pq, (size_t)s->projected);
	TAKE(p->z, n * (size_t)at->n_in);
	TAKE(p->h0, n * h);
	TAKE(p->h, n * h);
	TAKE(p->inside, n * 2 * h);
	for (int l = 0; l < s->layers; l++) {
		layer_trace *t = &p->layers[l];
		TAKE(t->in, n * h);
		TAKE(t->q, n * h);
		TAKE(t->k, n * h);
		TAKE(t->v, n * h);
		TAKE(t->ball, n * (size_t)s->heads * RUV_GAT_BALL);
		TAKE(t->points, n * (size_t)s->heads * (RUV_GAT_BALL + 1));
		TAKE(t->attention, (size_t)s->heads * (size_t)g->n_edges);
		TAKE(t->message, n * h);
	}
#undef TAKE
	return RUV_OK;
}

int ruv_gat_forward(ruv_gat_pass **pass, float *scores, const ruv_gat_shape *shape, const float *params, const ruv_gat_graph *graph,
                    ruv_arena *arena, ruv_error *err)
{
	const places at = places_of(shape);
	ruv_gat_pass *p;

	if (make_pass(&p, shape, &at, graph, arena))
		return ruv_fail_memory(err, where, (size_t)graph->n * (size_t)shape->hidden * sizeof(float) * 16);
	p->shape = *shape;
	p->params = params;
	p->graph = graph;
	keep_edges(p);
	embed_nodes(p, &at);
	for (int l = 0; l < shape->layers; l++)
		run_layer(p, &at, l);
	read_out(p, &at, scores);
	*pass = p;
	return RUV_OK;
}

/* ---- backward ----------------------------------------------------------------------------------------------------------- */

/* d_h [n, h] gets dLoss / d h after the last layer, d_h0 [n, h] what reaches h0 directly. */
static void read_out_back(const ruv_gat_pass *p, const places *at, const float *d_scores, float *d_h, float *d_h0, float *gradient)
{
	const int h = p->shape.hidden;
	const size_t width = (size_t)h;
	const float *w2 = p->params + at->w2, *w1 = p->params + at->w1;

	for (int i = 0; i < p->graph->n; i++) {
		const float *h0 = p->h0 + (size_t)i * width, *now = p->h + (size_t)i * width;
		const float *with = p->inside + (size_t)i * 2 * width, *without = with + width;
		float d[RUV_GAT_MAX_HIDDEN], d_with[RUV_GAT_MAX_HIDDEN], d_both[RUV_GAT_MAX_HIDDEN], d_d[RUV_GAT_MAX_HIDDEN] = {0};
		if (d_scores[i] == 0 || p->first[i] == p->first[i + 1])
			continue; /* nothing arrived: the correction is 0 whatever the parameters are */
		for (int j = 0; j < h; j++) {
			const float s = d_scores[i] * w2[j];
			gradient[at->w2 + j] += d_scores[i] * (relu(with[j]) - relu(without[j]));
			d_with[j] = s * slope(with[j]);
			d_both[j] = d_with[j] - s * slope(without[j]);
			gradient[at->b1 + j] += d_both[j];
			d[j] = now[j] - h0[j];
		}
		multiply_back(d_h0 + (size_t)i * width, gradient + at->w1, d_both, h0, w1, h, h);
		multiply_back(d_d, gradient + at->w1 + width * width, d_with, d, w1 + width * width, h, h);
		for (int j = 0; j < h; j++) {
			d_h[(size_t)i * width + (size_t)j] += d_d[j];
			d_h0[(size_t)i * width + (size_t)j] -= d_d[j];
		}
	}
}

typedef struct layer_gradient {
	float *q, *k, *v, *ball; /* as in layer_trace */
} layer_gradient;

/* From d_logit [heads] of an edge. */
static void attend_back(const ruv_gat_pass *p, const places *at, int l, const ruv_gat_edge *e, const float *d_logit,
                        layer_gradient *d, float *gradient)
{
	const ruv_gat_shape *s = &p->shape;
	const layer_trace *t = &p->layers[l];
	const int h = s->hidden, size = h / s->heads;
	const size_t balls = (size_t)s->heads * RUV_GAT_BALL, to = (size_t)e->to, from = (size_t)e->from, width = (size_t)h;
	const float *q = t->q + to * width, *k = t->k + from * width, root = 1 / sqrtf((float)size);
	const float *a = p->params + at->layers[l].a;
	float *dq = d->q + to * width, *dk = d->k + from * width, r[RUV_GAT_MAX_HIDDEN], d_r[RUV_GAT_MAX_HIDDEN];

	edge_row(r, p->params + at->layers[l].we, e, h);
	for (int head = 0; head < s->heads; head++) {
		const float g = d_logit[head], alpha = p->params[at->layers[l].alpha + head] * root,
			    beta = p->params[at->layers[l].beta + head];
		const size_t bi = to * balls + (size_t)head * RUV_GAT_BALL, bj = from * balls + (size_t)head * RUV_GAT_BALL;
		float dx[RUV_GAT_BALL], dy[RUV_GAT_BALL], dot = 0, apart;
		for (int i = head * size; i < (head + 1) * size; i++) {
			const float sum = q[i] + k[i] + r[i];
			gradient[at->layers[l].a + i] += g * relu(sum);
			d_r[i] = g * a[i] * slope(sum);
			dq[i] += d_r[i] + g * alpha * k[i];
			dk[i] += d_r[i] + g * alpha * q[i];
			dot += q[i] * k[i];
		}
		apart = ruv_gat_poincare(t->ball + bi, t->ball + bj, dx, dy);
		gradient[at->layers[l].alpha + head] += g * dot * root;
		gradient[at->layers[l].beta + head] -= g * apart;
		for (int i = 0; i < RUV_GAT_BALL; i++) {
			d->ball[bi + (size_t)i] -= g * beta * dx[i];
			d->ball[bj + (size_t)i] -= g * beta * dy[i];
		}
	}
	edge_row_back(gradient + at->layers[l].we, d_r, e, h);
}

/* d_h [n, h] of the layer's output becomes that of its input. */
static int layer_back(const ruv_gat_pass *p, const places *at, int l, float *d_h, float *gradient, ruv_arena *arena)
{
	const ruv_gat_shape *s = &p->shape;
	const layer_trace *t = &p->layers[l];
	const int n = p->graph->n, h = s->hidden, size = h / s->heads, balls = s->heads * RUV_GAT_BALL;
	const size_t width = (size_t)h, cells = (size_t)n * width + 1;
	layer_gradient d = {ruv_arena_calloc(arena, cells, sizeof(float)), ruv_arena_calloc(arena, cells, sizeof(float)),
	                    ruv_arena_calloc(arena, cells, sizeof(float)),
	                    ruv_arena_calloc(arena, (size_t)n * (size_t)balls + 1, sizeof(float))};
	float *d_weight = ruv_arena_calloc(arena, ((size_t)p->n_edges + 1) * (size_t)s->heads, sizeof *d_weight);

	if (!d.q || !d.k || !d.v || !d.ball || !d_weight)
		return RUV_ENOMEM;
	for (int i = 0; i < n; i++) {
		float d_message[RUV_GAT_MAX_HIDDEN] = {0}, along[RUV_GAT_MAX_HEADS] = {0};
		if (p->first[i] == p->first[i + 1])
			continue;
		multiply_back(d_message, gradient + at->layers[l].wo, d_h + (size_t)i * width, t->message + (size_t)i * width,
		              p->params + at->layers[l].wo, h, h);
		for (int e = p->first[i]; e < p->first[i + 1]; e++) {
			const size_t from = (size_t)p->edges[e].from;
			float row[RUV_GAT_MAX_HIDDEN], d_row[RUV_GAT_MAX_HIDDEN];
			edge_row(row, p->params + at->layers[l].ve, &p->edges[e], h);
			for (int head = 0; head < s->heads; head++) {
				const float w = t->attention[(size_t)head * (size_t)p->n_edges + (size_t)e];
				float sum = 0;
				for (int j = head * size; j < (head + 1) * size; j++) {
					sum += d_message[j] * (t->v[from * width + (size_t)j] + row[j]);
					d_row[j] = w * d_message[j];
					d.v[from * width + (size_t)j] += d_row[j];
				}
				d_weight[(size_t)e * (size_t)s->heads + (size_t)head] = sum;
				along[head] += w * sum;
			}
			edge_row_back(gradient + at->layers[l].ve, d_row, &p->edges[e], h);
		}
		for (int e = p->first[i]; e < p->first[i + 1]; e++) {
			float d_logit[RUV_GAT_MAX_HEADS];
			for (int head = 0; head < s->heads; head++)
				d_logit[head] = t->attention[(size_t)head * (size_t)p->n_edges + (size_t)e] *
				                (d_weight[(size_t)e * (size_t)s->heads + (size_t)head] - along[head]);
			attend_back(p, at, l, &p->edges[e], d_logit, &d, gradient);
		}
	}
	for (int i = 0; i < n; i++) {
		const float *in = t->in + (size_t)i * width;
		float *d_in = d_h + (size_t)i * width; /* the residual path is there already */
		turn(d.q + (size_t)i * width, h, s->heads, p->graph->hops[i], -1);
		turn(d.k + (size_t)i * width, h, s->heads, p->graph->hops[i], -1);
		multiply_back(d_in, gradient + at->layers[l].wq, d.q + (size_t)i * width, in, p->params + at->layers[l].wq, h, h);
		multiply_back(d_in, gradient + at->layers[l].wk, d.k + (size_t)i * width, in, p->params + at->layers[l].wk, h, h);
		multiply_back(d_in, gradient + at->layers[l].wv, d.v + (size_t)i * width, in, p->params + at->layers[l].wv, h, h);
		multiply_back(d_in, gradient + at->layers[l].ball, d.ball + (size_t)i * (size_t)balls, in,
		              p->params + at->layers[l].ball, h, balls);
	}
	return RUV_OK;
}

static void embed_nodes_back(const ruv_gat_pass *p, const places *at, const float *d_h0, float *gradient, float *d_z, float *d_pq)
{
	const ruv_gat_shape *s = &p->shape;
	const int h = s->hidden, m = s->projected;

	for (int i = 0; i < p->graph->n; i++) {
		const float *z = p->z + (size_t)i * (size_t)at->n_in, *h0 = p->h0 + (size_t)i * (size_t)h;
		float d[RUV_GAT_MAX_HIDDEN], any = 0;
		for (int j = 0; j < h; j++) {
			d[j] = d_h0[(size_t)i * (size_t)h + (size_t)j] * (1 - h0[j] * h0[j]);
			any += fabsf(d[j]);
			gradient[at->b0 + j] += d[j];
		}
		if (any == 0)
			continue;
		memset(d_z, 0, sizeof *d_z * (size_t)at->n_in);
		multiply_back(d_z, gradient + at->w0, d, z, p->params + at->w0, at->n_in, h);
		if (!p->graph->rows[i])
			continue;
		for (int j = 0; j < m; j++) {
			d_pq[j] += d_z[m + j] * z[j];
			d_z[j] += d_z[m + j] * p->pq[j];
		}
		multiply_back(NULL, gradient + at->p, d_z, p->graph->rows[i], NULL, s->dim, m);
	}
	multiply_back(NULL, gradient + at->p, d_pq, p->graph->question, NULL, s->dim, m);
}

int ruv_gat_backward(const ruv_gat_pass *p, const float *d_scores, float *gradient, ruv_error *err)
{
	const places at = places_of(&p->shape);
	const size_t cells = (size_t)p->graph->n * (size_t)p->shape.hidden;
	float *d_h, *d_h0, *d_z, *d_pq;
	ruv_arena arena;
	int rc = RUV_OK;

	ruv_arena_init(&arena);
	d_h = ruv_arena_calloc(&arena, cells + 1, sizeof *d_h);
	d_h0 = ruv_arena_calloc(&arena, cells + 1, sizeof *d_h0);
	d_z = ruv_arena_calloc(&arena, (size_t)at.n_in, sizeof *d_z);
	d_pq = ruv_arena_calloc(&arena, (size_t)p->shape.projected, sizeof *d_pq);
	if (!d_h || !d_h0 || !d_z || !d_pq)
		rc = RUV_ENOMEM;
	if (!rc)
		read_out_back(p, &at, d_scores, d_h, d_h0, gradient);
	for (int l = p->shape.layers - 1; !rc && l >= 0; l--)
		rc = layer_back(p, &at, l, d_h, gradient, &arena);
	if (!rc) {
		for (size_t i = 0; i < cells; i++)
			d_h0[i] += d_h[i];
		embed_nodes_back(p, &at, d_h0, gradient, d_z, d_pq);
	}
	ruv_arena_release(&arena);
	return rc ? ruv_fail_memory(err, where, cells * sizeof(float) * 6) : RUV_OK;
}
