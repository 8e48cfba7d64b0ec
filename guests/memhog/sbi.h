/* The supervisor binary interface: console, timer, power off. Falls back to the legacy calls where an extension is absent. */
#ifndef MEMHOG_SBI_H
#define MEMHOG_SBI_H
#include "types.h"

enum { SRST_REASON_NONE = 0, SRST_REASON_SYSTEM_FAILURE = 1 };

void sbi_init(void);
void sbi_console_write(const char *text, u64 length);
void sbi_set_timer(u64 deadline);
/* Never returns. A reason other than NONE tells the hypervisor that this guest has failed. */
__attribute__((noreturn)) void sbi_shutdown(u64 reason);

#endif
