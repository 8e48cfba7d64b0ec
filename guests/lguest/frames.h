/*
 * Physical pages, each with a count of its users: a page that several address spaces share is free when the last has put it. RAM is reached at
 * virt(pa): where it lies until paging is on, in the kernel's half afterwards.
 */
#ifndef FORKHOG_FRAMES_H
#define FORKHOG_FRAMES_H
#include "fdt.h"

/* 0 until paging is on; PAGE_OFFSET then. */
extern u64 va_offset;

static inline void *virt(u64 pa)
{
	return (void *)(pa + va_offset);
}

static inline u64 pa_of(const void *address)
{
	return (u64)address - va_offset;
}

/* `board` must stay; its reserved ranges are never handed out. */
void frames_init(struct board *board);
u64 frames_free(void);
/* A page with one user, zeroed or as it is; dies when there is none left. */
u64 frame_alloc(void);
u64 frame_alloc_dirty(void);
void frame_get(u64 pa);
void frame_put(u64 pa);
u64 frame_users(u64 pa);

#endif
