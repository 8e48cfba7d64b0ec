/*
 * Virtual addresses. Above PAGE_OFFSET is the kernel's half, the same in every address space: all RAM, each byte at its physical address plus
 * PAGE_OFFSET. Below is what belongs to a process. For assembler too.
 */
#ifndef FORKHOG_LAYOUT_H
#define FORKHOG_LAYOUT_H

#define PAGE_OFFSET 0xffffffc000000000

#define USER_TEXT 0x10000000	/* the program, read and executed; pages of the kernel's image */
#define USER_STACK 0x20000000	/* USER_STACK_PAGES, paged in as they are touched, as all that follows */
#define USER_STACK_PAGES 4
#define USER_BUFFER 0x20100000	/* one page, for the disk */
#define USER_ARENA 0x40000000	/* the memory to work on */

#endif
