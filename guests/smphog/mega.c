/*
 * Superpages that are split and merged under all harts. In each address space a window of 2 MiB shows, turn by turn: one block of memory as a
 * megapage; the same block by 512 pages, some of which are of the other block; the other block as a megapage; and again the one,
 * at once. The protocol is remap.c's.
 */
#include "layout.h"
#include "pages.h"
#include "part.h"
#include "space.h"
#include "sv39.h"

#define ROUNDS 8000
#define NR_PTES 512
#define CHANGE_EVERY 64
#define SWITCH_EVERY 16
#define FLAGS (PTE_R | PTE_W)

enum { SHOWS_A = 0, SHOWS_MIXED = 1, SHOWS_B = 2, NR_SHOWS = 3 };

struct unit { u64 tag, stored[MAX_HARTS]; };
struct window { u64 seq, *pte, *table; };

static u64 blocks[2];
static struct window windows[NR_SPACES];
static u64 nr_rounds, nr_changes, last_stored[MAX_HARTS];

static struct unit *unit_of(u64 block, u64 i)
{
	return (struct unit *)(blocks[block] + i * PAGE_SIZE);
}

static struct unit *view(u64 i)
{
	return (struct unit *)(MEGA_WINDOW + i * PAGE_SIZE);
}

/* Which block is behind page i. */
static u64 block_of(u64 seq, u64 i)
{
	u64 change = seq / 2;

	switch (change % NR_SHOWS) {
	case SHOWS_A: return 0;
	case SHOWS_B: return 1;
	default: return i % 5 == change % 5;
	}
}

static u64 tag_of(u64 block, u64 i)
{
	return 0x6d65676100000000ul + block * NR_PTES + i;
}

static u64 pte_for(u64 pa, u64 flags)
{
	return pa >> PAGE_SHIFT << PTE_PPN_SHIFT | flags | PTE_V;
}

static void set_window(struct window *w, u64 seq)
{
	u64 show = seq / 2 % NR_SHOWS;

	if (show == SHOWS_MIXED) {
		for (u64 i = 0; i < NR_PTES; i++)
			w->table[i] = pte_for((u64)unit_of(block_of(seq, i), i), FLAGS);
		FENCE(w, w);
		WRITE_ONCE(*w->pte, pte_for((u64)w->table, 0));
	} else {
		WRITE_ONCE(*w->pte, pte_for(blocks[show == SHOWS_B], FLAGS));
	}
}

/* From leaf to leaf (B to A) one address of the megapage does, as Linux has it; where a table comes or goes it is the whole of it. */
static void change(struct hart *me, u64 space)
{
	struct window *w = &windows[space];
	u64 seq = w->seq + 2, at = MEGA_WINDOW + random_below(me, NR_PTES) * PAGE_SIZE;
	int leaf_to_leaf = seq / 2 % NR_SHOWS == SHOWS_A;

	WRITE_ONCE(w->seq, seq - 1);
	FENCE(w, w);
	set_window(w, seq);
	if (leaf_to_leaf)
		fence_all_harts(me, &spaces[space], at, PAGE_SIZE, FENCE_RANGE_ASID);
	else
		fence_all_harts(me, &spaces[space], MEGA_WINDOW, MEGAPAGE_SIZE, random_below(me, 2) ? FENCE_RANGE : FENCE_ALL_ASID);
	FENCE(rw, w);
	WRITE_ONCE(w->seq, seq);
	__atomic_fetch_add(&nr_changes, 1, RELAXED);
}

static void use(struct hart *me, u64 space)
{
	u64 i = random_below(me, NR_PTES), stores = random_below(me, 4) == 0, seq = READ_ONCE(windows[space].seq), tag, value = 0, block;

	FENCE(r, rw);
	if (stores)
		WRITE_ONCE(view(i)->stored[me->index], value = ++last_stored[me->index]);
	tag = READ_ONCE(view(i)->tag);
	FENCE(rw, r);
	if (tag != tag_of(0, i) && tag != tag_of(1, i))
		FAIL("megapage of space %lu, page %lu: %lx is no tag of it", space, i, tag);
	if ((seq & 1) != 0 || READ_ONCE(windows[space].seq) != seq)
		return;
	block = block_of(seq, i);
	if (tag != tag_of(block, i))
		FAIL("megapage of space %lu, page %lu, change %lu: block %lu, which was replaced by %lu", space, i, seq / 2, 1 - block, block);
	if (stores && READ_ONCE(unit_of(block, i)->stored[me->index]) != value)
		FAIL("megapage of space %lu, page %lu, change %lu: a store is not in block %lu", space, i, seq / 2, block);
}

/* 2 MiB of free pages in a row, at a multiple of 2 MiB. */
static u64 block_alloc(void)
{
	u64 start, page = page_alloc();

	while (page % MEGAPAGE_SIZE != 0)
		page = page_alloc();
	start = page;
	while (page < start + MEGAPAGE_SIZE - PAGE_SIZE) {
		u64 next = page_alloc();

		if (next != page + PAGE_SIZE)
			die("mega: no 2 MiB of memory in a row at %lx", start);
		page = next;
	}
	return start;
}

void mega_prepare(const struct plan *plan)
{
	nr_rounds = ROUNDS * plan->rounds;
	for (u64 block = 0; block < 2; block++) {
		blocks[block] = block_alloc();
		for (u64 i = 0; i < NR_PTES; i++)
			unit_of(block, i)->tag = tag_of(block, i);
	}
	for (u64 space = 0; space < NR_SPACES; space++) {
		windows[space].table = (u64 *)page_alloc();
		map_megapage(spaces[space].root, MEGA_WINDOW, blocks[0], FLAGS);
		windows[space].pte = megapage_pte_of(spaces[space].root, MEGA_WINDOW);
		set_window(&windows[space], 0);
	}
}

void mega_run(struct hart *me)
{
	u64 space = 0;

	sfence_vma_all();
	space_enter(&spaces[space]);
	for (u64 i = 1; i <= nr_rounds; i++) {
		if (i % CHANGE_EVERY == 0)
			for (u64 s = 0; s < NR_SPACES; s++)
				if (s % nr_harts == me->index)
					change(me, s);
		if (i % SWITCH_EVERY == 0) {
			space = random_below(me, NR_SPACES);
			space_enter(&spaces[space]);
		}
		use(me, space);
	}
	kernel_space_enter();
}

u64 mega_finish(void)
{
	say("mega: 2 MiB split and merged %lu times under %lu harts", nr_changes, nr_harts);
	return mix(nr_changes);
}
