/* The program of the processes. It runs in U-mode at USER_TEXT; its arena is paged in by the kernel as it is touched. */
#include "process.h"

static void system_call(u64 number, u64 pass, const struct tally *tally)
{
	register u64 a0 __asm__("a0") = pass;
	register u64 a1 __asm__("a1") = tally->words;
	register u64 a2 __asm__("a2") = tally->errors;
	register u64 a3 __asm__("a3") = tally->checksum;
	register u64 a4 __asm__("a4") = tally->bad_va;
	register u64 a5 __asm__("a5") = tally->bad_read;
	register u64 a6 __asm__("a6") = tally->bad_want;
	register u64 a7 __asm__("a7") = number;

	__asm__ volatile("ecall" ::"r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5), "r"(a6), "r"(a7) : "memory");
}

void user_start(u64 arena_base, u64 nr_pages, u64 seed, u64 passes)
{
	struct arena arena;

	arena_init(&arena, arena_base, nr_pages, seed);
	for (u64 pass = 1; pass <= passes; pass++) {
		work_pass(&arena, pass);
		system_call(SYS_PASS_DONE, pass, &arena.tally);
	}
	for (;;)
		system_call(SYS_EXIT, passes, &arena.tally);
}
