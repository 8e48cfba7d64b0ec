import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CSR,
  MMU_OK,
  MODE_SUPERVISOR,
  MODE_USER,
  PTE_A,
  PTE_D,
  PTE_R,
  PTE_U,
  PTE_V,
  PTE_W,
  PTE_X,
  SSTATUS_MXR,
  SSTATUS_SUM,
  Sv39Walk,
} from '../../src/riscv/index.js';
import { addi, lw, sfenceVma, sw } from './assemble.js';
import { referenceWalk } from './sv39-reference.js';
import { CODE, RAM_BASE, RAM_BYTES, TestHart, VECTOR } from './testhart.js';

/** Sv39: what hart and walker make of any page table, against the algorithm of the manual (sv39-reference.ts). */

const ROOT = RAM_BASE + 0x20000;
const MIDDLE = ROOT + 0x1000;
const LEAF = ROOT + 0x2000;
const TABLES_BYTES = 0x3000;
const ALL = PTE_V | PTE_R | PTE_W | PTE_X | PTE_A | PTE_D;
const SATP_SV39 = 8n << 60n;
/** The gigabyte that code runs in, mapped to itself. */
const CODE_INDEX = 2;

type Access = 'read' | 'write' | 'exec';
const FAULTS = { exec: [12, 1], read: [13, 5], write: [15, 7] } as const;

interface Try {
  access: Access;
  user: boolean;
  sum: boolean;
  mxr: boolean;
  /** Offset in the page, a multiple of 4. */
  offset: number;
}

interface Table {
  /** Of virtual address and tables: not CODE_INDEX at the top. */
  vpn: number[];
  /** 0: the table goes on; else the level's leaf flags. */
  leafLevel: number;
  flags: number;
  /** Flags of the entries above, beside V. */
  upper: number;
  /** Bits 54 and up of the leaf, and of an entry above. */
  reserved: number;
  reservedUpper: number;
  misaligned: boolean;
  /** The entry above the leaf leads out of memory. */
  lost: boolean;
}

const machine = new TestHart();
const tables = machine.ram.subarray(ROOT - RAM_BASE, ROOT - RAM_BASE + TABLES_BYTES);

const seldom = <T>(usual: T, other: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 12, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: other });

const anyTry: fc.Arbitrary<Try> = fc.record({
  access: fc.constantFrom<Access>('read', 'write', 'exec'),
  user: fc.boolean(),
  sum: fc.boolean(),
  mxr: fc.boolean(),
  offset: fc.nat(1023).map((n) => 4 * n),
});

const anyTable: fc.Arbitrary<Table> = fc.record({
  vpn: fc
    .tuple(fc.nat(511), fc.nat(511), fc.integer({ min: 0, max: 511 }))
    .map(([a, b, c]) => [a, b, c === CODE_INDEX ? 3 : c]),
  leafLevel: fc.constantFrom(0, 0, 1, 2),
  flags: fc.oneof(fc.nat(255), fc.constantFrom(ALL, ALL | PTE_U, ALL & ~PTE_D, (ALL | PTE_U) & ~(PTE_A | PTE_D))),
  upper: seldom(0, fc.nat(255)),
  reserved: seldom(0, fc.nat(1023)),
  reservedUpper: seldom(0, fc.nat(1023)),
  misaligned: seldom(false, fc.constant(true)),
  lost: seldom(false, fc.constant(true)),
});

const pte = (gpa: number, flags: number, reserved = 0): bigint =>
  ((BigInt(gpa) >> 12n) << 10n) | BigInt(flags) | (BigInt(reserved) << 54n);

function setPte(table: number, index: number, value: bigint): void {
  machine.view.setBigUint64(table - RAM_BASE + 8 * index, value, true);
}

/** Physical address that the leaf maps to: in RAM for what `vpn` leaves of it. */
function leafTarget(t: Table): number {
  const base = [RAM_BASE + 0x100000, RAM_BASE + 0x200000, RAM_BASE][t.leafLevel]!;
  return base + (t.misaligned && t.leafLevel > 0 ? 4096 : 0);
}

/** A gigapage's target reaches beyond our RAM: not so its second 2 MiB, where no tables are either. */
function vpnOf(t: Table): number[] {
  return t.leafLevel === 2 ? [t.vpn[0]!, 1, t.vpn[2]!] : t.vpn;
}

function build(t: Table): void {
  tables.fill(0);
  const vpn = vpnOf(t);
  const leaf = pte(leafTarget(t), t.flags, t.reserved);
  const next = (table: number, above: boolean) =>
    pte(t.lost && above ? RAM_BASE + RAM_BYTES : table, t.upper | PTE_V, t.reservedUpper);
  if (t.leafLevel === 2) return setPte(ROOT, vpn[2]!, leaf);
  setPte(ROOT, vpn[2]!, next(MIDDLE, t.leafLevel === 1));
  if (t.leafLevel === 1) return setPte(MIDDLE, vpn[1]!, leaf);
  setPte(MIDDLE, vpn[1]!, next(LEAF, true));
  setPte(LEAF, vpn[0]!, leaf);
}

function vaOf(t: Table, offset: number): bigint {
  const vpn = vpnOf(t);
  return BigInt.asUintN(
    64,
    BigInt.asIntN(39, (BigInt(vpn[2]!) << 30n) | (BigInt(vpn[1]!) << 21n) | (BigInt(vpn[0]!) << 12n) | BigInt(offset)),
  );
}

/** The code's own mapping, for the mode it runs in. */
function enter({ user, sum, mxr }: Try): void {
  machine.hart.setMode(user ? MODE_USER : MODE_SUPERVISOR);
  setPte(ROOT, CODE_INDEX, pte(RAM_BASE, ALL | (user ? PTE_U : 0)));
  machine.hart.tlb.flushFetches();
  machine.setCsr(CSR.sstatus, BigInt((sum ? SSTATUS_SUM : 0) | (mxr ? SSTATUS_MXR : 0)));
}

/** Memory at the physical address. */
const word = (gpa: number) => machine.view.getUint32(gpa - RAM_BASE, true);

const VALUE = 0x12345678;
const INSTRUCTION = addi(10, 0, 77);

function attempt(one: Try, va: bigint): ReturnType<TestHart['step']> {
  machine.x[11] = va;
  machine.x[10] = BigInt(VALUE);
  if (one.access === 'exec') return machine.step(va);
  machine.put(CODE, one.access === 'read' ? lw(10, 0, 11) : sw(10, 0, 11));
  return machine.step(BigInt(CODE));
}

/** Where the reference walks: our RAM, and what it has written itself, which must be there afterwards. */
class Walked {
  readonly root = ROOT;
  readonly written = new Map<bigint, bigint>();

  read(address: bigint): bigint | undefined {
    if (!inRam(Number(address))) return undefined;
    return this.written.get(address) ?? machine.view.getBigUint64(Number(address) - RAM_BASE, true);
  }

  write(address: bigint, pte: bigint): void {
    this.written.set(address, pte);
  }

  /** The tables hold what the walk set in them, and are otherwise as they were. */
  compare(before: Uint8Array): void {
    const view = new DataView(before.buffer);
    for (const [address, pte] of this.written) {
      const at = Number(address) - ROOT;
      if (at < TABLES_BYTES) view.setBigUint64(at, pte, true);
      else expect(machine.view.getBigUint64(Number(address) - RAM_BASE, true)).toBe(pte);
    }
    expect(Buffer.compare(tables, before)).toBe(0);
  }
}

const inRam = (gpa: number) => gpa >= RAM_BASE && gpa < RAM_BASE + RAM_BYTES;

/** What has been seen, so that the property is not of faults alone. */
const outcomes = new Set<string>();

function check(t: Table, one: Try): void {
  enter(one);
  const va = vaOf(t, one.offset);
  const before = tables.slice();
  const walked = new Walked();
  const expected = referenceWalk(walked, va, one);
  const physical = typeof expected === 'number';
  // Beyond RAM there are devices: not what is tested here.
  if (physical && !inRam(expected)) return;
  outcomes.add(`${one.access} ${physical ? `level ${t.leafLevel}` : expected}`);
  if (physical) machine.put(expected, INSTRUCTION);
  const step = attempt(one, va);
  if (physical) {
    expect(step.trap).toBeUndefined();
    compareValue(one.access, expected);
  } else {
    const cause = FAULTS[one.access][expected === 'page fault' ? 0 : 1];
    expect(step.trap).toEqual({ cause, tval: va, sepc: one.access === 'exec' ? va : BigInt(CODE) });
  }
  walked.compare(before);
}

function compareValue(access: Access, gpa: number): void {
  if (access === 'exec') expect(machine.x[10]).toBe(77n);
  else if (access === 'read') expect(machine.x[10]).toBe(BigInt(INSTRUCTION));
  else expect(word(gpa)).toBe(VALUE);
}

describe('Sv39', () => {
  it('translates and faults as the manual says, whatever was accessed before, in whatever mode', () => {
    fc.assert(
      fc.property(anyTable, fc.array(anyTry, { minLength: 1, maxLength: 6 }), (t, tries) => {
        build(t);
        machine.setCsr(CSR.satp, SATP_SV39 | BigInt(ROOT >>> 12));
        for (const one of tries) check(t, one);
      }),
      { numRuns: 1000, seed: 39 },
    );
    expect(outcomes.size).toBe(3 * 5);
    machine.setCsr(CSR.satp, 0n);
  });

  it('faults on addresses that are not canonical', () => {
    const t: Table = {
      vpn: [0, 0, 255],
      leafLevel: 0,
      flags: ALL,
      upper: 0,
      reserved: 0,
      reservedUpper: 0,
      misaligned: false,
      lost: false,
    };
    build(t);
    machine.setCsr(CSR.satp, SATP_SV39 | BigInt(ROOT >>> 12));
    for (const access of ['read', 'write', 'exec'] as const) {
      const one: Try = { access, user: false, sum: false, mxr: false, offset: 0 };
      enter(one);
      for (const va of [1n << 38n, 1n << 39n, (1n << 63n) | 0x3fc0000000n, 0xffffffbfc0000000n]) {
        const step = attempt(one, va);
        expect(step.trap, va.toString(16)).toMatchObject({ cause: FAULTS[access][0], tval: va });
      }
    }
    machine.setCsr(CSR.satp, 0n);
  });

  it('asks for the table page as written when it sets A or D, and only then', () => {
    build({
      vpn: [5, 6, 7],
      leafLevel: 0,
      flags: ALL & ~(PTE_A | PTE_D),
      upper: 0,
      reserved: 0,
      reservedUpper: 0,
      misaligned: false,
      lost: false,
    });
    const walk = new Sv39Walk(machine.engine.i32);
    const asked: [number, boolean][] = [];
    const source = {
      pteAddress(gpa: number, write: boolean) {
        asked.push([gpa, write]);
        return machine.mmu.host(gpa);
      },
    };
    const va = 7 * 2 ** 30 + 6 * 2 ** 21 + 5 * 4096;
    const go = (access: 0 | 1) => {
      asked.length = 0;
      expect(walk.walk(source, ROOT / 4096, va, access, false, false, false)).toBe(MMU_OK);
      return asked.filter(([, write]) => write).map(([gpa]) => gpa);
    };
    expect(go(0)).toEqual([LEAF + 40]);
    expect(go(0)).toEqual([]);
    expect(go(1)).toEqual([LEAF + 40]);
    expect(go(1)).toEqual([]);
    expect(asked.length).toBe(3);
  });
});

describe('sfence.vma', () => {
  /** Maps the va of `t` elsewhere, having read it and a neighbour through the old entry. */
  function remap(leafLevel: number, fence: number, neighbour: number): void {
    const t: Table = {
      vpn: [4, 1, 9],
      leafLevel,
      flags: ALL,
      upper: 0,
      reserved: 0,
      reservedUpper: 0,
      misaligned: false,
      lost: false,
    };
    const one: Try = { access: 'read', user: false, sum: false, mxr: false, offset: 0 };
    build(t);
    machine.setCsr(CSR.satp, SATP_SV39 | BigInt(ROOT >>> 12));
    enter(one);
    const va = vaOf(t, 0);
    const other = va + BigInt(neighbour);
    for (const address of [va, other]) expect(attempt(one, address).trap).toBeUndefined();
    const [table, index] = [
      [LEAF, 4],
      [MIDDLE, 1],
      [ROOT, 9],
    ][leafLevel] as [number, number];
    setPte(table, index, 0n);
    machine.put(CODE, fence);
    machine.x[11] = va;
    machine.x[12] = 0n;
    expect(machine.step(BigInt(CODE)).trap).toBeUndefined();
    for (const address of [va, other])
      expect(attempt(one, address).trap, address.toString(16)).toMatchObject({ cause: 13 });
    machine.setCsr(CSR.satp, 0n);
  }

  for (const [what, fence] of [
    ['for everything', sfenceVma(0, 0)],
    ['for an address', sfenceVma(11, 0)],
    ['for an address and an address space', sfenceVma(11, 12)],
  ] as const) {
    it(`${what} makes a changed entry of each level seen, by all addresses that it maps`, () => {
      remap(0, fence, 0x80);
      remap(1, fence, 0x5000);
      remap(2, fence, 0x200000);
    });
  }

  it('is illegal in U-mode', () => {
    machine.setCsr(CSR.satp, 0n);
    machine.hart.setMode(MODE_USER);
    machine.put(CODE, sfenceVma(0, 0));
    expect(machine.step(BigInt(CODE)).trap).toMatchObject({ cause: 2, tval: BigInt(sfenceVma(0, 0)) });
    expect(machine.hart.pc).toBe(BigInt(VECTOR));
  });
});
