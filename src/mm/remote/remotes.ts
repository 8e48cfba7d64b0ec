import { CONFIG_PTE_NOTIFIERS, KernelError, Words } from '../../base/index.js';
import { NR_VPNS, PTRS_PER_TABLE } from '../layout.js';
import type { Mm } from '../mm.js';
import { MMU_NOTIFY_UNMAP, type MmuNotifierRange } from '../notifier/range.js';
import { PTE_NONE } from '../pgtable/pte.js';
import { PROT_WRITE, VM_LOCKED, VM_SHARED, type Vma } from '../vma/vma.js';
import { armEnd, armStart, mkArm } from './descriptor.js';
import { RemoteArea, type RemoteOptions } from './remotearea.js';

/**
 * The threads that map pages of an mm by themselves, and where they may: the arms of its leaf tables.
 *
 * A table is armed when the mm thread serves a write fault of plain memory in it: private, anonymous, writable, not locked, with an anonVma. The
 * next faults in that table are then the other threads' own. It is disarmed before anything of that changes (`vmaChanges`) and inside an UNMAP bracket.
 *
 * What the mm thread and the others may do to one pte at the same time, and why it is right:
 *
 *  - What takes a page or a right away, or moves ptes, is inside a bracket over them. Its start takes the driver's lock, under which `mapZero` runs; so
 *    none runs in the range from then on until the end, and what ran before is drained as soon as the start has returned (`bracketOpened`): munmap, exit, DONTNEED, FREE,
 *    mprotect, mremap (its old range; nobody can be at work in the new one), fork, soft-dirty clearing, reclaim, migration, truncation, copy-on-write, reaping.
 *  - An absent pte becomes present without a bracket. Here only `anonFault` can meet another thread: it writes by `publish`, one of the two wins, and the
 *    other looks again. Faults on files, shared memory and swap entries, and migration, are where no table is armed, or find a pte that is not 0.
 *  - A pte that is present changes its accessed bit without a bracket, in faults, aging, MADV_COLD: another thread never writes a pte that is not 0.
 *  - mlock and munlock change no pte. A thread may have read the arm before and map a page after: drained later, it is counted as the VMA is then;
 *    their walk leaves out what is not drained (`isUndrained`).
 *  - Splitting, merging and growing a VMA change nothing that an arm says. A page is given to the VMA and anonVma that its address has when it is drained;
 *    that there is an anonVma is why mremap and fork, which look for one before their bracket, see that the VMA may have pages.
 *  - A table is given back when it counts no entries. Those of other threads are counted late, so a table counts one more from its arming until UNMAP brackets
 *    have covered all of what was armed (`exposed`), though it be disarmed long before: a thread that has read the arm may still be on its way.
 *
 * A poisoned driver hears of no bracket any more. From then on its threads get no frames; one that is on its way right now is waited for shortly, and
 * if it has been stopped just there, the tables of this mm are not given back and what it maps after all is kept out of use, until it has ended (N19).
 */

/** Looks at a thread that is about to finish a page of zeros, some milliseconds of them. */
const MAX_SPINS = 100_000;

/** A leaf table, and the pages [start, end) of it where threads may be at work. */
interface Exposed {
  readonly table: number;
  start: number;
  end: number;
}

export class Remotes {
  private readonly mm: Mm;
  private readonly armsAddr: number;
  private readonly arms: Words;
  private readonly areas = new Set<RemoteArea>();
  /** By the number of 2 MiB of the mm. */
  private readonly exposed = new Map<number, Exposed>();
  /** A thread was stopped where nobody may wait for it. */
  private isStuck = false;
  /** The mm has exited meanwhile: its tables are given back when no thread has an area any more. */
  keepsTables = false;

  constructor(mm: Mm) {
    const { host } = mm;
    const { nrTables } = host.tables;
    this.mm = mm;
    this.armsAddr = host.arenaAlloc(nrTables * 4, 8);
    this.arms = new Words(host.memory, this.armsAddr, nrTables, { word: (i) => `arm of table ${i}` });
    for (let i = 0; i < nrTables; i++) this.arms.writeOnce(i, 0);
    mm.nrWatchers++;
  }

  create(options: RemoteOptions): RemoteArea {
    const { host } = this.mm;
    const { nrTables, addr } = host.tables;
    const descriptor = { armsAddr: this.armsAddr, tablesAddr: addr, nrTables };
    const area = new RemoteArea(this.mm, descriptor, options, () => this.forget(area));
    this.areas.add(area);
    host.remoteAreas.add(area);
    return area;
  }

  private forget(area: RemoteArea): void {
    const { mm } = this;
    this.areas.delete(area);
    mm.host.remoteAreas.delete(area);
    if (this.areas.size > 0) return;
    this.unexposeAll();
    if (this.keepsTables) mm.pageTable.destroy();
    mm.host.arenaFree(this.armsAddr, this.arms.length * 4);
    mm.remotes = undefined;
    mm.nrWatchers--;
  }

  drain(): void {
    for (const area of this.areas) area.drain();
  }

  /** The pte at `i`, which is absent, becomes `pte`; false when another thread was faster. */
  publish(i: number, pte: number): boolean {
    const { pageTable } = this.mm;
    if (pageTable.words.compareExchange(i, PTE_NONE, pte) !== PTE_NONE) return false;
    pageTable.addUsed(i, 1);
    return true;
  }

  /** The mm thread has served a write fault of untouched memory at `vpn`, whose pte is word `i`. */
  arm(vma: Vma, vpn: number, i: number): void {
    const table = Math.trunc(i / PTRS_PER_TABLE);
    if (this.arms.readOnce(table) !== 0 || !this.isPlain(vma, vma.prot, vma.flags)) return;
    const first = (vpn >>> 9) << 9;
    const [start, end] = [Math.max(first, vma.startVpn), Math.min(first + PTRS_PER_TABLE, vma.endVpn)];
    const arm = mkArm(start, end);
    if (arm === 0) return;
    this.expose(table, start, end);
    this.arms.store(table, arm);
  }

  private isPlain(vma: Vma, prot: number, flags: number): boolean {
    if (vma.file !== undefined || vma.anonVma === undefined || this.mm.oomKilled !== undefined) return false;
    return (prot & PROT_WRITE) !== 0 && (flags & (VM_SHARED | VM_LOCKED)) === 0;
  }

  private expose(table: number, start: number, end: number): void {
    const old = this.exposed.get(start >>> 9);
    if (old === undefined) {
      this.exposed.set(start >>> 9, { table, start, end });
      this.mm.pageTable.pin(table);
    } else {
      old.start = Math.min(start, old.start);
      old.end = Math.max(end, old.end);
    }
  }

  private unexpose(pages: Exposed): void {
    this.arms.store(pages.table, 0);
    this.exposed.delete(pages.start >>> 9);
    this.mm.pageTable.unpin(pages.table);
  }

  /** Nobody is at work anywhere. */
  private unexposeAll(): void {
    for (const pages of [...this.exposed.values()]) this.unexpose(pages);
  }

  /** Calls `fn` for what is exposed of the tables that [startVpn, endVpn) touches. */
  private forEachExposed(startVpn: number, endVpn: number, fn: (pages: Exposed) => void): void {
    const [first, last] = [startVpn >>> 9, (endVpn - 1) >>> 9];
    if (last - first >= this.exposed.size) {
      for (const [leaf, pages] of this.exposed) if (leaf >= first && leaf <= last) fn(pages);
      return;
    }
    for (let leaf = first; leaf <= last; leaf++) {
      const pages = this.exposed.get(leaf);
      if (pages !== undefined) fn(pages);
    }
  }

  /** [startVpn, endVpn) of the VMA is about to get these rights and flags. */
  vmaChanges(vma: Vma, startVpn: number, endVpn: number, prot: number, flags: number): void {
    if (!this.isPlain(vma, prot, flags)) this.disarm(startVpn, endVpn);
  }

  private disarm(startVpn: number, endVpn: number): void {
    this.forEachExposed(startVpn, endVpn, ({ table }) => {
      const arm = this.arms.readOnce(table);
      if (arm !== 0 && armStart(arm) < endVpn && armEnd(arm) > startVpn) this.arms.store(table, 0);
    });
  }

  /** The mm was killed: all faults are refused. */
  disarmAll(): void {
    this.disarm(0, NR_VPNS);
  }

  /** The starts of a bracket have returned, and no pte has been looked at yet. */
  bracketOpened(range: MmuNotifierRange): void {
    this.drain();
    if (range.event !== MMU_NOTIFY_UNMAP || range.nrRanges === 0) return;
    const [startVpn, endVpn] = [range.ranges[0]!, range.ranges[2 * range.nrRanges - 1]!];
    this.disarm(startVpn, endVpn);
    if (this.isStuck && this.areBusy()) return;
    this.isStuck = false;
    this.forEachExposed(startVpn, endVpn, (pages) => this.shrink(pages, startVpn, endVpn));
  }

  /** Nobody is at work in [startVpn, endVpn) any more. Where no VMA is, neither. */
  private shrink(pages: Exposed, startVpn: number, endVpn: number): void {
    const start = startVpn <= pages.start ? Math.max(pages.start, endVpn) : pages.start;
    const end = endVpn >= pages.end ? Math.min(pages.end, startVpn) : pages.end;
    if (start >= end || !this.mm.vmas.intersects(start, end)) this.unexpose(pages);
    else {
      pages.start = start;
      pages.end = end;
    }
  }

  /** A driver of the mm is poisoned: it hears of no bracket any more. */
  revoke(): void {
    this.disarmAll();
    for (const area of this.areas) area.revoke();
    for (let spins = 0; spins < MAX_SPINS && this.areBusy(); spins++);
    this.isStuck = this.areBusy();
  }

  private areBusy(): boolean {
    for (const area of this.areas) if (area.isBusy()) return true;
    return false;
  }

  /** Before the last bracket: who has found the root before it is stale when that ends. Where it does not concern a driver, its `release` tells it. */
  detach(): void {
    for (const area of this.areas) area.detach();
  }

  /** All of the mm is unmapped, and drivers are about to be released. False when its tables must not be given back yet. */
  mmExits(): boolean {
    for (const area of this.areas) area.revoke();
    this.keepsTables = this.isStuck && this.areBusy();
    if (!this.keepsTables) this.unexposeAll();
    return !this.keepsTables;
  }
}

/**
 * For a thread that has no `Mm`, and resolves faults by itself as far as page tables tell and the frames reach that it has in hand: a vCPU's worker. The
 * `descriptor` of what is returned goes to the thread, which makes a `RemoteMm` of it. Throws KernelError EINVAL, EFAULT (exited), ENOMEM (arena), ENOSYS
 * where notifiers are compiled out.
 */
export function createRemote(mm: Mm, options: RemoteOptions = {}): RemoteArea {
  if (!CONFIG_PTE_NOTIFIERS)
    throw new KernelError('ENOSYS', 'createRemote', 'this build has no notifiers (CONFIG_PTE_NOTIFIERS)');
  if (mm.exited) throw new KernelError('EFAULT', 'createRemote', `${mm.name} has exited`);
  mm.remotes ??= new Remotes(mm);
  return mm.remotes.create(options);
}
