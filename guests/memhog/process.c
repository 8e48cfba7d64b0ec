#include "process.h"
#include "console.h"
#include "layout.h"
#include "pages.h"
#include "report.h"
#include "sv39.h"

struct process {
	struct trap_frame frame;
	u64 root, asid;
	int running;
	struct tally tally;
};

extern char __shared_start[], __shared_end[];

static struct process processes[NR_PROCESSES];
static struct process *current;
static struct process_plan plan;
static u64 arena_end, asids, page_faults, switches;

static const char *name_of(const struct process *p)
{
	static const char names[NR_PROCESSES][10] = { "process 1", "process 2" };

	return names[p - processes];
}

/* The kernel's half is shared by copying the root's entries; user_start lies in the shared text. */
static void process_init(struct process *p, u64 index)
{
	u64 text = (u64)__shared_start;

	p->root = page_alloc();
	for (u64 i = 0; i < LAYOUT_RAM_END >> 30; i++)
		((u64 *)p->root)[i] = ((u64 *)plan.kernel_root)[i];
	for (u64 at = text; at < (u64)__shared_end; at += PAGE_SIZE)
		map_page(p->root, USER_TEXT + at - text, at, PTE_R | PTE_X | PTE_U | PTE_A);
	map_page(p->root, USER_STACK, page_alloc(), PTE_R | PTE_W | PTE_U | PTE_A | PTE_D);
	p->asid = asids > NR_PROCESSES ? index + 1 : 0;
	p->running = 1;
	p->frame.sepc = USER_TEXT + (u64)user_start - text;
	p->frame.sstatus = SSTATUS_SPIE;
	p->frame.x[SP] = USER_STACK + PAGE_SIZE;
	p->frame.x[A0] = USER_ARENA;
	p->frame.x[A1] = plan.nr_pages;
	p->frame.x[A2] = plan.seed + index + 1;
	p->frame.x[A3] = plan.passes;
}

static struct trap_frame *switch_to(struct process *p)
{
	if (p != current) {
		switches++;
		current = p;
		satp_write(p->root, p->asid);
		if (p->asid == 0)
			sfence_vma_all();
	}
	return &p->frame;
}

void processes_run(const struct process_plan *given)
{
	CLEAR_CSR(sstatus, SSTATUS_SIE);
	plan = *given;
	asids = nr_asids();
	arena_end = USER_ARENA + plan.nr_pages * PAGE_SIZE +
		    ALIGN_UP(plan.nr_pages * sizeof(struct page_state), PAGE_SIZE);
	for (u64 i = 0; i < NR_PROCESSES; i++)
		process_init(&processes[i], i);
	trap_return(switch_to(&processes[0]));
}

struct trap_frame *process_next(void)
{
	for (u64 i = 1; i <= NR_PROCESSES; i++) {
		struct process *p = &processes[(current - processes + i) % NR_PROCESSES];

		if (p->running)
			return switch_to(p);
	}
	satp_write(plan.kernel_root, 0);
	sfence_vma_all();
	SET_CSR(sstatus, SSTATUS_SIE);
	plan.finish();
	__builtin_unreachable();
}

static struct tally tally_of(const u64 *x)
{
	return (struct tally){ x[A1], x[A2], x[A3], x[A4], x[A5], x[A6] };
}

struct trap_frame *process_syscall(void)
{
	u64 *x = current->frame.x;

	current->frame.sepc += 4;
	switch (x[A7]) {
	case SYS_PASS_DONE:
		current->tally = tally_of(x);
		report_pass(name_of(current), plan.nr_pages, x[A0], &current->tally);
		return &current->frame;
	case SYS_EXIT:
		current->running = 0;
		return process_next();
	default:
		die("FAILED: %s: system call %lu is none", name_of(current), x[A7]);
	}
}

/* A page not there yet is made; one that is there lacks accessed or dirty, where the hart leaves these to software. */
int process_fault(u64 va, int is_store)
{
	u64 bits = PTE_A | (is_store ? PTE_D : 0), *pte;

	if (va < USER_ARENA || va >= arena_end)
		return 0;
	pte = pte_of(current->root, va);
	if (!(*pte & PTE_V)) {
		page_faults++;
		map_page(current->root, ALIGN_DOWN(va, PAGE_SIZE), page_alloc(), PTE_R | PTE_W | PTE_U);
	} else if ((*pte & bits) == bits) {
		return 0;
	} else {
		*pte |= bits;
	}
	__asm__ volatile("sfence.vma %0, %1" ::"r"(va), "r"(current->asid) : "memory");
	return 1;
}

const struct tally *process_tally(u64 index)
{
	return &processes[index].tally;
}

u64 process_page_faults(void)
{
	return page_faults;
}

u64 process_switches(void)
{
	return switches;
}
