import { readFile } from 'node:fs/promises';
import { model } from 'unpin/explore';
import { cpuRelax, Host, MAP_ANONYMOUS, MAP_PRIVATE, MemorySwap, PROT_READ, PROT_WRITE, Words } from 'unpin/mm';

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

/** Only one actor touches the word, but the invariant looks at it too. */
export const openDoor = model({
  name: 'a door left open for a moment',
  setup: () => new Words(memory(), 0, 1, 'door'),
  actors: {
    one: (words) => {
      words.store(0, 1);
      words.store(0, 0);
    },
    two: () => {},
  },
  invariant: (words) => (words.load(0) === 0 ? undefined : 'the door is open'),
});

/** Increments of a plain variable, as threads do that share nothing else: `await` between read and write, or not. */
function onOneThread(name: string, waits: boolean) {
  const add = async (state: { counter: number }) => {
    const { counter } = state;
    if (waits) await undefined;
    state.counter = counter + 1;
  };
  return model({
    name,
    setup: () => ({ counter: 0 }),
    threads: [['one', 'two']],
    actors: { one: add, two: add },
    check: ({ counter }) => (counter === 2 ? undefined : `counter is ${counter}, not 2`),
  });
}
export const turns = onOneThread('turns on one thread', false);
export const turnsAwaiting = onOneThread('turns with await', true);

/** One thread is blocked as a whole when one of its actors waits. */
export const blocksThread = model({
  name: 'a thread that blocks itself',
  setup: () => new Words(memory(), 0, 1, 'ready'),
  threads: [['waiter', 'waker']],
  actors: {
    waiter: (words) => words.wait(0, 0),
    waker: (words) => {
      words.store(0, 1);
      words.notify(0);
    },
  },
});

export const neverSettled = model({
  name: 'a promise that nobody settles',
  setup: () => ({}),
  actors: {
    one: async () => {
      await new Promise(() => {});
    },
  },
});

export const rejects = model({
  name: 'an actor that rejects',
  setup: () => new Words(memory(), 0, 1, 'lock'),
  actors: {
    one: async (words) => {
      words.lock(0);
      await undefined;
      throw new Error('late');
    },
    two: (words) => words.lock(0),
  },
});

let runs = 0;
/** Keeps state outside of setup. */
export const differs = model({
  name: 'differs from run to run',
  setup: () => {
    runs++;
    return new Words(memory(), 0, 2, 'word');
  },
  actors: {
    one: (words) => {
      for (let n = 0; n < (runs % 2) * 3; n++) words.fetchAdd(0, 1);
    },
    two: (words) => {
      if (runs % 2 === 1) words.fetchAdd(0, 1);
    },
  },
});

/** queueMicrotask is a job of the actor; a timer that has no end is refused. */
export const microtask = model({
  name: 'microtask',
  setup: () => new Words(memory(), 0, 1, 'word'),
  actors: { one: (words) => queueMicrotask(() => void words.fetchAdd(0, 1)) },
  check: (words) => (words.load(0) === 1 ? undefined : 'the microtask did not run'),
});

export const interval = model({
  name: 'interval',
  setup: () => ({}),
  actors: { one: () => void setInterval(() => {}, 1) },
});

export const imports = model({
  name: 'an import at run time',
  setup: () => ({ separator: '' }),
  actors: {
    one: async (state) => {
      state.separator = (await import('node:path')).posix.sep;
    },
  },
  check: ({ separator }) => (separator === '/' ? undefined : `the separator is ${separator}`),
});

export const fromOutside = model({
  name: 'a promise from outside',
  setup: () => ({}),
  actors: { one: async () => void (await readFile('/none')) },
});

/** What belongs to the mm thread is done by two: the frame table's plain accesses race. */
function onTwoThreads(races: string[]) {
  return model({
    name: 'the mm on two threads',
    races,
    setup() {
      const swap = new MemorySwap({ sizeBytes: 65536 });
      const host = new Host({ frames: 64, arenaBytes: 4096, pageTables: 8, swap });
      const mm = host.createMm();
      const va = mm.mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
      mm.writeSync(va, new Uint8Array([1]));
      return { mm, va };
    },
    actors: {
      one: ({ mm, va }) => void mm.tryGetPage(va, 0),
      two: ({ mm, va }) => void mm.tryGetPage(va, 0),
    },
  });
}
export const racesInFrames = onTwoThreads(['mm/']);
export const racesUnseen = onTwoThreads([]);
