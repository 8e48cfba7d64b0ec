import { Host, MemorySwap, type Mm } from '../../src/mm/index.js';
import { digits, markdownTable, median } from '../lib/common.js';
import { map, newMm, PAGE, timed, touch } from './world.js';

/**
 * Pages that are one value repeated, on their way out and back, beside pages that go to a swap device in memory: nanoseconds a page, and the slots that they
 * take. The last column is what looking for one value costs.
 */
const NR = 4096;

export async function measureSameFilled(rounds: number): Promise<string> {
  const kinds: [string, (host: Host, pa: number) => void][] = [
    ['zeros', (host, pa) => host.pageOps.zero(pa)],
    ['one value', (host, pa) => host.pageOps.fillWords(pa, 0x0123_4567_89ab_cdefn)],
    ['contents', (host, pa) => void (host.u8[pa + 9] = 1)],
  ];
  const rows = kinds.map(([name, fill]) => row(name, rounds, fill));
  return markdownTable(['ns a page', 'out', 'back, by a write', 'slots a page', 'looking for one value'], rows);
}

function row(name: string, rounds: number, fill: (host: Host, pa: number) => void): string[] {
  const out: number[] = [];
  const back: number[] = [];
  const look: number[] = [];
  let slots = 0;
  for (let round = 0; round < rounds; round++) {
    const host = new Host({
      frames: 2 * NR,
      sameFilled: true,
      swap: new MemorySwap({ sizeBytes: NR * PAGE }),
      pageCluster: 0,
    });
    const mm = newMm(host);
    const va = map(mm, NR);
    touch(mm, va, NR);
    mm.forEachPresent(va / PAGE, va / PAGE + NR, (_vpn, pfn) => fill(host, pfn * PAGE));
    look.push(timed(() => lookAll(host, mm, va)) / NR);
    out.push(timed(() => pageOut(host, mm)) / NR);
    slots = host.stats().swapSlotsUsed / NR;
    back.push(timed(() => writeAll(mm, va)) / NR);
  }
  return [name, ...[out, back].map((ns) => digits(median(ns))), digits(slots), digits(median(look))];
}

function pageOut(host: Host, mm: Mm): void {
  while (mm.residentPages > 0) host.reclaim.shrink(true, true, true);
}

function lookAll(host: Host, mm: Mm, va: number): void {
  mm.forEachPresent(va / PAGE, va / PAGE + NR, (_vpn, pfn) => host.pageOps.isSameFilled(pfn * PAGE));
}

const BYTE = new Uint8Array([1]);

function writeAll(mm: Mm, va: number): void {
  for (let p = 0; p < NR; p++) mm.writeSync(va + p * PAGE, BYTE);
}
