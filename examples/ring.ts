import { label, model } from 'unpin/explore';

/**
 * A ring between two threads, on SharedArrayBuffer and Atomics alone, as workers use it: one writes messages, one reads them. Nothing of it
 * knows the explorer; the model below runs it under every schedule within the bound, and looks for data races on the slots.
 *
 *   npx unpin explore examples/ring.ts
 *   npx unpin explore examples/ring.ts --mutants
 */

const SLOTS = 2;

class Ring {
  private readonly head: Int32Array;
  private readonly tail: Int32Array;
  private readonly slots: Float64Array;

  constructor(memory: SharedArrayBuffer) {
    this.head = label(new Int32Array(memory, 0, 1), 'head');
    this.tail = label(new Int32Array(memory, 4, 1), 'tail');
    this.slots = new Float64Array(memory, 8, SLOTS);
  }

  /** Waits while the ring is full. */
  push(value: number): void {
    const tail = Atomics.load(this.tail, 0);
    for (let head = Atomics.load(this.head, 0); tail - head === SLOTS; head = Atomics.load(this.head, 0))
      Atomics.wait(this.head, 0, head);
    this.slots[tail % SLOTS] = value;
    Atomics.store(this.tail, 0, tail + 1);
    Atomics.notify(this.tail, 0);
  }

  /** Waits while it is empty. */
  take(): number {
    const head = Atomics.load(this.head, 0);
    while (Atomics.load(this.tail, 0) === head) Atomics.wait(this.tail, 0, head);
    const value = this.slots[head % SLOTS]!;
    Atomics.store(this.head, 0, head + 1);
    Atomics.notify(this.head, 0);
    return value;
  }
}

export default model({
  name: 'ring',
  setup: () => ({ ring: new Ring(new SharedArrayBuffer(64)), got: [] as number[] }),
  actors: {
    writer: ({ ring }) => {
      for (const value of [1.5, 2.5, 3.5]) ring.push(value);
    },
    reader: ({ ring, got }) => {
      for (let n = 0; n < 3; n++) got.push(ring.take());
    },
  },
  check: ({ got }) => (got.join() === '1.5,2.5,3.5' ? undefined : `read ${got.join()}`),
  mutants: [
    {
      name: 'the slot is written after the tail has moved',
      file: 'examples/ring.ts',
      find: 'this.slots[tail % SLOTS] = value; Atomics.store(this.tail, 0, tail + 1);',
      replace: 'Atomics.store(this.tail, 0, tail + 1); this.slots[tail % SLOTS] = value;',
      fails: /^data race/,
    },
    {
      name: 'the head moves before the slot is read',
      file: 'examples/ring.ts',
      find: 'const value = this.slots[head % SLOTS]!; Atomics.store(this.head, 0, head + 1);',
      replace: 'Atomics.store(this.head, 0, head + 1); const value = this.slots[head % SLOTS]!;',
      fails: /^data race/,
    },
    {
      name: 'the writer does not mind a full ring',
      file: 'examples/ring.ts',
      find: 'Atomics.wait(this.head, 0, head);',
      replace: 'break;',
      fails: /^data race|^check/,
    },
    {
      name: 'the reader does not tell that there is room',
      file: 'examples/ring.ts',
      find: 'Atomics.notify(this.head, 0);',
      replace: '',
      fails: /^lost wake-up/,
    },
  ],
});
