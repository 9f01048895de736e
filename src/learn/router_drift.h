/* router_drift.h - an experiment: what keeps the router's network from forgetting while its stream of questions drifts.
 *
 * The articles of collected outcomes are dealt into tasks that come one after the other, and in each task the tiers have changed
 * places: whose outcome is whose is rotated, so that what was right in one task is wrong in the next, and only the features tell
 * them apart. The first task is learned, then N updates follow on the others, and the first task is examined before and after, on
 * the questions that were learned and on others that never were trained on. Protections: a reservoir of earlier questions trained
 * along (replay.h's algorithm), online EWC (ewc.h), both, or none. Threads: one. Layer: learn. */
#ifndef RUV_LEARN_ROUTER_DRIFT_H
#define RUV_LEARN_ROUTER_DRIFT_H

#include "learn/train_router.h"

enum { RUV_DRIFT_MAX_TASKS = 8, RUV_N_DRIFT_PROTECTIONS = 4 };

/* Zeros take the value in brackets. */
typedef struct ruv_drift_options {
	int n_tasks;     /* 2..RUV_DRIFT_MAX_TASKS [4] */
	int n_updates;   /* after the first task [10000] */
	int n_reservoir; /* questions kept for replay [512] */
	double ewc;      /* lambda [3] */
	uint64_t seed;
	bool (*progress)(void *user, int n_done, int n_total); /* false: stop */
	void *user;
} ruv_drift_options;

typedef struct ruv_drift_result {
	const char *protection;         /* "none", "replay", "ewc", "both" */
	double old_before, old_after;   /* of the first task's learned questions the share with a tier as good as the best, 0..1 */
	double held_before, held_after; /* the same of its held-out questions */
	double earlier_after;           /* of learned questions, mean over all tasks but the last */
	double last_after;              /* the same of the last task: what is new has to be learned as well */
	double utility_before, utility_after; /* mean utility on the first task's learned questions */
	int n_updates, n_learned, n_held;     /* questions of the first task that were examined */
} ruv_drift_result;

/* Trains networks of the router's shape from nothing. RUV_EINVAL when a task would have fewer than 20 questions. */
int ruv_router_drift(const ruv_router_weights *weights, const ruv_route_data *data, const ruv_drift_options *options,
                     ruv_drift_result results[RUV_N_DRIFT_PROTECTIONS], ruv_error *err);

#endif
