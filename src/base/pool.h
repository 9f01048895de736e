/* pool.h - a persistent pool of threads for kernels: fork-join over task indices.
 *
 * The caller's thread works too, so a pool of n threads starts n - 1. Each has a run of neighbouring tasks and claims them one at
 * a time, then those of the others, so a busy or slow core simply takes fewer. Workers spin briefly after a job before they sleep,
 * because the next job of a decode step comes within microseconds. A worker whose core another program holds is left out until its
 * core is free again. Threads: one job at a time; ruv_pool_run from two threads at once is serialised. Layer: base. */
#ifndef RUV_BASE_POOL_H
#define RUV_BASE_POOL_H

#include "ruvllm/types.h"

typedef struct ruv_pool ruv_pool;

/* task in [0, n_tasks), thread in [0, n_threads): index for per-thread scratch. */
typedef void ruv_pool_fn(void *arg, int task, int thread);

/* n_threads 0: one per core that the process may use. At most 256. */
int ruv_pool_create(ruv_pool **out, int n_threads, ruv_error *err);
/* Joins the threads; NULL is fine. No job may be running. */
void ruv_pool_free(ruv_pool *pool);
int ruv_pool_n_threads(const ruv_pool *pool);
/* Threads that jobs are shared among now: at most ruv_pool_n_threads, fewer while cores are busy with something else. */
int ruv_pool_n_active(const ruv_pool *pool);
/* Runs fn for every task and returns when all are done. fn must not call ruv_pool_run on the same pool. */
void ruv_pool_run(ruv_pool *pool, ruv_pool_fn *fn, void *arg, int n_tasks);

#endif
