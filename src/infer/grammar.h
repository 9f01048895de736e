/* grammar.h - inside infer: grammars that are built, not read. Layer: infer. */
#ifndef RUV_INFER_GRAMMAR_H
#define RUV_INFER_GRAMMAR_H

#include "infer/grammar_ast.h"
#include "ruvllm/grammar.h"

/* Makes the tree: its rules and its root. */
typedef int ruv_grammar_builder(void *user, ruv_gast *ast, const ruv_model *model, ruv_error *err);

/* The model's grammar of that kind and text, built when it is not known yet. Kinds of ruv_grammar_kind are ruv_grammar_open's;
 * others begin at 16. Errors as ruv_grammar_open, and the builder's. */
int ruv_grammar_build(ruv_grammar **out, ruv_model *model, int kind, const char *text, size_t n, ruv_grammar_builder *build,
                      void *user, ruv_error *err);

#endif
