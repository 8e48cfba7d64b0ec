import { RAM_BASE } from '../../src/machine/index.js';
import { CSR } from '../../src/riscv/index.js';
import { FIRST_DATA_PAGE as DATA, PAGE, STOP, TestVm } from './testvm.js';

/** A guest whose page tables map its pages one to one, and what its VM has entered for them. */

const [ROOT, MIDDLE] = [4, 5];
export const LEAF = 6;
export const RAM_PAGES = 128;
export const [V, R, RW, X, AD, D] = [1n, 2n, 6n, 8n, 0xc0n, 0x80n];
/** A superpage that shows RAM again. */
export const SUPERPAGE = RAM_BASE + 2 ** 21;

export class PagedVm {
  readonly t: TestVm;

  private constructor(t: TestVm) {
    this.t = t;
  }

  static async create(): Promise<PagedVm> {
    const t = await TestVm.create({ frames: 256, ramPages: RAM_PAGES });
    const w = new PagedVm(t);
    await w.put(ROOT, STOP / 2 ** 30, (BigInt(STOP / PAGE) << 10n) | RW | AD | V);
    await w.put(ROOT, 2, w.pte(MIDDLE, 0n));
    await w.put(MIDDLE, 0, w.pte(LEAF, 0n));
    await w.put(MIDDLE, 1, w.pte(0, RW | AD));
    for (let page = 0; page < DATA; page++) await w.put(LEAF, page, w.pte(page, RW | X | AD));
    for (let page = DATA; page < RAM_PAGES; page++) {
      await w.put(LEAF, page, w.pte(page, RW | AD));
      await t.mm.write(t.at(page), Uint8Array.of(page));
    }
    const satp = (8n << 60n) | BigInt(t.gpa(ROOT) / PAGE);
    t.vcpu.hart.csr.write(CSR.satp, Number(BigInt.asIntN(32, satp)), Number(BigInt.asIntN(32, satp >> 32n)));
    return w;
  }

  pte(page: number, flags: bigint): bigint {
    return (BigInt(this.t.gpa(page) / PAGE) << 10n) | flags | V;
  }

  put(table: number, index: number, pte: bigint): Promise<void> {
    return this.t.mm.write(this.t.at(table) + index * 8, new Uint8Array(BigUint64Array.of(pte).buffer));
  }

  load(page: number): Promise<bigint> {
    return this.t.load(this.t.gpa(page));
  }

  direct(page: number): number {
    return this.t.vm.slots.all()[0]!.direct.readOnce(page);
  }

  /** Shadow entries of the page. */
  sptes(page: number): number[] {
    const { shadow, slots } = this.t.vm;
    return shadow.chain(slots.all()[0]!.rmap.readOnce(page)).map((index) => shadow.spte(index));
  }

  /** Pages of data that have shadow entries. */
  get entered(): number[] {
    return [...Array(RAM_PAGES).keys()].filter((page) => page >= DATA && this.sptes(page).length > 0);
  }

  young(page: number): boolean {
    return this.t.mm.notifiers.clearFlushYoung(this.t.at(page), this.t.at(page + 1));
  }

  setSlot(flags: number): void {
    const memorySize = RAM_PAGES * PAGE;
    this.t.vm.setUserMemoryRegion({
      ...{ slot: 0, guestPhysAddr: RAM_BASE, memorySize, userspaceAddr: this.t.hva, flags },
    });
  }
}
