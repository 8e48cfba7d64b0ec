import { KernelError, Words } from '../base/index.js';
import type { Host } from '../mm/index.js';
import type { Memslots } from './memslots.js';
import { Rmap } from './rmap.js';

/**
 * Shadow page tables: for each root of the guest (a value of satp) a tree of the guest's own shape, three levels of 512
 * entries, whose leaves map the guest's virtual pages straight to host frames (Linux: arch/x86/kvm/mmu, shadow paging).
 *
 * A shadow entry is derived from a guest pte and a direct entry (memslot.ts) and is dropped as soon as either may have
 * changed: by `sfence.vma` for the first (`zapVpn`, `zapTree`), by the notifier for the second, which finds it by the
 * reverse map (`zapChain`).
 *
 * Shadow pages come from a pool of fixed size; when it is empty the least recently used root is freed whole. The caller
 * holds the VM's mmu lock. `onZap` is called for each entry that goes, so that TLBs with that root are flushed.
 */

/** Shadow entries: pfn in bits 31..12, and these. The rights are the guest's own, less what the direct entry lacks. */
export const SPTE_V = 1;
export const SPTE_R = 2;
export const SPTE_W = 4;
export const SPTE_X = 8;
export const SPTE_U = 16;
/** Set when a translation through the entry is handed out; taken by aging. */
export const SPTE_A = 64;

const ENTRIES = 512;
/** Entry, guest frame, next, prev. */
const WORDS_PER_ENTRY = 4;
/** Root, middle and leaf: what one translation needs. */
export const MIN_SHADOW_PAGES = 3;

export interface ShadowRoot {
  readonly satp: bigint;
  readonly asid: number;
  readonly page: number;
  /** Pages of the lower levels. */
  readonly middle: number[];
  readonly leaves: number[];
  lastUse: number;
  /** False once the pool was short and took it: `getRoot` again. */
  live: boolean;
}

export class ShadowPages {
  private readonly host: Host;
  private readonly onZap: (root: ShadowRoot, vpn: number) => void;
  private readonly lenBytes: number;
  private readonly arenaAddr: number;
  private readonly sptes: Words;
  private readonly rmap: Rmap;
  private readonly freePages: number[] = [];
  private readonly rootOfPage: ShadowRoot[] = [];
  /** First vpn that the page translates. */
  private readonly vpnOfPage: Int32Array;
  /** 1 where some entry below was made from a guest superpage of the page's own extent: a fence inside concerns it all. */
  private readonly hasSuperpage: Uint8Array;
  private readonly roots = new Map<bigint, ShadowRoot>();
  private uses = 0;

  constructor(host: Host, slots: Memslots, nrPages: number, onZap: (root: ShadowRoot, vpn: number) => void) {
    if (nrPages < MIN_SHADOW_PAGES) {
      throw new KernelError('EINVAL', 'createVm', `nrShadowPages ${nrPages} must be ${MIN_SHADOW_PAGES} at least`);
    }
    this.host = host;
    this.onZap = onZap;
    const nrEntries = nrPages * ENTRIES;
    this.lenBytes = nrEntries * 4 * WORDS_PER_ENTRY;
    this.arenaAddr = host.arenaAlloc(this.lenBytes, 8);
    const words = (k: number) => new Words(host.memory, this.arenaAddr + k * nrEntries * 4, nrEntries);
    this.sptes = words(0);
    this.rmap = new Rmap(slots, words(1), words(2), words(3));
    this.vpnOfPage = new Int32Array(nrPages);
    this.hasSuperpage = new Uint8Array(nrPages);
    for (let page = nrPages - 1; page >= 0; page--) this.freePages.push(page);
  }

  free(): void {
    for (const root of [...this.roots.values()]) this.zapRoot(root);
    this.host.arenaFree(this.arenaAddr, this.lenBytes);
  }

  allRoots(): IterableIterator<ShadowRoot> {
    return this.roots.values();
  }

  getRoot(satp: bigint): ShadowRoot {
    const root = this.roots.get(satp) ?? this.newRoot(satp);
    root.lastUse = ++this.uses;
    return root;
  }

  private newRoot(satp: bigint): ShadowRoot {
    this.reserve(MIN_SHADOW_PAGES, undefined);
    const asid = Number((satp >> 44n) & 0xffffn);
    const root: ShadowRoot = {
      satp,
      asid,
      page: this.freePages.pop()!,
      middle: [],
      leaves: [],
      lastUse: 0,
      live: true,
    };
    this.initPage(root, root.page, 0);
    this.roots.set(satp, root);
    return root;
  }

  /** Index of the leaf entry of `vpn` (27 bits), or -1 while the tree does not reach it. */
  leafIndex(root: ShadowRoot, vpn: number): number {
    const middle = this.sptes.readOnce(root.page * ENTRIES + (vpn >>> 18));
    if (middle === 0) return -1;
    const leaf = this.sptes.readOnce((middle >>> 1) * ENTRIES + ((vpn >>> 9) & 511));
    return leaf === 0 ? -1 : (leaf >>> 1) * ENTRIES + (vpn & 511);
  }

  /** The leaf entry at `index` of `leafIndex`; 0 where there is none. */
  spte(index: number): number {
    return index < 0 ? 0 : this.sptes.readOnce(index);
  }

  /** Calls `fn` for each leaf entry of all roots. */
  forEachLeaf(fn: (index: number, spte: number) => void): void {
    for (const root of this.roots.values()) {
      for (const leaf of root.leaves) {
        for (let index = leaf * ENTRIES; index < (leaf + 1) * ENTRIES; index++) {
          const spte = this.sptes.readOnce(index);
          if (spte !== 0) fn(index, spte);
        }
      }
    }
  }

  /** Entries of the chain that begins with link `head`. */
  chain(head: number): number[] {
    const indices: number[] = [];
    for (let index = head - 1; index >= 0; index = this.rmap.after(index)) indices.push(index);
    return indices;
  }

  /** Guest frame that the leaf entry at `index` shows. */
  gfn(index: number): number {
    return this.rmap.gfn(index);
  }

  markAccessed(index: number): void {
    this.sptes.writeOnce(index, this.sptes.readOnce(index) | SPTE_A);
  }

  /** Maps `vpn` by `spte`, which shows guest frame `gfn`; `level` is that of the guest's leaf pte (0: a 4 KiB page). */
  install(root: ShadowRoot, vpn: number, gfn: number, spte: number, level: number): void {
    this.reserve(MIN_SHADOW_PAGES - 1, root);
    const middle = this.descend(root, root.page, vpn >>> 18, vpn & ~0x3ffff, root.middle);
    const leaf = this.descend(root, middle, (vpn >>> 9) & 511, vpn & ~511, root.leaves);
    if (level > 0) this.hasSuperpage[level === 1 ? leaf : middle] = 1;
    const index = leaf * ENTRIES + (vpn & 511);
    if (this.sptes.readOnce(index) !== 0) this.zapEntry(index);
    this.sptes.writeOnce(index, spte | SPTE_V | SPTE_A);
    this.rmap.add(index, gfn);
  }

  /** The page that entry `slot` of `page` links to (a link is page number << 1 | V), taken from the pool if need be. */
  private descend(root: ShadowRoot, page: number, slot: number, firstVpn: number, list: number[]): number {
    const link = this.sptes.readOnce(page * ENTRIES + slot);
    if (link !== 0) return link >>> 1;
    const below = this.freePages.pop()!;
    this.initPage(root, below, firstVpn);
    list.push(below);
    this.sptes.writeOnce(page * ENTRIES + slot, (below << 1) | SPTE_V);
    return below;
  }

  private initPage(root: ShadowRoot, page: number, firstVpn: number): void {
    this.rootOfPage[page] = root;
    this.vpnOfPage[page] = firstVpn;
    this.hasSuperpage[page] = 0;
    this.clearPage(page);
  }

  private clearPage(page: number): void {
    for (let i = page * ENTRIES; i < (page + 1) * ENTRIES; i++) this.sptes.writeOnce(i, 0);
  }

  /** Makes `nrPages` free, at the expense of other roots first, then of `keep`'s own tree. */
  private reserve(nrPages: number, keep: ShadowRoot | undefined): void {
    while (this.freePages.length < nrPages) {
      const victim = this.leastRecentlyUsed(keep);
      if (victim === undefined) this.zapTree(keep!);
      else this.zapRoot(victim);
    }
  }

  private leastRecentlyUsed(except: ShadowRoot | undefined): ShadowRoot | undefined {
    let victim: ShadowRoot | undefined;
    for (const root of this.roots.values()) {
      if (root !== except && (victim === undefined || root.lastUse < victim.lastUse)) victim = root;
    }
    return victim;
  }

  /** Drops all of `root`. */
  private zapRoot(root: ShadowRoot): void {
    this.zapTree(root);
    this.roots.delete(root.satp);
    this.freePages.push(root.page);
    root.live = false;
  }

  /** Drops everything below the top of `root`, which stays in use. */
  zapTree(root: ShadowRoot): void {
    for (const leaf of root.leaves) this.zapLeaf(leaf);
    this.freePages.push(...root.leaves, ...root.middle);
    root.leaves.length = 0;
    root.middle.length = 0;
    this.clearPage(root.page);
  }

  private zapLeaf(leaf: number): void {
    for (let i = leaf * ENTRIES; i < (leaf + 1) * ENTRIES; i++) {
      if (this.sptes.readOnce(i) !== 0) this.zapEntry(i);
    }
  }

  /** `sfence.vma` for one page: an entry made from a superpage goes with the whole superpage. */
  zapVpn(root: ShadowRoot, vpn: number): void {
    const middle = this.sptes.readOnce(root.page * ENTRIES + (vpn >>> 18));
    if (middle !== 0 && this.hasSuperpage[middle >>> 1] === 1) {
      this.zapTree(root);
      return;
    }
    const index = this.leafIndex(root, vpn);
    if (index < 0) return;
    if (this.hasSuperpage[index >>> 9] === 1) this.zapLeaf(index >>> 9);
    else if (this.sptes.readOnce(index) !== 0) this.zapEntry(index);
  }

  /** Drops every entry of the chain that begins with link `head` (a word of the memslot's reverse map). */
  zapChain(head: number): void {
    for (let index = head - 1; index >= 0; ) {
      const after = this.rmap.after(index);
      this.zapEntry(index);
      index = after;
    }
  }

  /** Takes the accessed bits of a chain; entries that were young leave the TLBs, so that their next use shows. */
  clearYoungChain(head: number): boolean {
    let young = false;
    for (let index = head - 1; index >= 0; index = this.rmap.after(index)) {
      const spte = this.sptes.readOnce(index);
      if ((spte & SPTE_A) === 0) continue;
      young = true;
      this.sptes.writeOnce(index, spte & ~SPTE_A);
      this.tellZap(index);
    }
    return young;
  }

  private zapEntry(index: number): void {
    this.rmap.remove(index);
    this.sptes.writeOnce(index, 0);
    this.tellZap(index);
  }

  private tellZap(index: number): void {
    const page = index >>> 9;
    this.onZap(this.rootOfPage[page]!, this.vpnOfPage[page]! + (index & 511));
  }
}
