/* textclass.c - see textclass.h. Weights are trained in F32 with AdaGrad and rounded to 8 bits with one scale a class.
 *
 * Packed: 16-byte header {"TXC1", heads, 0, 0}, then per head: u32 classes, u32 buckets, F32 scale[classes], F32 bias[classes],
 * I8 weights[buckets][classes]. Layer: learn. */
#include "learn/textclass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/rng.h"
#include "base/status.h"
#include "learn/grams.h"

enum { MAX_GRAMS = 2048, N_EPOCHS = 12, MAX_TEXT = 4096 /* bytes that are looked at */ };

static const char *const languages[] = {"en", "de", "fr", "es", "it", "pt", "zh", "other"};
static const char *const domains[] = {"animals",   "science",    "medicine", "mathematics", "programming", "history",
                                      "geography", "literature", "film-tv",  "music",       "sports",      "games",
                                      "religion",  "finance",    "everyday", "people"};
static const char *const types[] = {"factual", "reasoning", "creative", "procedural", "transform", "conversational"};

static const struct head_kind {
	const char *name;
	const char *const *classes;
	int n_classes, n_buckets;
	unsigned grams;
} kinds[RUV_N_TEXTCLASS_HEADS] = {
    {"language", languages, 8, 4096, RUV_GRAM_BYTES},
    {"domain", domains, 16, 8192, RUV_GRAM_WORD | RUV_GRAM_PAIR | RUV_GRAM_PREFIX | RUV_GRAM_FIRST},
    {"type", types, 6, 4096, RUV_GRAM_WORD | RUV_GRAM_PAIR | RUV_GRAM_FIRST | RUV_GRAM_SHAPE},
};

struct ruv_textclass {
	struct {
		float scale[RUV_TEXTCLASS_MAX_CLASSES], bias[RUV_TEXTCLASS_MAX_CLASSES];
		int8_t *weights; /* [n_buckets, n_classes] */
	} heads[RUV_N_TEXTCLASS_HEADS];
};

const char *ruv_textclass_head_name(int head)
{
	return head >= 0 && head < RUV_N_TEXTCLASS_HEADS ? kinds[head].name : NULL;
}

int ruv_textclass_n_classes(int head)
{
	return kinds[head].n_classes;
}

const char *ruv_textclass_name(int head, int i)
{
	return head >= 0 && head < RUV_N_TEXTCLASS_HEADS && i >= 0 && i < kinds[head].n_classes ? kinds[head].classes[i] : NULL;
}

int ruv_textclass_parse(int head, const char *name)
{
	for (int i = 0; i < kinds[head].n_classes; i++)
		if (!strcmp(kinds[head].classes[i], name))
			return i;
	return -1;
}

static int grams_of(uint32_t *hashes, int head, const char *text, size_t n_bytes)
{
	int n = ruv_grams(hashes, MAX_GRAMS, text, n_bytes > MAX_TEXT ? MAX_TEXT : n_bytes, kinds[head].grams);

	for (int i = 0; i < n; i++)
		hashes[i] %= (uint32_t)kinds[head].n_buckets;
	return n;
}

static void softmax(float *x, int n)
{
	float top = x[0], sum = 0;

	for (int i = 1; i < n; i++)
		top = x[i] > top ? x[i] : top;
	for (int i = 0; i < n; i++)
		sum += x[i] = expf(x[i] - top);
	for (int i = 0; i < n; i++)
		x[i] /= sum;
}

void ruv_textclass_apply(const ruv_textclass *classes, int head, const char *text, size_t n_bytes, float *probabilities)
{
	uint32_t hashes[MAX_GRAMS];
	int n = grams_of(hashes, head, text, n_bytes), n_classes = kinds[head].n_classes;
	int32_t sums[RUV_TEXTCLASS_MAX_CLASSES] = {0};
	float length = n ? 1 / sqrtf((float)n) : 0;

	for (int i = 0; i < n; i++) {
		const int8_t *row = classes->heads[head].weights + (size_t)hashes[i] * (size_t)n_classes;

		for (int c = 0; c < n_classes; c++)
			sums[c] += row[c];
	}
	for (int c = 0; c < n_classes; c++)
		probabilities[c] = (float)sums[c] * classes->heads[head].scale[c] * length + classes->heads[head].bias[c];
	softmax(probabilities, n_classes);
}

/* ---- training ---------------------------------------------------------------------------------------------------------- */

static bool is_held_out(const char *text, int every)
{
	return every > 0 && ruv_hash64(text, strlen(text), 5) % (uint64_t)every == 0;
}

/* One head in F32: weights [n_buckets, n_classes] and bias, by AdaGrad over the examples that have its label. */
static int train_head(ruv_textclass *model, int head, const ruv_textclass_example *examples, int n, int every, ruv_rng *rng,
                      ruv_error *err)
{
	const int n_classes = kinds[head].n_classes, n_buckets = kinds[head].n_buckets;
	const size_t n_weights = (size_t)n_classes * (size_t)n_buckets;
	float *w = calloc(n_weights, sizeof *w), *g2 = calloc(n_weights, sizeof *g2), bias[RUV_TEXTCLASS_MAX_CLASSES] = {0};
	double weight[RUV_TEXTCLASS_MAX_CLASSES] = {0};
	int *order = malloc(sizeof *order * (size_t)(n ? n : 1)), m = 0, counts[RUV_TEXTCLASS_MAX_CLASSES] = {0}, rc = RUV_OK;
	uint32_t hashes[MAX_GRAMS];

	if (!w || !g2 || !order) {
		rc = ruv_fail_memory(err, "textclass", n_weights * sizeof *w);
		goto done;
	}
	for (int i = 0; i < n; i++)
		if (examples[i].labels[head] >= 0 && !is_held_out(examples[i].text, every)) {
			order[m++] = i;
			counts[examples[i].labels[head]]++;
		}
	for (int c = 0; c < n_classes; c++) { /* rare classes weigh more, so that none is never said */
		weight[c] = counts[c] ? sqrt((double)m / n_classes / counts[c]) : 0;
		bias[c] = logf(((float)counts[c] + 1) / (float)(m + n_classes));
	}
	for (int epoch = 0; epoch < N_EPOCHS; epoch++) {
		float rate = 0.5f / (1 + (float)epoch);

		for (int i = m - 1; i > 0; i--) {
			int j = (int)ruv_rng_below(rng, (uint64_t)i + 1), t = order[i];
			order[i] = order[j];
			order[j] = t;
		}
		for (int i = 0; i < m; i++) {
			const ruv_textclass_example *example = &examples[order[i]];
			int n_grams = grams_of(hashes, head, example->text, strlen(example->text));
			float length = n_grams ? 1 / sqrtf((float)n_grams) : 0, p[RUV_TEXTCLASS_MAX_CLASSES];

			memcpy(p, bias, sizeof p);
			for (int k = 0; k < n_grams; k++)
				for (int c = 0; c < n_classes; c++)
					p[c] += length * w[(size_t)hashes[k] * (size_t)n_classes + (size_t)c];
			softmax(p, n_classes);
			p[example->labels[head]] -= 1;
			for (int c = 0; c < n_classes; c++) {
				p[c] *= (float)weight[example->labels[head]];
				bias[c] -= 0.02f * rate * p[c];
			}
			for (int k = 0; k < n_grams; k++) {
				float *row = w + (size_t)hashes[k] * (size_t)n_classes;
				float *row2 = g2 + (size_t)hashes[k] * (size_t)n_classes;

				for (int c = 0; c < n_classes; c++) {
					float gradient = length * p[c] + 1e-6f * row[c];
					row2[c] += gradient * gradient;
					row[c] -= rate * gradient / (sqrtf(row2[c]) + 1e-3f);
				}
			}
		}
	}
	model->heads[head].weights = malloc(n_weights);
	if (!model->heads[head].weights) {
		rc = ruv_fail_memory(err, "textclass", n_weights);
		goto done;
	}
	for (int c = 0; c < n_classes; c++) {
		float top = 1e-9f;

		for (int b = 0; b < n_buckets; b++)
			top = fmaxf(top, fabsf(w[(size_t)b * (size_t)n_classes + (size_t)c]));
		model->heads[head].scale[c] = top / 127;
		model->heads[head].bias[c] = bias[c];
		for (int b = 0; b < n_buckets; b++)
			model->heads[head].weights[(size_t)b * (size_t)n_classes + (size_t)c] =
			    (int8_t)lrintf(w[(size_t)b * (size_t)n_classes + (size_t)c] / top * 127);
	}
done:
	free(w);
	free(g2);
	free(order);
	return rc;
}

int ruv_textclass_train(ruv_textclass **out, const ruv_textclass_example *examples, int n, int held_out_every, uint64_t seed,
                        double *accuracy, int *n_held_out, ruv_error *err)
{
	ruv_textclass *model = calloc(1, sizeof *model);
	ruv_rng rng;
	int rc = model ? RUV_OK : ruv_fail_memory(err, "textclass", sizeof *model);

	ruv_rng_init(&rng, seed);
	for (int i = 0; !rc && i < n; i++)
		for (int head = 0; head < RUV_N_TEXTCLASS_HEADS; head++)
			if (examples[i].labels[head] >= kinds[head].n_classes)
				rc = ruv_fail(err, RUV_EINVAL, "textclass", "example %d: there is no %s %d", i, kinds[head].name,
				              examples[i].labels[head]);
	for (int head = 0; !rc && head < RUV_N_TEXTCLASS_HEADS; head++)
		rc = train_head(model, head, examples, n, held_out_every, &rng, err);
	if (rc) {
		ruv_textclass_free(model);
		return rc;
	}
	for (int head = 0; head < RUV_N_TEXTCLASS_HEADS && accuracy && n_held_out; head++) {
		int right = 0, seen = 0;

		for (int i = 0; i < n; i++) {
			float p[RUV_TEXTCLASS_MAX_CLASSES];
			int best = 0;

			if (examples[i].labels[head] < 0 || !is_held_out(examples[i].text, held_out_every))
				continue;
			ruv_textclass_apply(model, head, examples[i].text, strlen(examples[i].text), p);
			for (int c = 1; c < kinds[head].n_classes; c++)
				best = p[c] > p[best] ? c : best;
			right += best == examples[i].labels[head];
			seen++;
		}
		accuracy[head] = seen ? (double)right / seen : 0;
		n_held_out[head] = seen;
	}
	*out = model;
	return RUV_OK;
}

void ruv_textclass_free(ruv_textclass *classes)
{
	if (!classes)
		return;
	for (int head = 0; head < RUV_N_TEXTCLASS_HEADS; head++)
		free(classes->heads[head].weights);
	free(classes);
}

/* ---- as bytes ---------------------------------------------------------------------------------------------------------- */

int ruv_textclass_pack(const ruv_textclass *classes, char **bytes, size_t *n_bytes, ruv_error *err)
{
	ruv_buf buf;
	uint32_t head_words[4] = {0x31435854u, RUV_N_TEXTCLASS_HEADS, 0, 0};

	ruv_buf_init(&buf, (size_t)16 << 20);
	ruv_buf_append(&buf, head_words, sizeof head_words);
	for (int head = 0; head < RUV_N_TEXTCLASS_HEADS; head++) {
		uint32_t sizes[2] = {(uint32_t)kinds[head].n_classes, (uint32_t)kinds[head].n_buckets};

		ruv_buf_append(&buf, sizes, sizeof sizes);
		ruv_buf_append(&buf, classes->heads[head].scale, sizeof(float) * sizes[0]);
		ruv_buf_append(&buf, classes->heads[head].bias, sizeof(float) * sizes[0]);
		ruv_buf_append(&buf, classes->heads[head].weights, (size_t)sizes[0] * sizes[1]);
	}
	*n_bytes = buf.len;
	*bytes = ruv_buf_take(&buf);
	return *bytes ? RUV_OK : ruv_fail_memory(err, "textclass", *n_bytes);
}

int ruv_textclass_unpack(ruv_textclass **out, const void *bytes, size_t n_bytes, ruv_error *err)
{
	const char *p = bytes, *end = p + n_bytes;
	ruv_textclass *model = calloc(1, sizeof *model);
	uint32_t words[4];

	if (!model)
		return ruv_fail_memory(err, "textclass", sizeof *model);
	if (n_bytes < sizeof words ||
	    (memcpy(words, p, sizeof words), words[0] != 0x31435854u || words[1] != RUV_N_TEXTCLASS_HEADS))
		goto malformed;
	p += sizeof words;
	for (int head = 0; head < RUV_N_TEXTCLASS_HEADS; head++) {
		size_t n_classes = (size_t)kinds[head].n_classes, n_weights = n_classes * (size_t)kinds[head].n_buckets;

		if ((size_t)(end - p) < 8 + 8 * n_classes + n_weights)
			goto malformed;
		memcpy(words, p, 8);
		if (words[0] != n_classes || words[1] != (uint32_t)kinds[head].n_buckets)
			goto malformed;
		p += 8;
		memcpy(model->heads[head].scale, p, 4 * n_classes);
		p += 4 * n_classes;
		memcpy(model->heads[head].bias, p, 4 * n_classes);
		p += 4 * n_classes;
		for (size_t c = 0; c < n_classes; c++)
			if (!isfinite(model->heads[head].scale[c]) || !isfinite(model->heads[head].bias[c]))
				goto malformed;
		model->heads[head].weights = malloc(n_weights);
		if (!model->heads[head].weights) {
			ruv_textclass_free(model);
			return ruv_fail_memory(err, "textclass", n_weights);
		}
		memcpy(model->heads[head].weights, p, n_weights);
		p += n_weights;
	}
	*out = model;
	return RUV_OK;
malformed:
	ruv_textclass_free(model);
	return ruv_fail(err, RUV_EFORMAT, "textclass", "the text classifiers are not of the form that this program reads");
}
