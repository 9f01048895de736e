/* test_ops.c - the operations of a forward pass against naive versions in double, over threads, types, batches and odd shapes. */
#include "check.h"

#include "base/status.h"
#include "tensor/cpu/kernels.h"
#include "tensor/half.h"
#include "tensor/ops.h"
#include "tensor/quant.h"

static ruv_backend *open_backend(int n_threads, int n_rows, int64_t n_elements)
{
	ruv_backend *b = NULL;
	ruv_error err = {0};
	CHECK(ruv_backend_open_cpu(&b, n_threads, &err) == 0, "%s", err.message);
	CHECK(ruv_backend_reserve(b, n_rows, n_elements, 0, &err) == 0, "%s", err.message);
	return b;
}

static void check_sync(ruv_backend *b)
{
	ruv_error err = {0};
	CHECK(ruv_backend_sync(b, &err) == 0, "sync: %s", err.message);
}

static bool quick; /* fewer shapes: for emulated processors */

static void test_linear(int n_threads, ruv_rng *rng)
{
	static const ruv_dtype types[] = {RUV_F32, RUV_F16, RUV_BF16, RUV_Q4_0, RUV_Q5_1, RUV_Q8_0, RUV_Q4_K, RUV_Q6_K};
	static const int counts[] = {1, 2, 3, 4, 9, 20};
	enum { K = 512, ROWS = 203, MAX_N = 20, GROUP = 3 };
	ruv_backend *b = open_backend(n_threads, MAX_N, K);

	for (size_t t = 0; t < sizeof types / sizeof *types; t++)
		for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
			int n = counts[c];
			if (quick && n != 1 && n != 9)
				continue;
			/* The group mixes a quantized type with floats, has odd row counts, a bias and an accumulation. */
			const ruv_dtype group_types[GROUP] = {types[t], RUV_F32, types[(t + 3) % 8]};
			const int64_t rows[GROUP] = {ROWS, 7, 64};
			ruv_tensor w[GROUP], bias;
			ruv_linear group[GROUP];
			uint8_t *bytes[GROUP];
			float *y[GROUP], *x = random_floats(rng, MAX_N * K, 1), *bias_values = random_floats(rng, ROWS, 1);
			for (int g = 0; g < GROUP; g++) {
				float *values = random_floats(rng, (size_t)rows[g] * K, 0.1);
				bytes[g] = check_alloc((size_t)rows[g] * ruv_dtype_row_bytes(group_types[g], K));
				ruv_quantize_rows(bytes[g], group_types[g], values, rows[g], K, NULL);
				ruv_backend_bind(b, &w[g], group_types[g], K, rows[g], bytes[g], NULL);
				y[g] = check_alloc(MAX_N * (ROWS + 5) * sizeof(float));
				for (int i = 0; i < MAX_N * (ROWS + 5); i++)
					y[g][i] = 1;
				group[g] = (ruv_linear){y[g], rows[g] + 5, &w[g], NULL, g == 1};
				free(values);
			}
			ruv_backend_bind(b, &bias, RUV_F32, ROWS, 1, bias_values, NULL);
			group[0].bias = &bias;
			ruv_op_linear(b, group, GROUP, x, n);
			check_sync(b);
			for (int g = 0; g < GROUP; g++)
				for (int64_t r = 0; r < rows[g] + 5; r++) {
					float values[K];
					if (r < rows[g])
						ruv_dequantize_row(values, group_types[g],
						                   bytes[g] + (size_t)r * ruv_dtype_row_bytes(group_types[g], K),
						                   K);
					for (int i = 0; i < n; i++) {
						double want = g == 1 || r >= rows[g] ? 1 : 0, square = 0;
						for (int j = 0; j < K && r < rows[g]; j++) {
							want += (double)values[j] * (double)x[i * K + j];
							square += (double)values[j] * (double)values[j];
						}
						if (g == 0 && r < rows[g])
							want += (double)bias_values[r];
						/* 8-bit activations: each is off by up to d / 2, d about 3 / 127 here. */
						double bound = ruv_dtype_wants_q8(group_types[g]) ? 6 * sqrt(square) * 0.012 : 1e-4;
						double got = (double)y[g][i * (rows[g] + 5) + r];
						CHECK(fabs(got - want) <= (r < rows[g] ? bound : 0),
						      "linear %s n %d [%d, %d]: %g, not %g", ruv_dtype_name((int)group_types[g]), n,
						      i, (int)r, got, want);
					}
				}
			for (int g = 0; g < GROUP; g++)
				ruv_backend_unbind(b, &w[g]), free(bytes[g]), free(y[g]);
			free(x), free(bias_values);
		}
	ruv_backend_free(b);
}

static void test_transposed(int n_threads, ruv_rng *rng)
{
	static const struct {
		ruv_dtype dtype;
		int64_t n_in, n_out;
	} cases[] = {{RUV_F32, 300, 70},  {RUV_F32, 7, 3},     {RUV_F16, 273, 65},  {RUV_BF16, 64, 200},
	             {RUV_Q4_0, 288, 65}, {RUV_Q4_1, 32, 64},  {RUV_Q5_0, 896, 5},  {RUV_Q5_1, 96, 33},
	             {RUV_Q8_0, 544, 66}, {RUV_Q4_K, 512, 70}, {RUV_Q5_K, 256, 64}, {RUV_Q6_K, 768, 1}};
	static const int counts[] = {1, 3, 67};
	enum { MAX_IN = 896, MAX_OUT = 200, MAX_N = 67 };
	ruv_backend *b = open_backend(n_threads, 1, 64);

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const int64_t n_in = cases[i].n_in, n_out = cases[i].n_out, ld = n_out + 3;
		float *values = random_floats(rng, (size_t)(n_in * n_out), 0.1), *dy = random_floats(rng, (size_t)(MAX_N * ld), 1);
		uint8_t *bytes = check_alloc((size_t)n_out * ruv_dtype_row_bytes(cases[i].dtype, n_in));
		float *dx = check_alloc((MAX_N * MAX_IN + 1) * sizeof *dx);
		ruv_tensor w;
		ruv_quantize_rows(bytes, cases[i].dtype, values, n_out, n_in, NULL);
		for (int64_t r = 0; r < n_out; r++)
			ruv_dequantize_row(values + r * n_in, cases[i].dtype,
			                   bytes + (size_t)r * ruv_dtype_row_bytes(cases[i].dtype, n_in), n_in);
		ruv_backend_bind(b, &w, cases[i].dtype, n_in, n_out, bytes, NULL);
		for (int c = 0; c < 3; c++) {
			const int n = counts[c];
			for (int64_t j = 0; j <= n * n_in; j++)
				dx[j] = 2;
			ruv_op_linear_transposed(b, dx, &w, dy, ld, n, c & 1);
			check_sync(b);
			for (int64_t j = 0; j <= n * n_in; j++) {
				double want = c & 1 || j == n * n_in ? 2 : 0;
				for (int64_t r = 0; r < n_out && j < n * n_in; r++)
					want += (double)dy[j / n_in * ld + r] * (double)values[r * n_in + j % n_in];
				CHECK(fabs(want - (double)dx[j]) <= 2e-5, "transposed %s [%d, %d] n %d at %d: %g, not %g",
				      ruv_dtype_name((int)cases[i].dtype), (int)n_out, (int)n_in, n, (int)j, (double)dx[j], want);
			}
		}
		ruv_backend_unbind(b, &w);
		free(values), free(dy), free(bytes), free(dx);
	}
	ruv_backend_free(b);
}

enum { PAGE = RUV_KV_PAGE_TOKENS, MAX_TOKENS = 700 };

/* One attention case: two sequences with different histories in one batch, pages in shuffled order. */
static void attention_case(int n_threads, ruv_dtype dtype, int n_heads, int n_kv, int dim, int window, bool bidirectional,
                           int past0, int rows0, int past1, int rows1, ruv_rng *rng)
{
	enum { N_SEQS = 2, MAX_PAGES = 32 };
	ruv_backend *b = open_backend(n_threads, rows0 + rows1, n_heads * dim);
	int past[N_SEQS] = {past0, past1}, rows[N_SEQS] = {rows0, rows1}, n = rows0 + rows1, next_page = MAX_PAGES;
	int32_t pages[N_SEQS][MAX_PAGES];
	float *keys[N_SEQS], *values[N_SEQS], *q = random_floats(rng, (size_t)(n * n_heads * dim), 1);
	float *k = check_alloc((size_t)(MAX_TOKENS * n_kv * dim) * 4), *v = check_alloc((size_t)(MAX_TOKENS * n_kv * dim) * 4);
	float *y = check_alloc((size_t)(n * n_heads * dim) * 4);
	ruv_kv_layer kv = {.dtype = dtype, .n_kv_heads = n_kv, .head_dim = dim};
	ruv_attention attention = {n_heads, (float)(1 / sqrt((double)dim)), window, bidirectional};
	ruv_batch_seq seqs[N_SEQS];
	void *kv_memory[2];

	kv.page_bytes = (size_t)(n_kv * PAGE) * ruv_dtype_row_bytes(dtype, dim);
	for (int i = 0; i < 2; i++)
		ruv_backend_alloc(b, &kv_memory[i], MAX_PAGES * kv.page_bytes, NULL);
	kv.k = kv_memory[0];
	kv.v = kv_memory[1];
	for (int s = 0; s < N_SEQS; s++) {
		int total = past[s] + rows[s];
		keys[s] = random_floats(rng, (size_t)(total * n_kv * dim), 1);
		values[s] = random_floats(rng, (size_t)(total * n_kv * dim), 1);
		for (int p = 0; p * PAGE < total; p++)
			pages[s][p] = --next_page;
		seqs[s] = (ruv_batch_seq){.first_row = 0, .n_rows = past[s], .position = 0, .pages = pages[s]};
		ruv_op_kv_write(b, &kv, keys[s], values[s], &seqs[s], 1); /* the history, in one go */
		seqs[s] = (ruv_batch_seq){.first_row = s ? rows0 : 0, .n_rows = rows[s], .position = past[s], .pages = pages[s]};
		memcpy(k + seqs[s].first_row * n_kv * dim, keys[s] + past[s] * n_kv * dim, (size_t)(rows[s] * n_kv * dim) * 4);
		memcpy(v + seqs[s].first_row * n_kv * dim, values[s] + past[s] * n_kv * dim, (size_t)(rows[s] * n_kv * dim) * 4);
	}
	ruv_op_kv_write(b, &kv, k, v, seqs, N_SEQS);
	ruv_op_attention(b, y, q, &kv, &attention, seqs, N_SEQS);
	check_sync(b);

	for (int s = 0; s < N_SEQS; s++) {
		int total = past[s] + rows[s];
		/* What the cache can hold. */
		uint8_t *stored = check_alloc(ruv_dtype_row_bytes(dtype, dim));
		for (int i = 0; i < total * n_kv; i++)
			for (int which = 0; which < 2; which++) {
				float *row = (which ? values[s] : keys[s]) + i * dim;
				ruv_quantize_rows(stored, dtype, row, 1, dim, NULL);
				ruv_dequantize_row(row, dtype, stored, dim);
			}
		free(stored);
		for (int t = 0; t < rows[s]; t++)
			for (int h = 0; h < n_heads; h++) {
				int position = past[s] + t, from = 0, to = bidirectional ? total : position + 1,
				    kv_head = h / (n_heads / n_kv);
				const float *qr = q + ((seqs[s].first_row + t) * n_heads + h) * dim;
				const float *yr = y + ((seqs[s].first_row + t) * n_heads + h) * dim;
				double scores[MAX_TOKENS], max = -1e300, sum = 0, worst = 0;
				if (window && !bidirectional && position - window + 1 > 0)
					from = position - window + 1;
				for (int j = from; j < to; j++) {
					double dot = 0;
					for (int d = 0; d < dim; d++)
						dot += (double)qr[d] * (double)keys[s][(j * n_kv + kv_head) * dim + d];
					scores[j] = dot * (double)attention.scale;
					max = fmax(max, scores[j]);
				}
				for (int j = from; j < to; j++)
					sum += scores[j] = exp(scores[j] - max);
				for (int d = 0; d < dim; d++) {
					double want = 0;
					for (int j = from; j < to; j++)
						want += scores[j] * (double)values[s][(j * n_kv + kv_head) * dim + d];
					worst = fmax(worst, fabs(want / sum - (double)yr[d]));
				}
				CHECK(worst < 1e-5,
				      "attention %s threads %d heads %d/%d dim %d window %d%s seq %d row %d head %d: off by %g",
				      ruv_dtype_name((int)dtype), n_threads, n_heads, n_kv, dim, window,
				      bidirectional ? " both ways" : "", s, t, h, worst);
			}
		free(keys[s]), free(values[s]);
	}
	ruv_backend_release(b, kv.k);
	ruv_backend_release(b, kv.v);
	free(q), free(k), free(v), free(y);
	ruv_backend_free(b);
}

static void test_attention(int n_threads, ruv_rng *rng)
{
	static const ruv_dtype types[] = {RUV_F32, RUV_F16, RUV_Q8_0};
	for (int t = 0; t < 3; t++) {
		if (quick && types[t] != RUV_F16)
			continue;
		attention_case(n_threads, types[t], 4, 2, 64, 0, false, 0, 1, 5, 3, rng);
		attention_case(n_threads, types[t], 4, 2, 64, 0, false, 130, 70, 0, 65, rng);
		attention_case(n_threads, types[t], 8, 1, 32, 0, false, 600, 1, 299, 1, rng); /* split over the context */
		attention_case(n_threads, types[t], 4, 4, 128, 0, false, 640, 2, 1, 1, rng);
		attention_case(n_threads, types[t], 2, 1, 64, 50, false, 300, 90, 0, 20, rng);
		attention_case(n_threads, types[t], 2, 1, 64, 100, false, 500, 1, 63, 1, rng);
		attention_case(n_threads, types[t], 3, 3, 96, 0, true, 0, 67, 0, 130, rng);
	}
	attention_case(n_threads, RUV_F16, 2, 1, 20, 0, false, 60, 9, 0, 3, rng);
	attention_case(n_threads, RUV_F32, 2, 1, 256, 0, false, 60, 9, 0, 3, rng);
}

static void test_rope(int n_threads, ruv_rng *rng)
{
	enum { N = 5, HEADS = 3, DIM = 64, ROT = 48 };
	ruv_backend *b = open_backend(n_threads, N, HEADS * DIM);
	float frequency[ROT / 2], *x = random_floats(rng, N * HEADS * DIM, 1), y[N * HEADS * DIM];
	int32_t positions[N] = {0, 1, 77, 4096, 100000};

	for (int i = 0; i < ROT / 2; i++)
		frequency[i] = (float)pow(1e6, -2.0 * i / ROT);
	for (int kind = 0; kind < 2; kind++) {
		ruv_rope rope = {kind ? RUV_ROPE_INTERLEAVED : RUV_ROPE_NEOX, ROT, frequency, 1.25f};
		memcpy(y, x, sizeof y);
		ruv_op_rope(b, y, &rope, positions, N, HEADS, DIM);
		check_sync(b);
		for (int t = 0; t < N * HEADS; t++)
			for (int i = 0; i < DIM; i++) {
				int pair = kind ? i / 2 : i % (ROT / 2), first = kind ? !(i & 1) : i < ROT / 2;
				double angle = (double)positions[t / HEADS] * (double)(i < ROT ? frequency[pair] : 0);
				double c = cos(angle) * 1.25, s = sin(angle) * 1.25;
				double a = (double)x[t * DIM + (kind ? 2 * pair : pair)],
				       d = (double)x[t * DIM + (kind ? 2 * pair + 1 : pair + ROT / 2)];
				double want = i >= ROT ? (double)x[t * DIM + i] : first ? a * c - d * s : a * s + d * c;
				CHECK(fabs(want - (double)y[t * DIM + i]) < 1e-6, "rope kind %d [%d, %d]: %g, not %g", kind, t, i,
				      (double)y[t * DIM + i], want);
			}
	}
	free(x);
	ruv_backend_free(b);
}

/* Whole, in pieces, and token by token must agree with the formula; two sequences in a batch. */
static void test_conv(int n_threads, ruv_rng *rng)
{
	enum { N = 23, DIM = 300 };
	ruv_backend *b = open_backend(n_threads, 2 * N, 3 * DIM);
	float *bcx = random_floats(rng, 2 * N * 3 * DIM, 1), *taps = random_floats(rng, 3 * DIM, 1);
	float *y = check_alloc(2 * N * DIM * 4);
	ruv_tensor w;
	void *state[2];

	ruv_backend_bind(b, &w, RUV_F32, 3, DIM, taps, NULL);
	for (int s = 0; s < 2; s++)
		ruv_backend_alloc(b, &state[s], 2 * DIM * sizeof(float), NULL);
	for (int mode = 0; mode < 4; mode++) { /* chunk of 23, 5, 1; centred */
		int chunk = mode == 1 ? 5 : mode == 2 ? 1 : N;
		bool centred = mode == 3;
		for (int s = 0; s < 2; s++)
			ruv_backend_zero(b, state[s], 2 * DIM * sizeof(float));
		for (int at = 0; at < N; at += chunk) {
			int n = N - at < chunk ? N - at : chunk;
			ruv_batch_seq seqs[2] = {{.first_row = at, .n_rows = n, .conv_state = state[0]},
			                         {.first_row = N + at, .n_rows = n, .conv_state = state[1]}};
			ruv_op_short_conv(b, y, bcx, &w, DIM, centred, seqs, 2);
		}
		check_sync(b);
		for (int i = 0; i < 2 * N; i++)
			for (int d = 0; d < DIM; d++) {
				double want = 0;
				for (int tap = 0; tap < 3; tap++) {
					int t = i % N + tap - (centred ? 1 : 2);
					const float *row = bcx + (i - i % N + t) * 3 * DIM;
					if (t >= 0 && t < N)
						want += (double)taps[3 * d + tap] * (double)row[d] * (double)row[2 * DIM + d];
				}
				want *= (double)bcx[i * 3 * DIM + DIM + d];
				CHECK(fabs(want - (double)y[i * DIM + d]) < 1e-4, "short_conv mode %d [%d, %d]: %g, not %g", mode,
				      i, d, (double)y[i * DIM + d], want);
			}
	}
	ruv_backend_release(b, state[0]);
	ruv_backend_release(b, state[1]);
	free(bcx), free(taps), free(y);
	ruv_backend_free(b);
}

static void test_rest(int n_threads, ruv_rng *rng)
{
	enum { N = 37, DIM = 256 };
	ruv_backend *b = open_backend(n_threads, N, DIM);
	float *x = random_floats(rng, N * DIM, 1), *w = random_floats(rng, DIM, 1), *bias = random_floats(rng, DIM, 1);
	float *y = check_alloc(N * DIM * 4);
	uint8_t *bytes = check_alloc(N * ruv_dtype_row_bytes(RUV_Q6_K, DIM));
	ruv_tensor wt, bt, table;
	int32_t ids[4] = {36, 0, 5, 5};
	ruv_batch_seq seqs[2] = {{.first_row = 3, .n_rows = 30}, {.first_row = 33, .n_rows = 1}};

	ruv_backend_bind(b, &wt, RUV_F32, DIM, 1, w, NULL);
	ruv_backend_bind(b, &bt, RUV_F32, DIM, 1, bias, NULL);
	ruv_op_rms_norm(b, y, x, &wt, N, DIM, 1e-5f);
	for (int i = 0; i < N; i++) {
		double square = 0;
		for (int d = 0; d < DIM; d++)
			square += (double)x[i * DIM + d] * (double)x[i * DIM + d];
		for (int d = 0; d < DIM; d++) {
			double want = (double)x[i * DIM + d] / sqrt(square / DIM + 1e-5) * (double)w[d];
			CHECK(fabs(want - (double)y[i * DIM + d]) < 2e-6, "rms_norm [%d, %d]", i, d);
		}
	}
	ruv_op_layer_norm(b, y, x, &wt, &bt, N, DIM, 1e-5f);
	for (int i = 0; i < N; i++) {
		double mean = 0, square = 0;
		for (int d = 0; d < DIM; d++)
			mean += (double)x[i * DIM + d] / DIM;
		for (int d = 0; d < DIM; d++)
			square += pow((double)x[i * DIM + d] - mean, 2);
		for (int d = 0; d < DIM; d++) {
			double want = ((double)x[i * DIM + d] - mean) / sqrt(square / DIM + 1e-5) * (double)w[d] + (double)bias[d];
			CHECK(fabs(want - (double)y[i * DIM + d]) < 5e-6, "layer_norm [%d, %d]", i, d);
		}
	}
	ruv_quantize_rows(bytes, RUV_Q6_K, x, N, DIM, NULL);
	ruv_backend_bind(b, &table, RUV_Q6_K, DIM, N, bytes, NULL);
	ruv_op_get_rows(b, y, &table, ids, 4);
	for (int i = 0; i < 4; i++) {
		float want[DIM];
		ruv_dequantize_row(want, RUV_Q6_K, bytes + (size_t)ids[i] * ruv_dtype_row_bytes(RUV_Q6_K, DIM), DIM);
		CHECK(!memcmp(want, y + i * DIM, sizeof want), "get_rows %d", i);
	}
	ruv_op_take_rows(b, y, x, ids, 4, DIM);
	CHECK(!memcmp(y + DIM, x, DIM * 4) && !memcmp(y, x + 36 * DIM, DIM * 4), "take_rows");
	ruv_op_mean_pool(b, y, x, DIM, seqs, 2);
	for (int d = 0; d < DIM; d++) {
		double mean = 0;
		for (int i = 3; i < 33; i++)
			mean += (double)x[i * DIM + d] / 30;
		CHECK(fabs(mean - (double)y[d]) < 1e-6 && fabsf(y[DIM + d] - x[33 * DIM + d]) < 1e-6f, "mean_pool [%d]", d);
	}
	ruv_op_swiglu(b, y, x, x, N * DIM);
	for (int i = 0; i < N * DIM; i++)
		CHECK(fabs((double)x[i] / (1 + exp(-(double)x[i])) * (double)x[i] - (double)y[i]) < 1e-5, "swiglu [%d]", i);
	ruv_op_add(b, y, x, N * DIM);
	check_sync(b);
	ruv_backend_unbind(b, &table);
	free(x), free(w), free(bias), free(y), free(bytes);
	ruv_backend_free(b);
}

/* A failure inside an operation sticks until sync reports it, once. */
static void test_failures(void)
{
	ruv_backend *b = open_backend(2, 4, 64);
	ruv_error err = {0};
	float values[64] = {0}, *y = check_alloc(1 << 16);
	int32_t bad = 9;
	ruv_tensor w;
	ruv_linear l = {y, 4, &w, NULL, false};

	CHECK(ruv_backend_bind(b, &w, RUV_Q4_K, 64, 1, values, &err) == RUV_EINVAL && strstr(err.message, "256"), "bind: %s",
	      err.message);
	CHECK(ruv_backend_bind(b, &w, (ruv_dtype)9, 64, 1, values, &err) == RUV_EUNSUPPORTED && strstr(err.message, "type 9"),
	      "bind: %s", err.message);
	CHECK(ruv_backend_bind(b, &w, RUV_F32, 16, 4, values, &err) == 0, "bind");
	ruv_op_get_rows(b, y, &w, &bad, 1);
	ruv_op_get_rows(b, y, &w, &(int32_t){-1}, 1);
	CHECK(ruv_backend_sync(b, &err) == RUV_EINVAL && strstr(err.message, "row 9"), "sync: %s", err.message);
	CHECK(ruv_backend_sync(b, &err) == RUV_OK, "a reported failure stays");
	w.n_in = 1 << 20;
	w.n_out = 1;
	ruv_op_linear(b, &l, 1, y, 1);
	CHECK(ruv_backend_sync(b, &err) == RUV_ELIMIT && strstr(err.message, "reserved"), "sync: %s", err.message);
	CHECK(ruv_backend_open_cpu(&b, -1, &err) == RUV_EINVAL || !b, "negative threads");
	free(y);
	ruv_backend_free(b);
}

int main(int argc, char **argv)
{
	ruv_rng rng;
	quick = argc > 1 && !strcmp(argv[1], "quick");
	for (int n_threads = quick ? 2 : 1; n_threads <= 4; n_threads += n_threads == 1 ? 1 : 2) {
		if (quick && n_threads > 2)
			break;
		ruv_rng_init(&rng, 11);
		test_linear(n_threads, &rng);
		test_transposed(n_threads, &rng);
		test_attention(n_threads, &rng);
		test_rope(n_threads, &rng);
		test_conv(n_threads, &rng);
		test_rest(n_threads, &rng);
	}
	test_failures();
	return check_result("ops");
}
