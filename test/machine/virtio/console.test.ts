import { expect, it } from 'vitest';
import { RAM_BASE, VirtioConsole, VirtioRng } from '../../../src/machine/index.js';
import { TestBoard, TestDriver, until } from './driver.js';

/** virtio-console and virtio-rng from the driver's side. */

const DATA = RAM_BASE + 0x4000;

function plugConsole() {
  const board = new TestBoard();
  let text = '';
  const device = new VirtioConsole({
    sink: (bytes) => (text += Buffer.from(bytes).toString()),
    columns: 100,
    rows: 30,
  });
  const driver = new TestDriver(board, board.plug(device).number);
  driver.negotiate(device.features);
  const [receive, transmit] = [driver.queue(0, RAM_BASE), driver.queue(1, RAM_BASE + 0x1000)];
  driver.start();
  return { board, device, driver, receive, transmit, text: () => text };
}

it('brings out what the guest writes before the notification returns, in order', () => {
  const { board, transmit, text } = plugConsole();
  board.memory.bytes.set(Buffer.from('hello, world\n'), DATA - RAM_BASE);
  transmit.offer(transmit.chain([{ gpa: DATA, lenBytes: 7 }]));
  transmit.offer(
    transmit.chain([
      { gpa: DATA + 7, lenBytes: 2 },
      { gpa: DATA + 9, lenBytes: 4 },
    ]),
  );
  transmit.notify();
  expect([text(), transmit.take().length]).toEqual(['hello, world\n', 2]);
});

it('keeps what is typed until there is room for it, and splits it over buffers', async () => {
  const { board, device, driver, receive } = plugConsole();
  device.receive(Buffer.from('abcde'));
  expect(receive.take()).toEqual([]);
  for (let i = 0; i < 2; i++) receive.offer(receive.chain([{ gpa: DATA + 16 * i, lenBytes: 3, write: true }]));
  receive.notify();
  await until(() => driver.line);
  expect(receive.take().map(({ lenBytes }) => lenBytes)).toEqual([3, 2]);
  expect(Buffer.from(board.memory.bytes.subarray(DATA - RAM_BASE, DATA - RAM_BASE + 18)).toString()).toBe(
    `abc${'\0'.repeat(13)}de`,
  );
  receive.offer(receive.chain([{ gpa: DATA, lenBytes: 3, write: true }]));
  device.receive(Buffer.from('x'));
  expect(receive.take().map(({ lenBytes }) => lenBytes)).toEqual([1]);
});

it('loses nothing that is typed while a page is waited for', async () => {
  const { board, device, receive } = plugConsole();
  board.memory.absent = () => true;
  for (let i = 0; i < 8; i++) receive.offer(receive.chain([{ gpa: DATA + 64 * i, lenBytes: 64, write: true }]));
  for (const byte of Buffer.from('several')) {
    device.receive(Uint8Array.of(byte));
    receive.notify();
    await new Promise((resolve) => setImmediate(resolve));
  }
  let got = '';
  let nr = 0;
  await until(() => {
    for (const { lenBytes } of receive.take())
      got += Buffer.from(
        board.memory.bytes.subarray(DATA - RAM_BASE + 64 * nr, DATA - RAM_BASE + 64 * nr++ + lenBytes),
      ).toString();
    return got.length >= 7;
  });
  expect(got).toBe('several');
});

it('tells its size, and each new one by an interrupt; an emergency write comes out', () => {
  const { board, device, driver, text } = plugConsole();
  const size = () => board.bus.read(driver.deviceConfig, 4);
  expect(size()).toBe(100 + (30 << 16));
  device.resize(132, 50);
  expect([size(), driver.readIsr()]).toEqual([132 + (50 << 16), 2]);
  board.bus.write(driver.deviceConfig + 8, 4, 0x41);
  expect(text()).toBe('A');
});

it('fills what the driver hands out with random bytes, a page at most', async () => {
  const board = new TestBoard();
  const device = new VirtioRng((bytes) => bytes.fill(0x5a));
  const driver = new TestDriver(board, board.plug(device).number);
  driver.negotiate(0n);
  const queue = driver.queue(0, RAM_BASE);
  driver.start();
  queue.offer(queue.chain([{ gpa: DATA, lenBytes: 5, write: true }]));
  queue.offer(queue.chain([{ gpa: DATA + 16, lenBytes: 8192, write: true }]));
  queue.offer(queue.chain([{ gpa: DATA, lenBytes: 5 }]));
  queue.notify();
  expect(queue.take().map(({ lenBytes }) => lenBytes)).toEqual([5, 4096, 0]);
  expect([...board.memory.bytes.subarray(DATA - RAM_BASE, DATA - RAM_BASE + 6)]).toEqual([
    0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0,
  ]);
});
