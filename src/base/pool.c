/* pool.c - fork-join over runs of tasks, with as many threads as help.
 *
 * The tasks of a job are cut into runs, one for every thread (or a few threads); a thread takes those of its own run one by one,
 * then those of the others'. So a thread goes through neighbouring tasks, which read memory that follows on, and what a task
 * fetched ahead is its own thread's; and the same thread has the same tasks when the same job comes again.
 *
 * A job is published by storing its fields and then incrementing `epoch` (release); a worker that sees a new epoch (acquire) joins
 * it. `n_inside` counts workers that may still touch the job's fields: the caller waits for it to reach zero before it returns, so
 * no field changes under a worker. A worker that wakes late finds no task left and leaves again.
 *
 * A busy core. Where another program holds a core, its worker is taken off the processor in the middle of a task, and everybody
 * waits for it: milliseconds, where the job takes microseconds. So the caller keeps an account of each worker over windows of
 * WINDOW_NS: the tasks that it did, and the time that the caller waited for it after all tasks were taken. A worker that was waited
 * for longer than the others would have needed for its tasks is parked, the worst one first: it sleeps and is not woken. After
 * PARK_MIN_NS it is tried again; each failed try doubles the time, up to PARK_MAX_NS, and KEPT_WINDOWS good windows forget it. */
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/status.h"

enum { MAX_THREADS = 256, MAX_RUNS = 8, SPINS = 4000, AWAITED_SPINS = 200, KEPT_WINDOWS = 8 };
static const int64_t WINDOW_NS = 4000000, PARK_MIN_NS = 30000000, PARK_MAX_NS = 2000000000;

struct worker {
	ruv_pool *pool;
	pthread_t thread;
	int index;
	atomic_bool parked; /* written by the caller of a job */
	_Alignas(64) atomic_bool inside;
	atomic_int n_tasks; /* of this window */
	/* The caller's own account. */
	int64_t waited_ns, park_ns, parked_until;
	int n_kept; /* windows since it was last parked */
	bool awaited;
};

struct run {
	_Alignas(64) atomic_int next;
	int end;
};

struct ruv_pool {
	int n_threads, n_started;
	struct worker *workers; /* [n_threads]; 0 is the caller */
	pthread_mutex_t run_lock, sleep_lock;
	pthread_cond_t wake, unpark, all_out;
	atomic_int n_asleep; /* at `wake`, changed under sleep_lock */
	/* The caller's account of this window; under run_lock. */
	int64_t window_ns, busy_ns, next_return;
	int n_own_tasks;
	atomic_int n_active; /* threads that are not parked, the caller included */
	ruv_pool_fn *fn;
	void *arg;
	int n_runs;
	struct run runs[MAX_RUNS];
	_Alignas(64) atomic_uint epoch; /* odd low bit: a job is open */
	_Alignas(64) atomic_int n_inside;
	atomic_bool stop, caller_asleep;
};

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Returns how many tasks it did. */
static int work(ruv_pool *pool, int thread)
{
	const int own = thread * pool->n_runs / pool->n_threads;
	int n = 0;
	for (int i = 0; i < pool->n_runs; i++) {
		struct run *run = &pool->runs[own + i < pool->n_runs ? own + i : own + i - pool->n_runs];
		if (i && atomic_load_explicit(&run->next, memory_order_relaxed) >= run->end)
			continue;
		int task;
		while ((task = atomic_fetch_add_explicit(&run->next, 1, memory_order_relaxed)) < run->end) {
			pool->fn(pool->arg, task, thread);
			n++;
		}
	}
	return n;
}

/* Waits for an epoch other than `seen`; spins first, sleeps then. */
static unsigned await_epoch(struct worker *self, unsigned seen)
{
	ruv_pool *pool = self->pool;
	for (int i = 0; i < SPINS && !atomic_load_explicit(&self->parked, memory_order_relaxed); i++) {
		unsigned now = atomic_load_explicit(&pool->epoch, memory_order_acquire);
		if (now != seen || atomic_load_explicit(&pool->stop, memory_order_relaxed))
			return now;
		relax();
	}
	pthread_mutex_lock(&pool->sleep_lock);
	while (atomic_load(&self->parked) && !atomic_load(&pool->stop))
		pthread_cond_wait(&pool->unpark, &pool->sleep_lock);
	/* In this order with the opening of a job: either the caller sees the sleeper, or this sees the job. */
	atomic_fetch_add(&pool->n_asleep, 1);
	while (atomic_load(&pool->epoch) == seen && !atomic_load(&pool->stop))
		pthread_cond_wait(&pool->wake, &pool->sleep_lock);
	atomic_fetch_sub(&pool->n_asleep, 1);
	pthread_mutex_unlock(&pool->sleep_lock);
	return atomic_load(&pool->epoch);
}

static void *worker_main(void *arg)
{
	struct worker *self = arg;
	ruv_pool *pool = self->pool;
	unsigned seen = 0;

	for (;;) {
		unsigned now = await_epoch(self, seen);
		if (atomic_load(&pool->stop))
			return NULL;
		seen = now;
		if (!(now & 1))
			continue;
		atomic_fetch_add(&pool->n_inside, 1);
		atomic_store(&self->inside, true);
		/* The job may have closed between the look and the entry: only an open one may be touched. */
		if (atomic_load(&pool->epoch) == now)
			atomic_fetch_add_explicit(&self->n_tasks, work(pool, self->index), memory_order_relaxed);
		atomic_store(&self->inside, false);
		/* In this order with join's: either the caller sees that nobody is inside, or this sees that it sleeps. */
		if (atomic_fetch_sub(&pool->n_inside, 1) == 1 && atomic_load(&pool->caller_asleep)) {
			pthread_mutex_lock(&pool->sleep_lock);
			pthread_cond_signal(&pool->all_out);
			pthread_mutex_unlock(&pool->sleep_lock);
		}
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
	pthread_cond_init(&pool->unpark, NULL);
	pthread_cond_init(&pool->all_out, NULL);
	atomic_store(&pool->n_active, n_threads);
	pool->workers = aligned_alloc(64, (size_t)n_threads * sizeof *pool->workers);
	if (!pool->workers) {
		ruv_pool_free(pool);
		return ruv_fail_memory(err, "pool", (size_t)n_threads * sizeof *pool->workers);
	}
	for (int i = 1; i < n_threads; i++) {
		pool->workers[i] = (struct worker){.pool = pool, .index = i, .park_ns = PARK_MIN_NS};
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
	pthread_cond_broadcast(&pool->unpark);
	pthread_mutex_unlock(&pool->sleep_lock);
	for (int i = 1; pool->workers && i < pool->n_started; i++)
		pthread_join(pool->workers[i].thread, NULL);
	pthread_cond_destroy(&pool->wake);
	pthread_cond_destroy(&pool->unpark);
	pthread_cond_destroy(&pool->all_out);
	pthread_mutex_destroy(&pool->sleep_lock);
	pthread_mutex_destroy(&pool->run_lock);
	free(pool->workers);
	free(pool);
}

int ruv_pool_n_threads(const ruv_pool *pool)
{
	return pool->n_threads;
}

int ruv_pool_n_active(const ruv_pool *pool)
{
	return atomic_load_explicit(&((ruv_pool *)pool)->n_active, memory_order_relaxed);
}

static void set_parked(ruv_pool *pool, struct worker *w, bool parked)
{
	pthread_mutex_lock(&pool->sleep_lock);
	atomic_store(&w->parked, parked);
	if (!parked)
		pthread_cond_broadcast(&pool->unpark);
	pthread_mutex_unlock(&pool->sleep_lock);
	atomic_fetch_add(&pool->n_active, parked ? -1 : 1);
}

/* Closes a window: parks the worker that costs most, if it costs more than it does, and starts the accounts again. */
static void settle(ruv_pool *pool, int64_t now)
{
	const int others = atomic_load(&pool->n_active) - 1;
	struct worker *worst = NULL;
	int64_t most = 0;

	for (int i = 1; i < pool->n_threads; i++) {
		struct worker *w = &pool->workers[i];
		int n_tasks = atomic_exchange_explicit(&w->n_tasks, 0, memory_order_relaxed);
		if (atomic_load_explicit(&w->parked, memory_order_relaxed))
			continue;
		/* What its tasks would have cost the others, at the caller's pace. */
		int64_t worth = pool->n_own_tasks ? pool->busy_ns / pool->n_own_tasks * n_tasks / others : pool->busy_ns;
		if (w->waited_ns > worth + worth / 8 && w->waited_ns > pool->window_ns / 16 && w->waited_ns - worth > most) {
			most = w->waited_ns - worth;
			worst = w;
		}
		if (++w->n_kept >= KEPT_WINDOWS)
			w->park_ns = PARK_MIN_NS;
		w->waited_ns = 0;
	}
	if (worst) {
		worst->parked_until = now + worst->park_ns;
		worst->park_ns = 2 * worst->park_ns < PARK_MAX_NS ? 2 * worst->park_ns : PARK_MAX_NS;
		worst->n_kept = 0;
		set_parked(pool, worst, true);
		if (pool->next_return == 0 || worst->parked_until < pool->next_return)
			pool->next_return = worst->parked_until;
	}
	pool->window_ns = pool->busy_ns = 0;
	pool->n_own_tasks = 0;
}

/* Those whose time is over come back, with a fresh window to show that they help. */
static void return_parked(ruv_pool *pool, int64_t now)
{
	pool->next_return = 0;
	for (int i = 1; i < pool->n_threads; i++) {
		struct worker *w = &pool->workers[i];
		if (!atomic_load_explicit(&w->parked, memory_order_relaxed))
			continue;
		if (w->parked_until <= now)
			set_parked(pool, w, false);
		else if (pool->next_return == 0 || w->parked_until < pool->next_return)
			pool->next_return = w->parked_until;
	}
	settle(pool, now);
}

/* Waits until no worker is inside, and notes those that kept it waiting. Spins, then sleeps: an idle core can take over a thread
 * that waits for a busy one, a spinning core cannot. */
static void join(ruv_pool *pool)
{
	for (int i = 0; i < SPINS; i++) {
		if (atomic_load(&pool->n_inside) == 0)
			return;
		relax();
		for (int w = 1; i == AWAITED_SPINS && w < pool->n_threads; w++)
			pool->workers[w].awaited = atomic_load_explicit(&pool->workers[w].inside, memory_order_relaxed);
	}
	pthread_mutex_lock(&pool->sleep_lock);
	atomic_store(&pool->caller_asleep, true);
	while (atomic_load(&pool->n_inside) > 0)
		pthread_cond_wait(&pool->all_out, &pool->sleep_lock);
	atomic_store(&pool->caller_asleep, false);
	pthread_mutex_unlock(&pool->sleep_lock);
}

void ruv_pool_run(ruv_pool *pool, ruv_pool_fn *fn, void *arg, int n_tasks)
{
	if (n_tasks <= 0)
		return;
	pthread_mutex_lock(&pool->run_lock); /* also for one thread: scratch is per thread index */
	int64_t begin = pool->n_threads == 1 || n_tasks == 1 ? 0 : ruv_clock_now_ns();
	if (pool->next_return && begin >= pool->next_return)
		return_parked(pool, begin);
	if (begin == 0 || atomic_load_explicit(&pool->n_active, memory_order_relaxed) == 1) {
		for (int i = 0; i < n_tasks; i++)
			fn(arg, i, 0);
		pthread_mutex_unlock(&pool->run_lock);
		return;
	}
	pool->fn = fn;
	pool->arg = arg;
	pool->n_runs = pool->n_threads < MAX_RUNS ? pool->n_threads : MAX_RUNS;
	for (int i = 0; i < pool->n_runs; i++) {
		atomic_store_explicit(&pool->runs[i].next, (int)((int64_t)n_tasks * i / pool->n_runs), memory_order_relaxed);
		pool->runs[i].end = (int)((int64_t)n_tasks * (i + 1) / pool->n_runs);
	}
	atomic_fetch_add(&pool->epoch, 1); /* opens the job */
	if (atomic_load(&pool->n_asleep)) {
		pthread_mutex_lock(&pool->sleep_lock);
		pthread_cond_broadcast(&pool->wake);
		pthread_mutex_unlock(&pool->sleep_lock);
	}

	pool->n_own_tasks += work(pool, 0);

	int64_t done = ruv_clock_now_ns();
	atomic_fetch_add(&pool->epoch, 1); /* closes it: who enters from now on leaves at once */
	join(pool);
	int64_t now = ruv_clock_now_ns();
	for (int i = 1; i < pool->n_threads; i++)
		if (pool->workers[i].awaited) {
			pool->workers[i].waited_ns += now - done;
			pool->workers[i].awaited = false;
		}
	pool->busy_ns += done - begin;
	pool->window_ns += now - begin;
	if (pool->window_ns >= WINDOW_NS)
		settle(pool, now);
	pthread_mutex_unlock(&pool->run_lock);
}
