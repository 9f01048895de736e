/* patterns.c - spherical k-means with k-means++ seeding, then merging of near centroids and pruning of small clusters. */
#include "learn/patterns.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/status.h"

static const char where[] = "patterns";

static double dot(const float *a, const float *b, int n)
{
	double sum = 0;
	for (int i = 0; i < n; i++)
		sum += (double)a[i] * b[i];
	return sum;
}

static bool normalise(float *x, int n)
{
	const double length = sqrt(dot(x, x, n));
	if (!(length > 1e-12))
		return false;
	for (int i = 0; i < n; i++)
		x[i] = (float)(x[i] / length);
	return true;
}

/* Each next seed with a probability proportional to its squared distance (2 - 2 cosine) to the nearest so far. */
static void seed_centroids(ruv_patterns *p, const float *unit, const bool *usable, int n, double *distance, ruv_rng *rng)
{
	int first = (int)ruv_rng_below(rng, (uint64_t)n);
	while (!usable[first])
		first = (first + 1) % n;
	memcpy(p->centroids, unit + (size_t)first * (size_t)p->dim, (size_t)p->dim * sizeof *unit);
	for (int i = 0; i < n; i++)
		distance[i] = usable[i] ? INFINITY : 0;
	for (int c = 1; c < p->n; c++) {
		double total = 0;
		for (int i = 0; i < n; i++) {
			const double d =
			    2 - 2 * dot(unit + (size_t)i * (size_t)p->dim, p->centroids + (size_t)(c - 1) * (size_t)p->dim, p->dim);
			if (usable[i] && d < distance[i])
				distance[i] = d > 0 ? d : 0;
			total += distance[i];
		}
		if (!(total > 1e-9)) { /* fewer different vectors than seeds */
			p->n = c;
			return;
		}
		double at = ruv_rng_double(rng) * total;
		int take = n - 1;
		for (int i = 0; i < n; i++)
			if ((at -= distance[i]) < 0) {
				take = i;
				break;
			}
		memcpy(p->centroids + (size_t)c * (size_t)p->dim, unit + (size_t)take * (size_t)p->dim,
		       (size_t)p->dim * sizeof *unit);
	}
}

static bool assign(ruv_patterns *p, const float *unit, const bool *usable, int n)
{
	bool changed = false;
	p->inertia = 0;
	memset(p->size, 0, (size_t)p->n * sizeof *p->size);
	for (int i = 0; i < n; i++) {
		int best = -1;
		double most = -2;
		for (int c = 0; usable[i] && c < p->n; c++) {
			const double d = dot(unit + (size_t)i * (size_t)p->dim, p->centroids + (size_t)c * (size_t)p->dim, p->dim);
			if (d > most) {
				most = d;
				best = c;
			}
		}
		changed |= p->of[i] != best;
		p->of[i] = best;
		if (best >= 0) {
			p->size[best]++;
			p->inertia += (1 - most) / n;
		}
	}
	return changed;
}

static void move_centroids(ruv_patterns *p, const float *unit, int n)
{
	for (int c = 0; c < p->n; c++)
		if (p->size[c])
			memset(p->centroids + (size_t)c * (size_t)p->dim, 0, (size_t)p->dim * sizeof *unit);
	for (int i = 0; i < n; i++)
		for (int k = 0; p->of[i] >= 0 && k < p->dim; k++)
			p->centroids[(size_t)p->of[i] * (size_t)p->dim + (size_t)k] += unit[(size_t)i * (size_t)p->dim + (size_t)k];
	for (int c = 0; c < p->n; c++)
		normalise(p->centroids + (size_t)c * (size_t)p->dim, p->dim);
}

static void merge(ruv_patterns *p, const float *unit, int n, double near)
{
	for (int a = 0; a < p->n; a++)
		for (int b = a + 1; b < p->n; b++) {
			if (!p->size[a] || !p->size[b] ||
			    dot(p->centroids + (size_t)a * (size_t)p->dim, p->centroids + (size_t)b * (size_t)p->dim, p->dim) <
			        near)
				continue;
			for (int i = 0; i < n; i++)
				if (p->of[i] == b)
					p->of[i] = a;
			p->size[a] += p->size[b];
			p->size[b] = 0;
			p->n_merged++;
			move_centroids(p, unit, n);
			b = a; /* the moved centroid may be near to others now */
		}
}

static void prune(ruv_patterns *p, int n, int min_size)
{
	int kept = 0;
	for (int c = 0; c < p->n; c++) {
		const bool keep = p->size[c] >= min_size;
		p->n_pruned += !keep && p->size[c] > 0;
		for (int i = 0; i < n; i++)
			if (p->of[i] == c)
				p->of[i] = keep ? kept : -1;
		if (!keep)
			continue;
		memmove(p->centroids + (size_t)kept * (size_t)p->dim, p->centroids + (size_t)c * (size_t)p->dim,
		        (size_t)p->dim * sizeof *p->centroids);
		p->size[kept++] = p->size[c];
	}
	p->n = kept;
}

int ruv_patterns_find(ruv_patterns *p, const float *vectors, int n, int dim, const ruv_patterns_options *o, ruv_error *err)
{
	memset(p, 0, sizeof *p);
	if (n < 0 || dim < 1)
		return ruv_fail(err, RUV_EINVAL, where, "%d vectors of %d elements", n, dim);
	p->dim = dim;
	p->n = o->k > 0 ? o->k : (int)sqrt(n / 2.0);
	p->n = p->n < 1 ? 1 : p->n > 256 && o->k <= 0 ? 256 : p->n;
	p->n = p->n > n ? n : p->n;
	const size_t bytes = (size_t)n * (size_t)dim * sizeof(float);
	float *unit = malloc(bytes + 1);
	bool *usable = calloc((size_t)n + 1, sizeof *usable), any = false;
	double *distance = calloc((size_t)n + 1, sizeof *distance);
	p->centroids = calloc((size_t)p->n * (size_t)dim + 1, sizeof *p->centroids);
	p->size = calloc((size_t)p->n + 1, sizeof *p->size);
	p->of = malloc(((size_t)n + 1) * sizeof *p->of);
	int rc = RUV_OK;
	if (!unit || !usable || !distance || !p->centroids || !p->size || !p->of) {
		rc = ruv_fail_memory(err, where, bytes);
		goto done;
	}
	memcpy(unit, vectors, bytes);
	for (int i = 0; i < n; i++) {
		usable[i] = normalise(unit + (size_t)i * (size_t)dim, dim);
		any |= usable[i];
		p->of[i] = -1;
	}
	if (!any) {
		p->n = 0;
		goto done;
	}
	ruv_rng rng;
	ruv_rng_init(&rng, o->seed ? o->seed : 1);
	seed_centroids(p, unit, usable, n, distance, &rng);
	for (int i = 0; i < (o->iterations > 0 ? o->iterations : 25) && assign(p, unit, usable, n); i++)
		move_centroids(p, unit, n);
	assign(p, unit, usable, n);
	merge(p, unit, n, o->merge_cosine > 0 ? (double)o->merge_cosine : 0.9);
	prune(p, n, o->min_size > 0 ? o->min_size : 2);
done:
	free(unit);
	free(usable);
	free(distance);
	return rc;
}

void ruv_patterns_release(ruv_patterns *p)
{
	free(p->centroids);
	free(p->size);
	free(p->of);
	memset(p, 0, sizeof *p);
}

double ruv_patterns_worth(double quality, int size, double age_days, double half_life_days)
{
	return quality * log2(1.0 + size) * pow(0.5, age_days / half_life_days);
}
