/* replay.c - the reservoir. Invariant: items[0..n) is a uniform sample without replacement of the n_seen examples offered. */
#include "learn/replay.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static const char where[] = "replay";

void ruv_example_release(ruv_example *example)
{
	free(example->tokens);
	free(example->weight);
	*example = (ruv_example){0};
}

int ruv_example_copy(ruv_example *to, const ruv_example *from, ruv_error *err)
{
	const size_t n = (size_t)from->n;
	ruv_example copy = *from;
	copy.tokens = malloc((n + 1) * sizeof *copy.tokens);
	copy.weight = malloc((n + 1) * sizeof *copy.weight);
	if (!copy.tokens || !copy.weight) {
		free(copy.tokens);
		free(copy.weight);
		return ruv_fail_memory(err, where, n * 8);
	}
	memcpy(copy.tokens, from->tokens, n * sizeof *copy.tokens);
	memcpy(copy.weight, from->weight, n * sizeof *copy.weight);
	*to = copy;
	return RUV_OK;
}

ruv_train_seq ruv_example_seq(const ruv_example *example)
{
	return (ruv_train_seq){.tokens = example->tokens, .n = example->n, .weight = example->weight};
}

int ruv_replay_create(ruv_replay **out, int capacity, uint64_t seed, ruv_error *err)
{
	*out = NULL;
	if (capacity < 1)
		return ruv_fail(err, RUV_EINVAL, where, "a capacity of %d", capacity);
	ruv_replay *r = calloc(1, sizeof *r);
	if (r)
		r->items = calloc((size_t)capacity, sizeof *r->items);
	if (!r || !r->items) {
		free(r);
		return ruv_fail_memory(err, where, (size_t)capacity * sizeof(ruv_example));
	}
	r->cap = capacity;
	ruv_rng_init(&r->rng, seed);
	*out = r;
	return RUV_OK;
}

void ruv_replay_free(ruv_replay *r)
{
	if (!r)
		return;
	for (int i = 0; i < r->n; i++)
		ruv_example_release(&r->items[i]);
	free(r->items);
	free(r);
}

int ruv_replay_offer(ruv_replay *r, const ruv_example *example, ruv_error *err)
{
	int64_t at = r->n;
	if (r->n == r->cap)
		at = (int64_t)ruv_rng_below(&r->rng, (uint64_t)r->n_seen + 1);
	if (at < r->cap) {
		ruv_example copy;
		int rc = ruv_example_copy(&copy, example, err);
		if (rc)
			return rc;
		if (r->n == r->cap)
			ruv_example_release(&r->items[at]);
		else
			r->n++;
		r->items[at] = copy;
	}
	r->n_seen++;
	return RUV_OK;
}

const ruv_example *ruv_replay_draw(ruv_replay *r)
{
	return r->n ? &r->items[ruv_rng_below(&r->rng, (uint64_t)r->n)] : NULL;
}

int ruv_replay_count(const ruv_replay *r, int task)
{
	int n = 0;
	for (int i = 0; i < r->n; i++)
		n += r->items[i].task == task;
	return n;
}
