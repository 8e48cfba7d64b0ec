/* What this guest wants to know of the device tree, read in one walk over the blob. */
#ifndef MEMHOG_FDT_H
#define MEMHOG_FDT_H
#include "types.h"

#define MAX_RESERVED 16

/* Half-open, in bytes of physical address. */
struct range { u64 start, end; };

struct board {
	struct range memory;
	struct range reserved[MAX_RESERVED];	/* the blob, the initrd, /reserved-memory, the blob's reservation map */
	u64 nr_reserved;
	u64 timebase_hz;
	const char *bootargs;
};

/* Dies when the blob is not one or lacks memory or the timebase. */
void fdt_read(const void *blob, struct board *board);
void board_reserve(struct board *board, u64 start, u64 end);
/* The first page from `page` on that no reserved range meets. */
u64 board_skip_reserved(const struct board *board, u64 page);

#endif
