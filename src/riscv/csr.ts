/** Numbers and fields of the CSRs that a hart has (privileged manual, chapters 2 and 12). */

export const CSR = {
  fflags: 0x001,
  frm: 0x002,
  fcsr: 0x003,
  sstatus: 0x100,
  sie: 0x104,
  stvec: 0x105,
  scounteren: 0x106,
  senvcfg: 0x10a,
  sscratch: 0x140,
  sepc: 0x141,
  scause: 0x142,
  stval: 0x143,
  sip: 0x144,
  satp: 0x180,
  cycle: 0xc00,
  time: 0xc01,
  instret: 0xc02,
} as const;

export const SSTATUS_SIE = 1 << 1;
export const SSTATUS_SPIE = 1 << 5;
export const SSTATUS_SPP = 1 << 8;
export const SSTATUS_FS_SHIFT = 13;
export const SSTATUS_FS = 3 << SSTATUS_FS_SHIFT;
export const SSTATUS_SUM = 1 << 18;
export const SSTATUS_MXR = 1 << 19;
/** Fields that software may write, in the low word, without FS. */
export const SSTATUS_WRITABLE = SSTATUS_SIE | SSTATUS_SPIE | SSTATUS_SPP | SSTATUS_SUM | SSTATUS_MXR;
/** In the high word: UXL is 64 bits, read-only; SD says that FS is Dirty. */
export const SSTATUS_UXL_64 = 2;
export const SSTATUS_SD = 1 << 31;

/** Bit numbers in sip and sie, and interrupt causes. */
export const IRQ_S_SOFT = 1;
export const IRQ_S_TIMER = 5;
export const IRQ_S_EXT = 9;
export const INTERRUPTS = (1 << IRQ_S_SOFT) | (1 << IRQ_S_TIMER) | (1 << IRQ_S_EXT);

export const SATP_MODE_BARE = 0;
export const SATP_MODE_SV39 = 8;
export const ASID_BITS = 16;

export const EXC_INST_ACCESS = 1;
export const EXC_ILLEGAL = 2;
export const EXC_BREAKPOINT = 3;
export const EXC_LOAD_MISALIGNED = 4;
export const EXC_LOAD_ACCESS = 5;
export const EXC_STORE_MISALIGNED = 6;
export const EXC_STORE_ACCESS = 7;
export const EXC_ECALL_U = 8;
export const EXC_INST_PAGE_FAULT = 12;
export const EXC_LOAD_PAGE_FAULT = 13;
export const EXC_STORE_PAGE_FAULT = 15;
