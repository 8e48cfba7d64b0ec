import { Worker } from 'node:worker_threads';
import { PAGE_SIZE, type SwapDevice } from '../../src/mm/index.js';

/**
 * A swap device of a known rate and latency, over another one that is faster: a queue with one server. A transfer has the device for its bytes / rate, in the order of arrival, and is told
 * `latencyUs` after that; so several in flight share the rate and not the latency, as on a disk. It ends when both that and the real transfer are over.
 *
 * A thread of its own keeps the time. WHY: timers of the event loop count milliseconds; a futex sleeps to 50 µs. It waits for what is due next, and tells all that is due.
 */

const CLOCK = `
const { parentPort, workerData } = require('node:worker_threads');
const words = new Int32Array(workerData.shared);          // asked, told
const dues = new Float64Array(workerData.dues);
let at = 0;
for (;;) {
  while (Atomics.load(words, 0) === at) Atomics.wait(words, 0, at);
  const left = dues[at % dues.length] - (performance.timeOrigin + performance.now());
  if (left > 0) Atomics.wait(words, 1, 0, left);
  else parentPort.postMessage(at++);
}`;

/** Transfers that wait for their time, at most. */
const MAX_DUE = 65536;

export class LimitedSwap implements SwapDevice {
  readonly name: string;
  readonly nrSlots: number;
  private readonly inner: SwapDevice;
  private readonly bytesPerMs: number;
  private readonly latencyMs: number;
  private readonly words = new Int32Array(new SharedArrayBuffer(8));
  private readonly dues = new Float64Array(new SharedArrayBuffer(8 * MAX_DUE));
  private readonly waiting: (() => void)[] = [];
  private readonly clock: Worker;
  private freeAt = 0;
  private nrAsked = 0;

  constructor(inner: SwapDevice, bytesPerSecond: number, latencyUs: number) {
    this.inner = inner;
    this.nrSlots = inner.nrSlots;
    this.name = `${inner.name}, ${bytesPerSecond / 1e6} MB/s`;
    this.bytesPerMs = bytesPerSecond / 1000;
    this.latencyMs = latencyUs / 1000;
    const workerData = { shared: this.words.buffer, dues: this.dues.buffer };
    this.clock = new Worker(CLOCK, { eval: true, workerData });
    this.clock.on('message', () => this.waiting.shift()!());
    this.clock.unref();
  }

  async read(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    await Promise.all([this.inner.read(slots, frames), this.turn(slots.length)]);
  }

  async write(slots: readonly number[], frames: readonly Uint8Array[]): Promise<void> {
    await Promise.all([this.inner.write(slots, frames), this.turn(slots.length)]);
  }

  private turn(nrPages: number): Promise<void> {
    const now = performance.timeOrigin + performance.now();
    this.freeAt = Math.max(this.freeAt, now) + (nrPages * PAGE_SIZE) / this.bytesPerMs;
    this.dues[this.nrAsked % MAX_DUE] = this.freeAt + this.latencyMs;
    this.nrAsked = (this.nrAsked + 1) | 0;
    Atomics.store(this.words, 0, this.nrAsked);
    Atomics.notify(this.words, 0);
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  async close(): Promise<void> {
    await this.clock.terminate();
    await this.inner.close();
  }
}
