/* rng.c - xoshiro256**; see rng.h. */
#include "base/rng.h"

#include <math.h>
#include <sys/random.h>

#include "base/clock.h"

static uint64_t rotl(uint64_t x, int k)
{
	return x << k | x >> (64 - k);
}

void ruv_rng_init(ruv_rng *rng, uint64_t seed)
{
	for (int i = 0; i < 4; i++) {
		uint64_t z = seed += 0x9e3779b97f4a7c15u;
		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
		z = (z ^ z >> 27) * 0x94d049bb133111ebu;
		rng->s[i] = z ^ z >> 31;
	}
}

uint64_t ruv_rng_u64(ruv_rng *rng)
{
	uint64_t *s = rng->s;
	uint64_t result = rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

double ruv_rng_double(ruv_rng *rng)
{
	return (double)(ruv_rng_u64(rng) >> 11) * 0x1p-53;
}

uint64_t ruv_rng_below(ruv_rng *rng, uint64_t n)
{
	uint64_t limit = -n % n; /* values below it would favour small results */
	uint64_t x;
	do
		x = ruv_rng_u64(rng);
	while (x < limit);
	return x % n;
}

double ruv_rng_normal(ruv_rng *rng)
{
	double u = 1.0 - ruv_rng_double(rng); /* (0, 1]: its logarithm is finite */
	double v = ruv_rng_double(rng);
	return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

uint64_t ruv_rng_entropy(void)
{
	uint64_t seed;
	if (getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed)
		return seed;
	return (uint64_t)ruv_clock_now_ns() ^ (uint64_t)(uintptr_t)&seed;
}
