/* The program of the processes, in U-mode at USER_TEXT. It has no data but its stack, its arena and its page for the disk. */
#include "layout.h"
#include "sv39.h"
#include "usercall.h"

static u64 usercall(u64 number, u64 arg0, u64 arg1, u64 arg2)
{
	register u64 a0 __asm__("a0") = arg0;
	register u64 a1 __asm__("a1") = arg1;
	register u64 a2 __asm__("a2") = arg2;
	register u64 a7 __asm__("a7") = number;

	__asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
	return a0;
}

__attribute__((noreturn)) static void exit_with(const struct legacy *legacy)
{
	for (;;)
		usercall(SYS_EXIT, (u64)legacy, 0, 0);
}

/* The order in which children end is nobody's, so what they say is added up. */
static void add(struct legacy *sum, const struct legacy *legacy)
{
	if (legacy->tally.errors && !sum->tally.errors) {
		sum->tally.bad_va = legacy->tally.bad_va;
		sum->tally.bad_read = legacy->tally.bad_read;
		sum->tally.bad_want = legacy->tally.bad_want;
	}
	sum->tally.words += legacy->tally.words;
	sum->tally.errors += legacy->tally.errors;
	sum->tally.checksum += legacy->tally.checksum;
	sum->blocks += legacy->blocks;
}

static void check(struct tally *tally, u64 va, u64 read, u64 want)
{
	tally->words++;
	tally->checksum += read;
	if (read != want && tally->errors++ == 0)
		tally->bad_va = va, tally->bad_read = read, tally->bad_want = want;
}

/* What the ptes of the pages say must be exact: how many have all of `bits`. */
static void check_ptes(struct arena *arena, u64 bits, u64 want)
{
	check(&arena->tally, (u64)arena->pages, usercall(SYS_COUNT, (u64)arena->pages, arena->nr_pages, bits), want);
}

static u64 block_word(u64 seed, u64 pass, u64 block, u64 i)
{
	return ((seed << 32 | pass << 24 | block) + i) * 0x9e3779b97f4a7c15ul;
}

static void fill_buffer(u64 seed, u64 pass, u64 block)
{
	u64 *word = (u64 *)(u64)USER_BUFFER;

	for (u64 i = 0; i < WORDS_PER_PAGE; i++)
		word[i] = block_word(seed, pass, block, i);
}

static void verify_buffer(struct tally *tally, u64 seed, u64 pass, u64 block)
{
	const u64 *word = (const u64 *)(u64)USER_BUFFER;

	for (u64 i = 0; i < WORDS_PER_PAGE; i++)
		check(tally, (u64)&word[i], word[i], block_word(seed, pass, block, i));
}

static void read_block(struct legacy *legacy, u64 seed, u64 pass, u64 block)
{
	fill_buffer(~seed, pass, block);
	check(&legacy->tally, USER_BUFFER, usercall(SYS_READ_BLOCK, block, USER_BUFFER, 0), 1);
	verify_buffer(&legacy->tally, seed, pass, block);
	legacy->blocks++;
}

/* Blocks of the pass before are as that pass's child has left them; then come this one's. */
static void work_disk(struct legacy *legacy, u64 seed, u64 pass, u64 first, u64 nr)
{
	for (u64 block = first; pass > 1 && block < first + nr; block++)
		read_block(legacy, seed, pass - 1, block);
	for (u64 block = first; block < first + nr; block++) {
		fill_buffer(seed, pass, block);
		check(&legacy->tally, USER_BUFFER, usercall(SYS_WRITE_BLOCK, block, USER_BUFFER, 0), 1);
	}
	for (u64 block = first; block < first + nr; block++)
		read_block(legacy, seed, pass, block);
}

/* An eighth of the arena, overlapping those of the children before and after; with other patterns than theirs. */
static struct arena part_of(const struct arena *arena, u64 child, u64 children)
{
	struct arena part = *arena;
	u64 nr = arena->nr_pages / 8, first = children > 1 ? child * (arena->nr_pages - nr) / (children - 1) : 0;

	part.pages += first * WORDS_PER_PAGE;
	part.state += first;
	part.nr_pages = nr;
	part.random = (arena->random ^ (child + 1) * 0x9e3779b97f4a7c15ul) | 1;
	for (u64 i = 0; i < nr; i++)
		part.state[i].version += (u32)(child + 1) * 1000;
	return part;
}

__attribute__((noreturn)) static void run_child(struct arena *arena, u64 pass, u64 child, u64 children, u64 nr_blocks)
{
	struct legacy legacy = { arena->tally, 0 };
	struct arena part;

	arena->tally = (struct tally){ 0, 0, 0, 0, 0, 0 };
	arena_verify(arena, SEQUENTIAL);
	check_ptes(arena, PTE_A, arena->nr_pages);
	check_ptes(arena, PTE_D, 0);
	part = part_of(arena, child, children);
	work_pass(&part, pass);
	check_ptes(&part, PTE_A | PTE_D, part.nr_pages);
	check_ptes(arena, PTE_D, part.nr_pages);
	arena_verify(arena, SCATTERED);
	legacy.tally = part.tally;
	add(&legacy, &(struct legacy){ arena->tally, 0 });
	work_disk(&legacy, arena->seed, pass, child * nr_blocks, nr_blocks);
	exit_with(&legacy);
}

static void run_children(struct arena *arena, struct legacy *sum, u64 pass, u64 children, u64 nr_blocks)
{
	struct legacy legacy;

	for (u64 child = 0; child < children; child++)
		if (usercall(SYS_FORK, 0, 0, 0) == 0)
			run_child(arena, pass, child, children, nr_blocks);
	for (u64 child = 0; child < children; child++) {
		usercall(SYS_WAIT, (u64)&legacy, 0, 0);
		add(sum, &legacy);
	}
}

static void bench_end(u64 which, u64 operations)
{
	usercall(SYS_BENCH_END, which, operations, 0);
}

static void bench_forks(u64 nr)
{
	struct legacy legacy = { { 0, 0, 0, 0, 0, 0 }, 0 };

	usercall(SYS_BENCH_BEGIN, 0, 0, 0);
	for (u64 i = 0; i < nr; i++) {
		if (usercall(SYS_FORK, 0, 0, 0) == 0)
			exit_with(&legacy);
		usercall(SYS_WAIT, (u64)&legacy, 0, 0);
	}
	bench_end(BENCH_FORK, nr);
}

/* Two processes give way to each other: each yield is one switch. */
static void bench_switches(u64 nr)
{
	struct legacy legacy = { { 0, 0, 0, 0, 0, 0 }, 0 };
	u64 child = usercall(SYS_FORK, 0, 0, 0);

	usercall(SYS_YIELD, 0, 0, 0);
	if (child)
		usercall(SYS_BENCH_BEGIN, 0, 0, 0);
	for (u64 i = 0; i < nr; i++)
		usercall(SYS_YIELD, 0, 0, 0);
	if (child == 0)
		exit_with(&legacy);
	bench_end(BENCH_SWITCH, 2 * nr);
	usercall(SYS_WAIT, (u64)&legacy, 0, 0);
}

/* Each page is touched for the first time. */
static void bench_faults(u64 nr_pages)
{
	usercall(SYS_DROP, USER_ARENA, nr_pages, 0);
	usercall(SYS_BENCH_BEGIN, 0, 0, 0);
	for (u64 i = 0; i < nr_pages; i++)
		*(volatile u64 *)((u64)USER_ARENA + i * PAGE_SIZE) = i;
	bench_end(BENCH_FAULT, nr_pages);
	usercall(SYS_DROP, USER_ARENA, nr_pages, 0);
}

static void bench_round(u64 nr_pages)
{
	usercall(SYS_BENCH_BEGIN, 0, 0, 0);
	usercall(SYS_BENCH_HYPERCALLS, 20000, 0, 0);
	bench_end(BENCH_HYPERCALL, 20000);
	usercall(SYS_BENCH_BEGIN, 0, 0, 0);
	for (u64 i = 0; i < 20000; i++)
		usercall(SYS_NOTHING, 0, 0, 0);
	bench_end(BENCH_SYSCALL, 20000);
	bench_faults(nr_pages < 2048 ? nr_pages : 2048);
	bench_switches(5000);
	bench_forks(200);
}

void user_start(u64 nr_pages, u64 seed, u64 passes, u64 children, u64 nr_blocks, u64 rounds, u64 flip)
{
	struct legacy sum = { { 0, 0, 0, 0, 0, 0 }, 0 };
	struct arena arena;

	for (u64 round = 0; round < rounds; round++)
		bench_round(nr_pages);
	if (rounds)
		exit_with(&sum);
	arena_init(&arena, USER_ARENA, nr_pages, seed);
	for (u64 pass = 1; pass <= passes; pass++) {
		work_pass(&arena, pass);
		run_children(&arena, &sum, pass, children, nr_blocks);
		if (pass == passes && flip < nr_pages)
			arena.pages[flip * WORDS_PER_PAGE + 77] ^= 1ul << 42;
		arena_verify(&arena, SCATTERED);
		add(&sum, &(struct legacy){ arena.tally, 0 });
		arena.tally = (struct tally){ 0, 0, 0, 0, 0, 0 };
		usercall(SYS_PASS, pass, (u64)&sum, 0);
	}
	exit_with(&sum);
}
