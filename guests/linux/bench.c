#include "bench.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

/* Ticks that the processors were busy since they started; -1 where /proc is not mounted. */
static long busy_ticks(void)
{
	unsigned long user, nice, system, idle, iowait, irq = 0, softirq = 0;
	FILE *file = fopen("/proc/stat", "r");
	int n;

	if (file == NULL)
		return -1;
	n = fscanf(file, "cpu %lu %lu %lu %lu %lu %lu %lu", &user, &nice, &system, &idle, &iowait, &irq, &softirq);
	fclose(file);
	return n < 5 ? -1 : (long)(user + nice + system + irq + softirq);
}

/*
 * Waits until nothing else runs, two minutes at most: after boot the kernel tests its ciphers in the background, for so long that it would be
 * most of what is measured, and longer the slower the machine.
 */
static void await_idle(void)
{
	enum { STEP_US = 500000, STEPS = 240, IDLE_TICKS = 3 };
	long before = busy_ticks();

	for (int step = 0; before >= 0 && step < STEPS; step++) {
		long now;

		usleep(STEP_US);
		now = busy_ticks();
		if (now - before < IDLE_TICKS)
			return;
		before = now;
	}
}

void bench_init(const char *name)
{
	program = name;
	counts_instructions = can_read_instret();
	setvbuf(stdout, NULL, _IOLBF, 0);
	await_idle();
}

void measure(const char *only, const char *name, uint64_t (*work)(void), uint64_t want)
{
	uint64_t count, value;
	double start;

	if (only != NULL && strcmp(only, name) != 0)
		return;
	printf("%s begins\n", name);
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
