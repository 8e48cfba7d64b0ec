/* Printing by lines, with %s, %lu and %lx (which prints its 0x). Each line starts with the name of the guest. */
#ifndef MEMHOG_CONSOLE_H
#define MEMHOG_CONSOLE_H
#include "types.h"

/* Prints one line; the line end is added. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
/* Prints the line, then resets with the reason "system failure". */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

#endif
