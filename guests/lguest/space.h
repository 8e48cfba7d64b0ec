/*
 * Address spaces: a root table whose upper half is the kernel's, and pages of a process below. Pages come when they are touched; fork shares all of them
 * read-only, and the first write to one makes a copy.
 */
#ifndef FORKHOG_SPACE_H
#define FORKHOG_SPACE_H
#include "types.h"

struct space { u64 root; };		/* physical */

/* The kernel's half, which every space gets: before paging is on. [start, end) is what it maps. Returns the root, which also maps that where it lies. */
u64 space_boot(u64 start, u64 end);
/* In the kernel's half: what lies below it goes. */
void space_init(void);
/* The space of no process. */
void space_use_kernel(void);

void space_create(struct space *space);
/* Of the space in use: the child has the same pages, and neither side may write them without a fault. */
void space_fork(struct space *parent, struct space *child);
/* Not the space in use. */
void space_destroy(struct space *space);
void space_use(const struct space *space);

/* A page of the kernel's image, to be read and executed. */
void space_map_text(struct space *space, u64 va, u64 pa);
/* Whether the fault was one to be served: a page that is not there yet, or shared and written. */
int space_fault(struct space *space, u64 va, int is_store);
/* The page at `va`, present and, with is_write, the space's own; 0 where nothing may be. Physical. */
u64 space_page(struct space *space, u64 va, int is_write);
/* Puts the pages of [va, va + nr pages) and their entries. */
void space_drop(struct space *space, u64 va, u64 nr);
/* Of `nr` entries from `va` on: how many have all of `bits` (PTE_A, PTE_D). */
u64 space_count(struct space *space, u64 va, u64 nr, u64 bits);

/* Pages brought in, and copied for a write. */
extern u64 space_faults, space_copies;
/* The size of the arena at USER_ARENA, in pages: before any process runs. */
extern u64 space_arena_pages;

#endif
