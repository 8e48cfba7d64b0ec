import { LGUEST_DATA, LGUEST_IRQ_VECTOR, LGUEST_TIMER_IRQ } from './abi.js';
import type { LguestClock } from './clock.js';
import type { LgCpu } from './cpu.js';
import { LG_OK } from './death.js';
import type { GuestAccess } from './guestaccess.js';
import type { LguestData } from './lguestdata.js';
import type { Traps } from './traps.js';

/**
 * Interrupts that are pending for the guest, and its timer (Linux: interrupt_pending, try_deliver_interrupt, guest_set_clockevent). The lowest number comes first. One that
 * the guest blocks, or has no handler for, stays pending; one that meets `irqEnabled` 0 leaves word in `irqPending`, and the guest asks for it by
 * LHCALL_SEND_INTERRUPTS when it has enabled them.
 */

/** There is none to deliver, or it may not be delivered now. */
export const NO_INTERRUPT = 1;

export class Interrupts {
  nrDelivered = 0;
  /** LHCALL_HALT: until an interrupt is delivered. */
  halted = false;
  private pending = 0;
  private dueTicks = Number.POSITIVE_INFINITY;
  private readonly clock: LguestClock;
  private readonly data: LguestData;
  private readonly access: GuestAccess;
  private readonly traps: Traps;

  constructor(cpu: LgCpu) {
    this.clock = cpu.clock;
    this.data = cpu.data;
    this.access = cpu.access;
    this.traps = cpu.traps;
  }

  raise(irq: number): void {
    this.pending |= 1 << irq;
  }

  /** LHCALL_SET_CLOCKEVENT; 0: none. A timer interrupt that is pending is taken back. */
  setClockevent(ns: number): void {
    this.pending &= ~(1 << LGUEST_TIMER_IRQ);
    this.dueTicks = ns === 0 ? Number.POSITIVE_INFINITY : this.clock.ticks() + ns / this.clock.nsPerTick;
  }

  /** Milliseconds until the timer is due: 0 or less, it is; Infinity: there is none. */
  msUntilDue(): number {
    if (this.dueTicks === Number.POSITIVE_INFINITY) return this.dueTicks;
    return (this.dueTicks - this.clock.ticks()) / this.clock.ticksPerMs;
  }

  /** Delivers one, if there is one that may come. LG_OK when it has, NO_INTERRUPT, or LG_WAIT, LG_DEAD. */
  deliver(): number {
    this.updateTimer();
    if (this.pending === 0 || this.data.gpa < 0) return NO_INTERRUPT;
    const read = this.data.read32(LGUEST_DATA.blockedInterrupts);
    if (read !== LG_OK) return read;
    const irq = lowestBit(this.pending & ~this.access.low);
    if (irq < 0 || !this.traps.hasHandler(LGUEST_IRQ_VECTOR + irq)) return NO_INTERRUPT;
    const enabled = this.halted ? 1 : this.traps.readIrqEnabled();
    if (enabled < 0) return enabled;
    return enabled === 0 ? this.leaveWord() : this.send(irq);
  }

  private updateTimer(): void {
    if (this.dueTicks === Number.POSITIVE_INFINITY || this.clock.ticks() < this.dueTicks) return;
    this.dueTicks = Number.POSITIVE_INFINITY;
    this.raise(LGUEST_TIMER_IRQ);
  }

  private leaveWord(): number {
    const written = this.data.write32(LGUEST_DATA.irqPending, 1);
    return written === LG_OK ? NO_INTERRUPT : written;
  }

  private send(irq: number): number {
    const told = this.tellTime();
    if (told !== LG_OK) return told;
    const cleared = this.data.write32(LGUEST_DATA.irqPending, 0);
    if (cleared !== LG_OK) return cleared;
    const sent = this.traps.interrupt(irq, LGUEST_IRQ_VECTOR + irq, this.halted);
    if (sent !== LG_OK) return sent;
    this.pending &= ~(1 << irq);
    this.halted = false;
    this.nrDelivered++;
    return LG_OK;
  }

  /** The time of day, and the time CSR at that instant, for the guest. */
  tellTime(): number {
    const { clock, data } = this;
    const { sec, nsec, ticks } = clock.timestamp();
    let written = data.write64(LGUEST_DATA.timeSec, sec | 0, Math.floor(sec / 2 ** 32));
    if (written === LG_OK) written = data.write64(LGUEST_DATA.timeNsec, nsec, 0);
    if (written === LG_OK) written = data.write64(LGUEST_DATA.timeTicks, ticks | 0, Math.floor(ticks / 2 ** 32));
    return written;
  }
}

function lowestBit(bits: number): number {
  return bits === 0 ? -1 : 31 - Math.clz32(bits & -bits);
}
