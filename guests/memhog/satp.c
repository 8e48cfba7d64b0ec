#include "sv39.h"

#define SATP_MODE_SV39 (8ul << 60)
#define SATP_ASID_SHIFT 44
#define SATP_ASID_MASK 0xfffful

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
