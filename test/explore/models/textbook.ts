import { model } from 'unpin/explore';
import { cpuRelax, Words } from 'unpin/mm';

/** Models of textbooks: what the explorer must find in them is known. */

const memory = () => ({ buffer: new SharedArrayBuffer(64) });
const counter = () => new Words(memory(), 0, 1, 'counter');

/** Two increments without a lock: one is lost. */
export const lostUpdate = model({
  name: 'lost update',
  setup: counter,
  actors: {
    one: (words) => words.writeOnce(0, words.readOnce(0) + 1),
    two: (words) => words.writeOnce(0, words.readOnce(0) + 1),
  },
  check: (words) => (words.load(0) === 2 ? undefined : `counter is ${words.load(0)}, not 2`),
});

export const atomicUpdate = model({
  name: 'atomic update',
  setup: counter,
  actors: { one: (words) => void words.fetchAdd(0, 1), two: (words) => void words.fetchAdd(0, 1) },
  check: (words) => (words.load(0) === 2 ? undefined : `counter is ${words.load(0)}, not 2`),
});

/** Five steps and three that have nothing to do with one another. */
export const independent = model({
  name: 'independent steps',
  setup: () => new Words(memory(), 0, 2, 'word'),
  actors: {
    five: (words) => {
      for (let n = 0; n < 5; n++) words.fetchAdd(0, 1);
    },
    three: (words) => {
      for (let n = 0; n < 3; n++) words.fetchAdd(1, 1);
    },
  },
});

function locks(first: number, second: number) {
  return (words: Words) => {
    words.lock(first);
    words.lock(second);
    words.unlock(second);
    words.unlock(first);
  };
}

export const lockOrder = model({
  name: 'locks in two orders',
  setup: () => new Words(memory(), 0, 2, 'lock'),
  actors: { up: locks(0, 1), down: locks(1, 0) },
});

/** The waker forgets: whoever sleeps first sleeps for ever. */
export const lostWakeup = model({
  name: 'lost wake-up',
  setup: () => new Words(memory(), 0, 1, 'ready'),
  actors: {
    waiter: (words) => {
      if (words.load(0) === 0) words.wait(0, 0);
    },
    waker: (words) => {
      words.notify(0);
      words.store(0, 1);
    },
  },
});

function spin(relax: boolean) {
  return model({
    name: 'spin',
    setup: () => new Words(memory(), 0, 1, 'flag'),
    actors: {
      spinner: (words) => {
        while (words.load(0) === 0) if (relax) cpuRelax();
      },
      setter: (words) => words.store(0, 1),
    },
  });
}
export const spinRelaxed = spin(true);
export const spinHot = spin(false);

export const nobodySets = model({
  name: 'nobody sets the flag',
  setup: () => new Words(memory(), 0, 1, 'flag'),
  actors: {
    spinner: (words) => {
      while (words.load(0) === 0) cpuRelax();
    },
    reader: (words) => void words.load(0),
  },
});
