/* epoch.h - readers without locks: what a writer has taken out is reused only when nobody can still be looking at it.
 *
 * A reader stands in the current epoch from enter to leave. What the writer retires in epoch e may be reused once the epoch has
 * advanced to e + 2, and it advances from c to c + 1 only when no reader stands in c - 1 (Fraser 2004, with two counters in place
 * of three because the writer keeps the list of what is retired). A reader that stays keeps memory from being reused; it never
 * blocks the writer. Threads: any readers; retiring and advancing by one writer at a time. Layer: memory. */
#ifndef RUV_MEMORY_EPOCH_H
#define RUV_MEMORY_EPOCH_H

#include <stdatomic.h>

typedef struct ruv_epoch {
	atomic_uint current;
	atomic_uint readers[2]; /* in even and odd epochs */
} ruv_epoch;

void ruv_epoch_init(ruv_epoch *epoch);
/* The ticket for leave. */
unsigned ruv_epoch_enter(ruv_epoch *epoch);
void ruv_epoch_leave(ruv_epoch *epoch, unsigned ticket);
/* The writer's: the epoch after trying to advance. What was retired in epoch e is free when (int)(result - e) >= 2. */
unsigned ruv_epoch_advance(ruv_epoch *epoch);

#endif
