/*
 * memhog: a guest that works nearly all of its memory hard and verifies every word it wrote.
 *
 * Half of the memory is the kernel's (hoard.c), half belongs to two processes in U-mode (process.c). Parameters on the kernel
 * command line: passes=2, seed=1, mib= (use no more memory than that), flip= (spoil this page of the kernel's, so that the
 * verdict must be a failure). Ends in a power off by SBI, with the reason "system failure" when anything was wrong.
 */
#include "args.h"
#include "console.h"
#include "hoard.h"
#include "layout.h"
#include "pages.h"
#include "process.h"
#include "report.h"
#include "sbi.h"
#include "sv39.h"
#include "timer.h"

#define NO_FLIP (~0ul)
#define MIN_PAGES 64

extern char __image_start[], __image_end[];

static struct board board;
static u64 flip, nr_worked;

/* All RAM where it lies, by megapages. */
static u64 kernel_page_table(void)
{
	u64 root = page_alloc();

	if (board.memory.end > LAYOUT_RAM_END)
		die("RAM ends at %lx; this guest can use it up to %lx", board.memory.end, LAYOUT_RAM_END);
	for (u64 pa = ALIGN_DOWN(board.memory.start, MEGAPAGE_SIZE); pa < board.memory.end; pa += MEGAPAGE_SIZE)
		map_megapage(root, pa, pa, PTE_R | PTE_W | PTE_X | PTE_G | PTE_A | PTE_D);
	satp_write(root, 0);
	sfence_vma_all();
	return root;
}

/* Pages to work on: the free ones, less page tables (one for 512 pages, and what each of the windows needs besides). */
static u64 plan_pages(u64 mib)
{
	u64 nr_free = pages_free(), tables = nr_free / 512 + 64, limit = mib * (MIB / PAGE_SIZE);
	u64 nr = nr_free > tables ? arena_capacity(nr_free - tables) : 0;

	if (mib != 0 && limit < nr)
		nr = limit;
	if (nr < MIN_PAGES)
		die("%lu pages to work on; at least %lu are needed", nr, (u64)MIN_PAGES);
	return ALIGN_DOWN(nr, 4);
}

static void finish(void)
{
	struct tally total;

	if (flip != NO_FLIP)
		hoard_flip(flip);
	total = *hoard_finish();
	for (u64 i = 0; i < NR_PROCESSES; i++) {
		total.words += process_tally(i)->words;
		total.checksum = (total.checksum << 1 | total.checksum >> 63) ^ process_tally(i)->checksum;
	}
	say("%lu timer ticks, %lu page faults, %lu switches between processes", timer_ticks(), process_page_faults(),
	    process_switches());
	say("%lu MiB in %lu pages: verified %lu words, 0 errors, checksum %lx", nr_worked * PAGE_SIZE / MIB, nr_worked,
	    total.words, total.checksum);
	sbi_shutdown(SRST_REASON_NONE);
}

static void start(const void *blob)
{
	fdt_read(blob, &board);
	board_reserve(&board, (u64)__image_start, (u64)__image_end);
	pages_init(&board);
	say("%lu MiB of RAM at %lx, %lu pages free", (board.memory.end - board.memory.start) / MIB, board.memory.start,
	    pages_free());
	timer_init(board.timebase_hz);
}

void main(u64 hart_id, const void *blob)
{
	u64 passes, seed, root;

	(void)hart_id;
	sbi_init();
	start(blob);
	passes = arg_number(board.bootargs, "passes=", 2);
	seed = arg_number(board.bootargs, "seed=", 1) << 8;
	flip = arg_number(board.bootargs, "flip=", NO_FLIP);
	nr_worked = plan_pages(arg_number(board.bootargs, "mib=", 0));
	if (passes == 0)
		die("passes= must be at least 1");
	report_init(passes);
	root = kernel_page_table();
	hoard_init(root, nr_worked / 2, seed);
	for (u64 pass = 1; pass <= passes; pass++)
		hoard_pass(pass);
	processes_run(&(struct process_plan){ root, nr_worked / 4, passes, seed, finish });
}
