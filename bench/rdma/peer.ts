import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createMemory, type WasmMemory } from '../../src/base/index.js';
import { arenaBytes, encodeRegion, mapMemory, openRnic, type Rnic } from '../../src/cli/rdma/service.js';
import { Host, MADV_PAGEOUT, PAGE_SIZE, PROT_READ, PROT_WRITE, type SwapDevice } from '../../src/mm/index.js';
import { nodeRdmaEnvironment, openFileSwap } from '../../src/node/index.js';
import {
  type CmId,
  IBV_ACCESS_LOCAL_WRITE,
  IBV_ACCESS_ON_DEMAND,
  IBV_ACCESS_REMOTE_READ,
  IBV_ACCESS_REMOTE_WRITE,
  IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE,
  IBV_ADVISE_MR_FLAG_FLUSH,
  type MemoryRegion,
  RDMA_CM_EVENT_CONNECT_REQUEST,
  type RdmaEnvironment,
} from '../../src/rdma/index.js';
import { LimitedSwap } from './limitedswap.js';

/**
 * The other process: a host whose memory is served, pinned and on demand, and a plain TCP server that takes and gives bytes. It does what it is told by messages:
 * `[id, name, argument]`, answered by `[id, result]`.
 */

const RIGHTS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
const RLIM_INFINITY = Number.MAX_SAFE_INTEGER;
/** Slots of one read of the swap device, and reads under way: what read-ahead does for a stream in full flow. */
const CLUSTER = 64;
const IN_FLIGHT = 8;
/** Of TCP into one buffer: what is read at once. */
const READ_BYTES = 65536;

/** Where a NIC's thread has its script: this is a bundle, elsewhere. */
export function environment(): RdmaEnvironment {
  return nodeRdmaEnvironment({ nicWorker: new URL('../dist/node/nicworker.js', import.meta.url) });
}

/** Runs until its parent has gone. */
export async function runPeer(): Promise<void> {
  const peer = new Peer(Number(process.argv[2]));
  process.on('disconnect', () => process.exit());
  process.on('message', ([id, name, argument]: [number, PeerCall, string]) => {
    void Promise.resolve(peer[name](argument)).then((result) => process.send!([id, result ?? null]));
  });
  process.send!('ready');
}

/** Where memory that is not needed goes: a file in the machine's page cache, the disk under it, a device of known rate. */
export type DeviceKind = 'file' | 'disk' | Limited;
/** And its rate, in MB/s. */
export type Limited = `limited${number}`;
export const LIMITED_LATENCY_US = 100;
const LIMITED = 'limited';

export type PeerCall =
  | 'serve'
  | 'invalidate'
  | 'evict'
  | 'prefetch'
  | 'cpuUs'
  | 'sink'
  | 'sinkOf'
  | 'source'
  | 'swapRate';

class Peer {
  private readonly regionBytes: number;
  private readonly rnics = new Map<DeviceKind, Rnic>();
  /** What pages are driven out of: one on each device. */
  private readonly regions = new Map<string, MemoryRegion>();

  constructor(regionBytes: number) {
    this.regionBytes = regionBytes;
  }

  private async rnicOf(kind: DeviceKind): Promise<Rnic> {
    const known = this.rnics.get(kind);
    if (known !== undefined) return known;
    const { regionBytes } = this;
    const host = new Host({
      ...{ frames: (4 * regionBytes) / PAGE_SIZE, arenaBytes: arenaBytes(4 * regionBytes) },
      ...{ swap: await openSwap(kind, 'host', 4 * regionBytes), sameFilled: false },
      ...{ now: () => performance.now(), defer: (fn: () => void) => setImmediate(fn) },
    });
    const rnic = openRnic(host, 'peer', RLIM_INFINITY, environment());
    this.rnics.set(kind, rnic);
    return rnic;
  }

  /** A region, 'pinned' or 'demand' (or 'bare': on demand, without CRCs), or on demand over a device of its own; all of it written; the port where it is had. */
  async serve(kind: string): Promise<number> {
    const rnic = await this.rnicOf(kind === 'disk' || isLimited(kind) ? kind : 'file');
    const { mm, pd, context } = rnic;
    const va = mapMemory(mm, this.regionBytes);
    const block = Uint8Array.from({ length: 2 ** 20 }, (_, i) => (i * 7 + (i >> 8)) & 0xff);
    for (let at = 0; at < this.regionBytes; at += block.length) await mm.write(va + at, block);
    const mr = await pd.regMr(va, this.regionBytes, kind === 'pinned' ? RIGHTS : RIGHTS | IBV_ACCESS_ON_DEMAND);
    this.regions.set(kind, mr);
    const listener = context.createId();
    await listener.bindAddr({ host: '127.0.0.1', port: 0 });
    await listener.listen();
    void acceptAll(rnic, listener, encodeRegion({ addr: va, length: mr.length, rkey: mr.rkey }), kind);
    return listener.localAddr!.port;
  }

  /** The pages stay, the NIC's entries go: what comes is a minor fault. */
  invalidate(kind: string): void {
    const { addr, length, pd } = this.regions.get(kind)!;
    pd.context.mm.mprotect(addr, length, PROT_READ);
    pd.context.mm.mprotect(addr, length, PROT_READ | PROT_WRITE);
  }

  /** All pages go to the swap device, which is idle then: major faults. */
  async evict(kind: string): Promise<void> {
    const { addr, length, pd } = this.regions.get(kind)!;
    const { mm } = pd.context;
    for (;;) {
      let nrPresent = 0;
      mm.forEachPresent(addr / PAGE_SIZE, (addr + length) / PAGE_SIZE, () => nrPresent++);
      if (nrPresent === 0) return;
      mm.madvise(addr, length, MADV_PAGEOUT);
      await mm.host.writeback.drain();
      // What the NIC's thread has to say is heard: pages that it asked for are held until then (N26).
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  prefetch(kind: string): Promise<void> {
    const { addr, length, lkey, pd } = this.regions.get(kind)!;
    const sgList = [{ addr, length, lkey }];
    return pd.adviseMr(IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, IBV_ADVISE_MR_FLAG_FLUSH, sgList);
  }

  cpuUs(): number {
    const { user, system } = process.cpuUsage();
    return user + system;
  }

  /** A port where bytes are taken: the first 8 say how many, and one byte goes back when they are there. */
  sink(): Promise<number> {
    return listen((socket) => takeAll(socket));
  }

  /** The same by a connection to `port`, which reads into one buffer. */
  async sinkOf(port: string): Promise<void> {
    const socket = await connectReader(Number(port), (bytes) => take(bytes));
    const take = takeAll(socket);
  }

  /** A port where bytes are given, as many as the 8 that come in say. */
  source(): Promise<number> {
    const block = Buffer.alloc(65536, 1);
    return listen((socket) => (bytes: Uint8Array) => {
      let left = Number(Buffer.from(bytes.buffer, bytes.byteOffset).readBigUInt64LE(0));
      const more = (): void => {
        for (; left > 0; left -= block.length) {
          if (socket.write(block)) continue;
          left -= block.length;
          socket.once('drain', more);
          return;
        }
      };
      more();
    });
  }

  /** Bytes a second that a swap device itself reads, in the runs that read-ahead asks for; one of its own, as large as the region. */
  async swapRate(kind: string): Promise<number> {
    const { regionBytes } = this;
    const swap = await openSwap(kind as DeviceKind, 'alone', regionBytes);
    const memory = createMemory(IN_FLIGHT * CLUSTER * PAGE_SIZE);
    new Uint8Array(memory.buffer).forEach((_, i, bytes) => {
      bytes[i] = i * 7;
    });
    await moveAll(memory, regionBytes / PAGE_SIZE, (slots, frames) => swap.write(slots, frames));
    const began = performance.now();
    await moveAll(memory, regionBytes / PAGE_SIZE, (slots, frames) => swap.read(slots, frames));
    const seconds = (performance.now() - began) / 1000;
    await swap.close();
    return regionBytes / seconds;
  }
}

/** All slots of a device, CLUSTER at a time, IN_FLIGHT such runs at once. */
async function moveAll(memory: WasmMemory, nrSlots: number, move: SwapDevice['read']): Promise<void> {
  let next = 0;
  const mover = async (k: number): Promise<void> => {
    const frames = Array.from(
      { length: CLUSTER },
      (_, i) => new Uint8Array(memory.buffer, (k * CLUSTER + i) * PAGE_SIZE, PAGE_SIZE),
    );
    while (next < nrSlots) {
      const first = next;
      next += CLUSTER;
      await move(
        frames.map((_, i) => first + i),
        frames,
      );
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, (_, k) => mover(k)));
}

async function openSwap(kind: DeviceKind, name: string, sizeBytes: number): Promise<SwapDevice> {
  const path = join(tmpdir(), `bench-rdma-${process.pid}-${kind}-${name}.swap`);
  const swap = await openFileSwap(path, { sizeBytes, unlinked: true, direct: kind === 'disk' });
  return isLimited(kind) ? new LimitedSwap(swap, Number(kind.slice(LIMITED.length)) * 1e6, LIMITED_LATENCY_US) : swap;
}

async function acceptAll(rnic: Rnic, listener: CmId, privateData: Uint8Array, kind: string): Promise<void> {
  for await (const { event, id } of listener.events) {
    if (event !== RDMA_CM_EVENT_CONNECT_REQUEST) continue;
    const cq = rnic.context.createCq(64);
    id.createQp(rnic.pd, { sendCq: cq, recvCq: cq });
    await id.accept({ privateData, responderResources: 64, crc: !kind.startsWith('bare') });
  }
}

function takeAll(socket: net.Socket): (bytes: Uint8Array) => void {
  let left = 0;
  return (bytes) => {
    if (left === 0) left = Number(Buffer.from(bytes.buffer, bytes.byteOffset).readBigUInt64LE(0)) + 8;
    left -= bytes.length;
    if (left === 0) socket.write('.');
  };
}

/** A TCP server, as node:net is mostly used: each chunk is a buffer of its own. */
function listen(onSocket: (socket: net.Socket) => (bytes: Uint8Array) => void): Promise<number> {
  const server = net.createServer({ noDelay: true, highWaterMark: 65536 }, (socket) => {
    socket.on('error', () => {});
    socket.on('data', onSocket(socket));
  });
  return new Promise((resolve) =>
    server.listen(0, '127.0.0.1', () => resolve((server.address() as net.AddressInfo).port)),
  );
}

/** A TCP connection that reads into one buffer, as a NIC does: Node has it for the side that connects. */
export async function connectReader(port: number, onBytes: (bytes: Uint8Array) => void): Promise<net.Socket> {
  const buffer = Buffer.alloc(READ_BYTES);
  const callback = (nrBytes: number): boolean => {
    onBytes(buffer.subarray(0, nrBytes));
    return true;
  };
  const socket = net.connect({ port, host: '127.0.0.1', noDelay: true, onread: { buffer, callback } });
  await new Promise((resolve) => socket.once('connect', resolve));
  return socket;
}

function isLimited(kind: string): kind is Limited {
  return kind.startsWith(LIMITED);
}
