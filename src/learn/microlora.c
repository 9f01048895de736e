/* microlora.c - Adam on LoRA matrices, their files, and merging.
 *
 * The merge: the change of one matrix is W = sum_i w_i B_i A_i = P Q with P = [w_i B_i] (n_out x R), Q = [A_i] (R x n_in), R the
 * sum of the ranks. With Gram-Schmidt P = U X and Q^T = V Y, W = U (X Y^T) V^T, and the small matrix X Y^T is decomposed by
 * one-sided Jacobi rotations; the largest singular values stay. */
#include "learn/microlora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/status.h"
#include "format/gguf.h"
#include "format/gguf_write.h"
#include "model/object.h"

static const char where[] = "microlora";

int ruv_microlora_create(ruv_microlora **out, ruv_model *model, const int *hooks, int n_hooks, int rank, unsigned slots,
                         uint64_t seed, ruv_error *err)
{
	*out = NULL;
	if (rank < 1 || rank > RUV_MICROLORA_MAX_RANK)
		return ruv_fail(err, RUV_EINVAL, where, "the rank is %d, which is outside 1..%d", rank, RUV_MICROLORA_MAX_RANK);
	if (n_hooks < 1 || n_hooks > RUV_VARIANT_MAX_HOOKS)
		return ruv_fail(err, RUV_EINVAL, where, "%d hooks, 1..%d are possible", n_hooks, RUV_VARIANT_MAX_HOOKS);
	ruv_microlora *l = calloc(1, sizeof *l);
	if (!l)
		return ruv_fail_memory(err, where, sizeof *l);
	*l = (ruv_microlora){.model = ruv_model_hold(model), .rank = rank, .rate = 3e-3f, .clip = 1, .max_step = 1};
	l->params = calloc((size_t)n_hooks * RUV_SLOT_N, sizeof *l->params);
	l->first = calloc((size_t)n_hooks * RUV_SLOT_N * 2 + 1, sizeof *l->first);
	int rc = l->params && l->first ? RUV_OK : ruv_fail_memory(err, where, (size_t)n_hooks * RUV_SLOT_N * sizeof *l->params);
	for (int h = 0; h < n_hooks && rc == RUV_OK; h++) {
		if (hooks[h] < 0 || hooks[h] >= model->hp.n_layers || (h && hooks[h] <= hooks[h - 1])) {
			rc = ruv_fail(err, RUV_EINVAL, where, "hook %d is layer %d; hooks ascend within the %d layers of %s", h + 1,
			              hooks[h], model->hp.n_layers, model->path);
			break;
		}
		for (int s = 0; s < RUV_SLOT_N; s++) {
			ruv_lora_param *p = &l->params[l->n_params];
			*p = (ruv_lora_param){.layer = hooks[h], .slot = (ruv_adapter_slot)s, .rank = rank};
			if (!(slots >> s & 1) || ruv_lora_shape(model, hooks[h], p->slot, &p->n_in, &p->n_out, NULL))
				continue;
			l->first[l->n_groups++] = l->n;
			l->n += rank * p->n_in;
			l->first[l->n_groups++] = l->n;
			l->n += rank * p->n_out;
			l->first[l->n_groups] = l->n;
			l->n_params++;
		}
	}
	if (rc == RUV_OK && l->n_params == 0)
		rc = ruv_fail(err, RUV_EINVAL, where, "the hook layers of %s have none of the matrices asked for", model->path);
	if (rc == RUV_OK) {
		const size_t n = (size_t)l->n;
		l->theta = calloc(n, sizeof *l->theta);
		l->grad = calloc(n, sizeof *l->grad);
		l->m = calloc(n, sizeof *l->m);
		l->v = calloc(n, sizeof *l->v);
		if (!l->theta || !l->grad || !l->m || !l->v)
			rc = ruv_fail_memory(err, where, 4 * n * sizeof(float));
	}
	if (rc) {
		ruv_microlora_free(l);
		return rc;
	}
	for (int i = 0; i < l->n_params; i++) {
		ruv_lora_param *p = &l->params[i];
		p->a = l->theta + l->first[2 * i];
		p->b = l->theta + l->first[2 * i + 1];
		p->grad_a = l->grad + l->first[2 * i];
		p->grad_b = l->grad + l->first[2 * i + 1];
	}
	ruv_microlora_reset(l, seed);
	*out = l;
	return RUV_OK;
}

void ruv_microlora_free(ruv_microlora *l)
{
	if (!l)
		return;
	ruv_model_free(l->model);
	free(l->params);
	free(l->first);
	free(l->theta);
	free(l->grad);
	free(l->m);
	free(l->v);
	free(l);
}

void ruv_microlora_clear_moments(ruv_microlora *l)
{
	memset(l->m, 0, (size_t)l->n * sizeof *l->m);
	memset(l->v, 0, (size_t)l->n * sizeof *l->v);
	l->n_steps = 0;
}

void ruv_microlora_reset(ruv_microlora *l, uint64_t seed)
{
	ruv_rng rng;
	ruv_rng_init(&rng, seed);
	for (int i = 0; i < l->n_params; i++) {
		ruv_lora_param *p = &l->params[i];
		const double size = 1 / sqrt((double)p->n_in);
		for (int64_t k = 0; k < p->rank * p->n_in; k++)
			p->a[k] = (float)(size * ruv_rng_normal(&rng));
		memset(p->b, 0, (size_t)(p->rank * p->n_out) * sizeof *p->b);
	}
	ruv_microlora_clear_moments(l);
}

void ruv_microlora_copy(ruv_microlora *to, const ruv_microlora *from)
{
	memcpy(to->theta, from->theta, (size_t)to->n * sizeof *to->theta);
	ruv_microlora_clear_moments(to);
}

bool ruv_microlora_is_zero(const ruv_microlora *l)
{
	for (int i = 0; i < l->n_params; i++)
		for (int64_t k = 0; k < l->params[i].rank * l->params[i].n_out; k++)
			if (l->params[i].b[k] != 0)
				return false;
	return true;
}

/* ---- training ---- */

int ruv_microlora_step(ruv_microlora *l, ruv_backward *backward, ruv_train_seq *seqs, int n_seqs, ruv_ewc *ewc, double *loss,
                       ruv_error *err)
{
	const double b1 = 0.9, b2 = 0.99, eps = 1e-8;
	double square = 0;
	memset(l->grad, 0, (size_t)l->n * sizeof *l->grad);
	int rc = ruv_backward_run(backward, l->params, l->n_params, seqs, n_seqs, true, loss, err);
	if (rc)
		return rc;
	for (int64_t i = 0; i < l->n; i++)
		square += (double)l->grad[i] * l->grad[i];
	l->last_norm = sqrt(square);
	if (!isfinite(square))
		return ruv_fail(err, RUV_EINTERNAL, where, "the gradient is not finite");
	if (ewc)
		ruv_ewc_observe(ewc, l->grad);
	const double shrink = l->last_norm > (double)l->clip ? (double)l->clip / l->last_norm : 1;
	l->n_steps++;
	const double c1 = 1 - pow(b1, (double)l->n_steps), c2 = 1 - pow(b2, (double)l->n_steps);
	double length = 0;
	for (int64_t i = 0; i < l->n; i++) {
		const double g = (double)l->grad[i] * shrink;
		l->m[i] = (float)(b1 * (double)l->m[i] + (1 - b1) * g);
		l->v[i] = (float)(b2 * (double)l->v[i] + (1 - b2) * g * g);
		const float step = (float)((double)l->rate * ((double)l->m[i] / c1) / (sqrt((double)l->v[i] / c2) + eps));
		l->grad[i] = step;
		length += (double)step * step;
	}
	length = sqrt(length);
	const float bound = length > (double)l->max_step ? (float)((double)l->max_step / length) : 1;
	for (int64_t i = 0; i < l->n; i++)
		l->theta[i] -= bound * l->grad[i];
	l->last_step = length * (double)bound;
	if (ewc)
		ruv_ewc_pull(ewc, l->theta, l->rate);
	return RUV_OK;
}

int ruv_microlora_measure(const ruv_microlora *l, ruv_backward *backward, ruv_train_seq *seqs, int n_seqs, ruv_error *err)
{
	const bool plain = !l || ruv_microlora_is_zero(l);
	return ruv_backward_run(backward, plain ? NULL : l->params, plain ? 0 : l->n_params, seqs, n_seqs, false, NULL, err);
}

/* ---- files ---- */

static void tensor_name(char name[80], const ruv_lora_param *p, char half)
{
	snprintf(name, 80, "blk.%d.%s.weight.lora_%c", p->layer, ruv_adapter_slot_name(p->slot), half);
}

int ruv_microlora_save(const ruv_microlora *l, const char *path, int version, ruv_error *err)
{
	ruv_gguf_writer *w = NULL;
	char name[80], print[20];
	int rc = ruv_gguf_writer_create(&w, err);
	if (rc)
		return rc;
	snprintf(print, sizeof print, "%016llx", (unsigned long long)ruv_model_fingerprint(l->model));
	ruv_gguf_set_str(w, "general.type", "adapter");
	ruv_gguf_set_str(w, "general.architecture", l->model->architecture);
	ruv_gguf_set_str(w, "general.name", "learned from use");
	ruv_gguf_set_str(w, "adapter.type", "lora");
	ruv_gguf_set_f32(w, "adapter.lora.alpha", (float)l->rank);
	ruv_gguf_set_u32(w, "ruvllm.learn.version", (uint32_t)version);
	ruv_gguf_set_str(w, "ruvllm.learn.base", print);
	for (int i = 0; i < l->n_params; i++) {
		const ruv_lora_param *p = &l->params[i];
		tensor_name(name, p, 'a');
		ruv_gguf_add_tensor(w, name, RUV_F32, 2, (int64_t[]){p->n_in, p->rank});
		tensor_name(name, p, 'b');
		ruv_gguf_add_tensor(w, name, RUV_F32, 2, (int64_t[]){p->rank, p->n_out});
	}
	rc = ruv_gguf_writer_begin(w, path, err);
	for (int i = 0; i < l->n_params && rc == RUV_OK; i++) {
		const ruv_lora_param *p = &l->params[i];
		rc = ruv_gguf_writer_data(w, p->a, (size_t)(p->rank * p->n_in) * sizeof *p->a, err);
		if (rc == RUV_OK)
			rc = ruv_gguf_writer_data(w, p->b, (size_t)(p->rank * p->n_out) * sizeof *p->b, err);
	}
	if (rc == RUV_OK)
		rc = ruv_gguf_writer_finish(w, err);
	ruv_gguf_writer_free(w);
	return rc;
}

static const ruv_gguf_tensor *find_half(const ruv_gguf *gguf, const ruv_lora_param *p, char half, int64_t ne0, int64_t ne1)
{
	char name[80];
	tensor_name(name, p, half);
	const ruv_gguf_tensor *t = ruv_gguf_find_tensor(gguf, name);
	return t && t->dtype == RUV_F32 && t->ne[0] == ne0 && t->ne[1] == ne1 ? t : NULL;
}

int ruv_microlora_load(ruv_microlora *l, const char *path, ruv_error *err)
{
	ruv_gguf *gguf = NULL;
	ruv_gguf_str base;
	char print[20];
	int rc = ruv_gguf_open(&gguf, path, 0, err);
	if (rc)
		return rc;
	snprintf(print, sizeof print, "%016llx", (unsigned long long)ruv_model_fingerprint(l->model));
	if (ruv_gguf_get_str(gguf, "ruvllm.learn.base", &base, NULL) || base.len != 16 || memcmp(base.data, print, 16) != 0)
		rc = ruv_fail(err, RUV_EMISMATCH, where, "%s was learned on another model than %s", path, l->model->path);
	if (rc == RUV_OK && ruv_gguf_n_tensors(gguf) != 2 * (size_t)l->n_params)
		rc = ruv_fail(err, RUV_EMISMATCH, where, "%s has other hooks than these", path);
	for (int i = 0; i < l->n_params && rc == RUV_OK; i++) {
		const ruv_lora_param *p = &l->params[i];
		if (!find_half(gguf, p, 'a', p->n_in, p->rank) || !find_half(gguf, p, 'b', p->rank, p->n_out))
			rc = ruv_fail(err, RUV_EMISMATCH, where,
			              "%s has other hooks or another rank: blk.%d.%s of rank %d is not in it", path, p->layer,
			              ruv_adapter_slot_name(p->slot), p->rank);
	}
	for (int i = 0; i < l->n_params && rc == RUV_OK; i++) {
		const ruv_lora_param *p = &l->params[i];
		memcpy(p->a, find_half(gguf, p, 'a', p->n_in, p->rank)->data, (size_t)(p->rank * p->n_in) * sizeof *p->a);
		memcpy(p->b, find_half(gguf, p, 'b', p->rank, p->n_out)->data, (size_t)(p->rank * p->n_out) * sizeof *p->b);
	}
	if (rc == RUV_OK)
		ruv_microlora_clear_moments(l);
	ruv_gguf_free(gguf);
	return rc;
}

/* ---- merging ---- */

/* Orthonormalises the `n` columns of x [rows, n] (row-major) in place; upper [n, n]: x = q upper. Twice, for accuracy. */
static void gram_schmidt(double *x, double *upper, int64_t rows, int n)
{
	memset(upper, 0, (size_t)n * (size_t)n * sizeof *upper);
	for (int j = 0; j < n; j++) {
		for (int twice = 0; twice < 2; twice++)
			for (int k = 0; k < j; k++) {
				double dot = 0;
				for (int64_t i = 0; i < rows; i++)
					dot += x[i * n + k] * x[i * n + j];
				for (int64_t i = 0; i < rows; i++)
					x[i * n + j] -= dot * x[i * n + k];
				upper[k * n + j] += dot;
			}
		double square = 0;
		for (int64_t i = 0; i < rows; i++)
			square += x[i * n + j] * x[i * n + j];
		const double length = sqrt(square);
		upper[j * n + j] = length;
		for (int64_t i = 0; i < rows; i++)
			x[i * n + j] = length > 1e-12 ? x[i * n + j] / length : 0;
	}
}

/* One-sided Jacobi: m [n, n] becomes u scaled by the singular values in its columns, v [n, n] the right vectors. */
static void jacobi(double *m, double *v, int n)
{
	for (int i = 0; i < n * n; i++)
		v[i] = i / n == i % n;
	for (int sweep = 0; sweep < 60; sweep++) {
		double off = 0;
		for (int p = 0; p < n; p++)
			for (int q = p + 1; q < n; q++) {
				double a = 0, b = 0, c = 0;
				for (int i = 0; i < n; i++) {
					a += m[i * n + p] * m[i * n + p];
					b += m[i * n + q] * m[i * n + q];
					c += m[i * n + p] * m[i * n + q];
				}
				if (fabs(c) <= 1e-14 * sqrt(a * b) || c == 0)
					continue;
				off = fmax(off, fabs(c) / sqrt(a * b));
				const double zeta = (b - a) / (2 * c),
					     t = (zeta >= 0 ? 1 : -1) / (fabs(zeta) + sqrt(1 + zeta * zeta)),
					     cosine = 1 / sqrt(1 + t * t), sine = cosine * t;
				for (int i = 0; i < n; i++) {
					const double x = m[i * n + p], y = m[i * n + q], s = v[i * n + p], z = v[i * n + q];
					m[i * n + p] = cosine * x - sine * y;
					m[i * n + q] = sine * x + cosine * y;
					v[i * n + p] = cosine * s - sine * z;
					v[i * n + q] = sine * s + cosine * z;
				}
			}
		if (off < 1e-13)
			break;
	}
}

static int merge_one(ruv_microlora *to, int at, const ruv_microlora *const *parts, const float *weights, int n, double *kept,
                     double *all, ruv_error *err)
{
	const ruv_lora_param *out = &to->params[at];
	const int64_t n_in = out->n_in, n_out = out->n_out;
	int total = 0, column = 0;
	for (int i = 0; i < n; i++)
		total += parts[i]->rank;
	const size_t r = (size_t)total;
	double *memory = calloc(r * (size_t)(n_in + n_out) + 6 * r * r, sizeof *memory);
	if (!memory)
		return ruv_fail_memory(err, where, r * (size_t)(n_in + n_out) * sizeof *memory);
	double *u = memory, *v = u + r * (size_t)n_out, *x = v + r * (size_t)n_in, *y = x + r * r, *m = y + r * r,
	       *right = m + r * r;
	for (int i = 0; i < n; i++) {
		const ruv_lora_param *p = &parts[i]->params[at];
		for (int k = 0; k < p->rank; k++, column++) {
			for (int64_t o = 0; o < n_out; o++)
				u[o * total + column] = (double)weights[i] * (double)p->b[o * p->rank + k];
			for (int64_t c = 0; c < n_in; c++)
				v[c * total + column] = (double)p->a[k * n_in + c];
		}
	}
	gram_schmidt(u, x, n_out, total);
	gram_schmidt(v, y, n_in, total);
	for (int i = 0; i < total; i++)
		for (int j = 0; j < total; j++)
			for (int k = 0; k < total; k++)
				m[i * total + j] += x[i * total + k] * y[j * total + k];
	jacobi(m, right, total);
	bool used[RUV_MICROLORA_MAX_RANK * 64] = {false};
	for (int j = 0; j < total; j++)
		for (int i = 0; i < total; i++)
			*all += m[i * total + j] * m[i * total + j];
	for (int k = 0; k < out->rank; k++) {
		int best = -1;
		double most = -1;
		for (int j = 0; j < total; j++) {
			double square = 0;
			for (int i = 0; i < total; i++)
				square += m[i * total + j] * m[i * total + j];
			if (!used[j] && square > most) {
				most = square;
				best = j;
			}
		}
		const double root = best >= 0 ? sqrt(sqrt(most)) : 0; /* half of the singular value to each side */
		if (best >= 0)
			used[best] = true;
		*kept += best >= 0 ? most : 0;
		for (int64_t o = 0; o < n_out; o++) {
			double sum = 0;
			for (int i = 0; best >= 0 && root > 0 && i < total; i++)
				sum += u[o * total + i] * m[i * total + best] / root;
			out->b[o * out->rank + k] = (float)sum;
		}
		for (int64_t c = 0; c < n_in; c++) {
			double sum = 0;
			for (int i = 0; best >= 0 && i < total; i++)
				sum += v[c * total + i] * right[i * total + best] * root;
			out->a[k * n_in + c] = (float)sum;
		}
	}
	free(memory);
	return RUV_OK;
}

int ruv_microlora_merge(ruv_microlora *to, const ruv_microlora *const *parts, const float *weights, int n, double *kept,
                        ruv_error *err)
{
	double some = 0, all = 0;
	int rc = RUV_OK;
	if (n < 1 || n > 64)
		return ruv_fail(err, RUV_EINVAL, where, "%d adapters to merge, 1..64 are possible", n);
	for (int i = 0; i < n; i++) {
		bool fits = parts[i]->n_params == to->n_params && parts[i] != to;
		for (int k = 0; k < to->n_params && fits; k++)
			fits = parts[i]->params[k].layer == to->params[k].layer && parts[i]->params[k].slot == to->params[k].slot &&
			       parts[i]->params[k].n_in == to->params[k].n_in && parts[i]->params[k].n_out == to->params[k].n_out;
		if (!fits)
			return ruv_fail(err, RUV_EMISMATCH, where, "adapter %d of %d has other hooks than the merged one", i + 1,
			                n);
	}
	for (int k = 0; k < to->n_params && rc == RUV_OK; k++)
		rc = merge_one(to, k, parts, weights, n, &some, &all, err);
	if (kept)
		*kept = all > 0 ? some / all : 1;
	ruv_microlora_clear_moments(to);
	return rc;
}
