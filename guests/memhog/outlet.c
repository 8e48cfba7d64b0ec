#include "outlet.h"
#include "sbi.h"

/* The kernel is mapped where it lies, so an address is a physical address. */
void outlet_write(const char *text, u64 length)
{
	sbi_console_write(text, (u64)text, length);
}

void outlet_quiet(void)
{
	CLEAR_CSR(sstatus, SSTATUS_SIE);
}

void outlet_fail(void)
{
	sbi_shutdown(SRST_REASON_SYSTEM_FAILURE);
}
