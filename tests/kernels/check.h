/* check.h - the few lines of harness that the kernel tests need, without cmocka: they are also cross-compiled for other processors.
 * A failed check prints where and with which values, and the program ends with 1 after all checks have run. */
#ifndef RUV_TESTS_KERNELS_CHECK_H
#define RUV_TESTS_KERNELS_CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

static int check_failures, check_count;

#define CHECK(condition, ...)                                                                                                      \
	do {                                                                                                                       \
		check_count++;                                                                                                     \
		if (!(condition) && ++check_failures <= 40) {                                                                      \
			fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                                            \
			fprintf(stderr, __VA_ARGS__);                                                                              \
			fputc('\n', stderr);                                                                                       \
		}                                                                                                                  \
	} while (0)

static inline int check_result(const char *name)
{
	printf("%s: %d checks, %d failures\n", name, check_count, check_failures);
	return check_failures ? 1 : 0;
}

static inline void *check_alloc(size_t n_bytes)
{
	void *p = aligned_alloc(64, (n_bytes + 127) & ~(size_t)63);
	if (!p) {
		fprintf(stderr, "out of memory (%zu bytes)\n", n_bytes);
		exit(1);
	}
	return p;
}

static inline float *random_floats(ruv_rng *rng, size_t n, double scale)
{
	float *x = check_alloc(n * sizeof *x);
	for (size_t i = 0; i < n; i++)
		x[i] = (float)(ruv_rng_normal(rng) * scale);
	return x;
}

#endif
