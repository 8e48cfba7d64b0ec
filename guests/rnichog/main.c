/*
 * rnichog: a guest whose memory goes to a peer and comes back by a NIC that moves it by itself, at the ring of a doorbell.
 *
 * In each pass it writes its pages, has them written into the peer's memory in pieces of several lengths, spoils them, has them read back in other pieces, and verifies
 * every word. Parameters on the kernel command line: passes=2, seed=1, mib= (work on no more than that). It needs a board with the doorbell (unpin's machine/doorbell.ts), and
 * runs without paging. Ends in a power off by SBI, with the reason "system failure" when anything was wrong.
 */
#include "args.h"
#include "console.h"
#include "fdt.h"
#include "sbi.h"

#define RNIC_BASE 0x10010000ul
#define NR_REQUESTS 64
#define MAX_PIECE (1ul << 17)

enum { RNIC_READ = 1, RNIC_WRITE = 2, RNIC_DONE = 1 };

struct request { u32 opcode; volatile u32 status; u64 gpa, offset; u32 length, unused; };

extern char __image_start[], __image_end[];

static struct board board;
static struct request ring[NR_REQUESTS] __attribute__((aligned(64)));
static u64 state = 1, nr_requests;

static volatile u32 *reg(u64 offset)
{
	return (volatile u32 *)(RNIC_BASE + offset);
}

static u64 random_below(u64 n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

static u64 word_of(u64 i, u64 pass)
{
	u64 x = (i + 1) * 0x9e3779b97f4a7c15ul + pass * 0xbf58476d1ce4e5b9ul;

	return x ^ x >> 29;
}

static void wait_for(u64 n)
{
	while (ring[n].status == 0)
		__asm__ volatile("fence r, rw" ::: "memory");
	if (ring[n].status != RNIC_DONE)
		die("FAILED: request %lu: opcode %lu, %lx, offset %lx: status %lu", n, (u64)ring[n].opcode, ring[n].gpa, ring[n].offset, (u64)ring[n].status);
	__asm__ volatile("fence rw, rw" ::: "memory");
}

/* [start, start + length) in pieces, as many at once as the ring has room for. */
static void move(u32 opcode, u64 start, u64 length)
{
	u64 posted = 0, at = 0;

	for (; at < length; posted++) {
		u64 n = posted % NR_REQUESTS, piece = 1 + random_below(MAX_PIECE);

		if (posted >= NR_REQUESTS)
			wait_for(n);
		if (piece > length - at)
			piece = length - at;
		ring[n] = (struct request){ opcode, 0, start + at, at, (u32)piece, 0 };
		__asm__ volatile("fence rw, rw" ::: "memory");
		*reg(8) = n;
		at += piece;
	}
	for (u64 n = 0; n < NR_REQUESTS && n < posted; n++)
		wait_for(n);
	nr_requests += posted;
}

static u64 verify(const u64 *words, u64 nr, u64 pass)
{
	u64 checksum = 0;

	for (u64 i = 0; i < nr; i++) {
		if (words[i] != word_of(i, pass))
			die("FAILED: word %lu at %lx is %lx, and must be %lx", i, (u64)&words[i], words[i], word_of(i, pass));
		checksum = (checksum << 1 | checksum >> 63) ^ words[i];
	}
	return checksum;
}

/* The longest run of pages that nothing else has. */
static struct range free_run(void)
{
	struct range best = { 0, 0 };

	for (u64 p = board_skip_reserved(&board, board.memory.start), start = p; p + PAGE_SIZE <= board.memory.end;) {
		u64 next = board_skip_reserved(&board, p + PAGE_SIZE);

		if (p + PAGE_SIZE - start > best.end - best.start)
			best = (struct range){ start, p + PAGE_SIZE };
		if (next != p + PAGE_SIZE)
			start = next;
		p = next;
	}
	return best;
}

void main(u64 hart_id, const void *blob)
{
	u64 passes, mib, length, peer, checksum = 0;
	struct range run;

	(void)hart_id;
	sbi_init();
	fdt_read(blob, &board);
	board_reserve(&board, (u64)__image_start, (u64)__image_end);
	passes = arg_number(board.bootargs, "passes=", 2);
	state = arg_number(board.bootargs, "seed=", 1) * 0x9e3779b97f4a7c15ul | 1;
	mib = arg_number(board.bootargs, "mib=", 0);
	run = free_run();
	length = run.end - run.start;
	peer = *reg(0x10) | (u64)*reg(0x14) << 32;
	if (mib != 0 && mib * MIB < length)
		length = mib * MIB;
	if (peer < length)
		length = ALIGN_DOWN(peer, PAGE_SIZE);
	*reg(0) = (u32)(u64)ring;
	*reg(4) = (u32)((u64)ring >> 32);
	say("%lu MiB at %lx, a peer of %lu MiB", length / MIB, run.start, peer / MIB);
	for (u64 pass = 1; pass <= passes; pass++) {
		u64 *words = (u64 *)run.start, nr = length / sizeof(u64);

		for (u64 i = 0; i < nr; i++)
			words[i] = word_of(i, pass);
		move(RNIC_WRITE, run.start, length);
		for (u64 i = 0; i < nr; i++)
			words[i] = ~0ul;
		move(RNIC_READ, run.start, length);
		checksum ^= verify(words, nr, pass);
		say("pass %lu of %lu", pass, passes);
	}
	say("%lu MiB written to a peer and read back %lu times: 0 errors, checksum %lx", length / MIB, passes, checksum);
	sbi_shutdown(SRST_REASON_NONE);
}

/* Nothing here traps. */
void trap_entry(void) __attribute__((aligned(4)));
void trap_entry(void)
{
	die("FAILED: trap %lx at %lx, %lx", READ_CSR(scause), READ_CSR(sepc), READ_CSR(stval));
}
