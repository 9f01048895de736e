/* evidence.h - which sentence of the sources answers a question, told from words and vectors before any model reads them.
 *
 * Small models know better how to answer from a sentence than which sentence to answer from: they copy the first one that looks
 * right. Search knows the other half: how rare the words are that a sentence shares with the question, and how near it is in
 * meaning. The weights were fitted on development questions of articles that no measurement uses (docs/answering.md has the
 * figures). Layer: runtime. */
#ifndef RUV_RUNTIME_EVIDENCE_H
#define RUV_RUNTIME_EVIDENCE_H

#include "base/buf.h"
#include "runtime/context.h"

typedef struct ruv_sentence_evidence {
	int source;       /* index of its source */
	const char *text; /* the sentence as it stands in the prompt, NUL-terminated, the evidence's */
	size_t n_bytes;
	float overlap; /* 0..1: share of the question's words, weighted by how rare they are here, that it has */
	float around;  /* the same share that only its neighbours have */
	float passage; /* the same share that its source has, title included */
	float cosine;  /* to the question; 0 while not set */
	float score;   /* log-odds up to a constant: differences count */
} ruv_sentence_evidence;

/* Zeroed is empty. */
typedef struct ruv_evidence {
	ruv_sentence_evidence *items; /* [n] in the order of the sources */
	int n;
	ruv_buf text;
} ruv_evidence;

/* Splits the sources into sentences and weighs their words against the question's. RUV_ENOMEM. */
int ruv_evidence_open(ruv_evidence *out, const ruv_context_source *sources, int n_sources, const char *question, ruv_error *err);
void ruv_evidence_release(ruv_evidence *evidence);
/* Adds how near each sentence is: cosines [n]. */
void ruv_evidence_add_cosines(ruv_evidence *evidence, const float *cosines);
/* The sentence with the highest score; -1 when there is none. Equal ones: the first. */
int ruv_evidence_best(const ruv_evidence *evidence);

#endif
