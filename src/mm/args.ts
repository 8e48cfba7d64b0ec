import { type ErrnoName, KernelError } from '../base/index.js';
import { bytesToPages, PAGE_SIZE, vaToVpn } from './layout.js';

/**
 * Arguments of calls. Linux takes addresses and lengths as unsigned long; here they are numbers, so what is no integer is EINVAL, and
 * what is negative is what C makes of it: larger than any address space.
 */

export function refuse(code: ErrnoName, syscall: string, message: string): never {
  throw new KernelError(code, syscall, message);
}

/** `0x1000`, for messages; fractions, NaN and negative numbers as they are. */
export function hex(value: number): string {
  return Number.isInteger(value) && value >= 0 ? `0x${value.toString(16)}` : String(value);
}

/** The value as an unsigned long: Infinity stands for what is negative. Throws KernelError EINVAL unless it is an integer. */
export function unsignedLong(syscall: string, name: string, value: number): number {
  if (!Number.isInteger(value)) refuse('EINVAL', syscall, `${name} ${value} must be an integer`);
  return value < 0 ? Number.POSITIVE_INFINITY : value;
}

export function checkFlags(syscall: string, name: string, value: number): void {
  if (!Number.isInteger(value)) refuse('EINVAL', syscall, `${name} ${value} must be an integer`);
}

export function checkPageAligned(syscall: string, addr: number): void {
  if (addr % PAGE_SIZE !== 0) refuse('EINVAL', syscall, `addr ${hex(addr)} must be a multiple of ${PAGE_SIZE}`);
}

/**
 * The pages [startVpn, endVpn) that `addr` and `length` name, for calls that go on to the first page that is not mapped: they may lie beyond
 * the address space. `wraps` is the errno for a range that wraps around in C. Throws KernelError EINVAL, and that.
 */
export function pageRange(
  syscall: string,
  addr: number,
  length: number,
  wraps: ErrnoName,
): [startVpn: number, endVpn: number] {
  const start = unsignedLong(syscall, 'addr', addr);
  checkPageAligned(syscall, addr);
  const len = unsignedLong(syscall, 'length', length);
  if (len === 0) return [0, 0];
  if (start + len === Number.POSITIVE_INFINITY)
    refuse(wraps, syscall, `${length} bytes at ${hex(addr)} must end below 2^39`);
  return [vaToVpn(start), vaToVpn(start) + bytesToPages(len)];
}
