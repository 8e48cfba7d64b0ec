import { beforeEach, expect, it } from 'vitest';
import { type GuestRun, RAM_BASE, VirtioBalloon } from '../../../src/machine/index.js';
import { type DriverQueue, TestBoard, TestDriver, until } from './driver.js';

/** virtio-balloon from the driver's side. */

const PAGE = 4096;
const BUFFER = RAM_BASE + 0x8000;
const [INFLATE, DEFLATE, STATS, REPORTING] = [0, 1, 2, 3];
const [STATS_VQ, DEFLATE_ON_OOM, PAGE_REPORTING] = [1n << 1n, 1n << 2n, 1n << 5n];

let board: TestBoard;
let device: VirtioBalloon;
let driver: TestDriver;
let queues: DriverQueue[];
let discarded: GuestRun[];
let hold: Promise<void> | undefined;

function start(features: bigint): void {
  driver.negotiate(features);
  const nr = features === device.features ? 4 : 3;
  queues = Array.from({ length: nr }, (_, i) => driver.queue(i, RAM_BASE + i * 0x1000, 8));
  driver.start();
}

beforeEach(() => {
  board = new TestBoard(4 << 20);
  discarded = [];
  hold = undefined;
  device = new VirtioBalloon({
    memory: {
      async discard(runs) {
        await hold;
        discarded.push(...runs.map(({ gpa, lenBytes }) => ({ gpa, lenBytes })));
      },
    },
  });
  driver = new TestDriver(board, board.plug(device).number);
  start(device.features);
});

async function send(index: number, buffers: Parameters<DriverQueue['chain']>[0]): Promise<number> {
  const queue = queues[index]!;
  const head = queue.chain(buffers);
  queue.offer(head);
  queue.notify();
  let used: { head: number; lenBytes: number }[] = [];
  await until(() => {
    used = queue.take();
    return used.length > 0;
  });
  expect(used.map((u) => u.head)).toEqual([head]);
  return used[0]!.lenBytes;
}

function putPfns(pfns: readonly number[], at = BUFFER): void {
  pfns.forEach((pfn, i) => {
    board.memory.view.setUint32(at - RAM_BASE + 4 * i, pfn, true);
  });
}

it('what is asked of it is in the configuration, with an interrupt, and what it has is what the driver writes', async () => {
  const config = (offset: number) => board.bus.read(driver.deviceConfig + offset, 4);
  expect(device.features).toBe(STATS_VQ | DEFLATE_ON_OOM | PAGE_REPORTING);
  driver.readIsr();
  device.targetPages = 1000;
  expect([config(0), driver.readIsr() & 2]).toEqual([1000, 2]);
  device.targetPages = 1000;
  expect(driver.readIsr()).toBe(0);
  board.bus.write(driver.deviceConfig + 4, 4, 700);
  expect([device.actualPages, config(4)]).toEqual([700, 700]);
  // What the device alone may change stays.
  board.bus.write(driver.deviceConfig, 4, 5);
  expect(device.targetPages).toBe(1000);
  driver.status = 0;
  expect([device.actualPages, device.targetPages]).toEqual([0, 1000]);
});

it('pages of the balloon are given back before the driver has its buffer, by runs', async () => {
  const first = RAM_BASE / PAGE + 100;
  putPfns([first + 2, first + 1, first, first + 9, first + 9, 0xffff_ffff]);
  let open = () => {};
  hold = new Promise((resolve) => {
    open = resolve;
  });
  const sent = send(INFLATE, [{ gpa: BUFFER, lenBytes: 24 }]);
  await new Promise((resolve) => setTimeout(resolve, 2));
  expect(queues[INFLATE]!.take()).toEqual([]);
  open();
  expect(await sent).toBe(0);
  expect(discarded).toEqual([
    { gpa: first * PAGE, lenBytes: 3 * PAGE },
    { gpa: (first + 9) * PAGE, lenBytes: PAGE },
    { gpa: 0xffff_ffff * PAGE, lenBytes: PAGE },
  ]);
  await send(DEFLATE, [{ gpa: BUFFER, lenBytes: 8 }]);
  expect(discarded).toHaveLength(3);
  expect(device.counts).toEqual({ inflatedBytes: 6 * PAGE, deflatedBytes: 2 * PAGE, reportedBytes: 0 });
});

it('more frame numbers than are read at once, and some odd bytes', async () => {
  const pfns = Array.from({ length: 3000 }, (_, i) => RAM_BASE / PAGE + 2 * i);
  putPfns(pfns);
  await send(INFLATE, [
    { gpa: BUFFER, lenBytes: 5000 },
    { gpa: BUFFER + 5000, lenBytes: 7003 },
  ]);
  expect(discarded.map(({ gpa }) => gpa / PAGE)).toEqual(pfns);
});

it('what is reported free is given back: the memory of the chain itself', async () => {
  const runs = [
    { gpa: RAM_BASE + 0x10000, lenBytes: 0x8000 },
    { gpa: RAM_BASE + 0x30000, lenBytes: 0x1000 },
  ];
  await send(
    REPORTING,
    runs.map((run) => ({ ...run, write: true })),
  );
  expect(discarded).toEqual(runs);
  expect(device.counts.reportedBytes).toBe(0x9000);
  expect(board.memory.writtenBytes).toBeLessThan(100);
});

it('without statistics the reporting queue is the one before, as Linux numbers them', async () => {
  start(PAGE_REPORTING);
  await send(2, [{ gpa: RAM_BASE + 0x10000, lenBytes: PAGE, write: true }]);
  expect(discarded).toHaveLength(1);
  expect(await device.stats()).toBeUndefined();
});

function putStats(stats: readonly (readonly [number, bigint])[]): { gpa: number; lenBytes: number } {
  stats.forEach(([tag, value], i) => {
    board.memory.view.setUint16(BUFFER - RAM_BASE + 10 * i, tag, true);
    board.memory.view.setBigUint64(BUFFER - RAM_BASE + 10 * i + 2, value, true);
  });
  return { gpa: BUFFER, lenBytes: 10 * stats.length };
}

it('statistics are asked for by giving the buffer back, and are those of the next one', async () => {
  const queue = queues[STATS]!;
  const offer = (stats: readonly (readonly [number, bigint])[]) => {
    queue.offer(queue.chain([putStats(stats)]));
    queue.notify();
  };
  const early = device.stats();
  offer([[4, 1000n]]);
  expect(await early).toEqual({ freeMemory: 1000 });
  expect(queue.take()).toEqual([]);
  const [one, two] = [device.stats(), device.stats()];
  await until(() => queue.take().length === 1);
  offer([
    [0, 7n],
    [5, 2n ** 35n],
    [6, 2n ** 64n - 1n],
    [999, 5n],
  ]);
  expect(await Promise.all([one, two])).toEqual([
    { swapIn: 7, totalMemory: 2 ** 35 },
    { swapIn: 7, totalMemory: 2 ** 35 },
  ]);
  const unanswered = device.stats();
  driver.status = 0;
  expect(await unanswered).toBeUndefined();
});

it('statistics that were offered before the driver is ready, as by Linux, are taken', async () => {
  driver.negotiate(device.features);
  queues = Array.from({ length: 4 }, (_, i) => driver.queue(i, RAM_BASE + i * 0x1000, 8));
  const queue = queues[STATS]!;
  queue.offer(queue.chain([putStats([[4, 1n]])]));
  queue.notify();
  driver.start();
  void device.stats();
  await until(() => queue.take().length === 1);
});

it('a buffer outside RAM breaks the queue, once, and nothing is given back', async () => {
  const queue = queues[INFLATE]!;
  queue.offer(queue.chain([{ gpa: RAM_BASE + (64 << 20), lenBytes: 64 }]));
  queue.notify();
  await until(() => board.reasons.length > 0);
  expect(board.reasons).toEqual([expect.stringMatching(/virtio-balloon: .*address 0x84000000 must be in RAM/)]);
  expect([driver.status & 0x40, discarded]).toEqual([0x40, []]);
});
