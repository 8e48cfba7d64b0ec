/*
 * Free physical pages, handed out once each and never taken back. Before paging they are reached by physical address, and
 * after it too, since the kernel maps all RAM where it lies.
 */
#ifndef MEMHOG_PAGES_H
#define MEMHOG_PAGES_H
#include "fdt.h"

void pages_init(const struct board *board);
u64 pages_free(void);
/* A zeroed page; dies when there is none left. */
u64 page_alloc(void);

#endif
