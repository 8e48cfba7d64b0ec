/**
 * Where a hart keeps its state in shared memory: byte offsets from its base, for the generated code and for TypeScript.
 */

/** x0 to x31, 64 bits each. x0 stays 0: nothing writes there that does not clear it again. */
export const X = 0;
/** f0 to f31, 64 bits each. */
export const F = 256;
export const PC = 512;
/** Instructions retired, 64 bits; up to date whenever the hart is outside. */
export const INSTRET = 520;
/** Set by others, polled at taken branches. */
export const REQUEST = 528;
/** The current data context, CTX_* times TLB_CTX_BYTES. */
export const DATA_CTX = 532;
/** The current fetch context, 0 in U-mode and ITLB_CTX_BYTES in S-mode. */
export const FETCH_CTX = 536;
/** Bytes of records that a branch may move within; 0 for the scratch page. */
export const FETCH_LIMIT = 540;
/** Virtual address that the first record stands for, 64 bits. */
export const FETCH_VA = 544;
/** The virtual address of the access that goes the slow path, 64 bits. */
export const SLOW_VA = 552;
/** LR's address (-1: no reservation) and the value it saw, 64 bits each. */
export const RESERVED_VA = 560;
export const RESERVED_VALUE = 568;
/** Accrued exception flags (5 bits) and rounding mode (3 bits). */
export const FFLAGS = 576;
export const FRM = 580;
/** sstatus.FS is Off (0) or not: 0, 1 Initial, 2 Clean, 3 Dirty. */
export const FS = 584;
/** Records of an instruction that lies across two pages: itself, and two that look up the next page. */
export const SCRATCH_RECORDS = 592;
/** CSRs that are plain storage, 64 bits each. */
export const CSR_STVEC = 640;
export const CSR_SSCRATCH = 648;
export const CSR_SEPC = 656;
export const CSR_SCAUSE = 664;
export const CSR_STVAL = 672;
export const CSR_SATP = 680;
export const CSR_SENVCFG = 688;
/** 32 bits each. */
export const CSR_SCOUNTEREN = 696;
export const CSR_SIE = 700;
export const CSR_SIP = 704;
/** sstatus without FS and the read-only fields. */
export const CSR_SSTATUS = 708;
/** 0 user, 1 supervisor. */
export const MODE = 712;
/** Instructions that the present run may still retire, as of the last slow path. */
export const BUDGET_LEFT = 716;
/** Address of the first record of the page that pc is in. */
export const FETCH_BASE = 720;

export const CTX_USER = 0;
export const CTX_SUPERVISOR = 1;
/** Supervisor with sstatus.SUM. */
export const CTX_SUPERVISOR_SUM = 2;
export const NR_CTX = 3;

/** Data TLBs: for each context a direct-mapped table for reads and one for writes. */
export const TLB_ENTRIES = 256;
/** Page's virtual address (64 bits; -1: empty), addend (32 bits: host address = low word of va + addend), the frame's tag (test builds alone). */
export const TLB_ENTRY_BYTES = 16;
export const TLB_TAG = 12;
export const TLB_TABLE_BYTES = TLB_ENTRIES * TLB_ENTRY_BYTES;
export const TLB_WRITE = TLB_TABLE_BYTES;
export const TLB_CTX_BYTES = 2 * TLB_TABLE_BYTES;
export const DTLB = 1024;

/** Fetch TLBs, U and S: tag, address of the page's records. */
export const ITLB = DTLB + NR_CTX * TLB_CTX_BYTES;
export const ITLB_CTX_BYTES = TLB_TABLE_BYTES;

export const TLB_END = ITLB + 2 * ITLB_CTX_BYTES;

/** What a TLB miss looks at before it asks the MMU (refill.ts): a table of regions of 512 pages. */
export const REFILL = TLB_END;
export const REFILL_ENTRIES = 256;
export const REFILL_ENTRY_BYTES = 16;
/** Number of the present address space in it, 0 for none, and where that number is while the space lives; address of the generation; the hull of superpages. */
export const REFILL_ROOT = 896;
export const REFILL_GENERATION = 900;
export const REFILL_FIRST = 904;
export const REFILL_LAST = 908;
/** Address of the bitmap of host pages that have decoded code, in the thread that runs the hart. */
export const CODE_MAP = 912;
export const REFILL_ROOT_AT = 916;

export const HART_BYTES = REFILL + REFILL_ENTRIES * REFILL_ENTRY_BYTES;

/** Decoded code: a record of 8 bytes for each 2 bytes of a page, and two more that look up the next page. */
export const RECORD_BYTES = 8;
export const RECORDS_PER_PAGE = 2048;
export const PAGE_RECORD_BYTES = RECORDS_PER_PAGE * RECORD_BYTES;
export const DECODED_PAGE_BYTES = PAGE_RECORD_BYTES + 64;

/** Fields of a record. */
export const REC_HANDLER = 0;
export const REC_RD = 2;
export const REC_RS1 = 3;
export const REC_IMM = 4;
/** R-type instructions have rs2 (and rs3, and rm) where others have imm. */
export const REC_RS2 = 4;
export const REC_RS3 = 5;
export const REC_RM = 6;
/** Stores and branches have rs2 in rd's place. */
export const REC_RS2_BS = 2;
