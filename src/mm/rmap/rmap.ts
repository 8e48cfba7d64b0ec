import type { Host } from '../host.js';
import { mlockPage, munlockPage } from '../page/page.js';
import type { PageTable } from '../pgtable/pagetable.js';
import { pteIsPresent, ptePfn } from '../pgtable/pte.js';
import type { Vma } from '../vma/vma.js';

/**
 * The reverse map (Linux: rmap.c): from a frame to the ptes that map it. The frame names a root and an index in it: an anonVma, or the
 * address space of a file; the root knows the VMAs, the VMA the virtual page. `mapcount` counts the ptes.
 */

/** Knows the VMAs that may map a page: an anonVma, or the address space of a file. */
export interface RmapRoot {
  /** Calls `fn` for each VMA that contains page `index`, until it returns true. */
  visit(index: number, fn: (vma: Vma) => unknown): boolean;
}

/** A frame without a pte gets one in `vma`, which will be its only one: new, copied, or swapped in and shared with nobody. */
export function addNewAnonRmap(host: Host, vma: Vma, vpn: number, pfn: number): void {
  const anonVma = vma.anonVma ?? host.anonVmas.prepare(vma);
  setAnonRoot(host, pfn, anonVma.id, vma.pgoffOf(vpn));
  addRmap(host, vma, pfn);
}

/**
 * A pte of `vma` maps the frame, which others may map or name by their swap ptes. Only the family's oldest anonVma is sure to know all of
 * them (Linux: __folio_set_anon).
 */
export function addSharedAnonRmap(host: Host, vma: Vma, vpn: number, pfn: number): void {
  const anonVma = vma.anonVma ?? host.anonVmas.prepare(vma);
  if (host.frames.mapcount[pfn] === 0) setAnonRoot(host, pfn, anonVma.root.id, vma.pgoffOf(vpn));
  addRmap(host, vma, pfn);
}

/** The frame became `vma`'s alone: it is looked for there from now on (Linux: folio_move_anon_rmap). */
export function moveAnonRmap(host: Host, vma: Vma, pfn: number): void {
  host.frames.mapping[pfn] = vma.anonVma!.id;
}

function setAnonRoot(host: Host, pfn: number, id: number, index: number): void {
  host.frames.mapping[pfn] = id;
  host.frames.index[pfn] = index;
}

/** A pte of `vma` maps the frame from now on; the pte owns one reference. */
export function addRmap(host: Host, vma: Vma, pfn: number): void {
  const { frames } = host;
  frames.mapcount[pfn] = frames.mapcount[pfn]! + 1;
  vma.mm.addResident(1);
  if (vma.locked) mlockPage(host, pfn);
}

/** A pte of `vma` was cleared. The pte's reference is the caller's to drop. */
export function removeRmap(host: Host, vma: Vma, pfn: number): void {
  const { frames } = host;
  const mapcount = frames.mapcount[pfn]! - 1;
  frames.mapcount[pfn] = mapcount;
  vma.mm.addResident(-1);
  if (vma.locked) munlockPage(host, pfn);
  if (mapcount !== 0 || frames.mapping[pfn]! < 0) return;
  frames.mapping[pfn] = 0;
  frames.index[pfn] = 0;
}

/** Whether the frame is anonymous: not a page of a file or of shared memory. */
export function isAnon(host: Host, pfn: number): boolean {
  return host.frames.mapping[pfn]! > 0;
}

/** Calls `fn` for each VMA and virtual page that may map the frame, until it returns true. */
export function rmapVisit(host: Host, pfn: number, fn: (vma: Vma, vpn: number) => unknown): boolean {
  const { frames } = host;
  const id = frames.mapping[pfn]!;
  const root: RmapRoot | undefined = id < 0 ? host.pageCache.get(-id) : host.anonVmas.get(id);
  if (root === undefined) return false;
  const index = frames.index[pfn]!;
  return root.visit(index, (vma) => fn(vma, vma.vpnOf(index)));
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
