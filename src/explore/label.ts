import type { WordsLabel } from '../base/index.js';

/** Names for the arrays that a program gives to `Atomics`, so that its steps can be read. */

const labels = new WeakMap<object, WordsLabel>();

/** How the explorer prints the elements of `array`: `name[i]`, or as the functions say. Returns the array. */
export function label<T extends object>(array: T, name: WordsLabel): T {
  labels.set(array, name);
  return array;
}

export function labelOf(array: object): WordsLabel | undefined {
  return labels.get(array);
}
