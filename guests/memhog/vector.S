/*
 * The way into and out of traps. While U-mode runs, sscratch holds the process's trap frame; in S-mode it is 0 and the
 * frame is pushed on the stack in use. trap() gets the frame and returns the one to resume, which may be another process's.
 */
#define FRAME_SIZE (34 * 8)
#define SEPC (32 * 8)
#define SSTATUS (33 * 8)

	.macro each op
	.irp n, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	\op	x\n, (\n * 8)(sp)
	.endr
	.endm

	.text
	.globl trap_entry
	.align 2
trap_entry:
	csrrw	sp, sscratch, sp
	bnez	sp, 1f
	csrr	sp, sscratch
	addi	sp, sp, -FRAME_SIZE
1:	each	sd
	csrr	t0, sscratch		/* sp of what was interrupted */
	sd	t0, (2 * 8)(sp)
	csrw	sscratch, zero
	csrr	t0, sepc
	sd	t0, SEPC(sp)
	csrr	t1, sstatus
	sd	t1, SSTATUS(sp)
	mv	a0, sp
	andi	t1, t1, 0x100		/* SPP */
	bnez	t1, 2f
	lla	sp, __stack_top
2:	call	trap

	.globl trap_return		/* void trap_return(struct trap_frame *) */
trap_return:
	mv	sp, a0
	ld	t0, SEPC(sp)
	csrw	sepc, t0
	ld	t1, SSTATUS(sp)
	csrw	sstatus, t1
	andi	t1, t1, 0x100
	bnez	t1, 3f
	csrw	sscratch, sp
3:	each	ld
	ld	sp, (2 * 8)(sp)
	sret
