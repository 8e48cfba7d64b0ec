import type { RiscvEngine } from './engine.js';
import * as L from './layout.js';
import { ACCESS_READ, ACCESS_WRITE } from './mmu.js';
import type { TaggedHart } from './taggedhart.js';
import { HartTlb } from './tlb.js';

/** The TLB of a hart of a test build (taggedhart.ts): each entry keeps the tag that its page had when it was made. */
export class TaggedTlb extends HartTlb {
  /** Tags of all host pages. */
  readonly tags: Int32Array;
  /** Whose it is; set when that is made. */
  hart!: TaggedHart;

  constructor(engine: RiscvEngine, base: number, tagsAddr: number) {
    super(engine, base);
    this.tags = this.i32.subarray(tagsAddr >>> 2);
  }

  override fill(va: number, hostPage: number, write: boolean, global: boolean): void {
    super.fill(va, hostPage, write, global);
    const entry = this.entryOf(va, write ? ACCESS_WRITE : ACCESS_READ);
    this.i32[(entry + L.TLB_TAG) >>> 2] = Atomics.load(this.tags, hostPage);
    this.hart.onFill?.(hostPage, write);
  }

  override fillFetch(va: number, records: number, global: boolean): void {
    this.hart.checkExec(va);
    super.fillFetch(va, records, global);
  }
}
