#include "work.h"

#define GOLDEN 0x9e3779b97f4a7c15ul

/* A page's words are first, first + step, first + 2 * step, ... */
struct pattern { u64 first, step; };

static u64 mix(u64 x)
{
	x = (x ^ x >> 31) * GOLDEN;
	x = (x ^ x >> 29) * (GOLDEN << 1 | 1);
	return x ^ x >> 32;
}

static struct pattern pattern_of(const struct arena *arena, struct page_state state)
{
	u64 first = mix(arena->seed + mix((u64)state.version << 32 | state.id));

	return (struct pattern){ first, mix(first) | 1 };
}

static void write_page(struct arena *arena, u64 index)
{
	struct pattern p;
	u64 *word = arena->pages + index * WORDS_PER_PAGE, *end = word + WORDS_PER_PAGE;
	u64 value, step;

	arena->state[index].version++;
	p = pattern_of(arena, arena->state[index]);
	value = p.first, step = p.step;
	for (; word < end; word += 8) {
		word[0] = value, value += step;
		word[1] = value, value += step;
		word[2] = value, value += step;
		word[3] = value, value += step;
		word[4] = value, value += step;
		word[5] = value, value += step;
		word[6] = value, value += step;
		word[7] = value, value += step;
	}
}

static void count_errors(struct tally *tally, const u64 *word, struct pattern p)
{
	for (u64 i = 0; i < WORDS_PER_PAGE; i++, word++) {
		u64 want = p.first + i * p.step, got = *(const volatile u64 *)word;

		if (got == want)
			continue;
		if (tally->errors++ == 0)
			tally->bad_va = (u64)word, tally->bad_read = got, tally->bad_want = want;
	}
}

static void verify_page(struct arena *arena, u64 index)
{
	struct pattern p = pattern_of(arena, arena->state[index]);
	const u64 *word = arena->pages + index * WORDS_PER_PAGE, *end = word + WORDS_PER_PAGE;
	u64 want = p.first, step = p.step, sum = 0, wrong = 0;

	for (; word < end; word += 4) {
		u64 a = word[0], b = word[1], c = word[2], d = word[3];

		wrong |= a ^ want, sum += a, want += step;
		wrong |= b ^ want, sum += b, want += step;
		wrong |= c ^ want, sum += c, want += step;
		wrong |= d ^ want, sum += d, want += step;
	}
	arena->tally.words += WORDS_PER_PAGE;
	arena->tally.checksum = mix(arena->tally.checksum + sum);
	if (wrong)
		count_errors(&arena->tally, end - WORDS_PER_PAGE, p);
}

/* Calls `visit` with every index once. Scattered: a full-period generator modulo the next power of two. */
static void for_each_page(struct arena *arena, enum order order, u64 salt, void (*visit)(struct arena *, u64))
{
	u64 period = 1, index = 0;

	while (period < arena->nr_pages)
		period <<= 1;
	for (u64 i = 0; i < period; i++) {
		if (index < arena->nr_pages)
			visit(arena, index);
		index = order == SEQUENTIAL ? index + 1 : (index * 2891336453ul + (salt << 1 | 1)) & (period - 1);
	}
}

/* Three touches of four go to a hot eighth, which moves with each pass; the fourth goes anywhere. */
static void work_hot_and_cold(struct arena *arena, u64 pass)
{
	u64 nr_hot = arena->nr_pages / 8 + 1, first_hot = pass * nr_hot % (arena->nr_pages - nr_hot + 1);

	for (u64 i = 0; i < arena->nr_pages / 4; i++) {
		u64 hot = arena_random(arena, 4);
		u64 index = hot ? first_hot + arena_random(arena, nr_hot) : arena_random(arena, arena->nr_pages);

		verify_page(arena, index);
		write_page(arena, index);
	}
}

u64 arena_capacity(u64 total)
{
	return total * PAGE_SIZE / (PAGE_SIZE + sizeof(struct page_state)) - 1;
}

void arena_init(struct arena *arena, u64 base, u64 nr_pages, u64 seed)
{
	arena->state = (struct page_state *)base;
	arena->pages = (u64 *)ALIGN_UP(base + nr_pages * sizeof(struct page_state), PAGE_SIZE);
	arena->nr_pages = nr_pages;
	arena->seed = seed;
	arena->random = mix(seed) | 1;
	arena->tally = (struct tally){ 0, 0, 0, 0, 0, 0 };
	for (u64 i = 0; i < nr_pages; i++)
		arena->state[i] = (struct page_state){ (u32)i, 0 };
}

u64 arena_random(struct arena *arena, u64 below)
{
	u64 x = arena->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	arena->random = x;
	return (x >> 32) * below >> 32;
}

void arena_verify(struct arena *arena, enum order order)
{
	for_each_page(arena, order, arena->seed, verify_page);
}

void work_pass(struct arena *arena, u64 pass)
{
	for_each_page(arena, pass % 2 ? SEQUENTIAL : SCATTERED, pass, write_page);
	work_hot_and_cold(arena, pass);
	arena_verify(arena, SCATTERED);
}
