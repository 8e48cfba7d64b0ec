import { FAULT_FLAG_WRITE, type Mm, PAGE_SIZE, pfnToPa } from '../mm/index.js';

/**
 * Accesses of up to 8 bytes that cross into the next page. Both pages are held by a reference, for writing both are writable, before
 * a byte is moved (N26): the fault of the second may reclaim, and must not take the first, nor leave half a store behind.
 */

/** The frames of the access under way. */
let first = 0;
let second = 0;
const bytes = new DataView(new ArrayBuffer(8));

/** The `lenBytes` bytes at `va` of `mm`; good until the next call. Throws as `Mm.faultInSync`. */
export function gather(mm: Mm, va: number, lenBytes: number): DataView {
  hold(mm, va, 0);
  const { u8 } = mm.host;
  for (let k = 0; k < lenBytes; k++) bytes.setUint8(k, u8[where(va, k)]!);
  letGo(mm);
  return bytes;
}

/** Writes the low `lenBytes` bytes of `low` (32 bits), then `high`, to `va` of `mm`. Throws as `Mm.faultInSync`. */
export function scatter(mm: Mm, va: number, lenBytes: number, low: number, high: number): void {
  hold(mm, va, FAULT_FLAG_WRITE);
  const { u8 } = mm.host;
  for (let k = 0; k < lenBytes; k++) u8[where(va, k)] = (k < 4 ? low : high) >>> (8 * (k & 3));
  letGo(mm);
}

function hold(mm: Mm, va: number, flags: number): void {
  const held = getPage(mm, va, flags);
  try {
    second = getPage(mm, va + PAGE_SIZE, flags);
  } catch (error) {
    mm.putPage(held);
    throw error;
  }
  first = held;
}

function letGo(mm: Mm): void {
  mm.putPage(first);
  mm.putPage(second);
}

function getPage(mm: Mm, va: number, flags: number): number {
  for (;;) {
    const pfn = mm.tryGetPage(va, flags);
    if (pfn > 0) return pfn;
    mm.faultInSync(va, flags);
  }
}

/** Host physical address of byte `k` of the access. */
function where(va: number, k: number): number {
  const offset = (va % PAGE_SIZE) + k;
  return offset < PAGE_SIZE ? pfnToPa(first) + offset : pfnToPa(second) + offset - PAGE_SIZE;
}
