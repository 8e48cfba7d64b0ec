import { afterEach, expect, test } from 'vitest';
import { checkHost, MADV_PAGEOUT, MemorySwap, PAGE_SIZE } from '../../src/mm/index.js';
import type { DeviceImpl } from '../../src/rdma/device.js';
import {
  IBV_REREG_MR_CHANGE_TRANSLATION,
  IBV_SEND_SIGNALED,
  IBV_WC_SUCCESS,
  IBV_WR_ATOMIC_FETCH_AND_ADD,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  type MemoryRegion,
  type RdmaEnvironment,
  type SendWr,
  type Stream,
  type StreamNet,
} from '../../src/rdma/index.js';
import type { Mr } from '../../src/rdma/mr.js';
import { memoryNet } from './memorynet.js';
import { environment, firstDifference, pattern, RdmaWorld, sge } from './rdmaworld.js';

/** Faults of the network: that they get on, whatever is evicted meanwhile, and that a stream finds its pages there. */

let w: RdmaWorld;
afterEach(() => w.stop());

const start = async (options = {}): Promise<void> => {
  w = await RdmaWorld.create(options);
};

interface Served {
  readonly va: number;
  readonly mr: MemoryRegion;
}

/** A region of `b` with a pattern in it, all of it in the swap device. */
async function swappedOut(nrPages: number, seed = 1): Promise<Served> {
  const served = await w.region(w.b, nrPages);
  await w.fill(w.b, served.va, pattern(nrPages * PAGE_SIZE, seed));
  await evict(served.va, nrPages);
  return served;
}

async function evict(va: number, nrPages: number): Promise<void> {
  while (w.b.mm.pagemap(va, nrPages).some(({ present }) => present)) {
    w.b.mm.madvise(va, nrPages * PAGE_SIZE, MADV_PAGEOUT);
    await w.host.writeback.drain();
  }
}

async function read(here: Served, there: Served, at: number, length: number): Promise<Uint8Array> {
  const sgList = [sge(here.mr, here.va, length)];
  const to = { remoteAddr: there.va + at, rkey: there.mr.rkey };
  expect((await w.send(w.a, { opcode: IBV_WR_RDMA_READ, sgList, ...to })).status).toBe(IBV_WC_SUCCESS);
  return w.bytes(w.a, here.va, length);
}

/** Drives out what he can whenever a message goes from one half of the device to the other. */
class Adversary {
  readonly env: RdmaEnvironment;
  private left = 0;
  private drive = (): void => {};

  constructor() {
    const env = environment('memory');
    const defer = (fn: () => void): void =>
      env.defer(() => {
        if (this.left-- > 0) this.drive();
        fn();
      });
    this.env = { ...env, defer };
  }

  begin(nrTimes: number, drive: () => void): void {
    this.left = nrTimes;
    this.drive = drive;
  }
}

for (const [name, opcode, length] of [
  ['READ', IBV_WR_RDMA_READ, 3 * PAGE_SIZE],
  ['WRITE', IBV_WR_RDMA_WRITE, 3 * PAGE_SIZE],
  ['an atomic', IBV_WR_ATOMIC_FETCH_AND_ADD, 8],
] as const)
  test(`N26: ${name} gets on while every page is driven out before the NIC hears that it is there`, async () => {
    const adversary = new Adversary();
    await start({ env: adversary.env });
    const here = await w.region(w.a, 4);
    await w.fill(w.a, here.va, pattern(4 * PAGE_SIZE, 2));
    const there = await swappedOut(4);
    let nrDriven = 0;
    adversary.begin(500, () => {
      nrDriven++;
      w.b.mm.madvise(there.va, 4 * PAGE_SIZE, MADV_PAGEOUT);
      w.host.reclaim.shrink(true, true, true);
    });
    const sgList = [sge(here.mr, here.va, length)];
    const wr: Omit<SendWr, 'wrId'> = { opcode, sgList, remoteAddr: there.va, rkey: there.mr.rkey, compareAdd: 1n };
    expect((await w.send(w.a, wr)).status).toBe(IBV_WC_SUCCESS);
    // Behind a WRITE, so that it has arrived.
    expect((await w.send(w.a, { ...wr, opcode: IBV_WR_RDMA_READ })).status).toBe(IBV_WC_SUCCESS);
    expect(nrDriven).toBeLessThan(500);
    adversary.begin(0, () => {});
    w.check();
  });

test('N26: more faults at once than pages may be held in a small host: each has its turn', async () => {
  await start({ frames: 64, device: { bufferBytes: 32768 } });
  const there = await swappedOut(48);
  const here = await w.region(w.a, 2);
  const ends = [w.a];
  for (let k = 0; k < 7; k++) {
    const before = { a: { ...w.a }, b: { ...w.b } };
    await w.connect();
    ends.push({ ...w.a });
    Object.assign(w, { a: before.a, b: before.b });
  }
  const sgList = [sge(here.mr, here.va, 8)];
  for (const [k, end] of ends.entries())
    for (let page = k; page < 48; page += 8) {
      const to = { remoteAddr: there.va + page * PAGE_SIZE, rkey: there.mr.rkey };
      end.qp.postSend({ wrId: page, opcode: IBV_WR_RDMA_READ, sgList, sendFlags: IBV_SEND_SIGNALED, ...to });
    }
  const all = await w.nextOf(w.a, 48);
  expect(all.map(({ status }) => status)).toEqual(Array(48).fill(IBV_WC_SUCCESS));
  await w.turns(10);
  expect(w.device.stats().heldPages).toBe(0);
  w.check();
});

test('N25 N26: what a NIC that is killed was about to copy is let go', async () => {
  await start({ transport: 'tcp' });
  const there = await swappedOut(4);
  const here = await w.region(w.a, 4);
  const device = w.device as DeviceImpl;
  // As if it were killed before it could say that it had its turn.
  device.faults.used = () => {};
  await read(here, there, 0, PAGE_SIZE);
  expect(device.stats().heldPages).toBeGreaterThan(0);
  Reflect.deleteProperty(device.faults, 'used');
  await device.link.kill();
  expect(device.stats().heldPages).toBe(0);
  checkHost(w.host);
});

test('a stream of READs finds its pages: few faults wait, and each page is read from swap once', async () => {
  await start({ frames: 2048 });
  const NR = 1024;
  const there = await swappedOut(NR);
  const here = await w.region(w.a, 16);
  const wanted = pattern(NR * PAGE_SIZE, 1);
  const before = w.host.vmstat.pswpin;
  for (let at = 0; at < NR * PAGE_SIZE; at += 16 * PAGE_SIZE) {
    const seen = await read(here, there, at, 16 * PAGE_SIZE);
    expect(firstDifference(seen, wanted.subarray(at, at + 16 * PAGE_SIZE))).toBe(-1);
  }
  expect(w.host.vmstat.pswpin - before).toBe(NR);
  // Two until it is known for a stream; without a mark each window would be one more.
  expect(w.device.stats().majorFaults).toBeLessThan(6);
  w.check();
});

test('a stream over four times the frames: its windows do not drive each other out', async () => {
  await start({ frames: 256, host: { swap: new MemorySwap({ sizeBytes: 2 ** 24 }) } });
  const NR = 1024;
  const there = await w.region(w.b, NR);
  const wanted = pattern(NR * PAGE_SIZE, 5);
  for (let at = 0; at < wanted.length; at += 65536) await w.fill(w.b, there.va + at, wanted.subarray(at, at + 65536));
  const here = await w.region(w.a, 16);
  const before = w.host.vmstat.pswpin;
  for (let at = 0; at < wanted.length; at += 65536) {
    const seen = await read(here, there, at, 65536);
    expect(firstDifference(seen, wanted.subarray(at, at + 65536))).toBe(-1);
  }
  expect(w.host.vmstat.pswpin - before).toBeLessThan(NR * 1.1);
  w.check();
});

test('N26: where neither a frame nor a slot is left, this end says so, and the peer hears that it was not its fault', async () => {
  const swap = new MemorySwap({ sizeBytes: 64 * PAGE_SIZE });
  await start({ frames: 128, host: { swap, oom: 'refuse', overcommit: 'always' } });
  const there = await w.region(w.b, 512);
  const here = await w.region(w.a, 16);
  await w.fill(w.a, here.va, pattern(16 * PAGE_SIZE, 1));
  const sgList = [sge(here.mr, here.va, 16 * PAGE_SIZE)];
  let status: number = IBV_WC_SUCCESS;
  for (let at = 0; at < 512 && status === IBV_WC_SUCCESS; at += 16) {
    const to = { remoteAddr: there.va + at * PAGE_SIZE, rkey: there.mr.rkey };
    status = (await w.send(w.a, { opcode: IBV_WR_RDMA_WRITE, sgList, ...to })).status;
  }
  expect(status).not.toBe(IBV_WC_SUCCESS);
  expect(w.b.qp.reason).toMatch(/^RDMAP: local catastrophic error \(0x0000\): ENOMEM: .* of 64 swap slots 0 are free/);
  expect(w.a.qp.reason).toBe('the peer has ended the connection: RDMAP: local catastrophic error (0x0000)');
});

test('a page that was damaged in swap ends the connection as that, the second time too', async () => {
  const swap = new GatedSwap({ sizeBytes: 2 ** 24 });
  await start({ host: { swap } });
  const there = await swappedOut(1);
  const here = await w.region(w.a, 1);
  swap.writeSync([0], [new Uint8Array(PAGE_SIZE)]);
  const to = { remoteAddr: there.va, rkey: there.mr.rkey };
  for (let k = 0; k < 2; k++) {
    if (k > 0) await w.connect();
    await w.send(w.a, { opcode: IBV_WR_RDMA_READ, sgList: [sge(here.mr, here.va, 8)], ...to });
    expect(w.b.qp.reason).toMatch(/^RDMAP: local catastrophic error \(0x0000\): EHWPOISON: .* was damaged in swap/);
  }
});

/** Reads wait until they are let go. */
class GatedSwap extends MemorySwap {
  private open: () => void = () => {};
  private gate: Promise<void> | undefined;

  close_(): void {
    this.gate = new Promise((resolve) => {
      this.open = resolve;
    });
  }

  letGo(): void {
    this.gate = undefined;
    this.open();
  }

  override async read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    await this.gate;
    this.readSync(slots, frames);
  }
}

test('a fault that waits while its region becomes a smaller one writes no entry behind the new table', async () => {
  const swap = new GatedSwap({ sizeBytes: 2 ** 24 });
  await start({ host: { swap } });
  const there = await swappedOut(16);
  const here = await w.region(w.a, 1);
  swap.close_();
  const to = { remoteAddr: there.va + 9 * PAGE_SIZE, rkey: there.mr.rkey };
  const failing = w.send(w.a, { opcode: IBV_WR_RDMA_READ, sgList: [sge(here.mr, here.va, 8)], ...to });
  while (w.device.stats().heldPages + w.host.swapIn.nrReads === 0) await w.turn();
  await there.mr.reregMr(IBV_REREG_MR_CHANGE_TRANSLATION, { addr: there.va, length: PAGE_SIZE });
  const [region] = (there.mr as Mr).liveRegions();
  const behind = () => Array.from({ length: 15 }, (_, k) => region!.words.readOnce(region!.entryWord(k + 1)));
  const before = behind();
  swap.letGo();
  expect((await failing).status).not.toBe(IBV_WC_SUCCESS);
  await w.turns(10);
  expect(behind()).toEqual(before);
  w.check();
});

/** TCP that takes at once whatever it is given; the most that it was given in one turn of the event loop. */
class TakesAll {
  mostInTurn = 0;
  total = 0;
  private inTurn = 0;
  readonly net: StreamNet;

  constructor() {
    const net = memoryNet();
    this.net = {
      connect: (addr, handler) => this.eager(net.connect(addr, handler)),
      listen: (addr, backlog, onStream) => net.listen(addr, backlog, (stream) => onStream(this.eager(stream))),
    };
  }

  private eager(stream: Stream): Stream {
    const write = stream.write.bind(stream);
    stream.write = (bytes) => {
      this.note(bytes.length);
      write(Uint8Array.from(bytes), () => {});
      return true;
    };
    return stream;
  }

  private note(nrBytes: number): void {
    if (this.inTurn === 0) setImmediate(() => (this.inTurn = 0));
    this.inTurn += nrBytes;
    this.total += nrBytes;
    this.mostInTurn = Math.max(this.mostInTurn, this.inTurn);
  }
}

test('a sender whose bytes are taken at once lets others have their turn after 4 MiB and a buffer', async () => {
  const tcp = new TakesAll();
  await start({ net: tcp.net, frames: 1024 });
  const [nrRequests, nrPages] = [12, 256];
  const [here, there] = [await w.region(w.a, nrPages), await w.region(w.b, nrPages)];
  await w.fill(w.a, here.va, pattern(nrPages * PAGE_SIZE, 1));
  const sgList = [sge(here.mr, here.va, nrPages * PAGE_SIZE)];
  const to = { opcode: IBV_WR_RDMA_WRITE, remoteAddr: there.va, rkey: there.mr.rkey, sgList } as const;
  for (let wrId = 0; wrId < nrRequests; wrId++)
    w.a.qp.postSend({ ...to, wrId, sendFlags: wrId === nrRequests - 1 ? IBV_SEND_SIGNALED : 0 });
  expect((await w.next(w.a)).status).toBe(IBV_WC_SUCCESS);
  expect(tcp.total).toBeGreaterThan(nrRequests * nrPages * PAGE_SIZE);
  expect(tcp.mostInTurn).toBeGreaterThan(4 * 2 ** 20);
  expect(tcp.mostInTurn).toBeLessThanOrEqual(5 * 2 ** 20);
});
