import { type Hart, IRQ_S_TIMER } from '../riscv/index.js';
import { TICKS_PER_MS, type VmClock } from './clock.js';

/**
 * The timer of a vCPU (SBI TIME), by the guest's clock.
 */

/** While the clock stands nothing becomes due: who sleeps until then looks again so often. */
const LOOK_AGAIN_MS = 1;

export class VcpuTimer {
  private readonly hart: Hart;
  private readonly clock: VmClock;
  private dueTicks = Number.POSITIVE_INFINITY;

  constructor(hart: Hart, clock: VmClock) {
    this.hart = hart;
    this.clock = clock;
  }

  /** Sets the next timer interrupt and takes a pending one back; Infinity: none. */
  set(ticks: number): void {
    this.dueTicks = ticks;
    this.hart.setInterruptPending(IRQ_S_TIMER, false);
    this.update();
  }

  /** Raises the timer interrupt when it is due. */
  update(): void {
    if (this.dueTicks === Number.POSITIVE_INFINITY || this.clock.now() < this.dueTicks) return;
    this.dueTicks = Number.POSITIVE_INFINITY;
    this.hart.setInterruptPending(IRQ_S_TIMER, true);
  }

  /** 0 or less: it is due. Never less than it takes, unless the clock stands meanwhile. */
  msUntilDue(): number {
    const ms = (this.dueTicks - this.clock.now()) / TICKS_PER_MS;
    return ms > 0 && this.clock.stands ? Math.max(ms, LOOK_AGAIN_MS) : ms;
  }

  stop(): void {
    this.dueTicks = Number.POSITIVE_INFINITY;
  }
}
