import { Host, MAP_ANONYMOUS, MAP_PRIVATE, MemorySwap, type Mm, type Vma } from '../../src/mm/index.js';
import { PteNotifier, type PteNotifierOps } from '../../src/notifier/index.js';

export const PAGE = 4096;
export const ANON = MAP_PRIVATE | MAP_ANONYMOUS;

/** A host of 64 frames and an mm with one VMA of 16 pages. */
export function setUp() {
  const host = new Host({ frames: 64, arenaBytes: 65536, swap: new MemorySwap({ sizeBytes: 2 ** 22 }), debug: true });
  const mm = host.createMm();
  const va = mm.mmap(0, 16 * PAGE, 3, ANON);
  return { host, mm, va, vma: mm.findVma(va)! };
}

/** Writes a byte to pages [first, first + nr) from `va` on. */
export function touch(mm: Mm, va: number, first: number, nr: number): void {
  for (let p = first; p < first + nr; p++) mm.writeSync(va + p * PAGE, new Uint8Array([p + 1]));
}

/** A driver that writes down what it is told: pages count from `va`. */
export function recorder(va: number, more: Partial<PteNotifierOps> = {}) {
  const log: string[] = [];
  const piece = (vma: Vma) => `[${(vma.start - va) / PAGE}, ${(vma.end - va) / PAGE})`;
  const pn = new PteNotifier({
    clear: (_pn, vma, address) => void log.push(`clear ${(address - va) / PAGE} of ${piece(vma)}`),
    close: (_pn, vma) => void log.push(`close ${piece(vma)}`),
    release: () => void log.push('release'),
    ...more,
  });
  return { log, pn };
}
