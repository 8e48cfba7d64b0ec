import { afterEach, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/mm/index.js';
import {
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ACCESS_ON_DEMAND,
  IBV_ACCESS_REMOTE_READ,
  IBV_ACCESS_REMOTE_WRITE,
  IBV_SEND_INLINE,
  IBV_WC_LOC_PROT_ERR,
  IBV_WC_REM_ACCESS_ERR,
  IBV_WC_SUCCESS,
  IBV_WC_WITH_INV,
  IBV_WC_WR_FLUSH_ERR,
  IBV_WR_ATOMIC_FETCH_AND_ADD,
  IBV_WR_LOCAL_INV,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  IBV_WR_SEND,
  IBV_WR_SEND_WITH_INV,
  type MemoryRegion,
} from '../../src/rdma/index.js';
import { firstDifference, ODP, pattern, RdmaWorld, sge } from './rdmaworld.js';

/** Every access is looked at: key, protection domain, rights, bounds, invalidation. What does not fit ends that connection, and touches no memory. */

let w: RdmaWorld;
afterEach(() => w.stop());

const SECRET = pattern(4 * PAGE_SIZE, 99);

/** A region of `b` that holds SECRET, and one of `a`. */
async function start(access = ODP): Promise<{ mr: MemoryRegion; va: number; here: MemoryRegion; at: number }> {
  w = await RdmaWorld.create();
  const { va, mr } = await w.region(w.b, 4, access);
  await w.fill(w.b, va, SECRET);
  const { va: at, mr: here } = await w.region(w.a, 4);
  return { va, mr, here, at };
}

async function untouched(va: number): Promise<void> {
  expect(firstDifference(await w.bytes(w.b, va, SECRET.length), SECRET)).toBe(-1);
  w.check();
}

type Case = [
  name: string,
  wr: (s: Awaited<ReturnType<typeof start>>) => { remoteAddr: number; rkey: number; length: number },
  access?: number,
];

const BAD: Case[] = [
  ['a key nobody gave out', ({ va, mr }) => ({ remoteAddr: va, rkey: mr.rkey ^ 0x0100_0000, length: 8 })],
  ['key 0', ({ va }) => ({ remoteAddr: va, rkey: 0, length: 8 })],
  ['a byte before the region', ({ va, mr }) => ({ remoteAddr: va - 1, rkey: mr.rkey, length: 8 })],
  ['a byte beyond it', ({ va, mr }) => ({ remoteAddr: va + 4 * PAGE_SIZE - 7, rkey: mr.rkey, length: 8 })],
  ['an address near 2^53', ({ mr }) => ({ remoteAddr: 2 ** 53 - 8, rkey: mr.rkey, length: 8 })],
];

test.each(BAD)('a READ with %s', async (_name, wr) => {
  const s = await start();
  const { remoteAddr, rkey, length } = wr(s);
  const wc = await w.send(w.a, {
    opcode: IBV_WR_RDMA_READ,
    sgList: [sge(s.here, s.at, length)],
    remoteAddr,
    rkey: rkey >>> 0,
  });
  expect(wc.status).toBe(IBV_WC_REM_ACCESS_ERR);
  expect(wc.vendorErr).toBeGreaterThan(0xff);
  expect(await w.bytes(w.a, s.at, 8)).toEqual(new Uint8Array(8));
  expect(w.device.stats()).toMatchObject({ terminatesSent: 1, terminatesReceived: 1 });
  await untouched(s.va);
});

test.each(BAD)('a WRITE with %s', async (_name, wr) => {
  const s = await start();
  const { remoteAddr, rkey, length } = wr(s);
  const post = { sendFlags: IBV_SEND_INLINE, inlineData: pattern(length, 1), remoteAddr, rkey: rkey >>> 0 };
  await w.send(w.a, { ...post, opcode: IBV_WR_RDMA_WRITE });
  // It is complete when it is sent; the connection ends.
  const after = await w.send(w.a, {
    opcode: IBV_WR_RDMA_READ,
    sgList: [sge(s.here, s.at, 8)],
    remoteAddr: s.va,
    rkey: s.mr.rkey,
  });
  expect(after.status).not.toBe(IBV_WC_SUCCESS);
  await untouched(s.va);
});

test('rights: neither READ, WRITE nor atomic without its own', async () => {
  const opcodes = { read: IBV_WR_RDMA_READ, write: IBV_WR_RDMA_WRITE, atomic: IBV_WR_ATOMIC_FETCH_AND_ADD } as const;
  const have = {
    read: IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE,
    write: IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ,
    atomic: IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE,
  };
  for (const kind of ['read', 'write', 'atomic'] as const) {
    const s = await start(have[kind] | IBV_ACCESS_ON_DEMAND);
    await w.fill(w.a, s.at, pattern(8, 3));
    const post = { sgList: [sge(s.here, s.at, 8)], remoteAddr: s.va, rkey: s.mr.rkey };
    const { status } = await w.send(w.a, { ...post, opcode: opcodes[kind], compareAdd: 1n });
    if (kind !== 'write') expect(status).toBe(IBV_WC_REM_ACCESS_ERR);
    await w.turns(20);
    expect(w.a.qp.state).toBe(6);
    await untouched(s.va);
    if (kind !== 'atomic') await w.stop();
  }
});

test("another protection domain's region is not for this connection, and a local key of it neither", async () => {
  const s = await start();
  const other = w.b.context.allocPd();
  const mr = await other.regMr(s.va, PAGE_SIZE, ODP);
  const read = { opcode: IBV_WR_RDMA_READ, sgList: [sge(s.here, s.at, 8)], remoteAddr: s.va, rkey: mr.rkey } as const;
  expect((await w.send(w.a, read)).status).toBe(IBV_WC_REM_ACCESS_ERR);
  await w.connect();
  const foreign = await w.a.context.allocPd().regMr(s.at, PAGE_SIZE, ODP);
  const wc = await w.send(w.a, { opcode: IBV_WR_SEND, sgList: [sge(foreign, s.at, 8)] });
  expect(wc.status).toBe(IBV_WC_LOC_PROT_ERR);
  await untouched(s.va);
});

test('SEND with invalidate, and LOCAL_INV, end a key for everybody', async () => {
  const s = await start();
  w.recv(w.b, []);
  w.recv(w.b, []);
  expect((await w.send(w.a, { opcode: IBV_WR_SEND_WITH_INV, invalidateRkey: s.mr.rkey })).status).toBe(IBV_WC_SUCCESS);
  expect(await w.next(w.b)).toMatchObject({ wcFlags: IBV_WC_WITH_INV, invalidatedRkey: s.mr.rkey });
  expect(s.mr.isValid).toBe(false);
  const read = { opcode: IBV_WR_RDMA_READ, sgList: [sge(s.here, s.at, 8)], remoteAddr: s.va, rkey: s.mr.rkey } as const;
  expect((await w.send(w.a, read)).status).toBe(IBV_WC_REM_ACCESS_ERR);
  await w.connect();
  expect((await w.send(w.a, { opcode: IBV_WR_LOCAL_INV, invalidateRkey: s.here.lkey })).status).toBe(IBV_WC_SUCCESS);
  const wc = await w.send(w.a, { opcode: IBV_WR_SEND, sgList: [sge(s.here, s.at, 8)] });
  expect(wc.status).toBe(IBV_WC_LOC_PROT_ERR);
  // A new registration has a new key.
  const again = await w.b.pd.regMr(s.va, PAGE_SIZE, ODP);
  expect(again.rkey).not.toBe(s.mr.rkey);
  await untouched(s.va);
});

test('a wrong key to invalidate ends the connection', async () => {
  const s = await start();
  w.recv(w.b, []);
  w.a.qp.postSend({ wrId: 1, opcode: IBV_WR_SEND_WITH_INV, invalidateRkey: 0x1234_5678 });
  expect((await w.next(w.b)).status).toBe(IBV_WC_WR_FLUSH_ERR);
  expect(w.device.stats().terminatesSent).toBe(1);
  expect(s.mr.isValid).toBe(true);
});

test('keys are random: none follows from another, and places are taken at random', async () => {
  const { va } = await start();
  const keys = new Set<number>();
  const highs = new Set<number>();
  for (let n = 0; n < 64; n++) {
    const mr = await w.b.pd.regMr(va, PAGE_SIZE, ODP);
    keys.add(mr.rkey);
    highs.add(mr.rkey >>> 24);
    await mr.deregMr();
  }
  expect(keys.size).toBe(64);
  expect(highs.size).toBeGreaterThan(20);
});
