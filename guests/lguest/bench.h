/* Operations counted by the guest's clock; each benchmark ends in a line `bench NAME OPERATIONS TICKS`, ticks of the time CSR. */
#ifndef FORKHOG_BENCH_H
#define FORKHOG_BENCH_H
#include "types.h"

u64 bench_begin(void);
/* `which` is of enum benchmark. */
u64 bench_end(u64 which, u64 operations);
u64 bench_hypercalls(u64 operations);

#endif
