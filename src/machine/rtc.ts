import type { Device } from './mmio.js';

/**
 * A goldfish RTC: the date, in nanoseconds since 1970 (UTC), with an alarm. The guest may set it, which moves its own date alone.
 *
 * The interrupt line is a level, reported to `setIrq` whenever it changes: the alarm went off, and interrupts are enabled. Reading the time's low
 * half fixes the high half that is read next; writing works the other way round, the low half last.
 *
 * Source: the Android emulator's hardware documentation, "goldfish_rtc". Use: `new GoldfishRtc({ unixMs, setTimer, setIrq })`; `stop()` at the end.
 */

const TIME_LOW = 0x00;
const TIME_HIGH = 0x04;
const ALARM_LOW = 0x08;
const ALARM_HIGH = 0x0c;
const IRQ_ENABLED = 0x10;
const CLEAR_ALARM = 0x14;
const ALARM_STATUS = 0x18;
const CLEAR_INTERRUPT = 0x1c;
const NS_PER_MS = 1_000_000n;
/** As long as a timer of any host can wait; then it looks again. */
const LONGEST_MS = 2 ** 30;

export interface GoldfishRtcOptions {
  /** The host's date: milliseconds since 1970. */
  readonly unixMs: () => number;
  /** Calls `fn` after `ms` milliseconds; the result cancels it. */
  readonly setTimer: (fn: () => void, ms: number) => () => void;
  readonly setIrq: (on: boolean) => void;
}

export class GoldfishRtc implements Device {
  readonly name = 'rtc';
  private readonly options: GoldfishRtcOptions;
  /** What the guest has added to the host's date. */
  private offsetNs = 0n;
  private timeHigh = 0;
  private timeHighToSet = 0;
  private alarmLow = 0;
  private alarmHigh = 0;
  private alarmNs: bigint | undefined;
  private irqEnabled = false;
  private pending = false;
  private line = false;
  private cancel: (() => void) | undefined;

  constructor(options: GoldfishRtcOptions) {
    this.options = options;
  }

  private nowNs(): bigint {
    // In microseconds first: a number has not the digits for more.
    return BigInt.asUintN(64, BigInt(Math.round(this.options.unixMs() * 1000)) * 1000n + this.offsetNs);
  }

  read(offset: number): number {
    switch (offset) {
      case TIME_LOW: {
        const now = this.nowNs();
        this.timeHigh = Number(now >> 32n);
        return Number(now & 0xffff_ffffn);
      }
      case TIME_HIGH:
        return this.timeHigh;
      case ALARM_LOW:
        return this.alarmLow;
      case ALARM_HIGH:
        return this.alarmHigh;
      case IRQ_ENABLED:
        return Number(this.irqEnabled);
      case ALARM_STATUS:
        return Number(this.alarmNs !== undefined);
      default:
        return 0;
    }
  }

  write(offset: number, _lenBytes: number, value: number): void {
    switch (offset) {
      case TIME_LOW:
        this.setTime((BigInt(this.timeHighToSet) << 32n) | BigInt(value >>> 0));
        break;
      case TIME_HIGH:
        this.timeHighToSet = value >>> 0;
        break;
      case ALARM_LOW:
        this.alarmLow = value >>> 0;
        this.alarmNs = (BigInt(this.alarmHigh) << 32n) | BigInt(this.alarmLow);
        this.look();
        break;
      case ALARM_HIGH:
        this.alarmHigh = value >>> 0;
        break;
      case IRQ_ENABLED:
        this.irqEnabled = (value & 1) !== 0;
        this.update();
        break;
      case CLEAR_ALARM:
        this.stop();
        break;
      case CLEAR_INTERRUPT:
        this.pending = false;
        this.update();
        break;
    }
  }

  private setTime(ns: bigint): void {
    this.offsetNs += ns - this.nowNs();
    this.look();
  }

  /** The alarm goes off when its time has come; else it is looked at again when it should have. */
  private look(): void {
    this.cancel?.();
    this.cancel = undefined;
    if (this.alarmNs === undefined) return;
    const ms = Number((this.alarmNs - this.nowNs()) / NS_PER_MS);
    if (this.alarmNs > this.nowNs()) {
      this.cancel = this.options.setTimer(() => this.look(), Math.min(ms + 1, LONGEST_MS));
      return;
    }
    this.alarmNs = undefined;
    this.pending = true;
    this.update();
  }

  private update(): void {
    const line = this.pending && this.irqEnabled;
    if (line === this.line) return;
    this.line = line;
    this.options.setIrq(line);
  }

  /** No alarm is set any more. */
  stop(): void {
    this.alarmNs = undefined;
    this.cancel?.();
    this.cancel = undefined;
  }
}
