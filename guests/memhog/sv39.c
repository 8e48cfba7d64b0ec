#include "sv39.h"
#include "console.h"
#include "pages.h"

#define SATP_MODE_SV39 (8ul << 60)
#define SATP_ASID_SHIFT 44
#define SATP_ASID_MASK 0xfffful

static u64 *entry_at(u64 table, u64 va, int level)
{
	return (u64 *)table + (va >> (PAGE_SHIFT + 9 * level) & 511);
}

/* The table below the entry, made when it is absent. */
static u64 next_table(u64 *entry)
{
	if (!(*entry & PTE_V))
		*entry = page_alloc() >> PAGE_SHIFT << PTE_PPN_SHIFT | PTE_V;
	return *entry >> PTE_PPN_SHIFT << PAGE_SHIFT;
}

u64 *pte_of(u64 root, u64 va)
{
	return entry_at(next_table(entry_at(next_table(entry_at(root, va, 2)), va, 1)), va, 0);
}

void map_page(u64 root, u64 va, u64 pa, u64 flags)
{
	*pte_of(root, va) = pa >> PAGE_SHIFT << PTE_PPN_SHIFT | flags | PTE_V;
}

u64 *megapage_pte_of(u64 root, u64 va)
{
	return entry_at(next_table(entry_at(root, va, 2)), va, 1);
}

void map_megapage(u64 root, u64 va, u64 pa, u64 flags)
{
	*megapage_pte_of(root, va) = pa >> PAGE_SHIFT << PTE_PPN_SHIFT | flags | PTE_V;
}

void satp_write(u64 root, u64 asid)
{
	WRITE_CSR(satp, SATP_MODE_SV39 | asid << SATP_ASID_SHIFT | root >> PAGE_SHIFT);
}

u64 nr_asids(void)
{
	u64 satp = READ_CSR(satp), asids;

	WRITE_CSR(satp, satp | SATP_ASID_MASK << SATP_ASID_SHIFT);
	asids = (READ_CSR(satp) >> SATP_ASID_SHIFT & SATP_ASID_MASK) + 1;
	WRITE_CSR(satp, satp);
	sfence_vma_all();
	return asids;
}
