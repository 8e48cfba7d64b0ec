import type { Code } from '../../base/index.js';

/**
 * Host page-table entries: 32 bits. This file alone knows their bits.
 *
 * Present:  31..12 pfn | flags | 1
 * Absent:   31..8 value | 7..6 flags | 3..1 kind | 0        (0 as a whole: none)
 *
 * Present means that a frame is mapped: the reverse map, reclaim and the checker count it. Whether it may be accessed is PTE_READ's
 * to say, as the VMA has it: a page under PROT_NONE is present and cannot be read.
 *
 * The kinds of absent entries: NONE, the VMA says what a fault does; SWAP, the value is a swap slot; POISON, the page's
 * contents are lost (a damaged swap slot), whoever touches it gets a machine check; MIGRATION, the page is on its way from the frame that is
 * the upper 20 bits of the value to another; SAME, the page is one value repeated, and this its number (samefilled.ts). Kind 1 is free.
 *
 * A writable entry is a dirty one, and its frame is marked dirty: write permission is granted by a write fault, and given back only to
 * an entry that is dirty and exclusive.
 */

export const PTE_PRESENT = 1 << 0;
export const PTE_WRITE = 1 << 1;
export const PTE_ACCESSED = 1 << 2;
export const PTE_DIRTY = 1 << 3;
/** The frame is anonymous, and no other pte maps it or names its swap slot: a write may reuse it. */
export const PTE_EXCLUSIVE = 1 << 4;
/** May be read; write permission implies it. */
export const PTE_READ = 1 << 5;
/** Written since the marks were last cleared (softdirty.ts). A writable entry has it, and a swap entry keeps it in the same place. */
export const PTE_SOFT_DIRTY = 1 << 6;

const PTE_PFN_SHIFT = 12;
const KIND_SHIFT = 1;
const KIND_MASK = 7 << KIND_SHIFT;
const VALUE_SHIFT = 8;

export const PTE_NONE = 0;
export const PTE_KIND_SWAP = 2 << KIND_SHIFT;
const PTE_KIND_MIGRATION = 3 << KIND_SHIFT;
export const PTE_KIND_POISON = 4 << KIND_SHIFT;
const PTE_KIND_SAME = 5 << KIND_SHIFT;

/** Slots that an absent entry can name. */
export const MAX_SWAP_SLOTS = 2 ** 24;

export function mkPte(pfn: number, flags: number): number {
  return (pfn << PTE_PFN_SHIFT) | flags | PTE_PRESENT;
}

export function ptePfn(pte: number): number {
  return pte >>> PTE_PFN_SHIFT;
}

export function pteIsPresent(pte: number): boolean {
  return (pte & PTE_PRESENT) !== 0;
}

/** In the place of the present entry `pte`, whose soft-dirty mark it keeps. */
export function mkSwapPte(slot: number, pte: number): number {
  return (slot << VALUE_SHIFT) | (pte & PTE_SOFT_DIRTY) | PTE_KIND_SWAP;
}

/** What an external MMU may map by it without a fault: pfn * 2, and 1 more where it may be written; 0: nothing. A writable page is a dirty one already. */
export function peekPte(pte: number): number {
  const readable = PTE_PRESENT | PTE_READ;
  return (pte & readable) === readable ? ptePfn(pte) * 2 + ((pte & PTE_WRITE) >>> 1) : 0;
}

/** Emits code that leaves what `peekPte` says of the pte in a local. */
export function pushPeekPte(c: Code, pte: number): void {
  const readable = PTE_PRESENT | PTE_READ;
  c.get(pte).i32(PTE_PFN_SHIFT).op('i32ShrU').i32(1).op('i32Shl');
  c.get(pte).i32(PTE_WRITE).op('i32And').i32(1).op('i32ShrU').op('i32Or').i32(0);
  c.get(pte).i32(readable).op('i32And').i32(readable).op('i32Eq').op('select');
}

export function pteIsSwap(pte: number): boolean {
  return (pte & (PTE_PRESENT | KIND_MASK)) === PTE_KIND_SWAP;
}

export function pteSwapSlot(pte: number): number {
  return pte >>> VALUE_SHIFT;
}

/** In the place of the present entry `pte`, whose soft-dirty mark it keeps. */
export function mkSamePte(number: number, pte: number): number {
  return (number << VALUE_SHIFT) | (pte & PTE_SOFT_DIRTY) | PTE_KIND_SAME;
}

export function pteIsSame(pte: number): boolean {
  return (pte & (PTE_PRESENT | KIND_MASK)) === PTE_KIND_SAME;
}

export function pteSameNumber(pte: number): number {
  return pte >>> VALUE_SHIFT;
}

/** Of a page that is on its way elsewhere: keeps the frame, and the rights and bits that it will have again in bits 11..5. */
export function mkMigrationPte(pte: number): number {
  return (ptePfn(pte) << PTE_PFN_SHIFT) | (((pte >>> 1) & 127) << 5) | PTE_KIND_MIGRATION;
}

/** The present entry that a migration entry becomes, when the page is in frame `pfn`. */
export function migrationToPte(pte: number, pfn: number): number {
  return mkPte(pfn, ((pte >>> 5) & 127) << 1);
}

export function pteIsMigration(pte: number): boolean {
  return (pte & (PTE_PRESENT | KIND_MASK)) === PTE_KIND_MIGRATION;
}

export function migrationPfn(pte: number): number {
  return pte >>> PTE_PFN_SHIFT;
}

export function mkPoisonPte(): number {
  return PTE_KIND_POISON;
}

export function pteIsPoison(pte: number): boolean {
  return (pte & (PTE_PRESENT | KIND_MASK)) === PTE_KIND_POISON;
}

/** For people: `frame 7 (RWAD)` with its rights and bits, `swap slot 3`, `none`. */
export function describePte(pte: number): string {
  if (pte === PTE_NONE) return 'none';
  if (pteIsSwap(pte)) return `swap slot ${pteSwapSlot(pte)}`;
  if (pteIsSame(pte)) return `filled with value ${pteSameNumber(pte)}`;
  if (pteIsMigration(pte)) return `migration of frame ${migrationPfn(pte)}`;
  if (!pteIsPresent(pte)) return 'poison';
  const bit = (mask: number, letter: string) => ((pte & mask) !== 0 ? letter : '-');
  return `frame ${ptePfn(pte)} (${bit(PTE_READ, 'R')}${bit(PTE_WRITE, 'W')}${bit(PTE_ACCESSED, 'A')}${bit(PTE_DIRTY, 'D')})`;
}
