import type { ConformanceAdapter, ConformanceInstance } from '../../src/conformance/index.js';
import { Host, MAP_ANONYMOUS, MAP_PRIVATE, type Mm, PAGE_SIZE, PROT_READ, PROT_WRITE } from '../../src/mm/index.js';
import {
  type CmId,
  type CompletionQueue,
  type Context,
  type Device,
  IBV_ACCESS_LOCAL_WRITE,
  IBV_SEND_INLINE,
  IBV_SEND_SIGNALED,
  IBV_WC_SUCCESS,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  type MemoryRegion,
  openDevice,
  type ProtectionDomain,
  type SendWr,
} from '../../src/rdma/index.js';
import { environment, ODP, type Transport } from '../rdma/rdmaworld.js';

/**
 * rdma as the conformance suite sees it: a region over the subject's pages, and a peer that reads and writes it by one-byte READs and WRITEs. A refusal
 * ends the connection, as it must: the next access has a new one.
 */
function rdmaAdapter(
  name: string,
  transport: Transport,
  hostOptions: ConformanceAdapter['hostOptions'],
): ConformanceAdapter {
  return {
    name,
    young: true,
    hostOptions: { arenaBytes: 8 * 2 ** 20, ...hostOptions },
    create: (mm, va, lenBytes) => Instance.create(transport, mm, va, lenBytes),
  };
}

export const rdma = rdmaAdapter('rdma', 'memory', { defer: (fn) => setImmediate(fn) });
/** Turns are as long as a crossing may take. */
export const rdmaThread = rdmaAdapter('rdma, the NIC in a thread', 'tcp', { defer: (fn) => setTimeout(fn, 1) });

class Instance implements ConformanceInstance {
  private readonly device: Device;
  private readonly context: Context;
  /** The peer has a host and a NIC of its own. */
  private readonly peerHost: Host;
  private readonly peerDevice: Device;
  private readonly sinkMm: Mm;
  private readonly peer: Context;
  private pd!: ProtectionDomain;
  private peerPd!: ProtectionDomain;
  private cq!: CompletionQueue;
  private peerCq!: CompletionQueue;
  private region!: MemoryRegion;
  private sink!: MemoryRegion;
  private listener!: CmId;
  private id: CmId | undefined;
  private other: CmId | undefined;
  private ended = false;
  private tail: Promise<unknown> = Promise.resolve();

  private constructor(transport: Transport, mm: Mm) {
    const env = environment(transport);
    this.device = openDevice(mm.host, env, { maxMr: 16, bufferBytes: 32768 });
    this.context = this.device.openContext(mm);
    this.peerHost = new Host({ frames: 64, arenaBytes: 2 ** 20, defer: (fn) => void setImmediate(fn) });
    this.peerDevice = openDevice(this.peerHost, env, { maxMr: 1, bufferBytes: 32768, thread: false });
    this.sinkMm = this.peerHost.createMm({ name: 'sink' });
    this.peer = this.peerDevice.openContext(this.sinkMm);
  }

  static async create(transport: Transport, mm: Mm, va: number, lenBytes: number): Promise<Instance> {
    const instance = new Instance(transport, mm);
    await instance.register(va, lenBytes);
    return instance;
  }

  private async register(va: number, lenBytes: number): Promise<void> {
    this.pd = this.context.allocPd();
    this.peerPd = this.peer.allocPd();
    this.cq = this.context.createCq(16);
    this.peerCq = this.peer.createCq(16);
    this.region = await this.pd.regMr(va, lenBytes, ODP);
    const sinkVa = this.sinkMm.mmap(0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    this.sink = await this.peerPd.regMr(sinkVa, PAGE_SIZE, IBV_ACCESS_LOCAL_WRITE);
    this.listener = this.context.createId();
    await this.listener.bindAddr({ host: '127.0.0.1', port: 0 });
    await this.listener.listen();
  }

  private async connect(): Promise<CmId> {
    this.drop();
    const id = (this.id = this.peer.createId());
    await id.resolveAddr({ host: '127.0.0.1', port: this.listener.localAddr!.port });
    id.createQp(this.peerPd, { sendCq: this.peerCq, recvCq: this.peerCq });
    const connecting = id.connect();
    connecting.catch(() => {});
    for await (const event of this.listener.events) {
      this.other = event.id;
      event.id.createQp(this.pd, { sendCq: this.cq, recvCq: this.cq });
      await event.id.accept();
      break;
    }
    await connecting;
    return id;
  }

  private drop(): void {
    for (const id of [this.id, this.other]) {
      id?.qp?.destroyQp();
      id?.destroyId();
    }
    this.id = this.other = undefined;
    this.cq.pollCq(16);
  }

  private run(wr: Omit<SendWr, 'wrId'>): Promise<void> {
    const access = this.tail.catch(() => {}).then(() => this.runNow(wr));
    this.tail = access;
    return access;
  }

  private async runNow(wr: Omit<SendWr, 'wrId'>): Promise<void> {
    if (this.ended) throw new Error('the instance is destroyed');
    const id = this.id ?? (await this.connect());
    id.qp!.postSend({ ...wr, wrId: 1, sendFlags: (wr.sendFlags ?? 0) | IBV_SEND_SIGNALED });
    for await (const { status } of this.peerCq) {
      if (status === IBV_WC_SUCCESS) return;
      this.drop();
      throw new Error(`status ${status}`);
    }
    throw new Error('the instance is destroyed');
  }

  async load(va: number): Promise<number> {
    const sgList = [{ addr: this.sink.addr, length: 1, lkey: this.sink.lkey }];
    await this.run({ opcode: IBV_WR_RDMA_READ, sgList, remoteAddr: va, rkey: this.region.rkey });
    const byte = new Uint8Array(1);
    this.sinkMm.readSync(this.sink.addr, byte);
    return byte[0]!;
  }

  /** A WRITE is complete when it is sent: a READ behind it shows that it has arrived. */
  async store(va: number, value: number): Promise<void> {
    const inlineData = new Uint8Array([value]);
    await this.run({
      opcode: IBV_WR_RDMA_WRITE,
      sendFlags: IBV_SEND_INLINE,
      inlineData,
      remoteAddr: va,
      rkey: this.region.rkey,
    });
    await this.load(va);
  }

  async destroy(): Promise<void> {
    if (this.ended) return;
    this.ended = true;
    await this.device.close();
    await this.peerDevice.close();
    this.sinkMm.exit();
    await this.peerHost.stop();
  }
}
