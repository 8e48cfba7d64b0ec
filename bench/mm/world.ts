import {
  FAULT_FLAG_WRITE,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  type Mm,
  mmuNotifierRegister,
  PROT_READ,
  PROT_WRITE,
  VA_SIZE,
} from '../../src/mm/index.js';

/** Our side of bench/mm: a host whose mms each have one subscriber over all of them, as an external MMU would be. */

export const PAGE = 4096;
/** Bytes that a leaf table spans. */
const LEAF = 512 * PAGE;

/** Nanoseconds of CPU time that the process spent on `body`; elapsed where that is too short to tell. */
export function timed(body: () => void): number {
  const cpu = process.cpuUsage();
  const start = performance.now();
  body();
  const elapsedMs = performance.now() - start;
  const { user, system } = process.cpuUsage(cpu);
  return elapsedMs < 1 ? elapsedMs * 1e6 : (user + system) * 1e3;
}

export function newHost(frames: number, pageTables?: number): Host {
  return new Host({ frames, ...(pageTables ? { pageTables } : {}), defer: (fn) => setImmediate(fn) });
}

export function newMm(host: Host): Mm {
  const mm = host.createMm();
  mmuNotifierRegister(mm, 0, VA_SIZE, { invalidateRangeStart: () => 0, invalidateRangeEnd: () => {} });
  return mm;
}

/** An address for `nrPages` and one more, at the start of a leaf table; mapped by `map`. */
export function place(mm: Mm, nrPages: number): number {
  const length = (nrPages + 1) * PAGE + LEAF;
  const va = mm.mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  mm.munmap(va, length);
  return Math.ceil(va / LEAF) * LEAF;
}

export function map(mm: Mm, nrPages: number): number {
  const va = place(mm, nrPages);
  mm.munmap(va, nrPages * PAGE);
  return mm.mmap(va, nrPages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | 0x10);
}

/** Writes a byte to each page, as an external MMU would that has none of them. */
export function touch(mm: Mm, va: number, nrPages: number): void {
  const { u8 } = mm.host;
  for (let p = 0; p < nrPages; p++) {
    const pfn = mm.tryGetPage(va + p * PAGE, FAULT_FLAG_WRITE);
    u8[pfn * PAGE] = 1;
    mm.putPage(pfn);
  }
}

export function touched(mm: Mm, nrPages: number): number {
  const va = map(mm, nrPages);
  touch(mm, va, nrPages);
  return va;
}
