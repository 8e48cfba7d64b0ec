#include "sbismp.h"
#include "smp.h"
#include "timer.h"

#define STACK_BYTES 8192
#define SPINS 64

struct hart harts[MAX_HARTS];
u64 nr_harts;

/* secondary.S. */
void secondary_entry(void);

static u8 stacks[MAX_HARTS][STACK_BYTES] __attribute__((aligned(16)));
static u64 console_taken;
static struct { u64 arrived __attribute__((aligned(CACHE_LINE))), round; } meeting;

static void add_hart(u64 id, u64 seed)
{
	struct hart *hart = &harts[nr_harts];

	hart->index = nr_harts++;
	hart->id = id;
	hart->stack_top = (u64)stacks[hart->index] + STACK_BYTES;
	hart->random = mix(seed + hart->index) | 1;
	hart->timer_random = mix(hart->random) | 1;
}

void harts_init(u64 boot_id, u64 seed, u64 limit)
{
	struct hart *me = &harts[0];

	add_hart(boot_id, seed);
	__asm__ volatile("mv tp, %0" ::"r"(me));
	for (u64 id = 0; id < 64 && nr_harts < limit; id++)
		if (id != boot_id && sbi_hart_status(id) >= 0)
			add_hart(id, seed);
}

void hart_start(struct hart *hart)
{
	long error;

	for (u64 spin = 0; sbi_hart_status(hart->id) != HSM_STOPPED; spin++)
		relax(this_hart(), spin);
	error = sbi_hart_start(hart->id, (u64)secondary_entry, (u64)hart);
	if (error != 0)
		FAIL("start of hart %lu: SBI error -%lu", hart->index, (u64)-error);
}

void harts_start(void (*entry)(struct hart *, u64 id))
{
	for (u64 i = 1; i < nr_harts; i++) {
		harts[i].entry = entry;
		hart_start(&harts[i]);
	}
}

void hart_stop(void)
{
	long error;

	CLEAR_CSR(sstatus, SSTATUS_SIE);
	error = sbi_hart_stop();
	FAIL("hart_stop came back: SBI error -%lu", (u64)-error);
}

u64 hart_mask(u64 indices)
{
	u64 mask = 0;

	for (u64 i = 0; i < nr_harts; i++)
		if (indices >> i & 1)
			mask |= 1ul << harts[i].id;
	return mask;
}

void barrier(struct hart *me)
{
	u64 round = READ_ONCE(meeting.round);

	FENCE(rw, rw);
	if (__atomic_fetch_add(&meeting.arrived, 1, RELAXED) + 1 == nr_harts) {
		meeting.arrived = 0;
		FENCE(rw, rw);
		WRITE_ONCE(meeting.round, round + 1);
	} else {
		for (u64 spin = 0; READ_ONCE(meeting.round) == round; spin++)
			relax(me, spin);
	}
	FENCE(rw, rw);
}

void relax_in_trap(struct hart *me, u64 spin)
{
	if (spin % SPINS != SPINS - 1)
		return;
	timer_ensure(me);
	__asm__ volatile("wfi");
}

/* With interrupts off from the look at the timer to the wfi, which an interrupt ends nevertheless. */
void relax(struct hart *me, u64 spin)
{
	CLEAR_CSR(sstatus, SSTATUS_SIE);
	relax_in_trap(me, spin);
	SET_CSR(sstatus, SSTATUS_SIE);
}

u64 random_below(struct hart *me, u64 below)
{
	u64 x = me->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	me->random = x;
	return (x >> 32) * below >> 32;
}

void console_take(void)
{
	CLEAR_CSR(sstatus, SSTATUS_SIE);
	while (__atomic_exchange_n(&console_taken, 1, __ATOMIC_SEQ_CST) != 0)
		;
}
