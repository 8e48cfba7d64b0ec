import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createMemory, Words } from '../../src/base/index.js';

const NR_WORDS = 8;
const word = fc.integer({ min: 0, max: NR_WORDS - 1 });
const value = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const RMW = ['fetchAdd', 'fetchOr', 'fetchAnd', 'exchange'] as const;
const operation = fc.oneof(
  fc.record({ op: fc.constant('load' as const), i: word }),
  fc.record({ op: fc.constantFrom('store' as const, ...RMW), i: word, value }),
  fc.record({ op: fc.constant('compareExchange' as const), i: word, expected: fc.oneof(value, fc.constant(0)), value }),
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

function run(words: Words, o: Operation): number | undefined {
  if (o.op === 'load') return words.load(o.i);
  if (o.op === 'store') return void words.store(o.i, o.value);
  if (o.op === 'compareExchange') return words.compareExchange(o.i, o.expected, o.value);
  return words[o.op](o.i, o.value);
}

/** The same by plain arithmetic. */
function expected(model: Int32Array, o: Operation): number | undefined {
  const old = model[o.i]!;
  if (o.op === 'load') return old;
  if (o.op === 'compareExchange') {
    if (old === o.expected) model[o.i] = o.value;
    return old;
  }
  const { value } = o;
  model[o.i] = { store: value, exchange: value, fetchAdd: old + value, fetchOr: old | value, fetchAnd: old & value }[
    o.op
  ];
  return o.op === 'store' ? undefined : old;
}

const MEMORIES = {
  'of WebAssembly': [createMemory(65536), 4096],
  'of WebAssembly, above 2 GiB': [createMemory(2 ** 31 + 65536), 2 ** 31 + 4096],
  'of JavaScript': [{ buffer: new SharedArrayBuffer(8192) }, 4096],
} as const;

test.each(Object.entries(MEMORIES))('Words do what plain arithmetic does, in a memory %s', (_name, [memory, at]) => {
  fc.assert(
    fc.property(fc.array(operation, { minLength: 1, maxLength: 50 }), (operations) => {
      const words = new Words(memory, at, NR_WORDS);
      const model = new Int32Array(NR_WORDS);
      for (let i = 0; i < NR_WORDS; i++) words.writeOnce(i, 0);
      for (const o of operations) expect(run(words, o)).toBe(expected(model, o));
      expect([...new Int32Array(memory.buffer, at, NR_WORDS)]).toEqual([...model]);
      expect([
        ...new Int32Array(memory.buffer, at - 4, 1),
        ...new Int32Array(memory.buffer, at + 4 * NR_WORDS, 1),
      ]).toEqual([0, 0]);
    }),
  );
});

test.each(Object.entries(MEMORIES))('a word that is not there is refused, in a memory %s', (_name, [memory, at]) => {
  const words = new Words(memory, at, NR_WORDS);
  for (const i of [-1, NR_WORDS, 2 ** 31]) {
    expect(() => words.load(i)).toThrow(RangeError);
    expect(() => words.compareExchange(i, 0, 1)).toThrow(RangeError);
  }
});

test.each(Object.entries(MEMORIES))('a lock of Words is held by one, in a memory %s', (_name, [memory, at]) => {
  const words = new Words(memory, at, NR_WORDS);
  words.writeOnce(0, 0);
  words.lock(0);
  expect(words.compareExchange(0, 0, 1)).toBe(1);
  words.unlock(0);
  expect(words.load(0)).toBe(0);
});
