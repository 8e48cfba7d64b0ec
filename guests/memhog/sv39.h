/* Page tables of this guest: Sv39, three levels (RISC-V Privileged Architecture, "Sv39"). */
#ifndef MEMHOG_SV39_H
#define MEMHOG_SV39_H
#include "types.h"

#define PTE_V (1ul << 0)
#define PTE_R (1ul << 1)
#define PTE_W (1ul << 2)
#define PTE_X (1ul << 3)
#define PTE_U (1ul << 4)
#define PTE_G (1ul << 5)
#define PTE_A (1ul << 6)
#define PTE_D (1ul << 7)
#define PTE_PPN_SHIFT 10

#define MEGAPAGE_SIZE (2 * MIB)

/* The address of the leaf pte of a 4 KiB page, with the tables above it made where they were absent. */
u64 *pte_of(u64 root, u64 va);
/* The same of a megapage. */
u64 *megapage_pte_of(u64 root, u64 va);
void map_page(u64 root, u64 va, u64 pa, u64 flags);
void map_megapage(u64 root, u64 va, u64 pa, u64 flags);
void satp_write(u64 root, u64 asid);
/* How many address-space identifiers the hart has: 1 when the field is hardwired to 0. Needs satp to be in use. */
u64 nr_asids(void);

static inline void sfence_vma(u64 va) { __asm__ volatile("sfence.vma %0, zero" ::"r"(va) : "memory"); }
static inline void sfence_vma_all(void) { __asm__ volatile("sfence.vma" ::: "memory"); }

#endif
