import { checkHost, Host, MemorySwap, MREMAP_FIXED, MREMAP_MAYMOVE, PAGE_SIZE } from '../../src/mm/index.js';
import {
  checkRdma,
  type Device,
  IBV_WC_SUCCESS,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  IBV_WR_SEND,
  type MemoryRegion,
  openDevice,
  RDMA_CM_EVENT_CONNECT_REQUEST,
} from '../../src/rdma/index.js';
import { environment, firstDifference, ODP, RW, sge } from './rdmaworld.js';

/**
 * Random WRITEs, READs and SENDs between two hosts, each with a NIC in a worker and few frames, while on both sides everything happens to the memory that can: reclaim, fork and
 * copy-on-write, migration, pages moved away and back. Every byte is compared with a plain array. The same seed does the same operations; how they meet is the threads' affair.
 */
export interface StressOptions {
  readonly seed: number;
  /** Operations, or milliseconds of them. */
  readonly nrOps?: number;
  readonly ms?: number;
  readonly nrPages?: number;
  readonly frames?: number;
}

export interface StressResult {
  readonly nrOps: number;
  readonly bytes: number;
  readonly copyWaits: number;
  readonly invalidations: number;
}

function generator(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

const ANON = 0x4022;

class Side {
  readonly host: Host;
  readonly device: Device;
  readonly mm;
  readonly context;
  readonly pd;
  readonly cq;
  readonly va: number;
  readonly nrPages: number;
  mr!: MemoryRegion;

  constructor(nrPages: number, frames: number) {
    const swap = new MemorySwap({ sizeBytes: 4 * nrPages * PAGE_SIZE });
    this.host = new Host({ frames, swap, debug: true, arenaBytes: 4 * 2 ** 20, defer: (fn) => void setImmediate(fn) });
    this.device = openDevice(this.host, environment('tcp'));
    this.mm = this.host.createMm();
    this.context = this.device.openContext(this.mm);
    this.pd = this.context.allocPd();
    this.cq = this.context.createCq(64);
    this.nrPages = nrPages;
    this.va = this.mm.mmap(0, nrPages * PAGE_SIZE, RW, ANON);
  }

  /** One thing that may happen to memory at any time. */
  disturb(next: (n: number) => number): void {
    const { host, mm, va, nrPages } = this;
    const kind = next(10);
    if (kind < 5) host.reclaim.shrink(next(2) === 0, true, next(2) === 0);
    else if (kind === 5) host.compact();
    else if (kind < 8) {
      for (const other of [...host.mms]) if (other !== mm) other.exit();
      if (kind === 7) mm.fork();
    } else {
      // Away, and back at once: nobody may look there meanwhile, and every entry is gone.
      const page = next(nrPages - 4);
      const [from, to] = [va + page * PAGE_SIZE, 2 ** 36];
      mm.mremap(from, 2 * PAGE_SIZE, 2 * PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
      mm.mremap(to, 2 * PAGE_SIZE, 2 * PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, from);
    }
  }

  check(): void {
    checkRdma(this.context);
    checkHost(this.host, this.device.stats().heldPages);
    for (const sub of this.mm.notifiers.all()) if (sub.poisoned !== undefined) throw new Error(sub.poisoned);
  }

  async stop(): Promise<void> {
    await this.device.close();
    for (const mm of [...this.host.mms]) mm.exit();
    checkHost(this.host);
    await this.host.stop();
  }
}

export async function stress(options: StressOptions): Promise<StressResult> {
  const {
    seed,
    nrOps = Number.POSITIVE_INFINITY,
    ms = Number.POSITIVE_INFINITY,
    nrPages = 400,
    frames = 256,
  } = options;
  const next = generator(seed);
  const [a, b] = [new Side(nrPages, frames), new Side(nrPages, frames)];
  for (const side of [a, b]) side.mr = await side.pd.regMr(side.va, nrPages * PAGE_SIZE, ODP);
  const [qpA, qpB] = await connect(a, b);
  const [seenA, seenB] = [new Uint8Array(nrPages * PAGE_SIZE), new Uint8Array(nrPages * PAGE_SIZE)];
  const complete = async (side: Side): Promise<void> => {
    for await (const { status } of side.cq) {
      if (status !== IBV_WC_SUCCESS) throw new Error(`status ${status}: ${qpA.reason ?? qpB.reason}`);
      return;
    }
  };
  const deadline = performance.now() + ms;
  const disturb = generator(seed ^ 0x5555);
  let running = true;
  const disturbing = (async () => {
    for (; running; await new Promise(setImmediate)) (disturb(2) === 0 ? a : b).disturb(disturb);
  })();
  let [ops, bytes] = [0, 0];
  try {
    for (; ops < nrOps && performance.now() < deadline; ops++) {
      const length = 1 + next(next(4) === 0 ? 300_000 : 9000);
      const [at, to] = [next(seenA.length - length), next(seenB.length - length)];
      const fresh = Uint8Array.from({ length: Math.min(length, 64) }, () => next(256));
      await a.mm.write(a.va + at, fresh);
      seenA.set(fresh, at);
      const wr = {
        wrId: ops,
        sendFlags: 2,
        sgList: [sge(a.mr, a.va + at, length)],
        remoteAddr: b.va + to,
        rkey: b.mr.rkey,
      };
      const kind = next(3);
      if (kind === 0) {
        qpA.postSend({ ...wr, opcode: IBV_WR_RDMA_WRITE });
        seenB.set(seenA.subarray(at, at + length), to);
      } else if (kind === 1) {
        qpA.postSend({ ...wr, opcode: IBV_WR_RDMA_READ });
        seenA.set(seenB.subarray(to, to + length), at);
      } else {
        qpB.postRecv({ wrId: ops, sgList: [sge(b.mr, b.va + to, length)] });
        qpA.postSend({ ...wr, opcode: IBV_WR_SEND });
        seenB.set(seenA.subarray(at, at + length), to);
        await complete(b);
      }
      await complete(a);
      bytes += length;
      if (ops % 16 === 15) await compare(a, seenA, b, seenB, next, complete, qpA);
    }
  } finally {
    running = false;
    await disturbing;
  }
  await compare(a, seenA, b, seenB, next, complete, qpA);
  for (const side of [a, b]) side.check();
  const [x, y] = [a.device.stats(), b.device.stats()];
  await a.stop();
  await b.stop();
  return {
    nrOps: ops,
    bytes,
    copyWaits: x.copyWaits + y.copyWaits,
    invalidations: x.pageInvalidations + y.pageInvalidations,
  };
}

/** All of both sides, when what was sent has arrived: a READ behind it shows that. */
async function compare(
  a: Side,
  seenA: Uint8Array,
  b: Side,
  seenB: Uint8Array,
  next: (n: number) => number,
  complete: (side: Side) => Promise<void>,
  qp: { postSend(wr: never): void },
): Promise<void> {
  const at = next(seenA.length);
  const read = {
    wrId: 0,
    sendFlags: 2,
    opcode: IBV_WR_RDMA_READ,
    sgList: [sge(a.mr, a.va + at, 1)],
    remoteAddr: b.va + at,
    rkey: b.mr.rkey,
  };
  qp.postSend(read as never);
  seenA[at] = seenB[at]!;
  await complete(a);
  for (const [side, seen, name] of [
    [a, seenA, 'a'],
    [b, seenB, 'b'],
  ] as const) {
    const bytes = new Uint8Array(seen.length);
    await side.mm.read(side.va, bytes);
    const i = firstDifference(bytes, seen);
    if (i >= 0) throw new Error(`byte ${i} of ${name} is ${bytes[i]}, not ${seen[i]}`);
    if (side.host.stats().pinnedFrames > 0) throw new Error('S11: frames are pinned');
  }
}

async function connect(a: Side, b: Side) {
  const listener = b.context.createId();
  await listener.bindAddr({ host: '127.0.0.1', port: 0 });
  await listener.listen();
  const id = a.context.createId();
  await id.resolveAddr({ port: listener.localAddr!.port });
  const qpA = id.createQp(a.pd, { sendCq: a.cq, recvCq: a.cq });
  const connecting = id.connect();
  for await (const event of listener.events) {
    if (event.event !== RDMA_CM_EVENT_CONNECT_REQUEST) continue;
    const qpB = event.id.createQp(b.pd, { sendCq: b.cq, recvCq: b.cq });
    await event.id.accept();
    await connecting;
    return [qpA, qpB] as const;
  }
  throw new Error('nobody has asked');
}
