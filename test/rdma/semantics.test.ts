import { afterEach, describe, expect, test } from 'vitest';
import { MAP_ANONYMOUS, MAP_SHARED, PAGE_SIZE } from '../../src/mm/index.js';
import {
  IBV_ADVISE_MR_ADVICE_PREFETCH,
  IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT,
  IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE,
  IBV_ADVISE_MR_FLAG_FLUSH,
  IBV_EVENT_CQ_ERR,
  IBV_EVENT_QP_LAST_WQE_REACHED,
  IBV_EVENT_SRQ_LIMIT_REACHED,
  IBV_ODP_SUPPORT,
  IBV_ODP_SUPPORT_WRITE,
  IBV_REREG_MR_CHANGE_ACCESS,
  IBV_REREG_MR_CHANGE_TRANSLATION,
  IBV_SEND_FENCE,
  IBV_SEND_SIGNALED,
  IBV_SEND_SOLICITED,
  IBV_WC_LOC_ACCESS_ERR,
  IBV_WC_LOC_LEN_ERR,
  IBV_WC_SUCCESS,
  IBV_WC_WR_FLUSH_ERR,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  IBV_WR_SEND,
} from '../../src/rdma/index.js';
import { firstDifference, inlineSend, ODP, pattern, RdmaWorld, RW, sge } from './rdmaworld.js';

/** What libibverbs says of queues, completions, regions and advice. */

let w: RdmaWorld;
afterEach(() => w.stop());

const start = async (options = {}): Promise<void> => {
  w = await RdmaWorld.create(options);
};

describe('queues', () => {
  test('only signalled requests complete, and every failed one', async () => {
    await start();
    for (let k = 0; k < 3; k++) w.recv(w.b, []);
    w.a.qp.postSend(inlineSend(1, 0, 0), inlineSend(2, IBV_SEND_SIGNALED, 0), inlineSend(3, 0, 0));
    expect((await w.next(w.a)).wrId).toBe(2);
    w.a.qp.modifyQp(6);
    await w.turns(5);
    w.a.qp.postSend(inlineSend(4));
    expect(await w.next(w.a)).toMatchObject({ wrId: 4, status: IBV_WC_WR_FLUSH_ERR });
  });

  test('a fenced request waits for the READ before it', async () => {
    await start();
    const [here, there] = [await w.region(w.a, 2), await w.region(w.b, 2)];
    await w.fill(w.b, there.va, pattern(64, 4));
    w.recv(w.b, [sge(there.mr, there.va + PAGE_SIZE, 64)]);
    // What is sent is what the READ has brought.
    w.a.qp.postSend(
      {
        wrId: 1,
        opcode: IBV_WR_RDMA_READ,
        sgList: [sge(here.mr, here.va, 64)],
        remoteAddr: there.va,
        rkey: there.mr.rkey,
      },
      { wrId: 2, opcode: IBV_WR_SEND, sendFlags: IBV_SEND_FENCE, sgList: [sge(here.mr, here.va, 64)] },
    );
    await w.next(w.b);
    expect(await w.bytes(w.b, there.va + PAGE_SIZE, 64)).toEqual(pattern(64, 4));
  });

  test('completions come in the order of posting, though a READ is done later', async () => {
    await start();
    const [here, there] = [await w.region(w.a, 30), await w.region(w.b, 30)];
    w.recv(w.b, []);
    w.a.qp.postSend(
      {
        wrId: 1,
        opcode: IBV_WR_RDMA_READ,
        sendFlags: IBV_SEND_SIGNALED,
        sgList: [sge(here.mr, here.va, 100_000)],
        remoteAddr: there.va,
        rkey: there.mr.rkey,
      },
      inlineSend(2, IBV_SEND_SIGNALED, 0),
    );
    expect((await w.nextOf(w.a, 2)).map(({ wrId }) => wrId)).toEqual([1, 2]);
  });

  test('a full queue is ENOMEM, bad requests are EINVAL, and what came before stays posted', async () => {
    await start({ attr: { cap: { maxSendWr: 4, maxRecvWr: 2 } } });
    const post = (wr: object) => () => w.a.qp.postSend({ ...inlineSend(1), ...wr } as never);
    expect(post({ opcode: 33 })).toThrow(/EINVAL: postSend: opcode 33/);
    expect(post({ inlineData: new Uint8Array(65) })).toThrow(/EINVAL.*maxInlineData, 64/);
    expect(post({ wrId: -1 })).toThrow(/EINVAL.*wrId/);
    expect(post({ opcode: IBV_WR_RDMA_WRITE })).toThrow(/EINVAL.*remoteAddr/);
    expect(() => w.a.qp.postSend(inlineSend(1), inlineSend(2), inlineSend(3), inlineSend(4), inlineSend(5))).toThrow(
      /ENOMEM.*maxSendWr/,
    );
    expect(() => w.b.qp.postRecv(...[1, 2, 3].map((wrId) => ({ wrId, sgList: [] })))).toThrow(/ENOMEM/);
  });

  test('a message longer than its buffer is a length error there, and one without a buffer ends the connection', async () => {
    await start();
    const { va, mr } = await w.region(w.b, 1);
    const wrId = w.recv(w.b, [sge(mr, va, 10)]);
    w.a.qp.postSend(inlineSend(1, 0, 11));
    expect(await w.next(w.b)).toMatchObject({ wrId, status: IBV_WC_LOC_LEN_ERR });
    expect(await w.bytes(w.b, va + 10, 1)).toEqual(new Uint8Array(1));
    await w.connect();
    w.a.qp.postSend(inlineSend(2));
    for (let n = 0; n < 500 && w.a.qp.state + w.b.qp.state < 12; n++) await w.turn();
    expect([w.a.qp.state, w.b.qp.state]).toEqual([6, 6]);
    expect(w.b.qp.reason).toMatch(/buffer/i);
  });

  test('a receive whose memory is gone is an access error, and touches nothing', async () => {
    await start();
    const { va, mr } = await w.region(w.b, 2);
    const wrId = w.recv(w.b, [sge(mr, va, 64)]);
    w.b.mm.munmap(va, 2 * PAGE_SIZE);
    w.a.qp.postSend(inlineSend(1));
    expect(await w.next(w.b)).toMatchObject({ wrId, status: IBV_WC_LOC_ACCESS_ERR });
    w.check();
  });

  test('a shared receive queue serves several queue pairs, and tells when it runs low', async () => {
    await start();
    const srq = w.b.pd.createSrq({ maxWr: 8, maxSge: 1, srqLimit: 2 });
    const events: number[] = [];
    w.b.context.onAsyncEvent = ({ eventType }) => void events.push(eventType);
    await w.connect({ srq });
    const first = w.a;
    const { va, mr } = await w.region(w.b, 1);
    srq.postSrqRecv(...[0, 1, 2].map((k) => ({ wrId: 100 + k, sgList: [sge(mr, va + 64 * k, 64)] })));
    first.qp.postSend(inlineSend(1));
    expect((await w.next(w.b)).wrId).toBe(100);
    const { qp } = first;
    await w.connect({ srq });
    w.a.qp.postSend(inlineSend(2));
    expect(await w.next(w.b)).toMatchObject({ wrId: 101, status: IBV_WC_SUCCESS });
    await w.turns(5);
    expect(events).toEqual([IBV_EVENT_SRQ_LIMIT_REACHED]);
    qp.modifyQp(6);
    for (let n = 0; n < 100 && events.length < 2; n++) await w.turn();
    expect(events).toContain(IBV_EVENT_QP_LAST_WQE_REACHED);
    expect(() => srq.destroySrq()).toThrow(/EBUSY/);
  });
});

describe('completions', () => {
  test('a channel is told once for each arming, of solicited ones alone where it asked so', async () => {
    await start();
    const channel = w.b.context.createCompChannel();
    const cq = w.b.context.createCq(8, { channel });
    const { a, b } = w;
    const listener = b.context.createId();
    await listener.bindAddr({ host: '127.0.0.1', port: 0 });
    await listener.listen();
    const id = a.context.createId();
    await id.resolveAddr({ port: listener.localAddr!.port });
    const qp = id.createQp(a.pd, { sendCq: a.cq, recvCq: a.cq });
    const connecting = id.connect();
    for await (const event of listener.events) {
      const other = event.id.createQp(b.pd, { sendCq: cq, recvCq: cq });
      other.postRecv(...[1, 2, 3, 4].map((wrId) => ({ wrId, sgList: [] })));
      await event.id.accept();
      break;
    }
    await connecting;
    cq.reqNotifyCq(true);
    let told = 0;
    const event = channel.getCqEvent().then((of) => {
      told++;
      return of;
    });
    qp.postSend(inlineSend(1, 0, 0));
    await w.turns(50);
    expect(told).toBe(0);
    qp.postSend(inlineSend(2, IBV_SEND_SOLICITED, 0));
    expect(await event).toBe(cq);
    cq.ackCqEvents(1);
    expect(cq.pollCq(9).map(({ wrId }) => wrId)).toEqual([1, 2]);
    expect(cq.pollCq(9)).toEqual([]);
  });

  test('a queue that overflows says so', async () => {
    await start();
    const events: number[] = [];
    w.a.context.onAsyncEvent = ({ eventType }) => void events.push(eventType);
    const small = w.a.context.createCq(2);
    w.a.qp.destroyQp();
    await w.connect();
    w.a.qp.destroyQp();
    w.a.id.destroyId();
    const own = w.a.pd.createQp({ sendCq: small, recvCq: small });
    own.postRecv(...[1, 2, 3].map((wrId) => ({ wrId, sgList: [] })));
    own.modifyQp(6);
    for (let n = 0; n < 100 && events.length === 0; n++) await w.turn();
    expect(events).toEqual([IBV_EVENT_CQ_ERR]);
    expect(small.pollCq(2)).toHaveLength(2);
    expect(() => small.pollCq(1)).toThrow(/EIO: pollCq/);
    expect(() => small.destroyCq()).toThrow(/EBUSY/);
  });
});

describe('regions', () => {
  test('what cannot be registered is refused, with what would be right', async () => {
    await start();
    const { pd } = w.b;
    const va = w.mmap(w.b, 2);
    await expect(pd.regMr(va, 0, ODP)).rejects.toThrow(/EINVAL: regMr: length 0/);
    await expect(pd.regMr(va, PAGE_SIZE, 2)).rejects.toThrow(/EINVAL.*need IBV_ACCESS_LOCAL_WRITE/);
    await expect(pd.regMr(va, PAGE_SIZE, 1 << 12)).rejects.toThrow(/EINVAL.*IBV_ACCESS_/);
    await expect(pd.regMr(0, Number.POSITIVE_INFINITY, 1)).rejects.toThrow(/EOPNOTSUPP/);
    await expect(pd.regMr(2 ** 38, PAGE_SIZE, 1)).rejects.toThrow(/EFAULT/);
    const mr = await pd.regMr(va, PAGE_SIZE, ODP);
    await mr.deregMr();
    await expect(mr.deregMr()).rejects.toThrow(/EINVAL/);
    expect(w.b.context.queryDeviceEx().odpCaps.generalCaps & IBV_ODP_SUPPORT).toBe(IBV_ODP_SUPPORT);
    expect(w.b.context.queryDeviceEx().odpCaps.perTransportCaps.rcOdpCaps & IBV_ODP_SUPPORT_WRITE).toBeGreaterThan(0);
  });

  test('reregMr changes place and rights, and the old key is void', async () => {
    await start();
    const { va, mr } = await w.region(w.b, 2);
    const other = w.mmap(w.b, 2);
    await w.fill(w.b, other, pattern(64, 6));
    const { rkey } = mr;
    await mr.reregMr(IBV_REREG_MR_CHANGE_TRANSLATION, { addr: other, length: PAGE_SIZE });
    const here = await w.region(w.a, 1);
    const read = (key: number, remoteAddr: number) =>
      w.send(w.a, { opcode: IBV_WR_RDMA_READ, sgList: [sge(here.mr, here.va, 64)], remoteAddr, rkey: key });
    expect((await read(mr.rkey, other)).status).toBe(IBV_WC_SUCCESS);
    expect(await w.bytes(w.a, here.va, 64)).toEqual(pattern(64, 6));
    expect((await read(rkey, va)).status).not.toBe(IBV_WC_SUCCESS);
    await w.connect();
    await mr.reregMr(IBV_REREG_MR_CHANGE_ACCESS, { access: 1 | 64 });
    expect((await read(mr.rkey, other)).status).not.toBe(IBV_WC_SUCCESS);
    w.check();
  });

  test('shared memory is written remotely, and seen by who shares it', async () => {
    await start();
    const va = w.b.mm.mmap(0, 4 * PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS);
    const child = w.b.mm.fork();
    const mr = await w.b.pd.regMr(va, 4 * PAGE_SIZE, ODP);
    const here = await w.region(w.a, 4);
    await w.fill(w.a, here.va, pattern(9000, 2));
    await w.send(w.a, {
      opcode: IBV_WR_RDMA_WRITE,
      sgList: [sge(here.mr, here.va, 9000)],
      remoteAddr: va + 5,
      rkey: mr.rkey,
    });
    await w.send(w.a, { opcode: IBV_WR_RDMA_READ, sgList: [sge(here.mr, here.va, 1)], remoteAddr: va, rkey: mr.rkey });
    const seen = new Uint8Array(9000);
    await child.read(va + 5, seen);
    expect(firstDifference(seen, pattern(9000, 2))).toBe(-1);
    w.check();
  });
});

describe('advice', () => {
  const lkey = (mr: { lkey: number }, addr: number, length: number) => [{ addr, length, lkey: mr.lkey }];

  test('prefetch brings pages in, for reading or writing, and without a fault only what is there', async () => {
    await start();
    const { va, mr } = await w.region(w.b, 8);
    await w.fill(w.b, va, pattern(3 * PAGE_SIZE, 1));
    await w.b.pd.adviseMr(IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT, 0, lkey(mr, va, 8 * PAGE_SIZE));
    expect(mr.stats()).toMatchObject({ residentPages: 3, pagePrefetches: 3, pageFaults: 0 });
    await w.b.pd.adviseMr(IBV_ADVISE_MR_ADVICE_PREFETCH, IBV_ADVISE_MR_FLAG_FLUSH, lkey(mr, va, 6 * PAGE_SIZE));
    expect(mr.stats().residentPages).toBe(6);
    await w.b.pd.adviseMr(IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, IBV_ADVISE_MR_FLAG_FLUSH, lkey(mr, va, 8 * PAGE_SIZE));
    expect(mr.stats()).toMatchObject({ residentPages: 8, pageFaults: 0 });
    w.check();
  });

  test('what is swapped out comes back by it; bad advice is refused', async () => {
    await start();
    const { va, mr } = await w.region(w.b, 16);
    await w.fill(w.b, va, pattern(16 * PAGE_SIZE, 1));
    for (let n = 0; n < 40 && w.b.mm.residentPages > 0; n++) w.host.reclaim.shrink(true, true, true);
    await w.b.pd.adviseMr(IBV_ADVISE_MR_ADVICE_PREFETCH, IBV_ADVISE_MR_FLAG_FLUSH, lkey(mr, va, 16 * PAGE_SIZE));
    expect(mr.stats().residentPages).toBe(16);
    const advise = (list: ReturnType<typeof lkey>, advice = 0) => w.b.pd.adviseMr(advice as 0, 1, list);
    await expect(advise(lkey(mr, va, 17 * PAGE_SIZE))).rejects.toThrow(/EFAULT/);
    await expect(advise([{ addr: va, length: 1, lkey: 5 }])).rejects.toThrow(/ENOENT/);
    await expect(advise(lkey(mr, va, 1), 9)).rejects.toThrow(/EINVAL/);
    w.b.mm.munmap(va, PAGE_SIZE);
    await expect(advise(lkey(mr, va, 1))).rejects.toThrow(/EFAULT/);
    const pinned = await w.region(w.b, 1, ODP & ~64);
    await expect(advise(lkey(pinned.mr, pinned.va, 1))).rejects.toThrow(/EINVAL.*ON_DEMAND/);
  });
});
