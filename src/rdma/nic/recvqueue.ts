import type { Words } from '../../base/index.js';
import { IBV_ACCESS_LOCAL_WRITE } from '../constants.js';
import type { Access } from './access.js';
import type { NicMemory } from './nicmemory.js';
import { WorkRing } from './rings.js';

/** A receive queue, shared or not: what is posted is taken in order, and its place is free at once. */
export class RecvQueue {
  readonly ring: WorkRing;
  readonly address: number;

  constructor(words: Words, address: number) {
    this.ring = new WorkRing(words, address);
    this.address = address;
  }

  isEmpty(): boolean {
    return this.ring.used() === 0;
  }

  /** The oldest, into `receive`; false: there is none. */
  take(receive: Receive): boolean {
    const { ring } = this;
    if (this.isEmpty()) return false;
    const tail = ring.tail();
    const i = ring.entryOf(tail);
    receive.begin(ring.wrId(i), ring.lenBytes(i));
    for (let k = 0; k < ring.nrSges(i); k++) receive.add(ring.sgeAddr(i, k), ring.sgeLength(i, k), ring.sgeKey(i, k));
    ring.setTail(tail + 1);
    return true;
  }

  /** Of a shared one: whether fewer are left than its limit; true once for each arming. */
  takeLimit(): boolean {
    const limit = this.ring.armed();
    return limit > 0 && this.ring.used() < limit && this.ring.exchangeArmed(0) !== 0;
  }
}

/** The receive that a message is being placed into. One for each queue pair. */
export class Receive {
  active = false;
  wrId = 0;
  lenBytes = 0;
  private nr = 0;
  private readonly addrs: Float64Array;
  private readonly lengths: Float64Array;
  private readonly keys: Float64Array;

  constructor(maxSge: number) {
    this.addrs = new Float64Array(maxSge);
    this.lengths = new Float64Array(maxSge);
    this.keys = new Float64Array(maxSge);
  }

  begin(wrId: number, lenBytes: number): void {
    this.active = true;
    this.wrId = wrId;
    this.lenBytes = lenBytes;
    this.nr = 0;
  }

  add(addr: number, length: number, key: number): void {
    this.addrs[this.nr] = addr;
    this.lengths[this.nr] = length;
    this.keys[this.nr++] = key;
  }

  /** Copies [start, end) of `bytes` to byte `offset` on. Results as `NicMemory.write`. */
  place(
    memory: NicMemory,
    access: Access,
    pd: number,
    offset: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): number {
    let [before, at] = [0, start];
    for (let k = 0; k < this.nr && at < end; k++) {
      const into = offset + (at - start) - before;
      const length = this.lengths[k]!;
      before += length;
      if (into >= length) continue;
      const stop = Math.min(end, at + length - into);
      const n = memory.write(access, this.keys[k]!, this.addrs[k]! + into, IBV_ACCESS_LOCAL_WRITE, pd, bytes, at, stop);
      if (n < 0) return n;
      at += n;
      if (at < stop) break;
    }
    return at - start;
  }
}
