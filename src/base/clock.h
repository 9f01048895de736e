/* clock.h - time for measuring (monotonic) and for stamping (wall clock). Layer: base. */
#ifndef RUV_BASE_CLOCK_H
#define RUV_BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds of a clock that never runs backwards; its zero means nothing. */
int64_t ruv_clock_now_ns(void);
/* Milliseconds since 1970-01-01 UTC. */
int64_t ruv_clock_wall_ms(void);
/* CPU nanoseconds that this process has used, all threads together. */
int64_t ruv_clock_cpu_ns(void);

#endif
