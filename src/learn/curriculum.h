/* curriculum.h - from simple to multi-step: which examples a pass over the replay takes, and in which order.
 *
 * Competence-based (Platanios et al. 2019): at progress t of 0..1 the examples whose rank of difficulty is within
 * c(t) = sqrt(t (1 - c0^2) + c0^2), c0 = 0.3, take part. Threads: any (pure). Layer: learn. */
#ifndef RUV_LEARN_CURRICULUM_H
#define RUV_LEARN_CURRICULUM_H

#include "base/rng.h"

/* How hard a text exchange looks, 0..1, before anything is run: length of the answer, parts of the question ("and", "then", commas,
 * how/why/compare), numbers to combine, sources to combine. */
float ruv_curriculum_difficulty(const char *question, const char *answer, int n_sources);

/* The share of the easiest examples that may take part. */
double ruv_curriculum_competence(double progress);
/* order [n] gets the indices of those that take part at `progress`, shuffled; returns how many (at least 1 when n > 0). difficulty
 * [n]. Negative: RUV_ENOMEM. */
int ruv_curriculum_order(int *order, const float *difficulty, int n, double progress, ruv_rng *rng);

#endif
