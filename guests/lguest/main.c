/*
 * forkhog: a guest whose processes fork, and verify every word that they wrote.
 *
 * The first process fills an arena; in each pass it forks children, which find it as it was, rewrite parts of it for themselves, and
 * write and read back blocks of the disk; then it looks at its own once more (user.c). Parameters on the kernel command line: passes=2, seed=1, mib= (use no more
 * memory than that), children=6, blocks=16 (of the disk, for each child), flip= (spoil this page of the arena, so that the verdict must be a failure), bench= (rounds of benchmarks instead of the work).
 * Runs on what platform.h asks for, and ends in a power off.
 */
#include "args.h"
#include "console.h"
#include "frames.h"
#include "kernel.h"
#include "layout.h"
#include "platform.h"
#include "process.h"
#include "syscall.h"

#define MIN_PAGES 64
#define NO_FLIP (~0ul)
#define MAX_CHILDREN (NR_PROCESSES - 1)
/* Page tables and stacks of a process beside the tables of its arena. */
#define PAGES_EACH 16

extern char __image_start[], __image_end[];

static struct board board;
static u64 nr_pages, free_before;

/* In start.S, before paging: returns the root table. */
u64 boot(const void *blob)
{
	fdt_read(blob, &board);
	board_reserve(&board, (u64)__image_start, (u64)__image_end);
	platform_boot();
	frames_init(&board);
	return space_boot(board.memory.start, platform_memory_end(&board));
}

/* Each child rewrites an eighth of the arena, which makes as many copies; all have page tables, of 512 pages each. */
static u64 plan_pages(u64 mib, u64 children)
{
	u64 nr_free = frames_free(), fixed = (children + 1) * PAGES_EACH, limit = mib * (MIB / PAGE_SIZE);
	u64 nr = nr_free > fixed ? (nr_free - fixed) * 8 * 62 / 64 / (8 + children) : 0;

	nr = nr > MIN_PAGES ? arena_capacity(nr - children * nr / 2048) : 0;
	if (mib != 0 && limit < nr)
		nr = limit;
	if (nr < MIN_PAGES)
		die("%lu pages to work on; at least %lu are needed", nr, (u64)MIN_PAGES);
	return ALIGN_DOWN(nr, 8);
}

static void finish(void)
{
	if (frames_free() != free_before)
		die("FAILED: %lu pages are free at the end, %lu were before", frames_free(), free_before);
	say("%lu timer ticks, %lu page faults, %lu copies, %lu switches between processes", trap_ticks(), space_faults, space_copies,
	    process_switches);
	say("%lu MiB in %lu pages: verified %lu words and %lu blocks, 0 errors, checksum %lx", nr_pages * PAGE_SIZE / MIB, nr_pages,
	    verified.tally.words, verified.blocks, verified.tally.checksum);
	platform_off();
}

/* As many as were asked for, or as the disk has. */
static u64 blocks_each(u64 asked, u64 children)
{
	u64 nr = children ? platform_disk_blocks() / children : 0;

	return nr < asked ? nr : asked;
}

void main(void)
{
	u64 passes, children, blocks, rounds;

	va_offset = PAGE_OFFSET;
	board.bootargs += PAGE_OFFSET;
	space_init();
	platform_start(&board);
	passes = arg_number(board.bootargs, "passes=", 2);
	children = arg_number(board.bootargs, "children=", 6);
	blocks = arg_number(board.bootargs, "blocks=", 16);
	rounds = arg_number(board.bootargs, "bench=", 0);
	if (passes == 0 || children > MAX_CHILDREN)
		die("passes= must be at least 1, and children= at most %lu", (u64)MAX_CHILDREN);
	free_before = frames_free();
	nr_pages = plan_pages(arg_number(board.bootargs, "mib=", 0), children);
	space_arena_pages = nr_pages + ALIGN_UP(nr_pages * sizeof(struct page_state), PAGE_SIZE) / PAGE_SIZE;
	say("%lu MiB of RAM, %lu pages free, %lu blocks of disk; %lu pages to work on", (board.memory.end - board.memory.start) / MIB,
	    free_before, platform_disk_blocks(), nr_pages);
	system_call_init(nr_pages, passes);
	process_run_first((u64[]){ nr_pages, arg_number(board.bootargs, "seed=", 1) << 8, passes, children, blocks_each(blocks, children), rounds,
				   arg_number(board.bootargs, "flip=", NO_FLIP) }, finish);
}
