import * as C from './csr.js';
import { CsrFile } from './csrfile.js';
import type { RiscvEngine } from './engine.js';
import { HART_EXIT_BUDGET, HART_EXIT_REQUEST, type HartExit, MODE_SUPERVISOR, MODE_USER } from './exits.js';
import * as L from './layout.js';
import { ACCESS_EXEC, ACCESS_WRITE, type Access, type HartMmu, MMU_OK, RIGHT_R, RIGHT_W } from './mmu.js';
import { RefillTable } from './refill.js';
import { Slow } from './slow.js';
import type { HartTlb } from './tlb.js';

/**
 * A hart: its state in shared memory, its TLBs, and the loop around the generated interpreter.
 *
 * Use: `engine.createHart`, set pc and registers, then `run` until it says why it came back; do what the exit asks for; run
 * again. A hart belongs to one thread; other threads may only call `request`.
 */

export interface HartOptions {
  readonly hartId: number;
  readonly mmu: HartMmu;
  /** The time CSR: ticks of the timebase, a whole number. */
  readonly now: () => number;
  /** The hart's state is there already: another thread has made it. */
  readonly attach?: boolean;
  /**
   * S-mode is not to be trusted with the machine, as under mstatus.TVM, TW and TSR, and more: satp, sfence.vma, sret, wfi and every S-mode CSR are
   * illegal instructions in it; and nothing is delegated: each exception leaves with HART_EXIT_TRAP, `ecall` from S-mode with HART_EXIT_ECALL. Its
   * embedder does all that: CSRs by `csr`, mode and pc by `returnTo`. Default false.
   */
  readonly deprivileged?: boolean;
}

export class Hart {
  readonly hartId: number;
  readonly engine: RiscvEngine;
  readonly base: number;
  readonly csr: CsrFile;
  readonly mmu: HartMmu;
  /** What its MMU lets it look up by itself. */
  readonly refill: RefillTable;
  readonly tlb: HartTlb;
  /** See HartOptions. */
  readonly deprivileged: boolean;
  /** Instructions retired, as of the last exit. */
  instret = 0;
  mmioGpa = 0;
  mmioLen = 0;
  mmioIsWrite = false;
  mmioValue = 0n;
  /** Set by the slow path; 0 while the interpreter may go on. */
  exit: HartExit = 0;
  /** Host page of the last fill for a fetch, and whether its pte is global. */
  execHostPage = -1;
  execGlobal = false;
  /** A fill for writing has dropped decoded code, perhaps of the very instruction that writes. */
  droppedCode = false;
  private readonly slowPath: Slow;
  protected readonly i32: Int32Array;
  private readonly i64: BigInt64Array;
  /** Exceptions taken, which use up budget but retire nothing. */
  nrTraps = 0;
  /** What the present run began with, for `instretNow`. */
  private runBudget = 0;
  private runTraps = 0;

  constructor(engine: RiscvEngine, base: number, options: HartOptions) {
    this.engine = engine;
    this.base = base;
    this.hartId = options.hartId;
    this.mmu = options.mmu;
    this.deprivileged = options.deprivileged ?? false;
    this.i32 = engine.i32;
    this.i64 = engine.i64;
    if (!options.attach) {
      engine.fill(base, 0, L.TLB_SUPERVISOR);
      engine.fill(base + L.REFILL, 0, L.REFILL_BYTES);
    }
    this.tlb = engine.createTlb(base);
    this.refill = new RefillTable(this.i32, base);
    this.i32[(base + L.CODE_MAP) >>> 2] = engine.records.codeMap;
    this.csr = new CsrFile(this, options.now);
    this.slowPath = new Slow(this);
    if (options.attach) return;
    this.i64[(base + L.RESERVED_VA) >>> 3] = -1n;
    this.tlb.init();
    this.setMode(MODE_SUPERVISOR);
  }

  // Registers.

  get pc(): bigint {
    return BigInt.asUintN(64, this.i64[(this.base + L.PC) >>> 3]!);
  }

  set pc(value: bigint) {
    this.i64[(this.base + L.PC) >>> 3] = BigInt.asIntN(64, value);
  }

  getX(n: number): bigint {
    return BigInt.asUintN(64, this.i64[(this.base + L.X) / 8 + n]!);
  }

  setX(n: number, value: bigint): void {
    if (n !== 0) this.i64[(this.base + L.X) / 8 + n] = BigInt.asIntN(64, value);
  }

  /** The halves of a register, as int32: for those who must not allocate. */
  xLow(n: number): number {
    return this.i32[(this.base + L.X) / 4 + 2 * n]!;
  }

  xHigh(n: number): number {
    return this.i32[(this.base + L.X) / 4 + 2 * n + 1]!;
  }

  /** `n` is not 0. */
  setXWords(n: number, low: number, high: number): void {
    this.i32[(this.base + L.X) / 4 + 2 * n] = low;
    this.i32[(this.base + L.X) / 4 + 2 * n + 1] = high;
  }

  get pcLow(): number {
    return this.i32[(this.base + L.PC) >>> 2]!;
  }

  get pcHigh(): number {
    return this.i32[(this.base + L.PC + 4) >>> 2]!;
  }

  getF(n: number): bigint {
    return BigInt.asUintN(64, this.i64[(this.base + L.F) / 8 + n]!);
  }

  setF(n: number, value: bigint): void {
    this.i64[(this.base + L.F) / 8 + n] = BigInt.asIntN(64, value);
  }

  get mode(): number {
    return this.i32[(this.base + L.MODE) >>> 2]!;
  }

  get satp(): bigint {
    return BigInt.asUintN(64, this.i64[(this.base + L.CSR_SATP) >>> 3]!);
  }

  /** satp.PPN, and whether paging is on; a number, since walks need it often. */
  get satpPpn(): number {
    const high = this.i32[(this.base + L.CSR_SATP + 4) >>> 2]!;
    return (high & 0xfff) * 2 ** 32 + (this.i32[(this.base + L.CSR_SATP) >>> 2]! >>> 0);
  }

  get paging(): boolean {
    return this.i32[(this.base + L.CSR_SATP + 4) >>> 2]! >>> 28 === C.SATP_MODE_SV39;
  }

  get sum(): boolean {
    return (this.i32[(this.base + L.CSR_SSTATUS) >>> 2]! & C.SSTATUS_SUM) !== 0;
  }

  get mxr(): boolean {
    return (this.i32[(this.base + L.CSR_SSTATUS) >>> 2]! & C.SSTATUS_MXR) !== 0;
  }

  /** Instructions retired, while the interpreter runs too. */
  instretNow(): number {
    const used = this.runBudget - this.i32[(this.base + L.BUDGET_LEFT) >>> 2]!;
    return this.instret + used - (this.nrTraps - this.runTraps);
  }

  // Running.

  /** Retires at most `nrInstructions`, and exactly so many if nothing else comes up (HART_EXIT_BUDGET): no exception either. */
  run(nrInstructions: number): HartExit {
    if (this.exit !== 0) this.exit = 0;
    this.slowPath.begin();
    this.runBudget = nrInstructions;
    this.runTraps = this.nrTraps;
    const left = this.engine.run(this, nrInstructions);
    this.instret += nrInstructions - left - (this.nrTraps - this.runTraps);
    this.runBudget = 0;
    this.runTraps = this.nrTraps;
    this.i32[(this.base + L.BUDGET_LEFT) >>> 2] = 0;
    // Cleared here, not before the run: what is asked for between two runs ends the next one at once.
    if (this.i32[(this.base + L.REQUEST) >>> 2] !== 0) Atomics.store(this.i32, (this.base + L.REQUEST) >>> 2, 0);
    if (this.exit !== 0) return this.exit;
    return left === 0 ? HART_EXIT_BUDGET : HART_EXIT_REQUEST;
  }

  /** Makes a running hart come back with HART_EXIT_REQUEST at its next taken branch. From any thread. */
  request(): void {
    hartRequest(this.i32, this.base);
  }

  /** Raises or lowers bit `cause` of sip, from any thread. A running hart takes it at its next exit: `request` it, if that must be soon. */
  setInterruptPending(cause: number, on: boolean): void {
    hartSetInterruptPending(this.i32, this.base, cause, on);
  }

  /** Whether some enabled interrupt is pending, taken or not: what ends `wfi`. */
  interruptPending(): boolean {
    return (this.i32[(this.base + L.CSR_SIP) >>> 2]! & this.i32[(this.base + L.CSR_SIE) >>> 2]!) !== 0;
  }

  /** As the SBI's hart_start leaves it: in S-mode at `pc`, without paging and interrupts, `a0` and `a1` set. While it does not run. */
  resetForStart(pc: bigint, a0: bigint, a1: bigint): void {
    this.csr.write(C.CSR.satp, 0, 0);
    this.tlbFlushAll();
    this.csr.write(C.CSR.sstatus, 0, 0);
    this.csr.write(C.CSR.sie, 0, 0);
    this.setMode(MODE_SUPERVISOR);
    this.pc = pc;
    this.setX(10, a0);
    this.setX(11, a1);
  }

  /** Goes on at pc in `mode`, as after a trap or a return from one: without a reservation of LR. While it does not run. */
  returnTo(mode: number, pcLow: number, pcHigh: number): void {
    this.i32[(this.base + L.PC) >>> 2] = pcLow & ~1;
    this.i32[(this.base + L.PC + 4) >>> 2] = pcHigh;
    this.i64[(this.base + L.RESERVED_VA) >>> 3] = -1n;
    this.setMode(mode);
  }

  completeMmioRead(value: bigint): void {
    this.slowPath.completeMmioRead(value);
  }

  /** For the generated code, by the engine. */
  onSlow(record: number): number {
    return this.slowPath.execute(record);
  }

  onFetch(): number {
    return this.slowPath.fetch();
  }

  describeExit(exit: HartExit): string {
    const names = ['', 'budget', 'request', 'ecall', 'mmio', 'wfi', 'wait', 'trap'];
    return `hart ${this.hartId}: ${names[exit] ?? `exit ${exit}`} at pc 0x${this.pc.toString(16)}`;
  }

  // Modes and TLBs.

  setMode(mode: number): void {
    this.i32[(this.base + L.MODE) >>> 2] = mode;
    this.i32[(this.base + L.PRIVILEGED) >>> 2] = mode !== MODE_USER && !this.deprivileged ? 1 : 0;
    this.updateContext();
  }

  /** The TLB tables for the present mode and sstatus.SUM. */
  updateContext(): void {
    this.tlb.updateContext(this.mode, this.sum);
  }

  /** satp has a new value, before which paging was as `wasPaging` says: the TLB's tables follow. */
  switchSpace(wasPaging: boolean): void {
    const at = (this.base + L.CSR_SATP) >>> 2;
    this.tlb.switchSpace(this.i32[at]!, this.i32[at + 1]!, this.paging !== wasPaging);
    this.updateContext();
  }

  /**
   * Maps the page of `va` in the present mode to `hostPage`, with RIGHT_*; `global` where that is so in all address spaces (PTE_G). A page
   * that has decoded code is entered without RIGHT_W unless this access is a write; then the code goes. A fetch leaves the data tables
   * alone: an instruction across two pages is fetched anew after its own data access has been filled, and must not push that out again.
   */
  tlbFill(va: number, hostPage: number, rights: number, access: Access, global = false): void {
    if (access === ACCESS_EXEC) {
      this.execHostPage = hostPage;
      this.execGlobal = global;
      return;
    }
    if ((rights & RIGHT_R) !== 0) this.tlb.fill(va, hostPage, false, global);
    if ((rights & RIGHT_W) === 0) return;
    if (this.engine.records.has(hostPage)) {
      if (access !== ACCESS_WRITE) return;
      this.engine.records.drop(hostPage);
      this.droppedCode = true;
    }
    this.tlb.fill(va, hostPage, true, global);
  }

  /** Host address of `va` for reading or writing, translating it if need be; below 0: the negative of an MmuResult. */
  hostAddress(va: number, access: Access): number {
    const hit = this.tlb.lookup(va, access);
    if (hit >= 0) return hit;
    const result = this.mmu.translate(this, va, access);
    return result === MMU_OK ? this.tlb.lookup(va, access) : -result;
  }

  /** `hostAddress` was accessed by the entry that the TLB has for `va`: for test builds (taggedhart.ts). */
  accessed(_va: number, _access: Access, _hostAddress: number): void {}

  /** Calls `fn` for each entry of the data TLBs: what it translates, to which host address, for reading or writing, and the entry's own address. */
  forEachTlbEntry(fn: (va: number, hostAddress: number, write: boolean, entry: number) => void): void {
    this.tlb.forEach(fn);
  }

  tlbFlushAll(): void {
    this.tlb.flushAll();
  }

  /** Forgets the page of `va` in all modes and address spaces. */
  tlbFlushPage(va: number): void {
    this.tlb.flushPage(va);
  }

  /** A host page leaves the guest: code decoded from it goes. Its translations go by `tlbFlushPage`. */
  dropCode(hostPage: number): void {
    this.engine.records.drop(hostPage);
  }

  destroy(): void {
    this.engine.destroyHart(this);
  }
}

/** `Hart.request` of the hart at address `base`, where there is no object for it. */
export function hartRequest(i32: Int32Array, base: number): void {
  Atomics.store(i32, (base + L.REQUEST) >>> 2, 1);
}

/** `Hart.setInterruptPending` of the hart at address `base`. */
export function hartSetInterruptPending(i32: Int32Array, base: number, cause: number, on: boolean): void {
  const sip = (base + L.CSR_SIP) >>> 2;
  if (on) Atomics.or(i32, sip, 1 << cause);
  else Atomics.and(i32, sip, ~(1 << cause));
}
