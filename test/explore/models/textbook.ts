import { model, transfer } from 'unpin/explore';
import { cpuRelax, Words } from 'unpin/mm';

/** Models of textbooks in their right form; each mutant is the textbook's mistake. */

const FILE = 'models/textbook.ts';
const words = (length: number, names: readonly string[]) =>
  new Words({ buffer: new SharedArrayBuffer(64) }, 0, length, { word: (i) => names[i]! });

const increment = (w: Words) => void w.fetchAdd(0, 1);

export const counter = model({
  name: 'two increments',
  setup: () => words(1, ['counter']),
  actors: { one: increment, two: increment },
  check: (w) => (w.load(0) === 2 ? undefined : `counter is ${w.load(0)}, not 2`),
  mutants: [
    {
      name: 'read, then write: the lost update',
      file: FILE,
      find: 'const increment = (w: Words) => void w.fetchAdd(0, 1);',
      replace: 'const increment = (w: Words) => w.store(0, w.load(0) + 1);',
      fails: /^check: counter is 1, not 2/,
    },
  ],
});

const both = (w: Words, first: number, second: number) => {
  w.lock(first);
  w.lock(second);
  w.unlock(second);
  w.unlock(first);
};

export const lockOrder = model({
  name: 'two locks',
  setup: () => words(2, ['left', 'right']),
  actors: { one: (w) => both(w, 0, 1), two: (w) => both(w, 0, 1) },
  mutants: [
    {
      name: 'two lock orders',
      file: FILE,
      find: 'two: (w) => both(w, 0, 1)',
      replace: 'two: (w) => both(w, 1, 0)',
      fails: /^deadlock: .*waits for lock/,
    },
  ],
});

export const wakeUp = model({
  name: 'sleep and wake-up',
  setup: () => words(1, ['ready']),
  actors: {
    waiter: (w) => {
      while (w.load(0) === 0) w.wait(0, 0);
    },
    waker: (w) => {
      w.store(0, 1);
      w.notify(0);
    },
  },
  mutants: [
    {
      name: 'wakes before the word is set: the lost wake-up',
      file: FILE,
      find: 'w.store(0, 1); w.notify(0);',
      replace: 'w.notify(0); w.store(0, 1);',
      fails: /^lost wake-up: waiter sleeps at ready until it is not 0; it is 1/,
    },
  ],
});

const TURN = 2;
const INSIDE = 3;

function critical(w: Words): void {
  w.writeOnce(INSIDE, w.readOnce(INSIDE) + 1);
}

/** Dekker: who meets the other gives way when it is not its turn. */
function dekker(me: number) {
  const other = 1 - me;
  return (w: Words) => {
    w.store(me, 1);
    while (w.load(other) === 1) {
      if (w.load(TURN) !== me) {
        w.store(me, 0);
        while (w.load(TURN) !== me) cpuRelax();
        w.store(me, 1);
      }
      cpuRelax();
    }
    critical(w);
    w.store(TURN, other);
    w.store(me, 0);
  };
}

const dekkerCheck = (w: Words) => (w.readOnce(INSIDE) === 2 ? undefined : 'two were inside at once');

export const mutualExclusion = model({
  name: "Dekker's lock",
  setup: () => words(4, ['wants[0]', 'wants[1]', 'turn', 'inside']),
  actors: { zero: dekker(0), one: dekker(1) },
  check: dekkerCheck,
  mutants: [
    {
      name: 'it does not say that it wants to go in',
      file: FILE,
      find: 'w.store(me, 1); while (w.load(other)',
      replace: 'while (w.load(other)',
      fails: /^check: two were inside/,
    },
    {
      name: 'it looks whether the other wants, and only then says so',
      file: FILE,
      find: 'w.store(me, 1); while (w.load(other) === 1) {',
      replace: 'while (w.load(other) === 1) {',
      fails: /^check: two were inside/,
    },
    {
      name: 'both give way, without a turn: the livelock',
      file: FILE,
      find: 'if (w.load(TURN) !== me) { w.store(me, 0); while (w.load(TURN) !== me) cpuRelax(); w.store(me, 1); } cpuRelax();',
      replace: 'w.store(me, 0); cpuRelax(); w.store(me, 1);',
      fails: /^livelock: zero and one come back to the same state every \d+ steps/,
      preemptions: 4,
    },
    {
      name: 'who leaves does not pass the turn on',
      file: FILE,
      find: 'w.store(TURN, other);',
      replace: '',
      fails: /^livelock: one looks again and again/,
    },
  ],
});

const SEQ = 0;
const HALVES = 1;

function seqWrite(w: Words, value: number): void {
  w.store(SEQ, w.load(SEQ) + 1);
  w.writeOnce(HALVES, value);
  w.writeOnce(HALVES + 1, value);
  w.store(SEQ, w.load(SEQ) + 1);
}

function seqRead(w: Words): [number, number] {
  for (;;) {
    const seq = w.load(SEQ);
    if ((seq & 1) === 0) {
      const pair: [number, number] = [w.readOnce(HALVES), w.readOnce(HALVES + 1)];
      if (w.load(SEQ) === seq) return pair;
    }
    cpuRelax();
  }
}

export const seqlock = model({
  name: 'a sequence lock',
  setup: () => ({ w: words(3, ['seq', 'left', 'right']), got: [0, 0] }),
  actors: {
    writer: ({ w }) => {
      seqWrite(w, 1);
      seqWrite(w, 2);
    },
    reader: (state) => {
      state.got = seqRead(state.w);
    },
  },
  check: ({ got }) => (got[0] === got[1] ? undefined : `read ${got.join(' and ')}`),
  mutants: [
    {
      name: 'the reader does not look again',
      file: FILE,
      find: 'if (w.load(SEQ) === seq) return pair;',
      replace: 'return pair;',
      fails: /^check: read \d and \d/,
    },
    {
      name: 'the reader does not mind a writer at work',
      file: FILE,
      find: 'if ((seq & 1) === 0) {',
      replace: '{',
      fails: /^check: read \d and \d/,
    },
    {
      name: 'the writer does not say that it begins',
      file: FILE,
      find: 'w.store(SEQ, w.load(SEQ) + 1); w.writeOnce(HALVES, value);',
      replace: 'w.writeOnce(HALVES, value);',
      fails: /^check: read \d and \d|^livelock/,
    },
  ],
});

/** A device fills a page that its reader has to wait for; a second reader shares the thread. */
export const deviceRead = model({
  name: 'a read from a device',
  setup: () => ({ page: [0], uptodate: false, got: [] as number[] }),
  threads: [['first', 'second']],
  actors: {
    first: async (state) => {
      await transfer('disk read', () => {
        state.page[0] = 7;
      });
      state.uptodate = true;
      state.got.push(state.page[0]!);
    },
    second: async (state) => {
      await undefined;
      if (state.uptodate) state.got.push(state.page[0]!);
    },
  },
  check: ({ got }) => (got.every((value) => value === 7) ? undefined : `read ${got.join()}`),
  mutants: [
    {
      name: 'the page is up to date before the device is done',
      file: FILE,
      find: "await transfer('disk read', () => {",
      replace: "state.uptodate = true; await transfer('disk read', () => {",
      fails: /^check: read 0/,
    },
    {
      name: 'the device is not waited for',
      file: FILE,
      find: "await transfer('disk read', () => {",
      replace: "void transfer('disk read', () => {",
      fails: /^check: read 0/,
    },
  ],
});

/** A request that is given up when its time is over, or done before. */
export const watchdog = model({
  name: 'a request and its timer',
  setup: () => ({ outcome: '' }),
  actors: {
    request: async (state) => {
      const timer = setTimeout(() => {
        if (state.outcome !== '') throw new Error(`timed out after it was ${state.outcome}`);
        state.outcome = 'given up';
      }, 1000);
      await transfer('answer', () => {});
      if (state.outcome !== '') return;
      clearTimeout(timer);
      state.outcome = 'done';
    },
  },
  check: ({ outcome }) => (outcome === '' ? 'it has no outcome' : undefined),
  mutants: [
    {
      name: 'the timer is not cleared',
      file: FILE,
      find: 'clearTimeout(timer);',
      replace: 'void timer;',
      fails: /timed out after it was done/,
    },
    {
      name: 'it is not looked whether it was given up',
      file: FILE,
      find: "if (state.outcome !== '') return;",
      replace: "if (state.outcome !== '') throw new Error('done after it was given up');",
      fails: /^threw: request threw done after it was given up/,
    },
  ],
});
