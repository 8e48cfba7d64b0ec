#include "pages.h"
#include "console.h"

static const struct board *ram;
static u64 next_page, nr_free;

/* The end of the reserved range that the page meets, or 0. */
static u64 reserved_until(u64 page)
{
	for (u64 i = 0; i < ram->nr_reserved; i++)
		if (page < ram->reserved[i].end && page + PAGE_SIZE > ram->reserved[i].start)
			return ALIGN_UP(ram->reserved[i].end, PAGE_SIZE);
	return 0;
}

static u64 skip_reserved(u64 page)
{
	u64 end;

	while ((end = reserved_until(page)) != 0)
		page = end;
	return page;
}

void pages_init(const struct board *board)
{
	ram = board;
	next_page = skip_reserved(ALIGN_UP(board->memory.start, PAGE_SIZE));
	for (u64 p = next_page; p + PAGE_SIZE <= board->memory.end; p = skip_reserved(p + PAGE_SIZE))
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
	next_page = skip_reserved(page + PAGE_SIZE);
	for (u64 *word = (u64 *)page; word < (u64 *)(page + PAGE_SIZE); word++)
		*word = 0;
	return page;
}
