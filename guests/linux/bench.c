#include "bench.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *program;
static double total;
static int wrong, counts_instructions;
static sigjmp_buf no_instret;

static double seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static uint64_t instret(void)
{
	uint64_t count = 0;

#ifdef __riscv
	__asm__ volatile("rdinstret %0" : "=r"(count));
#endif
	return count;
}

static void on_sigill(int signal)
{
	(void)signal;
	siglongjmp(no_instret, 1);
}

/* The kernel may keep instret from user programs (scounteren); reading it is then an illegal instruction. */
static int can_read_instret(void)
{
	struct sigaction old, trial = { .sa_handler = on_sigill };
	int readable = 0;

	sigaction(SIGILL, &trial, &old);
	if (sigsetjmp(no_instret, 1) == 0)
		readable = instret() != 0;
	sigaction(SIGILL, &old, NULL);
	return readable;
}

void bench_init(const char *name)
{
	program = name;
	counts_instructions = can_read_instret();
	setvbuf(stdout, NULL, _IOLBF, 0);
}

void measure(const char *only, const char *name, uint64_t (*work)(void), uint64_t want)
{
	uint64_t count, value;
	double start;

	if (only != NULL && strcmp(only, name) != 0)
		return;
	count = counts_instructions ? instret() : 0;
	start = seconds_now();
	value = work();
	start = seconds_now() - start;
	total += start;
	printf("%s %.3f s", name, start);
	if (counts_instructions)
		printf(" %llu instructions", (unsigned long long)(instret() - count));
	if (value != want) {
		wrong = 1;
		printf(" WRONG: result 0x%llx, must be 0x%llx", (unsigned long long)value, (unsigned long long)want);
	}
	printf("\n");
}

int bench_status(void)
{
	printf("%s-total %.3f s%s\n", program, total, wrong ? " WRONG" : "");
	return wrong;
}
