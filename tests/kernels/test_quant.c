/* test_quant.c - dequantization bit by bit against golden rows, quantization errors against recorded ones, and odd input.
 *
 * tests/data/kernels: dequantized.bin holds, per row, u32 type, u32 elements, u32 bytes, the blocks, and the F32 values that
 * llama.cpp (3f545bec) makes of them: one quantized row and one of random bytes for each type. weights.bf16 [8, 768] and
 * importance.f32 [768] are what the errors below were measured on, unweighted and weighted. */
#include "check.h"

#include "tensor/half.h"
#include "tensor/quant.h"

static uint8_t *read_file(const char *name, size_t *n)
{
	char path[1024];
	uint8_t *data = check_alloc(1 << 20);
	FILE *f;

	snprintf(path, sizeof path, "%s/kernels/%s", RUV_TEST_DATA, name);
	f = fopen(path, "rb");
	if (!f) {
		fprintf(stderr, "cannot open %s\n", path);
		exit(1);
	}
	*n = fread(data, 1, 1 << 20, f);
	fclose(f);
	return data;
}

static void test_golden(void)
{
	size_t n, at = 4;
	uint8_t *data = read_file("dequantized.bin", &n);
	uint32_t n_rows, head[3];

	memcpy(&n_rows, data, 4);
	for (uint32_t r = 0; r < n_rows; r++) {
		float got[1024];
		int wrong = 0;
		memcpy(head, data + at, 12);
		at += 12;
		CHECK(ruv_dequantize_row(got, (ruv_dtype)head[0], data + at, head[1]) == 0, "dequantize %s",
		      ruv_dtype_name((int)head[0]));
		at += head[2];
		for (uint32_t i = 0; i < head[1]; i++, at += 4) {
			float want;
			memcpy(&want, data + at, 4);
			wrong += ruv_f32_bits(want) != ruv_f32_bits(got[i]) && !(isnan(want) && isnan(got[i]));
		}
		CHECK(wrong == 0, "%s row %u: %d of %u values differ", ruv_dtype_name((int)head[0]), r, wrong, head[1]);
	}
	CHECK(at == n && n_rows == 19, "golden file read to %zu of %zu", at, n);
	free(data);
}

static double error_of(ruv_dtype dtype, const float *x, int64_t n_rows, int64_t k, const float *importance)
{
	size_t row_bytes = ruv_dtype_row_bytes(dtype, k);
	uint8_t *blocks = check_alloc((size_t)n_rows * row_bytes);
	float *values = check_alloc((size_t)k * sizeof *values);
	double sum = 0;

	CHECK(ruv_quantize_rows(blocks, dtype, x, n_rows, k, importance) == 0, "quantize %s", ruv_dtype_name((int)dtype));
	for (int64_t r = 0; r < n_rows; r++) {
		ruv_dequantize_row(values, dtype, blocks + (size_t)r * row_bytes, k);
		for (int64_t i = 0; i < k; i++) {
			double e = (double)values[i] - (double)x[r * k + i];
			sum += e * e * (importance ? (double)importance[i] : 1);
		}
	}
	free(blocks);
	free(values);
	return sqrt(sum / (double)(n_rows * k));
}

static void test_errors(void)
{
	/* llama.cpp's errors: plain, and weighted with the importance that it was given. Ours must not be larger. */
	static const struct {
		ruv_dtype dtype;
		double plain, weighted;
	} rows[] = {
	    {RUV_Q4_0, 4.581080e-03, 5.312982e-03}, {RUV_Q4_1, 4.229393e-03, 4.492008e-03}, {RUV_Q5_0, 2.267899e-03, 2.617007e-03},
	    {RUV_Q5_1, 2.045263e-03, 2.158611e-03}, {RUV_Q8_0, 2.870531e-04, 3.667398e-04}, {RUV_Q4_K, 3.860274e-03, 4.555089e-03},
	    {RUV_Q5_K, 1.959742e-03, 2.273445e-03}, {RUV_Q6_K, 9.460017e-04, 1.111241e-03},
	};
	enum { ROWS = 8, K = 768 };
	size_t n;
	uint8_t *raw = read_file("weights.bf16", &n), *imp = read_file("importance.f32", &n);
	float x[ROWS * K], importance[K];

	ruv_dequantize_row(x, RUV_BF16, raw, ROWS * K);
	memcpy(importance, imp, sizeof importance);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		double plain = error_of(rows[i].dtype, x, ROWS, K, NULL),
		       weighted = error_of(rows[i].dtype, x, ROWS, K, importance);
		CHECK(plain <= rows[i].plain, "%s error %g, llama.cpp %g", ruv_dtype_name((int)rows[i].dtype), plain,
		      rows[i].plain);
		CHECK(weighted <= rows[i].weighted, "%s weighted error %g, llama.cpp %g", ruv_dtype_name((int)rows[i].dtype),
		      weighted, rows[i].weighted);
	}
	free(raw);
	free(imp);
}

/* Shapes that searches trip over: constants, zeros, one outlier, tiny and huge values, one sign. */
static void test_odd_blocks(void)
{
	static const ruv_dtype types[] = {RUV_F32,  RUV_F16,  RUV_BF16, RUV_Q4_0, RUV_Q4_1, RUV_Q5_0,
	                                  RUV_Q5_1, RUV_Q8_0, RUV_Q4_K, RUV_Q5_K, RUV_Q6_K};
	enum { K = 256, SHAPES = 9 };
	ruv_rng rng;

	ruv_rng_init(&rng, 3);
	for (size_t t = 0; t < sizeof types / sizeof *types; t++)
		for (int shape = 0; shape < SHAPES; shape++) {
			float x[K], y[K], zero[K] = {0}, max = 0;
			uint8_t blocks[K * 4];
			for (int i = 0; i < K; i++) {
				float v = (float)ruv_rng_normal(&rng);
				x[i] = shape == 0   ? 0
				       : shape == 1 ? 0.5f
				       : shape == 2 ? -3
				       : shape == 3 ? (i == 77 ? 100 : v)
				       : shape == 4 ? v * 1e-6f
				       : shape == 5 ? v * 1000
				       : shape == 6 ? fabsf(v)
				       : shape == 7 ? -fabsf(v)
				                    : (i % 64 < 32 ? 0 : v);
				max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
			}
			for (int with = 0; with < 2; with++) {
				CHECK(ruv_quantize_rows(blocks, types[t], x, 1, K, with ? zero : NULL) == 0, "quantize");
				ruv_dequantize_row(y, types[t], blocks, K);
				for (int i = 0; i < K; i++) {
					/* Coarsest type: a step is an eighth of the largest magnitude, and search may clip a
					 * little; values near the smallest f16 scale lose more. */
					float step = types[t] == RUV_F32    ? 0
					             : types[t] == RUV_F16  ? max / 1000 + 1e-7f
					             : types[t] == RUV_BF16 ? max / 128
					                                    : max / 4;
					CHECK(fabsf(y[i] - x[i]) <= step + (shape == 4 ? 4e-6f : 0),
					      "%s shape %d [%d]: %g became %g", ruv_dtype_name((int)types[t]), shape, i,
					      (double)x[i], (double)y[i]);
				}
			}
		}
	float bad[32] = {[5] = NAN};
	uint8_t out[64];
	CHECK(ruv_quantize_rows(out, RUV_Q8_0, bad, 1, 32, NULL) == RUV_EFORMAT, "NaN");
	bad[5] = INFINITY;
	CHECK(ruv_quantize_rows(out, RUV_F16, bad, 1, 32, NULL) == RUV_EFORMAT, "infinity");
	bad[5] = 0;
	CHECK(ruv_quantize_rows(out, RUV_Q4_K, bad, 1, 32, NULL) == RUV_EINVAL, "32 elements of Q4_K");
	CHECK(ruv_quantize_rows(out, RUV_I8, bad, 1, 32, NULL) == RUV_EUNSUPPORTED, "I8");
	CHECK(ruv_dequantize_row(bad, RUV_Q8_0, out, 33) == RUV_EINVAL, "33 elements of Q8_0");
	CHECK(!ruv_dtype_quantizable(7777) && ruv_dtype_quantizable(RUV_Q6_K) && !ruv_dtype_quantizable(RUV_I32), "quantizable");
}

/* Every f16 there is, and roundings half way between two. */
static void test_half(void)
{
	for (uint32_t h = 0; h < 65536; h++) {
		float f = ruv_f16_to_f32((uint16_t)h), b = ruv_bf16_to_f32((uint16_t)h);
		if (!isnan(f))
			CHECK(ruv_f32_to_f16(f) == h, "f16 %04x -> %g -> %04x", h, (double)f, ruv_f32_to_f16(f));
		if (!isnan(b))
			CHECK(ruv_f32_to_bf16(b) == h, "bf16 %04x", h);
		if (h < 0x7bff) { /* a tie goes to the even one, a little more goes up */
			float next = ruv_f16_to_f32((uint16_t)(h + 1)), middle = f + (next - f) / 2;
			CHECK(ruv_f32_to_f16(middle) == (h & 1 ? h + 1 : h), "tie above f16 %04x", h);
			CHECK(ruv_f32_to_f16(nextafterf(middle, INFINITY)) == h + 1, "above the tie of %04x", h);
		}
	}
	CHECK(ruv_f32_to_f16(65519.0f) == 0x7bff && ruv_f32_to_f16(65520.0f) == 0x7c00 && ruv_f32_to_f16(-1e30f) == 0xfc00,
	      "f16 overflow");
	CHECK(isnan(ruv_f16_to_f32(ruv_f32_to_f16(NAN))) && isnan(ruv_bf16_to_f32(ruv_f32_to_bf16(NAN))), "NaN");
	CHECK(ruv_f32_to_bf16(ruv_f32_from_bits(0x3f808000)) == 0x3f80 && ruv_f32_to_bf16(ruv_f32_from_bits(0x3f818000)) == 0x3f82,
	      "bf16 ties");
}

static void test_dtypes(void)
{
	CHECK(ruv_dtype_parse("q4_k") == RUV_Q4_K && ruv_dtype_parse("bf16") == RUV_BF16 && ruv_dtype_parse("q9") == -1, "parse");
	CHECK(!strcmp(ruv_dtype_name(RUV_Q6_K), "Q6_K") && !strcmp(ruv_dtype_name(99), "type 99") &&
	          !strcmp(ruv_dtype_name(-1), "type -1"),
	      "name");
	CHECK(ruv_dtype_row_bytes(RUV_Q4_K, 512) == 288 && ruv_dtype_row_bytes(RUV_Q4_K, 300) == 0 &&
	          ruv_dtype_row_bytes(RUV_F32, -1) == 0,
	      "row bytes");
	CHECK(!ruv_dtype_known(4) && !ruv_dtype_known(-1) && !ruv_dtype_known(31) && ruv_dtype_known(30), "known");
}

int main(void)
{
	test_dtypes();
	test_half();
	test_golden();
	test_errors();
	test_odd_blocks();
	return check_result("quant");
}
