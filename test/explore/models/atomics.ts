import { label, model } from 'unpin/explore';

/** Protocols on SharedArrayBuffer and Atomics alone, with plain accesses to shared arrays. */

const FILE = 'models/atomics.ts';

/** Four values, and a flag that says that they are there. */
export const messagePassing = model({
  name: 'message passing',
  setup: () => {
    const memory = new SharedArrayBuffer(64);
    return { data: new Int32Array(memory, 0, 4), flag: label(new Int32Array(memory, 32, 1), 'flag'), got: 0 };
  },
  actors: {
    producer: ({ data, flag }) => {
      data.fill(1);
      data[3]! += 38;
      Atomics.store(flag, 0, 1);
      Atomics.notify(flag, 0);
    },
    consumer: (state) => {
      const { data, flag } = state;
      while (Atomics.load(flag, 0) === 0) Atomics.wait(flag, 0, 0);
      for (let i = 0; i < 4; i++) state.got += data[i]!;
    },
  },
  check: ({ got }) => (got === 42 ? undefined : `got ${got}`),
  mutants: [
    {
      name: 'the flag is set by a plain store',
      file: FILE,
      find: 'Atomics.store(flag, 0, 1); Atomics.notify(flag, 0);',
      replace: 'flag[0] = 1;',
      fails: /^data race: /,
    },
    {
      name: 'the flag is read by a plain load',
      file: FILE,
      find: 'while (Atomics.load(flag, 0) === 0) Atomics.wait(flag, 0, 0);',
      replace: 'if (flag[0] === 0) return;',
      fails: /^data race: /,
    },
    {
      name: 'the flag is set too early',
      file: FILE,
      find: 'data[3]! += 38; Atomics.store(flag, 0, 1);',
      replace: 'Atomics.store(flag, 0, 1); data[3]! += 38;',
      fails: /^data race: /,
    },
  ],
});

/** Bytes that lie side by side are no race; the same one is. */
export const neighbours = model({
  name: 'bytes side by side',
  setup: () => new Uint8Array(new SharedArrayBuffer(8)),
  actors: {
    left: (bytes) => {
      bytes[0] = 1;
      bytes[2]++;
    },
    right: (bytes) => {
      bytes[1] = 1;
      new DataView(bytes.buffer).setUint16(4, 1);
    },
  },
  mutants: [
    {
      name: 'an overlap of two widths',
      file: FILE,
      find: 'setUint16(4, 1)',
      replace: 'setUint16(1, 1)',
      fails: /^data race/,
    },
  ],
});

/** A counting semaphore that guards plain data. */
function down(sem: Int32Array): void {
  for (;;) {
    const value = Atomics.load(sem, 0);
    if (value > 0 && Atomics.compareExchange(sem, 0, value, value - 1) === value) return;
    if (value === 0) Atomics.wait(sem, 0, 0);
  }
}

function up(sem: Int32Array): void {
  Atomics.add(sem, 0, 1);
  Atomics.notify(sem, 0, 1);
}

interface Guarded {
  readonly sem: Int32Array;
  readonly sum: Float64Array;
}

function addOne({ sem, sum }: Guarded): void {
  down(sem);
  sum[0]!++;
  up(sem);
}

export const semaphore = model({
  name: 'a semaphore',
  setup: (): Guarded => {
    const memory = new SharedArrayBuffer(64);
    return { sem: label(new Int32Array(memory, 0, 1).fill(1), 'semaphore'), sum: new Float64Array(memory, 8, 1) };
  },
  actors: { one: addOne, two: addOne },
  check: ({ sum }) => (sum[0] === 2 ? undefined : `sum is ${sum[0]}`),
  mutants: [
    {
      name: 'down looks, then takes',
      file: FILE,
      find: 'if (value > 0 && Atomics.compareExchange(sem, 0, value, value - 1) === value) return;',
      replace: 'if (value > 0) { Atomics.sub(sem, 0, 1); return; }',
      fails: /^data race: /,
    },
    { name: 'up wakes nobody', file: FILE, find: 'Atomics.notify(sem, 0, 1);', replace: '', fails: /^lost wake-up/ },
    { name: 'nothing is taken', file: FILE, find: 'down(sem); sum[0]!++;', replace: 'sum[0]!++;', fails: /^data race/ },
  ],
});

/** 64 bits, and a wait with a time-out that gives up. */
export const wide = model({
  name: 'bigints and time-outs',
  setup: () => ({ words: new BigInt64Array(new SharedArrayBuffer(16)), seen: '' }),
  actors: {
    waiter: (state) => {
      state.seen = Atomics.wait(state.words, 0, 0n, 10);
    },
    waker: ({ words }) => {
      Atomics.add(words, 0, 1n << 40n);
      Atomics.notify(words, 0);
    },
  },
  check: ({ words, seen }) => {
    if (words[0] !== 1n << 40n) return `the word is ${words[0]}`;
    return ['ok', 'not-equal', 'timed-out'].includes(seen) ? undefined : `wait returned ${seen}`;
  },
  mutants: [
    {
      name: 'without a time-out nobody wakes it',
      edits: [
        { file: FILE, find: 'Atomics.wait(state.words, 0, 0n, 10)', replace: 'Atomics.wait(state.words, 0, 0n)' },
        { file: FILE, find: 'Atomics.notify(words, 0);', replace: '' },
      ],
      fails: /^lost wake-up/,
    },
  ],
});
