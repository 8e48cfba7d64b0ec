/*
 * Address spaces: the kernel's, and two that share its RAM and have windows of their own, under ASIDs where there are any. And fences in
 * all the forms that there are of them.
 */
#ifndef SMPHOG_SPACE_H
#define SMPHOG_SPACE_H
#include "smp.h"

#define NR_SPACES 2

struct space { u64 root, asid; };

extern struct space spaces[NR_SPACES];
extern u64 kernel_root;
/* Fences are left out, so that the verdict can be seen to fail. */
extern int no_fences;

/* By the boot hart: maps all RAM and uses it. */
void spaces_init(u64 ram_start, u64 ram_end);
/* On each hart: the kernel's address space. */
void kernel_space_enter(void);
/* No fence: entries of the other ASIDs stay. */
void space_enter(const struct space *space);

/* How a change of page tables is made known to all harts. */
enum fence { FENCE_RANGE, FENCE_RANGE_ASID, FENCE_ALL, FENCE_ALL_ASID, NR_FENCES };
/* Returns when no hart uses what the ptes of [start, start + size) in `space` said before. */
void fence_all_harts(struct hart *me, const struct space *space, u64 start, u64 size, enum fence how);

#endif
