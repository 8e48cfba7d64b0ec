/*
 * Memory and the kernel's paths around it: sums, a pointer chase, page faults, processes, context switches.
 * Use: bench-mem [NAME]. It calls itself as `bench-mem --exit` for fork-exec.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (32ul << 20)
enum { SUM_ROUNDS = 8, CHASE_STEPS = 1000000, FAULT_PAGES = 4096, FAULT_ROUNDS = 4, FORKS = 200, PINGS = 20000, PAGE = 4096 };

static void *map_anonymous(size_t length)
{
	void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED) {
		perror("bench-mem: mmap");
		exit(1);
	}
	return at;
}

static uint64_t *filled;

/* Makes and fills the array before the clock runs. */
static void fill(void)
{
	filled = map_anonymous(SIZE);
	for (uint64_t i = 0; i < SIZE / 8; i++)
		filled[i] = i * 0x9e3779b97f4a7c15;
}

static uint64_t sum(void)
{
	uint64_t total = 0;

	for (int round = 0; round < SUM_ROUNDS; round++)
		for (uint64_t i = 0; i < SIZE / 8; i++)
			total += filled[i];
	return total;
}

/* One cycle through all cache lines: line i leads to i * a + c modulo their number, a full period. */
static void link_lines(void)
{
	for (uint64_t line = 0; line < SIZE / 64; line++)
		filled[line * 8] = (line * 1664525 + 1013904223) % (SIZE / 64) * 8;
}

static uint64_t chase(void)
{
	uint64_t at = 0;

	for (int step = 0; step < CHASE_STEPS; step++)
		at = filled[at];
	return at;
}

/* By rounds, so that a guest of 128 MiB has room for it. */
static uint64_t page_faults(void)
{
	const size_t length = (size_t)FAULT_PAGES * PAGE;
	uint64_t touched = 0;

	for (int round = 0; round < FAULT_ROUNDS; round++) {
		char *pages = map_anonymous(length);

		madvise(pages, length, MADV_NOHUGEPAGE);
		for (size_t at = 0; at < length; at += PAGE) {
			pages[at] = 1;
			touched += pages[at];
		}
		munmap(pages, length);
	}
	return touched;
}

static uint64_t fork_exec(void)
{
	uint64_t done = 0;

	for (int i = 0; i < FORKS; i++) {
		int status = -1;
		pid_t child = fork();

		if (child == 0) {
			execl("/proc/self/exe", "bench-mem", "--exit", (char *)NULL);
			_exit(1);
		}
		waitpid(child, &status, 0);
		done += status == 0;
	}
	return done;
}

static uint64_t echo(int from, int to)
{
	char byte;
	uint64_t n = 0;

	while (read(from, &byte, 1) == 1 && write(to, &byte, 1) == 1)
		n++;
	return n;
}

static uint64_t pipe_ping_pong(void)
{
	int there[2], back[2];
	uint64_t done = 0;
	char byte = 'p';

	if (pipe(there) || pipe(back)) {
		perror("bench-mem: pipe");
		return 0;
	}
	if (fork() == 0) {
		close(there[1]);
		echo(there[0], back[1]);
		_exit(0);
	}
	for (int i = 0; i < PINGS; i++)
		done += write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1;
	close(there[1]);
	wait(NULL);
	return done;
}

int main(int argc, char **argv)
{
	const char *only = argc > 1 ? argv[1] : NULL;

	if (only != NULL && strcmp(only, "--exit") == 0)
		return 0;
	bench_init("bench-mem");
	fill();
	measure(only, "sum-32m", sum, 0xe585f583eb000000);
	link_lines();
	measure(only, "chase-32m", chase, 0x229a00);
	munmap(filled, SIZE);
	measure(only, "page-faults", page_faults, FAULT_PAGES * FAULT_ROUNDS);
	measure(only, "fork-exec", fork_exec, FORKS);
	measure(only, "pipe-ping-pong", pipe_ping_pong, PINGS);
	return bench_status();
}
