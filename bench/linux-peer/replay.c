/*
 * The real Linux, for bench/policy: replays a trace of page references, and counts the major faults.
 *
 * Reads lines from stdin: `load PATH PAGES` reads a file of int32 (page * 2 + written), before the process is moved to the cgroup that limits
 * its memory, so that the trace is not charged to it; `run` touches the pages in order and answers `FAULTS`. Huge pages are off.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096UL

static int32_t *refs;
static long nr_refs, nr_pages;

static void load(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st) < 0) {
		perror(path);
		exit(1);
	}
	free(refs);
	refs = malloc(st.st_size);
	nr_refs = st.st_size / 4;
	for (long done = 0; done < st.st_size;)
		done += read(fd, (char *)refs + done, st.st_size - done);
	close(fd);
}

static long run(void)
{
	struct rusage before, after;
	char *va = mmap(NULL, nr_pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	long sum = 0;
	getrusage(RUSAGE_SELF, &before);
	for (long k = 0; k < nr_refs; k++) {
		volatile long *page = (volatile long *)(va + (refs[k] >> 1) * PAGE);
		if (refs[k] & 1)
			*page = *page + k + 1;
		else
			sum += *page;
	}
	getrusage(RUSAGE_SELF, &after);
	munmap(va, nr_pages * PAGE);
	return after.ru_majflt - before.ru_majflt + (sum == 1);
}

int main(void)
{
	char command[16], path[400];
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	while (scanf("%15s", command) == 1) {
		if (strcmp(command, "load") == 0 && scanf("%399s %ld", path, &nr_pages) == 2) {
			load(path);
			printf("%ld\n", nr_refs);
		} else
			printf("%ld\n", run());
		fflush(stdout);
	}
	return 0;
}
