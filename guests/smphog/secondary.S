/* Entry by SBI's hart_start, in S-mode without paging and with interrupts off: a0 = hart id, a1 = its struct hart (smp.h). */
#define STACK_TOP 16
#define ENTRY 24

	.text
	.globl secondary_entry
	.align 2
secondary_entry:
	csrw	sie, zero
	csrw	sscratch, zero
	mv	tp, a1
	ld	sp, STACK_TOP(tp)
	lla	t0, trap_entry
	csrw	stvec, t0
	mv	a1, a0
	mv	a0, tp
	ld	t0, ENTRY(tp)
	jalr	t0
	unimp
