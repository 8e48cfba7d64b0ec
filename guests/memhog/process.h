/*
 * Two processes in U-mode with page tables of their own, paged on demand, that take turns at each timer tick. Each works an
 * arena as the kernel does (user.c) and tells the kernel after each pass.
 */
#ifndef MEMHOG_PROCESS_H
#define MEMHOG_PROCESS_H
#include "trap.h"
#include "work.h"

#define NR_PROCESSES 2

struct process_plan {
	u64 kernel_root;
	u64 nr_pages;				/* of each process's arena */
	u64 passes, seed;
	void (*finish)(void);			/* called when all have exited; does not return */
};

/* How the processes call the kernel: a7 = number, a0 = pass, a1 to a6 = the tally, field by field. */
enum { SYS_PASS_DONE = 1, SYS_EXIT = 2 };

/* Runs them until all have exited, then calls finish. */
__attribute__((noreturn)) void processes_run(const struct process_plan *plan);
const struct tally *process_tally(u64 index);
u64 process_page_faults(void);
u64 process_switches(void);

/* For trap(): the frame to resume after a tick, after a system call; whether a page fault was served. */
struct trap_frame *process_next(void);
struct trap_frame *process_syscall(void);
int process_fault(u64 va, int is_store);

/* In user.c, in U-mode. */
__attribute__((noreturn)) void user_start(u64 arena_base, u64 nr_pages, u64 seed, u64 passes);

#endif
