/*
 * The Linux RISC-V Image header (Documentation/arch/riscv/boot-image-header), so that any loader of Linux kernels loads this guest: at a 2 MiB boundary
 * plus text_offset. For assembler; `begin` is where it goes on.
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
