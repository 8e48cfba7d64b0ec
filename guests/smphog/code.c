/*
 * Code that one hart patches while the others run it. Functions of one instruction that returns a number; each belongs to a hart, which changes
 * the number, fences itself and the others by `fence.i`, and says so; from then on nobody may get an old number. Functions of several harts share a page.
 */
#include "pages.h"
#include "part.h"
#include "sbismp.h"
#include "space.h"

#define ROUNDS 8000
#define NR_PAGES 4
#define OF_A_PAGE 16
#define NR_FUNCTIONS (NR_PAGES * OF_A_PAGE)
#define PATCH_EVERY 64
#define LI_A0 0x00000513u	/* addi a0, zero, 0 */
#define RET 0x00008067u

struct function { u32 li, ret; };

static struct function *functions[NR_FUNCTIONS];
static u64 seqs[NR_FUNCTIONS], nr_rounds, nr_patches;

static u64 number_of(u64 i, u64 seq)
{
	return (i * 37 + seq / 2) % 2048;
}

static void write_number(u64 i, u64 seq)
{
	WRITE_ONCE(functions[i]->li, LI_A0 | (u32)number_of(i, seq) << 20);
}

static void fence_code(struct hart *me)
{
	if (no_fences)
		return;
	FENCE(rw, rw);
	__asm__ volatile("fence.i" ::: "memory");
	sbi_remote_fence_i(hart_mask(other_harts(me)));
}

static void patch(struct hart *me)
{
	u64 i = me->index + random_below(me, NR_FUNCTIONS / nr_harts) * nr_harts, seq = seqs[i] + 2;

	WRITE_ONCE(seqs[i], seq - 1);
	FENCE(w, w);
	write_number(i, seq);
	fence_code(me);
	FENCE(rw, w);
	WRITE_ONCE(seqs[i], seq);
	__atomic_fetch_add(&nr_patches, 1, RELAXED);
}

static void call(u64 i)
{
	u64 seq = READ_ONCE(seqs[i]), number;

	FENCE(r, rw);
	number = ((u64 (*)(void))functions[i])();
	FENCE(rw, r);
	if ((seq & 1) == 0 && READ_ONCE(seqs[i]) == seq && number != number_of(i, seq))
		FAIL("function %lu, patch %lu: returned %lu instead of %lu", i, seq / 2, number, number_of(i, seq));
}

void code_prepare(const struct plan *plan)
{
	nr_rounds = ROUNDS * plan->rounds;
	for (u64 page = 0; page < NR_PAGES; page++) {
		struct function *at = (struct function *)page_alloc();

		for (u64 i = page * OF_A_PAGE; i < (page + 1) * OF_A_PAGE; i++, at++) {
			functions[i] = at;
			at->ret = RET;
			write_number(i, 0);
		}
	}
}

void code_run(struct hart *me)
{
	__asm__ volatile("fence.i" ::: "memory");
	for (u64 i = 1; i <= nr_rounds; i++) {
		if (i % PATCH_EVERY == 0)
			patch(me);
		call(random_below(me, NR_FUNCTIONS));
	}
}

u64 code_finish(void)
{
	u64 sum = 0;

	for (u64 i = 0; i < NR_FUNCTIONS; i++)
		sum = mix(sum + seqs[i]);
	say("code: %lu patches under %lu harts, %lu calls", nr_patches, nr_harts, nr_rounds * nr_harts);
	return sum;
}
