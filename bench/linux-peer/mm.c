/*
 * The real Linux, for bench/mm: one operation a command, timed here, so that neither pipe nor start of a process counts.
 *
 * Reads lines `OPERATION PAGES` from stdin and answers `NANOSECONDS` for all the pages together: CPU time of the calling thread
 * (of the process for userfaultfd, which has a second one), or elapsed time where a disk is waited for. What cannot be done here is
 * answered with `absent REASON`. Huge pages are off for the process.
 *
 * Built by the benchmark: cc -O2 -pthread mm.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define LEAF (512 * PAGE)

static char reason[200];

static double now(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static double cpu(void)
{
	return now(CLOCK_THREAD_CPUTIME_ID);
}

static double absent(const char *what)
{
	snprintf(reason, sizeof reason, "%s: %s", what, strerror(errno));
	return -1;
}

/* Aligned to a leaf table, `spare` pages longer than asked. */
static char *map(long nr, long spare)
{
	size_t len = (nr + spare) * PAGE + 2 * LEAF;
	char *all = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (all == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	char *va = (char *)(((uintptr_t)all + LEAF - 1) & ~(LEAF - 1));
	if (va > all)
		munmap(all, va - all);
	char *end = va + (nr + spare) * PAGE;
	munmap(end, all + len - end);
	return va;
}

static void touch(char *va, long nr)
{
	for (long p = 0; p < nr; p++)
		*(volatile char *)(va + p * PAGE) = 1;
}

static char *touched(long nr)
{
	char *va = map(nr, 0);
	touch(va, nr);
	return va;
}

static double write_fault(long nr)
{
	char *va = map(nr, 0);
	double t = cpu();
	touch(va, nr);
	t = cpu() - t;
	munmap(va, nr * PAGE);
	return t;
}

static double unmap(long nr)
{
	char *va = touched(nr);
	double t = cpu();
	munmap(va, nr * PAGE);
	return cpu() - t;
}

static double dontneed(long nr, long step)
{
	char *va = touched(nr);
	double t = cpu();
	for (long p = 0; p < nr; p += step)
		madvise(va + p * PAGE, step * PAGE, MADV_DONTNEED);
	t = cpu() - t;
	munmap(va, nr * PAGE);
	return t;
}

static double dontneed_range(long nr)
{
	return dontneed(nr, nr);
}

static double dontneed_each(long nr)
{
	return dontneed(nr, 1);
}

/* Both directions: the second gives the right back, as a write barrier of a garbage collector does. */
static double protect(long nr)
{
	char *va = touched(nr);
	double t = cpu();
	mprotect(va, nr * PAGE, PROT_READ);
	mprotect(va, nr * PAGE, PROT_READ | PROT_WRITE);
	t = cpu() - t;
	munmap(va, nr * PAGE);
	return t / 2;
}

/* A child that does nothing until it is killed; `t` gets the CPU time of fork alone. */
static pid_t idle_child(double *t)
{
	double start = cpu();
	pid_t child = fork();
	if (child == 0) {
		for (;;)
			pause();
	}
	*t = cpu() - start;
	return child;
}

static void reap(pid_t child)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static double fork_mapped(long nr)
{
	double t;
	char *va = touched(nr);
	pid_t child = idle_child(&t);
	reap(child);
	munmap(va, nr * PAGE);
	return t;
}

static double cow_break(long nr)
{
	double t;
	char *va = touched(nr);
	pid_t child = idle_child(&t);
	t = cpu();
	touch(va, nr);
	t = cpu() - t;
	reap(child);
	munmap(va, nr * PAGE);
	return t;
}

/* `skew` pages off the alignment of leaf tables: then each pte moves by itself. */
static double move(long nr, long skew)
{
	char *va = touched(nr);
	char *to = map(nr, 1) + skew * PAGE;
	double t = cpu();
	void *moved = mremap(va, nr * PAGE, nr * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	t = cpu() - t;
	if (moved == MAP_FAILED)
		return absent("mremap");
	munmap(to - skew * PAGE, (nr + 1) * PAGE);
	return t;
}

static double mremap_ptes(long nr)
{
	return move(nr, 1);
}

static double mremap_tables(long nr)
{
	return move(nr, 0);
}

/* Serves each missing page with a copy of `source`, on the same core as the thread that faults. */
struct pager {
	int uffd;
	char *source;
	long nr;
};

static void *serve(void *arg)
{
	struct pager *pager = arg;
	struct uffd_msg msg;
	for (long served = 0; served < pager->nr;) {
		if (read(pager->uffd, &msg, sizeof msg) != sizeof msg || msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		struct uffdio_copy copy = {
			.dst = msg.arg.pagefault.address & ~(PAGE - 1),
			.src = (uintptr_t)pager->source,
			.len = PAGE,
		};
		ioctl(pager->uffd, UFFDIO_COPY, &copy);
		served++;
	}
	return NULL;
}

static double missing_copy(long nr)
{
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = { .api = UFFD_API };
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0)
		return absent("userfaultfd");
	char *va = map(nr, 0);
	struct pager pager = { uffd, touched(1), nr };
	struct uffdio_register area = { { (uintptr_t)va, nr * PAGE }, UFFDIO_REGISTER_MODE_MISSING, 0 };
	if (ioctl(uffd, UFFDIO_REGISTER, &area) < 0)
		return absent("UFFDIO_REGISTER");
	pthread_t thread;
	double t = now(CLOCK_PROCESS_CPUTIME_ID);
	pthread_create(&thread, NULL, serve, &pager);
	touch(va, nr);
	pthread_join(thread, NULL);
	t = now(CLOCK_PROCESS_CPUTIME_ID) - t;
	close(uffd);
	munmap(va, nr * PAGE);
	munmap(pager.source, PAGE);
	return t;
}

static long swapped_pages(void)
{
	char line[200];
	long kib = -1;
	FILE *f = fopen("/proc/self/status", "r");
	while (fgets(line, sizeof line, f))
		sscanf(line, "VmSwap: %ld", &kib);
	fclose(f);
	return kib / 4;
}

static int write_file(const char *folder, const char *name, const char *text)
{
	char path[400];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	int fd = open(path, O_WRONLY);
	int ok = fd >= 0 && write(fd, text, strlen(text)) > 0;
	if (fd >= 0)
		close(fd);
	return ok;
}

/* What was written stays in the swap cache until somebody wants its memory: here the process's cgroup, for a moment. */
static int drop_swap_cache(const char *cgroup)
{
	for (int i = 0; i < 20; i++) {
		if (write_file(cgroup, "memory.limit_in_bytes", "4M"))
			return write_file(cgroup, "memory.limit_in_bytes", "-1");
		if (write_file(cgroup, "memory.reclaim", "4G") || errno == EAGAIN)
			return 1;
		usleep(50000);
	}
	return 0;
}

/* Contents that do not compress, all out on the disk, then read in order. */
static double swap_in(long nr)
{
	char *va = map(nr, 0);
	for (long k = 0; k < nr * (long)PAGE / 8; k++)
		((uint64_t *)va)[k] = k * 0x9e3779b97f4a7c15UL;
	for (int i = 0; i < 50 && swapped_pages() < nr; i++) {
		madvise(va, nr * PAGE, MADV_PAGEOUT);
		usleep(20000);
	}
	if (swapped_pages() < nr * 99 / 100) {
		snprintf(reason, sizeof reason, "only %ld of %ld pages could be swapped out", swapped_pages(), nr);
		return -1;
	}
	if (!getenv("UNPIN_CGROUP") || !drop_swap_cache(getenv("UNPIN_CGROUP")))
		return absent("no memory cgroup to empty the swap cache with");
	struct rusage before, after;
	getrusage(RUSAGE_SELF, &before);
	double t = now(CLOCK_MONOTONIC);
	long sum = 0;
	for (long p = 0; p < nr; p++)
		sum += *(volatile char *)(va + p * PAGE);
	t = now(CLOCK_MONOTONIC) - t;
	getrusage(RUSAGE_SELF, &after);
	munmap(va, nr * PAGE);
	if (after.ru_majflt - before.ru_majflt < nr / 64) {
		snprintf(reason, sizeof reason, "only %ld major faults: the pages did not come from the disk", after.ru_majflt - before.ru_majflt);
		return -1;
	}
	return t + (sum == 1);
}

static const struct {
	const char *name;
	double (*run)(long nr);
} operations[] = {
	{ "write-fault", write_fault },	      { "munmap", unmap },	    { "dontneed-range", dontneed_range },
	{ "dontneed-each", dontneed_each },   { "mprotect", protect },	    { "fork", fork_mapped },
	{ "cow-break", cow_break },	      { "mremap-ptes", mremap_ptes }, { "mremap-tables", mremap_tables },
	{ "missing-copy", missing_copy },     { "swap-in", swap_in },
};

int main(void)
{
	char name[64];
	long nr;
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	while (scanf("%63s %ld", name, &nr) == 2) {
		double ns = -1;
		snprintf(reason, sizeof reason, "no operation %s", name);
		for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
			if (strcmp(name, operations[i].name) == 0)
				ns = operations[i].run(nr);
		if (ns < 0)
			printf("absent %s\n", reason);
		else
			printf("%.0f\n", ns);
		fflush(stdout);
	}
	return 0;
}
