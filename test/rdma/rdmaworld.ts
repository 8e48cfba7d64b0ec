import { randomFillSync } from 'node:crypto';
import {
  checkHost,
  Host,
  type HostOptions,
  MAP_ANONYMOUS,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  PAGE_SIZE,
  PROT_READ,
  PROT_WRITE,
} from '../../src/mm/index.js';
import { nodeRdmaEnvironment } from '../../src/node/index.js';
import {
  type CmId,
  type CompletionQueue,
  type ConnParam,
  type Context,
  checkRdma,
  type Device,
  type DeviceOptions,
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ACCESS_ON_DEMAND,
  IBV_ACCESS_REMOTE_ATOMIC,
  IBV_ACCESS_REMOTE_READ,
  IBV_ACCESS_REMOTE_WRITE,
  IBV_SEND_INLINE,
  IBV_SEND_SIGNALED,
  IBV_WR_SEND,
  type MemoryRegion,
  openDevice,
  type ProtectionDomain,
  type QpInitAttr,
  type QueuePair,
  RDMA_CM_EVENT_CONNECT_REQUEST,
  type RdmaEnvironment,
  type SendWr,
  type Sge,
  type WorkCompletion,
} from '../../src/rdma/index.js';
import { memoryNet } from './memorynet.js';

/**
 * Two ends in one process: a NIC, or two, a context with an mm for each end, and a connection between queue pairs. The transport is this thread's memory, or real TCP with each NIC in a
 * worker of its own.
 */

export const ALL = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
export const ODP = ALL | IBV_ACCESS_ON_DEMAND;
export const RW = PROT_READ | PROT_WRITE;

export type Transport = 'memory' | 'tcp';

/** The worker's script as it was built: vitest runs the sources. */
export const NIC_WORKER = new URL('../../dist/node/nicworker.js', import.meta.url);

export function environment(transport: Transport, net?: RdmaEnvironment['net']): RdmaEnvironment {
  const env = nodeRdmaEnvironment({ nicWorker: NIC_WORKER });
  if (transport === 'tcp') return env;
  const { startNicThread: _, ...rest } = env;
  return { ...rest, randomFill: (bytes) => void randomFillSync(bytes), net: net ?? memoryNet() };
}

export interface End {
  readonly mm: Mm;
  readonly context: Context;
  readonly pd: ProtectionDomain;
  readonly cq: CompletionQueue;
  qp: QueuePair;
  id: CmId;
}

export interface WorldOptions {
  readonly transport?: Transport;
  readonly frames?: number;
  readonly host?: Partial<HostOptions>;
  readonly device?: DeviceOptions;
  readonly net?: RdmaEnvironment['net'];
  readonly setTimer?: RdmaEnvironment['setTimer'];
  /** Instead of the transport's. */
  readonly env?: RdmaEnvironment;
  readonly attr?: Partial<QpInitAttr>;
  readonly params?: [ConnParam, ConnParam];
}

export class RdmaWorld {
  readonly host: Host;
  readonly device: Device;
  readonly env: RdmaEnvironment;
  a!: End;
  b!: End;
  private nextWrId = 1;

  private constructor(options: WorldOptions) {
    const { transport = 'memory', frames = 512 } = options;
    this.host = new Host({
      frames,
      arenaBytes: 8 * 2 ** 20,
      defer: (fn) => void setImmediate(fn),
      swap: new MemorySwap({ sizeBytes: 2 ** 24 }),
      debug: true,
      ...options.host,
    });
    const { setTimer, env = environment(transport, options.net) } = options;
    this.env = { ...env, ...(setTimer && { setTimer }) };
    this.device = openDevice(this.host, this.env, options.device);
  }

  static async create(options: WorldOptions = {}): Promise<RdmaWorld> {
    const world = new RdmaWorld(options);
    world.a = world.end('a');
    world.b = world.end('b');
    await world.connect(options.attr, options.params);
    return world;
  }

  private end(name: string): End {
    const mm = this.host.createMm({ name });
    const context = this.device.openContext(mm);
    const pd = context.allocPd();
    const cq = context.createCq(256);
    return { mm, context, pd, cq, qp: undefined as unknown as QueuePair, id: undefined as unknown as CmId };
  }

  /** Connects new queue pairs, `a` to `b`. */
  async connect(attr: Partial<QpInitAttr> = {}, params: [ConnParam, ConnParam] = [{}, {}]): Promise<void> {
    const { a, b } = this;
    const listener = b.context.createId();
    await listener.bindAddr({ host: '127.0.0.1', port: 0 });
    await listener.listen();
    a.id = a.context.createId();
    await a.id.resolveAddr({ host: '127.0.0.1', port: listener.localAddr!.port });
    a.qp = a.id.createQp(a.pd, { sendCq: a.cq, recvCq: a.cq, ...attr, ...(attr.srq && { srq: undefined as never }) });
    const connecting = a.id.connect(params[0]);
    for await (const event of listener.events) {
      if (event.event !== RDMA_CM_EVENT_CONNECT_REQUEST) continue;
      b.id = event.id;
      b.qp = b.id.createQp(b.pd, { sendCq: b.cq, recvCq: b.cq, ...attr });
      await b.id.accept(params[1]);
      break;
    }
    await connecting;
    listener.destroyId();
  }

  mmap(end: End, nrPages: number): number {
    return end.mm.mmap(0, nrPages * PAGE_SIZE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  }

  /** Memory of `nrPages` with a region over it. */
  async region(end: End, nrPages: number, access = ODP): Promise<{ va: number; mr: MemoryRegion }> {
    const va = this.mmap(end, nrPages);
    return { va, mr: await end.pd.regMr(va, nrPages * PAGE_SIZE, access) };
  }

  fill(end: End, va: number, bytes: Uint8Array): Promise<void> {
    return end.mm.write(va, bytes);
  }

  async bytes(end: End, va: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    await end.mm.read(va, bytes);
    return bytes;
  }

  /** Posts one request and waits for its completion. */
  async send(end: End, wr: Omit<SendWr, 'wrId'>): Promise<WorkCompletion> {
    const wrId = this.nextWrId++;
    end.qp.postSend({ ...wr, wrId, sendFlags: (wr.sendFlags ?? 0) | IBV_SEND_SIGNALED });
    const wc = await this.next(end);
    if (wc.wrId !== wrId) throw new Error(`completion of ${wc.wrId}, not of ${wrId}`);
    return wc;
  }

  recv(end: End, sgList: readonly Sge[]): number {
    const wrId = this.nextWrId++;
    end.qp.postRecv({ wrId, sgList });
    return wrId;
  }

  /** The next completion. */
  async next(end: End): Promise<WorkCompletion> {
    for await (const wc of end.cq) return wc;
    throw new Error('the queue has ended');
  }

  async nextOf(end: End, nr: number): Promise<WorkCompletion[]> {
    const all: WorkCompletion[] = [];
    for await (const wc of end.cq) if (all.push(wc) === nr) break;
    return all;
  }

  check(): void {
    for (const { context } of [this.a, this.b]) checkRdma(context);
    checkHost(this.host, this.device.stats().heldPages);
  }

  turn(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }

  async turns(nr: number): Promise<void> {
    for (let n = 0; n < nr; n++) await this.turn();
  }

  async stop(): Promise<void> {
    await this.device.close();
    for (const mm of [...this.host.mms]) mm.exit();
    checkHost(this.host);
    await this.host.stop();
  }
}

export function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (seed + i * 7 + (i >> 8) * 13) & 0xff);
}

/** Where two arrays differ first; -1: nowhere. WHY: `toEqual` takes a second for 100 KB. */
export function firstDifference(seen: Uint8Array, wanted: Uint8Array): number {
  if (seen.length === wanted.length && Buffer.compare(seen, wanted) === 0) return -1;
  const i = wanted.findIndex((byte, k) => seen[k] !== byte);
  return i < 0 ? wanted.length : i;
}

export const sge = (mr: MemoryRegion, addr: number, length: number): Sge => ({ addr, length, lkey: mr.lkey });

/** A SEND of bytes that follow from `wrId`, which are in the request itself. */
export const inlineSend = (wrId: number, sendFlags = 0, length = 4): SendWr => ({
  ...{ wrId, opcode: IBV_WR_SEND, sendFlags: sendFlags | IBV_SEND_INLINE, inlineData: pattern(length, wrId) },
});
