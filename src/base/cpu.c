/* cpu.c - CPUID, XCR0 and the operating system's permission, read once. */
#include "base/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

static ruv_cpu detected;
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)

static uint64_t read_xcr0(void)
{
	uint32_t lo, hi;
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (uint64_t)hi << 32 | lo;
}

/* The kernel hands out the 8 KiB of tile state only to processes that ask. */
static bool amx_permitted(void)
{
	enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
	return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static void detect(ruv_cpu *cpu)
{
	unsigned a, b, c, d, a7, b7, c7, d7, a71 = 0, b71 = 0, c71 = 0, d71 = 0;
	uint64_t xcr0 = 0;
	bool ymm, zmm, tile;

	if (!__get_cpuid(1, &a, &b, &c, &d))
		return;
	cpu->sse42 = c & 1u << 20;
	if (c & 1u << 27)
		xcr0 = read_xcr0();
	ymm = (xcr0 & 0x6) == 0x6;
	zmm = ymm && (xcr0 & 0xe0) == 0xe0;
	tile = (xcr0 & 0x60000) == 0x60000;
	cpu->avx = ymm && (c & 1u << 28);
	cpu->f16c = cpu->avx && (c & 1u << 29);
	cpu->fma = cpu->avx && (c & 1u << 12);
	if (__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7)) {
		const unsigned core512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31; /* F DQ CD BW VL */
		if (a7 >= 1)
			__get_cpuid_count(7, 1, &a71, &b71, &c71, &d71);
		cpu->avx2 = cpu->avx && (b7 & 1u << 5);
		cpu->avx_vnni = cpu->avx2 && (a71 & 1u << 4);
		cpu->avx512 = zmm && (b7 & core512) == core512;
		cpu->avx512_vbmi = cpu->avx512 && (c7 & 1u << 1);
		cpu->avx512_vnni = cpu->avx512 && (c7 & 1u << 11);
		cpu->avx512_bf16 = cpu->avx512 && (a71 & 1u << 5);
		cpu->avx512_fp16 = cpu->avx512 && (d7 & 1u << 23);
		if (tile && (d7 & 1u << 24) && amx_permitted()) {
			cpu->amx_int8 = d7 & 1u << 25;
			cpu->amx_bf16 = d7 & 1u << 22;
		}
	}
	for (unsigned i = 0; i < 3; i++) {
		unsigned r[4];
		if (!__get_cpuid(0x80000002u + i, &r[0], &r[1], &r[2], &r[3]))
			break;
		memcpy(cpu->name + 16 * i, r, 16);
	}
	for (size_t n = strlen(cpu->name); n && cpu->name[n - 1] == ' ';)
		cpu->name[--n] = '\0';
}

#elif defined(__aarch64__)

static void detect(ruv_cpu *cpu)
{
	unsigned long cap = getauxval(AT_HWCAP), cap2 = getauxval(AT_HWCAP2);
	cpu->neon = cap & 1ul << 1;          /* HWCAP_ASIMD */
	cpu->neon_dotprod = cap & 1ul << 20; /* HWCAP_ASIMDDP */
	cpu->neon_i8mm = cap2 & 1ul << 13;   /* HWCAP2_I8MM */
	snprintf(cpu->name, sizeof cpu->name, "aarch64");
}

#else

static void detect(ruv_cpu *cpu)
{
	snprintf(cpu->name, sizeof cpu->name, "generic");
}

#endif

/* RUVLLM_ISA: tests and bug reports run the lower paths on a better machine. */
static void lower(ruv_cpu *cpu, const char *isa)
{
	static const char *const levels[] = {"scalar", "avx2", "avx512", "avx512-vnni"};
	int level = 0;

	while (level < 4 && strcmp(isa, levels[level]))
		level++;
	if (level == 4) {
		ruv_log(RUV_LOG_WARN, "cpu",
		        "RUVLLM_ISA=%s is not known and has no effect; it may be scalar, avx2, avx512 or avx512-vnni", isa);
		return;
	}
	if (level < 1)
		cpu->avx2 = cpu->fma = cpu->f16c = cpu->avx = cpu->neon = cpu->neon_dotprod = cpu->neon_i8mm = false;
	if (level < 2)
		cpu->avx512 = cpu->avx_vnni = cpu->avx512_bf16 = cpu->avx512_fp16 = cpu->avx512_vbmi = false;
	if (level < 3)
		cpu->avx512_vnni = false;
	cpu->amx_int8 = cpu->amx_bf16 = false;
}

static size_t cache_size(int name)
{
	long n = sysconf(name);
	return n > 0 ? (size_t)n : 0;
}

static void detect_once(void)
{
	const char *isa = getenv("RUVLLM_ISA");
	cpu_set_t set;

	detect(&detected);
	if (isa)
		lower(&detected, isa);
	if (sched_getaffinity(0, sizeof set, &set) == 0)
		detected.n_cores = CPU_COUNT(&set);
	if (detected.n_cores < 1)
		detected.n_cores = 1;
	detected.l1d_bytes = cache_size(_SC_LEVEL1_DCACHE_SIZE);
	detected.l2_bytes = cache_size(_SC_LEVEL2_CACHE_SIZE);
	detected.l3_bytes = cache_size(_SC_LEVEL3_CACHE_SIZE);
}

const ruv_cpu *ruv_cpu_get(void)
{
	pthread_once(&once, detect_once);
	return &detected;
}

const char *ruv_cpu_features(const ruv_cpu *cpu, char *text, size_t cap)
{
	const struct {
		bool on;
		const char *name;
	} rows[] = {
	    {cpu->sse42, "sse4.2"},
	    {cpu->avx, "avx"},
	    {cpu->f16c, "f16c"},
	    {cpu->fma, "fma"},
	    {cpu->avx2, "avx2"},
	    {cpu->avx_vnni, "avx-vnni"},
	    {cpu->avx512, "avx512"},
	    {cpu->avx512_vnni, "avx512-vnni"},
	    {cpu->avx512_vbmi, "avx512-vbmi"},
	    {cpu->avx512_bf16, "avx512-bf16"},
	    {cpu->avx512_fp16, "avx512-fp16"},
	    {cpu->amx_int8, "amx-int8"},
	    {cpu->amx_bf16, "amx-bf16"},
	    {cpu->neon, "neon"},
	    {cpu->neon_dotprod, "dotprod"},
	    {cpu->neon_i8mm, "i8mm"},
	};
	size_t n = 0;

	if (cap)
		text[0] = '\0';
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (!rows[i].on || n >= cap)
			continue;
		int w = snprintf(text + n, cap - n, "%s%s", n ? " " : "", rows[i].name);
		n += w > 0 ? (size_t)w : 0;
	}
	return text;
}
