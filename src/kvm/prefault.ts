import { KernelError } from '../base/index.js';
import { PAGE_SIZE } from '../mm/index.js';
import { DIRECT_V, type Memslot } from './memslot.js';
import type { Vm } from './vm.js';

/**
 * Guest memory that is mapped before the guest asks for it (Linux: KVM_PRE_FAULT_MEMORY), so that its first use costs no fault.
 *
 * A page is mapped as a read of the guest would map it: brought in if need be, copy-on-write left alone, not marked accessed. While it waits
 * for a page it holds nothing, and afterwards the slot is looked up again:
 *
 *   prefault                                 mm thread
 *   slot = find(gfn); waits for the page     deletes the slot; nobody waits for anybody
 *   slot = find(gfn): none. ENOENT
 *
 * Required outcome: both end (M36), and nothing is installed in a slot that went.
 */

export interface PreFaultMemory {
  /** First guest-physical byte, a multiple of 4 KiB. Moves on with what is done. */
  gpa: number;
  /** Bytes, a multiple of 4 KiB, not 0. What is left. */
  size: number;
  /** None are defined. */
  flags?: number;
}

/**
 * Maps [gpa, gpa + size), page by page, and leaves in `range` what is not done. Resolves when all is, or when something stands in the way after a page at
 * least; rejects with KernelError EINVAL, ENOENT outside memslots, ENODEV where the VM has ended, or why a page cannot be had (EFAULT, EHWPOISON, ENOMEM).
 */
export async function preFaultMemory(vm: Vm, range: PreFaultMemory): Promise<void> {
  checkRange(range);
  for (let nrDone = 0; range.size > 0; nrDone++) {
    try {
      const waiting = preFaultPage(vm, range.gpa);
      if (waiting !== undefined) await waiting;
    } catch (error) {
      if (nrDone > 0) return;
      throw error;
    }
    range.gpa += PAGE_SIZE;
    range.size -= PAGE_SIZE;
  }
}

function checkRange({ gpa, size, flags = 0 }: PreFaultMemory): void {
  if (flags !== 0) throw new KernelError('EINVAL', 'preFaultMemory', `flags ${flags} must be 0`);
  for (const [name, value] of Object.entries({ gpa, size })) {
    if (!Number.isSafeInteger(value) || value < 0 || value % PAGE_SIZE !== 0)
      throw new KernelError('EINVAL', 'preFaultMemory', `${name} ${value} must be a multiple of ${PAGE_SIZE}`);
  }
  if (size === 0) throw new KernelError('EINVAL', 'preFaultMemory', 'size 0 must be a page at least');
}

/** Waits only where it must: a promise for each page would be dearer than the page. */
function preFaultPage(vm: Vm, gpa: number): Promise<void> | undefined {
  return tryMap(vm, gpa) ? undefined : preFaultPageSlow(vm, gpa);
}

async function preFaultPageSlow(vm: Vm, gpa: number): Promise<void> {
  for (;;) {
    const { hva } = locate(vm, gpa);
    try {
      await vm.mm.faultIn(hva, 0);
    } catch (error) {
      // What a slot showed that has gone meanwhile may be gone too.
      if (vm.slots.hva(gpa) === hva) throw error;
    }
    if (tryMap(vm, gpa)) return;
    // A bracket is under way, or something took the page at once: theirs is the next turn.
    await new Promise<void>((resolve) => vm.env.defer(resolve));
  }
}

function locate(vm: Vm, gpa: number): { slot: Memslot; i: number; hva: number } {
  if (vm.ended !== undefined) throw new KernelError('ENODEV', 'preFaultMemory', vm.ended);
  const gfn = gpa / PAGE_SIZE;
  const slot = vm.slots.find(gfn);
  if (slot === undefined)
    throw new KernelError('ENOENT', 'preFaultMemory', `gpa 0x${gpa.toString(16)} must be in a memslot`);
  return { slot, i: gfn - slot.baseGfn, hva: slot.hva(gfn) };
}

/** The external fault for reading, once (N8); false where it must wait, or a bracket came between. Pairs with notify.ts. */
function tryMap(vm: Vm, gpa: number): boolean {
  const { slot, i, hva } = locate(vm, gpa);
  if ((slot.direct.load(i) & DIRECT_V) !== 0) return true;
  const seq = vm.invalidate.readBegin();
  const pfn = vm.mm.tryGetPage(hva, 0);
  if (pfn <= 0) return false;
  vm.lockMmu();
  const retry = vm.invalidate.readRetry(seq, hva) || !vm.slots.isCurrent(slot);
  // A vCPU may have been here first, and may write already.
  if (!retry && (slot.direct.readOnce(i) & DIRECT_V) === 0) vm.tables.installDirect(slot, i, (pfn << 12) | DIRECT_V);
  vm.unlockMmu();
  vm.mm.putPage(pfn);
  return !retry;
}
