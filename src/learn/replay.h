/* replay.h - examples kept for training again: a reservoir, so that whatever was seen has had the same chance to stay.
 *
 * Vitter 1985, algorithm R. Threads: one at a time. Layer: learn. */
#ifndef RUV_LEARN_REPLAY_H
#define RUV_LEARN_REPLAY_H

#include "base/rng.h"
#include "model/backward.h"

/* One example in tokens; see ruv_train_seq. */
typedef struct ruv_example {
	ruv_token *tokens; /* [n] */
	float *weight;     /* [n]; the sum is 1 */
	int n, task;
	int free_from, n_free; /* tokens that training may leave out (words of the question); 0: none */
	float difficulty;      /* curriculum.h */
	int64_t key;           /* the caller's */
} ruv_example;

void ruv_example_release(ruv_example *example);
int ruv_example_copy(ruv_example *to, const ruv_example *from, ruv_error *err);
ruv_train_seq ruv_example_seq(const ruv_example *example);

typedef struct ruv_replay {
	ruv_example *items; /* [n] */
	int n, cap;
	int64_t n_seen;
	ruv_rng rng;
} ruv_replay;

int ruv_replay_create(ruv_replay **out, int capacity, uint64_t seed, ruv_error *err);
void ruv_replay_free(ruv_replay *replay);
/* Copies the example in, or passes it by. */
int ruv_replay_offer(ruv_replay *replay, const ruv_example *example, ruv_error *err);
/* One at random, NULL when there is none. Belongs to the replay. */
const ruv_example *ruv_replay_draw(ruv_replay *replay);
/* How many of a task are held. */
int ruv_replay_count(const ruv_replay *replay, int task);

#endif
