/* calibration.h - what was fitted to one model on development questions: how it decides between answering and refusing, and how
 * much of the choice of a sentence is its own.
 *
 * Kept in answering.json beside the model's file, by the model's name (general.name):
 *
 *     {"ruvllm-nano-m": {"bias": 0.4, "within": 0.3}}
 *
 * A model that is not in it, or a directory without the file, decides alone. `ruvllm eval qa SET --answers 0.95` finds the bias for
 * a model of the user's own (docs/answering.md). Layer: runtime. */
#ifndef RUV_RUNTIME_CALIBRATION_H
#define RUV_RUNTIME_CALIBRATION_H

#include "ruvllm/model.h"

typedef struct ruv_calibrated {
	float bias;   /* added to the log-odds of answering */
	float within; /* sentences at most so much below the best one's score are the model's to choose from; 0: the best */
} ruv_calibrated;

/* All zero without an entry. RUV_EFORMAT names the file and what is wrong in it. */
int ruv_calibration_read(ruv_calibrated *out, const ruv_model *model, ruv_error *err);

#endif
