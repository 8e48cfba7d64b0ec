import { KernelError } from '../base/index.js';
import type { GuestMemory } from '../machine/index.js';
import { FAULT_FLAG_WRITE, PAGE_SIZE, pfnToPa } from '../mm/index.js';
import type { LgCpu } from './cpu.js';

/**
 * The guest's memory as the launcher's devices reach it (Linux: the launcher's own mapping of it). Pages go through the mm as any access does: looked up when their turn comes, and where
 * one is absent the caller waits by a promise, and nobody with it. Code that was decoded from a page that is written is dropped.
 */
export class LauncherMemory implements GuestMemory {
  private readonly cpu: LgCpu;
  private readonly u16: Uint16Array;

  constructor(cpu: LgCpu) {
    this.cpu = cpu;
    this.u16 = new Uint16Array(cpu.host.memory.buffer);
  }

  read(gpa: number, dst: Uint8Array): Promise<void> | void {
    this.check(gpa, dst.length);
    return this.move(gpa, dst, 0, 0);
  }

  write(gpa: number, src: Uint8Array): Promise<void> | void {
    this.check(gpa, src.length);
    return this.move(gpa, src, FAULT_FLAG_WRITE, 0);
  }

  load16(gpa: number): Promise<number> | number {
    this.check(gpa, 2);
    const pa = this.tryAddress(gpa, 0);
    if (pa < 0) return this.faultIn(gpa, 0).then(() => this.load16(gpa));
    return Atomics.load(this.u16, pa >>> 1);
  }

  store16(gpa: number, value: number): Promise<void> | void {
    this.check(gpa, 2);
    const pa = this.tryAddress(gpa, FAULT_FLAG_WRITE);
    if (pa < 0) return this.faultIn(gpa, FAULT_FLAG_WRITE).then(() => this.store16(gpa, value));
    Atomics.store(this.u16, pa >>> 1, value);
  }

  private check(gpa: number, lenBytes: number): void {
    const end = this.cpu.access.pfnLimit * PAGE_SIZE;
    if (Number.isInteger(gpa) && gpa >= 0 && gpa + lenBytes <= end) return;
    const what = `guest-physical bytes 0x${gpa.toString(16)} to 0x${(gpa + lenBytes).toString(16)}`;
    throw new KernelError('EFAULT', 'guestMemory', `${what} must be below 0x${end.toString(16)}`);
  }

  /** Host physical address, good until the next wait, or below 0. */
  private tryAddress(gpa: number, flags: number): number {
    const { mm, access, directories } = this.cpu;
    const gfn = Math.floor(gpa / PAGE_SIZE);
    const pfn = mm.tryGetPage(access.hva(gfn), flags);
    if (pfn <= 0) return -1;
    mm.putPage(pfn);
    if (flags !== 0) directories.dropCode(gfn);
    return pfnToPa(pfn) + (gpa % PAGE_SIZE);
  }

  private faultIn(gpa: number, flags: number): Promise<void> {
    return this.cpu.mm.faultIn(this.cpu.access.base + gpa, flags);
  }

  private move(gpa: number, bytes: Uint8Array, flags: number, at: number): Promise<void> | void {
    const { u8 } = this.cpu.host;
    while (at < bytes.length) {
      const pa = this.tryAddress(gpa + at, flags);
      if (pa < 0) return this.faultIn(gpa + at, flags).then(() => this.move(gpa, bytes, flags, at));
      const end = Math.min(bytes.length, at + PAGE_SIZE - (pa % PAGE_SIZE));
      if (flags === 0) bytes.set(u8.subarray(pa, pa + end - at), at);
      else u8.set(bytes.subarray(at, end), pa);
      at = end;
    }
  }
}
