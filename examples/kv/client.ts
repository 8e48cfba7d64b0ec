import type { Host } from 'unpin';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from 'unpin/mm';
import { nodeRdmaEnvironment } from 'unpin/node';
import {
  type CmId,
  type CompletionQueue,
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ACCESS_ON_DEMAND,
  IBV_SEND_SIGNALED,
  IBV_WC_SUCCESS,
  IBV_WR_ATOMIC_CMP_AND_SWP,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  type MemoryRegion,
  openDevice,
  type QueuePair,
  type SendWr,
  wcStatusStr,
} from 'unpin/rdma';
import { decodeSlot, encodeEntry, hash, SLOT_BYTES, type Slot } from './layout.js';

/** A client of the table: get and put without any help of the server's processor. One call at a time. */
export class KvClient {
  private readonly id: CmId;
  private readonly qp: QueuePair;
  private readonly cq: CompletionQueue;
  private readonly buffer: MemoryRegion;
  private readonly table: { addr: number; length: number; rkey: number };
  /** Where a writer had to begin again. */
  nrRetries = 0;

  private constructor(
    id: CmId,
    cq: CompletionQueue,
    buffer: MemoryRegion,
    table: { addr: number; length: number; rkey: number },
  ) {
    this.id = id;
    this.qp = id.qp!;
    this.cq = cq;
    this.buffer = buffer;
    this.table = table;
  }

  static async connect(host: Host, port: number): Promise<KvClient> {
    const mm = host.createMm();
    const context = openDevice(host, nodeRdmaEnvironment()).openContext(mm);
    const pd = context.allocPd();
    const cq = context.createCq(16);
    const va = mm.mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    const buffer = await pd.regMr(va, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND);
    const id = context.createId();
    await id.resolveAddr({ host: '127.0.0.1', port });
    id.createQp(pd, { sendCq: cq, recvCq: cq });
    const { privateData } = await id.connect({ initiatorDepth: 4 });
    return new KvClient(id, cq, buffer, JSON.parse(new TextDecoder().decode(privateData)));
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    const { slot } = await this.find(key);
    return slot.version === 0n ? undefined : Uint8Array.from(slot.value);
  }

  async put(key: string, value: Uint8Array): Promise<void> {
    const entry = encodeEntry(key, value);
    const { mm } = this.qp.pd.context;
    for (;;) {
      const { at, slot } = await this.find(key);
      if (await this.swapVersion(at, slot.version, slot.version + 1n)) {
        await mm.write(this.buffer.addr, entry);
        await this.request({ opcode: IBV_WR_RDMA_WRITE, remoteAddr: at + 8 }, entry.length);
        await this.swapVersion(at, slot.version + 1n, slot.version + 2n);
        return;
      }
      this.nrRetries++;
    }
  }

  async close(): Promise<void> {
    await this.id.disconnect();
    await this.qp.pd.context.device.close();
    this.qp.pd.context.mm.exit();
  }

  /** The slot of `key`, or the free one for it. */
  private async find(key: string): Promise<{ at: number; slot: Slot }> {
    const { addr, length } = this.table;
    const nrSlots = length / SLOT_BYTES;
    for (let n = hash(Buffer.from(key)) % nrSlots, probes = 0; probes < nrSlots; n = (n + 1) % nrSlots, probes++) {
      const at = addr + n * SLOT_BYTES;
      let slot = await this.readSlot(at);
      for (; !slot.whole; slot = await this.readSlot(at)) this.nrRetries++;
      if (slot.version === 0n || slot.key === key) return { at, slot };
    }
    throw new RangeError(`a table of ${nrSlots} slots has no room for another key`);
  }

  private async readSlot(at: number): Promise<Slot> {
    await this.request({ opcode: IBV_WR_RDMA_READ, remoteAddr: at }, SLOT_BYTES);
    const bytes = Buffer.alloc(SLOT_BYTES);
    await this.qp.pd.context.mm.read(this.buffer.addr, bytes);
    return decodeSlot(bytes);
  }

  private async swapVersion(at: number, compareAdd: bigint, swap: bigint): Promise<boolean> {
    await this.request({ opcode: IBV_WR_ATOMIC_CMP_AND_SWP, remoteAddr: at, compareAdd, swap }, 8);
    const old = new BigUint64Array(1);
    await this.qp.pd.context.mm.read(this.buffer.addr, new Uint8Array(old.buffer));
    return old[0] === compareAdd;
  }

  private async request(wr: Omit<SendWr, 'wrId'>, length: number): Promise<void> {
    const { addr, lkey } = this.buffer;
    this.qp.postSend({
      ...wr,
      wrId: 0,
      sendFlags: IBV_SEND_SIGNALED,
      sgList: [{ addr, length, lkey }],
      rkey: this.table.rkey,
    });
    for await (const { status } of this.cq) {
      if (status === IBV_WC_SUCCESS) return;
      throw new Error(`the server refused: ${wcStatusStr(status)}`);
    }
  }
}
