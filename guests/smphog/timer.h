/* Each hart's timer: for a part that counts ticks, and for `relax`, which sleeps until the next interrupt. */
#ifndef SMPHOG_TIMER_H
#define SMPHOG_TIMER_H
#include "smp.h"

void timer_init(u64 timebase_hz);
/* On each hart: lets the timer interrupt. */
void timer_enable(void);
/* From now on `nr` ticks, each some time after the one before; me->ticks counts them. */
void timer_run(struct hart *me, u64 nr);
/* With interrupts off: makes sure that one comes soon. */
void timer_ensure(struct hart *me);
/* In units of the time CSR. */
u64 timer_seconds(u64 seconds);
/* Of trap.c. */
void timer_tick(struct hart *me);

#endif
