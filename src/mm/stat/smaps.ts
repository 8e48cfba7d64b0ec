import { valueToSlot } from '../file/shmem.js';
import { PAGE_SIZE } from '../layout.js';
import type { Mm } from '../mm.js';
import { mmuNotifierTestYoung } from '../notifier/hooks.js';
import { PG_DIRTY, PG_REFERENCED, PG_SWAPBACKED, PG_YOUNG } from '../page/frames.js';
import { PTE_ACCESSED, PTE_DIRTY, pteIsPresent, pteIsSame, pteIsSwap, ptePfn, pteSwapSlot } from '../pgtable/pte.js';
import { isUndrained } from '../remote/undrained.js';
import { isAnon } from '../rmap/rmap.js';
import {
  PROT_EXEC,
  PROT_READ,
  PROT_WRITE,
  VM_ACCOUNT,
  VM_DONTCOPY,
  VM_DONTDUMP,
  VM_LOCKED,
  VM_LOCKONFAULT,
  VM_MAYSHARE,
  VM_NORESERVE,
  VM_RAND_READ,
  VM_SEQ_READ,
  VM_SHARED,
  VM_WIPEONFORK,
  type Vma,
} from '../vma/vma.js';

/**
 * Where the memory of an mm is, by VMA (Linux: /proc/pid/smaps) and in sum (smaps_rollup): the kernel's names, the kernel's meanings, in KiB as
 * there. Pss is what a process would give up alone: of a page that n ptes map, one n-th. Walks the page table; changes nothing.
 */

export interface SmapsCounts {
  Rss: number;
  Pss: number;
  Pss_Dirty: number;
  Shared_Clean: number;
  Shared_Dirty: number;
  Private_Clean: number;
  Private_Dirty: number;
  Referenced: number;
  Anonymous: number;
  /** Given up by MADV_FREE, and not taken yet. */
  LazyFree: number;
  Swap: number;
  SwapPss: number;
  /** Pss of locked mappings. */
  Locked: number;
}

export interface SmapsEntry extends SmapsCounts {
  /** Bytes [start, end). */
  readonly start: number;
  readonly end: number;
  /** `rw-p`: private, or `s`hared. */
  readonly perms: string;
  /** Of the first page in its file. */
  readonly offset: number;
  readonly name: string;
  readonly Size: number;
  readonly KernelPageSize: 4;
  readonly MMUPageSize: 4;
  /** Two letters for each flag, as `man 5 proc_pid_smaps` has them. */
  readonly VmFlags: string;
}

export interface SmapsRollup extends SmapsCounts {
  Pss_Anon: number;
  Pss_File: number;
  Pss_Shmem: number;
}

const KIB_PER_PAGE = PAGE_SIZE / 1024;

/** A share of a page, in KiB, is cut off at the kernel's 12 bits after the byte: sums of shares round as there. */
const SHARE_UNITS = 1024 << 12;

function shareOf(nrPtes: number): number {
  return Math.floor((KIB_PER_PAGE * SHARE_UNITS) / nrPtes) / SHARE_UNITS;
}

/** Whether the page was used since reclaim looked last. Linux does not ask external MMUs here, as DAMON does: a guest's memory would look unused. */
function isReferenced(mm: Mm, vpn: number, pte: number, flags: number): boolean {
  if ((pte & PTE_ACCESSED) !== 0 || (flags & (PG_REFERENCED | PG_YOUNG)) !== 0) return true;
  return mmuNotifierTestYoung(mm, vpn * PAGE_SIZE, (vpn + 1) * PAGE_SIZE);
}

/** Sums in KiB; shares of pages make fractions until `round`. */
class Counts implements SmapsRollup {
  Rss = 0;
  Pss = 0;
  Pss_Dirty = 0;
  Pss_Anon = 0;
  Pss_File = 0;
  Pss_Shmem = 0;
  Shared_Clean = 0;
  Shared_Dirty = 0;
  Private_Clean = 0;
  Private_Dirty = 0;
  Referenced = 0;
  Anonymous = 0;
  LazyFree = 0;
  Swap = 0;
  SwapPss = 0;
  Locked = 0;

  addVma(vma: Vma): void {
    const { pageTable } = vma.mm;
    for (let vpn = vma.startVpn; (vpn = pageTable.skipEmpty(vpn, vma.endVpn)) < vma.endVpn; vpn++) {
      const pte = pageTable.get(vpn);
      if (pteIsPresent(pte)) this.addPresent(vma, vpn, pte);
      else if (pteIsSwap(pte)) this.addSwap(vma.mm.host.swap.count[pteSwapSlot(pte)]!);
      else if (pteIsSame(pte)) this.addSwap(1);
    }
    if (vma.file?.mapping.isShmem === true) this.addShmemSwap(vma);
  }

  private addPresent(vma: Vma, vpn: number, pte: number): void {
    const { host } = vma.mm;
    const { flags, mapcount } = host.frames;
    const pfn = ptePfn(pte);
    if (pfn === host.frames.zeroPfn || isUndrained(host.frames, pte)) return;
    const f = flags[pfn]!;
    const share = shareOf(mapcount[pfn]!);
    const dirty = (pte & PTE_DIRTY) !== 0 || (f & PG_DIRTY) !== 0;
    this.Rss += KIB_PER_PAGE;
    this.Pss += share;
    if (dirty) this.Pss_Dirty += share;
    this[`${mapcount[pfn] === 1 ? 'Private' : 'Shared'}_${dirty ? 'Dirty' : 'Clean'}`] += KIB_PER_PAGE;
    if (isReferenced(vma.mm, vpn, pte, f)) this.Referenced += KIB_PER_PAGE;
    if (vma.locked) this.Locked += share;
    const anon = isAnon(host, pfn);
    this[anon ? 'Pss_Anon' : (f & PG_SWAPBACKED) !== 0 ? 'Pss_Shmem' : 'Pss_File'] += share;
    if (!anon) return;
    this.Anonymous += KIB_PER_PAGE;
    if (!dirty && (f & PG_SWAPBACKED) === 0) this.LazyFree += KIB_PER_PAGE;
  }

  private addSwap(nrPtes: number): void {
    this.Swap += KIB_PER_PAGE;
    this.SwapPss += shareOf(nrPtes);
  }

  /** Shared memory is swapped by its file, whoever maps it. */
  private addShmemSwap(vma: Vma): void {
    const { mapping } = vma.file!;
    const end = vma.pgoff + vma.nrPages;
    for (let index = vma.pgoff; (index = mapping.pages.next(index, end)) >= 0; index++) {
      const value = mapping.pages.get(index);
      if (value < 0) this.addSwap(Math.max(1, vma.mm.host.swap.count[valueToSlot(value)]!));
    }
  }

  /** Whole KiB, rounded down as the kernel does. */
  round(): this {
    for (const key of Object.keys(this) as (keyof SmapsRollup)[]) this[key] = Math.floor(this[key]);
    return this;
  }
}

/** One entry for each VMA, in the order of addresses. */
export function smaps(mm: Mm): SmapsEntry[] {
  return mm.vmas.all().map((vma) => {
    const counts = new Counts();
    counts.addVma(vma);
    const { Pss_Anon: _a, Pss_File: _f, Pss_Shmem: _s, ...own } = counts.round();
    return { ...headerOf(vma), ...own, VmFlags: vmFlagsOf(vma) };
  });
}

export function smapsRollup(mm: Mm): SmapsRollup {
  const counts = new Counts();
  for (let vma = mm.vmas.first; vma !== undefined; vma = vma.next) counts.addVma(vma);
  return { ...counts.round() };
}

function headerOf(vma: Vma) {
  const letter = (bit: number, c: string) => ((vma.prot & bit) !== 0 ? c : '-');
  const rights = letter(PROT_READ, 'r') + letter(PROT_WRITE, 'w') + letter(PROT_EXEC, 'x');
  return {
    start: vma.start,
    end: vma.end,
    perms: rights + ((vma.flags & VM_MAYSHARE) !== 0 ? 's' : 'p'),
    offset: vma.file === undefined ? 0 : vma.pgoff * PAGE_SIZE,
    name: vma.file?.name ?? '',
    Size: vma.nrPages * KIB_PER_PAGE,
    KernelPageSize: KIB_PER_PAGE as 4,
    MMUPageSize: KIB_PER_PAGE as 4,
  };
}

/** In the kernel's order: show_smap_vma_flags. */
function vmFlagsOf(vma: Vma): string {
  const { prot, flags } = vma;
  const names: [boolean, string][] = [
    [(prot & PROT_READ) !== 0, 'rd'],
    [(prot & PROT_WRITE) !== 0, 'wr'],
    [(prot & PROT_EXEC) !== 0, 'ex'],
    [(flags & VM_SHARED) !== 0, 'sh'],
    [true, 'mr'],
    [vma.mayWrite, 'mw'],
    [true, 'me'],
    [(flags & VM_MAYSHARE) !== 0, 'ms'],
    [(flags & VM_LOCKED) !== 0, 'lo'],
    [(flags & VM_SEQ_READ) !== 0, 'sr'],
    [(flags & VM_RAND_READ) !== 0, 'rr'],
    [(flags & VM_DONTCOPY) !== 0, 'dc'],
    [(flags & VM_LOCKONFAULT) !== 0, 'lf'],
    [(flags & VM_ACCOUNT) !== 0, 'ac'],
    [(flags & VM_NORESERVE) !== 0, 'nr'],
    [(flags & VM_WIPEONFORK) !== 0, 'wf'],
    [(flags & VM_DONTDUMP) !== 0, 'dd'],
    [vma.softDirty, 'sd'],
  ];
  return names.flatMap(([on, name]) => (on ? [name] : [])).join(' ');
}
