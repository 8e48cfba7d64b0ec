import { CONFIG_PTE_NOTIFIERS } from '../../base/index.js';
import type { Host } from '../host.js';
import type { Mm } from '../mm.js';
import type { MmuNotifyEvent } from './range.js';
import type { MmapLockMode } from './subscription.js';

/**
 * What mm calls of the notifiers (Linux: the inline half of mmu_notifier.h). Compiled out each is empty, so that a bundler drops the call and all
 * that is behind it: no file of mm outside this folder touches `mm.notifiers` or `mm.range`, which then do not exist (test/notifier/config.test.ts).
 *
 * Use: `mmuNotifierRangeInit`, `mmuNotifierRangeAdd` for each run of pages, `mmuNotifierInvalidateRangeStart`; clear the ptes;
 * `mmuNotifierInvalidateRangeEnd`; free the frames. One bracket of an mm at a time: they share its `range`.
 */

/** Whether there is nobody who has to know of brackets: no driver, and no thread that maps pages by itself. */
function isUnwatched(mm: Mm): boolean {
  return mm.nrWatchers === 0;
}

/** Begins to say what a bracket is about. */
export function mmuNotifierRangeInit(mm: Mm, event: MmuNotifyEvent): void {
  if (!CONFIG_PTE_NOTIFIERS || isUnwatched(mm)) return;
  mm.range.reset(event, true);
}

/** The pages [startVpn, endVpn) are of it. */
export function mmuNotifierRangeAdd(mm: Mm, startVpn: number, endVpn: number): void {
  if (!CONFIG_PTE_NOTIFIERS || isUnwatched(mm)) return;
  mm.range.add(startVpn, endVpn);
}

/** Opens the bracket; what other threads have mapped is accounted for then. 0, or -EAGAIN where it must not block and a driver refused: then nothing is open (N12). Pairs with `mmuNotifierInvalidateRangeEnd`. */
export function mmuNotifierInvalidateRangeStart(mm: Mm, blockable = true): number {
  if (!CONFIG_PTE_NOTIFIERS || isUnwatched(mm)) return 0;
  const range = mm.range.seal();
  range.blockable = blockable;
  const result = mm.notifiers.brackets.start(range);
  if (mm.remotes !== undefined && result === 0) mm.remotes.bracketOpened(range);
  return result;
}

/** All three for one run of pages, in a bracket that may block. Pairs with `mmuNotifierInvalidateRangeEnd`. */
export function mmuNotifierInvalidatePagesStart(mm: Mm, event: MmuNotifyEvent, startVpn: number, endVpn: number): void {
  if (!CONFIG_PTE_NOTIFIERS || isUnwatched(mm)) return;
  mm.notifiers.brackets.startPages(mm.range, event, startVpn, endVpn);
  if (mm.remotes !== undefined) mm.remotes.bracketOpened(mm.range);
}

/** Closes it. Pairs with `mmuNotifierInvalidateRangeStart`. */
export function mmuNotifierInvalidateRangeEnd(mm: Mm): void {
  if (!CONFIG_PTE_NOTIFIERS || !mm.range.open) return;
  mm.notifiers.brackets.end(mm.range);
}

/** Whether any external MMU used the bytes [start, end) since it was asked last; takes its marks, and flushes. */
export function mmuNotifierClearFlushYoung(mm: Mm, start: number, end: number): boolean {
  if (!CONFIG_PTE_NOTIFIERS) return false;
  return mm.notifiers.clearFlushYoung(start, end);
}

/** As `mmuNotifierClearFlushYoung`, where nothing need be flushed. */
export function mmuNotifierClearYoung(mm: Mm, start: number, end: number): boolean {
  if (!CONFIG_PTE_NOTIFIERS) return false;
  return mm.notifiers.clearYoung(start, end);
}

/** The same question, which changes nothing. */
export function mmuNotifierTestYoung(mm: Mm, start: number, end: number): boolean {
  if (!CONFIG_PTE_NOTIFIERS) return false;
  return mm.notifiers.testYoung(start, end);
}

export function mmuNotifierInBracket(mm: Mm): boolean {
  if (!CONFIG_PTE_NOTIFIERS) return false;
  return mm.notifiers.inBracket;
}

/** Inside the UNMAP bracket of [start, end): nothing is mapped there any more. */
export function mmuNotifierCloseAreas(mm: Mm, start: number, end: number): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  mm.notifiers.areas.closeAreas(start, end, mm.vmas);
}

/** After the bracket: what was at the bytes [start, end) is at `newStart`; `left`: the old addresses stay mapped too. */
export function mmuNotifierMoveAreas(mm: Mm, start: number, end: number, newStart: number, left: boolean): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  mm.notifiers.areas.moveAreas(start, end, newStart, left);
}

/** After the brackets of a call: subscriptions whose areas were closed go. */
export function mmuNotifierRemoveClosed(mm: Mm): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  mm.notifiers.areas.removeClosed();
}

/** The mm goes away: each release once, before its page tables are freed (N18). */
export function mmuNotifierRelease(mm: Mm): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  mm.notifiers.releaseAll();
  mm.notifiers.areas.removeClosed();
}

/** The mmap lock is about to be taken (S7). Pairs with `mmuNotifierMmapUnlocked`. */
export function mmuNotifierMmapLocking(mm: Mm, mode: MmapLockMode): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  if (mm.nrLockHooks > 0) mm.notifiers.lockHooks.tellLocking(mode);
}

/** It has been given back. Pairs with `mmuNotifierMmapLocking`. */
export function mmuNotifierMmapUnlocked(mm: Mm, mode: MmapLockMode): void {
  if (!CONFIG_PTE_NOTIFIERS) return;
  if (mm.nrLockHooks > 0) mm.notifiers.lockHooks.tellUnlocked(mode);
}

/** Frames that poisoned subscriptions may map (N19). */
export function nrPinned(host: Host): number {
  if (!CONFIG_PTE_NOTIFIERS) return 0;
  return host.pins.size;
}
