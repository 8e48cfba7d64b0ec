/**
 * Costs of the memory manager, nanoseconds a page: medians of several rounds. `npm run bench -- mm`.
 */

import {
  FAULT_FLAG_WRITE,
  Host,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MemorySwap,
  type Mm,
  mmuNotifierRegister,
  type SwapDevice,
  VA_SIZE,
} from '../src/mm/index.js';
import { openFileSwap } from '../src/node/index.js';
import { median } from './lib/common.js';

const PAGE = 4096;
const NR = 8192;
const ROUNDS = 9;

/** Prints the median of nanoseconds a page over the rounds; `prepare` is not timed. */
async function measure(name: string, nrPages: number, prepare: () => unknown, body: () => unknown): Promise<void> {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    await prepare();
    const start = performance.now();
    await body();
    times.push(((performance.now() - start) * 1e6) / nrPages);
  }
  console.log(`${name.padEnd(56)} ${median(times).toFixed(0).padStart(8)} ns/page`);
}

function newHost(frames: number, swap?: SwapDevice): { host: Host; mm: Mm } {
  const host = new Host({ frames, ...(swap ? { swap } : {}), defer: (fn) => setImmediate(fn) });
  return { host, mm: host.createMm() };
}

const map = (mm: Mm, nr = NR) => mm.mmap(0, nr * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS);

function touch(mm: Mm, va: number, nr: number): void {
  for (let p = 0; p < nr; p++) mm.putPage(mm.tryGetPage(va + p * PAGE, FAULT_FLAG_WRITE));
}

async function resident(nrNotifiers: number): Promise<void> {
  const { host, mm } = newHost(NR + 1024);
  for (let i = 0; i < nrNotifiers; i++) {
    mmuNotifierRegister(mm, 0, VA_SIZE, { invalidateRangeStart: () => 0, invalidateRangeEnd: () => {} });
  }
  const with_ = ` (${nrNotifiers} notifiers)`;
  let va = map(mm);
  const remap = () => {
    mm.munmap(va, NR * PAGE);
    va = map(mm);
  };
  const remapAndTouch = () => {
    remap();
    touch(mm, va, NR);
  };
  await measure(`anonymous write fault with zeroing${with_}`, NR, remap, () => touch(mm, va, NR));
  await measure(
    `tryGetPage and putPage, resident${with_}`,
    NR,
    () => {},
    () => touch(mm, va, NR),
  );
  await measure(`munmap, mapped${with_}`, NR, remapAndTouch, () => mm.munmap(va, NR * PAGE));
  va = map(mm);
  await measure(`DONTNEED of a range${with_}`, NR, remapAndTouch, () => mm.madviseDontneed(va, NR * PAGE));
  await measure(`DONTNEED, a call a page${with_}`, NR, remapAndTouch, () => {
    for (let p = 0; p < NR; p++) mm.madviseDontneed(va + p * PAGE, PAGE);
  });
  mm.exit();
  await host.stop();
}

async function swapping(name: string, swap: SwapDevice): Promise<void> {
  const { host, mm } = newHost(1024, swap);
  const va = map(mm);
  const faultAll = async () => {
    for (let p = 0; p < NR; p++) {
      const pfn = mm.tryGetPage(va + p * PAGE, FAULT_FLAG_WRITE);
      if (pfn > 0) mm.putPage(pfn);
      else await mm.faultIn(va + p * PAGE, FAULT_FLAG_WRITE);
    }
  };
  await faultAll();
  await measure(`${name}: write every page, one out and one in each`, NR, () => {}, faultAll);
  if (swap.readSync !== undefined) {
    await measure(
      `${name}, blocking: the same`,
      NR,
      () => {},
      () => {
        for (let p = 0; p < NR; p++) mm.faultInSync(va + p * PAGE, FAULT_FLAG_WRITE);
      },
    );
  }
  await host.stop();
}

function pages(): void {
  const { host } = newHost(64);
  const pa = host.framesBase;
  const time = (name: string, body: () => void) => {
    const start = performance.now();
    for (let i = 0; i < 50_000; i++) body();
    console.log(`${name.padEnd(56)} ${(((performance.now() - start) * 1e6) / 50_000).toFixed(0).padStart(8)} ns`);
  };
  for (let i = 0; i < 2; i++) {
    time('zero a page', () => host.pageOps.zero(pa));
    time('copy a page', () => host.pageOps.copy(pa, pa + PAGE));
    time('checksum of a page', () => host.pageOps.checksum(pa, 1, 2));
  }
}

pages();
await resident(0);
await resident(1);
await swapping('memory swap', new MemorySwap({ sizeBytes: 4 * NR * PAGE }));
await swapping('file swap', await openFileSwap('/tmp/unpin-bench.swap', { sizeBytes: 4 * NR * PAGE }));
