/*
 * Several harts of one kernel: who this is, barriers, and the atomics and fences that the parts are made of. tp holds the hart's
 * own structure from its first instruction in C on; C never uses tp otherwise.
 *
 * Use: harts_init by the boot hart, harts_start; then every hart runs the same parts (main.c), with a barrier before and after each.
 */
#ifndef SMPHOG_SMP_H
#define SMPHOG_SMP_H
#include "console.h"
#include "types.h"

#define MAX_HARTS 8
#define CACHE_LINE 64

/* secondary.S knows the offsets of stack_top and entry. */
struct hart {
	u64 index;			/* 0 for the boot hart, then as they were found */
	u64 id;				/* SBI's hart id */
	u64 stack_top;
	void (*entry)(struct hart *, u64 id);	/* where it begins, each time that it is started */
	u64 random;			/* state of the generator; not 0 */
	/* The timer (timer.c). */
	u64 deadline, timer_random;
	volatile u64 ticks, nr_ticks_wanted;
	/* The last page fault in a window whose pages come and go (remap.c). */
	u64 fault_va, fault_seq, nr_faults;
} __attribute__((aligned(CACHE_LINE)));

extern struct hart harts[MAX_HARTS];
extern u64 nr_harts;

/* Finds the harts there are; the caller is the boot hart, and becomes index 0. At most `limit` of them. */
void harts_init(u64 boot_id, u64 seed, u64 limit);
/* Starts all others at `entry`. */
void harts_start(void (*entry)(struct hart *, u64 id));
/* Starts one, which is stopped or about to be. */
void hart_start(struct hart *hart);
/* SBI's mask of the harts whose bit of index is set. */
u64 hart_mask(u64 indices);
/* Never returns; `hart_start` begins anew at hart->entry. */
__attribute__((noreturn)) void hart_stop(void);

static inline struct hart *this_hart(void)
{
	struct hart *hart;

	__asm__ volatile("mv %0, tp" : "=r"(hart));
	return hart;
}

static inline u64 all_harts(void) { return (1ul << nr_harts) - 1; }
static inline u64 other_harts(const struct hart *me) { return all_harts() & ~(1ul << me->index); }

/* Returns when all harts are here; what each did before is seen by all after. */
void barrier(struct hart *me);
/* In a loop that waits for another hart: gives way now and then, as several harts may share a processor. `spin` counts from 0. */
void relax(struct hart *me, u64 spin);
/* The same where interrupts are off. */
void relax_in_trap(struct hart *me, u64 spin);
u64 random_below(struct hart *me, u64 below);

/* Anything wrong: one line, from the first hart that says so, and the end. */
#define FAIL(format, ...) \
	do { console_take(); die("FAILED: hart %lu: " format, this_hart()->index, ##__VA_ARGS__); } while (0)
void console_take(void);

#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))
#define FENCE(before, after) __asm__ volatile("fence " #before ", " #after ::: "memory")
#define RELAXED __ATOMIC_RELAXED

static inline u64 mix(u64 x)
{
	x = (x ^ x >> 31) * 0x9e3779b97f4a7c15ul;
	x = (x ^ x >> 29) * 0x3c6ef372fe94f82bul;
	return x ^ x >> 32;
}

#endif
