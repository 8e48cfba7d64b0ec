/*
 * The work on memory, the same for kernel and processes: fill pages with a pattern that differs by page, version and seed,
 * read them back in several orders, and compare every word. Pure code: it runs mapped at two addresses, in S- and in U-mode,
 * and touches nothing but the arena.
 *
 * Use: arena_init once; then work_pass for pass 1, 2, ...; arena_verify at any time between.
 */
#ifndef MEMHOG_WORK_H
#define MEMHOG_WORK_H
#include "types.h"

struct tally {
	u64 words;				/* compared */
	u64 errors;				/* of them wrong */
	u64 checksum;				/* over every word read, in reading order */
	u64 bad_va, bad_read, bad_want;		/* the first wrong word */
};

/* What the page at one index holds. Moves along when the kernel swaps two pages' mappings. */
struct page_state { u32 id, version; };

struct arena {
	u64 *pages;				/* nr_pages of them */
	struct page_state *state;		/* one each */
	u64 nr_pages;
	u64 seed;
	u64 random;				/* state of the generator; not 0 */
	struct tally tally;
};

enum order { SEQUENTIAL, SCATTERED };

/* How many pages an arena of `total` pages can work on when its state lies in the arena too. */
u64 arena_capacity(u64 total);
/* Lays out an arena at `base`: the state first, then the pages. */
void arena_init(struct arena *arena, u64 base, u64 nr_pages, u64 seed);
u64 arena_random(struct arena *arena, u64 below);
void arena_verify(struct arena *arena, enum order order);
/* Writes all pages, works a hot set and cold pages at random, then verifies all pages in scattered order. */
void work_pass(struct arena *arena, u64 pass);

#endif
