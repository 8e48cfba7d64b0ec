/*
 * RAM that is seen a second time, at one of 64 places that the host moves it between, or nowhere for a while: `alias=` is the first of them, a guest-physical
 * address, and what is seen is the first 2 MiB of RAM. Where it is not, loads give all ones and stores go nowhere. Each hart counts in a word of its own by stores
 * through the place where it saw the word last, and looks at the word itself; and reads another hart's word through that place, which must be between what
 * that word was before and after.
 */
#include "part.h"
#include "layout.h"
#include "pages.h"
#include "space.h"
#include "sv39.h"

#define NR_PLACES 64
#define NR_STORES 5000
#define ABSENT 0xffffffffu

static u32 *words[MAX_HARTS];
static u64 shown, nr_stores, nr_hits, nr_moves;

void alias_prepare(const struct plan *plan)
{
	nr_stores = NR_STORES * plan->rounds;
	if (plan->alias == 0)
		die("parts= names alias, which needs alias=");
	for (u64 i = 0; i < nr_harts; i++) {
		words[i] = (u32 *)page_alloc();
		if (i == 0)
			shown = ALIGN_DOWN((u64)words[0], MEGAPAGE_SIZE);
		if (shown != plan->ram_start || (u64)words[i] >= shown + MEGAPAGE_SIZE)
			die("a page of part alias is at %lx, which is not in the first 2 MiB of RAM", (u64)words[i]);
	}
	for (u64 k = 0; k < NR_PLACES; k++)
		map_megapage(kernel_root, ALIAS_WINDOW + k * MEGAPAGE_SIZE, plan->alias + k * MEGAPAGE_SIZE, PTE_R | PTE_W | PTE_A | PTE_D);
	sfence_vma_all();
}

static volatile u32 *view(u64 place, const u32 *word)
{
	return (volatile u32 *)(ALIAS_WINDOW + place * MEGAPAGE_SIZE + ((u64)word - shown));
}

static void look(u64 place, const u32 *word)
{
	u32 before = READ_ONCE(*word), seen, after;

	FENCE(rw, rw);
	seen = *view(place, word);
	FENCE(rw, rw);
	after = READ_ONCE(*word);
	if (seen != ABSENT && (seen < before || seen > after))
		FAIL("alias: %lu at place %lu; the word was %lu before and %lu after", (u64)seen, place, (u64)before, (u64)after);
}

void alias_run(struct hart *me)
{
	u32 *mine = words[me->index], count = 0;
	u64 place = random_below(me, NR_PLACES), hits = 0, moves = 0;

	sfence_vma_all();
	for (u64 n = 0; n < nr_stores; n++) {
		u32 now;

		*view(place, mine) = count + 1;
		now = READ_ONCE(*mine);
		if (now != count && now != count + 1)
			FAIL("alias: the word is %lu after a store of %lu at place %lu", (u64)now, (u64)count + 1, place);
		hits += now - count;
		count = now;
		look(place, words[(me->index + 1) % nr_harts]);
		if (*view(place, mine) == ABSENT) {
			place = (place + 1) % NR_PLACES;
			moves++;
		}
	}
	__atomic_fetch_add(&nr_hits, hits, RELAXED);
	__atomic_fetch_add(&nr_moves, moves, RELAXED);
}

/* What it met depends on the host. */
u64 alias_finish(void)
{
	say("alias: %lu stores through another place, %lu of them met memory; looked for it %lu times", nr_stores * nr_harts, nr_hits, nr_moves);
	return nr_stores;
}
