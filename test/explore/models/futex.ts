import { type Mutant, model } from 'unpin/explore';
import { Words } from 'unpin/mm';
import { futexLock, futexUnlock } from '../../../src/base/futex.js';

/** base/futex.ts itself, step by step. */

const LOCK = 0;
const COUNTER = 1;

/** So many actors, each of which adds one under the lock. */
function contended(name: string, nrActors: number, preemptions: number | 'none', mutants: readonly Mutant[]) {
  const add = (words: Words) => {
    futexLock(words, LOCK);
    words.writeOnce(COUNTER, words.readOnce(COUNTER) + 1);
    futexUnlock(words, LOCK);
  };
  const names = ['one', 'two', 'three'].slice(0, nrActors);
  return model({
    name,
    preemptions,
    mutants,
    setup: () =>
      new Words({ buffer: new SharedArrayBuffer(64) }, 0, 2, { word: (i) => (i === LOCK ? 'lock' : 'counter') }),
    actors: Object.fromEntries(names.map((actor) => [actor, add])),
    check(words) {
      const [lockWord, counter] = [words.load(LOCK), words.load(COUNTER)];
      if (counter !== nrActors) return `counter is ${counter}, not ${nrActors}: two held the lock at once`;
      return lockWord === 0 ? undefined : `the lock is ${lockWord} in the end`;
    },
  });
}

const FUTEX = 'base/futex.ts';
const SLOW = 'while (words.exchange(i, 2) !== 0) words.wait(i, 2);';

export const two = contended('two on the futex lock', 2, 'none', [
  {
    name: 'it looks, then takes: two may see it free',
    file: FUTEX,
    find: 'if (words.compareExchange(i, 0, 1) !== 0) futexLockSlow(words, i);',
    replace: 'if (words.compareExchange(i, 0, 0) !== 0) futexLockSlow(words, i); else words.exchange(i, 1);',
    fails: /^check: .* two held the lock at once/,
  },
  {
    name: 'unlock does not notify',
    file: FUTEX,
    find: 'if (words.exchange(i, 0) === 2) words.notify(i, 1);',
    replace: 'words.exchange(i, 0);',
    fails: /^lost wake-up/,
  },
  {
    name: 'a waiter leaves no mark before it sleeps',
    file: FUTEX,
    find: SLOW,
    replace: 'while (words.compareExchange(i, 0, 1) !== 0) words.wait(i, 1);',
    fails: /^lost wake-up/,
  },
]);

export const three = contended('three on the futex lock', 3, 3, [
  {
    name: 'who was woken takes the lock as if nobody else waited',
    file: FUTEX,
    find: SLOW,
    replace: `while (words.compareExchange(i, 0, 1) !== 0) {
      words.compareExchange(i, 1, 2);
      words.wait(i, 2);
    }`,
    fails: /^lost wake-up/,
  },
]);
