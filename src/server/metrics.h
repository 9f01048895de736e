/* metrics.h - counters and histograms of the server, and their text form for Prometheus (docs/metrics.md lists them).
 *
 * Names follow vLLM's with our prefix, in base units (seconds, bytes). What the scheduler, the memory and the process know is asked
 * when the text is made; what the server itself counts is kept here.
 * Threads: any. Layer: server. */
#ifndef RUV_SERVER_METRICS_H
#define RUV_SERVER_METRICS_H

#include "ruvllm/runtime.h"
#include "server/http.h"

typedef struct ruv_metrics ruv_metrics;

/* names: [n_routes] "/v1/ask", kept by the caller; index n_routes stands for requests that no route knows. */
int ruv_metrics_create(ruv_metrics **out, const char *const *names, int n_routes, ruv_error *err);
void ruv_metrics_free(ruv_metrics *metrics); /* NULL is fine */

/* A finished request. */
void ruv_metrics_request(ruv_metrics *metrics, int route, unsigned method, int status, double seconds);
/* An answer of the loop: its stages, sources, route, verdict, and what memory made of it. */
void ruv_metrics_answer(ruv_metrics *metrics, const ruv_answer *answer);
/* What a user said of an answer, and what became of it. */
void ruv_metrics_feedback(ruv_metrics *metrics, ruv_feedback feedback, const ruv_feedback_result *result);
/* A task that was routed to an agent. */
void ruv_metrics_agent(ruv_metrics *metrics, bool abstains);
void ruv_metrics_embedding(ruv_metrics *metrics, int64_t n_texts, int64_t n_tokens);
/* A client that was cut off or went away before its answer was whole. */
void ruv_metrics_gone(ruv_metrics *metrics, bool too_slow);

/* The whole page; free() it. NULL when memory is out. */
char *ruv_metrics_text(ruv_metrics *metrics, ruv_server *server);

#endif
