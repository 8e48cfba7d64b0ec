#include "timer.h"
#include "sbi.h"

static u64 interval;
static volatile u64 ticks;

static void arm(void)
{
	sbi_set_timer(READ_CSR(time) + interval);
}

void timer_init(u64 timebase_hz)
{
	interval = timebase_hz / 100;
	arm();
	SET_CSR(sie, SIE_STIE);
	SET_CSR(sstatus, SSTATUS_SIE);
	/* A tick that comes between the look and the wfi only costs one more interval. */
	while (ticks == 0)
		__asm__ volatile("wfi");
}

void timer_tick(void)
{
	ticks++;
	arm();
}

u64 timer_ticks(void)
{
	return ticks;
}
