/* pool.c - fork-join over an atomic task counter.
 *
 * A job is published by storing its fields and then incrementing `epoch` (release); a worker that sees a new epoch (acquire) joins
 * it. `n_inside` counts workers that may still touch the job's fields: the caller waits for it to reach zero before it returns, so
 * no field changes under a worker. A worker that wakes late finds no task left and leaves again. */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/status.h"

enum { MAX_THREADS = 256, SPINS = 4000 };

struct worker {
	ruv_pool *pool;
	pthread_t thread;
	int index;
};

struct ruv_pool {
	int n_threads, n_started;
	struct worker *workers; /* [n_threads]; 0 is the caller */
	pthread_mutex_t run_lock, sleep_lock;
	pthread_cond_t wake;
	int n_asleep; /* under sleep_lock */
	ruv_pool_fn *fn;
	void *arg;
	int n_tasks;
	_Alignas(64) atomic_uint epoch; /* odd low bit: a job is open */
	_Alignas(64) atomic_int next_task;
	_Alignas(64) atomic_int n_inside;
	atomic_bool stop;
};

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static void work(ruv_pool *pool, int thread)
{
	int task;
	while ((task = atomic_fetch_add_explicit(&pool->next_task, 1, memory_order_relaxed)) < pool->n_tasks)
		pool->fn(pool->arg, task, thread);
}

/* Waits for an epoch other than `seen`; spins first, sleeps then. */
static unsigned await_epoch(ruv_pool *pool, unsigned seen)
{
	for (int i = 0; i < SPINS; i++) {
		unsigned now = atomic_load_explicit(&pool->epoch, memory_order_acquire);
		if (now != seen || atomic_load_explicit(&pool->stop, memory_order_relaxed))
			return now;
		relax();
	}
	pthread_mutex_lock(&pool->sleep_lock);
	pool->n_asleep++;
	while (atomic_load(&pool->epoch) == seen && !atomic_load(&pool->stop))
		pthread_cond_wait(&pool->wake, &pool->sleep_lock);
	pool->n_asleep--;
	pthread_mutex_unlock(&pool->sleep_lock);
	return atomic_load(&pool->epoch);
}

static void *worker_main(void *arg)
{
	struct worker *self = arg;
	ruv_pool *pool = self->pool;
	unsigned seen = 0;

	for (;;) {
		unsigned now = await_epoch(pool, seen);
		if (atomic_load(&pool->stop))
			return NULL;
		seen = now;
		if (!(now & 1))
			continue;
		atomic_fetch_add(&pool->n_inside, 1);
		/* The job may have closed between the look and the entry: only an open one may be touched. */
		if (atomic_load(&pool->epoch) == now)
			work(pool, self->index);
		atomic_fetch_sub(&pool->n_inside, 1);
	}
}

int ruv_pool_create(ruv_pool **out, int n_threads, ruv_error *err)
{
	ruv_pool *pool;

	if (n_threads == 0)
		n_threads = ruv_cpu_get()->n_cores;
	if (n_threads < 0 || n_threads > MAX_THREADS)
		return ruv_fail(err, RUV_EINVAL, "pool", "%d threads asked for, 0 (all cores) to %d are possible", n_threads,
		                MAX_THREADS);
	pool = aligned_alloc(64, (sizeof *pool + 63) & ~(size_t)63);
	if (!pool)
		return ruv_fail_memory(err, "pool", sizeof *pool);
	*pool = (ruv_pool){.n_threads = n_threads, .n_started = 1};
	pthread_mutex_init(&pool->run_lock, NULL);
	pthread_mutex_init(&pool->sleep_lock, NULL);
	pthread_cond_init(&pool->wake, NULL);
	pool->workers = calloc((size_t)n_threads, sizeof *pool->workers);
	if (!pool->workers) {
		ruv_pool_free(pool);
		return ruv_fail_memory(err, "pool", (size_t)n_threads * sizeof *pool->workers);
	}
	for (int i = 1; i < n_threads; i++) {
		pool->workers[i] = (struct worker){.pool = pool, .index = i};
		if (pthread_create(&pool->workers[i].thread, NULL, worker_main, &pool->workers[i])) {
			ruv_pool_free(pool);
			return ruv_fail(err, RUV_ENOMEM, "pool", "could not start thread %d of %d", i + 1, n_threads);
		}
		pool->n_started++;
	}
	*out = pool;
	return RUV_OK;
}

void ruv_pool_free(ruv_pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->sleep_lock);
	atomic_store(&pool->stop, true);
	pthread_cond_broadcast(&pool->wake);
	pthread_mutex_unlock(&pool->sleep_lock);
	for (int i = 1; pool->workers && i < pool->n_started; i++)
		pthread_join(pool->workers[i].thread, NULL);
	pthread_cond_destroy(&pool->wake);
	pthread_mutex_destroy(&pool->sleep_lock);
	pthread_mutex_destroy(&pool->run_lock);
	free(pool->workers);
	free(pool);
}

int ruv_pool_n_threads(const ruv_pool *pool)
{
	return pool->n_threads;
}

void ruv_pool_run(ruv_pool *pool, ruv_pool_fn *fn, void *arg, int n_tasks)
{
	if (n_tasks <= 0)
		return;
	pthread_mutex_lock(&pool->run_lock); /* also for one thread: scratch is per thread index */
	if (pool->n_threads == 1 || n_tasks == 1) {
		for (int i = 0; i < n_tasks; i++)
			fn(arg, i, 0);
		pthread_mutex_unlock(&pool->run_lock);
		return;
	}
	pool->fn = fn;
	pool->arg = arg;
	pool->n_tasks = n_tasks;
	atomic_store(&pool->next_task, 0);
	atomic_fetch_add(&pool->epoch, 1); /* opens the job */
	pthread_mutex_lock(&pool->sleep_lock);
	if (pool->n_asleep)
		pthread_cond_broadcast(&pool->wake);
	pthread_mutex_unlock(&pool->sleep_lock);

	work(pool, 0);

	atomic_fetch_add(&pool->epoch, 1); /* closes it: who enters from now on leaves at once */
	for (int spins = 0; atomic_load(&pool->n_inside) > 0; spins++) {
		if (spins < SPINS)
			relax();
		else
			sched_yield(); /* the core that runs the last task may be the one we hold */
	}
	pthread_mutex_unlock(&pool->run_lock);
}
