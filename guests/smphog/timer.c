#include "timer.h"
#include "sbi.h"

#define NEVER (~0ul)
#define SIE_SSIE (1ul << 1)

static u64 hz;

void timer_init(u64 timebase_hz)
{
	hz = timebase_hz;
}

u64 timer_seconds(u64 seconds)
{
	return seconds * hz;
}

void timer_enable(void)
{
	sbi_set_timer(NEVER);
	SET_CSR(sie, SIE_STIE | SIE_SSIE);
	SET_CSR(sstatus, SSTATUS_SIE);
}

static void arm(struct hart *me, u64 delay)
{
	me->deadline = READ_CSR(time) + delay;
	sbi_set_timer(me->deadline);
}

/* 20 to 276 microseconds; not from me->random, whose order must be the same in each run. */
static void arm_next(struct hart *me)
{
	me->timer_random = mix(me->timer_random + 1);
	arm(me, hz / 50000 + me->timer_random % 256 * (hz / 1000000));
}

void timer_run(struct hart *me, u64 nr)
{
	CLEAR_CSR(sstatus, SSTATUS_SIE);
	me->ticks = 0;
	me->nr_ticks_wanted = nr;
	arm_next(me);
	SET_CSR(sstatus, SSTATUS_SIE);
}

void timer_ensure(struct hart *me)
{
	if (me->ticks >= me->nr_ticks_wanted)
		arm(me, hz / 10000);
}

void timer_tick(struct hart *me)
{
	u64 now = READ_CSR(time);

	if (now < me->deadline)
		FAIL("the timer for %lx came at %lx", me->deadline, now);
	if (me->ticks < me->nr_ticks_wanted)
		me->ticks++;
	if (me->ticks < me->nr_ticks_wanted) {
		arm_next(me);
	} else {
		me->deadline = NEVER;
		sbi_set_timer(NEVER);
	}
}
