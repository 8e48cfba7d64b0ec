import { KernelError } from '../base/index.js';

/**
 * Where everything lies in the one shared memory of a host, and the units of addresses.
 *
 * A host physical address is a byte offset in that memory, a pfn is the offset >>> 12. From the bottom: page 0 unused
 * (0 is never a valid frame or address), the arena, the page-table pool, the frame table, the zero page, the frames.
 *
 * Virtual addresses have 39 bits and travel as JavaScript numbers; a vpn (va / 4096) has 27 bits and fits an int32.
 */

export const PAGE_SHIFT = 12;
export const PAGE_SIZE = 4096;
/** Bytes of an mm's address space. */
export const VA_SIZE = 2 ** 39;
/** Pages of an mm's address space. */
export const NR_VPNS = 2 ** 27;
/** No mapping starts below this address, as Linux's mmap_min_addr: a null pointer stays one. */
export const MMAP_MIN_ADDR = 65536;

export const PTRS_PER_TABLE = 512;
export const TABLE_BYTES = PTRS_PER_TABLE * 4;

/** Words of struct page; see frames.ts. */
export const FRAME_FIELDS = 11;

const MAX_MEMORY = 2 ** 32;

export function vaToVpn(va: number): number {
  return Math.floor(va / PAGE_SIZE);
}

export function vpnToVa(vpn: number): number {
  return vpn * PAGE_SIZE;
}

/** Byte offset of a frame in the host's memory. */
export function pfnToPa(pfn: number): number {
  return (pfn << PAGE_SHIFT) >>> 0;
}

export function paToPfn(pa: number): number {
  return pa >>> PAGE_SHIFT;
}

/** Pages that `lenBytes` bytes reach into, from a page's start. */
export function bytesToPages(lenBytes: number): number {
  return Math.ceil(lenBytes / PAGE_SIZE);
}

export interface Layout {
  readonly arenaStart: number;
  readonly arenaBytes: number;
  readonly tablesBase: number;
  readonly nrTables: number;
  readonly frameTableBase: number;
  readonly framesBase: number;
  readonly firstPfn: number;
  readonly endPfn: number;
  readonly totalBytes: number;
}

/** Throws KernelError EINVAL when it all does not fit in 4 GiB, which is what WebAssembly's addresses reach. */
export function planLayout(nrFrames: number, arenaBytes: number, nrTables: number): Layout {
  const arenaStart = PAGE_SIZE;
  const tablesBase = alignUp(arenaStart + arenaBytes);
  const frameTableBase = tablesBase + alignUp(nrTables * TABLE_BYTES);
  // The frame table is indexed by pfn, so it has unused rows for what lies below the frames: 1 % of that.
  const rowsBelow = Math.ceil((frameTableBase + nrFrames * FRAME_FIELDS * 4) / (PAGE_SIZE - FRAME_FIELDS * 4)) + 3;
  const zeroPage = alignUp(frameTableBase + (rowsBelow + nrFrames) * FRAME_FIELDS * 4);
  const framesBase = zeroPage + PAGE_SIZE;
  const totalBytes = framesBase + nrFrames * PAGE_SIZE;
  if (totalBytes > MAX_MEMORY) {
    const mib = (n: number) => Math.ceil(n / 2 ** 20);
    throw new KernelError(
      'EINVAL',
      'Host',
      `${nrFrames} frames with arena and tables need ${mib(totalBytes)} MiB; all must fit in ${mib(MAX_MEMORY)} MiB`,
    );
  }
  const firstPfn = paToPfn(framesBase);
  return {
    arenaStart,
    arenaBytes,
    tablesBase,
    nrTables,
    frameTableBase,
    framesBase,
    firstPfn,
    endPfn: firstPfn + nrFrames,
    totalBytes,
  };
}

function alignUp(lenBytes: number): number {
  return Math.ceil(lenBytes / PAGE_SIZE) * PAGE_SIZE;
}
