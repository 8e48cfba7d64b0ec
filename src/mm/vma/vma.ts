import type { File } from '../file/file.js';
import { PAGE_SIZE } from '../layout.js';
import type { Mm } from '../mm.js';
import type { AnonVma } from '../rmap/anonvma.js';

/** A run of pages of one mm with the same rights and backing (Linux: struct vm_area_struct). Changed with mmapLock held for write. */

export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;

/** Flags of a VMA, with Linux's numbers (mm.h). The rights are `prot`. */
export const VM_SHARED = 0x8;
/** Asked for as shared: without VM_SHARED where the file is open for reading alone. */
export const VM_MAYSHARE = 0x80;
/** Locked in memory by mlock: its pages are not reclaimed. */
export const VM_LOCKED = 0x2000;
/** Read ahead much, or not at all: MADV_SEQUENTIAL, MADV_RANDOM. */
export const VM_SEQ_READ = 0x8000;
export const VM_RAND_READ = 0x1_0000;
/** Not copied by fork (MADV_DONTFORK). */
export const VM_DONTCOPY = 0x2_0000;
/** Locked as its pages come, not before: MLOCK_ONFAULT. */
export const VM_LOCKONFAULT = 0x8_0000;
/** Its pages are charged to the host's commit limit. */
export const VM_ACCOUNT = 0x10_0000;
/** Mapped with MAP_NORESERVE: never charged. */
export const VM_NORESERVE = 0x20_0000;
/** A child of fork sees zeros there (MADV_WIPEONFORK). */
export const VM_WIPEONFORK = 0x200_0000;
/** MADV_DONTDUMP: kept, and of no use here. */
export const VM_DONTDUMP = 0x400_0000;

export const VM_LOCKED_MASK = VM_LOCKED | VM_LOCKONFAULT;

export class Vma {
  readonly mm: Mm;
  /** Pages [startVpn, endVpn). While the VMA is in its mm's set, `resize` of that alone changes them, */
  startVpn: number;
  endVpn: number;
  /** and `setFlags` alone changes these. */
  prot: number;
  flags: number;
  /** Index of the first page: in the file, or of anonymous memory the startVpn that it had before it was moved. */
  pgoff: number;
  /** Where its new anonymous pages go; set by the first fault. */
  anonVma: AnonVma | undefined;
  /** All anonVmas that it is linked into, its own first (Linux: anon_vma_chain). */
  anonVmaChain: readonly AnonVma[] = [];

  /** New, or moved, since soft-dirty marks were last cleared: all of it counts as written (Linux: VM_SOFTDIRTY). */
  softDirty = true;

  /** What it maps; undefined: anonymous memory of its own. */
  file: File | undefined;

  /** Neighbours by address; written by the VmaSet. */
  prev: Vma | undefined;
  next: Vma | undefined;
  /** Its place in the tree: the VmaSet's own. */
  readonly priority: number;
  parent: Vma | undefined;
  left: Vma | undefined;
  right: Vma | undefined;
  /** Free pages between `prev` (or page 0) and this one, and the most of any VMA of its subtree. */
  gap = 0;
  maxGap = 0;

  constructor(mm: Mm, startVpn: number, endVpn: number, prot: number, flags: number, pgoff: number) {
    this.mm = mm;
    this.startVpn = startVpn;
    this.endVpn = endVpn;
    this.prot = prot;
    this.flags = flags;
    this.pgoff = pgoff;
    this.priority = nextPriority();
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

  get shared(): boolean {
    return (this.flags & VM_SHARED) !== 0;
  }

  /** Whether PROT_WRITE may be set: not for a shared mapping of a file that is open for reading alone (Linux: VM_MAYWRITE). */
  get mayWrite(): boolean {
    return (this.flags & (VM_SHARED | VM_MAYSHARE)) !== VM_MAYSHARE;
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

let seed = 0x2545f491;

/** Xorshift: the tree's shape depends on the order of creation alone. */
function nextPriority(): number {
  seed ^= seed << 13;
  seed ^= seed >>> 17;
  seed ^= seed << 5;
  return seed;
}
