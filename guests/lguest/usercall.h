/*
 * How processes call the kernel: ecall, with the number in a7, arguments in a0 to a2, the result in a0. Pointers are to the caller's memory, which the
 * kernel reads and writes where the process would: its pages come, and are copied, on the way.
 */
#ifndef FORKHOG_USERCALL_H
#define FORKHOG_USERCALL_H
#include "work.h"

/* What a process leaves when it ends. */
struct legacy { struct tally tally; u64 blocks; };

enum usercall {
	SYS_NOTHING,			/* for the benchmark */
	SYS_FORK,			/* 0 in the child, else its pid; ~0 where there is no room */
	SYS_EXIT,			/* a0: struct legacy * */
	SYS_WAIT,			/* a0: struct legacy *, filled with what a child that has ended left; ~0 without a child */
	SYS_YIELD,
	SYS_PASS,			/* a0: pass. a1: struct legacy *: of all processes, in this pass and before */
	SYS_COUNT,			/* a0: va. a1: pages. a2: bits of their ptes. How many have all of them */
	SYS_READ_BLOCK,			/* a0: block, to the page at a1; 1 when it was read, 0 when not */
	SYS_WRITE_BLOCK,		/* likewise */
	SYS_DROP,			/* a0: va. a1: pages, which are zero from now on */
	SYS_BENCH_BEGIN,
	SYS_BENCH_END,			/* a0: enum benchmark. a1: operations since SYS_BENCH_BEGIN */
	SYS_BENCH_HYPERCALLS,		/* a0: operations: calls of the kernel's own to who is below it */
};

enum benchmark { BENCH_HYPERCALL, BENCH_SYSCALL, BENCH_FAULT, BENCH_SWITCH, BENCH_FORK };

/*
 * In user.c, in U-mode. `nr_pages` of the arena at USER_ARENA are to be worked on; each child has `nr_blocks` of the disk; with `rounds` it is benchmarks, so
 * many rounds of them, instead of the work; a bit of page `flip` of the arena, if there is one, is spoilt in the end.
 */
__attribute__((noreturn)) void user_start(u64 nr_pages, u64 seed, u64 passes, u64 children, u64 nr_blocks, u64 rounds, u64 flip);

#endif
