import { checkFlags, hex, pageRange, refuse } from '../args.js';
import { populateLocked } from '../fault/populate.js';
import type { Mm } from '../mm.js';
import { mmuNotifierInvalidatePagesStart, mmuNotifierInvalidateRangeEnd } from '../notifier/hooks.js';
import { MMU_NOTIFY_PROTECTION_VMA } from '../notifier/range.js';
import { PTE_DIRTY, PTE_EXCLUSIVE, PTE_READ, PTE_SOFT_DIRTY, PTE_WRITE, pteIsPresent } from '../pgtable/pte.js';
import { checkExpandVm, mayExpandVm } from './rlimit.js';
import { PROT_EXEC, PROT_READ, PROT_WRITE, VM_ACCOUNT, VM_LOCKED, VM_NORESERVE, VM_SHARED, type Vma } from './vma.js';
import { changeEach, changeVma } from './vmaflags.js';

/**
 * mprotect (Linux: mprotect.c): other rights for a range of pages. Each VMA that changes has a bracket of its own around the change of its
 * ptes, PROTECTION_VMA: an external entry allows no more than its pte (N5), and one that allows less than it might is faulted anew (M18).
 *
 * A pte gets the right to read with its VMA, and loses both. The right to write it only gets back where a write fault would do
 * no more than that: where it is dirty, and its frame nobody else's. Everything else is left to the fault.
 *
 *   mprotect(PROT_READ)                          external writer
 *   invalidateRangeStart: its entries are gone
 *   ptes lose PTE_WRITE
 *                                                tryGetPage(write): FAULT_SIGSEGV
 *   invalidateRangeEnd
 *
 * Required outcome: nothing is written after mprotect has returned (M26). Proved by test/mm/mprotect.test.ts.
 */

const PROT_SEM = 0x8;
const PROT_GROWSDOWN = 0x100_0000;
const PROT_GROWSUP = 0x200_0000;
const PROT_GROWS = PROT_GROWSDOWN | PROT_GROWSUP;
/** Who has all of them may write again without a fault. */
const REUSABLE = PTE_DIRTY | PTE_EXCLUSIVE | PTE_SOFT_DIRTY;
const PROT_RIGHTS = PROT_READ | PROT_WRITE | PROT_EXEC;

/**
 * What lies before a hole, or before a VMA that a limit refuses, is changed. Pages that are locked and become writable are brought in at once, VMA
 * by VMA, as far as that needs no waiting: whether the next one merges depends on it. Runs with mmapLock held for write.
 */
export function mprotect(mm: Mm, va: number, length: number, prot: number): void {
  checkFlags('mprotect', 'prot', prot);
  if ((prot & PROT_GROWS) === PROT_GROWS) refuseProt(prot);
  const [startVpn, endVpn] = pageRange('mprotect', va, length, 'ENOMEM');
  if (startVpn === endVpn) return;
  if ((prot & ~(PROT_RIGHTS | PROT_SEM | PROT_GROWS)) !== 0) refuseProt(prot);
  const growsEnd = (prot & PROT_GROWSDOWN) !== 0 ? endVpn : startVpn + 1;
  if ((prot & PROT_GROWS) !== 0 && mm.vmas.intersects(startVpn, growsEnd)) refuseProt(prot);
  changeEach(mm, 'mprotect', startVpn, endVpn, (vma, from, to) => {
    if ((prot & PROT_WRITE) !== 0 && !vma.mayWrite)
      refuse('EACCES', 'mprotect', `${vma.file?.name} must be open for writing to be written through a mapping`);
    const isFaultAhead = becomesWritable(vma, prot);
    mprotectFixup(vma, from, to, prot & PROT_RIGHTS);
    if (isFaultAhead) populateLocked(mm, from, to);
  });
}

function becomesWritable(vma: Vma, prot: number): boolean {
  return (prot & ~vma.prot & PROT_WRITE) !== 0 && (vma.flags & (VM_LOCKED | VM_SHARED)) === VM_LOCKED;
}

function refuseProt(prot: number): never {
  refuse('EINVAL', 'mprotect', `prot ${hex(prot)} must be made of PROT_READ, PROT_WRITE, PROT_EXEC`);
}

function mprotectFixup(vma: Vma, from: number, to: number, prot: number): void {
  if (prot === vma.prot) return;
  const flags = checkCommit(vma, to - from, prot);
  changeVma('mprotect', vma, from, to, prot, flags, changeProtection);
}

/** Private memory that becomes writable counts as data, and is charged. Returns the VMA's flags then. */
function checkCommit(vma: Vma, nrPages: number, prot: number): number {
  const { mm, flags } = vma;
  if ((prot & PROT_WRITE) === 0) {
    // What was never written to, and cannot be, needs no promise.
    return vma.anonVma === undefined && vma.file === undefined ? flags & ~VM_ACCOUNT : flags;
  }
  if (mayExpandVm(mm, vma.prot, flags, nrPages)) checkExpandVm(mm, 'mprotect', prot, flags, nrPages);
  if ((flags & (VM_ACCOUNT | VM_SHARED | VM_NORESERVE)) !== 0 || (vma.prot & PROT_WRITE) !== 0) return flags;
  mm.host.overcommit.check('mprotect', nrPages);
  return flags | VM_ACCOUNT;
}

/** The ptes of the whole VMA follow its rights, under one bracket. */
function changeProtection(vma: Vma): void {
  const { mm } = vma;
  const { pageTable } = mm;
  mmuNotifierInvalidatePagesStart(mm, MMU_NOTIFY_PROTECTION_VMA, vma.startVpn, vma.endVpn);
  for (let vpn = vma.startVpn; (vpn = pageTable.skipEmpty(vpn, vma.endVpn)) < vma.endVpn; ) {
    const end = Math.min(vma.endVpn, ((vpn >>> 9) + 1) << 9);
    changeLeaf(vma, pageTable.find(vpn), end - vpn);
    vpn = end;
  }
  mmuNotifierInvalidateRangeEnd(mm);
}

/** WHY: one lookup for 512 ptes and plain stores; each pte is present before and after, so that no count changes. */
function changeLeaf(vma: Vma, first: number, nrPtes: number): void {
  const { words } = vma.mm.pageTable;
  const read = vma.allows(false) ? PTE_READ : 0;
  const write = vma.allows(true);
  for (let i = first; i < first + nrPtes; i++) {
    const old = words.readOnce(i);
    if (!pteIsPresent(old)) continue;
    let pte = (old & ~(PTE_READ | PTE_WRITE)) | read;
    if (write && (old & REUSABLE) === REUSABLE) pte |= PTE_WRITE;
    if (pte !== old) words.writeOnce(i, pte);
  }
}
