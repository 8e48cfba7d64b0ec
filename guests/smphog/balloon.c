/*
 * Pages that are given to the host by the balloon, or reported free, and used again (VIRTIO 1.2, 5.5). Each hart writes pages, another one reads them,
 * so that both know them; then their owner gives them back; then both must read zeros, for our host promises them. Needs a virtio-balloon.
 */
#include "part.h"
#include "pages.h"
#include "virtio.h"

#define TYPE_BALLOON 5
#define F_REPORTING (1u << 5)
#define PAGES_OF_EACH 32
#define ROUNDS 30
enum { INFLATE, DEFLATE, REPORTING };

static struct virtio device;
static u64 *pages[MAX_HARTS][PAGES_OF_EACH];
/* Frame numbers for the device. */
static u32 *lists[MAX_HARTS];
static u64 nr_rounds, seed, lock, nr_given;

void balloon_prepare(const struct plan *plan)
{
	nr_rounds = ROUNDS * plan->rounds;
	seed = plan->seed;
	if (!virtio_find(&device, TYPE_BALLOON))
		die("parts= names balloon, and there is no virtio-balloon");
	virtio_begin(&device, F_REPORTING, VIRTIO_NR_QUEUES);
	for (u64 i = 0; i < nr_harts; i++) {
		lists[i] = (u32 *)page_alloc();
		for (u64 k = 0; k < PAGES_OF_EACH; k++)
			pages[i][k] = (u64 *)page_alloc();
	}
}

static u64 word_of(u64 owner, u64 k, u64 round, u64 i)
{
	return mix(seed + owner * 131 + k * 257 + round * 65537) + i;
}

static void write_pages(u64 owner, u64 round)
{
	for (u64 k = 0; k < PAGES_OF_EACH; k++)
		for (u64 i = 0; i < WORDS_PER_PAGE; i++)
			pages[owner][k][i] = word_of(owner, k, round, i);
}

static void expect(u64 owner, u64 k, u64 round, u64 i, u64 want)
{
	u64 word = READ_ONCE(pages[owner][k][i]);

	if (word != want)
		FAIL("balloon: round %lu, page %lu of hart %lu at %lx: word %lu is %lx, must be %lx", round, k, owner, (u64)pages[owner][k], i, word,
		     want);
}

static void verify_written(u64 owner, u64 round)
{
	for (u64 k = 0; k < PAGES_OF_EACH; k++)
		for (u64 i = 0; i < WORDS_PER_PAGE; i += 7)
			expect(owner, k, round, i, word_of(owner, k, round, i));
}

static void verify_zeros(u64 owner, u64 round)
{
	for (u64 k = 0; k < PAGES_OF_EACH; k++)
		for (u64 i = 0; i < WORDS_PER_PAGE; i++)
			expect(owner, k, round, i, 0);
}

static void send(struct hart *me, u64 queue, u64 address, u64 length, int writes)
{
	for (u64 spin = 0; __atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE) != 0; spin++)
		relax(me, spin);
	virtio_send(me, &device, queue, address, length, writes);
	__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

/* By inflating and deflating in one round, by reporting in the next. */
static void give(struct hart *me, u64 round)
{
	u32 *list = lists[me->index];

	for (u64 k = 0; k < PAGES_OF_EACH; k++) {
		if (round % 2 == 0)
			list[k] = (u32)((u64)pages[me->index][k] >> PAGE_SHIFT);
		else
			send(me, REPORTING, (u64)pages[me->index][k], PAGE_SIZE, 1);
	}
	if (round % 2 == 0) {
		send(me, INFLATE, (u64)list, PAGES_OF_EACH * sizeof(*list), 0);
		send(me, DEFLATE, (u64)list, PAGES_OF_EACH * sizeof(*list), 0);
	}
	__atomic_fetch_add(&nr_given, PAGES_OF_EACH, RELAXED);
}

void balloon_run(struct hart *me)
{
	u64 other = (me->index + 1) % nr_harts;

	for (u64 round = 0; round < nr_rounds; round++) {
		write_pages(me->index, round);
		barrier(me);
		verify_written(other, round);
		barrier(me);
		give(me, round);
		/* At once, by who gave it; and by another. */
		verify_zeros(me->index, round);
		barrier(me);
		verify_zeros(other, round);
		barrier(me);
	}
}

u64 balloon_finish(void)
{
	say("balloon: %lu pages given back and found to be zeros", nr_given);
	return nr_given;
}
