/**
 * What an lguest guest and its host agree on: hypercalls, `struct lguest_data`, trap frames, vectors, registers. The numbers and names are those of
 * Linux's lguest (asm/lguest_hcall.h, linux/lguest.h, linux/lguest_launcher.h of 2.6.23 to 4.13), where RISC-V has the thing too; what differs is told.
 * `guests/lguest/lguest.h` is the same for the guest, and `test/lguest/abi.test.ts` holds the two together.
 *
 * The guest kernel runs in S-mode with everything privileged taken from it, as mstatus.TVM, TW and TSR take it: satp, sfence.vma, sret, wfi and
 * every S-mode CSR are illegal instructions, and kill the guest. fence.i, rdtime, rdcycle and floating point are its own. SUM is set: it reaches the pages of its processes.
 *
 * A hypercall is `ecall` from S-mode: number in a0, arguments in a1 to a4, result (0) in a0; no other register changes. So that a C function
 * `hcall(call, arg1, arg2, arg3, arg4)` is `ecall; ret`. "Physical" addresses are guest-physical: bytes of the guest's memory from 0.
 *
 * At power on: S-mode at `start`, a stack of nobody's, all registers 0 but those that the launcher has set, interrupts off, and, without a `pgdir`, the first
 * pages of the address space show guest memory and devices one to one, readable, writable and executable, until LHCALL_NEW_PGTABLE. The first hypercall must be LHCALL_LGUEST_INIT.
 */

/** Does nothing by itself: like every hypercall, after those that wait in the ring. */
export const LHCALL_FLUSH_ASYNC = 0;
/** arg1: physical address of struct lguest_data, a multiple of 8; `kernelAddress` is set. Once, first, and not through the ring. */
export const LHCALL_LGUEST_INIT = 1;
/** arg1: physical address of a message that ends with 0 (at most LGUEST_MESSAGE_BYTES are taken). arg2: LGUEST_SHUTDOWN_*. */
export const LHCALL_SHUTDOWN = 2;
/**
 * arg1: physical address of the root table, a multiple of 4096: what satp would name. What the host has been shown of that root before still holds: a page that was a root and
 * becomes one again, with other entries, must have been cleared first: by LHCALL_SET_PGD for each entry that was present, or by LHCALL_FLUSH_TLB with 1.
 */
export const LHCALL_NEW_PGTABLE = 4;
/** arg1: 0, the entries of the present root below `kernelAddress` have changed; else any entry of any table has. */
export const LHCALL_FLUSH_TLB = 5;
/** arg1: vector (see LGUEST_NR_VECTORS). arg2: virtual address of its handler, a multiple of 4; 0 takes it away. */
export const LHCALL_LOAD_IDT_ENTRY = 6;
/** arg1: virtual address of the byte behind the kernel stack for traps out of U-mode, a multiple of 16, in the kernel's half. */
export const LHCALL_SET_STACK = 7;
/** arg1: not 0, floating point is illegal (cause 2, as with sstatus.FS off, x86's CR0.TS) until arg1 0. At power on it is legal. */
export const LHCALL_TS = 8;
/** arg1: nanoseconds from now until interrupt LGUEST_TIMER_IRQ is pending, once; 0: not at all. */
export const LHCALL_SET_CLOCKEVENT = 9;
/** Until an interrupt has been delivered, which it enables: the guest goes on behind the ecall when the handler has returned, with interrupts on. */
export const LHCALL_HALT = 10;
/** arg1: root. arg2: virtual address: the second-level entry for it has changed. (x86: any entry of any table may have.) */
export const LHCALL_SET_PMD = 13;
/** arg1: root. arg2: virtual address. arg3: the new last-level entry for it, which is in the table already. */
export const LHCALL_SET_PTE = 14;
/** arg1: root. arg2: index, 0 to 511, of the root's entry that has changed. */
export const LHCALL_SET_PGD = 15;
/** arg1: any number: `run` gives it to the launcher; the guest goes on when the launcher runs it again. */
export const LHCALL_NOTIFY = 17;
/** Interrupts have been enabled while `irqPending` was set: they are delivered now. */
export const LHCALL_SEND_INTERRUPTS = 19;
/**
 * RISC-V only, where sret is privileged (x86: iret in ring 1). sp is the address of a trap frame, which is what the hart goes on with: pc, sp, a0, mode and
 * `irqEnabled`. Not through the ring. All registers but these are as the guest left them.
 */
export const LHCALL_SRET = 32;

/** arg2 of LHCALL_SHUTDOWN. */
export const LGUEST_SHUTDOWN_POWEROFF = 1;
export const LGUEST_SHUTDOWN_RESTART = 2;
export const LGUEST_MESSAGE_BYTES = 128;

/** Interrupts that the launcher and the clock raise; the clock's is number 0. */
export const LGUEST_IRQS = 32;
export const LGUEST_TIMER_IRQ = 0;

/** Vectors: exceptions by the code of scause (0 to 31), then interrupts. A trap without a handler kills the guest. */
export const LGUEST_IRQ_VECTOR = 32;
export const LGUEST_NR_VECTORS = LGUEST_IRQ_VECTOR + LGUEST_IRQS;

/** Hypercalls that may wait in the ring. */
export const LHCALL_RING_SIZE = 64;
/** `hcallStatus`: the host is done with the entry, which is free. The guest fills the entry, then writes LHCALL_RING_FULL. */
export const LHCALL_RING_FREE = 0xff;
export const LHCALL_RING_FULL = 0;

/**
 * struct lguest_data, in guest memory: byte offsets. All little-endian.
 *
 * The ring: the guest takes the entries in order, 0 to 63 and round, each only when its status is LHCALL_RING_FREE; the host takes them in the same order at
 * every hypercall, before that one itself; behind a NOTIFY the launcher comes first, and a HALT begins when the ecall is done. At LGUEST_INIT the guest has made all entries free.
 */
export const LGUEST_DATA = {
  /** u32: 0, or 1 when interrupts may come; the guest's own sstatus.SIE. */
  irqEnabled: 0,
  /** u32: the host sets it to 1 when an interrupt waits for irqEnabled; the host clears it when it has delivered one. */
  irqPending: 4,
  /** u32: a bit for each interrupt that must not come now. */
  blockedInterrupts: 8,
  /** u64: seconds and nanoseconds since 1970, and the time CSR at that instant: when the guest was made, and at each interrupt. */
  timeSec: 16,
  timeNsec: 24,
  timeTicks: 32,
  /** u64: ticks of the time CSR a second. The host sets it at LGUEST_INIT. */
  timebaseHz: 40,
  /** u64: the kernel's half of all address spaces begins here: a multiple of 1 GiB. The guest sets it before LGUEST_INIT. */
  kernelAddress: 48,
  /** u64: bytes of guest memory. The host sets it at LGUEST_INIT. */
  memBytes: 56,
  /** u8[64] */
  hcallStatus: 64,
  /** struct hcall_args[64] of five u64: the number, then arguments 1 to 4. */
  hcalls: 128,
} as const;
export const LGUEST_HCALL_BYTES = 40;
export const LGUEST_DATA_BYTES = LGUEST_DATA.hcalls + LHCALL_RING_SIZE * LGUEST_HCALL_BYTES;

/**
 * A trap frame: byte offsets. The host pushes it, below the stack of LHCALL_SET_STACK for a trap out of U-mode, else below sp, at the next lower multiple of 64, so that
 * it lies in one page; then sp is its address, `irqEnabled` is 0, and the hart is in S-mode at the vector's handler. a0 is saved so that the kernel has one register for itself, and
 * for the number of LHCALL_SRET; all other registers are those of what was interrupted.
 */
export const LGUEST_FRAME = {
  /** u64 each. pc of the instruction that trapped (an ecall's own address: add 4), or of the next one for an interrupt. */
  epc: 0,
  sp: 8,
  a0: 16,
  /** LGUEST_STATUS_* */
  status: 24,
  /** As scause has it, bit 63 for interrupts, with the interrupt's number below. */
  cause: 32,
  /** As stval has it: the address of a page fault, the bits of an illegal instruction. */
  tval: 40,
} as const;
export const LGUEST_FRAME_BYTES = 64;

/** The places of sstatus.SPIE and SPP: `irqEnabled` as it was, and whether it was the kernel (S-mode) that was interrupted. */
export const LGUEST_STATUS_PIE = 1 << 5;
export const LGUEST_STATUS_PP = 1 << 8;

/** Registers for `getreg` and `setreg`: 1 to 31 are x1 to x31. */
export const LGUEST_REG_PC = 0;

/** Why `run` came back: the guest's LHCALL_NOTIFY. Otherwise the code of scause for an access to what lies beyond memory. */
export const LGUEST_TRAP_ENTRY = 0x1f;

/** What Linux lets an unprivileged process lock, in bytes: the launcher's RLIMIT_MEMLOCK. The driver locks nothing. */
export const LGUEST_RLIMIT_MEMLOCK = 64 * 1024;
