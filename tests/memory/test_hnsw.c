/* test_hnsw.c - codes and product codes, recall against exact search, filters, removal and churn, segment files and damaged ones.
 */
#include "hnsw_test.h"

#include <unistd.h>

#include "base/file.h"
#include "base/pool.h"
#include "memory/codes.h"
#include "memory/pq.h"

static ruv_error err;

/* An index and the vectors by id. */
typedef struct fixture {
	ruv_hnsw *index;
	ruv_hnsw_metric metric;
	float *rows; /* [cap, dim], by id */
	bool *in;    /* [cap]: the id holds a node */
	int dim, cap;
} fixture;

static void open_fixture(fixture *f, int dim, int cap, ruv_hnsw_metric metric, int bits, int m, int efc)
{
	ruv_hnsw_params p = {
	    .dimension = dim, .metric = metric, .bits = bits, .m = m, .ef_construction = efc, .max_nodes = (uint32_t)cap};

	*f = (fixture){.metric = metric, .dim = dim, .cap = cap};
	f->rows = calloc((size_t)cap * (size_t)dim, sizeof *f->rows);
	f->in = calloc((size_t)cap, sizeof *f->in);
	assert_non_null(f->rows);
	assert_non_null(f->in);
	assert_ok(ruv_hnsw_create(&f->index, &p, &err), err);
}

static void close_fixture(fixture *f)
{
	ruv_hnsw_free(f->index);
	free(f->rows);
	free(f->in);
}

static float *row(fixture *f, uint32_t id)
{
	return f->rows + (size_t)id * (size_t)f->dim;
}

/* Adds n vectors with keys first_key.. and puts them where their ids are. */
static void put(fixture *f, const float *vectors, int n, int64_t first_key, ruv_pool *pool)
{
	ruv_hnsw_rows rows = {.base = vectors, .stride = (size_t)f->dim};
	int64_t *keys = malloc(sizeof *keys * (size_t)n);
	uint32_t *ids = malloc(sizeof *ids * (size_t)n);

	assert_non_null(keys);
	assert_non_null(ids);
	for (int i = 0; i < n; i++)
		keys[i] = first_key + i;
	assert_ok(ruv_hnsw_add(f->index, &rows, keys, n, ids, pool, &err), err);
	for (int i = 0; i < n; i++) {
		assert_true((int)ids[i] < f->cap);
		assert_false(f->in[ids[i]]);
		f->in[ids[i]] = true;
		memcpy(row(f, ids[i]), vectors + (size_t)i * (size_t)f->dim, sizeof *vectors * (size_t)f->dim);
		assert_int_equal(ruv_hnsw_key(f->index, ids[i]), keys[i]);
	}
	free(keys);
	free(ids);
}

static void check_graph(fixture *f, int64_t n_nodes)
{
	ruv_hnsw_report report;

	assert_ok(ruv_hnsw_check(f->index, &report, &err), err);
	assert_int_equal(report.n_nodes, n_nodes);
	assert_int_equal(report.n_unreachable, 0);
	assert_int_equal(report.n_bad_links, 0);
	assert_int_equal(report.n_isolated, 0);
}

/* Share of the true k nearest that were found. Every search must return min(k, passing) different nodes that pass, in order, with
 * true scores; under RUV_HNSW_GRAPH it may return fewer. */
static double recall(fixture *f, const float *queries, int n_queries, const ruv_hnsw_query *how, const bool *pass)
{
	ruv_hnsw_rows rows = {.base = f->rows, .stride = (size_t)f->dim};
	ruv_hnsw_query query = *how;
	ruv_hnsw_hit *hits = malloc(sizeof *hits * (size_t)query.k);
	bool *in = malloc((size_t)f->cap);
	int64_t found = 0, wanted = 0;

	assert_non_null(hits);
	assert_non_null(in);
	query.rows = &rows;
	for (int i = 0; i < f->cap; i++)
		in[i] = f->in[i] && (!pass || pass[i]);
	for (int q = 0; q < n_queries; q++) {
		const float *vector = queries + (size_t)q * (size_t)f->dim;
		int n_in, n;
		double kth = kth_score(f->metric, f->rows, in, f->cap, f->dim, vector, query.k, &n_in);
		n = ruv_hnsw_search(f->index, vector, &query, hits);
		if (n_in > query.k)
			n_in = query.k;
		if (query.how == RUV_HNSW_GRAPH)
			assert_in_range(n, 0, n_in);
		else
			assert_int_equal(n, n_in);
		wanted += n_in;
		for (int i = 0; i < n; i++) {
			assert_true(in[hits[i].id]);
			assert_int_equal(hits[i].key, ruv_hnsw_key(f->index, hits[i].id));
			assert_true(fabs(hits[i].score - true_score(f->metric, row(f, hits[i].id), vector, f->dim)) < 1e-5);
			assert_true(!i || hits[i].score <= hits[i - 1].score);
			for (int j = 0; j < i; j++)
				assert_true(hits[i].id != hits[j].id);
			found += hits[i].score >= kth - 1e-6;
		}
	}
	free(hits);
	free(in);
	return wanted ? (double)found / (double)wanted : 1;
}

/* ---- codes ---- */

static void *aligned_bytes(size_t n)
{
	return aligned_alloc(64, (n + 63) / 64 * 64);
}

static void test_codes_keep_distances(void **state)
{
	static const int dims[] = {1, 3, 15, 16, 63, 64, 65, 100, 128, 129, 384, 1000};
	enum { N = 23 };
	const ruv_code_kernels *kernels[4];
	int n_kernels = ruv_code_kernels_all(kernels, 4);

	(void)state;
	for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
		for (int variant = 0; variant < 6; variant++) {
			int dim = dims[d], bits = variant % 3 == 0 ? 8 : variant % 3 == 1 ? 4 : 1;
			bool euclidean = variant >= 3;
			ruv_hnsw_metric metric = euclidean ? RUV_HNSW_L2 : RUV_HNSW_IP;
			float *v = make_vectors(N + 1, dim, 11 + d), *centre = calloc((size_t)dim, sizeof *centre),
			      *q = v + N * dim;
			ruv_code_format f;
			ruv_code_query query, node;
			unsigned char *codes;
			uint32_t ids[N];
			float got[N], first[N], between[N];
			double worst = 0, centred2 = 0, bias = 0, q_centred2 = 0;
			size_t stride;
			ruv_code_format_init(&f, dim, bits, euclidean);
			stride = (size_t)f.n_bytes + 64;
			codes = aligned_bytes(stride * N);
			query.codes = aligned_bytes((size_t)f.n_components);
			node.codes = aligned_bytes((size_t)f.n_components);
			assert_non_null(codes);
			f.centre = centre;
			for (int i = 0; i < N; i++)
				for (int j = 0; j < dim; j++)
					centre[j] += v[i * dim + j] / N;
			{
				float *copy = malloc(sizeof *copy * (size_t)dim);
				memcpy(copy, centre, sizeof *copy * (size_t)dim);
				ruv_code_set_centre(&f, copy);
				free(copy);
			}
			for (int i = 0; i < N; i++) {
				ids[i] = (uint32_t)(i * 7 % N);
				ruv_code_encode(&f, codes + (size_t)i * stride, v + i * dim);
			}
			ruv_code_query_of_vector(&f, &query, q);
			ruv_code_query_of_code(&f, &node, codes + 5 * stride);
			for (int k = 0; k < n_kernels; k++) {
				ruv_code_distances_fn *fn = ruv_code_distances_for(kernels[k], bits);
				fn(got, &f, &query, codes, stride, ids, N);
				for (int i = 0; i < N; i++) {
					const float *x = v + (size_t)ids[i] * (size_t)dim;
					double want = -true_score(metric, x, q, dim) / (euclidean ? 2 : 1),
					       off = fabs(got[i] - want);
					worst = off > worst ? off : worst;
					bias += (got[i] - want) / N / n_kernels;
					if (!k)
						first[i] = got[i];
					assert_true(fabsf(got[i] - first[i]) < 1e-5f);
					assert_true(fabs(kernels[k]->dot(x, q, dim) - true_score(RUV_HNSW_IP, x, q, dim)) < 1e-5);
					assert_true(fabs(kernels[k]->squared(x, q, dim) + true_score(RUV_HNSW_L2, x, q, dim)) <
					            1e-5);
				}
				/* Any count of vectors gives the same as all of them. */
				for (int n = 0; n < 9; n++) {
					float some[N + 1];
					some[n] = 77;
					fn(some, &f, &query, codes, stride, ids, n);
					for (int i = 0; i < n; i++)
						assert_true(some[i] == got[i]);
					assert_true(some[n] == 77);
				}
				/* Codes against codes, in either direction. */
				fn(between, &f, &node, codes, stride, ids, N);
				for (int i = 0; i < N; i++) {
					float back;
					uint32_t five = 5;
					ruv_code_query other = {.codes = aligned_bytes((size_t)f.n_components)};
					ruv_code_query_of_code(&f, &other, codes + (size_t)ids[i] * stride);
					fn(&back, &f, &other, codes, stride, &five, 1);
					assert_true(fabsf(back - between[i]) < 1e-4f);
					free(other.codes);
				}
			}
			/* Unit vectors: half a step of either side. With signs, a few times the error that is to be expected, and
			 * none on average. */
			for (int j = 0; j < dim; j++) {
				q_centred2 += (q[j] - (double)centre[j]) * (q[j] - (double)centre[j]);
				for (int i = 0; i < N; i++)
					centred2 += (v[i * dim + j] - (double)centre[j]) * (v[i * dim + j] - (double)centre[j]) / N;
			}
			if (bits > 1)
				assert_true(worst < (bits == 8 ? 0.02 : 0.12));
			else {
				double expected = sqrt(centred2 * q_centred2 / dim);
				assert_true(worst < 5 * expected + 1e-3);
				assert_true(fabs(bias) < 2 * expected + 1e-3);
			}
			free(v);
			free(centre);
			free(codes);
			free(query.codes);
			free(node.codes);
		}
}

/* Product codes: what a table says is the distance to what the code stands for; more parts are nearer; threads change nothing. */
static void test_product_codes(void **state)
{
	enum { N = 2000, DIM = 24 };
	float *v = make_vectors(N, DIM, 31), back[DIM], tables[DIM * RUV_PQ_CENTROIDS], d[3];
	double error_before = INFINITY;
	ruv_pool *pool;
	ruv_pq *pq, *again;

	(void)state;
	assert_ok(ruv_pool_create(&pool, 2, &err), err);
	for (int parts = 3; parts <= DIM; parts *= 2) {
		unsigned char codes[3 * DIM], code[DIM];
		double error = 0;
		assert_ok(ruv_pq_train(&pq, v, N, DIM, parts, 5, 7, NULL, &err), err);
		assert_ok(ruv_pq_train(&again, v, N, DIM, parts, 5, 7, pool, &err), err);
		assert_int_equal(ruv_pq_n_parts(pq), parts);
		for (int i = 0; i < N; i++) {
			ruv_pq_encode(pq, code, v + i * DIM);
			ruv_pq_decode(pq, back, code);
			error -= true_score(RUV_HNSW_L2, v + i * DIM, back, DIM) / N;
			if (i < 3)
				memcpy(codes + i * parts, code, (size_t)parts);
			if (i % 100 == 0) {
				unsigned char other[DIM];
				ruv_pq_encode(again, other, v + i * DIM);
				assert_memory_equal(code, other, (size_t)parts);
			}
		}
		assert_true(error < error_before);
		error_before = error;
		ruv_pq_tables(pq, tables, v + 9 * DIM);
		ruv_pq_distances(d, pq, tables, codes, 3);
		for (int i = 0; i < 3; i++) {
			ruv_pq_decode(pq, back, codes + i * parts);
			assert_true(fabs(d[i] + true_score(RUV_HNSW_L2, v + 9 * DIM, back, DIM)) < 1e-5);
		}
		ruv_pq_free(pq);
		ruv_pq_free(again);
	}
	assert_true(error_before < 1e-3); /* a byte a component */
	assert_int_equal(ruv_pq_train(&pq, v, N, DIM, 7, 5, 7, NULL, &err), RUV_EINVAL);
	assert_int_equal(ruv_pq_train(&pq, v, 255, DIM, 8, 5, 7, NULL, &err), RUV_EINVAL);
	assert_null(pq);
	ruv_pool_free(pool);
	free(v);
}

/* ---- recall ---- */

static void test_recall(void **state)
{
	static const struct {
		int n, dim, bits, m, efc;
		ruv_hnsw_metric metric;
		double floor;
	} cases[] = {
	    {20000, 48, 8, 16, 100, RUV_HNSW_IP, 0.97}, {5000, 100, 4, 16, 100, RUV_HNSW_IP, 0.95},
	    {5000, 33, 8, 12, 80, RUV_HNSW_L2, 0.97},   {3000, 7, 4, 8, 60, RUV_HNSW_L2, 0.95},
	    {5000, 128, 1, 16, 100, RUV_HNSW_IP, 0.90},
	};
	enum { N_QUERIES = 50 };
	ruv_pool *pool;

	(void)state;
	assert_ok(ruv_pool_create(&pool, 2, &err), err);
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		float *v = make_vectors(cases[c].n + N_QUERIES, cases[c].dim, 3 + c),
		      *queries = v + (size_t)cases[c].n * (size_t)cases[c].dim;
		ruv_hnsw_query graph = {.k = 10, .how = RUV_HNSW_GRAPH}, exact = {.k = 10, .how = RUV_HNSW_SCAN}, wide = {.k = 64};
		fixture f;
		double by_graph, by_scan, by_wide;
		open_fixture(&f, cases[c].dim, cases[c].n, cases[c].metric, cases[c].bits, cases[c].m, cases[c].efc);
		put(&f, v, cases[c].n, 1, pool);
		check_graph(&f, cases[c].n);
		by_graph = recall(&f, queries, N_QUERIES, &graph, NULL);
		by_scan = recall(&f, queries, N_QUERIES, &exact, NULL);
		by_wide = recall(&f, queries, N_QUERIES, &wide, NULL);
		print_message("%d x %d, %d bits: recall@10 %.4f by the graph, %.4f by scanning; recall@64 %.4f\n", cases[c].n,
		              cases[c].dim, cases[c].bits, by_graph, by_scan, by_wide);
		assert_true(by_graph >= cases[c].floor);
		assert_true(by_scan >= (cases[c].bits == 1 ? 0.97 : 0.99));
		assert_true(by_wide >= cases[c].floor);
		close_fixture(&f);
		free(v);
	}
	ruv_pool_free(pool);
}

static void test_batch_is_the_same(void **state)
{
	enum { N = 3000, DIM = 24, Q = 40, K = 5 };
	float *v = make_vectors(N + Q, DIM, 5);
	ruv_hnsw_hit hits[Q * K], one[K];
	ruv_hnsw_query query = {.k = K};
	int n_hits[Q];
	ruv_pool *pool;
	fixture f;

	(void)state;
	assert_ok(ruv_pool_create(&pool, 2, &err), err);
	open_fixture(&f, DIM, N, RUV_HNSW_IP, 8, 8, 40);
	put(&f, v, N, 1, NULL);
	assert_int_equal(ruv_hnsw_search_batch(f.index, v + N * DIM, Q, &query, hits, n_hits, pool), 0);
	for (int q = 0; q < Q; q++) {
		assert_int_equal(ruv_hnsw_search(f.index, v + (N + q) * DIM, &query, one), K);
		assert_int_equal(n_hits[q], K);
		for (int i = 0; i < K; i++)
			assert_int_equal(hits[q * K + i].key, one[i].key);
	}
	/* Asking the disk for rows first changes nothing of what is found. */
	for (int q = 0; q < Q; q++) {
		ruv_hnsw_rows rows = {.base = f.rows, .stride = DIM};
		ruv_hnsw_hit other[K];
		query.rows = &rows;
		assert_int_equal(ruv_hnsw_search(f.index, v + (N + q) * DIM, &query, one), K);
		rows.on_disk = true;
		assert_int_equal(ruv_hnsw_search(f.index, v + (N + q) * DIM, &query, other), K);
		for (int i = 0; i < K; i++)
			assert_true(other[i].key == one[i].key && other[i].score == one[i].score);
	}
	close_fixture(&f);
	ruv_pool_free(pool);
	free(v);
}

static void test_small_and_odd(void **state)
{
	float *v = make_vectors(40, 17, 9);
	fixture f;

	(void)state;
	open_fixture(&f, 17, 200, RUV_HNSW_IP, 8, 4, 16);
	{ /* nothing yet */
		ruv_hnsw_query query = {.k = 3};
		ruv_hnsw_hit hits[3];
		assert_int_equal(ruv_hnsw_search(f.index, v, &query, hits), 0);
		query.how = RUV_HNSW_GRAPH;
		assert_int_equal(ruv_hnsw_search(f.index, v, &query, hits), 0);
		check_graph(&f, 0);
	}
	for (int i = 0; i < 40; i++) { /* one by one, k beyond what there is */
		put(&f, v + i * 17, 1, i + 1, NULL);
		for (int how = 0; how < 3; how++)
			assert_true(recall(&f, v, 3, &(ruv_hnsw_query){.k = 50, .how = (ruv_hnsw_how)how}, NULL) == 1);
	}
	check_graph(&f, 40);
	for (int i = 0; i < 100; i++) /* the same vector a hundred times */
		put(&f, v, 1, 100 + i, NULL);
	assert_true(recall(&f, v, 1, &(ruv_hnsw_query){.k = 140}, NULL) == 1);
	assert_true(recall(&f, v, 10, &(ruv_hnsw_query){.k = 20}, NULL) == 1);
	{
		float zero[17] = {0}, bad[17] = {0};
		ruv_hnsw_query query = {.k = 3};
		ruv_hnsw_hit hits[3];
		ruv_hnsw_rows rows = {.base = bad};
		int64_t key = 1000, none = 0;
		bad[16] = NAN;
		assert_int_equal(ruv_hnsw_search(f.index, zero, &query, hits), 3);
		assert_int_equal(ruv_hnsw_search(f.index, bad, &query, hits), RUV_EINVAL);
		query.k = 0;
		assert_int_equal(ruv_hnsw_search(f.index, zero, &query, hits), RUV_EINVAL);
		assert_int_equal(ruv_hnsw_add(f.index, &rows, &key, 1, NULL, NULL, &err), RUV_EINVAL);
		rows.base = zero;
		assert_int_equal(ruv_hnsw_add(f.index, &rows, &none, 1, NULL, NULL, &err), RUV_EINVAL);
		put(&f, zero, 1, 1000, NULL);
		assert_int_equal(ruv_hnsw_remove(f.index, 150, &err), RUV_ENOTFOUND);
		assert_int_equal(ruv_hnsw_remove(f.index, 100000, &err), RUV_ENOTFOUND);
	}
	close_fixture(&f);
	/* Full. */
	open_fixture(&f, 17, 10, RUV_HNSW_L2, 4, 4, 16);
	put(&f, v, 10, 1, NULL);
	{
		ruv_hnsw_rows rows = {.base = v};
		int64_t key = 1000;
		assert_int_equal(ruv_hnsw_add(f.index, &rows, &key, 1, NULL, NULL, &err), RUV_ELIMIT);
	}
	close_fixture(&f);
	free(v);
}

static void test_parameters(void **state)
{
	static const struct {
		int64_t n;
		int m, efc, efs;
	} table[] = {{99999, 16, 100, 32}, {100000, 32, 200, 64}, {1000000, 48, 300, 128}, {10000000, 64, 400, 256}};
	ruv_hnsw_params good, p;
	ruv_hnsw *x;

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		ruv_hnsw_params_for(&good, 384, RUV_HNSW_IP, table[i].n);
		assert_int_equal(good.m, table[i].m);
		assert_int_equal(good.ef_construction, table[i].efc);
		assert_int_equal(good.ef_search, table[i].efs);
		assert_ok(ruv_hnsw_create(&x, &good, &err), err);
		ruv_hnsw_free(x);
	}
#define REFUSED(field, value)                                                                                                      \
	p = good;                                                                                                                  \
	p.field = value;                                                                                                           \
	assert_int_equal(ruv_hnsw_create(&x, &p, &err), RUV_EINVAL);                                                               \
	assert_null(x)
	REFUSED(dimension, 0);
	REFUSED(dimension, RUV_HNSW_MAX_DIMENSION + 1);
	REFUSED(metric, (ruv_hnsw_metric)3);
	REFUSED(bits, 5);
	REFUSED(m, 1);
	REFUSED(m, 129);
	REFUSED(ef_construction, 3);
	REFUSED(ef_search, -1);
	REFUSED(max_nodes, RUV_HNSW_MAX_NODES + 1u);
}

/* ---- filters ---- */

static bool pass_flag(void *arg, uint32_t id, int64_t key)
{
	(void)key;
	return ((const bool *)arg)[id];
}

static void test_filters(void **state)
{
	enum { N = 10000, DIM = 32, Q = 20 };
	static const double shares[] = {1, 0.5, 0.1, 0.01, 0.001, 0};
	float *v = make_vectors(N + Q, DIM, 21), *queries = v + N * DIM;
	uint64_t bits[N / 64 + 1];
	bool pass[N];
	ruv_rng rng;
	fixture f;

	(void)state;
	ruv_rng_init(&rng, 4);
	open_fixture(&f, DIM, N, RUV_HNSW_IP, 8, 12, 80);
	put(&f, v, N, 1, NULL);
	for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) {
		ruv_hnsw_filter by_bits = {.bits = bits, .n_bits = N}, by_call = {.pass = pass_flag, .arg = pass};
		double one, other;
		memset(bits, 0, sizeof bits);
		for (int i = 0; i < N; i++) {
			pass[i] = ruv_rng_double(&rng) < shares[s];
			bits[i / 64] |= (uint64_t)pass[i] << i % 64;
		}
		one = recall(&f, queries, Q, &(ruv_hnsw_query){.k = 10, .filter = &by_bits}, pass);
		other = recall(&f, queries, Q, &(ruv_hnsw_query){.k = 10, .filter = &by_call}, pass);
		print_message("%5.1f %% pass: recall@10 %.4f by bits, %.4f by a function\n", 100 * shares[s], one, other);
		assert_true(one >= 0.97);
		assert_true(other >= 0.97);
	}
	/* Only what is far from the query passes: the graph's candidates hold none of it. */
	for (int q = 0; q < 5; q++) {
		const float *query = queries + q * DIM;
		ruv_hnsw_filter filter = {.pass = pass_flag, .arg = pass};
		int n_in;
		double middle = kth_score(RUV_HNSW_IP, v, NULL, N, DIM, query, N / 2, &n_in);
		for (int i = 0; i < N; i++)
			pass[i] = true_score(RUV_HNSW_IP, v + i * DIM, query, DIM) < middle;
		assert_true(recall(&f, query, 1, &(ruv_hnsw_query){.k = 10, .filter = &filter}, pass) >= 0.9);
	}
	close_fixture(&f);
	free(v);
}

/* ---- removing ---- */

static void test_churn(void **state)
{
	enum { N = 6000, DIM = 32, Q = 400 };
	float *v = make_vectors(N + Q, DIM, 31), *queries = v + N * DIM;
	ruv_hnsw_query how = {.k = 10, .ef = 64, .how = RUV_HNSW_GRAPH};
	uint32_t order[N];
	double fresh, after;
	ruv_hnsw_stats stats;
	ruv_rng rng;
	fixture f;

	(void)state;
	ruv_rng_init(&rng, 8);
	open_fixture(&f, DIM, N + N / 4, RUV_HNSW_IP, 8, 12, 80);
	put(&f, v, N, 1, NULL);
	fresh = recall(&f, queries, Q, &how, NULL);
	for (int round = 0; round < 2; round++) {
		float *moved = malloc(sizeof *moved * N / 2 * DIM);
		int n = 0;
		for (int i = 0; i < f.cap; i++)
			if (f.in[i])
				order[n++] = (uint32_t)i;
		assert_int_equal(n, N);
		for (int i = 0; i < N; i++) {
			uint32_t j = (uint32_t)i + (uint32_t)ruv_rng_below(&rng, (uint64_t)(N - i)), swap = order[i];
			order[i] = order[j];
			order[j] = swap;
		}
		for (int i = 0; i < N / 2; i++) {
			memcpy(moved + i * DIM, row(&f, order[i]), sizeof *moved * DIM);
			assert_ok(ruv_hnsw_remove(f.index, order[i], &err), err);
			assert_int_equal(ruv_hnsw_key(f.index, order[i]), 0);
			assert_int_equal(ruv_hnsw_remove(f.index, order[i], &err), RUV_ENOTFOUND);
			f.in[order[i]] = false;
			if (i % 500 == 0)
				assert_true(recall(&f, queries, 2, &(ruv_hnsw_query){.k = 10}, NULL) >= 0.8);
		}
		assert_ok(ruv_hnsw_repair(f.index, NULL, &err), err);
		check_graph(&f, N / 2);
		after = recall(&f, queries, Q, &how, NULL);
		print_message("round %d: recall@10 with half removed %.4f\n", round, after);
		for (int i = 0; i < N / 2; i++)
			put(&f, moved + i * DIM, 1, 100000 * (round + 1) + i, NULL);
		free(moved);
	}
	assert_ok(ruv_hnsw_repair(f.index, NULL, &err), err);
	check_graph(&f, N);
	after = recall(&f, queries, Q, &how, NULL);
	print_message("recall@10 fresh %.4f, after removing and adding a half twice %.4f; %u ids for %d nodes\n", fresh, after,
	              ruv_hnsw_n_ids(f.index), N);
	assert_true(after >= fresh - 0.005);
	ruv_hnsw_get_stats(f.index, &stats);
	assert_int_equal(stats.n_removed, 0);
	assert_true(ruv_hnsw_n_ids(f.index) <= N + N / 8);

	/* Everything goes, and the index is as good as new. */
	for (int i = 0; i < f.cap; i++)
		if (f.in[i]) {
			assert_ok(ruv_hnsw_remove(f.index, (uint32_t)i, &err), err);
			f.in[i] = false;
		}
	assert_true(recall(&f, queries, 3, &(ruv_hnsw_query){.k = 10}, NULL) == 1);
	assert_ok(ruv_hnsw_repair(f.index, NULL, &err), err);
	check_graph(&f, 0);
	put(&f, v, N, 1, NULL);
	check_graph(&f, N);
	assert_true(recall(&f, queries, Q, &how, NULL) >= fresh - 0.01);
	close_fixture(&f);
	free(v);
}

/* Whole regions vanish at once: the links of what is left have to be found through several removed nodes. */
static void test_remove_nearly_all(void **state)
{
	enum { N = 3000, DIM = 20, KEPT = 50 };
	float *v = make_vectors(N, DIM, 77);
	fixture f;

	(void)state;
	open_fixture(&f, DIM, N, RUV_HNSW_L2, 8, 6, 40);
	put(&f, v, N, 1, NULL);
	for (uint32_t id = 0; id < N; id++)
		if (id % (N / KEPT)) {
			assert_ok(ruv_hnsw_remove(f.index, id, &err), err);
			f.in[id] = false;
		}
	assert_ok(ruv_hnsw_repair(f.index, NULL, &err), err);
	check_graph(&f, KEPT);
	assert_true(recall(&f, v, 100, &(ruv_hnsw_query){.k = 5, .ef = 50, .how = RUV_HNSW_GRAPH}, NULL) >= 0.95);
	close_fixture(&f);
	free(v);
}

static void test_update(void **state)
{
	enum { N = 2000, DIM = 24 };
	float *v = make_vectors(2 * N, DIM, 41);
	ruv_hnsw_query query = {.k = 1, .ef = 64};
	ruv_hnsw_hit hit;
	fixture f;

	(void)state;
	open_fixture(&f, DIM, 2 * N, RUV_HNSW_IP, 8, 8, 60);
	put(&f, v, N, 1, NULL);
	for (uint32_t i = 0; i < 300; i++) {
		uint32_t to;
		int64_t key = ruv_hnsw_key(f.index, i);
		if (!key) /* an update's own new node */
			continue;
		assert_ok(ruv_hnsw_update(f.index, i, v + (N + (int)i) * DIM, &to, &err), err);
		f.in[i] = false;
		f.in[to] = true;
		memcpy(row(&f, to), v + (N + (int)i) * DIM, sizeof *v * DIM);
		assert_int_equal(ruv_hnsw_key(f.index, to), key);
		assert_int_equal(ruv_hnsw_key(f.index, i), 0);
		assert_int_equal(ruv_hnsw_search(f.index, v + (N + (int)i) * DIM, &query, &hit), 1);
		assert_int_equal(hit.key, key);
		assert_int_equal(ruv_hnsw_update(f.index, i, v, &to, &err), RUV_ENOTFOUND);
	}
	assert_true(recall(&f, v, 50, &(ruv_hnsw_query){.k = 10}, NULL) >= 0.97);
	assert_ok(ruv_hnsw_repair(f.index, NULL, &err), err);
	check_graph(&f, N);
	close_fixture(&f);
	free(v);
}

static void test_reserved_ids(void **state)
{
	float *v = make_vectors(20, 8, 2);
	uint32_t ids[4], got[6];
	ruv_hnsw_rows rows = {.base = v, .stride = 8};
	int64_t keys[6] = {1, 2, 3, 4, 5, 6};
	fixture f;

	(void)state;
	open_fixture(&f, 8, 100, RUV_HNSW_IP, 8, 4, 16);
	put(&f, v, 3, 10, NULL);
	assert_ok(ruv_hnsw_reserve(f.index, ids, 4, &err), err);
	for (int i = 0; i < 4; i++)
		assert_int_equal(ruv_hnsw_key(f.index, ids[i]), 0);
	assert_ok(ruv_hnsw_add(f.index, &rows, keys, 1, got, NULL, &err), err);
	assert_int_equal(got[0], ids[0]);
	assert_ok(ruv_hnsw_add(f.index, &rows, keys + 1, 5, got, NULL, &err), err);
	for (int i = 0; i < 3; i++)
		assert_int_equal(got[i], ids[1 + i]);
	check_graph(&f, 9);
	close_fixture(&f);
	free(v);
}

/* ---- files ---- */

static char *temp_path(char *to)
{
	int fd;

	strcpy(to, "/tmp/ruv-hnsw-XXXXXX");
	fd = mkstemp(to);
	assert_true(fd >= 0);
	close(fd);
	return to;
}

static void test_save_and_open(void **state)
{
	enum { N = 3000, DIM = 37, Q = 30 };
	float *v = make_vectors(N + 500 + Q, DIM, 51), *queries = v + (N + 500) * DIM;
	ruv_hnsw_query how = {.k = 10, .ef = 40, .how = RUV_HNSW_GRAPH};
	ruv_hnsw_hit before[10], after[10];
	char path[64], tag[RUV_HNSW_TAG];
	fixture f;

	(void)state;
	temp_path(path);
	open_fixture(&f, DIM, N + 1000, RUV_HNSW_IP, 8, 8, 60);
	assert_ok(ruv_hnsw_save(f.index, path, "empty", &err), err);
	ruv_hnsw_free(f.index);
	assert_ok(ruv_hnsw_open_file(&f.index, path, RUV_HNSW_MAP, (uint32_t)f.cap, tag, &err), err);
	assert_string_equal(tag, "empty");
	put(&f, v, N, 1, NULL);
	for (uint32_t id = 5; id < 700; id += 3) { /* so that there are free ids and free upper lists */
		assert_ok(ruv_hnsw_remove(f.index, id, &err), err);
		f.in[id] = false;
	}
	assert_int_equal(ruv_hnsw_save(f.index, path, "0123456789012345678901234567890123456789012345678901234567890123", &err),
	                 RUV_EINVAL);
	assert_true(ruv_hnsw_save(f.index, "/nonexistent/index", "", &err) < 0);
	assert_ok(ruv_hnsw_save(f.index, path, "embedder 7, version 12", &err), err);
	for (unsigned open_how = 0; open_how < 4; open_how++) {
		ruv_hnsw *other;
		assert_ok(ruv_hnsw_open_file(&other, path, open_how, (uint32_t)f.cap, tag, &err), err);
		assert_string_equal(tag, "embedder 7, version 12");
		assert_int_equal(ruv_hnsw_n_ids(other), ruv_hnsw_n_ids(f.index));
		for (int q = 0; q < Q; q++) {
			int n = ruv_hnsw_search(f.index, queries + q * DIM, &how, before);
			assert_int_equal(ruv_hnsw_search(other, queries + q * DIM, &how, after), n);
			for (int i = 0; i < n; i++) {
				assert_int_equal(before[i].key, after[i].key);
				assert_true(before[i].score == after[i].score);
			}
		}
		ruv_hnsw_free(other);
	}
	/* An opened index is changed, saved over itself, and opened again. */
	for (int round = 0; round < 3; round++) {
		int64_t n = 0;
		ruv_hnsw_free(f.index);
		assert_ok(
		    ruv_hnsw_open_file(&f.index, path, round == 1 ? RUV_HNSW_READ : RUV_HNSW_MAP, (uint32_t)f.cap, NULL, &err),
		    err);
		for (int i = 0; i < 150; i++)
			put(&f, v + (N + round * 150 + i) * DIM, 1, 10000 + round * 1000 + i, NULL);
		for (uint32_t id = 1000 + (uint32_t)round; id < 1400; id += 5) {
			assert_ok(ruv_hnsw_remove(f.index, id, &err), err);
			f.in[id] = false;
		}
		for (int i = 0; i < f.cap; i++)
			n += f.in[i];
		assert_ok(ruv_hnsw_save(f.index, path, "again", &err), err);
		check_graph(&f, n);
		assert_true(recall(&f, queries, Q, &(ruv_hnsw_query){.k = 10, .how = RUV_HNSW_GRAPH}, NULL) >= 0.95);
	}
	assert_true(ruv_hnsw_n_ids(f.index) <= N + 450);
	{
		ruv_hnsw *none;
		assert_int_equal(ruv_hnsw_open_file(&none, path, 0, 100, NULL, &err), RUV_ELIMIT);
		assert_null(none);
		assert_int_equal(ruv_hnsw_open_file(&none, "/tmp/there is no such index", 0, 0, NULL, &err), RUV_ENOTFOUND);
		assert_int_equal(ruv_hnsw_open_file(&none, "/tmp", 0, 0, NULL, &err), RUV_EIO);
	}
	unlink(path);
	close_fixture(&f);
	free(v);
}

static void test_damaged_files(void **state)
{
	enum { N = 600, DIM = 20 };
	float *v = make_vectors(N, DIM, 61);
	char path[64], *bytes;
	size_t size;
	ruv_hnsw *x;
	fixture f;

	(void)state;
	temp_path(path);
	open_fixture(&f, DIM, N, RUV_HNSW_IP, 8, 4, 30);
	put(&f, v, N, 1, NULL);
	assert_ok(ruv_hnsw_save(f.index, path, "t", &err), err);
	assert_ok(ruv_file_read(&bytes, &size, path, 1 << 30, &err), err);
	/* Cut off anywhere, or longer. */
	for (size_t n = 0; n <= size + 4096; n += n < 4200 ? 173 : 3001) {
		int rc;
		if (n == size)
			continue;
		assert_ok(ruv_file_write(path, bytes, n < size ? n : size, &err), err);
		if (n > size)
			assert_int_equal(truncate(path, (off_t)n), 0);
		memset(&err, 0, sizeof err);
		rc = ruv_hnsw_open_file(&x, path, 0, 0, NULL, &err);
		assert_true(rc == RUV_EFORMAT || rc == RUV_ECORRUPT);
		assert_null(x);
		assert_non_null(strstr(err.message, path));
	}
	/* One bit turned, in the header and all over the sections. Bytes between sections mean nothing. */
	for (size_t at = 0; at < size; at += at < 300 ? 1 : 509) {
		int rc;
		bytes[at] ^= 0x10;
		assert_ok(ruv_file_write(path, bytes, size, &err), err);
		rc = ruv_hnsw_open_file(&x, path, at % 2, 0, NULL, &err);
		if (rc == RUV_OK) {
			bytes[at] ^= 0x10;
			assert_int_equal(bytes[at], 0);
			ruv_hnsw_free(x);
			continue;
		}
		assert_true(rc == RUV_EFORMAT || rc == RUV_ECORRUPT);
		bytes[at] ^= 0x10;
	}
	/* Not at all such a file. */
	assert_ok(ruv_file_write(path, "hello", 5, &err), err);
	assert_int_equal(ruv_hnsw_open_file(&x, path, 0, 0, NULL, &err), RUV_EFORMAT);
	free(bytes);
	unlink(path);
	close_fixture(&f);
	free(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_codes_keep_distances),
	    cmocka_unit_test(test_product_codes),
	    cmocka_unit_test(test_parameters),
	    cmocka_unit_test(test_small_and_odd),
	    cmocka_unit_test(test_recall),
	    cmocka_unit_test(test_batch_is_the_same),
	    cmocka_unit_test(test_filters),
	    cmocka_unit_test(test_churn),
	    cmocka_unit_test(test_remove_nearly_all),
	    cmocka_unit_test(test_update),
	    cmocka_unit_test(test_reserved_ids),
	    cmocka_unit_test(test_save_and_open),
	    cmocka_unit_test(test_damaged_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
