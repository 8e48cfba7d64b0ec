import fc from 'fast-check';
import { expect, it, vi } from 'vitest';
import { Pump, RAM_BASE } from '../../../src/machine/index.js';
import { type Buffer, type DriverQueue, TestBoard, TestDriver, until } from './driver.js';
import { EchoDevice } from './echo.js';

/** Split virtqueues, from the driver's side. The guest's RAM is a MiB: rings in the first page, tables in the second, data behind. */

const RINGS = RAM_BASE;
const TABLE = RAM_BASE + 0x1000;
const DATA = RAM_BASE + 0x2000;
const F_INDIRECT = 1n << 28n;
const F_EVENT_IDX = 1n << 29n;

function setUp(features = 0n, before: (driver: TestDriver) => void = () => {}) {
  const board = new TestBoard();
  const device = new EchoDevice();
  const driver = new TestDriver(board, board.plug(device).number);
  expect(driver.negotiate(features)).toBe(true);
  const queue = driver.queue(0, RINGS);
  before(driver);
  driver.start();
  return { board, device, driver, queue };
}

/** A readable and a writable buffer of `lenBytes`, the first filled from `seed`. */
function pair(board: TestBoard, at: number, lenBytes: number, seed: number): [Buffer, Buffer] {
  for (let i = 0; i < lenBytes; i++) board.memory.bytes[at - RAM_BASE + i] = (seed + i) & 0xff;
  return [
    { gpa: at, lenBytes },
    { gpa: at + lenBytes, lenBytes, write: true },
  ];
}

async function used(queue: DriverQueue, nr: number) {
  const all: { head: number; lenBytes: number }[] = [];
  await until(() => all.push(...queue.take()) >= 0 && all.length >= nr);
  return all;
}

it('echoes by direct and indirect chains, and interrupts until ISR is read', async () => {
  const { board, driver, queue } = setUp(F_INDIRECT);
  const direct = queue.chain(pair(board, DATA, 100, 1));
  const indirect = queue.indirect(pair(board, DATA + 0x1000, 3000, 2), TABLE);
  queue.offer(direct);
  queue.offer(indirect);
  queue.notify();
  expect(await used(queue, 2)).toEqual([
    { head: direct, lenBytes: 100 },
    { head: indirect, lenBytes: 3000 },
  ]);
  const { bytes } = board.memory;
  expect(bytes.slice(0x2000 + 100, 0x2000 + 200)).toEqual(bytes.slice(0x2000, 0x2000 + 100));
  expect(bytes.slice(0x3000 + 3000, 0x3000 + 6000)).toEqual(bytes.slice(0x3000, 0x3000 + 3000));
  expect([driver.line, driver.readIsr(), driver.line, driver.readIsr()]).toEqual([true, 1, false, 0]);
  expect(board.reasons).toEqual([]);
});

it('is done when the notification returns, where all memory is present', () => {
  const { board, device, queue } = setUp();
  device.hold = true;
  queue.offer(queue.chain(pair(board, DATA, 8, 1)));
  const chain = device.queues[0]!.pop();
  expect(chain).not.toBeInstanceOf(Promise);
});

it('gives chains back in whatever order the device likes', async () => {
  const { board, device, queue } = setUp();
  device.hold = true;
  const heads = [0, 1, 2].map((i) => queue.chain(pair(board, DATA + 0x1000 * i, 16, i)));
  for (const head of heads) queue.offer(head);
  queue.notify();
  await until(() => device.held.length === 3);
  for (const i of [1, 2, 0]) await device.queues[0]!.push(device.held[i]!, 0);
  expect((await used(queue, 3)).map(({ head }) => head)).toEqual([heads[1], heads[2], heads[0]]);
  await device.queues[0]!.push(device.held[0]!, 0);
  expect(queue.take()).toEqual([]);
});

it('takes and gives back in the order of the calls, also while each waits for a page', async () => {
  const { board, device, queue } = setUp();
  board.memory.absent = () => true;
  const heads = [0, 1, 2].map((i) => queue.chain(pair(board, DATA + 0x1000 * i, 16, i)));
  for (const head of heads) queue.offer(head);
  const { 0: q } = device.queues;
  const chains = await Promise.all([q!.pop(), q!.pop(), q!.pop(), q!.pop()]);
  expect(chains.map((chain) => chain?.head)).toEqual([...heads, undefined]);
  await Promise.all([2, 0, 1].map((i) => q!.push(chains[i]!, i)));
  expect(queue.take().map(({ head }) => head)).toEqual([heads[2], heads[0], heads[1]]);
});

it('a pump that is kicked while its job waits runs it once more, and one at a time', async () => {
  let [runs, running, most] = [0, 0, 0];
  const pump = new Pump(async () => {
    runs++;
    most = Math.max(most, ++running);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
  });
  pump.kick();
  pump.kick();
  pump.kick();
  await until(() => runs === 2 && running === 0);
  await new Promise((resolve) => setImmediate(resolve));
  expect([runs, most]).toEqual([2, 1]);
});

it('interrupts no driver that does not want it', async () => {
  const { board, driver, queue } = setUp();
  queue.setAvailFlags(1);
  queue.offer(queue.chain(pair(board, DATA, 16, 1)));
  queue.notify();
  await used(queue, 1);
  expect(driver.line).toBe(false);
});

it('interrupts where the used index passes the event index, and says where it wants a notification', async () => {
  const { board, driver, queue } = setUp(F_EVENT_IDX);
  queue.setUsedEvent(1);
  queue.offer(queue.chain(pair(board, DATA, 16, 1)));
  queue.notify();
  await used(queue, 1);
  expect([driver.line, queue.availEvent]).toEqual([false, 1]);
  queue.offer(queue.chain(pair(board, DATA, 16, 1)));
  queue.notify();
  await used(queue, 1);
  expect([driver.line, queue.availEvent]).toEqual([true, 2]);
});

it('serves 70 000 chains, past the wrap of the indices', async () => {
  const { board, queue } = setUp(F_EVENT_IDX);
  let served = 0;
  for (let i = 0; i < 70_000; i++) {
    queue.offer(queue.chain(pair(board, DATA, 4, i)));
    queue.notify();
    if (i % 4 === 3) served += (await used(queue, 4)).length;
  }
  expect([served, board.reasons]).toEqual([70_000, []]);
});

it('moves what the driver says, whatever the runs, with pages absent at random', async () => {
  const runs = fc.array(fc.integer({ min: 0, max: 700 }), { minLength: 1, maxLength: 3 });
  const requests = fc.array(fc.record({ out: runs, in: runs, indirect: fc.boolean() }), {
    minLength: 1,
    maxLength: 12,
  });
  await fc.assert(
    fc.asyncProperty(requests, fc.integer(), fc.boolean(), async (list, seed, eventIdx) => {
      const { board, queue } = setUp(F_INDIRECT | (eventIdx ? F_EVENT_IDX : 0n));
      let state = seed | 1;
      board.memory.absent = () => ((state = (Math.imul(state, 1103515245) + 12345) | 0) >>> 16) % 3 === 0;
      for (const request of list) await roundTrip(board, queue, request);
      expect(board.reasons).toEqual([]);
    }),
    { numRuns: 60 },
  );
});

async function roundTrip(
  board: TestBoard,
  queue: DriverQueue,
  request: { out: number[]; in: number[]; indirect: boolean },
) {
  const { bytes } = board.memory;
  let at = DATA;
  const place = (lenBytes: number, write: boolean) => {
    const buffer = { gpa: at, lenBytes, write };
    at += lenBytes + 8;
    return buffer;
  };
  const out = request.out.map((lenBytes) => place(lenBytes, false));
  const into = request.in.map((lenBytes) => place(lenBytes, true));
  const gather = (buffers: readonly Buffer[]) =>
    buffers.flatMap(({ gpa, lenBytes }) => [...bytes.subarray(gpa - RAM_BASE, gpa - RAM_BASE + lenBytes)]);
  for (const { gpa, lenBytes } of out) for (let i = 0; i < lenBytes; i++) bytes[gpa - RAM_BASE + i] = i * 7 + lenBytes;
  bytes.fill(0xee, into[0]!.gpa - RAM_BASE - 8, at - RAM_BASE);
  const sent = gather(out);
  const head = request.indirect ? queue.indirect([...out, ...into], TABLE) : queue.chain([...out, ...into]);
  queue.offer(head);
  queue.notify();
  const lenBytes = Math.min(sent.length, gather(into).length);
  expect(await used(queue, 1)).toEqual([{ head, lenBytes }]);
  expect(gather(into).slice(0, lenBytes)).toEqual(sent.slice(0, lenBytes));
  for (const { gpa, lenBytes } of into)
    expect([...bytes.subarray(gpa - RAM_BASE + lenBytes, gpa - RAM_BASE + lenBytes + 8)]).toEqual(Array(8).fill(0xee));
}

/** What a hostile driver does, and the reason that is told for it. */
const HOSTILE: [what: string, reason: RegExp, act: (queue: DriverQueue, driver: TestDriver) => void][] = [
  ['a head that does not exist', /entry 8 must be below/, (queue) => queue.offer(8)],
  ['an index that runs ahead', /9 ahead, more than/, (queue) => queue.setAvailIdx(9)],
  [
    'a chain into nowhere',
    /next descriptor 99 must/,
    (queue) => {
      queue.setDescriptor(queue.desc, DATA, 4, 1, 99);
      queue.offer(0);
    },
  ],
  [
    'a cyclic chain',
    /cyclic or longer/,
    (queue) => {
      queue.setDescriptor(queue.desc, DATA, 4, 1, 1);
      queue.setDescriptor(queue.desc + 16, DATA, 4, 1, 0);
      queue.offer(0);
    },
  ],
  [
    'a cyclic indirect table',
    /is cyclic/,
    (queue) => {
      queue.indirect([{ gpa: DATA, lenBytes: 4 }], TABLE);
      queue.setDescriptor(TABLE, DATA, 4, 1, 0);
      queue.offer(0);
    },
  ],
  [
    'an indirect table that leads out of itself',
    /next entry 7 must be below the indirect table's 1/,
    (queue) => {
      queue.indirect([{ gpa: DATA, lenBytes: 4 }], TABLE);
      queue.setDescriptor(TABLE, DATA, 4, 1, 7);
      queue.offer(0);
    },
  ],
  [
    'an indirect table in an indirect table',
    /has an indirect entry/,
    (queue) => {
      queue.indirect([{ gpa: DATA, lenBytes: 4 }], TABLE);
      queue.setDescriptor(TABLE, TABLE, 16, 4, 0);
      queue.offer(0);
    },
  ],
  [
    'an indirect table of 4 GiB',
    /table of 4294967280 bytes must/,
    (queue) => {
      queue.setDescriptor(queue.desc, TABLE, 0xffff_fff0, 4, 0);
      queue.offer(0);
    },
  ],
  [
    'an indirect table of no entries',
    /table of 0 bytes must/,
    (queue) => {
      queue.setDescriptor(queue.desc, TABLE, 0, 4, 0);
      queue.offer(0);
    },
  ],
  [
    'an indirect descriptor with a next one',
    /indirect descriptor has a next/,
    (queue) => {
      queue.setDescriptor(queue.desc, TABLE, 16, 5, 1);
      queue.offer(0);
    },
  ],
  [
    'a readable descriptor after a writable one',
    /readable descriptor comes after/,
    (queue) =>
      queue.offer(
        queue.chain([
          { gpa: DATA, lenBytes: 4, write: true },
          { gpa: DATA, lenBytes: 4 },
        ]),
      ),
  ],
  [
    'data outside RAM',
    /0x7ffffffc must be in RAM/,
    (queue) =>
      queue.offer(
        queue.chain([
          { gpa: RAM_BASE - 4, lenBytes: 8 },
          { gpa: DATA, lenBytes: 8, write: true },
        ]),
      ),
  ],
  [
    'data beyond all addresses',
    /must be in RAM|is not in RAM/,
    (queue) => {
      queue.setDescriptor(queue.desc, 2 ** 63, 4, 0, 0);
      queue.offer(0);
    },
  ],
];

it.each(HOSTILE)('needs a reset for %s, says why once, and works after the reset', async (_what, reason, act) => {
  const { board, driver, queue } = setUp(F_INDIRECT);
  act(queue, driver);
  queue.notify();
  await until(() => (driver.status & 0x40) !== 0);
  expect(board.reasons).toEqual([expect.stringMatching(reason)]);
  expect([driver.readIsr() & 2, queue.take()]).toEqual([2, []]);
  // No notification does anything any more.
  queue.notify();
  await new Promise((resolve) => setImmediate(resolve));
  expect(queue.take()).toEqual([]);

  expect(driver.negotiate(F_INDIRECT)).toBe(true);
  const again = driver.queue(0, RINGS);
  driver.start();
  again.offer(again.chain(pair(board, DATA, 64, 9)));
  again.notify();
  expect(await used(again, 1)).toEqual([{ head: 0, lenBytes: 64 }]);

  driver.negotiate(0n);
  const third = driver.queue(0, RINGS);
  driver.start();
  third.offer(8);
  third.notify();
  await until(() => (driver.status & 0x40) !== 0);
  expect(board.reasons.length).toBe(1);
});

it('a device that needs a reset writes nothing to guest memory any more, and is not notified', async () => {
  const { board, device, driver, queue } = setUp();
  device.hold = true;
  queue.offer(queue.chain(pair(board, DATA, 8, 1)));
  queue.notify();
  await until(() => device.held.length === 1);
  const [first] = device.queues;
  device.transport.needsReset('for a test');
  expect(driver.status & 0x40).toBe(0x40);
  const { writtenBytes } = board.memory;
  const [chain] = device.held;
  await expect(async () => chain!.write(0, new Uint8Array(8))).rejects.toThrow(/ENODEV/);
  await first!.push(chain!, 8);
  expect([queue.take(), board.memory.writtenBytes]).toEqual([[], writtenBytes]);
  const notify = vi.spyOn(device, 'notify');
  queue.notify();
  expect(notify).not.toHaveBeenCalled();
});

it('takes no indirect descriptor that was not negotiated', async () => {
  const { board, driver, queue } = setUp();
  queue.offer(queue.indirect([{ gpa: DATA, lenBytes: 4 }], TABLE));
  queue.notify();
  await until(() => (driver.status & 0x40) !== 0);
  expect(board.reasons).toEqual([expect.stringMatching(/not negotiated/)]);
});

it('has no more chains out than the queue has descriptors', async () => {
  const { board, device, driver, queue } = setUp();
  device.hold = true;
  const head = queue.chain([{ gpa: DATA, lenBytes: 4 }]);
  for (let i = 0; i < 8; i++) queue.offer(head);
  queue.notify();
  await until(() => device.held.length === 8);
  queue.offer(head);
  queue.notify();
  await until(() => (driver.status & 0x40) !== 0);
  expect(board.reasons).toEqual([expect.stringMatching(/more than the queue's 8 chains/)]);
});

it.each([
  ['a size that is no power of two', /size 3 must/, (driver: TestDriver) => void driver.queue(1, RINGS + 0x800, 3)],
  ['a size that is too large', /size 16 must/, (driver: TestDriver) => void driver.queue(1, RINGS + 0x800, 16)],
  ['a size of nothing', /size 0 must/, (driver: TestDriver) => void driver.queue(1, RINGS + 0x800, 0)],
  ['rings that are not aligned', /must be aligned/, (driver: TestDriver) => void driver.queue(1, RINGS + 0x801)],
])('needs a reset at once for %s', (_what, reason, act) => {
  const { board, driver } = setUp(0n, act);
  expect(driver.status & 0x40).toBe(0x40);
  expect(board.reasons).toEqual([expect.stringMatching(reason)]);
});

it('needs a reset for rings outside RAM, when they are used', async () => {
  const { board, driver } = setUp(0n, (d) => {
    d.write(0x16, 2, 1);
    d.write(0x18, 2, 8);
    d.write(0x24, 4, 0x1234);
    d.write(0x1c, 2, 1);
  });
  expect(driver.status & 0x40).toBe(0);
  driver.notify(1);
  await until(() => (driver.status & 0x40) !== 0);
  expect(board.reasons).toEqual([expect.stringMatching(/queue 1: EFAULT.*must be in RAM/)]);
});

/** Calls `act` before each 16-bit word that the device stores. */
function beforeStores(board: TestBoard, act: (gpa: number) => void): void {
  const { memory } = board;
  const { store16 } = memory;
  memory.store16 = (gpa, value) => {
    act(gpa);
    return store16.call(memory, gpa, value);
  };
}

it('sees a chain that comes between its last look and the event index, for which no notification comes', async () => {
  const { board, queue } = setUp(F_EVENT_IDX);
  const eventIndex = queue.used + 4 + 8 * queue.size;
  let nrOffered = 0;
  beforeStores(board, (gpa) => {
    if (gpa === eventIndex && nrOffered++ < 3) queue.offer(queue.chain(pair(board, DATA, 8, 1)));
  });
  queue.notify();
  expect((await used(queue, 3)).length).toBe(3);
});

it('gives others their turn however fast its ring is filled', async () => {
  const { board, queue } = setUp();
  const usedIdx = queue.used + 2;
  let [served, servedBefore] = [0, -1];
  beforeStores(board, (gpa) => {
    if (gpa !== usedIdx || ++served === 20_000) return;
    queue.offer(queue.chain(pair(board, DATA, 8, 1)));
    queue.notify();
  });
  queue.offer(queue.chain(pair(board, DATA, 8, 1)));
  queue.notify();
  setImmediate(() => {
    servedBefore = served;
  });
  await until(() => served === 20_000);
  expect(servedBefore).toBeGreaterThan(0);
  expect(servedBefore).toBeLessThan(2000);
});

it.each([...Array(14).keys()])('after a reset at its access %i to memory, no interrupt is left over', async (k) => {
  const { board, driver, queue } = setUp(k % 2 === 0 ? F_EVENT_IDX : 0n);
  queue.offer(queue.chain(pair(board, DATA, 8, 1)));
  let left = k;
  board.memory.absent = () => --left < 0;
  queue.notify();
  for (let turn = 0; turn <= k && board.memory.waiting === 0; turn++)
    await new Promise((resolve) => setImmediate(resolve));
  driver.readIsr();
  driver.status = 0;
  await until(() => driver.status === 0);
  await new Promise((resolve) => setImmediate(resolve));
  expect([driver.line, driver.readIsr(), board.reasons]).toEqual([false, 0, []]);
});
