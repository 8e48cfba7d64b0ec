/* Counters that all harts count up at once, by every means that there is: AMOs, LR/SC, a spinlock, and plain loads, stores and fences. */
#include "part.h"

#define ROUNDS 20000

struct cell { u64 value; } __attribute__((aligned(CACHE_LINE)));
/* Peterson's lock of two harts: nothing but loads, stores and `fence rw, rw`. */
struct peterson { u64 wants[2], turn, a, b; } __attribute__((aligned(CACHE_LINE)));

static u64 nr_rounds;
static struct cell amo, amo_word, lr_sc, lr_sc_word, bits, highest, lock, locked_a, locked_b;
static struct peterson petersons[MAX_HARTS / 2];

static void count_amo(struct hart *me, u64 i)
{
	u64 mine = 1ul << me->index, old, want = i + 1 < nr_rounds ? 1 : 2;

	__asm__ volatile("amoadd.d zero, %0, (%1)" ::"r"(want), "r"(&amo.value) : "memory");
	__asm__ volatile("amoadd.w zero, %0, (%1)" ::"r"(want), "r"(&amo_word.value) : "memory");
	__asm__ volatile("amomaxu.d zero, %0, (%1)" ::"r"(i + me->index), "r"(&highest.value) : "memory");
	__asm__ volatile("amoxor.d %0, %1, (%2)" : "=&r"(old) : "r"(mine), "r"(&bits.value) : "memory");
	if ((old >> me->index & 1) != (i & 1))
		FAIL("amoxor %lu read bits %lx: another hart changed this one's", i, old);
}

static void count_lr_sc(void)
{
	u64 old, failed;

	do
		__asm__ volatile("lr.d %0, (%2)\n\taddi %0, %0, 1\n\tsc.d %1, %0, (%2)"
				 : "=&r"(old), "=&r"(failed) : "r"(&lr_sc.value) : "memory");
	while (failed);
	do
		__asm__ volatile("lr.w.aq %0, (%2)\n\taddiw %0, %0, 3\n\tsc.w.rl %1, %0, (%2)"
				 : "=&r"(old), "=&r"(failed) : "r"(&lr_sc_word.value) : "memory");
	while (failed);
}

/* Taken by an AMO, given back by a plain store. */
static void count_locked(struct hart *me, u64 i)
{
	u64 taken = 1, a, b;

	for (u64 spin = 0; taken; spin++) {
		__asm__ volatile("amoswap.d.aq %0, %1, (%2)" : "=&r"(taken) : "r"(1ul), "r"(&lock.value) : "memory");
		if (taken)
			relax(me, spin);
	}
	a = READ_ONCE(locked_a.value);
	WRITE_ONCE(locked_a.value, a + 1);
	b = READ_ONCE(locked_b.value);
	WRITE_ONCE(locked_b.value, b + 1);
	if (a != b)
		FAIL("under the spinlock in round %lu: one counter %lu, the other %lu", i, a, b);
	FENCE(rw, w);
	WRITE_ONCE(lock.value, 0);
}

static void count_peterson(struct hart *me, u64 i)
{
	struct peterson *p = &petersons[me->index / 2];
	u64 mine = me->index & 1, a, b;

	WRITE_ONCE(p->wants[mine], 1);
	FENCE(w, w);
	WRITE_ONCE(p->turn, !mine);
	FENCE(rw, rw);
	for (u64 spin = 0; READ_ONCE(p->wants[!mine]) && READ_ONCE(p->turn) != mine; spin++)
		relax(me, spin);
	FENCE(r, rw);
	a = READ_ONCE(p->a);
	WRITE_ONCE(p->a, a + 1);
	b = READ_ONCE(p->b);
	WRITE_ONCE(p->b, b + 1);
	if (a != b)
		FAIL("under Peterson's lock in round %lu: one counter %lu, the other %lu", i, a, b);
	FENCE(rw, w);
	WRITE_ONCE(p->wants[mine], 0);
}

void counters_prepare(const struct plan *plan)
{
	nr_rounds = ROUNDS * plan->rounds;
}

void counters_run(struct hart *me)
{
	for (u64 i = 0; i < nr_rounds; i++) {
		count_amo(me, i);
		count_lr_sc();
		if (i % 4 == 0)
			count_locked(me, i);
		if (i % 8 == 0 && (me->index | 1) < nr_harts)
			count_peterson(me, i);
	}
}

static void must_be(const char *what, u64 value, u64 want)
{
	if (value != want)
		FAIL("%s: %lu instead of %lu", what, value, want);
}

u64 counters_finish(void)
{
	u64 total = nr_rounds * nr_harts, nr_locked = nr_rounds / 4 * nr_harts, sum = mix(total);

	must_be("counted by amoadd.d", amo.value, total + nr_harts);
	must_be("counted by amoadd.w", amo_word.value, (u32)(total + nr_harts));
	must_be("counted by lr.d and sc.d", lr_sc.value, total);
	must_be("counted by lr.w and sc.w", lr_sc_word.value, (u32)(3 * total));
	must_be("bits left by amoxor", bits.value, 0);
	must_be("the highest by amomaxu", highest.value, nr_rounds - 1 + nr_harts - 1);
	must_be("counted under the spinlock", locked_a.value, nr_locked);
	for (u64 i = 0; 2 * i + 1 < nr_harts; i++) {
		must_be("counted under Peterson's lock", petersons[i].a, nr_rounds / 8 * 2);
		sum += petersons[i].b;
	}
	say("counters: %lu harts counted %lu by amo, %lu by lr/sc, %lu under a spinlock, %lu under Peterson's lock", nr_harts,
	    amo.value, lr_sc.value, locked_b.value, petersons[0].b);
	return mix(sum + amo.value + lr_sc.value + lr_sc_word.value + locked_b.value);
}
