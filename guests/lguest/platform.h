/*
 * What this kernel asks of what it runs on, and no more (Linux: paravirt_ops). There are two: lguest.c, where the kernel has no privilege and asks a host
 * by hypercalls, and native.c, where it has a hart, or a hypervisor that makes it believe so. All else is one source for both.
 */
#ifndef FORKHOG_PLATFORM_H
#define FORKHOG_PLATFORM_H
#include "fdt.h"
#include "trap.h"

/* First of all, before paging, where addresses are physical. */
void platform_boot(void);
/* The end of what the kernel maps: RAM, and what the platform has above it. */
u64 platform_memory_end(const struct board *board);
/* In the kernel's half: traps, devices, the tick. */
void platform_start(const struct board *board);

/* Page tables. An entry is written by these alone, so that whoever keeps another copy of it hears of it. `root` is a physical address. */
void platform_use_root(u64 root);
void platform_set_pgd(u64 root, u64 va, u64 *entry, u64 value);
void platform_set_pmd(u64 root, u64 va, u64 *entry, u64 value);
void platform_set_pte(u64 root, u64 va, u64 *entry, u64 value);
/* Entries of the present root below the kernel's half were written without a call each. */
void platform_flush_user(void);
/* When it returns, all of the above is in force. It is, too, before a process runs. */
void platform_sync(void);

/* Serves an interrupt; whether it was the tick. */
int platform_interrupt(u64 cause);
/* Returns when an interrupt was served. Called with interrupts off, as all of the kernel runs. */
void platform_idle(void);
__attribute__((noreturn)) void platform_off(void);
/* What a process's sstatus begins with: U-mode, interrupts on. */
u64 platform_user_status(void);
/* The cheapest call of whoever is below; for the benchmark. */
void platform_null_call(void);

/* The disk, in blocks of a page: how many there are; 0 without one. */
u64 platform_disk_blocks(void);
/* Begins to move a block from or to the page at `pa`; process_disk_done(who, ok) is called when it is done. 0 when too many are under way. */
int platform_disk_move(u64 who, int is_write, u64 block, u64 pa);

#endif
