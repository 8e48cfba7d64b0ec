import type { Words } from '../base/index.js';

/** What the shadow tables ask of the memslots. Each thread has its own view of the same words. */
export interface GfnLookup {
  find(gfn: number): GfnSlot | undefined;
}

/** A memslot, as far as the shadow tables need it. */
export interface GfnSlot {
  readonly baseGfn: number;
  readonly direct: Words;
  readonly rmap: Words;
}

/**
 * Chains of shadow entries by two words beside each. An entry is in one chain at most; the chain's head is a word of
 * whatever the entries have in common. Heads and links hold entry index + 1, so that 0 ends a chain. The caller holds the VM's mmu lock.
 */
export class Chains {
  private readonly next: Words;
  private readonly prev: Words;

  constructor(next: Words, prev: Words) {
    this.next = next;
    this.prev = prev;
  }

  add(heads: Words, at: number, index: number): void {
    const head = heads.readOnce(at);
    this.next.writeOnce(index, head);
    this.prev.writeOnce(index, 0);
    if (head !== 0) this.prev.writeOnce(head - 1, index + 1);
    heads.writeOnce(at, index + 1);
  }

  remove(heads: Words, at: number, index: number): void {
    const next = this.next.readOnce(index);
    const prev = this.prev.readOnce(index);
    if (next !== 0) this.prev.writeOnce(next - 1, prev);
    if (prev !== 0) this.next.writeOnce(prev - 1, next);
    else heads.writeOnce(at, next);
  }

  /** Index of the entry after `index` in its chain, or -1. */
  after(index: number): number {
    return this.next.readOnce(index) - 1;
  }
}

/**
 * The reverse map: for each guest frame the chain of shadow entries that map it (Linux: struct kvm_rmap_head). The head
 * is a word of the memslot.
 */
export class Rmap {
  private readonly slots: GfnLookup;
  /** Guest frame of each entry in a chain (KVM: sp->gfns). */
  private readonly gfns: Words;
  private readonly chains: Chains;

  constructor(slots: GfnLookup, gfns: Words, chains: Chains) {
    this.slots = slots;
    this.gfns = gfns;
    this.chains = chains;
  }

  /** An entry of page `i` of the slot. */
  add(index: number, slot: GfnSlot, i: number): void {
    this.gfns.writeOnce(index, (slot.baseGfn + i) | 0);
    this.chains.add(slot.rmap, i, index);
  }

  remove(index: number): void {
    const gfn = this.gfn(index);
    const slot = this.slots.find(gfn)!;
    this.removeFrom(index, slot, gfn - slot.baseGfn);
  }

  /** What is known to be an entry of page `i` of the slot. */
  removeFrom(index: number, slot: GfnSlot, i: number): void {
    this.chains.remove(slot.rmap, i, index);
  }

  gfn(index: number): number {
    return this.gfns.readOnce(index) >>> 0;
  }

  after(index: number): number {
    return this.chains.after(index);
  }
}
