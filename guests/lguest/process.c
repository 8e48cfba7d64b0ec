#include "process.h"
#include "console.h"
#include "frames.h"
#include "layout.h"
#include "platform.h"

extern char __shared_start[], __shared_end[];

static struct process processes[NR_PROCESSES];
static u64 next_pid = 1;
static void (*when_done)(void);

struct process *current;
u64 process_switches;

static struct process *find_unused(void)
{
	for (struct process *p = processes; p < processes + NR_PROCESSES; p++)
		if (p->state == UNUSED)
			return p;
	return 0;
}

static void map_program(struct space *space)
{
	u64 text = (u64)__shared_start;

	for (u64 at = text; at < (u64)__shared_end; at += PAGE_SIZE)
		space_map_text(space, USER_TEXT + at - text, pa_of((void *)at));
}

void process_run_first(const u64 args[7], void (*finish)(void))
{
	struct process *p = find_unused();

	when_done = finish;
	space_create(&p->space);
	map_program(&p->space);
	p->frame.sepc = USER_TEXT + (u64)user_start - (u64)__shared_start;
	p->frame.sstatus = platform_user_status();
	p->frame.x[SP] = USER_STACK + USER_STACK_PAGES * PAGE_SIZE;
	for (u64 i = 0; i < 7; i++)
		p->frame.x[A0 + i] = args[i];
	p->state = RUNNABLE;
	p->pid = next_pid++;
	trap_return(process_resume(p));
}

struct trap_frame *process_resume(struct process *process)
{
	if (process != current) {
		process_switches++;
		current = process;
		space_use(&process->space);
	}
	return &process->frame;
}

struct trap_frame *process_next(void)
{
	u64 at = current - processes;

	for (;;) {
		for (u64 i = 1; i <= NR_PROCESSES; i++) {
			struct process *p = &processes[(at + i) % NR_PROCESSES];

			if (p->state == RUNNABLE)
				return process_resume(p);
		}
		platform_idle();
	}
}

struct process *process_fork(void)
{
	struct process *child = find_unused();

	if (child == 0)
		return 0;
	space_fork(&current->space, &child->space);
	child->frame = current->frame;
	child->parent = current;
	child->pid = next_pid++;
	child->state = RUNNABLE;
	return child;
}

/* What it leaves is in its memory, so that is read first; its space goes when another one is in use. */
void process_exit(const struct legacy *legacy)
{
	struct process *ended = current;

	ended->legacy = *legacy;
	space_use_kernel();
	space_destroy(&ended->space);
	ended->state = ended->parent ? ZOMBIE : UNUSED;
	if (ended->parent == 0)
		when_done();
	if (ended->parent->state == WAITS_FOR_CHILD)
		ended->parent->state = RUNNABLE;
}

int process_reap(struct legacy *legacy)
{
	for (struct process *p = processes; p < processes + NR_PROCESSES; p++) {
		if (p->state != ZOMBIE || p->parent != current)
			continue;
		*legacy = p->legacy;
		p->state = UNUSED;
		return 1;
	}
	return 0;
}

void process_wait(enum process_state state)
{
	current->state = state;
}

void process_disk_done(u64 pid, u64 result)
{
	for (struct process *p = processes; p < processes + NR_PROCESSES; p++) {
		if (p->state != WAITS_FOR_DISK || p->pid != pid)
			continue;
		p->frame.x[A0] = result;
		p->frame.sepc += 4;
		p->state = RUNNABLE;
		return;
	}
	die("FAILED: the disk is done for process %lu, which does not wait", pid);
}
