import type { WordsLabel } from '../base/index.js';
import type { SharedWords, Step } from './step.js';

/**
 * The twin of base/sync.ts that explored programs get in its place: the same face, but every access is a scheduling point.
 * A lock is taken in one step that waits until it is free (base/futex.ts, which does it in production, is explored by itself).
 *
 * This file is only ever run after rewrite.ts, which makes generators of these methods: `__x` is the runtime.
 */
declare const __x: { schedulingPoint(step: Step): number };

export type { WordsLabel };

export class Words implements SharedWords {
  readonly length: number;
  readonly array: Int32Array;
  readonly label: WordsLabel | undefined;

  constructor(memory: { buffer: SharedArrayBuffer }, byteOffset: number, length: number, label?: WordsLabel) {
    this.array = new Int32Array(memory.buffer, byteOffset, length);
    this.length = length;
    this.label = label;
  }

  readOnce(i: number): number {
    return __x.schedulingPoint({ op: 'readOnce', words: this, index: i, value: 0 });
  }

  writeOnce(i: number, value: number): void {
    __x.schedulingPoint({ op: 'writeOnce', words: this, index: i, value });
  }

  load(i: number): number {
    return __x.schedulingPoint({ op: 'load', words: this, index: i, value: 0 });
  }

  store(i: number, value: number): void {
    __x.schedulingPoint({ op: 'store', words: this, index: i, value });
  }

  fetchAdd(i: number, value: number): number {
    return __x.schedulingPoint({ op: 'fetchAdd', words: this, index: i, value });
  }

  fetchOr(i: number, value: number): number {
    return __x.schedulingPoint({ op: 'fetchOr', words: this, index: i, value });
  }

  fetchAnd(i: number, value: number): number {
    return __x.schedulingPoint({ op: 'fetchAnd', words: this, index: i, value });
  }

  exchange(i: number, value: number): number {
    return __x.schedulingPoint({ op: 'exchange', words: this, index: i, value });
  }

  compareExchange(i: number, expected: number, value: number): number {
    return __x.schedulingPoint({ op: 'compareExchange', words: this, index: i, value, expected });
  }

  lock(i: number): void {
    __x.schedulingPoint({ op: 'lock', words: this, index: i, value: 1 });
  }

  /** Time does not pass here, and nobody is killed. */
  lockTimeout(i: number, _timeoutMs: number, _hopeless: () => boolean): boolean {
    __x.schedulingPoint({ op: 'lock', words: this, index: i, value: 1 });
    return true;
  }

  unlock(i: number): void {
    __x.schedulingPoint({ op: 'unlock', words: this, index: i, value: 0 });
  }

  wait(i: number, expected: number, _timeoutMs?: number): void {
    __x.schedulingPoint({ op: 'wait', words: this, index: i, value: expected });
  }

  notify(i: number, count = Number.POSITIVE_INFINITY): void {
    __x.schedulingPoint({ op: 'notify', words: this, index: i, value: count });
  }
}

export const WORDS_ARE_MEMORY: boolean = false;

export function cpuRelax(): void {
  __x.schedulingPoint({ op: 'relax' });
}
