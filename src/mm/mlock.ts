import { KernelError } from '../base/index.js';
import { FAULT_FLAG_WRITE } from './fault.js';
import { PAGE_SIZE, vpnToVa } from './layout.js';
import type { Mm } from './mm.js';
import { mergeAround, pageRange, splitAt } from './mmap.js';
import { mlockPage, munlockPage } from './page.js';
import { pteIsPresent, ptePfn } from './pte.js';
import { PROT_NONE, PROT_WRITE, VM_LOCKED, type Vma } from './vma.js';

/**
 * mlock (Linux: mlock.c): pages that stay. It is what users of external MMUs had to do before notifiers, and the baseline to
 * compare with. Limited by RLIMIT_MEMLOCK for each mm, and by the frames of the host, of which some must be left to reclaim.
 */

/** Marks [va, va + length) as locked. Waiting for its pages is `populate`'s. Runs with mmapLock held for write. */
export function mlockRange(mm: Mm, va: number, length: number): [startVpn: number, endVpn: number] {
  const [startVpn, endVpn] = pageRange('mlock', va, length);
  checkMapped(mm, 'mlock', startVpn, endVpn);
  let nrNew = 0;
  eachVma(mm, startVpn, endVpn, (vma, from, to) => {
    if (!vma.locked) nrNew += to - from;
  });
  checkLimits(mm, nrNew);
  setLocked(mm, startVpn, endVpn, true);
  return [startVpn, endVpn];
}

export function munlockRange(mm: Mm, va: number, length: number): void {
  const [startVpn, endVpn] = pageRange('munlock', va, length);
  checkMapped(mm, 'munlock', startVpn, endVpn);
  setLocked(mm, startVpn, endVpn, false);
}

function checkLimits(mm: Mm, nrNew: number): void {
  const limitPages = Math.floor(mm.rlimitMemlock / PAGE_SIZE);
  const kib = (nrPages: number) => `${nrPages * 4} KiB`;
  if (mm.lockedPages + nrNew > limitPages) {
    throw new KernelError(
      'ENOMEM',
      'mlock',
      `${kib(nrNew)} cannot be locked beside the ${kib(mm.lockedPages)} that are: ` +
        `at most RLIMIT_MEMLOCK, ${kib(limitPages)} for ${mm.name}`,
    );
  }
  const { host } = mm;
  const lockable = host.frames.nrFrames - host.reclaim.reserve;
  const locked = host.lockedPages() + host.nrPinned;
  if (locked + nrNew <= lockable) return;
  throw new KernelError(
    'ENOMEM',
    'mlock',
    `${kib(nrNew)} cannot be locked beside the ${kib(locked)} that are: ` +
      `at most ${kib(lockable)} of the host's ${kib(host.frames.nrFrames)} of frames`,
  );
}

function checkMapped(mm: Mm, syscall: string, startVpn: number, endVpn: number): void {
  let next = startVpn;
  eachVma(mm, startVpn, endVpn, (_vma, from, to) => {
    if (from === next) next = to;
  });
  if (next === endVpn) return;
  throw new KernelError('ENOMEM', syscall, `address 0x${vpnToVa(next).toString(16)} of ${mm.name} must be mapped`);
}

/** Calls `fn` for each VMA in the range, with the part of it inside. */
export function eachVma(
  mm: Mm,
  startVpn: number,
  endVpn: number,
  fn: (vma: Vma, from: number, to: number) => void,
): void {
  let vma = mm.vmas.firstEndingAfter(startVpn);
  for (; vma !== undefined && vma.startVpn < endVpn; vma = vma.next) {
    fn(vma, Math.max(vma.startVpn, startVpn), Math.min(vma.endVpn, endVpn));
  }
}

function setLocked(mm: Mm, startVpn: number, endVpn: number, locked: boolean): void {
  splitAt(mm, startVpn);
  splitAt(mm, endVpn);
  eachVma(mm, startVpn, endVpn, (vma) => {
    if (vma.locked === locked) return;
    vma.flags = locked ? vma.flags | VM_LOCKED : vma.flags & ~VM_LOCKED;
    mm.lockedPages += locked ? vma.nrPages : -vma.nrPages;
    setPagesLocked(vma, locked);
  });
  mergeAround(mm, startVpn, endVpn);
}

function setPagesLocked(vma: Vma, locked: boolean): void {
  const { pageTable, host } = vma.mm;
  for (let vpn = vma.startVpn; (vpn = pageTable.skipEmpty(vpn, vma.endVpn)) < vma.endVpn; vpn++) {
    const pte = pageTable.get(vpn);
    if (!pteIsPresent(pte) || ptePfn(pte) === host.frames.zeroPfn) continue;
    if (locked) mlockPage(host, ptePfn(pte));
    else munlockPage(host, ptePfn(pte));
  }
}

/** Faults every page of the range in, for writing where its VMA allows that. Waits; a VMA that goes away meanwhile is passed over. */
export async function populate(mm: Mm, startVpn: number, endVpn: number): Promise<void> {
  for (let vpn = startVpn; vpn < endVpn; vpn++) {
    const vma = mm.vmas.find(vpn);
    if (vma === undefined || vma.prot === PROT_NONE) continue;
    const flags = (vma.prot & PROT_WRITE) !== 0 ? FAULT_FLAG_WRITE : 0;
    const pfn = mm.tryGetPage(vpnToVa(vpn), flags);
    if (pfn > 0) mm.putPage(pfn);
    else await mm.faultIn(vpnToVa(vpn), flags);
  }
}
