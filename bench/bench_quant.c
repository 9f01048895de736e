/* bench_quant.c - how much of a model's weights each quantized type loses, as a table in Markdown.
 *
 *     bench_quant MODEL.gguf [--ggml libggml-base.so] [--rows N]
 *
 * MODEL holds F32, F16 or BF16 weights. Every matrix (norms and convolution taps excepted) is quantized and brought back; the table
 * gives the root mean square error relative to that of the weights, without and with importance (log-normal per column, fixed seed,
 * weighting the error as well). With --ggml the same is done by that library, loaded at run time, for comparison. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "format/gguf.h"
#include "tensor/quant.h"

typedef size_t ggml_quantize_fn(int type, const float *src, void *dst, int64_t start, int64_t n_rows, int64_t n_in,
                                const float *imatrix);

struct sums {
	double error, seconds;
};

static ggml_quantize_fn *ggml_quantize;

/* Adds the weighted squared error of x after quantization by us or by ggml. */
static void add_error(struct sums *sums, bool ggml, ruv_dtype dtype, const float *x, int64_t n_rows, int64_t n_in,
                      const float *importance, void *blocks, float *row)
{
	size_t row_bytes = ruv_dtype_row_bytes(dtype, n_in);
	int64_t t0 = ruv_clock_now_ns();

	if (ggml)
		ggml_quantize((int)dtype, x, blocks, 0, n_rows, n_in, importance);
	else
		ruv_quantize_rows(blocks, dtype, x, n_rows, n_in, importance);
	sums->seconds += (double)(ruv_clock_now_ns() - t0) * 1e-9;
	for (int64_t r = 0; r < n_rows; r++) {
		ruv_dequantize_row(row, dtype, (const uint8_t *)blocks + (size_t)r * row_bytes, n_in);
		for (int64_t i = 0; i < n_in; i++) {
			double e = (double)row[i] - (double)x[r * n_in + i];
			sums->error += e * e * (importance ? (double)importance[i] : 1);
		}
	}
}

int main(int argc, char **argv)
{
	static const ruv_dtype types[] = {RUV_Q4_0, RUV_Q4_1, RUV_Q5_0, RUV_Q5_1, RUV_Q8_0, RUV_Q4_K, RUV_Q5_K, RUV_Q6_K};
	enum { N_TYPES = sizeof types / sizeof *types };
	struct sums ours[N_TYPES][2] = {0}, theirs[N_TYPES][2] = {0};
	const char *path = NULL, *library = NULL;
	int64_t max_rows = 1024, n_elements = 0;
	double square[2] = {0};
	ruv_gguf *gguf = NULL;
	ruv_error err = {0};
	ruv_rng rng;

	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--ggml") && i + 1 < argc)
			library = argv[++i];
		else if (!strcmp(argv[i], "--rows") && i + 1 < argc)
			max_rows = atoll(argv[++i]);
		else
			path = argv[i];
	if (!path || max_rows <= 0) {
		fprintf(stderr, "usage: bench_quant MODEL.gguf [--ggml libggml-base.so] [--rows N]\n");
		return 2;
	}
	if (library) {
		void *handle = dlopen(library, RTLD_NOW);
		if (handle)
			*(void **)&ggml_quantize = dlsym(handle, "ggml_quantize_chunk");
		if (!ggml_quantize) {
			fprintf(stderr, "bench_quant: %s\n", dlerror());
			return 1;
		}
	}
	if (ruv_gguf_open(&gguf, path, 0, &err)) {
		fprintf(stderr, "bench_quant: %s\n", err.message);
		return 1;
	}
	ruv_rng_init(&rng, 1);
	for (size_t t = 0; t < ruv_gguf_n_tensors(gguf); t++) {
		const ruv_gguf_tensor *tensor = ruv_gguf_tensor_at(gguf, t);
		int64_t n_in = tensor->ne[0], n_rows = tensor->ne[1] < max_rows ? tensor->ne[1] : max_rows;
		size_t row_bytes = ruv_dtype_row_bytes((ruv_dtype)tensor->dtype, n_in);
		if (tensor->n_dims != 2 || n_in % 256 || strstr(tensor->name, "norm") || strstr(tensor->name, "shortconv.conv"))
			continue;
		if (tensor->dtype != RUV_F32 && tensor->dtype != RUV_F16 && tensor->dtype != RUV_BF16) {
			fprintf(stderr, "bench_quant: %s is %s already\n", tensor->name, ruv_dtype_name(tensor->dtype));
			return 1;
		}
		float *x = malloc((size_t)(n_rows * n_in) * sizeof *x), *row = malloc((size_t)n_in * sizeof *row);
		float *importance = malloc((size_t)n_in * sizeof *importance);
		void *blocks = malloc((size_t)(n_rows * n_in) * 2);
		if (!x || !row || !importance || !blocks) {
			fprintf(stderr, "bench_quant: out of memory\n");
			return 1;
		}
		for (int64_t i = 0; i < n_in; i++)
			importance[i] = (float)exp(ruv_rng_normal(&rng));
		for (int64_t r = 0; r < n_rows; r++)
			ruv_dequantize_row(x + r * n_in, (ruv_dtype)tensor->dtype,
			                   (const uint8_t *)tensor->data + (size_t)r * row_bytes, n_in);
		for (int64_t i = 0; i < n_rows * n_in; i++) {
			square[0] += (double)x[i] * (double)x[i];
			square[1] += (double)x[i] * (double)x[i] * (double)importance[i % n_in];
		}
		n_elements += n_rows * n_in;
		for (int i = 0; i < N_TYPES; i++)
			for (int with = 0; with < 2; with++) {
				add_error(&ours[i][with], false, types[i], x, n_rows, n_in, with ? importance : NULL, blocks, row);
				if (library)
					add_error(&theirs[i][with], true, types[i], x, n_rows, n_in, with ? importance : NULL,
					          blocks, row);
			}
		free(x), free(row), free(importance), free(blocks);
	}
	ruv_gguf_free(gguf);
	printf("%s, %.1f M weights\n\n", path, (double)n_elements / 1e6);
	printf("| type | bits | error %% | with importance %% |%s M weights/s |\n|---|---|---|---|%s---|\n",
	       library ? " ggml % | ggml, importance % | ratio | ratio, importance |" : "", library ? "---|---|---|---|" : "");
	for (int i = 0; i < N_TYPES && n_elements; i++) {
		double e[2], g[2];
		for (int with = 0; with < 2; with++) {
			e[with] = 100 * sqrt(ours[i][with].error / square[with]);
			g[with] = 100 * sqrt(theirs[i][with].error / square[with]);
		}
		printf("| %s | %.4g | %.4f | %.4f |", ruv_dtype_name((int)types[i]),
		       8.0 * ruv_dtype_block_bytes(types[i]) / ruv_dtype_block_elements(types[i]), e[0], e[1]);
		if (library)
			printf(" %.4f | %.4f | %.4f | %.4f |", g[0], g[1], e[0] / g[0], e[1] / g[1]);
		printf(" %.1f |\n", (double)n_elements / 1e6 / ours[i][0].seconds);
	}
	return 0;
}
