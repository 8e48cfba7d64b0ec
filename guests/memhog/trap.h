/* what vector.S saves, and the causes this guest knows (RISC-V Privileged Architecture, scause). */
#ifndef MEMHOG_TRAP_H
#define MEMHOG_TRAP_H
#include "types.h"

/* vector.S knows the offsets. x[2] is sp; x[0] is not used. */
struct trap_frame { u64 x[32], sepc, sstatus; };

enum { A0 = 10, A1 = 11, A2 = 12, A3 = 13, A4 = 14, A5 = 15, A6 = 16, A7 = 17, SP = 2 };

#define CAUSE_INTERRUPT (1ul << 63)
#define CAUSE_SUPERVISOR_TIMER (CAUSE_INTERRUPT | 5)
enum { CAUSE_USER_ECALL = 8, CAUSE_LOAD_PAGE_FAULT = 13, CAUSE_STORE_PAGE_FAULT = 15 };

/* In vector.S. */
void trap_entry(void);
__attribute__((noreturn)) void trap_return(struct trap_frame *frame);

#endif
