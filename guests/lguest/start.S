/*
 * Entry, at a physical address, without paging: a1 = device tree. boot() makes page tables that show RAM in both halves; from then on the kernel runs in
 * the upper one. Everything is PC-relative: after the jump all addresses of code and data are of the upper half.
 */
#include "imageheader.h"
#include "layout.h"

begin:
	mv	s0, a1
	lla	sp, __stack_top
	lla	t0, __bss_start
	lla	t1, __bss_end
1:	sd	zero, 0(t0)
	addi	t0, t0, 8
	bltu	t0, t1, 1b
	mv	a0, s0
	call	boot
	call	platform_use_root
	call	platform_sync
	li	t0, PAGE_OFFSET
	add	sp, sp, t0
	lla	t1, 2f
	add	t1, t1, t0
	jr	t1
2:	call	main
3:	j	3b
