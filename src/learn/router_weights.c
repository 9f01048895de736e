/* router_weights.c - see router_weights.h. Layer: learn. */
#include "learn/router_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "learn/section_file.h"

static const char kind[8] = "RUVROUTE";
enum { VERSION = 1, MAX_GATE = 100000, MAX_BANK = 1000000 };

const char *ruv_route_method_name(int method)
{
	static const char *const names[] = {"knn", "fastgrnn", "blend", "ladder"};

	return method >= 0 && method <= RUV_ROUTE_LADDER ? names[method] : "?";
}

int ruv_router_weights_create(ruv_router_weights **out, ruv_error *err)
{
	*out = calloc(1, sizeof **out);
	if (!*out)
		return ruv_fail_memory(err, "router", sizeof **out);
	(*out)->users = 1;
	return RUV_OK;
}

ruv_router_weights *ruv_router_weights_use(ruv_router_weights *weights)
{
	__atomic_add_fetch(&weights->users, 1, __ATOMIC_RELAXED);
	return weights;
}

void ruv_router_weights_free(ruv_router_weights *w)
{
	if (!w || __atomic_sub_fetch(&w->users, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	free(w->params);
	free(w->fisher);
	free(w->gate);
	free(w->class_bytes);
	ruv_basis_release(&w->basis);
	ruv_textclass_free(w->classes);
	ruv_knn_release(&w->bank);
	ruv_fastgrnn_cell_free(w->cell);
	free(w);
}

int ruv_router_weights_ready(ruv_router_weights *w, bool int8, ruv_error *err)
{
	unsigned form = (w->head.density < 0.6f ? RUV_FASTGRNN_SPARSE : 0) | (int8 ? RUV_FASTGRNN_INT8 : 0);
	int rc;

	w->shape = (ruv_router_shape){
	    .cell = {.n_in = RUV_ROUTE_FEATURES, .hidden = w->head.hidden, .rank = w->head.rank, .shared = w->head.shared != 0},
	    .n_tiers = w->head.n_tiers};
	rc = ruv_router_shape_check(&w->shape, err);
	if (rc)
		return rc;
	w->n_params = ruv_router_net_n_params(&w->shape);
	ruv_fastgrnn_cell_free(w->cell);
	w->cell = NULL;
	return w->params ? ruv_fastgrnn_cell_create(&w->cell, &w->shape.cell, w->params, form, err) : RUV_OK;
}

/* ---- the file ---------------------------------------------------------------------------------------------------------- */

static int put_bank(ruv_section_writer *writer, const ruv_knn *bank, ruv_error *err)
{
	uint32_t sizes[2] = {(uint32_t)bank->dim, (uint32_t)bank->n};
	int8_t row[RUV_KNN_MAX_DIM];
	int rc = ruv_section_begin(writer, "bank", err);

	if (rc)
		return rc;
	ruv_buf_append(&writer->data, sizes, sizeof sizes);
	for (int i = 0; i < bank->n; i++) {
		for (int d = 0; d < bank->dim; d++)
			row[d] = (int8_t)lrintf(bank->rows[(size_t)i * (size_t)bank->dim + (size_t)d] * 127);
		ruv_buf_append(&writer->data, row, (size_t)bank->dim);
		ruv_buf_append(&writer->data, &bank->outcomes[i], sizeof bank->outcomes[i]);
	}
	return writer->data.failed ? ruv_fail_memory(err, "router", writer->data.len) : RUV_OK;
}

int ruv_router_weights_write(const ruv_router_weights *w, const char *path, ruv_error *err)
{
	const ruv_basis *b = &w->basis;
	size_t dim = (size_t)b->dim, n_components = (size_t)b->n_components;
	uint32_t basis_sizes[2] = {(uint32_t)dim, (uint32_t)n_components};
	ruv_section_writer writer;
	int rc;

	ruv_section_writer_init(&writer);
	rc = ruv_section_put(&writer, "head", &w->head, sizeof w->head, err);
	if (!rc)
		rc = ruv_section_put(&writer, "tiers", w->tiers, sizeof w->tiers, err);
	if (!rc)
		rc = ruv_section_put(&writer, "params", w->params, sizeof *w->params * (size_t)w->n_params, err);
	if (!rc)
		rc = ruv_section_put(&writer, "fisher", w->fisher, sizeof *w->fisher * (size_t)w->n_params, err);
	if (!rc)
		rc = ruv_section_put(&writer, "mean", w->mean, sizeof w->mean, err);
	if (!rc)
		rc = ruv_section_put(&writer, "inverse", w->inverse, sizeof w->inverse, err);
	if (!rc)
		rc = ruv_section_put(&writer, "gate", w->gate, sizeof *w->gate * (size_t)w->n_gate, err);
	if (!rc && w->n_class_bytes)
		rc = ruv_section_put(&writer, "classes", w->class_bytes, w->n_class_bytes, err);
	if (!rc)
		rc = put_bank(&writer, &w->bank, err);
	if (!rc && dim) {
		rc = ruv_section_put(&writer, "basis", basis_sizes, sizeof basis_sizes, err);
		ruv_buf_append(&writer.data, b->scale, sizeof b->scale);
		ruv_buf_append(&writer.data, b->offset, sizeof b->offset);
		ruv_buf_append(&writer.data, b->mean, sizeof(float) * dim);
		ruv_buf_append(&writer.data, b->centres, sizeof(float) * dim * RUV_BASIS_CLUSTERS);
		ruv_buf_append(&writer.data, b->components, sizeof(float) * dim * n_components);
	}
	if (!rc)
		rc = ruv_section_commit(&writer, kind, VERSION, path, err);
	ruv_section_writer_release(&writer);
	return rc;
}

static int take(void *copy, const ruv_section_file *file, const char *name, size_t n_bytes, ruv_error *err)
{
	const void *bytes;
	int rc = ruv_section_need(file, name, n_bytes, &bytes, err);

	if (!rc && n_bytes)
		memcpy(copy, bytes, n_bytes);
	return rc;
}

static float *new_floats(size_t n)
{
	return malloc(sizeof(float) * (n ? n : 1));
}

static int take_basis(ruv_basis *b, const ruv_section_file *file, ruv_error *err)
{
	size_t n_bytes, dim, n;
	const char *p = ruv_section_find(file, "basis", &n_bytes);
	uint32_t sizes[2];

	if (!p)
		return RUV_OK;
	if (n_bytes < sizeof sizes)
		return ruv_fail(err, RUV_EFORMAT, "router", "section 'basis' is too short");
	memcpy(sizes, p, sizeof sizes);
	dim = sizes[0];
	n = sizes[1];
	if (!dim || dim > 65536 || !n || n > RUV_BASIS_MAX_COMPONENTS ||
	    n_bytes != sizeof sizes + sizeof b->scale + sizeof b->offset + sizeof(float) * dim * (1 + RUV_BASIS_CLUSTERS + n))
		return ruv_fail(err, RUV_EFORMAT, "router", "section 'basis' has %zu bytes for %zu components of %zu numbers",
		                n_bytes, n, dim);
	b->dim = (int)dim;
	b->n_components = (int)n;
	b->mean = new_floats(dim);
	b->centres = new_floats(dim * RUV_BASIS_CLUSTERS);
	b->components = new_floats(dim * n);
	if (!b->mean || !b->centres || !b->components)
		return ruv_fail_memory(err, "router", n_bytes);
	p += sizeof sizes;
	memcpy(b->scale, p, sizeof b->scale);
	p += sizeof b->scale;
	memcpy(b->offset, p, sizeof b->offset);
	p += sizeof b->offset;
	memcpy(b->mean, p, sizeof(float) * dim);
	p += sizeof(float) * dim;
	memcpy(b->centres, p, sizeof(float) * dim * RUV_BASIS_CLUSTERS);
	p += sizeof(float) * dim * RUV_BASIS_CLUSTERS;
	memcpy(b->components, p, sizeof(float) * dim * n);
	return RUV_OK;
}

static int take_bank(ruv_knn *bank, const ruv_section_file *file, ruv_error *err)
{
	size_t n_bytes;
	const char *p = ruv_section_find(file, "bank", &n_bytes);
	uint32_t sizes[2];
	float row[RUV_KNN_MAX_DIM];
	ruv_knn_outcome outcome;
	int rc = RUV_OK;

	if (!p || n_bytes < sizeof sizes)
		return ruv_fail(err, RUV_EFORMAT, "router", "section 'bank' is missing or too short");
	memcpy(sizes, p, sizeof sizes);
	if (sizes[0] > RUV_KNN_MAX_DIM || sizes[1] > MAX_BANK ||
	    n_bytes != sizeof sizes + (size_t)sizes[1] * (sizes[0] + sizeof outcome))
		return ruv_fail(err, RUV_EFORMAT, "router", "section 'bank' has %zu bytes for %u rows of %u numbers", n_bytes,
		                sizes[1], sizes[0]);
	ruv_knn_init(bank, (int)sizes[0], 0);
	p += sizeof sizes;
	for (uint32_t i = 0; !rc && i < sizes[1]; i++) {
		for (uint32_t d = 0; d < sizes[0]; d++)
			row[d] = (float)(signed char)p[d] / 127;
		memcpy(&outcome, p + sizes[0], sizeof outcome);
		p += sizes[0] + sizeof outcome;
		rc = ruv_knn_add(bank, row, &outcome, err);
	}
	return rc;
}

static int check_numbers(const ruv_router_weights *w, ruv_error *err)
{
	for (int i = 0; i < w->n_params; i++)
		if (!isfinite(w->params[i]) || !isfinite(w->fisher[i]))
			return ruv_fail(err, RUV_EFORMAT, "router", "parameter %d is not a number", i);
	if (!(w->head.kappa > 0) || !(w->head.band > 0) || !(w->head.tau > 0) || !(w->head.near_kappa > 0) ||
	    !(w->head.near_band > 0) || !(w->head.cost_unit > 0) || w->head.method < 0 || w->head.method > RUV_ROUTE_LADDER)
		return ruv_fail(err, RUV_EFORMAT, "router", "kappa %g, band %g, tau %g, cost unit %g, method %d: out of range",
		                (double)w->head.kappa, (double)w->head.band, (double)w->head.tau, w->head.cost_unit,
		                w->head.method);
	return RUV_OK;
}

int ruv_router_weights_read(ruv_router_weights **out, const char *path, bool int8, ruv_error *err)
{
	ruv_section_file file = {0};
	ruv_router_weights *w = NULL;
	size_t n_bytes;
	const void *bytes;
	int rc = ruv_section_open(&file, path, kind, VERSION, err);

	if (rc)
		return rc;
	rc = ruv_router_weights_create(&w, err);
	if (!rc)
		rc = take(&w->head, &file, "head", sizeof w->head, err);
	if (!rc)
		rc = take(w->tiers, &file, "tiers", sizeof w->tiers, err);
	if (!rc)
		rc = ruv_router_weights_ready(w, int8, err); /* the sizes */
	if (rc)
		goto done;
	for (int t = 0; t < RUV_ROUTE_MAX_TIERS; t++)
		w->tiers[t].name[sizeof w->tiers[t].name - 1] = 0;
	w->head.encoder[sizeof w->head.encoder - 1] = w->head.encoder_version[sizeof w->head.encoder_version - 1] = 0;
	w->params = new_floats((size_t)w->n_params);
	w->fisher = new_floats((size_t)w->n_params);
	if (!w->params || !w->fisher) {
		rc = ruv_fail_memory(err, "router", sizeof(float) * (size_t)w->n_params);
		goto done;
	}
	rc = take(w->params, &file, "params", sizeof(float) * (size_t)w->n_params, err);
	if (!rc)
		rc = take(w->fisher, &file, "fisher", sizeof(float) * (size_t)w->n_params, err);
	if (!rc)
		rc = take(w->mean, &file, "mean", sizeof w->mean, err);
	if (!rc)
		rc = take(w->inverse, &file, "inverse", sizeof w->inverse, err);
	if (!rc)
		rc = check_numbers(w, err);
	if (!rc)
		rc = take_basis(&w->basis, &file, err);
	if (!rc)
		rc = take_bank(&w->bank, &file, err);
	bytes = ruv_section_find(&file, "gate", &n_bytes);
	if (!rc && bytes && n_bytes) {
		w->n_gate = (int)(n_bytes / sizeof *w->gate);
		w->gate = malloc(n_bytes);
		if (!w->gate || n_bytes % sizeof *w->gate || w->n_gate > MAX_GATE)
			rc = ruv_fail(err, RUV_EFORMAT, "router", "section 'gate' has %zu bytes", n_bytes);
		else
			memcpy(w->gate, bytes, n_bytes);
	}
	bytes = ruv_section_find(&file, "classes", &n_bytes);
	if (!rc && bytes) {
		rc = ruv_textclass_unpack(&w->classes, bytes, n_bytes, err);
		w->class_bytes = rc ? NULL : malloc(n_bytes);
		if (!rc && !w->class_bytes)
			rc = ruv_fail_memory(err, "router", n_bytes);
		if (!rc)
			memcpy(w->class_bytes, bytes, w->n_class_bytes = n_bytes);
	}
	if (!rc)
		rc = ruv_router_weights_ready(w, int8, err);
done:
	ruv_section_release(&file);
	if (rc) {
		ruv_router_weights_free(w);
		return ruv_error_prefix(err, rc, "%s: ", path);
	}
	*out = w;
	return RUV_OK;
}

static void *copy_of(const void *bytes, size_t n_bytes)
{
	void *copy = malloc(n_bytes ? n_bytes : 1);

	if (copy && n_bytes)
		memcpy(copy, bytes, n_bytes);
	return copy;
}

int ruv_router_weights_copy(ruv_router_weights **out, const ruv_router_weights *from, ruv_error *err)
{
	ruv_router_weights *w;
	size_t dim = (size_t)from->basis.dim, n_params = (size_t)from->n_params;
	int rc = ruv_router_weights_create(&w, err);

	if (rc)
		return rc;
	*w = *from;
	w->users = 1;
	w->cell = NULL;
	w->classes = NULL;
	ruv_knn_init(&w->bank, from->bank.dim, 0);
	w->params = copy_of(from->params, sizeof(float) * n_params);
	w->fisher = copy_of(from->fisher, sizeof(float) * n_params);
	w->gate = copy_of(from->gate, sizeof *w->gate * (size_t)w->n_gate);
	w->class_bytes = copy_of(from->class_bytes, from->n_class_bytes);
	w->basis.mean = copy_of(from->basis.mean, sizeof(float) * dim);
	w->basis.centres = copy_of(from->basis.centres, sizeof(float) * dim * RUV_BASIS_CLUSTERS);
	w->basis.components = copy_of(from->basis.components, sizeof(float) * dim * (size_t)from->basis.n_components);
	if (!w->params || !w->fisher || !w->gate || !w->class_bytes || !w->basis.mean || !w->basis.centres || !w->basis.components)
		rc = ruv_fail_memory(err, "router", sizeof(float) * n_params);
	if (!rc && from->n_class_bytes)
		rc = ruv_textclass_unpack(&w->classes, from->class_bytes, from->n_class_bytes, err);
	for (int i = 0; !rc && i < from->bank.n; i++)
		rc = ruv_knn_add(&w->bank, from->bank.rows + (size_t)i * (size_t)from->bank.dim, &from->bank.outcomes[i], err);
	if (rc) {
		ruv_router_weights_free(w);
		return rc;
	}
	*out = w;
	return RUV_OK;
}

/* ---- judging ----------------------------------------------------------------------------------------------------------- */

void ruv_router_standardize(const ruv_router_weights *w, const float *features, float *x)
{
	for (int i = 0; i < RUV_ROUTE_FEATURES; i++) {
		float v = (features[i] - w->mean[i]) * w->inverse[i];

		x[i] = v < -4 ? -4 : v > 4 ? 4 : v;
	}
}

float ruv_router_utility(const ruv_router_head *head, float quality, float seconds, float cost)
{
	return 1 + 4 * quality - head->lambda * seconds - head->mu * cost;
}

void ruv_router_judge(const ruv_router_weights *w, int method, const ruv_router_outputs *out, const ruv_knn_sums *near,
                      const ruv_knn_sums *same, ruv_router_view *view)
{
	const ruv_router_head *head = &w->head;
	float prior[RUV_ROUTE_MAX_TIERS], net[RUV_ROUTE_MAX_TIERS], around[RUV_ROUTE_MAX_TIERS], log_p[RUV_ROUTE_MAX_TIERS];
	float mean_log = 0, mean_net = 0, mean_prior = 0, top, sum = 0, heaviest = 0;
	int n = head->n_tiers;

	memset(view, 0, sizeof *view);
	for (int t = 0; t < n; t++) {
		const ruv_router_tier *tier = &w->tiers[t];
		float seconds = (float)(tier->latency_ms / 1000),
		      cost = (float)(tier->tokens * (double)tier->n_params / head->cost_unit);

		prior[t] = ruv_router_utility(head, (float)tier->quality, seconds, cost);
		net[t] = ruv_router_utility(head, out->quality[t], seconds, cost);
		around[t] = prior[t];
		view->quality[t] = out->quality[t];
		if (near && near->weight[t] > 0)
			around[t] = (head->near_kappa * prior[t] + ruv_router_utility(head, 0, 0, 0) * near->weight[t] +
			             4 * near->quality[t] - head->lambda * near->latency_s[t] - head->mu * near->cost[t]) /
			            (head->near_kappa + near->weight[t]);
		log_p[t] = logf(out->tiers[t] > 1e-6f ? out->tiers[t] : 1e-6f);
		mean_log += log_p[t] / (float)n;
		mean_net += net[t] / (float)n;
		mean_prior += prior[t] / (float)n;
	}
	for (int t = 0; t < n; t++) {
		/* both heads in the same unit, moved towards the tiers' means */
		float own = mean_net + head->share * head->tau * (log_p[t] - mean_log) + (1 - head->share) * (net[t] - mean_net);

		own = prior[t] + head->shrink * (own - mean_net - (prior[t] - mean_prior));
		/* of a ladder the order alone matters, and what is known of the very question */
		view->utility[t] = method == RUV_ROUTE_KNN        ? around[t]
		                   : method == RUV_ROUTE_FASTGRNN ? own
		                   : method == RUV_ROUTE_BLEND    ? (own + around[t]) / 2
		                                                  : mean_prior - 0.01f * (float)t;
	}
	for (int t = 0; t < n && same; t++)
		if (same->weight[t] > 0) {
			float weight = same->weight[t], total = head->kappa + weight;
			float seen = ruv_router_utility(head, same->quality[t] / weight, same->latency_s[t] / weight,
			                                same->cost[t] / weight);

			view->utility[t] = (head->kappa * view->utility[t] + weight * seen) / total;
			view->quality[t] = (head->kappa * view->quality[t] + same->quality[t]) / total;
			heaviest = fmaxf(heaviest, weight / total);
		}
	top = view->utility[0];
	for (int t = 1; t < n; t++)
		if (view->utility[t] > top) {
			top = view->utility[t];
			view->best = t;
		}
	for (int t = 0; t < n; t++)
		sum += view->probability[t] = expf((view->utility[t] - top) / head->tau);
	for (int t = 0; t < n; t++)
		view->probability[t] /= sum;
	view->neighbours = heaviest;
	view->confidence = (1 - heaviest) * out->confidence + heaviest * view->probability[view->best];
}

void ruv_route_signs_numbers(const ruv_route_signs *s, float numbers[RUV_ROUTE_SIGNS])
{
	double mean = s->mean_logprob < -8 ? -8 : s->mean_logprob, least = s->min_logprob < -16 ? -16 : s->min_logprob;

	numbers[0] = 1;
	numbers[1] = (float)mean;
	numbers[2] = (float)(least / 4);
	numbers[3] = s->unknown;
	numbers[4] = s->grounded;
	numbers[5] = s->cut_off;
	numbers[6] = s->judged >= 0 ? s->judged : 0.5f;
	numbers[7] = (float)exp(mean);
	numbers[8] = s->unknown ? numbers[1] : 0; /* how sure a refusal is */
	numbers[9] = s->unknown ? 0 : numbers[6];
}
