#include "trap.h"
#include "ipi.h"
#include "remap.h"
#include "smp.h"
#include "timer.h"

#define CAUSE_SUPERVISOR_SOFTWARE (CAUSE_INTERRUPT | 1)
#define CAUSE_FETCH_PAGE_FAULT 12

/* Called by vector.S; returns the frame to resume. */
struct trap_frame *trap(struct trap_frame *frame)
{
	struct hart *me = this_hart();
	u64 cause = READ_CSR(scause), va = READ_CSR(stval);
	int page_fault = cause == CAUSE_FETCH_PAGE_FAULT || cause == CAUSE_LOAD_PAGE_FAULT || cause == CAUSE_STORE_PAGE_FAULT;

	if (cause == CAUSE_SUPERVISOR_TIMER)
		timer_tick(me);
	else if (cause == CAUSE_SUPERVISOR_SOFTWARE)
		ipi_take(me);
	else if (!page_fault || !remap_fault(me, va))
		FAIL("unexpected trap: scause %lx, stval %lx, sepc %lx, satp %lx", cause, va, frame->sepc, READ_CSR(satp));
	return frame;
}
