import type { UserMemoryRegion } from '../../src/kvm/memregion.js';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from '../../src/mm/index.js';
import { CSR } from '../../src/riscv/index.js';
import { csrrs, sd } from '../isa/assemble.js';
import { A1, code, T0, ZERO } from './guestcode.js';
import { PAGE, TestVm, type TestVmOptions } from './testvm.js';

/**
 * A `TestVm` with a second memslot, for data, which tests move, change and delete while the guest's code stays in the first. With
 * paging on, three gigapages map their own addresses; that of the data is neither accessed nor dirty until the walker says so.
 */

/** Where the second slot is at first. */
export const DATA_BASE = 0x1_0000_0000;
/** Pages of the first slot: a trap comes out with scause in a1; the guest's table. */
const TRAP_PAGE = 1;
export const TABLE_PAGE = 4;
const TABLE_ENTRY = 4;
const LEAF = 0xfn;
const AD = 0xc0n;
const SATP_SV39 = 8n << 60n;

export class SlotWorld {
  readonly t: TestVm;
  readonly hva: number;
  region: Required<UserMemoryRegion>;

  private constructor(t: TestVm, hva: number, nrPages: number) {
    this.t = t;
    this.hva = hva;
    this.region = { slot: 1, flags: 0, guestPhysAddr: DATA_BASE, memorySize: nrPages * PAGE, userspaceAddr: hva };
  }

  /** `nrPages` of data: no multiple of a word's bits, unless the test wants one. */
  static async create(nrPages: number, options: TestVmOptions = {}): Promise<SlotWorld> {
    const t = await TestVm.create(options);
    const hva = t.mm.mmap(0, nrPages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    const world = new SlotWorld(t, hva, nrPages);
    await t.mm.write(t.at(TRAP_PAGE), code(csrrs(A1, CSR.scause, ZERO), sd(ZERO, 0, T0)));
    world.setCsr(CSR.stvec, BigInt(t.gpa(TRAP_PAGE)));
    world.set({});
    return world;
  }

  set(change: Partial<UserMemoryRegion>): void {
    this.region = { ...this.region, ...change };
    this.t.vm.setUserMemoryRegion(this.region);
  }

  delete(): void {
    this.t.vm.setUserMemoryRegion({ ...this.region, memorySize: 0 });
  }

  /** Guest-physical address of a page of data. */
  gpa(page: number): number {
    return this.region.guestPhysAddr + page * PAGE;
  }

  /** Host virtual address of the same. */
  at(page: number): number {
    return this.hva + page * PAGE;
  }

  get nrPages(): number {
    return this.region.memorySize / PAGE;
  }

  setCsr(csr: number, value: bigint): void {
    this.t.vcpu.hart.csr.write(csr, Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n)));
  }

  /** Writes the guest's table to page `page` of `memory`, whose guest-physical address `gpa` is, and turns paging on. */
  async pagingOn(at = this.t.at(TABLE_PAGE), gpa = this.t.gpa(TABLE_PAGE)): Promise<void> {
    const ptes = [1n, 2n, 4n].map((giga): [bigint, bigint] => [giga, (giga << 28n) | LEAF | (giga === 4n ? 0n : AD)]);
    for (const [giga, pte] of ptes)
      await this.t.mm.write(at + Number(giga) * 8, new Uint8Array(BigUint64Array.of(pte).buffer));
    this.setCsr(CSR.satp, SATP_SV39 | BigInt(gpa / PAGE));
  }

  pagingOff(): void {
    this.setCsr(CSR.satp, 0n);
  }

  /** The pte by which the guest reaches its data. */
  async dataPte(at = this.t.at(TABLE_PAGE)): Promise<bigint> {
    const bytes = new Uint8Array(8);
    await this.t.mm.read(at + TABLE_ENTRY * 8, bytes);
    return new BigUint64Array(bytes.buffer)[0]!;
  }

  destroy(): void {
    this.t.destroy();
  }
}
