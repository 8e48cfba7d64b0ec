import { KernelError, Words } from '../base/index.js';
import { type Host, PAGE_SIZE } from '../mm/index.js';

/**
 * Memslots: ranges of guest-physical addresses backed by host virtual memory (Linux: struct kvm_memory_slot).
 *
 * Each slot keeps, for every guest frame, two words in shared memory:
 *  - `direct`: the entry gfn to host frame (what a second-stage table would hold). It is the only place where a
 *    frame of the host enters the guest: shadow entries are derived from it and never outlive it (N3).
 *  - `rmap`: the head of the chain of shadow entries that map this guest frame (see shadow.ts). It lives here and
 *    not in the frame's `private`, which belongs to the swap cache and to filesystems (S9).
 */

export interface UserMemoryRegion {
  /** Number of the slot, 0 to 31. */
  slot: number;
  /** First guest-physical byte, a multiple of 4 KiB. */
  guestPhysAddr: number;
  /** Bytes, a multiple of 4 KiB; 0 deletes the slot. */
  memorySize: number;
  /** First host virtual byte, a multiple of 4 KiB. */
  userspaceAddr: number;
}

export const KVM_USER_MEM_SLOTS = 32;

/** Direct entries: pfn in bits 31..12, and these. A frame is writable for the guest only where the mm granted a write. */
export const DIRECT_V = 1;
export const DIRECT_W = 2;
/** Set when a translation through the entry is handed out; taken by aging. */
export const DIRECT_A = 4;

export class Memslot {
  readonly slot: number;
  readonly baseGfn: number;
  readonly nrPages: number;
  /** First host virtual page number. */
  readonly baseVpn: number;
  readonly direct: Words;
  readonly rmap: Words;
  private readonly host: Host;
  private readonly arenaAddr: number;

  constructor(host: Host, region: UserMemoryRegion) {
    this.slot = region.slot;
    this.baseGfn = region.guestPhysAddr / PAGE_SIZE;
    this.nrPages = region.memorySize / PAGE_SIZE;
    this.baseVpn = region.userspaceAddr / PAGE_SIZE;
    this.host = host;
    this.arenaAddr = host.arenaAlloc(this.nrPages * 8, 8);
    this.direct = new Words(host.memory, this.arenaAddr, this.nrPages);
    this.rmap = new Words(host.memory, this.arenaAddr + this.nrPages * 4, this.nrPages);
    for (let i = 0; i < this.nrPages; i++) {
      this.direct.writeOnce(i, 0);
      this.rmap.writeOnce(i, 0);
    }
  }

  hva(gfn: number): number {
    return (this.baseVpn + gfn - this.baseGfn) * PAGE_SIZE;
  }

  free(): void {
    this.host.arenaFree(this.arenaAddr, this.nrPages * 8);
  }
}

/** The slots of one VM. Lookup keeps the last hit: a VM has few slots and its accesses stay in one. */
export class Memslots {
  private readonly slots: Memslot[] = [];
  private last: Memslot | undefined;

  find(gfn: number): Memslot | undefined {
    const last = this.last;
    if (last !== undefined && gfn >= last.baseGfn && gfn < last.baseGfn + last.nrPages) return last;
    return this.findSlow(gfn);
  }

  private findSlow(gfn: number): Memslot | undefined {
    const found = this.slots.find((s) => gfn >= s.baseGfn && gfn < s.baseGfn + s.nrPages);
    if (found !== undefined) this.last = found;
    return found;
  }

  bySlot(slot: number): Memslot | undefined {
    return this.slots.find((s) => s.slot === slot);
  }

  add(slot: Memslot): void {
    this.slots.push(slot);
  }

  remove(slot: Memslot): void {
    this.slots.splice(this.slots.indexOf(slot), 1);
    this.last = undefined;
  }

  all(): readonly Memslot[] {
    return this.slots;
  }
}

const MAX_GPA = 2 ** 44;

/** Refuses what KVM_SET_USER_MEMORY_REGION refuses: EINVAL for bad numbers, EEXIST for an overlap. */
export function checkRegion(slots: Memslots, region: UserMemoryRegion): void {
  const { slot, guestPhysAddr, memorySize, userspaceAddr } = region;
  if (!Number.isInteger(slot) || slot < 0 || slot >= KVM_USER_MEM_SLOTS) {
    refuse('EINVAL', `slot ${slot} must be from 0 to ${KVM_USER_MEM_SLOTS - 1}`);
  }
  for (const [name, value] of Object.entries({ guestPhysAddr, memorySize, userspaceAddr })) {
    if (!Number.isInteger(value) || value < 0 || value % PAGE_SIZE !== 0) {
      refuse('EINVAL', `${name} ${value} must be a multiple of ${PAGE_SIZE}`);
    }
  }
  if (guestPhysAddr + memorySize > MAX_GPA) refuse('EINVAL', `guestPhysAddr + memorySize must not exceed 2^44`);
  const first = guestPhysAddr / PAGE_SIZE;
  const end = first + memorySize / PAGE_SIZE;
  const clash = slots.all().find((s) => s.slot !== slot && s.baseGfn < end && first < s.baseGfn + s.nrPages);
  if (clash !== undefined) {
    refuse('EEXIST', `guestPhysAddr 0x${guestPhysAddr.toString(16)} overlaps slot ${clash.slot}`);
  }
}

function refuse(code: 'EINVAL' | 'EEXIST', message: string): never {
  throw new KernelError(code, 'setUserMemoryRegion', message);
}
