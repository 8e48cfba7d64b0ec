/* The disk by virtio-blk: blocks of a page, some under way at once. */
#ifndef FORKHOG_DISK_H
#define FORKHOG_DISK_H
#include "types.h"

/* `page`: see bus_find. */
void disk_start(u64 page);
u64 disk_blocks(void);
/* See platform_disk_move. */
int disk_move(u64 who, int is_write, u64 block, u64 pa);
/* Whether the interrupt is the disk's; it is served then. */
int disk_interrupt(u64 irq);

#endif
