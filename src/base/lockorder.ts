/**
 * Every class of lock, as data: in which order they are taken, and what may happen while one is held. `lockdep.ts` holds the running code
 * against it in debug and test builds; the table in docs/contract.md is made from it (`scripts/lock-table.mjs`).
 *
 * A lock may be taken while locks of a lower rank are held, and no others. Locks of the same rank: as `nest` says.
 *
 * Not here, because there is none: a lock of the reverse map (anonVma, iMmap), of the lru lists and of page tables: they belong to the mm thread.
 */
export interface LockClass {
  readonly name: string;
  readonly rank: number;
  /** Whose it is, and what it guards. */
  readonly guards: string;
  /** Whether its holder may wait, for I/O, another thread, or in `await`. */
  readonly wait: boolean;
  /** Whether it may be held over a whole bracket, from before `invalidateRangeStart` until after `invalidateRangeEnd`. */
  readonly bracket: boolean;
  /** Whether a notifier's callback may take it. */
  readonly callback: boolean;
  /** Several locks of the rank at once: never; in ascending order (of mm ids); or in any order, but always the same. */
  readonly nest: 'no' | 'ascending' | 'one order';
  /** Held by the thread that took it, or by a transfer that goes on when the thread does something else. */
  readonly owner: 'thread' | 'transfer';
}

export const LOCK_CLASSES = {
  notifierHook: {
    name: 'notifier hook',
    rank: 0,
    guards: 'a driver’s own, taken in its `lock` (`mmapLock`) callback and given back in `unlock`: exempt from N7',
    wait: false,
    bracket: true,
    callback: true,
    nest: 'one order',
    owner: 'thread',
  },
  mmapLock: {
    name: 'mmapLock',
    rank: 1,
    guards: 'the VMAs of an mm',
    wait: false,
    bracket: true,
    callback: false,
    nest: 'ascending',
    owner: 'thread',
  },
  pageLock: {
    name: 'page lock',
    rank: 2,
    guards: 'the contents of a frame while they are read (PG_LOCKED)',
    wait: true,
    bracket: true,
    callback: false,
    nest: 'one order',
    owner: 'transfer',
  },
  kvmMmuLock: {
    name: 'kvm mmuLock',
    rank: 3,
    guards: 'direct and shadow entries, reverse map and bracket state of a VM',
    wait: false,
    bracket: false,
    callback: true,
    nest: 'no',
    owner: 'thread',
  },
  driverLock: {
    name: 'driver lock',
    rank: 4,
    guards: 'any other lock of `Words`: a driver’s external table',
    wait: false,
    bracket: false,
    callback: true,
    nest: 'one order',
    owner: 'thread',
  },
} as const satisfies Record<string, LockClass>;

export type LockName = keyof typeof LOCK_CLASSES;
