#include "sv39.h"
#include "console.h"
#include "pages.h"

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
