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
/** Where the TLB tables for data and for fetches now are, from the hart's base: by mode, sstatus.SUM and satp. */
export const DATA_CTX = 532;
export const FETCH_CTX = 536;
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

/** 1 in S-mode, unless it is deprivileged. */
export const PRIVILEGED = 724;
/** What a CSR held that the helper `csr` has written, 64 bits. */
export const CSR_OLD = 728;

/** TLBs (tlb.ts). Where the tables of the present space begin, from the hart's base. */
export const TLB_SPACE = 736;
/** Bit i: space i is to be flushed before it is used again. */
export const TLB_STALE = 740;
/** The space that is given away next. */
export const TLB_NEXT = 744;
/** Not 0: the supervisor's tables have entries that are not global. */
export const TLB_LOCAL = 748;
/** The satp of each space, 64 bits each; -1: none yet. */
export const TLB_SATPS = 752;
export const NR_TLB_SPACES = 8;

/**
 * An entry's first place is told by bits 21..12 of the address, and its second is that, changed by bits 30..22: where its first is wanted for
 * another, it goes there.
 */
export const TLB_ENTRIES = 1024;
/** Tag (page's virtual address, 64 bits; -1: empty), addend (32 bits: host address = low word of va + addend; of a fetch: address of records), the frame's tag (test builds alone). */
export const TLB_ENTRY_BYTES = 16;
export const TLB_TAG = 12;
/** 2 to the power of TLB_TABLE_SHIFT. */
export const TLB_TABLE_BYTES = TLB_ENTRIES * TLB_ENTRY_BYTES;
export const TLB_TABLE_SHIFT = 14;
/** Byte offset of the second place: first ^ ((low word >>> SHIFT & MASK) | FLIP). */
export const TLB_SECOND_SHIFT = 18;
export const TLB_SECOND_MASK = (TLB_ENTRIES / 2 - 1) * TLB_ENTRY_BYTES;
export const TLB_SECOND_FLIP = (TLB_ENTRIES / 2) * TLB_ENTRY_BYTES;
/** After a table for reads comes the one for writes. */
export const TLB_WRITE = TLB_TABLE_BYTES;

/** The supervisor's tables, without sstatus.SUM: reads, writes, fetches. */
export const TLB_SUPERVISOR = 1024;
export const TLB_SUPERVISOR_FETCH = TLB_SUPERVISOR + 2 * TLB_TABLE_BYTES;
export const TLB_SUPERVISOR_BYTES = 3 * TLB_TABLE_BYTES;
/** The spaces. In each: the user's reads and writes, the supervisor's with SUM, the user's fetches. */
export const TLB_SPACES = TLB_SUPERVISOR + TLB_SUPERVISOR_BYTES;
export const TLB_SPACE_SUM = 2 * TLB_TABLE_BYTES;
export const TLB_SPACE_FETCH = 4 * TLB_TABLE_BYTES;
export const TLB_SPACE_BYTES = 5 * TLB_TABLE_BYTES;

/** What a TLB miss looks at before it asks the MMU (refill.ts): a table of regions of 512 pages. */
export const REFILL = TLB_SPACES + NR_TLB_SPACES * TLB_SPACE_BYTES;
export const REFILL_ENTRIES = 256;
export const REFILL_ENTRY_BYTES = 16;
export const REFILL_BYTES = REFILL_ENTRIES * REFILL_ENTRY_BYTES;
/** Number of the present address space in it, 0 for none, and where that number is while the space lives; address of the generation; the hull of superpages. */
export const REFILL_ROOT = 896;
export const REFILL_GENERATION = 900;
export const REFILL_FIRST = 904;
export const REFILL_LAST = 908;
/** Address of the bitmap of host pages that have decoded code, in the thread that runs the hart. */
export const CODE_MAP = 912;
export const REFILL_ROOT_AT = 916;
/** A byte for each table, in their order: not 0 where something was entered since it was last emptied. */
export const TLB_USED = 920;

export const HART_BYTES = REFILL + REFILL_BYTES;

/**
 * Decoded code: a record of 8 bytes for each 2 bytes of a page, and two more that look up the next page. Then come, for the instruction that
 * lies across the end of the page, if there is one: its record, and two that look up the next page; the records of the page that it goes on in,
 * and their stamp. Last, the page's own stamp, which no other ever has.
 */
export const RECORD_BYTES = 8;
export const RECORDS_PER_PAGE = 2048;
export const PAGE_RECORD_BYTES = RECORDS_PER_PAGE * RECORD_BYTES;
export const CROSSING_RECORD = PAGE_RECORD_BYTES + 2 * RECORD_BYTES;
export const CROSSING_NEXT = CROSSING_RECORD + 3 * RECORD_BYTES;
export const CROSSING_STAMP = CROSSING_NEXT + 4;
export const PAGE_STAMP = CROSSING_NEXT + 8;
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
