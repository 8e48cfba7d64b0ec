/* Where the console's lines go, and how a guest fails: what is below console.c, by SBI (outlet.c) or otherwise. */
#ifndef MEMHOG_OUTLET_H
#define MEMHOG_OUTLET_H
#include "types.h"

/* Returns when the text is out or safely kept. */
void outlet_write(const char *text, u64 length);
/* Turns interrupts off for good: the last line comes. */
void outlet_quiet(void);
/* Ends the guest as one that has failed. */
__attribute__((noreturn)) void outlet_fail(void);

#endif
