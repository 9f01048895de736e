/* grammar.h - inside infer: grammars from trees. Layer: infer. */
#ifndef RUV_INFER_GRAMMAR_H
#define RUV_INFER_GRAMMAR_H

#include "infer/grammar_ast.h"
#include "ruvllm/grammar.h"

/* A grammar of the tree for the model, not kept with it. Errors as ruv_grammar_open. */
int ruv_grammar_from_tree(ruv_grammar **out, ruv_model *model, const ruv_gast *ast, ruv_error *err);

#endif
