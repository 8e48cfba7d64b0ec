/*
 * Interrupts between harts in all directions, and each hart's timer meanwhile. An IPI is one bit, so those that come together are one; what each hart
 * has sent to each is counted before the interrupt, and must have been taken some time after it: none is lost.
 */
#include "ipi.h"
#include "part.h"
#include "sbismp.h"
#include "timer.h"

#define ROUNDS 200
#define TICKS 50
#define WAIT_EVERY 4
#define SIP_SSIP (1ul << 1)

static u64 sent[MAX_HARTS][MAX_HARTS], taken[MAX_HARTS][MAX_HARTS];	/* from, to */
static u64 nr_rounds, nr_ticks, nr_interrupts;

void ipi_take(struct hart *me)
{
	CLEAR_CSR(sip, SIP_SSIP);
	FENCE(rw, rw);
	for (u64 from = 0; from < nr_harts; from++)
		WRITE_ONCE(taken[from][me->index], READ_ONCE(sent[from][me->index]));
	__atomic_fetch_add(&nr_interrupts, 1, RELAXED);
}

static void send(struct hart *me, u64 targets)
{
	for (u64 to = 0; to < nr_harts; to++)
		if (targets >> to & 1)
			WRITE_ONCE(sent[me->index][to], sent[me->index][to] + 1);
	FENCE(rw, rw);
	sbi_send_ipi(hart_mask(targets));
}

/* Nothing else wakes the others' handlers: an interrupt that is lost is waited for in vain, and that is told. */
static void await_taken(struct hart *me)
{
	u64 start = READ_CSR(time);

	for (u64 to = 0; to < nr_harts; to++)
		for (u64 spin = 0; READ_ONCE(taken[me->index][to]) != sent[me->index][to]; spin++) {
			relax(me, spin);
			if (READ_CSR(time) - start > timer_seconds(60))
				FAIL("hart %lu has taken %lu of %lu IPIs within a minute", to, taken[me->index][to], sent[me->index][to]);
		}
}

void ipi_prepare(const struct plan *plan)
{
	nr_rounds = ROUNDS * plan->rounds;
	nr_ticks = TICKS * plan->rounds;
}

void ipi_run(struct hart *me)
{
	timer_run(me, nr_ticks);
	for (u64 i = 1; i <= nr_rounds; i++) {
		send(me, 1 + random_below(me, all_harts()));
		if (i % WAIT_EVERY == 0)
			await_taken(me);
	}
	await_taken(me);
	for (u64 spin = 0; me->ticks < nr_ticks; spin++)
		relax(me, spin);
}

u64 ipi_finish(void)
{
	u64 sum = 0, nr_sent = 0;

	for (u64 from = 0; from < nr_harts; from++)
		for (u64 to = 0; to < nr_harts; to++) {
			if (sent[from][to] != taken[from][to])
				FAIL("%lu IPIs from hart %lu to %lu, of which %lu were taken", sent[from][to], from, to, taken[from][to]);
			nr_sent += taken[from][to];
			sum = mix(sum + taken[from][to]);
		}
	say("ipi: %lu sent and taken, in %lu interrupts; %lu ticks of each hart's timer", nr_sent, nr_interrupts, nr_ticks);
	return sum;
}
