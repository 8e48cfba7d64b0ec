import { bug } from '../base/index.js';
import {
  SBI_EXT_0_1_SET_TIMER,
  SBI_EXT_BASE,
  SBI_EXT_IPI,
  SBI_EXT_RFENCE,
  SBI_EXT_TIME,
  Sbi,
  type SbiHost,
  type SbiResult,
} from '../machine/index.js';
import { PAGE_SIZE } from '../mm/index.js';
import { IRQ_S_SOFT } from '../riscv/index.js';
import { answerSbi, sbiCallOf } from './sbiregisters.js';
import type { VcpuCore } from './vcpucore.js';
import { REQ_FENCE_I, REQ_TLB_FLUSH } from './vcpustate.js';
import type { VmTables } from './vmtables.js';

/**
 * The SBI calls that a vCPU's thread answers by itself: its timer, interrupts and fences between harts. They reach other harts through shared words alone.
 * All others are left to the mm thread (sbi.ts).
 *
 *   hart A: remote fence of B                    hart B
 *   shadow entries go; fences counted
 *   B's requests |= flush                        in the guest: comes out, flushes
 *   waits, outside the guest itself              acknowledges; or is outside already
 *
 * Two that fence each other do not wait for ever: who waits is outside.
 */

const ANSWERED_HERE = new Set<bigint>(
  [SBI_EXT_0_1_SET_TIMER, SBI_EXT_BASE, SBI_EXT_TIME, SBI_EXT_IPI, SBI_EXT_RFENCE].map(BigInt),
);
/** A fence of more pages than these is one of the whole address space, which more than needed is always right for (N11). */
const MAX_FENCED_PAGES = 16n;

export class ThreadSbi implements SbiHost {
  private readonly core: VcpuCore;
  private readonly tables: VmTables;
  private readonly sbi: Sbi;

  constructor(core: VcpuCore, tables: VmTables) {
    this.core = core;
    this.tables = tables;
    this.sbi = new Sbi(this, tables.vcpus.length);
  }

  /** Whether the call that the hart left with is done. */
  ecall(): boolean {
    const { hart, id } = this.core;
    const call = sbiCallOf(hart);
    if (!ANSWERED_HERE.has(call.eid)) return false;
    answerSbi(hart, this.sbi.call(id, call) as SbiResult);
    return true;
  }

  setTimer(_hartId: number, ticks: number): void {
    this.core.timer.set(ticks);
  }

  sendIpi(hartIds: readonly number[]): void {
    for (const id of hartIds) this.tables.vcpus[id]!.setInterrupt(IRQ_S_SOFT, true);
  }

  remoteFenceI(hartIds: readonly number[]): void {
    this.ask(hartIds, REQ_FENCE_I);
  }

  remoteSfenceVma(hartIds: readonly number[], start: bigint, lenBytes: bigint | undefined, asid?: bigint): void {
    fenceRange(this.core, start, lenBytes, asid);
    this.ask(hartIds, REQ_TLB_FLUSH);
  }

  private ask(hartIds: readonly number[], bits: number): void {
    for (const id of hartIds) {
      if (id === this.core.id) this.core.serve(bits);
      else this.tables.vcpus[id]!.request(bits);
    }
    for (const id of hartIds) if (id !== this.core.id) this.tables.vcpus[id]!.awaitServed(bits);
  }

  clearIpi(): void {
    leftToOthers();
  }

  hartStatus(): undefined {
    leftToOthers();
  }

  hartStart(): number {
    return leftToOthers();
  }

  hartStop(): void {
    leftToOthers();
  }

  hartSuspend(): void {
    leftToOthers();
  }

  systemReset(): void {
    leftToOthers();
  }

  consoleWrite(): void {
    leftToOthers();
  }

  consoleRead(): number {
    return leftToOthers();
  }

  readGuest(): undefined {
    leftToOthers();
  }

  writeGuest(): boolean {
    return leftToOthers();
  }

  readGuestVirtual(): undefined {
    leftToOthers();
  }
}

function leftToOthers(): never {
  bug('N24', 'a call of the SBI that needs the mm thread was answered in the thread of a vCPU');
}

/** Drops the shadow entries of a range of virtual addresses; `lenBytes` undefined: of all. TLBs are for the caller. */
export function fenceRange(
  { mmu, hart }: VcpuCore,
  start: bigint,
  lenBytes: bigint | undefined,
  asid: bigint | undefined,
): void {
  const space = asid === undefined ? undefined : Number(asid & 0xffffn);
  const first = BigInt.asIntN(64, start) & ~0xfffn;
  const nrPages = lenBytes === undefined ? undefined : (BigInt.asIntN(64, start) + lenBytes + 0xfffn - first) >> 12n;
  if (nrPages === undefined || nrPages > MAX_FENCED_PAGES) {
    mmu.sfenceVma(hart, undefined, space);
    return;
  }
  for (let page = 0; page < Number(nrPages); page++) mmu.sfenceVma(hart, Number(first) + page * PAGE_SIZE, space);
}
