/*
 * What a guest and the lguest host agree on. The same as src/lguest/abi.ts, which tells each thing in full; test/lguest/abi.test.ts holds the
 * two together. No other header is needed, and assembler may include it.
 */
#ifndef LGUEST_H
#define LGUEST_H

/* Hypercalls: number in a0, arguments in a1 to a4, ecall from S-mode; 0 comes back in a0. */
#define LHCALL_FLUSH_ASYNC 0
#define LHCALL_LGUEST_INIT 1
#define LHCALL_SHUTDOWN 2
/* A root whose page was a root before: LHCALL_SET_PGD for each entry that it had, or LHCALL_FLUSH_TLB 1, comes first. */
#define LHCALL_NEW_PGTABLE 4
#define LHCALL_FLUSH_TLB 5
#define LHCALL_LOAD_IDT_ENTRY 6
#define LHCALL_SET_STACK 7
#define LHCALL_TS 8
#define LHCALL_SET_CLOCKEVENT 9
#define LHCALL_HALT 10
#define LHCALL_SET_PMD 13
#define LHCALL_SET_PTE 14
#define LHCALL_SET_PGD 15
#define LHCALL_NOTIFY 17
#define LHCALL_SEND_INTERRUPTS 19
#define LHCALL_SRET 32

#define LGUEST_SHUTDOWN_POWEROFF 1
#define LGUEST_SHUTDOWN_RESTART 2
#define LGUEST_MESSAGE_BYTES 128

#define LGUEST_IRQS 32
#define LGUEST_TIMER_IRQ 0
#define LGUEST_IRQ_VECTOR 32
#define LGUEST_NR_VECTORS 64

#define LHCALL_RING_SIZE 64
#define LHCALL_RING_FREE 0xff
#define LHCALL_RING_FULL 0

/* struct lguest_trap_frame */
#define LGUEST_FRAME_EPC 0
#define LGUEST_FRAME_SP 8
#define LGUEST_FRAME_A0 16
#define LGUEST_FRAME_STATUS 24
#define LGUEST_FRAME_CAUSE 32
#define LGUEST_FRAME_TVAL 40
#define LGUEST_FRAME_BYTES 64

#define LGUEST_STATUS_PIE (1 << 5)
#define LGUEST_STATUS_PP (1 << 8)

#ifndef __ASSEMBLER__

struct lguest_hcall_args {
	unsigned long arg0, arg1, arg2, arg3, arg4;
};

struct lguest_data {
	/* Written by the guest. */
	volatile unsigned int irq_enabled;
	/* Written by the host. */
	volatile unsigned int irq_pending;
	/* Written by the guest. */
	volatile unsigned int blocked_interrupts;
	unsigned int pad;
	/* Written by the host. */
	volatile unsigned long time_sec;
	volatile unsigned long time_nsec;
	volatile unsigned long time_ticks;
	unsigned long timebase_hz;
	/* Written by the guest before LHCALL_LGUEST_INIT. */
	unsigned long kernel_address;
	/* Written by the host. */
	unsigned long mem_bytes;
	/* Both: see LHCALL_RING_FREE. */
	volatile unsigned char hcall_status[LHCALL_RING_SIZE];
	/* Written by the guest. */
	struct lguest_hcall_args hcalls[LHCALL_RING_SIZE];
} __attribute__((aligned(8)));

struct lguest_trap_frame {
	unsigned long epc, sp, a0, status, cause, tval, unused[2];
};

_Static_assert(sizeof(struct lguest_data) == 128 + LHCALL_RING_SIZE * 40, "struct lguest_data");
_Static_assert(sizeof(struct lguest_trap_frame) == LGUEST_FRAME_BYTES, "struct lguest_trap_frame");

#endif
#endif
