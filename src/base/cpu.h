/* cpu.h - what this processor can do and what the operating system lets it do.
 *
 * A feature counts only when CPUID reports it and XCR0 says that the OS saves its registers; AMX also needs the kernel's
 * permission (arch_prctl), which detection asks for once. RUVLLM_ISA in the environment can only lower the result. Layer: base. */
#ifndef RUV_BASE_CPU_H
#define RUV_BASE_CPU_H

#include "ruvllm/types.h"

typedef struct ruv_cpu {
	char name[64]; /* "AMD EPYC 9B45", or the architecture's name */
	int n_cores;   /* that this process may run on */
	bool sse42, avx, f16c, fma, avx2, avx_vnni;
	bool avx512; /* F, BW, DQ, VL, CD together */
	bool avx512_vnni, avx512_vbmi, avx512_bf16, avx512_fp16;
	bool amx_int8, amx_bf16;
	bool neon, neon_dotprod, neon_i8mm;
	size_t l1d_bytes, l2_bytes, l3_bytes; /* of one core / shared; 0 when unknown */
} ruv_cpu;

/* Detected once; the same pointer for the life of the process. Any thread. */
const ruv_cpu *ruv_cpu_get(void);
/* "avx2 fma f16c avx512 avx512-vnni ..." into text[0..cap); returns text. */
const char *ruv_cpu_features(const ruv_cpu *cpu, char *text, size_t cap);

#endif
