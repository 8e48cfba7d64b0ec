/*
 * A split virtqueue as its driver has it (Virtual I/O Device Version 1.2, 2.7): chains of descriptors are made available, and come back used, in any order.
 */
#ifndef FORKHOG_VRING_H
#define FORKHOG_VRING_H
#include "types.h"

struct vring_desc { u64 addr; u32 len; u16 flags, next; };
struct vring_avail { u16 flags, idx, ring[]; };
struct vring_used_elem { u32 id, len; };
struct vring_used { u16 flags, idx; struct vring_used_elem ring[]; };

struct vring {
	u64 num, irq, pa;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	u16 free_head, last_used;
	u64 nr_free;
};

struct piece { u64 pa; u32 len; int is_written; };

/* Of `num` descriptors, in zeroed pages from `pa` on: descriptors, available ring, and, from the next page on, used ring. */
void vring_init(struct vring *ring, u64 num, u64 irq, u64 pa);
/* Makes a chain available and tells the device; its head, or -1 where there is no room for it. */
int vring_add(struct vring *ring, const struct piece *pieces, u64 nr);
/* The head of a chain that the device is done with, whose descriptors are free again; or -1. */
int vring_take(struct vring *ring);

#endif
