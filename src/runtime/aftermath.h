/* aftermath.h - what becomes of an answer: judged, written back, remembered for feedback, learned from. Layer: runtime. */
#ifndef RUV_RUNTIME_AFTERMATH_H
#define RUV_RUNTIME_AFTERMATH_H

#include "runtime/runtime.h"

/* What the loop knows about an answer beyond the answer itself. */
typedef struct ruv_aftermath {
	const ruv_ask_params *params;
	const char *prompt;                 /* the last user message as the model got it, with its sources */
	const float *vector;                /* [dim] of the question; NULL */
	const ruv_route_decision *decision; /* NULL without the router */
	bool cites;                         /* the model was trained to quote */
	double support;                     /* by evidence and likelihood (support.h), 0..1; -1: not known */
} ruv_aftermath;

/* The programmatic checks, against the sources in the prompt. Sets answer->verdict. */
int ruv_aftermath_judge(ruv_answer *answer, const ruv_aftermath *what, ruv_error *err);
/* With the setting write-back: a good answer becomes a memory. Sets answer->wrote and written. */
int ruv_aftermath_write(ruv_runtime *runtime, ruv_answer *answer, const ruv_aftermath *what, ruv_error *err);
/* Gives the answer its id, keeps what feedback needs, and hands it to the learner with the setting learn. */
int ruv_aftermath_note(ruv_runtime *runtime, ruv_answer *answer, const ruv_aftermath *what, ruv_error *err);

/* Frees what ruv_aftermath_note kept. */
void ruv_aftermath_release(ruv_runtime *runtime);

#endif
