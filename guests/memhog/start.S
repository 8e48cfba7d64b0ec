/*
 * Entry, as a loader of Linux kernels does it: in S-mode with satp 0, a0 = hart id, a1 = device tree. Everything is PC-relative: the image runs wherever
 * it was put.
 */
#include "imageheader.h"

begin:
	csrw	sie, zero
	csrw	sscratch, zero
	lla	sp, __stack_top
	lla	t0, __bss_start
	lla	t1, __bss_end
1:	sd	zero, 0(t0)
	addi	t0, t0, 8
	bltu	t0, t1, 1b
	lla	t0, trap_entry
	csrw	stvec, t0
	call	main
2:	wfi
	j	2b
