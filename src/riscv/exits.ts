/** Modes of a hart, and why it leaves the guest. */

/** Why `run` came back. */
export const HART_EXIT_BUDGET = 1;
export const HART_EXIT_REQUEST = 2;
/** `ecall` from S-mode (a call of the SBI); pc is behind it. */
export const HART_EXIT_ECALL = 3;
/** A device is read or written: `mmioGpa`, `mmioLen`, `mmioIsWrite`, `mmioValue`; pc is behind it. */
export const HART_EXIT_MMIO = 4;
/** `wfi` with no interrupt pending; pc is behind it. */
export const HART_EXIT_WFI = 5;
/** The MMU said MMU_WAIT; pc is at the instruction, which has done nothing yet. */
export const HART_EXIT_WAIT = 6;
/** A deprivileged hart has met an exception: pc is at the instruction, which has done nothing; scause and stval say which. */
export const HART_EXIT_TRAP = 7;
export type HartExit = number;

export const MODE_USER = 0;
export const MODE_SUPERVISOR = 1;
