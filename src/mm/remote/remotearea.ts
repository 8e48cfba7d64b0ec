import { KernelError, Words } from '../../base/index.js';
import type { Host } from '../host.js';
import type { Mm } from '../mm.js';
import { PG_DIRTY, PG_SWAPBACKED } from '../page/frames.js';
import { putPage } from '../page/page.js';
import { PTE_NONE, pteIsPresent, ptePfn } from '../pgtable/pte.js';
import { addNewAnonRmap } from '../rmap/rmap.js';
import {
  AREA_FILLED,
  AREA_HEAD,
  AREA_ROOT,
  areaLabel,
  areaWords,
  type RemoteDescriptor,
  slotPfn,
  slotVpn,
} from './descriptor.js';

/**
 * The mm thread's half of a thread that resolves faults by itself (remotemm.ts is the other): the frames that it may use, and what became of them.
 *
 * Use: `createRemote(mm)`; send `descriptor` to the thread, which makes a `RemoteMm` of it; `refill` whenever the thread asks for something, and
 * before it begins; `recover` when it has ended; `destroy`. mm itself calls `drain` wherever it looks at what threads may have mapped.
 *
 * The other thread may be stopped for ever between any two stores. Each frame is then one of two things, and the pte tells which (N25):
 *
 *   other thread                         stopped before this store, `recover` finds
 *   slot vpn = page                      vpn 0: the frame was not used
 *   pte: none -> frame                   vpn is set, pte has not the frame: not used
 *   HEAD + 1                             vpn is set, pte has the frame: used, and accounted for here
 *   slot vpn = 0 (it gave up)            vpn is set, pte has not the frame: not used
 *
 * Required outcome: no frame is lost or in two places. Proved by test/mm/remote.test.ts, and by test/mm/remoteworkers.test.ts with workers that are terminated.
 */

/** Frames for one thread, where the host is large. */
const DEFAULT_CAPACITY = 64;
const MAX_CAPACITY = 4096;
/** Of the host's frames, what all areas together may hold unused. */
const SHARE_SHIFT = 4;

export interface RemoteOptions {
  /** Frames that the thread may have in hand, a power of two up to 4096; default 64. On hosts of less than 1024 frames for each it gets fewer, or none. */
  readonly nrFrames?: number;
}

export class RemoteArea {
  readonly descriptor: RemoteDescriptor;
  readonly mm: Mm;
  private readonly host: Host;
  private readonly words: Words;
  private readonly capacity: number;
  private readonly onDestroy: () => void;
  /** Positions up to here are accounted for. */
  private drained = 0;
  /** And up to here they have frames. */
  private filled = 0;
  /** Nothing is given out any more. */
  private revoked = false;
  private destroyed = false;
  /** Frames that were mapped where nothing may be: a poisoned driver may still use them (N19). */
  private readonly orphans: number[] = [];

  constructor(
    mm: Mm,
    descriptor: Omit<RemoteDescriptor, 'areaAddr' | 'capacity'>,
    options: RemoteOptions,
    onDestroy: () => void,
  ) {
    const capacity = checkCapacity(options.nrFrames ?? DEFAULT_CAPACITY);
    this.mm = mm;
    this.host = mm.host;
    this.capacity = capacity;
    this.onDestroy = onDestroy;
    const areaAddr = this.host.arenaAlloc(areaWords(capacity) * 4, 8);
    this.descriptor = { ...descriptor, areaAddr, capacity };
    this.words = new Words(this.host.memory, areaAddr, areaWords(capacity), { word: (i) => areaLabel(i, capacity) });
    for (let i = 0; i < areaWords(capacity); i++) this.words.writeOnce(i, 0);
    this.words.store(AREA_ROOT, mm.pageTable.rootIndex);
  }

  /** Frames that the thread has and has not used, one in use right now among them. */
  get nrFrames(): number {
    return (this.filled - this.drained) | 0;
  }

  /**
   * Gives the thread frames, as long as the host has more than it needs for itself: none on small hosts, or under memory pressure. Then
   * the thread asks the mm thread for each page. Returns how many it has then.
   */
  refill(): number {
    if (this.revoked || this.mm.oomKilled !== undefined) return 0;
    this.drain();
    const { frames, reclaim } = this.host;
    let room = Math.min(this.capacity - this.nrFrames, (frames.nrFrames >>> SHARE_SHIFT) - this.host.nrRemoteFrames);
    for (; room > 0; room--) {
      const pfn = frames.alloc(reclaim.reserve);
      if (pfn === 0) break;
      frames.flags[pfn] = PG_DIRTY | PG_SWAPBACKED;
      this.words.writeOnce(slotPfn(this.filled, this.capacity), pfn);
      this.filled = (this.filled + 1) | 0;
      this.host.nrRemoteFrames++;
    }
    this.words.store(AREA_FILLED, this.filled);
    return this.nrFrames;
  }

  /** Accounts for all pages that the thread has mapped so far: then they are pages like any others. */
  drain(): void {
    const head = this.words.load(AREA_HEAD);
    while (((head - this.drained) | 0) > 0) this.drainOne();
    // It may have written the pte, and not moved the position yet: or never will.
    if (this.drained === head && this.filled !== head && this.isMapped(head)) this.drainOne();
  }

  /** Whether the page that the slot of `position` names has the slot's frame. */
  private isMapped(position: number): boolean {
    const vpn = this.words.load(slotVpn(position, this.capacity));
    if (vpn === 0) return false;
    const i = this.mm.pageTable.find(vpn);
    const pte = i === 0 ? PTE_NONE : this.mm.pageTable.words.load(i);
    return pteIsPresent(pte) && ptePfn(pte) === this.words.readOnce(slotPfn(position, this.capacity));
  }

  private drainOne(): void {
    const { words, capacity, drained } = this;
    const slot = slotVpn(drained, capacity);
    const vpn = words.load(slot);
    words.store(slot, 0);
    this.drained = (drained + 1) | 0;
    this.account(vpn, words.readOnce(slotPfn(drained, capacity)));
  }

  /** As the rest of a fault on the mm thread (fault.ts). The VMA may have changed since, but not gone: for that a bracket has to open first. */
  private account(vpn: number, pfn: number): void {
    const { host, mm } = this;
    const i = mm.pageTable.find(vpn);
    const vma = mm.vmas.find(vpn);
    if (vma === undefined || vma.file !== undefined) {
      mm.pageTable.words.store(i, PTE_NONE);
      this.orphans.push(pfn);
      return;
    }
    host.nrRemoteFrames--;
    addNewAnonRmap(host, vma, vpn, pfn);
    mm.pageTable.addUsed(i, 1);
    host.workingset.enter(pfn);
    host.lru.add(pfn);
    host.vmstat.pgfault++;
    host.vmstat.remoteFaults++;
  }

  /**
   * Takes back what the thread has not used, but for one frame that it may be using right now; `refill` gives again. Called when frames
   * are short (N26).
   *
   *   mm thread                            other thread
   *   FILLED = drained                     slot vpn = page
   *   slot vpn at HEAD looked at           FILLED looked at
   *
   * Required outcome: the frame is not taken by both. Proved by test/explore/models/remote.ts.
   */
  takeBack(): void {
    this.drain();
    const { words, capacity } = this;
    words.store(AREA_FILLED, this.drained);
    let keep = words.load(AREA_HEAD);
    if (((this.drained - keep) | 0) > 0) keep = this.drained;
    if (keep !== this.filled && words.load(slotVpn(keep, capacity)) !== 0) keep = (keep + 1) | 0;
    while (this.filled !== keep) {
      this.filled = (this.filled - 1) | 0;
      this.free(words.readOnce(slotPfn(this.filled, capacity)));
    }
    if (!this.revoked) words.store(AREA_FILLED, this.filled);
  }

  private free(pfn: number): void {
    this.host.nrRemoteFrames--;
    putPage(this.host, pfn);
  }

  /** The thread maps nothing any more, but for a page that it may be mapping right now. It keeps reading. */
  revoke(): void {
    this.revoked = true;
    this.takeBack();
  }

  /** Whether the thread may be about to write a pte. */
  isBusy(): boolean {
    this.drain();
    return this.filled !== this.drained && this.words.load(slotVpn(this.drained, this.capacity)) !== 0;
  }

  /** The mm goes: the thread finds nothing from now on. */
  detach(): void {
    this.words.store(AREA_ROOT, 0);
  }

  /** The thread has ended, and its driver has forgotten what it mapped: its frames come back. Another thread may use the descriptor then. */
  recover(): void {
    if (this.destroyed) return;
    this.drain();
    const { words, capacity } = this;
    words.store(slotVpn(this.drained, capacity), 0);
    words.store(AREA_HEAD, this.drained);
    this.takeBack();
    for (const pfn of this.orphans.splice(0)) this.free(pfn);
  }

  /** The thread has ended and there will be no other. */
  destroy(): void {
    if (this.destroyed) return;
    this.recover();
    this.destroyed = true;
    this.onDestroy();
    this.host.arenaFree(this.descriptor.areaAddr, areaWords(this.capacity) * 4);
  }

  /** Calls `fn` for each frame that the thread has and the mm thread has not accounted for: for the checker. */
  forEachFrame(fn: (pfn: number) => void): void {
    for (let p = this.drained; p !== this.filled; p = (p + 1) | 0) fn(this.words.readOnce(slotPfn(p, this.capacity)));
    this.orphans.forEach(fn);
  }
}

function checkCapacity(nrFrames: number): number {
  const isPower = Number.isInteger(nrFrames) && (nrFrames & (nrFrames - 1)) === 0;
  if (isPower && nrFrames >= 1 && nrFrames <= MAX_CAPACITY) return nrFrames;
  throw new KernelError(
    'EINVAL',
    'createRemote',
    `nrFrames ${nrFrames} must be a power of two from 1 to ${MAX_CAPACITY}`,
  );
}
