/*
 * Accessed and dirty bits, which harts set on their own in ptes that others change at the same time.
 *
 *  exact: the bits are cleared and fenced; all harts load and store as they like and note it, while two of them toggle the bits for software
 *         in the same ptes by AMOs; then D must be set where there was a store, A where there was any access, and nowhere else.
 *  lost:  each hart clears D of its page again and again while the others store to it. Once the fence is done, a store that changes the
 *         page must find D set, or set it.
 */
#include "layout.h"
#include "pages.h"
#include "part.h"
#include "space.h"
#include "sv39.h"

#define NR_PAGES 64
#define EXACT_ROUNDS 10
#define TOUCHES 100
#define LOST_ROUNDS 8000
#define CLEAN_EVERY 64
#define RSW_SHIFT 8		/* two bits of a pte that are software's */

static u64 *ptes[NR_PAGES], *frames[NR_PAGES];
static u64 nr_rounds, nr_exact, nr_cleaned, nr_redirtied;
static u32 read_note[NR_PAGES], write_note[NR_PAGES], toggles[2][NR_PAGES];
static u64 stores[MAX_HARTS];
static u64 snapshot[MAX_HARTS];
static const struct space kernel = { 0, 0 };

static u64 *view(u64 page)
{
	return (u64 *)(DIRTY_WINDOW + page * PAGE_SIZE);
}

static void clear_all(struct hart *me)
{
	for (u64 page = 0; page < NR_PAGES; page++) {
		__atomic_fetch_and(ptes[page], ~(PTE_A | PTE_D), RELAXED);
		read_note[page] = write_note[page] = 0;
	}
	fence_all_harts(me, &kernel, (u64)view(0), NR_PAGES * PAGE_SIZE, FENCE_RANGE);
}

static void toggle(struct hart *me, u64 page)
{
	u64 bit = RSW_SHIFT + me->index, old = __atomic_fetch_xor(ptes[page], 1ul << bit, RELAXED);

	if ((old >> bit & 1) != (toggles[me->index][page]++ & 1))
		FAIL("pte of page %lu was %lx: its software bit %lu was changed by another", page, old, bit);
}

static void touch_some(struct hart *me)
{
	for (u64 i = 0; i < TOUCHES; i++) {
		u64 page = random_below(me, NR_PAGES), what = random_below(me, 16);

		if (what == 0) {
			WRITE_ONCE(view(page)[1 + me->index], ++stores[me->index]);
			__atomic_fetch_or(&write_note[page], 1, RELAXED);
		} else if (what < 4) {
			(void)READ_ONCE(view(page)[0]);
			__atomic_fetch_or(&read_note[page], 1, RELAXED);
		} else if (me->index < 2) {
			toggle(me, page);
		}
	}
}

static void check_all(u64 round)
{
	for (u64 page = 0; page < NR_PAGES; page++) {
		u64 pte = READ_ONCE(*ptes[page]), want = (write_note[page] ? PTE_A | PTE_D : 0) | (read_note[page] ? PTE_A : 0);
		u64 software = (u64)(toggles[0][page] & 1) << RSW_SHIFT | (u64)(toggles[1][page] & 1) << (RSW_SHIFT + 1);

		if ((pte & (PTE_A | PTE_D)) != want || (pte & 3ul << RSW_SHIFT) != software)
			FAIL("round %lu: pte of page %lu is %lx; A and D should be %lx, software's bits %lx", round, page, pte, want, software);
	}
}

static u64 sum_of(u64 page)
{
	u64 sum = 0;

	for (u64 i = 0; i < nr_harts; i++)
		sum += READ_ONCE(frames[page][1 + i]);
	return sum;
}

/* Looks what has become of its page, then cleans it: D goes, no hart may store without setting it again, and only then the page is looked at. */
static void clean(struct hart *me)
{
	u64 page = me->index, sum = sum_of(page), pte;

	FENCE(rw, rw);
	pte = READ_ONCE(*ptes[page]);
	if (sum != snapshot[page] && !(pte & PTE_D))
		FAIL("page %lu was stored to after it was cleaned, and its pte is %lx: the dirty bit is lost", page, pte);
	__atomic_fetch_add(&nr_redirtied, sum != snapshot[page], RELAXED);
	__atomic_fetch_and(ptes[page], ~PTE_D, RELAXED);
	fence_all_harts(me, &kernel, (u64)view(page), PAGE_SIZE, random_below(me, 2) ? FENCE_RANGE : FENCE_RANGE_ASID);
	snapshot[page] = sum_of(page);
	__atomic_fetch_add(&nr_cleaned, 1, RELAXED);
}

void dirty_prepare(const struct plan *plan)
{
	nr_rounds = LOST_ROUNDS * plan->rounds;
	nr_exact = EXACT_ROUNDS * plan->rounds;
	for (u64 page = 0; page < NR_PAGES; page++) {
		frames[page] = (u64 *)page_alloc();
		map_page(kernel_root, (u64)view(page), (u64)frames[page], PTE_R | PTE_W);
		ptes[page] = pte_of(kernel_root, (u64)view(page));
	}
}

static void run_exact(struct hart *me)
{
	for (u64 round = 0; round < nr_exact; round++) {
		if (me->index == 0)
			clear_all(me);
		barrier(me);
		touch_some(me);
		barrier(me);
		if (me->index == 0)
			check_all(round);
	}
}

void dirty_run(struct hart *me)
{
	sfence_vma_all();
	run_exact(me);
	barrier(me);
	snapshot[me->index] = sum_of(me->index);
	clean(me);
	barrier(me);
	for (u64 i = 1; i <= nr_rounds; i++) {
		u64 *word = &view(random_below(me, nr_harts))[1 + me->index];

		WRITE_ONCE(*word, READ_ONCE(*word) + 1);
		if (i % CLEAN_EVERY == 0)
			clean(me);
	}
}

u64 dirty_finish(void)
{
	u64 sum = 0;

	for (u64 page = 0; page < nr_harts; page++)
		sum += sum_of(page);
	say("dirty: %lu rounds exact; %lu times cleaned, %lu times dirty again, none lost", nr_exact, nr_cleaned, nr_redirtied);
	return mix(sum);
}
