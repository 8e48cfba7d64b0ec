#include "pages.h"
#include "console.h"

static const struct board *ram;
static u64 next_page, nr_free;

void pages_init(const struct board *board)
{
	ram = board;
	next_page = board_skip_reserved(ram, ALIGN_UP(board->memory.start, PAGE_SIZE));
	for (u64 p = next_page; p + PAGE_SIZE <= board->memory.end; p = board_skip_reserved(ram, p + PAGE_SIZE))
		nr_free++;
}

u64 pages_free(void)
{
	return nr_free;
}

u64 page_alloc(void)
{
	u64 page = next_page;

	if (nr_free == 0)
		die("out of memory");
	nr_free--;
	next_page = board_skip_reserved(ram, page + PAGE_SIZE);
	for (u64 *word = (u64 *)page; word < (u64 *)(page + PAGE_SIZE); word++)
		*word = 0;
	return page;
}
