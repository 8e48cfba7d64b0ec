import { CONFIG_LOCKDEP, lockdepEnterCallback, lockdepLeaveCallback } from '../../base/index.js';
import { PAGE_SIZE } from '../layout.js';
import type { Mm } from '../mm.js';
import { pinPage, unpinPage } from '../page/page.js';
import type { NotifierHost } from './notifierhost.js';
import type { MmuNotifierRange } from './range.js';
import type { MmuSubscription } from './subscription.js';

/**
 * Containment (N19, S12): every callback of a driver is made between `enter` and `leave`. One that throws, returns a promise, refuses where
 * it must not, has overrun its time when it returns, leaves a lock held, or is found to have left mappings behind, poisons its subscription: it
 * is not called again, its owner is told, everyone else goes on, and the frames that it may still map get a reference for it:
 *
 *  - when it is poisoned and when it is unregistered, those that are mapped in its area;
 *  - from then on those that a bracket is about to take away, for it may have looked them up meanwhile.
 *
 * Each is counted once for each subscription that may map it. So it costs memory, never another's data; `unpinAll` wins the memory back when the
 * driver's instance, and with it its external table, is gone.
 *
 * What cannot be seen from here: an entry that a driver keeps and does not tell. With HostOptions.debug a driver that has the op `mappings` is asked after
 * each start; one that has not, or does not know of it either, is found by the tags alone (`frames.generation`), when it uses the entry.
 */

/** A callback is about to run. Returns what `leave` needs. */
export function enterCallback(host: NotifierHost, op: string, mayWait: boolean): number {
  if (CONFIG_LOCKDEP) lockdepEnterCallback(op, mayWait);
  return host.budgetMs === 0 ? 0 : host.now();
}

/** It has returned `result`. Why that breaks the contract, or undefined. */
export function leaveCallback(host: NotifierHost, op: string, began: number, result: unknown): string | undefined {
  const locks = CONFIG_LOCKDEP ? lockdepLeaveCallback() : undefined;
  if (isThenable(result)) {
    result.then(undefined, () => {});
    return `${op} returned a promise; it must be done when it returns`;
  }
  if (locks !== undefined || host.budgetMs === 0) return locks;
  const tookMs = host.now() - began;
  if (tookMs <= host.budgetMs) return undefined;
  return `${op} took ${tookMs.toFixed(1)} ms; its budget is ${host.budgetMs} ms`;
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as PromiseLike<unknown>).then === 'function';
}

/** Pins what is mapped in the parts of the bytes [start, end) that are the subscription's. */
export function pinPart(sub: MmuSubscription, start: number, end: number): void {
  sub.forEachPart(start, end, (from, to) => pinMapped(sub, sub.mm, from, to));
}

export function pinRange(sub: MmuSubscription, range: MmuNotifierRange): void {
  for (let i = 0; i < range.nrRanges; i++)
    pinPart(sub, range.ranges[2 * i]! * PAGE_SIZE, range.ranges[2 * i + 1]! * PAGE_SIZE);
}

export function pinAll(sub: MmuSubscription): void {
  for (const { start, end } of sub.pieces) pinMapped(sub, sub.mm, start, end);
}

function pinMapped(sub: MmuSubscription, mm: Mm, start: number, end: number): void {
  mm.forEachPresent(Math.floor(start / PAGE_SIZE), Math.ceil(end / PAGE_SIZE), (_vpn, pfn) => {
    if (!sub.pinned.has(pfn) && pinPage(mm.host, pfn)) sub.pinned.add(pfn);
  });
}

/** Gives back every reference that it has. Returns how many. */
export function unpinAll(sub: MmuSubscription): number {
  const { size } = sub.pinned;
  for (const pfn of sub.pinned) unpinPage(sub.mm.host, pfn);
  sub.pinned.clear();
  return size;
}
