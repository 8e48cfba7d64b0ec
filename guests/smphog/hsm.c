/*
 * Harts that stop and are started again, by each other in a ring, and harts that are suspended. A hart that starts must come with its id and argument,
 * without paging and with interrupts off. Stopping is the end of a hart's C code: this is the last part.
 */
#include "part.h"
#include "sbismp.h"
#include "space.h"
#include "timer.h"

#define ROUNDS 20
#define SUSPENDS 50

static u64 nr_rounds, nr_begun;

static u64 nr_to_begin(void)
{
	return nr_rounds * (nr_harts - 1);
}

/* Where a hart begins in this part. Each starts the next one, as soon as that has stopped. */
static void begun(struct hart *me, u64 id)
{
	u64 nr;

	if (me != this_hart() || id != me->id || READ_CSR(satp) != 0 || (READ_CSR(sstatus) & SSTATUS_SIE) != 0)
		FAIL("begun with id %lu, satp %lx, sstatus %lx", id, READ_CSR(satp), READ_CSR(sstatus));
	if (sbi_hart_status(id) != HSM_STARTED)
		FAIL("begun, but its state is %lu", (u64)sbi_hart_status(id));
	kernel_space_enter();
	timer_enable();
	nr = __atomic_add_fetch(&nr_begun, 1, RELAXED);
	if (nr < nr_to_begin() && nr_harts > 2)
		hart_start(&harts[1 + nr % (nr_harts - 1)]);
	hart_stop();
}

/* Comes back when the next tick is pending, or before; with interrupts off, so that none is taken between the look and the call. */
static void suspend(struct hart *me)
{
	long error;

	CLEAR_CSR(sstatus, SSTATUS_SIE);
	error = me->ticks < SUSPENDS ? sbi_hart_suspend() : 0;
	SET_CSR(sstatus, SSTATUS_SIE);
	if (error != 0)
		FAIL("hart_suspend: SBI error -%lu", (u64)-error);
}

static void suspend_some(struct hart *me)
{
	timer_run(me, SUSPENDS);
	while (me->ticks < SUSPENDS)
		suspend(me);
}

/* The boot hart's work where there is no ring. */
static void start_once_more(struct hart *hart)
{
	u64 nr = READ_ONCE(nr_begun);

	hart_start(hart);
	for (u64 spin = 0; READ_ONCE(nr_begun) == nr; spin++)
		relax(this_hart(), spin);
}

void hsm_prepare(const struct plan *plan)
{
	nr_rounds = ROUNDS * plan->rounds;
}

/* The other harts stop in here, at first all of them. */
void hsm_run(struct hart *me)
{
	suspend_some(me);
	barrier(me);
	if (sbi_hart_start(me->id, 0, 0) != SBI_ERR_ALREADY_AVAILABLE)
		FAIL("a hart that runs was started once more");
	if (sbi_hart_start(~0ul, 0, 0) != SBI_ERR_INVALID_PARAM)
		FAIL("a hart that does not exist was started");
	me->entry = begun;
	barrier(me);
	if (me->index != 0)
		hart_stop();
	if (nr_harts > 2)
		hart_start(&harts[1]);
	for (u64 spin = 0; READ_ONCE(nr_begun) < nr_to_begin(); spin++)
		if (nr_harts == 2)
			start_once_more(&harts[1]);
		else
			relax(me, spin);
	for (u64 i = 1; i < nr_harts; i++)
		for (u64 spin = 0; sbi_hart_status(harts[i].id) != HSM_STOPPED; spin++)
			relax(me, spin);
}

u64 hsm_finish(void)
{
	say("hsm: harts stopped and started %lu times; suspended", nr_begun);
	return mix(nr_begun);
}
