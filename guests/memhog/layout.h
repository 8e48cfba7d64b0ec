/* Virtual addresses. RAM is mapped where it lies, below LAYOUT_RAM_END; everything else has its own window above. */
#ifndef MEMHOG_LAYOUT_H
#define MEMHOG_LAYOUT_H

#define LAYOUT_RAM_END 0x1000000000ul	/* 64 GiB */
#define USER_ARENA 0x1000000000ul
#define HOARD 0x2000000000ul
#define USER_TEXT 0x3000000000ul
#define USER_STACK 0x3000200000ul	/* one page */

#endif
