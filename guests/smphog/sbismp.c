#include "sbismp.h"
#include "sbi.h"
#include "smp.h"

enum { EXT_IPI = 0x735049, EXT_RFENCE = 0x52464e43, EXT_HSM = 0x48534d };
enum { HSM_START = 0, HSM_STOP = 1, HSM_STATUS = 2, HSM_SUSPEND = 3 };
enum { REMOTE_FENCE_I = 0, REMOTE_SFENCE = 1, REMOTE_SFENCE_ASID = 2 };

long sbi_hart_status(u64 id)
{
	struct sbi_result result = sbi_call(EXT_HSM, HSM_STATUS, id, 0, 0, 0, 0);

	return result.error != 0 ? result.error : (long)result.value;
}

long sbi_hart_start(u64 id, u64 address, u64 opaque)
{
	return sbi_call(EXT_HSM, HSM_START, id, address, opaque, 0, 0).error;
}

long sbi_hart_stop(void)
{
	return sbi_call(EXT_HSM, HSM_STOP, 0, 0, 0, 0, 0).error;
}

long sbi_hart_suspend(void)
{
	return sbi_call(EXT_HSM, HSM_SUSPEND, 0, 0, 0, 0, 0).error;
}

static void must(const char *name, struct sbi_result result)
{
	if (result.error != 0)
		FAIL("%s: SBI error -%lu", name, (u64)-result.error);
}

void sbi_send_ipi(u64 mask)
{
	must("send_ipi", sbi_call(EXT_IPI, 0, mask, 0, 0, 0, 0));
}

void sbi_remote_fence_i(u64 mask)
{
	must("remote_fence_i", sbi_call(EXT_RFENCE, REMOTE_FENCE_I, mask, 0, 0, 0, 0));
}

void sbi_remote_sfence(u64 mask, u64 start, u64 size)
{
	must("remote_sfence_vma", sbi_call(EXT_RFENCE, REMOTE_SFENCE, mask, 0, start, size, 0));
}

void sbi_remote_sfence_asid(u64 mask, u64 start, u64 size, u64 asid)
{
	must("remote_sfence_vma_asid", sbi_call(EXT_RFENCE, REMOTE_SFENCE_ASID, mask, 0, start, size, asid));
}
