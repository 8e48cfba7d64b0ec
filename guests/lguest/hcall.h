/* Hypercalls: made at once, or left in the ring, from which the host takes them at the next one. */
#ifndef FORKHOG_HCALL_H
#define FORKHOG_HCALL_H
#include "lguest.h"
#include "types.h"

extern struct lguest_data lguest_data;

static inline void hcall(u64 call, u64 arg1, u64 arg2, u64 arg3)
{
	register u64 a0 __asm__("a0") = call;
	register u64 a1 __asm__("a1") = arg1;
	register u64 a2 __asm__("a2") = arg2;
	register u64 a3 __asm__("a3") = arg3;

	__asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3) : "memory");
}

/* Before the first hypercall. */
void hcall_init(void);
void hcall_async(u64 call, u64 arg1, u64 arg2, u64 arg3);

#endif
