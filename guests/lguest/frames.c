#include "frames.h"
#include "console.h"

u64 va_offset;

/* Of the board, physical. */
static u64 ram_pa;
/* By physical address: fresh pages from here on; then pages that were put, each with the next one's address in its first word. */
static u64 next_fresh, first_put, nr_free;
/* Users, by page from the start of RAM; physical. */
static u64 users;

static const struct board *ram(void)
{
	return virt(ram_pa);
}

static u16 *users_of(u64 pa)
{
	return (u16 *)virt(users) + ((pa - ram()->memory.start) >> PAGE_SHIFT);
}

/* A place for the counts: the first `bytes` in a row. */
static u64 find_room(u64 bytes)
{
	u64 start = board_skip_reserved(ram(), ALIGN_UP(ram()->memory.start, PAGE_SIZE)), end = start;

	while (end < start + bytes) {
		if (end >= ram()->memory.end)
			die("%lu bytes in a row are nowhere in RAM", bytes);
		end += PAGE_SIZE;
		if (board_skip_reserved(ram(), end) != end)
			start = end = board_skip_reserved(ram(), end);
	}
	return start;
}

void frames_init(struct board *board)
{
	u64 nr_pages = (board->memory.end - board->memory.start) >> PAGE_SHIFT;

	ram_pa = (u64)board;
	users = find_room(nr_pages * sizeof(u16));
	board_reserve(board, users, users + nr_pages * sizeof(u16));
	for (u64 i = 0; i < nr_pages; i++)
		((u16 *)virt(users))[i] = 0;
	next_fresh = board_skip_reserved(ram(), ALIGN_UP(board->memory.start, PAGE_SIZE));
	for (u64 p = next_fresh; p + PAGE_SIZE <= board->memory.end; p = board_skip_reserved(ram(), p + PAGE_SIZE))
		nr_free++;
}

u64 frames_free(void)
{
	return nr_free;
}

u64 frame_alloc_dirty(void)
{
	u64 pa;

	if (nr_free == 0)
		die("FAILED: out of memory");
	nr_free--;
	if (first_put) {
		pa = first_put;
		first_put = *(u64 *)virt(pa);
	} else {
		pa = next_fresh;
		next_fresh = board_skip_reserved(ram(), pa + PAGE_SIZE);
	}
	*users_of(pa) = 1;
	return pa;
}

u64 frame_alloc(void)
{
	u64 pa = frame_alloc_dirty();
	u64 *word = virt(pa);

	for (u64 i = 0; i < WORDS_PER_PAGE; i++)
		word[i] = 0;
	return pa;
}

void frame_get(u64 pa)
{
	++*users_of(pa);
}

void frame_put(u64 pa)
{
	u16 *count = users_of(pa);

	if (*count == 0)
		die("FAILED: page %lx was put once more than it was got", pa);
	if (--*count > 0)
		return;
	*(u64 *)virt(pa) = first_put;
	first_put = pa;
	nr_free++;
}

u64 frame_users(u64 pa)
{
	return *users_of(pa);
}
