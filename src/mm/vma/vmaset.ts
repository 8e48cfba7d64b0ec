import type { Vma } from './vma.js';
import type { VmCounters } from './vmcounters.js';

/**
 * The VMAs of one mm, sorted by address and disjoint (Linux: mm_mt, the maple tree). A treap whose nodes are the VMAs themselves:
 * each knows its neighbours and the largest hole below it, so that lookup, insertion, removal and the search for a hole cost
 * O(log n), and a step to the neighbour O(1). A lookup that hits the same VMA again costs two compares. Nothing here allocates
 * but `all`.
 *
 * Use: `find` or `firstEndingAfter`, then `vma.next`; `insert`, `remove`, `resize` for every change of a VMA's bounds, and
 * `setFlags` for its rights and flags: what counts pages of VMAs is kept here, so that no operation can forget it.
 * A VMA that was removed keeps no neighbours: take `next` before.
 */
export class VmaSet {
  private root: Vma | undefined;
  private last: Vma | undefined;
  private head: Vma | undefined;
  private tail: Vma | undefined;
  private count = 0;
  private readonly counters: readonly VmCounters[];

  /** Pages are counted in all of `counters`: the mm's own, and its host's. */
  constructor(...counters: VmCounters[]) {
    this.counters = counters;
  }

  get length(): number {
    return this.count;
  }

  /** The VMA with the lowest address. */
  get first(): Vma | undefined {
    return this.head;
  }

  /** For tests and the checker. */
  all(): Vma[] {
    const list: Vma[] = [];
    for (let vma = this.head; vma !== undefined; vma = vma.next) list.push(vma);
    return list;
  }

  /** The VMA that contains `vpn`. */
  find(vpn: number): Vma | undefined {
    const last = this.last;
    if (last !== undefined && vpn >= last.startVpn && vpn < last.endVpn) return last;
    let vma = this.root;
    while (vma !== undefined) {
      if (vpn < vma.startVpn) vma = vma.left;
      else if (vpn >= vma.endVpn) vma = vma.right;
      else return (this.last = vma);
    }
    return undefined;
  }

  /** The first VMA that ends after `vpn`: it contains `vpn`, or is the next above it. */
  firstEndingAfter(vpn: number): Vma | undefined {
    let found: Vma | undefined;
    let vma = this.root;
    while (vma !== undefined) {
      if (vma.endVpn > vpn) {
        found = vma;
        vma = vma.left;
      } else vma = vma.right;
    }
    return found;
  }

  /** Whether any VMA overlaps [startVpn, endVpn). */
  intersects(startVpn: number, endVpn: number): boolean {
    const vma = this.firstEndingAfter(startVpn);
    return vma !== undefined && vma.startVpn < endVpn;
  }

  /** First page of the lowest hole of `nrPages` at or after `fromVpn`, below `limitVpn`; -1 when there is none. */
  findHole(nrPages: number, fromVpn: number, limitVpn: number): number {
    const first = this.firstEndingAfter(fromVpn);
    let start = fromVpn;
    if (first !== undefined && first.startVpn - start < nrPages) {
      const vma = nextWithGap(first, nrPages);
      start = vma === undefined ? this.tail!.endVpn : vma.startVpn - vma.gap;
    }
    return start + nrPages <= limitVpn ? start : -1;
  }

  /** The VMA must overlap none that is in. */
  insert(vma: Vma): void {
    let parent: Vma | undefined;
    let below = this.root;
    while (below !== undefined) {
      parent = below;
      below = vma.startVpn < below.startVpn ? below.left : below.right;
    }
    vma.parent = parent;
    vma.gap = 0;
    vma.maxGap = 0;
    if (parent === undefined) this.link(vma, undefined, undefined);
    else if (vma.startVpn < parent.startVpn) {
      parent.left = vma;
      this.link(vma, parent.prev, parent);
    } else {
      parent.right = vma;
      this.link(vma, parent, parent.next);
    }
    if (parent === undefined) this.root = vma;
    this.count++;
    this.account(vma, vma.nrPages);
    updateGap(vma);
    while (vma.parent !== undefined && vma.priority > vma.parent.priority) this.rotateUp(vma);
  }

  private link(vma: Vma, prev: Vma | undefined, next: Vma | undefined): void {
    vma.prev = prev;
    vma.next = next;
    if (prev === undefined) this.head = vma;
    else prev.next = vma;
    if (next === undefined) this.tail = vma;
    else {
      next.prev = vma;
      updateGap(next);
    }
  }

  remove(vma: Vma): void {
    if (this.last === vma) this.last = undefined;
    for (let child = heavier(vma); child !== undefined; child = heavier(vma)) this.rotateUp(child);
    const { parent, prev, next } = vma;
    this.replaceChild(parent, vma, undefined);
    vma.parent = undefined;
    vma.prev = undefined;
    vma.next = undefined;
    this.count--;
    this.account(vma, -vma.nrPages);
    if (parent !== undefined) updateMaxGap(parent);
    if (prev === undefined) this.head = next;
    else prev.next = next;
    if (next === undefined) this.tail = prev;
    else {
      next.prev = prev;
      updateGap(next);
    }
  }

  /** New bounds for a VMA that is in; its order among the others stays. */
  resize(vma: Vma, startVpn: number, endVpn: number): void {
    this.account(vma, endVpn - startVpn - vma.nrPages);
    vma.startVpn = startVpn;
    vma.endVpn = endVpn;
    updateGap(vma);
    if (vma.next !== undefined) updateGap(vma.next);
  }

  /** New rights and flags for a VMA that is in. */
  setFlags(vma: Vma, prot: number, flags: number): void {
    this.account(vma, -vma.nrPages);
    vma.prot = prot;
    vma.flags = flags;
    this.account(vma, vma.nrPages);
  }

  private account(vma: Vma, nrPages: number): void {
    for (let i = 0; i < this.counters.length; i++) this.counters[i]!.add(vma, nrPages);
  }

  private rotateUp(vma: Vma): void {
    const parent = vma.parent!;
    const inner = parent.left === vma ? vma.right : vma.left;
    this.replaceChild(parent.parent, parent, vma);
    vma.parent = parent.parent;
    if (parent.left === vma) {
      parent.left = inner;
      vma.right = parent;
    } else {
      parent.right = inner;
      vma.left = parent;
    }
    if (inner !== undefined) inner.parent = parent;
    parent.parent = vma;
    parent.maxGap = maxGapOf(parent);
    vma.maxGap = maxGapOf(vma);
  }

  private replaceChild(parent: Vma | undefined, child: Vma, by: Vma | undefined): void {
    if (parent === undefined) this.root = by;
    else if (parent.left === child) parent.left = by;
    else parent.right = by;
  }
}

/** The child that belongs above the other. */
function heavier(vma: Vma): Vma | undefined {
  const { left, right } = vma;
  if (left === undefined) return right;
  return right === undefined || left.priority > right.priority ? left : right;
}

function maxGapOf(vma: Vma): number {
  let gap = vma.gap;
  if (vma.left !== undefined && vma.left.maxGap > gap) gap = vma.left.maxGap;
  if (vma.right !== undefined && vma.right.maxGap > gap) gap = vma.right.maxGap;
  return gap;
}

function updateGap(vma: Vma): void {
  vma.gap = vma.startVpn - (vma.prev === undefined ? 0 : vma.prev.endVpn);
  updateMaxGap(vma);
}

function updateMaxGap(from: Vma): void {
  for (let vma: Vma | undefined = from; vma !== undefined; vma = vma.parent) {
    const maxGap = maxGapOf(vma);
    if (maxGap === vma.maxGap) return;
    vma.maxGap = maxGap;
  }
}

/** The first VMA after `from` with a hole of `nrPages` before it. */
function nextWithGap(from: Vma, nrPages: number): Vma | undefined {
  let vma = from;
  if (vma.right !== undefined && vma.right.maxGap >= nrPages) return firstWithGap(vma.right, nrPages);
  for (let parent = vma.parent; parent !== undefined; vma = parent, parent = vma.parent) {
    if (parent.left !== vma) continue;
    if (parent.gap >= nrPages) return parent;
    if (parent.right !== undefined && parent.right.maxGap >= nrPages) return firstWithGap(parent.right, nrPages);
  }
  return undefined;
}

/** The first VMA of the subtree with such a hole; there is one. */
function firstWithGap(root: Vma, nrPages: number): Vma {
  let vma = root;
  for (;;) {
    if (vma.left !== undefined && vma.left.maxGap >= nrPages) vma = vma.left;
    else if (vma.gap >= nrPages) return vma;
    else vma = vma.right!;
  }
}
