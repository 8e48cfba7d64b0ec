/* The supervisor binary interface: console, timer, power off. Falls back to the legacy calls where an extension is absent. */
#ifndef MEMHOG_SBI_H
#define MEMHOG_SBI_H
#include "types.h"

enum { SRST_REASON_NONE = 0, SRST_REASON_SYSTEM_FAILURE = 1 };

struct sbi_result { long error; u64 value; };

static inline struct sbi_result sbi_call(u64 extension, u64 function, u64 arg0, u64 arg1, u64 arg2, u64 arg3, u64 arg4)
{
	register u64 a0 __asm__("a0") = arg0;
	register u64 a1 __asm__("a1") = arg1;
	register u64 a2 __asm__("a2") = arg2;
	register u64 a3 __asm__("a3") = arg3;
	register u64 a4 __asm__("a4") = arg4;
	register u64 a6 __asm__("a6") = function;
	register u64 a7 __asm__("a7") = extension;

	__asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a2), "r"(a3), "r"(a4), "r"(a6), "r"(a7) : "memory");
	return (struct sbi_result){ (long)a0, a1 };
}

void sbi_init(void);
/* `physical` is the address of `text` as who is below knows it. */
void sbi_console_write(const char *text, u64 physical, u64 length);
void sbi_set_timer(u64 deadline);
/* Never returns. A reason other than NONE tells the hypervisor that this guest has failed. */
__attribute__((noreturn)) void sbi_shutdown(u64 reason);

#endif
