import { KernelError } from '../../base/index.js';
import type { GuestMemory } from '../guestmemory.js';

/**
 * Access to guest memory for as long as the driver has not reset the device. `close` ends it: later accesses throw ENODEV, and `idle`
 * resolves when those under way are done, so that no byte is written after the driver was told that the reset is complete.
 *
 * It also keeps the thread from belonging to one guest: a guest whose harts run in other threads can feed a device without an end, so after
 * some work others get their turn (`defer`) before more is done.
 */

/** Calls `fn` once other work has had its turn. */
export type Defer = (fn: () => void) => void;

/** Work between two turns of others: an access counts 1, and 1 more for each 256 bytes. About a millisecond. */
const TURN_WORK = 4096;

export class Dma implements GuestMemory {
  private readonly memory: GuestMemory;
  private readonly defer: Defer;
  private work = 0;
  private busy = 0;
  private onIdle: (() => void)[] = [];
  private isClosed = false;

  constructor(memory: GuestMemory, defer: Defer) {
    this.memory = memory;
    this.defer = defer;
  }

  get closed(): boolean {
    return this.isClosed;
  }

  read(gpa: number, dst: Uint8Array): Promise<void> | void {
    return this.tracked(dst.length, () => this.memory.read(gpa, dst));
  }

  write(gpa: number, src: Uint8Array): Promise<void> | void {
    return this.tracked(src.length, () => this.memory.write(gpa, src));
  }

  load16(gpa: number): Promise<number> | number {
    return this.tracked(2, () => this.memory.load16(gpa));
  }

  store16(gpa: number, value: number): Promise<void> | void {
    return this.tracked(2, () => this.memory.store16(gpa, value));
  }

  private tracked<T>(lenBytes: number, access: () => Promise<T> | T): Promise<T> | T {
    this.refuseClosed();
    this.work += 1 + lenBytes / 256;
    const result = this.work > TURN_WORK ? this.afterOthers(access) : access();
    return result instanceof Promise ? this.count(result) : result;
  }

  /** Counts as under way already while it waits for its turn. */
  private async afterOthers<T>(access: () => Promise<T> | T): Promise<T> {
    await new Promise<void>((resolve) => this.defer(resolve));
    this.work = 0;
    return access();
  }

  private refuseClosed(): void {
    if (this.isClosed) throw new KernelError('ENODEV', 'virtio', 'the driver has reset the device');
  }

  private async count<T>(access: Promise<T>): Promise<T> {
    this.busy++;
    try {
      return await access;
    } finally {
      if (--this.busy === 0) for (const resolve of this.onIdle.splice(0)) resolve();
    }
  }

  close(): void {
    this.isClosed = true;
  }

  /** Resolves when no access is under way; undefined when none is. */
  idle(): Promise<void> | undefined {
    if (this.busy === 0) return undefined;
    return new Promise((resolve) => this.onIdle.push(resolve));
  }
}
