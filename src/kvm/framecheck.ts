import { bug } from '../base/index.js';
import { type Host, PAGE_SIZE } from '../mm/index.js';
import type { Access, Hart, MmuResult, TaggedHart } from '../riscv/index.js';
import { KvmMmu } from './mmu.js';

/**
 * For test builds (KvmOptions.checkFrames): no access of a guest is stale (N3), that is, to a frame that is not its memory's any more. Frames are tagged with
 * their generation, which moves whenever one is given out or comes back, and with their owner, the page that they are of.
 *
 *  - Each load, store and atomic of the guest, and each page of code that is read: the frame's generation is what it was when the TLB entry was made
 *    (riscv/taggedhart.ts). Likewise each entry of a guest's page table that a walk has read, when the walk is done.
 *  - Whenever a TLB entry is made, and for all that there are whenever the vCPU leaves the guest, before it acknowledges anything: the frame is what the page
 *    table of the VM's mm has for that page, with the right to write where the entry has it.
 *
 * Both hold at every instant in the guest, for the host waits for this vCPU before it changes a pte or frees a frame. Not looked at: what page a frame
 * is of that a vCPU's thread has mapped by itself and the mm thread has not accounted for yet, that is of a file, or that is the zero page (which may only be read). And
 * devices, whose every access holds a reference.
 */

/** Byte addresses of columns of the frame table. */
export interface FrameTagsDescriptor {
  readonly generationAddr: number;
  readonly mappingAddr: number;
  readonly indexAddr: number;
  readonly endPfn: number;
  readonly zeroPfn: number;
}

export function frameTagsOf(frames: Host['frames']): FrameTagsDescriptor {
  return {
    generationAddr: frames.generation.byteOffset,
    mappingAddr: frames.mapping.byteOffset,
    indexAddr: frames.index.byteOffset,
    endPfn: frames.endPfn,
    zeroPfn: frames.zeroPfn,
  };
}

/** The frame that the mm's page table has for a page, with the right to write if asked; 0 or less where there is none. */
type Lookup = (va: number, write: boolean) => number;

export class FrameCheck {
  readonly generation: Int32Array;
  private readonly mapping: Int32Array;
  private readonly index: Int32Array;
  private readonly zeroPfn: number;
  private readonly lookup: Lookup;

  constructor(memory: { buffer: SharedArrayBuffer }, tags: FrameTagsDescriptor, lookup: Lookup) {
    const column = (address: number) => new Int32Array(memory.buffer, address, tags.endPfn);
    this.generation = column(tags.generationAddr);
    this.mapping = column(tags.mappingAddr);
    this.index = column(tags.indexAddr);
    this.zeroPfn = tags.zeroPfn;
    this.lookup = lookup;
  }

  /** The frame is entered, or still is: throws BrokenInvariant where it is not the memory's. */
  checkOwner(pfn: number, write: boolean): void {
    if (pfn === this.zeroPfn && write) bug('N3', 'the zero page may be written');
    if (pfn === this.zeroPfn || Atomics.load(this.mapping, pfn) <= 0) return;
    const va = Atomics.load(this.index, pfn) * PAGE_SIZE;
    const found = this.lookup(va, write);
    if (found !== pfn)
      bug('N3', `frame ${pfn} is entered${write ? ' for writing' : ''}; the host has ${found} at 0x${va.toString(16)}`);
  }
}

/** What reads the guest's page tables: what it has read must still be the guest's when it is done. */
export class CheckedMmu extends KvmMmu {
  private check!: FrameCheck;
  /** Frames and generations. */
  private readonly read: number[] = [];

  attach(hart: Hart, check: FrameCheck): void {
    this.hart = hart;
    this.check = check;
    (hart as TaggedHart).onFill = (pfn, write) => check.checkOwner(pfn, write);
    const { fast } = this;
    const pteAddress = fast.pteAddress.bind(fast);
    fast.pteAddress = (gpa, write) => this.checkRead(pteAddress(gpa, write), write);
  }

  override pteAddress(gpa: number, write: boolean): number {
    return this.checkRead(super.pteAddress(gpa, write), write);
  }

  private checkRead(address: number, write: boolean): number {
    if (address <= 0) return address;
    const pfn = Math.floor(address / PAGE_SIZE);
    this.read.push(pfn, Atomics.load(this.check.generation, pfn));
    this.check.checkOwner(pfn, write);
    return address;
  }

  override translate(hart: Hart, va: number, access: Access): MmuResult {
    this.read.length = 0;
    const result = super.translate(hart, va, access);
    for (let i = 0; i < this.read.length; i += 2) {
      const pfn = this.read[i]!;
      if (Atomics.load(this.check.generation, pfn) !== this.read[i + 1])
        bug('N3', `frame ${pfn} was another's while a page table of the guest was read from it`);
    }
    return result;
  }

  /** Before the vCPU leaves the guest. */
  checkTlb(): void {
    (this.hart as TaggedHart).checkTlb();
  }
}
