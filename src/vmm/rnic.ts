import { RAM_BASE, RNIC_READ, type RnicPort } from '../machine/index.js';
import type { Mm } from '../mm/index.js';
import {
  type CompletionQueue,
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ACCESS_ON_DEMAND,
  IBV_SEND_SIGNALED,
  IBV_WC_SUCCESS,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  type MemoryRegion,
  openDevice,
  type QueuePair,
  type RdmaEnvironment,
} from '../rdma/index.js';

/**
 * A guest's NIC: its RAM is a demand paged region of a device of its own, and requests of its doorbell are work of a queue pair. Nothing of the guest is pinned; the host
 * takes its pages away from the guest's page tables and from the NIC by the same brackets.
 *
 * Use: `rnic: (ram) => GuestRnic.connect(env, ram, server)` in the options of a BoardGuest, which closes it.
 */

/** As many as a guest's ring has. */
const DEPTH = 64;

/** Where the peer's memory is, of which its private data tell. */
export interface RnicPeer {
  readonly addr: number;
  readonly length: number;
  readonly rkey: number;
}

export interface RnicServer {
  readonly host: string;
  readonly port: number;
  /** Reads what the server says when it accepts; throws KernelError where it makes no sense. */
  readonly decode: (privateData: Uint8Array) => RnicPeer;
}

export class GuestRnic implements RnicPort {
  readonly lenBytes: number;
  private readonly qp: QueuePair;
  private readonly ram: MemoryRegion;
  private readonly peer: RnicPeer;
  private readonly underWay = new Map<number, (ok: boolean) => void>();
  private nextId = 0;

  private constructor(qp: QueuePair, cq: CompletionQueue, ram: MemoryRegion, peer: RnicPeer) {
    this.lenBytes = peer.length;
    this.qp = qp;
    this.ram = ram;
    this.peer = peer;
    void this.complete(cq);
  }

  /** Throws KernelError: as `CmId.connect`, and what `decode` throws. */
  static async connect(
    env: RdmaEnvironment,
    { mm, hva, ramBytes }: { mm: Mm; hva: number; ramBytes: number },
    { host, port, decode }: RnicServer,
  ): Promise<GuestRnic> {
    const device = openDevice(mm.host, env, { name: `${mm.name}'s NIC` });
    try {
      const context = device.openContext(mm);
      const pd = context.allocPd();
      const ram = await pd.regMr(hva, ramBytes, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND);
      const cq = context.createCq(2 * DEPTH);
      const id = context.createId();
      await id.resolveAddr({ host, port });
      const qp = id.createQp(pd, { sendCq: cq, recvCq: cq, cap: { maxSendWr: DEPTH, maxRecvWr: 1, maxSendSge: 1 } });
      const { privateData } = await id.connect({ initiatorDepth: 16 });
      return new GuestRnic(qp, cq, ram, decode(privateData));
    } catch (error) {
      await device.close();
      throw error;
    }
  }

  async move(opcode: number, gpa: number, offset: number, length: number): Promise<boolean> {
    const at = gpa - RAM_BASE;
    if (at < 0 || at + length > this.ram.length) return false;
    const wrId = this.nextId++;
    const sgList = [{ addr: this.ram.addr + at, length, lkey: this.ram.lkey }];
    const to = { remoteAddr: this.peer.addr + offset, rkey: this.peer.rkey };
    const done = new Promise<boolean>((resolve) => this.underWay.set(wrId, resolve));
    try {
      const verb = opcode === RNIC_READ ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE;
      this.qp.postSend({ wrId, opcode: verb, sendFlags: IBV_SEND_SIGNALED, sgList, ...to });
    } catch {
      // The connection is down.
      this.underWay.delete(wrId);
      return false;
    }
    return done;
  }

  async close(): Promise<void> {
    await this.qp.pd.context.device.close();
    for (const settle of this.underWay.values()) settle(false);
    this.underWay.clear();
  }

  private async complete(cq: CompletionQueue): Promise<void> {
    for await (const { wrId, status } of cq) {
      this.underWay.get(wrId)?.(status === IBV_WC_SUCCESS);
      this.underWay.delete(wrId);
    }
  }
}
