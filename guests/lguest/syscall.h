/* The system calls of usercall.h. */
#ifndef FORKHOG_SYSCALL_H
#define FORKHOG_SYSCALL_H
#include "trap.h"
#include "usercall.h"

/* Serves the current process's ecall; the frame to go on with. */
struct trap_frame *system_call(void);

/* What the processes have verified up to the last SYS_PASS. */
extern struct legacy verified;
/* SYS_PASS says "pass 1/2"; SYS_BENCH_END counts in ticks of the time CSR. */
void system_call_init(u64 nr_pages, u64 passes);

#endif
