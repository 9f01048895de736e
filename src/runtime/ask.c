/* ask.c - the loop. Its stages, in order, are the functions that ruv_ask() calls:
 *
 *     embed       the question becomes a vector
 *     retrieve    passages near it in meaning and in words, both lists fused
 *     graph       what edges lead to from there, all ordered together, where that was measured to find more
 *     route       which model answers, where that is left to the router
 *     assemble    the prompt, with as many of them as fit
 *     weigh       which sentence of them answers the question, for models that quote
 *     generate    the answer, streamed
 *     cite        which passage each quote of it stands in
 *     judge       whether it is grounded, complete and well-formed
 *     write       a good answer back to memory, and the answer to the learner
 *
 * An answer of a small tier that is not sure enough of itself is given again by a larger one: route says when. Each stage notes its
 * time. A stage that does not apply (no memory asked for) is left out, none is imitated. Layer: runtime. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"
#include "runtime/aftermath.h"
#include "runtime/cite.h"
#include "runtime/context.h"
#include "runtime/evidence.h"
#include "runtime/graph.h"
#include "runtime/quote.h"
#include "runtime/route.h"
#include "runtime/runtime.h"
#include "runtime/support.h"

/* Messages of a conversation that a model which cites is given: it was trained on follow-ups of two exchanges. */
enum { MAX_HISTORY = 4 };

enum { MAX_PASSES = 40 };

/* What one question needs on its way through the stages. */
typedef struct asking {
	ruv_runtime *runtime;
	const ruv_ask_params *params;
	ruv_answer *answer;
	ruv_arena *strings; /* answer->owner */
	ruv_model *model;
	ruv_session *session, *own_session;
	ruv_scheduler *scheduler;                 /* generates in place of a session; NULL: a session does */
	ruv_adapter *adapter;                     /* NULL: none */
	ruv_model *acquired;                      /* from the scheduler, to be given up */
	char *search_text;                        /* what is looked for: the question, with the one before it where it needs that */
	float *vector;                            /* [dim], NULL when searching by words alone */
	const ruv_context_source *prompt_sources; /* [answer->n_in_prompt] as they stand in it */
	ruv_context context;
	ruv_evidence evidence;
	ruv_quote *quote;             /* NULL: the model is free */
	const char *which;            /* model that answers: as in ruv_runtime_model, NULL: the configured one */
	ruv_route_decision *decision; /* NULL without the router */
	ruv_generation generation;
	int64_t stage_ns;
	struct {
		const char *name;
		int64_t start_ns;
		double ms;
	} passes[MAX_PASSES]; /* each pass through a stage, for the trace */
	int n_passes;
} asking;

static void begin_stage(asking *a)
{
	a->stage_ns = ruv_clock_now_ns();
}

/* Adds to a stage's time, which ended at end_ns: an answer that is given again passes through some of them twice. */
static void add_stage(asking *a, const char *name, int64_t end_ns, double ms)
{
	ruv_answer *answer = a->answer;

	if (a->n_passes < MAX_PASSES) {
		a->passes[a->n_passes].name = name;
		a->passes[a->n_passes].start_ns = end_ns - (int64_t)(ms * 1e6);
		a->passes[a->n_passes++].ms = ms;
	}
	for (int i = 0; i < answer->n_stages; i++)
		if (!strcmp(answer->stages[i].name, name)) {
			answer->stages[i].ms += ms;
			return;
		}
	if (answer->n_stages < RUV_ANSWER_MAX_STAGES)
		answer->stages[answer->n_stages++] = (ruv_stage){name, ms};
}

static void end_stage(asking *a, const char *name)
{
	const int64_t now = ruv_clock_now_ns();

	add_stage(a, name, now, (double)(now - a->stage_ns) * 1e-6);
}

static char *keep(asking *a, const char *text)
{
	return ruv_arena_strndup(a->strings, text ? text : "", text ? strlen(text) : 0);
}

/* ---- embed ------------------------------------------------------------------------------------------------------------- */

/* Words that say nothing about what a message is about, besides those of less than three letters. */
static bool is_common_word(const char *word, size_t n)
{
	static const char *const words[] = {
	    "about", "all",   "and",   "any",   "are",   "but",    "can",  "could",  "did",   "does", "for",
	    "from",  "had",   "has",   "have",  "her",   "him",    "his",  "how",    "its",   "long", "many",
	    "more",  "much",  "not",   "one",   "other", "please", "she",  "should", "some",  "tell", "that",
	    "the",   "their", "them",  "then",  "there", "these",  "they", "this",   "those", "was",  "were",
	    "what",  "when",  "where", "which", "who",   "why",    "will", "with",   "would", "you",  "your"};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strlen(words[i]) == n && !strncasecmp(words[i], word, n))
			return true;
	return n < 3;
}

/* Does a question lean on the one before it? It has a pronoun and is short, or begins like a continuation ("And ...", "what about
 * ...") with hardly a word of its own, or asks with nothing but a word or two ("Why?"). */
static bool leans_on_history(const char *question)
{
	static const char *const pronouns[] = {"it",  "its",   "he",   "she",  "they",  "them",  "him",  "her",
	                                       "his", "their", "that", "this", "those", "these", "there"};
	static const char *const starts[] = {"and", "so", "but", "or", "then", "what about", "how about"};
	int n_words = 0, n_own = 0;
	bool pronoun = false, start = false;

	for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
		size_t n = strlen(starts[i]);

		start = start || (!strncasecmp(question, starts[i], n) && !isalpha((unsigned char)question[n]));
	}
	for (const char *p = question; *p;) {
		size_t n = 0;

		while (isalnum((unsigned char)p[n]) || (unsigned char)p[n] >= 0x80)
			n++;
		if (n) {
			n_words++;
			n_own += !is_common_word(p, n);
			for (size_t i = 0; i < sizeof pronouns / sizeof *pronouns; i++)
				pronoun = pronoun || (strlen(pronouns[i]) == n && !strncasecmp(pronouns[i], p, n));
		}
		p += n ? n : 1;
	}
	return (pronoun && n_words <= 10) || (start && n_own <= 1) || (n_words <= 2 && strchr(question, '?'));
}

/* The text to search for. */
static int choose_search_text(asking *a, ruv_error *err)
{
	const ruv_ask_params *params = a->params;
	const char *before = NULL;
	ruv_buf text;

	for (int i = params->n_history - 1; i >= 0 && !before; i--)
		if (!strcmp(params->history[i].role, "user"))
			before = params->history[i].content;
	ruv_buf_init(&text, (size_t)16 << 20);
	if (before && leans_on_history(params->question)) {
		ruv_context_squash(&text, before);
		ruv_buf_putc(&text, ' ');
	}
	ruv_context_squash(&text, params->question);
	a->search_text = ruv_buf_take(&text);
	return a->search_text ? RUV_OK : ruv_fail_memory(err, "ask", strlen(params->question));
}

static int embed(asking *a, ruv_error *err)
{
	ruv_embedder *embedder;
	int rc = choose_search_text(a, err);

	if (rc || !strcmp(a->runtime->settings.search, "lexical"))
		return rc;
	begin_stage(a);
	rc = ruv_runtime_embedder(a->runtime, &embedder, err);
	if (rc)
		return rc;
	a->vector = malloc(sizeof(float) * (size_t)ruv_embedder_dim(embedder));
	if (!a->vector)
		return ruv_fail_memory(err, "ask", sizeof(float) * (size_t)ruv_embedder_dim(embedder));
	rc = ruv_runtime_embed_question(a->runtime, a->search_text, a->vector, a->params->cancel, err);
	if (!rc)
		end_stage(a, "embed");
	return rc;
}

/* ---- retrieve ---------------------------------------------------------------------------------------------------------- */

static int take_hits(asking *a, const ruv_memory_hits *hits, ruv_error *err)
{
	ruv_answer *answer = a->answer;

	answer->sources = ruv_arena_calloc(a->strings, (size_t)hits->n + 1, sizeof *answer->sources);
	if (!answer->sources)
		return ruv_fail_memory(err, "ask", (size_t)hits->n * sizeof *answer->sources);
	for (int i = 0; i < hits->n; i++) {
		const ruv_memory_hit *hit = &hits->items[i];
		ruv_source *source = &answer->sources[i];

		memcpy(source->id, hit->node.id, sizeof source->id);
		source->text = keep(a, hit->node.text);
		source->title = keep(a, hit->node.title);
		source->source = keep(a, hit->node.source);
		if (!source->text || !source->title || !source->source)
			return ruv_fail_memory(err, "ask", strlen(hit->node.text));
		source->first_line = hit->node.first_line;
		source->last_line = hit->node.last_line;
		source->score = hit->score;
		source->cosine = hit->cosine;
		source->bm25 = hit->bm25;
		source->vector_rank = hit->vector_rank;
		source->lexical_rank = hit->lexical_rank;
	}
	answer->n_sources = hits->n;
	return RUV_OK;
}

static int retrieve(asking *a, ruv_error *err)
{
	const ruv_settings *settings = &a->runtime->settings;
	ruv_memory_query query = {.text = a->search_text, .vector = a->vector, .k = (int)settings->sources};
	ruv_memory_hits hits = {0};
	ruv_graph_times times;
	ruv_memory *memory;
	int rc;

	begin_stage(a);
	rc = a->vector ? ruv_runtime_bound_memory(a->runtime, false, &memory, err)
	               : ruv_runtime_memory_if_any(a->runtime, &memory, err);
	if (rc == RUV_ENOTFOUND) { /* nothing was ever remembered: no sources */
		end_stage(a, "retrieve");
		return RUV_OK;
	}
	if (rc)
		return rc;
	query.mode = !strcmp(settings->search, "vector")    ? RUV_SEARCH_VECTOR
	             : !strcmp(settings->search, "lexical") ? RUV_SEARCH_LEXICAL
	                                                    : RUV_SEARCH_HYBRID;
	query.fusion = !strcmp(settings->fusion, "zscore") ? RUV_FUSE_ZSCORE : RUV_FUSE_RRF;
	if (a->params->n_sources > 0)
		query.k = a->params->n_sources;
	query.filter.scope = a->params->scope ? *a->params->scope : ruv_runtime_scope(a->runtime);
	if (!isnan(settings->min_cosine))
		query.min_cosine = (float)settings->min_cosine;
	rc = ruv_runtime_search(a->runtime, memory, &hits, &query, &times, err);
	if (rc)
		return rc;
	rc = take_hits(a, &hits, err);
	ruv_memory_hits_release(&hits);
	if (!rc) {
		const double graph_ms = (double)(times.gather_ns + times.score_ns) * 1e-6;
		const int64_t now = ruv_clock_now_ns(), graph_ns = times.gather_ns + times.score_ns;

		add_stage(a, "retrieve", now - graph_ns, (double)(now - graph_ns - a->stage_ns) * 1e-6);
		if (times.score_ns)
			add_stage(a, "graph", now, graph_ms);
	}
	return rc;
}

/* Does the text have a word that begins with the first five letters of this one? */
static bool has_word(const char *text, const char *word, size_t n)
{
	n = n > 5 ? 5 : n;
	for (const char *p = text; *p; p++)
		if ((p == text || !isalnum((unsigned char)p[-1])) && !strncasecmp(p, word, n))
			return true;
	return false;
}

/* At least half of the question's own words stand in the source. */
static bool shares_words(const char *question, const ruv_source *source)
{
	int n_words = 0, n_found = 0;

	for (const char *p = question; *p;) {
		size_t n = 0;

		while (isalnum((unsigned char)p[n]) || (unsigned char)p[n] >= 0x80)
			n++;
		if (n && !is_common_word(p, n)) {
			n_words++;
			n_found += has_word(source->text, p, n) || has_word(source->title, p, n);
		}
		p += n ? n : 1;
	}
	return n_words && 2 * n_found >= n_words;
}

/* In a chat not every message asks something of memory. When no source is near in meaning and none has the message's words, there
 * is nothing to answer from, and the model talks freely. */
static void leave_small_talk(asking *a)
{
	ruv_answer *answer = a->answer;

	for (int i = 0; i < answer->n_sources; i++)
		if (answer->sources[i].cosine >= a->runtime->settings.chat_cosine ||
		    shares_words(a->search_text, &answer->sources[i]))
			return;
	answer->n_sources = 0;
}

/* ---- assemble ---------------------------------------------------------------------------------------------------------- */

/* With the setting learn, the configured generator goes through what it has learned. A caller's session has its own adapter. */
static int take_adapter(asking *a, ruv_error *err)
{
	ruv_runtime *runtime = a->runtime;
	ruv_learner *learner;
	int rc;

	if (!runtime->settings.learn || a->params->session ||
	    strcmp(ruv_runtime_serving_name(runtime, a->which), ruv_runtime_serving_name(runtime, NULL)))
		return RUV_OK;
	rc = ruv_runtime_learner(runtime, &learner, err);
	if (!rc)
		rc = ruv_learner_adapter(learner, a->model, &a->adapter, err);
	return rc || !a->adapter || a->scheduler ? rc : ruv_session_set_adapter(a->session, a->adapter, err);
}

/* What generates: the caller's session, the scheduler when somebody serves, or a session of its own. */
static int open_generator(asking *a, ruv_error *err)
{
	ruv_runtime *runtime = a->runtime;
	ruv_model_info info;
	int rc = RUV_OK;

	a->session = a->params->session;
	a->scheduler = a->session ? NULL : atomic_load(&runtime->scheduler);
	if (a->scheduler) {
		const char *name = ruv_runtime_serving_name(runtime, a->which);

		rc = ruv_scheduler_acquire(a->scheduler, name, &a->acquired, err);
		if (rc)
			return rc;
		a->model = a->acquired;
		a->answer->n_ctx = ruv_scheduler_n_ctx(a->scheduler, name);
	} else {
		if (!a->session)
			rc = ruv_runtime_session(runtime, a->which, &a->own_session, err);
		if (rc)
			return rc;
		a->session = a->session ? a->session : a->own_session;
		a->model = ruv_session_model(a->session);
		a->answer->n_ctx = ruv_session_n_ctx(a->session);
	}
	rc = take_adapter(a, err);
	if (rc)
		return rc;
	ruv_model_get_info(a->model, &info);
	a->answer->model = keep(a, *info.name ? info.name : info.path);
	return a->answer->model ? RUV_OK : ruv_fail_memory(err, "ask", 256);
}

/* Small models answer best from one passage. When the passage that is nearest in meaning is also the one that shares most words, it
 * is almost always the right one, so the others would only distract. */
static bool focus(const asking *a)
{
	const ruv_source *best = a->answer->sources;
	const char *wanted = a->runtime->settings.focus;

	if (a->answer->n_sources < 2 || best->vector_rank != 1 || best->lexical_rank != 1)
		return false;
	return !strcmp(wanted, "yes") || (!strcmp(wanted, "auto") && ruv_model_cites(a->model));
}

static int wanted_tokens(const asking *a)
{
	return a->params->max_tokens > 0 ? a->params->max_tokens : (int)a->runtime->settings.max_tokens;
}

/* What the model gets of a source. A remembered answer "Q: ...\nA: ..." becomes a passage under its question, so that the sentence
 * that can be quoted is the answer. */
static ruv_context_source as_source(const asking *a, const ruv_source *source)
{
	const char *split = strncmp(source->text, "Q: ", 3) ? NULL : strstr(source->text, "\nA: ");
	const char *question =
	    split && !*source->title ? ruv_arena_strndup(a->strings, source->text + 3, (size_t)(split - source->text) - 3) : NULL;

	return question ? (ruv_context_source){question, split + 4} : (ruv_context_source){source->title, source->text};
}

static int assemble(asking *a, ruv_error *err)
{
	ruv_answer *answer = a->answer;
	ruv_context_source *sources = ruv_arena_calloc(a->strings, (size_t)answer->n_sources + 1, sizeof *sources);
	ruv_context_request request = {.sources = sources,
	                               .n_sources = answer->n_sources,
	                               .question = a->params->question,
	                               .history = a->params->history,
	                               .n_history = a->params->n_history,
	                               .cites = ruv_model_cites(a->model),
	                               .n_ctx = answer->n_ctx};
	int rc, quarter = answer->n_ctx / 4, max_tokens = wanted_tokens(a);

	begin_stage(a);
	if (!sources)
		return ruv_fail_memory(err, "ask", (size_t)answer->n_sources * sizeof *sources);
	for (int i = 0; i < answer->n_sources; i++)
		sources[i] = as_source(a, &answer->sources[i]);
	/* A small model takes earlier answers for sources: it gets the conversation only where the question needs it. */
	if (request.cites && !leans_on_history(a->params->question)) {
		request.n_history = 0;
	} else if (request.cites && request.n_history > MAX_HISTORY) {
		request.history += request.n_history - MAX_HISTORY;
		request.n_history = MAX_HISTORY;
	}
	answer->focused = focus(a);
	if (answer->focused)
		request.n_sources = 1;
	request.n_reserve = max_tokens < quarter ? max_tokens : quarter;
	a->prompt_sources = sources;
	rc = ruv_context_build(&a->context, a->model, &request, err);
	if (rc)
		return rc;
	for (int i = 0; i < a->context.n_sources; i++)
		answer->sources[i].number = i + 1;
	answer->n_in_prompt = a->context.n_sources;
	answer->n_history_dropped = a->context.n_history_dropped;
	answer->n_prompt = a->context.tokens.n;
	end_stage(a, "assemble");
	if (a->params->on_sources && !answer->route.n_escalations)
		a->params->on_sources(a->params->user, answer);
	return RUV_OK;
}

/* ---- weigh ------------------------------------------------------------------------------------------------------------- */

/* Where no sentence has at least this share of the question's words, the question is worded differently and its meaning decides. */
static const float enough_overlap = 0.5F;

/* Embeds the sentences [n] of the evidence, at most MAX_SENTENCES of them, and compares them with the question. */
static int compare_sentences(asking *a, ruv_error *err)
{
	enum { MAX_SENTENCES = 64 };
	int n = a->evidence.n, dim = ruv_runtime_embed_dim(a->runtime, err), rc;
	const char *texts[MAX_SENTENCES];
	float *vectors, cosines[MAX_SENTENCES];

	if (dim < 0 || n > MAX_SENTENCES)
		return dim < 0 ? dim : RUV_OK;
	vectors = malloc(sizeof(float) * (size_t)dim * (size_t)n);
	if (!vectors)
		return ruv_fail_memory(err, "ask", sizeof(float) * (size_t)dim * (size_t)n);
	for (int i = 0; i < n; i++)
		texts[i] = a->evidence.items[i].text;
	rc = ruv_runtime_embed(a->runtime, texts, n, RUV_EMBED_PASSAGE, vectors, a->params->cancel, err);
	for (int i = 0; !rc && i < n; i++) {
		cosines[i] = 0;
		for (int d = 0; d < dim; d++)
			cosines[i] += a->vector[d] * vectors[(size_t)i * (size_t)dim + (size_t)d];
	}
	if (!rc)
		ruv_evidence_add_cosines(&a->evidence, cosines);
	free(vectors);
	return rc;
}

static int weigh(asking *a, ruv_error *err)
{
	ruv_calibrated calibrated;
	int best, rc;

	begin_stage(a);
	rc = ruv_evidence_open(&a->evidence, a->prompt_sources, a->answer->n_in_prompt, a->search_text, err);
	if (rc)
		return rc;
	best = ruv_evidence_best(&a->evidence);
	if (a->vector && best >= 0 && a->evidence.items[best].overlap < enough_overlap)
		rc = compare_sentences(a, err);
	if (!rc)
		rc = ruv_calibration_read(&calibrated, a->model, err);
	if (!rc)
		rc = ruv_quote_open(&a->quote, a->model, &a->evidence, &calibrated, err);
	if (!rc)
		end_stage(a, "weigh");
	return rc;
}

/* ---- generate ---------------------------------------------------------------------------------------------------------- */

/* Prompts of one scope share their beginnings in the prefix cache, those of different ones do not: how fast an answer comes must
 * not tell what somebody else asked. */
static uint64_t privacy_salt(const asking *a)
{
	ruv_memory_scope scope = a->params->scope ? *a->params->scope : ruv_runtime_scope(a->runtime);
	const char *const parts[] = {scope.user, scope.agent, scope.session};
	uint64_t salt = 0;

	for (int i = 0; i < 3; i++)
		if (parts[i])
			salt = ruv_hash64(parts[i], strlen(parts[i]), salt + (uint64_t)i + 1);
	return salt;
}

/* Could a larger tier be asked as well? Then nothing of the answer is shown before it stands. */
static bool may_escalate(const asking *a)
{
	ruv_router *router;

	return a->decision && !ruv_runtime_router(a->runtime, &router, NULL) && a->decision->tier + 1 < ruv_router_n_tiers(router);
}

/* The caller's form for the answer as a constraint; its `state` is NULL without one. */
static int hold_to_form(const asking *a, ruv_constraint *form, ruv_error *err)
{
	const ruv_ask_params *p = a->params;
	ruv_grammar *grammar;
	int rc;

	if (!p->grammar)
		return RUV_OK;
	rc = ruv_grammar_open(&grammar, a->model, p->grammar_kind, p->grammar, p->grammar_bytes, err);
	if (rc)
		return rc;
	rc = ruv_grammar_constrain(grammar, form, err);
	ruv_grammar_free(grammar);
	return rc;
}

static int generate(asking *a, ruv_error *err)
{
	ruv_answer *answer = a->answer;
	ruv_generate_params params = {.max_tokens = wanted_tokens(a),
	                              .constraint = ruv_quote_constraint(a->quote),
	                              .cancel = a->params->cancel,
	                              .on_piece = may_escalate(a) ? NULL : a->params->on_piece,
	                              .user = a->params->user};
	int room = answer->n_ctx - a->context.tokens.n, first, rc;
	ruv_logit_bias *bias = NULL;
	ruv_constraint form = {0};

	if (params.max_tokens > room)
		params.max_tokens = room;
	if (a->params->sampling)
		params.sampling = *a->params->sampling;
	else
		ruv_runtime_sampling(a->runtime, a->model, &params.sampling);
	if (a->quote) { /* besides the caller's */
		int n = params.sampling.n_bias;

		bias = ruv_arena_calloc(a->strings, (size_t)n + 1, sizeof *bias);
		if (!bias)
			return ruv_fail_memory(err, "ask", ((size_t)n + 1) * sizeof *bias);
		if (n)
			memcpy(bias, params.sampling.bias, (size_t)n * sizeof *bias);
		bias[n] = ruv_quote_bias(a->quote);
		params.sampling.bias = bias;
		params.sampling.n_bias = n + 1;
	}
	rc = hold_to_form(a, &form, err);
	if (rc)
		return rc;
	if (form.state)
		params.constraint = &form;
	if (a->scheduler) {
		ruv_request request = {.model = ruv_runtime_serving_name(a->runtime, a->which),
		                       .prompt = a->context.tokens.ids,
		                       .n_prompt = a->context.tokens.n,
		                       .params = &params,
		                       .adapter = a->adapter,
		                       .salt = privacy_salt(a)};

		rc = ruv_scheduler_generate(a->scheduler, &request, &a->generation, err);
	} else {
		rc = ruv_generate(a->session, a->context.tokens.ids, a->context.tokens.n, &params, &a->generation, err);
	}
	if (form.state)
		form.free(form.state);
	if (rc)
		return rc;
	answer->text = a->generation.text;
	a->generation.text = NULL;
	answer->n_tokens = a->generation.n_tokens;
	answer->n_kept = a->generation.n_kept;
	first = ruv_quote_n_given(a->quote);
	for (int i = first; a->generation.logprobs && i < a->generation.n_tokens; i++) {
		answer->mean_logprob += a->generation.logprobs[i] / (a->generation.n_tokens - first);
		answer->min_logprob = fmin(answer->min_logprob, a->generation.logprobs[i]);
	}
	answer->finish = a->generation.finish;
	answer->prefill_ms = a->generation.prefill_ms;
	answer->decode_ms = a->generation.decode_ms;
	answer->seed = a->generation.seed;
	const int64_t now = ruv_clock_now_ns();

	add_stage(a, "prefill", now - (int64_t)(answer->decode_ms * 1e6), answer->prefill_ms);
	add_stage(a, "generate", now, answer->decode_ms);
	return RUV_OK;
}

/* ---- cite -------------------------------------------------------------------------------------------------------------- */

/* The line of the source's file where a quote begins; 0 when the file is gone, has changed too much, or is no file. */
static int line_of(const ruv_source *source, const char *quote, size_t n)
{
	ruv_map map;
	int line;

	if (source->source[0] != '/' || source->first_line <= 0 || ruv_map_open(&map, source->source, NULL))
		return 0;
	line = ruv_cite_find_line((const char *)map.data, map.size, source->first_line, source->last_line, quote, n);
	ruv_map_release(&map);
	return line;
}

/* The source that a quote stands in word for word: the one that the model named, else any other that it was given. -1: none. */
static int find_quote(const ruv_answer *answer, int named, const char *quote, size_t n)
{
	if (ruv_cite_is_verbatim(answer->sources[named].text, quote, n))
		return named;
	for (int i = 0; i < answer->n_in_prompt; i++)
		if (ruv_cite_is_verbatim(answer->sources[i].text, quote, n))
			return i;
	return -1;
}

static int cite(asking *a, ruv_error *err)
{
	ruv_answer *answer = a->answer;
	ruv_cite_parts parts;

	begin_stage(a);
	ruv_cite_parse(&parts, answer->text);
	answer->unknown = parts.unknown;
	answer->answer = ruv_arena_strndup(a->strings, answer->text + parts.answer_begin, parts.answer_end - parts.answer_begin);
	if (!answer->answer)
		return ruv_fail_memory(err, "ask", strlen(answer->text));
	for (int i = 0; i < parts.n_marks; i++) {
		const ruv_cite_mark *mark = &parts.marks[i];
		ruv_citation *citation = &answer->citations[answer->n_citations];
		size_t n = mark->end - mark->begin;
		int found;

		if (mark->number > answer->n_in_prompt) /* there is no such source: it is not claimed */
			continue;
		citation->named = mark->number;
		citation->quote = ruv_arena_strndup(a->strings, answer->text + mark->begin, n);
		if (!citation->quote)
			return ruv_fail_memory(err, "ask", n);
		found = find_quote(answer, mark->number - 1, citation->quote, n);
		citation->source = found >= 0 ? found : mark->number - 1;
		citation->verbatim = found >= 0;
		citation->line = found >= 0 ? line_of(&answer->sources[found], citation->quote, n) : 0;
		answer->sources[citation->source].cited = true;
		answer->n_citations++;
	}
	end_stage(a, "cite");
	return RUV_OK;
}

/* ---- route ------------------------------------------------------------------------------------------------------------- */

static bool wants_router(const asking *a)
{
	const char *model = a->params->model ? a->params->model : a->runtime->settings.model;

	return !a->params->session && !strcmp(model, "auto");
}

static void take_tier(asking *a, int tier)
{
	ruv_answer_route *route = &a->answer->route;

	a->which = ruv_route_tier_name(a->runtime, tier);
	snprintf(route->tier, sizeof route->tier, "%s", a->which);
}

static int route(asking *a, ruv_error *err)
{
	ruv_answer_route *route = &a->answer->route;
	int rc;

	begin_stage(a);
	a->decision = ruv_arena_calloc(a->strings, 1, sizeof *a->decision);
	if (!a->decision)
		return ruv_fail_memory(err, "ask", sizeof *a->decision);
	rc = ruv_route_question(a->runtime, a->params->question, a->vector, a->params->scope, a->answer, a->params->route_state,
	                        a->decision, err);
	if (rc)
		return rc;
	take_tier(a, a->decision->tier);
	route->used = true;
	memcpy(route->first, route->tier, sizeof route->first);
	route->why = ruv_route_why_name(a->decision->why);
	route->confidence = a->decision->confidence;
	end_stage(a, "route");
	return RUV_OK;
}

/* Forgets the answer of a tier that was not sure enough, but for the sources. */
static void begin_again(asking *a)
{
	ruv_answer *answer = a->answer;

	ruv_context_release(&a->context);
	ruv_evidence_release(&a->evidence);
	ruv_quote_free(a->quote);
	ruv_generation_release(&a->generation);
	ruv_session_free(a->own_session);
	ruv_model_free(a->acquired);
	ruv_adapter_free(a->adapter);
	a->quote = NULL;
	a->session = a->own_session = NULL;
	a->acquired = NULL;
	a->adapter = NULL;
	free(answer->text);
	answer->text = NULL;
	answer->n_citations = 0;
	answer->mean_logprob = answer->min_logprob = 0;
	for (int i = 0; i < answer->n_sources; i++)
		answer->sources[i].cited = false, answer->sources[i].number = 0;
}

/* ---- judge, write ------------------------------------------------------------------------------------------------------ */

static ruv_aftermath aftermath_of(const asking *a)
{
	return (ruv_aftermath){
	    .params = a->params, .vector = a->vector, .decision = a->decision, .cites = ruv_model_cites(a->model), .support = -1};
}

/* How well the answer follows from its sentence; *support stays as it is where that cannot be told. What the model makes of the
 * sentence without the question is asked of a session that nobody goes on in. */
static int support_of(asking *a, double *support, ruv_error *err)
{
	const ruv_answer *answer = a->answer;
	int n_own = answer->n_tokens - ruv_quote_n_given(a->quote), sentence, rc = RUV_OK;
	ruv_session *session = a->own_session;
	double unasked;

	if (!a->evidence.n || answer->unknown || answer->mean_logprob >= 0 || !*answer->answer)
		return RUV_OK;
	if (!session) {
		ruv_session_options options = {.n_ctx = answer->n_ctx};

		rc = ruv_session_open(&session, a->model, &options, err);
	}
	sentence = ruv_support_sentence(&a->evidence, answer->answer);
	if (!rc)
		rc = ruv_support_unasked(&unasked, session,
		                         a->evidence.items[sentence < 0 ? ruv_evidence_best(&a->evidence) : sentence].text,
		                         answer->answer, a->params->cancel, err);
	if (!rc) /* the end that the model came to counts as certain */
		*support = ruv_support_probability(&a->evidence, sentence, answer->mean_logprob * n_own / (n_own + 1), unasked);
	if (session != a->own_session)
		ruv_session_free(session);
	return rc;
}

static int judge(asking *a, ruv_error *err)
{
	ruv_aftermath what = aftermath_of(a);
	int rc;

	a->answer->verdict.quality = -1;
	if (a->answer->n_in_prompt == 0)
		return RUV_OK;
	begin_stage(a);
	rc = support_of(a, &what.support, err);
	if (!rc)
		rc = ruv_aftermath_judge(a->answer, &what, err);
	if (!rc)
		end_stage(a, "judge");
	return rc;
}

static int write_back(asking *a, ruv_error *err)
{
	ruv_aftermath what = aftermath_of(a);
	ruv_buf prompt;
	int rc;

	begin_stage(a);
	ruv_buf_init(&prompt, (size_t)16 << 20);
	if (a->runtime->settings.learn) {
		rc = ruv_context_user_text(&prompt, a->prompt_sources, a->answer->n_in_prompt, a->params->question);
		if (rc) {
			ruv_buf_release(&prompt);
			return ruv_fail_memory(err, "ask", prompt.len);
		}
		what.prompt = ruv_buf_cstr(&prompt);
	}
	rc = ruv_aftermath_write(a->runtime, a->answer, &what, err);
	if (!rc)
		rc = ruv_aftermath_note(a->runtime, a->answer, &what, err);
	if (!rc && (a->answer->wrote || a->answer->observed))
		end_stage(a, "write");
	ruv_buf_release(&prompt);
	return rc;
}

/* ---- the loop ---------------------------------------------------------------------------------------------------------- */

/* From the prompt to the judged answer of one model. */
static int answer_once(asking *a, ruv_error *err)
{
	int rc = open_generator(a, err);

	if (!rc)
		rc = assemble(a, err);
	if (!rc && ruv_model_cites(a->model) && a->answer->n_in_prompt && !a->params->grammar)
		rc = weigh(a, err);
	if (!rc)
		rc = generate(a, err);
	if (!rc)
		rc = cite(a, err);
	return rc ? rc : judge(a, err);
}

/* The answer, by larger tiers while the router finds it wanting. What was held back of it is handed out at the end. */
static int answer_by_tiers(asking *a, ruv_error *err)
{
	ruv_answer *answer = a->answer;
	bool held_back;
	int next, rc;

	for (;;) {
		held_back = may_escalate(a);
		rc = answer_once(a, err);
		if (rc || !held_back || answer->finish == RUV_FINISH_CANCELLED ||
		    !ruv_route_escalates(a->runtime, a->decision, answer, &next))
			break;
		begin_again(a);
		answer->route.n_escalations++;
		a->decision->tier = next;
		take_tier(a, next);
	}
	if (!rc && held_back && a->params->on_piece && *answer->text) {
		ruv_piece piece = {answer->text, strlen(answer->text), answer->n_tokens};

		a->params->on_piece(a->params->user, &piece);
	}
	return rc;
}

static int begin(asking *a, ruv_runtime *runtime, const ruv_ask_params *params, ruv_answer *answer, ruv_error *err)
{
	memset(a, 0, sizeof *a);
	memset(answer, 0, sizeof *answer);
	a->runtime = runtime;
	a->params = params;
	a->answer = answer;
	a->which = params->model;
	if (!params->question || !params->question[strspn(params->question, " \t\r\n")])
		return ruv_fail(err, RUV_EINVAL, "ask", "the question is empty");
	a->strings = malloc(sizeof *a->strings);
	if (!a->strings)
		return ruv_fail_memory(err, "ask", sizeof *a->strings);
	ruv_arena_init(a->strings);
	answer->owner = a->strings;
	return RUV_OK;
}

/* The span of the answer and one for each pass through a stage: what took how long, never what was said. */
static void trace(const asking *a, int64_t started, int rc, const ruv_error *err)
{
	ruv_tracer *tracer = ruv_runtime_tracer(a->runtime);
	const ruv_answer *answer = a->answer;
	ruv_trace_span span, stage;

	if (!tracer)
		return;
	ruv_trace_span_begin(&span, a->params->trace, "ask", RUV_SPAN_INTERNAL);
	span.start_ns = started;
	ruv_trace_span_end(&span);
	if (rc)
		span.failure = err ? ruv_status_name(err->code) : ruv_status_name(rc);
	if (!rc && *answer->id)
		ruv_trace_span_text(&span, "ruvllm.answer.id", answer->id);
	ruv_trace_span_whole(&span, "ruvllm.sources", answer->n_sources);
	if (!rc) {
		ruv_trace_span_text(&span, "gen_ai.request.model", answer->model);
		ruv_trace_span_whole(&span, "gen_ai.usage.input_tokens", answer->n_prompt);
		ruv_trace_span_whole(&span, "gen_ai.usage.output_tokens", answer->n_tokens);
		ruv_trace_span_whole(&span, "ruvllm.cached_tokens", answer->n_kept);
		ruv_trace_span_text(&span, "ruvllm.finish", answer->text ? ruv_finish_name(answer->finish) : NULL);
		ruv_trace_span_whole(&span, "ruvllm.unknown", answer->unknown);
		ruv_trace_span_text(&span, "ruvllm.route.tier", answer->route.used ? answer->route.tier : NULL);
		ruv_trace_span_text(&span, "ruvllm.route.why", answer->route.used ? answer->route.why : NULL);
		ruv_trace_span_whole(&span, "ruvllm.route.escalations", answer->route.n_escalations);
		if (answer->verdict.quality >= 0)
			ruv_trace_span_real(&span, "ruvllm.quality", (double)answer->verdict.quality);
	}
	ruv_tracer_add(tracer, &span);
	for (int i = 0; i < a->n_passes; i++) {
		ruv_trace_span_make(&stage, &span.self, a->passes[i].name, a->passes[i].start_ns, a->passes[i].ms);
		ruv_tracer_add(tracer, &stage);
	}
}

static void end(asking *a, int rc)
{
	free(a->search_text);
	free(a->vector);
	ruv_context_release(&a->context);
	ruv_evidence_release(&a->evidence);
	ruv_quote_free(a->quote);
	ruv_generation_release(&a->generation);
	ruv_session_free(a->own_session);
	ruv_model_free(a->acquired);
	ruv_adapter_free(a->adapter);
	if (rc)
		ruv_answer_release(a->answer);
}

int ruv_ask(ruv_runtime *runtime, const ruv_ask_params *params, ruv_answer *answer, ruv_error *err)
{
	asking a;
	int64_t started = ruv_clock_now_ns();
	int rc = begin(&a, runtime, params, answer, err);

	atomic_fetch_add(&runtime->n_asking, 1);
	if (!rc && !params->no_memory)
		rc = embed(&a, err);
	if (!rc && !params->no_memory)
		rc = retrieve(&a, err);
	if (!rc && !params->no_memory && params->chat && a.vector)
		leave_small_talk(&a);
	if (!rc && !params->no_memory && !params->chat && answer->n_sources == 0)
		rc = ruv_fail(err, RUV_ENOTFOUND, "ask", "the memory in %s has nothing to answer from", runtime->settings.data_dir);
	if (!rc && wants_router(&a))
		rc = route(&a, err);
	if (!rc)
		rc = answer_by_tiers(&a, err);
	answer->total_ms = (double)(ruv_clock_now_ns() - started) * 1e-6;
	if (!rc)
		rc = write_back(&a, err);
	answer->total_ms = (double)(ruv_clock_now_ns() - started) * 1e-6;
	trace(&a, started, rc, err);
	end(&a, rc);
	atomic_fetch_sub(&runtime->n_asking, 1);
	return rc;
}

int ruv_retrieve(ruv_runtime *runtime, const ruv_ask_params *params, ruv_answer *answer, ruv_error *err)
{
	asking a;
	int64_t started = ruv_clock_now_ns();
	int rc = begin(&a, runtime, params, answer, err);

	if (!rc)
		rc = embed(&a, err);
	if (!rc)
		rc = retrieve(&a, err);
	answer->total_ms = (double)(ruv_clock_now_ns() - started) * 1e-6;
	trace(&a, started, rc, err);
	end(&a, rc);
	return rc;
}

void ruv_answer_release(ruv_answer *answer)
{
	ruv_arena *strings = answer->owner;

	free(answer->text);
	if (strings) {
		ruv_arena_release(strings);
		free(strings);
	}
	memset(answer, 0, sizeof *answer);
}
