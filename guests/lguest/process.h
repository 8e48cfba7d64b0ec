/*
 * Processes in U-mode, which fork, wait for their children, and take turns at each tick. The kernel runs on one stack and is not interrupted: a process
 * that has to wait is left at its ecall, which it makes again when it is woken.
 */
#ifndef FORKHOG_PROCESS_H
#define FORKHOG_PROCESS_H
#include "space.h"
#include "trap.h"
#include "usercall.h"

/* The first process and its children. */
#define NR_PROCESSES 16

enum process_state { UNUSED, RUNNABLE, WAITS_FOR_CHILD, WAITS_FOR_DISK, ZOMBIE };

struct process {
	struct trap_frame frame;
	struct space space;
	enum process_state state;
	u64 pid;
	struct process *parent;
	/* What it left for its parent. */
	struct legacy legacy;
};

extern struct process *current;

/* Runs the first process, with `args` in a0 to a6, until it has exited; then `finish` is called, which does not return. */
__attribute__((noreturn)) void process_run_first(const u64 args[7], void (*finish)(void));

/* What a trap ends with: the frame to go on with, in its address space. */
struct trap_frame *process_resume(struct process *process);
/* The next one's turn. Waits for an interrupt where all wait. */
struct trap_frame *process_next(void);

/* A child of the current one; 0 where there is no room for it. */
struct process *process_fork(void);
/* The current one's end; its children must have ended. */
void process_exit(const struct legacy *legacy);
/* A zombie child of the current one is taken away: whether there was one. */
int process_reap(struct legacy *legacy);
/* The current one waits: its ecall will be made again. */
void process_wait(enum process_state state);
/* What a process waits for has come: its ecall is done, with this result. */
void process_disk_done(u64 pid, u64 result);

extern u64 process_switches;

#endif
