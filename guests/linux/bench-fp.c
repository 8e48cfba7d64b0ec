/* Floating point: product of matrices of doubles, an n-body system. Use: bench-fp [NAME]. Results are exact to the last bit. */
#include "bench.h"

#include <math.h>
#include <string.h>

enum { MATRIX = 320, BODIES = 5, STEPS = 200000 };

static uint64_t bits_of(double value)
{
	uint64_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

static uint64_t double_matmul(void)
{
	static double a[MATRIX][MATRIX], b[MATRIX][MATRIX];
	uint64_t random = 5;
	double sum = 0;

	for (int i = 0; i < MATRIX; i++)
		for (int j = 0; j < MATRIX; j++) {
			a[i][j] = (double)next_random(&random) / 4294967296.0 - 0.5;
			b[i][j] = (double)next_random(&random) / 4294967296.0 - 0.5;
		}
	for (int i = 0; i < MATRIX; i++)
		for (int j = 0; j < MATRIX; j++) {
			double dot = 0;

			for (int k = 0; k < MATRIX; k++)
				dot += a[i][k] * b[k][j];
			sum += dot * (i - j);
		}
	return bits_of(sum);
}

struct body { double at[3], speed[3], mass; };

static void attract(struct body *a, struct body *b, double dt)
{
	double d[3], square = 0, pull;

	for (int i = 0; i < 3; i++) {
		d[i] = a->at[i] - b->at[i];
		square += d[i] * d[i];
	}
	pull = dt / (square * sqrt(square));
	for (int i = 0; i < 3; i++) {
		a->speed[i] -= d[i] * b->mass * pull;
		b->speed[i] += d[i] * a->mass * pull;
	}
}

/* A star and four planets on rings of growing radius, each a little out of the plane. */
static void make_system(struct body *body)
{
	memset(body, 0, BODIES * sizeof(*body));
	body[0].mass = 40;
	for (int i = 1; i < BODIES; i++) {
		double radius = 2.0 * i + 1, speed = sqrt(40 / radius);

		body[i].at[i % 2] = radius;
		body[i].at[2] = 0.125 * i;
		body[i].speed[(i + 1) % 2] = i % 2 ? speed : -speed;
		body[i].mass = 0.03125 * i;
	}
}

static uint64_t nbody(void)
{
	struct body body[BODIES];
	double sum = 0;

	make_system(body);
	for (int step = 0; step < STEPS; step++) {
		for (int i = 0; i < BODIES; i++)
			for (int j = i + 1; j < BODIES; j++)
				attract(&body[i], &body[j], 0.0009765625);
		for (int i = 0; i < BODIES; i++)
			for (int k = 0; k < 3; k++)
				body[i].at[k] += body[i].speed[k] * 0.0009765625;
	}
	for (int i = 0; i < BODIES; i++)
		for (int k = 0; k < 3; k++)
			sum += body[i].at[k] * (i + 1) + body[i].speed[k] * (k + 1);
	return bits_of(sum);
}

int main(int argc, char **argv)
{
	const char *only = argc > 1 ? argv[1] : NULL;

	bench_init("bench-fp");
	measure(only, "double-matmul", double_matmul, 0x40e98f8c9f765be9);
	measure(only, "nbody", nbody, 0xc034c970687c06f7);
	return bench_status();
}
