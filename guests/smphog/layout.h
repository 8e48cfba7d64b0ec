/* Virtual addresses. RAM is mapped where it lies, below LAYOUT_RAM_END; each window lies in a gigapage of its own above. */
#ifndef SMPHOG_LAYOUT_H
#define SMPHOG_LAYOUT_H

#define GIGAPAGE_SIZE 0x40000000ul
#define LAYOUT_RAM_END 0x1000000000ul	/* 64 GiB */
#define REMAP_WINDOW 0x1000000000ul	/* remap.c: in each address space another */
#define MEGA_WINDOW 0x1040000000ul	/* mega.c: in each address space another */
#define DIRTY_WINDOW 0x2000000000ul	/* dirty.c */
#define ALIAS_WINDOW 0x2040000000ul	/* alias.c */
#define FILL_WINDOW 0x2080000000ul	/* fill.c: the rest of the kernel's address space */

#endif
