#include "bench.h"
#include "console.h"
#include "platform.h"
#include "usercall.h"

static u64 began;

u64 bench_begin(void)
{
	began = READ_CSR(time);
	return 0;
}

u64 bench_end(u64 which, u64 operations)
{
	static const char names[][10] = { "hypercall", "syscall", "fault", "switch", "fork" };
	u64 ticks = READ_CSR(time) - began;

	if (which < sizeof(names) / sizeof(names[0]))
		say("bench %s %lu %lu", names[which], operations, ticks);
	return 0;
}

u64 bench_hypercalls(u64 operations)
{
	while (operations-- > 0)
		platform_null_call();
	return 0;
}
