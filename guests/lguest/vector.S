/*
 * The way into and out of traps under lguest. The host has pushed struct lguest_trap_frame: sp is its address, a0 is saved in it, all other registers are
 * those of what was interrupted. A trap out of U-mode goes into the current process's frame; one in the kernel, which happens where it waits and where it
 * touches a process's memory, into a frame on the stack. sret is the host's, so the way out is a frame for LHCALL_SRET.
 */
#include "lguest.h"

/* struct trap_frame, and a multiple of 64, as frames of the host are */
#define FRAME_SIZE (5 * 64)
#define SEPC (32 * 8)
#define SSTATUS (33 * 8)
#define SP_AT (2 * 8)
#define A0_AT (10 * 8)

	.macro each op
	.irp n, 1, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	\op	x\n, (\n * 8)(a0)
	.endr
	.endm

	/* One doubleword from the host's frame to ours, or back. */
	.macro	copy from, from_at, to, to_at
	ld	t0, (\from_at)(\from)
	sd	t0, (\to_at)(\to)
	.endm

	.text
	.globl trap_entry
	.align 2
trap_entry:
	ld	a0, LGUEST_FRAME_STATUS(sp)
	andi	a0, a0, LGUEST_STATUS_PP
	bnez	a0, 1f
	lla	a0, current
	ld	a0, (a0)		/* struct process begins with its frame */
	j	2f
1:	addi	a0, sp, -FRAME_SIZE
2:	each	sd
	copy	sp, LGUEST_FRAME_EPC, a0, SEPC
	copy	sp, LGUEST_FRAME_SP, a0, SP_AT
	copy	sp, LGUEST_FRAME_A0, a0, A0_AT
	copy	sp, LGUEST_FRAME_STATUS, a0, SSTATUS
	ld	a1, LGUEST_FRAME_CAUSE(sp)
	ld	a2, LGUEST_FRAME_TVAL(sp)
	andi	t0, t0, LGUEST_STATUS_PP
	lla	sp, __stack_top
	beqz	t0, 3f
	mv	sp, a0
3:	call	handle_trap

	.globl trap_return		/* void trap_return(struct trap_frame *) */
trap_return:
	ld	t0, SSTATUS(a0)
	andi	t0, t0, LGUEST_STATUS_PP
	lla	sp, __stack_top
	beqz	t0, 4f
	mv	sp, a0
4:	addi	sp, sp, -LGUEST_FRAME_BYTES
	copy	a0, SEPC, sp, LGUEST_FRAME_EPC
	copy	a0, SP_AT, sp, LGUEST_FRAME_SP
	copy	a0, A0_AT, sp, LGUEST_FRAME_A0
	copy	a0, SSTATUS, sp, LGUEST_FRAME_STATUS
	each	ld
	li	a0, LHCALL_SRET
	ecall
