/* grammar_automaton.c - from the tree to states, and from states to places.
 *
 * Thompson's construction (1968) a rule; subset construction on demand, over configurations (state, counter, stack). Stacks are
 * nodes of a shared tree (parent, return state, counter), equal stacks one node, so that a configuration is three numbers and a
 * place a sorted list of them. Bytes that no edge tells apart share a class; a place has one step a class. Ranges of code points
 * become ranges of UTF-8 bytes (Thompson's utf-8 splitting). Left recursion is refused: a closure would never end. */
#include "infer/grammar_automaton.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

enum {
	MAX_CONFIGS = 20000, /* of one closure */
	EXPAND_STATES = 64,  /* repetitions that take no more are copied out */
	MAX_LEFT_DEPTH = 10000,
	UNKNOWN = -1,
};

typedef enum edge_kind { EPSILON, BYTES, CALL, TOKEN } edge_kind;

typedef struct edge {
	uint8_t kind, low, high; /* of BYTES */
	uint32_t to;
	uint32_t arg;  /* CALL: the rule; TOKEN: the id */
	uint32_t next; /* the state's next edge; 0: none */
} edge;

typedef struct state {
	uint32_t first; /* edge; 0: none */
	int32_t loop;   /* of loops; -1: none */
	bool is_final;
	bool consumes; /* has an edge for bytes or a token */
} state;

/* A state that calls `rule` min to max times and goes on at `to`. */
typedef struct loop {
	uint32_t rule, to;
	int min, max; /* max -1: no limit */
} loop;

typedef struct rule {
	uint32_t start, end;
} rule;

typedef struct config {
	uint32_t state, count, stack;
} config;

typedef struct frame {
	uint32_t parent, state, count, depth;
} frame;

typedef struct place {
	uint32_t first, n; /* configs */
	bool may_end;
	void *note;
} place;

/* An open-addressing index into a growing array; slots hold number + 1. */
typedef struct table {
	uint32_t *slots;
	size_t n_slots, n_used;
} table;

struct ruv_automaton {
	edge *edges;
	size_t n_edges, cap_edges;
	state *states;
	size_t n_states, cap_states;
	loop *loops;
	size_t n_loops, cap_loops;
	rule *rules;
	size_t n_rules, cap_rules;
	uint32_t root;
	uint8_t class_of[256];
	uint8_t byte_of[256]; /* one byte of each class */
	int n_classes;

	frame *frames; /* [0] is the bottom */
	size_t n_frames, cap_frames;
	table frame_table;
	place *places;
	int32_t *steps; /* [n_places, n_classes] */
	size_t n_places, cap_places;
	config *configs; /* of all places */
	size_t n_configs, cap_configs;
	table place_table;
	/* closure's scratch */
	config *work;
	size_t n_work, cap_work;
	table seen;
};

/* ---- growing ---- */

static int grow(void *array, size_t *cap, size_t need, size_t size)
{
	void *more;
	size_t n = *cap;

	if (need <= *cap)
		return RUV_OK;
	while (n < need)
		n = n ? 2 * n : 64;
	more = realloc(*(void **)array, n * size);
	if (!more)
		return RUV_ENOMEM;
	*(void **)array = more;
	*cap = n;
	return RUV_OK;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9E3779B97F4A7C15u;
	return h ^ (h >> 29);
}

/* Room for one more; the caller puts everything in again when *rebuilt. */
static int table_room(table *t, bool *rebuilt)
{
	size_t n = t->n_slots ? 2 * t->n_slots : 256;
	uint32_t *slots;

	*rebuilt = false;
	if (2 * (t->n_used + 1) <= t->n_slots)
		return RUV_OK;
	slots = calloc(n, sizeof *slots);
	if (!slots)
		return RUV_ENOMEM;
	free(t->slots);
	t->slots = slots;
	t->n_slots = n;
	t->n_used = 0;
	*rebuilt = true;
	return RUV_OK;
}

static void table_put(table *t, uint64_t hash, size_t number)
{
	size_t i = hash & (t->n_slots - 1);

	while (t->slots[i])
		i = (i + 1) & (t->n_slots - 1);
	t->slots[i] = (uint32_t)number + 1;
	t->n_used++;
}

/* ---- building ---- */

typedef struct builder {
	ruv_automaton *a;
	const ruv_gast *ast;
	bool *productive, *nullable; /* [ast->n_rules] */
	int *mark;                   /* 0 not seen, 1 being looked at, 2 done */
	const ruv_gnode **extra;     /* children of counted repetitions, rules ast->n_rules + i */
	size_t n_extra, cap_extra;
	int failed;
} builder;

static uint32_t new_state(builder *b)
{
	ruv_automaton *a = b->a;

	if (b->failed)
		return 0;
	if (a->n_states >= RUV_AUTOMATON_MAX_STATES) {
		b->failed = RUV_ELIMIT;
		return 0;
	}
	if (grow(&a->states, &a->cap_states, a->n_states + 1, sizeof *a->states)) {
		b->failed = RUV_ENOMEM;
		return 0;
	}
	a->states[a->n_states] = (state){.loop = -1};
	return (uint32_t)a->n_states++;
}

static void new_edge(builder *b, uint32_t from, edge e)
{
	ruv_automaton *a = b->a;

	if (b->failed)
		return;
	if (grow(&a->edges, &a->cap_edges, a->n_edges + 2, sizeof *a->edges)) {
		b->failed = RUV_ENOMEM;
		return;
	}
	if (a->n_edges == 0)
		a->edges[a->n_edges++] = (edge){0}; /* number 0 is "none" */
	e.next = a->states[from].first;
	a->edges[a->n_edges] = e;
	a->states[from].first = (uint32_t)a->n_edges++;
	if (e.kind == BYTES || e.kind == TOKEN)
		a->states[from].consumes = true;
}

static void add_bytes(builder *b, uint32_t from, uint32_t to, unsigned low, unsigned high)
{
	new_edge(b, from, (edge){.kind = BYTES, .low = (uint8_t)low, .high = (uint8_t)high, .to = to});
}

static int encode(uint32_t cp, unsigned char *out)
{
	if (cp < 0x80) {
		out[0] = (unsigned char)cp;
		return 1;
	}
	if (cp < 0x800) {
		out[0] = (unsigned char)(0xC0 | cp >> 6);
		out[1] = (unsigned char)(0x80 | (cp & 63));
		return 2;
	}
	if (cp < 0x10000) {
		out[0] = (unsigned char)(0xE0 | cp >> 12);
		out[1] = (unsigned char)(0x80 | (cp >> 6 & 63));
		out[2] = (unsigned char)(0x80 | (cp & 63));
		return 3;
	}
	out[0] = (unsigned char)(0xF0 | cp >> 18);
	out[1] = (unsigned char)(0x80 | (cp >> 12 & 63));
	out[2] = (unsigned char)(0x80 | (cp >> 6 & 63));
	out[3] = (unsigned char)(0x80 | (cp & 63));
	return 4;
}

/* States that need 1, 2, 3 continuation bytes to reach `to`, made when first asked for: every class has one set of them. */
typedef struct tails {
	uint32_t to, state[4]; /* 0: not made */
} tails;

static uint32_t tail(builder *b, tails *t, int n)
{
	if (n == 0)
		return t->to;
	if (!t->state[n]) {
		uint32_t next = tail(b, t, n - 1);

		t->state[n] = new_state(b);
		if (!b->failed)
			add_bytes(b, t->state[n], next, 0x80, 0xBF);
	}
	return t->state[n];
}

/* The texts between low [n] and high [n] (same length, ordered as bytes) from `from`. */
static void add_span(builder *b, tails *t, uint32_t from, const unsigned char *low, const unsigned char *high, int n)
{
	static const unsigned char least[3] = {0x80, 0x80, 0x80}, most[3] = {0xBF, 0xBF, 0xBF};
	const bool whole_low = !memcmp(low + 1, least, (size_t)(n - 1)), whole_high = !memcmp(high + 1, most, (size_t)(n - 1));
	unsigned from_byte = low[0], to_byte = high[0];
	uint32_t next;

	if (b->failed)
		return;
	if (n == 1 || (whole_low && whole_high)) {
		add_bytes(b, from, tail(b, t, n - 1), low[0], high[0]);
		return;
	}
	if (low[0] == high[0]) {
		next = new_state(b);
		add_bytes(b, from, next, low[0], low[0]);
		add_span(b, t, next, low + 1, high + 1, n - 1);
		return;
	}
	if (!whole_low) {
		next = new_state(b);
		add_bytes(b, from, next, low[0], low[0]);
		add_span(b, t, next, low + 1, most, n - 1);
		from_byte++;
	}
	if (!whole_high) {
		next = new_state(b);
		add_bytes(b, from, next, high[0], high[0]);
		add_span(b, t, next, least, high + 1, n - 1);
		to_byte--;
	}
	if (from_byte <= to_byte)
		add_bytes(b, from, tail(b, t, n - 1), from_byte, to_byte);
}

static void add_chars(builder *b, const ruv_gnode *node, uint32_t from, uint32_t to)
{
	static const uint32_t last[4] = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
	const ruv_grange *ranges = node->items;
	tails t = {.to = to};

	for (int i = 0; i < node->n; i++) {
		uint32_t low = ranges[i].low;

		for (int w = 0; w < 4 && low <= ranges[i].high; w++) {
			unsigned char first[4], end[4];
			uint32_t high = ranges[i].high < last[w] ? ranges[i].high : last[w];

			if (low > last[w])
				continue;
			encode(low, first);
			encode(high, end);
			add_span(b, &t, from, first, end, w + 1);
			low = high + 1;
		}
	}
}

static bool is_productive(const builder *b, const ruv_gnode *node)
{
	const ruv_gnode *const *items = node->items;

	switch (node->kind) {
	case RUV_G_NEVER:
		return false;
	case RUV_G_REF:
		return b->productive[node->n];
	case RUV_G_SEQ:
		for (int i = 0; i < node->n; i++)
			if (!is_productive(b, items[i]))
				return false;
		return true;
	case RUV_G_ALT:
		for (int i = 0; i < node->n; i++)
			if (is_productive(b, items[i]))
				return true;
		return false;
	case RUV_G_REPEAT:
		return node->min == 0 || is_productive(b, node->items);
	default:
		return true;
	}
}

static bool is_nullable(const builder *b, const ruv_gnode *node)
{
	const ruv_gnode *const *items = node->items;

	switch (node->kind) {
	case RUV_G_EMPTY:
		return true;
	case RUV_G_REF:
		return b->nullable[node->n];
	case RUV_G_SEQ:
		for (int i = 0; i < node->n; i++)
			if (!is_nullable(b, items[i]))
				return false;
		return true;
	case RUV_G_ALT:
		for (int i = 0; i < node->n; i++)
			if (is_nullable(b, items[i]))
				return true;
		return false;
	case RUV_G_REPEAT:
		return node->min == 0 || is_nullable(b, node->items);
	default:
		return false;
	}
}

/* Marks the rules that can be entered before a byte is read; the rule that comes back to itself, or -1. An explicit stack would be
 * longer than it is worth: depth is limited by the caller. */
static int find_left(builder *b, int number, int depth);

static int find_left_in(builder *b, const ruv_gnode *node, int depth)
{
	const ruv_gnode *const *items = node->items;
	int found = -1;

	if (depth > MAX_LEFT_DEPTH)
		b->failed = RUV_ELIMIT;
	if (b->failed || !is_productive(b, node))
		return -1;
	switch (node->kind) {
	case RUV_G_REF:
		return find_left(b, node->n, depth + 1);
	case RUV_G_SEQ:
		for (int i = 0; i < node->n && found < 0; i++) {
			found = find_left_in(b, items[i], depth + 1);
			if (!is_nullable(b, items[i]))
				break;
		}
		return found;
	case RUV_G_ALT:
		for (int i = 0; i < node->n && found < 0; i++)
			found = find_left_in(b, items[i], depth + 1);
		return found;
	case RUV_G_REPEAT:
		return find_left_in(b, node->items, depth + 1);
	default:
		return -1;
	}
}

static int find_left(builder *b, int number, int depth)
{
	int found;

	if (b->mark[number] == 2)
		return -1;
	if (b->mark[number] == 1)
		return number;
	b->mark[number] = 1;
	found = find_left_in(b, b->ast->rules[number].node, depth);
	b->mark[number] = 2;
	return found;
}

static void compile(builder *b, const ruv_gnode *node, uint32_t from, uint32_t to);

static void compile_repeat(builder *b, const ruv_gnode *node, uint32_t from, uint32_t to)
{
	const ruv_gnode *child = node->items;
	ruv_automaton *a = b->a;
	const int copies = node->max < 0 ? node->min : node->max;
	uint32_t at = from, next;

	if (!is_productive(b, child)) {
		new_edge(b, from, (edge){.kind = EPSILON, .to = to});
		return;
	}
	if (copies > 1 && child->n_states * copies > EXPAND_STATES) {
		next = new_state(b);
		if (b->failed || grow(&a->loops, &a->cap_loops, a->n_loops + 1, sizeof *a->loops) ||
		    grow(&b->extra, &b->cap_extra, b->n_extra + 1, sizeof *b->extra)) {
			b->failed = b->failed ? b->failed : RUV_ENOMEM;
			return;
		}
		a->states[next].loop = (int32_t)a->n_loops;
		a->loops[a->n_loops++] =
		    (loop){.rule = (uint32_t)((size_t)b->ast->n_rules + b->n_extra), .to = to, .min = node->min, .max = node->max};
		b->extra[b->n_extra++] = child;
		new_edge(b, from, (edge){.kind = EPSILON, .to = next});
		return;
	}
	for (int i = 0; i < node->min; i++) {
		next = i + 1 == node->min && node->max == node->min ? to : new_state(b);
		compile(b, child, at, next);
		at = next;
	}
	if (node->max < 0) {
		next = new_state(b);
		new_edge(b, at, (edge){.kind = EPSILON, .to = next});
		compile(b, child, next, next);
		new_edge(b, next, (edge){.kind = EPSILON, .to = to});
		return;
	}
	for (int i = node->min; i < node->max; i++) {
		new_edge(b, at, (edge){.kind = EPSILON, .to = to});
		next = i + 1 == node->max ? to : new_state(b);
		compile(b, child, at, next);
		at = next;
	}
}

static void compile(builder *b, const ruv_gnode *node, uint32_t from, uint32_t to)
{
	const ruv_gnode *const *items = node->items;
	const unsigned char *bytes = node->items;
	uint32_t next;

	if (b->failed || !is_productive(b, node))
		return;
	switch (node->kind) {
	case RUV_G_NEVER:
		break;
	case RUV_G_EMPTY:
		new_edge(b, from, (edge){.kind = EPSILON, .to = to});
		break;
	case RUV_G_BYTES:
		for (int i = 0; i < node->n; i++) {
			next = i + 1 == node->n ? to : new_state(b);
			add_bytes(b, from, next, bytes[i], bytes[i]);
			from = next;
		}
		break;
	case RUV_G_CHARS:
		add_chars(b, node, from, to);
		break;
	case RUV_G_TOKEN:
		new_edge(b, from, (edge){.kind = TOKEN, .arg = (uint32_t)node->n, .to = to});
		break;
	case RUV_G_REF:
		new_edge(b, from, (edge){.kind = CALL, .arg = (uint32_t)node->n, .to = to});
		break;
	case RUV_G_SEQ:
		for (int i = 0; i < node->n; i++) {
			next = i + 1 == node->n ? to : new_state(b);
			compile(b, items[i], from, next);
			from = next;
		}
		break;
	case RUV_G_ALT:
		for (int i = 0; i < node->n; i++)
			compile(b, items[i], from, to);
		break;
	case RUV_G_REPEAT:
		compile_repeat(b, node, from, to);
		break;
	}
}

static void compile_rule(builder *b, const ruv_gnode *node, size_t number)
{
	ruv_automaton *a = b->a;
	uint32_t start = new_state(b), end = new_state(b);

	if (b->failed || grow(&a->rules, &a->cap_rules, number + 1, sizeof *a->rules)) {
		b->failed = b->failed ? b->failed : RUV_ENOMEM;
		return;
	}
	a->rules[number] = (rule){start, end};
	a->n_rules = number + 1;
	a->states[end].is_final = true;
	compile(b, node, start, end);
}

/* Bytes between whose borders no edge tells apart. */
static void make_classes(ruv_automaton *a)
{
	bool border[257] = {true};

	for (size_t i = 1; i < a->n_edges; i++)
		if (a->edges[i].kind == BYTES)
			border[a->edges[i].low] = border[a->edges[i].high + 1] = true;
	a->n_classes = 0;
	for (int c = 0; c < 256; c++) {
		if (border[c])
			a->byte_of[a->n_classes++] = (uint8_t)c;
		a->class_of[c] = (uint8_t)(a->n_classes - 1);
	}
}

static int analyze(builder *b, ruv_error *err)
{
	const ruv_gast *ast = b->ast;
	bool changed = true;
	int left = -1;

	while (changed) {
		changed = false;
		for (int i = 0; i < ast->n_rules; i++) {
			if (!b->productive[i] && is_productive(b, ast->rules[i].node))
				changed = b->productive[i] = true;
			if (!b->nullable[i] && is_nullable(b, ast->rules[i].node))
				changed = b->nullable[i] = true;
		}
	}
	if (!b->productive[ast->root])
		return ruv_fail(err, RUV_EFORMAT, "grammar", "the rule '%s' can never end: no text follows this grammar",
		                ast->rules[ast->root].name);
	for (int i = 0; i < ast->n_rules && left < 0 && !b->failed; i++)
		if (b->productive[i])
			left = find_left(b, i, 0);
	if (left >= 0)
		return ruv_fail(err, RUV_EFORMAT, "grammar", "the rule '%s' begins with itself (left recursion)",
		                ast->rules[left].name);
	return RUV_OK;
}

static int intern_place(ruv_automaton *a, config *list, size_t n, bool may_end);
static int close_work(ruv_automaton *a);

static int first_places(ruv_automaton *a)
{
	int at;

	if (grow(&a->frames, &a->cap_frames, 1, sizeof *a->frames))
		return RUV_ENOMEM;
	a->frames[0] = (frame){0};
	a->n_frames = 1;
	at = intern_place(a, NULL, 0, false); /* dead: steps to itself alone */
	if (at < 0)
		return at;
	a->n_work = 0;
	if (grow(&a->work, &a->cap_work, 1, sizeof *a->work))
		return RUV_ENOMEM;
	a->work[a->n_work++] = (config){.state = a->rules[a->root].start};
	at = close_work(a);
	return at < 0 ? at : RUV_OK;
}

int ruv_automaton_open(ruv_automaton **out, const ruv_gast *ast, ruv_error *err)
{
	ruv_automaton *a = calloc(1, sizeof *a);
	builder b = {.a = a, .ast = ast};
	const size_t n = (size_t)ast->n_rules;
	int rc;

	*out = NULL;
	b.productive = calloc(n + 1, sizeof *b.productive);
	b.nullable = calloc(n + 1, sizeof *b.nullable);
	b.mark = calloc(n + 1, sizeof *b.mark);
	if (!a || !b.productive || !b.nullable || !b.mark) {
		rc = ruv_fail_memory(err, "grammar", n);
		goto done;
	}
	rc = analyze(&b, err);
	if (rc)
		goto done;
	a->root = (uint32_t)ast->root;
	new_state(&b); /* 0 is no state of a rule, so that "not made" can be 0 */
	for (size_t i = 0; i < n && !b.failed; i++)
		compile_rule(&b, ast->rules[i].node, i);
	for (size_t i = 0; i < b.n_extra && !b.failed; i++)
		compile_rule(&b, b.extra[i], n + i);
	rc = b.failed;
	if (!rc) {
		make_classes(a);
		rc = first_places(a);
	}
	if (rc == RUV_ELIMIT)
		ruv_fail(err, rc, "grammar", "the grammar is too large: more than %d states", (int)RUV_AUTOMATON_MAX_STATES);
	else if (rc)
		ruv_fail_memory(err, "grammar", a->n_states * sizeof(state));
	if (!rc) {
		*out = a;
		a = NULL;
	}
done:
	free(b.productive);
	free(b.nullable);
	free(b.mark);
	free(b.extra);
	ruv_automaton_free(a);
	return rc;
}

static void free_places(ruv_automaton *a)
{
	for (size_t i = 0; i < a->n_places; i++)
		free(a->places[i].note);
	free(a->frames);
	free(a->frame_table.slots);
	free(a->places);
	free(a->steps);
	free(a->configs);
	free(a->place_table.slots);
}

void ruv_automaton_free(ruv_automaton *a)
{
	if (!a)
		return;
	free_places(a);
	free(a->edges);
	free(a->states);
	free(a->loops);
	free(a->rules);
	free(a->work);
	free(a->seen.slots);
	free(a);
}

/* ---- stacks ---- */

static uint64_t hash_frame(const frame *f)
{
	return mix(mix(mix(0, f->parent), f->state), f->count);
}

/* The stack with one more return; UINT32_MAX when too deep, *rc when memory is out. */
static uint32_t push(ruv_automaton *a, uint32_t parent, uint32_t to, uint32_t count, int *rc)
{
	const frame f = {parent, to, count, a->frames[parent].depth + 1};
	const uint64_t h = hash_frame(&f);
	bool rebuilt;
	table *t = &a->frame_table;

	if (f.depth > RUV_AUTOMATON_MAX_STACK)
		return UINT32_MAX;
	for (size_t i = h; t->n_slots; i++) {
		uint32_t slot = t->slots[i & (t->n_slots - 1)];

		if (!slot)
			break;
		if (a->frames[slot - 1].parent == parent && a->frames[slot - 1].state == to && a->frames[slot - 1].count == count)
			return slot - 1;
	}
	if (table_room(t, &rebuilt) || grow(&a->frames, &a->cap_frames, a->n_frames + 1, sizeof *a->frames)) {
		*rc = RUV_ENOMEM;
		return UINT32_MAX;
	}
	if (rebuilt)
		for (size_t i = 1; i < a->n_frames; i++)
			table_put(t, hash_frame(&a->frames[i]), i);
	a->frames[a->n_frames] = f;
	table_put(t, h, a->n_frames);
	return (uint32_t)a->n_frames++;
}

/* ---- places ---- */

static uint64_t hash_configs(const config *list, size_t n, bool may_end)
{
	uint64_t h = may_end;

	for (size_t i = 0; i < n; i++)
		h = mix(mix(mix(h, list[i].state), list[i].count), list[i].stack);
	return h;
}

static int by_config(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(config)); /* any order will do */
}

static int intern_place(ruv_automaton *a, config *list, size_t n, bool may_end)
{
	const size_t width = (size_t)a->n_classes;
	table *t = &a->place_table;
	uint64_t h;
	bool rebuilt;
	place *p;

	if (n)
		qsort(list, n, sizeof *list, by_config);
	h = hash_configs(list, n, may_end);
	for (size_t i = h; t->n_slots; i++) {
		uint32_t slot = t->slots[i & (t->n_slots - 1)];

		if (!slot)
			break;
		p = &a->places[slot - 1];
		if (p->n == n && p->may_end == may_end && (!n || !memcmp(a->configs + p->first, list, n * sizeof *list)))
			return (int)slot - 1;
	}
	if (a->n_places + 1 > a->cap_places) {
		size_t cap = a->cap_places ? 2 * a->cap_places : 64;
		int32_t *steps = realloc(a->steps, cap * width * sizeof *steps);

		if (!steps)
			return RUV_ENOMEM;
		a->steps = steps;
		p = realloc(a->places, cap * sizeof *p);
		if (!p)
			return RUV_ENOMEM;
		a->places = p;
		a->cap_places = cap;
	}
	if (table_room(t, &rebuilt) || grow(&a->configs, &a->cap_configs, a->n_configs + n + 1, sizeof *a->configs))
		return RUV_ENOMEM;
	if (rebuilt)
		for (size_t i = 0; i < a->n_places; i++) {
			p = &a->places[i];
			table_put(t, hash_configs(a->configs + p->first, p->n, p->may_end), i);
		}
	a->places[a->n_places] = (place){.first = (uint32_t)a->n_configs, .n = (uint32_t)n, .may_end = may_end};
	if (n)
		memcpy(a->configs + a->n_configs, list, n * sizeof *list);
	a->n_configs += n;
	for (size_t i = 0; i < width; i++)
		a->steps[a->n_places * width + i] = n ? UNKNOWN : RUV_PLACE_DEAD;
	table_put(t, h, a->n_places);
	return (int)a->n_places++;
}

static uint64_t hash_config(const config *c)
{
	return mix(mix(mix(1, c->state), c->count), c->stack);
}

/* Adds to the work list what was not there yet. */
static int add(ruv_automaton *a, uint32_t to, uint32_t count, uint32_t stack)
{
	const config c = {to, count, stack};
	const uint64_t h = hash_config(&c);
	bool rebuilt;
	table *t = &a->seen;

	for (size_t i = h; t->n_slots; i++) {
		uint32_t slot = t->slots[i & (t->n_slots - 1)];

		if (!slot)
			break;
		if (!memcmp(&a->work[slot - 1], &c, sizeof c))
			return RUV_OK;
	}
	if (a->n_work >= MAX_CONFIGS)
		return RUV_ELIMIT;
	if (table_room(t, &rebuilt) || grow(&a->work, &a->cap_work, a->n_work + 1, sizeof *a->work))
		return RUV_ENOMEM;
	if (rebuilt)
		for (size_t i = 0; i < a->n_work; i++)
			table_put(t, hash_config(&a->work[i]), i);
	a->work[a->n_work] = c;
	table_put(t, h, a->n_work++);
	return RUV_OK;
}

/* What one configuration can become without reading. */
static int expand(ruv_automaton *a, config c, bool *may_end)
{
	const state *s = &a->states[c.state];
	int rc = RUV_OK;

	if (s->is_final) {
		const frame *f = &a->frames[c.stack];

		if (c.stack == 0)
			*may_end = true;
		else
			rc = add(a, f->state, f->count, f->parent);
	}
	if (s->loop >= 0) {
		const loop *l = &a->loops[s->loop];
		const uint32_t next = l->max < 0 && (int)c.count >= l->min ? c.count : c.count + 1;

		if (rc == RUV_OK && (int)c.count >= l->min)
			rc = add(a, l->to, 0, c.stack);
		if (rc == RUV_OK && (l->max < 0 || (int)c.count < l->max)) {
			uint32_t stack = push(a, c.stack, c.state, next, &rc);

			if (stack != UINT32_MAX)
				rc = add(a, a->rules[l->rule].start, 0, stack);
		}
	}
	for (uint32_t i = s->first; rc == RUV_OK && i; i = a->edges[i].next) {
		const edge *e = &a->edges[i];

		if (e->kind == EPSILON) {
			rc = add(a, e->to, 0, c.stack);
		} else if (e->kind == CALL) {
			/* a call whose return would only return again needs no frame */
			const bool last = a->states[e->to].is_final && !a->states[e->to].first;
			uint32_t stack = last ? c.stack : push(a, c.stack, e->to, 0, &rc);

			if (stack != UINT32_MAX)
				rc = add(a, a->rules[e->arg].start, 0, stack);
		}
	}
	return rc;
}

/* The place of everything that the seeds in `work` [n_work] can become. */
static int close_work(ruv_automaton *a)
{
	const size_t n_seeds = a->n_work;
	bool may_end = false;
	size_t kept = 0;
	int rc = RUV_OK;

	if (a->seen.n_used || n_seeds) {
		if (a->seen.n_slots)
			memset(a->seen.slots, 0, a->seen.n_slots * sizeof *a->seen.slots);
		a->seen.n_used = 0;
	}
	a->n_work = 0;
	for (size_t i = 0; i < n_seeds && rc == RUV_OK; i++) { /* each is read before its room is used again */
		config c = a->work[i];

		rc = add(a, c.state, c.count, c.stack);
	}
	for (size_t i = 0; i < a->n_work && rc == RUV_OK; i++)
		rc = expand(a, a->work[i], &may_end);
	if (rc)
		return rc;
	for (size_t i = 0; i < a->n_work; i++)
		if (a->states[a->work[i].state].consumes)
			a->work[kept++] = a->work[i];
	return kept || may_end ? intern_place(a, a->work, kept, may_end) : RUV_PLACE_DEAD;
}

static int seed(ruv_automaton *a, uint32_t to, uint32_t stack)
{
	if (grow(&a->work, &a->cap_work, a->n_work + 1, sizeof *a->work))
		return RUV_ENOMEM;
	a->work[a->n_work++] = (config){to, 0, stack};
	return RUV_OK;
}

int ruv_automaton_step(ruv_automaton *a, int at, unsigned char byte)
{
	const size_t slot = (size_t)at * (size_t)a->n_classes + a->class_of[byte];
	int next = a->steps[slot];

	if (next != UNKNOWN)
		return next;
	byte = a->byte_of[a->class_of[byte]];
	a->n_work = 0;
	for (uint32_t i = 0; i < a->places[at].n; i++) {
		const config c = a->configs[a->places[at].first + i];

		for (uint32_t k = a->states[c.state].first; k; k = a->edges[k].next) {
			const edge *e = &a->edges[k];

			if (e->kind == BYTES && byte >= e->low && byte <= e->high && seed(a, e->to, c.stack))
				return RUV_ENOMEM;
		}
	}
	next = a->n_work ? close_work(a) : RUV_PLACE_DEAD;
	if (next >= 0)
		a->steps[slot] = next;
	return next;
}

int ruv_automaton_step_token(ruv_automaton *a, int at, ruv_token token)
{
	a->n_work = 0;
	for (uint32_t i = 0; i < a->places[at].n; i++) {
		const config c = a->configs[a->places[at].first + i];

		for (uint32_t k = a->states[c.state].first; k; k = a->edges[k].next)
			if (a->edges[k].kind == TOKEN && a->edges[k].arg == (uint32_t)token && seed(a, a->edges[k].to, c.stack))
				return RUV_ENOMEM;
	}
	return a->n_work ? close_work(a) : RUV_PLACE_DEAD;
}

int ruv_automaton_join(ruv_automaton *a, int at, int other)
{
	if (at == RUV_PLACE_DEAD || other == RUV_PLACE_DEAD || at == other)
		return at == RUV_PLACE_DEAD ? other : at;
	size_t n = a->places[at].n + a->places[other].n;

	if (grow(&a->work, &a->cap_work, n + 1, sizeof *a->work))
		return RUV_ENOMEM;
	memcpy(a->work, a->configs + a->places[at].first, a->places[at].n * sizeof *a->work);
	memcpy(a->work + a->places[at].n, a->configs + a->places[other].first, a->places[other].n * sizeof *a->work);
	qsort(a->work, n, sizeof *a->work, by_config);
	size_t kept = 0;
	for (size_t i = 0; i < n; i++)
		if (!kept || memcmp(&a->work[kept - 1], &a->work[i], sizeof *a->work))
			a->work[kept++] = a->work[i];
	return intern_place(a, a->work, kept, a->places[at].may_end || a->places[other].may_end);
}

bool ruv_automaton_may_end(const ruv_automaton *a, int at)
{
	return a->places[at].may_end;
}

void ruv_automaton_tokens(const ruv_automaton *a, int at, void (*fn)(void *user, ruv_token token), void *user)
{
	for (uint32_t i = 0; i < a->places[at].n; i++) {
		const config c = a->configs[a->places[at].first + i];

		for (uint32_t k = a->states[c.state].first; k; k = a->edges[k].next)
			if (a->edges[k].kind == TOKEN)
				fn(user, (ruv_token)a->edges[k].arg);
	}
}

int ruv_automaton_n_places(const ruv_automaton *a)
{
	return (int)a->n_places;
}

size_t ruv_automaton_n_bytes(const ruv_automaton *a)
{
	return a->cap_places * (sizeof(place) + (size_t)a->n_classes * sizeof(int32_t)) + a->cap_configs * sizeof(config) +
	       a->cap_frames * sizeof(frame);
}

void **ruv_automaton_note(ruv_automaton *a, int at)
{
	return &a->places[at].note;
}

/* ---- forgetting ---- */

/* The stack of the old automaton in the new one. */
static uint32_t move_stack(ruv_automaton *to, const ruv_automaton *from, uint32_t stack, int *rc)
{
	uint32_t chain[RUV_AUTOMATON_MAX_STACK + 1], moved = 0;
	int n = 0;

	for (; stack; stack = from->frames[stack].parent)
		chain[n++] = stack;
	while (n-- > 0 && *rc == RUV_OK)
		moved = push(to, moved, from->frames[chain[n]].state, from->frames[chain[n]].count, rc);
	return moved;
}

int ruv_automaton_forget(ruv_automaton *a, int **places, int n)
{
	ruv_automaton fresh = *a;
	int *numbers = malloc(((size_t)n + 1) * sizeof *numbers), rc = numbers ? RUV_OK : RUV_ENOMEM;

	fresh.frames = NULL;
	fresh.places = NULL;
	fresh.steps = NULL;
	fresh.configs = NULL;
	fresh.n_frames = fresh.cap_frames = fresh.n_places = fresh.cap_places = fresh.n_configs = fresh.cap_configs = 0;
	fresh.frame_table = fresh.place_table = (table){0};
	if (!rc)
		rc = first_places(&fresh);
	for (int i = 0; i < n && !rc; i++) {
		const place *p = &a->places[*places[i]];

		fresh.n_work = 0;
		if (grow(&fresh.work, &fresh.cap_work, p->n + 1, sizeof *fresh.work))
			rc = RUV_ENOMEM;
		for (uint32_t k = 0; k < p->n && !rc; k++) {
			config c = a->configs[p->first + k];

			c.stack = move_stack(&fresh, a, c.stack, &rc);
			fresh.work[fresh.n_work++] = c;
		}
		if (rc)
			break;
		numbers[i] = p->n || p->may_end ? intern_place(&fresh, fresh.work, p->n, p->may_end) : RUV_PLACE_DEAD;
		rc = numbers[i] < 0 ? numbers[i] : RUV_OK;
	}
	/* the scratch is one and the same, and may have moved */
	a->work = fresh.work;
	a->cap_work = fresh.cap_work;
	a->seen = fresh.seen;
	if (rc) {
		free_places(&fresh);
	} else {
		free_places(a);
		*a = fresh;
		for (int i = 0; i < n; i++)
			*places[i] = numbers[i];
	}
	free(numbers);
	return rc;
}

int ruv_automaton_fail(int rc, ruv_error *err)
{
	if (rc == RUV_ENOMEM)
		return ruv_fail_memory(err, "grammar", sizeof(config));
	return ruv_fail(err, RUV_ELIMIT, "grammar",
	                "this text can be read in more than %d ways at once; the grammar is too ambiguous", (int)MAX_CONFIGS);
}
