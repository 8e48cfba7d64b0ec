import { KernelError } from '../base/index.js';
import type { BalloonMemory, GuestMemory, GuestRun } from '../machine/index.js';
import { FAULT_FLAG_WRITE, MADV_DONTNEED_LOCKED, PAGE_SIZE, pfnToPa } from '../mm/index.js';
import { KVM_MEM_READONLY } from './memregion.js';
import type { Vm } from './vm.js';

/** Runs of pages that are given back before others have their turn: each is a bracket of its own. */
const RUNS_PER_TURN = 64;

/**
 * A VM's memslots as its devices and its SBI reach them, on the mm's thread (Linux: kvm_read_guest, kvm_write_guest).
 *
 * Pages go through the mm as any access of the host's does: looked up when their turn comes, kept by a reference while their bytes move, and
 * where one is absent the caller waits by a promise, and no vCPU with it. A page that was written is dirty, and code that was decoded from it
 * is dropped.
 */
export class VmMemory implements GuestMemory, BalloonMemory {
  private readonly vm: Vm;
  private readonly u16: Uint16Array;

  constructor(vm: Vm) {
    this.vm = vm;
    this.u16 = new Uint16Array(vm.host.memory.buffer);
  }

  /** Whether all of [gpa, gpa + lenBytes) is in memslots. */
  covers(gpa: number, lenBytes: number): boolean {
    for (let at = gpa; at < gpa + lenBytes; ) {
      const slot = this.vm.slots.find(Math.floor(at / PAGE_SIZE));
      if (slot === undefined) return false;
      at = (slot.baseGfn + slot.nrPages) * PAGE_SIZE;
    }
    return true;
  }

  read(gpa: number, dst: Uint8Array): Promise<void> | void {
    return this.move(gpa, dst, 0, 0);
  }

  write(gpa: number, src: Uint8Array): Promise<void> | void {
    return this.move(gpa, src, FAULT_FLAG_WRITE, 0);
  }

  load16(gpa: number): Promise<number> | number {
    const hva = this.hva(gpa, 0);
    const pfn = this.vm.mm.tryGetPage(hva, 0);
    if (pfn < 0) return this.vm.mm.faultIn(hva, 0).then(() => this.load16(gpa));
    const value = Atomics.load(this.u16, (pfnToPa(pfn) + (hva % PAGE_SIZE)) >>> 1);
    this.vm.mm.putPage(pfn);
    return value;
  }

  store16(gpa: number, value: number): Promise<void> | void {
    const hva = this.hva(gpa, FAULT_FLAG_WRITE);
    const pfn = this.vm.mm.tryGetPage(hva, FAULT_FLAG_WRITE);
    if (pfn < 0) return this.vm.mm.faultIn(hva, FAULT_FLAG_WRITE).then(() => this.store16(gpa, value));
    Atomics.store(this.u16, (pfnToPa(pfn) + (hva % PAGE_SIZE)) >>> 1, value);
    this.vm.mm.putPage(pfn);
    this.vm.dropCodeAt(hva);
  }

  private move(gpa: number, bytes: Uint8Array, flags: number, at: number): Promise<void> | void {
    while (at < bytes.length) {
      const moved = this.movePage(gpa, bytes, flags, at);
      if (moved === 0)
        return this.vm.mm.faultIn(this.hva(gpa + at, flags), flags).then(() => this.move(gpa, bytes, flags, at));
      at += moved;
    }
  }

  /** Moves what lies in the page of `gpa + at`; 0 where that is absent. */
  private movePage(gpa: number, bytes: Uint8Array, flags: number, at: number): number {
    const hva = this.hva(gpa + at, flags);
    const pfn = this.vm.mm.tryGetPage(hva, flags);
    if (pfn < 0) return 0;
    const offset = hva % PAGE_SIZE;
    const end = at + Math.min(bytes.length - at, PAGE_SIZE - offset);
    const pa = pfnToPa(pfn) + offset;
    if (flags === 0) bytes.set(this.vm.host.u8.subarray(pa, pa + end - at), at);
    else this.vm.host.u8.set(bytes.subarray(at, end), pa);
    this.vm.mm.putPage(pfn);
    if (flags !== 0) this.vm.dropCodeAt(hva);
    return end - at;
  }

  /** For a balloon: MADV_DONTNEED of all whole pages of `runs` that are RAM, locked or not, and may be written. Others have their turn in between. */
  async discard(runs: readonly GuestRun[]): Promise<void> {
    for (const [n, { gpa, lenBytes }] of runs.entries()) {
      if (n % RUNS_PER_TURN === RUNS_PER_TURN - 1) await new Promise<void>((resolve) => this.vm.env.defer(resolve));
      this.discardRun(Math.ceil(gpa / PAGE_SIZE), Math.floor((gpa + lenBytes) / PAGE_SIZE));
    }
  }

  private discardRun(firstGfn: number, endGfn: number): void {
    const { ended, slots, mm } = this.vm;
    if (ended !== undefined) throw new KernelError('ENODEV', 'guestMemory', ended);
    for (const slot of slots.all()) {
      const first = Math.max(firstGfn, slot.baseGfn);
      const end = Math.min(endGfn, slot.baseGfn + slot.nrPages);
      if (first < end && (slot.flags & KVM_MEM_READONLY) === 0)
        mm.madvise(slot.hva(first), (end - first) * PAGE_SIZE, MADV_DONTNEED_LOCKED);
    }
  }

  private hva(gpa: number, flags: number): number {
    const { ended } = this.vm;
    if (ended !== undefined) throw new KernelError('ENODEV', 'guestMemory', ended);
    const slot = this.vm.slots.find(Math.floor(gpa / PAGE_SIZE));
    if (slot === undefined || ((flags & FAULT_FLAG_WRITE) !== 0 && (slot.flags & KVM_MEM_READONLY) !== 0)) {
      const what = (flags & FAULT_FLAG_WRITE) !== 0 ? 'RAM that may be written' : 'RAM';
      throw new KernelError('EFAULT', 'guestMemory', `guest-physical address 0x${gpa.toString(16)} must be in ${what}`);
    }
    return slot.hva(Math.floor(gpa / PAGE_SIZE)) + (gpa % PAGE_SIZE);
  }
}
