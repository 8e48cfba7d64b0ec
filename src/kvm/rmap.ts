import type { Words } from '../base/index.js';

/** What the shadow tables ask of the memslots. Each thread has its own view of the same words. */
export interface GfnLookup {
  find(gfn: number): { readonly baseGfn: number; readonly direct: Words; readonly rmap: Words } | undefined;
}

/**
 * The reverse map: for each guest frame the chain of shadow entries that map it (Linux: struct kvm_rmap_head). The
 * head is a word of the memslot, the links are words beside the shadow entries; an entry is in one chain at most.
 * Links hold entry index + 1, so that 0 ends a chain. All of it is in shared words; the caller holds the VM's mmu lock.
 */
export class Rmap {
  private readonly slots: GfnLookup;
  /** Guest frame of each entry in a chain (KVM: sp->gfns). */
  private readonly gfns: Words;
  private readonly next: Words;
  private readonly prev: Words;

  constructor(slots: GfnLookup, gfns: Words, next: Words, prev: Words) {
    this.slots = slots;
    this.gfns = gfns;
    this.next = next;
    this.prev = prev;
  }

  add(index: number, gfn: number): void {
    const slot = this.slots.find(gfn)!;
    const head = slot.rmap.readOnce(gfn - slot.baseGfn);
    this.gfns.writeOnce(index, gfn);
    this.next.writeOnce(index, head);
    this.prev.writeOnce(index, 0);
    if (head !== 0) this.prev.writeOnce(head - 1, index + 1);
    slot.rmap.writeOnce(gfn - slot.baseGfn, index + 1);
  }

  remove(index: number): void {
    const next = this.next.readOnce(index);
    const prev = this.prev.readOnce(index);
    if (next !== 0) this.prev.writeOnce(next - 1, prev);
    if (prev !== 0) {
      this.next.writeOnce(prev - 1, next);
      return;
    }
    const gfn = this.gfn(index);
    const slot = this.slots.find(gfn)!;
    slot.rmap.writeOnce(gfn - slot.baseGfn, next);
  }

  gfn(index: number): number {
    return this.gfns.readOnce(index) >>> 0;
  }

  /** Index of the entry after `index` in its chain, or -1. */
  after(index: number): number {
    return this.next.readOnce(index) - 1;
  }
}
