/* decisions.h - the last answers whose tier the router chose, for /v1/route/decisions and the page's dashboard.
 *
 * A ring in memory: it begins empty with every start (the router's own log keeps outcomes, not questions).
 * Threads: any. Layer: server. */
#ifndef RUV_SERVER_DECISIONS_H
#define RUV_SERVER_DECISIONS_H

#include <jansson.h>

#include "ruvllm/runtime.h"
#include "server/http.h"

enum { RUV_DECISIONS_KEPT = 256, RUV_DECISIONS_QUESTION = 160 /* bytes that are kept of a question */ };

typedef struct ruv_decisions ruv_decisions;

int ruv_decisions_create(ruv_decisions **out, ruv_error *err);
void ruv_decisions_free(ruv_decisions *decisions); /* NULL is fine */
/* Keeps a routed answer, with the user and agent that its key speaks for; others are left out. */
void ruv_decisions_note(ruv_decisions *decisions, const ruv_identity *asker, const char *question, const ruv_answer *answer);
/* What the user said of it: "accept", "correct", "reject" (a static text). */
void ruv_decisions_feedback(ruv_decisions *decisions, const char *answer_id, const char *feedback);
/* The last `limit`, newest first; a key that speaks for a user or agent sees theirs alone. A new reference. */
json_t *ruv_decisions_json(ruv_decisions *decisions, const ruv_identity *reader, int limit);

#endif
