import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FastFault } from '../../src/kvm/fastfault.js';
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from '../../src/kvm/memregion.js';
import { DIRECT_A, DIRECT_V, DIRECT_W, Memslot, memslotBytes } from '../../src/kvm/memslot.js';
import { type NeighbourLoop, neighbourLoopOf } from '../../src/kvm/neighbourloop.js';
import { Prefetch } from '../../src/kvm/prefetch.js';
import { ShadowPages } from '../../src/kvm/shadow.js';
import { SPTE_R, SPTE_U, SPTE_V, SPTE_W } from '../../src/kvm/spte.js';
import { Host } from '../../src/mm/index.js';
import { PTE_PRESENT, PTE_READ, PTE_WRITE, peekPte } from '../../src/mm/pgtable/pte.js';
import { PTE_A, PTE_D, PTE_R, PTE_U, PTE_V, PTE_W, PTE_X } from '../../src/riscv/index.js';

/**
 * Neighbours entered in WebAssembly (kvm/neighbourloop.ts) beside the twin in TypeScript: of the same guest table, slots and host ptes both leave every
 * word of the memory the same.
 */

const PAGE = 4096;
const NR_ENTRIES = 512;
const ROOT = 0x10000;
/** Two slots side by side, whose pages lie apart and across leaf tables of the host; a hole after them. */
const SLOT_PAGES = 600;
const FIRST_GFN = 0x100;
const FIRST_VPN = 300;
const OTHER_VPN = 2100;
const NR_REGIONS = 6;
const [TABLE_GFN, MIDDLE_GFN, ROOT_GFN] = [FIRST_GFN, FIRST_GFN + 1, FIRST_GFN + 2];
const VPN = 0x200;

interface Case {
  readonly seed: number;
  readonly write: boolean;
  readonly flags: number;
}

/** What one number makes of it: the same for both. */
function random(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d);
    state = (state ^ (state >>> 12) ^ 0x9e3779b9) | 0;
    return (state >>> 8) % below;
  };
}

class World {
  private readonly host = new Host({ frames: 64, arenaBytes: 2 ** 20 });
  private readonly slots: Memslot[];
  private readonly shadow: ShadowPages;
  private readonly i32 = new Int32Array(this.host.memory.buffer);
  private readonly ptesAddr = this.host.arenaAlloc((NR_REGIONS + 1) * NR_ENTRIES * 4, PAGE);
  private readonly missing: number;
  private readonly first: number;
  nrEntered = 0;
  nrCalls = 0;

  constructor({ seed, flags }: Case) {
    const pick = random(seed);
    const { host } = this;
    this.slots = [FIRST_VPN, OTHER_VPN].map((baseVpn, slot) => this.slotOf(slot, baseVpn, flags));
    this.missing = pick(NR_REGIONS);
    this.shadow = ShadowPages.create(host, this.tables.slots, 6, () => {});
    const table = host.arenaAlloc(PAGE, PAGE);
    this.fillHostPtes(pick);
    this.fillDirect(pick);
    this.slots[0]!.direct.writeOnce(0, table | DIRECT_V | DIRECT_W);
    this.fillGuestTable(pick, table >>> 2);
    // Chains that the neighbours come before.
    for (let k = 0; k < NR_ENTRIES; k += 1 + pick(9)) this.install(0x400 + k, MIDDLE_GFN, FIRST_GFN + 3 + pick(1100));
    for (let k = 3; k < NR_ENTRIES; k += 20 + pick(50)) this.install(VPN + k, TABLE_GFN, FIRST_GFN + 3 + pick(1100));
    this.install(VPN, TABLE_GFN, FIRST_GFN + 5);
    this.first = this.shadow.installed;
  }

  private readonly tables = {
    invalidate: { inProgress: 0 },
    slots: { find: (gfn: number) => this.slots.find((slot) => slot.contains(gfn)) },
    installDirect: () => {
      throw new Error('a neighbour is no fault');
    },
  };

  /** Some page of the memory: what is warmed is read. */
  private pfn(i: number): number {
    return 1 + (i % (this.host.u8.length / PAGE - 1));
  }

  private slotOf(slot: number, baseVpn: number, flags: number): Memslot {
    const arenaAddr = this.host.arenaAlloc(memslotBytes(SLOT_PAGES), 8);
    this.i32.fill(0, arenaAddr / 4, (arenaAddr + memslotBytes(SLOT_PAGES)) / 4);
    const baseGfn = FIRST_GFN + slot * SLOT_PAGES;
    return new Memslot(this.host.memory, {
      slot,
      baseGfn,
      nrPages: SLOT_PAGES,
      baseVpn,
      flags,
      arenaAddr,
      generation: 0,
    });
  }

  private fillHostPtes(pick: (below: number) => number): void {
    for (let i = 0; i < (NR_REGIONS + 1) * NR_ENTRIES; i++) {
      const flags = [PTE_PRESENT | PTE_READ | PTE_WRITE, PTE_PRESENT | PTE_READ, PTE_PRESENT, PTE_READ, 0][pick(8)];
      this.i32[this.ptesAddr / 4 + i] = (this.pfn(i) << 12) | (flags ?? PTE_PRESENT | PTE_READ | PTE_WRITE);
    }
  }

  private fillDirect(pick: (below: number) => number): void {
    for (const slot of this.slots)
      for (let i = 0; i < SLOT_PAGES; i++) {
        const there = pick(3) === 0 ? DIRECT_V | [0, DIRECT_W, DIRECT_A, DIRECT_W | DIRECT_A][pick(4)]! : 0;
        slot.direct.writeOnce(i, there === 0 ? 0 : (this.pfn(7 + 3 * i + slot.slot) << 12) | there);
      }
  }

  /** Runs of guest frames, in either slot, across the border, and beyond. */
  private fillGuestTable(pick: (below: number) => number, at: number): void {
    let gfn = FIRST_GFN + 10;
    for (let k = 0; k < NR_ENTRIES; k++) {
      gfn = pick(12) === 0 ? FIRST_GFN + pick(2 * SLOT_PAGES + 40) : gfn + 1;
      let flags = PTE_V | PTE_A | PTE_R | PTE_W | PTE_D;
      if (pick(3) === 0) flags ^= [PTE_V, PTE_A, PTE_R, PTE_W, PTE_D, PTE_X, PTE_U, PTE_R | PTE_W][pick(8)]!;
      this.i32[at + 2 * k] = (gfn << 10) | flags;
      this.i32[at + 2 * k + 1] = pick(20) === 0 ? 1 << pick(32) : 0;
    }
  }

  /** An entry that is there already. */
  private install(vpn: number, table: number, gfn: number): void {
    const { shadow } = this;
    const slot = this.tables.slots.find(gfn)!;
    if ((slot.direct.readOnce(gfn - slot.baseGfn) & DIRECT_V) === 0)
      slot.direct.writeOnce(gfn - slot.baseGfn, (this.pfn(5 * gfn) << 12) | DIRECT_V);
    const walk = { gpa: gfn * PAGE, flags: SPTE_R | SPTE_W | SPTE_U, level: 0, tables: [table, MIDDLE_GFN, ROOT_GFN] };
    shadow.install(shadow.getRoot((8n << 60n) | BigInt(ROOT), 0), vpn, walk, shadow.generation);
  }

  /** Faults in sequence, as far as the table goes; all of memory after it. `loop` as it is asked. */
  private run(loop: NeighbourLoop | undefined, write: boolean): Uint8Array {
    const { shadow } = this;
    const peekTable = (vpn: number) => (vpn >>> 9 === this.missing ? 0 : NR_ENTRIES * (1 + (vpn >>> 9)));
    const peek = (index: number) => peekPte(this.i32[this.ptesAddr / 4 + index]!);
    const pages = { ptesAddr: this.ptesAddr, peekTable, peekPte: peek };
    const prefetch = new Prefetch(this.tables, shadow, new FastFault(this.tables, pages), this.i32, loop);
    for (const k of [0, 1, 10, 27, 60, 125, 254, 383, 511]) prefetch.after(this.first + k, VPN + k, 0, write);
    return this.host.u8.slice();
  }

  /** What both leave behind, of the same memory. */
  both(write: boolean): [Uint8Array, Uint8Array] {
    const { u8 } = this.host;
    const before = u8.slice();
    const entered = this.shadow.stats().prefetched;
    const twin = this.run(undefined, write);
    this.nrEntered = this.shadow.stats().prefetched - entered;
    u8.set(before);
    const real = neighbourLoopOf(this.host.memory)!;
    const loop: NeighbourLoop = {
      enter: (...args) => {
        this.nrCalls++;
        return real.enter(...args);
      },
      warm: real.warm,
    };
    return [twin, this.run(loop, write)];
  }
}

const caseOf = fc.record({
  seed: fc.integer(),
  write: fc.boolean(),
  flags: fc.constantFrom(0, 0, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY),
});

test('N3 N5 N15: neighbours are entered in WebAssembly as they are in TypeScript, to the word', () => {
  let nrEntered = 0;
  let nrCalls = 0;
  fc.assert(
    fc.property(caseOf, (c) => {
      const w = new World(c);
      const [twin, loop] = w.both(c.write);
      expect(Buffer.compare(twin, loop)).toBe(0);
      nrEntered += w.nrEntered;
      nrCalls += w.nrCalls;
    }),
    { numRuns: 60 },
  );
  expect(nrEntered).toBeGreaterThan(2000);
  // More than one for each of the seven stretches: frames do lie elsewhere in between.
  expect(nrCalls).toBeGreaterThan(60 * 16);
});

test('what warms caches reads pages and writes nothing', () => {
  const host = new Host({ frames: 64, arenaBytes: 2 ** 16 });
  const at = host.arenaAlloc(16, 16);
  const i32 = new Int32Array(host.memory.buffer);
  const last = host.u8.length / PAGE - 1;
  i32.set([0, (last << 12) | SPTE_V, 0, (last << 12) | SPTE_V], at / 4);
  i32[(last * PAGE + PAGE - 4) / 4] = 77;
  const before = host.u8.slice();
  const loop = neighbourLoopOf(host.memory)!;
  expect(loop.warm(at, at + 8, PAGE - 4)).toBe(77);
  expect(loop.warm(at, at + 16, PAGE - 4)).toBe(0);
  expect(Buffer.compare(host.u8, before)).toBe(0);
});
