/* rng.h - a small seeded generator: xoshiro256** (Blackman & Vigna 2018), seeded through splitmix64.
 *
 * The same seed gives the same numbers on every machine. Not for secrets. Threads: one generator, one thread. Layer: base. */
#ifndef RUV_BASE_RNG_H
#define RUV_BASE_RNG_H

#include <stdint.h>

typedef struct ruv_rng {
	uint64_t s[4];
} ruv_rng;

void ruv_rng_init(ruv_rng *rng, uint64_t seed);
uint64_t ruv_rng_u64(ruv_rng *rng);
/* Uniform in [0, 1), 53 random bits. */
double ruv_rng_double(ruv_rng *rng);
/* Uniform in [0, n), n > 0, without modulo bias. */
uint64_t ruv_rng_below(ruv_rng *rng, uint64_t n);
/* Standard normal. */
double ruv_rng_normal(ruv_rng *rng);
/* A seed that differs from call to call (time, process, address). */
uint64_t ruv_rng_entropy(void);

#endif
