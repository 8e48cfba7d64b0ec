import { beforeEach, expect, it } from 'vitest';
import { GoldfishRtc } from '../../src/machine/index.js';

/** The clock that tells the date, register by register. */

const [TIME_LOW, TIME_HIGH, ALARM_LOW, ALARM_HIGH, IRQ_ENABLED, CLEAR_ALARM, ALARM_STATUS, CLEAR_INTERRUPT] = [
  ...[0x00, 0x04, 0x08, 0x0c],
  ...[0x10, 0x14, 0x18, 0x1c],
] as [number, number, number, number, number, number, number, number];

let now: number;
let line: boolean;
let timer: { fn: () => void; at: number } | undefined;
let rtc: GoldfishRtc;

beforeEach(() => {
  now = 1_700_000_000_123;
  line = false;
  timer = undefined;
  rtc = new GoldfishRtc({
    unixMs: () => now,
    setTimer: (fn, ms) => {
      timer = { fn, at: now + ms };
      return () => {
        timer = undefined;
      };
    },
    setIrq: (on) => {
      line = on;
    },
  });
});

function readTime(): bigint {
  const low = BigInt(rtc.read(TIME_LOW));
  return (BigInt(rtc.read(TIME_HIGH)) << 32n) | low;
}

function put(low: number, high: number, value: bigint): void {
  rtc.write(high, 4, Number(value >> 32n));
  rtc.write(low, 4, Number(value & 0xffff_ffffn));
}

function advance(ms: number): void {
  now += ms;
  while (timer !== undefined && timer.at <= now) {
    const { fn } = timer;
    timer = undefined;
    fn();
  }
}

it('tells the date in nanoseconds; the high half is that of the low one that was read', () => {
  expect(readTime()).toBe(1_700_000_000_123_000_000n);
  rtc.read(TIME_LOW);
  const high = rtc.read(TIME_HIGH);
  now += 10_000;
  expect(rtc.read(TIME_HIGH)).toBe(high);
  expect(readTime()).toBe(1_700_000_010_123_000_000n);
});

it('is set by the guest, and goes on from there', () => {
  put(TIME_LOW, TIME_HIGH, 5_000_000_000_000n);
  expect(readTime()).toBe(5_000_000_000_000n);
  advance(7);
  expect(readTime()).toBe(5_000_007_000_000n);
});

it('an alarm raises the line when it is due, if it may, until it is cleared', () => {
  rtc.write(IRQ_ENABLED, 4, 1);
  put(ALARM_LOW, ALARM_HIGH, readTime() + 2_000_000_000n);
  advance(1999);
  expect([line, rtc.read(ALARM_STATUS)]).toEqual([false, 1]);
  advance(2);
  expect([line, rtc.read(ALARM_STATUS)]).toEqual([true, 0]);
  rtc.write(CLEAR_INTERRUPT, 4, 1);
  expect(line).toBe(false);
  // What is past already goes off at once; with interrupts off, when they are on.
  rtc.write(IRQ_ENABLED, 4, 0);
  put(ALARM_LOW, ALARM_HIGH, readTime() - 1n);
  expect(line).toBe(false);
  rtc.write(IRQ_ENABLED, 4, 1);
  expect(line).toBe(true);
});

it('an alarm is cleared, moved, years away, and due at once when the date is set beyond it', () => {
  rtc.write(IRQ_ENABLED, 4, 1);
  put(ALARM_LOW, ALARM_HIGH, readTime() + 1_000_000n);
  rtc.write(CLEAR_ALARM, 4, 1);
  advance(100);
  expect([line, timer]).toEqual([false, undefined]);
  const year = 365n * 24n * 3600n * 1_000_000_000n;
  put(ALARM_LOW, ALARM_HIGH, readTime() + year);
  advance(300 * 24 * 3600 * 1000);
  expect([line, rtc.read(ALARM_STATUS)]).toEqual([false, 1]);
  put(TIME_LOW, TIME_HIGH, readTime() + year);
  expect(line).toBe(true);
});
