/* route.h - which tier answers a question: the router with what the loop knows by then. Layer: runtime. */
#ifndef RUV_RUNTIME_ROUTE_H
#define RUV_RUNTIME_ROUTE_H

#include "runtime/runtime.h"

/* Decides from question, its vector (NULL: none) with what the memory has near it in that scope (NULL: the configured one), or,
 * without a vector, from the sources that were found. The decision's tier is an index of the router.
 * Errors as ruv_runtime_router and ruv_router_decide. */
int ruv_route_question(ruv_runtime *runtime, const char *question, const float *vector, const ruv_memory_scope *scope,
                       const ruv_answer *found, ruv_route_state *state, ruv_route_decision *decision, ruv_error *err);
/* Name of a tier of the router: "s". */
const char *ruv_route_tier_name(ruv_runtime *runtime, int tier);
/* Should a larger tier answer again? *next is it. */
bool ruv_route_escalates(ruv_runtime *runtime, const ruv_route_decision *decision, const ruv_answer *answer, int *next);

#endif
