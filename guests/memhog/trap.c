#include "trap.h"
#include "console.h"
#include "hoard.h"
#include "process.h"
#include "timer.h"

__attribute__((noreturn)) static void die_of_trap(const struct trap_frame *frame, u64 cause)
{
	die("FAILED: unexpected trap: scause %lx, stval %lx, sepc %lx, sstatus %lx", cause, READ_CSR(stval), frame->sepc,
	    frame->sstatus);
}

/* Called by vector.S; returns the frame to resume. */
struct trap_frame *trap(struct trap_frame *frame)
{
	u64 cause = READ_CSR(scause);
	int from_user = !(frame->sstatus & SSTATUS_SPP);
	int page_fault = cause == CAUSE_LOAD_PAGE_FAULT || cause == CAUSE_STORE_PAGE_FAULT;

	if (cause == CAUSE_SUPERVISOR_TIMER) {
		timer_tick();
		return from_user ? process_next() : frame;
	}
	if (from_user && cause == CAUSE_USER_ECALL)
		return process_syscall();
	if (page_fault && from_user && process_fault(READ_CSR(stval), cause == CAUSE_STORE_PAGE_FAULT))
		return frame;
	if (page_fault && !from_user && hoard_fault(READ_CSR(stval), cause == CAUSE_STORE_PAGE_FAULT))
		return frame;
	die_of_trap(frame, cause);
}
