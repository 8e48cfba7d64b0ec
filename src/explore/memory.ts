import {
  coerce,
  isWrite,
  newValue,
  type SharedWords,
  WAIT_NOT_EQUAL,
  WAIT_OK,
  type WordStep,
  type WordValue,
} from './step.js';

/**
 * The shared words of one run, as the explorer performs them: sequentially consistent, one access at a time. Knows who waits for
 * which word, and who holds which lock.
 */

/** A word of any memory, by the order in which memories are met and its place: the same in each run. */
export type WordKey = number;

/** Bytes that one memory may have, so that keys of two never meet. */
const MEMORY_SPAN = 2 ** 33;
/** The list of those who wait for a word is a resource of its own, beside the word. */
const SLEEPERS = 2;

export class SharedMemory {
  /** Of the last `perform`: the word before and after, what the operation returns, and whether the access was a write. */
  old: WordValue = 0;
  now: WordValue = 0;
  result: WordValue = 0;
  wrote = false;
  /** Actors that it woke. */
  woken: readonly number[] = [];
  /** A number for the contents of all words that have changed; equal contents, equal numbers (64 bits, by chance only otherwise). */
  hashLow = 0;
  hashHigh = 0;
  private readonly memories = new Map<object, number>();
  private lastBuffer: object | undefined;
  private lastMemory = 0;
  /** Asleep at a word, in the order in which they came. */
  private readonly sleepers = new Map<WordKey, number[]>();
  /** Where an actor sleeps. */
  private readonly sleeping: ({ list: number[]; step: WordStep } | undefined)[] = [];
  private readonly holders = new Map<WordKey, number>();

  memoryOf(buffer: object): number {
    if (buffer === this.lastBuffer) return this.lastMemory;
    let memory = this.memories.get(buffer);
    if (memory === undefined) this.memories.set(buffer, (memory = this.memories.size));
    this.lastBuffer = buffer;
    return (this.lastMemory = memory);
  }

  /** Smaller elements that share four bytes are one word. */
  keyOf({ array }: SharedWords, index: number): WordKey {
    const at = array.byteOffset + index * array.BYTES_PER_ELEMENT;
    return this.memoryOf(array.buffer) * MEMORY_SPAN + (at - (at & 3));
  }

  sleepersKey(step: WordStep): WordKey {
    return this.keyOf(step.words, step.index) + SLEEPERS;
  }

  hasSleepers(step: WordStep): boolean {
    return (this.sleepers.get(this.keyOf(step.words, step.index))?.length ?? 0) > 0;
  }

  canPerform(step: WordStep): boolean {
    return step.op !== 'lock' || step.words.array[step.index] === 0;
  }

  /** Whether performing it now writes: an exchange that finds another value only reads. */
  wouldWrite(step: WordStep): boolean {
    if (step.op !== 'compareExchange') return isWrite(step) && step.op !== 'notify';
    return (step.words.array[step.index] as WordValue) === coerce(step.words.array, step.expected!);
  }

  /** Performs the step for an actor and returns the word's key. After a `wait` that sleeps, `isAsleep` is true. */
  perform(step: WordStep, actor: number): WordKey {
    const { words, index } = step;
    const array = words.array as Int32Array;
    if (!(index >= 0 && index < array.length))
      throw new RangeError(`word ${index} is not one of the ${array.length} words`);
    const key = this.keyOf(words, index);
    const old = array[index]!;
    this.wrote = this.wouldWrite(step);
    if (this.wrote) array[index] = newValue(step, old);
    this.old = this.result = old;
    this.now = array[index]!;
    if (this.now !== old) this.rehash(key, old, this.now);
    if (step.op === 'lock') this.holders.set(key, actor);
    else if (step.op === 'unlock') this.unlock(key, old);
    else if (step.op === 'wait') this.wait(step, key, actor);
    else if (step.op === 'notify') this.result = this.notify(key, step.value);
    return key;
  }

  private rehash(key: WordKey, old: WordValue, now: WordValue): void {
    const place = (key % 0xfffffffb) | 0;
    this.hashLow ^= mix(place, old, 0x9e3779b1) ^ mix(place, now, 0x9e3779b1);
    this.hashHigh ^= mix(place, old, 0xc2b2ae35) ^ mix(place, now, 0xc2b2ae35);
  }

  private unlock(key: WordKey, old: WordValue): void {
    if (old === 0) throw new Error('unlock of a lock that is not held');
    this.holders.delete(key);
  }

  private wait(step: WordStep, key: WordKey, actor: number): void {
    if (this.hasChanged(step)) {
      this.result = WAIT_NOT_EQUAL;
      return;
    }
    this.result = WAIT_OK;
    let list = this.sleepers.get(key);
    if (list === undefined) this.sleepers.set(key, (list = []));
    list.push(actor);
    this.sleeping[actor] = { list, step };
  }

  private notify(key: WordKey, count: number): number {
    this.woken = this.sleepers.get(key)?.splice(0, count) ?? [];
    for (const actor of this.woken) this.sleeping[actor] = undefined;
    return this.woken.length;
  }

  isAsleep(actor: number): boolean {
    return this.sleeping[actor] !== undefined;
  }

  /** The wait in which it sleeps. */
  waitOf(actor: number): WordStep | undefined {
    return this.sleeping[actor]?.step;
  }

  /** Whether the word of a wait is not what the wait expects. */
  hasChanged({ words, index, value }: WordStep): boolean {
    return (words.array[index] as WordValue) !== coerce(words.array, value);
  }

  /** Its wait ends without a notify. */
  timeOut(actor: number): void {
    const { list } = this.sleeping[actor]!;
    list.splice(list.indexOf(actor), 1);
    this.sleeping[actor] = undefined;
  }

  holderOf(step: WordStep): number | undefined {
    return this.holders.get(this.keyOf(step.words, step.index));
  }
}

function mix(place: number, value: WordValue, salt: number): number {
  let h = Math.imul(place ^ salt, 0x85ebca6b) ^ Math.imul(Number(value) ^ (salt >>> 3), 0xcc9e2d51);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  return h ^ (h >>> 13);
}

/** Which words actors touched, over all runs: those that two touch and one writes are where schedules can differ. */
export class Conflicts {
  /** An actor made a plain access to shared memory: races are looked for. */
  plain = false;
  /** An actor calls cpuRelax. */
  relaxes = false;
  readonly shared = new Set<WordKey>();
  private readonly users = new Map<WordKey, { readers: number; writers: number }>();

  /** True when the word was not known to be shared until now. `actor` is below 32. */
  note(key: WordKey, actor: number, write: boolean): boolean {
    let users = this.users.get(key);
    if (users === undefined) this.users.set(key, (users = { readers: 0, writers: 0 }));
    const bit = 1 << actor;
    if (((write ? users.writers : users.readers) & bit) !== 0) return false;
    if (write) users.writers |= bit;
    else users.readers |= bit;
    const all = users.writers | users.readers;
    if (users.writers === 0 || (all & (all - 1)) === 0 || this.shared.has(key)) return false;
    this.shared.add(key);
    return true;
  }
}
