/* test_kernels.c - every kernel of every instruction set that this processor has, for every type and odd shapes, against the scalar
 * reference. Sums are compared relative to the sum of magnitudes, because that is what rounding errors grow with. */
#include "check.h"

#include "tensor/blocks.h"
#include "tensor/cpu/kernels.h"
#include "tensor/half.h"
#include "tensor/quant.h"

static const ruv_dtype types[] = {RUV_F32,  RUV_F16,  RUV_BF16, RUV_Q4_0, RUV_Q4_1, RUV_Q5_0,
                                  RUV_Q5_1, RUV_Q8_0, RUV_Q4_K, RUV_Q5_K, RUV_Q6_K};
enum { N_TYPES = sizeof types / sizeof *types };

/* Quantized random rows, every other one with wild codes: all bit patterns a block may have, with scales of ordinary size. */
static uint8_t *random_weights(ruv_rng *rng, ruv_dtype dtype, int n_rows, int64_t k)
{
	size_t row_bytes = ruv_dtype_row_bytes(dtype, k);
	float *x = random_floats(rng, (size_t)n_rows * (size_t)k, 0.1);
	uint8_t *w = check_alloc((size_t)n_rows * row_bytes);

	CHECK(ruv_quantize_rows(w, dtype, x, n_rows, k, NULL) == 0, "%s", ruv_dtype_name((int)dtype));
	for (int r = 1; r < n_rows && ruv_dtype_wants_q8(dtype); r += 2)
		for (int64_t b = 0; b < k / ruv_dtype_block_elements(dtype); b++) {
			uint8_t *block = w + (size_t)r * row_bytes + (size_t)(b * ruv_dtype_block_bytes(dtype));
			uint16_t d = ruv_f32_to_f16((float)(0.01 * ruv_rng_normal(rng)));
			for (int i = 0; i < ruv_dtype_block_bytes(dtype); i++)
				block[i] = (uint8_t)ruv_rng_u64(rng);
			if (dtype == RUV_Q6_K)
				memcpy(((ruv_block_q6_k *)block)->scales + 16, &d, 2);
			else
				memcpy(block, &d, 2);
			if (dtype == RUV_Q4_1 || dtype == RUV_Q5_1 || dtype == RUV_Q4_K || dtype == RUV_Q5_K)
				memcpy(block + 2, &d, 2);
		}
	free(x);
	return w;
}

/* sum of |w| |x| for one row and token */
static double magnitude(ruv_dtype dtype, const uint8_t *row, const float *x, int64_t k)
{
	float *values = check_alloc((size_t)k * sizeof *values);
	double sum = 0;
	ruv_dequantize_row(values, dtype, row, k);
	for (int64_t i = 0; i < k; i++)
		sum += fabs((double)values[i] * (double)x[i]);
	free(values);
	return sum;
}

static bool quick; /* fewer shapes: for emulated processors */

static void test_products(const ruv_kernels *table, const ruv_kernels *ref, ruv_rng *rng)
{
	static const int64_t lengths[] = {32, 64, 96, 128, 160, 256, 288, 512, 800, 896, 1024, 1280, 1, 7, 33, 250};
	static const int rows[] = {1, 2, 3, 4, 5, 16, 31, 32, 33, 37}, tokens[] = {1, 2, 3, 5, 6, 7, 8, 13};
	enum { MAX_K = 1280, MAX_ROWS = 37, MAX_TOKENS = 13 };
	void *act_memory = check_alloc(ruv_act_bytes(MAX_TOKENS, MAX_K));
	void *panel_memory = check_alloc(ruv_panel_bytes(RUV_MAX_PANEL_ROWS, MAX_K));

	for (int t = 0; t < N_TYPES; t++)
		for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
			ruv_dtype dtype = types[t];
			int64_t k = lengths[l];
			size_t row_bytes = ruv_dtype_row_bytes(dtype, k);
			ruv_act x;
			if (quick && k != 32 && k != 288 && k != 512 && k != 33)
				continue;
			float want[MAX_TOKENS * MAX_ROWS], got[MAX_TOKENS * MAX_ROWS], bound[MAX_TOKENS * MAX_ROWS];
			if (!row_bytes)
				continue;
			uint8_t *w = random_weights(rng, dtype, MAX_ROWS, k);
			float *f = random_floats(rng, (size_t)(MAX_TOKENS * k), 1), *bias = random_floats(rng, MAX_ROWS, 1);
			for (int i = 0; i < 40 && i < k; i++) /* an outlier, a zero group */
				f[i] = i == 3 ? 90 : i < 32 ? 0 : f[i];
			ruv_act_place(&x, act_memory, MAX_TOKENS, k);
			x.f = f;
			for (int i = 0; i < MAX_TOKENS && ruv_dtype_wants_q8(dtype); i++)
				ref->quantize_act(&x, i);
			for (int i = 0; i < MAX_TOKENS; i++) {
				ruv_act_row row = ruv_act_get_row(&x, i);
				ref->gemv[dtype](want + i * MAX_ROWS, w, row_bytes, MAX_ROWS, &row, k);
				for (int r = 0; r < MAX_ROWS; r++)
					bound[i * MAX_ROWS + r] =
					    (float)(2e-6 * magnitude(dtype, w + (size_t)r * row_bytes, row.f, k) + 1e-6);
			}
			for (size_t nr = 0; nr < sizeof rows / sizeof *rows; nr++) {
				ruv_act_row row = ruv_act_get_row(&x, 1);
				memset(got, 0xff, sizeof got);
				table->gemv[dtype](got, w, row_bytes, rows[nr], &row, k);
				for (int r = 0; r < rows[nr]; r++)
					CHECK(fabsf(got[r] - want[MAX_ROWS + r]) <= bound[MAX_ROWS + r],
					      "%s gemv %s k %d rows %d row %d: %g, not %g (bound %g)", table->name,
					      ruv_dtype_name((int)dtype), (int)k, rows[nr], r, (double)got[r],
					      (double)want[MAX_ROWS + r], (double)bound[MAX_ROWS + r]);
				uint32_t guard;
				memcpy(&guard, got + rows[nr], 4);
				CHECK(guard == 0xffffffff, "%s gemv %s wrote past %d rows", table->name, ruv_dtype_name((int)dtype),
				      rows[nr]);
			}
			for (int nr = quick ? table->panel_rows - 1 : 1; nr <= table->panel_rows; nr += nr < 3  ? 1
			                                                                                : quick ? 1
			                                                                                        : 5) {
				ruv_panel panel;
				ruv_panel_place(&panel, panel_memory, table->panel_rows, k);
				table->unpack[dtype](&panel, w, row_bytes, nr, k);
				for (size_t nt = 0; nt < sizeof tokens / sizeof *tokens; nt++) {
					int first = (int)nt % (MAX_TOKENS + 1 - tokens[nt]);
					bool accumulate = nt & 1, biased = nt & 2;
					for (int i = 0; i < MAX_TOKENS * MAX_ROWS; i++)
						got[i] = 1;
					(ruv_dtype_wants_q8(dtype) ? table->gemm_q8 : table->gemm_f32)(
					    got, MAX_ROWS, &panel, &x, first, tokens[nt], biased ? bias : NULL, accumulate);
					for (int i = 0; i < tokens[nt]; i++)
						for (int r = 0; r <= nr; r++) {
							float w0 = r == nr ? 1
							                   : want[(first + i) * MAX_ROWS + r] +
							                         (biased ? bias[r] : 0) + (accumulate ? 1 : 0);
							CHECK(fabsf(got[i * MAX_ROWS + r] - w0) <=
							          (r == nr ? 0 : bound[(first + i) * MAX_ROWS + r]),
							      "%s gemm %s k %d rows %d tokens %d: [%d, %d] %g, not %g", table->name,
							      ruv_dtype_name((int)dtype), (int)k, nr, tokens[nt], i, r,
							      (double)got[i * MAX_ROWS + r], (double)w0);
						}
				}
			}
			for (int nr = 1; nr <= MAX_ROWS && table->mul_rows[dtype]; nr += nr < 6 ? 1 : 31)
				for (int nt = 1; nt <= MAX_TOKENS; nt++) {
					memset(got, 0, sizeof got);
					table->mul_rows[dtype](got, MAX_ROWS, w, row_bytes, nr, &x, nt);
					for (int i = 0; i < nt; i++)
						for (int r = 0; r <= nr && r < MAX_ROWS; r++) {
							int at = i * MAX_ROWS + r;
							CHECK(fabsf(got[at] - (r < nr ? want[at] : 0)) <= (r < nr ? bound[at] : 0),
							      "%s mul_rows %s k %d rows %d tokens %d: [%d, %d] %g, not %g",
							      table->name, ruv_dtype_name((int)dtype), (int)k, nr, nt, i, r,
							      (double)got[at], (double)want[at]);
						}
				}
			for (int nr = 1; nr <= table->panel_rows && table->pack[dtype]; nr += nr < table->panel_rows - 3 ? 11 : 1) {
				uint8_t *packed = check_alloc((size_t)table->panel_rows * row_bytes + 4096);
				table->pack[dtype](packed, w, row_bytes, nr, k);
				/* A row's result does not depend on how many rows it is computed with (of Q6_K, whose groups are
				 * two sums, the compiler rounds one or the other first). */
				float alone[MAX_TOKENS * MAX_ROWS];
				ruv_panel panel;
				memset(got, 0, sizeof got);
				memset(alone, 0, sizeof alone);
				for (int i = 0; i < MAX_TOKENS; i++) {
					ruv_act one = x;
					ruv_act_row at = ruv_act_get_row(&x, i);
					one.f = (float *)at.f, one.q = (int8_t *)at.q, one.d = (float *)at.d;
					one.s = (float *)at.s, one.sum = (int32_t *)at.sum;
					table->mul_packed[dtype](alone + i * MAX_ROWS, MAX_ROWS, packed, nr, &one, 1, NULL, false);
				}
				table->mul_packed[dtype](got, MAX_ROWS, packed, nr, &x, MAX_TOKENS, NULL, false);
				CHECK(dtype == RUV_Q6_K || !memcmp(alone, got, sizeof got),
				      "%s packed %s k %d: rows at once differ", table->name, ruv_dtype_name((int)dtype), (int)k);
				ruv_panel_place(&panel, panel_memory, table->panel_rows, k);
				table->expand[dtype](&panel, packed, nr, k);
				table->gemm_q8(got, MAX_ROWS, &panel, &x, 0, MAX_TOKENS, NULL, false);
				CHECK(dtype == RUV_Q6_K || !memcmp(alone, got, sizeof got), "%s packed %s k %d: many rows differ",
				      table->name, ruv_dtype_name((int)dtype), (int)k);
				for (int nt = 1; nt <= MAX_TOKENS; nt++) {
					bool accumulate = nt & 1, biased = nt & 2;
					for (int i = 0; i < MAX_TOKENS * MAX_ROWS; i++)
						got[i] = 1;
					table->mul_packed[dtype](got, MAX_ROWS, packed, nr, &x, nt, biased ? bias : NULL,
					                         accumulate);
					for (int i = 0; i < nt; i++)
						for (int r = 0; r <= nr; r++) {
							float w0 = r == nr ? 1
							                   : want[i * MAX_ROWS + r] + (biased ? bias[r] : 0) +
							                         (accumulate ? 1 : 0);
							CHECK(fabsf(got[i * MAX_ROWS + r] - w0) <=
							          (r == nr ? 0 : bound[i * MAX_ROWS + r]),
							      "%s packed %s k %d rows %d tokens %d: [%d, %d] %g, not %g",
							      table->name, ruv_dtype_name((int)dtype), (int)k, nr, nt, i, r,
							      (double)got[i * MAX_ROWS + r], (double)w0);
						}
				}
				free(packed);
			}
			free(w);
			free(f);
			free(bias);
		}
	free(act_memory);
	free(panel_memory);
}

static void test_quantize_act(const ruv_kernels *table, const ruv_kernels *ref, ruv_rng *rng)
{
	enum { K = 1024 };
	float *f = random_floats(rng, 3 * K, 1);
	void *m0 = check_alloc(ruv_act_bytes(3, K)), *m1 = check_alloc(ruv_act_bytes(3, K));
	ruv_act a, b;

	memset(f + 64, 0, 32 * sizeof *f);
	for (int i = 96; i < 128; i++)
		f[i] = (float)(i - 112) * 1e-35f;
	f[K] = 1e30f;
	f[K + 40] = -3e4f;
	ruv_act_place(&a, m0, 3, K);
	ruv_act_place(&b, m1, 3, K);
	a.f = b.f = f;
	for (int i = 0; i < 3; i++) {
		ref->quantize_act(&a, i);
		table->quantize_act(&b, i);
	}
	for (int i = 0; i < 3 * K; i++) {
		int g = i / 32;
		double exact = (double)f[i] / (double)(a.d[g] > 0 ? a.d[g] : 1);
		CHECK(a.q[i] == b.q[i] || fabs(fabs(exact - floor(exact)) - 0.5) < 1e-4, "%s quantize_act [%d] of %g: %d, not %d",
		      table->name, i, (double)f[i], b.q[i], a.q[i]);
	}
	for (int g = 0; g < 3 * K / 32; g++) {
		int sum = 0, half = 0;
		for (int j = 0; j < 32; j++) {
			sum += b.q[32 * g + j];
			half += j < 16 ? b.q[32 * g + j] : 0;
		}
		CHECK(fabsf(a.d[g] - b.d[g]) <= 1e-6f * a.d[g], "%s d[%d]", table->name, g);
		CHECK(b.sum[2 * g] == half && b.sum[2 * g + 1] == sum - half, "%s sum[%d]", table->name, g);
		CHECK(fabsf(b.s[g] - b.d[g] * (float)sum) <= 1e-6f * fabsf(b.s[g]), "%s s[%d]", table->name, g);
	}
	free(f);
	free(m0);
	free(m1);
}

static void compare(const char *what, const char *name, const float *got, const float *want, int64_t n, double relative,
                    double absolute)
{
	for (int64_t i = 0; i < n; i++)
		CHECK(fabs((double)got[i] - (double)want[i]) <= relative * fabs((double)want[i]) + absolute,
		      "%s %s n %d [%d]: %.9g, not %.9g", name, what, (int)n, (int)i, (double)got[i], (double)want[i]);
}

static void test_elementwise(const ruv_kernels *table, const ruv_kernels *ref, ruv_rng *rng)
{
	static const int64_t lengths[] = {1, 3, 8, 15, 16, 17, 31, 64, 100, 768, 1024, 1027};
	enum { MAX = 1032 };

	for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
		int64_t n = lengths[l];
		float *x = random_floats(rng, MAX, 2), *w = random_floats(rng, MAX, 1), *b = random_floats(rng, MAX, 1);
		float *taps = random_floats(rng, 3 * MAX, 1), *c = random_floats(rng, MAX, 1), *u = check_alloc(MAX * 4),
		      *v = check_alloc(MAX * 4);
		uint16_t h[MAX], g[MAX];

		ref->rms_norm(u, x, w, n, 1e-5f);
		table->rms_norm(v, x, w, n, 1e-5f);
		compare("rms_norm", table->name, v, u, n, 2e-6, 1e-7);
		ref->layer_norm(u, x, w, b, n, 1e-5f);
		table->layer_norm(v, x, w, b, n, 1e-5f);
		compare("layer_norm", table->name, v, u, n, 5e-6, n == 1 ? 1e-3 : 3e-6);
		x[0] = -200;
		x[n - 1] = 150;
		ref->swiglu(u, x, w, n);
		table->swiglu(v, x, w, n);
		compare("swiglu", table->name, v, u, n, 1e-6, 1e-30);
		memcpy(u, x, MAX * sizeof *u);
		memcpy(v, x, MAX * sizeof *u);
		ref->add(u, b, n);
		table->add(v, b, n);
		compare("add", table->name, v, u, MAX, 0, 0);
		ref->mul(u, x, b, n);
		table->mul(v, x, b, n);
		compare("mul", table->name, v, u, n, 0, 0);
		ref->conv3(u, c, x, w, b, taps, n);
		table->conv3(v, c, x, w, b, taps, n);
		compare("conv3", table->name, v, u, n, 1e-6, 1e-4);
		x[n / 2] = 1e-7f;
		ref->f32_to_f16(h, x, n);
		g[n] = 0x1234;
		table->f32_to_f16(g, x, n);
		CHECK(g[n] == 0x1234, "%s f32_to_f16 wrote past %d", table->name, (int)n);
		for (int i = 0; i < n; i++)
			CHECK(h[i] == g[i], "%s f32_to_f16 %g: %04x, not %04x", table->name, (double)x[i], g[i], h[i]);
		ref->f16_to_f32(u, h, n);
		table->f16_to_f32(v, h, n);
		compare("f16_to_f32", table->name, v, u, n, 0, 0);
		free(x), free(w), free(b), free(taps), free(c), free(u), free(v);
	}
}

static void test_tiles(const ruv_kernels *table, const ruv_kernels *ref, ruv_rng *rng)
{
	static const int heads[] = {16, 32, 64, 80, 96, 128, 20};
	static const ruv_dtype kv_types[] = {RUV_F32, RUV_F16, RUV_Q8_0};
	enum { TILE = RUV_KV_TILE, MAX = 128 };

	for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
		for (size_t t = 0; t < 3; t++)
			for (int n = 1; n <= TILE; n += n == 1 ? 16 : 47) {
				int dim = heads[h], ld = (dim + 15) & ~15;
				if (kv_types[t] == RUV_Q8_0 && dim % 32)
					continue;
				float *x = random_floats(rng, (size_t)(TILE * dim), 1);
				uint8_t *rows = check_alloc((size_t)TILE * ruv_dtype_row_bytes(kv_types[t], dim));
				float *u = check_alloc(TILE * MAX * 4), *v = check_alloc(TILE * MAX * 4);
				ruv_quantize_rows(rows, kv_types[t], x, TILE, dim, NULL);
				ref->load_keys(u, rows, kv_types[t], dim, n);
				table->load_keys(v, rows, kv_types[t], dim, n);
				compare("load_keys", table->name, v, u, TILE * dim, 0, 0);
				ref->load_values(u, ld, rows, kv_types[t], dim, n);
				table->load_values(v, ld, rows, kv_types[t], dim, n);
				compare("load_values", table->name, v, u, TILE * ld, 0, 0);
				for (int n_rows = 1; n_rows <= 7; n_rows++) {
					float *q = random_floats(rng, (size_t)(7 * dim), 0.2),
					      *p = random_floats(rng, 7 * TILE, 0.2);
					memset(u, 0, 7 * TILE * 4);
					memset(v, 0, 7 * TILE * 4);
					ref->keys_dot(u, q, rows, NULL, kv_types[t], n_rows, dim, n);
					table->keys_dot(v, q, rows, rows, kv_types[t], n_rows, dim, n);
					compare("keys_dot", table->name, v, u, 7 * TILE, 1e-5, 1e-5);
					for (int i = 0; i < 7 * ld; i++)
						u[i] = v[i] = (float)i;
					ref->values_add(u, ld, p, rows, NULL, kv_types[t], n_rows, dim, n);
					table->values_add(v, ld, p, rows, rows, kv_types[t], n_rows, dim, n);
					compare("values_add", table->name, v, u, 7 * ld, 1e-6, 1e-5);
					free(q), free(p);
				}
				free(x), free(rows), free(u), free(v);
			}
	for (int m = 1; m <= 17; m++)
		for (int n = 16; n <= 80; n += 16)
			for (int k = 1; k <= 64; k += 21) {
				float *a = random_floats(rng, (size_t)(m * k), 1), *b = random_floats(rng, (size_t)(k * n), 1);
				float *u = random_floats(rng, (size_t)(m * n), 1), *v = check_alloc((size_t)(m * n) * 4);
				memcpy(v, u, (size_t)(m * n) * 4);
				ref->tile_mul(u, n, a, k, b, n, m, n, k, m & 1);
				table->tile_mul(v, n, a, k, b, n, m, n, k, m & 1);
				compare("tile_mul", table->name, v, u, m * n, 1e-5, 2e-5);
				free(a), free(b), free(u), free(v);
			}
	for (int round = 0; round < 200; round++) {
		float *x = random_floats(rng, TILE, round % 7 * 3 + 0.1), u[TILE], v[TILE];
		int from = (int)ruv_rng_below(rng, TILE), to = from + 1 + (int)ruv_rng_below(rng, (uint64_t)(TILE - from));
		float max0 = round & 1 ? (float)ruv_rng_normal(rng) : -INFINITY, max1 = max0, sum0 = round & 1 ? 3 : 0, sum1 = sum0;
		memcpy(u, x, sizeof u);
		memcpy(v, x, sizeof v);
		float keep0 = ref->softmax_row(u, from, to, 0.3f, &max0, &sum0);
		float keep1 = table->softmax_row(v, from, to, 0.3f, &max1, &sum1);
		compare("softmax_row", table->name, v, u, TILE, 2e-6, 1e-30);
		CHECK(fabsf(keep0 - keep1) <= 2e-6f * keep0 && fabsf(max0 - max1) <= 1e-6f * fabsf(max0) &&
		          fabsf(sum0 - sum1) <= 3e-6f * sum0,
		      "%s softmax_row: keep %g %g, max %g %g, sum %g %g", table->name, (double)keep0, (double)keep1, (double)max0,
		      (double)max1, (double)sum0, (double)sum1);
		free(x);
	}
}

int main(int argc, char **argv)
{
	const ruv_kernels *tables[8];
	int n = ruv_kernels_all(ruv_cpu_get(), tables, 8);
	ruv_rng rng;

	quick = argc > 1 && !strcmp(argv[1], "quick");
	for (int i = 0; i < n; i++) {
		if (quick && tables[i] == &ruv_kernels_ref && n > 1)
			continue;
		int before = check_failures;
		ruv_rng_init(&rng, 7);
		test_quantize_act(tables[i], &ruv_kernels_ref, &rng);
		test_elementwise(tables[i], &ruv_kernels_ref, &rng);
		test_tiles(tables[i], &ruv_kernels_ref, &rng);
		test_products(tables[i], &ruv_kernels_ref, &rng);
		printf("%-12s %s\n", tables[i]->name, check_failures == before ? "ok" : "FAILED");
	}
	return check_result("kernels");
}
