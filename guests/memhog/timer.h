/* A tick a hundred times a second by the SBI timer. */
#ifndef MEMHOG_TIMER_H
#define MEMHOG_TIMER_H
#include "types.h"

/* Turns the ticks on, and waits for the first one with wfi. Needs stvec. */
void timer_init(u64 timebase_hz);
void timer_tick(void);
u64 timer_ticks(void);

#endif
