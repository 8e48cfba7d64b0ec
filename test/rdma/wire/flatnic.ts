import {
  type AtomicRequest,
  RDMAP_ATOMIC_REQUEST,
  RDMAP_IMMEDIATE,
  RDMAP_READ_REQUEST,
  RDMAP_WRITE,
  type RxMessage,
  refuse,
  type StreamEnd,
  type StreamOwner,
  TERM_DDP_BASE_BOUNDS,
  TERM_DDP_INVALID_STAG,
  TERM_DDP_NO_BUFFER,
  TERM_RDMAP_ACCESS,
  TERM_RDMAP_BASE_BOUNDS,
  TERM_RDMAP_CANNOT_INVALIDATE,
  TERM_RDMAP_INVALID_STAG,
  type TxMessage,
} from '../../../src/rdma/wire/index.js';

/**
 * The smallest owner of a stream: regions are arrays, a send queue and posted receives are lists, what happens is written down.
 * `absent` says how many of the bytes asked for are "there" at each access, so that streams can be made to wait anywhere.
 */

export interface Region {
  readonly base: number;
  readonly bytes: Uint8Array;
  readonly remote: boolean;
}

export interface Work {
  readonly opcode: number;
  readonly id?: number;
  readonly payload?: Uint8Array;
  readonly remoteStag?: number;
  readonly remoteTo?: number | bigint;
  readonly localStag?: number;
  readonly localTo?: number;
  readonly lenBytes?: number;
  readonly invalidateStag?: number;
  readonly immediate?: number;
  readonly atomicOpcode?: number;
  readonly addOrSwap?: bigint;
  readonly compare?: bigint;
}

export class FlatNic implements StreamOwner {
  readonly regions = new Map<number, Region>();
  readonly queue: Work[] = [];
  readonly receives: Uint8Array[] = [];
  /** One line for each thing that has happened. */
  readonly log: string[] = [];
  readonly received: { bytes: Uint8Array; message: RxMessage }[] = [];
  readonly originals: bigint[] = [];
  end: StreamEnd | undefined;
  absent: (lenBytes: number) => number = (lenBytes) => lenBytes;
  private current: Work | undefined;
  private receive: Uint8Array | undefined;

  region(stag: number, base: number, bytes: Uint8Array, remote = true): Uint8Array {
    this.regions.set(stag, { base, bytes, remote });
    return bytes;
  }

  private find(stag: number, to: number, lenBytes: number, none: number, bounds: number): number {
    const region = this.regions.get(stag);
    if (region === undefined) return refuse(none);
    return to < region.base || to + lenBytes > region.base + region.bytes.length ? refuse(bounds) : 0;
  }

  checkPlacement(_opcode: number, stag: number, to: number, lenBytes: number): number {
    return this.find(stag, to, lenBytes, TERM_DDP_INVALID_STAG, TERM_DDP_BASE_BOUNDS);
  }

  place(_opcode: number, stag: number, to: number, bytes: Uint8Array, start: number, end: number): number {
    const nr = this.absent(end - start);
    const { base, bytes: memory } = this.regions.get(stag)!;
    memory.set(bytes.subarray(start, start + nr), to - base);
    return nr;
  }

  beginReceive(): number {
    this.receive = this.receives.shift();
    return this.receive === undefined ? refuse(TERM_DDP_NO_BUFFER) : this.receive.length;
  }

  placeReceive(offset: number, bytes: Uint8Array, start: number, end: number): number {
    const nr = this.absent(end - start);
    this.receive!.set(bytes.subarray(start, start + nr), offset);
    return nr;
  }

  endReceive(message: RxMessage): number {
    if (message.invalidate && !this.regions.delete(message.invalidateStag)) return refuse(TERM_RDMAP_CANNOT_INVALIDATE);
    this.received.push({ bytes: this.receive!.subarray(0, message.lenBytes), message: { ...message } });
    this.log.push(`received ${message.opcode} ${message.lenBytes}`);
    return 0;
  }

  checkSource(stag: number, to: number, lenBytes: number): number {
    if (this.regions.get(stag)?.remote === false) return refuse(TERM_RDMAP_ACCESS);
    return this.find(stag, to, lenBytes, TERM_RDMAP_INVALID_STAG, TERM_RDMAP_BASE_BOUNDS);
  }

  fetchSource(stag: number, to: number, out: Uint8Array, at: number, lenBytes: number): number {
    const nr = this.absent(lenBytes);
    const { base, bytes } = this.regions.get(stag)!;
    out.set(bytes.subarray(to - base, to - base + nr), at);
    return nr;
  }

  atomic(request: AtomicRequest): number {
    const wrong = this.checkSource(request.stag, request.to, 8);
    if (wrong < 0) return wrong;
    if (this.absent(1) === 0) return 0;
    const { base, bytes } = this.regions.get(request.stag)!;
    const words = new DataView(bytes.buffer, bytes.byteOffset);
    const at = request.to - base;
    const original = words.getBigUint64(at, true);
    request.original = original;
    words.setBigUint64(at, BigInt.asUintN(64, ATOMICS[request.opcode](original, request)), true);
    return 1;
  }

  nextMessage(message: TxMessage): boolean {
    const work = this.queue.shift();
    if (work === undefined) return false;
    this.current = work;
    message.id = work.id ?? 0;
    message.opcode = work.opcode;
    message.lenBytes = work.payload?.length ?? work.lenBytes ?? 0;
    message.remoteStag = work.remoteStag ?? 0;
    message.setRemoteTo(work.remoteTo ?? 0);
    message.localStag = work.localStag ?? 0;
    message.localTo = work.localTo ?? 0;
    message.invalidateStag = work.invalidateStag ?? 0;
    message.immediateHigh = 0;
    message.immediateLow = work.immediate ?? 0;
    message.atomicOpcode = work.atomicOpcode ?? 0;
    message.addOrSwap = work.addOrSwap ?? 0n;
    message.compare = work.compare ?? 0n;
    message.addOrSwapMask = 0n;
    message.compareMask = 0xffff_ffff_ffff_ffffn;
    return true;
  }

  fetch(_message: TxMessage, offset: number, out: Uint8Array, at: number, lenBytes: number): number {
    const nr = this.absent(lenBytes);
    out.set(this.current!.payload!.subarray(offset, offset + nr), at);
    return nr;
  }

  sent(message: TxMessage): void {
    this.log.push(`sent ${message.id}`);
  }

  readDone(id: number): void {
    this.log.push(`read ${id}`);
  }

  completeAtomic(id: number, original: bigint): number {
    if (this.absent(1) === 0) return 0;
    this.originals.push(original);
    this.log.push(`atomic ${id}`);
    return 1;
  }

  ended(end: StreamEnd): void {
    if (this.end !== undefined) throw new Error('ended twice');
    this.end = end;
  }
}

const ATOMICS: readonly ((original: bigint, request: AtomicRequest) => bigint)[] = [
  (original, { addOrSwap }) => original + addOrSwap,
  (_original, { addOrSwap }) => addOrSwap,
  (original, { addOrSwap, compare }) => (original === compare ? addOrSwap : original),
];

export const write = (remoteStag: number, remoteTo: number | bigint, payload: Uint8Array, id = 0): Work => {
  return { opcode: RDMAP_WRITE, id, remoteStag, remoteTo, payload };
};

export const read = (remote: [number, number], local: [number, number], lenBytes: number, id = 0): Work => {
  const [[remoteStag, remoteTo], [localStag, localTo]] = [remote, local];
  return { opcode: RDMAP_READ_REQUEST, id, remoteStag, remoteTo, localStag, localTo, lenBytes };
};

export const atomic = (atomicOpcode: number, remote: [number, number], addOrSwap: bigint, compare = 0n): Work => {
  return { opcode: RDMAP_ATOMIC_REQUEST, atomicOpcode, remoteStag: remote[0], remoteTo: remote[1], addOrSwap, compare };
};

export const immediate = (value: number): Work => ({ opcode: RDMAP_IMMEDIATE, immediate: value });
