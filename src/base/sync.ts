import { CONFIG_LOCKDEP } from './configlockdep.js';
import { futexLock, futexLockTimeout, futexUnlock } from './futex.js';
import { lockdepLocked, lockdepLocking, lockdepUnlocked, lockdepWait } from './lockdep.js';
import { type WordOps, wordOpsOf } from './wordops.js';

/** How the explorer prints a word: by a name for all, `name[i]`, or as the functions say. Costs nothing in production. */
export type WordsLabel = string | { word(i: number): string; value?(i: number, value: number): string };

/**
 * The one seam for locks, shared protocol words, and waiting. State that two threads share is reached through `Words`
 * alone. In production the methods are plain accesses and atomics; under the explorer this module is replaced by a
 * twin of the same face (`src/explore/seam.ts`) whose methods are scheduling points.
 *
 * Memory order: `readOnce` and `writeOnce` are plain (relaxed, may be reordered by other threads' view); every other
 * method is sequentially consistent.
 */
export class Words {
  // WHY = 0: a field that begins as undefined is a value of any kind to the engine, which asks of which at each use.
  readonly length: number = 0;
  private readonly byteOffset: number = 0;
  private readonly i32: Int32Array;
  private readonly ops: WordOps;

  /** `length` 32-bit words from `byteOffset` (a multiple of 4). `label` is for the explorer alone. */
  constructor(memory: { buffer: SharedArrayBuffer }, byteOffset: number, length: number, _label?: WordsLabel) {
    this.i32 = new Int32Array(memory.buffer, byteOffset, length);
    this.length = length;
    this.ops = wordOpsOf(memory);
    this.byteOffset = byteOffset;
  }

  /** Plain load, as Linux's READ_ONCE. */
  readOnce(i: number): number {
    return this.i32[i]!;
  }

  /** Plain store, as Linux's WRITE_ONCE. */
  writeOnce(i: number, value: number): void {
    this.i32[i] = value;
  }

  load(i: number): number {
    return this.ops.load(addressOf(i, this.length, this.byteOffset));
  }

  store(i: number, value: number): void {
    this.ops.store(addressOf(i, this.length, this.byteOffset), value);
  }

  /** Returns the old value, as do the other read-modify-write methods. */
  fetchAdd(i: number, value: number): number {
    return this.ops.add(addressOf(i, this.length, this.byteOffset), value);
  }

  fetchOr(i: number, value: number): number {
    return this.ops.or(addressOf(i, this.length, this.byteOffset), value);
  }

  fetchAnd(i: number, value: number): number {
    return this.ops.and(addressOf(i, this.length, this.byteOffset), value);
  }

  exchange(i: number, value: number): number {
    return this.ops.exchange(addressOf(i, this.length, this.byteOffset), value);
  }

  compareExchange(i: number, expected: number, value: number): number {
    return this.ops.compareExchange(addressOf(i, this.length, this.byteOffset), expected, value);
  }

  /** Takes the lock in word `i` (0 free, 1 held, 2 held and awaited). May block; pairs with `unlock`. */
  lock(i: number): void {
    if (CONFIG_LOCKDEP) lockdepLocking(this.i32, i);
    futexLock(this, i);
    if (CONFIG_LOCKDEP) lockdepLocked();
  }

  /** As `lock`, for a lock whose holder may be killed: whether it is taken; it is not after `timeoutMs`, or once `hopeless` says so. */
  lockTimeout(i: number, timeoutMs: number, hopeless: () => boolean): boolean {
    if (CONFIG_LOCKDEP) lockdepLocking(this.i32, i);
    const taken = futexLockTimeout(this, i, timeoutMs, hopeless);
    if (CONFIG_LOCKDEP && taken) lockdepLocked();
    return taken;
  }

  unlock(i: number): void {
    futexUnlock(this, i);
    if (CONFIG_LOCKDEP) lockdepUnlocked(this.i32, i);
  }

  /**
   * Blocks while word `i` holds `expected`, until `notify`, or for `timeoutMs` at most. Not on a browser page's own thread. A wait
   * with an end is one for a thread that runs and will soon see it (a lock's holder, a shootdown): no wait that lockdep knows.
   */
  wait(i: number, expected: number, timeoutMs?: number): void {
    if (CONFIG_LOCKDEP && timeoutMs === undefined) lockdepWait(`a word (${i})`);
    Atomics.wait(this.i32, i, expected, timeoutMs);
  }

  /** Wakes `count` of those who wait for word `i`, in the order in which they came; default: all. */
  notify(i: number, count?: number): void {
    Atomics.notify(this.i32, i, count);
  }
}

/** The address of word `i`. Throws RangeError where there is none, as `Atomics` would. Not a method: the explorer's twin has none such. */
function addressOf(i: number, length: number, byteOffset: number): number {
  if (i >>> 0 >= length) throw new RangeError(`word ${i} must be below ${length}`);
  return byteOffset + 4 * i;
}

/**
 * Whether code in WebAssembly may do to memory what is done by `Words` elsewhere. Not under the explorer, where each access is a scheduling point: there
 * the twin in TypeScript does it.
 */
export const WORDS_ARE_MEMORY: boolean = true;

/**
 * In a loop that waits for another thread, before it looks again (Linux: cpu_relax). The explorer takes it as "nothing
 * changes here until somebody else writes"; without it such a loop is explored to the step limit.
 */
export function cpuRelax(): void {}
