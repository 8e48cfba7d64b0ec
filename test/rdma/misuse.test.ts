import { afterEach, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/mm/index.js';
import {
  IBV_ACCESS_ON_DEMAND,
  IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE,
  IBV_QPS_ERR,
  IBV_REREG_MR_CHANGE_ACCESS,
  IBV_REREG_MR_CHANGE_TRANSLATION,
  IBV_SEND_INLINE,
  IBV_SEND_SIGNALED,
  IBV_WC_LOC_PROT_ERR,
  IBV_WC_SUCCESS,
  IBV_WC_WR_FLUSH_ERR,
  IBV_WR_LOCAL_INV,
  IBV_WR_RDMA_WRITE,
  IBV_WR_SEND,
} from '../../src/rdma/index.js';
import { ALL, inlineSend, ODP, RdmaWorld, sge } from './rdmaworld.js';

/** Verbs used as they must not be: what libibverbs says to that, and that nothing which is freed is written to. */

let w: RdmaWorld;
afterEach(() => w.stop());

const start = async (options = {}): Promise<void> => {
  w = await RdmaWorld.create(options);
};

describe('queues', () => {
  test('of a queue that was destroyed nothing is asked any more, and no queue pair uses it', async () => {
    await start();
    const { context, pd, cq } = w.b;
    const gone = context.createCq(4);
    const srq = pd.createSrq({ maxWr: 4, maxSge: 1 });
    gone.destroyCq();
    srq.destroySrq();
    expect(() => gone.reqNotifyCq()).toThrow(/EINVAL: reqNotifyCq: .*destroyed/);
    expect(() => gone.pollCq(1)).toThrow(/EINVAL: pollCq/);
    expect(() => srq.modifySrq({ srqLimit: 1 })).toThrow(/EINVAL: modifySrq: .*destroyed/);
    expect(() => srq.postSrqRecv({ wrId: 1, sgList: [] })).toThrow(/EINVAL: postSrqRecv/);
    expect(() => pd.createQp({ sendCq: gone, recvCq: cq })).toThrow(/EINVAL: createQp: .*destroyed/);
    expect(() => pd.createQp({ sendCq: cq, recvCq: cq, srq })).toThrow(/EINVAL: createQp: .*destroyed/);
  });

  test('a shared receive queue that is refused takes no memory', async () => {
    await start({ host: { arenaBytes: 4 * 2 ** 20 } });
    // 16384 receives of 32 pieces are 8 MiB; of one piece 1.3.
    const create = (srqLimit: number) => w.b.pd.createSrq({ maxWr: 16384, maxSge: 1, srqLimit });
    for (let n = 0; n < 10; n++) expect(() => create(16385)).toThrow(/EINVAL: createSrq: srqLimit 16385/);
    create(16384).destroySrq();
  });

  test('a channel has no events of a queue that is gone, and a channel that is gone takes no queue', async () => {
    await start();
    const { context, pd } = w.b;
    const channel = context.createCompChannel();
    const [first, second] = [context.createCq(4, { channel }), context.createCq(4, { channel })];
    for (const cq of [first, second]) {
      const qp = pd.createQp({ sendCq: cq, recvCq: cq });
      cq.reqNotifyCq();
      qp.postRecv({ wrId: 1, sgList: [] });
      qp.modifyQp(IBV_QPS_ERR);
      await w.turns(20);
      qp.destroyQp();
    }
    first.destroyCq();
    expect(await channel.getCqEvent()).toBe(second);
    expect(() => channel.destroyCompChannel()).toThrow(/EBUSY/);
    second.destroyCq();
    channel.destroyCompChannel();
    expect(() => context.createCq(4, { channel })).toThrow(/EINVAL: createCq: the channel was destroyed/);
  });

  test('a queue pair needs no room for what it never posts', async () => {
    await start();
    const { pd, cq } = w.b;
    const qp = pd.createQp({ sendCq: cq, recvCq: cq, cap: { maxRecvWr: 0, maxRecvSge: 0, maxSendSge: 0 } });
    expect(() => qp.postRecv({ wrId: 1, sgList: [] })).toThrow(/ENOMEM/);
  });

  test('modifyQp to the error state is done when it returns: what is posted is flushed, what comes is dropped', async () => {
    await start();
    const there = await w.region(w.b, 1);
    w.b.qp.modifyQp(IBV_QPS_ERR);
    expect(w.b.qp.state).toBe(IBV_QPS_ERR);
    w.b.qp.postSend(inlineSend(1));
    expect(await w.next(w.b)).toMatchObject({ wrId: 1, status: IBV_WC_WR_FLUSH_ERR });
    const write = { ...inlineSend(2), opcode: IBV_WR_RDMA_WRITE, remoteAddr: there.va, rkey: there.mr.rkey } as const;
    w.a.qp.postSend({ ...write, sendFlags: IBV_SEND_INLINE | IBV_SEND_SIGNALED });
    await w.next(w.a);
    await w.turns(50);
    expect(await w.bytes(w.b, there.va, 4)).toEqual(new Uint8Array(4));
    expect(() => w.b.qp.modifyQp(3)).toThrow(/EINVAL.*IBV_QPS_ERR/);
  });

  test('a LOCAL_INV of a key that is none ends the queue pair, and the requests behind it', async () => {
    await start();
    w.recv(w.b, []);
    w.a.qp.postSend(
      { wrId: 1, opcode: IBV_WR_LOCAL_INV, invalidateRkey: 0x1234_5678 },
      { wrId: 2, opcode: IBV_WR_SEND },
    );
    const seen = await w.nextOf(w.a, 2);
    expect(seen.map(({ wrId, status }) => [wrId, status])).toEqual([
      [1, IBV_WC_LOC_PROT_ERR],
      [2, IBV_WC_WR_FLUSH_ERR],
    ]);
    for (let n = 0; n < 100 && w.a.qp.state !== IBV_QPS_ERR; n++) await w.turn();
    expect(w.a.qp.reason).toMatch(/LOCAL_INV of key 0x12345678/);
    expect((await w.next(w.b)).status).toBe(IBV_WC_WR_FLUSH_ERR);
  });
});

describe('regions', () => {
  test('flags that a device may pass over are passed over', async () => {
    await start();
    const IBV_ACCESS_RELAXED_ORDERING = 1 << 20;
    const mr = await w.b.pd.regMr(w.mmap(w.b, 1), PAGE_SIZE, ODP | IBV_ACCESS_RELAXED_ORDERING);
    expect(mr.access).toBe(ODP);
  });

  test('advice: no such key, another domain, no right, not on demand', async () => {
    await start();
    const { pd, context } = w.b;
    const va = w.mmap(w.b, 1);
    const region = (of: typeof pd, access: number) => of.regMr(va, PAGE_SIZE, access);
    const advise = (lkey: number) =>
      pd.adviseMr(IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, 1, [{ addr: va, length: 1, lkey }]);
    const [foreign, readOnly] = [await region(context.allocPd(), ODP), await region(pd, IBV_ACCESS_ON_DEMAND)];
    const pinned = await region(pd, ALL);
    await expect(advise(1)).rejects.toThrow(/ENOENT/);
    await expect(advise(foreign.lkey)).rejects.toThrow(/EPERM.*protection domain/);
    await expect(advise(readOnly.lkey)).rejects.toThrow(/EPERM.*LOCAL_WRITE/);
    await expect(advise(pinned.lkey)).rejects.toThrow(/EINVAL.*ON_DEMAND/);
  });

  test('a region that reregMr has lost is still to be deregistered, once', async () => {
    await start();
    const { mr } = await w.region(w.b, 1);
    // Pinned, and nothing is mapped there.
    const lose = mr.reregMr(IBV_REREG_MR_CHANGE_TRANSLATION | IBV_REREG_MR_CHANGE_ACCESS, {
      addr: 2 ** 37,
      length: PAGE_SIZE,
      access: 1,
    });
    await expect(lose).rejects.toThrow(/EFAULT/);
    expect(mr.isValid).toBe(false);
    await expect(mr.reregMr(IBV_REREG_MR_CHANGE_ACCESS, { access: ODP })).rejects.toThrow(/EINVAL.*deregMr/);
    await mr.deregMr();
    await expect(mr.deregMr()).rejects.toThrow(/EINVAL/);
  });

  test('two changes at once are EBUSY, and deregMr waits for one that is under way', async () => {
    await start();
    const { mr } = await w.region(w.b, 4);
    const first = mr.reregMr(IBV_REREG_MR_CHANGE_ACCESS, { access: ALL });
    await expect(mr.reregMr(IBV_REREG_MR_CHANGE_ACCESS, { access: ODP })).rejects.toThrow(/EBUSY/);
    const ending = mr.deregMr();
    await Promise.allSettled([first]);
    await ending;
    expect(mr.isValid).toBe(false);
    expect(w.host.stats().pinnedFrames).toBe(0);
    w.check();
  });

  test('a context that is closed ends a registration that is on its way', async () => {
    await start();
    const { context } = w.b;
    const registering = w.b.pd.regMr(w.mmap(w.b, 64), 64 * PAGE_SIZE, ALL).then(
      () => 'registered',
      (error: { code: string }) => error.code,
    );
    await context.close();
    expect(await registering).toBe('ENODEV');
    expect(w.host.stats().pinnedFrames).toBe(0);
  });
});

test('a peer of a context that is closed hears of the end, not of a key that is void', async () => {
  await start();
  const [here, there] = [await w.region(w.a, 16), await w.region(w.b, 16)];
  const post = { opcode: IBV_WR_RDMA_WRITE, remoteAddr: there.va, rkey: there.mr.rkey } as const;
  for (let wrId = 0; wrId < 16; wrId++)
    w.a.qp.postSend({ ...post, wrId, sgList: [sge(here.mr, here.va, 16 * PAGE_SIZE)] });
  await w.turns(4);
  await w.b.context.close();
  for (let n = 0; n < 1000 && w.a.qp.state !== IBV_QPS_ERR; n++) await w.turn();
  expect(w.a.qp.reason).not.toMatch(/STag/);
  expect(w.device.stats().terminatesSent).toBe(0);
});

test('the counters of a device stay when it is closed', async () => {
  await start();
  const [here, there] = [await w.region(w.a, 1), await w.region(w.b, 1)];
  const post = { sgList: [sge(here.mr, here.va, 8)], remoteAddr: there.va, rkey: there.mr.rkey };
  expect((await w.send(w.a, { ...post, opcode: IBV_WR_RDMA_WRITE })).status).toBe(IBV_WC_SUCCESS);
  await w.device.close();
  const { bytesSent } = w.device.stats();
  expect(bytesSent).toBeGreaterThan(0);
  // What the arena gives to the next one is not theirs.
  const addr = w.host.arenaAlloc(2 ** 16, 8);
  w.host.u8.fill(0xff, addr, addr + 2 ** 16);
  expect(w.device.stats().bytesSent).toBe(bytesSent);
  w.host.arenaFree(addr, 2 ** 16);
});
