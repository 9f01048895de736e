/* codes.c - see codes.h.
 *
 * Four vectors at a time: their sums are reduced together and their headers transposed, so that what surrounds the multiplications
 * is shared. Cache lines of vectors PREFETCH places ahead are asked for meanwhile; a walk through a graph misses the caches on
 * nearly every one. Instruction sets stand on their functions (attribute `target`); ruv_cpu_get() decides once. Layer: memory. */
#include "memory/codes.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { PREFETCH = 8, LINE = 64 };

/* ---- encoding ---- */

void ruv_code_format_init(ruv_code_format *f, int dimension, int bits, bool euclidean)
{
	memset(f, 0, sizeof *f);
	f->dimension = dimension;
	f->bits = bits;
	f->n_components = bits == 8 ? (dimension + 63) / 64 * 64 : (dimension + 127) / 128 * 128;
	f->n_bytes = f->n_components * bits / 8;
	f->euclidean = euclidean;
	f->rotated = bits == 1;
}

void ruv_code_set_centre(ruv_code_format *f, const float *centre)
{
	double norm2 = 0;

	for (int i = 0; i < f->dimension; i++) {
		f->centre[i] = centre ? centre[i] : 0;
		norm2 += (double)f->centre[i] * f->centre[i];
	}
	f->centre_norm2 = (float)norm2;
}

/* The mean product of two sign codes with sizes that are unbiased alone is |x| |y| asin(rho) for a correlation of rho. This factor
 * brings it within a twentieth of rho where the neighbours of a vector are, 0.6 to 0.9. */
#define SIGNS_TWICE 0.88f

static inline int clamped(float x, int most)
{
	int c = (int)(x + 0.5f); /* x >= 0 up to rounding */

	return c < 0 ? 0 : c > most ? most : c;
}

/* ---- the rotation ---- */

/* Walsh-Hadamard, orthonormal; n a power of two. */
static void hadamard(float *x, int n)
{
	float scale = 1 / sqrtf((float)n);

	for (int half = 1; half < n; half *= 2)
		for (int from = 0; from < n; from += 2 * half)
			for (int i = from; i < from + half; i++) {
				float a = x[i], b = x[i + half];
				x[i] = a + b;
				x[i + half] = a - b;
			}
	for (int i = 0; i < n; i++)
		x[i] *= scale;
}

/* Four rounds of random signs and a Hadamard transform. Where n is no power of two it takes the front and the end by turns, and
 * each round turns the component i against i + n / 2 as well. Part of what a segment file means: never changed. */
static void rotate(float *x, int n)
{
	enum { ROUNDS = 4 };
	const float half = sqrtf(0.5f);
	int power = 1;

	while (2 * power <= n)
		power *= 2;
	for (int r = 0; r < ROUNDS; r++) {
		for (int i = 0; i < n; i += 64) {
			uint64_t signs = (uint64_t)(r * RUV_CODE_MAX_DIMENSION + i + 1) * 0x9e3779b97f4a7c15u; /* splitmix64 */
			signs = (signs ^ signs >> 30) * 0xbf58476d1ce4e5b9u;
			signs = (signs ^ signs >> 27) * 0x94d049bb133111ebu;
			signs ^= signs >> 31;
			for (int j = i; j < n && j < i + 64; j++)
				x[j] = signs >> (j - i) & 1 ? -x[j] : x[j];
		}
		hadamard(r % 2 ? x + n - power : x, power);
		if (power < n)
			for (int i = 0; i < n / 2; i++) {
				float a = x[i], b = x[i + n / 2];
				x[i] = half * (a + b);
				x[i + n / 2] = half * (a - b);
			}
	}
}

/* x - m to `to`, rotated where the format says so; its squared length and its inner product with m. */
static void centred(const ruv_code_format *f, float *to, const float *x, double *norm2, double *with_centre)
{
	const float *m = f->centre;

	*norm2 = *with_centre = 0;
	for (int i = 0; i < f->dimension; i++) {
		float c = x[i] - m[i];
		to[i] = c;
		*norm2 += (double)c * c;
		*with_centre += (double)c * m[i];
	}
	if (f->rotated)
		rotate(to, f->dimension);
}

/* Signs, and the size s of +s and -s: the inner product with the vector itself comes out as its squared length. */
static ruv_code_header encode_signs(const ruv_code_format *f, unsigned char *to, const float *y, double norm2)
{
	ruv_code_header h = {0};
	double absolute = 0;
	int n_set = 0;
	float size;

	for (int i = 0; i < f->dimension; i++) {
		absolute += fabsf(y[i]);
		n_set += y[i] >= 0;
		to[i / 8] |= (unsigned char)((y[i] >= 0) << i % 8);
	}
	size = absolute > 0 ? (float)(norm2 / absolute) : 0;
	if (!isfinite(size))
		size = 0;
	h.bias = -size;
	h.scale = 2 * size;
	h.sum = size * (float)(2 * n_set - f->dimension);
	return h;
}

void ruv_code_encode(const ruv_code_format *f, unsigned char *to, const float *x)
{
	int most = (1 << f->bits) - 1;
	float low = INFINITY, high = -INFINITY, inverse, y[RUV_CODE_MAX_DIMENSION];
	double norm2, with_centre;
	int64_t sum = 0;
	ruv_code_header h;

	centred(f, y, x, &norm2, &with_centre);
	memset(to, 0, (size_t)f->n_bytes);
	if (f->bits == 1) {
		h = encode_signs(f, to, y, norm2);
		goto done;
	}
	for (int i = 0; i < f->dimension; i++) {
		low = y[i] < low ? y[i] : low;
		high = y[i] > high ? y[i] : high;
	}
	h.bias = low;
	h.scale = (high - low) / (float)most;
	inverse = h.scale > 0 ? 1 / h.scale : 0;
	if (!isfinite(inverse))
		inverse = h.scale = 0;
	for (int i = 0; i < f->dimension; i++) {
		int c = clamped((y[i] - low) * inverse, most);
		sum += c;
		if (f->bits == 8)
			to[i] = (unsigned char)c;
		else
			to[i / 128 * 64 + i % 64] |= (unsigned char)(i % 128 < 64 ? c : c << 4);
	}
	h.sum = h.scale * (float)sum + h.bias * (float)f->dimension;
done:
	h.offset = (float)(f->euclidean ? -norm2 / 2 : with_centre);
	memcpy(to + f->n_bytes, &h, sizeof h);
}

void ruv_code_query_of_vector(const ruv_code_format *f, ruv_code_query *q, const float *x)
{
	float most = 0, inverse, y[RUV_CODE_MAX_DIMENSION];
	double norm2, with_centre;
	int sum = 0;

	centred(f, y, x, &norm2, &with_centre);
	for (int i = 0; i < f->dimension; i++)
		most = fabsf(y[i]) > most ? fabsf(y[i]) : most;
	q->scale = most / 127;
	inverse = q->scale > 0 ? 1 / q->scale : 0;
	if (!isfinite(inverse))
		inverse = q->scale = 0;
	for (int i = 0; i < f->dimension; i++) {
		float c = y[i] * inverse;
		int code = (int)(c + (c < 0 ? -0.5f : 0.5f));
		q->codes[i] = (int8_t)code;
		sum += code;
	}
	memset(q->codes + f->dimension, 0, (size_t)(f->n_components - f->dimension));
	q->bias = 0;
	q->scale_sum = q->scale * (float)sum;
	q->offset = (float)(f->euclidean ? -norm2 / 2 : with_centre + f->centre_norm2);
}

void ruv_code_query_of_code(const ruv_code_format *f, ruv_code_query *q, const unsigned char *code)
{
	ruv_code_header h;

	memcpy(&h, code + f->n_bytes, sizeof h);
	q->scale = h.scale;
	q->offset = h.offset + (f->euclidean ? 0 : f->centre_norm2);
	if (f->bits == 8) { /* c - 128 fits a signed byte; the 128 goes to the bias */
		for (int i = 0; i < f->n_bytes; i++)
			q->codes[i] = (int8_t)(code[i] ^ 0x80);
		memset(q->codes + f->dimension, 0, (size_t)(f->n_components - f->dimension));
		q->bias = h.bias + 128 * h.scale;
	} else if (f->bits == 1) { /* +1 and -1 */
		for (int i = 0; i < f->n_components; i++)
			q->codes[i] = (int8_t)(i < f->dimension ? (code[i / 8] >> i % 8 & 1) * 2 - 1 : 0);
		/* Both sides unbiased give an angle in place of its sine: see SIGNS_TWICE. */
		q->scale = SIGNS_TWICE * h.scale / 2;
		q->bias = 0;
		h.sum *= SIGNS_TWICE;
	} else {
		for (int b = 0; b < f->n_bytes; b += 64)
			for (int j = 0; j < 64; j++) {
				q->codes[2 * b + j] = (int8_t)(code[b + j] & 15);
				q->codes[2 * b + 64 + j] = (int8_t)(code[b + j] >> 4);
			}
		q->bias = h.bias;
	}
	q->scale_sum = h.sum - q->bias * (float)f->dimension; /* scale * sum of the signed codes */
}

/* ---- kernels ---- */

static inline void prefetch(const unsigned char *code, int n_bytes)
{
	for (int i = 0; i < n_bytes; i += LINE)
		__builtin_prefetch(code + i);
}

static inline float finish(const ruv_code_format *f, const ruv_code_query *q, const unsigned char *code, int dot)
{
	ruv_code_header h;

	memcpy(&h, code + f->n_bytes, sizeof h);
	return -(q->scale * h.scale * (float)dot + q->scale_sum * h.bias + q->bias * h.sum + h.offset + q->offset);
}

static int dot8_scalar(const unsigned char *c, const int8_t *q, int n)
{
	int sum = 0;

	for (int i = 0; i < n; i++)
		sum += c[i] * q[i];
	return sum;
}

static int dot4_scalar(const unsigned char *c, const int8_t *q, int n)
{
	int sum = 0;

	for (int b = 0; b < n; b += 64)
		for (int j = 0; j < 64; j++)
			sum += (c[b + j] & 15) * q[2 * b + j] + (c[b + j] >> 4) * q[2 * b + 64 + j];
	return sum;
}

static int dot1_scalar(const unsigned char *c, const int8_t *q, int n)
{
	int sum = 0;

	for (int i = 0; i < 8 * n; i++)
		sum += c[i / 8] >> i % 8 & 1 ? q[i] : 0;
	return sum;
}

/* A kernel that takes one vector after the other. */
#define ONE_BY_ONE(dot_one)                                                                                                        \
	int lines = f->n_bytes + (int)sizeof(ruv_code_header);                                                                     \
	for (int i = 0; i < n && i < PREFETCH; i++)                                                                                \
		prefetch(codes + ids[i] * stride, lines);                                                                          \
	for (int i = 0; i < n; i++) {                                                                                              \
		const unsigned char *code = codes + ids[i] * stride;                                                               \
		if (i + PREFETCH < n)                                                                                              \
			prefetch(codes + ids[i + PREFETCH] * stride, lines);                                                       \
		distances[i] = finish(f, q, code, dot_one(code, q->codes, f->n_bytes));                                            \
	}

static void distances8_scalar(float *distances, const ruv_code_format *f, const ruv_code_query *q, const unsigned char *codes,
                              size_t stride, const uint32_t *ids, int n)
{
	ONE_BY_ONE(dot8_scalar)
}

static void distances4_scalar(float *distances, const ruv_code_format *f, const ruv_code_query *q, const unsigned char *codes,
                              size_t stride, const uint32_t *ids, int n)
{
	ONE_BY_ONE(dot4_scalar)
}

static void distances1_scalar(float *distances, const ruv_code_format *f, const ruv_code_query *q, const unsigned char *codes,
                              size_t stride, const uint32_t *ids, int n)
{
	ONE_BY_ONE(dot1_scalar)
}

typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));

/* term: what the sums take of two v16 or two floats x and y */
#define ROWS_BODY(term)                                                                                                            \
	v16 s0 = {0}, s1 = {0};                                                                                                    \
	float sum = 0;                                                                                                             \
	int i = 0;                                                                                                                 \
	for (; i + 32 <= n; i += 32) {                                                                                             \
		v16 x0 = *(const v16 *)(a + i), y0 = *(const v16 *)(b + i);                                                        \
		v16 x1 = *(const v16 *)(a + i + 16), y1 = *(const v16 *)(b + i + 16);                                              \
		s0 += term(x0, y0);                                                                                                \
		s1 += term(x1, y1);                                                                                                \
	}                                                                                                                          \
	s0 += s1;                                                                                                                  \
	for (int j = 0; j < 16; j++)                                                                                               \
		sum += s0[j];                                                                                                      \
	for (; i < n; i++)                                                                                                         \
		sum += term(a[i], b[i]);                                                                                           \
	return sum;
#define PRODUCT(x, y) ((x) * (y))
#define SQUARE(x, y) (((x) - (y)) * ((x) - (y)))

static float dot_base(const float *a, const float *b, int n)
{
	ROWS_BODY(PRODUCT)
}

static float squared_base(const float *a, const float *b, int n)
{
	ROWS_BODY(SQUARE)
}

static const ruv_code_kernels scalar = {"scalar", distances8_scalar, distances4_scalar, distances1_scalar, dot_base, squared_base};

#if defined(__x86_64__)

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")))

AVX2 static float dot_avx2(const float *a, const float *b, int n){ROWS_BODY(PRODUCT)}

AVX2 static float squared_avx2(const float *a, const float *b, int n){ROWS_BODY(SQUARE)}

AVX512 static float dot_avx512(const float *a, const float *b, int n){ROWS_BODY(PRODUCT)}

AVX512 static float squared_avx512(const float *a, const float *b, int n){ROWS_BODY(SQUARE)}

AVX2 static inline int sum_avx2(__m256i s)
{
	__m128i h = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));

	h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4e));
	h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0xb1));
	return _mm_cvtsi128_si32(h);
}

/* Two products of bytes 255 * 127 overflow the 16 bits of vpmaddubsw: widen first. */
AVX2 static inline int dot8_avx2(const unsigned char *c, const int8_t *q, int n)
{
	__m256i s0 = _mm256_setzero_si256(), s1 = s0;

	for (int i = 0; i < n; i += 32) {
		__m256i c0 = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(c + i)));
		__m256i c1 = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(c + i + 16)));
		__m256i q0 = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(q + i)));
		__m256i q1 = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(q + i + 16)));
		s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(c0, q0));
		s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(c1, q1));
	}
	return sum_avx2(_mm256_add_epi32(s0, s1));
}

/* Here 15 * 127 * 2 fits. */
AVX2 static inline int dot4_avx2(const unsigned char *c, const int8_t *q, int n)
{
	const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
	__m256i sum = _mm256_setzero_si256();

	for (int b = 0; b < n; b += 64)
		for (int j = 0; j < 64; j += 32) {
			__m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(c + b + j));
			__m256i q0 = _mm256_loadu_si256((const __m256i *)(const void *)(q + 2 * b + j));
			__m256i q1 = _mm256_loadu_si256((const __m256i *)(const void *)(q + 2 * b + 64 + j));
			__m256i p0 = _mm256_maddubs_epi16(_mm256_and_si256(v, low), q0);
			__m256i p1 = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(v, 4), low), q1);
			sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(p0, p1), ones));
		}
	return sum_avx2(sum);
}

/* 32 bits become 32 masks; sums of two signed bytes fit 16 bits. */
AVX2 static inline int dot1_avx2(const unsigned char *c, const int8_t *q, int n)
{
	const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
	const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201), ones8 = _mm256_set1_epi8(1);
	const __m256i ones16 = _mm256_set1_epi16(1);
	__m256i sum = _mm256_setzero_si256();

	for (int i = 0; i < n; i += 4) {
		int word;
		__m256i mask, x = _mm256_loadu_si256((const __m256i *)(const void *)(q + 8 * i));
		memcpy(&word, c + i, sizeof word);
		mask = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(word), spread), bit);
		x = _mm256_and_si256(x, _mm256_cmpeq_epi8(mask, bit));
		sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(ones8, x), ones16));
	}
	return sum_avx2(sum);
}

AVX2 static void distances8_avx2(float *distances, const ruv_code_format *f, const ruv_code_query *q, const unsigned char *codes,
                                 size_t stride, const uint32_t *ids, int n){ONE_BY_ONE(dot8_avx2)}

AVX2 static void distances4_avx2(float *distances, const ruv_code_format *f, const ruv_code_query *q, const unsigned char *codes,
                                 size_t stride, const uint32_t *ids, int n){ONE_BY_ONE(dot4_avx2)}

AVX2 static void distances1_avx2(float *distances, const ruv_code_format *f, const ruv_code_query *q, const unsigned char *codes,
                                 size_t stride, const uint32_t *ids, int n){ONE_BY_ONE(dot1_avx2)}

/* The sums of four vectors of sixteen, as one vector of four. */
AVX512 static inline __m128i sums_of_four(__m512i a0, __m512i a1, __m512i a2, __m512i a3)
{
	__m256i b0 = _mm256_add_epi32(_mm512_castsi512_si256(a0), _mm512_extracti64x4_epi64(a0, 1));
	__m256i b1 = _mm256_add_epi32(_mm512_castsi512_si256(a1), _mm512_extracti64x4_epi64(a1, 1));
	__m256i b2 = _mm256_add_epi32(_mm512_castsi512_si256(a2), _mm512_extracti64x4_epi64(a2, 1));
	__m256i b3 = _mm256_add_epi32(_mm512_castsi512_si256(a3), _mm512_extracti64x4_epi64(a3, 1));
	__m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(b0, b1), _mm256_hadd_epi32(b2, b3));

	return _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}

struct four {
	const unsigned char *c[4];
};

AVX512 static inline void finish_four(float *to, const ruv_code_format *f, const ruv_code_query *q, const struct four *v,
                                      __m128i dots)
{
	__m128 scale = _mm_load_ps((const float *)(const void *)(v->c[0] + f->n_bytes));
	__m128 bias = _mm_load_ps((const float *)(const void *)(v->c[1] + f->n_bytes));
	__m128 offset = _mm_load_ps((const float *)(const void *)(v->c[2] + f->n_bytes));
	__m128 sum = _mm_load_ps((const float *)(const void *)(v->c[3] + f->n_bytes));
	__m128 d;

	_MM_TRANSPOSE4_PS(scale, bias, offset, sum);
	d = _mm_add_ps(offset, _mm_set1_ps(q->offset));
	d = _mm_fmadd_ps(sum, _mm_set1_ps(q->bias), d);
	d = _mm_fmadd_ps(bias, _mm_set1_ps(q->scale_sum), d);
	d = _mm_fmadd_ps(_mm_mul_ps(scale, _mm_set1_ps(q->scale)), _mm_cvtepi32_ps(dots), d);
	_mm_storeu_ps(to, _mm_xor_ps(d, _mm_set1_ps(-0.0f)));
}

#define LOAD512(p) _mm512_loadu_si512((const void *)(p))

AVX512 static inline __m128i dots8(const ruv_code_format *f, const ruv_code_query *q, const struct four *v)
{
	__m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0;

	for (int i = 0; i < f->n_bytes; i += 64) {
		__m512i x = LOAD512(q->codes + i);
		a0 = _mm512_dpbusd_epi32(a0, LOAD512(v->c[0] + i), x);
		a1 = _mm512_dpbusd_epi32(a1, LOAD512(v->c[1] + i), x);
		a2 = _mm512_dpbusd_epi32(a2, LOAD512(v->c[2] + i), x);
		a3 = _mm512_dpbusd_epi32(a3, LOAD512(v->c[3] + i), x);
	}
	return sums_of_four(a0, a1, a2, a3);
}

AVX512 static inline __m128i dots4(const ruv_code_format *f, const ruv_code_query *q, const struct four *v)
{
	const __m512i low = _mm512_set1_epi8(15);
	__m512i a[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};

	for (int i = 0; i < f->n_bytes; i += 64) {
		__m512i x0 = LOAD512(q->codes + 2 * i), x1 = LOAD512(q->codes + 2 * i + 64);
		for (int j = 0; j < 4; j++) {
			__m512i c = LOAD512(v->c[j] + i);
			a[j] = _mm512_dpbusd_epi32(a[j], _mm512_and_si512(c, low), x0);
			a[j] = _mm512_dpbusd_epi32(a[j], _mm512_and_si512(_mm512_srli_epi16(c, 4), low), x1);
		}
	}
	return sums_of_four(a[0], a[1], a[2], a[3]);
}

AVX512 static inline __m128i dots1(const ruv_code_format *f, const ruv_code_query *q, const struct four *v)
{
	const __m512i ones = _mm512_set1_epi8(1);
	__m512i a[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};

	for (int i = 0; i < f->n_bytes; i += 8) {
		__m512i x = LOAD512(q->codes + 8 * i);
		for (int j = 0; j < 4; j++) {
			uint64_t bits;
			memcpy(&bits, v->c[j] + i, sizeof bits);
			a[j] = _mm512_dpbusd_epi32(a[j], _mm512_maskz_mov_epi8((__mmask64)bits, ones), x);
		}
	}
	return sums_of_four(a[0], a[1], a[2], a[3]);
}

/* The last one to three vectors are done as four, with the last of them several times. */
#define FOUR_BY_FOUR(dots)                                                                                                         \
	int lines = f->n_bytes + (int)sizeof(ruv_code_header);                                                                     \
	for (int i = 0; i < n && i < PREFETCH; i++)                                                                                \
		prefetch(codes + ids[i] * stride, lines);                                                                          \
	for (int i = 0; i < n; i += 4) {                                                                                           \
		struct four v;                                                                                                     \
		for (int j = 0; j < 4; j++)                                                                                        \
			v.c[j] = codes + ids[i + j < n ? i + j : n - 1] * stride;                                                  \
		for (int j = i + PREFETCH; j < i + PREFETCH + 4 && j < n; j++)                                                     \
			prefetch(codes + ids[j] * stride, lines);                                                                  \
		if (i + 4 <= n) {                                                                                                  \
			finish_four(distances + i, f, q, &v, dots(f, q, &v));                                                      \
		} else {                                                                                                           \
			float last[4];                                                                                             \
			finish_four(last, f, q, &v, dots(f, q, &v));                                                               \
			memcpy(distances + i, last, (size_t)(n - i) * sizeof *last);                                               \
		}                                                                                                                  \
	}

AVX512 static void distances8_avx512(float *distances, const ruv_code_format *f, const ruv_code_query *q,
                                     const unsigned char *codes, size_t stride, const uint32_t *ids, int n){FOUR_BY_FOUR(dots8)}

AVX512 static void distances4_avx512(float *distances, const ruv_code_format *f, const ruv_code_query *q,
                                     const unsigned char *codes, size_t stride, const uint32_t *ids, int n){FOUR_BY_FOUR(dots4)}

AVX512 static void distances1_avx512(float *distances, const ruv_code_format *f, const ruv_code_query *q,
                                     const unsigned char *codes, size_t stride, const uint32_t *ids, int n)
{
	FOUR_BY_FOUR(dots1)
}

static const ruv_code_kernels avx2 = {"avx2", distances8_avx2, distances4_avx2, distances1_avx2, dot_avx2, squared_avx2};
static const ruv_code_kernels avx512 = {"avx512-vnni",     distances8_avx512, distances4_avx512,
                                        distances1_avx512, dot_avx512,        squared_avx512};

#endif

int ruv_code_kernels_all(const ruv_code_kernels **out, int cap)
{
	int n = 0;
#if defined(__x86_64__)
	const ruv_cpu *cpu = ruv_cpu_get();
	if (cpu->avx512 && cpu->avx512_vnni && n < cap)
		out[n++] = &avx512;
	if (cpu->avx2 && cpu->fma && n < cap)
		out[n++] = &avx2;
#endif
	if (n < cap)
		out[n++] = &scalar;
	return n;
}

const ruv_code_kernels *ruv_code_kernels_get(void)
{
	const ruv_code_kernels *best;

	ruv_code_kernels_all(&best, 1);
	return best;
}
