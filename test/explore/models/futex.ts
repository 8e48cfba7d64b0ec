import { model } from 'unpin/explore';
import { Words } from 'unpin/mm';
import { type FutexWords, futexLock, futexUnlock } from '../../../src/base/futex.js';

/** base/futex.ts itself, step by step, and variants of it that lack something. */

const LOCK = 0;
const COUNTER = 1;

interface Lock {
  lock(words: FutexWords, i: number): void;
  unlock(words: FutexWords, i: number): void;
}

/** So many actors, each of which adds one under the lock. */
function contended(name: string, nrActors: number, { lock, unlock }: Lock) {
  const add = (words: Words) => {
    lock(words, LOCK);
    words.writeOnce(COUNTER, words.readOnce(COUNTER) + 1);
    unlock(words, LOCK);
  };
  const names = ['one', 'two', 'three'].slice(0, nrActors);
  return model({
    name,
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

const asItIs: Lock = { lock: futexLock, unlock: futexUnlock };
export const two = contended('two on the futex lock', 2, asItIs);
export const three = contended('three on the futex lock', 3, asItIs);

/** Looks, then takes: two may see it free. */
export const lookThenTake = contended('look, then take', 2, {
  lock(words, i) {
    if (words.compareExchange(i, 0, 0) === 0) words.exchange(i, 1);
    else futexLock(words, i);
  },
  unlock: futexUnlock,
});

/** Nobody is woken. */
export const noNotify = contended('unlock without notify', 2, {
  lock: futexLock,
  unlock: (words, i) => void words.exchange(i, 0),
});

/** Who was woken takes the lock as if nobody else waited: a third sleeps on. */
export const takesAsHeld = contended('a woken waiter takes it as 1', 3, {
  lock(words, i) {
    if (words.compareExchange(i, 0, 1) === 0) return;
    while (words.compareExchange(i, 0, 1) !== 0) {
      words.compareExchange(i, 1, 2);
      words.wait(i, 2);
    }
  },
  unlock: futexUnlock,
});

/** The waiter does not leave its mark before it sleeps. */
export const noMark = contended('a waiter leaves no mark', 2, {
  lock(words, i) {
    while (words.compareExchange(i, 0, 1) !== 0) words.wait(i, 1);
  },
  unlock: futexUnlock,
});
