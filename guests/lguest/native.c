/* The platform that is a hart of one's own: S-mode, Sv39, the SBI's timer and console; no disk. Under a hypervisor it is none the wiser. */
#include "platform.h"
#include "console.h"
#include "frames.h"
#include "kernel.h"
#include "outlet.h"
#include "sbi.h"
#include "sv39.h"

/* Spaces that the hart may have translations of at once, by their ASIDs; the kernel's has 0 for ever. */
#define NR_SPACES 17
#define SSTATUS_SUM (1ul << 18)
#define EXT_BASE 0x10

static u64 interval;
/* By ASID; 0: none. */
static u64 roots[NR_SPACES], present, asids;

void platform_boot(void)
{
	WRITE_CSR(sie, 0);
	WRITE_CSR(sscratch, 0);
	sbi_init();
}

u64 platform_memory_end(const struct board *board)
{
	return board->memory.end;
}

static void arm(void)
{
	sbi_set_timer(READ_CSR(time) + interval);
}

void platform_start(const struct board *board)
{
	asids = nr_asids();
	WRITE_CSR(stvec, (u64)trap_entry);
	SET_CSR(sstatus, SSTATUS_SUM);
	SET_CSR(sie, SIE_STIE);
	interval = board->timebase_hz / 100;
	arm();
}

static void sfence_vma_asid(u64 asid)
{
	__asm__ volatile("sfence.vma zero, %0" ::"r"(asid) : "memory");
}

/* Of the root; NR_SPACES where it has none. */
static u64 asid_of(u64 root)
{
	u64 asid = 0;

	while (asid < NR_SPACES && roots[asid] != root)
		asid++;
	return asid;
}

/* A root that is new takes an ASID that nobody has; when there is none, all but the kernel's are given anew. */
static u64 give_asid(u64 root)
{
	u64 asid = asid_of(0);

	if (asid == NR_SPACES) {
		sfence_vma_all();
		for (asid = NR_SPACES - 1; asid > 1; asid--)
			roots[asid] = 0;
	}
	roots[asid] = root;
	return asid;
}

void platform_use_root(u64 root)
{
	u64 asid = asid_of(root);

	if (asid == NR_SPACES)
		asid = give_asid(root);
	present = asid;
	satp_write(root, asids >= NR_SPACES ? asid : 0);
	if (asids < NR_SPACES)
		sfence_vma_all();
}

/* What the hart may remember of the entry goes: of a space that it does not use now, all of it. */
static void set(u64 root, u64 va, u64 *entry, u64 value)
{
	u64 asid = asid_of(root);

	*(volatile u64 *)entry = value;
	if (asid == present)
		sfence_vma(va);
	else if (asid < NR_SPACES && asids >= NR_SPACES)
		sfence_vma_asid(asid);
}

void platform_set_pgd(u64 root, u64 va, u64 *entry, u64 value)
{
	set(root, va, entry, value);
}

void platform_set_pmd(u64 root, u64 va, u64 *entry, u64 value)
{
	set(root, va, entry, value);
}

void platform_set_pte(u64 root, u64 va, u64 *entry, u64 value)
{
	set(root, va, entry, value);
}

void platform_flush_user(void)
{
	if (asids >= NR_SPACES)
		sfence_vma_asid(present);
	else
		sfence_vma_all();
}

void platform_sync(void)
{
}

int platform_interrupt(u64 cause)
{
	if (cause != CAUSE_SUPERVISOR_TIMER)
		die("FAILED: interrupt %lx is none of ours", cause);
	arm();
	return 1;
}

void platform_idle(void)
{
	__asm__ volatile("wfi" ::: "memory");
	SET_CSR(sstatus, SSTATUS_SIE);
	CLEAR_CSR(sstatus, SSTATUS_SIE);
}

void platform_off(void)
{
	sbi_shutdown(SRST_REASON_NONE);
}

u64 platform_user_status(void)
{
	return SSTATUS_SPIE | SSTATUS_SUM;
}

void platform_null_call(void)
{
	sbi_call(EXT_BASE, 0, 0, 0, 0, 0, 0);
}

u64 platform_disk_blocks(void)
{
	return 0;
}

int platform_disk_move(u64 who, int is_write, u64 block, u64 pa)
{
	(void)who, (void)is_write, (void)block, (void)pa;
	return 0;
}

void outlet_write(const char *text, u64 length)
{
	sbi_console_write(text, pa_of(text), length);
}

void outlet_quiet(void)
{
	CLEAR_CSR(sstatus, SSTATUS_SIE);
}

void outlet_fail(void)
{
	sbi_shutdown(SRST_REASON_SYSTEM_FAILURE);
}

/* vector.S, which is memhog's. */
struct trap_frame *trap(struct trap_frame *frame)
{
	return handle_trap(frame, READ_CSR(scause), READ_CSR(stval));
}
