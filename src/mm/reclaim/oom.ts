import { KernelError } from '../../base/index.js';
import type { Host } from '../host.js';
import { PAGE_SIZE, TABLE_BYTES } from '../layout.js';
import type { Mm } from '../mm.js';
import {
  mmuNotifierInBracket,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
  mmuNotifierRangeAdd,
  mmuNotifierRangeInit,
  nrPinned,
} from '../notifier/hooks.js';
import { MMU_NOTIFY_UNMAP } from '../notifier/range.js';
import { pteIsSwap } from '../pgtable/pte.js';
import { remotesDisarm, remotesDrain } from '../remote/hooks.js';
import { isUndrained } from '../remote/undrained.js';
import { zapPages } from '../vma/unmap.js';
import type { Vma } from '../vma/vma.js';

/**
 * Out of memory (Linux: oom_kill.c). When direct reclaim makes no progress, the mm that has most (resident pages, swapped ones and
 * page tables, shifted by its `oomScoreAdj`) dies so that the host and all others live. It loses its memory at once, in brackets
 * that may not block: a driver that refuses keeps that VMA's pages until somebody runs out of memory again, or the mm exits
 * (N12). From then on each fault of the victim is answered by FAULT_OOM and by ENOMEM with the reason; `exit` is its owner's to call.
 *
 *   waiter A                               victim V
 *   reclaim gains nothing                  waits in faultIn for its page
 *   V is chosen, marked, reaped
 *   takes a frame, goes on                 wakes, looks again: marked -> ENOMEM, maps nothing
 *
 * Required outcome: nobody maps a page into V once it is marked, and no mm is chosen twice. Proved by test/mm/oom.test.ts.
 *
 * An mm that is alone in its host is not killed for its own sake: nobody would win. It is refused, and keeps what it has.
 */

/** 'kill': the largest mm dies. 'refuse': whoever asks gets ENOMEM, and nobody else is told. */
export type OomMode = 'kill' | 'refuse';

/** As the badness of the process counts for nothing: it is never chosen. */
export const OOM_SCORE_ADJ_MIN = -1000;
/** It is chosen before all others. */
export const OOM_SCORE_ADJ_MAX = 1000;

/** Who needed memory, and what for: for the report. */
export interface OomAsker {
  readonly mm: Mm;
  readonly va: number;
}

/** A row of the report. */
export interface OomCandidate {
  readonly mm: Mm;
  readonly residentPages: number;
  readonly swapPages: number;
  readonly tablePages: number;
  readonly oomScoreAdj: number;
  /** Pages, shifted by oomScoreAdj thousandths of frames and swap; undefined: protected, dead already, or without pages. */
  readonly badness: number | undefined;
}

export interface OomReport {
  readonly victim: Mm;
  /** One line: for whom, what was short, and why this mm. */
  readonly reason: string;
  readonly candidates: readonly OomCandidate[];
  /** Frames that came free at once. */
  readonly framesFreed: number;
  /** All of it as a table for people, as Linux logs it. */
  readonly text: string;
}

export class Oom {
  private readonly host: Host;
  private readonly mode: OomMode;
  private readonly onOom: ((report: OomReport) => void) | undefined;
  /** VMAs of victims whose drivers refused to give them up. */
  private readonly refused = new Map<Mm, Vma[]>();

  constructor(host: Host, mode: OomMode, onOom: ((report: OomReport) => void) | undefined) {
    this.host = host;
    this.mode = mode;
    this.onOom = onOom;
  }

  /** Reclaim has given up. True when it is worth trying again: something was freed, or a victim found. */
  outOfMemory(asker: OomAsker | undefined): boolean {
    if (this.mode === 'refuse') return false;
    if (this.reapAgain()) return true;
    const candidates = [...this.host.mms].map((mm) => this.candidate(mm));
    const chosen = choose(candidates);
    if (chosen === undefined || (this.host.mms.size === 1 && asker?.mm === chosen.mm)) return false;
    this.kill(chosen, candidates, asker);
    return true;
  }

  /** Linux: oom_badness. */
  private candidate(mm: Mm): OomCandidate {
    const { frames, swap } = this.host;
    remotesDrain(mm);
    const { residentPages, oomScoreAdj } = mm;
    const swapPages = countSwapPages(mm);
    const tablePages = Math.ceil(
      (mm.pageTable.countTables((pte) => isUndrained(frames, pte)) * TABLE_BYTES) / PAGE_SIZE,
    );
    const pages = residentPages + swapPages + tablePages;
    const immune = oomScoreAdj === OOM_SCORE_ADJ_MIN || mm.oomKilled !== undefined || residentPages + swapPages === 0;
    const badness = immune ? undefined : pages + Math.trunc((oomScoreAdj * (frames.nrFrames + swap.nrSlots)) / 1000);
    return { mm, residentPages, swapPages, tablePages, oomScoreAdj, badness };
  }

  private kill(chosen: OomCandidate, candidates: readonly OomCandidate[], asker: OomAsker | undefined): void {
    const { host } = this;
    const { mm } = chosen;
    const reason = `out of memory: ${describeAsker(asker)}; ${describeShortage(host)}; chosen with ${describeSize(chosen)}`;
    mm.oomKilled = reason;
    remotesDisarm(mm);
    host.vmstat.oomKill++;
    const before = host.frames.nrFree;
    this.reap(mm, mm.vmas.all());
    const report: OomReport = {
      victim: mm,
      reason,
      candidates,
      framesFreed: host.frames.nrFree - before,
      text: reportText(host, mm, candidates, host.frames.nrFree - before),
    };
    const { onOom } = this;
    if (onOom !== undefined) host.defer(() => onOom(report));
  }

  /** Takes the pages of the VMAs away, and keeps in mind what a driver would not give up (Linux: __oom_reap_task_mm). */
  private reap(mm: Mm, vmas: readonly Vma[]): void {
    const refused = vmas.filter((vma) => !this.reapVma(mm, vma));
    if (refused.length > 0) this.refused.set(mm, refused);
    else this.refused.delete(mm);
    this.host.gather.free();
  }

  private reapVma(mm: Mm, vma: Vma): boolean {
    const { pageTable } = mm;
    if (mm.mmapLock.held || mmuNotifierInBracket(mm)) return false;
    mmuNotifierRangeInit(mm, MMU_NOTIFY_UNMAP);
    mmuNotifierRangeAdd(mm, vma.startVpn, vma.endVpn);
    if (mmuNotifierInvalidateRangeStart(mm, false) !== 0) return false;
    zapPages(vma, vma.startVpn, vma.endVpn);
    pageTable.prune(vma.startVpn, vma.endVpn);
    mmuNotifierInvalidateRangeEnd(mm);
    return true;
  }

  /** Whether a driver that refused before has given something up now. */
  private reapAgain(): boolean {
    const { frames, swap } = this.host;
    const before = frames.nrFree + swap.nrFree;
    for (const [mm, vmas] of [...this.refused]) this.reap(mm, vmas);
    return frames.nrFree + swap.nrFree > before;
  }

  /** The mm exits, which takes everything. */
  forget(mm: Mm): void {
    this.refused.delete(mm);
  }
}

/** Of those with any badness the one with most; the oldest of equals. */
function choose(candidates: readonly OomCandidate[]): OomCandidate | undefined {
  let chosen: OomCandidate | undefined;
  for (const c of candidates) {
    if (c.badness !== undefined && c.badness > (chosen?.badness ?? Number.NEGATIVE_INFINITY)) chosen = c;
  }
  return chosen;
}

/** Walked, not counted: nobody else asks, and this is asked when nothing is left to lose. */
function countSwapPages(mm: Mm): number {
  let nrPages = 0;
  mm.pageTable.visit((_vpn, pte) => {
    if (pteIsSwap(pte)) nrPages++;
  });
  return nrPages;
}

/** Throws KernelError ENOMEM with the reason when the mm was killed. */
export function refuseKilled(mm: Mm, syscall: string): void {
  if (mm.oomKilled !== undefined) throw new KernelError('ENOMEM', syscall, `${mm.name} was killed, ${mm.oomKilled}`);
}

export function checkOomScoreAdj(value: number): number {
  if (Number.isInteger(value) && value >= OOM_SCORE_ADJ_MIN && value <= OOM_SCORE_ADJ_MAX) return value;
  throw new KernelError(
    'EINVAL',
    'createMm',
    `oomScoreAdj ${value} must be an integer from ${OOM_SCORE_ADJ_MIN} to ${OOM_SCORE_ADJ_MAX}`,
  );
}

function describeAsker(asker: OomAsker | undefined): string {
  return asker === undefined
    ? 'the host needs a frame'
    : `${asker.mm.name} needs a frame for address 0x${asker.va.toString(16)}`;
}

/** What there is of frames and swap, when reclaim has given up. */
export function describeShortage(host: Host): string {
  const { frames, swap } = host;
  return (
    `of ${frames.nrFrames} frames ${host.nrMlocked + nrPinned(host)} are pinned, ` +
    `of ${swap.nrSlots} swap slots ${swap.nrFree} are free, and nothing can be reclaimed`
  );
}

function describeSize(c: OomCandidate): string {
  return `${c.residentPages} pages resident, ${c.swapPages} in swap, ${c.tablePages} of page tables, oomScoreAdj ${c.oomScoreAdj}`;
}

function reportText(host: Host, victim: Mm, candidates: readonly OomCandidate[], framesFreed: number): string {
  const head = ['id', 'name', 'resident', 'swap', 'tables', 'oomScoreAdj', 'badness'];
  const rows = candidates.map((c) => [
    ...[`${c.mm.id}`, c.mm.name, `${c.residentPages}`, `${c.swapPages}`, `${c.tablePages}`, `${c.oomScoreAdj}`],
    c.badness === undefined ? '-' : `${c.badness}`,
  ]);
  const widths = head.map((h, i) => Math.max(h.length, ...rows.map((row) => row[i]!.length)));
  const line = (row: readonly string[]) => row.map((cell, i) => cell.padStart(widths[i]!)).join('  ');
  const lines = [`${victim.name} was killed, ${victim.oomKilled}`, ...[head, ...rows].map(line)];
  return `${lines.join('\n')}\n${framesFreed} frames and their swap slots were won; ${host.frames.nrFree} frames are free\n`;
}
