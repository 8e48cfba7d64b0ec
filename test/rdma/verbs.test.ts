import { afterEach, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/mm/index.js';
import {
  IBV_SEND_INLINE,
  IBV_WC_RDMA_READ,
  IBV_WC_RDMA_WRITE,
  IBV_WC_RECV,
  IBV_WC_RECV_RDMA_WITH_IMM,
  IBV_WC_SEND,
  IBV_WC_SUCCESS,
  IBV_WC_WITH_IMM,
  IBV_WR_ATOMIC_CMP_AND_SWP,
  IBV_WR_ATOMIC_FETCH_AND_ADD,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  IBV_WR_RDMA_WRITE_WITH_IMM,
  IBV_WR_SEND,
  IBV_WR_SEND_WITH_IMM,
} from '../../src/rdma/index.js';
import { firstDifference, pattern, RdmaWorld, sge, type Transport } from './rdmaworld.js';

/** What verbs do between two queue pairs, over memory on one thread, and over TCP with the NIC in a worker. */

let world: RdmaWorld | undefined;
afterEach(async () => {
  await world?.stop();
  world = undefined;
});

describe.each(['memory', 'tcp'] satisfies Transport[])('over %s', (transport) => {
  const start = async (): Promise<RdmaWorld> => (world = await RdmaWorld.create({ transport }));

  test('WRITE, and READ back, of unaligned lengths over several pages', async () => {
    const w = await start();
    const here = await w.region(w.a, 40);
    const there = await w.region(w.b, 40);
    const data = pattern(100_001, 3);
    await w.fill(w.a, here.va + 5, data);
    const wrote = await w.send(w.a, {
      opcode: IBV_WR_RDMA_WRITE,
      sgList: [sge(here.mr, here.va + 5, data.length)],
      remoteAddr: there.va + 4093,
      rkey: there.mr.rkey,
    });
    expect(wrote).toMatchObject({ status: IBV_WC_SUCCESS, opcode: IBV_WC_RDMA_WRITE });
    const back = await w.region(w.a, 40);
    const read = await w.send(w.a, {
      opcode: IBV_WR_RDMA_READ,
      sgList: [sge(back.mr, back.va + 1, 50_000), sge(back.mr, back.va + 60_000, data.length - 50_000)],
      remoteAddr: there.va + 4093,
      rkey: there.mr.rkey,
    });
    expect(read).toMatchObject({ status: IBV_WC_SUCCESS, opcode: IBV_WC_RDMA_READ, byteLen: data.length });
    expect(firstDifference(await w.bytes(w.b, there.va + 4093, data.length), data)).toBe(-1);
    expect(firstDifference(await w.bytes(w.a, back.va + 1, 50_000), data.slice(0, 50_000))).toBe(-1);
    expect(firstDifference(await w.bytes(w.a, back.va + 60_000, data.length - 50_000), data.slice(50_000))).toBe(-1);
    w.check();
  });

  test('SEND meets the receives in order, with and without immediate data', async () => {
    const w = await start();
    const there = await w.region(w.b, 4);
    const ids = [0, 1, 2].map((k) =>
      w.recv(w.b, [sge(there.mr, there.va + k * 100, 60), sge(there.mr, there.va + 2000 + k * 100, 40)]),
    );
    const text = (k: number): Uint8Array => pattern(70, k);
    w.a.qp.postSend(
      { wrId: 901, opcode: IBV_WR_SEND, sendFlags: IBV_SEND_INLINE, inlineData: text(1).slice(0, 64) },
      {
        wrId: 902,
        opcode: IBV_WR_SEND_WITH_IMM,
        immData: 0xdeadbeef,
        sendFlags: IBV_SEND_INLINE,
        inlineData: text(2).slice(0, 64),
      },
      { wrId: 903, opcode: IBV_WR_SEND, sendFlags: IBV_SEND_INLINE | 2, inlineData: new Uint8Array(0) },
    );
    const got = await w.nextOf(w.b, 3);
    expect(got.map(({ wrId, status, opcode, byteLen }) => [wrId, status, opcode, byteLen])).toEqual(
      [64, 64, 0].map((length, k) => [ids[k], IBV_WC_SUCCESS, IBV_WC_RECV, length]),
    );
    expect(got.map(({ wcFlags, immData }) => [wcFlags, immData])).toEqual([
      [0, 0],
      [IBV_WC_WITH_IMM, 0xdeadbeef],
      [0, 0],
    ]);
    expect(firstDifference(await w.bytes(w.b, there.va + 100, 60), text(2).slice(0, 60))).toBe(-1);
    expect(firstDifference(await w.bytes(w.b, there.va + 2100, 4), text(2).slice(60, 64))).toBe(-1);
    expect(await w.next(w.a)).toMatchObject({ wrId: 903, opcode: IBV_WC_SEND, status: IBV_WC_SUCCESS });
  });

  test('WRITE with immediate data tells the peer, with its length', async () => {
    const w = await start();
    const [here, there] = [await w.region(w.a, 1), await w.region(w.b, 1)];
    const wrId = w.recv(w.b, []);
    await w.fill(w.a, here.va, pattern(1000, 9));
    await w.send(w.a, {
      opcode: IBV_WR_RDMA_WRITE_WITH_IMM,
      immData: 77,
      sgList: [sge(here.mr, here.va, 1000)],
      remoteAddr: there.va,
      rkey: there.mr.rkey,
    });
    expect(await w.next(w.b)).toMatchObject({
      wrId,
      opcode: IBV_WC_RECV_RDMA_WITH_IMM,
      wcFlags: IBV_WC_WITH_IMM,
      immData: 77,
      byteLen: 1000,
    });
    expect(firstDifference(await w.bytes(w.b, there.va, 1000), pattern(1000, 9))).toBe(-1);
  });

  test('atomics return the old value, and add, and swap where it is equal', async () => {
    const w = await start();
    const [here, there] = [await w.region(w.a, 1), await w.region(w.b, 1)];
    const value = async (at: number, end = w.b): Promise<bigint> =>
      new BigUint64Array((await w.bytes(end, at, 8)).buffer)[0]!;
    await w.fill(w.b, there.va + 16, new Uint8Array(new BigUint64Array([2n ** 64n - 1n]).buffer));
    const wr = { sgList: [sge(here.mr, here.va + 8, 8)], remoteAddr: there.va + 16, rkey: there.mr.rkey };
    expect(await w.send(w.a, { ...wr, opcode: IBV_WR_ATOMIC_FETCH_AND_ADD, compareAdd: 6n })).toMatchObject({
      status: 0,
    });
    expect([await value(here.va + 8, w.a), await value(there.va + 16)]).toEqual([2n ** 64n - 1n, 5n]);
    await w.send(w.a, { ...wr, opcode: IBV_WR_ATOMIC_CMP_AND_SWP, compareAdd: 4n, swap: 100n });
    expect([await value(here.va + 8, w.a), await value(there.va + 16)]).toEqual([5n, 5n]);
    await w.send(w.a, { ...wr, opcode: IBV_WR_ATOMIC_CMP_AND_SWP, compareAdd: 5n, swap: 2n ** 63n });
    expect(await value(there.va + 16)).toBe(2n ** 63n);
    w.check();
  });

  test('S11: a region larger than all frames is written and read, and nothing is pinned', async () => {
    world = await RdmaWorld.create({ transport, frames: 256 });
    const w = world;
    const nrPages = 600;
    const there = await w.region(w.b, nrPages);
    const here = await w.region(w.a, 16);
    for (let page = 0; page < nrPages; page += 16) {
      const n = Math.min(16, nrPages - page) * PAGE_SIZE;
      await w.fill(w.a, here.va, pattern(n, page));
      const sgList = [sge(here.mr, here.va, n)];
      const wc = await w.send(w.a, {
        opcode: IBV_WR_RDMA_WRITE,
        sgList,
        remoteAddr: there.va + page * PAGE_SIZE,
        rkey: there.mr.rkey,
      });
      expect(wc.status).toBe(0);
      expect(w.host.stats().pinnedFrames).toBe(0);
    }
    for (let page = 0; page < nrPages; page += 16) {
      const n = Math.min(16, nrPages - page) * PAGE_SIZE;
      const sgList = [sge(here.mr, here.va, n)];
      const wc = await w.send(w.a, {
        opcode: IBV_WR_RDMA_READ,
        sgList,
        remoteAddr: there.va + page * PAGE_SIZE,
        rkey: there.mr.rkey,
      });
      expect(wc.status).toBe(0);
      expect(firstDifference(await w.bytes(w.a, here.va, n), pattern(n, page))).toBe(-1);
    }
    const stats = w.device.stats();
    expect(stats.majorFaults).toBeGreaterThan(0);
    expect(stats.pageInvalidations).toBeGreaterThan(0);
    expect(stats.pinnedPages).toBe(0);
    w.check();
  });
});
