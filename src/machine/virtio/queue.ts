import { DescriptorChain, type GuestRun } from './chain.js';
import type { Dma } from './dma.js';
import { runSteps, type Steps, wait } from './steps.js';

/**
 * A split virtqueue, seen by the device: takes descriptor chains off the available ring (`pop`) and puts them on the used ring (`push`).
 *
 * Everything in the rings is the guest's, and may be wrong: an index that runs ahead, a head that does not exist, chains that are cyclic or
 * longer than the queue, indirect tables in indirect tables, readable descriptors after writable ones, memory that is not RAM. Each of these
 * breaks the queue: the reason is told to `onBroken` once, and it yields nothing more. No ring makes it loop, throw, or take more than
 * MAX_CHAIN descriptors for a chain and `size` chains at a time.
 *
 * `pop` and `push` return a promise where they have to wait for a page of the rings, and are done when they return otherwise. Several of each
 * may be under way; each kind is done in the order of the calls.
 *
 * Source: VIRTIO 1.2, 2.7 (split virtqueues). Use: `pop()` until undefined, at each notification; `push(chain, writtenBytes)`.
 */

export const VIRTQ_DESC_F_NEXT = 1;
export const VIRTQ_DESC_F_WRITE = 2;
export const VIRTQ_DESC_F_INDIRECT = 4;
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
export const VIRTIO_F_INDIRECT_DESC = 28n;
export const VIRTIO_F_EVENT_IDX = 29n;

/** Descriptors of one chain, an indirect table's included (QEMU: VIRTQUEUE_MAX_SIZE). A direct chain ends at the queue's size. */
export const MAX_CHAIN = 1024;
const DESC_BYTES = 16;
const USED_ELEM_BYTES = 8;
/** Before the entries of either ring: flags, idx. */
const RING_HEADER_BYTES = 4;

export interface VirtqueueOptions {
  readonly dma: Dma;
  /** Descriptors: a power of two. */
  readonly size: number;
  /** Guest-physical addresses, aligned to 16, 2 and 4 bytes. */
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  readonly indirect: boolean;
  readonly eventIdx: boolean;
  /** The driver wants an interrupt for what was used. */
  readonly interrupt: () => void;
  readonly onBroken: (reason: string) => void;
}

interface Descriptor {
  readonly gpa: number;
  readonly lenBytes: number;
  readonly flags: number;
  readonly next: number;
}

export class Virtqueue {
  readonly size: number;
  private readonly options: VirtqueueOptions;
  private readonly dma: Dma;
  private readonly pops = new InOrder();
  private readonly pushes = new InOrder();
  private readonly inFlight = new Set<DescriptorChain>();
  /** The next entry of the available ring to take, and of the used ring to fill: they count on, modulo 2^16. */
  private lastAvail = 0;
  private usedIdx = 0;
  private broken = false;

  constructor(options: VirtqueueOptions) {
    this.options = options;
    this.size = options.size;
    this.dma = options.dma;
  }

  /** The next chain, or undefined where there is none, or the queue is broken or was reset. Never rejects. */
  pop(): Promise<DescriptorChain | undefined> | DescriptorChain | undefined {
    return this.pops.run(() => runSteps(this.attempt(() => this.take())));
  }

  /** Gives a chain back, with the number of bytes written to it, and interrupts the driver if it wants that. Never rejects; a chain that is not out is ignored. */
  push(chain: DescriptorChain, writtenBytes: number): Promise<void> | void {
    return this.pushes.run(() => runSteps(this.attempt(() => this.use(chain, writtenBytes))));
  }

  /** Breaks the queue, for what was in a chain. Ignored after a reset. */
  fail(reason: string): void {
    if (this.broken || this.dma.closed) return;
    this.broken = true;
    this.options.onBroken(reason);
  }

  private *attempt<T>(work: () => Steps<T>): Steps<T | undefined> {
    if (this.broken || this.dma.closed) return undefined;
    try {
      return yield* work();
    } catch (error) {
      this.fail(error instanceof Error ? error.message : String(error));
      return undefined;
    }
  }

  private *take(): Steps<DescriptorChain | undefined> {
    if (!(yield* this.hasAvailable())) return undefined;
    const { size } = this;
    if (this.inFlight.size >= size) throw new Error(`more than the queue's ${size} chains are under way at once`);
    const entry = this.options.avail + RING_HEADER_BYTES + 2 * (this.lastAvail % size);
    const head = yield* wait(this.dma.load16(entry));
    if (head >= size) throw new Error(`available ring entry ${head} must be below the queue's size ${size}`);
    const chain = yield* this.readChain(head);
    this.lastAvail = (this.lastAvail + 1) & 0xffff;
    this.inFlight.add(chain);
    return chain;
  }

  /**
   * With VIRTIO_F_EVENT_IDX the driver notifies when it passes the index that is left here, so the ring is looked at once more afterwards:
   *
   *     device                                 driver
   *     idx == lastAvail: nothing there
   *                                            idx++
   *                                            reads the event index: not passed, no notification
   *     event index = lastAvail
   *     looks again: there is one              (without the second look it would wait for ever)
   */
  private *hasAvailable(): Steps<boolean> {
    if ((yield* this.nrAvailable()) > 0) return true;
    if (!this.options.eventIdx) return false;
    yield* wait(this.dma.store16(this.options.used + RING_HEADER_BYTES + USED_ELEM_BYTES * this.size, this.lastAvail));
    return (yield* this.nrAvailable()) > 0;
  }

  private *nrAvailable(): Steps<number> {
    const idx = yield* wait(this.dma.load16(this.options.avail + 2));
    const nr = (idx - this.lastAvail) & 0xffff;
    if (nr > this.size)
      throw new Error(`available index ${idx} is ${nr} ahead, more than the queue's size ${this.size}`);
    return nr;
  }

  private *readChain(head: number): Steps<DescriptorChain> {
    const chain = new ChainBuilder();
    let at = head;
    for (let nr = 0; nr < this.size; nr++) {
      const descriptor = decode(yield* this.bytes(this.options.desc + DESC_BYTES * at, DESC_BYTES), 0);
      if ((descriptor.flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
        if ((descriptor.flags & VIRTQ_DESC_F_NEXT) !== 0) throw new Error('an indirect descriptor has a next one');
        yield* this.readIndirect(chain, descriptor);
        return chain.finish(head, this.dma);
      }
      chain.add(descriptor);
      if ((descriptor.flags & VIRTQ_DESC_F_NEXT) === 0) return chain.finish(head, this.dma);
      at = descriptor.next;
      if (at >= this.size) throw new Error(`next descriptor ${at} must be below the queue's size ${this.size}`);
    }
    throw new Error(`the chain at descriptor ${head} is cyclic or longer than the queue's size ${this.size}`);
  }

  /** The whole table is read at once, and then walked: what the driver changes meanwhile is not seen. */
  private *readIndirect(chain: ChainBuilder, { gpa, lenBytes }: Descriptor): Steps<void> {
    if (!this.options.indirect) throw new Error('indirect descriptors were not negotiated');
    const nrEntries = lenBytes / DESC_BYTES;
    if (!Number.isInteger(nrEntries) || nrEntries < 1 || nrEntries > MAX_CHAIN)
      throw new Error(`an indirect table of ${lenBytes} bytes must have 1 to ${MAX_CHAIN} entries of ${DESC_BYTES}`);
    const table = yield* this.bytes(gpa, lenBytes);
    let at = 0;
    for (let nr = 0; nr < nrEntries; nr++) {
      const descriptor = decode(table, at);
      if ((descriptor.flags & VIRTQ_DESC_F_INDIRECT) !== 0) throw new Error('an indirect table has an indirect entry');
      chain.add(descriptor);
      if ((descriptor.flags & VIRTQ_DESC_F_NEXT) === 0) return;
      at = descriptor.next;
      if (at >= nrEntries) throw new Error(`next entry ${at} must be below the indirect table's ${nrEntries}`);
    }
    throw new Error(`the indirect table at 0x${gpa.toString(16)} is cyclic`);
  }

  private *bytes(gpa: number, lenBytes: number): Steps<DataView> {
    const bytes = new Uint8Array(lenBytes);
    yield* wait(this.dma.read(gpa, bytes));
    return new DataView(bytes.buffer);
  }

  private *use(chain: DescriptorChain, writtenBytes: number): Steps<void> {
    if (!this.inFlight.delete(chain)) return;
    const element = new Uint8Array(USED_ELEM_BYTES);
    const view = new DataView(element.buffer);
    view.setUint32(0, chain.head, true);
    view.setUint32(4, Math.min(writtenBytes, chain.writableBytes, 0xffffffff), true);
    const { used } = this.options;
    yield* wait(this.dma.write(used + RING_HEADER_BYTES + USED_ELEM_BYTES * (this.usedIdx % this.size), element));
    const old = this.usedIdx;
    this.usedIdx = (old + 1) & 0xffff;
    yield* wait(this.dma.store16(used + 2, this.usedIdx));
    if (yield* this.wantsInterrupt(old)) this.options.interrupt();
  }

  /** By the event index the driver wants one when `usedIdx` passes it (2.7.10, vring_need_event). */
  private *wantsInterrupt(old: number): Steps<boolean> {
    const { avail, eventIdx } = this.options;
    if (!eventIdx) return ((yield* wait(this.dma.load16(avail))) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
    const event = yield* wait(this.dma.load16(avail + RING_HEADER_BYTES + 2 * this.size));
    return ((this.usedIdx - event - 1) & 0xffff) < ((this.usedIdx - old) & 0xffff);
  }
}

class ChainBuilder {
  private readonly readable: GuestRun[] = [];
  private readonly writable: GuestRun[] = [];

  add({ gpa, lenBytes, flags }: Descriptor): void {
    const write = (flags & VIRTQ_DESC_F_WRITE) !== 0;
    if (!write && this.writable.length > 0) throw new Error('a readable descriptor comes after a writable one');
    if (!Number.isSafeInteger(gpa + lenBytes)) throw new Error(`descriptor at 0x${gpa.toString(16)} is not in RAM`);
    (write ? this.writable : this.readable).push({ gpa, lenBytes });
  }

  finish(head: number, dma: Dma): DescriptorChain {
    return new DescriptorChain(head, this.readable, this.writable, dma);
  }
}

/** Entry `index` of a table of struct virtq_desc. */
function decode(table: DataView, index: number): Descriptor {
  const at = DESC_BYTES * index;
  return {
    gpa: table.getUint32(at, true) + table.getUint32(at + 4, true) * 2 ** 32,
    lenBytes: table.getUint32(at + 8, true),
    flags: table.getUint16(at + 12, true),
    next: table.getUint16(at + 14, true),
  };
}

/** Runs jobs one at a time, in the order in which they came; at once where none waits. They never reject. */
class InOrder {
  private last: Promise<unknown> | undefined;

  run<T>(job: () => Promise<T> | T): Promise<T> | T {
    const turn = this.last === undefined ? job() : this.last.then(job);
    if (!(turn instanceof Promise)) return turn;
    this.last = turn;
    void turn.then(() => {
      if (this.last === turn) this.last = undefined;
    });
    return turn;
  }
}
