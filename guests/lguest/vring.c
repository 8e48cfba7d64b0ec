#include "vring.h"
#include "console.h"
#include "frames.h"
#include "hcall.h"

enum { DESC_NEXT = 1, DESC_WRITE = 2 };

void vring_init(struct vring *ring, u64 num, u64 irq, u64 pa)
{
	u64 avail = pa + num * sizeof(struct vring_desc);

	ring->num = ring->nr_free = num;
	ring->irq = irq;
	ring->pa = pa;
	ring->desc = virt(pa);
	ring->avail = virt(avail);
	ring->used = virt(ALIGN_UP(avail + sizeof(struct vring_avail) + (num + 1) * sizeof(u16), PAGE_SIZE));
	ring->free_head = ring->last_used = 0;
	for (u64 i = 0; i < num; i++)
		ring->desc[i].next = (u16)(i + 1);
}

int vring_add(struct vring *ring, const struct piece *pieces, u64 nr)
{
	u16 head = ring->free_head, at = head;

	if (ring->nr_free < nr)
		return -1;
	for (u64 i = 0; i < nr; i++) {
		struct vring_desc *desc = &ring->desc[at];

		at = desc->next;
		desc->addr = pieces[i].pa;
		desc->len = pieces[i].len;
		desc->flags = (u16)((i + 1 < nr ? DESC_NEXT : 0) | (pieces[i].is_written ? DESC_WRITE : 0));
	}
	ring->free_head = at;
	ring->nr_free -= nr;
	ring->avail->ring[ring->avail->idx % ring->num] = head;
	__asm__ volatile("fence w, w" ::: "memory");
	*(volatile u16 *)&ring->avail->idx = (u16)(ring->avail->idx + 1);
	hcall(LHCALL_NOTIFY, ring->pa, 0, 0);
	return head;
}

int vring_take(struct vring *ring)
{
	u16 head, last;
	u64 nr = 1;

	if (*(volatile u16 *)&ring->used->idx == ring->last_used)
		return -1;
	__asm__ volatile("fence r, r" ::: "memory");
	head = (u16)ring->used->ring[ring->last_used++ % ring->num].id;
	if (head >= ring->num)
		die("FAILED: a device is done with chain %lu of %lu", (u64)head, ring->num);
	for (last = head; ring->desc[last].flags & DESC_NEXT; nr++)
		last = ring->desc[last].next;
	ring->desc[last].next = ring->free_head;
	ring->free_head = head;
	ring->nr_free += nr;
	return head;
}
