/* grammar_automaton.h - a pushdown automaton over bytes, made lazily deterministic.
 *
 * A grammar's rules become one non-deterministic automaton each, over bytes, with edges that call other rules. A configuration is a
 * state with a stack of where its calls return to; a place is the set of configurations that the text so far may be in. Places,
 * and the steps between them, are computed when first needed and remembered, so that following a text is a table look-up a byte as
 * soon as the like was seen before. Place 0 is dead (no text goes on there), place 1 the beginning.
 *
 * Repetitions with large counts are one state with a counter in the configuration, not copies. Calls that end a rule replace their
 * caller on the stack, so that right recursion needs none. Stacks deeper than RUV_AUTOMATON_MAX_STACK are dead ends.
 *
 * Threads: one at a time (the grammar's lock). Layer: infer. */
#ifndef RUV_INFER_GRAMMAR_AUTOMATON_H
#define RUV_INFER_GRAMMAR_AUTOMATON_H

#include "infer/grammar_ast.h"

enum { RUV_AUTOMATON_MAX_STATES = 1000000, RUV_AUTOMATON_MAX_STACK = 1000 };
enum { RUV_PLACE_DEAD = 0, RUV_PLACE_BEGIN = 1 };

typedef struct ruv_automaton ruv_automaton;

/* RUV_EFORMAT: left recursion, or a grammar that no text can end (the rule is named); RUV_ELIMIT, RUV_ENOMEM. */
int ruv_automaton_open(ruv_automaton **out, const ruv_gast *ast, ruv_error *err);
void ruv_automaton_free(ruv_automaton *a);

/* The place behind one more byte; below 0: RUV_ENOMEM, or RUV_ELIMIT for a grammar whose text can be read in too many ways. */
int ruv_automaton_step(ruv_automaton *a, int place, unsigned char byte);
/* Behind one more token taken as such (RUV_G_TOKEN); the dead place when none of that id may follow. */
int ruv_automaton_step_token(ruv_automaton *a, int place, ruv_token token);
/* Both: a token's bytes (n may be 0: none), and the token itself. */
int ruv_automaton_join(ruv_automaton *a, int place, int other);
/* May the text end here? */
bool ruv_automaton_may_end(const ruv_automaton *a, int place);
/* Calls fn for every token that may follow as such. */
void ruv_automaton_tokens(const ruv_automaton *a, int place, void (*fn)(void *user, ruv_token token), void *user);
/* Places known so far, and the bytes that they take. */
int ruv_automaton_n_places(const ruv_automaton *a);
size_t ruv_automaton_n_bytes(const ruv_automaton *a);
/* A number that a caller keeps with the place: NULL at first. Freed with free() when the place goes. */
void **ruv_automaton_note(ruv_automaton *a, int place);
/* Forgets all places but the beginning and places [n], which get new numbers. On failure nothing has changed. */
int ruv_automaton_forget(ruv_automaton *a, int **places, int n);
/* What a failed step means, as an error. */
int ruv_automaton_fail(int rc, ruv_error *err);

#endif
