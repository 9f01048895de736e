/* decisions.c - a ring of the router's decisions: see decisions.h. */
#include "server/decisions.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"

enum { MAX_OWNER = 128 };

typedef struct decision {
	int64_t time_ms;
	char id[RUV_ID_SIZE], tier[32], first[32];
	char question[RUV_DECISIONS_QUESTION + 1];
	char user[MAX_OWNER], agent[MAX_OWNER];
	const char *why, *feedback;
	float confidence, quality;
	int n_escalations;
	double total_ms;
} decision;

struct ruv_decisions {
	pthread_mutex_t lock;
	decision items[RUV_DECISIONS_KEPT];
	int64_t n; /* that came so far: the next one goes to n % RUV_DECISIONS_KEPT */
};

int ruv_decisions_create(ruv_decisions **out, ruv_error *err)
{
	*out = calloc(1, sizeof **out);
	if (!*out)
		return ruv_fail_memory(err, "server", sizeof **out);
	pthread_mutex_init(&(*out)->lock, NULL);
	return RUV_OK;
}

void ruv_decisions_free(ruv_decisions *decisions)
{
	if (!decisions)
		return;
	pthread_mutex_destroy(&decisions->lock);
	free(decisions);
}

void ruv_decisions_note(ruv_decisions *decisions, const ruv_identity *asker, const char *question, const ruv_answer *answer)
{
	const ruv_answer_route *route = &answer->route;
	size_t n = strlen(question);
	decision *d;

	if (!route->used || strlen(asker->user) >= MAX_OWNER || strlen(asker->agent) >= MAX_OWNER)
		return;
	n = n < RUV_DECISIONS_QUESTION ? n : RUV_DECISIONS_QUESTION;
	while (n && question[n] && ((unsigned char)question[n] & 0xc0) == 0x80) /* not within a character */
		n--;
	pthread_mutex_lock(&decisions->lock);
	d = &decisions->items[decisions->n++ % RUV_DECISIONS_KEPT];
	*d = (decision){.time_ms = ruv_clock_wall_ms(),
	                .why = route->why,
	                .confidence = route->confidence,
	                .quality = answer->verdict.quality,
	                .n_escalations = route->n_escalations,
	                .total_ms = answer->total_ms};
	memcpy(d->id, answer->id, sizeof d->id);
	memcpy(d->question, question, n);
	strcpy(d->user, asker->user);
	strcpy(d->agent, asker->agent);
	snprintf(d->tier, sizeof d->tier, "%s", route->tier);
	snprintf(d->first, sizeof d->first, "%s", route->first);
	pthread_mutex_unlock(&decisions->lock);
}

void ruv_decisions_feedback(ruv_decisions *decisions, const char *answer_id, const char *feedback)
{
	pthread_mutex_lock(&decisions->lock);
	for (int i = 0; i < RUV_DECISIONS_KEPT; i++)
		if (*answer_id && !strcmp(decisions->items[i].id, answer_id))
			decisions->items[i].feedback = feedback;
	pthread_mutex_unlock(&decisions->lock);
}

json_t *ruv_decisions_json(ruv_decisions *decisions, const ruv_identity *reader, int limit)
{
	json_t *list = json_array();

	pthread_mutex_lock(&decisions->lock);
	for (int64_t i = decisions->n - 1; i >= 0 && i >= decisions->n - RUV_DECISIONS_KEPT && (int)json_array_size(list) < limit;
	     i--) {
		const decision *d = &decisions->items[i % RUV_DECISIONS_KEPT];

		if ((*reader->user && strcmp(reader->user, d->user)) || (*reader->agent && strcmp(reader->agent, d->agent)))
			continue;
		json_array_append_new(
		    list, json_pack("{s:I, s:s, s:o, s:s, s:s, s:s, s:f, s:i, s:o, s:f, s:o}", "time_ms", (json_int_t)d->time_ms,
		                    "answer_id", d->id, "question", ruv_json_string(d->question, strlen(d->question)), "tier",
		                    d->tier, "first", d->first, "why", d->why, "confidence", (double)d->confidence, "escalations",
		                    d->n_escalations, "quality", d->quality >= 0 ? json_real((double)d->quality) : json_null(),
		                    "total_ms", d->total_ms, "feedback", d->feedback ? json_string(d->feedback) : json_null()));
	}
	pthread_mutex_unlock(&decisions->lock);
	return list;
}
