/* Where traps come in: of whichever platform, with the frame (trap.h), and scause and stval as a hart has them. */
#ifndef FORKHOG_KERNEL_H
#define FORKHOG_KERNEL_H
#include "trap.h"

/* Returns the frame to go on with. */
struct trap_frame *handle_trap(struct trap_frame *frame, u64 cause, u64 tval);
u64 trap_ticks(void);

#endif
