import type { IntervalNode } from '../base/index.js';
import { IntervalTree } from '../base/index.js';
import type { Vma } from './vma.js';

/**
 * The reverse map's root for anonymous pages (Linux: struct anon_vma): a frame names its anonVma and its index in it, the
 * anonVma knows the VMAs that may map that index. VMAs split from one share its anonVma.
 */
export class AnonVma {
  readonly id: number;
  private readonly tree = new IntervalTree<Vma>();
  private readonly nodes = new Map<Vma, IntervalNode<Vma>>();

  constructor(id: number) {
    this.id = id;
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

/** All anonVmas of a host, by the number that frames name. Number 0 is none. */
export class AnonVmas {
  private readonly byId: (AnonVma | undefined)[] = [undefined];
  private readonly freeIds: number[] = [];

  create(): AnonVma {
    const id = this.freeIds.pop() ?? this.byId.length;
    return (this.byId[id] = new AnonVma(id));
  }

  get(id: number): AnonVma | undefined {
    return this.byId[id];
  }

  /** The VMA gets the anonVma, for its first page. */
  prepare(vma: Vma): AnonVma {
    vma.anonVma ??= this.create();
    vma.anonVma.link(vma);
    return vma.anonVma;
  }

  /** The VMA goes away; the last one takes the anonVma along. */
  unlink(vma: Vma): void {
    const anonVma = vma.anonVma;
    if (anonVma === undefined) return;
    anonVma.unlink(vma);
    vma.anonVma = undefined;
    if (!anonVma.isEmpty) return;
    this.byId[anonVma.id] = undefined;
    this.freeIds.push(anonVma.id);
  }

  get nrLive(): number {
    return this.byId.length - 1 - this.freeIds.length;
  }
}
