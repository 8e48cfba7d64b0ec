import { bug } from '../base/index.js';
import type { RiscvEngine } from './engine.js';
import { Hart, type HartOptions } from './hart.js';
import * as L from './layout.js';
import { ACCESS_EXEC, type Access } from './mmu.js';
import type { TaggedTlb } from './taggedtlb.js';

/**
 * A hart of a test build, where every host page has a tag: an int32 in shared memory that is another one whenever the page has become somebody else's
 * (EngineOptions.tagsAddr). It makes sure that it never uses a page that was taken away (N3): a TLB entry keeps the tag that its page had when it was
 * made, and after every load, store and atomic the page must still have it. Code is checked where it is read: when a page of records is entered.
 *
 * Whether the page is the right one when the entry is made, only the owner of the memory can tell: `onFill`. What the MMU itself reads, the guest's page
 * tables, is the MMU's to check.
 */
export class TaggedHart extends Hart {
  private readonly tags: Int32Array;
  /** Called for each page that is entered; throws where it is not what the owner of the memory has there. */
  onFill: ((hostPage: number, write: boolean) => void) | undefined;
  private execTag = 0;

  constructor(engine: RiscvEngine, base: number, options: HartOptions) {
    super(engine, base, options);
    const tlb = this.tlb as TaggedTlb;
    tlb.hart = this;
    this.tags = tlb.tags;
  }

  override tlbFill(va: number, hostPage: number, rights: number, access: Access, global = false): void {
    super.tlbFill(va, hostPage, rights, access, global);
    if (access !== ACCESS_EXEC) return;
    this.execTag = Atomics.load(this.tags, hostPage);
    this.onFill?.(hostPage, false);
  }

  /** The page of the last fill for a fetch, at `va`, is entered now. */
  checkExec(va: number): void {
    if (Atomics.load(this.tags, this.execHostPage) !== this.execTag) this.stale(va, this.execHostPage * 4096);
  }

  override accessed(va: number, access: Access, hostAddress: number): void {
    if (this.tlb.lookup(va, access) === hostAddress) this.checkEntry(this.tlb.entryOf(va, access), va, hostAddress);
  }

  private checkEntry(entry: number, va: number, hostAddress: number): void {
    if (Atomics.load(this.tags, hostAddress >>> 12) !== this.i32[(entry + L.TLB_TAG) >>> 2])
      this.stale(va, hostAddress);
  }

  /** All entries as they are now: each has its page's tag, and `onFill` has nothing against it. */
  checkTlb(): void {
    this.forEachTlbEntry((va, hostAddress, write, entry) => {
      this.checkEntry(entry, va, hostAddress);
      this.onFill?.(hostAddress >>> 12, write);
    });
  }

  /** By the generated code too. */
  stale(va: number, hostAddress: number): never {
    bug(
      'N3',
      `hart ${this.hartId}: a stale access at 0x${va.toString(16)} to host page ${hostAddress >>> 12}, pc 0x${this.pc.toString(16)}`,
    );
  }
}
