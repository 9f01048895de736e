/* grammar_ast.c - building the tree. Sequences and alternatives are flattened where they nest in their own kind, and what cannot
 * match is taken out at once, so that later stages see little of either. */
#include "infer/grammar_ast.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

enum { MAX_CODE_POINT = 0x10FFFF };

static const ruv_gnode empty_node = {.kind = RUV_G_EMPTY}, never_node = {.kind = RUV_G_NEVER};

void ruv_gast_init(ruv_gast *ast)
{
	memset(ast, 0, sizeof *ast);
	ruv_arena_init(&ast->arena);
	ast->root = -1;
}

void ruv_gast_release(ruv_gast *ast)
{
	ruv_arena_release(&ast->arena);
	free(ast->rules);
	memset(ast, 0, sizeof *ast);
}

int ruv_gast_check(const ruv_gast *ast, ruv_error *err)
{
	if (ast->failed == RUV_ELIMIT)
		return ruv_fail(err, RUV_ELIMIT, "grammar",
		                "the grammar is too large: more than %d rules or %d parts, or nested too deeply",
		                (int)RUV_GRAMMAR_MAX_RULES, (int)RUV_GRAMMAR_MAX_NODES);
	return ast->failed ? ruv_fail_memory(err, "grammar", ast->arena.n_bytes) : RUV_OK;
}

const ruv_gnode *ruv_gast_empty(void)
{
	return &empty_node;
}

const ruv_gnode *ruv_gast_never(void)
{
	return &never_node;
}

/* A node with room for n_bytes of items; NULL when the tree has failed. */
static ruv_gnode *make(ruv_gast *ast, ruv_gkind kind, size_t n_bytes, void **items)
{
	ruv_gnode *node;

	if (ast->failed)
		return NULL;
	if (++ast->n_nodes > RUV_GRAMMAR_MAX_NODES) {
		ast->failed = RUV_ELIMIT;
		return NULL;
	}
	node = ruv_arena_calloc(&ast->arena, 1, sizeof *node);
	*items = n_bytes && node ? ruv_arena_alloc(&ast->arena, n_bytes) : NULL;
	if (!node || (n_bytes && !*items)) {
		ast->failed = RUV_ENOMEM;
		return NULL;
	}
	node->kind = kind;
	node->items = *items;
	node->n_states = 1;
	return node;
}

const ruv_gnode *ruv_gast_bytes(ruv_gast *ast, const char *bytes, size_t n)
{
	void *copy;
	ruv_gnode *node = n ? make(ast, RUV_G_BYTES, n, &copy) : NULL;

	if (!node)
		return &empty_node;
	memcpy(copy, bytes, n);
	node->n = (int)n;
	node->n_states = (int64_t)n;
	return node;
}

const ruv_gnode *ruv_gast_text(ruv_gast *ast, const char *text)
{
	return ruv_gast_bytes(ast, text, strlen(text));
}

static int by_low(const void *a, const void *b)
{
	const ruv_grange *x = a, *y = b;

	return (x->low > y->low) - (x->low < y->low);
}

const ruv_gnode *ruv_gast_chars(ruv_gast *ast, const ruv_grange *ranges, int n, bool complement)
{
	static const ruv_grange surrogates = {0xD800, 0xDFFF};
	void *items;
	ruv_gnode *node;
	ruv_grange *out, *sorted;
	uint32_t next = 0; /* complement: the first code point not yet decided */
	int k = 0;

	sorted = malloc(((size_t)n + 1) * sizeof *sorted);
	node = sorted ? make(ast, RUV_G_CHARS, ((size_t)n * 2 + 3) * sizeof *out, &items) : NULL;
	if (!node) {
		free(sorted);
		ast->failed = ast->failed ? ast->failed : RUV_ENOMEM;
		return &empty_node;
	}
	out = items;
	if (n)
		memcpy(sorted, ranges, (size_t)n * sizeof *sorted);
	if (complement)
		sorted[n++] = surrogates;
	qsort(sorted, (size_t)n, sizeof *sorted, by_low);
	for (int i = 0; i < n; i++) {
		ruv_grange r = sorted[i];

		if (complement) {
			if (r.low > next)
				out[k++] = (ruv_grange){next, r.low - 1};
			next = r.high + 1 > next ? r.high + 1 : next;
		} else if (k && r.low <= out[k - 1].high + 1) {
			out[k - 1].high = r.high > out[k - 1].high ? r.high : out[k - 1].high;
		} else {
			out[k++] = r;
		}
	}
	if (complement && next <= MAX_CODE_POINT)
		out[k++] = (ruv_grange){next, MAX_CODE_POINT};
	if (!complement) { /* surrogates are no characters */
		for (int i = 0; i < k; i++) {
			if (out[i].high < surrogates.low || out[i].low > surrogates.high)
				continue;
			if (out[i].low < surrogates.low && out[i].high > surrogates.high) {
				memmove(out + i + 2, out + i + 1, (size_t)(k - i - 1) * sizeof *out);
				out[i + 1] = (ruv_grange){surrogates.high + 1, out[i].high};
				out[i].high = surrogates.low - 1;
				k++;
			} else if (out[i].low < surrogates.low) {
				out[i].high = surrogates.low - 1;
			} else if (out[i].high > surrogates.high) {
				out[i].low = surrogates.high + 1;
			} else {
				memmove(out + i, out + i + 1, (size_t)(k - i - 1) * sizeof *out);
				k--;
				i--;
			}
		}
	}
	free(sorted);
	if (k == 0)
		return &never_node;
	node->n = k;
	node->n_states = out[k - 1].high < 0x80 ? 1 : k + 7;
	return node;
}

const ruv_gnode *ruv_gast_token(ruv_gast *ast, ruv_token token)
{
	void *none;
	ruv_gnode *node = make(ast, RUV_G_TOKEN, 0, &none);

	if (!node)
		return &empty_node;
	node->n = token;
	return node;
}

const ruv_gnode *ruv_gast_ref(ruv_gast *ast, int rule)
{
	void *none;
	ruv_gnode *node = make(ast, RUV_G_REF, 0, &none);

	if (!node)
		return &empty_node;
	node->n = rule;
	return node;
}

const ruv_gnode *ruv_gast_list(ruv_gast *ast, ruv_gkind kind, const ruv_gnode *const *items, int n)
{
	const ruv_gkind skip = kind == RUV_G_SEQ ? RUV_G_EMPTY : RUV_G_NEVER;
	int64_t total = 0;
	int kept = 0, depth = 0;
	void *copy;
	ruv_gnode *node;

	for (int i = 0; i < n; i++) {
		if (items[i]->kind == skip)
			continue;
		if (kind == RUV_G_SEQ && items[i]->kind == RUV_G_NEVER)
			return &never_node;
		kept += items[i]->kind == kind ? items[i]->n : 1;
		total += items[i]->n_states;
		depth = items[i]->depth > depth ? items[i]->depth : depth;
	}
	if (kept == 0)
		return kind == RUV_G_SEQ ? &empty_node : &never_node;
	if (kept == 1)
		for (int i = 0; i < n; i++)
			if (items[i]->kind != skip)
				return items[i];
	node = make(ast, kind, (size_t)kept * sizeof(ruv_gnode *), &copy);
	if (!node)
		return &empty_node;
	kept = 0;
	for (int i = 0; i < n; i++) {
		const int add = items[i]->kind == kind ? items[i]->n : 1;

		if (items[i]->kind == skip)
			continue;
		memcpy((const ruv_gnode **)copy + kept, items[i]->kind == kind ? items[i]->items : (const void *)&items[i],
		       (size_t)add * sizeof(ruv_gnode *));
		kept += add;
	}
	node->n = kept;
	node->n_states = total;
	node->depth = depth + 1;
	if (node->depth > 4 * RUV_GRAMMAR_MAX_DEPTH)
		ast->failed = RUV_ELIMIT;
	return node;
}

const ruv_gnode *ruv_gast_repeat(ruv_gast *ast, const ruv_gnode *child, int min, int max)
{
	void *none;
	ruv_gnode *node;

	if (max == 0 || child->kind == RUV_G_EMPTY)
		return &empty_node;
	if (child->kind == RUV_G_NEVER)
		return min > 0 ? &never_node : &empty_node;
	if (min == 1 && max == 1)
		return child;
	node = make(ast, RUV_G_REPEAT, 0, &none);
	if (!node)
		return &empty_node;
	node->items = child;
	node->min = min;
	node->max = max;
	node->n_states = child->n_states + 1;
	node->depth = child->depth + 1;
	if (node->depth > 4 * RUV_GRAMMAR_MAX_DEPTH)
		ast->failed = RUV_ELIMIT;
	return node;
}

int ruv_gast_rule(ruv_gast *ast, const char *name)
{
	if (ast->n_rules >= RUV_GRAMMAR_MAX_RULES) {
		ast->failed = RUV_ELIMIT;
		return 0;
	}
	if (ast->n_rules == ast->cap_rules) {
		int cap = ast->cap_rules ? 2 * ast->cap_rules : 32;
		ruv_grule *rules = realloc(ast->rules, (size_t)cap * sizeof *rules);

		if (!rules) {
			ast->failed = RUV_ENOMEM;
			return 0;
		}
		ast->rules = rules;
		ast->cap_rules = cap;
	}
	name = ruv_arena_strndup(&ast->arena, name, strlen(name));
	if (!name)
		ast->failed = RUV_ENOMEM;
	ast->rules[ast->n_rules] = (ruv_grule){.name = name ? name : ""};
	return ast->n_rules++;
}

void ruv_glist_push(ruv_gast *ast, ruv_glist *list, const ruv_gnode *node)
{
	if (list->n == list->cap) {
		int cap = list->cap ? 2 * list->cap : 8;
		const ruv_gnode **items = realloc(list->items, (size_t)cap * sizeof *items);

		if (!items) {
			ast->failed = RUV_ENOMEM;
			return;
		}
		list->items = items;
		list->cap = cap;
	}
	list->items[list->n++] = node;
}

void ruv_glist_release(ruv_glist *list)
{
	free(list->items);
	memset(list, 0, sizeof *list);
}
