/*
 * Page tables that change under all harts. A window of pages in each of two address spaces shows frames that tell which they are: by a
 * word to load, by a word for each hart to store, and by a function to call. Each page belongs to a hart, which puts other frames behind it all the
 * time, some with a gap in which there is none; all harts use all pages all the time.
 *
 *   who changes the page                    who uses it
 *   seq odd                                 seq even? then what it says is behind the page
 *   pte; sfence.vma here and remote         load, store or call
 *   seq even                                seq the same as before? then it must have been that frame
 *
 * A translation that outlives its fence shows as the wrong frame.
 */
#include "remap.h"
#include "layout.h"
#include "pages.h"
#include "part.h"
#include "space.h"
#include "sv39.h"

#define ROUNDS 8000
#define NR_PAGES 64
#define NR_FRAMES 97		/* a prime, so that generations that follow each other have different frames */
#define MAX_BATCH 6
#define CHANGE_EVERY 64
#define SWITCH_EVERY 16
#define FLAGS (PTE_R | PTE_W | PTE_X)
#define LI_A0 0x00000513u	/* addi a0, zero, 0: the immediate is in bits 20 to 31 */
#define RET 0x00008067u

/* Word 0 tells which it is; then a word for each hart; then a function that returns which it is. */
struct frame { u64 tag, stored[MAX_HARTS], pad[7]; u32 code[2]; };
struct page { u64 seq; u64 *pte; };

static struct frame *frames[NR_FRAMES];
static struct page pages[NR_SPACES][NR_PAGES];
static u64 nr_rounds, nr_changes, nr_faults, last_stored[MAX_HARTS];

static u64 frame_of(u64 space, u64 page, u64 seq)
{
	return (page * 7 + space * 31 + seq / 2 * 13) % NR_FRAMES;
}

static u64 tag_of(u64 frame)
{
	return 0x7a67000000000000ul + frame;
}

static struct frame *view(u64 page)
{
	return (struct frame *)(REMAP_WINDOW + page * PAGE_SIZE);
}

static void set_pte(u64 space, u64 page, u64 seq)
{
	u64 pte = (u64)frames[frame_of(space, page, seq)] >> PAGE_SHIFT << PTE_PPN_SHIFT | FLAGS | PTE_V;

	WRITE_ONCE(*pages[space][page].pte, pte);
}

/* The pages first, first + nr_harts, ... of one hart. */
static void change(struct hart *me, u64 space, u64 first, u64 nr, enum fence how, int gap)
{
	u64 start = (u64)view(first), size = ((nr - 1) * nr_harts + 1) * PAGE_SIZE, page = first;

	for (u64 i = 0; i < nr; i++, page += nr_harts)
		WRITE_ONCE(pages[space][page].seq, pages[space][page].seq + 1);
	FENCE(w, w);
	if (gap) {
		for (page = first; page < first + nr * nr_harts; page += nr_harts)
			WRITE_ONCE(*pages[space][page].pte, 0);
		fence_all_harts(me, &spaces[space], start, size, how);
	}
	for (page = first; page < first + nr * nr_harts; page += nr_harts)
		set_pte(space, page, pages[space][page].seq + 1);
	fence_all_harts(me, &spaces[space], start, size, how);
	FENCE(rw, w);
	for (page = first; page < first + nr * nr_harts; page += nr_harts)
		WRITE_ONCE(pages[space][page].seq, pages[space][page].seq + 1);
	__atomic_fetch_add(&nr_changes, nr, RELAXED);
}

static void change_some(struct hart *me)
{
	u64 space = random_below(me, NR_SPACES), batch = 1 + random_below(me, MAX_BATCH);
	u64 nr_mine = NR_PAGES / nr_harts, first = me->index + random_below(me, nr_mine - MAX_BATCH + 1) * nr_harts;
	enum fence how = (enum fence)random_below(me, NR_FENCES);

	change(me, space, first, batch, how, random_below(me, 2) == 0);
}

/* seq when it says that the page is stable. */
static int begin(u64 space, u64 page, u64 *seq)
{
	*seq = READ_ONCE(pages[space][page].seq);
	FENCE(r, rw);
	return (*seq & 1) == 0;
}

static int same(u64 space, u64 page, u64 seq)
{
	FENCE(rw, r);
	return READ_ONCE(pages[space][page].seq) == seq;
}

static void must_show(u64 space, u64 page, u64 seq, u64 frame, const char *how)
{
	u64 want = frame_of(space, page, seq);

	if (frame != want)
		FAIL("space %lu, page %lu, change %lu: %s frame %lu, which was replaced by %lu", space, page, seq / 2, how, frame, want);
}

static void load(u64 space, u64 page)
{
	u64 seq, tag;
	int stable = begin(space, page, &seq);

	tag = READ_ONCE(view(page)->tag);
	if (tag - tag_of(0) >= NR_FRAMES)
		FAIL("space %lu, page %lu: %lx is no tag", space, page, tag);
	if (same(space, page, seq) && stable)
		must_show(space, page, seq, tag - tag_of(0), "loaded from");
}

/* The store must be in the frame that the kernel reaches by another address. */
static void store(struct hart *me, u64 space, u64 page)
{
	u64 seq, value = ++last_stored[me->index];
	int stable = begin(space, page, &seq);
	const struct frame *frame = frames[frame_of(space, page, seq)];

	WRITE_ONCE(view(page)->stored[me->index], value);
	if (same(space, page, seq) && stable && READ_ONCE(frame->stored[me->index]) != value)
		FAIL("space %lu, page %lu, change %lu: store %lu is not in its frame, which has %lu", space, page, seq / 2, value,
		     frame->stored[me->index]);
}

static void call(u64 space, u64 page)
{
	u64 seq, frame;
	int stable = begin(space, page, &seq);

	frame = ((u64 (*)(void))view(page)->code)();
	if (same(space, page, seq) && stable)
		must_show(space, page, seq, frame, "ran code of");
}

static void use(struct hart *me, u64 space)
{
	u64 page = random_below(me, NR_PAGES), what = random_below(me, 4);

	if (what == 0)
		store(me, space, page);
	else if (what == 1)
		call(space, page);
	else
		load(space, page);
}

static void frame_init(u64 index)
{
	struct frame *frame = (struct frame *)page_alloc();

	frame->tag = tag_of(index);
	frame->code[0] = LI_A0 | (u32)index << 20;
	frame->code[1] = RET;
	frames[index] = frame;
}

void remap_prepare(const struct plan *plan)
{
	nr_rounds = ROUNDS * plan->rounds;
	for (u64 i = 0; i < NR_FRAMES; i++)
		frame_init(i);
	for (u64 space = 0; space < NR_SPACES; space++)
		for (u64 page = 0; page < NR_PAGES; page++) {
			pages[space][page].pte = pte_of(spaces[space].root, (u64)view(page));
			set_pte(space, page, 0);
		}
}

void remap_run(struct hart *me)
{
	u64 space = 0;

	sfence_vma_all();
	__asm__ volatile("fence.i" ::: "memory");
	space_enter(&spaces[space]);
	for (u64 i = 1; i <= nr_rounds; i++) {
		if (i % CHANGE_EVERY == 0)
			change_some(me);
		if (i % SWITCH_EVERY == 0) {
			space = random_below(me, NR_SPACES);
			space_enter(&spaces[space]);
		}
		use(me, space);
	}
	kernel_space_enter();
	__atomic_fetch_add(&nr_faults, me->nr_faults, RELAXED);
}

/* Once, a fault may be told after the change is over; the second time the same page is there for certain. */
int remap_fault(struct hart *me, u64 va)
{
	u64 satp = READ_CSR(satp) << 20 >> 20, page = (va - REMAP_WINDOW) / PAGE_SIZE, space, seq;

	if (va < REMAP_WINDOW || page >= NR_PAGES)
		return 0;
	for (space = 0; space < NR_SPACES; space++)
		if (spaces[space].root >> PAGE_SHIFT == satp)
			break;
	if (space == NR_SPACES)
		return 0;
	FENCE(rw, rw);
	seq = READ_ONCE(pages[space][page].seq);
	if ((seq & 1) == 0 && me->fault_va == va && me->fault_seq == seq)
		FAIL("space %lu, page %lu, change %lu: page fault twice at %lx, where there is a page", space, page, seq / 2, va);
	me->fault_va = va;
	me->fault_seq = seq;
	relax_in_trap(me, me->nr_faults++);
	return 1;
}

u64 remap_finish(void)
{
	u64 sum = 0;

	for (u64 space = 0; space < NR_SPACES; space++)
		for (u64 page = 0; page < NR_PAGES; page++)
			sum = mix(sum + pages[space][page].seq);
	say("remap: %lu pages changed under %lu harts in %lu uses, %lu page faults between", nr_changes, nr_harts, nr_rounds * nr_harts, nr_faults);
	return sum;
}
