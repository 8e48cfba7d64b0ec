/* What trap.c asks remap.c: whether a page fault was one of a page that is being changed, so that the instruction is to be tried again. */
#ifndef SMPHOG_REMAP_H
#define SMPHOG_REMAP_H
#include "smp.h"

int remap_fault(struct hart *me, u64 va);

#endif
