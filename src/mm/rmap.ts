import type { Host } from './host.js';
import { munlockPage } from './page.js';
import type { PageTable } from './pagetable.js';
import { pteIsPresent, ptePfn } from './pte.js';
import type { Vma } from './vma.js';

/**
 * The reverse map (Linux: rmap.c): from a frame to the ptes that map it. The frame names an anonVma and an index in it, the
 * anonVma the VMAs, the VMA the virtual page. `mapcount` counts the ptes.
 */

/** A pte of `vma` maps the frame from now on; the pte owns one reference. */
export function addAnonRmap(host: Host, vma: Vma, vpn: number, pfn: number): void {
  const { frames } = host;
  const anonVma = vma.anonVma ?? host.anonVmas.prepare(vma);
  frames.mapping[pfn] = anonVma.id;
  frames.index[pfn] = vma.pgoffOf(vpn);
  frames.mapcount[pfn] = frames.mapcount[pfn]! + 1;
  vma.mm.addResident(1);
}

/** A pte of `vma` was cleared. The pte's reference is the caller's to drop. */
export function removeRmap(host: Host, vma: Vma, pfn: number): void {
  const { frames } = host;
  const mapcount = frames.mapcount[pfn]! - 1;
  frames.mapcount[pfn] = mapcount;
  vma.mm.addResident(-1);
  if (mapcount !== 0) return;
  frames.mapping[pfn] = 0;
  frames.index[pfn] = 0;
  munlockPage(host, pfn);
}

/** Calls `fn` for each VMA and virtual page that may map the frame, until it returns true. */
export function rmapVisit(host: Host, pfn: number, fn: (vma: Vma, vpn: number) => unknown): boolean {
  const { frames } = host;
  const anonVma = host.anonVmas.get(frames.mapping[pfn]!);
  if (anonVma === undefined) return false;
  const index = frames.index[pfn]!;
  return anonVma.visit(index, (vma) => fn(vma, vma.vpnOf(index)));
}

/**
 * Replaces the pte at `i` if it maps `pfn`; returns the old one, with the accessed and dirty bits it had to the end, or 0.
 * Inside a bracket: the external entries are gone and flushed before (N1), the frame is freed after it (N4).
 *
 *   reclaim                          external fault
 *   invalidateRangeStart: zapped
 *                                    seq read; pte read: still pfn
 *   tryToUnmapOne: pte cleared
 *   invalidateRangeEnd: seq moves
 *   frame freed                      readRetry: true -> looks again, never installs pfn
 */
export function tryToUnmapOne(pageTable: PageTable, i: number, pfn: number, replacement: number): number {
  const pte = pageTable.words.readOnce(i);
  if (!pteIsPresent(pte) || ptePfn(pte) !== pfn) return 0;
  return pageTable.getAndSet(i, replacement);
}
