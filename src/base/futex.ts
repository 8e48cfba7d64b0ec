/**
 * The lock of `Words.lock`, after Drepper's "Futexes Are Tricky" (mutex 2): a word is 0 free, 1 held, 2 held and perhaps
 * awaited. It is apart from `Words` so that the explorer, which takes a lock in one step, can also run the lock itself.
 *
 *   holder                      waiter
 *                               compareExchange(0, 1): held
 *                               exchange(2): was 1
 *   exchange(0): was 2
 *   notify                      wait(2): the word is 0, so it does not sleep
 *                               exchange(2): was 0, the lock is its own
 *
 * Required outcome: no waiter sleeps while the lock is free (test/explore/protocols.test.ts).
 */
export interface FutexWords {
  compareExchange(i: number, expected: number, value: number): number;
  exchange(i: number, value: number): number;
  wait(i: number, expected: number, timeoutMs?: number): void;
  notify(i: number, count: number): void;
}

/** May block; pairs with `futexUnlock`. */
export function futexLock(words: FutexWords, i: number): void {
  if (words.compareExchange(i, 0, 1) !== 0) futexLockSlow(words, i);
}

/** Once it had to wait, it takes the lock as awaited (2): others may sleep that it cannot see. */
function futexLockSlow(words: FutexWords, i: number): void {
  while (words.exchange(i, 2) !== 0) words.wait(i, 2);
}

/**
 * As `futexLock`, for locks whose holder may be killed: gives up after `timeoutMs`, or as soon as `hopeless` says so. Whether it has
 * the lock. What gave up leaves the word at 2, so that `futexUnlock` notifies once for nobody.
 */
export function futexLockTimeout(words: FutexWords, i: number, timeoutMs: number, hopeless: () => boolean): boolean {
  if (words.compareExchange(i, 0, 1) === 0) return true;
  for (let waitedMs = 0; waitedMs < timeoutMs; waitedMs += LOOK_AGAIN_MS) {
    if (words.exchange(i, 2) === 0) return true;
    if (hopeless()) return false;
    words.wait(i, 2, LOOK_AGAIN_MS);
  }
  return false;
}

/** How long a wait with an end sleeps before it looks whether there is hope. */
const LOOK_AGAIN_MS = 20;

export function futexUnlock(words: FutexWords, i: number): void {
  if (words.exchange(i, 0) === 2) words.notify(i, 1);
}
