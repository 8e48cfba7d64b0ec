import { KernelError } from '../base/index.js';
import {
  FAULT_RETRY,
  type Host,
  MAP_ANONYMOUS,
  MAP_NORESERVE,
  MAP_PRIVATE,
  type Mm,
  PAGE_SIZE,
  PROT_READ,
  PROT_WRITE,
} from '../mm/index.js';
import { gather, scatter } from './crossing.js';
import { checkLenBytes, SoftTlb, STALE } from './softtlb.js';

/**
 * The RAM of an emulated machine, as large as the machine believes, in as few frames as the host has: what is not in use is in swap, and
 * nothing is pinned. An address is a byte of it, an integer from 0 below `lenBytes`; up to 4 GiB.
 *
 * Accesses are little endian, need no alignment and may cross pages. One that cannot be served throws a KernelError and changes nothing: EFAULT
 * (outside, unmapped, destroyed), EHWPOISON (the page was damaged in swap), ENOMEM (no frame and no swap slot), EOPNOTSUPP (the swap device cannot
 * block: use the asynchronous way).
 *
 * Use: `GuestRam.create(host, { lenBytes })`, or `GuestRam.over(mm, va, lenBytes)` for a range that is mapped already; `readUint32`,
 * `writeUint32` and so on; `discard` what the guest gave up; `destroy`.
 *
 * The asynchronous way, where the swap device cannot block, or others shall run while a page comes: before an access
 *
 *   for (let pa; (pa = ram.tryTranslate(addr, write)) < 0; ) await ram.faultIn(addr, write);
 *
 * A host physical address of `translate` or `tryTranslate` is good until the next call into the GuestRam or its host, and until the next `await`.
 */
export class GuestRam extends SoftTlb {
  private readonly u8: Uint8Array;
  private readonly u16: Uint16Array;
  private readonly i32: Int32Array;
  private readonly u64: BigUint64Array;
  private readonly view: DataView;
  private readonly ownsMm: boolean;

  private constructor(mm: Mm, va: number, lenBytes: number, ownsMm: boolean) {
    super(mm, va, lenBytes);
    const { buffer } = mm.host.memory;
    this.u8 = mm.host.u8;
    this.u16 = new Uint16Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u64 = new BigUint64Array(buffer);
    this.view = new DataView(buffer);
    this.ownsMm = ownsMm;
  }

  /** RAM of zeros in an address space of its own. `lenBytes` is a multiple of 4096. Throws KernelError EINVAL, ENOMEM. */
  static create(host: Host, options: { lenBytes: number; name?: string }): GuestRam {
    checkLenBytes(options.lenBytes);
    const mm = host.createMm({ name: options.name ?? 'guest ram' });
    try {
      const va = mm.mmap(0, options.lenBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
      return new GuestRam(mm, va, options.lenBytes, true);
    } catch (error) {
      mm.exit();
      throw error;
    }
  }

  /** Over the bytes [va, va + lenBytes) that the caller has mapped: whole pages of one VMA. Throws KernelError EINVAL, ENOMEM. */
  static over(mm: Mm, va: number, lenBytes: number): GuestRam {
    return new GuestRam(mm, va, lenBytes, false);
  }

  /** Ends it; every access is EFAULT from then on. RAM of `create` gives all its frames and swap back; that of `over` stays mapped. */
  destroy(): void {
    if (this.ownsMm) this.mm.exit();
    this.detach();
  }

  /**
   * The guest gave up the bytes [addr, addr + lenBytes), both multiples of 4096: their frames and swap are free, they read as zeros.
   * Throws KernelError EINVAL, EFAULT.
   */
  discard(addr: number, lenBytes: number): void {
    if (addr % PAGE_SIZE !== 0 || lenBytes % PAGE_SIZE !== 0) {
      const what = `addr ${addr} and lenBytes ${lenBytes}`;
      throw new KernelError('EINVAL', 'discard', `${what} must be multiples of ${PAGE_SIZE}`);
    }
    this.check(addr, lenBytes);
    this.mm.madviseDontneed(this.va + addr, lenBytes);
  }

  /** Fills `dst` from `addr` on. Throws as any access; what lies before the page that failed is there. */
  readSync(addr: number, dst: Uint8Array): void {
    this.check(addr, dst.length);
    for (let at = 0; at < dst.length; ) {
      const pa = this.translate(addr + at);
      const end = Math.min(dst.length, at + PAGE_SIZE - (pa & 4095));
      dst.set(this.u8.subarray(pa, pa + end - at), at);
      at = end;
    }
  }

  /** Writes `src` to `addr` on. Throws as any access; what lies before the page that failed is written. */
  writeSync(addr: number, src: Uint8Array): void {
    this.check(addr, src.length);
    for (let at = 0; at < src.length; ) {
      const pa = this.translateForWrite(addr + at);
      const end = Math.min(src.length, at + PAGE_SIZE - (pa & 4095));
      this.u8.set(src.subarray(at, end), pa);
      at = end;
    }
  }

  /** As `readSync`, waiting where that blocks. */
  async read(addr: number, dst: Uint8Array): Promise<void> {
    this.check(addr, dst.length);
    await this.mm.read(this.va + addr, dst);
  }

  /** As `writeSync`, waiting where that blocks. */
  async write(addr: number, src: Uint8Array): Promise<void> {
    this.check(addr, src.length);
    await this.mm.write(this.va + addr, src);
  }

  /** Where the byte is in `host.u8`, for reading. Blocks for a page that is not there. */
  translate(addr: number): number {
    const pa = this.readTable[addr >>> 12];
    return pa && addr >>> 0 === addr ? (pa | (addr & 4095)) >>> 0 : this.translateSlow(addr, false);
  }

  /** The same for writing: the page is dirty from then on. */
  translateForWrite(addr: number): number {
    const pa = this.writeTable[addr >>> 12];
    return pa && addr >>> 0 === addr ? (pa | (addr & 4095)) >>> 0 : this.translateSlow(addr, true);
  }

  /** As `translate`, never waiting: a negative result is FAULT_RETRY (`await faultIn`, then again) or why `faultIn` will reject. */
  tryTranslate(addr: number, write: boolean): number {
    this.check(addr, 1);
    const pa = (write ? this.writeTable : this.readTable)[addr >>> 12];
    if (pa) return (pa | (addr & 4095)) >>> 0;
    const found = this.tryFault(addr >>> 12, write);
    if (found === STALE) return FAULT_RETRY;
    return found < 0 ? found : found + (addr & 4095);
  }

  /** Waits until the page of `addr` can be had. Rejects with KernelError EFAULT, EHWPOISON, ENOMEM. */
  async faultIn(addr: number, write: boolean): Promise<void> {
    this.check(addr, 1);
    await this.waitFor(addr >>> 12, write);
  }

  readUint8(addr: number): number {
    const pa = this.readTable[addr >>> 12];
    if (pa && addr >>> 0 === addr) return this.u8[(pa | (addr & 4095)) >>> 0]!;
    return this.u8[this.translateSlow(addr, false)]!;
  }

  readUint16(addr: number): number {
    const pa = this.readTable[addr >>> 12];
    if (pa && addr >>> 0 === addr && (addr & 1) === 0) return this.u16[(pa | (addr & 4095)) >>> 1]!;
    return this.readUint16Slow(addr);
  }

  private readUint16Slow(addr: number): number {
    const at = this.spanSlow(addr, 2, false);
    return at < 0 ? gather(this.mm, this.va + addr, 2).getUint16(0, true) : this.view.getUint16(at, true);
  }

  /** As int32, what JavaScript's integer operators work on. */
  readInt32(addr: number): number {
    const pa = this.readTable[addr >>> 12];
    if (pa && addr >>> 0 === addr && (addr & 3) === 0) return this.i32[(pa | (addr & 4095)) >>> 2]!;
    return this.readInt32Slow(addr);
  }

  private readInt32Slow(addr: number): number {
    const at = this.spanSlow(addr, 4, false);
    return at < 0 ? gather(this.mm, this.va + addr, 4).getInt32(0, true) : this.view.getInt32(at, true);
  }

  readUint32(addr: number): number {
    return this.readInt32(addr) >>> 0;
  }

  readBigUint64(addr: number): bigint {
    const pa = this.readTable[addr >>> 12];
    if (pa && addr >>> 0 === addr && (addr & 7) === 0) return this.u64[(pa | (addr & 4095)) >>> 3]!;
    return this.readBigUint64Slow(addr);
  }

  private readBigUint64Slow(addr: number): bigint {
    const at = this.spanSlow(addr, 8, false);
    return at < 0 ? gather(this.mm, this.va + addr, 8).getBigUint64(0, true) : this.view.getBigUint64(at, true);
  }

  writeUint8(addr: number, value: number): void {
    const pa = this.writeTable[addr >>> 12];
    if (pa && addr >>> 0 === addr) this.u8[(pa | (addr & 4095)) >>> 0] = value;
    else this.u8[this.translateSlow(addr, true)] = value;
  }

  writeUint16(addr: number, value: number): void {
    const pa = this.writeTable[addr >>> 12];
    if (pa && addr >>> 0 === addr && (addr & 1) === 0) this.u16[(pa | (addr & 4095)) >>> 1] = value;
    else this.writeUint16Slow(addr, value);
  }

  private writeUint16Slow(addr: number, value: number): void {
    const at = this.spanSlow(addr, 2, true);
    if (at < 0) scatter(this.mm, this.va + addr, 2, value, 0);
    else this.view.setUint16(at, value, true);
  }

  /** Takes int32 and uint32 alike. */
  writeUint32(addr: number, value: number): void {
    const pa = this.writeTable[addr >>> 12];
    if (pa && addr >>> 0 === addr && (addr & 3) === 0) this.i32[(pa | (addr & 4095)) >>> 2] = value;
    else this.writeUint32Slow(addr, value);
  }

  private writeUint32Slow(addr: number, value: number): void {
    const at = this.spanSlow(addr, 4, true);
    if (at < 0) scatter(this.mm, this.va + addr, 4, value, 0);
    else this.view.setInt32(at, value, true);
  }

  writeBigUint64(addr: number, value: bigint): void {
    const pa = this.writeTable[addr >>> 12];
    if (pa && addr >>> 0 === addr && (addr & 7) === 0) this.u64[(pa | (addr & 4095)) >>> 3] = value;
    else this.writeBigUint64Slow(addr, value);
  }

  private writeBigUint64Slow(addr: number, value: bigint): void {
    const at = this.spanSlow(addr, 8, true);
    const half = (k: bigint) => Number((value >> (32n * k)) & 0xffffffffn);
    if (at < 0) scatter(this.mm, this.va + addr, 8, half(0n), half(1n));
    else this.view.setBigUint64(at, value, true);
  }
}
