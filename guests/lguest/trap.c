#include "kernel.h"
#include "console.h"
#include "platform.h"
#include "process.h"
#include "syscall.h"

static u64 ticks;

u64 trap_ticks(void)
{
	return ticks;
}

/* The kernel is interrupted where it waits alone; it goes on there. */
static struct trap_frame *interrupted(struct trap_frame *frame, u64 cause, int from_user)
{
	int is_tick = platform_interrupt(cause);

	ticks += is_tick;
	return is_tick && from_user ? process_next() : frame;
}

struct trap_frame *handle_trap(struct trap_frame *frame, u64 cause, u64 tval)
{
	int from_user = !(frame->sstatus & SSTATUS_SPP);

	if (cause & CAUSE_INTERRUPT)
		return interrupted(frame, cause, from_user);
	if (cause == CAUSE_USER_ECALL && from_user)
		return system_call();
	if ((cause == CAUSE_LOAD_PAGE_FAULT || cause == CAUSE_STORE_PAGE_FAULT) && current != 0 &&
	    space_fault(&current->space, tval, cause == CAUSE_STORE_PAGE_FAULT))
		return frame;
	die("FAILED: unexpected trap: cause %lx, tval %lx, epc %lx, status %lx", cause, tval, frame->sepc, frame->sstatus);
}
