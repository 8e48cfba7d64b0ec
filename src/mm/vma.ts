import type { AnonVma } from './anonvma.js';
import { PAGE_SIZE } from './layout.js';
import type { Mm } from './mm.js';

/** A run of pages of one mm with the same rights and backing (Linux: struct vm_area_struct). Changed with mmapLock held for write. */

export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;

/** Locked in memory by mlock: its pages are not reclaimed. */
export const VM_LOCKED = 1;

export class Vma {
  readonly mm: Mm;
  startVpn: number;
  endVpn: number;
  prot: number;
  flags: number;
  /** Index of the first page in the anonVma; equal to startVpn until a mapping is moved. */
  pgoff: number;
  /** Set by the first fault. */
  anonVma: AnonVma | undefined;

  constructor(mm: Mm, startVpn: number, endVpn: number, prot: number, flags: number, pgoff: number) {
    this.mm = mm;
    this.startVpn = startVpn;
    this.endVpn = endVpn;
    this.prot = prot;
    this.flags = flags;
    this.pgoff = pgoff;
  }

  /** First byte. */
  get start(): number {
    return this.startVpn * PAGE_SIZE;
  }

  /** Byte after the last. */
  get end(): number {
    return this.endVpn * PAGE_SIZE;
  }

  get nrPages(): number {
    return this.endVpn - this.startVpn;
  }

  get locked(): boolean {
    return (this.flags & VM_LOCKED) !== 0;
  }

  pgoffOf(vpn: number): number {
    return this.pgoff + (vpn - this.startVpn);
  }

  vpnOf(pgoff: number): number {
    return this.startVpn + (pgoff - this.pgoff);
  }

  allows(write: boolean): boolean {
    return (this.prot & (write ? PROT_WRITE : PROT_READ | PROT_WRITE)) !== 0;
  }
}

/** The VMAs of one mm, sorted and disjoint. Lookup O(log n), and O(1) where the last hit hits again. */
export class VmaSet {
  private readonly list: Vma[] = [];
  private last: Vma | undefined;

  get length(): number {
    return this.list.length;
  }

  at(i: number): Vma | undefined {
    return this.list[i];
  }

  all(): readonly Vma[] {
    return this.list;
  }

  /** The VMA that contains `vpn`. */
  find(vpn: number): Vma | undefined {
    const last = this.last;
    if (last !== undefined && vpn >= last.startVpn && vpn < last.endVpn) return last;
    const vma = this.list[this.indexAfter(vpn)];
    if (vma === undefined || vma.startVpn > vpn) return undefined;
    this.last = vma;
    return vma;
  }

  /** Index of the first VMA that ends after `vpn`. */
  indexAfter(vpn: number): number {
    let low = 0;
    let high = this.list.length;
    while (low < high) {
      const mid = (low + high) >>> 1;
      if (this.list[mid]!.endVpn > vpn) high = mid;
      else low = mid + 1;
    }
    return low;
  }

  /** Whether any VMA overlaps [startVpn, endVpn). */
  intersects(startVpn: number, endVpn: number): boolean {
    const vma = this.list[this.indexAfter(startVpn)];
    return vma !== undefined && vma.startVpn < endVpn;
  }

  insert(vma: Vma): void {
    this.list.splice(this.indexAfter(vma.startVpn), 0, vma);
  }

  /** Takes out VMAs [from, to) of the order. */
  removeAt(from: number, to: number): Vma[] {
    this.last = undefined;
    return this.list.splice(from, to - from);
  }

  /** First address of a hole of `nrPages` at or after `fromVpn`, below `limitVpn`; -1 when there is none. */
  findHole(nrPages: number, fromVpn: number, limitVpn: number): number {
    let start = fromVpn;
    for (let i = this.indexAfter(fromVpn); i < this.list.length; i++) {
      const vma = this.list[i]!;
      if (vma.startVpn - start >= nrPages) return start;
      start = Math.max(start, vma.endVpn);
    }
    return start + nrPages <= limitVpn ? start : -1;
  }
}
