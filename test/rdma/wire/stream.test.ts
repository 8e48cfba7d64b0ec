import { expect, test } from 'vitest';
import {
  ATOMIC_CMP_SWAP,
  ATOMIC_FETCH_ADD,
  ATOMIC_SWAP,
  createCrc32c,
  RDMAP_SEND,
  RDMAP_SEND_INVALIDATE,
  RDMAP_SEND_SE,
} from '../../../src/rdma/wire/index.js';
import { pattern as bytes, expectSame } from './bytes.js';
import { atomic, immediate, read, write } from './flatnic.js';
import { Pair } from './pair.js';

test('a WRITE of several segments lands where it says, and completes when it is sent', () => {
  const pair = new Pair(createCrc32c());
  const memory = pair.b.region(7, 0x1000, new Uint8Array(200_000));
  pair.a.queue.push(write(7, 0x1000 + 100, bytes(150_000), 5));
  pair.run();
  expect(pair.a.log).toEqual(['sent 5']);
  expectSame(memory.subarray(100, 150_100), bytes(150_000));
  expect(memory[99]).toBe(0);
  expect(memory[150_100]).toBe(0);
});

test('SENDs of all kinds fill the posted receives in order', () => {
  const pair = new Pair(undefined);
  pair.b.region(9, 0, new Uint8Array(8));
  for (let i = 0; i < 4; i++) pair.b.receives.push(new Uint8Array(50_000));
  pair.a.queue.push({ opcode: RDMAP_SEND, payload: bytes(0) });
  pair.a.queue.push({ opcode: RDMAP_SEND_SE, payload: bytes(40_000, 2) });
  pair.a.queue.push({ opcode: RDMAP_SEND_INVALIDATE, payload: bytes(3, 3), invalidateStag: 9 });
  pair.a.queue.push(write(0, 0, bytes(0)), immediate(0xfeed));
  pair.run();
  expect(pair.b.end).toBeUndefined();
  const wanted = [bytes(0), bytes(40_000, 2), bytes(3, 3), bytes(0)];
  for (const [i, { bytes: got }] of pair.b.received.entries()) expectSame(got, wanted[i]);
  expect(pair.b.received.map((r) => r.message.solicited)).toEqual([false, true, false, false]);
  expect(pair.b.received[3].message.immediateLow).toBe(0xfeed);
  expect(pair.b.regions.has(9)).toBe(false);
});

test('immediate data tells the length of the WRITE directly before it', () => {
  const pair = new Pair(undefined);
  pair.b.region(7, 0, new Uint8Array(100_000));
  for (let i = 0; i < 3; i++) pair.b.receives.push(new Uint8Array(100_000));
  pair.a.queue.push(write(7, 0, bytes(90_000)), immediate(1), immediate(2));
  pair.run();
  expect(pair.b.received.map((r) => r.message.lenBytes)).toEqual([90_000, 0]);
});

test("READs bring the peer's memory, no more than ORD at once", () => {
  const pair = new Pair(createCrc32c(), { ord: 2 });
  pair.b.region(7, 0, bytes(300_000));
  const sink = pair.a.region(3, 0, new Uint8Array(300_000), false);
  for (let i = 0; i < 5; i++) pair.a.queue.push(read([7, i * 60_000], [3, i * 60_000], 60_000, i));
  pair.run();
  expectSame(sink, bytes(300_000));
  expect(pair.a.log.filter((line) => line.startsWith('read'))).toEqual([
    'read 0',
    'read 1',
    'read 2',
    'read 3',
    'read 4',
  ]);
  expect(pair.streamA.nrOutstanding).toBe(0);
});

test('atomics are carried out once, in order, and bring back what was there', () => {
  const pair = new Pair(createCrc32c());
  const memory = pair.b.region(7, 0x100, new Uint8Array(16));
  pair.a.queue.push(
    atomic(ATOMIC_FETCH_ADD, [7, 0x100], 5n),
    atomic(ATOMIC_FETCH_ADD, [7, 0x100], 0xffff_ffff_ffff_fffen),
  );
  pair.a.queue.push(atomic(ATOMIC_CMP_SWAP, [7, 0x100], 9n, 3n), atomic(ATOMIC_CMP_SWAP, [7, 0x100], 1n, 3n));
  pair.a.queue.push(atomic(ATOMIC_SWAP, [7, 0x108], 77n));
  pair.run();
  expect(pair.a.originals).toEqual([0n, 5n, 3n, 9n, 0n]);
  expect(new BigUint64Array(memory.buffer)).toEqual(BigUint64Array.of(9n, 77n));
});

test('the responder keeps silent until it has heard of the initiator', () => {
  const pair = new Pair(undefined);
  pair.a.receives.push(new Uint8Array(10));
  pair.b.queue.push({ opcode: RDMAP_SEND, payload: bytes(10) });
  pair.run();
  expect(pair.a.received).toEqual([]);
  pair.a.queue.push(write(0, 0, bytes(0)));
  pair.run();
  expect(pair.a.received.length).toBe(1);
});

test.each(['write', 'read'] as const)('an RTR %s lets the responder send first, and nobody sees it', (rtr) => {
  const pair = new Pair(createCrc32c(), { rtr });
  pair.a.receives.push(new Uint8Array(10));
  pair.b.queue.push({ opcode: RDMAP_SEND, payload: bytes(10) });
  pair.run();
  expect(pair.a.received.length).toBe(1);
  expect(pair.a.log).toEqual([`received ${RDMAP_SEND} 10`]);
  expect(pair.b.log).toEqual(['sent 0']);
  expect(pair.streamA.nrOutstanding).toBe(0);
});

test("responses to the peer's READs take turns with our own messages", () => {
  const pair = new Pair(undefined, { segmentBytes: 256 });
  pair.b.region(7, 0, bytes(600));
  const sink = pair.a.region(3, 0, new Uint8Array(600));
  pair.a.queue.push(read([7, 0], [3, 0], 300, 1), read([7, 300], [3, 300], 300, 2));
  // More than ever ends: a new SEND for each that is sent.
  let nrSent = 0;
  pair.b.queue.push({ opcode: RDMAP_SEND, payload: bytes(8) });
  pair.b.sent = () => {
    if (++nrSent < 100) pair.b.queue.push({ opcode: RDMAP_SEND, payload: bytes(8) });
  };
  const doneAfter: number[] = [];
  pair.a.readDone = () => doneAfter.push(pair.a.received.length);
  for (let i = 0; i < 100; i++) pair.a.receives.push(new Uint8Array(8));
  pair.run();
  expectSame(sink, bytes(600));
  expect(doneAfter).toEqual([1, 2]);
  expect(pair.a.received.length).toBe(100);
});
