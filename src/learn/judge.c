/* judge.c - what can be checked about an answer without a model, how that and a model's score become one quality, and how well a
 * score separates right from wrong.
 *
 * Words are runs of letters, digits and bytes above ASCII, lower-cased, compared by Snowball's English stem, so that "backups"
 * stands in "the backup starts". Function words do not count.
 *
 * quality = sigmoid(bias + sum of weight x score). The built-in weights follow what ruv_judge_fit finds on right and wrong answers
 * of bench/data (grounding tells most), with completeness and format kept as guards; `ruvllm learn judge-bench` prints how well
 * both tell them apart. The model's score has a weight only when it was asked. */
#include <ctype.h>
#include <libstemmer.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/hash.h"
#include "base/status.h"
#include "ruvllm/learn.h"

static const char where[] = "judge";

/* ---- words ---- */

enum { MAX_WORDS = 2048, WORD = 32 };

/* Stems that a text has. */
typedef struct stem_set {
	uint64_t stems[MAX_WORDS];
	int n;
} stem_set;

/* What the checks work with. */
typedef struct workspace {
	struct sb_stemmer *stemmer;
	stem_set set;
} workspace;

/* A word of a text: as it stands there in lower case (its beginning, when it is long), and its stem's hash. */
typedef struct word {
	char text[WORD];
	uint64_t stem;
} word;

static bool is_word_byte(char c)
{
	return isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

static bool is_common(const char *w)
{
	static const char *const common[] = {
	    "a",    "an",    "the",   "and",  "or",   "of",   "to",     "in",       "on",   "at",    "by",  "for",
	    "from", "with",  "as",    "is",   "are",  "was",  "were",   "be",       "been", "it",    "its", "this",
	    "that", "these", "those", "they", "he",   "she",  "his",    "her",      "you",  "your",  "i",   "my",
	    "we",   "our",   "do",    "does", "did",  "has",  "have",   "had",      "what", "which", "who", "whom",
	    "when", "where", "why",   "how",  "many", "much", "answer", "question", "will", "would", "can", "not",
	    "no",   "there", "their", "than", "then", "into", "about"};
	for (size_t i = 0; i < sizeof common / sizeof *common; i++)
		if (!strcmp(w, common[i]))
			return true;
	return false;
}

/* The next word of *text; false at the end. */
static bool next_word(struct sb_stemmer *stemmer, const char **text, word *out)
{
	const char *p = *text;
	size_t n = 0;
	while (*p && !is_word_byte(*p))
		p++;
	if (!*p)
		return false;
	for (; is_word_byte(*p); p++)
		if (n < WORD - 1)
			out->text[n++] = (char)tolower((unsigned char)*p);
	out->text[n] = 0;
	*text = p;
	const sb_symbol *stem = sb_stemmer_stem(stemmer, (const sb_symbol *)out->text, (int)n);
	out->stem = stem ? ruv_hash64(stem, (size_t)sb_stemmer_length(stemmer), 0) : ruv_hash64(out->text, n, 0);
	return true;
}

static bool has_stem(const stem_set *set, uint64_t stem)
{
	for (int i = 0; i < set->n; i++)
		if (set->stems[i] == stem)
			return true;
	return false;
}

static void add_words(workspace *ws, const char *text)
{
	word w;
	while (ws->set.n < MAX_WORDS && next_word(ws->stemmer, &text, &w))
		if (!has_stem(&ws->set, w.stem))
			ws->set.stems[ws->set.n++] = w.stem;
}

/* ---- the checks ---- */

/* The text without its citation marks "[1]", which no source holds; NULL when memory is out. */
static char *without_marks(const char *text)
{
	char *copy = strdup(text), *to = copy;
	for (const char *p = text; copy && *p;) {
		size_t n = *p == '[' ? strspn(p + 1, "0123456789") : 0;
		if (n && p[1 + n] == ']')
			p += n + 2;
		else
			*to++ = *p++;
	}
	if (copy)
		*to = 0;
	return copy;
}

/* Share of the content words of the answer that stand in the sources; numbers that do not stand there count three times. */
static float grounded(const ruv_judged *what, const char *answer, workspace *ws)
{
	const char *p = answer;
	word w;
	double found = 0, all = 0;
	if (what->n_sources == 0)
		return 1;
	ws->set.n = 0;
	for (int i = 0; i < what->n_sources; i++)
		add_words(ws, what->sources[i]);
	while (next_word(ws->stemmer, &p, &w)) {
		if (is_common(w.text))
			continue;
		const bool number = isdigit((unsigned char)w.text[0]) != 0, there = has_stem(&ws->set, w.stem);
		all += number && !there ? 3 : 1;
		found += there;
	}
	return all > 0 ? (float)(found / all) : 0;
}

static bool asks(const char *question, const char *phrase)
{
	return strcasestr(question, phrase) != NULL;
}

/* Does the answer have the kind of thing that the question asks for, and something besides the question's own words? */
static float complete(const ruv_judged *what, workspace *ws)
{
	static const char *const units[] = {
	    "one",     "two",       "three",    "four",      "five",     "six",      "seven",   "eight",    "nine",     "ten",
	    "dozen",   "twice",     "once",     "half",      "hundred",  "thousand", "million", "noon",     "midnight", "monday",
	    "tuesday", "wednesday", "thursday", "friday",    "saturday", "sunday",   "january", "february", "march",    "april",
	    "june",    "july",      "august",   "september", "october",  "november", "december"};
	const char *p = what->answer;
	word w;
	bool number = false, capital = false, news = false, any = false;
	ws->set.n = 0;
	add_words(ws, what->question);
	while (next_word(ws->stemmer, &p, &w)) {
		any = true;
		number |= isdigit((unsigned char)w.text[0]) != 0;
		for (size_t i = 0; i < sizeof units / sizeof *units; i++) /* "fourth", "sixty", "thousands" too */
			number |= !strncmp(w.text, units[i], strlen(units[i])) && strlen(w.text) <= strlen(units[i]) + 2;
		news |= !is_common(w.text) && !has_stem(&ws->set, w.stem);
	}
	for (const char *c = what->answer; *c; c++)
		capital |= isupper((unsigned char)*c) && (c == what->answer || !is_word_byte(c[-1]));
	if (!any)
		return 0;
	double parts = 1, met = news ? 1 : 0;
	if (asks(what->question, "how many") || asks(what->question, "how much") || asks(what->question, "what year") ||
	    asks(what->question, "how old") || asks(what->question, "how long") || asks(what->question, "how often") ||
	    asks(what->question, "what time") || !strncasecmp(what->question, "when", 4)) {
		parts++;
		met += number;
	}
	if (!strncasecmp(what->question, "who", 3) || asks(what->question, "whose") || asks(what->question, "what is the name")) {
		parts++;
		met += capital;
	}
	if (asks(what->question, " and what") || asks(what->question, " and when") || asks(what->question, " and how") ||
	    asks(what->question, " and who") || asks(what->question, " and where")) {
		parts++;
		met += strchr(what->answer, ',') || asks(what->answer, " and ");
	}
	return (float)(met / parts);
}

/* The largest share of the text that is one run of four words said again. */
static double repetition(const char *text, struct sb_stemmer *stemmer)
{
	word words[256];
	int n = 0, again = 0;
	while (n < 256 && next_word(stemmer, &text, &words[n]))
		n++;
	if (n < 12)
		return 0;
	for (int i = 4; i + 4 <= n; i++) {
		bool seen = false;
		for (int j = 0; j + 4 <= i && !seen; j++) {
			seen = true;
			for (int k = 0; k < 4 && seen; k++)
				seen = words[i + k].stem == words[j + k].stem;
		}
		again += seen;
	}
	return (double)again / (n - 3);
}

static bool says_unknown(const char *answer)
{
	static const char *const forms[] = {"i don't know",       "i do not know",   "i dont know",    "i'm not sure",
	                                    "i am not sure",      "i cannot answer", "i can't answer", "there is no information",
	                                    "the sources do not", "not mentioned"};
	answer += strspn(answer, " \t\r\n");
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
		if (!strncasecmp(answer, forms[i], strlen(forms[i])))
			return true;
	return false;
}

static float format(const ruv_judged *what, struct sb_stemmer *stemmer, const char **why)
{
	static const char *const leftovers[] = {"<|", "|>", "[INST]", "<<SYS>>", "</s>", "Question:", "Sources:"};
	const char *answer = what->answer + strspn(what->answer, " \t\r\n");
	const size_t n = strlen(answer);
	double score = 1;
	if (!n) {
		*why = "it is empty";
		return 0;
	}
	for (size_t i = 0; i < sizeof leftovers / sizeof *leftovers; i++)
		if (strstr(answer, leftovers[i])) {
			*why = "it holds leftovers of a prompt";
			return 0;
		}
	const double repeats = repetition(answer, stemmer);
	if (repeats > 0.2) {
		*why = "it repeats itself";
		score *= 1 - repeats;
	}
	if (what->must_cite && !says_unknown(answer)) {
		const char *open = strchr(answer, '[');
		const long number = open ? strtol(open + 1, NULL, 10) : 0;
		if (number < 1 || number > what->n_sources) {
			*why = "it cites no source that exists";
			score *= 0.4;
		}
		if (!strstr(answer, "Answer:")) {
			*why = "the short answer is missing";
			score *= 0.6;
		}
	}
	if (n > 60 && !strchr(".!?\")']", answer[n - 1]) && !strstr(answer, "Answer:")) {
		*why = "it seems cut off";
		score *= 0.8;
	}
	return (float)score;
}

/* See the opening comment. */
static const ruv_judge_weights built_in = {.bias = -4.0f, .grounded = 3.2f, .complete = 1.6f, .format = 1.6f, .model = 0.4f};

int ruv_judge_check(ruv_verdict *verdict, const ruv_judged *given, const ruv_judge_weights *weights, ruv_error *err)
{
	ruv_judged what = *given;
	what.question = what.question ? what.question : "";
	what.answer = what.answer ? what.answer : "";
	memset(verdict, 0, sizeof *verdict);
	verdict->why = "";
	if (what.n_sources < 0 || (what.n_sources && !what.sources))
		return ruv_fail(err, RUV_EINVAL, where, "%d sources", what.n_sources);
	if (what.model_score != 0 && !(what.model_score >= 1 && what.model_score <= 5))
		return ruv_fail(err, RUV_EINVAL, where, "a model's score of %g is not in 1..5", (double)what.model_score);
	workspace *ws = calloc(1, sizeof *ws);
	char *plain = without_marks(what.answer);
	if (ws)
		ws->stemmer = sb_stemmer_new("english", NULL);
	if (!ws || !ws->stemmer || !plain) {
		if (ws)
			sb_stemmer_delete(ws->stemmer);
		free(ws);
		free(plain);
		return ruv_fail_memory(err, where, sizeof *ws);
	}
	verdict->refusal = says_unknown(what.answer);
	verdict->format = format(&what, ws->stemmer, &verdict->why);
	verdict->grounded = grounded(&what, plain, ws);
	verdict->complete = verdict->refusal ? 0 : complete(&what, ws);
	sb_stemmer_delete(ws->stemmer);
	free(ws);
	free(plain);
	verdict->model = what.model_score != 0 ? (what.model_score - 1) / 4 : -1;
	verdict->checks = cbrtf(verdict->grounded * verdict->complete * verdict->format);
	if (!*verdict->why && verdict->refusal)
		verdict->why = "it says that it does not know";
	else if (!*verdict->why && verdict->grounded < 0.6f && verdict->grounded <= verdict->complete)
		verdict->why = "much of it does not stand in the sources";
	else if (!*verdict->why && verdict->complete < 0.6f)
		verdict->why = "it lacks what the question asks for";
	const ruv_judge_weights *w = weights ? weights : &built_in;
	double z = (double)w->bias + (double)w->grounded * (double)verdict->grounded +
	           (double)w->complete * (double)verdict->complete + (double)w->format * (double)verdict->format;
	if (verdict->model >= 0)
		z += (double)w->model * ((double)verdict->model - 0.5) * 2;
	verdict->quality = verdict->refusal || verdict->format == 0 ? 0 : (float)(1 / (1 + exp(-z)));
	return RUV_OK;
}

/* ---- calibration ---- */

struct scored {
	float score;
	bool right;
};

static int by_score(const void *x, const void *y)
{
	const struct scored *a = x, *b = y;
	return a->score < b->score ? -1 : a->score > b->score;
}

int ruv_judge_calibrate(ruv_calibration *out, const float *scores, const bool *labels, int n, ruv_error *err)
{
	memset(out, 0, sizeof *out);
	out->n = n;
	for (int i = 0; i < n; i++) {
		if (!isfinite(scores[i]))
			return ruv_fail(err, RUV_EINVAL, where, "score %d is not finite", i);
		out->n_right += labels[i];
	}
	const int n_wrong = n - out->n_right;
	if (out->n_right == 0 || n_wrong <= 0)
		return ruv_fail(err, RUV_EINVAL, where, "calibration needs right and wrong answers; there are %d and %d",
		                out->n_right, n_wrong);
	struct scored *all = malloc((size_t)n * sizeof *all);
	if (!all)
		return ruv_fail_memory(err, where, (size_t)n * sizeof *all);
	double sx = 0, sxx = 0, sxy = 0, pairs = 0;
	for (int i = 0; i < n; i++) {
		all[i] = (struct scored){scores[i], labels[i]};
		const double x = (double)scores[i], y = labels[i];
		sx += x;
		sxx += x * x;
		sxy += x * y;
		const double p = x < 0 ? 0 : x > 1 ? 1 : x;
		out->brier += (p - y) * (p - y) / n;
	}
	const double my = (double)out->n_right / n, vx = sxx / n - sx / n * (sx / n), vy = my * (1 - my);
	out->correlation = vx > 0 ? (sxy / n - sx / n * my) / sqrt(vx * vy) : 0;
	qsort(all, (size_t)n, sizeof *all, by_score);
	/* wrong ones below each right one; ties half */
	int below_wrong = 0, below_right = 0;
	double best = -1;
	for (int i = 0; i < n;) {
		int right = 0, wrong = 0, j = i;
		const double balanced = 0.5 * ((double)(out->n_right - below_right) / out->n_right + (double)below_wrong / n_wrong);
		if (balanced > best) { /* everything from this score on is called right */
			best = balanced;
			out->threshold = (double)all[i].score;
			out->true_right = out->n_right - below_right;
			out->false_right = n_wrong - below_wrong;
			out->true_wrong = below_wrong;
			out->false_wrong = below_right;
		}
		for (; j < n && all[j].score == all[i].score; j++) {
			right += all[j].right;
			wrong += !all[j].right;
		}
		pairs += (double)right * (below_wrong + 0.5 * wrong);
		below_right += right;
		below_wrong += wrong;
		i = j;
	}
	out->auc = pairs / ((double)out->n_right * n_wrong);
	free(all);
	return RUV_OK;
}

int ruv_judge_fit(ruv_judge_weights *out, const ruv_verdict *verdicts, const bool *labels, int n, bool use_model, ruv_error *err)
{
	enum { DIM = 5, STEPS = 4000 };
	double w[DIM] = {0};
	int n_right = 0;
	for (int i = 0; i < n; i++)
		n_right += labels[i];
	if (n_right == 0 || n_right == n)
		return ruv_fail(err, RUV_EINVAL, where, "fitting needs right and wrong answers; there are %d and %d", n_right,
		                n - n_right);
	for (int step = 0; step < STEPS; step++) {
		double g[DIM] = {0};
		for (int i = 0; i < n; i++) {
			const ruv_verdict *v = &verdicts[i];
			const double x[DIM] = {1, (double)v->grounded, (double)v->complete, (double)v->format,
			                       use_model && v->model >= 0 ? ((double)v->model - 0.5) * 2 : 0};
			double z = 0;
			for (int k = 0; k < DIM; k++)
				z += w[k] * x[k];
			const double d = 1 / (1 + exp(-z)) - labels[i];
			for (int k = 0; k < DIM; k++)
				g[k] += d * x[k] / n;
		}
		for (int k = 0; k < DIM; k++)
			w[k] -= 1.0 * (g[k] + (k ? 1e-3 * w[k] : 0));
	}
	*out = (ruv_judge_weights){(float)w[0], (float)w[1], (float)w[2], (float)w[3], use_model ? (float)w[4] : 0};
	return RUV_OK;
}
