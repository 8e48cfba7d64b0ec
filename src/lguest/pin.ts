import type { Mm } from '../mm/index.js';

/**
 * All that the driver of 2007 could do: nothing told it when a page went, so it had each page of its guest held. `pin` of `initialize` has it so still, to compare
 * with: within the launcher's RLIMIT_MEMLOCK, as mlock.
 *
 * Use: `await pinMemory`, and `unpinMemory` when the guest is gone.
 */

/** Locks bytes [start, end) of the launcher. Rejects as mlock does, with KernelError EPERM or ENOMEM; then no more is locked than before. */
export async function pinMemory(mm: Mm, start: number, end: number): Promise<void> {
  const { locked } = mm.vm;
  try {
    await mm.mlock(start, end - start);
  } catch (error) {
    // Refused after it had begun: at a hole, or for a frame that was not to be had.
    if (mm.vm.locked > locked) unpinMemory(mm, start, end);
    throw error;
  }
}

/** Of what is still mapped there. */
export function unpinMemory(mm: Mm, start: number, end: number): void {
  if (mm.exited) return;
  for (const vma of mm.smaps()) {
    const [from, to] = [Math.max(vma.start, start), Math.min(vma.end, end)];
    if (from < to) mm.munlock(from, to - from);
  }
}
