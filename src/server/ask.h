/* ask.h - answers from memory as JSON, and whose memory a request may see: shared by /v1/ask, chats with memory, the memory API and
 * MCP. Layer: server. */
#ifndef RUV_SERVER_ASK_H
#define RUV_SERVER_ASK_H

#include "server/server.h"

/* [{number, id, file, first_line, last_line, title, text, score, cosine, bm25, cited}], best first; without `text` when not wanted.
 */
json_t *ruv_sources_json(const ruv_answer *answer, bool with_text);
/* The whole answer, as docs/server.md has it. */
json_t *ruv_answer_json(const ruv_answer *answer, const char *question, const char *model);
/* Counts an answer in the metrics, and keeps the router's decision. */
void ruv_ask_count(ruv_exchange *exchange, const char *question, const ruv_answer *answer);

/* The scope of a request: what it wants (NULL fields: what is configured), confined to the user and agent that its key speaks for.
 * RUV_EINVAL when it wants somebody else's. Strings belong to the inputs and to the key. */
int ruv_scope_for(const ruv_exchange *exchange, const ruv_memory_scope *wanted, const ruv_memory_scope *configured,
                  ruv_memory_scope *scope, ruv_error *err);
/* The same from a request's "scope" object {user, agent, session} (NULL: none); configured from the runtime. */
int ruv_scope_of(const ruv_exchange *exchange, const json_t *body, ruv_memory_scope *scope, ruv_error *err);
/* Can a reader with that scope see the node? */
bool ruv_scope_sees(const ruv_memory_scope *scope, const ruv_memory_node *node);

#endif
