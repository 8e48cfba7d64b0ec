/*
 * The kernel's own arena, in 4 KiB pages at HOARD. It is worked pass by pass, lies cold while the processes run, and is
 * verified once more at the end. Its ptes are worked too: mappings are swapped in pairs, and the accessed and dirty bits
 * must say what was done.
 */
#ifndef MEMHOG_HOARD_H
#define MEMHOG_HOARD_H
#include "work.h"

void hoard_init(u64 root, u64 nr_pages, u64 seed);
void hoard_pass(u64 pass);
/* Flips one bit of the page, so that the verdict can be seen to fail. */
void hoard_flip(u64 index);
/* Reads all once more; dies when a word, an accessed or a dirty bit is wrong. */
const struct tally *hoard_finish(void);
/* Sets the accessed and dirty bits where the hart leaves that to software; 0 when that was not the reason of the fault. */
int hoard_fault(u64 va, int is_store);

#endif
