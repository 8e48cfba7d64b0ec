/*
 * Pages that are handed from hart to hart, one by one, through queues of one writer and one reader each that are made of plain loads, stores
 * and fences. Who gets a page verifies what the last one wrote, writes it anew, and hands it on to any hart, itself too.
 */
#include "part.h"
#include "pages.h"

#define PAGES_OF_EACH 16
#define HOPS 50
#define MAX_PAGES (MAX_HARTS * PAGES_OF_EACH)

struct parcel { u64 *page, id, hops; };
/* Room for all parcels there are, so it is never full. */
struct queue {
	u64 nr_put __attribute__((aligned(CACHE_LINE)));
	u64 nr_taken __attribute__((aligned(CACHE_LINE)));
	struct parcel *slots[MAX_PAGES];
};

static struct parcel parcels[MAX_PAGES];
static struct queue queues[MAX_HARTS][MAX_HARTS];
static u64 nr_hops, nr_arrived, seed;

static u64 word_of(const struct parcel *p, u64 i)
{
	return mix(seed + p->id * 131 + p->hops * 65537) + i * 0x9e3779b97f4a7c15ul;
}

static void write_parcel(const struct parcel *p)
{
	u64 word = word_of(p, 0), step = word_of(p, 1) - word;

	for (u64 i = 0; i < WORDS_PER_PAGE; i++, word += step)
		p->page[i] = word;
}

static void verify_parcel(const struct parcel *p)
{
	u64 word = word_of(p, 0), step = word_of(p, 1) - word;

	for (u64 i = 0; i < WORDS_PER_PAGE; i++, word += step)
		if (READ_ONCE(p->page[i]) != word)
			FAIL("parcel %lu, hop %lu, page %lx: word %lu is %lx, was written as %lx", p->id, p->hops, (u64)p->page, i, p->page[i],
			     word);
}

static void put(struct hart *me, u64 to, struct parcel *p)
{
	struct queue *q = &queues[me->index][to];
	u64 nr = q->nr_put;

	WRITE_ONCE(q->slots[nr % MAX_PAGES], p);
	FENCE(rw, w);
	WRITE_ONCE(q->nr_put, nr + 1);
}

static struct parcel *take(struct hart *me, u64 from)
{
	struct queue *q = &queues[from][me->index];
	struct parcel *p;

	if (READ_ONCE(q->nr_put) == q->nr_taken)
		return 0;
	FENCE(r, rw);
	p = READ_ONCE(q->slots[q->nr_taken % MAX_PAGES]);
	q->nr_taken++;
	return p;
}

static void hand_on(struct hart *me, struct parcel *p)
{
	verify_parcel(p);
	if (p->hops == nr_hops) {
		__atomic_fetch_add(&nr_arrived, 1, RELAXED);
		return;
	}
	p->hops++;
	write_parcel(p);
	put(me, mix(p->id + p->hops) % nr_harts, p);
}

void ring_prepare(const struct plan *plan)
{
	nr_hops = HOPS * plan->rounds;
	seed = plan->seed;
	for (u64 i = 0; i < nr_harts * PAGES_OF_EACH; i++) {
		parcels[i] = (struct parcel){ (u64 *)page_alloc(), i, 0 };
		write_parcel(&parcels[i]);
	}
}

void ring_run(struct hart *me)
{
	u64 total = nr_harts * PAGES_OF_EACH;

	for (u64 i = me->index; i < total; i += nr_harts)
		hand_on(me, &parcels[i]);
	for (u64 spin = 0; READ_ONCE(nr_arrived) < total; spin++) {
		u64 nr = 0;

		for (u64 from = 0; from < nr_harts; from++) {
			struct parcel *p = take(me, from);

			if (p) {
				hand_on(me, p);
				nr++;
			}
		}
		if (nr == 0)
			relax(me, spin);
	}
}

u64 ring_finish(void)
{
	u64 sum = 0, total = nr_harts * PAGES_OF_EACH;

	for (u64 i = 0; i < total; i++) {
		verify_parcel(&parcels[i]);
		sum += parcels[i].page[i];
	}
	say("ring: %lu pages handed on %lu times each", total, nr_hops);
	return mix(sum);
}
