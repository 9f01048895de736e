/* grammar.c - which tokens a grammar allows: the vocabulary as a trie, followed through the automaton.
 *
 * The tokens of a vocabulary, sorted, are a trie in preorder; the tokens that may follow at a place are found by walking it with
 * the automaton, leaving out what is below a byte that cannot follow. The result is kept with the place (in the manner of XGrammar,
 * Dong et al. 2024, arXiv 2411.15100, whose token masks belong to automaton states), and places with the compiled grammar, and
 * compiled grammars with the model: a server's hundredth request with a schema finds nearly everything done. Deviation: masks
 * belong to places, stacks included, so that none of their bits is left to be checked.
 *
 * Both stores are bounded: masks beyond MASK_BYTES are dropped, places beyond PLACE_BYTES are forgotten but for those that running
 * constraints are at.
 *
 * Threads: a grammar's lock guards its automaton and masks; a model's grammars have a lock of their own. Layer: infer. */
#include "ruvllm/grammar.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"
#include "infer/grammar.h"
#include "infer/grammar_automaton.h"
#include "model/object.h"

static const char where[] = "grammar";

enum {
	MAX_CACHED = 64,
	MAX_TOKEN_BYTES = 1024, /* longer tokens are never generated under a grammar */
	HISTORY = 32,           /* places kept for rolling back */
	MASK_BYTES = 32 << 20,
	PLACE_BYTES = 64 << 20,
};

/* ---- the vocabulary ---- */

typedef struct trie_node {
	uint32_t skip;   /* the next node that is not below this one */
	ruv_token token; /* that ends here, -1: none; more of the same bytes follow in `same` */
	uint16_t depth;  /* 1 for a first byte */
	uint8_t byte;
} trie_node;

typedef struct trie {
	int n_refs;       /* atomic */
	trie_node *nodes; /* [n_nodes] in preorder */
	size_t n_nodes;
	ruv_token *same; /* [n_tokens] the next token of the same bytes, -1: none */
	char **bytes;    /* [n_tokens] of every token that the trie holds; NULL: not in it */
	uint16_t *length;
	bool *is_end; /* [n_tokens] */
	int n_tokens;
	ruv_token *ends; /* [n_ends] */
	int n_ends, max_depth;
	char *text; /* what bytes points into */
} trie;

typedef struct entry {
	const char *bytes;
	size_t n;
	ruv_token token;
} entry;

static int by_bytes(const void *a, const void *b)
{
	const entry *x = a, *y = b;
	const size_t n = x->n < y->n ? x->n : y->n;
	int order = memcmp(x->bytes, y->bytes, n);

	if (order)
		return order;
	if (x->n != y->n)
		return x->n < y->n ? -1 : 1;
	return (x->token > y->token) - (x->token < y->token);
}

static void trie_free(trie *t)
{
	if (!t || __atomic_sub_fetch(&t->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	free(t->nodes);
	free(t->same);
	free(t->bytes);
	free(t->length);
	free(t->is_end);
	free(t->ends);
	free(t->text);
	free(t);
}

/* Nodes from entries sorted by bytes. */
static int trie_build(trie *t, const entry *entries, size_t n)
{
	uint32_t open[MAX_TOKEN_BYTES + 1]; /* the node at each depth of the last entry */
	size_t total = 0, depth = 0;

	for (size_t i = 0; i < n; i++)
		total += entries[i].n;
	t->nodes = malloc((total + 1) * sizeof *t->nodes);
	if (!t->nodes)
		return RUV_ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const entry *e = &entries[i];
		size_t shared = 0;

		if (i)
			while (shared < depth && shared < e->n && entries[i - 1].bytes[shared] == e->bytes[shared])
				shared++;
		while (depth > shared)
			t->nodes[open[depth--]].skip = (uint32_t)t->n_nodes;
		while (depth < e->n) {
			open[++depth] = (uint32_t)t->n_nodes;
			t->nodes[t->n_nodes++] =
			    (trie_node){.byte = (uint8_t)e->bytes[depth - 1], .depth = (uint16_t)depth, .token = -1};
		}
		t->same[e->token] = t->nodes[open[depth]].token;
		t->nodes[open[depth]].token = e->token;
		t->max_depth = (int)depth > t->max_depth ? (int)depth : t->max_depth;
	}
	while (depth > 0)
		t->nodes[open[depth--]].skip = (uint32_t)t->n_nodes;
	return RUV_OK;
}

static int trie_open(trie **out, const ruv_model *model, ruv_error *err)
{
	const ruv_vocab *vocab = model->vocab;
	const int n = vocab ? (int)ruv_vocab_n_tokens(vocab) : 0;
	trie *t = calloc(1, sizeof *t);
	entry *entries = malloc(((size_t)n + 1) * sizeof *entries);
	size_t n_entries = 0, total = 0, at = 0;
	int rc = RUV_OK;

	*out = NULL;
	if (!vocab) {
		rc = ruv_fail(err, RUV_EUNSUPPORTED, where, "this model has no tokenizer, so that no grammar can be followed");
		goto done;
	}
	if (t) {
		t->n_refs = 1;
		t->n_tokens = n;
		t->same = malloc((size_t)n * sizeof *t->same);
		t->bytes = calloc((size_t)n, sizeof *t->bytes);
		t->length = calloc((size_t)n, sizeof *t->length);
		t->is_end = calloc((size_t)n, sizeof *t->is_end);
		t->ends = malloc((size_t)n * sizeof *t->ends);
	}
	if (!t || !entries || !t->same || !t->bytes || !t->length || !t->is_end || !t->ends) {
		rc = ruv_fail_memory(err, where, (size_t)n * 32);
		goto done;
	}
	for (ruv_token i = 0; i < n; i++) {
		ruv_str bytes = ruv_vocab_bytes(vocab, i);

		if (ruv_vocab_is_end(vocab, i)) {
			t->is_end[i] = true;
			t->ends[t->n_ends++] = i;
		} else if (!ruv_vocab_is_special(vocab, i) && ruv_vocab_may_sample(vocab, i) && bytes.len &&
		           bytes.len <= MAX_TOKEN_BYTES) {
			entries[n_entries++] = (entry){bytes.data, bytes.len, i};
			total += bytes.len;
		}
	}
	qsort(entries, n_entries, sizeof *entries, by_bytes);
	rc = trie_build(t, entries, n_entries);
	t->text = malloc(total + 1);
	if (rc || !t->text) {
		rc = ruv_fail_memory(err, where, total * sizeof(trie_node));
		goto done;
	}
	for (size_t i = 0; i < n_entries; i++) {
		memcpy(t->text + at, entries[i].bytes, entries[i].n);
		t->bytes[entries[i].token] = t->text + at;
		t->length[entries[i].token] = (uint16_t)entries[i].n;
		at += entries[i].n;
	}
	*out = t;
	t = NULL;
done:
	free(entries);
	trie_free(t);
	return rc;
}

/* ---- grammars ---- */

typedef struct running {
	struct ruv_grammar *grammar;
	int places[HISTORY];          /* ring: behind the i-th token at i % HISTORY */
	int64_t n;                    /* tokens accepted; places[n % HISTORY] is here */
	int64_t ended;                /* accepted when the end token came, -1: not yet */
	struct running *next, **link; /* the grammar's list */
} running;

struct ruv_grammar {
	int n_refs;           /* atomic */
	pthread_mutex_t lock; /* everything below */
	ruv_automaton *automaton;
	trie *trie;
	size_t mask_bytes;
	running *first;
	int *walk; /* [trie->max_depth + 1] places on the way down the trie */
};

static ruv_grammar *hold(ruv_grammar *g)
{
	__atomic_add_fetch(&g->n_refs, 1, __ATOMIC_RELAXED);
	return g;
}

void ruv_grammar_free(ruv_grammar *g)
{
	if (!g || __atomic_sub_fetch(&g->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	ruv_automaton_free(g->automaton);
	trie_free(g->trie);
	free(g->walk);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

static int grammar_make(ruv_grammar **out, const ruv_gast *ast, trie *t, ruv_error *err)
{
	ruv_grammar *g = calloc(1, sizeof *g);
	int rc;

	if (!g)
		return ruv_fail_memory(err, where, sizeof *g);
	g->n_refs = 1;
	pthread_mutex_init(&g->lock, NULL);
	g->walk = malloc(((size_t)t->max_depth + 1) * sizeof *g->walk);
	g->trie = t;
	__atomic_add_fetch(&t->n_refs, 1, __ATOMIC_RELAXED);
	rc = g->walk ? ruv_automaton_open(&g->automaton, ast, err) : ruv_fail_memory(err, where, (size_t)t->max_depth);
	if (rc) {
		ruv_grammar_free(g);
		return rc;
	}
	*out = g;
	return RUV_OK;
}

typedef struct source {
	ruv_grammar_kind kind;
	const char *text; /* [n] */
	size_t n;
} source;

static int parse(void *user, ruv_gast *ast, const ruv_model *model, ruv_error *err)
{
	const source *from = user;
	const ruv_gnode *node = NULL;
	json_t *schema;
	json_error_t at;
	int rc;

	if (from->kind == RUV_GRAMMAR_GBNF)
		return ruv_gbnf_parse(ast, from->text, from->n, model->vocab, err);
	ast->root = ruv_gast_rule(ast, "root");
	if (from->kind == RUV_GRAMMAR_JSON_OBJECT) {
		node = ruv_gjson_object(ast);
		rc = RUV_OK;
	} else {
		schema = json_loadb(from->text, from->n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &at);
		if (!schema)
			return ruv_fail(err, RUV_EFORMAT, where, "the schema is no JSON: line %d, column %d: %s", at.line,
			                at.column, at.text);
		rc = ruv_schema_compile(ast, schema, &node, err);
		json_decref(schema);
	}
	if (!rc)
		rc = ruv_gast_check(ast, err);
	if (!rc)
		ast->rules[ast->root].node = node;
	return rc;
}

/* ---- the model's grammars ---- */

typedef struct cached {
	int kind;
	char *text; /* [n] */
	size_t n;
	uint64_t hash, used; /* used: when, counted in requests */
	ruv_grammar *grammar;
} cached;

typedef struct store {
	pthread_mutex_t lock;
	trie *trie;
	cached entries[MAX_CACHED];
	int n;
	uint64_t clock;
} store;

static pthread_mutex_t stores_lock = PTHREAD_MUTEX_INITIALIZER; /* making a model's store */

static void store_free(void *arg)
{
	store *s = arg;

	for (int i = 0; i < s->n; i++) {
		free(s->entries[i].text);
		ruv_grammar_free(s->entries[i].grammar);
	}
	trie_free(s->trie);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static int store_of(store **out, ruv_model *model, ruv_error *err)
{
	store *s;
	int rc = RUV_OK;

	pthread_mutex_lock(&stores_lock);
	s = model->grammars;
	if (!s) {
		s = calloc(1, sizeof *s);
		rc = s ? trie_open(&s->trie, model, err) : ruv_fail_memory(err, where, sizeof *s);
		if (rc) {
			free(s);
			s = NULL;
		} else {
			pthread_mutex_init(&s->lock, NULL);
			model->grammars = s;
			model->free_grammars = store_free;
		}
	}
	pthread_mutex_unlock(&stores_lock);
	*out = s;
	return rc;
}

static ruv_grammar *store_find(store *s, int kind, uint64_t hash, const char *text, size_t n)
{
	for (int i = 0; i < s->n; i++) {
		cached *c = &s->entries[i];

		if (c->kind == kind && c->hash == hash && c->n == n && (!n || !memcmp(c->text, text, n))) {
			c->used = ++s->clock;
			return hold(c->grammar);
		}
	}
	return NULL;
}

/* Keeps the grammar in the place of the one that was not asked for the longest. Without memory it is just not kept. */
static void store_keep(store *s, int kind, uint64_t hash, const char *text, size_t n, ruv_grammar *grammar)
{
	char *copy = malloc(n + 1);
	cached *c;

	if (!copy)
		return;
	if (s->n < MAX_CACHED) {
		c = &s->entries[s->n++];
	} else {
		c = &s->entries[0];
		for (int i = 1; i < s->n; i++)
			c = s->entries[i].used < c->used ? &s->entries[i] : c;
		free(c->text);
		ruv_grammar_free(c->grammar);
	}
	if (n)
		memcpy(copy, text, n);
	c->kind = kind;
	c->text = copy;
	c->n = n;
	c->hash = hash;
	c->used = ++s->clock;
	c->grammar = hold(grammar);
}

int ruv_grammar_build(ruv_grammar **out, ruv_model *model, int kind, const char *text, size_t n, ruv_grammar_builder *build,
                      void *user, ruv_error *err)
{
	ruv_gast ast;
	uint64_t hash;
	store *s;
	int rc;

	*out = NULL;
	if (n > RUV_GRAMMAR_MAX_TEXT)
		return ruv_fail(err, RUV_ELIMIT, where, "the grammar has %zu bytes, at most %d are allowed", n,
		                (int)RUV_GRAMMAR_MAX_TEXT);
	rc = store_of(&s, model, err);
	if (rc)
		return rc;
	hash = ruv_hash64(text, n, (uint64_t)kind);
	pthread_mutex_lock(&s->lock);
	*out = store_find(s, kind, hash, text, n);
	if (!*out) {
		ruv_gast_init(&ast);
		rc = build(user, &ast, model, err);
		if (!rc)
			rc = ruv_gast_check(&ast, err);
		if (!rc)
			rc = grammar_make(out, &ast, s->trie, err);
		if (!rc)
			store_keep(s, kind, hash, text, n, *out);
		ruv_gast_release(&ast);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int ruv_grammar_open(ruv_grammar **out, ruv_model *model, ruv_grammar_kind kind, const char *text, size_t n, ruv_error *err)
{
	source from = {kind, text, n};

	return ruv_grammar_build(out, model, (int)kind, text, kind == RUV_GRAMMAR_JSON_OBJECT ? 0 : n, parse, &from, err);
}

/* ---- masks ---- */

static void set_bit(void *user, ruv_token token)
{
	uint64_t *mask = user;

	mask[token / 64] |= (uint64_t)1 << (token % 64);
}

static void drop_masks(ruv_grammar *g)
{
	const int n = ruv_automaton_n_places(g->automaton);

	for (int i = 0; i < n; i++) {
		void **note = ruv_automaton_note(g->automaton, i);

		free(*note);
		*note = NULL;
	}
	g->mask_bytes = 0;
}

/* The tokens that may follow at `place`; the grammar's, until it changes. */
static int mask_of(ruv_grammar *g, int place, const uint64_t **out, ruv_error *err)
{
	const trie *t = g->trie;
	const size_t bytes = ((size_t)t->n_tokens + 63) / 64 * sizeof(uint64_t);
	uint64_t *mask = *ruv_automaton_note(g->automaton, place);

	if (mask) {
		*out = mask;
		return RUV_OK;
	}
	if (g->mask_bytes + bytes > MASK_BYTES)
		drop_masks(g);
	mask = calloc(1, bytes);
	if (!mask)
		return ruv_fail_memory(err, where, bytes);
	g->walk[0] = place;
	for (size_t i = 0; i < t->n_nodes;) {
		const trie_node *n = &t->nodes[i];
		const int next = ruv_automaton_step(g->automaton, g->walk[n->depth - 1], n->byte);

		if (next < 0) {
			free(mask);
			return ruv_automaton_fail(next, err);
		}
		if (next == RUV_PLACE_DEAD) {
			i = n->skip;
			continue;
		}
		g->walk[n->depth] = next;
		for (ruv_token token = n->token; token >= 0; token = t->same[token])
			set_bit(mask, token);
		i++;
	}
	ruv_automaton_tokens(g->automaton, place, set_bit, mask);
	if (ruv_automaton_may_end(g->automaton, place))
		for (int i = 0; i < t->n_ends; i++)
			set_bit(mask, t->ends[i]);
	*ruv_automaton_note(g->automaton, place) = mask;
	g->mask_bytes += bytes;
	*out = mask;
	return RUV_OK;
}

/* Forgets places when there are too many, all but those that constraints may come back to. */
static int keep_small(ruv_grammar *g, ruv_error *err)
{
	int **places, n = 0, rc;
	size_t n_running = 0;

	if (ruv_automaton_n_bytes(g->automaton) <= PLACE_BYTES)
		return RUV_OK;
	for (running *r = g->first; r; r = r->next)
		n_running++;
	places = malloc((n_running * HISTORY + 1) * sizeof *places);
	if (!places)
		return ruv_fail_memory(err, where, n_running);
	for (running *r = g->first; r; r = r->next)
		for (int i = 0; i < HISTORY; i++)
			places[n++] = &r->places[i];
	rc = ruv_automaton_forget(g->automaton, places, n);
	free(places);
	g->mask_bytes = 0;
	return rc ? ruv_automaton_fail(rc, err) : RUV_OK;
}

/* ---- constraints ---- */

static int fill(void *state, uint64_t *allowed, int n_vocab, ruv_error *err)
{
	running *r = state;
	ruv_grammar *g = r->grammar;
	const trie *t = g->trie;
	const int n = n_vocab < t->n_tokens ? n_vocab : t->n_tokens;
	const uint64_t *mask = NULL;
	int rc = RUV_OK;

	if (r->ended >= 0) {
		for (int i = 0; i < t->n_ends; i++)
			set_bit(allowed, t->ends[i]);
		return RUV_OK;
	}
	pthread_mutex_lock(&g->lock);
	rc = keep_small(g, err);
	if (!rc)
		rc = mask_of(g, r->places[r->n % HISTORY], &mask, err);
	if (!rc)
		memcpy(allowed, mask, ((size_t)n + 63) / 64 * sizeof *allowed);
	pthread_mutex_unlock(&g->lock);
	return rc;
}

/* The place behind `token`. */
static int follow(ruv_grammar *g, int place, ruv_token token)
{
	const trie *t = g->trie;
	int special = ruv_automaton_step_token(g->automaton, place, token), next = RUV_PLACE_DEAD;

	if (special >= 0 && token < t->n_tokens && t->bytes[token]) {
		next = place;
		for (int i = 0; i < t->length[token] && next > 0; i++)
			next = ruv_automaton_step(g->automaton, next, (unsigned char)t->bytes[token][i]);
	}
	return special < 0 ? special : next < 0 ? next : ruv_automaton_join(g->automaton, next, special);
}

static int accept(void *state, ruv_token token, ruv_error *err)
{
	running *r = state;
	ruv_grammar *g = r->grammar;
	int place, next, rc = RUV_OK;

	if (token < 0 || token >= g->trie->n_tokens)
		return ruv_fail(err, RUV_EINVAL, where, "token %d is outside the vocabulary of %d", token, g->trie->n_tokens);
	pthread_mutex_lock(&g->lock);
	place = r->places[r->n % HISTORY];
	if (r->ended >= 0) {
		next = g->trie->is_end[token] ? place : RUV_PLACE_DEAD;
	} else if (g->trie->is_end[token] && ruv_automaton_may_end(g->automaton, place)) {
		r->ended = r->n;
		next = place;
	} else {
		next = follow(g, place, token);
	}
	if (next < 0)
		rc = ruv_automaton_fail(next, err);
	else if (next == RUV_PLACE_DEAD)
		rc = ruv_fail(err, RUV_EINVAL, where, "token %d may not follow here", token);
	else
		r->places[++r->n % HISTORY] = next;
	pthread_mutex_unlock(&g->lock);
	return rc;
}

static int rollback(void *state, int n_tokens, ruv_error *err)
{
	running *r = state;

	if (n_tokens < 0 || n_tokens > r->n || n_tokens >= HISTORY)
		return ruv_fail(err, RUV_EINVAL, where, "%d tokens cannot be taken back, of %lld accepted and %d remembered",
		                n_tokens, (long long)r->n, HISTORY - 1);
	r->n -= n_tokens;
	if (r->ended >= r->n)
		r->ended = -1;
	return RUV_OK;
}

static void link_running(running *r)
{
	ruv_grammar *g = r->grammar;

	r->next = g->first;
	r->link = &g->first;
	if (r->next)
		r->next->link = &r->next;
	g->first = r;
}

static int fork_state(void *state, void **copy, ruv_error *err)
{
	running *from = state, *r = malloc(sizeof *r);

	*copy = NULL;
	if (!r)
		return ruv_fail_memory(err, where, sizeof *r);
	pthread_mutex_lock(&from->grammar->lock);
	*r = *from;
	hold(r->grammar);
	link_running(r);
	pthread_mutex_unlock(&from->grammar->lock);
	*copy = r;
	return RUV_OK;
}

static void free_state(void *state)
{
	running *r = state;
	ruv_grammar *g;

	if (!r)
		return;
	g = r->grammar;
	pthread_mutex_lock(&g->lock);
	*r->link = r->next;
	if (r->next)
		r->next->link = r->link;
	pthread_mutex_unlock(&g->lock);
	free(r);
	ruv_grammar_free(g);
}

int ruv_grammar_constrain(ruv_grammar *g, ruv_constraint *constraint, ruv_error *err)
{
	running *r = malloc(sizeof *r);

	*constraint = (ruv_constraint){0};
	if (!r)
		return ruv_fail_memory(err, where, sizeof *r);
	*r = (running){.grammar = hold(g), .ended = -1};
	for (int i = 0; i < HISTORY; i++)
		r->places[i] = RUV_PLACE_BEGIN;
	pthread_mutex_lock(&g->lock);
	link_running(r);
	pthread_mutex_unlock(&g->lock);
	*constraint = (ruv_constraint){r, fill, accept, rollback, fork_state, free_state};
	return RUV_OK;
}

int ruv_grammar_match(ruv_grammar *g, const char *text, size_t n, size_t *n_matched, bool *complete, ruv_error *err)
{
	int place = RUV_PLACE_BEGIN, rc = RUV_OK;
	size_t i = 0;

	pthread_mutex_lock(&g->lock);
	while (i < n) {
		int next = ruv_automaton_step(g->automaton, place, (unsigned char)text[i]);

		if (next <= RUV_PLACE_DEAD) {
			rc = next < 0 ? ruv_automaton_fail(next, err) : RUV_OK;
			break;
		}
		place = next;
		i++;
	}
	*n_matched = i;
	*complete = !rc && i == n && ruv_automaton_may_end(g->automaton, place);
	pthread_mutex_unlock(&g->lock);
	return rc;
}
