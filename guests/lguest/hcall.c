#include "hcall.h"

struct lguest_data lguest_data;

static u64 next;

void hcall_init(void)
{
	for (u64 i = 0; i < LHCALL_RING_SIZE; i++)
		lguest_data.hcall_status[i] = LHCALL_RING_FREE;
}

/* A full ring makes it a call like any other, before which the host empties the ring: they are done in the order in which they were made. */
void hcall_async(u64 call, u64 arg1, u64 arg2, u64 arg3)
{
	if (lguest_data.hcall_status[next] != LHCALL_RING_FREE) {
		hcall(call, arg1, arg2, arg3);
		return;
	}
	lguest_data.hcalls[next] = (struct lguest_hcall_args){ call, arg1, arg2, arg3, 0 };
	__asm__ volatile("fence w, w" ::: "memory");
	lguest_data.hcall_status[next] = LHCALL_RING_FULL;
	next = (next + 1) % LHCALL_RING_SIZE;
}
