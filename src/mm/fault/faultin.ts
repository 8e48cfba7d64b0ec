import { CONFIG_LOCKDEP, KernelError, lockdepWait } from '../../base/index.js';
import { FileFault, filemapWait, filemapWaitSync } from '../file/filemap.js';
import { valueToSlot } from '../file/shmem.js';
import { vaToVpn } from '../layout.js';
import type { Mm } from '../mm.js';
import { pteIsSwap, pteSwapSlot } from '../pgtable/pte.js';
import { describeShortage, refuseKilled } from '../reclaim/oom.js';
import { handleMmFault } from './fault.js';
import { FAULT_HWPOISON, FAULT_OOM, FAULT_RETRY, FAULT_SIGBUS, FAULT_SIGSEGV } from './faultcode.js';

/**
 * Faults that wait: for a read from swap, or for a free frame. After each wait everything is looked up again, for the VMA may be
 * gone, the page there, or its slot another's. Ends when the page is mapped, or with an error; reclaim that gains nothing ends it
 * with ENOMEM (never a hang).
 */

/** Frames that only swap-ins may take. */
const SWAP_IN_RESERVE = 2;

/** Rejects with KernelError EFAULT, EHWPOISON, ENOMEM; EIO, or what else the store said, for a page of a file that cannot be read. */
export async function faultIn(mm: Mm, va: number, write: boolean): Promise<void> {
  const vpn = vaToVpn(va);
  let file: FileFault | undefined;
  if (CONFIG_LOCKDEP) lockdepWait('a page');
  for (;;) {
    refuseKilled(mm, 'faultIn');
    const result = attempt(mm, vpn, write, file);
    if (result !== FAULT_RETRY) return settle(mm, va, write, result);
    file = fileFaultOf(mm, vpn, file);
    const waiting = file === undefined ? startSwapIn(mm, vpn) : filemapWait(mm.vmas.find(vpn)!, vpn, write, file);
    if (waiting !== undefined) await waiting;
    else if (!(await mm.host.reclaim.directReclaim(reserveFor(slotOf(mm, vpn)), { mm, va }))) noMemory(mm, va);
  }
}

/** The same, blocking. */
export function faultInSync(mm: Mm, va: number, write: boolean): void {
  if (!mm.host.canBlock) {
    throw new KernelError('EOPNOTSUPP', 'faultInSync', `swap device ${mm.host.device?.name} cannot block; use faultIn`);
  }
  const vpn = vaToVpn(va);
  let file: FileFault | undefined;
  if (CONFIG_LOCKDEP) lockdepWait('a page');
  for (;;) {
    refuseKilled(mm, 'faultIn');
    const result = attempt(mm, vpn, write, file);
    if (result !== FAULT_RETRY) {
      settle(mm, va, write, result);
      return;
    }
    file = fileFaultOf(mm, vpn, file);
    const slot = slotOf(mm, vpn);
    const progress =
      file === undefined
        ? slot >= 0 && mm.host.swapIn.readSync(slot)
        : filemapWaitSync(mm.vmas.find(vpn)!, vpn, write, file);
    if (!progress && !mm.host.reclaim.directReclaimSync(reserveFor(slot), { mm, va })) noMemory(mm, va);
  }
}

/** What the fault knows of the file that it is on; undefined where the page is not the file's business. */
function fileFaultOf(mm: Mm, vpn: number, known: FileFault | undefined): FileFault | undefined {
  const file = mm.vmas.find(vpn)?.file;
  if (file === undefined || slotOf(mm, vpn) >= 0) return undefined;
  return known?.file === file ? known : new FileFault(file);
}

function startSwapIn(mm: Mm, vpn: number): Promise<void> | undefined {
  const slot = slotOf(mm, vpn);
  return slot < 0 ? undefined : mm.host.swapIn.start(slot);
}

/** New pages leave some frames to swap-ins, which free a slot each: with swap full, what exists can still be reached (N26). */
function reserveFor(slot: number): number {
  return slot < 0 ? SWAP_IN_RESERVE : 0;
}

function attempt(mm: Mm, vpn: number, write: boolean, file: FileFault | undefined): number {
  const { throttle } = mm.host.pageCache;
  throttle.pass = file?.throttled ?? false;
  mm.mmapLock.lock('read');
  const result = handleMmFault(mm, vpn, write, SWAP_IN_RESERVE);
  mm.mmapLock.unlock();
  throttle.pass = false;
  if (result > 0 && file?.want.major) mm.host.vmstat.pgmajfault++;
  return result;
}

/** The swap slot that the page is in, or -1: then it was a frame that was missing. */
function slotOf(mm: Mm, vpn: number): number {
  const pte = mm.pageTable.get(vpn);
  return pteIsSwap(pte) ? pteSwapSlot(pte) : -1;
}

/** Whether the page's swap slot is being read: `faultIn` then waits for that, and takes no frame. */
export function isSwappingIn(mm: Mm, va: number): boolean {
  const vpn = vaToVpn(va);
  let slot = slotOf(mm, vpn);
  if (slot < 0) {
    const vma = mm.vmas.find(vpn);
    const mapping = vma?.file?.mapping;
    if (mapping?.isShmem === true) slot = valueToSlot(Math.min(mapping.pages.get(vma!.pgoffOf(vpn)), 0));
  }
  return slot >= 0 && mm.host.swapIn.isReading(slot);
}

function settle(mm: Mm, va: number, write: boolean, result: number): void {
  const where = `address 0x${va.toString(16)} of ${mm.name}`;
  if (result === FAULT_SIGSEGV) {
    throw new KernelError('EFAULT', 'faultIn', `${where} must be mapped ${write ? 'for writing' : 'for reading'}`);
  }
  if (result === FAULT_SIGBUS) {
    throw new KernelError('EFAULT', 'faultIn', `${where} must not lie beyond the end of the file that is mapped there`);
  }
  if (result === FAULT_HWPOISON) {
    throw new KernelError('EHWPOISON', 'faultIn', `the page at ${where} was damaged in swap; its contents are lost`);
  }
  if (result === FAULT_OOM) {
    const { nrTables } = mm.host.tables;
    throw new KernelError(
      'ENOMEM',
      'faultIn',
      `no page table left of ${nrTables} for ${where}; raise HostOptions.pageTables`,
    );
  }
}

function noMemory(mm: Mm, va: number): never {
  refuseKilled(mm, 'faultIn');
  throw new KernelError(
    'ENOMEM',
    'faultIn',
    `no frame for address 0x${va.toString(16)} of ${mm.name}: ${describeShortage(mm.host)}`,
  );
}
