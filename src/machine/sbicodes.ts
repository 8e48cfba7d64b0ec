/**
 * Numbers of the RISC-V Supervisor Binary Interface Specification 2.0: extensions, errors, and the constants of HSM and SRST.
 */

export const SBI_SUCCESS = 0;
export const SBI_ERR_FAILED = -1;
export const SBI_ERR_NOT_SUPPORTED = -2;
export const SBI_ERR_INVALID_PARAM = -3;
export const SBI_ERR_DENIED = -4;
export const SBI_ERR_INVALID_ADDRESS = -5;
export const SBI_ERR_ALREADY_AVAILABLE = -6;

export const SBI_EXT_0_1_SET_TIMER = 0x0;
export const SBI_EXT_0_1_CONSOLE_PUTCHAR = 0x1;
export const SBI_EXT_0_1_CONSOLE_GETCHAR = 0x2;
export const SBI_EXT_0_1_CLEAR_IPI = 0x3;
export const SBI_EXT_0_1_SEND_IPI = 0x4;
export const SBI_EXT_0_1_SHUTDOWN = 0x8;
export const SBI_EXT_BASE = 0x10;
export const SBI_EXT_TIME = 0x54494d45;
export const SBI_EXT_IPI = 0x735049;
export const SBI_EXT_RFENCE = 0x52464e43;
export const SBI_EXT_HSM = 0x48534d;
export const SBI_EXT_SRST = 0x53525354;
export const SBI_EXT_DBCN = 0x4442434e;

/** Specification 2.0: major in bits 30 to 24, minor below. */
export const SBI_SPEC_VERSION = 0x0200_0000n;
/** Not one of the registered implementations: "unpn". */
export const SBI_IMPL_ID = 0x756e_706en;
export const SBI_IMPL_VERSION = 1n;

export const SBI_HSM_STATE_STARTED = 0;
export const SBI_HSM_STATE_STOPPED = 1;
export const SBI_HSM_STATE_START_PENDING = 2;
export const SBI_HSM_STATE_STOP_PENDING = 3;
export const SBI_HSM_STATE_SUSPENDED = 4;

export const SBI_SRST_TYPE_SHUTDOWN = 0;
export const SBI_SRST_TYPE_COLD_REBOOT = 1;
export const SBI_SRST_TYPE_WARM_REBOOT = 2;
export const SBI_SRST_REASON_NONE = 0;
export const SBI_SRST_REASON_SYSTEM_FAILURE = 1;
