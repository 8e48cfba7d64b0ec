import { expect } from 'vitest';
import { PAGE_SIZE } from '../../../src/mm/index.js';
import {
  type CmId,
  type CompletionQueue,
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ACCESS_ON_DEMAND,
  IBV_ACCESS_REMOTE_READ,
  IBV_ACCESS_REMOTE_WRITE,
  IBV_QPS_ERR,
  IBV_WC_SUCCESS,
  IBV_WR_RDMA_READ,
  IBV_WR_RDMA_WRITE,
  type MemoryRegion,
  type QueuePair,
  RDMA_CM_EVENT_CONNECT_REQUEST,
  RDMA_CM_EVENT_DISCONNECTED,
  type WcStatus,
} from '../../../src/rdma/index.js';
import { ALL, firstDifference, ODP, pattern, RdmaWorld, type Transport, type WorldOptions } from '../rdmaworld.js';
import { RawPeer } from './rawpeer.js';

/**
 * Who is attacked: end `b` of a world whose memory is too small, with regions of all kinds in one mapping and pages between them that no region has. What each byte must be
 * is in `shadow`; ends `a` and `b` have a connection of their own, which must go on.
 */

/** Pages of the mapping: what is there, and from where. */
const PARTS = { rw: 16, ro: 8, wo: 8, recv: 2, foreign: 4, spare: 4, stale: 4, bystander: 8 } as const;
export type Part = keyof typeof PARTS;
const GUARD_PAGES = 2;
const NR_PAGES = Object.values(PARTS).reduce((sum: number, nr) => sum + nr + GUARD_PAGES, GUARD_PAGES);

const ONDEMAND_LOCAL = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND;
export const RECV_BYTES = 256;
export const NR_RECVS = 4;
export const IRD = 4;
/** What debug builds fill a frame with that nobody has. */
const FREE_WORD = 0x6b6b6b6b;

export interface PartPlace {
  readonly va: number;
  readonly length: number;
  /** From the mapping's beginning. */
  readonly offset: number;
}

export class Victim {
  readonly world: RdmaWorld;
  readonly shadow = pattern(NR_PAGES * PAGE_SIZE, 77);
  readonly places: Record<Part, PartPlace>;
  readonly mrs: Record<Exclude<Part, 'stale'>, MemoryRegion>;
  /** A key that was good once. */
  readonly staleKey: number;
  /** A region over pages that are not mapped. */
  readonly hole: MemoryRegion;
  port = 0;
  /** Requests of peers, and whether they are accepted. */
  nrRequests = 0;
  accepts = true;
  qp!: QueuePair;
  private id!: CmId;
  private cq!: CompletionQueue;
  private listener!: CmId;
  private readonly va: number;
  private readonly here: { va: number; mr: MemoryRegion };
  private readonly net: 'memory' | 'tcp';
  private freeArena = 0;
  private accepted: (() => void) | undefined;
  private nrReceives = 0;

  static async create(transport: Transport, options: WorldOptions = {}): Promise<Victim> {
    // All that is attacked is more than the memory there is.
    const world = await RdmaWorld.create({ transport, frames: 64, ...options });
    const { b } = world;
    const va = world.mmap(b, NR_PAGES);
    const places = layOut(va);
    const region = (part: Part, access: number) => b.pd.regMr(places[part].va, places[part].length, access);
    const mrs = {
      rw: await region('rw', ODP),
      ro: await region('ro', ONDEMAND_LOCAL | IBV_ACCESS_REMOTE_READ),
      wo: await region('wo', ONDEMAND_LOCAL | IBV_ACCESS_REMOTE_WRITE),
      recv: await region('recv', ONDEMAND_LOCAL),
      foreign: await b.context.allocPd().regMr(places.foreign.va, places.foreign.length, ODP),
      spare: await region('spare', ODP),
      bystander: await region('bystander', ODP),
    };
    const stale = await region('stale', ALL | IBV_ACCESS_ON_DEMAND);
    const staleKey = stale.rkey;
    await stale.deregMr();
    const gone = world.mmap(b, 2);
    const hole = await b.pd.regMr(gone, 2 * PAGE_SIZE, ODP);
    b.mm.munmap(gone, 2 * PAGE_SIZE);
    const here = await world.region(world.a, 2);
    const victim = new Victim(world, transport, va, places, mrs, staleKey, hole, here);
    await world.fill(b, va, victim.shadow);
    await victim.listen();
    victim.freeArena = victim.arenaLeft();
    return victim;
  }

  private constructor(
    world: RdmaWorld,
    net: Transport,
    va: number,
    places: Record<Part, PartPlace>,
    mrs: Victim['mrs'],
    staleKey: number,
    hole: MemoryRegion,
    here: { va: number; mr: MemoryRegion },
  ) {
    this.world = world;
    this.net = net;
    this.va = va;
    this.places = places;
    this.mrs = mrs;
    this.staleKey = staleKey;
    this.hole = hole;
    this.here = here;
  }

  private async listen(): Promise<void> {
    this.listener = this.world.b.context.createId();
    await this.listener.bindAddr({ host: '127.0.0.1', port: 0 });
    await this.listener.listen(4);
    this.port = this.listener.localAddr!.port;
    void (async () => {
      for await (const { event, id } of this.listener.events)
        if (event === RDMA_CM_EVENT_CONNECT_REQUEST) await this.answer(id);
    })();
  }

  private async answer(id: CmId): Promise<void> {
    this.nrRequests++;
    if (this.accepts) await this.accept(id).catch(() => this.gone());
  }

  private async accept(id: CmId): Promise<void> {
    const { context, pd } = this.world.b;
    this.id = id;
    this.cq = context.createCq(64);
    this.qp = id.createQp(pd, { sendCq: this.cq, recvCq: this.cq, cap: { maxRecvWr: NR_RECVS } });
    this.nrReceives = 0;
    for (let n = 0; n < NR_RECVS; n++) this.postReceive();
    await id.accept({ responderResources: IRD, initiatorDepth: 0 });
    this.accepted?.();
  }

  keyOf(part: Part): number {
    return part === 'stale' ? this.staleKey : this.mrs[part].rkey;
  }

  /** Byte, from the mapping's beginning, where receive number `n` goes. */
  receiveOffset(n: number): number {
    return this.places.recv.offset + (n % NR_RECVS) * RECV_BYTES;
  }

  private postReceive(): void {
    const addr = this.va + this.receiveOffset(this.nrReceives);
    const { lkey } = this.mrs.recv;
    this.qp.postRecv({ wrId: this.nrReceives++, sgList: [{ addr, length: RECV_BYTES, lkey }] });
  }

  /** Receives that are used are posted again; how many there were. */
  repost(): number {
    const done = this.cq.pollCq(NR_RECVS).filter(({ status }) => status === IBV_WC_SUCCESS).length;
    for (let n = 0; n < done; n++) this.postReceive();
    return done;
  }

  /** A peer, set up or not. */
  async peer(): Promise<RawPeer> {
    return await RawPeer.connect(this.port, this.net === 'memory' ? this.world.env.net : undefined);
  }

  async connect(): Promise<RawPeer> {
    const accepted = new Promise<void>((resolve) => {
      this.accepted = resolve;
    });
    const peer = await this.peer();
    expect(await peer.setUp(IRD)).toBe(0x50);
    await accepted;
    return peer;
  }

  /** After the connection has failed: statuses of what was posted. Ends what is left of it. */
  async failed(): Promise<WcStatus[]> {
    await this.until(() => this.qp.state === IBV_QPS_ERR);
    expect(this.qp.state).toBe(IBV_QPS_ERR);
    const statuses: WcStatus[] = [];
    await this.until(() => {
      statuses.push(...this.cq.pollCq(64).map(({ status }) => status));
      return statuses.length >= NR_RECVS;
    });
    await this.gone();
    return statuses;
  }

  /** Why the connection has come to its end. */
  async ended(): Promise<string | undefined> {
    for await (const { event, reason } of this.id.events) if (event === RDMA_CM_EVENT_DISCONNECTED) return reason;
    return 'destroyed';
  }

  async gone(): Promise<void> {
    this.id.destroyId();
    this.qp.destroyQp();
    this.cq.destroyCq();
    await this.until(() => this.world.device.stats().nrQps === 2);
  }

  /** Asks again and again, but not for ever. */
  async until(done: () => boolean): Promise<void> {
    const tcp = this.net === 'tcp';
    for (let n = 0; n < 20_000 && !done(); n++)
      await new Promise<void>((resolve) => void (tcp ? setTimeout(resolve, 1) : setImmediate(resolve)));
  }

  /** Regions that were invalidated are registered anew. */
  async renew(): Promise<void> {
    for (const part of Object.keys(this.mrs) as (keyof Victim['mrs'])[]) {
      const mr = this.mrs[part];
      if (mr.isValid) continue;
      await mr.deregMr();
      this.mrs[part] = await mr.pd.regMr(mr.addr, mr.length, mr.access);
    }
  }

  /** Bytes of a part change: [start, start + bytes.length) of it. */
  changed(part: Part, start: number, bytes: Uint8Array): void {
    this.shadow.set(bytes, this.places[part].offset + start);
  }

  memory(): Promise<Uint8Array> {
    return this.world.bytes(this.world.b, this.va, this.shadow.length);
  }

  /** Nothing but what was validly written has changed, nothing is leaked or pinned, no free frame was written, and the other connection goes on. */
  async check(): Promise<void> {
    const { world } = this;
    const at = firstDifference(await this.memory(), this.shadow);
    if (at >= 0) throw new Error(`byte ${at} of the mapping (${this.nameOf(at)}) was changed`);
    await this.useBystander();
    world.check();
    this.checkFreeFrames();
    const { pinnedFrames, poisoned } = world.host.stats();
    expect({ pinnedFrames, poisoned }).toEqual({ pinnedFrames: 0, poisoned: 0 });
    expect(world.device.stats().nrQps).toBe(2);
    expect(this.arenaLeft()).toBe(this.freeArena);
  }

  private nameOf(at: number): string {
    const part = Object.entries(this.places).find(([, { offset, length }]) => at >= offset && at < offset + length);
    return part === undefined ? 'no region' : `${part[0]} + ${at - part[1].offset}`;
  }

  private async useBystander(): Promise<void> {
    const { world, here, places } = this;
    const { bystander } = this.mrs;
    const bytes = pattern(3000, this.shadow[places.bystander.offset]! + 1);
    await world.fill(world.a, here.va, bytes);
    const request = (opcode: 0 | 4, at: number) =>
      world.send(world.a, {
        opcode,
        sgList: [{ addr: here.va + at, length: 3000, lkey: here.mr.lkey }],
        remoteAddr: bystander.addr,
        rkey: bystander.rkey,
      });
    expect((await request(IBV_WR_RDMA_WRITE, 0)).status).toBe(IBV_WC_SUCCESS);
    expect((await request(IBV_WR_RDMA_READ, 4096)).status).toBe(IBV_WC_SUCCESS);
    expect(firstDifference(await world.bytes(world.a, here.va + 4096, 3000), bytes)).toBe(-1);
    this.changed('bystander', 0, bytes);
  }

  /** A freed frame stays as it was filled, one that was never used stays zero: who writes to either had no right to it. */
  private checkFreeFrames(): void {
    const { frames, memory } = this.world.host;
    for (let pfn = frames.firstPfn; pfn < frames.endPfn; pfn++) {
      if (frames.refcount[pfn] !== 0) continue;
      const words = new Uint32Array(memory.buffer, pfn * PAGE_SIZE, PAGE_SIZE / 4);
      const wrong = words.findIndex((word) => word !== FREE_WORD && word !== 0);
      if (wrong >= 0) throw new Error(`byte ${4 * wrong} of the free frame ${pfn} was written`);
    }
  }

  private arenaLeft(): number {
    const { arena } = this.world.host as unknown as { arena: { holes: { start: number; end: number }[] } };
    return arena.holes.reduce((sum, { start, end }) => sum + end - start, 0);
  }

  /** What happens to the memory all the while, until `stop`. */
  disturb(next: (n: number) => number): { stop: () => Promise<void> } {
    const { host, b } = this.world;
    let running = true;
    const loop = (async () => {
      while (running) {
        const kind = next(8);
        if (kind < 5) host.reclaim.shrink(next(2) === 0, true, next(2) === 0);
        else if (kind === 5) host.compact();
        else if (kind === 6) b.mm.fork().exit();
        await this.world.turns(1 + next(3));
      }
    })();
    const stop = (): Promise<void> => {
      running = false;
      return loop;
    };
    return { stop };
  }

  async stop(): Promise<void> {
    this.listener.destroyId();
    await this.world.stop();
  }
}

function layOut(va: number): Record<Part, PartPlace> {
  const places = {} as Record<Part, PartPlace>;
  let page = GUARD_PAGES;
  for (const [part, nrPages] of Object.entries(PARTS)) {
    const offset = page * PAGE_SIZE;
    places[part as Part] = { va: va + offset, offset, length: nrPages * PAGE_SIZE };
    page += nrPages + GUARD_PAGES;
  }
  return places;
}
