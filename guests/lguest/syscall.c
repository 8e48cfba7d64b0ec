#include "syscall.h"
#include "bench.h"
#include "console.h"
#include "platform.h"
#include "process.h"
#include "report.h"

struct legacy verified;

static u64 nr_pages;

void system_call_init(u64 pages, u64 passes)
{
	nr_pages = pages;
	report_init(passes);
}

static struct trap_frame *done(u64 result)
{
	current->frame.sepc += 4;
	current->frame.x[A0] = result;
	return &current->frame;
}

static struct trap_frame *sys_fork(void)
{
	struct process *child = process_fork();

	if (child == 0)
		return done(~0ul);
	child->frame.sepc += 4;
	child->frame.x[A0] = 0;
	return done(child->pid);
}

static struct trap_frame *sys_wait(struct legacy *legacy)
{
	struct legacy got;

	if (!process_reap(&got)) {
		process_wait(WAITS_FOR_CHILD);
		return process_next();
	}
	*legacy = got;
	return done(0);
}

static struct trap_frame *sys_pass(u64 pass, const struct legacy *legacy)
{
	verified = *legacy;
	report_pass("all processes", nr_pages, pass, &verified.tally);
	return done(0);
}

/* Where the disk has too much to do, the process makes its call again at its next turn. */
static struct trap_frame *sys_disk(int is_write, u64 block, u64 buffer)
{
	u64 pa = space_page(&current->space, buffer, !is_write);

	if (pa == 0 || block >= platform_disk_blocks())
		return done(0);
	if (platform_disk_move(current->pid, is_write, block, pa))
		process_wait(WAITS_FOR_DISK);
	return process_next();
}

static struct trap_frame *sys_yield(void)
{
	done(0);
	return process_next();
}

static struct trap_frame *sys_exit(const struct legacy *legacy)
{
	process_exit(legacy);
	return process_next();
}

static struct trap_frame *sys_drop(u64 va, u64 nr)
{
	space_drop(&current->space, va, nr);
	return done(0);
}

struct trap_frame *system_call(void)
{
	u64 *x = current->frame.x;

	switch (x[A7]) {
	case SYS_NOTHING: return done(0);
	case SYS_FORK: return sys_fork();
	case SYS_EXIT: return sys_exit((const struct legacy *)x[A0]);
	case SYS_WAIT: return sys_wait((struct legacy *)x[A0]);
	case SYS_YIELD: return sys_yield();
	case SYS_PASS: return sys_pass(x[A0], (const struct legacy *)x[A1]);
	case SYS_COUNT: return done(space_count(&current->space, x[A0], x[A1], x[A2]));
	case SYS_READ_BLOCK: return sys_disk(0, x[A0], x[A1]);
	case SYS_WRITE_BLOCK: return sys_disk(1, x[A0], x[A1]);
	case SYS_DROP: return sys_drop(x[A0], x[A1]);
	case SYS_BENCH_BEGIN: return done(bench_begin());
	case SYS_BENCH_END: return done(bench_end(x[A0], x[A1]));
	case SYS_BENCH_HYPERCALLS: return done(bench_hypercalls(x[A0]));
	default: die("FAILED: process %lu: system call %lu is none", current->pid, x[A7]);
	}
}
