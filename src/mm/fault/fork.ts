import { KernelError } from '../../base/index.js';
import type { Host } from '../host.js';
import { pfnToPa } from '../layout.js';
import type { Mm } from '../mm.js';
import { mmuNotifierInvalidatePagesStart, mmuNotifierInvalidateRangeEnd, nrPinned } from '../notifier/hooks.js';
import { MMU_NOTIFY_PROTECTION_PAGE } from '../notifier/range.js';
import { PG_DIRTY, PG_PINNED, PG_SWAPBACKED } from '../page/frames.js';
import {
  mkPte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_NONE,
  PTE_READ,
  PTE_SOFT_DIRTY,
  PTE_WRITE,
  pteIsPresent,
  pteIsSame,
  pteIsSwap,
  ptePfn,
  pteSameNumber,
  pteSwapSlot,
} from '../pgtable/pte.js';
import { addNewAnonRmap, isAnon } from '../rmap/rmap.js';
import { VM_ACCOUNT, VM_DONTCOPY, VM_LOCKED_MASK, VM_WIPEONFORK, Vma } from '../vma/vma.js';
import { vmaSetFile } from '../vma/vmafile.js';

/**
 * fork (Linux: dup_mmap, copy_page_range): a second mm with the same contents, made by sharing the frames. Neither may write a shared
 * frame from then on, and the first write by either makes a copy (cow.ts).
 *
 * The parent's external entries that may write are gone before a frame is shared: one bracket for each VMA that has pages of its own
 * (N20). The child has no subscription, and no locked memory. It costs time for what is mapped, not for what could be.
 *
 *   fork                                         external writer of the parent
 *   invalidateRangeStart: its entries are gone
 *   parent's ptes lose the right to write
 *   child's ptes name the same frames
 *   invalidateRangeEnd: seq moves
 *                                                faults for writing: gets a copy
 *
 * Required outcome: no write after the fork is seen by the other side. Proved by test/mm/fork.test.ts.
 */

/** Throws KernelError ENOMEM; then there is no child, and the parent is as it was, but for rights that its next writes get again. */
export function forkMm(parent: Mm, child: Mm): void {
  for (let vma = parent.vmas.first; vma !== undefined; vma = vma.next) {
    if ((vma.flags & VM_DONTCOPY) === 0) forkVma(vma, child);
  }
}

function forkVma(vma: Vma, child: Mm): void {
  if ((vma.flags & VM_ACCOUNT) !== 0) child.host.overcommit.check('fork', vma.nrPages);
  const copy = new Vma(child, vma.startVpn, vma.endVpn, vma.prot, vma.flags & ~VM_LOCKED_MASK, vma.pgoff);
  copy.softDirty = vma.softDirty;
  vmaSetFile(copy, vma.file);
  const wiped = (vma.flags & VM_WIPEONFORK) !== 0;
  if (!wiped) child.host.anonVmas.fork(copy, vma);
  child.vmas.insert(copy);
  // Without an anonVma it has no page of its own: what it maps is found again by faults.
  if (vma.anonVma !== undefined && !wiped) copyPageRange(vma, copy);
}

/** Inside the bracket nobody writes to the area, vCPUs that run included: the copy is of one instant (N28). */
function copyPageRange(vma: Vma, copy: Vma): void {
  const { mm } = vma;
  mmuNotifierInvalidatePagesStart(mm, MMU_NOTIFY_PROTECTION_PAGE, vma.startVpn, vma.endVpn);
  try {
    let vpn = vma.startVpn;
    while ((vpn = mm.pageTable.skipEmpty(vpn, vma.endVpn)) < vma.endVpn) {
      const end = Math.min(vma.endVpn, ((vpn >>> 9) + 1) << 9);
      copyLeaf(mm, copy, vpn, end - vpn);
      vpn = end;
    }
  } finally {
    mmuNotifierInvalidateRangeEnd(mm);
  }
}

/** Copies `nrPtes` ptes of one leaf table. */
function copyLeaf(parent: Mm, copy: Vma, vpn: number, nrPtes: number): void {
  const child = copy.mm;
  const from = parent.pageTable.find(vpn);
  const to = child.pageTable.ensure(vpn);
  if (to === 0) noTable(parent);
  // WHY one loop with everything in locals: 9 ns a page instead of 14, and fork is nothing but this loop.
  const { words } = parent.pageTable;
  const { refcount, mapcount, zeroPfn } = parent.host.frames;
  const mayBeExposed = nrPinned(parent.host) > 0;
  let nrUsed = 0;
  let nrResident = 0;
  for (let k = 0; k < nrPtes; k++) {
    const pte = words.readOnce(from + k);
    if (pte === PTE_NONE) continue;
    const pfn = ptePfn(pte);
    if (!pteIsPresent(pte)) {
      if (pteIsSwap(pte)) parent.host.swap.get(pteSwapSlot(pte));
      else if (pteIsSame(pte)) parent.host.sameFilled.get(pteSameNumber(pte));
      words.writeOnce(to + k, pte);
    } else if (mayBeExposed && isExposed(parent.host, pfn)) {
      const own = copyExposed(copy, vpn + k, pte);
      if (own === 0) return noFrame(copy, to, nrUsed, nrResident, parent);
      words.writeOnce(to + k, own);
    } else {
      // Neither side may write the frame from here on.
      const shared = pte & ~(PTE_WRITE | PTE_EXCLUSIVE);
      if (pfn !== zeroPfn) {
        refcount[pfn] = refcount[pfn]! + 1;
        mapcount[pfn] = mapcount[pfn]! + 1;
        nrResident++;
        if (shared !== pte) words.writeOnce(from + k, shared);
      }
      words.writeOnce(to + k, shared & ~PTE_ACCESSED);
    }
    nrUsed++;
  }
  child.pageTable.addUsed(to, nrUsed);
  child.addResident(nrResident);
}

function noFrame(copy: Vma, to: number, nrUsed: number, nrResident: number, parent: Mm): never {
  copy.mm.pageTable.addUsed(to, nrUsed);
  copy.mm.addResident(nrResident);
  const what = `a page of ${parent.name} that a poisoned driver may still write`;
  throw new KernelError('ENOMEM', 'fork', `no frame for ${what}`);
}

/** A driver that broke its contract may still write the frame: the child must not see that (S12; Linux: copy_present_page). */
function isExposed(host: Host, pfn: number): boolean {
  return (host.frames.flags[pfn]! & PG_PINNED) !== 0 && isAnon(host, pfn);
}

/** A frame of its own for the child; returns its pte, or 0 when none is free. */
function copyExposed(copy: Vma, vpn: number, pte: number): number {
  const { host } = copy.mm;
  const pfn = host.reclaim.allocFrame(0);
  if (pfn === 0) return 0;
  host.pageOps.copy(pfnToPa(pfn), pfnToPa(ptePfn(pte)));
  host.frames.flags[pfn] = PG_DIRTY | PG_SWAPBACKED;
  addNewAnonRmap(host, copy, vpn, pfn);
  host.lru.add(pfn);
  return mkPte(pfn, (pte & (PTE_READ | PTE_SOFT_DIRTY)) | PTE_DIRTY | PTE_EXCLUSIVE);
}

function noTable(mm: Mm): never {
  const { nrTables } = mm.host.tables;
  throw new KernelError('ENOMEM', 'fork', `no page table left of ${nrTables} for a copy of ${mm.name}`);
}
