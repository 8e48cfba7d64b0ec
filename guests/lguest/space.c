#include "space.h"
#include "console.h"
#include "frames.h"
#include "layout.h"
#include "platform.h"
#include "sv39.h"

/* Two bits of an entry are software's. */
#define PTE_COW (1ul << 8)		/* written on the first store, which makes it the space's own */
#define PTE_IMAGE (1ul << 9)		/* of the kernel's image: not counted */

#define KERNEL_FLAGS (PTE_R | PTE_W | PTE_X | PTE_A | PTE_D | PTE_V)
#define USER_FLAGS (PTE_R | PTE_W | PTE_U | PTE_V)
#define NR_ENTRIES 512
#define FIRST_KERNEL_ENTRY (PAGE_OFFSET >> 30 & 511)

u64 space_faults, space_copies, space_arena_pages;

static u64 kernel_root;

static u64 entry_of(u64 pa, u64 flags)
{
	return pa >> PAGE_SHIFT << PTE_PPN_SHIFT | flags;
}

static u64 page_of(u64 entry)
{
	return entry >> PTE_PPN_SHIFT << PAGE_SHIFT & 0x3ffffffffff000ul;
}

static u64 *entry_at(u64 table, u64 va, int level)
{
	return (u64 *)virt(table) + (va >> (PAGE_SHIFT + 9 * level) & 511);
}

/* The last-level entry for `va`; where tables are absent, they are made, or it is 0. */
static u64 *find_entry(u64 root, u64 va, int make)
{
	u64 *pgd = entry_at(root, va, 2), *pmd;

	if (!(*pgd & PTE_V)) {
		if (!make)
			return 0;
		platform_set_pgd(root, va, pgd, entry_of(frame_alloc(), PTE_V));
	}
	pmd = entry_at(page_of(*pgd), va, 1);
	if (!(*pmd & PTE_V)) {
		if (!make)
			return 0;
		platform_set_pmd(root, va, pmd, entry_of(frame_alloc(), PTE_V));
	}
	return entry_at(page_of(*pmd), va, 0);
}

static void set_entry(struct space *space, u64 va, u64 value)
{
	platform_set_pte(space->root, va, find_entry(space->root, va, 1), value);
}

/* Nobody has another copy of these tables yet, so they are simply written. */
u64 space_boot(u64 start, u64 end)
{
	u64 *root;

	kernel_root = frame_alloc();
	root = virt(kernel_root);
	for (u64 pa = start; pa < end; pa += PAGE_SIZE) {
		u64 *pgd = entry_at(kernel_root, pa + PAGE_OFFSET, 2), *pmd;

		if (!(*pgd & PTE_V))
			*pgd = entry_of(frame_alloc(), PTE_V);
		pmd = entry_at(page_of(*pgd), pa, 1);
		if (!(*pmd & PTE_V))
			*pmd = entry_of(frame_alloc(), PTE_V);
		*entry_at(page_of(*pmd), pa, 0) = entry_of(pa, KERNEL_FLAGS);
	}
	for (u64 i = 0; i < FIRST_KERNEL_ENTRY; i++)
		root[i] = root[i + FIRST_KERNEL_ENTRY];
	return kernel_root;
}

void space_init(void)
{
	u64 *root = virt(kernel_root);

	for (u64 i = 0; i < FIRST_KERNEL_ENTRY; i++)
		if (root[i] & PTE_V)
			platform_set_pgd(kernel_root, i << 30, &root[i], 0);
	platform_flush_user();
}

/*
 * The space in use until now may go when this returns: nobody looks at its tables any more, not even for an address of the kernel's half.
 */
void space_use_kernel(void)
{
	platform_use_root(kernel_root);
	platform_sync();
}

void space_use(const struct space *space)
{
	platform_use_root(space->root);
}

void space_create(struct space *space)
{
	u64 *root, *kernel = virt(kernel_root);

	space->root = frame_alloc();
	root = virt(space->root);
	for (u64 i = FIRST_KERNEL_ENTRY; i < NR_ENTRIES; i++)
		root[i] = kernel[i];
}

void space_map_text(struct space *space, u64 va, u64 pa)
{
	set_entry(space, va, entry_of(pa, PTE_R | PTE_X | PTE_U | PTE_V | PTE_IMAGE));
}

/* Calls `visit` with each present last-level entry of the process's half. */
static void for_each_entry(struct space *space, void (*visit)(struct space *, u64 va, u64 *entry, struct space *), struct space *other)
{
	for (u64 i = 0; i < FIRST_KERNEL_ENTRY; i++) {
		u64 pgd = ((u64 *)virt(space->root))[i];

		for (u64 j = 0; pgd & PTE_V && j < NR_ENTRIES; j++) {
			u64 pmd = ((u64 *)virt(page_of(pgd)))[j], *entries = virt(page_of(pmd));

			for (u64 k = 0; pmd & PTE_V && k < NR_ENTRIES; k++)
				if (entries[k] & PTE_V)
					visit(space, i << 30 | j << 21 | k << 12, &entries[k], other);
		}
	}
}

/* The parent's entry is written without a call: one flush at the end tells of all. */
static void share_entry(struct space *parent, u64 va, u64 *entry, struct space *child)
{
	(void)parent;
	if (!(*entry & PTE_IMAGE))
		frame_get(page_of(*entry));
	if (*entry & PTE_W)
		*entry = (*entry & ~PTE_W) | PTE_COW;
	set_entry(child, va, *entry & ~(PTE_A | PTE_D));
}

void space_fork(struct space *parent, struct space *child)
{
	space_create(child);
	for_each_entry(parent, share_entry, child);
	platform_flush_user();
}

static void put_entry(struct space *space, u64 va, u64 *entry, struct space *other)
{
	(void)space, (void)va, (void)other;
	if (!(*entry & PTE_IMAGE))
		frame_put(page_of(*entry));
}

/* The root is unlinked from its tables first, and whoever knows it hears of that: its page may become another root. */
void space_destroy(struct space *space)
{
	for_each_entry(space, put_entry, 0);
	for (u64 i = 0; i < FIRST_KERNEL_ENTRY; i++) {
		u64 *pgd = (u64 *)virt(space->root) + i, table = page_of(*pgd);

		if (!(*pgd & PTE_V))
			continue;
		for (u64 j = 0; j < NR_ENTRIES; j++)
			if (((u64 *)virt(table))[j] & PTE_V)
				frame_put(page_of(((u64 *)virt(table))[j]));
		platform_set_pgd(space->root, i << 30, pgd, 0);
		frame_put(table);
	}
	frame_put(space->root);
}

/* Where a process may have pages that come by themselves. */
static int is_window(u64 va)
{
	return (va >= USER_ARENA && va < USER_ARENA + space_arena_pages * PAGE_SIZE) ||
	       (va >= USER_STACK && va < USER_STACK + USER_STACK_PAGES * PAGE_SIZE) ||
	       (va >= USER_BUFFER && va < USER_BUFFER + PAGE_SIZE);
}

static void own_page(struct space *space, u64 va, u64 *entry)
{
	u64 old = page_of(*entry), flags = (*entry & ~(PTE_COW | ~0x3fful)) | PTE_W, *from = virt(old), *to;

	if (frame_users(old) == 1) {
		platform_set_pte(space->root, va, entry, entry_of(old, flags));
		return;
	}
	to = virt(frame_alloc_dirty());
	for (u64 i = 0; i < WORDS_PER_PAGE; i++)
		to[i] = from[i];
	platform_set_pte(space->root, va, entry, entry_of(pa_of(to), flags));
	frame_put(old);
	space_copies++;
}

int space_fault(struct space *space, u64 va, int is_store)
{
	u64 *entry;

	if (!is_window(va))
		return 0;
	va = ALIGN_DOWN(va, PAGE_SIZE);
	entry = find_entry(space->root, va, 1);
	if (!(*entry & PTE_V)) {
		platform_set_pte(space->root, va, entry, entry_of(frame_alloc(), USER_FLAGS));
		space_faults++;
		return 1;
	}
	if (!is_store || !(*entry & PTE_COW))
		return 0;
	own_page(space, va, entry);
	return 1;
}

u64 space_page(struct space *space, u64 va, int is_write)
{
	u64 *entry = find_entry(space->root, va, 0);

	if (entry == 0 || !(*entry & PTE_V) || (is_write && !(*entry & PTE_W))) {
		if (!space_fault(space, va, is_write))
			return 0;
		entry = find_entry(space->root, va, 0);
	}
	return page_of(*entry);
}

void space_drop(struct space *space, u64 va, u64 nr)
{
	for (; nr-- > 0; va += PAGE_SIZE) {
		u64 *entry = find_entry(space->root, va, 0);

		if (entry == 0 || !(*entry & PTE_V))
			continue;
		frame_put(page_of(*entry));
		platform_set_pte(space->root, va, entry, 0);
	}
}

u64 space_count(struct space *space, u64 va, u64 nr, u64 bits)
{
	u64 count = 0;

	for (; nr-- > 0; va += PAGE_SIZE) {
		u64 *entry = find_entry(space->root, va, 0);

		if (entry != 0 && (*(volatile u64 *)entry & (PTE_V | bits)) == (PTE_V | bits))
			count++;
	}
	return count;
}
