import { FAULT_RETRY, type Mm, PAGE_SIZE, pfnToPa, type Vma, vpnToVa } from '../../src/mm/index.js';
import { pteIsPresent, pteIsSwap, ptePfn } from '../../src/mm/pgtable/pte.js';
import type { SmapsEntry } from '../../src/mm/stat/smaps.js';
import { VM_MAYSHARE } from '../../src/mm/vma/vma.js';
import {
  PAGE_IS_EXCLUSIVE,
  PAGE_IS_FILE,
  PAGE_IS_HASHED,
  PAGE_IS_PRESENT,
  PAGE_IS_SWAPPED,
  PAGE_IS_ZERO,
  PERM_SHARED,
  SMAPS_NAMES,
  type View,
  type VmaView,
} from './trace.js';
import type { UnpinWorld } from './unpin.js';

/** What an mm of Unpin's looks like, in the terms of peer/observe.c. Absent pages are not touched, unless all are to be read. */
export function lookAtMm(world: UnpinWorld, mm: Mm, what: 'present' | 'everything' | 'VMAs'): View {
  const { windowPages } = world.program;
  const pages: Pages = { states: new Uint8Array(windowPages), hashes: new Uint32Array(windowPages) };
  const inWindow = world.vmasInWindow(mm);
  const counts = new Map(mm.smaps().map((entry) => [entry.start, entry]));
  for (const vma of inWindow) {
    if (what === 'present') lookAtPages(world, vma, pages);
    else if (what === 'everything') readPages(world, vma, pages);
  }
  return {
    total: mm.vm.total - world.base.totalPages,
    data: mm.vm.data - world.base.dataPages,
    locked: mm.vm.locked,
    vmas: inWindow.map((vma) => vmaView(world, vma, counts.get(vma.start)!)),
    ...pages,
    knowsZero: true,
    zeroHash: hashOf(world, world.host.frames.zeroPfn),
  };
}

interface Pages {
  readonly states: Uint8Array;
  readonly hashes: Uint32Array;
}

function vmaView(world: UnpinWorld, vma: Vma, smaps: SmapsEntry): VmaView {
  return {
    startPage: world.pageOf(vma.startVpn),
    endPage: world.pageOf(vma.endVpn),
    perms: vma.prot | ((vma.flags & VM_MAYSHARE) !== 0 ? PERM_SHARED : 0),
    vmFlags: VM_FLAGS.reduce((flags, bit, i) => flags | ((vma.flags & bit) !== 0 ? 1 << i : 0), 0),
    counts: SMAPS_NAMES.map((name) => smaps[name]),
    offset: vma.file === undefined ? 0 : vma.pgoff * PAGE_SIZE,
    file: fileNumber(world, vma),
  };
}

/** Linux's numbers of the flags in VM_FLAG_NAMES; Unpin's are the same. */
const VM_FLAGS = [
  0x2000, 0x8_0000, 0x2_0000, 0x8000, 0x1_0000, 0x8000_0000, 0x20_0000, 0x10_0000, 0x200_0000, 0x400_0000,
];
const SHARED_ANONYMOUS = 1000;

function fileNumber(world: UnpinWorld, vma: Vma): number {
  if (vma.file === undefined) return 0;
  const number = world.files.findIndex((file) => file.mapping === vma.file!.mapping) + 1;
  return number === 0 ? SHARED_ANONYMOUS : number;
}

function lookAtPages(world: UnpinWorld, vma: Vma, { states, hashes }: Pages): void {
  const { pageTable } = vma.mm;
  for (let vpn = vma.startVpn; (vpn = pageTable.skipEmpty(vpn, vma.endVpn)) < vma.endVpn; vpn++) {
    const pte = pageTable.get(vpn);
    const page = world.pageOf(vpn);
    if (pteIsSwap(pte)) states[page] = PAGE_IS_SWAPPED;
    if (!pteIsPresent(pte)) continue;
    states[page] = PAGE_IS_PRESENT | kindOf(world, ptePfn(pte));
    if (!vma.allows(false)) continue;
    states[page]! |= PAGE_IS_HASHED;
    hashes[page] = hashOf(world, ptePfn(pte));
  }
}

function kindOf({ host }: UnpinWorld, pfn: number): number {
  const { frames } = host;
  if (pfn === frames.zeroPfn) return PAGE_IS_ZERO;
  const kind = frames.mapping[pfn]! < 0 ? PAGE_IS_FILE : 0;
  return frames.mapcount[pfn] === 1 ? kind | PAGE_IS_EXCLUSIVE : kind;
}

/** Reads all that can be read, wherever it is. */
function readPages(world: UnpinWorld, vma: Vma, { states, hashes }: Pages): void {
  if (!vma.allows(false)) return;
  for (let vpn = vma.startVpn; vpn < vma.endVpn; vpn++) {
    const pfn = getPage(vma.mm, vpnToVa(vpn));
    if (pfn < 0) continue;
    states[world.pageOf(vpn)] = PAGE_IS_HASHED;
    hashes[world.pageOf(vpn)] = hashOf(world, pfn);
    vma.mm.putPage(pfn);
  }
}

function getPage(mm: Mm, va: number): number {
  for (;;) {
    const pfn = mm.tryGetPage(va, 0);
    if (pfn !== FAULT_RETRY) return pfn;
    mm.faultInSync(va, 0);
  }
}

/** XXH64 with seed 0, its low 32 bits. */
function hashOf({ host }: UnpinWorld, pfn: number): number {
  return host.pageOps.checksum(pfnToPa(pfn), 0, 0) >>> 0;
}
