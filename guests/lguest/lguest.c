/*
 * The platform that is lguest: a kernel without privilege, which asks its host for everything that a hart would do for it. What it writes into its page tables
 * it tells, by calls that wait in the ring until the next one that cannot wait: at the latest the return from a trap.
 */
#include "platform.h"
#include "bus.h"
#include "disk.h"
#include "frames.h"
#include "hcall.h"
#include "hvc.h"
#include "layout.h"
#include "outlet.h"

#define TICK_NS 10000000ul
#define FIRST_EXCEPTION 0
#define LAST_EXCEPTION 15
#define CAUSE_KERNEL_ECALL 9

extern char __stack_top[];

void platform_boot(void)
{
	hcall_init();
	lguest_data.kernel_address = PAGE_OFFSET;
	hcall(LHCALL_LGUEST_INIT, (u64)&lguest_data, 0, 0);
}

u64 platform_memory_end(const struct board *board)
{
	(void)board;
	return lguest_data.mem_bytes;
}

void platform_start(const struct board *board)
{
	for (u64 cause = FIRST_EXCEPTION; cause <= LAST_EXCEPTION; cause++)
		if (cause != CAUSE_KERNEL_ECALL)
			hcall_async(LHCALL_LOAD_IDT_ENTRY, cause, (u64)trap_entry, 0);
	for (u64 irq = 0; irq < LGUEST_IRQS; irq++)
		hcall_async(LHCALL_LOAD_IDT_ENTRY, LGUEST_IRQ_VECTOR + irq, (u64)trap_entry, 0);
	hcall_async(LHCALL_SET_STACK, (u64)__stack_top, 0, 0);
	hvc_start(board->memory.end);
	disk_start(board->memory.end);
	hcall(LHCALL_SET_CLOCKEVENT, TICK_NS, 0, 0);
}

void platform_use_root(u64 root)
{
	hcall_async(LHCALL_NEW_PGTABLE, root, 0, 0);
}

void platform_set_pgd(u64 root, u64 va, u64 *entry, u64 value)
{
	*(volatile u64 *)entry = value;
	hcall_async(LHCALL_SET_PGD, root, va >> 30 & 511, 0);
}

void platform_set_pmd(u64 root, u64 va, u64 *entry, u64 value)
{
	*(volatile u64 *)entry = value;
	hcall_async(LHCALL_SET_PMD, root, va, 0);
}

void platform_set_pte(u64 root, u64 va, u64 *entry, u64 value)
{
	*(volatile u64 *)entry = value;
	hcall_async(LHCALL_SET_PTE, root, va, value);
}

void platform_flush_user(void)
{
	hcall_async(LHCALL_FLUSH_TLB, 0, 0, 0);
}

void platform_sync(void)
{
	hcall(LHCALL_FLUSH_ASYNC, 0, 0, 0);
}

/* Of the console's there is nothing to do: who waits for a buffer looks by himself. */
int platform_interrupt(u64 cause)
{
	u64 irq = cause & ~CAUSE_INTERRUPT;

	if (irq == LGUEST_TIMER_IRQ) {
		hcall_async(LHCALL_SET_CLOCKEVENT, TICK_NS, 0, 0);
		return 1;
	}
	disk_interrupt(irq);
	return 0;
}

/* The host enables interrupts for it. */
void platform_idle(void)
{
	hcall(LHCALL_HALT, 0, 0, 0);
	lguest_data.irq_enabled = 0;
}

void platform_off(void)
{
	static const char no_words[1];

	hvc_drain();
	for (;;)
		hcall(LHCALL_SHUTDOWN, pa_of(no_words), LGUEST_SHUTDOWN_POWEROFF, 0);
}

u64 platform_user_status(void)
{
	return LGUEST_STATUS_PIE;
}

void platform_null_call(void)
{
	platform_sync();
}

u64 platform_disk_blocks(void)
{
	return disk_blocks();
}

int platform_disk_move(u64 who, int is_write, u64 block, u64 pa)
{
	return disk_move(who, is_write, block, pa);
}

void outlet_write(const char *text, u64 length)
{
	hvc_write(text, length);
}

/* Interrupts are off in the kernel; those that come while the last lines go out find their handlers. */
void outlet_quiet(void)
{
}

void outlet_fail(void)
{
	static const char last_words[] = "the guest reported a failure";

	hvc_drain();
	for (;;)
		hcall(LHCALL_SHUTDOWN, pa_of(last_words), LGUEST_SHUTDOWN_POWEROFF, 0);
}
