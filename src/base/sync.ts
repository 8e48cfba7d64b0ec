import type { WasmMemory } from './webassembly.js';

/**
 * The one seam for locks, shared protocol words, and waiting. State that two threads share is reached through `Words`
 * alone. In production the methods are plain accesses and atomics; under the explorer this module is replaced by a
 * twin of the same face (`src/explore/seam.ts`) whose methods are scheduling points.
 *
 * Memory order: `readOnce` and `writeOnce` are plain (relaxed, may be reordered by other threads' view); every other
 * method is sequentially consistent.
 */
export class Words {
  readonly length: number;
  private readonly i32: Int32Array;

  /** `length` 32-bit words from `byteOffset` (a multiple of 4). */
  constructor(memory: WasmMemory | { buffer: SharedArrayBuffer }, byteOffset: number, length: number) {
    this.i32 = new Int32Array(memory.buffer, byteOffset, length);
    this.length = length;
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
    return Atomics.load(this.i32, i);
  }

  store(i: number, value: number): void {
    Atomics.store(this.i32, i, value);
  }

  /** Returns the old value, as do the other read-modify-write methods. */
  fetchAdd(i: number, value: number): number {
    return Atomics.add(this.i32, i, value);
  }

  fetchOr(i: number, value: number): number {
    return Atomics.or(this.i32, i, value);
  }

  fetchAnd(i: number, value: number): number {
    return Atomics.and(this.i32, i, value);
  }

  exchange(i: number, value: number): number {
    return Atomics.exchange(this.i32, i, value);
  }

  compareExchange(i: number, expected: number, value: number): number {
    return Atomics.compareExchange(this.i32, i, expected, value);
  }

  /** Takes the lock in word `i` (0 free, 1 held, 2 held and awaited). May block; pairs with `unlock`. */
  lock(i: number): void {
    if (Atomics.compareExchange(this.i32, i, 0, 1) !== 0) this.lockSlow(i);
  }

  unlock(i: number): void {
    if (Atomics.exchange(this.i32, i, 0) === 2) Atomics.notify(this.i32, i, 1);
  }

  private lockSlow(i: number): void {
    while (Atomics.exchange(this.i32, i, 2) !== 0) Atomics.wait(this.i32, i, 2);
  }

  /** Blocks while word `i` holds `expected`, until `notify`. Not on a browser page's own thread. */
  wait(i: number, expected: number): void {
    Atomics.wait(this.i32, i, expected);
  }

  notify(i: number): void {
    Atomics.notify(this.i32, i);
  }
}
