import { describe, expect, it } from 'vitest';
import { BACKLOG_FRAMES, type EthernetPort, EthernetSegment, RAM_BASE, VirtioNet } from '../../../src/machine/index.js';
import { TestBoard, TestDriver } from './driver.js';

const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const RX = RAM_BASE + 0x1000;
const TX = RAM_BASE + 0x2000;
const BUFFERS = RAM_BASE + 0x10000;

class Wire implements EthernetPort {
  readonly sent: number[][] = [];
  receive: (frame: Uint8Array) => void = () => {};
  closed = false;

  attach(receive: (frame: Uint8Array) => void): void {
    this.receive = receive;
  }

  transmit(frame: Uint8Array): void {
    this.sent.push([...frame]);
  }

  close(): void {
    this.closed = true;
  }
}

function card(port: EthernetPort = new Wire()) {
  const board = new TestBoard();
  const device = new VirtioNet({ mac: MAC, port });
  const { number } = board.plug(device);
  const driver = new TestDriver(board, number);
  expect(driver.negotiate((1n << 5n) | (1n << 16n))).toBe(true);
  const rx = driver.queue(0, RX, 32);
  const tx = driver.queue(1, TX, 32);
  driver.start();
  return { board, device, driver, rx, tx, wire: port as Wire };
}

function frame(lenBytes: number, first: number): Uint8Array {
  return Uint8Array.from({ length: lenBytes }, (_, i) => (first + i) & 255);
}

const settle = () => new Promise((resolve) => setTimeout(resolve, 5));

describe('virtio-net', () => {
  it('tells its address and that the link is up', () => {
    const { driver, board } = card();
    const bytes = Array.from({ length: 8 }, (_, i) => board.bus.read(driver.deviceConfig + i, 1));
    expect(bytes).toEqual([...MAC, 1, 0]);
  });

  it('sends what stands behind the header, in order, however it is cut', async () => {
    const { board, driver, tx, wire } = card();
    const bytes = board.memory.bytes;
    bytes.set(frame(100, 7), BUFFERS - RAM_BASE + 12);
    bytes.set(frame(60, 9), BUFFERS - RAM_BASE + 0x1000);
    tx.offer(tx.chain([{ gpa: BUFFERS, lenBytes: 112 }]));
    tx.offer(
      tx.chain([
        { gpa: BUFFERS, lenBytes: 10 },
        { gpa: BUFFERS, lenBytes: 2 },
        { gpa: BUFFERS + 0x1000, lenBytes: 20 },
        { gpa: BUFFERS + 0x1000 + 20, lenBytes: 40 },
      ]),
    );
    driver.notify(1);
    await settle();
    expect(wire.sent).toEqual([[...frame(100, 7)], [...frame(60, 9)]]);
    expect(tx.take().map(({ lenBytes }) => lenBytes)).toEqual([0, 0]);
  });

  it('drops frames that no Ethernet carries, and goes on', async () => {
    const { driver, tx, wire, device } = card();
    for (const lenBytes of [5, 12, 20, 2000]) tx.offer(tx.chain([{ gpa: BUFFERS, lenBytes }]));
    tx.offer(tx.chain([{ gpa: BUFFERS, lenBytes: 12 + 60 }]));
    driver.notify(1);
    await settle();
    expect(wire.sent.map(({ length }) => length)).toEqual([60]);
    expect(device.txDropped).toBe(4);
    expect(tx.take().length).toBe(5);
  });

  it('puts a frame into a buffer behind a header that says one buffer', async () => {
    const { board, driver, rx, wire } = card();
    rx.offer(
      rx.chain([
        { gpa: BUFFERS, lenBytes: 12, write: true },
        { gpa: BUFFERS + 100, lenBytes: 1514, write: true },
      ]),
    );
    driver.notify(0);
    wire.receive(frame(64, 3));
    await settle();
    expect(rx.take().map(({ lenBytes }) => lenBytes)).toEqual([76]);
    const at = BUFFERS - RAM_BASE;
    expect([...board.memory.bytes.subarray(at, at + 12)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    expect([...board.memory.bytes.subarray(at + 100, at + 164)]).toEqual([...frame(64, 3)]);
  });

  it('keeps frames until there are buffers, in order, and loses them beyond its bound', async () => {
    const { board, driver, rx, wire, device } = card();
    for (let i = 0; i < BACKLOG_FRAMES + 10; i++) wire.receive(frame(60, i));
    expect(device.rxDropped).toBe(10);
    for (let round = 0; round < BACKLOG_FRAMES / 8; round++) {
      for (let i = 0; i < 8; i++) rx.offer(rx.chain([{ gpa: BUFFERS + i * 2048, lenBytes: 1600, write: true }]));
      driver.notify(0);
      await settle();
      expect(rx.take().length).toBe(8);
      const firsts = Array.from({ length: 8 }, (_, i) => board.memory.bytes[BUFFERS - RAM_BASE + i * 2048 + 12]);
      expect(firsts).toEqual(Array.from({ length: 8 }, (_, i) => (round * 8 + i) & 255));
    }
  });

  it('a reset forgets what waits; before the driver is there nothing is kept', async () => {
    const { driver, rx, wire, device } = card();
    wire.receive(frame(60, 1));
    driver.status = 0;
    await settle();
    wire.receive(frame(60, 2));
    expect(device.rxDropped).toBe(1);
    expect(driver.negotiate(0n)).toBe(true);
    const again = driver.queue(0, RX, 32);
    driver.start();
    again.offer(again.chain([{ gpa: BUFFERS, lenBytes: 1600, write: true }]));
    driver.notify(0);
    await settle();
    expect(again.take()).toEqual([]);
    expect(rx.size).toBe(again.size);
  });

  it('a buffer that is too small, or outside RAM, breaks the device with a reason, once', async () => {
    const small = card();
    small.rx.offer(small.rx.chain([{ gpa: BUFFERS, lenBytes: 40, write: true }]));
    small.wire.receive(frame(60, 1));
    await settle();
    expect(small.board.reasons.length).toBe(1);
    expect(small.board.reasons[0]).toContain('40 bytes must hold 72');
    const wild = card();
    wild.tx.offer(wild.tx.chain([{ gpa: 0x10, lenBytes: 100 }]));
    wild.driver.notify(1);
    await settle();
    expect(wild.board.reasons.length).toBe(1);
    expect(wild.wire.sent).toEqual([]);
  });

  it('two cards on one segment reach each other', async () => {
    const segment = new EthernetSegment();
    const a = card(segment.port());
    const b = card(segment.port());
    b.rx.offer(b.rx.chain([{ gpa: BUFFERS, lenBytes: 1600, write: true }]));
    b.driver.notify(0);
    a.board.memory.bytes.set(frame(80, 5), BUFFERS - RAM_BASE + 12);
    a.tx.offer(a.tx.chain([{ gpa: BUFFERS, lenBytes: 92 }]));
    a.driver.notify(1);
    await settle();
    expect(b.rx.take().length).toBe(1);
    const at = BUFFERS - RAM_BASE + 12;
    expect([...b.board.memory.bytes.subarray(at, at + 80)]).toEqual([...frame(80, 5)]);
  });
});
