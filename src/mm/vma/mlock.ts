import { KernelError } from '../../base/index.js';
import { checkFlags, hex, refuse, unsignedLong } from '../args.js';
import { bytesToPages, PAGE_SIZE, vaToVpn } from '../layout.js';
import type { Mm } from '../mm.js';
import { mlockPage, munlockPage } from '../page/page.js';
import { pteIsPresent, ptePfn } from '../pgtable/pte.js';
import { isUndrained } from '../remote/undrained.js';
import { checkCanMlock, checkMlockLimits } from './mlocklimit.js';
import { eachVma } from './mmap.js';
import { VM_LOCKED, VM_LOCKED_MASK, VM_LOCKONFAULT, type Vma } from './vma.js';
import { changeEach, changeVma } from './vmaflags.js';

/**
 * mlock (Linux: mlock.c): pages that stay. It is what users of external MMUs had to do before notifiers, and the baseline to
 * compare with. A call marks VMAs and the pages that are there; `populate` brings the others, and may wait. All of it runs with mmapLock
 * held for write, and calls no notifier (N21).
 */

/** mlock2: pages are locked as they come. */
export const MLOCK_ONFAULT = 1;

/** mlockall: what is mapped, what will be, and both as pages come. */
export const MCL_CURRENT = 1;
export const MCL_FUTURE = 2;
export const MCL_ONFAULT = 4;

/** Marks [va, va + length) as locked; what lies before a hole stays so. Returns the pages to populate. */
export function mlockRange(mm: Mm, va: number, length: number, flags: number): [startVpn: number, endVpn: number] {
  checkFlags('mlock2', 'flags', flags);
  if ((flags & ~MLOCK_ONFAULT) !== 0) refuse('EINVAL', 'mlock2', `flags ${hex(flags)} must be 0 or MLOCK_ONFAULT`);
  const start = unsignedLong('mlock', 'addr', va);
  const len = unsignedLong('mlock', 'length', length);
  checkCanMlock(mm, 'mlock');
  const [startVpn, endVpn] = lockRange('mlock', start, len, 'ENOMEM');
  checkMlockLimits(mm, 'mlock', endVpn - startVpn - nrLocked(mm, startVpn, endVpn), 'ENOMEM');
  applyLock(mm, 'mlock', startVpn, endVpn, flags === 0 ? VM_LOCKED : VM_LOCKED_MASK);
  return [startVpn, endVpn];
}

export function munlockRange(mm: Mm, va: number, length: number): void {
  const start = unsignedLong('munlock', 'addr', va);
  const len = unsignedLong('munlock', 'length', length);
  const [startVpn, endVpn] = lockRange('munlock', start, len, 'EINVAL');
  applyLock(mm, 'munlock', startVpn, endVpn, 0);
}

/** Unlike other calls, mlock and munlock round the start down to its page. */
function lockRange(syscall: string, start: number, len: number, tooLong: 'ENOMEM' | 'EINVAL'): [number, number] {
  if (start === Number.POSITIVE_INFINITY || len === Number.POSITIVE_INFINITY)
    refuse(start > len ? 'EINVAL' : tooLong, syscall, `addr and length must be integers from 0 up`);
  const startVpn = vaToVpn(start);
  return [startVpn, startVpn + bytesToPages(len + (start % PAGE_SIZE))];
}

/** Pages of [startVpn, endVpn) that are locked already: they are not counted twice. */
function nrLocked(mm: Mm, startVpn: number, endVpn: number): number {
  let nr = 0;
  eachVma(mm, startVpn, endVpn, (vma, from, to) => {
    if (vma.locked) nr += to - from;
  });
  return nr;
}

/** Gives the VMAs of the range the lock flags, until a hole is met: that is ENOMEM. */
function applyLock(mm: Mm, syscall: string, startVpn: number, endVpn: number, lock: number): void {
  changeEach(mm, syscall, startVpn, endVpn, (vma, from, to) => mlockFixup(syscall, vma, from, to, lock));
}

function mlockFixup(syscall: string, vma: Vma, from: number, to: number, lock: number): void {
  const flags = (vma.flags & ~VM_LOCKED_MASK) | lock;
  if (flags === vma.flags) return;
  const changed = ((vma.flags ^ flags) & VM_LOCKED) !== 0;
  changeVma(syscall, vma, from, to, vma.prot, flags, (part) => {
    if (changed) setPagesLocked(part, (lock & VM_LOCKED) !== 0);
  });
}

function setPagesLocked(vma: Vma, locked: boolean): void {
  const { pageTable, host } = vma.mm;
  for (let vpn = vma.startVpn; (vpn = pageTable.skipEmpty(vpn, vma.endVpn)) < vma.endVpn; vpn++) {
    const pte = pageTable.get(vpn);
    if (!pteIsPresent(pte) || ptePfn(pte) === host.frames.zeroPfn || isUndrained(host.frames, pte)) continue;
    if (locked) mlockPage(host, ptePfn(pte));
    else munlockPage(host, ptePfn(pte));
  }
}

/** Locks what is mapped, what will be, or both. Returns whether there is something to populate. */
export function mlockall(mm: Mm, flags: number): boolean {
  checkFlags('mlockall', 'flags', flags);
  if (flags === 0 || flags === MCL_ONFAULT || (flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)) !== 0) {
    refuse(
      'EINVAL',
      'mlockall',
      `flags ${hex(flags)} must be MCL_CURRENT, MCL_FUTURE or both, with or without MCL_ONFAULT`,
    );
  }
  checkCanMlock(mm, 'mlockall');
  const current = (flags & MCL_CURRENT) !== 0;
  if (current) checkMlockLimits(mm, 'mlockall', mm.vm.total - mm.vm.locked, 'ENOMEM');
  const lock = VM_LOCKED | ((flags & MCL_ONFAULT) !== 0 ? VM_LOCKONFAULT : 0);
  mm.defFlags = (flags & MCL_FUTURE) !== 0 ? lock : 0;
  if (current) applyToAll(mm, lock);
  return current;
}

export function munlockall(mm: Mm): void {
  mm.defFlags = 0;
  applyToAll(mm, 0);
}

function applyToAll(mm: Mm, lock: number): void {
  for (let vma = mm.vmas.first; vma !== undefined; ) {
    const end = vma.endVpn;
    mlockFixup('mlockall', vma, vma.startVpn, end, lock);
    vma = mm.vmas.firstEndingAfter(end);
  }
}

/** What mlock says where populating failed: no page can be had for now, or the memory cannot be accessed. */
export function mlockError(error: unknown): never {
  if (!(error instanceof KernelError)) throw error;
  const code = error.code === 'ENOMEM' ? 'EAGAIN' : error.code === 'EFAULT' ? 'ENOMEM' : error.code;
  throw new KernelError(code, 'mlock', error.message, { cause: error });
}
