/*
 * Entry. The Linux RISC-V Image header comes first (Documentation/arch/riscv/boot-image-header), so that any loader of
 * Linux kernels loads this guest: at a 2 MiB boundary plus text_offset, entered in S-mode with satp 0, a0 = hart id,
 * a1 = device tree. Everything is PC-relative: the image runs wherever it was put.
 */
	.section .head, "ax"
	.globl _start
	.option norvc
_start:
	j	begin			/* code0 */
	nop				/* code1 */
	.dword	0x200000		/* text_offset */
	.dword	__image_size		/* up to the end of .bss */
	.dword	0			/* flags: little endian */
	.word	0x2			/* header version 0.2 */
	.word	0
	.dword	0
	.ascii	"RISCV\0\0\0"
	.ascii	"RSC\x05"
	.word	0

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
