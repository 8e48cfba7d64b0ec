#include "sbi.h"

enum {
	EXT_BASE = 0x10, EXT_TIME = 0x54494d45, EXT_SRST = 0x53525354, EXT_DBCN = 0x4442434e,
	LEGACY_SET_TIMER = 0, LEGACY_PUTCHAR = 1, LEGACY_SHUTDOWN = 8,
	BASE_PROBE_EXTENSION = 3,
};

static int has_time, has_srst, has_dbcn;

static int probe(u64 extension)
{
	struct sbi_result result = sbi_call(EXT_BASE, BASE_PROBE_EXTENSION, extension, 0, 0, 0, 0);

	return result.error == 0 && result.value != 0;
}

void sbi_init(void)
{
	has_time = probe(EXT_TIME);
	has_srst = probe(EXT_SRST);
	has_dbcn = probe(EXT_DBCN);
}

void sbi_console_write(const char *text, u64 physical, u64 length)
{
	/* A short write is carried on. */
	while (has_dbcn && length > 0) {
		struct sbi_result result = sbi_call(EXT_DBCN, 0, length, physical, 0, 0, 0);

		if (result.error != 0)
			has_dbcn = 0;
		else
			text += result.value, physical += result.value, length -= result.value;
	}
	while (length-- > 0)
		sbi_call(LEGACY_PUTCHAR, 0, (u8)*text++, 0, 0, 0, 0);
}

void sbi_set_timer(u64 deadline)
{
	sbi_call(has_time ? EXT_TIME : LEGACY_SET_TIMER, 0, deadline, 0, 0, 0, 0);
}

void sbi_shutdown(u64 reason)
{
	if (has_srst)
		sbi_call(EXT_SRST, 0, 0, reason, 0, 0, 0);
	sbi_call(LEGACY_SHUTDOWN, 0, 0, 0, 0, 0, 0);
	for (;;)
		__asm__ volatile("wfi");
}
