/* test_mutations.c - takes the good inputs of the corpora, damages them in a reproducible way, and demands of every one a clear
 * error or a proper load. RUV_MUTATIONS sets another number of inputs a target. The sanitizer build of the same test shows reads
 * beyond the end, overflows and leaks. */
#include "test.h"

#include <dirent.h>

#include "base/file.h"
#include "base/rng.h"
#include "targets.h"

enum { PER_TARGET = 60, MAX_SEEDS = 64, MAX_BYTES = 1 << 21 };

typedef struct seed {
	uint8_t *data;
	size_t n;
} seed;

static int load_seeds(const char *name, seed *seeds)
{
	char path[512];
	int n = 0;
	DIR *d;

	snprintf(path, sizeof path, "%s/tests/fuzz/corpus/%s", RUV_SOURCE_DIR, name);
	d = opendir(path);
	assert_non_null(d);
	/* Directory order differs between machines: the seeds are taken by number. */
	char names[MAX_SEEDS][256];
	for (struct dirent *e; (e = readdir(d)) && n < MAX_SEEDS;)
		if (!strncmp(e->d_name, "ok-", 3))
			snprintf(names[n++], sizeof names[0], "%s", e->d_name);
	closedir(d);
	qsort(names, (size_t)n, sizeof names[0], (int (*)(const void *, const void *))strcmp);
	for (int i = 0; i < n; i++) {
		ruv_error err = {0};
		char *bytes;
		snprintf(path, sizeof path, "%s/tests/fuzz/corpus/%s/%.250s", RUV_SOURCE_DIR, name, names[i]);
		assert_ok(ruv_file_read(&bytes, &seeds[i].n, path, MAX_BYTES, &err), err);
		seeds[i].data = (uint8_t *)bytes;
	}
	return n;
}

/* Damages a copy: flipped bits, extreme numbers, pieces cut, doubled, moved, or taken from another seed. */
static uint8_t *mutate(ruv_rng *rng, const seed *from, const seed *other, bool head_only, size_t *n_out)
{
	static const uint64_t extremes[] = {0,
	                                    1,
	                                    0x7f,
	                                    0x80,
	                                    0xff,
	                                    0x7fff,
	                                    0xffff,
	                                    0x7fffffff,
	                                    0x80000000,
	                                    0xffffffff,
	                                    0x7fffffffffffffff,
	                                    0x8000000000000000,
	                                    0xffffffffffffffff,
	                                    1ull << 40};
	size_t cap = from->n + other->n + 64, n = from->n;
	uint8_t *p = malloc(cap);
	int times = 1 + (int)ruv_rng_below(rng, 4);

	memcpy(p, from->data, n);
	for (int i = 0; i < times && n; i++) {
		/* The tables at a file's beginning are what a parser reads; its data is only carried along. */
		size_t area = head_only && ruv_rng_below(rng, 8) && n > 4096 ? 4096 : n;
		size_t at = (size_t)ruv_rng_below(rng, area), len = 1 + (size_t)ruv_rng_below(rng, 32);
		uint64_t extreme = extremes[ruv_rng_below(rng, sizeof extremes / sizeof *extremes)];
		size_t width = (size_t)1 << ruv_rng_below(rng, 4);
		if (len > n - at)
			len = n - at;
		switch (ruv_rng_below(rng, 7)) {
		case 0: /* one bit */
			p[at] ^= (uint8_t)(1 << ruv_rng_below(rng, 8));
			break;
		case 1: /* one byte */
			p[at] = (uint8_t)ruv_rng_u64(rng);
			break;
		case 2: /* a number */
			if (width > n - at)
				width = n - at;
			memcpy(p + at, &extreme, width);
			break;
		case 3: /* the end is missing */
			n = at;
			break;
		case 4: /* a piece is missing */
			memmove(p + at, p + at + len, n - at - len);
			n -= len;
			break;
		case 5: /* a piece twice */
			if (n + len <= cap) {
				memmove(p + at + len, p + at, n - at);
				n += len;
			}
			break;
		default: /* a piece of another input */
			if (other->n) {
				size_t start = (size_t)ruv_rng_below(rng, other->n);
				if (len > other->n - start)
					len = other->n - start;
				memcpy(p + at, other->data + start, len);
			}
		}
	}
	uint8_t *exact = malloc(n ? n : 1);
	memcpy(exact, p, n);
	free(p);
	*n_out = n;
	return exact;
}

static void damaged_inputs_end_in_a_clear_error_or_load(void **state)
{
	ruv_rng rng;
	int total = 0, refused = 0, per_target = getenv("RUV_MUTATIONS") ? atoi(getenv("RUV_MUTATIONS")) : PER_TARGET;
	(void)state;

	ruv_rng_init(&rng, 20261123);
	for (int i = 0; fuzz_name_at(i); i++) {
		const char *name = fuzz_name_at(i);
		bool binary = !strcmp(name, "gguf") || !strcmp(name, "model") || !strcmp(name, "safetensors") ||
		              !strcmp(name, "imatrix") || !strcmp(name, "adapter");
		seed seeds[MAX_SEEDS];
		int n_seeds = load_seeds(name, seeds), n_refused = 0;
		assert_true(n_seeds > 0);
		for (int k = 0; k < per_target; k++) {
			ruv_error err = {0};
			size_t n;
			uint8_t *data =
			    mutate(&rng, &seeds[k % n_seeds], &seeds[ruv_rng_below(&rng, (uint64_t)n_seeds)], binary, &n);
			int rc = fuzz_run(name, data, n, &err); /* aborts on an error without words */
			n_refused += rc != 0;
			/* Words, and more than the code's own name. */
			if (rc && strlen(err.message) < 8)
				fail_msg("%s: '%s' says nothing", name, err.message);
			free(data);
		}
		print_message("%-12s %d damaged inputs: %d refused, %d still valid\n", name, per_target, n_refused,
		              per_target - n_refused);
		total += per_target;
		refused += n_refused;
		for (int k = 0; k < n_seeds; k++)
			free(seeds[k].data);
	}
	print_message("%d in all, %d refused with a reason\n", total, refused);
	assert_true(total >= 200);
	assert_true(refused > total / 4); /* or the damage was too gentle to test anything */
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(damaged_inputs_end_in_a_clear_error_or_load)};
	return cmocka_run_group_tests_name("mutations", tests, NULL, NULL);
}
