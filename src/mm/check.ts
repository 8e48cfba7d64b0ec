import { bug, CONFIG_PTE_NOTIFIERS } from '../base/index.js';
import { checkFilePte, checkFileVma, checkPageCache } from './file/checkfile.js';
import type { Host } from './host.js';
import { NR_VPNS, VA_SIZE } from './layout.js';
import type { Mm } from './mm.js';
import { mmuNotifierInBracket, nrPinned } from './notifier/hooks.js';
import {
  PG_DIRTY,
  PG_FREE,
  PG_LOCKED,
  PG_LRU,
  PG_MLOCKED,
  PG_PINNED,
  PG_SWAPBACKED,
  PG_SWAPCACHE,
  PG_WRITEBACK,
} from './page/frames.js';
import { listOf, NR_LRU_LISTS } from './page/lru.js';
import {
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_READ,
  PTE_SOFT_DIRTY,
  PTE_WRITE,
  pteIsPoison,
  pteIsPresent,
  pteIsSame,
  pteIsSwap,
  ptePfn,
  pteSameNumber,
  pteSwapSlot,
} from './pgtable/pte.js';
import { nrRemoteFrames, remotesDrainAll, remotesKeepTables } from './remote/hooks.js';
import { isUndrained } from './remote/undrained.js';
import { isAnon, rmapVisit } from './rmap/rmap.js';
import type { Vma } from './vma/vma.js';
import { VmCounters } from './vma/vmcounters.js';

/**
 * The whole-state checker: walks everything and compares what is counted with what is there. For tests, between operations
 * (transfers may be under way). Throws BrokenInvariant.
 *
 * N5: a pte allows what its VMA does, and no write to the zero page. N20: an exclusive frame is one pte's alone. N4: every reference is accounted for, a free frame has none. N6: mapcount is the number of ptes. N7: no bracket and no mmapLock is left
 * open. N15, N27: writable means dirty, clean means the slot (or zeros) has it. N19: pinned frames are never free. N21: a VMA is found
 * for each pte. N22: slots, swap cache and ptes agree.
 *
 * @param heldRefs references that the caller holds from `tryGetPage`.
 */
export function checkHost(host: Host, heldRefs = 0): void {
  const seen: Seen = {
    mapcount: new Int32Array(host.frames.endPfn),
    mlockcount: new Int32Array(host.frames.endPfn),
    exclusive: [],
    slotCount: new Int32Array(host.swap.nrSlots),
    sameCount: new Int32Array(host.sameFilled.nrNumbers),
    remote: new Set(),
    tables: 0,
  };
  const vm = new VmCounters();
  remotesDrainAll(host);
  for (const mm of host.mms) {
    checkMm(mm, seen);
    for (const vma of mm.vmas.all()) vm.add(vma, vma.nrPages);
  }
  checkCounters('the host', host.vm, vm);
  checkExclusive(host, seen);
  checkPageCache(host, seen.slotCount);
  checkTables(host, seen);
  checkRemotes(host, seen);
  checkFrames(host, seen, heldRefs + nrRemoteFrames(host));
  checkLists(host);
  checkSlots(host, seen);
  checkSameFilled(host, seen);
}

interface Seen {
  readonly mapcount: Int32Array;
  readonly mlockcount: Int32Array;
  /** Frames that a pte has for itself. */
  readonly exclusive: number[];
  readonly slotCount: Int32Array;
  /** By number of a value, the ptes that name it. */
  readonly sameCount: Int32Array;
  /** Frames in the hands of other threads. */
  readonly remote: Set<number>;
  /** Tables reached from roots. */
  tables: number;
}

function checkMm(mm: Mm, seen: Seen): void {
  if (mmuNotifierInBracket(mm)) bug('N7', `${mm.name}: a bracket is left open`);
  if (mm.mmapLock.held) bug('N7', `${mm.name}: mmapLock is left held`);
  checkVmas(mm);
  checkSubscriptions(mm);
  let resident = 0;
  mm.pageTable.visit((vpn, pte) => {
    const vma = mm.vmas.find(vpn);
    if (vma === undefined) bug('N21', `${mm.name}: pte of page 0x${vpn.toString(16)} without a VMA`);
    if (isUndrained(mm.host.frames, pte)) return;
    if (pteIsPresent(pte)) {
      if (ptePfn(pte) !== mm.host.frames.zeroPfn) resident++;
      checkPresent(vma, vpn, pte, seen);
    } else if (pteIsSwap(pte)) seen.slotCount[pteSwapSlot(pte)]!++;
    else if (pteIsSame(pte)) seen.sameCount[pteSameNumber(pte)]!++;
    else if (!pteIsPoison(pte)) bug('N22', `pte 0x${(pte >>> 0).toString(16)} is of no kind`);
  });
  if (resident !== mm.residentPages) bug('N6', `${mm.name}: ${resident} pages present, ${mm.residentPages} counted`);
  seen.tables += mm.pageTable.countTables((pte) => isUndrained(mm.host.frames, pte));
}

function checkVmas(mm: Mm): void {
  let end = 0;
  const vm = new VmCounters();
  for (const vma of mm.vmas.all()) {
    const ok = vma.startVpn >= end && vma.startVpn < vma.endVpn && vma.endVpn <= NR_VPNS;
    if (!ok) bug('N21', `${mm.name}: VMA [0x${vma.start.toString(16)}, 0x${vma.end.toString(16)}) out of order`);
    end = vma.endVpn;
    vm.add(vma, vma.nrPages);
    if (vma.anonVma !== undefined && !linked(vma, vma.startVpn)) bug('N6', `${mm.name}: VMA not in its anonVma`);
    if (vma.file !== undefined) checkFileVma(vma);
  }
  checkTree(mm);
  checkCounters(mm.name, mm.vm, vm);
}

function checkCounters(name: string, counted: VmCounters, found: VmCounters): void {
  for (const field of ['total', 'data', 'exec', 'locked', 'committed'] as const) {
    if (counted[field] !== found[field])
      bug('N21', `${name}: ${found[field]} pages ${field}, ${counted[field]} counted`);
  }
}

/** N21: the tree has the VMAs of the list, in their order, and each knows the largest hole below it. */
function checkTree(mm: Mm): void {
  const list = mm.vmas.all();
  if (list.length !== mm.vmas.length) bug('N21', `${mm.name}: ${list.length} VMAs, ${mm.vmas.length} counted`);
  let end = 0;
  for (const [i, vma] of list.entries()) {
    const { left, right, parent } = vma;
    const ok =
      vma.prev === list[i - 1] && mm.vmas.firstEndingAfter(vma.startVpn) === vma && vma.gap === vma.startVpn - end;
    const heap =
      parent === undefined || (parent.priority >= vma.priority && (parent.left === vma || parent.right === vma));
    const maxGap = Math.max(vma.gap, left?.maxGap ?? 0, right?.maxGap ?? 0);
    if (!ok || !heap || maxGap !== vma.maxGap)
      bug('N21', `${mm.name}: the tree of VMAs is broken at 0x${vma.start.toString(16)}`);
    end = vma.endVpn;
  }
}

function linked(vma: Vma, vpn: number): boolean {
  const last = vma.endVpn - 1;
  const has = (page: number) => vma.anonVma!.visit(vma.pgoffOf(page), (other) => other === vma);
  return has(vpn) && has(last);
}

function checkSubscriptions(mm: Mm): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  for (const sub of mm.notifiers.all()) {
    if (!sub.registered || sub.mm !== mm) bug('N17', `${mm.name}: a subscription that is not registered is still kept`);
    if (sub.pinned.size > 0 && sub.poisoned === undefined)
      bug('N19', `${mm.name}: a subscription that broke nothing pins ${sub.pinned.size} frames`);
    if (sub.start < 0 || sub.end > VA_SIZE) bug('N16', `${mm.name}: a subscription out of the address space`);
  }
}

function checkPresent(vma: Vma, vpn: number, pte: number, seen: Seen): void {
  const { host } = vma.mm;
  const { flags } = host.frames;
  const pfn = ptePfn(pte);
  const where = `${vma.mm.name}: page 0x${vpn.toString(16)}, frame ${pfn}`;
  if (((pte & PTE_READ) !== 0) !== vma.allows(false))
    bug('N5', `${vma.mm.name}: page 0x${vpn.toString(16)}: rights differ from its VMA's`);
  if (pfn === host.frames.zeroPfn) {
    if ((pte & PTE_WRITE) !== 0) bug('N5', `${vma.mm.name}: page 0x${vpn.toString(16)} may write the zero page`);
    return;
  }
  if (!host.frames.isFrame(pfn) || (flags[pfn]! & PG_FREE) !== 0) bug('N4', `${where} is mapped but free`);
  if ((flags[pfn]! & PG_LOCKED) !== 0) bug('N22', `${where} is mapped while it is read`);
  seen.mapcount[pfn]!++;
  if (vma.locked) seen.mlockcount[pfn]!++;
  if ((pte & PTE_EXCLUSIVE) !== 0) seen.exclusive.push(pfn);
  // So mprotect may give back the right to write without a look at the frame, and reclaim need not look at the ptes.
  if ((pte & PTE_DIRTY) !== 0 && (flags[pfn]! & PG_DIRTY) === 0) bug('N15', `${where} is clean, its pte is dirty`);
  if ((pte & PTE_WRITE) !== 0 && (pte & PTE_SOFT_DIRTY) === 0) bug('N15', `${where} is writable and not soft-dirty`);
  if ((pte & PTE_WRITE) !== 0 && ((pte & PTE_DIRTY) === 0 || (flags[pfn]! & PG_DIRTY) === 0)) {
    bug('N15', `${where} is writable but clean`);
  }
  if ((pte & PTE_WRITE) !== 0 && !vma.allows(true)) bug('N15', `${where} is writable, its VMA is not`);
  if (!rmapVisit(host, pfn, (v, page) => v === vma && page === vpn))
    bug('N6', `${where} is not found by the reverse map`);
  checkClean(vma, pfn, where);
  if (vma.file !== undefined) checkFilePte(vma, vpn, pte);
}

/** Who may write a frame without asking is alone with it, its swap slot included. */
function checkExclusive(host: Host, seen: Seen): void {
  const { frames, swap } = host;
  for (const pfn of seen.exclusive) {
    const slot = (frames.flags[pfn]! & PG_SWAPCACHE) !== 0 ? frames.private[pfn]! : -1;
    const named = slot < 0 ? 0 : swap.count[slot]!;
    if (frames.mapcount[pfn] !== 1 || named !== 0)
      bug('N20', `frame ${pfn} is exclusive, with mapcount ${frames.mapcount[pfn]} and ${named} swap ptes`);
  }
}

/** An anonymous page that is clean is in a swap slot: it may be dropped without a write. Given up by MADV_FREE it may be, too. */
function checkClean(vma: Vma, pfn: number, where: string): void {
  const { host } = vma.mm;
  const flags = host.frames.flags[pfn]!;
  if (!isAnon(host, pfn) || (flags & (PG_DIRTY | PG_SWAPCACHE)) !== 0 || (flags & PG_SWAPBACKED) === 0) return;
  bug('N15', `${where} is clean, and in no slot`);
}

/** A frame that another thread has in hand is one thread's, and in no list. */
function checkRemotes(host: Host, seen: Seen): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  const { flags, mapcount } = host.frames;
  const known = seen.remote;
  for (const area of host.remoteAreas)
    area.forEachFrame((pfn) => {
      if (known.has(pfn)) bug('N25', `frame ${pfn} is in the hands of two threads`);
      known.add(pfn);
      if ((flags[pfn]! & ~PG_PINNED) !== (PG_DIRTY | PG_SWAPBACKED) || mapcount[pfn] !== 0)
        bug(
          'N25',
          `frame ${pfn} is in a thread's hands, with flags 0x${flags[pfn]!.toString(16)}, mapcount ${mapcount[pfn]}`,
        );
    });
  if (known.size !== host.nrRemoteFrames)
    bug('N25', `${known.size} frames are in the hands of threads, ${host.nrRemoteFrames} counted`);
}

function checkTables(host: Host, seen: Seen): void {
  const { tables } = host;
  const used = tables.nrTables - 1 - tables.nrFree;
  for (const mm of remotesKeepTables(host)) seen.tables += mm.pageTable.countTables(() => false);
  if (used !== seen.tables) bug('N4', `${used} page tables in use, ${seen.tables} reached`);
}

function checkFrames(host: Host, seen: Seen, heldRefs: number): void {
  const { frames } = host;
  let extra = frames.refcount[frames.zeroPfn]! - 1;
  let mlocked = 0;
  let pinned = 0;
  for (let pfn = frames.firstPfn; pfn < frames.endPfn; pfn++) {
    const flags = frames.flags[pfn]!;
    if ((flags & PG_MLOCKED) !== 0) mlocked++;
    const pins = nrPinned(host) === 0 ? 0 : (host.pins.get(pfn) ?? 0);
    if (((flags & PG_PINNED) !== 0) !== pins > 0)
      bug('N19', `frame ${pfn} is pinned ${pins} times, and its flag differs`);
    pinned += pins;
    if (frames.mapcount[pfn] !== seen.mapcount[pfn]) {
      bug('N6', `frame ${pfn}: mapcount ${frames.mapcount[pfn]}, mapped by ${seen.mapcount[pfn]} ptes`);
    }
    if (
      frames.mlockcount[pfn] !== seen.mlockcount[pfn] ||
      ((flags & PG_MLOCKED) !== 0) !== (seen.mlockcount[pfn] !== 0)
    ) {
      bug('N27', `frame ${pfn}: mlockcount ${frames.mlockcount[pfn]}, mapped by ${seen.mlockcount[pfn]} locked VMAs`);
    }
    extra += checkFrame(host, pfn, flags, seen);
  }
  if (extra !== heldRefs + pinned)
    bug('N4', `${extra} references beyond ptes and caches, ${heldRefs} held, ${pinned} pinned`);
  if (mlocked !== host.nrMlocked) bug('N27', `${mlocked} frames mlocked, ${host.nrMlocked} counted`);
}

/** Returns the references that neither ptes, nor the swap cache, nor a read account for. */
function checkFrame(host: Host, pfn: number, flags: number, seen: Seen): number {
  const { frames, swap } = host;
  const refcount = frames.refcount[pfn]!;
  if ((flags & PG_FREE) !== 0) {
    if (refcount !== 0 || flags !== PG_FREE)
      bug('N4', `free frame ${pfn}: refcount ${refcount}, flags 0x${flags.toString(16)}`);
    return 0;
  }
  if (refcount <= 0) bug('N4', `frame ${pfn} is in use with refcount ${refcount}`);
  const cached = (flags & PG_SWAPCACHE) !== 0;
  if (cached && swap.cache[frames.private[pfn]!] !== pfn) bug('N22', `frame ${pfn} is not what its swap slot caches`);
  const onList = (flags & PG_LRU) !== 0;
  const inFile = frames.mapping[pfn]! < 0;
  const isShmem = (flags & PG_SWAPBACKED) !== 0;
  // A page of a file stays on its list while it is written.
  const busy = (flags & PG_LOCKED) !== 0 || ((flags & PG_WRITEBACK) !== 0 && !(inFile && !isShmem));
  if (onList === busy && !seen.remote.has(pfn))
    bug('N27', `frame ${pfn} with flags 0x${flags.toString(16)}: on a list, or under I/O, and not both`);
  return refcount - frames.mapcount[pfn]! - (cached ? 1 : 0) - (inFile ? 1 : 0) - ((flags & PG_LOCKED) !== 0 ? 1 : 0);
}

function checkLists(host: Host): void {
  const { frames, lru } = host;
  const free = frames.freeList();
  if (free.length !== frames.nrFree) bug('N4', `${free.length} frames on the free list, ${frames.nrFree} counted`);
  for (const pfn of free) if (frames.flags[pfn] !== PG_FREE) bug('N4', `frame ${pfn} on the free list is not free`);
  let onLists = 0;
  for (let list = 0; list < NR_LRU_LISTS; list++) {
    const pfns = lru.walk(list);
    if (pfns.length !== lru.nr[list]) bug('N27', `lru list ${list}: ${pfns.length} frames, ${lru.nr[list]} counted`);
    for (const pfn of pfns)
      if (listOf(frames.flags[pfn]!) !== list) bug('N27', `frame ${pfn} is on the wrong lru list`);
    onLists += pfns.length;
  }
  const flagged = frames.flags.reduce((n, flags) => n + ((flags & PG_LRU) !== 0 ? 1 : 0), 0);
  if (flagged !== onLists) bug('N27', `${flagged} frames say that they are on a list, ${onLists} are`);
}

function checkSameFilled({ sameFilled }: Host, seen: Seen): void {
  let nrPages = 0;
  for (const [number, count] of seen.sameCount.entries()) {
    nrPages += count;
    if (sameFilled.countOf(number) !== count)
      bug('N22', `value ${number} of same-filled pages: count ${sameFilled.countOf(number)}, named by ${count} ptes`);
  }
  if (nrPages !== sameFilled.nrPages) bug('N22', `${nrPages} same-filled pages, ${sameFilled.nrPages} counted`);
}

function checkSlots(host: Host, seen: Seen): void {
  const { swap, frames } = host;
  let nrFree = 0;
  for (let slot = 0; slot < swap.nrSlots; slot++) {
    if (swap.count[slot] !== seen.slotCount[slot]) {
      bug('N22', `swap slot ${slot}: count ${swap.count[slot]}, named by ${seen.slotCount[slot]} ptes`);
    }
    const pfn = swap.cache[slot]!;
    if (pfn !== 0 && ((frames.flags[pfn]! & PG_SWAPCACHE) === 0 || frames.private[pfn] !== slot)) {
      bug('N22', `swap slot ${slot} caches frame ${pfn}, which does not know of it`);
    }
    if (swap.isFree(slot)) nrFree++;
  }
  if (nrFree !== swap.nrFree) bug('N22', `${nrFree} swap slots free, ${swap.nrFree} counted`);
}
