/* base_text.h - plain prose, written for this project: what a model has to go on saying as before while it learns. The anchors are
 * trained on (towards the bare model's own distribution), the suite is only measured. NULL-terminated. Layer: learn. */
#ifndef RUV_LEARN_BASE_TEXT_H
#define RUV_LEARN_BASE_TEXT_H

extern const char *const ruv_learn_anchors[];
extern const char *const ruv_learn_base_suite[];

#endif
