import { FastFault, type FaultTables } from '../../src/kvm/fastfault.js';
import { DIRECT_A, DIRECT_T, DIRECT_V, DIRECT_W, Memslot, memslotBytes } from '../../src/kvm/memslot.js';
import { neighbourLoopOf } from '../../src/kvm/neighbourloop.js';
import { Prefetch } from '../../src/kvm/prefetch.js';
import type { GfnLookup } from '../../src/kvm/rmap.js';
import { ANY_VPN, ShadowPages } from '../../src/kvm/shadow.js';
import { checkShadowPages } from '../../src/kvm/shadowcheck.js';
import { SPTE_R, SPTE_U, SPTE_W, SPTE_X } from '../../src/kvm/spte.js';
import { SuperpageRange } from '../../src/kvm/superpages.js';
import { Host } from '../../src/mm/index.js';
import { PTE_PRESENT, PTE_READ, PTE_WRITE, peekPte } from '../../src/mm/pgtable/pte.js';
import {
  type Access,
  MMU_OK,
  PTE_A,
  PTE_D,
  PTE_R,
  PTE_U,
  PTE_V,
  PTE_W,
  PTE_X,
  Sv39Walk,
} from '../../src/riscv/index.js';

/**
 * Shadow paging without harts: guest memory of a few frames, two threads' views of one set of shadow pages, and what a TLB
 * does. Beside it a history of every pte, from which `History.allows` says what a hart may use by the privileged manual: walks
 * read from the root down, at any time since the fences that concern them and since the tables are the hart's.
 */

export const NR_GFNS = 1024;
const PAGE = 4096;
const NR_FRAMES = 24;
export const RIGHTS = SPTE_R | SPTE_W | SPTE_X | SPTE_U;
export const SLOTS = [0, 1, 511] as const;

interface Value {
  readonly since: number;
  readonly low: number;
  readonly ppn: number;
}

type LeafSince = (level: number) => number;

/** Values of each pte, oldest first. */
class History {
  private readonly values = new Map<number, Value[]>();

  record(gfn: number, slot: number, since: number, low: number, ppn: number): void {
    const key = gfn * 512 + slot;
    const list = this.values.get(key) ?? [{ since: 0, low: 0, ppn: 0 }];
    const last = list.at(-1)!;
    if (last.low !== low || last.ppn !== ppn) list.push({ since, low, ppn });
    this.values.set(key, list);
  }

  /**
   * Whether a hart may translate `vpn` to `gfn` with `rights`: all read since `since` at least, a leaf of a level since `leafSince` of it. In one
   * walk no pte is read before the one that leads to it.
   */
  allows(root: number, vpn: number, gfn: number, rights: number, since: number, leafSince: LeafSince): boolean {
    return this.allowsBelow(root, 2, vpn, gfn, rights, since, leafSince);
  }

  private allowsBelow(
    table: number,
    level: number,
    vpn: number,
    gfn: number,
    rights: number,
    since: number,
    leafSince: LeafSince,
  ): boolean {
    const list = this.values.get(table * 512 + ((vpn >>> (9 * level)) & 511)) ?? [];
    return list.some(({ since: begin, low, ppn }, i) => {
      const end = list[i + 1]?.since ?? Number.POSITIVE_INFINITY;
      if ((low & PTE_V) === 0 || end <= since) return false;
      if ((low & (PTE_R | PTE_X)) !== 0) return end > leafSince(level) && leafAllows(low, ppn, level, vpn, gfn, rights);
      return level > 0 && this.allowsBelow(ppn, level - 1, vpn, gfn, rights, Math.max(begin, since), leafSince);
    });
  }
}

function leafAllows(low: number, ppn: number, level: number, vpn: number, gfn: number, rights: number): boolean {
  const extent = 512 ** level;
  const own = low & (PTE_R | PTE_X | PTE_U | ((low & PTE_D) !== 0 ? PTE_W : 0));
  return ppn + (vpn % extent) === gfn && (low & PTE_A) !== 0 && (rights & ~own) === 0 && ((rights ^ own) & PTE_U) === 0;
}

/** A hart: its TLB, and the times from which on it may have read. */
class ModelHart {
  readonly id: number;
  readonly shadow: ShadowPages;
  readonly tlb = new Map<number, { gfn: number; spte: number }>();
  readonly superpages = new SuperpageRange();
  readonly walk: Sv39Walk;
  readonly prefetch: Prefetch;
  handle = -1;
  root = 2;
  asid = 0;
  /** A walk that has not been entered yet. */
  pending: { vpn: number; generation: number; write: boolean } | undefined;
  private readonly firstUse = new Map<string, number>();
  private readonly asidFences = new Map<number, number>();
  private fenceAll = 0;
  /** The last of each address and ASID. */
  private readonly pageFences = new Map<string, { vpn: number; asid: number | undefined; now: number }>();

  constructor(id: number, shadow: ShadowPages, walk: Sv39Walk, prefetch: Prefetch) {
    this.id = id;
    this.shadow = shadow;
    this.walk = walk;
    this.prefetch = prefetch;
  }

  load(root: number, asid: number, now: number): void {
    this.root = root;
    this.asid = asid;
    const key = `${root}:${asid}`;
    if (!this.firstUse.has(key)) this.firstUse.set(key, now);
  }

  fence(vpn: number | undefined, asid: number | undefined, now: number): void {
    if (vpn !== undefined) this.pageFences.set(`${vpn}:${asid}`, { vpn, asid, now });
    else if (asid !== undefined) this.asidFences.set(asid, now);
    else this.fenceAll = now;
  }

  get since(): number {
    return Math.max(
      this.firstUse.get(`${this.root}:${this.asid}`)!,
      this.fenceAll,
      this.asidFences.get(this.asid) ?? 0,
    );
  }

  /** When a leaf of `level` that translates `vpn` was last fenced for, by an address in it. */
  leafSince(vpn: number, level: number): number {
    let since = 0;
    for (const fence of this.pageFences.values()) {
      if (fence.asid !== undefined && fence.asid !== this.asid) continue;
      if (fence.vpn >>> (9 * level) === vpn >>> (9 * level)) since = Math.max(since, fence.now);
    }
    return since;
  }

  forget(vpn: number): void {
    if (vpn === ANY_VPN) this.tlb.clear();
    else this.tlb.delete(vpn);
  }
}

export class ShadowWorld {
  readonly host = new Host({ frames: 64, arenaBytes: 2 ** 20 });
  readonly harts: ModelHart[];
  readonly slot: Memslot;
  now = 1;
  private readonly history = new History();
  private readonly i32: Int32Array;
  private readonly frames: number[] = [];
  /** Frame and contents of each guest frame that was ever used; a frame of -1 is swapped out. */
  private readonly ram = new Map<number, { frame: number; bytes: Int32Array }>();

  constructor(nrPages: number) {
    const { host } = this;
    const slots = () => lookupOf(slot);
    const record = { slot: 0, baseGfn: 0, nrPages: NR_GFNS, baseVpn: 0, flags: 0, generation: 0 };
    const arenaAddr = host.arenaAlloc(memslotBytes(NR_GFNS), 8);
    const slot = new Memslot(host.memory, { ...record, arenaAddr });
    this.slot = slot;
    this.i32 = new Int32Array(host.memory.buffer);
    this.i32.fill(0, arenaAddr / 4, (arenaAddr + memslotBytes(NR_GFNS)) / 4);
    const first = host.arenaAlloc(NR_FRAMES * PAGE, PAGE) / PAGE;
    for (let i = 0; i < NR_FRAMES; i++) this.frames.push(first + i);
    const a = ShadowPages.create(host, slots(), nrPages, (vpn) => this.harts[0]!.forget(vpn));
    const b = ShadowPages.attach(host.memory, structuredClone(a.descriptor), slots(), (vpn) =>
      this.harts[1]!.forget(vpn),
    );
    this.harts = [a, b].map(
      (shadow, id) => new ModelHart(id, shadow, new Sv39Walk(this.i32), this.prefetchOf(shadow, slots())),
    );
    for (const hart of this.harts) this.switchTo(hart, 2, 0);
  }

  /** No bracket is ever under way here: what the host takes, it takes at once. */
  private prefetchOf(shadow: ShadowPages, slots: FaultTables['slots']): Prefetch {
    const tables = { invalidate: { inProgress: 0 }, slots, installDirect: () => {} };
    const ptesAddr = this.host.arenaAlloc((NR_GFNS + 512) * 4, 4);
    const peekTable = (gfn: number): number => {
      const table = 512 + (gfn & ~511);
      for (let i = 0; i < 512; i++) this.i32[ptesAddr / 4 + table + i] = this.hostPte(table - 512 + i);
      return table;
    };
    const pages = { ptesAddr, peekTable, peekPte: (index: number) => peekPte(this.i32[ptesAddr / 4 + index]!) };
    return new Prefetch(tables, shadow, new FastFault(tables, pages), this.i32, neighbourLoopOf(this.host.memory));
  }

  // The host.

  private hostPte(gfn: number): number {
    const frame = this.ram.get(gfn)?.frame ?? -1;
    return frame < 0 ? 0 : (frame << 12) | PTE_PRESENT | PTE_READ | PTE_WRITE;
  }

  /** The frame of a guest frame, brought in if need be, at the expense of the others that are not `held`. */
  private frameOf(gfn: number, write: boolean): number {
    const page = this.ram.get(gfn) ?? { frame: -1, bytes: new Int32Array(PAGE / 4) };
    this.ram.set(gfn, page);
    if (page.frame < 0) {
      if (this.frames.length === 0) this.swapOut([...this.ram].find(([g, p]) => p.frame >= 0 && g !== gfn)![0]);
      page.frame = this.frames.shift()!;
      this.i32.set(page.bytes, page.frame * (PAGE / 4));
    }
    const old = this.slot.direct.readOnce(gfn);
    const flags = DIRECT_V | DIRECT_A | (write ? DIRECT_W : 0) | (old & (DIRECT_W | DIRECT_T));
    this.slot.direct.writeOnce(gfn, (page.frame << 12) | flags);
    return page.frame;
  }

  /** The notifier: the frame goes, and every TLB forgets it; the zapping thread's by what it is told, the other by request. */
  swapOut(gfn: number, zapper = 0): void {
    const page = this.ram.get(gfn);
    if (page === undefined || page.frame < 0) return;
    const { shadow } = this.harts[zapper]!;
    shadow.zapGfn(this.slot, gfn);
    this.slot.direct.writeOnce(gfn, 0);
    this.harts[1 - zapper]!.tlb.clear();
    for (const [vpn, entry] of this.harts[zapper]!.tlb)
      if (entry.gfn === gfn) throw new Error(`the TLB keeps vpn ${vpn.toString(16)} of gfn ${gfn}`);
    const at = page.frame * (PAGE / 4);
    page.bytes.set(this.i32.subarray(at, at + PAGE / 4));
    this.i32.fill(-1, at, at + PAGE / 4);
    this.frames.push(page.frame);
    page.frame = -1;
  }

  age(gfn: number, ager = 0): void {
    const used = this.harts.some(({ tlb }) => [...tlb.values()].some((entry) => entry.gfn === gfn));
    const direct = this.slot.direct.readOnce(gfn);
    if ((direct & DIRECT_V) === 0) return;
    const young = this.harts[ager]!.shadow.clearYoung(this.slot, gfn);
    if (used && !young) throw new Error(`gfn ${gfn} is in a TLB and is not young`);
    if (young) this.harts[1 - ager]!.tlb.clear();
    for (const [vpn, entry] of this.harts[ager]!.tlb)
      if (entry.gfn === gfn) throw new Error(`the use of vpn ${vpn.toString(16)}, gfn ${gfn}, would not show`);
  }

  // The guest.

  /** Writes a pte: V and the flags with a guest frame. */
  writePte(table: number, slot: number, gfn: number, flags: number): void {
    this.now++;
    const at = this.frameOf(table, true) * (PAGE / 4) + slot * 2;
    this.i32[at] = (gfn << 10) | flags;
    this.i32[at + 1] = 0;
    this.note(table, slot);
  }

  private note(table: number, slot: number): void {
    const at = this.frameOf(table, true) * (PAGE / 4) + slot * 2;
    const low = this.i32[at]!;
    this.history.record(table, slot, this.now, low & 0x3ff, low >>> 10);
  }

  /** Table, slot and first guest frame of the leaf pte that translates `vpn` now. */
  leafOf(root: number, vpn: number): { table: number; slot: number; gfn: number } | undefined {
    let table = root;
    for (let level = 2; level >= 0; level--) {
      const slot = (vpn >>> (9 * level)) & 511;
      const low = this.i32[this.frameOf(table, true) * (PAGE / 4) + slot * 2]!;
      if ((low & PTE_V) === 0) return undefined;
      if ((low & (PTE_R | PTE_X)) !== 0) return { table, slot, gfn: low >>> 10 };
      table = low >>> 10;
    }
    return undefined;
  }

  switchTo(hart: ModelHart, root: number, asid: number): void {
    this.now++;
    hart.pending = undefined;
    hart.tlb.clear();
    hart.superpages.clear();
    hart.load(root, asid, this.now);
    hart.handle = hart.shadow.getRoot(this.satp(hart), hart.id);
  }

  private satp({ root, asid }: ModelHart): bigint {
    return (8n << 60n) | (BigInt(asid) << 44n) | BigInt(root);
  }

  fence(hart: ModelHart, vpn: number | undefined, asid: number | undefined): void {
    this.now++;
    hart.pending = undefined;
    if (vpn === undefined || hart.superpages.covers(vpn)) {
      hart.tlb.clear();
      hart.superpages.clear();
    } else hart.tlb.delete(vpn);
    hart.shadow.fence(vpn, asid);
    hart.fence(vpn, asid, this.now);
  }

  /** An access by TLB, shadow pages, or a walk; `enter` false leaves off after the walk. */
  access(hart: ModelHart, vpn: number, access: Access, enter = true): void {
    this.now++;
    const wanted = access === 1 ? SPTE_W : SPTE_R;
    const cached = hart.tlb.get(vpn);
    if (cached !== undefined && (cached.spte & wanted) !== 0) return this.used(hart, vpn, cached.gfn, cached.spte);
    const { shadow } = hart;
    const peeked = shadow.peek(hart.handle, vpn);
    if ((peeked & wanted) !== 0) return this.fill(hart, vpn, this.gfnOf(peeked), peeked, shadow.level);
    if (!shadow.isLive(hart.handle)) hart.handle = shadow.getRoot(this.satp(hart), hart.id);
    const index = shadow.lookup(hart.handle, vpn);
    const spte = shadow.spte(index);
    if ((spte & wanted) !== 0) {
      shadow.markAccessed(index);
      return this.fill(hart, vpn, shadow.gfn(index), spte, shadow.level);
    }
    const { generation } = shadow;
    if (!this.walk(hart, vpn, access)) return;
    hart.pending = { vpn, generation, write: access === 1 };
    if (enter) this.enter(hart);
  }

  private walk(hart: ModelHart, vpn: number, access: Access): boolean {
    const { walk } = hart;
    const visited: [number, number][] = [];
    const source = {
      pteAddress: (gpa: number): number => {
        const gfn = Math.floor(gpa / PAGE);
        if (gfn >= NR_GFNS) return -4;
        visited.push([gfn, (gpa % PAGE) / 8]);
        return this.frameOf(gfn, true) * PAGE + (gpa % PAGE);
      },
    };
    const result = walk.walk(source, hart.root, signed(vpn) * PAGE, access, true, false, false);
    for (const [gfn, slot] of visited) this.note(gfn, slot);
    return result === MMU_OK && walk.gpa / PAGE < NR_GFNS;
  }

  /** Enters what the last walk found. */
  enter(hart: ModelHart): void {
    const { pending, walk, shadow } = hart;
    hart.pending = undefined;
    if (pending === undefined) return;
    const gfn = walk.gpa / PAGE;
    this.frameOf(gfn, pending.write);
    const spte = shadow.install(hart.handle, pending.vpn, walk, pending.generation);
    if (spte === 0) throw new Error(`gfn ${gfn} is there, and was not entered`);
    if (shadow.installed >= 0) hart.prefetch.after(shadow.installed, pending.vpn, 0, pending.write);
    this.fill(hart, pending.vpn, gfn, spte, walk.level);
  }

  private gfnOf(spte: number): number {
    const found = [...this.ram].find(([, { frame }]) => frame === spte >>> 12);
    if (found === undefined) throw new Error(`frame ${spte >>> 12} is nobody's`);
    return found[0];
  }

  private fill(hart: ModelHart, vpn: number, gfn: number, spte: number, level: number): void {
    if (level > 0) hart.superpages.note(vpn, level);
    hart.tlb.set(vpn, { gfn, spte });
    this.used(hart, vpn, gfn, spte);
  }

  /** N3, and the manual's word on what a hart may use. */
  private used(hart: ModelHart, vpn: number, gfn: number, spte: number): void {
    const what = `hart ${hart.id}: vpn ${vpn.toString(16)} of root ${hart.root}, gfn ${gfn}, spte 0x${spte.toString(16)}`;
    if (this.ram.get(gfn)?.frame !== spte >>> 12) throw new Error(`${what}: the frame is another`);
    if (!this.history.allows(hart.root, vpn, gfn, spte & RIGHTS, hart.since, (level) => hart.leafSince(vpn, level)))
      throw new Error(`${what}: no pte since the fences allows it`);
  }

  check(): void {
    const { shadow } = this.harts[0]!;
    checkShadowPages(shadow, lookupOf(this.slot));
    const chained: number[] = [];
    for (let gfn = 0; gfn < NR_GFNS; gfn++) {
      for (const index of shadow.chain(this.slot.rmap.readOnce(gfn))) {
        if (shadow.gfn(index) !== gfn) throw new Error(`spte ${index} is in the chain of gfn ${gfn}`);
        chained.push(index);
      }
    }
    const leaves: number[] = [];
    shadow.forEachLeaf((index) => leaves.push(index));
    if (`${chained.sort()}` !== `${leaves.sort()}`) throw new Error(`chains ${chained} are not the sptes ${leaves}`);
  }
}

/** Sv39's sign extension, of 27 bits of vpn. */
function signed(vpn: number): number {
  return (vpn << 5) >> 5;
}

function lookupOf(slot: Memslot): GfnLookup & FaultTables['slots'] {
  return { find: (gfn) => (gfn < NR_GFNS ? slot : undefined) };
}
