import { PAGE_SIZE } from '../layout.js';
import type { VmaSet } from '../vma/vmaset.js';
import type { Callbacks } from './callbacks.js';
import type { MmuSubscription } from './subscription.js';
import type { Subscriptions } from './subscriptions.js';

/**
 * Subscriptions that live with their area (those with the op `areaClosed`, as the per-VMA face has it): they go where mremap takes the area, hear once that nothing of it
 * is mapped any more, inside the bracket that takes the last of it away, and are removed by themselves after that bracket. Once: the only call that maps again before that, mremap,
 * maps all that its bracket took away.
 *
 * Use: `closeAreas` inside an UNMAP bracket, `moveAreas` and `removeClosed` after it.
 */
export class Areas {
  private readonly subs: Subscriptions;
  private readonly callbacks: Callbacks;
  /** Removes a subscription whose area is gone. */
  private readonly remove: (sub: MmuSubscription) => void;
  /** Their areas are gone; they go after the bracket. */
  private readonly closed: MmuSubscription[] = [];

  constructor(subs: Subscriptions, callbacks: Callbacks, remove: (sub: MmuSubscription) => void) {
    this.subs = subs;
    this.callbacks = callbacks;
    this.remove = remove;
  }

  /** Inside the UNMAP bracket of the bytes [start, end): tells the subscriptions of which nothing is mapped any more. */
  closeAreas(start: number, end: number, vmas: VmaSet): void {
    for (const sub of this.subs.overlapping(start, end)) {
      if (sub.ops.areaClosed === undefined) continue;
      if (sub.pieces.some((p) => vmas.intersects(Math.floor(p.start / PAGE_SIZE), Math.ceil(p.end / PAGE_SIZE))))
        continue;
      this.closed.push(sub);
      this.callbacks.guard(sub, 'areaClosed', () => sub.ops.areaClosed!(sub));
    }
  }

  /** After the bracket: what was mapped at the bytes [start, end) is now at `newStart`; `left`: the old addresses stay mapped, and theirs. */
  moveAreas(start: number, end: number, newStart: number, left: boolean): void {
    for (const sub of this.subs.overlapping(start, end))
      if (sub.ops.areaClosed !== undefined) this.subs.move(sub, start, end, newStart, left);
  }

  /** After the bracket: the closed areas' subscriptions go. */
  removeClosed(): void {
    for (let sub = this.closed.pop(); sub !== undefined; sub = this.closed.pop()) {
      if (sub.registered) this.remove(sub);
    }
  }
}
