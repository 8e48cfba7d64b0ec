import type { IntervalNode } from '../../base/index.js';
import { IntervalTree } from '../../base/index.js';
import type { Vma } from '../vma/vma.js';
import type { RmapRoot } from './rmap.js';

/**
 * The reverse map's root for anonymous pages (Linux: struct anon_vma): a frame names its anonVma and its index in it, the
 * anonVma knows the VMAs that may map that index.
 *
 * A VMA has one anonVma of its own, to which its new pages go, and is linked into all of its chain. VMAs split from one have all of it in
 * common. After a fork the child's VMA is linked into every anonVma of the parent's, where the pages are that both map, and has an own one
 * for the pages that will be its alone: so a page of the child is looked for in the child, not in its whole family.
 *
 *   parent VMA  ── A                A: parent, child, grandchild   pages from before the first fork
 *   child VMA   ── B, A             B: child, grandchild           pages that the child made
 *   grandchild  ── C, B, A          C: grandchild
 *
 * An anonVma lives as long as a VMA is linked into it. One whose own VMAs are gone is taken over by the child that forks next, so that a chain of
 * forks whose parents exit does not grow without end.
 */
export class AnonVma implements RmapRoot {
  readonly id: number;
  readonly parent: AnonVma | undefined;
  /** The oldest of the family: every VMA of the family is linked into it. */
  readonly root: AnonVma;
  /** VMAs whose own anonVma it is. */
  nrOwners = 0;
  /** Living anonVmas whose parent it is. */
  nrChildren = 0;
  private readonly tree = new IntervalTree<Vma>();
  private readonly nodes = new Map<Vma, IntervalNode<Vma>>();

  constructor(id: number, parent: AnonVma | undefined) {
    this.id = id;
    this.parent = parent;
    this.root = parent?.root ?? this;
    if (parent !== undefined) parent.nrChildren++;
  }

  /** The VMA enters, or its bounds have changed. */
  link(vma: Vma): void {
    this.unlink(vma);
    this.nodes.set(vma, this.tree.insert(vma.pgoff, vma.pgoff + vma.nrPages, vma));
  }

  unlink(vma: Vma): void {
    const node = this.nodes.get(vma);
    if (node === undefined) return;
    this.tree.remove(node);
    this.nodes.delete(vma);
  }

  get isEmpty(): boolean {
    return this.nodes.size === 0;
  }

  /** Calls `fn` for each VMA that contains page `index`, until it returns true. */
  visit(index: number, fn: (vma: Vma) => unknown): boolean {
    return this.tree.visit(index, index + 1, fn);
  }
}

/** The anonVma of `other`, one of two neighbours that may be merged once their rights are the same; a forked one's is not shared. */
function reusable(a: Vma | undefined, b: Vma | undefined, other: Vma | undefined): AnonVma | undefined {
  if (a === undefined || b === undefined || a.endVpn !== b.startVpn || a.flags !== b.flags) return undefined;
  return a.pgoffOf(a.endVpn) === b.pgoff && other!.anonVmaChain.length === 1 ? other!.anonVma : undefined;
}

/** All anonVmas of a host, by the number that frames name. Number 0 is none. */
export class AnonVmas {
  private readonly byId: (AnonVma | undefined)[] = [undefined];
  private readonly freeIds: number[] = [];

  private create(parent: AnonVma | undefined): AnonVma {
    const id = this.freeIds.pop() ?? this.byId.length;
    return (this.byId[id] = new AnonVma(id, parent));
  }

  get(id: number): AnonVma | undefined {
    return this.byId[id];
  }

  /** The VMA gets an anonVma, for its first page: a neighbour's where the two may become one VMA later (Linux: find_mergeable_anon_vma). */
  prepare(vma: Vma): AnonVma {
    if (vma.anonVma !== undefined) return vma.anonVma;
    this.own(vma, reusable(vma, vma.next, vma.next) ?? reusable(vma.prev, vma, vma.prev) ?? this.create(undefined));
    return vma.anonVma!;
  }

  private own(vma: Vma, anonVma: AnonVma): void {
    anonVma.nrOwners++;
    vma.anonVma = anonVma;
    if (!vma.anonVmaChain.includes(anonVma)) vma.anonVmaChain = [anonVma, ...vma.anonVmaChain];
    anonVma.link(vma);
  }

  /** `vma`, split off or copied from `from`, gets all that it has. */
  clone(vma: Vma, from: Vma): void {
    vma.anonVmaChain = from.anonVmaChain;
    for (const anonVma of vma.anonVmaChain) anonVma.link(vma);
    if (from.anonVma !== undefined) this.own(vma, from.anonVma);
  }

  /** `child` is `parent` in a forked mm: it is found by the parent's pages, and has its own place for new ones (Linux: anon_vma_fork). */
  fork(child: Vma, parent: Vma): void {
    if (parent.anonVma === undefined) return;
    child.anonVmaChain = parent.anonVmaChain;
    for (const anonVma of child.anonVmaChain) anonVma.link(child);
    const orphan = child.anonVmaChain.find((a) => a.root !== a && a.nrOwners === 0 && a.nrChildren < 2);
    this.own(child, orphan ?? this.create(parent.anonVma));
  }

  /** The bounds of the VMA have changed. */
  relink(vma: Vma): void {
    for (const anonVma of vma.anonVmaChain) anonVma.link(vma);
  }

  /** The VMA goes away; the last one takes the anonVma along. */
  unlink(vma: Vma): void {
    if (vma.anonVma !== undefined) vma.anonVma.nrOwners--;
    const chain = vma.anonVmaChain;
    vma.anonVma = undefined;
    vma.anonVmaChain = [];
    for (const anonVma of chain) {
      anonVma.unlink(vma);
      if (anonVma.isEmpty) this.free(anonVma);
    }
  }

  private free(anonVma: AnonVma): void {
    if (anonVma.parent !== undefined) anonVma.parent.nrChildren--;
    this.byId[anonVma.id] = undefined;
    this.freeIds.push(anonVma.id);
  }

  get nrLive(): number {
    return this.byId.length - 1 - this.freeIds.length;
  }
}
