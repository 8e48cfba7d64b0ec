/*
 * What may be seen of two harts' plain loads and stores between fences (RVWMO), in rounds that follow each other without a meeting:
 *
 *   store buffering                         message passing
 *   x = i;          y = j;                  data = i;      f = flag;
 *   fence rw, rw;   fence rw, rw;           fence w, w;    fence r, r;
 *   a[i] = y;       b[j] = x;               flag = i;      data >= f
 *
 * Forbidden: that round i missed round j's store and round j missed round i's, a[i] < j and b[j] < i. Since b grows, it is enough to
 * look at the first round that i has missed, j = a[i] + 1. Also forbidden: a cell that goes back.
 */
#include "part.h"
#include "space.h"

#define BLOCK 8192
#define BLOCKS 16
#define MESSAGES 100000
#define MAX_SPINS 20000

struct cell { u64 value; } __attribute__((aligned(CACHE_LINE)));

static u64 nr_blocks, nr_messages, nr_overlaps;
static struct cell ready[MAX_HARTS], stored[MAX_HARTS], data[MAX_HARTS], flag[MAX_HARTS];
static u32 seen[MAX_HARTS][BLOCK + 1];

/* So that both are in the middle of it at once, where there are processors for both; else not for long. */
static void await_other(struct hart *me, u64 block)
{
	WRITE_ONCE(ready[me->index].value, block + 1);
	for (u64 spin = 0; spin < MAX_SPINS && READ_ONCE(ready[me->index ^ 1].value) <= block; spin++)
		;
}

static void store_and_look(struct hart *me)
{
	struct cell *mine = &stored[me->index], *other = &stored[me->index ^ 1];
	u32 *out = seen[me->index];

	for (u64 i = 1; i <= BLOCK; i++) {
		WRITE_ONCE(mine->value, i);
		if (!no_fences)
			FENCE(rw, rw);
		out[i] = (u32)READ_ONCE(other->value);
	}
}

static void check_block(const u32 *a, const u32 *b, u64 block)
{
	u64 nr = 0;

	for (u64 i = 1; i <= BLOCK; i++) {
		u64 j = a[i] + 1ul;

		if (a[i] < a[i - 1] || b[i] < b[i - 1])
			FAIL("block %lu, round %lu: a cell went back, from %lu to %lu", block, i, (u64)a[i - 1], (u64)a[i]);
		if (j <= BLOCK && b[j] < i)
			FAIL("store buffering, block %lu: round %lu read %lu, and round %lu of the other hart read %lu", block, i,
			     (u64)a[i], j, (u64)b[j]);
		nr += a[i] != a[i - 1];
	}
	__atomic_fetch_add(&nr_overlaps, nr, RELAXED);
}

static void send_messages(struct hart *me)
{
	struct cell *d = &data[me->index], *f = &flag[me->index];

	for (u64 i = 1; i <= nr_messages; i++) {
		WRITE_ONCE(d->value, i);
		FENCE(w, w);
		WRITE_ONCE(f->value, i);
	}
}

static void take_messages(struct hart *me)
{
	struct cell *d = &data[me->index ^ 1], *f = &flag[me->index ^ 1];
	u64 last = 0;

	for (u64 spin = 0; last < nr_messages; spin++) {
		u64 got = READ_ONCE(f->value), value;

		FENCE(r, r);
		value = READ_ONCE(d->value);
		if (value < got || got < last)
			FAIL("message passing: flag %lu, after %lu, but data %lu", got, last, value);
		if (got == last)
			relax(me, spin);
		last = got;
	}
}

void litmus_prepare(const struct plan *plan)
{
	nr_blocks = BLOCKS * plan->rounds;
	nr_messages = MESSAGES * plan->rounds;
}

/* Who has no partner runs alone, and meets the others. */
void litmus_run(struct hart *me)
{
	u64 paired = (me->index ^ 1) < nr_harts, first = (me->index & 1) == 0;

	for (u64 block = 0; block < nr_blocks; block++) {
		stored[me->index].value = 0;
		barrier(me);
		await_other(me, block);
		store_and_look(me);
		barrier(me);
		if (paired && first)
			check_block(seen[me->index], seen[me->index + 1], block);
	}
	if (!paired || first)
		send_messages(me);
	else
		take_messages(me);
}

u64 litmus_finish(void)
{
	say("litmus: %lu rounds of store buffering, %lu with news of the other hart; %lu messages passed", nr_blocks * BLOCK,
	    nr_overlaps, nr_messages);
	return mix(nr_blocks * BLOCK + nr_messages);
}
