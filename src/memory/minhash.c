/* minhash.c - see minhash.h.
 *
 * The i-th number is the least of h_i over the shingles, with h_i(x) = high 32 bits of a_i * x + b_i (odd a_i, 64-bit wrap-around:
 * multiply-shift, 2-universal) of the shingle's 64-bit hash. The constants come from a fixed seed: signatures of any run compare.
 * Layer: memory. */
#include "memory/minhash.h"

#include <pthread.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"

static uint64_t a[RUV_MINHASH_SIZE], b[RUV_MINHASH_SIZE];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_constants(void)
{
	ruv_rng rng;

	ruv_rng_init(&rng, 0x6d696e68617368);
	for (int i = 0; i < RUV_MINHASH_SIZE; i++) {
		a[i] = ruv_rng_u64(&rng) | 1;
		b[i] = ruv_rng_u64(&rng);
	}
}

static void add(ruv_minhash *out, const char *shingle, size_t n)
{
	uint64_t x = ruv_hash64(shingle, n, 0);

	for (int i = 0; i < RUV_MINHASH_SIZE; i++) {
		uint32_t h = (uint32_t)((a[i] * x + b[i]) >> 32);
		if (h < out->least[i])
			out->least[i] = h;
	}
}

void ruv_minhash_text(ruv_minhash *out, const char *text, size_t n)
{
	char window[RUV_MINHASH_SHINGLE];
	size_t have = 0;
	bool space = false, any = false;

	pthread_once(&once, make_constants);
	memset(out->least, 0xff, sizeof out->least);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];
		char put[2];
		int n_put = 0;
		if (c >= 'A' && c <= 'Z')
			c += 'a' - 'A';
		if (c < 0x80 && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9')) {
			space = any;
			continue;
		}
		if (space)
			put[n_put++] = ' ';
		space = false;
		any = true;
		put[n_put++] = (char)c;
		for (int j = 0; j < n_put; j++) {
			if (have == sizeof window)
				memmove(window, window + 1, --have);
			window[have++] = put[j];
			if (have == sizeof window)
				add(out, window, have);
		}
	}
	if (have && have < sizeof window)
		add(out, window, have);
}

float ruv_minhash_similarity(const ruv_minhash *x, const ruv_minhash *y)
{
	int same = 0;

	for (int i = 0; i < RUV_MINHASH_SIZE; i++)
		same += x->least[i] == y->least[i];
	return (float)same / RUV_MINHASH_SIZE;
}
