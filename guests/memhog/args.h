/* The parameters this guest takes from its kernel command line: passes=, seed=, mib=, flip=. */
#ifndef MEMHOG_ARGS_H
#define MEMHOG_ARGS_H
#include "types.h"

/* The number after `name` (decimal, or hexadecimal after 0x) in the space-separated bootargs, or `fallback`. */
u64 arg_number(const char *bootargs, const char *name, u64 fallback);

#endif
