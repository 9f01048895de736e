/* answer_match.c - SQuAD's normal form, token F1 and exact match; see answer_match.h. */
#include "text/answer_match.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/buf.h"
#include "base/status.h"

enum { MAX_NORMAL_BYTES = 1 << 24 };

/* Lower case without ASCII punctuation; invalid bytes are kept as they are. */
static int lower_and_strip(ruv_buf *out, const char *text)
{
	const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text;
	size_t left = strlen(text);

	while (left) {
		utf8proc_int32_t c;
		utf8proc_uint8_t bytes[4];
		utf8proc_ssize_t n = utf8proc_iterate(p, (utf8proc_ssize_t)left, &c);
		if (n <= 0) {
			ruv_buf_append(out, p, 1);
			n = 1;
		} else if (c < 0x80 ? !ispunct(c) : true) {
			/* The Unicode spaces that Python's split() knows count as white space here too. */
			utf8proc_category_t category = utf8proc_category(c);
			if (category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
			    category == UTF8PROC_CATEGORY_ZP)
				ruv_buf_putc(out, ' ');
			else
				ruv_buf_append(out, bytes, (size_t)utf8proc_encode_char(utf8proc_tolower(c), bytes));
		}
		p += n;
		left -= (size_t)n;
	}
	return out->failed;
}

static bool is_article(const char *word, size_t n)
{
	return (n == 1 && word[0] == 'a') || (n == 2 && !memcmp(word, "an", 2)) || (n == 3 && !memcmp(word, "the", 3));
}

char *ruv_answer_normalize(const char *text)
{
	ruv_buf plain, out;
	char *word, *rest = NULL, *result = NULL;

	ruv_buf_init(&plain, MAX_NORMAL_BYTES);
	ruv_buf_init(&out, MAX_NORMAL_BYTES);
	if (lower_and_strip(&plain, text) || ruv_buf_puts(&plain, ""))
		goto done;
	for (word = strtok_r(plain.data, " \t\r\n\v\f", &rest); word; word = strtok_r(NULL, " \t\r\n\v\f", &rest)) {
		if (is_article(word, strlen(word)))
			continue;
		if (out.len)
			ruv_buf_putc(&out, ' ');
		ruv_buf_puts(&out, word);
	}
	result = ruv_buf_take(&out);
done:
	ruv_buf_release(&plain);
	ruv_buf_release(&out);
	return result;
}

/* ---- bags of words ---- */

struct bag {
	char *text;   /* normal form, cut into words in place */
	char **words; /* [n], sorted */
	int n;
};

static void bag_release(struct bag *bag)
{
	free(bag->words);
	free(bag->text);
}

static int compare_words(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int bag_init(struct bag *bag, const char *text)
{
	char *word, *rest = NULL;

	*bag = (struct bag){.text = ruv_answer_normalize(text)};
	if (!bag->text)
		return RUV_ENOMEM;
	bag->words = malloc((strlen(bag->text) / 2 + 1) * sizeof *bag->words);
	if (!bag->words)
		return RUV_ENOMEM;
	for (word = strtok_r(bag->text, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		bag->words[bag->n++] = word;
	qsort(bag->words, (size_t)bag->n, sizeof *bag->words, compare_words);
	return RUV_OK;
}

static ruv_answer_score compare_bags(const struct bag *given, const struct bag *right)
{
	int i = 0, j = 0, n_same = 0;
	double precision, recall;

	if (given->n == 0 || right->n == 0) /* both empty agree, one empty does not */
		return (ruv_answer_score){given->n == right->n ? 1.0 : 0.0, given->n == right->n};
	while (i < given->n && j < right->n) {
		int order = strcmp(given->words[i], right->words[j]);
		n_same += order == 0;
		i += order <= 0;
		j += order >= 0;
	}
	if (!n_same)
		return (ruv_answer_score){0, false};
	precision = (double)n_same / given->n;
	recall = (double)n_same / right->n;
	return (ruv_answer_score){2 * precision * recall / (precision + recall), false};
}

int ruv_answer_match(ruv_answer_score *score, const char *given, const char *const *right, int n_right, ruv_error *err)
{
	struct bag a = {0}, b = {0};
	char *normal = NULL;
	int rc = RUV_OK;

	*score = (ruv_answer_score){0};
	if (n_right < 1)
		return ruv_fail(err, RUV_EINVAL, "answer_match", "there is no right answer to compare with");
	normal = ruv_answer_normalize(given);
	if (!normal || bag_init(&a, given)) {
		rc = ruv_fail_memory(err, "answer_match", strlen(given));
		goto done;
	}
	for (int i = 0; i < n_right; i++) {
		char *other = ruv_answer_normalize(right[i]);
		ruv_answer_score one;
		if (!other || bag_init(&b, right[i])) {
			free(other);
			rc = ruv_fail_memory(err, "answer_match", strlen(right[i]));
			goto done;
		}
		one = compare_bags(&a, &b);
		one.exact = !strcmp(normal, other);
		if (one.f1 > score->f1)
			score->f1 = one.f1;
		score->exact |= one.exact;
		free(other);
		bag_release(&b);
		b = (struct bag){0};
	}
done:
	free(normal);
	bag_release(&a);
	bag_release(&b);
	return rc;
}

int ruv_answer_contains(const char *text, const char *part)
{
	char *a = ruv_answer_normalize(text), *b = ruv_answer_normalize(part);
	int found = -1;

	if (a && b) {
		size_t n = strlen(b);
		found = 0;
		for (const char *p = n ? strstr(a, b) : NULL; p && !found; p = strstr(p + 1, b))
			found = (p == a || p[-1] == ' ') && (p[n] == '\0' || p[n] == ' ');
	}
	free(a);
	free(b);
	return found;
}
