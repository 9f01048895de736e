/* table.c - which kernels run on which processor, and the layout of the memory that they share. */
#include "tensor/cpu/kernels.h"

static size_t round_up(size_t n)
{
	return (n + 63) & ~(size_t)63;
}

int ruv_kernels_all(const ruv_cpu *cpu, const ruv_kernels **tables, int cap)
{
	int n = 0;
	const struct {
		bool can;
		const ruv_kernels *table;
	} rows[] = {
#if defined(__x86_64__)
		{cpu->avx512_vnni && cpu->avx512, &ruv_kernels_avx512_vnni},
		{cpu->avx512, &ruv_kernels_avx512},
		{cpu->avx2 && cpu->fma && cpu->f16c, &ruv_kernels_avx2},
#elif defined(__aarch64__)
		{cpu->neon && cpu->neon_dotprod, &ruv_kernels_neon},
#endif
		{true, &ruv_kernels_ref},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows && n < cap; i++)
		if (rows[i].can)
			tables[n++] = rows[i].table;
	return n;
}

const ruv_kernels *ruv_kernels_pick(const ruv_cpu *cpu)
{
	const ruv_kernels *best;
	ruv_kernels_all(cpu, &best, 1);
	return best;
}

bool ruv_dtype_wants_q8(ruv_dtype dtype)
{
	return dtype != RUV_F32 && dtype != RUV_F16 && dtype != RUV_BF16;
}

/* The float form is the largest: 4 bytes an element. The quantized one takes 1 byte and, at most, 4/16 + 4/32 for scale and min. */
size_t ruv_panel_bytes(int panel_rows, int64_t k)
{
	return round_up((size_t)panel_rows * (size_t)(k + 64) * sizeof(float));
}

void ruv_panel_place(ruv_panel *panel, void *memory, int panel_rows, int64_t k)
{
	size_t rows = (size_t)panel_rows, padded = ((size_t)k + 31) & ~(size_t)31;
	uint8_t *at = memory;

	*panel = (ruv_panel){.f = memory, .q = at, .k = k};
	at += round_up(rows * padded);
	panel->scale = (float *)at;
	at += round_up(rows * (padded / 16) * sizeof(float));
	panel->min = (float *)at;
}

size_t ruv_act_bytes(int64_t n, int64_t k)
{
	size_t rows = (size_t)n, groups = (size_t)(k + 31) / 32;
	return round_up(rows * groups * 32) + 2 * round_up(rows * groups * sizeof(float)) +
	       round_up(rows * groups * 2 * sizeof(int32_t));
}

void ruv_act_place(ruv_act *x, void *memory, int64_t n, int64_t k)
{
	size_t rows = (size_t)n, groups = (size_t)(k + 31) / 32;
	uint8_t *at = memory;

	x->k = k;
	x->q = (int8_t *)at;
	at += round_up(rows * groups * 32);
	x->d = (float *)at;
	at += round_up(rows * groups * sizeof(float));
	x->s = (float *)at;
	at += round_up(rows * groups * sizeof(float));
	x->sum = (int32_t *)at;
}

ruv_act_row ruv_act_get_row(const ruv_act *x, int64_t i)
{
	int64_t groups = x->k / 32;
	return (ruv_act_row){.f = x->f + i * x->k,
	                     .q = x->q ? x->q + i * x->k : NULL,
	                     .d = x->d ? x->d + i * groups : NULL,
	                     .s = x->s ? x->s + i * groups : NULL,
	                     .sum = x->sum ? x->sum + i * groups * 2 : NULL};
}
