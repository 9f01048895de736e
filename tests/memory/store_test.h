/* store_test.h - a fresh directory per test, seeded vectors, and short forms for the memory's tests. */
#ifndef RUV_TESTS_STORE_TEST_H
#define RUV_TESTS_STORE_TEST_H

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

#include "base/rng.h"
#include "ruvllm/memory.h"

enum { TEST_DIM = 24 };

static inline int rm_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static inline void remove_tree(const char *dir)
{
	nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* cmocka setup and teardown: *state is the directory's name. */
static inline int make_dir(void **state)
{
	const char *base = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
	char *dir = malloc(strlen(base) + 32);

	sprintf(dir, "%s/ruv-memory-XXXXXX", base);
	*state = mkdtemp(dir);
	return *state ? 0 : -1;
}

static inline int drop_dir(void **state)
{
	remove_tree(*state);
	free(*state);
	return 0;
}

static inline void random_vector(float *v, int n, ruv_rng *rng)
{
	for (int i = 0; i < n; i++)
		v[i] = (float)ruv_rng_normal(rng);
}

static inline ruv_memory *open_memory(const char *dir)
{
	ruv_memory_options o = {.embedder_id = "test-embedder", .embedder_version = "1", .dimension = TEST_DIM, .create = true};
	ruv_error err = {0};
	ruv_memory *m = NULL;

	assert_ok(ruv_memory_open(&m, dir, &o, &err), err);
	return m;
}

/* Adds one Fact; id may be NULL. */
static inline void add_fact(ruv_memory *m, const char *text, const float *vector, char id[RUV_ID_SIZE])
{
	ruv_memory_node node = {.type = RUV_NODE_FACT, .text = text, .vector = vector};
	ruv_error err = {0};

	assert_ok(ruv_memory_add(m, &node, 1, &err), err);
	if (id)
		memcpy(id, node.id, RUV_ID_SIZE);
}

#endif
