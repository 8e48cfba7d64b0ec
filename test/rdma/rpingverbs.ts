import { Host, MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE, MemorySwap, type Mm, PAGE_SIZE } from '../../src/mm/index.js';
import {
  type CmId,
  type CompletionQueue,
  type Context,
  type Device,
  IBV_SEND_SIGNALED,
  IBV_WC_SUCCESS,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  IBV_WR_SEND,
  type MemoryRegion,
  openDevice,
  type ProtectionDomain,
  type SendWr,
  type WorkCompletion,
} from '../../src/rdma/index.js';
import { environment, ODP, RW } from './rdmaworld.js';

/**
 * rping over `unpin/rdma`: its protocol (test/rdma/wire/rping.ts tells it) with verbs, on registered memory that is demand paged. Between rounds
 * a hog takes all frames, so that each round finds its buffers in swap.
 */

const INFO_BYTES = 16;
const FRAMES = 96;
const RECV = 1000;

export class RpingVerbs {
  readonly device: Device;
  /** Bytes of buffers; a page for what is sent, and one for what is received. */
  readonly size: number;
  private readonly host: Host;
  private readonly mm: Mm;
  private readonly context: Context;
  private readonly pd: ProtectionDomain;
  private readonly cq: CompletionQueue;
  private mr!: MemoryRegion;
  private va = 0;
  private hog = 0;
  private id!: CmId;
  private readonly early: WorkCompletion[] = [];

  private constructor(size: number) {
    const swap = new MemorySwap({ sizeBytes: 2 ** 23 });
    const defer = (fn: () => void) => void setImmediate(fn);
    this.size = size;
    this.host = new Host({ frames: FRAMES, arenaBytes: 8 * 2 ** 20, defer, swap });
    this.device = openDevice(this.host, environment('tcp'));
    this.mm = this.host.createMm({ name: 'rping' });
    this.context = this.device.openContext(this.mm);
    this.pd = this.context.allocPd();
    this.cq = this.context.createCq(64);
  }

  static async create(size: number): Promise<RpingVerbs> {
    const end = new RpingVerbs(size);
    const lenBytes = 2 * PAGE_SIZE + 2 * Math.ceil(size / PAGE_SIZE) * PAGE_SIZE;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    end.va = end.mm.mmap(0, lenBytes, RW, flags);
    end.hog = end.mm.mmap(0, FRAMES * PAGE_SIZE, RW, flags);
    end.mr = await end.pd.regMr(end.va, lenBytes, ODP);
    return end;
  }

  async stop(): Promise<void> {
    await this.device.close();
    this.mm.exit();
    await this.host.stop();
  }

  /** What is sent, what is received, and the two buffers. */
  private get sendAt(): number {
    return this.va;
  }
  private get recvAt(): number {
    return this.va + PAGE_SIZE;
  }
  private get start(): number {
    return this.va + 2 * PAGE_SIZE;
  }
  private get sink(): number {
    return this.start + Math.ceil(this.size / PAGE_SIZE) * PAGE_SIZE;
  }

  async listen(): Promise<{ port: number; accepted: Promise<void> }> {
    const listener = this.context.createId();
    await listener.bindAddr({ host: '127.0.0.1', port: 0 });
    await listener.listen();
    const accepted = async () => {
      for await (const event of listener.events) {
        this.id = event.id;
        this.id.createQp(this.pd, { sendCq: this.cq, recvCq: this.cq });
        this.postRecv();
        await this.id.accept();
        return;
      }
    };
    return { port: listener.localAddr!.port, accepted: accepted() };
  }

  /** Tries again until somebody answers: an emulator takes connections before its guest listens. */
  async connect(port: number): Promise<void> {
    for (;;) {
      const failed = await this.tryConnect(port).then(
        () => undefined,
        (error) => error,
      );
      if (failed === undefined) return;
      if (failed.code !== 'ECONNRESET' && failed.code !== 'EPROTO') throw failed;
      this.id.qp!.destroyQp();
      this.id.destroyId();
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  private async tryConnect(port: number): Promise<void> {
    this.id = this.context.createId();
    await this.id.resolveAddr({ host: '127.0.0.1', port });
    this.id.createQp(this.pd, { sendCq: this.cq, recvCq: this.cq });
    await this.id.connect();
  }

  disconnect(): Promise<void> {
    return this.id.disconnect();
  }

  /** The server's rounds: what it has read in each. */
  async serve(rounds: number): Promise<Uint8Array[]> {
    const pings: Uint8Array[] = [];
    for (let round = 0; round < rounds; round++) {
      const source = await this.receiveInfo();
      await this.swapOut();
      const local = { addr: this.start, length: source.lenBytes, lkey: this.mr.lkey };
      await this.send({ opcode: IBV_WR_RDMA_READ, sgList: [local], remoteAddr: source.addr, rkey: source.rkey });
      pings.push(await this.bytes(this.start, source.lenBytes));
      await this.goOn();
      const sink = await this.receiveInfo();
      await this.swapOut();
      await this.send({ opcode: IBV_WR_RDMA_WRITE, sgList: [local], remoteAddr: sink.addr, rkey: sink.rkey });
      await this.goOn();
    }
    return pings;
  }

  /** The client's rounds: what has come back of each of these. */
  async ping(data: readonly Uint8Array[]): Promise<Uint8Array[]> {
    const pongs: Uint8Array[] = [];
    for (const bytes of data) {
      await this.mm.write(this.start, bytes);
      await this.mm.write(this.sink, new Uint8Array(bytes.length));
      await this.swapOut();
      await this.advertise(this.start);
      await this.advertise(this.sink);
      pongs.push(await this.bytes(this.sink, bytes.length));
    }
    return pongs;
  }

  private async advertise(addr: number): Promise<void> {
    const info = new DataView(new ArrayBuffer(INFO_BYTES));
    info.setBigUint64(0, BigInt(addr));
    info.setUint32(8, this.mr.rkey);
    info.setUint32(12, this.size);
    await this.mm.write(this.sendAt, new Uint8Array(info.buffer));
    this.postRecv();
    await this.sendInfo();
    await this.next(RECV);
  }

  private goOn(): Promise<void> {
    this.postRecv();
    return this.sendInfo();
  }

  private async receiveInfo(): Promise<{ addr: number; rkey: number; lenBytes: number }> {
    await this.next(RECV);
    const view = new DataView((await this.bytes(this.recvAt, INFO_BYTES)).buffer);
    return { addr: Number(view.getBigUint64(0)), rkey: view.getUint32(8), lenBytes: view.getUint32(12) };
  }

  private sendInfo(): Promise<void> {
    return this.send({ opcode: IBV_WR_SEND, sgList: [{ addr: this.sendAt, length: INFO_BYTES, lkey: this.mr.lkey }] });
  }

  private postRecv(): void {
    const piece = { addr: this.recvAt, length: INFO_BYTES, lkey: this.mr.lkey };
    this.id.qp!.postRecv({ wrId: RECV, sgList: [piece] });
  }

  private async send(wr: Omit<SendWr, 'wrId'>): Promise<void> {
    this.id.qp!.postSend({ ...wr, wrId: 1, sendFlags: IBV_SEND_SIGNALED });
    await this.next(1);
  }

  private async next(wrId: number): Promise<void> {
    const i = this.early.findIndex((wc) => wc.wrId === wrId);
    if (i >= 0) {
      this.early.splice(i, 1);
      return;
    }
    for await (const wc of this.cq) {
      if (wc.status !== IBV_WC_SUCCESS) throw new Error(`status ${wc.status}: ${this.id.qp!.reason}`);
      if (wc.wrId === wrId) return;
      this.early.push(wc);
    }
  }

  private async bytes(va: number, lenBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(lenBytes);
    await this.mm.read(va, bytes);
    return bytes;
  }

  /** Writes more pages than there are frames. */
  private async swapOut(): Promise<void> {
    for (let page = 0; page < FRAMES; page++) await this.mm.write(this.hog + page * PAGE_SIZE, Uint8Array.of(page));
  }
}
