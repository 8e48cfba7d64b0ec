import { expect, it, vi } from 'vitest';
import { PCI_NR_DEVICES, PCI_WINDOW_BASE, RAM_BASE } from '../../../src/machine/index.js';
import { TestBoard, TestDriver, until } from './driver.js';
import { EchoDevice } from './echo.js';

/** PCI and virtio's registers on it, through the bus alone. */

function plug() {
  const board = new TestBoard();
  const device = new EchoDevice();
  const { pci, number } = board.plug(device);
  return { board, device, pci, number };
}

it('shows a virtio function at device 1, and ones where there is nothing', () => {
  const { board, number } = plug();
  expect(number).toBe(1);
  expect([board.config(1, 0, 2), board.config(1, 2, 2), board.config(1, 8, 1)]).toEqual([0x1af4, 0x1040 + 42, 1]);
  expect(board.config(1, 0x2c, 4)).toBe(0x1100_1af4);
  expect([board.config(0, 0, 4), board.config(2, 0, 4), board.config(31, 0, 2)]).toEqual([
    0xffffffff, 0xffffffff, 0xffffffff,
  ]);
  // Function 1 of device 1; and beyond the 256 bytes of function 0.
  expect([board.config(1, 0x1000, 4), board.config(1, 0x100, 4)]).toEqual([0xffffffff, 0]);
  board.setConfig(5, 0x10, 4, 0xffffffff);
});

it('lets the guest write what it may, and nothing else', () => {
  const { board } = plug();
  const before = Array.from({ length: 16 }, (_, i) => board.config(1, 4 * i, 4));
  for (let i = 0; i < 16; i++) board.setConfig(1, 4 * i, 4, 0xffffffff);
  const changed = before.flatMap((value, i) => (board.config(1, 4 * i, 4) === value ? [] : [4 * i]));
  expect(changed).toEqual([0x04, 0x10, 0x3c]);
  expect([board.config(1, 0x04, 2), board.config(1, 0x10, 4), board.config(1, 0x3c, 4)]).toEqual([
    0x0406, 0xffff_c000, 0x0000_01ff,
  ]);
});

it('answers where its BAR is, while memory space is enabled', () => {
  const { board } = plug();
  const queues = (at: number) => board.bus.read(at + 0x12, 2);
  const [first, second] = [PCI_WINDOW_BASE, PCI_WINDOW_BASE + 0x7_0000];
  board.setConfig(1, 0x10, 4, first);
  expect(queues(first)).toBe(0xffffffff);
  board.setConfig(1, 0x04, 2, 2);
  expect([queues(first), queues(second)]).toEqual([2, 0xffffffff]);
  board.setConfig(1, 0x10, 4, second);
  expect([queues(first), queues(second)]).toEqual([0xffffffff, 2]);
  // Outside the window it is nowhere.
  board.setConfig(1, 0x10, 4, 0x1000_0000);
  expect([queues(second), queues(0x1000_0000)]).toEqual([0xffffffff, 0xffffffff]);
});

it('keeps its pin’s level in the status register, and off the line while INTx is disabled', () => {
  const { board, pci } = plug();
  pci.fn.setIrq(true);
  expect([board.lines.get(1), board.config(1, 0x06, 2) & 8]).toEqual([true, 8]);
  board.setConfig(1, 0x04, 2, 0x0400);
  expect([board.lines.get(1), board.config(1, 0x06, 2) & 8]).toEqual([false, 8]);
  board.setConfig(1, 0x04, 2, 0);
  expect(board.lines.get(1)).toBe(true);
  pci.fn.setIrq(false);
  expect([board.lines.get(1), board.config(1, 0x06, 2) & 8]).toEqual([false, 0]);
});

it('has room for 31 devices, each with a line of its own', () => {
  const board = new TestBoard();
  for (let n = 1; n < PCI_NR_DEVICES; n++) expect(board.plug(new EchoDevice()).number).toBe(n);
  expect(() => board.plug(new EchoDevice())).toThrow(/ENOSPC.*echo: the bus has 31 devices/);
});

it('reaches the BAR through VIRTIO_PCI_CAP_PCI_CFG too, and refuses what is out of it', () => {
  const { board, pci } = plug();
  let cap = board.config(1, 0x34, 1);
  while (board.config(1, cap + 3, 1) !== 5) cap = board.config(1, cap + 1, 1);
  const access = (bar: number, offset: number, lenBytes: number) => {
    board.setConfig(1, cap + 4, 1, bar);
    board.setConfig(1, cap + 8, 4, offset);
    board.setConfig(1, cap + 12, 4, lenBytes);
    return board.config(1, cap + 16, 4);
  };
  expect(access(0, 0x12, 2)).toBe(2);
  expect(access(0, 0x2000, 4)).toBe(0x04030201);
  board.setConfig(1, cap + 16, 4, 0x11223344);
  expect(access(0, 0x2000, 4)).toBe(0x11223344);
  // Out of it, or nothing that a bus can access: another BAR, beyond the end, and lengths that the offsets would be aligned to.
  const device = pci.fn.bars[0]!.device;
  const [reads, writes] = [vi.spyOn(device, 'read'), vi.spyOn(device, 'write')];
  for (const [bar, offset, lenBytes] of [
    [1, 0x12, 2],
    [0, 0x4000, 4],
    [0, 0xffff_fffc, 4],
    [0, 0x2000, 0],
    [0, 0x2001, 3],
    [0, 0x2000, 8],
    [0, 0x2001, 2],
    [0, 0x2002, 4],
  ] as const) {
    expect(access(bar, offset, lenBytes)).toBe(0);
    board.setConfig(1, cap + 16, 4, 0xffff_ffff);
  }
  expect([reads.mock.calls, writes.mock.calls]).toEqual([[], []]);
});

it('agrees to features that it offers, with VERSION_1 and no others', () => {
  const { board, device } = plug();
  const driver = new TestDriver(board, 1);
  expect(driver.features).toBe((1n << 32n) | (3n << 28n) | (1n << 5n));
  expect(driver.negotiate(1n << 5n)).toBe(true);
  expect(driver.negotiate(1n << 6n)).toBe(false);
  expect(driver.negotiate(1n << 40n)).toBe(false);
  driver.negotiate(1n << 6n);
  driver.start();
  expect([driver.status, device.agreed]).toEqual([3, -1n]);
  // Without VERSION_1.
  driver.status = 0;
  driver.write(0x08, 4, 1);
  driver.write(0x0c, 4, 0);
  driver.status = 0x0b;
  expect(driver.status).toBe(3);
  driver.negotiate(1n << 5n);
  driver.start();
  expect(device.agreed).toBe((1n << 32n) | (1n << 5n));
  // Too late: the queue registers and the features are the device's.
  driver.write(0x0c, 4, 0);
  driver.queue(0, RAM_BASE);
  driver.write(0x16, 2, 0);
  expect([driver.read(0x0c, 4), driver.read(0x1c, 2)]).toEqual([1, 0]);
});

it('shows queues that are there, and size 0 for others', () => {
  const { board } = plug();
  const driver = new TestDriver(board, 1);
  const sizes = [0, 1, 2, 0xffff].map((index) => {
    driver.write(0x16, 2, index);
    return [driver.read(0x18, 2), driver.read(0x1e, 2), driver.read(0x20, 4)];
  });
  expect(sizes).toEqual([
    [8, 0, 0],
    [8, 1, 0],
    [0, 0, 0],
    [0, 0, 0],
  ]);
});

it('keeps a queue as it was when it was enabled', () => {
  const { board } = plug();
  const driver = new TestDriver(board, 1);
  driver.negotiate(0n);
  const { desc } = driver.queue(1, RAM_BASE, 4);
  driver.write(0x18, 2, 8);
  driver.write(0x20, 4, 0);
  driver.write(0x1c, 2, 0);
  expect([driver.read(0x18, 2), driver.read(0x20, 4), driver.read(0x1c, 2)]).toEqual([4, desc, 1]);
});

it('does nothing for a notification before DRIVER_OK, or of a queue that is not enabled', async () => {
  const { board, device } = plug();
  const driver = new TestDriver(board, 1);
  for (const index of [0, 1, 2, 1000]) driver.notify(index);
  driver.negotiate(0n);
  const queue = driver.queue(0, RAM_BASE);
  queue.offer(queue.chain([{ gpa: RAM_BASE + 0x2000, lenBytes: 4 }]));
  queue.notify();
  expect(queue.take()).toEqual([]);
  driver.start();
  expect(device.queues.map((q) => q !== undefined)).toEqual([true, false]);
  driver.notify(1);
  driver.notify(7);
  queue.notify();
  await until(() => queue.take().length === 1);
});

it('counts changes of the device’s configuration, and interrupts for them', () => {
  const { board, device } = plug();
  const driver = new TestDriver(board, 1);
  const generation = driver.read(0x15, 1);
  device.transport.configChanged();
  expect([driver.read(0x15, 1), driver.line]).toEqual([(generation + 1) & 0xff, false]);
  driver.negotiate(0n);
  driver.start();
  device.transport.configChanged();
  expect([driver.read(0x15, 1), driver.line, driver.readIsr(), driver.line]).toEqual([generation + 2, true, 2, false]);
  board.bus.write(driver.deviceConfig + 7, 4, 0xffffffff);
  expect(board.bus.read(driver.deviceConfig + 4, 4)).toBe(0x08070605);
});

it('takes its interrupt back with a reset', () => {
  const { board, device } = plug();
  const driver = new TestDriver(board, 1);
  driver.negotiate(0n);
  driver.start();
  device.transport.configChanged();
  expect(driver.line).toBe(true);
  driver.status = 0;
  expect([driver.status, driver.line, driver.readIsr()]).toEqual([0, false, 0]);
});

it('tells that a reset is complete only when no byte can be written any more', async () => {
  const { board, device } = plug();
  const driver = new TestDriver(board, 1);
  driver.negotiate(0n);
  const queue = driver.queue(0, RAM_BASE);
  driver.start();
  const data = RAM_BASE + 0x2000;
  queue.offer(
    queue.chain([
      { gpa: data, lenBytes: 64 },
      { gpa: data + 64, lenBytes: 64, write: true },
    ]),
  );
  board.memory.absent = () => true;
  queue.notify();
  await until(() => board.memory.waiting > 0);
  driver.status = 0;
  // Neither done, nor begun anew meanwhile.
  expect(driver.status).not.toBe(0);
  driver.status = 0x80;
  expect(driver.status & 0x80).toBe(0);
  expect(device.resets).toBeGreaterThan(0);
  await until(() => driver.status === 0);
  expect(board.memory.waiting).toBe(0);
  const { writtenBytes } = board.memory;
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect([board.memory.writtenBytes, driver.line, board.reasons]).toEqual([writtenBytes, false, []]);
});
