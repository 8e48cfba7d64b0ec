import { type Hart, IRQ_S_TIMER } from '../riscv/index.js';

/**
 * The guest's clock and its timer (SBI TIME): ticks of the device tree's timebase since the VM's first vCPU was made.
 */

export const TIMEBASE_HZ = 10_000_000;
const TICKS_PER_MS = TIMEBASE_HZ / 1000;

export class VcpuTimer {
  private readonly hart: Hart;
  private readonly nowMs: () => number;
  private readonly startMs: number;
  private dueTicks = Number.POSITIVE_INFINITY;

  /** `nowMs`: the environment's clock, by which the guest's began at `startMs`. */
  constructor(hart: Hart, nowMs: () => number, startMs: number) {
    this.hart = hart;
    this.nowMs = nowMs;
    this.startMs = startMs;
  }

  /** Ticks, a whole number. */
  now(): number {
    return Math.floor((this.nowMs() - this.startMs) * TICKS_PER_MS);
  }

  /** Sets the next timer interrupt and takes a pending one back; Infinity: none. */
  set(ticks: number): void {
    this.dueTicks = ticks;
    this.hart.setInterruptPending(IRQ_S_TIMER, false);
    this.update();
  }

  /** Raises the timer interrupt when it is due. */
  update(): void {
    if (this.dueTicks === Number.POSITIVE_INFINITY || this.now() < this.dueTicks) return;
    this.dueTicks = Number.POSITIVE_INFINITY;
    this.hart.setInterruptPending(IRQ_S_TIMER, true);
  }

  msUntilDue(): number {
    return (this.dueTicks - this.now()) / TICKS_PER_MS;
  }

  stop(): void {
    this.dueTicks = Number.POSITIVE_INFINITY;
  }
}
