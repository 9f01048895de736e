/* machine.h - what this machine can do at most: how fast it reads memory and how fast it multiplies. Measured in about a second.
 *
 * The bounds that benchmarks are held against: decode cannot be faster than reading the weights once a token, prefill not faster
 * than its multiplications. Layer: tools. */
#ifndef RUV_TOOLS_MACHINE_H
#define RUV_TOOLS_MACHINE_H

#include "ruvllm/types.h"

typedef struct machine_rate {
	double read_bytes; /* bytes of memory read a second */
	double f32_ops;    /* F32 operations a second (a fused multiply-add is two) */
	double int8_ops;   /* operations a second on bytes with 32-bit sums, of the instructions that the kernels use */
} machine_rate;

typedef struct machine {
	char isa[32]; /* "avx512-vnni": the kernels in use */
	int n_threads;
	machine_rate one, all; /* with one thread, with n_threads */
} machine;

/* n_threads 0: one per core. */
int machine_measure(machine *out, int n_threads, ruv_error *err);

#endif
