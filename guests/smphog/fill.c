/*
 * All free memory, in one arena for each hart (memhog's work.c). A hart works an arena for a pass; then the arenas change hands, and the next hart
 * finds all that the last one wrote.
 */
#include "part.h"
#include "layout.h"
#include "pages.h"
#include "space.h"
#include "sv39.h"
#include "work.h"

#define NO_FLIP (~0ul)

static struct arena arenas[MAX_HARTS];
static u64 nr_passes, nr_pages, flip;

void fill_prepare(const struct plan *plan)
{
	u64 va = FILL_WINDOW, nr = plan->nr_fill_pages / nr_harts, state = ALIGN_UP(nr * sizeof(struct page_state), PAGE_SIZE) / PAGE_SIZE;

	nr_passes = 1 + plan->rounds;
	nr_pages = nr;
	flip = plan->flip;
	if (flip != NO_FLIP && flip >= nr)
		die("flip= must be below %lu, a hart's number of pages", nr);
	for (u64 i = 0; i < nr_harts; i++) {
		for (u64 page = 0; page < nr + state; page++)
			map_page(kernel_root, va + page * PAGE_SIZE, page_alloc(), PTE_R | PTE_W);
		arenas[i].pages = (u64 *)va;
		va = ALIGN_UP(va + (nr + state) * PAGE_SIZE, MEGAPAGE_SIZE);
	}
	sfence_vma_all();
	for (u64 i = 0; i < nr_harts; i++)
		arena_init(&arenas[i], (u64)arenas[i].pages, nr, (plan->seed << 8) + i);
}

static void check(const struct arena *arena, u64 pass)
{
	const struct tally *t = &arena->tally;

	if (t->errors != 0)
		FAIL("arena %lu, pass %lu: %lu of %lu words wrong, the first at va %lx: read %lx, wrote %lx", (u64)(arena - arenas), pass,
		     t->errors, t->words, t->bad_va, t->bad_read, t->bad_want);
}

void fill_run(struct hart *me)
{
	sfence_vma_all();
	for (u64 pass = 1; pass <= nr_passes; pass++) {
		struct arena *arena = &arenas[(me->index + pass) % nr_harts];

		if (pass > 1)
			arena_verify(arena, SEQUENTIAL);
		work_pass(arena, pass);
		check(arena, pass);
		barrier(me);
	}
	if (me->index == 0 && flip != NO_FLIP)
		arenas[0].pages[flip * WORDS_PER_PAGE + 77] ^= 1ul << 42;
	barrier(me);
	arena_verify(&arenas[me->index], SCATTERED);
	check(&arenas[me->index], nr_passes + 1);
}

u64 fill_finish(void)
{
	u64 words = 0, sum = 0;

	for (u64 i = 0; i < nr_harts; i++) {
		words += arenas[i].tally.words;
		sum = mix(sum + arenas[i].tally.checksum);
	}
	say("fill: %lu pages for each of %lu harts, %lu passes: verified %lu words", nr_pages, nr_harts, nr_passes, words);
	return sum;
}
