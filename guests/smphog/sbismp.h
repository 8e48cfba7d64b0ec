/* The calls of the SBI that concern several harts: IPI, RFENCE, HSM. Masks have bit 0 for hart 0. Errors are negative. */
#ifndef SMPHOG_SBISMP_H
#define SMPHOG_SBISMP_H
#include "types.h"

enum { HSM_STARTED = 0, HSM_STOPPED = 1 };
enum { SBI_ERR_INVALID_PARAM = -3, SBI_ERR_ALREADY_AVAILABLE = -6 };
#define WHOLE_SPACE (~0ul)

/* A state of HSM, or an error. */
long sbi_hart_status(u64 id);
long sbi_hart_start(u64 id, u64 address, u64 opaque);
long sbi_hart_stop(void);
/* Retentive: comes back when an interrupt is pending, or before. */
long sbi_hart_suspend(void);
/* These die where the call fails. */
void sbi_send_ipi(u64 mask);
void sbi_remote_fence_i(u64 mask);
void sbi_remote_sfence(u64 mask, u64 start, u64 size);
void sbi_remote_sfence_asid(u64 mask, u64 start, u64 size, u64 asid);

#endif
