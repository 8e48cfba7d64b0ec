/*
 * Works most of the free memory and verifies every word it wrote, with the same work as our bundled guest (../memhog/work.h).
 *
 * Use: memverify [--mib N | --percent P] [--seed S] [--passes P]. Without a size it takes 80 % of MemAvailable. The verdict
 * depends on size, seed and passes alone, so that two runs can be compared as text. Exit code 1 when a word was wrong.
 */
#include "work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct options { u64 mib, percent, seed, passes; };

static u64 mem_available_mib(void)
{
	FILE *meminfo = fopen("/proc/meminfo", "r");
	char line[128];
	u64 kib = 0;

	while (meminfo != NULL && fgets(line, sizeof(line), meminfo) != NULL)
		if (sscanf(line, "MemAvailable: %lu kB", &kib) == 1)
			break;
	if (meminfo != NULL)
		fclose(meminfo);
	return kib / 1024;
}

static void usage(void)
{
	fprintf(stderr, "use: memverify [--mib N | --percent P] [--seed S] [--passes P]\n");
	exit(2);
}

static u64 number(const char *text)
{
	char *end;
	u64 value = text != NULL ? strtoul(text, &end, 0) : 0;

	if (text == NULL || *text == 0 || *end != 0)
		usage();
	return value;
}

static struct options parse(char **argv)
{
	struct options o = { .percent = 80, .seed = 1, .passes = 2 };

	while (*++argv != NULL) {
		const char *name = *argv;
		u64 value = number(*++argv);

		if (strcmp(name, "--mib") == 0)
			o.mib = value;
		else if (strcmp(name, "--percent") == 0)
			o.percent = value;
		else if (strcmp(name, "--seed") == 0)
			o.seed = value;
		else if (strcmp(name, "--passes") == 0)
			o.passes = value;
		else
			usage();
	}
	if (o.mib == 0)
		o.mib = mem_available_mib() * o.percent / 100;
	if (o.mib == 0 || o.passes == 0)
		usage();
	return o;
}

static void check(const struct arena *arena)
{
	const struct tally *t = &arena->tally;

	if (t->errors == 0)
		return;
	printf("memverify: FAILED: %lu of %lu words wrong, the first at %#lx: read %#lx, wrote %#lx\n", t->errors, t->words,
	       t->bad_va, t->bad_read, t->bad_want);
	exit(1);
}

int main(int argc, char **argv)
{
	struct options o = parse(argv);
	u64 nr_pages = o.mib * MIB / PAGE_SIZE;
	u64 length = (nr_pages + 1) * PAGE_SIZE + nr_pages * sizeof(struct page_state);
	void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct arena arena;

	(void)argc;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (memory == MAP_FAILED) {
		perror("memverify: mmap");
		return 1;
	}
	arena_init(&arena, (u64)memory, nr_pages, o.seed);
	for (u64 pass = 1; pass <= o.passes; pass++) {
		work_pass(&arena, pass);
		check(&arena);
		printf("memverify: %lu pages, pass %lu/%lu ok\n", nr_pages, pass, o.passes);
	}
	arena_verify(&arena, SEQUENTIAL);
	check(&arena);
	printf("memverify: %lu MiB in %lu pages: verified %lu words, 0 errors, checksum %#lx\n", o.mib, nr_pages,
	       arena.tally.words, arena.tally.checksum);
	return 0;
}
