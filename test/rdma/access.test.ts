import { expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/mm/index.js';
import { Access } from '../../src/rdma/nic/access.js';

/** How far a connection reads ahead: what it asks for at a fault, and at its mark. */

const KEY = 7;
const bytesOf = (page: number) => page * PAGE_SIZE;

/** A fault of `page`, where so many pages are to be moved. */
const ask = (access: Access, page: number, nrPages: number, key = KEY) =>
  access.pagesToAsk(key, page, bytesOf(page), nrPages * PAGE_SIZE);

test('a fault asks for what is to be moved, to the byte, and of a message whose length is known for all of it', () => {
  const access = new Access(() => {});
  expect(access.pagesToAsk(KEY, 0, 0, 1)).toBe(1);
  expect(access.pagesToAsk(KEY, 10, bytesOf(10) + 4095, 2)).toBe(2);
  expect(ask(access, 20, 4)).toBe(4);
  access.beginMessage(KEY, bytesOf(100), bytesOf(16));
  expect(ask(access, 104, 2)).toBe(12);
  expect(ask(access, 50, 2, KEY + 1)).toBe(2);
  access.beginMessage(KEY, bytesOf(1000), bytesOf(5000));
  expect(ask(access, 1000, 2)).toBe(256);
});

test('faults in random places ask for no more than they need, and put no mark', () => {
  const access = new Access(() => {});
  for (const page of [5, 900, 6, 40, 41_000, 39]) {
    expect(ask(access, page, 1)).toBe(1);
    expect(access.mark).toBe(Number.MAX_SAFE_INTEGER);
  }
});

test('a fault that goes on where the last ended asks for twice as many; at its mark the next window begins', () => {
  const access = new Access(() => {});
  expect(ask(access, 0, 4)).toBe(4);
  expect(ask(access, 4, 4)).toBe(8);
  expect([access.mark, access.advance(8), access.nrPages]).toEqual([8, 12, 16]);
  for (let k = 0; k < 8; k++) access.advance(access.mark);
  expect(access.nrPages).toBe(256);
});

test('in full flow two windows lie before the stream: the mark is where the last but one begins', () => {
  const access = new Access(() => {});
  for (const page of [0, 4]) ask(access, page, 4);
  const windows = [];
  for (let k = 0; k < 12; k++) windows.push({ mark: access.mark, start: access.advance(access.mark) });
  for (const [k, { mark, start }] of windows.entries()) {
    if (k >= 2) expect(mark).toBe(windows[k - 2]!.start);
    if (k >= 1) expect(start).toBeGreaterThan(windows[k - 1]!.start);
  }
});

test('faults of pages that are on their way, in the windows before the stream, ask for the rest and move nothing', () => {
  const access = new Access(() => {});
  for (const page of [0, 4]) ask(access, page, 4);
  access.advance(8);
  access.advance(8);
  const { mark, nrPages } = access;
  expect([ask(access, 9, 1), ask(access, 13, 1), ask(access, 59, 1)]).toEqual([51, 47, 1]);
  expect([access.mark, access.nrPages]).toEqual([mark, nrPages]);
  expect(ask(access, 60, 1)).toBe(64);
});

test('a stream that leaves its window is no stream any more', () => {
  const access = new Access(() => {});
  for (const page of [0, 4]) ask(access, page, 4);
  expect(access.advance(500)).toBe(-1);
  expect(access.mark).toBe(Number.MAX_SAFE_INTEGER);
  access.endReadAhead();
  expect(access.windowKey).toBe(0);
});
