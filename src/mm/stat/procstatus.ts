import { PAGE_SIZE, TABLE_BYTES } from '../layout.js';
import type { Mm } from '../mm.js';
import { PG_SWAPBACKED } from '../page/frames.js';
import { pteIsPresent, pteIsSame, pteIsSwap, ptePfn } from '../pgtable/pte.js';
import { isUndrained } from '../remote/undrained.js';
import { isAnon } from '../rmap/rmap.js';

/** The memory of an mm in sums (Linux: the Vm lines of /proc/pid/status): the kernel's names, in KiB as there. Walks the page table. */
export interface ProcStatus {
  /** All mappings: the most there were, and now. */
  VmPeak: number;
  VmSize: number;
  VmLck: number;
  /** Frames in memory: the most there were, and now, by kind. */
  VmHWM: number;
  VmRSS: number;
  RssAnon: number;
  RssFile: number;
  RssShmem: number;
  /** Private writable mappings; executable ones that are not writable. */
  VmData: number;
  VmExe: number;
  /** Page tables. */
  VmPTE: number;
  VmSwap: number;
}

const KIB_PER_PAGE = PAGE_SIZE / 1024;

export function procStatus(mm: Mm): ProcStatus {
  const { vm } = mm;
  const pages = countPages(mm);
  return {
    VmPeak: vm.peak * KIB_PER_PAGE,
    VmSize: vm.total * KIB_PER_PAGE,
    VmLck: vm.locked * KIB_PER_PAGE,
    VmHWM: mm.residentPeakPages * KIB_PER_PAGE,
    VmRSS: mm.residentPages * KIB_PER_PAGE,
    RssAnon: pages.anon * KIB_PER_PAGE,
    RssFile: pages.file * KIB_PER_PAGE,
    RssShmem: pages.shmem * KIB_PER_PAGE,
    VmData: vm.data * KIB_PER_PAGE,
    VmExe: vm.exec * KIB_PER_PAGE,
    VmPTE: (mm.pageTable.countTables((pte) => isUndrained(mm.host.frames, pte)) * TABLE_BYTES) / 1024,
    VmSwap: pages.swap * KIB_PER_PAGE,
  };
}

function countPages(mm: Mm): { anon: number; file: number; shmem: number; swap: number } {
  const { host, pageTable } = mm;
  const { flags, zeroPfn } = host.frames;
  const pages = { anon: 0, file: 0, shmem: 0, swap: 0 };
  pageTable.visit((_vpn, pte) => {
    if (pteIsSwap(pte) || pteIsSame(pte)) pages.swap++;
    if (!pteIsPresent(pte) || ptePfn(pte) === zeroPfn || isUndrained(host.frames, pte)) return;
    if (isAnon(host, ptePfn(pte))) pages.anon++;
    else if ((flags[ptePfn(pte)]! & PG_SWAPBACKED) !== 0) pages.shmem++;
    else pages.file++;
  });
  return pages;
}
