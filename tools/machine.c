/* machine.c - each limit measured a few times on all threads at once; the best counts, because other programs only slow it down.
 *
 * Memory is read in a buffer far larger than the caches, each thread its own part; the arithmetic loops live in registers. */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/pool.h"
#include "base/status.h"
#include "tensor/cpu/kernels.h"

enum { ROUNDS = 5, SPIN_NS = 20000000 };

struct job {
	const ruv_kernels *k;
	uint8_t *memory;
	size_t part_bytes;
	int64_t n;
	double ops[256]; /* a thread at most */
	double (*spin)(int64_t n);
};

static void touch_task(void *arg, int task, int thread)
{
	struct job *job = arg;
	(void)thread;
	memset(job->memory + (size_t)task * job->part_bytes, task + 1, job->part_bytes);
}

static void read_task(void *arg, int task, int thread)
{
	struct job *job = arg;
	volatile uint64_t sink;
	(void)thread;
	sink = job->k->read_memory(job->memory + (size_t)task * job->part_bytes, job->part_bytes);
	(void)sink;
}

static void spin_task(void *arg, int task, int thread)
{
	struct job *job = arg;
	(void)thread;
	job->ops[task] = job->spin(job->n);
}

/* Operations a second of one kind of instruction on all threads of the pool. */
static double measure_spin(ruv_pool *pool, struct job *job, double (*spin)(int64_t n))
{
	int n_threads = ruv_pool_n_threads(pool);
	double best = 0;
	int64_t t0 = ruv_clock_now_ns(), ns;

	spin(100000);
	ns = ruv_clock_now_ns() - t0;
	job->spin = spin;
	job->n = 100000 * (SPIN_NS / (ns > 1000 ? ns : 1000)) + 100000;
	for (int round = 0; round < ROUNDS; round++) {
		double ops = 0, rate;
		t0 = ruv_clock_now_ns();
		ruv_pool_run(pool, spin_task, job, n_threads);
		ns = ruv_clock_now_ns() - t0;
		for (int i = 0; i < n_threads; i++)
			ops += job->ops[i];
		rate = ops / (double)ns * 1e9;
		best = rate > best ? rate : best;
	}
	return best;
}

static int measure(machine_rate *out, int n_threads, struct job *job, size_t n_bytes, ruv_error *err)
{
	ruv_pool *pool;
	int rc = ruv_pool_create(&pool, n_threads, err);

	if (rc)
		return rc;
	job->part_bytes = n_bytes / (size_t)n_threads & ~(size_t)255;
	ruv_pool_run(pool, touch_task, job, n_threads);
	for (int round = 0; round < ROUNDS; round++) {
		int64_t t0 = ruv_clock_now_ns();
		ruv_pool_run(pool, read_task, job, n_threads);
		double rate = (double)job->part_bytes * n_threads / (double)(ruv_clock_now_ns() - t0) * 1e9;
		out->read_bytes = rate > out->read_bytes ? rate : out->read_bytes;
	}
	out->f32_ops = measure_spin(pool, job, job->k->spin_fma);
	out->int8_ops = measure_spin(pool, job, job->k->spin_dot);
	ruv_pool_free(pool);
	return RUV_OK;
}

int machine_measure(machine *out, int n_threads, ruv_error *err)
{
	const ruv_cpu *cpu = ruv_cpu_get();
	size_t n_bytes = 4 * cpu->l3_bytes;
	struct job job = {.k = ruv_kernels_pick(cpu)};
	int rc;

	*out = (machine){.n_threads = n_threads ? n_threads : cpu->n_cores};
	if (out->n_threads < 1 || out->n_threads > 256)
		return ruv_fail(err, RUV_EINVAL, "machine", "%d threads asked for, 1 to 256 are possible", out->n_threads);
	snprintf(out->isa, sizeof out->isa, "%s", job.k->name);
	n_bytes = n_bytes < 128u << 20 ? 128u << 20 : n_bytes > 512u << 20 ? 512u << 20 : n_bytes;
	job.memory = aligned_alloc(1 << 21, n_bytes);
	if (!job.memory)
		return ruv_fail_memory(err, "machine", n_bytes);
	rc = measure(&out->one, 1, &job, n_bytes, err);
	out->all = out->one;
	if (!rc && out->n_threads > 1) {
		out->all = (machine_rate){0};
		rc = measure(&out->all, out->n_threads, &job, n_bytes, err);
	}
	free(job.memory);
	return rc;
}
