#include "hoard.h"
#include "console.h"
#include "layout.h"
#include "pages.h"
#include "report.h"
#include "sv39.h"

static struct arena arena;
static u64 root;

static u64 *pte_at(u64 index)
{
	return pte_of(root, (u64)(arena.pages + index * WORDS_PER_PAGE));
}

void hoard_init(u64 kernel_root, u64 nr_pages, u64 seed)
{
	u64 total = nr_pages + ALIGN_UP(nr_pages * sizeof(struct page_state), PAGE_SIZE) / PAGE_SIZE;

	root = kernel_root;
	for (u64 i = 0; i < total; i++)
		map_page(root, HOARD + i * PAGE_SIZE, page_alloc(), PTE_R | PTE_W);
	sfence_vma_all();
	arena_init(&arena, HOARD, nr_pages, seed);
}

/* Swaps the mappings of pairs of pages: whoever caches translations must notice both. */
static void swap_mappings(u64 nr_pairs)
{
	while (nr_pairs-- > 0) {
		u64 a = arena_random(&arena, arena.nr_pages), b = arena_random(&arena, arena.nr_pages);
		u64 *pte_a = pte_at(a), *pte_b = pte_at(b), pte = *pte_a & ~(PTE_A | PTE_D);
		struct page_state state = arena.state[a];

		*pte_a = *pte_b & ~(PTE_A | PTE_D);
		*pte_b = pte;
		arena.state[a] = arena.state[b];
		arena.state[b] = state;
		sfence_vma((u64)(arena.pages + a * WORDS_PER_PAGE));
		sfence_vma((u64)(arena.pages + b * WORDS_PER_PAGE));
	}
}

static void clear_accessed_dirty(void)
{
	for (u64 i = 0; i < arena.nr_pages; i++)
		*pte_at(i) &= ~(PTE_A | PTE_D);
	sfence_vma_all();
}

/* Dies unless the accessed and dirty bits of every page are exactly `want`. */
static void check_accessed_dirty(u64 want, const char *when)
{
	for (u64 i = 0; i < arena.nr_pages; i++) {
		u64 pte = *(volatile u64 *)pte_at(i);

		if ((pte & (PTE_A | PTE_D)) != want)
			die("FAILED: page %lu's pte is %lx %s; its A and D bits should be %lx", i, pte, when, want);
	}
}

void hoard_pass(u64 pass)
{
	if (pass > 1) {
		swap_mappings(arena.nr_pages / 16);
		arena_verify(&arena, SEQUENTIAL);
	}
	work_pass(&arena, pass);
	check_accessed_dirty(PTE_A | PTE_D, "after it was written");
	report_pass("kernel", arena.nr_pages, pass, &arena.tally);
}

void hoard_flip(u64 index)
{
	if (index >= arena.nr_pages)
		die("flip= must be below %lu, the kernel's number of pages", arena.nr_pages);
	arena.pages[index * WORDS_PER_PAGE + 77] ^= 1ul << 42;
}

const struct tally *hoard_finish(void)
{
	clear_accessed_dirty();
	arena_verify(&arena, SCATTERED);
	check_tally("kernel, at the end", &arena.tally);
	check_accessed_dirty(PTE_A, "after it was only read");
	return &arena.tally;
}

int hoard_fault(u64 va, int is_store)
{
	u64 end = (u64)(arena.pages + arena.nr_pages * WORDS_PER_PAGE), bits = PTE_A | (is_store ? PTE_D : 0), *pte;

	if (va < HOARD || va >= end)
		return 0;
	pte = pte_of(root, va);
	if (!(*pte & PTE_V) || (*pte & bits) == bits)
		return 0;
	*pte |= bits;
	sfence_vma(va);
	return 1;
}
