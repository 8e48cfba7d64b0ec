import { KernelError, Words } from '../base/index.js';
import type { Host } from '../mm/index.js';

/**
 * The pool of shadow pages: 512 entries each, and what is known of a page, all in shared words, so that every thread with
 * a `ShadowPool` over the same descriptor has the same pool. The caller holds the VM's mmu lock.
 */

export const ENTRIES = 512;
/** Entry, guest frame, next, prev. */
const WORDS_PER_ENTRY = 4;
/** Root, middle and leaf: what one translation needs. */
export const MIN_SHADOW_PAGES = 3;
/** Page numbers have 16 bits in a root's handle. */
const MAX_SHADOW_PAGES = 65536;

/** Words of the pool. Lists hold page number + 1, so that 0 ends them. */
const FREE = 0;
const NR_FREE = 1;
const ROOTS = 2;
const USES = 3;
const BIRTHS = 4;
const NR_POOL_WORDS = 16;

/** Words of a page. */
const NEXT = 0;
/** Changes whenever the page is taken from the pool. */
const BIRTH = 1;
/** First vpn that the page translates. */
export const PAGE_VPN = 2;
/** 1 where some entry below was made from a guest superpage of the page's own extent: a fence inside concerns it all. */
export const PAGE_SUPER = 3;
/** Of a root: satp, and when it was last used. */
const SATP_LOW = 4;
const SATP_HIGH = 5;
const LAST_USE = 6;
const WORDS_PER_PAGE = 8;

/** Plain numbers: goes to another thread as it is. */
export interface ShadowDescriptor {
  readonly arenaAddr: number;
  readonly nrPages: number;
}

export class ShadowPool {
  readonly descriptor: ShadowDescriptor;
  readonly entries: Words;
  readonly gfns: Words;
  readonly next: Words;
  readonly prev: Words;
  private readonly pool: Words;
  private readonly pages: Words;

  constructor(memory: { buffer: SharedArrayBuffer }, descriptor: ShadowDescriptor) {
    this.descriptor = descriptor;
    let at = descriptor.arenaAddr;
    const take = (nrWords: number): Words => {
      const words = new Words(memory, at, nrWords);
      at += nrWords * 4;
      return words;
    };
    const { nrPages } = descriptor;
    this.pool = take(NR_POOL_WORDS);
    this.pages = take(nrPages * WORDS_PER_PAGE);
    [this.entries, this.gfns, this.next, this.prev] = [1, 2, 3, 4].map(() => take(nrPages * ENTRIES)) as [
      Words,
      Words,
      Words,
      Words,
    ];
  }

  /** Takes the memory and makes all pages free. Throws KernelError EINVAL, ENOMEM. */
  static create(host: Host, nrPages: number): ShadowPool {
    if (!Number.isInteger(nrPages) || nrPages < MIN_SHADOW_PAGES || nrPages > MAX_SHADOW_PAGES) {
      const most = nrPages > MIN_SHADOW_PAGES ? `${MAX_SHADOW_PAGES} at most` : `${MIN_SHADOW_PAGES} at least`;
      throw new KernelError('EINVAL', 'createVm', `nrShadowPages ${nrPages} must be ${most}`);
    }
    const arenaAddr = host.arenaAlloc(lenBytes(nrPages), 8);
    const pool = new ShadowPool(host.memory, { arenaAddr, nrPages });
    for (let i = 0; i < NR_POOL_WORDS; i++) pool.pool.writeOnce(i, 0);
    for (let i = 0; i < nrPages * WORDS_PER_PAGE; i++) pool.pages.writeOnce(i, 0);
    for (let page = nrPages - 1; page >= 0; page--) pool.free(page);
    return pool;
  }

  destroy(host: Host): void {
    host.arenaFree(this.descriptor.arenaAddr, lenBytes(this.descriptor.nrPages));
  }

  get nrFree(): number {
    return this.pool.readOnce(NR_FREE);
  }

  get(page: number, word: number): number {
    return this.pages.readOnce(page * WORDS_PER_PAGE + word);
  }

  set(page: number, word: number, value: number): void {
    this.pages.writeOnce(page * WORDS_PER_PAGE + word, value);
  }

  /** A page without entries; one must be free. */
  alloc(firstVpn: number): number {
    const page = this.pool.readOnce(FREE) - 1;
    this.pool.writeOnce(FREE, this.get(page, NEXT));
    this.add(NR_FREE, -1);
    this.set(page, BIRTH, this.add(BIRTHS, 1) & 0x7fffffff);
    this.set(page, PAGE_VPN, firstVpn);
    this.set(page, PAGE_SUPER, 0);
    this.clear(page);
    return page;
  }

  free(page: number): void {
    this.set(page, BIRTH, 0);
    this.set(page, NEXT, this.pool.readOnce(FREE));
    this.pool.writeOnce(FREE, page + 1);
    this.add(NR_FREE, 1);
  }

  clear(page: number): void {
    for (let i = page * ENTRIES; i < (page + 1) * ENTRIES; i++) this.entries.writeOnce(i, 0);
  }

  private add(word: number, value: number): number {
    const sum = this.pool.readOnce(word) + value;
    this.pool.writeOnce(word, sum);
    return sum;
  }

  // Roots.

  /** First root's page, or -1; `nextRoot` goes on. */
  firstRoot(): number {
    return this.pool.readOnce(ROOTS) - 1;
  }

  nextRoot(page: number): number {
    return this.get(page, NEXT) - 1;
  }

  addRoot(satp: bigint): number {
    const page = this.alloc(0);
    this.set(page, SATP_LOW, Number(BigInt.asIntN(32, satp)));
    this.set(page, SATP_HIGH, Number(BigInt.asIntN(32, satp >> 32n)));
    this.set(page, NEXT, this.pool.readOnce(ROOTS));
    this.pool.writeOnce(ROOTS, page + 1);
    return page;
  }

  findRoot(satp: bigint): number {
    const low = Number(BigInt.asIntN(32, satp));
    const high = Number(BigInt.asIntN(32, satp >> 32n));
    let page = this.firstRoot();
    while (page >= 0 && (this.get(page, SATP_LOW) !== low || this.get(page, SATP_HIGH) !== high))
      page = this.nextRoot(page);
    return page;
  }

  /** Takes the page out of the list of roots and frees it. */
  removeRoot(page: number): void {
    const after = this.get(page, NEXT);
    let before = -1;
    for (let p = this.firstRoot(); p !== page; p = this.nextRoot(p)) before = p;
    if (before < 0) this.pool.writeOnce(ROOTS, after);
    else this.set(before, NEXT, after);
    this.free(page);
  }

  asid(root: number): number {
    return (this.get(root, SATP_HIGH) >>> 12) & 0xffff;
  }

  touch(root: number): void {
    this.set(root, LAST_USE, this.add(USES, 1));
  }

  /** The root that was not used for longest, other than `except`; or -1. */
  leastRecentlyUsed(except: number): number {
    let victim = -1;
    for (let root = this.firstRoot(); root >= 0; root = this.nextRoot(root)) {
      if (root !== except && (victim < 0 || this.get(root, LAST_USE) < this.get(victim, LAST_USE))) victim = root;
    }
    return victim;
  }

  /** Number of the page with its birth: not another page's, and not this one's when it is taken anew. */
  handle(page: number): number {
    return this.get(page, BIRTH) * MAX_SHADOW_PAGES + page;
  }

  pageOf(handle: number): number {
    return handle % MAX_SHADOW_PAGES;
  }

  isLive(handle: number): boolean {
    return this.get(handle % MAX_SHADOW_PAGES, BIRTH) === Math.floor(handle / MAX_SHADOW_PAGES);
  }
}

function lenBytes(nrPages: number): number {
  return (NR_POOL_WORDS + nrPages * (WORDS_PER_PAGE + ENTRIES * WORDS_PER_ENTRY)) * 4;
}
