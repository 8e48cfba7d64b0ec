import { KernelError, Words } from '../base/index.js';
import type { Host } from '../mm/index.js';

/**
 * The pool of shadow pages: 512 entries each, what is known of each page, and a hash of the pages by what they shadow. All
 * of it is shared words, so that every thread with a `ShadowPool` over the same descriptor has the same pool. The caller holds
 * the VM's mmu lock.
 *
 * A page is known by a guest frame and a role. The role of a page that shadows a table of the guest is the level of its
 * entries (2: root, 0: last), and for a root the ASID; of a page made for a guest superpage ("direct", as in KVM's role) the
 * level and the guest's rights, and its frame is the first that the superpage maps.
 */

export const ENTRIES = 512;
/** Entry, guest frame, next, prev. */
const WORDS_PER_ENTRY = 4;
/** Root, middle and leaf: what one translation needs. */
const MIN_SHADOW_PAGES = 3;
/** Page numbers have 16 bits in a root's handle. */
const MAX_SHADOW_PAGES = 65536;

/** Words of the pool. Lists hold page number + 1, so that 0 ends them. */
const FREE = 0;
const BIRTHS = 1;
const HAND = 2;
/** Generation, and what the fences (shadowfence.ts) keep. */
export const POOL_GENERATION = 3;
export const POOL_FENCE_ALL = 4;
export const POOL_LOG_HEAD = 5;
/** Counters, from the first. */
const COUNTERS = 8;
export const COUNTER_INSTALLS = 0;
export const COUNTER_SYNCS = 1;
export const COUNTER_DROPPED = 2;
export const COUNTER_EVICTIONS = 3;
export const COUNTER_PREFETCHED = 4;
const NR_COUNTERS = 8;
export const NR_ASID_FENCES = 256;
export const NR_LOGGED = 64;
export const POOL_ASID_FENCES = COUNTERS + NR_COUNTERS;
export const POOL_LOG = POOL_ASID_FENCES + NR_ASID_FENCES;
const NR_POOL_WORDS = POOL_LOG + 2 * NR_LOGGED;

/** Words of a page. In the free list or in a chain of the hash. */
const NEXT = 0;
/** Different each time that the page is taken; 0 while it is free. */
const BIRTH = 1;
export const PAGE_GFN = 2;
export const PAGE_ROLE = 3;
/** Generation in which its entries were last compared with the guest's ptes. */
export const PAGE_SYNCED = 4;
/** Generation in which it and all below it must have been compared, at least, for who comes by way of it. */
export const PAGE_FENCED = 5;
/** Head of the chain of links to it (KVM: parent_ptes). */
export const PAGE_PARENTS = 6;
/** First vpn that it translates, or NO_VPN where it has several places. */
export const PAGE_VPN = 7;
/** 1 when a look-up came by; taken by the search for a page to evict. */
export const PAGE_USED = 8;
/** Of a root: how far it has followed the log of fences. */
export const PAGE_SEEN = 9;
/** Of a root: a bit for each hart that it was current in, two words. */
const PAGE_HARTS = 10;
export const WORDS_PER_PAGE = 12;

export const NO_VPN = -1;
/** PAGE_SYNCED of what never needs to be compared. */
const ALWAYS = 0x7fffffff;

/** Roles: level in bits 1..0, and these. */
const ROLE_DIRECT = 4;
const ROLE_RIGHTS_SHIFT = 4;
const RIGHTS = 0x3e;
const ROLE_ASID_SHIFT = 4;
/** satp.PPN has 44 bits, PAGE_GFN 32. */
const ROLE_PPN_SHIFT = 20;

/** Of a page that shadows a table of the guest other than a root. */
export function tableRole(level: number): number {
  return level;
}

/** Of a page for a superpage; `flags`: SPTE_R, _W, _X, _U of the guest. */
export function directRole(level: number, flags: number): number {
  return level | ROLE_DIRECT | ((flags & RIGHTS) << ROLE_RIGHTS_SHIFT);
}

export function rootRole(ppn: number, asid: number): number {
  return 2 | (asid << ROLE_ASID_SHIFT) | (Math.floor(ppn / 2 ** 32) << ROLE_PPN_SHIFT);
}

export function roleLevel(role: number): number {
  return role & 3;
}

export function roleIsDirect(role: number): boolean {
  return (role & ROLE_DIRECT) !== 0;
}

/** Rights of a direct role, as SPTE_*, with SPTE_G. */
export function roleRights(role: number): number {
  return (role >>> ROLE_RIGHTS_SHIFT) & RIGHTS;
}

/** ASID of a root's role. */
export function roleAsid(role: number): number {
  return (role >>> ROLE_ASID_SHIFT) & 0xffff;
}

/** Plain numbers: goes to another thread as it is. */
export interface ShadowDescriptor {
  readonly arenaAddr: number;
  readonly nrPages: number;
}

export class ShadowPool {
  readonly descriptor: ShadowDescriptor;
  readonly nrPages: number;
  /** The entries of all pages, and beside each the words of rmap.ts. */
  readonly entries: Words;
  /** Address of the generation, for what reads it in WebAssembly. */
  readonly generationAddr: number;
  /** Of the word that counts COUNTER_PREFETCHED. */
  readonly prefetchedAddr: number;
  /** Of entry 0, and bytes from it to its word in `gfns`, from there to that in `next`, and to `prev`. */
  readonly entriesAddr: number;
  readonly stride: number;
  readonly gfns: Words;
  readonly next: Words;
  readonly prev: Words;
  readonly words: Words;
  /** Words of the pages; by page and PAGE_*: `get`, `set`. */
  readonly pages: Words;
  private readonly hash: Words;
  private readonly pagesAddr: number;

  constructor(memory: { buffer: SharedArrayBuffer }, descriptor: ShadowDescriptor) {
    const { nrPages } = descriptor;
    let at = descriptor.arenaAddr;
    const take = (nrWords: number): Words => {
      const words = new Words(memory, at, nrWords);
      at += nrWords * 4;
      return words;
    };
    this.descriptor = descriptor;
    this.nrPages = nrPages;
    this.generationAddr = at + POOL_GENERATION * 4;
    this.prefetchedAddr = at + (COUNTERS + COUNTER_PREFETCHED) * 4;
    this.stride = nrPages * ENTRIES * 4;
    this.words = take(NR_POOL_WORDS);
    this.hash = take(nrBuckets(nrPages));
    this.pagesAddr = at;
    this.pages = take(nrPages * WORDS_PER_PAGE);
    this.entriesAddr = at;
    this.entries = take(nrPages * ENTRIES);
    this.gfns = take(nrPages * ENTRIES);
    this.next = take(nrPages * ENTRIES);
    this.prev = take(nrPages * ENTRIES);
  }

  /** Takes the memory and makes all pages free. Throws KernelError EINVAL, ENOMEM. */
  static create(host: Host, nrPages: number): ShadowPool {
    checkNrPages(nrPages);
    const arenaAddr = host.arenaAlloc(lenBytes(nrPages), 8);
    const pool = new ShadowPool(host.memory, { arenaAddr, nrPages });
    for (const words of [pool.words, pool.hash, pool.pages])
      for (let i = 0; i < words.length; i++) words.writeOnce(i, 0);
    pool.words.writeOnce(POOL_GENERATION, 1);
    for (let page = nrPages - 1; page >= 0; page--) pool.pushFree(page);
    return pool;
  }

  destroy(host: Host): void {
    host.arenaFree(this.descriptor.arenaAddr, lenBytes(this.nrPages));
  }

  get(page: number, word: number): number {
    return this.pages.readOnce(page * WORDS_PER_PAGE + word);
  }

  set(page: number, word: number, value: number): void {
    this.pages.writeOnce(page * WORDS_PER_PAGE + word, value);
  }

  get generation(): number {
    return this.words.readOnce(POOL_GENERATION);
  }

  /** Later than whatever was compared with the guest's ptes, or looked up without the lock, so far. */
  nextGeneration(): number {
    const generation = this.generation + 1;
    this.words.store(POOL_GENERATION, generation);
    return generation;
  }

  count(counter: number, nr: number): void {
    this.words.writeOnce(COUNTERS + counter, this.words.readOnce(COUNTERS + counter) + nr);
  }

  counter(counter: number): number {
    return this.words.readOnce(COUNTERS + counter) >>> 0;
  }

  /** The page of a guest frame in a role, or -1. */
  find(gfn: number, role: number): number {
    let page = this.hash.readOnce(this.bucket(gfn, role)) - 1;
    while (page >= 0 && (this.get(page, PAGE_GFN) !== (gfn | 0) || this.get(page, PAGE_ROLE) !== role))
      page = this.get(page, NEXT) - 1;
    return page;
  }

  private bucket(gfn: number, role: number): number {
    return (Math.imul(gfn ^ (role << 16) ^ (role >>> 8), 0x9e3779b1) >>> 8) & (this.hash.length - 1);
  }

  get isFull(): boolean {
    return this.words.readOnce(FREE) === 0;
  }

  /** Takes a page, which has no entries; the pool is not full. */
  alloc(gfn: number, role: number, firstVpn: number): number {
    const { words } = this;
    const page = words.readOnce(FREE) - 1;
    words.writeOnce(FREE, this.get(page, NEXT));
    const birth = (words.readOnce(BIRTHS) + 1) & 0x7fffffff || 1;
    words.writeOnce(BIRTHS, birth);
    this.set(page, BIRTH, birth);
    this.set(page, PAGE_GFN, gfn | 0);
    this.set(page, PAGE_ROLE, role);
    this.set(page, PAGE_SYNCED, roleIsDirect(role) ? ALWAYS : this.generation);
    this.set(page, PAGE_FENCED, 0);
    this.set(page, PAGE_PARENTS, 0);
    this.set(page, PAGE_VPN, firstVpn);
    this.set(page, PAGE_USED, 1);
    this.set(page, PAGE_SEEN, words.readOnce(POOL_LOG_HEAD));
    this.set(page, PAGE_HARTS, 0);
    this.set(page, PAGE_HARTS + 1, 0);
    for (let i = page * ENTRIES; i < (page + 1) * ENTRIES; i++) this.entries.writeOnce(i, 0);
    const bucket = this.bucket(gfn, role);
    this.set(page, NEXT, this.hash.readOnce(bucket));
    this.hash.writeOnce(bucket, page + 1);
    return page;
  }

  /** Gives a page back that has neither entries nor links to it. */
  free(page: number): void {
    const bucket = this.bucket(this.get(page, PAGE_GFN) >>> 0, this.get(page, PAGE_ROLE));
    let before = -1;
    for (let p = this.hash.readOnce(bucket) - 1; p !== page; p = this.get(p, NEXT) - 1) before = p;
    if (before < 0) this.hash.writeOnce(bucket, this.get(page, NEXT));
    else this.set(before, NEXT, this.get(page, NEXT));
    this.pushFree(page);
  }

  private pushFree(page: number): void {
    this.set(page, BIRTH, 0);
    this.set(page, NEXT, this.words.readOnce(FREE));
    this.words.writeOnce(FREE, page + 1);
  }

  isUsed(page: number): boolean {
    return this.get(page, BIRTH) !== 0;
  }

  /** Notes that a root is current in a hart; returns whether it was before. */
  noteHart(root: number, hart: number): boolean {
    const word = PAGE_HARTS + ((hart >>> 5) & 1);
    const harts = this.get(root, word);
    this.set(root, word, harts | (1 << (hart & 31)));
    return ((harts >>> (hart & 31)) & 1) === 1;
  }

  /** A page that was not used lately (second chance), other than these two; all pages are taken. */
  victim(keep: number, keepToo: number): number {
    let page = this.words.readOnce(HAND);
    for (;;) {
      page = page + 1 < this.nrPages ? page + 1 : 0;
      if (page === keep || page === keepToo) continue;
      if (this.get(page, PAGE_USED) === 0) break;
      this.set(page, PAGE_USED, 0);
    }
    // What is remembered of look-ups did not show.
    this.nextGeneration();
    this.words.writeOnce(HAND, page);
    return page;
  }

  /** Number of the page with its birth: not another page's, and not this one's when it is taken anew. */
  handle(page: number): number {
    return this.get(page, BIRTH) * MAX_SHADOW_PAGES + page;
  }

  /** A number above 0 that no other page has, as long as its birth's number does not come round. */
  idOf(handle: number): number {
    return Math.floor(handle / MAX_SHADOW_PAGES);
  }

  /** Address of the word that has `idOf` as long as the page is what it is. */
  idAddrOf(page: number): number {
    return this.pagesAddr + (page * WORDS_PER_PAGE + BIRTH) * 4;
  }

  /** Address of the words of its entries. */
  addrOf(page: number): number {
    return this.entriesAddr + page * ENTRIES * 4;
  }

  pageOf(handle: number): number {
    return handle % MAX_SHADOW_PAGES;
  }

  isLive(handle: number): boolean {
    return this.get(handle % MAX_SHADOW_PAGES, BIRTH) === Math.floor(handle / MAX_SHADOW_PAGES);
  }
}

function checkNrPages(nrPages: number): void {
  if (Number.isInteger(nrPages) && nrPages >= MIN_SHADOW_PAGES && nrPages <= MAX_SHADOW_PAGES) return;
  const most = nrPages > MAX_SHADOW_PAGES ? `${MAX_SHADOW_PAGES} at most` : `${MIN_SHADOW_PAGES} at least`;
  throw new KernelError('EINVAL', 'createVm', `nrShadowPages ${nrPages} must be ${most}`);
}

/** A power of two. */
function nrBuckets(nrPages: number): number {
  return 2 ** Math.ceil(Math.log2(nrPages));
}

function lenBytes(nrPages: number): number {
  return (NR_POOL_WORDS + nrBuckets(nrPages) + nrPages * (WORDS_PER_PAGE + ENTRIES * WORDS_PER_ENTRY)) * 4;
}
