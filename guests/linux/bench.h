/*
 * What the benchmark programs share. bench_init() waits until the machine is idle. Each work is a function that returns a check value;
 * measure() prints a line before it runs it, and one after:
 *
 *     matmul begins
 *     matmul 0.412 s 241000000 instructions
 *
 * (the count only where user programs may read instret) and remembers a wrong value. main returns bench_status().
 */
#ifndef GUESTS_BENCH_H
#define GUESTS_BENCH_H

#include <stdint.h>

void bench_init(const char *program);
/* Runs `work` when `only` is NULL or its name; `want` is the value it must return. */
void measure(const char *only, const char *name, uint64_t (*work)(void), uint64_t want);
/* Prints `bench-int-total 1.970 s`, the sum of what ran; 0 when every check value was right, else 1. */
int bench_status(void);

/* A step of a 64-bit linear congruential generator; the high bits are the good ones. */
static inline uint64_t next_random(uint64_t *state)
{
	*state = *state * 0x5851f42d4c957f2d + 0x14057b7ef767814f;
	return *state >> 32;
}

#endif
