#include "space.h"
#include "layout.h"
#include "pages.h"
#include "sbismp.h"
#include "sv39.h"

struct space spaces[NR_SPACES];
u64 kernel_root;
int no_fences;

static void space_init(struct space *space, u64 asid)
{
	space->root = page_alloc();
	for (u64 i = 0; i < LAYOUT_RAM_END / GIGAPAGE_SIZE; i++)
		((u64 *)space->root)[i] = ((u64 *)kernel_root)[i];
	space->asid = asid;
}

void spaces_init(u64 ram_start, u64 ram_end)
{
	u64 asids;

	if (ram_end > LAYOUT_RAM_END)
		die("RAM ends at %lx; this guest can use it up to %lx", ram_end, LAYOUT_RAM_END);
	kernel_root = page_alloc();
	for (u64 pa = ALIGN_DOWN(ram_start, MEGAPAGE_SIZE); pa < ram_end; pa += MEGAPAGE_SIZE)
		map_megapage(kernel_root, pa, pa, PTE_R | PTE_W | PTE_X | PTE_G | PTE_A | PTE_D);
	kernel_space_enter();
	asids = nr_asids();
	for (u64 i = 0; i < NR_SPACES; i++)
		space_init(&spaces[i], asids > NR_SPACES ? i + 1 : 0);
}

void kernel_space_enter(void)
{
	satp_write(kernel_root, 0);
	sfence_vma_all();
}

void space_enter(const struct space *space)
{
	satp_write(space->root, space->asid);
	if (space->asid == 0)
		sfence_vma_all();
}

static void sfence_range(u64 start, u64 size)
{
	for (u64 va = start; va < start + size; va += PAGE_SIZE)
		sfence_vma(va);
}

static void sfence_range_asid(u64 start, u64 size, u64 asid)
{
	for (u64 va = start; va < start + size; va += PAGE_SIZE)
		__asm__ volatile("sfence.vma %0, %1" ::"r"(va), "r"(asid) : "memory");
}

void fence_all_harts(struct hart *me, const struct space *space, u64 start, u64 size, enum fence how)
{
	u64 others = hart_mask(other_harts(me));

	if (no_fences)
		return;
	switch (how) {
	case FENCE_RANGE:
		sfence_range(start, size);
		sbi_remote_sfence(others, start, size);
		return;
	case FENCE_RANGE_ASID:
		sfence_range_asid(start, size, space->asid);
		sbi_remote_sfence_asid(others, start, size, space->asid);
		return;
	case FENCE_ALL_ASID:
		__asm__ volatile("sfence.vma zero, %0" ::"r"(space->asid) : "memory");
		sbi_remote_sfence_asid(others, 0, WHOLE_SPACE, space->asid);
		return;
	default:
		sfence_vma_all();
		sbi_remote_sfence(others, 0, WHOLE_SPACE);
	}
}
