import { isWrite, newValue, type SharedWords, type WordStep } from './step.js';

/**
 * The shared words of one run, as the explorer performs them: sequentially consistent, one access at a time. Knows who waits for
 * which word, and who holds which lock.
 */

/** A word of any `Words`, by the order in which memories are met and its place: the same in each run. */
export type WordKey = number;

/** Bytes that one memory may have, so that keys of two never meet. */
const MEMORY_SPAN = 2 ** 33;

export interface Access {
  readonly key: WordKey;
  readonly old: number;
  readonly now: number;
}

export class SharedMemory {
  private readonly memories = new Map<object, number>();
  /** Actors asleep at a word, in the order in which they came. */
  private readonly sleepers = new Map<WordKey, number[]>();
  private readonly holders = new Map<WordKey, number>();

  keyOf(words: SharedWords, index: number): WordKey {
    const { buffer, byteOffset } = words.i32;
    let memory = this.memories.get(buffer);
    if (memory === undefined) this.memories.set(buffer, (memory = this.memories.size));
    return memory * MEMORY_SPAN + byteOffset + index * 4;
  }

  canPerform(step: WordStep): boolean {
    return step.op !== 'lock' || step.words.i32[step.index] === 0;
  }

  /** Performs the step for an actor. After a `wait` that sleeps, `isAsleep` is true. */
  perform(step: WordStep, actor: number): Access {
    const { words, index } = step;
    if (!(index >= 0 && index < words.i32.length))
      throw new RangeError(`word ${index} is not one of the ${words.i32.length} words`);
    const key = this.keyOf(words, index);
    const old = words.i32[index]!;
    const now = newValue(step, old);
    if (isWrite(step)) words.i32[index] = now;
    if (step.op === 'lock') this.holders.set(key, actor);
    else if (step.op === 'unlock') this.unlock(key, old);
    else if (step.op === 'wait' && old === (step.value | 0)) this.sleepersAt(key).push(actor);
    else if (step.op === 'notify') this.sleepersAt(key).splice(0, step.value);
    return { key, old, now };
  }

  private unlock(key: WordKey, old: number): void {
    if (old === 0) throw new Error('unlock of a lock that is not held');
    this.holders.delete(key);
  }

  private sleepersAt(key: WordKey): number[] {
    let list = this.sleepers.get(key);
    if (list === undefined) this.sleepers.set(key, (list = []));
    return list;
  }

  isAsleep(actor: number): boolean {
    for (const list of this.sleepers.values()) if (list.includes(actor)) return true;
    return false;
  }

  holderOf(step: WordStep): number | undefined {
    return this.holders.get(this.keyOf(step.words, step.index));
  }
}

/** Which words actors touched, over all runs: those that two touch and one writes are where schedules can differ. */
export class Conflicts {
  readonly shared = new Set<WordKey>();
  private readonly readers = new Map<WordKey, number>();
  private readonly writers = new Map<WordKey, number>();

  /** True when the word was not known to be shared until now. */
  note(key: WordKey, actor: number, write: boolean): boolean {
    if (this.shared.has(key)) return false;
    const mine = write ? this.writers : this.readers;
    mine.set(key, (mine.get(key) ?? 0) | (1 << actor));
    const writers = this.writers.get(key) ?? 0;
    const all = writers | (this.readers.get(key) ?? 0);
    if (writers === 0 || (all & (all - 1)) === 0) return false;
    this.shared.add(key);
    return true;
  }
}
