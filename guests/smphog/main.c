/*
 * smphog: a guest with several harts, which do all that harts do to each other, and verify it.
 *
 * Parts are done one after the other by all harts at once (part.h). Parameters on the kernel command line: rounds=1, seed=1, parts=0x3ff (a bit for
 * each part, in the order of part.h; balloon and alias need a host that plays along, and must be named), mib= (fill no more memory than that), harts= (use no more than these), flip= (spoil this page of fill's)
 * and nofences=1 (leave out what orders harts), so that the verdict can be seen to fail. Ends in a power off by SBI, with the reason "system failure"
 * when anything was wrong.
 */
#include "args.h"
#include "fdt.h"
#include "layout.h"
#include "pages.h"
#include "part.h"
#include "sbi.h"
#include "space.h"
#include "sv39.h"
#include "timer.h"

#define NONE (~0ul)
#define MIN_FILL_PAGES 64
/* What the other parts take: two blocks of 2 MiB and what lies before the first, frames, page tables. */
#define PAGES_OF_OTHERS (1024 + 1024 + 512)

extern char __image_start[], __image_end[];

#define PART_INDEX(name) PART_##name,
enum { PARTS(PART_INDEX) NR_PARTS };

static struct board board;
static struct plan plan;
static u64 chosen, checksum;

static u64 plan_fill(u64 mib)
{
	u64 nr_free = pages_free(), tables = nr_free / 256 + 64, nr = nr_free > PAGES_OF_OTHERS + tables ? nr_free - PAGES_OF_OTHERS - tables : 0;

	if (mib != 0 && mib * (MIB / PAGE_SIZE) < nr)
		nr = mib * (MIB / PAGE_SIZE);
	if (nr < MIN_FILL_PAGES)
		die("%lu pages to fill; at least %lu are needed", nr, (u64)MIN_FILL_PAGES);
	return nr;
}

static void part_prepare(u64 i)
{
#define PREPARE(name) if (i == PART_##name) name##_prepare(&plan);
	PARTS(PREPARE)
}

static void part_run(u64 i, struct hart *me)
{
#define RUN(name) if (i == PART_##name) name##_run(me);
	PARTS(RUN)
}

static u64 part_finish(u64 i)
{
#define FINISH(name) if (i == PART_##name) return name##_finish();
	PARTS(FINISH)
	return 0;
}

/* hsm is the last one: no hart but the boot hart comes back from it. */
static u64 nth_part(u64 n)
{
	if (n == NR_PARTS - 1)
		return PART_hsm;
	return n < PART_hsm ? n : n + 1;
}

/* Only the boot hart finishes. */
static void run_parts(struct hart *me)
{
	for (u64 n = 0; n < NR_PARTS; n++) {
		u64 i = nth_part(n);

		if (!(chosen >> i & 1))
			continue;
		barrier(me);
		part_run(i, me);
		if (i != PART_hsm)
			barrier(me);
		if (me->index == 0)
			checksum = mix(checksum + part_finish(i));
	}
}

static void secondary_main(struct hart *me, u64 id)
{
	if (id != me->id || READ_CSR(satp) != 0)
		FAIL("begun with id %lu, satp %lx", id, READ_CSR(satp));
	kernel_space_enter();
	timer_enable();
	run_parts(me);
	hart_stop();
}

static void read_parameters(const char *bootargs)
{
	chosen = arg_number(bootargs, "parts=", (1ul << (PART_hsm + 1)) - 1);
	plan.rounds = arg_number(bootargs, "rounds=", 1);
	plan.seed = arg_number(bootargs, "seed=", 1);
	plan.flip = arg_number(bootargs, "flip=", NONE);
	plan.alias = arg_number(bootargs, "alias=", 0);
	plan.ram_start = board.memory.start;
	no_fences = arg_number(bootargs, "nofences=", 0) != 0;
	if (plan.rounds == 0)
		die("rounds= must be at least 1");
}

/* Before any part runs, as nobody but the boot hart may take pages. alias comes first, as it needs pages at the start of RAM; mega late, as it leaves
 * out pages until it finds 2 MiB in a row. */
static void prepare_parts(void)
{
	for (u64 n = 0; n < NR_PARTS; n++) {
		u64 i = (n + PART_alias) % NR_PARTS;

		if (chosen >> i & 1)
			part_prepare(i);
	}
}

void main(u64 hart_id, const void *blob)
{
	u64 mib;

	sbi_init();
	fdt_read(blob, &board);
	board_reserve(&board, (u64)__image_start, (u64)__image_end);
	pages_init(&board);
	read_parameters(board.bootargs);
	harts_init(hart_id, plan.seed, arg_number(board.bootargs, "harts=", MAX_HARTS));
	timer_init(board.timebase_hz);
	timer_enable();
	spaces_init(board.memory.start, board.memory.end);
	plan.nr_fill_pages = plan_fill(arg_number(board.bootargs, "mib=", 0));
	mib = (board.memory.end - board.memory.start) / MIB;
	say("%lu harts, %lu MiB of RAM at %lx, %lu pages free", nr_harts, mib, board.memory.start, pages_free());
	prepare_parts();
	harts_start(secondary_main);
	run_parts(&harts[0]);
	say("%lu harts, %lu MiB, parts %lx, %lu rounds: 0 errors, checksum %lx", nr_harts, mib, chosen, plan.rounds, checksum);
	sbi_shutdown(SRST_REASON_NONE);
}
