import {
  checkHost,
  Host,
  MAP_ANONYMOUS,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  PROT_READ,
  PROT_WRITE,
} from '../../../src/mm/index.js';
import { nodeRdmaEnvironment } from '../../../src/node/index.js';
import {
  type CmId,
  type CompletionQueue,
  type Context,
  checkRdma,
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ACCESS_ON_DEMAND,
  IBV_ACCESS_REMOTE_ATOMIC,
  IBV_ACCESS_REMOTE_READ,
  IBV_ACCESS_REMOTE_WRITE,
  openDevice,
  type ProtectionDomain,
  type QueuePair,
  RDMA_CM_EVENT_CONNECT_REQUEST,
} from '../../../src/rdma/index.js';
import { BUFFERS_BYTES, HALF_BYTES, type Memory } from './layout.js';
import { Mayhem } from './mayhem.js';
import { Traffic, type TrafficCounts } from './traffic.js';

/**
 * One end of two that read, write and send into each other's memory while each takes its own away. Of the region, the first half is written by the peer alone (traffic.ts knows what
 * must be there), the second by its owner alone (mayhem.ts); buffers of requests and receives lie in demand paged memory too.
 */

/** A fifth of what is mapped. */
const FRAMES = 512;
const RIGHTS =
  IBV_ACCESS_LOCAL_WRITE |
  IBV_ACCESS_REMOTE_READ |
  IBV_ACCESS_REMOTE_WRITE |
  IBV_ACCESS_REMOTE_ATOMIC |
  IBV_ACCESS_ON_DEMAND;

export interface SoakResult extends TrafficCounts {
  readonly mismatches: number;
  readonly forks: number;
  readonly copies: number;
  readonly moves: number;
  readonly migrated: number;
  readonly swapInPages: number;
  readonly minorFaults: number;
  readonly majorFaults: number;
  readonly pageInvalidations: number;
  readonly copyWaits: number;
  readonly pinnedFrames: number;
  readonly poisoned: number;
}

export class Soak {
  readonly host: Host;
  readonly mm: Mm;
  readonly seed: number;
  private readonly context: Context;
  private readonly pd: ProtectionDomain;
  private readonly cq: CompletionQueue;
  private region!: Memory;
  private buffers!: Memory;
  private id!: CmId;
  private qp!: QueuePair;
  private peer!: { addr: number; rkey: number };

  private constructor(host: Host, seed: number) {
    this.host = host;
    this.seed = seed;
    this.mm = host.createMm({ name: 'soak' });
    this.context = openDevice(host, environment()).openContext(this.mm);
    this.pd = this.context.allocPd();
    this.cq = this.context.createCq(256);
  }

  static async open(seed: number): Promise<Soak> {
    const host = new Host({
      ...{ frames: FRAMES, arenaBytes: 2 ** 24, swap: new MemorySwap({ sizeBytes: 2 ** 27 }), debug: true },
      defer: (fn) => void setImmediate(fn),
    });
    const soak = new Soak(host, seed);
    soak.region = await soak.register(2 * HALF_BYTES);
    soak.buffers = await soak.register(BUFFERS_BYTES);
    return soak;
  }

  private async register(lenBytes: number): Promise<Memory> {
    const va = this.mm.mmap(0, lenBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    return { va, mr: await this.pd.regMr(va, lenBytes, RIGHTS) };
  }

  /** Waits for the other one. */
  async accept(onListening: (port: number) => void): Promise<void> {
    const listener = this.context.createId();
    await listener.bindAddr({ host: '127.0.0.1', port: 0 });
    await listener.listen();
    onListening(listener.localAddr!.port);
    for await (const { event, id, privateData } of listener.events) {
      if (event !== RDMA_CM_EVENT_CONNECT_REQUEST) continue;
      this.take(id, privateData);
      await id.accept({ privateData: this.own() });
      break;
    }
    listener.destroyId();
  }

  async connect(port: number): Promise<void> {
    const id = this.context.createId();
    await id.resolveAddr({ host: '127.0.0.1', port });
    this.take(id, undefined);
    const { privateData } = await id.connect({ privateData: this.own() });
    this.peer = JSON.parse(new TextDecoder().decode(privateData));
  }

  private take(id: CmId, privateData: Uint8Array | undefined): void {
    this.id = id;
    this.qp = id.createQp(this.pd, { sendCq: this.cq, recvCq: this.cq, cap: { maxSendWr: 64, maxRecvWr: 64 } });
    Traffic.postReceives(this.qp, this.buffers);
    if (privateData !== undefined) this.peer = JSON.parse(new TextDecoder().decode(privateData));
  }

  private own(): Uint8Array {
    return new TextEncoder().encode(JSON.stringify({ addr: this.region.va, rkey: this.region.mr.rkey }));
  }

  async run(ms: number): Promise<SoakResult> {
    const end = performance.now() + ms;
    const mayhem = new Mayhem(this.mm, this.region.va + HALF_BYTES, this.region.va, this.seed);
    const traffic = new Traffic(this.qp, this.cq, this.buffers, this.peer, this.seed);
    let done = false;
    const both = [traffic.run(end), mayhem.run(() => done)];
    await both[0];
    done = true;
    await Promise.all(both);
    const { device } = this.context;
    const { minorFaults, majorFaults, pageInvalidations, copyWaits } = device.stats();
    const { swapInPages, pinnedFrames, poisoned } = this.host.stats();
    return {
      ...traffic.counts,
      ...mayhem.counts,
      mismatches: traffic.mismatches + mayhem.mismatches,
      ...{ minorFaults, majorFaults, pageInvalidations, copyWaits, swapInPages },
      pinnedFrames: Math.max(pinnedFrames, mayhem.pinnedFrames),
      poisoned,
    };
  }

  async close(): Promise<void> {
    await this.id.disconnect();
    checkRdma(this.context);
    checkHost(this.host, this.context.device.stats().heldPages);
    await this.context.device.close();
    this.mm.exit();
    checkHost(this.host);
    await this.host.stop();
  }
}

/** This is a bundle beside its source; the thread's script is where it was built. */
function environment() {
  return nodeRdmaEnvironment({ nicWorker: new URL('../../../dist/node/nicworker.js', import.meta.url) });
}
